-- Family: ask.  Retrieves, lets a model answer from numbered sources, says which it cited.
-- Callers: people, pgstack/search.py (which lets the model stream).
-- Errors: those of pgstack.search() and pgstack.chat().

create or replace function _pgstack.ask_sources(vectorizer text, question text, k integer)
returns jsonb
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _sources jsonb;
begin
  select coalesce(
    jsonb_agg(
      jsonb_build_object(
        'number', s.rank, 'id', s.id, 'chunk_seq', s.chunk_seq, 'chunk', s.chunk,
        'start_char', s.start_char, 'end_char', s.end_char, 'score', s.score
      )
      order by s.rank
    ),
    '[]'
  )
  into _sources
  from pgstack.search(ask_sources.vectorizer, ask_sources.question, ask_sources.k) as s;
  return _pgstack.with_passages(ask_sources.vectorizer, _sources);
end;
$$;

comment on function _pgstack.ask_sources(text, text, integer) is
'The numbered sources for a question, as a JSON array. The model is given their numbers and chunks, nothing else.';

create or replace function _pgstack.ask_messages(sources jsonb, question text)
returns jsonb
language sql immutable
security invoker
set search_path = pg_catalog, pg_temp
as $$
  select jsonb_build_array(
    jsonb_build_object(
      'role', 'system',
      'content',
      'Answer the question from the numbered sources, and from nothing else. '
      'Write the answer in one to three full sentences, then list the numbers of the sources it comes from. '
      'If the sources do not answer the question, write that you do not know and list no source.'
    ),
    jsonb_build_object(
      'role', 'user',
      'content', format(
        E'Sources:\n\n%s\n\nQuestion: %s',
        (
          select string_agg(
            format('[%s] %s', s.value ->> 'number', s.value ->> 'chunk'), E'\n\n' order by s.nr
          )
          from jsonb_array_elements(sources) with ordinality as s (value, nr)
        ),
        question
      )
    )
  );
$$;

comment on function _pgstack.ask_messages(jsonb, text) is
'The conversation that asks a model to answer from sources.';

-- A small model asked for [1] behind each sentence leaves the numbers out, or writes nothing
-- else; held to this form it gives both.
create or replace function _pgstack.ask_format(sources jsonb)
returns jsonb
language sql immutable
security invoker
set search_path = pg_catalog, pg_temp
as $$
  select jsonb_build_object(
    'type', 'object',
    'properties', jsonb_build_object(
      'answer', jsonb_build_object('type', 'string'),
      'sources', jsonb_build_object(
        'type', 'array',
        'items', jsonb_build_object(
          'enum', (
            select jsonb_agg(s.value -> 'number' order by s.nr)
            from jsonb_array_elements(sources) with ordinality as s (value, nr)
          )
        )
      )
    ),
    'required', jsonb_build_array('answer', 'sources')
  );
$$;

comment on function _pgstack.ask_format(jsonb) is
'The JSON schema of an answer: the text, and the numbers of its sources.';

create or replace function _pgstack.ask_payload(sources jsonb, question text, model text)
returns jsonb
language sql immutable
security invoker
set search_path = pg_catalog, pg_temp
as $$
  select jsonb_build_object(
    'model', model,
    'messages', _pgstack.ask_messages(sources, question),
    'format', _pgstack.ask_format(sources),
    'options', jsonb_build_object('temperature', 0)
  );
$$;

comment on function _pgstack.ask_payload(jsonb, text, text) is
'The whole request for an answer, as Ollama''s /api/chat takes it.';

-- What a model wrote, as a text with numbers in brackets.  A model server that does not
-- hold its models to a schema, or cuts the answer short, gives something else: taken as it is.
create or replace function _pgstack.ask_text(content text)
returns text
language plpgsql immutable
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _object jsonb;
  _text text;
begin
  _object := ask_text.content;
  if jsonb_typeof(_object -> 'answer') is distinct from 'string'
    or jsonb_typeof(_object -> 'sources') is distinct from 'array'
  then
    return trim(ask_text.content);
  end if;
  _text := trim(_object ->> 'answer');
  if _text ~ '\[\d+\]' then
    return _text;
  end if;
  return concat_ws(
    ' ', _text,
    (
      select string_agg(format('[%s]', n.number), '' order by n.number)
      from (
        select distinct e.value::integer as number
        from jsonb_array_elements_text(_object -> 'sources') as e (value)
        where e.value ~ '^\d{1,4}$'
      ) as n
    )
  );
exception
  when invalid_text_representation then
    return trim(ask_text.content);
end;
$$;

comment on function _pgstack.ask_text(text) is
'The text of an answer, its sources behind it as [n].';

-- The sources an answer names as [n], [n, m] or [n][m]; when it names none, all of them
-- with "cited": false, so that a reader can check for himself.
create or replace function _pgstack.citations(sources jsonb, answer text)
returns jsonb
language sql immutable
security invoker
set search_path = pg_catalog, pg_temp
as $$
  with named as materialized (
    select distinct n.number
    from regexp_matches(coalesce(answer, ''), '\[(\d{1,4}(?:\s*,\s*\d{1,4})*)\]', 'g') as m (parts)
    cross join lateral regexp_split_to_table(m.parts[1], '\s*,\s*') as n (number)
    where exists (
      select from jsonb_array_elements(sources) as s where s.value ->> 'number' = n.number
    )
  )
  select coalesce(
    jsonb_agg(
      s.value || jsonb_build_object('cited', n.number is not null)
      order by (s.value ->> 'number')::integer
    ),
    '[]'
  )
  from jsonb_array_elements(sources) as s
  left join named as n on n.number = s.value ->> 'number'
  where n.number is not null or not exists (select from named);
$$;

comment on function _pgstack.citations(jsonb, text) is
'The sources that an answer cites; all of them, marked as not cited, when it cites none.';

create or replace function _pgstack.ask_model(
  vectorizer text, question text, k integer, asked_model text
)
returns table (answer text, citations jsonb, model text, duration interval)
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _began timestamptz := clock_timestamp();
  _sources jsonb := _pgstack.ask_sources(vectorizer, question, k);
begin
  model := _pgstack.model_name(asked_model, 'generation_model');
  if _sources <> '[]' then
    answer := _pgstack.ask_text((
      _pgstack.ask_worker('chat', _pgstack.ask_payload(_sources, question, model))
    ).answer -> 'message' ->> 'content');
  end if;
  citations := _pgstack.citations(_sources, answer);
  duration := clock_timestamp() - _began;
  return next;
end;
$$;

comment on function _pgstack.ask_model(text, text, integer, text) is
'The one row of pgstack.ask().';

-- SQL, because PL/pgSQL does not let an argument and a result column share a name.
create or replace function pgstack.ask(
  vectorizer text, question text, k integer default 5, model text default null
)
returns table (answer text, citations jsonb, model text, duration interval)
language sql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
  select a.answer, a.citations, a.model, a.duration
  from _pgstack.ask_model($1, $2, $3, $4) as a;
$$;

comment on function pgstack.ask(text, text, integer, text) is
'A model''s answer to a question, from the best chunks of a vectorizer''s source that the caller may see.
vectorizer, question: as for pgstack.search(). k: how many chunks the model is given, default 5. model: default the setting generation_model.
Returns the answer (NULL when nothing was found), citations, model and duration. A citation is {"number", "id": the source row''s key, "chunk_seq", "chunk", "start_char", "end_char", "score", "cited"}, in a collection with "title" and "uri" of the document, and "page", "last_page" and "headings" where it has them, as pgstack.passage() tells; an answer that cites nothing comes with all its sources, "cited": false.
Raises what pgstack.search() and pgstack.chat() raise.';
