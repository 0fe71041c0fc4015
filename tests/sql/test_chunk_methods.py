"""pgstack.chunk by sentences, Markdown sections, pages and tokens; headings; token estimates."""

from __future__ import annotations

import random
from typing import Any

import psycopg
import pytest

from tests.sql.test_chunk import ALPHABETS, SPACES, chunk

Conn = psycopg.Connection[Any]

METHODS = ["sentence", "markdown", "token", "page"]


def sentences(conn: Conn, text: str) -> list[str]:
    """What the method sentence takes for one, white space at the ends taken off."""
    row = conn.execute(
        "select _pgstack.mark_sentences(%s, %s)",
        (text, "\x01"),
    ).fetchone()
    assert row is not None
    assert row[0].replace("\x01", "") == text
    return [part.strip() for part in row[0].split("\x01") if part.strip()]


@pytest.mark.parametrize(
    "parts",
    [
        ["One thing.", "Another!", "A third?", "And"],
        ["Mr. Smith met Dr. J. R. Brown vs. Prof. Lee on Jan. 5.", "It rained."],
        ["It was 3.14 at 5 p.m. in the U.S. Army, i.e. e.g. here.", "Yes."],
        ['He said: "What?" and left.', '"No."', "Then he slept."],
        ["So did I.", "Then he slept."],
        ["He waited... and went... somewhere.", "Then it ended...", "It rained."],
        ["(Yes.)", "[Fine.]", "*Bold.*", "See Fig. 3 and No. 7."],
        ["What?!", "No!!", "Yes."],
        ["Version 1.2.3 of foo.bar() is at www.example.com.", "Get it."],
        ["1. First item.", "More of it."],
        ["Das ist z.B. gut.", "Dr. Müller kam am 5. Mai 1900.", "Er ging."],
        ["А.С. Пушкин писал.", "Он умер."],  # noqa: RUF001
        ["今天天气很好。", "我们去公园吧！", "好吗？", "「好。」", "他说。", "End."],  # noqa: RUF001
        ["यह वाक्य है।", "दूसरा वाक्य।", "هل هذا؟", "نعم."],
        ["no stop at all"],
    ],
)
def test_where_sentences_end(conn: Conn, parts: list[str]) -> None:
    joint = "" if "。" in parts[0] else " "
    assert sentences(conn, joint.join(parts)) == parts


def test_lines_end_sentences_unless_text_is_wrapped(conn: Conn) -> None:
    text = (
        "A heading\r\nThis line is long enough to be taken for wrapped text in which\r\n"
        "Pierre goes on, and so does\r\nthe next. Short\r\nlines go on with small letters\r\n"
        "- an item\r\n- another\r\n\r\nA paragraph without a stop\r\n\r\n\r\n2) numbered"
    )
    assert sentences(conn, text) == [
        "A heading",
        "This line is long enough to be taken for wrapped text in which\r\n"
        "Pierre goes on, and so does\r\nthe next.",
        "Short\r\nlines go on with small letters",
        "- an item",
        "- another",
        "A paragraph without a stop",
        "2) numbered",
    ]


def test_sentences_are_joined_and_overlap_whole(conn: Conn) -> None:
    text = "One one. Two two. Three three. Four four. Five five."
    got = [row[3] for row in chunk(conn, text, method="sentence", size=27, overlap=12)]
    assert got == [
        "One one. Two two.",
        "Two two. Three three.",
        "Four four. Five five.",
    ]
    # One of exactly that length stays whole, a longer one is cut at its words.
    assert [row[3] for row in chunk(conn, "Aa bb cc. D", method="sentence", size=9, overlap=0)] == [
        "Aa bb cc.",
        "D",
    ]
    assert [row[3] for row in chunk(conn, "Aa bb cc. D", method="sentence", size=8, overlap=0)] == [
        "Aa bb cc",
        ".",
        "D",
    ]


MARKDOWN = """\
# Manual #

Text a.

## Code

```python
# not a heading

## neither
```

Setext
======

more

Sub title
of two lines
---

- item
---

### Deep
~~~
```
# x
~~~
#hashtag
####### seven
   ###   Closed  ###
#

````
```
# unclosed
"""


def headings(conn: Conn, text: str) -> list[tuple[int, str]]:
    rows = conn.execute("select * from _pgstack.markdown_headings(%s)", (text,)).fetchall()
    starts = [start for start, _, _ in rows]
    assert starts == sorted(set(starts))
    assert all(start == 0 or text[start - 1] == "\n" for start in starts)
    assert all(title.split(" ")[0] in text[start:] for start, _, title in rows)
    return [(level, title) for _, level, title in rows]


@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_headings(conn: Conn, line_end: str) -> None:
    assert headings(conn, MARKDOWN.replace("\n", line_end)) == [
        (1, "Manual"),
        (2, "Code"),
        (1, "Setext"),
        (2, "Sub title of two lines"),
        (3, "Deep"),
        (3, "Closed"),
        (1, ""),
    ]


def test_what_is_no_heading(conn: Conn) -> None:
    for text in (
        "a\nb\nc\nd\n---",
        "    # code",
        "> quote\n---",
        "| a | b |\n---",
        "\n---\n===\n",
        "#!shebang",
        "- a\n-",
        "---\ntitle: x\n# comment\n---\n",
        "",
    ):
        assert headings(conn, text) == [], text
    assert headings(conn, "\ufeff# After a mark") == [(1, "After a mark")]
    assert headings(conn, "---\ntitle: x\n---\n# One") == [(1, "One")]
    assert headings(conn, "---\n\n# One\n---\n# Two") == [(1, "One"), (1, "Two")]


def test_heading_path(conn: Conn) -> None:
    def path(place: str) -> list[str]:
        row = conn.execute(
            "select pgstack.heading_path(%s, %s)", (MARKDOWN, MARKDOWN.index(place))
        ).fetchone()
        assert row is not None
        path: list[str] = row[0]
        return path

    assert path("Text a.") == ["Manual"]
    assert path("## neither") == ["Manual", "Code"]
    assert path("more") == ["Setext"]
    assert path("- item") == ["Setext", "Sub title of two lines"]
    assert path("# x") == ["Setext", "Sub title of two lines", "Deep"]
    assert path("# Manual") == ["Manual"]
    for arguments in (("no headings", 3), ("", 0), ("# later", -1)):
        assert conn.execute("select pgstack.heading_path(%s, %s)", arguments).fetchone() == ([],)
    assert conn.execute("select pgstack.heading_path(null, 0)").fetchone() == (None,)


def test_markdown_makes_a_chunk_of_each_section(conn: Conn) -> None:
    got = [row[3] for row in chunk(conn, MARKDOWN, method="markdown", size=80, overlap=0)]
    assert got == [
        "# Manual #\n\nText a.",
        "## Code\n\n```python\n# not a heading\n\n## neither\n```",
        "Setext\n======\n\nmore",
        "Sub title\nof two lines\n---\n\n- item\n---",
        "### Deep\n~~~\n```\n# x\n~~~\n#hashtag\n####### seven",
        "###   Closed  ###",
        "#\n\n````\n```\n# unclosed",
    ]


def test_fenced_code_stays_whole_where_it_fits(conn: Conn) -> None:
    code = "```\nfirst line\n\nsecond. line\n```"
    text = f"# Title\n\nSome words before. And more.\n{code}\nAfter it\n\nThe end."
    got = [row[3] for row in chunk(conn, text, method="markdown", size=40, overlap=0)]
    assert got == ["# Title\n\nSome words before. And more.", code, "After it\n\nThe end."]
    assert len(chunk(conn, text, method="markdown", size=20, overlap=0)) > 3


def test_pages(conn: Conn) -> None:
    text = "page one\fpage two is longer\f\f \fthree\n"
    got = chunk(conn, text, method="page", size=12, overlap=5)
    assert got == [
        (0, 0, 8, "page one"),
        (1, 9, 20, "page two is"),
        (2, 18, 27, "is longer"),
        (3, 31, 36, "three"),
    ]
    kept = chunk(conn, text, method="page", size=50, overlap=0, strip=False)
    assert [row[3] for row in kept] == ["page one", "page two is longer", " ", "three\n"]


def test_tokens(conn: Conn) -> None:
    for text, tokens in (
        ("", 0),
        (SPACES, 0),
        ("word", 1),
        ("extraordinarily", 3),
        ("It's 12345.", 6),
        ("漢字", 2),
        ("für", 3),
        ("a\u200bb😀", 4),
    ):
        assert conn.execute("select pgstack.estimate_tokens(%s)", (text,)).fetchone() == (tokens,)
    text = "The quick brown foxes jumped over extraordinarily lazy dogs. 漢字文章です。"
    got = [row[3] for row in chunk(conn, text, method="token", size=4, overlap=2)]
    assert got[:3] == ["The quick brown foxes", "brown foxes jumped", "jumped over"]
    assert got[-3:] == ["漢字文章", "文章です", "です。"]


def size_of(conn: Conn, method: str, piece: str) -> int:
    if method != "token":
        return len(piece)
    row = conn.execute("select pgstack.estimate_tokens(%s)", (piece,)).fetchone()
    assert row is not None
    size: int = row[0]
    return size


@pytest.mark.parametrize("method", METHODS)
def test_any_text_is_cut_within_size_and_nothing_is_lost(conn: Conn, method: str) -> None:
    marks = ["\f", "# h\n", "```\n", "\n===\n", "\r\n", "\ufeff", "Mr. ", "。", "12345", "\n\n"]
    for n in range(150):
        rng = random.Random(f"{method} {n}")
        alphabet = rng.choice(list(ALPHABETS.values()))
        text = "".join(rng.choices([*alphabet, *marks, "word "], k=rng.randint(1, 200)))
        size = rng.choice([1, 2, 5, 13, 40, 200])
        overlap = rng.choice([0, size // 2, size])
        strip = rng.random() < 0.7
        got = chunk(conn, text, method=method, size=size, overlap=overlap, strip=strip)
        case = (n, text, size, overlap, strip)
        assert [row[0] for row in got] == list(range(len(got))), case
        covered: set[int] = set()
        for _, start, end, piece in got:
            assert text[start:end] == piece != "", case
            assert size_of(conn, method, piece) <= size, case
            assert not strip or piece.strip() == piece, case
            covered |= set(range(start, end))
        starts = [row[1] for row in got]
        assert starts == sorted(starts), case
        left = {text[i] for i in range(len(text)) if i not in covered}
        assert "".join(left).strip() == "", case
        if not strip and method != "page":
            assert left == set(), case


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("text", [None, "", "   ", "\n\n\t", SPACES, "\f\f"])
def test_nothing_in_nothing_out(conn: Conn, method: str, text: str | None) -> None:
    assert chunk(conn, text, method=method) == []


@pytest.mark.parametrize("method", METHODS)
def test_short_texts_stay_whole(conn: Conn, method: str) -> None:
    for text in ("short", "  short. text\n", "漢字"):
        got = chunk(conn, text, method=method)
        assert [row[3] for row in got] == [text.strip()]
        assert got[0][1:3] == (len(text) - len(text.lstrip()), len(text.rstrip()))


@pytest.mark.parametrize("method", METHODS)
def test_separators_say_how_long_pieces_are_cut(conn: Conn, method: str) -> None:
    text = "aaa|bbb|ccc|ddd eee"
    got = chunk(
        conn, text, method=method, size=5, overlap=0, separators=["|", ""], keep_separator="end"
    )
    if method == "token":
        assert [row[3] for row in got] == ["aaa|bbb|", "ccc|ddd eee"]
    else:
        assert [row[3] for row in got] == ["aaa|", "bbb|", "ccc|", "ddd e", "ee"]


@pytest.mark.parametrize("method", ["recursive", "character", *METHODS])
@pytest.mark.parametrize(
    "text",
    [
        "x" * 300_000,
        "." * 300_000,
        "\f" * 100_000 + "x",
        "# h\n" * 20_000,
        "```\n" * 20_000,
        "a\n---\n" * 20_000,
        "a. " * 50_000,
        "\u0301" * 100_000,
        "\n" * 200_000 + "x",
    ],
    ids=[
        "word",
        "stops",
        "pages",
        "headings",
        "fences",
        "underlines",
        "sentences",
        "marks",
        "lines",
    ],
)
def test_hostile_lengths(conn: Conn, method: str, text: str) -> None:
    conn.execute("set local statement_timeout = '60s'")  # what is quadratic takes minutes
    row = conn.execute(
        "select count(*), bool_and(c.chunk = substring(%(text)s from c.start_char + 1 "
        "for c.end_char - c.start_char)) filter (where c.seq %% 997 = 0) "
        "from pgstack.chunk(%(text)s, %(method)s, 500, 100) as c",
        {"text": text, "method": method},
    ).fetchone()
    assert row is not None
    assert row[0] > 0
    assert row[1]
