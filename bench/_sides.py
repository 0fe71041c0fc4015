"""The two workers that bench/sync.py compares, each with a database of its own.

Both databases are on one server.  The peer's never saw pgstack: pgai's own triggers and
tables, pgai's own worker in a virtual environment of its own (.cache/pgai-worker, built
once from bench/pgai-worker.txt).  Nothing in it is stubbed: pgai imports the packages that
are left out (docling, litellm and the like) only for vectorizers that ask for them.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, LiteralString

import psycopg
from psycopg import sql

from bench import _process
from bench._models import Asked, Models
from pgstack.db import connect

_ROOT = Path(__file__).resolve().parents[1]
_VENV = _ROOT / ".cache/pgai-worker"
_REQUIREMENTS = Path(__file__).with_name("pgai-worker.txt")
PEER = "pgai 0.12.1"

_CREATE_TABLE = "create table item (id bigint primary key, body text not null, note text)"
_CREATE_OURS = """
  select pgstack.create_vectorizer('item', 'body', name => 'item', model => 'all-minilm',
    dimensions => 384, chunking => 'recursive', chunk_size => 800, chunk_overlap => 400,
    template => '$chunk', index => 'none', enqueue_existing => %(enqueue)s)"""
_CREATE_PEERS = """
  select ai.create_vectorizer('item'::regclass, name => 'item',
    loading => ai.loading_column('body'), embedding => ai.embedding_ollama('all-minilm', 384),
    chunking => ai.chunking_recursive_character_text_splitter(800, 400),
    formatting => ai.formatting_python_template('$chunk'),
    processing => ai.processing_default(batch_size => %(batch)s),
    destination => ai.destination_table('item_embedding'), enqueue_existing => %(enqueue)s)"""

surprises: list[str] = []
"""What went wrong in a run: rows lost, errors, a worker that ended early."""


@dataclass(frozen=True)
class Work:
    """One run of a worker until it said that nothing was left to do."""

    used: _process.Usage
    server_cpu_seconds: float
    asked: Asked
    chunks: int

    @property
    def seconds(self) -> float:
        """From the start of the process to its end."""
        return self.used.seconds


@dataclass(frozen=True)
class Side:
    """A worker and its database.

    ``batch`` is pgai's batch_size, None its default; ``words`` whether ours makes tables of words.
    """

    name: str
    dsn: str
    create: LiteralString
    drop: LiteralString
    command: tuple[str, ...]
    models: Models
    concurrency: int = 1
    batch: int | None = None
    words: bool | None = None

    def using(self, *, concurrency: int, batch: int | None = None) -> Side:
        """Return the same side with other settings."""
        return replace(self, concurrency=concurrency, batch=batch)

    def fresh(self, texts: Sequence[str], *, vectorizer: bool = True, enqueue: bool = True) -> None:
        """Make the table anew, with these rows and, unless told not to, a vectorizer."""
        with connect(self.dsn, autocommit=True) as conn:
            conn.execute(self.drop)
            conn.execute("drop table if exists item_embedding_store, item cascade")
            if self.words is not None:
                index = "tsvector" if self.words else "none"
                conn.execute("select pgstack.configure('text_index', %s)", (index,))
            conn.execute(_CREATE_TABLE)
            self.add(conn, texts)
            if vectorizer:
                conn.execute(self.create, {"enqueue": enqueue, "batch": self.batch})
            conn.execute("vacuum analyze item")
            conn.execute("checkpoint")

    def add(self, conn: psycopg.Connection[Any], texts: Sequence[str], *, first: int = 0) -> None:
        """Add rows, in one statement."""
        with conn.cursor() as cursor, cursor.copy("copy item (id, body) from stdin") as rows:
            for row in enumerate(texts, first):
                rows.write_row(row)

    def work(self, *, latency_ms: float = 0, check: bool = True) -> Work:
        """Run the worker until it says that nothing is left to do, and check that."""
        self.models.forget(latency_ms=latency_ms)
        before = _server_cpu(self.dsn)
        used = _process.run([*self.command, "--once", *self._concurrency()], self.env())
        server_cpu = _server_cpu(self.dsn) - before
        asked = self.models.asked()
        with connect(self.dsn) as conn:
            chunks, rows, left = conn.execute(
                "select count(*), count(distinct id), (select count(*) from item)"
                " - count(distinct id) from item_embedding"
            ).fetchone() or (0, 0, 0)
        if check and (used.exit_code or left):
            last = " ".join(used.output.strip().splitlines()[-1:])[:200]
            surprises.append(
                f"{self.name}: exit code {used.exit_code}, {rows} rows embedded, {left} not: {last}"
            )
        return Work(used, server_cpu, asked, chunks)

    def running(self, *options: str) -> Any:
        """Run the worker without end, for the length of a ``with`` block."""
        return _process.in_background([*self.command, *self._concurrency(), *options], self.env())

    def env(self) -> dict[str, str]:
        """Return what the worker's environment adds."""
        return {"OLLAMA_HOST": self.models.url}

    def queued(self) -> int:
        """Return how many rows wait to be embedded."""
        with connect(self.dsn) as conn:
            name = conn.execute("select queue_schema, queue_table from ai.vectorizer").fetchone()
            queue = sql.Identifier(*(name or ()))
            counted = conn.execute(sql.SQL("select count(*) from {}").format(queue)).fetchone()
        return int(counted[0]) if counted else 0

    def rows_with(self, words: str) -> int:
        """Return how many rows have a chunk with these words."""
        with connect(self.dsn) as conn:
            counted = conn.execute(
                "select count(distinct id) from item_embedding where strpos(chunk, %s) > 0",
                (words,),
            ).fetchone()
        return int(counted[0]) if counted else 0

    def _concurrency(self) -> tuple[str, str]:
        return "--concurrency", str(self.concurrency)


def ours(dsn: str, models: Models) -> Side:
    """Return our side, in a database that has pgstack."""
    return Side(
        "pgstack",
        dsn,
        _CREATE_OURS,
        "select pgstack.drop_vectorizer(name, true) from ai.vectorizer",
        (sys.executable, "-m", "pgstack.worker", "--database-url", dsn),
        models,
        words=False,
    )


def peer(dsn: str, models: Models) -> Side:
    """Return pgai's side, in a new database on the same server."""
    with connect(dsn, autocommit=True) as conn:
        conn.execute("create database peer")
    theirs = psycopg.conninfo.make_conninfo(dsn, dbname="peer")
    with connect(theirs, autocommit=True) as conn:
        conn.execute("create extension vector")
    program = _program()
    subprocess.run([program, "install", "-d", theirs], check=True, capture_output=True)
    return Side(
        PEER,
        theirs,
        _CREATE_PEERS,
        "select ai.drop_vectorizer(id, drop_all => true) from ai.vectorizer",
        (program, "vectorizer", "worker", "-d", theirs),
        models,
    )


def _program() -> str:
    """Return pgai's command, installed if need be."""
    wanted = _REQUIREMENTS.read_text()
    stamp = _VENV / "requirements.txt"
    if not stamp.exists() or stamp.read_text() != wanted:
        print(f"building {_VENV} (once) ...", flush=True)
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(_VENV)], check=True)
        subprocess.run(
            [str(_VENV / "bin/pip"), "install", "-qq", "--no-deps", "-r", str(_REQUIREMENTS)],
            check=True,
        )
        stamp.write_text(wanted)
    return str(_VENV / "bin/pgai")


def _server_cpu(dsn: str) -> float:
    """Return the CPU seconds of PostgreSQL's processes that have ended, and its parent's."""
    with connect(dsn, autocommit=True) as conn:
        while conn.execute(
            "select from pg_stat_activity"
            " where backend_type = 'client backend' and pid <> pg_backend_pid()"
        ).rowcount:
            time.sleep(0.01)
        parent = int(_stat(conn.info.backend_pid)[1])
    return sum(map(int, _stat(parent)[11:15])) / os.sysconf("SC_CLK_TCK")


def _stat(pid: int) -> list[str]:
    """Return the fields of /proc/PID/stat from the state on."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
