"""One text that the model cannot take: all others get their vectors, and it is set aside.

However it shows: as a refusal, as an internal error, as the end of the model server's
process, as a call without end; and behind a proxy, which takes connections all the same.
"""

from __future__ import annotations

from typing import Any

import pytest

from tests.faults.harness import Stack
from tests.faults.servers import wire_to_models

POISON = "hemlock"
WAYS: dict[str, dict[str, Any]] = {
    "refused": {"fail_if_contains": POISON},
    "error": {"fail_if_contains": POISON, "fail_if_status": 500},
    "proxy error": {"fail_if_contains": POISON, "fail_if_status": 502},
    "crash": {"crash_if_contains": POISON},
    "crash behind a proxy": {"crash_if_contains": POISON},
    "hang": {"hang_if_contains": POISON},
}


@pytest.mark.parametrize("way", WAYS)
def test_one_poisonous_row(stack: Stack, way: str) -> None:
    # Once is enough to see that only the poisonous row was blamed; a busy machine may be slow.
    stack.configure(max_attempts="2" if way == "hang" else "1")
    if way == "hang":
        stack.configure(model_timeout="1s")
    stack.create_table(rows=60)
    stack.execute("update t set body = %s where id = %s", POISON, stack.rng.randint(1, 60))
    stack.models.misbehave(**WAYS[way])
    with wire_to_models(stack.models) as (_, proxy):
        stack.start_worker(models_url=proxy if "behind" in way else "")
        isolate(stack, WAYS[way])
        assert stack.status()["last_error"]
        assert stack.execute("select count(*) > 0 from ai.vectorizer_errors where name = 't'") == [
            (True,)
        ]
        stack.models.clear()
        assert stack.execute("select pgstack.retry_vectorizer('t')") == [(1,)]
        stack.settle()
        stack.stop()


def isolate(stack: Stack, faults: dict[str, Any]) -> None:
    """Wait until the poisonous row is set aside and all others are embedded."""

    def isolated() -> bool:
        if not stack.models.alive():  # as a supervisor would
            stack.models.start()
            stack.models.misbehave(**faults)
        row = stack.status()
        if (row["pending"], row["failed"]) == (0, 0):
            # The new server embedded it before it was told to crash: once more, from nothing.
            gone = stack.execute("delete from t where body = %s returning id", POISON)
            if not gone:
                stack.execute("insert into t values (61, 'Once more', %s)", POISON)
        return (row["pending"], row["failed"]) == (0, 1)

    stack.wait(isolated, "all but the poisonous row are embedded, and it is set aside", seconds=60)
    stack.compare(failed=1)
