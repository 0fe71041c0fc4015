-- Family: language.  Which language a text is written in.  Reads and writes nothing.
-- Callers: people in psql; what stores documents.
-- Errors: none.
--
-- First the script: most have one language.  Then words: each that a language knows speaks for it, the more the
-- commoner it is there; each that it does not know speaks against it, a little.  Who wins must win against "no
-- language that we know" as well, and clearly against the second: otherwise the answer is NULL, not a guess.

-- Latin texts, the most, are told by one expression.  Of others, 1,000 characters are counted.
create or replace function _pgstack.text_script(input text)
returns text
language plpgsql immutable strict parallel safe
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  -- The code point where something else begins, and what; '' is no script, or one of those that are left out.
  _starts constant integer[] := '{0,65,91,97,123,192,592,880,1024,1328,1424,1536,1792,2304,2432,2560,2688,2816,2944,
    3072,3200,3328,3456,3584,3712,3840,4096,4256,4352,4608,4992,6016,6144,7680,7936,8192,12352,12544,12592,12688,
    13312,40960,44032,55204,63744,64256,64285,64336,65024,65136,65280,65382,65440,131072,262144}';
  _scripts constant text[] := '{"",Latin,"",Latin,"",Latin,"",Greek,Cyrillic,Armenian,Hebrew,Arabic,"",Devanagari,
    Bengali,Gurmukhi,Gujarati,"",Tamil,Telugu,Kannada,Malayalam,Sinhala,Thai,Lao,"",Burmese,Georgian,Hangul,
    Ethiopic,"",Khmer,"",Latin,Greek,"",Kana,"",Hangul,"",Han,"",Hangul,"",Han,"",Hebrew,Arabic,"",Arabic,"",
    Kana,"",Han,""}';
  _all numeric;
  _best text;
  _most numeric;
  _kana numeric;
  _han numeric;
begin
  if text_script.input !~ '[^\u0001-\u024f\u2000-\u22ff]' then
    return case when text_script.input ~ '[A-Za-z\u00c0-\u024f]' then 'Latin' end;
  end if;
  select
    sum(s.weight), (array_agg(s.script order by s.weight desc))[1], max(s.weight),
    coalesce(sum(s.weight) filter (where s.script = 'Kana'), 0),
    coalesce(sum(s.weight) filter (where s.script = 'Han'), 0)
  into _all, _best, _most, _kana, _han
  from (
    -- A Chinese, Japanese or Korean sign says as much as two or three letters; and all others name things in
    -- Latin letters more often than it happens the other way round.
    select x.script, count(*) * case
      when x.script in ('Han', 'Kana', 'Hangul') then 2.5
      when x.script = 'Latin' then 0.5
      else 1
    end as weight
    from (
      select _scripts[width_bucket(ascii(c.c), _starts)] as script
      from string_to_table(left(text_script.input, 1000), null) as c (c)
    ) as x
    where x.script <> ''
    group by x.script
  ) as s;
  if _best in ('Han', 'Kana') then
    -- Only Japanese is written in kana, and hardly a sentence of it without; Chinese texts quote a little.
    _most := _han + _kana;
    _best := case when _kana > 0.1 * _most then 'Kana' else 'Han' end;
  end if;
  return case when _most > 0.4 * _all then _best end;
end;
$$;

comment on function _pgstack.text_script(text) is
'The script of most letters of a text; Kana stands for Japanese. NULL: no letters, or too mixed.';

create or replace function _pgstack.words_language(input text)
returns text
language plpgsql immutable strict parallel safe
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _profile constant jsonb := _pgstack.language_profile();
  _unknown numeric;
  _best text;
  _score numeric;
  _second numeric;
begin
  with word as materialized (
    -- A word that is repeated says more than one that is not, but not so many times more: it may be a name.
    select w.word, 1 + ln(count(*))::numeric as n
    from regexp_split_to_table(
      lower(words_language.input),
      '[^a-z\u00c0-\u024f\u0300-\u036f\u0400-\u052f\u0900-\u097f\u1e00-\u1eff]+'
    ) as w (word)
    where w.word <> ''
    group by w.word
  ),

  evidence as (
    select w.word, w.n, _profile -> w.word as weights
    from word as w
    union all
    select '', w.n, coalesce(_profile -> ('-' || right(w.word, 4)), _profile -> ('-' || right(w.word, 3)))
    from word as w
    where length(w.word) > 5 and not _profile ? w.word
    union all
    select '', 1 + ln(sum(w.n)), _profile -> ('.' || l.letter)
    from word as w
    cross join regexp_split_to_table(w.word, '[a-z]*') as l (letter)
    where l.letter <> ''
    group by l.letter
  ),

  score as (
    select l.language, sum(e.n * l.weight::numeric) as score
    from evidence as e
    cross join jsonb_each(e.weights) as l (language, weight)
    group by l.language
  )

  select
    (select 0.25 * sum(e.n) from evidence as e where e.word <> '' and e.weights is null),
    (array_agg(s.language order by s.score desc, s.language))[1],
    max(s.score),
    coalesce((array_agg(s.score order by s.score desc))[2], 0)
  into _unknown, _best, _score, _second
  from (
    -- What is written most is likeliest, other things being equal.
    select
      s.language,
      s.score + case when s.language in ('en', 'de', 'fr', 'es', 'it', 'pt', 'ru') then 0.7 else 0 end as score
    from score as s
  ) as s;
  return case when _score - coalesce(_unknown, 0) > 2 and _score - _second > 0.8 then _best end;
end;
$$;

comment on function _pgstack.words_language(text) is
'The language whose words a text has, of those in _pgstack.language_words(); NULL: none, or two that are as likely.';

create or replace function pgstack.detect_language(input text)
returns text
language plpgsql immutable strict parallel safe
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _sample text := left(detect_language.input, 4000);
  _script text := _pgstack.text_script(_sample);
begin
  return case _script
    when 'Latin' then _pgstack.words_language(_sample)
    when 'Cyrillic' then _pgstack.words_language(_sample)
    when 'Devanagari' then _pgstack.words_language(_sample)
    when 'Arabic' then case
      when _sample ~ '[ٹڈڑں]' then 'ur'
      when _sample ~ '[پچژگک]' then 'fa'
      else 'ar' end
    else '{"Greek": "el", "Armenian": "hy", "Hebrew": "he", "Bengali": "bn", "Gurmukhi": "pa", "Gujarati": "gu",
      "Tamil": "ta", "Telugu": "te", "Kannada": "kn", "Malayalam": "ml", "Sinhala": "si", "Thai": "th", "Lao": "lo",
      "Burmese": "my", "Georgian": "ka", "Hangul": "ko", "Ethiopic": "am", "Khmer": "km", "Han": "zh",
      "Kana": "ja"}'::jsonb ->> _script
  end;
end;
$$;

comment on function pgstack.detect_language(text) is
'The language a text is written in, as a code of ISO 639-1, such as ''en''; NULL: not sure.
input: its first 4,000 characters are looked at.
Known by their words: be bg ca cs da de en es et fi fr hi hr hu id is it lt lv mk mr ne nl no pl pt ro ru sk sl sr sv
tr uk vi; by their script: am ar bn el fa gu he hy ja ka km kn ko lo ml my pa si ta te th ur zh.
A few words, names, numbers or code give NULL mostly. Text in a language that is not listed may be taken for a
relative of it. NULL in, NULL out.';
