-- Family: collections.  Tables of ingested documents, one a collection, in schema
-- pgstack_collections; each has a vectorizer.
-- Callers: people in psql, pgstack/ingest.py.
-- Errors: PS001 unknown collection, PS007 wrong argument, PS012 name taken, PS014 missing privilege.

-- A schema of that name that somebody else made is not trusted with people's documents.
do $$
begin
  if to_regnamespace('pgstack_collections') is null then
    create schema pgstack_collections;
  elsif (
    select count(distinct n.nspowner) from pg_catalog.pg_namespace as n
    where n.nspname in ('_pgstack', 'pgstack_collections')
  ) > 1 then
    raise exception 'the schema pgstack_collections has another owner than the schema _pgstack'
      using errcode = 'PS012',
      hint = 'Rename it, or: alter schema pgstack_collections owner to the owner of _pgstack.';
  end if;
end;
$$;

comment on schema pgstack_collections is
'Ingested documents: one table a collection. Made and filled by pgstack.create_collection() and ingest_document().';

-- Each table's own privileges say who may read it.
grant usage on schema pgstack_collections to public;

-- A table in the schema is a collection if it has a collection's columns.
create or replace function _pgstack.collection_tables()
returns table (name text, relation regclass)
language sql stable parallel safe
security invoker
set search_path = pg_catalog, pg_temp
as $$
  select c.relname::text, c.oid::regclass
  from pg_class as c
  join pg_attribute as a on a.attrelid = c.oid and not a.attisdropped
  where c.relnamespace = to_regnamespace('pgstack_collections')
    and c.relkind = 'r'
    and a.attname in ('uri', 'content', 'content_hash', 'ingested_at')
  group by c.oid, c.relname
  having count(*) = 4;
$$;

comment on function _pgstack.collection_tables() is
'The tables that are collections, whoever may read them.';

create or replace function _pgstack.collection_table(name text)
returns regclass
language plpgsql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _relation regclass;
  _known text;
begin
  select t.relation into _relation
  from _pgstack.collection_tables() as t
  where t.name = collection_table.name;
  if found then
    return _relation;
  end if;
  select string_agg(quote_literal(k.name), ', ' order by k.name) into _known
  from (select t.name from _pgstack.collection_tables() as t order by t.name limit 10) as k;
  raise exception 'there is no collection "%"', coalesce(collection_table.name, 'NULL')
    using errcode = 'PS001',
    hint = coalesce('Known: ' || _known || '. ', '')
      || format('New: select pgstack.create_collection(%L);', coalesce(collection_table.name, 'docs'));
end;
$$;

comment on function _pgstack.collection_table(text) is
'The table of a collection. Raises PS001 and lists the collections there are.';

-- pgai wants vectorizer names of lower-case letters, digits and _, and a view's name
-- short enough for "_store" behind it.  Other names get a digest, so that no two meet.
create or replace function _pgstack.collection_slug(name text)
returns text
language sql immutable strict parallel safe
security invoker
set search_path = pg_catalog, pg_temp
as $$
  select
    case
      when name ~ '^[a-z][a-z0-9_]{0,39}$' then name
      else concat_ws(
        '_',
        'c',
        left(nullif(regexp_replace(lower(name), '[^a-z0-9]+', '_', 'g'), '_'), 29),
        left(encode(sha256(convert_to(name, 'UTF8')), 'hex'), 8)
      )
    end;
$$;

comment on function _pgstack.collection_slug(text) is
'The name of a collection''s vectorizer: its own name where pgai can take it.';

create or replace function pgstack.create_collection(
  name text,
  model text default null,
  if_not_exists boolean default true,
  dimensions integer default null
)
returns regclass
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _slug text := _pgstack.collection_slug(create_collection.name);
  _relation regclass;
begin
  perform _pgstack.require('name', create_collection.name);
  if create_collection.name = '' or octet_length(create_collection.name) > 63 then
    raise exception 'a collection cannot be called "%"', create_collection.name
      using errcode = 'PS007', hint = 'Pass a name of 1 to 63 bytes.';
  end if;
  -- Two at once: the second finds what the first made.
  perform pg_advisory_xact_lock(
    hashtextextended('pgstack_collections.' || create_collection.name, 0)
  );
  select t.relation into _relation
  from _pgstack.collection_tables() as t
  where t.name = create_collection.name;
  if found and create_collection.if_not_exists then
    return _relation;
  elsif found then
    raise exception 'there is a collection "%" already', create_collection.name
      using errcode = 'PS012', hint = 'Pass if_not_exists => true to use it, or another name.';
  end if;
  if exists (
    select from pg_class as c
    where c.relnamespace = to_regnamespace('pgstack_collections')
      and c.relname = create_collection.name
  ) then
    raise exception 'pgstack_collections.% exists and is no collection', create_collection.name
      using errcode = 'PS012', hint = 'Choose another name for the collection.';
  end if;
  if exists (select from ai.vectorizer as v where v.name = _slug) then
    raise exception 'there is a vectorizer "%", so a collection cannot be called that', _slug
      using errcode = 'PS012', hint = 'Choose another name for the collection.';
  end if;
  if not has_schema_privilege('pgstack_collections', 'create') then
    raise exception '% may not create collections', current_user
      using errcode = 'PS014',
      hint = format('As the owner of pgstack: grant create on schema pgstack_collections to %I;', current_user);
  end if;

  execute format(
    $sql$
    create table pgstack_collections.%I (
      id bigint generated always as identity primary key,
      uri text not null unique,
      title text,
      media_type text,
      content text not null,
      content_hash bytea not null,
      bytes bigint,
      metadata jsonb not null default '{}',
      ingested_at timestamptz not null default now()
    )
    $sql$,
    create_collection.name
  );
  _relation := format('pgstack_collections.%I', create_collection.name)::regclass;
  execute format(
    'comment on table %s is %L', _relation, 'Documents ingested by pgstack; see pgstack.collections.'
  );
  perform pgstack.create_vectorizer(
    source => _relation,
    content => 'content'::name,
    name => _slug,
    model => create_collection.model,
    dimensions => create_collection.dimensions,
    destination => (_slug || '_embedding')::name
  );
  return _relation;
end;
$$;

comment on function pgstack.create_collection(text, text, boolean, integer) is
'Makes a collection for documents: a table in schema pgstack_collections and a vectorizer on it. Returns the table.
name: 1 to 63 bytes, any characters. The vectorizer has the same name, or, where pgai cannot take that, one made from it;
pgstack.search() and ask() find it by either. model: embedding model, null: the setting embedding_model.
if_not_exists: return the table of a collection of that name, as it is; false: raise PS012.
dimensions: length of the model''s vectors; null: the model is asked, which needs a worker.
Raises PS007 bad name, PS012 name taken, PS014 no right to create, and what pgstack.create_vectorizer() raises.';

create or replace function pgstack.ingest_document(
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
declare
  _relation regclass := _pgstack.collection_table(ingest_document.collection);
  _metadata jsonb := coalesce(ingest_document.metadata, '{}');
  _outcome text;
begin
  perform _pgstack.require('content', ingest_document.content);
  if coalesce(ingest_document.uri, '') = '' then
    raise exception 'a document needs a uri'
      using errcode = 'PS007', hint = 'Pass what tells it from others: uri => ''file:///path'' or a URL.';
  elsif jsonb_typeof(_metadata) <> 'object' then
    raise exception 'metadata must be an object, not %', jsonb_typeof(_metadata)
      using errcode = 'PS007', hint = 'Pass metadata => ''{"key": "value"}''.';
  end if;
  execute format(
    $sql$
    insert into %s as d (uri, title, media_type, content, content_hash, bytes, metadata)
    values ($1, $2, $3, $4, sha256(convert_to($4, 'UTF8')), octet_length($4), $5)
    on conflict (uri) do update
    set title = excluded.title, media_type = excluded.media_type, content = excluded.content,
      content_hash = excluded.content_hash, bytes = excluded.bytes, metadata = excluded.metadata,
      ingested_at = now()
    where (d.content_hash, d.title, d.media_type, d.metadata)
      is distinct from (excluded.content_hash, excluded.title, excluded.media_type, excluded.metadata)
    -- Only a row that was there before has been locked.
    returning case when d.xmax = 0 then 'inserted' else 'updated' end
    $sql$,
    _relation
  )
  into _outcome
  using ingest_document.uri, ingest_document.title, ingest_document.media_type,
    ingest_document.content, _metadata;
  return coalesce(_outcome, 'unchanged');
exception
  when insufficient_privilege then
    raise exception '% may not write to collection "%"', current_user, ingest_document.collection
      using errcode = 'PS014',
      hint = format('grant select, insert, update, delete on %s to %I;', _relation, current_user);
end;
$$;

comment on function pgstack.ingest_document(text, text, text, text, text, jsonb) is
'Puts one document into a collection, or its new version in the place of the old: ''inserted'', ''updated'' or ''unchanged''.
collection: see pgstack.collections. uri: what tells the document from others, for example file:///path or a URL.
content: its text. title, media_type, metadata (an object): kept beside it. A document is unchanged if all of these are;
its embeddings are then left alone. Concurrent calls for one uri take turns.
Raises PS001 unknown collection, PS007 no uri, no content or bad metadata, PS014 no right to write.';

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
  execute format('delete from %s as d where d.uri = $1', _relation) using remove_document.uri;
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
'Removes one document, its embeddings follow. Returns false if the collection has none with that uri.
Raises PS001 unknown collection, PS014 no right to delete.';

create or replace function pgstack.drop_collection(name text)
returns void
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _relation regclass := _pgstack.collection_table(drop_collection.name);
  _vectorizer text;
begin
  if not exists (
    select from pg_class as c
    where c.oid = _relation and pg_has_role(c.relowner, 'usage')
  ) then
    raise exception 'collection "%" belongs to another role', drop_collection.name
      using errcode = 'PS014',
      hint = format('As its owner: select pgstack.drop_collection(%L);', drop_collection.name);
  end if;
  for _vectorizer in
    select v.name from ai.vectorizer as v
    where v.source_schema = 'pgstack_collections' and v.source_table = drop_collection.name
  loop
    perform pgstack.drop_vectorizer(_vectorizer, true);
  end loop;
  execute format('drop table %s', _relation);
end;
$$;

comment on function pgstack.drop_collection(text) is
'Drops a collection: its documents, its vectorizer and the embeddings. Raises PS001 unknown collection, PS014 not the owner.';

create or replace function _pgstack.collection_uris(collection text, prefix text)
returns setof text
language plpgsql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
begin
  return query execute format(
    'select d.uri from %s as d where starts_with(d.uri, $1) order by d.uri',
    _pgstack.collection_table(collection_uris.collection)
  ) using collection_uris.prefix;
end;
$$;

comment on function _pgstack.collection_uris(text, text) is
'The documents of a collection whose uri begins with prefix.';

create or replace function _pgstack.collection_list()
returns table (name text, documents bigint, bytes bigint, last_ingested timestamptz)
language plpgsql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _relation regclass;
begin
  for name, _relation in
    select t.name, t.relation
    from _pgstack.collection_tables() as t
    where has_table_privilege(t.relation, 'select')
      and has_schema_privilege('pgstack_collections', 'usage')
    order by t.name
  loop
    execute format(
      'select count(*), coalesce(sum(d.bytes), 0)::bigint, max(d.ingested_at) from %s as d', _relation
    ) into documents, bytes, last_ingested;
    return next;
  end loop;
end;
$$;

comment on function _pgstack.collection_list() is
'The collections that the caller may read, counted.';

create or replace view pgstack.collections
with (security_invoker = true)
as
select
  c.name,
  c.documents,
  c.bytes,
  c.last_ingested
from _pgstack.collection_list() as c;

comment on view pgstack.collections is
'The collections of ingested documents that the caller may read. Their tables are pgstack_collections.NAME.';
comment on column pgstack.collections.name is 'Name of the collection and of its table.';
comment on column pgstack.collections.documents is 'Documents in it.';
comment on column pgstack.collections.bytes is 'Their text in UTF-8, in bytes.';
comment on column pgstack.collections.last_ingested is 'When one was last added or changed; NULL if there is none.';

-- It shows each role its own.
grant select on pgstack.collections to public;
