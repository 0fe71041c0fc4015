"""What people see of a worker: ledger, status, errors, progress.

Real PostgreSQL, a real worker process, the deterministic model server.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable
from datetime import timedelta
from typing import Any, LiteralString

import psycopg

from pgstack.db import connect
from tests.integration.conftest import Models, value
from tests.integration.test_worker import fresh, rows, status, vectorize

Connection = psycopg.Connection[Any]


def await_value(db: Connection, query: LiteralString, *params: object) -> Any:
    """Return the first value of a query once it is neither NULL nor 0."""
    while not (found := value(db, query, *params)):
        db.execute("select pg_sleep(0.02)")
    return found


# ------------------------------------------------------------------------------ the ledger


def test_the_ledger_tells_what_models_did_for_whom(
    db: Connection, start_worker: Callable[..., Any]
) -> None:
    db.execute("create table t (id int primary key, body text)")
    db.execute("insert into t select i, 'row ' || i from generate_series(1, 50) as i")
    vectorize(db, "t", "body")
    worker = start_worker(db.info.dsn)
    assert fresh(db, "t")
    db.execute("select pgstack.embed('a question')")
    assert worker.stop() == 0
    assert rows(
        db, "select day, vectorizer, texts, failed_calls from pgstack.usage order by 2"
    ) == [
        (today := value(db, "select (now() at time zone 'UTC')::date"), "", 1, 0),
        (today, "t", 50, 0),
    ]
    assert value(db, "select bool_and(calls > 0 and seconds > 0) from pgstack.usage")
    assert value(db, "select tokens > 0 from pgstack.usage where vectorizer = ''")


def test_the_ledger_is_kept_while_the_worker_runs(db: Connection, worker: Any) -> None:
    db.execute("select pgstack.embed('a question')")
    assert await_value(db, "select sum(calls) from pgstack.usage") == 1


def test_calls_that_fail_are_counted_apart(
    db: Connection, start_worker: Callable[..., Any]
) -> None:
    start_worker(db.info.dsn).wait_until_present()
    try:
        db.execute("select pgstack.embed('a question', 'no-such-model')")
    except psycopg.Error as exc:
        assert exc.sqlstate == "PS006"
    assert await_value(db, "select sum(failed_calls) from pgstack.usage") == 1
    assert rows(db, "select model, calls, texts from pgstack.usage") == [("no-such-model", 1, 0)]


def test_usage_adds_up_and_rates_fade(conn: Connection) -> None:
    conn.execute("create table t (id int primary key, body text)")
    vectorize(conn, "t", "body")
    entry = (
        '[{"vectorizer": "t", "model": "m", "calls": 2, "failed_calls": 1, "texts": 8,'
        ' "tokens": 60, "seconds": 0.5}, {"vectorizer": "t", "rows": 30}]'
    )
    rate: LiteralString = "select round(rows_rate::numeric, 2), round(tokens_rate::numeric, 2)"
    conn.execute("select _pgstack.usage_add(%s)", (entry,))
    assert rows(conn, f"{rate} from _pgstack.vectorizer") == [(1, 2)]
    conn.execute("update _pgstack.vectorizer set rated_at = clock_timestamp() - interval '1 day'")
    conn.execute("select _pgstack.usage_add(%s)", (entry,))
    assert rows(conn, f"{rate} from _pgstack.vectorizer") == [(1, 2)]
    assert rows(conn, "select calls, failed_calls, texts, tokens, seconds from pgstack.usage") == [
        (4, 2, 16, 120, 1.0)
    ]


def test_a_locked_ledger_holds_nothing_up(db: Connection, worker: Any) -> None:
    with connect(db.info.dsn) as other:
        other.execute("lock table _pgstack.usage")
        db.execute("create table t (id int primary key, body text)")
        vectorize(db, "t", "body")
        for i in range(3):
            db.execute("insert into t values (%s, 'text ' || %s)", (i, i))
            assert fresh(db, "t", 10)
    assert await_value(db, "select sum(texts) from pgstack.usage") == 3


# -------------------------------------------------------------------------- status, workers


def test_rows_at_fault_are_listed_with_their_reason(
    db: Connection, worker: Any, models: Models
) -> None:
    models.misbehave(fail_if_contains="poison", fail_if_status=400)
    db.execute("create table t (id int primary key, body text)")
    db.execute("insert into t select i, 'text ' || i from generate_series(1, 20) as i")
    db.execute("update t set body = 'poison' where id = 7")
    vectorize(db, "t", "body")
    assert fresh(db, "t")
    [(name, key, state, error, next_try)] = rows(
        db, "select vectorizer, key, state, error, next_try_at from pgstack.vectorizer_errors"
    )
    assert (name, key, state, next_try) == ("t", {"id": 7}, "failed", None)
    assert error
    assert "poison" not in error
    assert status(db, "t")["failed"] == 1


def test_rows_between_two_tries_are_retrying(conn: Connection) -> None:
    conn.execute("create table t (id int primary key, body text)")
    vectorize(conn, "t", "body")
    conn.execute(
        """
        insert into _pgstack.work
          (vectorizer_id, digest, key, state, due_at, attempts, last_error)
        select v.id, 'x', '{"id": 1}', 'waiting', now() + interval '1 min', 2, repeat('e', 900)
        from ai.vectorizer as v
        """
    )
    assert status(conn, "t")["retrying"] == 1
    assert rows(
        conn,
        "select state, attempts, length(error), next_try_at > now() from pgstack.vectorizer_errors",
    ) == [("retrying", 2, 500, True)]


def test_connected_workers_are_listed(
    db: Connection, start_worker: Callable[..., Any], models_url: str
) -> None:
    assert rows(db, "select * from pgstack.workers") == []
    worker = start_worker(db.info.dsn)
    worker.wait_until_present()
    assert rows(
        db,
        "select a.application_name, model_server, leased, resting, seen_at >= started_at "
        "from pgstack.workers join pg_stat_activity as a using (pid)",
    ) == [("pgstack worker", models_url, 0, [], True)]
    assert worker.stop() == 0
    assert rows(db, "select * from pgstack.workers") == []


def test_a_model_that_every_worker_leaves_alone_is_down(db: Connection) -> None:
    db.execute("create table t (id int primary key, body text)")
    db.execute("insert into t values (1, 'text')")
    vectorize(db, "t", "body")
    start = "select _pgstack.worker_start(%s, '1', 'http://here:1')"
    breaker = (
        "insert into _pgstack.breaker (worker, model_server, model, retry_at, message) "
        "select w.id, 'http://here:1/', v.config -> 'embedding' ->> 'model', "
        "clock_timestamp() + interval '20 s', 'it is ill' "
        "from _pgstack.worker as w, ai.vectorizer as v"
    )
    with connect(db.info.dsn, autocommit=True) as one, connect(db.info.dsn) as two:
        one.execute(start, (uuid.uuid4(),))
        assert status(db, "t")["state"] == "working"
        db.execute(breaker)
        found = status(db, "t")
        assert found["state"] == "model down"
        assert re.fullmatch(r"it is ill; tried again in (19|20) s", found["last_error"])
        assert rows(db, "select resting from pgstack.workers") == [([found["model"]],)]
        two.execute(start, (uuid.uuid4(),))
        two.commit()
        assert status(db, "t")["state"] == "working"
    assert status(db, "t")["state"] == "no worker"


def test_counts_are_exact_up_to_10_000_and_quick_beyond(conn: Connection) -> None:
    conn.execute("create table t (id int primary key, body text)")
    vectorize(conn, "t", "body")
    [(queue,)] = rows(conn, "select queue from _pgstack.vectorizer_plan")
    queue_up = f"insert into {queue} (id, queued_at) select i, now() - interval '1 h' from "
    conn.execute(queue_up + "generate_series(1, 4000) as i, generate_series(1, 2)")  # type: ignore[arg-type]
    assert status(conn, "t")["pending"] == 4000
    assert status(conn, "t")["lag"] >= timedelta(hours=1)
    conn.execute(queue_up + "generate_series(1, 10000) as i")  # type: ignore[arg-type]
    assert status(conn, "t")["pending"] == 18_000


def test_others_see_no_rows_and_get_no_error(served: Connection, visitor: Connection) -> None:
    served.execute("select pgstack.embed('a question')")
    for view in ("usage", "vectorizer_errors", "workers"):
        assert rows(visitor, f"select * from pgstack.{view}") == []
    await_value(served, "select count(*) from pgstack.usage")
    assert rows(served, "select count(*) from pgstack.workers") == [(1,)]
