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
-- DELETE or TRUNCATE takes them through the triggers.  skip locked: a user's statement
-- never waits for a worker that waits for it.
--
-- A vector is made once.  Each chunk carries the digest of all that its vector depends on
-- (model, dimensions, options, text); a chunk whose digest is known already, in its own row
-- or in another, never leaves the database.  Where a vectorizer masks, text is that which is masked.
--
-- Callers: pgstack/worker.  They must read all rows: row_security is off there.
-- Errors: PS002 wrong vector length.

-- Several times a row: without a pinned search_path PostgreSQL puts the body in its place.
create or replace function _pgstack.key_digest(key jsonb)
returns bytea
language sql stable strict parallel safe
security invoker
as $$
  select pg_catalog.sha256(pg_catalog.convert_to(key::pg_catalog.text, 'UTF8'));
$$;

comment on function _pgstack.key_digest(jsonb) is
'A key as 32 bytes: fits an index however long the key is.';

-- ---------------------------------------------------------------------------- claim

-- A lease holds as long as its worker lives.  A worker whose connection ends is found out by
-- worker_sweep(); this is for one that hangs.
create or replace function _pgstack.lease_holders()
returns uuid[]
language sql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
  select coalesce(array_agg(w.id), '{}')
  from _pgstack.worker as w
  where w.seen_at
    between clock_timestamp() - _pgstack.setting_interval('lease') and clock_timestamp();
$$;

comment on function _pgstack.lease_holders() is
'The workers that gave a sign of life within the setting lease.';

-- Rows are taken in the order of their key, from `after` on and around again: what is in
-- hand already, and what was done before and left dead rows, lies behind and is not looked at.
-- `newest` has the rows taken that were queued last.  It reads the whole queue, which has no
-- index for that, because each writer would pay for it.
create or replace function _pgstack.claim_keys(
  plan _pgstack.vectorizer_plan, worker uuid, wanted integer, after jsonb, newest boolean
)
returns jsonb[]
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
-- A queue that somebody has locked must not keep the other vectorizers waiting.
set lock_timeout = '200ms'
as $$
declare
  _columns text;
  _values text;
  _where text := 'true';
  _keys jsonb[];
begin
  select
    string_agg(format('r.%I', c.name), ', ' order by c.nr),
    string_agg(
      format('%L::%s', claim_keys.after ->> c.name, format_type(a.atttypid, a.atttypmod)), ', '
      order by c.nr
    )
  into _columns, _values
  from unnest(plan.key_columns) with ordinality as c (name, nr)
  join pg_attribute as a
    on a.attrelid = _pgstack.find_relation(plan.queue) and a.attname = c.name;
  if claim_keys.newest then
    -- More than are wanted: some may be in hand.
    _where := format(
      'r.ctid = any (array(select n.ctid from %s as n order by n.queued_at desc limit 1000))',
      plan.queue
    );
  elsif claim_keys.after is not null then
    _where := format('(%s) > (%s)', _columns, _values);
  end if;
  -- One key may be queued several times.  Inserting in order of digest keeps two
  -- claims that meet from waiting for each other in a circle.  The plan is a moment old:
  -- what sees a row queued after a pause, or after another model was set, sees that as well.
  execute format(
    $sql$
    with due as materialized (
      select d.key, d.digest
      from %2$s as r
      cross join lateral (select %1$s as key) as j
      -- offset 0: computed once, and not wherever it is named.
      cross join lateral (select j.key, _pgstack.key_digest(j.key) as digest offset 0) as d
      where %4$s and (r.loading_retry_after is null or r.loading_retry_after <= now())
        and not exists (
          select from _pgstack.work as w
          where w.vectorizer_id = $1 and w.digest = d.digest
            and case w.state
              when 'leased' then w.worker = any ($4)
              -- Written in the future: the clock was set back since, nobody waits for that.
              when 'waiting' then w.due_at > clock_timestamp() and w.changed_at <= clock_timestamp()
            end
        )
        and exists (
          select from ai.vectorizer as v where v.id = $1 and not v.disabled and v.config = $5
        )
      order by %3$s
      limit $3
      for update of r skip locked
    ),
    leased as (
      insert into _pgstack.work as w (vectorizer_id, digest, key, state, worker, due_at)
      select distinct on (d.digest)
        $1, d.digest, d.key, 'leased', $2, clock_timestamp()
      from due as d
      order by d.digest
      on conflict on constraint work_pkey do update
      set state = 'leased', worker = excluded.worker, due_at = excluded.due_at,
        changed_at = clock_timestamp(),
        attempts = case when w.state = 'failed' then 0 else w.attempts end
      where case w.state
        when 'leased' then (w.worker = any ($4)) is not true
        when 'waiting' then w.due_at <= clock_timestamp() or w.changed_at > clock_timestamp()
        else true
      end
      returning w.digest
    )
    select coalesce(array_agg(d.key order by d.nr), '{}')
    from (
      select distinct on (n.digest) n.digest, n.key, n.nr
      from (select u.*, row_number() over () as nr from due as u) as n
      order by n.digest, n.nr
    ) as d
    where d.digest in (select l.digest from leased as l)
    $sql$,
    plan.key_json, plan.queue, case when claim_keys.newest then 'r.queued_at desc' else _columns end,
    _where
  ) using plan.id, worker, wanted, _pgstack.lease_holders(), plan.config into _keys;
  if cardinality(_keys) = 0 and (claim_keys.after is not null or claim_keys.newest) then
    return _pgstack.claim_keys(
      plan, worker, wanted, case when claim_keys.newest then claim_keys.after end, false
    );
  end if;
  return _keys;
end;
$$;

comment on function _pgstack.claim_keys(_pgstack.vectorizer_plan, uuid, integer, jsonb, boolean) is
'Leases up to so many queued keys of one vectorizer to a worker: those queued last, or in their order, those after a key first.';

-- One vectorizer at a time, any of them in turn: a random order is fair over time and
-- needs no shared state.  One that cannot run is passed over and says why.
create or replace function _pgstack.work_claim(
  worker uuid, names text[], wishes jsonb, resting text[]
)
returns table (
  vectorizer_id integer, name text, model_key text, model_server text, model text,
  options jsonb, keep_alive text, keys jsonb[], is_behind boolean
)
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _plan _pgstack.vectorizer_plan;
  _wish jsonb;
  _rows integer;
  _problem text;
begin
  for _plan in
    select p.*
    from _pgstack.vectorizer_plan as p
    left join _pgstack.vectorizer as v
      on v.vectorizer_id = p.id and v.problem is not null
      and v.last_error_at between clock_timestamp() - interval '10 s' and clock_timestamp()
    where not p.disabled and v.vectorizer_id is null
      and (work_claim.names is null or p.name = any (work_claim.names))
      and _pgstack.model_key(p.base_url, p.model, p.options, p.keep_alive) <> all (work_claim.resting)
    order by random()
  loop
    _wish := work_claim.wishes -> _plan.id::text;
    _rows := least(coalesce((_wish ->> 'rows')::integer, 32), _plan.batch_size);
    continue when _rows = 0;
    begin
      _problem := coalesce(_pgstack.vectorizer_problem(_plan), _pgstack.rights_problem(_plan));
      if _problem is null then
        keys := _pgstack.claim_keys(
          _plan, work_claim.worker, _rows, _wish -> 'after',
          coalesce((_wish ->> 'newest')::boolean, false)
        );
        if cardinality(keys) > 0 then
          is_behind := cardinality(keys) = _rows;
          vectorizer_id := _plan.id;
          name := _plan.name;
          model_key := _pgstack.model_key(
            _plan.base_url, _plan.model, _plan.options, _plan.keep_alive
          );
          model_server := _plan.base_url;
          model := _plan.model;
          options := _plan.options;
          keep_alive := _plan.keep_alive;
          return next;
          return;
        end if;
      end if;
    exception
      when query_canceled or admin_shutdown then raise;
      when lock_not_available then continue;
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

comment on function _pgstack.work_claim(uuid, text[], jsonb, text[]) is
'Leases queued keys of one vectorizer to a worker. names: only these vectorizers; NULL: all. wishes: {"id": {"rows": how many, "after": the last key taken, "newest": true has those queued last taken}}, 32 rows from the first key on where it says nothing; 0 rows: none of it now. resting: models that take no more now, as _pgstack.model_key(). is_behind: as many as that were there, perhaps more. No row: nothing is due.';

create or replace function _pgstack.model_key(
  model_server text, model text, options jsonb, keep_alive text
)
returns text
language sql immutable parallel safe
security invoker
set search_path = pg_catalog, pg_temp
as $$
  select jsonb_build_array(model_server, model, options, keep_alive)::text;
$$;

comment on function _pgstack.model_key(text, text, jsonb, text) is
'A model as a vectorizer asks for it: the same key, the same calls.';

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

-- Whether a vectorizer's table has the columns that prepare_vectorizer() adds.
create or replace function _pgstack.has_digests(plan _pgstack.vectorizer_plan)
returns boolean
language plpgsql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _target oid := _pgstack.find_relation(plan.target);
begin
  return plan.has_table and exists (
    select from pg_attribute as a
    where a.attrelid = _target and a.attname = 'digest' and not a.attisdropped
  );
end;
$$;

comment on function _pgstack.has_digests(_pgstack.vectorizer_plan) is
'Whether the chunks of a vectorizer carry digests.';

-- Is there a vector for d.digest already?  An expression for work_load().
create or replace function _pgstack.known_expression(plan _pgstack.vectorizer_plan)
returns text
language sql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
  select case when _pgstack.has_digests(plan)
    then format('exists (select from %s as t where t.digest = d.digest)', plan.target)
    else 'false'
  end;
$$;

comment on function _pgstack.known_expression(_pgstack.vectorizer_plan) is
'SQL that tells whether the vectorizer has a vector for d.digest.';

-- What a template names.
create or replace function _pgstack.template_vars(plan _pgstack.vectorizer_plan)
returns text
language plpgsql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
begin
  if not plan.chunking ? 'mask_pii' then
    return plan.content_vars;
  end if;
  return (
    select format('jsonb_build_object(%s)', string_agg(
      format('%L, %s', c.name, _pgstack.masked(plan, format('r.%I::text', c.name))), ', '
    ))
    from unnest(_pgstack.content_columns(plan.config)) as c (name)
  );
end;
$$;

comment on function _pgstack.template_vars(_pgstack.vectorizer_plan) is
'SQL for the columns of a row r as an object, masked where the vectorizer masks.';

create or replace function _pgstack.work_load(
  vectorizer_id integer, keys jsonb[], model_key text, model_digest text
)
returns table (
  nr integer, version bytea, chunk_seq integer, start_char integer, end_char integer,
  digest bytea, wanted boolean, chunk text, input text
)
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _plan _pgstack.vectorizer_plan := _pgstack.vectorizer_plan(work_load.vectorizer_id);
  _chunking _pgstack.chunking := _pgstack.chunking(_plan.chunking);
  _plain boolean := _plan.template = '$chunk';
begin
  -- Dropped, or of another model by now: no text is asked of this one, and the keys go back.
  if _plan.id is null or work_load.model_key <> _pgstack.model_key(
    _plan.base_url, _plan.model, _plan.options, _plan.keep_alive
  ) then
    return;
  end if;
  if _pgstack.hold_source(_plan) is not null then
    return;  -- the keys go back: the next claim says why
  end if;
  return query execute format(
    $sql$
    select
      q.nr::integer, s.version, c.seq, c.start_char, c.end_char, d.digest,
      not (k.in_target or k.in_cache),
      case when not k.in_target then c.chunk end,
      case when not (k.in_target or k.in_cache) then i.input end
    from unnest($1) with ordinality as q (key, nr)
    left join lateral (
      select
        _pgstack.content_version(%1$s) as version, %2$s as vars, %3$s as content
      from %4$s as r, jsonb_to_record(q.key) as k (%5$s)
      where %6$s
    ) as s on true
    left join lateral pgstack.chunk(s.content, $3, $4, $5, $6, $7, $10) as c on true
    left join lateral (select %7$s as input) as i on true
    left join lateral (
      select sha256($8 || convert_to(c.chunk, 'UTF8') || coalesce('\x00' || convert_to(i.input, 'UTF8'), ''))
        as digest
    ) as d on true
    left join lateral (
      select
        %8$s as in_target,
        $9 and exists (select from _pgstack.embedding_cache as e where e.digest = d.digest) as in_cache
    ) as k on d.digest is not null
    order by q.nr, c.seq
    $sql$,
    _plan.content_json, case when _plain then 'null::jsonb' else _pgstack.template_vars(_plan) end,
    _pgstack.masked(_plan, format('r.%I::text', _plan.content_column)), _plan.source, _plan.key_record, _plan.key_match,
    case when _plain then 'null::text'
      else 'case when c.chunk is not null then _pgstack.fill_template($2, c.chunk, s.vars) end'
    end,
    _pgstack.known_expression(_plan)
  ) using
    work_load.keys,
    _plan.template,
    _chunking.method,
    _chunking.size,
    _chunking.overlap,
    _chunking.separators,
    _chunking.is_regex,
    _pgstack.model_salt(_plan, work_load.model_digest),
    _pgstack.setting_value('embedding_cache') = 'on',
    _chunking.keep_separator;
end;
$$;

comment on function _pgstack.work_load(integer, jsonb[], text, text) is
'The texts to embed for leased keys, nr counting keys from 1. model_key: what work_claim() said; no rows when another model is set by now, or the source must not be read. model_digest: what the model server calls the model''s weights; NULL: unknown.
A row without version: the source row is gone. A row without digest: it has no text. wanted: its vector is not known yet. chunk: NULL where the table of chunks has it. input: what to embed, NULL: the chunk itself.';

create or replace function _pgstack.model_salt(plan _pgstack.vectorizer_plan, model_digest text)
returns bytea
language sql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
  select sha256(convert_to(
    jsonb_build_array(plan.base_url, plan.model, model_digest, plan.dimensions, plan.options)::text,
    'UTF8'
  ));
$$;

comment on function _pgstack.model_salt(_pgstack.vectorizer_plan, text) is
'A fingerprint of the model as a vectorizer uses it.';

-- Inlined like key_digest().
create or replace function _pgstack.content_version(content jsonb)
returns bytea
language sql stable strict parallel safe
security invoker
as $$
  select pg_catalog.sha256(pg_catalog.convert_to(content::pg_catalog.text, 'UTF8'));
$$;

comment on function _pgstack.content_version(jsonb) is
'A fingerprint of what a vectorizer reads of a row.';
