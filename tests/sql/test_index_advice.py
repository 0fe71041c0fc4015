"""index_advice(): what it recommends, and what it expects of each kind of index."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest
from psycopg.rows import dict_row

from tests.conftest import need_extension

Conn = psycopg.Connection[Any]
MB = 1_000_000


@pytest.fixture
def docs(conn: Conn) -> Conn:
    """A vectorizer of 384 dimensions on a machine that caches 1 GB."""
    make(conn, "docs", 384)
    conn.execute("set local effective_cache_size = '1GB'")
    return conn


def make(conn: Conn, name: str, dimensions: int) -> None:
    conn.execute(f"create table {name} (id int primary key, body text)".encode())
    conn.execute(
        "select pgstack.create_vectorizer(%s::regclass, array['body']::name[], dimensions => %s)",
        (name, dimensions),
    )


def advice(conn: Conn, rows: int | None = None, name: str = "docs") -> list[dict[str, Any]]:
    with conn.cursor(row_factory=dict_row) as cursor:
        return cursor.execute("select * from pgstack.index_advice(%s, %s)", (name, rows)).fetchall()


def best(conn: Conn, rows: int | None = None, name: str = "docs") -> tuple[str, str]:
    found = advice(conn, rows, name)
    assert [a["recommended"] for a in found] == [True] + [False] * (len(found) - 1)
    return found[0]["method"], found[0]["storage"]


def expected(conn: Conn, rows: int, method: str, storage: str, name: str = "docs") -> Any:
    [found] = [
        a for a in advice(conn, rows, name) if (a["method"], a["storage"]) == (method, storage)
    ]
    return found


def test_what_fits_into_memory_decides(docs: Conn) -> None:
    need_extension(docs, "vectorscale")
    assert best(docs) == ("none", "none")
    assert best(docs, 9_999) == ("none", "none")
    assert best(docs, 10_000) == ("hnsw", "vector")
    assert best(docs, 400_000) == ("hnsw", "halfvec")
    assert best(docs, 5_000_000) == ("diskann", "sbq")


def test_the_setting_says_from_when_on_an_index_pays(docs: Conn) -> None:
    docs.execute("set local pgstack.index_min_rows = '100'")
    assert best(docs, 100) == ("hnsw", "vector")


def test_long_vectors_are_indexed_by_what_can_hold_them(docs: Conn) -> None:
    need_extension(docs, "vectorscale")
    make(docs, "long", 3000)
    make(docs, "longest", 5000)
    assert best(docs, 20_000, "long") == ("hnsw", "halfvec")
    assert best(docs, 20_000, "longest") == ("diskann", "sbq")
    impossible = expected(docs, 20_000, "hnsw", "vector", "long")
    assert impossible["why"] == "Not possible: HNSW on vector takes up to 2000 dimensions."
    assert impossible["statement"] is None
    assert impossible["expected_bytes"] is None


def test_without_vectorscale_there_is_no_diskann(docs: Conn) -> None:
    docs.execute("drop extension if exists vectorscale cascade")
    assert best(docs, 5_000_000) == ("hnsw", "halfvec")
    assert "vectorscale" in expected(docs, 5_000_000, "diskann", "sbq")["why"]


# Measured: pgvector 0.8.2, vectorscale 0.9.0.
@pytest.mark.parametrize(
    ("method", "storage", "rows", "dimensions", "measured"),
    [
        ("hnsw", "vector", 40_000, 384, 81.9 * MB),
        ("hnsw", "halfvec", 40_000, 384, 46.8 * MB),
        ("hnsw", "vector", 10_000, 1024, 81.9 * MB),
        ("hnsw", "halfvec", 10_000, 1024, 27.3 * MB),
        ("hnsw", "halfvec", 10_000, 2000, 81.9 * MB),
        ("diskann", "sbq", 20_000, 384, 10.9 * MB),
        ("diskann", "sbq", 10_000, 1024, 5.87 * MB),
    ],
)
def test_sizes_are_foretold_within_a_twentieth(
    docs: Conn, method: str, storage: str, rows: int, dimensions: int, measured: float
) -> None:
    if method == "diskann":
        need_extension(docs, "vectorscale")
    make(docs, "sized", dimensions)
    size = expected(docs, rows, method, storage, "sized")["expected_bytes"]
    assert size == pytest.approx(measured, rel=0.05)


def test_memory_is_what_the_graph_needs(docs: Conn) -> None:
    """In 32 MB pgvector built a graph of 14,902 vectors of 384 dimensions."""
    wanted = expected(docs, 14_902, "hnsw", "vector")["memory_bytes"]
    assert wanted == pytest.approx(32 * 1024 * 1024, rel=0.1)


def test_times_follow_the_builds_of_this_machine(docs: Conn) -> None:
    before = expected(docs, 100_000, "hnsw", "vector")["expected_time"]
    docs.execute(
        """
        insert into _pgstack.index_build
          (vectorizer_id, vectorizer, method, storage, state, dimensions, rows, seconds)
        select 0, 'gone', 'hnsw', 'vector', 'done', 384, 20000,
          7 * _pgstack.index_work('hnsw', 'vector', 384, '{}', 20000)
        """
    )
    after = expected(docs, 100_000, "hnsw", "vector")
    assert after["expected_time"] / before == pytest.approx(7, rel=0.01)
    assert "builds took here" in after["why"]


def test_too_little_memory_makes_a_build_slow(docs: Conn) -> None:
    """Measured: 40,000 vectors took 2.3 times as long in 32 MB as in 1 GB."""
    enough = expected(docs, 40_000, "hnsw", "vector")["expected_time"]
    docs.execute("set local pgstack.index_memory = '32MB'")
    short = expected(docs, 40_000, "hnsw", "vector")["expected_time"]
    assert short / enough == pytest.approx(2.3, rel=0.1)


def test_more_is_expected_of_a_bigger_index(docs: Conn) -> None:
    small, big = (expected(docs, rows, "hnsw", "vector") for rows in (20_000, 200_000))
    for field in ("expected_bytes", "expected_time", "memory_bytes", "expected_ms"):
        assert small[field] < big[field], field


def test_every_statement_can_be_run(docs: Conn) -> None:
    need_extension(docs, "vectorscale")
    for found in advice(docs, 50_000):
        number = docs.execute(found["statement"].encode()).fetchone()
        row = docs.execute(
            "select method, storage, parameters from _pgstack.index_build where id = %s", number
        ).fetchone()
        assert row == (found["method"], found["storage"], found["parameters"])


def test_a_column_of_labels_is_pointed_out(docs: Conn) -> None:
    need_extension(docs, "vectorscale")
    docs.execute("alter table docs_embedding_store add column tags smallint[]")
    assert best(docs, 50_000) == ("diskann", "sbq")
    assert expected(docs, 50_000, "diskann", "sbq")["labels"] == "tags"


def test_rows_are_counted_when_nobody_says_how_many(docs: Conn) -> None:
    docs.execute(
        "insert into docs_embedding_store (id, chunk_seq, chunk, embedding) "
        "select i, 0, '', array_fill(1, array[384])::vector from generate_series(1, 30) as i"
    )
    [none] = [a for a in advice(docs) if a["method"] == "none"]
    assert "all 30 chunks" in none["why"]
