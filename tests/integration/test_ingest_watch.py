"""Watching folders: what changes while it runs, from its first moment on."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pgstack.db import connect
from pgstack.errors import PgstackError, UsageError
from pgstack.ingest import IngestProgress, IngestReport
from tests.integration.ingesting import Conn, documents, run, write

SECONDS = 20.0


class Watching:
    """An ingest that watches, in a thread of its own."""

    def __init__(self, url: str, *paths: Path, **options: Any) -> None:
        self.url = url
        self.stop = threading.Event()
        self.first_pass = threading.Event()
        self.steps: list[IngestProgress] = []
        self.report: IngestReport | BaseException | None = None
        self.on_step: Callable[[IngestProgress], None] = lambda step: None
        self._thread = threading.Thread(target=self._run, args=(paths, options))

    def _run(self, paths: tuple[Path, ...], options: dict[str, Any]) -> None:
        def step(found: IngestProgress) -> None:
            self.steps.append(found)
            self.on_step(found)

        try:
            with connect(self.url, autocommit=True) as conn:
                self.report = run(
                    conn,
                    *paths,
                    watch=self.stop,
                    watching=lambda _: self.first_pass.set(),
                    progress=step,
                    **options,
                )
        except BaseException as exc:
            self.report = exc
            self.first_pass.set()

    def begin(self) -> None:
        self._thread.start()
        assert self.first_pass.wait(SECONDS)

    def end(self) -> IngestReport:
        self.stop.set()
        self._thread.join(SECONDS)
        assert isinstance(self.report, IngestReport), self.report
        return self.report


def until(condition: Callable[[], bool], what: object = "") -> None:
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


def texts(conn: Conn) -> dict[str, str]:
    return {Path(uri).name: text for uri, text in documents(conn).items()}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write(tmp_path / "docs" / "a.txt", "first")
    write(tmp_path / "docs" / "sub" / "b.txt", "second")
    return tmp_path / "docs"


@pytest.fixture
def watching(db: Conn, db_url: str) -> Iterator[Callable[..., Watching]]:
    started: list[Watching] = []

    def start(*paths: Path, **options: Any) -> Watching:
        made = Watching(db_url, *paths, **options)
        started.append(made)
        return made

    yield start
    for made in started:
        made.stop.set()
        made._thread.join(SECONDS)


def test_changes_as_they_come(db: Conn, folder: Path, watching: Callable[..., Watching]) -> None:
    watch = watching(folder, prune=True)
    watch.begin()
    assert texts(db) == {"a.txt": "first", "b.txt": "second"}
    write(folder / "a.txt", "changed")
    write(folder / "new" / "deep" / "c.txt", "third")
    write(folder / ".hidden", "x")
    write(folder / "later.tmp", "moved").rename(folder / "d.txt")
    (folder / "sub" / "b.txt").unlink()
    wanted = {"a.txt": "changed", "c.txt": "third", "d.txt": "moved"}
    until(lambda: texts(db) == wanted)
    shutil.rmtree(folder / "new")
    until(lambda: "c.txt" not in texts(db))
    (folder / "sub").rename(folder / "other")
    write(folder / "other" / "e.txt", "fifth")
    until(lambda: "e.txt" in texts(db))
    report = watch.end()
    assert (report.updated, report.removed) == (1, 2)


def test_what_changes_during_the_first_pass_is_not_lost(
    db: Conn, folder: Path, watching: Callable[..., Watching]
) -> None:
    for number in range(200):
        write(folder / f"{number:03}.txt", "old")
    watch = watching(folder, prune=True)

    def change(step: IngestProgress) -> None:
        """Once that file has been read."""
        if step.done == 150:
            write(folder / "000.txt", "new text")
            write(folder / "aaa" / "added.txt", "added")
            (folder / "001.txt").unlink()

    watch.on_step = change
    watch.begin()
    until(lambda: texts(db).get("000.txt") == "new text")
    until(lambda: texts(db).get("added.txt") == "added")
    until(lambda: "001.txt" not in texts(db))
    watch.end()


def test_what_is_gone_stays_without_prune(
    db: Conn, folder: Path, watching: Callable[..., Watching]
) -> None:
    watch = watching(folder)
    watch.begin()
    (folder / "a.txt").unlink()
    write(folder / "z.txt", "sign of life")
    until(lambda: "z.txt" in texts(db))
    assert "a.txt" in texts(db)
    assert watch.end().removed == 0


def test_ignore_files_that_change(
    db: Conn, folder: Path, watching: Callable[..., Watching]
) -> None:
    write(folder / ".pgstackignore", "*.log\n")
    write(folder / "x.log", "log")
    watch = watching(folder)
    watch.begin()
    assert "x.log" not in texts(db)
    write(folder / ".pgstackignore", "\n")
    until(lambda: "x.log" in texts(db))
    watch.end()


def test_a_file_that_editors_replace(
    db: Conn, folder: Path, watching: Callable[..., Watching]
) -> None:
    watch = watching(folder / "a.txt", prune=True)
    watch.begin()
    write(folder / "a.txt~", "saved").replace(folder / "a.txt")
    until(lambda: texts(db) == {"a.txt": "saved"})
    write(folder / "other.txt", "not named")
    write(folder / "a.txt", "again")
    until(lambda: texts(db) == {"a.txt": "again"})
    watch.end()


def test_names_that_are_no_text(db: Conn, folder: Path, watching: Callable[..., Watching]) -> None:
    watch = watching(folder)
    watch.begin()
    Path(os.fsdecode(os.fsencode(folder / "sub") + b"/\xff.txt")).write_bytes(b"odd")
    until(lambda: "odd" in documents(db).values())
    write(folder / "c.txt", "goes on")
    until(lambda: "c.txt" in texts(db))
    watch.end()


def test_what_cannot_be_watched(conn: Conn, tmp_path: Path) -> None:
    for path in ("https://x.org/", "s3://b/", "-"):
        with pytest.raises(UsageError, match="watched"):
            run(conn, path, watch=threading.Event())
    with pytest.raises(UsageError, match="dry run"):
        run(conn, tmp_path, watch=threading.Event(), dry_run=True)
    with pytest.raises(PgstackError, match="nothing to watch"):
        run(conn, tmp_path / "none" / "none", watch=threading.Event())


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_the_command_ends_cleanly(
    db: Conn, db_url: str, folder: Path, signum: signal.Signals
) -> None:
    db.execute("select pgstack.create_collection('docs', dimensions => 8)")
    command = [sys.executable, "-m", "pgstack_cli", "ingest", str(folder), "-c", "docs", "--watch"]
    process = subprocess.Popen([*command, "-d", db_url], stderr=subprocess.PIPE, text=True)
    with process:
        assert process.stderr is not None
        said = ""
        while "watching for changes" not in said:
            line = process.stderr.readline()
            assert line, said
            said += line
        write(folder / "new.txt", "new")
        until(lambda: "new.txt" in texts(db))
        process.send_signal(signum)
        said += process.stderr.read()
        assert process.wait(SECONDS) == 0
    assert "docs: 2 new\n" in said
    assert f"new {folder}/new.txt\n" in said
    assert said.endswith("docs: 3 new\n")
