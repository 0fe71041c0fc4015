"""How far pgstack.estimate_tokens() is from tokenizers: all-minilm's WordPiece, SmolLM2's BPE.

The tokenizers are those of the models in .cache/models ($PGSTACK_TEST_MODELS); SmolLM2's is read
from its GGUF file.
"""

from __future__ import annotations

import itertools
import os
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import psycopg
from tokenizers import Tokenizer, models, pre_tokenizers

from bench import _chunk_equal
from bench._judged import ROOT

_MODELS = Path(os.environ.get("PGSTACK_TEST_MODELS", ROOT / ".cache/models"))
_NUMBERS = dict(zip((0, 1, 2, 3, 4, 5, 6, 7, 10, 11, 12), "BbHhIif?Qqd", strict=True))


def _metadata(file: BinaryIO) -> dict[str, Any]:
    """Return the metadata of a GGUF file."""

    def number(kind: str) -> Any:
        return struct.unpack("<" + kind, file.read(struct.calcsize("<" + kind)))[0]

    def text() -> str:
        return file.read(number("Q")).decode("utf-8", "replace")

    def value(kind: int) -> Any:
        if kind == 8:
            return text()
        if kind == 9:
            of = number("I")
            return [value(of) for _ in range(number("Q"))]
        return number(_NUMBERS[kind])

    file.read(16)  # magic, version, tensors
    return {text(): value(number("I")) for _ in range(number("Q"))}


def tokenizers() -> Iterator[tuple[str, Callable[[str], int]]]:
    """Yield the tokenizers at hand: a name, and what counts the tokens of a text."""
    wordpiece = _MODELS / "all-minilm/tokenizer.json"
    if wordpiece.is_file():
        one = Tokenizer.from_file(str(wordpiece))
        one.no_truncation()
        one.no_padding()
        yield "all-minilm", lambda text: len(one.encode(text, add_special_tokens=False).ids)
    gguf = _MODELS / "smollm2-135m/model.gguf"
    if gguf.is_file():
        with gguf.open("rb") as file:
            said = _metadata(file)
        vocabulary = {token: nr for nr, token in enumerate(said["tokenizer.ggml.tokens"])}
        merges = [tuple(pair.split(" ")) for pair in said["tokenizer.ggml.merges"]]
        other = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
        other.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Digits(individual_digits=True),
                pre_tokenizers.ByteLevel(add_prefix_space=False),
            ]
        )
        yield "smollm2", lambda text: len(other.encode(text).ids)


def samples(data: Path) -> dict[str, list[str]]:
    """Return 200 texts of each corpus and language, each of at most 1500 characters."""
    found: dict[str, list[str]] = {}
    for name, texts in _chunk_equal.corpora(data):
        for text in itertools.islice(texts, 0, 40_000, 17):
            found.setdefault(name, []).append(text[:1500])
    for path in sorted(data.glob("corpora/*/translations.jsonl.gz")):
        for said in _chunk_equal.json_lines(path, 13):
            found.setdefault(f"translations {said['lang']}", []).append(said["text"][:1500])
    for said in _chunk_equal.json_lines(data / "retrieval/xquad-4lang/corpus.jsonl", 1):
        found.setdefault(f"xquad {said['_id'][:2]}", []).append(said["text"][:1500])
    return {
        name: [text for text in texts if text.strip()][:200]
        for name, texts in found.items()
        if not name.startswith(("debian-packages/translations", "xquad-4lang", "documents"))
    }


def report(conn: psycopg.Connection[Any], data: Path) -> None:
    """Print estimate / tokens for each corpus, and the mean error of single texts."""
    count = dict(tokenizers())
    if not count:
        print(f"no tokenizers in {_MODELS}: run scripts/setup --dev")
        return
    print(f"\n{'estimate_tokens()':40}", *(f"{name:>24}" for name in count))
    for name, texts in samples(data).items():
        row = conn.execute(
            "select array_agg(pgstack.estimate_tokens(t.body) order by t.nr) "
            "from unnest(%s::text[]) with ordinality as t (body, nr)",
            (texts,),
        ).fetchone()
        assert row is not None
        estimates: list[int] = row[0]
        cells = []
        for tokens_of in count.values():
            tokens = [max(tokens_of(text), 1) for text in texts]
            ratio = sum(estimates) / sum(tokens)
            error = sum(abs(e - n) / n for e, n in zip(estimates, tokens, strict=True))
            cells.append(f"{ratio:10.2f} x, off {error / len(texts):4.0%}")
        print(f"{name:40}", *(f"{cell:>24}" for cell in cells))
