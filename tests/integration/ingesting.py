"""What tests of ingest share: a collection ``docs`` that asks no model, and what is in it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import psycopg
from psycopg.sql import SQL, Identifier

from pgstack.ingest import IngestProgress, IngestReport, ingest

Conn = psycopg.Connection[Any]
DIMENSIONS = 8  # told, so that no model is asked
OLD = 1_000_000_000  # a time of change long ago: a file as it lies on people's disks


def run(conn: Conn, *paths: Path | str, **options: Any) -> IngestReport:
    """Ingest into ``docs``, with one process that reads: outcomes come in the files' order."""
    return ingest(conn, paths, "docs", **{"dimensions": DIMENSIONS, "jobs": 1, **options})


def steps_of(conn: Conn, *paths: Path | str, **options: Any) -> dict[str, str]:
    """Ingest; return the outcome of each file, by its name."""
    steps: list[IngestProgress] = []
    run(conn, *paths, progress=steps.append, **options)
    assert len({step.path for step in steps}) == len(steps)
    return {Path(step.path).name: step.outcome for step in steps}


def documents(conn: Conn, collection: str = "docs") -> dict[str, str]:
    """The texts of a collection, by uri."""
    query = SQL("select uri, content from {}")
    return dict(
        conn.execute(query.format(Identifier("pgstack_collections", collection))).fetchall()
    )


def write(path: Path, content: str | bytes, *, at: float = OLD) -> Path:
    """Write a file that was changed at a time; returns it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    os.utime(path, (at, at))
    return path


def everything(conn: Conn) -> list[tuple[Any, ...]]:
    """All that a collection says of its documents but when and in which order it came."""
    return conn.execute(
        "select uri, title, media_type, content, content_hash, bytes, metadata, source, "
        "source_hash, source_bytes, source_modified, parts, pages, language, owner, tenant, "
        "status, error, worker, attempts from pgstack_collections.docs order by uri"
    ).fetchall()
