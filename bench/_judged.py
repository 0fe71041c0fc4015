"""Judged sets for bench/search.py: texts, questions, which text answers which, and vectors.

The sets are in $PGSTACK_DATA_DIR/retrieval (BEIR's layout).  Vectors are all-minilm's, of whole
documents, title first: scifact brings its own, the others are computed once, ten minutes on two
cores, and kept in .cache/bench-search.

nDCG@k is trec_eval's: gains as judged, divided by log2(rank + 1).
"""

from __future__ import annotations

import json
import math
import os
import random
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bench._tables import Vectors

ROOT = Path(__file__).resolve().parents[1]
DATA = Path(os.environ.get("PGSTACK_DATA_DIR", ROOT / "../shared/data"))
CACHE = ROOT / ".cache/bench-search"
_MODELS = Path(os.environ.get("PGSTACK_TEST_MODELS", ROOT / ".cache/models"))


@dataclass(frozen=True)
class Baseline:
    """What was measured before on these files: ../shared/data/README.md."""

    bm25: float | None
    vector: float | None


SETS: Mapping[str, Baseline] = {
    "scifact": Baseline(0.676, 0.645),
    "cranfield": Baseline(0.366, 0.400),
    "cacm": Baseline(0.498, 0.459),
    "cosqa-dev": Baseline(0.316, None),
    "squad2-dev-half": Baseline(0.886, 0.803),
    "xquad-4lang": Baseline(None, None),
}


@dataclass(frozen=True)
class Judged:
    """One set.  ``relevant``: of each judged question, the gain of each document."""

    name: str
    ids: list[str]
    texts: list[str]
    vectors: Vectors
    questions: dict[str, str]
    question_vectors: dict[str, Vectors]
    relevant: dict[str, dict[str, int]]


def load(name: str, most: int) -> Judged:
    """Read a set, and its vectors or compute them; of its questions ``most``, at random."""
    folder = DATA / "retrieval" / name
    documents = _lines(folder / "corpus.jsonl")
    ids = [str(each["_id"]) for each in documents]
    texts = [f"{each['title']} {each['text']}".strip() for each in documents]
    relevant = _judgements(folder / "qrels.tsv")
    questions = {
        str(each["_id"]): str(each["text"])
        for each in _lines(folder / "queries.jsonl")
        if each["_id"] in relevant
    }
    vectors, of_questions = _vectors(name, ids, texts, questions)
    if len(questions) > most:
        asked = set(random.Random(7).sample(sorted(questions), most))
        questions = {question: text for question, text in questions.items() if question in asked}
    return Judged(name, ids, texts, vectors, questions, of_questions, relevant)


def _lines(path: Path) -> list[dict[str, object]]:
    with path.open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def _judgements(path: Path) -> dict[str, dict[str, int]]:
    """Return the gains of each question that has a relevant document."""
    gains: dict[str, dict[str, int]] = defaultdict(dict)
    for line in path.read_text(encoding="utf-8").splitlines()[1:]:
        question, document, gain = line.split("\t")
        if int(gain) > 0:
            gains[question][document] = int(gain)
    return dict(gains)


def _vectors(
    name: str, ids: Sequence[str], texts: Sequence[str], questions: Mapping[str, str]
) -> tuple[Vectors, dict[str, Vectors]]:
    given = DATA / "retrieval" / name / "minilm-fp16.npz"
    if not given.exists():
        vectors = kept_vectors(name, [*texts, *questions.values()])
        return vectors[: len(ids)], dict(zip(questions, vectors[len(ids) :], strict=True))
    kept = np.load(given)
    of_document = dict(zip(kept["doc_ids"].tolist(), kept["docs"].astype(np.float32), strict=True))
    of_question = dict(
        zip(kept["query_ids"].tolist(), kept["queries"].astype(np.float32), strict=True)
    )
    return np.stack([of_document[each] for each in ids]), of_question


def kept_vectors(name: str, texts: Sequence[str]) -> Vectors:
    """Return the model's vectors of texts, from the cache or computed now."""
    path = CACHE / f"{name}.npy"
    if not path.exists():
        print(f"{name}: vectors of {len(texts):,} texts (once)", flush=True)
        computed = embed(texts).astype(np.float16)
        CACHE.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part.npy")
        np.save(part, computed)
        part.rename(path)
    vectors: Vectors = np.load(path).astype(np.float32)
    if len(vectors) != len(texts):
        raise SystemExit(f"{path} was made of other texts: remove it")
    return vectors


def embed(texts: Sequence[str]) -> Vectors:
    """Return the model's vectors, as the embedded server computes them; shows how far it is."""
    from pgstack.embedded.modelserver.embedder import MiniLM

    model = MiniLM(_MODELS / "all-minilm")
    tokens = model.tokenize(texts, truncate=True)
    longest_first = sorted(range(len(tokens)), key=lambda i: -len(tokens[i]))
    batches: list[list[int]] = [[]]
    for i in longest_first:
        if len(batches[-1]) * len(tokens[batches[-1][0]] if batches[-1] else ()) >= 2048:
            batches.append([])
        batches[-1].append(i)
    vectors = np.zeros((len(texts), 384), np.float32)
    whole, done = sum(map(len, tokens)), 0
    began = time.perf_counter()
    with ThreadPoolExecutor(2) as threads:
        computed = threads.map(lambda batch: model.embed([tokens[i] for i in batch]), batches)
        for batch, rows in zip(batches, computed, strict=True):
            vectors[batch] = rows
            done += sum(len(tokens[i]) for i in batch)
            left = (time.perf_counter() - began) * (whole / done - 1)
            bar = "#" * (30 * done // whole)
            print(
                f"\r  [{bar:30}] {100 * done // whole:3} %, {left:4.0f} s left", end="", flush=True
            )
    print()
    return vectors


def ndcg(found: Sequence[str], relevant: Mapping[str, int], k: int = 10) -> float:
    """Return the nDCG@k of one question."""
    gained = sum(relevant.get(each, 0) / math.log2(i + 2) for i, each in enumerate(found[:k]))
    best = sorted(relevant.values(), reverse=True)[:k]
    return gained / sum(gain / math.log2(i + 2) for i, gain in enumerate(best))


def interval(values: NDArray[np.float64], draws: int = 4000) -> tuple[float, float]:
    """Return the 95 % bootstrap interval of a mean."""
    rng = np.random.default_rng(7)
    means = [rng.choice(values, len(values)).mean() for _ in range(draws)]
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)
