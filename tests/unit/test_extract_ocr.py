"""Text in pictures: with Tesseract's data, and clearly refused without."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pgstack.extract import Extractor, Options, Unreadable, ocr
from pgstack.extract.pdf import dehyphenate, garbled
from pgstack.extract.read import read_bytes
from tests.unit import hostile_files as made

DATA = (
    Path(os.environ.get("PGSTACK_DATA_DIR", Path(__file__).parents[3] / "shared" / "data"))
    / "documents"
)
SCAN = DATA / "normal" / "MEDRPT-2024-PAT-3847_medical_report_scan.pdf"
needs_ocr = pytest.mark.skipif(ocr.missing("eng") is not None, reason=f"OCR: {ocr.missing('eng')}")
needs_data = pytest.mark.skipif(
    not DATA.is_dir(), reason=f"no sample documents in {DATA}; set PGSTACK_DATA_DIR"
)


@pytest.mark.timeout(300)
@needs_ocr
@needs_data
def test_a_scan_is_read_page_by_page() -> None:
    with Extractor() as extractor:
        document = extractor.extract(SCAN)
    assert [part.page for part in document.parts] == [1, 2, 3]
    assert document.text.count("\f") == 2
    first = document.parts[0]
    assert "SEATTLE GENERAL HOSPITAL" in document.text[first.start : first.end]
    assert document.warnings == ()


@pytest.mark.timeout(300)
@needs_ocr
@needs_data
def test_pages_beyond_its_time_are_left_out_and_told() -> None:
    with Extractor(Options(ocr_seconds=1)) as extractor:
        document = extractor.extract(SCAN)
    assert "SEATTLE" in document.text
    assert "OCR took too long: " in document.warnings[0]


@needs_ocr
def test_hostile_pictures() -> None:
    with Extractor() as extractor:
        for data in (made.png(2**31 - 1, 2**31 - 1), made.png(60_000, 60_000), made.png(10, 10)):
            with pytest.raises(Unreadable, match=r"image|memory"):
                extractor.extract_bytes(data, name="a.png")
        with pytest.raises(Unreadable, match="no text"):
            extractor.extract_bytes(made.page("", size=(14400, 14400)), name="a.pdf")


@needs_data
@pytest.mark.parametrize(
    ("languages", "reason"),
    [("", "OCR is switched off"), ("xyz", "apt install tesseract-ocr"), ("../x", "no list")],
)
def test_without_it_the_reason_is_told(languages: str, reason: str) -> None:
    with Extractor(Options(ocr=languages)) as extractor:
        with pytest.raises(Unreadable, match=f"no text; it needs OCR: .*{reason}"):
            extractor.extract(SCAN)
        with pytest.raises(Unreadable, match=f"a PNG image; its text needs OCR: .*{reason}"):
            extractor.extract_bytes(made.png(10, 10), name="a.png")


def test_no_data_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ocr, "data_folder", lambda: None)
    assert ocr.missing("eng") == "Tesseract is not installed: apt install tesseract-ocr"
    monkeypatch.setattr(ocr, "data_folder", lambda: "/nowhere")
    assert ocr.missing("chi_sim") == "no data for 'chi_sim': apt install tesseract-ocr-chi-sim"


def test_pages_that_have_text_need_none() -> None:
    document = read_bytes(made.page("hello"), name="a.pdf", options=Options(ocr=""))
    assert (document.text, document.warnings) == ("hello", ())


def test_fonts_without_characters() -> None:
    assert garbled("\x02\x03\x04 \x05\x06 a")
    assert garbled("\ue001\ue002\ue003")
    assert not garbled("con\x02firming its generality")
    assert not garbled("")


@pytest.mark.parametrize(
    ("text", "joined"),
    [
        ("con\x02firming", "confirming"),
        ("con\x02\r\nfirming", "confirming"),
        ("chat\x02optimized", "chat-optimized"),  # so it is written elsewhere
        ("GPT\x024", "GPT-4"),
        ("Anglo\x02American", "Anglo-American"),
        ("a\x02b\x02c", "abc"),
        ("end \x02", "end -"),
    ],
)
def test_words_broken_at_line_ends_are_joined(text: str, joined: str) -> None:
    assert dehyphenate(text, {"chat-optimized"}) == joined
