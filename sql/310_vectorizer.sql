-- Family: vectorizers, the DBA's verbs.  Declares them in pgai's catalogue and adds what
-- pgai lacks: row-level security, offsets, wake-up, and a way to forget deleted rows.
-- Callers: people, pgstack/vectorizers.py, collections.
-- Errors: PS001 unknown vectorizer, PS007 bad argument, PS012 name taken,
--         PS013 unsupported, PS014 missing privilege, and those of pgstack.embed().

-- ------------------------------------------------------------------------ triggers

-- On every queue table: wakes the workers when the writing transaction commits.
create or replace function _pgstack.notify_work()
returns trigger
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
begin
  perform pg_notify('pgstack_work', '');
  return null;
end;
$$;

comment on function _pgstack.notify_work() is
'Trigger of queue tables: wakes the workers.';

-- pgai's own trigger deletes a row's chunks when the row is deleted or gets another key,
-- but sees only chunks that its transaction's snapshot shows: one that began under
-- REPEATABLE READ before a worker wrote them leaves them behind.  So the old key is
-- queued as well, and the worker, which looks later, clears what is left.
-- The function belongs to the source's owner, like pgai's: writers of the source need
-- no right on the queue.  It outlives a plain ai.drop_vectorizer(), hence to_regclass().
create or replace function _pgstack.create_forget_triggers(plan _pgstack.vectorizer_plan)
returns void
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _function text := format('ai.%I', '_pgstack_forget_' || plan.id);
  _old_key text;
  _changed text;
begin
  select
    string_agg(format('old.%I', k.name), ', '),
    string_agg(format('old.%1$I is distinct from new.%1$I', k.name), ' or ')
  into _old_key, _changed
  from unnest(plan.key_columns) as k (name);
  execute format(
    $sql$
    create or replace function %s() returns trigger
    language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
    as $body$
    begin
      if to_regclass(%L) is not null then
        insert into %s (%s) values (%s);
      end if;
      return null;
    end;
    $body$
    $sql$,
    _function, plan.queue, plan.queue, plan.key_list, _old_key
  );
  execute format('revoke all on function %s() from public', _function);
  if not exists (
    select from pg_trigger as t
    where t.tgrelid = plan.source::regclass and t.tgname = '_pgstack_forget_' || plan.id
  ) then
    execute format(
      'create trigger %I after delete on %s for each row execute function %s()',
      '_pgstack_forget_' || plan.id, plan.source, _function
    );
    execute format(
      'create trigger %I after update of %s on %s for each row when (%s) execute function %s()',
      '_pgstack_rekey_' || plan.id, plan.key_list, plan.source, _changed, _function
    );
  end if;
end;
$$;

comment on function _pgstack.create_forget_triggers(_pgstack.vectorizer_plan) is
'Triggers on a source table that queue the keys of deleted and re-keyed rows.';

create or replace function _pgstack.drop_forget_triggers(id integer, source text)
returns void
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
begin
  if to_regclass(drop_forget_triggers.source) is not null then
    execute format('drop trigger if exists %I on %s', '_pgstack_forget_' || id, source);
    execute format('drop trigger if exists %I on %s', '_pgstack_rekey_' || id, source);
  end if;
  execute format('drop function if exists ai.%I()', '_pgstack_forget_' || id);
end;
$$;

comment on function _pgstack.drop_forget_triggers(integer, text) is
'Takes the triggers of a vectorizer off its source table.';

-- Gives a vectorizer, ours or made with plain ai.create_vectorizer(), what the worker
-- relies on.  Safe to repeat.
create or replace function _pgstack.prepare_vectorizer(id integer)
returns void
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _plan _pgstack.vectorizer_plan := _pgstack.vectorizer_plan(prepare_vectorizer.id);
begin
  if not exists (
    select from pg_trigger as t
    where t.tgrelid = _plan.queue::regclass and t.tgname = '_pgstack_notify'
  ) then
    execute format(
      'create trigger _pgstack_notify after insert on %s '
      'for each statement execute function _pgstack.notify_work()',
      _plan.queue
    );
  end if;
  if _plan.has_table then
    execute format(
      'alter table %s add column if not exists start_char integer, '
      'add column if not exists end_char integer',
      _plan.target
    );
    perform _pgstack.create_forget_triggers(_plan);
  end if;
  insert into _pgstack.vectorizer as v (vectorizer_id, prepared_at)
  values (_plan.id, now())
  on conflict on constraint vectorizer_pkey do update set prepared_at = excluded.prepared_at;
end;
$$;

comment on function _pgstack.prepare_vectorizer(integer) is
'Adds to a vectorizer the wake-up trigger, the offset columns and the triggers that forget deleted rows.';

-- -------------------------------------------------------------------------- create

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

create or replace function _pgstack.chunking_config(
  method text, size integer, overlap integer
)
returns jsonb
language plpgsql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
begin
  -- Raises for a size or overlap that cannot be.
  perform from pgstack.chunk('-', method, size, overlap);
  return case method
    when 'none' then ai.chunking_none()
    when 'character' then ai.chunking_character_text_splitter(size, overlap)
    else ai.chunking_recursive_character_text_splitter(size, overlap)
  end;
end;
$$;

comment on function _pgstack.chunking_config(text, integer, integer) is
'pgai''s chunking configuration for a method of pgstack.chunk().';

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
  -- pgai calls the table behind the view <view>_store; names end after 63 bytes.
  if octet_length(_view) > 57 then
    raise exception 'the name "%" is too long for a view and the table behind it', _view
      using errcode = 'PS007', hint = 'Pass destination => a name of at most 57 bytes.';
  end if;
  return ai.destination_table(_view);
end;
$$;

comment on function _pgstack.destination_config(name, name, text) is
'pgai''s destination configuration: a view and its table, or a column of the source.';

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

-- Whoever may read a whole source row may read its chunks, and nobody else: the same
-- grants, and a policy that shows a chunk only beside a source row one can see.
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
  _reader text;
begin
  execute format('alter view %s set (security_invoker = true)', _view);
  execute format('alter table %s enable row level security', plan.target);
  execute format(
    'create policy pgstack_source on %s for select using (exists (select from %s as r where %s))',
    plan.target, plan.source,
    (
      select string_agg(format('r.%1$I = %2$s.%1$I', k.name, plan.target), ' and ')
      from unnest(plan.key_columns) as k (name)
    )
  );
  for _reader in
    select distinct case when a.grantee = 0 then 'public' else a.grantee::regrole::text end
    from pg_class as c
    cross join lateral aclexplode(c.relacl) as a
    where c.oid = plan.source::regclass and a.privilege_type = 'SELECT' and a.grantee <> c.relowner
  loop
    execute format('grant select on %s, %s to %s', plan.target, _view, _reader);
  end loop;
end;
$$;

comment on function _pgstack.protect_target(_pgstack.vectorizer_plan) is
'Gives chunks the readers of their source rows, row by row.';

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
  if_not_exists boolean default false
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
begin
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
  if create_vectorizer.index not in ('auto', 'hnsw', 'diskann', 'none') then
    raise exception 'index cannot be "%"', create_vectorizer.index
      using errcode = 'PS007', hint = 'Use auto, hnsw, diskann or none.';
  end if;
  _dimensions := coalesce(
    create_vectorizer.dimensions,
    @extschema:vector@.vector_dims(pgstack.embed('How long are your vectors?', _model, 'document'))
  );
  begin
    _id := ai.create_vectorizer(
      create_vectorizer.source,
      name => _name,
      loading => ai.loading_column(content[cardinality(content)]),
      embedding => ai.embedding_ollama(_model, _dimensions),
      chunking => _pgstack.chunking_config(
        case when create_vectorizer.embedding_column is null
          then create_vectorizer.chunking else 'none' end,
        create_vectorizer.chunk_size, create_vectorizer.chunk_overlap
      ),
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
  perform _pgstack.prepare_vectorizer(_id);
  update _pgstack.vectorizer as v
  set index_method = create_vectorizer.index
  where v.vectorizer_id = _id;
  if create_vectorizer.embedding_column is null then
    perform _pgstack.protect_target(_pgstack.vectorizer_plan(_id));
  end if;
  -- Existing rows were queued before the queue could wake anybody.
  perform pg_notify('pgstack_work', '');
  return _id;
end;
$$;

comment on function pgstack.create_vectorizer(
  regclass, name[], text, text, integer, text, integer, integer, text, name, name, text, boolean, boolean
) is
'Keeps embeddings of a table''s text in sync from now on; returns the vectorizer''s id in ai.vectorizer.
source: a table with a primary key, of which the caller is the owner. content: its text columns; the last is cut into chunks, the others stand before every chunk.
name: lower-case letters, digits and _; default: made from the table''s, by which it is found as well. model: default the setting embedding_model. dimensions: default: the model is asked, which needs a worker.
chunking: recursive, character or none; chunk_size, chunk_overlap: in characters. template: what is embedded, $chunk and $column filled in.
destination: the view that joins chunks and source, default <name or table>_embedding; its table is <destination>_store. embedding_column: instead of a table, a column of the source (no chunking then).
index: auto (the setting index_method), hnsw, diskann or none; built by the worker once there are index_min_rows chunks.
enqueue_existing: embed the rows that are there. if_not_exists: return the id of a vectorizer of that name.
Raises PS007 bad argument, PS012 name taken, PS013 unsupported table, PS014 not the owner, and what pgstack.embed() raises.';

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
  if_not_exists boolean default false
)
returns integer
language sql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
  select pgstack.create_vectorizer(
    source, array[content], name, model, dimensions, chunking, chunk_size, chunk_overlap,
    template, destination, embedding_column, index, enqueue_existing, if_not_exists
  );
$$;

comment on function pgstack.create_vectorizer(
  regclass, name, text, text, integer, text, integer, integer, text, name, name, text, boolean, boolean
) is
'Keeps embeddings of one text column in sync from now on; returns the vectorizer''s id in ai.vectorizer.
Arguments and errors: as for the form that takes an array of columns.';

-- --------------------------------------------------------------- the other verbs

create or replace function pgstack.drop_vectorizer(name text, drop_data boolean default false)
returns void
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _plan _pgstack.vectorizer_plan := _pgstack.vectorizer_plan(drop_vectorizer.name);
begin
  perform _pgstack.drop_forget_triggers(_plan.id, _plan.source);
  perform ai.drop_vectorizer(_plan.id, drop_vectorizer.drop_data);
end;
$$;

comment on function pgstack.drop_vectorizer(text, boolean) is
'Ends a vectorizer. drop_data: drop its view and the table of embeddings too; by default they stay as they are.
Raises PS001 unknown vectorizer.';

create or replace function pgstack.pause_vectorizer(name text)
returns void
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
begin
  perform ai.disable_vectorizer_schedule((_pgstack.vectorizer_plan(pause_vectorizer.name)).id);
end;
$$;

comment on function pgstack.pause_vectorizer(text) is
'Stops embedding; changes go on being queued, so nothing is missed. Raises PS001 unknown vectorizer.';

create or replace function pgstack.resume_vectorizer(name text)
returns void
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
begin
  perform ai.enable_vectorizer_schedule((_pgstack.vectorizer_plan(resume_vectorizer.name)).id);
  perform pg_notify('pgstack_work', '');
end;
$$;

comment on function pgstack.resume_vectorizer(text) is
'Goes on after pgstack.pause_vectorizer(). Raises PS001 unknown vectorizer.';

create or replace function pgstack.retry_vectorizer(name text)
returns integer
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _plan _pgstack.vectorizer_plan := _pgstack.vectorizer_plan(retry_vectorizer.name);
  _retried integer;
begin
  execute format(
    $sql$
    insert into %s (%s)
    select k.* from _pgstack.work as w
    cross join lateral jsonb_to_record(w.key) as k (%s)
    where w.vectorizer_id = $1 and w.state = 'failed'
    $sql$,
    _plan.queue, _plan.key_list, _plan.key_record
  ) using _plan.id;
  get diagnostics _retried = row_count;
  execute format('delete from %s', _plan.failed_queue);
  delete from _pgstack.work as w
  where w.vectorizer_id = _plan.id and w.state in ('failed', 'waiting');
  update _pgstack.vectorizer as v
  set problem = null, last_error = null
  where v.vectorizer_id = _plan.id;
  perform pg_notify('pgstack_work', '');
  return _retried;
end;
$$;

comment on function pgstack.retry_vectorizer(text) is
'Queues the rows that were set aside as failed once more, and lets waiting ones be tried now. Returns how many had failed.
Raises PS001 unknown vectorizer.';
