-- Family: bridge.  How a statement reaches a model server without superuser and
-- without an untrusted language.
--
--   statement ──dblink──> bridge_post   inserts into _pgstack.request, NOTIFY
--   worker    ──────────> request_claim, calls the model, request_complete
--   statement ──dblink──> bridge_poll   fetches the answer and deletes the request
--
-- A request must be committed before a worker can see it, and the asking statement
-- has not committed; hence the second connection.  It logs in as pgstack_bridge, a role
-- that may call bridge_post, bridge_poll and bridge_cancel and nothing else: anybody in
-- the session can use an open dblink connection by its name.  An answer is handed to
-- whoever knows its token, a random uuid.
--
-- Here: the far side and the connection.  102_bridge_ask.sql: the statement's side.
-- 104_bridge_answer.sql: the worker's.
-- Errors: PS008 no dblink, PS009 bridge unavailable, PS011 host not allowed.

-- ---------------------------------------------------------------- worker presence

-- A worker holds an advisory lock of its own for as long as it is connected, so presence
-- ends with the connection, however the worker dies.  The key comes from its random id,
-- and the lock counts only in the worker's own session: nobody can take it first, to keep
-- workers out, or take it too, to look like one.
create or replace function _pgstack.worker_lock(worker uuid)
returns bigint
language sql immutable strict parallel safe
security invoker
set search_path = pg_catalog, pg_temp
as $$
  select hashtextextended(worker_lock.worker::text, 1885827956);
$$;

comment on function _pgstack.worker_lock(uuid) is
'The key of the advisory lock that a worker holds.';

create or replace function _pgstack.worker_present()
returns boolean
language sql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
  select exists (
    select
    from _pgstack.worker as w
    join pg_locks as l on l.pid = w.pid
    where l.locktype = 'advisory' and l.objsubid = 1 and l.granted
      and (l.classid::bigint << 32) | l.objid::bigint = _pgstack.worker_lock(w.id)
  );
$$;

comment on function _pgstack.worker_present() is
'True while at least one worker is connected to this database.';

-- ------------------------------------------------- the far side: definer functions

-- Whoever knows the open connection's name can call this with any arguments.  So the host
-- is checked here, and the asker is believed only where a lie does no harm.
-- The token is the asker's choice, so that it can withdraw a question even when it was
-- cancelled while it posted it.
create or replace function _pgstack.bridge_post(
  token uuid,
  kind text,
  payload jsonb,
  asker name,
  patience interval
)
returns void
language plpgsql volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  perform _pgstack.check_model_host(bridge_post.payload ->> 'host');
  insert into _pgstack.request (token, kind, payload, asker, asker_pid, deadline)
  values (
    bridge_post.token, bridge_post.kind, bridge_post.payload, bridge_post.asker,
    pg_backend_pid(), clock_timestamp() + bridge_post.patience
  );
  perform pg_notify('pgstack_request', '');
end;
$$;

comment on function _pgstack.bridge_post(uuid, text, jsonb, name, interval) is
'Posts a question for a worker, under the token that fetches the answer. Called over the bridge.';

create or replace function _pgstack.bridge_poll(token uuid)
returns table (
  state text, answer jsonb, embeddings text[], sqlstate text, message text, hint text
)
language plpgsql volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  _request _pgstack.request;
begin
  select r.* into _request from _pgstack.request as r where r.token = bridge_poll.token;
  if not found then
    return query select 'lost', null::jsonb, null::text[], null::text, null::text, null::text;
    return;
  end if;
  -- A worker that starts within a second may still answer.
  if _request.state = 'posted'
    and clock_timestamp() > _request.posted_at + interval '1 second'
    and not _pgstack.worker_present()
  then
    _request.state := 'no worker';
  elsif _request.state in ('posted', 'leased') and clock_timestamp() > _request.deadline then
    _request.state := 'timeout';
  elsif _request.state in ('posted', 'leased') then
    return query select 'waiting', null::jsonb, null::text[], null::text, null::text, null::text;
    return;
  end if;
  perform _pgstack.bridge_cancel(bridge_poll.token);
  return query
  select
    _request.state, _request.answer, _request.embeddings,
    _request.sqlstate, _request.message, _request.hint;
end;
$$;

comment on function _pgstack.bridge_poll(uuid) is
'State of a question: waiting, done, failed, timeout, no worker or lost. An answer is deleted as it is read. Called over the bridge.';

create or replace function _pgstack.bridge_cancel(token uuid)
returns void
language sql volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
  with gone as (
    delete from _pgstack.request as r where r.token = bridge_cancel.token
    returning r.id, r.state
  )
  select pg_notify('pgstack_cancel', g.id::text) from gone as g where g.state = 'leased';
$$;

comment on function _pgstack.bridge_cancel(uuid) is
'Withdraws a question; the worker that has it stops. Called over the bridge.';

-- -------------------------------------------------------------- other model servers

create or replace function _pgstack.model_host_allowed(url text)
returns boolean
language sql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
  select url is null or rtrim(url, '/') = any (
    select rtrim(trim(h.host), '/')
    from string_to_table(_pgstack.setting_value('model_hosts'), ',') as h (host)
  );
$$;

comment on function _pgstack.model_host_allowed(text) is
'May SQL send questions to this model server? NULL, the worker''s own, always.';

create or replace function _pgstack.check_model_host(host text)
returns void
language plpgsql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
begin
  if not _pgstack.model_host_allowed(check_model_host.host) then
    raise exception 'SQL may not call the model server "%"', check_model_host.host
      using errcode = 'PS011',
      hint = format('Leave host out, or allow it: select pgstack.configure(''model_hosts'', %L);',
        check_model_host.host);
  end if;
end;
$$;

comment on function _pgstack.check_model_host(text) is
'Raises PS011 unless SQL may call this model server.';

-- ------------------------------------------------------------------ the connection

-- A value inside a libpq connection string.
create or replace function _pgstack.conninfo_value(value text)
returns text
language sql immutable strict parallel safe
security invoker
set search_path = pg_catalog, pg_temp
as $$
  select format('''%s''', replace(replace(conninfo_value.value, '\', '\\'), '''', '\'''));
$$;

comment on function _pgstack.conninfo_value(text) is
'Quotes a value for a libpq connection string.';

-- A role may change its own defaults, so anybody in a session could do that to the bridge's
-- login and break it for all: what the connection itself asks for is stronger.
create or replace function _pgstack.bridge_options()
returns text
language sql stable parallel safe
security invoker
set search_path = pg_catalog, pg_temp
as $$
  select string_agg(format('-c %s', s.setting), ' ')
  from (
    values
      ('statement_timeout=0'), ('lock_timeout=0'), ('idle_session_timeout=0'),
      ('idle_in_transaction_session_timeout=0'), ('default_transaction_read_only=off'),
      ('default_transaction_isolation=read\ committed'), ('local_preload_libraries='),
      (case when current_setting('server_version_num')::integer >= 170000
        then 'transaction_timeout=0' end)
  ) as s (setting)
  where s.setting is not null;
$$;

comment on function _pgstack.bridge_options() is
'The settings of the bridge''s connection, as a libpq connection string gives them.';

-- A list of directories separates with commas and quotes odd names: "/a b", /tmp.
create or replace function _pgstack.first_directory(list text)
returns text
language sql immutable strict parallel safe
security invoker
set search_path = pg_catalog, pg_temp
as $$
  select coalesce(
    replace(substring(list from '^\s*"((?:[^"]|"")*)"'), '""', '"'),
    trim(split_part(list, ',', 1))
  );
$$;

comment on function _pgstack.first_directory(text) is
'The first of a list of directories, as unix_socket_directories writes them.';

-- Definer: only the owner may open a connection without giving a password
-- (dblink_connect_u), or read the user mapping that holds one.  Takes no arguments,
-- so a caller cannot aim it elsewhere.
create or replace function _pgstack.bridge_connect()
returns void
language plpgsql volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  _socket text;
  _server text[] := (
    select s.srvoptions from pg_foreign_server as s where s.srvname = 'pgstack_bridge'
  );
begin
  if _server is not null then
    -- In a copy of a database the server still leads to the original.
    if not 'dbname=' || current_database() = any (_server) then
      raise exception 'the bridge leads to another database than this one'
        using errcode = 'PS009', hint = 'pgstack install   # gives this database a bridge of its own';
    end if;
    perform @extschema:dblink@.dblink_connect('pgstack', 'pgstack_bridge');
    return;
  end if;
  _socket := _pgstack.first_directory(current_setting('unix_socket_directories'));
  perform @extschema:dblink@.dblink_connect_u(
    'pgstack',
    format(
      'dbname=%s user=pgstack_bridge host=%s port=%s application_name=pgstack_bridge '
      'connect_timeout=5 options=%s',
      _pgstack.conninfo_value(current_database()),
      _pgstack.conninfo_value(coalesce(nullif(_socket, ''), '127.0.0.1')),
      current_setting('port'),
      _pgstack.conninfo_value(_pgstack.bridge_options())
    )
  );
end;
$$;

comment on function _pgstack.bridge_connect() is
'Opens this session''s second connection, as the role pgstack_bridge. Its dblink name is pgstack.';

create or replace function _pgstack.bridge_reset()
returns void
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
begin
  if 'pgstack' = any (@extschema:dblink@.dblink_get_connections()) then
    perform @extschema:dblink@.dblink_disconnect('pgstack');
  end if;
end;
$$;

comment on function _pgstack.bridge_reset() is
'Closes this session''s second connection, if it is open.';

-- Called by the installer when the socket does not let the bridge in without a password.
-- The password lies in the user mapping of the one role that runs bridge_connect().
create or replace function _pgstack.bridge_use_password(
  role name, password text, host text, port text
)
returns void
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _owner name;
begin
  select pg_get_userbyid(p.proowner) into _owner
  from pg_proc as p where p.oid = '_pgstack.bridge_connect()'::regprocedure;
  drop server if exists pgstack_bridge cascade;
  execute format(
    'create server pgstack_bridge foreign data wrapper dblink_fdw '
    'options (dbname %L, host %L, port %L, application_name %L, connect_timeout %L, options %L)',
    current_database(), bridge_use_password.host, bridge_use_password.port,
    'pgstack_bridge', '5', _pgstack.bridge_options()
  );
  execute format('grant usage on foreign server pgstack_bridge to %I', _owner);
  execute format(
    'create user mapping for %I server pgstack_bridge options (user %L, password %L)',
    _owner, bridge_use_password.role, bridge_use_password.password
  );
  perform _pgstack.grant_bridge(bridge_use_password.role);
end;
$$;

comment on function _pgstack.bridge_use_password(name, text, text, text) is
'Makes the bridge log in with a password. Called by the installer.';

create or replace function _pgstack.bridge_ensure()
returns void
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
begin
  if 'pgstack' = any (@extschema:dblink@.dblink_get_connections()) then
    return;
  end if;
  perform _pgstack.bridge_connect();
exception
  when undefined_function or invalid_schema_name then
    raise exception 'the extension dblink is missing, so SQL cannot reach a model'
      using errcode = 'PS008', hint = 'create extension dblink; then: pgstack install';
  when sqlclient_unable_to_establish_sqlconnection or insufficient_privilege
    or sqlstate '2F003' or too_many_connections then
    raise exception 'the bridge to the worker cannot connect: %', sqlerrm
      using errcode = 'PS009', hint = 'pgstack doctor   # says why and what mends it';
end;
$$;

comment on function _pgstack.bridge_ensure() is
'Opens this session''s second connection unless it is open. Raises PS008 without dblink, PS009 when it cannot log in.';
