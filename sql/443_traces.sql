-- Family: forgetting.  The proof: a search for a text in every column of all tables of ours.
-- Callers: people, tests.
-- Errors: PS007 nothing to look for, PS014 missing privilege.

-- By what they are, not by a list that somebody has to keep: what is added later is searched as well.
create or replace function _pgstack.kept_tables()
returns setof regclass
language sql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
  select c.oid::regclass
  from pg_class as c
  join pg_namespace as n on n.oid = c.relnamespace
  where c.relkind in ('r', 'm') and (
    n.nspname in ('pgstack', '_pgstack', 'ai', 'pgstack_collections')
    -- Tables of chunks lie beside their sources; dropped vectorizers may have left some.
    or 4 = (
      select count(*) from pg_attribute as a
      where a.attrelid = c.oid and not a.attisdropped
        and a.attname in ('embedding_uuid', 'chunk_seq', 'chunk', 'embedding')
    )
    or c.oid in (
      select m.oid
      from _pgstack.vectorizer_sources() as s
      cross join unnest(coalesce(s.members, array[s.source::regclass])) as m (oid)
    )
  );
$$;

comment on function _pgstack.kept_tables() is
'Every table that may hold text of a vectorizer''s rows: pgstack''s, pgai''s, collections, tables of chunks and their sources.';

-- How a text is written inside other values, and as words.
create or replace function _pgstack.trace_condition(type oid)
returns text
language sql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
  select case
    when trace_condition.type = 'bytea'::regtype then 'position(convert_to($1, ''UTF8'') in c.value) > 0'
    when trace_condition.type = 'tsvector'::regtype
      then 'exists (select from unnest($3) as w (words) where tsvector_to_array(c.value) @> tsvector_to_array(w.words))'
    else 'position($1 in c.value::text) > 0 or position($2 in c.value::text) > 0 or position($4 in c.value::text) > 0'
  end;
$$;

comment on function _pgstack.trace_condition(oid) is
'SQL that tells whether c.value, of that type, holds $1, a text; $2, $4: the text as JSON and as arrays escape it; $3: its words.';

create or replace function pgstack.find_traces(needle text)
returns table (place text, rows bigint)
language plpgsql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _in_json text := substr(to_jsonb(needle)::text, 2, length(to_jsonb(needle)::text) - 2);
  _in_array text := replace(replace(needle, '\', '\\'), '"', '\"');
  _words tsvector[];
  _column record;
begin
  perform _pgstack.check_manager();
  if length(needle) >= 3 is not true then
    raise exception 'a text of three characters or more can be looked for'
      using errcode = 'PS007', hint = 'Take one that is nowhere else: an address, a number, a rare name.';
  end if;
  select array_agg(w.words) into _words
  from (
    select distinct _pgstack.to_words(x.config::regconfig, needle) as words
    from (
      select 'simple' as config union select v.words_config from _pgstack.vectorizer as v
    ) as x
    where x.config is not null
  ) as w
  where length(w.words) > 0;
  for _column in
    select t.relation, a.attname, a.atttypid
    from _pgstack.kept_tables() as t (relation)
    join pg_attribute as a on a.attrelid = t.relation and a.attnum > 0 and not a.attisdropped
    order by t.relation::text, a.attnum
  loop
    place := format('%s.%I', _column.relation, _column.attname);
    execute format(
      'select count(*) from (select r.%I as value from only %s as r) as c where %s',
      _column.attname, _column.relation, _pgstack.trace_condition(_column.atttypid)
    ) using needle, _in_json, _words, _in_array into rows;
    if rows > 0 then
      return next;
    end if;
  end loop;
  -- What analyze remembers of columns: common values, bounds, words.
  return query
  select
    format('statistics of %I.%I.%I', s.schemaname, s.tablename, s.attname), count(*)
  from pg_stats as s
  join pg_class as c on c.relname = s.tablename
  join pg_namespace as n on n.oid = c.relnamespace and n.nspname = s.schemaname
  cross join lateral (
    values
      (s.most_common_vals::text), (s.histogram_bounds::text), (s.most_common_elems::text)
  ) as v (value)
  where c.oid in (select t.relation from _pgstack.kept_tables() as t (relation))
    and (position(needle in v.value) > 0 or position(lower(needle) in v.value) > 0)
  group by 1
  order by 1;
exception
  when insufficient_privilege then
    raise exception '% may not look everywhere: %', current_user, sqlerrm
      using errcode = 'PS014', hint = 'Look as the owner of these tables, or as a superuser.';
end;
$$;

comment on function pgstack.find_traces(text) is
'Looks for a text in every column of all tables that may hold something of a vectorizer''s rows: pgstack''s, pgai''s, collections, chunks, sources, and the statistics of these. Returns places, as table.column, and how many rows there hold it.
needle: three characters or more, upper and lower case matter, but not in tables of words, where all of its words must occur.
It reads all of these tables. Not looked at: vectors, files of the server, its log, backups, replicas.
Raises PS007 nothing to look for, PS014 not the owner of pgstack or no right to read one of the tables.';
