-- Family: bridge, the worker's side: 100_bridge.sql tells the whole way.
-- Callers: pgstack/worker.
-- Errors: none.

create or replace function _pgstack.request_claim(worker uuid, wanted integer)
returns table (id bigint, kind text, payload jsonb, asker name, seconds_left double precision)
language sql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
  with due as materialized (
    select r.id
    from _pgstack.request as r
    where r.deadline > clock_timestamp()
      and (r.state = 'posted' or (r.state = 'leased' and r.leased_until < clock_timestamp()))
    order by r.id
    limit wanted
    for update skip locked
  )
  update _pgstack.request as r
  set state = 'leased', worker = request_claim.worker,
    leased_until = clock_timestamp() + interval '5 seconds'
  from due as d
  where r.id = d.id
  returning r.id, r.kind, r.payload, r.asker, extract(epoch from r.deadline - clock_timestamp());
$$;

comment on function _pgstack.request_claim(uuid, integer) is
'Hands questions to a worker, oldest first, under a lease of five seconds that request_renew extends.';

create or replace function _pgstack.request_renew(worker uuid, ids bigint[])
returns setof bigint
language sql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
  with askers as materialized (
    select a.pid from pg_stat_activity as a where a.datid is not null
  ),
  kept as (
    update _pgstack.request as r
    set leased_until = clock_timestamp() + interval '5 seconds'
    where r.id = any (ids) and r.worker = request_renew.worker and r.state = 'leased'
      and r.deadline > clock_timestamp()
      and exists (select from askers as a where a.pid = r.asker_pid)
    returning r.id
  )
  select k.id from kept as k;
$$;

comment on function _pgstack.request_renew(uuid, bigint[]) is
'Extends the leases of questions being answered. Returns those still wanted: the rest were cancelled, timed out, or their session is gone.';

create or replace function _pgstack.request_complete(
  worker uuid, id bigint, answer jsonb, embeddings text[]
)
returns boolean
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _request _pgstack.request;
begin
  update _pgstack.request as r
  set state = 'done', answer = request_complete.answer, embeddings = request_complete.embeddings
  where r.id = request_complete.id and r.worker = request_complete.worker and r.state = 'leased'
  returning r.* into _request;
  if not found then
    return false;
  end if;
  if _request.kind = 'embed' and (_request.payload ->> 'remember')::boolean then
    perform _pgstack.query_cache_put(_request);
  end if;
  return true;
end;
$$;

comment on function _pgstack.request_complete(uuid, bigint, jsonb, text[]) is
'Stores the answer to a question. False: nobody waits for it any more.';

create or replace function _pgstack.request_fail(
  worker uuid, id bigint, sqlstate text, message text, hint text
)
returns boolean
language sql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
  with failed as (
    update _pgstack.request as r
    set state = 'failed', sqlstate = request_fail.sqlstate,
      message = request_fail.message, hint = request_fail.hint
    where r.id = request_fail.id and r.worker = request_fail.worker and r.state = 'leased'
    returning r.id
  )
  select exists (select from failed);
$$;

comment on function _pgstack.request_fail(uuid, bigint, text, text, text) is
'Stores why a question has no answer. False: nobody waits for it any more.';

-- What sessions left behind that died before they read their answer.
create or replace function _pgstack.request_sweep()
returns integer
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _swept integer;
begin
  with askers as materialized (
    select a.pid from pg_stat_activity as a where a.datid is not null
  )
  delete from _pgstack.request as r
  where r.deadline < clock_timestamp() - interval '10 seconds'
    or not exists (select from askers as a where a.pid = r.asker_pid);
  get diagnostics _swept = row_count;
  delete from _pgstack.query_cache as c
  where c.created_at < now() - _pgstack.setting_interval('query_cache_ttl')
    or (c.asker, c.model, c.input_type, c.digest) in (
      select o.asker, o.model, o.input_type, o.digest
      from _pgstack.query_cache as o
      order by o.created_at desc
      offset _pgstack.setting_value('query_cache_size')::bigint
    );
  delete from _pgstack.worker as w where w.seen_at < now() - interval '1 day';
  return _swept;
end;
$$;

comment on function _pgstack.request_sweep() is
'Deletes questions nobody waits for, query vectors past their age or number, and workers not seen for a day. Workers call it every few seconds.';
