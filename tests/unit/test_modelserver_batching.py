"""The queue in front of the embedding model: order, fairness, cancellation, failures."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pytest

from pgstack.embedded.modelserver import batching
from pgstack.embedded.modelserver.backend import ApiError
from pgstack.embedded.modelserver.batching import Batcher


class Fake:
    """A model whose vector of a text is its number; each batch waits to be let through."""

    def __init__(self, *, open_gate: bool = False) -> None:
        self.batches: list[list[int]] = []
        self.started = threading.Semaphore(0)
        self.gate = threading.Semaphore(10_000 if open_gate else 0)

    def tokenize(self, texts: Sequence[str], *, truncate: bool) -> list[list[int]]:
        # "7x30": text number 7, 30 tokens long.
        return [[int(number)] * int(length) for number, length in (t.split("x") for t in texts)]

    def embed(self, batch: Sequence[list[int]]) -> npt.NDArray[np.float32]:
        self.batches.append([ids[0] for ids in batch])
        self.started.release()
        assert self.gate.acquire(timeout=10)
        if any(ids[0] < 0 for ids in batch):
            raise RuntimeError("bad text")
        return np.array([[ids[0]] for ids in batch], np.float32)


def texts(numbers: range | list[int], length: int = 20) -> list[str]:
    return [f"{number}x{length}" for number in numbers]


async def begun(model: Fake) -> None:
    """Wait until the model has begun another batch."""
    assert await asyncio.to_thread(model.started.acquire, timeout=10)


def test_vectors_come_in_the_order_of_the_texts() -> None:
    async def main() -> None:
        model = Fake(open_gate=True)
        batcher = Batcher(model)
        lengths = [5, 200, 3, 256, 90, 4, 180, 7, 30, 2, 250, 60] * 4
        asked = [f"{number}x{length}" for number, length in enumerate(lengths)]
        vectors, tokens = await batcher.embed(asked, truncate=True)
        assert vectors == [[float(n)] for n in range(len(asked))]
        assert tokens == sum(lengths)
        assert all(len(batch) <= batching.MAX_TEXTS for batch in model.batches)
        for batch in model.batches:
            assert max(lengths[n] for n in batch) * len(batch) <= batching.MAX_TOKENS
        await batcher.close()

    asyncio.run(main())


def test_many_short_requests_share_a_micro_batch() -> None:
    async def main() -> None:
        model = Fake()
        batcher = Batcher(model)
        first = asyncio.create_task(batcher.embed(texts([0]), truncate=True))
        await begun(model)
        others = [
            asyncio.create_task(batcher.embed(texts([n]), truncate=True)) for n in range(1, 9)
        ]
        while len(batcher._pending) < 9:
            await asyncio.sleep(0)
        model.gate.release(2)
        answers = await asyncio.gather(first, *others)
        assert [vectors for vectors, _ in answers] == [[[float(n)]] for n in range(9)]
        assert sorted(map(len, model.batches)) == [1, 8]
        await batcher.close()

    asyncio.run(main())


def test_a_short_request_does_not_wait_behind_a_long_one_nor_starve_it() -> None:
    async def main() -> None:
        model = Fake()
        batcher = Batcher(model)
        bulk = asyncio.create_task(batcher.embed(texts(range(100), 200), truncate=True))
        await begun(model)
        short = [
            asyncio.create_task(batcher.embed(texts([1000 + n], 10), truncate=True))
            for n in range(30)
        ]
        while len(batcher._pending) < 31:
            await asyncio.sleep(0)
        for _ in range(8):
            model.gate.release()
            await begun(model)
        # Two of the first three after the bulk's first: the short ones are not last in line.
        assert any(1000 in batch for batch in model.batches[1:4])
        assert set(range(1000, 1030)) <= {n for batch in model.batches[:9] for n in batch}
        # And every other micro-batch is the bulk's.
        assert sum(batch[0] < 1000 for batch in model.batches[1:9]) >= 4
        model.gate.release(1000)
        await asyncio.gather(bulk, *short)
        await batcher.close()

    asyncio.run(main())


def test_a_cancelled_request_is_not_computed_any_further() -> None:
    async def main() -> None:
        model = Fake()
        batcher = Batcher(model)
        doomed = asyncio.create_task(batcher.embed(texts(range(1000), 200), truncate=True))
        await begun(model)
        doomed.cancel()
        with pytest.raises(asyncio.CancelledError):
            await doomed
        model.gate.release(1000)
        vectors, _ = await batcher.embed(texts([5000]), truncate=True)
        assert vectors == [[5000.0]]
        assert len(model.batches) == 2
        await batcher.close()

    asyncio.run(main())


def test_a_failure_reaches_its_own_requests_alone() -> None:
    async def main() -> None:
        model = Fake(open_gate=True)
        batcher = Batcher(model)
        with pytest.raises(RuntimeError, match="bad text"):
            await batcher.embed(texts([-1]), truncate=True)
        assert (await batcher.embed(texts([3]), truncate=True))[0] == [[3.0]]
        await batcher.close()

    asyncio.run(main())


def test_a_full_queue_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batching, "MAX_PENDING", 2)

    async def main() -> None:
        model = Fake()
        batcher = Batcher(model)
        waiting = [asyncio.create_task(batcher.embed(texts([n]), truncate=True)) for n in (1, 2)]
        await begun(model)
        with pytest.raises(ApiError, match="maximum pending requests exceeded") as caught:
            await batcher.embed(texts([3]), truncate=True)
        assert caught.value.status == 503
        model.gate.release(10)
        await asyncio.gather(*waiting)
        assert (await batcher.embed(texts([4]), truncate=True))[0] == [[4.0]]
        await batcher.close()

    asyncio.run(main())


def test_too_many_texts_wait_their_turn_but_a_first_request_may_be_large(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(batching, "MAX_PENDING_TEXTS", 10)

    async def main() -> None:
        model = Fake()
        batcher = Batcher(model)
        large = asyncio.create_task(batcher.embed(texts(range(50)), truncate=True))
        await begun(model)
        with pytest.raises(ApiError, match="maximum pending"):
            await batcher.embed(texts([1]), truncate=True)
        model.gate.release(100)
        assert len((await large)[0]) == 50
        await batcher.close()

    asyncio.run(main())


def test_closing_cancels_who_waits() -> None:
    async def main() -> None:
        model = Fake()
        batcher = Batcher(model)
        waiting = asyncio.create_task(batcher.embed(texts(range(50)), truncate=True))
        await begun(model)
        model.gate.release(1)
        await batcher.close()
        with pytest.raises(asyncio.CancelledError):
            await waiting

    asyncio.run(main())
