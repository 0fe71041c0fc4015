"""``python -m pgstack.worker.dataset_load URL REQUEST``: one load that SQL asked for.

It looks once more whether the source is allowed, links resolved, and writes as the owner of
pgstack.  Exit code 0: what came of it is written down.
"""

from __future__ import annotations

import resource
import sys
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql

from pgstack import queries
from pgstack.datasets import Options, load_dataset
from pgstack.datasets.load import MAX_REJECTS
from pgstack.db import Connection, connect
from pgstack.errors import PgstackError
from pgstack.remote import is_url
from pgstack.vectorizers import understood

MEMORY_BYTES = 6 * 2**30  # of addresses


def main() -> int:
    """Load; return the exit code."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    url, request = sys.argv[1], int(sys.argv[2])
    with connect(url, autocommit=True, application_name="pgstack dataset") as conn:
        row = conn.execute(queries.LOAD_REQUEST, (request,)).fetchone()
        if row is not None:
            _load(conn, request, *row)
    return 0


def _load(conn: Connection, request: int, *wanted: Any) -> None:
    source, target, options, owner = wanted
    try:
        conn.execute(sql.SQL("set role {}").format(sql.Identifier(owner)))
        with understood():
            conn.execute(queries.LOAD_ALLOWED, (source,))
            path = source if is_url(source) else str(Path(source).resolve())
            conn.execute(queries.LOAD_ALLOWED, (path,))
        most = options.pop("max_rejects", MAX_REJECTS)
        report = load_dataset(
            conn, path, table=target, options=Options(**options), max_rejects=int(most)
        )
    except (PgstackError, psycopg.Error, OSError, MemoryError) as exc:
        conn.execute("reset role")
        said = str(exc).strip() or type(exc).__name__
        hint = getattr(exc, "hint", None)
        conn.execute(queries.LOAD_FAILED, (request, f"{said} ({hint})" if hint else said))
    else:
        conn.execute("reset role")
        conn.execute(queries.LOAD_DONE, (request, report.load))


if __name__ == "__main__":
    sys.exit(main())
