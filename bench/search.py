"""pgstack.search(): how good, how fast, and beside what one would write by hand.

    make bench-search
    make bench-search ARGS="--case b --set scifact --set cacm"
    make bench-search ARGS="--case a --rows 10000 --runs 50"

a   against SQL written by hand over the view and the tables, with the same plan, on descriptions
    of Debian packages: bench/_speed.py
b   nDCG@10 of text, vector and hybrid on judged sets: bench/_quality.py
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
from bench._speed import case_a


def main() -> None:
    """Measure, print the table and the verdicts, write bench/out/search.json."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--case", action="append", choices=("a", "b", "c", "d"))
    parser.add_argument(
        "--runs", type=int, default=300, help="of (a), questions; default %(default)s"
    )
    parser.add_argument("--rows", type=int, default=60_000, help="of (a), default %(default)s")
    parser.add_argument("--set", action="append", choices=sorted(SETS), help="of (b); repeatable")
    parser.add_argument("--questions", type=int, default=1000, help="of (b), the most of a set")
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # what runs is stopped then, too
    results = Results()
    with _stack.database() as dsn:
        cases: dict[str, Callable[[], None]] = {
            "a": lambda: case_a(dsn, results, args.rows, args.runs),
            "b": lambda: case_b(dsn, results, args.set or list(SETS), args.questions),
        }
        for name in args.case or cases:
            began = time.perf_counter()
            cases[name]()
            took, load = time.perf_counter() - began, os.getloadavg()[0]
            print(f"({name}) measured in {took:.0f} s, load {load:.1f}", flush=True)
    results.print("search", "peer", ["pgstack", "psycopg", "numpy"])


if __name__ == "__main__":
    main()
