"""The texts that wait for a model, in the order in which it gets them.

Rows take turns, a text each: one with three texts is not to wait until the sixteen thousand of a
novel are done.  What is put back after a call that failed goes first.

``room_taken`` is what the line counts for when more rows are claimed: of a row at most
:data:`COUNTED`, or a novel would keep every other row away from the line.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, field

from pgstack.vectors import Vector

COUNTED = 8  # texts of a row

type TextKey = tuple[int, bytes]  # vectorizer and digest


@dataclass(frozen=True)
class Wanted:
    """A text in line."""

    key: TextKey
    vectorizer: str
    text: str
    vector: asyncio.Future[Vector]


@dataclass
class Line:
    """Texts by row, the row whose turn it is first.  An empty one is false."""

    first: deque[Wanted] = field(default_factory=deque)
    rows: OrderedDict[Hashable, deque[Wanted]] = field(default_factory=OrderedDict)
    room_taken: int = 0
    characters: int = 0  # of all texts

    def __bool__(self) -> bool:
        return bool(self.first or self.rows)

    def __iter__(self) -> Iterator[Wanted]:
        yield from self.first
        for texts in self.rows.values():
            yield from texts

    def append(self, row: Hashable, wanted: Wanted) -> None:
        """Add a text of a row."""
        texts = self.rows.setdefault(row, deque())
        self.room_taken += len(texts) < COUNTED
        self.characters += len(wanted.text)
        texts.append(wanted)

    def put_back(self, taken: Sequence[Wanted]) -> None:
        """Have texts that were taken go before all others."""
        self.first.extendleft(reversed(taken))
        self.room_taken += len(taken)
        self.characters += sum(len(wanted.text) for wanted in taken)

    @property
    def head(self) -> Wanted:
        """The text that :meth:`pop` takes next."""
        return self.first[0] if self.first else next(iter(self.rows.values()))[0]

    def pop(self) -> Wanted:
        """Take the next text off."""
        if self.first:
            wanted = self.first.popleft()
            self.room_taken -= 1
        else:
            row, texts = next(iter(self.rows.items()))
            wanted = texts.popleft()
            self.room_taken -= len(texts) < COUNTED
            if texts:
                self.rows.move_to_end(row)
            else:
                del self.rows[row]
        self.characters -= len(wanted.text)
        return wanted
