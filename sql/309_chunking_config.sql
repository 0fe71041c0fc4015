-- Family: vectorizers, how one cuts its text and what it masks before.
-- Callers: 310_vectorizer.sql, 314_set_chunking.sql, 320_work.sql, 404_words.sql,
--          415_explain_search.sql, pgstack/vectorizers.py.
-- Errors: PS007 bad argument, and those of pgstack.chunk() and mask_pii().
--
-- What pgai can say itself stays pgai's configuration: both workers then make the same chunks.
-- For the rest, ai.vectorizer.config -> 'chunking' has the implementation "pgstack", which
-- pgai's worker refuses (pydantic: "Input tag 'pgstack' found using 'implementation' does not
-- match any of the expected tags"), so that it never embeds text that was to be masked.
--
-- Masked is the text before it is cut, and each column that stands before the chunks.  Masking
-- keeps lengths, so offsets hold in the source.  What is stored as chunk, embedded, searched by
-- words, put into the prompts of ask() and rerank is masked.  A row is compared by its raw text.

create or replace function _pgstack.check_mask_types(mask_pii text[])
returns void
language plpgsql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _types text[] := check_mask_types.mask_pii;
  _masked text;
begin
  if cardinality(_types) = 0 or array_position(_types, null) is not null
    or 'all' = any (_types) and cardinality(_types) > 1
  then
    raise exception 'mask_pii must name types, or be array[''all'']'
      using errcode = 'PS007', hint = 'mask_pii => array[''email'', ''iban''], or leave it out.';
  end if;
  -- Raises for a type that is none.
  _masked := _pgstack.mask('-', _types);
end;
$$;

comment on function _pgstack.check_mask_types(text[]) is
'Raises PS007 for types that pgstack.mask_pii() does not know. {all}: those it masks by default.';

create or replace function _pgstack.chunking_config(
  method text, size integer, overlap integer, separators text[], is_regex boolean,
  keep_separator text, mask_pii text[]
)
returns jsonb
language plpgsql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
begin
  -- Raises for what cannot be.
  perform from pgstack.chunk('-', method, size, overlap, separators, is_regex, keep_separator);
  perform _pgstack.check_mask_types(mask_pii);
  if mask_pii is null then
    if method = 'none' then
      return ai.chunking_none();
    elsif method = 'character' and coalesce(keep_separator, 'none') = 'none' then
      return ai.chunking_character_text_splitter(
        size, overlap, coalesce(separators[1], E'\n\n'), is_regex
      );
    elsif method = 'recursive' and coalesce(keep_separator, 'start') = 'start' then
      return case when separators is null
        then ai.chunking_recursive_character_text_splitter(
          size, overlap, is_separator_regex => is_regex
        )
        else ai.chunking_recursive_character_text_splitter(size, overlap, separators, is_regex)
      end;
    end if;
  end if;
  return jsonb_strip_nulls(jsonb_build_object(
    'config_type', 'chunking', 'implementation', 'pgstack', 'method', method,
    'chunk_size', size, 'chunk_overlap', overlap, 'separators', to_jsonb(separators),
    'is_separator_regex', is_regex, 'keep_separator', keep_separator, 'mask_pii', to_jsonb(mask_pii)
  ));
end;
$$;

comment on function _pgstack.chunking_config(
  text, integer, integer, text[], boolean, text, text[]
) is
'The chunking configuration for the arguments of pgstack.chunk(), pgai''s own where that can say it. Raises PS007.';

-- The other way round: work_load() and people read it.
do $do$
begin
  perform _pgstack.define_type('chunking', $type$
    method text, size integer, overlap integer, separators text[], is_regex boolean,
    keep_separator text, mask_pii text[]
  $type$);
end;
$do$;

comment on type _pgstack.chunking is
'How a vectorizer cuts: the arguments of pgstack.chunk(), and the types that are masked before, NULL for none.';

create or replace function _pgstack.chunking(config jsonb)
returns _pgstack.chunking
language plpgsql immutable
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _chunking _pgstack.chunking;
begin
  _chunking.method := case config ->> 'implementation'
    when 'pgstack' then config ->> 'method'
    when 'recursive_character_text_splitter' then 'recursive'
    when 'character_text_splitter' then 'character'
    else 'none'
  end;
  _chunking.size := coalesce((config ->> 'chunk_size')::integer, 800);
  _chunking.overlap := coalesce((config ->> 'chunk_overlap')::integer, 400);
  if config ? 'separators' then
    _chunking.separators := array(
      select s.value
      from jsonb_array_elements_text(config -> 'separators') with ordinality as s (value, nr)
      order by s.nr
    );
  elsif config ? 'separator' then
    _chunking.separators := array[config ->> 'separator'];
  end if;
  _chunking.is_regex := coalesce((config ->> 'is_separator_regex')::boolean, false);
  _chunking.keep_separator := config ->> 'keep_separator';
  if config ? 'mask_pii' then
    _chunking.mask_pii := array(select m.value from jsonb_array_elements_text(config -> 'mask_pii') as m);
  end if;
  return _chunking;
end;
$$;

comment on function _pgstack.chunking(jsonb) is
'A chunking configuration, pgai''s or ours, as arguments of pgstack.chunk().';

create or replace function _pgstack.mask(input text, mask_pii text[])
returns text
language plpgsql immutable parallel safe
security invoker
set search_path = pg_catalog, pg_temp
as $$
begin
  if mask.mask_pii is null then
    return mask.input;
  end if;
  return pgstack.mask_pii(mask.input, nullif(mask.mask_pii, array['all']), true);
end;
$$;

comment on function _pgstack.mask(text, text[]) is
'A text as a vectorizer that masks these types takes it: NULL none, {all} those that are masked by default.';

-- Not chunking(): asked for each search, it reads one key.
create or replace function _pgstack.masked(plan _pgstack.vectorizer_plan, expression text)
returns text
language plpgsql immutable
security invoker
set search_path = pg_catalog, pg_temp
as $$
begin
  if not plan.chunking ? 'mask_pii' then
    return expression;
  end if;
  return format(
    'pgstack.mask_pii(%s, %L::text[], true)', expression,
    nullif((_pgstack.chunking(plan.chunking)).mask_pii, array['all'])
  );
end;
$$;

comment on function _pgstack.masked(_pgstack.vectorizer_plan, text) is
'SQL for a text of the source as a vectorizer may show it: masked, where it masks.';
