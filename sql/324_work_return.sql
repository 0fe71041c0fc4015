-- Family: the worker's work that did not end well: given back, or set aside.
-- Callers: pgstack/worker/drain.py.
-- Errors: none.

create or replace function _pgstack.work_release(
  worker uuid, vectorizer_id integer, keys jsonb[], message text, blocks boolean
)
returns void
language sql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
  update _pgstack.work as w
  set state = 'waiting', changed_at = clock_timestamp(),
    last_error = coalesce(message, case when w.attempts > 0 then w.last_error end),
    due_at = clock_timestamp() + case when blocks then interval '10 s' else interval '1 s' end
  where w.vectorizer_id = work_release.vectorizer_id and w.worker = work_release.worker
    and w.state = 'leased' and w.digest in (select _pgstack.key_digest(q.key) from unnest(keys) as q (key));
  update _pgstack.vectorizer as v
  set last_error = message, last_error_at = now(),
    problem = case when blocks then message else v.problem end
  where v.vectorizer_id = work_release.vectorizer_id and message is not null;
$$;

comment on function _pgstack.work_release(uuid, integer, jsonb[], text, boolean) is
'Gives leased keys back for a second: the fault was not theirs, no try is counted. blocks: it lies with the vectorizer, which is tried again every 10 seconds.';

-- The fault lies with these rows.  Below max_attempts they wait, longer each time; then,
-- or at once when no further try can help, they are set aside, unless they changed.
create or replace function _pgstack.work_fail(
  worker uuid, vectorizer_id integer, keys jsonb[], versions bytea[],
  message text, final boolean
)
returns void
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _plan _pgstack.vectorizer_plan := _pgstack.vectorizer_plan(work_fail.vectorizer_id);
  _settled integer[] := '{}';
  _held jsonb[];
begin
  if _plan.id is null then
    return;
  end if;
  if (
    work_fail.final or exists (
      select from _pgstack.work as w
      where w.vectorizer_id = _plan.id and w.worker = work_fail.worker
        and w.attempts + 1 >= _pgstack.setting_value('max_attempts')::integer
        and w.digest in (select _pgstack.key_digest(q.key) from unnest(work_fail.keys) as q (key))
    )
  ) and _pgstack.hold_source(_plan) is null then
    _settled := _pgstack.lock_unchanged(_plan, work_fail.keys, work_fail.versions);
    perform _pgstack.unqueue(_plan, work_fail.keys, _settled);
    execute format(
      $sql$
      insert into %s (%s, failure_step)
      select k.*, 'embedding'
      from unnest($1) with ordinality as q (key, nr)
      cross join lateral jsonb_to_record(q.key) as k (%s)
      where q.nr = any ($2)
      $sql$,
      _plan.failed_queue, _plan.key_list, _plan.key_record
    ) using work_fail.keys, _settled;
  end if;
  with failed as (
    update _pgstack.work as w
    set state = case when q.nr = any (_settled) then 'failed' else 'waiting' end,
      attempts = w.attempts + 1,
      -- 1, 2, 4 ... seconds, up to 5 minutes, spread by up to a half.
      due_at = clock_timestamp()
        + least(300, power(2, w.attempts)) * (0.75 + random() / 2) * interval '1 second',
      last_error = work_fail.message,
      changed_at = clock_timestamp()
    from unnest(work_fail.keys) with ordinality as q (key, nr)
    where w.vectorizer_id = _plan.id and w.worker = work_fail.worker and w.state = 'leased'
      and w.digest = _pgstack.key_digest(q.key)
    returning w.key
  )
  select array_agg(f.key) into _held from failed as f;
  -- A row that was forgotten meanwhile has no lease: what a model server said of it is not written down.
  if _held is null then
    return;
  end if;
  insert into ai._vectorizer_errors (id, message, details)
  select
    v.id, 'embedding failed',
    jsonb_build_object('error_reason', work_fail.message, 'keys', to_jsonb(_held))
  from ai.vectorizer as v where v.id = _plan.id
  for key share;
  update _pgstack.vectorizer as v
  set last_error = work_fail.message, last_error_at = now()
  where v.vectorizer_id = _plan.id;
end;
$$;

comment on function _pgstack.work_fail(uuid, integer, jsonb[], bytea[], text, boolean) is
'Counts a failed try of leased keys; sets them aside when final or tried max_attempts times.';

create or replace function _pgstack.work_renew(worker uuid)
returns void
language sql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
  update _pgstack.worker as w set seen_at = clock_timestamp() where w.id = work_renew.worker;
$$;

comment on function _pgstack.work_renew(uuid) is
'A worker''s sign of life: its leases hold on.';
