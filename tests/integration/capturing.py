"""What tests of change capture share: tables of three kinds, and a look at the queue."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

Conn = psycopg.Connection[Any]

COLUMNS = "id int, part int default 1, title text default 'T', body text, note text"
LONE = f"create table t ({COLUMNS}, primary key (id, part))"
PARTITIONED = (
    f"create table t ({COLUMNS}, primary key (id, part)) partition by list (part);"
    "create table t_1 partition of t for values in (1);"
    "create table t_2 partition of t for values in (2, 3) partition by list (part);"
    "create table t_2_2 partition of t_2 for values in (2)"
)
INHERITED = f"{LONE}; create table t_1 () inherits (t); create table t_2 () inherits (t)"
KINDS = {"lone": LONE, "partitioned": PARTITIONED, "inherited": INHERITED}
OURS = (
    "select pgstack.create_vectorizer('t', array['title', 'body'], name => 'v', dimensions => 3, "
    "destination => 'v')"
)
PGAIS = (
    "select ai.create_vectorizer('t', name => 'v', loading => ai.loading_column('body'), "
    "embedding => ai.embedding_ollama('all-minilm', 3), destination => ai.destination_table('v'), "
    "formatting => ai.formatting_python_template('$title $chunk'))"
)
ADOPT = "select pgstack.adopt_vectorizer('v')"
REFRESH = "select _pgstack.prepare_vectorizers()"


def column(conn: Conn, query: str, *params: Any) -> list[Any]:
    """Return the first column of every row."""
    return [row[0] for row in conn.execute(query.encode(), params or None).fetchall()]


def run(conn: Conn, statements: str) -> None:
    """Run statements, separated by semicolons."""
    conn.execute(statements.encode())


def queued(conn: Conn) -> list[int]:
    """Return the ids that are queued, each once, and empty the queue."""
    (queue,) = column(conn, "select queue from _pgstack.vectorizer_plan where name = 'v'")
    return sorted(set(column(conn, f"delete from {queue} returning id")))


def embed(conn: Conn) -> None:
    """Give every row two chunks, as a worker would, and empty the queue."""
    run(
        conn,
        "delete from v_store; insert into v_store (id, part, chunk_seq, chunk, embedding) "
        "select id, part, nr, body, '[1,1,1]' from t, generate_series(0, 1) as nr",
    )
    queued(conn)


def embedded(conn: Conn) -> list[int]:
    """Return the ids that have chunks."""
    return column(conn, "select distinct id from v_store order by id")


def triggers(conn: Conn) -> set[str]:
    """Return the triggers of vectorizers on tables of schema public, as table and trigger."""
    return set(
        column(
            conn,
            r"""
            select c.relname || ' ' || t.tgname from pg_trigger as t
            join pg_class as c on c.oid = t.tgrelid
            where c.relnamespace = 'public'::regnamespace and t.tgname like '\_%'
            """,
        )
    )


def refused(conn: Conn, sqlstate: str, statement: str) -> psycopg.Error:
    """The statement fails with this SQLSTATE and a hint."""
    with pytest.raises(psycopg.Error) as caught, conn.transaction():
        run(conn, statement)
    assert caught.value.sqlstate == sqlstate, str(caught.value)
    assert caught.value.diag.message_hint
    return caught.value


def make_source(conn: Conn, how: str, ddl: str) -> Conn:
    """Make table t and its vectorizer v, "ours" or "adopted", with three embedded rows."""
    run(conn, ddl)
    run(conn, OURS if how == "ours" else f"{PGAIS}; {ADOPT}")
    run(conn, "insert into t (id, body) values (1, 'one'), (2, 'two'), (3, 'three')")
    assert queued(conn) == [1, 2, 3]
    embed(conn)
    return conn
