"""Many embedding requests, one model: who is computed next.

Requests wait in one list.  Work is done in micro-batches of up to 8 texts of similar length
and about 1,000 tokens, so that a step takes a fraction of a second on two cores and nobody
waits long:

* every other micro-batch begins with the request that has least left, so that a short question
  does not wait behind a thousand texts;
* the others begin with the oldest request, so that a stream of short ones cannot starve it;
* a micro-batch with room left takes fitting texts of the other requests.

A request whose task is cancelled leaves the list: nothing more of it is computed after the
micro-batch under way.  The model itself is called in one thread, tokenising in another.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

import numpy as np
import numpy.typing as npt

from pgstack.embedded.modelserver.backend import busy

MAX_PENDING = 512  # requests, Ollama's own default
MAX_PENDING_TEXTS = 20_000
MAX_TEXTS = 8
MAX_TOKENS = 1024

type Ids = list[int]


class Model(Protocol):
    """What is batched: both calls block, and may be made from different threads."""

    def tokenize(self, texts: Sequence[str], *, truncate: bool) -> list[Ids]:
        """Return the token ids of each text."""

    def embed(self, batch: Sequence[Ids]) -> npt.NDArray[np.float32]:
        """Return the vector of each text."""


@dataclass(eq=False)
class Pending:
    """One request: what is left to do, shortest text last, and what is done."""

    texts: list[Ids]
    left: list[int]
    vectors: dict[int, list[float]] = field(default_factory=dict)
    done: asyncio.Future[None] = field(default_factory=asyncio.Future)


type Batch = list[tuple[Pending, int]]


class Batcher:
    """The queue in front of one model."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self._pending: list[Pending] = []
        self._waiting = 0
        self._oldest_first = False
        self._wake = asyncio.Event()
        self._tokenizer_thread = ThreadPoolExecutor(1, "tokenize")
        self._model_thread = ThreadPoolExecutor(1, "embed")
        self._runner = asyncio.create_task(self._run())

    async def embed(self, texts: list[str], *, truncate: bool) -> tuple[list[list[float]], int]:
        """Return the vectors in the order of ``texts``, and the number of tokens."""
        queued = sum(len(pending.left) for pending in self._pending)
        if self._waiting >= MAX_PENDING or (queued and queued + len(texts) > MAX_PENDING_TEXTS):
            raise busy()
        self._waiting += 1
        try:
            return await self._embed(texts, truncate=truncate)
        finally:
            self._waiting -= 1

    async def _embed(self, texts: list[str], *, truncate: bool) -> tuple[list[list[float]], int]:
        loop = asyncio.get_running_loop()
        work = partial(self._model.tokenize, texts, truncate=truncate)
        ids = await loop.run_in_executor(self._tokenizer_thread, work)
        by_length = sorted(range(len(ids)), key=lambda i: len(ids[i]), reverse=True)
        pending = Pending(ids, by_length)
        self._pending.append(pending)
        self._wake.set()
        try:
            await pending.done
        finally:
            if pending in self._pending:
                self._pending.remove(pending)
        vectors = [pending.vectors[i] for i in range(len(ids))]
        return vectors, sum(len(text) for text in ids)

    async def close(self) -> None:
        """End: whoever still waits is cancelled."""
        self._runner.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._runner
        for pending in self._pending:
            pending.done.cancel()
        self._tokenizer_thread.shutdown(wait=False)
        await asyncio.to_thread(self._model_thread.shutdown)

    async def _run(self) -> None:
        """Compute micro-batches for as long as there are requests."""
        loop = asyncio.get_running_loop()
        while True:
            while not self._pending:
                self._wake.clear()
                await self._wake.wait()
            batch = self._next_batch()
            ids = [pending.texts[i] for pending, i in batch]
            try:
                vectors = await loop.run_in_executor(self._model_thread, self._model.embed, ids)
            except Exception as exc:  # whatever the runtime raises belongs to these requests
                self._fail(batch, exc)
                continue
            for (pending, i), vector in zip(batch, vectors, strict=True):
                pending.vectors[i] = vector.tolist()
            self._finish_complete()

    def _next_batch(self) -> Batch:
        """Take the next texts out of the requests: see the module's text."""
        by_size = sorted(self._pending, key=lambda pending: len(pending.left))
        first = self._pending[0] if self._oldest_first else by_size[0]
        self._oldest_first = not self._oldest_first
        batch: Batch = []
        for pending in [first, *(p for p in by_size if p is not first)]:
            while pending.left and _fits(batch, pending.texts[pending.left[-1]]):
                batch.append((pending, pending.left.pop()))
        return batch

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


def _fits(batch: Batch, text: Ids) -> bool:
    """Return whether ``text`` may join: few enough, and little of the batch is padding."""
    if not batch:
        return True
    lengths = [len(text), *(len(pending.texts[i]) for pending, i in batch)]
    padded = max(lengths) * len(lengths)
    return len(lengths) <= MAX_TEXTS and padded <= min(MAX_TOKENS, 2 * sum(lengths))
