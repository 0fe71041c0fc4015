"""Rows into a table by COPY, and those that PostgreSQL refuses aside.

When COPY refuses a row, its error names the line, which is the row.  The rows before it are
sent again, the row is kept aside, and COPY goes on behind it; so no row travels more than
twice for each row that is refused behind it, and nothing is tried row by row.  An error that
names no line (a foreign key, checked at the end) is found by halving.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import sql

from pgstack.datasets.text import content
from pgstack.db import Connection

# What a row is to blame for: data, constraints, limits, and what a trigger raises.
ROWS_FAULT = ("22", "23", "54", "P0001")
SEND_BYTES = 2**16


@dataclass(frozen=True)
class Refused:
    """A row that PostgreSQL did not take.  ``row``: its number in the batch, from 0."""

    row: int
    column: str | None
    reason: str


def copy_statement(table: Sequence[str], columns: Sequence[str]) -> sql.Composed:
    """Return the COPY that takes these columns."""
    return sql.SQL("copy {} ({}) from stdin").format(
        sql.Identifier(*table), sql.SQL(", ").join(map(sql.Identifier, columns))
    )


def copy_rows(
    conn: Connection,
    statement: sql.Composed,
    table: Sequence[str],
    lines: Any,
    refuse: Callable[[Refused], None],
) -> int:
    """Copy rows, text lines of :func:`~pgstack.datasets.text.copy_lines`; return how many.

    Must run in a transaction.  ``refuse`` hears of each row that was left out; what it raises
    ends the load.  Errors that no row is to blame for are raised.
    """
    copied = 0
    ranges = [(0, len(lines))]
    while ranges:
        first, end = ranges.pop()
        if first >= end:
            continue
        try:
            with conn.transaction():
                _send(conn, statement, lines.slice(first, end - first))
            copied += end - first
            continue
        except psycopg.Error as exc:
            if not (exc.sqlstate or "").startswith(ROWS_FAULT):
                raise
            error = exc
        at, column = _place(error, table[-1])
        if end - first == 1:
            at = 0
        if at is None or at >= end - first:
            middle = (first + end) // 2
            ranges += [(middle, end), (first, middle)]
            continue
        bad = first + at
        refuse(Refused(bad, column or error.diag.column_name, str(error.diag.message_primary)))
        ranges += [(bad + 1, end), (first, bad)]
    return copied


def _send(conn: Connection, statement: sql.Composed, lines: Any) -> None:
    data = content(lines)
    with conn.cursor() as cur, cur.copy(statement) as copy:
        for at in range(0, len(data), SEND_BYTES):
            copy.write(data[at : at + SEND_BYTES])


def _place(error: psycopg.Error, table: str) -> tuple[int | None, str | None]:
    """Return the row and the column that an error of COPY names, as English errors do."""
    said = re.search(
        rf"^COPY {re.escape(table)}, line (\d+)(?:, column (.*?)(?::|$))?",
        error.diag.context or "",
        re.MULTILINE,
    )
    return (int(said[1]) - 1, said[2]) if said else (None, None)
