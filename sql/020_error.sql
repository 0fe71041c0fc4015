-- Family: errors.  Small helpers that raise, so that each message stands in one place.

create or replace function _pgstack.unknown_vectorizer(name text)
returns void
language plpgsql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _known text;
begin
  select string_agg(quote_literal(x.name), ', ') into _known
  from (select v.name from ai.vectorizer as v order by v.name limit 10) as x;
  raise exception 'there is no vectorizer "%"', coalesce(unknown_vectorizer.name, 'NULL')
    using errcode = 'PS001',
    hint = coalesce('Known: ' || _known, 'select pgstack.create_vectorizer(''my_table'', ''my_column'');');
end;
$$;

comment on function _pgstack.unknown_vectorizer(text) is
'Raises PS001 and lists the vectorizers that exist.';

create or replace function _pgstack.require(argument text, value anyelement)
returns void
language plpgsql immutable parallel safe
security invoker
set search_path = pg_catalog, pg_temp
as $$
begin
  if require.value is null then
    raise exception '% must not be null', require.argument
      using errcode = 'PS007', hint = format('Pass a value for %s.', require.argument);
  end if;
end;
$$;

comment on function _pgstack.require(text, anyelement) is
'Raises PS007 when an argument that is needed is NULL.';

create or replace function _pgstack.owner()
returns name
language plpgsql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
begin
  return (
    select pg_get_userbyid(c.relowner) from pg_class as c where c.oid = '_pgstack.vectorizer'::regclass
  );
end;
$$;

comment on function _pgstack.owner() is
'The owner of pgstack: the role as which workers run.';

create or replace function _pgstack.check_manager()
returns void
language plpgsql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _owner name := _pgstack.owner();
begin
  if not pg_has_role(_owner, 'usage') then
    raise exception 'only the owner of pgstack may manage vectorizers'
      using errcode = 'PS014', hint = format('set role %I;   -- or ask whoever may', _owner);
  end if;
end;
$$;

comment on function _pgstack.check_manager() is
'Raises PS014 for a role that may not manage vectorizers.';
