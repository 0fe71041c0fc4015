"""What people see of a worker: ledger, status, errors, progress.

Real PostgreSQL, a real worker process, the deterministic model server.
"""

from __future__ import annotations

import json
import os
import pty
import re
import socket
import subprocess
import sys
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, suppress
from datetime import timedelta
from typing import Any, LiteralString

import psycopg
import pytest

from pgstack.db import connect
from pgstack.worker.progress import Observer, Seen
from tests.integration.conftest import Models, value
from tests.integration.test_worker import await_status, fresh, rows, status, vectorize

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
    worker.wait_until_present()
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
    assert value(db, "select min(tokens) >= 2 and max(tokens) >= 100 from pgstack.usage")


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
        "select w.id, 'http://here:1', v.config -> 'embedding' ->> 'model', "
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
    await_status(db, "t", state="no worker")


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


# ---------------------------------------------------------------------- pgstack worker itself


@pytest.fixture
def queued(db: Connection) -> str:
    """A vectorizer with 60 rows that wait; returns its name."""
    db.execute("create table blog (id int primary key, body text)")
    db.execute("insert into blog select i, 'text ' || i from generate_series(1, 60) as i")
    vectorize(db, "blog", "body")
    return "blog"


Command = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def command(db: Connection, models_url: str) -> Iterator[Command]:
    """``pgstack worker`` on the database of ``db``, with its output in pipes."""
    with ExitStack() as stack:

        def start(*options: str, models_url: str = models_url) -> subprocess.Popen[str]:
            process = subprocess.Popen(
                [sys.executable, "-m", "pgstack_cli", "worker", "-d", db.info.dsn, *options],
                env={**os.environ, "OLLAMA_HOST": models_url},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            stack.enter_context(process)
            stack.callback(process.kill)
            return process

        yield start


COUNTS = {
    "event", "rows", "chunks", "kept", "texts", "tokens", "calls", "failed_calls", "failed_rows",
    "questions", "failed_questions", "pending", "rows_per_second", "tokens_per_second", "seconds",
    "vectorizers",
}  # fmt: skip


def test_json_tells_progress_and_a_summary(
    db: Connection, command: Command, models: Models, queued: str
) -> None:
    models.misbehave(latency_ms=1500)
    process = command("--once", "--json")
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    lines = [json.loads(line) for line in out.splitlines()]
    assert [line["event"] for line in lines[:-1]] == ["progress"] * (len(lines) - 1)
    assert len(lines) > 1
    assert all(set(line) == COUNTS for line in lines)
    assert lines[0]["pending"] > 0
    done = lines[-1]
    assert (done["event"], done["rows"], done["texts"], done["pending"]) == ("summary", 60, 60, 0)
    (blog,) = done["vectorizers"]
    assert set(blog) == {
        "name", "state", "pending", "retrying", "failed", "rows_per_second", "tokens_per_second",
        "eta_seconds", "last_error",
    }  # fmt: skip
    assert (blog["name"], blog["state"], blog["failed"]) == ("blog", "fresh", 0)


def test_chunks_that_keep_their_vector_are_counted(db: Connection, command: Command) -> None:
    db.execute("create table long (id int primary key, body text)")
    db.execute("insert into long values (1, repeat('Some words. ', 200) || 'The end.')")
    vectorize(db, "long", "body", chunk_overlap=0)

    def done() -> dict[str, Any]:
        out, _ = command("--once", "--json").communicate(timeout=60)
        return dict(json.loads(out.splitlines()[-1]))

    first = done()
    db.execute("update long set body = body || ' Or not.'")
    again = done()
    assert first["chunks"] == again["chunks"] == again["kept"] + 1
    assert again["texts"] == 1
    assert again["tokens"] > 0


def test_a_database_that_is_silent_keeps_nobody_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pgstack.worker.progress.PATIENCE_SECONDS", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as silent, ExitStack() as stack:
        port = silent.getsockname()[1]
        observer = stack.enter_context(closing(Observer(f"postgresql://127.0.0.1:{port}/x")))
        assert observer.seen(max_age=0) == Seen()
        assert observer.seen(max_age=0) == Seen()
        conn, _ = silent.accept()
        conn.close()


def test_a_worker_that_runs_on_sums_up_when_it_is_stopped(
    db: Connection, command: Command, queued: str
) -> None:
    process = command("--json")
    await_value(db, "select _pgstack.worker_present()")
    assert fresh(db, "blog")
    process.terminate()
    out, err = process.communicate(timeout=30)
    assert process.returncode == 0, err
    assert json.loads(out.splitlines()[-1])["rows"] == 60


def test_once_with_failed_rows_ends_with_1_and_names_the_next_command(
    db: Connection, command: Command, models: Models, queued: str
) -> None:
    models.misbehave(fail_if_contains="text 7", fail_if_status=400)
    db.execute("delete from blog where id > 10")
    process = command("--once")
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1, err
    assert "embedded 9 rows in 9 chunks (0 kept)" in err
    assert err.splitlines()[-1] == "hint: pgstack vectorizer errors blog"
    shown = subprocess.run(
        [sys.executable, "-m", "pgstack_cli", "vectorizer", "errors", "blog", "-d", db.info.dsn],
        capture_output=True,
        text=True,
        check=True,
    )
    head, row = shown.stdout.splitlines()
    assert head.split() == ["key", "state", "attempts", "since", "next", "try", "error"]
    assert row.startswith("id=7  failed")
    assert "hint" not in shown.stderr
    assert "pgstack vectorizer retry blog" in shown.stderr


def test_once_out_of_reach_ends_with_3_and_a_summary(
    db: Connection, command: Command, queued: str
) -> None:
    process = command("--once", "--json", models_url="http://127.0.0.1:1")
    out, err = process.communicate(timeout=60)
    assert process.returncode == 3, err
    assert json.loads(out.splitlines()[-1])["event"] == "summary"
    assert json.loads(out.splitlines()[-1])["pending"] == 60


def test_a_terminal_shows_the_vectorizers(db: Connection, models_url: str, queued: str) -> None:
    parent, child = pty.openpty()
    try:
        process = subprocess.Popen(
            [sys.executable, "-m", "pgstack_cli", "worker", "--once", "-d", db.info.dsn],
            env={**os.environ, "OLLAMA_HOST": models_url, "TERM": "xterm", "COLUMNS": "120"},
            stdout=subprocess.PIPE,
            stderr=child,
        )
        os.close(child)
        text = b""
        with suppress(OSError):  # how a terminal ends
            while part := os.read(parent, 65536):
                text += part
        assert process.communicate(timeout=30) == (b"", None)
        assert process.returncode == 0, text
    finally:
        os.close(parent)
    assert b"tokens/s" in text
    assert b"blog" in text
    assert b"rows" in text.splitlines()[-1]
    assert b"connected, model server" in text


def test_metrics_are_served_as_long_as_the_worker_runs(
    db: Connection, command: Command, queued: str
) -> None:
    process = command("--metrics", "0")
    assert process.stderr is not None
    url = process.stderr.readline().split()[-1]
    assert url.startswith("http://127.0.0.1:")
    await_value(db, "select _pgstack.worker_present()")
    assert fresh(db, "blog")
    with urllib.request.urlopen(url, timeout=10) as answer:
        text = answer.read().decode()
    assert 'pgstack_rows_total{vectorizer="blog"} 60.0' in text
    assert 'pgstack_pending_rows{vectorizer="blog"}' in text
    assert 'pgstack_model_resting{model="all-minilm"} 0.0' in text
    process.terminate()
    process.communicate(timeout=30)
    assert process.returncode == 0
    with pytest.raises(OSError):
        urllib.request.urlopen(url, timeout=10)


def test_metrics_at_a_busy_port_are_refused(command: Command) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        process = command("--once", "--metrics", str(port))
        _, err = process.communicate(timeout=30)
    assert process.returncode == 2
    assert err.startswith(f"error: cannot serve metrics at 127.0.0.1:{port}: ")
    assert "Traceback" not in err
