"""Examples in the docs that need a worker: blocks that open with ```sql worker.

Each page runs from top to bottom in a database of its own.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import psycopg
import pytest

DOCS = Path(__file__).resolve().parents[2] / "docs"


def examples(page: Path) -> list[str]:
    """The SQL blocks of a page that need a worker."""
    return re.findall(r"(?ms)^```sql worker\n(.*?)^```$", page.read_text(encoding="utf-8"))


PAGES = [page for page in sorted(DOCS.rglob("*.md")) if examples(page)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_examples_run(page: Path, db: psycopg.Connection[Any], worker: Any) -> None:
    for example in examples(page):
        for statement in re.split(r";\s*(?:--[^\n]*)?\n", example + "\n"):
            if statement.strip():
                db.execute(statement)  # type: ignore[arg-type]


def test_there_are_examples() -> None:
    assert len(PAGES) >= 4
