-- Family: the statement of a search.  Chooses routes, writes the branches, fuses them.
-- Callers: 408_search.sql.
-- Errors: PS007 bad argument.

-- What is asked, made complete: no field but embedding, vector_weight and those of the index is
-- NULL once _pgstack.complete_request() is done.
do $do$
begin
  perform _pgstack.define_type('search_request', $type$
    query text, embedding @extschema:vector@.vector, k integer, mode text, condition text,
    per text, fusion text, vector_weight float8, rrf_k integer, depth integer,
    rows integer, with_vector boolean, all_or_none boolean,
    target_recall float8, words _pgstack.words, index regclass, index_method text, index_type text,
    vector_route text, text_route text, matching bigint, counted_to bigint, explained text
  $type$);
  perform _pgstack.define_type('hit', $type$
    rank integer, id jsonb, chunk_seq integer, chunk text, score float8,
    start_char integer, end_char integer,
    vector_rank integer, vector_score float8, text_rank integer, text_score float8,
    more jsonb, embedding @extschema:vector@.vector
  $type$);
end;
$do$;

comment on type _pgstack.search_request is
'A search: what pgstack.search() was asked, and by which indexes and routes it goes. rows: how many the statement returns, k or more. all_or_none: it returns that many or nothing. matching: source rows that satisfy the condition, counted up to counted_to. explained: plan or sql, what 414_explain_run.sql is to note of each run, or share, when the weight of the vector branch is all that is asked; NULL: nothing.';
comment on type _pgstack.hit is
'A row of pgstack.search(), with its vector where a later step needs it.';

-- ------------------------------------------------------------------------------ routes

-- How many source rows satisfy a condition and may be seen, counted no further than needed.
create or replace function _pgstack.matching_rows(
  plan _pgstack.vectorizer_plan, condition text, most bigint
)
returns bigint
language plpgsql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _count bigint;
begin
  execute format(
    'select count(*) from (select from %s as %s where %s limit $1) as m',
    plan.source, case when plan.has_table then 'k' else 'r' end, condition
  ) into _count using most;
  return _count;
end;
$$;

comment on function _pgstack.matching_rows(_pgstack.vectorizer_plan, text, bigint) is
'The number of source rows that satisfy a condition and that the caller sees, most at most.';

-- Walking along an index past rows that do not match takes about depth * chunks / matching
-- steps; reading those that match takes as many as there are.  The two meet where
-- matching^2 = depth * chunks * ratio, ratio being what a step costs beside a chunk read:
-- for vectors 7 (a step compares with the neighbours in the graph), for words 1/20 (a
-- chunk outside the index must be taken apart again).
create or replace function _pgstack.choose_routes(
  plan _pgstack.vectorizer_plan, request _pgstack.search_request
)
returns _pgstack.search_request
language plpgsql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _chunks float8;
  _chunks_per_row float8;
  _few float8;
  _matching float8;
begin
  request.vector_route := 'index';
  request.text_route := case when (request.words).method is null then 'all' else 'index' end;
  if request.condition = 'true' and not row_security_active(plan.source) then
    return request;
  end if;
  if (request.words).method = 'tsvector' then
    request.text_route := 'all';
  end if;
  _chunks := _pgstack.expected_chunks(plan);
  _chunks_per_row := greatest(1, _chunks / (
    select greatest(c.reltuples, 1000) from pg_class as c where c.oid = plan.source::regclass
  ));
  _few := sqrt(7 * request.depth * _chunks);
  request.counted_to := (_few / _chunks_per_row)::bigint + 1;
  request.matching := _pgstack.matching_rows(plan, request.condition, request.counted_to);
  _matching := _chunks_per_row * request.matching;
  if _matching <= _few then
    request.vector_route := 'matching';
  end if;
  if _matching <= sqrt(request.depth * _chunks / 20) then
    request.text_route := 'matching';
  end if;
  return request;
end;
$$;

comment on function _pgstack.choose_routes(_pgstack.vectorizer_plan, _pgstack.search_request) is
'The request with the routes of its branches: index, matching or all. That of vectors is index also where there is none: who looks it up corrects that.';

-- --------------------------------------------------------------------------- statement

-- The share of vector beside text, from 0.1 to 0.9, by what the branches t found for this query.
-- How far the best 20 chunks by words fall off says how sure the words are; whether meaning
-- and words agree over them says if the vectors know the language at all.  Found by measuring
-- on six collections, and no more than that: docs/adr/0010-fusion.md.
create or replace function _pgstack.fusion_weight(
  plan _pgstack.vectorizer_plan, request _pgstack.search_request
)
returns text
language plpgsql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
begin
  if request.vector_weight is not null or request.fusion = 'rrf' then
    return format('select %s::float8 as share', coalesce(request.vector_weight, 0.5));
  end if;
  return format(
    $sql$
    select case
      when w.found = 0 or w.best = w.twentieth then 0.9::float8
      when w.twentieth is null then %s::float8
      else greatest(0.1::float8, least(0.9::float8, 1 - 1 / (
        1 + 10 * least(0.2::float8, greatest(0, w.agreement))
          / power(w.best / w.twentieth - 1, 1.5::float8)
      )))
    end as share
    from (
      select count(*) as found, max(t.score) as best, max(t.score) filter (where t.nr = 20) as twentieth,
        coalesce(case when count(*) >= 5 then corr(t.score, t.cosine) end, 0.2) as agreement
      from text_ranked as t
    ) as w
    $sql$,
    -- Fewer than 20 chunks hold a word: rare words are sure, those of a small table may be any.
    case when _pgstack.expected_chunks(plan) < 1000 then 0.5 else 0.1 end
  );
end;
$$;

comment on function _pgstack.fusion_weight(_pgstack.vectorizer_plan, _pgstack.search_request) is
'SQL for one row, share: the weight of the vector branch in a fused score, 0 to 1.';

-- The score of a chunk that the branches v and t found, w.share the weight of v.
create or replace function _pgstack.fusion_score(request _pgstack.search_request)
returns text
language plpgsql immutable
security invoker
set search_path = pg_catalog, pg_temp
as $$
begin
  if request.fusion = 'rrf' then
    return format(
      '2 * (coalesce(w.share / (%1$s + v.nr), 0) + coalesce((1 - w.share) / (%1$s + t.nr), 0))',
      request.rrf_k
    );
  end if;
  -- Each score as a share of the way from the worst to the best that its branch found.
  return
    'w.share * coalesce((v.score - v.worst) / nullif(v.best - v.worst, 0), (v.nr is not null)::integer)'
    ' + (1 - w.share)'
    ' * coalesce((t.score - t.worst) / nullif(t.best - t.worst, 0), (t.nr is not null)::integer)';
end;
$$;

comment on function _pgstack.fusion_score(_pgstack.search_request) is
'SQL for the fused score of a chunk.';

-- One branch, chunk by chunk: nothing to fuse or to group.
create or replace function _pgstack.plain_statement(
  request _pgstack.search_request, branch text, keys text, pairs text
)
returns text
language plpgsql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
begin
  return format(
    $sql$
    select b.nr as rank, jsonb_build_object(%1$s) as id, b.chunk_seq, b.chunk, b.score,
      b.start_char, b.end_char, %2$s, null::jsonb as more, %3$s as embedding
    from (
      select h.*, row_number() over whole::integer as nr%6$s
      from (%5$s) as h
      window whole as (
        order by h.score desc, %4$s h.chunk_seq rows between unbounded preceding and unbounded following
      )
    ) as b
    where %7$s
    $sql$,
    pairs,
    case request.mode
      when 'vector' then 'b.nr as vector_rank, b.score as vector_score, null::integer as text_rank, null::float8 as text_score'
      else 'null::integer as vector_rank, null::float8 as vector_score, b.nr as text_rank, b.score as text_score'
    end,
    case when request.with_vector then 'b.embedding' else 'null::@extschema:vector@.vector' end,
    keys, branch,
    case when request.all_or_none then ', count(*) over whole as found' else '' end,
    case when request.all_or_none then 'b.found = $5' else 'b.nr <= $5' end
  );
end;
$$;

comment on function _pgstack.plain_statement(_pgstack.search_request, text, text, text) is
'SQL of a search by one branch. keys: the key columns, each with a comma behind; pairs: names and values of the key.';

create or replace function _pgstack.search_statement(
  plan _pgstack.vectorizer_plan, request _pgstack.search_request
)
returns text
language plpgsql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _keys text := '';
  _pairs text := '';
  _vector text;
  _text text;
  _with text;
  _stored text := case
    when request.with_vector then format(', r.%I as embedding', plan.embedding_column) else ''
  end;
  _cosine text := case when request.mode = 'hybrid' then format(
    ', 1 - (r.%I operator(@extschema:vector@.<=>) $1) as cosine', plan.embedding_column
  ) else '' end;
begin
  for _nr in 1 .. cardinality(plan.key_columns) loop
    _keys := _keys || format('key_%s, ', _nr);
    _pairs := _pairs || format('%L, b.key_%s, ', plan.key_columns[_nr], _nr);
  end loop;
  _pairs := trim(trailing ', ' from _pairs);
  if request.mode <> 'text' then
    _vector := _pgstack.vector_branch(
      plan, request.vector_route, request.condition, request.index_type, _stored
    );
  end if;
  if request.mode <> 'vector' then
    _text := _pgstack.text_branch(
      plan, request.text_route, request.condition, request.words, _stored || _cosine
    );
  end if;
  if request.per = 'chunk' and request.mode <> 'hybrid' then
    return _pgstack.plain_statement(request, coalesce(_vector, _text), _keys, _pairs);
  end if;
  _with := concat_ws(
    ', ', _pgstack.ranked_branch('vector', _vector, _keys), _pgstack.ranked_branch('text', _text, _keys),
    case request.mode when 'hybrid' then
      'fusion as materialized (' || _pgstack.fusion_weight(plan, request) || ')' end
  );
  if request.explained = 'share' then
    return format('with %s select w.share from fusion as w', _with);
  end if;
  return format(
    $sql$
    with %1$s, fused as (%2$s), best as (%3$s)
    select (row_number() over (order by b.score desc, %4$s b.chunk_seq))::integer as rank,
      jsonb_build_object(%5$s) as id, b.chunk_seq, b.chunk, b.score, b.start_char, b.end_char,
      b.vector_rank, b.vector_score, b.text_rank, b.text_score, b.more, %6$s as embedding
    from best as b
    $sql$,
    _with, _pgstack.fused_hits(request, _keys), _pgstack.best_hits(request, _keys), _keys, _pairs,
    case when request.with_vector then 'b.embedding' else 'null::@extschema:vector@.vector' end
  );
end;
$$;

comment on function _pgstack.search_statement(_pgstack.vectorizer_plan, _pgstack.search_request) is
'The SQL of a whole search; order its rows by rank. Its parameters: $1 vector, $2 text, $3 any of the words, $4 depth, $5 rows, $6 each of the words.';

-- The candidates of a branch, and these with their ranks and the ends of their scores.  The
-- worst is what was cut off behind, or nothing at all.
create or replace function _pgstack.ranked_branch(name text, branch text, keys text)
returns text
language plpgsql immutable strict
security invoker
set search_path = pg_catalog, pg_temp
as $$
begin
  return format(
    '%1$s_hit as materialized (%2$s), %1$s_ranked as materialized (select h.*, '
    'row_number() over whole::integer as nr, max(h.score) over whole as best, '
    'case when count(*) over whole < $4 then %4$s else min(h.score) over whole end as worst '
    'from %1$s_hit as h window whole as (order by h.score desc, %3$s h.chunk_seq '
    'rows between unbounded preceding and unbounded following))',
    name, branch, keys, case name when 'text' then '0' else 'min(h.score) over whole' end
  );
end;
$$;

comment on function _pgstack.ranked_branch(text, text, text) is
'Two common table expressions, <name>_hit and <name>_ranked, for a branch; NULL for none.';

create or replace function _pgstack.fused_hits(request _pgstack.search_request, keys text)
returns text
language plpgsql immutable
security invoker
set search_path = pg_catalog, pg_temp
as $$
begin
  return case request.mode
    when 'vector' then
      'select v.*, v.nr as vector_rank, v.score as vector_score, '
      'null::integer as text_rank, null::float8 as text_score from vector_ranked as v'
    when 'text' then
      'select t.*, null::integer as vector_rank, null::float8 as vector_score, '
      't.nr as text_rank, t.score as text_score from text_ranked as t'
    else format(
      'select %1$s chunk_seq, coalesce(v.chunk, t.chunk) as chunk, '
      'coalesce(v.start_char, t.start_char) as start_char, coalesce(v.end_char, t.end_char) as end_char%2$s, '
      '%3$s as score, v.nr as vector_rank, v.score as vector_score, t.nr as text_rank, t.score as text_score '
      'from (vector_ranked as v full join text_ranked as t using (%1$s chunk_seq)) cross join fusion as w',
      keys,
      case when request.with_vector then ', coalesce(v.embedding, t.embedding) as embedding' else '' end,
      _pgstack.fusion_score(request)
    )
  end;
end;
$$;

comment on function _pgstack.fused_hits(_pgstack.search_request, text) is
'SQL for the candidates of all branches, each once, with its score.';

-- Chunk by chunk, or the best of each source row with the others beside it.
create or replace function _pgstack.best_hits(request _pgstack.search_request, keys text)
returns text
language plpgsql immutable
security invoker
set search_path = pg_catalog, pg_temp
as $$
begin
  if request.per = 'chunk' then
    return format(
      'select f.*, null::jsonb as more from fused as f order by f.score desc, %s f.chunk_seq limit $5',
      keys
    );
  end if;
  return format(
    $sql$
    select f.*
    from (
      select p.*,
        row_number() over (partition by %2$s order by p.score desc, p.chunk_seq) as place,
        jsonb_agg(jsonb_build_object(
          'chunk_seq', p.chunk_seq, 'score', p.score,
          'start_char', p.start_char, 'end_char', p.end_char
        )) over (
          partition by %2$s order by p.score desc, p.chunk_seq
          rows between 1 following and unbounded following
        ) as more
      from fused as p
    ) as f
    where f.place = 1
    order by f.score desc, %1$s f.chunk_seq
    limit $5
    $sql$,
    keys, trim(trailing ', ' from keys)
  );
end;
$$;

comment on function _pgstack.best_hits(_pgstack.search_request, text) is
'SQL for the rows of a search out of the fused candidates. keys: their key columns, each with a comma behind.';
