"""Generates folders of small files of mixed formats, some broken: the same for the same seed."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable
from pathlib import Path

LONG_AGO = 1_000_000_000
_WORDS = (
    *("river", "table", "green", "seven", "paper", "window", "morning", "sleep", "bridge"),
    *("copper", "letter", "engine", "garden", "winter", "train", "silver", "question", "answer"),
)


def _prose(rng: random.Random, words: int) -> str:
    return " ".join(rng.choices(_WORDS, k=words)).capitalize() + "."


def _text(rng: random.Random) -> bytes:
    return "\n\n".join(_prose(rng, rng.randint(5, 60)) for _ in range(rng.randint(1, 5))).encode()


def _markdown(rng: random.Random) -> bytes:
    parts = [f"# {_prose(rng, 3)}", _prose(rng, 20), f"## {_prose(rng, 2)}", _prose(rng, 30)]
    return "\n\n".join(parts).encode()


def _html(rng: random.Random) -> bytes:
    title, body = _prose(rng, 3), _prose(rng, 40)
    return f"<!doctype html><title>{title}</title><h1>{title}</h1><p>{body}</p>".encode()


def _csv(rng: random.Random) -> bytes:
    rows = [f"{n},{rng.choice(_WORDS)},{rng.random():.4f}" for n in range(rng.randint(1, 30))]
    return ("id,word,value\n" + "\n".join(rows)).encode()


def _json(rng: random.Random) -> bytes:
    return json.dumps({"text": _prose(rng, 20), "tags": rng.sample(_WORDS, 3)}).encode()


def _broken(rng: random.Random) -> bytes:
    kinds = (b"%PDF-1.7\n" + rng.randbytes(200), b"\x1f\x8b" + rng.randbytes(50), b"", b" \n\t")
    return rng.choice(kinds)


_KINDS: tuple[tuple[str, Callable[[random.Random], bytes], int], ...] = (
    (".txt", _text, 30),
    (".md", _markdown, 25),
    (".html", _html, 20),
    (".csv", _csv, 10),
    (".json", _json, 10),
    (".bin", _broken, 5),
)


def write(folder: Path, count: int, *, seed: int = 1) -> None:
    """Write ``count`` files below ``folder``, a hundred a folder."""
    rng = random.Random(seed)
    weights = [weight for _, _, weight in _KINDS]
    for number in range(count):
        below = folder / f"{number // 100:03}"
        below.mkdir(parents=True, exist_ok=True)
        suffix, make, _ = rng.choices(_KINDS, weights)[0]
        path = below / f"file {number:05}{suffix}"
        path.write_bytes(make(rng))
        os.utime(path, (LONG_AGO, LONG_AGO))
