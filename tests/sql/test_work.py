"""The worker's functions: what they read, and what they leave behind."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from psycopg.types.json import Jsonb

from pgstack.worker.app import SETTINGS

Conn = psycopg.Connection[Any]
Drain = Callable[[], int]

ROWS, BATCH = 2000, 100


def value(conn: Conn, query: str) -> Any:
    [(found,)] = conn.execute(query.encode()).fetchall()
    return found


@pytest.fixture
def docs(conn: Conn) -> Conn:
    """A vectorizer on some thousand rows, in a session with a worker's settings."""
    for setting in SETTINGS.items():
        conn.execute("select set_config(%s, %s, true)", setting)
    conn.execute("create table docs (id integer primary key, body text)")
    conn.execute(f"insert into docs select i, 'text ' || i from generate_series(1, {ROWS}) i")
    conn.execute("analyze docs")
    conn.execute(
        "select pgstack.create_vectorizer('docs', 'body', dimensions => 3, index => 'none',"
        " enqueue_existing => false)"
    )
    return conn


def test_a_batch_reads_its_own_rows_only(docs: Conn, drain: Drain) -> None:
    """A few rows of a table are found by key, also where it is small enough to be read."""
    docs.execute("update docs set body = body || '!'")
    assert drain() == ROWS
    docs.execute("analyze")
    docs.execute(f"update docs set body = body || '?' where id <= {BATCH}")
    read = """
      select sum(idx_tup_fetch + seq_tup_read) from pg_stat_xact_user_tables
      where relname in ('docs', 'docs_embedding_store')
    """
    before = value(docs, read)
    assert drain() == BATCH
    assert value(docs, read) - before <= 10 * BATCH


@pytest.mark.parametrize(
    "statement",
    ["select pgstack.drop_vectorizer('docs')", "select ai.drop_vectorizer('docs', false)"],
)
def test_a_dropped_vectorizer_leaves_no_leases(docs: Conn, statement: str) -> None:
    docs.execute("update docs set body = body || '!' where id <= 10")
    docs.execute("select from _pgstack.work_claim(gen_random_uuid(), null, '{}', '{}')")
    assert value(docs, "select count(*) from _pgstack.work") == 10
    docs.execute(statement.encode())
    docs.execute("select _pgstack.worker_sweep()")
    assert value(docs, "select count(*) from _pgstack.work") == 0


def test_a_pause_from_before_the_clock_was_set_back_is_forgotten(docs: Conn) -> None:
    """A key that is not queued is in nobody's way, but it would count as work for hours."""
    docs.execute(
        "insert into _pgstack.work (vectorizer_id, digest, key, state, due_at, changed_at)"
        " select v.id, _pgstack.key_digest(k.key), k.key, 'waiting', t.at, t.at"
        " from ai.vectorizer as v, (select '{\"id\": 7}'::jsonb as key) as k,"
        " (select clock_timestamp() + interval '2 hours' as at) as t"
    )
    docs.execute("select _pgstack.worker_sweep()")
    assert value(docs, "select count(*) from _pgstack.work") == 0


def test_nothing_is_claimed_or_loaded_for_a_model_of_before(docs: Conn) -> None:
    """Or its vectors would be stored as those of the model that is set now."""
    docs.execute("update docs set body = body || '!' where id <= 10")
    claim = (
        "select keys::text[], model_key"
        " from _pgstack.work_claim(gen_random_uuid(), null, '{}', '{}')"
    )
    [(keys, model_key)] = docs.execute(claim).fetchall()
    plan = value(docs, "select p::text from _pgstack.vectorizer_plan as p")
    vectorizer = value(docs, "select id from ai.vectorizer")

    def found() -> tuple[int, int]:
        loaded = docs.execute(
            "select from _pgstack.work_load(%s, %s::jsonb[], %s, null)",
            (vectorizer, keys, model_key),
        )
        docs.execute("delete from _pgstack.work")
        claimed = docs.execute(
            "select cardinality(_pgstack.claim_keys(%s::_pgstack.vectorizer_plan,"
            " gen_random_uuid(), 32, null, false))",
            (plan,),
        )
        return loaded.rowcount, claimed.fetchall()[0][0]

    assert found() == (10, 10)
    docs.execute(
        "update ai.vectorizer set config = jsonb_set(config, '{embedding,model}', '\"another\"')"
    )
    assert found() == (0, 0)


def test_a_row_given_back_keeps_the_error_of_its_last_try(docs: Conn) -> None:
    worker = "00000000-0000-0000-0000-000000000001"
    vectorizer = value(docs, "select id from ai.vectorizer where name = 'docs'")
    docs.execute("update docs set body = body || '!' where id <= 2")

    def claim() -> None:
        docs.execute("update _pgstack.work set due_at = now() - interval '1 s'")
        docs.execute("select from _pgstack.work_claim(%s, null, '{}', '{}')", (worker,))

    claim()
    docs.execute(
        "select _pgstack.work_fail(%s, %s, %s::jsonb[], %s::bytea[], 'too odd', false)",
        (worker, vectorizer, ['{"id": 1}'], [None]),
    )
    claim()
    docs.execute(
        "select _pgstack.work_release(%s, %s, %s::jsonb[], null, false)",
        (worker, vectorizer, ['{"id": 1}', '{"id": 2}']),
    )
    assert docs.execute("select key, error from pgstack.vectorizer_errors").fetchall() == [
        ({"id": 1}, "too odd")
    ]


def test_rows_queued_of_late_can_be_claimed_first(docs: Conn) -> None:
    docs.execute("update docs set body = body || '!'")
    queue = value(docs, "select queue from _pgstack.vectorizer_plan")
    docs.execute(f"update {queue} set queued_at = now() + interval '1 s' where id = {ROWS - 1}")
    docs.execute(f"update {queue} set queued_at = now() + interval '2 s' where id = {ROWS}")
    vectorizer = value(docs, "select id from ai.vectorizer")

    def claimed(wish: dict[str, Any]) -> list[int]:
        [(keys,)] = docs.execute(
            "select keys from _pgstack.work_claim(gen_random_uuid(), null, %s, '{}')",
            (Jsonb({str(vectorizer): wish}),),
        ).fetchall()
        return [key["id"] for key in keys]

    newest = {"rows": 2, "after": {"id": 100}, "newest": True}
    assert claimed(newest) == [ROWS, ROWS - 1]
    assert claimed({**newest, "newest": False}) == [101, 102]
