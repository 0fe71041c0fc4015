"""Fixtures: a database with a worker that tests share, the model server's controls, roles.

``served``      an autocommit connection to a database with a worker; one a run
``served_url``  its DSN
``models``      what the deterministic model server was asked, and its faults
``make_role``   connections to ``served`` as new roles with no rights but everybody's
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, LiteralString

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo

from pgstack.db import connect
from tests.conftest import Server, cloned

Connection = psycopg.Connection[Any]


def value(conn: Connection, query: LiteralString, *params: Any) -> Any:
    row = conn.execute(query, params or None).fetchone()
    assert row is not None
    return row[0]


@contextmanager
def raises(sqlstate: str, words: str = "", hint: str = "") -> Iterator[None]:
    """The block fails with this SQLSTATE, and message and hint say these words."""
    with pytest.raises(psycopg.Error) as caught:
        yield
    said = f"{caught.value.sqlstate} {caught.value.diag.message_primary}"
    assert caught.value.sqlstate == sqlstate, said
    assert words in said
    assert caught.value.diag.message_hint
    assert hint in caught.value.diag.message_hint


class Models:
    """The deterministic model server: what it was asked, and what it should do wrong."""

    def __init__(self, url: str) -> None:
        self.url = url

    def _call(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, method=method)
        with urllib.request.urlopen(request, timeout=10) as answer:
            return json.loads(answer.read() or b"null")

    def stats(self) -> dict[str, Any]:
        return dict(self._call("GET", "/_control/stats"))

    def asked(self, text: str) -> int:
        """How often a text was embedded."""
        return int(self.stats()["per_text"].get(text, 0))

    def misbehave(self, **faults: Any) -> None:
        self._call("POST", "/_control", faults)

    def clear(self) -> None:
        self._call("DELETE", "/_control")

    def await_stats(self, condition: Callable[[dict[str, Any]], bool], seconds: float = 5) -> None:
        """Return once the statistics satisfy a condition."""
        until = time.monotonic() + seconds
        while not condition(stats := self.stats()):
            assert time.monotonic() < until, stats
            time.sleep(0.01)


@pytest.fixture
def models(models_url: str) -> Iterator[Models]:
    """The model server with its statistics at zero and no faults."""
    server = Models(models_url)
    server.clear()
    yield server
    server.clear()


@pytest.fixture(scope="session")
def running_url(
    server: Server, template: str, models_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """The DSN of a database with a worker."""
    log = tmp_path_factory.mktemp("worker") / "log"
    with cloned(server, template) as dsn, log.open("wb") as stderr:
        command = [sys.executable, "-m", "pgstack.worker", "--database-url", dsn]
        environ = {**os.environ, "OLLAMA_HOST": models_url}
        process = subprocess.Popen(command, env=environ, stderr=stderr)
        try:
            with connect(dsn, autocommit=True) as conn:
                while conn.execute("select _pgstack.worker_present()").fetchone() != (True,):
                    assert process.poll() is None, log.read_text()
                    time.sleep(0.02)
            yield dsn
            assert process.poll() is None, log.read_text()
        finally:
            process.terminate()
            assert process.wait(timeout=30) == 0, log.read_text()


@pytest.fixture
def served_url(running_url: str) -> Iterator[str]:
    """The DSN of the shared database, without settings and cached vectors."""
    yield running_url
    with connect(running_url, autocommit=True) as conn:
        conn.execute("delete from _pgstack.setting where name <> 'version'")
        conn.execute("truncate _pgstack.query_cache")


@pytest.fixture
def served(served_url: str) -> Iterator[Connection]:
    """An autocommit connection to the shared database."""
    with connect(served_url, autocommit=True) as conn:
        yield conn


@pytest.fixture
def make_role(served: Connection, served_url: str) -> Iterator[Callable[..., Connection]]:
    """Make roles with no rights but everybody's; gives autocommit connections as them."""
    made: list[tuple[str, Connection]] = []

    def make(prefix: str = "visitor", options: str = "") -> Connection:
        name = f"{prefix}_{uuid.uuid4().hex[:8]}"
        served.execute(
            sql.SQL("create role {} login {}").format(
                sql.Identifier(name),
                sql.SQL(options),  # type: ignore[arg-type]
            )
        )
        conn = connect(make_conninfo(served_url, user=name), autocommit=True)
        made.append((name, conn))
        return conn

    yield make
    for name, conn in made:
        conn.close()
        served.execute(sql.SQL("drop owned by {} cascade").format(sql.Identifier(name)))
        served.execute(sql.SQL("drop role {}").format(sql.Identifier(name)))


@pytest.fixture
def visitor(make_role: Callable[..., Connection]) -> Connection:
    """A connection as a role with no rights but everybody's."""
    return make_role()


@pytest.fixture
def docs(db: Connection) -> Connection:
    """A database with the empty collection docs."""
    db.execute("select pgstack.create_collection('docs', dimensions => 384)")
    return db
