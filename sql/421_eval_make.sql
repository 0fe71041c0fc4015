-- Family: judged sets.  Sets that nobody has to judge: from clicks, and from the corpus itself.
-- Callers: people.
-- Errors: PS001 unknown vectorizer, PS007 bad argument, PS012 name taken, PS017 unknown set.

-- ---------------------------------------------------------------------- from clicks

-- Grades are relative to the query's most chosen document: what is asked for a hundred
-- times a day and what is asked for twice a week weigh the same.
create or replace function pgstack.judge_from_clicks(
  set text, source regclass, query_column name, doc_column name, min_clicks integer default 2
)
returns bigint
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _set bigint := _pgstack.eval_set_id(judge_from_clicks.set);
  _judged bigint;
begin
  perform _pgstack.check_columns(source, array[query_column, judge_from_clicks.doc_column]);
  if coalesce(judge_from_clicks.min_clicks, 0) < 1 then
    raise exception 'min_clicks cannot be %', judge_from_clicks.min_clicks
      using errcode = 'PS007', hint = 'Pass 1 or more.';
  end if;
  execute format(
    $sql$
    with clicks as (
      select
        left(encode(sha256(convert_to(c.query, 'UTF8')), 'hex'), 16) as query_id,
        c.query, c.doc, count(*) as clicks
      from (
        select
          trim(regexp_replace(lower(s.%1$I::text), '\s+', ' ', 'g')) as query, s.%2$I::text as doc
        from %3$s as s
      ) as c
      where c.query <> '' and c.doc <> ''
      group by c.query, c.doc
      having count(*) >= $2
    ),
    queries as (
      insert into _pgstack.eval_query as q (set_id, query_id, text)
      select distinct $1, k.query_id, k.query from clicks as k
      on conflict on constraint eval_query_pkey do nothing
    )
    insert into _pgstack.eval_judgment as j (set_id, query_id, doc_id, grade)
    select
      $1, k.query_id, k.doc,
      case
        when 2 * k.clicks >= max(k.clicks) over (partition by k.query_id) then 3
        when 4 * k.clicks >= max(k.clicks) over (partition by k.query_id) then 2
        else 1
      end
    from clicks as k
    on conflict on constraint eval_judgment_pkey do update set grade = excluded.grade
    $sql$,
    query_column, judge_from_clicks.doc_column, source
  ) using _set, judge_from_clicks.min_clicks;
  get diagnostics _judged = row_count;
  update _pgstack.eval_set as s set origin = 'clicks' where s.id = _set and s.origin = 'hand';
  return _judged;
end;
$$;

comment on function pgstack.judge_from_clicks(text, regclass, name, name, integer) is
'Judges by what people chose: a log with a row a click, or a row a thumb up, becomes judgements. Returns how many.
set: a judged set, such as pgstack.create_eval_set() makes. source: a table or view. query_column: what was searched for; upper case and spaces do not matter. doc_column: what was chosen, as in judge().
min_clicks: pairs chosen less often are left out, default 2. Grade 3: at least half as often as the query''s most chosen document; 2: at least a quarter; 1: less.
What people chose depends on what they were shown: a document that nobody was shown counts as a wrong answer, and the first places get clicks for being first. Use such a set to notice that a change made things worse, not to choose between very different searches.
Called again, it updates the grades; it takes none back.
Raises PS007 no such column, PS017 unknown set.';

create or replace function _pgstack.check_columns(relation regclass, columns name[])
returns void
language plpgsql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _odd name;
begin
  select n.name into _odd
  from unnest(check_columns.columns) as n (name)
  where n.name is null or not exists (
    select from pg_attribute as a
    where a.attrelid = check_columns.relation and a.attname = n.name
      and a.attnum > 0 and not a.attisdropped
  )
  limit 1;
  if found then
    raise exception '% has no column "%"', check_columns.relation, coalesce(_odd, 'NULL')
      using errcode = 'PS007', hint = format('\d %s', check_columns.relation);
  end if;
end;
$$;

comment on function _pgstack.check_columns(regclass, name[]) is
'Raises PS007 when a relation lacks one of the columns.';

-- ---------------------------------------------------------------------- known items

-- The rows whose digest with the seed is smallest: the same rows each time, and most of
-- them still when rows are added.
create or replace function _pgstack.known_items(
  plan _pgstack.vectorizer_plan, n integer, seed bigint
)
returns table (key jsonb, chunk text)
language plpgsql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
begin
  return query execute format(
    $sql$
    with items as materialized (
      select k.*, k.key as row_key
      from (select %1$s as key, %2$s from %3$s as r) as k
      order by hashtextextended(k.key::text, $2), k.key
      limit $1
    )
    select distinct on (k.row_key) k.row_key, r.%4$I::text
    from items as k join %5$s as r on %6$s
    where r.%4$I::text ~ '\w'
    order by k.row_key, hashtextextended(r.%4$I::text, $2), r.%4$I::text
    $sql$,
    plan.key_json, plan.key_list, plan.source,
    case when plan.has_table then 'chunk' else plan.content_column end,
    plan.target, plan.key_match
  ) using known_items.n, known_items.seed;
end;
$$;

comment on function _pgstack.known_items(_pgstack.vectorizer_plan, integer, bigint) is
'Source rows drawn by a seed, each with one of its chunks.';

-- A language without spaces has one long word a sentence: it is cut by characters.
create or replace function _pgstack.query_words(chunk text)
returns text[]
language sql immutable strict parallel safe
security invoker
set search_path = pg_catalog, pg_temp
as $$
  select array_agg(m.word[1] order by m.nr)
  from regexp_matches(query_words.chunk, '[^\s[:punct:]]{1,24}', 'g') with ordinality as m (word, nr);
$$;

comment on function _pgstack.query_words(text) is
'The words of a chunk in order, very long ones in pieces.';

create or replace function _pgstack.query_text(words text[])
returns text
language sql immutable strict parallel safe
security invoker
set search_path = pg_catalog, pg_temp
as $$
  select case
    when length(q.text) <= 80 then q.text
    else coalesce(substring(left(q.text, 81) from '^(.*\S)\s'), left(q.text, 80))
  end
  from (select array_to_string(query_text.words, ' ')) as q (text);
$$;

comment on function _pgstack.query_text(text[]) is
'Words as a query of at most 80 characters.';

create or replace function _pgstack.eval_doc_id(key jsonb)
returns text
language sql immutable strict parallel safe
security invoker
set search_path = pg_catalog, pg_temp
as $$
  select case when count(*) = 1 then min(k.value) else eval_doc_id.key::text end
  from jsonb_each_text(eval_doc_id.key) as k;
$$;

comment on function _pgstack.eval_doc_id(jsonb) is
'A row''s key as judgements name it: the value of a key of one column, else the whole object.';

create or replace function pgstack.known_item_set(
  set text, vectorizer text, n integer default 100, words integer default 7, seed bigint default 1
)
returns bigint
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _plan _pgstack.vectorizer_plan := _pgstack.vectorizer_plan(known_item_set.vectorizer);
  _set bigint;
  _made bigint;
begin
  perform _pgstack.require('seed', known_item_set.seed);
  if (n between 1 and 100000) is not true or (words between 1 and 50) is not true then
    raise exception 'n cannot be %, or words cannot be %', n, words
      using errcode = 'PS007', hint = 'Pass 1 to 100000 queries of 1 to 50 words.';
  end if;
  perform _pgstack.check_reader(_plan);
  _set := pgstack.create_eval_set(
    known_item_set.set, format('%s words of a row of %s each, seed %s', words, _plan.name, seed)
  );
  update _pgstack.eval_set as s set origin = 'known items' where s.id = _set;
  with items as materialized (
    select _pgstack.eval_doc_id(i.key) as id, _pgstack.query_words(i.chunk) as tokens
    from _pgstack.known_items(_plan, n, seed) as i
  ),
  -- A word says the less, the more of the items hold it.
  common as materialized (
    select lower(t.token) as token, ln(1 + count(distinct i.id)) as weight
    from items as i cross join unnest(i.tokens) as t (token)
    group by lower(t.token)
  ),
  runs as (
    select
      i.id, i.tokens, t.nr::integer as nr,
      sum(c.weight) over (
        partition by i.id order by t.nr rows between current row and known_item_set.words - 1 following
      ) as weight
    from items as i
    cross join unnest(i.tokens) with ordinality as t (token, nr)
    join common as c on c.token = lower(t.token)
  ),
  queries as (
    insert into _pgstack.eval_query (set_id, query_id, text)
    select distinct on (r.id)
      _set, r.id, _pgstack.query_text(r.tokens[r.nr:r.nr + known_item_set.words - 1])
    from runs as r
    where r.nr <= greatest(1, cardinality(r.tokens) - known_item_set.words + 1)
    order by r.id, r.weight, r.nr
    returning query_id
  )
  insert into _pgstack.eval_judgment (set_id, query_id, doc_id, grade)
  select _set, q.query_id, q.query_id, 1 from queries as q;
  get diagnostics _made = row_count;
  return _made;
end;
$$;

comment on function pgstack.known_item_set(text, text, integer, integer, bigint) is
'Makes a judged set out of the corpus: each query is a run of rare words of one row''s chunk, and that row is the one right answer. Returns how many queries.
set: its name, which must be new. vectorizer: whose rows. n: queries wanted, default 100; fewer come from fewer rows. words: words of a query, default 7. seed: another seed draws other rows; the same seed and the same rows give the same set.
It needs no judge, and says whether what is there can be found again: rows that are missing, stale or cut badly show. The words are the document''s own, which flatters the search by words; two rows of the same text make a query that one of them must lose.
Raises PS001 unknown vectorizer, PS007 bad argument, PS012 name taken, PS014 not a reader.';
