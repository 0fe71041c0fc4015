-- Family: what a vectorizer needs beyond pgai's catalogue: a trigger that wakes the worker,
-- columns for offsets and digests, and, beside pgai's own trigger, those that let it forget
-- deleted rows.  Adopted vectorizers have triggers of ours instead: 306_capture.sql.
-- Callers: 310_vectorizer.sql, and the worker for vectorizers made with plain pgai.
-- Errors: none of ours.

-- On every queue table: wakes the workers when the writing transaction commits.
create or replace function _pgstack.notify_work()
returns trigger
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
begin
  perform pg_notify('pgstack_work', '');
  return null;
end;
$$;

comment on function _pgstack.notify_work() is
'Trigger of queue tables: wakes the workers.';

-- pgai's own trigger deletes a row's chunks when the row is deleted or gets another key,
-- but sees only chunks that its transaction's snapshot shows: one that began under
-- REPEATABLE READ before a worker wrote them leaves them behind.  So the old key is
-- queued as well, and the worker, which looks later, clears what is left.
-- The function belongs to the source's owner, like pgai's: writers of the source need
-- no right on the queue.  It outlives a plain ai.drop_vectorizer(), hence to_regclass().
create or replace function _pgstack.create_forget_triggers(plan _pgstack.vectorizer_plan)
returns void
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _function text := format('ai.%I', '_pgstack_forget_' || plan.id);
  _old_key text;
  _changed text;
begin
  select
    string_agg(format('old.%I', k.name), ', '),
    string_agg(format('old.%1$I is distinct from new.%1$I', k.name), ' or ')
  into _old_key, _changed
  from unnest(plan.key_columns) as k (name);
  execute format(
    'create or replace function %s() returns trigger '
    'language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as %L',
    _function,
    format(
      'begin if to_regclass(%L) is not null then insert into %s (%s) values (%s); end if; '
      'return null; end;',
      plan.queue, plan.queue, plan.key_list, _old_key
    )
  );
  execute format('revoke all on function %s() from public', _function);
  if not exists (
    select from pg_trigger as t
    where t.tgrelid = plan.source::regclass and t.tgname = '_pgstack_forget_' || plan.id
  ) then
    execute format(
      'create trigger %I after delete on %s for each row execute function %s()',
      '_pgstack_forget_' || plan.id, plan.source, _function
    );
    execute format(
      'create trigger %I after update of %s on %s for each row when (%s) execute function %s()',
      '_pgstack_rekey_' || plan.id, plan.key_list, plan.source, _changed, _function
    );
  end if;
end;
$$;

comment on function _pgstack.create_forget_triggers(_pgstack.vectorizer_plan) is
'Triggers on a source table that queue the keys of deleted and re-keyed rows.';

create or replace function _pgstack.drop_forget_triggers(id integer, source text)
returns void
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
begin
  if to_regclass(drop_forget_triggers.source) is not null then
    execute format('drop trigger if exists %I on %s', '_pgstack_forget_' || id, source);
    execute format('drop trigger if exists %I on %s', '_pgstack_rekey_' || id, source);
  end if;
  execute format('drop function if exists ai.%I()', '_pgstack_forget_' || id);
end;
$$;

comment on function _pgstack.drop_forget_triggers(integer, text) is
'Takes the triggers of a vectorizer off its source table.';

-- Equal chunks are found by it.  PostgreSQL names it <table>_digest_idx; it is known by
-- its column.
create or replace function _pgstack.create_digest_index(target text)
returns void
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
begin
  if not exists (
    select from pg_index as i
    join pg_attribute as a on a.attrelid = i.indrelid and a.attnum = i.indkey[0]
    where i.indrelid = target::regclass and a.attname = 'digest' and i.indpred is null
  ) then
    execute format('create index on %s (digest)', target);
  end if;
end;
$$;

comment on function _pgstack.create_digest_index(text) is
'Indexes the digests of a table of chunks, unless they are.';

-- Gives a vectorizer, ours or made with plain ai.create_vectorizer(), what the worker
-- relies on.  Safe to repeat.  adopt: our own triggers from now on.
create or replace function _pgstack.prepare_vectorizer(id integer, adopt boolean default false)
returns void
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _plan _pgstack.vectorizer_plan := _pgstack.vectorizer_plan(prepare_vectorizer.id);
begin
  if not exists (
    select from pg_trigger as t
    where t.tgrelid = _plan.queue::regclass and t.tgname = '_pgstack_notify'
  ) then
    execute format(
      'create trigger _pgstack_notify after insert on %s '
      'for each statement execute function _pgstack.notify_work()',
      _plan.queue
    );
  end if;
  if _plan.has_table then
    execute format(
      'alter table %s add column if not exists start_char integer, '
      'add column if not exists end_char integer, add column if not exists digest bytea',
      _plan.target
    );
    perform _pgstack.create_digest_index(_plan.target);
  end if;
  if adopt or exists (
    select from _pgstack.vectorizer as v
    where v.vectorizer_id = _plan.id and v.adopted_at is not null
  ) then
    perform _pgstack.capture_changes(_plan, true);
    perform _pgstack.remove_replaced_triggers(_plan.id);
  elsif _plan.has_table then
    perform _pgstack.create_forget_triggers(_plan);
  end if;
  insert into _pgstack.vectorizer as v (vectorizer_id, prepared_at)
  values (_plan.id, now())
  on conflict on constraint vectorizer_pkey do update set prepared_at = excluded.prepared_at;
end;
$$;

comment on function _pgstack.prepare_vectorizer(integer, boolean) is
'Adds to a vectorizer the wake-up trigger, the columns for offsets and digests, and the triggers on its source.';

-- Vectorizers that lack what prepare_vectorizer() adds, made by plain ai.create_vectorizer(),
-- and adopted ones whose source has other partitions, children or BEFORE triggers than it had.
-- One that cannot be prepared now (busy, or not ours) still runs, and is tried again.
create or replace function _pgstack.prepare_vectorizers()
returns integer
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
set lock_timeout = '1s'
as $$
declare
  _id integer;
  _is_new boolean;
  _is_outdated boolean;
  _prepared integer := 0;
begin
  perform _pgstack.drop_leftovers();
  perform _pgstack.drop_old_words();
  for _id, _is_new, _is_outdated in
    select v.id, o.prepared_at is null, c.id is not null
    from ai.vectorizer as v
    left join _pgstack.vectorizer as o on o.vectorizer_id = v.id
    left join _pgstack.outdated_captures() as c (id) on c.id = v.id
    where o.prepared_at is null or c.id is not null
      or v.id in (select t.id from _pgstack.replaced_triggers() as t)
    order by v.id
  loop
    begin
      if _is_new then
        perform _pgstack.prepare_vectorizer(_id);
      else
        if _is_outdated then
          perform _pgstack.capture_changes(_pgstack.vectorizer_plan(_id), false);
        end if;
        perform _pgstack.remove_replaced_triggers(_id);
      end if;
      _prepared := _prepared + (_is_new or _is_outdated)::integer;
    exception
      when query_canceled or admin_shutdown then raise;
      when others then perform _pgstack.note_problem(_id, 'not prepared: ' || sqlerrm);
    end;
  end loop;
  return _prepared;
end;
$$;

comment on function _pgstack.prepare_vectorizers() is
'Prepares the vectorizers that are not, or whose source has changed. Returns how many.';
