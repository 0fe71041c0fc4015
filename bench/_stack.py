"""A stack of its own for a benchmark: PostgreSQL, deterministic model server, worker."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pgstack import install
from pgstack.db import connect
from pgstack.embedded import postgres
from pgstack.embedded.home import Home
from pgstack.embedded.modelserver import start_deterministic


@dataclass(frozen=True)
class Stack:
    """Where the parts of a running stack are."""

    dsn: str
    models_url: str


@contextlib.contextmanager
def database() -> Iterator[str]:
    """Run a PostgreSQL with pgstack in a temporary home; gives its DSN."""
    root = Path(tempfile.mkdtemp(prefix="pgstack-bench-"))
    root.chmod(0o755)  # as root, the server runs as another user, who must get in
    home = Home(root / "home")
    try:
        postgres.start(home)
        dsn = postgres.dsn(home)
        with connect(dsn) as conn:
            install.install(conn)
        yield dsn
    finally:
        postgres.stop(home)
        shutil.rmtree(root, ignore_errors=True)


@contextlib.contextmanager
def running(*, latency_ms: float = 0) -> Iterator[Stack]:
    """Run a whole stack in a temporary home for the length of a ``with`` block."""
    with (
        database() as dsn,
        start_deterministic(latency_ms=latency_ms) as url,
        _worker(dsn, url),
    ):
        yield Stack(dsn, url)


@contextlib.contextmanager
def _worker(dsn: str, models_url: str) -> Iterator[None]:
    process = subprocess.Popen(
        [sys.executable, "-m", "pgstack.worker", "--database-url", dsn],
        env={**os.environ, "OLLAMA_HOST": models_url},
        stderr=subprocess.DEVNULL,
    )
    try:
        with connect(dsn, autocommit=True) as conn:
            while not conn.execute("select _pgstack.worker_present()").fetchone()[0]:
                conn.execute("select pg_sleep(0.05)")
        yield
    finally:
        process.terminate()
        process.wait()
