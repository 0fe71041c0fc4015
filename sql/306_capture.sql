-- Family: change capture.  Our own triggers on the source of an adopted vectorizer, in
-- place of pgai's: they queue the keys of rows whose text changed, and forget deleted rows
-- in the user's own transaction.  docs/adr/0007-change-capture.md has figures and reasons.
--
--   _pgstack_insert_N, _delete_N   statement-level with transition tables; row-level where
--                                  rows may come in by another table's name: partitions,
--                                  inheritance
--   _pgstack_update_N              row-level, when a column differs that a vectorizer reads;
--                                  only for statements that name one, unless a BEFORE trigger
--                                  may change what they do not name
--   _pgstack_truncate_N            also tells which tables of a tree have been taken in
--
-- All call ai._pgstack_capture_N.  It belongs to the queue's owner, as pgai's belongs to
-- whoever made the vectorizer: writers of the source need no right on queue and target,
-- and triggers that the queue's owner puts on these gain no rights of ours.
-- Locks are taken in the order source, target, queue: see 320_work.sql.
-- Callers: 308_capture_tables.sql.
-- Errors: none of ours.

-- As text, byte by byte, as the worker reads them: equal by the operator of their type may
-- be other text (citext, numeric, collations), and json has no such operator.
-- skip_toasted: a value that kept its place out of line is not fetched to compare it.
create or replace function _pgstack.differs(columns name[], skip_toasted boolean)
returns text
language sql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
  select string_agg(
    format(
      case when differs.skip_toasted and current_setting('server_version_num')::integer >= 170000
        then 'case when pg_column_toast_chunk_id(old.%1$I) = pg_column_toast_chunk_id(new.%1$I) '
          'then false else %2$s end'
        else '%2$s'
      end,
      c.name,
      format('old.%1$I::text collate "C" is distinct from new.%1$I::text collate "C"', c.name)
    ),
    ' or '
  )
  from unnest(differs.columns) as c (name);
$$;

comment on function _pgstack.differs(name[], boolean) is
'The condition of a row trigger: one of the columns differs between old and new.';

-- What was dropped, detached or truncated in part leaves no trace but this.  Keys that row-level
-- security hides from the owner are queued needlessly, and lose nothing by it.
create or replace function _pgstack.queue_missing(plan _pgstack.vectorizer_plan)
returns text
language sql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
  select format(
    'insert into %1$s (%2$s) select distinct %3$s from %4$s as r '
    'where not exists (select from %5$s as k where %6$s)',
    plan.queue, plan.key_list,
    (select string_agg(format('r.%I', c.name), ', ') from unnest(plan.key_columns) as c (name)),
    plan.target, plan.source, plan.key_match
  );
$$;

comment on function _pgstack.queue_missing(_pgstack.vectorizer_plan) is
'The statement that queues keys that have chunks but no source row.';

-- An index build holds the table of chunks for as long as it takes, and ends by waiting for
-- transactions that wrote there: for this one, which would wait for it.  So rows are deleted
-- then.  Not under a snapshot that may be older than some chunks.
create or replace function _pgstack.empty_target(plan _pgstack.vectorizer_plan)
returns text
language sql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
  select format(
    $body$
      begin
        if current_setting('transaction_isolation') = 'read committed' then
          lock table %1$s in access exclusive mode nowait;
        end if;
        truncate table %1$s;
      exception
        when lock_not_available then delete from %1$s;
      end;
    $body$,
    plan.target
  );
$$;

comment on function _pgstack.empty_target(_pgstack.vectorizer_plan) is
'The statements that forget all chunks of a vectorizer.';

-- pgai's trigger sees only chunks that its transaction's snapshot shows, and so does ours:
-- one that began under REPEATABLE READ before a worker wrote them leaves them behind.  So
-- an old key is queued as well, and the worker, which looks later, clears what is left.
-- It outlives a plain ai.drop_vectorizer(), hence to_regclass().
-- Few rows are deleted one by one, which keeps to the index; for many, execute plans anew.
create or replace function _pgstack.capture_body(plan _pgstack.vectorizer_plan)
returns text
language sql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
  select format(
    $body$
#variable_conflict use_column
declare
  _row record;
begin
  if to_regclass(%1$L) is null then
    return null;
  end if;
  if tg_level = 'ROW' then
    if tg_op = 'DELETE' or tg_op = 'UPDATE' and (%7$s) then
      _row := old;
      %6$s
      %8$s
    end if;
    if tg_op <> 'DELETE' then
      insert into %1$s (%4$s) values (%9$s);
    end if;
    return null;
  end if;
  if tg_op = 'TRUNCATE' then
    if tg_argv[0] <> 'part' and not exists (
      select from pg_inherits as i join pg_class as c on c.oid = i.inhrelid
      where i.inhparent = tg_relid and not c.relispartition
    ) then
      %2$s
      truncate table %1$s;
    else
      %3$s
    end if;
  elsif tg_op = 'INSERT' then
    insert into %1$s (%4$s) select %5$s from new_rows as r;
  else
    %10$s
    insert into %1$s (%4$s) select %5$s from old_rows as r;
  end if;
  return null;
end;
    $body$,
    plan.queue,
    case when plan.has_table then _pgstack.empty_target(plan) end,
    case when plan.has_table then _pgstack.queue_missing(plan) || ';' end,
    plan.key_list,
    x.of_table,
    case when plan.has_table
      then format('delete from %s as r where %s;', plan.target, x.same) end,
    x.changed,
    case when plan.has_table
      then format('insert into %s (%s) values (%s);', plan.queue, plan.key_list, x.of_old) end,
    x.of_new,
    case when plan.has_table then format(
      $delete$
    if exists (select from old_rows offset 50) then
      execute %L;
    else
      for _row in select %s from old_rows as r loop
        delete from %s as r where %s;
      end loop;
    end if;
      $delete$,
      format('delete from %s as r using old_rows as _row where %s', plan.target, x.same),
      x.of_table, plan.target, x.same
    ) end
  )
  from (
    select
      string_agg(format('r.%I', k.name), ', ') as of_table,
      string_agg(format('r.%1$I = _row.%1$I', k.name), ' and ') as same,
      _pgstack.differs(plan.key_columns, false) as changed,
      string_agg(format('old.%I', k.name), ', ') as of_old,
      string_agg(format('new.%I', k.name), ', ') as of_new
    from unnest(plan.key_columns) as k (name)
  ) as x;
$$;

comment on function _pgstack.capture_body(_pgstack.vectorizer_plan) is
'The body of the trigger function of an adopted vectorizer.';

create or replace function _pgstack.create_capture_function(plan _pgstack.vectorizer_plan)
returns void
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _function text := format('ai.%I()', '_pgstack_capture_' || plan.id);
  _owner name;
begin
  execute format(
    'create or replace function %s returns trigger language plpgsql volatile security definer '
    'set search_path = pg_catalog, pg_temp as %L',
    _function, _pgstack.capture_body(plan)
  );
  execute format('revoke all on function %s from public', _function);
  select pg_get_userbyid(c.relowner) into _owner
  from pg_class as c where c.oid = plan.queue::regclass;
  if _owner <> (
    select pg_get_userbyid(p.proowner) from pg_proc as p where p.oid = _function::regprocedure
  ) then
    execute format('alter function %s owner to %I', _function, _owner);
  end if;
end;
$$;

comment on function _pgstack.create_capture_function(_pgstack.vectorizer_plan) is
'Makes or renews the trigger function of an adopted vectorizer.';
