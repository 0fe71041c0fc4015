"""What a worker did: its totals, and the ledger that goes to the database.

Data in and out
    ``call``       one call of a model: texts, tokens, seconds; vectorizer ``''``: SQL asked
    ``wrote``      source rows written, their chunks, and how many chunks kept their vector
    ``flush``      adds to ``_pgstack.usage`` what is new since the last flush
    ``totals``     all since the worker started

Counting is additions in memory, once a call and once a batch.  A worker that is killed
takes with it what it did since its last heartbeat, 1.5 s at most; its rows are safe.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, astuple, dataclass, replace
from typing import TYPE_CHECKING, Any

from psycopg.types.json import Jsonb

from pgstack import queries

if TYPE_CHECKING:
    from pgstack.worker.session import Session

# Upper ends of the classes by which calls are counted, in seconds; the last has none.
BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


@dataclass
class Calls:
    """Calls of one model for one vectorizer; texts and tokens are those it answered."""

    calls: int = 0
    failed_calls: int = 0
    texts: int = 0
    tokens: int = 0
    seconds: float = 0.0

    def __sub__(self, other: Calls) -> Calls:
        """Return what came on top of ``other``."""
        return Calls(*(a - b for a, b in zip(astuple(self), astuple(other), strict=True)))


@dataclass
class Rows:
    """Source rows of one vectorizer: written, with their chunks, or refused."""

    rows: int = 0
    chunks: int = 0
    kept: int = 0
    failed: int = 0


@dataclass(frozen=True)
class Totals:
    """What a worker did since it started."""

    rows: int
    chunks: int
    kept: int
    texts: int
    tokens: int
    calls: int
    failed_calls: int
    failed_rows: int
    questions: int
    failed_questions: int


@dataclass
class Timing:
    """A call that is being made; whoever makes it says what it took."""

    tokens: int = 0


class Meter:
    """Counts what a worker does.  It outlives a lost database."""

    def __init__(self) -> None:
        self.calls: defaultdict[tuple[str, str], Calls] = defaultdict(Calls)
        self.rows: defaultdict[str, Rows] = defaultdict(Rows)
        self.latency: defaultdict[str, list[int]] = defaultdict(lambda: [0] * (len(BUCKETS) + 1))
        self.questions = 0
        self.failed_questions = 0
        self._flushed_calls: dict[tuple[str, str], Calls] = {}
        self._flushed_rows: dict[str, int] = {}

    def call(
        self,
        vectorizer: str,
        model: str,
        *,
        texts: int,
        tokens: int,
        seconds: float,
        failed: bool = False,
    ) -> None:
        """Count one call of a model; of a failed one only its time."""
        count = self.calls[vectorizer, model]
        count.calls += 1
        count.seconds += seconds
        self.latency[model][bisect_left(BUCKETS, seconds)] += 1
        if failed:
            count.failed_calls += 1
        else:
            count.texts += texts
            count.tokens += tokens

    @contextmanager
    def timing(self, vectorizer: str, model: str, *, texts: int = 1) -> Iterator[Timing]:
        """Count the call that the block makes; one that it leaves by an error has failed."""
        timing, began, failed = Timing(), time.monotonic(), True
        try:
            yield timing
            failed = False
        finally:
            seconds = time.monotonic() - began
            self.call(
                vectorizer,
                model,
                texts=texts,
                tokens=timing.tokens,
                seconds=seconds,
                failed=failed,
            )

    def wrote(self, vectorizer: str, *, rows: int, chunks: int, kept: int = 0) -> None:
        """Count rows written; ``kept`` of their ``chunks`` had their vector already."""
        count = self.rows[vectorizer]
        count.rows += rows
        count.chunks += chunks
        count.kept += kept

    def row_failed(self, vectorizer: str) -> None:
        """Count a try of one row that failed by the row's own fault."""
        self.rows[vectorizer].failed += 1

    def question(self, *, failed: bool = False) -> None:
        """Count a question from SQL."""
        if failed:
            self.failed_questions += 1
        else:
            self.questions += 1

    def totals(self) -> Totals:
        """Return everything since the worker started."""
        calls, rows = list(self.calls.values()), list(self.rows.values())
        return Totals(
            rows=sum(r.rows for r in rows),
            chunks=sum(r.chunks for r in rows),
            kept=sum(r.kept for r in rows),
            texts=sum(c.texts for c in calls),
            tokens=sum(c.tokens for c in calls),
            calls=sum(c.calls for c in calls),
            failed_calls=sum(c.failed_calls for c in calls),
            failed_rows=sum(r.failed for r in rows),
            questions=self.questions,
            failed_questions=self.failed_questions,
        )

    async def flush(self, session: Session) -> None:
        """Add what is new to the database's ledger; what fails goes with the next flush."""
        calls = {key: replace(count) for key, count in self.calls.items()}
        rows = {name: count.rows for name, count in self.rows.items()}
        if entries := [*self._new_calls(calls), *self._new_rows(rows)]:
            await session.fetch(queries.USAGE_ADD, Jsonb(entries))
        self._flushed_calls, self._flushed_rows = calls, rows

    def _new_calls(self, calls: dict[tuple[str, str], Calls]) -> Iterator[dict[str, Any]]:
        for (vectorizer, model), count in calls.items():
            new = count - self._flushed_calls.get((vectorizer, model), Calls())
            if new.calls:
                yield {"vectorizer": vectorizer, "model": model, **asdict(new)}

    def _new_rows(self, rows: dict[str, int]) -> Iterator[dict[str, Any]]:
        for vectorizer, count in rows.items():
            if new := count - self._flushed_rows.get(vectorizer, 0):
                yield {"vectorizer": vectorizer, "rows": new}
