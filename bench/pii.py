"""pgstack.detect_pii: precision and recall on a judged set, and how fast it is.

    make bench-pii

Prints for each type how many were found rightly, wrongly, and missed, and for each text MB/s of
the server's processor time, beside one pass of Python's re over the same text for the word
"xqj": what looking at every character costs at the least.  Writes bench/out/pii.json.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import re
import time
from pathlib import Path
from typing import Any

import psycopg

from bench import _pii_set, _stack
from bench._judged import DATA
from bench._report import Case, report
from pgstack.db import connect

_FILES = {
    "Debian's descriptions": "corpora/debian-packages/packages.jsonl.gz",
    "PostgreSQL's manual": "corpora/postgresql-doc-15/pages.jsonl.gz",
    "Wikipedia's films": "corpora/wikipedia-movies/movies.jsonl.gz",
}


def documents() -> dict[str, list[str]]:
    """Return texts by name: real ones where they are, and hostile ones of 100 kB."""
    texts = {}
    for name, file in _FILES.items():
        if (DATA / file).exists():
            with gzip.open(DATA / file, "rt", encoding="utf-8") as lines:
                texts[name] = [str(json.loads(line)["text"]).replace("\0", "") for line in lines]
        else:
            print(f"(no {DATA / file}: left out)")
    full = [sentence.text for sentence in _pii_set.sentences()]
    size = 100_000
    return texts | {
        "the judged set": full,
        "the judged set, one text": ["\n".join(full)],
        "100 kB of digits": ["7" * size],
        "100 kB of a@a@a": ["a@" * (size // 2)],
        "100 kB of a@a.a@a.a": ["a@a.a" * (size // 5)],
        "100 kB of 1.1.1.1.": ["1." * (size // 2)],
        "100 kB of :::": [":" * size],
        "100 kB of 1 1 1": ["1 " * (size // 2)],
        "100 kB of +1 +1": ["+1 " * (size // 3)],
        "100 kB of GB29 GB29": ["GB29 " * (size // 5)],
        "100 kB of 4111 1111": ["4111 1111 " * (size // 10)],
        "100 kB of tel 1234567": ["tel 1234567 " * (size // 12)],
    }


def processor_seconds(pid: int) -> float:
    """Return the processor time that a process has used, in seconds."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def quality(conn: psycopg.Connection[Any], seed: int, each: int, show: int) -> list[Case]:
    """Print precision and recall a type; return them as cases beside the ideal."""
    judged = _pii_set.sentences(seed, each)
    found = [
        conn.execute("select type, value from pgstack.detect_pii(%s)", (one.text,)).fetchall()
        for one in judged
    ]
    print(f"{'type':18} {'right':>6} {'wrong':>6} {'missed':>7} {'precision':>10} {'recall':>7}")
    cases = []
    for kind, got in _pii_set.score(judged, found).items():
        print(
            f"{kind:18} {got.right:6} {got.wrong:6} {got.missed:7}"
            f" {got.precision:10.3f} {got.recall:7.3f}"
        )
        cases.append(Case(f"{kind}, precision", got.precision, 1, "share", len(judged)))
        cases.append(Case(f"{kind}, recall", got.recall, 1, "share", len(judged)))
    faults = [(s, hits) for s, hits in zip(judged, found, strict=True) if list(s.holds) != hits]
    for sentence, hits in faults[:show]:
        print(f"  {sentence.kind}: {sentence.text!r}\n    wanted {sentence.holds}, found {hits}")
    return cases


def speed(conn: psycopg.Connection[Any]) -> list[Case]:
    """Return MB/s of the server's processor time, and of Python's re."""
    cases = []
    conn.execute("create temporary table bench_pii (name text, body text)")
    word = re.compile("xqj")
    for name, texts in documents().items():
        with conn.cursor().copy("copy bench_pii from stdin") as copy:
            for text in texts:
                copy.write_row((name, text))
        size = sum(len(text.encode()) for text in texts) / 1e6
        began = processor_seconds(conn.info.backend_pid)
        conn.execute(
            "select sum((select count(*) from pgstack.detect_pii(b.body))) from bench_pii as b"
            " where b.name = %s",
            (name,),
        ).fetchone()
        ours = processor_seconds(conn.info.backend_pid) - began
        began = time.process_time()
        for text in texts:
            word.search(text)
        peer = time.process_time() - began
        cases.append(Case(name, size / max(ours, 0.01), size / max(peer, 1e-6), "MB/s", 1))
    return cases


def main() -> None:
    """Measure, print tables, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--seed", type=int, default=5)
    parser.add_argument("--each", type=int, default=300, help="sentences a kind")
    parser.add_argument("--show", type=int, default=10, help="faults to print")
    options = parser.parse_args()
    with _stack.database() as dsn, connect(dsn) as conn:
        cases = quality(conn, options.seed, options.each, options.show) + speed(conn)
        conn.rollback()
    report("pii", "ideal, or re", cases, ["pgstack", "psycopg"])


if __name__ == "__main__":
    main()
