"""Files into the database, end to end: what each stage takes, beside a script without pgstack.

    make bench-ingest
    make bench-ingest ARGS="--case pages --runs 1"

documents  40 ordinary and 21 hostile files, each by itself: time, memory, outcome
pages      1,169 pages of PostgreSQL's manual, as files: read, cut, embed
debian     60,000 descriptions of Debian packages, as files: the same
real       pages of the manual with the real all-minilm: how much of the whole is cutting
chunk      pgstack.chunk against LangChain: bench/chunk.py

In pages and debian the model answers at once, so that what is measured is not the model.  The peer
is bench/_script.py: one process that reads, cuts with LangChain, embeds and copies.  Ours is
`pgstack ingest` and then `pgstack worker --once`, each with its start; cutting is part of the
worker's work and is also measured by itself, in the server.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from bench import _documents, _process, _stack, _texts, chunk
from bench._judged import DATA
from bench._report import Case, report
from pgstack.db import Connection, connect
from pgstack.embedded.modelserver import start, start_deterministic

PEER = "script"
REAL_PAGES = 40
DEBIAN = 60_000
EQUAL_TEXTS = 1000  # of each corpus; bench/chunk.py takes all
_PACKAGES = DATA / "corpora/debian-packages/packages.jsonl.gz"
_MODELS = Path(os.environ.get("PGSTACK_TEST_MODELS", Path(__file__).parents[1] / ".cache/models"))


@dataclass
class Bench:
    """What was found so far."""

    runs: int
    cases: list[Case] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Side:
    """Seconds of one run; ``embed`` is what comes after reading, cutting included."""

    read: float
    chunk: float
    embed: float
    chunks: int

    @property
    def total(self) -> float:
        """From the first file to the last vector."""
        return self.read + self.embed


# --- the two sides --------------------------------------------------------------------------


def ours(stack: _stack.Stack, folder: Path) -> Side:
    """Run `pgstack ingest`, then `pgstack worker --once`, into a new collection."""
    with connect(stack.dsn, autocommit=True) as conn:
        conn.execute("select pgstack.create_collection('bench', dimensions => 384)")
    read = _pgstack(stack, "ingest", str(folder), "--collection", "bench", "--json")
    embed = _pgstack(stack, "worker", "--once")
    with connect(stack.dsn, autocommit=True) as conn:
        seconds, chunks = _chunking(conn)
    return Side(read, seconds, embed, chunks)


def forget(stack: _stack.Stack) -> None:
    """Drop what :func:`ours` made."""
    with connect(stack.dsn, autocommit=True) as conn:
        conn.execute("select pgstack.drop_collection('bench')")


def script(stack: _stack.Stack, folder: Path) -> Side:
    """Run bench/_script.py on the same files."""
    said = _run([sys.executable, "-m", "bench._script", str(folder), stack.dsn, stack.models_url])
    took = json.loads(said.output.splitlines()[-1])
    return Side(took["read"], took["chunk"], took["chunk"] + took["embed"], took["chunks"])


def _pgstack(stack: _stack.Stack, *arguments: str) -> float:
    env = {"OLLAMA_HOST": stack.models_url, "PGSTACK_DATABASE_URL": stack.dsn}
    return _run([sys.executable, "-m", "pgstack_cli", *arguments], env).seconds


def _run(command: list[str], env: dict[str, str] | None = None) -> _process.Usage:
    used = _process.run(command, env or {})
    if used.exit_code:
        raise SystemExit(f"{' '.join(command)} failed:\n{used.output}")
    return used


def _chunking(conn: Connection) -> tuple[float, int]:
    """Return the seconds that cutting every document takes in the server, and the chunks."""
    took = []
    chunks = 0
    for _ in range(3):
        began = time.perf_counter()
        ((chunks,),) = conn.execute(
            "select count(c.chunk) from pgstack_collections.bench as d "
            "cross join lateral pgstack.chunk(d.content) as c"
        ).fetchall()
        took.append(time.perf_counter() - began)
    return statistics.median(took), chunks


# --- cases ----------------------------------------------------------------------------------


def documents(bench: Bench) -> None:
    """Each file by itself, in the process that reads foreign files."""
    bench.cases += _documents.cases()


def pages(bench: Bench) -> None:
    """Every page of the manual."""
    _end_to_end(bench, "pages", _texts.documents(10_000))


def debian(bench: Bench) -> None:
    """Many short documents."""
    with gzip.open(_PACKAGES, "rt", encoding="utf-8") as lines:
        packages = [json.loads(line) for line in lines][:DEBIAN]
    _end_to_end(bench, "debian", [f"{each['title']}\n{each['text']}" for each in packages])


def _end_to_end(bench: Bench, name: str, texts: list[str]) -> None:
    megabytes = sum(len(text.encode()) for text in texts) / 1e6
    both: list[tuple[Side, Side]] = []
    with (
        _stack.database() as dsn,
        start_deterministic() as url,
        tempfile.TemporaryDirectory() as home,
    ):
        stack, folder = _stack.Stack(dsn, url), Path(home)
        _write(folder, texts)
        for _ in range(bench.runs):
            if both:
                forget(stack)
            both.append((ours(stack, folder), script(stack, folder)))
        again = _pgstack(stack, "ingest", str(folder), "--collection", "bench", "--json")
    mine, peers = (_medians(each) for each in zip(*both, strict=True))
    if mine.chunks != peers.chunks:
        bench.notes.append(f"({name}) {mine.chunks} chunks, the script's {peers.chunks}")
    for stage, amount, unit in (
        ("read", len(texts), "documents/s"),
        ("read", megabytes, "MB/s"),
        ("chunk", megabytes, "MB/s"),
        ("chunk", mine.chunks, "chunks/s"),
        ("embed", mine.chunks, "chunks/s"),
        ("total", len(texts), "documents/s"),
        ("total", megabytes, "MB/s"),
    ):
        speeds = (round(amount / getattr(side, stage), 3) for side in (mine, peers))
        bench.cases.append(Case(f"{name}, {stage}", *speeds, unit, bench.runs))
    bench.notes.append(
        f"({name}) {len(texts)} documents, {megabytes:.1f} MB, {mine.chunks} chunks; "
        f"the same command again, nothing changed: {again:.1f} s ({again / mine.read:.0%})"
    )


def _write(folder: Path, texts: list[str]) -> None:
    for number, text in enumerate(texts):
        path = folder / f"{number // 1000:03}" / f"{number:06}.txt"
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")


def _medians(sides: tuple[Side, ...]) -> Side:
    return Side(
        statistics.median(side.read for side in sides),
        statistics.median(side.chunk for side in sides),
        statistics.median(side.embed for side in sides),
        sides[0].chunks,
    )


def real(bench: Bench) -> None:
    """Cutting beside real embeddings."""
    if not (_MODELS / "all-minilm").exists():
        bench.notes.append(f"(real) left out: no all-minilm in {_MODELS}; make setup-dev")
        return
    texts = _texts.documents(10_000)[::29][:REAL_PAGES]
    with (
        _stack.database() as dsn,
        start([f"--models-dir={_MODELS}"]) as url,
        tempfile.TemporaryDirectory() as home,
    ):
        _write(Path(home), texts)
        side = ours(_stack.Stack(dsn, url), Path(home))
    share = side.chunk / side.total
    bench.notes.append(
        f"(real) {len(texts)} pages, {side.chunks} chunks, {side.total:.1f} s; cutting is "
        f"{share:.2%} of that: {'reached' if share < 0.05 else 'NOT reached'} (under 5 %)"
    )


def cut(bench: Bench) -> None:
    """pgstack.chunk and LangChain."""
    with _stack.database() as dsn, connect(dsn) as conn:
        bench.cases += chunk.measure(conn, bench.runs)
        chunk.equal(conn, EQUAL_TEXTS)


CASES: dict[str, Callable[[Bench], None]] = {
    "documents": documents,
    "pages": pages,
    "debian": debian,
    "real": real,
    "chunk": cut,
}


def main() -> None:
    """Measure, print the table, write bench/out/ingest.json."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--case", action="append", choices=list(CASES), help="may be repeated")
    args = parser.parse_args()
    bench = Bench(args.runs)
    for name in args.case or CASES:
        began = time.perf_counter()
        CASES[name](bench)
        took, load = time.perf_counter() - began, os.getloadavg()[0]
        print(f"({name}) measured in {took:.0f} s, load {load:.1f}", flush=True)
    report("ingest", PEER, bench.cases, ["pgstack", "psycopg", "kreuzberg"])
    print(*bench.notes, sep="\n")


if __name__ == "__main__":
    main()
