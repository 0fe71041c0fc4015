"""What of an HTML page is not its text: menus, page headers and footers, cookie bars.

The rules look at what pages say of their parts: elements (``nav``, ``footer`` ...), roles and
words in ``class`` and ``id``.  A word counts only where little of the page would go with it.
Measured on pages of Wikipedia, Docusaurus and DocBook: tests/unit/test_extract_html.py.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bs4 import BeautifulSoup
    from bs4.element import Tag

_BODIES = {"main", "article", "h1"}
_KEPT = {"body", "html", "main", "article", "pre", "code", "h1", "h2", "h3", "h4", "h5", "h6"}
_ELEMENTS: dict[str, Callable[[Tag], bool]] = {
    "nav": lambda tag: True,
    "footer": lambda tag: tag.find_parent("blockquote") is None,
    "header": lambda tag: tag.find(("h1", "h2", "h3")) is None,
    "aside": lambda tag: tag.find_parent(("main", "article")) is None,
}
_ROLES = {
    *("navigation", "banner", "contentinfo", "complementary", "search", "dialog", "alertdialog"),
    *("menu", "menubar", "toolbar", "tablist"),
}
_WORDS = {
    *("nav", "navbar", "navbox", "navigation", "navheader", "navfooter", "menu", "menubar"),
    *("breadcrumb", "breadcrumbs", "sidebar", "footer", "masthead", "cookie", "cookies"),
    *("consent", "gdpr", "advert", "advertisement", "share", "sharing", "social", "newsletter"),
    *("subscribe", "pagination", "pager", "skip", "popup", "modal", "dropdown", "promo"),
    *("noprint", "editsection", "headerlink", "printfooter", "catlinks"),
}
_SPLIT = re.compile(r"[^a-z0-9]+")
_INVISIBLE = re.compile(r"(?:^|;)\s*(?:display\s*:\s*none|visibility\s*:\s*hidden)", re.I)

_LARGEST = 0.3  # of the page's text: what is more is no menu
_STEPS = 1_000_000  # through elements, to measure them; a page made to harm needs more
_LEAST = 200  # characters; what is less makes us keep all


class Boilerplate:
    """Tells what to leave out of one page.

    ``main``   where the text is: the element that says so, or the page
    ``least``  characters that must be left; fewer mean that the rules were wrong
    """

    def __init__(self, soup: BeautifulSoup) -> None:
        self._all = len(soup.get_text())
        self._steps = _STEPS
        found = soup.find_all(_is_main, limit=2)
        # Where two claim it, or it holds little, the page is not written as it should be.
        alone = len(found) == 1 and len(found[0].get_text()) > self._all * _LARGEST
        self.main: Tag = found[0] if alone else soup
        self.least = min(_LEAST, self._all // 10)

    def drops(self, tag: Tag) -> bool:
        """Say whether an element is left out."""
        name = tag.name
        if name in _KEPT:
            return False
        if name in _ELEMENTS:
            return _ELEMENTS[name](tag)
        return (tag.get("role") in _ROLES or not _WORDS.isdisjoint(_words(tag))) and self._small(
            tag
        )

    def _small(self, tag: Tag) -> bool:
        """Say whether little of the page, and nothing of its body, is in an element."""
        from bs4.element import NavigableString, Tag

        if self._steps <= 0:
            return False
        self._steps -= _STEPS // 1000  # to find the end of a deep element takes time, too
        length = 0
        for node in tag.descendants:
            self._steps -= 1
            if isinstance(node, NavigableString):
                length += len(node)
            elif isinstance(node, Tag) and node.name in _BODIES:
                return False
            if length > self._all * _LARGEST or self._steps <= 0:
                return False
        return True


def _is_main(tag: Tag) -> bool:
    return tag.name == "main" or tag.get("role") == "main"


def hidden(tag: Tag) -> bool:
    """Say whether an element is not shown."""
    if not tag.attrs:
        return False
    return (
        "hidden" in tag.attrs
        or tag.get("aria-hidden") == "true"
        or _INVISIBLE.search(str(tag.get("style") or "")[:1000]) is not None
    )


def _words(tag: Tag) -> set[str]:
    """Return the words in an element's classes and id, of those that are short.

    Long names are made of more than what a thing is: ``anchorWithStickyNavbar`` is a heading,
    ``SQL-FOR-UPDATE-SHARE`` a paragraph.
    """
    if not tag.attrs:
        return set()
    words = set()
    for name in [*tag.get_attribute_list("class"), tag.get("id")]:
        parts = _SPLIT.split(str(name or "")[:200].lower())
        if len(parts) <= 2:
            words.update(parts)
    return words
