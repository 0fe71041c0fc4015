"""Text out of PDF, page by page, and of pictures.

Data in and out
    ``data``     the file
    ``options``  languages of OCR and its time; pages beyond that are left out
    returns      :class:`Document` with one part a page

Pages without text, or with text in a font that does not say which characters it draws, go to
OCR where there is one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from pgstack.extract import ocr
from pgstack.extract.compose import Composer, clean, one_line
from pgstack.extract.document import Document, Options, Unreadable
from pgstack.extract.office import call
from pgstack.extract.sandbox import processor_seconds

MEDIA_TYPE = "application/pdf"

_LARGEST = 3400  # points, 120 cm: a larger page makes too large a picture for OCR


def read(data: bytes, options: Options) -> Document:
    """Return the text of a PDF, or raise :class:`Unreadable`."""
    result = call(data, MEDIA_TYPE)
    texts = {page["page_number"]: page["content"] for page in result.pages or ()}
    unread = [number for number, text in texts.items() if not text.strip() or garbled(text)]
    texts.update(dict.fromkeys(unread, ""))
    sizes = {
        page["number"]: max(page.get("dimensions") or (0,))
        for page in result.metadata.get("pages", {}).get("pages") or ()
    }
    warnings = []
    problem = ocr.missing(options.ocr)
    if unread and problem is None:
        drawable = [number for number in unread if sizes.get(number, 0) <= _LARGEST]
        warnings += _by_ocr(data, texts, drawable, options)
    if not any(text.strip() for text in texts.values()):
        if problem is not None and texts:
            raise Unreadable(f"no text; it needs OCR: {problem}")
        raise Unreadable("no text")
    if unread and problem is not None:
        warnings.append(f"no text on {_numbers(unread)}; it needs OCR: {problem}")
    composer = Composer()
    hyphenated = _hyphenated(texts.values())
    for number, text in sorted(texts.items()):
        composer.page(number)
        composer.block(dehyphenate(text, hyphenated))
    text, parts = composer.finish()
    title = one_line(str(result.metadata.get("title") or ""))
    return Document(title or None, MEDIA_TYPE, text, parts, tuple(warnings))


def read_picture(data: bytes, media_type: str, options: Options) -> Document:
    """Return the text in a picture, or raise :class:`Unreadable`."""
    kind = media_type.partition("/")[2].upper()
    problem = ocr.missing(options.ocr)
    if problem is not None:
        raise Unreadable(f"a {kind} image; its text needs OCR: {problem}")
    ocr.begin(options.ocr_seconds)
    try:
        text = clean(ocr.picture(data, media_type, options.ocr)).strip()
    except Unreadable as exc:
        raise Unreadable(f"a {kind} image; {exc}") from None
    if not text:
        raise Unreadable(f"a {kind} image; OCR found no text in it")
    return Document(None, media_type, text.replace("\f", "\n"))


def _by_ocr(
    data: bytes, texts: dict[int, str], numbers: Sequence[int], options: Options
) -> list[str]:
    """Fill ``texts`` with what OCR reads on the pages ``numbers``; return warnings."""
    path = Path("document.pdf")  # in the process's own folder: pages are drawn from a file
    path.write_bytes(data)
    failed: list[int] = []
    end = ocr.begin(options.ocr_seconds)
    try:
        for place, number in enumerate(numbers):
            if processor_seconds() > end:
                rest = _numbers(numbers[place:])
                return [f"OCR took too long: {rest} of {len(texts)} were not read"]
            try:
                texts[number] = ocr.page(path, number, options.ocr)
            except Unreadable:
                failed.append(number)
    finally:
        path.unlink()
    return [f"OCR failed on {_numbers(failed)}"] if failed else []


def _numbers(numbers: Sequence[int]) -> str:
    """Return page numbers for people."""
    if len(numbers) == 1:
        return f"page {numbers[0]}"
    if list(numbers) == list(range(numbers[0], numbers[-1] + 1)):
        return f"pages {numbers[0]} to {numbers[-1]}"
    shown = ", ".join(map(str, numbers[:10]))
    return f"pages {shown}" + (f" and {len(numbers) - 10} more" if len(numbers) > 10 else "")


# --- what fonts do to text ----------------------------------------------------------------

# Characters that stand for nothing: controls, private use, replacement.
_SENSELESS = re.compile("[\x00-\x08\x0e-\x1f\x7f-\x9f\ue000-\uf8ff\ufffd]")
_HYPHEN = "\x02"  # PDFium's mark for a hyphen at the end of a line, which it leaves out
_BROKEN = re.compile(f"(\\w+){_HYPHEN}[\r\n]*(\\w+)")


def garbled(text: str) -> bool:
    """Say whether a page's text are numbers of glyphs rather than characters."""
    drawn = len(text) - sum(text.count(space) for space in " \t\r\n")
    return len(_SENSELESS.findall(text)) > drawn * 0.25


def _hyphenated(texts: Iterable[str]) -> set[str]:
    """Return the words that the document writes with a hyphen inside a line, small letters."""
    words: set[str] = set()
    for text in texts:
        words.update(word.lower() for word in re.findall(r"\w+-\w+", text))
    return words


def dehyphenate(text: str, hyphenated: set[str]) -> str:
    """Join the words that were broken at the ends of lines; take out senseless characters.

    A word keeps its hyphen where the document writes it so elsewhere, or where what follows
    begins with a capital or a digit.
    """

    def join(match: re.Match[str]) -> str:
        left, right = match.groups()
        whole = right[0].islower() and f"{left}-{right}".lower() not in hyphenated
        return f"{left}{right}" if whole else f"{left}-{right}"

    # Twice: a word broken at both ends shares its middle with its neighbours.
    text = _BROKEN.sub(join, _BROKEN.sub(join, text)).replace(_HYPHEN, "-")
    return re.sub("[\x00-\x08\x0e-\x1f\x7f]", "", text)
