"""What vector indexes cost, measured, beside what pgstack.index_advice() foretold.

    make bench-index                                  # 10,000 vectors of 384 dimensions: 2 minutes
    make bench-index ARGS="--rows 40000 --dimensions 384 1024 --alone"

Builds each kind of index over vectors in 200 clusters, as the worker does, and prints size, time,
the median of a search and its recall for growing effort.  --alone: one process builds, as when the
constants of _pgstack.index_cost() were found.  The peer of the JSON file is the forecast, made
before anything was built here; "afterwards" is the forecast once the builds are known.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import psycopg

from bench import _stack
from bench._report import Case, report
from pgstack import indexes
from pgstack.db import connect
from pgstack.indexes import Advice, Build, Recall

Conn = psycopg.Connection[Any]

CLUSTERS = 200
INNER = 32  # dimensions in which the vectors of a cluster mostly differ


@dataclass(frozen=True)
class Measured:
    """One index: what was foretold, how it was built, what it finds."""

    rows: int
    dimensions: int
    foretold: Advice
    built: Build
    found: list[Recall]

    @property
    def name(self) -> str:
        """Return what the index is, in words."""
        return f"{self.rows:,} x {self.dimensions} {self.built.method} {self.built.storage}"


def vectors(rows: int, dimensions: int) -> Iterator[str]:
    """Yield clustered vectors of length 1, as text."""
    random = np.random.default_rng(dimensions)
    centres = 0.8 * random.standard_normal((CLUSTERS, dimensions))
    basis = random.standard_normal((INNER, dimensions)) / np.sqrt(INNER)
    for _ in range(0, rows, 1000):
        made = centres[random.integers(0, CLUSTERS, 1000)]
        made = made + random.standard_normal((1000, INNER)) @ basis
        made = made + 0.3 * random.standard_normal((1000, dimensions))
        for vector in made / np.linalg.norm(made, axis=1, keepdims=True):
            yield "[" + ",".join(f"{x:.5f}" for x in vector) + "]"


def fill(conn: Conn, rows: int, dimensions: int) -> str:
    """Make a vectorizer with so many chunks; return its name."""
    name = f"v{rows}_{dimensions}"
    conn.execute(f"create table {name} (id int primary key, body text)".encode())
    conn.execute(
        "select pgstack.create_vectorizer(%s::regclass, array['body']::name[], dimensions => %s)",
        (name, dimensions),
    )
    copy = f"copy {name}_embedding_store (id, chunk_seq, chunk, embedding) from stdin"
    with conn.cursor().copy(copy.encode()) as rows_in:
        for number, vector in zip(range(rows), vectors(rows, dimensions), strict=False):
            rows_in.write_row((number, 0, "", vector))
    conn.execute(f"vacuum analyze {name}_embedding_store".encode())
    return name


def build(conn: Conn, name: str, wanted: Advice) -> Build:
    """Build an index as the worker does; return how that went."""
    number = indexes.build(conn, name, method=wanted.method, storage=wanted.storage)
    while due := conn.execute("select statement from _pgstack.index_due()").fetchone():
        conn.execute(due[0])
    [built] = [b for b in indexes.builds(conn, name) if b.build == number]
    if built.state != "done":
        raise SystemExit(f"{name}: {built.state}, {built.error}")
    return built


def seconds(conn: Conn, built: Build) -> float:
    """Return how long a build took."""
    row = conn.execute(
        "select seconds from _pgstack.index_build where id = %s", (built.build,)
    ).fetchone()
    return float(row[0]) if row else 0.0


def measure(conn: Conn, rows: int, dimensions: int, sample: int) -> list[Measured]:
    """Build every possible index over so many vectors."""
    name = fill(conn, rows, dimensions)
    # Of all kinds, before the first is built.
    advised = [a for a in indexes.advice(conn, name) if a.statement and a.method != "none"]
    done = []
    for wanted in advised:
        built = build(conn, name, wanted)
        found = indexes.recall(conn, name, sample=sample)
        done.append(Measured(rows, dimensions, wanted, built, found))
    return done


def show(conn: Conn, measured: Measured) -> list[Case]:
    """Print one index; return its size, time and search beside the forecast."""
    foretold, built = measured.foretold, measured.built
    took = seconds(conn, built)
    [again] = [
        a.expected_time.total_seconds()
        for a in indexes.advice(conn, built.vectorizer)
        if a.expected_time and (a.method, a.storage) == (built.method, built.storage)
    ]
    chosen = next((r for r in measured.found if r.chosen), measured.found[-1])
    print(f"\n{measured.name}: built in {took:.1f} s (afterwards {again:.1f} s foretold)")
    for r in measured.found:
        mark = " <- chosen" if r.chosen else ""
        print(
            f"  effort {r.effort:4}  recall {r.recall:.3f}  worst 5 % {r.recall_p5:.2f}"
            f"  p50 {r.p50_ms:7.2f} ms  p95 {r.p95_ms:7.2f} ms  exact {r.exact_ms:7.1f} ms{mark}"
        )
    foretold_seconds = foretold.expected_time.total_seconds() if foretold.expected_time else 0.0
    megabyte = 1e6
    return [
        Case(
            f"{measured.name}, size",
            (built.bytes or 0) / megabyte,
            (foretold.expected_bytes or 0) / megabyte,
            "MB",
            1,
        ),
        Case(f"{measured.name}, build", took, foretold_seconds, "s", 1),
        Case(
            f"{measured.name}, search",
            chosen.p50_ms,
            foretold.expected_ms or 0.0,
            "ms",
            chosen.sampled,
        ),
    ]


def main() -> None:
    """Measure, print tables, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000])
    parser.add_argument("--dimensions", type=int, nargs="+", default=[384])
    parser.add_argument("--sample", type=int, default=100)
    parser.add_argument("--alone", action="store_true")
    given = parser.parse_args()
    began = time.monotonic()
    with _stack.database() as dsn, connect(dsn, autocommit=True) as conn:
        conn.execute("set client_min_messages = warning")
        if given.alone:
            conn.execute("set max_parallel_maintenance_workers = 0")
        measured = [
            one
            for dimensions in given.dimensions
            for rows in given.rows
            for one in measure(conn, rows, dimensions, given.sample)
        ]
        cases = [case for one in measured for case in show(conn, one)]
        extensions = conn.execute(
            "select string_agg(extname || ' ' || extversion, ', ' order by extname) "
            "from pg_extension where extname in ('vector', 'vectorscale')"
        ).fetchone()
    print()
    report("index", "foretold", cases, ["pgstack"])
    print(f"{extensions[0] if extensions else ''}; {time.monotonic() - began:.0f} s in all")


if __name__ == "__main__":
    main()
