"""Vector indexes are built beside those that serve, replaced, measured; nobody else can.

Real PostgreSQL, a real worker process.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from psycopg.rows import dict_row

from pgstack import indexes
from pgstack.db import connect
from pgstack.errors import NoWorker, PgstackError
from tests.conftest import need_extension
from tests.integration.conftest import raises, value
from tests.integration.indexing import (
    HNSW,
    await_build,
    await_true,
    build,
    building,
    fill,
    present,
)

Connection = psycopg.Connection[Any]


@pytest.fixture
def blocker(db_url: str) -> Iterator[Connection]:
    """A connection for :func:`hold`."""
    with connect(db_url) as conn:
        yield conn
        conn.rollback()


def hold(blocker: Connection) -> None:
    """Begin a transaction with a snapshot, for whose end concurrent builds wait."""
    blocker.execute("set transaction isolation level repeatable read")
    blocker.execute("select 1 from pg_class")


# --------------------------------------------------------------------------------- built


@pytest.mark.parametrize(
    ("wanted", "definition"),
    [
        ({**HNSW, "parameters": {"m": 8, "ef_construction": 32}}, "hnsw (embedding vector_cosine"),
        ({"method": "hnsw", "storage": "halfvec"}, "halfvec(32)"),
        ({"method": "diskann"}, "diskann (embedding)"),
    ],
)
def test_an_index_is_built_as_asked_for(
    db: Connection, worker: Any, wanted: dict[str, Any], definition: str
) -> None:
    if wanted["method"] == "diskann":
        need_extension(db, "vectorscale")
    fill(db, 500)
    done = await_build(db, build(db, **wanted))
    assert (done.state, done.percent, done.error) == ("done", 100, None)
    [(name, made, valid)] = present(db)
    assert name == "docs_embedding_store_embedding_idx"
    assert definition in made
    assert valid
    assert done.bytes == value(db, "select pg_relation_size(%s::regclass)", name)
    if "parameters" in wanted:
        assert "m='8'" in made


def test_an_index_replaces_another_under_its_name(db: Connection, worker: Any) -> None:
    fill(db, 300)
    db.execute("create index mine on docs_embedding_store using hnsw (embedding vector_cosine_ops)")
    await_build(db, build(db, method="hnsw", storage="halfvec"))
    [(name, made, valid)] = present(db)
    assert (name, valid) == ("mine", True)
    assert "halfvec" in made


def test_another_operators_index_is_not_touched(db: Connection, worker: Any) -> None:
    fill(db, 300)
    db.execute("create index mine on docs_embedding_store using hnsw (embedding vector_l2_ops)")
    await_build(db, build(db, **HNSW))
    await_build(db, build(db, method="none"))
    assert [name for name, _, _ in present(db)] == ["mine"]


def test_none_drops_the_index_and_the_worker_builds_no_other(db: Connection, worker: Any) -> None:
    fill(db, 300)
    db.execute("select pgstack.configure('index_min_rows', '100')")
    await_build(db, build(db, **HNSW))
    db.execute("select pgstack.resume_vectorizer('docs')")
    await_build(db, build(db, method="none"))
    time.sleep(2.5)  # the worker has looked again
    assert present(db) == []


@pytest.mark.parametrize(("dimensions", "expected"), [(2500, "halfvec(2500)"), (4500, "diskann")])
def test_long_vectors_get_an_index_that_can_hold_them(
    db: Connection, worker: Any, dimensions: int, expected: str
) -> None:
    if expected == "diskann":
        need_extension(db, "vectorscale")
    fill(db, 60, dimensions)
    with raises("PS007", "dimensions", "diskann"):
        build(db, **HNSW)
    db.execute("select pgstack.configure('index_min_rows', '50')")
    db.execute("delete from docs_embedding_store where id > 55")
    db.execute("select pgstack.resume_vectorizer('docs')")
    await_true(db, "select exists (select from pgstack.index_progress where state = 'done')")
    [(_, made, _)] = present(db)
    assert expected in made
    assert value(db, "select automatic from pgstack.index_progress") is True


def test_labels_are_part_of_the_index(db: Connection, worker: Any) -> None:
    need_extension(db, "vectorscale")
    fill(db, 300)
    db.execute("alter table docs_embedding_store add column tags smallint[]")
    db.execute("update docs_embedding_store set tags = array[id % 3]::smallint[]")
    with raises("PS007", "labels", "smallint[]"):
        build(db, method="diskann", labels="chunk")
    await_build(db, build(db, method="diskann", labels="tags"))
    assert "tags" in present(db)[0][1]


def test_a_lost_index_is_built_again_as_it_was(db: Connection, worker: Any) -> None:
    fill(db, 300)
    await_build(db, build(db, method="hnsw", storage="halfvec", parameters={"m": 6}))
    db.execute("select pgstack.configure('index_min_rows', '100')")
    db.execute("drop index docs_embedding_store_embedding_idx")
    db.execute("select pgstack.resume_vectorizer('docs')")
    await_true(db, "select count(*) = 2 from pgstack.index_progress where state = 'done'")
    [(_, made, _)] = present(db)
    assert "halfvec" in made
    assert "m='6'" in made
    await_true(
        db,
        "select exists (select from _pgstack.prepared_search"
        " where index = 'docs_embedding_store_embedding_idx'::regclass)",
    )


def test_the_build_gets_the_memory_that_the_setting_names(db: Connection, worker: Any) -> None:
    fill(db, 300)
    db.execute("select pgstack.configure('index_memory', '32MB')")
    number = build(db, **HNSW)
    await_build(db, number)
    query = "select memory_bytes from _pgstack.index_build where id = %s"
    assert value(db, query, number) == 32 * 1024 * 1024


# ------------------------------------------------------------------------------ meanwhile


def test_searches_go_on_while_indexes_are_swapped(db: Connection, db_url: str, worker: Any) -> None:
    fill(db, 400)
    await_build(db, build(db, **HNSW))
    stop, failures, searches = threading.Event(), [], []

    def search() -> None:
        try:
            with connect(db_url, autocommit=True) as conn:
                query = value(
                    conn, "select array_agg(random())::vector::text from generate_series(1, 32)"
                )
                while not stop.is_set():
                    rows = conn.execute(
                        "select id from pgstack.search('docs', 'x', mode => 'vector', k => 7, "
                        "embedding => %s::text::vector)",
                        (query,),
                    ).fetchall()
                    searches.append(len(rows))
        except Exception as exc:
            failures.append(exc)

    thread = threading.Thread(target=search)
    thread.start()
    try:
        for storage in ("halfvec", "vector", "halfvec"):
            db.execute("select _pgstack.prepare_search(id) from ai.vectorizer")
            await_build(db, build(db, method="hnsw", storage=storage))
    finally:
        stop.set()
        thread.join()
    assert failures == []
    assert set(searches) == {7}
    assert len(present(db)) == 1


def test_the_old_index_serves_until_the_new_one_is_complete(
    db: Connection, worker: Any, blocker: Connection
) -> None:
    fill(db, 300)
    await_build(db, build(db, **HNSW))
    hold(blocker)
    number = build(db, method="hnsw", storage="halfvec")
    building(db, "waiting for%")
    serving = (
        "select index::text, expression_cast from _pgstack.vector_index("
        "_pgstack.vectorizer_plan('docs'))"
    )
    assert db.execute(serving.encode()).fetchone() == ("docs_embedding_store_embedding_idx", None)
    [now] = indexes.builds(db, "docs")[:1]
    assert (now.build, now.state) == (number, "building")
    assert now.elapsed is not None
    blocker.rollback()
    await_build(db, number)
    row = db.execute(serving.encode()).fetchone()
    assert row is not None
    assert "halfvec(32)" in row[1]


def test_two_requests_at_once_are_one_build(db: Connection, db_url: str) -> None:
    fill(db, 50)
    with connect(db_url) as first, connect(db_url) as second:
        one = build(first, **HNSW)
        answers: list[int] = []
        thread = threading.Thread(
            target=lambda: answers.append(build(second, method="hnsw", storage="halfvec"))
        )
        thread.start()
        time.sleep(0.2)
        first.commit()
        thread.join()
        second.commit()
    assert answers == [one]
    [only] = indexes.builds(db)
    assert (only.state, only.storage) == ("requested", "halfvec")


def test_a_request_during_a_build_comes_after_it(
    db: Connection, worker: Any, blocker: Connection
) -> None:
    fill(db, 100)
    hold(blocker)
    first = build(db, **HNSW)
    building(db, "waiting for%")
    second = build(db, method="hnsw", storage="halfvec")
    assert second != first
    blocker.rollback()
    await_build(db, second)
    assert await_build(db, first).state == "done"
    [(_, made, _)] = present(db)
    assert "halfvec" in made


def test_dropping_a_vectorizer_does_not_wait_for_its_index(
    db: Connection, worker: Any, blocker: Connection
) -> None:
    fill(db, 100)
    hold(blocker)
    number = build(db, **HNSW)
    building(db, "waiting for%")
    db.execute("set lock_timeout = '5s'")
    db.execute("select pgstack.drop_vectorizer('docs')")
    with pytest.raises(PgstackError, match=r"dropped|cancelled"):
        await_build(db, number)
    blocker.rollback()
    await_true(
        db, "select not exists (select from pg_class where relname like '\\_pgstack\\_new%%')"
    )


# ------------------------------------------------------------------------------- accidents


def test_a_build_whose_session_is_killed_is_begun_anew(
    db: Connection, worker: Any, blocker: Connection
) -> None:
    fill(db, 200)
    await_build(db, build(db, **HNSW))
    before = present(db)
    hold(blocker)
    number = build(db, method="hnsw", storage="halfvec")
    pid = building(db, "waiting for%")
    assert value(db, "select pg_terminate_backend(%s, 5000)", pid)
    assert before[0] in present(db)
    blocker.rollback()
    assert await_build(db, number).attempts >= 1
    [(name, made, valid)] = present(db)
    assert (name, valid) == (before[0][0], True)
    assert "halfvec" in made


def test_a_build_outlives_the_worker_that_began_it(
    db: Connection,
    db_url: str,
    worker: Any,
    blocker: Connection,
    start_worker: Callable[..., Any],
) -> None:
    fill(db, 200)
    hold(blocker)
    number = build(db, **HNSW)
    building(db, "waiting for%")
    worker.stop(signal.SIGKILL)
    start_worker(db_url)
    blocker.rollback()
    assert await_build(db, number).state == "done"
    assert [valid for _, _, valid in present(db)] == [True]


def test_an_error_is_told_and_the_build_tried_again(db: Connection, worker: Any) -> None:
    fill(db, 100)
    number = int(value(db, "select coalesce(max(id), 0) + 1 from _pgstack.index_build"))
    db.execute(f"create table _pgstack_new_{number} ()".encode())
    assert build(db, **HNSW) == number
    await_true(db, "select error is not null from pgstack.index_progress")
    assert "already exists" in value(db, "select error from pgstack.index_progress")
    db.execute(f"drop table _pgstack_new_{number}".encode())
    assert await_build(db, number).error is None


def test_a_build_that_somebody_cancels_stays_cancelled(
    db: Connection, worker: Any, blocker: Connection
) -> None:
    fill(db, 100)
    hold(blocker)
    number = build(db, **HNSW)
    pid = building(db, "waiting for%")
    db.execute("select pg_cancel_backend(%s)", (pid,))
    with pytest.raises(PgstackError, match="cancelled"):
        await_build(db, number)
    blocker.rollback()
    await_true(
        db, "select not exists (select from pg_class where relname like '\\_pgstack\\_new%%')"
    )


def test_without_a_worker_waiting_ends(db: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(indexes, "PATIENCE_SECONDS", 0.1)
    fill(db, 50)
    with pytest.raises(NoWorker):
        await_build(db, build(db, **HNSW))


def test_a_strangers_build_in_progress_is_not_taken_for_a_leftover(
    db: Connection, db_url: str, worker: Any, blocker: Connection
) -> None:
    fill(db, 100)
    hold(blocker)

    def create() -> None:
        with connect(db_url, autocommit=True) as conn:
            conn.execute(
                "create index concurrently theirs on docs_embedding_store "
                "using hnsw (embedding vector_cosine_ops)"
            )

    thread = threading.Thread(target=create)
    thread.start()
    building(db, "waiting for%")
    time.sleep(2.5)  # the worker has looked
    blocker.rollback()
    thread.join()
    time.sleep(2.5)
    assert [(name, valid) for name, _, valid in present(db)] == [("theirs", True)]


# --------------------------------------------------------------------------------- refused


def test_what_cannot_be_built_is_refused(db: Connection) -> None:
    fill(db, 20)
    for wanted, words in (
        ({"method": "btree"}, "btree"),
        ({"method": "hnsw", "storage": "sbq"}, "sbq"),
        ({"method": "hnsw", "parameters": {"m": 1000}}, "m = 1000"),
        ({"method": "hnsw", "parameters": {"lists": 10}}, "lists"),
        ({"method": "hnsw", "parameters": {"m": 40, "ef_construction": 10}}, "twice m"),
        ({"method": "hnsw", "labels": "chunk"}, "labels"),
    ):
        with raises("PS007", words):
            build(db, **wanted)  # type: ignore[arg-type]
    assert indexes.builds(db) == []


def test_a_partitioned_source_is_refused_with_a_reason(db: Connection) -> None:
    db.execute(
        """
        create table parted (id int primary key, body text) partition by range (id);
        create table parted_1 partition of parted for values from (0) to (1000);
        select pgstack.create_vectorizer('parted', 'body', dimensions => 8,
          chunking => 'none', embedding_column => 'vec');
        """
    )
    with raises("PS013", "partitioned"):
        db.execute("select pgstack.build_index('parted', 'hnsw')")


def test_a_build_is_a_row_of_the_view(db: Connection) -> None:
    fill(db, 20)
    number = build(db, **HNSW)
    with db.cursor(row_factory=dict_row) as cursor:
        row = cursor.execute("select * from pgstack.index_progress").fetchone()
    assert row is not None
    assert (row["build"], row["state"], row["tuples_total"]) == (number, "requested", 20)
    assert row["requested_by"] == value(db, "select current_user")
