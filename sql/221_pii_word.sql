-- Family: personal data.  Words that say what a number is.  Reads and writes nothing.
-- Callers: 224_pii_number.sql, 225_pii_window.sql, 226_pii_id.sql.
-- Errors: none.

-- The words that say what a number is, as patterns of LIKE on pii_context().
create or replace function _pgstack.pii_words(type text)
returns text[]
language sql immutable parallel safe
security invoker
set search_path = pg_catalog, pg_temp
as $$
  select case type
    when 'phone' then array[
      '% phone%', '% telephone%', '% tel %', '% fax %', '% telefax %', '% mobile %', '% mobil %', '% cell %',
      '% cellphone %', '% handy %', '% handynummer %', '% call %', '% dial %', '% ring %', '% anruf%', '% rufnummer %',
      '% durchwahl %', '% telefon%', '% whatsapp %', '% sms %', '% text me %', '% hotline %', '% portable %',
      '% téléphone %', '% telephone %', '% téléphoner %', '% appelez %', '% teléfono%', '% telefono%', '% móvil %',
      '% movil %', '% celular %', '% llame %', '% llamar %', '% cellulare %', '% telefoon %', '%电话%', '%手机%',
      '%電話%', '%携帯%', '%联系方式%', '%致电%', '%拨打%', '%传真%', '%전화%'
    ]
    when 'national_id_us' then array['% ssn %', '% social security %', '% ss no %', '% itin %', '% tax id %']
    when 'national_id_nl' then array['% bsn %', '%burgerservicenummer%', '% sofinummer %', '% sofi nummer %']
    when 'national_id_ca' then array['% sin %', '% social insurance %', '% nas %', '%assurance sociale%']
    when 'national_id_de' then array[
      '% steuer id%', '%steueridentifikation%', '%steuer identifikation%', '% steuernummer %', '% idnr %', '% tin %',
      '% steuerid %', '% tax id%', '% tax number %'
    ]
    when 'national_id_br' then array['% cpf %', '%cadastro de pessoa%']
    when 'national_id_pl' then array['% pesel %']
    when 'national_id_be' then array[
      '%rijksregister%', '%registre national%', '% national number %', '% insz %', '% niss %', '%nationalregister%'
    ]
    when 'national_id_in' then array['% aadhaar %', '% aadhar %', '% uidai %', '% uid %', '% आधार %', '%आधार%']
    when 'national_id_se' then array['%personnummer%', '% personnr %', '%samordningsnummer%', '% pnr %']
    when 'national_id_ch' then array['% ahv%', '% avs %', '% oasi %', '%sozialversicherungsn%']
    when 'national_id_fr' then array[
      '% nir %', '%sécurité sociale%', '%securite sociale%', '% insee %', '% numéro de sécu %', '% nss %'
    ]
    when 'ip_not' then array[
      '% version %', '% versions %', '% v %', '% ver %', '% release %', '% rev %', '% revision %', '% section %',
      '% chapter %', '% build %', '% firmware %', '% abschnitt %', '% kapitel %', '% versión %', '% sección %',
      '% oid %', '%版本%'
    ]
    -- Numbers of things.
    when 'not' then array[
      '% order %', '% invoice %', '% isbn %', '% ean %', '% gtin %', '% upc %', '% issn %', '% serial %', '% tracking %',
      '% part no %', '% part number %', '% article %', '% sku %', '% ticket %', '% commande %', '% facture %',
      '% bestellung %', '% bestellnummer %', '% rechnung %', '% rechnungsnummer %', '% artikelnummer %',
      '% seriennummer %', '% sendungsnummer %', '% pedido %', '% factura %', '% doi %', '% cas %', '% pmid %',
      '% timestamp %', '% sha %', '% md %', '% commit %', '%订单%', '%发票%', '%单号%', '%编号%', '% 注文%'
    ]
    -- The words of all that are nothing but digits.
    when 'national_id' then (
      select array_agg(w.word)
      from unnest(array['us', 'nl', 'ca', 'de', 'br', 'pl', 'be', 'in', 'se', 'ch', 'fr']) as c (country)
      cross join unnest(_pgstack.pii_words('national_id_' || c.country)) as w (word)
    )
    else '{}'
  end;
$$;

comment on function _pgstack.pii_words(text) is
'Words that stand before numbers of a type, as patterns of LIKE; ''not'': before numbers of things.';

-- The words before a number, in small letters between single spaces: back to the number before.
create or replace function _pgstack.pii_context(before text)
returns text
language sql immutable strict parallel safe
security invoker
set search_path = pg_catalog, pg_temp
as $$
  select ' ' || regexp_replace(
    lower(regexp_replace(right(before, 48) collate "C", '^.*[0-9]{3}', '')),
    '[\u0001-\u0060\u007b-\u00bf\u2000-\u206f\u3000-\u3003\uff1a]+', ' ', 'g'
  ) || ' ';
$$;

comment on function _pgstack.pii_context(text) is
'What stands before a number, at most 48 characters, as words between spaces.';
