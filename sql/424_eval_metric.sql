-- Family: evaluation.  Scores of a run, and how sure they are.
-- Callers: 426_eval_run.sql, 428_eval_compare.sql.
-- Errors: none.
--
-- The definitions are trec_eval's: gain in nDCG is the grade, its discount log2(rank + 1);
-- average precision counts every relevant document, found or not; precision@n divides by n
-- even where fewer were found.  Relevant: a grade of 1 or more.

create or replace function _pgstack.eval_depths(k integer)
returns integer[]
language sql immutable strict parallel safe
security invoker
set search_path = pg_catalog, pg_temp
as $$
  select array_agg(distinct d.depth order by d.depth)
  from unnest(array[10, 100, eval_depths.k]) as d (depth)
  where d.depth <= eval_depths.k;
$$;

comment on function _pgstack.eval_depths(integer) is
'The ranks down to which a run of k results is counted: 10 and 100 as far as it goes, and k.';

create or replace function _pgstack.metric_order(metric text)
returns integer[]
language sql immutable strict parallel safe
security invoker
set search_path = pg_catalog, pg_temp
as $$
  select array[
    array_position(
      array['ndcg', 'mrr', 'map', 'recall', 'precision'], split_part(metric_order.metric, '@', 1)
    ),
    nullif(split_part(metric_order.metric, '@', 2), '')::integer
  ];
$$;

comment on function _pgstack.metric_order(text) is
'What metrics are sorted by when they are shown.';

-- Right after a set was loaded its tables have no statistics, and PostgreSQL would take
-- thousands of queries for one: nested loops over them cost minutes.
create or replace function _pgstack.eval_values(run _pgstack.eval_run)
returns table (query_id text, metric text, value float8)
language sql stable
security invoker
set search_path = pg_catalog, pg_temp
set enable_nestloop = off
as $$
  with judged as materialized (
    select
      j.query_id, j.doc_id, greatest(j.grade, 0) as grade,
      row_number() over (partition by j.query_id order by j.grade desc) as nr
    from _pgstack.eval_judgment as j
    join _pgstack.eval_search as s on s.run_id = run.id and s.query_id = j.query_id
    where j.set_id = run.set_id
  ),
  ideal as (
    select
      j.query_id, count(*) filter (where j.grade > 0) as relevant,
      sum(j.grade * ln(2) / ln(j.nr + 1)) filter (where j.nr <= least(10, run.k)) as dcg
    from judged as j
    group by j.query_id
  ),
  found as materialized (
    select
      r.query_id, r.rank, j.grade,
      row_number() over (partition by r.query_id order by r.rank) as nr
    from _pgstack.eval_result as r
    join judged as j on j.query_id = r.query_id and j.doc_id = r.doc_id
    where r.run_id = run.id and j.grade > 0
  ),
  gained as (
    select
      f.query_id,
      sum(f.grade * ln(2) / ln(f.rank + 1)) filter (where f.rank <= 10) as dcg,
      1.0 / min(f.rank) filter (where f.rank <= 10) as reciprocal_rank,
      sum(f.nr::float8 / f.rank) as precisions
    from found as f
    group by f.query_id
  ),
  hits as (
    select f.query_id, d.depth, count(*) as hits
    from found as f join unnest(_pgstack.eval_depths(run.k)) as d (depth) on f.rank <= d.depth
    group by f.query_id, d.depth
  )
  select i.query_id, v.metric, coalesce(v.value, 0)
  from ideal as i
  left join gained as g on g.query_id = i.query_id
  cross join lateral (
    values
      (format('ndcg@%s', least(10, run.k)), g.dcg / nullif(i.dcg, 0)),
      (format('mrr@%s', least(10, run.k)), g.reciprocal_rank),
      ('map', g.precisions / nullif(i.relevant, 0))
  ) as v (metric, value)
  union all
  select i.query_id, v.metric, coalesce(v.value, 0)
  from ideal as i
  cross join unnest(_pgstack.eval_depths(run.k)) as d (depth)
  left join hits as h on h.query_id = i.query_id and h.depth = d.depth
  cross join lateral (
    values
      (format('recall@%s', d.depth), h.hits::float8 / nullif(i.relevant, 0)),
      (format('precision@%s', d.depth), h.hits::float8 / d.depth)
  ) as v (metric, value);
$$;

comment on function _pgstack.eval_values(_pgstack.eval_run) is
'The value of every metric for every judged query of a run, 0 where nothing was found.';

-- A resample draws as many queries as there are, with repetition.  The draws are digests
-- of their number and the seed: the same everywhere, and no setseed() that others would
-- feel; one digest serves two draws.  Beyond 20,000 queries fewer resamples will do.
create or replace function _pgstack.bootstrap(samples float8[], seed bigint)
returns float8[]
language plpgsql immutable strict parallel safe
security invoker
set search_path = pg_catalog, pg_temp
set jit = off
as $$
declare
  _n bigint := cardinality(samples);
  _resamples bigint := least(1000, greatest(200, 20000000 / greatest(_n, 1)));
begin
  return (
    select percentile_cont(array[0.025, 0.975]) within group (order by m.mean)
    from (
      select (
        select sum(
          samples[1 + (d.digest & 2147483647) % _n]
          + case when 2 * d.nr <= _n then samples[1 + (d.digest >> 32 & 2147483647) % _n] else 0 end
        ) / _n
        from (
          select i.nr, hashint8extended(r.nr * _n + i.nr, seed) as digest
          from generate_series(1, (_n + 1) / 2) as i (nr)
          offset 0 -- each digest is made once
        ) as d
      ) as mean
      from generate_series(1, _resamples) as r (nr)
    ) as m
  );
end;
$$;

comment on function _pgstack.bootstrap(float8[], bigint) is
'The 95 % confidence interval of a mean, [low, high], by 1000 seeded bootstrap resamples.';

-- Signs are drawn for eight differences at a time: every sum that eight can have is
-- added up once, and a byte of a digest picks one.  What does not differ has no sign.
create or replace function _pgstack.randomisation_p(differences float8[], seed bigint)
returns float8
language plpgsql immutable strict parallel safe
security invoker
set search_path = pg_catalog, pg_temp
set jit = off
as $$
declare
  _flips constant integer := 10000;
  _differences float8[] := array(select d.d from unnest(differences) as d (d) where d.d <> 0);
  _observed float8 := (select abs(sum(d.d)) from unnest(_differences) as d (d));
  _blocks bigint := (cardinality(_differences) + 7) / 8;
  _sums float8[];
begin
  if cardinality(_differences) = 0 then
    return 1;
  end if;
  _sums := array(
    select sum(case when (s.signs >> (d.nr % 8)::integer) & 1 = 1 then d.d else -d.d end)
    from (select d.d, d.nr - 1 as nr from unnest(_differences) with ordinality as d (d, nr)) as d
    cross join generate_series(0, 255) as s (signs)
    group by d.nr / 8, s.signs
    order by d.nr / 8, s.signs
  );
  return (
    -- Sums of floats in another order differ in their last digits.
    select (1 + count(*) filter (where abs(f.sum) >= _observed * (1 - 1e-9)))::float8 / (1 + _flips)
    from (
      select (
        select sum(_sums[1 + b.nr * 256 + (hashint8extended(r.nr * _blocks + b.nr, seed) & 255)])
        from generate_series(0, _blocks - 1) as b (nr)
      ) as sum
      from generate_series(1, _flips) as r (nr)
    ) as f
  );
end;
$$;

comment on function _pgstack.randomisation_p(float8[], bigint) is
'How likely differences at least this large are if each could as well have the other sign: 10,000 seeded sign flips.';

-- Also after judgements changed: results stay, scores are new.
create or replace function _pgstack.eval_score(run _pgstack.eval_run)
returns void
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
begin
  delete from _pgstack.eval_score as s where s.run_id = run.id;
  delete from _pgstack.eval_metric as m where m.run_id = run.id;
  with scores as (
    insert into _pgstack.eval_score (run_id, metric, query_id, value)
    select run.id, v.metric, v.query_id, v.value from _pgstack.eval_values(run) as v
    returning metric, query_id, value
  )
  insert into _pgstack.eval_metric (run_id, metric, value, low, high, queries)
  select run.id, m.metric, m.mean, b.bounds[1], b.bounds[2], cardinality(m.samples)
  from (
    select
      s.metric, avg(s.value) as mean,
      array_agg(s.value order by s.query_id collate "C") as samples
    from scores as s
    group by s.metric
  ) as m
  cross join lateral _pgstack.bootstrap(m.samples, run.seed) as b (bounds);
  update _pgstack.eval_run as r
  set judged = _pgstack.eval_digest(run.set_id) where r.id = run.id;
end;
$$;

comment on function _pgstack.eval_score(_pgstack.eval_run) is
'Scores a run''s results with the judgements as they are now.';
