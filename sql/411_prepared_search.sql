-- Family: prepared searches.  The usual search, the nearest chunks and nothing else, has its
-- statement written into a function, _pgstack.prepared_search_<id>(), whose plan PostgreSQL keeps:
-- to write and to plan it anew takes longer than to run it (docs/adr/0011-prepared-search.md).
-- Callers: 330_index.sql, by which a worker writes them; 408_search.sql.
-- Errors: none of ours.  Whatever is unusual is left to 408_search.sql.

-- Functions that an older version wrote are not called any more; a worker writes them anew.
delete from _pgstack.prepared_search;

-- The parameters are those of 405_search_branch.sql.  A kept plan does not know how many rows
-- are wanted, so a sort would look cheap beside the index: it is told that it is not.
-- All the rows or none: a list that came out short is searched for again by other routes.
create or replace function _pgstack.prepare_search(id integer)
returns void
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _plan _pgstack.vectorizer_plan := _pgstack.vectorizer_plan(prepare_search.id);
  _index record;
  _request _pgstack.search_request;
begin
  lock table _pgstack.prepared_search in share row exclusive mode;
  select x.* into _index from _pgstack.vector_index(_plan) as x;
  if not found then
    return;
  end if;
  -- Without the library in the session only a superuser may pin its settings to a function.
  perform '[1]'::@extschema:vector@.vector;
  _request.k := 1;
  _request.mode := 'vector';
  _request.per := 'chunk';
  _request.condition := 'true';
  _request.vector_route := 'index';
  _request.index_type := _index.expression_cast;
  _request.all_or_none := true;
  execute format(
    'create or replace function %s('
    'embedding @extschema:vector@.vector, query text, any_word tsquery, depth integer, rows integer) '
    'returns table (%s) language plpgsql volatile security invoker '
    'set search_path = pg_catalog, pg_temp set jit = off set plan_cache_mode = force_generic_plan '
    'set enable_sort = off set enable_seqscan = off '
    'set hnsw.iterative_scan = ''relaxed_order'' set hnsw.max_scan_tuples = 2147483647 '
    'set hnsw.scan_mem_multiplier = 16 as %L',
    _pgstack.prepared_function(_plan.id),
    'rank integer, id jsonb, chunk_seq integer, chunk text, score float8, '
    'start_char integer, end_char integer, '
    'vector_rank integer, vector_score float8, text_rank integer, text_score float8, more jsonb',
    format(
      $body$
#variable_conflict use_column
begin
  return query
  select h.rank, h.id, h.chunk_seq, h.chunk, h.score, h.start_char, h.end_char,
    h.vector_rank, h.vector_score, h.text_rank, h.text_score, h.more
  from (%s) as h
  order by h.rank;
end;
      $body$,
      _pgstack.search_statement(_plan, _request)
    )
  );
  delete from _pgstack.prepared_search as p where p.vectorizer_id = _plan.id;
  insert into _pgstack.prepared_search
    (vectorizer_id, config, source_schema, source_table, source_pk, source, target, indexes,
      index, method, model, dimensions)
  select v.id, v.config, v.source_schema, v.source_table, v.source_pk,
    _plan.source::regclass, _plan.target::regclass,
    array(
      select i.indexrelid from pg_index as i
      where i.indrelid = _plan.target::regclass and i.indisvalid
      order by i.indexrelid
    ),
    _index.index, _index.method, _plan.model, _plan.dimensions
  from ai.vectorizer as v
  where v.id = _plan.id;
end;
$$;

comment on function _pgstack.prepare_search(integer) is
'Writes the function that finds the nearest chunks of a vectorizer along its vector index, if it has one.';

create or replace function _pgstack.prepared_function(id integer)
returns text
language plpgsql immutable
security invoker
set search_path = pg_catalog, pg_temp
as $$
begin
  return '_pgstack.prepared_search_' || id;
end;
$$;

comment on function _pgstack.prepared_function(integer) is
'The name of the function that prepare_search() writes.';

-- Another index may have come, and the vectorizer may mean other columns by now.
create or replace function _pgstack.prepared_search(vectorizer text)
returns _pgstack.prepared_search
language plpgsql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _prepared _pgstack.prepared_search;
begin
  select p.* into _prepared
  from ai.vectorizer as v
  join _pgstack.prepared_search as p on p.vectorizer_id = v.id
  join pg_class as c on c.oid = p.source
  where v.name = prepared_search.vectorizer
    and (p.config, p.source_schema, p.source_table, p.source_pk)
      = (v.config, v.source_schema, v.source_table, v.source_pk)
    and p.indexes = array(
      select i.indexrelid from pg_index as i
      where i.indrelid = p.target and i.indisvalid
      order by i.indexrelid
    );
  return _prepared;
end;
$$;

comment on function _pgstack.prepared_search(text) is
'The prepared search of the vectorizer of that name as long as it holds; else NULL.';

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
    where x.index is distinct from (_pgstack.prepared_search(plan.name)).index
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
    'drop function if exists %s(@extschema:vector@.vector, text, tsquery, integer, integer)',
    _pgstack.prepared_function(drop_prepared_search.id)
  );
end;
$$;

comment on function _pgstack.drop_prepared_search(integer) is
'Drops the prepared search of a vectorizer, if it has one.';

-- Nothing comes back when it takes more than this: another route, a model, an error of ours.
create or replace function _pgstack.run_prepared_search(
  vectorizer text, request _pgstack.search_request
)
returns table (
  rank integer, id jsonb, chunk_seq integer, chunk text, score float8,
  start_char integer, end_char integer,
  vector_rank integer, vector_score float8, text_rank integer, text_score float8, more jsonb
)
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
set hnsw.ef_search = 40
as $$
declare
  _prepared _pgstack.prepared_search := _pgstack.prepared_search(run_prepared_search.vectorizer);
begin
  if _prepared.vectorizer_id is null or row_security_active(_prepared.source) then
    return;
  end if;
  request.embedding := coalesce(
    request.embedding, _pgstack.remembered_vector(request.query, _prepared.model, 'query')
  );
  if (@extschema:vector@.vector_dims(request.embedding) = _prepared.dimensions) is not true then
    return;
  end if;
  perform _pgstack.set_effort(_prepared.method, _pgstack.index_effort(
    _prepared.index, _prepared.method, request.k, request.target_recall
  ));
  return query execute format(
    'select * from %s($1, null, null, $2, $2)', _pgstack.prepared_function(_prepared.vectorizer_id)
  ) using request.embedding, request.k;
end;
$$;

comment on function _pgstack.run_prepared_search(text, _pgstack.search_request) is
'The k chunks nearest to a query''s vector by the prepared search; no row when there is none that serves.';
