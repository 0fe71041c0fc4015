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

-- What protect_target() makes, as PostgreSQL writes it.
create or replace function _pgstack.source_policy(plan _pgstack.vectorizer_plan)
returns text
language sql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
  select format(
    'EXISTS (SELECT %s FROM %s r WHERE %s)',
    (
      select string_agg(format('r.%I', n.name), ', ' order by n.nr)
      from unnest(_pgstack.content_columns(plan.config)) with ordinality as n (name, nr)
    ),
    plan.source,
    (
      select string_agg(format('r.%1$I = %2$I.%1$I', k.name, c.relname), ' AND ' order by k.nr)
      from unnest(plan.key_columns) with ordinality as k (name, nr)
    )
  )
  from pg_class as c
  where c.oid = _pgstack.find_relation(plan.target);
$$;

comment on function _pgstack.source_policy(_pgstack.vectorizer_plan) is
'The condition under which a chunk is shown: its source row and text can be read.';

create or replace function _pgstack.protect_statement(plan _pgstack.vectorizer_plan)
returns text
language sql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
  select format(
    'drop policy if exists pgstack_source on %1$s; '
    'create policy pgstack_source on %1$s for select using (%2$s); '
    'alter table %1$s enable row level security;',
    plan.target, _pgstack.source_policy(plan)
  );
$$;

comment on function _pgstack.protect_statement(_pgstack.vectorizer_plan) is
'The statements that show chunks only beside their source rows.';

-- What lets a role by who has come to the table of chunks.
create or replace function _pgstack.target_holes(plan _pgstack.vectorizer_plan, role oid)
returns table (what text, remedy text)
language sql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
  with target as (
    select c.*, s.relforcerowsecurity as source_forces, s.relowner as source_owner
    from pg_class as c
    left join pg_class as s on s.oid = _pgstack.find_relation(plan.source)
    where c.oid = _pgstack.find_relation(plan.target)
  )
  select 'row-level security is off', _pgstack.protect_statement(plan)
  from target as t where not t.relrowsecurity
  union all
  select
    format('the policy %I is looser than the source', p.name),
    case when p.name = 'pgstack_source' then _pgstack.protect_statement(plan)
      else format('drop policy %I on %s;', p.name, plan.target) end
  from target as t
  cross join lateral _pgstack.loose_policies(
    target_holes.role, t.oid, _pgstack.source_policy(plan)
  ) as p
  where t.relrowsecurity or p.name <> 'pgstack_source'
  union all
  select
    'row-level security does not hold for its owner',
    case
      when t.source_forces then format('alter table %s force row level security;', plan.target)
      when t.relowner = target_holes.role
        then format('alter table %s owner to %I;', plan.target, pg_get_userbyid(t.source_owner))
      else _pgstack.leave_statement(target_holes.role, t.relowner)
    end
  from target as t
  where t.relrowsecurity and not t.relforcerowsecurity
    and t.relowner = any (_pgstack.acting_roles(target_holes.role));
$$;

comment on function _pgstack.target_holes(_pgstack.vectorizer_plan, oid) is
'Why a vectorizer''s table of chunks shows a role more than its source does, and what mends that.';

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
  with target as (
    select _pgstack.source_access(plan, audit_target.role) as access, a.how, a.remedy
    from _pgstack.access_summary(
      audit_target.role, _pgstack.find_relation(plan.target), 'select', array['chunk', 'embedding']::name[]
    ) as a
    where plan.has_table
  ),
  hole as (
    select h.what, h.remedy
    from target as t
    cross join lateral _pgstack.target_holes(plan, audit_target.role) as h
    where t.how is not null
  )
  select
    _pgstack.audit_severity(t.access), plan.target,
    case t.access
      when 'none' then 'all chunks and vectors of a text that it may not read'
      when 'some' then 'all chunks and vectors, of which it may read some'
      else 'all chunks and vectors, whatever is revoked on the source later'
    end || ': ' || h.what,
    t.how, h.remedy
  from target as t cross join hole as h
  union all
  select 'ok', plan.target,
    case when t.how is null then 'closed to this role' else 'the chunks of source rows it may read' end,
    t.how, null
  from target as t
  where not exists (select from hole);
$$;

comment on function _pgstack.audit_target(_pgstack.vectorizer_plan, oid) is
'What a role reads of a vectorizer''s table of chunks.';

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
    select _pgstack.find_relation(x.name), true
    from unnest(array[plan.target, plan.queue, plan.failed_queue]) as x (name)
    where plan.has_table or x.name <> plan.target
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
  from unnest(array[case when plan.has_table then plan.target end, plan.queue, plan.failed_queue]) as t (name)
  join pg_class as c on c.oid = _pgstack.find_relation(t.name)
  cross join unnest(array['insert', 'update', 'delete', 'truncate', 'trigger']) as p (privilege)
  cross join lateral _pgstack.access_summary(audit_tables.role, c.oid, p.privilege, null) as a
  where a.how is not null and c.relowner <> all (_pgstack.acting_roles(audit_tables.role));
$$;

comment on function _pgstack.audit_tables(_pgstack.vectorizer_plan, oid) is
'What a role reads of a vectorizer''s queues, and may write where only the worker should.';
