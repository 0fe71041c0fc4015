"""Indexes: what was asked for, how building went, recall, and searches prepared by them."""

from __future__ import annotations

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_TABLES = (
    # One build of a vector index, wanted, under way or over.  No foreign key: it outlives its
    # vectorizer, because how long it took says how fast this machine is.
    """
    create table _pgstack.index_build (
      id bigint generated always as identity primary key,
      vectorizer_id integer not null,
      vectorizer text not null,
      method text not null check (method in ('hnsw', 'diskann', 'none')),
      storage text not null check (storage in ('vector', 'halfvec', 'sbq', 'none')),
      parameters jsonb not null default '{}',
      labels name,
      automatic boolean not null default false,
      state text not null default 'requested'
        check (state in ('requested', 'building', 'clearing', 'done', 'failed')),
      requested_by name not null default current_user,
      requested_at timestamptz not null default clock_timestamp(),
      step text,
      attempts integer not null default 0,
      retry_at timestamptz not null default clock_timestamp(),
      started_at timestamptz,
      finished_at timestamptz,
      pid integer,
      dimensions integer not null,
      rows bigint,
      memory_bytes bigint,
      parallel_workers integer,
      seconds double precision,
      bytes bigint,
      error text
    )
    """,
    # One waits at most; what it should be may still be changed.
    "create unique index index_build_requested on _pgstack.index_build (vectorizer_id) "
    "where state = 'requested'",
    "create index index_build_open on _pgstack.index_build (id) "
    "where state in ('requested', 'building', 'clearing')",
    "create index index_build_vectorizer on _pgstack.index_build (vectorizer_id, id)",
    # What pgstack.recall() found, by the oid of an index: a new one is measured anew.
    """
    create table _pgstack.index_recall (
      index oid not null,
      effort integer not null,
      vectorizer_id integer not null,
      k integer not null,
      recall double precision not null,
      recall_low double precision not null,
      recall_p5 double precision not null,
      p50_ms double precision not null,
      p95_ms double precision not null,
      queries text not null,
      sample integer not null,
      measured_at timestamptz not null default now(),
      primary key (index, effort)
    )
    """,
    # Searches whose statement is written already.  made_from, made_at: xmin and ctid of the
    # vectorizer's row; most: rows that effort serves.
    """
    create table _pgstack.prepared_search (
      vectorizer_id integer primary key,
      made_from xid not null,
      made_at tid not null,
      source oid not null,
      index oid not null,
      effort integer not null,
      most integer not null,
      model text not null,
      dimensions integer not null
    )
    """,
)


def upgrade() -> None:
    """Add; blocks nothing."""
    for statement in _TABLES:
        op.execute(statement)
