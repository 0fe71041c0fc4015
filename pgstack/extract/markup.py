"""Titles and headings of Markdown and reStructuredText, which stay as they are written.

Data in and out
    ``text``  the file, cleaned
    returns   its title or None, and its headings: (its line's place, level from 1, words)
"""

from __future__ import annotations

import re

Heading = tuple[int, int, str]

_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})")
_HASHES = re.compile(r" {0,3}(#{1,6})(?:[ \t]+(.*?))?(?:[ \t]+#+)?[ \t]*$")
_UNDERLINE = re.compile(r" {0,3}(=+|-+)[ \t]*$")
_NO_PARAGRAPH = re.compile(r" {0,3}(?:[-*+>|]|\d+[.)]\s)|\t| {4}")
_RST_LINE = re.compile(r"([!-/:-@\[-`{-~])\1{2,}[ \t]*$")


def markdown(text: str) -> tuple[str | None, list[Heading]]:
    """Return the title (front matter, else the first heading of level 1) and the headings."""
    headings: list[Heading] = []
    start, title = _front_matter(text)
    fence = ""
    before: tuple[int, str] | None = None  # the line above, if it may be a heading
    for place, line in _lines(text, start):
        if fence:
            if line.strip().startswith(fence) and not line.strip().strip(fence[0]):
                fence = ""
            continue
        if match := _FENCE.match(line):
            fence, before = match.group(1), None
        elif match := _HASHES.match(line):
            headings.append((place, len(match.group(1)), (match.group(2) or "").strip()))
            before = None
        elif before is not None and (match := _UNDERLINE.match(line)):
            headings.append((before[0], 1 if match.group(1)[0] == "=" else 2, before[1]))
            before = None
        else:
            usable = line.strip() and not _NO_PARAGRAPH.match(line)
            before = (place, line.strip()) if usable else None
    if title is None:
        title = next((words for _, level, words in headings if level == 1 and words), None)
    return title, headings


def _front_matter(text: str) -> tuple[int, str | None]:
    """Return where the text proper begins, and the title that stands before it."""
    match = re.match(r"---[ \t]*\n(.{0,20000}?\n)?---[ \t]*(?:\n|$)", text, re.DOTALL)
    if match is None:
        return 0, None
    found = re.search(r"^title:[ \t]*(.+)$", match.group(1) or "", re.MULTILINE)
    title = found.group(1).strip().strip("'\"") if found else ""
    return match.end(), title or None


def rst(text: str) -> tuple[str | None, list[Heading]]:
    """Return the title (the first heading) and the headings; levels by order of their marks."""
    headings: list[Heading] = []
    marks: list[str] = []  # a line's character, twice where there is a line above as well
    lines = list(_lines(text, 0))
    number = 0
    while number < len(lines):
        place, line = lines[number]
        over = _RST_LINE.match(line)
        if over and number + 2 < len(lines):
            words, under = lines[number + 1][1], _RST_LINE.match(lines[number + 2][1])
            if under and under.group(1) == over.group(1) and words.strip():
                _rst_heading(headings, marks, over.group(1) * 2, place, words)
                number += 3
                continue
        under = _RST_LINE.match(lines[number + 1][1]) if number + 1 < len(lines) else None
        if line.strip() and not over and not line[0].isspace() and under:
            _rst_heading(headings, marks, under.group(1), place, line)
            number += 2
            continue
        number += 1
    return (headings[0][2] if headings else None), headings


def _rst_heading(
    headings: list[Heading], marks: list[str], mark: str, place: int, words: str
) -> None:
    if mark not in marks:
        marks.append(mark)
    headings.append((place, marks.index(mark) + 1, words.strip()))


def _lines(text: str, start: int) -> list[tuple[int, str]]:
    """Return (place, line without its end) from ``start`` on."""
    lines = []
    for line in text[start:].split("\n"):
        lines.append((start, line))
        start += len(line) + 1
    return lines
