-- Family: vectorizers, how one is made.  Declares them in pgai's catalogue and lets
-- the readers of the source, and nobody else, read the chunks.
-- Callers: people, pgstack/vectorizers.py, collections.
-- Errors: PS001 unknown vectorizer, PS007 bad argument, PS012 name taken,
--         PS013 unsupported, PS014 missing privilege, and those of pgstack.embed().

create or replace function _pgstack.check_source(source regclass, content name[])
returns void
language plpgsql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _class pg_class;
  _missing name;
  _columns text;
begin
  select c.* into _class from pg_class as c where c.oid = check_source.source;
  if _class.relkind not in ('r', 'p') or _class.relpersistence = 't' then
    raise exception '% is not a permanent table', check_source.source
      using errcode = 'PS013', hint = 'Vectorize the table behind it.';
  end if;
  if not pg_has_role(_class.relowner, 'member') then
    raise exception 'only the owner of % may vectorize it', check_source.source
      using errcode = 'PS014',
      hint = format('set role %I;', pg_get_userbyid(_class.relowner));
  end if;
  if not exists (
    select from pg_constraint as k where k.conrelid = check_source.source and k.contype = 'p'
  ) then
    raise exception '% has no primary key', check_source.source
      using errcode = 'PS013',
      hint = format('alter table %s add primary key (...);', check_source.source);
  end if;
  select n.name into _missing
  from unnest(check_source.content) as n (name)
  where n.name is null or not exists (
    select from pg_attribute as a
    where a.attrelid = check_source.source and a.attname = n.name
      and a.attnum > 0 and not a.attisdropped
  );
  if found or cardinality(check_source.content) = 0 then
    select string_agg(quote_ident(a.attname), ', ' order by a.attnum) into _columns
    from pg_attribute as a
    where a.attrelid = check_source.source and a.attnum > 0 and not a.attisdropped;
    raise exception '% has no column "%"', check_source.source, coalesce(_missing, 'NULL')
      using errcode = 'PS007', hint = 'Its columns: ' || _columns;
  end if;
end;
$$;

comment on function _pgstack.check_source(regclass, name[]) is
'Raises PS007, PS013 or PS014 when a table or its columns cannot be vectorized.';

-- Several columns: all but the last stand before every chunk of the last.
create or replace function _pgstack.default_template(content name[])
returns text
language plpgsql immutable
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _odd name;
begin
  select n.name into _odd
  from unnest(trim_array(default_template.content, 1)) as n (name)
  where n.name !~ '^[A-Za-z_][A-Za-z0-9_]*$'
  limit 1;
  if found then
    raise exception 'the column "%" cannot stand before the chunks: its name is no template name', _odd
      using errcode = 'PS013',
      hint = 'Put it last, or name a generated column with letters, digits and _ for it.';
  end if;
  return coalesce(
    (
      select string_agg(format('${%s}', n.name), E'\n' order by n.nr) || E'\n\n'
      from unnest(trim_array(default_template.content, 1)) with ordinality as n (name, nr)
    ),
    ''
  ) || '$chunk';
end;
$$;

comment on function _pgstack.default_template(name[]) is
'The template for several columns: the first ones as a heading of every chunk.';

create or replace function _pgstack.destination_config(
  destination name, embedding_column name, name text
)
returns jsonb
language plpgsql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _view text := coalesce(destination_config.destination, destination_config.name || '_embedding');
begin
  if destination_config.embedding_column is not null then
    return ai.destination_column(destination_config.embedding_column);
  end if;
  -- Beside the view stand <view>_store and <view>_search(); names end after 63 bytes.
  if octet_length(_view) > 56 then
    raise exception 'the name "%" is too long for a view and the table behind it', _view
      using errcode = 'PS007', hint = 'Pass destination => a name of at most 56 bytes.';
  end if;
  return ai.destination_table(_view);
end;
$$;

comment on function _pgstack.destination_config(name, name, text) is
'pgai''s destination configuration: a view and its table, or a column of the source.';

-- pgai takes a column that is there as it is, and writing a vector into one of text works.
create or replace function _pgstack.check_destination(
  source regclass, embedding_column name, dimensions integer
)
returns void
language plpgsql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _wanted text := format('@extschema:vector@.vector(%s)', check_destination.dimensions);
  _found text;
begin
  if check_destination.dimensions not between 1 and 16000 then
    raise exception 'vectors cannot have % dimensions', check_destination.dimensions
      using errcode = 'PS007', hint = 'Leave dimensions out: the model is asked.';
  end if;
  select format_type(a.atttypid, a.atttypmod) into _found
  from pg_attribute as a
  where a.attrelid = check_destination.source and a.attname = check_destination.embedding_column
    and not a.attisdropped
    and not (
      a.atttypid = '@extschema:vector@.vector'::regtype
      and a.atttypmod in (-1, check_destination.dimensions)
    );
  if found then
    raise exception '% has a column "%" already, of type %',
      check_destination.source, check_destination.embedding_column, _found
      using errcode = 'PS013', hint = format('Name another column, or one of type %s.', _wanted);
  end if;
end;
$$;

comment on function _pgstack.check_destination(regclass, name, integer) is
'Raises PS007 or PS013 where no vectors of that length can be written.';

-- pgai wants names of lower-case letters, digits and _, a letter first.
create or replace function _pgstack.vectorizer_name(name text, table_name name)
returns text
language plpgsql immutable
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _slug text := left(
    regexp_replace(lower(coalesce(vectorizer_name.name, table_name)), '[^a-z0-9_]+', '_', 'g'), 60
  );
begin
  if _slug !~ '^[a-z]' then
    _slug := 'v_' || _slug;
  end if;
  if vectorizer_name.name <> _slug then
    raise exception 'a vectorizer cannot be called "%"', vectorizer_name.name
      using errcode = 'PS007',
      hint = format('Lower-case letters, digits and _, at most 60: name => %L.', _slug);
  end if;
  return _slug;
end;
$$;

comment on function _pgstack.vectorizer_name(text, name) is
'The name given, if pgai can take it, or one made from the table''s. Raises PS007.';

-- Whoever may read a source row's key and text may read its chunks, and nobody else, also
-- after later grants and revokes: everybody is let in, and a policy reads the source with
-- the reader's rights.  It names the text columns, so that who may no longer read these
-- cannot read the chunks either.
create or replace function _pgstack.protect_target(plan _pgstack.vectorizer_plan)
returns void
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _view text := format(
    '%I.%I', plan.config -> 'destination' ->> 'view_schema', plan.config -> 'destination' ->> 'view_name'
  );
begin
  execute format('alter view %s set (security_invoker = true)', _view);
  execute format('alter table %s enable row level security', plan.target);
  execute format(
    'create policy pgstack_source on %s for select '
    'using (exists (select %s from %s as r where %s))',
    plan.target,
    (
      select string_agg(format('r.%I', n.name), ', ')
      from unnest(_pgstack.content_columns(plan.config)) as n (name)
    ),
    plan.source,
    (
      select string_agg(format('r.%1$I = %2$s.%1$I', k.name, plan.target), ' and ')
      from unnest(plan.key_columns) as k (name)
    )
  );
  execute format('grant select on %s, %s to public', plan.target, _view);
end;
$$;

comment on function _pgstack.protect_target(_pgstack.vectorizer_plan) is
'Gives chunks the readers of their source rows, row by row.';

-- The worker runs as the owner of pgstack, and must own chunks to read past their policy and to
-- index them.  Who makes a vectorizer keeps his rights on them, as he has all of that role, and gives
-- it none that it could not take: he has just run its functions.
create or replace function _pgstack.hand_over(plan _pgstack.vectorizer_plan)
returns void
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _owner name := _pgstack.owner();
  _destination jsonb := plan.config -> 'destination';
  _schema name := _destination ->> 'target_schema';
  _statement text;
begin
  if _owner = current_user then
    return;
  end if;
  for _statement in
    select format('alter table %s owner to %I', r.name, _owner)
    from (
      values
        (plan.queue), (plan.failed_queue),
        (case when plan.has_table then plan.target end),
        (case when plan.has_table then format(
          '%I.%I', _destination ->> 'view_schema', _destination ->> 'view_name'
        ) end)
    ) as r (name)
    where r.name is not null
    union all
    select format('alter function %I.%I() owner to %I', v.queue_schema, v.trigger_name, _owner)
    from ai.vectorizer as v where v.id = plan.id
  loop
    execute _statement;
  end loop;
exception
  when insufficient_privilege then
    raise exception 'the table of chunks cannot be given to %, the owner of pgstack: %', _owner, sqlerrm
      using errcode = 'PS014',
      hint = case when has_schema_privilege(_owner, _schema, 'create')
        then format('grant %I to %I with set true;', _owner, current_user)
        else format('grant usage, create on schema %I to %I;', _schema, _owner)
      end;
end;
$$;

comment on function _pgstack.hand_over(_pgstack.vectorizer_plan) is
'Gives what belongs to a new vectorizer to the owner of pgstack. Raises PS014 where that role may not create tables.';

create or replace function pgstack.create_vectorizer(
  source regclass,
  content name[],
  name text default null,
  model text default null,
  dimensions integer default null,
  chunking text default 'recursive',
  chunk_size integer default 800,
  chunk_overlap integer default 400,
  template text default null,
  destination name default null,
  embedding_column name default null,
  index text default 'auto',
  enqueue_existing boolean default true,
  if_not_exists boolean default false,
  text_config text default null,
  separators text[] default null,
  is_regex boolean default false,
  keep_separator text default null,
  mask_pii text[] default null
)
returns integer
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _table name;
  _name text;
  _template text;
  _model text := _pgstack.model_name(create_vectorizer.model, 'embedding_model');
  _dimensions integer := create_vectorizer.dimensions;
  _id integer;
  _chunking jsonb;
  _problem text;
begin
  perform _pgstack.check_manager();
  perform _pgstack.require('source', create_vectorizer.source);
  perform _pgstack.check_source(create_vectorizer.source, create_vectorizer.content);
  select c.relname into _table from pg_class as c where c.oid = create_vectorizer.source;
  _name := _pgstack.vectorizer_name(create_vectorizer.name, _table);
  select v.id into _id from ai.vectorizer as v where v.name = _name;
  if found then
    if create_vectorizer.if_not_exists then
      return _id;
    end if;
    raise exception 'there is a vectorizer "%" already', _name
      using errcode = 'PS012', hint = 'Pass another name => ..., or if_not_exists => true.';
  end if;
  _template := coalesce(
    create_vectorizer.template, _pgstack.default_template(create_vectorizer.content)
  );
  perform _pgstack.check_source(
    create_vectorizer.source, _pgstack.template_columns(_template)::name[] || content[1]
  );
  if create_vectorizer.index is null
    or create_vectorizer.index not in ('auto', 'hnsw', 'diskann', 'none')
  then
    raise exception 'index cannot be "%"', create_vectorizer.index
      using errcode = 'PS007', hint = 'Use auto, hnsw, diskann or none.';
  end if;
  perform _pgstack.check_text_config(coalesce(create_vectorizer.text_config, 'simple'));
  if create_vectorizer.embedding_column is not null and create_vectorizer.mask_pii is not null then
    -- What is found would be the text of the source, which is not masked.
    raise exception 'a vectorizer that writes into a column of its source cannot mask'
      using errcode = 'PS013', hint = 'Leave embedding_column out: chunks in a table can be masked.';
  end if;
  _chunking := _pgstack.chunking_config(
    case when create_vectorizer.embedding_column is null
      then create_vectorizer.chunking else 'none' end,
    create_vectorizer.chunk_size, create_vectorizer.chunk_overlap, create_vectorizer.separators,
    create_vectorizer.is_regex, create_vectorizer.keep_separator, create_vectorizer.mask_pii
  );
  _dimensions := coalesce(
    create_vectorizer.dimensions,
    @extschema:vector@.vector_dims(pgstack.embed('How long are your vectors?', _model, 'document'))
  );
  perform _pgstack.check_destination(
    create_vectorizer.source, create_vectorizer.embedding_column, _dimensions
  );
  begin
    _id := ai.create_vectorizer(
      create_vectorizer.source,
      name => _name,
      loading => ai.loading_column(content[cardinality(content)]),
      embedding => ai.embedding_ollama(_model, _dimensions),
      chunking => case when _chunking ->> 'implementation' = 'pgstack'
        then ai.chunking_none() else _chunking end,
      formatting => ai.formatting_python_template(_template),
      destination => _pgstack.destination_config(
        create_vectorizer.destination, create_vectorizer.embedding_column,
        coalesce(create_vectorizer.name, _table)
      ),
      indexing => ai.indexing_none(),
      scheduling => ai.scheduling_none(),
      enqueue_existing => create_vectorizer.enqueue_existing
    );
  exception
    when duplicate_object or duplicate_table then
      raise exception '%', sqlerrm
        using errcode = 'PS012', hint = 'Pass destination => another name for the view of the embeddings.';
    when duplicate_column or raise_exception then
      raise exception 'pgai refuses: %', sqlerrm
        using errcode = 'PS013', hint = 'select pgstack.create_vectorizer(''my_table'', ''my_column'');';
  end;
  if _chunking ->> 'implementation' = 'pgstack' then
    -- pgai would have refused it.
    update ai.vectorizer as v set config = v.config || jsonb_build_object('chunking', _chunking)
    where v.id = _id;
  end if;
  _problem := _pgstack.vectorizer_problem(_pgstack.vectorizer_plan(_id));
  if _problem is not null then
    raise exception '% cannot be vectorized: %', create_vectorizer.source, _problem
      using errcode = 'PS013', hint = 'Change what it names, and try again.';
  end if;
  perform _pgstack.hand_over(_pgstack.vectorizer_plan(_id));
  perform _pgstack.prepare_vectorizer(_id, adopt => true);
  update _pgstack.vectorizer as v
  set
    index_method = create_vectorizer.index,
    text_config = coalesce(create_vectorizer.text_config, _pgstack.setting_value('text_config'))
  where v.vectorizer_id = _id;
  if create_vectorizer.embedding_column is null then
    perform _pgstack.protect_target(_pgstack.vectorizer_plan(_id));
  end if;
  perform pgstack.create_search_function(_name);
  -- Existing rows were queued before the queue could wake anybody.
  perform pg_notify('pgstack_work', '');
  return _id;
end;
$$;

comment on function pgstack.create_vectorizer(
  regclass, name[], text, text, integer, text, integer, integer, text, name, name, text, boolean, boolean,
  text, text[], boolean, text, text[]
) is
'Keeps embeddings of a table''s text in sync from now on; returns the vectorizer''s id in ai.vectorizer.
source: a table with a primary key, of which the caller is the owner. content: its text columns; the last is cut into chunks, the others stand before every chunk.
name: lower-case letters, digits and _; default: made from the table''s, by which it is found as well. model: default the setting embedding_model. dimensions: default: the model is asked, which needs a worker.
chunking, chunk_size, chunk_overlap, separators, is_regex, keep_separator: as method, size ... of pgstack.chunk(). template: what is embedded, $chunk and $column filled in.
destination: the view that joins chunks and source, default <name or table>_embedding; its table is <destination>_store, its search function <destination>_search (pgstack.create_search_function() tells of it). embedding_column: instead of a table, a column of the source (no chunking then).
index: auto (the setting index_method), hnsw, diskann or none; built by the worker once there are index_min_rows chunks.
enqueue_existing: embed the rows that are there. if_not_exists: return the id of a vectorizer of that name.
text_config: the language of the text for searches by words: english, german, simple ...; default the setting text_config.
mask_pii: types of personal data that pgstack.mask_pii() is to mask before the text is cut, array[''all''] for those it masks by default; default none. Then what is embedded, stored as chunk, searched by words and sent to models is masked; offsets are those of the source. Not with embedding_column.
Raises PS007 bad argument, PS012 name taken, PS013 unsupported table, PS014 not the owner of the table and of pgstack, or the owner of pgstack, to whom chunks belong, may not create tables in that schema, and what pgstack.embed() raises.';

create or replace function pgstack.create_vectorizer(
  source regclass,
  content name,
  name text default null,
  model text default null,
  dimensions integer default null,
  chunking text default 'recursive',
  chunk_size integer default 800,
  chunk_overlap integer default 400,
  template text default null,
  destination name default null,
  embedding_column name default null,
  index text default 'auto',
  enqueue_existing boolean default true,
  if_not_exists boolean default false,
  text_config text default null,
  separators text[] default null,
  is_regex boolean default false,
  keep_separator text default null,
  mask_pii text[] default null
)
returns integer
language sql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
  select pgstack.create_vectorizer(
    source, array[content], name, model, dimensions, chunking, chunk_size, chunk_overlap,
    template, destination, embedding_column, index, enqueue_existing, if_not_exists, text_config,
    separators, is_regex, keep_separator, mask_pii
  );
$$;

comment on function pgstack.create_vectorizer(
  regclass, name, text, text, integer, text, integer, integer, text, name, name, text, boolean, boolean,
  text, text[], boolean, text, text[]
) is
'Keeps embeddings of one text column in sync from now on; returns the vectorizer''s id in ai.vectorizer.
Arguments and errors: as for the form that takes an array of columns.';
