-- Family: near-duplicates.  A text as the set of its runs of words.  Reads and writes nothing.
-- Callers: 234_duplicates.sql.
-- Errors: none.

-- Case, punctuation and spaces do not make a text another.
create or replace function _pgstack.plain_words(input text)
returns text
language plpgsql immutable strict parallel safe
security invoker
set search_path = pg_catalog, pg_temp
as $$
begin
  return btrim(regexp_replace(lower(_pgstack.segment(plain_words.input)), '[\s[:punct:]]+', ' ', 'g'));
end;
$$;

comment on function _pgstack.plain_words(text) is
'The words of a text in lower case, one space between; scripts without spaces as pairs of characters.';

-- A run is hashed from the hashes of its words, which is cheaper than from its text.
create or replace function _pgstack.shingles(words text, size integer)
returns bigint[]
language sql immutable strict parallel safe
security invoker
set search_path = pg_catalog, pg_temp
as $$
  select array_agg(distinct r.hash)
  from (
    select
      w.nr,
      w.hash
      + case when size > 1 then coalesce(lead(w.hash, 1) over run, 0) * 31 else 0 end
      + case when size > 2 then coalesce(lead(w.hash, 2) over run, 0) * 1009 else 0 end
      + case when size > 3 then coalesce(lead(w.hash, 3) over run, 0) * 32771 else 0 end
      + case when size > 4 then coalesce(lead(w.hash, 4) over run, 0) * 1048583 else 0 end as hash,
      count(*) over () as n
    from (
      select t.nr, hashtext(t.word)::bigint as hash
      from string_to_table(words, ' ') with ordinality as t (word, nr)
    ) as w
    window run as (order by w.nr)
  ) as r
  where r.nr <= greatest(1, r.n - size + 1);
$$;

comment on function _pgstack.shingles(text, integer) is
'The different runs of 1 to 5 words of a text, as hashes; of a text with fewer words the one there is.';
