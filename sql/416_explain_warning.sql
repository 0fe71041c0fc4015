-- Family: search explained: what a reader should know of.  Each warning has a code of a few
-- words, what is so, and what to do about it.
-- Callers: 415_explain_search.sql.
-- Errors: none.

-- document: as 415_explain_search.sql makes it, runs included.
create or replace function _pgstack.search_warnings(
  plan _pgstack.vectorizer_plan, request _pgstack.search_request, document jsonb
)
returns jsonb
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
begin
  return (
    select coalesce(
      jsonb_agg(jsonb_build_object('code', w.code, 'message', w.message, 'hint', w.hint)), '[]'
    )
    from (
      select * from _pgstack.state_warnings(plan, document)
      union all
      select * from _pgstack.vector_warnings(plan, document) where request.mode <> 'text'
      union all
      select * from _pgstack.text_warnings(plan, request) where request.mode <> 'vector'
      union all
      select * from _pgstack.result_warnings(document)
    ) as w
  );
end;
$$;

comment on function _pgstack.search_warnings(
  _pgstack.vectorizer_plan, _pgstack.search_request, jsonb
) is
'The warnings of an explained search, as a JSON array of code, message and hint.';

-- ------------------------------------------------------------------------------ state

create or replace function _pgstack.state_warnings(plan _pgstack.vectorizer_plan, document jsonb)
returns table (code text, message text, hint text)
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _error jsonb := document -> 'embedding' -> 'error';
  _status jsonb := document -> 'status';
  _stale text;
  _unseen text;
begin
  if _error is not null then
    return query select
      'search fails',
      format('%s: %s', _error ->> 'code', _error ->> 'message'), _error ->> 'hint';
  end if;
  if (document ->> 'guarded')::boolean then
    return query select
      'row security',
      format('the role "%s" sees a part of the rows: others are not found, and what would count them is left out', current_user),
      'A role that bypasses row-level security sees everything explained.';
  end if;
  if not (_status ->> 'has_worker')::boolean then
    return query select
      'no worker', 'no worker is connected to this database: changes are not embedded, nor are new questions',
      'pgstack worker -d URL   (embedded stack: pgstack up)';
  end if;
  if _status ->> 'state' in ('paused', 'blocked', 'model down') then
    return query select
      _status ->> 'state',
      case _status ->> 'state'
        when 'paused' then 'the vectorizer is paused: changes are not embedded'
        else concat_ws(': ', 'changes are not embedded', _status ->> 'last_error')
      end,
      case _status ->> 'state'
        when 'paused' then format('select pgstack.resume_vectorizer(%L);', plan.name)
        else 'pgstack doctor'
      end;
  end if;
  if (_status ->> 'failed')::bigint > 0 then
    return query select
      'failed rows', format('%s rows could not be embedded and were set aside', _status ->> 'failed'),
      format('select * from pgstack.vectorizer_errors where vectorizer = %L;', plan.name);
  end if;
  select
    string_agg(h.value ->> 'id', ', ') filter (where h.value ->> 'state' in ('queued', 'in work', 'retrying', 'failed')),
    string_agg(h.value ->> 'id', ', ') filter (where h.value ->> 'state' = 'changed')
  into _stale, _unseen
  from jsonb_array_elements(document -> 'hits') as h;
  if _stale is not null then
    return query select
      'stale rows', format('found by their old text: %s', _stale),
      format('select pgstack.wait_until_fresh(%L);', plan.name);
  end if;
  if _unseen is not null then
    return query select
      'changed rows',
      format('found by their old text, and not seen in the queue: %s', _unseen),
      format(
        'If this role can read the queue, triggers did not fire: select pgstack.refresh_vectorizer(%L);',
        plan.name
      );
  end if;
end;
$$;

comment on function _pgstack.state_warnings(_pgstack.vectorizer_plan, jsonb) is
'Warnings about the vectorizer, who asks, and how fresh the rows are.';

-- ----------------------------------------------------------------------------- vector

create or replace function _pgstack.never_analyzed(relation text)
returns boolean
language plpgsql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
begin
  return (
    select c.reltuples < 0 and pg_relation_size(c.oid) > 0
    from pg_class as c where c.oid = _pgstack.find_relation(never_analyzed.relation)
  );
end;
$$;

comment on function _pgstack.never_analyzed(text) is
'Whether a table has rows and no statistics.';

create or replace function _pgstack.vector_warnings(plan _pgstack.vectorizer_plan, document jsonb)
returns table (code text, message text, hint text)
language plpgsql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _run jsonb := document -> 'runs' -> 0;
  _request jsonb := _run -> 'request';
  _vector jsonb := _run -> 'vector';
  _effort integer := (_run -> 'settings' ->> 'hnsw.ef_search')::integer;
  _chunks bigint := _pgstack.expected_chunks(plan);
  _least bigint := _pgstack.setting_value('index_min_rows')::bigint;
  _found text := _pgstack.vector_index_names(plan);
  _recall jsonb := _run -> 'recall';
begin
  if _run is null then
    return;
  end if;
  if _request ->> 'index_method' is null and _found is not null then
    return query select
      'index unfit',
      format('there is an index (%s) that search cannot use: unfinished, of a part of the rows, or of another distance than cosine', _found),
      format('select pgstack.build_index(%L);', plan.name);
  elsif _request ->> 'index_method' is null and _chunks >= _least then
    return query select
      'no vector index', format('the table of chunks is large (over %s), and every vector was compared', _least),
      format('select pgstack.build_index(%L);', plan.name);
  end if;
  if _request ->> 'vector_route' = 'index' and not _vector ? 'walked' then
    return query select
      'index unused',
      format('the plan does not use %s', _request ->> 'index'),
      'Look at enable_indexscan and at the costs set in this session; pgstack.search_sql() gives the statement to explain.';
  end if;
  if _request ->> 'vector_route' = 'index' and _effort < (_request ->> 'depth')::integer then
    return query select
      'ef too small',
      format('hnsw.ef_search is %s, its most is 1000, and %s candidates are wanted: the walk goes on behind them in looser order', _effort, _request ->> 'depth'),
      'Ask for a smaller k or depth.';
  end if;
  if _request ->> 'vector_route' = 'index' and document -> 'runs' -> -1 -> 'request' ->> 'vector_route' = 'all' then
    return query select
      'filter too narrow',
      format('the walk along the index ended with %s of %s rows; every vector was compared after that', _run ->> 'hits', _request ->> 'rows'),
      'Raise depth; an index on the filtered columns lets rows be counted, and read directly.';
  elsif _request ->> 'vector_route' = 'index' and (_vector ->> 'read')::float8 > 1000
    and (_vector ->> 'read')::float8 > 20 * (_vector ->> 'passed')::float8
  then
    return query select
      'filter too narrow',
      format('the walk along the index passed %s chunks for %s that fit', _vector ->> 'read', _vector ->> 'passed'),
      'An index on the filtered columns lets the rows that match be read directly.';
  end if;
  if _recall ->> 'measured' is null and _request ? 'target_recall' then
    return query select
      'recall assumed',
      format('a recall of %s is what usually comes of this effort; it was not measured for this index', _recall ->> 'target'),
      format('select * from pgstack.recall(%L);', plan.name);
  -- Beyond that measuring stops.
  elsif (_recall ->> 'measured')::float8 < least(0.9995, (_recall ->> 'target')::float8) then
    return query select
      'recall out of reach',
      format('a recall of %s is wanted; the most that was measured of this index is %s', _recall ->> 'target', _recall ->> 'measured'),
      format('select * from pgstack.index_advice(%L);', plan.name);
  end if;
  if _pgstack.never_analyzed(plan.target) or _pgstack.never_analyzed(plan.source) then
    return query select
      'never analyzed', 'a table has no statistics yet: routes are chosen by its size on disk',
      format('analyze %s; analyze %s;', plan.source, plan.target);
  end if;
end;
$$;

comment on function _pgstack.vector_warnings(_pgstack.vectorizer_plan, jsonb) is
'Warnings about the vector branch.';

-- Of any kind, whether a search can use them or not.
create or replace function _pgstack.vector_index_names(plan _pgstack.vectorizer_plan)
returns text
language plpgsql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
begin
  return (
    select string_agg(format('%s, %s', i.indexrelid::regclass, m.amname), '; ' order by i.indexrelid)
    from pg_index as i
    join pg_class as c on c.oid = i.indexrelid
    join pg_am as m on m.oid = c.relam and m.amname in ('hnsw', 'diskann', 'ivfflat')
    where i.indrelid = _pgstack.find_relation(plan.target)
  );
end;
$$;

comment on function _pgstack.vector_index_names(_pgstack.vectorizer_plan) is
'All vector indexes on the table of chunks, each with its method; NULL: there is none.';

-- ------------------------------------------------------------------------------- text

create or replace function _pgstack.text_warnings(
  plan _pgstack.vectorizer_plan, request _pgstack.search_request
)
returns table (code text, message text, hint text)
language plpgsql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _words _pgstack.words := _pgstack.words(plan, request.query);
  _kept tsquery[] := _pgstack.query_words(_words.config, request.query);
  _meant text;
  _made text;
begin
  if _kept is null then
    return query select
      'stop words', format('no word of the query is looked for: in %s all are stop words or signs', _words.config),
      'Use other words, or mode => ''vector''.';
  elsif cardinality(_kept) = 50 and _words.method is distinct from 'bm25' then
    return query select
      'many words', 'the 50 longest words of the query are looked for', 'Ask in fewer words.';
  end if;
  if _words.method is not null then
    return;
  end if;
  select coalesce(v.text_config, _pgstack.setting_value('text_config')), v.words_config
  into _meant, _made
  from _pgstack.vectorizer as v where v.vectorizer_id = plan.id;
  if _pgstack.session_setting('text_config') is not null and _made is distinct from _words.config::text
    and _meant is distinct from _words.config::text
  then
    return query select
      'other language',
      format('this session reads words as %s, the vectorizer as %s: each chunk was read', _words.config, _meant),
      'reset pgstack.text_config;';
  elsif _pgstack.setting_value('text_index') = 'none' then
    return query select
      'no words table', 'the setting text_index is none: each chunk was read',
      'select pgstack.configure(''text_index'', ''tsvector'');';
  elsif _pgstack.expected_chunks(plan) >= _pgstack.setting_value('text_index_min_rows')::bigint then
    return query select
      'no words table', format('there is no table of its words in %s yet: each chunk was read', _words.config),
      case when plan.has_table then 'A worker makes it, when one is connected.'
        else 'Vectors in a column of the source have none; text_index bm25 serves them.' end;
  end if;
end;
$$;

comment on function _pgstack.text_warnings(_pgstack.vectorizer_plan, _pgstack.search_request) is
'Warnings about the text branch.';

-- ----------------------------------------------------------------------------- result

create or replace function _pgstack.result_warnings(document jsonb)
returns table (code text, message text, hint text)
language plpgsql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _first jsonb := document -> 'runs' -> 0;
  _last jsonb := document -> 'runs' -> -1;
  _rows integer := (_first -> 'request' ->> 'rows')::integer;
  _depth integer := (_first -> 'request' ->> 'depth')::integer;
begin
  if _first is null then
    return;
  end if;
  if document ->> 'per' = 'row' and (
    _depth < 4 * _rows or (_last -> 'request' ->> 'depth')::integer > _depth
  ) then
    return query select
      'depth small',
      format('%s chunks are few to find the best of %s rows among, when rows have several', _depth, _rows),
      format('depth => %s', least(10000, 8 * _rows));
  end if;
  if (_first -> 'request' ->> 'matching')::bigint = 0 then
    return query select
      'nothing matches', 'no row that this role sees satisfies the filter', 'Look at the filter''s SQL above.';
  elsif (_last ->> 'hits')::integer < _rows then
    return query select
      'few rows', format('%s rows were found of %s', _last ->> 'hits', _rows),
      case document ->> 'mode' when 'text' then 'No other holds a word of the query.' else 'No more are there that fit.' end;
  end if;
end;
$$;

comment on function _pgstack.result_warnings(jsonb) is
'Warnings about what was found.';
