-- Family: documents, how they get into a collection.  All run with the caller's rights: whoever
-- may write to the table may ingest.
--
--   ingest_text    a text that is there
--   ingest_bytes   a file: stored as it is, `pending`; the worker reads it (506_extraction.sql)
--   store_document what both and pgstack/ingest.py call
--
-- One row a document, told from others by uri and tenant; the tenant is the setting
-- pgstack.tenant of the session, NULL where it says nothing.  `insert ... on conflict` makes
-- concurrent calls for one uri take turns.  What did not change is not written, and a text that
-- did not change keeps its embeddings whatever else did.
-- Callers: people in psql, pgstack/ingest.py.
-- Errors: PS001 unknown collection, PS007 wrong argument, PS014 missing privilege.

create or replace function _pgstack.current_tenant()
returns text
language sql stable parallel safe
security invoker
set search_path = pg_catalog, pg_temp
as $$
  select nullif(current_setting('pgstack.tenant', true), '');
$$;

comment on function _pgstack.current_tenant() is
'The tenant that the session works for: set pgstack.tenant = ''acme''. NULL: none.';

create or replace function _pgstack.page_count(parts jsonb)
returns integer
language sql immutable strict parallel safe
security invoker
set search_path = pg_catalog, pg_temp
as $$
  select max(least((p.page #>> '{}')::numeric, 2147483647))::integer
  from jsonb_path_query(parts, '$[*].page ? (@.type() == "number")', silent => true) as p (page);
$$;

comment on function _pgstack.page_count(jsonb) is
'The last page that a map of parts names; NULL if none.';

create or replace function _pgstack.check_document(
  uri text, content text, parts jsonb, metadata jsonb, source bytea
)
returns void
language plpgsql immutable
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _most constant integer := 100000000;
  _bytes bigint := greatest(octet_length(check_document.content), octet_length(check_document.source));
begin
  if coalesce(check_document.uri, '') = '' then
    raise exception 'a document needs a uri'
      using errcode = 'PS007', hint = 'Pass what tells it from others: uri => ''file:///path'' or a URL.';
  elsif octet_length(check_document.uri) > 2000 then
    raise exception 'a uri of % bytes is too long', octet_length(check_document.uri)
      using errcode = 'PS007', hint = 'It may have 2000 bytes; keep a longer one in metadata.';
  elsif jsonb_typeof(check_document.metadata) <> 'object' then
    raise exception 'metadata must be an object, not %', jsonb_typeof(check_document.metadata)
      using errcode = 'PS007', hint = 'Pass metadata => ''{"key": "value"}''.';
  elsif jsonb_typeof(check_document.parts) <> 'array' then
    raise exception 'parts must be an array, not %', jsonb_typeof(check_document.parts)
      using errcode = 'PS007', hint = 'Pass [{"start": 0, "end": 120, "page": 1, "headings": ["A"]}].';
  elsif _bytes > _most then
    raise exception 'a document of % MB is too big', ceil(_bytes / 1e6)
      using errcode = 'PS007', hint = format('At most %s MB: cut it into several.', _most / 1000000);
  end if;
end;
$$;

comment on function _pgstack.check_document(text, text, jsonb, jsonb, bytea) is
'Raises PS007 for what is no document: no uri, one over 2000 bytes, over 100 MB, metadata or parts of the wrong type.';

create or replace function _pgstack.store_text(
  relation regclass, uri text, content text, parts jsonb, title text, media_type text,
  metadata jsonb, source bytea, source_hash bytea, source_bytes bigint, source_modified timestamptz
)
returns text
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _outcome text;
begin
  execute format(
    $sql$
    insert into %s as d (
      uri, tenant, content, content_hash, bytes, parts, pages, language, title, titled, media_type,
      metadata, source, source_hash, source_bytes, source_modified
    )
    values (
      $1, _pgstack.current_tenant(), $2, sha256(convert_to($2, 'UTF8')), octet_length($2), $3,
      _pgstack.page_count($3), pgstack.detect_language($2), $4, $4 is not null, $5,
      $6, $7, $8, $9, $10
    )
    on conflict (uri, tenant) do update
    set content = excluded.content, content_hash = excluded.content_hash, bytes = excluded.bytes,
      parts = excluded.parts, pages = excluded.pages, language = excluded.language,
      title = excluded.title, titled = excluded.titled, media_type = excluded.media_type,
      metadata = excluded.metadata, source = excluded.source, source_hash = excluded.source_hash,
      source_bytes = excluded.source_bytes, source_modified = excluded.source_modified,
      status = 'ready', error = null, worker = null, attempts = 0, ingested_at = now()
    where (d.status, d.content_hash, d.title, d.media_type, d.metadata, d.parts) is distinct from
      ('ready', excluded.content_hash, excluded.title, excluded.media_type, excluded.metadata, excluded.parts)
    -- Only a row that was there before has been locked.
    returning case when d.xmax = 0 then 'inserted' else 'updated' end
    $sql$,
    store_text.relation
  )
  into _outcome
  using store_text.uri, store_text.content, store_text.parts, store_text.title, store_text.media_type,
    store_text.metadata, store_text.source, store_text.source_hash, store_text.source_bytes,
    store_text.source_modified;
  if _outcome is null then
    -- The same text from another file, or from one that was only touched.
    execute format(
      $sql$
      update %s as d
      set source = $2, source_hash = $3, source_bytes = $4, source_modified = $5
      where d.uri = $1 and d.tenant is not distinct from _pgstack.current_tenant()
        and (d.source is null, d.source_hash, d.source_bytes, d.source_modified)
          is distinct from ($2 is null, $3, $4, $5)
      $sql$,
      store_text.relation
    )
    using store_text.uri, store_text.source, store_text.source_hash, store_text.source_bytes,
      store_text.source_modified;
  end if;
  return coalesce(_outcome, 'unchanged');
end;
$$;

comment on function _pgstack.store_text(
  regclass, text, text, jsonb, text, text, jsonb, bytea, bytea, bigint, timestamptz
) is
'Stores a document whose text is known. Returns inserted, updated or unchanged.';

-- A title or a media type that nobody gave is found in the file, each time anew.  The old text,
-- and a title found in it, stay until the new file is read.  metadata: a worker adds warnings.
create or replace function _pgstack.store_source(
  relation regclass, uri text, title text, media_type text, metadata jsonb,
  source bytea, source_hash bytea, source_modified timestamptz
)
returns text
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _outcome text;
begin
  execute format(
    $sql$
    insert into %1$s as d (
      uri, tenant, title, titled, media_type, metadata, source, source_hash, source_bytes,
      source_modified, status
    )
    values (
      $1, _pgstack.current_tenant(), $2, $2 is not null, $3, $4, $5, $6, octet_length($5), $7, 'pending'
    )
    on conflict (uri, tenant) do update
    set title = coalesce(excluded.title, d.title),
      titled = excluded.titled or d.titled and not %2$s,
      media_type = case when %2$s then excluded.media_type else d.media_type end,
      metadata = excluded.metadata
        || case when %2$s then '{}' else _pgstack.document_warnings(d.metadata) end,
      source = case when %2$s then excluded.source else d.source end,
      source_hash = excluded.source_hash,
      source_bytes = excluded.source_bytes,
      source_modified = coalesce(excluded.source_modified, d.source_modified),
      status = case when %2$s then 'pending' else d.status end,
      error = case when %2$s then null else d.error end,
      worker = case when %2$s then null else d.worker end,
      attempts = case when %2$s then 0 else d.attempts end,
      ingested_at = now()
    where %2$s or excluded.title is distinct from d.title and excluded.title is not null
      or excluded.metadata - 'warnings' is distinct from d.metadata - 'warnings'
    returning case when d.xmax = 0 then 'inserted' else 'updated' end
    $sql$,
    store_source.relation,
    -- To be read: another file, or one that somebody failed to read and did not keep.
    '(excluded.source_hash is distinct from d.source_hash '
    'or excluded.media_type is distinct from d.media_type and excluded.media_type is not null '
    'or d.status = ''failed'' and d.source is null)'
  )
  into _outcome
  using store_source.uri, store_source.title, store_source.media_type, store_source.metadata,
    store_source.source, store_source.source_hash, store_source.source_modified;
  if _outcome is not null then
    perform pg_notify('pgstack_extract', '');
  end if;
  return coalesce(_outcome, 'unchanged');
end;
$$;

comment on function _pgstack.store_source(
  regclass, text, text, text, jsonb, bytea, bytea, timestamptz
) is
'Stores a file for the worker to read. Returns inserted, updated or unchanged.';

create or replace function _pgstack.document_warnings(metadata jsonb)
returns jsonb
language sql immutable parallel safe
security invoker
set search_path = pg_catalog, pg_temp
as $$
  select case when metadata ? 'warnings'
    then jsonb_build_object('warnings', metadata -> 'warnings') else '{}' end;
$$;

comment on function _pgstack.document_warnings(jsonb) is
'The warnings in a document''s metadata, as an object to add to other metadata.';

-- A document that is there keeps its text.
create or replace function _pgstack.store_failure(
  relation regclass, uri text, title text, media_type text, metadata jsonb, source bytea,
  source_hash bytea, source_bytes bigint, source_modified timestamptz, error text
)
returns text
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
begin
  execute format(
    $sql$
    insert into %s as d (
      uri, tenant, title, titled, media_type, metadata, source, source_hash, source_bytes,
      source_modified, status, error
    )
    values (
      $1, _pgstack.current_tenant(), $2, $2 is not null, $3, $4, $5, $6, $7, $8, 'failed', $9
    )
    on conflict (uri, tenant) do update
    set source = excluded.source, source_hash = excluded.source_hash,
      source_bytes = excluded.source_bytes, source_modified = excluded.source_modified,
      status = 'failed', error = excluded.error, worker = null, attempts = 0
    where (d.status, d.error, d.source is null, d.source_hash, d.source_bytes, d.source_modified)
      is distinct from (
        'failed', excluded.error, excluded.source is null, excluded.source_hash,
        excluded.source_bytes, excluded.source_modified
      )
    $sql$,
    store_failure.relation
  )
  using store_failure.uri, store_failure.title, store_failure.media_type, store_failure.metadata,
    store_failure.source, store_failure.source_hash, store_failure.source_bytes,
    store_failure.source_modified, left(store_failure.error, 1000);
  return 'failed';
end;
$$;

comment on function _pgstack.store_failure(
  regclass, text, text, text, jsonb, bytea, bytea, bigint, timestamptz, text
) is
'Notes that a document could not be read. Returns failed.';

create or replace function _pgstack.store_document(
  collection text, uri text, content text, parts jsonb, title text, media_type text,
  metadata jsonb, source bytea, source_hash bytea, source_bytes bigint,
  source_modified timestamptz, error text
)
returns text
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _relation regclass := _pgstack.collection_table(store_document.collection);
  _metadata jsonb := coalesce(store_document.metadata, '{}');
begin
  perform _pgstack.check_document(
    store_document.uri, store_document.content, store_document.parts, _metadata, store_document.source
  );
  if store_document.error is not null then
    return _pgstack.store_failure(
      _relation, store_document.uri, store_document.title, store_document.media_type, _metadata,
      store_document.source, store_document.source_hash, store_document.source_bytes,
      store_document.source_modified, store_document.error
    );
  elsif store_document.content is not null then
    return _pgstack.store_text(
      _relation, store_document.uri, store_document.content, store_document.parts,
      store_document.title, store_document.media_type, _metadata, store_document.source,
      store_document.source_hash, store_document.source_bytes, store_document.source_modified
    );
  end if;
  perform _pgstack.require('content', store_document.source);
  return _pgstack.store_source(
    _relation, store_document.uri, store_document.title, store_document.media_type, _metadata,
    store_document.source, sha256(store_document.source), store_document.source_modified
  );
exception
  when insufficient_privilege then
    raise exception '% may not write this to collection "%": %',
      current_user, store_document.collection, sqlerrm
      using errcode = 'PS014',
      hint = format('grant select, insert, update, delete on %s to %I;', _relation, current_user);
end;
$$;

comment on function _pgstack.store_document(
  text, text, text, jsonb, text, text, jsonb, bytea, bytea, bigint, timestamptz, text
) is
'Puts one document into a collection: with its text; or as a file (source) that the worker reads, if content is NULL; or, if error is not NULL, as one that cannot be read.
parts: [{"start": 0, "end": 120, "page": 1, "headings": ["A", "B"]}]. source: the file, NULL: it is not kept. source_hash: its sha256; source_bytes, source_modified: of it.
Returns inserted, updated, unchanged (what people see of it; the last four are kept nevertheless) or failed.
Raises PS001 unknown collection, PS007 wrong argument, PS014 no right to write.';

create or replace function pgstack.ingest_text(
  collection text,
  uri text,
  content text,
  title text default null,
  media_type text default 'text/plain',
  metadata jsonb default '{}'
)
returns text
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
begin
  perform _pgstack.require('content', ingest_text.content);
  return _pgstack.store_document(
    ingest_text.collection, ingest_text.uri, ingest_text.content, null, ingest_text.title,
    ingest_text.media_type, ingest_text.metadata, null, null, null, null, null
  );
end;
$$;

comment on function pgstack.ingest_text(text, text, text, text, text, jsonb) is
'Puts one document into a collection, or its new version in the place of the old: ''inserted'', ''updated'' or ''unchanged''.
collection: see pgstack.collections. uri: what tells the document from others, for example file:///path or a URL, at most 2000 bytes.
content: its text, at most 100 MB. title, media_type, metadata (an object): kept beside it. A document is unchanged if all of these are;
its embeddings are left alone when its text is. Concurrent calls for one uri take turns. With the setting pgstack.tenant
the document is that tenant''s, who has uris of his own.
Raises PS001 unknown collection, PS007 no uri, no content, too much of it or bad metadata, PS014 no right to write.';

create or replace function pgstack.ingest_bytes(
  collection text,
  uri text,
  content bytea,
  title text default null,
  media_type text default null,
  metadata jsonb default '{}'
)
returns text
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
begin
  perform _pgstack.require('content', ingest_bytes.content);
  return _pgstack.store_document(
    ingest_bytes.collection, ingest_bytes.uri, null, null, ingest_bytes.title,
    ingest_bytes.media_type, ingest_bytes.metadata, ingest_bytes.content, null, null, null, null
  );
end;
$$;

comment on function pgstack.ingest_bytes(text, text, bytea, text, text, jsonb) is
'Puts one file into a collection, or its new version in the place of the old: ''inserted'', ''updated'' or ''unchanged''.
The file is kept, and a worker reads its text soon after the commit: pgstack.documents shows the status, pgstack.wait_until_fresh(collection) waits.
Until then, and if it cannot be read, an older version''s text stays.
collection: see pgstack.collections. uri: what tells the document from others, at most 2000 bytes; its ending (.pdf) helps to know the format.
content: the file, at most 100 MB. title, media_type: NULL: what the file says. metadata (an object): kept beside it.
The same bytes are not read again, and a document is unchanged if nothing else differs either.
Raises PS001 unknown collection, PS007 no uri, no content, too much of it or bad metadata, PS014 no right to write.';

create or replace function pgstack.remove_document(collection text, uri text)
returns boolean
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _relation regclass := _pgstack.collection_table(remove_document.collection);
  _removed integer;
begin
  execute format(
    'delete from %s as d where d.uri = $1 and d.tenant is not distinct from _pgstack.current_tenant()',
    _relation
  ) using remove_document.uri;
  get diagnostics _removed = row_count;
  return _removed > 0;
exception
  when insufficient_privilege then
    raise exception '% may not delete from collection "%"', current_user, remove_document.collection
      using errcode = 'PS014',
      hint = format('grant select, delete on %s to %I;', _relation, current_user);
end;
$$;

comment on function pgstack.remove_document(text, text) is
'Removes one document, its embeddings follow. Returns false if the collection has none with that uri, or it is another tenant''s.
Raises PS001 unknown collection, PS014 no right to delete.';
