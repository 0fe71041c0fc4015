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
    -- "call" and its like only right before the number.
    when 'phone' then array[
      '% phone%', '% telephone %', '% tel %', '% fax %', '% telefax %', '% mobile %', '% mobil %', '% cellphone %',
      '% handy %', '% handynummer %', '% mobilnummer %', '% rufnummer %', '% durchwahl %', '% telefon%', '% whatsapp %',
      '% sms %', '% hotline %', '% portable %', '% téléphone %', '% appelez %', '% teléfono%', '% móvil %',
      '% movil %', '% celular %', '% llame %', '% llamar %', '% cellulare %', '% telefoon %', '% anrufen %',
      '% contact number %', '% cell ', '% call ', '% dial ', '% ring ', '% text ', '% call me on ', '% call me at ',
      '% call us on ', '% call us at ', '% call him on ', '% call her on ', '% reach me at ', '% reached at ', '% ruf an ',
      '% rufen sie ', '%电话%', '%手机%', '%電話%', '%携帯%', '%联系方式%', '%致电%', '%拨打%', '%传真%', '%전화%'
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
    when 'national_id_gb' then array['% ni %', '% nino %', '% national insurance %']
    -- Before an address with small numbers only, which may be one of a chapter.
    when 'ip' then array[
      '% ip %', '% ips %', '% ipv %', '% address%', '% addr %', '% adresse%', '% host%', '% server%', '% dns %', '% inet %',
      '% ping %', '% gateway %', '% client%', '% login %', '% from %', '% proxy %', '% network %', '% subnet %',
      '% netz %', '% peer %', '% connect%', '% dirección %', '%地址%'
    ]
    when 'ip_not' then array[
      '% version ', '% versions ', '% v ', '% ver ', '% release ', '% rev ', '% revision ', '% section ',
      '% chapter ', '% build ', '% firmware ', '% abschnitt ', '% kapitel ', '% versión ', '% sección ',
      '% oid ', '%版本'
    ]
    -- Numbers of things; the word right before, see pii_judge().
    when 'not' then array[
      '% order ', '% invoice ', '% isbn ', '% ean ', '% gtin ', '% upc ', '% issn ', '% serial ', '% tracking ',
      '% part ', '% article ', '% sku ', '% ticket ', '% commande ', '% facture ',
      '% bestellung ', '% bestellnummer ', '% rechnung ', '% rechnungsnummer ', '% artikelnummer ',
      '% seriennummer ', '% sendungsnummer ', '% pedido ', '% factura ', '% doi ', '% cas ', '% pmid ',
      '% timestamp ', '% sha ', '% md ', '% commit ', '%订单', '%发票', '%单号', '%编号', '% 注文'
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

create or replace function _pgstack.pii_context(before text)
returns text
language sql immutable strict parallel safe
security invoker
set search_path = pg_catalog, pg_temp
as $$
  select regexp_replace(
    ' ' || lower(
      regexp_replace(
        right(before, 48) collate "C",
        -- Nothing from before another number, and no piece of a word.
        case when length(before) > 48 then '^(?:.*[0-9]{3}|[A-Za-z]+)' else '^.*[0-9]{3}' end,
        ''
      )
    ) || ' ',
    '[\u0001-\u0060\u007b-\u00bf\u2000-\u206f\u3000-\u303f\uff00-\uff20]+', ' ', 'g'
  );
$$;

comment on function _pgstack.pii_context(text) is
'What stands before a number, at most 48 characters, in small letters, with one space in place of all that is no letter.';
