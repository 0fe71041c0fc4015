"""The sample documents: what each says, and that the map of each is exact."""

# ruff: noqa: RUF001 - the documents write so
from __future__ import annotations

import os
from functools import cache
from pathlib import Path

import pytest

from pgstack.extract import Crashed, Document, Extractor, Options, Unreadable, parts_json
from pgstack.extract.extractor import status_bytes

DATA = (
    Path(os.environ.get("PGSTACK_DATA_DIR", Path(__file__).parents[3] / "shared" / "data"))
    / "documents"
)
pytestmark = pytest.mark.skipif(
    not DATA.is_dir(), reason=f"no sample documents in {DATA}; set PGSTACK_DATA_DIR"
)

# What each says: words in it; the page that they are on, or the heading they are under.
SAYS: dict[str, list[tuple[str, int | str | None]]] = {
    "2023-half-year-analyses-by-segment.xlsx": [("Zone NA | 12553 | 2713", 1)],
    "ArabicCIDTrueType.pdf": [("العربية", 1)],
    "GeoTopo-komprimiert.pdf": [
        ("Geometrie und Topologie", 1),
        ("heißt Subbasis der Topologie", 7),
        ("Stichwortverzeichnis", 117),
    ],
    "REPAIR-2022-INV-001_multipage.pdf": [("Gabriel Diaz", 1)],
    "TAMReview.pdf": [("Overview of the Technology Acceptance Model", 1)],
    "UDHR_first_article_all.txt": [("Alle Menschen sind frei", None), ("是人都生而自由", None)],
    "book-war-and-peace-1225p.txt": [("Well, Prince, so Genoa and Lucca", None)],
    "csv-semicolon.csv": [(";", None)],
    "csv-too-many-columns.csv": [("a,b,c,d,e", None)],
    "duck.md": [("Swimming in the lake", None), ("Wear sunglasses", "Let’s swim!")],
    "email-with-image.eml": [("Subject: email-with-image", None), ("unstructured_logo.png", None)],
    "eng_spa_mult.odt": [("Todos los seres humanos nacen libres", None)],
    "eng_spa_mult.rtf": [("Todos los seres humanos nacen libres", None)],
    "example-10k.html": [("Galaxy Gaming", None), ("FORM 10-K", None)],
    "fake-email-attachment.eml": [("Attachments: fake-attachment.txt", None)],
    "fake-power-point-table.pptx": [("Purple", 1), ("Tangerine", "A Slide with a Table")],
    "habibi.pdf": [("habibi", 1)],
    "handbook-872p.docx": [("STANDING TRUSTEE", "CHAPTER 1 – INTRODUCTION")],
    "korean-text-with-tables.pdf": [("적립 제외 대상", 1)],
    "msg_with_attachment.msg": [('From: "Alice Example"', None), ("report.pdf", None)],
    "multi-column.pdf": [("Dense Passage Retrieval", 1), ("on NQ dev as in our regular", 13)],
    "redp5110_sampled.pdf": [("Row and Column Access Control", 1), ("Back cover", 18)],
    "right_to_left_01.pdf": [("البيانات", 1)],
    "right_to_left_02.pdf": [("الحكومة", 1)],
    "test.docx": [
        ("AutoGen is an open-source framework", "Abstract"),
        ("our insight is to use multi-agent conversations", None),
    ],
    "test.epub": [("This is a test paragraph", "Chapter 1: Test Content")],
    "test.pdf": [("confirming its general feasibility", 1), ("general-ity", None)],
    "test.pptx": [
        ("1b92870d-e3b5-4e65-8153-919f4ff45592", 3),
        ("Nested Shape", 5),
        ("ColA", "A table to test parsing:"),
    ],
    "test.xlsx": [("6ff4173b-42a5-4784-9b19-f49caff4d93d", 1), ("ColA | ColB", 2)],
    "test_blog.html": [("gpt-4, the state of the art LLM", "Experiment Setup")],
    "test_notebook.ipynb": [('print("markitdown")', "Test Notebook"), ("42", "Code Cell Below")],
    "test_outlook_msg.msg": [("Subject: Test Email Message", None), ("2024-12-22", None)],
    "test_rss.xml": [("Two things can be true", "Ignite 2024: Why nearly 70% of the Fortune 500")],
    "test_wikipedia.html": [("Altair BASIC", "1972–1985: Founding"), ("Paul Allen", "History")],
    "vertical.pdf": [("日本語", 1)],
    "winter-sports.epub": [("CURLING", None), ("THE SUN-SEEKER", None)],
    "with-attachment.pdf": [("Lorem ipsum dolor sit amet", 1)],
    "xlsx-subtable-cases.xlsx": [("a | b", "Sheet1")],
}
# Without OCR there is none.
SCANNED = {"MEDRPT-2024-PAT-3847_medical_report_scan.pdf", "table-multi-row-column-cells.pdf"}

# How each ends, of text or reason.
HOSTILE = {
    "ExternalEntityInText.docx": "Here should not be the POI web site:",
    "GHOSTSCRIPT-698804-1-fuzzed.pdf": "no text",
    "Pages-tree-refs.pdf": "cannot be parsed",
    "blns.txt": "<script>alert(",
    "csv-with-long-lines.csv": ",",
    "droste.zip": "a ZIP archive, not a document",
    "email-no-utf8-2008-07-16.062410.eml": "סלבה היקר",
    "empty.txt": "",
    "example-with-scripts.html": "Karolina Hird",
    "fake-text-utf-32.txt": "This is a test document",
    "helloworld-bad.pdf": "Hello, world!",
    "libreoffice-writer-password.pdf": "protected by a password",
    "password_protected.xlsx": "protected by a password",
    "poc-xmlbomb.xlsx": "cannot be parsed",
    "quine.gz": "gzip data, not text",
    "random.bin": "binary data, not text",
    "testODTnotaZipFile.odt": "not the .odt file its name says",
    "testXXE.xml": "file:///couldnt_possibly_exist",
    "test_mskanji.csv": "佐藤太郎,30,東京",
    "truncated62886.docx": "cannot be parsed",
    "umlauts-non-utf8.md": "äöüß",
}


@cache
def read() -> dict[str, Document | Unreadable]:
    """Every document by its name, read once."""
    found: dict[str, Document | Unreadable] = {}
    with Extractor(Options(ocr="")) as extractor:
        for path in sorted(DATA.glob("*/*")):
            try:
                found[path.name] = extractor.extract(path)
            except Unreadable as exc:
                found[path.name] = exc
            helper = extractor._helper
            if helper is not None:
                assert status_bytes(helper.process.pid, "VmHWM") < 500_000_000
    return found


def normal() -> list[str]:
    return sorted(path.name for path in DATA.glob("normal/*")) if DATA.is_dir() else []


def hostile() -> list[str]:
    return sorted(path.name for path in DATA.glob("hostile/*")) if DATA.is_dir() else []


@pytest.mark.parametrize("name", normal())
def test_normal_documents_say_what_they_say(name: str) -> None:
    document = read()[name]
    if name in SCANNED:
        assert "no text; it needs OCR" in str(document)
        return
    assert isinstance(document, Document)
    assert SAYS[name]
    for words, place in SAYS[name]:
        if words == "general-ity":
            assert words not in document.text
            continue
        at = document.text.lower().find(words.lower())
        assert at >= 0, words
        if place is None:
            continue
        spots = [at]
        while (at := document.text.lower().find(words.lower(), at + 1)) >= 0:
            spots.append(at)
        parts = [p for p in document.parts if any(p.start <= spot < p.end for spot in spots)]
        found: set[object] = {part.page for part in parts}
        found |= {heading for part in parts for heading in part.headings}
        assert place in found or any(str(place) in str(one) for one in found), (words, found)


@pytest.mark.parametrize("name", hostile())
def test_hostile_documents_end_as_they_should(name: str) -> None:
    document = read()[name]
    assert not isinstance(document, Crashed)
    said = document.text if isinstance(document, Document) else str(document)
    assert HOSTILE.get(name, "") in said
    assert "<script" not in said or name == "blns.txt"


@pytest.mark.parametrize("name", sorted({*normal(), *hostile()}))
def test_the_map_is_exact(name: str) -> None:
    document = read()[name]
    if isinstance(document, Unreadable):
        return
    text = document.text
    assert "\x00" not in text and "\r" not in text
    text.encode("utf-8")  # no lone surrogates
    place, page = 0, 1
    for part in document.parts:
        assert part.start == place < part.end
        assert all(heading == " ".join(heading.split()) != "" for heading in part.headings)
        if part.page is not None:
            # The page is the number of form feeds before it, and one.
            assert part.page == text.count("\f", 0, part.start) + 1 >= page
            page = part.page
        place = part.end
    assert place == (len(text) if document.parts else 0)
    # What a heading part begins with is its heading.
    for before, part in zip(document.parts, document.parts[1:], strict=False):
        deeper = part.headings and part.headings != before.headings[: len(part.headings)]
        if deeper and document.media_type != "text/markdown":
            start = " ".join(text[part.start : part.start + 2000].split())
            assert part.headings[-1].removesuffix("…").split("\u200b")[0] in start
    assert [one["start"] for one in parts_json(document.parts)] == [
        part.start for part in document.parts
    ]
