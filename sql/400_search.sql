-- Family: search.  Reads a vectorizer's target and source with the caller's rights.
-- Callers: people, pgstack.ask(), pgstack/search.py.
-- Errors: PS001 unknown vectorizer, PS002 wrong vector length, PS007 bad argument,
--         PS014 not a reader, and those of pgstack.embed().
--
-- In every statement here r is the target and k the source row of a chunk.  The join to
-- the source is what makes its row-level security hold, and leaves out chunks whose row
-- is gone.

-- A chunk found by one branch, before ranks are given.
do $do$
begin
  if to_regtype('_pgstack.hit') is null then
    create type _pgstack.hit as (
      key jsonb, chunk_seq integer, chunk text, start_char integer, end_char integer, score float8
    );
  end if;
end;
$do$;

comment on type _pgstack.hit is 'A chunk that a branch of search found; a higher score is better.';

-- Conditions over source columns: {"status": "open", "owner": null}.
create or replace function _pgstack.filter_condition(plan _pgstack.vectorizer_plan, filter jsonb)
returns text
language plpgsql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _odd text;
begin
  if jsonb_typeof(filter_condition.filter) <> 'object' then
    raise exception 'filter must be a JSON object, not %', jsonb_typeof(filter_condition.filter)
      using errcode = 'PS007', hint = 'filter => ''{"status": "open"}''';
  end if;
  select f.key into _odd
  from jsonb_object_keys(filter_condition.filter) as f (key)
  where not exists (
    select from pg_attribute as a
    where a.attrelid = plan.source::regclass and a.attname = f.key
      and a.attnum > 0 and not a.attisdropped
  );
  if found then
    raise exception 'filter names the column "%", which % does not have', _odd, plan.source
      using errcode = 'PS007', hint = format('\d %s', plan.source);
  end if;
  return coalesce(
    (
      select string_agg(
        case jsonb_typeof(f.value)
          when 'null' then format('k.%I is null', f.key)
          else format('to_jsonb(k.%I) = %L::jsonb', f.key, f.value)
        end,
        ' and '
      )
      from jsonb_each(filter_condition.filter) as f
    ),
    'true'
  );
end;
$$;

comment on function _pgstack.filter_condition(_pgstack.vectorizer_plan, jsonb) is
'An SQL condition over the source row k: every column equal to its value. Raises PS007 for an unknown column.';

-- What a branch reads: the chunks beside their source rows, or the source alone when the
-- vectors lie in it.
create or replace function _pgstack.search_from(plan _pgstack.vectorizer_plan)
returns text
language sql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
  select format('%s as r join %s as k on %s', plan.target, plan.source, plan.key_match);
$$;

comment on function _pgstack.search_from(_pgstack.vectorizer_plan) is
'The from clause of a search: target r joined to its source k.';

create or replace function _pgstack.search_columns(plan _pgstack.vectorizer_plan)
returns text
language sql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
  select case
    when not plan.has_table then format(
      '%1$s as key, 0 as chunk_seq, r.%2$I::text as chunk, 0 as start_char, '
      'length(r.%2$I::text) as end_char', plan.key_json, plan.content_column
    )
    when exists (
      select from pg_attribute as a
      where a.attrelid = plan.target::regclass and a.attname = 'start_char' and not a.attisdropped
    ) then format('%s as key, r.chunk_seq, r.chunk, r.start_char, r.end_char', plan.key_json)
    else format(
      '%s as key, r.chunk_seq, r.chunk, null::integer as start_char, null::integer as end_char',
      plan.key_json
    )
  end;
$$;

comment on function _pgstack.search_columns(_pgstack.vectorizer_plan) is
'The select list of a search: key, chunk_seq, chunk, start_char, end_char.';

create or replace function _pgstack.embed_query(plan _pgstack.vectorizer_plan, query text)
returns @extschema:vector@.vector
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _vector @extschema:vector@.vector := pgstack.embed(embed_query.query, plan.model);
begin
  if @extschema:vector@.vector_dims(_vector) <> plan.dimensions then
    raise exception 'vectorizer "%" stores % dimensions, the model "%" gives %',
      plan.name, plan.dimensions, plan.model, @extschema:vector@.vector_dims(_vector)
      using errcode = 'PS002',
      hint = format('Make it again: select pgstack.drop_vectorizer(%L, drop_data => true);', plan.name);
  end if;
  return _vector;
end;
$$;

comment on function _pgstack.embed_query(_pgstack.vectorizer_plan, text) is
'The vector of a query text, by the vectorizer''s own model. Raises PS002 when its length changed.';

-- Ordered by the bare distance: any second sort key makes PostgreSQL leave the vector
-- index aside.  The index goes on scanning until depth rows pass the join and the filter.
create or replace function _pgstack.search_vector(
  plan _pgstack.vectorizer_plan, query text, depth integer, filter jsonb
)
returns setof _pgstack.hit
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
set hnsw.ef_search = 40
set hnsw.iterative_scan = 'strict_order'
as $$
begin
  perform set_config('hnsw.ef_search', least(1000, greatest(40, depth))::text, true);
  return query execute format(
    $sql$
    select %1$s, 1 - (r.%2$I operator(@extschema:vector@.<=>) $1)
    from %3$s
    where %4$s and r.%2$I is not null
    order by r.%2$I operator(@extschema:vector@.<=>) $1
    limit $2
    $sql$,
    _pgstack.search_columns(plan), plan.embedding_column, _pgstack.search_from(plan),
    _pgstack.filter_condition(plan, search_vector.filter)
  ) using _pgstack.embed_query(plan, search_vector.query), search_vector.depth;
end;
$$;

comment on function _pgstack.search_vector(_pgstack.vectorizer_plan, text, integer, jsonb) is
'The chunks nearest in meaning; score: cosine similarity, 1 the same direction.';

create or replace function _pgstack.text_config()
returns regconfig
language plpgsql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
begin
  return _pgstack.setting_value('text_config')::regconfig;
exception
  when undefined_object or invalid_name or invalid_schema_name then
    raise exception 'setting "text_config": %', sqlerrm
      using errcode = 'PS007', hint = 'select oid::regconfig from pg_ts_config;';
end;
$$;

comment on function _pgstack.text_config() is
'The text search configuration of this session. Raises PS007 when there is none of that name.';

-- Any of the words, ranked by cover density; no index yet.
create or replace function _pgstack.search_text(
  plan _pgstack.vectorizer_plan, query text, depth integer, filter jsonb
)
returns setof _pgstack.hit
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _config regconfig := _pgstack.text_config();
  -- Written as a tsquery quotes lexemes: one may hold an & or a quote of its own.
  _words tsquery := (
    select string_agg(
      format('''%s''', replace(replace(l.lexeme, '\', '\\'), '''', '''''')), ' | '
    )::tsquery
    from unnest(tsvector_to_array(to_tsvector(_config, search_text.query))) as l (lexeme)
  );
begin
  return query execute format(
    $sql$
    select t.*
    from (
      select h.*, ts_rank_cd(to_tsvector($1, h.chunk), $2, 4)::float8 as score
      from (select %1$s from %2$s where %3$s) as h
      where to_tsvector($1, h.chunk) @@ $2
    ) as t
    order by t.score desc, t.key, t.chunk_seq
    limit $3
    $sql$,
    _pgstack.search_columns(plan), _pgstack.search_from(plan),
    _pgstack.filter_condition(plan, search_text.filter)
  ) using _config, _words, search_text.depth;
end;
$$;

comment on function _pgstack.search_text(_pgstack.vectorizer_plan, text, integer, jsonb) is
'The chunks that hold the query''s words; score: ts_rank_cd.';

-- Reciprocal rank fusion: a chunk scores 1 / (60 + its rank) in each branch that found it.
create or replace function _pgstack.search_hybrid(
  plan _pgstack.vectorizer_plan, query text, depth integer, filter jsonb
)
returns setof _pgstack.hit
language sql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
  select h.key, h.chunk_seq, min(h.chunk), min(h.start_char), min(h.end_char),
    sum(1.0 / (60 + h.nr))::float8 as score
  from (
    select v.*
    from _pgstack.search_vector(plan, query, greatest(depth, 50), filter)
      with ordinality as v (key, chunk_seq, chunk, start_char, end_char, score, nr)
    union all
    select t.*
    from _pgstack.search_text(plan, query, greatest(depth, 50), filter)
      with ordinality as t (key, chunk_seq, chunk, start_char, end_char, score, nr)
  ) as h
  group by h.key, h.chunk_seq
  order by score desc, h.key, h.chunk_seq
  limit depth;
$$;

comment on function _pgstack.search_hybrid(_pgstack.vectorizer_plan, text, integer, jsonb) is
'The chunks that both branches together rank highest.';

create or replace function _pgstack.check_search(query text, k integer, mode text)
returns void
language plpgsql immutable
security invoker
set search_path = pg_catalog, pg_temp
as $$
begin
  perform _pgstack.require('query', check_search.query);
  perform _pgstack.require('k', check_search.k);
  if check_search.k not between 1 and 1000 then
    raise exception 'k cannot be %', check_search.k
      using errcode = 'PS007', hint = 'Ask for 1 to 1000 rows.';
  end if;
  if check_search.query !~ '\S' then
    raise exception 'there is nothing to search for in an empty text'
      using errcode = 'PS007', hint = 'Pass some words.';
  end if;
  if check_search.mode is null or check_search.mode not in ('vector', 'text', 'hybrid') then
    raise exception 'mode cannot be "%"', check_search.mode
      using errcode = 'PS007', hint = 'Use vector, text or hybrid.';
  end if;
end;
$$;

comment on function _pgstack.check_search(text, integer, text) is
'Raises PS007 for arguments search() cannot use.';

-- A reader needs the table of chunks, which pgstack.create_vectorizer() opens to everybody
-- and plain pgai does not, and of the source the key and the text.
create or replace function _pgstack.check_reader(plan _pgstack.vectorizer_plan)
returns void
language plpgsql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _closed text;
begin
  select x.relation into _closed
  from (
    values
      (plan.source, plan.key_columns::text[] || _pgstack.content_columns(plan.config)),
      (plan.target, case when plan.has_table then array['chunk'] end)
  ) as x (relation, columns)
  join pg_class as c on c.oid = _pgstack.find_relation(x.relation)
  where not has_schema_privilege(c.relnamespace, 'usage')
    or not (
      select bool_and(has_column_privilege(c.oid, n.name, 'select'))
      from unnest(x.columns) as n (name)
    )
  limit 1;
  if found then
    raise exception 'the role "%" may not read %', current_user, _closed
      using errcode = 'PS014', hint = format('grant select on %s to %I;', _closed, current_user);
  end if;
end;
$$;

comment on function _pgstack.check_reader(_pgstack.vectorizer_plan) is
'Raises PS014 for a role that may not read a vectorizer''s chunks, or the text they come from.';

create or replace function pgstack.search(
  vectorizer text,
  query text,
  k integer default 10,
  mode text default 'hybrid',
  filter jsonb default null
)
returns table (
  rank integer, id jsonb, chunk_seq integer, chunk text, score float8,
  start_char integer, end_char integer
)
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _plan _pgstack.vectorizer_plan := _pgstack.vectorizer_plan(search.vectorizer);
  _filter jsonb := coalesce(search.filter, '{}');
begin
  perform _pgstack.check_search(search.query, search.k, search.mode);
  perform _pgstack.check_reader(_plan);
  return query
  select
    (row_number() over (order by h.score desc, h.key, h.chunk_seq))::integer,
    h.key, h.chunk_seq, h.chunk, h.score, h.start_char, h.end_char
  from (
    select v.* from _pgstack.search_vector(_plan, search.query, search.k, _filter) as v
    where search.mode = 'vector'
    union all
    select t.* from _pgstack.search_text(_plan, search.query, search.k, _filter) as t
    where search.mode = 'text'
    union all
    select y.* from _pgstack.search_hybrid(_plan, search.query, search.k, _filter) as y
    where search.mode = 'hybrid'
  ) as h
  order by 1;
end;
$$;

comment on function pgstack.search(text, text, integer, text, jsonb) is
'The k chunks of a vectorizer''s source that fit a query best, the best first, of the rows the caller may see.
vectorizer: its name, or its source table''s. query: plain words. k: 1 to 1000, default 10; fewer come when fewer fit.
mode: vector (meaning), text (words) or hybrid (both, by reciprocal rank fusion). filter: {"column": value} over source columns, all of which must be equal.
Returns rank from 1, id: the source row''s key as an object, {"id": 7}, chunk_seq from 0, the chunk, score (higher is better; vector: cosine similarity), and where the chunk stands in the source text, in characters.
Raises PS001 unknown vectorizer, PS002 wrong vector length, PS007 bad argument, PS014 not a reader, and what pgstack.embed() raises.';
