"""pgstack.near_duplicates() against datasketch's MinHash LSH, on the same texts.

    make bench-duplicates ARGS="--rows 20000"

Wants datasketch (pip install datasketch), which nothing else here needs.  Texts are
Debian's descriptions and films of Wikipedia, every twentieth of them once more with
1 to 30 % of its words replaced, by a seed.  Seconds are processor time: of the database
session, and of Python.  Recall counts those planted pairs that are alike by 0.8 or more,
told by comparing them in Python.  Peer: 128 permutations, candidates compared in full, as
ours are.
"""

from __future__ import annotations

import argparse
import gzip
import importlib
import importlib.util
import json
import os
import random
import time
from pathlib import Path
from typing import Any

from bench import _stack
from bench._report import Case, report
from pgstack.db import Connection, connect

THRESHOLD = 0.8
DATA = Path(os.environ.get("PGSTACK_DATA_DIR", Path(__file__).parents[2] / "shared" / "data"))
CORPORA = {
    "debian": "corpora/debian-packages/packages.jsonl.gz",
    "movies": "corpora/wikipedia-movies/movies.jsonl.gz",
}


def shingles(text: str) -> frozenset[str]:
    """Return the runs of three words of a text."""
    found = text.split()
    return frozenset(" ".join(found[i : i + 3]) for i in range(max(1, len(found) - 2)))


def alike(a: frozenset[str], b: frozenset[str]) -> float:
    """Return what two sets share of all they have."""
    return len(a & b) / len(a | b)


def planted(texts: list[str], dice: random.Random) -> tuple[list[str], list[tuple[int, int]]]:
    """Return the texts with edited copies behind them, and the pairs."""
    pairs = []
    copies: list[str] = []
    vocabulary = sorted({w for text in texts[:500] for w in text.split()})
    for place in range(0, len(texts), 20):
        parts = texts[place].split()
        share = dice.choice((0.01, 0.02, 0.05, 0.1, 0.2, 0.3))
        for at in dice.sample(range(len(parts)), max(1, round(share * len(parts)))):
            parts[at] = dice.choice(vocabulary)
        pairs.append((place, len(texts) + len(copies)))
        copies.append(" ".join(parts))
    return texts + copies, pairs


def ours(conn: Connection, texts: list[str]) -> tuple[float, set[tuple[int, int]]]:
    """Return processor seconds of the session, and the pairs found."""
    conn.execute("drop table if exists page")
    conn.execute("create table page (id int primary key, body text)")
    with conn.cursor().copy("copy page from stdin") as copy:
        for row in enumerate(texts):
            copy.write_row(row)
    conn.execute("analyze page")
    # Parallel workers would not be counted.
    conn.execute("set max_parallel_workers_per_gather = 0")
    statistics = Path(f"/proc/{conn.info.backend_pid}/stat")

    def seconds() -> float:
        fields = statistics.read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    began = seconds()
    found = conn.execute(
        "select id, other from pgstack.near_duplicates('page', 'body', %s)", (THRESHOLD,)
    ).fetchall()
    return seconds() - began, {(one["id"], other["id"]) for one, other in found}


def theirs(texts: list[str]) -> tuple[float, set[tuple[int, int]]]:
    """Return processor seconds, and the pairs found."""
    datasketch: Any = importlib.import_module("datasketch")
    began = time.process_time()
    index = datasketch.MinHashLSH(threshold=THRESHOLD, num_perm=128)
    first: dict[str, int] = {}
    sets: dict[int, frozenset[str]] = {}
    found = set()
    for place, text in enumerate(texts):
        plain = " ".join(text.split())
        if plain in first:
            found.add((first[plain], place))
            continue
        first[plain] = place
        sets[place] = shingles(text)
        sketch = datasketch.MinHash(num_perm=128)
        sketch.update_batch([s.encode() for s in sets[place]])
        for other in index.query(sketch):
            if alike(sets[other], sets[place]) >= THRESHOLD:
                found.add((other, place))
        index.insert(place, sketch)
    return time.process_time() - began, found


def main() -> None:
    """Compare both on both corpora."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000, help="texts of each corpus")
    options = parser.parse_args()
    if importlib.util.find_spec("datasketch") is None:
        print("left out: pip install datasketch")
        return
    cases = []
    with _stack.database() as url, connect(url, autocommit=True) as conn:
        for name, path in CORPORA.items():
            lines = gzip.decompress((DATA / path).read_bytes()).splitlines()
            texts = [json.loads(line)["text"].replace("\0", "") for line in lines[: options.rows]]
            # Both get plain words, each once: what a word is, is not what is measured.
            plain = conn.execute(
                "select distinct _pgstack.plain_words(t) from unnest(%s::text[]) as t order by 1",
                (texts,),
            )
            texts = [row[0] for row in plain if len(row[0].split()) > 5]
            texts, pairs = planted(texts, random.Random(11))
            wanted = {
                (a, b)
                for a, b in pairs
                if alike(shingles(texts[a]), shingles(texts[b])) >= THRESHOLD
            }
            (our_time, our_pairs), (their_time, their_pairs) = ours(conn, texts), theirs(texts)
            size = f"{name}, {len(texts):,} texts"
            cases += [
                Case(f"{size}: processor time", our_time, their_time, "s", 1),
                Case(
                    f"{size}: recall of {len(wanted):,} planted pairs",
                    100 * len(wanted & our_pairs) / len(wanted),
                    100 * len(wanted & their_pairs) / len(wanted),
                    "%",
                    1,
                ),
                Case(f"{size}: pairs", len(our_pairs), len(their_pairs), "pairs", 1),
            ]
    report("duplicates", "datasketch", cases, ["pgstack", "datasketch"])


if __name__ == "__main__":
    main()
