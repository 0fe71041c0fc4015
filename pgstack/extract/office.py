"""Text out of PDF, office documents, mail and books, by kreuzberg.

Data in and out
    ``data``        the file
    ``media_type``  one of :data:`FORMATS`
    returns         :class:`Document`

kreuzberg says what stands in a document as a tree of nodes; the text is put together from
them here, so that the map is exact.  Pages come from kreuzberg's own count.
Call it in a process with limits: :class:`pgstack.extract.Extractor`.
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Any

from pgstack.extract.compose import Composer, one_line
from pgstack.extract.document import Document, Options, Unreadable
from pgstack.extract.formats import BINARIES

if TYPE_CHECKING:
    import kreuzberg

_PDF = "application/pdf"
_SHEETS = {BINARIES[".xlsx"], BINARIES[".xls"], BINARIES[".ods"]}
_SLIDES = {BINARIES[".pptx"], BINARIES[".ppt"], BINARIES[".odp"]}
_MAIL = {"message/rfc822", BINARIES[".msg"]}

FORMATS = frozenset(BINARIES.values()) | {"message/rfc822", "application/x-ipynb+json"}


def read(data: bytes, media_type: str, options: Options) -> Document:
    """Return the text of a document, or raise :class:`Unreadable`."""
    marker = f"\n{secrets.token_hex(16)}:{{page_num}}:\n"  # no document can contain it
    result = _extract(data, media_type, marker)
    composer = Composer()
    if media_type == _PDF:
        _pages(result, composer)
    elif media_type in _SHEETS:
        _sheets(result, composer)
    elif media_type in _SLIDES and result.metadata.get("pages"):
        _slides(result, marker, composer)
    elif media_type in _MAIL:
        _mail(result, composer)
    else:
        _nodes(result, composer)
    text, parts = composer.finish()
    if not text.strip():
        if media_type == _PDF or media_type.startswith("image/"):
            raise Unreadable("no text; it needs OCR")
        raise Unreadable("no text")
    metadata = result.metadata
    title = metadata.get("title") or (metadata.get("subject") if media_type in _MAIL else None)
    return Document(
        title=one_line(str(title)) or None if title else None,
        media_type=media_type,
        text=text,
        parts=parts,
    )


def _extract(data: bytes, media_type: str, marker: str) -> kreuzberg.ExtractionResult:
    import kreuzberg

    config = kreuzberg.ExtractionConfig(
        use_cache=False,
        enable_quality_processing=False,
        include_document_structure=True,
        pages=kreuzberg.PageConfig(
            extract_pages=True,
            insert_page_markers=media_type in _SLIDES,
            marker_format=marker,
        ),
    )
    try:
        return kreuzberg.extract_bytes_sync(data, media_type, config=config)
    except kreuzberg.KreuzbergError as exc:
        kind = media_type.partition("/")
        what = f"a {kind[2].upper()} image that" if kind[0] == "image" else ""
        reason = str(exc).partition("\n")[0]
        raise Unreadable(f"{what} cannot be parsed: {reason}".strip()[:300]) from exc


def _pages(result: kreuzberg.ExtractionResult, composer: Composer) -> None:
    for page in result.pages or ():
        composer.page(page["page_number"])
        composer.block(page["content"])


def _slides(result: kreuzberg.ExtractionResult, marker: str, composer: Composer) -> None:
    mark = marker.partition(":")[0]
    for piece in result.content.split(mark.strip() + ":")[1:]:
        number, _, text = piece.partition(":")
        composer.page(int(number))
        composer.block(text)


def _mail(result: kreuzberg.ExtractionResult, composer: Composer) -> None:
    composer.block(result.content)
    attachments = result.metadata.get("attachments") or []
    if attachments:
        composer.block("Attachments: " + ", ".join(one_line(name) for name in attachments))


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


def _nodes(result: kreuzberg.ExtractionResult, composer: Composer) -> None:
    nodes = _all_nodes(result)
    if not nodes:
        composer.block(result.content)
    for node in nodes:
        content = node["content"]
        kind = content["node_type"]
        if kind in ("heading", "title"):
            composer.heading(int(content.get("level") or 1), content["text"])
        elif kind == "list_item":
            composer.block("- " + content["text"].strip(), gap=1)
        elif kind == "table":
            composer.block(_table(content["grid"]))
        elif content.get("text"):
            composer.block(content["text"])


def _all_nodes(result: kreuzberg.ExtractionResult) -> list[Any]:
    return list(result.document["nodes"]) if result.document else []


def _table(grid: Any) -> str:
    """Return a table, a row a line, cells apart by bars."""
    rows: list[list[str]] = [[""] * grid["cols"] for _ in range(grid["rows"])]
    for cell in grid["cells"]:
        rows[cell["row"]][cell["col"]] = " ".join(cell["content"].split())
    return "\n".join(" | ".join(row).rstrip(" |") for row in rows if any(row))
