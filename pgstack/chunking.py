"""How vectorizers cut and mask their text: look, change, compare ways.

Data in and out
    ``Chunking``   arguments of ``pgstack.chunk()``; sizes in characters, of ``token`` in tokens;
                   ``mask_pii``: types of personal data that are masked before, ("all",) for
                   those that ``pgstack.mask_pii()`` masks by default, None for none
    ``Way``        one row of ``pgstack.chunking_lab()``, whose comment says what is what; sizes
                   in characters, shares from 0 to 1

Nothing here opens a connection or commits.

Raises the classes of ``pgstack.errors`` for what the SQL functions raise (PS0nn), and
UsageError for a database without pgstack.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from psycopg.errors import Diagnostic
from psycopg.rows import class_row
from psycopg.types.json import Jsonb

from pgstack import queries
from pgstack.db import Connection
from pgstack.errors import UsageError
from pgstack.vectorizers import find_table, understood


@dataclass(frozen=True)
class Chunking:
    """How text is cut, and what is masked before."""

    method: str = "recursive"
    size: int = 800
    overlap: int = 400
    separators: Sequence[str] | None = None
    is_regex: bool = False
    keep_separator: str | None = None
    mask_pii: Sequence[str] | None = None

    def __str__(self) -> str:
        """Return it as a person says it."""
        if self.method == "none":
            words = "none: texts are embedded whole"
        else:
            words = f"{self.method}, {self.size} at most, {self.overlap} shared"
        if self.separators is not None:
            kind = "regular expressions" if self.is_regex else "separators"
            words += f", {kind} {', '.join(map(repr, self.separators))}"
        return words


def of_vectorizer(conn: Connection, number: int) -> Chunking:
    """Return how the vectorizer with this id cuts."""
    with understood(), conn.cursor(row_factory=class_row(Chunking)) as cur:
        return cur.execute(queries.VECTORIZER_CHUNKING, (number,)).fetchone() or Chunking()


def change(conn: Connection, vectorizer: str, wanted: Chunking) -> int:
    """Have a vectorizer cut in another way from now on; return how many rows are queued."""
    with understood():
        params = {**vars(wanted), "vectorizer": vectorizer}
        row = conn.execute(queries.VECTORIZER_SET_CHUNKING, params).fetchone()
    return int(row[0]) if row else 0


# -- lab -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Way:
    """What a way of cutting makes of a sample; what is behind ``texts`` needs a judged set."""

    method: str
    size: int
    overlap: int
    options: dict[str, Any] | None
    documents: int
    chunks: int
    min_chars: int | None
    median_chars: int | None
    p95_chars: int | None
    max_chars: int | None
    median_tokens: int | None
    max_tokens: int | None
    cut_sentences: float | None
    duplication: float | None
    mb_per_second: float
    queries: int | None
    texts: int | None
    ndcg: float | None
    ndcg_low: float | None
    ndcg_high: float | None
    recall: float | None
    p_value: float | None


@dataclass(frozen=True)
class Lab:
    """What to compare on; ``methods`` None: the usual ones, a vectorizer's own first."""

    methods: Sequence[dict[str, Any]] | None = None
    sample: int = 100
    judged: str | None = None
    model: str | None = None
    doc_column: str | None = None
    max_texts: int = 5000
    seed: int = 1


def parse_method(text: str) -> dict[str, Any]:
    """Return METHOD, METHOD:SIZE or METHOD:SIZE:OVERLAP as ``pgstack.chunking_lab`` takes it."""
    found = re.fullmatch(r"([a-z]+)(?::(\d{1,9}))?(?::(\d{1,9}))?", text)
    if found is None:
        raise UsageError(f'"{text}" is no way of cutting', hint="--method recursive:800:400")
    sizes = {"size": found[2], "overlap": found[3]}
    return {"method": found[1], **{key: int(value) for key, value in sizes.items() if value}}


def lab(
    conn: Connection,
    name: str,
    wanted: Lab,
    *,
    column: str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[Way]:
    """Compare ways of cutting a table's ``column``, or a vectorizer's text when there is none.

    ``progress`` is told how many texts of how many are embedded.
    """
    methods: Any = None if wanted.methods is None else list(wanted.methods)
    with understood():
        if column is None:
            row = conn.execute(queries.LAB_SOURCE, (name,)).fetchone()
            source, column, usual = row if row else (0, "", None)
            methods = methods or usual
        else:
            source = find_table(conn, name)
    params = {
        **vars(wanted),
        "source": source,
        "content": column,
        "methods": None if methods is None else Jsonb(methods),
    }

    def listen(notice: Diagnostic) -> None:
        found = re.match(r"(\d+) of (\d+) texts", notice.message_primary or "")
        if found and progress:
            progress(int(found[1]), int(found[2]))

    conn.add_notice_handler(listen)
    try:
        with understood(), conn.cursor(row_factory=class_row(Way)) as cur:
            return cur.execute(queries.CHUNKING_LAB, params).fetchall()
    finally:
        conn.remove_notice_handler(listen)
