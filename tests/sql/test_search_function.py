"""<view>_search(): typed columns, odd names, who owns it, what becomes of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from psycopg import sql

Conn = psycopg.Connection[Any]
Drain = Callable[[], int]


def rows(conn: Conn, query: str, *params: Any) -> list[Any]:
    return conn.execute(query.encode(), params or None).fetchall()


def refused(conn: Conn, sqlstate: str, statement: str) -> psycopg.Error:
    """The statement fails with this SQLSTATE."""
    with pytest.raises(psycopg.Error) as caught, conn.transaction():
        conn.execute(statement.encode())
    assert caught.value.sqlstate == sqlstate, str(caught.value)
    return caught.value


def columns(conn: Conn, query: str) -> dict[str, str]:
    """The names and types of what a query returns."""
    cursor = conn.execute(query.encode())
    assert cursor.description is not None
    described = {d.name: d.type_code for d in cursor.description}
    return {
        name: rows(conn, "select format_type(%s::oid, null)", oid)[0][0]
        for name, oid in described.items()
    }


def functions(conn: Conn) -> list[str]:
    """The search functions there are, by name."""
    found = rows(
        conn,
        "select p.oid::regproc::text from pg_proc as p "
        "where starts_with(p.prosrc, E'\\n-- pgstack vectorizer ') order by 1",
    )
    return [row[0] for row in found]


@pytest.fixture
def docs(conn: Conn, drain: Drain) -> Conn:
    """A table of a few types, vectorized."""
    conn.execute(
        """
        create type mood as enum ('calm', 'wild');
        create table docs (
          part integer, no bigint, body text, price numeric(8, 2), tags text[], mood mood,
          gone integer, day date, primary key (part, no)
        );
        alter table docs drop column gone;
        insert into docs values
          (1, 1, 'The zebra wears stripes.', 9.50, '{a,b}', 'calm', '2026-01-31'),
          (1, 2, 'The shark swims.', 1, null, 'wild', null),
          (2, 1, repeat('That zebra sleeps on and on. ', 60), 2, null, null, null);
        select pgstack.create_vectorizer('docs', 'body', dimensions => 3);
        """
    )
    assert drain() == 3
    return conn


def test_it_returns_the_columns_of_the_source_typed(docs: Conn) -> None:
    query = "select * from docs_embedding_search('zebra stripes', mode => 'text')"
    assert columns(docs, query) == {
        "rank": "integer",
        "score": "double precision",
        "chunk_seq": "integer",
        "chunk": "text",
        "part": "integer",
        "no": "bigint",
        "body": "text",
        "price": "numeric",
        "tags": "text[]",
        "mood": "mood",
        "day": "date",
    }
    found = rows(docs, f"select rank, part, no, price, tags, mood, day::text from ({query}) as s")
    assert [row[:3] for row in found] == [(1, 1, 1), (2, 2, 1)]
    assert [*map(str, found[0][3:4]), *found[0][4:]] == ["9.50", ["a", "b"], "calm", "2026-01-31"]


def test_its_arguments_are_those_of_search(docs: Conn) -> None:
    search = "docs_embedding_search('zebra', mode => 'text', "
    assert len(rows(docs, f"select from {search} k => 1)")) == 1
    assert rows(docs, f"select part from {search} filter => '{{\"part\": 2}}')") == [(2,)]
    assert len(rows(docs, f"select from {search} per => 'chunk')")) > 2
    assert len(rows(docs, f"select from {search} per => 'row')")) == 2
    weighted = rows(
        docs,
        "select s.score, t.score from docs_embedding_search('zebra', 5, 'text', null, 'row', "
        "'convex', 0.3, 10, 50, 0.2, null, 0.9) as s join pgstack.search('docs', 'zebra', 5, "
        "'text', null, 'row', 'convex', 0.3, 10, 50, 0.2, null, 0.9) as t using (rank)",
    )
    assert len(weighted) == 2
    assert all(one == other for one, other in weighted)
    refused(docs, "PS007", f"select from {search} k => 0)")
    refused(docs, "PS007", "select from docs_embedding_search('')")


def test_names_of_the_source_win(conn: Conn, drain: Drain) -> None:
    conn.execute(
        """
        create table docs (
          id integer primary key, rank text, search_rank text, score numeric, query text, k text,
          mode text, filter text, s text, r text, "$1" text, "per cent %I '" text, body text
        );
        insert into docs values
          (1, 'first', 'second', 0.1, 'q', 'k', 'm', 'f', 's', 'r', 'one', 'p', 'The zebra.');
        select pgstack.create_vectorizer('docs', 'body', dimensions => 3);
        """
    )
    assert drain() == 1
    row = conn.execute(
        b"select search_search_rank, search_score > 0, chunk_seq, chunk, id, rank, search_rank, "
        b'score::text, query, k, mode, filter, s, r, "$1", "per cent %I \'", body '
        b"from docs_embedding_search(query => 'zebra', mode => 'text')"
    ).fetchone()
    assert row is not None
    assert row[:5] == (1, True, 0, "The zebra.", 1)
    assert " ".join(row[5:]) == "first second 0.1 q k m f s r one p The zebra."


@pytest.mark.parametrize(
    "name", ['"; drop table victim; --', "Mixed Case", "%s %I $1 $$", "k", "r", "s", "x" * 63]
)
def test_any_names_of_schema_table_and_columns(conn: Conn, drain: Drain, name: str) -> None:
    conn.execute("create table victim (id integer)")
    conn.execute(
        sql.SQL(
            "create schema {0}; create table {0}.{0} ({0} integer primary key, {1} text); "
            "insert into {0}.{0} values (7, 'the zebra')"
        ).format(sql.Identifier(name), sql.Identifier(name[:60] + "2"))
    )
    view = name[:40] + "3"
    conn.execute(
        "select pgstack.create_vectorizer(%s::regclass, %s, name => 'it', dimensions => 3, "
        "destination => %s)",
        (sql.Identifier(name, name).as_string(conn), name[:60] + "2", view),
    )
    assert drain() == 1
    call = sql.SQL("select {} from {}('zebra', mode => 'text')").format(
        sql.Identifier(name), sql.Identifier(name, f"{view}_search")
    )
    assert conn.execute(call).fetchall() == [(7,)]
    conn.execute("select pgstack.drop_vectorizer('it', true)")
    assert functions(conn) == []
    conn.execute("select from victim")


def test_vectors_in_a_column_of_the_source(conn: Conn, drain: Drain) -> None:
    conn.execute(
        """
        create table docs (id integer primary key, body text);
        insert into docs values (1, 'The zebra wears stripes.');
        select pgstack.create_vectorizer(
          'docs', 'body', name => 'notes', embedding_column => 'vec', dimensions => 3
        );
        """
    )
    assert drain() == 1
    query = "select * from notes_search('zebra', mode => 'text')"
    assert list(columns(conn, query)) == ["rank", "score", "chunk_seq", "chunk", "id", "body"]
    assert len(rows(conn, query)) == 1
    conn.execute("select pgstack.drop_vectorizer('notes')")
    assert functions(conn) == []


def test_a_vectorizer_of_plain_pgai_gets_it_when_asked_for(conn: Conn, drain: Drain) -> None:
    conn.execute(
        """
        create table docs (id integer primary key, body text);
        insert into docs values (1, 'The zebra wears stripes.');
        select ai.create_vectorizer(
          'docs'::regclass, loading => ai.loading_column('body'),
          embedding => ai.embedding_ollama('all-minilm', 3),
          destination => ai.destination_table('found')
        );
        select _pgstack.prepare_vectorizers();
        """
    )
    assert functions(conn) == []
    assert drain() == 1
    assert rows(conn, "select pgstack.create_search_function('docs')::text") == [
        (
            "found_search(text,integer,text,jsonb,text,text,double precision,integer,integer,"
            "double precision,text,double precision)",
        )
    ]
    assert rows(conn, "select id from found_search('zebra', mode => 'text')") == [(1,)]
    refused(conn, "PS001", "select pgstack.create_search_function('nothing')")


def test_made_anew_after_columns_changed(docs: Conn) -> None:
    docs.execute("alter table docs add column extra text default 'more', drop column price cascade")
    docs.execute("alter table docs alter column tags type text using 'none'")
    query = "docs_embedding_search('stripes', mode => 'text')"
    with pytest.raises(psycopg.Error), docs.transaction():
        rows(docs, f"select * from {query}")
    docs.execute("select pgstack.create_search_function('docs')")
    assert rows(docs, f"select part, extra, tags from {query}") == [(1, "more", "none")]
    assert "price" not in columns(docs, f"select * from {query}")
    assert functions(docs) == ["docs_embedding_search"]
    docs.execute("grant execute on function docs_embedding_search to pg_monitor")
    docs.execute("select pgstack.create_search_function('docs')")  # nothing changed: kept
    assert rows(
        docs, "select proacl is not null from pg_proc where proname = 'docs_embedding_search'"
    ) == [(True,)]


def test_another_name_stays(docs: Conn) -> None:
    docs.execute("select pgstack.create_search_function('docs', name => 'find docs')")
    assert functions(docs) == ['"find docs"']
    docs.execute("alter table docs add column extra integer default 3")
    docs.execute("select pgstack.create_search_function('docs')")
    assert rows(docs, "select extra from \"find docs\"('stripes', mode => 'text')") == [(3,)]
    assert functions(docs) == ['"find docs"']


def test_it_goes_with_the_vectorizer(docs: Conn) -> None:
    docs.execute("select pgstack.drop_vectorizer('docs')")
    assert functions(docs) == []


def test_it_goes_even_when_the_source_is_gone(docs: Conn) -> None:
    docs.execute("drop table docs cascade")
    error = refused(docs, "PS013", "select pgstack.create_search_function('docs')")
    assert error.diag.message_hint
    docs.execute("select pgstack.drop_vectorizer('docs')")
    assert functions(docs) == []


@pytest.mark.parametrize("arguments", ["text", "integer"])
def test_somebody_elses_function_is_left_alone(conn: Conn, arguments: str) -> None:
    conn.execute("create table docs (id integer primary key, body text)")
    conn.execute(
        f"create function docs_embedding_search({arguments}) returns text "
        "language sql as 'select ''mine''::text'".encode()
    )
    error = refused(
        conn, "PS012", "select pgstack.create_vectorizer('docs', 'body', dimensions => 3)"
    )
    assert "public.docs_embedding_search" in str(error)
    assert "destination" in (error.diag.message_hint or "")
    conn.execute(
        "select pgstack.create_vectorizer('docs', 'body', dimensions => 3, destination => 'other')"
    )
    assert functions(conn) == ["other_search"]
    refused(
        conn,
        "PS012",
        "select pgstack.create_search_function('docs', name => 'docs_embedding_search')",
    )
    assert functions(conn) == ["other_search"]


def test_a_planted_function_is_not_taken_for_ours(
    docs: Conn, make_role: Callable[[str], str]
) -> None:
    """Replaced, it would stay its owner's, who could change it under its callers' hands."""
    mallory = make_role("mallory")
    body = rows(docs, "select prosrc from pg_proc where proname = 'docs_embedding_search'")[0][0]
    docs.execute("select pgstack.create_search_function('docs', name => 'elsewhere')")
    docs.execute(
        sql.SQL(
            "grant create on schema public to {0}; set local role {0}; "
            "create function docs_embedding_search() returns integer language sql as {1}; "
            "reset role"
        ).format(sql.Identifier(mallory), sql.Literal(body.partition("select")[0] + "select 1"))
    )
    refused(
        docs,
        "PS012",
        "select pgstack.create_search_function('docs', name => 'docs_embedding_search')",
    )
    docs.execute("select pgstack.create_search_function('docs')")
    owner = "select proowner::regrole::text from pg_proc where proname = 'elsewhere'"
    assert rows(docs, owner) != [(mallory,)]


def test_a_name_too_long_is_told(conn: Conn) -> None:
    conn.execute("create table docs (id integer primary key, body text)")
    error = refused(
        conn,
        "PS007",
        "select pgstack.create_vectorizer('docs', 'body', dimensions => 3, "
        f"destination => '{'v' * 57}')",
    )
    assert "56" in (error.diag.message_hint or "")
    conn.execute(
        "select pgstack.create_vectorizer('docs', 'body', dimensions => 3, "
        f"destination => '{'v' * 56}')".encode()
    )
    assert functions(conn) == [f"{'v' * 56}_search"]
    for name in ("x" * 64, "ü" * 32, ""):
        refused(conn, "PS012", f"select pgstack.create_search_function('docs', name => '{name}')")


def test_rights_are_the_callers(docs: Conn, make_role: Callable[[str], str]) -> None:
    role = sql.Identifier(make_role("reader"))
    query = "select no from docs_embedding_search('zebra', mode => 'text')"
    docs.execute(sql.SQL("grant select (part, no, body) on docs to {}").format(role))
    docs.execute(sql.SQL("set local role {}").format(role))
    assert len(rows(docs, "select from pgstack.search('docs', 'zebra', mode => 'text')")) > 2
    refused(docs, "42501", query)  # as PostgreSQL: permission denied for table docs
    docs.execute("reset role")
    docs.execute(sql.SQL("grant select on docs to {}").format(role))
    docs.execute("alter table docs enable row level security")
    docs.execute("create policy part_2 on docs using (part = 2)")
    docs.execute(sql.SQL("set local role {}").format(role))
    assert rows(docs, query) == [(1,)]
    refused(docs, "PS014", "select pgstack.create_search_function('docs')")
