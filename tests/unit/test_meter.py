"""The meter adds up, and sends nothing twice."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from pgstack.worker.meter import BUCKETS, Meter


class Ledger:
    """Stands where the worker's session stands; fails when told to."""

    def __init__(self) -> None:
        self.entries: list[list[dict[str, Any]]] = []
        self.broken = False

    async def fetch(self, query: str, entries: Any) -> list[Any]:
        if self.broken:
            raise OSError("gone")
        self.entries.append(entries.obj)
        return []


def flush(meter: Meter, ledger: Ledger) -> None:
    asyncio.run(meter.flush(ledger))  # type: ignore[arg-type]


def test_totals_are_sums_over_vectorizers_and_models() -> None:
    meter = Meter()
    meter.call("a", "m", texts=3, tokens=30, seconds=0.5)
    meter.call("b", "m", texts=2, tokens=20, seconds=0.5)
    meter.call("", "n", texts=9, tokens=90, seconds=9, failed=True)
    meter.wrote("a", rows=2, chunks=5, kept=2)
    meter.row_failed("b")
    meter.question()
    meter.question(failed=True)
    totals = vars(meter.totals())
    assert totals == {
        "rows": 2,
        "chunks": 5,
        "kept": 2,
        "texts": 5,
        "tokens": 50,
        "calls": 3,
        "failed_calls": 1,
        "failed_rows": 1,
        "questions": 1,
        "failed_questions": 1,
    }


def test_every_count_is_sent_once() -> None:
    meter, ledger = Meter(), Ledger()
    meter.call("a", "m", texts=3, tokens=30, seconds=0.5)
    meter.wrote("a", rows=2, chunks=3)
    flush(meter, ledger)
    flush(meter, ledger)
    meter.call("a", "m", texts=1, tokens=5, seconds=0.25, failed=True)
    flush(meter, ledger)
    call = {"vectorizer": "a", "model": "m", "calls": 1}
    assert ledger.entries == [
        [
            {**call, "failed_calls": 0, "texts": 3, "tokens": 30, "seconds": 0.5},
            {"vectorizer": "a", "rows": 2},
        ],
        [{**call, "failed_calls": 1, "texts": 0, "tokens": 0, "seconds": 0.25}],
    ]


def test_what_could_not_be_sent_goes_with_the_next() -> None:
    meter, ledger = Meter(), Ledger()
    meter.wrote("a", rows=2, chunks=3)
    ledger.broken = True
    with pytest.raises(OSError):
        flush(meter, ledger)
    ledger.broken = False
    meter.wrote("a", rows=1, chunks=1)
    flush(meter, ledger)
    assert ledger.entries == [[{"vectorizer": "a", "rows": 3}]]


def test_a_call_left_by_an_error_has_failed() -> None:
    meter = Meter()
    with meter.timing("a", "m", texts=4) as timing:
        timing.tokens = 7
    with pytest.raises(ValueError), meter.timing("a", "m"):
        raise ValueError
    count = meter.calls["a", "m"]
    assert (count.calls, count.failed_calls, count.texts, count.tokens) == (2, 1, 4, 7)


def test_calls_fall_into_classes_by_time() -> None:
    meter = Meter()
    for seconds in (0.001, BUCKETS[0], 0.02, 1000):
        meter.call("", "m", texts=1, tokens=1, seconds=seconds)
    assert meter.latency["m"] == [2, 0, 1, *[0] * (len(BUCKETS) - 3), 1]
