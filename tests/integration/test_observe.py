"""What people see of a worker: ledger, status, errors, progress.

Real PostgreSQL, a real worker process, the deterministic model server.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, LiteralString

import psycopg

from pgstack.db import connect
from tests.integration.conftest import value
from tests.integration.test_worker import fresh, rows, vectorize

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
            db.execute("insert into t values (%s, 'text')", (i,))
            assert fresh(db, "t", 10)
    assert await_value(db, "select sum(texts) from pgstack.usage") == 3
