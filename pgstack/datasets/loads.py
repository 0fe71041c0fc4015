"""Loads that were begun: how they stand, and what they kept aside."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from psycopg.rows import class_row

from pgstack import queries
from pgstack.datasets.batch import Reject
from pgstack.db import Connection
from pgstack.vectorizers import understood


@dataclass(frozen=True)
class Load:
    """A row of ``pgstack.dataset_loads``."""

    load: int
    target: str
    source: str
    mode: str
    state: str
    rows: int
    rejects: int
    bytes_read: int
    bytes: int
    error: str | None
    owner: str
    started_at: datetime
    updated_at: datetime
    finished_at: datetime | None


def loads(conn: Connection, load: int | None = None) -> list[Load]:
    """Return the loads that the role may see, the latest first; or the one of that number."""
    with understood(), conn.cursor(row_factory=class_row(Load)) as cur:
        return cur.execute(queries.DATASET_LOADS, {"load": load}).fetchall()


def rejects(conn: Connection, load: int, *, limit: int | None = None) -> list[Reject]:
    """Return what a load kept aside, in the order of lines."""
    with understood(), conn.cursor(row_factory=class_row(Reject)) as cur:
        return cur.execute(queries.DATASET_REJECTS, {"load": load, "limit": limit}).fetchall()


def forget(conn: Connection, load: int) -> None:
    """Remove what is known of a load.  Raises UnknownVectorizer (PS001) when there is none."""
    with understood():
        conn.execute(queries.DATASET_FORGET, (load,))
