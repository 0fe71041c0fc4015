-- Family: personal data.  What numbers look like, and which are right.  Reads and writes nothing.
-- Callers: 225_pii_window.sql.
-- Errors: none.
--
-- A rule finds candidates by their shape; check digits, the rules of countries and the words before
-- them decide (pii_judge).

-- The shape of each kind of number: type; how many digits there are at least; what may stand
-- beside it, or that a word must say what it is; a regular expression.  ASCII spaces and dashes
-- stand for all of their kind, see pii_plain().  Borders are looked at afterwards: as conditions
-- within the expression they take ten times as long.
create or replace function _pgstack.pii_shapes()
returns text[]
language sql immutable parallel safe
security invoker
set search_path = pg_catalog, pg_temp
as $$
  select array[
    array['iban', '5', 'number', '[A-Za-z]{2}[0-9]{2}(?:[ -]?[0-9A-Za-z]){11,30}'],
    array[
      'credit_card', '14', 'number',
      '[2-6][0-9]{3}(?:[ -]?[0-9]{4}){3}(?:[ -]?[0-9]{3})?'
      '|3[47][0-9]{2}[ -]?[0-9]{6}[ -]?[0-9]{5}|3[0689][0-9]{2}[ -]?[0-9]{6}[ -]?[0-9]{4}'
    ],
    array[
      'ip', '1', 'address',
      '(?:0|[1-9][0-9]{0,2})(?:[.](?:0|[1-9][0-9]{0,2})){3}'
      '|(?:[0-9A-Fa-f]{0,4}:){2,7}(?:[0-9A-Fa-f]{1,4}|[0-9]{1,3}(?:[.][0-9]{1,3}){3})?'
    ],
    array['mac', '0', 'address', '[0-9A-Fa-f]{2}(?:(?::[0-9A-Fa-f]{2}){5}|(?:-[0-9A-Fa-f]{2}){5}|(?::[0-9A-Fa-f]{2}){7})'],
    -- us, br, be, ch, se, fi, kr, gb, es, it, cn, fr; in this order.
    array[
      'national_id', '4', 'number',
      '[0-9]{3}-[0-9]{2}-[0-9]{4}|[0-9]{3}[.][0-9]{3}[.][0-9]{3}-[0-9]{2}'
      '|[0-9]{2}[.][0-9]{2}[.][0-9]{2}-[0-9]{3}[.][0-9]{2}|756[.][0-9]{4}[.][0-9]{4}[.][0-9]{2}'
      '|(?:[0-9]{2})?[0-9]{6}[-+][0-9]{4}|[0-9]{6}[-+A-FU-Ya-fu-y][0-9]{3}[0-9A-Za-z]|[0-9]{6}-[0-9]{7}'
      '|[A-Za-z]{2} ?[0-9]{2} ?[0-9]{2} ?[0-9]{2} ?[A-Da-d]'
      '|[0-9]{8}[ -]?[A-Za-z]|[XYZxyz][ -]?[0-9]{7}[ -]?[A-Za-z]'
      '|[A-Za-z]{3} ?[A-Za-z]{3} ?[0-9L-Vl-v]{2}[A-Ta-t][0-9L-Vl-v]{2} ?[A-Za-z][0-9L-Vl-v]{3}[A-Za-z]'
      '|[1-8][0-9]{5} ?(?:19|20)[0-9]{2} ?[0-9]{4} ?[0-9]{3}[0-9Xx]'
      '|[1-478] [0-9]{2} [0-9]{2} (?:[0-9]{2}|2[ABab]) [0-9]{3} [0-9]{3} ?[0-9]{2}|[1-478][0-9]{4}2[ABab][0-9]{8}'
    ],
    array['national_id', '9', 'worded', '[0-9]{1,4}(?:[ .-]?[0-9]{2,4}){2,6}'],
    -- With a country's code; North America; France; Britain, two lines; Germany and its neighbours;
    -- Japan and China; Brazil.
    array[
      'phone', '7', 'number',
      '(?:[+]|00 ?)[(]?[1-9](?:[ ./()-]{0,3}[0-9]){6,14}'
      '|(?:1[ .-])?(?:[(][2-9][0-9]{2}[)] ?|[2-9][0-9]{2}[.-])[2-9][0-9]{2}[ .-][0-9]{4}'
      '|0[1-9](?:[ .-][0-9]{2}){4}'
      '|[(]?02[0-9][)]? [0-9]{4} [0-9]{4}|[(]?0(?:1[0-9]{2,3}|[37][0-9]{2,3})[)]? [0-9]{3} ?[0-9]{3,4}'
      '|[(]?0[1-9][0-9]{1,4}[)]?(?: ?[/-] ?| )[1-9][0-9]{5,8}'
      '|0[1-9]0?-[0-9]{4}-[0-9]{4}|1[3-9][0-9][ -][0-9]{4}[ -][0-9]{4}|0[1-9][0-9]{1,2}-[0-9]{8}'
      '|[(][1-9]{2}[)] ?9?[0-9]{4}-[0-9]{4}'
    ],
    array['phone', '7', 'worded', '[+]?[(]?[0-9](?:[ ./()-]{0,3}[0-9]){6,13}']
  ];
$$;

comment on function _pgstack.pii_shapes() is
'What numbers of persons look like, {type, digits, border, pattern} each.
digits: how many there are at least; border: number, address or worded, a number that needs a word before it; pattern: a regular expression.';

-- How many characters of an IBAN-shaped stretch are one; 0 when its country has none so written.
-- valid: whether the check digits fit.
create or replace function _pgstack.iban_length(value text, out length integer, out valid boolean)
language plpgsql immutable strict parallel safe
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _all text := upper(translate(iban_length.value, ' -', ''));
  _structure text := _pgstack.iban_structure(left(_all, 2));
  _mask text;
  _iban text;
begin
  length := 0;
  valid := false;
  select string_agg(repeat(m.part[2], m.part[1]::integer), '')
  into _mask
  from regexp_matches(_structure, '([0-9]+)([nac])', 'g') as m (part);
  _iban := left(_all, length(_mask) + 4);
  -- c stands for a digit or a letter: _ in LIKE.
  if _mask is null or length(_iban) < length(_mask) + 4
    or translate(
      substr(_iban, 5), '0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ', 'nnnnnnnnnnaaaaaaaaaaaaaaaaaaaaaaaaaa'
    ) not like translate(_mask, 'c', '_')
  then
    return;
  end if;
  length := octet_length(
    substring(iban_length.value from format('^(?:[ -]?[0-9A-Za-z]){%s}', length(_iban)))
  );
  if substr(iban_length.value, length + 1, 1) ~ '[0-9A-Za-z]' then
    length := 0;
    return;
  end if;
  valid := (
    select string_agg(
        case when s.letter between 'A' and 'Z' then (ascii(s.letter) - 55)::text else s.letter end, ''
        order by s.nr
      )::numeric % 97 = 1
    from string_to_table(substr(_iban, 5) || left(_iban, 4), null) with ordinality as s (letter, nr)
  );
end;
$$;

comment on function _pgstack.iban_length(text) is
'How many characters from the start of value are an IBAN, and whether its check digits fit.';

create or replace function _pgstack.is_credit_card(digits text)
returns boolean
language sql immutable strict parallel safe
security invoker
set search_path = pg_catalog, pg_temp
as $$
  select case length(digits)
      when 14 then digits ~ '^3(?:0[0-59]|[689])'
      when 15 then digits ~ '^3[47]'
      when 16 then digits ~ (
        '^(?:4|5[1-5]|222[1-9]|22[3-9]|2[3-6]|27[01]|2720|220[0-4]|6011|64[4-9]|65|62|60|8[12]|508'
        '|35(?:2[89]|[3-8])|5018|5020|5038|5893|6304|6759|676[1-3]|9792)'
      )
      when 19 then digits ~ '^(?:4|6011|64[4-9]|65|62|35(?:2[89]|[3-8])|5018|5020|5038|5893|6304|6759|676[1-3])'
      else false
    end
    and replace(digits, '0', '') <> left(digits, 1)
    and _pgstack.luhn(digits);
$$;

comment on function _pgstack.is_credit_card(text) is
'Whether digits are the number of a card: issuer, length, Luhn''s check.';

create or replace function _pgstack.is_ip(value text)
returns boolean
language plpgsql immutable strict parallel safe
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _groups text[];
  _count integer;
begin
  if position(':' in is_ip.value) = 0 then
    return is_ip.value !~ '(?:[3-9][0-9]{2}|2[6-9][0-9]|25[6-9])'
      -- This machine, no machine, masks, groups: nobody's address.
      and is_ip.value !~ '^(?:0|127|22[4-9]|2[3-5][0-9])[.]';
  end if;
  _groups := string_to_array(is_ip.value, ':');
  _count := cardinality(_groups);
  if position('.' in _groups[_count]) > 0 then
    if _groups[_count] ~ '(?:[3-9][0-9]{2}|2[6-9][0-9]|25[6-9])|[0-9]{4}' then
      return false;
    end if;
    _count := _count + 1;
  end if;
  if position('::' in is_ip.value) = 0 then
    -- Two letters in each of eight groups are a hardware address.
    return _count = 8 and array_position(_groups, '') is null and is_ip.value !~ '^(?:[0-9A-Fa-f]{2}:){7}..$';
  end if;
  return is_ip.value !~ ':::|::.*::|^:[^:]|[^:]:$'
    and _count - case when is_ip.value ~ '^::' then 1 else 0 end - case when is_ip.value ~ '::$' then 1 else 0 end <= 8
    -- Not a::b of a program: a range that is in use, or so many groups that nothing else is meant.
    and (
      is_ip.value ~* '^(?:[23][0-9a-f]{3}|f[cd][0-9a-f]{2}|fe[89ab][0-9a-f]|64:ff9b):' or _count > 4
      or position('.' in is_ip.value) > 0
    )
    and is_ip.value !~* '^(?:::|::1|ff[0-9a-f]{2}:.*)$';
end;
$$;

comment on function _pgstack.is_ip(text) is
'Whether a stretch is an IP address that a machine may have, of version 4 or 6.';

-- A number with the code of its country, without + or 00: the lengths that subscribers' numbers have there.
create or replace function _pgstack.is_international_phone(digits text)
returns boolean
language sql immutable strict parallel safe
security invoker
set search_path = pg_catalog, pg_temp
as $$
  select digits ~ (
    '^(?:(?:290)\d{4,5}|(?:247|500|682)\d{5}|(?:67[678]|688)\d{5,7}|(?:29[89]|672|68[17])\d{6}|(?:597|683|690)\d{6,7}'
    '|(?:686)\d{6,8}|(?:27|40|252|359|376|421|508)\d{6,9}|(?:53|63|82|9[58]|358|685|880)\d{6,10}|(?:352)\d{6,11}'
    '|(?:39)\d{6,12}|(?:43)\d{6,13}|(?:23[89]|24[68]|269|29[17]|501|592|67[349]|680|69[12]|960)\d{7}'
    '|(?:230|241|267|372|507|599|67[05]|961|975)\d{7,8}|(?:4[68]|220|231|254|265|354|423|595|967)\d{7,9}'
    '|(?:243|353)\d{7,10}|(?:49|62|381|882)\d{7,12}'
    '|(?:4[57]|65|216|22[23678]|23[256]|25[37]|26[68]|35[067]|37[0134]|38[269]|50[234569]|59[18]|689|85[23]|96[58]'
    '|97[34]|993)\d{8}'
    '|(?:3[26]|51|66|213|224|25[08]|264|355|377|38[57]|593|855|886|96[23]|97[01])\d{8,9}'
    '|(?:20|57|6[04]|378|85[06]|964|97[67])\d{8,10}|(?:86)\d{8,11}|(?:383|972)\d{8,12}'
    '|(?:3[34]|41|56|61|9[34]|21[128]|221|23[37]|24[02459]|25[156]|26[0123]|351|375|380|420|59[046]|966|99[24568])\d{9}'
    '|(?:44|8[14]|92|881)\d{9,10}|(?:31)\d{9,11}|(?:870)\d{9,12}'
    '|(?:7|30|5[28]|9[01]|22[59]|234)\d{10}|1[2-9]\d{2}[2-9]\d{6}|(?:5[45])\d{10,11})$'
  );
$$;

comment on function _pgstack.is_international_phone(text) is
'Whether digits are the code of a country and a number as long as they are there.';

-- What a candidate is, and how many of its characters: rules find the longest stretch, which may
-- have taken in the number behind it.  type NULL: nothing; '': nothing, and nothing in it either.
create or replace function _pgstack.pii_judge(
  rule text, worded boolean, value text, words text, out type text, out length integer
)
language plpgsql immutable strict parallel safe
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _value text := pii_judge.value;
  -- The word right before, without what may stand between: "order no. is".
  _last text := regexp_replace(
    pii_judge.words, '(?: (?:no|nr|num|number|id|code|is|ist|n|numéro|número|nummer))+ $', ' '
  );
  _digits text;
  _iban record;
begin
  if pii_judge.rule = 'iban' then
    _iban := _pgstack.iban_length(_value);
    type := case when _iban.valid then 'iban' when _iban.length > 0 then '' end;
    length := _iban.length;
    return;
  elsif pii_judge.rule = 'mac' then
    type := case when _value !~ '^(?:00[:-]){5}00$|^(?:[Ff]{2}[:-]){5}[Ff]{2}$' then 'mac' end;
    length := length(_value);
    return;
  elsif pii_judge.rule = 'ip' then
    type := case
      when not _pgstack.is_ip(_value) then null
      when position(':' in _value) > 0 then 'ip'
      when _last like any (_pgstack.pii_words('ip_not')) then null
      when _value ~ '[0-9]{3}' or _value like '10.0.%' or pii_judge.words like any (_pgstack.pii_words('ip')) then 'ip'
    end;
    length := length(_value);
    return;
  elsif _last like any (_pgstack.pii_words('not'))
    or (pii_judge.rule = 'phone' and _value ~ '^00' and _value !~ '^00 ?(?:1|7|[2-9][0-9]{1,2})[ (/-]')
  then
    return;
  end if;
  loop
    _digits := translate(_value, ' -.()/+', '');
    if pii_judge.rule = 'credit_card' then
      type := case when _pgstack.is_credit_card(_digits) then 'credit_card' end;
    elsif pii_judge.rule = 'national_id' then
      type := _pgstack.national_id(_value, pii_judge.words);
    elsif pii_judge.worded then
      -- Not dates, years, decimal numbers.
      type := case
        when _value !~ (
            '^(?:[0-9]{1,2}[./-][0-9]{1,2}[./-](?:[0-9]{2}){1,2}|(?:19|20)[0-9]{2}([./-])[0-9]{2}\1[0-9]{2})(?: |$)'
            '|^[(]?[12][0-9]{3} ?- ?[12][0-9]{3}$|[0-9][.][0-9]+ |^[(][^)]*$|^(?:19|20)[0-9]{2}[.]'
          )
        then 'phone'
      end;
    elsif _value ~ '^(?:[+]|00)' then
      -- +44 (0)20: the 0 is dialled inside the country only.
      _digits := regexp_replace(translate(replace(_value, '(0)', ''), ' -.()/+', ''), '^00', '');
      type := case
        when _pgstack.is_international_phone(_digits) then 'phone'
      end;
    elsif _value !~ '^[(][^)]*$' then
      type := 'phone';
    end if;
    length := length(_value);
    -- The last group may be a number of its own.
    exit when type is not null;
    _value := substring(_value from '^(.*[0-9A-Za-z]) +[^ ]+$');
    exit when _value is null or length(_value) < 7;
  end loop;
end;
$$;

comment on function _pgstack.pii_judge(text, boolean, text, text) is
'Judges a candidate that a rule found: its type, NULL for none, and how many of its characters belong to it.';
