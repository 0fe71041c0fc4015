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
-- Callers: sql/110_model.sql on this side, pgstack/worker on the other.
-- Errors: PS003 no worker, PS004 timeout, PS008 no dblink, PS009 bridge unavailable,
--         and what the worker reports: PS005, PS006, PS007, PS010, PS011.

-- ---------------------------------------------------------------- worker presence

-- A worker holds this advisory lock in shared mode for as long as it is connected,
-- so presence ends with the connection, however the worker dies.
create or replace function _pgstack.worker_present()
returns boolean
language sql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
  select exists (
    select
    from pg_locks as l
    where l.locktype = 'advisory' and l.classid = 1885827956 and l.objid = 1 and l.objsubid = 2
      and l.granted
      and l.database = (select d.oid from pg_database as d where d.datname = current_database())
  );
$$;

comment on function _pgstack.worker_present() is
'True while at least one worker is connected to this database.';

-- ------------------------------------------------- the far side: definer functions

create or replace function _pgstack.bridge_post(
  kind text,
  payload jsonb,
  asker name,
  patience interval
)
returns uuid
language sql volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
  insert into _pgstack.request as r (kind, payload, asker, asker_pid, deadline)
  select kind, payload, asker, pg_backend_pid(), clock_timestamp() + patience
  returning (select r.token from pg_notify('pgstack_request', r.id::text));
$$;

comment on function _pgstack.bridge_post(text, jsonb, name, interval) is
'Posts a question for a worker and returns the token that fetches the answer. Called over the bridge.';

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
begin
  if exists (select from pg_foreign_server as s where s.srvname = 'pgstack_bridge') then
    perform @extschema:dblink@.dblink_connect('pgstack', 'pgstack_bridge');
    return;
  end if;
  _socket := _pgstack.first_directory(current_setting('unix_socket_directories'));
  perform @extschema:dblink@.dblink_connect_u(
    'pgstack',
    format(
      'dbname=%s user=pgstack_bridge host=%s port=%s application_name=pgstack_bridge connect_timeout=5',
      _pgstack.conninfo_value(current_database()),
      _pgstack.conninfo_value(coalesce(nullif(_socket, ''), '127.0.0.1')),
      current_setting('port')
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
    'options (dbname %L, host %L, port %L)',
    current_database(), bridge_use_password.host, bridge_use_password.port
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

-- ------------------------------------------------------------ the asking statement

do $do$
begin
  if to_regtype('_pgstack.answer') is null then
    create type _pgstack.answer as (
      state text, answer jsonb, embeddings text[], sqlstate text, message text, hint text
    );
  end if;
end;
$do$;

comment on type _pgstack.answer is 'What bridge_poll returns.';

-- Posts the question; a connection that broke since the last call is opened anew once.
create or replace function _pgstack.bridge_send(kind text, payload jsonb, patience interval)
returns uuid
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _question text := format(
    'select _pgstack.bridge_post(%L, %L, %L, %L)',
    bridge_send.kind, bridge_send.payload, current_user, bridge_send.patience
  );
  _token uuid;
begin
  perform _pgstack.bridge_ensure();
  begin
    select t.token into _token
    from @extschema:dblink@.dblink('pgstack', _question) as t (token uuid);
    return _token;
  exception
    when connection_exception or connection_failure or connection_does_not_exist
      or sqlclient_unable_to_establish_sqlconnection or admin_shutdown or crash_shutdown
      or protocol_violation or object_in_use then
      perform _pgstack.bridge_reset();
  end;
  perform _pgstack.bridge_ensure();
  select t.token into _token
  from @extschema:dblink@.dblink('pgstack', _question) as t (token uuid);
  return _token;
end;
$$;

comment on function _pgstack.bridge_send(text, jsonb, interval) is
'Posts a question over the bridge and returns its token.';

-- Waits in this session, in naps that grow with the time already waited (1 to 50 ms), so
-- that a cancel or a statement_timeout is felt at once on every version of PostgreSQL.
create or replace function _pgstack.bridge_await(token uuid)
returns _pgstack.answer
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _poll text := format('select * from _pgstack.bridge_poll(%L)', bridge_await.token);
  _began timestamptz := clock_timestamp();
  _answer _pgstack.answer;
begin
  loop
    select t.* into _answer
    from @extschema:dblink@.dblink('pgstack', _poll) as t (
      state text, answer jsonb, embeddings text[], sqlstate text, message text, hint text
    );
    exit when _answer.state <> 'waiting';
    perform pg_sleep(
      least(0.05, greatest(0.001, extract(epoch from clock_timestamp() - _began) / 20))
    );
  end loop;
  return _answer;
exception
  when query_canceled then
    begin
      perform t.done
      from @extschema:dblink@.dblink(
        'pgstack', format('select _pgstack.bridge_cancel(%L)', bridge_await.token)
      ) as t (done text);
    exception
      -- Interrupted in the middle of a poll.  Without the connection the worker
      -- finds that nobody waits any more.
      when others then perform _pgstack.bridge_reset();
    end;
    raise;
end;
$$;

comment on function _pgstack.bridge_await(uuid) is
'Waits for the answer to a question; withdraws the question when the statement is cancelled.';

create or replace function _pgstack.ask_worker(kind text, payload jsonb)
returns _pgstack.answer
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _patience interval := _pgstack.setting_interval('request_timeout');
  _answer _pgstack.answer;
begin
  _answer := _pgstack.bridge_await(
    _pgstack.bridge_send(ask_worker.kind, ask_worker.payload, _patience)
  );
  if _pgstack.setting_value('bridge_keep_open') = 'off' then
    perform _pgstack.bridge_reset();
  end if;
  case _answer.state
    when 'done' then
      return _answer;
    when 'no worker' then
      raise exception 'no worker is connected to this database, so no model can be called'
        using errcode = 'PS003', hint = 'Start one: pgstack worker -d URL   (embedded stack: pgstack up)';
    when 'timeout' then
      raise exception 'the model did not answer within %', _patience
        using errcode = 'PS004', hint = 'set pgstack.request_timeout = ''5min'';';
    when 'lost' then
      raise exception 'the question was lost on its way to the worker'
        using errcode = 'PS009', hint = 'Run the statement again.';
    else
      raise exception '%', _answer.message
        using errcode = coalesce(_answer.sqlstate, 'PS005'),
        hint = coalesce(_answer.hint, 'pgstack doctor');
  end case;
end;
$$;

comment on function _pgstack.ask_worker(text, jsonb) is
'Sends a question to a worker and waits for the answer. kind: embed, generate, chat, list or ps.
Raises PS003 no worker, PS004 timeout, PS009 bridge broken, or what the model server said: PS005, PS006, PS007, PS010, PS011.';

-- --------------------------------------------------------------- the worker's side

create or replace function _pgstack.request_claim(worker uuid, wanted integer)
returns table (id bigint, kind text, payload jsonb, asker name, seconds_left double precision)
language sql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
  with due as materialized (
    select r.id
    from _pgstack.request as r
    where r.deadline > clock_timestamp()
      and (r.state = 'posted' or (r.state = 'leased' and r.leased_until < clock_timestamp()))
    order by r.id
    limit wanted
    for update skip locked
  )
  update _pgstack.request as r
  set state = 'leased', worker = request_claim.worker,
    leased_until = clock_timestamp() + interval '5 seconds'
  from due as d
  where r.id = d.id
  returning r.id, r.kind, r.payload, r.asker, extract(epoch from r.deadline - clock_timestamp());
$$;

comment on function _pgstack.request_claim(uuid, integer) is
'Hands questions to a worker, oldest first, under a lease of five seconds that request_renew extends.';

create or replace function _pgstack.request_renew(worker uuid, ids bigint[])
returns setof bigint
language sql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
  with askers as materialized (
    select a.pid from pg_stat_activity as a where a.datid is not null
  ),
  kept as (
    update _pgstack.request as r
    set leased_until = clock_timestamp() + interval '5 seconds'
    where r.id = any (ids) and r.worker = request_renew.worker and r.state = 'leased'
      and r.deadline > clock_timestamp()
      and exists (select from askers as a where a.pid = r.asker_pid)
    returning r.id
  )
  select k.id from kept as k;
$$;

comment on function _pgstack.request_renew(uuid, bigint[]) is
'Extends the leases of questions being answered. Returns those still wanted: the rest were cancelled, timed out, or their session is gone.';

create or replace function _pgstack.request_complete(
  worker uuid, id bigint, answer jsonb, embeddings text[]
)
returns boolean
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _request _pgstack.request;
begin
  update _pgstack.request as r
  set state = 'done', answer = request_complete.answer, embeddings = request_complete.embeddings
  where r.id = request_complete.id and r.worker = request_complete.worker and r.state = 'leased'
  returning r.* into _request;
  if not found then
    return false;
  end if;
  if _request.kind = 'embed' and (_request.payload ->> 'remember')::boolean then
    perform _pgstack.query_cache_put(_request);
  end if;
  return true;
end;
$$;

comment on function _pgstack.request_complete(uuid, bigint, jsonb, text[]) is
'Stores the answer to a question. False: nobody waits for it any more.';

create or replace function _pgstack.request_fail(
  worker uuid, id bigint, sqlstate text, message text, hint text
)
returns boolean
language sql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
  with failed as (
    update _pgstack.request as r
    set state = 'failed', sqlstate = request_fail.sqlstate,
      message = request_fail.message, hint = request_fail.hint
    where r.id = request_fail.id and r.worker = request_fail.worker and r.state = 'leased'
    returning r.id
  )
  select exists (select from failed);
$$;

comment on function _pgstack.request_fail(uuid, bigint, text, text, text) is
'Stores why a question has no answer. False: nobody waits for it any more.';

-- What sessions left behind that died before they read their answer.
create or replace function _pgstack.request_sweep()
returns integer
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _swept integer;
begin
  with askers as materialized (
    select a.pid from pg_stat_activity as a where a.datid is not null
  )
  delete from _pgstack.request as r
  where r.deadline < clock_timestamp() - interval '10 seconds'
    or not exists (select from askers as a where a.pid = r.asker_pid);
  get diagnostics _swept = row_count;
  delete from _pgstack.query_cache as c
  where c.created_at < now() - _pgstack.setting_interval('query_cache_ttl')
    or (c.asker, c.model, c.input_type, c.digest) in (
      select o.asker, o.model, o.input_type, o.digest
      from _pgstack.query_cache as o
      order by o.created_at desc
      offset _pgstack.setting_value('query_cache_size')::bigint
    );
  delete from _pgstack.worker as w where w.seen_at < now() - interval '1 day';
  return _swept;
end;
$$;

comment on function _pgstack.request_sweep() is
'Deletes questions nobody waits for, query vectors past their age or number, and workers not seen for a day. Workers call it every few seconds.';
