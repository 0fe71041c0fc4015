-- Family: vector indexes.  Says which one is due; the worker builds it, concurrently,
-- which no function can.
-- Callers: pgstack/worker/index.py.
-- Errors: none.

-- The method a vectorizer wants, and can have here; NULL: none.
create or replace function _pgstack.index_method(plan _pgstack.vectorizer_plan)
returns text
language plpgsql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _wanted text;
begin
  select nullif(v.index_method, 'auto') into _wanted
  from _pgstack.vectorizer as v where v.vectorizer_id = plan.id;
  -- pgai-made vectorizers may ask for one in pgai's own words.
  _wanted := coalesce(
    _wanted,
    nullif(nullif(plan.config -> 'indexing' ->> 'implementation', 'none'), 'default'),
    _pgstack.setting_value('index_method')
  );
  if _wanted = 'diskann' and not exists (select from pg_am as m where m.amname = 'diskann') then
    _wanted := 'hnsw';
  end if;
  -- pgvector indexes vectors of up to 2000 dimensions.
  return case when _wanted = 'none' or (_wanted = 'hnsw' and plan.dimensions > 2000)
    then null else _wanted end;
end;
$$;

comment on function _pgstack.index_method(_pgstack.vectorizer_plan) is
'hnsw, diskann, or NULL for no index.';

-- At most one statement: drop what an interrupted build left, else build what is missing.
create or replace function _pgstack.index_due()
returns table (name text, statement text)
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _plan _pgstack.vectorizer_plan;
  _method text;
  _broken regclass;
  _valid boolean;
  _least bigint := _pgstack.setting_value('index_min_rows')::bigint;
  _enough boolean;
begin
  for _plan in select p.* from _pgstack.vectorizer_plan as p where not p.disabled order by p.id
  loop
    _method := _pgstack.index_method(_plan);
    continue when _method is null or _pgstack.vectorizer_problem(_plan) is not null;
    select
      min(i.indexrelid) filter (where not i.indisvalid)::regclass,
      coalesce(bool_or(i.indisvalid), false)
    into _broken, _valid
    from pg_index as i
    join pg_class as c on c.oid = i.indexrelid
    join pg_am as m on m.oid = c.relam
    join pg_attribute as a on a.attrelid = i.indrelid and a.attnum = i.indkey[0]
    where i.indrelid = _plan.target::regclass and a.attname = _plan.embedding_column
      and m.amname in ('hnsw', 'diskann', 'ivfflat');
    name := _plan.name;
    if _broken is not null then
      statement := format('drop index concurrently if exists %s', _broken);
      return next;
      return;
    end if;
    continue when _valid;
    execute format(
      'select count(*) >= $1 from (select from %s where %I is not null limit $1) as t',
      _plan.target, _plan.embedding_column
    ) using _least into _enough;
    continue when not _enough;
    statement := format(
      'create index concurrently on %s using %s (%I %s)',
      _plan.target, _method, _plan.embedding_column,
      case _method when 'hnsw' then '@extschema:vector@.vector_cosine_ops' else
        (
          select format('%I.%I', n.nspname, o.opcname)
          from pg_opclass as o
          join pg_namespace as n on n.oid = o.opcnamespace
          join pg_am as m on m.oid = o.opcmethod
          where m.amname = 'diskann' and o.opcname = 'vector_cosine_ops'
        )
      end
    );
    return next;
    return;
  end loop;
end;
$$;

comment on function _pgstack.index_due() is
'The next statement that builds a missing vector index, or clears a broken one away.';
