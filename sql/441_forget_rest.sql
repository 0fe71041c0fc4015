-- Family: forgetting.  What is not found by the row's key alone: queues and errors, caches, judged sets.
-- Callers: 442_forget_row.sql.
-- Errors: none.

-- Leases before errors: see 440_forget.sql.  What a model server said of the row may be written beside other rows of
-- the same call, and in the vectorizer's last error: there it is blanked.
create or replace function _pgstack.forget_work(plan _pgstack.vectorizer_plan, key jsonb, texts text[])
returns table (place text, rows bigint)
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _messages text[];
begin
  place := plan.queue;
  rows := _pgstack.forget_in(plan.queue, plan.key_match, plan.key_record, forget_work.key);
  return next;
  place := plan.failed_queue;
  rows := _pgstack.forget_in(plan.failed_queue, plan.key_match, plan.key_record, forget_work.key);
  return next;
  place := '_pgstack.work';
  with gone as (
    delete from _pgstack.work as w
    where w.vectorizer_id = plan.id and w.digest = _pgstack.key_digest(forget_work.key)
    returning w.last_error
  )
  select count(*), coalesce(array_agg(g.last_error) filter (where g.last_error is not null), '{}')
  into rows, _messages
  from gone as g;
  return next;
  place := 'ai._vectorizer_errors';
  -- Of errors that pgai's own worker wrote, it is not known of which rows they tell.
  with gone as (
    delete from ai._vectorizer_errors as e
    where e.id = plan.id and (
      e.details -> 'keys' @> jsonb_build_array(forget_work.key)
      or (e.details ? 'keys') is not true
      or exists (
        select from unnest(forget_work.texts) as t (text)
        where length(t.text) >= 20 and position(btrim(to_jsonb(t.text)::text, '"') in e.details::text) > 0
      )
    )
    returning e.details ->> 'error_reason' as message
  )
  select count(*), _messages || coalesce(array_agg(g.message) filter (where g.message is not null), '{}')
  into rows, _messages
  from gone as g;
  return next;
  place := '_pgstack.work';
  update _pgstack.work as w set last_error = 'forgotten'
  where w.vectorizer_id = plan.id and w.last_error = any (_messages);
  get diagnostics rows = row_count;
  return next;
  place := '_pgstack.vectorizer';
  update _pgstack.vectorizer as v
  set
    last_error = case when v.last_error is not null then 'forgotten' end,
    problem = case when v.problem = any (_messages) then 'forgotten' else v.problem end
  where v.vectorizer_id = plan.id
    and (v.last_error <> 'forgotten' or v.problem = any (_messages));
  get diagnostics rows = row_count;
  return next;
  place := '_pgstack.breaker';
  update _pgstack.breaker as b set message = 'forgotten'
  where b.model = plan.model and b.message <> 'forgotten';
  get diagnostics rows = row_count;
  return next;
end;
$$;

comment on function _pgstack.forget_work(_pgstack.vectorizer_plan, jsonb, text[]) is
'Forgets a key in one vectorizer''s queues, leases and errors; messages of other rows that may quote it are blanked. texts: of the row, to find them.';

-- A known-item query is a piece of a row.  A set is a vectorizer's if it was made from it or has run on it; ids alone
-- do not tell, for other tables have a row 7 as well.
create or replace function _pgstack.forget_eval(names text[], key jsonb, source_row jsonb, texts text[])
returns table (place text, rows bigint, queries text[])
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _ids jsonb;
  _gone jsonb;
begin
  -- {"set": ["ids by which the row may be judged there"]}
  select coalesce(jsonb_object_agg(s.id, s.docs), '{}') into _ids
  from (
    select s.id, jsonb_agg(distinct d.doc) as docs
    from _pgstack.eval_set as s
    left join _pgstack.eval_run as r on r.set_id = s.id and r.vectorizer = any (forget_eval.names)
    cross join lateral (
      select coalesce(forget_eval.source_row ->> r.doc_column, forget_eval.source_row ->> s.doc_column)
      union all
      select _pgstack.eval_doc_id(forget_eval.key) where coalesce(r.doc_column, s.doc_column) is null
    ) as d (doc)
    where d.doc is not null and (
      r.id is not null or s.origin = 'known items' and exists (
        select from unnest(forget_eval.names) as n (name)
        where position(format(' words of a row of %s each, seed ', n.name) in s.description) > 0
      )
    )
    group by s.id
  ) as s;
  place := '_pgstack.eval_query';
  with gone as (
    delete from _pgstack.eval_query as q
    using _pgstack.eval_set as s
    where s.id = q.set_id and s.origin = 'known items' and (
      _ids -> s.id::text ? q.query_id
      or exists (
        select from unnest(forget_eval.texts) as t (text)
        where length(q.text) >= 8 and position(q.text in array_to_string(_pgstack.query_words(t.text), ' ')) > 0
      )
    )
    returning q.set_id, q.query_id, q.text
  )
  select count(*), coalesce(array_agg(g.text), '{}'), coalesce(jsonb_agg(jsonb_build_array(g.set_id, g.query_id)), '[]')
  into rows, queries, _gone
  from gone as g;
  return next;
  queries := '{}';
  place := '_pgstack.eval_judgment';
  delete from _pgstack.eval_judgment as j where _ids -> j.set_id::text ? j.doc_id;
  get diagnostics rows = row_count;
  return next;
  place := '_pgstack.eval_result';
  delete from _pgstack.eval_result as x
  using _pgstack.eval_run as r
  where r.id = x.run_id and (
    _gone @> jsonb_build_array(jsonb_build_array(r.set_id, x.query_id))
    or r.vectorizer = any (forget_eval.names) and _ids -> r.set_id::text ? x.doc_id
  );
  get diagnostics rows = row_count;
  return next;
  place := '_pgstack.eval_search';
  delete from _pgstack.eval_search as x
  using _pgstack.eval_run as r
  where r.id = x.run_id and _gone @> jsonb_build_array(jsonb_build_array(r.set_id, x.query_id));
  get diagnostics rows = row_count;
  return next;
  place := '_pgstack.eval_score';
  delete from _pgstack.eval_score as x
  using _pgstack.eval_run as r
  where r.id = x.run_id and _gone @> jsonb_build_array(jsonb_build_array(r.set_id, x.query_id));
  get diagnostics rows = row_count;
  return next;
end;
$$;

comment on function _pgstack.forget_eval(text[], jsonb, jsonb, text[]) is
'Forgets a row in judged sets: queries made from it, judgements of it, and where it was found. names: the vectorizers that had it. queries: the texts of those queries.';

-- A cached vector carries the digest of model and text.  What no table of chunks has is the row's, or an earlier
-- version's of some row: nothing tells whose, so all of those go.
create or replace function _pgstack.forget_cached()
returns bigint
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
  _kept text;
  _deleted bigint;
begin
  select string_agg(format('select from %s as t where t.digest = c.digest', p.target), ' union all ') into _kept
  from _pgstack.vectorizer_plan as p
  where _pgstack.has_digests(p);
  execute format(
    'delete from _pgstack.embedding_cache as c where not exists (%s)', coalesce(_kept, 'select where false')
  );
  get diagnostics _deleted = row_count;
  return _deleted;
end;
$$;

comment on function _pgstack.forget_cached() is
'Empties the cache of vectors but for those that a table of chunks has as well; returns how many went.';

create or replace function _pgstack.forget_questions(texts text[])
returns table (place text, rows bigint)
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
begin
  place := '_pgstack.request';
  delete from _pgstack.request as q
  where exists (
    select from unnest(forget_questions.texts) as t (text)
    where length(t.text) >= 20 and position(btrim(to_jsonb(t.text)::text, '"') in q.payload::text) > 0
      or q.payload -> 'input' ? t.text
  );
  get diagnostics rows = row_count;
  return next;
  place := '_pgstack.query_cache';
  delete from _pgstack.query_cache as c
  where c.digest in (select _pgstack.text_digest(t.text) from unnest(forget_questions.texts) as t (text));
  get diagnostics rows = row_count;
  return next;
end;
$$;

comment on function _pgstack.forget_questions(text[]) is
'Withdraws questions to models that hold one of the texts (of 20 characters or more; a shorter one only if it is all that is asked), and forgets query vectors of them.';
