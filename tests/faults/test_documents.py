"""Files that SQL stored, read while workers, helper processes and PostgreSQL are killed.

The judge is a second database in which nothing was disturbed.
"""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, LiteralString

import psycopg
import pytest

from tests.faults.harness import DIMENSIONS, Stack
from tests.faults.servers import Database, Worker

ROUNDS = int(os.environ.get("PGSTACK_FAULT_ROUNDS", "2"))
FILES = 300

DOCUMENTS: LiteralString = (
    "select uri, status, error, title, media_type, content, content_hash, bytes, parts::text, "
    "pages, language, metadata::text, source_hash, source_bytes, worker "
    "from pgstack_collections.docs order by uri"
)
CHUNKS: LiteralString = (
    "select d.uri, c.chunk_seq, c.chunk, c.start_char, c.end_char, c.embedding::text "
    "from pgstack_collections.docs_embedding_store as c "
    "full join pgstack_collections.docs as d on d.id = c.id order by 1, 2"
)
MAKE: LiteralString = (
    "select pgstack.create_collection('docs', dimensions => %s, chunk_size => 200, "
    "chunk_overlap => 40)"
)


def files(rng: random.Random) -> list[tuple[str, bytes]]:
    """Files of several kinds, some of which cannot be read."""
    words = ["attic", "heirloom", "cellar", "trinket", "stairs", "lantern", "Müller", "Straße"]
    made = []
    for number in range(FILES):
        text = " ".join(rng.choices(words, k=rng.randrange(5, 400)))
        kind = rng.choice(("txt", "md", "html", "latin.txt", "pdf", "bin", "empty.txt"))
        match kind:
            case "md":
                text = f"# Title {number}\n\n{text}\n\n## Part\n\n{text}\n"
            case "html":
                text = f"<html><title>T {number}</title><body><p>{text}</p></body></html>"
        data = text.encode("latin-1" if kind == "latin.txt" else "utf-8")
        if kind == "bin":
            data = b"\x7fELF" + bytes(range(256)) * 4
        elif kind == "empty.txt":
            data = b""
        made.append((f"file:///{number:03}.{kind}", data))
    return made


def ingest(conn: psycopg.Connection[Any], batch: list[tuple[str, bytes]]) -> None:
    with conn.cursor() as cursor:
        cursor.executemany("select pgstack.ingest_bytes('docs', %s, %s)", batch)


def helpers(worker: Worker) -> list[int]:
    """The processes in which a worker reads files."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            stat = (folder / "stat").read_text().rpartition(")")[2].split()
            if int(stat[1]) == worker.process.pid:
                found.append(int(folder.name))
    return found


def strike(stack: Stack, what: str) -> None:
    """One blow."""
    worker = stack.rng.choice(stack.workers)
    match what:
        case "worker":
            stack.replace_worker(worker)
        case "helper":
            for pid in helpers(worker):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        case "postgres":
            stack.database.stop("immediate")
            stack.let_a_moment_pass()
            stack.database.start()


def read_so_far(stack: Stack) -> int:
    query = "select count(*) from pgstack_collections.docs where status <> 'pending'"
    return int(stack.execute(query)[0][0])


@pytest.mark.parametrize("what", ["worker", "helper", "postgres"])
def test_an_ingest_under_blows_ends_as_an_undisturbed_one(
    make_stack: Callable[[Database], Stack], database: Database, what: str
) -> None:
    calm, stack = make_stack(database), make_stack(database)
    batch = files(stack.rng)
    for each in (calm, stack):
        each.execute(MAKE, DIMENSIONS)
    with calm.connect() as conn:
        ingest(conn, batch)
    assert calm.start_worker("--once").process.wait(timeout=120) == 0
    calm.stop()

    stack.start_workers(2)
    rounds = ROUNDS + 2
    step = FILES // rounds
    for number in range(rounds):
        with stack.connect() as conn:
            # Some once more, with other bytes first, and some that go again.
            again = stack.rng.sample(batch[: step * number] or batch[:1], 1)
            ingest(conn, [(uri, data + b" older") for uri, data in again])
            ingest(conn, batch[step * number : step * (number + 1)])
            ingest(conn, [("file:///gone.txt", b"gone"), *again])
        stack.wait(lambda n=number: read_so_far(stack) > n * step // 2, "some are read")
        stack.let_a_moment_pass()
        strike(stack, what)
        stack.wait(lambda: stack.execute("select 1"), "the database answers")
    with stack.connect() as conn:
        ingest(conn, batch[step * rounds :])
        conn.execute("select pgstack.remove_document('docs', 'file:///gone.txt')")

    def settled() -> bool:
        # One that was in hand three times when its worker was killed: what a DBA does.
        stack.execute(
            "select pgstack.retry_documents('docs', uri) from pgstack_collections.docs "
            "where error like '%process%' or error like 'the worker ended%'"
        )
        [(pending,)] = stack.execute(
            "select coalesce(sum(pending), 0)::bigint from pgstack.vectorizer_status"
        )
        return bool(pending == 0)

    stack.wait(settled, "all is read and embedded", seconds=120)
    expected, found = calm.execute(DOCUMENTS), stack.execute(DOCUMENTS)
    assert len(expected) == FILES
    assert {row[1] for row in expected} == {"ready", "failed"}
    for one, other in zip(expected, found, strict=True):
        assert one == other
    assert calm.execute(CHUNKS) == stack.execute(CHUNKS)
    stack.check_leftovers()
