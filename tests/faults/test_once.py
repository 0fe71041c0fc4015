"""worker --once ends when nothing is left to do, never earlier."""

from __future__ import annotations

from tests.faults.harness import Stack
from tests.faults.servers import Worker


def end_of(stack: Stack, worker: Worker, seconds: float = 40) -> int:
    """Wait until a worker has ended by itself; return its exit code."""
    stack.workers.remove(worker)
    stack.wait(lambda: not worker.alive(), f"--once ends\n{worker.said()}", seconds)
    return worker.process.wait()


def test_once_waits_for_rows_that_another_worker_holds(stack: Stack) -> None:
    stack.create_table(rows=300)
    stack.models.misbehave(hang=1)
    stack.start_workers(1, "--concurrency", "1")
    other = stack.workers[0]
    stack.models.wait_for_calls()
    once = stack.start_worker("--once")
    held = "select count(*) from _pgstack.work where state = 'leased'"
    stack.wait(
        lambda: 0 < stack.status()["pending"] == stack.execute(held)[0][0],
        "all is done but what the other worker holds",
    )
    for _ in range(20):  # it looks again and again
        assert once.alive(), once.said()
        assert stack.status()["pending"] > 0
    other.kill()
    stack.workers.remove(other)
    assert end_of(stack, once) == 0
    stack.settle()


def test_once_waits_for_rows_that_are_tried_again(stack: Stack) -> None:
    stack.configure(max_attempts="2")
    stack.create_table(rows=100)
    stack.execute("update t set body = 'hemlock' where id = 50")
    stack.models.misbehave(fail_if_contains="hemlock")
    assert end_of(stack, stack.start_worker("--once")) in (0, 1)
    assert (stack.status()["pending"], stack.status()["failed"]) == (0, 1)
    stack.compare(failed=1)


def test_once_waits_for_users_who_still_write(stack: Stack) -> None:
    """What is queued while it runs is done as well: it ends at a moment without work."""
    stack.create_table(rows=200)
    stack.models.misbehave(latency_ms=20)
    once = stack.start_worker("--once")
    stack.models.wait_for_calls()
    stack.execute("update t set body = 'later ' || id where id <= 100")
    stack.execute("delete from t where id > 150")
    assert end_of(stack, once) == 0
    assert stack.status()["pending"] == 0
    stack.compare()


def test_once_without_a_model_server_fails_and_loses_nothing(stack: Stack) -> None:
    stack.create_table(rows=10)
    stack.models.kill()
    assert end_of(stack, stack.start_worker("--once")) == 3
    assert stack.status()["pending"] == 10
    stack.start_workers(1)
    stack.settle()
