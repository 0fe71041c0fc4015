-- Family: vector indexes, what is asked for.  Writes _pgstack.index_build.
-- Callers: people, pgstack/indexes.py, 334_index_build.sql.
-- Errors: PS001 unknown vectorizer, PS007 bad argument, PS008 no vectorscale, PS013 unsupported,
--         PS014 not the owner of pgstack.

create or replace function _pgstack.index_parameters()
returns table (method text, name text, lowest float8, highest float8)
language sql immutable
security invoker
set search_path = pg_catalog, pg_temp
as $$
  values
    ('hnsw', 'm', 2::float8, 100::float8),
    ('hnsw', 'ef_construction', 4, 1000),
    ('diskann', 'num_neighbors', 11, 1000),
    ('diskann', 'search_list_size', 10, 1000),
    ('diskann', 'max_alpha', 1, 5),
    ('diskann', 'num_dimensions', 1, 16000),
    ('diskann', 'num_bits_per_dimension', 1, 32);
$$;

comment on function _pgstack.index_parameters() is
'What an index of a method may be built with, and the bounds of each.';

create or replace function _pgstack.check_index_parameters(method text, parameters jsonb)
returns void
language plpgsql immutable
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _bad text;
begin
  if jsonb_typeof(check_index_parameters.parameters) <> 'object' then
    raise exception 'parameters must be a JSON object, not %',
      jsonb_typeof(check_index_parameters.parameters)
      using errcode = 'PS007', hint = 'parameters => ''{"m": 16}''';
  end if;
  select g.key into _bad
  from jsonb_each(check_index_parameters.parameters) as g
  left join _pgstack.index_parameters() as p
    on p.method = check_index_parameters.method and p.name = g.key
  where not coalesce(
    case jsonb_typeof(g.value)
      when 'number' then (g.value #>> '{}')::numeric between p.lowest and p.highest
    end, false
  )
  limit 1;
  if found then
    raise exception 'an index by % cannot have % = %', check_index_parameters.method, _bad,
      check_index_parameters.parameters -> _bad
      using errcode = 'PS007',
      hint = coalesce(
        (
          select string_agg(format('%s: %s to %s', p.name, p.lowest, p.highest), ', ' order by p.name)
          from _pgstack.index_parameters() as p where p.method = check_index_parameters.method
        ), 'It has no parameters.'
      );
  end if;
  if (parameters ->> 'ef_construction')::float8 < 2 * coalesce((parameters ->> 'm')::float8, 16) then
    raise exception 'ef_construction cannot be less than twice m'
      using errcode = 'PS007', hint = 'parameters => ''{"m": 16, "ef_construction": 64}''';
  end if;
end;
$$;

comment on function _pgstack.check_index_parameters(text, jsonb) is
'Raises PS007 for parameters that an index of a method cannot have.';

create or replace function _pgstack.check_index(
  plan _pgstack.vectorizer_plan, method text, storage text, labels name
)
returns void
language plpgsql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
begin
  if check_index.method = 'diskann' and not exists (select from pg_am as m where m.amname = 'diskann') then
    raise exception 'an index by diskann needs the extension vectorscale'
      using errcode = 'PS008', hint = 'create extension vectorscale cascade;';
  elsif (check_index.method, check_index.storage) not in (
    ('hnsw', 'vector'), ('hnsw', 'halfvec'), ('diskann', 'sbq'), ('none', 'none')
  ) then
    raise exception 'there is no index by "%" that keeps "%"', check_index.method, check_index.storage
      using errcode = 'PS007',
      hint = 'method => ''hnsw'' with storage => ''vector'' or ''halfvec'', or ''diskann'' with ''sbq'', or ''none''.';
  elsif check_index.method = 'hnsw'
    and plan.dimensions > (case check_index.storage when 'vector' then 2000 else 4000 end)
  then
    raise exception 'HNSW on % cannot hold % dimensions', check_index.storage, plan.dimensions
      using errcode = 'PS007',
      hint = 'vector: up to 2000, halfvec: up to 4000. Longer ones: method => ''diskann''.';
  elsif check_index.labels is not null and (
    check_index.method <> 'diskann' or not exists (
      select from _pgstack.label_columns(plan) as c (name) where c.name = check_index.labels
    )
  ) then
    raise exception 'labels cannot be "%"', check_index.labels
      using errcode = 'PS007',
      hint = format('Only with method => ''diskann''; a column of type smallint[] of %s.', plan.target);
  end if;
end;
$$;

comment on function _pgstack.check_index(_pgstack.vectorizer_plan, text, text, name) is
'Raises PS007 or PS008 for a vector index that a vectorizer cannot have.';

create or replace function _pgstack.label_columns(plan _pgstack.vectorizer_plan)
returns setof name
language sql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
  select a.attname
  from pg_attribute as a
  where a.attrelid = _pgstack.find_relation(plan.target)
    and a.atttypid = 'smallint[]'::regtype and a.attnum > 0 and not a.attisdropped
  order by a.attnum;
$$;

comment on function _pgstack.label_columns(_pgstack.vectorizer_plan) is
'The columns beside a vectorizer''s vectors that a DiskANN index could filter by: smallint[].';

create or replace function pgstack.build_index(
  vectorizer text,
  method text default null,
  storage text default null,
  parameters jsonb default null,
  labels name default null
)
returns bigint
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _plan _pgstack.vectorizer_plan := _pgstack.vectorizer_plan(build_index.vectorizer);
  _problem text := _pgstack.index_problem(_plan);
  _method text := build_index.method;
  _storage text := build_index.storage;
  _parameters jsonb;
  _labels name := build_index.labels;
  _id bigint;
begin
  perform _pgstack.check_manager();
  if _problem is not null then
    raise exception 'the vectorizer "%" cannot have an index: %', _plan.name, _problem
      using errcode = 'PS013', hint = format('create index on %s ...', _plan.target);
  end if;
  select a.method, a.storage, a.parameters, coalesce(_labels, a.labels)
  into _method, _storage, _parameters, _labels
  from pgstack.index_advice(_plan.name) as a
  where (build_index.method is null or a.method = build_index.method)
    and (build_index.storage is null or a.storage = build_index.storage)
  order by a.recommended desc, a.expected_bytes desc nulls last limit 1;
  if not found then  -- says why
    perform _pgstack.check_index(
      _plan, coalesce(build_index.method, 'hnsw'),
      coalesce(build_index.storage, _pgstack.index_storage(build_index.method, _plan.dimensions)), null
    );
  end if;
  _parameters := coalesce(build_index.parameters, _parameters);
  perform
    _pgstack.check_index(_plan, _method, _storage, _labels),
    _pgstack.check_index_parameters(_method, _parameters);
  insert into _pgstack.index_build as b
    (vectorizer_id, vectorizer, method, storage, parameters, labels, dimensions, rows)
  values (
    _plan.id, _plan.name, _method, _storage, _parameters, _labels, _plan.dimensions,
    _pgstack.chunk_count(_plan)
  )
  on conflict (vectorizer_id) where state = 'requested' do update set
    method = excluded.method, storage = excluded.storage, parameters = excluded.parameters,
    labels = excluded.labels, rows = excluded.rows, automatic = false, requested_by = current_user,
    requested_at = clock_timestamp(), retry_at = clock_timestamp(), attempts = 0, error = null
  returning b.id into _id;
  perform pg_notify('pgstack_index', '');
  return _id;
end;
$$;

comment on function pgstack.build_index(text, text, text, jsonb, name) is
'Asks the worker for a vector index in place of the one a vectorizer has. It is built beside the old one, which serves until the new one is complete; nobody waits. Returns the number of the build: see pgstack.index_progress.
vectorizer: its name, or its source table''s. method: hnsw, diskann or none; default: what pgstack.index_advice() recommends. storage: vector or halfvec (hnsw), sbq (diskann); default: as advised.
parameters: {"m": 16, "ef_construction": 64} (hnsw), {"num_neighbors": 50, "search_list_size": 100} (diskann); default: as advised. labels: a column of type smallint[] beside the vectors, for filters inside a DiskANN index.
A build that is still waiting is replaced by a second call. Once built, the worker keeps to this method.
Raises PS001 unknown vectorizer, PS007 bad argument, PS008 no vectorscale, PS013 no index possible, PS014 not the owner of pgstack.';

create or replace function _pgstack.index_problem(plan _pgstack.vectorizer_plan)
returns text
language plpgsql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _kind "char" := (
    select c.relkind from pg_class as c where c.oid = _pgstack.find_relation(plan.target)
  );
begin
  return case
    when _kind is null then format('the table %s is gone', plan.target)
    when _kind = 'p' then format(
      '%s is partitioned, and PostgreSQL builds no index of such a table concurrently', plan.target
    )
    when _kind <> 'r' then format('%s is no table', plan.target)
  end;
end;
$$;

comment on function _pgstack.index_problem(_pgstack.vectorizer_plan) is
'Why the worker cannot build a vectorizer''s vector index; NULL: it can.';
