"""Text out of files: normal ones, damaged ones and ones made to harm."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from pgstack.extract import MAX_BYTES, Document, Extractor, Options, Unreadable
from pgstack.extract.read import read_bytes

DATA = (
    Path(os.environ.get("PGSTACK_DATA_DIR", Path(__file__).parents[3] / "shared" / "data"))
    / "documents"
)
needs_data = pytest.mark.skipif(
    not DATA.is_dir(), reason=f"no sample documents in {DATA}; set PGSTACK_DATA_DIR"
)


def read(tmp_path: Path, name: str, content: str | bytes) -> Document:
    data = content.encode() if isinstance(content, str) else content
    return read_bytes(data, name=name)


def refusal(tmp_path: Path, name: str, content: str | bytes) -> str:
    with pytest.raises(Unreadable) as caught:
        read(tmp_path, name, content)
    return str(caught.value)


# --- plain text -----------------------------------------------------------------------


def test_plain_text(tmp_path: Path) -> None:
    assert read(tmp_path, "a.txt", "zwei\r\nZeilen\rdrei\n") == Document(
        title=None, media_type="text/plain", text="zwei\nZeilen\ndrei\n"
    )


@pytest.mark.parametrize(
    ("name", "media_type"),
    [
        ("a.md", "text/markdown"),
        ("a.MARKDOWN", "text/markdown"),
        ("a.rst", "text/x-rst"),
        ("a.log", "text/plain"),
        ("README", "text/plain"),
        ("a.py", "text/x-python"),
        ("a.json", "application/json"),
        ("a.ts", "text/plain"),
        ("a.unheard-of", "text/plain"),
    ],
)
def test_media_types(tmp_path: Path, name: str, media_type: str) -> None:
    assert read(tmp_path, name, "some text").media_type == media_type


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_marked_encodings(tmp_path: Path, encoding: str) -> None:
    document = read(tmp_path, "a.txt", "Grüße 😀".encode(encoding))
    assert (document.text, document.warnings) == ("Grüße 😀", ())


@pytest.mark.parametrize(
    ("content", "text", "guess"),
    [("naïve “quoted”", "naïve “quoted”", "cp1252"), (b"caf\xe9 \x81", "café \x81", "latin-1")],
)
def test_old_encodings_are_guessed_with_a_warning(
    tmp_path: Path, content: str | bytes, text: str, guess: str
) -> None:
    data = content.encode("cp1252") if isinstance(content, str) else content
    document = read(tmp_path, "a.txt", data)
    assert document.text == text
    assert guess in document.warnings[0]


def test_damaged_utf_16(tmp_path: Path) -> None:
    document = read(tmp_path, "a.txt", "text".encode("utf-16") + b"x")
    assert document.text.startswith("text")
    assert "UTF-16" in document.warnings[0]


def test_nul_characters_are_removed_and_told(tmp_path: Path) -> None:
    document = read(tmp_path, "a.txt", b"one\x00two" + b" words" * 1000)
    assert document.text.startswith("onetwo words")
    assert document.warnings == ("NUL characters were removed",)


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.txt", b"%PDF-1.7 ...", "cannot be parsed"),
        ("a.docx", b"PK\x03\x04....", "a ZIP archive"),
        ("a.txt", b"\x7fELF\x02", "a program"),
        ("a.bin", bytes(range(256)) * 40, "binary data"),
        ("a.txt", b"\x01\x02\x03\x04 text", "binary data"),
        ("a.odt", b"just text", "not the .odt file"),
    ],
)
def test_binary_files_are_refused(tmp_path: Path, name: str, content: bytes, reason: str) -> None:
    assert reason in refusal(tmp_path, name, content)


def test_large_files_are_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "large.txt"
    with path.open("wb") as file:
        file.truncate(MAX_BYTES + 1)
    with Extractor() as extractor, pytest.raises(Unreadable, match="at most 100 MB"):
        extractor.extract(path)


def test_what_is_no_file_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo.txt")
    with Extractor() as extractor:
        with pytest.raises(Unreadable, match="not a regular file"):
            extractor.extract(tmp_path / "fifo.txt")
        with pytest.raises(Unreadable, match="not a regular file"):
            extractor.extract(tmp_path)
        with pytest.raises(Unreadable, match="No such file"):
            extractor.extract(tmp_path / "absent.txt")


# --- titles ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "title"),
    [
        ("# One\ntext", "One"),
        ("intro\n\n# Two words #\n", "Two words"),
        ("```\n# comment\n```\n# Real", "Real"),
        ("Setext\n======\n", "Setext"),
        ("---\ntitle: 'From front matter'\n---\n# Other", "From front matter"),
        ("## second level only", None),
        ("#hashtag", None),
        ("", None),
    ],
)
def test_markdown_titles(tmp_path: Path, text: str, title: str | None) -> None:
    document = read(tmp_path, "a.md", text)
    assert (document.title, document.text) == (title, text)


@pytest.mark.parametrize(
    ("text", "title"),
    [
        ("Title\n=====\n", "Title"),
        ("=====\nTitle\n=====\n", "Title"),
        (".. comment\n\nTitle\n-----\n", "Title"),
        ("no title", None),
    ],
)
def test_rst_titles(tmp_path: Path, text: str, title: str | None) -> None:
    assert read(tmp_path, "a.rst", text).title == title


# --- HTML -----------------------------------------------------------------------------


def test_html(tmp_path: Path) -> None:
    page = """<!doctype html><html><head><title>A &amp;
      title</title><style>p {}</style><script>var secret</script></head>
    <body><!-- hidden --><h1>Heading</h1><p>One <b>bold</b>
      paragraph&nbsp;here.<p>Two<br>lines</p><ul><li>first</li><li>second</li></ul>
    <pre>  keep
    this</pre><script>alert(1)</script><noscript>no</noscript>
    <table><tr><th>Name</th><th>Age</th></tr><tr><td><p>Ann</p></td><td>7</td><td></td></tr></table>
    <p>1 &lt; 2 &#0;</p></body></html>"""
    document = read(tmp_path, "a.html", page)
    assert document.title == "A & title"
    assert document.media_type == "text/html"
    assert document.text == (
        "Heading\n\nOne bold paragraph here.\n\nTwo\nlines\n\n- first\n- second\n\n"
        "  keep\n    this\n\nName | Age\nAnn | 7\n\n1 < 2 \ufffd"
    )


def test_html_by_its_look(tmp_path: Path) -> None:
    assert read(tmp_path, "page", "\n<!DOCTYPE HTML><p>hi").media_type == "text/html"
    assert read(tmp_path, "a.txt", "<html> is a tag").media_type == "text/plain"


def test_html_charsets(tmp_path: Path) -> None:
    page = '<meta charset="shift_jis"><p>日本'
    assert read(tmp_path, "a.html", page.encode("shift_jis")).text == "日本"
    page = '<meta http-equiv="Content-Type" content="text/html; charset=iso-8859-1"><p>“é”'
    assert read(tmp_path, "b.html", page.encode("cp1252")).text == "“é”"
    page = '<meta charset="no-such-thing"><p>ü'
    assert read(tmp_path, "c.html", page.encode()).text == "ü"


def test_html_without_a_title_takes_the_first_heading(tmp_path: Path) -> None:
    assert read(tmp_path, "a.html", "<h1>The <i>heading</i></h1>").title == "The heading"
    assert read(tmp_path, "b.html", "<p>text").title is None


def test_html_nested_deeper_than_python_recurses(tmp_path: Path) -> None:
    assert read(tmp_path, "a.html", "<div>" * 5000 + "deep").text == "deep"


# --- the helper process -----------------------------------------------------------------


def test_helper_reads_and_refuses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.md").write_text("# T\nÜber 😀")
    (tmp_path / "b.bin").write_bytes(bytes(1000))
    monkeypatch.chdir(tmp_path)
    with Extractor() as extractor:
        assert extractor.extract("a.md").text == "# T\nÜber 😀"
        with pytest.raises(Unreadable, match="binary data"):
            extractor.extract("b.bin")
        assert extractor.extract(tmp_path / "a.md").title == "T"


def test_helper_takes_names_that_are_no_text(tmp_path: Path) -> None:
    path = os.fsencode(tmp_path) + b"/\xff\n.txt"
    Path(os.fsdecode(path)).write_text("text")
    with Extractor() as extractor:
        assert extractor.extract(os.fsdecode(path)).text == "text"


def test_helper_that_died_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("text")
    with Extractor() as extractor:
        extractor.extract(tmp_path / "a.txt")
        helper = extractor._helper
        assert helper is not None
        os.kill(helper.process.pid, signal.SIGKILL)
        helper.process.wait()
        assert extractor.extract(tmp_path / "a.txt").text == "text"
    assert extractor._helper is None


def test_memory_is_limited(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"x" * 99_000_000)
    (tmp_path / "b.txt").write_text("text")
    with Extractor(memory_bytes=400_000_000) as extractor:
        with pytest.raises(Unreadable, match="memory"):
            extractor.extract(tmp_path / "a.txt")
        assert extractor.extract(tmp_path / "b.txt").text == "text"


def test_processor_time_is_limited(tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text("<!--" * 500_000)
    (tmp_path / "b.txt").write_text("text")
    with Extractor(cpu_seconds=1) as extractor:
        with pytest.raises(Unreadable, match="processor time"):
            extractor.extract(tmp_path / "a.html")
        assert extractor.extract(tmp_path / "b.txt").text == "text"


def test_wall_time_is_limited(tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text("<!--" * 500_000)
    start = time.monotonic()
    with Extractor(wall_seconds=0.5) as extractor, pytest.raises(Unreadable, match=r"0\.5 s"):
        extractor.extract(tmp_path / "a.html")
    assert time.monotonic() - start < 10


@needs_data
def test_sample_documents_give_text_or_a_reason() -> None:
    files = [path for path in sorted(DATA.rglob("*")) if path.is_file()]
    texts, reasons = {}, {}
    with Extractor(Options(ocr="")) as extractor:
        for path in files:
            name = f"{path.parent.name}/{path.name}"
            try:
                texts[name] = extractor.extract(path)
            except Unreadable as exc:
                reasons[name] = str(exc)
    assert not any("crash" in reason for reason in reasons.values())
    assert len(texts["normal/book-war-and-peace-1225p.txt"].text) > 3_000_000
    assert texts["normal/test_wikipedia.html"].title == "Microsoft - Wikipedia"
    assert "American multinational" in texts["normal/test_wikipedia.html"].text
    assert "<script" not in texts["hostile/example-with-scripts.html"].text
    assert "äöüß" in texts["hostile/umlauts-non-utf8.md"].text
    # An XML file is text: nothing in it is ever resolved.
    assert "couldnt_possibly_exist" in texts["hostile/testXXE.xml"].text
    assert "multiple agents" in texts["normal/test.pdf"].text
    assert "not text" in reasons["hostile/random.bin"]
    assert "ZIP archive" in reasons["hostile/droste.zip"]


@needs_data
def test_the_map_covers_the_text_and_pages_end_in_form_feeds() -> None:
    with Extractor() as extractor:
        document = extractor.extract(DATA / "normal" / "GeoTopo-komprimiert.pdf")
    pages = document.text.split("\f")
    assert len(pages) == len(document.parts) == 117
    for number, (page, part) in enumerate(zip(pages, document.parts, strict=True), start=1):
        assert part.page == number
        assert document.text[part.start : part.end].removesuffix("\f") == page


def test_charsets_are_known_where_no_file_may_be_opened() -> None:
    with Extractor() as extractor:
        assert extractor.extract_bytes("日本語の文章です。".encode("cp932"), name="a.txt").text == (
            "日本語の文章です。"
        )
        page = '<meta charset="no-such-charset"><p>ü'
        assert extractor.extract_bytes(page.encode(), name="a.html").text == "ü"
        page = '<meta charset="mac-cyrillic"><p>Ж'
        assert extractor.extract_bytes(page.encode("mac-cyrillic"), name="a.html").text == "Ж"
