"""Files in the collection docs, and the processes that read them."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, LiteralString

from psycopg.types.json import Jsonb

from tests.conftest import Connection, Worker
from tests.integration.conftest import value

PAGE = (
    b"<html><title>Attic</title><body><h1>Attic</h1><p>The heirloom lies in the attic.</p></html>"
)
TABLE: LiteralString = "pgstack_collections.docs"


def put(conn: Connection, uri: str, data: bytes, **more: object) -> str:
    query: LiteralString = (
        "select pgstack.ingest_bytes('docs', %(uri)s, %(data)s, title => %(title)s, "
        "media_type => %(media_type)s, metadata => %(metadata)s)"
    )
    given = {"title": None, "media_type": None, "metadata": Jsonb({}), **more}
    row = conn.execute(query, {"uri": uri, "data": data, **given}).fetchone()
    assert row is not None
    return str(row[0])


def document(conn: Connection, uri: str) -> dict[str, Any]:
    cursor = conn.execute(f"select * from {TABLE} where uri = %s", (uri,))
    row = cursor.fetchone()
    assert row is not None
    assert cursor.description is not None
    return {column.name: cell for column, cell in zip(cursor.description, row, strict=True)}


def until(conn: Connection, query: LiteralString, *params: object, seconds: float = 60) -> None:
    """Return once the query says true."""
    end = time.monotonic() + seconds
    while not value(conn, query, *params):
        assert time.monotonic() < end, conn.execute(
            f"select uri, status, error, attempts from {TABLE}"
        ).fetchall()
        conn.execute("select pg_sleep(0.02)")


def settled(conn: Connection) -> None:
    assert value(conn, "select pgstack.wait_until_fresh('docs', '60s')")


def chunks(conn: Connection) -> list[tuple[Any, ...]]:
    """The chunks as they lie on the disk: written anew, they are others."""
    return conn.execute(
        "select ctid, embedding_uuid, id, chunk "
        "from pgstack_collections.docs_embedding_store order by id, chunk_seq"
    ).fetchall()


def helpers(worker: Worker) -> set[int]:
    """The processes in which a worker reads files."""
    found = set()
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            if (
                parent == worker.process.pid
                and b"pgstack.extract" in (folder / "cmdline").read_bytes()
            ):
                found.add(int(folder.name))
    return found


@contextmanager
def held(conn: Connection, worker: Worker) -> Iterator[int]:
    """The worker's helper process stands still while the block runs, whatever it is given."""
    first = f"first-{worker.process.pid}.txt"
    put(conn, first, b"The first one.")
    until(conn, f"select status = 'ready' from {TABLE} where uri = %s", first)
    (helper,) = helpers(worker)
    os.kill(helper, signal.SIGSTOP)
    try:
        yield helper
    finally:
        with suppress(ProcessLookupError):
            os.kill(helper, signal.SIGCONT)
