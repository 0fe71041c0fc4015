-- Family: search explained.  What one query did, step by step, as a document and as a story.
-- 414_explain_run.sql notes each run of the statement, 416_explain_warning.sql has the warnings,
-- 417_explain_story.sql tells it.
-- Callers: 417_explain_story.sql, pgstack/search.py.
-- Errors: those of pgstack.search().

create or replace function _pgstack.ms_since(began timestamptz)
returns float8
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
begin
  return round(1000 * extract(epoch from clock_timestamp() - began), 3);
end;
$$;

comment on function _pgstack.ms_since(timestamptz) is
'Milliseconds since an instant.';

-- -------------------------------------------------------------------------- freshness

-- Whether rows are as their vectors say: by the queue for who may read it; for others by the
-- text, which shows no change in the columns that stand before each chunk.
create or replace function _pgstack.hit_states(plan _pgstack.vectorizer_plan, hits _pgstack.hit[])
returns table (rank integer, state text)
language plpgsql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _sees_queue boolean := has_table_privilege(_pgstack.find_relation(plan.queue), 'select')
    and has_table_privilege('_pgstack.work', 'select');
  _sees_text boolean := has_column_privilege(
    _pgstack.find_relation(plan.source), plan.content_column, 'select'
  );
begin
  return query execute format(
    $sql$
    select h.rank, case
      when q.state = 'failed' then 'failed'
      when q.is_queued then case q.state when 'leased' then 'in work' else coalesce(q.retrying, 'queued') end
      when t.differs then 'changed'
      else 'fresh'
    end
    from unnest($1) as h
    left join (%1$s) as q on q.rank = h.rank
    left join (
      select n.rank, substr(%2$s, n.start_char + 1, n.end_char - n.start_char) <> n.chunk as differs
      from unnest($1) as n
      cross join lateral jsonb_to_record(n.id) as k (%3$s)
      join %4$s as r on %5$s
    ) as t on t.rank = h.rank
    $sql$,
    case when _sees_queue then format(
      $sql$
      select n.rank, bool_or(r.queued_at is not null) as is_queued, min(w.state) as state,
        min('retrying') filter (where w.state = 'waiting' and w.last_error is not null) as retrying
      from unnest($1) as n
      cross join lateral jsonb_to_record(n.id) as k (%1$s)
      left join %2$s as r on %3$s
      left join _pgstack.work as w
        on w.vectorizer_id = $2 and w.digest = _pgstack.key_digest(n.id)
      group by n.rank
      $sql$,
      plan.key_record, plan.queue, plan.key_match
    ) else 'select null::integer as rank, null::boolean as is_queued, null as state, null as retrying' end,
    case when _sees_text
      then _pgstack.masked(plan, format('r.%I::text', plan.content_column)) else 'null' end,
    plan.key_record, plan.source, plan.key_match
  ) using hits, plan.id;
end;
$$;

comment on function _pgstack.hit_states(_pgstack.vectorizer_plan, _pgstack.hit[]) is
'For each row of a search: fresh; queued, in work, retrying or failed: its vector is older than its text; changed: the text is another, and nobody queued it.';

create or replace function _pgstack.explain_hits(plan _pgstack.vectorizer_plan, hits _pgstack.hit[])
returns jsonb
language plpgsql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
begin
  return (
    select coalesce(
      jsonb_agg(
        to_jsonb(h) - array['chunk', 'embedding', 'more']
        || jsonb_build_object(
          'state', s.state, 'chunk', left(h.chunk, 200),
          'more', coalesce(jsonb_array_length(h.more), 0)
        )
        order by h.rank
      ),
      '[]'
    )
    from unnest(hits) as h
    left join _pgstack.hit_states(plan, hits) as s on s.rank = h.rank
  );
end;
$$;

comment on function _pgstack.explain_hits(_pgstack.vectorizer_plan, _pgstack.hit[]) is
'The rows of a search with their states, as a JSON array; more: how many further chunks of the row were found.';

create or replace function _pgstack.explain_status(plan _pgstack.vectorizer_plan)
returns jsonb
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
begin
  return (
    select jsonb_build_object(
      'state', s.state, 'pending', s.pending, 'failed', s.failed,
      'lag_s', round(extract(epoch from s.lag)), 'last_error', s.last_error,
      'has_worker', _pgstack.worker_present()
    )
    from pgstack.vectorizer_status as s
    where s.id = plan.id
  );
end;
$$;

comment on function _pgstack.explain_status(_pgstack.vectorizer_plan) is
'How far a vectorizer is behind; NULLs for who may not know.';

-- -------------------------------------------------------------------------- embedding

-- embed() notes in pgstack.vector_from whom it asked, unless it knew the vector itself.
create or replace function _pgstack.explain_embedding(
  plan _pgstack.vectorizer_plan, request _pgstack.search_request
)
returns jsonb
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _began timestamptz := clock_timestamp();
  _vector @extschema:vector@.vector;
  _code text;
  _message text;
  _hint text;
begin
  if request.mode = 'text' then
    return null;
  elsif request.embedding is not null then
    return jsonb_build_object('from', 'caller', 'ms', 0);
  end if;
  perform set_config('pgstack.vector_from', 'session', false);
  begin
    _vector := _pgstack.embed_query(plan, request.query);
  exception
    when sqlstate 'PS007' then raise;
    when others then
      get stacked diagnostics
        _code = returned_sqlstate, _message = message_text, _hint = pg_exception_hint;
      return jsonb_build_object(
        'from', 'nobody', 'model', plan.model, 'ms', _pgstack.ms_since(_began),
        'error', jsonb_build_object('code', _code, 'message', _message, 'hint', _hint)
      );
  end;
  return jsonb_build_object(
    'from', current_setting('pgstack.vector_from'), 'model', plan.model,
    'ms', _pgstack.ms_since(_began), 'vector', _vector::text
  );
end;
$$;

comment on function _pgstack.explain_embedding(_pgstack.vectorizer_plan, _pgstack.search_request) is
'Where the vector of a query came from: model, cache (of this role, in the database), session (asked before in it) or caller; nobody, with the error: the model did not answer. NULL for a search by words.';

-- --------------------------------------------------------------------------- document

-- With the steps of a search, in their order, each by the function that search() calls.
create or replace function _pgstack.explain_search(
  plan _pgstack.vectorizer_plan, request _pgstack.search_request, filter jsonb,
  diversity float8, rerank text
)
returns jsonb
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _document jsonb := jsonb_build_object(
    'vectorizer', plan.name, 'source', plan.source, 'query', request.query, 'k', request.k,
    'mode', request.mode, 'per', request.per, 'fusion', request.fusion,
    'guarded', _pgstack.is_guarded(plan)
  );
  _embedding jsonb := _pgstack.explain_embedding(plan, request);
  _began timestamptz;
  _ended timestamptz;
  _runs jsonb := '[]';
  _hits _pgstack.hit[] := '{}';
begin
  if _embedding is not null then
    request.embedding := coalesce(
      request.embedding, (_embedding ->> 'vector')::@extschema:vector@.vector
    );
    _document := _document || jsonb_build_object('embedding', _embedding - 'vector');
  end if;
  if not coalesce(_embedding ? 'error', false) then
    request.explained := 'plan';
    perform set_config('pgstack.search_runs', '[]', true);
    _began := clock_timestamp();
    _hits := _pgstack.find_hits(plan, request, filter, diversity, rerank);
    _ended := clock_timestamp();
    _runs := current_setting('pgstack.search_runs')::jsonb;
    perform set_config('pgstack.search_runs', '', true);
    _document := _document || jsonb_build_object(
      'prepare_ms',
      round(1000 * ((_runs -> 0 ->> 'began')::numeric - extract(epoch from _began)), 3),
      'after_ms',
      round(1000 * (extract(epoch from _ended) - (_runs -> -1 ->> 'ended')::numeric), 3)
    );
  end if;
  _document := _document || jsonb_build_object(
    'runs', _runs,
    'hits', _pgstack.explain_hits(plan, _hits),
    'status', _pgstack.explain_status(plan)
  );
  return _document || jsonb_build_object(
    'warnings', _pgstack.search_warnings(plan, request, _document)
  );
end;
$$;

comment on function _pgstack.explain_search(
  _pgstack.vectorizer_plan, _pgstack.search_request, jsonb, float8, text
) is
'What pgstack.explain_search() tells, as a document.';

create or replace function _pgstack.search_document(
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
returns jsonb
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _began timestamptz := clock_timestamp();
  _plan _pgstack.vectorizer_plan := _pgstack.vectorizer_plan(search_document.vectorizer);
  _lookup_ms float8 := _pgstack.ms_since(_began);
  _document jsonb;
begin
  _document := _pgstack.explain_search(
    _plan,
    _pgstack.new_request(
      search_document.query, search_document.k, search_document.mode, search_document.per,
      search_document.fusion, search_document.vector_weight, search_document.rrf_k,
      search_document.depth, search_document.target_recall, search_document.embedding
    ),
    search_document.filter, search_document.diversity, search_document.rerank
  );
  return _document || jsonb_build_object(
    'lookup_ms', _lookup_ms,
    'total_ms', (
      select _lookup_ms + coalesce((_document -> 'embedding' ->> 'ms')::float8, 0)
        + coalesce((_document ->> 'prepare_ms')::float8, 0)
        + coalesce((_document ->> 'after_ms')::float8, 0) + coalesce(sum((r.value ->> 'ms')::float8), 0)
      from jsonb_array_elements(_document -> 'runs') as r
    )
  );
exception
  when insufficient_privilege then
    perform _pgstack.check_reader(_plan);
    raise;
end;
$$;

comment on function _pgstack.search_document(
  text, text, integer, text, jsonb, text, text, float8, integer, integer, float8, text, float8,
  @extschema:vector@.vector
) is
'What pgstack.explain_search() tells, as a document; plan: of each run, where no row-level security is.';

create or replace function pgstack.search_sql(
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
returns text
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _plan _pgstack.vectorizer_plan := _pgstack.vectorizer_plan(search_sql.vectorizer);
  _request _pgstack.search_request := _pgstack.new_request(
    search_sql.query, search_sql.k, search_sql.mode, search_sql.per, search_sql.fusion,
    search_sql.vector_weight, search_sql.rrf_k, search_sql.depth, search_sql.target_recall,
    search_sql.embedding
  );
  _run jsonb;
begin
  _request.explained := 'sql';
  perform set_config('pgstack.search_runs', '[]', true);
  -- Without reranking: there is nothing to rerank.
  perform _pgstack.find_hits(_plan, _request, search_sql.filter, search_sql.diversity, null);
  _run := current_setting('pgstack.search_runs')::jsonb -> 0;
  perform set_config('pgstack.search_runs', '', true);
  return format(
    E'%s%s',
    (
      select string_agg(format(E'-- set %s = %L;\n', s.key, s.value), '' order by s.key)
      from jsonb_each_text(_run -> 'settings') as s
    ),
    trim(leading E'\n ' from _run ->> 'statement')
  );
end;
$$;

comment on function pgstack.search_sql(
  text, text, integer, text, jsonb, text, text, float8, integer, integer, float8, text, float8,
  @extschema:vector@.vector
) is
'The statement that pgstack.search() runs for the same arguments, complete with the query''s vector, to be run or explained by itself. Its first lines are comments: the settings it is run with.
What search does after it is not in there: running it again deeper or without the index when it finds too few rows, reranking and diversity.
Arguments and errors: those of pgstack.search().';
