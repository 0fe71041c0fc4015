"""Many embedding requests, one model: who is computed next.

Requests wait in one list.  Work is done in micro-batches of up to 8 texts of similar length
and about 256 tokens, so that a step takes a tenth of a second on one core and nobody waits long;
larger ones are no faster.  ``lanes`` micro-batches are computed at a time, each on one core:
no core waits for another, as it would if they shared each step.

Questions, requests of one to four texts, go before bulk work:

* one more lane is for questions alone, so that they need not wait for a micro-batch to end;
* the other lanes take questions first as well, but after three in a row a micro-batch is
  bulk work's, so that a stream of questions cannot starve it.

Of bulk work, every other micro-batch begins with the request that has least left, the others with
the oldest request.  A micro-batch with room left takes fitting texts of the other requests.

A request whose task is cancelled leaves the list: nothing more of it is computed after the
micro-batches under way.  The model is called in threads; questions do not wait for a thread
that bulk work holds.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

import numpy as np

from pgstack.embedded.modelserver.backend import Vectors, busy

MAX_PENDING = 512  # requests, Ollama's own default
MAX_PENDING_TEXTS = 20_000
MAX_TEXTS = 8
MAX_TOKENS = 256
QUESTION_TEXTS = 4
QUESTIONS_IN_A_ROW = 3

type Ids = list[int]


class Model(Protocol):
    """What is batched: both calls block, and may be made from different threads."""

    def tokenize(self, texts: Sequence[str], *, truncate: bool) -> list[Ids]:
        """Return the token ids of each text."""

    def embed(self, batch: Sequence[Ids]) -> Vectors:
        """Return the vector of each text."""


@dataclass(eq=False)
class Pending:
    """One request: what is left to do, shortest text last, and what is done."""

    texts: list[Ids]
    left: list[int]
    vectors: dict[int, Vectors] = field(default_factory=dict)
    done: asyncio.Future[None] = field(default_factory=asyncio.Future)

    @property
    def is_question(self) -> bool:
        """Return whether somebody is waiting for it, by its size."""
        return len(self.texts) <= QUESTION_TEXTS


type Batch = list[tuple[Pending, int]]


class Batcher:
    """The queue in front of one model; ``lanes`` is how many calls of it run at a time."""

    def __init__(self, model: Model, lanes: int = 2) -> None:
        self._model = model
        self._pending: list[Pending] = []
        self._waiting = 0
        self._oldest_first = False
        self._questions_in_a_row = 0
        self._wake = asyncio.Event()
        self._threads = ThreadPoolExecutor(lanes, "embed")
        self._tokenizer_thread = ThreadPoolExecutor(1, "tokenize")
        # One for their lane, one to tokenise.
        self._question_threads = ThreadPoolExecutor(2, "question")
        self._lanes = [asyncio.create_task(self._lane()) for _ in range(lanes)]
        self._lanes.append(asyncio.create_task(self._lane(questions_only=True)))

    async def embed(self, texts: list[str], *, truncate: bool) -> tuple[Vectors, int]:
        """Return the vectors in the order of ``texts``, and the number of tokens."""
        queued = sum(len(pending.left) for pending in self._pending)
        if self._waiting >= MAX_PENDING or (queued and queued + len(texts) > MAX_PENDING_TEXTS):
            raise busy()
        self._waiting += 1
        try:
            return await self._embed(texts, truncate=truncate)
        finally:
            self._waiting -= 1

    async def _embed(self, texts: list[str], *, truncate: bool) -> tuple[Vectors, int]:
        loop = asyncio.get_running_loop()
        few = len(texts) <= QUESTION_TEXTS
        threads = self._question_threads if few else self._tokenizer_thread
        work = partial(self._model.tokenize, texts, truncate=truncate)
        ids = await loop.run_in_executor(threads, work)
        by_length = sorted(range(len(ids)), key=lambda i: len(ids[i]), reverse=True)
        pending = Pending(ids, by_length)
        self._pending.append(pending)
        self._wake.set()
        try:
            await pending.done
        finally:
            if pending in self._pending:
                self._pending.remove(pending)
        vectors = np.stack([pending.vectors[i] for i in range(len(ids))])
        return vectors, sum(len(text) for text in ids)

    async def close(self) -> None:
        """End: whoever still waits is cancelled."""
        for lane in self._lanes:
            lane.cancel()
        await asyncio.gather(*self._lanes, return_exceptions=True)
        for pending in self._pending:
            pending.done.cancel()
        self._tokenizer_thread.shutdown(wait=False)
        await asyncio.to_thread(self._threads.shutdown)
        await asyncio.to_thread(self._question_threads.shutdown)

    async def _lane(self, *, questions_only: bool = False) -> None:
        """Compute micro-batches, one after the other, for as long as there are requests."""
        loop = asyncio.get_running_loop()
        threads = self._question_threads if questions_only else self._threads
        while True:
            batch = self._next_batch(questions_only=questions_only)
            if not batch:
                self._wake.clear()
                await self._wake.wait()
                continue
            ids = [pending.texts[i] for pending, i in batch]
            try:
                vectors = await loop.run_in_executor(threads, self._model.embed, ids)
            except Exception as exc:  # whatever the runtime raises belongs to these requests
                self._fail(batch, exc)
                continue
            for (pending, i), vector in zip(batch, vectors, strict=True):
                pending.vectors[i] = vector
            self._finish_complete()

    def _next_batch(self, *, questions_only: bool) -> Batch:
        """Take the next texts out of the requests, or none: see the module's text."""
        waiting = [pending for pending in self._pending if pending.left]
        questions = [pending for pending in waiting if pending.is_question]
        bulk = [pending for pending in waiting if not pending.is_question]
        if questions_only:
            return _take(questions)
        if questions and (not bulk or self._questions_in_a_row < QUESTIONS_IN_A_ROW):
            self._questions_in_a_row += 1
            return _take(questions)
        self._questions_in_a_row = 0
        by_size = sorted(bulk, key=lambda pending: len(pending.left))
        if bulk and self._oldest_first:
            by_size.remove(bulk[0])
            by_size.insert(0, bulk[0])
        self._oldest_first = not self._oldest_first
        return _take(by_size)

    def _finish_complete(self) -> None:
        """Wake the requests that have all their vectors."""
        for pending in list(self._pending):
            if len(pending.vectors) == len(pending.texts):
                self._pending.remove(pending)
                pending.done.set_result(None)

    def _fail(self, batch: Batch, exc: Exception) -> None:
        """Give the requests of a batch its error."""
        for pending in {pending for pending, _ in batch}:
            if pending in self._pending:
                self._pending.remove(pending)
                pending.done.set_exception(exc)


def _take(requests: Sequence[Pending]) -> Batch:
    """Take what fits in one micro-batch out of ``requests``, from the first on."""
    batch: Batch = []
    for pending in requests:
        while pending.left and _fits(batch, pending.texts[pending.left[-1]]):
            batch.append((pending, pending.left.pop()))
    return batch


def _fits(batch: Batch, text: Ids) -> bool:
    """Return whether ``text`` may join: few enough, and little of the batch is padding."""
    if not batch:
        return True
    lengths = [len(text), *(len(pending.texts[i]) for pending, i in batch)]
    padded = max(lengths) * len(lengths)
    return len(lengths) <= MAX_TEXTS and padded <= min(MAX_TOKENS, 2 * sum(lengths))
