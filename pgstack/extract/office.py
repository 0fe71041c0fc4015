"""Text out of office documents, mail, books and notebooks, by kreuzberg.

Data in and out
    ``data``        the file
    ``media_type``  one of :data:`FORMATS`
    returns         :class:`Document`

kreuzberg says what stands in a document as a list of nodes; the text is put together from
them here, so that the map is exact.  Nothing embedded is opened: attachments are named only.
Call it in a process with limits: :class:`pgstack.extract.Extractor`.
"""

from __future__ import annotations

import io
import secrets
import struct
import zipfile
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from pgstack.extract.compose import Composer, clean, one_line
from pgstack.extract.document import Document, Options, Unreadable
from pgstack.extract.formats import BINARIES

if TYPE_CHECKING:
    import kreuzberg

_SHEETS = {BINARIES[".xlsx"], BINARIES[".xls"], BINARIES[".ods"]}
_SLIDES = {BINARIES[".pptx"], BINARIES[".ppt"], BINARIES[".odp"]}
_MAIL = {"message/rfc822", BINARIES[".msg"]}

FORMATS = frozenset(
    media_type for media_type in BINARIES.values() if not media_type.startswith("image/")
) - {BINARIES[".pdf"]} | {"message/rfc822", "application/x-ipynb+json"}

_MAX_UNPACKED = 500_000_000  # bytes
_MAX_FILES = 50_000
_MAX_CELLS = 5_000_000  # of one table; more is a bomb, or no text to search


def read(data: bytes, media_type: str, options: Options) -> Document:
    """Return the text of a document, or raise :class:`Unreadable`."""
    _refuse_bomb(data)
    marker = secrets.token_hex(16)  # no document can contain it
    slides = media_type in _SLIDES
    result = call(data, media_type, marker=marker if slides else None)
    composer = Composer()
    if media_type in _SHEETS:
        _sheets(result, composer)
    elif slides and marker in result.content:
        titles = _slide_titles(data, media_type)
        _slides(result.content.split(marker)[1:], titles, composer)
    elif media_type in _MAIL:
        _mail(result, composer)
    else:
        _nodes(result, composer, options)
    text, parts = composer.finish()
    if not text.strip():
        raise Unreadable("no text")
    return Document(_title(result, media_type, composer), media_type, text, parts)


def _refuse_bomb(data: bytes) -> None:
    """Refuse a packed document that says of itself that it unpacks to too much."""
    if not data.startswith(b"PK"):
        return
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            files = archive.infolist()
    except (zipfile.BadZipFile, ValueError, struct.error, NotImplementedError):
        return  # kreuzberg says what is wrong with it
    size = sum(file.file_size for file in files)
    if size > _MAX_UNPACKED or len(files) > _MAX_FILES:
        raise Unreadable(f"unpacks to {size / 1e6:.0f} MB in {len(files)} files")


def call(data: bytes, media_type: str, *, marker: str | None = None) -> kreuzberg.ExtractionResult:
    """Have kreuzberg read ``data``: no OCR, nothing embedded.

    ``marker``  stands before each page in the text: itself, the number, itself, a line end
    """
    import kreuzberg

    config = kreuzberg.ExtractionConfig(
        use_cache=False,
        enable_quality_processing=False,
        include_document_structure=True,
        pages=kreuzberg.PageConfig(
            extract_pages=True,
            insert_page_markers=marker is not None,
            marker_format=f"\n{marker}{{page_num}}:\n" if marker else None,
        ),
        output_format="plain",
    )
    # Both are missing in the class's own description of its arguments.
    config.disable_ocr = True  # type: ignore[attr-defined]
    config.max_archive_depth = 0
    try:
        return kreuzberg.extract_bytes_sync(data, media_type, config=config)
    except kreuzberg.KreuzbergError as exc:
        raise Unreadable(_reason(str(exc))) from exc


def _reason(message: str) -> str:
    """Return kreuzberg's error for people: it nests its own names in it, and says it twice."""
    if "password" in message.lower() or "encrypted" in message.lower():
        return "protected by a password"
    words = message.partition("\n")[0]
    pieces: list[str] = []
    for piece in words.split(": "):
        if piece not in pieces and piece not in _NOISE:
            pieces.append(piece)
    return f"cannot be parsed: {': '.join(pieces)}"[:300]


_NOISE = {"ParsingError", "Parsing error", "Extraction failed", "KreuzbergError"}


def _title(result: kreuzberg.ExtractionResult, media_type: str, composer: Composer) -> str | None:
    metadata = result.metadata
    title = metadata.get("subject") if media_type in _MAIL else metadata.get("title")
    # A sheet's name is no title, a heading on top is one.
    return one_line(str(title or "")) or (None if media_type in _SHEETS else composer.first_words)


def _slides(pieces: Iterable[str], titles: set[str], composer: Composer) -> None:
    for piece in pieces:
        number, _, text = piece.partition(":")
        composer.page(int(number))
        composer.leave_headings()
        first, _, rest = clean(text).strip().partition("\n")
        if one_line(first) in titles:
            composer.heading(1, first)
            composer.block(rest)
        else:
            composer.block(text)


def _slide_titles(data: bytes, media_type: str) -> set[str]:
    """Return what kreuzberg takes for titles of slides, which it tells in Markdown only."""
    import kreuzberg

    config = kreuzberg.ExtractionConfig(
        use_cache=False, include_document_structure=True, output_format="markdown"
    )
    config.disable_ocr = True  # type: ignore[attr-defined]
    config.max_archive_depth = 0
    try:
        result = kreuzberg.extract_bytes_sync(data, media_type, config=config)
    except kreuzberg.KreuzbergError:
        return set()
    contents = [node["content"] for node in _all_nodes(result)]
    return {one_line(content["text"]) for content in contents if content["node_type"] == "heading"}


def _mail(result: kreuzberg.ExtractionResult, composer: Composer) -> None:
    composer.block(result.content)
    names = [one_line(str(name)) for name in result.metadata.get("attachments") or []]
    if names:
        composer.block("Attachments: " + ", ".join(names))


def _sheets(result: kreuzberg.ExtractionResult, composer: Composer) -> None:
    number = 0
    for node in _all_nodes(result):
        content = node["content"]
        if content["node_type"] == "heading":
            number += 1
            composer.page(number)
            composer.heading(1, content["text"])
        elif content["node_type"] == "table":
            composer.block(_table(content["grid"]))


def _nodes(result: kreuzberg.ExtractionResult, composer: Composer, options: Options) -> None:
    nodes = _all_nodes(result)
    if not nodes:
        composer.block(result.content)
    for node in nodes:
        content = node["content"]
        kind = content["node_type"]
        if node.get("content_layer") in ("header", "footer") and not options.keep_boilerplate:
            continue
        if kind in ("heading", "title"):
            composer.heading(int(content.get("level") or 1), content["text"])
        elif kind == "list_item":
            composer.block("- " + content["text"].strip(), gap=1)
        elif kind == "table":
            composer.block(_table(content["grid"]))
        elif kind == "image":
            if content.get("description"):
                composer.block(f"[Image: {one_line(content['description'])}]")
        elif content.get("text"):
            composer.block(content["text"])


def _all_nodes(result: kreuzberg.ExtractionResult) -> list[Any]:
    return list(result.document["nodes"]) if result.document else []


def _table(grid: Any) -> str:
    """Return a table, a row a line, cells apart by bars."""
    if grid["rows"] * grid["cols"] > _MAX_CELLS:
        raise Unreadable(f"has a table of {grid['rows']} by {grid['cols']} cells")
    rows: list[list[str]] = [[""] * grid["cols"] for _ in range(grid["rows"])]
    for cell in grid["cells"]:
        rows[cell["row"]][cell["col"]] = " ".join(cell["content"].split())
    return "\n".join(" | ".join(row).rstrip(" |") for row in rows if any(row))
