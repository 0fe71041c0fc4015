"""What the parts of one worker share: who it is, its database and its model server."""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, LiteralString

import psycopg
from psycopg_pool import AsyncConnectionPool

from pgstack.models import ModelServer
from pgstack.worker.meter import Meter

log = logging.getLogger("pgstack.worker")


@dataclass
class Session:
    """One connection of a worker to its database, for as long as that lasts.

    ``names`` limits the worker to some vectorizers; None means all of them.
    ``moved`` and ``questions`` are set when there may be something to do, ``withdrawn`` when
    a question may not be wanted any more, ``indexes`` when an index was asked for,
    ``documents`` when files may have come in, ``datasets`` when one was asked for.
    ``news``: rows may have become due.
    """

    worker: uuid.UUID
    pool: AsyncConnectionPool[Any]
    server: ModelServer
    names: Sequence[str] | None
    concurrency: int
    meter: Meter
    stopping: asyncio.Event
    once: bool = False  # end when nothing is left to do
    model_timeout: float = 300.0  # seconds a vectorizer's call may take
    dsn: str = ""  # for processes of their own
    asking: int = 0  # questions being answered; bulk work waits for them
    news: bool = True
    reading: bool = False  # once: files are being read, whose text is to be embedded
    moved: asyncio.Event = field(default_factory=asyncio.Event)
    questions: asyncio.Event = field(default_factory=asyncio.Event)
    withdrawn: asyncio.Event = field(default_factory=asyncio.Event)
    indexes: asyncio.Event = field(default_factory=asyncio.Event)
    documents: asyncio.Event = field(default_factory=asyncio.Event)
    datasets: asyncio.Event = field(default_factory=asyncio.Event)

    def tell_news(self) -> None:
        """Have the vectorizers looked at."""
        self.news = True
        self.moved.set()

    async def fetch(self, query: LiteralString, *params: object) -> list[Any]:
        """Run one statement in a transaction of its own; return its rows.

        A deadlock ended another session's transaction or this one; this one is tried again.
        """
        for last in (False, False, True):
            try:
                async with self.pool.connection() as conn:
                    cursor = await conn.execute(query, params, binary=True)
                    rows: list[Any] = await cursor.fetchall()
                    return rows
            except psycopg.errors.DeadlockDetected:
                if last:
                    raise
        raise AssertionError("unreachable")

    async def value(self, query: LiteralString, *params: object) -> Any:
        """Run one statement; return the first column of its first row."""
        rows = await self.fetch(query, *params)
        return rows[0][0] if rows else None


async def wait_for(event: asyncio.Event, seconds: float) -> None:
    """Wait until ``event`` is set or ``seconds`` have passed."""
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        pass
