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
WORK_RENEW: Final[LiteralString] = "select _pgstack.work_renew(%s)"

# Worker: questions from SQL (the bridge).
REQUEST_CLAIM: Final[LiteralString] = (
    "select id, kind, payload, asker, seconds_left from _pgstack.request_claim(%s, %s)"
)
REQUEST_RENEW: Final[LiteralString] = "select _pgstack.request_renew(%s, %s)"
REQUEST_COMPLETE: Final[LiteralString] = "select _pgstack.request_complete(%s, %s, %s, %s)"
REQUEST_FAIL: Final[LiteralString] = "select _pgstack.request_fail(%s, %s, %s, %s, %s)"

# Worker: vectorizers.
PREPARE: Final[LiteralString] = "select _pgstack.prepare_vectorizers()"
WORK_CLAIM: Final[LiteralString] = (
    "select c.vectorizer_id, c.keys, p.name, p.model, p.options, p.keep_alive, p.base_url "
    "from _pgstack.work_claim(%s, %s, %s) as c "
    "join _pgstack.vectorizer_plan as p on p.id = c.vectorizer_id"
)
WORK_LOAD: Final[LiteralString] = (
    "select nr, version, chunk_seq, start_char, end_char, chunk, input "
    "from _pgstack.work_load(%s, %s)"
)
WORK_COMPLETE: Final[LiteralString] = (
    "select _pgstack.work_complete("
    "%s, %s, %s, %s, %s::int[], %s::int[], %s::int[], %s::int[], %s::text[], %s::text[], %s)"
)
WORK_RELEASE: Final[LiteralString] = "select _pgstack.work_release(%s, %s, %s, %s, %s)"
WORK_FAIL: Final[LiteralString] = "select _pgstack.work_fail(%s, %s, %s, %s, %s, %s)"
WORK_LEFT: Final[LiteralString] = "select _pgstack.work_left(%s)"
WORK_NEXT_DUE: Final[LiteralString] = "select _pgstack.work_next_due()"
WORK_PROBLEMS: Final[LiteralString] = (
    "select s.name, s.last_error, s.failed from pgstack.vectorizer_status as s "
    "where (%(names)s::text[] is null or s.name = any (%(names)s)) "
    "and (s.failed > 0 or s.state = 'blocked')"
)

# Worker: vector indexes.
INDEX_DUE: Final[LiteralString] = "select name, statement from _pgstack.index_due()"
INDEX_LOCK: Final[LiteralString] = "select pg_try_advisory_lock(1885827956, 3)"
INDEX_UNLOCK: Final[LiteralString] = "select pg_advisory_unlock(1885827956, 3)"
