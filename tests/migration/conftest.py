"""Fixtures: empty databases, dumps, and a second server whose roles a test may drop."""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from pgstack import install
from pgstack.db import connect
from pgstack.embedded import postgres
from pgstack.embedded.home import Home
from tests.conftest import EXISTING_SERVER, SETTINGS, Server
from tests.places import place

Connection = psycopg.Connection[Any]


@contextmanager
def empty_database(server: Server | Home, name: str = "", options: str = "") -> Iterator[str]:
    """A database without pgstack; gives its DSN."""
    name = name or f"m_{uuid.uuid4().hex[:12]}"
    identifier = sql.Identifier(name)
    address = partial(postgres.dsn, server) if isinstance(server, Home) else server.dsn
    with connect(address(), autocommit=True) as admin:
        admin.execute(
            sql.SQL("create database {} template template0 {}").format(
                identifier,
                sql.SQL(options),  # type: ignore[arg-type]
            )
        )
        try:
            yield address(name)
        finally:
            admin.execute(sql.SQL("drop database if exists {} with (force)").format(identifier))


@pytest.fixture
def empty_url(server: Server) -> Iterator[str]:
    """The DSN of an empty database."""
    with empty_database(server) as dsn:
        yield dsn


def program(name: str, server: Server, embedded: Home) -> Path:
    """The path of a program such as pg_dump, of the server's own version; skips where none is."""
    if not EXISTING_SERVER:
        return postgres.binary(embedded, name)
    with connect(server.dsn()) as conn:
        major = str(conn.info.server_version // 10000)
    found = shutil.which(name)
    if found is not None:
        said = subprocess.run([found, "--version"], check=True, capture_output=True, text=True)
        if re.findall(r"\d+", said.stdout)[0] == major:
            return Path(found)
    pytest.skip(f"PATH has no {name} of PostgreSQL {major}, as the server of PGSTACK_TEST_SERVER")


@pytest.fixture(scope="session")
def dump(server: Server, second_server: Home) -> Callable[[str], str]:
    """The schema of a database as pg_dump writes it, without what differs from run to run."""

    def dump(dsn: str) -> str:
        hosts = [conninfo_to_dict(each).get("host") for each in (dsn, server.dsn())]
        pg_dump = (
            program("pg_dump", server, second_server)
            if hosts[0] == hosts[1]
            else postgres.binary(second_server, "pg_dump")
        )
        command = [pg_dump, "--schema-only", "-d", dsn]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        return re.sub(r"(?m)^\\(un)?restrict .*$", "", done.stdout)

    return dump


@pytest.fixture(scope="session")
def second_server() -> Iterator[Home]:
    """Another PostgreSQL, which takes TCP connections with passwords."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with place("pgstack-test2-") as root:
        home = Home(root / "home")
        try:
            postgres.start(home, tcp_port=port, settings=SETTINGS)
            yield home
        finally:
            postgres.stop(home, mode="immediate")


@pytest.fixture
def bare(second_server: Home) -> Iterator[Home]:
    """A server that pgstack was never installed on: no roles of its."""
    yield second_server
    with connect(postgres.dsn(second_server), autocommit=True) as admin:
        databases = admin.execute(
            "select datname from pg_database where datname like 'm\\_%' or datname like 'copy%'"
        ).fetchall()
        for (name,) in databases:
            admin.execute(sql.SQL("drop database {} with (force)").format(sql.Identifier(name)))
        roles = admin.execute(
            "select rolname from pg_roles where rolname ~ '^(pgstack_|owner|mallory)' "
            "order by rolname ~ '^pgstack_' desc"
        ).fetchall()
        for (name,) in roles:
            admin.execute(sql.SQL("drop owned by {}").format(sql.Identifier(name)))
            admin.execute(sql.SQL("drop role {}").format(sql.Identifier(name)))


def installed(dsn: str) -> install.InstallReport:
    """Install pgstack in a database."""
    with connect(dsn) as conn:
        return install.install(conn)


def did(report: install.InstallReport) -> dict[str, str]:
    """What each step of an install did, without extensions that an existing server lacks."""
    steps = [step for step in report.steps if step.detail[:13] != "not available"]
    return {step.name: step.did for step in (steps if EXISTING_SERVER else report.steps)}
