"""Homes for the tests of the embedded stack: real servers, each in a place of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from pgstack.embedded import postgres, stack
from pgstack.embedded.home import Home
from tests import places

# Durability is not what these tests are about, and the machine is small.
QUICK = {"fsync": "off", "full_page_writes": "off", "shared_buffers": "16MB"}

type HomeAt = Callable[[Path], Home]
type Query = Callable[..., Any]
type Starter = Callable[..., subprocess.Popen[str]]

# Imports everything, becomes another user if told to (who may be unable to read this
# Python's own files), and starts a server.
START = """
import importlib.metadata, os, psycopg, pwd, sys
from pathlib import Path
from pgstack.embedded import postgres
from pgstack.embedded.home import Home
from tests import places
importlib.metadata.version("psycopg")
if len(sys.argv) > 2:
    user = pwd.getpwnam(sys.argv[2])
    os.setgroups([])
    os.setgid(user.pw_gid)
    os.setuid(user.pw_uid)
home = Home(Path(sys.argv[1]))
postgres.start(home, settings={"fsync": "off", "shared_buffers": "16MB"})
print(postgres.listener(home))
"""


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory that PostgreSQL's user can reach."""
    with places.place("pgstack-test-") as directory:
        yield directory


@pytest.fixture
def home_at(place: Path) -> Iterator[HomeAt]:
    """Makes homes whose servers are stopped at the end of the test."""
    homes: list[Home] = []

    def make(root: Path) -> Home:
        homes.append(Home(root))
        return homes[-1]

    yield make
    for home in homes:
        stack.down(home)


@pytest.fixture
def home(place: Path, home_at: HomeAt) -> Home:
    """A home with nothing in it yet."""
    return home_at(place / "home")


@pytest.fixture
def quick() -> dict[str, str]:
    """Settings for servers that need not survive a power cut."""
    return dict(QUICK)


@pytest.fixture(scope="session")
def mould() -> Iterator[Home]:
    """A home that was started once and stopped, to be copied: initdb takes longer than a test."""
    with places.place("pgstack-test-") as directory:
        home = Home(directory / "home")
        postgres.start(home, settings=QUICK)
        postgres.stop(home)
        yield home


@pytest.fixture
def made(mould: Home, home: Home) -> Home:
    """A home whose PostgreSQL was set up before, and does not run."""
    found = mould.root.stat()
    home.root.mkdir(found.st_mode & 0o777)
    os.chown(home.root, found.st_uid, found.st_gid)
    subprocess.run(["cp", "-a", mould.data, home.data], check=True)
    subprocess.run(["cp", "-a", "--link", mould.server_tree, home.server_tree], check=True)
    return home


@pytest.fixture
def running(made: Home) -> Home:
    """A home whose PostgreSQL runs."""
    postgres.start(made, settings=QUICK)
    return made


@pytest.fixture(scope="session")
def shared() -> Iterator[Home]:
    """One running server for the tests that only look."""
    with places.place("pgstack-test-") as directory:
        home = Home(directory / "home")
        postgres.start(home, settings=QUICK)
        yield home
        postgres.stop(home)


@pytest.fixture(scope="session")
def query() -> Query:
    """Runs one statement and returns its only value, or None."""

    def run(home: Home, text: str, dbname: str = "pgstack") -> Any:
        with psycopg.connect(postgres.dsn(home, dbname), autocommit=True) as conn:
            cursor = conn.execute(text.encode())
            row = cursor.fetchone() if cursor.description else None
            return row[0] if row else None

    return run


@pytest.fixture(scope="session")
def start_in_child() -> Starter:
    """Starts a home's server from a process of its own, perhaps as another user."""

    def start(home: Home, *user: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-W", "error", "-c", START, str(home.root), *user],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd="/",
        )

    return start
