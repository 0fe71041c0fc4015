"""Vectors that can be predicted, for the deterministic model server.

``hash``: the pseudo-random direction of the whole text.  ``words``: the sum of one fixed direction
per word, plus a small part of the whole text's own.  Both depend on the text alone, through
SHAKE-256, and have length 1.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Literal

import numpy as np

from pgstack.embedded.modelserver.backend import Vectors

type Mode = Literal["words", "hash"]

_STOP_WORDS = frozenset(
    re.findall(
        r"\w+",
        "a an and are as at be by for from how i in is it of on or that the this to was what when"
        " where which who why will with you your",
    )
)
# How much of a vector is the text's own direction: enough to tell two texts apart, too little
# to change which is nearer.
_OWN_SHARE = 0.05


def _directions(texts: Sequence[str], dimensions: int) -> Vectors:
    """Return pseudo-random unit vectors, one a text, that depend on the texts alone."""
    raw = b"".join(
        hashlib.shake_256(text.encode("utf-8", "surrogatepass")).digest(dimensions)
        for text in texts
    )
    rows: Vectors = np.frombuffer(raw, np.uint8).reshape(len(texts), dimensions).astype(np.float32)
    rows -= np.float32(127.5)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows


def _direction(text: str, dimensions: int) -> Vectors:
    (row,) = _directions([text], dimensions)
    return np.asarray(row)


_word_direction = lru_cache(maxsize=20_000)(_direction)


def _words(text: str) -> list[str]:
    """Return the words that carry meaning, plural or not."""
    words = re.findall(r"\w+", text.lower())
    return [w[:-1] if len(w) > 3 and w.endswith("s") else w for w in words if w not in _STOP_WORDS]


def vector(text: str, dimensions: int, mode: Mode = "words") -> Vectors:
    """Return the unit vector of a text."""
    (row,) = vectors([text], dimensions, mode)
    return np.asarray(row)


def vectors(texts: Sequence[str], dimensions: int, mode: Mode = "words") -> Vectors:
    """Return the unit vectors of texts, one a row."""
    rows = _directions(texts, dimensions)
    if mode == "hash":
        return rows
    for row, text in enumerate(texts):
        rows[row] = _meaning(text, rows[row])
    return rows


def _meaning(text: str, own: Vectors) -> Vectors:
    """Return the direction of a text's words, with a little of its own."""
    words = _words(text)
    if not words:
        return own
    total = np.zeros_like(own)
    for word in words:
        total += _word_direction(word, len(own))
    total /= np.linalg.norm(total)
    total += np.float32(_OWN_SHARE) * own
    return total / np.float32(np.linalg.norm(total))
