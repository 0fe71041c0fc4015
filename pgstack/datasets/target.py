"""The table that a data set goes to: a new one, or one that exists."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import psycopg
from psycopg import sql

from pgstack import queries
from pgstack.datasets import schema
from pgstack.datasets.schema import Column, Options
from pgstack.db import Connection
from pgstack.errors import MissingPrivilege, UsageError


@dataclass(frozen=True)
class Table:
    """A table's name, how SQL writes that, and its oid if it is there."""

    schema: str
    name: str
    called: str
    relation: int | None

    @property
    def names(self) -> tuple[str, str]:
        """Return schema and name."""
        return self.schema, self.name


def _table(conn: Connection, schema_name: str, name: str, relation: int | None) -> Table:
    row = conn.execute(queries.DATASET_CALLED, (schema_name, name)).fetchone()
    return Table(schema_name, name, row[0] if row else name, relation)


def find_table(conn: Connection, name: str) -> Table:
    """Return the table of a name: as SQL writes it, or as it is where that is no SQL."""
    parts = _parts(conn, name)
    written = sql.Identifier(*parts).as_string(conn)
    found = conn.execute(queries.DATASET_TABLE, (written,)).fetchone()
    if found is not None:
        if found[3] not in ("r", "p"):
            raise UsageError(f"{written} is no table", hint="--table another_name")
        return _table(conn, *found[:3])
    if len(parts) == 2:
        return _table(conn, parts[0], parts[1], None)
    row = conn.execute(queries.DATASET_SCHEMA).fetchone()
    if row is None or row[0] is None:
        raise UsageError("no schema of the search_path exists", hint=f"--table public.{name}")
    return _table(conn, row[0], parts[0], None)


def _parts(conn: Connection, name: str) -> list[str]:
    try:
        with conn.transaction():
            row = conn.execute(queries.DATASET_NAME, (name,)).fetchone()
        parts = list(row[0]) if row else [name]
    except psycopg.errors.DataError:  # no name that SQL can read
        parts = [name]
    if len(parts) > 2 or any(not 1 <= len(p.encode()) <= schema.NAME_BYTES for p in parts):
        raise UsageError(
            f'a table cannot be called "{name}"',
            hint=f"--table schema.name, each of 1 to {schema.NAME_BYTES} bytes",
        )
    return parts


def check_types(conn: Connection, options: Options) -> None:
    """Raise UsageError for a type that this database does not have."""
    for name in options.types.values():
        try:
            with conn.transaction():
                row = conn.execute(queries.DATASET_TYPE, (schema.checked_type(name),)).fetchone()
        except psycopg.Error:  # no name of a type at all
            row = None
        if row is None or not row[0]:
            raise UsageError(f'there is no type "{name}"', hint="--type price=numeric")


def create(conn: Connection, table: Table, columns: Sequence[Column], options: Options) -> Table:
    """Create the table; return it with its oid."""
    try:
        conn.execute(schema.create_table(table.names, columns, options))
    except psycopg.errors.InsufficientPrivilege as exc:
        raise MissingPrivilege(
            str(exc.diag.message_primary),
            hint=f"grant create on schema {sql.Identifier(table.schema).as_string(None)} to ...;",
        ) from exc
    except psycopg.errors.InvalidSchemaName as exc:
        name = sql.Identifier(table.schema).as_string(None)
        raise UsageError(str(exc.diag.message_primary), hint=f"create schema {name};") from exc
    found = conn.execute(queries.DATASET_TABLE, (table.called,)).fetchone()
    return replace(table, relation=found[2] if found else None)


def matched(conn: Connection, table: Table, columns: Sequence[Column]) -> list[Column]:
    """Return the columns with names and types of the table's: the same name, in any case."""
    rows = conn.execute(queries.DATASET_COLUMNS, (table.relation,)).fetchall()
    types = dict(rows)
    folded: dict[str, list[str]] = {}
    for name in types:
        folded.setdefault(name.lower(), []).append(name)
    found = []
    for column in columns:
        names = [column.name] if column.name in types else folded.get(column.name.lower(), [])
        if len(names) != 1:
            raise UsageError(
                f'the table {table.called} has no column "{column.name}"',
                hint=f"--column '{column.source}=' leaves it out, OLD=NEW renames it. "
                f"There are: {', '.join(types)}"[:1000],
            )
        found.append(schema.replaced(column, name=names[0], type=types[names[0]]))
    doubled = [c.name for c in found if [d.name for d in found].count(c.name) > 1]
    if doubled:
        raise UsageError(f'two columns of the file go to "{doubled[0]}"', hint="--column OLD=NEW")
    return found
