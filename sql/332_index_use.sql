-- Family: vector indexes in use.  Which index serves a search, and how hard it must try.
-- Callers: 330_index.sql, 338_recall.sql, 408_search.sql: at every search, so a look into
--         the catalogue has to do.
-- Errors: none.

-- A search must order by the very expression that is indexed: r.embedding, or
-- r.embedding::halfvec(384).  An index that PostgreSQL cannot use for that is not ours:
-- other operators than cosine, or a part of the rows only.
create or replace function _pgstack.vector_indexes(plan _pgstack.vectorizer_plan)
returns table (
  index regclass, method text, expression_cast text, valid boolean, options jsonb
)
language plpgsql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _target oid := _pgstack.find_relation(plan.target);
  _column name := plan.embedding_column;
  _cast text := format('(%I)::', plan.embedding_column);
begin
  return query
  select
    i.indexrelid::regclass,
    m.amname::text,
    substr(pg_get_expr(i.indexprs, i.indrelid), length(_cast) + 1),
    i.indisvalid,
    case
      when c.reloptions is null and i.indnkeyatts = 1 then '{}'
      else (
        select coalesce(jsonb_object_agg(o.option_name, o.option_value), '{}')
        from pg_options_to_table(c.reloptions) as o
      ) || coalesce(
        (
          select jsonb_build_object('labels', l.attname)
          from pg_attribute as l where l.attrelid = i.indrelid and l.attnum = i.indkey[1]
        ), '{}'
      )
    end
  from pg_index as i
  join pg_class as c on c.oid = i.indexrelid
  join pg_am as m on m.oid = c.relam and m.amname in ('hnsw', 'diskann', 'ivfflat')
  join pg_opclass as p
    on p.oid = i.indclass[0] and p.opcname in ('vector_cosine_ops', 'halfvec_cosine_ops')
  where i.indrelid = _target and i.indpred is null
    and case
      when i.indkey[0] = 0
        then pg_get_expr(i.indexprs, i.indrelid) ~ 'halfvec\(\d+\)$'
        and starts_with(pg_get_expr(i.indexprs, i.indrelid), _cast)
      else i.indkey[0] = (
        select a.attnum from pg_attribute as a
        where a.attrelid = i.indrelid and a.attname = _column
      )
    end
  -- Two may serve while one replaces the other: the one that stays comes first.
  order by i.indisvalid desc, starts_with(c.relname, '_pgstack_'), i.indexrelid desc;
end;
$$;

comment on function _pgstack.vector_indexes(_pgstack.vectorizer_plan) is
'The vector indexes of a vectorizer, the best to use first: method hnsw, diskann or ivfflat; expression_cast: what the column is cast to in the index, ready for SQL, such as public.halfvec(384), NULL for the bare column; valid: serves searches; options: parameters, and under "labels" the column of a label filter.';

create or replace function _pgstack.vector_index(plan _pgstack.vectorizer_plan)
returns table (
  index regclass, method text, expression_cast text, valid boolean, options jsonb
)
language plpgsql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
begin
  return query
  select x.* from _pgstack.vector_indexes(plan) as x where x.valid limit 1;
end;
$$;

comment on function _pgstack.vector_index(_pgstack.vectorizer_plan) is
'The vector index that serves a vectorizer''s searches: one row of _pgstack.vector_indexes(), none when there is no index to use.';

-- What a search must ask of an index: hnsw.ef_search, or diskann.query_rescore.  As measured
-- by pgstack.recall(), more for more rows than were asked for then.  Unmeasured, the usual 40
-- stands for a recall of .95, and more is asked for more.
create or replace function _pgstack.index_effort(
  index regclass, method text, k integer, target_recall float8
)
returns integer
language plpgsql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _target float8 := coalesce(
    index_effort.target_recall, _pgstack.setting_value('target_recall')::float8
  );
  _nines float8;
  _effort float8;
begin
  select r.effort * greatest(1, index_effort.k::float8 / r.k) into _effort
  from _pgstack.index_recall as r
  where r.index = index_effort.index
  -- The least that reaches the target, or else the most that was tried.
  order by r.recall_low >= _target desc, case when r.recall_low >= _target then r.effort else -r.effort end
  limit 1;
  if not found then
    _nines := -log(greatest(1e-7, 1 - least(1, _target)));
    _effort := greatest(2 * index_effort.k, case index_effort.method when 'diskann' then 50 else 40 end)
      * greatest(1, power(_nines / 1.30103, 2));
  end if;
  return least(1000, greatest(2 * index_effort.k, ceil(_effort)))::integer;
end;
$$;

comment on function _pgstack.index_effort(regclass, text, integer, float8) is
'How hard an index must try to find k rows with a recall of target_recall (0 to 1, NULL: the setting): hnsw.ef_search or diskann.query_rescore, 2 k at least, 1000 at most.';

create or replace function _pgstack.search_effort(
  plan _pgstack.vectorizer_plan, k integer, target_recall float8
)
returns integer
language plpgsql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
begin
  return (
    select _pgstack.index_effort(x.index, x.method, search_effort.k, search_effort.target_recall)
    from _pgstack.vector_index(plan) as x
  );
end;
$$;

comment on function _pgstack.search_effort(_pgstack.vectorizer_plan, integer, float8) is
'_pgstack.index_effort() of the index that serves a vectorizer; NULL when there is none.';

-- For the rest of the transaction, or of the function that pins these settings.
create or replace function _pgstack.set_effort(method text, effort integer)
returns void
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
begin
  case set_effort.method
    when 'hnsw' then
      perform set_config('hnsw.ef_search', set_effort.effort::text, true);
    when 'diskann' then
      perform
        set_config('diskann.query_rescore', set_effort.effort::text, true),
        set_config(
          'diskann.query_search_list_size', greatest(100, set_effort.effort)::text, true
        );
    else null;
  end case;
end;
$$;

comment on function _pgstack.set_effort(text, integer) is
'Makes searches by an index of this method try as hard as _pgstack.search_effort() says.';
