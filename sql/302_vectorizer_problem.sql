-- Family: what keeps a vectorizer from running.  What the worker reads and writes it reads and
-- writes with its own rights, and a table's owner decides what runs there: the page
-- docs/explanation/trust.md says whom it trusts.  Here is what it does not touch at all: a view
-- in a table's place, and columns of types that belong to others than the table's owner.
-- Callers: 310 to 404.
-- Errors: none.

-- A type's owner may give it a cast to text, which runs where a row is read, or a domain another
-- check, which runs where a key is.  Of those that a type is made of, too.
create or replace function _pgstack.type_problem(relation oid, columns name[])
returns text
language sql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
  with recursive part (name, oid) as (
    select a.attname, a.atttypid
    from pg_attribute as a
    where a.attrelid = type_problem.relation and a.attname = any (type_problem.columns)
      and not a.attisdropped
    union
    select p.name, x.oid
    from part as p
    join pg_type as t on t.oid = p.oid
    cross join lateral (
      select t.typbasetype as oid
      union all select t.typelem
      union all select r.rngsubtype from pg_range as r where t.oid in (r.rngtypid, r.rngmultitypid)
      union all
      select a.atttypid from pg_attribute as a
      where a.attrelid = t.typrelid and a.attnum > 0 and not a.attisdropped
    ) as x
    -- Those that PostgreSQL itself has are made of nothing else.
    where t.oid >= 16384 and x.oid <> 0
  )
  select format(
    'the column %I has the type %s, which belongs to %I', p.name, format_type(p.oid, null),
    pg_get_userbyid(t.typowner)
  )
  from part as p
  join pg_type as t on t.oid = p.oid
  join pg_class as c on c.oid = type_problem.relation
  where t.oid >= 16384 and t.typowner <> c.relowner
    and not pg_has_role(t.typowner, current_user, 'member')
  order by p.name limit 1;
$$;

comment on function _pgstack.type_problem(oid, name[]) is
'A column whose type belongs to somebody who is neither the table''s owner nor may act as the current role, in words; NULL when there is none.';

-- What the worker must not touch.
create or replace function _pgstack.relation_problem(plan _pgstack.vectorizer_plan)
returns text
language plpgsql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _source oid := _pgstack.find_relation(plan.source);
  _target oid := case when plan.has_table then _pgstack.find_relation(plan.target) else _source end;
begin
  if _source is null then
    return format('the source table %s is gone', plan.source);
  elsif (select c.relkind not in ('r', 'p') from pg_class as c where c.oid = _source) then
    return format('the source %s is no table any more', plan.source);
  elsif _target is null then
    return format('the target table %s is gone', plan.target);
  elsif (select c.relkind not in ('r', 'p') from pg_class as c where c.oid = _target) then
    return format('the target %s is no table any more', plan.target);
  end if;
  return _pgstack.type_problem(
    _source, plan.key_columns || _pgstack.content_columns(plan.config)::name[]
  );
end;
$$;

comment on function _pgstack.relation_problem(_pgstack.vectorizer_plan) is
'What keeps the worker from reading a vectorizer''s source and writing its target, in words; NULL when nothing does.';

-- Asked by the worker before it touches anything: one that it may not read does not stop the others.
create or replace function _pgstack.rights_problem(plan _pgstack.vectorizer_plan)
returns text
language plpgsql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _name text;
  _class pg_class;
begin
  foreach _name in array array[plan.source, plan.target, plan.queue] loop
    select c.* into _class from pg_class as c where c.oid = _pgstack.find_relation(_name);
    continue when not found;
    if not has_schema_privilege(_class.relnamespace, 'usage') then
      return format(
        'the worker may not use the schema of %s: grant usage on schema %I to %I;',
        _name, (parse_ident(_name))[1], current_user
      );
    elsif row_security_active(_class.oid)
      and pg_has_role(_class.relowner, 'usage')
    then
      return format(
        'row-level security hides rows from the worker: alter table %s no force row level security;',
        _name
      );
    elsif row_security_active(_class.oid)
      or not has_any_column_privilege(_class.oid, 'select') and _name <> plan.source
    then
      return format(
        'the worker needs all of %1$s, which belongs to %2$I: alter table %1$s owner to %3$I;',
        _name, pg_get_userbyid(_class.relowner), current_user
      );
    -- Update to lock rows while their chunks are written.
    elsif not (
      has_any_column_privilege(_class.oid, 'select') and has_any_column_privilege(_class.oid, 'update')
    ) then
      return format(
        'the worker may not read and lock rows of the source: grant select, update on %s to %I;',
        _name, current_user
      );
    end if;
  end loop;
  return null;
end;
$$;

comment on function _pgstack.rights_problem(_pgstack.vectorizer_plan) is
'What the current role, the worker''s, lacks to read a vectorizer''s tables, in words, with the command that mends it; NULL when nothing.';

-- Nothing is read yet when a table is locked, and nothing changes any more when it is looked at:
-- asked without the lock, the answer is of a moment ago.  Partitions and children are no views.
create or replace function _pgstack.hold_source(plan _pgstack.vectorizer_plan)
returns text
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
begin
  execute format('lock table only %s in access share mode', plan.source);
  return _pgstack.relation_problem(plan);
exception
  when undefined_table or invalid_schema_name or wrong_object_type then
    return coalesce(_pgstack.relation_problem(plan), sqlerrm);
end;
$$;

comment on function _pgstack.hold_source(_pgstack.vectorizer_plan) is
'Keeps a vectorizer''s source as it is until the transaction ends; returns what keeps the worker from reading it, in words, or NULL.';

-- Why the worker does not run a vectorizer; NULL when it does.
create or replace function _pgstack.vectorizer_problem(plan _pgstack.vectorizer_plan)
returns text
language plpgsql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _config jsonb := plan.config;
  _problem text := _pgstack.relation_problem(plan);
  _type regtype;
begin
  if _problem is not null then
    return _problem;
  elsif plan.has_table and plan.key_columns && array['start_char', 'end_char', 'digest']::name[] then
    return 'its key has a column start_char, end_char or digest, which the table of chunks needs';
  elsif _config -> 'embedding' ->> 'implementation' <> 'ollama' then
    return format('embedding by %s is not supported; use ai.embedding_ollama',
      _config -> 'embedding' ->> 'implementation');
  elsif _config -> 'loading' ->> 'implementation' <> 'column' then
    return format('loading from %s is not supported; use ai.loading_column',
      _config -> 'loading' ->> 'implementation');
  elsif _config -> 'chunking' ->> 'implementation' not in (
    'pgstack', 'none', 'character_text_splitter', 'recursive_character_text_splitter'
  ) then
    return format('chunking by %s is not supported', _config -> 'chunking' ->> 'implementation');
  elsif not _pgstack.model_host_allowed(plan.base_url) then
    return format('the model server %s is not in the setting model_hosts', plan.base_url);
  end if;
  select a.atttypid into _type
  from pg_attribute as a
  where a.attrelid = _pgstack.find_relation(plan.source) and a.attname = plan.content_column
    and not a.attisdropped;
  if not found then
    return format('the source has no column %I any more', plan.content_column);
  elsif _type = 'bytea'::regtype then
    return format('the column %I is bytea; only text can be embedded', plan.content_column);
  end if;
  return null;
end;
$$;

comment on function _pgstack.vectorizer_problem(_pgstack.vectorizer_plan) is
'What keeps the worker from running a vectorizer, in words; NULL when nothing does.';
