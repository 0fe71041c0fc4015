"""Things change under the worker's hands: vectorizers, tables, rights, pgstack itself.

One vectorizer's end harms no other; and no user ever waits for a model.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo

from tests.faults.harness import Stack


@pytest.fixture
def in_flight(stack: Stack) -> Iterator[Stack]:
    """A stack whose table t is in the model's hands; its table other is a bystander."""
    stack.create_table(rows=200)
    stack.create_table("other", rows=20)
    stack.start_workers(1)
    stack.wait(lambda: stack.status("other")["pending"] == 0, "the bystander is fresh")
    stack.models.misbehave(slow_if_contains="in flight", slow_ms=500)
    before = stack.models.stats()["total_calls"]
    stack.execute("update t set body = 'in flight ' || id")
    stack.wait(lambda: stack.models.stats()["total_calls"] > before, "texts are with the model")
    yield stack


def bystander_goes_on(stack: Stack) -> None:
    """The other vectorizer embeds a change while the first is in trouble."""
    stack.execute("update other set body = 'changed ' || id")
    stack.wait(lambda: stack.status("other")["pending"] == 0, "the bystander is fresh", seconds=15)
    stack.compare("other")


def test_dropped(in_flight: Stack) -> None:
    in_flight.execute("select pgstack.drop_vectorizer('t', drop_data => true)")
    in_flight.tables.remove("t")
    bystander_goes_on(in_flight)
    in_flight.settle()


def test_dropped_and_made_again(in_flight: Stack) -> None:
    in_flight.execute("select pgstack.drop_vectorizer('t', drop_data => true)")
    in_flight.execute("alter table t rename to old")
    in_flight.tables.remove("t")
    in_flight.create_table("t", rows=30)
    bystander_goes_on(in_flight)
    in_flight.settle()


def test_paused(in_flight: Stack) -> None:
    in_flight.execute("select pgstack.pause_vectorizer('t')")
    bystander_goes_on(in_flight)
    in_flight.execute("update t set body = 'while paused ' || id where id <= 10")
    assert in_flight.status()["state"] == "paused"
    assert in_flight.status()["pending"] > 0
    in_flight.execute("select pgstack.resume_vectorizer('t')")
    in_flight.settle()


@pytest.mark.parametrize(
    "setting",
    [("model", "no-such-model"), ("model", "deterministic:768"), ("base_url", "http://10.0.0.1:1")],
    ids=lambda setting: setting[1],
)
def test_reconfigured_wrongly(in_flight: Stack, setting: tuple[str, str]) -> None:
    name, value = setting
    [(config,)] = in_flight.execute("select config from ai.vectorizer where name = 't'")
    in_flight.execute(
        "update ai.vectorizer set config = jsonb_set(config, %s, to_jsonb(%s::text)) "
        "where name = 't'",
        ["embedding", name],
        value,
    )
    in_flight.execute("update t set body = 'with a wrong setting ' || id")
    bystander_goes_on(in_flight)
    in_flight.wait(lambda: in_flight.status()["state"] == "blocked", "it is blocked")
    assert in_flight.status()["last_error"]
    in_flight.execute(
        "update ai.vectorizer set config = %s where name = 't'", psycopg.types.json.Jsonb(config)
    )
    in_flight.settle(retry=True)


def test_source_dropped(in_flight: Stack) -> None:
    in_flight.execute("drop table t cascade")
    bystander_goes_on(in_flight)
    assert "gone" in in_flight.status()["last_error"]
    in_flight.execute("select pgstack.drop_vectorizer('t', drop_data => true)")
    in_flight.tables.remove("t")
    in_flight.settle()


def test_target_dropped(in_flight: Stack) -> None:
    in_flight.execute("drop table t_embedding_store cascade")
    bystander_goes_on(in_flight)
    assert "gone" in in_flight.status()["last_error"]
    in_flight.execute("select pgstack.drop_vectorizer('t')")
    in_flight.tables.remove("t")
    in_flight.settle()


def test_text_column_dropped(in_flight: Stack) -> None:
    in_flight.execute("alter table t rename column body to words")
    in_flight.execute("insert into other (id, title, body) values (1000, 'one', 'more')")
    bystander_goes_on(in_flight)
    in_flight.wait(lambda: in_flight.status()["state"] == "blocked", "it is blocked")
    in_flight.execute("alter table t rename column words to body")
    in_flight.settle(retry=True)


@pytest.fixture
def worker_role(stack: Stack) -> Iterator[str]:
    """A login that owns what postgres owns, without being a superuser."""
    role = f"worker_{stack.dbname}"
    name = sql.Identifier(role)
    with stack.connect() as conn:
        conn.execute(sql.SQL("create role {0} login; grant postgres to {0}").format(name))
    yield role
    stack.stop()
    with stack.connect() as conn:
        conn.execute(sql.SQL("drop role {}").format(name))


def test_right_revoked(stack: Stack, worker_role: str) -> None:
    stack.create_table(rows=100)
    stack.create_table("other", rows=20)
    stack.start_worker(dsn=make_conninfo(stack.dsn, user=worker_role))
    stack.wait_until_connected()
    stack.wait_for_progress()
    stack.execute("alter table t owner to pgstack_owner; update t set body = 'secret ' || id")
    bystander_goes_on(stack)
    # What is wrong, with the command that mends it.
    why = "the worker may not read and lock rows of the source: grant select, update on public.t"
    stack.wait(lambda: why in (stack.status()["last_error"] or ""), "it says why")
    assert stack.status()["failed"] == 0
    stack.execute("alter table t owner to postgres")
    stack.settle(retry=True)


def test_two_installs_at_once(stack: Stack) -> None:
    stack.create_table(rows=100)
    stack.start_workers(2)
    with stack.writing():
        stack.wait_for_progress()
        command = [sys.executable, "-m", "pgstack_cli", "install", "-d", stack.dsn]
        installs = [
            subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
            for _ in range(2)
        ]
        for install in installs:
            said, _ = install.communicate(timeout=60)
            assert install.returncode == 0, said
        stack.wait_for_progress()
    stack.settle()


# -- users never wait ---------------------------------------------------------------------

STATEMENTS = (
    "update t set body = 'changed' where id = 1",
    "update t set title = 'changed' where id between 2 and 20",
    "update t set id = 1001 where id = 21",
    "insert into t (id, title, body) values (22, 'again', 'again') "
    "on conflict (id) do update set body = excluded.body",
    "delete from t where id = 23",
    "select * from t for update",
    "alter table t add column extra text",
    "alter table t alter column note set default 'none'",
    "create index on t (title)",
    "select pgstack.pause_vectorizer('t')",
    "select pgstack.resume_vectorizer('t')",
    "select pgstack.retry_vectorizer('t')",
    "begin; lock table t, t_embedding_store; commit",
    "truncate t",
    "select pgstack.drop_vectorizer('t', drop_data => true)",
)


def test_users_never_wait_for_a_model(stack: Stack) -> None:
    stack.create_table(rows=100)
    stack.models.misbehave(hang=True)
    stack.start_workers(2)
    stack.models.wait_for_calls()
    with stack.connect(options="-c statement_timeout=2s") as conn:
        for statement in STATEMENTS:
            conn.execute(statement)  # type: ignore[arg-type]
    stack.tables.remove("t")
    stack.models.kill()  # the calls that hang
    stack.settle()
