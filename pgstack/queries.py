"""Every statement Python sends to the functions of schema ``_pgstack``, by name.

Constants, so that a reader sees what travels and a type checker knows it is no
string made at run time.
"""

from __future__ import annotations

from typing import Final, LiteralString

# Worker: presence and leases.
WORKER_START: Final[LiteralString] = "select _pgstack.worker_start(%s, %s, %s)"
WORKER_STOP: Final[LiteralString] = "select _pgstack.worker_stop(%s)"
WORKER_SWEEP: Final[LiteralString] = "select _pgstack.worker_sweep(), _pgstack.request_sweep()"
WORKER_PRESENT: Final[LiteralString] = "select _pgstack.worker_present()"
WORK_RENEW: Final[LiteralString] = "select _pgstack.work_renew(%s)"
USAGE_ADD: Final[LiteralString] = "select _pgstack.usage_add(%s)"

# Worker: questions from SQL (the bridge).
REQUEST_CLAIM: Final[LiteralString] = (
    "select id, kind, payload, seconds_left from _pgstack.request_claim(%s, %s)"
)
REQUEST_RENEW: Final[LiteralString] = "select _pgstack.request_renew(%s, %s)"
REQUEST_COMPLETE: Final[LiteralString] = "select _pgstack.request_complete(%s, %s, %s, %s)"
REQUEST_FAIL: Final[LiteralString] = "select _pgstack.request_fail(%s, %s, %s, %s, %s)"

# Worker: vectorizers.
PREPARE: Final[LiteralString] = "select _pgstack.prepare_vectorizers()"
WORK_CLAIM: Final[LiteralString] = (
    # Keys travel as text: Python would round a numeric.
    "select vectorizer_id, name, keys::text[], is_behind, "
    "model_key, model_server, model, options, keep_alive "
    "from _pgstack.work_claim(%s, %s, %s::jsonb, %s)"
)
WORK_LOAD: Final[LiteralString] = (
    "select nr, version, chunk_seq, start_char, end_char, digest, wanted, chunk, input "
    "from _pgstack.work_load(%s, %s::jsonb[], %s, %s)"
)
WORK_COMPLETE: Final[LiteralString] = (
    "select _pgstack.work_complete("
    "%s, %s, %s::jsonb[], %s::bytea[], %s::int[], %s::int[], %s::int[], %s::int[], "
    "%s::bytea[], %s::text[], %s)"
)
MODEL_TIMEOUT: Final[LiteralString] = (
    "select extract(epoch from _pgstack.setting_interval('model_timeout'))::float8"
)
BREAKER_OPEN: Final[LiteralString] = "select _pgstack.breaker_open(%s, %s, %s, %s, %s, %s)"
BREAKER_CLOSE: Final[LiteralString] = "select _pgstack.breaker_close(%s, %s, %s)"
WORK_RELEASE: Final[LiteralString] = "select _pgstack.work_release(%s, %s, %s::jsonb[], %s, %s)"
WORK_FAIL: Final[LiteralString] = "select _pgstack.work_fail(%s, %s, %s::jsonb[], %s, %s, %s)"
WORK_LEFT: Final[LiteralString] = "select _pgstack.work_left(%s, %s)"
WORK_NEXT_DUE: Final[LiteralString] = "select _pgstack.work_next_due()"
WORK_PROBLEMS: Final[LiteralString] = (
    "select s.name, s.last_error, s.failed from pgstack.vectorizer_status as s "
    "where (%(names)s::text[] is null or s.name = any (%(names)s)) "
    "and (s.failed > 0 or s.state = 'blocked')"
)

# Worker: files of documents.
EXTRACTION_CLAIM: Final[LiteralString] = (
    "select relation, collection, id, uri, media_type, source, source_hash, attempts, extraction, "
    "tika_url from _pgstack.extraction_claim(%s, %s::text[], %s::bigint[], %s::bigint[])"
)
EXTRACTION_COMPLETE: Final[LiteralString] = (
    "select _pgstack.extraction_complete("
    "%s, %s::bigint, %s::bigint, %s, %s::text, %s::jsonb, %s::text, %s::text, %s::text[])"
)
EXTRACTION_FAIL: Final[LiteralString] = (
    "select _pgstack.extraction_fail(%s, %s::bigint, %s::bigint, %s, %s::text)"
)
EXTRACTION_RELEASE: Final[LiteralString] = (
    "select _pgstack.extraction_release(%s, %s::bigint, %s::bigint, %s, %s)"
)
EXTRACTION_LEFT: Final[LiteralString] = "select _pgstack.extraction_left(%s::text[])"

# Worker: vector indexes.
INDEX_DUE: Final[LiteralString] = "select name, statement from _pgstack.index_due()"
INDEX_FAILED: Final[LiteralString] = "select _pgstack.index_failed(%s, %s, %s)"
INDEX_RESET: Final[LiteralString] = (
    "reset lock_timeout; reset maintenance_work_mem; reset max_parallel_maintenance_workers"
)
INDEX_LOCK: Final[LiteralString] = "select pg_try_advisory_lock(1885827956, 3)"
INDEX_UNLOCK: Final[LiteralString] = "select pg_advisory_unlock(1885827956, 3)"

# Vector indexes, for people.
INDEX_ADVICE: Final[LiteralString] = (
    "select recommended, method, storage, parameters, labels, expected_bytes, expected_time, "
    "memory_bytes, expected_ms, why, statement "
    "from pgstack.index_advice(%s::text, %s::bigint)"
)
INDEX_BUILD: Final[LiteralString] = (
    "select pgstack.build_index(%(vectorizer)s::text, %(method)s::text, %(storage)s::text, "
    "%(parameters)s::jsonb, %(labels)s::name)"
)
INDEX_BUILDS: Final[LiteralString] = (
    "select build, vectorizer, method, storage, parameters, state, phase, tuples_done, "
    "tuples_total, percent, elapsed, eta, bytes, attempts, error, automatic, requested_by, "
    "requested_at, finished_at from pgstack.index_progress "
    "where (%(build)s::bigint is null or build = %(build)s) and (%(vectorizer)s::text is null "
    "or vectorizer = (_pgstack.vectorizer_plan(%(vectorizer)s::text)).name) "
    "order by build desc"
)
RECALL: Final[LiteralString] = (
    "select effort, recall, recall_p5, p50_ms, p95_ms, exact_ms, chosen, queries, sampled "
    "from pgstack.recall(%(vectorizer)s::text, sample => %(sample)s::int, k => %(k)s::int, "
    "target_recall => %(target)s::float8) order by effort"
)

# Search and answers.
_SEARCH_ARGUMENTS: Final[LiteralString] = (
    "(%(vectorizer)s::text, %(query)s::text, k => %(k)s::int, mode => %(mode)s::text, "
    "filter => %(filter)s::jsonb, per => %(per)s::text, fusion => %(fusion)s::text, "
    "vector_weight => %(vector_weight)s::float8, rrf_k => %(rrf_k)s::int, "
    "depth => %(depth)s::int, diversity => %(diversity)s::float8, rerank => %(rerank)s::text, "
    "target_recall => %(target_recall)s::float8) "
)
_HIT: Final[LiteralString] = (
    "rank, id, chunk_seq, chunk, score, start_char, end_char, vector_rank, vector_score, "
    "text_rank, text_score, more "
)
# All parts are constants.
SEARCH: Final[LiteralString] = (
    "select " + _HIT + "from pgstack.search" + _SEARCH_ARGUMENTS + "order by rank"
)
SEARCH_EXPLAIN: Final[LiteralString] = (
    "select step, what, detail, rows, ms from pgstack.explain_search"  # noqa: S608
    + _SEARCH_ARGUMENTS
    + "order by nr"
)
SEARCH_DOCUMENT: Final[LiteralString] = "select _pgstack.search_document" + _SEARCH_ARGUMENTS
SIMILAR: Final[LiteralString] = (
    "select " + _HIT + "from pgstack.similar(%(vectorizer)s::text, %(key)s::text, k => %(k)s::int, "
    "filter => %(filter)s::jsonb, per => %(per)s::text, diversity => %(diversity)s::float8, "
    "target_recall => %(target_recall)s::float8) order by rank"
)
ASK: Final[LiteralString] = (
    "select answer, citations, model, duration "
    "from pgstack.ask(%(vectorizer)s::text, %(question)s::text, %(k)s::int, %(model)s::text)"
)
ASK_MODEL: Final[LiteralString] = "select _pgstack.model_name(%(model)s::text, 'generation_model')"
ASK_SOURCES: Final[LiteralString] = (
    "select _pgstack.ask_sources(%(vectorizer)s::text, %(question)s::text, %(k)s::int)"
)
ASK_PAYLOAD: Final[LiteralString] = (
    "select _pgstack.ask_payload(%(sources)s::jsonb, %(question)s::text, %(model)s::text)"
)
ASK_TEXT: Final[LiteralString] = (
    "select t.answer, _pgstack.citations(%(sources)s::jsonb, t.answer) "
    "from _pgstack.ask_text(%(content)s::text) as t (answer)"
)
PASSAGES: Final[LiteralString] = (
    "select p.title, p.uri, p.page, p.last_page, p.headings "
    "from unnest(%(keys)s::jsonb[], %(starts)s::int[], %(ends)s::int[]) "
    "with ordinality as c (key, start_char, end_char, nr) cross join "
    "(select _pgstack.find_collection((_pgstack.vectorizer_plan(%(vectorizer)s::text)).name) "
    "as relation) as t left join lateral "
    "_pgstack.passage(t.relation, c.key, c.start_char, c.end_char) as p "
    "on t.relation is not null order by c.nr"
)

# Documents.
COLLECTION_CREATE: Final[LiteralString] = (
    "select pgstack.create_collection(name => %(name)s::text, model => %(model)s::text, "
    "dimensions => %(dimensions)s::int, chunking => %(chunking)s::text, "
    "chunk_size => %(chunk_size)s::int, chunk_overlap => %(chunk_overlap)s::int, "
    "extraction => %(extraction)s::jsonb)"
)
COLLECTION_EXTRACTION: Final[LiteralString] = "select _pgstack.collection_extraction(%s::text)"
COLLECTION_URIS: Final[LiteralString] = (
    # As object stores list their keys: by bytes.
    'select u from _pgstack.collection_uris(%s::text, %s::text) as u order by u collate "C"'
)
DOCUMENT_STATES: Final[LiteralString] = (
    "select uri, source_hash, source_bytes, source_modified, status, error "
    "from _pgstack.document_states(%s::text, %s::text[])"
)
DOCUMENT_ETAGS: Final[LiteralString] = (
    "select uri, etag from _pgstack.document_etags(%s::text, %s::text[])"
)
DOCUMENT_STORE: Final[LiteralString] = (
    "select _pgstack.store_document(%s::text, %s::text, %s::text, %s::jsonb, %s::text, %s::text, "
    "%s::jsonb, %b::bytea, %b::bytea, %s::bigint, %s::timestamptz, %s::text)"
)
DOCUMENT_NOTE: Final[LiteralString] = (
    "select _pgstack.note_sources(%s::text, %s::text[], %s::bigint[], %s::timestamptz[], "
    "%s::text[])"
)
DOCUMENT_REMOVE: Final[LiteralString] = "select pgstack.remove_document(%s::text, %s::text)"

# The DBA's verbs.
VECTORIZERS: Final[LiteralString] = (
    "select id, name, source, target, view, model, dimensions, state, pending, leased, retrying, "
    "failed, lag, embedded_rows, embedded_chunks, rows_per_second, tokens_per_second, index, "
    "last_success_at, last_error_at, last_error from pgstack.vectorizer_status order by name"
)
VECTORIZER_ERRORS: Final[LiteralString] = (
    "select vectorizer, key, state, attempts, error, since, next_try_at "
    "from pgstack.vectorizer_errors where vectorizer = %s order by since desc limit %s"
)
MODELS_RESTING: Final[LiteralString] = (
    "select r.model, count(*) from pgstack.workers as w "
    "cross join unnest(w.resting) as r (model) group by r.model"
)
VECTORIZER_ID: Final[LiteralString] = "select (_pgstack.vectorizer_plan(%s::text)).id"
VECTORIZER_CREATE: Final[LiteralString] = (
    "select pgstack.create_vectorizer(%(source)s::oid::regclass, %(columns)s::name[], "
    "name => %(name)s::text, model => %(model)s::text, dimensions => %(dimensions)s::int, "
    "chunking => %(chunking)s::text, chunk_size => %(chunk_size)s::int, "
    "chunk_overlap => %(chunk_overlap)s::int, template => %(template)s::text, "
    "destination => %(destination)s::name, embedding_column => %(embedding_column)s::name, "
    "index => %(index)s::text, separators => %(separators)s::text[], "
    "is_regex => %(is_regex)s::boolean, keep_separator => %(keep_separator)s::text, "
    "mask_pii => %(mask_pii)s::text[])"
)
VECTORIZER_CHUNKING: Final[LiteralString] = (
    "select (_pgstack.chunking(p.chunking)).* from _pgstack.vectorizer_plan as p where p.id = %s"
)
VECTORIZER_SET_CHUNKING: Final[LiteralString] = (
    "select pgstack.set_chunking(%(vectorizer)s::text, "
    "chunking => %(method)s::text, chunk_size => %(size)s::int, "
    "chunk_overlap => %(overlap)s::int, separators => %(separators)s::text[], "
    "is_regex => %(is_regex)s::boolean, keep_separator => %(keep_separator)s::text, "
    "mask_pii => %(mask_pii)s::text[])"
)
# The lab shows first how a vectorizer cuts now.
LAB_SOURCE: Final[LiteralString] = (
    "select p.source::regclass::oid, p.content_column, jsonb_build_array(o.own) || "
    "(select coalesce(jsonb_agg(m.value), '[]') from jsonb_array_elements(_pgstack.lab_usual()) "
    "as m where m.value <> o.own) "
    "from _pgstack.vectorizer_plan(%s::text) as p cross join lateral (select jsonb_strip_nulls("
    "to_jsonb(_pgstack.chunking(p.chunking))) - case when (_pgstack.chunking(p.chunking)).is_regex "
    "then '' else 'is_regex' end as own) as o"
)
CHUNKING_LAB: Final[LiteralString] = (
    "select * from pgstack.chunking_lab(%(source)s::oid::regclass, %(content)s::name, "
    "methods => %(methods)s::jsonb, sample => %(sample)s::int, judged => %(judged)s::text, "
    "model => %(model)s::text, doc_column => %(doc_column)s::name, "
    "max_texts => %(max_texts)s::int, seed => %(seed)s::bigint)"
)
VECTORIZER_REFRESH: Final[LiteralString] = "select pgstack.refresh_vectorizer(%s::text)"
VECTORIZER_ADOPT: Final[LiteralString] = "select pgstack.adopt_vectorizer(%s::text)"
VECTORIZER_PAUSE: Final[LiteralString] = "select pgstack.pause_vectorizer(%s::text)"
VECTORIZER_RESUME: Final[LiteralString] = "select pgstack.resume_vectorizer(%s::text)"
VECTORIZER_RETRY: Final[LiteralString] = "select pgstack.retry_vectorizer(%s::text)"
VECTORIZER_DROP: Final[LiteralString] = "select pgstack.drop_vectorizer(%s::text, %s::boolean)"
WAIT_UNTIL_FRESH: Final[LiteralString] = "select pgstack.wait_until_fresh(%s::text, %s::interval)"

# What creating a vectorizer would do.
VECTORIZER_FACTS: Final[LiteralString] = (
    "select _pgstack.vectorizer_name(%(name)s::text, c.relname), "
    "format('%%I.%%I', n.nspname, c.relname), "
    "case when %(embedding_column)s::text is not null "
    "then format('column %%I of the source', %(embedding_column)s::text) "
    "else format('%%I.%%I', n.nspname, coalesce(%(destination)s::text, "
    "coalesce(%(name)s::text, c.relname) || '_embedding') || '_store') end, "
    "_pgstack.model_name(%(model)s::text, 'embedding_model'), "
    "case when %(index)s::text = 'auto' then _pgstack.setting_value('index_method') "
    "else %(index)s::text end, _pgstack.setting_value('index_min_rows')::bigint "
    "from pg_class as c join pg_namespace as n on n.oid = c.relnamespace "
    "where c.oid = %(source)s::oid"
)
VECTORIZER_CHECK: Final[LiteralString] = (
    "select _pgstack.check_source(%(source)s::oid::regclass, %(columns)s::name[]), "
    "coalesce(%(template)s::text, _pgstack.default_template(%(columns)s::name[])), "
    "_pgstack.chunking_config("
    "%(chunking)s::text, %(chunk_size)s::int, %(chunk_overlap)s::int, "
    "%(separators)s::text[], %(is_regex)s::boolean, %(keep_separator)s::text, "
    "%(mask_pii)s::text[])"
)
VECTORIZER_TAKEN: Final[LiteralString] = (
    "select v.name from ai.vectorizer as v join pg_class as c on c.oid = %(source)s::oid "
    "where v.name = _pgstack.vectorizer_name(%(name)s::text, c.relname)"
)
TABLE_NAMED: Final[LiteralString] = (
    "select c.oid from pg_class as c join pg_namespace as n on n.oid = c.relnamespace "
    "where c.relkind in ('r', 'p', 'v', 'm', 'f') and (c.relname = %(name)s::text "
    "and pg_table_is_visible(c.oid) or n.nspname || '.' || c.relname = %(name)s::text "
    "or format('%%I.%%I', n.nspname, c.relname) = %(name)s::text) "
    "order by pg_table_is_visible(c.oid) and c.relname = %(name)s::text desc limit 1"
)
TABLE_ESTIMATE: Final[LiteralString] = (
    "select c.relname, n.nspname, c.reltuples::float8 from pg_class as c "
    "join pg_namespace as n on n.oid = c.relnamespace where c.oid = %s::oid"
)
CHUNK_SAMPLE: Final[LiteralString] = (
    # What is to be masked is not to be sent to a model to measure its speed either.
    "select array(select c.chunk from pgstack.chunk("
    "_pgstack.mask(t.body, %(mask_pii)s::text[]), "
    "%(chunking)s::text, %(chunk_size)s::int, %(chunk_overlap)s::int, "
    "%(separators)s::text[], %(is_regex)s::boolean, "
    "%(keep_separator)s::text) as c order by c.seq) "
    "from (select r.{column}::text as body from {table} as r "
    "tablesample system ({share}) limit %(rows)s) as t"
)
EMBED_LENGTH: Final[LiteralString] = (
    "select max(cardinality(e.embedding::real[])) "
    "from pgstack.embed_many(%(texts)s::text[], %(model)s::text) as e"
)

# audit.
AUDIT_LEAKS: Final[LiteralString] = (
    "select severity, object, what, how, remedy "
    "from pgstack.audit_leaks(coalesce(%(role)s::name, current_user))"
)

# cleaning.
FORGET_ROW: Final[LiteralString] = "select place, rows from pgstack.forget(%s, %s)"
FORGET_DOCUMENT: Final[LiteralString] = "select place, rows from pgstack.forget_document(%s, %s)"
DUPLICATE_REPORT: Final[LiteralString] = (
    "select d.* from _pgstack.vectorizer_plan(%s) as p, "
    "pgstack.duplicate_report(p.source::regclass, p.content_column::name, %s, %s) as d"
)

# doctor.
REVISION_READABLE: Final[LiteralString] = (
    "select has_table_privilege('_pgstack.alembic_version', 'select')"
)
REVISION: Final[LiteralString] = "select version_num from _pgstack.alembic_version"
MODELS: Final[LiteralString] = "select name from pgstack.models()"
SETTING: Final[LiteralString] = "select _pgstack.setting_value(%s)"
ROLE_RIGHTS: Final[LiteralString] = (
    "select r.rolname, r.rolsuper or r.rolbypassrls, "
    "has_table_privilege('_pgstack.work', 'select') "
    "and has_table_privilege('_pgstack.work', 'insert') "
    "and has_table_privilege('_pgstack.worker', 'insert') "
    "from pg_roles as r where r.rolname = current_user"
)
VECTORIZER_HEALTH: Final[LiteralString] = (
    "select name, state, failed, last_error from pgstack.vectorizer_status order by name"
)
WORK_READABLE: Final[LiteralString] = "select has_table_privilege('_pgstack.work', 'select')"
ORPHANED_LEASES: Final[LiteralString] = (
    "select count(*) from _pgstack.work as w where w.state = 'leased' "
    "and (w.worker = any (_pgstack.lease_holders())) is not true"
)

# Judged sets and evaluation.
EVAL_STAGING: Final[LiteralString] = "select _pgstack.eval_staging()"
EVAL_COPY: Final[LiteralString] = (
    "copy pg_temp.pgstack_eval_staging "
    "(part, file, line, id, doc_id, grade, title, text, metadata) from stdin"
)
EVAL_LOAD: Final[LiteralString] = (
    "select queries, judged_queries, judgments from _pgstack.load_eval_set("
    "%(name)s::text, %(description)s::text, %(doc_column)s::name)"
)
EVAL_MISSING: Final[LiteralString] = "select _pgstack.judged_but_missing()"
EVAL_CORPUS: Final[LiteralString] = (
    "select relation::text, inserted, updated, removed "
    "from _pgstack.load_corpus(%(table)s::text, current_schema())"
)
EVAL_VECTORIZE: Final[LiteralString] = (
    "select _pgstack.vectorize_corpus(%(relation)s::regclass, %(model)s::text)"
)
EVAL_COLLECTION: Final[LiteralString] = (
    "select pgstack.create_collection(%(collection)s::text, %(model)s::text)"
)
EVAL_CORPUS_COLLECTION: Final[LiteralString] = (
    "select relation::text, inserted, updated, removed "
    "from _pgstack.load_corpus_collection(%(collection)s::text)"
)
EVAL_SETS: Final[LiteralString] = (
    "select name, owner, description, origin, doc_column, queries, judged_queries, judgments, "
    "runs, created_at from pgstack.eval_sets order by name, owner"
)
EVAL_SET_DROP: Final[LiteralString] = "select pgstack.drop_eval_set(%s::text)"
EVAL_BEGIN: Final[LiteralString] = (
    "select _pgstack.eval_begin(%(set)s::text, %(vectorizer)s::text, %(mode)s::text, %(k)s::int, "
    "%(filter)s::jsonb, %(doc_column)s::name, %(options)s::jsonb, %(label)s::text, "
    "%(seed)s::bigint)"
)
EVAL_STEP: Final[LiteralString] = "select _pgstack.eval_step(%s::bigint, %s::int)"
EVAL_FINISH: Final[LiteralString] = "select _pgstack.eval_finish(%s::bigint)"
EVAL_RUN_CHECK: Final[LiteralString] = "select (_pgstack.eval_run(%s::bigint)).id"
EVAL_RUNS: Final[LiteralString] = (
    "select run, set, label, vectorizer, model, mode, k, filter, options, doc_column, seed, state, "
    "queries, searched, p50_ms, p95_ms, started_at, finished_at, config from pgstack.eval_runs "
    "where %(run)s::bigint is null or run = %(run)s::bigint order by run"
)
EVAL_METRICS: Final[LiteralString] = (
    "select metric, value, low, high, queries from pgstack.eval_metrics where run = %s::bigint"
)
EVAL_QUERIES: Final[LiteralString] = (
    "select query_id, query, value, relevant, found, first_rank, milliseconds "
    "from pgstack.eval_queries(%s::bigint, %s::text)"
)
EVAL_COMPARE: Final[LiteralString] = (
    "select query_id, query, value_a, value_b, difference "
    "from pgstack.compare_runs(%(a)s::bigint, %(b)s::bigint, %(metric)s::text)"
)
EVAL_SUMMARY: Final[LiteralString] = (
    "select metric, mean_a, mean_b, difference, low, high, p_value, wins, ties, losses, queries "
    "from pgstack.compare_summary(%(a)s::bigint, %(b)s::bigint, %(seed)s::bigint)"
)
EVAL_RUN_DROP: Final[LiteralString] = "select pgstack.drop_eval_run(%s::bigint)"

# Data sets.
DATASET_BEGIN: Final[LiteralString] = (
    "select _pgstack.dataset_begin(%(target)s::text, %(relation)s::oid, %(source)s::text, "
    "%(identity)s::text, %(mode)s::text, %(plan)s::jsonb, %(bytes)s::bigint, "
    "%(position)s::bigint, %(line)s::bigint)"
)
DATASET_OPEN: Final[LiteralString] = (
    "select id, relation, identity, mode, plan, place, line, rows, rejects "
    "from _pgstack.dataset_open(%s::text, %s::text)"
)
DATASET_LOCK: Final[LiteralString] = "select _pgstack.dataset_lock(%s::bigint)"
DATASET_UNLOCK: Final[LiteralString] = "select _pgstack.dataset_unlock(%s::bigint)"
DATASET_STEP: Final[LiteralString] = (
    "select _pgstack.dataset_step(%(load)s::bigint, %(position)s::bigint, %(line)s::bigint, "
    "%(consumed)s::bigint, %(rows)s::bigint, %(rejects)s::bigint)"
)
DATASET_REJECT: Final[LiteralString] = (
    "select _pgstack.dataset_reject(%s::bigint, %s::bigint[], %s::text[], %s::text[], %s::text[])"
)
DATASET_RESUME: Final[LiteralString] = "select _pgstack.dataset_resume(%s::bigint)"
DATASET_END: Final[LiteralString] = "select _pgstack.dataset_end(%s::bigint, %s::text)"
DATASET_FORGET: Final[LiteralString] = "select pgstack.forget_dataset_load(%s::bigint)"
DATASET_LOADS: Final[LiteralString] = (
    "select load, target, source, mode, state, rows, rejects, bytes_read, bytes, error, owner, "
    "started_at, updated_at, finished_at from pgstack.dataset_loads "
    "where (%(load)s::bigint is null or load = %(load)s) order by load desc"
)
DATASET_REJECTS: Final[LiteralString] = (
    'select line, "column", reason, raw from pgstack.dataset_rejects '
    "where load = %(load)s::bigint order by line limit %(limit)s::bigint"
)
# The table of a data set: what its name means, by the caller's search path, and what it has.
DATASET_NAME: Final[LiteralString] = "select parse_ident(%s::text)"
DATASET_TABLE: Final[LiteralString] = (
    "select n.nspname, c.relname, c.oid, c.relkind::text from pg_class as c "
    "join pg_namespace as n on n.oid = c.relnamespace where c.oid = to_regclass(%s::text)"
)
DATASET_CALLED: Final[LiteralString] = "select format('%%I.%%I', %s::text, %s::text)"
DATASET_SCHEMA: Final[LiteralString] = "select current_schema()"
DATASET_COLUMNS: Final[LiteralString] = (
    "select a.attname, format_type(a.atttypid, a.atttypmod) from pg_attribute as a "
    "where a.attrelid = %s::oid and a.attnum > 0 and not a.attisdropped "
    "and a.attgenerated = '' order by a.attnum"
)
DATASET_TYPE: Final[LiteralString] = "select to_regtype(%s::text) is not null"

# Data sets that SQL asks the worker for.
LOAD_CLAIM: Final[LiteralString] = "select _pgstack.load_claim(%s)"
LOAD_RELEASE: Final[LiteralString] = "select _pgstack.load_release(%s::bigint, %s)"
LOAD_FAILED: Final[LiteralString] = "select _pgstack.load_end(%s::bigint, null, %s::text)"
LOAD_REQUEST: Final[LiteralString] = (
    "select source, target, options, owner from _pgstack.load_open(%s::bigint)"
)
LOAD_ALLOWED: Final[LiteralString] = "select _pgstack.check_dataset_source(%s::text)"
LOAD_DONE: Final[LiteralString] = "select _pgstack.load_end(%s::bigint, %s::bigint, null)"
