"""The sample documents, normal and hostile, each read by itself: time, memory, outcome.

Part of bench-ingest.  Each file is read by an :class:`~pgstack.extract.Extractor` that has read a
small one before, so that the start of the process (shown once) is not counted, and the peak of its
memory is that of the file.  OCR is on where Tesseract's data is.

The peer is kreuzberg called as a library, without limits and without OCR, on the normal documents
that it reads; text files, HTML and feeds are read by our own code.

Run alone: ``python -m bench._documents``.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from bench._report import Case
from pgstack.extract import Extractor, Options, Unreadable, ocr
from pgstack.extract.extractor import status_bytes

DATA = (
    Path(os.environ.get("PGSTACK_DATA_DIR", Path(__file__).parents[2] / "shared" / "data"))
    / "documents"
)

_PEER = """
import json, sys, time, kreuzberg
config = kreuzberg.ExtractionConfig(use_cache=False, pages=kreuzberg.PageConfig(extract_pages=True))
config.disable_ocr = True
kreuzberg.extract_file_sync(sys.argv[1], config=config)
seconds = {}
for path in sys.argv[2:]:
    began = time.perf_counter()
    try:
        kreuzberg.extract_file_sync(path, config=config)
    except kreuzberg.KreuzbergError:
        pass
    seconds[path] = time.perf_counter() - began
print(json.dumps(seconds))
"""


@dataclass(frozen=True)
class Outcome:
    """One file: what came of it, seconds, the helper's peak memory in bytes, text and parts."""

    file: str
    outcome: str
    seconds: float
    peak_bytes: int
    characters: int
    pages: int
    parts: int


def measure(options: Options, *, limit: int | None = None) -> list[Outcome]:
    """Read every document, or the first ``limit``, each with a helper of its own."""
    return [_one(path, options) for path in sorted(DATA.glob("*/*"))[:limit]]


def _one(path: Path, options: Options) -> Outcome:
    with Extractor(options) as extractor:
        extractor.extract_bytes(b"first", name="first.txt")
        helper = extractor._helper
        pid = helper.process.pid if helper is not None else 0
        began = time.perf_counter()
        outcome, characters, pages, parts = "text", 0, 0, 0
        try:
            document = extractor.extract(path)
            characters, parts = len(document.text), len(document.parts)
            pages = max((part.page or 0 for part in document.parts), default=0)
            if document.warnings:
                outcome = f"text, {document.warnings[0]}"
        except Unreadable as exc:
            outcome = f"refused: {exc}"
        seconds = time.perf_counter() - began
        name = f"{path.parent.name}/{path.name}"
        peak = status_bytes(pid, "VmHWM")
    return Outcome(name, outcome, seconds, peak, characters, pages, parts)


def start_seconds() -> float:
    """Return how long a helper takes to start."""
    began = time.perf_counter()
    with Extractor() as extractor:
        extractor.extract_bytes(b"first", name="first.txt")
        return time.perf_counter() - began


def table(outcomes: list[Outcome]) -> None:
    """Print what :func:`measure` found."""
    print(f"{'file':46} {'s':>6} {'MB':>5} {'chars':>8} {'pages':>5} {'parts':>5} outcome")
    for each in outcomes:
        print(
            f"{each.file[:46]:46} {each.seconds:6.2f} {each.peak_bytes / 1e6:5.0f}"
            f" {each.characters:8} {each.pages or '':>5} {each.parts or '':>5} {each.outcome[:80]}"
        )


def cases() -> list[Case]:
    """Read all documents, print the table, return what can be compared."""
    if not DATA.is_dir():
        print(f"no sample documents in {DATA}; set PGSTACK_DATA_DIR")
        return []
    outcomes = measure(Options())
    table(outcomes)
    read = sum(each.outcome.startswith("text") for each in outcomes)
    largest = max(each.peak_bytes for each in outcomes)
    problem = ocr.missing(Options().ocr)
    print(
        f"{len(outcomes)} files, {read} gave text; largest process {largest / 1e6:.0f} MB; "
        f"start of a process {start_seconds():.2f} s; OCR: {problem or 'on'}"
    )
    return [_beside_kreuzberg()]


def _beside_kreuzberg() -> Case:
    """Compare reading what kreuzberg reads for us, OCR off."""
    endings = {".pdf", ".docx", ".pptx", ".xlsx", ".odt", ".rtf", ".epub", ".eml", ".msg", ".ipynb"}
    paths = [path for path in sorted((DATA / "normal").iterdir()) if path.suffix in endings]
    run = subprocess.run(
        [sys.executable, "-c", _PEER, *map(str, [paths[0], *paths])],
        check=True,
        capture_output=True,
        text=True,
    )
    peer = sum(json.loads(run.stdout).values())
    with Extractor(Options(ocr="")) as extractor:
        extractor.extract(paths[0])
        began = time.perf_counter()
        for path in paths:
            try:
                extractor.extract(path)
            except Unreadable:
                continue  # scans: OCR is off
        ours = time.perf_counter() - began
    name = f"{len(paths)} documents, confined and mapped; peer: kreuzberg in process"
    return Case(name, round(ours, 3), round(peer, 3), "s", 1)


if __name__ == "__main__":
    for case in cases():
        print(f"{case.case}: {case.ours} {case.unit}, peer {case.peer}, ratio {case.ratio:.2f}")
