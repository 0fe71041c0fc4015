-- Family: schemas and types.  The installer created the schemas; here they get their comments.

comment on schema pgstack is
'Semantic search, embeddings and model calls as SQL functions. Stable: what is here keeps its name and signature.';

comment on schema _pgstack is
'Private to pgstack: may change in any release. Use the functions in schema pgstack.';

-- Row types that functions hand on are made here and there in sql/.  One that is there with
-- other fields, of an earlier version, goes with the functions that use it, which are made
-- anew right behind.  Not for what a running worker calls.
create or replace function _pgstack.define_type(name text, fields text)
returns void
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
set client_min_messages = warning
as $$
declare
  _found text[];
begin
  execute format('create type _pgstack.%I as (%s)', define_type.name || '_new', fields);
  select array_agg(t.fields order by t.relname) into _found
  from (
    select c.relname, string_agg(
      format('%I %s', a.attname, format_type(a.atttypid, a.atttypmod)), ', ' order by a.attnum
    ) as fields
    from pg_class as c
    join pg_attribute as a on a.attrelid = c.oid and not a.attisdropped
    where c.relnamespace = '_pgstack'::regnamespace
      and c.relname in (define_type.name, define_type.name || '_new')
    group by c.relname
  ) as t;
  if _found[1] = _found[2] then
    execute format('drop type _pgstack.%I', define_type.name || '_new');
    return;
  end if;
  execute format('drop type if exists _pgstack.%I cascade', define_type.name);
  execute format('alter type _pgstack.%I rename to %I', define_type.name || '_new', define_type.name);
end;
$$;

comment on function _pgstack.define_type(text, text) is
'Makes a row type of schema _pgstack, or makes it anew if its fields changed.';
