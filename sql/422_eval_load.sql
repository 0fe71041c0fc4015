-- Family: judged sets.  Takes over what pgstack/judged.py has read from files.
-- Callers: pgstack/judged.py.
-- Errors: PS007 what a file says cannot be, PS012 name taken, PS014 not the owner of a table.
--
-- The lines of the files are copied into a temporary table, because COPY cannot write
-- into tables with row-level security, and because a set is replaced as a whole or not at all.

create or replace function _pgstack.eval_staging()
returns void
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
begin
  create temporary table pgstack_eval_staging (
    part text not null, file text not null, line bigint not null,
    id text not null, doc_id text, grade integer, title text, text text, metadata jsonb
  ) on commit drop;
end;
$$;

comment on function _pgstack.eval_staging() is
'Makes the temporary table that the lines of a set''s files are copied into: part query, judgment or document.';

-- The same judgement twice does no harm; two different ones cannot both be meant.
create or replace function _pgstack.check_staging()
returns void
language plpgsql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _odd record;
begin
  select s.file, s.line, s.part, s.id, s.first into _odd
  from (
    select
      s.*, first_value(s.line) over w as first, first_value(s.grade) over w as first_grade
    from pg_temp.pgstack_eval_staging as s
    window w as (partition by s.part, s.id, s.doc_id order by s.line)
  ) as s
  where s.line <> s.first and (s.part <> 'judgment' or s.grade <> s.first_grade)
  order by s.part <> 'query', s.line
  limit 1;
  if found then
    raise exception '%, line %: the % "%" was on line % already',
      _odd.file, _odd.line, _odd.part, _odd.id, _odd.first
      using errcode = 'PS007', hint = 'Give each one line of its own.';
  end if;
  select s.file, s.line, s.id into _odd
  from pg_temp.pgstack_eval_staging as s
  where s.part = 'judgment' and not exists (
    select from pg_temp.pgstack_eval_staging as q where q.part = 'query' and q.id = s.id
  )
  order by s.line
  limit 1;
  if found then
    raise exception '%, line %: there is no query "%"', _odd.file, _odd.line, _odd.id
      using errcode = 'PS007', hint = 'Its text belongs in queries.jsonl.';
  end if;
end;
$$;

comment on function _pgstack.check_staging() is
'Raises PS007 with file and line for a query or document that comes twice, and a judgement without a query.';

create or replace function _pgstack.load_eval_set(name text, description text, doc_column name)
returns table (queries bigint, judged_queries bigint, judgments bigint)
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _set _pgstack.eval_set;
begin
  perform _pgstack.check_staging();
  select s.* into _set
  from _pgstack.eval_set as s
  where s.name = load_eval_set.name and s.owner = current_user;
  if not found then
    _set.id := pgstack.create_eval_set(load_eval_set.name);
  elsif _set.origin <> 'beir' then
    raise exception 'the judged set "%" was not loaded from files', load_eval_set.name
      using errcode = 'PS012',
      hint = format('Another name, or: select pgstack.drop_eval_set(%L);', load_eval_set.name);
  end if;
  update _pgstack.eval_set as s
  set origin = 'beir', description = load_eval_set.description, doc_column = load_eval_set.doc_column
  where s.id = _set.id;
  delete from _pgstack.eval_judgment as j where j.set_id = _set.id;
  -- A query that stays the same keeps its vectors.
  delete from _pgstack.eval_query as q
  where q.set_id = _set.id and not exists (
    select from pg_temp.pgstack_eval_staging as s
    where s.part = 'query' and s.id = q.query_id and s.text = q.text
  );
  insert into _pgstack.eval_query (set_id, query_id, text)
  select _set.id, s.id, s.text from pg_temp.pgstack_eval_staging as s where s.part = 'query'
  on conflict do nothing;
  insert into _pgstack.eval_judgment (set_id, query_id, doc_id, grade)
  select distinct _set.id, s.id, s.doc_id, s.grade
  from pg_temp.pgstack_eval_staging as s
  where s.part = 'judgment';
  return query
  select l.queries, l.judged_queries, l.judgments
  from _pgstack.eval_set_list() as l
  where l.name = load_eval_set.name and l.owner = current_user;
end;
$$;

comment on function _pgstack.load_eval_set(text, text, name) is
'Makes a judged set of the lines that were copied, or replaces one of the caller''s that was loaded before.';

-- ---------------------------------------------------------------------- the corpus

-- Only a table that was made here is ever written to.
create or replace function _pgstack.corpus_table(name text, schema name)
returns regclass
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _names text[] := parse_ident(corpus_table.name);
  _mark constant text := 'A corpus, loaded by pgstack eval load.';
  _table regclass;
begin
  if cardinality(_names) = 1 then
    _names := corpus_table.schema::text || _names;
  end if;
  _table := to_regclass(format('%I.%I', _names[1], _names[2]));
  if _table is null then
    execute format(
      'create table %I.%I (id text primary key, title text, text text not null, metadata jsonb)',
      _names[1], _names[2]
    );
    _table := format('%I.%I', _names[1], _names[2])::regclass;
    execute format('comment on table %s is %L', _table, _mark);
  elsif obj_description(_table, 'pg_class') is distinct from _mark then
    raise exception 'the table % was not made by pgstack eval load', _table
      using errcode = 'PS012', hint = 'Choose another name for the table of the corpus.';
  end if;
  return _table;
end;
$$;

comment on function _pgstack.corpus_table(text, name) is
'The table for a corpus, made if it is new. Raises PS012 for a table that was made by others.';

create or replace function _pgstack.load_corpus(name text, schema name)
returns table (relation regclass, inserted bigint, updated bigint, removed bigint)
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
begin
  perform _pgstack.check_staging();
  relation := _pgstack.corpus_table(load_corpus.name, load_corpus.schema);
  execute format(
    'delete from %s as t where not exists ('
    'select from pg_temp.pgstack_eval_staging as s where s.part = ''document'' and s.id = t.id)', relation
  );
  get diagnostics removed = row_count;
  -- What is the same stays untouched, and so do its embeddings.
  execute format(
    $sql$
    update %s as t set title = s.title, text = s.text, metadata = s.metadata
    from pg_temp.pgstack_eval_staging as s
    where s.part = 'document' and s.id = t.id
      and (t.title, t.text, t.metadata) is distinct from (s.title, s.text, s.metadata)
    $sql$, relation
  );
  get diagnostics updated = row_count;
  execute format(
    'insert into %s (id, title, text, metadata) '
    'select s.id, s.title, s.text, s.metadata from pg_temp.pgstack_eval_staging as s '
    'where s.part = ''document'' on conflict do nothing', relation
  );
  get diagnostics inserted = row_count;
  return next;
end;
$$;

comment on function _pgstack.load_corpus(text, name) is
'Makes a table hold exactly the documents that were copied. schema: where it is made, if its name does not say.';

-- A title that no document has would be an empty line before every chunk.
create or replace function _pgstack.vectorize_corpus(relation regclass, model text)
returns text
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _id integer;
  _titled boolean;
begin
  select v.id into _id
  from ai.vectorizer as v
  where to_regclass(format('%I.%I', v.source_schema, v.source_table)) = vectorize_corpus.relation
  order by v.id limit 1;
  if not found then
    execute format('select exists (select from %s where title <> '''')', relation) into _titled;
    _id := pgstack.create_vectorizer(
      vectorize_corpus.relation,
      case when _titled then array['title', 'text']::name[] else array['text']::name[] end,
      model => vectorize_corpus.model
    );
  end if;
  return (select v.name from ai.vectorizer as v where v.id = _id);
end;
$$;

comment on function _pgstack.vectorize_corpus(regclass, text) is
'The name of the vectorizer of a corpus, made over title and text if it has none.';

create or replace function _pgstack.load_corpus_collection(collection text)
returns table (relation regclass, inserted bigint, updated bigint, removed bigint)
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
begin
  perform _pgstack.check_staging();
  return query
  with done as materialized (
    select pgstack.ingest_text(
      load_corpus_collection.collection, s.id, s.text, s.title,
      metadata => coalesce(s.metadata, '{}')
    ) as outcome
    from pg_temp.pgstack_eval_staging as s
    where s.part = 'document'
  )
  select
    _pgstack.collection_table(load_corpus_collection.collection),
    count(*) filter (where d.outcome = 'inserted'), count(*) filter (where d.outcome = 'updated'),
    0::bigint
  from done as d;
end;
$$;

comment on function _pgstack.load_corpus_collection(text) is
'Puts the documents that were copied into a collection; their ids become uris.';

-- Judgements of documents that the corpus lacks cannot be met.
create or replace function _pgstack.judged_but_missing()
returns bigint
language plpgsql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
begin
  return (
    select count(*)
    from pg_temp.pgstack_eval_staging as s
    where s.part = 'judgment' and s.grade > 0 and not exists (
      select from pg_temp.pgstack_eval_staging as d where d.part = 'document' and d.id = s.doc_id
    )
  );
end;
$$;

comment on function _pgstack.judged_but_missing() is
'How many judgements of those copied name a relevant document that was not copied.';
