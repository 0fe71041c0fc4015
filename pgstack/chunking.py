"""How vectorizers cut and mask their text: look, change.

Data in and out
    ``Chunking``   arguments of ``pgstack.chunk()``; sizes in characters, of ``token`` in tokens;
                   ``mask_pii``: types of personal data that are masked before, ("all",) for
                   those that ``pgstack.mask_pii()`` masks by default, None for none

Nothing here opens a connection or commits.

Raises the classes of ``pgstack.errors`` for what the SQL functions raise (PS0nn), and
UsageError for a database without pgstack.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from psycopg.rows import class_row

from pgstack import queries
from pgstack.db import Connection
from pgstack.vectorizers import understood


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
