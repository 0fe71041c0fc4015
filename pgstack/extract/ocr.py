"""Text in pictures, by the Tesseract that kreuzberg brings; its language data must be there.

Data in and out
    ``languages``  Tesseract's names, as ``eng+deu``
    ``folder``     where ``eng.traineddata`` and its like are

kreuzberg's wheel has Tesseract's program inside but no data: that is the system's (Debian:
``tesseract-ocr-eng``, ``tesseract-ocr-deu`` ...), or what ``TESSDATA_PREFIX`` names.
"""

from __future__ import annotations

import os
import re
import struct
import zlib
from pathlib import Path

from pgstack.extract.document import Unreadable
from pgstack.extract.sandbox import limit_processor, processor_seconds

_DPI = 200
_LOOK_DPI = 72
_TO_END = 30  # seconds: the page at hand, and what comes after OCR
_FEW = 20  # a white page has 7, one with a single word 172
_LANGUAGES = re.compile(r"[A-Za-z0-9_]+(\+[A-Za-z0-9_]+)*")


def data_folder() -> str | None:
    """Return the folder with Tesseract's language data, or None."""
    places = [os.environ.get("TESSDATA_PREFIX", "")]
    # The newest version first.
    places += sorted(map(str, Path("/usr/share/tesseract-ocr").glob("*/tessdata")), reverse=True)
    places += ["/usr/share/tessdata", "/usr/local/share/tessdata", "/opt/homebrew/share/tessdata"]
    for place in places:
        if place and any(Path(place).glob("*.traineddata")):
            return place
    return None


def missing(languages: str) -> str | None:
    """Return why OCR cannot be done, or None."""
    if not languages:
        return "OCR is switched off"
    if not _LANGUAGES.fullmatch(languages):
        return f"{languages!r} is no list of languages such as eng+deu"
    folder = data_folder()
    if folder is None:
        return "Tesseract is not installed: apt install tesseract-ocr"
    for language in languages.split("+"):
        if not (Path(folder) / f"{language}.traineddata").is_file():
            package = language.lower().replace("_", "-")
            return f"no data for {language!r}: apt install tesseract-ocr-{package}"
    return None


def begin(seconds: int) -> float:
    """Allow ``seconds`` of processor time for OCR, and some to end; return when they are over."""
    limit_processor(seconds + _TO_END)
    return processor_seconds() + seconds


def picture(data: bytes, media_type: str, languages: str) -> str:
    """Return the text in a picture."""
    import kreuzberg

    config = kreuzberg.ExtractionConfig(
        use_cache=False,
        enable_quality_processing=False,
        ocr=kreuzberg.OcrConfig(
            backend="tesseract",
            language=languages,
            tesseract_config=kreuzberg.TesseractConfig(
                language=languages, output_format="text", use_cache=False
            ),
        ),
    )
    try:
        return kreuzberg.extract_bytes_sync(data, media_type, config=config).content
    except kreuzberg.KreuzbergError as exc:
        raise Unreadable(f"OCR failed: {str(exc).partition(': ')[2]}"[:300]) from exc


def page(path: Path, number: int, languages: str) -> str:
    """Return the text on page ``number`` (from 1) of the PDF at ``path``, as a picture of it."""
    import kreuzberg

    try:
        if _blank(kreuzberg.render_pdf_page(path, number - 1, dpi=_LOOK_DPI)):
            return ""  # OCR would look for letters for a second
        data = kreuzberg.render_pdf_page(path, number - 1, dpi=_DPI)
    except Exception as exc:  # its errors are of many kinds
        raise Unreadable(f"page {number} cannot be drawn: {exc}"[:300]) from exc
    return picture(data, "image/png", languages)


def _blank(png: bytes) -> bool:
    """Say whether a picture has one colour: few different bytes, when unpacked."""
    packed = []
    place = len(b"\x89PNG\r\n\x1a\n")
    while place < len(png):
        size, kind = struct.unpack_from(">I4s", png, place)
        if kind == b"IDAT":
            packed.append(png[place + 8 : place + 8 + size])
        place += 12 + size
    return len(set(zlib.decompress(b"".join(packed)))) < _FEW
