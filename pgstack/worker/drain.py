"""Vectorizers: claim, load, embed, complete.

``concurrency`` lanes run the same loop, each with its own claim.  No transaction is
open while the model works.  A batch that the model or the database refuses is halved
until the row at fault stands alone, so one bad row harms nobody else; a model server
that is down counts against nobody, the lane just waits and tries again.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import psycopg

from pgstack import queries
from pgstack.errors import (
    DimensionMismatch,
    HostNotAllowed,
    ModelNotFound,
    PgstackError,
    translated,
)
from pgstack.models import ModelServer
from pgstack.worker.bridge import vector_text
from pgstack.worker.session import Session, log, wait_for

CLAIM_ROWS = 64
TEXTS_PER_CALL = 32
POLL_SECONDS = 5.0  # finds work whose notification was lost
LONGEST_PAUSE = 30.0
GIVE_UP_AFTER = 5  # failed calls in a row, for a worker that runs --once


@dataclass(frozen=True)
class Chunk:
    """One text to embed; ``key`` is the position of its row in the batch."""

    key: int
    seq: int
    start: int
    end: int
    chunk: str
    input: str


@dataclass(frozen=True)
class Batch:
    """Leased rows of one vectorizer, loaded: ``versions[i]`` is None if row i is gone."""

    vectorizer: int
    name: str
    model: str
    options: dict[str, Any] | None
    keep_alive: str | None
    base_url: str | None
    keys: list[str]
    versions: list[bytes | None]
    chunks: list[Chunk]

    def part(self, positions: Sequence[int]) -> Batch:
        """Return the rows at ``positions`` as a batch of their own."""
        new = {old: i for i, old in enumerate(positions)}
        return replace(
            self,
            keys=[self.keys[i] for i in positions],
            versions=[self.versions[i] for i in positions],
            chunks=[replace(c, key=new[c.key]) for c in self.chunks if c.key in new],
        )

    def halves(self) -> tuple[Batch, Batch]:
        """Return the first and the second half of the rows."""
        middle = len(self.keys) // 2
        return self.part(range(middle)), self.part(range(middle, len(self.keys)))

    def calls(self) -> Iterator[Batch]:
        """Split by rows into parts of about :data:`TEXTS_PER_CALL` texts."""
        texts = [0] * len(self.keys)
        for chunk in self.chunks:
            texts[chunk.key] += 1
        part: list[int] = []
        size = 0
        for i, count in enumerate(texts):
            if part and size + count > TEXTS_PER_CALL:
                yield self.part(part)
                part, size = [], 0
            part.append(i)
            size += count
        if part:
            yield self.part(part)


# Errors that say the vectorizer cannot run at all, whatever the row.
BLOCKING = (ModelNotFound, DimensionMismatch, HostNotAllowed)

# Somebody holds a table for long: not an error of anybody's.
CONTENTION = (psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected)


class ModelServerDown(Exception):
    """The model server cannot be used now; the rows were given back."""


@dataclass
class Drain:
    """Keeps every vectorizer's target equal to its source."""

    session: Session
    once: bool = False
    failures: int = 0  # calls in a row that found the model server down

    async def run(self) -> None:
        """Run the lanes until the worker stops, or, once, until nothing is left to do."""
        async with asyncio.TaskGroup() as group:
            for _ in range(self.session.concurrency):
                group.create_task(self._lane())

    async def _lane(self) -> None:
        session = self.session
        while not session.stopping.is_set():
            session.work.clear()
            try:
                busy = await self._step()
            except ModelServerDown:
                if self.once and self.failures >= GIVE_UP_AFTER:
                    raise
                await wait_for(session.stopping, self._pause())
                continue
            if busy:
                continue
            if self.once and not await session.value(queries.WORK_LEFT, session.names):
                return
            due = await session.value(queries.WORK_NEXT_DUE)
            longest = 0.2 if self.once else POLL_SECONDS
            await wait_for(session.work, min(longest, float(due or longest)))

    async def _step(self) -> bool:
        """Claim and process one batch.  False: nothing is due."""
        session = self.session
        rows = await session.fetch(queries.WORK_CLAIM, session.worker, session.names, CLAIM_ROWS)
        for vectorizer, keys, name, model, options, keep_alive, base_url in rows:
            unloaded: list[bytes | None] = [None] * len(keys)
            batch = Batch(
                vectorizer, name, model, options, keep_alive, base_url, keys, unloaded, []
            )
            try:
                await self._process(batch)
            except CONTENTION as exc:
                log.info("%s: %s; the rows go back to the queue", name, exc)
                await self._release(batch, None, blocks=False)
        return bool(rows)

    def _pause(self) -> float:
        """Return seconds to leave a failing model server alone: 0.5, 1, 2 ... with jitter."""
        longest: float = min(LONGEST_PAUSE, 0.5 * 2 ** min(self.failures - 1, 10))
        return longest * random.uniform(0.75, 1.25)  # noqa: S311 - jitter, not a secret

    # ------------------------------------------------------------------ one batch

    async def _process(self, batch: Batch) -> None:
        """Load leased rows, then embed them part by part."""
        try:
            loaded = await self._load(batch)
        except psycopg.OperationalError:
            raise
        except psycopg.Error as exc:
            await self._split_or_fail(batch, exc, self._process, final=False)
            return
        parts = list(loaded.calls())
        for i, part in enumerate(parts):
            try:
                await self._embed(part)
            except ModelServerDown:
                for rest in parts[i + 1 :]:
                    await self._release(rest, None, blocks=False)
                raise

    async def _load(self, batch: Batch) -> Batch:
        rows = await self.session.fetch(queries.WORK_LOAD, batch.vectorizer, batch.keys)
        versions: list[bytes | None] = [None] * len(batch.keys)
        chunks = []
        for nr, version, seq, start, end, chunk, text in rows:
            versions[nr - 1] = version
            if chunk is not None:
                chunks.append(Chunk(nr - 1, seq, start, end, chunk, text))
        return replace(batch, versions=versions, chunks=chunks)

    async def _embed(self, batch: Batch) -> None:
        """Call the model and write what it says; tell apart whose fault a failure is."""
        began = time.monotonic()
        try:
            vectors = await self._vectors(batch)
            self.failures = 0
            await self._complete(batch, vectors, time.monotonic() - began)
        except BLOCKING as exc:
            await self._release(batch, exc, blocks=True)
        except PgstackError as exc:
            if exc.retryable:
                self.failures += 1
                await self._release(batch, exc, blocks=False)
                raise ModelServerDown(str(exc)) from exc
            await self._split_or_fail(batch, exc, self._embed, final=True)
        except psycopg.OperationalError:
            raise
        except psycopg.Error as exc:
            await self._split_or_fail(batch, exc, self._embed, final=False)

    async def _vectors(self, batch: Batch) -> list[str]:
        texts = [chunk.input for chunk in batch.chunks]
        own = self.session.server
        if not texts:
            return []
        if batch.base_url is None or batch.base_url.rstrip("/") == own.url.rstrip("/"):
            return await _call(own, batch, texts)
        async with ModelServer(batch.base_url) as server:
            return await _call(server, batch, texts)

    async def _complete(self, batch: Batch, vectors: list[str], seconds: float) -> None:
        session = self.session
        with translated():
            written = await session.value(
                queries.WORK_COMPLETE,
                session.worker,
                batch.vectorizer,
                batch.keys,
                batch.versions,
                [c.key + 1 for c in batch.chunks],
                [c.seq for c in batch.chunks],
                [c.start for c in batch.chunks],
                [c.end for c in batch.chunks],
                [c.chunk for c in batch.chunks],
                vectors,
                seconds,
            )
        session.meter.wrote(batch.name, rows=written, chunks=len(vectors))
        if vectors:
            count = len(vectors)
            session.meter.call(batch.name, batch.model, texts=count, tokens=0, seconds=seconds)
        log.info("%s: %s rows, %s chunks in %.2f s", batch.name, written, len(vectors), seconds)

    async def _split_or_fail(
        self,
        batch: Batch,
        exc: Exception,
        again: Callable[[Batch], Awaitable[None]],
        *,
        final: bool,
    ) -> None:
        """Halve a refused batch until the row at fault stands alone; count that one's try."""
        if len(batch.keys) > 1:
            for half in batch.halves():
                await again(half)
            return
        session = self.session
        session.meter.row_failed(batch.name)
        message = str(exc).strip().partition("\n")[0]
        log.warning("%s: a row was refused: %s", batch.name, message)
        await session.fetch(
            queries.WORK_FAIL,
            session.worker,
            batch.vectorizer,
            batch.keys,
            batch.versions,
            message,
            final,
        )

    async def _release(self, batch: Batch, exc: PgstackError | None, *, blocks: bool) -> None:
        if exc is not None:
            log.warning("%s: %s", batch.name, exc)
        await self.session.fetch(
            queries.WORK_RELEASE,
            self.session.worker,
            batch.vectorizer,
            batch.keys,
            None if exc is None else str(exc),
            blocks,
        )


async def _call(server: ModelServer, batch: Batch, texts: list[str]) -> list[str]:
    vectors: list[str] = []
    for start in range(0, len(texts), TEXTS_PER_CALL):
        result = await server.embed(
            batch.model,
            texts[start : start + TEXTS_PER_CALL],
            options=batch.options,
            keep_alive=batch.keep_alive,
        )
        vectors.extend(map(vector_text, result.vectors))
    return vectors
