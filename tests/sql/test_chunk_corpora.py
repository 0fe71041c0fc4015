"""pgstack.chunk on real text: a sample of what `make bench-chunk` compares whole.

Skipped where $PGSTACK_DATA_DIR has no texts.
"""

from __future__ import annotations

import itertools
import logging
import os
from pathlib import Path
from typing import Any

import psycopg
import pytest

from bench._chunk_equal import compare, corpora, settings
from tests.sql.test_chunk import chunk

Conn = psycopg.Connection[Any]

ROOT = Path(__file__).parents[2]
DATA = Path(os.environ.get("PGSTACK_DATA_DIR", ROOT.parent / "shared" / "data"))
TEXTS = 144  # of each corpus

pytestmark = pytest.mark.skipif(
    not (DATA / "corpora").is_dir(), reason=f"no texts in {DATA}; set PGSTACK_DATA_DIR"
)


@pytest.fixture(autouse=True)
def _quiet() -> None:
    logging.getLogger("langchain_text_splitters.base").setLevel(logging.ERROR)


@pytest.mark.filterwarnings("ignore:Possible (nested set|set difference):FutureWarning")
def test_equals_langchain_on_every_corpus(conn: Conn) -> None:
    assert len(settings()) == TEXTS
    seen = 0
    for nr, (name, texts) in enumerate(corpora(DATA)):
        short = (text[:5_000] for text in texts)
        found = compare(conn, short, most=TEXTS, first=7 * nr)
        assert (found.different, found.misplaced) == ([], []), name
        assert found.exact + found.joined == found.chunks, name
        seen += found.texts
    assert seen > 10 * TEXTS


@pytest.mark.parametrize("method", ["sentence", "markdown", "page", "token"])
def test_chunks_are_stretches_of_the_text(conn: Conn, method: str) -> None:
    for name, texts in corpora(DATA):
        for text in itertools.islice(texts, 10):
            size = 60 if method == "token" else 240
            got = chunk(conn, text[:20_000], method=method, size=size, overlap=size // 4)
            assert [text[start:end] for _, start, end, _ in got] == [row[3] for row in got], name
            assert method == "token" or all(len(row[3]) <= size for row in got), name
