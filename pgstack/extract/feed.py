"""Text out of RSS and Atom: an entry's title is a heading, its text stands under it.

Data in and out
    ``data``  the file
    returns   :class:`Document`, or None where it is no feed after all, or a damaged one

Nothing that the file declares is followed: no entity of its own, nothing outside.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from xml.parsers import expat

from pgstack.extract.compose import Composer, one_line
from pgstack.extract.document import Document
from pgstack.extract.html import html_page

RSS, ATOM = "application/rss+xml", "application/atom+xml"

_ROOTS = {"rss": RSS, "RDF": RSS, "feed": ATOM}
_ENTRIES = {"item", "entry"}
# What is kept of an entry, and under which name.
_FIELDS = {
    "title": "title",
    "pubDate": "date",
    "published": "date",
    "updated": "date",
    "creator": "author",
    "author": "author",
    "name": "author",
    "encoded": "text",  # content:encoded, the whole entry
    "content": "text",
    "description": "summary",
    "summary": "summary",
}
_MARKUP = re.compile(r"<[a-zA-Z/!]|&[a-zA-Z#]")


class _NoFeed(Exception):
    """The file is none, or has what a feed needs not have."""


@dataclass
class _Reader:
    """Collects the fields of the feed and its entries while expat reads."""

    media_type: str | None = None
    feed: dict[str, str] = field(default_factory=dict)
    entries: list[dict[str, str]] = field(default_factory=list)
    _path: list[str] = field(default_factory=list)
    _text: list[str] = field(default_factory=list)

    def start(self, name: str, attributes: dict[str, str]) -> None:
        local = name.rpartition(":")[2]
        if self.media_type is None:
            if local not in _ROOTS:
                raise _NoFeed(name)
            self.media_type = _ROOTS[local]
        self._path.append(local)
        if len(self._path) > 100:
            raise _NoFeed("nested too deep")
        if local in _ENTRIES:
            self.entries.append({})
        if local in _FIELDS:
            self._text = []

    def end(self, name: str) -> None:
        local = self._path.pop()
        text = "".join(self._text).strip()
        # A picture in a feed has a title of its own.
        known = _FIELDS.get(local) if not {"image", "source"} & set(self._path) else None
        if known and text:
            inside = not _ENTRIES.isdisjoint(self._path)
            (self.entries[-1] if inside else self.feed).setdefault(known, text)
            self._text = []

    def data(self, text: str) -> None:
        self._text.append(text)


def read(data: bytes) -> Document | None:
    """Return the entries of a feed, or None."""
    reader = _Reader()
    parser = expat.ParserCreate()
    parser.buffer_text = True
    parser.StartElementHandler = reader.start
    parser.EndElementHandler = reader.end
    parser.CharacterDataHandler = reader.data
    parser.EntityDeclHandler = _refuse
    try:
        parser.Parse(data, True)
    except (expat.ExpatError, _NoFeed, ValueError, LookupError, OSError):
        return None
    if reader.media_type is None:
        return None
    composer = Composer()
    composer.block(_plain(reader.feed.get("summary", "")))
    for entry in reader.entries:
        composer.heading(1, _plain(entry.get("title", "")) or "-")
        line = [one_line(_plain(entry[name])) for name in ("date", "author") if name in entry]
        composer.block(", ".join(line))
        composer.block(_plain(entry.get("text") or entry.get("summary", "")))
    text, parts = composer.finish()
    title = one_line(_plain(reader.feed.get("title", "")))
    return Document(title or None, reader.media_type, text, parts)


def _refuse(name: str, *rest: object) -> None:
    raise _NoFeed(f"declares the entity {name}")


def _plain(text: str) -> str:
    return html_page(text, keep_boilerplate=True).text if _MARKUP.search(text) else text
