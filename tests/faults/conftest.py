"""Fixtures: a stack of its own for every scenario, and the dice.

``PGSTACK_FAULT_SEED`` sets the dice; a failing test prints what they were.
"""

from __future__ import annotations

import os
import random
import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from psycopg import sql

from pgstack import install
from pgstack.db import connect
from pgstack.embedded.home import Home
from tests import places
from tests.faults.harness import Stack
from tests.faults.servers import Database, ModelServer

SEED = int(os.environ.get("PGSTACK_FAULT_SEED") or random.SystemRandom().randrange(10**6))
LEASE = "3s"


@pytest.fixture
def rng(request: pytest.FixtureRequest) -> random.Random:
    """Dice that fall the same way for the same seed and test."""
    print(f"to repeat: PGSTACK_FAULT_SEED={SEED} make test ARGS='{request.node.nodeid}'")
    return random.Random(f"{SEED} {request.node.name}")


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory that PostgreSQL's user can reach."""
    with places.place("pgstack-fault-") as directory:
        yield directory


@contextmanager
def running(home: Home) -> Iterator[Database]:
    """A server, with pgstack in its database ``installed``, for the length of the block."""
    database = Database(home)
    try:
        database.start()
        with database.connect("postgres") as conn:
            conn.execute("create database installed")
        with connect(database.dsn("installed")) as conn:
            assert install.install(conn).warnings == []
        yield database
    finally:
        database.stop()


@pytest.fixture(scope="session")
def database() -> Iterator[Database]:
    """A PostgreSQL to be killed."""
    with places.place("pgstack-fault-") as root, running(Home(root / "home")) as database:
        yield database


@pytest.fixture(scope="session")
def models() -> Iterator[ModelServer]:
    """A model server to be killed."""
    with tempfile.TemporaryDirectory(prefix="pgstack-fault-") as folder:
        models = ModelServer(Path(folder))
        yield models
        models.kill()


@pytest.fixture
def make_stack(
    rng: random.Random, place: Path, models: ModelServer
) -> Iterator[Callable[[Database], Stack]]:
    """Make a stack in a new database of a server."""
    made: list[Stack] = []

    def make(database: Database) -> Stack:
        database.start()  # the scenario before may have failed with the server down
        name = f"t_{uuid.uuid4().hex[:12]}"
        with database.connect("postgres") as conn:
            conn.execute(
                sql.SQL("create database {} template installed").format(sql.Identifier(name))
            )
        stack = Stack(database, name, models, rng, place)
        made.append(stack)
        if not models.alive():
            models.start()
        models.clear()
        stack.configure(lease=LEASE)
        return stack

    yield make
    for stack in made:
        stack.discard()


@pytest.fixture
def stack(make_stack: Callable[[Database], Stack], database: Database) -> Stack:
    """A stack without workers."""
    return make_stack(database)
