"""What tests of vector indexes share: vectorizers with vectors, builds, and waiting for them.

Vectors are written to the table of chunks directly.
"""

from __future__ import annotations

import time
from typing import Any

import psycopg
from psycopg.types.json import Jsonb

from pgstack import indexes, queries

Connection = psycopg.Connection[Any]
HNSW = {"method": "hnsw", "storage": "vector"}


def fill(db: Connection, rows: int, dimensions: int = 32, name: str = "docs") -> None:
    """Make a vectorizer with so many chunks in twenty clusters."""
    db.execute(f"create table {name} (id int primary key, body text)".encode())
    db.execute(
        "select pgstack.create_vectorizer(%s::regclass, array['body']::name[], "
        "dimensions => %s, name => %s)",
        (name, dimensions, name),
    )
    db.execute(
        f"""
        insert into {name}_embedding_store (id, chunk_seq, chunk, embedding)
        select i, 0, 'chunk ' || i, (
          select array_agg(sin((i %% 20 + 1) * j) + 0.3 * random())
          from generate_series(1, %(dimensions)s) as j where i > 0
        )::vector
        from generate_series(1, %(rows)s) as i
        """.encode(),
        {"rows": rows, "dimensions": dimensions},
    )
    # The worker would delete chunks whose row is not there; rows come last, and stay queued.
    db.execute(f"select pgstack.pause_vectorizer('{name}')".encode())
    db.execute(
        f"insert into {name} select i, 'chunk' from generate_series(1, {rows}) as i".encode()
    )


def build(db: Connection, name: str = "docs", **wanted: Any) -> int:
    options = dict.fromkeys(("method", "storage", "parameters", "labels")) | wanted
    if options["parameters"] is not None:
        options["parameters"] = Jsonb(options["parameters"])
    row = db.execute(queries.INDEX_BUILD, {"vectorizer": name, **options}).fetchone()
    assert row is not None
    return int(row[0])


def await_build(db: Connection, number: int) -> indexes.Build:
    """Return a build that is done; pytest's timeout ends waiting for it."""
    *_, last = indexes.follow(db, number, every=0.05)
    return last


def present(db: Connection, name: str = "docs") -> list[tuple[str, str, bool]]:
    """The vector indexes of a vectorizer: name, definition, valid."""
    return db.execute(
        "select c.relname::text, pg_get_indexdef(c.oid), i.indisvalid from pg_index as i "
        "join pg_class as c on c.oid = i.indexrelid join pg_am as m on m.oid = c.relam "
        "where i.indrelid = %s::regclass and m.amname in ('hnsw', 'diskann') order by 1",
        (f"{name}_embedding_store",),
    ).fetchall()


def await_true(db: Connection, query: str, *params: Any) -> None:
    while not db.execute(query.encode(), params or None).fetchone()[0]:  # type: ignore[index]
        time.sleep(0.02)


def building(db: Connection, phase: str) -> int:
    """Wait until an index is being built and in this phase; return the backend's pid."""
    while True:
        row = db.execute(
            "select pid from pg_stat_progress_create_index where phase like %s "
            "and datname = current_database()",
            (phase,),
        ).fetchone()
        if row is not None:
            return int(row[0])
        time.sleep(0.02)
