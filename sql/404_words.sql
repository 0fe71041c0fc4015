-- Family: how search reads words.  In which language, from which column, by which index.
-- Callers: 405_search_branch.sql, 330_index.sql, 305_vectorizer_prepare.sql, people.
-- Errors: PS001 unknown vectorizer, PS007 bad argument, PS014 not the owner.
--
-- From text_index_min_rows chunks on a vectorizer has a table beside its table of chunks,
-- ai._pgstack_words_<id>: the words of each chunk, a tsvector, kept by triggers, under a GIN
-- index.  401_words_table.sql makes it, 405_search_branch.sql ranks by BM25 from it.  A table of
-- its own, because a tsvector beside a vector and a text makes rows too long, and PostgreSQL
-- moves the vectors away.
-- Where the setting text_index says bm25 there is an index of pg_textsearch instead:
-- docs/adr/0009-text-search.md says why not always.  Where there is neither, each chunk is
-- read: slow, and right.

-- Han, kana, hangul, Thai, Lao, Myanmar, Khmer put no spaces between words: pairs of
-- neighbouring characters stand for them.  ABC becomes A AB BC C.
create or replace function _pgstack.segment(input text)
returns text
language plpgsql immutable strict parallel safe
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _joined constant text :=
    '\u0E00-\u0EFF\u1000-\u109F\u1780-\u17FF\u3040-\u30FF\u3400-\u4DBF\u4E00-\u9FFF\uAC00-\uD7AF\uF900-\uFAFF';
begin
  if segment.input !~ ('[' || _joined || ']') then
    return segment.input;
  end if;
  return regexp_replace(
    regexp_replace(segment.input, '([' || _joined || ']+)', ' \1 ', 'g'),
    '([' || _joined || '])', '\1 \1', 'g'
  );
end;
$$;

comment on function _pgstack.segment(text) is
'A text in which runs of a script without spaces are written as overlapping pairs of characters.';

create or replace function _pgstack.to_words(config regconfig, input text)
returns tsvector
language plpgsql immutable strict parallel safe
security invoker
set search_path = pg_catalog, pg_temp
as $$
begin
  -- A tsvector ends at 1 MB.  What is behind is still found by its meaning.
  return to_tsvector(config, _pgstack.segment(
    case when octet_length(input) > 500000 then left(input, 125000) else input end
  ));
end;
$$;

comment on function _pgstack.to_words(regconfig, text) is
'The words of a text, as search knows them.';

-- Positions, which tell repetitions, rather than different words: matters for program text.
create or replace function _pgstack.word_count(words tsvector)
returns integer
language plpgsql immutable strict parallel safe
security invoker
set search_path = pg_catalog, pg_temp
as $$
begin
  return (select coalesce(sum(cardinality(u.positions)), 0) from unnest(words) as u);
end;
$$;

comment on function _pgstack.word_count(tsvector) is
'How many words a text has, repetitions counted.';

-- Most specific first: the session, the vectorizer, the database.
create or replace function _pgstack.text_config(id integer)
returns regconfig
language plpgsql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _config text := _pgstack.session_setting('text_config');
begin
  if _config is null then
    select v.text_config into _config
    from _pgstack.vectorizer as v where v.vectorizer_id = text_config.id;
  end if;
  return _pgstack.check_text_config(coalesce(_config, _pgstack.setting_value('text_config')));
end;
$$;

comment on function _pgstack.text_config(integer) is
'The text search configuration in force for a vectorizer. Raises PS007 when there is none of that name.';

create or replace function _pgstack.check_text_config(config text)
returns regconfig
language plpgsql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
begin
  return check_text_config.config::regconfig;
exception
  when undefined_object or invalid_name or invalid_schema_name then
    raise exception 'text_config: %', sqlerrm
      using errcode = 'PS007', hint = 'select oid::regconfig from pg_ts_config;';
end;
$$;

comment on function _pgstack.check_text_config(text) is
'Returns a text search configuration by name; raises PS007 when there is none.';

-- How the words of a vectorizer can be ranked here and now.
do $do$
begin
  perform _pgstack.define_type('words', $type$
    config regconfig, method text, relation text, column_name text, functions text, query tsquery[]
  $type$);
end;
$do$;

comment on type _pgstack.words is
'config: the text search configuration. method: tsvector, and relation the table of words; bm25, and relation its index, column_name what it lies on, functions the quoted schema of its functions; NULL: each chunk is read. query: the words that are looked for.';

-- What was made for another language than asked for is of no use.
create or replace function _pgstack.words(plan _pgstack.vectorizer_plan, query text)
returns _pgstack.words
language plpgsql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _words _pgstack.words;
  _config regconfig := _pgstack.text_config(plan.id);
  _column name := case when plan.has_table then 'chunk' else plan.content_column end;
begin
  select null, 'bm25', i.indexrelid::regclass, a.attname, quote_ident(n.nspname) into _words
  from pg_index as i
  join pg_class as c on c.oid = i.indexrelid
  join pg_am as m on m.oid = c.relam and m.amname = 'bm25'
  join pg_opclass as o on o.oid = i.indclass[0]
  join pg_namespace as n on n.oid = o.opcnamespace
  join pg_attribute as a on a.attrelid = i.indrelid and a.attnum = i.indkey[0]
  -- pg_textsearch 0.6 fills an index of a part of the rows with all of them.
  where i.indrelid = _pgstack.find_relation(plan.target) and i.indisvalid and i.indpred is null
    and a.attname = _column and 'text_config=' || _config = any (c.reloptions)
  limit 1;
  if not found and exists (
    select from _pgstack.vectorizer as v
    where v.vectorizer_id = plan.id and v.words_config = _config::text
  ) then
    -- An older snapshot may tell of one that has been dropped.
    _words.relation := _pgstack.words_table(plan.id);
    if _pgstack.find_relation(_words.relation) is not null then
      _words.method := 'tsvector';
    else
      _words.relation := null;
    end if;
  end if;
  _words.config := _config;
  if _words.method is distinct from 'bm25' then
    _words.query := _pgstack.query_words(_config, words.query);
  end if;
  return _words;
end;
$$;

comment on function _pgstack.words(_pgstack.vectorizer_plan, text) is
'How the words of a query can be looked for, with what is there.';

-- The longest words: of a long text the rest would add more time than meaning.
create or replace function _pgstack.query_words(config regconfig, query text)
returns tsquery[]
language plpgsql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
begin
  -- Written as a tsquery quotes lexemes: one may hold an & or a quote of its own.
  return (
    select array_agg(
      format('''%s''', replace(replace(l.lexeme, '\', '\\'), '''', ''''''))::tsquery
    )
    from (
      select w.lexeme
      from unnest(tsvector_to_array(_pgstack.to_words(config, query_words.query))) as w (lexeme)
      order by length(w.lexeme) desc, w.lexeme
      limit 50
    ) as l
  );
end;
$$;

comment on function _pgstack.query_words(regconfig, text) is
'The words of a query, each as a tsquery, 50 at most; NULL when it has none but stop words.';

-- What stands before every chunk when it is embedded, a title say, is searched with it.
create or replace function _pgstack.searched_text(plan _pgstack.vectorizer_plan)
returns text
language plpgsql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _chunk text := case when plan.has_table then 'r.chunk' else format('r.%I::text', plan.content_column) end;
  _others text;
begin
  select string_agg(
    _pgstack.masked(
      plan, format('%s.%I::text', case when plan.has_table then 'k' else 'r' end, c.name)
    ),
    ', ' order by c.nr
  ) into _others
  from unnest(_pgstack.content_columns(plan.config)) with ordinality as c (name, nr)
  where c.nr > 1;
  return coalesce('concat_ws(E''\n'', ' || _others || ', ' || _chunk || ')', _chunk);
end;
$$;

comment on function _pgstack.searched_text(_pgstack.vectorizer_plan) is
'SQL for the text in which the words of a chunk r of the source row k are looked for.';

-- ------------------------------------------------------------------------ what is wanted

create or replace function pgstack.set_text_config(vectorizer text, config text)
returns void
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _plan _pgstack.vectorizer_plan := _pgstack.vectorizer_plan(set_text_config.vectorizer);
begin
  perform _pgstack.check_manager();
  perform _pgstack.require('config', set_text_config.config);
  perform _pgstack.check_text_config(set_text_config.config);
  insert into _pgstack.vectorizer as v (vectorizer_id, text_config)
  values (_plan.id, set_text_config.config::regconfig)
  on conflict on constraint vectorizer_pkey do update set text_config = excluded.text_config;
  perform pg_notify('pgstack_work', '');
end;
$$;

comment on function pgstack.set_text_config(text, text) is
'Says in which language the text of a vectorizer is searched by words. A worker makes the table of its words anew; until then each chunk is read, which takes longer. Whoever deletes rows of the source waits while it is made (a minute for a million chunks), searches do not.
vectorizer: its name, or its source table''s. config: english, german, simple ...: select cfgname from pg_ts_config.
Raises PS001 unknown vectorizer, PS007 no such configuration, PS014 not the owner.';

-- What the worker is to do: at most one statement.
create or replace function _pgstack.text_index_due(plan _pgstack.vectorizer_plan)
returns text
language plpgsql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _method text := _pgstack.setting_value('text_index');
  _config regconfig := _pgstack.text_config(plan.id);
  _enough boolean;
begin
  -- Anybody may ask an index of pg_textsearch how many rows hold a word.
  if _method = 'bm25' and (_pgstack.bm25_schema() is null or (
    select c.relrowsecurity from pg_class as c where c.oid = plan.source::regclass
  )) then
    _method := 'tsvector';
  end if;
  if _method = 'none' or _method = 'tsvector' and not plan.has_table
    or (_pgstack.words(plan, null)).method is not null
  then
    return null;
  end if;
  execute format('select count(*) >= $1 from (select from %s limit $1) as t', plan.target)
  into _enough using _pgstack.setting_value('text_index_min_rows')::bigint;
  return case
    when not _enough then null
    when _method = 'tsvector' then format('select _pgstack.build_words(%s)', plan.id)
    else format(
      'create index concurrently on %s using bm25 (%I %s.text_bm25_ops) with (text_config = %L)',
      plan.target, case when plan.has_table then 'chunk' else plan.content_column end,
      _pgstack.bm25_schema(), _config
    )
  end;
end;
$$;

comment on function _pgstack.text_index_due(_pgstack.vectorizer_plan) is
'The statement that makes what a vectorizer lacks to be searched by words fast, NULL when nothing is due.';

create or replace function _pgstack.bm25_schema()
returns text
language plpgsql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
begin
  return (
    select quote_ident(n.nspname)
    from pg_opclass as o
    join pg_am as m on m.oid = o.opcmethod and m.amname = 'bm25'
    join pg_namespace as n on n.oid = o.opcnamespace
    where o.opcname = 'text_bm25_ops'
  );
end;
$$;

comment on function _pgstack.bm25_schema() is
'The quoted schema of pg_textsearch, NULL where it is not installed.';
