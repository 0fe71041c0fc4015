-- Family: evaluation.  Runs a judged set through pgstack.search() and keeps what came back.
-- Callers: people, pgstack/evaluation.py.
-- Errors: PS001 unknown vectorizer, PS007 bad argument, PS017 unknown set or run,
--         and those of pgstack.search().
--
-- A run is begun, stepped through a batch of queries at a time, and finished.
-- pgstack.evaluate() does it all in one transaction, pgstack/evaluation.py commits each
-- step, so that an interrupted run leaves what it had done and says that it is unfinished.

create or replace function _pgstack.eval_run(id bigint)
returns _pgstack.eval_run
language plpgsql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _run _pgstack.eval_run;
begin
  select r.* into _run from _pgstack.eval_run as r where r.id = eval_run.id;
  if not found then
    raise exception 'there is no evaluation run %', coalesce(eval_run.id::text, 'NULL')
      using errcode = 'PS017', hint = 'select run, set, label from pgstack.eval_runs;';
  end if;
  return _run;
end;
$$;

comment on function _pgstack.eval_run(bigint) is
'A run of the caller''s. Raises PS017.';

create or replace function _pgstack.eval_digest(set_id bigint)
returns text
language sql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
  select encode(sha256(convert_to(coalesce(string_agg(
    format('%L %L %s', j.query_id, j.doc_id, j.grade), ' '
    order by j.query_id collate "C", j.doc_id collate "C"
  ), ''), 'UTF8')), 'hex')
  from _pgstack.eval_judgment as j
  where j.set_id = eval_digest.set_id;
$$;

comment on function _pgstack.eval_digest(bigint) is
'The judgements of a set as a digest: two runs can be compared if theirs is the same.';

-- ---------------------------------------------------------------- the call of search()

-- Every argument of pgstack.search() that is no part of a run's own arguments may be an option.
create or replace function _pgstack.search_options()
returns table (name text, type text)
language sql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
  select a.name, format_type(t.type, null)
  from pg_proc as p
  cross join unnest(p.proargnames) with ordinality as a (name, nr)
  join unnest(p.proargtypes) with ordinality as t (type, nr) on t.nr = a.nr
  where p.pronamespace = 'pgstack'::regnamespace and p.proname = 'search'
    and a.name not in ('vectorizer', 'query', 'k', 'mode', 'filter', 'per', 'embedding');
$$;

comment on function _pgstack.search_options() is
'The options of a run: what pgstack.search() takes beyond what evaluate() sets itself.';

create or replace function _pgstack.check_eval_options(options jsonb)
returns void
language plpgsql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _odd text;
begin
  if jsonb_typeof(check_eval_options.options) is distinct from 'object' then
    raise exception 'options must be a JSON object'
      using errcode = 'PS007', hint = 'options => ''{"rrf_k": 20}''';
  end if;
  select o.key into _odd
  from jsonb_object_keys(check_eval_options.options) as o (key)
  where o.key not in (select s.name from _pgstack.search_options() as s)
  limit 1;
  if found then
    raise exception 'pgstack.search() has no option "%"', _odd
      using errcode = 'PS007',
      hint = 'Known: ' || (select string_agg(s.name, ', ') from _pgstack.search_options() as s);
  end if;
end;
$$;

comment on function _pgstack.check_eval_options(jsonb) is
'Raises PS007 for options that pgstack.search() does not have.';

-- $1 query, $2 its vector, $3 run.  By row, each row once: the first of several that are
-- the same document to the judges.
create or replace function _pgstack.eval_statement(
  plan _pgstack.vectorizer_plan, run _pgstack.eval_run
)
returns text
language sql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
  select format(
    $sql$
    select (row_number() over (order by d.rank))::integer, d.doc_id, d.score
    from (
      select distinct on (x.doc_id) x.doc_id, s.rank, s.score
      from pgstack.search(
        vectorizer => %1$L, query => $1, k => %2$s, mode => %3$L, filter => %4$L::jsonb,
        per => 'row', embedding => $2 %5$s
      ) as s
      %6$s
      where x.doc_id is not null
      order by x.doc_id, s.rank
    ) as d
    $sql$,
    plan.name, run.k, run.mode, run.filter,
    (
      select string_agg(
        format(', %I => %L::%s', s.name, run.options ->> s.name, s.type), '' order by s.name
      )
      from _pgstack.search_options() as s where run.options ? s.name
    ),
    case
      when run.doc_column is null
        then 'cross join lateral (select _pgstack.eval_doc_id(s.id)) as x (doc_id)'
      else format(
        'join lateral (select k.%I::text from jsonb_to_record(s.id) as r (%s) join %s as k on %s) '
        'as x (doc_id) on true',
        run.doc_column, plan.key_record, plan.source, plan.key_match
      )
    end
  );
$$;

comment on function _pgstack.eval_statement(_pgstack.vectorizer_plan, _pgstack.eval_run) is
'The query that a run makes for each of its queries: rank, doc_id, score.';

-- ---------------------------------------------------------------------------- a run

create or replace function _pgstack.eval_config(plan _pgstack.vectorizer_plan)
returns jsonb
language plpgsql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _rows bigint;
begin
  execute format('select count(*) from %s', plan.source) into _rows;
  return jsonb_build_object(
    'source', plan.source,
    'rows', _rows,
    'pending', (_pgstack.queue_status(plan)).pending,
    'dimensions', plan.dimensions,
    'content', plan.content_column,
    'template', plan.template,
    'chunking', plan.chunking,
    'index', _pgstack.index_status(plan),
    'settings', (
      select coalesce(jsonb_object_agg(s.name, s.value), '{}')
      from pgstack.settings as s
      where s.source <> 'default'
    ),
    'versions', (
      select jsonb_object_agg(e.extname, e.extversion)
        || jsonb_build_object(
          'pgstack', (select s.value from _pgstack.setting as s where s.name = 'version'),
          'postgresql', current_setting('server_version')
        )
      from pg_extension as e
      where e.extname in ('vector', 'vectorscale', 'pg_textsearch')
    )
  );
end;
$$;

comment on function _pgstack.eval_config(_pgstack.vectorizer_plan) is
'What a run''s results depend on besides its arguments: corpus, chunking, index, settings, versions.';

create or replace function _pgstack.eval_begin(
  set text, vectorizer text, mode text, k integer, filter jsonb, doc_column name, options jsonb,
  label text, seed bigint
)
returns bigint
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _set _pgstack.eval_set;
  _plan _pgstack.vectorizer_plan := _pgstack.vectorizer_plan(eval_begin.vectorizer);
  _doc_column name;
  _queries bigint;
  _config jsonb;
  _run bigint;
begin
  perform _pgstack.require('seed', eval_begin.seed);
  perform _pgstack.require('mode', eval_begin.mode);
  perform _pgstack.require('k', eval_begin.k);
  perform _pgstack.check_reader(_plan);
  perform _pgstack.check_eval_options(eval_begin.options);
  select s.* into _set
  from _pgstack.eval_set as s where s.id = _pgstack.eval_set_id(eval_begin.set);
  _doc_column := coalesce(eval_begin.doc_column, _set.doc_column);
  if _doc_column is not null then
    perform _pgstack.check_columns(_plan.source::regclass, array[_doc_column]);
  end if;
  select count(distinct j.query_id) into _queries
  from _pgstack.eval_judgment as j where j.set_id = _set.id;
  if _queries = 0 then
    raise exception 'the set "%" has no judgements', _set.name
      using errcode = 'PS007',
      hint = format('select pgstack.judge(%L, ''query id'', ''document id'');', _set.name);
  end if;
  _config := _pgstack.eval_config(_plan);
  if (_config -> 'pending')::text <> '0' then
    raise notice '% rows of "%" are not embedded yet: select pgstack.wait_until_fresh(%);',
      coalesce(_config ->> 'pending', 'some'), _plan.name, quote_literal(_plan.name);
  end if;
  insert into _pgstack.eval_run (
    set_id, label, vectorizer, model, mode, k, filter, options, doc_column, seed, config, judged, queries
  )
  values (
    _set.id, eval_begin.label, _plan.name, _plan.model, eval_begin.mode, eval_begin.k,
    eval_begin.filter, eval_begin.options, _doc_column, eval_begin.seed, _config,
    _pgstack.eval_digest(_set.id), _queries
  )
  returning id into _run;
  return _run;
end;
$$;

comment on function _pgstack.eval_begin(text, text, text, integer, jsonb, name, jsonb, text, bigint) is
'Begins a run and returns its number; nothing is searched yet, so what search() refuses is not refused yet.';

-- Vectors are kept as the query cache keeps them: setting query_cache off makes them anew
-- for each run, query_cache_ttl says for how long the model is believed to be the same.
create or replace function _pgstack.eval_embed(run _pgstack.eval_run, query_ids text[])
returns void
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _after timestamptz := case _pgstack.setting_value('query_cache')
    when 'on' then clock_timestamp() - _pgstack.setting_interval('query_cache_ttl')
    else run.started_at
  end;
  _ids text[];
  _texts text[];
begin
  select array_agg(q.query_id order by q.query_id), array_agg(q.text order by q.query_id)
    into _ids, _texts
  from _pgstack.eval_query as q
  where q.set_id = run.set_id and q.query_id = any (eval_embed.query_ids)
    and not exists (
      select from _pgstack.eval_vector as v
      where v.set_id = q.set_id and v.query_id = q.query_id and v.model = run.model
        and v.created_at > _after
    );
  if _ids is null then
    return;
  end if;
  insert into _pgstack.eval_vector as v (set_id, query_id, model, embedding, created_at)
  select run.set_id, _ids[e.seq + 1], run.model, e.embedding, clock_timestamp()
  from pgstack.embed_many(_texts, run.model, 'query') as e
  on conflict on constraint eval_vector_pkey
  do update set embedding = excluded.embedding, created_at = excluded.created_at;
end;
$$;

comment on function _pgstack.eval_embed(_pgstack.eval_run, text[]) is
'Embeds queries of a run, those that have no vector yet, in one call.';

create or replace function _pgstack.eval_step(run_id bigint, n integer)
returns integer
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _run _pgstack.eval_run := _pgstack.eval_run(eval_step.run_id);
  _statement text := _pgstack.eval_statement(_pgstack.vectorizer_plan(_run.vectorizer), _run);
  _ids text[];
  _query record;
  _found integer;
  _began timestamptz;
begin
  _ids := array(
    select distinct j.query_id
    from _pgstack.eval_judgment as j
    where j.set_id = _run.set_id and not exists (
      select from _pgstack.eval_search as s where s.run_id = _run.id and s.query_id = j.query_id
    )
    order by j.query_id
    limit eval_step.n
  );
  if _run.mode <> 'text' then
    perform _pgstack.eval_embed(_run, _ids);
  end if;
  for _query in
    select q.query_id, q.text, v.embedding
    from _pgstack.eval_query as q
    left join _pgstack.eval_vector as v
      on v.set_id = q.set_id and v.query_id = q.query_id and v.model = _run.model and _run.mode <> 'text'
    where q.set_id = _run.set_id and q.query_id = any (_ids)
  loop
    _began := clock_timestamp();
    execute format(
      'insert into _pgstack.eval_result (run_id, query_id, rank, doc_id, score) '
      'select $3, $4, f.* from (%s) as f', _statement
    ) using _query.text, _query.embedding, _run.id, _query.query_id;
    get diagnostics _found = row_count;
    insert into _pgstack.eval_search (run_id, query_id, found, milliseconds)
    values (
      _run.id, _query.query_id, _found, 1000 * extract(epoch from clock_timestamp() - _began)
    );
  end loop;
  return cardinality(_ids);
end;
$$;

comment on function _pgstack.eval_step(bigint, integer) is
'Searches for the next n queries of a run; returns how many there were, 0 when all are done.';

create or replace function _pgstack.eval_finish(run_id bigint)
returns void
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
begin
  perform _pgstack.eval_score(_pgstack.eval_run(eval_finish.run_id));
  update _pgstack.eval_run as r set finished_at = clock_timestamp() where r.id = eval_finish.run_id;
end;
$$;

comment on function _pgstack.eval_finish(bigint) is
'Scores a run whose queries are all done.';

create or replace function pgstack.evaluate(
  set text,
  vectorizer text,
  mode text default 'hybrid',
  k integer default 100,
  filter jsonb default null,
  doc_column name default null,
  options jsonb default '{}',
  label text default null,
  seed bigint default 1
)
returns table (
  run bigint, metric text, value float8, low float8, high float8, queries integer
)
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _batch constant integer := 64;
  _run bigint := _pgstack.eval_begin(
    set, vectorizer, mode, k, filter, doc_column, coalesce(options, '{}'), label, seed
  );
  _queries integer := (_pgstack.eval_run(_run)).queries;
  _done integer := 0;
  _stepped integer;
begin
  loop
    _stepped := _pgstack.eval_step(_run, _batch);
    exit when _stepped = 0;
    _done := _done + _stepped;
    if _done % (8 * _batch) = 0 then
      raise notice '% of % queries', _done, _queries;
    end if;
  end loop;
  perform _pgstack.eval_finish(_run);
  return query
  select m.run_id, m.metric, m.value, m.low, m.high, m.queries
  from _pgstack.eval_metric as m
  where m.run_id = _run
  order by _pgstack.metric_order(m.metric);
end;
$$;

comment on function pgstack.evaluate(text, text, text, integer, jsonb, name, jsonb, text, bigint) is
'Searches for every judged query of a set, as the caller, and says how good the results are. The run is kept: see pgstack.eval_runs.
set: a judged set. vectorizer, mode, filter: as for pgstack.search(). k: rows asked for, default 100; metrics are taken at 10, 100 and k.
doc_column: the source''s column with the judged ids; NULL: the set''s, else the key (of several columns: the whole object as text). options: further arguments of search(), {"rrf_k": 20}. label: a name for the run. seed: of the confidence intervals.
Returns a row a metric: ndcg@10, mrr@10, map, recall@n, precision@n, as trec_eval defines them; value: the mean over the judged queries, of which those without results count 0; low, high: its 95 % confidence interval by bootstrap over queries.
Query vectors are made once per set and model, and kept as long as the query cache keeps its own.
Raises PS001 unknown vectorizer, PS007 bad argument or nothing judged, PS014 not a reader, PS017 unknown set, and what pgstack.search() raises.';
