-- Family: the worker's work.  Claim, load, complete or give back; each a short transaction,
-- and no model call inside any of them.
--
--   work_claim     leases keys from pgai's queue; the queue rows stay where they are
--   work_load      reads the rows as they are now, cuts and fills in: texts to embed
--   work_complete  writes the chunks of rows that still read the same, and only those
--   work_fail      sets rows aside after too many tries; work_release gives them back
--
-- Exactness rests on three things.
--   1. The queue row goes last, in the transaction that makes the target equal to the
--      source.  Whatever dies before, the key is still queued.
--   2. work_complete locks each source row (no key update, skip locked) and compares its
--      content with what was embedded.  Until it commits the row can neither change nor
--      go, so every queue row visible after the lock tells of a change already seen.
--   3. A source row that is gone is settled in one statement with one snapshot: queue
--      rows go only where that snapshot shows no source row.
-- Locks are taken in the order source, target, queue, work: the order in which a user's
-- DELETE or TRUNCATE takes them through pgai's triggers.  skip locked: a user's statement
-- never waits for a worker that waits for it.
--
-- Callers: pgstack/worker.  They must read all rows: row_security is off there.
-- Errors: PS002 wrong vector length.

create or replace function _pgstack.key_digest(key jsonb)
returns bytea
language sql immutable strict parallel safe
security invoker
set search_path = pg_catalog, pg_temp
as $$
  select sha256(convert_to(key_digest.key::text, 'UTF8'));
$$;

comment on function _pgstack.key_digest(jsonb) is
'A key as 32 bytes: fits an index however long the key is.';

-- ---------------------------------------------------------------------------- claim

create or replace function _pgstack.claim_keys(
  plan _pgstack.vectorizer_plan, worker uuid, wanted integer
)
returns jsonb[]
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _keys jsonb[];
begin
  -- One key may be queued several times.  Inserting in order of digest keeps two
  -- claims that meet from waiting for each other in a circle.
  execute format(
    $sql$
    with due as materialized (
      select %1$s as key
      from %2$s as r
      left join _pgstack.work as w
        on w.vectorizer_id = $1 and w.digest = _pgstack.key_digest(%1$s)
      where (r.loading_retry_after is null or r.loading_retry_after <= now())
        and (w.digest is null or w.state = 'failed' or w.due_at <= clock_timestamp())
      limit $3
      for update of r skip locked
    ),
    leased as (
      insert into _pgstack.work as w (vectorizer_id, digest, key, state, worker, due_at)
      select distinct on (_pgstack.key_digest(d.key))
        $1, _pgstack.key_digest(d.key), d.key, 'leased', $2,
        clock_timestamp() + _pgstack.setting_interval('lease')
      from due as d
      order by _pgstack.key_digest(d.key)
      on conflict on constraint work_pkey do update
      set state = 'leased', worker = excluded.worker, due_at = excluded.due_at,
        changed_at = clock_timestamp(),
        attempts = case when w.state = 'failed' then 0 else w.attempts end
      where w.state = 'failed' or w.due_at <= clock_timestamp()
      returning w.key
    )
    select coalesce(array_agg(l.key), '{}') from leased as l
    $sql$,
    plan.key_json, plan.queue
  ) using plan.id, worker, wanted into _keys;
  return _keys;
end;
$$;

comment on function _pgstack.claim_keys(_pgstack.vectorizer_plan, uuid, integer) is
'Leases up to so many queued keys of one vectorizer to a worker.';

-- Takes from one vectorizer at a time, any of them in turn (a random order is fair over
-- time and needs no shared state).  One that cannot run is passed over and says why.
create or replace function _pgstack.work_claim(worker uuid, names text[], wanted integer)
returns table (vectorizer_id integer, keys jsonb[])
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _plan _pgstack.vectorizer_plan;
  _problem text;
begin
  for _plan in
    select p.*
    from _pgstack.vectorizer_plan as p
    where not p.disabled and (work_claim.names is null or p.name = any (work_claim.names))
    order by random()
  loop
    begin
      _problem := _pgstack.vectorizer_problem(_plan);
      if _problem is null then
        keys := _pgstack.claim_keys(
          _plan, work_claim.worker, least(work_claim.wanted, _plan.batch_size)
        );
        if cardinality(keys) > 0 then
          vectorizer_id := _plan.id;
          return next;
          return;
        end if;
      end if;
    exception
      when query_canceled or admin_shutdown then raise;
      when others then _problem := sqlerrm;
    end;
    -- Rows given back because of a problem still wait for it to end.
    if _problem is not null or not exists (
      select from _pgstack.work as w where w.vectorizer_id = _plan.id and w.state = 'waiting'
    ) then
      perform _pgstack.note_problem(_plan.id, _problem);
    end if;
  end loop;
end;
$$;

comment on function _pgstack.work_claim(uuid, text[], integer) is
'Leases queued keys of one vectorizer to a worker. names: only these vectorizers; NULL: all. No row: nothing is due.';

create or replace function _pgstack.note_problem(id integer, problem text)
returns void
language sql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
  insert into _pgstack.vectorizer as v (vectorizer_id, problem)
  select note_problem.id, note_problem.problem
  where note_problem.problem is not null
    or exists (
      select from _pgstack.vectorizer as o
      where o.vectorizer_id = note_problem.id and o.problem is not null
    )
  on conflict on constraint vectorizer_pkey do update set problem = excluded.problem
  where v.problem is distinct from excluded.problem;
$$;

comment on function _pgstack.note_problem(integer, text) is
'Remembers what keeps a vectorizer from running; NULL: nothing any more.';

-- ----------------------------------------------------------------------------- load

create or replace function _pgstack.work_load(vectorizer_id integer, keys jsonb[])
returns table (
  nr integer, version bytea, chunk_seq integer,
  start_char integer, end_char integer, chunk text, input text
)
language plpgsql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _plan _pgstack.vectorizer_plan := _pgstack.vectorizer_plan(work_load.vectorizer_id);
  _split jsonb := _plan.chunking;
  _separators text[];
begin
  if _plan.id is null then
    return;
  end if;
  select array_agg(s.value order by s.nr) into _separators
  from jsonb_array_elements_text(
    coalesce(_split -> 'separators', '[]'::jsonb || (_split -> 'separator'))
  ) with ordinality as s (value, nr);
  return query execute format(
    $sql$
    select
      q.nr::integer, s.version, c.seq, c.start_char, c.end_char, c.chunk,
      case when c.chunk is not null then _pgstack.fill_template($2, c.chunk, s.vars) end
    from unnest($1) with ordinality as q (key, nr)
    left join lateral (
      select
        _pgstack.content_version(%1$s) as version, %2$s as vars, r.%3$I::text as content
      from %4$s as r, jsonb_to_record(q.key) as k (%5$s)
      where %6$s
    ) as s on true
    left join lateral pgstack.chunk(s.content, $3, $4, $5, $6, $7) as c on true
    order by q.nr, c.seq
    $sql$,
    _plan.content_json, _plan.content_vars, _plan.content_column,
    _plan.source, _plan.key_record, _plan.key_match
  ) using
    work_load.keys,
    _plan.template,
    case _split ->> 'implementation'
      when 'character_text_splitter' then 'character'
      when 'recursive_character_text_splitter' then 'recursive'
      else 'none'
    end,
    coalesce((_split ->> 'chunk_size')::integer, 800),
    coalesce((_split ->> 'chunk_overlap')::integer, 400),
    _separators,
    coalesce((_split ->> 'is_separator_regex')::boolean, false);
end;
$$;

comment on function _pgstack.work_load(integer, jsonb[]) is
'The texts to embed for leased keys, nr counting keys from 1. A row without version: the source row is gone. A row without chunk: it has no text.';

create or replace function _pgstack.content_version(content jsonb)
returns bytea
language sql immutable
security invoker
set search_path = pg_catalog, pg_temp
as $$
  select sha256(convert_to(content_version.content::text, 'UTF8'));
$$;

comment on function _pgstack.content_version(jsonb) is
'A fingerprint of what a vectorizer reads of a row.';

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
    busy_seconds = v.busy_seconds + work_complete.seconds,
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

-- ---------------------------------------------------------------------- give it back

create or replace function _pgstack.work_release(
  worker uuid, vectorizer_id integer, keys jsonb[], message text, blocks boolean
)
returns void
language sql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
  update _pgstack.work as w
  set state = 'waiting', last_error = message, changed_at = clock_timestamp(),
    due_at = clock_timestamp() + case when blocks then interval '10 s' else interval '0' end
  where w.vectorizer_id = work_release.vectorizer_id and w.worker = work_release.worker
    and w.digest in (select _pgstack.key_digest(q.key) from unnest(keys) as q (key));
  update _pgstack.vectorizer as v
  set last_error = message, last_error_at = now(),
    problem = case when blocks then message else v.problem end
  where v.vectorizer_id = work_release.vectorizer_id and message is not null;
$$;

comment on function _pgstack.work_release(uuid, integer, jsonb[], text, boolean) is
'Gives leased keys back: the fault was not theirs, no try is counted. blocks: it lies with the vectorizer, which is tried again every 10 seconds.';

-- The fault lies with these rows.  Below max_attempts they wait, longer each time; then,
-- or at once when no further try can help, they are set aside, unless they changed.
create or replace function _pgstack.work_fail(
  worker uuid, vectorizer_id integer, keys jsonb[], versions bytea[],
  message text, final boolean
)
returns void
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _plan _pgstack.vectorizer_plan := _pgstack.vectorizer_plan(work_fail.vectorizer_id);
  _settled integer[] := '{}';
begin
  if _plan.id is null then
    return;
  end if;
  if work_fail.final or exists (
    select from _pgstack.work as w
    where w.vectorizer_id = _plan.id and w.worker = work_fail.worker
      and w.attempts + 1 >= _pgstack.setting_value('max_attempts')::integer
      and w.digest in (select _pgstack.key_digest(q.key) from unnest(work_fail.keys) as q (key))
  ) then
    _settled := _pgstack.settle_present(_plan, work_fail.keys, work_fail.versions);
    execute format(
      $sql$
      insert into %s (%s, failure_step)
      select k.*, 'embedding'
      from unnest($1) with ordinality as q (key, nr)
      cross join lateral jsonb_to_record(q.key) as k (%s)
      where q.nr = any ($2)
      $sql$,
      _plan.failed_queue, _plan.key_list, _plan.key_record
    ) using work_fail.keys, _settled;
  end if;
  update _pgstack.work as w
  set state = case when q.nr = any (_settled) then 'failed' else 'waiting' end,
    attempts = w.attempts + 1,
    -- 1, 2, 4 ... seconds, up to 5 minutes, spread by up to a half.
    due_at = clock_timestamp()
      + least(300, power(2, w.attempts)) * (0.75 + random() / 2) * interval '1 second',
    last_error = work_fail.message,
    changed_at = clock_timestamp()
  from unnest(work_fail.keys) with ordinality as q (key, nr)
  where w.vectorizer_id = _plan.id and w.worker = work_fail.worker
    and w.digest = _pgstack.key_digest(q.key);
  insert into ai._vectorizer_errors (id, message, details)
  values (
    _plan.id, 'embedding failed',
    jsonb_build_object('error_reason', work_fail.message, 'keys', to_jsonb(work_fail.keys))
  );
  update _pgstack.vectorizer as v
  set last_error = work_fail.message, last_error_at = now()
  where v.vectorizer_id = _plan.id;
end;
$$;

comment on function _pgstack.work_fail(uuid, integer, jsonb[], bytea[], text, boolean) is
'Counts a failed try of leased keys; sets them aside when final or tried max_attempts times.';

create or replace function _pgstack.work_renew(worker uuid)
returns void
language sql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
  update _pgstack.work as w
  set due_at = clock_timestamp() + _pgstack.setting_interval('lease')
  where w.worker = work_renew.worker and w.state = 'leased';
  update _pgstack.worker as w set seen_at = now() where w.id = work_renew.worker;
$$;

comment on function _pgstack.work_renew(uuid) is
'A worker''s sign of life: extends its leases.';

-- ---------------------------------------------------------------- workers come and go

create or replace function _pgstack.worker_start(
  worker uuid, version text, model_server text
)
returns void
language sql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
  select pg_advisory_lock_shared(1885827956, 1);
  insert into _pgstack.worker (id, pid, version, model_server)
  values (worker_start.worker, pg_backend_pid(), worker_start.version, worker_start.model_server);
$$;

comment on function _pgstack.worker_start(uuid, text, text) is
'Announces a worker for as long as this connection lasts.';

create or replace function _pgstack.worker_stop(worker uuid)
returns void
language sql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
  delete from _pgstack.work as w
  where w.worker = worker_stop.worker and w.state = 'leased' and w.attempts = 0;
  update _pgstack.work as w
  set state = 'waiting', due_at = clock_timestamp()
  where w.worker = worker_stop.worker and w.state = 'leased';
  update _pgstack.request as r
  set state = 'posted', worker = null, leased_until = null
  where r.worker = worker_stop.worker and r.state = 'leased';
  select pg_notify('pgstack_request', '');
  select pg_notify('pgstack_work', '');
  delete from _pgstack.worker as w where w.id = worker_stop.worker;
$$;

comment on function _pgstack.worker_stop(uuid) is
'A worker''s farewell: what it holds goes back at once.';

-- Leases and pauses of keys that are no longer queued: the table was truncated meanwhile.
create or replace function _pgstack.work_sweep(id integer)
returns void
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _plan _pgstack.vectorizer_plan := _pgstack.vectorizer_plan(work_sweep.id);
begin
  if to_regclass(_plan.queue) is null then
    return;
  end if;
  execute format(
    $sql$
    delete from _pgstack.work as w
    where w.vectorizer_id = $1 and w.state <> 'failed' and w.due_at < clock_timestamp()
      and not exists (
        select from %s as r, jsonb_to_record(w.key) as k (%s) where %s
      )
    $sql$,
    _plan.queue, _plan.key_record, _plan.key_match
  ) using work_sweep.id;
end;
$$;

comment on function _pgstack.work_sweep(integer) is
'Forgets overdue leases and pauses of keys that are not queued any more.';

-- Workers that died: their connection is gone, so what they hold goes back now and not
-- when the lease ends.
create or replace function _pgstack.worker_sweep()
returns integer
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _dead uuid;
  _swept integer := 0;
begin
  for _dead in
    select w.id
    from _pgstack.worker as w
    where not exists (
      select from pg_locks as l
      where l.locktype = 'advisory' and l.classid = 1885827956 and l.objid = 1 and l.pid = w.pid
    )
    for update skip locked
  loop
    perform _pgstack.worker_stop(_dead);
    _swept := _swept + 1;
  end loop;
  perform _pgstack.work_sweep(o.vectorizer_id)
  from (
    select distinct w.vectorizer_id
    from _pgstack.work as w
    where w.state <> 'failed' and w.due_at < clock_timestamp()
  ) as o;
  return _swept;
end;
$$;

comment on function _pgstack.worker_sweep() is
'Takes back what dead workers hold and forgets what is no longer queued. Returns how many workers were dead.';

-- Vectorizers that lack what prepare_vectorizer() adds, made by plain ai.create_vectorizer().
-- One that cannot be prepared now (busy, or not ours) still runs, and is tried again.
create or replace function _pgstack.prepare_vectorizers()
returns integer
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
set lock_timeout = '1s'
as $$
declare
  _id integer;
  _prepared integer := 0;
begin
  for _id in
    select v.id from ai.vectorizer as v
    left join _pgstack.vectorizer as o on o.vectorizer_id = v.id
    where o.prepared_at is null
    order by v.id
  loop
    begin
      perform _pgstack.prepare_vectorizer(_id);
      _prepared := _prepared + 1;
    exception
      when query_canceled or admin_shutdown then raise;
      when others then perform _pgstack.note_problem(_id, 'not prepared: ' || sqlerrm);
    end;
  end loop;
  return _prepared;
end;
$$;

comment on function _pgstack.prepare_vectorizers() is
'Prepares the vectorizers that are not. Returns how many.';

-- When a worker with nothing to do should look again, in seconds; NULL: when it is told.
create or replace function _pgstack.work_next_due()
returns double precision
language sql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
  select extract(epoch from min(w.due_at) - clock_timestamp())::double precision
  from _pgstack.work as w
  where w.state <> 'failed' and w.due_at > clock_timestamp();
$$;

comment on function _pgstack.work_next_due() is
'Seconds until the next waiting row may be tried or the next lease ends.';

-- What is left to do, for worker --once: rows queued or in somebody's hands.
create or replace function _pgstack.work_left(names text[])
returns bigint
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _plan _pgstack.vectorizer_plan;
  _some boolean;
  _left bigint := 0;
begin
  for _plan in
    select p.*
    from _pgstack.vectorizer_plan as p
    where not p.disabled and (work_left.names is null or p.name = any (work_left.names))
  loop
    if _pgstack.vectorizer_problem(_plan) is null and not exists (
      select from _pgstack.vectorizer as v where v.vectorizer_id = _plan.id and v.problem is not null
    ) then
      execute format('select exists (select from %s)', _plan.queue) into _some;
      _left := _left + _some::integer;
    end if;
  end loop;
  return _left;
end;
$$;

comment on function _pgstack.work_left(text[]) is
'How many vectorizers that can run still have rows queued.';
