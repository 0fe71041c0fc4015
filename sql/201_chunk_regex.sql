-- Family: chunking.  Separators that are regular expressions.  Reads and writes nothing.
-- Callers: 200_chunk.sql and its siblings.
-- Errors: PS007 an expression that cannot be used.

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
  -- Control characters, then Unicode's private use area.
  _codes integer[] := array(select generate_series(1, 31) union all select generate_series(57344, 63743));
  _code integer;
begin
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
  -- \s and \S as Python has them: PostgreSQL's depend on the locale.
  _space constant text := '\u0009-\u000d\u001c-\u0020\u0085\u00a0\u1680\u2000-\u200a'
    '\u2028\u2029\u202f\u205f\u3000';
  _other constant text := '\u0001-\u0008\u000e-\u001b\u0021-\u0084\u0086-\u009f\u00a1-\u167f'
    '\u1681-\u1fff\u200b-\u2027\u202a-\u202e\u2030-\u205e\u2060-\u2fff\u3001-\U0010ffff';
  _rest text := regex_from_python.pattern;
  _out text := '';
  _token text;
  _in_class boolean := false;
  _quantified boolean;
  _greedy boolean := false;
  _lazy boolean := false;
  _why text;
begin
  if _rest !~ '[][\\(){}*+?.^$|]' then
    return _rest;
  end if;
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
        when _token = '\s' then _space
        when _token = '\S' then _other
        else _token
      end;
      _in_class := _token <> ']';
    elsif _rest ~ '^\\' then
      _token := substring(_rest from '^(?:\\x[0-9a-fA-F]{2}|\\.)');
      case
        when _token is null then _why := 'it ends with a backslash';
        when _token = '\b' then _out := _out || '\y';
        when _token = '\B' then _out := _out || '\Y';
        when _token = '\s' then _out := _out || '[' || _space || ']';
        when _token = '\S' then _out := _out || '[^' || _space || ']';
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
