-- Family: recall.  What an index finds of what there is, by how hard it tries.
-- Callers: people, pgstack/indexes.py.
-- Errors: PS001 unknown vectorizer, PS007 bad argument, PS013 no index, PS014 not a reader.

-- Vectors to ask with: those of the role's own questions, if there are some, else of chunks.
create or replace function _pgstack.recall_queries(
  plan _pgstack.vectorizer_plan, sample integer,
  out vectors @extschema:vector@.vector[], out origin text
)
returns record
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _percent float8 := least(
    100, 400.0 * recall_queries.sample / greatest(1, _pgstack.chunk_count(plan))
  );
begin
  origin := 'questions';
  vectors := array(
    select q.embedding
    from _pgstack.query_cache as q
    where q.asker = current_user and q.model = plan.model
      and @extschema:vector@.vector_dims(q.embedding) = plan.dimensions
    order by random() limit recall_queries.sample
  );
  if cardinality(vectors) < least(20, recall_queries.sample) then
    origin := 'chunks';
    execute format(
      'select array(select r.%1$I from %2$s as r %3$s where r.%1$I is not null order by random() limit $1)',
      plan.embedding_column, plan.target,
      -- Four times as many rows as are wanted, by whole pages.
      case when _percent < 25 then format('tablesample system (%s)', _percent) else '' end
    ) into vectors using recall_queries.sample;
  end if;
  -- So few pages were wanted that none was drawn.
  if cardinality(vectors) = 0 then
    execute format(
      'select array(select r.%1$I from %2$s as r where r.%1$I is not null limit $1)',
      plan.embedding_column, plan.target
    ) into vectors using recall_queries.sample;
  end if;
end;
$$;

comment on function _pgstack.recall_queries(_pgstack.vectorizer_plan, integer) is
'Vectors to measure recall with, and what they are of: questions or chunks.';

-- Asks every vector once.  hits: how many of the rows are as near as the k-th nearest.
-- A distance plus nothing is no expression of an index, so that exact answers are exact.
create or replace function _pgstack.recall_round(
  plan _pgstack.vectorizer_plan, index_cast text, vectors @extschema:vector@.vector[],
  k integer, limits float8[]
)
returns table (nr bigint, hits bigint, farthest float8, ms float8)
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _cast text := coalesce('::' || index_cast, '');
  _query text := format(
    $sql$
    select count(*) filter (where d.distance <= $3 + 1e-7), max(d.distance)
    from (
      select r.%1$I operator(@extschema:vector@.<=>) $1 as distance
      from %2$s as r
      where r.%1$I is not null
      order by %3$s limit $2
    ) as d
    $sql$,
    plan.embedding_column, plan.target,
    case when limits is null
      then format('(r.%I operator(@extschema:vector@.<=>) $1) + 0', plan.embedding_column)
      else format(
        '(r.%I%2$s) operator(@extschema:vector@.<=>) ($1%2$s)', plan.embedding_column, _cast
      )
    end
  );
  _vector @extschema:vector@.vector;
  _began timestamptz;
begin
  for nr in 1 .. cardinality(vectors) loop
    _vector := vectors[nr];
    _began := clock_timestamp();
    execute _query into hits, farthest using _vector, k, limits[nr];
    ms := extract(epoch from clock_timestamp() - _began) * 1000;
    return next;
  end loop;
end;
$$;

comment on function _pgstack.recall_round(
  _pgstack.vectorizer_plan, text, @extschema:vector@.vector[], integer, float8[]
) is
'Searches with every vector, exactly (limits NULL) or by the index; limits: the distances of the k-th nearest.';

create or replace function _pgstack.check_recall(sample integer, k integer, target_recall float8)
returns void
language plpgsql immutable
security invoker
set search_path = pg_catalog, pg_temp
as $$
begin
  if (sample between 1 and 10000 and k between 1 and 500 and target_recall between 0 and 1)
    is not true
  then
    raise exception 'recall of % chunks by % questions to reach % cannot be measured',
      coalesce(k::text, 'NULL'), coalesce(sample::text, 'NULL'), coalesce(target_recall::text, 'NULL')
      using errcode = 'PS007', hint = 'sample: 1 to 10000, k: 1 to 500, target_recall: 0 to 1.';
  end if;
end;
$$;

comment on function _pgstack.check_recall(integer, integer, float8) is
'Raises PS007 for arguments that recall() cannot use.';

-- Settings are put back when it ends.  Those of diskann by hand: an owner of a database who is
-- no superuser may not pin them to a function.
create or replace function pgstack.recall(
  vectorizer text, sample integer default 100, k integer default 10,
  target_recall float8 default null
)
returns table (
  effort integer, recall float8, recall_p5 float8, p50_ms float8, p95_ms float8,
  exact_ms float8, chosen boolean, queries text, sampled integer
)
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
set enable_seqscan = on
set hnsw.ef_search = 40
as $$
declare
  _plan _pgstack.vectorizer_plan := _pgstack.vectorizer_plan(recall.vectorizer);
  _target float8 := coalesce(
    recall.target_recall, _pgstack.setting_value('target_recall')::float8
  );
  _index record;
  _vectors @extschema:vector@.vector[];
  _self integer;
  _limits float8[];
  _found record;
  _rescore text := current_setting('diskann.query_rescore', true);
  _list_size text := current_setting('diskann.query_search_list_size', true);
  _stored boolean;
  _reached boolean := false;
  _before float8 := 0;
begin
  perform _pgstack.check_recall(recall.sample, recall.k, _target), _pgstack.check_reader(_plan);
  select x.* into _index from _pgstack.vector_index(_plan) as x;
  if not found or _index.method not in ('hnsw', 'diskann') then
    raise exception 'the vectorizer "%" has no index whose recall could be measured', _plan.name
      using errcode = 'PS013', hint = format('select * from pgstack.index_advice(%L);', _plan.name);
  end if;
  select q.vectors, q.origin into _vectors, queries from _pgstack.recall_queries(_plan, sample) as q;
  sampled := cardinality(_vectors);
  -- A chunk finds itself, which says nothing.
  _self := (queries = 'chunks')::integer;
  select array_agg(r.farthest order by r.nr), percentile_cont(0.5) within group (order by r.ms)
  into _limits, exact_ms
  from _pgstack.recall_round(_plan, null, _vectors, recall.k + _self, null) as r;
  exact_ms := round(exact_ms::numeric, 3);
  perform set_config('enable_seqscan', 'off', true);
  -- Only the owner's measure decides how hard everybody's searches try.
  _stored := has_table_privilege('_pgstack.index_recall', 'insert');
  if _stored then
    delete from _pgstack.index_recall as r where r.vectorizer_id = _plan.id;
  end if;
  for effort in
    select e.effort
    from unnest(array[10, 20, 40, 80, 160, 320, 640, 1000]) as e (effort)
    where e.effort >= recall.k + _self order by 1
  loop
    perform _pgstack.set_effort(_index.method, effort);
    select
      avg(s.share) as mean,
      -- What 19 of 20 such samples are above: the next questions are others than these.
      avg(s.share) - 1.645 * coalesce(stddev_samp(s.share), 0) / sqrt(count(*)) as low,
      percentile_cont(0.05) within group (order by s.share) as p5,
      percentile_cont(0.5) within group (order by s.ms) as p50,
      percentile_cont(0.95) within group (order by s.ms) as p95
    into _found
    from (
      select r.ms, greatest(0, least(1, (r.hits - _self)::float8 / recall.k)) as share
      from _pgstack.recall_round(_plan, _index.expression_cast, _vectors, recall.k + _self, _limits) as r
    ) as s;
    exit when _found.mean is null;
    recall := _found.mean;
    recall_p5 := _found.p5;
    p50_ms := round(_found.p50::numeric, 3);
    p95_ms := round(_found.p95::numeric, 3);
    chosen := _found.low >= _target and not _reached;
    _reached := _reached or chosen;
    if _stored then
      insert into _pgstack.index_recall
        (index, effort, vectorizer_id, k, recall, recall_low, recall_p5, p50_ms, p95_ms, queries, sample)
      values (
        _index.index, effort, _plan.id, recall.k, recall, _found.low, recall_p5, p50_ms, p95_ms,
        queries, sampled
      );
    end if;
    return next;
    -- All is found, or what is still missing is lost in rounding to half the precision.
    exit when recall > 0.9995 or (recall >= 0.99 and recall <= _before);
    _before := recall;
  end loop;
  if _index.method = 'diskann' then
    perform
      set_config('diskann.query_rescore', coalesce(_rescore, '50'), true),
      set_config('diskann.query_search_list_size', coalesce(_list_size, '100'), true);
  end if;
  if _stored then
    perform _pgstack.prepare_search(p.vectorizer_id)
    from _pgstack.prepared_search as p where p.vectorizer_id = _plan.id;
  end if;
end;
$$;

comment on function pgstack.recall(text, integer, integer, float8) is
'Compares what a vectorizer''s index finds with what there is, trying harder and harder, until it finds all or no more. Called by the owner of pgstack, the result is kept, and searches ask no more of the index than target_recall takes; a new index is measured anew.
vectorizer: its name, or its source table''s. sample: how many vectors to ask with, 1 to 10000; each is compared with every chunk once. k: how many chunks to find, 1 to 500. target_recall: 0 to 1, default the setting.
Returns effort (hnsw.ef_search; for DiskANN query_rescore, and query_search_list_size if more than 100), recall: the share of the k nearest that were found, recall_p5: of the worst twentieth of questions, the median and 95th percentile of a search by the index in ms, the median of an exact one, whether it is the least effort that reaches the target, the error of the sample allowed for, and what it was measured with: the role''s own questions in the query cache, if there are 20, else chunks, and how many.
Raises PS001 unknown vectorizer, PS007 bad argument, PS013 no vector index, PS014 not a reader.';
