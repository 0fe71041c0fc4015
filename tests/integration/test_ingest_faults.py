"""What breaks around an ingest: the database, its disk, the reading processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from pgstack.db import connect
from pgstack.embedded import postgres
from pgstack.embedded.home import Home
from pgstack.errors import Unreachable
from pgstack.extract import Extractor
from pgstack.ingest import IngestProgress
from pgstack.install import install
from tests import mixed_files
from tests.integration.ingesting import Conn, documents, everything, run, write
from tests.places import place


@pytest.fixture
def many(tmp_path: Path) -> Path:
    mixed_files.write(tmp_path / "many", 400)
    return tmp_path / "many"


@pytest.fixture(scope="module")
def own_server() -> Iterator[Home]:
    """A PostgreSQL that may be stopped."""
    with place("pgstack-ingest-") as root:
        home = Home(root / "home")
        postgres.start(home, settings={"fsync": "off"})
        try:
            with connect(postgres.dsn(home)) as conn:
                install(conn)
            yield home
        finally:
            postgres.stop(home, mode="immediate")


def test_the_database_restarts_meanwhile(own_server: Home, many: Path) -> None:
    """A clear error, exit code 3, and the next run goes on where it was."""
    url = postgres.dsn(own_server)
    with connect(url, autocommit=True) as conn:
        conn.execute("select pgstack.create_collection('docs', dimensions => 8)")
    stopped: list[int] = []

    def stop(step: IngestProgress) -> None:
        if step.done > 100 and not stopped:
            stopped.append(step.done)
            postgres.stop(own_server, mode="fast")

    with connect(url, autocommit=True) as conn, pytest.raises((psycopg.Error, Unreachable)):
        run(conn, many, progress=stop)
    command = [sys.executable, "-m", "pgstack_cli", "ingest", str(many), "-c", "docs", "-d", url]
    away = subprocess.run(command, capture_output=True, text=True, check=False)
    assert away.returncode == 3
    assert "hint: pgstack up" in away.stderr
    postgres.start(own_server)
    with connect(url, autocommit=True) as conn:
        before = len(documents(conn))
        assert stopped[0] <= before < 400
        report = run(conn, many)
        assert report.unchanged + len(report.failed) >= before
        assert len(documents(conn)) == 400


def test_the_session_is_ended_meanwhile(db: Conn, db_url: str, many: Path) -> None:
    db.execute("select pgstack.create_collection('docs', dimensions => 8)")
    command = [sys.executable, "-m", "pgstack_cli", "ingest", str(many), "-c", "docs", "-d", db_url]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        while not documents(db):
            assert process.poll() is None
        db.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity "
            "where datname = current_database() and pid <> pg_backend_pid()"
        )
        assert process.stderr is not None
        said = process.stderr.read()
    assert process.returncode == 3, said
    assert "files were done; the same command goes on there" in said
    assert run(db, many).documents > 300


def test_the_disk_is_full(db: Conn, many: Path) -> None:
    """It ends there, as every file after this one would fail; what is committed stays."""
    run(db, many / "000")
    db.execute(
        "create function fill() returns trigger language plpgsql as $$ begin "
        "raise exception 'could not extend file: No space left on device' using errcode = '53100'; "
        "end $$"
    )
    db.execute(
        "create trigger full_disk before insert on pgstack_collections.docs "
        "for each row when (new.uri like '%/002/%') execute function fill()"
    )
    with pytest.raises(psycopg.errors.DiskFull, match="No space left"):
        run(db, many)
    assert 100 <= len(documents(db)) < 400
    db.execute("drop trigger full_disk on pgstack_collections.docs")
    run(db, many)
    assert len(documents(db)) == 400


def test_a_reading_process_that_is_killed(
    db: Conn, many: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As by the kernel when memory is short: the file is read by another one."""
    killed: list[int] = []
    extract = Extractor.extract_bytes

    def kill(self: Extractor, data: bytes, *, name: str, media_type: str | None = None) -> object:
        helper = self._helper
        if helper is not None and len(killed) < 20:
            os.kill(helper.process.pid, signal.SIGKILL)
            killed.append(helper.process.pid)
        return extract(self, data, name=name, media_type=media_type)

    monkeypatch.setattr(Extractor, "extract_bytes", kill)
    run(db, many)
    assert len(killed) == 20
    disturbed = everything(db)
    monkeypatch.undo()
    run(db, many, reread=True)
    assert everything(db) == disturbed


def test_no_process_and_no_file_is_left(
    db: Conn, many: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    places = tmp_path / "temporary"
    places.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(places))

    def children() -> set[str]:
        found = subprocess.run(
            ["ps", "--ppid", str(os.getpid()), "-o", "pid="], capture_output=True, check=False
        )
        return set(found.stdout.decode().split())

    before = children()

    def interrupt(step: IngestProgress) -> None:
        if step.done == 50:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(db, many, progress=interrupt, jobs=3)
    # One that was being started ends itself.
    deadline = time.monotonic() + 30
    while list(places.iterdir()) or len(children() - before) > 1:  # ps itself
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_memory_does_not_grow_with_the_number_of_files(conn: Conn, tmp_path: Path) -> None:
    for number in range(6000):
        write(tmp_path / f"{number // 500}" / f"{number}.txt", "text")
    run(conn, tmp_path / "0")
    peaks = []
    for part in ("0", "."):
        tracemalloc.start()
        run(conn, tmp_path / part, dry_run=True)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] + 6_000_000, peaks
