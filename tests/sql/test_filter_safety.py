"""Filters: hostile input, errors, who may ask what, and the plans of the conditions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from psycopg import sql

from tests.conftest import need_extension
from tests.sql.filtering import condition, found, make, make_types, refused, run, vectorize

Conn = psycopg.Connection[Any]

# ----------------------------------------------------------------------------- hostile

HOSTILE = [
    "'; drop table victim; --",
    '"; drop table victim; --',
    "\\'; drop table victim; --",
    "%s %I %L %1$s %%",
    "$$ $1 $body$",
    "new\nline\ttab",
    "ünïcode ☃ 名前",
    '{"a": 1}',
    "NULL",
    "{a,b}",
    "",
    "or",
    "x" * 63,
]


@pytest.mark.parametrize("strings", ["on", "off"])
@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_names_and_values_are_only_text(conn: Conn, text: str, strings: str) -> None:
    conn.execute("create table victim (id integer)")
    name = text or "empty"
    conn.execute(
        sql.SQL(
            "create table docs (id integer primary key, body text, {0} text, list text[])"
        ).format(sql.Identifier(name))
    )
    conn.execute(
        "insert into docs values (1, 'x', %s, %s), (2, 'x', 'other', '{other}')", (text, [text])
    )
    vectorize(conn)
    conn.execute(f"set local standard_conforming_strings = {strings}".encode())
    key = '"or"' if name == "or" else name
    for test in (text, {"eq": text}, {"in": [text]}, {"prefix": text, "ne": "other"}):
        assert found(conn, {key: test}) == [1]
    for lists in ([text], {"contains": [text]}, {"overlaps": [text]}, {"in": [[text]]}):
        assert found(conn, {"list": lists}) == [1]
    conn.execute("select from victim")


def test_no_search_path_changes_what_a_filter_means(conn: Conn) -> None:
    make(conn, "text", "open", "closed")
    conn.execute(
        """
        create schema evil;
        create domain evil.text as pg_catalog.text check (value = 'never');
        create function evil.yes(pg_catalog.text, pg_catalog.text) returns boolean
          language sql as 'select true';
        create operator evil.= (
          function = evil.yes, leftarg = pg_catalog.text, rightarg = pg_catalog.text);
        create operator evil.~~ (
          function = evil.yes, leftarg = pg_catalog.text, rightarg = pg_catalog.text);
        set local search_path = evil, pg_catalog, public;
        """
    )
    assert run(conn, "select id from docs where c = 'x'").fetchall() == [(1,), (2,), (3,)], (
        "it works"
    )
    for test in ("open", {"in": ["open"]}, {"prefix": "op"}, {"lt": "p", "ne": "closed"}):
        assert found(conn, {"c": test}) == [1]


def test_an_operator_planted_beside_a_type_is_not_taken(
    conn: Conn, make_role: Callable[[str], str]
) -> None:
    """Who may create in the schema of a type could give it a ~~ of his own."""
    planter = make_role("planter")
    run(
        conn,
        f"""
        create schema shared;
        grant usage, create on schema shared to {planter};
        create type shared.mood as enum ('sad', 'ok');
        create table docs (id integer primary key, body text, c shared.mood);
        set local role {planter};
        create function shared.steal(shared.mood, text) returns boolean language plpgsql
          as 'begin raise exception ''stolen''; end';
        create operator shared.~~ (function = shared.steal, leftarg = shared.mood, rightarg = text);
        create function shared.steal(shared.mood, shared.mood) returns boolean language plpgsql
          as 'begin raise exception ''stolen''; end';
        create operator shared.= (
          function = shared.steal, leftarg = shared.mood, rightarg = shared.mood);
        reset role;
        insert into docs values (1, 'x', 'sad');
        """,
    )
    vectorize(conn)
    assert found(conn, {"c": "sad"}) == [1]
    assert "does not work" in refused(conn, {"c": {"like": "s%"}})


# ------------------------------------------------------------------------------ errors


@pytest.mark.parametrize(
    ("type_", "test", "words"),
    [
        ("integer", "abc", ['"abc"', "integer", '"c"', "10"]),
        ("integer", 99999999999, ["out of range"]),
        ("integer", True, ["true", "integer"]),
        ("integer", [1], ["[1]", '{"in": [...]}']),
        ("integer", {"eq": {"a": 1}}, ['{"a": 1}', "integer"]),
        ("integer", {"in": 5}, ["need a JSON array", '{"in": [5]}']),
        ("integer", {"in": [1, "x"]}, ['"x"', "integer"]),
        ("integer", {"in": [1, [2]]}, ["[2]", "integer"]),
        ("integer", {"gt": None}, ["gt needs a value"]),
        ("integer", {"contains": [1]}, ["contains does not work", "arrays"]),
        ("integer", {"prefix": "1"}, ["prefix does not work", "text"]),
        ("integer", {"equals": 1}, ['"equals"', "eq, ne, gt, gte, lt, lte, in, not_in"]),
        ("integer", {}, ["no operator", "Operators: eq"]),
        ("numeric", "1,5", ["numeric"]),
        ("boolean", "perhaps", ["boolean", "true"]),
        ("date", "2026-02-30", ["out of range", "2026-01-31"]),
        ("timestamptz", "soon", ["timestamp with time zone", "18:00+00"]),
        ("uuid", "7", ["uuid", "a0eebc99"]),
        ("bytea", "\\xzz", ["bytea"]),
        ("mood", "angry", ['"angry"', "mood", '"sad", "ok", "happy"']),
        ("feeling", "angry", ["mood"]),
        ("mood[]", {"contains": ["angry"]}, ["mood[]", '["sad", "ok", "happy"]']),
        ("integer[]", {"contains": 1}, ["integer[]", "[10]"]),
        ("integer[]", [[1], [2, 3]], ["integer[]"]),
        ("integer[]", {"contains": [{"a": 1}]}, ["integer"]),
        ("int4range", {"contains": "[1,2)"}, ["integer", '"c"']),
        ("int4range", "[3,1]", ["lower bound"]),
        ("jsonb", {"a": 1}, ['"a"', '{"eq": {...}}']),
        ("jsonb", {"overlaps": ["a"]}, ["overlaps does not work"]),
        ("text", {"ilike": 5}, ["5"]),
        ("text", {"like": "a\\"}, ["must not end"]),
        ("text", {"contains": "a"}, ["contains does not work"]),
        ("regclass", "no_such_table", ["no_such_table"]),
    ],
    ids=str,
)  # fmt: skip
def test_a_value_that_does_not_fit_is_explained(
    conn: Conn, type_: str, test: Any, words: list[str]
) -> None:
    make_types(conn)
    run(conn, f"create table docs (id integer primary key, body text, c {type_})")
    vectorize(conn)
    said = refused(conn, {"c": test})
    assert [word for word in words if word not in said] == [], said


@pytest.mark.parametrize(
    ("filter_", "words"),
    [
        ({"colour": 1}, ['"colour"', "docs", "Columns: id, body, c"]),
        ({"ctid": "(0,1)"}, ['"ctid"']),
        ({"xmin": 1}, ['"xmin"']),
        ({"C": 1}, ['"C"']),
        ({"": 1}, ['""']),
        ({'"': 1}, ['"""']),
        ([{"c": 1}], ["must be a JSON object, not array"]),
        ("c", ["not string"]),
        (None, ["not null"]),
        ({"and": {"c": 1}}, ['"and" needs a JSON array']),
        ({"or": ["c"]}, ["must be a JSON object, not string"]),
        ({"not": [{"c": 1}]}, ["must be a JSON object, not array"]),
    ],
    ids=str,
)
def test_a_filter_of_the_wrong_shape_is_explained(
    conn: Conn, filter_: Any, words: list[str]
) -> None:
    make(conn, "integer")
    said = refused(conn, filter_)
    assert [word for word in words if word not in said] == [], said


def test_a_dropped_column_is_unknown(conn: Conn) -> None:
    make(conn, "integer")
    conn.execute("alter table docs add column gone integer; alter table docs drop column gone")
    assert "Columns: id, body, c." in refused(conn, {"gone": 1})
    assert "........pg.dropped" in refused(conn, {"........pg.dropped.4........": 1})


def test_what_is_too_deep_or_too_big_is_refused(conn: Conn) -> None:
    make(conn, "text", "a")
    deep: dict[str, Any] = {"c": "a"}
    for _ in range(40):
        deep = {"not": deep}
    assert found(conn, deep) == [1]
    for _ in range(5000):
        deep = {"not": deep}
    assert "too deeply" in refused(conn, deep)
    assert found(conn, {"c": {"in": ["a", *map(str, range(20_000))]}}) == [1]
    assert "too big" in refused(conn, {"c": {"in": [f"{i:040}" for i in range(40_000)]}})


# ------------------------------------------------------------------------------ rights


def test_a_column_that_may_not_be_read_may_not_be_asked_for(
    conn: Conn, make_role: Callable[[str], str]
) -> None:
    make(conn, "text", "secret")
    reader = make_role("reader")
    run(conn, f"grant select (id, body) on docs to {reader}; set local role {reader}")
    said = refused(conn, {"or": [{"id": 1}, {"c": {"prefix": "s"}}]}, "PS014")
    assert f'"c" of public.docs, which the role "{reader}"' in said
    assert f"grant select (c) on public.docs to {reader};" in said
    assert found(conn, {"body": "x"}) == [1, 2]


def test_rows_that_row_security_hides_reach_no_operator(
    conn: Conn, make_role: Callable[[str], str]
) -> None:
    """An operator that tells what it sees must see no hidden row, index or not."""
    reader = make_role("reader")
    run(
        conn,
        f"""
        create type shade as (v text);
        create function tell(a shade, b shade) returns boolean language plpgsql immutable cost 1 as
          'begin raise notice ''saw %'', (a).v; return (a).v = (b).v; end';
        create function sort(a shade, b shade) returns integer language sql immutable
          as 'select case when (a).v < (b).v then -1 when (a).v > (b).v then 1 else 0 end';
        create operator === (function = tell, leftarg = shade, rightarg = shade);
        create operator class shade_ops default for type shade using btree
          as operator 3 ===, function 1 sort (shade, shade);
        create table docs (id integer primary key, body text, tenant text, c shade);
        insert into docs
          select g, 'x', case g % 2 when 0 then 'us' else 'them' end, row(g::text)::shade
          from generate_series(1, 20) as g;
        create index on docs (c);
        alter table docs enable row level security;
        create policy own on docs using (tenant = 'us');
        grant select on docs to {reader};
        """,
    )
    vectorize(conn)
    seen: list[str] = []
    conn.add_notice_handler(lambda notice: seen.append(notice.message_primary or ""))
    run(conn, f"set local role {reader}")
    conn.execute("set local client_min_messages = notice")
    for enable in ("on", "off"):
        conn.execute(f"set local enable_seqscan = {enable}".encode())
        assert found(conn, {"c": "(4)"}) == [4]
        assert found(conn, {"c": "(3)"}) == []
        assert found(conn, {"or": [{"c": "(3)"}, {"not": {"c": "(4)"}}]}) == [2, *range(6, 21, 2)]
    numbers = {int(message.removeprefix("saw ")) for message in seen}
    assert numbers
    assert {number % 2 for number in numbers} == {0}


# ------------------------------------------------------------------------------- plans


@pytest.mark.parametrize(
    ("column", "index", "test"),
    [
        ("text", "btree (c)", "v7"),
        ("text", "btree (c)", {"in": ["v7", "v9"]}),
        ("text", "btree (c)", {"gte": "v7", "lt": "v71"}),
        ("text", "btree (c text_pattern_ops)", {"prefix": "v77"}),
        ("text", "btree (c)", None),
        ("varchar(20)", "btree (c)", "v7"),
        ("name", "btree (c)", "v7"),
        ("short", "btree (c)", "v7"),
        ("citext", "btree (c)", "V7"),
        ("citext", "btree (c)", {"in": ["V7"]}),
        ("text", "hash (c)", "v7"),
        ("text", "gin (c gin_trgm_ops)", {"ilike": "%V77%"}),
    ],
    ids=str,
)
def test_the_users_index_serves(conn: Conn, column: str, index: str, test: Any) -> None:
    for extension in ("citext", "pg_trgm"):
        need_extension(conn, extension)
    conn.execute(
        "create extension if not exists citext; create extension if not exists pg_trgm;"
        " create domain short as varchar(20)"
    )
    fill_and_explain(conn, column, "case when g % 500 > 0 then 'v' || g end", index, test)


@pytest.mark.parametrize(
    ("column", "value", "index", "test"),
    [
        ("integer", "g", "btree (c)", 7),
        ("bigint", "g", "btree (c)", {"gt": 10, "lt": 20}),
        ("numeric", "g", "btree (c)", 7),
        ("smallint", "g", "btree (c)", {"in": [1, 2]}),
        ("timestamptz", "to_timestamp(g * 1000)", "btree (c)", {"lt": "1970-01-01 02:00"}),
        ("uuid", "md5(g::text)::uuid", "btree (c)", "c4ca4238a0b923820dcc509a6f75849b"),
        ("boolean", "g = 7", "btree (c)", True),
        ("mood", "case when g > 5 then 'sad' else 'ok' end::mood", "btree (c)", "ok"),
        ("feeling", "case when g > 5 then 'sad' else 'ok' end::mood", "btree (c)", "ok"),
        ("integer[]", "array[g, g + 1]", "gin (c)", {"contains": [7]}),
        ("text[]", "array['a' || g]", "gin (c)", {"overlaps": ["a7", "a8"]}),
        ("jsonb", "jsonb_build_object('k', g)", "gin (c)", {"contains": {"k": 7}}),
        ("jsonb", "jsonb_build_object('k', g)", "gin (c jsonb_path_ops)", {"contains": {"k": 7}}),
        ("jsonb", "jsonb_build_object('k' || g, 1)", "gin (c)", {"has_key": "k7"}),
        ("int4range", "int4range(g, g + 2)", "gist (c)", {"contains": 7}),
        ("int4range", "int4range(g, g + 2)", "gist (c)", {"overlaps": "[7,9)"}),
    ],
    ids=str,
)
def test_the_users_index_serves_other_types(
    conn: Conn, column: str, value: str, index: str, test: Any
) -> None:
    make_types(conn)
    fill_and_explain(conn, column, value, index, test)


def fill_and_explain(conn: Conn, column: str, value: str, index: str, test: Any) -> None:
    """4000 rows; the planner takes the index on its own, and knows how few rows come."""
    run(conn, f"create table docs (id integer primary key, body text, c {column})")
    vectorize(conn)
    run(conn, f"insert into docs select g, 'x', {value} from generate_series(1, 4000) as g")
    run(conn, f"create index mine on docs using {index}")
    conn.execute("analyze docs")
    query = f"select from docs as k where {condition(conn, {'c': test})}"
    plan = "\n".join(row[0] for row in run(conn, f"explain {query}"))
    assert "mine" in plan, plan
    estimated = int(plan.partition("rows=")[2].partition(" ")[0])
    assert estimated <= 100, plan
