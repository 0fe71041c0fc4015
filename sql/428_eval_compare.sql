-- Family: evaluation.  Looks at runs, and at two beside each other.
-- Callers: people, pgstack/evaluation.py.
-- Errors: PS007 runs that cannot be compared, PS017 unknown run.

create or replace function pgstack.drop_eval_run(run bigint)
returns void
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
begin
  delete from _pgstack.eval_run as r where r.id = (_pgstack.eval_run(drop_eval_run.run)).id;
end;
$$;

comment on function pgstack.drop_eval_run(bigint) is
'Drops a run and its results. Raises PS017 unknown run.';

create or replace function pgstack.rescore_run(run bigint)
returns void
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _run _pgstack.eval_run := _pgstack.finished_run(rescore_run.run);
begin
  perform _pgstack.eval_score(_run);
end;
$$;

comment on function pgstack.rescore_run(bigint) is
'Scores the results of a run anew, after its set''s judgements changed. Nothing is searched: queries that were not judged then are left out.
Raises PS007 unfinished run, PS017 unknown run.';

create or replace function _pgstack.finished_run(id bigint)
returns _pgstack.eval_run
language plpgsql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _run _pgstack.eval_run := _pgstack.eval_run(finished_run.id);
begin
  if _run.finished_at is null then
    raise exception 'run % was interrupted and has no scores', _run.id
      using errcode = 'PS007', hint = format('select pgstack.drop_eval_run(%s);   -- and run it again', _run.id);
  end if;
  return _run;
end;
$$;

comment on function _pgstack.finished_run(bigint) is
'A run of the caller''s that has scores. Raises PS007 for one that has none, PS017.';

-- ------------------------------------------------------------------------ two runs

create or replace function _pgstack.check_comparable(a _pgstack.eval_run, b _pgstack.eval_run)
returns void
language plpgsql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
begin
  if a.set_id <> b.set_id then
    raise exception 'runs % and % are of different sets', a.id, b.id
      using errcode = 'PS007', hint = 'select run, set from pgstack.eval_runs;';
  elsif a.judged <> b.judged then
    raise exception 'the judgements changed between runs % and %', a.id, b.id
      using errcode = 'PS007',
      hint = format('select pgstack.rescore_run(%s), pgstack.rescore_run(%s);', a.id, b.id);
  end if;
end;
$$;

comment on function _pgstack.check_comparable(_pgstack.eval_run, _pgstack.eval_run) is
'Raises PS007 for runs of different sets, or scored with different judgements.';

create or replace function _pgstack.check_metric(run _pgstack.eval_run, metric text)
returns void
language plpgsql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
begin
  if not exists (
    select from _pgstack.eval_metric as m
    where m.run_id = run.id and m.metric = check_metric.metric
  ) then
    raise exception 'run % has no metric "%"', run.id, coalesce(check_metric.metric, 'NULL')
      using errcode = 'PS007',
      hint = 'It has: ' || coalesce((
        select string_agg(m.metric, ', ' order by _pgstack.metric_order(m.metric))
        from _pgstack.eval_metric as m where m.run_id = run.id
      ), 'none');
  end if;
end;
$$;

comment on function _pgstack.check_metric(_pgstack.eval_run, text) is
'Raises PS007 when a run was not scored by a metric.';

create or replace function pgstack.compare_runs(a bigint, b bigint, metric text default 'ndcg@10')
returns table (
  query_id text, query text, value_a float8, value_b float8, difference float8
)
language plpgsql stable
security invoker
set search_path = pg_catalog, pg_temp
set enable_nestloop = off
as $$
declare
  _a _pgstack.eval_run := _pgstack.finished_run(compare_runs.a);
  _b _pgstack.eval_run := _pgstack.finished_run(compare_runs.b);
begin
  perform _pgstack.check_comparable(_a, _b);
  perform _pgstack.check_metric(_a, compare_runs.metric);
  perform _pgstack.check_metric(_b, compare_runs.metric);
  return query
  select x.query_id, q.text, x.value, y.value, y.value - x.value
  from _pgstack.eval_score as x
  join _pgstack.eval_score as y
    on y.run_id = _b.id and y.metric = x.metric and y.query_id = x.query_id
  left join _pgstack.eval_query as q on q.set_id = _a.set_id and q.query_id = x.query_id
  where x.run_id = _a.id and x.metric = compare_runs.metric
  order by y.value - x.value desc, x.query_id;
end;
$$;

comment on function pgstack.compare_runs(bigint, bigint, text) is
'What each query gains from run a to run b, the largest gain first.
a, b: runs of one set: see pgstack.eval_runs. metric: one that both have, default ndcg@10.
Returns query_id, the query, its value in a and in b, and difference: b less a.
Raises PS007 runs of different sets or judgements, unknown metric, PS017 unknown run.';

-- Differences within the rounding of a double are none.
create or replace function _pgstack.run_differences(a _pgstack.eval_run, b _pgstack.eval_run)
returns table (metric text, mean_a float8, mean_b float8, differences float8[])
language sql stable
security invoker
set search_path = pg_catalog, pg_temp
set enable_nestloop = off
as $$
  select
    x.metric, avg(x.value), avg(y.value),
    array_agg(
      case when abs(y.value - x.value) < 1e-12 then 0 else y.value - x.value end
      order by x.query_id collate "C"
    )
  from _pgstack.eval_score as x
  join _pgstack.eval_score as y
    on y.run_id = b.id and y.metric = x.metric and y.query_id = x.query_id
  where x.run_id = a.id
  group by x.metric;
$$;

comment on function _pgstack.run_differences(_pgstack.eval_run, _pgstack.eval_run) is
'Two runs by metric, over the queries that both have.';

create or replace function pgstack.compare_summary(a bigint, b bigint, seed bigint default 1)
returns table (
  metric text, mean_a float8, mean_b float8, difference float8, low float8, high float8,
  p_value float8, wins bigint, ties bigint, losses bigint, queries integer
)
language plpgsql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _a _pgstack.eval_run := _pgstack.finished_run(compare_summary.a);
  _b _pgstack.eval_run := _pgstack.finished_run(compare_summary.b);
begin
  perform _pgstack.require('seed', compare_summary.seed);
  perform _pgstack.check_comparable(_a, _b);
  return query
  select
    d.metric, d.mean_a, d.mean_b, d.mean_b - d.mean_a, i.bounds[1], i.bounds[2],
    _pgstack.randomisation_p(d.differences, seed),
    c.wins, c.ties, c.losses, cardinality(d.differences)
  from _pgstack.run_differences(_a, _b) as d
  cross join lateral _pgstack.bootstrap(d.differences, seed) as i (bounds)
  cross join lateral (
    select
      count(*) filter (where v.value > 0), count(*) filter (where v.value = 0),
      count(*) filter (where v.value < 0)
    from unnest(d.differences) as v (value)
  ) as c (wins, ties, losses)
  order by _pgstack.metric_order(d.metric);
end;
$$;

comment on function pgstack.compare_summary(bigint, bigint, bigint) is
'Whether run b is better than run a, a row a metric that both have, over the queries that both have.
a, b: runs of one set: see pgstack.eval_runs. seed: of the draws.
Returns the means, difference: b less a, low and high: its 95 % confidence interval by paired bootstrap, and p_value: how often a difference at least this large comes from 10,000 random exchanges of a and b query by query. wins: queries for which b is better.
Raises PS007 runs of different sets or judgements, PS017 unknown run.';

-- ------------------------------------------------------------------------- one run

create or replace function pgstack.eval_queries(run bigint, metric text default 'ndcg@10')
returns table (
  query_id text, query text, value float8, relevant bigint, found bigint, first_rank integer,
  milliseconds float8
)
language plpgsql stable
security invoker
set search_path = pg_catalog, pg_temp
set enable_nestloop = off
as $$
declare
  _run _pgstack.eval_run := _pgstack.finished_run(eval_queries.run);
begin
  perform _pgstack.check_metric(_run, eval_queries.metric);
  return query
  select
    s.query_id, q.text, s.value, j.relevant, j.found, j.first_rank, t.milliseconds
  from _pgstack.eval_score as s
  join _pgstack.eval_search as t on t.run_id = s.run_id and t.query_id = s.query_id
  left join _pgstack.eval_query as q on q.set_id = _run.set_id and q.query_id = s.query_id
  left join (
    select g.query_id, count(*) as relevant, count(r.rank) as found, min(r.rank) as first_rank
    from _pgstack.eval_judgment as g
    left join _pgstack.eval_result as r
      on r.run_id = _run.id and r.query_id = g.query_id and r.doc_id = g.doc_id
    where g.set_id = _run.set_id and g.grade > 0
    group by g.query_id
  ) as j on j.query_id = s.query_id
  where s.run_id = _run.id and s.metric = eval_queries.metric
  order by s.value, s.query_id;
end;
$$;

comment on function pgstack.eval_queries(bigint, text) is
'The queries of a run, the worst first.
run: see pgstack.eval_runs. metric: one that it has, default ndcg@10.
Returns query_id, the query, its value, how many documents are relevant to it, how many of them were found, the rank of the first, and how long the search took in milliseconds.
Raises PS007 unfinished run or unknown metric, PS017 unknown run.';

create or replace function _pgstack.eval_run_list()
returns table (
  run bigint, set text, label text, vectorizer text, model text, mode text, k integer,
  filter jsonb, options jsonb, doc_column name, seed bigint, state text,
  queries integer, searched bigint, p50_ms float8, p95_ms float8,
  started_at timestamptz, finished_at timestamptz, config jsonb
)
language sql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
  select
    r.id, s.name, r.label, r.vectorizer, r.model, r.mode, r.k, r.filter, r.options, r.doc_column,
    r.seed, case when r.finished_at is null then 'unfinished' else 'finished' end,
    r.queries, t.searched, round(t.ms[1]::numeric, 2), round(t.ms[2]::numeric, 2), r.started_at, r.finished_at, r.config
  from _pgstack.eval_run as r
  join _pgstack.eval_set as s on s.id = r.set_id
  cross join lateral (
    select
      count(*) as searched,
      percentile_cont(array[0.5, 0.95]) within group (order by e.milliseconds) as ms
    from _pgstack.eval_search as e
    where e.run_id = r.id
  ) as t;
$$;

comment on function _pgstack.eval_run_list() is
'The rows of pgstack.eval_runs.';

create or replace view pgstack.eval_runs
with (security_invoker = true)
as
select * from _pgstack.eval_run_list();

comment on view pgstack.eval_runs is
'The evaluation runs of the caller, with all that their results depend on. What came back is in pgstack.eval_queries(run) and pgstack.eval_metrics.';
comment on column pgstack.eval_runs.run is 'Its number.';
comment on column pgstack.eval_runs.set is 'The judged set.';
comment on column pgstack.eval_runs.label is 'The name it was given.';
comment on column pgstack.eval_runs.vectorizer is 'Whose rows were searched.';
comment on column pgstack.eval_runs.model is 'The embedding model.';
comment on column pgstack.eval_runs.mode is 'vector, text or hybrid.';
comment on column pgstack.eval_runs.k is 'Rows asked for.';
comment on column pgstack.eval_runs.filter is 'The filter of each search.';
comment on column pgstack.eval_runs.options is 'Further arguments of pgstack.search().';
comment on column pgstack.eval_runs.doc_column is 'The column with the judged ids; NULL: the key.';
comment on column pgstack.eval_runs.seed is 'Seed of the confidence intervals.';
comment on column pgstack.eval_runs.state is 'finished, or unfinished: still going, or interrupted.';
comment on column pgstack.eval_runs.queries is 'Queries judged when it began.';
comment on column pgstack.eval_runs.searched is 'Queries searched for so far.';
comment on column pgstack.eval_runs.p50_ms is 'Half of the searches took less, in milliseconds, without the embedding of the query.';
comment on column pgstack.eval_runs.p95_ms is '95 % of the searches took less.';
comment on column pgstack.eval_runs.started_at is 'When it began.';
comment on column pgstack.eval_runs.finished_at is 'When it was first scored.';
comment on column pgstack.eval_runs.config is 'Rows of the source, chunking, template, index, settings that differ from their defaults, versions.';

create or replace function _pgstack.eval_metric_list()
returns table (
  run bigint, metric text, value float8, low float8, high float8, queries integer
)
language sql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
  select m.run_id, m.metric, m.value, m.low, m.high, m.queries
  from _pgstack.eval_metric as m
  order by m.run_id, _pgstack.metric_order(m.metric);
$$;

comment on function _pgstack.eval_metric_list() is
'The rows of pgstack.eval_metrics.';

create or replace view pgstack.eval_metrics
with (security_invoker = true)
as
select * from _pgstack.eval_metric_list();

comment on view pgstack.eval_metrics is
'What the finished runs of the caller were worth: a row a run and metric.';
comment on column pgstack.eval_metrics.run is 'The run, as in pgstack.eval_runs.';
comment on column pgstack.eval_metrics.metric is 'ndcg@10, mrr@10, map, recall@n or precision@n.';
comment on column pgstack.eval_metrics.value is 'Its mean over the judged queries.';
comment on column pgstack.eval_metrics.low is 'Lower end of the 95 % confidence interval.';
comment on column pgstack.eval_metrics.high is 'Upper end of the 95 % confidence interval.';
comment on column pgstack.eval_metrics.queries is 'The judged queries.';

grant select on pgstack.eval_runs, pgstack.eval_metrics to public;
