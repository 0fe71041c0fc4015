"""Clean a corpus: forget rows and documents, find what is there twice.

Data in and out
    ``name``       a vectorizer or collection, by name
    ``key``        a primary key as a JSON object, ``{"id": 7}``
    ``threshold``  float, 0.3 to 1: the least similarity of near-duplicates
    returns        frozen dataclasses; ``characters`` count text that could go

Nothing here commits.

Raises
    NotFound          no such vectorizer or collection (PS001)
    UsageError        no key of that table, no such document (PS007)
    MissingPrivilege  not the owner of pgstack, or no right to delete (PS014)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from psycopg.rows import class_row
from psycopg.types.json import Jsonb

from pgstack import queries
from pgstack.db import Connection
from pgstack.vectorizers import understood


@dataclass(frozen=True)
class Forgotten:
    """A table, and how many of its rows were deleted or blanked."""

    place: str
    rows: int


@dataclass(frozen=True)
class Cluster:
    """Rows that say the same: the one to keep and those that could go."""

    cluster: int
    copies: int
    exact: int
    keep_id: dict[str, Any]
    drop_ids: list[dict[str, Any]]
    characters: int
    least_similarity: float


def forget_row(conn: Connection, name: str, key: dict[str, Any]) -> list[Forgotten]:
    """Delete a source row and all that pgstack keeps of it."""
    with understood(), conn.cursor(row_factory=class_row(Forgotten)) as cur:
        return cur.execute(queries.FORGET_ROW, (name, Jsonb(key))).fetchall()


def forget_document(conn: Connection, name: str, uri: str) -> list[Forgotten]:
    """Delete a document and all that pgstack keeps of it."""
    with understood(), conn.cursor(row_factory=class_row(Forgotten)) as cur:
        return cur.execute(queries.FORGET_DOCUMENT, (name, uri)).fetchall()


def duplicate_report(
    conn: Connection, name: str, *, threshold: float = 0.8, keep: str = "longest"
) -> list[Cluster]:
    """Return the clusters of a vectorizer's source, those that take most room first."""
    with understood(), conn.cursor(row_factory=class_row(Cluster)) as cur:
        return cur.execute(queries.DUPLICATE_REPORT, (name, threshold, keep)).fetchall()
