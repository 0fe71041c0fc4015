-- Family: filters, their columns and values.  Compiles filter jsonb to SQL over source columns.
-- Callers: 403_filter_condition.sql.
-- Errors: PS007 a column or value that cannot be used, PS014 a column the role may not read.
--
-- The condition is typed, k.price operator(pg_catalog.>=) '5'::pg_catalog.numeric, so that
-- the user's indexes and statistics serve.  It is built of quoted names, quoted literals and
-- operators found in the catalogue, each with its schema: no search_path can change it, and
-- citext stays citext.  Literals are tried out before, so that an error names column and value.

do $do$
begin
  perform _pgstack.define_type('filter_column', $type$
    name text,           -- for messages
    reference text,      -- k.price
    type oid,            -- without domains
    type_name text,      -- pg_catalog.int4
    array_type oid,      -- of arrays of it; NULL: there are none
    kind text,           -- array, range, enum, record, jsonb or scalar
    part oid,            -- of an array its elements, of a range its bounds
    label_operator text  -- && of a vector index that holds the column; NULL: none does
  $type$);
end;
$do$;

comment on type _pgstack.filter_column is 'A column that a filter names, and what its values are.';

-- A DiskANN index may hold labels beside the vectors; only an operator of vectorscale's own
-- makes it leave out other rows while it walks.
create or replace function _pgstack.label_operator(source oid, attnum smallint)
returns text
language plpgsql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
begin
  return (
    select format('operator(%I.%s)', n.nspname, o.oprname)
    from pg_index as i
    join pg_class as c on c.oid = i.indexrelid
    join pg_am as m on m.oid = c.relam and m.amname = 'diskann'
    join pg_opclass as p on p.oid = i.indclass[1]
    join pg_amop as a on a.amopfamily = p.opcfamily
    join pg_operator as o on o.oid = a.amopopr and o.oprleft = 'smallint[]'::regtype
    join pg_namespace as n on n.oid = o.oprnamespace
    where i.indrelid = label_operator.source and i.indisvalid
      and i.indnkeyatts = 2 and i.indkey[1] = label_operator.attnum
    limit 1
  );
end;
$$;

comment on function _pgstack.label_operator(oid, smallint) is
'The operator by which a vector index of a table filters labels, ready for SQL; NULL when none holds that column.';

-- A key in double quotes is a column whatever it says: how one called or, and, not is named.
create or replace function _pgstack.filter_column(source oid, name text, alias text)
returns _pgstack.filter_column
language plpgsql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _attribute record;
  _column _pgstack.filter_column;
begin
  select a.attnum, a.attname, a.atttypid into _attribute
  from pg_attribute as a
  where a.attrelid = filter_column.source and a.attnum > 0 and not a.attisdropped
    and a.attname = any (array[filter_column.name, substring(filter_column.name, '^"(.*)"$')])
  order by a.attname <> filter_column.name
  limit 1;
  if not found then
    raise exception 'filter names the column "%", which % does not have',
      filter_column.name, filter_column.source::regclass
      using errcode = 'PS007', hint = _pgstack.filter_columns_hint(filter_column.source);
  elsif not has_column_privilege(filter_column.source, _attribute.attnum, 'select') then
    raise exception 'filter names the column "%" of %, which the role "%" may not read',
      _attribute.attname, filter_column.source::regclass, current_user
      using errcode = 'PS014',
      hint = format('grant select (%I) on %s to %I;',
        _attribute.attname, filter_column.source::regclass, current_user);
  end if;
  _column := _pgstack.filter_type(_attribute.atttypid);
  if _attribute.atttypid = 'smallint[]'::regtype then
    _column.label_operator := _pgstack.label_operator(filter_column.source, _attribute.attnum);
  end if;
  _column.name := _attribute.attname;
  _column.reference := format('%I.%I', filter_column.alias, _attribute.attname);
  if _column.type <> _attribute.atttypid then
    -- A domain over an enum is no anyenum.
    _column.reference := format('%s::%s', _column.reference, _column.type_name);
  end if;
  return _column;
end;
$$;

comment on function _pgstack.filter_column(oid, text, text) is
'The column of a source that a filter names. Raises PS007 when there is none, PS014 when the role may not read it.';

create or replace function _pgstack.filter_columns_hint(source oid)
returns text
language sql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
  select 'Columns: ' || string_agg(x.attname, ', ' order by x.attnum)
    || coalesce(' ... (' || nullif(greatest(max(x.total) - 30, 0), 0) || ' more)', '')
    || '. Around conditions: and, or, not.'
  from (
    select a.attname, a.attnum, count(*) over () as total
    from pg_attribute as a
    where a.attrelid = filter_columns_hint.source and a.attnum > 0 and not a.attisdropped
    order by a.attnum
    limit 30
  ) as x;
$$;

comment on function _pgstack.filter_columns_hint(oid) is
'The columns of a table, for the hint of an error.';

-- A query for each table is faster than a join, and a schema's name needs none.
create or replace function _pgstack.filter_type(type oid)
returns _pgstack.filter_column
language plpgsql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _type record;
  _column _pgstack.filter_column;
begin
  loop
    select
      t.typtype, t.typcategory, t.typbasetype, t.typelem, t.typarray, t.typname,
      t.typnamespace::regnamespace as schema
    into _type
    from pg_type as t where t.oid = filter_type.type;
    exit when _type.typtype <> 'd';
    filter_type.type := _type.typbasetype;
  end loop;
  _column.type := filter_type.type;
  _column.type_name := format('%s.%I', _type.schema, _type.typname);
  _column.array_type := nullif(_type.typarray, 0);
  if _type.typcategory = 'A' then
    _column.kind := 'array';
    _column.part := _type.typelem;
  elsif _type.typtype in ('r', 'm') then
    _column.kind := 'range';
    _column.part := (
      select r.rngsubtype
      from pg_range as r where filter_type.type in (r.rngtypid, r.rngmultitypid)
    );
  else
    _column.kind := case
      when filter_type.type = 'jsonb'::regtype then 'jsonb'
      when _type.typtype = 'e' then 'enum'
      when _type.typtype = 'c' then 'record'
      else 'scalar'
    end;
  end if;
  return _column;
end;
$$;

comment on function _pgstack.filter_type(oid) is
'What a filter must know of a type: a column yet without name and reference.';

-- The common types are answered without asking the catalogue, which takes 70 us.  There the
-- type's own operators are taken, citext's of citext, or those of what it can be read as.
-- Only a superuser makes an operator class, so its operators can be trusted.
create or replace function _pgstack.filter_comparison(field _pgstack.filter_column, strategy integer)
returns text
language plpgsql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _operator text;
begin
  if field.kind = 'array'
    and _pgstack.filter_comparison(_pgstack.filter_type(field.part), 3) is null
  then
    return null;  -- an array of json: its elements cannot be compared
  elsif field.kind in ('array', 'range', 'enum', 'jsonb') or field.type = any (
    '{text,varchar,bpchar,name,bool,int2,int4,int8,numeric,float4,float8,date,time,timetz,
      timestamp,timestamptz,interval,uuid,bytea,inet,oid}'::regtype[]
  ) then
    return (array[
      'operator(pg_catalog.<)', 'operator(pg_catalog.<=)', 'operator(pg_catalog.=)',
      'operator(pg_catalog.>=)', 'operator(pg_catalog.>)'
    ])[filter_comparison.strategy];
  end if;
  select format('operator(%s.%s)', o.oprnamespace::regnamespace, o.oprname) into _operator
  from (
    select field.type, true as own
    union all
    select c.casttarget, false
    from pg_cast as c
    where c.castsource = field.type and c.castmethod = 'b' and c.castcontext = 'i'
    union all
    select 'record'::regtype, false where field.kind = 'record'
  ) as x
  join pg_opclass as y on y.opcintype = x.type and y.opcdefault
  join pg_am as m on m.oid = y.opcmethod and m.amname = 'btree'
  join pg_amop as a on a.amopfamily = y.opcfamily and a.amoplefttype = x.type
    and a.amoprighttype = x.type and a.amopstrategy = filter_comparison.strategy
  join pg_operator as o on o.oid = a.amopopr
  order by x.own desc
  limit 1;
  return _operator;
end;
$$;

comment on function _pgstack.filter_comparison(_pgstack.filter_column, integer) is
'A comparison of a type''s default btree operator class (1 <, 2 <=, 3 =, 4 >=, 5 >), with its schema; NULL: none.';

-- --------------------------------------------------------------------- what goes wrong

create or replace function _pgstack.filter_example(field _pgstack.filter_column)
returns text
language plpgsql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _category "char";
begin
  if field.kind = 'array' then
    return format('[%s]', _pgstack.filter_example(_pgstack.filter_type(field.part)));
  end if;
  select t.typcategory into _category from pg_type as t where t.oid = field.type;
  return case
    when field.kind = 'range' then '"[1,10)"'
    when _category = 'N' then '10'
    when _category = 'B' then 'true'
    when _category = 'T' then '"2 days"'
    when _category = 'D' then case field.type_name
      when 'pg_catalog.date' then '"2026-01-31"'
      when 'pg_catalog.timestamp' then '"2026-01-31 18:00"'
      when 'pg_catalog.timestamptz' then '"2026-01-31 18:00+00"'
      else '"18:00"' end
    when _category = 'E' then (
      select '"' || string_agg(e.enumlabel, '", "' order by e.enumsortorder) || '"'
      from (
        select e.enumlabel, e.enumsortorder from pg_enum as e
        where e.enumtypid = field.type order by e.enumsortorder limit 10
      ) as e
    )
    when field.type = 'uuid'::regtype then '"a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"'
    when field.type = 'bytea'::regtype then E'"\\\\x00ff"'
    else '"text"'
  end;
end;
$$;

comment on function _pgstack.filter_example(_pgstack.filter_column) is
'A value of a type as JSON, for the hint of an error.';

create or replace function _pgstack.filter_misfit(field _pgstack.filter_column, value jsonb, reason text)
returns void
language plpgsql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
begin
  raise exception 'filter: % is not of type %, at the column "%"',
    case when length(value::text) > 80 then left(value::text, 77) || '...' else value::text end,
    format_type(field.type, -1), field.name
    using errcode = 'PS007', detail = coalesce(reason, ''),
    hint = format('Values: %s. Any of several: {"in": [...]}.', _pgstack.filter_example(field));
end;
$$;

comment on function _pgstack.filter_misfit(_pgstack.filter_column, jsonb, text) is
'Raises PS007 for a value that is none of the column''s type.';

create or replace function _pgstack.filter_misuse(field _pgstack.filter_column, operator text)
returns void
language plpgsql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _known text[] := array[
    'eq', 'ne', 'gt', 'gte', 'lt', 'lte', 'in', 'not_in', 'contains', 'overlaps', 'has_key',
    'prefix', 'like', 'ilike'
  ];
begin
  if filter_misuse.operator <> all (_known) then
    raise exception 'filter: "%", at the column "%", is no operator', filter_misuse.operator, field.name
      using errcode = 'PS007',
      hint = format('Operators: %s. To be equal to a JSON object: {"eq": {...}}.', array_to_string(_known, ', '));
  end if;
  raise exception 'filter: % does not work on the column "%", which is %',
    filter_misuse.operator, field.name, format_type(field.type, -1)
    using errcode = 'PS007', hint = case
      when filter_misuse.operator in ('contains', 'overlaps') then 'It works on arrays and ranges; contains on jsonb, too.'
      when filter_misuse.operator = 'has_key' then 'It works on jsonb.'
      when filter_misuse.operator in ('prefix', 'like', 'ilike') then 'It works on text.'
      else 'Its type has no default btree operator class: {"column": null} and {"ne": null} are all it takes.'
    end;
end;
$$;

comment on function _pgstack.filter_misuse(_pgstack.filter_column, text) is
'Raises PS007 for an operator that there is not, or not for the column''s type.';

-- ---------------------------------------------------------------------------- values
-- Backslashes are written E'', for sessions with standard_conforming_strings off.

create or replace function _pgstack.filter_text(value jsonb, type oid)
returns text
language plpgsql immutable
security invoker
set search_path = pg_catalog, pg_temp
as $$
begin
  if filter_text.type in ('jsonb'::regtype, 'json'::regtype) then
    return value::text;
  elsif jsonb_typeof(value) = 'number' then
    -- Programs write 5.0 for 5, which no integer would be.
    return trim_scale(value::numeric)::text;
  end if;
  return value #>> '{}';
end;
$$;

comment on function _pgstack.filter_text(jsonb, oid) is 'A JSON value as text that a type can read.';

create or replace function _pgstack.filter_array(items jsonb, type oid)
returns text
language plpgsql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _is_json boolean := filter_array.type in ('jsonb'::regtype, 'json'::regtype);
  _delimiter text := (select t.typdelim from pg_type as t where t.oid = filter_array.type);
begin
  return (
    select '{' || coalesce(string_agg(
      case
        when i.value = 'null' then 'NULL'
        when not _is_json and jsonb_typeof(i.value) = 'array'
          then _pgstack.filter_array(i.value, filter_array.type)
        when not _is_json and jsonb_typeof(i.value) = 'number' then trim_scale(i.value::numeric)::text
        else '"' || replace(replace(
          case when _is_json then i.value::text else i.value #>> '{}' end, E'\\', E'\\\\'
        ), '"', E'\\"') || '"'
      end, _delimiter order by i.nr
    ), '') || '}'
    from jsonb_array_elements(filter_array.items) with ordinality as i (value, nr)
  );
end;
$$;

comment on function _pgstack.filter_array(jsonb, oid) is
'A JSON array as the text of an array of a type.';

-- Reading an array of one calls the type's own input function, without planning a statement.
create or replace function _pgstack.filter_try(
  field _pgstack.filter_column, value jsonb, type oid, array_text text
)
returns void
language plpgsql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
begin
  perform array_in(textout(filter_try.array_text), filter_try.type, -1);
exception
  when others then
    perform _pgstack.filter_misfit(field, filter_try.value, sqlerrm);
end;
$$;

comment on function _pgstack.filter_try(_pgstack.filter_column, jsonb, oid, text) is
'Raises PS007 when a type cannot read values.';

create or replace function _pgstack.filter_literal(field _pgstack.filter_column, value jsonb)
returns text
language plpgsql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _text text;
begin
  if field.kind = 'array' and jsonb_typeof(value) = 'array' then
    _text := _pgstack.filter_array(value, field.part);
  elsif jsonb_typeof(value) in ('array', 'object') and field.kind <> 'jsonb' then
    perform _pgstack.filter_misfit(field, value, null);
  else
    _text := _pgstack.filter_text(value, field.type);
  end if;
  perform _pgstack.filter_try(
    field, value, field.type, '{"' || replace(replace(_text, E'\\', E'\\\\'), '"', E'\\"') || '"}'
  );
  return format('%L::%s', _text, field.type_name);
end;
$$;

comment on function _pgstack.filter_literal(_pgstack.filter_column, jsonb) is
'A JSON value as an SQL literal of the column''s type. Raises PS007 when it is none.';
