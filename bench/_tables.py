"""Tables for bench/search.py: rows whose vectors are known, so that no model is asked.

A table ``name`` (id, body, bucket) with a vectorizer of one chunk a row.  The vectors go into the
table of chunks as a worker would write them, then the table of words is made, and the vector
index if one is wanted.  ``bucket`` is one of 200 at random, indexed: a filter on it selects what
one likes.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, LiteralString

import numpy as np
import psycopg
from numpy.typing import NDArray
from psycopg import sql

from pgstack.vectors import Vector, adapt

type Vectors = NDArray[np.float32]
type Connection = psycopg.Connection[Any]

BUCKETS = 200
_SEED = 7


@dataclass(frozen=True)
class Built:
    """An index: seconds to build, bytes on disk."""

    seconds: float
    size: int


@dataclass(frozen=True)
class Table:
    """A table with a vectorizer of the same name, and what its words took."""

    name: str
    vectorizer: int
    rows: int
    buckets: NDArray[np.int64]
    words: Built

    @property
    def store(self) -> str:
        """The table of chunks."""
        return f"{self.name}_embedding_store"

    @property
    def view(self) -> str:
        """The view that joins the source and its chunks."""
        return f"{self.name}_embedding"

    @property
    def words_table(self) -> str:
        """The words of the chunks."""
        return f"ai._pgstack_words_{self.vectorizer}"


def packed(vector: Vectors) -> Vector:
    """Return a vector as pgvector receives it."""
    return Vector(Vector.pack([0.0] * len(vector))[:4] + vector.astype(">f4").tobytes())


def know_vectors(conn: Connection) -> None:
    """Let ``conn`` send vectors."""
    row = conn.execute(
        "select t.oid, t.typarray from pg_type as t where t.oid = 'vector'::regtype"
    ).fetchone()
    assert row is not None
    adapt(conn, oid=row[0], array_oid=row[1])


def make(
    conn: Connection,
    name: str,
    texts: Sequence[str],
    vectors: Vectors,
    ids: Iterable[str] | None = None,
    *,
    words: bool = True,
) -> Table:
    """Make the table anew, with its vectorizer and its words, without a vector index."""
    drop(conn, name)
    buckets = np.random.default_rng(_SEED).integers(0, BUCKETS, len(texts))
    keys = [str(i) for i in range(len(texts))] if ids is None else list(ids)
    key_type = sql.SQL("bigint" if ids is None else "text")
    run(
        conn,
        "create table {0} (id {key} primary key, body text not null, bucket integer not null)",
        name,
        key=key_type,
    )
    _copy(conn, name, ("id", "body", "bucket"), zip(keys, texts, buckets.tolist(), strict=True))
    run(conn, "create index on {0} (bucket)", name)
    (vectorizer,) = conn.execute(
        "select pgstack.create_vectorizer(%(name)s::text::regclass, 'body', name => %(name)s::text,"
        " model => 'all-minilm', dimensions => %(dimensions)s, chunking => 'none',"
        " template => '$chunk', index => 'none', enqueue_existing => false)",
        {"name": name, "dimensions": vectors.shape[1]},
    ).fetchone() or (0,)
    store = f"{name}_embedding_store"
    head = Vector.pack([0.0] * vectors.shape[1])[:4]
    _copy_binary(conn, store, "bigint" if ids is None else "text", keys, texts, head, vectors)
    run(conn, "vacuum analyze {0}", name)
    run(conn, "vacuum analyze {0}", store)
    made = _words(conn, vectorizer) if words else Built(0, 0)
    return Table(name, vectorizer, len(texts), buckets, made)


def _words(conn: Connection, vectorizer: int) -> Built:
    """Make the table of words, as a worker would once there are enough chunks."""
    began = time.perf_counter()
    conn.execute("select _pgstack.build_words(%s)", (vectorizer,))
    seconds = time.perf_counter() - began
    words = f"_pgstack_words_{vectorizer}"
    run(conn, "vacuum analyze ai.{0}", words)
    (size,) = conn.execute("select pg_total_relation_size(%s)", (f"ai.{words}",)).fetchone() or (0,)
    return Built(seconds, size)


def drop(conn: Connection, name: str) -> None:
    """Drop a table and its vectorizer, if they are there."""
    conn.execute(
        "select pgstack.drop_vectorizer(name, true) from ai.vectorizer where name = %s", (name,)
    )
    run(conn, "drop table if exists {0} cascade", name)


def build_index(conn: Connection, table: Table, method: str) -> Built:
    """Do what a worker would: build the vector index, and prepare the search by it.

    The index that is there is dropped.
    """
    drop_indexes(conn, table)
    began = time.perf_counter()
    run(
        conn,
        "create index {1} on {0} using {method} (embedding vector_cosine_ops)",
        table.store,
        f"{table.name}_vectors",
        method=sql.SQL("hnsw" if method == "hnsw" else "diskann"),
    )
    seconds = time.perf_counter() - began
    conn.execute("select _pgstack.prepare_search(%s)", (table.vectorizer,))
    (size,) = conn.execute(
        "select pg_relation_size(%s::regclass)", (f"{table.name}_vectors",)
    ).fetchone() or (0,)
    return Built(seconds, size)


def drop_indexes(conn: Connection, table: Table) -> None:
    """Drop the vector index."""
    run(conn, "drop index if exists {0}", f"{table.name}_vectors")


def remember(conn: Connection, texts: Sequence[str], vectors: Vectors) -> None:
    """Put vectors of queries where pgstack.embed() keeps those it was asked for before."""
    for text, vector in zip(texts, vectors, strict=True):
        conn.execute(
            "insert into _pgstack.query_cache (asker, model, input_type, digest, embedding)"
            " values (current_user, 'all-minilm', 'query', _pgstack.text_digest(%s), %s)"
            " on conflict do nothing",
            (text, packed(vector)),
        )


def run(
    conn: Connection, statement: LiteralString, *names: str, **parts: sql.Composable
) -> psycopg.Cursor[Any]:
    """Execute a statement with these names filled in, quoted."""
    return conn.execute(sql.SQL(statement).format(*map(sql.Identifier, names), **parts))


def _copy(
    conn: Connection, table: str, columns: Sequence[str], rows: Iterable[Sequence[object]]
) -> None:
    statement = sql.SQL("copy {} ({}) from stdin").format(
        sql.Identifier(table), sql.SQL(", ").join(map(sql.Identifier, columns))
    )
    with conn.cursor() as cursor, cursor.copy(statement) as copy:
        for row in rows:
            copy.write_row(row)


def _copy_binary(
    conn: Connection,
    store: str,
    key_type: str,
    keys: Sequence[str],
    texts: Sequence[str],
    head: bytes,
    vectors: Vectors,
) -> None:
    """Fill a table of chunks: vectors as text would take minutes."""
    statement = sql.SQL(
        "copy {} (id, chunk_seq, chunk, start_char, end_char, embedding) from stdin (format binary)"
    ).format(sql.Identifier(store))
    swapped = vectors.astype(">f4")
    with conn.cursor() as cursor, cursor.copy(statement) as copy:
        copy.set_types([key_type, "int4", "text", "int4", "int4", "vector"])
        for key, text, vector in zip(keys, texts, swapped, strict=True):
            known = int(key) if key_type == "bigint" else key
            copy.write_row((known, 0, text, 0, len(text), Vector(head + vector.tobytes())))
