"""How a worker and its vectorizers are getting on, while it runs: for the CLI and for metrics.

Data in and out
    ``Observer``   reads ``pgstack.vectorizer_status`` over a connection of its own
    ``Reporter``   makes a :class:`Report` of that and of the worker's :class:`Meter`
    ``every``      calls something at intervals, in a thread, while a block runs
    ``logged``     logs now and then what was done meanwhile

Nothing here runs in the worker's event loop.  A status that takes long to count is read
seldom: watching may take a twentieth of a connection's time, no more.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

import psycopg

from pgstack import queries, vectorizers
from pgstack.db import Connection, connect
from pgstack.errors import PgstackError
from pgstack.vectorizers import Status
from pgstack.worker.meter import Meter

WINDOW_SECONDS = 10.0  # rates are means over this
MOST_OF_THE_TIME = 20  # a status that took 1 s is read again after 20 s
PATIENCE_SECONDS = 5.0  # for an answer, before the last one has to do
LOG_SECONDS = 10.0

log = logging.getLogger("pgstack.worker")


@dataclass(frozen=True)
class Seen:
    """What the database said last, and when.  ``resting``: how many workers let a model be."""

    at: float = 0.0
    statuses: Sequence[Status] = ()
    resting: dict[str, int] = field(default_factory=dict)


class Observer:
    """Asks the database how vectorizers are; while it is silent the last answer stands.

    Each look is a thread: a network that stalls may keep that, but nobody who asks here.
    """

    def __init__(self, dsn: str, names: Sequence[str] | None = None) -> None:
        self._dsn = dsn
        self._names = names
        self._conn: Connection | None = None
        self._lock = threading.Lock()
        self._look: threading.Thread | None = None
        self._seen = Seen()
        self._looked = float("-inf")
        self._took = 0.0

    def seen(self, *, max_age: float = 1.0) -> Seen:
        """Return what the database said, ``max_age`` seconds ago at most unless it is slow.

        0 asks in any case.
        """
        with self._lock:
            began = time.monotonic()
            age = began - self._looked
            if max_age == 0 or age >= max(max_age, MOST_OF_THE_TIME * self._took):
                self._wait_for_news()
                self._looked = time.monotonic()
                self._took = self._looked - began
            return self._seen

    def close(self) -> None:
        """Close the connection, unless somebody still waits for an answer there."""
        with self._lock:
            if self._conn is not None and not self._is_looking():
                self._conn.close()

    def _is_looking(self) -> bool:
        return self._look is not None and self._look.is_alive()

    def _wait_for_news(self) -> None:
        if self._look is None or not self._look.is_alive():
            self._look = threading.Thread(target=self._ask, name="pgstack watch", daemon=True)
            self._look.start()
        self._look.join(PATIENCE_SECONDS)

    def _ask(self) -> None:
        try:
            if self._conn is None or self._conn.closed:
                name = "pgstack worker watch"
                self._conn = connect(self._dsn, autocommit=True, application_name=name)
            found = vectorizers.statuses(self._conn)
            resting = self._conn.execute(queries.MODELS_RESTING).fetchall()
        except (PgstackError, psycopg.Error) as exc:
            log.debug("no news from the database: %s", exc)
            return
        chosen = [s for s in found if self._names is None or s.name in self._names]
        self._seen = Seen(time.monotonic(), chosen, dict(resting))


@dataclass(frozen=True)
class VectorizerReport:
    """One vectorizer: the database's counts, and the rates of the last seconds.

    ``rows_per_second`` is of all workers, ``tokens_per_second`` of this one; ``eta_seconds``
    is None when nothing moves or nothing is left.
    """

    name: str
    state: str
    pending: int | None
    retrying: int | None
    failed: int | None
    rows_per_second: float
    tokens_per_second: float
    eta_seconds: float | None
    last_error: str | None


@dataclass(frozen=True)
class Report:
    """One line of ``pgstack worker --json``.  Counts are this worker's since it started."""

    event: str
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
    pending: int
    rows_per_second: float
    tokens_per_second: float
    seconds: float
    vectorizers: list[VectorizerReport]


class Rates:
    """Turns totals into rates: the mean of the last seconds."""

    def __init__(self) -> None:
        self._samples: deque[tuple[float, dict[str, float]]] = deque()

    def add(self, now: float, totals: dict[str, float]) -> None:
        """Take the totals of a moment, once."""
        if self._samples and now <= self._samples[-1][0]:
            return
        self._samples.append((now, totals))
        while len(self._samples) > 2 and now - self._samples[1][0] >= WINDOW_SECONDS:
            self._samples.popleft()

    def of(self, name: str) -> float:
        """Return how much a second a total grew by; 0 before there is anything to compare."""
        known = [(at, totals[name]) for at, totals in self._samples if name in totals]
        if len(known) < 2:
            return 0.0
        (began, first), (ended, last) = known[0], known[-1]
        return round((last - first) / (ended - began), 1)


class Reporter:
    """Says how things are whenever it is asked."""

    def __init__(self, meter: Meter, observer: Observer) -> None:
        self._meter = meter
        self._observer = observer
        self._began = time.monotonic()
        self._own = Rates()
        self._all = Rates()

    def report(self, event: str) -> Report:
        """Return how things are: ``progress`` with rates of late, ``summary`` over all the time."""
        now = time.monotonic()
        seen = self._observer.seen(max_age=0 if event == "summary" else 0.9)
        totals = self._meter.totals()
        tokens_of = self._tokens(seen.statuses)
        self._own.add(now, {"rows": totals.rows, "tokens": totals.tokens, **tokens_of})
        self._all.add(seen.at, {status.name: status.embedded_rows for status in seen.statuses})
        seconds = now - self._began
        rows, tokens = self._own.of("rows"), self._own.of("tokens")
        if event == "summary" and seconds > 0:
            rows, tokens = round(totals.rows / seconds, 1), round(totals.tokens / seconds, 1)
        return Report(
            event=event,
            **asdict(totals),
            pending=sum(status.pending or 0 for status in seen.statuses),
            rows_per_second=rows,
            tokens_per_second=tokens,
            seconds=round(seconds, 3),
            vectorizers=[self._vectorizer(status) for status in seen.statuses],
        )

    def _tokens(self, statuses: Sequence[Status]) -> dict[str, float]:
        tokens = {f"tokens {status.name}": 0.0 for status in statuses}
        for (name, _), count in list(self._meter.calls.items()):
            tokens[f"tokens {name}"] = tokens.get(f"tokens {name}", 0.0) + count.tokens
        return tokens

    def _vectorizer(self, status: Status) -> VectorizerReport:
        rows = self._all.of(status.name)
        return VectorizerReport(
            name=status.name,
            state=status.state,
            pending=status.pending,
            retrying=status.retrying,
            failed=status.failed,
            rows_per_second=rows,
            tokens_per_second=self._own.of(f"tokens {status.name}"),
            eta_seconds=round(status.pending / rows, 1) if status.pending and rows > 0 else None,
            last_error=status.last_error,
        )


@contextmanager
def every(seconds: float, act: Callable[[], Any]) -> Iterator[None]:
    """Call ``act`` at intervals while the block runs, until it fails for want of a reader."""
    ended = threading.Event()

    def run() -> None:
        while not ended.wait(seconds):
            try:
                act()
            except OSError:  # the pipe is closed
                return

    thread = threading.Thread(target=run, name="pgstack worker watch", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def logged(meter: Meter, *, seconds: float = LOG_SECONDS) -> AbstractContextManager[None]:
    """Log now and then, while the block runs, how many rows were written; nothing if none were."""
    told = meter.totals()

    def tell() -> None:
        nonlocal told
        before, told = told, meter.totals()
        if rows := told.rows - before.rows:
            log.info("%s rows so far, %.1f a second", f"{told.rows:,}", rows / seconds)

    return every(seconds, tell)
