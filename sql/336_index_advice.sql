-- Family: vector indexes, the advice itself.
-- Callers: people, pgstack/indexes.py, 333_index_request.sql.
-- Errors: PS001 unknown vectorizer, PS007 bad argument.

-- More candidates are kept while building a large graph; it pays in recall from a million on.
create or replace function _pgstack.advised_parameters(method text, rows bigint)
returns jsonb
language sql immutable
security invoker
set search_path = pg_catalog, pg_temp
as $$
  select case
    when method = 'hnsw' and rows >= 1000000 then '{"m": 24, "ef_construction": 128}'
    when method = 'hnsw' then '{"m": 16, "ef_construction": 64}'
    when method = 'diskann' then '{"num_neighbors": 50, "search_list_size": 100}'
    else '{}'
  end::jsonb;
$$;

comment on function _pgstack.advised_parameters(text, bigint) is
'The parameters that suit an index of so many vectors.';

-- Every kind of index with what it would cost; problem: why it cannot be.
create or replace function _pgstack.index_candidates(plan _pgstack.vectorizer_plan, rows bigint)
returns table (
  method text, storage text, parameters jsonb, labels name, bytes bigint, seconds float8,
  memory bigint, query_ms float8, problem text
)
language sql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
  select
    k.method, k.storage, p.parameters,
    case k.method when 'diskann' then (
      select c.name from _pgstack.label_columns(plan) as c (name) limit 1
    ) end,
    _pgstack.index_bytes(k.method, k.storage, plan.dimensions, p.parameters, rows),
    _pgstack.index_seconds(k.method, k.storage, plan.dimensions, p.parameters, rows),
    case k.method
      when 'none' then 0
      else _pgstack.index_memory_wanted(k.method, k.storage, plan.dimensions, p.parameters, rows)
    end,
    case k.method
      -- A vector of more than 2 kB lies outside of its row.
      when 'none' then rows * (0.5 + 0.0008 * plan.dimensions
        + case when plan.dimensions > 490 then 3 else 0 end) / 1000
      else (
        select c.query_ms * ln(greatest(rows, 3)) / ln(40000)
        from _pgstack.index_cost() as c where c.method = k.method and c.storage = k.storage
      )
    end,
    case
      when k.method = 'hnsw' and plan.dimensions > k.longest
        then format('HNSW on %s takes up to %s dimensions', k.storage, k.longest)
      when k.method = 'diskann' and not exists (select from pg_am as m where m.amname = 'diskann')
        then 'the extension vectorscale is not installed'
    end
  from (
    values
      ('hnsw', 'vector', 2000),
      ('hnsw', 'halfvec', 4000),
      ('diskann', 'sbq', 16000),
      ('none', 'none', 16000)
  ) as k (method, storage, longest)
  cross join lateral (select _pgstack.advised_parameters(k.method, rows) as parameters) as p;
$$;

comment on function _pgstack.index_candidates(_pgstack.vectorizer_plan, bigint) is
'Every kind of vector index with what it would cost a vectorizer of so many vectors.';

-- The first that fits, in this order.  An index over a cast serves pgstack.search(), but not
-- plain SQL over the view, so it comes after one over the column.
create or replace function _pgstack.index_choice(plan _pgstack.vectorizer_plan, rows bigint)
returns text
language plpgsql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _cache bigint := pg_size_bytes(current_setting('effective_cache_size')) / 2;
  _least bigint := _pgstack.setting_value('index_min_rows')::bigint;
begin
  if rows < _least then
    return 'none none';
  end if;
  return coalesce(
    (
      select c.method || ' ' || c.storage
      from _pgstack.index_candidates(plan, rows) as c
      where c.problem is null and c.method <> 'none'
        and (c.bytes <= _cache or c.method = 'diskann' or c.labels is not null)
      order by c.labels is null, c.method <> 'hnsw', c.storage <> 'vector' limit 1
    ),
    (
      select c.method || ' ' || c.storage
      from _pgstack.index_candidates(plan, rows) as c
      where c.problem is null and c.method <> 'none' order by c.bytes limit 1
    ),
    'none none'
  );
end;
$$;

comment on function _pgstack.index_choice(_pgstack.vectorizer_plan, bigint) is
'Method and storage of the index that is recommended.';

create or replace function _pgstack.index_reason(
  plan _pgstack.vectorizer_plan, rows bigint, method text, storage text, recommended boolean
)
returns text
language plpgsql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _least bigint := _pgstack.setting_value('index_min_rows')::bigint;
  _cache text := current_setting('effective_cache_size');
  _candidate record;
  _fits boolean;
begin
  select c.* into _candidate from _pgstack.index_candidates(plan, rows) as c
  where c.method = index_reason.method and c.storage = index_reason.storage;
  _fits := _candidate.bytes <= pg_size_bytes(_cache) / 2;
  return case
    when _candidate.problem is not null then 'Not possible: ' || _candidate.problem || '.'
    when method = 'none' and rows < _least then format(
      'Reading all %s chunks takes about %s ms and misses none; an index pays from %s on (setting index_min_rows).',
      rows, round(_candidate.query_ms::numeric, 1), _least
    )
    when method = 'none' then format(
      'Reading all %s chunks at each search takes about %s ms, and misses none.',
      rows, round(_candidate.query_ms::numeric)
    )
    when recommended and _candidate.labels is not null then format(
      'The column %I of labels can be part of the index, so that filters by it lose nothing.',
      _candidate.labels
    )
    when method = 'hnsw' and not _fits then format(
      'Larger than half of effective_cache_size (%s): searches would read from the disk.', _cache
    )
    when storage = 'vector' then format(
      'Fast and exact enough, and in memory: half of effective_cache_size (%s) holds it.', _cache
    )
    when storage = 'halfvec' then
      'Half the size at the same recall; plain SQL must order by the same cast to use it.'
    else 'The smallest, but slower to build and to search than HNSW: for what does not fit in memory.'
  end;
end;
$$;

comment on function _pgstack.index_reason(_pgstack.vectorizer_plan, bigint, text, text, boolean) is
'A sentence on what speaks for a kind of index, or against it.';

create or replace function pgstack.index_advice(vectorizer text, rows bigint default null)
returns table (
  recommended boolean, method text, storage text, parameters jsonb, labels name,
  expected_bytes bigint, expected_time interval, memory_bytes bigint, expected_ms float8,
  why text, statement text
)
language plpgsql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _plan _pgstack.vectorizer_plan := _pgstack.vectorizer_plan(index_advice.vectorizer);
  _rows bigint := coalesce(index_advice.rows, _pgstack.chunk_count(_plan), 0);
  _choice text;
begin
  if _rows < 0 then
    raise exception 'rows cannot be %', _rows
      using errcode = 'PS007', hint = 'How many chunks there will be; leave it out to have them counted.';
  end if;
  _choice := _pgstack.index_choice(_plan, _rows);
  return query
  select
    c.method || ' ' || c.storage = _choice, c.method, c.storage, c.parameters, c.labels,
    case when c.problem is null then c.bytes end,
    case when c.problem is null then date_trunc(
      'milliseconds', make_interval(secs => coalesce(c.seconds, 0))
    ) end,
    case when c.problem is null then c.memory end,
    case when c.problem is null then round(c.query_ms::numeric, 1)::float8 end,
    _pgstack.index_reason(
      _plan, _rows, c.method, c.storage, c.method || ' ' || c.storage = _choice
    ) || coalesce(
      (
        select ' The time is by what the last builds took here.'
        from _pgstack.index_speed(c.method) as s
        where s.builds > 0 and c.problem is null and c.method <> 'none'
      ), ''
    ),
    case when c.problem is null then format(
      'select pgstack.build_index(%L, method => %L%s);', _plan.name, c.method,
      case when c.method <> 'none' then
        format(', storage => %L, parameters => %L', c.storage, c.parameters)
        || coalesce(', labels => ' || quote_literal(c.labels), '')
      end
    ) end
  from _pgstack.index_candidates(_plan, _rows) as c
  order by 1 desc, c.problem is not null, c.method = 'none', c.bytes desc;
end;
$$;

comment on function pgstack.index_advice(text, bigint) is
'The vector indexes that a vectorizer could have, the recommended one first, and what each would cost. Estimates come from measurements, and from the last builds of this database.
vectorizer: its name, or its source table''s. rows: for so many chunks, default those there are.
Returns whether it is recommended, method (hnsw, diskann, none), storage (vector; halfvec: 2 bytes a dimension; sbq: 1 or 2 bits), parameters, labels (a column a DiskANN index would filter by), expected size in bytes, expected time of building, the maintenance_work_mem in bytes that it wants for that, expected time of a search in ms, why, and the statement that applies it. Estimates and statement are NULL for what is not possible.
Raises PS001 unknown vectorizer, PS007 bad argument.';
