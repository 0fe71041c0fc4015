-- Family: the worker's work, second half: settle and complete.  320_work.sql says why it
-- is exact.
-- Callers: pgstack/worker/drain.py, 324_work_return.sql.
-- Errors: PS002 wrong vector length.

-- ------------------------------------------------------------------- settle the queue

-- Locks the source rows that still read as their version says; returns the numbers of
-- their keys.
create or replace function _pgstack.lock_unchanged(
  plan _pgstack.vectorizer_plan, keys jsonb[], versions bytea[]
)
returns integer[]
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _unchanged integer[];
begin
  execute format(
    $sql$
    select coalesce(array_agg(q.nr::integer), '{}')
    from unnest($1, $2) with ordinality as q (key, version, nr)
    cross join lateral jsonb_to_record(q.key) as k (%1$s)
    -- By its key, one row at a time: a locking subquery cannot be joined in another way, as by
    -- reading a whole table of some thousand rows for each batch.
    cross join lateral (
      select
      from %2$s as r
      where %3$s and _pgstack.content_version(%4$s) = q.version
      for no key update of r skip locked
    ) as same
    $sql$,
    plan.key_record, plan.source, plan.key_match, plan.content_json
  ) using keys, versions into _unchanged;
  return _unchanged;
end;
$$;

comment on function _pgstack.lock_unchanged(_pgstack.vectorizer_plan, jsonb[], bytea[]) is
'Locks source rows whose content is unchanged; returns which keys, by number.';

-- A statement of its own: its snapshot is younger than the locks.  And one: whoever changes a
-- vectorizer's configuration queues its rows in the same transaction, so a snapshot that shows
-- these shows that, and they stay: what was written is not what the configuration makes.
-- nr::integer, here and below: any() looks up a hash table only where both sides are of one type.
create or replace function _pgstack.unqueue(
  plan _pgstack.vectorizer_plan, keys jsonb[], settled integer[]
)
returns void
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
begin
  execute format(
    $sql$
    delete from %1$s as r
    using unnest($1) with ordinality as q (key, nr), jsonb_to_record(q.key) as k (%2$s)
    where %3$s and q.nr::integer = any ($2)
      and exists (select from ai.vectorizer as v where v.id = $3 and v.config = $4)
    $sql$,
    plan.queue, plan.key_record, plan.key_match
  ) using keys, settled, plan.id, plan.config;
end;
$$;

comment on function _pgstack.unqueue(_pgstack.vectorizer_plan, jsonb[], integer[]) is
'Takes settled keys, given by number, off the queue, unless the vectorizer has another configuration by now.';

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
  plan _pgstack.vectorizer_plan, embeddings @extschema:vector@.vector[]
)
returns void
language plpgsql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _embedding @extschema:vector@.vector;
begin
  foreach _embedding in array coalesce(check_dimensions.embeddings, '{}') loop
    continue when (@extschema:vector@.vector_dims(_embedding) = plan.dimensions) is not false;
    raise exception 'vectorizer "%" stores % dimensions, the model "%" gives %',
      plan.name, plan.dimensions, plan.model, @extschema:vector@.vector_dims(_embedding)
      using errcode = 'PS002',
      hint = format(
        'Make it again: select pgstack.drop_vectorizer(%L, drop_data => true); '
        'select pgstack.create_vectorizer(...);', plan.name
      );
  end loop;
end;
$$;

comment on function _pgstack.check_dimensions(_pgstack.vectorizer_plan, @extschema:vector@.vector[]) is
'Raises PS002 when vectors are not as long as the vectorizer''s column.';

-- Finds the vectors that work_load() said are known: of the same row, of another, or in the
-- cache.  One that has gone since (its row was deleted) stays NULL.
create or replace function _pgstack.find_vectors(
  plan _pgstack.vectorizer_plan, digests bytea[],
  inout chunks text[], inout embeddings @extschema:vector@.vector[]
)
language plpgsql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
begin
  execute format(
    $sql$
    select
      array_agg(coalesce(c.chunk, t.chunk) order by c.nr),
      array_agg(coalesce(c.embedding, t.embedding, e.embedding) order by c.nr)
    from unnest($1, $2, $3) with ordinality as c (digest, chunk, embedding, nr)
    left join lateral (%s) as t on c.embedding is null
    left join _pgstack.embedding_cache as e on c.embedding is null and e.digest = c.digest
    $sql$,
    case when _pgstack.has_digests(plan)
      then format('select s.chunk, s.embedding from %s as s where s.digest = c.digest limit 1', plan.target)
      else 'select null::text as chunk, null::@extschema:vector@.vector as embedding'
    end
  ) using digests, chunks, embeddings into chunks, embeddings;
end;
$$;

comment on function _pgstack.find_vectors(
  _pgstack.vectorizer_plan, bytea[], text[], @extschema:vector@.vector[]
) is
'Fills in the chunks and vectors that are known by their digest.';

-- Makes the chunks of settled keys what they should be, and touches no more than differs:
-- a vector index is paid for each row written.  The chunks come as parallel arrays with the
-- number of the key each belongs to.
create or replace function _pgstack.write_chunks(
  plan _pgstack.vectorizer_plan, keys jsonb[], settled integer[],
  numbers integer[], seqs integer[], starts integer[], ends integer[],
  digests bytea[], chunks text[], embeddings @extschema:vector@.vector[]
)
returns void
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _key text := format(
    $sql$
    key as materialized (
      select k.*, q.nr as _pgstack_nr
      from unnest($1) with ordinality as q (key, nr)
      cross join lateral jsonb_to_record(q.key) as k (%s)
      where q.nr::integer = any ($2)
    )
    $sql$,
    plan.key_record
  );
begin
  execute format(
    $sql$
    with %1$s,
    given as materialized (
      select c.* from unnest($3, $4, $5, $6, $7) as c (nr, seq, start_char, end_char, digest)
    ),
    same as (
      select r.ctid,
        (r.start_char, r.end_char) is distinct from (g.start_char, g.end_char) as moved,
        g.nr is not null as stays, g.start_char, g.end_char
      from key as k
      join %2$s as r on %3$s
      left join given as g on g.nr = k._pgstack_nr and g.seq = r.chunk_seq and g.digest = r.digest
    ),
    moved as (
      update %2$s as r set start_char = s.start_char, end_char = s.end_char
      from same as s where r.ctid = s.ctid and s.stays and s.moved
    )
    delete from %2$s as r using same as s where r.ctid = s.ctid and not s.stays
    $sql$,
    _key, plan.target, plan.key_match
  ) using keys, settled, numbers, seqs, starts, ends, digests;
  execute format(
    $sql$
    with %1$s
    insert into %2$s (%3$s, chunk_seq, start_char, end_char, digest, chunk, embedding)
    select %4$s, g.seq, g.start_char, g.end_char, g.digest, g.chunk, g.embedding
    from key as k
    join unnest($3, $4, $5, $6, $7, $8, $9)
      as g (nr, seq, start_char, end_char, digest, chunk, embedding) on g.nr = k._pgstack_nr
    where not exists (
      select from %2$s as r where %5$s and r.chunk_seq = g.seq
    )
    $sql$,
    _key, plan.target, plan.key_list, (
      select string_agg(format('k.%I', c.name), ', ' order by c.nr)
      from unnest(plan.key_columns) with ordinality as c (name, nr)
    ), plan.key_match
  ) using keys, settled, numbers, seqs, starts, ends, digests, chunks, embeddings;
end;
$$;

comment on function _pgstack.write_chunks(
  _pgstack.vectorizer_plan, jsonb[], integer[], integer[], integer[], integer[], integer[],
  bytea[], text[], @extschema:vector@.vector[]
) is
'Makes the chunks of settled keys in a vectorizer''s own table what is given, writing only what differs.';

-- For a table without our columns, which could not be prepared: all of it anew.
create or replace function _pgstack.rewrite_chunks(
  plan _pgstack.vectorizer_plan, keys jsonb[], settled integer[],
  numbers integer[], seqs integer[], chunks text[], embeddings @extschema:vector@.vector[]
)
returns void
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
begin
  execute format(
    $sql$
    delete from %1$s as r
    using unnest($1) with ordinality as q (key, nr), jsonb_to_record(q.key) as k (%2$s)
    where %3$s and q.nr::integer = any ($2)
    $sql$,
    plan.target, plan.key_record, plan.key_match
  ) using keys, settled;
  execute format(
    $sql$
    insert into %1$s (%2$s, chunk_seq, chunk, embedding)
    select k.*, c.seq, c.chunk, c.embedding
    from unnest($3, $4, $5, $6) as c (nr, seq, chunk, embedding)
    cross join lateral jsonb_to_record(($1)[c.nr]) as k (%3$s)
    where c.nr = any ($2)
    $sql$,
    plan.target, plan.key_list, plan.key_record
  ) using keys, settled, numbers, seqs, chunks, embeddings;
end;
$$;

comment on function _pgstack.rewrite_chunks(
  _pgstack.vectorizer_plan, jsonb[], integer[], integer[], integer[], text[], @extschema:vector@.vector[]
) is
'Replaces the chunks of settled keys in a table without digests.';

create or replace function _pgstack.write_column(
  plan _pgstack.vectorizer_plan, keys jsonb[], settled integer[],
  numbers integer[], embeddings @extschema:vector@.vector[]
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
    set %2$I = v.embedding
    from unnest($1) with ordinality as q (key, nr)
    cross join lateral jsonb_to_record(q.key) as k (%3$s)
    left join unnest($3, $4) as v (nr, embedding) on v.nr = q.nr
    where %4$s and q.nr::integer = any ($2)
    $sql$,
    plan.source, plan.embedding_column, plan.key_record, plan.key_match
  ) using keys, settled, numbers, embeddings;
end;
$$;

comment on function _pgstack.write_column(
  _pgstack.vectorizer_plan, jsonb[], integer[], integer[], @extschema:vector@.vector[]
) is
'Sets the embedding column of settled rows; NULL for rows without text.';

-- In order of digest: two completions that meet wait for each other in one direction only.
create or replace function _pgstack.remember_vectors(
  digests bytea[], embeddings @extschema:vector@.vector[]
)
returns void
language sql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
  insert into _pgstack.embedding_cache (digest, embedding)
  select distinct on (c.digest) c.digest, c.embedding
  from unnest(remember_vectors.digests, remember_vectors.embeddings) as c (digest, embedding)
  where c.embedding is not null
  order by c.digest
  on conflict do nothing;
$$;

comment on function _pgstack.remember_vectors(bytea[], @extschema:vector@.vector[]) is
'Keeps vectors for other vectorizers.';

-- Settled keys are done, and so are those without a row.  A row that reads differently
-- by now, or that somebody holds locked, is still queued: a short pause keeps the worker
-- from embedding it over and over while a long transaction has it.
create or replace function _pgstack.end_leases(
  id integer, worker uuid, keys jsonb[], versions bytea[], settled integer[]
)
returns void
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _done bytea[];
  _not_done bytea[];
begin
  select
    array_agg(h.digest) filter (where h.done),
    array_agg(h.digest) filter (where not h.done)
  into _done, _not_done
  from (
    select
      _pgstack.key_digest(q.key) as digest,
      -- in, not any: by a hash table, not by reading the array for each row.
      q.version is null or q.nr in (select s.nr from unnest(end_leases.settled) as s (nr)) as done
    from unnest(end_leases.keys, end_leases.versions) with ordinality as q (key, version, nr)
  ) as h;
  -- By array: joined, the few rows that statistics know of invite comparing all with all.
  update _pgstack.work as w
  set state = 'waiting', changed_at = clock_timestamp(),
    due_at = clock_timestamp() + interval '250 ms'
  where w.vectorizer_id = end_leases.id and w.digest = any (_not_done)
    and w.worker = end_leases.worker;
  delete from _pgstack.work as w
  where w.vectorizer_id = end_leases.id and w.digest = any (_done)
    and w.worker = end_leases.worker;
end;
$$;

comment on function _pgstack.end_leases(integer, uuid, jsonb[], bytea[], integer[]) is
'Ends a worker''s leases: done, or to be tried again in a moment.';

-- versions[i] belongs to keys[i]; NULL: the row was gone when it was loaded.  numbers
-- holds, for each chunk, the number of its key; an embedding is NULL where work_load() knew
-- it.  Keys whose row reads differently by now, or is locked by somebody, or one of whose
-- known vectors has gone, are given back: they are still queued.
create or replace function _pgstack.work_complete(
  worker uuid, vectorizer_id integer, keys jsonb[], versions bytea[],
  numbers integer[], seqs integer[], starts integer[], ends integer[],
  digests bytea[], chunks text[], embeddings @extschema:vector@.vector[]
)
returns integer
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _plan _pgstack.vectorizer_plan := _pgstack.vectorizer_plan(work_complete.vectorizer_id);
  _settled integer[];
  _chunks text[] := work_complete.chunks;
  _embeddings @extschema:vector@.vector[] := work_complete.embeddings;
begin
  if _plan.id is null then
    return 0;
  end if;
  perform _pgstack.check_dimensions(_plan, work_complete.embeddings);
  if _pgstack.hold_source(_plan) is not null then
    perform _pgstack.end_leases(_plan.id, work_complete.worker, keys, versions, '{}');
    return 0;
  end if;
  _settled := _pgstack.lock_unchanged(_plan, work_complete.keys, work_complete.versions);
  if array_position(_chunks, null) is not null or array_position(_embeddings, null) is not null then
    select f.chunks, f.embeddings into _chunks, _embeddings
    from _pgstack.find_vectors(_plan, work_complete.digests, _chunks, _embeddings) as f;
    select coalesce(array_agg(s.nr), '{}') into _settled
    from unnest(_settled) as s (nr)
    where s.nr not in (
      select c.nr
      from unnest(work_complete.numbers, _chunks, _embeddings) as c (nr, chunk, embedding)
      where c.chunk is null or c.embedding is null
    );
  end if;
  if not _plan.has_table then
    perform _pgstack.write_column(_plan, keys, _settled, numbers, _embeddings);
  elsif _pgstack.has_digests(_plan) then
    perform _pgstack.write_chunks(
      _plan, keys, _settled, numbers, seqs, starts, ends, digests, _chunks, _embeddings
    );
  else
    perform _pgstack.rewrite_chunks(_plan, keys, _settled, numbers, seqs, _chunks, _embeddings);
  end if;
  perform _pgstack.unqueue(_plan, work_complete.keys, _settled);
  perform _pgstack.settle_gone(_plan, (
    select array_agg(q.key)
    from unnest(work_complete.keys, work_complete.versions) as q (key, version)
    where q.version is null
  ));
  if _pgstack.setting_value('embedding_cache') = 'on' then
    -- Of settled rows only: one that was forgotten meanwhile must not come back this way.
    perform _pgstack.remember_vectors(array_agg(c.digest), array_agg(c.embedding))
    from unnest(work_complete.numbers, work_complete.digests, work_complete.embeddings) as c (nr, digest, embedding)
    where c.nr = any (_settled);
  end if;
  perform _pgstack.end_leases(_plan.id, work_complete.worker, keys, versions, _settled);
  update _pgstack.vectorizer as v
  set embedded_rows = v.embedded_rows + cardinality(_settled),
    embedded_chunks = v.embedded_chunks + cardinality(embeddings)
      - cardinality(array_positions(embeddings, null)),
    last_success_at = now(),
    problem = null
  where v.vectorizer_id = _plan.id;
  return cardinality(_settled);
end;
$$;

comment on function _pgstack.work_complete(
  uuid, integer, jsonb[], bytea[], integer[], integer[], integer[], integer[], bytea[], text[],
  @extschema:vector@.vector[]
) is
'Writes the vectors of leased keys whose rows are unchanged and takes these off the queue. Returns how many rows were written. Raises PS002 wrong vector length.';
