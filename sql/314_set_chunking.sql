-- Family: vectorizers, another way of cutting or masking for one that is there.
-- Callers: people, pgstack/vectorizers.py.
-- Errors: PS001 unknown vectorizer, PS007 bad argument, PS013 unsupported, PS014 missing
--         privilege, PS016 busy.
--
-- The configuration and the queue change in one transaction.  A row that comes in meanwhile and
-- is embedded as before would be missed, so writers of the source wait.  What a worker has
-- loaded is not written (its version names the configuration, 300_vectorizer_plan.sql) or stays
-- queued (unqueue(), 322_work_complete.sql).

create or replace function pgstack.set_chunking(
  vectorizer text,
  chunking text default 'recursive',
  chunk_size integer default 800,
  chunk_overlap integer default 400,
  separators text[] default null,
  is_regex boolean default false,
  keep_separator text default null,
  mask_pii text[] default null
)
returns bigint
language plpgsql volatile
security invoker
set search_path = pg_catalog, pg_temp
set lock_timeout = '5s'
as $$
declare
  _plan _pgstack.vectorizer_plan := _pgstack.vectorizer_plan(set_chunking.vectorizer);
  _config jsonb;
begin
  perform _pgstack.check_manager();
  perform _pgstack.check_source(_plan.source::regclass, _pgstack.content_columns(_plan.config)::name[]);
  if not _plan.has_table then
    raise exception 'vectorizer "%" writes into a column of its source, which takes no chunks', _plan.name
      using errcode = 'PS013', hint = 'Make one beside it, without embedding_column.';
  end if;
  _config := _pgstack.chunking_config(
    set_chunking.chunking, set_chunking.chunk_size, set_chunking.chunk_overlap,
    set_chunking.separators, set_chunking.is_regex, set_chunking.keep_separator,
    set_chunking.mask_pii
  );
  if current_setting('transaction_isolation') <> 'read committed' then
    raise exception 'a % transaction does not see every row that is to be queued',
      current_setting('transaction_isolation')
      using errcode = 'PS007', hint = 'Call it in a transaction of its own.';
  end if;
  execute format('lock table %s in share row exclusive mode', _plan.source);
  update ai.vectorizer as v set config = v.config || jsonb_build_object('chunking', _config)
  where v.id = _plan.id and v.config -> 'chunking' <> _config;
  if not found then
    return 0;
  end if;
  if _plan.chunking -> 'mask_pii' is distinct from _config -> 'mask_pii' then
    -- The words of columns that stand before the chunks are kept by triggers, which mask, or do
    -- not.  Until a worker has made them anew, chunks are read.  Locked: lock_chunks() waits.
    execute format('lock table %s in share row exclusive mode', _plan.target);
    update _pgstack.vectorizer as v set words_config = ''
    where v.vectorizer_id = _plan.id and v.words_config is not null;
  end if;
  return pgstack.refresh_vectorizer(_plan.name);
exception
  when lock_not_available then
    raise exception 'the table % is in use', _plan.source
      using errcode = 'PS016',
      hint = format('Try again when its writers are done: select pgstack.set_chunking(%L, ...);', _plan.name);
end;
$$;

comment on function pgstack.set_chunking(
  text, text, integer, integer, text[], boolean, text, text[]
) is
'Has a vectorizer cut, or mask, in another way from now on, and queues every row: a worker makes their chunks anew. Chunks that stay the same keep their vectors. Returns how many rows are queued, 0 when nothing changed.
vectorizer: its name, or its source table''s. The other arguments are those of pgstack.create_vectorizer(), with the same defaults: what is left out is not kept.
Until a row has been made anew its old chunks are found, unmasked where they were: pgstack.wait_until_fresh() says when all are done. Writers of the source wait while rows are queued (some seconds a million), readers do not.
Raises PS001 unknown vectorizer, PS007 bad argument, PS013 its vectors lie in a column of the source, PS014 not the owner of the table and of pgstack, PS016 the table is in use.';
