"""Notes to explain searches of, and what reads the explanation.

3,000 notes lie on an arc in the order of their id, so that it is known which are near; their
vectors were put there by hand, and no model is asked.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from psycopg import sql
from psycopg.types.json import Jsonb

from pgstack.db import connect
from tests.conftest import Server, cloned

Connection = psycopg.Connection[Any]

NOTES = """
    create table note (id integer primary key, kind integer, body text);
    create index on note (kind);
    select pgstack.create_vectorizer('note', 'body', dimensions => 2);
    insert into note
    select n, n % 100, format('note number%s%s', n, case when n <= 40 then ' zebra' end)
    from generate_series(1, 3000) as n;
    insert into note_embedding_store (id, chunk_seq, chunk, embedding, start_char, end_char)
    select n.id, 0, n.body, array[cos(n.id / 2000.0), sin(n.id / 2000.0)]::vector, 0, length(n.body)
    from note as n;
    create index note_hnsw on note_embedding_store using hnsw (embedding vector_cosine_ops);
    select _pgstack.build_words((select id from ai.vectorizer));
    truncate ai._vectorizer_q_1;
    analyze note; analyze note_embedding_store;
"""
FIRST = "[1,0]"  # near notes 1, 2, 3 ...


@contextmanager
def noted(server: Server, template: str) -> Iterator[str]:
    """A database with the notes, and no worker; gives its DSN."""
    with cloned(server, template) as dsn:
        with connect(dsn, autocommit=True) as conn:
            for statement in NOTES.split(";\n"):
                conn.execute(statement)  # type: ignore[arg-type]
        yield dsn


def call(function: str, query: str, **options: Any) -> sql.Composed:
    arguments = {"vectorizer": "note", "query": query, "embedding": FIRST, **options}
    given = sql.SQL(", ").join(
        sql.SQL("{} => {}").format(
            sql.Identifier(key), sql.Literal(Jsonb(arg) if isinstance(arg, dict) else arg)
        )
        for key, arg in arguments.items()
    )
    return sql.SQL("{}({})").format(sql.SQL(function), given)  # type: ignore[arg-type]


Story = list[tuple[str, str, str, int | None, float | None]]


def explain(conn: Connection, query: str = "zebra", **options: Any) -> Story:
    statement = sql.SQL("select step, what, detail, rows, ms from {} order by nr")
    return conn.execute(
        statement.format(call("pgstack.explain_search", query, **options))
    ).fetchall()


def step(story: Story, name: str, what: str = "") -> tuple[str, int | None]:
    """The detail and the count of the one line of that name."""
    found = [(detail, rows) for s, w, detail, rows, _ in story if s == name and what in w]
    assert len(found) == 1, story
    return found[0]


def warnings(story: Story) -> dict[str, str]:
    return {what: detail for name, what, detail, _, _ in story if name == "warning"}


def search_sql(conn: Connection, query: str, **options: Any) -> str:
    """The statement that search runs."""
    statement = sql.SQL("select {}").format(call("pgstack.search_sql", query, **options))
    row = conn.execute(statement).fetchone()
    assert row is not None
    return str(row[0])


def ids(conn: Connection, query: str = "zebra", **options: Any) -> list[int]:
    statement = sql.SQL("select (id ->> 'id')::int from {} order by rank")
    found = conn.execute(statement.format(call("pgstack.search", query, **options)))
    return [row[0] for row in found]
