-- unless extension: ai
-- Family: pgai's spelling of pgstack.chunk().
-- Callers: people who know pgai.
-- Errors: PS007 wrong argument.
--
-- pgai's own functions need plpython and come with the extension "ai": where that
-- is installed they are left alone.

create or replace function ai.chunk_text(
  input text,
  chunk_size integer default null,
  chunk_overlap integer default null,
  separator text default null,
  is_separator_regex boolean default false
)
returns table (seq bigint, chunk text)
language sql immutable parallel safe
security invoker
set search_path = pg_catalog, pg_temp
rows 20
as $$
  select c.seq, c.chunk
  from pgstack.chunk(
    input,
    method => 'character',
    size => coalesce(chunk_size, 4000),
    overlap => coalesce(chunk_overlap, 200),
    separators => array[coalesce(separator, E'\n\n')],
    is_regex => coalesce(is_separator_regex, false)
  ) as c;
$$;

comment on function ai.chunk_text(text, integer, integer, text, boolean) is
'Cuts a text by one separator, as pgai''s function of this name does; see pgstack.chunk(method => ''character'').
chunk_size, chunk_overlap: in characters, null means 4000 and 200. separator: null means E''\n\n''.
seq counts from 0. NULL in, no rows out. Raises PS007 wrong argument.';

create or replace function ai.chunk_text_recursively(
  input text,
  chunk_size integer default null,
  chunk_overlap integer default null,
  separators text[] default null,
  is_separator_regex boolean default false
)
returns table (seq bigint, chunk text)
language sql immutable parallel safe
security invoker
set search_path = pg_catalog, pg_temp
rows 20
as $$
  select c.seq, c.chunk
  from pgstack.chunk(
    input,
    method => 'recursive',
    size => coalesce(chunk_size, 4000),
    overlap => coalesce(chunk_overlap, 200),
    separators => coalesce(separators, array[E'\n\n', E'\n', ' ', '']),
    is_regex => coalesce(is_separator_regex, false)
  ) as c;
$$;

comment on function ai.chunk_text_recursively(text, integer, integer, text[], boolean) is
'Cuts a text by several separators in turn, as pgai''s function of this name does; see pgstack.chunk().
chunk_size, chunk_overlap: in characters, null means 4000 and 200.
separators: null means E''\n\n'', E''\n'', '' '', '''', which is not the list of ai.chunking_recursive_character_text_splitter().
seq counts from 0. NULL in, no rows out. Raises PS007 wrong argument.';
