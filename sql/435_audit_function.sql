-- Family: audit, what a role can reach by functions and over the bridge: 436_audit.sql tells the whole.
-- Callers: 436_audit.sql.
-- Errors: none.

create or replace function _pgstack.execute_paths(role oid, function oid)
returns table (how text, remedy text)
language sql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
  select
    string_agg(
      format('execute is granted to %s',
        case when g.grantee = 0 then 'everybody' else quote_ident(pg_get_userbyid(g.grantee)) end),
      '; '
    ),
    string_agg(
      _pgstack.revoke_statement(
        'execute', format('function %s', p.oid::regprocedure), g.grantee, g.grantor, p.proowner
      ), ' '
    )
  from pg_proc as p
  cross join lateral aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) as g
  where p.oid = execute_paths.function and g.privilege_type = 'EXECUTE' and g.grantee <> p.proowner
    and g.grantee = any (0::oid || _pgstack.acting_roles(execute_paths.role));
$$;

comment on function _pgstack.execute_paths(oid, oid) is
'How a role may execute a function it does not own, and what closes that; NULLs when it may not.';

-- Functions that run with their owner's rights: ours and pgai's, and others that name what
-- holds chunks.  What a body does with the caller in mind nobody can read off the catalogue.
create or replace function _pgstack.audit_functions(role oid)
returns table (severity text, object text, what text, how text, remedy text)
language sql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
  with definer as (
    select
      p.*, n.nspname in ('ai', 'pgstack', '_pgstack') as is_ours,
      coalesce(pg_get_function_sqlbody(p.oid), p.prosrc) as body
    from pg_proc as p
    join pg_namespace as n on n.oid = p.pronamespace
    where p.prosecdef and p.prokind = 'f'
      and p.proowner <> all (_pgstack.acting_roles(audit_functions.role))
      and not (n.nspname = '_pgstack' and p.proname = 'bridge_connect')
      and not (
        n.nspname = '_pgstack' and p.proname in ('bridge_post', 'bridge_poll', 'bridge_cancel')
        and pg_get_userbyid(audit_functions.role) like 'pgstack\_bridge%'
      )
  )
  select
    case when d.is_ours and d.proname not like 'bridge\_%' then 'leak' else 'wide' end,
    'function ' || d.oid::regprocedure,
    case
      when d.prorettype = 'trigger'::regtype
        then 'put on a table of its own it forgets the chunks of others'
      when d.proname like 'bridge\_%' then 'questions in the name of others'
      else 'what the owner of the function may read'
    end,
    e.how,
    case when d.prorettype = 'trigger'::regtype or d.proname like 'bridge\_%' then e.remedy
      else format('alter function %s security invoker;', d.oid::regprocedure) end
  from definer as d
  cross join lateral _pgstack.execute_paths(audit_functions.role, d.oid) as e
  where d.is_ours and e.how is not null
  union all
  select
    case when starts_with(d.body, _pgstack.search_function_mark((p.plan).id))
      then _pgstack.audit_severity(_pgstack.source_access(p.plan, audit_functions.role))
      else 'wide' end,
    'function ' || d.oid::regprocedure,
    format('it reads chunks of %s with the rights of its owner', p.source), e.how,
    format('alter function %s security invoker;', d.oid::regprocedure)
  from definer as d
  cross join lateral _pgstack.execute_paths(audit_functions.role, d.oid) as e
  cross join (
    select v as plan, v.source, v.has_table, v.name, c.relname as target_name,
      v.config -> 'destination' ->> 'view_name' as view_name
    from _pgstack.vectorizer_plan as v
    join pg_class as c on c.oid = _pgstack.find_relation(v.target)
  ) as p
  where not d.is_ours and e.how is not null
    and (
      p.has_table and (strpos(d.body, p.target_name) > 0 or strpos(d.body, p.view_name) > 0)
      or d.body ~ 'pgstack\.' and strpos(d.body, p.name) > 0
    );
$$;

comment on function _pgstack.audit_functions(oid) is
'The functions that give a role the rights of their owners.';

-- Everybody can act as the bridge's login: what is granted to that is granted to all.
create or replace function _pgstack.audit_bridge(role oid)
returns table (severity text, object text, what text, how text, remedy text)
language sql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
  with bridge as (
    select r.* from pg_roles as r where r.rolname like 'pgstack\_bridge%'
  )
  select 'leak', 'role ' || b.rolname, x.what, 'everybody acts as the login of the bridge',
    format('alter role %I %s;', b.rolname, x.attribute)
  from bridge as b
  cross join lateral (
    values
      (b.rolsuper, 'everything', 'nosuperuser'), (b.rolbypassrls, 'no policy holds for it', 'nobypassrls'),
      (b.rolcreaterole, 'it may make roles', 'nocreaterole')
  ) as x (has, what, attribute)
  where x.has
  union all
  select 'leak', 'role ' || quote_ident(b.rolname), format('what %I may do', pg_get_userbyid(m.roleid)),
    'everybody acts as the login of the bridge',
    format('revoke %I from %I;', pg_get_userbyid(m.roleid), b.rolname)
  from bridge as b
  join pg_auth_members as m on m.member = b.oid
  union all
  select 'leak', c.oid::regclass::text, format('%s over the bridge', lower(g.privilege_type)),
    'everybody acts as the login of the bridge',
    _pgstack.revoke_statement(
      lower(g.privilege_type), c.oid::regclass::text, b.oid, g.grantor, c.relowner
    )
  from bridge as b
  cross join pg_class as c
  left join pg_attribute as a on a.attrelid = c.oid and a.attacl is not null
  cross join lateral aclexplode(c.relacl || a.attacl) as g
  where g.grantee = b.oid and c.relkind in ('r', 'v', 'm', 'p', 'f')
  union all
  select 'leak', 'function ' || p.oid::regprocedure,
    'connections as any role that the server lets in without a password', e.how, e.remedy
  from pg_proc as p
  cross join lateral _pgstack.execute_paths(audit_bridge.role, p.oid) as e
  where p.proname = 'dblink_connect_u' and e.how is not null
  union all
  select 'wide', 'server ' || quote_ident(s.srvname), 'the way to the bridge',
    format('usage is granted to %s',
      case when g.grantee = 0 then 'everybody' else quote_ident(pg_get_userbyid(g.grantee)) end),
    _pgstack.revoke_statement(
      'usage', format('foreign server %I', s.srvname), g.grantee, g.grantor, s.srvowner
    )
  from pg_foreign_server as s
  cross join lateral aclexplode(s.srvacl) as g
  where s.srvname = 'pgstack_bridge' and g.grantee <> s.srvowner
    and g.grantee = any (0::oid || _pgstack.acting_roles(audit_bridge.role));
$$;

comment on function _pgstack.audit_bridge(oid) is
'What a role gets from rights that the bridge''s login or dblink should not give.';
