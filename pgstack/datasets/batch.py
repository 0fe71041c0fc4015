"""What the readers of all formats have in common: pieces of a file, and rows that they hold."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from pgstack.datasets.schema import Column
from pgstack.datasets.source import Stream

BLOCK_BYTES = 4 * 2**20
RECORD_BYTES = 64 * 2**20  # a longer record is taken for a broken one
RAW_CHARACTERS = 10_000  # kept of a rejected record


@dataclass(frozen=True)
class Place:
    """Where a reader stands in a file: position (source.py; in Parquet rows), and the line."""

    position: int
    line: int


@dataclass(frozen=True)
class Reject:
    """A record that was kept aside.  ``line``: where it begins, from 1; of Parquet, the row."""

    line: int
    column: str | None
    reason: str
    raw: str


@dataclass(frozen=True)
class Batch:
    """Some rows: columns of text (text.py), and what could not be read as a row.

    ``origin(i)`` tells line and text of row i; slow, for rows that PostgreSQL refuses.
    ``end`` is where the next batch begins, ``consumed`` how many bytes of the file were read.
    ``numbers`` says which records of the batch the rows are, from 0; None: there are no others.
    """

    columns: list[Any]
    rejects: list[Reject]
    origin: Callable[[int], tuple[int, str]]
    end: Place
    consumed: int
    notes: tuple[str, ...] = ()
    numbers: Sequence[int] | None = None

    @property
    def rows(self) -> int:
        """How many rows."""
        return len(self.columns[0]) if self.columns else 0


class Reader(Protocol):
    """Reads one format: first what columns there are, then batch after batch."""

    notes: list[str]
    columns: list[Column]  # as found
    sampled: int  # rows

    @property
    def format(self) -> str:
        """Return csv, jsonl or parquet."""

    @property
    def encoding(self) -> str | None:
        """Return the charset of a text."""

    @property
    def delimiter(self) -> str | None:
        """Return what separates fields."""

    def batches(self, columns: list[Column], start: Place) -> Iterator[Batch]:
        """Yield the rows from a place on, with these columns."""

    def start(self) -> Place:
        """Return the place of the first row."""


@dataclass(frozen=True)
class Block:
    """Records of a text file, and where they lie; ``is_whole``: each has an end."""

    data: bytes
    place: Place
    end: Place
    consumed: int
    is_whole: bool = True


def blocks(stream: Stream, start: Place, cut: Callable[[bytes, bool], int]) -> Iterator[Block]:
    """Yield a stream's records in blocks that depend on where they begin and nothing else.

    ``cut(data, is_last)`` returns how many bytes of ``data`` are whole records.
    """
    place = start
    data = b""
    is_last = False
    while not is_last or data:
        size = BLOCK_BYTES
        while True:
            if len(data) < size and not is_last:
                data += stream.read(size - len(data))
                is_last = len(data) < size
            end = cut(data, is_last)
            if end or is_last or size >= RECORD_BYTES:
                break
            size *= 2
        is_whole = end > 0
        if not is_whole:  # broken: one line of it, at least
            end = len(data) if is_last else data.find(b"\n") + 1 or len(data)
        if not data:
            return
        piece, data = data[:end], data[end:]
        after = Place(place.position + end, place.line + line_ends(piece))
        yield Block(piece, place, after, stream.consumed, is_whole)
        place = after


def line_ends(data: bytes) -> int:
    """Return how many lines end in ``data``, by CR, LF or both."""
    returns = data.count(b"\r")
    return data.count(b"\n") + (returns - data.count(b"\r\n") if returns else 0)


def readable(raw: bytes) -> str:
    """Return the bytes of a record as text that PostgreSQL stores, cut when it is long."""
    text = raw.decode("utf-8", "backslashreplace").replace("\0", "\\x00")
    return text if len(text) <= RAW_CHARACTERS else text[:RAW_CHARACTERS] + " ..."
