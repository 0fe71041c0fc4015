"""Homes for the tests of the embedded stack: real servers, each in a place of its own."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from pgstack.embedded import postgres, stack
from pgstack.embedded.home import Home

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
    """A directory that PostgreSQL's user can reach (tmp_path is closed to others)."""
    directory = Path(tempfile.mkdtemp(prefix="pgstack-test-"))
    directory.chmod(0o755)
    yield directory
    shutil.rmtree(directory)


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


@pytest.fixture
def running(home: Home) -> Home:
    """A home whose PostgreSQL runs."""
    postgres.start(home, settings=QUICK)
    return home


@pytest.fixture(scope="session")
def shared() -> Iterator[Home]:
    """One running server for the tests that only look."""
    directory = Path(tempfile.mkdtemp(prefix="pgstack-test-"))
    directory.chmod(0o755)
    home = Home(directory / "home")
    postgres.start(home, settings=QUICK)
    yield home
    postgres.stop(home)
    shutil.rmtree(directory)


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
