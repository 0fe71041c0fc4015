-- Family: audit, how a role comes to read a relation: 436_audit.sql tells the whole.
-- Callers: 432 to 436.
-- Errors: none.
--
-- In plpgsql, which keeps its plans, where a function is called for each object and privilege.
-- Everything is read from the catalogues.  Nothing is tried out as the role: a policy or a
-- view may call functions of its owner's, which would then run with the auditor's rights.

create or replace function _pgstack.acting_roles(role oid)
returns oid[]
language plpgsql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
begin
  return (
    select array_agg(r.oid order by r.oid = acting_roles.role desc, r.rolname)
    from pg_roles as r
    where pg_has_role(acting_roles.role, r.oid, 'member')
  );
end;
$$;

comment on function _pgstack.acting_roles(oid) is
'A role and the roles it is a member of, also those it must SET ROLE to.';

-- By revoke, in the name of who granted: a revoke takes back what one's own role has given.
create or replace function _pgstack.revoke_statement(
  privilege text, object text, grantee oid, grantor oid, owner oid
)
returns text
language sql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
  select format(
    case
      when revoke_statement.grantor = revoke_statement.owner
        then 'revoke %1$s on %2$s from %3$s cascade;'
      else 'set role %4$s; revoke %1$s on %2$s from %3$s cascade; reset role;'
    end,
    revoke_statement.privilege, revoke_statement.object,
    case when revoke_statement.grantee = 0 then 'public'
      else quote_ident(pg_get_userbyid(revoke_statement.grantee)) end,
    quote_ident(pg_get_userbyid(revoke_statement.grantor))
  );
$$;

comment on function _pgstack.revoke_statement(text, text, oid, oid, oid) is
'The statement that takes a privilege back. grantee 0: everybody.';

-- Membership may go over other roles: it is taken from those that this role can act as.
create or replace function _pgstack.leave_statement(role oid, granted oid)
returns text
language sql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
  select string_agg(
    format('revoke %I from %I;', pg_get_userbyid(m.roleid), pg_get_userbyid(m.member)), ' '
  )
  from pg_auth_members as m
  where m.roleid = leave_statement.granted
    and m.member = any (_pgstack.acting_roles(leave_statement.role));
$$;

comment on function _pgstack.leave_statement(oid, oid) is
'The statements that end a role''s membership in another; NULL when it is that role itself.';

-- One row for each way.  columns: which columns count; NULL: all.
create or replace function _pgstack.access_paths(
  role oid, relation oid, privilege text, columns name[]
)
returns table (how text, remedy text)
language plpgsql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
begin
  return query
  with acting as materialized (
    select a.role
    from unnest(_pgstack.acting_roles(access_paths.role)) as a (role)
  ),
  relation as (
    select c.*, c.oid::regclass::text as called
    from pg_class as c
    where c.oid = access_paths.relation
      and exists (
        select from acting as a where has_schema_privilege(a.role, c.relnamespace, 'usage')
      )
  ),
  granted as (
    select 'on' as what, '' as listed, g.grantee, g.grantor
    from relation as c
    cross join lateral aclexplode(c.relacl) as g
    where g.privilege_type = upper(access_paths.privilege) and g.grantee <> c.relowner
    union all
    select 'on columns of', format(' (%s)', string_agg(quote_ident(t.attname), ', ')),
      g.grantee, g.grantor
    from relation as c
    join pg_attribute as t on t.attrelid = c.oid and t.attnum > 0 and not t.attisdropped
    cross join lateral aclexplode(t.attacl) as g
    where g.privilege_type = upper(access_paths.privilege) and g.grantee <> c.relowner
      and (access_paths.columns is null or t.attname = any (access_paths.columns))
    group by g.grantee, g.grantor
  )
  select
    format(
      '%s %s %s is granted to %s', access_paths.privilege, g.what, c.called,
      case when g.grantee = 0 then 'everybody' else quote_ident(pg_get_userbyid(g.grantee)) end
    ),
    _pgstack.revoke_statement(
      access_paths.privilege || g.listed, c.called, g.grantee, g.grantor, c.relowner
    )
  from granted as g
  cross join relation as c
  where g.grantee = 0 or g.grantee in (select a.role from acting as a)
  union all
  select
    case when c.relowner = access_paths.role then 'it owns ' || c.called
      else format('%I, the owner of %s, counts it as a member', pg_get_userbyid(c.relowner), c.called)
    end,
    _pgstack.leave_statement(access_paths.role, c.relowner)
  from relation as c
  where c.relowner in (select a.role from acting as a)
  union all
  select format('it is a member of %I', r.rolname), _pgstack.leave_statement(access_paths.role, r.oid)
  from relation as c
  join pg_roles as r on r.rolname = case access_paths.privilege
    when 'select' then 'pg_read_all_data' when 'trigger' then null else 'pg_write_all_data' end
  where r.oid in (select a.role from acting as a);
end;
$$;

comment on function _pgstack.access_paths(oid, oid, text, name[]) is
'Each way by which a role has a privilege on a relation, and the statement that closes it. privilege: in lower case, such as select.';

create or replace function _pgstack.access_summary(
  role oid, relation oid, privilege text, columns name[], out how text, out remedy text
)
language sql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
  select string_agg(p.how, '; '), string_agg(p.remedy, ' ')
  from _pgstack.access_paths(
    access_summary.role, access_summary.relation, access_summary.privilege, access_summary.columns
  ) as p;
$$;

comment on function _pgstack.access_summary(oid, oid, text, name[]) is
'The ways of _pgstack.access_paths() in one row; how is NULL where there is none.';

create or replace function _pgstack.is_invoker(relation oid)
returns boolean
language sql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
  select exists (
    select from pg_class as c cross join lateral pg_options_to_table(c.reloptions) as o
    where c.oid = is_invoker.relation and o.option_name = 'security_invoker'
      and o.option_value::boolean
  );
$$;

comment on function _pgstack.is_invoker(oid) is
'Whether a view reads with the rights of whoever asks.';

-- Expressions of policies, as PostgreSQL writes them, are compared without what it adds.
create or replace function _pgstack.bare_expression(expression text)
returns text
language sql immutable strict
security invoker
set search_path = pg_catalog, pg_temp
as $$
  select regexp_replace(
    regexp_replace(expression, '::("[^"]+"|[a-z_0-9.]+)( varying)?(\(\d+\))?(\[\])?', '', 'g'),
    '[\s()]', '', 'g'
  );
$$;

comment on function _pgstack.bare_expression(text) is
'An SQL expression without casts, blanks and parentheses.';

-- A policy that lets a role read.  Restrictive ones only take away.
create or replace function _pgstack.loose_policies(role oid, relation oid, wanted text)
returns table (name name)
language sql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
  select p.polname
  from pg_policy as p
  where p.polrelid = loose_policies.relation and p.polpermissive and p.polcmd in ('r', '*')
    and p.polroles && (0::oid || _pgstack.acting_roles(loose_policies.role))
    and _pgstack.bare_expression(pg_get_expr(p.polqual, p.polrelid))
      is distinct from _pgstack.bare_expression(loose_policies.wanted);
$$;

comment on function _pgstack.loose_policies(oid, oid, text) is
'The policies of a table that let a role read, and are not the one that is wanted.';
