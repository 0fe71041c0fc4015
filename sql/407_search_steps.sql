-- Family: search, its last steps: a model reranks, and rows that repeat others are put back.
-- Callers: 408_search.sql, 409_similar.sql.
-- Errors: PS007 bad argument, and those of pgstack.chat().

-- Both choose from more rows than come back.
create or replace function _pgstack.widen_request(
  request _pgstack.search_request, diversity float8, rerank text
)
returns _pgstack.search_request
language plpgsql immutable
security invoker
set search_path = pg_catalog, pg_temp
as $$
begin
  if diversity is null or diversity not between 0 and 1 then
    perform _pgstack.refuse('diversity', diversity::text, '0 to 1');
  end if;
  if diversity = 0 and rerank is null then
    return request;
  end if;
  request.rows := request.k;
  request.with_vector := diversity > 0;
  if rerank is not null then
    perform _pgstack.require('query', request.query);
    request.rows := greatest(request.rows, 20);
  end if;
  if diversity > 0 then
    request.rows := greatest(request.rows, 50, least(4 * request.k, 500));
  end if;
  return request;
end;
$$;

comment on function _pgstack.widen_request(_pgstack.search_request, float8, text) is
'A request that finds as many rows as the last steps choose from. Raises PS007 for a diversity that is none.';

create or replace function _pgstack.refine_hits(
  request _pgstack.search_request, hits _pgstack.hit[], diversity float8, rerank text
)
returns _pgstack.hit[]
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
begin
  if diversity = 0 and rerank is null then
    return hits;
  end if;
  if rerank is not null then
    hits := _pgstack.rerank(hits, request.query, rerank);
  end if;
  if diversity > 0 then
    hits := _pgstack.diversify(hits, request.k, diversity, rerank is not null);
  end if;
  return _pgstack.numbered_hits(hits[1:request.k]);
end;
$$;

comment on function _pgstack.refine_hits(_pgstack.search_request, _pgstack.hit[], float8, text) is
'The k rows of a search out of those its statement found.';

create or replace function _pgstack.numbered_hits(hits _pgstack.hit[])
returns _pgstack.hit[]
language plpgsql immutable
security invoker
set search_path = pg_catalog, pg_temp
as $$
begin
  for _nr in 1 .. coalesce(cardinality(hits), 0) loop
    hits[_nr].rank := _nr;
  end loop;
  return hits;
end;
$$;

comment on function _pgstack.numbered_hits(_pgstack.hit[]) is
'Rows with their place as their rank.';

-- --------------------------------------------------------------------------- diversity

-- Maximal marginal relevance: of the rows left, always the one next whose relevance, less its
-- likeness to the most like of those chosen, is highest.  Both are shares, so that diversity
-- means the same whatever mode, fusion and model: relevance of the way from the worst score
-- to the best; likeness of the way from how unlike the best row any row is (cosines of one
-- model begin at 0.1, of another at 0.7) to being the same.
create or replace function _pgstack.diversify(
  hits _pgstack.hit[], k integer, diversity float8, by_rank boolean
)
returns _pgstack.hit[]
language plpgsql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _relevance float8[] := _pgstack.relevances(hits, diversify.by_rank);
  _vectors @extschema:vector@.vector[] := array(select h.embedding from unnest(hits) as h);
  _alike float8[];
  _most_alike float8[] := array_fill(0::float8, array[cardinality(_vectors)]);
  _least float8;
  _next integer;
  _order integer[] := '{}';
begin
  for _nr in 1 .. least(diversify.k, cardinality(_vectors)) loop
    select c.nr into _next
    from unnest(_relevance, _most_alike) with ordinality as c (relevance, alike, nr)
    order by (1 - diversify.diversity) * c.relevance - diversify.diversity * c.alike desc, c.nr
    limit 1;
    _order := _order || _next;
    _alike := _pgstack.cosines(_vectors, _vectors[_next]);
    _least := coalesce(_least, least(0.99, (select min(a.cosine) from unnest(_alike) as a (cosine))), 0);
    _most_alike := array(
      select greatest(u.most, (u.cosine - _least) / (1 - _least))
      from unnest(_most_alike, _alike) with ordinality as u (most, cosine, nr)
      order by u.nr
    );
    -- Not again.
    _most_alike[_next] := 'Infinity';
  end loop;
  return array(
    select h.hit
    from unnest(_order) with ordinality as o (place, nr)
    join lateral (select hits[o.place] as hit) as h on true
    order by o.nr
  );
end;
$$;

comment on function _pgstack.diversify(_pgstack.hit[], integer, float8, boolean) is
'The first k rows by maximal marginal relevance; their scores stay. by_rank: their order, and not their score, tells how relevant they are.';

create or replace function _pgstack.relevances(hits _pgstack.hit[], by_rank boolean)
returns float8[]
language plpgsql immutable
security invoker
set search_path = pg_catalog, pg_temp
as $$
begin
  return array(
    select coalesce((s.score - min(s.score) over ()) / nullif(max(s.score) over () - min(s.score) over (), 0), 1)
    from (
      select h.nr, case when by_rank then -h.nr else h.score end as score
      from (
        select u.score, u.nr
        from unnest(hits) with ordinality as u (
          rank, id, chunk_seq, chunk, score, start_char, end_char,
          vector_rank, vector_score, text_rank, text_score, more, embedding, nr
        )
      ) as h
    ) as s
    order by s.nr
  );
end;
$$;

comment on function _pgstack.relevances(_pgstack.hit[], boolean) is
'How relevant rows are: 1 the best, 0 the worst.';

-- A row without a vector, which only words can have found, is like no other.
create or replace function _pgstack.cosines(
  vectors @extschema:vector@.vector[], other @extschema:vector@.vector
)
returns float8[]
language plpgsql immutable
security invoker
set search_path = pg_catalog, pg_temp
as $$
begin
  return array(
    select nullif(1 - (v.embedding operator(@extschema:vector@.<=>) other), 'NaN')
    from unnest(vectors) with ordinality as v (embedding, nr)
    order by v.nr
  );
end;
$$;

comment on function _pgstack.cosines(@extschema:vector@.vector[], @extschema:vector@.vector) is
'The cosine of each vector to another; NULL where one has no direction.';

-- ------------------------------------------------------------------------------ rerank

create or replace function _pgstack.rerank(hits _pgstack.hit[], query text, model text)
returns _pgstack.hit[]
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _chunks text[] := array(select h.chunk from unnest(hits[1:20]) as h);
  _model text := _pgstack.model_name(rerank.model, 'generation_model');
  _answer text;
  _order integer[];
begin
  if cardinality(_chunks) < 2 then
    return hits;
  end if;
  _answer := (
    _pgstack.ask_worker('chat', _pgstack.rerank_payload(_chunks, rerank.query, _model))
  ).answer -> 'message' ->> 'content';
  _order := _pgstack.rerank_order(_answer, cardinality(_chunks));
  return array(
    select h.hit
    from unnest(_order) with ordinality as o (place, nr)
    join lateral (select hits[o.place] as hit) as h on true
    order by o.nr
  ) || hits[21:];
end;
$$;

comment on function _pgstack.rerank(_pgstack.hit[], text, text) is
'Rows, the first 20 in the order of a generation model. Raises what pgstack.chat() raises.';

-- Passages are cut: a small model reads 20 whole ones for a minute, and forgets the first.  It is
-- held to an array: inside an object it may write blanks for ever.
create or replace function _pgstack.rerank_payload(chunks text[], query text, model text)
returns jsonb
language plpgsql immutable
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _count integer := cardinality(chunks);
begin
  return jsonb_build_object(
    'model', rerank_payload.model,
    'messages', jsonb_build_array(
      jsonb_build_object(
        'role', 'system',
        'content',
        'You put search results in order. Write the numbers of the passages, '
        'those first that answer the query best. Answer with a JSON array of numbers.'
      ),
      jsonb_build_object(
        'role', 'user',
        'content', format(
          E'Query: %s\n\nPassages:\n\n%s\n\nQuery: %1$s',
          rerank_payload.query,
          (
            select string_agg(
              format('[%s] %s', c.nr, left(regexp_replace(c.chunk, '\s+', ' ', 'g'), 300)),
              E'\n\n' order by c.nr
            )
            from unnest(chunks) with ordinality as c (chunk, nr)
          )
        )
      )
    ),
    'format', jsonb_build_object(
      'type', 'array', 'minItems', 1, 'maxItems', _count,
      'items', jsonb_build_object('enum', to_jsonb(array(select generate_series(1, _count))))
    ),
    'options', jsonb_build_object('temperature', 0, 'num_predict', 6 * _count + 20)
  );
end;
$$;

comment on function _pgstack.rerank_payload(text[], text, text) is
'The request that asks a model for the order of passages, as Ollama''s /api/chat takes it.';

-- Whatever it wrote, or began to: from the first bracket on, the first mention of each number
-- counts.  What is not named keeps its order behind.
create or replace function _pgstack.rerank_order(answer text, total integer)
returns integer[]
language plpgsql immutable
security invoker
set search_path = pg_catalog, pg_temp
as $$
begin
  return array(
    select n.number
    from (
      select m.parts[1]::integer as number, m.nr
      from regexp_matches(
        substring(rerank_order.answer from '\[.*'), '(?<![\w.-])(\d{1,4})(?![\w])(?!\.\d)', 'g'
      ) with ordinality as m (parts, nr)
      union all
      select g.number, 100000 + g.number from generate_series(1, rerank_order.total) as g (number)
    ) as n
    where n.number between 1 and rerank_order.total
    group by n.number
    order by min(n.nr)
  );
end;
$$;

comment on function _pgstack.rerank_order(text, integer) is
'The order of the numbers 1 to total that a model wrote: each of them once.';
