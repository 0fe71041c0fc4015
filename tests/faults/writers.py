"""Users: sessions that change a table at random, in every way SQL has.

The table is ``(id int primary key, title text not null, body text, note text)``; a
vectorizer reads title and body.  What a user may meet in everyday life (a serialization
failure, a duplicate key) is passed over.  An error that names what is ours is a finding.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psycopg

Connection = psycopg.Connection[Any]

KEYS = 150
WORDS = ["ash", "birch", "cedar", "elm", "fir", "hazel", "larch", "maple", "oak", "pine", "yew"]
ISOLATION = (
    psycopg.IsolationLevel.READ_COMMITTED,
    psycopg.IsolationLevel.READ_COMMITTED,
    psycopg.IsolationLevel.REPEATABLE_READ,
    psycopg.IsolationLevel.SERIALIZABLE,
)
EVERYDAY = (
    psycopg.errors.SerializationFailure,
    psycopg.errors.UniqueViolation,
    psycopg.errors.CardinalityViolation,
)


def text(rng: random.Random) -> str | None:
    """Return no text, an empty one, a short one, or one of several chunks."""
    kind = rng.random()
    if kind < 0.05:
        return None
    if kind < 0.1:
        return rng.choice(("", "  \n"))
    return ". ".join(" ".join(rng.choices(WORDS, k=8)) for _ in range(rng.choice((1, 1, 3, 20))))


def edit(rng: random.Random, body: str | None) -> str | None:
    """Change a sentence in the middle, as people do."""
    sentences = (body or "").split(". ")
    sentences[rng.randrange(len(sentences))] = " ".join(rng.choices(WORDS, k=8))
    return ". ".join(sentences)


# -- what a user does ---------------------------------------------------------------------


def upsert(conn: Connection, rng: random.Random, key: int) -> None:
    conn.execute(
        "insert into t (id, title, body) values (%s, %s, %s) "
        "on conflict (id) do update set body = excluded.body",
        (key, rng.choice(WORDS), text(rng)),
    )


def insert_if_absent(conn: Connection, rng: random.Random, key: int) -> None:
    conn.execute(
        "insert into t (id, title, body) "
        "select i, 'many', %s from generate_series(%s::int, %s) as i on conflict do nothing",
        (text(rng), key, key + rng.randrange(8)),
    )


def merge(conn: Connection, rng: random.Random, key: int) -> None:
    conn.execute(
        "merge into t using (select %s::int as id, %s::text as body) as s on t.id = s.id "
        "when matched and s.body is null then delete "
        "when matched then update set body = s.body "
        "when not matched then insert (id, title, body) values (s.id, 'merged', s.body)",
        (key, text(rng)),
    )


def replace_text(conn: Connection, rng: random.Random, key: int) -> None:
    conn.execute("update t set body = %s where id = %s", (text(rng), key))


def edit_text(conn: Connection, rng: random.Random, key: int) -> None:
    row = conn.execute("select body from t where id = %s for update", (key,)).fetchone()
    if row is not None:
        conn.execute("update t set body = %s where id = %s", (edit(rng, row[0]), key))


def retitle(conn: Connection, rng: random.Random, key: int) -> None:
    conn.execute(
        "update t set title = %s where id between %s and %s",
        (rng.choice(WORDS), key, key + rng.randrange(12)),
    )


def touch(conn: Connection, rng: random.Random, key: int) -> None:
    conn.execute("update t set note = %s where id <= %s", (rng.choice(WORDS), key))


def delete(conn: Connection, rng: random.Random, key: int) -> None:
    conn.execute("delete from t where id between %s and %s", (key, key + rng.choice((0, 0, 5))))


def rekey(conn: Connection, rng: random.Random, key: int) -> None:
    conn.execute(
        "update t set id = %s where id = %s and not exists (select from t where id = %s)",
        (key, rng.randrange(KEYS), key),
    )


def shift_keys(conn: Connection, rng: random.Random, key: int) -> None:
    """Many rows change places: out of the way, and back a step further."""
    count = rng.randrange(1, 6)
    rows = (key, key + count)
    conn.execute("update t set id = -id - 1 where id between %s and %s", rows)
    conn.execute("delete from t where id between %s and %s", (key + 1, key + count + 1))
    conn.execute("update t set id = -id where id < 0")


def swap_in_one_statement(conn: Connection, rng: random.Random, key: int) -> None:
    conn.execute(
        "with gone as (delete from t where id = %s returning title) "
        "insert into t (id, title, body) select %s, g.title, %s from gone as g",
        (key, rng.randrange(KEYS), text(rng)),
    )


def copy(conn: Connection, rng: random.Random, key: int) -> None:
    last = key + rng.randrange(10)
    conn.execute("delete from t where id between %s and %s", (key, last))
    with conn.cursor().copy("copy t (id, title, body) from stdin") as rows:
        for each in range(key, last + 1):
            rows.write_row((each, "copied", text(rng)))


def change_a_mind(conn: Connection, rng: random.Random, key: int) -> None:
    """One change stays, one is rolled back to a savepoint, one more stays."""
    replace_text(conn, rng, key)
    with conn.transaction(force_rollback=True):
        rng.choice((delete, retitle, upsert))(conn, rng, key)
    upsert(conn, rng, rng.randrange(KEYS))


def truncate(conn: Connection, rng: random.Random, key: int) -> None:
    conn.execute("truncate t")


type Operation = Callable[[Connection, random.Random, int], None]

OPERATIONS: dict[Operation, float] = {
    upsert: 30,
    insert_if_absent: 8,
    merge: 8,
    replace_text: 20,
    edit_text: 20,
    retitle: 6,
    touch: 6,
    delete: 10,
    rekey: 6,
    shift_keys: 4,
    swap_in_one_statement: 4,
    copy: 4,
    change_a_mind: 4,
    truncate: 0.3,
}


def change(conn: Connection, rng: random.Random) -> None:
    """Run a transaction of one or two operations; sometimes undo it."""
    with conn.transaction(force_rollback=rng.random() < 0.05):
        for _ in range(rng.choice((1, 1, 1, 2))):
            operation = rng.choices(list(OPERATIONS), weights=list(OPERATIONS.values()))[0]
            operation(conn, rng, rng.randrange(KEYS))


# -- sessions -----------------------------------------------------------------------------


class Writers:
    """Sessions that write until told to stop.

    ``hardy``: the database may go away; they come back when it does.  ``rest``: seconds between
    two statements, at most.  ``timeout``: of a statement.
    """

    def __init__(
        self,
        dsn: str,
        rng: random.Random,
        *,
        sessions: int = 3,
        hardy: bool = False,
        rest: float = 0.03,
        timeout: str = "30s",
    ) -> None:
        self.problems: list[str] = []
        self.done = 0
        self._dsn, self._hardy, self._rest, self._timeout = dsn, hardy, rest, timeout
        self._stop = threading.Event()
        seeds = [rng.random() for _ in range(sessions)]
        self._threads = [
            threading.Thread(target=self._session, args=(nr, random.Random(seed)), daemon=True)
            for nr, seed in enumerate(seeds)
        ]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End the sessions; fail if a user met something that is not everyday life."""
        self._stop.set()
        for thread in self._threads:
            thread.join(timeout=60)
            assert not thread.is_alive(), f"a user's statement waits\n{self._waits()}"
        assert not self.problems, "\n".join(self.problems)

    def _waits(self) -> str:
        """Who waits for whom, and what each of them does."""
        with psycopg.connect(self._dsn, autocommit=True) as conn:
            sessions = conn.execute(
                "select pid, pg_blocking_pids(pid), application_name, state, wait_event, "
                "clock_timestamp() - query_start, query "
                "from pg_stat_activity where datname = current_database()"
            )
            return "\n".join(map(str, sessions))

    def _session(self, nr: int, rng: random.Random) -> None:
        while not self._stop.is_set():
            try:
                with psycopg.connect(self._dsn, autocommit=True, connect_timeout=10) as conn:
                    conn.isolation_level = ISOLATION[nr % len(ISOLATION)]
                    self._write(conn, rng)
            except psycopg.OperationalError as exc:
                if not self._hardy:
                    self.problems.append(f"session {nr}: {exc}")
                    return
                self._stop.wait(0.05)
            except psycopg.Error as exc:
                self.problems.append(f"session {nr}: {type(exc).__name__}: {exc}")
                return

    def _write(self, conn: Connection, rng: random.Random) -> None:
        conn.execute("select set_config('statement_timeout', %s, false)", (self._timeout,))
        while not self._stop.is_set():
            try:
                change(conn, rng)
                self.done += 1
            except EVERYDAY:
                pass
            except psycopg.errors.DeadlockDetected as exc:
                # Users who lock several rows meet one another; a worker is never part of it.
                if "_pgstack" in str(exc) or "_store" in str(exc):
                    self.problems.append(str(exc))
            self._stop.wait(rng.random() * self._rest)


@contextmanager
def writing(dsn: str, rng: random.Random, **options: Any) -> Iterator[Writers]:
    """Users write while the block runs; options are those of :class:`Writers`."""
    writers = Writers(dsn, rng, **options)
    try:
        yield writers
    finally:
        writers.stop()
