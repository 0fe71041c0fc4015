"""pgstack.chunk against LangChain's splitters in Python, on the same text.

    make bench-chunk                                          a quarter of an hour
    make bench-chunk ARGS="--texts 1000 --case methods"       a part of it

times    ours, LangChain's and the ratio, written to bench/out/chunk.json.  Ours includes sending
         the text to the database and the chunks back; "in server" leaves that out (the text
         already lies there, the chunks are only counted), which is what a vectorizer's worker pays.
methods  MB of UTF-8 a second of CPU in the server for every method, LangChain's where it has it.
equal    every text in $PGSTACK_DATA_DIR, cut by both: how many texts are equal, and how many chunks
         lie in the text where start_char and end_char say.
tokens   pgstack.estimate_tokens() beside two tokenizers.
"""

from __future__ import annotations

import argparse
import logging
import random
import time
import warnings
from pathlib import Path
from typing import Any

import psycopg
from langchain_text_splitters import CharacterTextSplitter, RecursiveCharacterTextSplitter

from bench import _chunk_equal, _chunk_tokens, _stack
from bench._judged import DATA
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


def _cpu_seconds(pid: int) -> float:
    """Return the CPU seconds that a process of this machine has used."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9


def methods(conn: psycopg.Connection[Any]) -> None:
    """Print how fast every method is on real text and on text that is hard to cut."""
    texts = {name: [text] for name, text in documents().items()}
    if DATA.is_dir():
        for name, found in _chunk_equal.corpora(DATA):
            if "postgresql-doc" in name or "packages.jsonl" in name:
                texts[name] = list(found)[:10_000]
        novel = DATA / "documents/normal/book-war-and-peace-1225p.txt"
        texts["War and Peace"] = [novel.read_text(encoding="utf-8-sig")]
    arguments: dict[str, tuple[Any, ...]] = {
        "recursive": (800, 400),
        "character": (800, 400),
        "sentence": (800, 400),
        "markdown": (800, 400),
        "page": (800, 400),
        "token": (200, 100),
        "none": (800, 400),
    }
    print(f"\n{'MB/s of CPU':36}", *(f"{name:>10}" for name in arguments), "  LangChain: rec, char")
    for name, bodies in texts.items():
        size = sum(len(body.encode()) for body in bodies) / 1e6
        conn.execute("create temporary table bench_body (body text)")
        conn.execute("insert into bench_body select unnest(%s::text[])", (bodies,))
        cells = []
        for method, (chunk_size, overlap) in arguments.items():
            took = []
            for _ in range(2):
                began = _cpu_seconds(conn.info.backend_pid)
                conn.execute(
                    "select count(c.chunk) from bench_body as t "
                    "cross join lateral pgstack.chunk(t.body, %s, %s, %s) as c",
                    (method, chunk_size, overlap),
                ).fetchone()
                took.append(_cpu_seconds(conn.info.backend_pid) - began)
            cells.append(size / min(took))
        for splitter in (
            RecursiveCharacterTextSplitter(
                separators=SEPARATORS, chunk_size=800, chunk_overlap=400
            ),
            CharacterTextSplitter(chunk_size=800, chunk_overlap=400),
        ):
            began = time.process_time()
            for body in bodies:
                splitter.split_text(body)
            cells.append(size / (time.process_time() - began))
        conn.execute("drop table bench_body")
        print(f"{name:36}", *(f"{cell:10.1f}" for cell in cells))


def equal(conn: psycopg.Connection[Any], texts: int | None) -> None:
    """Compare the chunks of every text; ``texts``: at most so many of each corpus."""
    columns = ("texts", "equal", "chunks", "exact", "joined")
    print(f"\n{'equal to LangChain':36}", *(f"{column:>9}" for column in columns))
    total = _chunk_equal.Tally()
    for nr, (name, found) in enumerate(_chunk_equal.corpora(DATA)):
        tally = _chunk_equal.compare(conn, found, most=texts, first=7 * nr)
        counts = [getattr(tally, column) for column in columns]
        print(f"{name:36}", *(f"{count:9}" for count in counts), flush=True)
        for column, count in zip(columns, counts, strict=True):
            setattr(total, column, getattr(total, column) + count)
        for text, setting in tally.different + tally.misplaced:
            print(f"  DIFFERENT {setting} {text[:80]!r}")
    print(f"{'all':36}", *(f"{getattr(total, column):9}" for column in columns))


def main() -> None:
    """Measure, print tables, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--texts", type=int, help="compare at most so many texts of each corpus")
    parser.add_argument(
        "--case", choices=["times", "methods", "equal", "tokens"], action="append", dest="cases"
    )
    options = parser.parse_args()
    cases = options.cases or ["times", "methods", "equal", "tokens"]
    logging.getLogger("langchain_text_splitters.base").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", "Possible (nested set|set difference)", FutureWarning)
    if not DATA.is_dir() and {"equal", "tokens"} & set(cases):
        print(f"equal and tokens skipped: no texts in {DATA} ($PGSTACK_DATA_DIR)")
        cases = [case for case in cases if case not in {"equal", "tokens"}]
    with _stack.database() as dsn, connect(dsn) as conn:
        server = conn.info.server_version
        if "times" in cases:
            results = measure(conn, options.runs)
            packages = ["pgstack", "psycopg", "langchain-text-splitters"]
            report("chunk", "langchain", results, packages)
            print(f"PostgreSQL {server // 10000}.{server % 10000}; median of {options.runs}")
        if "methods" in cases:
            methods(conn)
        if "equal" in cases:
            equal(conn, options.texts)
        if "tokens" in cases:
            _chunk_tokens.report(conn, DATA)
        conn.rollback()


if __name__ == "__main__":
    main()
