-- Family: chunking.  Where sentences end, for the method "sentence".
-- Callers: 202_chunk_levels.sql.
-- Errors: none of its own.
--
-- Rules, no model: a line end and then a stop are looked at in the whole text at once,
-- and each stop again with the word before it and the letter behind.  A missed end costs
-- little, for sentences are joined anyway; a false one cuts a thought.  So where both are
-- possible ("U.S. Army", "... the U.S. Then ...") there is no end.

create or replace function _pgstack.mark_line_ends(input text, mark text)
returns text
language sql immutable strict parallel safe
security invoker
set search_path = pg_catalog, pg_temp
as $$
  -- Wrapped text goes on in the next line.  A line ends a sentence if an empty one follows, if
  -- it is short and no small letter follows, or if what follows looks like an item of a list,
  -- a heading, a quotation or a table.
  select string_agg(
    case
      when l.nr > 1 and l.body <> '' and (
        l.before = ''
        or l.body ~ '^(?:[-*+#>|•‣◦▪–—]|\(?\d{1,3}[.)]\s|\(?[a-zA-Z][.)]\s)'
        or length(l.before) < 40 and l.line !~ '^[[:lower:]\s]'
      ) then mark || l.line
      else l.line
    end,
    E'\n' order by l.nr
  )
  from (
    select
      s.line, s.nr, btrim(s.line, E' \t\r\f\v') as body,
      lag(btrim(s.line, E' \t\r\f\v')) over (order by s.nr) as before
    from string_to_table(input, E'\n') with ordinality as s (line, nr)
  ) as l;
$$;

comment on function _pgstack.mark_line_ends(text, text) is
'A text with a mark before each line that begins a sentence because of where it stands.';

create or replace function _pgstack.mark_sentences(input text, mark text)
returns text
language plpgsql immutable strict parallel safe
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  -- Never at the end of a sentence; with a number behind, the second list neither.
  _words constant text[] := array[
    'mr', 'mrs', 'ms', 'mx', 'dr', 'prof', 'st', 'rev', 'hon', 'gen', 'col', 'lt', 'capt', 'cmdr', 'adm',
    'maj', 'sgt', 'gov', 'sen', 'rep', 'pres', 'messrs', 'mt', 'vs', 'cf', 'viz', 'approx', 'esp', 'incl',
    'resp', 'al', 'eds', 'dept', 'univ', 'hr', 'fr', 'dipl', 'ing', 'bzw', 'ggf', 'evtl', 'vgl', 'inkl',
    'sog', 'mme', 'mlle', 'sra', 'srta', 'sig', 'dott'
  ];
  _numbered constant text[] := array[
    'no', 'nos', 'nr', 'n', 'fig', 'figs', 'vol', 'vols', 'p', 'pp', 's', 'art', 'sec', 'sect', 'ch', 'chap',
    'eq', 'eqs', 'ref', 'refs', 'ca', 'abs', 'kap', 'abb', 'tab', 'jan', 'feb', 'mar', 'apr', 'jun', 'jul',
    'aug', 'sep', 'sept', 'oct', 'nov', 'dec'
  ];
  _marked text := mark_sentences.input;
  _stop text := _pgstack.unused_character(mark_sentences.input, 1);
begin
  if position(E'\n' in (_marked collate "C")) > 0 then
    _marked := _pgstack.mark_line_ends(_marked, mark);
  end if;
  -- Stops of scripts that put no space behind them, and of some that do but abbreviate without.
  if octet_length(_marked) > length(_marked) then
    _marked := regexp_replace(_marked, '[。！？｡．।॥؟۔։።။៕]+["''”’»」』）】》〉)\]]*\s*', '\&' || mark, 'g');
  end if;
  _marked := regexp_replace(_marked, '[.!?…]["''”’»)\]*_]*\s+', '\&' || _stop, 'g');
  if position(_stop in (_marked collate "C")) = 0 then
    return _marked;
  end if;
  return (
    select string_agg(
      p.piece || case
        when p.next is null then ''
        -- "What?" he said.  The firm (founded c. 1900 by ...
        when p.next ~ '^[[:lower:]]' then ''
        when p.word is null then mark  -- it ends with another stop, or several
        when p.word ~ '^(?:[[:upper:]]|(?:[[:alpha:]]\.)+[[:alpha:]])$' and p.word <> 'I' then ''
        when lower(p.word) = any (_words) then ''
        when p.next ~ '^\d' and lower(p.word) = any (_numbered) then ''
        -- Am 5. Mai, im 19. Jahrhundert.
        when p.word ~ '^\d{1,2}$' and p.next ~ '^(?:Jan|Feb|Mär|Apr|Mai|Jun|Jul|Aug|Sep|Okt|Nov|Dez|Jah)' then ''
        -- The number of an item.
        when p.word ~ '^\d{1,3}$' and (p.nr = 1 or starts_with(p.piece, mark)) and length(p.piece) < 12
          and p.piece ~ '^\W*\d+\.\s*$' then ''
        else mark
      end,
      '' order by p.nr
    )
    from (
      select
        s.piece, s.nr,
        ltrim(substring(
          right(s.piece, 40) from '([^\s.!?…"''“‘«(\[{/-](?:[^\s"''“‘«(\[{/-]*[^\s.!?…"''“‘«(\[{/-])?)\.["''”’»)\]*_]*\s+$'
        ), mark) as word,
        lead(ltrim(left(s.piece, 8), '"''“‘«([{*_')) over (order by s.nr) as next
      from string_to_table(_marked, _stop) with ordinality as s (piece, nr)
    ) as p
  );
end;
$$;

comment on function _pgstack.mark_sentences(text, text) is
'A text with a mark behind each sentence but the last.  The white space between two belongs to the first.';
