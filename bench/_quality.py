"""Case b of bench/search.py: does hybrid search find better than words or meaning alone?

pgstack.search() with its defaults, per row, ten rows, every judged question of every set.  Whole
documents, one chunk each; the vector branch compares with every document (no index), so that
the figures are those of the method.  The peer is the better of the two single branches.
With --fusions the other ways to fuse beside it, which is the table of docs/adr/0010-fusion.md.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import LiteralString

import numpy as np
from numpy.typing import NDArray
from psycopg import sql

from bench import _judged, _tables
from bench._goals import Results
from bench._judged import SETS, Judged
from bench._tables import Connection, Table
from pgstack.db import connect

WAYS: Mapping[str, LiteralString] = {
    "text": "mode => 'text'",
    "vector": "mode => 'vector'",
    "hybrid": "mode => 'hybrid'",
}
FUSIONS: Mapping[str, LiteralString] = {
    "rrf 60": "fusion => 'rrf', rrf_k => 60",
    "rrf 20": "fusion => 'rrf', rrf_k => 20",
    "fixed 0.5": "vector_weight => 0.5",
}
_SEARCH: LiteralString = (
    "select id ->> 'id' from pgstack.search(%s, %s, k => 10, per => 'row', embedding => %s, {})"
    " order by rank"
)

type Scores = Mapping[str, NDArray[np.float64]]


@dataclass(frozen=True)
class Verdict:
    """How hybrid stands to the better single branch: the mean difference and its interval."""

    best: str
    difference: float
    low: float
    high: float

    @property
    def holds(self) -> bool:
        """Whether hybrid is better, or not told apart from as good."""
        return self.high >= 0


def case_b(dsn: str, results: Results, names: list[str], most: int, *, fusions: bool) -> None:
    """Search every set in every mode, and with ``fusions`` fused in other ways, too."""
    ways = {**WAYS, **FUSIONS} if fusions else WAYS
    if not (_judged.DATA / "retrieval").is_dir():
        results.notes.append(f"(b) skipped: no judged sets in {_judged.DATA} ($PGSTACK_DATA_DIR)")
        return
    lines = []
    with connect(dsn, autocommit=True) as conn:
        _tables.know_vectors(conn)
        for name in names:
            judged = _judged.load(name, most)
            table = _tables.make(
                conn, _table_name(name), judged.texts, judged.vectors, ids=judged.ids
            )
            scores, took = measure(conn, table, judged, ways)
            lines += describe(name, judged, scores)
            spent = ", ".join(f"{way} {took[way]:.1f} ms" for way in ways)
            print(f"{lines[-1]}\n  (a search: {spent})", flush=True)
            judge(results, name, scores)
            _tables.drop(conn, table.name)
    results.notes += ["(b) nDCG@10, and hybrid less the better branch with its 95 % interval:"]
    results.notes += lines


def _table_name(name: str) -> str:
    return name.replace("-", "_")


def measure(
    conn: Connection, table: Table, judged: Judged, ways: Mapping[str, LiteralString]
) -> tuple[Scores, dict[str, float]]:
    """Return the nDCG@10 of every question by every way, and the milliseconds of a search."""
    calls = {way: sql.SQL(_SEARCH).format(sql.SQL(ways[way])).as_bytes() for way in ways}
    scores: dict[str, list[float]] = {way: [] for way in ways}
    took: dict[str, list[float]] = {way: [] for way in ways}
    for question, text in judged.questions.items():
        vector = _tables.packed(judged.question_vectors[question])
        for way, call in calls.items():
            began = time.perf_counter()
            rows = conn.execute(call, (table.name, text, vector)).fetchall()
            took[way].append((time.perf_counter() - began) * 1000)
            found = [row[0] for row in rows]
            scores[way].append(_judged.ndcg(found, judged.relevant[question]))
    medians = {way: statistics.median(values) for way, values in took.items()}
    return {way: np.array(values) for way, values in scores.items()}, medians


def verdict(scores: Scores) -> Verdict:
    """Compare hybrid with the better of the two branches, question by question."""
    best = max("text", "vector", key=lambda mode: scores[mode].mean())
    difference = scores["hybrid"] - scores[best]
    low, high = _judged.interval(difference)
    return Verdict(best, float(difference.mean()), low, high)


def describe(name: str, judged: Judged, scores: Scores) -> list[str]:
    """Return the lines of a set: the whole, then by language where there are several."""
    known = SETS[name]
    lines = [_line(name, scores, known.bm25, known.vector)]
    languages = sorted({q.split(":")[0] for q in judged.questions if ":" in q})
    for language in languages:
        mine = np.array([q.startswith(f"{language}:") for q in judged.questions])
        part = {mode: values[mine] for mode, values in scores.items()}
        lines.insert(-1, _line(f"  {name} {language}", part, None, None))
    return lines


def _line(name: str, scores: Scores, bm25: float | None, vector: float | None) -> str:
    compared = verdict(scores)
    means = ", ".join(f"{way} {values.mean():.4f}" for way, values in scores.items())
    before = f"; before: BM25 {bm25 or '-'}, MiniLM {vector or '-'}" if bm25 or vector else ""
    return (
        f"  {name:18} {means}; {compared.difference:+.4f}"
        f" [{compared.low:+.4f}, {compared.high:+.4f}] beside {compared.best}"
        f" ({len(scores['text'])} questions{before})"
    )


def judge(results: Results, name: str, scores: Scores) -> None:
    """Add the figures and verdicts of a set."""
    compared = verdict(scores)
    mean = {mode: float(values.mean()) for mode, values in scores.items()}
    count = len(scores["text"])
    known = SETS[name]
    results.add(
        f"(b) {name}, hybrid / {compared.best}",
        mean["hybrid"],
        mean[compared.best],
        "nDCG@10",
        count,
    )
    for mode, before in (("text", known.bm25), ("vector", known.vector)):
        if before is not None:
            results.add(
                f"(b) {name}, {mode} / as known before", mean[mode], before, "nDCG@10", count
            )
    results.goal(
        f"(b) {name}: hybrid at least as good as {compared.best}, or its interval holds 0",
        f"{compared.difference:+.4f} [{compared.low:+.4f}, {compared.high:+.4f}]",
        reached=compared.holds,
    )
    if name == "scifact":
        results.goal(
            "(b) scifact: hybrid .72", f"{mean['hybrid']:.4f}", reached=mean["hybrid"] >= 0.72
        )
        results.goal("(b) scifact: text .67", f"{mean['text']:.4f}", reached=mean["text"] >= 0.67)
        results.goal(
            "(b) scifact: vector .645 +- .005",
            f"{mean['vector']:.4f}",
            reached=abs(mean["vector"] - 0.645) <= 0.005,
        )
