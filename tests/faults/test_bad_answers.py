"""A model server that is slow, fails or talks nonsense while rows flow, and then is mended."""

from __future__ import annotations

from typing import Any

from tests.faults.harness import Stack

# Nobody's row is to blame: all is made good without help.
TROUBLE: list[dict[str, Any]] = [
    {"latency_ms": 300},
    {"trickle_ms": 20},
    {"fail_next": -1, "status": 429, "retry_after": 1},
    {"fail_next": -1, "status": 429},
    {"fail_next": -1, "status": 503},
    {"reset": True},
]
# Rows may be suspected and set aside: a DBA queues them again.
NONSENSE: list[dict[str, Any]] = [
    {"fail_next": -1, "status": 400},
    {"fail_next": -1, "status": 500},
    {"wrong_dims": 3},
    {"nan": True},
    {"drop_one": True},
    {"truncate_body": True},
    {"html": True},
]


def suffer(stack: Stack, faults: dict[str, Any], calls: int = 2) -> None:
    """Let some calls meet a fault; then end it."""
    before = stack.models.stats()["total_calls"]
    stack.models.misbehave(**faults)
    stack.wait(
        lambda: stack.models.stats()["total_calls"] >= before + calls,
        f"{calls} calls meet {faults}",
    )
    stack.models.clear()


def test_trouble_that_passes(stack: Stack) -> None:
    stack.create_table(rows=50)
    stack.start_workers(2)
    with stack.writing():
        for faults in stack.rng.sample(TROUBLE, len(TROUBLE)):
            suffer(stack, faults)
    stack.settle()


def test_nonsense_is_never_stored(stack: Stack) -> None:
    stack.create_table(rows=50)
    stack.start_workers(2)
    with stack.writing():
        for faults in stack.rng.sample(NONSENSE, len(NONSENSE)):
            suffer(stack, faults)
            stack.execute("select pgstack.retry_vectorizer('t')")
    stack.settle(retry=True)
