"""Whatever is killed when: in the end the target equals what a fresh build gives.

Four sessions insert, update, delete, change keys and truncate at random while two
workers run and one of them is killed with -9, three times.  Then every chunk is
compared with the chunk, offsets and vector that a new vectorizer makes from the same rows.
And once more while the way in which texts are cut and masked is changed over and over.
"""

from __future__ import annotations

import os
import random
import signal
import threading
from collections.abc import Callable
from typing import Any

import psycopg
import pytest

from pgstack.db import connect

SESSIONS = 4
OPERATIONS = int(os.environ.get("PGSTACK_FAULT_OPERATIONS", "1000")) // SESSIONS
KEYS = 120
WORDS = ["ash", "birch", "cedar", "elm", "fir", "hazel", "larch", "maple", "oak", "pine", "yew"]
WORDS += ["ann@fir.example"]

WAYS = (
    "chunk_size => 200, chunk_overlap => 40",
    "chunk_size => 120, chunk_overlap => 0, mask_pii => array['email']",
    "chunking => 'character', chunk_size => 90, chunk_overlap => 0, separators => array['. ']",
    "chunking => 'none', mask_pii => array['all']",
)

ISOLATION = (
    psycopg.IsolationLevel.READ_COMMITTED,
    psycopg.IsolationLevel.READ_COMMITTED,
    psycopg.IsolationLevel.REPEATABLE_READ,
    psycopg.IsolationLevel.SERIALIZABLE,
)


def text(rng: random.Random) -> str | None:
    """Return no text, an empty one, a short one, or one of several chunks."""
    kind = rng.random()
    if kind < 0.05:
        return None
    if kind < 0.1:
        return ""
    return ". ".join(" ".join(rng.choices(WORDS, k=8)) for _ in range(rng.choice((1, 1, 3, 40))))


def one_operation(conn: psycopg.Connection[Any], rng: random.Random, *, may_truncate: bool) -> None:
    """Change a row or a few in one transaction; sometimes change one's mind."""
    key = rng.randrange(KEYS)
    with conn.transaction(force_rollback=rng.random() < 0.05):
        match rng.choices(range(6), weights=(30, 40, 15, 8, 6, may_truncate))[0]:
            case 0:
                conn.execute(
                    "insert into t (id, title, body) values (%s, 't', %s) "
                    "on conflict (id) do update set body = excluded.body",
                    (key, text(rng)),
                )
            case 1:
                conn.execute("update t set body = %s where id = %s", (text(rng), key))
            case 2:
                conn.execute("delete from t where id = %s", (key,))
            case 3:
                conn.execute(
                    "update t set id = %s where id = %s and not exists "
                    "(select from t where id = %s)",
                    (key, rng.randrange(KEYS), key),
                )
            case 4:
                conn.execute(
                    "update t set title = %s where id between %s and %s",
                    (rng.choice(WORDS), key, key + 10),
                )
            case 5:
                conn.execute("truncate t")


def write_at_random(dsn: str, seed: int, problems: list[str]) -> None:
    """One user's session.  A serialization failure is a user's everyday; others are not."""
    rng = random.Random(seed)
    try:
        with connect(dsn, autocommit=True) as conn:
            conn.isolation_level = ISOLATION[seed % len(ISOLATION)]
            for nr in range(OPERATIONS):
                try:
                    one_operation(conn, rng, may_truncate=nr < OPERATIONS / 2)
                    # Users pause, so that workers get hold of rows between two changes.
                    conn.execute("select pg_sleep(%s)", (rng.random() * 0.03,))
                except (
                    psycopg.errors.SerializationFailure,
                    psycopg.errors.UniqueViolation,
                ):
                    pass
                except psycopg.errors.DeadlockDetected as exc:
                    # Users who lock several rows meet one another; a worker is never part of it.
                    if "_pgstack" in str(exc) or "_store" in str(exc):
                        problems.append(str(exc))
    except psycopg.Error as exc:
        problems.append(f"session {seed}: {exc}")


def chunks(conn: psycopg.Connection[Any], table: str) -> list[tuple[Any, ...]]:
    """Every chunk with its vector, ordered."""
    return conn.execute(
        psycopg.sql.SQL(
            "select id, chunk_seq, chunk, start_char, end_char, embedding::text "
            "from {} order by id, chunk_seq"
        ).format(psycopg.sql.Identifier(table))
    ).fetchall()


def cut_otherwise(dsn: str, done: threading.Event, problems: list[str], ways: list[str]) -> None:
    """A DBA who cannot decide; ``ways`` ends with the way that is in force."""
    try:
        with connect(dsn, autocommit=True) as conn:
            while not done.wait(0.15):
                way = WAYS[len(ways) % len(WAYS)]
                try:
                    conn.execute(f"select pgstack.set_chunking('live', {way})".encode())
                    ways.append(way)
                except psycopg.errors.DeadlockDetected:
                    pass
                except psycopg.Error as exc:
                    if exc.sqlstate != "PS016":
                        raise
    except psycopg.Error as exc:
        problems.append(f"DBA: {exc}")


@pytest.mark.timeout(300)
@pytest.mark.parametrize("undecided", [False, True], ids=["cut one way", "cut another way"])
def test_random_changes_under_kills_end_equal_to_a_fresh_build(
    db: psycopg.Connection[Any], db_url: str, start_worker: Callable[..., Any], undecided: bool
) -> None:
    db.execute("create table t (id int primary key, title text, body text)")
    db.execute("select pgstack.configure('lease', '2s')")
    db.execute(
        "select pgstack.create_vectorizer('t', array['title', 'body'], name => 'live', "
        f"dimensions => 384, destination => 'live', {WAYS[0]})"  # type: ignore[arg-type]
    )
    workers = [start_worker(db_url), start_worker(db_url)]
    for worker in workers:
        worker.wait_until_present()
    problems: list[str] = []
    sessions = [
        threading.Thread(target=write_at_random, args=(db_url, seed, problems))
        for seed in range(SESSIONS)
    ]
    done = threading.Event()
    ways = [WAYS[0]]
    dba = threading.Thread(target=cut_otherwise, args=(db_url, done, problems, ways))
    for session in [*sessions, *[dba] * undecided]:
        session.start()
    for _ in range(3):
        wait_for_chunks(db)
        workers[0].stop(signal.SIGKILL)
        workers[0] = start_worker(db_url)
        workers[0].wait_until_present()
    for session in sessions:
        session.join()
    done.set()
    if undecided:
        dba.join()
        assert len(ways) > len(WAYS)
    assert problems == []
    assert db.execute("select pgstack.wait_until_fresh('live', '120s')").fetchone() == (True,)
    db.execute(
        "select pgstack.create_vectorizer('t', array['title', 'body'], name => 'fresh', "
        f"dimensions => 384, destination => 'fresh', {ways[-1]})"  # type: ignore[arg-type]
    )
    assert db.execute("select pgstack.wait_until_fresh('fresh', '120s')").fetchone() == (True,)
    assert chunks(db, "live_store") == chunks(db, "fresh_store")
    assert len(chunks(db, "live_store")) > 0
    assert nothing_left(db)


def wait_for_chunks(db: psycopg.Connection[Any]) -> None:
    """Return once a worker has written something more."""
    before = db.execute("select embedded_chunks from _pgstack.vectorizer").fetchone()
    while db.execute("select embedded_chunks from _pgstack.vectorizer").fetchone() == before:
        db.execute("select pg_sleep(0.05)")


def nothing_left(db: psycopg.Connection[Any]) -> bool:
    """No lease, waiting row or failed row remains once a worker has swept."""
    db.execute("select _pgstack.worker_sweep()")
    return db.execute("select count(*) from _pgstack.work").fetchone() == (0,)
