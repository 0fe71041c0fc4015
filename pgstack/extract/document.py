"""What extraction gives: a text and the map of where in the document it stands.

Data in and out
    positions  characters from 0, as Python and ``substr`` (plus 1) count them; ends are exclusive
    pages      numbered from 1: pages of a PDF, slides, sheets
    headings   the path down to the place, outermost first
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any


class Unreadable(Exception):
    """A file gives no text; the message reads well after its name."""


class Crashed(Unreadable):
    """The process that read a file ended: the file's fault, or somebody else's."""


@dataclass(frozen=True)
class Part:
    """A stretch of a text: characters ``start`` to ``end``, its page or None, its headings."""

    start: int
    end: int
    page: int | None = None
    headings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Document:
    """What a file says: ``title`` or None, its media type, its text, map, warnings for people.

    ``parts`` are in order, touch each other and cover the text; where nothing is known of
    pages and headings there are none.  Pages end with a form feed in ``text``, but the last.
    """

    title: str | None
    media_type: str
    text: str
    parts: tuple[Part, ...] = ()
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Options:
    """How to read.

    ``ocr``               languages in pictures, Tesseract's names: ``eng+deu``; "": no OCR
    ``ocr_seconds``       processor time for that in one file; pages beyond it are left out
    ``keep_boilerplate``  keep menus, page headers and footers of HTML pages
    ``tika_url``          address of an Apache Tika server that reads instead of kreuzberg
    """

    ocr: str = "eng"
    ocr_seconds: int = 300
    keep_boilerplate: bool = False
    tika_url: str | None = None


def parts_json(parts: Iterable[Part]) -> list[dict[str, Any]]:
    """Return a map as the database keeps it (column ``parts``), ready for JSON."""
    return [
        {"start": part.start, "end": part.end, "page": part.page, "headings": list(part.headings)}
        for part in parts
    ]
