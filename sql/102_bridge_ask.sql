-- Family: bridge, the asking statement's side: 100_bridge.sql tells the whole way.
-- Callers: 110_model.sql, the pgai-compatible functions.
-- Errors: PS003 no worker, PS004 timeout, PS009 bridge broken,
--         and what the worker reports: PS005, PS006, PS007, PS010, PS011.

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

-- Every session's second connection is of one role, and a role may read in pg_stat_activity
-- what its other sessions run: anybody would see the questions of all, and with a token
-- take the answer.  The server shows the first track_activity_query_size bytes of a
-- statement, so what matters comes behind as many blanks.
create or replace function _pgstack.bridge_statement(call text)
returns text
language sql stable strict
security invoker
set search_path = pg_catalog, pg_temp
as $$
  select format(
    'select %s * from _pgstack.%s',
    repeat(' ', pg_size_bytes(current_setting('track_activity_query_size'))::integer),
    bridge_statement.call
  );
$$;

comment on function _pgstack.bridge_statement(text) is
'The statement that calls a function over the bridge, where no other session can read it.';

-- Posts the question; a connection that broke since the last call, or is busy with
-- something else, is opened anew once.
create or replace function _pgstack.bridge_send(
  token uuid, kind text, payload jsonb, patience interval
)
returns void
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _question text := _pgstack.bridge_statement(format(
    'bridge_post(%L, %L, %L, %L, %L)',
    bridge_send.token, bridge_send.kind, bridge_send.payload, current_user, bridge_send.patience
  ));
begin
  perform _pgstack.bridge_ensure();
  begin
    perform t.done from @extschema:dblink@.dblink('pgstack', _question) as t (done text);
    return;
  exception
    when connection_exception or connection_failure or connection_does_not_exist
      or sqlclient_unable_to_establish_sqlconnection or admin_shutdown or crash_shutdown
      or idle_session_timeout or protocol_violation or internal_error then
      perform _pgstack.bridge_reset();
  end;
  perform _pgstack.bridge_ensure();
  perform t.done from @extschema:dblink@.dblink('pgstack', _question) as t (done text);
end;
$$;

comment on function _pgstack.bridge_send(uuid, text, jsonb, interval) is
'Posts a question over the bridge.';

-- Waits in this session, in naps that grow with the time already waited (1 to 50 ms), so
-- that a cancel or a statement_timeout is felt at once on every version of PostgreSQL.
create or replace function _pgstack.bridge_await(token uuid)
returns _pgstack.answer
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _poll text := _pgstack.bridge_statement(format('bridge_poll(%L)', bridge_await.token));
  _began timestamptz := clock_timestamp();
  _answer _pgstack.answer;
begin
  -- No answer is quicker than this, and a poll would take time from those who make it.
  perform pg_sleep(0.002);
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
end;
$$;

comment on function _pgstack.bridge_await(uuid) is
'Waits for the answer to a question.';

-- One question and its answer.  However it ends early, the question is withdrawn: a
-- statement that is cancelled stops the model.  All second connections are of one role, so
-- another session may have cancelled or ended ours: that is no cancel of the statement.
create or replace function _pgstack.bridge_ask(kind text, payload jsonb, patience interval)
returns _pgstack.answer
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _token uuid := gen_random_uuid();
  _context text;
begin
  perform _pgstack.bridge_send(_token, bridge_ask.kind, bridge_ask.payload, bridge_ask.patience);
  return _pgstack.bridge_await(_token);
exception
  when query_canceled or connection_exception or connection_failure or connection_does_not_exist
    or admin_shutdown or crash_shutdown or protocol_violation or internal_error
    or read_only_sql_transaction then
    get stacked diagnostics _context = pg_exception_context;
    if sqlstate = '57014' and position('on dblink connection' in _context) = 0 then
      perform _pgstack.bridge_withdraw(_token);
      raise;
    end if;
    -- Without the connection the worker finds that nobody waits any more.
    perform _pgstack.bridge_reset();
    raise exception 'the bridge to the worker broke: %', sqlerrm
      using errcode = 'PS009', hint = 'Run the statement again. If it breaks again: pgstack doctor';
end;
$$;

comment on function _pgstack.bridge_ask(text, jsonb, interval) is
'Posts a question and waits for its answer. Raises PS009 when the bridge breaks meanwhile.';

create or replace function _pgstack.bridge_withdraw(token uuid)
returns void
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
begin
  perform t.done
  from @extschema:dblink@.dblink(
    'pgstack', _pgstack.bridge_statement(format('bridge_cancel(%L)', bridge_withdraw.token))
  ) as t (done text);
  if _pgstack.setting_value('bridge_keep_open') = 'off' then
    perform _pgstack.bridge_reset();
  end if;
exception
  when others then perform _pgstack.bridge_reset();
end;
$$;

comment on function _pgstack.bridge_withdraw(uuid) is
'Withdraws a question; where that fails, closes the bridge, which withdraws it as well.';

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
  _answer := _pgstack.bridge_ask(ask_worker.kind, ask_worker.payload, _patience);
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
