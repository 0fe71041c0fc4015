"""Which index a search uses, and how hard it tries."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

from tests.conftest import need_extension

Conn = psycopg.Connection[Any]

PLAN = "_pgstack.vectorizer_plan('My Docs')"


@pytest.fixture
def docs(conn: Conn) -> Conn:
    """A vectorizer with awkward names, whose table of chunks is empty."""
    conn.execute(
        """
        create table "My Docs" (id int primary key, body text);
        select pgstack.create_vectorizer('"My Docs"', 'body', dimensions => 3);
        """
    )
    return conn


def index(conn: Conn) -> tuple[Any, ...] | None:
    columns = "index::text, method, expression_cast, valid, options"
    query = f"select {columns} from _pgstack.vector_index({PLAN})"
    return conn.execute(query.encode()).fetchone()


def effort(conn: Conn, k: int, target: float | None) -> int | None:
    query = f"select _pgstack.search_effort({PLAN}, %s, %s)"
    row = conn.execute(query.encode(), (k, target)).fetchone()
    assert row is not None
    return row[0]  # type: ignore[no-any-return]


def test_without_an_index_there_is_nothing_to_try(docs: Conn) -> None:
    assert index(docs) is None
    assert effort(docs, 10, 0.95) is None


def test_an_index_tells_its_method_and_parameters(docs: Conn) -> None:
    docs.execute(
        'create index "Odd one" on "My Docs_embedding_store"'
        " using hnsw (embedding vector_cosine_ops) with (m = 8)"
    )
    assert index(docs) == ('"Odd one"', "hnsw", None, True, {"m": "8"})


def test_an_index_over_a_cast_tells_what_to_order_by(docs: Conn) -> None:
    docs.execute(
        'create index on "My Docs_embedding_store"'
        " using hnsw ((embedding::halfvec(3)) halfvec_cosine_ops)"
    )
    found = index(docs)
    assert found is not None
    docs.execute("set enable_seqscan = off")
    plan = docs.execute(
        'explain select from "My Docs_embedding_store" as r '
        f"order by r.embedding::{found[2]} <=> '[1,2,3]'::{found[2]} limit 1".encode()
    ).fetchall()
    assert any("Index Scan" in line for (line,) in plan), plan


@pytest.mark.parametrize(
    "definition",
    [
        "using hnsw (embedding vector_l2_ops)",
        "using hnsw (embedding vector_cosine_ops) where chunk_seq = 0",
        "using hnsw ((binary_quantize(embedding)::bit(3)) bit_hamming_ops)",
        "using btree (embedding)",
    ],
)
def test_an_index_that_cannot_serve_a_search_is_left_aside(docs: Conn, definition: str) -> None:
    docs.execute(f'create index on "My Docs_embedding_store" {definition}'.encode())
    assert index(docs) is None


def test_an_index_that_is_not_valid_is_left_aside(docs: Conn) -> None:
    docs.execute(
        'create index i on "My Docs_embedding_store" using hnsw (embedding vector_cosine_ops);'
        "update pg_index set indisvalid = false where indexrelid = 'i'::regclass"
    )
    assert index(docs) is None


def test_an_index_tells_the_column_of_its_labels(conn: Conn) -> None:
    need_extension(conn, "vectorscale")
    conn.execute(
        """
        create table "My Docs" (id int primary key, body text, tags smallint[]);
        select pgstack.create_vectorizer('"My Docs"', 'body', dimensions => 3,
          chunking => 'none', embedding_column => 'vec');
        create index i on "My Docs" using diskann (vec vector_cosine_ops, tags);
        """
    )
    assert index(conn) == ("i", "diskann", None, True, {"labels": "tags"})


def test_effort_grows_with_k_and_target_within_bounds(docs: Conn) -> None:
    docs.execute(
        'create index on "My Docs_embedding_store" using hnsw (embedding vector_cosine_ops)'
    )
    assert effort(docs, 1, 0.5) == 40
    assert effort(docs, 10, None) == effort(docs, 10, 0.95) == 40
    assert effort(docs, 100, 0.95) == 200
    assert 40 < (effort(docs, 10, 0.99) or 0) < (effort(docs, 10, 0.999) or 0) < 1000
    assert effort(docs, 1000, 0.95) == effort(docs, 10, 1) == 1000
