"""Reads one file, in this process: the dispatch by format.

Files come from anywhere: call it by :class:`pgstack.extract.Extractor`, in a process with limits.
"""

from __future__ import annotations

from pgstack.extract import charset, feed, formats, markup, office, pdf, tika
from pgstack.extract.compose import parts_of_headings
from pgstack.extract.document import Document, Options
from pgstack.extract.html import html_page

_DEFAULT = Options()
_MAY_BE_FEED = {"application/xml", feed.RSS, feed.ATOM}
_SAYS_ITS_CHARSET = {"text/html", *_MAY_BE_FEED}


def read_bytes(
    data: bytes,
    *,
    name: str,
    media_type: str | None = None,
    options: Options = _DEFAULT,
    by_tika: bool = False,
) -> Document:
    """Return the text of a file called ``name``, or raise :class:`Unreadable`.

    ``media_type``  what its source says it is; bytes and name count more
    ``by_tika``     ``data`` is what Tika says of the file, which is a ``media_type``
    """
    if by_tika:
        return tika.read(data, media_type or "application/octet-stream")
    found = formats.detect(name, data, media_type)
    if found == pdf.MEDIA_TYPE:
        return pdf.read(data, options)
    if found.startswith("image/"):
        return pdf.read_picture(data, found, options)
    if found in office.FORMATS:
        return office.read(data, found, options)
    if found in _MAY_BE_FEED and (document := feed.read(data)) is not None:
        return document
    declared = charset.declared(data) if found in _SAYS_ITS_CHARSET else None
    text, warnings = charset.decode(data, declared)
    title: str | None = None
    headings: list[markup.Heading] = []
    if found == "text/html":
        page = html_page(text, keep_boilerplate=options.keep_boilerplate)
        title, text, headings = page.title, page.text, page.headings
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
