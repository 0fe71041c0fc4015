-- Family: how search reads words.  In which language, from which column, by which index.
-- Callers: 405_search_branch.sql, 330_index.sql, 305_vectorizer_prepare.sql, people.
-- Errors: PS001 unknown vectorizer, PS007 bad argument, PS013 no table, PS014 not the owner.
--
-- From text_index_min_rows chunks on a vectorizer has a table beside its table of chunks,
-- ai._pgstack_words_<id>: the words of each chunk, a tsvector, kept by triggers, under a GIN
-- index.  405_search_branch.sql ranks by BM25 from it.  A table of its own, because a tsvector
-- beside a vector and a text makes rows too long, and PostgreSQL moves the vectors away.
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
  if not found and _pgstack.find_relation(_pgstack.words_table(plan.id)) is not null
    and exists (
      select from _pgstack.vectorizer as v
      where v.vectorizer_id = plan.id and v.words_config = _config::text
    )
  then
    _words.method := 'tsvector';
    _words.relation := _pgstack.words_table(plan.id);
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

create or replace function _pgstack.words_table(id integer)
returns text
language plpgsql immutable
security invoker
set search_path = pg_catalog, pg_temp
as $$
begin
  return format('ai.%I', '_pgstack_words_' || id);
end;
$$;

comment on function _pgstack.words_table(integer) is
'The name of the table that holds the words of a vectorizer''s chunks.';

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
    format('%s.%I::text', case when plan.has_table then 'k' else 'r' end, c.name), ', ' order by c.nr
  ) into _others
  from unnest(_pgstack.content_columns(plan.config)) with ordinality as c (name, nr)
  where c.nr > 1;
  return coalesce('concat_ws(E''\n'', ' || _others || ', ' || _chunk || ')', _chunk);
end;
$$;

comment on function _pgstack.searched_text(_pgstack.vectorizer_plan) is
'SQL for the text in which the words of a chunk r of the source row k are looked for.';

-- --------------------------------------------------------------------- the table of words

-- Its triggers run with the rights of the owner of the chunks: whoever deletes a source row
-- needs none on it.
create or replace function _pgstack.create_words_triggers(plan _pgstack.vectorizer_plan, config regconfig)
returns void
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _table text := _pgstack.words_table(plan.id);
  _row_match text := '';
begin
  for _nr in 1 .. cardinality(plan.key_columns) loop
    _row_match := _row_match || format('w.key_%s = r.%I and ', _nr, plan.key_columns[_nr]);
  end loop;
  execute format(
    'create or replace function %s() returns trigger '
    'language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as %L',
    _table,
    format(
      $body$
begin
  if tg_op = 'TRUNCATE' then
    truncate %1$s;
    return null;
  end if;
  if tg_op <> 'INSERT' then
    delete from %1$s as w using old_rows as r where %2$s w.chunk_seq = r.chunk_seq;
  end if;
  if tg_op <> 'DELETE' then
    insert into %1$s
    select %3$s, r.chunk_seq, w.words, _pgstack.word_count(w.words)
    from new_rows as r join %5$s as k on %6$s
    cross join lateral (select _pgstack.to_words(%4$L::regconfig, %7$s) as words offset 0) as w;
  end if;
  return null;
end;
      $body$,
      _table, _row_match, 'r.' || array_to_string(array(select quote_ident(k.name) from unnest(plan.key_columns) as k (name)), ', r.'), config,
      plan.source, plan.key_match, _pgstack.searched_text(plan)
    )
  );
  execute format('revoke all on function %s() from public', _table);
  execute format(
    'create or replace trigger _pgstack_words_insert after insert on %1$s '
    'referencing new table as new_rows for each statement execute function %2$s(); '
    'create or replace trigger _pgstack_words_update after update on %1$s '
    'referencing old table as old_rows new table as new_rows for each statement execute function %2$s(); '
    'create or replace trigger _pgstack_words_delete after delete on %1$s '
    'referencing old table as old_rows for each statement execute function %2$s(); '
    'create or replace trigger _pgstack_words_truncate after truncate on %1$s '
    'for each statement execute function %2$s()',
    plan.target, _table
  );
end;
$$;

comment on function _pgstack.create_words_triggers(_pgstack.vectorizer_plan, regconfig) is
'Triggers on a table of chunks that keep the table of words like it.';

-- Only writers of chunks wait, which are the workers.
create or replace function _pgstack.build_words(id integer)
returns void
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
set client_min_messages = warning
as $$
declare
  _plan _pgstack.vectorizer_plan := _pgstack.vectorizer_plan(build_words.id);
  _config regconfig := _pgstack.text_config(build_words.id);
  _table text := _pgstack.words_table(build_words.id);
  _keys text := '';
  _key_names text := '';
  _problem text;
begin
  for _nr in 1 .. cardinality(_plan.key_columns) loop
    _keys := _keys || format('r.%I as key_%s, ', _plan.key_columns[_nr], _nr);
    _key_names := _key_names || format('key_%s, ', _nr);
  end loop;
  _problem := _pgstack.hold_source(_plan);
  if _problem is not null then
    raise exception 'the words of "%" cannot be read: %', _plan.name, _problem
      using errcode = 'PS013', hint = format('select * from pgstack.vectorizer_status where name = %L;', _plan.name);
  end if;
  perform _pgstack.drop_words(build_words.id);
  execute format('lock table %s in share row exclusive mode', _plan.target);
  execute format(
    'create table %s as select %s r.chunk_seq, w.words, _pgstack.word_count(w.words) as size '
    'from %s as r join %s as k on %s '
    'cross join lateral (select _pgstack.to_words(%L::regconfig, %s) as words offset 0) as w',
    _table, _keys, _plan.target, _plan.source, _plan.key_match, _config,
    _pgstack.searched_text(_plan)
  );
  execute format('alter table %s add primary key (%s chunk_seq)', _table, _key_names);
  execute format('create index on %s using gin (words) with (gin_pending_list_limit = 1024)', _table);
  execute format('analyze %s', _table);
  perform _pgstack.protect_words(_plan);
  perform _pgstack.create_words_triggers(_plan, _config);
  insert into _pgstack.vectorizer as v (vectorizer_id, text_config, words_config)
  values (_plan.id, _config, _config)
  on conflict on constraint vectorizer_pkey
  do update set text_config = excluded.text_config, words_config = excluded.words_config;
end;
$$;

comment on function _pgstack.build_words(integer) is
'Makes the table of words of a vectorizer, or makes it anew.';

-- Who owns the chunks owns their words; who may read a source row may read its words.
create or replace function _pgstack.protect_words(plan _pgstack.vectorizer_plan)
returns void
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _table text := _pgstack.words_table(plan.id);
begin
  execute format('alter table %s enable row level security', _table);
  -- It lies in another schema than its source, which may be closed.
  execute format(
    'create policy pgstack_source on %s for select '
    'using (has_schema_privilege(%L, ''usage'') and exists (select %s from %s as r where %s))',
    _table, (parse_ident(plan.source))[1],
    (
      select string_agg(format('r.%I', n.name), ', ')
      from unnest(_pgstack.content_columns(plan.config)) as n (name)
    ),
    plan.source,
    (
      select string_agg(format('r.%I = %s.key_%s', k.name, _table, k.nr), ' and ' order by k.nr)
      from unnest(plan.key_columns) with ordinality as k (name, nr)
    )
  );
  execute format('grant select on %s to public', _table);
  execute format(
    'alter table %s owner to %I', _table,
    (select pg_get_userbyid(c.relowner) from pg_class as c where c.oid = plan.target::regclass)
  );
end;
$$;

comment on function _pgstack.protect_words(_pgstack.vectorizer_plan) is
'Gives words the owner of their chunks and the readers of their source rows.';

create or replace function _pgstack.drop_words(id integer)
returns void
language plpgsql volatile strict
security invoker
set search_path = pg_catalog, pg_temp
set client_min_messages = warning
as $$
begin
  execute format('drop function if exists %s() cascade', _pgstack.words_table(id));
  execute format('drop table if exists %s', _pgstack.words_table(id));
end;
$$;

comment on function _pgstack.drop_words(integer) is
'Drops the table of words of a vectorizer, and its triggers.';

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
'Says in which language the text of a vectorizer is searched by words. A worker makes the table of its words anew; until then each chunk is read, which takes longer.
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
