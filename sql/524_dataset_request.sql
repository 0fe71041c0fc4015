-- Family: data sets, asked for in SQL.  Reads and writes _pgstack.load_request.
-- Callers: people; pgstack/worker/dataset.py and dataset_load.py.
-- Errors: PS001 unknown request, PS007 bad argument, PS011 source not allowed, PS012 name taken,
--         PS014 not the owner of pgstack.
--
-- The worker reads files and URLs that a session could not reach, so three things stand in the
-- way: only the owner of pgstack may ask; the setting dataset_sources, for the whole database
-- only, must list what is read, and it is looked at again when the worker reads; and what is
-- written is a new table, by the rights of the owner of pgstack, so that nobody's trigger runs.
-- A request is leased by the worker's id, as long as that worker shows signs of life.

create or replace function _pgstack.check_dataset_source(source text)
returns void
language plpgsql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
begin
  -- No way up from a prefix, however it is written.
  if check_dataset_source.source ~* '(^|[/\\])(\.|%2e){2}([/\\?#]|$)|[/\\](\.|%2e){1,2}%2f|%5c|\\|[[:cntrl:]]'
    or not exists (
      select from string_to_table(_pgstack.setting_value('dataset_sources'), ',') as s (prefix)
      cross join lateral btrim(s.prefix) as p (prefix)
      where p.prefix ~ '^(/|https?://[^/]+/|(s3|gs|az)://[^/]+/)(.*/)?$'
        and starts_with(check_dataset_source.source, p.prefix)
    )
  then
    raise exception 'the worker may not read %', regexp_replace(check_dataset_source.source, '[?#].*', '')
      using errcode = 'PS011',
      hint = 'select pgstack.configure(''dataset_sources'', ''https://example.com/data/, /srv/data/'');   -- each ends in /';
  end if;
end;
$$;

comment on function _pgstack.check_dataset_source(text) is
'Raises PS011 for a file or URL that the setting dataset_sources does not allow.';

create or replace function _pgstack.check_dataset_options(options jsonb)
returns void
language plpgsql immutable
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _bad text;
begin
  if jsonb_typeof(check_dataset_options.options) is distinct from 'object' then
    raise exception 'options must be an object'
      using errcode = 'PS007', hint = 'options => ''{"generated_key": true}''';
  end if;
  select o.key into _bad
  from jsonb_each(check_dataset_options.options) as o
  left join (
    values
      ('format', 'string'), ('delimiter', 'string'), ('quote', 'string'), ('header', 'boolean'),
      ('null', 'array'), ('encoding', 'string'), ('types', 'object'), ('columns', 'object'),
      ('key', 'array'), ('generated_key', 'boolean'), ('max_rejects', 'number')
  ) as k (key, type) on k.key = o.key and k.type = jsonb_typeof(o.value)
  left join lateral jsonb_path_query(o.value, '$.* ? (@.type() <> "string")') as v on k.type = 'object'
  left join lateral jsonb_path_query(o.value, '$[*] ? (@.type() <> "string")') as a on k.type = 'array'
  where k.key is null or v is not null or a is not null
    or (k.type = 'number' and o.value #>> '{}' !~ '^\d{1,9}$')
  limit 1;
  if found then
    raise exception 'options cannot have % = %', _bad, check_dataset_options.options -> _bad
      using errcode = 'PS007',
      hint = 'format, delimiter, quote, encoding: text; header, generated_key: true or false; null, key: arrays of text; '
        'types, columns: objects of text; max_rejects: a number.';
  end if;
end;
$$;

comment on function _pgstack.check_dataset_options(jsonb) is
'Raises PS007 for options that pgstack.load_dataset() does not have.';

create or replace function pgstack.load_dataset(source text, target text, options jsonb default '{}')
returns bigint
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _id bigint;
  _parts integer;
begin
  perform
    _pgstack.check_manager(),
    _pgstack.require('source', load_dataset.source),
    _pgstack.require('target', load_dataset.target);
  perform
    _pgstack.check_dataset_source(load_dataset.source),
    _pgstack.check_dataset_options(load_dataset.options);
  begin
    _parts := cardinality(parse_ident(load_dataset.target));
  exception
    when invalid_parameter_value then
      _parts := 0;
  end;
  if _parts <> 2 then
    raise exception 'target must name schema and table, not %', load_dataset.target
      using errcode = 'PS007', hint = 'target => ''shop.sales'', each name as SQL writes it.';
  elsif to_regclass(load_dataset.target) is not null and not exists (
    select from _pgstack.load_request as r
    where r.source = load_dataset.source and r.target = load_dataset.target and r.state = 'failed'
  ) then
    raise exception 'the table % exists already', load_dataset.target
      using errcode = 'PS012', hint = 'Name another. pgstack dataset load has --append and --replace.';
  end if;
  insert into _pgstack.load_request (source, target, options)
  values (load_dataset.source, load_dataset.target, load_dataset.options)
  returning id into _id;
  perform pg_notify('pgstack_dataset', '');
  return _id;
end;
$$;

comment on function pgstack.load_dataset(text, text, jsonb) is
'Has the worker load a CSV, JSON lines or Parquet file into a new table, which then belongs to the owner of pgstack. Returns the number of the request: see pgstack.dataset_requests.
source: a URL, or the absolute path of a file on the worker''s machine, below an entry of the setting dataset_sources. target: schema.table, as SQL writes it.
options: an object of format, delimiter, quote, header, null, encoding, types, columns, key, generated_key, max_rejects, as pgstack dataset load has them.
The worker goes on where another one was killed; a load that failed goes on when it is asked for again with the same arguments but max_rejects.
Raises PS007 bad argument, PS011 source not allowed, PS012 the table exists, PS014 not the owner of pgstack.';

create or replace function _pgstack.load_claim(worker uuid)
returns bigint
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _id bigint;
begin
  update _pgstack.load_request as r
  set state = 'failed', error = 'the loader ended three times without a word', finished_at = clock_timestamp()
  where r.state = 'loading' and r.attempts >= 3 and r.worker <> all (_pgstack.lease_holders());
  update _pgstack.load_request as r
  set state = 'loading', worker = load_claim.worker, attempts = r.attempts + 1
  where r.id = (
    select o.id from _pgstack.load_request as o
    where o.state = 'requested'
      or o.state = 'loading' and o.worker <> all (_pgstack.lease_holders())
    order by o.id
    limit 1
    for update skip locked
  )
  returning r.id into _id;
  return _id;
end;
$$;

comment on function _pgstack.load_claim(uuid) is
'Leases the next request to a worker; returns its number, or NULL.';

-- A worker that is told to stop is no failure of the file.
create or replace function _pgstack.load_release(request bigint, worker uuid)
returns void
language sql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
  update _pgstack.load_request as r
  set state = 'requested', worker = null, attempts = greatest(r.attempts - 1, 0)
  where r.id = load_release.request and r.worker = load_release.worker and r.state = 'loading';
$$;

comment on function _pgstack.load_release(bigint, uuid) is
'Gives a request back that a worker had begun.';

create or replace function _pgstack.load_open(request bigint)
returns table (source text, target text, options jsonb, owner text)
language sql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
  select r.source, r.target, r.options, pg_get_userbyid(c.relowner)::text
  from _pgstack.load_request as r
  cross join pg_class as c
  where r.id = load_open.request and r.state = 'loading' and c.oid = '_pgstack.vectorizer'::regclass;
$$;

comment on function _pgstack.load_open(bigint) is
'What a leased request asks for, and the role that is to do it.';

create or replace function _pgstack.load_end(request bigint, load bigint, error text)
returns void
language sql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
  update _pgstack.load_request as r
  set state = case when load_end.error is null then 'done' else 'failed' end,
    load_id = load_end.load, error = load_end.error, worker = null,
    finished_at = clock_timestamp()
  where r.id = load_end.request and r.state = 'loading';
$$;

comment on function _pgstack.load_end(bigint, bigint, text) is
'Writes down how a request ended.';

create or replace view pgstack.dataset_requests
with (security_invoker = true)
as
select
  r.id as request,
  r.source,
  r.target,
  r.options,
  r.state,
  l.id as load,
  l.rows,
  l.rejects,
  l.consumed as bytes_read,
  l.bytes,
  r.error,
  r.requested_by,
  r.requested_at,
  r.finished_at
from _pgstack.load_request as r
left join lateral (
  select d.* from _pgstack.dataset_load as d
  where d.id = r.load_id
    or r.load_id is null and d.relation = pg_catalog.to_regclass(r.target)::oid
      and d.updated_at >= r.requested_at
  order by d.id desc limit 1
) as l on true;

comment on view pgstack.dataset_requests is
'What pgstack.load_dataset() asked for, and how far the worker is; for the owner of pgstack.';
comment on column pgstack.dataset_requests.request is 'The number that pgstack.load_dataset() returned.';
comment on column pgstack.dataset_requests.source is 'The file or URL.';
comment on column pgstack.dataset_requests.target is 'The table.';
comment on column pgstack.dataset_requests.options is 'The options.';
comment on column pgstack.dataset_requests.state is 'requested, loading, done or failed.';
comment on column pgstack.dataset_requests.load is 'Its load in pgstack.dataset_loads, from the first block on.';
comment on column pgstack.dataset_requests.rows is 'Rows in the table so far.';
comment on column pgstack.dataset_requests.rejects is 'Records that were kept aside: see pgstack.dataset_rejects.';
comment on column pgstack.dataset_requests.bytes_read is 'Bytes of the file read so far.';
comment on column pgstack.dataset_requests.bytes is 'Size of the file in bytes.';
comment on column pgstack.dataset_requests.error is 'Why it failed.';
comment on column pgstack.dataset_requests.requested_by is 'The role that asked.';
comment on column pgstack.dataset_requests.requested_at is 'When it asked.';
comment on column pgstack.dataset_requests.finished_at is 'When it was done, or failed.';
