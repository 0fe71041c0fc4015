"""Bytes of a text file to characters.

Data in and out
    ``data``      the file
    ``declared``  the charset it claims for itself (HTML's ``<meta>``), or None
    returns       the text and warnings for people

Raises
    Unreadable  the file is no text
"""

from __future__ import annotations

import codecs
import contextlib
import re

from pgstack.extract.compose import clean
from pgstack.extract.document import Unreadable

_BOMS = (  # UTF-32 first: its mark begins with UTF-16's
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def decode(data: bytes, declared: str | None = None) -> tuple[str, tuple[str, ...]]:
    """Return the text of ``data``, cleaned, and what is doubtful about it."""
    warnings: list[str] = []
    text = _decode_marked(data, warnings)
    if text is None:
        _refuse_binary(data)
        text = _decode_unmarked(data, declared, warnings)
    if "\x00" in text:
        warnings.append("NUL characters were removed")
    return clean(text), tuple(warnings)


def _decode_marked(data: bytes, warnings: list[str]) -> str | None:
    for mark, encoding in _BOMS:
        if data.startswith(mark):
            try:
                return data.decode(encoding)
            except UnicodeDecodeError:
                warnings.append(f"not valid {encoding.upper()}: damaged characters were replaced")
                return data.decode(encoding, errors="replace")
    return None


def _refuse_binary(data: bytes) -> None:
    head = data[:65536]
    nuls = head.count(0)
    # One stray NUL is damage, many are another kind of file.
    if nuls and (nuls > len(head) // 1000 or (len(head) < 1000 and nuls > 1)):
        raise Unreadable("binary data, not text")
    odd = sum(head.count(code) for code in range(1, 32) if code not in (8, 9, 10, 12, 13, 27))
    if odd > len(head) // 20:
        raise Unreadable("binary data, not text")


def _decode_unmarked(data: bytes, declared: str | None, warnings: list[str]) -> str:
    if declared:
        with contextlib.suppress(UnicodeDecodeError, LookupError):
            return data.decode(declared)
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        pass
    for guess in ("cp1252", "latin-1"):
        with contextlib.suppress(UnicodeDecodeError):
            text = data.decode(guess)
            warnings.append(f"not UTF-8; read as {guess}, accents may be wrong")
            return text
    raise Unreadable("cannot be decoded")  # pragma: no cover - latin-1 takes every byte


_CHARSET = re.compile(rb"""<meta[^>]{0,200}?charset\s*=\s*["']?\s*([\w.:-]{1,40})""", re.I)


def html_charset(data: bytes) -> str | None:
    """Return the charset that an HTML page claims, as browsers understand it, or None."""
    match = _CHARSET.search(data[:4096])
    if match is None:
        return None
    name = match.group(1).decode("ascii", errors="replace").lower()
    # As browsers do: a page that calls itself Latin-1 is Windows-1252.
    return {"iso-8859-1": "cp1252", "latin-1": "cp1252", "ascii": "cp1252"}.get(name, name)
