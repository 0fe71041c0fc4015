-- Family: what a vectorizer means.  Turns a row of pgai's catalogue into the names,
-- expressions and settings that the other families put into their statements.
-- Callers: 310 to 400.
-- Errors: PS001 unknown vectorizer.
--
-- Expressions use two aliases throughout: r is the row of a table (source, target or
-- queue), k is a key taken apart by jsonb_to_record(key) as k (<key_record>).
-- Functions the worker calls for each batch are in plpgsql, which keeps their plans.
-- A key travels as an object, {"id": 7}: every type and any number of columns.

-- PL/pgSQL, as every search asks: it keeps its plans, a function in SQL is planned at each call.
create or replace function _pgstack.content_columns(config jsonb)
returns text[]
language plpgsql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _template text := config -> 'formatting' ->> 'template';
  _column text := config -> 'loading' ->> 'column_name';
begin
  if _template = '$chunk' then
    return array[_column];
  end if;
  return _column || array_remove(_pgstack.template_columns(_template), _column);
end;
$$;

comment on function _pgstack.content_columns(jsonb) is
'The source columns a vectorizer reads: the loading column first, then those its template names.';

create or replace function _pgstack.target_relation(config jsonb, source text)
returns text
language plpgsql immutable
security invoker
set search_path = pg_catalog, pg_temp
as $$
begin
  return case config -> 'destination' ->> 'implementation'
    when 'table' then format(
      '%I.%I', config -> 'destination' ->> 'target_schema', config -> 'destination' ->> 'target_table'
    )
    else target_relation.source
  end;
end;
$$;

comment on function _pgstack.target_relation(jsonb, text) is
'The table that holds the vectors: of its own, or the source itself.';

-- Dropped only where it must be, when its columns changed: dropping takes the functions
-- along whose arguments are of this type, under the hands of workers that run.
do $do$
declare
  _view text := $view$
_pgstack.vectorizer_plan
with (security_invoker = true)
as
select
  v.id,
  v.name,
  v.disabled,
  v.config,
  pg_catalog.format('%I.%I', v.source_schema, v.source_table) as source,
  pg_catalog.format('%I.%I', v.queue_schema, v.queue_table) as queue,
  pg_catalog.format('%I.%I', v.queue_schema, v.queue_failed_table) as failed_queue,
  v.config -> 'destination' ->> 'implementation' = 'table' as has_table,
  _pgstack.target_relation(
    v.config, pg_catalog.format('%I.%I', v.source_schema, v.source_table)
  ) as target,
  coalesce(v.config -> 'destination' ->> 'embedding_column', 'embedding') as embedding_column,
  v.config -> 'loading' ->> 'column_name' as content_column,
  v.config -> 'formatting' ->> 'template' as template,
  v.config -> 'chunking' as chunking,
  v.config -> 'embedding' ->> 'model' as model,
  (v.config -> 'embedding' ->> 'dimensions')::integer as dimensions,
  v.config -> 'embedding' ->> 'base_url' as base_url,
  v.config -> 'embedding' -> 'options' as options,
  v.config -> 'embedding' ->> 'keep_alive' as keep_alive,
  (v.config -> 'processing' ->> 'batch_size')::integer as batch_size,
  x.key_columns,
  x.key_list,
  x.key_record,
  x.key_match,
  x.key_json,
  -- Beside the text what is made of it: what was loaded under another configuration is not
  -- what this one makes.  See work_complete().
  pg_catalog.format(
    'jsonb_build_array(%s, %s)', c.texts, pg_catalog.jsonb_hash_extended(v.config, 0)
  ) as content_json,
  'jsonb_build_object(' || c.pairs || ')' as content_vars
from ai.vectorizer as v
cross join lateral (
  select
    pg_catalog.array_agg(p.attname order by p.pknum) as key_columns,
    pg_catalog.string_agg(pg_catalog.format('%I', p.attname), ', ' order by p.pknum) as key_list,
    pg_catalog.string_agg(
      pg_catalog.format('%I %s', p.attname, p.typname), ', ' order by p.pknum
    ) as key_record,
    pg_catalog.string_agg(
      pg_catalog.format('r.%1$I = k.%1$I', p.attname), ' and ' order by p.pknum
    ) as key_match,
    'jsonb_build_object(' || pg_catalog.string_agg(
      pg_catalog.format('%L, r.%I', p.attname, p.attname), ', ' order by p.pknum
    ) || ')' as key_json
  from pg_catalog.jsonb_to_recordset(v.source_pk) as p (pknum integer, attname name, typname text)
) as x
cross join lateral (
  select
    pg_catalog.string_agg(
      pg_catalog.format('r.%I::text', n.name), ', ' order by n.nr
    ) as texts,
    pg_catalog.string_agg(
      pg_catalog.format('%L, r.%I::text', n.name, n.name), ', ' order by n.nr
    ) as pairs
  from pg_catalog.unnest(_pgstack.content_columns(v.config)) with ordinality as n (name, nr)
) as c
  $view$;
begin
  execute format('create or replace view %s', _view);
exception
  when invalid_table_definition or feature_not_supported then
    drop view _pgstack.vectorizer_plan cascade;
    execute format('create view %s', _view);
end;
$do$;

comment on view _pgstack.vectorizer_plan is
'Each vectorizer as names, SQL expressions and settings, ready for format().';

-- A vectorizer is found by its name, or by its source table when that has only one.
create or replace function _pgstack.vectorizer_plan(name text)
returns _pgstack.vectorizer_plan
language plpgsql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _plan _pgstack.vectorizer_plan;
  _ids integer[];
begin
  select p.* into _plan from _pgstack.vectorizer_plan as p where p.name = vectorizer_plan.name;
  if found then
    return _plan;
  end if;
  select array_agg(v.id order by v.id) into _ids
  from ai.vectorizer as v
  where vectorizer_plan.name in (v.source_table, format('%I.%I', v.source_schema, v.source_table));
  if cardinality(_ids) = 1 then
    return _pgstack.vectorizer_plan(_ids[1]);
  end if;
  perform _pgstack.unknown_vectorizer(vectorizer_plan.name);
end;
$$;

comment on function _pgstack.vectorizer_plan(text) is
'The plan of the vectorizer of that name, or of the only one on the table of that name. Raises PS001 when there is none, or more than one.';

create or replace function _pgstack.vectorizer_plan(id integer)
returns _pgstack.vectorizer_plan
language plpgsql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _plan _pgstack.vectorizer_plan;
begin
  select p.* into _plan from _pgstack.vectorizer_plan as p where p.id = vectorizer_plan.id;
  return _plan;
end;
$$;

comment on function _pgstack.vectorizer_plan(integer) is
'The plan of a vectorizer, or NULL when it is gone.';

-- to_regclass() raises where the caller may not use the schema.
create or replace function _pgstack.find_relation(relation text)
returns oid
language plpgsql stable strict
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _names text[];
begin
  return to_regclass(find_relation.relation);
exception
  when insufficient_privilege then
    _names := parse_ident(find_relation.relation);
    return (
      select c.oid
      from pg_namespace as n
      join pg_class as c on c.relnamespace = n.oid
      where n.nspname = _names[1] and c.relname = _names[2]
    );
end;
$$;

comment on function _pgstack.find_relation(text) is
'The oid of a relation given as schema.name, quoted; NULL when there is none.';
