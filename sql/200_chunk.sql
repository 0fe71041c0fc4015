-- Family: chunking.  Cuts text into overlapping pieces.  Reads and writes nothing.
-- Callers: people in psql, the vectorizers' work functions, ai.chunk_text*.
-- Errors: PS007 wrong argument.
--
-- The rules are those of LangChain's CharacterTextSplitter and
-- RecursiveCharacterTextSplitter, as pgai uses them; tests/sql/test_chunk.py
-- compares with that library.
--
-- substr() on UTF-8 walks from the start of the text, so cutting n chunks with it
-- is quadratic.  Here a chunk is a byte range of convert_to(input, 'UTF8'), which
-- costs the same wherever it lies; offsets in characters are kept beside it.
-- The database's encoding is UTF-8, so octet_length() counts the same bytes.
-- Parts are walked in plpgsql, because arrays held in its variables are read and
-- appended to in place.

-- White space is what Python's str.strip() takes off.  Trimming text looks at every
-- character, trimming bytes only at those that go.
create or replace function _pgstack.strip_chunk(
  slice bytea, strip boolean, out body text, out head integer, out tail integer
)
language plpgsql immutable strict parallel safe
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _ascii constant bytea := '\x090a0b0c0d1c1d1e1f20';
  _wide constant bytea[] := array[
    '\xe19a80', '\xe28080', '\xe28081', '\xe28082', '\xe28083', '\xe28084', '\xe28085', '\xe28086',
    '\xe28087', '\xe28088', '\xe28089', '\xe2808a', '\xe280a8', '\xe280a9', '\xe280af', '\xe2819f',
    '\xe38080'
  ];
  _bytes bytea := ltrim(strip_chunk.slice, _ascii);
  _from integer := 0;
  _to integer;
  _byte integer;
begin
  if not strip_chunk.strip then
    body := convert_from(strip_chunk.slice, 'UTF8');
    head := 0;
    tail := 0;
    return;
  end if;
  head := octet_length(strip_chunk.slice) - octet_length(_bytes);
  tail := octet_length(_bytes);
  _bytes := rtrim(_bytes, _ascii);
  _to := octet_length(_bytes);
  tail := tail - _to;
  -- What is left begins or ends with white space only if that is outside ASCII, which is rare.
  while _from < _to loop
    _byte := get_byte(_bytes, _from);
    if _byte = 194 and get_byte(_bytes, _from + 1) in (133, 160) then
      _from := _from + 2;
    elsif _byte between 225 and 227 and substring(_bytes from _from + 1 for 3) = any (_wide) then
      _from := _from + 3;
    elsif _byte between 9 and 13 or _byte between 28 and 32 then
      _from := _from + 1;
    else
      exit;
    end if;
    head := head + 1;
  end loop;
  while _from < _to loop
    _byte := get_byte(_bytes, _to - 1);
    if _byte in (133, 160) and get_byte(_bytes, _to - 2) = 194 then
      _to := _to - 2;
    elsif _byte between 128 and 175
      and substring(_bytes from greatest(_to - 2, 1) for 3) = any (_wide)
    then
      _to := _to - 3;
    elsif _byte between 9 and 13 or _byte between 28 and 32 then
      _to := _to - 1;
    else
      exit;
    end if;
    tail := tail + 1;
  end loop;
  if _from > 0 or _to < octet_length(_bytes) then
    _bytes := substring(_bytes from _from + 1 for _to - _from);
  end if;
  body := convert_from(_bytes, 'UTF8');
end;
$$;

comment on function _pgstack.strip_chunk(bytea, boolean) is
'Text from UTF-8 bytes, if strip is true without the white space at its ends; head, tail: how many characters of that there were.';

create or replace function _pgstack.check_chunk_arguments(
  method text, size integer, overlap integer, separators text[], is_regex boolean, keep_separator text,
  strip boolean
)
returns void
language plpgsql immutable parallel safe
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _methods constant text[] := array[
    'recursive', 'character', 'sentence', 'markdown', 'token', 'page', 'none'
  ];
  _message text;
  _hint text;
begin
  if method is null or method <> all (_methods) then
    _message := format('there is no chunking method "%s"', coalesce(method, 'NULL'));
    _hint := format('Pass method => one of ''%s''.', array_to_string(_methods, ''', '''));
  elsif size is null or size <= 0 then
    _message := format('size must be 1 or more, not %s', coalesce(size::text, 'NULL'));
    _hint := 'Pass the longest chunk wanted: size => 800.';
  elsif overlap is null or overlap < 0 then
    _message := format('overlap must be 0 or more, not %s', coalesce(overlap::text, 'NULL'));
    _hint := 'Pass how much neighbours share: overlap => 0.';
  elsif overlap > size then
    _message := format('overlap %s is larger than size %s', overlap, size);
    _hint := format('Pass an overlap from 0 to %s: overlap => %s.', size, size / 2);
  elsif is_regex is null then
    _message := 'is_regex must not be null';
    _hint := 'Pass is_regex => false.';
  elsif strip is null then
    _message := 'strip must not be null';
    _hint := 'Pass strip => true.';
  elsif array_position(separators, null) is not null then
    _message := 'a separator must not be null';
    _hint := 'Pass separators => array[E''\n\n'', E''\n'', '' '', ''''].';
  elsif method = 'character' and cardinality(separators) <> 1 then
    _message := format('method "character" takes one separator, not %s', cardinality(separators));
    _hint := 'Pass one, separators => array[E''\n\n''], or method => ''recursive''.';
  elsif keep_separator not in ('start', 'end', 'none') then
    _message := format('keep_separator must be start, end or none, not "%s"', keep_separator);
    _hint := 'Pass keep_separator => ''start'', or null for what the method does by itself.';
  elsif keep_separator = 'none' and method not in ('recursive', 'character', 'none') then
    _message := format('method "%s" leaves no separators out', method);
    _hint := 'Pass keep_separator => ''start'' or ''end''.';
  else
    return;
  end if;
  raise exception '%', _message using errcode = 'PS007', hint = _hint;
end;
$$;

comment on function _pgstack.check_chunk_arguments(text, integer, integer, text[], boolean, text, boolean) is
'Raises PS007 for arguments that pgstack.chunk() cannot work with; what a regular expression may hold is told elsewhere.';

create or replace function pgstack.chunk(
  input text,
  method text default 'recursive',
  size integer default 800,
  overlap integer default 400,
  separators text[] default null,
  is_regex boolean default false,
  keep_separator text default null,
  strip boolean default true
)
returns table (seq integer, start_char integer, end_char integer, chunk text)
language plpgsql immutable parallel safe
security invoker
set search_path = pg_catalog, pg_temp
rows 20
as $$
declare
  _keep text;
  _input text;
  _separators text[];
  _glues text[];
  _kinds text[];
  _stripped record;
begin
  -- Most rows of most vectorizers: arguments in order, and a short text with no white space
  -- at its ends, so that nothing is cut or taken off.  One expression, because each costs.
  if chunk.method = 'recursive' and chunk.keep_separator is null
    and octet_length(chunk.input) < chunk.size and chunk.overlap between 0 and chunk.size
    and ascii(chunk.input) between 33 and 126 and ascii(right(chunk.input, 1)) between 33 and 126
    and not chunk.is_regex and chunk.strip is not null and array_position(chunk.separators, null) is null
  then
    seq := 0;
    start_char := 0;
    end_char := length(chunk.input);
    chunk := chunk.input;
    return next;
    return;
  end if;
  -- Not perform, which takes longer than the function.
  _input := _pgstack.check_chunk_arguments(
    chunk.method, chunk.size, chunk.overlap, chunk.separators, chunk.is_regex, chunk.keep_separator,
    chunk.strip
  );
  _keep := coalesce(
    chunk.keep_separator, case chunk.method when 'character' then 'none' else 'start' end
  );
  _separators := chunk.separators;
  if chunk.is_regex and _separators is not null then
    _separators := array(
      select _pgstack.regex_from_python(s.separator)
      from unnest(_separators) with ordinality as s (separator, nr)
      order by s.nr
    );
  end if;
  -- strict would be wrong: separators may be null.
  if chunk.input is null then
    return;
  end if;
  _input := chunk.input || '';  -- reads a compressed value once only
  if chunk.strip or chunk.method = 'none' then
    _stripped := _pgstack.strip_chunk(convert_to(_input, 'UTF8'), true);
    if _stripped.body = '' then
      return;
    elsif chunk.method = 'none' then
      return query select 0, 0, length(_input), _input;
      return;
    elsif _keep <> 'none' and (
      case chunk.method
        when 'recursive' then length(_input) < chunk.size
        when 'sentence' then length(_input) <= chunk.size
        when 'page' then length(_input) <= chunk.size and position(E'\f' in _input) = 0
        when 'markdown' then length(_input) <= chunk.size and _input !~ '(?:^|\n)\s*[#=-]'
        when 'token' then octet_length(_input) / 8 < chunk.size
          and pgstack.estimate_tokens(_input) <= chunk.size
        else false
      end
    ) then
      -- Whatever the separators are, it all fits into one.
      return query select 0, _stripped.head, length(_input) - _stripped.tail, _stripped.body;
      return;
    end if;
  elsif _input = '' then
    return;
  end if;

  _glues := chunk.separators;
  if chunk.method = 'character' then
    _separators := coalesce(_separators, array[E'\n\n']);
    -- LangChain puts a look-around not between the parts that it joins.
    _glues := case
      when chunk.is_regex and _glues[1] ~ '^\(\?<?[=!]' then array['']
      else coalesce(_glues, _separators)
    end;
  elsif cardinality(_separators) > 0 then
    null;
  else
    -- LangChain's own list stands in for an empty one.
    _separators := case
      when _separators is null then array[E'\n\n', E'\n', '.', '?', '!', ' ', '']
      else array[E'\n\n', E'\n', ' ', '']
    end;
    _glues := _separators;
  end if;
  _kinds := array(
    select case
      when s.separator <> '' and chunk.is_regex and cardinality(chunk.separators) > 0 then 'regex'
      when s.separator <> '' then 'plain'
      when chunk.method = 'token' then 'token'
      else 'window'
    end
    from unnest(_separators) with ordinality as s (separator, nr)
    order by s.nr
  );
  case chunk.method
    when 'sentence' then
      _kinds := array['sentence'] || _kinds;
      _separators := array[''] || _separators;
    when 'page' then
      _kinds := array['page'] || _kinds;
      _separators := array[E'\f'] || _separators;
    when 'markdown' then
      _kinds := array['section', 'block'] || _kinds;
      _separators := array['', ''] || _separators;
    else null;
  end case;
  return query
  select (row_number() over ())::integer - 1, c.start_char, c.end_char, c.chunk
  from _pgstack.chunk_by_levels(
    _input, _kinds, _separators, _glues, _keep, chunk.size, chunk.overlap,
    case chunk.method
      when 'recursive' then chunk.size
      when 'character' then null
      else chunk.size::bigint + 1
    end,
    chunk.strip, chunk.method = 'token'
  ) as c;
end;
$$;

comment on function pgstack.chunk(text, text, integer, integer, text[], boolean, text, boolean) is
'Cuts a text into chunks, in order.
input: the text; NULL, '''' or nothing but white space gives no rows.
method: ''recursive'' (default) splits by the first separator that occurs and what is still too long by the next ones;
''character'' splits by one separator; ''sentence'' joins whole sentences; ''markdown'' makes a chunk of each section under
a heading; ''page'' of each page, which a form feed ends; ''token'' is recursive with size and overlap in tokens;
''none'' returns the text whole, as it is. A sentence, section or page that is longer than size is cut as by recursive.
size: longest chunk wanted, 1 or more: characters (code points), with ''token'' tokens as pgstack.estimate_tokens() counts them.
A stretch that no separator splits stays longer.
overlap: how much a chunk may share with the one before, 0 to size: whole parts only, never across sections and pages.
separators: in order of preference; null means E''\n\n'', E''\n'', ''.'', ''?'', ''!'', '' '', '''' (''character'': E''\n\n''); '''' splits anywhere.
is_regex: the separators given are regular expressions in the syntax that Python and PostgreSQL share.
keep_separator: where separators stay, ''start'' of the part behind or ''end'' of the part before; ''none'': they are left out
between chunks; null: ''start'', with ''character'' ''none''.
strip: white space at both ends of a chunk is taken off.
seq: 0, 1, 2, ... start_char, end_char: where the chunk lies in input, in characters from 0, end exclusive:
substr(input, start_char + 1, end_char - start_char) is the chunk, except where separators are left out and several stood
side by side or a regular expression was one; then it is the stretch that the chunk was made from.
The chunks of recursive and character are those of LangChain''s text splitters, which pgai uses.
Raises PS007 unknown method, size, overlap or separators that cannot be used.';
