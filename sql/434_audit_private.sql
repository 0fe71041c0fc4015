-- Family: audit, what a role can reach beside vectorizers: 436_audit.sql tells the whole.
-- Callers: 436_audit.sql.
-- Errors: none.

create or replace function _pgstack.audit_role(role oid)
returns table (severity text, object text, what text, how text, remedy text)
language sql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
  select 'wide', 'role ' || quote_ident(r.rolname), x.what,
    case when r.oid = audit_role.role then 'an attribute of the role' else 'a membership' end,
    coalesce(
      _pgstack.leave_statement(audit_role.role, r.oid),
      format('alter role %I %s;', r.rolname, x.attribute)
    )
  from pg_roles as r
  cross join lateral (
    values
      (r.rolsuper, 'a superuser reads everything', 'nosuperuser'),
      (r.rolbypassrls, 'no policy holds for it', 'nobypassrls'),
      (r.rolcreaterole, 'it may make roles, and become a member of some', 'nocreaterole'),
      (r.rolreplication, 'it may copy all tables as a replica', 'noreplication')
  ) as x (has, what, attribute)
  where r.oid = any (_pgstack.acting_roles(audit_role.role)) and x.has
    -- A superuser is a member of all roles.
    and (x.attribute = 'nosuperuser' or not r.rolsuper)
    and (r.oid = audit_role.role or not (select s.rolsuper from pg_roles as s where s.oid = audit_role.role))
  union all
  select 'wide', 'role ' || quote_ident(r.rolname), x.what, 'a membership',
    _pgstack.leave_statement(audit_role.role, r.oid)
  from pg_roles as r
  join pg_roles as s on s.oid = audit_role.role and not s.rolsuper
  left join pg_proc as p on p.oid = to_regprocedure('_pgstack.bridge_connect()')
  left join pg_class as c on c.oid = '_pgstack.vectorizer'::regclass
  cross join lateral (
    select case
      when r.rolname in ('pg_read_all_data', 'pg_write_all_data') then 'all tables, by their policies'
      when r.rolname in ('pg_read_all_stats', 'pg_monitor')
        then 'the statements of others, and so their texts and questions'
      when r.rolname in ('pg_read_server_files', 'pg_write_server_files', 'pg_execute_server_program')
        then 'the files of the server'
      when r.oid = p.proowner then 'it acts as the owner of the bridge: all questions and answers'
      when r.oid = c.relowner then 'it acts as the owner of pgstack: all chunks and private tables'
    end as what
  ) as x
  where r.oid = any (_pgstack.acting_roles(audit_role.role)) and r.oid <> audit_role.role
    and x.what is not null;
$$;

comment on function _pgstack.audit_role(oid) is
'What a role''s attributes and memberships open.';

-- Private tables in which each role has rows of its own, as PostgreSQL writes their policies.
create or replace function _pgstack.own_rows_policies()
returns table (relation oid, name text, condition text)
language sql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
  select c.oid,
    case when k.name = 'asker' then 'own_queries' else 'own_rows' end,
    case k.name
      when 'asker' then 'asker = CURRENT_USER'
      when 'owner' then format(
        'EXISTS (SELECT FROM pg_roles r WHERE r.rolname = %I.owner AND pg_has_role(r.oid, ''usage''))',
        c.relname
      )
      when 'run_id' then 'run_id IN (SELECT r.id FROM _pgstack.eval_run r)'
      when 'load_id' then 'load_id IN (SELECT l.id FROM _pgstack.dataset_load l)'
      else 'set_id IN (SELECT s.id FROM _pgstack.eval_set s)'
    end
  from pg_class as c
  cross join lateral (
    select a.attname as name
    from pg_attribute as a
    where a.attrelid = c.oid and a.attname in ('asker', 'load_id', 'owner', 'run_id', 'set_id')
    order by a.attname
    limit 1
  ) as k
  where c.relnamespace = '_pgstack'::regnamespace and c.relkind = 'r'
    and (c.relname = 'query_cache' or c.relname similar to '(eval|dataset)\_%');
$$;

comment on function _pgstack.own_rows_policies() is
'The private tables that show each role its own rows, with the name and the condition of the policy that does it.';

-- What everybody may read of the private tables; and what is bad, not merely wide, to read.
create or replace function _pgstack.audit_private(role oid)
returns table (severity text, object text, what text, how text, remedy text)
language sql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
  with private as (
    select
      c.*, c.oid::regclass::text as called, k.what, coalesce(k.severity, 'wide') as severity,
      k.is_open,
      array(
        select a.attname
        from pg_attribute as a
        where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
          and a.attname <> all (coalesce(k.columns, '{}'))
      ) as columns
    from pg_class as c
    left join (
      values
        ('_pgstack.setting', 'ok', true, '{}'::name[], null),
        ('_pgstack.vectorizer_plan', 'ok', true, '{}', null),
        ('ai.vectorizer', 'ok', true, '{}', null),
        ('_pgstack.query_cache', 'ok', true, '{}', null),
        ('_pgstack.index_build', 'ok', true, '{}', null),
        ('_pgstack.index_recall', 'ok', true, '{}', null),
        ('_pgstack.prepared_search', 'ok', true, '{}', null),
        ('_pgstack.collection', 'wide', false, array['relation', 'extraction', 'problem_at'],
          'what went wrong with tables of collections, by which somebody''s trigger may quote a text'),
        ('_pgstack.vectorizer', 'wide', false,
          (
            select array_agg(a.attname) from pg_attribute as a
            where a.attrelid = '_pgstack.vectorizer'::regclass
              and a.attname not in ('problem', 'last_error')
          ),
          'what model servers said, who may quote a text'),
        ('_pgstack.worker', 'wide', false, array['id', 'pid'], 'the workers'),
        ('_pgstack.work', 'wide', false, '{}', 'keys of rows, and what model servers said of them'),
        ('ai._vectorizer_errors', 'wide', false, '{}', 'keys of rows, and what model servers said of them'),
        ('ai.vectorizer_errors', 'wide', false, '{}', 'keys of rows, and what model servers said of them'),
        ('_pgstack.request', 'leak', false, '{}', 'the questions and answers of all'),
        ('_pgstack.embedding_cache', 'leak', false, '{}', 'vectors of texts that it may not read')
    ) as k (name, severity, is_open, columns, what) on to_regclass(k.name) = c.oid
    where c.relnamespace in (to_regnamespace('ai'), '_pgstack'::regnamespace)
      and c.relkind in ('r', 'v', 'm', 'p')
      -- Queues and words belong to their vectorizers.
      and (
        c.relnamespace = '_pgstack'::regnamespace
        or c.relname !~ '^_(vectorizer_q|pgstack_words)_'
      )
  )
  -- Tables that tell rows apart themselves, and those that everybody may read.
  select
    case when c.severity = 'leak' then c.severity
      when c.is_open or c.relrowsecurity then 'ok' else c.severity end,
    c.called,
    case when c.relrowsecurity then 'the rows that its policies show'
      when c.is_open then 'open to everybody: names and settings, no text of rows'
      else coalesce(c.what, 'a private table of pgstack') end,
    a.how,
    case when not coalesce(c.is_open, false) and not c.relrowsecurity then a.remedy end
  from private as c
  cross join lateral _pgstack.access_summary(audit_private.role, c.oid, 'select', c.columns) as a
  where a.how is not null
  union all
  select 'leak', c.called, 'rows of others', a.how,
    format(
      'drop policy if exists %1$I on %2$s; create policy %1$I on %2$s using (%3$s); '
      'alter table %2$s enable row level security;',
      o.name, c.called, o.condition
    ) || coalesce(
      (
        select string_agg(format(' drop policy %I on %s;', p.name, c.called), '')
        from _pgstack.loose_policies(audit_private.role, c.oid, o.condition) as p
        where p.name <> o.name
      ), ''
    )
  from private as c
  join _pgstack.own_rows_policies() as o on o.relation = c.oid
  cross join lateral _pgstack.access_summary(audit_private.role, c.oid, 'select', null) as a
  where a.how is not null
    and (
      not c.relrowsecurity
      or exists (select from _pgstack.loose_policies(audit_private.role, c.oid, o.condition))
    )
  union all
  select
    case when c.called in ('_pgstack.setting', '_pgstack.request') or p.privilege = 'trigger'
      then 'leak' else 'wide' end,
    c.called,
    case
      when p.privilege = 'trigger' then 'a trigger put there runs with the rights of the worker'
      when c.called = '_pgstack.setting' then 'it may send texts to a model server of its own'
      else format('it may %s what pgstack keeps there', p.privilege)
    end,
    a.how, a.remedy
  from private as c
  cross join unnest(array['insert', 'update', 'delete', 'truncate', 'trigger']) as p (privilege)
  cross join lateral _pgstack.access_summary(audit_private.role, c.oid, p.privilege, null) as a
  where a.how is not null and c.relowner <> all (_pgstack.acting_roles(audit_private.role))
    and not (c.relrowsecurity and p.privilege in ('insert', 'update', 'delete'));
$$;

comment on function _pgstack.audit_private(oid) is
'What a role reads and writes of the tables in the schemas ai and _pgstack.';

create or replace function _pgstack.audit_public_views(role oid)
returns table (severity text, object text, what text, how text, remedy text)
language sql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
  select 'leak', c.oid::regclass::text, 'what the owner of the view may read', a.how,
    format('alter view %s set (security_invoker = true);', c.oid::regclass)
  from pg_class as c
  cross join lateral _pgstack.access_summary(audit_public_views.role, c.oid, 'select', null) as a
  where c.relnamespace in ('pgstack'::regnamespace, '_pgstack'::regnamespace) and c.relkind = 'v'
    and not _pgstack.is_invoker(c.oid) and a.how is not null
  union all
  select 'leak', 'schema ' || quote_ident(n.nspname), 'it may plant functions that others call',
    format('create is granted to %s',
      case when g.grantee = 0 then 'everybody' else quote_ident(pg_get_userbyid(g.grantee)) end),
    _pgstack.revoke_statement(
      'create', format('schema %I', n.nspname), g.grantee, g.grantor, n.nspowner
    )
  from pg_namespace as n
  cross join lateral aclexplode(n.nspacl) as g
  where n.nspname in ('ai', 'pgstack', '_pgstack') and g.privilege_type = 'CREATE'
    and g.grantee <> n.nspowner
    and g.grantee = any (0::oid || _pgstack.acting_roles(audit_public_views.role));
$$;

comment on function _pgstack.audit_public_views(oid) is
'Views of pgstack that read with their owner''s rights, and schemas that a role may write to.';
