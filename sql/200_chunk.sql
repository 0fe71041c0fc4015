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
  slice bytea, out body text, out head integer, out tail integer
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

comment on function _pgstack.strip_chunk(bytea) is
'Text from UTF-8 bytes without the white space at its ends; head, tail: how many characters of that there were.';

create or replace function _pgstack.check_chunk_arguments(
  method text, size integer, overlap integer, separators text[], is_regex boolean
)
returns void
language plpgsql immutable parallel safe
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _message text;
  _hint text;
begin
  if method is null or method not in ('none', 'character', 'recursive') then
    _message := format('there is no chunking method "%s"', coalesce(method, 'NULL'));
    _hint := 'Pass method => ''recursive'', ''character'' or ''none''.';
  elsif size is null or size <= 0 then
    _message := format('size must be 1 or more, not %s', coalesce(size::text, 'NULL'));
    _hint := 'Pass the longest chunk wanted, in characters: size => 800.';
  elsif overlap is null or overlap < 0 then
    _message := format('overlap must be 0 or more, not %s', coalesce(overlap::text, 'NULL'));
    _hint := 'Pass the characters that neighbours share: overlap => 0.';
  elsif overlap > size then
    _message := format('overlap %s is larger than size %s', overlap, size);
    _hint := format('Pass an overlap from 0 to %s: overlap => %s.', size, size / 2);
  elsif is_regex is null then
    _message := 'is_regex must not be null';
    _hint := 'Pass is_regex => false.';
  elsif array_position(separators, null) is not null then
    _message := 'a separator must not be null';
    _hint := 'Pass separators => array[E''\n\n'', E''\n'', '' '', ''''].';
  elsif method = 'character' and cardinality(separators) <> 1 then
    _message := format('method "character" takes one separator, not %s', cardinality(separators));
    _hint := 'Pass one, separators => array[E''\n\n''], or method => ''recursive''.';
  else
    if is_regex then
      perform _pgstack.regex_from_python(s.separator) from unnest(separators) as s (separator);
    end if;
    return;
  end if;
  raise exception '%', _message using errcode = 'PS007', hint = _hint;
end;
$$;

comment on function _pgstack.check_chunk_arguments(text, integer, integer, text[], boolean) is
'Raises PS007 for arguments that pgstack.chunk() cannot work with; a vectorizer''s settings are checked with it too.';

create or replace function pgstack.chunk(
  input text,
  method text default 'recursive',
  size integer default 800,
  overlap integer default 400,
  separators text[] default null,
  is_regex boolean default false
)
returns table (seq integer, start_char integer, end_char integer, chunk text)
language plpgsql immutable parallel safe
security invoker
set search_path = pg_catalog, pg_temp
rows 20
as $$
declare
  _input text;
  _stripped record;
begin
  -- Not perform, which takes longer than the function.
  _input := _pgstack.check_chunk_arguments(
    chunk.method, chunk.size, chunk.overlap, chunk.separators, chunk.is_regex
  );
  -- strict would be wrong: separators may be null.
  if chunk.input is null then
    return;
  end if;
  if chunk.method = 'recursive' and octet_length(chunk.input) < chunk.size
    and ascii(chunk.input) between 33 and 126 and ascii(right(chunk.input, 1)) between 33 and 126
  then
    -- Most short texts: they fit, and there is no white space to take off.
    seq := 0;
    start_char := 0;
    end_char := length(chunk.input);
    chunk := chunk.input;
    return next;
    return;
  end if;
  _input := chunk.input || '';  -- reads a compressed value once only
  _stripped := _pgstack.strip_chunk(convert_to(_input, 'UTF8'));
  if _stripped.body = '' then
    return;
  end if;
  if chunk.method = 'none' then
    return query select 0, 0, length(_input), _input;
  elsif chunk.method = 'recursive' and length(_input) < chunk.size then
    -- Whatever the separators are, it all fits into one.
    return query select 0, _stripped.head, length(_input) - _stripped.tail, _stripped.body;
  elsif chunk.method = 'recursive' then
    return query
    select (row_number() over ())::integer - 1, c.start_char, c.end_char, c.chunk
    from _pgstack.chunk_recursive(
      _input,
      chunk.size,
      chunk.overlap,
      case
        when chunk.separators is null then array[E'\n\n', E'\n', '.', '?', '!', ' ', '']
        -- LangChain's own list stands in for an empty one.
        when cardinality(chunk.separators) = 0 then array[E'\n\n', E'\n', ' ', '']
        else chunk.separators
      end,
      chunk.is_regex
    ) as c;
  else
    return query
    select (row_number() over ())::integer - 1, c.start_char, c.end_char, c.chunk
    from _pgstack.chunk_character(
      _input, chunk.size, chunk.overlap, coalesce(chunk.separators[1], E'\n\n'), chunk.is_regex
    ) as c;
  end if;
end;
$$;

comment on function pgstack.chunk(text, text, integer, integer, text[], boolean) is
'Cuts a text into chunks, in order.
input: the text; NULL, '''' or nothing but white space gives no rows.
method: ''recursive'' (default) splits by the first separator that occurs and what is still too long by the next ones;
''character'' splits by one separator; ''none'' returns the text whole, as it is.
size: longest chunk wanted, in characters (code points), 1 or more. A stretch that no separator splits stays longer.
overlap: characters that a chunk may share with the one before, 0 to size.
separators: in order of preference; null means E''\n\n'', E''\n'', ''.'', ''?'', ''!'', '' '', '''' (''character'': E''\n\n''); '''' splits anywhere.
is_regex: the separators are regular expressions in the syntax that Python and PostgreSQL share.
seq: 0, 1, 2, ... start_char, end_char: where the chunk lies in input, in characters from 0, end exclusive:
substr(input, start_char + 1, end_char - start_char) is the chunk, except with ''character'' where empty parts were
dropped or a regular expression joined the parts; then it is the stretch that the chunk was made from.
White space at both ends of a chunk is taken off. The chunks are those of LangChain''s text splitters, which pgai uses.
Raises PS007 unknown method, size, overlap or separators that cannot be used.';
