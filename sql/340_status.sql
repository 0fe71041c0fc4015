-- Family: status.  What a DBA looks at; 342, 344 and 346 hold ledger, errors and workers.
-- Callers: people, pgstack/vectorizers.py, the CLI.
-- Errors: PS001 unknown vectorizer, PS007 bad argument.

-- What is left of a rate after some time without work: half after 21 s, nothing after 10 min.
create or replace function _pgstack.decay(since timestamptz)
returns double precision
language sql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
  select exp(-least(greatest(
    extract(epoch from clock_timestamp() - decay.since)::double precision, 0
  ), 600) / 30);
$$;

comment on function _pgstack.decay(timestamptz) is
'The factor by which a rate measured then has faded by now: exp(-seconds / 30).';

-- Queues are counted only for callers who may read them; others see NULL.  A key may be
-- queued several times: telling keys apart would take seconds in a queue of millions,
-- counting its rows takes 30 ms a million.
create or replace function _pgstack.queue_status(plan _pgstack.vectorizer_plan)
returns table (pending bigint, oldest timestamptz)
language plpgsql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
begin
  if _pgstack.find_relation(plan.queue) is null
    or not has_table_privilege(_pgstack.find_relation(plan.queue), 'select')
    or not has_table_privilege('_pgstack.work', 'select')
  then
    return query select null::bigint, null::timestamptz;
    return;
  end if;
  return query execute format(
    $sql$
    select
      case when q.entries <= 10000
        then (select count(*) from (select distinct %1$s from %2$s as r) as d)
        else q.entries
      end,
      q.oldest
    from (select count(*) as entries, min(r.queued_at) as oldest from %2$s as r) as q
    $sql$,
    plan.key_list, plan.queue
  );
end;
$$;

comment on function _pgstack.queue_status(_pgstack.vectorizer_plan) is
'How many keys are queued, and since when the oldest. Beyond 10,000 a key that is queued twice counts twice.';

-- Files that a worker has yet to read are behind as well: their text is not known, let alone embedded.
create or replace function _pgstack.documents_pending(relation oid, most bigint default null)
returns bigint
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
-- A table that somebody has locked must not keep who looks at all vectorizers waiting.
set lock_timeout = '200ms'
as $$
declare
  _table text;
  _pending bigint;
begin
  select format('pgstack_collections.%I', t.name) into _table
  from _pgstack.collection_tables() as t
  where t.relation = documents_pending.relation and has_table_privilege(t.relation, 'select')
    and has_schema_privilege('pgstack_collections', 'usage');
  if found then
    execute format(
      'select count(*) from (select from %s as d where d.status = ''pending'' limit $1) as p', _table
    ) into _pending using documents_pending.most;
  end if;
  return coalesce(_pending, 0);
exception
  when undefined_table then return 0;
  when lock_not_available then return null;
end;
$$;

comment on function _pgstack.documents_pending(oid, bigint) is
'How many documents of a collection, that the caller may read, wait for a worker to read their file; 0 for other tables, NULL while somebody has the table locked. most: to count so many is enough.';

create or replace function _pgstack.index_status(plan _pgstack.vectorizer_plan)
returns text
language sql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
  select string_agg(
    x.method || case when x.valid then '' else ' (unfinished)' end, ', ' order by x.method
  )
  from _pgstack.vector_indexes(plan) as x;
$$;

comment on function _pgstack.index_status(_pgstack.vectorizer_plan) is
'The vector indexes a vectorizer has, NULL for none.';

create or replace function _pgstack.work_status(vectorizer_id integer)
returns table (leased bigint, retrying bigint, failed bigint)
language plpgsql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
begin
  if not has_table_privilege('_pgstack.work', 'select') then
    return query select null::bigint, null::bigint, null::bigint;
    return;
  end if;
  return query
  select
    count(*) filter (where w.state = 'leased'),
    count(*) filter (where w.state = 'waiting' and w.last_error is not null),
    count(*) filter (where w.state = 'failed')
  from _pgstack.work as w
  where w.vectorizer_id = work_status.vectorizer_id;
end;
$$;

comment on function _pgstack.work_status(integer) is
'How many rows of a vectorizer are in workers'' hands, wait for another try, or were set aside.';

create or replace function _pgstack.live_workers()
returns setof uuid
language sql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
  select w.id
  from _pgstack.worker as w
  join pg_locks as l on l.pid = w.pid
  where l.locktype = 'advisory' and l.objsubid = 1 and l.granted
    and (l.classid::bigint << 32) | l.objid::bigint = _pgstack.worker_lock(w.id);
$$;

comment on function _pgstack.live_workers() is
'The workers that are connected to this database.';

-- One worker that can still use the model is enough: it may reach what others cannot.
create or replace function _pgstack.model_problem(plan _pgstack.vectorizer_plan)
returns text
language plpgsql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
begin
  if not has_table_privilege('_pgstack.breaker', 'select')
    or not has_table_privilege('_pgstack.worker', 'select')
  then
    return null;
  end if;
  return (
    select format(
      '%s; tried again in %s s',
      (array_agg(b.message order by b.retry_at))[1],
      greatest(0, ceil(extract(epoch from min(b.retry_at) - clock_timestamp())))
    )
    from _pgstack.live_workers() as l (id)
    join _pgstack.worker as w on w.id = l.id
    left join _pgstack.breaker as b on b.worker = w.id and b.model = plan.model
      and b.model_server = coalesce(plan.base_url, w.model_server)
    having count(*) > 0 and count(*) = count(b.worker)
  );
end;
$$;

comment on function _pgstack.model_problem(_pgstack.vectorizer_plan) is
'Why every worker leaves the vectorizer''s model alone, and until when; NULL: one uses it.';

-- A model server may quote the text it refused, and everybody may look at the status.
create or replace function _pgstack.noted_problem(vectorizer_id integer)
returns table (problem text, last_error text)
language plpgsql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
begin
  if not has_column_privilege('_pgstack.vectorizer', 'last_error', 'select') then
    return query select null::text, null::text;
    return;
  end if;
  return query
  select v.problem, v.last_error
  from (select noted_problem.vectorizer_id as id) as x
  left join _pgstack.vectorizer as v on v.vectorizer_id = x.id;
end;
$$;

comment on function _pgstack.noted_problem(integer) is
'What workers noted of a vectorizer, one row; NULLs for who may not read it.';

-- A function between the view and the private tables, so that these can change under
-- views that people build on pgstack.vectorizer_status.
create or replace function _pgstack.vectorizer_status()
returns table (
  id integer, name text, source text, target text, view text, model text, dimensions integer,
  state text, pending bigint, leased bigint, retrying bigint, failed bigint, lag interval,
  embedded_rows bigint, embedded_chunks bigint,
  rows_per_second double precision, tokens_per_second double precision,
  index text, last_success_at timestamptz, last_error_at timestamptz, last_error text
)
language sql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
  select
    p.id, p.name, p.source, p.target,
    case when p.has_table then format(
      '%I.%I', p.config -> 'destination' ->> 'view_schema', p.config -> 'destination' ->> 'view_name'
    ) end,
    p.model, p.dimensions,
    case
      when p.disabled then 'paused'
      when o.problem is not null then 'blocked'
      when q.pending is null then 'unknown'
      when q.pending + e.pending = 0 then 'fresh'
      when not _pgstack.worker_present() then 'no worker'
      when m.problem is not null then 'model down'
      else 'working'
    end,
    q.pending + e.pending, w.leased, w.retrying, w.failed, clock_timestamp() - q.oldest,
    coalesce(v.embedded_rows, 0), coalesce(v.embedded_chunks, 0),
    round((v.rows_rate * d.left)::numeric, 1)::double precision,
    round((v.tokens_rate * d.left)::numeric, 1)::double precision,
    _pgstack.index_status(p), v.last_success_at, v.last_error_at,
    coalesce(o.problem, m.problem, n.last_error)
  from _pgstack.vectorizer_plan as p
  left join _pgstack.vectorizer as v on v.vectorizer_id = p.id
  cross join lateral _pgstack.queue_status(p) as q
  cross join lateral (
    select coalesce(_pgstack.documents_pending(_pgstack.find_relation(p.source)), 0) as pending
  ) as e
  cross join lateral _pgstack.work_status(p.id) as w
  cross join lateral _pgstack.noted_problem(p.id) as n
  cross join lateral (select coalesce(_pgstack.vectorizer_problem(p), n.problem) as problem) as o
  cross join lateral (
    select case when q.pending > 0 then _pgstack.model_problem(p) end as problem
  ) as m
  cross join lateral (select _pgstack.decay(v.rated_at) as left) as d;
$$;

comment on function _pgstack.vectorizer_status() is
'The rows of pgstack.vectorizer_status.';

create or replace view pgstack.vectorizer_status
with (security_invoker = true)
as
select * from _pgstack.vectorizer_status();

comment on view pgstack.vectorizer_status is
'One row a vectorizer: how far it is behind, what failed, how fast it goes. Counts are NULL for callers who may not read the queue and _pgstack.work.';
comment on column pgstack.vectorizer_status.id is 'Its id in ai.vectorizer.';
comment on column pgstack.vectorizer_status.name is 'Its name, as search() and the other verbs take it.';
comment on column pgstack.vectorizer_status.source is 'The table whose text it embeds.';
comment on column pgstack.vectorizer_status.target is 'The table that holds the vectors.';
comment on column pgstack.vectorizer_status.view is 'The view that joins chunks and source rows; NULL when the vectors lie in the source.';
comment on column pgstack.vectorizer_status.model is 'The embedding model.';
comment on column pgstack.vectorizer_status.dimensions is 'Length of its vectors.';
comment on column pgstack.vectorizer_status.state is 'fresh, working, paused, no worker, model down or blocked (see last_error), or unknown to this role.';
comment on column pgstack.vectorizer_status.pending is 'Rows queued, those in workers'' hands included, and in a collection the files yet to be read. Beyond 10,000 a row that changed twice may count twice.';
comment on column pgstack.vectorizer_status.leased is 'Rows in workers'' hands.';
comment on column pgstack.vectorizer_status.retrying is 'Rows waiting for another try: see pgstack.vectorizer_errors.';
comment on column pgstack.vectorizer_status.failed is 'Rows set aside after too many tries: pgstack.retry_vectorizer(name) queues them again.';
comment on column pgstack.vectorizer_status.lag is 'How long the oldest queued row has been waiting.';
comment on column pgstack.vectorizer_status.embedded_rows is 'Source rows embedded so far.';
comment on column pgstack.vectorizer_status.embedded_chunks is 'Chunks embedded so far.';
comment on column pgstack.vectorizer_status.rows_per_second is 'Source rows embedded a second of late: what is 30 s old counts a third.';
comment on column pgstack.vectorizer_status.tokens_per_second is 'Tokens embedded a second of late.';
comment on column pgstack.vectorizer_status.index is 'Its vector indexes, NULL for none.';
comment on column pgstack.vectorizer_status.last_success_at is 'When rows were last embedded.';
comment on column pgstack.vectorizer_status.last_error_at is 'When something last went wrong.';
comment on column pgstack.vectorizer_status.last_error is 'What keeps it from running, or else what last went wrong; NULL for roles that may not select from _pgstack.vectorizer.';

-- For a row that is visible: nobody else's are while they are in progress.  Savepoints, and blocks
-- of PL/pgSQL that catch errors, have ids of their own.
create or replace function _pgstack.is_own(writer xid)
returns boolean
language sql stable strict
security invoker
set search_path = pg_catalog, pg_temp
as $$
  select pg_xact_status(
    (s.top - ((s.top - writer::text::bigint + 2147483648) & 4294967295) + 2147483648)::text::xid8
  ) = 'in progress'
  from (select pg_current_xact_id_if_assigned()::text::bigint as top) as s;
$$;

comment on function _pgstack.is_own(xid) is
'Whether this transaction wrote a visible row that has this xmin. For those alone that have age(xmin) <= 0: not older than this transaction.';

create or replace function _pgstack.own_documents_pending(relation oid)
returns boolean
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _found boolean := false;
begin
  if _pgstack.documents_pending(own_documents_pending.relation, 1) > 0 then
    execute format(
      'select exists (select from %s as d where d.status = ''pending'' '
      'and age(d.xmin) <= 0 and _pgstack.is_own(d.xmin))',
      own_documents_pending.relation::regclass
    ) into _found;
  end if;
  return _found;
end;
$$;

comment on function _pgstack.own_documents_pending(oid) is
'Whether this transaction itself put files into a collection that a worker has yet to read.';

create or replace function pgstack.wait_until_fresh(name text, timeout interval default '30s')
returns boolean
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _plan _pgstack.vectorizer_plan := _pgstack.vectorizer_plan(wait_until_fresh.name);
  _source oid := _pgstack.find_relation(_plan.source);
  _until timestamptz := clock_timestamp() + wait_until_fresh.timeout;
  _stale boolean;
begin
  perform _pgstack.require('timeout', wait_until_fresh.timeout);
  if not has_table_privilege(_plan.queue, 'select') then
    raise exception 'the role may not read what "%" still has to do', _plan.name
      using errcode = 'PS014', hint = format('grant select on %s to %I;', _plan.queue, current_user);
  end if;
  if current_setting('transaction_isolation') <> 'read committed' then
    raise exception 'a % transaction cannot see what a worker writes meanwhile',
      current_setting('transaction_isolation')
      using errcode = 'PS007', hint = 'Call it in a transaction of its own.';
  end if;
  execute format(
    'select exists (select from %s as r where age(r.xmin) <= 0 and _pgstack.is_own(r.xmin))',
    _plan.queue
  ) into _stale;
  if _stale or _pgstack.own_documents_pending(_source) then
    raise exception 'rows that this transaction changed cannot be embedded before it commits'
      using errcode = 'PS007', hint = 'commit; then wait.';
  end if;
  loop
    -- Files first: what is read is queued in the same transaction.
    _stale := coalesce(_pgstack.documents_pending(_source, 1), 1) > 0;
    if not _stale then
      execute format('select exists (select from %s)', _plan.queue) into _stale;
    end if;
    exit when not _stale or clock_timestamp() >= _until;
    if not _pgstack.worker_present() and clock_timestamp() > _until - timeout + interval '1 second' then
      raise exception 'no worker is connected to this database, so "%" stays behind', _plan.name
        using errcode = 'PS003',
        hint = 'Start one: pgstack worker -d URL   (embedded stack: pgstack up)';
    end if;
    perform pg_sleep(0.02);
  end loop;
  return not _stale;
end;
$$;

comment on function pgstack.wait_until_fresh(text, interval) is
'Waits until every change committed so far is embedded (or its rows are set aside as failed).
name: a vectorizer, or a collection, whose files must be read as well. timeout: how long at most, default 30 s.
Returns true when fresh, false when time ran out: see pgstack.vectorizer_status.
Raises PS001 unknown vectorizer, PS003 no worker, PS007 in a transaction that cannot see others'' commits, PS014 not allowed to read the queue.';
