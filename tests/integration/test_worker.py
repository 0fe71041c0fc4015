"""The worker keeps every vectorizer's target equal to its source.

Real PostgreSQL, a real worker process, the deterministic model server.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from psycopg import sql

from pgstack.db import connect
from tests.conftest import need_extension

Connection = psycopg.Connection[Any]


def vectorize(db: Connection, table: str, content: str, **options: Any) -> None:
    """Create a vectorizer of 384 dimensions; SQL arguments by name."""
    arguments = {"dimensions": 384, **options}
    named = sql.SQL(", ").join(
        sql.SQL("{} => {}").format(sql.Identifier(name), sql.Literal(value))
        for name, value in arguments.items()
    )
    db.execute(
        sql.SQL("select pgstack.create_vectorizer({}, {}, {})").format(
            sql.Literal(table), sql.Literal(content), named
        )
    )


def fresh(db: Connection, name: str, seconds: int = 30) -> bool:
    """Wait until a vectorizer is fresh."""
    row = db.execute(
        "select pgstack.wait_until_fresh(%s, make_interval(secs => %s))", (name, seconds)
    ).fetchone()
    assert row is not None
    return bool(row[0])


def status(db: Connection, name: str) -> dict[str, Any]:
    """One row of pgstack.vectorizer_status as a dict."""
    with db.cursor(row_factory=psycopg.rows.dict_row) as cursor:
        row = cursor.execute(
            "select * from pgstack.vectorizer_status where name = %s", (name,)
        ).fetchone()
    assert row is not None
    return row


def await_status(db: Connection, name: str, **wanted: Any) -> dict[str, Any]:
    """Return the status once its fields have the wanted values; pytest's timeout ends it."""
    while True:
        row = status(db, name)
        if all(row[field] == value for field, value in wanted.items()):
            return row
        db.execute("select pg_sleep(0.02)")


def rows(db: Connection, query: str) -> list[tuple[Any, ...]]:
    return db.execute(query).fetchall()  # type: ignore[arg-type]


# ------------------------------------------------------------------------ what it follows


def test_inserts_updates_and_deletes_are_followed(db: Connection, worker: Any) -> None:
    db.execute("create table t (id int primary key, body text)")
    db.execute("insert into t values (1, 'one'), (2, 'two'), (3, 'three')")
    vectorize(db, "t", "body")
    assert fresh(db, "t")
    db.execute("update t set body = 'zwei' where id = 2")
    db.execute("delete from t where id = 3")
    db.execute("insert into t values (4, 'four')")
    assert fresh(db, "t")
    assert rows(db, "select id, chunk from t_embedding_store order by id") == [
        (1, "one"),
        (2, "zwei"),
        (4, "four"),
    ]
    assert rows(
        db,
        "select count(*) from t_embedding_store "
        "where embedding::text <> pgstack.embed(chunk, input_type => 'document')::text",
    ) == [(0,)]


@pytest.mark.parametrize("empty", [None, ""])
def test_text_that_goes_takes_its_chunks_along(
    db: Connection, worker: Any, empty: str | None
) -> None:
    db.execute("create table t (id int primary key, body text)")
    db.execute("insert into t values (1, 'one')")
    vectorize(db, "t", "body")
    assert fresh(db, "t")
    db.execute("update t set body = %s", (empty,))
    assert fresh(db, "t")
    assert rows(db, "select * from t_embedding_store") == []


def test_chunks_say_where_they_stand(db: Connection, worker: Any) -> None:
    db.execute("create table t (id int primary key, body text)")
    db.execute("insert into t values (1, repeat('Ünïcödé words. ', 40))")
    vectorize(db, "t", "body", chunk_size=100, chunk_overlap=30)
    assert fresh(db, "t")
    assert rows(
        db,
        "select count(*) > 5, "
        "bool_and(substr(body, start_char + 1, end_char - start_char) = chunk) "
        "from t join t_embedding_store as s using (id)",
    ) == [(True, True)]


@pytest.mark.parametrize(
    ("columns", "key", "values"),
    [
        ("id uuid primary key", "id", "gen_random_uuid()"),
        ("id text primary key", "id", "'a''b\"c %s \\ 😀'"),
        ('"Id" int primary key', '"Id"', "7"),
        ('"a b" int, "C""d" text, primary key ("C""d", "a b")', '"a b", "C""d"', "1, 'x'"),
        ("id timestamptz primary key", "id", "'2026-11-21 04:05:06.789+01'"),
        ("id numeric primary key", "id", "12345678901234567890.10"),
        ("id float8 primary key", "id", "'NaN'"),
        ("id bytea primary key", "id", r"'\x00ff'"),
        ("id date primary key", "id", "'0044-03-15 BC'"),
        ("id bigint primary key", "id", "9007199254740993"),
        ("id text primary key", "id", "repeat('x', 2500)"),
    ],
)
def test_any_key_will_do(db: Connection, worker: Any, columns: str, key: str, values: str) -> None:
    db.execute(f"create table t ({columns}, body text)")  # type: ignore[arg-type]
    vectorize(db, "t", "body")
    db.execute(f"insert into t ({key}, body) values ({values}, 'hello')")  # type: ignore[arg-type]
    assert fresh(db, "t")
    same_key = f"select row({key})::text from "
    assert rows(db, same_key + "t_embedding_store") == rows(db, same_key + "t")
    assert rows(db, "select chunk from t_embedding") == [("hello",)]
    db.execute("delete from t")
    assert fresh(db, "t")
    assert rows(db, "select * from t_embedding_store") == []


def test_several_columns_stand_before_every_chunk(db: Connection, worker: Any, models: Any) -> None:
    db.execute("create table t (id int primary key, title text, body text)")
    db.execute("insert into t values (1, 'Costs $5 ${chunk}', 'several columns body')")
    db.execute("select pgstack.create_vectorizer('t', array['title', 'body'], dimensions => 384)")
    assert fresh(db, "t")
    assert models.asked("Costs $5 ${chunk}\n\nseveral columns body") == 1
    assert rows(db, "select chunk from t_embedding_store") == [("several columns body",)]
    db.execute("update t set title = 'Other'")
    assert fresh(db, "t")
    assert models.asked("Other\n\nseveral columns body") == 1


def test_a_column_can_hold_the_vectors(db: Connection, worker: Any) -> None:
    db.execute("create table t (id int primary key, body text)")
    db.execute("insert into t values (1, 'one'), (2, null)")
    vectorize(db, "t", "body", embedding_column="vec")
    assert fresh(db, "t")
    assert rows(db, "select id, vec is not null from t order by id") == [(1, True), (2, False)]
    db.execute("update t set body = null where id = 1")
    assert fresh(db, "t")
    assert rows(db, "select count(vec) from t") == [(0,)]


@pytest.mark.parametrize(
    ("chunking", "expected"),
    [
        ("ai.chunking_none()", ["a. b\n\nc. d"]),
        ("ai.chunking_character_text_splitter(5, 0)", ["a. b", "c. d"]),
        ("ai.chunking_recursive_character_text_splitter(3, 0)", ["a", ". b", "c", ". d"]),
    ],
)
def test_plain_pgai_vectorizers_are_drained(
    db: Connection, worker: Any, models: Any, chunking: str, expected: list[str]
) -> None:
    db.execute("create table t (id int primary key, title text, body text)")
    db.execute("insert into t values (1, 'T', E'a. b\\n\\nc. d')")
    db.execute(
        "select ai.create_vectorizer('t'::regclass, name => 'plain', "  # type: ignore[arg-type]
        "loading => ai.loading_column('body'), "
        "embedding => ai.embedding_ollama('all-minilm', 384), "
        f"chunking => {chunking}, formatting => ai.formatting_python_template('$title| $chunk'), "
        "destination => ai.destination_table('t_plain'))"
    )
    assert fresh(db, "plain")
    assert rows(db, "select chunk from t_plain order by chunk_seq") == [(c,) for c in expected]
    assert all(models.asked(f"T| {chunk}") == 1 for chunk in expected)


def test_deletes_under_repeatable_read_leave_no_orphans(
    db: Connection, db_url: str, worker: Any
) -> None:
    db.execute("create table t (id int primary key, body text)")
    vectorize(db, "t", "body")
    with connect(db_url) as user:
        user.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        user.execute("select 1 from t")  # its snapshot knows of no chunks
        db.execute("insert into t values (1, 'one')")
        user.commit()
        user.execute("select count(*) from t")
        assert fresh(db, "t")
        user.execute("delete from t")
        user.commit()
    assert fresh(db, "t")
    assert rows(db, "select * from t_embedding_store") == []


def test_users_do_not_wait_for_the_model(db: Connection, worker: Any, models: Any) -> None:
    db.execute("create table t (id int primary key, body text)")
    vectorize(db, "t", "body")
    models.misbehave(hang=True)
    db.execute("insert into t values (1, 'one'), (2, 'two')")
    models.await_stats(lambda s: s["concurrent"] > 0)
    db.execute("set lock_timeout = '2s'")
    db.execute("update t set body = 'eins' where id = 1")
    db.execute("delete from t where id = 2")
    db.execute("truncate t")
    models.clear()


# ---------------------------------------------------------------------- what goes wrong


def test_one_bad_row_harms_no_other(db: Connection, worker: Any, models: Any) -> None:
    models.misbehave(fail_if_contains="poison")
    db.execute("create table t (id int primary key, body text)")
    db.execute(
        "insert into t select i, case i when 77 then 'poison' else 'row ' || i end "
        "from generate_series(1, 200) as i"
    )
    vectorize(db, "t", "body")
    row = await_status(db, "t", failed=1, pending=0)
    assert "the input was refused" in row["last_error"]
    assert rows(db, "select count(*) from t_embedding_store") == [(199,)]
    assert rows(db, "select count(*) from ai.vectorizer_errors where name = 't'") == [(1,)]
    models.clear()
    assert rows(db, "select pgstack.retry_vectorizer('t')") == [(1,)]
    assert fresh(db, "t")
    assert status(db, "t")["failed"] == 0
    assert rows(db, "select count(*) from t_embedding_store") == [(200,)]


def test_a_failed_row_is_tried_again_when_it_changes(
    db: Connection, worker: Any, models: Any
) -> None:
    models.misbehave(fail_if_contains="poison")
    db.execute("create table t (id int primary key, body text)")
    db.execute("insert into t values (1, 'poison')")
    vectorize(db, "t", "body")
    await_status(db, "t", failed=1)
    db.execute("update t set body = 'cure'")
    assert fresh(db, "t")
    assert rows(db, "select chunk from t_embedding_store") == [("cure",)]
    assert status(db, "t")["failed"] == 0


def test_nothing_is_lost_while_the_model_server_fails(
    db: Connection, worker: Any, models: Any
) -> None:
    models.misbehave(fail_next=3, status=503)
    db.execute("create table t (id int primary key, body text)")
    db.execute("insert into t values (1, 'one')")
    vectorize(db, "t", "body")
    assert fresh(db, "t", seconds=60)
    assert status(db, "t")["failed"] == 0
    assert rows(db, "select count(*) from t_embedding_store") == [(1,)]


@pytest.mark.parametrize("fault", ["truncate_body", "html", "reset", "nan", "drop_one"])
def test_a_spoiled_answer_is_never_stored(
    db: Connection, worker: Any, models: Any, fault: str
) -> None:
    models.misbehave(**{fault: 1})
    db.execute("create table t (id int primary key, body text)")
    db.execute("insert into t values (1, 'one'), (2, 'two')")
    vectorize(db, "t", "body")
    while status(db, "t")["pending"] > 0:
        db.execute("select pgstack.retry_vectorizer('t'), pg_sleep(0.05)")
    db.execute("select pgstack.retry_vectorizer('t')")
    assert fresh(db, "t")
    assert rows(
        db,
        "select count(*) from t_embedding_store "
        "where embedding::text = pgstack.embed(chunk, input_type => 'document')::text",
    ) == [(2,)]


def test_a_model_of_another_length_blocks_only_its_vectorizer(db: Connection, worker: Any) -> None:
    db.execute("create table bad (id int primary key, body text)")
    db.execute("create table good (id int primary key, body text)")
    db.execute("insert into bad values (1, 'one')")
    vectorize(db, "bad", "body", dimensions=3)
    row = await_status(db, "bad", state="blocked")
    assert "3 dimensions" in row["last_error"]
    assert row["pending"] == 1
    vectorize(db, "good", "body")
    db.execute("insert into good values (1, 'one')")
    assert fresh(db, "good")


def test_a_missing_model_blocks_only_its_vectorizer(db: Connection, worker: Any) -> None:
    db.execute("create table t (id int primary key, body text)")
    db.execute("insert into t values (1, 'one')")
    vectorize(db, "t", "body", model="no-such-model")
    assert "no-such-model" in await_status(db, "t", state="blocked")["last_error"]


def test_a_dropped_source_blocks_only_its_vectorizer(db: Connection, worker: Any) -> None:
    db.execute("create table gone (id int primary key, body text)")
    vectorize(db, "gone", "body")
    db.execute("drop table gone cascade")
    db.execute("create table t (id int primary key, body text)")
    vectorize(db, "t", "body")
    db.execute("insert into t values (1, 'one')")
    assert fresh(db, "t")
    assert "is gone" in status(db, "gone")["last_error"]
    db.execute("select pgstack.drop_vectorizer('gone')")


def test_a_vectorizer_dropped_in_the_middle_harms_nobody(
    db: Connection, worker: Any, models: Any
) -> None:
    db.execute("create table t (id int primary key, body text)")
    vectorize(db, "t", "body")
    models.misbehave(hang=True)
    db.execute("insert into t values (1, 'one')")
    models.await_stats(lambda s: s["concurrent"] > 0)
    db.execute("select pgstack.drop_vectorizer('t', drop_data => true)")
    models.clear()
    vectorize(db, "t", "body")
    assert fresh(db, "t")
    assert worker.process.poll() is None


# ------------------------------------------------------------------- pause, stop, restart


def test_pause_keeps_the_queue_and_resume_drains_it(db: Connection, worker: Any) -> None:
    db.execute("create table t (id int primary key, body text)")
    vectorize(db, "t", "body")
    db.execute("select pgstack.pause_vectorizer('t')")
    db.execute("insert into t values (1, 'one')")
    assert not fresh(db, "t", seconds=1)
    assert (status(db, "t")["state"], status(db, "t")["pending"]) == ("paused", 1)
    db.execute("select pgstack.resume_vectorizer('t')")
    assert fresh(db, "t")


def test_sigterm_stops_cleanly_and_gives_rows_back(
    db: Connection, worker: Any, models: Any
) -> None:
    db.execute("create table t (id int primary key, body text)")
    db.execute("insert into t select i, 'row ' || i from generate_series(1, 300) as i")
    models.misbehave(latency_ms=100)
    vectorize(db, "t", "body")
    models.await_stats(lambda s: s["concurrent"] > 0)
    assert worker.stop(signal.SIGTERM) == 0
    assert rows(db, "select count(*) from _pgstack.work where state = 'leased'") == [(0,)]
    assert rows(db, "select _pgstack.worker_present()") == [(False,)]


def test_a_killed_worker_is_replaced_at_once(
    db: Connection, db_url: str, worker: Any, models: Any, start_worker: Callable[..., Any]
) -> None:
    db.execute("create table t (id int primary key, body text)")
    vectorize(db, "t", "body")
    models.misbehave(hang=True)
    db.execute("insert into t values (1, 'one')")
    models.await_stats(lambda s: s["concurrent"] > 0)
    worker.stop(signal.SIGKILL)
    models.clear()
    start_worker(db_url).wait_until_present()
    assert fresh(db, "t", seconds=20)  # the lease, 60 s, is not waited for
    assert rows(db, "select count(*) from t_embedding_store") == [(1,)]


def test_the_worker_comes_back_when_its_connections_are_cut(db: Connection, worker: Any) -> None:
    db.execute("create table t (id int primary key, body text)")
    vectorize(db, "t", "body")
    db.execute(
        "select pg_terminate_backend(pid) from pg_stat_activity "
        "where application_name = 'pgstack worker' and datname = current_database()"
    )
    worker.wait_until_present()
    db.execute("insert into t values (1, 'one')")
    assert fresh(db, "t")


def test_once_ends_when_nothing_is_left(
    db: Connection, db_url: str, start_worker: Callable[..., Any]
) -> None:
    db.execute("create table t (id int primary key, body text)")
    db.execute("insert into t select i, 'row ' || i from generate_series(1, 500) as i")
    vectorize(db, "t", "body")
    db.execute("delete from t where id <= 250")
    assert start_worker(db_url, "--once").process.wait(timeout=60) == 0
    assert status(db, "t")["pending"] == 0
    assert rows(db, "select count(*) from t_embedding_store") == [(250,)]


def test_two_workers_share_without_doing_anything_twice(
    db: Connection, db_url: str, models: Any, start_worker: Callable[..., Any]
) -> None:
    workers = [start_worker(db_url), start_worker(db_url)]
    for worker in workers:
        worker.wait_until_present()
    models.misbehave(latency_ms=20)
    db.execute("create table t (id int primary key, body text)")
    db.execute("insert into t select i, 'shared row ' || i from generate_series(1, 600) as i")
    vectorize(db, "t", "body")
    assert fresh(db, "t")
    assert models.stats()["texts"] == 600
    assert rows(db, "select count(*) from t_embedding_store") == [(600,)]


# ------------------------------------------------------------------------------ indexes


def test_truncate_waits_for_no_index_build(db: Connection, worker: Any) -> None:
    """Nor does it deadlock with one, which ends by waiting for transactions like this."""
    db.execute("create table t (id int primary key, body text)")
    db.execute("insert into t select i, 'text ' || i from generate_series(1, 100) as i")
    vectorize(db, "t", "body", index="none")
    assert fresh(db, "t")
    with connect(db.info.dsn) as builder:  # locks as create index concurrently does
        builder.execute("lock table t_embedding_store in share update exclusive mode")
        db.execute("set lock_timeout = '2s'")
        db.execute("truncate t")
        assert rows(db, "select count(*) from t_embedding_store") == [(0,)]
    db.execute("insert into t values (1, 'anew')")
    assert fresh(db, "t")
    assert rows(db, "select count(*) from t_embedding_store") == [(1,)]


@pytest.mark.parametrize("method", ["hnsw", "diskann"])
def test_a_large_table_gets_its_index(db: Connection, worker: Any, method: str) -> None:
    if method == "diskann":
        need_extension(db, "vectorscale")
    db.execute("select pgstack.configure('index_min_rows', '50')")
    db.execute("create table t (id int primary key, body text)")
    db.execute("insert into t select i, 'row ' || i from generate_series(1, 60) as i")
    vectorize(db, "t", "body", index=method)
    assert fresh(db, "t")
    await_status(db, "t", index=method)


def test_an_interrupted_index_is_built_anew(db: Connection, worker: Any) -> None:
    db.execute("create table t (id int primary key, body text)")
    db.execute("insert into t select i, 'row ' || i from generate_series(1, 60) as i")
    vectorize(db, "t", "body", index="hnsw")
    assert fresh(db, "t")
    db.execute("create index broken on t_embedding_store using hnsw (embedding vector_cosine_ops)")
    db.execute("update pg_index set indisvalid = false where indexrelid = 'broken'::regclass")
    db.execute("select pgstack.configure('index_min_rows', '50')")
    await_status(db, "t", index="hnsw")
    assert rows(db, "select to_regclass('broken')") == [(None,)]


# --------------------------------------------------------------------- odd neighbours


def test_a_strangers_notification_harms_no_worker(db: Connection, worker: Any) -> None:
    for payload in ("banana", "", "1", "x" * 7000):
        db.execute("select pg_notify('pgstack_cancel', %s)", (payload,))
    assert rows(db, "select vector_dims(pgstack.embed('still here'))") == [(384,)]
    assert worker.process.poll() is None


def test_a_malformed_question_gets_an_error(db: Connection, worker: Any) -> None:
    with pytest.raises(psycopg.Error, match="malformed"):
        db.execute("select _pgstack.ask_worker('embed', '{\"input\": [\"x\"]}')")
    assert worker.process.poll() is None


def test_a_worker_cannot_be_kept_out_or_feigned(
    db: Connection, db_url: str, start_worker: Callable[..., Any]
) -> None:
    for objid in (1, 2, 3):
        db.execute("select pg_advisory_lock(1885827956, %s)", (objid,))
    assert rows(db, "select _pgstack.worker_present()") == [(False,)]
    start_worker(db_url).wait_until_present()


def test_waiting_for_ones_own_uncommitted_rows_is_refused(db: Connection, worker: Any) -> None:
    db.execute("create table t (id int primary key, body text)")
    vectorize(db, "t", "body")
    with pytest.raises(psycopg.Error, match="before it commits") as caught, db.transaction():
        db.execute("insert into t values (1, 'one')")
        db.execute("select pgstack.wait_until_fresh('t')")
    assert caught.value.sqlstate == "PS007"
