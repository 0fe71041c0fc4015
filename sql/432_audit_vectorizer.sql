-- Family: audit, what of a vectorizer a role can reach: 436_audit.sql tells the whole.
-- Callers: 436_audit.sql.
-- Errors: none.
--
-- The measure is the source: who may read some rows of it, or not the text, should get no
-- more from chunks, vectors, views and queues.

-- Which of its texts a role may read: none, some (its policies decide) or all.  The name of
-- the schema is not asked for: a policy and statistics do not need it either.
create or replace function _pgstack.source_access(plan _pgstack.vectorizer_plan, role oid)
returns text
language sql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
  select
    case
      when count(*) = 0 then 'none'
      when bool_or(
        not c.relrowsecurity or r.rolbypassrls
        or pg_has_role(r.oid, c.relowner, 'usage') and not c.relforcerowsecurity
      ) then 'all'
      else 'some'
    end
  from pg_class as c
  join pg_roles as r on r.oid = any (_pgstack.acting_roles(source_access.role))
  where c.oid = _pgstack.find_relation(plan.source)
    and not exists (
      select from unnest(plan.key_columns || _pgstack.content_columns(plan.config)::name[]) as n (name)
      where not has_column_privilege(r.oid, c.oid, n.name, 'select')
    );
$$;

comment on function _pgstack.source_access(_pgstack.vectorizer_plan, oid) is
'How much of a vectorizer''s text a role may read in its source: none, some rows, or all.';

-- What holds chunks: the table of chunks, and that of their words, whose keys are called
-- key_1, key_2 ...  With the conditions that protect_target() and protect_words() put there,
-- as PostgreSQL writes them.
create or replace function _pgstack.guarded_tables(plan _pgstack.vectorizer_plan)
returns table (relation oid, name text, columns name[], what text, policy text)
language sql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
  select
    c.oid, t.name, t.columns, t.what,
    format(
      '%sEXISTS (SELECT %s FROM %s r WHERE %s)',
      case when t.is_words
        then format('has_schema_privilege(%L, %L) AND ', (parse_ident(plan.source))[1], 'usage') end,
      (
        select string_agg(format('r.%I', n.name), ', ' order by n.nr)
        from unnest(_pgstack.content_columns(plan.config)) with ordinality as n (name, nr)
      ),
      plan.source,
      (
        select string_agg(
          format('r.%I = %I.%I', k.name, c.relname, case when t.is_words then 'key_' || k.nr else k.name end),
          ' AND ' order by k.nr
        )
        from unnest(plan.key_columns) with ordinality as k (name, nr)
      )
    )
  from (
    values
      (plan.target, array['chunk', 'embedding']::name[], 'chunks and vectors', false),
      (_pgstack.words_table(plan.id), array['words']::name[], 'words of chunks', true)
  ) as t (name, columns, what, is_words)
  join pg_class as c on c.oid = _pgstack.find_relation(t.name)
  where plan.has_table;
$$;

comment on function _pgstack.guarded_tables(_pgstack.vectorizer_plan) is
'The tables that hold chunks or words of a vectorizer, and the condition under which each row is shown: its source row and text can be read.';

-- What lets a role by who has come to such a table.
create or replace function _pgstack.target_holes(
  plan _pgstack.vectorizer_plan, role oid, relation oid, policy text
)
returns table (what text, remedy text)
language sql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
  with target as (
    select c.*, s.relforcerowsecurity as source_forces, s.relowner as source_owner,
      c.oid::regclass::text as called,
      format(
        'drop policy if exists pgstack_source on %1$s; '
        'create policy pgstack_source on %1$s for select using (%2$s); '
        'alter table %1$s enable row level security;',
        c.oid::regclass, target_holes.policy
      ) as protect
    from pg_class as c
    left join pg_class as s on s.oid = _pgstack.find_relation(plan.source)
    where c.oid = target_holes.relation
  )
  select 'row-level security is off', t.protect
  from target as t where not t.relrowsecurity
  union all
  select
    format('the policy %I is looser than the source', p.name),
    case when p.name = 'pgstack_source' then t.protect
      else format('drop policy %I on %s;', p.name, t.called) end
  from target as t
  cross join lateral _pgstack.loose_policies(target_holes.role, t.oid, target_holes.policy) as p
  where t.relrowsecurity or p.name <> 'pgstack_source'
  union all
  select
    'row-level security does not hold for its owner',
    case
      when t.source_forces then format('alter table %s force row level security;', t.called)
      when t.relowner = target_holes.role
        then format('alter table %s owner to %I;', t.called, pg_get_userbyid(t.source_owner))
      else _pgstack.leave_statement(target_holes.role, t.relowner)
    end
  from target as t
  where t.relrowsecurity and not t.relforcerowsecurity
    and t.relowner = any (_pgstack.acting_roles(target_holes.role));
$$;

comment on function _pgstack.target_holes(_pgstack.vectorizer_plan, oid, oid, text) is
'Why a table of chunks or words shows a role more than its source does, and what mends that.';

-- How bad it is that somebody reads all: no worse than the source, or worse.
create or replace function _pgstack.audit_severity(access text)
returns text
language sql immutable
security invoker
set search_path = pg_catalog, pg_temp
as $$
  select case when audit_severity.access = 'all' then 'wide' else 'leak' end;
$$;

comment on function _pgstack.audit_severity(text) is
'leak, unless the role may read all of the source: then later revokes would not hold, and it is wide.';

create or replace function _pgstack.audit_source(plan _pgstack.vectorizer_plan, role oid)
returns table (severity text, object text, what text, how text, remedy text)
language sql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
  with source as (
    select
      c.*, _pgstack.source_access(plan, audit_source.role) as access,
      exists (
        select from unnest(_pgstack.acting_roles(audit_source.role)) as a (role)
        where has_schema_privilege(a.role, c.relnamespace, 'usage')
      ) as is_named
    from pg_class as c where c.oid = _pgstack.find_relation(plan.source)
  )
  select
    case when s.access <> 'none' and not s.is_named then 'wide' else 'ok' end, plan.source,
    case
      when s.access <> 'none' and not s.is_named
        then 'it may read the table but not use its schema, which hides neither statistics nor chunks elsewhere'
      when s.access = 'none' then 'its text is closed to this role'
      when s.access = 'some' then 'the rows that its policies show'
      else 'all rows'
    end,
    case when s.access <> 'none' then 'select on ' || plan.source end,
    case when s.access <> 'none' and not s.is_named then
      (
        select string_agg(
          _pgstack.revoke_statement('select', plan.source, g.grantee, g.grantor, s.relowner), ' '
        )
        from aclexplode(s.relacl) as g
        where g.privilege_type = 'SELECT'
          and g.grantee = any (0::oid || _pgstack.acting_roles(audit_source.role))
      )
    end
  from source as s
  union all
  -- A text can be guessed from its vector.
  select 'leak', plan.source,
    format('vectors in %I of texts that it may not read', plan.embedding_column), a.how, a.remedy
  from source as s
  cross join lateral _pgstack.access_summary(
    audit_source.role, s.oid, 'select', array[plan.embedding_column]::name[]
  ) as a
  where not plan.has_table and s.access = 'none' and a.how is not null
  union all
  select 'wide', m.member::text, 'rows of the source without the policies of ' || plan.source, a.how, a.remedy
  from _pgstack.vectorizer_sources() as v
  cross join lateral unnest(v.members) as m (member)
  cross join source as s
  join pg_class as c on c.oid = m.member and not c.relrowsecurity and c.oid <> s.oid
  cross join lateral _pgstack.access_summary(
    audit_source.role, c.oid, 'select', array[plan.content_column]::name[]
  ) as a
  where v.id = plan.id and s.access <> 'all' and a.how is not null;
$$;

comment on function _pgstack.audit_source(_pgstack.vectorizer_plan, oid) is
'What a role reads of a vectorizer''s source.';

create or replace function _pgstack.audit_target(plan _pgstack.vectorizer_plan, role oid)
returns table (severity text, object text, what text, how text, remedy text)
language sql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
  with target as materialized (
    select g.*, _pgstack.source_access(plan, audit_target.role) as access, a.how
    from _pgstack.guarded_tables(plan) as g
    cross join lateral _pgstack.access_summary(
      audit_target.role, g.relation, 'select', g.columns
    ) as a
  ),
  hole as materialized (
    select t.relation, h.what, h.remedy
    from target as t
    cross join lateral _pgstack.target_holes(plan, audit_target.role, t.relation, t.policy) as h
    where t.how is not null
  )
  select
    _pgstack.audit_severity(t.access), t.name,
    format(
      case t.access
        when 'none' then 'all %s of a text that it may not read: %s'
        when 'some' then 'all %s, of which it may read some: %s'
        else 'all %s, whatever is revoked on the source later: %s'
      end,
      t.what, h.what
    ),
    t.how, h.remedy
  from target as t
  join hole as h on h.relation = t.relation
  union all
  select 'ok', t.name,
    case when t.how is null then 'closed to this role'
      else format('the %s of source rows it may read', t.what) end,
    t.how, null
  from target as t
  where not exists (select from hole as h where h.relation = t.relation)
  union all
  -- Its counts are of all rows, and anybody may ask them of the index, word by word.
  select
    _pgstack.audit_severity(_pgstack.source_access(plan, audit_target.role)), c.oid::regclass::text,
    'which words stand in texts that it may not read, and how often',
    'an index of pg_textsearch answers everybody',
    format('select pgstack.configure(%L, %L); drop index %s;', 'text_index', 'tsvector', c.oid::regclass)
  from pg_index as i
  join pg_class as c on c.oid = i.indexrelid
  join pg_am as m on m.oid = c.relam and m.amname = 'bm25'
  where i.indrelid = _pgstack.find_relation(plan.target)
    and _pgstack.source_access(plan, audit_target.role) <> 'all';
$$;

comment on function _pgstack.audit_target(_pgstack.vectorizer_plan, oid) is
'What a role reads of a vectorizer''s chunks and their words.';

-- The vectorizer's own view, and whatever views and materialised views people build on it or on its table.
create or replace function _pgstack.audit_views(plan _pgstack.vectorizer_plan, role oid)
returns table (severity text, object text, what text, how text, remedy text)
language sql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
  with recursive reads (relation, base) as (
    select w.ev_class, d.refobjid
    from pg_depend as d
    join pg_rewrite as w on w.oid = d.objid
    where d.classid = 'pg_rewrite'::regclass and d.refclassid = 'pg_class'::regclass
      and w.ev_class <> d.refobjid
  ),
  -- Behind a view that reads with the rights of who asks, all do, up to the next copy.
  derived (relation, is_open) as (
    select g.relation, true from _pgstack.guarded_tables(plan) as g
    union
    select _pgstack.find_relation(q.name), true
    from unnest(array[plan.queue, plan.failed_queue]) as q (name)
    union
    select c.oid, c.relkind = 'm' or d.is_open and not _pgstack.is_invoker(c.oid)
    from derived as d
    join reads as r on r.base = d.relation
    join pg_class as c on c.oid = r.relation
  ),
  found as (
    select d.relation, bool_or(d.is_open) as is_open from derived as d group by d.relation
  )
  select
    case
      when not f.is_open then 'ok'
      when c.relkind = 'v' and pg_get_viewdef(c.oid) ~* '\m(current_user|session_user|current_setting)\M'
        then 'wide'
      else _pgstack.audit_severity(_pgstack.source_access(plan, audit_views.role))
    end,
    c.oid::regclass::text,
    case
      when c.relkind = 'm' then 'a copy of chunks or keys, made with the rights of its owner'
      when not f.is_open then 'what it may read of the tables behind the view'
      else 'what the owner of the view may read, by its own condition'
    end,
    a.how,
    case
      when not f.is_open then null
      when c.relkind = 'v' then format('alter view %s set (security_invoker = true);', c.oid::regclass)
      else a.remedy
    end
  from found as f
  join pg_class as c on c.oid = f.relation and c.relkind in ('v', 'm')
  cross join lateral _pgstack.access_summary(audit_views.role, c.oid, 'select', null) as a
  where a.how is not null;
$$;

comment on function _pgstack.audit_views(_pgstack.vectorizer_plan, oid) is
'What a role reads of the views and materialised views over a vectorizer''s chunks and queues.';

create or replace function _pgstack.audit_tables(plan _pgstack.vectorizer_plan, role oid)
returns table (severity text, object text, what text, how text, remedy text)
language sql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
  select
    case when _pgstack.source_access(plan, audit_tables.role) = 'all' then 'ok' else 'wide' end,
    q.name, 'the keys of rows that changed or failed', a.how, a.remedy
  from unnest(array[plan.queue, plan.failed_queue]) as q (name)
  cross join lateral _pgstack.access_summary(
    audit_tables.role, _pgstack.find_relation(q.name), 'select', null
  ) as a
  where a.how is not null
  union all
  select
    case p.privilege when 'trigger' then 'leak' else 'wide' end, t.name,
    case p.privilege
      when 'trigger' then 'a trigger put there runs with the rights of the worker'
      else format('it may %s what the worker keeps there', p.privilege)
    end,
    a.how, a.remedy
  from (
    select g.name from _pgstack.guarded_tables(plan) as g
    union all
    select q.name from unnest(array[plan.queue, plan.failed_queue]) as q (name)
  ) as t
  join pg_class as c on c.oid = _pgstack.find_relation(t.name)
  cross join unnest(array['insert', 'update', 'delete', 'truncate', 'trigger']) as p (privilege)
  cross join lateral _pgstack.access_summary(audit_tables.role, c.oid, p.privilege, null) as a
  where a.how is not null and c.relowner <> all (_pgstack.acting_roles(audit_tables.role));
$$;

comment on function _pgstack.audit_tables(_pgstack.vectorizer_plan, oid) is
'What a role reads of a vectorizer''s queues, and may write where only the worker should.';

-- Whoever may put something on a table that the worker reads or writes has it run with the
-- worker's rights: docs/explanation/trust.md.  Who may act as the owner of pgstack is told of
-- elsewhere, and needs no detour.
create or replace function _pgstack.audit_worker(plan _pgstack.vectorizer_plan, role oid)
returns table (severity text, object text, what text, how text, remedy text)
language sql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
  with source as (
    select c.oid, c.relowner, c.oid::regclass::text as called, o.relowner as pgstack
    from _pgstack.vectorizer_sources() as s
    cross join lateral unnest(s.source || s.members::oid[]) as m (oid)
    join pg_class as c on c.oid = m.oid
    join pg_class as o on o.oid = '_pgstack.vectorizer'::regclass
    where s.id = plan.id and not pg_has_role(audit_worker.role, o.relowner, 'member')
  )
  select
    'wide', s.called,
    'what the owner puts there, such as an index over a function, runs with the rights of the worker',
    case when s.relowner = audit_worker.role then 'it owns ' || s.called
      else format('it is a member of %I, the owner of %s', pg_get_userbyid(s.relowner), s.called)
    end,
    coalesce(
      _pgstack.leave_statement(audit_worker.role, s.relowner),
      format(
        'alter table %1$s owner to %2$I; grant select, insert, update, delete on %1$s to %3$I;',
        s.called, pg_get_userbyid(s.pgstack), pg_get_userbyid(audit_worker.role)
      )
    )
  from source as s
  where s.relowner = any (_pgstack.acting_roles(audit_worker.role))
  union all
  select 'leak', s.called, 'a trigger put there runs with the rights of the worker', a.how, a.remedy
  from source as s
  cross join lateral _pgstack.access_summary(audit_worker.role, s.oid, 'trigger', null) as a
  where a.how is not null
    -- The worker writes only those.
    and (not plan.has_table or s.oid in (select k.relation from _pgstack.collection as k))
    and s.relowner <> all (_pgstack.acting_roles(audit_worker.role));
$$;

comment on function _pgstack.audit_worker(_pgstack.vectorizer_plan, oid) is
'By which tables a role can have the worker run what it wrote.';
