"""What a fast, fair and talkative worker keeps: breakers, a ledger, a cache of vectors.

Functions of sql/ that changed their arguments are dropped here by exact types, or both
forms would remain.  No release has the old ones, so no worker of a release calls them.
"""

from __future__ import annotations

from alembic import context, op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_TABLES = (
    # Rates decay as time passes without work: rate * exp(-(now - rated_at) / 30 s).
    """
    alter table _pgstack.vectorizer
      add column adopted_at timestamptz,
      add column members text[],
      add column rows_rate double precision not null default 0,
      add column tokens_rate double precision not null default 0,
      add column rated_at timestamptz not null default now(),
      drop column busy_seconds
    """,
    # It cost every claim a look-up and a lock a row; worker_sweep() forgets dropped vectorizers.
    "alter table _pgstack.work drop constraint work_vectorizer_id_fkey",
    # Vectorizers are prepared anew: their triggers and columns changed.
    "update _pgstack.vectorizer set prepared_at = null",
    # What model calls cost.  By name, so that it outlives the vectorizer; '' for questions.
    """
    create table _pgstack.usage (
      day date not null,
      vectorizer text not null default '',
      model text not null,
      calls bigint not null default 0,
      failed_calls bigint not null default 0,
      texts bigint not null default 0,
      tokens bigint not null default 0,
      seconds double precision not null default 0,
      primary key (day, vectorizer, model)
    )
    """,
    # Models a worker leaves alone for now, because calls to them fail.
    """
    create unlogged table _pgstack.breaker (
      worker uuid not null,
      model_server text not null,
      model text not null,
      since timestamptz not null default clock_timestamp(),
      retry_at timestamptz not null,
      message text not null,
      primary key (worker, model_server, model)
    )
    """,
    # Vectors by the digest of what they were made from: setting embedding_cache.
    """
    create table _pgstack.embedding_cache (
      digest bytea primary key,
      embedding {vector} not null,
      created_at timestamptz not null default now()
    )
    """,
    "create index embedding_cache_age on _pgstack.embedding_cache (created_at)",
    # Its columns changed; sql/340_status.sql makes it anew.
    "drop view if exists pgstack.vectorizer_status",
)

_PLAN = "_pgstack.vectorizer_plan"
_REPLACED = (
    "vectorizer_status()",
    "work_status(integer)",
    "prepare_vectorizer(integer)",
    f"claim_keys({_PLAN}, uuid, integer)",
    "work_claim(uuid, text[], integer)",
    "work_load(integer, jsonb[])",
    "work_load(integer, jsonb[], text)",
    "work_left(text[])",
    f"settle_present({_PLAN}, jsonb[], bytea[])",
    f"check_dimensions({_PLAN}, text[])",
    f"write_column({_PLAN}, jsonb[], integer[], integer[], text[])",
    f"write_chunks({_PLAN}, jsonb[], integer[], integer[], integer[], integer[], integer[], "
    "text[], text[])",
    "work_complete(uuid, integer, jsonb[], bytea[], integer[], integer[], integer[], integer[], "
    "text[], text[], double precision)",
)


def upgrade() -> None:
    """Add and drop; short, and blocks nothing for long."""
    schema = str(context.get_context().opts["vector_schema"]).replace('"', '""')
    op.execute("set local lock_timeout = '10s'")
    for statement in _TABLES:
        op.execute(statement.replace("{vector}", f'"{schema}".vector'))
    for signature in _REPLACED:
        op.execute(f"drop function if exists _pgstack.{signature}")
