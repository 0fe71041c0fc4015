"""SQL of one's own over the view, with pgstack.embed(): its plans, and the traps in it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from pgstack.db import connect
from tests.conftest import need_extension
from tests.integration.planting import ROWS, SELECTIVITIES, ids, plan, planted, question, run

Connection = psycopg.Connection[Any]
Models = Any  # the class of the fixture `models`

KINDS = [
    pytest.param((method, analyzed), id=f"{method}, {'with' if analyzed else 'no'} statistics")
    for method in ("hnsw", "diskann")
    for analyzed in (False, True)
]


@pytest.fixture(scope="module", params=KINDS)
def garden(running_url: str, request: pytest.FixtureRequest) -> Iterator[tuple[str, str, bool]]:
    """Plants with one kind of index, analyzed or not: the database, and which."""
    method, analyzed = request.param
    with connect(running_url, autocommit=True) as conn:
        if method == "diskann":
            need_extension(conn, "vectorscale")
    with planted(running_url, method=method, analyzed=analyzed) as url:
        yield url, method, analyzed


@pytest.fixture
def plants(garden: tuple[str, str, bool], served: Connection) -> Connection:
    """A connection to the plants, with the embedded server's settings that plans depend on."""
    assert garden
    served.execute("set random_page_cost = 1.1")
    served.execute("set hnsw.ef_search = 100; set diskann.query_rescore = 200")
    return served


@pytest.fixture
def method(garden: tuple[str, str, bool]) -> str:
    """The kind of index."""
    return garden[1]


@pytest.fixture
def analyzed(garden: tuple[str, str, bool]) -> bool:
    """Whether the planner has statistics."""
    return garden[2]


def every_way(conn: Connection, query: str) -> Iterator[tuple[str, str]]:
    """A text that was never asked, and what runs ``query`` with it as $1: written out, prepared."""
    text = question()
    yield text, query.replace("$1", f"'{text}'")
    for how in ("custom", "generic"):
        text = question()
        run(conn, f"set plan_cache_mode = force_{how}_plan")
        run(conn, f"prepare {how} (text) as {query}")
        yield text, f"execute {how} ('{text}')"


def nearest(where: str = "", k: int = 10) -> str:
    return (
        f"select id from plant_embedding {where} order by embedding <=> pgstack.embed($1) limit {k}"
    )


def exact(conn: Connection, text: str, where: str = "", k: int = 10) -> list[int]:
    """The right answer, by looking at every row."""
    order = f"(embedding <=> pgstack.embed('{text}')) + 0"
    return ids(conn, f"select id from plant_embedding {where} order by {order} limit {k}")


# ------------------------------------------------------------------ what the index serves

SERVED = {
    "nearest": nearest(),
    "a distance as well": "select id, embedding <=> pgstack.embed($1) from plant_embedding"
    " order by embedding <=> pgstack.embed($1) limit 10",
    "in a subquery": "select id from family where exists (select from"
    " (select family from plant_embedding order by embedding <=> pgstack.embed($1) limit 10) as n"
    " where n.family = family.id)",
    "ties broken outside": "select id from (select id, embedding <=> pgstack.embed($1) as d"
    " from plant_embedding order by embedding <=> pgstack.embed($1) limit 10) as n order by d, id",
    "joined outside": "select f.name from (select family from plant_embedding"
    " order by embedding <=> pgstack.embed($1) limit 10) as n join family as f on f.id = n.family",
    "no further than": "select id from plant_embedding where embedding <=> pgstack.embed($1) < 0.9"
    " order by embedding <=> pgstack.embed($1) limit 10",
    "for each of several": "select n.id from (values ($1), ('moss')) as q (t) cross join lateral"
    " (select id from plant_embedding order by embedding <=> pgstack.embed(q.t) limit 10) as n",
    "by a query of its own": "select id from plant_embedding"
    " order by embedding <=> (select pgstack.embed($1)) limit 10",
}


@pytest.mark.parametrize("shape", SERVED)
def test_the_index_serves(plants: Connection, models: Models, shape: str) -> None:
    """With statistics and without, prepared or not; the model is asked once."""
    for text, query in every_way(plants, SERVED[shape]):
        assert 1 <= len(ids(plants, query)) <= 20
        assert models.asked(text) == 1
        assert "Index Scan using near" in plan(plants, query)


def test_what_the_index_finds_is_nearest(plants: Connection) -> None:
    for text, query in every_way(plants, nearest(k=20)):
        found = ids(plants, query)
        assert len(found) == 20
        assert len({*found} & {*exact(plants, text, k=20)}) >= 18


@pytest.mark.parametrize("how", ["custom", "generic"])
def test_a_limit_may_be_a_parameter(plants: Connection, how: str) -> None:
    run(plants, f"set plan_cache_mode = force_{how}_plan")
    run(plants, f"prepare nearest (text, integer) as {nearest().replace('limit 10', 'limit $2')}")
    query = f"execute nearest ('{question()}', 7)"
    assert len(ids(plants, query)) == 7
    assert "Index Scan using near" in plan(plants, query)


# ------------------------------------------------------------------------- conditions


@pytest.mark.parametrize("selectivity", SELECTIVITIES)
def test_a_condition_leaves_k_rows(plants: Connection, models: Models, selectivity: str) -> None:
    """PostgreSQL chooses index or condition first; either way all rows come that there are."""
    column, value, matching = SELECTIVITIES[selectivity]
    plants.execute("set hnsw.iterative_scan = strict_order")
    where = f"where {column} = {value}"
    for text, query in every_way(plants, nearest(where)):
        found = ids(plants, query)
        assert models.asked(text) == (matching > 0)
        expected = exact(plants, text, where)
        assert len(found) == len(expected) == min(10, matching)
        assert len({*found} & {*expected}) >= 0.8 * len(expected)


def test_a_wide_condition_goes_into_the_index_scan_once_there_are_statistics(
    plants: Connection, analyzed: bool
) -> None:
    """Without, PostgreSQL takes any condition for a narrow one, and sorts what satisfies it."""
    for _, query in every_way(plants, nearest("where half = 1")):
        assert ("Index Scan using near" in plan(plants, query)) == analyzed


def test_a_narrow_condition_is_read_by_its_own_index(plants: Connection) -> None:
    for _, query in every_way(plants, nearest("where one = 77")):
        assert "plant_one_idx" in plan(plants, query)
        assert "near" not in plan(plants, query)
        assert ids(plants, query) == [77]


def test_a_join_with_a_condition_on_the_other_table(plants: Connection, models: Models) -> None:
    plants.execute("set hnsw.iterative_scan = strict_order")
    joined = (
        "select p.id from plant_embedding as p join family as f on f.id = p.family"
        " where f.name in ('family 1', 'family 2')"
        " order by p.embedding <=> pgstack.embed($1) limit 10"
    )
    for text, query in every_way(plants, joined):
        found = ids(plants, query)
        assert len(found) == 10
        assert {number % 50 for number in found} <= {1, 2}
        assert models.asked(text) == 1


# ------------------------------------------------------------------------------ traps

TRAPS = {
    "similarity in place of distance": "select id from plant_embedding"
    " order by 1 - (embedding <=> pgstack.embed($1)) desc limit 10",
    "farthest first": "select id from plant_embedding"
    " order by embedding <=> pgstack.embed($1) desc limit 10",
    "another distance than the index has": "select id from plant_embedding"
    " order by embedding <-> pgstack.embed($1) limit 10",
    "no limit": "select id from plant_embedding order by embedding <=> pgstack.embed($1)",
    "the vector from a joined table": "with q as materialized (select pgstack.embed($1) as v)"
    " select id from plant_embedding cross join q order by embedding <=> q.v limit 10",
}


@pytest.mark.parametrize("trap", TRAPS)
def test_a_trap_reads_every_row(plants: Connection, models: Models, method: str, trap: str) -> None:
    """Right answers, without the index.  The model is still asked only once."""
    text = question()
    query = TRAPS[trap].replace("$1", f"'{text}'")
    assert len(ids(plants, query)) == (10 if "limit" in query else ROWS)
    # DiskANN, which is asked for all rows, takes itself for the cheaper way.
    if (trap, method) != ("no limit", "diskann"):
        assert "near" not in plan(plants, query)
    assert models.asked(text) == 1


def test_a_second_sort_key_costs_a_sort(plants: Connection) -> None:
    """From PostgreSQL 13 on an incremental one, where the planner finds that worth it."""
    order = f"embedding <=> pgstack.embed('{question()}')"
    assert "Sort" in plan(plants, f"select id from plant_embedding order by {order}, id limit 10")
    assert "Sort" not in plan(plants, f"select id from plant_embedding order by {order} limit 10")


def test_without_iterative_scans_hnsw_gives_too_few(plants: Connection, method: str) -> None:
    """It finds ef_search rows, and the condition takes some of those away; DiskANN goes on."""
    query = nearest("where half = 1", k=60).replace("$1", f"'{question()}'")
    plants.execute("set hnsw.ef_search = 60; set enable_sort = off")
    assert "Index Scan using near" in plan(plants, query)
    found = len(ids(plants, query))
    assert found < 45 if method == "hnsw" else found == 60
    plants.execute("set hnsw.iterative_scan = strict_order")
    assert len(ids(plants, query)) == 60
