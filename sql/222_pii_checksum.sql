-- Family: personal data.  Check digits and country rules.  Reads and writes nothing.
-- Callers: 224_pii_number.sql, 226_pii_id.sql.
-- Errors: none; NULL gives NULL.
--
-- Every function takes a number without its spaces, dashes and dots, and tells whether its check
-- digits fit.  bench/_pii_numbers.py makes right numbers by other means, and tests/sql/test_pii.py
-- compares; python-stdnum agreed on 30,000 random ones.

create or replace function _pgstack.luhn(digits text)
returns boolean
language plpgsql immutable strict parallel safe
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _bytes bytea := convert_to(luhn.digits, 'UTF8');
  _last integer := octet_length(_bytes) - 1;
  _digit integer;
  _sum integer := 0;
begin
  for _i in 0 .. _last loop
    _digit := get_byte(_bytes, _last - _i) - 48;
    if _i % 2 = 1 then
      _digit := _digit * 2;
      if _digit > 9 then
        _digit := _digit - 9;
      end if;
    end if;
    _sum := _sum + _digit;
  end loop;
  return _sum % 10 = 0;
end;
$$;

comment on function _pgstack.luhn(text) is
'Luhn''s check: cards, Swedish and Canadian numbers. digits: 0 to 9 only.';

create or replace function _pgstack.verhoeff(digits text)
returns boolean
language plpgsql immutable strict parallel safe
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  -- The multiplication table of the dihedral group D5, and its permutations, row after row.
  _product constant text :=
    '0123456789123406789523401789563401289567401239567859876043216598710432765982104387659321049876543210';
  _permuted constant text := '01234567891576283094580379614289160435279453126870428657390127938064157046913258';
  _last integer := length(verhoeff.digits) - 1;
  _check integer := 0;
  _digit integer;
begin
  for _i in 0 .. _last loop
    _digit := substr(verhoeff.digits, _last - _i + 1, 1)::integer;
    _digit := substr(_permuted, (_i % 8) * 10 + _digit + 1, 1)::integer;
    _check := substr(_product, _check * 10 + _digit + 1, 1)::integer;
  end loop;
  return _check = 0;
end;
$$;

comment on function _pgstack.verhoeff(text) is
'Verhoeff''s check: India''s Aadhaar. digits: 0 to 9 only.';

-- The sum of the digits times their weights, from the left; digits without a weight do not count.
create or replace function _pgstack.weighted_sum(digits text, weights integer[])
returns integer
language sql immutable strict parallel safe
security invoker
set search_path = pg_catalog, pg_temp
as $$
  select sum(substr(digits, w.nr::integer, 1)::integer * w.weight)::integer
  from unnest(weights) with ordinality as w (weight, nr);
$$;

comment on function _pgstack.weighted_sum(text, integer[]) is
'The sum of digits, each times its weight, from the left.';

-- ISO 7064 mod 11,10 with one check digit at the end.
create or replace function _pgstack.mod_11_10(digits text)
returns boolean
language plpgsql immutable strict parallel safe
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _product integer := 10;
  _sum integer;
begin
  for _i in 1 .. length(mod_11_10.digits) - 1 loop
    _sum := (substr(mod_11_10.digits, _i, 1)::integer + _product) % 10;
    _product := (case _sum when 0 then 10 else _sum end * 2) % 11;
  end loop;
  return (_product + right(mod_11_10.digits, 1)::integer) % 10 = 1;
end;
$$;

comment on function _pgstack.mod_11_10(text) is
'The check of ISO 7064 mod 11,10: the German tax number. digits: 0 to 9 only.';

-- A date written as digits: does the calendar have it?
create or replace function _pgstack.is_date(year integer, month integer, day integer)
returns boolean
language sql immutable strict parallel safe
security invoker
set search_path = pg_catalog, pg_temp
as $$
  select month between 1 and 12 and day between 1 and case
    when month in (4, 6, 9, 11) then 30
    when month <> 2 then 31
    when year % 4 = 0 and (year % 100 <> 0 or year % 400 = 0) then 29
    else 28
  end;
$$;

comment on function _pgstack.is_date(integer, integer, integer) is
'Whether the calendar has this day; numbers out of range give false.';

-- What the accounts of a country look like, as the registry of IBANs writes it: n digits, a capital
-- letters, c either.  Release 101 of the registry.
create or replace function _pgstack.iban_structure(country text)
returns text
language sql immutable strict parallel safe
security invoker
set search_path = pg_catalog, pg_temp
as $$
  select substring(
    ' AD8n12c AE19n AL8n16c AT16n AZ4a20c BA16n BE12n BG4a6n8c BH4a14c BI23n BR23n1a1c BY4c4n16c CH5n12c CR18n'
    ' CY8n16c CZ20n DE18n DJ23n DK14n DO4c20n EE16n EG25n ES20n FI14n FK2a12n FO14n FR10n11c2n GB4a14n'
    ' GE2a16n GI4a15c GL14n GR7n16c GT24c HN4a20n HR17n HU24n IE4a14n IL19n IQ4a15n IS22n IT1a10n12c JO4a4n18c'
    ' KW4a22c KZ3n13c LB4n20c LC4a24c LI5n12c LT16n LU3n13c LV4a13c LY21n MC10n11c2n MD20c ME18n MK3n10c2n'
    ' MN16n MR23n MT4a5n18c MU4a19n3a NI4a20n NL4a10n NO11n OM3n16c PK4a16c PL24n PS4a21c PT21n QA4a21c RO4a16c'
    ' RS18n RU14n15c SA2n18c SC4a20n3a SD14n SE20n SI15n SK20n SM1a10n12c SO19n ST21n SV4a20n TL19n TN20n TR6n16c'
    ' UA6n19c VA18n VG4a16n XK16n YE4a4n18c '
    from format(' %s([0-9anc]+) ', country)
  );
$$;

comment on function _pgstack.iban_structure(text) is
'The structure of a country''s account numbers in an IBAN, such as 4a14n for GB; NULL: the country has none.';
