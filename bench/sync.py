"""pgstack's worker against pgai's own, on the same server, model server and rows.

    make bench-sync
    make bench-sync ARGS="--case a --case d --runs 5 --rows 10000"

Runs alternate; each has a fresh table; figures are medians.  Seconds are those of the whole
command, `worker --once`, from start to exit.  Where our worker is held against the model server
alone, it runs already: seconds from the commit of the rows until the last one is searchable.
Verdicts use the median ratio of runs made one after the other.
There is no vector index and no table of words on either side: pgai builds none here.  What words
cost, which ours keeps unless it is told not to, is a line of (a).
"""

from __future__ import annotations

import argparse
import contextlib
import math
import os
import random
import signal
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import psycopg

from bench import _sides, _stack, _texts
from bench._models import Asked, Models
from bench._report import Case, report
from bench._sides import PEER, Side, Work
from pgstack.db import connect
from pgstack.embedded.modelserver import start, start_deterministic

LATENCY_MS = 100
# pgai's best is looked for over: executors, batch_size (None: its default of 50).
PEER_SETTINGS = ((2, None), (4, None), (1, 500), (2, 500), (4, 500), (1, 2048), (2, 2048))
SERVER_SHAPES = ((32, 1), (128, 1), (128, 4), (512, 1), (512, 2), (512, 4), (2048, 2))
REAL_SHAPES = ((8, 1), (32, 1), (32, 2), (128, 1))
DOCUMENTS, CHANGED = 100, 10
BACKLOG = 100_000
PEER_POLL_SECONDS = 1.0  # its least; by default it looks every 5 minutes
MODELS_DIR = Path(
    os.environ.get("PGSTACK_TEST_MODELS", Path(__file__).parents[1] / ".cache/models")
)


@dataclass(frozen=True)
class Goal:
    """What was aimed at, what came out."""

    text: str
    figure: str
    reached: bool


@dataclass
class Bench:
    """Both sides and what they share.  Runs that serve two cases are made once."""

    ours: Side
    peer: Side
    models: Models
    runs: int
    rows: int
    cases: list[Case] = field(default_factory=list)
    goals: list[Goal] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(self, case: str, ours: float, peer: float, unit: str) -> None:
        """Add a line to the table."""
        self.cases.append(Case(case, round(ours, 4), round(peer, 4), unit, self.runs))

    def goal(self, text: str, figure: str, *, reached: bool) -> None:
        """Add a verdict."""
        self.goals.append(Goal(text, figure, reached))

    def alternate[T](self, *measures: Callable[[], T]) -> list[list[T]]:
        """Run all measures ``runs`` times, every other time in reverse; results by measure."""
        results: list[list[T]] = [[] for _ in measures]
        numbered = list(enumerate(measures))
        for run in range(self.runs):
            for i, measure in numbered if run % 2 == 0 else reversed(numbered):
                results[i].append(measure())
        return results

    @cached_property
    def short(self) -> list[list[Work]]:
        """Short rows, instant model: ours, pgai's with one executor, pgai's at its best."""
        rows = _texts.short_rows(self.rows)
        sides = [
            self.peer.using(concurrency=executors, batch=batch)
            for executors, batch in PEER_SETTINGS
        ]
        found = [(embed(side, rows), side) for side in sides]
        best = min(found, key=lambda each: each[0].seconds)[1]
        tried = ", ".join(f"{s.concurrency}/{s.batch or 50}: {w.seconds:.1f} s" for w, s in found)
        self.notes.append(f"(a) pgai with executors/batch_size, once each: {tried}")
        results = self.alternate(
            lambda: embed(self.ours, rows),
            lambda: embed(self.peer, rows),
            lambda: embed(best, rows),
        )
        for side, works in zip((self.ours, self.peer, best), results, strict=True):
            asked = {work.asked.texts for work in works}
            if asked != {len(rows)}:  # a vector kept from the last run would be no work
                _sides.surprises.append(f"(a) {side.name} asked for {asked} texts")
        return results

    @cached_property
    def long(self) -> list[list[tuple[Work, Work]]]:
        """Long documents: all embedded, then some changed in one sentence; ours, pgai's."""
        texts = _texts.documents(DOCUMENTS)
        changed = random.Random(7).sample(range(len(texts)), CHANGED)

        def both(side: Side) -> tuple[Work, Work]:
            first = embed(side, texts)
            with connect(side.dsn) as conn:
                for i in changed:
                    body = _texts.with_another_sentence(texts[i], i)
                    conn.execute("update item set body = %s where id = %s", (body, i))
            then = side.work()
            if side.rows_with(_texts.REWRITTEN) != CHANGED:
                _sides.surprises.append(f"(d) {side.name}: not every change was embedded")
            return first, then

        results = self.alternate(lambda: both(self.ours), lambda: both(self.peer))
        counts = {work.chunks for side in results for run in side for work in run[:1]}
        if len(counts) > 1:
            _sides.surprises.append(f"(c) the sides made different chunks: {sorted(counts)}")
        return results


def caught_up(
    side: Side, texts: Sequence[str], chunks: int, *, latency_ms: float = 0
) -> tuple[float, Asked]:
    """Return the seconds that a running worker takes for new rows, and what it asked."""
    side.fresh([])
    side.models.forget()
    with side.running(), connect(side.dsn, autocommit=True) as conn:
        side.add(conn, ["Are you there?"], first=-1)
        _await_chunks(conn, 1)
        side.models.forget(latency_ms=latency_ms)
        side.add(conn, texts)
        began = time.perf_counter()
        _await_chunks(conn, 1 + chunks)
        return time.perf_counter() - began, side.models.asked()


def _await_chunks(conn: psycopg.Connection[Any], wanted: int) -> None:
    """Wait until there are that many chunks."""
    deadline = time.perf_counter() + 300
    while conn.execute("select count(*) from item_embedding_store").fetchone() != (wanted,):
        if time.perf_counter() > deadline:
            raise SystemExit(f"there were not {wanted} chunks within five minutes")
        time.sleep(0.02)


def embed(side: Side, texts: Sequence[str], *, latency_ms: float = 0) -> Work:
    """Embed these texts from nothing."""
    side.fresh(texts)
    return side.work(latency_ms=latency_ms)


def seconds(works: Sequence[Work]) -> float:
    """Return the median of the whole command's seconds."""
    return statistics.median(work.seconds for work in works)


def times_of(their: Sequence[float], our: Sequence[float]) -> float:
    """Return the median, over pairs of runs made one after the other, of theirs / ours."""
    return statistics.median(t / o for t, o in zip(their, our, strict=True))


def slower(their: Sequence[Work], our: Sequence[Work]) -> float:
    """Return how many times as long theirs took as ours."""
    return times_of([work.seconds for work in their], [work.seconds for work in our])


def case_a(bench: Bench) -> None:
    """Instant model, short rows."""
    ours, peer, best = (seconds(works) for works in bench.short)
    rows = _texts.short_rows(bench.rows)
    bench.models.forget()
    shape = bench.models.best_shape(rows, SERVER_SHAPES)
    running, alone = bench.alternate(
        lambda: caught_up(bench.ours, rows, len(rows))[0],
        lambda: bench.models.alone(rows, *shape),
    )
    net, least = statistics.median(running), statistics.median(alone)
    at_one, at_best = (slower(works, bench.short[0]) for works in bench.short[1:])
    share = times_of(alone, running)
    starts = bench.alternate(lambda: embed(bench.ours, []), lambda: embed(bench.peer, []))
    what = f"(a) {bench.rows:,} short rows, instant model"
    bench.add(f"{what}, concurrency 1", ours, peer, "s")
    bench.add(f"{what}; pgai at its best", ours, best, "s")
    bench.add(f"{what}; model server alone", net, least, "s")
    with_words = bench.alternate(lambda: embed(replace(bench.ours, words=True), rows))[0]
    bench.add(f"{what}; with a table of words / without", seconds(with_words), ours, "s")
    bench.notes.append(
        f"(a) start and end of the command alone: {seconds(starts[0]):.1f} s, "
        f"pgai {seconds(starts[1]):.1f} s"
    )
    bench.goal(
        "(a) 5x pgai at concurrency 1 and 2x its best, or 90 % of the model server's own speed",
        f"{at_one:.1f}x and {at_best:.1f}x, or {share:.0%}",
        reached=(at_one >= 5 and at_best >= 2) or share >= 0.9,
    )


def case_b(bench: Bench) -> None:
    """100 ms a call, against pgai and against what those calls alone take."""
    rows = _texts.short_rows(bench.rows // 2)

    def running_and_alone() -> tuple[float, float]:
        took, asked = caught_up(bench.ours, rows, len(rows), latency_ms=LATENCY_MS)
        per_call = math.ceil(len(rows) / asked.calls)
        return took, bench.models.alone(rows, per_call, asked.in_flight)

    ours, peer = bench.alternate(
        lambda: embed(bench.ours, rows, latency_ms=LATENCY_MS),
        lambda: embed(bench.peer, rows, latency_ms=LATENCY_MS),
    )
    pairs = bench.alternate(running_and_alone)[0]
    running, alone = ([pair[i] for pair in pairs] for i in (0, 1))
    faster, over = slower(peer, ours), times_of(running, alone) - 1
    took, theirs = seconds(ours), seconds(peer)
    what = f"(b) {len(rows):,} rows, {LATENCY_MS} ms a call"
    bench.add(f"{what}, concurrency 1", took, theirs, "s")
    least = statistics.median(alone)
    bench.add(f"{what}; the same calls alone", statistics.median(running), least, "s")
    for side, works in ((bench.ours, ours), (bench.peer, peer)):
        asked = works[-1].asked
        bench.notes.append(f"(b) {side.name}: {asked.calls} calls, {asked.in_flight} in flight")
    bench.goal(
        "(b) 4x pgai at equal concurrency, within 10 % of what the model's latency allows",
        f"{faster:.1f}x, {over:+.0%}",
        reached=faster >= 4 and over <= 0.1,
    )


def case_c(bench: Bench) -> None:
    """Long documents, many chunks."""
    ours, peer = ([first for first, _ in runs] for runs in bench.long)
    what = f"(c) {DOCUMENTS} long documents, {ours[-1].chunks:,} chunks"
    bench.add(what, seconds(ours), seconds(peer), "s")
    mine, theirs = (statistics.median(w.asked.texts for w in works) for works in (ours, peer))
    bench.add(f"{what}: texts embedded", mine, theirs, "texts")


def case_d(bench: Bench) -> None:
    """One sentence each changed in 10 % of the long documents."""
    ours, peer = ([then for _, then in runs] for runs in bench.long)
    mine, theirs = (statistics.median(w.asked.texts for w in works) for works in (ours, peer))
    what = f"(d) one sentence changed in {CHANGED} of {DOCUMENTS} documents"
    bench.add(f"{what}: texts embedded", mine, theirs, "texts")
    bench.add(what, seconds(ours), seconds(peer), "s")
    bench.goal(
        "(d) 20x fewer texts embedded",
        f"{theirs / max(mine, 1):.0f}x fewer ({mine:.0f} and {theirs:.0f})",
        reached=mine > 0 and theirs >= 20 * mine,
    )


def case_e(bench: Bench) -> None:
    """What user statements pay for the triggers, and what needless work they cause."""
    rows = _texts.short_rows(bench.rows * 5)
    update = "update item set note = 'seen'"
    many = bench.rows * 20
    load = (
        f"insert into item select n, 'Entry ' || n || ' of many' from generate_series(1, {many}) n"
    )
    texts, queued = [], []

    def timed(side: Side, statement: str, texts: Sequence[str], *, vectorizer: bool) -> float:
        side.fresh(texts, vectorizer=vectorizer, enqueue=False)
        with connect(side.dsn, autocommit=True) as conn:
            began = time.perf_counter()
            conn.execute(statement.encode())
            return time.perf_counter() - began

    def ours() -> float:
        took = timed(bench.ours, update, rows, vectorizer=True)
        texts.append(bench.ours.work(check=False).asked.texts)
        return took

    def peer() -> float:
        took = timed(bench.peer, update, rows, vectorizer=True)
        queued.append(bench.peer.queued())
        return took

    updates = bench.alternate(ours, peer, lambda: timed(bench.ours, update, rows, vectorizer=False))
    loads = bench.alternate(
        lambda: timed(bench.ours, load, [], vectorizer=True),
        lambda: timed(bench.peer, load, [], vectorizer=True),
        lambda: timed(bench.ours, load, [], vectorizer=False),
    )
    mine, theirs, none = map(statistics.median, updates)
    what = f"(e) update another column of {len(rows):,} rows"
    bench.add(what, mine, theirs, "s")
    bench.add(f"{what}; no trigger", mine, none, "s")
    bench.add(f"{what}: texts to embed", max(texts), min(queued), "texts")
    bench.notes.append(f"(e) pgai's triggers make that update {theirs / none:.1f}x as long")
    longer = times_of(updates[0], updates[2])
    loaded, their_load, plain = map(statistics.median, loads)
    bench.add(f"(e) load {many:,} rows", loaded, their_load, "s")
    bench.add(f"(e) load {many:,} rows; no trigger", loaded, plain, "s")
    bench.goal(
        "(e) an update within 1.5x of no trigger, no text embedded",
        f"{longer:.2f}x, {max(texts)} texts (a bulk load: {times_of(loads[0], loads[2]):.2f}x)",
        reached=longer <= 1.5 and max(texts) == 0,
    )


def case_f(bench: Bench) -> None:
    """From commit to searchable."""
    mine = {ms: _freshness(bench.ours, 150, (0.005, 0.05), ms) for ms in (0, LATENCY_MS)}
    options = ("--poll-interval", f"{PEER_POLL_SECONDS:.0f}s")
    theirs = _freshness(bench.peer, 15, (0, PEER_POLL_SECONDS), 0, *options)
    what = "(f) commit to searchable"
    for name, percent in (("p50", 50), ("p99", 99)):
        polling = f"{what}, {name}; pgai polls every {PEER_POLL_SECONDS:.0f} s"
        bench.add(polling, percentile(mine[0], percent), percentile(theirs, percent), "ms")
    for name, percent in (("p50", 50), ("p99", 99)):
        slow = f"{what}, {name}, {LATENCY_MS} ms a call; instant model"
        bench.add(slow, percentile(mine[LATENCY_MS], percent), percentile(mine[0], percent), "ms")
    behind = _freshness(bench.ours, 15, (0.05, 0.2), LATENCY_MS, backlog=BACKLOG)
    bench.add(
        f"{what}, p50, {LATENCY_MS} ms a call; {BACKLOG:,} rows queued before it, none",
        percentile(behind, 50),
        percentile(mine[LATENCY_MS], 50),
        "ms",
    )
    bench.notes.append("(f) pgai's default is to poll every 5 min: p50 150 s, p99 297 s")
    p50 = max(percentile(times, 50) - ms for ms, times in mine.items())
    p99 = max(percentile(times, 99) for times in mine.values())
    bench.goal(
        "(f) p50 under 100 ms plus model time, p99 under 1 s",
        f"p50 {p50:.0f} ms plus model time, p99 {p99:.0f} ms",
        reached=p50 < 100 and p99 < 1000,
    )


def _freshness(
    side: Side,
    count: int,
    pauses: tuple[float, float],
    latency_ms: float,
    *options: str,
    backlog: int = 0,
) -> list[float]:
    """Return milliseconds from the commit of a row until its chunk can be found."""
    texts = _texts.short_rows(backlog + count + 3)
    side.fresh(texts[:backlog])
    side.models.forget(latency_ms=latency_ms)
    rng = random.Random(7)
    times = []
    with side.running(*options), connect(side.dsn, autocommit=True) as conn:
        for i, text in enumerate(texts[backlog:], backlog):
            conn.execute("insert into item values (%s, %s)", (i, text))
            began = time.perf_counter()
            while not conn.execute("select from item_embedding where id = %s", (i,)).rowcount:
                if time.perf_counter() - began > 60:
                    raise SystemExit(f"{side.name}: a row was not embedded within a minute")
                time.sleep(0.001)
            times.append((time.perf_counter() - began) * 1000)
            time.sleep(rng.uniform(*pauses))
        if backlog and not side.queued():
            raise SystemExit("the backlog was done before the rows behind it")
    return times[3:]  # the first ones met a worker that was starting


def percentile(values: Sequence[float], percent: int) -> float:
    """Return a percentile of the values."""
    return statistics.quantiles(values, n=100, method="inclusive")[percent - 1]


def case_g(bench: Bench) -> None:
    """Real all-minilm on real text: the share of its own speed that the worker reaches."""
    if not (MODELS_DIR / "all-minilm").exists():
        bench.notes.append(f"(g) left out: no all-minilm in {MODELS_DIR}; make setup-dev")
        return
    texts = _texts.documents(208)[-16:]
    with start([f"--models-dir={MODELS_DIR}"]) as url:
        models = Models(url, control=False)
        ours, peer = (replace(side, models=models) for side in (bench.ours, bench.peer))
        embed(ours, texts[:1])  # loads the model
        embed(ours, texts)
        with connect(ours.dsn) as conn:
            chunks = [str(row[0]) for row in conn.execute("select chunk from item_embedding")]
        shape = models.best_shape(chunks, REAL_SHAPES)
        works = bench.alternate(lambda: embed(ours, texts), lambda: embed(peer, texts))
        times = bench.alternate(
            lambda: caught_up(ours, texts, len(chunks))[0],
            lambda: models.alone(chunks, *shape),
        )
    mine, theirs = map(seconds, works)
    net, alone = map(statistics.median, times)
    share = times_of(times[1], times[0])
    what = f"(g) all-minilm, {len(chunks)} chunks of real text"
    bench.add(what, mine, theirs, "s")
    bench.add(f"{what}; model server alone", net, alone, "s")
    bench.notes.append(f"(g) alone: {len(chunks) / alone:.1f} texts/s with {shape[0]} a call")
    bench.goal(
        "(g) 95 % of the model server's own speed",
        f"{share:.0%}",
        reached=share >= 0.95,
    )


def case_h(bench: Bench) -> None:
    """Memory and CPU of the workers, from the runs of case (a)."""
    ours, peer, _ = bench.short
    per = 10_000 / bench.rows
    for what, unit, of in (
        ("peak memory of the worker", "MB", lambda work: work.used.peak_mb),
        ("CPU of the worker per 10,000 rows", "s", lambda work: work.used.cpu_seconds * per),
        ("CPU of PostgreSQL per 10,000 rows", "s", lambda work: work.server_cpu_seconds * per),
    ):
        mine, theirs = (statistics.median(map(of, works)) for works in (ours, peer))
        bench.add(f"(h) {what}, rows as in (a)", mine, theirs, unit)


CASES = {
    "a": case_a,
    "b": case_b,
    "c": case_c,
    "d": case_d,
    "e": case_e,
    "f": case_f,
    "g": case_g,
    "h": case_h,
}


@contextlib.contextmanager
def prepared(runs: int, rows: int) -> Iterator[Bench]:
    """Start a server with both databases, and a model server."""
    with _stack.database() as dsn, start_deterministic(vectors="hash") as url:
        models = Models(url)
        yield Bench(_sides.ours(dsn, models), _sides.peer(dsn, models), models, runs, rows)


def main() -> None:
    """Measure, print the table and the verdicts, write bench/out/sync.json."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--rows", type=int, default=10_000, help="of (a); the others follow")
    parser.add_argument("--case", action="append", choices=sorted(CASES), help="may be repeated")
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # what runs is stopped then, too
    with prepared(args.runs, args.rows) as bench:
        for name in args.case or CASES:
            began = time.perf_counter()
            CASES[name](bench)
            took, load = time.perf_counter() - began, os.getloadavg()[0]
            print(f"({name}) measured in {took:.0f} s, load {load:.1f}", flush=True)
    report("sync", PEER, bench.cases, ["pgstack", "psycopg", "httpx"])
    print(f"median of {args.runs}; {PEER} with what bench/pgai-worker.txt pins, nothing stubbed")
    print(*bench.notes, sep="\n")
    for goal in bench.goals:
        print(f"{'reached    ' if goal.reached else 'NOT reached'}  {goal.text}: {goal.figure}")
    for surprise in _sides.surprises:
        print(f"surprise: {surprise}")


if __name__ == "__main__":
    main()
