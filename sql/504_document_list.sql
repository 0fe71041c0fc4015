-- Family: documents, what is there and how it stands.  Everybody sees what he may read.
-- Callers: people in psql, pgstack/ingest.py.
-- Errors: PS001 unknown collection, PS014 missing privilege.

create or replace function _pgstack.collection_uris(collection text, prefix text)
returns setof text
language plpgsql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
begin
  return query execute format(
    'select d.uri from %s as d where starts_with(d.uri, $1) '
    'and d.tenant is not distinct from _pgstack.current_tenant() order by d.uri',
    _pgstack.collection_table(collection_uris.collection)
  ) using collection_uris.prefix;
end;
$$;

comment on function _pgstack.collection_uris(text, text) is
'The documents of a collection, of the session''s tenant, whose uri begins with prefix.';

create or replace function _pgstack.document_states(collection text, uris text[])
returns table (
  uri text, source_hash bytea, source_bytes bigint, source_modified timestamptz, status text,
  error text
)
language plpgsql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
begin
  return query execute format(
    'select d.uri, d.source_hash, d.source_bytes, d.source_modified, d.status, d.error '
    'from %s as d where d.uri = any ($1) '
    'and d.tenant is not distinct from _pgstack.current_tenant() order by d.uri',
    _pgstack.collection_table(document_states.collection)
  ) using document_states.uris;
end;
$$;

comment on function _pgstack.document_states(text, text[]) is
'What a collection has of these uris, of the session''s tenant. source_hash, source_bytes, source_modified: of the file it was read from; NULL: not known.';

create or replace function _pgstack.readable_collections()
returns table (name text, relation regclass)
language sql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
  select t.name, t.relation
  from _pgstack.collection_tables() as t
  where has_table_privilege(t.relation, 'select')
    and has_schema_privilege('pgstack_collections', 'usage')
  order by t.name;
$$;

comment on function _pgstack.readable_collections() is
'The collections that the caller may read.';

create or replace function _pgstack.collection_counts()
returns table (
  name text, documents bigint, bytes bigint, last_ingested timestamptz, pending bigint,
  failed bigint, problem text
)
language plpgsql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _relation regclass;
begin
  for name, _relation in select t.name, t.relation from _pgstack.readable_collections() as t loop
    -- A trigger on the table may quote a text in its error.
    if has_column_privilege('_pgstack.collection', 'problem', 'select') then
      select k.problem into problem from _pgstack.collection as k where k.relation = _relation;
    end if;
    execute format(
      'select count(*), coalesce(sum(d.bytes), 0)::bigint, max(d.ingested_at), '
      'count(*) filter (where d.status = ''pending''), '
      'count(*) filter (where d.status = ''failed'') from %s as d',
      _relation
    ) into documents, bytes, last_ingested, pending, failed;
    return next;
  end loop;
end;
$$;

comment on function _pgstack.collection_counts() is
'The rows of pgstack.collections.';

create or replace view pgstack.collections
with (security_invoker = true)
as
select
  c.name,
  c.documents,
  c.bytes,
  c.last_ingested,
  c.pending,
  c.failed,
  c.problem
from _pgstack.collection_counts() as c;

comment on view pgstack.collections is
'The collections of ingested documents that the caller may read. Their tables are pgstack_collections.NAME.';
comment on column pgstack.collections.name is 'Name of the collection and of its table.';
comment on column pgstack.collections.documents is 'Documents in it, those pending and failed included.';
comment on column pgstack.collections.bytes is 'Their text in UTF-8, in bytes.';
comment on column pgstack.collections.last_ingested is 'When one was last added or changed; NULL if there is none.';
comment on column pgstack.collections.pending is 'Documents whose file a worker has yet to read.';
comment on column pgstack.collections.failed is 'Documents whose file could not be read: pgstack.documents says why, pgstack.retry_documents() tries again.';
comment on column pgstack.collections.problem is 'What keeps workers from reading its files; NULL when nothing does, and for roles that may not select from _pgstack.collection.';

-- The form of an earlier version, which no view uses any more.
drop function if exists _pgstack.collection_list();

create or replace function _pgstack.document_list()
returns table (
  collection text, id bigint, uri text, title text, media_type text, status text, error text,
  language text, bytes bigint, source_bytes bigint, pages integer, ingested_at timestamptz,
  owner name, tenant text
)
language plpgsql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _name text;
  _relation regclass;
begin
  for _name, _relation in select t.name, t.relation from _pgstack.readable_collections() as t loop
    return query execute format(
      'select $1, d.id, d.uri, d.title, d.media_type, d.status, d.error, d.language, d.bytes, '
      'd.source_bytes, d.pages, d.ingested_at, d.owner, d.tenant from %s as d',
      _relation
    ) using _name;
  end loop;
end;
$$;

comment on function _pgstack.document_list() is
'The rows of pgstack.documents.';

create or replace view pgstack.documents
with (security_invoker = true)
as
select * from _pgstack.document_list();

comment on view pgstack.documents is
'The documents of all collections, as far as the caller may read them. Text and metadata are in the tables pgstack_collections.NAME.';
comment on column pgstack.documents.collection is 'Name of its collection.';
comment on column pgstack.documents.id is 'Its key in the collection''s table.';
comment on column pgstack.documents.uri is 'What tells it from others of its tenant: a file:// path, a URL.';
comment on column pgstack.documents.title is 'Its title, given or found in the file.';
comment on column pgstack.documents.media_type is 'Its format, given or found, such as application/pdf.';
comment on column pgstack.documents.status is 'ready; pending: a worker has yet to read the file; failed: it cannot be read, see error. An older text stays meanwhile.';
comment on column pgstack.documents.error is 'Why it could not be read.';
comment on column pgstack.documents.language is 'The language of its text, ISO 639-1; NULL when unsure.';
comment on column pgstack.documents.bytes is 'Its text in UTF-8, in bytes; NULL if there is none yet.';
comment on column pgstack.documents.source_bytes is 'The file, in bytes.';
comment on column pgstack.documents.pages is 'Its pages, where the format has some.';
comment on column pgstack.documents.ingested_at is 'When it was last added or changed.';
comment on column pgstack.documents.owner is 'The role that added it.';
comment on column pgstack.documents.tenant is 'The setting pgstack.tenant of the session that added it; NULL: none.';

create or replace function pgstack.document_parts(collection text, id bigint)
returns table (start_char integer, end_char integer, page integer, headings text[])
language plpgsql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
begin
  -- Who may write to the table may write anything there: what is no part is left out.
  return query execute format(
    $sql$
    select
      (p.part ->> 'start')::integer, (p.part ->> 'end')::integer, (p.part ->> 'page')::integer,
      array(
        select h.heading from jsonb_array_elements_text(
          case when jsonb_typeof(p.part -> 'headings') = 'array' then p.part -> 'headings' else '[]' end
        ) with ordinality as h (heading, nr)
        order by h.nr
      )
    from %s as d
    cross join lateral jsonb_path_query(
      d.parts,
      '$[*] ? (
        @.type() == "object"
        && @.start.type() == "number" && @.start >= 0 && @.start <= 2147483647
        && @.start.floor() == @.start
        && @.end.type() == "number" && @.end >= 0 && @.end <= 2147483647 && @.end.floor() == @.end
        && (!exists(@.page) || @.page == null || @.page.type() == "number"
          && @.page >= 0 && @.page <= 2147483647 && @.page.floor() == @.page)
      )',
      silent => true
    ) with ordinality as p (part, nr)
    where d.id = $1
    order by p.nr
    $sql$,
    _pgstack.collection_table(document_parts.collection)
  ) using document_parts.id;
end;
$$;

comment on function pgstack.document_parts(text, bigint) is
'The map of a document''s text to pages and headings, in order; no rows where none is known.
collection: see pgstack.collections. id: see pgstack.documents. start_char, end_char: characters of the text, from 0, end not included.
page: from 1, NULL where there are none. headings: those above the part, the outermost first.
Raises PS001 unknown collection.';

create or replace function pgstack.retry_documents(collection text, uri text default null)
returns bigint
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _relation regclass := _pgstack.collection_table(retry_documents.collection);
  _queued bigint;
begin
  execute format(
    $sql$
    update %s as d
    set status = 'pending', error = null, worker = null, attempts = 0
    where d.source is not null and case when $1 is null then d.status = 'failed'
      else d.uri = $1 and d.tenant is not distinct from _pgstack.current_tenant() end
    $sql$,
    _relation
  ) using retry_documents.uri;
  get diagnostics _queued = row_count;
  if _queued > 0 then
    perform pg_notify('pgstack_extract', '');
  end if;
  return _queued;
exception
  when insufficient_privilege then
    raise exception '% may not write to collection "%"', current_user, retry_documents.collection
      using errcode = 'PS014',
      hint = format('grant select, update on %s to %I;', _relation, current_user);
end;
$$;

comment on function pgstack.retry_documents(text, text) is
'Has a worker read files once more that are kept in the collection; returns how many.
collection: see pgstack.collections. uri: this document, however it stands, for example after pgstack.set_extraction(); NULL: all that failed.
Files that pgstack ingest read are not kept: run it again.
Raises PS001 unknown collection, PS014 no right to write.';

-- It shows each role its own.
grant select on pgstack.collections, pgstack.documents to public;
