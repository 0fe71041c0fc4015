"""Texts to embed: short rows made of English words, and real long documents."""

from __future__ import annotations

import gzip
import json
import os
import random
import re
from pathlib import Path
from pydoc_data.topics import topics

_ROOT = Path(__file__).resolve().parents[1]
_DATA = Path(os.environ.get("PGSTACK_DATA_DIR", _ROOT / "../shared/data"))
REWRITTEN = "This was rewritten in the year"
_PAGES = _DATA / "corpora/postgresql-doc-15/pages.jsonl.gz"


def short_rows(count: int) -> list[str]:
    """Return that many different texts of 12 to 25 words, the same on every machine."""
    rng = random.Random(7)
    words = sorted({word for text in topics.values() for word in re.findall(r"[a-z]{3,}", text)})
    return [
        f"Entry {i}: " + " ".join(rng.choices(words, k=rng.randint(12, 25))) for i in range(count)
    ]


def documents(count: int) -> list[str]:
    """Return the longest pages of PostgreSQL's manual, or else of Python's own help."""
    if _PAGES.exists():
        with gzip.open(_PAGES, "rt", encoding="utf-8") as lines:
            pages = [str(json.loads(line)["text"]) for line in lines]
    else:
        print(f"(long documents: Python's help texts, for want of {_PAGES})")
        pages = list(topics.values())
    return sorted(pages, key=len, reverse=True)[:count]


def with_another_sentence(text: str, seed: int) -> str:
    """Return the text with one of its sentences, somewhere inside, replaced."""
    found = list(re.finditer(r"[A-Z][^.!?\n]{20,}[.!?](?=\s)", text))
    sentence = random.Random(seed).choice(found[1:-1])
    return f"{text[: sentence.start()]}{REWRITTEN} {seed}.{text[sentence.end() :]}"
