-- Family: templates.  Fills "$name" in the text that is embedded for a chunk.
-- Reads and writes nothing.
-- Callers: the vectorizers' work functions; pgstack.create_vectorizer checks with it.
-- Errors: PS007 malformed template, unknown name.
--
-- The rules are those of Python's string.Template.substitute(), which pgai uses:
-- $name, ${name}, $$ for a dollar sign; names [_a-zA-Z][_a-zA-Z0-9]*.

-- literal, name, literal, name, ..., literal: always an odd number of elements.
create or replace function _pgstack.template_tokens(template text)
returns text[]
language plpgsql immutable strict parallel safe
security invoker
set search_path = pg_catalog, pg_temp
as $body$
declare
  _pieces text[] := string_to_array(template_tokens.template collate "C", '$');
  _tokens text[] := '{}';
  _literal text := coalesce(_pieces[1], '');
  _piece text;
  _name text;
  _n integer := 2;
begin
  while _n <= cardinality(_pieces) loop
    _piece := _pieces[_n];
    if _piece = '' and _n < cardinality(_pieces) then
      -- $$: the piece after the second dollar sign is plain text.
      _n := _n + 1;
      _literal := _literal || '$' || _pieces[_n];
    else
      _name := substring(_piece from '^(?:[_a-zA-Z][_a-zA-Z0-9]*|\{[_a-zA-Z][_a-zA-Z0-9]*\})');
      if _name is null then
        raise exception 'the template has a $ that begins no name: "$%"', left(_piece, 20)
          using errcode = 'PS007', hint = 'Write $name or ${name}, and $$ for a dollar sign.';
      end if;
      _tokens := _tokens || _literal || btrim(_name, '{}');
      _literal := substr(_piece, length(_name) + 1);
    end if;
    _n := _n + 1;
  end loop;
  return _tokens || _literal;
end;
$body$;

comment on function _pgstack.template_tokens(text) is
'A template cut into literal, name, literal, name, ..., literal. Raises PS007 for a $ that begins no name.';

create or replace function _pgstack.unknown_placeholder(name text, columns text[])
returns void
language plpgsql immutable parallel safe
security invoker
set search_path = pg_catalog, pg_temp
as $body$
declare
  _names text;
begin
  select string_agg('$' || c.name, ', ' order by c.nr) into _names
  from unnest(array['chunk'] || unknown_placeholder.columns) with ordinality as c (name, nr);
  raise exception 'the template names $%, which is no column', unknown_placeholder.name
    using errcode = 'PS007', hint = format('Use any of: %s; and $$ for a dollar sign.', _names);
end;
$body$;

comment on function _pgstack.unknown_placeholder(text, text[]) is
'Raises PS007 and lists the names that a template may use.';

create or replace function _pgstack.fill_template(template text, chunk text, vars jsonb)
returns text
language plpgsql immutable parallel safe
security invoker
set search_path = pg_catalog, pg_temp
as $body$
declare
  _tokens text[];
  _filled text;
  _name text;
begin
  if fill_template.template = '$chunk' then
    return coalesce(fill_template.chunk, '');
  end if;
  _tokens := _pgstack.template_tokens(fill_template.template);
  _filled := _tokens[1];
  for _n in 2..cardinality(_tokens) by 2 loop
    _name := _tokens[_n];
    if _name = 'chunk' then
      _filled := _filled || coalesce(fill_template.chunk, '');
    elsif fill_template.vars ? _name then
      _filled := _filled || coalesce(fill_template.vars ->> _name, '');
    else
      perform _pgstack.unknown_placeholder(
        _name,
        case when jsonb_typeof(fill_template.vars) = 'object'
          then array(select k.name from jsonb_object_keys(fill_template.vars) as k (name)) end
      );
    end if;
    _filled := _filled || _tokens[_n + 1];
  end loop;
  return _filled;
end;
$body$;

comment on function _pgstack.fill_template(text, text, jsonb) is
'The text to embed for a chunk: the template with $chunk and the columns of vars (an object) filled in. A value is never
looked into for further names; NULL is ''''. Raises PS007 for a name that vars does not have and a $ that begins no name.';

create or replace function _pgstack.template_columns(template text)
returns text[]
language sql immutable strict parallel safe
security invoker
set search_path = pg_catalog, pg_temp
as $body$
  select coalesce(array_agg(n.name order by n.nr), '{}')
  from (
    select t.token as name, min(t.nr) as nr
    from unnest(_pgstack.template_tokens(template)) with ordinality as t (token, nr)
    where t.nr % 2 = 0 and t.token <> 'chunk'
    group by t.token
  ) as n;
$body$;

comment on function _pgstack.template_columns(text) is
'The columns that a template names, in order, each once, without chunk. Raises PS007 for a malformed template.';

create or replace function _pgstack.check_template(template text, columns text[])
returns void
language plpgsql immutable parallel safe
security invoker
set search_path = pg_catalog, pg_temp
as $body$
declare
  _tokens text[];
  _unknown text;
begin
  if check_template.template is null then
    raise exception 'the template must not be null'
      using errcode = 'PS007', hint = 'Pass ''$chunk'', or leave template out.';
  end if;
  _tokens := _pgstack.template_tokens(check_template.template);
  if not exists (
    select from unnest(_tokens) with ordinality as t (token, nr)
    where t.nr % 2 = 0 and t.token = 'chunk'
  ) then
    raise exception 'the template does not name $chunk'
      using errcode = 'PS007', hint = 'Put $chunk where the chunk''s text is to stand.';
  end if;
  if 'chunk' = any (check_template.columns) and cardinality(_tokens) > 3 then
    raise exception 'the source has a column named "chunk", so $chunk has two meanings'
      using errcode = 'PS007', hint = 'Rename the column, or use the template ''$chunk'' alone.';
  end if;
  select c.name into _unknown
  from unnest(_pgstack.template_columns(check_template.template)) as c (name)
  where c.name <> all (coalesce(check_template.columns, '{}'))
  limit 1;
  if found then
    perform _pgstack.unknown_placeholder(_unknown, check_template.columns);
  end if;
end;
$body$;

comment on function _pgstack.check_template(text, text[]) is
'Raises PS007 unless a template is well formed, names $chunk, and otherwise names only the given columns.';
