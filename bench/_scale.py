"""Cases c and d of bench/search.py: how long searches take, what they find, how it grows.

c   Vectors under an index, with filters that leave 50 %, 5 % and 0.5 % of the rows (a column with
    an index), 1 and 4 clients; pgstack.recall() has looked at the index before.  Recall@10 is
    against all rows that the filter leaves, compared one by one.  The peer is the same search as
    SQL over the view with pgvector's and vectorscale's settings as they come.  For words and both
    together it is the search without a filter.
d   The same search on tables from 10,000 to 500,000 rows; the peer is the smallest.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from typing import LiteralString

from psycopg import sql

from bench import _clients, _corpora, _tables
from bench._clients import Ask, Measured
from bench._corpora import Corpus
from bench._goals import Results
from bench._tables import BUCKETS, Connection, Table
from pgstack.db import connect

SHARES = (1.0, 0.5, 0.05, 0.005)
CLIENTS = (1, 4)
NARROW = 0.005
MOST_SLOWER = 3.0
LEAST_RECALL = 0.95
_OURS: LiteralString = (
    "select (id ->> 'id')::bigint from pgstack.search(%s, %s, mode => %s, embedding => %s,"
    " filter => %s::jsonb) order by rank"
)
_PEER: LiteralString = (
    "select e.id from {view} as e where e.bucket < %s order by e.embedding <=> %s limit 10"
)


def case_c(dsn: str, results: Results, rows: int, asked: int, diskann_rows: int) -> None:
    """Measure both corpora under both kinds of index."""
    for corpus, methods in (
        (_corpora.debian(min(rows, 60_000)), ("hnsw",)),
        (_corpora.glove(min(rows, 390_000)), ("hnsw",)),
        (_corpora.debian(min(rows, 60_000)).first(diskann_rows), ("diskann",)),
        (_corpora.glove(min(rows, 390_000)).first(diskann_rows), ("diskann",)),
    ):
        for method in methods:
            _searched(dsn, results, corpus, method, asked)


def _searched(dsn: str, results: Results, corpus: Corpus, method: str, asked: int) -> None:
    """Measure one table with one index."""
    what = f"(c) {corpus.name} {len(corpus.texts):,} {method}"
    with_words = corpus.name == "debian" and method == "hnsw"
    with connect(dsn, autocommit=True) as conn:
        _tables.know_vectors(conn)
        table = _tables.make(conn, corpus.name, corpus.texts, corpus.vectors, words=with_words)
        built = _tables.build_index(conn, table, method)
    results.note(f"{what}: built in {built.seconds:.0f} s, {built.size / 1e6:.0f} MB")
    _set_effort(dsn, results, what, table, corpus)
    measured = {
        (share, clients): _vectors(dsn, results, what, table, corpus, share, clients, asked)
        for share in SHARES
        for clients in CLIENTS
    }
    _judge(results, what, measured, corpus, table)
    if with_words:
        for mode in ("text", "hybrid"):
            _other_mode(dsn, results, what, table, corpus, mode, asked)
    with connect(dsn, autocommit=True) as conn:
        _tables.drop(conn, table.name)


def _set_effort(dsn: str, results: Results, what: str, table: Table, corpus: Corpus) -> None:
    """Let pgstack.recall() find out how hard the index must try, with questions of its own."""
    others = range(len(corpus.questions) - 100, len(corpus.questions))
    before = _clients.search(dsn, ours(table, corpus, "vector", 1), others)
    began = time.perf_counter()
    with connect(dsn, autocommit=True) as conn:
        _tables.know_vectors(conn)
        conn.execute("delete from _pgstack.query_cache")
        _tables.remember(
            conn, [corpus.questions[i] for i in others], corpus.question_vectors[-100:]
        )
        tried = conn.execute(
            "select effort, recall, chosen from pgstack.recall(%s)", (table.name,)
        ).fetchall()
    seconds = time.perf_counter() - began
    effort, reached, chosen = next((row for row in tried if row[2]), tried[-1])
    results.note(
        f"{what}: recall@10 {recall(before, corpus, table, 1):.3f} unmeasured;"
        f" pgstack.recall() took {seconds:.0f} s,"
        f" {'chose' if chosen else 'tried as much as'} effort {effort}: {reached:.3f}"
    )


def ours(table: Table, corpus: Corpus, mode: str, share: float) -> Ask:
    """Return a search of ours."""
    below = round(share * BUCKETS)
    narrowed = json.dumps({"bucket": {"lt": below}}) if share < 1 else None

    def ask(conn: Connection, nr: int) -> Sequence[int]:
        vector = _tables.packed(corpus.question_vectors[nr])
        given = (table.name, corpus.questions[nr], mode, vector, narrowed)
        return [row[0] for row in conn.execute(_OURS, given).fetchall()]

    return ask


def plain(table: Table, corpus: Corpus, share: float) -> Ask:
    """Return the same search of vectors as SQL over the view."""
    statement = sql.SQL(_PEER).format(view=sql.Identifier(table.view))
    below = round(share * BUCKETS)

    def ask(conn: Connection, nr: int) -> Sequence[int]:
        vector = _tables.packed(corpus.question_vectors[nr])
        return [row[0] for row in conn.execute(statement, (below, vector)).fetchall()]

    return ask


def _vectors(
    dsn: str,
    results: Results,
    what: str,
    table: Table,
    corpus: Corpus,
    share: float,
    clients: int,
    asked: int,
) -> Measured:
    """Measure one filter with so many clients, beside plain SQL."""
    questions = range(min(asked, len(corpus.questions)))
    mine = _clients.search(dsn, ours(table, corpus, "vector", share), questions, clients)
    theirs = _clients.search(dsn, plain(table, corpus, share), questions, clients)
    line = f"{what}, {_filter(share)}, {clients} client{'s' if clients > 1 else ''}"
    for percent in (50, 95):
        results.add(
            f"{line}, p{percent}", mine.p(percent), theirs.p(percent), "ms", len(mine.times)
        )
    if clients == 1:
        found, peers = recall(mine, corpus, table, share), recall(theirs, corpus, table, share)
        results.add(f"{line}, recall@10", found, max(peers, 1e-4), "", len(mine.times))
        print(f"{line}: recall@10 {found:.3f}, plain SQL {peers:.3f}", end="; ")
    else:
        results.add(f"{line}, searches", mine.rate, theirs.rate, "1/s", len(mine.times))
        print(f"{line}", end=": ")
    print(
        f"p50 {mine.p(50):.1f} p95 {mine.p(95):.1f} ms, {mine.fewest} rows or more;"
        f" plain SQL p50 {theirs.p(50):.1f} p95 {theirs.p(95):.1f} ms, {theirs.fewest} rows",
        flush=True,
    )
    return mine


def recall(measured: Measured, corpus: Corpus, table: Table, share: float) -> float:
    """Return the recall@10 among the rows that a filter leaves."""
    allowed = None if share == 1 else table.buckets < round(share * BUCKETS)
    return _clients.recall(measured.found, corpus.vectors, corpus.question_vectors, allowed)


def _filter(share: float) -> str:
    return "no filter" if share == 1 else f"filter {share:.3g}"


def _judge(
    results: Results,
    what: str,
    measured: dict[tuple[float, int], Measured],
    corpus: Corpus,
    table: Table,
) -> None:
    """Add the verdicts on the narrowest filter."""
    alone = measured[NARROW, 1]
    wanted = min(10, int((table.buckets < round(NARROW * BUCKETS)).sum()))
    found = recall(alone, corpus, table, NARROW)
    results.goal(
        f"{what}: filter 0.5 % gives all {wanted} rows",
        f"{alone.fewest}",
        reached=alone.fewest >= wanted,
    )
    results.goal(
        f"{what}: filter 0.5 % recall@10 .95", f"{found:.3f}", reached=found >= LEAST_RECALL
    )
    for clients in CLIENTS:
        slower = measured[NARROW, clients].p(95) / measured[1.0, clients].p(95)
        results.goal(
            f"{what}: filter 0.5 % p95 under 3 x unfiltered, {clients} client(s)",
            f"{slower:.2f} x",
            reached=slower < MOST_SLOWER,
        )


def _other_mode(
    dsn: str, results: Results, what: str, table: Table, corpus: Corpus, mode: str, asked: int
) -> None:
    """Measure a mode under every filter, one client; the peer is the same without a filter."""
    questions = [nr for nr in range(asked) if corpus.questions[nr].strip()]
    measured = {
        share: _clients.search(dsn, ours(table, corpus, mode, share), questions) for share in SHARES
    }
    for share, each in measured.items():
        for percent in (50, 95):
            case = f"{what}, {mode}, {_filter(share)} / without, p{percent}"
            results.add(case, each.p(percent), measured[1.0].p(percent), "ms", len(each.times))
        line = f"{what}, {mode}, {_filter(share)}"
        print(f"{line}: p50 {each.p(50):.1f} p95 {each.p(95):.1f} ms", flush=True)


def case_d(dsn: str, results: Results, sizes: Sequence[int], asked: int) -> None:
    """Measure each size."""
    corpus = _corpora.zipf(max(sizes))
    first: dict[str, float] = {}
    for rows in sizes:
        part = corpus.first(rows)
        with connect(dsn, autocommit=True) as conn:
            _tables.know_vectors(conn)
            table = _tables.make(conn, "grown", part.texts, part.vectors)
            built = _tables.build_index(conn, table, "hnsw")
        figures = {
            "HNSW build, s": built.seconds,
            "HNSW size, MB": built.size / 1e6,
            "words build, s": table.words.seconds,
            "words size, MB": table.words.size / 1e6,
        }
        for mode, share in (("vector", 1), ("text", 1), ("hybrid", 1), ("vector", NARROW)):
            measured = _clients.search(dsn, ours(table, part, mode, share), range(asked))
            for percent in (50, 95):
                name = f"{mode}, {_filter(share)}, p{percent}, ms"
                figures[name] = measured.p(percent)
        for name, value in figures.items():
            least = first.setdefault(name, value)
            figure, _, unit = name.rpartition(", ")
            case = f"(d) {rows:,} rows / {sizes[0]:,}: {figure}"
            results.add(case, value, least, unit, asked)
        slower = (
            figures[f"vector, {_filter(NARROW)}, p95, ms"]
            / figures[f"vector, {_filter(1)}, p95, ms"]
        )
        results.goal(
            f"(d) {rows:,} rows: filter 0.5 % p95 under 3 x unfiltered",
            f"{slower:.2f} x",
            reached=slower < MOST_SLOWER,
        )
        shown = "; ".join(f"{name} {value:.1f}" for name, value in figures.items())
        print(f"(d) {rows:,} rows: {shown}", flush=True)
        with connect(dsn, autocommit=True) as conn:
            _tables.drop(conn, table.name)
