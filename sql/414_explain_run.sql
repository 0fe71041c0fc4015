-- Family: search explained: one run of its statement.  408_search.sql hands a request here
-- that is to be explained; so what is shown is what a search does, settings and second
-- runs included.
-- Callers: 408_search.sql; 415_explain_search.sql reads the notes.
-- Errors: none of ours.
--
-- Notes travel in the variable pgstack.search_runs, a JSON array of one object a run, which
-- lives until pgstack.explain_search() has read it.
--
-- Plans count rows on their way to a condition, those of others under row-level security
-- too.  Of a search under row-level security only what came out is noted.

-- A constant begins at a quote and ends at the next that is not doubled: what looks like a
-- parameter in there is none.
create or replace function _pgstack.filled_statement(statement text, request _pgstack.search_request)
returns text
language plpgsql immutable
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _each tsquery[] := (request.words).query;
begin
  return (
    select string_agg(
      case t.part[1]
        when '$1' then format('%L::@extschema:vector@.vector', request.embedding)
        when '$2' then format('%L::text', request.query)
        when '$3' then format('%L::tsquery', array_to_string(_each, ' | '))
        when '$4' then request.depth::text
        when '$5' then request.rows::text
        when '$6' then format('(%L::tsquery[])', _each)
        else t.part[1]
      end, '' order by t.nr
    )
    from regexp_matches(
      statement, '''(?:[^'']|'''')*''|"(?:[^"]|"")*"|\$\d+|[^''"$]+|\$', 'g'
    ) with ordinality as t (part, nr)
  );
end;
$$;

comment on function _pgstack.filled_statement(text, _pgstack.search_request) is
'A search statement with constants in place of its parameters: it can be run by itself.';

create or replace function _pgstack.search_settings(index_method text)
returns jsonb
language plpgsql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
begin
  return (
    select jsonb_object_agg(s.name, current_setting(s.name, true))
    from (
      select split_part(c.setting, '=', 1)
      from pg_proc as p
      cross join unnest(p.proconfig) as c (setting)
      where p.oid
        = '_pgstack.search_hits(_pgstack.vectorizer_plan, _pgstack.search_request)'::regprocedure
      union
      select n.name
      from unnest(array['diskann.query_rescore', 'diskann.query_search_list_size']) as n (name)
    ) as s (name)
    where s.name = 'jit' or starts_with(s.name, search_settings.index_method || '.')
  );
end;
$$;

comment on function _pgstack.search_settings(text) is
'The settings that a search is run with, as they are now. index_method: of the index it may use.';

create or replace function _pgstack.recall_facts(index regclass, target_recall float8)
returns jsonb
language plpgsql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
begin
  return jsonb_build_object(
    'target', coalesce(target_recall, _pgstack.setting_value('target_recall')::float8),
    'measured', (
      select max(r.recall) from _pgstack.index_recall as r where r.index = recall_facts.index
    )
  );
end;
$$;

comment on function _pgstack.recall_facts(regclass, float8) is
'The recall that an index is asked for, and the best that was measured of it; NULL: none was.';

create or replace function _pgstack.is_guarded(plan _pgstack.vectorizer_plan)
returns boolean
language plpgsql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
begin
  return row_security_active(_pgstack.find_relation(plan.source))
    or row_security_active(_pgstack.find_relation(plan.target))
    or coalesce(
      row_security_active(_pgstack.find_relation(_pgstack.words_table(plan.id))), false
    );
end;
$$;

comment on function _pgstack.is_guarded(_pgstack.vectorizer_plan) is
'Whether row-level security chooses what the caller sees of a vectorizer.';

-- Counts of a plan are averages over its loops.
create or replace function _pgstack.plan_nodes(plan jsonb, mode text)
returns table (
  path integer[], branch text, node jsonb, type text, rows float8, removed float8
)
language plpgsql immutable
security invoker
set search_path = pg_catalog, pg_temp
as $$
begin
  return query
  with recursive n (path, branch, node) as (
    select array[1], nullif(plan_nodes.mode, 'hybrid'), plan_nodes.plan -> 0 -> 'Plan'
    union all
    select
      n.path || c.nr::integer,
      coalesce(
        n.branch,
        case c.node ->> 'Subplan Name'
          when 'CTE vector_hit' then 'vector' when 'CTE text_hit' then 'text'
        end
      ),
      c.node
    from n
    cross join lateral jsonb_array_elements(n.node -> 'Plans') with ordinality as c (node, nr)
  )
  select
    n.path, n.branch, n.node, n.node ->> 'Node Type',
    (n.node ->> 'Actual Rows')::float8 * l.loops,
    (
      coalesce((n.node ->> 'Rows Removed by Filter')::float8, 0)
      + coalesce((n.node ->> 'Rows Removed by Index Recheck')::float8, 0)
    ) * l.loops
  from n
  cross join lateral (select (n.node ->> 'Actual Loops')::float8 as loops) as l;
end;
$$;

comment on function _pgstack.plan_nodes(jsonb, text) is
'The nodes of the plan of a search, in order. branch: vector or text, NULL outside of both; rows: how many came out in all loops; removed: how many its conditions dropped.';

-- The first limit of a branch gives its candidates; below sorts comes what found them.
create or replace function _pgstack.branch_facts(
  plan jsonb, mode text, branch text, guarded boolean
)
returns jsonb
language plpgsql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _facts jsonb;
begin
  with n as materialized (
    select * from _pgstack.plan_nodes(branch_facts.plan, branch_facts.mode) as p
    where p.branch = branch_facts.branch
  ),
  top as (select n.* from n where n.type = 'Limit' order by n.path limit 1),
  -- Words are looked for in a part of their own.
  found as (
    select n.*
    from n
    where n.node ->> 'Subplan Name' = 'CTE found'
      or n.type <> all (array[
        'Limit', 'Sort', 'Incremental Sort', 'Result', 'Subquery Scan', 'WindowAgg', 'Gather', 'Gather Merge'
      ]) and n.path > (select top.path from top)
    order by n.node ->> 'Subplan Name' is not distinct from 'CTE found' desc, n.path
    limit 1
  ),
  scan as (
    select n.*
    from n cross join found as f
    where n.node ? 'Relation Name' and n.node ->> 'Alias' ~ '^[rw](_\d+)?$'
      and n.path[: cardinality(f.path)] = f.path
  )
  select jsonb_build_object(
    'candidates', t.rows::bigint,
    'passed', f.rows::bigint,
    'read', greatest(f.rows, (select sum(s.rows + s.removed) from scan as s))::bigint,
    'indexes', (
      select jsonb_agg(distinct n.node ->> 'Index Name') from n where n.node ? 'Index Name'
    ),
    'scans', (
      select jsonb_agg(distinct format('%s on %s', s.type, s.node ->> 'Relation Name')) from scan as s
    ),
    'walked', (select min(s.node ->> 'Index Name') from scan as s where s.node ? 'Order By'),
    'blocks', (t.node ->> 'Shared Hit Blocks')::bigint + (t.node ->> 'Shared Read Blocks')::bigint,
    'blocks_from_disk', (t.node ->> 'Shared Read Blocks')::bigint,
    'ms', (t.node ->> 'Actual Total Time')::float8
  ) into _facts
  from top as t left join found as f on true;
  return case
    when guarded then _facts - array['passed', 'read', 'blocks', 'blocks_from_disk'] else _facts
  end;
end;
$$;

comment on function _pgstack.branch_facts(jsonb, text, text, boolean) is
'What a plan says of a branch: candidates; read: chunks looked at, of which so many passed joins and conditions; scans: how it read chunks or words; indexes: all it used, walked: the one it followed by distance; blocks: of 8 kB, blocks_from_disk: those not in memory; ms.';

create or replace function _pgstack.run_facts(plan jsonb, mode text, guarded boolean)
returns jsonb
language plpgsql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _vector jsonb := _pgstack.branch_facts(plan, mode, 'vector', guarded);
  _text jsonb := _pgstack.branch_facts(plan, mode, 'text', guarded);
  _fused bigint;
begin
  select n.rows::bigint into _fused
  from _pgstack.plan_nodes(plan, mode) as n
  where n.branch is null and n.node ->> 'Join Type' = 'Full'
  order by n.path
  limit 1;
  return jsonb_strip_nulls(jsonb_build_object(
    'vector', _vector, 'text', _text,
    'fused', _fused,
    'overlap', (_vector ->> 'candidates')::bigint + (_text ->> 'candidates')::bigint - _fused,
    'planning_ms', plan -> 0 -> 'Planning Time', 'execution_ms', plan -> 0 -> 'Execution Time',
    -- Without the digits of vectors.
    'plan', case when not guarded
      then regexp_replace(plan::text, '\[[-+.,e0-9]{100,}\]', '[...]', 'g')::jsonb
    end
  ));
end;
$$;

comment on function _pgstack.run_facts(jsonb, text, boolean) is
'What the plan of a search tells. guarded: leave out what counts rows of others.';

create or replace function _pgstack.explain_run(
  plan _pgstack.vectorizer_plan, request _pgstack.search_request, statement text
)
returns _pgstack.hit[]
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _filled text := format(E'%s\norder by rank', _pgstack.filled_statement(statement, request));
  _note jsonb := jsonb_build_object(
    'request', jsonb_strip_nulls(to_jsonb(request) - array['embedding', 'explained']),
    'settings', _pgstack.search_settings(request.index_method),
    'began', extract(epoch from clock_timestamp())
  );
  _plan jsonb;
  _share float8;
  _hits _pgstack.hit[] := '{}';
begin
  if request.explained = 'sql' then
    _note := _note || jsonb_build_object('statement', _filled);
  else
    request.explained := null;
    _hits := _pgstack.run_search(plan, request);
    _note := _note || jsonb_build_object(
      'ms', 1000 * (extract(epoch from clock_timestamp()) - (_note ->> 'began')::numeric),
      'hits', cardinality(_hits)
    );
    if request.vector_route = 'index' then
      _note := _note || jsonb_build_object(
        'recall', _pgstack.recall_facts(request.index, request.target_recall)
      );
    end if;
    execute format('explain (analyze, buffers, format json) %s', _filled) into _plan;
    if request.mode = 'hybrid' then
      request.explained := 'share';
      execute _pgstack.filled_statement(_pgstack.search_statement(plan, request), request)
      into _share;
    end if;
    _note := _note || _pgstack.run_facts(_plan, request.mode, _pgstack.is_guarded(plan))
      || jsonb_build_object('share', _share, 'ended', extract(epoch from clock_timestamp()));
  end if;
  perform set_config(
    'pgstack.search_runs',
    (coalesce(nullif(current_setting('pgstack.search_runs', true), ''), '[]')::jsonb || _note)::text,
    true
  );
  return _hits;
end;
$$;

comment on function _pgstack.explain_run(_pgstack.vectorizer_plan, _pgstack.search_request, text) is
'Runs the statement of a search like _pgstack.run_search(), and notes in the variable pgstack.search_runs how it went.';
