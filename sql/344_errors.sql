-- Family: errors.  Source rows that could not be embedded, and why.
-- Callers: people, pgstack/vectorizers.py.
-- Errors: none.

create or replace function _pgstack.vectorizer_errors()
returns table (
  vectorizer text, key jsonb, state text, attempts integer, error text,
  since timestamptz, next_try_at timestamptz
)
language plpgsql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
begin
  if not has_table_privilege('_pgstack.work', 'select') then
    return;
  end if;
  return query
  select
    p.name::text, w.key, case when w.state = 'failed' then 'failed' else 'retrying' end,
    w.attempts, left(w.last_error, 500), w.changed_at,
    case when w.state = 'waiting' then w.due_at end
  from _pgstack.work as w
  join _pgstack.vectorizer_plan as p on p.id = w.vectorizer_id
  where w.last_error is not null;
end;
$$;

comment on function _pgstack.vectorizer_errors() is
'The rows of pgstack.vectorizer_errors; none for who may not read them.';

create or replace view pgstack.vectorizer_errors
with (security_invoker = true)
as
select * from _pgstack.vectorizer_errors();

comment on view pgstack.vectorizer_errors is
'One row for each source row that waits for another try or was set aside. pgstack.retry_vectorizer(name) has them tried at once. Empty for roles that may not select from _pgstack.work.';
comment on column pgstack.vectorizer_errors.vectorizer is 'The vectorizer, by name.';
comment on column pgstack.vectorizer_errors.key is 'The row''s primary key, as an object: {"id": 7}.';
comment on column pgstack.vectorizer_errors.state is 'retrying, or failed: set aside until the row changes or somebody asks for it.';
comment on column pgstack.vectorizer_errors.attempts is 'Tries that failed by the row''s own fault; at max_attempts it is set aside.';
comment on column pgstack.vectorizer_errors.error is 'What went wrong at the last try; 500 characters at most.';
comment on column pgstack.vectorizer_errors.since is 'Since when it is in this state.';
comment on column pgstack.vectorizer_errors.next_try_at is 'When it is tried again; NULL: never by itself, or at this moment.';
