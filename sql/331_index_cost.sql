-- Family: vector indexes, what each kind costs.
-- Callers: 334_index_build.sql, 335_index_progress.sql, 336_index_advice.sql.
-- Errors: none.

-- Measured by `make bench-index` (--alone) on 2 cores of an AMD EPYC, PostgreSQL 17.10, pgvector 0.8.2,
-- vectorscale 0.9.0: 10,000 to 40,000 vectors of 384 and 1024 dimensions in 200 clusters.  Building takes
--   rows * ln(rows) * (us_row + us_dimension * dimensions) microseconds
-- and slow_factor times as long without memory for the graph (in a third of it 2.3 times).
-- query_ms: ten chunks of 40,000, in memory.
-- How fast this machine is, its own builds tell: _pgstack.index_speed().
create or replace function _pgstack.index_cost()
returns table (
  method text, storage text, us_row float8, us_dimension float8, slow_factor float8, query_ms float8
)
language sql immutable
security invoker
set search_path = pg_catalog, pg_temp
as $$
  values
    ('hnsw', 'vector', 2::float8, 0.114::float8, 3::float8, 0.6::float8),
    ('hnsw', 'halfvec', 5, 0.075, 3, 0.6),
    ('diskann', 'sbq', 330, 0, 1, 6);
$$;

comment on function _pgstack.index_cost() is
'What building and asking a vector index costs: constants that were measured.';

-- pgvector keeps an element and its neighbours on one page, whole elements only; vectorscale two
-- bits a dimension, one from 900 dimensions on, and 50 neighbours.
create or replace function _pgstack.index_bytes(
  method text, storage text, dimensions integer, parameters jsonb, rows bigint
)
returns bigint
language sql immutable
security invoker
set search_path = pg_catalog, pg_temp
as $$
  select (rows * case storage
    when 'sbq' then 215 + 4.8 * coalesce((parameters ->> 'num_neighbors')::float8, 50)
      + dimensions / 8.0 * coalesce(
        (parameters ->> 'num_bits_per_dimension')::float8, case when dimensions < 900 then 2 else 1 end
      )
    when 'none' then 0
    else 8192 / greatest(1, floor(8150 / (
      case storage when 'halfvec' then 2 else 4 end * dimensions
      + 66 + 12 * coalesce((parameters ->> 'm')::float8, 16)
    )))
  end)::bigint;
$$;

comment on function _pgstack.index_bytes(text, text, integer, jsonb, bigint) is
'Expected size of a vector index.';

-- The graph of HNSW is built in memory: a vector, its neighbours and 180 bytes an element.
create or replace function _pgstack.index_memory_wanted(
  method text, storage text, dimensions integer, parameters jsonb, rows bigint
)
returns bigint
language sql immutable
security invoker
set search_path = pg_catalog, pg_temp
as $$
  select case method
    when 'hnsw' then 1048576 + (1.05 * rows * (
      case storage when 'halfvec' then 2 else 4 end * dimensions
      + 188 + 33 * coalesce((parameters ->> 'm')::float8, 16)
    ))::bigint
    else 67108864
  end;
$$;

comment on function _pgstack.index_memory_wanted(text, text, integer, jsonb, bigint) is
'The maintenance_work_mem in bytes with which a vector index is built fast.';

-- Setting index_memory.  An eighth of the cache is about a sixteenth of the machine.
create or replace function _pgstack.index_memory_given(wanted bigint)
returns bigint
language plpgsql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _setting text := _pgstack.setting_value('index_memory');
begin
  if _setting <> 'auto' then
    return greatest(1048576, pg_size_bytes(_setting));
  end if;
  return greatest(
    pg_size_bytes(current_setting('maintenance_work_mem')),
    least(index_memory_given.wanted, pg_size_bytes(current_setting('effective_cache_size')) / 8)
  );
end;
$$;

comment on function _pgstack.index_memory_given(bigint) is
'The maintenance_work_mem in bytes that a build gets which wants so much: setting index_memory; auto: what it wants, within an eighth of effective_cache_size, but what the server gives at least.';

create or replace function _pgstack.index_slowness(method text, wanted bigint, given bigint)
returns float8
language sql immutable
security invoker
set search_path = pg_catalog, pg_temp
as $$
  select 1 + (max(c.slow_factor) - 1)
    * (1 - least(1, index_slowness.given::float8 / nullif(index_slowness.wanted, 0)))
  from _pgstack.index_cost() as c where c.method = index_slowness.method;
$$;

comment on function _pgstack.index_slowness(text, bigint, bigint) is
'How many times as long a build takes in less memory than it wants.';

create or replace function _pgstack.index_work(
  method text, storage text, dimensions integer, parameters jsonb, rows bigint
)
returns float8
language sql immutable
security invoker
set search_path = pg_catalog, pg_temp
as $$
  select rows * ln(greatest(rows, 3)) * (c.us_row + c.us_dimension * dimensions) / 1e6
    * case c.method
      when 'hnsw' then sqrt(coalesce((parameters ->> 'm')::float8, 16) / 16)
        * coalesce((parameters ->> 'ef_construction')::float8, 64) / 64
      else coalesce((parameters ->> 'search_list_size')::float8, 100) / 100
        * sqrt(coalesce((parameters ->> 'num_neighbors')::float8, 50) / 50)
    end
  from _pgstack.index_cost() as c
  where c.method = index_work.method and c.storage = index_work.storage;
$$;

comment on function _pgstack.index_work(text, text, integer, jsonb, bigint) is
'Seconds that building a vector index takes on the machine of _pgstack.index_cost(), in one process and with enough memory.';

-- The last builds of this database, those by the same method first.
create or replace function _pgstack.index_speed(method text)
returns table (factor float8, builds bigint)
language sql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
  select percentile_cont(0.5) within group (order by t.factor), count(*)
  from (
    select rank() over (order by (b.method = index_speed.method) desc) as nr,
      row_number() over (partition by b.method order by b.id desc) as age,
      b.seconds / nullif(
        _pgstack.index_work(b.method, b.storage, b.dimensions, b.parameters, b.rows), 0
      ) / coalesce(
        _pgstack.index_slowness(
          b.method,
          _pgstack.index_memory_wanted(b.method, b.storage, b.dimensions, b.parameters, b.rows),
          b.memory_bytes
        ), 1
      ) as factor
    from _pgstack.index_build as b
    where b.state = 'done' and b.seconds > 0 and b.rows >= 10000
  ) as t
  where t.nr = 1 and t.age <= 5;
$$;

comment on function _pgstack.index_speed(text) is
'How long indexes took to build here, as a multiple of _pgstack.index_work(): the median of the last builds, and how many these are.';

create or replace function _pgstack.index_seconds(
  method text, storage text, dimensions integer, parameters jsonb, rows bigint
)
returns float8
language sql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
  select coalesce(s.factor, 1)
    * _pgstack.index_work(
      index_seconds.method, storage, dimensions, parameters, index_seconds.rows
    )
    * _pgstack.index_slowness(
      index_seconds.method, m.wanted, _pgstack.index_memory_given(m.wanted)
    )
  from _pgstack.index_speed(index_seconds.method) as s
  cross join lateral (
    select _pgstack.index_memory_wanted(
      index_seconds.method, storage, dimensions, parameters, index_seconds.rows
    ) as wanted
  ) as m;
$$;

comment on function _pgstack.index_seconds(text, text, integer, jsonb, bigint) is
'Expected time of building a vector index here.';

-- Counted while that is quick; else as PostgreSQL's planner would: rows a page, times pages.
create or replace function _pgstack.chunk_count(plan _pgstack.vectorizer_plan)
returns bigint
language plpgsql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _table oid := _pgstack.find_relation(plan.target);
  _pages bigint := pg_relation_size(_table) / current_setting('block_size')::integer;
  _count bigint;
begin
  select (c.reltuples / c.relpages * _pages)::bigint into _count
  from pg_class as c
  where c.oid = _table and c.reltuples > 0 and c.relpages > 0
    and (_pages > 10000 or not has_table_privilege(_table, 'select') or row_security_active(_table));
  if _count is null and has_table_privilege(_table, 'select') then
    execute format(
      'select count(*) from %s where %I is not null', plan.target, plan.embedding_column
    ) into _count;
  end if;
  return _count;
end;
$$;

comment on function _pgstack.chunk_count(_pgstack.vectorizer_plan) is
'How many vectors a vectorizer has: counted, or, of a large table, estimated. NULL when the role can tell neither.';
