"""pgstack.search(): how good, how fast, and beside what one would write by hand.

    make bench-search
    make bench-search ARGS="--case b --set scifact --set cacm"
    make bench-search ARGS="--case a --rows 10000 --runs 50"

a   against SQL written by hand with the same plan, on descriptions of Debian packages
    (bench/_speed.py, bench/_byhand.py)
b   nDCG@10 of text, vector and hybrid on judged sets (bench/_quality.py, bench/_judged.py)
c   latency and recall under filters, HNSW and DiskANN, 1 and 4 clients: Debian and GloVe
d   growth of cost from 10,000 to 500,000 rows (both: bench/_scale.py, bench/_corpora.py)

Where it is not said otherwise the peer of (c) is plain SQL over the view, with the settings of the
extensions as they come, and that of (d) the smallest table.  A busy machine spoils it: the load
is printed.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from collections.abc import Callable

from bench import _stack
from bench._goals import Results
from bench._judged import SETS
from bench._quality import case_b
from bench._scale import case_c, case_d
from bench._speed import case_a

_SIZES = (10_000, 50_000, 200_000, 500_000)


def main() -> None:
    """Measure, print the table and the verdicts, write bench/out/search.json."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--case", action="append", choices=tuple("abcd"), help="may be repeated")
    parser.add_argument("--set", action="append", choices=sorted(SETS), help="of (b); repeatable")
    parser.add_argument("--rows", type=int, default=500_000, help="the most of (a), (c) and (d)")
    parser.add_argument("--diskann-rows", type=int, default=20_000, help="of (c): it builds slowly")
    parser.add_argument("--runs", type=int, default=300, help="searches of (a), (c), (d) each")
    parser.add_argument("--questions", type=int, default=1000, help="the most of a set of (b)")
    parser.add_argument(
        "--fusions", action="store_true", help="of (b): the other ways to fuse, too"
    )
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # what runs is stopped then, too
    results = Results()
    sizes = [size for size in _SIZES if size < args.rows] + [min(args.rows, _SIZES[-1])]
    with _stack.database() as dsn:
        cases: dict[str, Callable[[], None]] = {
            "a": lambda: case_a(dsn, results, min(args.rows, 60_000), args.runs),
            "b": lambda: case_b(
                dsn, results, args.set or list(SETS), args.questions, fusions=args.fusions
            ),
            "c": lambda: case_c(dsn, results, args.rows, args.runs, args.diskann_rows),
            "d": lambda: case_d(dsn, results, sizes, args.runs),
        }
        for name in args.case or cases:
            began = time.perf_counter()
            cases[name]()
            took, load = time.perf_counter() - began, os.getloadavg()[0]
            results.note(f"({name}) measured in {took:.0f} s, load {load:.1f}")
    results.print("search", "peer", ["pgstack", "psycopg", "numpy"])


if __name__ == "__main__":
    main()
