-- Family: chunking.  The method "recursive"; 200_chunk.sql says how it is made quick.
-- Callers: pgstack.chunk().
-- Errors: PS007 from 201_chunk_regex.sql.

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
      window_bytes := octet_length(left(_ahead, window_chars));
    end if;
    return next;
    exit when window_char + window_chars >= _end;
    window_char := window_char + chunk_windows.step;
    window_byte := window_byte + case
      when _is_ascii then chunk_windows.step
      else octet_length(left(_ahead, chunk_windows.step))
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
      _separator_bytes := octet_length(_separator);
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
        _part_bytes := octet_length(_parts[_p]);
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
