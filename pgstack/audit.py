"""What a role can reach through pgstack's objects, and what of that is more than it should.

Data in and out
    ``role``    a role's name; None: that of the connection
    returns     :class:`Reach` rows, leaks first

A leak: texts, vectors or questions that the role may not read in their source.  Wide: more
than a reader needs, or what a later revoke would not close.  Nothing is changed.

Raises
    UsageError  no such role (PS007), or pgstack is not installed there
    MissingPrivilege  another's role, and the caller does not own pgstack (PS014)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from psycopg.rows import class_row

from pgstack import queries
from pgstack.db import Connection
from pgstack.vectorizers import understood

Severity = Literal["leak", "wide", "ok"]


@dataclass(frozen=True)
class Reach:
    """One object that a role can reach; ``remedy`` is the SQL that closes it."""

    severity: Severity
    object: str
    what: str
    how: str | None
    remedy: str | None


def audit_leaks(conn: Connection, role: str | None = None) -> list[Reach]:
    """Return what ``role`` can reach."""
    with understood(), conn.cursor(row_factory=class_row(Reach)) as cur:
        return cur.execute(queries.AUDIT_LEAKS, {"role": role}).fetchall()
