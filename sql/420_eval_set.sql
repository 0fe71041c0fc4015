-- Family: judged sets.  Queries, and which documents answer them how well.
-- Callers: people, pgstack/judged.py.
-- Errors: PS007 bad argument, PS012 name taken, PS017 unknown set.
--
-- A set belongs to the role that made it and to the members of that role: row-level
-- security of the tables (revision 0004) says so, everything here runs as the caller.

create or replace function _pgstack.unknown_eval_set(name text)
returns void
language plpgsql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _known text;
begin
  select string_agg(quote_literal(x.name), ', ') into _known
  from (select s.name from _pgstack.eval_set as s order by s.name limit 10) as x;
  raise exception 'there is no judged set "%"', coalesce(unknown_eval_set.name, 'NULL')
    using errcode = 'PS017',
    hint = coalesce(
      'Known: ' || _known,
      format('select pgstack.create_eval_set(%L);', coalesce(unknown_eval_set.name, 'my_set'))
    );
end;
$$;

comment on function _pgstack.unknown_eval_set(text) is
'Raises PS017 and lists the judged sets that the caller may see.';

-- Two roles may call their sets the same: one's own comes first.
create or replace function _pgstack.eval_set_id(name text)
returns bigint
language plpgsql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _id bigint;
begin
  select s.id into _id
  from _pgstack.eval_set as s
  where s.name = eval_set_id.name
  order by s.owner <> current_user, s.id
  limit 1;
  if not found then
    perform _pgstack.unknown_eval_set(eval_set_id.name);
  end if;
  return _id;
end;
$$;

comment on function _pgstack.eval_set_id(text) is
'The id of a judged set that the caller may see. Raises PS017.';

create or replace function pgstack.create_eval_set(
  name text, description text default null, doc_column name default null
)
returns bigint
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _id bigint;
begin
  if coalesce(create_eval_set.name, '') !~ '^\S(.{0,98}\S)?$' then
    raise exception 'a judged set cannot be called "%"', coalesce(create_eval_set.name, 'NULL')
      using errcode = 'PS007', hint = 'Pass a name of 1 to 100 characters.';
  end if;
  insert into _pgstack.eval_set (name, description, doc_column)
  values (create_eval_set.name, create_eval_set.description, create_eval_set.doc_column)
  on conflict do nothing
  returning id into _id;
  if _id is null then
    raise exception 'there is a judged set "%" already', create_eval_set.name
      using errcode = 'PS012',
      hint = format('Another name, or: select pgstack.drop_eval_set(%L);', create_eval_set.name);
  end if;
  return _id;
end;
$$;

comment on function pgstack.create_eval_set(text, text, name) is
'Makes an empty judged set and returns its id. Fill it with pgstack.add_eval_query() and judge().
name: 1 to 100 characters. description: what it is for. doc_column: the column of the searched table that holds what judge() calls doc; NULL: the table''s key.
Only the role that makes it and the members of that role see it: set role first to share it with a team.
Raises PS007 bad name, PS012 name taken.';

create or replace function pgstack.add_eval_query(set text, query_id text, query text)
returns void
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _set bigint := _pgstack.eval_set_id(add_eval_query.set);
begin
  if coalesce(add_eval_query.query_id, '') = '' or coalesce(add_eval_query.query, '') !~ '\S' then
    raise exception 'a query needs an id and a text'
      using errcode = 'PS007',
      hint = format('select pgstack.add_eval_query(%L, ''q1'', ''how to bake bread'');', add_eval_query.set);
  end if;
  -- The vectors of another text are of no use.
  delete from _pgstack.eval_vector as v
  using _pgstack.eval_query as q
  where v.set_id = _set and v.query_id = add_eval_query.query_id
    and q.set_id = _set and q.query_id = add_eval_query.query_id and q.text <> add_eval_query.query;
  insert into _pgstack.eval_query as q (set_id, query_id, text)
  values (_set, add_eval_query.query_id, add_eval_query.query)
  on conflict on constraint eval_query_pkey do update set text = excluded.text;
end;
$$;

comment on function pgstack.add_eval_query(text, text, text) is
'Adds a query to a judged set, or gives the query of that id another text.
set: see pgstack.eval_sets. query_id: what judge() calls it. query: the words that are searched for.
Raises PS007 no id or no text, PS017 unknown set.';

create or replace function pgstack.judge(
  set text, query_id text, doc_id text, grade integer default 1
)
returns void
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _set bigint := _pgstack.eval_set_id(judge.set);
begin
  perform _pgstack.require('doc_id', judge.doc_id);
  if judge.grade is null then
    delete from _pgstack.eval_judgment as j
    where j.set_id = _set and j.query_id = judge.query_id and j.doc_id = judge.doc_id;
    return;
  end if;
  insert into _pgstack.eval_judgment as j (set_id, query_id, doc_id, grade)
  values (_set, judge.query_id, judge.doc_id, judge.grade)
  on conflict on constraint eval_judgment_pkey do update set grade = excluded.grade;
exception
  when foreign_key_violation or not_null_violation then
    raise exception 'the judged set "%" has no query "%"', judge.set, coalesce(judge.query_id, 'NULL')
      using errcode = 'PS007',
      hint = format('select pgstack.add_eval_query(%L, %L, ''its text'');', judge.set, judge.query_id);
end;
$$;

comment on function pgstack.judge(text, text, text, integer) is
'Says how well a document answers a query; a later judgement replaces the first.
set: see pgstack.eval_sets. query_id: as in add_eval_query(). doc_id: the document''s key as text, or the value of the set''s doc_column.
grade: 0 or less does not answer it, 1 answers it, more is better (gain in nDCG grows in proportion); NULL takes the judgement back.
Raises PS007 unknown query, PS017 unknown set.';

create or replace function pgstack.drop_eval_set(name text)
returns void
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
begin
  delete from _pgstack.eval_set as s where s.id = _pgstack.eval_set_id(drop_eval_set.name);
end;
$$;

comment on function pgstack.drop_eval_set(text) is
'Drops a judged set, its judgements, and every run that was scored with it. Raises PS017 unknown set.';

-- ------------------------------------------------------------------------ the view

create or replace function _pgstack.eval_set_list()
returns table (
  name text, owner name, description text, origin text, doc_column name,
  queries bigint, judged_queries bigint, judgments bigint, runs bigint, created_at timestamptz
)
language sql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
  select
    s.name, s.owner, s.description, s.origin, s.doc_column,
    coalesce(q.count, 0), coalesce(j.queries, 0), coalesce(j.count, 0), coalesce(r.count, 0),
    s.created_at
  from _pgstack.eval_set as s
  left join (
    select q.set_id, count(*) from _pgstack.eval_query as q group by q.set_id
  ) as q on q.set_id = s.id
  left join (
    select j.set_id, count(*), count(distinct j.query_id) as queries
    from _pgstack.eval_judgment as j
    group by j.set_id
  ) as j on j.set_id = s.id
  left join (
    select r.set_id, count(*) from _pgstack.eval_run as r group by r.set_id
  ) as r on r.set_id = s.id;
$$;

comment on function _pgstack.eval_set_list() is
'The rows of pgstack.eval_sets.';

create or replace view pgstack.eval_sets
with (security_invoker = true)
as
select * from _pgstack.eval_set_list();

comment on view pgstack.eval_sets is
'The judged sets that the caller may see: its own, and those of roles it is a member of.';
comment on column pgstack.eval_sets.name is 'Its name, as pgstack.evaluate() takes it.';
comment on column pgstack.eval_sets.owner is 'The role that made it.';
comment on column pgstack.eval_sets.description is 'What it is for.';
comment on column pgstack.eval_sets.origin is 'hand, beir (pgstack eval load), clicks or known items.';
comment on column pgstack.eval_sets.doc_column is 'The column of the searched table that holds the judged ids; NULL: its key.';
comment on column pgstack.eval_sets.queries is 'Queries in it.';
comment on column pgstack.eval_sets.judged_queries is 'Those with a judgement: the others are left out of runs.';
comment on column pgstack.eval_sets.judgments is 'Judgements in it.';
comment on column pgstack.eval_sets.runs is 'Runs of the caller that were scored with it.';
comment on column pgstack.eval_sets.created_at is 'When it was made.';

grant select on pgstack.eval_sets to public;
