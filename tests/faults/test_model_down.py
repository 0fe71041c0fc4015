"""A model server is down and stays down: no row waits for it that need not."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.faults.harness import Stack
from tests.faults.servers import ModelServer, wire_to_models

BASE_URL = """
update ai.vectorizer set config = jsonb_set(config, '{embedding,base_url}', to_jsonb(%s::text))
where name = 't'
"""


@pytest.fixture
def away(place: Path) -> Iterator[ModelServer]:
    """A model server besides the one that the workers use by themselves."""
    directory = place / "away"
    directory.mkdir()
    server = ModelServer(directory)
    server.start()
    yield server
    server.kill()


@pytest.mark.parametrize(
    ("faults", "rows"),
    [
        (None, 200),
        ({"crash_if_contains": "row"}, 1),
        ({"fail_next": -1, "status": 500}, 200),
        ({"fail_next": -1, "status": 503}, 200),
        ({"hang_if_contains": "e"}, 200),
    ],
    ids=["gone", "crashed", "failing", "overloaded", "hanging"],
)
def test_rows_in_hand_follow_their_vectorizer_to_another_server(
    stack: Stack, away: ModelServer, faults: dict[str, Any] | None, rows: int
) -> None:
    stack.configure(model_hosts=away.url, model_timeout="1s")
    stack.create_table(rows=rows)
    stack.execute(BASE_URL, away.url)
    if faults is None:
        away.kill()
    else:
        away.misbehave(**faults)
    stack.start_workers(1)
    stack.wait(lambda: stack.status()["state"] == "model down", "its model is down")
    stack.execute(BASE_URL, stack.models.url)
    stack.configure(model_hosts=stack.models.url)
    stack.settle()
    stack.wait(
        lambda: stack.execute("select resting from pgstack.workers") == [([],)],
        "nobody waits for the old server any more",
        seconds=45,  # its longest rest
    )


@pytest.mark.parametrize("way", ["stalled", "gone"])
def test_a_worker_that_is_cut_off_leaves_its_rows_to_another(
    stack: Stack, away: ModelServer, way: str
) -> None:
    stack.configure(model_timeout="1s")
    stack.create_table(rows=100)
    with wire_to_models(away) as (wire, url):
        stack.start_worker(models_url=url)
        stack.wait_until_connected()
        stack.wait_for_progress()
        if way == "stalled":
            wire.stall()
        else:
            away.kill()
        stack.execute("update t set body = 'cut off ' || id")
        stack.wait(lambda: stack.status()["state"] == "model down", "it is cut off")
        stack.start_worker()
        stack.wait(lambda: stack.status()["pending"] == 0, "the other worker has done it all")
        stack.compare()
        wire.resume()
        stack.stop()
