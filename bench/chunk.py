"""pgstack.chunk against LangChain's splitters in Python, on the same text.

    python bench/chunk.py [-d URL] [--runs N]

Prints ours, LangChain's and the ratio for each case and writes bench/out/chunk.json.
Ours includes sending the text to the database and the chunks back; "in server" leaves
that out (the text already lies there, the chunks are only counted), which is what a
vectorizer's worker pays.  The chunks are compared first: both must be the same.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import platform
import random
import statistics
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psycopg
from langchain_text_splitters import CharacterTextSplitter, RecursiveCharacterTextSplitter

SEPARATORS = ["\n\n", "\n", ".", "?", "!", " ", ""]
OUT = Path(__file__).parent / "out" / "chunk.json"


def documents() -> dict[str, str]:
    """Return real text of some 0.7 MB, and made-up ones of 1 MB of characters."""
    from pydoc_data.topics import topics

    rng = random.Random(7)
    words = sorted({w for text in topics.values() for w in text.split()})
    prose = []
    length = 0
    while length < 1_000_000:
        sentence = " ".join(rng.choices(words, k=rng.randint(5, 25))) + ". "
        if rng.random() < 0.1:
            sentence += "\n\n" if rng.random() < 0.5 else "\n"
        prose.append(sentence)
        length += len(sentence)
    return {
        "pydoc topics": "\n\n".join(topics[name] for name in sorted(topics)),
        "1 MB prose": "".join(prose)[:1_000_000],
        "1 MB one line of words": " ".join(rng.choices(words, k=200_000))[:1_000_000].replace(
            "\n", " "
        ),
        "1 M Chinese characters": "".join(
            map(chr, rng.choices(range(0x4E00, 0x9FA5), k=1_000_000))
        ),
    }


def median_ms(run: Callable[[], object], runs: int) -> float:
    """Return the median time of ``run`` in milliseconds, after one try for warming up."""
    run()
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        run()
        times.append((time.perf_counter() - start) * 1000)
    return statistics.median(times)


def measure(conn: psycopg.Connection[Any], runs: int) -> list[dict[str, Any]]:
    """Run every case and return the rows of the result."""
    results = []
    conn.execute("create temporary table bench_text (name text primary key, body text)")
    for name, text in documents().items():
        conn.execute("insert into bench_text values (%s, %s)", (name, text))
        for method, size, overlap in (
            ("recursive", 800, 400),
            ("recursive", 200, 0),
            ("character", 800, 400),
        ):
            if method == "character" and "\n\n" not in text:
                continue
            splitter = (
                RecursiveCharacterTextSplitter(
                    separators=SEPARATORS, chunk_size=size, chunk_overlap=overlap
                )
                if method == "recursive"
                else CharacterTextSplitter(chunk_size=size, chunk_overlap=overlap)
            )

            def ours(text: str = text, arguments: tuple[Any, ...] = (method, size, overlap)) -> Any:
                return conn.execute(
                    "select chunk from pgstack.chunk(%s, %s, %s, %s)", (text, *arguments)
                ).fetchall()

            def in_server(name: str = name, arguments: Any = (method, size, overlap)) -> Any:
                return conn.execute(
                    "select count(c.chunk) from bench_text as t "
                    "cross join lateral pgstack.chunk(t.body, %s, %s, %s) as c where t.name = %s",
                    (*arguments, name),
                ).fetchone()

            same = [row[0] for row in ours()] == splitter.split_text(text)
            if not same:
                raise SystemExit(f"{name}, {method} {size}/{overlap}: the chunks differ")
            peer = median_ms(lambda s=splitter, t=text: s.split_text(t), runs)  # type: ignore[misc]
            for label, run in (("", ours), (", in server", in_server)):
                took = median_ms(run, runs)
                results.append(
                    {
                        "case": f"{name}, {method} {size}/{overlap}{label}",
                        "ours": round(took, 1),
                        "peer": round(peer, 1),
                        "ratio": round(took / peer, 2),
                        "unit": "ms",
                        "runs": runs,
                    }
                )
    return results


def main() -> None:
    """Measure, print a table, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("-d", "--database-url", default=os.environ.get("PGSTACK_DATABASE_URL"))
    parser.add_argument("--runs", type=int, default=5)
    arguments = parser.parse_args()
    if not arguments.database_url:
        parser.error("which database? -d URL, for example -d $(pgstack url)")
    logging.getLogger("langchain_text_splitters.base").setLevel(logging.ERROR)
    with psycopg.connect(arguments.database_url) as conn:
        results = measure(conn, arguments.runs)
        server = conn.info.server_version
        conn.rollback()
    print(f"{'case':58} {'ours ms':>9} {'peer ms':>9} {'ratio':>7}")
    for row in results:
        print(f"{row['case']:58} {row['ours']:9.1f} {row['peer']:9.1f} {row['ratio']:7.2f}")
    print(
        f"ours: pgstack.chunk, PostgreSQL {server // 10000}.{server % 10000}; "
        f"peer: langchain-text-splitters {version('langchain-text-splitters')}, "
        f"Python {platform.python_version()}; median of {arguments.runs}"
    )
    OUT.parent.mkdir(exist_ok=True)
    OUT.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
