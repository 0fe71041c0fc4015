"""Case a of bench/search.py: pgstack.search() beside SQL written by hand, with the same plan.

Descriptions of Debian packages, one question after the other, each asked in every way before the
next, in turns; a session a way, so that none profits from what another asked.  Figures are
medians; the ratio is that of the medians.  Beside each time stands the CPU time of the server,
which other programs on the machine hardly change.  By hand: bench/_byhand.py.

The goal is for ordinary statements.  A prepared one keeps its plan, which pays for more by hand
than for a call of a function; and who writes a filter by hand knows how many rows it leaves,
which search() has to count.  Both are shown all the same.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import LiteralString

from psycopg import sql

from bench import _byhand, _corpora, _plans, _tables
from bench._byhand import ByHand
from bench._corpora import Corpus
from bench._goals import Results
from bench._report import median
from bench._tables import BUCKETS, Connection, Table
from pgstack.db import connect

ALLOWED = 1.10
_CALL: LiteralString = (
    "select id::text, chunk_seq, chunk, score from pgstack.search(%(name)s, %(query)s, {arguments})"
)
_VECTOR: LiteralString = "mode => 'vector', embedding => %(vector)s"
_FILTERED: LiteralString = f"{_VECTOR}, filter => %(filter)s::jsonb"

type Parameters = Mapping[str, object]
type Peer = Callable[[ByHand, int], sql.Composed]


@dataclass(frozen=True)
class Contest:
    """One line of the table.

    ``arguments`` of search(), and the ``peer``'s statement for a question of so many words.
    ``effort`` is hnsw.ef_search of the peer, ``share`` what the filter leaves of the rows.
    Lines without a ``goal`` show what else one might write.
    """

    case: str
    arguments: LiteralString
    peer: Peer
    embed: bool = False
    effort: LiteralString = _byhand.EF_SEARCH
    share: float = 1
    goal: bool = True

    def call(self) -> sql.Composed:
        """Return our statement."""
        return sql.SQL(_CALL).format(arguments=sql.SQL(self.arguments))


CONTESTS = (
    Contest("vector, its vector given", _VECTOR, lambda hand, _: hand.vector()),
    Contest(
        "vector, embedded before", "mode => 'vector'", lambda hand, _: hand.vector(), embed=True
    ),
    Contest("text, BM25 with a column a word", "mode => 'text'", lambda hand, n: hand.text(n)),
    Contest("text, BM25 with unnest()", "mode => 'text'", lambda hand, _: hand.bm25(), goal=False),
    Contest("text, ts_rank()", "mode => 'text'", lambda hand, _: hand.ts_rank(), goal=False),
    Contest(
        "hybrid, its vector given",
        "embedding => %(vector)s",
        lambda hand, n: hand.hybrid(n),
        effort=_byhand.EF_SEARCH_HYBRID,
    ),
    Contest(
        "hybrid, embedded before",
        "mode => 'hybrid'",
        lambda hand, n: hand.hybrid(n),
        embed=True,
        effort=_byhand.EF_SEARCH_HYBRID,
    ),
    Contest("vector, filter 0.5 %", _FILTERED, lambda hand, _: hand.few(), share=0.005, goal=False),
    Contest("vector, filter 5 %", _FILTERED, lambda hand, _: hand.many(), share=0.05, goal=False),
)


def case_a(dsn: str, results: Results, rows: int, runs: int) -> None:
    """Measure every line."""
    corpus = _corpora.debian(rows)
    with connect(dsn, autocommit=True) as conn:
        _tables.know_vectors(conn)
        print(f"loading {rows:,} descriptions, building an HNSW index ...", flush=True)
        table = _tables.make(conn, "debian", corpus.texts, corpus.vectors)
        _tables.build_index(conn, table, "hnsw")
        asked = min(runs, len(corpus.questions))
        _tables.remember(conn, corpus.questions[:asked], corpus.question_vectors[:asked])
        questions = [
            parameters(conn, table, corpus, i) for i in range(asked) if corpus.questions[i].strip()
        ]
    questions = [each for each in questions if word_count(each)]
    for contest in CONTESTS:
        measure(dsn, results, table, contest, questions if contest.goal else questions[: runs // 5])


def parameters(conn: Connection, table: Table, corpus: Corpus, nr: int) -> Parameters:
    """Return everything that a statement may need to know of a question."""
    text = corpus.questions[nr]
    ((words,),) = conn.execute(
        "select tsvector_to_array(to_tsvector('english', %s))", (text,)
    ).fetchall()
    return {
        "name": table.name,
        "query": text,
        "vector": _tables.packed(corpus.question_vectors[nr]),
        **_byhand.word_parameters(words),
    }


def word_count(question: Parameters) -> int:
    """Return how many different words a question has."""
    return sum(name.startswith("word_") for name in question)


def measure(
    dsn: str, results: Results, table: Table, contest: Contest, questions: list[Parameters]
) -> None:
    """Measure one line: ours and the peer's, each as an ordinary and a prepared statement."""
    hand = ByHand(table, embed=contest.embed)
    below = round(contest.share * BUCKETS)
    narrowed = {"below": below, "filter": json.dumps({"bucket": {"lt": below}})}
    asked = [{**question, **narrowed} for question in questions]
    ways = [(side, prepare) for side in ("ours", "peer") for prepare in (False, True)]
    times: dict[tuple[str, bool], list[float]] = {way: [] for way in ways}
    cpu: dict[tuple[str, bool], list[float]] = {way: [] for way in ways}
    with sessions(dsn, contest, ways) as conns:
        plans = same_plan(
            conns["ours", False], conns["peer", False], table, contest, asked[0], hand
        )
    with sessions(dsn, contest, ways) as conns:
        for nr, question in enumerate([asked[-1], *asked]):  # the first, to warm up, is left out
            texts = {
                "ours": contest.call().as_bytes(),
                "peer": contest.peer(hand, word_count(question)).as_bytes(),
            }
            for way in ways[nr % 4 :] + ways[: nr % 4]:
                before = _cpu_ms(conns[way])
                began = time.perf_counter()
                conns[way].execute(texts[way[0]], question, prepare=way[1]).fetchall()
                times[way].append((time.perf_counter() - began) * 1000)
                cpu[way].append(_cpu_ms(conns[way]) - before)
    for prepare, how in ((False, ""), (True, ", prepared")):
        case = f"(a) {contest.case}{how}"
        ours, peer = (median(times[side, prepare][1:]) for side in ("ours", "peer"))
        our_cpu, peer_cpu = (median(cpu[side, prepare][1:]) for side in ("ours", "peer"))
        results.add(case, ours, peer, "ms", len(asked))
        results.add(f"{case}, CPU", our_cpu, peer_cpu, "ms", len(asked))
        shown = f"{ours / peer:.2f} x, of the server's CPU {our_cpu / peer_cpu:.2f} x"
        print(f"{case}: {ours:.2f} ms, by hand {peer:.2f} ms: {shown}", flush=True)
        if contest.goal and not prepare:
            results.goal(
                f"{case}: {ALLOWED:.2f} x of what is written by hand",
                shown,
                reached=ours / peer <= ALLOWED,
            )
    results.note(f"(a) {contest.case}: plans {plans}")


def _cpu_ms(conn: Connection) -> float:
    """Return the CPU time that the server has spent for a session."""
    return int(Path(f"/proc/{conn.info.backend_pid}/schedstat").read_text().split()[0]) / 1e6


@contextlib.contextmanager
def sessions(
    dsn: str, contest: Contest, ways: list[tuple[str, bool]]
) -> Iterator[dict[tuple[str, bool], Connection]]:
    """Open a session a way; the peer's have the settings of pgvector that fit the question."""
    with contextlib.ExitStack() as stack:
        conns = {way: stack.enter_context(connect(dsn, autocommit=True)) for way in ways}
        for (side, _), conn in conns.items():
            _tables.know_vectors(conn)
            if side == "peer":
                conn.execute(sql.SQL(_byhand.SETTINGS + contest.effort))
        yield conns


def same_plan(
    ours: Connection,
    peer: Connection,
    table: Table,
    contest: Contest,
    question: Parameters,
    hand: ByHand,
) -> str:
    """Say whether both sides read the same tables by the same ways."""
    statement = contest.peer(hand, word_count(question))
    theirs = _plans.of_statement(peer, statement, question)
    mine = _plans.inside(ours, contest.call(), question, table)
    if mine == theirs:
        return f"equal: {', '.join(sorted(mine))}"
    more, less = ", ".join(sorted(mine - theirs)), ", ".join(sorted(theirs - mine))
    both = ", ".join(sorted(mine & theirs))
    return f"NOT equal: only ours {more or '-'}; only by hand {less or '-'}; both {both or '-'}"
