-- Family: collections.  Tables of ingested documents, one a collection, in schema
-- pgstack_collections; each has a vectorizer.  Files 502 to 508 put documents in, list them
-- and have the worker read files.  docs/adr/0012-documents.md: why a table each.
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
'Ingested documents: one table a collection. Made and filled by pgstack.create_collection(), ingest_text() and ingest_bytes().';

-- Each table's own privileges say who may read it.
grant usage on schema pgstack_collections to public;

-- Only what create_collection() made: whoever may create tables in the schema does not thereby
-- have the worker read and write one of his.
create or replace function _pgstack.collection_tables()
returns table (name text, relation regclass)
language sql stable parallel safe
security invoker
set search_path = pg_catalog, pg_temp
as $$
  select c.relname::text, c.oid::regclass
  from _pgstack.collection as k
  join pg_class as c on c.oid = k.relation
  where c.relnamespace = to_regnamespace('pgstack_collections') and c.relkind = 'r';
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

create or replace function _pgstack.check_extraction(extraction jsonb)
returns void
language plpgsql immutable
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _odd text;
begin
  if jsonb_typeof(check_extraction.extraction) is distinct from 'object' then
    raise exception 'extraction must be an object, not %',
      coalesce(jsonb_typeof(check_extraction.extraction), 'NULL')
      using errcode = 'PS007', hint = 'Pass extraction => ''{"ocr": "eng+deu"}''.';
  end if;
  select e.key into _odd
  from jsonb_each(check_extraction.extraction) as e
  where case e.key
    when 'ocr' then jsonb_typeof(e.value) = 'string'
      and e.value #>> '{}' ~ '^([A-Za-z0-9_]{1,40}(\+[A-Za-z0-9_]{1,40}){0,20})?$'
    when 'keep_boilerplate' then jsonb_typeof(e.value) = 'boolean'
    when 'extractor' then e.value in ('"builtin"', '"tika"')
    else false
  end is not true
  limit 1;
  if found then
    raise exception 'extraction cannot have "%": %',
      _odd, left(check_extraction.extraction ->> _odd, 100)
      using errcode = 'PS007',
      hint = 'It may have ocr: "eng+deu" or "", keep_boilerplate: true or false, extractor: "builtin" or "tika".';
  end if;
end;
$$;

comment on function _pgstack.check_extraction(jsonb) is
'Raises PS007 for options of extraction that there are not.';

-- How a collection's table is made; revision 0007 brings older ones to the same columns.
-- Uris are each tenant's own: nobody learns, or overwrites, what another has under the same one.
create or replace function _pgstack.create_collection_table(name text)
returns regclass
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _relation regclass;
begin
  execute format(
    $sql$
    create table pgstack_collections.%I (
      id bigint generated always as identity primary key,
      uri text not null,
      title text,
      media_type text,
      content text,
      content_hash bytea,
      bytes bigint,
      metadata jsonb not null default '{}',
      ingested_at timestamptz not null default now(),
      source bytea,
      source_hash bytea,
      source_bytes bigint,
      source_modified timestamptz,
      parts jsonb,
      pages integer,
      language text,
      owner name default current_user,
      tenant text default nullif(current_setting('pgstack.tenant', true), ''),
      titled boolean not null default false,
      status text not null default 'ready' check (status in ('ready', 'pending', 'failed')),
      error text,
      worker uuid,
      attempts integer not null default 0,
      unique nulls not distinct (uri, tenant),
      check (status <> 'ready' or content is not null),
      check (status <> 'pending' or source is not null)
    )
    $sql$,
    create_collection_table.name
  );
  _relation := format('pgstack_collections.%I', create_collection_table.name)::regclass;
  execute format('create index on %s (attempts, id) where status = ''pending''', _relation);
  execute format(
    'comment on table %s is %L', _relation, 'Documents ingested by pgstack; see pgstack.documents.'
  );
  -- Workers run as the owner of pgstack, and write there whatever policies it gets.
  if _pgstack.owner() <> current_user then
    execute format('alter table %s owner to %I', _relation, _pgstack.owner());
  end if;
  delete from _pgstack.collection as k
  where not exists (select from pg_class as c where c.oid = k.relation);
  insert into _pgstack.collection (relation) values (_relation);
  return _relation;
end;
$$;

comment on function _pgstack.create_collection_table(text) is
'Makes and registers the table of a collection.';

create or replace function pgstack.create_collection(
  name text,
  model text default null,
  if_not_exists boolean default true,
  dimensions integer default null,
  chunking text default 'recursive',
  chunk_size integer default 800,
  chunk_overlap integer default 400,
  mask_pii text[] default null,
  extraction jsonb default '{}'
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
  perform _pgstack.check_extraction(create_collection.extraction);
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
  perform _pgstack.check_manager();
  _relation := _pgstack.create_collection_table(create_collection.name);
  update _pgstack.collection as k
  set extraction = create_collection.extraction
  where k.relation = _relation;
  perform pgstack.create_vectorizer(
    source => _relation,
    content => 'content'::name,
    name => _slug,
    model => create_collection.model,
    dimensions => create_collection.dimensions,
    chunking => create_collection.chunking,
    chunk_size => create_collection.chunk_size,
    chunk_overlap => create_collection.chunk_overlap,
    destination => (_slug || '_embedding')::name,
    mask_pii => create_collection.mask_pii
  );
  return _relation;
end;
$$;

comment on function pgstack.create_collection(
  text, text, boolean, integer, text, integer, integer, text[], jsonb
) is
'Makes a collection for documents: a table in schema pgstack_collections and a vectorizer on it. Returns the table.
name: 1 to 63 bytes, any characters. The vectorizer has the same name, or, where pgai cannot take that, one made from it;
pgstack.search() and ask() find it by either. model: embedding model, null: the setting embedding_model.
if_not_exists: return the table of a collection of that name, as it is; false: raise PS012.
dimensions: length of the model''s vectors; null: the model is asked, which needs a worker.
chunking, chunk_size and chunk_overlap (characters), mask_pii: as for pgstack.create_vectorizer().
extraction: how the worker reads files: {"ocr": "eng+deu", "keep_boilerplate": true, "extractor": "tika"};
ocr: Tesseract''s languages for images, "" for none, default "eng"; keep_boilerplate: leave menus and footers in web pages;
extractor: "tika" for the Apache Tika server of the setting tika_url. pgstack.set_extraction() changes it.
Raises PS007 bad name or option, PS012 name taken, PS014 no right to create, and what pgstack.create_vectorizer() raises.';

create or replace function pgstack.set_extraction(collection text, extraction jsonb)
returns void
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _relation regclass := _pgstack.collection_table(set_extraction.collection);
begin
  perform _pgstack.check_extraction(set_extraction.extraction);
  perform _pgstack.check_manager();
  update _pgstack.collection as k
  set extraction = set_extraction.extraction
  where k.relation = _relation;
end;
$$;

comment on function pgstack.set_extraction(text, jsonb) is
'Changes how the worker reads files of a collection from now on; see pgstack.create_collection() for the options.
Documents that are there stay as they are: pgstack.retry_documents() has those read again whose files are kept.
Raises PS001 unknown collection, PS007 unknown option, PS014 not the owner of pgstack.';

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
  delete from _pgstack.collection as k where k.relation = _relation;
end;
$$;

comment on function pgstack.drop_collection(text) is
'Drops a collection: its documents, its vectorizer and the embeddings. Raises PS001 unknown collection, PS014 not the owner.';
