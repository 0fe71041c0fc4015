-- Family: the chunking lab.  Cuts a sample of a table's texts in several ways and says what
-- comes out; with a judged set also how well each way is found.  427_chunking_sample.sql draws
-- the sample.
-- Callers: people, pgstack/chunking.py.
-- Errors: PS007 bad argument, PS013 no key, PS017 unknown judged set, and those of
--         pgstack.chunk() and embed_many().
--
-- Nothing is written anywhere: documents, chunks and vectors are held by the one statement, so
-- who stops it leaves nothing.
--
-- Quality is that of plain search by vector for documents, the best chunk of each, exact and
-- over the sample alone.  Fewer documents are in each other's way than in the whole table, so
-- the values are good for comparing ways of cutting with each other, and for nothing else.

-- ----------------------------------------------------------------------- what is measured

create or replace function _pgstack.lab_cut(bodies text[], chunking _pgstack.chunking)
returns table (doc integer, seq integer, start_char integer, end_char integer, chunk text)
language plpgsql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
begin
  return query
  select b.nr::integer, c.seq, c.start_char, c.end_char, c.chunk
  from unnest(bodies) with ordinality as b (body, nr)
  cross join lateral pgstack.chunk(
    _pgstack.mask(b.body, chunking.mask_pii), chunking.method, chunking.size, chunking.overlap,
    chunking.separators, chunking.is_regex, chunking.keep_separator
  ) as c;
end;
$$;

comment on function _pgstack.lab_cut(text[], _pgstack.chunking) is
'The chunks of some texts. doc: the text''s number, from 1.';

-- One byte a character, so that a place in it is found without walking from its start.
create or replace function _pgstack.lab_flat(input text)
returns bytea
language sql immutable strict parallel safe
security invoker
set search_path = pg_catalog, pg_temp
as $$
  select convert_to(
    regexp_replace(
      translate(input, '。！？…‼⁇⁈⁉।؟۔”’»）」』', E'\x01\x01\x01.!?!?.?.""")""'), '[^\x01-\x7F]', 'x', 'g'
    ),
    'UTF8'
  );
$$;

comment on function _pgstack.lab_flat(text) is
'A text as one byte a character: stops and closing quotes of other scripts as those of ASCII, those behind which no space is written as the byte 1, other characters as x.';

-- Where a separator stays at the start of the next chunk, a stop stands there.
create or replace function _pgstack.lab_is_border(flat bytea, at_char integer)
returns boolean
language sql immutable strict parallel safe
security invoker
set search_path = pg_catalog, pg_temp
as $$
  select
    x.before !~ '\S' or x.after !~ '\S'
    or x.before ~ '[.!?:][.!?")\]'']*\s+$'
    or x.before ~ '[.!?:][.!?")\]'']*$' and x.after ~ '^\s'
    or x.after ~ '^[.!?]+(["'')\]]|\s|$)'
    or x.before ~ '\x01[")\]'']*$'
    -- An empty line, a page; a line that begins a heading, an item, a quotation, a table.
    or g.gap ~ '\n[ \t\r]*\n|\f'
    or g.gap ~ '\n' and x.after ~ '^\s*([-*+#|>]|([0-9]+[.)])+\s)'
  from (
    select
      convert_from(substring(flat from greatest(at_char - 60, 0) + 1 for least(at_char, 60)), 'UTF8')
        as before,
      convert_from(substring(flat from at_char + 1 for 60), 'UTF8') as after
  ) as x
  cross join lateral (
    select substring(x.before from '\s*$') || substring(x.after from '^\s*') as gap
  ) as g;
$$;

comment on function _pgstack.lab_is_border(bytea, integer) is
'Whether a sentence, paragraph, item or page ends at a place, as far as its signs tell. flat: see lab_flat().';

create or replace function _pgstack.lab_measure(
  flats bytea[], docs integer[], starts integer[], ends integer[], texts text[]
)
returns table (
  chunks bigint, min_chars integer, median_chars integer, p95_chars integer, max_chars integer,
  median_tokens integer, max_tokens integer, cut_sentences float8, duplication float8
)
language plpgsql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
begin
  return query
  select
    count(*), min(m.chars), percentile_disc(0.5) within group (order by m.chars),
    percentile_disc(0.95) within group (order by m.chars), max(m.chars),
    percentile_disc(0.5) within group (order by m.tokens), max(m.tokens),
    avg((not m.is_clean)::integer)::float8,
    sum(m.end_char - m.start_char)::float8 / nullif(sum(m.new_chars), 0)
  from (
    select
      c.start_char, c.end_char, length(c.chunk) as chars, pgstack.estimate_tokens(c.chunk) as tokens,
      _pgstack.lab_is_border(f.flat, c.start_char) and _pgstack.lab_is_border(f.flat, c.end_char)
        as is_clean,
      -- What no chunk before it holds.
      greatest(0, c.end_char - greatest(c.start_char, coalesce(max(c.end_char) over (
        partition by c.doc order by c.start_char, c.end_char
        rows between unbounded preceding and 1 preceding
      ), 0))) as new_chars
    from unnest(lab_measure.docs, lab_measure.starts, lab_measure.ends, lab_measure.texts)
      as c (doc, start_char, end_char, chunk)
    join unnest(lab_measure.flats) with ordinality as f (flat, nr) on f.nr = c.doc
  ) as m;
end;
$$;

comment on function _pgstack.lab_measure(bytea[], integer[], integer[], integer[], text[]) is
'Sizes, cut sentences and repetition of chunks, one row.';

-- ------------------------------------------------------------------------------ quality

create or replace function _pgstack.lab_embed(texts text[], model text)
returns @extschema:vector@.vector[]
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _batch constant integer := 64;
  _n constant integer := coalesce(cardinality(texts), 0);
  _vectors @extschema:vector@.vector[] := '{}';
  _began timestamptz := clock_timestamp();
  _done integer := 0;
begin
  while _done < _n loop
    _vectors := _vectors || array(
      select e.embedding
      from pgstack.embed_many(texts[_done + 1:_done + _batch], model, 'document') as e
      order by e.seq
    );
    _done := least(_done + _batch, _n);
    raise notice '% of % texts embedded, about % left', _done, _n,
      date_trunc('second', (clock_timestamp() - _began) * ((_n - _done)::float8 / _done));
  end loop;
  return _vectors;
end;
$$;

comment on function _pgstack.lab_embed(text[], text) is
'The vectors of many texts, batch by batch, with notices of how far it is.';

-- The best chunk of each document counts, as with search(per => 'row').
create or replace function _pgstack.lab_score(
  docs integer[], chunks text[], texts text[], vectors @extschema:vector@.vector[],
  queries @extschema:vector@.vector[], judged_queries integer[], judged_docs integer[],
  grades integer[], out ndcg float8[], out recall float8[]
)
language plpgsql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
begin
  with judged as materialized (
    select
      j.query, j.doc, j.grade,
      row_number() over (partition by j.query order by j.grade desc) as nr
    from unnest(judged_queries, judged_docs, grades) as j (query, doc, grade)
  ),
  ideal as (
    select j.query, count(*) as relevant, sum(j.grade * ln(2) / ln(j.nr + 1)) filter (where j.nr <= 10) as dcg
    from judged as j group by j.query
  ),
  ranked as materialized (
    select n.query, n.doc, row_number() over (partition by n.query order by n.distance, n.doc) as rank
    from (
      select q.nr as query, c.doc, min(t.embedding operator(@extschema:vector@.<=>) q.embedding) as distance
      from unnest(lab_score.docs, lab_score.chunks) as c (doc, chunk)
      join unnest(lab_score.texts, lab_score.vectors) as t (chunk, embedding) on t.chunk = c.chunk
      cross join unnest(lab_score.queries) with ordinality as q (embedding, nr)
      group by q.nr, c.doc
    ) as n
  ),
  gained as (
    select r.query, count(*) as hits, sum(j.grade * ln(2) / ln(r.rank + 1)) as dcg
    from ranked as r
    join judged as j on j.query = r.query and j.doc = r.doc
    where r.rank <= 10
    group by r.query
  )
  select
    array_agg(coalesce(g.dcg / i.dcg, 0) order by i.query),
    array_agg(coalesce(g.hits::float8 / i.relevant, 0) order by i.query)
  into lab_score.ndcg, lab_score.recall
  from ideal as i left join gained as g on g.query = i.query;
end;
$$;

comment on function _pgstack.lab_score(
  integer[], text[], text[], @extschema:vector@.vector[], @extschema:vector@.vector[], integer[],
  integer[], integer[]
) is
'nDCG@10 and recall@10 of each query, by the nearest chunk of each document.';

-- --------------------------------------------------------------------------------- all

create or replace function _pgstack.lab_texts(
  corpus _pgstack.lab_corpus, chunkings _pgstack.chunking[], max_texts integer
)
returns text[]
language plpgsql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _texts text[] := array(
    select distinct c.chunk
    from unnest(chunkings) as m
    cross join lateral _pgstack.lab_cut(corpus.bodies, m) as c
    where c.chunk <> ''
  );
begin
  if cardinality(_texts) + cardinality(corpus.queries) > lab_texts.max_texts then
    raise exception 'the model would be given % chunks and % queries, more than %',
      cardinality(_texts), cardinality(corpus.queries), lab_texts.max_texts
      using errcode = 'PS007',
      hint = 'A smaller sample, fewer methods, or: max_texts => '
        || cardinality(_texts) + cardinality(corpus.queries);
  end if;
  return _texts;
end;
$$;

comment on function _pgstack.lab_texts(_pgstack.lab_corpus, _pgstack.chunking[], integer) is
'The different chunks of all ways of cutting. Raises PS007 when these are too many for a model.';

create or replace function pgstack.chunking_lab(
  source regclass,
  content name,
  methods jsonb default null,
  sample integer default 100,
  judged text default null,
  model text default null,
  doc_column name default null,
  max_texts integer default 5000,
  seed bigint default 1
)
returns table (
  method text, size integer, overlap integer, options jsonb, documents integer, chunks bigint,
  min_chars integer, median_chars integer, p95_chars integer, max_chars integer,
  median_tokens integer, max_tokens integer, cut_sentences float8, duplication float8,
  mb_per_second float8, queries integer, texts bigint, ndcg float8, ndcg_low float8,
  ndcg_high float8, recall float8, p_value float8
)
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _chunkings _pgstack.chunking[];
  _chunking _pgstack.chunking;
  _corpus _pgstack.lab_corpus;
  _docs integer[];
  _starts integer[];
  _ends integer[];
  _chunks text[];
  _texts text[];
  _vectors @extschema:vector@.vector[];
  _query_vectors @extschema:vector@.vector[];
  _ndcg float8[];
  _recall float8[];
  _first float8[];
  _began timestamptz;
  _warm bigint;
begin
  perform _pgstack.require('source', chunking_lab.source);
  perform _pgstack.require('seed', chunking_lab.seed);
  perform _pgstack.check_columns(chunking_lab.source, array[chunking_lab.content]);
  if (chunking_lab.sample between 1 and 100000) is not true
    or (chunking_lab.max_texts >= 1) is not true
  then
    raise exception 'sample cannot be %, or max_texts cannot be %',
      chunking_lab.sample, chunking_lab.max_texts
      using errcode = 'PS007', hint = 'Pass 1 to 100000 documents, and 1 text or more.';
  end if;
  _chunkings := array(
    select m from _pgstack.lab_methods(coalesce(chunking_lab.methods, _pgstack.lab_usual())) as m
  );
  _corpus := _pgstack.lab_corpus(
    chunking_lab.source, chunking_lab.content, chunking_lab.sample, chunking_lab.judged,
    chunking_lab.doc_column, chunking_lab.seed
  );
  documents := cardinality(_corpus.bodies);
  queries := cardinality(_corpus.queries);
  if queries > 0 then
    _texts := _pgstack.lab_texts(_corpus, _chunkings, chunking_lab.max_texts);
    _query_vectors := array(
      select e.embedding from pgstack.embed_many(_corpus.queries, chunking_lab.model, 'query') as e
      order by e.seq
    );
    _vectors := _pgstack.lab_embed(_texts, chunking_lab.model);
  end if;
  foreach _chunking in array _chunkings loop
    -- Its functions are planned when they are first called.
    select count(*) into _warm from _pgstack.lab_cut(_corpus.bodies[:1], _chunking);
    _began := clock_timestamp();
    select array_agg(c.doc), array_agg(c.start_char), array_agg(c.end_char), array_agg(c.chunk)
    into _docs, _starts, _ends, _chunks
    from _pgstack.lab_cut(_corpus.bodies, _chunking) as c;
    mb_per_second := (select sum(octet_length(b.body)) from unnest(_corpus.bodies) as b (body))
      / 1e6 / extract(epoch from clock_timestamp() - _began);
    method := _chunking.method;
    size := _chunking.size;
    overlap := _chunking.overlap;
    options := nullif(
      jsonb_strip_nulls(to_jsonb(_chunking)) - array['method', 'size', 'overlap']
        - case when _chunking.is_regex then '' else 'is_regex' end,
      '{}'
    );
    select m.* into chunks, min_chars, median_chars, p95_chars, max_chars, median_tokens, max_tokens,
      cut_sentences, duplication
    from _pgstack.lab_measure(_corpus.flats, _docs, _starts, _ends, _chunks) as m;
    if queries > 0 then
      texts := (select count(distinct c.chunk) from unnest(_chunks) as c (chunk));
      select s.ndcg, s.recall into _ndcg, _recall
      from _pgstack.lab_score(
        _docs, _chunks, _texts, _vectors, _query_vectors, _corpus.judged_queries,
        _corpus.judged_docs, _corpus.grades
      ) as s;
      _first := coalesce(_first, _ndcg);
      ndcg := (select avg(n.value) from unnest(_ndcg) as n (value));
      recall := (select avg(n.value) from unnest(_recall) as n (value));
      select b.bounds[1], b.bounds[2] into ndcg_low, ndcg_high
      from _pgstack.bootstrap(_ndcg, chunking_lab.seed) as b (bounds);
      p_value := _pgstack.randomisation_p(
        (select array_agg(d.a - d.b order by d.nr) from unnest(_ndcg, _first) with ordinality as d (a, b, nr)),
        chunking_lab.seed
      );
    end if;
    return next;
  end loop;
end;
$$;

comment on function pgstack.chunking_lab(
  regclass, name, jsonb, integer, text, text, name, integer, bigint
) is
'Cuts a sample of a table''s texts in several ways and says what comes out, a row a way; with a judged set also how well the documents are found. Writes nothing, and reads as the caller.
source, content: a table and its text column. methods: [{"method": "sentence", "size": 600, "overlap": 0}, ...] with the arguments of pgstack.chunk() (size default 800, overlap default 0) and mask_pii; NULL: six usual ones. sample: documents, drawn by seed.
judged: a set of pgstack.eval_sets; half of the sample at most are the documents that answer as many of its queries, the others are drawn. model: for chunks and queries, default the setting embedding_model. doc_column: as for pgstack.evaluate().
max_texts: more texts than these are not given to the model, PS007 says how many it would be; about 20 a second on a small machine. Notices tell how far it is, and stopping the statement stops the model.
options: separators and the like. min_chars to max_chars: sizes of the chunks; median_tokens, max_tokens: by pgstack.estimate_tokens(): a model leaves out what is beyond its context.
cut_sentences: share of the chunks that begin or end inside a sentence, as far as stops, empty lines and list marks tell. duplication: characters of all chunks by those of the text they cover, 1 where nothing is said twice. mb_per_second: of text cut, on this machine now.
queries, texts: how many queries count, how many different chunks were embedded. ndcg, recall: at 10, of plain search by vector for documents (by their best chunk) in the sample; ndcg_low, ndcg_high: its 95 % confidence interval over the queries. p_value: how likely as great a difference from the first row is if both ways are as good.
A sample is easier to search than the whole table: compare rows with each other, not with pgstack.evaluate().
Raises PS007 bad argument, PS013 no primary key and no doc_column, PS017 unknown set, and what pgstack.chunk() and embed_many() raise.';
