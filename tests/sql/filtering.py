"""What the tests of filters share."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest
from psycopg.types.json import Jsonb

from tests.conftest import has_extension

Conn = psycopg.Connection[Any]


def run(conn: Conn, query: str) -> psycopg.Cursor[Any]:
    """Run a query built here; a % in it is a %."""
    return conn.execute(query.encode())


def condition(conn: Conn, filter_: Any, name: str = "docs") -> str:
    """The SQL of a filter over a row k."""
    query = "select _pgstack.filter_condition(_pgstack.vectorizer_plan(%s), %s)"
    row = conn.execute(query, (name, Jsonb(filter_))).fetchone()
    assert row is not None
    return str(row[0])


def found(conn: Conn, filter_: Any, name: str = "docs") -> list[int]:
    """The ids of the rows that pass a filter."""
    rows = run(conn, f"select k.id from {name} as k where {condition(conn, filter_, name)}")
    return sorted(row[0] for row in rows)


def refused(conn: Conn, filter_: Any, code: str = "PS007") -> str:
    """What is said of a filter that cannot be used: message, detail and hint."""
    with pytest.raises(psycopg.Error) as caught, conn.transaction():
        condition(conn, filter_)
    diag = caught.value.diag
    assert caught.value.sqlstate == code, diag.message_primary
    assert diag.message_hint
    return f"{diag.message_primary}\n{diag.message_detail or ''}\n{diag.message_hint}"


def vectorize(conn: Conn, name: str = "docs") -> None:
    conn.execute("select pgstack.create_vectorizer(%s, 'body', dimensions => 3)", (name,))


def make(conn: Conn, type_: str, *values: str) -> None:
    """Make the table docs with a column c: its values get the ids 1, 2, ..., the last is NULL."""
    run(conn, f"create table docs (id integer primary key, body text, c {type_})")
    for number, text in enumerate(values, start=1):
        conn.execute("insert into docs values (%s, 'x', %s)", (number, text))
    conn.execute("insert into docs values (%s, 'x', null)", (len(values) + 1,))
    vectorize(conn)


def make_types(conn: Conn) -> None:
    conn.execute(
        """
        create type mood as enum ('sad', 'ok', 'happy');
        create type pair as (a integer, b text);
        create domain positive as integer check (value > 0);
        create domain feeling as mood;
        create domain numbers as integer[];
        """
    )
    if has_extension(conn, "citext"):
        conn.execute("create extension citext")
