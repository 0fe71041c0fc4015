"""Charsets of text files: real sentences of 31 languages in the charsets people wrote them in."""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from pgstack.extract import Unreadable
from pgstack.extract.charset import declared, decode

DATA = (
    Path(os.environ.get("PGSTACK_DATA_DIR", Path(__file__).parents[3] / "shared" / "data"))
    / "documents"
)
ARTICLES = DATA / "normal" / "UDHR_first_article_all.txt"
needs_data = pytest.mark.skipif(
    not ARTICLES.is_file(), reason=f"no sample documents in {DATA}; set PGSTACK_DATA_DIR"
)

# The first article of the Declaration of Human Rights, by its language's name there.
LANGUAGES = {
    **dict.fromkeys(
        (
            *("French", "German, Standard (1996)", "Spanish", "Italian", "Portuguese (Portugal)"),
            *("Dutch", "Swedish", "Danish", "Finnish", "Icelandic"),
        ),
        ("cp1252", "latin-1"),
    ),
    **dict.fromkeys(
        ("Polish", "Czech", "Slovak", "Slovenian", "Croatian", "Hungarian"),
        ("cp1250", "iso8859_2"),
    ),
    **dict.fromkeys(("Russian", "Bulgarian"), ("cp1251", "koi8_r", "iso8859_5", "cp866")),
    **dict.fromkeys(("Belarusan", "Serbian (Cyrillic)", "Macedonian"), ("cp1251", "iso8859_5")),
    **dict.fromkeys(("Lithuanian", "Latvian"), ("cp1257", "iso8859_13")),
    "Greek (monotonic)": ("cp1253", "iso8859_7"),
    "Hebrew": ("cp1255", "iso8859_8"),
    "Arabic, Standard": ("cp1256", "iso8859_6"),
    "Thai": ("cp874",),
    "Japanese": ("cp932", "euc_jp", "iso2022_jp"),
    "Chinese, Mandarin (Simplified)": ("gb18030",),
    "Chinese, Mandarin (Traditional)": ("big5",),
    "Korean": ("euc_kr",),
}
WIDE = ["utf-8", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be"]


def articles() -> Iterator[tuple[str, str]]:
    """The languages above, each with its article."""
    lines = ARTICLES.read_text("utf-8").split("\n")
    found = {name: text for name, text in pairwise(lines) if name in LANGUAGES}
    assert len(found) == len(LANGUAGES)
    yield from found.items()


@needs_data
def test_every_unicode_form_is_read_exactly() -> None:
    for language, text in articles():
        for encoding in WIDE:
            written = f"{text}\r\n".encode(encoding)
            assert decode(written) == (f"{text}\n", ()), (language, encoding)


@needs_data
def test_old_charsets_are_told_apart() -> None:
    wrong = []
    total = 0
    for language, text in articles():
        for encoding in LANGUAGES[language]:
            total += 1
            read, warnings = decode(text.encode(encoding))
            if read != text:
                wrong.append((language, encoding, warnings))
            else:
                assert warnings == () or "guess" in warnings[0]
    assert total > 55
    assert len(wrong) <= total * 0.05, wrong


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("naïve café", "cp1252"),
        ("Größe", "cp1252"),
        ("Zażółć gęślą jaźń", "cp1250"),
        ("Příliš žluťoučký kůň", "iso8859_2"),
        ("Привет, мир!", "cp1251"),
        ("Привет, мир!", "koi8_r"),
        ("日本語の文章です。", "cp932"),
        ("日本語の文章です。", "iso2022_jp"),
        ("שלום עולם, זה טקסט בעברית", "iso8859_8"),
    ],
)
def test_short_texts(text: str, encoding: str) -> None:
    assert decode(text.encode(encoding))[0] == text


def test_damage_is_told_and_no_other_charset() -> None:
    text = "Übermäßig häufige Größen, für Prüfungen\n" * 20
    data = text.encode() + b"\xff\n"
    assert decode(data) == (
        text + "\ufffd\n",
        ("not valid UTF-8: damaged characters were replaced",),
    )


def test_what_is_declared_counts_if_it_fits() -> None:
    assert decode("é".encode("cp1252"), "iso-8859-1") == ("é", ())
    assert decode("日本".encode("cp932"), "shift_jis") == ("日本", ())
    assert decode("שלום".encode("iso8859_8"), "iso-8859-8-i") == ("שלום", ())
    assert decode("ü".encode(), "no-such-charset") == ("ü", ())
    assert decode("日本語".encode(), "us-ascii")[0] != "日本語"  # it claims to be so


@pytest.mark.parametrize(
    ("head", "charset"),
    [
        (b'<?xml version="1.0" encoding="ISO-8859-2"?><a/>', "iso-8859-2"),
        (b'<html><meta charset="Shift_JIS">', "shift_jis"),
        (b"<html><meta http-equiv=content-type content='text/html; charset=koi8-r'>", "koi8-r"),
        (b"<html>", None),
    ],
)
def test_charsets_that_files_declare(head: bytes, charset: str | None) -> None:
    assert declared(head) == charset


@pytest.mark.parametrize("data", [bytes(range(256)) * 8, b"\x01\x02\x03 text", bytes(1000)])
def test_what_is_no_text_is_refused(data: bytes) -> None:
    with pytest.raises(Unreadable, match="binary data"):
        decode(data)
