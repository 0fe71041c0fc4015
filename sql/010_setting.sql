-- Family: settings.  Reads and writes _pgstack.setting.
-- Callers: every other family, through _pgstack.setting_value().
-- Errors: PS007 value out of range, PS014 missing privilege, PS015 unknown setting.

-- The one list of settings.  pattern is what a value must look like.  Inlined, because a search
-- reads several.  No view: to replace one waits for searches.
create or replace function _pgstack.setting_catalogue()
returns table (name text, default_value text, pattern text, description text)
language sql immutable parallel safe
security invoker
as $$
  values
    (
      'embedding_model', 'all-minilm', '\S+',
      'Model of pgstack.embed() and of new vectorizers.'
    ),
    (
      'generation_model', 'qwen2.5-coder:0.5b', '\S+',
      'Model of pgstack.generate(), chat() and ask().'
    ),
    (
      'request_timeout', '60s', '\d{1,9}(\.\d{1,9})?\s*(ms|s|min|h)',
      'How long a statement waits for a model to answer.'
    ),
    (
      'bridge_keep_open', 'on', 'on|off',
      'Keep the bridge''s second connection open between calls of a session. Off halves the connections, '
      'and each call then opens one (some 50 ms).'
    ),
    (
      'query_cache', 'on', 'on|off',
      'Remember the vectors of query texts, each role for itself.'
    ),
    (
      'query_cache_size', '10000', '\d{1,9}',
      'Query vectors remembered in this database; the oldest go first.'
    ),
    (
      'query_cache_ttl', '1d', '\d{1,6}\s*(s|min|h|d)',
      'How long a query vector is remembered.'
    ),
    (
      'model_hosts', '', '.*',
      'Other model servers that SQL may name (host => ..., base_url => ...): URLs separated by commas. '
      'Empty: only the worker''s own. Set for the whole database only, with pgstack.configure().'
    ),
    (
      'dataset_sources', '', '.*',
      'What pgstack.load_dataset() may have the worker read: beginnings of URLs and absolute folders, each ending in /, '
      'separated by commas. Empty: nothing. Set for the whole database only, with pgstack.configure().'
    ),
    (
      'tika_url', '', '|https?://\S+',
      'An Apache Tika server, for collections with extraction => ''{"extractor": "tika"}''. '
      'Set for the whole database only, with pgstack.configure().'
    ),
    (
      'lease', '60s', '\d{1,6}\s*(s|min|h)',
      'How long a worker keeps a row to itself before another may take it over.'
    ),
    (
      'model_timeout', '5min', '\d{1,6}\s*(ms|s|min|h)',
      'How long a vectorizer''s call may take; a worker reads it when it connects.'
    ),
    (
      'max_attempts', '6', '[1-9]\d{0,8}',
      'How often a row is tried before it is set aside as failed.'
    ),
    (
      'embedding_cache', 'off', 'on|off',
      'Keep vectors by the digest of their text, so that no vectorizer embeds a text that another has embedded.'
    ),
    (
      'embedding_cache_size', '100000', '\d{1,9}',
      'Vectors that the embedding cache keeps; the oldest go first.'
    ),
    (
      'index_min_rows', '10000', '\d{1,9}',
      'Chunks from which on a vectorizer gets a vector index.'
    ),
    (
      'index_method', 'hnsw', 'hnsw|diskann|none',
      'Index that a vectorizer with index => ''auto'' gets.'
    ),
    (
      'text_index', 'tsvector', 'tsvector|bm25|none',
      'How vectorizers find words: tsvector, a table of words and its index; bm25, an index of pg_textsearch, faster, '
      'but version 0.6 of it can block writes after a crash of the server; none: each chunk is read.'
    ),
    (
      'text_index_min_rows', '1000', '\d{1,9}',
      'Chunks from which on a vectorizer gets an index of words.'
    ),
    (
      'index_memory', 'auto', 'auto|\d{1,9}\s*(kB|MB|GB)',
      'Memory for building a vector index, such as 2GB. auto: what it wants, within an eighth of effective_cache_size; '
      'maintenance_work_mem at least.'
    ),
    (
      'target_recall', '0.95', '0(\.\d{1,6})?|1(\.0{1,6})?',
      'Share of the nearest chunks that a search by a vector index should find: pgstack.recall() measures what that takes.'
    ),
    (
      'text_config', 'english', '\S+',
      'Language that text is searched in by words: select cfgname from pg_ts_config. '
      'A vectorizer keeps the one it was made with until pgstack.set_text_config().'
    );
$$;

comment on function _pgstack.setting_catalogue() is
'Every setting with its default, the pattern of its values and what it does.';

-- What the session, its role or its database says; NULL: nothing.  Anybody may say it, so
-- what protects others is not asked here.
create or replace function _pgstack.session_setting(name text)
returns text
language plpgsql stable strict parallel safe
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _value text := nullif(current_setting('pgstack.' || session_setting.name, true), '');
begin
  if _value is null or session_setting.name in ('model_hosts', 'tika_url', 'dataset_sources') then
    return null;
  end if;
  perform _pgstack.check_setting(session_setting.name, _value);
  return _value;
end;
$$;

comment on function _pgstack.session_setting(text) is
'The value that set pgstack.NAME, alter role or alter database gave a setting. Raises PS007 when it cannot be.';

create or replace function _pgstack.check_setting(name text, value text)
returns void
language plpgsql stable parallel safe
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _pattern text;
begin
  select c.pattern into _pattern
  from _pgstack.setting_catalogue() as c
  where c.name = check_setting.name;
  if not found then
    raise exception 'there is no setting "%"', check_setting.name
      using errcode = 'PS015', hint = 'select name, description from pgstack.settings;';
  end if;
  if check_setting.value !~ ('^(' || _pattern || ')$') then
    raise exception 'setting "%" cannot be "%"', check_setting.name, check_setting.value
      using errcode = 'PS007', hint = format('It must look like %s.', _pattern);
  end if;
end;
$$;

comment on function _pgstack.check_setting(text, text) is
'Raises PS015 for a setting that does not exist, PS007 for a value that it cannot have.';

-- The value in force: set pgstack.NAME of the session, role or database first,
-- then pgstack.configure(), then the default.
create or replace function _pgstack.setting_value(name text)
returns text
language plpgsql stable strict parallel safe
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _value text;
begin
  -- Most often the session says nothing; a search reads several settings.
  if current_setting('pgstack.' || setting_value.name, true) <> '' then
    _value := _pgstack.session_setting(setting_value.name);
  end if;
  if _value is null then
    select s.value into _value from _pgstack.setting as s where s.name = setting_value.name;
  end if;
  if _value is null then
    select c.default_value into _value
    from _pgstack.setting_catalogue() as c
    where c.name = setting_value.name;
  end if;
  return _value;
end;
$$;

comment on function _pgstack.setting_value(text) is
'The value of a setting that holds for this session.';

create or replace function pgstack.configure(name text, value text)
returns void
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
begin
  perform _pgstack.check_setting(configure.name, configure.value);
  if configure.name = 'target_recall' then
    delete from _pgstack.prepared_search;
  end if;
  if configure.value is null then
    delete from _pgstack.setting as s where s.name = configure.name;
    return;
  end if;
  insert into _pgstack.setting as s (name, value)
  values (configure.name, configure.value)
  on conflict on constraint setting_pkey
  do update set value = excluded.value, updated_at = now(), updated_by = current_user;
exception
  when insufficient_privilege then
    raise exception 'only the owner of pgstack may change the settings of this database'
      using errcode = 'PS014',
      hint = format('For this session alone: set pgstack.%s = %L;', configure.name, configure.value);
end;
$$;

comment on function pgstack.configure(text, text) is
'Sets a default of this database; NULL puts the built-in default back.
name: see pgstack.settings. value: text, durations as ''60s'' or ''5min''.
One session, role or database can differ: set pgstack.NAME = ''value''; alter role ... set pgstack.NAME = ''value''.
Raises PS015 unknown setting, PS007 value out of range, PS014 not the owner of pgstack.';

create or replace view pgstack.settings
with (security_invoker = true)
as
select
  c.name,
  _pgstack.setting_value(c.name) as value,
  c.default_value,
  case
    when _pgstack.session_setting(c.name) is not null then 'session'
    when s.name is not null then 'database'
    else 'default'
  end as source,
  c.description
from _pgstack.setting_catalogue() as c
left join _pgstack.setting as s on s.name = c.name;

comment on view pgstack.settings is
'Every setting: the value in force, its default, where it comes from (session, database, default) and what it does. Change one with pgstack.configure(name, value).';
comment on column pgstack.settings.name is 'Name; also the session variable pgstack.NAME.';
comment on column pgstack.settings.value is 'The value in force for this session.';
comment on column pgstack.settings.default_value is 'The built-in default.';
comment on column pgstack.settings.source is 'session, database or default.';
comment on column pgstack.settings.description is 'What it does.';

-- Workers take the database's view of a duration as an interval.
create or replace function _pgstack.setting_interval(name text)
returns interval
language sql stable strict parallel safe
security invoker
set search_path = pg_catalog, pg_temp
as $$
  select _pgstack.setting_value(setting_interval.name)::interval;
$$;

comment on function _pgstack.setting_interval(text) is
'The value of a setting that is a duration.';
