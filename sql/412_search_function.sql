-- Family: typed search.  Makes <view>_search() beside a vectorizer's view: pgstack.search() that
-- returns the columns of the source.
-- Callers: 310_vectorizer.sql and 312_vectorizer_verbs.sql, people.
-- Errors: PS001 unknown vectorizer, PS012 name taken or too long, PS013 source gone,
--         PS014 missing privilege.
--
-- The function is the user's, like the view: in the view's schema, with the caller's rights.
-- Its body is a string, which pg_dump restores whatever is not there yet, and calls search()
-- by the names of its arguments, which stay.  The first line of the body says whose it is.

create or replace function _pgstack.search_function_mark(id integer)
returns text
language plpgsql immutable
security invoker
set search_path = pg_catalog, pg_temp
as $$
begin
  return format(E'\n-- pgstack vectorizer %s\n', id);
end;
$$;

comment on function _pgstack.search_function_mark(integer) is
'How the body of a vectorizer''s search function begins.';

-- Anybody can write that line: one that is to be replaced must belong to who may make it.
create or replace function _pgstack.search_function(plan _pgstack.vectorizer_plan)
returns oid
language plpgsql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
begin
  return (
    select p.oid
    from pg_proc as p
    where starts_with(p.prosrc, _pgstack.search_function_mark(plan.id))
      and p.proowner in (
        select r.oid from pg_roles as r where r.rolname = current_user
        union all
        select c.relowner from pg_class as c
        where c.oid in (
          _pgstack.find_relation(plan.source), _pgstack.find_relation(plan.target),
          '_pgstack.vectorizer'::regclass
        )
      )
    order by p.oid
    limit 1
  );
end;
$$;

comment on function _pgstack.search_function(_pgstack.vectorizer_plan) is
'The search function of a vectorizer, NULL when it has none.';

-- Schema and name, unquoted: as it is called, as it was called, or after the view.
create or replace function _pgstack.search_function_name(plan _pgstack.vectorizer_plan, name text)
returns text[]
language plpgsql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _destination jsonb := plan.config -> 'destination';
  _schema text := case
    when plan.has_table then _destination ->> 'view_schema' else (parse_ident(plan.source))[1]
  end;
  _name text := coalesce(
    search_function_name.name,
    (select p.proname from pg_proc as p where p.oid = _pgstack.search_function(plan)),
    case when plan.has_table then _destination ->> 'view_name' else plan.name end || '_search'
  );
begin
  if _name = '' or octet_length(_name) > 63 then
    raise exception 'a function cannot be called "%"', _name
      using errcode = 'PS012',
      hint = format('A name of 1 to 63 bytes: select pgstack.create_search_function(%L, name => ...);', plan.name);
  end if;
  if exists (
    select from pg_proc as p
    where p.pronamespace = (select n.oid from pg_namespace as n where n.nspname = _schema)
      and p.proname = _name and p.oid is distinct from _pgstack.search_function(plan)
  ) then
    raise exception 'there is a function %.% already', quote_ident(_schema), quote_ident(_name)
      using errcode = 'PS012',
      hint = 'Drop it, or choose another name: create_vectorizer(..., destination => ...), '
        'create_search_function(..., name => ...).';
  end if;
  return array[_schema, _name];
end;
$$;

comment on function _pgstack.search_function_name(_pgstack.vectorizer_plan, text) is
'What a vectorizer''s search function is to be called. Raises PS012 when that cannot be.';

-- Without the vectors: nobody reads them, and they would fill the screen.
create or replace function _pgstack.search_function_columns(plan _pgstack.vectorizer_plan)
returns table (name text, type text)
language plpgsql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
begin
  return query
  select a.attname::text, format_type(a.atttypid, -1)
  from pg_attribute as a
  where a.attrelid = _pgstack.find_relation(plan.source) and a.attnum > 0 and not a.attisdropped
    and (plan.has_table or a.attname <> plan.embedding_column)
  order by a.attnum;
end;
$$;

comment on function _pgstack.search_function_columns(_pgstack.vectorizer_plan) is
'The columns of a source that its search function returns, and their types.';

-- What search says of a row stands before the row; the row's own columns keep their names.
create or replace function _pgstack.search_function_result(plan _pgstack.vectorizer_plan)
returns text
language plpgsql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _own text[] := array(select c.name from _pgstack.search_function_columns(plan) as c);
  _found text[] := '{}';
  _name text;
begin
  foreach _name in array array['rank', 'score', 'chunk_seq', 'chunk'] loop
    while _name = any (_own) loop
      _name := 'search_' || _name;
    end loop;
    _found := _found || _name;
  end loop;
  return format(
    '%I integer, %I double precision, %I integer, %I text, ', variadic _found
  ) || (
    select string_agg(format('%I %s', c.name, c.type), ', ' order by c.nr)
    from _pgstack.search_function_columns(plan) with ordinality as c (name, type, nr)
  );
end;
$$;

comment on function _pgstack.search_function_result(_pgstack.vectorizer_plan) is
'The result columns of a vectorizer''s search function, as SQL.';

-- offset 0: each row is looked up by its key, whatever the statistics say.
create or replace function _pgstack.search_function_body(plan _pgstack.vectorizer_plan)
returns text
language plpgsql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
begin
  return _pgstack.search_function_mark(plan.id) || format(
    $sql$select s.rank, s.score, s.chunk_seq, s.chunk, %s
from pgstack.search(
  %L, $1, k => $2, mode => $3, filter => $4, per => $5, fusion => $6, vector_weight => $7,
  rrf_k => $8, depth => $9, diversity => $10, rerank => $11, target_recall => $12
) as s
cross join lateral jsonb_to_record(s.id) as k (%s)
cross join lateral (select r.* from %s as r where %s offset 0) as r
order by s.rank;
$sql$,
    (
      select string_agg(format('r.%I', c.name), ', ' order by c.nr)
      from _pgstack.search_function_columns(plan) with ordinality as c (name, type, nr)
    ),
    plan.name, plan.key_record, plan.source, plan.key_match
  );
end;
$$;

comment on function _pgstack.search_function_body(_pgstack.vectorizer_plan) is
'The SQL of a vectorizer''s search function.';

create or replace function pgstack.create_search_function(vectorizer text, name text default null)
returns regprocedure
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _plan _pgstack.vectorizer_plan := _pgstack.vectorizer_plan(create_search_function.vectorizer);
  _name text[] := _pgstack.search_function_name(_plan, create_search_function.name);
  _old regprocedure := _pgstack.search_function(_plan);
  _statement text;
begin
  perform _pgstack.check_manager();
  if _pgstack.find_relation(_plan.source) is null then
    raise exception 'the source table % is gone', _plan.source
      using errcode = 'PS013', hint = format('select pgstack.drop_vectorizer(%L);', _plan.name);
  end if;
  _statement := format(
    'create or replace function %I.%I('
    'query text, k integer default 10, mode text default ''hybrid'', filter jsonb default null, '
    'per text default ''row'', fusion text default ''convex'', vector_weight float8 default null, '
    'rrf_k integer default null, depth integer default null, diversity float8 default 0, '
    'rerank text default null, target_recall float8 default null) '
    'returns table (%s) language sql volatile security invoker rows 10 '
    'set search_path = pg_catalog, pg_temp as %L',
    _name[1], _name[2],
    _pgstack.search_function_result(_plan), _pgstack.search_function_body(_plan)
  );
  begin
    if _old is not null and _name[2] <> (select p.proname from pg_proc as p where p.oid = _old) then
      execute format('drop function %s', _old);
    end if;
    execute _statement;
  exception
    -- It returns other columns than it did.
    when invalid_function_definition then
      if _old is null then
        raise;
      end if;
      execute format('drop function %s', _old);
      execute _statement;
  end;
  _old := _pgstack.search_function(_plan);
  execute format(
    'comment on function %s is %L', _old,
    format(
      'The rows of %s that fit a query best, and why: select pgstack.search(%L, ...) tells of the arguments. '
      'After a change of the table''s columns: select pgstack.create_search_function(%2$L);',
      _plan.source, _plan.name
    )
  );
  -- With the view goes its function.
  if _plan.has_table and _pgstack.owner() <> current_user and exists (
    select from pg_class as c
    where c.oid = _pgstack.find_relation(_plan.target)
      and pg_get_userbyid(c.relowner) = _pgstack.owner()
  ) then
    execute format('alter function %s owner to %I', _old, _pgstack.owner());
  end if;
  return _old;
end;
$$;

comment on function pgstack.create_search_function(text, text) is
'Makes the search function of a vectorizer, or makes it anew after the columns of its source changed. pgstack.create_vectorizer() has made one; vectorizers of plain pgai get theirs here. Returns it.
It is called <view>_search, or <vectorizer>_search where the vectors are in a column, stands in the same schema, and is called like pgstack.search() without the first argument: docs_embedding_search(''a query'', k => 5). per is ''row'' unless said otherwise.
It returns rank, score, chunk_seq, chunk and the columns of the source, which keep their names: where one is called rank, the rank is search_rank. Who calls it needs select on the whole source table.
vectorizer: its name, or its source table''s. name: another name for the function.
Raises PS001 unknown vectorizer, PS012 name taken or longer than 63 bytes, PS013 source gone, PS014 not the owner of pgstack.';

create or replace function _pgstack.drop_search_function(plan _pgstack.vectorizer_plan)
returns void
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _function regprocedure := _pgstack.search_function(plan);
begin
  if _function is not null then
    execute format('drop function %s', _function);
  end if;
end;
$$;

comment on function _pgstack.drop_search_function(_pgstack.vectorizer_plan) is
'Drops the search function of a vectorizer, if it has one.';
