-- unless extension: ai
--
-- Family: pgai's model calls.  The functions of pgai's plpython extension, by way of the
-- bridge: no untrusted language.  With that extension installed this file is left out.
-- Callers: people who write pgai's SQL; ai.vectorizer_embed().
-- Errors: PS011 host not allowed, and what pgstack.embed() raises.

create or replace function ai.ollama_embed(
  model text,
  input_text text,
  host text default null,
  keep_alive text default null,
  embedding_options jsonb default null,
  "verbose" boolean default false
)
returns @extschema:vector@.vector
language plpgsql stable parallel unsafe
security invoker
set search_path = pg_catalog, pg_temp
as $$
begin
  if ollama_embed.input_text is null
    or ollama_embed.host is null and ollama_embed.embedding_options is null
  then
    return pgstack.embed(ollama_embed.input_text, ollama_embed.model);
  end if;
  perform _pgstack.check_model_host(ollama_embed.host);
  perform _pgstack.embed_check(ollama_embed.input_text, ollama_embed.model, 'query');
  return (_pgstack.ask_worker('embed', jsonb_strip_nulls(jsonb_build_object(
    'model', ollama_embed.model,
    'input', jsonb_build_array(ollama_embed.input_text),
    'host', ollama_embed.host,
    'keep_alive', ollama_embed.keep_alive,
    'options', ollama_embed.embedding_options
  )))).embeddings[1]::@extschema:vector@.vector;
end;
$$;

comment on function ai.ollama_embed(text, text, text, text, jsonb, boolean) is
'The vector of a text, as pgai spells it. host: a server of the setting model_hosts; NULL: the worker''s. verbose: ignored.
See pgstack.embed().';

create or replace function ai.ollama_generate(
  model text,
  prompt text,
  host text default null,
  images bytea[] default null,
  keep_alive text default null,
  embedding_options jsonb default null,
  system_prompt text default null,
  template text default null,
  context integer[] default null,
  "verbose" boolean default false
)
returns jsonb
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
begin
  perform _pgstack.check_model_host(ollama_generate.host);
  return (_pgstack.ask_worker('generate', jsonb_strip_nulls(jsonb_build_object(
    'model', ollama_generate.model,
    'prompt', ollama_generate.prompt,
    'host', ollama_generate.host,
    'images', (
      select jsonb_agg(translate(encode(i.image, 'base64'), E'\n', '') order by i.nr)
      from unnest(ollama_generate.images) with ordinality as i (image, nr)
    ),
    'keep_alive', ollama_generate.keep_alive,
    'options', ollama_generate.embedding_options,
    'system', ollama_generate.system_prompt,
    'template', ollama_generate.template,
    'context', to_jsonb(ollama_generate.context)
  )))).answer;
end;
$$;

comment on function ai.ollama_generate(text, text, text, bytea[], text, jsonb, text, text, integer[], boolean) is
'A model''s answer to a prompt, as pgai spells it: Ollama''s whole response. embedding_options: Ollama''s options. verbose: ignored.
See pgstack.generate().';

create or replace function ai.ollama_chat_complete(
  model text,
  messages jsonb,
  host text default null,
  keep_alive text default null,
  chat_options jsonb default null,
  tools jsonb default null,
  response_format jsonb default null,
  "verbose" boolean default false
)
returns jsonb
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
begin
  perform _pgstack.check_model_host(ollama_chat_complete.host);
  return (_pgstack.ask_worker('chat', jsonb_strip_nulls(jsonb_build_object(
    'model', ollama_chat_complete.model,
    'messages', ollama_chat_complete.messages,
    'host', ollama_chat_complete.host,
    'keep_alive', ollama_chat_complete.keep_alive,
    'options', ollama_chat_complete.chat_options,
    'tools', ollama_chat_complete.tools,
    'format', ollama_chat_complete.response_format
  )))).answer;
end;
$$;

comment on function ai.ollama_chat_complete(text, jsonb, text, text, jsonb, jsonb, jsonb, boolean) is
'A model''s next message, as pgai spells it: Ollama''s whole response. verbose: ignored.
See pgstack.chat().';

create or replace function ai.ollama_list_models(host text default null, "verbose" boolean default false)
returns table (
  name text, model text, size bigint, digest text, family text, format text, families jsonb,
  parent_model text, parameter_size text, quantization_level text, modified_at timestamptz
)
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
begin
  perform _pgstack.check_model_host(ollama_list_models.host);
  return query
  select m.name, m.model, m.size, m.digest, d.family, d.format, d.families,
    d.parent_model, d.parameter_size, d.quantization_level, m.modified_at
  from jsonb_to_recordset(
    (_pgstack.ask_worker('list', jsonb_strip_nulls(jsonb_build_object('host', ollama_list_models.host))))
    .answer -> 'models'
  ) as m (name text, model text, size bigint, digest text, modified_at timestamptz, details jsonb)
  cross join lateral jsonb_to_record(coalesce(m.details, '{}')) as d (
    family text, format text, families jsonb, parent_model text, parameter_size text,
    quantization_level text
  );
end;
$$;

comment on function ai.ollama_list_models(text, boolean) is
'The models the model server has, as pgai lists them. See pgstack.models().';

create or replace function ai.ollama_ps(host text default null, "verbose" boolean default false)
returns table (
  name text, model text, size bigint, digest text, parent_model text, format text, family text,
  families jsonb, parameter_size text, quantization_level text, expires_at timestamptz,
  size_vram bigint
)
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
begin
  perform _pgstack.check_model_host(ollama_ps.host);
  return query
  select m.name, m.model, m.size, m.digest, d.parent_model, d.format, d.family, d.families,
    d.parameter_size, d.quantization_level, m.expires_at, m.size_vram
  from jsonb_to_recordset(
    (_pgstack.ask_worker('ps', jsonb_strip_nulls(jsonb_build_object('host', ollama_ps.host))))
    .answer -> 'models'
  ) as m (
    name text, model text, size bigint, digest text, expires_at timestamptz, size_vram bigint,
    details jsonb
  )
  cross join lateral jsonb_to_record(coalesce(m.details, '{}')) as d (
    family text, format text, families jsonb, parent_model text, parameter_size text,
    quantization_level text
  );
end;
$$;

comment on function ai.ollama_ps(text, boolean) is
'The models loaded at the moment, as pgai lists them.';
