"""A stack that is broken on purpose, and what must be true of it afterwards.

``Stack.settle()`` is the judge: faults are over, live workers catch up, and then the target
holds exactly what a fresh build of the same rows gives, computed here from the rows alone;
nothing is queued, leased, half done or left over.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
from psycopg import sql

from pgstack.embedded.modelserver.deterministic_vectors import vector
from tests.faults.servers import Database, ModelServer, Worker
from tests.faults.waiting import wait_for
from tests.faults.writers import Writers, writing

Connection = psycopg.Connection[Any]
Chunks = dict[tuple[int, int], tuple[str, int, int, bytes]]

DIMENSIONS = 384
CHUNK = {"chunk_size": 200, "chunk_overlap": 40}
WORKER_MB = 300  # more than twice what a worker needs
WORKER_CONNECTIONS = 16


@dataclass
class Stack:
    """A database, a model server and workers; ``dsn`` is where the users are."""

    database: Database
    dbname: str
    models: ModelServer
    rng: random.Random
    place: Path
    workers: list[Worker] = field(default_factory=list)
    tables: list[str] = field(default_factory=list)
    discarded: bool = False

    @property
    def dsn(self) -> str:
        return self.database.dsn(self.dbname)

    # -- set up ---------------------------------------------------------------------------

    @contextmanager
    def connect(self, **options: Any) -> Iterator[Connection]:
        """Give an autocommit connection."""
        with psycopg.connect(self.dsn, autocommit=True, connect_timeout=10, **options) as conn:
            yield conn

    def execute(self, query: str, *params: Any) -> list[tuple[Any, ...]]:
        """Run one statement in a connection of its own; return its rows."""
        with self.connect() as conn:
            cursor = conn.execute(query, params or None)  # type: ignore[arg-type]
            return cursor.fetchall() if cursor.description else []

    def create_table(self, name: str = "t", rows: int = 0) -> None:
        """Make a source with rows and a vectorizer of the same name."""
        with self.connect() as conn:
            conn.execute(
                sql.SQL(
                    "create table {} "
                    "(id int primary key, title text not null, body text, note text)"
                ).format(sql.Identifier(name))
            )
            self.insert(rows, name)
            conn.execute(
                "select pgstack.create_vectorizer(%s, array['title', 'body'], dimensions => %s, "
                "chunk_size => %s, chunk_overlap => %s)",
                (name, DIMENSIONS, *CHUNK.values()),
            )
        self.tables.append(name)

    def insert(self, rows: int, table: str = "t", body: str = "row", first: int = 1) -> None:
        """Insert rows with the texts ``body 1``, ``body 2``, ..."""
        with self.connect() as conn:
            conn.execute(
                sql.SQL(
                    "insert into {} (id, title, body) select i, 'title', %s || ' ' || i "
                    "from generate_series(%s::int, %s) as i"
                ).format(sql.Identifier(table)),
                (body, first, first + rows - 1),
            )

    def writing(self, sessions: int = 3, **options: Any) -> AbstractContextManager[Writers]:
        """Users change the table t while the block runs."""
        return writing(self.dsn, self.rng, sessions=sessions, **options)

    def configure(self, **settings: str) -> None:
        """Change settings of the database."""
        for name, value in settings.items():
            self.execute("select pgstack.configure(%s, %s)", name, value)

    def start_worker(
        self, *options: str, dsn: str = "", models_url: str = "", **environment: str
    ) -> Worker:
        """Start one more worker."""
        log = self.place / f"worker-{len(list(self.place.glob('worker-*')))}.log"
        url = models_url or self.models.url
        worker = Worker(dsn or self.dsn, url, log, *options, **environment)
        self.workers.append(worker)
        return worker

    def start_workers(self, count: int, *options: str) -> None:
        """Start workers, and wait until all are connected."""
        for _ in range(count):
            self.start_worker(*options)
        self.wait_until_connected()

    def wait_until_connected(self) -> None:
        """Return once every worker works."""
        query = "select count(*) from _pgstack.worker"
        self.wait(lambda: self.execute(query)[0][0] >= len(self.workers), "workers are connected")

    def replace_worker(self, worker: Worker) -> Worker:
        """Kill a worker with -9 and start another in its place."""
        worker.kill()
        self.workers.remove(worker)
        return self.start_worker()

    def let_a_moment_pass(self) -> None:
        """Wait for a random time, so that the blow falls anywhere."""
        time.sleep(self.rng.random() * 0.4)

    # -- watch ----------------------------------------------------------------------------

    def wait(self, condition: Any, what: str, seconds: float = 30) -> None:
        """Wait for a condition; a lost connection while asking means: not yet."""

        def asked() -> object:
            self.check_workers()
            try:
                return condition()
            except psycopg.OperationalError:
                return False

        wait_for(asked, what, seconds=seconds, explain=self.explain)

    def check_workers(self) -> None:
        """Fail if a worker ended by itself."""
        ended = [worker for worker in self.workers if not worker.alive()]
        assert ended == [], f"a worker ended with {ended[0].process.poll()}:\n{ended[0].said()}"

    def embedded(self) -> int:
        """How many chunks were written so far."""
        query = "select coalesce(sum(embedded_chunks), 0)::bigint from pgstack.vectorizer_status"
        return int(self.execute(query)[0][0])

    def wait_for_progress(self, chunks: int = 20) -> None:
        """Return once workers have written so many chunks more."""
        before = 0

        def begun() -> bool:
            nonlocal before
            before = self.embedded()
            return True

        self.wait(begun, "the database answers")
        self.wait(lambda: self.embedded() >= before + chunks, f"{chunks} chunks are written")

    def status(self, name: str = "t") -> dict[str, Any]:
        """One row of pgstack.vectorizer_status."""
        with self.connect(row_factory=psycopg.rows.dict_row) as conn:
            row = conn.execute(
                "select * from pgstack.vectorizer_status where name = %s", [name]
            ).fetchone()
        assert row is not None
        return row

    def explain(self) -> str:
        """The state of everything, for the message of a failure."""
        said = [f"{worker.log.name}: {worker.said()}" for worker in self.workers]
        try:
            with self.connect(row_factory=psycopg.rows.dict_row) as conn:
                for query in (
                    "select name, state, pending, failed, last_error "
                    "from pgstack.vectorizer_status",
                    "select key, state, worker, attempts, due_at - clock_timestamp() as due, "
                    "last_error from _pgstack.work limit 10",
                    "select id, pid, seen_at - now() as seen from _pgstack.worker",
                    "select pid, state, wait_event, left(query, 80) as query from pg_stat_activity "
                    "where application_name = 'pgstack worker' and datname = current_database()",
                ):
                    said += [str(row) for row in conn.execute(query)]  # type: ignore[arg-type]
        except psycopg.Error as exc:
            said.append(f"the database does not answer: {exc}")
        return "\n".join(said)

    # -- judge ----------------------------------------------------------------------------

    def settle(self, *, seconds: float = 60, retry: bool = False, failed: int = 0) -> None:
        """Wait until nothing is left to do, then compare, and look for leftovers.

        ``retry``: do what a DBA does after mending something, pgstack.retry_vectorizer(), until
        no row is set aside.
        ``failed``: so many rows are set aside, and have no chunks.
        """
        if not self.models.alive():
            self.models.start()
        self.models.clear()
        self.wait(lambda: self.execute("select 1"), "the database answers")
        for table in self.tables:
            self.wait(
                lambda table=table: self.is_settled(table, retry=retry),
                f"{table} is fresh",
                seconds=seconds,
            )
        for table in self.tables:
            self.compare(table, failed)
        self.check_leftovers(failed)

    def is_settled(self, table: str, *, retry: bool) -> bool:
        """Tell whether nothing is queued; a call under way may still set rows aside."""
        status = self.status(table)
        if retry and status["failed"]:
            self.execute("select pgstack.retry_vectorizer(%s)", table)
            return False
        return bool(status["pending"] == 0)

    def compare(self, table: str = "t", failed: int = 0) -> None:
        """Compare every chunk, offset and vector with a fresh build."""
        with self.connect() as conn, conn.transaction():
            conn.execute("set transaction isolation level repeatable read")
            found, expected = stored(conn, table), fresh(conn, table)
        set_aside = {key[0] for key in expected.keys() - found.keys()} if failed else set()
        assert len(set_aside) == failed, self.explain()
        expected = {key: chunk for key, chunk in expected.items() if key[0] not in set_aside}
        assert sorted(found.keys() - expected.keys()) == [], f"orphans\n{self.explain()}"
        assert sorted(expected.keys() - found.keys()) == [], f"lost\n{self.explain()}"
        different = [
            (key, found[key][:3], chunk[:3])
            for key, chunk in expected.items()
            if found[key] != chunk
        ]
        assert different == [], f"stale (key, found, expected)\n{self.explain()}"

    def check_leftovers(self, failed: int = 0) -> None:
        """Fail unless leases, requests, temporary files, connections and memory are as at rest."""

        def at_rest() -> bool:
            self.check_workers()
            self.execute("select _pgstack.worker_sweep()")
            return self.leftovers(failed) == {}

        def explain() -> str:
            return f"{self.leftovers(failed)}\n{self.explain()}"

        wait_for(at_rest, "nothing is left over", seconds=15, explain=explain)
        for worker in self.workers:
            assert worker.rss_mb() < WORKER_MB

    def leftovers(self, failed: int) -> dict[str, int]:
        """What should be zero and is not."""
        [(work, aside, requests, workers, connections, open_, invalid, names)] = self.execute(
            """
            select
              (select count(*) from _pgstack.work where state <> 'failed'),
              (select count(*) from _pgstack.work where state = 'failed'),
              (select count(*) from _pgstack.request),
              (select count(*) from _pgstack.worker),
              count(*) filter (where a.application_name = 'pgstack worker'),
              count(*) filter (
                where a.application_name = 'pgstack worker' and a.state like 'idle in%%'
              ),
              (select count(*) from pg_index where not indisvalid),
              (select count(*) from pg_prepared_xacts)
            from pg_stat_activity as a where a.datname = current_database()
            """.replace("%%", "%")
        )
        counts = {
            "leases": work,
            "rows set aside": aside - failed,
            "questions": requests,
            "dead workers": workers - len(self.workers),
            "connections": max(0, connections - WORKER_CONNECTIONS * len(self.workers)),
            "open transactions": open_,
            "invalid indexes": invalid,
            "prepared transactions": names,
            "temporary files": len(self.database.temporary_files()),
        }
        return {what: count for what, count in counts.items() if count}

    def stop(self) -> None:
        """End every worker."""
        for worker in self.workers:
            worker.kill()
        self.workers.clear()

    def discard(self) -> None:
        """End the workers and drop the database."""
        self.stop()
        if not self.discarded:
            self.discarded = True
            self.database.start()
            with self.database.connect("postgres") as conn:
                name = sql.Identifier(self.dbname)
                conn.execute(sql.SQL("drop database {} with (force)").format(name))


def stored(conn: Connection, table: str) -> Chunks:
    """Every chunk as it stands in the target."""
    rows = conn.execute(
        sql.SQL(
            "select id, chunk_seq, chunk, start_char, end_char, embedding::text from {}"
        ).format(sql.Identifier(f"{table}_embedding_store"))
    )
    return {
        (key, seq): (chunk, start, end, np.array(json.loads(embedding), np.float32).tobytes())
        for key, seq, chunk, start, end, embedding in rows
    }


def fresh(conn: Connection, table: str) -> Chunks:
    """Every chunk as a fresh build of the rows makes it: cut in SQL, embedded right here."""
    rows = conn.execute(
        sql.SQL(
            "select t.id, t.title, c.seq, c.chunk, c.start_char, c.end_char from {} as t "
            "cross join pgstack.chunk(t.body, 'recursive', %s, %s) as c"
        ).format(sql.Identifier(table)),
        list(CHUNK.values()),
    )
    return {
        (key, seq): (chunk, start, end, vector(f"{title}\n\n{chunk}", DIMENSIONS, "hash").tobytes())
        for key, title, seq, chunk, start, end in rows
    }
