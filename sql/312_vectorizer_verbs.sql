-- Family: vectorizers, the DBA's other verbs: drop, pause, resume, retry.
-- Callers: people, pgstack/vectorizers.py.
-- Errors: PS001 unknown vectorizer.

create or replace function pgstack.drop_vectorizer(name text, drop_data boolean default false)
returns void
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _plan _pgstack.vectorizer_plan := _pgstack.vectorizer_plan(drop_vectorizer.name);
begin
  perform _pgstack.check_manager();
  perform _pgstack.drop_forget_triggers(_plan.id, _plan.source);
  perform ai.drop_vectorizer(_plan.id, drop_vectorizer.drop_data);
end;
$$;

comment on function pgstack.drop_vectorizer(text, boolean) is
'Ends a vectorizer. drop_data: drop its view and the table of embeddings too; by default they stay as they are.
Raises PS001 unknown vectorizer, PS014 not the owner of pgstack.';

create or replace function pgstack.pause_vectorizer(name text)
returns void
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
begin
  perform _pgstack.check_manager();
  perform ai.disable_vectorizer_schedule((_pgstack.vectorizer_plan(pause_vectorizer.name)).id);
end;
$$;

comment on function pgstack.pause_vectorizer(text) is
'Stops embedding; changes go on being queued, so nothing is missed. Raises PS001 unknown vectorizer, PS014 not the owner of pgstack.';

create or replace function pgstack.resume_vectorizer(name text)
returns void
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
begin
  perform _pgstack.check_manager();
  perform ai.enable_vectorizer_schedule((_pgstack.vectorizer_plan(resume_vectorizer.name)).id);
  perform pg_notify('pgstack_work', '');
end;
$$;

comment on function pgstack.resume_vectorizer(text) is
'Goes on after pgstack.pause_vectorizer(). Raises PS001 unknown vectorizer, PS014 not the owner of pgstack.';

create or replace function pgstack.retry_vectorizer(name text)
returns integer
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _plan _pgstack.vectorizer_plan := _pgstack.vectorizer_plan(retry_vectorizer.name);
  _retried integer;
begin
  perform _pgstack.check_manager();
  execute format(
    $sql$
    insert into %s (%s)
    select k.* from _pgstack.work as w
    cross join lateral jsonb_to_record(w.key) as k (%s)
    where w.vectorizer_id = $1 and w.state = 'failed'
    $sql$,
    _plan.queue, _plan.key_list, _plan.key_record
  ) using _plan.id;
  get diagnostics _retried = row_count;
  execute format('delete from %s', _plan.failed_queue);
  delete from _pgstack.work as w
  where w.vectorizer_id = _plan.id and w.state in ('failed', 'waiting');
  update _pgstack.vectorizer as v
  set problem = null, last_error = null
  where v.vectorizer_id = _plan.id;
  perform pg_notify('pgstack_work', '');
  return _retried;
end;
$$;

comment on function pgstack.retry_vectorizer(text) is
'Queues the rows that were set aside as failed once more, and lets waiting ones be tried now. Returns how many had failed.
Raises PS001 unknown vectorizer, PS014 not the owner of pgstack.';
