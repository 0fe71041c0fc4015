"""SQL calls models: answers, errors, waiting, cancelling, and who may see what."""

from __future__ import annotations

import contextlib
import threading
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, LiteralString

import psycopg
import pytest

from pgstack.db import connect
from tests.integration.conftest import raises, value

Connection = psycopg.Connection[Any]
Models = Any  # the class of the fixture `models`


def requests(db: Connection) -> int:
    return int(value(db, "select count(*) from _pgstack.request"))


def sweep_until_no_requests(db: Connection) -> None:
    """What a worker does every few seconds."""
    until = time.monotonic() + 5
    while requests(db):
        assert time.monotonic() < until, db.execute("select * from _pgstack.request").fetchall()
        db.execute("select _pgstack.request_sweep(), pg_sleep(0.01)")


def bridge_pid(conn: Connection) -> int:
    return int(
        value(
            conn,
            "select pid from dblink('pgstack', 'select pg_backend_pid()') as t (pid integer)",
        )
    )


class InBackground:
    """A statement that runs while the test does something else."""

    def __init__(self, conn: Connection, query: LiteralString) -> None:
        self.pid = conn.info.backend_pid
        self.error: psycopg.Error | None = None
        self._thread = threading.Thread(target=self._run, args=(conn, query))
        self._thread.start()

    def _run(self, conn: Connection, query: LiteralString) -> None:
        try:
            conn.execute(query)
        except psycopg.Error as exc:
            self.error = exc

    def goes_on(self) -> bool:
        return self._thread.is_alive()

    def end(self) -> psycopg.Error | None:
        self._thread.join(20)
        assert not self._thread.is_alive()
        return self.error


# ------------------------------------------------------------------------- answers


def test_every_call_answers(served: Connection) -> None:
    assert value(served, "select vector_dims(pgstack.embed('hello'))") == 384
    rows = served.execute(
        "select seq, vector_dims(embedding) from pgstack.embed_many(array['a b', null, '', 'c'])"
    ).fetchall()
    assert rows == [(0, 384), (1, None), (2, None), (3, 384)]
    assert value(served, "select pgstack.generate('say this')") == "say this"
    answer = value(served, """select pgstack.chat('[{"role": "user", "content": "and that"}]')""")
    assert answer["message"]["content"] == "and that"
    names = [row[0] for row in served.execute("select name from pgstack.models()")]
    assert names == sorted(names)
    assert {"all-minilm:latest", "qwen2.5-coder:0.5b"} <= set(names)
    assert requests(served) == 0


def test_one_text_has_one_vector_however_it_is_asked(served: Connection) -> None:
    same = value(
        served,
        """
        select pgstack.embed('cats', input_type => 'document') = m.embedding
        from pgstack.embed_many(array['dogs', 'cats']) as m where m.seq = 1
        """,
    )
    assert same


def test_a_schema_and_options_reach_the_model(served: Connection) -> None:
    schema = '{"type": "object", "required": ["a"], "properties": {"a": {"const": null}}}'
    assert value(served, "select pgstack.generate('x', format => %s)", schema) == '{"a": null}'
    short = value(served, """select pgstack.generate('a b c d', options => '{"num_predict": 2}')""")
    assert short == "a b"


def test_nothing_asked_is_nothing_answered(served: Connection, models: Models) -> None:
    assert value(served, "select pgstack.embed(null)") is None
    assert value(served, "select pgstack.generate(null)") is None
    assert value(served, "select pgstack.chat(null)") is None
    assert served.execute("select * from pgstack.embed_many(null)").fetchall() == []
    assert served.execute("select * from pgstack.embed_many('{}')").fetchall() == []
    assert served.execute("select * from pgstack.embed_many(array['', null])").fetchall() == [
        (0, None),
        (1, None),
    ]
    assert models.stats()["total_calls"] == 0


@pytest.mark.parametrize(
    "text",
    [
        "word " * 200_000,
        "quote ' double \" back \\ slash \\' percent %s %% dollar $$ $1 ünïcode 😀\n\t",
        "'; drop table _pgstack.request; --",
        " ",
    ],
    ids=["1 MB", "odd characters", "injection", "blank"],
)
def test_any_text_arrives_as_it_is(served: Connection, models: Models, text: str) -> None:
    assert value(served, "select vector_dims(pgstack.embed(%s))", text) == 384
    assert models.asked(text) == 1


def test_odd_session_settings_change_nothing(served: Connection, models: Models) -> None:
    served.execute("set intervalstyle = sql_standard")
    served.execute("set extra_float_digits = -10")
    served.execute("set search_path = ''")
    served.execute("set bytea_output = escape")
    text = f"back\\slash {uuid.uuid4()}"
    assert value(served, "select public.vector_dims(pgstack.embed(%s))", text) == 384
    assert models.asked(text) == 1


@pytest.mark.parametrize(
    "begin",
    ["repeatable read", "serializable", "serializable read only", "read committed read only"],
)
def test_in_every_kind_of_transaction(served: Connection, begin: LiteralString) -> None:
    served.execute(f"begin isolation level {begin}")
    assert value(served, "select vector_dims(pgstack.embed('one'))") == 384
    assert value(served, "select vector_dims(pgstack.embed('two'))") == 384
    assert value(served, "select pgstack.generate('three')") == "three"
    served.execute("commit")


def test_in_a_subtransaction_that_rolls_back(served: Connection, models: Models) -> None:
    text = f"sub {uuid.uuid4()}"
    served.execute(f"""
        do $$
        begin
          begin
            perform pgstack.embed('{text}');
            raise exception 'undo';
          exception when raise_exception then null;
          end;
          perform pgstack.embed('{text}');
          perform pgstack.embed('{text} more');
        end
        $$
    """)
    assert value(served, "select vector_dims(pgstack.embed(%s))", text) == 384
    assert models.asked(f"{text} more") == 1


# -------------------------------------------------------------------------- errors


def test_a_wrong_model_is_named_with_what_to_do(served: Connection) -> None:
    for query in (
        "select pgstack.embed('x', 'no-such')",
        "select pgstack.generate('x', 'no-such')",
        """select pgstack.chat('[{"role": "user", "content": "x"}]', 'no-such')""",
        "select * from pgstack.embed_many(array['x'], 'no-such')",
    ):
        with raises("PS006", "no-such", hint="pgstack model pull no-such"):
            served.execute(query)


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("select pgstack.embed('')", "empty text"),
        ("select pgstack.embed('x', input_type => 'poem')", "poem"),
        ("select pgstack.embed('x', input_type => null)", "NULL"),
        ("select pgstack.embed('x', 'two words')", "two words"),
        ("select * from pgstack.embed_many(array['x'], input_type => 'poem')", "poem"),
        ("select pgstack.chat('{}')", "array"),
        ("select pgstack.generate('x', '')", "called"),
    ],
)
def test_a_bad_argument_never_reaches_the_worker(
    conn: Connection, query: LiteralString, words: str
) -> None:
    with raises("PS007", words):
        conn.execute(query)


@pytest.mark.parametrize(
    ("faults", "sqlstate", "words"),
    [
        ({"fail_next": -1, "status": 503}, "PS005", "failed on request"),
        ({"fail_next": -1, "status": 400}, "PS005", "failed on request"),
        ({"fail_next": -1, "status": 500}, "PS005", "failed on request"),
        ({"html": True}, "PS010", "not Ollama's JSON"),
        ({"truncate_body": True}, "PS010", "not Ollama's JSON"),
        ({"reset": True}, "PS005", "broke"),
        ({"drop_one": True}, "PS010", "0 vectors for 1 texts"),
    ],
    ids=lambda v: "-".join(v) if isinstance(v, dict) else None,
)
def test_a_failing_model_server_speaks_through_the_statement(
    served: Connection, models: Models, faults: dict[str, Any], sqlstate: str, words: str
) -> None:
    models.misbehave(**faults)
    with raises(sqlstate, words):
        served.execute("select pgstack.embed('doomed')")
    models.clear()
    assert value(served, "select vector_dims(pgstack.embed('doomed'))") == 384
    assert requests(served) == 0


def test_without_a_worker_the_error_comes_soon_and_says_how(db: Connection) -> None:
    began = time.monotonic()
    with raises("PS003", "no worker", hint="pgstack worker"):
        db.execute("select pgstack.embed('x')")
    assert time.monotonic() - began < 2
    assert requests(db) == 0


def test_without_a_worker_nothing_waits_on(db: Connection) -> None:
    for query in ("select * from pgstack.models()", "select pgstack.generate('x')"):
        with raises("PS003"):
            db.execute(query)


def test_request_timeout_ends_the_wait_and_the_call(served: Connection, models: Models) -> None:
    models.misbehave(hang=True)
    served.execute("set pgstack.request_timeout = '300ms'")
    began = time.monotonic()
    with raises("PS004", "00:00:00.3", hint="request_timeout"):
        served.execute("select pgstack.embed('slow')")
    assert time.monotonic() - began < 1.5
    models.await_stats(lambda stats: stats["cancelled"] == 1)
    assert requests(served) == 0


# -------------------------------------------------------------------------- cancel


def test_a_cancelled_statement_stops_the_model(
    served: Connection, served_url: str, models: Models
) -> None:
    models.misbehave(hang=True)
    with connect(served_url, autocommit=True) as asker:
        for count in (1, 2):  # the second time over a bridge that is open already
            running = InBackground(asker, "select pgstack.embed('cancel me')")
            models.await_stats(lambda stats: stats["concurrent"] == 1)
            served.execute("select pg_cancel_backend(%s)", (running.pid,))
            error = running.end()
            assert isinstance(error, psycopg.errors.QueryCanceled)
            models.await_stats(lambda stats, n=count: stats["cancelled"] == n)  # type: ignore[misc]
            assert requests(served) == 0
        models.clear()
        assert value(asker, "select vector_dims(pgstack.embed('cancel me'))") == 384


def test_statement_timeout_stops_the_model(served: Connection, models: Models) -> None:
    models.misbehave(hang=True)
    served.execute("set statement_timeout = '200ms'")
    with pytest.raises(psycopg.errors.QueryCanceled):
        served.execute("select pgstack.generate('cancel me')")
    served.execute("set statement_timeout = 0")
    assert requests(served) == 0
    models.await_stats(lambda stats: stats["cancelled"] == 1)
    models.clear()
    assert value(served, "select pgstack.generate('again')") == "again"


def test_a_question_is_withdrawn_with_its_transaction_still_open(
    served: Connection, models: Models
) -> None:
    served.execute("begin; savepoint before")
    models.misbehave(hang=True)
    served.execute("set local statement_timeout = '200ms'")
    with pytest.raises(psycopg.errors.QueryCanceled):
        served.execute("select pgstack.embed('cancel me')")
    models.await_stats(lambda stats: stats["cancelled"] == 1)
    models.clear()
    served.execute("rollback to before")
    assert value(served, "select vector_dims(pgstack.embed('go on'))") == 384
    served.execute("commit")
    assert requests(served) == 0


def test_cancelling_in_quick_succession_leaves_nothing(
    served: Connection, served_url: str, models: Models
) -> None:
    """A cancel may hit the connecting, the posting or a poll: all must end well."""
    with connect(served_url, autocommit=True) as asker:
        for i in range(30):
            asker.execute(f"set statement_timeout = '{1 + i}ms'")
            with contextlib.suppress(psycopg.errors.QueryCanceled):
                asker.execute("select pgstack.embed(%s)", (f"quick {i}",))
        asker.execute("set statement_timeout = 0")
        assert requests(served) == 0
        assert value(asker, "select vector_dims(pgstack.embed('calm'))") == 384
    assert models.asked("calm") == 1


def test_a_terminated_asker_leaves_nothing(
    served: Connection, served_url: str, models: Models
) -> None:
    models.misbehave(hang=True)
    asker = connect(served_url, autocommit=True)
    running = InBackground(asker, "select pgstack.embed('leave me')")
    models.await_stats(lambda stats: stats["concurrent"] == 1)
    served.execute("select pg_terminate_backend(%s)", (running.pid,))
    assert running.end() is not None
    asker.close()
    models.await_stats(lambda stats: stats["cancelled"] == 1)
    sweep_until_no_requests(served)


# ---------------------------------------------------------------------- connection


def test_a_killed_bridge_is_opened_anew(served: Connection, served_url: str) -> None:
    served.execute("select pgstack.embed('first')")
    with connect(served_url, autocommit=True) as other:
        first = bridge_pid(served)
        other.execute("select pg_terminate_backend(%s, 5000)", (first,))
    assert value(served, "select vector_dims(pgstack.embed('second'))") == 384
    assert bridge_pid(served) != first


def test_a_bridge_killed_while_it_waits_is_told_apart(
    served: Connection, served_url: str, models: Models
) -> None:
    with connect(served_url, autocommit=True) as asker:
        asker.execute("select pgstack.embed('open it')")
        pid = bridge_pid(asker)
        models.misbehave(hang=True)
        running = InBackground(asker, "select pgstack.embed('lost')")
        models.await_stats(lambda stats: stats["concurrent"] == 1)
        served.execute("select pg_terminate_backend(%s)", (pid,))
        error = running.end()
        assert error is not None
        assert error.sqlstate == "PS009"
        models.await_stats(lambda stats: stats["cancelled"] == 1)
        models.clear()
        assert value(asker, "select vector_dims(pgstack.embed('lost'))") == 384
    sweep_until_no_requests(served)


@pytest.mark.parametrize("way", ["pg_terminate_backend", "pg_cancel_backend"])
def test_what_one_session_does_to_the_bridge_of_another_is_told(
    make_role: Callable[[str], Connection], models: Models, way: str
) -> None:
    """All bridges log in as one role, so each may end another's: it costs a question at most."""
    bob, eve = make_role("bob"), make_role("eve")
    for conn in (bob, eve):
        conn.execute("select pgstack.embed('open it')")
    attack = f"select {way}({bridge_pid(bob)})::text"
    models.misbehave(hang=True)
    running = InBackground(bob, "select pgstack.embed('lost')")
    models.await_stats(lambda stats: stats["concurrent"] == 1)
    until = time.monotonic() + 20
    while running.goes_on():
        assert time.monotonic() < until
        eve.execute("select t.x from dblink('pgstack', %s) as t (x text)", (attack,))
    error = running.end()
    assert error is not None
    assert error.sqlstate == "PS009"
    assert "the bridge to the worker broke" in str(error)
    assert "Run the statement again" in str(error.diag.message_hint)
    models.await_stats(lambda stats: stats["cancelled"] == 1, seconds=20)
    models.clear()
    eve.execute("select t.x from dblink('pgstack', %s) as t (x text)", (attack,))
    for conn in (bob, eve):
        assert value(conn, "select vector_dims(pgstack.embed('found'))") == 384


def test_a_statement_cancelled_by_its_user_says_so(
    served: Connection, served_url: str, models: Models
) -> None:
    """Also where the cancel finds it waiting for the bridge, and not between two looks."""
    models.misbehave(hang=True)
    with connect(served_url, autocommit=True) as asker:
        for nr in range(5):
            running = InBackground(asker, "select pgstack.embed('lost')")
            models.await_stats(lambda stats: stats["concurrent"] == 1)
            time.sleep(0.01 * nr)
            served.execute("select pg_cancel_backend(%s)", (running.pid,))
            error = running.end()
            assert error is not None
            assert error.sqlstate == "57014"
            models.await_stats(lambda stats: stats["concurrent"] == 0)


def test_a_bridge_used_for_something_else_recovers(served: Connection) -> None:
    served.execute("select pgstack.embed('first')")
    served.execute("select dblink_send_query('pgstack', 'select pg_sleep(0.1)')")
    assert value(served, "select vector_dims(pgstack.embed('second'))") == 384
    served.execute("select dblink_disconnect('pgstack')")
    assert value(served, "select vector_dims(pgstack.embed('third'))") == 384


def test_the_bridge_is_kept_open_or_not_as_told(served: Connection, models: Models) -> None:
    connections: LiteralString = "select coalesce(cardinality(dblink_get_connections()), 0)"
    served.execute("select pgstack.embed('kept')")
    first = bridge_pid(served)
    served.execute("select pgstack.embed('kept as well')")
    assert bridge_pid(served) == first
    served.execute("set pgstack.bridge_keep_open = off")
    served.execute("select pgstack.embed('closed after')")
    assert value(served, connections) == 0
    with raises("PS006"):
        served.execute("select pgstack.embed('x', 'no-such')")
    assert value(served, connections) == 0
    models.misbehave(hang=True)
    served.execute("set statement_timeout = '200ms'")
    with pytest.raises(psycopg.errors.QueryCanceled):
        served.execute("select pgstack.embed('cancelled')")
    assert value(served, connections) == 0


def test_many_sessions_get_each_its_own_answer(served_url: str, models: Models) -> None:
    models.misbehave(latency_ms=30)

    def ask(number: int) -> list[str]:
        with connect(served_url, autocommit=True) as conn:
            return [
                value(conn, "select pgstack.generate(%s)", f"session {number} call {i}")
                for i in range(3)
            ]

    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(ask, range(20)))
    assert answers == [[f"session {n} call {i}" for i in range(3)] for n in range(20)]
    assert models.stats()["concurrent_max"] > 5


def test_other_uses_of_dblink_are_left_alone(served: Connection, served_url: str) -> None:
    served.execute("select dblink_connect('mine', %s)", (served_url,))
    served.execute("select pgstack.embed('x')")
    assert value(served, "select a from dblink('mine', 'select 7') as t (a integer)") == 7
    assert set(value(served, "select dblink_get_connections()")) == {"mine", "pgstack"}
