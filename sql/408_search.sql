-- Family: search.  Reads a vectorizer's target and source with the caller's rights.
-- Callers: people, pgstack.ask(), pgstack/search.py, evaluation.
-- Errors: PS001 unknown vectorizer, PS002 wrong vector length, PS007 bad argument,
--         PS014 not a reader, and those of pgstack.embed().
--
-- One statement finds the rows: 405_search_branch.sql writes its branches, 406_search_statement.sql
-- the whole.  Here it is asked for, run, and run again where it found too little.

create or replace function _pgstack.embed_query(plan _pgstack.vectorizer_plan, query text)
returns @extschema:vector@.vector
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
begin
  -- embed() keeps vectors for the length of a statement, which takes longer than to look one up.
  return _pgstack.check_query_vector(plan, coalesce(
    _pgstack.remembered_vector(embed_query.query, plan.model, 'query'),
    pgstack.embed(embed_query.query, plan.model)
  ));
end;
$$;

comment on function _pgstack.embed_query(_pgstack.vectorizer_plan, text) is
'The vector of a query text, by the vectorizer''s own model. Raises PS002 when its length changed.';

create or replace function _pgstack.check_query_vector(
  plan _pgstack.vectorizer_plan, embedding @extschema:vector@.vector
)
returns @extschema:vector@.vector
language plpgsql immutable
security invoker
set search_path = pg_catalog, pg_temp
as $$
begin
  if @extschema:vector@.vector_dims(embedding) <> plan.dimensions then
    raise exception 'vectorizer "%" stores % dimensions, the query has %',
      plan.name, plan.dimensions, @extschema:vector@.vector_dims(embedding)
      using errcode = 'PS002',
      hint = format(
        'It uses the model %s. If that changed: select pgstack.drop_vectorizer(%L, drop_data => true);',
        plan.model, plan.name
      );
  end if;
  return embedding;
end;
$$;

comment on function _pgstack.check_query_vector(_pgstack.vectorizer_plan, @extschema:vector@.vector) is
'Returns the vector of a query; raises PS002 when it is not as long as the stored ones.';

-- ----------------------------------------------------------------------------- request

create or replace function _pgstack.refuse(argument text, value text, allowed text)
returns void
language plpgsql immutable
security invoker
set search_path = pg_catalog, pg_temp
as $$
begin
  raise exception '% %', argument, case
    when refuse.value is null then 'must not be null'
    when refuse.value ~ '^[-0-9.]+$' then 'cannot be ' || refuse.value
    else format('cannot be "%s"', refuse.value)
  end
    using errcode = 'PS007', hint = format('Pass %s.', allowed);
end;
$$;

comment on function _pgstack.refuse(text, text, text) is
'Raises PS007 for a value that an argument cannot have.';

-- One expression finds what is wrong, which is nothing at most searches.
create or replace function _pgstack.check_search(request _pgstack.search_request)
returns _pgstack.search_request
language plpgsql immutable
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _bad text := case
    when request.k is null or request.k not between 1 and 1000 then 'k'
    when request.mode is null or request.mode not in ('vector', 'text', 'hybrid') then 'mode'
    when request.per is null or request.per not in ('chunk', 'row') then 'per'
    when request.fusion is null or request.fusion not in ('convex', 'rrf') then 'fusion'
    when request.vector_weight not between 0 and 1 then 'vector_weight'
    when request.rrf_k not between 0 and 10000 then 'rrf_k'
    when request.depth not between 1 and 10000 then 'depth'
    when request.target_recall not between 0 and 1 then 'target_recall'
    when request.mode = 'vector' and request.embedding is not null then null
    when request.query is null then 'query'
    when request.query !~ '\S' then 'empty'
  end;
begin
  if _bad is null then
    return request;
  elsif _bad = 'empty' then
    raise exception 'there is nothing to search for in an empty text'
      using errcode = 'PS007', hint = 'Pass some words.';
  end if;
  perform _pgstack.refuse(_bad, to_jsonb(request) ->> _bad, case _bad
    when 'k' then '1 to 1000'
    when 'mode' then 'vector, text or hybrid'
    when 'per' then 'chunk or row'
    when 'fusion' then 'convex or rrf'
    when 'rrf_k' then '0 to 10000'
    when 'depth' then '1 to 10000'
    when 'query' then 'what to look for, in plain words'
    else '0 to 1'
  end);
end;
$$;

comment on function _pgstack.check_search(_pgstack.search_request) is
'Returns a request as it is; raises PS007 for arguments search() cannot use.';

create or replace function _pgstack.new_request(
  query text, k integer, mode text, per text, fusion text, vector_weight float8, rrf_k integer,
  depth integer, target_recall float8, embedding @extschema:vector@.vector
)
returns _pgstack.search_request
language plpgsql immutable
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _request _pgstack.search_request;
begin
  _request.query := new_request.query;
  _request.k := new_request.k;
  _request.mode := new_request.mode;
  _request.per := new_request.per;
  _request.fusion := new_request.fusion;
  _request.vector_weight := new_request.vector_weight;
  _request.rrf_k := new_request.rrf_k;
  _request.depth := new_request.depth;
  _request.target_recall := new_request.target_recall;
  _request.embedding := new_request.embedding;
  return _pgstack.check_search(_request);
end;
$$;

comment on function _pgstack.new_request(
  text, integer, text, text, text, float8, integer, integer, float8, @extschema:vector@.vector
) is
'What pgstack.search() was asked. Raises PS007 for arguments it cannot use.';

-- A reader needs the table of chunks, which pgstack.create_vectorizer() opens to everybody
-- and plain pgai does not, and of the source the key and the text.
create or replace function _pgstack.check_reader(plan _pgstack.vectorizer_plan)
returns void
language plpgsql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _closed text;
begin
  select x.relation into _closed
  from (
    values
      (plan.source, plan.key_columns::text[] || _pgstack.content_columns(plan.config)),
      (plan.target, case when plan.has_table then array['chunk'] end)
  ) as x (relation, columns)
  join pg_class as c on c.oid = _pgstack.find_relation(x.relation)
  where not has_schema_privilege(c.relnamespace, 'usage')
    or not (
      select bool_and(has_column_privilege(c.oid, n.name, 'select'))
      from unnest(x.columns) as n (name)
    )
  limit 1;
  if found then
    raise exception 'the role "%" may not read %', current_user, _closed
      using errcode = 'PS014', hint = format('grant select on %s to %I;', _closed, current_user);
  end if;
end;
$$;

comment on function _pgstack.check_reader(_pgstack.vectorizer_plan) is
'Raises PS014 for a role that may not read a vectorizer''s chunks, or the text they come from.';

create or replace function _pgstack.search_condition(plan _pgstack.vectorizer_plan, filter jsonb)
returns text
language plpgsql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
begin
  if filter is null then
    return 'true';
  end if;
  return _pgstack.filter_condition(plan, filter, case when plan.has_table then 'k' else 'r' end);
end;
$$;

comment on function _pgstack.search_condition(_pgstack.vectorizer_plan, jsonb) is
'A filter as the condition that 405_search_branch.sql puts into its statements.';

-- Fills in what was left open, and looks up the indexes.  What reads matching rows only needs no
-- index; who explains wants to know of it all the same.
create or replace function _pgstack.complete_request(
  plan _pgstack.vectorizer_plan, request _pgstack.search_request
)
returns _pgstack.search_request
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
begin
  request.with_vector := coalesce(request.with_vector, false);
  request.rows := coalesce(request.rows, request.k);
  request.rrf_k := coalesce(request.rrf_k, 60);
  request.depth := greatest(request.rows, coalesce(
    request.depth,
    case when request.mode = 'hybrid' then 100 when request.per = 'row' then 4 * request.rows end
  ));
  if request.mode <> 'vector' then
    request.words := _pgstack.words(plan, request.query);
  end if;
  request := _pgstack.choose_routes(plan, request);
  if request.mode = 'text' then
    request.vector_route := 'all';
    return request;
  elsif request.embedding is null then
    request.embedding := _pgstack.embed_query(plan, request.query);
  else
    perform _pgstack.check_query_vector(plan, request.embedding);
  end if;
  if request.vector_route <> 'matching' or request.explained is not null then
    select x.index, x.method, x.expression_cast
    into request.index, request.index_method, request.index_type
    from _pgstack.vector_index(plan) as x;
    if request.vector_route = 'matching' then
      request.index_type := null;
    elsif request.index_method is null then
      request.vector_route := 'all';
    end if;
  end if;
  return request;
end;
$$;

comment on function _pgstack.complete_request(_pgstack.vectorizer_plan, _pgstack.search_request) is
'A request with everything that its statement needs: defaults, the query''s vector, indexes and routes.';

-- --------------------------------------------------------------------------------- run

create or replace function _pgstack.run_search(
  plan _pgstack.vectorizer_plan, request _pgstack.search_request
)
returns _pgstack.hit[]
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _each tsquery[] := (request.words).query;
  _statement text := _pgstack.search_statement(plan, request);
  _hits _pgstack.hit[];
begin
  if request.explained is not null then
    return _pgstack.explain_run(plan, request, _statement);
  end if;
  execute format('select array_agg(h::_pgstack.hit order by h.rank) from (%s) as h', _statement)
  into _hits
  using request.embedding, request.query, array_to_string(_each, ' | ')::tsquery,
    request.depth, request.rows, _each;
  return coalesce(_hits, '{}');
end;
$$;

comment on function _pgstack.run_search(_pgstack.vectorizer_plan, _pgstack.search_request) is
'The rows that the statement of a request finds, in order.';

create or replace function _pgstack.try_hard(request _pgstack.search_request)
returns void
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
begin
  if request.vector_route = 'index' then
    perform _pgstack.set_effort(request.index_method, _pgstack.index_effort(
      request.index, request.index_method, greatest(request.k, request.depth / 2),
      request.target_recall
    ));
  end if;
end;
$$;

comment on function _pgstack.try_hard(_pgstack.search_request) is
'Makes the vector index that a request goes by try as hard as it must.';

-- A short list has three causes: nothing more fits; the best chunks were of few rows; or the
-- walk along an index ended before enough rows satisfied the condition.  So: deeper, then
-- without the index.
create or replace function _pgstack.search_hits(
  plan _pgstack.vectorizer_plan, request _pgstack.search_request
)
returns _pgstack.hit[]
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
set jit = off
set hnsw.ef_search = 40
set hnsw.iterative_scan = 'relaxed_order'
set hnsw.max_scan_tuples = 2147483647
set hnsw.scan_mem_multiplier = 16
as $$
declare
  _hits _pgstack.hit[];
begin
  perform _pgstack.try_hard(request);
  loop
    _hits := _pgstack.run_search(plan, request);
    exit when cardinality(_hits) >= request.rows;
    if request.per = 'row' and request.depth < 100000 and request.depth <= (
      select count(*) + coalesce(sum(jsonb_array_length(h.more)), 0) from unnest(_hits) as h
    ) then
      request.depth := request.depth * 8;
    elsif request.vector_route = 'index' then
      request.vector_route := 'all';
    else
      exit;
    end if;
  end loop;
  return _hits;
end;
$$;

comment on function _pgstack.search_hits(_pgstack.vectorizer_plan, _pgstack.search_request) is
'The rows of a search: as many as were asked for whenever as many fit.';

-- One branch, chunk by chunk, and no step behind it: the rows go to the caller as they come.
create or replace function _pgstack.plain_search(
  plan _pgstack.vectorizer_plan, request _pgstack.search_request
)
returns setof _pgstack.hit
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
set jit = off
set hnsw.ef_search = 40
set hnsw.iterative_scan = 'relaxed_order'
set hnsw.max_scan_tuples = 2147483647
set hnsw.scan_mem_multiplier = 16
as $$
declare
  _each tsquery[] := (request.words).query;
begin
  request.all_or_none := request.vector_route = 'index' and request.mode = 'vector';
  perform _pgstack.try_hard(request);
  return query execute _pgstack.search_statement(plan, request)
  using request.embedding, request.query, array_to_string(_each, ' | ')::tsquery,
    request.depth, request.rows, _each;
end;
$$;

comment on function _pgstack.plain_search(_pgstack.vectorizer_plan, _pgstack.search_request) is
'The rows of a search of one branch, none if it walks along a vector index and does not find all.';

-- All steps of a search.
create or replace function _pgstack.find_hits(
  plan _pgstack.vectorizer_plan, request _pgstack.search_request, filter jsonb,
  diversity float8, rerank text
)
returns _pgstack.hit[]
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
begin
  request := _pgstack.widen_request(request, diversity, rerank);
  request.condition := _pgstack.search_condition(plan, filter);
  return _pgstack.refine_hits(
    request, _pgstack.search_hits(plan, _pgstack.complete_request(plan, request)), diversity, rerank
  );
end;
$$;

comment on function _pgstack.find_hits(
  _pgstack.vectorizer_plan, _pgstack.search_request, jsonb, float8, text
) is
'The rows of a search after all its steps: found, reranked, made diverse.';

create or replace function pgstack.search(
  vectorizer text,
  query text,
  k integer default 10,
  mode text default 'hybrid',
  filter jsonb default null,
  per text default 'chunk',
  fusion text default 'convex',
  vector_weight float8 default null,
  rrf_k integer default null,
  depth integer default null,
  diversity float8 default 0,
  rerank text default null,
  target_recall float8 default null,
  embedding @extschema:vector@.vector default null
)
returns table (
  rank integer, id jsonb, chunk_seq integer, chunk text, score float8,
  start_char integer, end_char integer,
  vector_rank integer, vector_score float8, text_rank integer, text_score float8, more jsonb
)
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _request _pgstack.search_request;
  _plan _pgstack.vectorizer_plan;
  _prepared record;
  _vector @extschema:vector@.vector;
  _plain boolean := search.mode <> 'hybrid' and search.per = 'chunk' and search.diversity = 0
    and search.rerank is null;
begin
  -- One expression: each costs some microseconds.
  if _plain and search.mode = 'vector' and search.k > 0 and search.filter is null
    and search.depth is null and search.vector_weight is null and search.rrf_k is null
    and search.fusion in ('convex', 'rrf') and (search.query ~ '\S' or search.embedding is not null)
    and coalesce(search.target_recall::text, current_setting('pgstack.target_recall', true), '') = ''
  then
    _prepared := _pgstack.prepared_call(search.vectorizer, search.k);
    if _prepared.call is not null then
      _vector := coalesce(
        search.embedding, _pgstack.remembered_vector(search.query, _prepared.model, 'query')
      );
      if @extschema:vector@.vector_dims(_vector) = _prepared.dimensions then
        return query execute format('select * from _pgstack.%I($1, null, null, $2, $2)', _prepared.call)
        using _vector, search.k;
        if found then
          return;
        end if;
      end if;
    end if;
  end if;
  _request := _pgstack.new_request(
    search.query, search.k, search.mode, search.per, search.fusion, search.vector_weight,
    search.rrf_k, search.depth, search.target_recall, search.embedding
  );
  _plan := _pgstack.vectorizer_plan(search.vectorizer);
  if _plain then
    _request.condition := _pgstack.search_condition(_plan, search.filter);
    _request := _pgstack.complete_request(_plan, _request);
    return query
    select h.rank, h.id, h.chunk_seq, h.chunk, h.score, h.start_char, h.end_char,
      h.vector_rank, h.vector_score, h.text_rank, h.text_score, h.more
    from _pgstack.plain_search(_plan, _request) as h;
    if found or _request.vector_route <> 'index' then
      return;
    end if;
  end if;
  return query
  select h.rank, h.id, h.chunk_seq, h.chunk, h.score, h.start_char, h.end_char,
    h.vector_rank, h.vector_score, h.text_rank, h.text_score, h.more
  from unnest(
    _pgstack.find_hits(_plan, _request, search.filter, search.diversity, search.rerank)
  ) as h;
exception
  when insufficient_privilege then
    -- In words of ours, where it is the table that may not be read.
    perform _pgstack.check_reader(_pgstack.vectorizer_plan(search.vectorizer));
    raise;
end;
$$;

comment on function pgstack.search(
  text, text, integer, text, jsonb, text, text, float8, integer, integer, float8, text, float8,
  @extschema:vector@.vector
) is
'The k chunks of a vectorizer''s source that fit a query best, the best first, of the rows the caller may see.
vectorizer: its name, or its source table''s. query: plain words. k: 1 to 1000, default 10; fewer come only when fewer fit.
mode: vector (meaning), text (words, ranked by BM25) or hybrid (both). filter: conditions over source columns, {"status": "open", "price": {"lt": 10}}.
per: chunk, or row: the best chunk of each source row, its others in more. fusion of both: convex (weighted scores) or rrf (reciprocal rank fusion, rrf_k: its constant, default 60). vector_weight: 0 to 1, the share of vector beside text; default: by what the branches find for convex, 0.5 for rrf. depth: candidates of each branch.
diversity: 0 to 1, how much a row that repeats a better one is put back (maximal marginal relevance). rerank: a generation model that puts the best 20 in order, for which query is needed; score stays that of the search. target_recall: 0 to 1, how exactly the vector index is to be searched. embedding: the query''s vector, if it is known.
Returns rank from 1, id: the source row''s key as an object, {"id": 7}, chunk_seq from 0, the chunk, score (higher is better; vector: cosine similarity), where the chunk stands in the source text, in characters, its rank and score in each branch, NULL where that did not find it, and more: [{"chunk_seq", "score", "start_char", "end_char"}].
Raises PS001 unknown vectorizer, PS002 wrong vector length, PS007 bad argument, PS014 not a reader, and what pgstack.embed() raises.';
