"""The text of an HTML page, as a person would copy it out.

Data in and out
    ``markup``  the page, decoded
    returns     its title or None, and its text: headings and paragraphs apart by a blank
                line, list items and table rows one a line, ``pre`` as it is, no scripts

Call it in a process with limits (:class:`pgstack.extract.Extractor`): there are pages made
to take all memory and time there is.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bs4.element import Tag

_DROPPED = {
    "script",
    "style",
    "template",
    "noscript",
    "svg",
    "iframe",
    "object",
    "canvas",
    "head",
    "title",
}
_PARAGRAPHS = {
    *("p", "h1", "h2", "h3", "h4", "h5", "h6", "blockquote", "pre", "ul", "ol", "dl", "table"),
    *("section", "article", "header", "footer", "nav", "aside", "main", "figure", "hr", "form"),
    *("fieldset", "details", "body", "address"),
}
_LINES = {"div", "li", "dt", "dd", "tr", "caption", "figcaption", "summary", "option", "legend"}
_NOT_IN_CELL = (_PARAGRAPHS | _LINES | _DROPPED | {"br"}) - {"p", "div"}


class _Writer:
    """Collects text; white space between words and blocks never piles up."""

    def __init__(self) -> None:
        self.parts: list[str] = []
        self.newlines = 2  # how many the text ends with; 2: nothing to separate yet
        self.space = False

    def gap(self, newlines: int) -> None:
        """Ask for a line (1) or paragraph (2) end before the next words."""
        self.space = False
        if self.newlines < newlines:
            self.parts.append("\n" * (newlines - self.newlines))
            self.newlines = newlines

    def words(self, text: str) -> None:
        """Add running text: white space counts as one space."""
        flat = re.sub(r"[ \t\n\f\r\xa0]+", " ", text)
        if flat.startswith(" "):
            self.space = True
        body = flat.strip(" ")
        if not body:
            return
        if self.space and self.newlines == 0:
            self.parts.append(" ")
        self.parts.append(body)
        self.newlines = 0
        self.space = flat.endswith(" ")

    def verbatim(self, text: str) -> None:
        """Add preformatted text as it is."""
        if text:
            self.parts.append(text)
            self.newlines = 2 if text.endswith("\n\n") else int(text.endswith("\n"))
            self.space = False


def html_text(markup: str) -> tuple[str | None, str]:
    """Return the title, or None, and the text of a page."""
    from bs4 import BeautifulSoup

    soup = BeautifulSoup(markup, "html.parser")
    found = soup.title or soup.h1
    title = " ".join(found.get_text(" ").split()) if found is not None else ""
    writer = _Writer()
    _write_html(soup, writer)
    return title or None, "".join(writer.parts).strip()


def _write_html(root: Tag, writer: _Writer) -> None:
    from bs4.element import NavigableString, PreformattedString, Tag

    # A stack of our own: hostile pages nest deeper than Python may recurse.
    stack: list[tuple[Tag, Iterator[Any]]] = [(root, iter(root.contents))]
    preformatted = 0
    while stack:
        tag, children = stack[-1]
        node = next(children, None)
        if node is None:
            stack.pop()
            preformatted -= tag.name == "pre"
            _boundary(tag.name, writer)
        elif isinstance(node, Tag):
            if node.name in _DROPPED:
                continue
            _boundary(node.name, writer)
            if node.name == "br":
                writer.gap(1) if writer.newlines == 0 else None
            elif node.name == "li":
                writer.words("- ")
            elif node.name in ("td", "th"):
                cell = _one_line(node)
                if cell is not None:
                    if cell.strip():
                        writer.words(cell if writer.newlines else f" | {cell}")
                    continue
                if writer.newlines == 0:
                    writer.words(" | ")
            preformatted += node.name == "pre"
            stack.append((node, iter(node.contents)))
        elif isinstance(node, PreformattedString):
            continue  # comments, doctypes, processing instructions
        elif isinstance(node, NavigableString):
            (writer.verbatim if preformatted else writer.words)(str(node))


def _one_line(cell: Tag) -> str | None:
    """Return the text of a short cell, so that a row of a table stays one line."""
    from bs4.element import NavigableString, Tag

    length = 0
    for number, node in enumerate(cell.descendants):
        if isinstance(node, NavigableString):
            length += len(node)
        if number > 50 or length > 200:
            return None
        if isinstance(node, Tag) and node.name in _NOT_IN_CELL:
            return None
    return cell.get_text()


def _boundary(name: str, writer: _Writer) -> None:
    if name in _PARAGRAPHS:
        writer.gap(2)
    elif name in _LINES:
        writer.gap(1)
