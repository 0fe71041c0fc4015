"""Judged sets, evaluation runs, and two runs beside each other.

Data in and out
    ``set``, ``vectorizer``   names
    ``run``                   a run's number, from 1
    returns                   frozen dataclasses: rows of the views and functions of the same
                              name in schema ``pgstack``; their comments say what is what

Nothing here opens a connection.  Give :func:`evaluate` one in autocommit mode: each batch of
queries is then committed, and an interrupted run is kept, as unfinished.

Raises
    UnknownEvaluation, UnknownVectorizer ...   what the SQL functions raise (PS0nn)
    UsageError                                 pgstack is not installed there, bad argument
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import psycopg
from psycopg.rows import class_row
from psycopg.types.json import Jsonb

from pgstack import queries
from pgstack.db import Connection
from pgstack.errors import UnknownEvaluation, UsageError
from pgstack.vectorizers import understood

BATCH = 32  # queries searched for in one transaction


@dataclass(frozen=True)
class JudgedSet:
    """One row of ``pgstack.eval_sets``."""

    name: str
    owner: str
    description: str | None
    origin: str
    doc_column: str | None
    queries: int
    judged_queries: int
    judgments: int
    runs: int
    created_at: datetime


@dataclass(frozen=True)
class Run:
    """One row of ``pgstack.eval_runs``."""

    run: int
    set: str
    label: str | None
    vectorizer: str
    model: str | None
    mode: str
    k: int
    filter: dict[str, Any] | None
    options: dict[str, Any]
    doc_column: str | None
    seed: int
    state: str
    queries: int
    searched: int
    p50_ms: float | None
    p95_ms: float | None
    started_at: datetime
    finished_at: datetime | None
    config: dict[str, Any]

    @property
    def name(self) -> str:
        """What a person calls it."""
        options = " ".join(f"{key}={value}" for key, value in sorted(self.options.items()))
        return self.label or f"{self.vectorizer} {self.mode} {options}".strip()


@dataclass(frozen=True)
class Metric:
    """The mean of a metric and its 95 % confidence interval."""

    metric: str
    value: float
    low: float
    high: float
    queries: int


@dataclass(frozen=True)
class Query:
    """What became of one query of a run."""

    query_id: str
    query: str | None
    value: float
    relevant: int | None
    found: int | None
    first_rank: int | None
    milliseconds: float


@dataclass(frozen=True)
class Difference:
    """What one query gains from run a to run b."""

    query_id: str
    query: str | None
    value_a: float
    value_b: float
    difference: float


@dataclass(frozen=True)
class Summary:
    """Whether run b is better than run a by one metric."""

    metric: str
    mean_a: float
    mean_b: float
    difference: float
    low: float
    high: float
    p_value: float
    wins: int
    ties: int
    losses: int
    queries: int


@dataclass(frozen=True)
class Plan:
    """What is run, as pgstack.evaluate() takes it; ``options`` are further ones of search()."""

    set: str
    vectorizer: str
    mode: str = "hybrid"
    k: int = 100
    filter: Mapping[str, Any] | None = None
    doc_column: str | None = None
    options: Mapping[str, Any] | None = None
    label: str | None = None
    seed: int = 1


def sets(conn: Connection) -> list[JudgedSet]:
    """Return the judged sets that this role may see, by name."""
    return _rows(conn, JudgedSet, queries.EVAL_SETS, {})


def drop_set(conn: Connection, name: str) -> None:
    """Drop a judged set and the runs scored with it."""
    with understood():
        conn.execute(queries.EVAL_SET_DROP, (name,))


def evaluate(
    conn: Connection, plan: Plan, *, progress: Callable[[int, int], None] = lambda done, total: None
) -> Run:
    """Run a judged set and score it; ``progress`` is told queries done, of how many."""
    params = {
        **vars(plan),
        "filter": None if plan.filter is None else Jsonb(dict(plan.filter)),
        "options": Jsonb(dict(plan.options or {})),
    }
    with conn.transaction():  # arguments that search() refuses leave no run behind
        number = int(_value(conn, queries.EVAL_BEGIN, params))
        done = int(_value(conn, queries.EVAL_STEP, (number, BATCH)))
    total = run(conn, number).queries
    progress(done, total)
    while stepped := int(_value(conn, queries.EVAL_STEP, (number, BATCH))):
        done += stepped
        progress(done, total)
    _value(conn, queries.EVAL_FINISH, (number,))
    return run(conn, number)


def runs(conn: Connection) -> list[Run]:
    """Return this role's runs, the oldest first."""
    return _rows(conn, Run, queries.EVAL_RUNS, {"run": None})


def run(conn: Connection, number: int) -> Run:
    """Return one run."""
    found = _rows(conn, Run, queries.EVAL_RUNS, {"run": number})
    if not found:
        raise UnknownEvaluation(f"there is no evaluation run {number}", hint="pgstack eval list")
    return found[0]


def metrics(conn: Connection, number: int) -> list[Metric]:
    """Return what a run was worth; nothing for one that is unfinished."""
    return _rows(conn, Metric, queries.EVAL_METRICS, (number,))


def worst(conn: Connection, number: int, metric: str) -> list[Query]:
    """Return the queries of a run, the worst first."""
    return _rows(conn, Query, queries.EVAL_QUERIES, (number, metric))


def differences(conn: Connection, a: int, b: int, metric: str) -> list[Difference]:
    """Return what each query gains from run a to run b, the largest gain first."""
    params = {"a": a, "b": b, "metric": metric}
    return _rows(conn, Difference, queries.EVAL_COMPARE, params)


def compare(conn: Connection, a: int, b: int, *, seed: int = 1) -> list[Summary]:
    """Return by every metric whether run b is better than run a."""
    return _rows(conn, Summary, queries.EVAL_SUMMARY, {"a": a, "b": b, "seed": seed})


def drop_run(conn: Connection, number: int) -> None:
    """Drop a run and its results."""
    with understood():
        conn.execute(queries.EVAL_RUN_DROP, (number,))


def parse_minimum(text: str) -> tuple[str, float]:
    """Return metric and bound of ``ndcg@10=0.68``."""
    metric, sign, bound = text.partition("=")
    try:
        if not sign or not metric.strip():
            raise ValueError
        return metric.strip(), float(bound)
    except ValueError as exc:
        raise UsageError(f'"{text}" is no minimum', hint="--min ndcg@10=0.68") from exc


def missed(found: list[Metric], minima: Mapping[str, float]) -> list[str]:
    """Say of each minimum that was not reached, by how much."""
    values = {metric.metric: metric for metric in found}
    unknown = [metric for metric in minima if metric not in values]
    if unknown:
        raise UsageError(
            f'the run has no metric "{unknown[0]}"', hint=f"It has: {', '.join(values)}"
        )
    return [
        f"{metric} is {values[metric].value:.4f}, wanted at least {bound:g}"
        for metric, bound in minima.items()
        if values[metric].value < bound
    ]


def _rows[T](conn: Connection, kind: type[T], query: Any, params: Any) -> list[T]:
    with understood(), conn.cursor(row_factory=class_row(kind)) as cur:
        return cur.execute(query, params).fetchall()


def _value(conn: psycopg.Connection[Any], query: Any, params: Any) -> Any:
    with understood():
        row = conn.execute(query, params).fetchone()
    return row[0] if row else None
