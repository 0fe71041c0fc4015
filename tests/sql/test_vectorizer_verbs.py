"""The DBA's verbs: create, drop, pause, resume, retry; what they leave and what they refuse."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg
import pytest

Conn = psycopg.Connection[Any]
Drain = Callable[[], int]

CREATE = "select pgstack.create_vectorizer('docs', 'body', dimensions => 3)"


def rows(conn: Conn, query: str, *params: Any) -> list[Any]:
    return conn.execute(query.encode(), params or None).fetchall()


def column(conn: Conn, query: str, *params: Any) -> list[Any]:
    return [row[0] for row in rows(conn, query, *params)]


def create(conn: Conn, arguments: str = "'docs', 'body'") -> int:
    found = column(conn, f"select pgstack.create_vectorizer({arguments}, dimensions => 3)")
    return int(found[0])


def refused(conn: Conn, sqlstate: str, statement: str) -> psycopg.Error:
    """The statement fails with this SQLSTATE and a hint."""
    with pytest.raises(psycopg.Error) as caught, conn.transaction():
        conn.execute(statement.encode())
    assert caught.value.sqlstate == sqlstate, str(caught.value)
    assert caught.value.diag.message_hint
    return caught.value


@pytest.fixture
def docs(conn: Conn) -> Conn:
    """A table of two rows."""
    conn.execute("create table docs (id integer primary key, title text, body text)")
    conn.execute("insert into docs values (1, 'One', 'first text'), (2, 'Two', 'second text')")
    return conn


def everything(conn: Conn) -> set[str]:
    """What exists outside of the catalogues: relations, functions, triggers, policies."""
    return set(
        column(
            conn,
            """
            select 'relation ' || c.oid::regclass::text from pg_class as c
            where c.relnamespace not in ('pg_catalog'::regnamespace, 'pg_toast'::regnamespace)
            union all
            select 'function ' || p.oid::regprocedure::text from pg_proc as p
            where p.pronamespace in ('ai'::regnamespace, 'public'::regnamespace)
            union all
            select 'trigger ' || t.tgname || ' ' || t.tgrelid::regclass::text from pg_trigger as t
            union all
            select 'policy ' || p.polname || ' ' || p.polrelid::regclass::text from pg_policy as p
            union all
            select 'row ' || v.name from ai.vectorizer as v
            union all
            select 'ours ' || v.vectorizer_id from _pgstack.vectorizer as v
            union all
            select 'work ' || w.key::text from _pgstack.work as w
            """,
        )
    )


# -------------------------------------------------------------------------- create


def test_create_declares_it_in_pgais_catalogue(docs: Conn) -> None:
    vectorizer = create(docs, "'docs', 'body'")
    found = rows(
        docs,
        "select id, name, source_table, config -> 'embedding' ->> 'model', "
        "config -> 'loading' ->> 'column_name' from ai.vectorizer",
    )
    assert found == [(vectorizer, "docs", "docs", "all-minilm", "body")]
    status = "select name, source, target, view, dimensions from pgstack.vectorizer_status"
    assert rows(docs, status) == [
        ("docs", "public.docs", "public.docs_embedding_store", "public.docs_embedding", 3)
    ]


def test_existing_rows_are_queued_or_not(docs: Conn, drain: Drain) -> None:
    create(docs, "'docs', 'body', name => 'a', destination => 'a', enqueue_existing => false")
    assert drain() == 0
    create(docs, "'docs', 'body', name => 'b', destination => 'b'")
    assert drain() == 2


def test_several_vectorizers_serve_one_table(docs: Conn, drain: Drain) -> None:
    create(docs, "'docs', 'body', name => 'bodies', destination => 'bodies'")
    create(docs, "'docs', 'title', name => 'titles', destination => 'titles'")
    create(docs, "'docs', 'body', name => 'in_row', embedding_column => 'vec'")
    assert drain() == 6
    query = "select chunk from pgstack.search(%s, 'two second', mode => 'text')"
    assert column(docs, query, "bodies") == ["second text"]
    assert column(docs, query, "titles") == ["Two"]
    assert column(docs, query, "in_row") == ["second text"]
    error = refused(docs, "PS001", "select * from pgstack.search('docs', 'x')")
    assert "'bodies', 'in_row', 'titles'" in (error.diag.message_hint or "")
    docs.execute("delete from docs where id = 1")
    docs.execute("select pgstack.drop_vectorizer('titles', true)")
    docs.execute("update docs set body = 'third text'")
    assert drain() == 2
    assert column(docs, query, "bodies") == []
    assert column(docs, "select chunk from bodies_store") == ["third text"]


def test_several_columns_make_a_heading(docs: Conn) -> None:
    create(docs, "'docs', array['title', 'body']")
    template = column(docs, "select template from _pgstack.vectorizer_plan")
    assert template == ["${title}\n\n$chunk"]


def test_one_of_that_name_is_kept_if_asked(docs: Conn) -> None:
    first = create(docs)
    assert create(docs, "'docs', 'title', if_not_exists => true") == first
    error = refused(
        docs, "PS012", "select pgstack.create_vectorizer('docs', 'body', dimensions => 3)"
    )
    assert "if_not_exists" in (error.diag.message_hint or "")


def test_a_taken_destination_is_refused(docs: Conn) -> None:
    create(docs)
    for destination in ("docs_embedding", "docs"):
        refused(
            docs,
            "PS012",
            "select pgstack.create_vectorizer('docs', 'body', name => 'other', dimensions => 3, "
            f"destination => '{destination}')",
        )


@pytest.mark.parametrize(
    ("arguments", "sqlstate", "words"),
    [
        ("null, 'body'", "PS007", "source"),
        ("'docs', 'bod'", "PS007", 'no column "bod"'),
        ("'docs', null::name", "PS007", "NULL"),
        ("'docs', '{}'::name[]", "PS007", "no column"),
        ("'docs', null::name[]", "PS007", "content"),
        ("'docs', 'body', name => 'Not A Name'", "PS007", "Not A Name"),
        ("'docs', 'body', name => ''", "PS007", "called"),
        ("'docs', 'body', model => 'two words'", "PS007", "two words"),
        ("'docs', 'body', chunking => 'magic'", "PS007", "magic"),
        ("'docs', 'body', chunk_size => 0", "PS007", "0"),
        ("'docs', 'body', chunk_size => 10, chunk_overlap => 11", "PS007", "overlap"),
        ("'docs', 'body', template => '$nothing'", "PS007", "nothing"),
        ("'docs', 'body', template => '$title only'", "PS013", "chunk"),
        ("'docs', 'body', index => 'btree'", "PS007", "btree"),
        ("'docs', 'body', index => null", "PS007", "index"),
        ("'docs', 'body', destination => repeat('x', 58)", "PS007", "too long"),
        ("'docs', 'body', embedding_column => 'title'", "PS013", "of type text"),
        ("'docs', 'body', embedding_column => 'id'", "PS013", "of type integer"),
        ("'docs', 'body', embedding_column => 'long'", "PS013", "vector(4)"),
        ("'docs', 'photo'", "PS013", "bytea"),
        ("'keyless', 'body'", "PS013", "primary key"),
        ("'docs_view', 'body'", "PS013", "permanent table"),
        ("'scratch', 'body'", "PS013", "permanent table"),
    ],
)
def test_a_bad_argument_is_refused(docs: Conn, arguments: str, sqlstate: str, words: str) -> None:
    docs.execute("alter table docs add column photo bytea, add column long vector(4)")
    docs.execute("create table keyless (body text); create view docs_view as select * from docs")
    docs.execute("create temporary table scratch (id integer primary key, body text)")
    before = everything(docs)
    error = refused(
        docs, sqlstate, f"select pgstack.create_vectorizer({arguments}, dimensions => 3)"
    )
    assert words in str(error)
    assert everything(docs) == before


@pytest.mark.parametrize("dimensions", [0, -1, 16001])
def test_dimensions_that_no_vector_has_are_refused(docs: Conn, dimensions: int) -> None:
    refused(
        docs,
        "PS007",
        f"select pgstack.create_vectorizer('docs', 'body', dimensions => {dimensions})",
    )


def test_a_table_of_somebody_else_is_refused(docs: Conn, make_role: Callable[[str], str]) -> None:
    role = make_role("manager")
    docs.execute(f"alter table _pgstack.vectorizer owner to {role}".encode())
    docs.execute(f"set local role {role}".encode())
    error = refused(
        docs, "PS014", "select pgstack.create_vectorizer('docs', 'body', dimensions => 3)"
    )
    assert "owner of public.docs" in str(error)


def test_a_vector_column_that_is_there_is_filled(docs: Conn, drain: Drain) -> None:
    docs.execute("alter table docs add column vec vector(3), add column any_vec vector")
    for name in ("vec", "any_vec"):
        create(docs, f"'docs', 'body', name => '{name}', embedding_column => '{name}'")
    assert drain() == 4
    assert column(docs, "select count(*) from docs where vec = any_vec") == [2]


def test_a_partitioned_table_will_do(conn: Conn, drain: Drain) -> None:
    conn.execute(
        "create table docs (id integer, part text, body text, primary key (id, part)) "
        "partition by list (part); "
        "create table docs_a partition of docs for values in ('a'); "
        "create table docs_b partition of docs for values in ('b'); "
        "insert into docs values (1, 'a', 'one'), (1, 'b', 'two')"
    )
    create(conn)
    assert drain() == 2
    conn.execute("update docs set body = 'three' where part = 'a'")
    conn.execute("delete from docs where part = 'b'")
    assert drain() == 1
    assert column(conn, "select chunk from docs_embedding_store") == ["three"]


# ---------------------------------------------------------------------------- drop


@pytest.mark.parametrize("placed", ["", ", embedding_column => 'vec'"])
def test_drop_leaves_nothing_behind(docs: Conn, drain: Drain, placed: str) -> None:
    before = everything(docs)
    create(docs, "'docs', 'body'" + placed)
    assert drain() == 2
    docs.execute("update docs set body = 'waiting' where id = 1")
    docs.execute("select pgstack.drop_vectorizer('docs', drop_data => true)")
    assert everything(docs) == before
    docs.execute("insert into docs values (3); update docs set id = 4 where id = 3")
    docs.execute("delete from docs; truncate docs")


def test_drop_keeps_the_data_unless_told(docs: Conn, drain: Drain) -> None:
    before = everything(docs)
    create(docs)
    assert drain() == 2
    docs.execute("select pgstack.drop_vectorizer('docs')")
    kept = {name for name in everything(docs) - before if "docs_embedding" not in name}
    assert kept == set()
    assert column(docs, "select count(*) from docs_embedding") == [2]
    docs.execute("update docs set id = id + 10; delete from docs where id = 11")
    refused(docs, "PS001", "select * from pgstack.search('docs', 'x')")


@pytest.mark.parametrize("drop_all", ["true", "false"])
def test_pgais_own_drop_leaves_the_source_writable(docs: Conn, drop_all: str) -> None:
    vectorizer = create(docs)
    docs.execute(f"select ai.drop_vectorizer({vectorizer}, {drop_all})".encode())
    docs.execute("insert into docs values (3); update docs set id = 4 where id = 3")
    docs.execute("delete from docs where id = 4; truncate docs")
    assert create(docs, "'docs', 'body', destination => 'again'") > vectorizer
    docs.execute("insert into docs values (3); delete from docs")


def test_a_dropped_source_is_told_and_can_be_cleared_away(docs: Conn, drain: Drain) -> None:
    create(docs)
    docs.execute("drop table docs cascade")
    state = rows(docs, "select state, last_error from pgstack.vectorizer_status")
    assert state in ([], [("blocked", "the source table public.docs is gone")])
    if state:
        docs.execute("select pgstack.drop_vectorizer('docs', true)")
    assert not [name for name in everything(docs) if "docs" in name or "forget" in name]


@pytest.mark.parametrize(
    "call",
    [
        "drop_vectorizer('nothing')",
        "pause_vectorizer('nothing')",
        "resume_vectorizer('nothing')",
        "retry_vectorizer('nothing')",
        "wait_until_fresh('nothing')",
        "search('nothing', 'x')",
        "ask('nothing', 'x')",
        "drop_vectorizer(null)",
    ],
)
def test_an_unknown_vectorizer_is_refused_with_those_there_are(docs: Conn, call: str) -> None:
    error = refused(docs, "PS001", f"select pgstack.{call}")
    assert "create_vectorizer" in (error.diag.message_hint or "")
    create(docs)
    error = refused(docs, "PS001", f"select pgstack.{call}")
    assert error.diag.message_hint == "Known: 'docs'"


# ------------------------------------------------------------- pause, resume, retry


def test_a_paused_vectorizer_queues_and_waits(docs: Conn, drain: Drain) -> None:
    create(docs)
    docs.execute("select pgstack.pause_vectorizer('docs')")
    docs.execute("insert into docs values (3, 'Three', 'third text')")
    assert drain() == 0
    status = "select state, pending from pgstack.vectorizer_status"
    assert rows(docs, status) == [("paused", 3)]
    docs.execute("select pgstack.pause_vectorizer('docs')")
    docs.execute("select pgstack.resume_vectorizer('docs'), pgstack.resume_vectorizer('docs')")
    assert rows(docs, status) == [("no worker", 3)]
    assert drain() == 3
    assert rows(docs, status) == [("fresh", 0)]


def test_failed_rows_are_tried_again(docs: Conn, drain: Drain) -> None:
    vectorizer = create(docs)
    [(keys,)] = rows(
        docs, "select keys::text[] from _pgstack.work_claim(gen_random_uuid(), null, '{}', '{}')"
    )
    [(worker,)] = rows(docs, "select distinct worker from _pgstack.work")
    docs.execute(
        "select _pgstack.work_fail(%(w)s, %(v)s, %(k)s::jsonb[], ("
        "select array_agg(version order by nr) "
        "from _pgstack.work_load(%(v)s, %(k)s::jsonb[], null, null)), "
        "'no good', true)",
        {"w": worker, "v": vectorizer, "k": keys},
    )
    status = "select state, pending, failed, last_error from pgstack.vectorizer_status"
    assert rows(docs, status) == [("fresh", 0, 2, "no good")]
    assert column(docs, "select pgstack.retry_vectorizer('docs')") == [2]
    assert rows(docs, status) == [("no worker", 2, 0, None)]
    assert drain() == 2
    assert column(docs, "select pgstack.retry_vectorizer('docs')") == [0]


# -------------------------------------------------------------------------- waiting


def test_waiting_ends_at_once_when_there_is_nothing_to_wait_for(docs: Conn, drain: Drain) -> None:
    create(docs)
    own = refused(docs, "PS007", "select pgstack.wait_until_fresh('docs', '0s')")
    assert "this transaction" in str(own)
    assert drain() == 2
    assert column(docs, "select pgstack.wait_until_fresh('docs', '0s')") == [True]


@pytest.mark.parametrize("timeout", ["null", "'soon'::text::interval"])
def test_waiting_has_an_end(docs: Conn, timeout: str) -> None:
    create(docs)
    with pytest.raises(psycopg.Error) as caught, docs.transaction():
        docs.execute(f"select pgstack.wait_until_fresh('docs', {timeout})".encode())
    assert caught.value.sqlstate in ("PS007", "22007")


def test_waiting_without_a_worker_is_refused(db: Conn) -> None:
    """Committed, because what this transaction queued is nothing to wait for."""
    db.execute("create table docs (id integer primary key, body text)")
    db.execute("insert into docs values (1, 'text')")
    create(db)
    assert column(db, "select pgstack.wait_until_fresh('docs', '0s')") == [False]
    error = refused(db, "PS003", "select pgstack.wait_until_fresh('docs')")
    assert "pgstack worker" in (error.diag.message_hint or "")


def test_waiting_where_others_cannot_be_seen_is_refused(shared_url: str) -> None:
    with psycopg.connect(shared_url) as conn, conn.transaction(force_rollback=True):
        conn.execute("set transaction isolation level repeatable read")
        conn.execute("create table docs (id integer primary key, body text)")
        create(conn)
        refused(conn, "PS007", "select pgstack.wait_until_fresh('docs')")
