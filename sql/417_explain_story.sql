-- Family: search explained, as a story.  Tells the document of 415_explain_search.sql.
-- Callers: people, pgstack/search.py.
-- Errors: those of pgstack.search().

create or replace function _pgstack.tell_question(document jsonb)
returns table (step text, what text, detail text, rows bigint, ms float8)
language plpgsql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _request jsonb := document -> 'runs' -> 0 -> 'request';
  _words jsonb := _request -> 'words';
  _embedding jsonb := document -> 'embedding';
begin
  return query select
    'query', document ->> 'mode',
    format('%s best %ss of %s, table %s', document ->> 'k', document ->> 'per', document ->> 'vectorizer', document ->> 'source'),
    null::bigint, (document ->> 'lookup_ms')::float8;
  if _embedding is not null then
    return query select
      'embedding', coalesce(_embedding ->> 'model', 'vector'),
      case _embedding ->> 'from'
        when 'model' then 'the model was asked'
        when 'cache' then 'from the query cache: this role asked it before'
        when 'session' then 'from the memory of this session'
        when 'caller' then 'passed by the caller'
        else 'the model did not answer'
      end,
      null::bigint, (_embedding ->> 'ms')::float8;
  end if;
  if _words is not null and document ->> 'mode' <> 'vector' then
    return query select
      'words', _words ->> 'config',
      concat_ws('; ',
        case when _words ->> 'method' = 'bm25' then 'those of the query'
          else coalesce((select string_agg(w.value, ' ') from jsonb_array_elements_text(_words -> 'query') as w), 'none')
        end,
        case _words ->> 'method'
          when 'bm25' then 'by the index ' || (_words ->> 'relation')
          when 'tsvector' then 'in the table ' || (_words ->> 'relation')
          else 'each chunk is read'
        end
      ),
      jsonb_array_length(_words -> 'query')::bigint, null::float8;
  end if;
  if _request ->> 'condition' <> 'true' then
    return query select
      'filter', 'SQL', _request ->> 'condition', null::bigint, null::float8;
  end if;
  if _request ->> 'counted_to' is not null then
    return query select
      'filter', 'rows that match',
      case when (_request ->> 'matching')::bigint < (_request ->> 'counted_to')::bigint then 'all of them'
        else 'at least: enough to walk an index, so counted no further' end
      || case when (document ->> 'guarded')::boolean then ', of those this role sees' else '' end,
      (_request ->> 'matching')::bigint, (document ->> 'prepare_ms')::float8;
  end if;
end;
$$;

comment on function _pgstack.tell_question(jsonb) is
'What was asked, and what was found out before the search.';

create or replace function _pgstack.route_reason(run jsonb, branch text)
returns text
language plpgsql immutable
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _request jsonb := run -> 'request';
  _route text := _request ->> (route_reason.branch || '_route');
  _filtered boolean := _request ->> 'counted_to' is not null;
begin
  return case
    when _route = 'matching' then 'from the rows that match to their chunks: they are few'
    when branch = 'vector' and _route = 'index' and _filtered then 'along the index, past what does not match: many match'
    when branch = 'vector' and _route = 'index' then 'along the index'
    when branch = 'vector' and _request ->> 'index_method' is null then 'all vectors compared: there is no index to use'
    when branch = 'vector' then 'all vectors compared: the walk along the index ended too early'
    when _request -> 'words' ->> 'method' is null then 'all chunks read: their words are not stored'
    when _route = 'index' then 'by the index of words'
    else 'by the index of words, joined with the rows that match'
  end;
end;
$$;

comment on function _pgstack.route_reason(jsonb, text) is
'The route of a branch and why it was taken, in words.';

create or replace function _pgstack.tell_branch(run jsonb, branch text)
returns text
language plpgsql immutable
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _facts jsonb := run -> tell_branch.branch;
begin
  return concat_ws('; ',
    _pgstack.route_reason(run, branch),
    (select string_agg(i.value, ', ') from jsonb_array_elements_text(_facts -> 'scans') as i),
    case when branch = 'vector' and _facts ? 'walked' then concat_ws(', ',
      'index ' || (_facts ->> 'walked'),
      'ef_search ' || (run -> 'settings' ->> 'hnsw.ef_search'),
      'query_rescore ' || (run -> 'settings' ->> 'diskann.query_rescore'),
      format(
        'for a recall of %s, %s', run -> 'recall' ->> 'target',
        case when run -> 'recall' ->> 'measured' is null then 'assumed' else 'measured' end
      )
    ) else 'indexes ' || (select string_agg(i.value, ', ') from jsonb_array_elements_text(_facts -> 'indexes') as i) end,
    case when _facts ? 'read' then format(
      '%s chunks read, %s of them lost to %s; %s blocks, %s from disk',
      _facts ->> 'read', (_facts ->> 'read')::bigint - (_facts ->> 'passed')::bigint,
      case branch when 'text' then 'missing words, filter or join' else 'filter or join' end,
      _facts ->> 'blocks', _facts ->> 'blocks_from_disk'
    ) end
  );
end;
$$;

comment on function _pgstack.tell_branch(jsonb, text) is
'How a branch found its candidates, in words.';

create or replace function _pgstack.tell_run(document jsonb, run jsonb, nr bigint)
returns table (step text, what text, detail text, rows bigint, ms float8)
language plpgsql immutable
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _step text := format('run %s', tell_run.nr);
  _request jsonb := run -> 'request';
  _facts jsonb;
  _branch text;
begin
  foreach _branch in array array['vector', 'text'] loop
    _facts := run -> _branch;
    if _facts is not null then
      return query select
        _step, _branch || ' branch', _pgstack.tell_branch(run, _branch),
        (_facts ->> 'candidates')::bigint, (_facts ->> 'ms')::float8;
    end if;
  end loop;
  if run ? 'fused' then
    return query select
      _step, 'fusion',
      concat_ws('; ',
        format('%s found by both', run ->> 'overlap'),
        case document ->> 'fusion'
          when 'rrf' then format('ranks, k %s', _request ->> 'rrf_k') else 'scores' end,
        format(
          'vector weighs %s%s', round((run ->> 'share')::numeric, 3),
          case when _request ->> 'vector_weight' is null and document ->> 'fusion' <> 'rrf'
            then ', by what the branches found' else '' end
        )
      ),
      (run ->> 'fused')::bigint, null::float8;
  end if;
  return query select
    _step, 'statement',
    case when tell_run.nr > 1 then 'too few rows before; ' else '' end || format(
      'depth %s; planning %s ms, execution %s ms when explained', _request ->> 'depth',
      run ->> 'planning_ms', run ->> 'execution_ms'
    ),
    (run ->> 'hits')::bigint, (run ->> 'ms')::float8;
end;
$$;

comment on function _pgstack.tell_run(jsonb, jsonb, bigint) is
'One run of the statement.';

create or replace function _pgstack.tell_result(document jsonb)
returns table (step text, what text, detail text, rows bigint, ms float8)
language plpgsql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _status jsonb := document -> 'status';
begin
  return query select
    'freshness', coalesce(_status ->> 'state', 'unknown'),
    case when _status ->> 'pending' is null then 'this role cannot read the queue: rows are judged by their text'
      else concat_ws(', ', 'rows queued in all', 'the oldest for ' || (_status ->> 'lag_s') || ' s') end,
    (_status ->> 'pending')::bigint, null::float8;
  return query
  select
    'row ' || (h.value ->> 'rank'),
    format('%s chunk %s', h.value ->> 'id', h.value ->> 'chunk_seq'),
    concat_ws('; ',
      format('score %s', round((h.value ->> 'score')::numeric, 4)),
      'vector ' || (h.value ->> 'vector_rank') || ' (' || round((h.value ->> 'vector_score')::numeric, 3) || ')',
      'text ' || (h.value ->> 'text_rank') || ' (' || round((h.value ->> 'text_score')::numeric, 3) || ')',
      nullif(h.value ->> 'more', '0') || ' more chunks of the row',
      nullif(h.value ->> 'state', 'fresh'),
      left(regexp_replace(h.value ->> 'chunk', '\s+', ' ', 'g'), 60)
    ),
    null::bigint, null::float8
  from jsonb_array_elements(document -> 'hits') with ordinality as h (value, nr)
  order by h.nr;
  return query
  select 'time', t.what, t.detail, null::bigint, t.ms
  from (
    values
      ('prepare', 'filter, indexes, words, routes', (document ->> 'prepare_ms')::float8),
      ('afterwards', 'reranking, diversity', (document ->> 'after_ms')::float8),
      (
        'in all', 'what the search takes, without the explaining',
        (document ->> 'total_ms')::float8
      )
  ) as t (what, detail, ms)
  where t.ms is not null;
  return query
  select 'warning', w.value ->> 'code', concat_ws('. ', w.value ->> 'message', w.value ->> 'hint'), null::bigint, null::float8
  from jsonb_array_elements(document -> 'warnings') with ordinality as w (value, nr)
  order by w.nr;
end;
$$;

comment on function _pgstack.tell_result(jsonb) is
'What came of it: freshness, rows, times, warnings.';

create or replace function pgstack.explain_search(
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
returns table (nr integer, step text, what text, detail text, rows bigint, ms float8)
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _document jsonb := _pgstack.search_document(
    explain_search.vectorizer, explain_search.query, explain_search.k, explain_search.mode,
    explain_search.filter, explain_search.per, explain_search.fusion, explain_search.vector_weight,
    explain_search.rrf_k, explain_search.depth, explain_search.diversity, explain_search.rerank,
    explain_search.target_recall, explain_search.embedding
  );
begin
  return query
  select (row_number() over ())::integer, t.step, t.what, t.detail, t.rows, t.ms
  from (
    select q.* from _pgstack.tell_question(_document) as q
    union all
    select s.*
    from jsonb_array_elements(_document -> 'runs') with ordinality as r (run, nr)
    cross join lateral _pgstack.tell_run(_document, r.run, r.nr) as s
    union all
    select e.* from _pgstack.tell_result(_document) as e
  ) as t;
end;
$$;

comment on function pgstack.explain_search(
  text, text, integer, text, jsonb, text, text, float8, integer, integer, float8, text, float8,
  @extschema:vector@.vector
) is
'Searches, and tells how: one line for each step, in the order of nr. Arguments and errors: those of pgstack.search(); an embedding model that does not answer is told of, not raised.
step: query; embedding: where the query''s vector came from; words: those that are looked for, rows: how many; filter: as SQL, rows: how many match; run 1, run 2 ...: each run of the statement, by branch, with the index it used, rows: candidates; freshness: rows: how many are queued; row 1 ...: what was found, with its ranks and scores in each branch, and queued, in work, retrying, failed or changed when its text is newer than its vector; time; warning. rows: a count, ms: milliseconds, NULL where a step has none.
A statement is run again to be explained, so this takes several times as long as the search. It shows nothing of rows that row-level security hides: for a role under it, what was read and lost on the way is left out, and of statistics it sees what every role sees.';
