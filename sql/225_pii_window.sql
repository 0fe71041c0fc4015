-- Family: personal data.  Finds everything that is made of digits.  Reads and writes nothing.
-- Callers: 220_pii.sql.
-- Errors: none.
--
-- Most text holds no number that is long enough, and one regular expression finds that out
-- (pii_scan).  Where it finds a stretch, the rules look at it and at what stands around it, in
-- windows of a few hundred characters, so that the time taken grows with the text and no faster.

-- Digits with little between them, addresses with dots, addresses with colons or dashes.
create or replace function _pgstack.pii_scan()
returns text
language sql immutable parallel safe
security invoker
set search_path = pg_catalog, pg_temp
as $$
  select
    '[0-9](?:[-A-Za-z +()./\u00a0\u2007\u2009\u202f\u2010-\u2013]{0,6}[0-9]){5,}'
    '|[0-9]{1,3}(?:[.][0-9]{1,3}){3}'
    '|(?:^|[^0-9A-Za-z:_])(?:[0-9A-Fa-f]{0,4}:){2,7}[0-9A-Fa-f.]'
    '|(?:[0-9A-Fa-f]{2}-){5}';
$$;

comment on function _pgstack.pii_scan() is
'The expression that finds stretches which may hold a number of a person.';

-- The text with ASCII's spaces and dashes in place of all others, character for character.
create or replace function _pgstack.pii_plain(input text)
returns text
language sql immutable strict parallel safe
security invoker
set search_path = pg_catalog, pg_temp
as $$
  select translate(input, U&'\00A0\2007\2009\202F\2010\2011\2012\2013', '    ----');
$$;

comment on function _pgstack.pii_plain(text) is
'The text with plain spaces and dashes in place of those of typesetters, character for character.';

-- Whether a number may stand here, by the two characters beside it.
create or replace function _pgstack.pii_border(before text, after text, address boolean)
returns boolean
language sql immutable strict parallel safe
security invoker
set search_path = pg_catalog, pg_temp
as $$
  select case
    when address then before !~ '[0-9A-Za-z:._-]$' and after !~ '^(?:[0-9A-Za-z_]|:[0-9A-Fa-f:]|[.-][0-9])'
    else
      -- Not in a word, a path, a longer number, or behind the sign of a currency.
      before !~ '(?:[0-9A-Za-z_+$#\u00a3\u00a5\u20ac]|[0-9A-Za-z][-/]|[0-9][.,:])$'
      and after !~ '^(?:[0-9A-Za-z_]|[-/][0-9A-Za-z]|[.,:][0-9])'
  end;
$$;

comment on function _pgstack.pii_border(text, text, boolean) is
'Whether a number may stand between these: two characters each, less at the ends of the text. address: of a machine.';

-- Columns of a table may be a number by chance, and so may numbers in the address of a web page.
create or replace function _pgstack.pii_alone(before text, value text, after text)
returns boolean
language sql immutable strict parallel safe
security invoker
set search_path = pg_catalog, pg_temp
as $$
  select case
    when value ~ '^[0-9]+$' then before !~ '://[^\s]*$'
    when value ~ '^[0-9][0-9 ]+$' then
      before !~ '[0-9]{3} $' and after !~ '^ (?:(?:[013-9][0-9]|2[1-9])[0-9]{2}|[0-9]{3} [0-9])'
      and (left(value, 2) <> '00' or before !~ '[0-9] $')
    else true
  end;
$$;

comment on function _pgstack.pii_alone(text, text, text) is
'Whether a number is one by itself, and not some columns of a table or a part of a URL.';

create or replace function _pgstack.pii_window(input text, first integer, last integer)
returns table (type text, at integer, length integer)
language plpgsql immutable strict parallel safe
security invoker
set search_path = pg_catalog, pg_temp
rows 1
as $$
declare
  _text text collate "C" := _pgstack.pii_plain(pii_window.input);
  _digits integer := octet_length(_text) - octet_length(translate(_text, '0123456789', ''));
  _rule text[];
  _worded boolean;
  _at integer;
  _end integer;
  _next integer;
  _listed integer;  -- where the last number ended, and the words before it
  _listed_words text;
  _value text;
  _words text;
  _found record;
begin
  foreach _rule slice 1 in array _pgstack.pii_shapes() loop
    continue when _rule[2]::integer > _digits;
    _worded := _rule[3] = 'worded';
    -- Without letters there are no words.
    continue when _worded and _text !~ '[A-Za-z\u00c0-\uffff]';
    _end := greatest(pii_window.first - 45, 1);
    _listed := 0;
    loop
      _at := regexp_instr(_text, _rule[4], _end);
      exit when _at = 0 or _at > pii_window.last;
      _value := regexp_substr(_text, _rule[4], _at);
      -- Nothing begins within what hangs together: there is no border.
      _next := _at + greatest(
        length(substring(substr(_text, _at) from case _rule[3]
          when 'address' then '^[0-9A-Za-z:._-]+'
          else '^(?:[0-9A-Za-z]+[-/]|[0-9A-Za-z]*[0-9][.,:])*[0-9A-Za-z]+'
        end)),
        1
      );
      if not _pgstack.pii_border(substr(_text, greatest(_at - 2, 1), least(_at - 1, 2)), '', _rule[3] = 'address') then
        _end := _next;
        continue;
      end if;
      _end := _at + length(_value);
      -- An IBAN takes in what follows, and finds its own end.
      if _rule[1] <> 'iban' and not _pgstack.pii_border('', substr(_text, _end, 2), _rule[3] = 'address') then
        -- Without the last group, which belongs to something else.
        _value := substring(_value from '^(.*[0-9A-Za-z]) +[0-9A-Za-z]+$');
        if _value is null or _rule[3] = 'address' then
          _end := _next;
          continue;
        end if;
      end if;
      -- Numbers in a row need one word, before the first.
      if _listed > 0 and substr(_text, _listed, greatest(_at - _listed, 0))
        ~ '^[ ,;/|&]+(?:(?:and|or|und|oder|et|ou|y|o|e|en|of)[ ]|[\u548c\u6216\u3001])?$'
      then
        _words := _listed_words;
      else
        _words := _pgstack.pii_context(left(_text, _at - 1));
      end if;
      continue when _worded and not case _rule[1]
        when 'phone' then _words like any (_pgstack.pii_words('phone'))
        else _words like any (_pgstack.pii_words('national_id'))
      end;
      _found := _pgstack.pii_judge(_rule[1], _worded, _value, _words);
      if _found.type is null
        or (
          not _worded and not _pgstack.pii_alone(
            left(_text, _at - 1), left(_value, _found.length), substr(_text, _at + _found.length, 6)
          )
        )
      then
        _end := _next;
        continue;
      end if;
      _end := _at + _found.length;
      _listed := _end;
      _listed_words := _words;
      if _end > pii_window.first then
        type := _found.type;
        at := _at;
        length := _found.length;
        return next;
      end if;
    end loop;
  end loop;
end;
$$;

comment on function _pgstack.pii_window(text, integer, integer) is
'Numbers of persons in a window of some hundred characters, those that touch its characters first to last, from 1.
at: the first character, from 1; length: in characters; type '''': a stretch that is nobody''s number.';

create or replace function _pgstack.pii_numbers(input text)
returns table (type text, start_char integer, end_char integer, start_byte integer, value text)
language plpgsql immutable strict parallel safe
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _input text collate "C" := pii_numbers.input;
  _runs text[] := array(select m.run[1] from regexp_matches(_input, _pgstack.pii_scan(), 'g') as m (run));
  _gaps text[];
  _parts text[] := '{}';
  _is_run boolean[] := '{}';
  _before text := '';
  _after text;
  _window text;
  _char integer := 0;  -- characters and bytes before the part
  _byte integer := 0;
  _found record;
begin
  if cardinality(_runs) = 0 then
    return;
  end if;
  _gaps := regexp_split_to_array(_input, _pgstack.pii_scan());
  for _i in 1 .. cardinality(_gaps) loop
    _parts := _parts || _gaps[_i];
    _is_run := _is_run || false;
    continue when _i > cardinality(_runs);
    for _found in select m.piece[1] as piece from regexp_matches(_runs[_i], '.{1,250}', 'g') as m (piece) loop
      _parts := _parts || _found.piece;
      _is_run := _is_run || true;
    end loop;
  end loop;
  for _i in 1 .. cardinality(_parts) loop
    if _is_run[_i] then
      _after := '';
      for _j in _i + 1 .. cardinality(_parts) loop
        _after := left(_after || left(_parts[_j], 64), 64);
        exit when length(_after) = 64;
      end loop;
      _window := _before || _parts[_i] || _after;
      for _found in
        select w.*
        from _pgstack.pii_window(_window, length(_before) + 1, length(_before || _parts[_i])) as w
      loop
        type := _found.type;
        start_char := _char - length(_before) + _found.at - 1;
        end_char := start_char + _found.length;
        start_byte := _byte - octet_length(_before) + octet_length(left(_window, _found.at - 1));
        value := substr(_window, _found.at, _found.length);
        return next;
      end loop;
    end if;
    _char := _char + length(_parts[_i]);
    _byte := _byte + octet_length(_parts[_i]);
    _before := right(_before || right(_parts[_i], 100), 100);
  end loop;
end;
$$;

comment on function _pgstack.pii_numbers(text) is
'Every number of a person in a text; some twice, some within others. type '''': a stretch that holds none.
start_char, end_char: in characters from 0; start_byte: in bytes of UTF-8 from 0.';
