-- Family: personal data.  E-mail addresses.  Reads and writes nothing.
-- Callers: 220_pii.sql.
-- Errors: none.
--
-- A text without @ costs one search for a byte.  Else it is cut at each @, and what stands before
-- and behind is looked at, no further than an address may be long.

create or replace function _pgstack.pii_emails(input text)
returns table (type text, start_char integer, end_char integer, start_byte integer, value text)
language plpgsql immutable strict parallel safe
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  -- Letters with accents, Greek, Cyrillic, Hebrew, Arabic, Devanagari and their neighbours; and those
  -- of languages that put no space between words.
  _letter constant text := '0-9A-Za-z\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u1fff';
  _dense constant text := _letter || '\u3040-\u30ff\u3400-\u9fff\uac00-\ud7a3';
  _local_pattern constant text := '[%s_][%1$s_.%%+''-]*$';
  _domain_pattern constant text := '^[%s](?:[%1$s-]*[%1$s])?(?:[.][%1$s](?:[%1$s-]*[%1$s])?)+';
  _input text collate "C" := pii_emails.input;
  _parts text[];
  _left text;
  _right text;
  _local text;
  _domain text;
  _char integer := 0;  -- characters and bytes before the @
  _byte integer := 0;
begin
  if position('@' in _input) = 0 then
    return;
  end if;
  _parts := string_to_array(_input, '@');
  for _i in 2 .. cardinality(_parts) loop
    _char := _char + length(_parts[_i - 1]);
    _byte := _byte + octet_length(_parts[_i - 1]);
    _right := left(_parts[_i], 254);
    if position('.' in _right) > 1 and _parts[_i - 1] <> '' then
      -- A domain in ASCII ends where Chinese goes on.
      _domain := coalesce(
        substring(_right from format(_domain_pattern, _letter)),
        substring(_right from format(_domain_pattern, _dense))
      );
      _left := right(_parts[_i - 1], 80);
      _local := coalesce(
        substring(_left from format(_local_pattern, _letter)),
        substring(_left from format(_local_pattern, _dense))
      );
      _local := regexp_replace(_local, '^.*[.][.]', '');
      if _local <> '' and length(_local) <= 64 and _local !~ '[.]$'
        and _domain ~ '[.](?:[^0-9.-]{2,24}|xn--[0-9A-Za-z-]{2,59})$'
        -- Not names of files, units of systemd, addresses of repositories or the login in a URL.
        and _domain !~* '[.](?:png|jpe?g|gif|svg|webp|service|socket|timer|target|mount|conf)$'
        and not (_local in ('git', 'hg', 'svn') and substr(_right, length(_domain) + 1, 1) in (':', '/'))
        and _left !~ '://[^/\s]*$'
      then
        type := 'email';
        start_char := _char - length(_local);
        end_char := _char + 1 + length(_domain);
        start_byte := _byte - octet_length(_local);
        value := _local || '@' || _domain;
        return next;
      end if;
    end if;
    _char := _char + 1;
    _byte := _byte + 1;
  end loop;
end;
$$;

comment on function _pgstack.pii_emails(text) is
'Every e-mail address in a text. start_char, end_char: in characters from 0; start_byte: in bytes of UTF-8 from 0.';
