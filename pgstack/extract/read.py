"""Reads one file, in this process: the dispatch by format.

Files come from anywhere: call it by :class:`pgstack.extract.Extractor`, in a process with limits.
"""

from __future__ import annotations

from pgstack.extract import charset, formats, markup
from pgstack.extract.compose import parts_of_headings
from pgstack.extract.document import Document, Options
from pgstack.extract.html import html_text

_DEFAULT = Options()


def read_bytes(
    data: bytes, *, name: str, media_type: str | None = None, options: Options = _DEFAULT
) -> Document:
    """Return the text of a file called ``name``, or raise :class:`Unreadable`.

    ``media_type`` is what its source says it is; bytes and name count more.
    """
    found = formats.detect(name, data, media_type)
    if found in _office_formats():
        from pgstack.extract import office

        return office.read(data, found, options)
    declared = charset.html_charset(data) if found == "text/html" else None
    text, warnings = charset.decode(data, declared)
    title: str | None = None
    headings: list[markup.Heading] = []
    if found == "text/html":
        title, text = html_text(text)
    elif found == "text/markdown":
        title, headings = markup.markdown(text)
    elif found == "text/x-rst":
        title, headings = markup.rst(text)
    return Document(
        title=title,
        media_type=found,
        text=text,
        parts=parts_of_headings(text, headings),
        warnings=warnings,
    )


def _office_formats() -> frozenset[str]:
    from pgstack.extract import office

    return office.FORMATS
