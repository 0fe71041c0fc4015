"""Vectorizers: claim, load, embed, complete.

A pipeline.  One loop claims rows for whichever model can take more; each batch of rows is a
task, which loads them, puts their texts in the model's line and writes the vectors when they
are there.  So one batch is written and another is claimed while the model works on a third,
and no transaction is open while it works.

A batch that the database refuses is halved until the row at fault stands alone, so one bad
row harms nobody else.  Whose fault a failed call is, :mod:`pgstack.worker.model` tells.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, LiteralString

import psycopg

from pgstack import queries
from pgstack.arrays import bytea_array, int_array, text_array
from pgstack.errors import DimensionMismatch, Fault, PgstackError
from pgstack.models import ModelServer
from pgstack.vectors import Vector
from pgstack.worker.model import Configuration, GivenBack, Model
from pgstack.worker.session import Session, log, wait_for

FIRST_ROWS = 32
MOST_ROWS = 1000
MOST_BATCHES = 32  # of rows, in this worker's hands
LOCKED_SECONDS = 1.0
POLL_SECONDS = 5.0  # finds work whose notification was lost
NEWEST_SECONDS = 0.2  # between looks for the newest rows, and ten times what one takes


@dataclass(frozen=True)
class Chunk:
    """A piece of a row's text.  ``key``: the position of its row in the batch.

    ``text``: what to embed; None: the database has its vector.  ``chunk`` is None where the
    table of chunks has that as well.
    """

    key: int
    seq: int
    start: int
    end: int
    digest: bytes
    chunk: str | None
    text: str | None


@dataclass(frozen=True)
class Batch:
    """Leased rows of one vectorizer; ``versions[i]`` is None if row i is gone, or not loaded."""

    vectorizer: int
    name: str
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


@dataclass
class Wish:
    """How many rows of a vectorizer to claim next, and after which key, or the newest.

    A row that was queued a moment ago is not to wait for hours behind those of a big load.
    """

    rows: int = FIRST_ROWS
    after: str = "null"
    rest_until: float = 0.0  # one of its tables is locked
    is_behind: bool = False  # the last claim left some, perhaps
    has_news: bool = True
    newest: bool = False  # what the next claim is to take
    newest_from: float = 0.0  # when it may take the newest once more

    def decide(self) -> None:
        """Settle what the next claim is to take."""
        self.newest = self.is_behind and self.has_news and time.monotonic() >= self.newest_from

    def __str__(self) -> str:
        """Return it as JSON, by hand: a key is JSON already, and Python would round numerics."""
        rows = min(self.rows, FIRST_ROWS) if self.newest else self.rows
        if time.monotonic() < self.rest_until:
            rows = 0
        newest = "true" if self.newest else "false"
        return f'{{"rows": {rows}, "after": {self.after}, "newest": {newest}}}'

    def learn(self, keys: list[str], seconds: float, *, is_behind: bool) -> None:
        """Take in what a claim took, and how long that took."""
        if self.newest:
            self.has_news = False
            self.newest_from = time.monotonic() + max(NEWEST_SECONDS, 10 * seconds)
        else:
            self.after = keys[-1]
            self.is_behind = is_behind


# Somebody holds a table for long: not an error of anybody's.
CONTENTION = (psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected)
# Operational to psycopg, but it is a row that reaches them: a text too long for what is made of it.
LIMITS = (psycopg.errors.ProgramLimitExceeded, psycopg.errors.StatementTooComplex)

type Vectors = dict[bytes, Vector]  # by digest


class ModelServerDown(Exception):
    """A worker that runs once gave up on a model."""


@dataclass
class Drain:
    """Keeps every vectorizer's target equal to its source."""

    session: Session
    models: dict[str, Model] = field(default_factory=dict)
    servers: dict[str, ModelServer] = field(default_factory=dict)
    wishes: dict[int, Wish] = field(default_factory=dict)  # by vectorizer
    batches: int = 0  # in hand
    more: set[str] = field(default_factory=set)  # models for which more rows may be due
    look_at: float = 0.0  # when to look at all the others, too

    async def run(self) -> None:
        """Run until the worker stops, or, once, until nothing is left to do."""
        session = self.session
        # Few statements at a time use few connections: each soon remembers all plans, and there
        # is always one left for a question.
        self._turns = asyncio.Semaphore(session.concurrency + 2)
        try:
            async with asyncio.TaskGroup() as self._group:
                while not session.stopping.is_set():
                    session.moved.clear()  # before the claim: what comes later wakes us again
                    for model in self.models.values():
                        model.pump()
                    if self._may_claim() and await self._start_batch():
                        continue
                    done = session.once and not self.batches and not session.reading
                    if done and not await self._left():
                        break
                    await wait_for(session.moved, self._pause())
                for model in self.models.values():
                    model.give_back()
        finally:
            for server in self.servers.values():
                await server.close()
        if given_up := [model.given_up for model in self.models.values() if model.given_up]:
            raise ModelServerDown(given_up[0])

    async def _fetch(self, query: LiteralString, *params: object) -> list[Any]:
        async with self._turns:
            return await self.session.fetch(query, *params)

    async def _left(self) -> int:
        given_up = [key for key, model in self.models.items() if model.given_up]
        return int(await self.session.value(queries.WORK_LEFT, self.session.names, given_up))

    # ------------------------------------------------------------------ claim

    def _may_claim(self) -> bool:
        """Whether there may be rows that are due, and room for them."""
        if self.batches >= MOST_BATCHES:
            return False
        if self.session.news or time.monotonic() >= self.look_at:
            return True
        return any(self.models[key].has_room for key in self.more)

    def _pause(self) -> float:
        """Return after how many seconds to go on if nothing moves."""
        return POLL_SECONDS if self.batches >= MOST_BATCHES else self.look_at - time.monotonic()

    async def _start_batch(self) -> bool:
        """Claim rows and start a task for them.  False: nothing is due, or nobody has room."""
        session = self.session
        if session.news:
            session.news = False
            self.look_at = 0.0  # until a claim finds nothing
            for wish in self.wishes.values():
                wish.has_news = True
        for wish in self.wishes.values():
            wish.decide()
        began = time.monotonic()
        resting = [key for key, model in self.models.items() if not model.has_room]
        claimed = await self._fetch(
            queries.WORK_CLAIM, session.worker, session.names, self._wishes(), resting
        )
        if not claimed:
            self.more = set(resting)
            self.look_at = time.monotonic() + await self._idle_seconds()
        for vectorizer, name, keys, is_behind, *configuration in claimed:
            wish = self.wishes.setdefault(vectorizer, Wish())
            wish.learn(keys, time.monotonic() - began, is_behind=is_behind)
            batch = Batch(vectorizer, name, keys, [None] * len(keys), [])
            model = self._model(Configuration(*configuration))
            model.loading += 1  # now, not when the task starts: the next claim asks for it
            self.batches += 1
            self._group.create_task(self._run_batch(batch, model))
        return bool(claimed)

    async def _idle_seconds(self) -> float:
        """Return how long nothing becomes due, unless there is news."""
        due = await self.session.value(queries.WORK_NEXT_DUE)
        now = time.monotonic()
        rests = [wish.rest_until - now for wish in self.wishes.values() if wish.rest_until > now]
        longest = 0.2 if self.session.once else POLL_SECONDS
        return min(longest, float(due or longest), *rests)

    def _wishes(self) -> str:
        return f"{{{', '.join(f'"{id_}": {wish}' for id_, wish in self.wishes.items())}}}"

    def _model(self, configuration: Configuration) -> Model:
        if configuration.key not in self.models:
            server = self._server(configuration.base_url)
            self.models[configuration.key] = Model(
                self.session, configuration, server, self._group.create_task
            )
        return self.models[configuration.key]

    def _server(self, url: str | None) -> ModelServer:
        own = self.session.server
        if url is None or url.rstrip("/") == own.url.rstrip("/"):
            return own
        if url not in self.servers:
            self.servers[url] = ModelServer(url, timeout=own.timeout)
        return self.servers[url]

    # ------------------------------------------------------------------ one batch

    async def _run_batch(self, batch: Batch, model: Model) -> None:
        try:
            loaded = await self._load_rows(batch, model)
            for part in loaded:
                await self._embed(part, model)
        except CONTENTION as exc:
            log.info("%s rests for %s s: %s", batch.name, LOCKED_SECONDS, _message(exc))
            self.wishes[batch.vectorizer].rest_until = time.monotonic() + LOCKED_SECONDS
            await self._release(batch, None, blocks=False)
        except psycopg.OperationalError:
            raise
        except psycopg.Error as exc:  # dropped under our hands, or not ours to write
            log.warning("%s: %s", batch.name, _message(exc))
            await self._release(batch, exc, blocks=True)
        finally:
            self.batches -= 1
            self.session.moved.set()

    async def _load_rows(self, batch: Batch, model: Model) -> list[Batch]:
        """Load leased rows, in one part unless some cannot be loaded: these are set apart."""
        loaded: list[Batch] = []

        async def load(part: Batch) -> None:
            try:
                loaded.append(await self._load(part, model))
            except psycopg.Error as exc:
                if not _is_a_rows(exc):
                    raise
                await self._split_or_fail(part, exc, load)

        try:
            await load(batch)
        finally:
            model.loading -= 1
        return loaded

    async def _load(self, batch: Batch, model: Model) -> Batch:
        rows = await self._fetch(
            queries.WORK_LOAD,
            batch.vectorizer,
            text_array(batch.keys),
            model.configuration.key,
            await model.digest(),
        )
        versions: list[bytes | None] = [None] * len(batch.keys)
        chunks = []
        texts = 0
        for nr, version, seq, start, end, digest, wanted, chunk, text in rows:
            versions[nr - 1] = version
            if digest is not None:
                to_embed = (text if text is not None else chunk) if wanted else None
                texts += wanted
                chunks.append(Chunk(nr - 1, seq, start, end, digest, chunk, to_embed))
        self._learn_rows(batch, texts, model)
        return replace(batch, versions=versions, chunks=chunks)

    def _learn_rows(self, batch: Batch, texts: int, model: Model) -> None:
        """Claim as many rows next time as give the texts of one call."""
        fit = model.texts_a_call * len(batch.keys) // max(texts, 1)
        wish = self.wishes[batch.vectorizer]
        wish.rows = max(1, min(fit, wish.rows * 2, MOST_ROWS))

    async def _embed(self, batch: Batch, model: Model) -> None:
        """Have the model make what vectors are wanted, and write what it could make."""
        asked = {
            chunk.digest: model.want(
                (id(batch), chunk.key), batch.vectorizer, batch.name, chunk.digest, chunk.text
            )
            for chunk in batch.chunks
            if chunk.text is not None
        }
        if asked:
            model.pump()
            await asyncio.wait(asked.values())
        failed = {
            chunk.key: exc
            for chunk in batch.chunks
            if chunk.text is not None and (exc := asked[chunk.digest].exception())
        }
        vectors = {
            digest: vector.result() for digest, vector in asked.items() if not vector.exception()
        }
        good = batch
        if failed:
            good = batch.part([i for i in range(len(batch.keys)) if i not in failed])
        if good.keys:
            await self._complete(good, model, vectors)
        given_back = [i for i, exc in failed.items() if isinstance(exc, GivenBack)]
        if given_back and not self.session.stopping.is_set():  # else the farewell does it for all
            await self._release(batch.part(given_back), None, blocks=False)
        for position, exc in failed.items():
            if not isinstance(exc, GivenBack):
                await self._refused(batch.part([position]), exc)

    async def _complete(self, batch: Batch, model: Model, vectors: Vectors) -> None:
        async def again(part: Batch) -> None:
            await self._complete(part, model, vectors)

        try:
            await self._write(batch, vectors)
        except psycopg.Error as exc:
            if not _is_a_rows(exc):
                raise
            if exc.sqlstate == DimensionMismatch.sqlstate:
                model.known.clear()  # the next answer may be better
                await self._release(batch, exc, blocks=True)
            else:
                await self._split_or_fail(batch, exc, again)

    async def _write(self, batch: Batch, vectors: Vectors) -> None:
        session = self.session
        [(written,)] = await self._fetch(
            queries.WORK_COMPLETE,
            session.worker,
            batch.vectorizer,
            text_array(batch.keys),
            bytea_array(batch.versions),
            int_array(c.key + 1 for c in batch.chunks),
            int_array(c.seq for c in batch.chunks),
            int_array(c.start for c in batch.chunks),
            int_array(c.end for c in batch.chunks),
            bytea_array(c.digest for c in batch.chunks),
            text_array(c.chunk for c in batch.chunks),
            [vectors.get(c.digest) for c in batch.chunks],
        )
        if written < len(batch.keys):
            session.tell_news()  # the others are due again in a moment
        kept = sum(c.text is None for c in batch.chunks)
        session.meter.wrote(batch.name, rows=written, chunks=len(batch.chunks), kept=kept)
        log.debug("%s: %s rows, %s chunks, %s kept", batch.name, written, len(batch.chunks), kept)

    # ------------------------------------------------------------------ failures

    async def _split_or_fail(
        self, batch: Batch, exc: Exception, again: Callable[[Batch], Awaitable[None]]
    ) -> None:
        """Halve a batch that the database refused until the row at fault stands alone."""
        if len(batch.keys) > 1:
            for half in batch.halves():
                await again(half)
        else:
            await self._refused(batch, exc)

    async def _refused(self, row: Batch, exc: BaseException) -> None:
        """Count a failed try of one row, or stop its vectorizer if no row of it can work."""
        fault = exc.fault if isinstance(exc, PgstackError) else None
        if fault is Fault.SETUP:
            await self._release(row, exc, blocks=True)
            return
        message = _message(exc, *(chunk.text for chunk in row.chunks if chunk.text))
        log.warning("%s: a row was refused: %s", row.name, message)
        self.session.meter.row_failed(row.name)
        await self._fetch(
            queries.WORK_FAIL,
            self.session.worker,
            row.vectorizer,
            row.keys,
            row.versions,
            message,
            fault is Fault.INPUT,
        )
        self.session.tell_news()

    async def _release(self, batch: Batch, exc: BaseException | None, *, blocks: bool) -> None:
        if exc is not None:
            log.warning("%s: %s", batch.name, _message(exc))
        await self._fetch(
            queries.WORK_RELEASE,
            self.session.worker,
            batch.vectorizer,
            batch.keys,
            None if exc is None else _message(exc),
            blocks,
        )
        self.session.tell_news()


def _is_a_rows(exc: psycopg.Error) -> bool:
    """Whether one row may be at fault, and not the server or the connection."""
    return isinstance(exc, LIMITS) or not isinstance(exc, psycopg.OperationalError)


def _message(exc: BaseException, *texts: str) -> str:
    """Return an error in a line.  Others than a row's readers see it: its text stays out."""
    message = str(exc).strip().partition("\n")[0] or type(exc).__name__
    for text in texts:
        message = message.replace(text, "...")
    return message[:500]
