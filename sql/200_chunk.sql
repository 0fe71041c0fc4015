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

-- A character that does not occur in a text, to mark places in it.
create or replace function _pgstack.unused_character(input text, skip integer default 0)
returns text
language plpgsql immutable strict parallel safe
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _input text collate "C" := unused_character.input;
  _left integer := unused_character.skip;
  _codes integer[] := array(select generate_series(1, 31));
  _code integer;
begin
  if getdatabaseencoding() = 'UTF8' then
    _codes := _codes || array(select generate_series(57344, 63743));  -- private use
  end if;
  foreach _code in array _codes loop
    if position(chr(_code) in _input) = 0 then
      if _left = 0 then
        return chr(_code);
      end if;
      _left := _left - 1;
    end if;
  end loop;
  raise exception 'a text with every control character cannot be cut by a regular expression'
    using errcode = 'PS007', hint = 'Pass a plain separator and is_regex => false.';
end;
$$;

comment on function _pgstack.unused_character(text, integer) is
'A character that does not occur in input; skip: how many of them to pass over.';

-- Python's regular expressions and PostgreSQL's share most of their spelling.
-- Where the same spelling means two things, this writes PostgreSQL's; what has
-- no equal is refused.
create or replace function _pgstack.regex_from_python(pattern text)
returns text
language plpgsql immutable strict parallel safe
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _rest text := regex_from_python.pattern;
  _out text := '';
  _token text;
  _in_class boolean := false;
  _quantified boolean;
  _greedy boolean := false;
  _lazy boolean := false;
  _why text;
begin
  if _rest ~ '^[*+?]' then
    _why := 'it begins with a quantifier';
  end if;
  while _rest <> '' and _why is null loop
    _quantified := false;
    if _in_class then
      _token := substring(_rest from '^(?:\\x[0-9a-fA-F]{2}|\\.|.)');
      _out := _out || case
        when _token ~ '^\\x..$' then '\u00' || substr(_token, 3)
        when _token = '[' then '\['
        else _token
      end;
      _in_class := _token <> ']';
    elsif _rest ~ '^\\' then
      _token := substring(_rest from '^(?:\\x[0-9a-fA-F]{2}|\\.)');
      case
        when _token is null then _why := 'it ends with a backslash';
        when _token = '\b' then _out := _out || '\y';
        when _token = '\B' then _out := _out || '\Y';
        when _token ~ '^\\x..$' then _out := _out || '\u00' || substr(_token, 3);
        when _token ~ '^\\[1-9]' then _why := 'it refers back to a group';
        when _token ~ '^\\[a-zA-Z0-9]' and _token !~ '^\\[dDsSwWAZntrfvauU]' then
          _why := format('%s is not supported', _token);
        else _out := _out || _token;
      end case;
    elsif _rest ~ '^\[' then
      -- A ] right after the opening bracket stands for itself.
      _token := substring(_rest from '^\[\^?\]?');
      _out := _out || _token;
      _in_class := true;
    elsif _rest ~ '^\(' then
      _token := substring(_rest from '^\((?:\?(?::|<?[=!]))?');
      _out := _out || _token;
      if _token = '(' then
        _why := case
          when _rest ~ '^\(\?' then format('%s is not supported', left(_rest, 3))
          else 'it has a capturing group: write (?:...)'
        end;
      end if;
    elsif _rest ~ '^(?:[*+?]|\{\d+(?:,\d*)?\}|\{,\d*\})' then
      _token := substring(_rest from '^(?:[*+?]|\{\d+(?:,\d*)?\}|\{,\d*\})');
      _out := _out || replace(_token, '{,', '{0,');
      _quantified := true;
    else
      _token := left(_rest, 1);
      _out := _out || case _token
        when '.' then '[^\n]'
        when '^' then '\A'
        when '$' then '(?=\n?\Z)'
        when '{' then '\{'
        else _token
      end;
    end if;
    _rest := substr(_rest, length(_token) + 1);
    if _quantified then
      if _rest ~ '^\?' then
        _out := _out || '?';
        _rest := substr(_rest, 2);
        _lazy := true;
      elsif _rest ~ '^\+' then
        _why := 'possessive quantifiers are not supported';
      else
        _greedy := true;
      end if;
    end if;
  end loop;
  if _why is null and _greedy and _lazy then
    _why := 'greedy and lazy quantifiers cannot be mixed';
  end if;
  if _why is null then
    begin
      perform regexp_like('' collate "default", _out);
    exception
      when invalid_regular_expression then
        _why := sqlerrm;
    end;
  end if;
  if _why is not null then
    raise exception 'separator "%" cannot be used as a regular expression: %',
      regex_from_python.pattern, _why
      using errcode = 'PS007',
      hint = 'Use what Python and PostgreSQL have in common: characters, classes, (?:...), '
        'look-around, one kind of quantifier; or is_regex => false.';
  end if;
  return _out;
end;
$$;

comment on function _pgstack.regex_from_python(text) is
'A regular expression in Python''s spelling, in PostgreSQL''s. Raises PS007 for what has no equal.';

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

-- Cuts one stretch of text into windows of equal length.  from_byte and bytes
-- address source, the whole text in UTF-8.
create or replace function _pgstack.chunk_windows(
  source bytea, from_char integer, chars integer, from_byte integer, bytes integer,
  size integer, step integer
)
returns table (window_char integer, window_chars integer, window_byte integer, window_bytes integer)
language plpgsql immutable strict parallel safe
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _end integer := chunk_windows.from_char + chunk_windows.chars;
  _end_byte integer := chunk_windows.from_byte + chunk_windows.bytes;
  _is_ascii boolean := chunk_windows.chars = chunk_windows.bytes;
  _to integer;
  _ahead text;
begin
  window_char := chunk_windows.from_char;
  window_byte := chunk_windows.from_byte;
  loop
    window_chars := least(chunk_windows.size, _end - window_char);
    if _is_ascii then
      window_bytes := window_chars;
    else
      -- At most four bytes a character; do not end inside one.
      _to := least(window_byte::bigint + 4 * window_chars::bigint, _end_byte);
      while _to < _end_byte and get_byte(chunk_windows.source, _to) & 192 = 128 loop
        _to := _to - 1;
      end loop;
      _ahead := convert_from(
        substring(chunk_windows.source from window_byte + 1 for _to - window_byte), 'UTF8'
      );
      window_bytes := octet_length(convert_to(left(_ahead, window_chars), 'UTF8'));
    end if;
    return next;
    exit when window_char + window_chars >= _end;
    window_char := window_char + chunk_windows.step;
    window_byte := window_byte + case
      when _is_ascii then chunk_windows.step
      else octet_length(convert_to(left(_ahead, chunk_windows.step), 'UTF8'))
    end;
  end loop;
end;
$$;

comment on function _pgstack.chunk_windows(bytea, integer, integer, integer, integer, integer, integer) is
'Windows of size characters, step apart, over a stretch of a text given as UTF-8 bytes.';

-- One pass a separator.  Stretches still too long are "open"; each pass splits
-- them, joins what became short into chunks, and keeps what did not for the next.
create or replace function _pgstack.chunk_recursive(
  input text, size integer, overlap integer, separators text[], is_regex boolean
)
returns table (start_char integer, end_char integer, chunk text)
language plpgsql immutable strict parallel safe
security invoker
set search_path = pg_catalog, pg_temp
rows 20
as $$
declare
  _bytes bytea := convert_to(chunk_recursive.input, 'UTF8');
  _is_utf8 boolean := getdatabaseencoding() = 'UTF8';
  _size integer := chunk_recursive.size;
  _overlap integer := chunk_recursive.overlap;
  -- Open stretches: where they begin and how long they are, in characters and bytes.
  _open_char integer[] := array[0];
  _open_chars integer[] := array[length(chunk_recursive.input)];
  _open_byte integer[] := array[0];
  _open_bytes integer[] := array[octet_length(_bytes)];
  _next_char integer[];
  _next_chars integer[];
  _next_byte integer[];
  _next_bytes integer[];
  -- Chunks found.  raw: a stretch that nothing could split, left as it is.
  _out_char integer[] := '{}';
  _out_chars integer[] := '{}';
  _out_byte integer[] := '{}';
  _out_bytes integer[] := '{}';
  _out_raw boolean[] := '{}';
  -- Short parts waiting to be joined: numbers _first to _last.
  _part_char integer[] := '{}';
  _part_byte integer[] := '{}';
  _first integer := 1;
  _last integer := 0;
  _stretch text;
  _parts text[];
  _separator text;
  _separator_chars integer;
  _separator_bytes integer;
  _mark text;
  _char integer;
  _byte integer;
  _part_chars integer;
  _part_bytes integer;
  _raw boolean;
  _stripped record;
begin
  if chunk_recursive.is_regex then
    _mark := _pgstack.unused_character(chunk_recursive.input);
  end if;
  foreach _separator in array chunk_recursive.separators loop
    exit when cardinality(_open_char) = 0;
    if _separator = '' then
      select
        _out_char || array_agg(w.window_char),
        _out_chars || array_agg(w.window_chars),
        _out_byte || array_agg(w.window_byte),
        _out_bytes || array_agg(w.window_bytes),
        _out_raw || array_agg(_size = 1)
      into _out_char, _out_chars, _out_byte, _out_bytes, _out_raw
      from unnest(_open_char, _open_chars, _open_byte, _open_bytes)
        as o (from_char, chars, from_byte, bytes)
      cross join lateral _pgstack.chunk_windows(
        _bytes, o.from_char, o.chars, o.from_byte, o.bytes,
        _size, _size - least(_overlap, _size - 1)
      ) as w;
      _open_char := '{}';
      _open_chars := '{}';
      _open_byte := '{}';
      _open_bytes := '{}';
      exit;
    end if;

    _separator_chars := 0;
    _separator_bytes := 0;
    if chunk_recursive.is_regex then
      _separator := _pgstack.regex_from_python(_separator);
    else
      _separator_chars := length(_separator);
      _separator_bytes := octet_length(convert_to(_separator, 'UTF8'));
    end if;
    _next_char := '{}';
    _next_chars := '{}';
    _next_byte := '{}';
    _next_bytes := '{}';
    for _o in 1..cardinality(_open_char) loop
      _char := _open_char[_o];
      _byte := _open_byte[_o];
      _stretch := convert_from(substring(_bytes from _byte + 1 for _open_bytes[_o]), 'UTF8');
      if chunk_recursive.is_regex then
        -- The separator stays inside the part that follows it.
        _parts := string_to_array(
          regexp_replace(_stretch collate "default", _separator, _mark || '\&', 'g') collate "C",
          _mark
        );
      else
        _parts := string_to_array(_stretch collate "C", _separator);
      end if;
      if cardinality(_parts) = 1 and _open_chars[_o] >= _size then
        -- Nothing to split here.
        _next_char := _next_char || _char;
        _next_chars := _next_chars || _open_chars[_o];
        _next_byte := _next_byte || _byte;
        _next_bytes := _next_bytes || _open_bytes[_o];
        continue;
      end if;
      for _p in 1..cardinality(_parts) loop
        _part_chars := length(_parts[_p]);
        _part_bytes := case
          when _is_utf8 then octet_length(_parts[_p])
          else octet_length(convert_to(_parts[_p], 'UTF8'))
        end;
        if _p > 1 then
          _part_chars := _part_chars + _separator_chars;
          _part_bytes := _part_bytes + _separator_bytes;
        end if;
        continue when _part_chars = 0;
        if _part_chars < _size then
          if _first <= _last and _char + _part_chars - _part_char[_first] > _size then
            _out_char := _out_char || _part_char[_first];
            _out_chars := _out_chars || _char - _part_char[_first];
            _out_byte := _out_byte || _part_byte[_first];
            _out_bytes := _out_bytes || _byte - _part_byte[_first];
            _out_raw := _out_raw || false;
            -- Keep as much of the end as the overlap allows and the next part leaves room for.
            while _first <= _last and (
              _char - _part_char[_first] > _overlap
              or _char + _part_chars - _part_char[_first] > _size
            ) loop
              _first := _first + 1;
            end loop;
          end if;
          _last := _last + 1;
          _part_char[_last] := _char;
          _part_byte[_last] := _byte;
        else
          if _first <= _last then
            _out_char := _out_char || _part_char[_first];
            _out_chars := _out_chars || _char - _part_char[_first];
            _out_byte := _out_byte || _part_byte[_first];
            _out_bytes := _out_bytes || _byte - _part_byte[_first];
            _out_raw := _out_raw || false;
          end if;
          _first := 1;
          _last := 0;
          _next_char := _next_char || _char;
          _next_chars := _next_chars || _part_chars;
          _next_byte := _next_byte || _byte;
          _next_bytes := _next_bytes || _part_bytes;
        end if;
        _char := _char + _part_chars;
        _byte := _byte + _part_bytes;
      end loop;
      if _first <= _last then
        _out_char := _out_char || _part_char[_first];
        _out_chars := _out_chars || _char - _part_char[_first];
        _out_byte := _out_byte || _part_byte[_first];
        _out_bytes := _out_bytes || _byte - _part_byte[_first];
        _out_raw := _out_raw || false;
      end if;
      _first := 1;
      _last := 0;
    end loop;
    _open_char := _next_char;
    _open_chars := _next_chars;
    _open_byte := _next_byte;
    _open_bytes := _next_bytes;
  end loop;

  for _char, _part_chars, _byte, _part_bytes, _raw in
    select o.from_char, o.chars, o.from_byte, o.bytes, o.is_raw
    from unnest(_out_char, _out_chars, _out_byte, _out_bytes, _out_raw)
      as o (from_char, chars, from_byte, bytes, is_raw)
    union all
    select n.from_char, n.chars, n.from_byte, n.bytes, true
    from unnest(_open_char, _open_chars, _open_byte, _open_bytes)
      as n (from_char, chars, from_byte, bytes)
    order by 1
  loop
    start_char := _char;
    end_char := _char + _part_chars;
    if _raw then
      chunk := convert_from(substring(_bytes from _byte + 1 for _part_bytes), 'UTF8');
    else
      _stripped := _pgstack.strip_chunk(substring(_bytes from _byte + 1 for _part_bytes));
      start_char := start_char + _stripped.head;
      end_char := end_char - _stripped.tail;
      chunk := _stripped.body;
      continue when start_char >= end_char;
    end if;
    return next;
  end loop;
end;
$$;

comment on function _pgstack.chunk_recursive(text, integer, integer, text[], boolean) is
'Chunks of a text, splitting by the first separator that it contains and what stays too long by the next.';

-- Splits by one separator, drops empty parts and joins the others, with the
-- separator between them, up to size.
create or replace function _pgstack.chunk_character(
  input text, size integer, overlap integer, separator text, is_regex boolean
)
returns table (start_char integer, end_char integer, chunk text)
language plpgsql immutable strict parallel safe
security invoker
set search_path = pg_catalog, pg_temp
rows 20
as $$
declare
  _size integer := chunk_character.size;
  _overlap integer := chunk_character.overlap;
  _pattern text;
  _before text;
  _after text;
  _split text[];
  _glue text := chunk_character.separator;
  _glue_chars integer;
  _glue_bytes integer;
  _gap integer := 0;
  -- Parts that are not empty: the text, where it begins in input, in _joined, and in its bytes.
  _parts text[] := '{}';
  _source_char integer[] := '{}';
  _joined_char integer[] := '{}';
  _joined_byte integer[] := '{}';
  _joined bytea;
  _count integer := 0;
  _char integer := 0;
  _joined_chars integer := 0;
  _joined_bytes integer := 0;
  _part text;
  _ends integer;
  _first integer := 1;
  _emit boolean;
  _stripped record;
  _skip integer;
  _at integer;
begin
  if chunk_character.is_regex then
    -- Mark each match: _before match _after.
    _pattern := _pgstack.regex_from_python(chunk_character.separator);
    _before := _pgstack.unused_character(chunk_character.input);
    _after := _pgstack.unused_character(chunk_character.input, 1);
    _split := string_to_array(
      regexp_replace(
        chunk_character.input collate "default", _pattern, _before || '\&' || _after, 'g'
      ) collate "C",
      _before
    );
    -- LangChain puts the expression itself between the parts that it joins,
    -- unless that is a look-around.
    if _glue ~ '^\(\?<?[=!]' then
      _glue := '';
    end if;
  elsif _glue = '' then
    _split := string_to_array(chunk_character.input, null);
  else
    _split := string_to_array(chunk_character.input collate "C", _glue);
  end if;
  _glue_chars := length(_glue);
  _glue_bytes := octet_length(convert_to(_glue, 'UTF8'));

  for _s in 1..cardinality(_split) loop
    _part := _split[_s];
    if _s > 1 then
      if chunk_character.is_regex then
        _gap := position(_after in (_part collate "C")) - 1;
        _part := substr(_part, _gap + 2);
      else
        _gap := _glue_chars;
      end if;
      _char := _char + _gap;
    end if;
    continue when _part = '';
    _count := _count + 1;
    if _count > 1 then
      _joined_chars := _joined_chars + _glue_chars;
      _joined_bytes := _joined_bytes + _glue_bytes;
    end if;
    _parts[_count] := _part;
    _source_char[_count] := _char;
    _joined_char[_count] := _joined_chars;
    _joined_byte[_count] := _joined_bytes;
    _char := _char + length(_part);
    _joined_chars := _joined_chars + length(_part);
    _joined_bytes := _joined_bytes + octet_length(convert_to(_part, 'UTF8'));
  end loop;
  _joined := convert_to(array_to_string(_parts, _glue), 'UTF8');
  -- A last, empty part, so that every part ends where another begins.
  _joined_char[_count + 1] := _joined_chars + _glue_chars;
  _joined_byte[_count + 1] := _joined_bytes + _glue_bytes;

  for _last in 1.._count loop
    -- A chunk ends with _last if the part after it does not fit, or there is none.
    if _last < _count then
      _ends := _joined_char[_last + 2] - _glue_chars;
      _emit := _ends - _joined_char[_first] > _size;
    else
      _emit := true;
    end if;
    continue when not _emit;
    _at := _joined_byte[_first];
    _stripped := _pgstack.strip_chunk(
      substring(_joined from _at + 1 for _joined_byte[_last + 1] - _glue_bytes - _at)
    );
    chunk := _stripped.body;
    if chunk <> '' then
      -- Where the stripped chunk begins and ends: inside a part, or inside the
      -- separator before or after one.
      _skip := _joined_char[_first] + _stripped.head;
      _at := _first;
      while _at < _last and _joined_char[_at + 1] <= _skip loop
        _at := _at + 1;
      end loop;
      if _at < _last and _skip >= _joined_char[_at + 1] - _glue_chars then
        start_char := case
          when chunk_character.is_regex then _source_char[_at] + length(_parts[_at])
          else _source_char[_at + 1] - (_joined_char[_at + 1] - _skip)
        end;
      else
        start_char := _source_char[_at] + _skip - _joined_char[_at];
      end if;
      _skip := _joined_char[_last + 1] - _glue_chars - _stripped.tail;
      _at := _last;
      while _at > _first and _joined_char[_at] >= _skip loop
        _at := _at - 1;
      end loop;
      end_char := _source_char[_at] + _skip - _joined_char[_at];
      if chunk_character.is_regex and _at < _last
        and _skip > _joined_char[_at + 1] - _glue_chars
      then
        end_char := _source_char[_at + 1];
      end if;
      return next;
    end if;
    if _last < _count then
      while _first <= _last and (
        _joined_char[_last + 1] - _glue_chars - _joined_char[_first] > _overlap
        or _ends - _joined_char[_first] > _size
      ) loop
        _first := _first + 1;
      end loop;
    end if;
  end loop;
end;
$$;

comment on function _pgstack.chunk_character(text, integer, integer, text, boolean) is
'Chunks of a text, splitting by one separator and joining the parts again up to size.';

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
  perform _pgstack.check_chunk_arguments(
    chunk.method, chunk.size, chunk.overlap, chunk.separators, chunk.is_regex
  );
  -- strict would be wrong: separators may be null.
  if chunk.input is null then
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
