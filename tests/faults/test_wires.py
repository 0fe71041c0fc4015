"""The network stalls or breaks: between worker and model server, between worker and database."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.harness import Stack
from tests.faults.servers import wire_to_database, wire_to_models


@pytest.mark.parametrize("end", ["resume", "cut"])
def test_the_way_to_the_model_server_stalls(stack: Stack, end: str) -> None:
    stack.create_table(rows=100)
    with wire_to_models(stack.models) as (wire, url):
        for _ in range(2):
            stack.start_worker(models_url=url)
        stack.wait_until_connected()
        with stack.writing():
            stack.wait_for_progress()
            wire.stall()
            stack.let_a_moment_pass()
            if end == "cut":
                wire.cut()
            wire.resume()
            stack.wait_for_progress()
        stack.settle()
        stack.stop()


@pytest.mark.parametrize("end", ["resume", "cut"])
def test_the_way_to_the_database_stalls(stack: Stack, place: Path, end: str) -> None:
    stack.create_table(rows=100)
    stack.models.misbehave(latency_ms=20)
    with wire_to_database(stack.dsn, place) as (wire, dsn):
        stack.start_worker()
        stack.start_worker(dsn=dsn)
        stack.wait_until_connected()
        with stack.writing():
            stack.wait_for_progress()
            wire.stall()
            stack.wait_for_progress()
        # What the stalled worker holds is taken over when its lease ends.
        stack.wait(lambda: stack.status()["pending"] == 0, "the other worker has done it all")
        stack.compare()
        if end == "cut":
            wire.cut()
        with stack.writing():
            wire.resume()  # it goes on with answers that nobody waits for any more
            stack.wait_for_progress()
        stack.settle()
        stack.stop()
