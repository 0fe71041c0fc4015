-- Family: privileges.  Who may do what; applied at every install.
--
-- Everybody may call the functions in schema pgstack: they run with the caller's rights.
-- The private tables belong to the installing role.  Two roles stand beside it:
--   pgstack_owner   owns the definer functions; no superuser, cannot log in
--   pgstack_bridge  the login of the bridge; may call three functions

create or replace function _pgstack.grant_bridge(role name)
returns void
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
begin
  execute format('grant usage on schema _pgstack to %I', grant_bridge.role);
  execute format(
    'grant execute on function _pgstack.bridge_post(uuid, text, jsonb, name, interval), '
    '_pgstack.bridge_poll(uuid), _pgstack.bridge_cancel(uuid) to %I',
    grant_bridge.role
  );
end;
$$;

comment on function _pgstack.grant_bridge(name) is
'Lets a role post questions and fetch answers, and nothing else.';

-- owner: the role to own the definer functions; NULL: they stay with the installer,
-- who is no superuser then.  bridge: the bridge's login, NULL when there is none.
create or replace function _pgstack.grant_privileges(owner name, bridge name)
returns void
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _function regprocedure;
begin
  for _function in
    select p.oid::regprocedure
    from pg_proc as p
    where p.pronamespace = '_pgstack'::regnamespace and p.prosecdef
  loop
    execute format('revoke all on function %s from public', _function);
    if grant_privileges.owner is not null then
      execute format('alter function %s owner to %I', _function, grant_privileges.owner);
    end if;
  end loop;
  if grant_privileges.owner is not null then
    perform _pgstack.grant_owner(grant_privileges.owner);
  end if;
  if grant_privileges.bridge is not null then
    perform _pgstack.grant_bridge(grant_privileges.bridge);
  end if;
  grant usage on schema ai, pgstack, _pgstack to public;
  grant select on ai.vectorizer to public;
  grant execute on function _pgstack.bridge_connect() to public;
  grant select on
    _pgstack.setting, _pgstack.query_cache, _pgstack.vectorizer_plan,
    pgstack.settings, pgstack.vectorizer_status, pgstack.vectorizer_errors, pgstack.usage,
    pgstack.workers,
    _pgstack.index_build, _pgstack.index_recall, _pgstack.prepared_search, pgstack.index_progress
  to public;
  grant select (id, pid) on _pgstack.worker to public;
  grant select (relation, extraction, problem_at) on _pgstack.collection to public;
  -- Not what went wrong: a model server may quote the text it refused.
  revoke select on _pgstack.vectorizer from public;
  execute (
    select format(
      'grant select (%s) on _pgstack.vectorizer to public', string_agg(quote_ident(a.attname), ', ')
    )
    from pg_attribute as a
    where a.attrelid = '_pgstack.vectorizer'::regclass and a.attnum > 0 and not a.attisdropped
      and a.attname not in ('problem', 'last_error')
  );
  -- Once: it would wait for every session that reads the cache in a transaction.
  if not exists (
    select from pg_policy as p
    where p.polrelid = '_pgstack.query_cache'::regclass and p.polname = 'own_queries'
  ) then
    alter table _pgstack.query_cache enable row level security;
    create policy own_queries on _pgstack.query_cache using (asker = current_user);
  end if;
end;
$$;

comment on function _pgstack.grant_privileges(name, name) is
'Grants what every role, the owner of definer functions and the bridge need. Called by the installer.';

create or replace function _pgstack.grant_owner(owner name)
returns void
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
begin
  execute format('grant usage on schema _pgstack to %I', grant_owner.owner);
  execute format(
    'grant select, insert, delete on _pgstack.request to %I', grant_owner.owner
  );
  -- bridge_connect() reads where the server's socket is.
  -- Roles are the cluster's: an install into another database may be granting the same.
  begin
    if not pg_has_role(grant_owner.owner, 'pg_read_all_settings', 'member') then
      execute format('grant pg_read_all_settings to %I', grant_owner.owner);
    end if;
  exception
    when unique_violation then null;
  end;
  if to_regprocedure('@extschema:dblink@.dblink_connect_u(text, text)') is not null then
    execute format('grant usage on schema @extschema:dblink@ to %I', grant_owner.owner);
    execute format(
      'grant execute on function @extschema:dblink@.dblink_connect_u(text, text) to %I',
      grant_owner.owner
    );
  end if;
end;
$$;

comment on function _pgstack.grant_owner(name) is
'Grants the owner of the definer functions what these need. Needs a superuser.';
