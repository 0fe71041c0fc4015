"""Fixtures: one PostgreSQL and one deterministic model server a run.

The PostgreSQL is the embedded one, or an existing one: ``PGSTACK_TEST_SERVER`` is the DSN of a
superuser there.  Tests make databases and drop them; some of pgstack's roles stay.

``conn``      work that is rolled back: no worker can see it          (7 ms)
``db_url``    a database of its own, cloned from an installed one     (50 ms)
``db``        an autocommit connection to that database
``worker``    a worker process on that database, with the deterministic model server
"""

from __future__ import annotations

import contextlib
import os
import signal
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any
from urllib.parse import quote, urlencode

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from pgstack import install
from pgstack.db import connect
from pgstack.embedded import postgres
from pgstack.embedded.home import Home
from pgstack.embedded.modelserver import start_deterministic
from tests import nursery
from tests.places import place

EXISTING_SERVER = os.environ.get("PGSTACK_TEST_SERVER")
Connection = psycopg.Connection[Any]

# A server that may forget everything: tests never need it after a crash of the machine.
SETTINGS = {
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "max_connections": "200",
    "autovacuum_naptime": "5s",
    "shared_buffers": "256MB",
    "max_wal_size": "256MB",
}


@dataclass(frozen=True)
class Server:
    """The PostgreSQL of the run."""

    dsn: Callable[..., str]  # of a database, if named; as a URI of a superuser


def uri(conninfo: str, dbname: str = "postgres") -> str:
    """Return the URI of a database on the server that ``conninfo`` names."""
    options = {key: str(value) for key, value in conninfo_to_dict(conninfo).items()}
    options.pop("dbname", None)
    return f"postgresql:///{quote(dbname, safe='')}?{urlencode(options, quote_via=quote)}"


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """A running PostgreSQL: the one that PGSTACK_TEST_SERVER names, or an embedded one."""
    if EXISTING_SERVER:
        yield Server(dsn=partial(uri, EXISTING_SERVER))
        return
    with place("pgstack-test-") as root:
        home = Home(root / "home")
        try:
            postgres.start(home, settings=SETTINGS)
            yield Server(dsn=partial(postgres.dsn, home))
        finally:
            postgres.stop(home, mode="immediate")


@pytest.fixture(scope="session")
def template(server: Server) -> Iterator[str]:
    """The name of a database with pgstack installed, for cloning."""
    name = f"pgstack_template_{uuid.uuid4().hex[:8]}"
    with connect(server.dsn(), autocommit=True) as admin:
        admin.execute(sql.SQL("create database {}").format(sql.Identifier(name)))
    with connect(server.dsn(name)) as conn:
        report = install.install(conn)
    assert report.warnings == []
    yield name
    with connect(server.dsn(), autocommit=True) as admin:
        admin.execute(sql.SQL("drop database {}").format(sql.Identifier(name)))


@contextlib.contextmanager
def cloned(server: Server, template: str) -> Iterator[str]:
    """A database of its own for the length of a ``with`` block; gives its DSN."""
    name = f"t_{uuid.uuid4().hex[:12]}"
    with connect(server.dsn(), autocommit=True) as admin:
        admin.execute(
            sql.SQL("create database {} template {}").format(
                sql.Identifier(name), sql.Identifier(template)
            )
        )
        try:
            yield server.dsn(name)
        finally:
            admin.execute(sql.SQL("drop database {} with (force)").format(sql.Identifier(name)))


def has_extension(conn: Connection, name: str) -> bool:
    """Tell whether the server offers an extension; the embedded one offers all."""
    query = "select from pg_available_extensions where name = %s"
    return not EXISTING_SERVER or conn.execute(query, [name]).fetchone() is not None


def need_extension(conn: Connection, name: str) -> None:
    """Skip the test where an existing server does not offer an extension."""
    if not has_extension(conn, name):
        pytest.skip(f"the server of PGSTACK_TEST_SERVER has no {name}")


@pytest.fixture
def db_url(server: Server, template: str) -> Iterator[str]:
    """The DSN of a fresh installed database."""
    with cloned(server, template) as dsn:
        yield dsn


@pytest.fixture
def db(db_url: str) -> Iterator[Connection]:
    """An autocommit connection to the database of ``db_url``."""
    with connect(db_url, autocommit=True) as conn:
        yield conn


@pytest.fixture(scope="session")
def shared_url(server: Server, template: str) -> Iterator[str]:
    """The DSN of one installed database that nobody commits to."""
    with cloned(server, template) as dsn:
        yield dsn


@pytest.fixture
def conn(shared_url: str) -> Iterator[Connection]:
    """A connection whose work is rolled back: no test sees another's rows."""
    with connect(shared_url) as conn, conn.transaction(force_rollback=True):
        yield conn


@pytest.fixture(scope="session")
def models_url() -> Iterator[str]:
    """The base URL of the deterministic model server."""
    with start_deterministic() as url:
        yield url


class Worker:
    """A worker process; its log is shown when a test fails."""

    def __init__(self, dsn: str, models_url: str, *options: str) -> None:
        self.dsn = dsn
        environment = {**os.environ, "OLLAMA_HOST": models_url}
        self.process = nursery.start(["--database-url", dsn, *options], environment)

    def wait_until_present(self) -> None:
        """Return once the worker listens."""
        with connect(self.dsn, autocommit=True) as conn:
            while not conn.execute("select _pgstack.worker_present()").fetchone()[0]:
                assert self.process.poll() is None, "the worker ended"
                conn.execute("select pg_sleep(0.02)")

    def stop(self, signum: int = signal.SIGTERM) -> int:
        """End the worker; return its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signum)
        return self.process.wait(timeout=30)


@pytest.fixture
def start_worker(models_url: str) -> Iterator[Callable[..., Worker]]:
    """Start workers that end with the test: ``start_worker(dsn, "--concurrency", "1")``."""
    started: list[Worker] = []

    def start(dsn: str, *options: str, models: str = models_url) -> Worker:
        worker = Worker(dsn, models, *options)
        started.append(worker)
        return worker

    yield start
    for worker in started:
        worker.stop(signal.SIGKILL)


@pytest.fixture
def worker(db_url: str, start_worker: Callable[..., Worker]) -> Worker:
    """A worker on the database of ``db_url``, ready to work."""
    worker = start_worker(db_url)
    worker.wait_until_present()
    return worker


def make_url(dsn: str, **options: str) -> str:
    """Return ``dsn`` with other connection options, such as ``user``."""
    return make_conninfo(dsn, **options)
