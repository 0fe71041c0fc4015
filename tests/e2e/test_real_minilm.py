"""The real all-MiniLM-L6-v2 equals its definition, written here in plain numpy.

The reference is float32, one text at a time, from the published description of BERT, not from
the server's graph.  Models: see test_real_models.py.
"""

from __future__ import annotations

import math
import os
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from tokenizers import Tokenizer

from pgstack.embedded.modelserver import is_installed, known
from pgstack.embedded.modelserver.embedder import (
    MAX_CHARACTERS,
    MiniLM,
    TooLong,
    read_safetensors,
)

pytestmark = pytest.mark.models

ROOT = Path(__file__).resolve().parents[2]
MODELS = Path(os.environ.get("PGSTACK_TEST_MODELS", ROOT / ".cache" / "models"))
TEXT = " ".join(topics.values())
CHUNKS = [TEXT[start : start + 800] for start in range(0, 4800, 800)]

type Array = npt.NDArray[np.float32]


def erf(x: Array) -> Array:
    return np.vectorize(math.erf, otypes=[np.float32])(x)  # type: ignore[no-any-return]


def gelu(x: Array) -> Array:
    return (x * 0.5 * (1 + erf(x / np.float32(np.sqrt(2))))).astype(np.float32)


def softmax(x: Array) -> Array:
    raised = np.exp(x - x.max(axis=-1, keepdims=True))
    return np.asarray(raised / raised.sum(axis=-1, keepdims=True), np.float32)


class Reference:
    def __init__(self, folder: Path) -> None:
        self.w = read_safetensors(folder / "model.safetensors")
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.tokenizer.no_padding()
        self.tokenizer.enable_truncation(256)

    def norm(self, x: Array, name: str) -> Array:
        mean = x.mean(axis=-1, keepdims=True)
        variance = ((x - mean) ** 2).mean(axis=-1, keepdims=True)
        scaled = (x - mean) / np.sqrt(variance + 1e-12)
        return np.asarray(scaled * self.w[f"{name}.weight"] + self.w[f"{name}.bias"], np.float32)

    def linear(self, x: Array, name: str) -> Array:
        return x @ self.w[f"{name}.weight"].T + self.w[f"{name}.bias"]

    def attention(self, x: Array, layer: str) -> Array:
        parts = [self.linear(x, f"{layer}.self.{part}") for part in ("query", "key", "value")]
        query, key, value = (part.reshape(len(x), 12, 32).transpose(1, 0, 2) for part in parts)
        weights = softmax(query @ key.transpose(0, 2, 1) / np.float32(np.sqrt(32)))
        return (weights @ value).transpose(1, 0, 2).reshape(len(x), 384)

    def embed(self, text: str) -> Array:
        ids = self.tokenizer.encode(text).ids
        x = self.w["embeddings.word_embeddings.weight"][ids]
        x = x + self.w["embeddings.position_embeddings.weight"][: len(ids)]
        x = x + self.w["embeddings.token_type_embeddings.weight"][0]
        x = self.norm(x, "embeddings.LayerNorm")
        for number in range(6):
            layer = f"encoder.layer.{number}"
            mixed = self.attention(x, f"{layer}.attention")
            mixed = self.linear(mixed, f"{layer}.attention.output.dense")
            x = self.norm(x + mixed, f"{layer}.attention.output.LayerNorm")
            wide = gelu(self.linear(x, f"{layer}.intermediate.dense"))
            x = self.norm(
                x + self.linear(wide, f"{layer}.output.dense"), f"{layer}.output.LayerNorm"
            )
        mean = x.mean(axis=0)
        return np.asarray(mean / np.linalg.norm(mean), np.float32)


@pytest.fixture(scope="module")
def folder() -> Path:
    model = known("all-minilm")
    if not is_installed(model, MODELS):
        pytest.skip(f"all-minilm is not in {MODELS}: see PGSTACK_TEST_MODELS")
    return MODELS / model.folder


@pytest.fixture(scope="module")
def minilm(folder: Path) -> MiniLM:
    return MiniLM(folder)


def embed(model: MiniLM, texts: list[str]) -> Any:
    return model.embed(model.tokenize(texts, truncate=True))


def test_vectors_equal_the_reference(minilm: MiniLM, folder: Path) -> None:
    reference = Reference(folder)
    texts = [
        *(chunk[:200] for chunk in CHUNKS),
        CHUNKS[0],
        "hello",
        "",
        "Grüße aus 東京 \U0001f431",
        "x" * 500,
    ]
    expected = np.array([reference.embed(text) for text in texts])
    assert np.abs(embed(minilm, texts) - expected).max() < 1e-5  # one padded batch
    alone = np.array([embed(minilm, [text])[0] for text in texts])
    assert np.abs(alone - expected).max() < 1e-5


def test_a_text_is_cut_at_256_tokens_or_refused(minilm: MiniLM) -> None:
    short = minilm.tokenize(["word " * 254], truncate=False)[0]
    long = minilm.tokenize(["word " * 10_000_000], truncate=True)[0]
    assert short == long
    assert len(long) == 256
    with pytest.raises(TooLong):
        minilm.tokenize(["fine", "word " * 255], truncate=False)
    assert MAX_CHARACTERS > 256 * 100
