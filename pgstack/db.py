"""Connections to PostgreSQL, and how errors on the way there are told.

Every connection pgstack opens is UTF-8, READ COMMITTED and says who it is in
``pg_stat_activity``.  Timestamps travel in ISO form.
"""

from __future__ import annotations

from typing import Any, LiteralString

import psycopg
from psycopg import sql

from pgstack.errors import Unreachable

Connection = psycopg.Connection[Any]

# Advisory locks of pgstack: (CLASS, n).  CLASS spells "pgst".
LOCK_CLASS = 0x70677374
LOCK_INSTALL = 2

OPTIONS = "-c default_transaction_isolation=read\\ committed -c datestyle=ISO"


def connect(dsn: str, *, autocommit: bool = False, application_name: str = "pgstack") -> Connection:
    """Open a connection, or raise :class:`~pgstack.errors.Unreachable`."""
    try:
        return psycopg.connect(
            dsn,
            autocommit=autocommit,
            application_name=application_name,
            client_encoding="utf-8",
            connect_timeout=10,
            options=OPTIONS,
        )
    except psycopg.OperationalError as exc:
        raise Unreachable(
            f"cannot reach the database: {str(exc).strip()}",
            hint="pgstack up   # or name another database with -d URL",
        ) from exc
    except psycopg.ProgrammingError as exc:
        raise Unreachable(
            f"not a database URL: {str(exc).strip()}",
            hint="postgresql://user@host:5432/database",
        ) from exc


def execute_script(conn: Connection, script: str) -> None:
    """Send ``script`` as it is: no parameters, so ``%`` and ``:name`` stay untouched."""
    conn.execute(sql.SQL(_trusted(script)))


def _trusted(script: str) -> LiteralString:
    """Mark text that was read from this package's own files as safe to execute."""
    return script
