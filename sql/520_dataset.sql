-- Family: data sets.  Reads and writes _pgstack.dataset_load and _pgstack.dataset_reject.
-- Callers: people, pgstack/datasets/.
-- Errors: PS001 unknown load, PS014 missing privilege, PS016 another process loads.
--
-- A load is a row.  With every block of rows that COPY writes into the table, in the same
-- transaction, the load's row says where in the file to go on.  So whoever dies when, no row is
-- lost and none is there twice.  A load belongs to the role that began it, and to its members:
-- row-level security (revision 0007) says so; everything here runs as the caller.

create or replace function _pgstack.dataset_begin(
  target text, relation oid, source text, identity text, mode text, plan jsonb, bytes bigint,
  place bigint, line bigint
)
returns bigint
language sql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
  insert into _pgstack.dataset_load
    (target, relation, source, identity, mode, plan, bytes, place, line)
  values (
    dataset_begin.target, dataset_begin.relation, dataset_begin.source, dataset_begin.identity,
    dataset_begin.mode, dataset_begin.plan, dataset_begin.bytes, dataset_begin.place,
    dataset_begin.line
  )
  returning id;
$$;

comment on function _pgstack.dataset_begin(text, oid, text, text, text, jsonb, bigint, bigint, bigint) is
'Writes down that a load begins; returns its number.';

-- The latest one of the caller's own: what another role began, that role goes on with.
create or replace function _pgstack.dataset_open(target text, source text)
returns table (
  id bigint, relation oid, identity text, mode text, plan jsonb, place bigint, line bigint,
  rows bigint, rejects bigint
)
language sql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
  select l.id, l.relation, l.identity, l.mode, l.plan, l.place, l.line, l.rows, l.rejects
  from _pgstack.dataset_load as l
  where l.target = dataset_open.target and l.source = dataset_open.source
    and l.owner = current_user and l.state <> 'done' and l.mode <> 'replace'
  order by l.id desc
  limit 1;
$$;

comment on function _pgstack.dataset_open(text, text) is
'The load of a file into a table that is not done: where it stands.';

-- For the session: the lock of a client that was killed goes as soon as PostgreSQL notices.
create or replace function _pgstack.dataset_lock(load bigint)
returns void
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
set lock_timeout = '10s'
as $$
begin
  perform pg_advisory_lock(hashtextextended('pgstack dataset load', dataset_lock.load));
exception
  when lock_not_available then
    raise exception 'another process is loading this file into this table'
      using errcode = 'PS016', hint = 'select * from pgstack.dataset_loads;';
end;
$$;

comment on function _pgstack.dataset_lock(bigint) is
'Takes a load for this session; waits ten seconds for one that ends. Raises PS016.';

create or replace function _pgstack.dataset_unlock(load bigint)
returns void
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
begin
  perform pg_advisory_unlock(hashtextextended('pgstack dataset load', dataset_unlock.load));
end;
$$;

comment on function _pgstack.dataset_unlock(bigint) is
'Gives a load back.';

create or replace function _pgstack.dataset_step(
  load bigint, place bigint, line bigint, consumed bigint, rows bigint, rejects bigint
)
returns void
language sql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
  update _pgstack.dataset_load as l
  set place = dataset_step.place, line = dataset_step.line,
    consumed = dataset_step.consumed, rows = dataset_step.rows, rejects = dataset_step.rejects,
    state = 'loading', error = null, updated_at = clock_timestamp()
  where l.id = dataset_step.load;
$$;

comment on function _pgstack.dataset_step(bigint, bigint, bigint, bigint, bigint, bigint) is
'Writes down how far a load is, in the transaction of the rows that brought it there.';

create or replace function _pgstack.dataset_reject(
  load bigint, lines bigint[], columns text[], reasons text[], raws text[]
)
returns void
language sql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
  insert into _pgstack.dataset_reject (load_id, line, "column", reason, raw)
  select dataset_reject.load, r.line, r.named, r.reason, r.raw
  from unnest(
    dataset_reject.lines, dataset_reject.columns, dataset_reject.reasons, dataset_reject.raws
  ) as r (line, named, reason, raw);
$$;

comment on function _pgstack.dataset_reject(bigint, bigint[], text[], text[], text[]) is
'Keeps records aside that did not become rows.';

-- A load that stopped in the middle of a block said which rejects it had met there: it meets
-- them again.
create or replace function _pgstack.dataset_resume(load bigint)
returns void
language sql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
  delete from _pgstack.dataset_reject as r
  using _pgstack.dataset_load as l
  where l.id = dataset_resume.load and r.load_id = l.id and r.line >= l.line;
$$;

comment on function _pgstack.dataset_resume(bigint) is
'Forgets the rejects behind the place where a load goes on.';

create or replace function _pgstack.dataset_end(load bigint, error text)
returns void
language sql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
  update _pgstack.dataset_load as l
  set state = case when dataset_end.error is null then 'done' else 'failed' end,
    consumed = case when dataset_end.error is null then l.bytes else l.consumed end,
    error = dataset_end.error,
    updated_at = clock_timestamp(), finished_at = clock_timestamp()
  where l.id = dataset_end.load;
$$;

comment on function _pgstack.dataset_end(bigint, text) is
'Writes down that a load is done, or why it failed.';

create or replace function pgstack.forget_dataset_load(load bigint)
returns void
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
begin
  delete from _pgstack.dataset_load as l where l.id = forget_dataset_load.load;
  if not found then
    raise exception 'there is no load %', coalesce(forget_dataset_load.load::text, 'NULL')
      using errcode = 'PS001', hint = 'select * from pgstack.dataset_loads;';
  end if;
end;
$$;

comment on function pgstack.forget_dataset_load(bigint) is
'Removes what is known of a load: its row in pgstack.dataset_loads and its rejects. The table that was loaded stays as it is; a load that was not done cannot go on.
load: a number in pgstack.dataset_loads. Raises PS001 unknown load.';

create or replace view pgstack.dataset_loads
with (security_invoker = true)
as
select
  l.id as load,
  l.target,
  l.source,
  l.mode,
  l.state,
  l.rows,
  l.rejects,
  l.consumed as bytes_read,
  l.bytes,
  l.error,
  l.owner,
  l.started_at,
  l.updated_at,
  l.finished_at
from _pgstack.dataset_load as l;

comment on view pgstack.dataset_loads is
'Data sets that were loaded into tables, or are being loaded; each role sees those that it or a role of which it is a member began.';
comment on column pgstack.dataset_loads.load is 'Number of the load.';
comment on column pgstack.dataset_loads.target is 'The table, as SQL writes it.';
comment on column pgstack.dataset_loads.source is 'The file or URL.';
comment on column pgstack.dataset_loads.mode is 'create, append or replace.';
comment on column pgstack.dataset_loads.state is 'loading (or broken off: updated_at tells), done, or failed. What is not done, the same command goes on with.';
comment on column pgstack.dataset_loads.rows is 'Rows in the table so far.';
comment on column pgstack.dataset_loads.rejects is 'Records that were kept aside: see pgstack.dataset_rejects.';
comment on column pgstack.dataset_loads.bytes_read is 'Bytes of the file read so far.';
comment on column pgstack.dataset_loads.bytes is 'Size of the file in bytes, as it is stored.';
comment on column pgstack.dataset_loads.error is 'Why it failed.';
comment on column pgstack.dataset_loads.owner is 'The role that began it.';
comment on column pgstack.dataset_loads.started_at is 'When it began.';
comment on column pgstack.dataset_loads.updated_at is 'When its last block was committed.';
comment on column pgstack.dataset_loads.finished_at is 'When it was done, or failed.';

create or replace view pgstack.dataset_rejects
with (security_invoker = true)
as
select
  r.load_id as load,
  r.line,
  r."column",
  r.reason,
  r.raw
from _pgstack.dataset_reject as r;

comment on view pgstack.dataset_rejects is
'Records of data sets that did not become rows, of the loads in pgstack.dataset_loads.';
comment on column pgstack.dataset_rejects.load is 'Number of the load.';
comment on column pgstack.dataset_rejects.line is 'The line of the file where the record begins, from 1; in a Parquet file the number of the row.';
comment on column pgstack.dataset_rejects."column" is 'The column whose value did not fit; NULL where the whole record did not.';
comment on column pgstack.dataset_rejects.reason is 'What was wrong.';
comment on column pgstack.dataset_rejects.raw is 'The record as it stands in the file, up to 10,000 characters; bytes that are no text as \xNN.';

-- They show each role its own.
grant select on pgstack.dataset_loads, pgstack.dataset_rejects to public;
