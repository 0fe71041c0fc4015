-- Family: passages.  Where in a document a found chunk stands: page, headings, title, uri.
-- Callers: people, 410_ask.sql, pgstack/search.py.
-- Errors: PS001 unknown collection.
--
-- Asked for the few chunks that a search found, each by its row's key: only parts that touch
-- the chunk are taken out of a document's map.  Markdown that came without a map is read itself.

create or replace function _pgstack.find_collection(name text)
returns regclass
language plpgsql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
begin
  return (
    select t.relation
    from _pgstack.collection_tables() as t
    left join ai.vectorizer as v
      on v.source_schema = 'pgstack_collections' and v.source_table = t.name
    where find_collection.name in (v.name, t.name)
    order by (v.name = find_collection.name) desc nulls last
    limit 1
  );
end;
$$;

comment on function _pgstack.find_collection(text) is
'The table of a collection, found by its name or by its vectorizer''s; NULL when there is none.';

-- Who may write to the table may write anything there: what is no part is left out.
create or replace function _pgstack.passage(
  relation regclass, id jsonb, start_char integer, end_char integer
)
returns table (page integer, last_page integer, headings text[], title text, uri text)
language plpgsql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
begin
  if passage.relation is null then
    return;
  end if;
  return query execute format(
    $sql$
    select
      p.page, p.last_page,
      case
        when d.parts is null and d.media_type in ('text/markdown', 'text/x-markdown')
          then coalesce(pgstack.heading_path(d.content, $2), '{}')
        else array(
          select h.heading
          from jsonb_array_elements_text(p.headings) with ordinality as h (heading, nr) order by h.nr
        )
      end,
      d.title, d.uri
    from %s as d
    cross join lateral (
      select
        min(t.page) as page, max(t.page) as last_page,
        -- Those above most of it: chunks that overlap begin with the end of another section.
        (array_agg(t.headings order by t.shared desc, t.nr) filter (where t.headings <> '[]'))[1]
          as headings
      from (
        select
          (x.part ->> 'page')::integer as page,
          case when jsonb_typeof(x.part -> 'headings') = 'array' then x.part -> 'headings' end as headings,
          least((x.part ->> 'end')::numeric, $3) - greatest((x.part ->> 'start')::numeric, $2) as shared,
          x.nr
        from jsonb_path_query(
          d.parts,
          'strict $[*] ? (
            @.start < $to && @.end > $from
            && (@.page == null || !exists(@.page)
              || @.page >= 0 && @.page <= 2147483647 && @.page.floor() == @.page)
          )',
          jsonb_build_object('from', $2, 'to', $3), silent => true
        ) with ordinality as x (part, nr)
      ) as t
    ) as p
    where d.id = $1
    $sql$,
    passage.relation
  ) using (passage.id ->> 'id')::bigint, passage.start_char, passage.end_char;
exception
  when insufficient_privilege then return;
end;
$$;

comment on function _pgstack.passage(regclass, jsonb, integer, integer) is
'The one row of pgstack.passage(); none where the caller may not see the document, or where there is no collection: NULL.';

create or replace function pgstack.passage(
  collection text, id jsonb, start_char integer, end_char integer
)
returns table (page integer, last_page integer, headings text[], title text, uri text)
language plpgsql stable
security invoker
set search_path = pg_catalog, pg_temp
rows 1
as $$
begin
  return query
  select p.page, p.last_page, p.headings, p.title, p.uri
  from _pgstack.passage(
    coalesce(
      _pgstack.find_collection(passage.collection), _pgstack.collection_table(passage.collection)
    ),
    passage.id, passage.start_char, passage.end_char
  ) as p;
end;
$$;

comment on function pgstack.passage(text, jsonb, integer, integer) is
'Where in its document a chunk of a collection stands: one row, or none where the caller may not see the document.
collection: its name, or its vectorizer''s. id, start_char, end_char: as pgstack.search() returns them.
page, last_page: from 1, NULL where the document has none. headings: those above most of the chunk, the outermost first; empty where none are known. title, uri: the document''s.
Raises PS001 unknown collection.';

create or replace function _pgstack.with_passages(vectorizer text, sources jsonb)
returns jsonb
language plpgsql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _relation regclass := _pgstack.find_collection(
    (_pgstack.vectorizer_plan(with_passages.vectorizer)).name
  );
begin
  if _relation is null then
    return with_passages.sources;
  end if;
  return (
    select coalesce(
      jsonb_agg(
        s.value || coalesce(
          (
            select jsonb_build_object('title', p.title, 'uri', p.uri) || jsonb_strip_nulls(
              jsonb_build_object(
                'page', p.page, 'last_page', p.last_page,
                'headings', to_jsonb(nullif(p.headings, '{}'))
              )
            )
            from _pgstack.passage(
              _relation, s.value -> 'id', (s.value ->> 'start_char')::integer,
              (s.value ->> 'end_char')::integer
            ) as p
          ),
          '{}'
        )
        order by s.nr
      ),
      '[]'
    )
    from jsonb_array_elements(with_passages.sources) with ordinality as s (value, nr)
  );
end;
$$;

comment on function _pgstack.with_passages(text, jsonb) is
'The sources of an answer, each with title, uri, page, last_page and headings where its document has them; as they are where the source is no collection.';
