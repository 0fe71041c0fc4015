-- Family: the worker's work, second half: settle and complete.  320_work.sql says why it
-- is exact.
-- Callers: pgstack/worker/drain.py, 324_work_return.sql.
-- Errors: PS002 wrong vector length.

-- ------------------------------------------------------------------- settle the queue

-- Locks the source rows that still read as their version says; returns the numbers of
-- their keys and deletes their queue rows.
create or replace function _pgstack.settle_present(
  plan _pgstack.vectorizer_plan, keys jsonb[], versions bytea[]
)
returns integer[]
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _settled integer[];
begin
  execute format(
    $sql$
    with same as materialized (
      select q.nr
      from unnest($1, $2) with ordinality as q (key, version, nr)
      cross join lateral jsonb_to_record(q.key) as k (%1$s)
      join %2$s as r on %3$s
      where _pgstack.content_version(%4$s) = q.version
      for no key update of r skip locked
    )
    select coalesce(array_agg(s.nr::integer), '{}') from same as s
    $sql$,
    plan.key_record, plan.source, plan.key_match, plan.content_json
  ) using keys, versions into _settled;
  -- A statement of its own: its snapshot is younger than the locks.
  execute format(
    $sql$
    delete from %1$s as r
    using unnest($1) with ordinality as q (key, nr), jsonb_to_record(q.key) as k (%2$s)
    where %3$s and q.nr = any ($2)
    $sql$,
    plan.queue, plan.key_record, plan.key_match
  ) using keys, _settled;
  return _settled;
end;
$$;

comment on function _pgstack.settle_present(_pgstack.vectorizer_plan, jsonb[], bytea[]) is
'Locks source rows whose content is unchanged and takes them off the queue; returns which keys, by number.';

-- For keys without a source row: their chunks go, and their queue rows go where no
-- source row came back meanwhile.
create or replace function _pgstack.settle_gone(plan _pgstack.vectorizer_plan, keys jsonb[])
returns void
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
begin
  execute format(
    $sql$
    with gone as materialized (
      select q.key
      from unnest($1) as q (key)
      where not exists (
        select from %2$s as r, jsonb_to_record(q.key) as k (%1$s) where %3$s
      )
    ),
    unqueued as (
      delete from %4$s as r
      using gone as g, jsonb_to_record(g.key) as k (%1$s)
      where %3$s
    )
    delete from %5$s as r
    using gone as g, jsonb_to_record(g.key) as k (%1$s)
    where %3$s and $2
    $sql$,
    plan.key_record, plan.source, plan.key_match, plan.queue, plan.target
  ) using keys, plan.has_table;
end;
$$;

comment on function _pgstack.settle_gone(_pgstack.vectorizer_plan, jsonb[]) is
'Forgets keys whose source rows are gone: their chunks and their queue rows.';

-- ------------------------------------------------------------------------- complete

create or replace function _pgstack.check_dimensions(
  plan _pgstack.vectorizer_plan, embeddings text[]
)
returns void
language plpgsql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _got integer;
begin
  select @extschema:vector@.vector_dims(e.embedding::@extschema:vector@.vector) into _got
  from unnest(check_dimensions.embeddings) as e (embedding)
  where @extschema:vector@.vector_dims(e.embedding::@extschema:vector@.vector) <> plan.dimensions
  limit 1;
  if found then
    raise exception 'vectorizer "%" stores % dimensions, the model "%" gives %',
      plan.name, plan.dimensions, plan.model, _got
      using errcode = 'PS002',
      hint = format(
        'Make it again: select pgstack.drop_vectorizer(%L, drop_data => true); '
        'select pgstack.create_vectorizer(...);', plan.name
      );
  end if;
end;
$$;

comment on function _pgstack.check_dimensions(_pgstack.vectorizer_plan, text[]) is
'Raises PS002 when vectors are not as long as the vectorizer''s column.';

-- Writes the chunks of settled keys, given as parallel arrays with the number of the key
-- each chunk belongs to.
create or replace function _pgstack.write_chunks(
  plan _pgstack.vectorizer_plan, keys jsonb[], settled integer[],
  numbers integer[], seqs integer[], starts integer[], ends integer[],
  chunks text[], embeddings text[]
)
returns void
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _has_offsets boolean := exists (
    select from pg_attribute as a
    where a.attrelid = plan.target::regclass and a.attname = 'start_char' and not a.attisdropped
  );
begin
  execute format(
    $sql$
    delete from %1$s as r
    using unnest($1) with ordinality as q (key, nr), jsonb_to_record(q.key) as k (%2$s)
    where %3$s and q.nr = any ($2)
    $sql$,
    plan.target, plan.key_record, plan.key_match
  ) using keys, settled;
  execute format(
    $sql$
    insert into %1$s (%2$s, chunk_seq, chunk, embedding%5$s)
    select k.*, c.seq, c.chunk, c.embedding::@extschema:vector@.vector%6$s
    from unnest($3, $4, $5, $6, $7, $8) as c (nr, seq, start_char, end_char, chunk, embedding)
    cross join lateral jsonb_to_record(($1)[c.nr]) as k (%3$s)
    where c.nr = any ($2)
    $sql$,
    plan.target, plan.key_list, plan.key_record, null,
    case when _has_offsets then ', start_char, end_char' else '' end,
    case when _has_offsets then ', c.start_char, c.end_char' else '' end
  ) using keys, settled, numbers, seqs, starts, ends, chunks, embeddings;
end;
$$;

comment on function _pgstack.write_chunks(
  _pgstack.vectorizer_plan, jsonb[], integer[], integer[], integer[], integer[], integer[], text[], text[]
) is
'Replaces the chunks of settled keys in a vectorizer''s own table.';

create or replace function _pgstack.write_column(
  plan _pgstack.vectorizer_plan, keys jsonb[], settled integer[],
  numbers integer[], embeddings text[]
)
returns void
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
begin
  execute format(
    $sql$
    update %1$s as r
    set %2$I = v.embedding::@extschema:vector@.vector
    from unnest($1) with ordinality as q (key, nr)
    cross join lateral jsonb_to_record(q.key) as k (%3$s)
    left join unnest($3, $4) as v (nr, embedding) on v.nr = q.nr
    where %4$s and q.nr = any ($2)
    $sql$,
    plan.source, plan.embedding_column, plan.key_record, plan.key_match
  ) using keys, settled, numbers, embeddings;
end;
$$;

comment on function _pgstack.write_column(
  _pgstack.vectorizer_plan, jsonb[], integer[], integer[], text[]
) is
'Sets the embedding column of settled rows; NULL for rows without text.';

-- Settled keys are done, and so are those without a row.  A row that reads differently
-- by now, or that somebody holds locked, is still queued: a short pause keeps the worker
-- from embedding it over and over while a long transaction has it.
create or replace function _pgstack.end_leases(
  id integer, worker uuid, keys jsonb[], versions bytea[], settled integer[]
)
returns void
language sql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
  with held as materialized (
    select _pgstack.key_digest(q.key) as digest, q.version is null or q.nr = any (settled) as done
    from unnest(keys, versions) with ordinality as q (key, version, nr)
  ),
  paused as (
    update _pgstack.work as w
    set state = 'waiting', due_at = clock_timestamp() + interval '250 ms'
    from held as h
    where w.vectorizer_id = end_leases.id and w.worker = end_leases.worker
      and w.digest = h.digest and not h.done
  )
  delete from _pgstack.work as w
  using held as h
  where w.vectorizer_id = end_leases.id and w.worker = end_leases.worker
    and w.digest = h.digest and h.done;
$$;

comment on function _pgstack.end_leases(integer, uuid, jsonb[], bytea[], integer[]) is
'Ends a worker''s leases: done, or to be tried again in a moment.';

-- versions[i] belongs to keys[i]; NULL: the row was gone when it was loaded.  numbers
-- holds, for each chunk, the number of its key.  Keys whose row reads differently by
-- now, or is locked by somebody, are given back: they are still queued.
create or replace function _pgstack.work_complete(
  worker uuid, vectorizer_id integer, keys jsonb[], versions bytea[],
  numbers integer[], seqs integer[], starts integer[], ends integer[],
  chunks text[], embeddings text[], seconds double precision
)
returns integer
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _plan _pgstack.vectorizer_plan := _pgstack.vectorizer_plan(work_complete.vectorizer_id);
  _settled integer[];
begin
  if _plan.id is null then
    return 0;
  end if;
  perform _pgstack.check_dimensions(_plan, work_complete.embeddings);
  _settled := _pgstack.settle_present(_plan, work_complete.keys, work_complete.versions);
  if _plan.has_table then
    perform _pgstack.write_chunks(
      _plan, keys, _settled, numbers, seqs, starts, ends, chunks, embeddings
    );
  else
    perform _pgstack.write_column(_plan, keys, _settled, numbers, embeddings);
  end if;
  perform _pgstack.settle_gone(_plan, (
    select array_agg(q.key)
    from unnest(work_complete.keys, work_complete.versions) as q (key, version)
    where q.version is null
  ));
  perform _pgstack.end_leases(_plan.id, work_complete.worker, keys, versions, _settled);
  update _pgstack.vectorizer as v
  set embedded_rows = v.embedded_rows + cardinality(_settled),
    embedded_chunks = v.embedded_chunks + cardinality(work_complete.embeddings),
    last_success_at = now(),
    problem = null
  where v.vectorizer_id = _plan.id;
  return cardinality(_settled);
end;
$$;

comment on function _pgstack.work_complete(
  uuid, integer, jsonb[], bytea[], integer[], integer[], integer[], integer[], text[], text[], double precision
) is
'Writes the vectors of leased keys whose rows are unchanged and takes these off the queue. Returns how many rows were written. Raises PS002 wrong vector length.';
