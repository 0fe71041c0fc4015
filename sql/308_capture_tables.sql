-- Family: change capture, second half: which tables carry which triggers.  306_capture.sql says
-- what these do.  Tables come and go: partitions are attached, children made and dropped.
-- Callers: 305_vectorizer_prepare.sql, 310_vectorizer.sql, 312_vectorizer_verbs.sql.
-- Errors: none of ours.

-- A trigger that fires on replicas only never meets ours, which do not fire there.
create or replace function _pgstack.vectorizer_sources()
returns table (
  id integer, source oid, members regclass[], has_before_trigger boolean, compares_all boolean
)
language sql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
  with recursive tree (id, source, relation) as (
    select v.id, c.oid, c.oid
    from ai.vectorizer as v
    join pg_namespace as n on n.nspname = v.source_schema
    join pg_class as c on c.relnamespace = n.oid and c.relname = v.source_table
    union
    select t.id, t.source, i.inhrelid from tree as t join pg_inherits as i on i.inhparent = t.relation
  )
  select
    t.id, t.source,
    case
      when bool_or(c.relkind = 'p') or count(*) > 1
        or exists (select from pg_inherits as i where i.inhrelid = t.source)
      then array_agg(c.oid::regclass order by c.oid)
    end,
    bool_or(exists (
      select from pg_trigger as g
      where g.tgrelid = c.oid and g.tgtype & 19 = 19 and g.tgenabled in ('O', 'A')
    )),
    (
      select g.tgattr = '' from pg_trigger as g
      where g.tgrelid = t.source and g.tgname = '_pgstack_update_' || t.id
    )
  from tree as t
  join pg_class as c on c.oid = t.relation and c.relkind in ('r', 'p')
  group by t.id, t.source;
$$;

comment on function _pgstack.vectorizer_sources() is
'The source of each vectorizer. members: all its tables, NULL if it neither has nor is a partition or a child. has_before_trigger: one may change updated rows. compares_all: our trigger looks at every updated row; NULL where there is none.';

-- Row-level triggers of a partitioned table are cloned to its partitions, later ones too.
create or replace function _pgstack.create_capture_triggers(
  plan _pgstack.vectorizer_plan, member regclass, in_tree boolean, compares_all boolean
)
returns void
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _is_root boolean := member = plan.source::regclass;
  _columns name[] := plan.key_columns || array(
    select c.name::name from unnest(_pgstack.content_columns(plan.config)) as c (name)
    where c.name::name <> all (plan.key_columns)
  );
  _named text := (select string_agg(format('%I', c.name), ', ') from unnest(_columns) as c (name));
  _level text := case when in_tree then 'for each row'
    else 'referencing %s table as %s for each statement' end;
  _trigger record;
begin
  for _trigger in
    select t.* from (
      values
        ('insert', 'after insert', format(_level, 'new', 'new_rows'), true),
        ('delete', 'after delete', format(_level, 'old', 'old_rows'), true),
        (
          'update',
          'after update' || case when compares_all then '' else ' of ' || _named end,
          format('for each row when (%s)', _pgstack.differs(_columns, compares_all)),
          true
        ),
        ('truncate', 'after truncate', 'for each statement', false)
    ) as t (name, event, clauses, is_cloned)
    where (plan.has_table or t.name <> 'delete') and (
      _is_root or not t.is_cloned
      or not (select c.relispartition from pg_class as c where c.oid = member)
    )
  loop
    execute format(
      'create or replace trigger %I %s on %s %s execute function ai.%I(%L)',
      format('_pgstack_%s_%s', _trigger.name, plan.id), _trigger.event, member, _trigger.clauses,
      '_pgstack_capture_' || plan.id,
      case when not in_tree then 'lone' when _is_root then 'root' else 'part' end
    );
  end loop;
end;
$$;

comment on function _pgstack.create_capture_triggers(
  _pgstack.vectorizer_plan, regclass, boolean, boolean
) is
'Puts the triggers of an adopted vectorizer on its source, or on a partition or child of that. compares_all: every updated row, whatever columns the statement names.';

create or replace function _pgstack.drop_capture(id integer)
returns void
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
set client_min_messages = warning
as $$
begin
  execute format('drop function if exists ai.%I() cascade', '_pgstack_capture_' || id);
end;
$$;

comment on function _pgstack.drop_capture(integer) is
'Takes the triggers of an adopted vectorizer off all tables, and drops their function.';

-- pgai's, and those that prepare_vectorizer() puts beside them.  Disabling a trigger keeps
-- out writers only; dropping it would wait for readers too, and those behind it for us.
-- Where somebody reads it stays, disabled, and goes another time.
create or replace function _pgstack.remove_replaced_triggers(id integer)
returns void
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _source regclass;
  _name name;
  _fires boolean;
begin
  for _source, _name, _fires in
    select t.tgrelid::regclass, t.tgname, t.tgenabled <> 'D'
    from _pgstack.replaced_triggers() as o
    join pg_trigger as t on t.oid = o.trigger
    where o.id = remove_replaced_triggers.id
  loop
    if _fires then
      execute format('alter table %s disable trigger %I', _source, _name);
    end if;
    begin
      execute format('lock table %s in access exclusive mode nowait', _source);
      execute format('drop trigger %I on %s', _name, _source);
    exception
      when lock_not_available then null;
    end;
  end loop;
  if to_regprocedure(format('ai.%I()', '_pgstack_forget_' || id)) is not null
    and not exists (
      select from _pgstack.replaced_triggers() as o where o.id = remove_replaced_triggers.id
    )
  then
    execute format('drop function ai.%I()', '_pgstack_forget_' || id);
  end if;
end;
$$;

comment on function _pgstack.remove_replaced_triggers(integer) is
'Disables the triggers that ours replace, and drops them if nobody uses the table.';

create or replace function _pgstack.replaced_triggers()
returns table (id integer, trigger oid)
language sql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
  select v.id, t.oid
  from ai.vectorizer as v
  join _pgstack.vectorizer as o on o.vectorizer_id = v.id and o.adopted_at is not null
  join _pgstack.vectorizer_sources() as s on s.id = v.id
  join pg_trigger as t on t.tgrelid = s.source
  where t.tgparentid = 0
    and t.tgname in (
      v.trigger_name, v.trigger_name || '_truncate',
      '_pgstack_forget_' || v.id, '_pgstack_rekey_' || v.id
    );
$$;

comment on function _pgstack.replaced_triggers() is
'The triggers that ours replace, on the sources of adopted vectorizers.';

-- ------------------------------------------------------------- tables that come and go

create or replace function _pgstack.queue_rows(plan _pgstack.vectorizer_plan, member regclass)
returns void
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
begin
  execute format(
    'insert into %1$s (%2$s) select %2$s from only %3$s', plan.queue, plan.key_list, member
  );
end;
$$;

comment on function _pgstack.queue_rows(_pgstack.vectorizer_plan, regclass) is
'Queues all rows of a table that became part of the source.';

-- Makes the triggers what the source's tables need now.  Once adopted, rows of tables that
-- came are queued, and the keys of those that went; all rows when a BEFORE trigger has come
-- and may have changed any.  renew: also triggers that are there.
create or replace function _pgstack.capture_changes(plan _pgstack.vectorizer_plan, renew boolean)
returns void
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _adopted boolean;
  _known text[];
  _compared_all boolean;
  _compares_all boolean;
  _members regclass[];
  _member regclass;
  _is_new boolean;
begin
  execute format('lock table %s in share row exclusive mode', plan.source);
  select v.adopted_at is not null, v.members into _adopted, _known
  from _pgstack.vectorizer as v where v.vectorizer_id = plan.id;
  select s.members, s.has_before_trigger, s.compares_all
  into _members, _compares_all, _compared_all
  from _pgstack.vectorizer_sources() as s where s.id = plan.id;
  if (_known is null) <> (_members is null) then
    -- From row-level to statement-level triggers, or back: nothing of before will do.
    perform _pgstack.drop_capture(plan.id);
  end if;
  perform _pgstack.create_capture_function(plan);
  foreach _member in array coalesce(_members, array[plan.source::regclass]) loop
    _is_new := not exists (
      select from pg_trigger as t
      where t.tgrelid = _member and t.tgname = '_pgstack_truncate_' || plan.id
    );
    if _is_new or renew or _compares_all <> _compared_all then
      perform _pgstack.create_capture_triggers(plan, _member, _members is not null, _compares_all);
    end if;
    if _adopted and (_is_new or _compares_all > _compared_all) then
      perform _pgstack.queue_rows(plan, _member);
    end if;
  end loop;
  perform _pgstack.leave_tables(plan, _members);
  if _adopted and plan.has_table and _known is distinct from _members::text[] then
    execute _pgstack.queue_missing(plan);
  end if;
  insert into _pgstack.vectorizer as v (vectorizer_id, adopted_at, members)
  values (plan.id, now(), _members::text[])
  on conflict on constraint vectorizer_pkey do update
  set adopted_at = coalesce(v.adopted_at, excluded.adopted_at), members = excluded.members;
end;
$$;

comment on function _pgstack.capture_changes(_pgstack.vectorizer_plan, boolean) is
'Adopts a vectorizer, or brings the triggers of an adopted one up to date. Safe to repeat.';

-- A detached partition keeps the triggers that were not clones.  Earlier builds had others.
create or replace function _pgstack.leave_tables(
  plan _pgstack.vectorizer_plan, members regclass[]
)
returns void
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _trigger record;
begin
  for _trigger in
    select t.tgname, t.tgrelid::regclass as relation
    from pg_trigger as t
    where t.tgfoid = format('ai.%I()', '_pgstack_capture_' || plan.id)::regprocedure
      and t.tgparentid = 0
      and (
        t.tgrelid <> all (coalesce(members, array[plan.source::regclass])::oid[])
        or t.tgname !~ '^_pgstack_(insert|update|delete|truncate)_'
      )
  loop
    execute format('drop trigger %I on %s', _trigger.tgname, _trigger.relation);
  end loop;
end;
$$;

comment on function _pgstack.leave_tables(_pgstack.vectorizer_plan, regclass[]) is
'Drops our triggers from tables that no longer belong to the source, and those that it needs no more.';

-- For the worker's regular look: nothing is locked where nothing came or went.
create or replace function _pgstack.outdated_captures()
returns setof integer
language sql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
  select s.id
  from _pgstack.vectorizer_sources() as s
  join _pgstack.vectorizer as o on o.vectorizer_id = s.id and o.adopted_at is not null
  where o.members is distinct from s.members::text[]
    or s.compares_all <> s.has_before_trigger;
$$;

comment on function _pgstack.outdated_captures() is
'Adopted vectorizers on whose source tables or BEFORE triggers came or went.';

-- A plain ai.drop_vectorizer() knows only its own triggers.
create or replace function _pgstack.drop_leftovers()
returns void
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
set client_min_messages = warning
as $$
declare
  _function regprocedure;
  _words_of integer;
begin
  for _function, _words_of in
    select p.oid, substring(p.proname from '_words_([0-9]+)$')::integer
    from pg_proc as p
    where p.pronamespace = 'ai'::regnamespace
      and p.proname ~ '^_pgstack_(capture|forget|words)_[0-9]+$'
      and not exists (
        select from ai.vectorizer as v
        where v.id = substring(p.proname from '[0-9]+$')::integer
      )
      and pg_has_role(p.proowner, 'usage')
  loop
    begin
      execute format('drop function %s cascade', _function);
      perform _pgstack.drop_words(_words_of);
    exception
      when lock_not_available then null;
    end;
  end loop;
end;
$$;

comment on function _pgstack.drop_leftovers() is
'Drops the triggers and words of vectorizers that are gone. Where a table is busy, another time.';
