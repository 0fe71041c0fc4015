"""kill -9 at random points: worker, model server, PostgreSQL.  Nothing is lost."""

from __future__ import annotations

import os

import pytest

from tests.faults.harness import Stack

ROUNDS = int(os.environ.get("PGSTACK_FAULT_ROUNDS", "2"))


def test_killed_workers(stack: Stack) -> None:
    stack.create_table(rows=100)
    stack.configure(index_min_rows="50")  # an index build may be hit, too
    stack.start_workers(2)
    stack.models.misbehave(latency_ms=20)
    with stack.writing():
        for _ in range(ROUNDS):
            stack.wait_for_progress()
            stack.let_a_moment_pass()
            stack.replace_worker(stack.rng.choice(stack.workers))
    stack.settle()


def test_killed_model_server(stack: Stack) -> None:
    stack.create_table(rows=100)
    stack.start_workers(2)
    with stack.writing():
        for _ in range(ROUNDS):
            stack.wait_for_progress()
            stack.models.misbehave(latency_ms=50)
            stack.let_a_moment_pass()
            stack.models.kill()
            stack.let_a_moment_pass()
            stack.models.start()
    stack.settle()


@pytest.mark.parametrize("how", ["postmaster", "backend", "immediate", "fast"])
def test_killed_postgres(stack: Stack, how: str) -> None:
    stack.create_table(rows=100)
    stack.start_workers(2)
    stack.models.misbehave(latency_ms=20)
    with stack.writing(hardy=True):
        for _ in range(max(1, ROUNDS // 2)):
            stack.wait_for_progress()
            stack.let_a_moment_pass()
            match how:
                case "postmaster":
                    stack.database.kill()
                case "backend":
                    stack.database.kill_backend(stack.rng, stack.dbname)
                    continue  # the server comes back by itself
                case _:
                    stack.database.stop(how)
            stack.let_a_moment_pass()
            stack.database.start()
    stack.settle()
