-- Family: filters, the conditions.  What each operator of a filter becomes in SQL.
-- Callers: 408_search.sql and what builds searches.
-- Errors: those of 402_filter.sql, and PS007 for a filter of the wrong shape.
--
-- A condition may be NULL only where PostgreSQL takes that for false; whatever turns one
-- round says "is not true".  So ne, not_in and not keep rows where the column is NULL.

create or replace function _pgstack.filter_in(field _pgstack.filter_column, items jsonb)
returns text
language plpgsql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _operator text := _pgstack.filter_comparison(field, 3);
  _values jsonb;
  _text text;
  _tests text[] := '{}';
begin
  if _operator is null then
    perform _pgstack.filter_misuse(field, 'in');
  elsif jsonb_typeof(filter_in.items) <> 'array' then
    raise exception 'filter: in and not_in, at the column "%", need a JSON array', field.name
      using errcode = 'PS007', hint = format('{"in": [%s]}', filter_in.items);
  end if;
  if filter_in.items @> '[null]' then
    _tests := array[format('%s is null', field.reference)];
  end if;
  _values := jsonb_path_query_array(filter_in.items, 'strict $[*] ? (@ != null)');
  if _values = '[]' then
    null;
  elsif field.array_type is not null then
    if field.kind <> 'jsonb' and _values @? 'strict $[*] ? (@.type() == "array" || @.type() == "object")' then
      perform _pgstack.filter_misfit(field, _values, null);
    end if;
    _text := _pgstack.filter_array(_values, field.type);
    perform _pgstack.filter_try(field, _values, field.type, _text);
    _tests := _tests || format('%s %s any (%L::%s)', field.reference, _operator, _text, (_pgstack.filter_type(field.array_type)).type_name);
  else
    _tests := _tests || array(
      select format('%s %s %s', field.reference, _operator, _pgstack.filter_literal(field, i.value))
      from jsonb_array_elements(_values) as i
    );
  end if;
  return coalesce('(' || nullif(array_to_string(_tests, ' or '), '') || ')', 'false');
end;
$$;

comment on function _pgstack.filter_in(_pgstack.filter_column, jsonb) is
'The condition that a column is one of several values; null among them means is null.';

create or replace function _pgstack.filter_contains(field _pgstack.filter_column, value jsonb)
returns text
language plpgsql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _part _pgstack.filter_column;
begin
  if field.kind = 'range' then
    _part := _pgstack.filter_type(field.part);
    _part.name := field.name;
    return format(
      '%s operator(pg_catalog.@>) %s', field.reference, _pgstack.filter_literal(_part, value)
    );
  elsif field.kind not in ('array', 'jsonb') then
    perform _pgstack.filter_misuse(field, 'contains');
  elsif field.kind = 'array' and jsonb_typeof(value) <> 'array' then
    perform _pgstack.filter_misfit(field, value, null);
  end if;
  return format('%s operator(pg_catalog.@>) %s', field.reference, _pgstack.filter_literal(field, value));
end;
$$;

comment on function _pgstack.filter_contains(_pgstack.filter_column, jsonb) is
'The condition that an array has elements, a range an element, or a JSON value a part.';

-- An operator can be made by anybody: only one beside the type, of the same owner, is the type's.
create or replace function _pgstack.filter_like(field _pgstack.filter_column, operator text, value jsonb)
returns text
language plpgsql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _operator text;
  _pattern text := value #>> '{}';
begin
  select format('operator(%s.%s)', o.oprnamespace::regnamespace, o.oprname) into _operator
  from pg_type as t
  join pg_operator as o
    on o.oprname = case filter_like.operator when 'ilike' then '~~*' else '~~' end
    and o.oprleft = case t.oid when 'varchar'::regtype then 'text'::regtype else t.oid end
    and o.oprright = 'text'::regtype and o.oprnamespace = t.typnamespace and o.oprowner = t.typowner
  where t.oid = field.type;
  if not found then
    perform _pgstack.filter_misuse(field, filter_like.operator);
  elsif jsonb_typeof(value) <> 'string' then
    perform _pgstack.filter_misfit(field, value, null);
  elsif filter_like.operator = 'prefix' then
    _pattern := regexp_replace(_pattern, E'([\\\\%_])', E'\\\\\\1', 'g') || '%';
  elsif _pattern ~ E'(^|[^\\\\])(\\\\\\\\)*\\\\$' then
    perform _pgstack.filter_misfit(field, value, 'A pattern must not end with a single backslash.');
  end if;
  return format('%s %s %L::pg_catalog.text', field.reference, _operator, _pattern);
end;
$$;

comment on function _pgstack.filter_like(_pgstack.filter_column, text, jsonb) is
'The condition that a text matches a pattern, or begins with a text.';

create or replace function _pgstack.filter_test(field _pgstack.filter_column, operator text, value jsonb)
returns text
language plpgsql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _strategy integer := case filter_test.operator
    when 'lt' then 1 when 'lte' then 2 when 'eq' then 3 when 'gte' then 4 when 'gt' then 5
  end;
  _operator text;
begin
  if filter_test.operator = 'ne' and value = 'null' then
    return format('%s is not null', field.reference);
  elsif filter_test.operator = 'ne' then
    return format('(%s) is not true', _pgstack.filter_test(field, 'eq', value));
  elsif filter_test.operator = 'not_in' then
    return format('(%s) is not true', _pgstack.filter_in(field, value));
  elsif filter_test.operator = 'in' then
    return _pgstack.filter_in(field, value);
  elsif value = 'null' then
    if filter_test.operator = 'eq' then
      return format('%s is null', field.reference);
    end if;
    perform _pgstack.filter_misfit(field, value, format('%s needs a value.', filter_test.operator));
  elsif _strategy is not null then
    _operator := _pgstack.filter_comparison(field, _strategy);
    if _operator is not null then
      return format('%s %s %s', field.reference, _operator, _pgstack.filter_literal(field, value));
    end if;
  elsif filter_test.operator = 'contains' then
    return _pgstack.filter_contains(field, value);
  elsif filter_test.operator = 'overlaps' and field.kind in ('array', 'range') then
    return format(
      '%s %s %s', field.reference, coalesce(field.label_operator, 'operator(pg_catalog.&&)'),
      _pgstack.filter_literal(field, value)
    );
  elsif filter_test.operator = 'has_key' and field.kind = 'jsonb' then
    return format('%s operator(pg_catalog.?) %L::pg_catalog.text', field.reference, value #>> '{}');
  elsif filter_test.operator in ('prefix', 'like', 'ilike') then
    return _pgstack.filter_like(field, filter_test.operator, value);
  end if;
  perform _pgstack.filter_misuse(field, filter_test.operator);
end;
$$;

comment on function _pgstack.filter_test(_pgstack.filter_column, text, jsonb) is
'One operator of a filter as an SQL condition.';

create or replace function _pgstack.filter_tests(source oid, filter jsonb, alias text)
returns text
language plpgsql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _key text;
  _value jsonb;
  _column _pgstack.filter_column;
  _tests text[] := '{}';
begin
  if jsonb_typeof(filter_tests.filter) <> 'object' then
    raise exception 'filter must be a JSON object, not %', jsonb_typeof(filter_tests.filter)
      using errcode = 'PS007', hint = 'filter => ''{"status": "open"}''';
  end if;
  for _key, _value in select e.key, e.value from jsonb_each(filter_tests.filter) as e
  loop
    if _key in ('and', 'or') then
      _tests := _tests || _pgstack.filter_group(filter_tests.source, _key, _value, filter_tests.alias);
    elsif _key = 'not' then
      _tests := _tests
        || format('(%s) is not true', _pgstack.filter_tests(filter_tests.source, _value, filter_tests.alias));
    else
      _column := _pgstack.filter_column(filter_tests.source, _key, filter_tests.alias);
      if jsonb_typeof(_value) <> 'object' then
        _tests := _tests || _pgstack.filter_test(_column, 'eq', _value);
      elsif _value = '{}' then
        perform _pgstack.filter_misuse(_column, '');
      else
        for _key, _value in select e.key, e.value from jsonb_each(_value) as e
        loop
          _tests := _tests || _pgstack.filter_test(_column, _key, _value);
        end loop;
      end if;
    end if;
  end loop;
  return coalesce(nullif(array_to_string(_tests, ' and '), ''), 'true');
end;
$$;

comment on function _pgstack.filter_tests(oid, jsonb, text) is
'An object of a filter as an SQL condition: all of its members hold.';

create or replace function _pgstack.filter_group(source oid, word text, items jsonb, alias text)
returns text
language plpgsql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _item jsonb;
  _tests text[] := '{}';
begin
  if jsonb_typeof(filter_group.items) <> 'array' then
    raise exception 'filter: "%" needs a JSON array of conditions', filter_group.word
      using errcode = 'PS007',
      hint = format(E'{"%1$s": [{"status": "open"}, ...]}. A column of that name: {"\\"%1$s\\"": ...}', filter_group.word);
  end if;
  for _item in select i.value from jsonb_array_elements(filter_group.items) as i
  loop
    _tests := _tests || format(
      '(%s)', _pgstack.filter_tests(filter_group.source, _item, filter_group.alias)
    );
  end loop;
  if _tests = '{}' then
    return (filter_group.word = 'and')::text;
  end if;
  return format('(%s)', array_to_string(_tests, format(' %s ', filter_group.word)));
end;
$$;

comment on function _pgstack.filter_group(oid, text, jsonb, text) is
'The conditions of "and" or "or" as one.';

create or replace function _pgstack.filter_condition(
  plan _pgstack.vectorizer_plan, filter jsonb, alias text default 'k'
)
returns text
language plpgsql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
begin
  if coalesce(filter_condition.filter, '{}') = '{}' then
    return 'true';
  elsif pg_column_size(filter_condition.filter) > 1000000 then
    raise exception 'filter is too big: % bytes', pg_column_size(filter_condition.filter)
      using errcode = 'PS007', hint = 'At most 1 MB. Put the values in a column of the source, and filter by it.';
  elsif filter_condition.filter @? '$.**{65}' then
    raise exception 'filter is nested too deeply'
      using errcode = 'PS007', hint = 'At most 64 levels of JSON.';
  end if;
  return _pgstack.filter_tests(
    plan.source::regclass, filter_condition.filter, filter_condition.alias
  );
end;
$$;

comment on function _pgstack.filter_condition(_pgstack.vectorizer_plan, jsonb, text) is
'A filter as an SQL condition over a row of the source, by its alias. Raises PS007 and PS014.';
