-- Family: workers come and go: presence, leases, what the dead leave behind.
-- Callers: pgstack/worker/app.py.
-- Errors: none.

create or replace function _pgstack.worker_start(
  worker uuid, version text, model_server text
)
returns void
language sql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
  select pg_advisory_lock(_pgstack.worker_lock(worker_start.worker));
  insert into _pgstack.worker (id, pid, version, model_server)
  values (worker_start.worker, pg_backend_pid(), worker_start.version, worker_start.model_server);
$$;

comment on function _pgstack.worker_start(uuid, text, text) is
'Announces a worker for as long as this connection lasts.';

create or replace function _pgstack.worker_stop(worker uuid)
returns void
language sql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
  delete from _pgstack.work as w
  where w.worker = worker_stop.worker and w.state = 'leased' and w.attempts = 0;
  update _pgstack.work as w
  set state = 'waiting', due_at = clock_timestamp(), changed_at = clock_timestamp()
  where w.worker = worker_stop.worker and w.state = 'leased';
  update _pgstack.request as r
  set state = 'posted', worker = null, leased_until = null
  where r.worker = worker_stop.worker and r.state = 'leased';
  select pg_notify('pgstack_request', '');
  select pg_notify('pgstack_work', '');
  delete from _pgstack.breaker as b where b.worker = worker_stop.worker;
  delete from _pgstack.worker as w where w.id = worker_stop.worker;
$$;

comment on function _pgstack.worker_stop(uuid) is
'A worker''s farewell: what it holds goes back at once.';

-- Leases and pauses of keys that are no longer queued: the table was truncated meanwhile, or
-- two workers had a key in hand because the clock was set.  What was written in the future was
-- written before the clock was set back, and is overdue.
create or replace function _pgstack.work_sweep(id integer)
returns void
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _plan _pgstack.vectorizer_plan := _pgstack.vectorizer_plan(work_sweep.id);
begin
  if to_regclass(_plan.queue) is null then
    return;
  end if;
  execute format(
    $sql$
    delete from _pgstack.work as w
    where w.vectorizer_id = $1 and w.state <> 'failed'
      and (w.due_at < clock_timestamp() or w.changed_at > clock_timestamp())
      and (w.state = 'waiting' or (w.worker = any ($2)) is not true)
      and not exists (
        select from %s as r, jsonb_to_record(w.key) as k (%s) where %s
      )
    $sql$,
    _plan.queue, _plan.key_record, _plan.key_match
  ) using work_sweep.id, _pgstack.lease_holders();
end;
$$;

comment on function _pgstack.work_sweep(integer) is
'Forgets overdue leases and pauses of keys that are not queued any more.';

-- Workers that died: their connection is gone, so what they hold goes back now and not
-- when the lease ends.
create or replace function _pgstack.worker_sweep()
returns integer
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _dead uuid;
  _swept integer := 0;
begin
  for _dead in
    select w.id
    from _pgstack.worker as w
    where not exists (
      select from pg_locks as l
      where l.pid = w.pid and l.locktype = 'advisory' and l.objsubid = 1
        and (l.classid::bigint << 32) | l.objid::bigint = _pgstack.worker_lock(w.id)
    )
    for update skip locked
  loop
    perform _pgstack.worker_stop(_dead);
    _swept := _swept + 1;
  end loop;
  -- A worker may have claimed rows of a vectorizer that was being dropped: a foreign key would
  -- be looked up, and its row be locked, for each row of each claim.
  delete from _pgstack.work as w
  where not exists (select from ai.vectorizer as v where v.id = w.vectorizer_id);
  perform _pgstack.work_sweep(o.vectorizer_id)
  from (
    select distinct w.vectorizer_id
    from _pgstack.work as w
    where w.state <> 'failed'
      and (w.due_at < clock_timestamp() or w.changed_at > clock_timestamp())
  ) as o;
  delete from _pgstack.embedding_cache as c
  where c.digest in (
    select o.digest from _pgstack.embedding_cache as o
    order by o.created_at desc
    offset _pgstack.setting_value('embedding_cache_size')::bigint
    for update skip locked
  );
  return _swept;
end;
$$;

comment on function _pgstack.worker_sweep() is
'Takes back what dead workers hold and forgets what is no longer queued. Returns how many workers were dead.';

-- A breaker: the model at fault rests, in this worker, while all others go on.
create or replace function _pgstack.breaker_open(
  worker uuid, model_server text, model text, model_key text, message text,
  seconds double precision
)
returns boolean
language sql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
  insert into _pgstack.breaker as b (worker, model_server, model, retry_at, message)
  values (
    breaker_open.worker, breaker_open.model_server, breaker_open.model,
    clock_timestamp() + breaker_open.seconds * interval '1 second', breaker_open.message
  )
  on conflict on constraint breaker_pkey do update
  set retry_at = excluded.retry_at, message = excluded.message;
  select exists (
    select from _pgstack.vectorizer_plan as p
    where not p.disabled
      and _pgstack.model_key(p.base_url, p.model, p.options, p.keep_alive) = breaker_open.model_key
  );
$$;

comment on function _pgstack.breaker_open(uuid, text, text, text, text, double precision) is
'Notes that a worker leaves a model alone for so many seconds. False: no vectorizer uses the model that way any more.';

create or replace function _pgstack.breaker_close(worker uuid, model_server text, model text)
returns void
language sql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
  delete from _pgstack.breaker as b
  where b.worker = breaker_close.worker and b.model_server = breaker_close.model_server
    and b.model = breaker_close.model;
$$;

comment on function _pgstack.breaker_close(uuid, text, text) is
'Notes that a worker uses a model again, or needs it no more.';

-- When a worker with nothing to do should look again, in seconds; NULL: when it is told.
create or replace function _pgstack.work_next_due()
returns double precision
language sql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
  select extract(epoch from min(w.due_at) - clock_timestamp())::double precision
  from _pgstack.work as w
  where w.state = 'waiting' and w.due_at > clock_timestamp()
    and w.changed_at <= clock_timestamp();
$$;

comment on function _pgstack.work_next_due() is
'Seconds until the next waiting row may be tried.';

-- What is left to do, for worker --once: rows queued or in somebody's hands.
create or replace function _pgstack.work_left(names text[], given_up text[])
returns bigint
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _plan _pgstack.vectorizer_plan;
  _some boolean;
  _left bigint := 0;
begin
  for _plan in
    select p.*
    from _pgstack.vectorizer_plan as p
    where not p.disabled and (work_left.names is null or p.name = any (work_left.names))
      and _pgstack.model_key(p.base_url, p.model, p.options, p.keep_alive) <> all (work_left.given_up)
  loop
    if _pgstack.vectorizer_problem(_plan) is null and not exists (
      select from _pgstack.vectorizer as v where v.vectorizer_id = _plan.id and v.problem is not null
    ) then
      execute format('select exists (select from %s)', _plan.queue) into _some;
      _left := _left + _some::integer;
    end if;
  end loop;
  return _left;
end;
$$;

comment on function _pgstack.work_left(text[], text[]) is
'How many vectorizers that can run still have rows queued, those of the models given up left out.';
