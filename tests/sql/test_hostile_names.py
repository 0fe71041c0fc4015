"""Any name that PostgreSQL allows works, or is refused with a reason."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from psycopg import sql
from psycopg.types.json import Jsonb

Conn = psycopg.Connection[Any]


def column(conn: Conn, query: str) -> list[Any]:
    return [row[0] for row in conn.execute(query.encode())]


NAMES = [
    '"; drop table victim; --',
    "'; drop table victim; --",
    "Mixed Case",
    "ünïcode ☃ 名前",
    "x" * 63,
    "%s %I %L %1$s %%",
    "$$ $body$ $sql$ $1 ${a}",
    "new\nline\ttab",
    "back\\slash",
    "--",
    "/* comment */",
    "select",
    "r",
    "k",
    "key",
    "t",
    "q",
    "nr",
]


def vectorize(conn: Conn, name: str, column: str) -> None:
    """A vectorizer called it, on the table of that name."""
    conn.execute(
        "select pgstack.create_vectorizer(%s::regclass, %s, name => 'it', dimensions => 3, "
        "destination => 'it_view')",
        (sql.Identifier(name).as_string(conn), column),
    )


@pytest.mark.parametrize("name", NAMES)
def test_any_name_goes_through_the_whole_chain(
    conn: Conn, drain: Callable[[], int], name: str
) -> None:
    """Table, key column, text column and schema of one odd name or made from it."""
    conn.execute("create table victim (id integer)")
    other = name[:60] + "2"
    make = sql.SQL(
        "create schema {name}; set local search_path = {name}, public; "
        "create table {name}.{name} ({name} integer, {other} text primary key); "
        "insert into {name} values (7, 'the text')"
    )
    conn.execute(make.format(name=sql.Identifier(name), other=sql.Identifier(other)))
    vectorize(conn, name, other)
    assert drain() == 1
    query = "select id, chunk from pgstack.search('it', 'text', mode => 'text', filter => %s)"
    row = conn.execute(query, (Jsonb({name: 7}),)).fetchone()
    assert row == ({other: "the text"}, "the text")
    conn.execute(
        sql.SQL("update {} set {} = 'other text'").format(*map(sql.Identifier, (name, other)))
    )
    assert drain() == 1
    assert column(conn, "select chunk from it_view_store") == ["other text"]
    conn.execute(sql.SQL("delete from {}").format(sql.Identifier(name)))
    assert column(conn, "select chunk from it_view_store") == []
    state = conn.execute("select state, last_error from pgstack.vectorizer_status").fetchone()
    assert state is not None
    assert state[1] is None
    conn.execute("select pgstack.retry_vectorizer('it'), pgstack.drop_vectorizer('it', true)")
    conn.execute("select from victim")


@pytest.mark.parametrize("name", [n for n in NAMES if n not in {"t", "q"}])
def test_an_odd_column_may_hold_the_embedding(
    conn: Conn, drain: Callable[[], int], name: str
) -> None:
    conn.execute("create table docs (id integer primary key, body text)")
    conn.execute("insert into docs values (1, 'the text')")
    conn.execute(
        "select pgstack.create_vectorizer('docs', 'body', dimensions => 3, embedding_column => %s)",
        (name,),
    )
    assert drain() == 1
    filled = sql.SQL("select {}::text from docs").format(sql.Identifier(name))
    assert conn.execute(filled).fetchone() == ("[1,1,1]",)
    row = conn.execute("select id, chunk from pgstack.search('docs', 'text', mode => 'text')")
    assert row.fetchone() == ({"id": 1}, "the text")


@pytest.mark.parametrize("name", ["chunk", "chunk_seq", "embedding", "embedding_uuid"])
@pytest.mark.parametrize("place", ["key", "text"])
def test_pgais_own_columns_are_refused(conn: Conn, name: str, place: str) -> None:
    key, text = (name, "body") if place == "key" else ("id", name)
    make = sql.SQL("create table docs ({} integer primary key, {} text)")
    conn.execute(make.format(sql.Identifier(key), sql.Identifier(text)))
    with pytest.raises(psycopg.Error, match=name) as caught, conn.transaction():
        vectorize(conn, "docs", text)
    assert caught.value.sqlstate == "PS013"
    assert caught.value.diag.message_hint


@pytest.mark.parametrize("name", ["start_char", "end_char", "digest"])
def test_our_own_columns_are_refused_as_keys(conn: Conn, name: str) -> None:
    make = sql.SQL("create table docs ({} integer primary key, body text)")
    conn.execute(make.format(sql.Identifier(name)))
    with pytest.raises(psycopg.Error, match=name) as caught, conn.transaction():
        vectorize(conn, "docs", "body")
    assert caught.value.sqlstate == "PS013"
    assert caught.value.diag.message_hint


def test_a_planted_dollar_quote_ends_no_trigger(conn: Conn, drain: Callable[[], int]) -> None:
    """The trigger that forgets deleted rows names the key columns in its body."""
    key = "$body$; drop table victim; --"
    conn.execute("create table victim (id integer)")
    conn.execute(
        sql.SQL("create table docs ({} integer primary key, body text)").format(sql.Identifier(key))
    )
    vectorize(conn, "docs", "body")
    conn.execute("insert into docs values (1, 'x'), (2, 'y')")
    conn.execute("delete from docs where body = 'y'")
    assert drain() == 1
    conn.execute("select from victim")
