"""Clients that search side by side: how long each search takes, and what is found."""

from __future__ import annotations

import contextlib
import math
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bench import _tables
from bench._tables import Connection, Vectors
from pgstack.db import connect

type Ask = Callable[[Connection, int], Sequence[int]]
"""Asks one question, by its number; gives the ids of the rows found, best first."""


@dataclass(frozen=True)
class Measured:
    """Searches of all clients: milliseconds each, and rows found by question."""

    times: list[float]
    found: dict[int, list[int]]
    seconds: float

    def p(self, percent: float) -> float:
        """Return a percentile of the times, of those that were measured."""
        ordered = sorted(self.times)
        return ordered[min(len(ordered) - 1, math.ceil(len(ordered) * percent / 100) - 1)]

    @property
    def rate(self) -> float:
        """Return searches a second, of all clients together."""
        return len(self.times) / self.seconds

    @property
    def fewest(self) -> int:
        """Return the fewest rows that a search found."""
        return min(len(ids) for ids in self.found.values())


def search(
    dsn: str, ask: Ask, questions: Sequence[int], clients: int = 1, settings: bytes = b"select 1"
) -> Measured:
    """Ask every question once; the clients share them out.  Each asks one to warm up first."""
    times: list[list[float]] = [[] for _ in range(clients)]
    found: dict[int, list[int]] = {}
    failures: list[Exception] = []
    start = threading.Barrier(clients + 1)

    def client(nr: int) -> None:
        try:
            with connect(dsn, autocommit=True) as conn:
                _tables.know_vectors(conn)
                conn.execute(settings)
                ask(conn, questions[nr % len(questions)])
                start.wait()
                for question in questions[nr::clients]:
                    began = time.perf_counter()
                    ids = ask(conn, question)
                    times[nr].append((time.perf_counter() - began) * 1000)
                    found[question] = list(ids)
        except Exception as exc:
            failures.append(exc)
            start.abort()

    threads = [threading.Thread(target=client, args=(nr,)) for nr in range(clients)]
    for thread in threads:
        thread.start()
    with contextlib.suppress(threading.BrokenBarrierError):
        start.wait()
    began = time.perf_counter()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    return Measured([ms for each in times for ms in each], found, time.perf_counter() - began)


def recall(
    found: dict[int, list[int]],
    rows: Vectors,
    questions: Vectors,
    allowed: NDArray[np.bool_] | None = None,
    k: int = 10,
) -> float:
    """Return the share of the k nearest rows that were found, over all questions.

    A row as near as the k-th counts as one of them: equal texts have equal vectors.
    """
    hits = []
    numbers = np.arange(len(rows)) if allowed is None else np.flatnonzero(allowed)
    near = rows if allowed is None else rows[numbers]
    for question, ids in found.items():
        similar = near @ questions[question]
        least = np.partition(similar, -k)[-k] if len(similar) >= k else similar.min()
        mine = rows[ids[:k]] @ questions[question] if ids else np.zeros(0)
        known = np.isin(ids[:k], numbers)
        hits.append(np.count_nonzero((mine >= least - 1e-6) & known) / min(k, len(near)))
    return float(np.mean(hits))
