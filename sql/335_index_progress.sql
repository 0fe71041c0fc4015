-- Family: vector indexes, how building goes.
-- Callers: people, pgstack/indexes.py.
-- Errors: none.

create or replace view pgstack.index_progress
with (security_invoker = true)
as
select
  b.id as build,
  b.vectorizer,
  b.method,
  b.storage,
  b.parameters,
  b.state,
  p.phase,
  p.tuples_done,
  coalesce(nullif(p.tuples_total, 0), b.rows) as tuples_total,
  case
    when b.state = 'done' then 100::float8
    when f.share is not null then pg_catalog.round((100 * f.share)::numeric, 1)::float8
  end as percent,
  e.elapsed,
  case
    when b.state = 'building' and f.share >= 0.02
      then e.elapsed * (1 / f.share - 1)
    when b.state in ('requested', 'building')
      then greatest(interval '0', e.expected - coalesce(e.elapsed, interval '0'))
  end as eta,
  b.bytes,
  b.attempts,
  b.error,
  b.automatic,
  b.requested_by,
  b.requested_at,
  b.finished_at
from _pgstack.index_build as b
left join pg_catalog.pg_stat_progress_create_index as p
  on p.pid = b.pid and p.datname = pg_catalog.current_database() and b.state = 'building'
cross join lateral (
  select
    coalesce(b.finished_at, pg_catalog.clock_timestamp()) - b.started_at as elapsed,
    pg_catalog.make_interval(
      secs => _pgstack.index_seconds(b.method, b.storage, b.dimensions, b.parameters, b.rows)
    ) as expected
) as e
cross join lateral (
  select case
    -- vectorscale does not say how far it is: by the time that is expected.
    when b.method = 'diskann' and p.phase like 'building index%' and p.tuples_done = 0
      then least(
        0.95, extract(epoch from e.elapsed) / nullif(extract(epoch from e.expected), 0)
      )::float8
    when p.phase like 'building index%' and b.rows > 0
      then least(0.97, p.tuples_done::float8 / b.rows)
    when p.phase like '%valid%' or p.phase like '%old snapshots' then 0.98
  end as share
) as f;

comment on view pgstack.index_progress is
'Every vector index that pgstack.build_index() or the worker asked for, and how far it is.';
comment on column pgstack.index_progress.build is 'The number that pgstack.build_index() returned.';
comment on column pgstack.index_progress.vectorizer is 'Whose index it is.';
comment on column pgstack.index_progress.method is 'hnsw, diskann or none.';
comment on column pgstack.index_progress.storage is 'How the index keeps vectors: vector, halfvec or sbq.';
comment on column pgstack.index_progress.parameters is 'What it is built with, beyond the defaults of its method.';
comment on column pgstack.index_progress.state is 'requested, building, clearing (the new index serves, the old one is being dropped), done or failed.';
comment on column pgstack.index_progress.phase is 'What PostgreSQL is doing; NULL when it is not at it, or hidden from this role (it shows members of pg_read_all_stats).';
comment on column pgstack.index_progress.tuples_done is 'Chunks in the index so far; 0 throughout for DiskANN.';
comment on column pgstack.index_progress.tuples_total is 'Chunks there are.';
comment on column pgstack.index_progress.percent is 'How much is done; of a DiskANN index, which does not tell, by the time that is expected.';
comment on column pgstack.index_progress.elapsed is 'How long it takes, or took, since it was last begun.';
comment on column pgstack.index_progress.eta is 'How long it will still take, about.';
comment on column pgstack.index_progress.bytes is 'Size of the finished index.';
comment on column pgstack.index_progress.attempts is 'How often the present step was begun; the sixth time it is given up.';
comment on column pgstack.index_progress.error is 'Why it failed, last or for good.';
comment on column pgstack.index_progress.automatic is 'The worker asked, because the vectorizer had grown to index_min_rows chunks.';
comment on column pgstack.index_progress.requested_by is 'The role that asked.';
comment on column pgstack.index_progress.requested_at is 'When it asked.';
comment on column pgstack.index_progress.finished_at is 'When it was done, or failed.';
