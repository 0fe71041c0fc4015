-- Family: documents, what pgstack/ingest/ asks besides store_document() and document_states().
-- With the caller's rights, for the session's tenant.
-- Callers: pgstack/ingest/store.py.
-- Errors: PS001 unknown collection, PS014 missing privilege.

create or replace function _pgstack.collection_extraction(collection text)
returns jsonb
language plpgsql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _extraction jsonb;
begin
  select k.extraction into _extraction
  from _pgstack.collection_tables() as t
  join _pgstack.collection as k on k.relation = t.relation
  where t.name = collection_extraction.collection;
  if _extraction ->> 'extractor' = 'tika' then
    _extraction := jsonb_set(
      _extraction, '{tika_url}', to_jsonb(coalesce(_pgstack.setting_value('tika_url'), ''))
    );
  end if;
  return _extraction;
end;
$$;

comment on function _pgstack.collection_extraction(text) is
'How files of a collection are read: the options of create_collection(), with the address of the Tika server where one is wanted. NULL: there is no such collection.';

create or replace function _pgstack.document_etags(collection text, uris text[])
returns table (uri text, etag text)
language plpgsql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
begin
  return query execute format(
    'select d.uri, d.metadata ->> ''etag'' from %s as d where d.uri = any ($1) '
    'and d.tenant is not distinct from _pgstack.current_tenant() and d.metadata ? ''etag''',
    _pgstack.collection_table(document_etags.collection)
  ) using document_etags.uris;
end;
$$;

comment on function _pgstack.document_etags(text, text[]) is
'What web servers call the versions of these documents, as far as that is known.';

-- What people see of the documents has not changed: ingested_at stays.
create or replace function _pgstack.note_sources(
  collection text, uris text[], bytes bigint[], modified timestamptz[], etags text[]
)
returns void
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _relation regclass := _pgstack.collection_table(note_sources.collection);
begin
  execute format(
    $sql$
    update %s as d
    set source_bytes = s.bytes, source_modified = s.modified,
      metadata = case when s.etag is null then d.metadata
        else d.metadata || jsonb_build_object('etag', s.etag) end
    from unnest($1, $2, $3, $4) as s (uri, bytes, modified, etag)
    where d.uri = s.uri and d.tenant is not distinct from _pgstack.current_tenant()
      and (d.source_bytes, d.source_modified, coalesce(s.etag, d.metadata ->> 'etag'))
        is distinct from (s.bytes, s.modified, d.metadata ->> 'etag')
    $sql$,
    _relation
  ) using note_sources.uris, note_sources.bytes, note_sources.modified, note_sources.etags;
exception
  when insufficient_privilege then
    raise exception '% may not write to collection "%"', current_user, note_sources.collection
      using errcode = 'PS014',
      hint = format('grant select, insert, update, delete on %s to %I;', _relation, current_user);
end;
$$;

comment on function _pgstack.note_sources(text, text[], bigint[], timestamptz[], text[]) is
'Notes length, time of change and version of files that are the same as before. One element a document in each array; etags may be NULL.
Raises PS001 unknown collection, PS014 no right to write.';
