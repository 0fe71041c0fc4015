-- Family: the branches of a search, as SQL.  Each function writes a select that finds
-- candidates in one way; 406_search_statement.sql puts them together.
-- Callers: 406_search_statement.sql.
-- Errors: none of ours.
--
-- r is the target and k the source row of a chunk: the join to the source is what makes its
-- row-level security hold, and leaves out chunks whose row is gone.  Parameters of every
-- statement: $1 the query's vector, $2 its text, $3 any of its words, $4 depth, $5 rows,
-- $6 each of its words.
--
-- Three routes lead to the same rows:
--   index      walk along the index, nearest first, until depth rows pass join and condition
--   matching   from the few source rows that satisfy the condition to their chunks
--   all        every chunk
-- The subqueries behind "offset 0" cannot be flattened: so the order of the walk is not
-- left to estimates, which know nothing of a table that was filled a moment ago.

-- What a branch gives of each chunk.  A key's columns are called key_1, key_2 ..., whatever
-- the source calls them.
create or replace function _pgstack.branch_columns(plan _pgstack.vectorizer_plan, extras text)
returns text
language plpgsql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _keys text := '';
  _has_place boolean;
begin
  for _nr in 1 .. cardinality(plan.key_columns) loop
    _keys := _keys || format('r.%I as key_%s, ', plan.key_columns[_nr], _nr);
  end loop;
  if not plan.has_table then
    return _keys || format(
      '0 as chunk_seq, r.%1$I::text as chunk, 0 as start_char, length(r.%1$I::text) as end_char',
      plan.content_column
    ) || extras;
  end if;
  _has_place := exists (
    select from pg_attribute as a
    where a.attrelid = _pgstack.find_relation(plan.target) and a.attname = 'start_char'
      and not a.attisdropped
  );
  return _keys || 'r.chunk_seq, r.chunk, '
    || case when _has_place then 'r.start_char, r.end_char'
      else 'null::integer as start_char, null::integer as end_char' end
    || extras;
end;
$$;

comment on function _pgstack.branch_columns(_pgstack.vectorizer_plan, text) is
'The select list of a branch: key_1 ..., chunk_seq, chunk, start_char, end_char, and extras: more expressions over r, each with a comma before it.';

-- Where a branch reads: from clause and condition.  condition is over k; vectors in a
-- column of the source need no join, and their indexes may hold the condition's columns.
create or replace function _pgstack.branch_from(
  plan _pgstack.vectorizer_plan, route text, condition text
)
returns text
language plpgsql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
begin
  if not plan.has_table then
    return format('%s as r where (%s)', plan.source, condition);
  end if;
  return case route
    when 'index' then format(
      '%s as r cross join lateral (select from %s as k where %s and (%s) offset 0) as k where true',
      plan.target, plan.source, plan.key_match, condition
    )
    when 'matching' then format(
      '%s as k cross join lateral (select r.* from %s as r where %s offset 0) as r where (%s)',
      plan.source, plan.target, plan.key_match, condition
    )
    else format(
      '%s as r join %s as k on %s where (%s)', plan.target, plan.source, plan.key_match, condition
    )
  end;
end;
$$;

comment on function _pgstack.branch_from(_pgstack.vectorizer_plan, text, text) is
'From clause and condition of a branch that takes a route.';

-- Ordered by the bare distance: any second sort key makes PostgreSQL leave the vector index
-- aside; + 0 does that on purpose.
create or replace function _pgstack.vector_branch(
  plan _pgstack.vectorizer_plan, route text, condition text, index_type text, extras text
)
returns text
language plpgsql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _column text := format('r.%I', plan.embedding_column);
  _distance text := format('%s operator(@extschema:vector@.<=>) $1', _column);
begin
  if vector_branch.index_type is null then
    return format(
      'select %s, 1 - (%s) as score from %s%s order by %s limit $4',
      _pgstack.branch_columns(plan, extras), _distance,
      _pgstack.branch_from(plan, route, condition),
      case when route = 'index' then '' else format(' and %s is not null', _column) end,
      case when route = 'index' then _distance else format('(%s) + 0', _distance) end
    );
  end if;
  -- The index holds vectors of half the precision: a few more than wanted are taken from
  -- it, and put in order by the whole ones.
  return format(
    'select h.* from (select %1$s, 1 - (%2$s) as score from %3$s '
    'order by (%4$s::%5$s) operator(@extschema:vector@.<=>) $1::%5$s limit $4 + 10) as h '
    'order by h.score desc limit $4',
    _pgstack.branch_columns(plan, extras), _distance,
    _pgstack.branch_from(plan, route, condition), _column, vector_branch.index_type
  );
end;
$$;

comment on function _pgstack.vector_branch(_pgstack.vectorizer_plan, text, text, text, text) is
'SQL for the chunks nearest in meaning. index_type: what the index casts vectors to, NULL: nothing. score: cosine similarity.';

create or replace function _pgstack.text_branch(
  plan _pgstack.vectorizer_plan, route text, condition text, words _pgstack.words, extras text
)
returns text
language plpgsql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _score text;
begin
  if words.method is distinct from 'bm25' then
    return _pgstack.counted_branch(plan, route, condition, words, extras);
  end if;
  _score := format(
    'r.%I operator(%s.<@>) %2$s.to_bm25query($2, %L)',
    words.column_name, words.functions, words.relation
  );
  -- pg_textsearch puts a function of its own, without its schema, in place of a score beside an
  -- order by it, and does not look into a common table expression.
  return format(
    'with h as materialized (select %s, (-(%s))::float8 as score from %s%s order by %2$s limit $4) '
    'select h.* from h',
    _pgstack.branch_columns(plan, extras), _score,
    _pgstack.branch_from(plan, route, condition),
    case when route = 'index' then '' else format(' and %s < 0', _score) end
  );
end;
$$;

comment on function _pgstack.text_branch(_pgstack.vectorizer_plan, text, text, _pgstack.words, text) is
'SQL for the chunks that hold the query''s words. score: BM25.';

-- Where the words of chunks are read: a table w of key_1 ..., chunk_seq and words, and their number, size, if it is kept.
create or replace function _pgstack.words_from(
  plan _pgstack.vectorizer_plan, route text, condition text, words _pgstack.words
)
returns text
language plpgsql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _match text := '';
begin
  for _nr in 1 .. cardinality(plan.key_columns) loop
    _match := _match || format(' and w.key_%s = k.%I', _nr, plan.key_columns[_nr]);
  end loop;
  return case
    when words.method is null then format(
      '(select %s, _pgstack.to_words(%L::regconfig, %s) as words from %s offset 0) as w where true',
      _pgstack.branch_columns(plan, ''), words.config, _pgstack.searched_text(plan),
      _pgstack.branch_from(plan, 'all', condition)
    )
    when route = 'index' then format('%s as w where true', words.relation)
    when route = 'matching' then format(
      '%s as k cross join lateral (select w.* from %s as w where true%s offset 0) as w where (%s)',
      plan.source, words.relation, _match, condition
    )
    else format('%s as w join %s as k on true%s where (%s)', words.relation, plan.source, _match, condition)
  end || ' and w.words @@ $3';
end;
$$;

comment on function _pgstack.words_from(_pgstack.vectorizer_plan, text, text, _pgstack.words) is
'From clause and condition of what counts words; route index: whether their rows are there is asked later.';

-- BM25 (k1 1.2, b 0.75) counted at each query, over the chunks that hold a word: how many hold
-- it, how often, beside how many others.  Only chunks that may be seen are counted.
-- ts_rank() of one word that stands n times is (1 + 1/4 + 1/9 ... 1/n^2) / 1.644934, which
-- tells n, faster than taking the tsvector apart.
create or replace function _pgstack.counted_branch(
  plan _pgstack.vectorizer_plan, route text, condition text, words _pgstack.words, extras text
)
returns text
language plpgsql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _keys text := '';
  _same text := '';
  _times text := '';
  _weights text := '';
  _score text := '0::float8';
begin
  for _nr in 1 .. cardinality(plan.key_columns) loop
    _keys := _keys || format('f.key_%s, ', _nr);
    _same := _same || format('r.%I = t.key_%s and ', plan.key_columns[_nr], _nr);
  end loop;
  for _nr in 1 .. coalesce(cardinality(words.query), 0) loop
    _times := _times || format(
      ', round(1 / (1.644935 * (1.000001 - ts_rank(''{1,1,1,1}'', w.words, $6[%1$s]))) - 0.5)::float8 as times_%1$s',
      _nr
    );
    _weights := _weights || format(
      ', 2.2 * ln(1 + (greatest(count(*), %2$s) - count(*) filter (where f.times_%1$s > 0) + 0.5)'
      ' / (count(*) filter (where f.times_%1$s > 0) + 0.5))::float8 as weight_%1$s',
      _nr, _pgstack.expected_chunks(plan)
    );
    _score := _score || format(
      ' + n.weight_%1$s * f.times_%1$s / (f.times_%1$s + f.size / n.size + 0.3::float8)',
      _nr
    );
  end loop;
  return format(
    $sql$
    select %1$s, t.score
    from (
      with found as materialized (
        select %2$s, w.chunk_seq, 0.9::float8 * %13$s as size%3$s from %4$s
      ),
      counted as materialized (select avg(f.size) / 0.9::float8 as size%5$s from found as f)
      select %6$s f.chunk_seq, %7$s as score
      from found as f cross join counted as n
      order by score desc, %6$s f.chunk_seq
      limit $4%8$s
    ) as t
    cross join lateral (select r.* from %9$s as r where %10$s offset 0) as r
    where %11$s
    order by t.score desc, %12$s t.chunk_seq
    limit $4
    $sql$,
    _pgstack.branch_columns(plan, extras), replace(trim(trailing ', ' from _keys), 'f.', 'w.'),
    _times, _pgstack.words_from(plan, route, condition, words), _weights, _keys, _score,
    -- Chunks whose source row was deleted a moment ago are left out last.
    case when route = 'index' then ' * 2 + 20' else '' end,
    plan.target, _same || case when plan.has_table then 'r.chunk_seq = t.chunk_seq' else 'true' end,
    case when route = 'index'
      then format('exists (select from %s as k where %s)', plan.source, plan.key_match)
      else 'true'
    end,
    replace(_keys, 'f.', 't.'),
    case when words.method is null then '_pgstack.word_count(w.words)' else 'w.size' end
  );
end;
$$;

comment on function _pgstack.counted_branch(_pgstack.vectorizer_plan, text, text, _pgstack.words, text) is
'SQL for the chunks that hold the query''s words, ranked without an index of BM25.';

-- By the statistics; by the size of the table while there are none.
create or replace function _pgstack.expected_chunks(plan _pgstack.vectorizer_plan)
returns bigint
language plpgsql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
begin
  return (
    select greatest(c.reltuples::bigint, pg_relation_size(c.oid) / 4000, 1)
    from pg_class as c where c.oid = _pgstack.find_relation(plan.target)
  );
end;
$$;

comment on function _pgstack.expected_chunks(_pgstack.vectorizer_plan) is
'About how many chunks a vectorizer has.';
