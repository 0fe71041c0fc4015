-- Family: indexes that the worker builds.  Says which statement is due; the worker runs it
-- outside of any transaction, as concurrent builds want it, which no function can.
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
  _has_diskann boolean := exists (select from pg_am as m where m.amname = 'diskann');
begin
  select nullif(v.index_method, 'auto') into _wanted
  from _pgstack.vectorizer as v where v.vectorizer_id = plan.id;
  -- pgai-made vectorizers may ask for one in pgai's own words.
  _wanted := coalesce(
    _wanted,
    nullif(nullif(plan.config -> 'indexing' ->> 'implementation', 'none'), 'default'),
    _pgstack.setting_value('index_method')
  );
  if _wanted = 'diskann' and not _has_diskann then
    _wanted := 'hnsw';
  elsif _wanted = 'hnsw' and plan.dimensions > 4000 and _has_diskann then
    _wanted := 'diskann';
  end if;
  return case when _pgstack.index_storage(_wanted, plan.dimensions) = 'none' then null else _wanted end;
end;
$$;

comment on function _pgstack.index_method(_pgstack.vectorizer_plan) is
'hnsw, diskann, or NULL for no index.';

-- pgvector indexes vectors of up to 2000 dimensions, half vectors of up to 4000.
create or replace function _pgstack.index_storage(method text, dimensions integer)
returns text
language sql immutable
security invoker
set search_path = pg_catalog, pg_temp
as $$
  select case
    when method = 'hnsw' and dimensions <= 2000 then 'vector'
    when method = 'hnsw' and dimensions <= 4000 then 'halfvec'
    when method = 'diskann' then 'sbq'
    else 'none'
  end;
$$;

comment on function _pgstack.index_storage(text, integer) is
'How an index of a method keeps vectors of this length, if nobody says otherwise: vector, halfvec, sbq; none: it cannot.';

-- One function a kind of index; each gives a statement or none.  What fails may not stay due
-- for ever: those behind it would wait.
create or replace function _pgstack.index_due()
returns table (name text, statement text)
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _plan _pgstack.vectorizer_plan;
begin
  return query select d.name, d.statement from _pgstack.vector_index_due() as d;
  if found then
    return;
  end if;
  -- In no order: one that fails every time does not keep the others waiting.
  for _plan in select p.* from _pgstack.vectorizer_plan as p where not p.disabled order by random()
  loop
    continue when _pgstack.vectorizer_problem(_plan) is not null
      or _pgstack.rights_problem(_plan) is not null
      or not _plan.has_table and _pgstack.hold_source(_plan) is not null;
    name := _plan.name;
    statement := coalesce(_pgstack.text_index_due(_plan), _pgstack.prepared_search_due(_plan));
    if statement is not null then
      return next;
      return;
    end if;
  end loop;
end;
$$;

comment on function _pgstack.index_due() is
'The next statement of the worker that builds a missing index, clears a broken one away, or prepares searches by it; the vectorizer it is for. Run as often as it gives one.';

-- Called when a statement of index_due() failed.
create or replace function _pgstack.index_failed(name text, sqlstate text, message text)
returns void
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
begin
  perform _pgstack.vector_index_failed(index_failed.name, index_failed.sqlstate, index_failed.message);
end;
$$;

comment on function _pgstack.index_failed(text, text, text) is
'Remembers why a statement of index_due() failed; it is due again after a while, a few times.';
