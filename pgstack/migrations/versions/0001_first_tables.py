"""The first tables.

Plain DDL, because PostgreSQL people read it fastest.  Unlogged tables hold only what
a crash may forget: questions in flight, cached query vectors, worker presence.
"""

from __future__ import annotations

from alembic import context, op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_TABLES = (
    # Defaults of this database.  Read through pgstack.settings.
    """
    create table _pgstack.setting (
      name text primary key,
      value text not null,
      updated_at timestamptz not null default now(),
      updated_by name not null default current_user
    )
    """,
    # One question from SQL to the model server, on its way through a worker.
    """
    create unlogged table _pgstack.request (
      id bigint generated always as identity primary key,
      token uuid not null unique default gen_random_uuid(),
      kind text not null check (kind in ('embed', 'generate', 'chat', 'list', 'ps')),
      payload jsonb not null,
      asker name not null,
      asker_pid integer not null,
      state text not null default 'posted' check (state in ('posted', 'leased', 'done', 'failed')),
      worker uuid,
      posted_at timestamptz not null default clock_timestamp(),
      leased_until timestamptz,
      deadline timestamptz not null,
      answer jsonb,
      embeddings text[],
      sqlstate text,
      message text,
      hint text
    )
    """,
    "create index request_posted on _pgstack.request (id) where state = 'posted'",
    # Vectors of query texts, one asker's apart from another's.
    """
    create unlogged table _pgstack.query_cache (
      asker name not null,
      model text not null,
      input_type text not null,
      digest bytea not null,
      embedding {vector} not null,
      created_at timestamptz not null default now(),
      primary key (asker, model, input_type, digest)
    )
    """,
    "create index query_cache_age on _pgstack.query_cache (created_at)",
    # Workers that are, or were, connected.
    """
    create unlogged table _pgstack.worker (
      id uuid primary key,
      pid integer not null,
      version text not null,
      model_server text not null,
      started_at timestamptz not null default now(),
      seen_at timestamptz not null default now()
    )
    """,
    # What pgstack knows of a vectorizer beyond pgai's catalogue.
    """
    create table _pgstack.vectorizer (
      vectorizer_id integer primary key references ai.vectorizer (id) on delete cascade,
      index_method text not null default 'auto'
        check (index_method in ('auto', 'hnsw', 'diskann', 'none')),
      prepared_at timestamptz,
      problem text,
      embedded_rows bigint not null default 0,
      embedded_chunks bigint not null default 0,
      busy_seconds double precision not null default 0,
      last_success_at timestamptz,
      last_error_at timestamptz,
      last_error text
    )
    """,
    # A source row in a worker's hands, waiting for its next try, or given up on.
    """
    create table _pgstack.work (
      vectorizer_id integer not null references ai.vectorizer (id) on delete cascade,
      digest bytea not null,
      key jsonb not null,
      state text not null check (state in ('leased', 'waiting', 'failed')),
      worker uuid,
      due_at timestamptz not null,
      attempts integer not null default 0,
      last_error text,
      changed_at timestamptz not null default clock_timestamp(),
      primary key (vectorizer_id, digest)
    )
    """,
)


def upgrade() -> None:
    """Create every table.  Nothing runs yet that could be in the way."""
    schema = str(context.get_context().opts["vector_schema"]).replace('"', '""')
    for statement in _TABLES:
        op.execute(statement.replace("{vector}", f'"{schema}".vector'))
