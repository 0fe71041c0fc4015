"""What the tests of plans share: a table of plants with vectors, an index, and statistics or not.

Vectors are put beside the rows at once, those that the deterministic model would give.
Column values: ``half`` 0 or 1, ``twentieth`` 0 to 19, ``rare`` 0 to 199, ``one`` as the id;
``bare`` is ``twentieth`` without an index.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import psycopg

from pgstack.db import connect
from pgstack.embedded.modelserver.deterministic_vectors import vector

Connection = psycopg.Connection[Any]
ROWS = 2000
WORDS = [
    f"{place}{part}"
    for place in ("", "sea", "wood", "moor", "hill", "sand", "stone", "garden")
    for part in ("leaf", "thorn", "root", "flower", "seed", "bark", "moss", "fern")
]

# The condition on a column, and how many rows satisfy it.
SELECTIVITIES: dict[str, tuple[str, int, int]] = {
    "50 %": ("half", 1, ROWS // 2),
    "5 %": ("twentieth", 1, ROWS // 20),
    "5 %, no index": ("bare", 1, ROWS // 20),
    "0.5 %": ("rare", 1, ROWS // 200),
    "1 row": ("one", 77, 1),
    "0 rows": ("rare", -1, 0),
}


def run(conn: Connection, query: str) -> psycopg.Cursor[Any]:
    """Run a query built here; a % in it is a %."""
    return conn.execute(query.encode())


def plan(conn: Connection, query: str) -> str:
    """How a query would be run."""
    return "\n".join(row[0] for row in run(conn, f"explain (costs off) {query}"))


def ids(conn: Connection, query: str) -> list[int]:
    """The first column of what a query returns."""
    return [row[0] for row in run(conn, query)]


@lru_cache
def plants() -> list[tuple[int, str, str]]:
    """Number, text and vector of each plant."""
    dice = random.Random(7)
    found = []
    for number in range(1, ROWS + 1):
        words = " ".join(dice.sample(WORDS, 4))
        body = f"plant {number} has {words}"
        found.append((number, body, str(vector(body, 384).round(5).tolist())))
    return found


_dice = random.Random(8)


def question() -> str:
    """Words about plants that were not asked before."""
    return " ".join(["plant", *_dice.sample(WORDS, 5)])


@contextmanager
def planted(url: str, *, method: str | None, analyzed: bool, words: bool = False) -> Iterator[str]:
    """Plants for the length of a ``with`` block; gives the database they stand in."""
    with connect(url, autocommit=True) as conn:
        run(
            conn,
            """
            create table family (id integer primary key, name text);
            create table plant (
              id integer primary key, half integer, twentieth integer, rare integer, one integer,
              bare integer, family integer, tenant name, body text
            );
            create index on plant (half); create index on plant (twentieth);
            create index on plant (rare); create index on plant (one);
            select pgstack.create_vectorizer('plant', 'body', dimensions => 384, index => 'none');
            alter table family set (autovacuum_enabled = off);
            alter table plant set (autovacuum_enabled = off);
            alter table plant_embedding_store set (autovacuum_enabled = off);
            begin;
            set local session_replication_role = replica;  -- nothing to do for workers
            insert into family select g, 'family ' || g from generate_series(0, 49) as g;
            create temporary table seed (id integer, body text, embedding vector);
            """,
        )
        with conn.cursor().copy("copy seed from stdin") as copy:
            for row in plants():
                copy.write_row(row)
        run(
            conn,
            """
            insert into plant
              select s.id, s.id % 2, s.id % 20, s.id % 200, s.id, s.id % 20, s.id % 50,
                'nobody', s.body
              from seed as s;
            insert into plant_embedding_store
                (id, chunk_seq, chunk, start_char, end_char, embedding)
              select s.id, 0, s.body, 0, length(s.body), s.embedding from seed as s;
            drop table seed;
            commit;
            """,
        )
        if words:
            run(conn, "select _pgstack.build_words(id) from ai.vectorizer where name = 'plant'")
        if method:
            # PostgreSQL 18 notes the table's size only where autovacuum may run; in one
            # transaction it does not.
            run(
                conn,
                f"""
                alter table plant_embedding_store set (autovacuum_enabled = on);
                create index near on plant_embedding_store using {method}
                  (embedding vector_cosine_ops);
                alter table plant_embedding_store set (autovacuum_enabled = off);
                """,
            )
        if analyzed:
            run(conn, "analyze family, plant, plant_embedding_store")
    try:
        yield url
    finally:
        with connect(url, autocommit=True) as conn:
            run(conn, "select pgstack.drop_vectorizer('plant', true); drop table plant, family")
