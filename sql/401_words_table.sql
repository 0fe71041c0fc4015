-- Family: the table of words that a vectorizer has beside its table of chunks.  404_words.sql
-- says what it is for, 405_search_branch.sql ranks by it.
-- Callers: 404_words.sql, 432_audit_vectorizer.sql; 330_index.sql has the worker build it;
-- 305_vectorizer_prepare.sql, 308_capture_tables.sql, 312_vectorizer_verbs.sql drop it.
-- Errors: PS001 unknown vectorizer, PS007 wrong transaction, PS013 no table; 40001 in writers, see below.
--
-- Made anew, it is made beside the old one, under another name, and takes its place in one
-- transaction, by a row of _pgstack.vectorizer and by the trigger function.
--   Readers    wait for nothing: no lock is taken that keeps them out, on no table that they
--              read.  Until the commit they find the old one, and those whose snapshot is older,
--              or who have looked up its name a moment ago, find it after that as well.  The
--              worker drops it later: drop_old_words().
--   Writers    of chunks wait from beginning to end, as do those who delete source rows.  So
--              what is read is all there is, and the next one meets the new trigger function.
--   Others     who build or drop it wait, too.  Locks are taken in the order source, target and
--              then what work_complete() takes there, a row of _pgstack.vectorizer.
-- Whoever dies before the commit leaves nothing.

create or replace function _pgstack.words_table_name(id integer, version integer)
returns text
language plpgsql immutable
security invoker
set search_path = pg_catalog, pg_temp
as $$
begin
  return format('ai.%I', concat_ws('_', '_pgstack_words', id, nullif(version, 0)));
end;
$$;

comment on function _pgstack.words_table_name(integer, integer) is
'The name of a table of words. version: 0 the first of this vectorizer, 1 the next ...';

-- PL/pgSQL, and stable: it tells what goes with the words_config that the same snapshot shows.
create or replace function _pgstack.words_table(id integer)
returns text
language plpgsql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
begin
  return _pgstack.words_table_name(words_table.id, (
    select v.words_version from _pgstack.vectorizer as v where v.vectorizer_id = words_table.id
  ));
end;
$$;

comment on function _pgstack.words_table(integer) is
'The name of the table that holds the words of a vectorizer''s chunks, whether there is one or not.';

-- Its triggers run with the rights of the owner of the chunks: whoever deletes a source row
-- needs none on it.
-- A snapshot older than the table sees none of its rows: words of a chunk deleted under it would
-- stay, and be in the way when the row comes back.  40001, because that is what such writers
-- have to expect and answer by trying again.
create or replace function _pgstack.create_words_triggers(
  plan _pgstack.vectorizer_plan, config regconfig, relation text
)
returns void
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _function text := _pgstack.words_table_name(plan.id, 0);
  _row_match text := '';
begin
  for _nr in 1 .. cardinality(plan.key_columns) loop
    _row_match := _row_match || format('w.key_%s = r.%I and ', _nr, plan.key_columns[_nr]);
  end loop;
  execute format(
    'create or replace function %s() returns trigger '
    'language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as %L',
    _function,
    format(
      $body$
begin
  if tg_op = 'TRUNCATE' then
    truncate %1$s;
    return null;
  end if;
  if tg_op <> 'INSERT' then
    if current_setting('transaction_isolation') in ('repeatable read', 'serializable')
      and not exists (select from pg_class as c where c.oid = %8$L::regclass)
    then
      raise exception 'the words of %% were made anew since this transaction began', tg_relid::regclass
        using errcode = 'serialization_failure', hint = 'Try the transaction again.';
    end if;
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
      relation, _row_match,
      'r.' || array_to_string(array(select quote_ident(k.name) from unnest(plan.key_columns) as k (name)), ', r.'),
      config, plan.source, plan.key_match, _pgstack.searched_text(plan), relation
    )
  );
  execute format('revoke all on function %s() from public', _function);
  execute format(
    'create or replace trigger _pgstack_words_insert after insert on %1$s '
    'referencing new table as new_rows for each statement execute function %2$s(); '
    'create or replace trigger _pgstack_words_update after update on %1$s '
    'referencing old table as old_rows new table as new_rows for each statement execute function %2$s(); '
    'create or replace trigger _pgstack_words_delete after delete on %1$s '
    'referencing old table as old_rows for each statement execute function %2$s(); '
    'create or replace trigger _pgstack_words_truncate after truncate on %1$s '
    'for each statement execute function %2$s()',
    plan.target, _function
  );
end;
$$;

comment on function _pgstack.create_words_triggers(_pgstack.vectorizer_plan, regconfig, text) is
'Triggers on a table of chunks that keep a table of words like it. relation: the table of words.';

-- Who owns the chunks owns their words; who may read a source row may read its words.
create or replace function _pgstack.protect_words(plan _pgstack.vectorizer_plan, relation text)
returns void
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
begin
  execute format('alter table %s enable row level security', relation);
  -- It lies in another schema than its source, which may be closed.
  execute format(
    'create policy pgstack_source on %s for select '
    'using (has_schema_privilege(%L, ''usage'') and exists (select %s from %s as r where %s))',
    relation, (parse_ident(plan.source))[1],
    (
      select string_agg(format('r.%I', n.name), ', ')
      from unnest(_pgstack.content_columns(plan.config)) as n (name)
    ),
    plan.source,
    (
      select string_agg(format('r.%I = %s.key_%s', k.name, relation, k.nr), ' and ' order by k.nr)
      from unnest(plan.key_columns) with ordinality as k (name, nr)
    )
  );
  execute format('grant select on %s to public', relation);
  execute format(
    'alter table %s owner to %I', relation,
    (select pg_get_userbyid(c.relowner) from pg_class as c where c.oid = plan.target::regclass)
  );
end;
$$;

comment on function _pgstack.protect_words(_pgstack.vectorizer_plan, text) is
'Gives words the owner of their chunks and the readers of their source rows. relation: the table of words.';

-- Keeps writers of chunks out, and only them, until the transaction ends.  What it waited for may
-- have dropped the vectorizer, or put a view in a table's place.
create or replace function _pgstack.lock_chunks(id integer)
returns _pgstack.vectorizer_plan
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _plan _pgstack.vectorizer_plan := _pgstack.vectorizer_plan(lock_chunks.id);
  _problem text;
begin
  if _plan.id is not null then
    -- First, though it is read later: a TRUNCATE that has the source waits for the target.
    _problem := _pgstack.hold_source(_plan);
    _plan := _pgstack.vectorizer_plan(lock_chunks.id);
  end if;
  if _plan.id is not null and _problem is null then
    execute format('lock table %s in share row exclusive mode', _plan.target);
    -- What it waited for may have been set_chunking(), too.
    _plan := _pgstack.vectorizer_plan(lock_chunks.id);
    _problem := _pgstack.relation_problem(_plan);
  end if;
  if _plan.id is null then
    perform _pgstack.unknown_vectorizer(lock_chunks.id::text);
  end if;
  if _problem is not null then
    raise exception 'the words of "%" cannot be read: %', _plan.name, _problem
      using errcode = 'PS013', hint = format('select * from pgstack.vectorizer_status where name = %L;', _plan.name);
  end if;
  return _plan;
end;
$$;

comment on function _pgstack.lock_chunks(integer) is
'Locks out writers of a vectorizer''s chunks; returns its plan. Raises PS001 when it is gone, PS013 when its tables are not there.';

create or replace function _pgstack.build_words(id integer)
returns void
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
set client_min_messages = warning
as $$
declare
  _plan _pgstack.vectorizer_plan;
  _config regconfig;
  _version integer;
  _table text;
  _keys text := '';
  _key_names text := '';
begin
  -- Its snapshot is older than the lock: chunks that were written between would have no words.
  if current_setting('transaction_isolation') <> 'read committed' then
    raise exception 'a % transaction may not see all chunks', current_setting('transaction_isolation')
      using errcode = 'PS007', hint = 'begin isolation level read committed;';
  end if;
  _plan := _pgstack.lock_chunks(build_words.id);
  _config := _pgstack.text_config(build_words.id);
  -- Never a name again: a snapshot that shows the old row would read the new table, and no row of it.
  _version := coalesce((
    select v.words_version + 1 from _pgstack.vectorizer as v
    where v.vectorizer_id = _plan.id and v.words_config is not null
  ), 0);
  while to_regclass(_pgstack.words_table_name(_plan.id, _version)) is not null loop
    _version := _version + 1;
  end loop;
  _table := _pgstack.words_table_name(_plan.id, _version);
  for _nr in 1 .. cardinality(_plan.key_columns) loop
    _keys := _keys || format('r.%I as key_%s, ', _plan.key_columns[_nr], _nr);
    _key_names := _key_names || format('key_%s, ', _nr);
  end loop;
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
  perform _pgstack.protect_words(_plan, _table);
  perform _pgstack.create_words_triggers(_plan, _config, _table);
  -- Another text_config may have been set meanwhile: then it is due again.
  insert into _pgstack.vectorizer as v (
    vectorizer_id, text_config, words_config, words_version, words_made_at
  )
  values (_plan.id, _config, _config, _version, clock_timestamp())
  on conflict on constraint vectorizer_pkey do update set
    text_config = coalesce(v.text_config, excluded.text_config),
    words_config = excluded.words_config,
    words_version = excluded.words_version,
    words_made_at = excluded.words_made_at;
end;
$$;

comment on function _pgstack.build_words(integer) is
'Makes the table of words of a vectorizer, or makes it anew. Searches go on meanwhile; who writes or deletes chunks waits. Raises PS001 unknown vectorizer, PS007 not in READ COMMITTED, PS013 a table of it is none any more.';

-- ------------------------------------------------------------------------------- dropped

create or replace function _pgstack.words_tables()
returns table (id integer, relation regclass, owner oid)
language sql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
  select substring(c.relname from '^_pgstack_words_([0-9]+)(?:_[0-9]+)?$')::integer, c.oid::regclass, c.relowner
  from pg_class as c
  where c.relnamespace = 'ai'::regnamespace and c.relkind = 'r'
    and c.relname ~ '^_pgstack_words_[0-9]+(_[0-9]+)?$';
$$;

comment on function _pgstack.words_tables() is
'All tables of words: those in use, old ones, and those of vectorizers that are gone.';

create or replace function _pgstack.drop_words(id integer)
returns void
language plpgsql volatile strict
security invoker
set search_path = pg_catalog, pg_temp
set client_min_messages = warning
as $$
declare
  _table regclass;
begin
  execute format('drop function if exists %s() cascade', _pgstack.words_table_name(id, 0));
  for _table in select t.relation from _pgstack.words_tables() as t where t.id = drop_words.id loop
    execute format('drop table %s', _table);
  end loop;
end;
$$;

comment on function _pgstack.drop_words(integer) is
'Drops the tables of words of a vectorizer, and their triggers.';

-- A search that has looked up the name of a table takes a lock on it some milliseconds later.
-- Nothing tells who is between the two, so they get minutes.
create or replace function _pgstack.drop_old_words()
returns void
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _table regclass;
begin
  for _table in
    select t.relation
    from _pgstack.words_tables() as t
    join _pgstack.vectorizer as v on v.vectorizer_id = t.id
    where t.relation <> to_regclass(_pgstack.words_table(t.id))
      -- In the future: the clock was set back since.
      and v.words_made_at not between clock_timestamp() - interval '10 minutes' and clock_timestamp()
      and pg_has_role(t.owner, 'usage')
  loop
    begin
      execute format('lock table %s in access exclusive mode nowait', _table);
      execute format('drop table %s', _table);
    exception
      when lock_not_available or undefined_table then null;
    end;
  end loop;
end;
$$;

comment on function _pgstack.drop_old_words() is
'Drops tables of words that were made anew some minutes ago. Where one is still read, another time.';
