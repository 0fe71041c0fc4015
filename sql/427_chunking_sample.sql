-- Family: the chunking lab, what it works on: the ways of cutting, documents and queries.
-- Callers: 429_chunking_lab.sql.
-- Errors: PS007 bad argument, PS013 no key, PS017 unknown judged set, and those of pgstack.chunk().
--
-- Documents and queries are drawn by their digest with a seed: the same each time, and the same
-- for each way of cutting.

-- ------------------------------------------------------------------------ what to try

create or replace function _pgstack.lab_usual()
returns jsonb
language sql immutable parallel safe
security invoker
set search_path = pg_catalog, pg_temp
as $$
  select $json$[
    {"method": "recursive", "size": 800, "overlap": 400}, {"method": "recursive", "size": 800, "overlap": 0},
    {"method": "recursive", "size": 400, "overlap": 200}, {"method": "sentence", "size": 800, "overlap": 0},
    {"method": "markdown", "size": 800, "overlap": 0}, {"method": "token", "size": 200, "overlap": 0}
  ]$json$::jsonb;
$$;

comment on function _pgstack.lab_usual() is
'The ways of cutting that are compared when nobody names others.';

create or replace function _pgstack.lab_methods(methods jsonb)
returns setof _pgstack.chunking
language plpgsql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _given jsonb;
  _odd text;
  _chunking _pgstack.chunking;
  _config jsonb;
begin
  if jsonb_typeof(lab_methods.methods) is distinct from 'array' or lab_methods.methods = '[]' then
    raise exception 'methods must be an array of objects'
      using errcode = 'PS007',
      hint = 'methods => ''[{"method": "recursive", "size": 800, "overlap": 400}, {"method": "sentence"}]''';
  end if;
  for _given in select m.value from jsonb_array_elements(lab_methods.methods) as m loop
    _odd := null;
    if jsonb_typeof(_given) = 'object' then
      select k.key into _odd
      from jsonb_object_keys(_given) as k (key)
      where k.key not in (
        'method', 'size', 'overlap', 'separators', 'is_regex', 'keep_separator', 'mask_pii'
      );
    else
      _odd := _given::text;
    end if;
    if _odd is not null then
      raise exception 'a way of cutting has no "%"', _odd
        using errcode = 'PS007',
        hint = 'Known: method, size, overlap, separators, is_regex, keep_separator, mask_pii.';
    end if;
    begin
      _chunking := jsonb_populate_record(
        row('recursive', 800, 0, null, false, null, null)::_pgstack.chunking, jsonb_strip_nulls(_given)
      );
    exception
      when data_exception or array_subscript_error then
        raise exception 'the way of cutting % cannot be read: %', _given, sqlerrm
          using errcode = 'PS007',
          hint = '{"method": "character", "size": 800, "overlap": 0, "separators": ["\n"]}';
    end;
    -- Raises for what cannot be.
    _config := _pgstack.chunking_config(
      _chunking.method, _chunking.size, _chunking.overlap, _chunking.separators,
      _chunking.is_regex, _chunking.keep_separator, _chunking.mask_pii
    );
    return next _chunking;
  end loop;
end;
$$;

comment on function _pgstack.lab_methods(jsonb) is
'The ways of cutting that a caller wants to compare. Raises PS007.';

create or replace function _pgstack.lab_key(source regclass, doc_column name)
returns text
language plpgsql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _columns text;
begin
  if lab_key.doc_column is not null then
    perform _pgstack.check_columns(lab_key.source, array[lab_key.doc_column]);
    return format('r.%I::text', lab_key.doc_column);
  end if;
  select string_agg(format('%L, r.%I', a.attname, a.attname), ', ' order by k.nr)
  into _columns
  from pg_index as i
  cross join unnest(i.indkey::smallint[]) with ordinality as k (attnum, nr)
  join pg_attribute as a on a.attrelid = i.indrelid and a.attnum = k.attnum
  where i.indrelid = lab_key.source and i.indisprimary;
  if _columns is null then
    raise exception '% has no primary key', lab_key.source
      using errcode = 'PS013', hint = 'Name a column that tells its rows apart: doc_column => ''...''.';
  end if;
  return format('_pgstack.eval_doc_id(jsonb_build_object(%s))', _columns);
end;
$$;

comment on function _pgstack.lab_key(regclass, name) is
'SQL for what judged sets call the row r. Raises PS007 unknown column, PS013 no key.';

-- ------------------------------------------------------------------------- the sample

-- Of a table of many rows, whole blocks of it are looked at, many times as many rows as wanted.
create or replace function _pgstack.lab_sample(
  source regclass, content name, key text, wanted integer, without text[], seed bigint
)
returns table (doc_id text, body text)
language plpgsql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _share float8 := (
    select 100 * (50.0 * lab_sample.wanted) / nullif(c.reltuples, 0)
    from pg_class as c where c.oid = lab_sample.source and c.relkind in ('r', 'm', 'p')
  );
begin
  return query execute format(
    $sql$
    select %1$s, r.%2$I::text
    from %3$s as r %4$s
    where r.%2$I::text ~ '\S' and %1$s <> all ($1)
    order by hashtextextended(%1$s, $3), %1$s
    limit $2
    $sql$,
    lab_sample.key, lab_sample.content, lab_sample.source,
    case when _share between 0.001 and 50
      then format('tablesample system (%s) repeatable (%s)', _share, lab_sample.seed) else '' end
  ) using coalesce(lab_sample.without, '{}'), lab_sample.wanted, lab_sample.seed;
end;
$$;

comment on function _pgstack.lab_sample(regclass, name, text, integer, text[], bigint) is
'Texts drawn by a seed. key: SQL for a row''s name. without: not these.';

-- Queries in the order of their digest, as long as the documents that answer them are at most
-- half of the sample: the others are what these could be mistaken for.
create or replace function _pgstack.lab_queries(
  source regclass, key text, set_id bigint, wanted integer, seed bigint
)
returns table (query_id text, query text, doc_ids text[], grades integer[])
language plpgsql stable
security invoker
set search_path = pg_catalog, pg_temp
set enable_nestloop = off
as $$
begin
  return query execute format(
    $sql$
    with judged as materialized (
      select j.query_id, array_agg(j.doc_id) as doc_ids, array_agg(j.grade) as grades
      from _pgstack.eval_judgment as j
      where j.set_id = $1 and j.grade > 0 and exists (
        select from %1$s as r where %2$s = j.doc_id
      )
      group by j.query_id
    )
    select x.query_id, x.query, x.doc_ids, x.grades
    from (
      select
        g.query_id, q.text as query, g.doc_ids, g.grades,
        sum(cardinality(g.doc_ids))
          over (order by hashtextextended(g.query_id, $3), g.query_id) as documents,
        row_number() over (order by hashtextextended(g.query_id, $3), g.query_id) as nr
      from judged as g
      join _pgstack.eval_query as q on q.set_id = $1 and q.query_id = g.query_id
    ) as x
    where x.documents <= $2 / 2 or x.nr = 1
    order by x.query_id
    $sql$,
    lab_queries.source, lab_queries.key
  ) using lab_queries.set_id, lab_queries.wanted, lab_queries.seed;
end;
$$;

comment on function _pgstack.lab_queries(regclass, text, bigint, integer, bigint) is
'Queries of a judged set whose documents are in a table, drawn by a seed.';

create or replace function _pgstack.lab_documents(
  source regclass, content name, key text, wanted integer, relevant text[], seed bigint
)
returns table (doc_id text, body text)
language plpgsql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
begin
  if lab_documents.relevant is not null then
    return query execute format(
      'select %1$s, coalesce(r.%2$I::text, '''') from %3$s as r where %1$s = any ($1)',
      lab_documents.key, lab_documents.content, lab_documents.source
    ) using lab_documents.relevant;
  end if;
  return query
  select s.doc_id, s.body
  from _pgstack.lab_sample(
    lab_documents.source, lab_documents.content, lab_documents.key,
    greatest(0, lab_documents.wanted - coalesce(cardinality(lab_documents.relevant), 0)),
    lab_documents.relevant, lab_documents.seed
  ) as s;
end;
$$;

comment on function _pgstack.lab_documents(regclass, name, text, integer, text[], bigint) is
'The documents of a sample: those that answer its queries, and others up to the number wanted.';

do $do$
begin
  perform _pgstack.define_type('lab_corpus', $type$
    bodies text[], flats bytea[], queries text[], judged_queries integer[], judged_docs integer[],
    grades integer[]
  $type$);
end;
$do$;

comment on type _pgstack.lab_corpus is
'What a lab works on. bodies: the documents; flats: the same as lab_flat() has them. queries: their texts. A judgement each: the number of its query, of its document, its grade.';

create or replace function _pgstack.lab_corpus(
  source regclass, content name, wanted integer, judged text, doc_column name, seed bigint
)
returns _pgstack.lab_corpus
language plpgsql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _corpus _pgstack.lab_corpus;
  _set _pgstack.eval_set;
  _key text;
  _ids text[];
  _queries jsonb;
begin
  if lab_corpus.judged is not null then
    select s.* into _set
    from _pgstack.eval_set as s where s.id = _pgstack.eval_set_id(lab_corpus.judged);
  end if;
  _key := _pgstack.lab_key(lab_corpus.source, coalesce(lab_corpus.doc_column, _set.doc_column));
  if _set.id is not null then
    select array_agg(q.query order by q.query_id), jsonb_agg(to_jsonb(q) order by q.query_id)
    into _corpus.queries, _queries
    from _pgstack.lab_queries(
      lab_corpus.source, _key, _set.id, lab_corpus.wanted, lab_corpus.seed
    ) as q;
    if _queries is null then
      raise exception 'no document that "%" judges relevant is in %', _set.name, lab_corpus.source
        using errcode = 'PS007',
        hint = 'Name the column that holds the judged ids: doc_column => ''...''.';
    end if;
  end if;
  select
    array_agg(d.doc_id order by d.doc_id), array_agg(d.body order by d.doc_id),
    array_agg(_pgstack.lab_flat(d.body) order by d.doc_id)
  into _ids, _corpus.bodies, _corpus.flats
  from _pgstack.lab_documents(
    lab_corpus.source, lab_corpus.content, _key, lab_corpus.wanted,
    (
      select array_agg(distinct i.doc_id)
      from jsonb_array_elements(_queries) as q
      cross join jsonb_array_elements_text(q.value -> 'doc_ids') as i (doc_id)
    ),
    lab_corpus.seed
  ) as d;
  if _ids is null then
    raise exception '% has no text in "%"', lab_corpus.source, lab_corpus.content
      using errcode = 'PS007', hint = 'Name a column of text: content => ''...''.';
  end if;
  select array_agg(q.nr::integer), array_agg(d.nr::integer), array_agg(g.grade::integer)
  into _corpus.judged_queries, _corpus.judged_docs, _corpus.grades
  from jsonb_array_elements(_queries) with ordinality as q (value, nr)
  cross join rows from (
    jsonb_array_elements_text(q.value -> 'doc_ids'), jsonb_array_elements_text(q.value -> 'grades')
  ) as g (doc_id, grade)
  join unnest(_ids) with ordinality as d (doc_id, nr) on d.doc_id = g.doc_id;
  return _corpus;
end;
$$;

comment on function _pgstack.lab_corpus(regclass, name, integer, text, name, bigint) is
'Draws the documents, and the queries of a judged set, that a lab works on. Raises PS007, PS013 and PS017.';
