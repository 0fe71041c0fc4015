-- Family: forgetting.  The verbs: a row, a document.  440_forget.sql says what is forgotten and why it stays so.
-- Callers: people, pgstack/cleaning.py.
-- Errors: PS001 unknown vectorizer or collection, PS007 bad id, PS013 cannot be sure, PS014 missing privilege.

create or replace function _pgstack.forget_row(plan _pgstack.vectorizer_plan, id jsonb)
returns table (place text, rows bigint)
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _key jsonb := _pgstack.check_id(plan, forget_row.id);
  _plans _pgstack.vectorizer_plan[] := array(select p from _pgstack.plans_of(plan.source::regclass) as p);
  _plan _pgstack.vectorizer_plan;
  _other jsonb;
  _names text[] := array(select p.name::text from unnest(_plans) as p);
  _row jsonb;
  _texts text[];
  _chunks text[];
  _queries text[];
  _table record;
begin
  _row := _pgstack.lock_row(plan, _key, array(
    select c.name from unnest(_plans) as p cross join unnest(p.key_columns) as c (name)
    union
    select c.name::name from unnest(_plans) as p cross join unnest(_pgstack.content_columns(p.config)) as c (name)
    union
    select s.doc_column from _pgstack.eval_set as s
    union
    select r.doc_column from _pgstack.eval_run as r where r.vectorizer = any (_names)
  ));
  select array_agg(_row ->> c.name) into _texts
  from unnest(_plans) as p
  cross join unnest(_pgstack.content_columns(p.config)) as c (name)
  where _row ->> c.name <> '';
  foreach _plan in array _plans loop
    -- Of a partition: its key may have other columns.
    continue when not coalesce(_row, _key) ?& _plan.key_columns::text[];
    if _plan.has_table then
      -- Locks are taken in the order source, chunks, words: as everywhere.
      execute format('lock table %s in row exclusive mode', _plan.target);
      execute format(
        'select array_agg(r.chunk) from %s as r, jsonb_to_record($1) as k (%s) where %s',
        _plan.target, _plan.key_record, _plan.key_match
      ) using coalesce(_row, _key) into _chunks;
      _texts := _texts || _chunks;
    end if;
    for _table in select t.* from _pgstack.key_tables(_plan) as t loop
      place := _table.relation;
      rows := _pgstack.forget_in(_table.relation, _table.match, _plan.key_record, coalesce(_row, _key));
      return next;
    end loop;
  end loop;
  place := plan.source;
  rows := _pgstack.forget_in(plan.source, plan.key_match, plan.key_record, _key);
  return next;
  if rows = 0 then
    perform _pgstack.check_deleted(plan, _key);
  end if;
  foreach _plan in array _plans loop
    continue when not coalesce(_row, _key) ?& _plan.key_columns::text[];
    _other := _pgstack.check_id(_plan, (
      select jsonb_object_agg(c.name, coalesce(_row, _key) -> c.name) from unnest(_plan.key_columns) as c (name)
    ));
    return query select * from _pgstack.forget_work(_plan, _other, _texts);
  end loop;
  for place, rows, _queries in
    select e.* from _pgstack.forget_eval(_names, _key, _row, _texts) as e
  loop
    return next;
    _texts := _texts || _queries;
  end loop;
  return query select * from _pgstack.forget_questions(_texts);
  place := '_pgstack.embedding_cache';
  rows := _pgstack.forget_cached();
  return next;
end;
$$;

comment on function _pgstack.forget_row(_pgstack.vectorizer_plan, jsonb) is
'Forgets a source row; a line for each place, also where nothing was.';

create or replace function pgstack.forget(vectorizer text, id jsonb)
returns table (place text, rows bigint)
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _plan _pgstack.vectorizer_plan;
begin
  perform _pgstack.check_manager();
  _plan := _pgstack.vectorizer_plan(forget.vectorizer);
  if current_setting('transaction_isolation') <> 'read committed' then
    raise exception 'what was written since this transaction began would not be forgotten'
      using errcode = 'PS013', hint = 'begin isolation level read committed;';
  end if;
  return query
  select f.place, sum(f.rows)::bigint
  from _pgstack.forget_row(_plan, forget.id) as f
  group by f.place
  having sum(f.rows) > 0
  order by f.place;
exception
  when insufficient_privilege then
    raise exception '% may not forget rows of %: %', current_user, _plan.source, sqlerrm
      using errcode = 'PS014', hint = format(
        'grant select, update, delete on %s to %I;   -- or let the owner of the table do it', _plan.source, current_user
      );
end;
$$;

comment on function pgstack.forget(text, jsonb) is
'Deletes a row from a vectorizer''s source, and all that pgstack keeps of it: chunks, vectors and words, those of other vectorizers on that table and of dropped ones, queued and failed work, errors, cached vectors, questions to models that are waiting, queries made from it, judgements and results. Returns the tables and how many of their rows were deleted or blanked.
vectorizer: its name. id: the row''s primary key as pgstack.search() gives it, {"id": 7}; the row may be gone already.
A worker that has its text in hand at that moment writes nothing of it. The bytes of deleted rows stay in the files of a table until vacuum full rewrites it, and in statistics until analyze: docs/howto/privacy.md. pgstack.find_traces() looks for what is left.
Raises PS001 unknown vectorizer, PS007 no key of that table, PS013 the transaction is not read committed or a trigger keeps the row, PS014 not the owner of pgstack or no right to delete.';

create or replace function pgstack.forget_document(collection text, uri text)
returns table (place text, rows bigint)
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _relation regclass := _pgstack.collection_table(forget_document.collection);
  _name text;
  _id bigint;
begin
  perform _pgstack.check_manager();
  select p.name into _name
  from _pgstack.vectorizer_plan as p where p.source::regclass = _relation
  order by p.id limit 1;
  if not found then
    raise exception 'collection "%" has no vectorizer', forget_document.collection
      using errcode = 'PS013', hint = format(
        'select pgstack.create_vectorizer(%L, ''content'');   -- and try again', _relation::text
      );
  end if;
  execute format(
    'select d.id from %s as d where d.uri = $1 and d.tenant is not distinct from _pgstack.current_tenant()',
    _relation
  ) using forget_document.uri into _id;
  if _id is null then
    raise exception 'collection "%" has no document "%"', forget_document.collection, forget_document.uri
      using errcode = 'PS007',
      hint = format('select uri, tenant from pgstack.documents where collection = %L;', forget_document.collection);
  end if;
  return query select f.* from pgstack.forget(_name, jsonb_build_object('id', _id)) as f;
exception
  when insufficient_privilege then
    raise exception '% may not read collection "%"', current_user, forget_document.collection
      using errcode = 'PS014', hint = format('grant select, update, delete on %s to %I;', _relation, current_user);
end;
$$;

comment on function pgstack.forget_document(text, text) is
'Removes a document and all that pgstack keeps of it, as pgstack.forget() does with a row; returns the same.
collection: see pgstack.collections. uri: the document''s, of the tenant that pgstack.tenant names.
Raises PS001 unknown collection, PS007 no such document, and what pgstack.forget() raises.';
