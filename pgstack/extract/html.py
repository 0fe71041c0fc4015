"""The text of an HTML page, as a person would copy it out.

Data in and out
    ``markup``  the page, decoded
    returns     :class:`Page`: its title or None, its headings, and its text: headings and
                paragraphs apart by a blank line, list items and table rows one a line,
                ``pre`` as it is; no scripts, nothing hidden, and no menus and page footers
                (``pgstack.extract.boilerplate``) unless asked

Call it in a process with limits (:class:`pgstack.extract.Extractor`): there are pages made
to take all memory and time there is.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pgstack.extract.boilerplate import Boilerplate, hidden
from pgstack.extract.compose import clean
from pgstack.extract.markup import Heading

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
_HEADINGS = {"h1": 1, "h2": 2, "h3": 3, "h4": 4, "h5": 5, "h6": 6}
_NOT_IN_CELL = (_PARAGRAPHS | _LINES | _DROPPED | {"br"}) - {"p", "div"}


# Links to the heading itself that stand beside it, and what is invisible.
_MARKS = " \t\n\u200b\ufeff¶§#"


_DEEP = 500


@dataclass(frozen=True)
class Page:
    """What an HTML page says; headings as (place in ``text``, level, words)."""

    title: str | None
    text: str
    headings: list[Heading]
    meta: dict[str, str] = field(default_factory=dict)


class _Writer:
    """Collects text; white space between words and blocks never piles up."""

    def __init__(self) -> None:
        self.parts: list[str] = []
        self.length = 0
        self.headings: list[Heading] = []
        self._heading: tuple[int, int, int] | None = None  # place, level, its first part
        self.newlines = 2  # how many the text ends with; 2: nothing to separate yet
        self.space = False
        self._bullet = False  # a list item was begun and nothing written yet

    def _add(self, text: str) -> None:
        self.parts.append(text)
        self.length += len(text)
        self._bullet = False

    def bullet(self) -> None:
        """Begin a list item: its first block stands beside the mark."""
        self.words("- ")
        self._bullet = True

    def begin_heading(self, level: int) -> None:
        """What follows, up to :meth:`end_heading`, is a heading."""
        if self._heading is None:
            self._heading = (self.length, level, len(self.parts))

    def end_heading(self) -> None:
        """The heading is over."""
        if self._heading is not None:
            place, level, first = self._heading
            words = "".join(self.parts[first:]).strip().strip(_MARKS)
            if words:
                self.headings.append((place, level, words))
            self._heading = None

    def gap(self, newlines: int) -> None:
        """Ask for a line (1) or paragraph (2) end before the next words."""
        if self._bullet:
            return
        self.space = False
        if self.newlines < newlines:
            self._add("\n" * (newlines - self.newlines))
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
            self._add(" ")
        self._add(body)
        self.newlines = 0
        self.space = flat.endswith(" ")

    def verbatim(self, text: str) -> None:
        """Add preformatted text as it is."""
        text = text.replace("\f", "\n")
        if text:
            self._add(text)
            self.newlines = 2 if text.endswith("\n\n") else int(text.endswith("\n"))
            self.space = False


def html_page(markup: str, *, keep_boilerplate: bool = False) -> Page:
    """Return the title, the text and the headings of a page.

    Where hardly anything would be left without menus and footers, all is kept.
    """
    from bs4 import BeautifulSoup

    soup = BeautifulSoup(markup, "html.parser")
    found = soup.title or soup.h1
    title = clean(" ".join(found.get_text(" ").split())) if found is not None else ""
    page = None
    if not keep_boilerplate:
        boilerplate = Boilerplate(soup)
        page = _page(title, boilerplate.main, boilerplate.drops)
        if len(page.text) < boilerplate.least:
            page = None
    return page or _page(title, soup, lambda tag: False)


def html_pages(markup: str) -> Page:
    """Return what a document says that a program wrote as XHTML, ``<div class="page">`` a page.

    Pages are apart by form feeds.  ``meta`` has what its head says, names in small letters.
    """
    from bs4 import BeautifulSoup

    soup = BeautifulSoup(markup, "html.parser")
    meta = {
        str(tag["name"]).lower(): str(tag["content"])
        for tag in soup.find_all("meta", limit=1000)
        if tag.has_attr("name") and tag.has_attr("content")
    }
    title = clean(soup.title.get_text()) if soup.title is not None else ""
    pages = soup.find_all("div", class_="page") or [soup.body or soup]
    found = [_page(title, page, lambda tag: False) for page in pages]
    headings: list[Heading] = []
    place = 0
    for page in found:
        headings += [(place + start, level, words) for start, level, words in page.headings]
        place += len(page.text) + 1
    return Page(title or None, "\f".join(page.text for page in found), headings, meta)


def _page(title: str, root: Tag, drops: Callable[[Tag], bool]) -> Page:
    writer = _Writer()
    _write_html(root, writer, drops)
    text = clean("".join(writer.parts))
    lead = len(text) - len(text.lstrip())
    text = text.strip()
    headings = [(max(place - lead, 0), level, words) for place, level, words in writer.headings]
    return Page(title or None, text, headings)


def _write_html(root: Tag, writer: _Writer, drops: Callable[[Tag], bool]) -> None:
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
            if tag.name in _HEADINGS:
                writer.end_heading()
            _boundary(tag.name, writer)
        elif isinstance(node, Tag):
            if node.name in _DROPPED or hidden(node) or drops(node):
                continue
            _open(node, writer)
            # Deeper than any page that was meant: looking ahead would take ever longer.
            if node.name in ("td", "th") and len(stack) < _DEEP:
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


def _open(tag: Tag, writer: _Writer) -> None:
    _boundary(tag.name, writer)
    if tag.name == "br" and writer.newlines == 0:
        writer.gap(1)
    elif tag.name == "li":
        writer.bullet()
    elif tag.name in _HEADINGS:
        writer.begin_heading(_HEADINGS[tag.name])


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
