-- Family: chunking.  Headings and blocks of Markdown, for the method "markdown" and for
-- citations that name the section.
-- Callers: 202_chunk_levels.sql, people in SQL, ask().
-- Errors: none of its own.
--
-- As CommonMark has them: "# heading" with up to three spaces before it, and a paragraph that
-- is underlined by = or -; neither in a fenced block of code, which an unclosed fence makes of
-- all the rest.  Other than there, metadata between two lines --- at the very beginning
-- hold none, a paragraph of more than three lines is no heading, and a fence may be indented
-- however far, as in lists.

-- One statement looks at the lines and leaves those that matter to the loop.
create or replace function _pgstack.markdown_places(input text, blocks boolean)
returns table (nr integer, start_char integer, level integer, title text)
language plpgsql immutable strict parallel safe
security invoker
set search_path = pg_catalog, pg_temp
rows 20
as $$
declare
  _lines text[] := string_to_array(markdown_places.input collate "C", E'\n');
  _in_metadata boolean := _lines[1] ~ '^\ufeff?---\s*$' and _lines[2] ~ '^[[:alpha:]_][\w -]*:'
    and markdown_places.input ~ '\n---\s*(?:\n|$)';
  _fence text;  -- the open one
  _above integer := 0;  -- the last line that was no plain text
  _line record;
begin
  for _line in
    select k.*, lead(k.look) over (order by k.nr) as look_below
    from (
      select
        l.nr, l.start_char, l.body,
        case
          when l.body = '' then 'blank'
          when left(l.body, 1) not in ('#', '`', '~', '=', '-') then null
          when l.line ~ '^\ufeff? {0,3}#{1,6}(?:[ \t\r]|$)' then 'heading'
          when l.body ~ '^(?:`{3,}[^`]*|~{3,}.*)$' then 'fence'
          when l.body ~ '^(?:=+|-+)$' and l.line ~ '^\ufeff? {0,3}[=-]' then 'underline'
        end as look
      from (
        select
          s.line, s.nr::integer as nr, btrim(s.line, E' \t\r\f\v\ufeff') as body,
          (sum(length(s.line) + 1) over (order by s.nr) - length(s.line) - 1)::integer as start_char
        from unnest(_lines) with ordinality as s (line, nr)
      ) as l
    ) as k
    order by k.nr
  loop
    continue when _line.look is null;
    nr := _line.nr;
    start_char := _line.start_char;
    level := 0;
    title := null;
    if _in_metadata then
      _in_metadata := nr = 1 or _line.body <> '---';
    elsif _fence is not null then
      -- Closed by a line of at least as many of the same.
      if _line.look = 'fence' and starts_with(_line.body, _fence) and ltrim(_line.body, left(_fence, 1)) = '' then
        _fence := null;
        nr := nr + 1;
        start_char := start_char + length(_lines[nr - 1]) + 1;
        if markdown_places.blocks and nr <= cardinality(_lines) then
          return next;
        end if;
      end if;
    elsif _line.look = 'fence' then
      _fence := substring(_line.body from '^(?:`+|~+)');
      if markdown_places.blocks then
        return next;
      end if;
    elsif _line.look = 'blank' then
      if markdown_places.blocks and _line.look_below is distinct from 'blank' and nr < cardinality(_lines) then
        nr := nr + 1;
        start_char := start_char + length(_lines[nr - 1]) + 1;
        return next;
      end if;
    elsif _line.look = 'heading' then
      level := length(substring(_line.body from '^#+'));
      title := btrim(regexp_replace(substr(_line.body, level + 1), '(?:^|[ \t])#+$', ''), E' \t');
      return next;
    elsif nr - 1 - _above between 1 and 3
      and _lines[_above + 1] !~ '^(?: {4}|\t|\ufeff?\s*(?:[-*+>|]|\d{1,9}[.)])(?:\s|$))'
    then
      level := case when left(_line.body, 1) = '=' then 1 else 2 end;
      title := '';
      for _n in reverse nr - 1.._above + 1 loop
        start_char := start_char - length(_lines[_n]) - 1;
        title := concat_ws(' ', btrim(_lines[_n], E' \t\r\ufeff'), nullif(title, ''));
      end loop;
      nr := _above + 1;
      return next;
    end if;
    _above := _line.nr;
  end loop;
end;
$$;

comment on function _pgstack.markdown_places(text, boolean) is
'The headings of a Markdown text with level and title and, if blocks is true, also with level 0 where paragraphs and fenced blocks begin. nr: which line, from 1; start_char: where it begins, from 0.';

create or replace function _pgstack.mark_markdown(input text, mark text, blocks boolean)
returns text
language plpgsql immutable strict parallel safe
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _lines text[] := string_to_array(mark_markdown.input collate "C", E'\n');
  _nr integer;
begin
  for _nr in
    select p.nr from _pgstack.markdown_places(mark_markdown.input, mark_markdown.blocks) as p
    where (p.level = 0) = mark_markdown.blocks
  loop
    _lines[_nr] := mark || _lines[_nr];
  end loop;
  return array_to_string(_lines, E'\n');
end;
$$;

comment on function _pgstack.mark_markdown(text, text, boolean) is
'A Markdown text with a mark before each heading, or before each block.';

create or replace function _pgstack.markdown_headings(input text)
returns table (start_char integer, level integer, title text)
language sql immutable strict parallel safe
security invoker
set search_path = pg_catalog, pg_temp
rows 20
as $$
  select p.start_char, p.level, p.title
  from _pgstack.markdown_places(input, false) as p;
$$;

comment on function _pgstack.markdown_headings(text) is
'The headings of a Markdown text, in order. start_char: where the line begins, in characters from 0. level: 1 to 6. title: without the marks that make it a heading.';

create or replace function pgstack.heading_path(input text, at_char integer)
returns text[]
language sql immutable strict parallel safe
security invoker
set search_path = pg_catalog, pg_temp
as $$
  select coalesce(array_agg(h.title order by h.start_char), '{}')
  from (
    select
      a.title, a.start_char, a.level,
      min(a.level) over (order by a.start_char desc rows between unbounded preceding and 1 preceding) as below
    from _pgstack.markdown_headings(input) as a
    where a.start_char <= at_char
  ) as h
  where h.below is null or h.level < h.below;
$$;

comment on function pgstack.heading_path(text, integer) is
'The Markdown headings above a place in a text, outermost first: {Manual,Installation,On Windows}.
input: the text. at_char: the place, in characters from 0, such as a chunk''s start_char; a heading is above its own line.
Headings are "# ..." to "###### ..." and lines underlined by = or -, not in fenced code.
{} where there is none above. NULL in, NULL out. Raises nothing.';
