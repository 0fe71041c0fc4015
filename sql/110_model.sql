-- Family: model calls.  Asks the model server through the bridge (100_bridge.sql).
-- Callers: people in SQL, search and ask, the pgai-compatible functions.
-- Errors: PS007 bad argument, and those of _pgstack.ask_worker().

-- ---------------------------------------------------------------- query embeddings

create or replace function _pgstack.text_digest(input text)
returns bytea
language sql immutable strict parallel safe
security invoker
set search_path = pg_catalog, pg_temp
as $$
  select sha256(convert_to(input, 'UTF8'));
$$;

comment on function _pgstack.text_digest(text) is
'A text as 32 bytes: fits an index however long the text is.';

-- Rows of one asker are nobody else's business: see the policy in 900_privilege.sql.
-- The asker's name is what the bridge was told, so only what is true for everybody is
-- stored: the model's own vector of exactly this text.
create or replace function _pgstack.query_cache_put(request _pgstack.request)
returns void
language sql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
  insert into _pgstack.query_cache (asker, model, input_type, digest, embedding)
  select
    request.asker,
    request.payload ->> 'model',
    request.payload ->> 'input_type',
    _pgstack.text_digest(request.payload -> 'input' ->> 0),
    request.embeddings[1]::@extschema:vector@.vector
  where request.payload - array['model', 'input', 'input_type', 'remember'] = '{}'
    and jsonb_array_length(request.payload -> 'input') = 1
  on conflict do nothing;
$$;

comment on function _pgstack.query_cache_put(_pgstack.request) is
'Remembers the vector of a query text for the role that asked.';

create or replace function _pgstack.remembered_vector(input text, model text, input_type text)
returns @extschema:vector@.vector
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _vector @extschema:vector@.vector;
begin
  if _pgstack.setting_value('query_cache') = 'on' then
    select c.embedding into _vector
    from _pgstack.query_cache as c
    where c.asker = current_user and c.model = remembered_vector.model
      and c.input_type = remembered_vector.input_type
      and c.digest = _pgstack.text_digest(remembered_vector.input);
  end if;
  -- For pgstack.explain_search().
  if _vector is not null then
    perform set_config('pgstack.vector_from', 'cache', false);
  end if;
  return _vector;
end;
$$;

comment on function _pgstack.remembered_vector(text, text, text) is
'The vector of a text that this role asked for before; NULL when it is not remembered.';

-- The vector of one text: remembered, or from a worker.
create or replace function _pgstack.embed_uncached(input text, model text, input_type text)
returns @extschema:vector@.vector
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _vector @extschema:vector@.vector := _pgstack.remembered_vector(
    embed_uncached.input, embed_uncached.model, embed_uncached.input_type
  );
begin
  if _vector is null then
    perform set_config('pgstack.vector_from', 'model', false);
    _vector := (_pgstack.ask_worker('embed', jsonb_build_object(
      'model', embed_uncached.model,
      'input', jsonb_build_array(embed_uncached.input),
      'input_type', embed_uncached.input_type,
      'remember', _pgstack.setting_value('query_cache') = 'on'
    ))).embeddings[1]::@extschema:vector@.vector;
  end if;
  return _vector;
end;
$$;

comment on function _pgstack.embed_uncached(text, text, text) is
'The vector of one text, from the query cache or a worker.';

-- The once-per-statement rule.  A stable function of constants is still evaluated once
-- per row where no index serves, under a generic plan, or in a lateral join.  So vectors
-- are kept in variables of the session, in one of 64 slots each:
--   statement transaction  key model vector  key model vector ...
-- where key is the sha256 of who asks for what.  Within the statement that wrote it, an
-- entry answers at once, and a slot keeps its 16 newest.  Later statements check first
-- that the default model is still the same; without the query cache only those of the same
-- transaction may use it (a driver's bind, which may plan, and execute have two times).
-- Across sessions _pgstack.query_cache remembers; slots are needed beside it because a
-- statement cannot see rows that were committed after it began.
create or replace function pgstack.embed(
  input text, model text default null, input_type text default 'query'
)
returns @extschema:vector@.vector
language plpgsql stable parallel unsafe
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _digest bytea := sha256(convert_to(
    format(
      '%L %L %L %L %L',
      current_user, embed.model, current_setting('pgstack.embedding_model', true),
      embed.input_type, embed.input
    ), 'UTF8'
  ));
  _key text := encode(_digest, 'hex');
  _slot text := 'pgstack.memo_' || get_byte(_digest, 0) % 64;
  _memo text[] := string_to_array(current_setting(_slot, true), ' ');
  _at integer := array_position(_memo, _key);
  _statement text := extract(epoch from statement_timestamp())::text;
  _transaction text := extract(epoch from transaction_timestamp())::text;
  _model text;
  _vector @extschema:vector@.vector;
begin
  if embed.input is null then
    return null;
  end if;
  if _at is not null and _memo[1] = _statement then
    return _memo[_at + 2]::@extschema:vector@.vector;
  end if;
  _model := _pgstack.embed_check(embed.input, embed.model, embed.input_type);
  if _memo[_at + 1] = _model
    and (_memo[2] = _transaction or _pgstack.setting_value('query_cache') = 'on')
  then
    _vector := _memo[_at + 2]::@extschema:vector@.vector;
  else
    _vector := _pgstack.embed_uncached(embed.input, _model, embed.input_type);
  end if;
  perform set_config(
    _slot,
    concat_ws(
      ' ', _statement, _transaction, _key, _model, _vector::text,
      case when _memo[1] = _statement then array_to_string(_memo[3:47], ' ') end
    ),
    false
  );
  return _vector;
end;
$$;

comment on function pgstack.embed(text, text, text) is
'The vector of a text, from the model server; asked once per text and statement, and remembered for repeated texts.
input: the text; NULL gives NULL. model: a name of pgstack.models(); NULL: the setting embedding_model. input_type: ''query'' or ''document''.
Returns a vector of the model''s length (all-minilm: 384), L2-normalised.
Raises PS003 no worker, PS004 timeout, PS005 model server, PS006 no such model, PS007 bad argument, PS008 no dblink, PS009 bridge.';

-- Returns the model to use.
create or replace function _pgstack.embed_check(input text, model text, input_type text)
returns text
language plpgsql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
begin
  if embed_check.input = '' then
    raise exception 'there is nothing to embed in an empty text'
      using errcode = 'PS007', hint = 'Leave empty texts out: where body <> ''''';
  end if;
  if embed_check.input_type is null or embed_check.input_type not in ('query', 'document') then
    raise exception 'input_type cannot be "%"', embed_check.input_type
      using errcode = 'PS007', hint = 'Use ''query'' or ''document''.';
  end if;
  return _pgstack.model_name(embed_check.model, 'embedding_model');
end;
$$;

comment on function _pgstack.embed_check(text, text, text) is
'Raises PS007 for arguments embed() cannot use; returns the model to ask.';

create or replace function _pgstack.model_name(model text, setting text)
returns text
language plpgsql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
begin
  if model_name.model !~ '^\S+$' then
    raise exception 'a model cannot be called "%"', model_name.model
      using errcode = 'PS007', hint = 'select name from pgstack.models();';
  end if;
  return coalesce(model_name.model, _pgstack.setting_value(model_name.setting));
end;
$$;

comment on function _pgstack.model_name(text, text) is
'The model to use: the one given, or else the default that a setting names.';

create or replace function pgstack.embed_many(
  inputs text[], model text default null, input_type text default 'document'
)
returns table (seq integer, embedding @extschema:vector@.vector)
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _model text := _pgstack.embed_check('-', embed_many.model, embed_many.input_type);
  _answer _pgstack.answer;
  _texts jsonb;
begin
  select jsonb_agg(t.input order by t.nr) into _texts
  from unnest(embed_many.inputs) with ordinality as t (input, nr)
  where t.input <> '';
  if _texts is not null then
    _answer := _pgstack.ask_worker('embed', jsonb_build_object(
      'model', _model, 'input', _texts, 'input_type', embed_many.input_type
    ));
  end if;
  -- Vectors come back for the non-empty texts only, in order.
  return query
  select
    (t.nr - 1)::integer,
    case when t.input <> '' then
      _answer.embeddings[count(*) filter (where t.input <> '') over (order by t.nr)]
    end::@extschema:vector@.vector
  from unnest(embed_many.inputs) with ordinality as t (input, nr)
  order by t.nr;
end;
$$;

comment on function pgstack.embed_many(text[], text, text) is
'The vectors of many texts in one call.
inputs: the texts. model, input_type: as for pgstack.embed().
Returns one row a text: seq from 0 in the order of inputs, embedding NULL where the text is NULL or empty.
Raises what pgstack.embed() raises.';

-- ---------------------------------------------------------------------- generation

create or replace function pgstack.generate(
  prompt text,
  model text default null,
  system text default null,
  format jsonb default null,
  options jsonb default null
)
returns text
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
begin
  if generate.prompt is null then
    return null;
  end if;
  return (_pgstack.ask_worker('generate', jsonb_strip_nulls(jsonb_build_object(
    'model', _pgstack.model_name(generate.model, 'generation_model'),
    'prompt', generate.prompt,
    'system', generate.system,
    'format', generate.format,
    'options', generate.options
  )))).answer ->> 'response';
end;
$$;

comment on function pgstack.generate(text, text, text, jsonb, jsonb) is
'A model''s answer to a prompt.
prompt: the text; NULL gives NULL. model: NULL: the setting generation_model. system: what the model should be. format: ''"json"'' or a JSON schema the answer must satisfy. options: Ollama''s, such as {"temperature": 0, "num_predict": 100}.
Raises what pgstack.embed() raises.';

create or replace function pgstack.chat(
  messages jsonb,
  model text default null,
  format jsonb default null,
  options jsonb default null
)
returns jsonb
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
begin
  if chat.messages is null then
    return null;
  end if;
  if jsonb_typeof(chat.messages) <> 'array' then
    raise exception 'messages must be a JSON array, not %', jsonb_typeof(chat.messages)
      using errcode = 'PS007', hint = '[{"role": "user", "content": "Hello"}]';
  end if;
  return (_pgstack.ask_worker('chat', jsonb_strip_nulls(jsonb_build_object(
    'model', _pgstack.model_name(chat.model, 'generation_model'),
    'messages', chat.messages,
    'format', chat.format,
    'options', chat.options
  )))).answer;
end;
$$;

comment on function pgstack.chat(jsonb, text, jsonb, jsonb) is
'A model''s next message in a conversation.
messages: [{"role": "system"|"user"|"assistant", "content": "..."}]; NULL gives NULL. model, format, options: as for pgstack.generate().
Returns the response as Ollama gives it: {"model": ..., "message": {"role": "assistant", "content": ...}, "done_reason": ..., "eval_count": ...}.
Raises what pgstack.embed() raises.';

create or replace function pgstack.models()
returns table (
  name text, size bigint, digest text, family text,
  parameter_size text, quantization text, modified_at timestamptz
)
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
begin
  return query
  select
    m.value ->> 'name', (m.value ->> 'size')::bigint, m.value ->> 'digest',
    m.value -> 'details' ->> 'family', m.value -> 'details' ->> 'parameter_size',
    m.value -> 'details' ->> 'quantization_level', (m.value ->> 'modified_at')::timestamptz
  from jsonb_array_elements((_pgstack.ask_worker('list', '{}')).answer -> 'models') as m
  order by 1;
end;
$$;

comment on function pgstack.models() is
'The models the model server has: name, size in bytes, digest, family, parameter_size, quantization, modified_at.
Raises what pgstack.embed() raises.';
