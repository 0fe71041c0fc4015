-- Family: prepared searches.  The usual search, the nearest chunks and nothing else, has its
-- statement written into a function, _pgstack.prepared_search_<id>(), whose plan PostgreSQL keeps:
-- to write and to plan it anew takes about as long as to run it (docs/adr/0011-prepared-search.md).
-- Callers: 330_index.sql, by which a worker writes them; 338_recall.sql; 408_search.sql.
-- Errors: none of ours.  Whatever is unusual is left to 408_search.sql.
--
-- Much of what a short search costs beside its statement is what PL/pgSQL does, once a transaction,
-- for each expression that it meets.  So search() meets few on this way, and what can be known
-- before is in the function or in its row of _pgstack.prepared_search.

-- Functions that an older version wrote are not called any more; a worker writes them anew.
delete from _pgstack.prepared_search;

-- The parameters are those of 405_search_branch.sql.  A kept plan does not know how many rows
-- are wanted, so a sort would look cheap beside the index: it is told that it is not.
-- All the rows or none: a list that came out short is searched for again by other routes.
create or replace function _pgstack.prepared_body(
  plan _pgstack.vectorizer_plan, method text, index_type text, effort integer
)
returns text
language plpgsql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _request _pgstack.search_request;
begin
  _request.k := 1;
  _request.mode := 'vector';
  _request.per := 'chunk';
  _request.condition := 'true';
  _request.vector_route := 'index';
  _request.index_type := prepared_body.index_type;
  _request.all_or_none := true;
  return format(
    $body$
#variable_conflict use_column
begin%s
  return query
  select h.rank, h.id, h.chunk_seq, h.chunk, h.score, h.start_char, h.end_char,
    h.vector_rank, h.vector_score, h.text_rank, h.text_score, h.more
  from (%s) as h
  order by h.rank;
end;
    $body$,
    -- vectorscale's settings cannot be pinned to a function while it is not loaded.
    case when prepared_body.method = 'diskann'
      then format(E'\n  perform _pgstack.set_effort(''diskann'', %s);', effort) else '' end,
    _pgstack.search_statement(plan, _request)
  );
end;
$$;

comment on function _pgstack.prepared_body(_pgstack.vectorizer_plan, text, text, integer) is
'What the function of a prepared search does. index_type: what the index casts vectors to.';

create or replace function _pgstack.prepare_search(id integer)
returns void
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _made record;
  _plan _pgstack.vectorizer_plan;
  _index record;
  _effort integer;
begin
  -- Read before the plan: if the row changes in between, what is made here does not hold.
  select v.xmin, v.ctid into _made from ai.vectorizer as v where v.id = prepare_search.id;
  _plan := _pgstack.vectorizer_plan(prepare_search.id);
  lock table _pgstack.prepared_search in share row exclusive mode;
  select x.* into _index from _pgstack.vector_index(_plan) as x;
  if not found then
    return;
  end if;
  -- Without the library in the session only a superuser may pin its settings to a function.
  perform '[1]'::@extschema:vector@.vector;
  _effort := _pgstack.prepared_effort(_index.index, _index.method, 10);
  execute format(
    'create or replace function _pgstack.%I('
    'embedding @extschema:vector@.vector, query text, any_word tsquery, depth integer, rows integer) '
    'returns table (%s) language plpgsql volatile security invoker '
    'set search_path = pg_catalog, pg_temp set jit = off set plan_cache_mode = force_generic_plan '
    'set enable_sort = off set enable_seqscan = off set hnsw.ef_search = %s '
    'set hnsw.iterative_scan = ''relaxed_order'' set hnsw.max_scan_tuples = 2147483647 '
    'set hnsw.scan_mem_multiplier = 16 as %L',
    'prepared_search_' || _plan.id,
    'rank integer, id jsonb, chunk_seq integer, chunk text, score float8, '
    'start_char integer, end_char integer, '
    'vector_rank integer, vector_score float8, text_rank integer, text_score float8, more jsonb',
    _effort, _pgstack.prepared_body(_plan, _index.method, _index.expression_cast, _effort)
  );
  delete from _pgstack.prepared_search as p where p.vectorizer_id = _plan.id;
  insert into _pgstack.prepared_search
    (vectorizer_id, made_from, made_at, source, index, effort, most, model, dimensions)
  select _plan.id, _made.xmin, _made.ctid, _plan.source::regclass, _index.index, _effort,
    max(g.k), _plan.model, _plan.dimensions
  from generate_series(10, 100) as g (k)
  where _pgstack.prepared_effort(_index.index, _index.method, g.k) = _effort;
end;
$$;

comment on function _pgstack.prepare_search(integer) is
'Writes the function that finds the nearest chunks of a vectorizer along its vector index, if it has one.';

-- Of the session that prepares nothing counts: what it makes is for all.
create or replace function _pgstack.prepared_effort(index regclass, method text, k integer)
returns integer
language plpgsql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
begin
  return _pgstack.index_effort(prepared_effort.index, prepared_effort.method, prepared_effort.k, coalesce(
    (select s.value from _pgstack.setting as s where s.name = 'target_recall'),
    (select c.default_value from _pgstack.setting_catalogue() as c where c.name = 'target_recall')
  )::float8);
end;
$$;

comment on function _pgstack.prepared_effort(regclass, text, integer) is
'How hard a prepared search tries for k rows: index_effort() by the target of the database.';

create or replace function _pgstack.prepared_search_due(plan _pgstack.vectorizer_plan)
returns text
language plpgsql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
begin
  return (
    select format('select _pgstack.prepare_search(%s)', plan.id)
    from _pgstack.vector_index(plan) as x
    where not exists (
      select from _pgstack.prepared_search as p
      join ai.vectorizer as v on v.id = p.vectorizer_id and v.xmin = p.made_from and v.ctid = p.made_at
      where p.vectorizer_id = plan.id and p.index = x.index and p.source = _pgstack.find_relation(plan.source)
        and p.effort = _pgstack.prepared_effort(x.index, x.method, 10)
    )
  );
end;
$$;

comment on function _pgstack.prepared_search_due(_pgstack.vectorizer_plan) is
'The statement that prepares the search of a vectorizer; NULL when nothing is due.';

create or replace function _pgstack.drop_prepared_search(id integer)
returns void
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
set client_min_messages = warning
as $$
begin
  delete from _pgstack.prepared_search as p where p.vectorizer_id = drop_prepared_search.id;
  execute format(
    'drop function if exists _pgstack.%I(@extschema:vector@.vector, text, tsquery, integer, integer)',
    'prepared_search_' || drop_prepared_search.id
  );
end;
$$;

comment on function _pgstack.drop_prepared_search(integer) is
'Drops the prepared search of a vectorizer, if it has one.';

-- What it was made from is looked at each time: the vectorizer may mean other columns by now, and
-- the index may be gone.  Under row-level security the general search knows shorter ways.
create or replace function _pgstack.prepared_call(
  vectorizer text, k integer, out call text, out model text, out dimensions integer
)
language plpgsql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _source oid;
begin
  select 'prepared_search_' || p.vectorizer_id, p.model, p.dimensions, p.source
  into call, model, dimensions, _source
  from ai.vectorizer as v
  join _pgstack.prepared_search as p
    on p.vectorizer_id = v.id and p.made_from = v.xmin and p.made_at = v.ctid
    and p.most >= prepared_call.k
  join pg_index as i on i.indexrelid = p.index and i.indisvalid
  where v.name = prepared_call.vectorizer;
  -- The privilege of a table that is gone is NULL.
  if has_any_column_privilege(_source, 'select') is not true or row_security_active(_source) then
    call := null;
  end if;
end;
$$;

comment on function _pgstack.prepared_call(text, integer) is
'The function of a prepared search that finds k rows, the model of its vectors and their length. call is NULL when none serves.';
