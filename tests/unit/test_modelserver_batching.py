"""The queue in front of the embedding model: order, fairness, cancellation, failures."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pytest

from pgstack.embedded.modelserver import batching
from pgstack.embedded.modelserver.backend import ApiError, Vectors
from pgstack.embedded.modelserver.batching import Batcher


class Fake:
    """A model whose vector of a text is its number; each batch waits to be let through.

    The lane for questions alone has a gate of its own.
    """

    def __init__(self, *, open_gate: bool = False) -> None:
        self.batches: list[list[int]] = []
        self.started = threading.Semaphore(0)
        self.gate = threading.Semaphore(10_000 if open_gate else 0)
        self.question_gate = threading.Semaphore(10_000 if open_gate else 0)

    def tokenize(self, texts: Sequence[str], *, truncate: bool) -> list[list[int]]:
        # "7x30": text number 7, 30 tokens long.
        return [[int(number)] * int(length) for number, length in (t.split("x") for t in texts)]

    def embed(self, batch: Sequence[list[int]]) -> npt.NDArray[np.float32]:
        self.batches.append([ids[0] for ids in batch])
        self.started.release()
        questions = threading.current_thread().name.startswith("question")
        assert (self.question_gate if questions else self.gate).acquire(timeout=10)
        if any(ids[0] < 0 for ids in batch):
            raise RuntimeError("bad text")
        return np.array([[ids[0]] for ids in batch], np.float32)


def texts(numbers: range | list[int], length: int = 20) -> list[str]:
    return [f"{number}x{length}" for number in numbers]


def ask(
    batcher: Batcher, numbers: range | list[int], length: int = 20
) -> asyncio.Task[tuple[Vectors, int]]:
    """Send a request, without waiting for its answer."""
    return asyncio.create_task(batcher.embed(texts(numbers, length), truncate=True))


async def begun(model: Fake, batches: int = 1) -> None:
    """Wait until the model has begun so many more batches."""
    for _ in range(batches):
        assert await asyncio.to_thread(model.started.acquire, timeout=10)


async def pending(batcher: Batcher, requests: int) -> None:
    """Wait until so many requests are in the queue."""
    while len(batcher._pending) < requests:
        await asyncio.sleep(0)


def release(model: Fake) -> None:
    """Let every batch through from now on."""
    model.gate.release(10_000)
    model.question_gate.release(10_000)


def test_vectors_come_in_the_order_of_the_texts() -> None:
    async def main() -> None:
        model = Fake(open_gate=True)
        batcher = Batcher(model)
        lengths = [5, 200, 3, 256, 90, 4, 180, 7, 30, 2, 250, 60] * 4
        asked = [f"{number}x{length}" for number, length in enumerate(lengths)]
        vectors, tokens = await batcher.embed(asked, truncate=True)
        assert vectors.tolist() == [[float(n)] for n in range(len(asked))]
        assert tokens == sum(lengths)
        assert all(len(batch) <= batching.MAX_TEXTS for batch in model.batches)
        for batch in model.batches:
            assert max(lengths[n] for n in batch) * len(batch) <= batching.MAX_TOKENS
        await batcher.close()

    asyncio.run(main())


def test_many_short_requests_share_a_micro_batch() -> None:
    async def main() -> None:
        model = Fake()
        batcher = Batcher(model, lanes=1)
        first = []
        for number in (0, 1):  # one after the other: both lanes are busy then
            first.append(ask(batcher, [number]))
            await begun(model)
        others = [ask(batcher, [n]) for n in range(2, 10)]
        await pending(batcher, 10)
        release(model)
        answers = await asyncio.gather(*first, *others)
        assert [vectors.tolist() for vectors, _ in answers] == [[[float(n)]] for n in range(10)]
        assert sorted(map(len, model.batches)) == [1, 1, 8]
        await batcher.close()

    asyncio.run(main())


def test_a_question_is_begun_while_bulk_work_holds_every_other_lane() -> None:
    async def main() -> None:
        model = Fake()
        batcher = Batcher(model)
        bulk = ask(batcher, range(100), 200)
        await begun(model, 2)
        question = ask(batcher, [1000])
        await begun(model)
        assert model.batches[2:] == [[1000]]
        model.question_gate.release()
        await question
        assert len(model.batches) == 3
        release(model)
        await bulk
        await batcher.close()

    asyncio.run(main())


def test_questions_go_before_bulk_work_but_do_not_starve_it() -> None:
    async def main() -> None:
        model = Fake()
        batcher = Batcher(model, lanes=1)
        bulk = ask(batcher, range(100), 200)
        await begun(model)
        held = ask(batcher, [999])  # their own lane is busy for the whole test
        await begun(model)
        # As long as that each is a micro-batch of its own.
        questions = []
        for n in range(8):
            questions.append(ask(batcher, [1000 + n], 200))
            await pending(batcher, 3 + n)
        for _ in range(14):
            model.gate.release()
            await begun(model)
        order = ["bulk" if batch[0] < 999 else batch[0] for batch in model.batches[2:]]
        assert order[:8] == [1000, 1001, 1002, "bulk", 1003, 1004, 1005, "bulk"]
        assert order[8:] == [1006, 1007, "bulk", "bulk", "bulk", "bulk"]
        release(model)
        await asyncio.gather(bulk, held, *questions)
        await batcher.close()

    asyncio.run(main())


def test_a_question_shares_no_micro_batch_with_bulk_work() -> None:
    async def main() -> None:
        model = Fake()
        batcher = Batcher(model, lanes=1)
        first = ask(batcher, range(20))
        await begun(model)
        held = ask(batcher, [999])
        await begun(model)
        question = ask(batcher, [1000])  # would fit beside bulk work's
        await pending(batcher, 3)
        model.gate.release()
        await begun(model)
        assert model.batches[2] == [1000]
        release(model)
        await asyncio.gather(first, held, question)
        await batcher.close()

    asyncio.run(main())


def test_a_smaller_bulk_request_does_not_wait_behind_a_larger_one_nor_starve_it() -> None:
    async def main() -> None:
        model = Fake()
        batcher = Batcher(model, lanes=1)
        large = ask(batcher, range(100), 200)
        await begun(model)
        small = [ask(batcher, range(1000 + n, 1005 + n), 200) for n in range(0, 20, 5)]
        await pending(batcher, 5)
        for _ in range(8):
            model.gate.release()
            await begun(model)
        assert sum(batch[0] < 1000 for batch in model.batches[1:9]) == 4
        assert sum(1000 <= batch[0] < 1005 for batch in model.batches[1:9]) == 4
        release(model)
        await asyncio.gather(large, *small)
        await batcher.close()

    asyncio.run(main())


def test_a_cancelled_request_is_not_computed_any_further() -> None:
    async def main() -> None:
        model = Fake()
        batcher = Batcher(model, lanes=1)
        doomed = ask(batcher, range(1000), 200)
        await begun(model)
        doomed.cancel()
        with pytest.raises(asyncio.CancelledError):
            await doomed
        release(model)
        vectors, _ = await ask(batcher, range(5000, 5008))
        assert vectors.tolist() == [[float(n)] for n in range(5000, 5008)]
        assert len(model.batches) == 2
        await batcher.close()

    asyncio.run(main())


def test_a_failure_reaches_its_own_requests_alone() -> None:
    async def main() -> None:
        model = Fake(open_gate=True)
        batcher = Batcher(model)
        with pytest.raises(RuntimeError, match="bad text"):
            await batcher.embed(texts([-1]), truncate=True)
        assert (await batcher.embed(texts([3]), truncate=True))[0].tolist() == [[3.0]]
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
        release(model)
        await asyncio.gather(*waiting)
        assert (await batcher.embed(texts([4]), truncate=True))[0].tolist() == [[4.0]]
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
        release(model)
        assert len((await large)[0]) == 50
        await batcher.close()

    asyncio.run(main())


def test_closing_cancels_who_waits() -> None:
    async def main() -> None:
        model = Fake()
        batcher = Batcher(model)
        waiting = asyncio.create_task(batcher.embed(texts(range(50)), truncate=True))
        await begun(model, 2)
        release(model)
        await batcher.close()
        with pytest.raises(asyncio.CancelledError):
            await waiting

    asyncio.run(main())
