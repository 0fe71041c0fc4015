"""pgstack.chunk against LangChain's splitters in Python, on the same text.

    make bench-chunk

Prints ours, LangChain's and the ratio for each case and writes bench/out/chunk.json.
Ours includes sending the text to the database and the chunks back; "in server" leaves
that out (the text already lies there, the chunks are only counted), which is what a
vectorizer's worker pays.  The chunks are compared first: both must be the same.
"""

from __future__ import annotations

import argparse
import logging
import random
from typing import Any

import psycopg
from langchain_text_splitters import CharacterTextSplitter, RecursiveCharacterTextSplitter

from bench import _stack
from bench._report import Case, median, report, times_ms
from pgstack.db import connect

SEPARATORS = ["\n\n", "\n", ".", "?", "!", " ", ""]


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


def measure(conn: psycopg.Connection[Any], runs: int) -> list[Case]:
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
            peer = median(times_ms(lambda _, s=splitter, t=text: s.split_text(t), runs))  # type: ignore[misc]
            for label, run in (("", ours), (", in server", in_server)):
                took = median(times_ms(lambda _, run=run: run(), runs))  # type: ignore[misc]
                case = f"{name}, {method} {size}/{overlap}{label}"
                results.append(Case(case, took, peer, "ms", runs))
    return results


def main() -> None:
    """Measure, print a table, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--runs", type=int, default=5)
    runs = parser.parse_args().runs
    logging.getLogger("langchain_text_splitters.base").setLevel(logging.ERROR)
    with _stack.database() as dsn, connect(dsn) as conn:
        results = measure(conn, runs)
        server = conn.info.server_version
        conn.rollback()
    report("chunk", "langchain", results, ["pgstack", "psycopg", "langchain-text-splitters"])
    print(f"PostgreSQL {server // 10000}.{server % 10000}; median of {runs}")


if __name__ == "__main__":
    main()
