-- Family: extraction.  The worker reads the files that ingest_bytes() stored.
--
--   extraction_claim     leases one pending document to a worker and hands out its file
--   extraction_complete  writes its text, if the file is still the same
--   extraction_fail      notes why there is none, if the file is still the same
--   extraction_release   gives it back
--
-- The queue is the table itself: status `pending`.  A lease is the worker's id in the row; it holds
-- as long as that worker shows signs of life.  What dies in between leaves a pending row behind,
-- and the next claim takes it.  Each claim counts as a try before it begins, because a file that
-- kills the worker has nobody else to count it; those tried before come last.
-- A file stored anew meanwhile takes the lease away, so that the older one's text is not written.
--
-- The worker runs with its own rights, and triggers on the table run with them
-- (docs/explanation/trust.md): it touches registered tables only, as _pgstack.hold_source() does
-- those of vectorizers.
-- Callers: pgstack/worker/extract.py.  They must see all rows: row_security is off there.
-- Errors: PS013 a table that the worker must not touch.

create or replace function _pgstack.hold_collection(relation oid)
returns text
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _table text;
  _problem text;
begin
  select format('pgstack_collections.%I', t.name) into _table
  from _pgstack.collection_tables() as t where t.relation = hold_collection.relation;
  if not found then
    return null;
  end if;
  begin
    execute format('lock table only %s in access share mode', _table);
  exception
    when undefined_table or wrong_object_type then return null;
  end;
  -- Renamed or replaced before it was locked.
  if not exists (
    select from _pgstack.collection_tables() as t
    where t.relation = hold_collection.relation and t.relation::oid = to_regclass(_table)
  ) then
    return null;
  end if;
  -- Only those that came later: a collection is made of PostgreSQL's own types.
  select _pgstack.type_problem(hold_collection.relation, array_agg(a.attname)) into _problem
  from pg_attribute as a
  where a.attrelid = hold_collection.relation and a.attnum > 0 and not a.attisdropped
    and a.atttypid >= 16384
  having count(*) > 0;
  if _problem is not null then
    raise exception '%', _problem
      using errcode = 'PS013', hint = 'alter table ... owner to the owner of that type.';
  end if;
  return _table;
end;
$$;

comment on function _pgstack.hold_collection(oid) is
'Keeps a collection''s table as it is until the transaction ends. Returns its name, quoted; NULL: it is gone. Raises PS013 when the worker must not touch it.';

create or replace function _pgstack.claim_document(
  relation oid, worker uuid, busy bigint[], most_tries integer
)
returns table (
  id bigint, uri text, media_type text, source bytea, source_hash bytea, attempts integer
)
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
set lock_timeout = '200ms'
as $$
declare
  _table text := _pgstack.hold_collection(claim_document.relation);
  -- A row that this worker has let go is as free as one of a dead worker.
  _free constant text := 'd.status = ''pending'' and (d.worker is null or d.worker <> all ($2) '
    'or d.worker = $1 and d.id <> all ($3))';
begin
  if _table is null then
    return;
  end if;
  execute format(
    $sql$
    update only %1$s as d
    set status = 'failed', worker = null,
      error = format('the worker ended %%s times while it was read', d.attempts)
    where d.id in (
      select d.id from only %1$s as d where %2$s and d.attempts >= $4 for update skip locked
    )
    $sql$,
    _table, _free
  ) using claim_document.worker, _pgstack.lease_holders(), claim_document.busy, claim_document.most_tries;
  return query execute format(
    $sql$
    update only %1$s as d
    set worker = $1, attempts = d.attempts + 1
    where d.id = (
      select d.id from only %1$s as d where %2$s
      order by d.attempts, d.id
      limit 1
      for update skip locked
    )
    returning d.id, d.uri, d.media_type, d.source, d.source_hash, d.attempts
    $sql$,
    _table, _free
  ) using claim_document.worker, _pgstack.lease_holders(), claim_document.busy;
end;
$$;

comment on function _pgstack.claim_document(oid, uuid, bigint[], integer) is
'Leases one document of a collection to a worker. busy: those it has in hand. most_tries: one that was tried so often is set aside as failed.';

-- Collections in random order, as work_claim() takes vectorizers.
create or replace function _pgstack.extraction_claim(
  worker uuid, names text[], busy_relations bigint[], busy_ids bigint[]
)
returns table (
  relation bigint, collection text, id bigint, uri text, media_type text, source bytea,
  source_hash bytea, attempts integer, extraction jsonb, tika_url text
)
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _collection record;
  _problem text;
begin
  for _collection in
    select c.name, c.relation, k.extraction, k.problem
    from _pgstack.extractable_collections(extraction_claim.names) as c
    join _pgstack.collection as k on k.relation = c.relation
    where k.problem is null
      or k.problem_at not between clock_timestamp() - interval '10 s' and clock_timestamp()
    order by random()
  loop
    _problem := null;
    begin
      select c.id, c.uri, c.media_type, c.source, c.source_hash, c.attempts
      into id, uri, media_type, source, source_hash, attempts
      from _pgstack.claim_document(
        _collection.relation, extraction_claim.worker,
        array(
          select b.id
          from unnest(extraction_claim.busy_relations, extraction_claim.busy_ids) as b (relation, id)
          where b.relation = _collection.relation::oid::bigint
        ),
        3
      ) as c;
    exception
      when query_canceled or admin_shutdown then raise;
      when lock_not_available then continue;
      when others then _problem := sqlerrm;
    end;
    if _problem is distinct from _collection.problem then
      perform _pgstack.note_collection_problem(_collection.relation, _problem);
    end if;
    if id is not null then
      relation := _collection.relation::oid::bigint;
      collection := _collection.name;
      extraction := _collection.extraction;
      tika_url := nullif(_pgstack.setting_value('tika_url'), '');
      return next;
      return;
    end if;
  end loop;
end;
$$;

comment on function _pgstack.extraction_claim(uuid, text[], bigint[], bigint[]) is
'Leases one pending document to a worker: its file, and how to read it. names: only collections of these vectorizers; NULL: all. busy_relations, busy_ids: the documents it has in hand. No row: nothing is due.';

create or replace function _pgstack.note_collection_problem(relation oid, problem text)
returns void
language sql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
  update _pgstack.collection as k
  set problem = left(note_collection_problem.problem, 500), problem_at = clock_timestamp()
  where k.relation = note_collection_problem.relation;
$$;

comment on function _pgstack.note_collection_problem(oid, text) is
'Remembers what keeps workers from a collection; NULL: nothing any more.';

create or replace function _pgstack.extractable_collections(names text[])
returns table (name text, relation regclass)
language sql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
  select t.name, t.relation
  from _pgstack.collection_tables() as t
  where extractable_collections.names is null or exists (
    select from ai.vectorizer as v
    where v.source_schema = 'pgstack_collections' and v.source_table = t.name
      and v.name = any (extractable_collections.names)
  );
$$;

comment on function _pgstack.extractable_collections(text[]) is
'The collections whose vectorizers have these names; NULL: all.';

create or replace function _pgstack.extraction_complete(
  worker uuid, relation bigint, id bigint, source_hash bytea, content text, parts jsonb,
  title text, media_type text, warnings text[]
)
returns boolean
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _table text := _pgstack.hold_collection(extraction_complete.relation::oid);
  _written integer;
begin
  if _table is null then
    return false;
  end if;
  execute format(
    $sql$
    update only %s as d
    set content = $4, content_hash = sha256(convert_to($4, 'UTF8')), bytes = octet_length($4),
      parts = $5, pages = _pgstack.page_count($5), language = pgstack.detect_language($4),
      title = case when d.titled then d.title else $6 end,
      media_type = coalesce(d.media_type, $7),
      metadata = d.metadata - 'warnings'
        || case when cardinality($8) > 0 then jsonb_build_object('warnings', $8) else '{}' end,
      status = 'ready', error = null, worker = null, attempts = 0, ingested_at = now()
    where d.id = $1 and d.worker = $2 and d.status = 'pending' and d.source_hash is not distinct from $3
    $sql$,
    _table
  )
  using extraction_complete.id, extraction_complete.worker, extraction_complete.source_hash,
    extraction_complete.content, extraction_complete.parts, extraction_complete.title,
    extraction_complete.media_type, extraction_complete.warnings;
  get diagnostics _written = row_count;
  return _written > 0;
end;
$$;

comment on function _pgstack.extraction_complete(
  uuid, bigint, bigint, bytea, text, jsonb, text, text, text[]
) is
'Writes what a worker read in a document''s file. False: the document is gone, has another file by now, or is somebody else''s.';

create or replace function _pgstack.extraction_fail(
  worker uuid, relation bigint, id bigint, source_hash bytea, error text
)
returns boolean
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _table text := _pgstack.hold_collection(extraction_fail.relation::oid);
  _written integer;
begin
  if _table is null then
    return false;
  end if;
  execute format(
    $sql$
    update only %s as d
    set status = 'failed', error = $4, worker = null
    where d.id = $1 and d.worker = $2 and d.status = 'pending' and d.source_hash is not distinct from $3
    $sql$,
    _table
  )
  using extraction_fail.id, extraction_fail.worker, extraction_fail.source_hash,
    left(extraction_fail.error, 1000);
  get diagnostics _written = row_count;
  return _written > 0;
end;
$$;

comment on function _pgstack.extraction_fail(uuid, bigint, bigint, bytea, text) is
'Notes why a document''s file gives no text; an older text stays. False: as for extraction_complete().';

create or replace function _pgstack.extraction_release(
  worker uuid, relation bigint, id bigint, source_hash bytea, counted boolean
)
returns void
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _table text := _pgstack.hold_collection(extraction_release.relation::oid);
begin
  if _table is null then
    return;
  end if;
  execute format(
    $sql$
    update only %s as d
    set worker = null, attempts = greatest(d.attempts - case when $4 then 0 else 1 end, 0)
    where d.id = $1 and d.worker = $2 and d.status = 'pending' and d.source_hash is not distinct from $3
    $sql$,
    _table
  )
  using extraction_release.id, extraction_release.worker, extraction_release.source_hash,
    extraction_release.counted;
  perform pg_notify('pgstack_extract', '');
end;
$$;

comment on function _pgstack.extraction_release(uuid, bigint, bigint, bytea, boolean) is
'Gives a leased document back. counted: as one that was tried.';

-- For worker --once: whether files are left to read, in whosever hands.
create or replace function _pgstack.extraction_left(names text[])
returns boolean
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _collection record;
begin
  for _collection in
    select c.relation
    from _pgstack.extractable_collections(extraction_left.names) as c
    join _pgstack.collection as k on k.relation = c.relation
    where k.problem is null
  loop
    -- One that is locked may have some.
    if coalesce(_pgstack.documents_pending(_collection.relation, 1), 1) > 0 then
      return true;
    end if;
  end loop;
  return false;
end;
$$;

comment on function _pgstack.extraction_left(text[]) is
'Whether files are pending in collections that workers can read. names: as for extraction_claim().';
