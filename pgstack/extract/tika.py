"""Reading by an Apache Tika server, in place of kreuzberg.

Data in and out
    ``url``   address of the server, as ``http://localhost:9998``
    ``data``  the file
    returns   what Tika answers to ``PUT /tika``: XHTML, which :func:`read` makes a
              :class:`Document` of, in the process with limits

Raises
    Unreadable  Tika cannot read the file, or it has no text
    Crashed     the server is not there, or busy: it may succeed when tried again
"""

from __future__ import annotations

import time
import urllib.parse

from pgstack.extract import charset
from pgstack.extract.compose import clean, one_line, parts_of_headings
from pgstack.extract.document import Crashed, Document, Options, Unreadable
from pgstack.extract.html import html_pages

_CONNECT_SECONDS = 10.0
_BUSY = {429, 502, 503, 504}
_REFUSED = {
    401: "asks for a password",
    403: "refuses us",
    404: "has no /tika: is the address right?",
    405: "has no /tika: is the address right?",
    413: "takes no file of this size",
    415: "does not know the format",
    422: "cannot read it: a format it does not know, or protected by a password",
}


def fetch(data: bytes, *, name: str, options: Options, seconds: float, max_bytes: int) -> bytes:
    """Have the server of ``options.tika_url`` read a file; return its XHTML."""
    import httpx

    url = str(options.tika_url).rstrip("/")
    server = f"the Tika server {_place(url)}"
    end = time.monotonic() + seconds  # httpx limits each wait, not all of them
    timeout = httpx.Timeout(seconds, connect=min(seconds, _CONNECT_SECONDS))
    try:
        with httpx.stream(
            "PUT", f"{url}/tika", content=data, headers=_headers(name, options), timeout=timeout
        ) as answer:
            _check(answer.status_code, server)
            received = bytearray()
            for block in answer.iter_bytes():
                received += block
                if len(received) > max_bytes:
                    raise Unreadable(f"gives more than {max_bytes / 1e6:.0f} MB of text")
                if time.monotonic() > end:
                    raise Crashed(f"{server} took more than {seconds:g} s")
    except httpx.TimeoutException:
        raise Crashed(f"{server} took more than {seconds:g} s") from None
    except (httpx.HTTPError, httpx.InvalidURL) as exc:
        raise Crashed(f"{server} cannot be reached: {type(exc).__name__}") from None
    if not received.strip():
        raise Unreadable("no text")
    return bytes(received)


def read(xhtml: bytes, media_type: str) -> Document:
    """Return what Tika's XHTML says: ``<div class="page">`` are pages, ``h1`` to ``h6`` headings.

    ``media_type`` is ours; Tika's counts where it gives one.
    """
    markup, warnings = charset.decode(xhtml, charset.declared(xhtml))
    found = html_pages(markup)
    if not found.text.strip():
        raise Unreadable("no text")
    told = found.meta.get("content-type", "").partition(";")[0].strip()
    title = one_line(found.meta.get("dc:title") or found.title or "")
    return Document(
        title or None,
        told or media_type,
        found.text,
        parts_of_headings(found.text, found.headings),
        warnings,
    )


def _headers(name: str, options: Options) -> dict[str, str]:
    # Only the name, which Tika takes for a hint: a wrong type would mislead it.
    quoted = urllib.parse.quote(name.encode("utf-8", errors="replace"), safe="")
    headers = {
        "Accept": "text/html",
        "Content-Disposition": f"attachment; filename*=UTF-8''{quoted}",
        "X-Tika-Skip-Embedded": "true",
    }
    if options.ocr:
        headers["X-Tika-OCRLanguage"] = clean(options.ocr)
    else:
        headers |= {"X-Tika-OCRskipOcr": "true", "X-Tika-PDFOcrStrategy": "no_ocr"}
    return headers


def _check(status: int, server: str) -> None:
    if status in _BUSY:
        raise Crashed(f"{server} is busy ({status})")
    if status in _REFUSED:
        raise Unreadable(f"{server} {_REFUSED[status]} ({status})")
    if status >= 500:
        raise Unreadable(f"{server} failed on it ({status})")
    if status not in (200, 204):
        raise Unreadable(f"{server} answered {status}")


def _place(url: str) -> str:
    """Return host and port: what else the address has may be secret."""
    try:
        parts = urllib.parse.urlsplit(url)
        return f"{parts.hostname}:{parts.port}" if parts.port else str(parts.hostname)
    except ValueError:
        return "of tika_url"
