-- Family: workers, as people see them.
-- Callers: people.
-- Errors: none.

create or replace function _pgstack.worker_status()
returns table (
  id uuid, pid integer, version text, model_server text,
  started_at timestamptz, seen_at timestamptz, leased bigint, resting text[]
)
language plpgsql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
begin
  if not has_table_privilege('_pgstack.worker', 'select')
    or not has_table_privilege('_pgstack.work', 'select')
    or not has_table_privilege('_pgstack.breaker', 'select')
  then
    return;
  end if;
  return query
  select
    w.id, w.pid, w.version, w.model_server, w.started_at, w.seen_at,
    (select count(*) from _pgstack.work as h where h.worker = w.id and h.state = 'leased'),
    array(
      select b.model from _pgstack.breaker as b where b.worker = w.id order by b.model
    )
  from _pgstack.live_workers() as l (id)
  join _pgstack.worker as w on w.id = l.id;
end;
$$;

comment on function _pgstack.worker_status() is
'The rows of pgstack.workers; none for who may not read them.';

create or replace view pgstack.workers
with (security_invoker = true)
as
select * from _pgstack.worker_status();

comment on view pgstack.workers is
'One row a connected worker. Empty for roles that may not select from _pgstack.worker, _pgstack.work and _pgstack.breaker.';
comment on column pgstack.workers.id is 'The worker, as its log names it.';
comment on column pgstack.workers.pid is 'Its listening connection in pg_stat_activity.';
comment on column pgstack.workers.version is 'The pgstack it runs.';
comment on column pgstack.workers.model_server is 'The model server it uses unless a vectorizer names another.';
comment on column pgstack.workers.started_at is 'When it connected.';
comment on column pgstack.workers.seen_at is 'Its last heartbeat; one comes every 1.5 s.';
comment on column pgstack.workers.leased is 'Source rows in its hands.';
comment on column pgstack.workers.resting is 'Models that it leaves alone for now because calls to them fail.';
