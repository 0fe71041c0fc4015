"""An hour of work under disturbances: the same two workers, and what they hold does not grow.

``PGSTACK_SOAK_MINUTES`` says how long.  A line a minute tells how it goes.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from tests.faults.harness import Stack
from tests.faults.servers import Worker

MINUTES = float(os.environ.get("PGSTACK_SOAK_MINUTES", "60"))
WARM_UP = 0.2  # of the time: what is allocated once
MORE_MB = 40
MORE_FILES = 12


@dataclass(frozen=True)
class Sample:
    """What the workers held at one moment, the largest of them."""

    at: float
    megabytes: float
    files: int
    connections: int

    def __str__(self) -> str:
        return (
            f"{self.at / 60:5.1f} min  {self.megabytes:4.0f} MB  {self.files:3d} files  "
            f"{self.connections:3d} connections"
        )


def measure(stack: Stack, workers: list[Worker], at: float) -> Sample:
    query = "select count(*) from pg_stat_activity where application_name = 'pgstack worker'"
    return Sample(
        at,
        max(worker.rss_mb() for worker in workers),
        max(worker.open_files() for worker in workers),
        int(stack.execute(query)[0][0]),
    )


# -- disturbances that a worker must live through --------------------------------------------


def restart_database(stack: Stack) -> None:
    stack.database.stop(stack.rng.choice(("fast", "immediate")))
    stack.let_a_moment_pass()
    stack.database.start()


def kill_session(stack: Stack) -> None:
    stack.database.kill_backend(stack.rng, stack.dbname)


def restart_models(stack: Stack) -> None:
    stack.models.kill()
    stack.let_a_moment_pass()
    stack.models.start()


def upset_models(stack: Stack) -> None:
    faults: list[dict[str, Any]] = [
        {"fail_next": 5, "status": 503},
        {"fail_next": 5, "status": 429, "retry_after": 1},
        {"reset": 3},
        {"truncate_body": 2},
        {"html": 2},
        {"nan": 2},
        {"latency_ms": 200},
        {"trickle_ms": 20},
    ]
    stack.models.misbehave(**stack.rng.choice(faults))


def kill_the_third(stack: Stack) -> None:
    """A third worker comes and goes, and leaves its leases behind."""
    if len(stack.workers) > 2:
        stack.workers.pop().kill()
    stack.start_worker()


DISTURBANCES: tuple[Callable[[Stack], None], ...] = (
    restart_database,
    kill_session,
    restart_models,
    upset_models,
    upset_models,
    kill_the_third,
)


@pytest.mark.soak
def test_an_hour_of_work(stack: Stack) -> None:
    stack.create_table(rows=200)
    stack.configure(index_min_rows="200")
    stack.start_workers(2)
    lasting = list(stack.workers)
    samples: list[Sample] = []
    began = time.monotonic()
    while (at := time.monotonic() - began) < MINUTES * 60:
        with stack.writing(sessions=3, hardy=True, rest=0.05) as users:
            for _ in range(stack.rng.randint(1, 4)):
                stack.rng.choice(DISTURBANCES)(stack)
                stack.wait_for_progress()
                stack.models.clear()
        stack.settle(retry=True, seconds=120)
        sample = measure(stack, lasting, at)
        if not samples or at // 60 > samples[-1].at // 60:  # once a minute
            print(f"{sample}  {users.done} changes", flush=True)
        samples.append(sample)
    judge(samples)


def judge(samples: list[Sample]) -> None:
    """Fail if the last half holds more than the beginning after its warm-up did."""
    warm = [s for s in samples if s.at < samples[-1].at * WARM_UP] or samples[:1]
    late = [s for s in samples if s.at > samples[-1].at / 2]
    print(f"warm: {warm[-1]}\nend:  {late[-1]}")
    assert max(s.megabytes for s in late) < max(s.megabytes for s in warm) + MORE_MB
    assert max(s.files for s in late) < max(s.files for s in warm) + MORE_FILES
