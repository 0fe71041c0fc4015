"""Puts a text together piece by piece and keeps the map of it.

Every piece is cleaned before it is added, so that what is measured is what stands in the
text: positions are exact by construction.
"""

from __future__ import annotations

import bisect
import re
from collections.abc import Iterable, Sequence

from pgstack.extract.document import Part

_MAX_HEADING = 300  # characters kept of a heading in the map
_MAX_LEVELS = 12


def clean(text: str) -> str:
    """Return a text that PostgreSQL takes: ``\\n`` line ends, no NUL, no lone surrogates."""
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    if "\x00" in text:
        text = text.replace("\x00", "")
    if not text.isascii():
        text = text.encode("utf-8", errors="replace").decode("utf-8")
    return text


def one_line(text: str, limit: int = _MAX_HEADING) -> str:
    """Return a title or heading: one line, single spaces, at most ``limit`` characters."""
    flat = " ".join(clean(text[: limit * 20]).split())
    return flat if len(flat) <= limit else flat[: limit - 1].rstrip() + "…"


class Outline:
    """The headings above the place that is being read."""

    def __init__(self) -> None:
        self._path: list[tuple[int, str]] = []

    def enter(self, level: int, title: str) -> tuple[str, ...]:
        """Go on below a heading of ``level`` (1: outermost); return the path, it included."""
        self._path = [item for item in self._path if item[0] < level][: _MAX_LEVELS - 1]
        self._path.append((level, one_line(title)))
        return self.path

    @property
    def path(self) -> tuple[str, ...]:
        """The headings, outermost first; those without words left out."""
        return tuple(title for _, title in self._path if title)

    def clear(self) -> None:
        """Leave all headings."""
        self._path.clear()


class Composer:
    """Collects blocks of text, with the page and the headings they stand under."""

    def __init__(self) -> None:
        self._pieces: list[str] = []
        self._length = 0
        self._newlines = 2  # how many the text ends with; 2: nothing to separate yet
        self._outline = Outline()
        self._page: int | None = None
        self.first_words: str | None = None  # the heading that the text begins with
        # (place, page, headings): what holds from that place on.
        self._changes: list[tuple[int, int | None, tuple[str, ...]]] = [(0, None, ())]

    def __len__(self) -> int:
        return self._length

    def _add(self, text: str) -> None:
        self._pieces.append(text)
        self._length += len(text)

    def _mark(self) -> None:
        self._changes.append((self._length, self._page, self._outline.path))

    def page(self, number: int) -> None:
        """Begin a page; a form feed ends the one before."""
        if self._page is not None:
            self._add("\f")
        self._page = number
        self._newlines = 2
        self._mark()

    def heading(self, level: int, title: str) -> None:
        """Add a heading; what follows stands under it."""
        words = one_line(title, limit=10_000)
        if not words:
            return
        self.gap(2)
        path = self._outline.enter(level, words)
        if self._length == 0:
            self.first_words = path[-1]
        self._mark()
        self._write(words)

    def leave_headings(self) -> None:
        """What follows stands under no heading."""
        if self._outline.path:
            self._outline.clear()
            self.gap(2)
            self._mark()

    def block(self, text: str, gap: int = 2) -> None:
        """Add a block, ``gap`` newlines after what stands before."""
        # A form feed is our mark for the end of a page.
        body = clean(text).replace("\f", "\n").strip("\n").rstrip()
        if body.strip():
            self.gap(gap)
            self._write(body)

    def gap(self, newlines: int) -> None:
        """Ask for a line (1) or paragraph (2) end before what follows."""
        if self._newlines < newlines:
            self._add("\n" * (newlines - self._newlines))
            self._newlines = newlines

    def _write(self, text: str) -> None:
        self._add(text)
        self._newlines = 0

    def finish(self) -> tuple[str, tuple[Part, ...]]:
        """Return the text and its map."""
        return "".join(self._pieces), _parts(self._changes, self._length)


def parts_of_headings(text: str, headings: Iterable[tuple[int, int, str]]) -> tuple[Part, ...]:
    """Return the map of a text as it is: its headings (place, level, title), its form feeds."""
    changes: list[tuple[int, int | None, tuple[str, ...]]] = [(0, None, ())]
    outline = Outline()
    for start, level, title in headings:
        changes.append((start, None, outline.enter(level, title)))
    breaks = [match.end() for match in re.finditer("\f", text)]
    if breaks:
        changes = _with_pages(changes, breaks)
    return _parts(changes, len(text))


def _with_pages(
    changes: Sequence[tuple[int, int | None, tuple[str, ...]]], breaks: list[int]
) -> list[tuple[int, int | None, tuple[str, ...]]]:
    places = sorted({place for place, _, _ in changes} | set(breaks))
    paths = {place: path for place, _, path in changes}
    paged: list[tuple[int, int | None, tuple[str, ...]]] = []
    path: tuple[str, ...] = ()
    for place in places:
        path = paths.get(place, path)
        paged.append((place, bisect.bisect_right(breaks, place) + 1, path))
    return paged


def _parts(
    changes: Sequence[tuple[int, int | None, tuple[str, ...]]], length: int
) -> tuple[Part, ...]:
    parts: list[Part] = []
    for number, (start, page, headings) in enumerate(changes):
        end = changes[number + 1][0] if number + 1 < len(changes) else length
        if end <= start:
            continue
        last = parts[-1] if parts else None
        if last is not None and (last.page, last.headings) == (page, headings):
            parts[-1] = Part(last.start, end, page, headings)
        else:
            parts.append(Part(start, end, page, headings))
    if all(part.page is None and not part.headings for part in parts):
        return ()
    return tuple(parts)
