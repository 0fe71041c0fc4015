"""Vector indexes: which one fits, building it, and what it finds.

Data in and out
    ``name``     a vectorizer, or its source table
    ``Advice``   one kind of index; bytes, seconds and milliseconds; ``recommended`` comes first
    ``Build``    one index that was asked for; ``percent`` 0 to 100, ``eta`` and ``elapsed``
                 durations
    ``Recall``   what an index finds at one effort; shares of 1, milliseconds

Nothing here opens a connection.  The worker builds; :func:`follow` watches it.

Raises
    UnknownVectorizer, UsageError, MissingExtension, Unsupported, MissingPrivilege
    NoWorker       nobody is there to build
    PgstackError   a build failed
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from psycopg.rows import class_row
from psycopg.types.json import Jsonb

from pgstack import queries
from pgstack.db import Connection
from pgstack.errors import NoWorker, PgstackError
from pgstack.vectorizers import PATIENCE_SECONDS, understood

OPEN = ("requested", "building", "clearing")


@dataclass(frozen=True)
class Advice:
    """A row of ``pgstack.index_advice()``: None where an index of that kind is not possible."""

    recommended: bool
    method: str
    storage: str
    parameters: dict[str, Any]
    labels: str | None
    expected_bytes: int | None
    expected_time: timedelta | None
    memory_bytes: int | None
    expected_ms: float | None
    why: str
    statement: str | None


@dataclass(frozen=True)
class Build:
    """A row of ``pgstack.index_progress``."""

    build: int
    vectorizer: str
    method: str
    storage: str
    parameters: dict[str, Any]
    state: str
    phase: str | None
    tuples_done: int | None
    tuples_total: int | None
    percent: float | None
    elapsed: timedelta | None
    eta: timedelta | None
    bytes: int | None
    attempts: int
    error: str | None
    automatic: bool
    requested_by: str
    requested_at: datetime
    finished_at: datetime | None


@dataclass(frozen=True)
class Recall:
    """A row of ``pgstack.recall()``."""

    effort: int
    recall: float
    recall_p5: float
    p50_ms: float
    p95_ms: float
    exact_ms: float
    chosen: bool
    queries: str
    sampled: int


def advice(conn: Connection, name: str, *, rows: int | None = None) -> list[Advice]:
    """Return the kinds of index, the recommended one first; ``rows``: for so many chunks."""
    with understood(), conn.cursor(row_factory=class_row(Advice)) as cur:
        return cur.execute(queries.INDEX_ADVICE, (name, rows)).fetchall()


def build(
    conn: Connection,
    name: str,
    *,
    method: str | None = None,
    storage: str | None = None,
    parameters: dict[str, float] | None = None,
    labels: str | None = None,
) -> int:
    """Ask the worker for an index; return the number of the build.  None: as advised."""
    wanted = {
        "vectorizer": name,
        "method": method,
        "storage": storage,
        "parameters": None if parameters is None else Jsonb(parameters),
        "labels": labels,
    }
    with understood():
        row = conn.execute(queries.INDEX_BUILD, wanted).fetchone()
    return int(row[0]) if row else 0


def builds(conn: Connection, name: str | None = None) -> list[Build]:
    """Return the builds of a vectorizer, or of all, the latest first."""
    with understood(), conn.cursor(row_factory=class_row(Build)) as cur:
        return cur.execute(queries.INDEX_BUILDS, {"vectorizer": name, "build": None}).fetchall()


def follow(conn: Connection, number: int, *, every: float = 0.5) -> Iterator[Build]:
    """Yield how a build stands, again and again, until it is done.

    Raises NoWorker when nobody works on it, PgstackError when it failed.
    """
    alone_since = None
    while True:
        with understood(), conn.cursor(row_factory=class_row(Build)) as cur:
            now = cur.execute(
                queries.INDEX_BUILDS, {"vectorizer": None, "build": number}
            ).fetchone()
        if now is None:
            raise PgstackError(f"there is no build {number}", hint="pgstack index builds")
        yield now
        if now.state == "failed":
            raise PgstackError(
                f"the index of {now.vectorizer} was not built: {now.error}",
                hint="The worker's log says more. The index that was there still serves.",
            )
        if now.state == "done":
            return
        alone_since = None if _worker_present(conn) else alone_since or time.monotonic()
        if alone_since and time.monotonic() - alone_since > PATIENCE_SECONDS:
            raise NoWorker(
                f"no worker is connected, so the index of {now.vectorizer} waits",
                hint="pgstack worker -d URL   # embedded stack: pgstack up",
            )
        time.sleep(every)


def _worker_present(conn: Connection) -> bool:
    row = conn.execute(queries.WORKER_PRESENT).fetchone()
    return bool(row and row[0])


def recall(
    conn: Connection, name: str, *, sample: int = 100, k: int = 10, target: float | None = None
) -> list[Recall]:
    """Return what the index finds, the least effort first; owners' measures are kept."""
    with understood(), conn.cursor(row_factory=class_row(Recall)) as cur:
        return cur.execute(
            queries.RECALL, {"vectorizer": name, "sample": sample, "k": k, "target": target}
        ).fetchall()
