"""How the worker asks for vectors: each once, many at a time, and blaming whom it should."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any, LiteralString

import psycopg
import pytest

from pgstack import queries
from pgstack.worker.app import WorkerOptions, run
from pgstack.worker.session import Session
from tests.integration.test_worker import await_status, fresh, rows, status, vectorize

Connection = psycopg.Connection[Any]

# Cut at 100 characters, each sentence is a chunk of its own.
SMALL_CHUNKS = {"chunk_size": 100, "chunk_overlap": 0}


def sentence(subject: str, number: int) -> str:
    return (
        f"The {subject} of paragraph {number:04} fills one chunk, for it is long enough to.".ljust(
            95, "."
        )
    )


def document(numbers: Any, subject: str = "body") -> str:
    return "\n\n".join(sentence(subject, number) for number in numbers)


def texts(models: Any) -> int:
    return int(models.stats()["texts"])


def matches_a_fresh_build(db: Connection, table: str) -> bool:
    """Compare what a vectorizer kept in sync with what one made now gives, chunk by chunk."""
    vectorize(db, table, "body", name="anew", destination="anew", **SMALL_CHUNKS)
    assert fresh(db, "anew")
    columns = "id, chunk_seq, chunk, start_char, end_char, digest, embedding::text"
    kept = rows(db, f"select {columns} from {table}_embedding_store order by 1, 2")
    anew = rows(db, f"select {columns} from anew_store order by 1, 2")
    db.execute("select pgstack.drop_vectorizer('anew', drop_data => true)")
    return kept == anew


# ------------------------------------------------------------------ a vector is made once


@pytest.fixture
def documents(db: Connection, worker: Any, models: Any) -> Connection:
    """Three documents of twenty chunks, embedded; the model's statistics at zero."""
    db.execute("create table t (id int primary key, title text, body text)")
    for i in (1, 2, 3):
        db.execute(
            "insert into t values (%s, 'T', %s)", (i, document(range(i * 100, i * 100 + 20)))
        )
    vectorize(db, "t", "body", **SMALL_CHUNKS)
    assert fresh(db, "t")
    assert rows(db, "select count(*) from t_embedding_store") == [(60,)]
    models.clear()
    return db


@pytest.mark.parametrize(
    ("numbers", "new"),
    [
        pytest.param([*range(100, 110), 9000, *range(110, 120)], 1, id="inserted in the middle"),
        pytest.param([9001, *range(100, 120)], 1, id="inserted in front"),
        pytest.param([*range(100, 105), 9002, *range(106, 120)], 1, id="replaced"),
        pytest.param(range(100, 115), 0, id="cut off"),
        pytest.param([*range(110, 120), *range(100, 110)], 0, id="rearranged"),
        pytest.param([*range(100, 120), 100, 100], 0, id="repeated"),
        pytest.param([*range(100, 119), 205], 0, id="taken from another row"),
    ],
)
def test_only_chunks_that_are_new_are_embedded(
    documents: Connection, models: Any, numbers: Any, new: int
) -> None:
    documents.execute("update t set body = %s where id = 1", (document(numbers),))
    assert fresh(documents, "t")
    assert texts(models) == new
    assert matches_a_fresh_build(documents, "t")


def test_unchanged_chunks_are_not_written(documents: Connection) -> None:
    before = dict(
        rows(documents, "select chunk_seq, ctid::text from t_embedding_store where id = 1")
    )
    changed = [*range(100, 119), 9003]
    documents.execute("update t set body = %s where id = 1", (document(changed),))
    assert fresh(documents, "t")
    after = dict(
        rows(documents, "select chunk_seq, ctid::text from t_embedding_store where id = 1")
    )
    assert {seq for seq, ctid in after.items() if before[seq] != ctid} == {19}


def test_a_changed_heading_changes_every_chunk(db: Connection, worker: Any, models: Any) -> None:
    db.execute("create table t (id int primary key, title text, body text)")
    db.execute("insert into t values (1, 'Old', %s)", (document(range(5)),))
    db.execute(
        "select pgstack.create_vectorizer('t', '{title,body}'::name[], dimensions => 384, "
        "chunk_size => 100, chunk_overlap => 0)"
    )
    assert fresh(db, "t")
    models.clear()
    db.execute("update t set title = 'New'")
    assert fresh(db, "t")
    assert texts(models) == 5
    assert models.asked(f"New\n\n{sentence('body', 3)}") == 1


def test_equal_texts_are_embedded_once(db: Connection, worker: Any, models: Any) -> None:
    db.execute("create table t (id int primary key, body text)")
    db.execute("insert into t select i, 'one of ' || i % 7 from generate_series(1, 2000) as i")
    vectorize(db, "t", "body")
    assert fresh(db, "t")
    db.execute("insert into t select i, 'one of ' || i % 7 from generate_series(2001, 2100) as i")
    assert fresh(db, "t")
    assert texts(models) == 7
    assert rows(db, "select count(*), count(distinct embedding) from t_embedding_store") == [
        (2100, 7)
    ]


def test_a_cache_serves_other_vectorizers_if_wanted(
    db: Connection, worker: Any, models: Any
) -> None:
    db.execute("create table a (id int primary key, body text)")
    db.execute("insert into a select i, 'text ' || i from generate_series(1, 50) as i")
    db.execute("create table b as select * from a")
    db.execute("alter table b add primary key (id)")
    db.execute("create table c as select * from a")
    db.execute("alter table c add primary key (id)")
    vectorize(db, "a", "body")
    assert fresh(db, "a")
    assert rows(db, "select count(*) from _pgstack.embedding_cache") == [(0,)]
    db.execute("select pgstack.configure('embedding_cache', 'on')")
    vectorize(db, "b", "body")
    assert fresh(db, "b")
    assert texts(models) == 100
    vectorize(db, "c", "body", embedding_column="v")
    assert fresh(db, "c")
    assert texts(models) == 100
    assert rows(
        db,
        "select count(*) from c join b_embedding_store as b using (id) "
        "where c.v::text = b.embedding::text",
    ) == [(50,)]


def test_a_known_vector_that_goes_in_the_meantime_is_made_anew(
    documents: Connection, models: Any
) -> None:
    """Row 1 takes a chunk of row 2 and waits for another; then row 2 goes."""
    models.misbehave(latency_ms=700)
    documents.execute("update t set body = %s where id = 1", (document([205, 9004]),))
    models.await_stats(lambda stats: stats["concurrent"] > 0)
    documents.execute("delete from t where id = 2")
    models.misbehave(latency_ms=0)
    assert fresh(documents, "t")
    assert matches_a_fresh_build(documents, "t")


def test_refreshing_embeds_what_another_model_digest_makes_different(
    documents: Connection, models: Any
) -> None:
    assert rows(documents, "select pgstack.refresh_vectorizer('t')") == [(3,)]
    assert fresh(documents, "t")
    assert texts(models) == 0
    documents.execute(
        "update t_embedding_store set digest = sha256(digest), embedding = embedding + embedding "
        "where chunk_seq < 2"
    )
    documents.execute("select pgstack.refresh_vectorizer('t')")
    assert fresh(documents, "t")
    assert matches_a_fresh_build(documents, "t")


# ------------------------------------------------------------------ many at a time


def test_calls_grow_with_a_quick_model(db: Connection, worker: Any, models: Any) -> None:
    db.execute("create table t (id int primary key, body text)")
    db.execute("insert into t select i, 'text ' || i from generate_series(1, 3000) as i")
    vectorize(db, "t", "body")
    assert fresh(db, "t")
    stats = models.stats()
    assert stats["texts"] == 3000
    assert stats["calls"]["/api/embed"] < 60, stats


def test_no_more_calls_at_a_time_than_allowed(
    db: Connection, db_url: str, start_worker: Callable[..., Any], models: Any
) -> None:
    db.execute("create table t (id int primary key, body text)")
    db.execute("insert into t select i, 'text ' || i from generate_series(1, 10000) as i")
    vectorize(db, "t", "body")
    models.misbehave(latency_ms=200)
    start_worker(db_url, "--concurrency", "3").wait_until_present()
    assert fresh(db, "t")
    assert models.stats()["concurrent_max"] == 3, "as many as allowed, once the model kept up"


def test_a_server_that_is_busy_gets_fewer_calls(db: Connection, worker: Any, models: Any) -> None:
    db.execute("create table t (id int primary key, body text)")
    models.misbehave(fail_next=3, status=429)
    db.execute("insert into t select i, 'text ' || i from generate_series(1, 100) as i")
    vectorize(db, "t", "body")
    assert fresh(db, "t")
    assert status(db, "t")["failed"] == 0
    assert rows(db, "select count(*) from _pgstack.breaker") == [(0,)]


# ------------------------------------------------------------------ whose fault it is


def test_a_server_that_wants_fewer_calls_is_not_asked_how_it_is(
    db: Connection, worker: Any, models: Any
) -> None:
    """One that takes a call a second would answer that one, and refuse the next, for ever."""
    db.execute("create table t (id int primary key, body text)")
    vectorize(db, "t", "body")
    models.misbehave(fail_next=1, status=429)
    db.execute("insert into t values (1, 'one')")
    assert fresh(db, "t")
    assert models.stats()["calls"]["/api/embed"] == 2


@pytest.mark.parametrize("code", [400, 500])
def test_one_bad_text_is_found_with_few_calls(
    db: Connection, worker: Any, models: Any, code: int
) -> None:
    db.execute("select pgstack.configure('max_attempts', '2')")
    models.misbehave(fail_if_contains="poison", fail_if_status=code)
    db.execute("create table t (id int primary key, body text)")
    db.execute("insert into t select i, 'text ' || i from generate_series(1, 256) as i")
    db.execute("insert into t values (257, 'poison')")
    vectorize(db, "t", "body")
    await_status(db, "t", pending=0, failed=1)
    assert rows(db, "select count(*) from t_embedding_store") == [(256,)]
    assert models.stats()["calls"]["/api/embed"] < 45
    assert rows(db, "select key, state from pgstack.vectorizer_errors") == [({"id": 257}, "failed")]


@pytest.mark.parametrize("scheme", [None, "http://", "HTTP://"])
def test_a_model_that_fails_for_all_is_nobodys_fault(
    db: Connection, worker: Any, models: Any, scheme: str | None
) -> None:
    db.execute("select pgstack.configure('max_attempts', '1')")
    models.misbehave(fail_next=-1, status=500)
    db.execute("create table t (id int primary key, body text)")
    vectorize(db, "t", "body")
    if scheme:  # a model server of its own, as pgai's vectorizers may have
        url = f"{scheme}{models.url.removeprefix('http://')}/"
        db.execute("select pgstack.configure('model_hosts', %s)", (url,))
        db.execute(
            "update ai.vectorizer"
            " set config = jsonb_set(config, '{embedding,base_url}', to_jsonb(%s::text))",
            (url,),
        )
    db.execute("insert into t select i, 'text ' || i from generate_series(1, 20) as i")
    await_status(db, "t", state="model down")
    assert status(db, "t")["failed"] == 0
    models.clear()
    assert fresh(db, "t")
    assert rows(db, "select count(*) from t_embedding_store") == [(20,)]
    assert rows(db, "select count(*) from _pgstack.breaker") == [(0,)]


def test_a_failing_model_stops_no_other(db: Connection, worker: Any, models: Any) -> None:
    db.execute("create table a (id int primary key, body text)")
    db.execute("create table b (id int primary key, body text)")
    vectorize(db, "a", "body", model="deterministic:768", dimensions=768)
    vectorize(db, "b", "body")
    models.misbehave(hang_if_contains="slow")
    db.execute("insert into a select i, 'slow ' || i from generate_series(1, 500) as i")
    models.await_stats(lambda stats: stats["concurrent"] > 0)
    db.execute("insert into b select i, 'text ' || i from generate_series(1, 500) as i")
    assert fresh(db, "b")
    models.clear()


def test_once_does_what_it_can_before_it_gives_up(
    db: Connection, db_url: str, models: Any, models_url: str
) -> None:
    """The vectorizer of a model that never answers is left; the other one is done."""
    db.execute("create table a (id int primary key, body text)")
    db.execute("create table b (id int primary key, body text)")
    db.execute("insert into a values (1, 'one')")
    db.execute("insert into b values (1, 'one')")
    vectorize(db, "b", "body")
    vectorize(db, "a", "body", name="a", model="all-minilm")
    db.execute(
        "update ai.vectorizer set config = jsonb_set(config, '{embedding,base_url}', "
        "'\"http://127.0.0.1:9\"') where name = 'a'"
    )
    db.execute("select pgstack.configure('model_hosts', 'http://127.0.0.1:9')")
    done = subprocess.run(
        [sys.executable, "-m", "pgstack.worker", "--once", "--database-url", db_url],
        env={"PATH": "", "OLLAMA_HOST": models_url},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 3, done.stderr
    assert rows(db, "select count(*) from b_embedding_store") == [(1,)]
    assert rows(db, "select count(*) from a_embedding_store") == [(0,)]
    assert status(db, "a")["pending"] == 1


def test_a_long_queue_does_not_keep_a_short_one_waiting(
    db: Connection, worker: Any, models: Any
) -> None:
    for table in ("a", "b"):
        db.execute(f"create table {table} (id int primary key, body text)".encode())
        vectorize(db, table, "body")
    models.misbehave(latency_ms=200)
    db.execute("insert into a select i, 'text ' || i from generate_series(1, 20000) as i")
    models.await_stats(lambda stats: stats["texts"] > 0)
    db.execute("insert into b values (1, 'short')")
    assert fresh(db, "b")
    assert status(db, "a")["pending"] > 5000


def test_a_new_row_does_not_wait_behind_a_long_queue(
    db: Connection, worker: Any, models: Any
) -> None:
    db.execute("create table t (id int primary key, body text)")
    vectorize(db, "t", "body")
    models.misbehave(latency_ms=200)
    db.execute("insert into t select i, 'text ' || i from generate_series(1, 20000) as i")
    models.await_stats(lambda stats: stats["texts"] > 1000)
    db.execute("insert into t values (20001, 'new')")
    while not rows(db, "select from t_embedding_store where id = 20001"):
        time.sleep(0.02)
    assert status(db, "t")["pending"] > 5000
    models.clear()
    assert fresh(db, "t")
    assert rows(db, "select count(*) from t_embedding_store") == [(20001,)]


@pytest.mark.parametrize("novels", [1, 6])
def test_a_note_does_not_wait_behind_novels(
    db: Connection, worker: Any, models: Any, novels: int
) -> None:
    """Neither one of the same vectorizer nor one of another."""
    for table in ("books", "notes"):
        db.execute(f"create table {table} (id int primary key, body text)".encode())
        vectorize(db, table, "body", **SMALL_CHUNKS)
    models.misbehave(latency_ms=1000)
    for number in range(novels):
        novel = document(range(4000), f"novel {number}")
        db.execute("insert into books values (%s, %s)", (number, novel))
    models.await_stats(lambda stats: stats["texts"] > 64)
    db.execute("insert into notes values (1, 'short')")
    db.execute("insert into books values (100, 'short, too')")
    for table in ("notes", "books"):
        while not rows(db, f"select from {table}_embedding_store where chunk like 'short%'"):
            time.sleep(0.02)
    assert status(db, "books")["pending"] == novels


def test_a_worker_asks_for_rows_only_when_there_may_be_some(
    db: Connection, db_url: str, models: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each end of a batch or a call wakes the worker; hardly any is a reason to claim."""
    claims = []

    async def fetch(session: Session, query: LiteralString, *params: object) -> list[Any]:
        found = await really_fetch(session, query, *params)
        if query == queries.WORK_CLAIM:
            claims.append(bool(found))
        return found

    really_fetch = Session.fetch
    monkeypatch.setattr(Session, "fetch", fetch)
    db.execute("create table t (id int primary key, body text)")
    db.execute("insert into t select i, 'text ' || i from generate_series(1, 8000) as i")
    vectorize(db, "t", "body")
    models.misbehave(latency_ms=20)
    began = time.monotonic()
    run(WorkerOptions(db_url, models.url, once=True))
    looks = (time.monotonic() - began) / 0.2  # where nothing tells it, a worker --once looks
    assert rows(db, "select count(*) from t_embedding_store") == [(8000,)]
    assert claims.count(False) < looks + 5


# ------------------------------------------------------------------ questions first


def test_questions_go_before_bulk_work(db: Connection, worker: Any, models: Any) -> None:
    """While a question is answered, no call of a vectorizer begins: some thirty would."""
    db.execute("create table t (id int primary key, body text)")
    vectorize(db, "t", "body")
    models.misbehave(latency_ms=100, slow_if_contains="question", slow_ms=1500)
    db.execute("insert into t select i, 'text ' || i from generate_series(1, 40000) as i")
    models.await_stats(lambda stats: stats["texts"] > 0)
    before = models.stats()["calls"]["/api/embed"]
    db.execute("select pgstack.embed('question')")
    begun = models.stats()["calls"]["/api/embed"] - before
    assert begun <= 8, "the question, and what began before it was seen or after its answer"
    assert status(db, "t")["pending"] > 0
