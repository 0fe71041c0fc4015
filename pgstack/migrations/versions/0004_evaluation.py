"""Judged sets and evaluation runs: whose they are, and nobody else's.

Sets belong to the role that made them and to the members of that role; a run belongs to
the role that ran it, because it holds ids of rows which only that role may be allowed to
see.  Everybody may write here: row-level security says what.
"""

from __future__ import annotations

from alembic import context, op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_TABLES = (
    # doc_column: the column of the source that holds the judged id; null: its key.
    """
    create table _pgstack.eval_set (
      id bigint generated always as identity primary key,
      owner name not null default current_user,
      name text not null,
      description text,
      origin text not null default 'hand',
      doc_column name,
      created_at timestamptz not null default now(),
      unique (owner, name)
    )
    """,
    """
    create table _pgstack.eval_query (
      set_id bigint not null references _pgstack.eval_set (id) on delete cascade,
      query_id text not null,
      text text not null,
      primary key (set_id, query_id)
    )
    """,
    """
    create table _pgstack.eval_judgment (
      set_id bigint not null,
      query_id text not null,
      doc_id text not null,
      grade integer not null,
      primary key (set_id, query_id, doc_id),
      foreign key (set_id, query_id) references _pgstack.eval_query (set_id, query_id)
        on delete cascade
    )
    """,
    # Vectors of queries, so that a second run of a set asks no model.
    """
    create table _pgstack.eval_vector (
      set_id bigint not null,
      query_id text not null,
      model text not null,
      embedding {vector} not null,
      created_at timestamptz not null default now(),
      primary key (set_id, query_id, model),
      foreign key (set_id, query_id) references _pgstack.eval_query (set_id, query_id)
        on delete cascade
    )
    """,
    # queries: how many were judged as it began.  judged: a digest of the judgements.
    """
    create table _pgstack.eval_run (
      id bigint generated always as identity primary key,
      set_id bigint not null references _pgstack.eval_set (id) on delete cascade,
      owner name not null default current_user,
      label text,
      vectorizer text not null,
      model text,
      mode text not null,
      k integer not null,
      filter jsonb,
      options jsonb not null default '{}',
      doc_column name,
      seed bigint not null,
      config jsonb not null,
      judged text not null,
      queries integer not null,
      started_at timestamptz not null default clock_timestamp(),
      finished_at timestamptz
    )
    """,
    "create index eval_run_set on _pgstack.eval_run (set_id)",
    """
    create table _pgstack.eval_search (
      run_id bigint not null references _pgstack.eval_run (id) on delete cascade,
      query_id text not null,
      found integer not null,
      milliseconds float8 not null,
      primary key (run_id, query_id)
    )
    """,
    """
    create table _pgstack.eval_result (
      run_id bigint not null references _pgstack.eval_run (id) on delete cascade,
      query_id text not null,
      rank integer not null,
      doc_id text not null,
      score float8,
      primary key (run_id, query_id, rank)
    )
    """,
    """
    create table _pgstack.eval_score (
      run_id bigint not null references _pgstack.eval_run (id) on delete cascade,
      metric text not null,
      query_id text not null,
      value float8 not null,
      primary key (run_id, metric, query_id)
    )
    """,
    """
    create table _pgstack.eval_metric (
      run_id bigint not null references _pgstack.eval_run (id) on delete cascade,
      metric text not null,
      value float8 not null,
      low float8 not null,
      high float8 not null,
      queries integer not null,
      primary key (run_id, metric)
    )
    """,
)

# By name, like everything of a role here: a role that is gone owns nothing.
_MINE = """
    exists (
      select from pg_catalog.pg_roles as r
      where r.rolname = owner and pg_catalog.pg_has_role(r.oid, 'usage')
    )
"""
_POLICIES = {
    "eval_set": _MINE,
    "eval_query": "set_id in (select s.id from _pgstack.eval_set as s)",
    "eval_judgment": "set_id in (select s.id from _pgstack.eval_set as s)",
    "eval_vector": "set_id in (select s.id from _pgstack.eval_set as s)",
    "eval_run": _MINE,
    "eval_search": "run_id in (select r.id from _pgstack.eval_run as r)",
    "eval_result": "run_id in (select r.id from _pgstack.eval_run as r)",
    "eval_score": "run_id in (select r.id from _pgstack.eval_run as r)",
    "eval_metric": "run_id in (select r.id from _pgstack.eval_run as r)",
}


def upgrade() -> None:
    """Create the tables and say whose rows are whose."""
    schema = str(context.get_context().opts["vector_schema"]).replace('"', '""')
    for statement in _TABLES:
        op.execute(statement.replace("{vector}", f'"{schema}".vector'))
    for table, mine in _POLICIES.items():
        op.execute(f"alter table _pgstack.{table} enable row level security")
        op.execute(f"create policy own_rows on _pgstack.{table} using ({mine})")
        op.execute(f"grant select, insert, update, delete on _pgstack.{table} to public")
