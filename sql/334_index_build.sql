-- Family: vector indexes, how they are built.  Reads the catalogue and _pgstack.index_build, and
-- gives the worker one statement after another.
-- Callers: 330_index.sql.
-- Errors: none.
--
-- A build is a row of _pgstack.index_build; what is done of it is read from the catalogue each
-- time, so that nothing is lost when a worker or the server dies:
--   requested  create index concurrently _pgstack_new_<build>
--   building   ... until that index is valid; then, in one transaction, the old index becomes
--              _pgstack_old_<build>_<n> and the new one takes its name
--   clearing   drop index concurrently, for every index of such a name that no build needs
--   done
-- The old index serves until the new one is complete.  Renaming blocks no reader.

-- What a dead or failed build left, and indexes on vectors that are not valid, unless a
-- session is at work on that table: it may be building one.
create or replace function _pgstack.index_leftover()
returns table (name text, statement text)
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
begin
  return query
  select
    coalesce(p.name::text, 'no vectorizer'),
    format('drop index concurrently if exists %I.%I', n.nspname, x.relname)
  from (
    select c.relname::text, c.relnamespace, i.indrelid, i.indisvalid
    from pg_index as i
    join pg_class as c on c.oid = i.indexrelid
    join pg_am as m on m.oid = c.relam
    where m.amname in ('hnsw', 'diskann', 'ivfflat') and pg_has_role(c.relowner, 'usage')
      and (not i.indisvalid or starts_with(c.relname, '_pgstack_'))
  ) as x
  join pg_namespace as n on n.oid = x.relnamespace
  left join _pgstack.vectorizer_plan as p on _pgstack.find_relation(p.target) = x.indrelid
  where case
    when x.relname ~ '^_pgstack_new_\d+$' then not x.indisvalid or not exists (
      select from _pgstack.index_build as b
      where b.id = substr(x.relname, 14)::bigint and b.state in ('requested', 'building')
    )
    when x.relname ~ '^_pgstack_old_\d+_\d+$' then true
    else p.id is not null and not x.indisvalid and not exists (
      select from pg_locks as l
      where l.relation = x.indrelid and l.mode = 'ShareUpdateExclusiveLock'
        and l.database = (select d.oid from pg_database as d where d.datname = current_database())
        and l.pid <> pg_backend_pid()
    )
  end
  order by n.nspname, x.relname
  limit 1;
end;
$$;

comment on function _pgstack.index_leftover() is
'At most one statement: drops an index that a build left behind, or that was never completed.';

-- Once an hour at most after a failure: what was wrong is for a person to mend.
create or replace function _pgstack.request_due_indexes()
returns void
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _plan _pgstack.vectorizer_plan;
  _method text;
  _least bigint := _pgstack.setting_value('index_min_rows')::bigint;
  _enough boolean;
begin
  for _plan in select p.* from _pgstack.vectorizer_plan as p where not p.disabled order by p.id
  loop
    _method := _pgstack.index_method(_plan);
    continue when _method is null
      or _pgstack.vectorizer_problem(_plan) is not null
      or _pgstack.rights_problem(_plan) is not null
      or _pgstack.index_problem(_plan) is not null
      or exists (select from _pgstack.vector_index(_plan))
      or exists (
        select from _pgstack.index_build as b
        where b.vectorizer_id = _plan.id and (
          b.state in ('requested', 'building', 'clearing')
          or (b.state = 'failed' and b.finished_at > now() - interval '1 hour')
        )
      )
      or not _plan.has_table and _pgstack.hold_source(_plan) is not null;
    execute format(
      'select count(*) >= $1 from (select from %s where %I is not null limit $1) as t',
      _plan.target, _plan.embedding_column
    ) using _least into _enough;
    continue when not _enough;
    perform _pgstack.request_due_index(_plan, _method);
  end loop;
end;
$$;

comment on function _pgstack.request_due_indexes() is
'Requests the index of every vectorizer that has enough chunks and none yet.';

-- As it was built last, if that was by the same method.
create or replace function _pgstack.request_due_index(plan _pgstack.vectorizer_plan, method text)
returns void
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _last _pgstack.index_build;
begin
  select b.* into _last
  from _pgstack.index_build as b
  where b.vectorizer_id = plan.id and b.method = request_due_index.method and b.state = 'done'
    and b.dimensions = plan.dimensions
  order by b.id desc limit 1;
  if _last.labels not in (select c.name from _pgstack.label_columns(plan) as c (name)) then
    _last.labels := null;
  end if;
  insert into _pgstack.index_build
    (vectorizer_id, vectorizer, method, storage, parameters, labels, automatic, dimensions)
  values (
    plan.id, plan.name, request_due_index.method,
    coalesce(_last.storage, _pgstack.index_storage(request_due_index.method, plan.dimensions)),
    coalesce(_last.parameters, '{}'), _last.labels, true, plan.dimensions
  )
  on conflict (vectorizer_id) where state = 'requested' do nothing;
end;
$$;

comment on function _pgstack.request_due_index(_pgstack.vectorizer_plan, text) is
'Requests a vectorizer''s index, built like the one it had before.';

create or replace function _pgstack.vector_index_due()
returns table (name text, statement text)
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _build _pgstack.index_build;
begin
  return query select l.name, l.statement from _pgstack.index_leftover() as l;
  if found then
    return;
  end if;
  perform _pgstack.request_due_indexes();
  for _build in
    select b.* from _pgstack.index_build as b
    where b.state in ('requested', 'building', 'clearing') and b.retry_at <= clock_timestamp()
    order by b.id
  loop
    statement := _pgstack.index_step(_build);
    if statement is not null then
      name := _build.vectorizer;
      return next;
      return;
    end if;
  end loop;
end;
$$;

comment on function _pgstack.vector_index_due() is
'The next statement on the way to the vector indexes that are wanted; none: all is done, or waits for another try.';

create or replace function _pgstack.index_step(build _pgstack.index_build)
returns text
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _plan _pgstack.vectorizer_plan := _pgstack.vectorizer_plan(build.vectorizer_id);
  _problem text;
  _old text;
begin
  if _plan.id is null then
    return _pgstack.end_index_build(build.id, 'the vectorizer was dropped');
  end if;
  _problem := _pgstack.index_problem(_plan);
  if _problem is not null then
    return _pgstack.end_index_build(build.id, _problem);
  elsif build.state = 'clearing' then  -- leftovers go first: there are none
    return _pgstack.end_index_build(build.id, null);
  elsif build.method <> 'none' then
    if _pgstack.new_index(_plan, build.id) is null then
      return _pgstack.begin_index_step(build, 'build', _pgstack.index_statement(_plan, build));
    end if;
    return _pgstack.begin_index_step(
      build, 'swap', format('select _pgstack.index_swap(%s)', build.id)
    );
  end if;
  select x.index::text into _old from _pgstack.vector_indexes(_plan) as x limit 1;
  if _old is null then
    perform _pgstack.keep_index_method(build);
    return _pgstack.end_index_build(build.id, null);
  end if;
  return _pgstack.begin_index_step(
    build, 'drop ' || _old, format('drop index concurrently if exists %s', _old)
  );
end;
$$;

comment on function _pgstack.index_step(_pgstack.index_build) is
'The statement that brings a build one step on; NULL when it is over.';

create or replace function _pgstack.new_index(plan _pgstack.vectorizer_plan, build bigint)
returns oid
language sql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
  select i.indexrelid
  from pg_index as i
  join pg_class as c on c.oid = i.indexrelid
  where i.indrelid = _pgstack.find_relation(plan.target) and i.indisvalid
    and c.relname = format('_pgstack_new_%s', build);
$$;

comment on function _pgstack.new_index(_pgstack.vectorizer_plan, bigint) is
'The index that a build made, once it is valid.';

create or replace function _pgstack.index_statement(
  plan _pgstack.vectorizer_plan, build _pgstack.index_build
)
returns text
language sql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
  select format(
    'create index concurrently %I on %s using %s (%s%s)%s',
    '_pgstack_new_' || build.id, plan.target, build.method,
    case build.storage
      when 'vector' then format('%I @extschema:vector@.vector_cosine_ops', plan.embedding_column)
      when 'halfvec' then format(
        '(%I::@extschema:vector@.halfvec(%s)) @extschema:vector@.halfvec_cosine_ops',
        plan.embedding_column, plan.dimensions
      )
      else (
        select format('%I %I.%I', plan.embedding_column, n.nspname, o.opcname)
        from pg_opclass as o
        join pg_namespace as n on n.oid = o.opcnamespace
        join pg_am as m on m.oid = o.opcmethod
        where m.amname = 'diskann' and o.opcname = 'vector_cosine_ops'
      )
    end,
    ', ' || quote_ident(build.labels),
    (
      select ' with (' || string_agg(format('%I = %L', p.key, p.value), ', ' order by p.key) || ')'
      from jsonb_each_text(build.parameters) as p
    )
  );
$$;

comment on function _pgstack.index_statement(_pgstack.vectorizer_plan, _pgstack.index_build) is
'The statement that builds an index beside the one that serves.';

-- A step that was begun five times in vain, or by workers that died over it, is given up.
create or replace function _pgstack.begin_index_step(
  build _pgstack.index_build, step text, statement text
)
returns text
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _attempts integer := case build.step when begin_index_step.step then build.attempts else 0 end + 1;
  _rows bigint;
  _memory bigint;
begin
  if _attempts > 5 then
    return _pgstack.end_index_build(
      build.id, coalesce(build.error, 'it was begun five times, and the worker ended each time')
    );
  end if;
  update _pgstack.index_build as b
  set state = 'building', step = begin_index_step.step, attempts = _attempts,
    retry_at = clock_timestamp()
  where b.id = build.id;
  if step = 'build' then
    _rows := _pgstack.chunk_count(_pgstack.vectorizer_plan(build.vectorizer_id));
    _memory := _pgstack.index_memory_given(_pgstack.index_memory_wanted(
      build.method, build.storage, build.dimensions, build.parameters, _rows
    ));
    perform set_config('maintenance_work_mem', format('%skB', _memory / 1024), false);
    -- Parallel workers share memory in /dev/shm, of which a container may have too little.
    if _attempts > 1 then
      perform set_config('max_parallel_maintenance_workers', '0', false);
    end if;
    update _pgstack.index_build as b
    set started_at = clock_timestamp(), pid = pg_backend_pid(), memory_bytes = _memory,
      rows = _rows, parallel_workers = current_setting('max_parallel_maintenance_workers')::integer
    where b.id = build.id;
  end if;
  return statement;
end;
$$;

comment on function _pgstack.begin_index_step(_pgstack.index_build, text, text) is
'Writes down that a step begins, gives the session the memory a build wants, and returns the statement; NULL: tried often enough.';

create or replace function _pgstack.end_index_build(id bigint, error text)
returns text
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
begin
  update _pgstack.index_build as b
  set state = case when end_index_build.error is null then 'done' else 'failed' end,
    error = end_index_build.error, finished_at = clock_timestamp()
  where b.id = end_index_build.id;
  delete from _pgstack.index_build as b
  where b.state in ('done', 'failed') and b.id <= end_index_build.id - 1000;
  return null;
end;
$$;

comment on function _pgstack.end_index_build(bigint, text) is
'Ends a build; NULL: all went well. Always returns NULL.';

create or replace function _pgstack.keep_index_method(build _pgstack.index_build)
returns void
language sql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
  insert into _pgstack.vectorizer as v (vectorizer_id, index_method)
  select build.vectorizer_id, build.method where not build.automatic
  on conflict on constraint vectorizer_pkey do update set index_method = excluded.index_method;
$$;

comment on function _pgstack.keep_index_method(_pgstack.index_build) is
'A vectorizer keeps to the method that somebody asked for.';

-- The new index takes the old one's name, so that scripts that know it go on.
create or replace function _pgstack.index_swap(id bigint)
returns void
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _build _pgstack.index_build := (
    select b from _pgstack.index_build as b where b.id = index_swap.id for update
  );
  _plan _pgstack.vectorizer_plan := _pgstack.vectorizer_plan(_build.vectorizer_id);
  _new regclass := _pgstack.new_index(_plan, _build.id);
  _name name;
  _old record;
begin
  for _old in
    select x.index, c.relname, row_number() over (order by x.valid desc, x.index) as nr
    from _pgstack.vector_indexes(_plan) as x
    join pg_class as c on c.oid = x.index
    where x.index <> _new and not starts_with(c.relname, '_pgstack_')
    order by nr
  loop
    _name := coalesce(_name, _old.relname);
    execute format(
      'alter index %s rename to %I', _old.index, format('_pgstack_old_%s_%s', _build.id, _old.nr)
    );
  end loop;
  execute format(
    'alter index %s rename to %I', _new, coalesce(_name, _pgstack.free_index_name(_plan))
  );
  update _pgstack.index_build as b
  set state = 'clearing', bytes = pg_relation_size(_new),
    rows = (select c.reltuples::bigint from pg_class as c where c.oid = _new),
    -- Another session's clock also counts how long nobody worked.
    seconds = case
      when b.pid = pg_backend_pid() then extract(epoch from clock_timestamp() - b.started_at)
    end
  where b.id = _build.id;
  perform _pgstack.keep_index_method(_build);
end;
$$;

comment on function _pgstack.index_swap(bigint) is
'Puts the index that a build made in the place of the one that served.';

create or replace function _pgstack.free_index_name(plan _pgstack.vectorizer_plan)
returns name
language plpgsql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _table pg_class;
begin
  select c.* into _table from pg_class as c where c.oid = _pgstack.find_relation(plan.target);
  return (
    select x.name
    from generate_series(0, 1000) as nr
    cross join lateral (
      select left(_table.relname, 40) || '_' || left(plan.embedding_column, 12) || '_idx'
        || coalesce(nullif(nr, 0)::text, '') as name
    ) as x
    where not exists (
      select from pg_class as o where o.relnamespace = _table.relnamespace and o.relname = x.name
    )
    order by nr limit 1
  );
end;
$$;

comment on function _pgstack.free_index_name(_pgstack.vectorizer_plan) is
'A name for a vectorizer''s index that is not taken, as PostgreSQL would choose it.';

create or replace function _pgstack.vector_index_failed(name text, sqlstate text, message text)
returns void
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _build _pgstack.index_build;
begin
  select b.* into _build
  from _pgstack.index_build as b
  where b.vectorizer = vector_index_failed.name and b.state = 'building'
  order by b.id limit 1;
  if vector_index_failed.sqlstate = '57014' then
    perform _pgstack.end_index_build(_build.id, 'it was cancelled');
    return;
  end if;
  update _pgstack.index_build as b
  set error = vector_index_failed.message,
    retry_at = clock_timestamp() + b.attempts * b.attempts * interval '2 seconds'
  where b.id = _build.id;
end;
$$;

comment on function _pgstack.vector_index_failed(text, text, text) is
'Remembers why a step of a build failed: it is tried again later. Cancelled by somebody, the build is over.';

-- Whoever drops a vectorizer does not wait until an index of its table is complete.
create or replace function _pgstack.cancel_index_build(vectorizer_id integer)
returns void
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
begin
  perform pg_cancel_backend(a.pid)
  from _pgstack.index_build as b
  join pg_stat_activity as a on a.pid = b.pid and a.datname = current_database()
  where b.vectorizer_id = cancel_index_build.vectorizer_id and b.state = 'building'
    and a.state = 'active'
    and starts_with(a.query, format('create index concurrently _pgstack_new_%s ', b.id));
exception
  when insufficient_privilege then null;  -- the worker's role is not ours: we wait
end;
$$;

comment on function _pgstack.cancel_index_build(integer) is
'Cancels the statement that builds a vectorizer''s index.';
