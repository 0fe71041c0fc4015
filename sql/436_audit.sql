-- Family: audit.  What a role can reach through pgstack's objects, and more than it should.
--
--   430  the ways by which a role has a privilege
--   432  a vectorizer: source, chunks, views, queues
--   434  the role itself, and the private tables
--   435  functions with their owner's rights, and the bridge
--
-- Callers: people, pgstack/audit.py.
-- Errors: PS007 unknown role, PS014 somebody else's role.

create or replace function _pgstack.check_auditor(role name)
returns oid
language plpgsql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _role oid := (select r.oid from pg_roles as r where r.rolname = check_auditor.role);
  _owner name := (
    select pg_get_userbyid(c.relowner) from pg_class as c
    where c.oid = '_pgstack.vectorizer'::regclass
  );
begin
  if _role is null then
    raise exception 'there is no role "%"', check_auditor.role
      using errcode = 'PS007', hint = 'select rolname from pg_roles;';
  end if;
  if not pg_has_role(_role, 'member') and not pg_has_role(_owner, 'usage') then
    raise exception 'only the owner of pgstack may look what "%" can reach', check_auditor.role
      using errcode = 'PS014', hint = 'For your own role: select * from pgstack.audit_leaks();';
  end if;
  return _role;
end;
$$;

comment on function _pgstack.check_auditor(name) is
'The oid of a role that the caller may audit. Raises PS007 unknown, PS014 not allowed.';

create or replace function pgstack.audit_leaks(role name default current_user)
returns table (severity text, object text, what text, how text, remedy text)
language plpgsql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _role oid := _pgstack.check_auditor(audit_leaks.role);
begin
  return query
  select f.severity, f.object, f.what, f.how, f.remedy
  from (
    select a.* from _pgstack.audit_role(_role) as a
    union all
    select f.*
    from (select from pg_roles as r where r.oid = _role and not r.rolsuper) as r
    cross join lateral (
      select a.*
      from _pgstack.vectorizer_plan as p
      cross join lateral (
        select s.* from _pgstack.audit_source(p, _role) as s
        union all
        select t.* from _pgstack.audit_target(p, _role) as t
        union all
        select v.* from _pgstack.audit_views(p, _role) as v
        union all
        select q.* from _pgstack.audit_tables(p, _role) as q
        union all
        select w.* from _pgstack.audit_worker(p, _role) as w
      ) as a
      union all
      select a.* from _pgstack.audit_private(_role) as a
      union all
      select a.* from _pgstack.audit_public_views(_role) as a
      union all
      select a.* from _pgstack.audit_functions(_role) as a
      union all
      select a.* from _pgstack.audit_bridge(_role) as a
    ) as f
  ) as f
  group by f.severity, f.object, f.what, f.how, f.remedy
  order by array_position(array['leak', 'wide', 'ok'], f.severity), f.object, f.what;
end;
$$;

comment on function pgstack.audit_leaks(name) is
'What a role can reach through the objects of pgstack: source tables, chunks, views on them, queues, caches, functions, the bridge.
role: default the caller''s; another''s only for the owner of pgstack.
Returns severity, object, what is reached, how, and remedy: the SQL that closes it. leak: texts, vectors or questions that it may not read in their source. wide: more than a reader needs, or what a later revoke would not close, or the owner of a table that the worker reads. ok: as it should be, listed so that one sees what was looked at. A superuser gets one row.
Nothing is changed, and nothing is run as that role. Raises PS007 unknown role, PS014 not your role.';
