"""Which format a file is: by its first bytes, then by its name.

Data in and out
    ``name``  a file's name or path; only its last ending counts
    ``data``  its bytes
    returns   a media type that the readers know, or :class:`Unreadable` with the reason
"""

from __future__ import annotations

import re
from pathlib import PurePosixPath

from pgstack.extract.document import Unreadable

# Not from mimetypes: that asks the machine, and .ts would be a video.
TEXTS = {
    ".txt": "text/plain",
    ".text": "text/plain",
    ".log": "text/plain",
    ".md": "text/markdown",
    ".markdown": "text/markdown",
    ".mdown": "text/markdown",
    ".rst": "text/x-rst",
    ".html": "text/html",
    ".htm": "text/html",
    ".xhtml": "text/html",
    ".csv": "text/csv",
    ".tsv": "text/tab-separated-values",
    ".json": "application/json",
    ".jsonl": "application/jsonl",
    ".ndjson": "application/jsonl",
    ".xml": "application/xml",
    ".rss": "application/rss+xml",
    ".atom": "application/atom+xml",
    ".eml": "message/rfc822",
    ".ipynb": "application/x-ipynb+json",
    ".py": "text/x-python",
    ".sql": "application/sql",
    ".css": "text/css",
    ".js": "text/javascript",
}

_WORD = "application/vnd.openxmlformats-officedocument.wordprocessingml.document"
_SLIDES = "application/vnd.openxmlformats-officedocument.presentationml.presentation"
_SHEETS = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"
_OPEN = "application/vnd.oasis.opendocument."

BINARIES = {
    ".pdf": "application/pdf",
    ".docx": _WORD,
    ".pptx": _SLIDES,
    ".xlsx": _SHEETS,
    ".docm": _WORD,
    ".pptm": _SLIDES,
    ".xlsm": _SHEETS,
    ".odt": _OPEN + "text",
    ".ods": _OPEN + "spreadsheet",
    ".odp": _OPEN + "presentation",
    ".doc": "application/msword",
    ".ppt": "application/vnd.ms-powerpoint",
    ".xls": "application/vnd.ms-excel",
    ".rtf": "application/rtf",
    ".epub": "application/epub+zip",
    ".msg": "application/vnd.ms-outlook",
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".tif": "image/tiff",
    ".tiff": "image/tiff",
    ".bmp": "image/bmp",
    ".gif": "image/gif",
    ".webp": "image/webp",
}

_OTHERS = (".zip", ".gz", ".bz2", ".xz", ".zst", ".7z", ".tar", ".tgz", ".mp3", ".mp4")

_ZIP = b"PK\x03\x04"
_OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"

# First bytes, media type or None where no text is in it, its name for people.
_MAGIC: tuple[tuple[bytes, str | None, str], ...] = (
    (b"%PDF-", "application/pdf", "a PDF"),
    (b"{\\rtf", "application/rtf", "an RTF document"),
    (b"\x89PNG\r\n", "image/png", "a PNG image"),
    (b"\xff\xd8\xff", "image/jpeg", "a JPEG image"),
    (b"GIF8", "image/gif", "a GIF image"),
    (b"II*\x00", "image/tiff", "a TIFF image"),
    (b"MM\x00*", "image/tiff", "a TIFF image"),
    (b"\x1f\x8b", None, "gzip data"),
    (b"BZh", None, "bzip2 data"),
    (b"\xfd7zXZ", None, "xz data"),
    (b"(\xb5/\xfd", None, "zstd data"),
    (b"7z\xbc\xaf\x27\x1c", None, "a 7-Zip archive"),
    (b"\x7fELF", None, "a program"),
    (b"SQLite format 3\x00", None, "an SQLite database"),
)

# What stands in the list of contents of a ZIP file tells which document it is.
_IN_ZIP = (
    (b"word/document", _WORD),
    (b"ppt/presentation", _SLIDES),
    (b"xl/workbook", _SHEETS),
    (b"META-INF/container.xml", "application/epub+zip"),
)
# Names of streams in an OLE file, UTF-16.
_IN_OLE = (
    ("__substg1.0_", "application/vnd.ms-outlook"),
    ("WordDocument", "application/msword"),
    ("Workbook", "application/vnd.ms-excel"),
    ("PowerPoint Document", "application/vnd.ms-powerpoint"),
)


def ending(name: str) -> str:
    """Return a name's ending in small letters, with its dot, or ""."""
    return PurePosixPath(name).suffix.lower()


def detect(name: str, data: bytes, declared: str | None = None) -> str:
    """Return the media type of ``data``; ``declared`` counts where neither bytes nor name tell."""
    suffix = ending(name)
    found = _by_bytes(data)
    if found is not None:
        return found
    if suffix == ".pdf" and b"%PDF-" in data[:1024]:
        return BINARIES[suffix]  # readers allow something before it
    if suffix in BINARIES and not data:
        raise Unreadable("is empty")
    if suffix in BINARIES or suffix in _OTHERS:
        raise Unreadable(f"not the {suffix} file its name says")
    if suffix in TEXTS:
        return TEXTS[suffix]
    if declared in _DECLARABLE:
        return declared
    return "text/html" if looks_like_html(data) else "text/plain"


_DECLARABLE = frozenset(TEXTS.values())


def _by_bytes(data: bytes) -> str | None:
    """Return the media type of a file that is no text; None: it may be text."""
    if data.startswith(_ZIP):
        return _zip_type(data)
    if data.startswith(_OLE):
        return _ole_type(data)
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "image/webp"
    if data[:2] == b"BM" and data[6:10] == b"\0\0\0\0" and len(data) > 26:
        return "image/bmp"
    for magic, media_type, what in _MAGIC:
        if data.startswith(magic):
            if media_type is None:
                raise Unreadable(f"{what}, not text")
            return media_type
    return None


def _zip_type(data: bytes) -> str:
    # OpenDocument and EPUB begin with a file "mimetype" that is not compressed.
    if data[30:38] == b"mimetype":
        declared = data[38:138]
        for media_type in BINARIES.values():
            if declared.startswith(media_type.encode()):
                return media_type
    for mark, media_type in _IN_ZIP:
        if mark in data:
            return media_type
    raise Unreadable("a ZIP archive, not a document")


def _ole_type(data: bytes) -> str:
    if "EncryptedPackage".encode("utf-16-le") in data:
        raise Unreadable("protected by a password")
    for mark, media_type in _IN_OLE:
        if mark.encode("utf-16-le") in data:
            return media_type
    raise Unreadable("an old office document of no known kind")


def guess(name: str, data: bytes, declared: str | None = None) -> str:
    """Return the media type of a file that somebody else reads."""
    try:
        return detect(name, data, declared)
    except Unreadable:
        return declared or "application/octet-stream"


def may_need_ocr(name: str, data: bytes) -> bool:
    """Say whether a file may have pictures of text: it is a PDF or an image."""
    try:
        media_type = detect(name, data[:4096])
    except Unreadable:
        return False
    return media_type == BINARIES[".pdf"] or media_type.startswith("image/")


def looks_like_html(data: bytes) -> bool:
    """Say whether a file begins as HTML pages do."""
    return (
        re.match(rb"(?:\xef\xbb\xbf)?\s*<(?:!doctype\s+html|html)\b", data[:1000], re.I) is not None
    )
