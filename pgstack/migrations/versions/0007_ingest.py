"""Ingestion: documents and their state, data sets, chunking of our own."""

from __future__ import annotations

from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

_TABLES: tuple[str, ...] = (
    # The tables that are collections.  No foreign key reaches a table that is dropped by hand.
    # extraction: how the worker reads files.  problem: what keeps it from this collection.
    """
    create table _pgstack.collection (
      relation regclass primary key,
      extraction jsonb not null default '{}',
      problem text,
      problem_at timestamptz
    )
    """,
    # A data set on its way into a table.  place, line: where to go on (pgstack/datasets/);
    # consumed: bytes of the file read so far; plan: how the file is read.
    """
    create table _pgstack.dataset_load (
      id bigint generated always as identity primary key,
      owner name not null default current_user,
      target text not null,
      relation oid not null,
      source text not null,
      identity text not null,
      mode text not null check (mode in ('create', 'append', 'replace')),
      plan jsonb not null,
      state text not null default 'loading' check (state in ('loading', 'done', 'failed')),
      bytes bigint not null,
      consumed bigint not null default 0,
      place bigint not null,
      line bigint not null,
      rows bigint not null default 0,
      rejects bigint not null default 0,
      error text,
      started_at timestamptz not null default clock_timestamp(),
      updated_at timestamptz not null default clock_timestamp(),
      finished_at timestamptz
    )
    """,
    "create index dataset_load_target on _pgstack.dataset_load (target, source)",
    """
    create table _pgstack.dataset_reject (
      load_id bigint not null references _pgstack.dataset_load on delete cascade,
      line bigint not null,
      "column" text,
      reason text not null,
      raw text not null
    )
    """,
    "create index dataset_reject_load on _pgstack.dataset_reject (load_id, line)",
    # They hold pieces of files: see below.
    "alter table _pgstack.dataset_reject alter raw set statistics 0, alter reason set statistics 0",
    # What pgstack.load_dataset() asked the worker for.  Nobody but the owner may write here: the
    # worker reads what it says.
    """
    create table _pgstack.load_request (
      id bigint generated always as identity primary key,
      source text not null,
      target text not null,
      options jsonb not null,
      state text not null default 'requested'
        check (state in ('requested', 'loading', 'done', 'failed')),
      worker uuid,
      attempts integer not null default 0,
      load_id bigint,
      error text,
      requested_by name not null default current_user,
      requested_at timestamptz not null default clock_timestamp(),
      finished_at timestamptz
    )
    """,
    "create index load_request_open on _pgstack.load_request (id) "
    "where state in ('requested', 'loading')",
    # What a model server said may quote a text, and statistics of a table that is empty by now
    # stay for good: of these columns there are none.  See pgstack.forget().
    "alter table _pgstack.work alter last_error set statistics 0",
    "alter table _pgstack.vectorizer alter last_error set statistics 0, "
    "alter problem set statistics 0",
    """
    do $$
    begin
      alter table ai._vectorizer_errors
        alter message set statistics 0, alter details set statistics 0;
    exception
      when insufficient_privilege then null;
    end;
    $$
    """,
)

# By name, as in revision 0004: a role that is gone owns nothing.
_POLICIES = {
    "dataset_load": """
    exists (
      select from pg_catalog.pg_roles as r
      where r.rolname = owner and pg_catalog.pg_has_role(r.oid, 'usage')
    )
    """,
    "dataset_reject": "load_id in (select l.id from _pgstack.dataset_load as l)",
}

# Tables of collections made before, all with a vectorizer, get the columns of today's: see
# _pgstack.create_collection_table().  Who added their documents is not known.
_COLLECTIONS = """
do $$
declare
  _relation regclass;
  _unique name;
begin
  for _relation, _unique in
    select c.oid, k.conname
    from pg_class as c
    join pg_namespace as n on n.oid = c.relnamespace and n.nspname = 'pgstack_collections'
    join pg_attribute as a on a.attrelid = c.oid and a.attname = 'uri' and not a.attisdropped
    left join pg_constraint as k
      on k.conrelid = c.oid and k.contype = 'u' and k.conkey = array[a.attnum]
    where c.relkind = 'r'
      and exists (
        select from ai.vectorizer as v
        where v.source_schema = n.nspname and v.source_table = c.relname
      )
      and 3 = (
        select count(*) from pg_attribute as o
        where o.attrelid = c.oid and not o.attisdropped
          and o.attname in ('content', 'content_hash', 'ingested_at')
      )
  loop
    execute format(
      $sql$
      alter table %s
        alter column content drop not null,
        alter column content_hash drop not null,
        add column source bytea,
        add column source_hash bytea,
        add column source_bytes bigint,
        add column source_modified timestamptz,
        add column parts jsonb,
        add column pages integer,
        add column language text,
        add column owner name,
        add column tenant text,
        add column titled boolean not null default true,
        add column status text not null default 'ready'
          check (status in ('ready', 'pending', 'failed')),
        add column error text,
        add column worker uuid,
        add column attempts integer not null default 0,
        add unique nulls not distinct (uri, tenant),
        add check (status <> 'ready' or content is not null),
        add check (status <> 'pending' or source is not null)
      $sql$, _relation
    );
    execute format(
      $sql$
      alter table %s
        alter column owner set default current_user,
        alter column tenant set default nullif(current_setting('pgstack.tenant', true), ''),
        alter column titled set default false
      $sql$, _relation
    );
    if _unique is not null then
      execute format('alter table %s drop constraint %I', _relation, _unique);
    end if;
    execute format('create index on %s (attempts, id) where status = ''pending''', _relation);
    execute format(
      'comment on table %s is ''Documents ingested by pgstack; see pgstack.documents.''', _relation
    );
    insert into _pgstack.collection (relation) values (_relation);
  end loop;
end;
$$
"""

# By exact types, or both forms would remain.
_REPLACED: tuple[str, ...] = (
    "pgstack.create_collection(text, text, boolean, integer)",
    "pgstack.ingest_document(text, text, text, text, text, jsonb)",
    "pgstack.create_vectorizer(regclass, name[], text, text, integer, text, integer, integer, text,"
    " name, name, text, boolean, boolean, text)",
    "pgstack.create_vectorizer(regclass, name, text, text, integer, text, integer, integer, text,"
    " name, name, text, boolean, boolean, text)",
    "_pgstack.chunking_config(text, integer, integer)",
    "pgstack.chunk(text, text, integer, integer, text[], boolean)",
    "_pgstack.check_chunk_arguments(text, integer, integer, text[], boolean)",
    "_pgstack.strip_chunk(bytea)",
    "_pgstack.chunk_recursive(text, integer, integer, text[], boolean)",
    "_pgstack.chunk_character(text, integer, integer, text, boolean)",
)


def upgrade() -> None:
    """Add and drop; short, and blocks nothing for long."""
    op.execute("set local lock_timeout = '10s'")
    for statement in _TABLES:
        op.execute(statement)
    for table, mine in _POLICIES.items():
        op.execute(f"alter table _pgstack.{table} enable row level security")
        op.execute(f"create policy own_rows on _pgstack.{table} using ({mine})")
        op.execute(f"grant select, insert, update, delete on _pgstack.{table} to public")
    op.execute(_COLLECTIONS)
    for signature in _REPLACED:
        op.execute(f"drop function if exists {signature}")
