-- Family: forgetting.  A row of a source, or a document, and all that pgstack keeps of it.
-- Callers: people, pgstack/cleaning.py.
-- Errors: PS001 unknown vectorizer or collection, PS007 bad id, PS013 cannot be sure, PS014 missing privilege.
--
-- Where something of a row can be: its chunks and vectors, the words of these, queues, leases and errors, what other
-- vectorizers on the same table have, what a dropped vectorizer left, caches, questions in flight, judged sets.
-- pgstack.find_traces() looks through every column of all tables of ours, and so proves that this list is complete.
--
-- A worker may have the row's text in hand.  The row is locked first: until then workers write its chunks, after that
-- none does (_pgstack.lock_unchanged).  Its lease is deleted before the errors are: who has lost it writes none
-- (_pgstack.work_fail), and vectors of a row that is gone are not cached (_pgstack.work_complete).  Later statements
-- must see what was written before the lock was had: hence READ COMMITTED.

-- Tables of chunks, of live vectorizers and of dropped ones whose data was kept: a view joins each with its source.
create or replace function _pgstack.chunk_tables(source regclass)
returns setof regclass
language sql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
  select distinct t.oid::regclass
  from pg_depend as s
  join pg_depend as d
    on d.classid = s.classid and d.objid = s.objid and d.refclassid = s.refclassid and d.refobjid <> s.refobjid
  join pg_class as t on t.oid = d.refobjid and t.relkind in ('r', 'p')
  where s.classid = 'pg_rewrite'::regclass and s.refclassid = 'pg_class'::regclass
    and s.refobjid = chunk_tables.source
    and 4 = (
      select count(*) from pg_attribute as a
      where a.attrelid = t.oid and not a.attisdropped
        and a.attname in ('embedding_uuid', 'chunk_seq', 'chunk', 'embedding')
    );
$$;

comment on function _pgstack.chunk_tables(regclass) is
'The tables of chunks of a source, also those that dropped vectorizers left.';

-- All whose source is that table, a partition or a child of it, or has it as one.
create or replace function _pgstack.plans_of(source regclass)
returns setof _pgstack.vectorizer_plan
language sql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
  select p.*
  from _pgstack.vectorizer_plan as p
  join _pgstack.vectorizer_sources() as s on s.id = p.id
  where s.source = plans_of.source or plans_of.source = any (s.members)
    or s.source in (
      with recursive tree (relation) as (
        select plans_of.source::oid
        union
        select i.inhrelid from tree as t join pg_inherits as i on i.inhparent = t.relation
      )
      select t.relation from tree as t
    );
$$;

comment on function _pgstack.plans_of(regclass) is
'The vectorizers that may have taken in rows of a table.';

-- match: as key_match, with r for the table's row and k for the key.
create or replace function _pgstack.key_tables(plan _pgstack.vectorizer_plan)
returns table (relation text, match text)
language sql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
  select x.relation, x.match
  from (
    -- Words first, or they would go with their chunks unseen.
    select 1, w.relation::text, (
      select string_agg(format('r.key_%s = k.%I', n.nr, n.name), ' and ' order by n.nr)
      from unnest(plan.key_columns) with ordinality as n (name, nr)
    )
    from _pgstack.words_tables() as w
    where w.id = plan.id
    union all
    select 2, plan.target, plan.key_match where plan.has_table
    union all
    select 3, c.relation::text, plan.key_match
    from _pgstack.chunk_tables(plan.source::regclass) as c (relation)
    where c.relation not in (select p.target::regclass from _pgstack.vectorizer_plan as p where p.has_table)
      and cardinality(plan.key_columns) = (
        select count(*) from pg_attribute as a
        where a.attrelid = c.relation and a.attname = any (plan.key_columns)
      )
  ) as x (nr, relation, match)
  order by x.nr;
$$;

comment on function _pgstack.key_tables(_pgstack.vectorizer_plan) is
'The tables with chunks and words of a vectorizer''s rows, and how to find a key there.';

create or replace function _pgstack.forget_in(relation text, match text, key_record text, key jsonb)
returns bigint
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _deleted bigint;
begin
  execute format(
    'delete from %s as r using jsonb_to_record($1) as k (%s) where %s',
    forget_in.relation, forget_in.key_record, forget_in.match
  ) using forget_in.key;
  get diagnostics _deleted = row_count;
  return _deleted;
end;
$$;

comment on function _pgstack.forget_in(text, text, text, jsonb) is
'Deletes the rows of one table that belong to a key; returns how many.';

-- Locks the row, and reads what is needed to find the rest: keys, text, ids by which it may be judged.
create or replace function _pgstack.lock_row(plan _pgstack.vectorizer_plan, key jsonb, columns name[])
returns jsonb
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _row jsonb;
begin
  execute format(
    'select jsonb_build_object(%s) from %s as r, jsonb_to_record($1) as k (%s) where %s for update of r',
    (
      select string_agg(format('%L, r.%I', a.attname, a.attname), ', ')
      from pg_attribute as a
      where a.attrelid = plan.source::regclass and a.attname = any (lock_row.columns) and not a.attisdropped
    ),
    plan.source, plan.key_record, plan.key_match
  ) using lock_row.key into _row;
  return _row;
end;
$$;

comment on function _pgstack.lock_row(_pgstack.vectorizer_plan, jsonb, name[]) is
'Locks a source row and returns some of its columns; NULL: there is none.';

create or replace function _pgstack.check_id(plan _pgstack.vectorizer_plan, id jsonb)
returns jsonb
language plpgsql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _key jsonb;
begin
  if jsonb_typeof(check_id.id) is distinct from 'object'
    or not check_id.id ?& plan.key_columns::text[] or check_id.id - plan.key_columns::text[] <> '{}'
  then
    raise exception 'an id of % is an object with its primary key', plan.source
      using errcode = 'PS007', hint = format(
        'As pgstack.search() gives it: {%s}.',
        (select string_agg(format('"%s": ...', c.name), ', ') from unnest(plan.key_columns) as c (name))
      );
  end if;
  -- "7" and 7 are one key.
  execute format('select %s from jsonb_to_record($1) as r (%s)', plan.key_json, plan.key_record)
  using check_id.id into _key;
  return _key;
exception
  when data_exception then
    raise exception 'an id of % cannot be %: %', plan.source, check_id.id, sqlerrm
      using errcode = 'PS007', hint = 'Pass it as pgstack.search() gives it.';
end;
$$;

comment on function _pgstack.check_id(_pgstack.vectorizer_plan, jsonb) is
'A key in the spelling that queues have. Raises PS007 for what is no key of the vectorizer''s source.';

-- The caller may have the right to delete and yet delete nothing.
create or replace function _pgstack.check_deleted(plan _pgstack.vectorizer_plan, key jsonb)
returns void
language plpgsql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _there boolean;
begin
  if row_security_active(plan.source) then
    raise exception 'row-level security of % hides rows from %: whether the row is gone cannot be told', plan.source, current_user
      using errcode = 'PS014', hint = format(
        'set role %I;   -- the owner, or a role with bypassrls',
        (select pg_get_userbyid(c.relowner) from pg_class as c where c.oid = plan.source::regclass)
      );
  end if;
  execute format(
    'select exists (select from %s as r, jsonb_to_record($1) as k (%s) where %s)',
    plan.source, plan.key_record, plan.key_match
  ) using check_deleted.key into _there;
  if _there then
    raise exception 'the row is still in %: a trigger or a rule kept it', plan.source
      using errcode = 'PS013', hint = format('\d %s   -- and disable it, or delete the row yourself', plan.source);
  end if;
end;
$$;

comment on function _pgstack.check_deleted(_pgstack.vectorizer_plan, jsonb) is
'Raises PS013 or PS014 unless it is certain that the source has no row of that key.';
