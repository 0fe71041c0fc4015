"""embed() in ``order by embedding <=> pgstack.embed('...') limit k`` asks the model once.

Whatever the plan: no index, HNSW, DiskANN, prepared with a generic or a custom plan, join,
lateral.  And an index that is there is used.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any, LiteralString

import psycopg
import pytest

from pgstack.db import connect
from tests.conftest import has_extension, need_extension

Connection = psycopg.Connection[Any]
Models = Any  # the class of the fixture `models`

ROWS = 2000
NEAREST: LiteralString = "select id from docs order by embedding <=> pgstack.embed(%s) limit 5"
INDEXES: dict[str, LiteralString] = {
    "none": "select",
    "hnsw": "create index docs_vector on docs using hnsw (embedding vector_cosine_ops)",
    "diskann": "create index docs_vector on docs using diskann (embedding vector_cosine_ops)",
}


@pytest.fixture(scope="module")
def docs_url(running_url: str) -> Iterator[str]:
    """The shared database with 2,000 rows in a table docs in three schemas, one an index."""
    with connect(running_url, autocommit=True) as conn:
        for schema, index in INDEXES.items():
            conn.execute(f"create schema {schema}; set search_path = {schema}, public")
            conn.execute("create table docs (id integer primary key, embedding vector(384))")
            # A fixed pseudo-random vector a row.
            conn.execute(
                """
                insert into docs
                select g,
                  array_agg(hashint8extended(g * 1000 + d, 7)::float8 / 2^63 order by d)::vector
                from generate_series(1, %s) as g cross join generate_series(1, 384) as d
                group by g
                """,
                (ROWS,),
            )
            if schema != "diskann" or has_extension(conn, "vectorscale"):
                conn.execute(index)
    yield running_url
    with connect(running_url, autocommit=True) as conn:
        conn.execute("drop schema none, hnsw, diskann cascade; truncate _pgstack.query_cache")


@pytest.fixture(params=list(INDEXES))
def docs(docs_url: str, request: pytest.FixtureRequest) -> Iterator[Connection]:
    """A connection to these rows, with each kind of index."""
    with connect(docs_url, autocommit=True) as conn:
        if request.param == "diskann":
            need_extension(conn, "vectorscale")
        conn.execute(f"set search_path = {request.param}, public")
        yield conn


@pytest.fixture
def plain(docs_url: str) -> Iterator[Connection]:
    """A connection to these rows, without an index."""
    with connect(docs_url, autocommit=True) as conn:
        conn.execute("set search_path = none, public")
        yield conn


@pytest.fixture
def text() -> str:
    """A text that no other test asks for."""
    return f"text {uuid.uuid4()}"


def ids(conn: Connection, query: Any, *params: Any) -> list[int]:
    return [row[0] for row in conn.execute(query, params)]


def plan(conn: Connection, query: Any, *params: Any) -> str:
    return "\n".join(row[0] for row in conn.execute(b"explain " + query.encode(), params))


@pytest.mark.parametrize("cache", ["on", "off"])
def test_a_plain_query(docs: Connection, models: Models, text: str, cache: LiteralString) -> None:
    docs.execute(f"set pgstack.query_cache = {cache}")
    assert len(ids(docs, NEAREST, text)) == 5
    assert models.asked(text) == 1


@pytest.mark.parametrize("mode", ["force_generic_plan", "force_custom_plan"])
def test_a_prepared_statement(
    docs: Connection, models: Models, text: str, mode: LiteralString
) -> None:
    docs.execute(f"set plan_cache_mode = {mode}")
    docs.execute("set pgstack.query_cache = off")
    docs.execute(
        "prepare nearest (text) as "
        "select id from docs order by embedding <=> pgstack.embed($1) limit 5"
    )
    for count in (1, 2, 3):
        assert len(ids(docs, f"execute nearest ('{text}')")) == 5
        assert models.asked(text) == count


@pytest.mark.parametrize("mode", ["force_generic_plan", "force_custom_plan"])
def test_a_statement_prepared_by_the_driver(
    docs: Connection, models: Models, text: str, mode: LiteralString
) -> None:
    docs.execute(f"set plan_cache_mode = {mode}")
    docs.execute("set pgstack.query_cache = off")
    for _ in range(3):
        rows = docs.execute(NEAREST, (text,), prepare=True).fetchall()
        assert len(rows) == 5
    assert models.asked(text) == 3


def test_an_index_finds_what_a_scan_finds(docs: Connection, text: str) -> None:
    found = ids(docs, NEAREST, text)
    docs.execute("set enable_indexscan = off")
    exact = ids(docs, NEAREST, text)
    assert found[0] in exact  # approximate: the scan's five, or nearly


@pytest.mark.parametrize("kind", ["hnsw", "diskann"])
@pytest.mark.parametrize("statistics", ["without", "with"])
@pytest.mark.parametrize("mode", ["force_generic_plan", "force_custom_plan"])
def test_the_index_is_used(
    plain: Connection, kind: LiteralString, statistics: str, mode: LiteralString
) -> None:
    if kind == "diskann":
        need_extension(plain, "vectorscale")
    plain.execute(f"begin; set local search_path = {kind}, public")
    if statistics == "with":
        plain.execute("analyze docs")
    else:
        plain.execute("delete from pg_statistic where starelid = 'docs'::regclass")
    plain.execute(f"set local plan_cache_mode = {mode}")
    nearest = "select id from docs order by embedding <=> pgstack.embed('x') limit 5"
    assert "Index Scan using docs_vector" in plan(plain, nearest)
    plain.execute(
        "prepare nearest (text, integer) as "
        "select id from docs order by embedding <=> pgstack.embed($1) limit $2"
    )
    assert "Index Scan using docs_vector" in plan(plain, "execute nearest ('x', 5)")
    plain.execute("rollback")


def test_a_join(docs: Connection, models: Models, text: str) -> None:
    docs.execute("set pgstack.query_cache = off")
    found = ids(
        docs,
        """
        select d.id from docs as d join generate_series(1, 2000, 2) as g on g = d.id
        order by d.embedding <=> pgstack.embed(%s) limit 5
        """,
        text,
    )
    assert len(found) == 5
    assert all(i % 2 for i in found)
    assert models.asked(text) == 1


@pytest.mark.parametrize("level", ["read committed", "repeatable read", "serializable"])
@pytest.mark.parametrize("cache", ["on", "off"])
def test_a_lateral_join_over_many_texts(
    plain: Connection, models: Models, text: str, level: LiteralString, cache: LiteralString
) -> None:
    """Each text comes many times, none beside itself, and there are more than slots."""
    plain.execute(f"set pgstack.query_cache = {cache}")
    plain.execute(f"begin isolation level {level}")
    count = plain.execute(
        """
        select count(*) from generate_series(1, 400) as g
        cross join lateral pgstack.embed(%s || ' ' || g %% 100) as e (v)
        where vector_dims(e.v) = 384
        """,
        (text,),
    ).fetchone()
    assert count == (400,)
    plain.execute("commit")
    asked = {t: n for t, n in models.stats()["per_text"].items() if t.startswith(text)}
    assert len(asked) == 100
    assert set(asked.values()) == {1}


def test_a_lateral_search_for_each_of_several_texts(
    docs: Connection, models: Models, text: str
) -> None:
    docs.execute("set pgstack.query_cache = off")
    rows = docs.execute(
        """
        select q.t, n.id
        from (values (%(t)s || 'a'), (%(t)s || 'b'), (%(t)s || 'c')) as q (t)
        cross join lateral (
          select d.id from docs as d order by d.embedding <=> pgstack.embed(q.t) limit 4
        ) as n
        """,
        {"t": text},
    ).fetchall()
    assert len(rows) == 12
    assert [models.asked(text + letter) for letter in "abc"] == [1, 1, 1]


def test_a_condition_and_a_selected_distance(docs: Connection, models: Models, text: str) -> None:
    """The planner may look at the value before the executor does."""
    docs.execute("set pgstack.query_cache = off")
    row = docs.execute(
        """
        select count(*), min(embedding <=> pgstack.embed(%(t)s)) from docs
        where embedding <=> pgstack.embed(%(t)s) < 2 and embedding <> pgstack.embed(%(t)s)
        """,
        {"t": text},
    ).fetchone()
    assert row is not None
    assert row[0] == ROWS
    assert models.asked(text) == 1


def test_a_repeatable_read_transaction(docs: Connection, models: Models, text: str) -> None:
    docs.execute("begin isolation level repeatable read")
    for _ in range(3):
        assert len(ids(docs, NEAREST, text)) == 5
    docs.execute("commit")
    assert models.asked(text) == 1


def test_a_cursor(docs: Connection, models: Models, text: str) -> None:
    docs.execute("begin")
    docs.execute("set local pgstack.query_cache = off")
    with docs.cursor("c") as cursor:
        cursor.itersize = 2
        cursor.execute(
            "select id from docs order by embedding <=> pgstack.embed(%s) limit 10", (text,)
        )
        assert len(cursor.fetchall()) == 10
    docs.execute("commit")
    assert models.asked(text) == 1


def test_inside_a_function(plain: Connection, models: Models, text: str) -> None:
    plain.execute("set pgstack.query_cache = off")
    plain.execute("begin")
    plain.execute(
        """
        create function pg_temp.nearest(t text) returns setof integer language sql stable as $$
          select id from docs order by embedding <=> pgstack.embed(t) limit 5
        $$
        """
    )
    assert len(ids(plain, "select pg_temp.nearest(%s)", text)) == 5
    plain.execute("rollback")
    assert models.asked(text) == 1


def test_what_a_session_keeps_is_bounded(plain: Connection, text: str) -> None:
    """Of many texts in one slot the newest sixteen."""
    query: LiteralString = """
        select count(pgstack.embed(t.text, 'deterministic:768'))
        from (
          select %s || ' ' || g as text from generate_series(1, 5000) as g
        ) as t
        where get_byte(
          sha256(convert_to(
            format('%%L %%L %%L %%L %%L', current_user, 'deterministic:768',
              current_setting('pgstack.embedding_model', true), 'query', t.text), 'UTF8'
          )), 0
        ) %% 64 = 5
    """
    embedded = plain.execute(query, (text,)).fetchone()
    assert embedded is not None
    assert embedded[0] > 40
    slots = [
        plain.execute("select current_setting(%s, true)", (f"pgstack.memo_{n}",)).fetchone()
        for n in range(64)
    ]
    sizes = [len((row[0] or "").split()) for row in slots if row is not None]
    assert sizes == [2 + 16 * 3 if n == 5 else 0 for n in range(64)]
