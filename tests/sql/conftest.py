"""Fixtures: a worker's work done in the test's own transaction, and roles that go with it."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any, LiteralString

import psycopg
import pytest
from psycopg import sql

Conn = psycopg.Connection[Any]

CLAIM: LiteralString = (
    "select vectorizer_id, keys::text[] from _pgstack.work_claim(%s, null, '{}', '{}')"
)
# What a worker does, with the vectors [1,1,...] for every text.
COMPLETE: LiteralString = """
    with loaded as materialized (
      select * from _pgstack.work_load(%(id)s, %(keys)s::jsonb[], null, null)
    )
    select _pgstack.work_complete(
      %(worker)s, %(id)s, %(keys)s::jsonb[],
      (
        select array_agg(v.version order by v.nr)
        from (select distinct l.nr, l.version from loaded as l) as v
      ),
      array_agg(l.nr) filter (where l.digest is not null),
      array_agg(l.chunk_seq) filter (where l.digest is not null),
      array_agg(l.start_char) filter (where l.digest is not null),
      array_agg(l.end_char) filter (where l.digest is not null),
      array_agg(l.digest) filter (where l.digest is not null),
      array_agg(l.chunk) filter (where l.digest is not null),
      array_agg(case when l.wanted then array_fill(1, array[p.dimensions])::vector end)
        filter (where l.digest is not null)
    )
    from loaded as l
    cross join _pgstack.vectorizer_plan as p
    where p.id = %(id)s
"""


@pytest.fixture
def drain(conn: Conn) -> Callable[[], int]:
    """Embed all that is queued, without a worker; returns how many rows were embedded."""

    def drain() -> int:
        total = 0
        worker = uuid.uuid4()
        while row := conn.execute(CLAIM, (worker,)).fetchone():
            arguments = {"worker": worker, "id": row[0], "keys": row[1]}
            done = conn.execute(COMPLETE, arguments).fetchone()
            assert done is not None
            assert done[0] > 0, "rows are queued that cannot be embedded"
            total += done[0]
        return total

    return drain


@pytest.fixture
def make_role(conn: Conn) -> Callable[[str], str]:
    """Make roles with no rights but everybody's; they are rolled back with the test."""

    def make(prefix: str) -> str:
        name = f"{prefix}_{uuid.uuid4().hex[:8]}"
        conn.execute(sql.SQL("create role {}").format(sql.Identifier(name)))
        return name

    return make
