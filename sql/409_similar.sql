-- Family: rows like a given one.
-- Callers: people, pgstack/search.py.
-- Errors: PS001 unknown vectorizer, PS007 bad argument or no such row, PS014 not a reader.
--
-- A row is looked for by the mean of its chunks' directions: by what it is about as a whole,
-- in one walk along the index however long it is.  The best pair of chunks would find rows
-- that share a passage, a footer or a quotation, and take a walk for each chunk.

-- Any form of a key becomes an object, {"id": 7}.
create or replace function _pgstack.row_key(plan _pgstack.vectorizer_plan, id jsonb)
returns jsonb
language plpgsql immutable
security invoker
set search_path = pg_catalog, pg_temp
as $$
begin
  perform _pgstack.require('id', nullif(row_key.id, 'null'));
  if jsonb_typeof(row_key.id) = 'object' and row_key.id ?& plan.key_columns::text[]
    and row_key.id - plan.key_columns::text[] = '{}'
  then
    return row_key.id;
  elsif cardinality(plan.key_columns) = 1 then
    return jsonb_build_object(plan.key_columns[1], row_key.id);
  end if;
  raise exception 'the key of % is %, not %', plan.source, plan.key_list, row_key.id
    using errcode = 'PS007', hint = format(
      'Pass id as pgstack.search() returns it: %L',
      (select jsonb_object_agg(k.name, '...') from unnest(plan.key_columns) as k (name))
    );
end;
$$;

comment on function _pgstack.row_key(_pgstack.vectorizer_plan, jsonb) is
'The key of a row as an object, from an object or, of a single column, its value. Raises PS007.';

create or replace function _pgstack.text_key(plan _pgstack.vectorizer_plan, id text)
returns jsonb
language plpgsql immutable
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _key jsonb;
begin
  if text_key.id !~ '^\s*\{' then
    return to_jsonb(text_key.id);
  end if;
  _key := text_key.id;
  return case when _key ?& plan.key_columns::text[] then _key else to_jsonb(text_key.id) end;
exception
  when data_exception then
    return to_jsonb(text_key.id);
end;
$$;

comment on function _pgstack.text_key(_pgstack.vectorizer_plan, text) is
'A key that was written as text: an object if it reads as one with the key''s columns, else a value.';

-- A row the caller may not see is answered like one that is not there.
create or replace function _pgstack.visible_key(plan _pgstack.vectorizer_plan, key jsonb)
returns text[]
language plpgsql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _values text[];
begin
  execute format(
    'select array[%s] from jsonb_to_record($1) as k (%s) join %s as r on %s',
    (select string_agg(format('r.%I::text', c.name), ', ') from unnest(plan.key_columns) as c (name)),
    plan.key_record, plan.source, plan.key_match
  ) into _values using visible_key.key;
  if _values is null then
    raise exception 'there is no row % in %, or none that you may see', visible_key.key, plan.source
      using errcode = 'PS007',
      hint = 'Pass the key of a row as pgstack.search() returns it in id, or its value.';
  end if;
  return _values;
exception
  when data_exception then
    raise exception 'no row of % has the key %: %', plan.source, visible_key.key, sqlerrm
      using errcode = 'PS007', hint = format('The key''s columns: %s.', plan.key_record);
end;
$$;

comment on function _pgstack.visible_key(_pgstack.vectorizer_plan, jsonb) is
'The values of a key, in order of its columns, of a row that is there and may be seen. Raises PS007 for others.';

create or replace function _pgstack.row_vector(plan _pgstack.vectorizer_plan, key jsonb)
returns @extschema:vector@.vector
language plpgsql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _vector @extschema:vector@.vector;
begin
  execute format(
    'select @extschema:vector@.avg(@extschema:vector@.l2_normalize(r.%I)) '
    'from jsonb_to_record($1) as k (%s) join %s as r on %s',
    plan.embedding_column, plan.key_record, plan.target, plan.key_match
  ) into _vector using row_vector.key;
  return case when @extschema:vector@.vector_norm(_vector) > 0 then _vector end;
end;
$$;

comment on function _pgstack.row_vector(_pgstack.vectorizer_plan, jsonb) is
'The mean direction of a row''s chunks, NULL while it has no vectors.';

-- The row itself is left out after routes were chosen: it would be counted as a filter.
create or replace function _pgstack.similar_hits(
  plan _pgstack.vectorizer_plan, request _pgstack.search_request, id jsonb, filter jsonb,
  diversity float8
)
returns _pgstack.hit[]
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _alias text := case when plan.has_table then 'k' else 'r' end;
  _key jsonb := _pgstack.row_key(plan, similar_hits.id);
  _values text[] := _pgstack.visible_key(plan, _key);
begin
  request := _pgstack.widen_request(request, diversity, null);
  request.condition := coalesce(_pgstack.filter_condition(plan, filter, _alias), 'true');
  request.embedding := _pgstack.row_vector(plan, _key);
  if request.embedding is null then
    return '{}';
  end if;
  request := _pgstack.complete_request(plan, request);
  request.condition := format(
    '(%s) and not (%s)', request.condition,
    (
      select string_agg(format('%I.%I = %L', _alias, c.name, _values[c.nr]), ' and ')
      from unnest(plan.key_columns) with ordinality as c (name, nr)
    )
  );
  return _pgstack.refine_hits(request, _pgstack.search_hits(plan, request), diversity, null);
end;
$$;

comment on function _pgstack.similar_hits(
  _pgstack.vectorizer_plan, _pgstack.search_request, jsonb, jsonb, float8
) is
'The rows of pgstack.similar().';

create or replace function _pgstack.similar_rows(
  vectorizer text, id jsonb, k integer, filter jsonb, per text, diversity float8,
  target_recall float8
)
returns setof _pgstack.hit
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _plan _pgstack.vectorizer_plan := _pgstack.vectorizer_plan(similar_rows.vectorizer);
  _request _pgstack.search_request := _pgstack.new_request(
    '-', similar_rows.k, 'vector', similar_rows.per, 'rrf', null, null, null,
    similar_rows.target_recall, null
  );
begin
  return query
  select h.*
  from unnest(_pgstack.similar_hits(
    _plan, _request, similar_rows.id, similar_rows.filter, similar_rows.diversity
  )) as h;
exception
  when insufficient_privilege then
    perform _pgstack.check_reader(_plan);
    raise;
end;
$$;

comment on function _pgstack.similar_rows(text, jsonb, integer, jsonb, text, float8, float8) is
'pgstack.similar(), with vectors.';

-- SQL, because PL/pgSQL does not let an argument and a result column share a name.
create or replace function pgstack.similar(
  vectorizer text,
  id jsonb,
  k integer default 10,
  filter jsonb default null,
  per text default 'row',
  diversity float8 default 0,
  target_recall float8 default null
)
returns table (
  rank integer, id jsonb, chunk_seq integer, chunk text, score float8,
  start_char integer, end_char integer,
  vector_rank integer, vector_score float8, text_rank integer, text_score float8, more jsonb
)
language sql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
  select h.rank, h.id, h.chunk_seq, h.chunk, h.score, h.start_char, h.end_char,
    h.vector_rank, h.vector_score, h.text_rank, h.text_score, h.more
  from _pgstack.similar_rows($1, $2, $3, $4, $5, $6, $7) as h;
$$;

comment on function pgstack.similar(text, jsonb, integer, jsonb, text, float8, float8) is
'The k rows of a vectorizer''s source that are most like one of its rows, the most like first, of those the caller may see; never the row itself.
It is compared by the mean of its chunks'' vectors, which says what it is about as a whole. A row that has no vectors yet is like no other: nothing comes back.
vectorizer: its name, or its source table''s. id: the row''s key as pgstack.search() returns it, {"id": 7}; of a key of one column its value does, of any type.
k: 1 to 1000, default 10. filter, diversity, target_recall: as for pgstack.search(). per: row, the default: the chunk of each row that is most like, its others in more; or chunk.
Returns the columns of pgstack.search(). score: cosine similarity.
Raises PS001 unknown vectorizer, PS007 bad argument, or no row of that key that the caller may see, PS014 not a reader. The model is not asked.';

create or replace function pgstack.similar(
  vectorizer text,
  id anyelement,
  k integer default 10,
  filter jsonb default null,
  per text default 'row',
  diversity float8 default 0,
  target_recall float8 default null
)
returns table (
  rank integer, id jsonb, chunk_seq integer, chunk text, score float8,
  start_char integer, end_char integer,
  vector_rank integer, vector_score float8, text_rank integer, text_score float8, more jsonb
)
language sql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
  select s.* from pgstack.similar($1, to_jsonb($2), $3, $4, $5, $6, $7) as s;
$$;

comment on function pgstack.similar(text, anyelement, integer, jsonb, text, float8, float8) is
'The rows that are most like the one whose key of one column has this value, such as 7.
Other arguments, result and errors: as for the form that takes jsonb.';

-- A literal without a type comes here, whatever is in it.
create or replace function pgstack.similar(
  vectorizer text,
  id text,
  k integer default 10,
  filter jsonb default null,
  per text default 'row',
  diversity float8 default 0,
  target_recall float8 default null
)
returns table (
  rank integer, id jsonb, chunk_seq integer, chunk text, score float8,
  start_char integer, end_char integer,
  vector_rank integer, vector_score float8, text_rank integer, text_score float8, more jsonb
)
language sql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
  select s.*
  from pgstack.similar($1, _pgstack.text_key(_pgstack.vectorizer_plan($1), $2), $3, $4, $5, $6, $7) as s;
$$;

comment on function pgstack.similar(text, text, integer, jsonb, text, float8, float8) is
'The rows that are most like the one whose key this text is: the value of a key of one column, such as ''7'' or ''abc'', or the key as an object, ''{"id": 7}''.
Other arguments, result and errors: as for the form that takes jsonb.';
