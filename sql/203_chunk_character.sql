-- Family: chunking.  The method "character"; 200_chunk.sql says how it is made quick.
-- Callers: pgstack.chunk().
-- Errors: PS007 from 201_chunk_regex.sql.

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
  _glue_bytes := octet_length(_glue);

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
    _joined_bytes := _joined_bytes + octet_length(_part);
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
