"""Vectors in binary, to a real PostgreSQL: single ones, lists, nulls, pgvector anywhere."""

from __future__ import annotations

import asyncio
import math
import struct
from collections.abc import Awaitable, Callable
from typing import Any

import psycopg
import pytest
from psycopg_pool import AsyncConnectionPool

from pgstack.db import connect
from pgstack.errors import MissingExtension
from pgstack.vectors import Vector, register

type Conn = psycopg.AsyncConnection[Any]

NUMBERS = [0.1, -2.5, 3e-40, 1e38]


def on(dsn: str, work: Callable[[Conn], Awaitable[Any]], *, autocommit: bool = True) -> Any:
    async def main() -> Any:
        async with await psycopg.AsyncConnection.connect(dsn, autocommit=autocommit) as conn:
            await register(conn)
            return await work(conn)

    return asyncio.run(main())


def ask(dsn: str, query: str, *params: object) -> Any:
    """Return the first row of a query on a connection that knows vectors."""

    async def work(conn: Conn) -> Any:
        return await (await conn.execute(query, params)).fetchone()  # type: ignore[arg-type]

    return on(dsn, work)


def test_the_binary_form_is_pgvectors_own(db_url: str) -> None:
    packed = Vector.pack(NUMBERS)
    sent = ask(db_url, "select vector_send('[0.1,-2.5,3e-40,1e38]'::vector)")[0]
    assert packed == sent
    assert packed.dimensions == 4
    back, kind = ask(
        db_url, "select v::real[]::text, pg_typeof(v)::text from (select %s as v) as s", packed
    )
    assert back == "{0.1,-2.5,3e-40,1e+38}"
    assert kind == "vector"


@pytest.mark.parametrize(
    "numbers",
    [[], [0.0] * 16_001, [1.0, math.nan], [math.inf], [math.inf, -math.inf], [1e39], [3.41e38]],
)
def test_what_pgvector_would_refuse_is_not_packed(numbers: list[float]) -> None:
    with pytest.raises(ValueError, match=r"1 to 16000 numbers|not finite"):
        Vector.pack(numbers)


@pytest.mark.parametrize("count", [0, 1, 3, 1000])
def test_a_list_is_an_array_with_nulls(db_url: str, count: int) -> None:
    vectors = [None if i % 3 == 1 else Vector.pack([i, i / 2]) for i in range(count)]
    total, nulls, last = ask(
        db_url,
        "select count(*), count(*) filter (where v is null), max(v::text)"
        " from unnest(%s::vector[]) as v",
        vectors,
    )
    assert (total, nulls) == (count, len(range(1, count, 3)))
    assert last == max((f"[{i},{i / 2:g}]" for i in range(count) if i % 3 != 1), default=None)


@pytest.mark.parametrize("vectors", [[], [None], [None, None]])
def test_a_list_without_any_vector_takes_the_type_of_its_place(
    db_url: str, vectors: list[None]
) -> None:
    async def work(conn: Conn) -> Any:
        await conn.execute(
            "create function pg_temp.f(vs vector[]) returns int language sql"
            " return coalesce(cardinality(vs), 0)"
        )
        query = "select pg_temp.f(%s)"
        # Twice each, and in between a full one: prepared statements must not mix up the types.
        answers = []
        for sent in (vectors, [Vector.pack([1])], vectors, [Vector.pack([1])]):
            cursor = await conn.execute(query, [sent], prepare=True)
            answers.append((await cursor.fetchone())[0])  # type: ignore[index]
        return answers

    assert on(db_url, work) == [len(vectors), 1, len(vectors), 1]


def test_a_wrong_length_is_refused_by_the_column_in_words(db_url: str) -> None:
    async def work(conn: Conn) -> None:
        await conn.execute("create temp table t (v vector(3))")
        await conn.execute("insert into t values (%s)", [Vector.pack([1, 2, 3])])
        await conn.execute("insert into t select unnest(%s)", [[Vector.pack([1, 2])]])

    with pytest.raises(psycopg.errors.DataException, match="expected 3 dimensions, not 2"):
        on(db_url, work)


def test_copy_in_binary(db_url: str) -> None:
    async def work(conn: Conn) -> Any:
        await conn.execute("create temp table t (n int, v vector(2))")
        async with conn.cursor() as cursor:
            async with cursor.copy("copy t from stdin (format binary)") as copy:
                copy.set_types(["int4", "vector"])
                await copy.write_row((1, Vector.pack([1, 2])))
                await copy.write_row((2, None))
            await cursor.execute("select n, v::text from t order by n")
            return await cursor.fetchall()

    assert on(db_url, work) == [(1, "[1,2]"), (2, None)]


def test_pgvector_in_a_schema_off_the_search_path(db_url: str) -> None:
    with connect(db_url, autocommit=True) as conn:
        conn.execute("create schema elsewhere")
        # Somebody else's type of that name must not be taken for it.
        conn.execute("create type pg_temp.vector as (x int)")
        conn.execute("alter extension vector set schema elsewhere")
        conn.execute("create type public.vector as (x int)")
    (name,) = ask(db_url, "select pg_typeof(%s)::text", [Vector.pack([1])])
    assert name == "elsewhere.vector[]"


def test_as_the_configuration_of_a_pool(db_url: str) -> None:
    async def main() -> Any:
        pool: AsyncConnectionPool[Any] = AsyncConnectionPool(
            db_url, min_size=1, open=False, configure=register
        )
        async with pool, pool.connection() as conn:
            query = "select %s <-> %s::vector"
            vectors = (Vector.pack([1, 1]), Vector.pack([4, 5]))
            return await (await conn.execute(query, vectors)).fetchone()

    assert asyncio.run(main()) == (5.0,)


def test_without_the_extension_the_next_command_is_named(db_url: str) -> None:
    with connect(db_url, autocommit=True) as conn:
        conn.execute("drop extension vector cascade")
    with pytest.raises(MissingExtension, match="extension vector") as caught:
        ask(db_url, "select 1")
    assert str(caught.value.hint).startswith("pgstack install")


def test_the_size_of_a_packed_vector() -> None:
    assert len(Vector.pack([0.5] * 384)) == struct.calcsize(">hh384f")
