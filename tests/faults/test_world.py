"""The machine misbehaves: its clock jumps, its disk is full, it is crowded."""

from __future__ import annotations

import contextlib
import shutil
import struct
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from pgstack.embedded import postgres
from pgstack.embedded.home import Home
from tests.faults.conftest import running
from tests.faults.harness import Stack
from tests.faults.servers import Database
from tests.integration.embedded.test_places import needs_root, small_disk

type MakeStack = Callable[[Database], Stack]

# -- the clock ----------------------------------------------------------------------------


@dataclass
class Clock:
    """The time of day that PostgreSQL and the workers are told.

    A few lines of C between them and the C library add what a file says: the same to
    them as somebody setting the machine's clock, and harmless to everybody else.
    """

    library: Path
    file: Path

    @property
    def environment(self) -> dict[str, str]:
        return {"LD_PRELOAD": str(self.library), "CLOCK_SHIFT_FILE": str(self.file)}

    def jump(self, seconds: int) -> None:
        """Set the clock to so many seconds from the true time."""
        with self.file.open("r+b", buffering=0) as file:
            file.write(struct.pack("l", seconds))


@pytest.fixture
def clock(place: Path) -> Clock:
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("needs a C compiler to come between PostgreSQL and the clock: apt install gcc")
    library = place / "clock.so"
    source = Path(__file__).with_name("clock.c")
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", library, source, "-ldl"], check=True)
    clock = Clock(library, place / "shift")
    clock.file.write_bytes(struct.pack("l", 0))
    return clock


@pytest.fixture
def clocked(
    clock: Clock, make_stack: MakeStack, place: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Stack]:
    """A stack whose time of day is the clock's."""
    told = postgres._environment() | clock.environment
    monkeypatch.setattr(postgres, "_environment", lambda: told)
    with running(Home(place / "home")) as database:
        stack = make_stack(database)
        yield stack
        clock.jump(0)
        stack.discard()


@pytest.mark.parametrize("hours", [2, -2])
def test_the_clock_jumps(clocked: Stack, clock: Clock, hours: int) -> None:
    clocked.create_table(rows=100)
    clocked.models.misbehave(latency_ms=20)
    for _ in range(2):
        clocked.start_worker(**clock.environment)
    clocked.wait_until_connected()
    # One user: when two wait for each other as the clock is set back, PostgreSQL, which goes by
    # that clock, finds the deadlock hours later.  Statements under way as it is set ahead have
    # run for hours, by that clock.
    with clocked.writing(sessions=1, timeout="0"):
        clocked.wait_for_progress()
        [(before,)] = clocked.execute("select clock_timestamp()")
        clock.jump(hours * 3600)
        [(after,)] = clocked.execute("select clock_timestamp()")
        assert abs((after - before).total_seconds()) > 3600
        clocked.wait_for_progress()
        killed = clocked.workers.pop()
        killed.kill()
        clocked.start_worker(**clock.environment)
        clocked.wait_for_progress()
    clocked.settle(seconds=30)
    clocked.stop()


def test_rows_that_wait_do_not_wait_for_the_old_time(clocked: Stack, clock: Clock) -> None:
    """A row is to be tried again in a second; then the clock goes back by two hours."""
    clocked.create_table(rows=20)
    clocked.models.misbehave(wrong_dims=3)
    clocked.start_worker(**clock.environment)
    waiting = "select count(*) from _pgstack.work where state = 'waiting'"
    clocked.wait(lambda: clocked.execute(waiting)[0][0] > 0, "rows wait for their next try")
    clock.jump(-7200)
    clocked.settle(seconds=30)
    clocked.stop()


# -- the disk -----------------------------------------------------------------------------


@pytest.fixture
def small(make_stack: MakeStack, place: Path) -> Iterator[tuple[Stack, Path]]:
    """A stack on a disk of its own, and where that is mounted."""
    with small_disk(place, "size=400m") as disk, running(Home(disk / "home")) as database:
        stack = make_stack(database)
        yield stack, disk
        stack.discard()


def fill(disk: Path) -> Path:
    """Leave no byte free, whoever else writes; return the file that takes the room."""
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(2**16))
    return filler


@needs_root
def test_the_disk_is_full(small: tuple[Stack, Path]) -> None:
    stack, disk = small
    stack.create_table(rows=100)
    stack.start_workers(2)
    log = stack.database.home.postgres_log

    def full() -> bool:
        # PostgreSQL's log is on that disk, and may have no room for the news.
        said = (log.read_text(), *(worker.said() for worker in stack.workers))
        return any("No space left on device" in lines for lines in said)

    with stack.writing(hardy=True) as users:
        stack.wait_for_progress()
        filler = fill(disk)
        stack.wait(full, "the disk is full")
        stack.let_a_moment_pass()
        filler.unlink()
        stack.database.start()  # where it stopped: a full disk for its journal ends it
        done = users.done
        stack.wait(lambda: users.done > done, "users write again")
        stack.wait_for_progress()
    stack.settle()


# -- a crowd ------------------------------------------------------------------------------

PGBENCH = """
\\set key random(1, 400)
\\set other random(1, 400)
begin;
insert into t (id, title, body) values (:key, 'bench', 'bench ' || :other)
  on conflict (id) do update set body = excluded.body || '. And ' || :key;
update t set note = 'touched' where id between :other and :other + 20;
end;
delete from t where id = :other and random() < 0.2;
"""


def test_eight_workers_and_pgbench(stack: Stack, place: Path) -> None:
    stack.create_table(rows=400)
    script = place / "script.sql"
    script.write_text(PGBENCH)
    stack.models.misbehave(latency_ms=20)
    stack.start_workers(8)
    command = [
        *(postgres.binary(stack.database.home, "pgbench"), "--no-vacuum", f"--file={script}"),
        *(
            "--client=4",
            "--transactions=150",
            "--rate=400",
            f"--random-seed={stack.rng.randrange(10**6)}",
        ),
        *("--max-tries=10", stack.dsn),
    ]
    with stack.writing(sessions=2):
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    stack.settle()
