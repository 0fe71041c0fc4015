-- Family: pgai's vectorizers, mended and in their older spelling.
-- pgai's script made schema ai; what is here is put over or beside it.
-- Callers: people who write pgai's SQL.
-- Errors: pgai's own.

-- pgai 0.12.1 does not quote key columns in the view's join condition, so a table whose
-- key has a capital letter cannot be vectorized.  Same name, arguments and view.
create or replace function ai._vectorizer_create_view(
  view_schema name,
  view_name name,
  source_schema name,
  source_table name,
  source_pk jsonb,
  target_schema name,
  target_table name,
  grant_to name[]
)
returns void
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _grantees text;
begin
  execute (
    select format(
      'create view %I.%I as '
      'select t.embedding_uuid, t.chunk_seq, t.chunk, t.embedding, %s '
      'from %I.%I as t left join %I.%I as s on %s',
      view_schema, view_name,
      -- Keys from the target, so that the join is left out where only they are read.
      string_agg(
        format('%s.%I', case when k.attnum is null then 's' else 't' end, a.attname),
        ', ' order by a.attnum
      ),
      target_schema, target_table, source_schema, source_table,
      string_agg(format('t.%1$I = s.%1$I', k.attname), ' and ' order by k.pknum)
        filter (where k.attnum is not null)
    )
    from pg_attribute as a
    left join jsonb_to_recordset(source_pk) as k (attnum integer, attname name, pknum integer)
      on k.attnum = a.attnum
    where a.attrelid = format('%I.%I', source_schema, source_table)::regclass
      and a.attnum > 0 and not a.attisdropped
  );
  select string_agg(quote_ident(g.role), ', ') into _grantees from unnest(grant_to) as g (role);
  if _grantees is not null then
    execute format('grant usage on schema %I to %s', view_schema, _grantees);
    execute format('grant select on %I.%I to %s', view_schema, view_name, _grantees);
  end if;
end;
$$;

-- The spelling of December 2024: the chunking names the column, the destination is a name.

create or replace function ai.chunking_recursive_character_text_splitter(
  chunk_column text,
  chunk_size integer default 800,
  chunk_overlap integer default 400,
  separators text[] default array[E'\n\n', E'\n', '.', '?', '!', ' ', ''],
  is_separator_regex boolean default false
)
returns jsonb
language sql immutable
security invoker
set search_path = pg_catalog, pg_temp
as $$
  select ai.chunking_recursive_character_text_splitter(
    chunk_size, chunk_overlap, separators, is_separator_regex
  ) || jsonb_build_object('chunk_column', chunk_column);
$$;

comment on function ai.chunking_recursive_character_text_splitter(text, integer, integer, text[], boolean) is
'pgai''s older spelling: chunking that names the column to load. Kept by pgstack; today: loading => ai.loading_column(...).';

create or replace function ai.chunking_character_text_splitter(
  chunk_column text,
  chunk_size integer default 800,
  chunk_overlap integer default 400,
  separator text default E'\n\n',
  is_separator_regex boolean default false
)
returns jsonb
language sql immutable
security invoker
set search_path = pg_catalog, pg_temp
as $$
  select ai.chunking_character_text_splitter(
    chunk_size, chunk_overlap, separator, is_separator_regex
  ) || jsonb_build_object('chunk_column', chunk_column);
$$;

comment on function ai.chunking_character_text_splitter(text, integer, integer, text, boolean) is
'pgai''s older spelling: chunking that names the column to load. Kept by pgstack; today: loading => ai.loading_column(...).';

-- destination has no default: calls that leave it out go to pgai's own function.
create or replace function ai.create_vectorizer(
  source regclass,
  destination text,
  embedding jsonb,
  chunking jsonb,
  indexing jsonb default ai.indexing_default(),
  formatting jsonb default ai.formatting_python_template(),
  scheduling jsonb default ai.scheduling_default(),
  processing jsonb default ai.processing_default(),
  target_schema name default null,
  target_table name default null,
  view_schema name default null,
  view_name name default null,
  queue_schema name default null,
  queue_table name default null,
  grant_to name[] default ai.grant_to(),
  enqueue_existing boolean default true
)
returns integer
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
begin
  if create_vectorizer.chunking ->> 'chunk_column' is null then
    raise exception 'chunking names no column to load'
      using errcode = 'PS007',
      hint = 'chunking => ai.chunking_recursive_character_text_splitter(''column''), or '
        'loading => ai.loading_column(''column'') with destination => ai.destination_table(''name'').';
  end if;
  return ai.create_vectorizer(
    create_vectorizer.source,
    destination => ai.destination_table(
      create_vectorizer.destination::name, target_schema, target_table, view_schema, view_name
    ),
    loading => ai.loading_column((create_vectorizer.chunking ->> 'chunk_column')::name),
    embedding => create_vectorizer.embedding,
    chunking => create_vectorizer.chunking - 'chunk_column',
    indexing => create_vectorizer.indexing,
    formatting => create_vectorizer.formatting,
    scheduling => create_vectorizer.scheduling,
    processing => create_vectorizer.processing,
    queue_schema => create_vectorizer.queue_schema,
    queue_table => create_vectorizer.queue_table,
    grant_to => create_vectorizer.grant_to,
    enqueue_existing => create_vectorizer.enqueue_existing
  );
end;
$$;

comment on function ai.create_vectorizer(
  regclass, text, jsonb, jsonb, jsonb, jsonb, jsonb, jsonb, name, name, name, name, name, name, name[], boolean
) is
'pgai''s older spelling: a destination name, and the column named in chunking. Kept by pgstack.';
