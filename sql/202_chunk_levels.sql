-- Family: chunking.  How every method cuts; 200_chunk.sql says how it is made quick.
-- Callers: pgstack.chunk().
-- Errors: none of its own.
--
-- A method is a list of levels.  A level splits a stretch of text into parts, joins
-- neighbours again as long as they fit, and leaves what is too long on its own to the
-- next level:
--
--   recursive   one separator after another
--   character   one separator; nothing is too long
--   sentence    sentences, then recursive's
--   markdown    sections, which are never joined; blocks; then recursive's
--   page        pages, which are never joined; then recursive's
--   token       recursive's, counting tokens in place of characters
--
-- Parts are walked in plpgsql, about 1 us each: one SQL statement for all parts of a
-- level takes twice as long, and ten times where texts are short.

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

create or replace function _pgstack.chunk_pieces(
  stretch text, kind text, separator text, keep text, mark text
)
returns text[]
language plpgsql immutable strict parallel safe
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _marked text collate "C";
begin
  if kind in ('plain', 'page') then
    return string_to_array(chunk_pieces.stretch collate "C", separator);
  end if;
  _marked := case kind
    when 'regex' then regexp_replace(
      chunk_pieces.stretch collate "default",
      separator,
      case keep when 'start' then mark || '\&' when 'end' then '\&' || mark else mark || '\&' || mark end,
      'g'
    )
    when 'sentence' then _pgstack.mark_sentences(chunk_pieces.stretch, mark)
    when 'section' then _pgstack.mark_markdown(chunk_pieces.stretch, mark, false)
    when 'block' then _pgstack.mark_markdown(chunk_pieces.stretch, mark, true)
    else _pgstack.mark_tokens(chunk_pieces.stretch, mark)
  end;
  return string_to_array(_marked, mark);
end;
$$;

comment on function _pgstack.chunk_pieces(text, text, text, text, text) is
'A stretch of text split at one level. kind: plain (the separators are left out), regex (with keep none the matches are every second piece), sentence, section, block, token. mark: a character that the text has not.';

create or replace function _pgstack.chunk_by_levels(
  input text, kinds text[], separators text[], glues text[], keep text,
  size integer, overlap integer, too_long bigint, strip boolean, in_tokens boolean
)
returns table (start_char integer, end_char integer, chunk text)
language plpgsql immutable parallel safe
security invoker
set search_path = pg_catalog, pg_temp
rows 20
as $$
declare
  _source bytea := convert_to(chunk_by_levels.input, 'UTF8');
  _size bigint := chunk_by_levels.size;
  _overlap integer := chunk_by_levels.overlap;
  _too_long bigint := coalesce(chunk_by_levels.too_long, 9223372036854775807);
  _in_tokens boolean := chunk_by_levels.in_tokens;
  _mark text := '';
  -- Open stretches: where they begin and how long they are, in characters and bytes.
  _open_char integer[] := array[0];
  _open_chars integer[] := array[length(chunk_by_levels.input)];
  _open_byte integer[] := array[0];
  _open_bytes integer[] := array[octet_length(_source)];
  _next_char integer[];
  _next_chars integer[];
  _next_byte integer[];
  _next_bytes integer[];
  -- Chunks found.  raw: not to be stripped.  text: where it is no stretch of the input.
  _out_char integer[] := '{}';
  _out_chars integer[] := '{}';
  _out_byte integer[] := '{}';
  _out_bytes integer[] := '{}';
  _out_raw boolean[] := '{}';
  _out_text text[] := '{}';
  _nr integer := 0;
  -- Parts waiting to be joined: numbers _first to _last.  at: the size of all before it,
  -- with what joins them.
  _part_char integer[] := '{}';
  _part_byte integer[] := '{}';
  _part_at bigint[] := '{}';
  _first integer := 1;
  _last integer := 0;
  _at bigint := 0;
  -- Where separators are left out, also: how long a part is, all joined, where it lies there.
  _part_chars integer[] := '{}';
  _part_bytes integer[] := '{}';
  _part_joined integer[] := '{}';
  _joined bytea;
  _joined_byte integer;
  _glue text;
  _glue_size bigint;
  _glue_bytes integer;
  _kind text;
  _separator text;
  _keep text;
  _untouched boolean := true;
  _leave boolean;
  _trim boolean;
  _stride integer;
  _pieces text[];
  _count integer;
  _with_from integer;
  _with_to integer;
  _kept_chars integer;
  _kept_bytes integer;
  _kept_tokens integer;
  _left_chars integer;
  _left_bytes integer;
  _part_size integer;
  _part integer;
  _place bigint;
  _end_char integer;
  _flush boolean;
  _char integer;
  _chars integer;
  _byte integer;
  _bytes integer;
  _raw boolean;
  _cut record;
begin
  if chunk_by_levels.kinds && array['regex', 'sentence', 'section', 'block', 'token'] then
    _mark := _pgstack.unused_character(chunk_by_levels.input);
  end if;
  for _level in 1..cardinality(chunk_by_levels.kinds) loop
    exit when cardinality(_open_char) = 0;
    _kind := chunk_by_levels.kinds[_level];
    _separator := chunk_by_levels.separators[_level];
    _next_char := '{}';
    _next_chars := '{}';
    _next_byte := '{}';
    _next_bytes := '{}';
    if _kind = 'window' then
      -- Parts of one character: all windows are alike, no need to split and to join.
      select
        _out_char || array_agg(w.window_char),
        _out_chars || array_agg(w.window_chars),
        _out_byte || array_agg(w.window_byte),
        _out_bytes || array_agg(w.window_bytes),
        _out_raw || array_agg(coalesce(_too_long = 1, false))
      into _out_char, _out_chars, _out_byte, _out_bytes, _out_raw
      from unnest(_open_char, _open_chars, _open_byte, _open_bytes)
        as o (from_char, chars, from_byte, bytes)
      cross join lateral _pgstack.chunk_windows(
        _source, o.from_char, o.chars, o.from_byte, o.bytes,
        chunk_by_levels.size, chunk_by_levels.size - least(_overlap, chunk_by_levels.size - 1)
      ) as w;
      _open_char := _next_char;
      _open_chars := _next_chars;
      _open_byte := _next_byte;
      _open_bytes := _next_bytes;
      exit;
    end if;

    _keep := case
      when _kind in ('plain', 'regex') then chunk_by_levels.keep
      when _kind = 'page' then 'none'
      else 'start'
    end;
    -- LangChain begins with the first separator that occurs, however short the text is.
    if _keep = 'none' and _untouched and _level < cardinality(chunk_by_levels.kinds) then
      continue when _kind = 'plain' and position(_separator in (chunk_by_levels.input collate "C")) = 0;
      continue when _kind = 'regex'
        and not regexp_like(chunk_by_levels.input collate "default", _separator);
    end if;
    -- With separators left out, every second piece is what a regular expression matched.
    _leave := _keep = 'none';
    _stride := case when _leave and _kind = 'regex' then 2 else 1 end;
    _kept_chars := 0;
    _kept_bytes := 0;
    _kept_tokens := 0;
    _left_chars := null;
    _left_bytes := null;
    if _kind in ('plain', 'page') then
      if _leave then
        _left_chars := length(_separator);
        _left_bytes := octet_length(_separator);
      else
        _kept_chars := length(_separator);
        _kept_bytes := octet_length(_separator);
        _kept_tokens := pgstack.estimate_tokens(_separator);
      end if;
    end if;
    -- White space behind the last sentence of a chunk will go.
    _trim := chunk_by_levels.strip and _kind in ('sentence', 'section', 'block', 'page')
      and not _in_tokens;
    _glue := case when _leave and _kind <> 'page' then chunk_by_levels.glues[_level] else '' end;
    _glue_bytes := octet_length(_glue);
    -- Sections and pages are kept apart by as much as no chunk holds.
    _glue_size := case when _kind in ('section', 'page') then _size else length(_glue) end;

    for _o in 1..cardinality(_open_char) loop
      _char := _open_char[_o];
      _byte := _open_byte[_o];
      _pieces := _pgstack.chunk_pieces(
        convert_from(substring(_source from _byte + 1 for _open_bytes[_o]), 'UTF8'),
        _kind, _separator, _keep, _mark
      );
      _count := cardinality(_pieces);
      if _count = 1 and (not _untouched or _open_chars[_o] >= _too_long and not _in_tokens) then
        -- Nothing to split here; a level before found it too long.
        _next_char := _next_char || _char;
        _next_chars := _next_chars || _open_chars[_o];
        _next_byte := _next_byte || _byte;
        _next_bytes := _next_bytes || _open_bytes[_o];
        continue;
      end if;
      -- The pieces that a separator goes with: all but the first, or all but the last.
      _with_from := case when _keep = 'end' then 1 else 2 end;
      _with_to := case when _keep = 'end' then _count - 1 else _count end;
      if _leave and _kind <> 'page' then
        select convert_to(string_agg(p.piece, _glue order by p.nr), 'UTF8')
        into _joined
        from unnest(_pieces) with ordinality as p (piece, nr)
        where p.piece <> '' and (_stride = 1 or p.nr % 2 = 1);
        _joined_byte := 0;
      end if;
      for _p in 1.._count + _stride by _stride loop
        _flush := _p > _count;
        if not _flush then
          _chars := length(_pieces[_p]);
          _bytes := octet_length(_pieces[_p]);
          if _p >= _with_from and _p <= _with_to then
            _chars := _chars + _kept_chars;
            _bytes := _bytes + _kept_bytes;
            if _leave then
              _char := _char + coalesce(_left_chars, length(_pieces[_p - 1]));
              _byte := _byte + coalesce(_left_bytes, octet_length(_pieces[_p - 1]));
            end if;
          end if;
          continue when _chars = 0;
          _part_size := _chars;
          if _in_tokens then
            -- A piece of the last level is one token, but for white space before the first.
            _part_size := case
              when _kind = 'token' then (_p > 1)::integer
              else pgstack.estimate_tokens(_pieces[_p]) + _kept_tokens * (_chars > length(_pieces[_p]))::integer
            end;
          elsif _trim then
            _part_size := length(rtrim(_pieces[_p], E' \n\r\t'));
          end if;
          _flush := _part_size >= _too_long;
        end if;
        if _first <= _last and (_flush or _at + _part_size - _part_at[_first] > _size) then
          _nr := _nr + 1;
          _out_char[_nr] := _part_char[_first];
          _out_byte[_nr] := _part_byte[_first];
          _out_raw[_nr] := false;
          if not _leave then
            _out_chars[_nr] := _char - _part_char[_first];
            _out_bytes[_nr] := _byte - _part_byte[_first];
          else
            _out_chars[_nr] := _part_char[_last] + _part_chars[_last] - _part_char[_first];
            _out_bytes[_nr] := _part_byte[_last] + _part_bytes[_last] - _part_byte[_first];
            _out_text[_nr] := null;
            if _first < _last and (
              _stride = 2 and _glue <> '' or _out_chars[_nr] <> _at - _glue_size - _part_at[_first]
            ) then
              -- What is joined did not stand side by side.
              _cut := _pgstack.strip_chunk(
                substring(
                  _joined from _part_joined[_first] + 1
                  for _part_joined[_last] + _part_bytes[_last] - _part_joined[_first]
                ),
                chunk_by_levels.strip
              );
              _out_text[_nr] := _cut.body;
              -- Its ends lie inside a part, or inside the separator behind one.
              _place := _part_at[_first] + _cut.head;
              _part := _first;
              while _part < _last and _part_at[_part + 1] <= _place loop
                _part := _part + 1;
              end loop;
              _out_char[_nr] := _part_char[_part] + least(_place - _part_at[_part], _part_chars[_part]);
              if _part < _last and _place > _part_at[_part] + _part_chars[_part] then
                _out_char[_nr] := greatest(_out_char[_nr], _part_char[_part + 1] - _part_at[_part + 1] + _place);
              end if;
              _place := _at - _glue_size - _cut.tail;
              _part := _last;
              while _part > _first and _part_at[_part] >= _place loop
                _part := _part - 1;
              end loop;
              _end_char := _part_char[_part] + least(_place - _part_at[_part], _part_chars[_part]);
              if _part < _last and _place > _part_at[_part] + _part_chars[_part] then
                _end_char := greatest(_end_char, _part_char[_part + 1] - _part_at[_part + 1] + _place);
              end if;
              _out_chars[_nr] := _end_char - _out_char[_nr];
            end if;
          end if;
          if not _flush then
            -- Keep as much of the end as the overlap allows and the next part leaves room for.
            while _first <= _last and (
              _at - _glue_size - _part_at[_first] > _overlap
              or _at + _part_size - _part_at[_first] > _size
            ) loop
              _first := _first + 1;
            end loop;
          end if;
        end if;
        exit when _p > _count;
        if _flush then
          -- Too long: for the next level.
          _first := 1;
          _last := 0;
          _next_char := _next_char || _char;
          _next_chars := _next_chars || _chars;
          _next_byte := _next_byte || _byte;
          _next_bytes := _next_bytes || _bytes;
        else
          _last := _last + 1;
          _part_char[_last] := _char;
          _part_byte[_last] := _byte;
          _part_at[_last] := _at;
          if _leave then
            _part_chars[_last] := _chars;
            _part_bytes[_last] := _bytes;
            _part_joined[_last] := _joined_byte;
          end if;
        end if;
        if _leave then
          _joined_byte := _joined_byte + _bytes + _glue_bytes;
        end if;
        _at := _at + _part_size + _glue_size;
        if _trim then
          _at := _at + _chars - _part_size;
        end if;
        _char := _char + _chars;
        _byte := _byte + _bytes;
      end loop;
      _first := 1;
      _last := 0;
    end loop;
    _untouched := false;
    _open_char := _next_char;
    _open_chars := _next_chars;
    _open_byte := _next_byte;
    _open_bytes := _next_bytes;
  end loop;

  for _char, _chars, _byte, _bytes, _raw, chunk in
    select o.from_char, o.chars, o.from_byte, o.bytes, o.is_raw, o.body
    from unnest(_out_char, _out_chars, _out_byte, _out_bytes, _out_raw, _out_text)
      as o (from_char, chars, from_byte, bytes, is_raw, body)
    union all
    select u.from_char, u.chars, u.from_byte, u.bytes, true, null
    from unnest(_open_char, _open_chars, _open_byte, _open_bytes)
      as u (from_char, chars, from_byte, bytes)
    order by 3
  loop
    start_char := _char;
    end_char := _char + _chars;
    if chunk is null then
      _cut := _pgstack.strip_chunk(
        substring(_source from _byte + 1 for _bytes), chunk_by_levels.strip and not _raw
      );
      start_char := start_char + _cut.head;
      end_char := end_char - _cut.tail;
      chunk := _cut.body;
    end if;
    continue when chunk = '';
    return next;
  end loop;
end;
$$;

comment on function _pgstack.chunk_by_levels(
  text, text[], text[], text[], text, integer, integer, bigint, boolean, boolean
) is
'Chunks of a text by a list of levels. kinds: what splits each of them, plain, regex, window, section, block, sentence, page or token. separators: for plain, regex and page. glues: what joins parts where keep is none. too_long: from this size on a part goes to the next level; NULL: never. in_tokens: sizes count tokens in place of characters.';
