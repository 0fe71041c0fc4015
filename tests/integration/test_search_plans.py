"""search() under filters of every width: k rows come whenever k rows match, by every route."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import psycopg
import pytest
from psycopg import sql

from pgstack.db import connect
from tests.conftest import need_extension
from tests.integration.conftest import value
from tests.integration.planting import ROWS, SELECTIVITIES, ids, planted, question, run

Connection = psycopg.Connection[Any]
Models = Any  # the class of the fixture `models`

MODES = ["vector", "text", "hybrid"]


class Kind(NamedTuple):
    """How the plants are indexed; words and statistics come together, or are both missing."""

    method: str | None
    analyzed: bool

    def __str__(self) -> str:
        return f"{self.method}, {'with' if self.analyzed else 'no'} statistics"


KINDS = [
    Kind(method, analyzed) for method in ("hnsw", "diskann", None) for analyzed in (False, True)
]


@pytest.fixture(scope="module", params=KINDS, ids=str)
def garden(running_url: str, request: pytest.FixtureRequest) -> Iterator[Kind]:
    """Plants with one kind of index, analyzed or not."""
    kind: Kind = request.param
    with connect(running_url, autocommit=True) as conn:
        if kind.method == "diskann":
            need_extension(conn, "vectorscale")
    with planted(
        running_url, method=kind.method, analyzed=kind.analyzed, words=kind.method is not None
    ):
        yield kind


@pytest.fixture
def plants(garden: Kind, served: Connection) -> Connection:
    """A connection to the plants, with the embedded server's settings that plans depend on."""
    assert garden
    served.execute("set random_page_cost = 1.1")
    return served


def call(mode: str, text: str = "$1", filter_: str = "$2", k: str = "10", **options: str) -> str:
    """A search that gives the ids, best first."""
    more = "".join(f", {name} => {argument}" for name, argument in options.items())
    return (
        f"select (s.id ->> 'id')::int from pgstack.search('plant', {text}, {k}, '{mode}',"
        f" {filter_}{more}) as s order by s.rank"
    )


def asked_every_way(
    conn: Connection, mode: str, text: str, filter_: dict[str, Any]
) -> Iterator[list[int]]:
    """The answers to one search: as text, often enough for PL/pgSQL to keep plans, and prepared."""
    arguments = [
        sql.Literal(text).as_string(conn),
        sql.Literal(json.dumps(filter_)).as_string(conn),
    ]
    for _ in range(6):
        yield ids(conn, call(mode, *arguments))
    run(conn, f"prepare searched_{mode} (text, jsonb) as {call(mode)}")
    for how in ("custom", "generic"):
        run(conn, f"set plan_cache_mode = force_{how}_plan")
        yield ids(conn, f"execute searched_{mode} ({', '.join(arguments)})")


def nearest(conn: Connection, text: str, where: str, k: int = 10) -> list[int]:
    """The right answer of mode vector, by looking at every row."""
    order = f"(embedding <=> pgstack.embed('{text}')) + 0"
    return ids(conn, f"select id from plant_embedding where {where} order by {order} limit {k}")


# -------------------------------------------------------------------------- every width


@pytest.mark.parametrize("selectivity", SELECTIVITIES)
def test_k_rows_come_whenever_k_rows_match(
    plants: Connection, garden: Kind, models: Models, selectivity: str
) -> None:
    column, number, matching = SELECTIVITIES[selectivity]
    where = f"{column} = {number}"
    allowed = {*ids(plants, f"select id from plant where {where}")}
    for mode in MODES:
        text = question()  # every plant has the first word
        answers = {tuple(found) for found in asked_every_way(plants, mode, text, {column: number})}
        assert len(answers) == 1
        found = list(answers.pop())
        assert models.asked(text) == (0 if mode == "text" else 1)
        assert len(found) == len({*found}) == min(10, matching)
        assert {*found} <= allowed
        if mode == "vector":
            expected = nearest(plants, text, where)
            if garden.method is None or matching <= ROWS // 20:
                assert found == expected
            else:
                assert len({*found} & {*expected}) >= 8


@pytest.mark.parametrize("mode", MODES)
def test_a_thousand_rows_come_when_they_match(plants: Connection, mode: str) -> None:
    """From half of the table, and from all of it: more than an index finds at first."""
    for filter_ in ({"half": 1}, {}, {"half": {"ne": 7}}):
        found = ids(plants, call(mode, "'plant'", f"'{json.dumps(filter_)}'", "1000"))
        assert len({*found}) == len(found) == 1000


@pytest.mark.parametrize("mode", MODES)
def test_many_operators_at_once(plants: Connection, mode: str) -> None:
    filter_ = {
        "or": [{"half": 1, "one": {"lt": 100}}, {"one": {"in": [500, 502, None]}}],
        "not": {"twentieth": {"gte": 10}},
        "body": {"like": "plant %"},
    }
    where = (
        "(half = 1 and one < 100 or one in (500, 502)) and twentieth < 10 and body like 'plant %'"
    )
    expected = ids(plants, f"select id from plant where {where}")
    assert len(expected) == 27
    query = call(mode, "'plant'", f"'{json.dumps(filter_)}'", "50")
    assert {*ids(plants, query)} == {*expected}


@pytest.mark.parametrize("mode", MODES)
def test_grouped_by_row_k_rows_come_too(plants: Connection, mode: str) -> None:
    for column, number, matching in SELECTIVITIES.values():
        query = call(mode, "'plant'", f"'{json.dumps({column: number})}'", per="'row'")
        assert len({*ids(plants, query)}) == min(10, matching)


# ---------------------------------------------------------------------------- routes


def test_the_filter_decides_the_route(plants: Connection, garden: Kind) -> None:
    """A wide filter walks along the index; of a narrow one the rows are read."""

    def route(condition: str) -> Any:
        return value(
            plants,
            """
            select r.vector_route from _pgstack.vectorizer_plan('plant') as p
            cross join lateral _pgstack.complete_request(p, jsonb_populate_record(
              null::_pgstack.search_request,
              jsonb_build_object('k', 10, 'mode', 'vector', 'per', 'chunk', 'fusion', 'rrf',
                'query', 'plant', 'condition', %s::text)
            )) as r
            """,
            condition,
        )

    wide, narrow = ("all", "matching") if garden.method is None else ("index", "matching")
    assert [route(c) for c in ("true", "k.half = 1")] == [wide, wide]
    assert [route(c) for c in ("k.rare = 1", "k.one = 77", "k.rare = -1")] == [narrow] * 3


def test_a_narrow_filter_reads_its_own_rows_only(plants: Connection, garden: Kind) -> None:
    """Not the whole table of chunks: what the server counts says so."""
    with plants.transaction():  # of its own session only: those that ended count late
        before = rows_read(plants)
        assert len(ids(plants, call("vector", "'plant'", "'{\"rare\": 1}'"))) == 10
        assert 10 <= rows_read(plants) - before < 100


def test_the_prepared_search_walks_along_the_index(plants: Connection, garden: Kind) -> None:
    """By a plan that is kept, and that knows neither how many rows there are nor are wanted."""
    plants.execute("select _pgstack.prepare_search(id) from ai.vectorizer where name = 'plant'")
    is_prepared = "select (_pgstack.prepared_call('plant', 10)).call is not null"
    assert value(plants, is_prepared) == (garden.method is not None)
    for k in ("1", "10", "20", "100"):
        query = call("vector", "'plant'", "null", k)
        with plants.transaction(force_rollback=True):
            plants.execute("delete from _pgstack.prepared_search")
            expected = ids(plants, query)
        for _ in range(7):
            with plants.transaction():
                before = rows_read(plants)
                assert ids(plants, query) == expected
                assert garden.method is None or rows_read(plants) - before < ROWS // 4


def rows_read(conn: Connection) -> int:
    count: int = value(
        conn,
        "select coalesce(sum(coalesce(seq_tup_read, 0) + coalesce(idx_tup_fetch, 0)), 0)::int"
        " from pg_stat_xact_user_tables where relname = 'plant_embedding_store'",
    )
    return count


# ------------------------------------------------------------------------ row security


@pytest.mark.parametrize(
    ("own", "expected"),
    [
        ("one = 77", 1),
        ("one in (3, 700, 1999)", 3),
        ("rare = 5", 10),
        ("half = 1", 10),
        ("false", 0),
    ],
    ids=["one row", "three rows", "ten rows", "half of the rows", "no row"],
)
def test_who_sees_few_rows_gets_them_all(
    plants: Connection,
    make_role: Callable[[], Connection],
    own: str,
    expected: int,
) -> None:
    reader = make_role()
    name = reader.info.user
    run(
        plants,
        f"update plant set tenant = '{name}' where {own};"
        "create policy own on plant using (tenant = current_user);"
        "alter table plant enable row level security;"
        f"grant select on plant to {name}",
    )
    try:
        mine = {*ids(plants, f"select id from plant where {own}")}
        some = {number for number in mine if number % 20 == 5}
        for mode in MODES:
            found = ids(reader, call(mode, "'plant'", "null"))
            assert len(found) == expected
            assert {*found} <= mine
            if mode == "vector" and expected < 10:
                assert found == nearest(plants, "plant", own)
            # A filter besides: what is asked for of what may be seen.
            found = ids(reader, call(mode, "'plant'", "'{\"twentieth\": 5}'"))
            assert len(found) == min(10, len(some))
            assert {*found} <= some
    finally:
        run(
            plants,
            "alter table plant disable row level security; drop policy own on plant;"
            f"update plant set tenant = 'nobody' where tenant = '{name}'",
        )
