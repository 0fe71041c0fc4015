-- Family: near-duplicates.  Rows whose texts are the same, or nearly.  Reads what the caller may read.
-- Callers: people, pgstack/cleaning.py.
-- Errors: PS007 bad argument, PS013 no primary key.
--
-- Texts are sets of shingles, runs of three words; how alike two are is what they share of all they have (Jaccard).
-- Candidates come by prefixes, not by MinHash: of two sets that share the part t of all they have, the rarest
-- |x| - ceil(t |x|) + 1 elements of each have one in common.  That finds every pair, by joining the few rarest
-- shingles of each text, and most texts drop out before, for having so many that no other has.  What is found is
-- then compared whole, so every pair reported is one. 
--
-- A shingle of hundreds of texts, as in a thousand copies of one form, would make pairs of all with all: each is
-- compared with the 100 next to it in length.  They still end in one cluster, by way of each other.

create or replace function _pgstack.duplicate_pairs(
  source regclass, content name, threshold double precision, shingle integer
)
returns table (
  kind text, nr integer, other_nr integer, id jsonb, other jsonb, similarity double precision,
  characters integer, other_characters integer
)
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
-- The planner knows nothing of the sets: it must not guess that they are small.
set enable_nestloop = off
set jit = off
set work_mem = '64MB'
as $$
declare
  _key text;
  _order text;
begin
  perform _pgstack.check_columns(duplicate_pairs.source, array[duplicate_pairs.content]);
  if (threshold between 0.3 and 1) is not true or (shingle between 1 and 5) is not true then
    raise exception 'threshold cannot be %, or shingle cannot be %', threshold, shingle
      using errcode = 'PS007', hint = 'Pass a threshold from 0.3 to 1, and shingles of 1 to 5 words.';
  end if;
  select
    string_agg(format('%L, r.%I', a.attname, a.attname), ', ' order by k.nr),
    string_agg(format('r.%I', a.attname), ', ' order by k.nr)
  into _key, _order
  from pg_index as i
  cross join unnest(i.indkey::smallint[]) with ordinality as k (attnum, nr)
  join pg_attribute as a on a.attrelid = i.indrelid and a.attnum = k.attnum
  where i.indrelid = duplicate_pairs.source and i.indisprimary;
  if _key is null then
    raise exception '% has no primary key', duplicate_pairs.source
      using errcode = 'PS013', hint = format('alter table %s add primary key (...);', duplicate_pairs.source);
  end if;
  return query execute format(
    $sql$
    with doc as materialized (
      select d.nr, d.id, d.characters, d.words, min(d.nr) over (
        partition by hashtextextended(d.words, 0), hashtextextended(d.words, 1)
      ) as first
      from (
        select
          row_number() over (order by %1$s)::integer as nr, jsonb_build_object(%2$s) as id,
          length(r.%3$I::text) as characters,
          coalesce(
            nullif(_pgstack.plain_words(left(r.%3$I::text, 100000)), ''), btrim(left(r.%3$I::text, 100000))
          ) as words
        from %4$s as r
        where r.%3$I::text ~ '\S'
      ) as d
    ),

    -- Of equal texts only the first is compared with others.
    shingled as materialized (
      select d.nr, d.id, d.characters, s.hashes, cardinality(s.hashes) as size
      from doc as d
      cross join lateral (select _pgstack.shingles(d.words, $2) as hashes offset 0) as s
      where d.nr = d.first and $1 < 1
    ),

    element as materialized (
      select s.nr, s.size, h.hash from shingled as s cross join lateral unnest(s.hashes) as h (hash)
    ),

    shared as materialized (
      select e.hash, count(*) as texts from element as e group by e.hash having count(*) > 1
    ),

    prefix as (
      select p.nr, p.size, p.hash, row_number() over (partition by p.hash order by p.size, p.nr) as place
      from (
        select
          e.nr, e.size, e.hash,
          e.size - count(*) over (partition by e.nr)
          + row_number() over (partition by e.nr order by s.texts, e.hash) as rank
        from element as e
        join shared as s on s.hash = e.hash
      ) as p
      where p.rank <= p.size - ceil($1 * p.size - 1e-9) + 1
    ),

    candidate as (
      select distinct least(a.nr, b.nr) as nr, greatest(a.nr, b.nr) as other_nr
      from prefix as a
      join prefix as b on b.hash = a.hash and b.place > a.place
      where b.place <= a.place + 100 and b.size * $1 <= a.size + 1e-9
    ),

    compared as (
      select c.nr, c.other_nr, a.id, b.id as other, a.characters, b.characters as other_characters,
        both_have.n / (a.size + b.size - both_have.n) as similarity
      from candidate as c
      join shingled as a on a.nr = c.nr
      join shingled as b on b.nr = c.other_nr
      cross join lateral (
        select count(*)::double precision as n
        from unnest(a.hashes) as x (hash) join unnest(b.hashes) as y (hash) on y.hash = x.hash
      ) as both_have
    )

    select 'exact', f.nr, d.nr, f.id, d.id, 1::double precision, f.characters, d.characters
    from doc as d
    join doc as f on f.nr = d.first
    where d.nr <> d.first
    union all
    select 'near', c.nr, c.other_nr, c.id, c.other, c.similarity, c.characters, c.other_characters
    from compared as c
    where c.similarity >= $1 - 1e-9
    $sql$,
    _order, _key, duplicate_pairs.content, duplicate_pairs.source
  ) using duplicate_pairs.threshold, duplicate_pairs.shingle;
end;
$$;

comment on function _pgstack.duplicate_pairs(regclass, name, double precision, integer) is
'The pairs of pgstack.near_duplicates(), with the places of the rows in the order of the key and the lengths of texts.';

-- Union and find: the root of a row is the least number that pairs connect it with.
create or replace function _pgstack.connected(nrs integer[], others integer[])
returns integer[]
language plpgsql immutable strict parallel safe
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _root integer[];
  _roots integer[] := nrs;
  _a integer;
  _b integer;
begin
  select array_agg(n.nr order by n.nr) into _root
  from generate_series(1, (select max(o.nr) from unnest(connected.others || connected.nrs) as o (nr))) as n (nr);
  for _i in 1 .. cardinality(nrs) loop
    _a := nrs[_i];
    while _root[_a] <> _a loop
      _root[_a] := _root[_root[_a]];
      _a := _root[_a];
    end loop;
    _b := others[_i];
    while _root[_b] <> _b loop
      _root[_b] := _root[_root[_b]];
      _b := _root[_b];
    end loop;
    _root[greatest(_a, _b)] := least(_a, _b);
  end loop;
  for _i in 1 .. cardinality(nrs) loop
    _a := nrs[_i];
    while _root[_a] <> _a loop
      _a := _root[_a];
    end loop;
    _roots[_i] := _a;
  end loop;
  return _roots;
end;
$$;

comment on function _pgstack.connected(integer[], integer[]) is
'For each pair of numbers the least number that it is connected with through pairs.';

create or replace function _pgstack.duplicate_clusters(
  source regclass, content name, threshold double precision, shingle integer
)
returns table (
  kind text, root integer, nr integer, other_nr integer, id jsonb, other jsonb,
  similarity double precision, characters integer, other_characters integer
)
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _kinds text[];
  _nrs integer[];
  _others integer[];
  _ids jsonb[];
  _other_ids jsonb[];
  _similarities double precision[];
  _characters integer[];
  _other_characters integer[];
begin
  select
    array_agg(p.kind), array_agg(p.nr), array_agg(p.other_nr), array_agg(p.id), array_agg(p.other),
    array_agg(p.similarity), array_agg(p.characters), array_agg(p.other_characters)
  into _kinds, _nrs, _others, _ids, _other_ids, _similarities, _characters, _other_characters
  from _pgstack.duplicate_pairs(source, content, threshold, shingle) as p;
  return query
  select u.kind, u.root, u.nr, u.other_nr, u.id, u.other, u.similarity, u.characters, u.other_characters
  from unnest(
    _kinds, _pgstack.connected(_nrs, _others), _nrs, _others, _ids, _other_ids, _similarities, _characters,
    _other_characters
  ) as u (kind, root, nr, other_nr, id, other, similarity, characters, other_characters);
end;
$$;

comment on function _pgstack.duplicate_clusters(regclass, name, double precision, integer) is
'The pairs of _pgstack.duplicate_pairs() with the least place in the cluster of each.';

create or replace function pgstack.near_duplicates(
  source regclass, content name, threshold double precision default 0.8, shingle integer default 3
)
returns table (kind text, cluster bigint, id jsonb, other jsonb, similarity double precision)
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
begin
  return query
  select p.kind, dense_rank() over (order by p.root), p.id, p.other, p.similarity
  from _pgstack.duplicate_clusters(
    near_duplicates.source, near_duplicates.content, near_duplicates.threshold, near_duplicates.shingle
  ) as p
  order by p.root, p.nr, p.other_nr;
end;
$$;

comment on function pgstack.near_duplicates(regclass, name, double precision, integer) is
'Pairs of rows whose texts are equal or nearly so, of the rows that the caller may read.
source: a table with a primary key, such as pgstack_collections.handbook. content: its text column. threshold: the least similarity of near-duplicates, 0.3 to 1, default 0.8; 1: only exact ones. shingle: texts are compared by their runs of that many words, 1 to 5, default 3.
kind: exact (the same words; case, punctuation and spaces do not matter) or near. cluster: pairs that are connected have one number. id, other: keys, as pgstack.search() gives them. similarity: what two texts share of the runs that they have, 1 = all.
Of equal texts each is paired with the first, and only that one with near ones. One word changed in a text changes three runs: 5 % of words changed leave some 0.75. A run that is in hundreds of texts connects each with the 100 next in length. Compared are the first 100,000 characters; scripts without spaces by pairs of characters.
Raises PS007 bad argument, PS013 no primary key.';

create or replace function pgstack.duplicate_report(
  source regclass, content name, threshold double precision default 0.8, keep text default 'longest',
  shingle integer default 3
)
returns table (
  cluster bigint, copies integer, exact integer, keep_id jsonb, drop_ids jsonb, characters bigint,
  least_similarity double precision
)
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
begin
  if duplicate_report.keep not in ('longest', 'oldest') is not false then
    raise exception 'keep cannot be "%"', duplicate_report.keep
      using errcode = 'PS007', hint = 'Use longest or oldest.';
  end if;
  return query
  with pair as materialized (
    select p.*
    from _pgstack.duplicate_clusters(
      duplicate_report.source, duplicate_report.content, duplicate_report.threshold, duplicate_report.shingle
    ) as p
  ),

  member as (
    select distinct m.root, m.nr, m.id, m.characters
    from (
      select p.root, p.nr, p.id, p.characters from pair as p
      union all
      select p.root, p.other_nr, p.other, p.other_characters from pair as p
    ) as m
  ),

  ranked as (
    select m.*, row_number() over (
      partition by m.root
      order by case when duplicate_report.keep = 'longest' then -m.characters end, m.nr
    ) as place
    from member as m
  ),

  weakest as (
    select p.root, min(p.similarity) as similarity, count(*) filter (where p.kind = 'exact') as exact
    from pair as p
    group by p.root
  )

  select
    row_number() over (order by sum(r.characters) filter (where r.place > 1) desc, r.root),
    count(*)::integer, w.exact::integer,
    (array_agg(r.id) filter (where r.place = 1))[1],
    jsonb_agg(r.id order by r.place) filter (where r.place > 1),
    sum(r.characters) filter (where r.place > 1), w.similarity
  from ranked as r
  join weakest as w on w.root = r.root
  group by r.root, w.similarity, w.exact
  order by 1;
end;
$$;

comment on function pgstack.duplicate_report(regclass, name, double precision, text, integer) is
'Clusters of rows that say the same, those that take most room first: what could go.
source, content, threshold, shingle: as in pgstack.near_duplicates(). keep: which row of a cluster to keep, longest (text, the default) or oldest (lowest key).
copies: rows in the cluster. exact: how many of them have the very text of another. keep_id: the row to keep. drop_ids: the others, an array of keys. characters: of the text of those. least_similarity: of the pairs that connect the cluster.
Nothing is deleted. In a long chain the ends may be less alike than that: look before you delete.
Raises PS007 bad argument, PS013 no primary key.';
