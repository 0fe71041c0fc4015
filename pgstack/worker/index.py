"""Builds vector indexes when SQL says one is due.

``create index concurrently`` cannot run in a function or a transaction, which is the
only reason why Python has a part in this.
"""

from __future__ import annotations

from typing import Any

import psycopg

from pgstack import queries
from pgstack.worker.session import Session, log, wait_for

LOOK_SECONDS = 2.0


async def run(session: Session) -> None:
    """Build indexes as they become due, until the worker stops."""
    while not session.stopping.is_set():
        session.indexes.clear()
        await build_all(session)
        await wait_for(session.indexes, LOOK_SECONDS)


async def build_all(session: Session) -> None:
    """Build what is due now, one at a time across all workers of the database."""
    while not session.stopping.is_set() and await _build_next(session):
        pass


async def _build_next(session: Session) -> bool:
    """Run the next due statement; False: there is none, it failed, or another worker is at it."""
    async with session.pool.connection() as conn:
        cursor = await conn.execute(queries.INDEX_LOCK)
        row = await cursor.fetchone()
        if row is None or not row[0]:
            return False
        try:
            cursor = await conn.execute(queries.INDEX_DUE)
            due = await cursor.fetchone()
            return due is not None and await _run(conn, *due)
        finally:
            if not conn.closed and not conn.broken:
                await conn.execute(queries.INDEX_RESET)
                await conn.execute(queries.INDEX_UNLOCK)


async def _run(conn: psycopg.AsyncConnection[Any], name: str, statement: str) -> bool:
    """Run a statement that _pgstack.index_due() made with quoted names; tell it if that fails."""
    log.info("%s: %s", name, statement)
    try:
        # It waits for locks as long as it takes, unlike everything else a worker does.
        await conn.execute("set lock_timeout = 0")
        await conn.execute(statement)
    except psycopg.Error as exc:
        if conn.closed or conn.broken:
            raise
        log.warning("%s: an index could not be built: %s", name, exc)
        told = exc.diag.message_primary or str(exc)
        await conn.execute(queries.INDEX_FAILED, (name, exc.sqlstate or "", told))
        return False
    return True
