-- Family: vectorizers, the DBA's other verbs: adopt, drop, pause, resume, retry, refresh.
-- Callers: people, pgstack/vectorizers.py.
-- Errors: PS001 unknown vectorizer, PS013 unsupported, PS014 missing privilege, PS016 busy.

-- Children by inheritance are queued: pgai's trigger has not watched them.
create or replace function _pgstack.queue_children(plan _pgstack.vectorizer_plan)
returns void
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _child regclass;
begin
  for _child in
    select c.oid
    from _pgstack.vectorizer_sources() as s
    join pg_class as c on c.oid = any(s.members)
    where s.id = plan.id and c.oid <> plan.source::regclass and not c.relispartition
  loop
    perform _pgstack.queue_rows(plan, _child);
  end loop;
end;
$$;

comment on function _pgstack.queue_children(_pgstack.vectorizer_plan) is
'Queues all rows of the tables that inherit from the source.';

create or replace function pgstack.adopt_vectorizer(name text)
returns void
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
set lock_timeout = '5s'
as $$
declare
  _plan _pgstack.vectorizer_plan := _pgstack.vectorizer_plan(adopt_vectorizer.name);
  _problem text := _pgstack.vectorizer_problem(_plan);
begin
  perform _pgstack.check_manager();
  if _problem is not null then
    raise exception 'the vectorizer "%" cannot be adopted: %', _plan.name, _problem
      using errcode = 'PS013', hint = 'Mend that, and try again.';
  end if;
  perform _pgstack.check_source(_plan.source::regclass, _pgstack.content_columns(_plan.config)::name[]);
  -- Writers wait until pgai's trigger is off and ours are on.
  execute format('lock table %s in share row exclusive mode', _plan.source);
  if exists (
    select from _pgstack.vectorizer as v
    where v.vectorizer_id = _plan.id and v.adopted_at is not null
  ) then
    return;
  end if;
  perform _pgstack.prepare_vectorizer(_plan.id, adopt => true);
  perform _pgstack.queue_children(_plan);
exception
  when lock_not_available then
    raise exception 'the table % is in use', _plan.source
      using errcode = 'PS016',
      hint = format(
        'Try again when its writers are done: select pgstack.adopt_vectorizer(%L);', _plan.name
      );
end;
$$;

comment on function pgstack.adopt_vectorizer(text) is
'Gives a vectorizer made with plain ai.create_vectorizer() the triggers of pgstack''s own in place of pgai''s: they cost less, and queue a row only when text that is embedded has changed. Once adopted, nothing happens.
Writers of the source wait while it runs, readers do not; it gives up after 5 s of waiting for them.
Raises PS001 unknown vectorizer, PS013 not one that pgstack runs, PS014 not the owner of the table and of pgstack, PS016 the table is in use.';

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
  perform _pgstack.cancel_index_build(_plan.id);
  perform _pgstack.drop_capture(_plan.id);
  perform _pgstack.drop_prepared_search(_plan.id);
  perform _pgstack.drop_search_function(_plan);
  perform _pgstack.drop_forget_triggers(_plan.id, _plan.source);
  perform ai.drop_vectorizer(_plan.id, drop_vectorizer.drop_data);
  -- Behind what locks the source: whoever makes words has that first, too.
  perform _pgstack.drop_words(_plan.id);
  delete from _pgstack.work as w where w.vectorizer_id = _plan.id;
end;
$$;

comment on function pgstack.drop_vectorizer(text, boolean) is
'Ends a vectorizer, and drops its search function. drop_data: drop its view and the table of embeddings too; by default they stay as they are.
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
  -- skip locked: those a worker is taking up at this moment need no help.
  delete from _pgstack.work as w
  where w.vectorizer_id = _plan.id and w.digest in (
    select o.digest
    from _pgstack.work as o
    where o.vectorizer_id = _plan.id and o.state in ('failed', 'waiting')
    for update skip locked
  );
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

create or replace function pgstack.refresh_vectorizer(name text)
returns bigint
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _plan _pgstack.vectorizer_plan := _pgstack.vectorizer_plan(refresh_vectorizer.name);
  _queued bigint;
begin
  perform _pgstack.check_manager();
  execute format(
    'insert into %1$s (%2$s) select %2$s from %3$s', _plan.queue, _plan.key_list, _plan.source
  );
  get diagnostics _queued = row_count;
  return _queued;
end;
$$;

comment on function pgstack.refresh_vectorizer(text) is
'Queues every row of a vectorizer''s source. Chunks whose text and model are what they were keep their vectors, so this embeds what a new version of the model, pulled under the old name, or other options make different. Returns how many rows it queued.
Raises PS001 unknown vectorizer, PS014 not the owner of pgstack.';
