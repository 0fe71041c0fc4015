-- Family: personal data.  National identity, tax and insurance numbers.  Reads and writes nothing.
-- Callers: 224_pii_number.sql.
-- Errors: none.
--
-- A number is told by its shape, that is with 9 for each digit and A for each letter, and by its
-- check digits.  What is nothing but digits is a number of some order in most texts, so those
-- need a word before them that says what they are (_pgstack.pii_words()).

create or replace function _pgstack.id_us(digits text)
returns boolean
language sql immutable strict parallel safe
security invoker
set search_path = pg_catalog, pg_temp
as $$
  select left(digits, 3) not in ('000', '666') and left(digits, 1) <> '9'
    and substr(digits, 4, 2) <> '00' and right(digits, 4) <> '0000'
    -- Numbers of advertisements, which many people have given for their own.
    and digits not in ('078051120', '219099999', '123456789');
$$;

comment on function _pgstack.id_us(text) is
'Whether a US social security number of these nine digits may exist; it has no check digit.';

create or replace function _pgstack.id_de(digits text)
returns boolean
language sql immutable strict parallel safe
security invoker
set search_path = pg_catalog, pg_temp
as $$
  select left(digits, 1) <> '0'
    -- Of the first ten digits one occurs twice or three times, the others at most once.
    and (
      select count(*) in (8, 9) and max(d.times) in (2, 3) and count(*) filter (where d.times > 1) = 1
      from (
        select count(*) as times from string_to_table(left(digits, 10), null) as s (digit) group by s.digit
      ) as d
    )
    and _pgstack.mod_11_10(digits);
$$;

comment on function _pgstack.id_de(text) is
'Whether eleven digits are a German tax number (Steuer-Identifikationsnummer).';

-- 1 85 05 2A 006 084 36: Corsica's departments are written 2A and 2B, and counted as 19 and 18.
create or replace function _pgstack.id_fr(number text)
returns boolean
language sql immutable strict parallel safe
security invoker
set search_path = pg_catalog, pg_temp
as $$
  select number ~ '^[1-478][0-9]{2}(?:0[1-9]|1[0-2]|[2-9][0-9])(?:[0-9]{2}|2[AB])[0-9]{8}$'
    and substr(number, 11, 3) <> '000'
    and (
      97 - replace(replace(left(number, 13), '2A', '19'), '2B', '18')::bigint % 97
    ) = right(number, 2)::bigint;
$$;

comment on function _pgstack.id_fr(text) is
'Whether fifteen characters are a French insurance number (NIR), check digits and all.';

create or replace function _pgstack.id_es(number text)
returns boolean
language sql immutable strict parallel safe
security invoker
set search_path = pg_catalog, pg_temp
as $$
  select number ~ '^[0-9XYZ][0-9]{7}[A-Z]$'
    and right(number, 1) = substr(
      'TRWAGMYFPDXBNJZSQVHLCKE', translate(left(number, 8), 'XYZ', '012')::integer % 23 + 1, 1
    );
$$;

comment on function _pgstack.id_es(text) is
'Whether nine characters are a Spanish DNI or NIE: the letter at the end is the check.';

create or replace function _pgstack.id_it(number text)
returns boolean
language sql immutable strict parallel safe
security invoker
set search_path = pg_catalog, pg_temp
as $$
  select number ~ (
      '^[A-Z]{6}[0-9LMNP-V]{2}[ABCDEHLMPRST]'
      '(?:[04LQ][1-9MNP-V]|[1256MNRS][0-9LMNP-V]|[37PT][01LM])[A-Z][0-9LMNP-V]{3}[A-Z]$'
    )
    -- Digits may have been changed to letters where two people would have the same number.
    and length(translate(number, '0123456789', '')) <= 14
    and right(number, 1) = chr(65 + (
      select sum(
        case
          when s.nr % 2 = 0 then position(s.letter in '0123456789') - 1 + case
            when s.letter between 'A' and 'Z' then ascii(s.letter) - 64 else 0
          end
          else (array[1, 0, 5, 7, 9, 13, 15, 17, 19, 21, 2, 4, 18, 20, 11, 3, 6, 8, 12, 14, 16, 10, 22, 25, 24, 23])[
            case
              when s.letter between '0' and '9' then ascii(s.letter) - 47
              else ascii(s.letter) - 64
            end
          ]
        end
      )
      from string_to_table(left(number, 15), null) with ordinality as s (letter, nr)
    )::integer % 26);
$$;

comment on function _pgstack.id_it(text) is
'Whether sixteen characters are an Italian codice fiscale: the letter at the end is the check.';

create or replace function _pgstack.id_br(digits text)
returns boolean
language sql immutable strict parallel safe
security invoker
set search_path = pg_catalog, pg_temp
as $$
  select replace(digits, left(digits, 1), '') <> ''
    and _pgstack.weighted_sum(digits, '{10,9,8,7,6,5,4,3,2}') * 10 % 11 % 10 = substr(digits, 10, 1)::integer
    and _pgstack.weighted_sum(digits, '{11,10,9,8,7,6,5,4,3,2}') * 10 % 11 % 10 = substr(digits, 11, 1)::integer;
$$;

comment on function _pgstack.id_br(text) is
'Whether eleven digits are a Brazilian CPF.';

create or replace function _pgstack.id_cn(number text)
returns boolean
language sql immutable strict parallel safe
security invoker
set search_path = pg_catalog, pg_temp
as $$
  select number ~ '^(?:1[1-5]|2[1-3]|3[1-7]|4[1-6]|5[0-4]|6[1-5]|71|8[123])[0-9]{4}(?:19|20)[0-9]{9}[0-9X]$'
    and _pgstack.is_date(
      substr(number, 7, 4)::integer, substr(number, 11, 2)::integer, substr(number, 13, 2)::integer
    )
    and right(number, 1) = substr(
      '10X98765432', _pgstack.weighted_sum(left(number, 17), '{7,9,10,5,8,4,2,1,6,3,7,9,10,5,8,4,2}') % 11 + 1, 1
    );
$$;

comment on function _pgstack.id_cn(text) is
'Whether eighteen characters are a Chinese resident identity number.';

create or replace function _pgstack.id_pl(digits text)
returns boolean
language sql immutable strict parallel safe
security invoker
set search_path = pg_catalog, pg_temp
as $$
  -- The century is in the month: 1800 +80, 1900 +0, 2000 +20, 2100 +40, 2200 +60.
  select _pgstack.is_date(
      (array[1900, 2000, 2100, 2200, 1800])[substr(digits, 3, 1)::integer / 2 + 1] + left(digits, 2)::integer,
      substr(digits, 3, 2)::integer % 20,
      substr(digits, 5, 2)::integer
    )
    and _pgstack.weighted_sum(digits, '{1,3,7,9,1,3,7,9,1,3,1}') % 10 = 0;
$$;

comment on function _pgstack.id_pl(text) is
'Whether eleven digits are a Polish PESEL.';

create or replace function _pgstack.id_se(digits text)
returns boolean
language sql immutable strict parallel safe
security invoker
set search_path = pg_catalog, pg_temp
as $$
  -- A day of 61 to 91 is a number for people who are not registered (samordningsnummer).
  select _pgstack.is_date(
      2000 + left(ten.digits, 2)::integer,
      substr(ten.digits, 3, 2)::integer,
      case when substr(ten.digits, 5, 1) >= '6' then -60 else 0 end + substr(ten.digits, 5, 2)::integer
    )
    and _pgstack.luhn(ten.digits)
  from right(digits, 10) as ten (digits);
$$;

comment on function _pgstack.id_se(text) is
'Whether ten digits, or twelve with the century, are a Swedish personnummer.';

create or replace function _pgstack.id_fi(number text)
returns boolean
language sql immutable strict parallel safe
security invoker
set search_path = pg_catalog, pg_temp
as $$
  select number ~ '^[0-9]{6}[-+A-FU-Y][0-8][0-9]{2}[0-9A-FHJ-NPR-Y]$'
    and _pgstack.is_date(
      2000 + substr(number, 5, 2)::integer, substr(number, 3, 2)::integer, left(number, 2)::integer
    )
    and right(number, 1) = substr(
      '0123456789ABCDEFHJKLMNPRSTUVWXY', (left(number, 6) || substr(number, 8, 3))::integer % 31 + 1, 1
    );
$$;

comment on function _pgstack.id_fi(text) is
'Whether eleven characters are a Finnish henkilötunnus, with its dash.';

create or replace function _pgstack.id_be(digits text)
returns boolean
language sql immutable strict parallel safe
security invoker
set search_path = pg_catalog, pg_temp
as $$
  -- Months may be 00 where the birthday is not known, and 20 or 40 more for visitors.
  select substr(digits, 3, 2)::integer % 20 <= 12 and substr(digits, 5, 2)::integer <= 31
    and right(digits, 2)::integer in (
      97 - left(digits, 9)::bigint % 97,
      case when digits < '3' then 97 - ('2' || left(digits, 9))::bigint % 97 end
    );
$$;

comment on function _pgstack.id_be(text) is
'Whether eleven digits are a Belgian national number.';

-- Which national number this is, NULL for none.  value: as in the text, with ASCII dashes and
-- spaces; words: what stands before it, as _pgstack.pii_context() gives it.
create or replace function _pgstack.national_id(value text, words text)
returns text
language plpgsql immutable strict parallel safe
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _value text := upper(national_id.value);
  _number text := translate(_value, ' -.', '');
  _shape text := translate(
    _value, '0123456789BCDEFGHIJKLMNOPQRSTUVWXYZ', '9999999999AAAAAAAAAAAAAAAAAAAAAAAAA'
  );
  _plain boolean := _shape ~ '^[9 ]+$';
  _type text;
begin
  -- What its shape tells.
  if _shape = '999-99-9999' then
    return case when _pgstack.id_us(_number) then 'national_id_us' end;
  elsif _shape = '999.999.999-99' then
    return case when _pgstack.id_br(_number) then 'national_id_br' end;
  elsif _shape = '99.99.99-999.99' then
    return case when _pgstack.id_be(_number) then 'national_id_be' end;
  elsif _shape in ('756.9999.9999.99', '999.9999.9999.99') then
    return case
      when _number ~ '^756'
        and _pgstack.weighted_sum(_number, '{1,3,1,3,1,3,1,3,1,3,1,3,1}') % 10 = 0
      then 'national_id_ch'
    end;
  elsif _value ~ '^[0-9]{6}[-+A-FU-Y]' and length(_value) = 11 and _pgstack.id_fi(_value) then
    return 'national_id_fi';
  elsif _value ~ '^(?:19|20)?[0-9]{6}[-+][0-9]{4}$' then
    return case
      when _pgstack.id_se(translate(_number, '+', ''))
        and (right(_number, 6) < '600000' or national_id.words like any (_pgstack.pii_words('national_id_se')))
      then 'national_id_se'
    end;
  elsif _shape = '999999-9999999' then
    return case
      when substr(_number, 7, 1) between '1' and '8'
        and _pgstack.is_date(
          case when substr(_number, 7, 1) in ('1', '2', '5', '6') then 1900 else 2000 end
          + left(_number, 2)::integer,
          substr(_number, 3, 2)::integer, substr(_number, 5, 2)::integer
        )
      then 'national_id_kr'
    end;
  elsif length(_number) = 9 and _number ~ '^[A-Z]{2}[0-9]{6}[A-D]$' then
    return case
      when _number !~ '^(?:[DFIQUV]|.[DFIOQUV]|BG|GB|NK|KN|TN|NT|ZZ)'
        -- Without spaces it may be a number of anything.
        and (_value like '% %' or national_id.words like any (_pgstack.pii_words('national_id_gb')))
      then 'national_id_gb'
    end;
  elsif length(_number) = 9 and _pgstack.id_es(_number) then
    return 'national_id_es';
  elsif length(_number) = 16 and _pgstack.id_it(_number) then
    return 'national_id_it';
  elsif length(_number) = 18 and _pgstack.id_cn(_number) then
    return 'national_id_cn';
  elsif length(_number) = 15 and (_shape like '9 99 99 %' or _number ~ '[AB]' or not _plain)
    and _pgstack.id_fr(_number)
  then
    return 'national_id_fr';
  elsif _number !~ '^[0-9]+$' then
    return null;
  end if;
  -- Nothing but digits: a word has to say so.
  foreach _type in array case length(_number)
    when 9 then array['us', 'nl', 'ca']
    when 10 then array['se']
    when 11 then array['de', 'br', 'pl', 'be']
    when 12 then array['in', 'se']
    when 13 then array['ch']
    when 15 then array['fr']
    else '{}'
  end loop
    continue when not national_id.words like any (_pgstack.pii_words('national_id_' || _type));
    if (case _type
      when 'us' then _pgstack.id_us(_number)
      when 'nl' then _number <> '000000000' and _pgstack.weighted_sum(_number, '{9,8,7,6,5,4,3,2,-1}') % 11 = 0
      when 'ca' then left(_number, 1) not in ('0', '8') and _pgstack.luhn(_number)
      when 'se' then _pgstack.id_se(_number)
      when 'de' then _pgstack.id_de(_number)
      when 'br' then _pgstack.id_br(_number)
      when 'pl' then _pgstack.id_pl(_number)
      when 'be' then _pgstack.id_be(_number)
      when 'in' then left(_number, 1) > '1' and _pgstack.verhoeff(_number)
      when 'ch' then
        _number ~ '^756' and _pgstack.weighted_sum(_number, '{1,3,1,3,1,3,1,3,1,3,1,3,1}') % 10 = 0
      when 'fr' then _pgstack.id_fr(_number)
    end) then
      return 'national_id_' || _type;
    end if;
  end loop;
  return null;
end;
$$;

comment on function _pgstack.national_id(text, text) is
'Which national number a stretch of text is, such as national_id_us; NULL for none.
value: the stretch; words: the words before it, for numbers that are nothing but digits.';
