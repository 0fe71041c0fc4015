-- Family: personal data.  Finds and masks what identifies a person.  Reads and writes nothing.
-- Callers: people in psql, the vectorizers' work functions.
-- Errors: PS007 a type that there is none of; with names those of pgstack.generate().
--
--   221 the words before a number     224 what numbers look like      228 e-mail addresses
--   222 check digits                  225 where numbers are
--                                     226 national numbers          229 names, by a model
--
-- What a stretch of text is does not depend on which types are asked for: all are looked for, where
-- two overlap the longer stays, and those that are wanted are returned.

create or replace function pgstack.pii_types()
returns table (type text, meaning text, checked boolean, example text)
language sql immutable parallel safe
security invoker
set search_path = pg_catalog, pg_temp
rows 25
as $$
  values
  ('email', 'e-mail address', false, 'jane.doe+news@example.org'),
  (
    'phone', 'telephone number: international, or national where its form or a word before it tells',
    false, '+44 20 7946 0958'
  ),
  ('iban', 'bank account number', true, 'DE89 3704 0044 0532 0130 00'),
  ('credit_card', 'number of a payment card', true, '4111 1111 1111 1111'),
  ('ip', 'IP address, version 4 or 6, that a machine may have', false, '203.0.113.7'),
  ('mac', 'hardware address of a network device', false, '00:1b:44:11:3a:b7'),
  ('national_id_be', 'Belgian national number', true, '85.07.30-033.28'),
  ('national_id_br', 'Brazilian CPF', true, '390.533.447-05'),
  ('national_id_ca', 'Canadian social insurance number, with a word before it', true, 'SIN 123 456 782'),
  ('national_id_ch', 'Swiss AHV number', true, '756.9217.0769.85'),
  ('national_id_cn', 'Chinese resident identity number', true, '11010519491231002X'),
  ('national_id_de', 'German tax number, with a word before it', true, 'Steuer-ID 36 574 261 809'),
  ('national_id_es', 'Spanish DNI or NIE', true, '54362315K'),
  ('national_id_fi', 'Finnish henkilötunnus', true, '131052-308T'),
  ('national_id_fr', 'French insurance number (NIR)', true, '2 95 10 99 126 111 93'),
  ('national_id_gb', 'British national insurance number', false, 'AB 12 34 56 C'),
  ('national_id_in', 'Indian Aadhaar, with a word before it', true, 'Aadhaar 2341 2341 2346'),
  ('national_id_it', 'Italian codice fiscale', true, 'RCCMNL83S18D969H'),
  ('national_id_kr', 'Korean resident registration number', false, '971013-1019902'),
  ('national_id_nl', 'Dutch BSN, with a word before it', true, 'BSN 111222333'),
  ('national_id_pl', 'Polish PESEL, with a word before it', true, 'PESEL 44051401359'),
  ('national_id_se', 'Swedish personnummer', true, '880320-0016'),
  ('national_id_us', 'US social security number', false, '536-90-4399');
$$;

comment on function pgstack.pii_types() is
'The types of personal data that pgstack.detect_pii() finds.
type: its name; national_id stands for all that begin so. meaning: what it is.
checked: whether check digits back it: a number whose digits do not fit is not reported.
example: one, with the word before it where that is needed.';

create or replace function _pgstack.check_pii_types(types text[])
returns void
language plpgsql immutable parallel safe
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _type text;
begin
  foreach _type in array coalesce(check_pii_types.types, '{}') loop
    continue when _type = 'national_id' or exists (select from pgstack.pii_types() as t where t.type = _type);
    raise exception 'there is no type "%" of personal data', coalesce(_type, 'NULL')
      using errcode = 'PS007', hint = (
        select format('Pass some of: national_id, %s.', string_agg(t.type, ', ' order by t.type))
        from pgstack.pii_types() as t
      );
  end loop;
end;
$$;

comment on function _pgstack.check_pii_types(text[]) is
'Raises PS007 for a type of personal data that there is none of, with a hint that lists those there are.';

create or replace function _pgstack.is_pii_type(type text, types text[])
returns boolean
language sql immutable parallel safe
security invoker
set search_path = pg_catalog, pg_temp
as $$
  select types is null or type = any (types)
    or (type like 'national\_id\_%' and 'national_id' = any (types));
$$;

comment on function _pgstack.is_pii_type(text, text[]) is
'Whether a type is among those asked for; NULL: all are.';

create or replace function _pgstack.pii_hits(input text, types text[])
returns table (type text, start_char integer, end_char integer, start_byte integer, value text)
language plpgsql immutable parallel safe
security invoker
set search_path = pg_catalog, pg_temp
rows 5
as $$
declare
  _input text;
  _hit record;
begin
  if pii_hits.types is not null then
    perform _pgstack.check_pii_types(pii_hits.types);
  end if;
  if pii_hits.input is null then
    return;
  end if;
  _input := pii_hits.input || '';  -- reads a compressed value once only
  end_char := 0;
  for _hit in
    select f.* from _pgstack.pii_emails(_input) as f
    union
    select f.*
    from _pgstack.pii_numbers(_input) as f
    where pii_hits.types is distinct from '{email}'
    order by 2, 3 desc, 1
  loop
    if _hit.start_char >= end_char then
      if type <> '' and _pgstack.is_pii_type(type, pii_hits.types) then
        return next;
      end if;
    elsif _hit.end_char - _hit.start_char <= end_char - start_char then
      continue;
    end if;
    type := _hit.type;
    start_char := _hit.start_char;
    end_char := _hit.end_char;
    start_byte := _hit.start_byte;
    value := _hit.value;
  end loop;
  if type <> '' and _pgstack.is_pii_type(type, pii_hits.types) then
    return next;
  end if;
end;
$$;

comment on function _pgstack.pii_hits(text, text[]) is
'What pgstack.detect_pii() returns, and the byte of UTF-8 where each begins, from 0.';

create or replace function pgstack.detect_pii(input text, types text[] default null)
returns table (type text, start_char integer, end_char integer, value text)
language sql immutable parallel safe
security invoker
set search_path = pg_catalog, pg_temp
rows 5
as $$
  select h.type, h.start_char, h.end_char, h.value from _pgstack.pii_hits(input, types) as h;
$$;

comment on function pgstack.detect_pii(text, text[]) is
'Finds personal data in a text, in order; no model is asked.
input: the text; NULL gives no rows. types: of pgstack.pii_types(), national_id for all of these; NULL: all.
type: what was found. start_char, end_char: where, in characters from 0, end exclusive:
substr(input, start_char + 1, end_char - start_char) is value. None overlap: the longer stays.
Numbers with check digits are reported only if these fit; what is nothing but digits, other than cards,
only with a word before it that says what it is. Raises PS007 unknown type.';

create or replace function _pgstack.pii_label(type text, length integer)
returns text
language sql immutable parallel safe
security invoker
set search_path = pg_catalog, pg_temp
as $$
  select case
    when length is null then format('[%s]', upper(type))
    when length < length(type) + 2 then repeat('*', length)
    else format('[%s]', rpad(upper(type), length - 2, '*'))
  end;
$$;

comment on function _pgstack.pii_label(text, integer) is
'What stands for personal data: [EMAIL]; with a length as long as that, [EMAIL****], or only * where it is too short.';

create or replace function pgstack.mask_pii(
  input text, types text[] default null, keep_length boolean default false
)
returns text
language plpgsql immutable parallel safe
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _bytes bytea;
  _pieces text[];
  _at integer := 0;
  _hit record;
begin
  for _hit in select h.* from _pgstack.pii_hits(mask_pii.input, mask_pii.types) as h loop
    -- Slices of bytes cost the same wherever they lie; substr() on text walks from its start.
    _bytes := coalesce(_bytes, convert_to(mask_pii.input, 'UTF8'));
    _pieces := _pieces
      || convert_from(substring(_bytes from _at + 1 for _hit.start_byte - _at), 'UTF8')
      || _pgstack.pii_label(_hit.type, case when mask_pii.keep_length then length(_hit.value) end);
    _at := _hit.start_byte + octet_length(_hit.value);
  end loop;
  if _bytes is null then
    return mask_pii.input;
  end if;
  return array_to_string(_pieces, '') || convert_from(substring(_bytes from _at + 1), 'UTF8');
end;
$$;

comment on function pgstack.mask_pii(text, text[], boolean) is
'A text with a label in place of each piece of personal data: "write to [EMAIL]"; no model is asked.
input: the text; NULL gives NULL. types: of pgstack.pii_types(), national_id for all of these; NULL: all.
keep_length: true makes a label as long as what it stands for, [EMAIL*******], or only * where that is
too short for it, so that every place in the text stays where it was. Raises PS007 unknown type.';

-- ---------------------------------------------------------------- with names, by a model

create or replace function pgstack.detect_pii(input text, types text[], names_model text)
returns table (type text, start_char integer, end_char integer, value text)
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
rows 5
as $$
declare
  _hit record;
begin
  end_char := 0;
  for _hit in
    select d.type, d.start_char, d.end_char, d.value, false as is_name
    from pgstack.detect_pii(detect_pii.input, array_remove(detect_pii.types, 'name')) as d
    union all
    select 'name', p.start_char, p.end_char, n.name, true
    from unnest(_pgstack.pii_names(detect_pii.input, detect_pii.names_model)) as n (name)
    cross join _pgstack.pii_name_places(detect_pii.input, n.name) as p
    order by 2, 3 desc, 5
  loop
    if _hit.start_char >= end_char then
      if type is not null then
        return next;
      end if;
    elsif type <> 'name' or (_hit.is_name and _hit.end_char - _hit.start_char <= end_char - start_char) then
      -- What checks found goes before what a model takes for a name, and a longer name before a shorter.
      continue;
    end if;
    type := _hit.type;
    start_char := _hit.start_char;
    end_char := _hit.end_char;
    value := _hit.value;
  end loop;
  if type is not null then
    return next;
  end if;
end;
$$;

comment on function pgstack.detect_pii(text, text[], text) is
'Finds personal data in a text, in order, and names of people, which a model finds.
input, types: as for pgstack.detect_pii(input, types); ''name'' may be among the types, names are found in any case.
names_model: a generation model; NULL: the setting generation_model. It reads pieces of 2,000 characters, and every
place of a name it gives is returned, type name. A name that does not stand in the text is dropped. Models miss names,
and a text may persuade one to be silent. Raises PS007 unknown type, and what pgstack.generate() raises.';

create or replace function pgstack.mask_pii(input text, types text[], keep_length boolean, names_model text)
returns text
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _rest text := mask_pii.input;
  _pieces text[] := '{}';
  _at integer := 0;
  _hit record;
begin
  for _hit in select d.* from pgstack.detect_pii(mask_pii.input, mask_pii.types, mask_pii.names_model) as d loop
    _pieces := _pieces || left(_rest, _hit.start_char - _at)
      || _pgstack.pii_label(_hit.type, case when mask_pii.keep_length then length(_hit.value) end);
    _rest := substr(_rest, _hit.end_char - _at + 1);
    _at := _hit.end_char;
  end loop;
  return array_to_string(_pieces, '') || _rest;
end;
$$;

comment on function pgstack.mask_pii(text, text[], boolean, text) is
'A text with a label in place of each piece of personal data and each name of a person that a model finds, [NAME].
input, types, keep_length: as for pgstack.mask_pii(input, types, keep_length). names_model: as for pgstack.detect_pii().
Raises PS007 unknown type, and what pgstack.generate() raises.';
