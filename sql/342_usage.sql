-- Family: usage.  What model calls cost, and how fast vectorizers go.
-- Callers: pgstack/worker/meter.py, people.
-- Errors: none.

-- Workers come here at every heartbeat, several at a time: rows are locked in order.
-- A ledger that somebody holds locked must not hold up the heartbeat.
create or replace function _pgstack.usage_add(entries jsonb)
returns void
language sql volatile strict
security invoker
set search_path = pg_catalog, pg_temp
set lock_timeout = '500ms'
as $$
  insert into _pgstack.usage as u (
    day, vectorizer, model, calls, failed_calls, texts, tokens, seconds
  )
  select
    (now() at time zone 'UTC')::date,
    e.vectorizer, e.model, e.calls, e.failed_calls, e.texts, e.tokens, e.seconds
  from jsonb_to_recordset(usage_add.entries) as e (
    vectorizer text, model text,
    calls bigint, failed_calls bigint, texts bigint, tokens bigint, seconds double precision
  )
  where e.model is not null
  order by e.vectorizer, e.model
  on conflict on constraint usage_pkey do update
  set calls = u.calls + excluded.calls,
    failed_calls = u.failed_calls + excluded.failed_calls,
    texts = u.texts + excluded.texts,
    tokens = u.tokens + excluded.tokens,
    seconds = u.seconds + excluded.seconds;

  with done as (
    select e.vectorizer, coalesce(sum(e.rows), 0) as rows, coalesce(sum(e.tokens), 0) as tokens
    from jsonb_to_recordset(usage_add.entries) as e (vectorizer text, rows bigint, tokens bigint)
    group by e.vectorizer
  ),
  locked as materialized (
    select v.vectorizer_id, d.rows, d.tokens
    from done as d
    join ai.vectorizer as a on a.name = d.vectorizer
    join _pgstack.vectorizer as v on v.vectorizer_id = a.id
    order by v.vectorizer_id
    for no key update of v
  )
  update _pgstack.vectorizer as v
  set rows_rate = v.rows_rate * _pgstack.decay(v.rated_at) + l.rows / 30.0,
    tokens_rate = v.tokens_rate * _pgstack.decay(v.rated_at) + l.tokens / 30.0,
    rated_at = clock_timestamp()
  from locked as l
  where v.vectorizer_id = l.vectorizer_id;
$$;

comment on function _pgstack.usage_add(jsonb) is
'Adds to the ledger what a worker did since its last heartbeat: objects of vectorizer, model and counts, and objects of vectorizer and rows.';

create or replace function _pgstack.usage_rows()
returns setof _pgstack.usage
language plpgsql stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
begin
  if has_table_privilege('_pgstack.usage', 'select') then
    return query select u.* from _pgstack.usage as u;
  end if;
end;
$$;

comment on function _pgstack.usage_rows() is
'The rows of pgstack.usage; none for who may not read them.';

create or replace view pgstack.usage
with (security_invoker = true)
as
select
  u.day,
  u.vectorizer,
  u.model,
  u.calls,
  u.failed_calls,
  u.texts,
  u.tokens,
  u.seconds
from _pgstack.usage_rows() as u;

comment on view pgstack.usage is
'What model calls cost: one row a day, vectorizer and model. Workers add to it every 1.5 s. Empty for roles that may not select from _pgstack.usage.';
comment on column pgstack.usage.day is 'The day, in UTC.';
comment on column pgstack.usage.vectorizer is 'Whom the calls were for, by name, be it dropped since; empty for questions from SQL.';
comment on column pgstack.usage.model is 'The model that was called.';
comment on column pgstack.usage.calls is 'Calls, those that failed included.';
comment on column pgstack.usage.failed_calls is 'Calls without a usable answer.';
comment on column pgstack.usage.texts is 'Texts the model answered: embedded, or prompts.';
comment on column pgstack.usage.tokens is 'Tokens the model server counted, of texts and of what it wrote.';
comment on column pgstack.usage.seconds is 'Time workers waited for these calls. Calls at the same time count each.';
