"""Many files, several processes, and what is left when an ingest is killed at any moment."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psycopg
import pytest

from pgstack.db import connect
from pgstack.errors import UnknownVectorizer
from pgstack.ingest import IngestProgress, IngestReport, Interrupted
from tests import mixed_files
from tests.integration.ingesting import Conn, documents, everything, run

SMALL, LARGE, KILLS = 1000, 10_000, 10


def test_many_files_with_many_processes(db: Conn, tmp_path: Path) -> None:
    mixed_files.write(tmp_path / "many", 1500)
    report = run(db, tmp_path / "many", jobs=3)
    assert report.inserted + len(report.failed) == 1500
    assert 0 < len(report.failed) < 200
    assert report.skipped == []
    before = everything(db)
    again = run(db, tmp_path / "many", jobs=3, reread=True)
    assert again == IngestReport(unchanged=report.inserted, failed=again.failed)
    assert sorted(again.failed) == sorted(report.failed)
    assert [row[:10] for row in everything(db)] == [row[:10] for row in before]


def test_what_was_done_is_committed_when_it_is_interrupted(db_url: str, tmp_path: Path) -> None:
    mixed_files.write(tmp_path / "many", 300)

    def crash(step: IngestProgress) -> None:
        if step.done == 100:
            raise KeyboardInterrupt

    with connect(db_url) as mine, pytest.raises(Interrupted) as caught:
        run(mine, tmp_path / "many", progress=crash)
    report = caught.value.report
    assert report.inserted + len(report.failed) == 100
    with connect(db_url, autocommit=True) as conn:
        assert 100 <= len(documents(conn)) < 300
        run(conn, tmp_path / "many")
        assert len(documents(conn)) == 300


def test_two_at_once_over_the_same_files(db_url: str, tmp_path: Path) -> None:
    """Both come to an end, whatever order their processes read in."""
    mixed_files.write(tmp_path / "many", 400)
    reports: list[IngestReport] = []

    def work() -> None:
        with connect(db_url, autocommit=True) as mine:
            reports.append(run(mine, tmp_path / "many", jobs=2, reread=True))

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [report.documents + len(report.failed) for report in reports] == [400] * 3
    with connect(db_url, autocommit=True) as conn:
        assert len(documents(conn)) == 400


def test_a_collection_dropped_meanwhile(db: Conn, db_url: str, tmp_path: Path) -> None:
    mixed_files.write(tmp_path / "many", 300)
    dropped: list[bool] = []

    def drop(step: IngestProgress) -> None:
        if not dropped:
            with connect(db_url, autocommit=True) as other:
                other.execute("select pgstack.drop_collection('docs')")
            dropped.append(True)

    with pytest.raises((UnknownVectorizer, psycopg.errors.UndefinedTable)) as caught:
        run(db, tmp_path / "many", progress=drop)
    assert "docs" in str(caught.value)
    assert run(db, tmp_path / "many").documents > 200


# --- killed ---------------------------------------------------------------------------


def start(url: str, folder: Path, *options: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "pgstack_cli", "ingest", str(folder), "--collection", "docs"]
    return subprocess.Popen(
        [*command, "--jobs", "2", "-d", url, *options],
        # What a killed one leaves there goes with the test.
        env={**os.environ, "TMPDIR": str(folder.parent)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def kill_at_random(db: Conn, url: str, folder: Path, count: int) -> None:
    """Kill ingests ten times, each when a random number of documents more is there; then finish."""
    rng = random.Random(7)
    marks = sorted(rng.sample(range(1, count * 8 // 10), KILLS))
    for mark in marks:
        process = start(url, folder)
        while db.execute("select count(*) from pgstack_collections.docs").fetchone()[0] < mark:
            assert process.poll() is None, "it ended before it was killed"
            time.sleep(0.002)
        time.sleep(rng.random() * 0.05)
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert db.execute("select count(*) from pgstack_collections.docs").fetchone()[0] < count
    assert start(url, folder).wait() == 0


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    "count", [SMALL, pytest.param(LARGE, marks=[pytest.mark.slow, pytest.mark.timeout(900)])]
)
def test_killed_ten_times_it_ends_like_an_undisturbed_one(
    db: Conn, db_url: str, tmp_path: Path, count: int
) -> None:
    folder = tmp_path / "many"
    mixed_files.write(folder, count)
    db.execute("select pgstack.create_collection('docs', dimensions => 8)")
    kill_at_random(db, db_url, folder, count)
    killed = everything(db)
    queued = _queued(db)
    db.execute("select pgstack.drop_collection('docs')")
    db.execute("select pgstack.create_collection('docs', dimensions => 8)")
    assert start(db_url, folder).wait() == 0
    undisturbed = everything(db)
    assert len(undisturbed) == count
    assert killed == undisturbed
    assert queued == _queued(db)


def _queued(db: Conn) -> int:
    """How many documents wait to be embedded."""
    row = db.execute("select pending from pgstack.vectorizer_status where name = 'docs'").fetchone()
    assert row is not None
    return row[0]
