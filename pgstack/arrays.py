"""Long arrays on their way to PostgreSQL, as literals.

psycopg looks up how to send each element of a list; for thousands of them that takes longer
than everything else a worker does.  The statement casts: ``%s::bytea[]``.
"""

from __future__ import annotations

from collections.abc import Iterable


def int_array(values: Iterable[int | None]) -> str:
    """Return an ``int[]``."""
    return f"{{{','.join('NULL' if v is None else str(v) for v in values)}}}"


def text_array(values: Iterable[str | None]) -> str:
    """Return a ``text[]``, or one of anything that is written as text."""
    return f"{{{','.join('NULL' if v is None else _quoted(v) for v in values)}}}"


def bytea_array(values: Iterable[bytes | None]) -> str:
    """Return a ``bytea[]``."""
    return f"{{{','.join('NULL' if v is None else _hex(v) for v in values)}}}"


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _hex(value: bytes) -> str:
    return f'"\\\\x{value.hex()}"'
