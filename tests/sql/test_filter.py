"""Filters: every operator on every kind of type, and what and, or, not make of them."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from psycopg import sql
from psycopg.types.json import Jsonb

from tests.conftest import need_extension
from tests.sql.filtering import found, make, make_types, refused, run, vectorize

Conn = psycopg.Connection[Any]

# --------------------------------------------------------------------- operators, types

# Three values of each type, from the smallest to the largest; as JSON where that is no string.
ORDERED: dict[str, list[Any]] = {
    "smallint": [-5, 0, 7],
    "integer": [-5, 0, 7],
    "bigint": [-9007199254740993, 0, 9007199254740993],
    "numeric(10,2)": [-1.25, 0, 7.5],
    "real": [-1.5, 0, 7.5],
    "double precision": [-1.5, 0, "Infinity"],
    "money": ["$1.00", "$2.50", "$1,000.00"],
    "text": ["Ab", "b'\"\\,{}", "c"],
    "varchar(9)": ["a", "b", "c"],
    "char(4)": ["a", "b", "c"],
    "name": ["a", "b", "c"],
    '"char"': ["a", "b", "c"],
    "bytea": ["\\x00", "\\x01", "\\xff"],
    "date": ["2025-12-31", "2026-01-01", "infinity"],
    "timestamp": ["2025-12-31 23:59", "2026-01-01", "2026-01-01 00:00:00.000001"],
    "timestamptz": ["2025-12-31 23:59+00", "2026-01-01 01:00+00", "2026-01-01 01:00-01"],
    "time": ["00:00", "12:00", "23:59"],
    "timetz": ["00:00+00", "12:00+00", "23:59+00"],
    "interval": ["1 day", "30 hours", "2 days"],
    "uuid": [
        "00000000-0000-0000-0000-000000000001",
        "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11",
        "f" * 32,
    ],
    "inet": ["10.0.0.1", "10.0.0.2", "10.0.1.1"],
    "cidr": ["10.0.0.0/8", "11.0.0.0/8", "12.0.0.0/8"],
    "macaddr": ["08:00:2b:01:02:03", "08:00:2b:01:02:04", "08:00:2b:01:02:05"],
    "bit(4)": ["0000", "0101", "1111"],
    "varbit": ["0", "01", "1"],
    "oid": [1, 2, 4000000000],
    "mood": ["sad", "ok", "happy"],
    "positive": [1, 2, 3],
    "feeling": ["sad", "ok", "happy"],
    "pair": ["(1,a)", "(1,b)", "(2,a)"],
    "integer[]": [[1], [1, 2], [2]],
    "text[]": [["a", "x,y"], ["b", None], ['c"\\', ""]],
    "mood[]": [["sad"], ["ok"], ["happy", "sad"]],
    "integer[][]": [[[1, 2], [3, 4]], [[1, 2], [3, 5]], [[2, 0], [0, 0]]],
    "numbers": [[1], [2], [3]],
    "jsonb": ["text", 5, {"a": [1, None, "b"]}],
    "jsonb[]": [[1], [2], [{"a": 1}]],
    "int4range": ["[1,3)", "[1,4)", "[2,3)"],
    "tstzrange": ["[2025-01-01,2026-01-01)", "[2026-01-01,2026-02-01)", "[2026-01-01,)"],
    "nummultirange": ["{[1,2)}", "{[1,2),[5,6)}", "{[2,3)}"],
    "citext": ["ab", "B", "c"],
}


def stored(type_: str, value: Any) -> Any:
    """A value of ORDERED as a parameter that a column of the type takes."""
    if type_ == "jsonb":
        return Jsonb(value)
    if type_ == "jsonb[]":
        return [Jsonb(item) for item in value]
    return value if isinstance(value, list) else str(value)


@pytest.mark.parametrize("type_", ORDERED)
def test_every_comparison_of_every_type(conn: Conn, type_: str) -> None:
    if type_ == "citext":
        need_extension(conn, "citext")
    make_types(conn)
    run(conn, f"create table docs (id integer primary key, body text, c {type_})")
    low, middle, high = ORDERED[type_]
    for number, value in enumerate((low, middle, high), start=1):
        conn.execute(
            sql.SQL("insert into docs values (%s, 'x', %s::{})").format(sql.SQL(type_)),
            (number, stored(type_, value)),
        )
    conn.execute("insert into docs values (4, 'x', null)")
    vectorize(conn)
    expected = {
        "eq": [2],
        "ne": [1, 3, 4],
        "lt": [1],
        "lte": [1, 2],
        "gt": [3],
        "gte": [2, 3],
    }
    assert {op: found(conn, {"c": {op: middle}}) for op in expected} == expected
    assert found(conn, {"c": {"gt": low, "lt": high}}) == [2]
    assert found(conn, {"c": {"in": [low, high]}}) == [1, 3]
    assert found(conn, {"c": {"in": [low, None]}}) == [1, 4]
    assert found(conn, {"c": {"not_in": [low, high]}}) == [2, 4]
    assert found(conn, {"c": {"not_in": [low, None]}}) == [2, 3]
    assert found(conn, {"not": {"c": {"eq": middle}}}) == [1, 3, 4]
    if not isinstance(middle, dict):
        assert found(conn, {"c": middle}) == [2]
    assert found(conn, {"c": None}) == [4]
    assert found(conn, {"c": {"ne": None}}) == [1, 2, 3]


def test_booleans(conn: Conn) -> None:
    make(conn, "boolean", "true", "false")
    assert found(conn, {"c": True}) == [1]
    assert found(conn, {"c": {"ne": True}}) == [2, 3]
    assert found(conn, {"c": {"in": [False, None]}}) == [2, 3]


def test_an_empty_list_and_an_empty_filter(conn: Conn) -> None:
    make(conn, "text", "a", "b")
    assert found(conn, {"c": {"in": []}}) == []
    assert found(conn, {"c": {"not_in": []}}) == [1, 2, 3]
    assert (
        found(conn, {}) == found(conn, {"and": []}) == found(conn, {"not": {"or": []}}) == [1, 2, 3]
    )
    assert found(conn, {"or": []}) == found(conn, {"not": {}}) == []
    row = conn.execute(
        "select _pgstack.filter_condition(_pgstack.vectorizer_plan('docs'), null)"
    ).fetchone()
    assert row == ("true",)


def test_another_alias_may_stand_for_the_source(conn: Conn) -> None:
    make(conn, "text", "a")
    query = (
        "select _pgstack.filter_condition(_pgstack.vectorizer_plan('docs'), '{\"c\": null}', %s)"
    )
    for alias, written in (("r", "r.c is null"), ("Odd one", '"Odd one".c is null')):
        assert conn.execute(query, (alias,)).fetchone() == (written,)


def test_numbers_are_read_as_the_column_does(conn: Conn) -> None:
    make(conn, "integer", "5", "6")
    assert (
        found(conn, {"c": 5.0})
        == found(conn, {"c": "5"})
        == found(conn, {"c": {"in": [5.00]}})
        == [1]
    )
    assert "5.5" in refused(conn, {"c": 5.5})


def test_what_is_longer_than_the_column_is_not_cut(conn: Conn) -> None:
    make(conn, "varchar(3)", "abc")
    assert found(conn, {"c": "abcd"}) == []
    assert found(conn, {"c": {"in": ["abcd"]}}) == []


def test_a_value_that_a_domain_forbids_is_only_not_there(conn: Conn) -> None:
    make_types(conn)
    conn.execute("create table docs (id integer primary key, body text, c positive)")
    conn.execute("insert into docs values (1, 'x', 1)")
    vectorize(conn)
    assert found(conn, {"c": -1}) == []
    assert found(conn, {"c": {"gt": -1}}) == [1]


@pytest.mark.parametrize(
    ("type_", "values", "test", "expected"),
    [
        ("text[]", ["{a,b}", "{b,c}", "{}"], {"contains": ["b"]}, [1, 2]),
        ("text[]", ["{a,b}", "{b,c}", "{}"], {"contains": ["b", "c"]}, [2]),
        ("text[]", ["{a,b}", "{b,c}", "{}"], {"contains": []}, [1, 2, 3]),
        ("text[]", ["{a,b}", "{b,c}", "{}"], {"overlaps": ["a", "c"]}, [1, 2]),
        ("text[]", ["{a,b}", "{b,c}", "{}"], {"overlaps": []}, []),
        ("text[]", ['{"a,b","\\""}', "{a,b}"], {"contains": ["a,b", '"']}, [1]),
        ("integer[]", ["{1,2}", "{2,3}"], {"contains": [2, 3]}, [2]),
        ("integer[]", ["{1,2}", "{2,3}"], {"overlaps": [1, 9]}, [1]),
        ("uuid[]", ["{a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11}", "{}"],
         {"contains": ["A0EEBC999C0B4EF8BB6D6BB9BD380A11"]}, [1]),
        ("jsonb", ['{"a": 1, "b": 2}', '{"a": 2}', "[1, 2]"], {"contains": {"a": 1}}, [1]),
        ("jsonb", ['{"a": 1, "b": 2}', '{"a": 2}', "[1, 2]"], {"contains": [2]}, [3]),
        ("jsonb", ['{"a": 1, "b": 2}', '{"a": 2}', '["b"]'], {"has_key": "b"}, [1, 3]),
        ("int4range", ["[1,5)", "[5,9)", "empty"], {"contains": 5}, [2]),
        ("int4range", ["[1,5)", "[5,9)", "empty"], {"overlaps": "[4,6)"}, [1, 2]),
        ("tstzrange", ["[2026-01-01,2026-02-01)", "[2027-01-01,)"],
         {"contains": "2026-01-15"}, [1]),
        ("nummultirange", ["{[1,2),[5,6)}", "{[3,4)}"], {"contains": 5.5}, [1]),
        ("nummultirange", ["{[1,2),[5,6)}", "{[3,4)}"], {"overlaps": "{[0,1],[3,3]}"}, [1, 2]),
        ("text", ["50% off", "50 off", "a\\b", "a_b"], {"prefix": "50%"}, [1]),
        ("text", ["50% off", "50 off", "a\\b", "axb"], {"prefix": "a\\"}, [3]),
        ("text", ["50% off", "50 off", "a_b", "axb"], {"prefix": "a_"}, [3]),
        ("text", ["Apple", "apply", "grape"], {"like": "app%"}, [2]),
        ("text", ["Apple", "apply", "grape"], {"ilike": "APP%"}, [1, 2]),
        ("text", ["a%", "ab"], {"like": "a\\%"}, [1]),
        ("text", ["a\\", "ab"], {"like": "a\\\\"}, [1]),
        ("text", ["", "ab"], {"prefix": ""}, [1, 2]),
        ("varchar(9)", ["Apple", "apply"], {"prefix": "app"}, [2]),
        ("char(9)", ["Apple", "apply"], {"prefix": "app"}, [2]),
        ("name", ["Apple", "apply"], {"like": "%ply"}, [2]),
    ],
    ids=str,
)  # fmt: skip
def test_what_a_value_holds(
    conn: Conn,
    type_: str,
    values: list[str],
    test: dict[str, Any],
    expected: list[int],
) -> None:
    make(conn, type_, *values)
    assert found(conn, {"c": test}) == expected
    opposite = {*range(1, len(values) + 2)} - {*expected}
    assert set(found(conn, {"not": {"c": test}})) == opposite


def test_citext_takes_no_notice_of_case(conn: Conn) -> None:
    """Its own operators, wherever it is installed: with pg_catalog's, Ada would not be ada."""
    need_extension(conn, "citext")
    conn.execute("create schema elsewhere; create extension citext schema elsewhere")
    make(conn, "elsewhere.citext", "Ada", "Bob")
    for test in ("ada", {"in": ["ADA"]}, {"like": "AD%"}, {"prefix": "aDa"}):
        assert found(conn, {"c": test}) == [1]
    assert found(conn, {"c": {"ne": "ada"}}) == [2, 3]


@pytest.mark.parametrize("type_", ["json", "xml", "point", "json[]", "xid"])
def test_a_type_without_order_can_be_null(conn: Conn, type_: str) -> None:
    make(conn, type_)
    assert found(conn, {"c": None}) == [1]
    assert found(conn, {"c": {"ne": None}}) == []
    for operator in ("eq", "ne", "gt", "in", "not_in"):
        said = refused(conn, {"c": {operator: [1]}})
        assert type_ in said
        assert "btree" in said


def test_generated_columns(conn: Conn) -> None:
    conn.execute(
        "create table docs (id int primary key, body text,"
        " c int generated always as (id * 2) stored)"
    )
    conn.execute("insert into docs values (1, 'x'), (2, 'y')")
    vectorize(conn)
    assert found(conn, {"c": {"gt": 2}}) == [2]


def test_what_is_relative_to_now(conn: Conn) -> None:
    make(conn, "timestamptz", "2020-01-01", "infinity")
    assert found(conn, {"c": {"gt": "now"}}) == [2]
    conn.execute("set local timezone = 'Asia/Tokyo'")
    assert found(conn, {"c": {"lt": "tomorrow"}}) == [1]


# ------------------------------------------------------------------------------- logic


def test_and_or_not(conn: Conn) -> None:
    conn.execute("create table docs (id int primary key, body text, a int, b text)")
    conn.execute(
        "insert into docs values (1, 'x', 1, 'p'), (2, 'x', 1, 'q'), (3, 'x', 2, 'p'),"
        " (4, 'x', null, null)"
    )
    vectorize(conn)
    assert found(conn, {"a": 1, "b": "q"}) == [2]
    assert found(conn, {"or": [{"a": 2}, {"b": "q"}]}) == [2, 3]
    assert found(conn, {"a": 1, "or": [{"b": "p"}, {"b": "q"}]}) == [1, 2]
    assert found(conn, {"or": [{"a": 1, "b": "p"}, {"b": None}]}) == [1, 4]
    assert found(conn, {"and": [{"a": {"gte": 1}}, {"a": {"lt": 2}}]}) == [1, 2]
    assert found(conn, {"not": {"a": 1}}) == [3, 4]
    assert found(conn, {"not": {"not": {"a": 1}}}) == [1, 2]
    assert found(conn, {"not": {"or": [{"a": 2}, {"b": "q"}]}}) == [1, 4]
    assert found(conn, {"not": {"a": 1, "b": "p"}}) == [2, 3, 4]


def test_columns_that_are_called_like_words_of_filters(conn: Conn) -> None:
    conn.execute(
        'create table docs (id int primary key, body text, "or" int, "not" int, "and" int, eq int)'
    )
    conn.execute("insert into docs values (1, 'x', 1, 2, 3, 4), (2, 'x', 5, 6, 7, 8)")
    vectorize(conn)
    for name, low in (('"or"', 1), ('"not"', 2), ('"and"', 3), ("eq", 4), ('"eq"', 4)):
        assert found(conn, {name: low}) == [1]
        assert found(conn, {name: {"eq": low}}) == [1]
    assert '{"\\"or\\"": ...}' in refused(conn, {"or": 1})


def test_random_filters_agree_with_plain_sql(conn: Conn) -> None:
    """Filters and SQL are made side by side, and must find the same rows."""
    dice = random.Random(7)
    conn.execute(
        """
        create table docs (
          id integer primary key, body text,
          n integer, p numeric, t text, d date, a text[], j jsonb
        );
        insert into docs select g, 'x',
          case when g % 7 > 0 then g % 13 end, case when g % 5 > 0 then (g % 11) / 4.0 end,
          case when g % 6 > 0 then chr(97 + g % 5) end,
          case when g % 8 > 0 then date '2026-01-01' + g % 30 end,
          case when g % 9 > 0 then array[chr(97 + g % 3), chr(97 + g % 4)] end,
          case when g % 10 > 0 then jsonb_build_object('k', g % 3, 'm', g % 2) end
        from generate_series(1, 400) as g
        """
    )
    vectorize(conn)
    signs = {"eq": "=", "gt": ">", "gte": ">=", "lt": "<", "lte": "<="}
    draw: dict[str, Callable[[], Any]] = {
        "n": lambda: dice.randrange(14),
        "p": lambda: dice.randrange(12) / 4,
        "t": lambda: dice.choice("abcdef"),
        "d": lambda: f"2026-01-{dice.randrange(1, 31):02}",
    }

    def quoted(value: Any) -> str:
        return sql.Literal(value).as_string(conn)

    def leaf() -> tuple[dict[str, Any], str]:
        name = dice.choice([*draw, "a", "j"])
        if name == "a":
            words = dice.choices("abcd", k=dice.randrange(1, 3))
            operator, sign = dice.choice([("contains", "@>"), ("overlaps", "&&")])
            return {"a": {operator: words}}, f"a {sign} {quoted(words)}::text[]"
        if name == "j":
            part = {dice.choice("km"): dice.randrange(3)}
            return {"j": {"contains": part}}, f"j @> {quoted(json.dumps(part))}"
        operator = dice.choice([*signs, "ne", "in", "not_in", "null"])
        if operator == "null":
            return {name: None}, f"{name} is null"
        if operator in ("in", "not_in"):
            values = [draw[name]() for _ in range(dice.randrange(1, 4))]
            listed = ", ".join(quoted(value) for value in values)
            plain = f"coalesce({name} in ({listed}), false)"
            return {name: {operator: values}}, plain if operator == "in" else f"not {plain}"
        value = draw[name]()
        if operator == "ne":
            return {name: {"ne": value}}, f"{name} is distinct from {quoted(value)}"
        return {name: {operator: value}}, f"{name} {signs[operator]} {quoted(value)}"

    def tree(depth: int) -> tuple[dict[str, Any], str]:
        word = dice.choice(["leaf", "and", "or", "not"]) if depth else "leaf"
        if word == "leaf":
            return leaf()
        if word == "not":
            inner, plain = tree(depth - 1)
            return {"not": inner}, f"not coalesce({plain}, false)"
        parts = [tree(depth - 1) for _ in range(dice.randrange(1, 4))]
        joined = f" {word} ".join(f"({plain})" for _, plain in parts)
        return {word: [part for part, _ in parts]}, f"({joined})"

    sizes = set()
    for _ in range(300):
        filter_, plain = tree(3)
        expected = [row[0] for row in run(conn, f"select id from docs where {plain} order by id")]
        assert found(conn, filter_) == expected, (filter_, plain)
        sizes.add(len(expected))
    assert len(sizes) > 50
