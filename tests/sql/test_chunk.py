"""pgstack.chunk and ai.chunk_text*: the same chunks as LangChain's text splitters.

LangChain is the oracle: random texts over several alphabets, sizes and overlaps must
give the same chunks, and the offsets must cut the very same text out of the input.
"""

from __future__ import annotations

import logging
import random
import re
from typing import Any

import psycopg
import pytest
from langchain_text_splitters import CharacterTextSplitter, RecursiveCharacterTextSplitter

Conn = psycopg.Connection[Any]
Row = tuple[int, int, int, str]

PGAI_SEPARATORS = ["\n\n", "\n", ".", "?", "!", " ", ""]

# Python's idea of white space, and characters of one to four bytes.
SPACES = "\t\n\v\f\r\x1c\x1d\x1e\x1f \x85\xa0\u1680\u2000\u200a\u2028\u2029\u202f\u205f\u3000"
ALPHABETS = {
    "english": "abcdefgh     ...??!\n\n",
    "words": "ab ",
    "dense": "abc.\n",
    "chinese": "漢字文章。\n ",
    "emoji": "a😀👩‍👧é\u0301 \n.",
    "rtl": "שלוםعربية \u202e.\n",
    "spaces": SPACES + "ab",
    "solid": "xy",
    "solid-wide": "é漢😀",
    "control": "a\x01\x02\x03 .\n",
}


@pytest.fixture(autouse=True)
def _quiet() -> None:
    logging.getLogger("langchain_text_splitters.base").setLevel(logging.ERROR)


def chunk(conn: Conn, text: str | None, **arguments: Any) -> list[Row]:
    query = "select seq, start_char, end_char, chunk from pgstack.chunk(%(input)s"
    query += "".join(f", {name} => %({name})s" for name in arguments) + ")"
    return conn.execute(query, {"input": text, **arguments}).fetchall()


def recursive(text: str, size: int, overlap: int, separators: list[str], regex: bool) -> list[str]:
    return RecursiveCharacterTextSplitter(
        separators=separators, chunk_size=size, chunk_overlap=overlap, is_separator_regex=regex
    ).split_text(text)


def character(text: str, size: int, overlap: int, separator: str, regex: bool) -> list[str]:
    return CharacterTextSplitter(
        separator=separator, chunk_size=size, chunk_overlap=overlap, is_separator_regex=regex
    ).split_text(text)


def random_case(seed: str) -> tuple[random.Random, str, int, int]:
    """A text with runs and repeats in it, a size and an overlap."""
    rng = random.Random(seed)
    alphabet = rng.choice(list(ALPHABETS.values()))
    pieces = ["".join(rng.choices(alphabet, k=rng.randint(1, 12))) for _ in range(6)]
    text = "".join(rng.choices([*pieces, *alphabet], k=rng.randint(1, 120)))
    size = rng.choice([1, 2, 3, 5, 8, 13, 40, 100])
    overlap = rng.choice([0, 1, size // 2, max(size - 1, 0), size])
    return rng, text, size, min(overlap, size)


def test_recursive_equals_langchain(conn: Conn) -> None:
    lists = [
        PGAI_SEPARATORS,
        ["\n\n", "\n", " ", ""],
        ["\n", "."],
        [" "],
        [""],
        ["ab", "", "."],
        ["。", "漢", ""],
        ["aa", "a"],
        ["nowhere"],
    ]
    for n in range(400):
        rng, text, size, overlap = random_case(f"recursive {n}")
        if not text.strip():
            continue
        separators = rng.choice(lists)
        got = chunk(conn, text, size=size, overlap=overlap, separators=separators)
        case = (n, text, size, overlap, separators)
        assert [row[3] for row in got] == recursive(text, size, overlap, separators, False), case
        assert [row[0] for row in got] == list(range(len(got))), case
        assert [text[row[1] : row[2]] for row in got] == [row[3] for row in got], case


def test_recursive_offsets_tell_equal_chunks_apart(conn: Conn) -> None:
    text = "same text. " * 50
    got = chunk(conn, text, size=11, overlap=0)
    assert [row[3] for row in got[:2]] == ["same text", ". same text"]
    starts = [row[1] for row in got]
    assert starts == sorted(set(starts))
    assert all(text[start:end] == piece for _, start, end, piece in got)


def test_character_equals_langchain(conn: Conn) -> None:
    for n in range(400):
        rng, text, size, overlap = random_case(f"character {n}")
        if not text.strip():
            continue
        separator = rng.choice(["\n\n", "\n", " ", ".", "a", "ab", "漢", "😀", "", "nowhere"])
        got = chunk(
            conn, text, method="character", size=size, overlap=overlap, separators=[separator]
        )
        case = (n, text, size, overlap, separator)
        assert [row[3] for row in got] == character(text, size, overlap, separator, False), case
        # Verbatim wherever no empty part was dropped; otherwise the same stretch.
        for _, start, end, piece in got:
            cut = text[start:end]
            if separator and cut != piece:
                assert separator * 2 in text, case
                assert [p for p in cut.split(separator) if p] == [
                    p for p in piece.split(separator) if p
                ], case
            else:
                assert cut == piece, case


REGEXES = [
    r"\s+",
    r"\n+",
    r"[.?!]",
    r"(?<=[.?!])",
    r"(?=\n)",
    r"(?<!a) ",
    r"a(?!b)",
    r"(?:ab|ba)",
    r"a{2,3}",
    r"a{,2}b",
    r".a",
    r"[^a]b",
    r"\.",
    r"\x20",
    r"\bab\b",
    r"a+?b",
    r"{a",
    r"[\[a]",
    r"[]a]",
    r"$",
    r"^a",
]


def test_recursive_by_regular_expression(conn: Conn) -> None:
    for n in range(400):
        rng, text, size, overlap = random_case(f"regex {n}")
        if not text.strip() or not text.isascii():
            continue
        separators = rng.sample(REGEXES, k=rng.randint(1, 3)) + rng.choice([[], [""]])
        got = chunk(conn, text, size=size, overlap=overlap, separators=separators, is_regex=True)
        case = (n, text, size, overlap, separators)
        assert [row[3] for row in got] == recursive(text, size, overlap, separators, True), case
        assert [text[row[1] : row[2]] for row in got] == [row[3] for row in got], case


def test_character_by_regular_expression(conn: Conn) -> None:
    for n in range(400):
        rng, text, size, overlap = random_case(f"character regex {n}")
        if not text.strip() or not text.isascii():
            continue
        pattern = rng.choice(REGEXES)
        got = chunk(
            conn,
            text,
            method="character",
            size=size,
            overlap=overlap,
            separators=[pattern],
            is_regex=True,
        )
        case = (n, text, size, overlap, pattern)
        assert [row[3] for row in got] == character(text, size, overlap, pattern, True), case
        for _, start, end, piece in got:
            assert 0 <= start < end <= len(text), case
            # What was joined has the expression itself, or nothing, where the match was.
            if not re.search(pattern, text[start:end]):
                assert text[start:end] == piece, case


@pytest.mark.parametrize("size", [100, 800, 4000])
def test_real_text(conn: Conn, size: int) -> None:
    from pydoc_data.topics import topics

    text = "\n\n".join(topics[name] for name in sorted(topics))[:150_000]
    got = chunk(conn, text, size=size, overlap=size // 4)
    assert [row[3] for row in got] == recursive(text, size, size // 4, PGAI_SEPARATORS, False)
    assert all(text[start:end] == piece for _, start, end, piece in got)


def test_defaults_are_pgai_s(conn: Conn) -> None:
    text = ("One sentence. Another one! " * 20 + "\n") * 5
    assert [row[3] for row in chunk(conn, text)] == recursive(
        text, 800, 400, PGAI_SEPARATORS, False
    )
    text = text.replace("\n", "\n\n")
    assert [row[3] for row in chunk(conn, text, method="character")] == character(
        text, 800, 400, "\n\n", False
    )
    # An empty list is LangChain's cue for its own.
    assert [row[3] for row in chunk(conn, text, separators=[])] == recursive(
        text, 800, 400, [], False
    )


def test_none_returns_the_text_as_it_is(conn: Conn) -> None:
    assert chunk(conn, "  two words\n", method="none", size=3, overlap=0) == [
        (0, 0, 12, "  two words\n")
    ]


@pytest.mark.parametrize("method", ["none", "character", "recursive"])
@pytest.mark.parametrize("text", [None, "", "   ", "\n\n\t", SPACES, " " * 5000])
def test_nothing_in_nothing_out(conn: Conn, method: str, text: str | None) -> None:
    assert chunk(conn, text, method=method) == []


def test_code_points_are_counted(conn: Conn) -> None:
    text = "👩‍👧é\u0301漢" * 3
    got = chunk(conn, text, size=4, overlap=1)
    assert [row[3] for row in got] == [text[n : n + 4] for n in range(0, len(text) - 3, 3)] + (
        [text[15:]] if len(text) == 18 else []
    )
    assert got[-1][2] == len(text)


@pytest.mark.parametrize(
    ("arguments", "message", "hint"),
    [
        ({"size": 0}, "size", "size => 800"),
        ({"size": -1}, "size", "size => 800"),
        ({"size": None}, "size", "size => 800"),
        ({"overlap": -1}, "overlap", "overlap => 0"),
        ({"overlap": None}, "overlap", "overlap => 0"),
        ({"size": 10, "overlap": 11}, "larger than size", "overlap => 5"),
        ({"method": "semantic"}, "semantic", "recursive"),
        ({"method": None}, "NULL", "recursive"),
        ({"is_regex": None}, "is_regex", "is_regex => false"),
        ({"separators": ["a", None]}, "separator", "separators =>"),
        ({"method": "character", "separators": ["a", "b"]}, "one separator", "separators =>"),
        ({"method": "character", "separators": []}, "one separator", "separators =>"),
    ],
)
def test_bad_arguments(conn: Conn, arguments: dict[str, Any], message: str, hint: str) -> None:
    # The arguments are wrong whatever the text is.
    for text in ("some text", None):
        with pytest.raises(psycopg.Error) as caught, conn.transaction():
            chunk(conn, text, **arguments)
        assert caught.value.sqlstate == "PS007"
        assert message in (caught.value.diag.message_primary or "")
        assert hint in (caught.value.diag.message_hint or "")


@pytest.mark.parametrize(
    "pattern",
    [
        "(a)",
        "(?P<x>a)",
        "(?i)a",
        "(?>a)",
        "(?#note)a",
        r"a\1",
        "a*+",
        "a+b*?",
        "a[",
        "(?:a",
        "*a",
        "***=a",
        "a\\",
        r"\m",
        "a{300}",
        r"\p",
    ],
)
def test_expressions_that_mean_something_else_are_refused(conn: Conn, pattern: str) -> None:
    text = "a b c a b c a b c"
    for method in ("recursive", "character"):
        with pytest.raises(psycopg.Error) as caught, conn.transaction():
            chunk(conn, text, method=method, size=5, overlap=0, separators=[pattern], is_regex=True)
        assert caught.value.sqlstate == "PS007"
        assert caught.value.diag.message_hint


def test_a_name_like_a_separator_is_not_a_pattern(conn: Conn) -> None:
    text = "a.*b.*c"
    assert [row[3] for row in chunk(conn, text, size=3, overlap=0, separators=[".*"])] == recursive(
        text, 3, 0, [".*"], False
    )
    assert re.escape(".*") != ".*"


def test_a_text_that_uses_every_control_character(conn: Conn) -> None:
    text = "".join(map(chr, range(1, 32))) * 3 + "end"
    got = chunk(conn, text, size=9, overlap=2, separators=[r"\n", ""], is_regex=True)
    assert [row[3] for row in got] == recursive(text, 9, 2, [r"\n", ""], True)


def test_bad_separator_is_told_even_if_the_text_is_short(conn: Conn) -> None:
    with pytest.raises(psycopg.Error) as caught, conn.transaction():
        chunk(conn, "short", separators=["("], is_regex=True)
    assert caught.value.sqlstate == "PS007"


def test_a_search_path_of_the_caller_changes_nothing(conn: Conn) -> None:
    conn.execute("create schema evil")
    conn.execute(
        "create function evil.btrim(text, text) returns text language sql as $$ select 'x' $$"
    )
    conn.execute("set local search_path = evil, pg_catalog")
    assert chunk(conn, " a ") == [(0, 1, 2, "a")]


def test_in_a_join_and_in_parallel_plans(conn: Conn) -> None:
    conn.execute("create temporary table doc (id int, body text) on commit drop")
    conn.execute("insert into doc select n, repeat('word ', n) from generate_series(0, 30) n")
    counts = conn.execute(
        "select d.id, count(c.seq) from doc d left join lateral "
        "pgstack.chunk(d.body, size => 20, overlap => 0) c on true group by 1 order by 1"
    ).fetchall()
    assert counts == [
        (n, len(recursive("word " * n, 20, 0, PGAI_SEPARATORS, False))) for n in range(31)
    ]


def test_pgai_chunk_text(conn: Conn) -> None:
    text = ("Some words here. " * 40 + "\n\n") * 20
    rows = conn.execute("select seq, chunk from ai.chunk_text(%s)", (text,)).fetchall()
    assert [c for _, c in rows] == character(text, 4000, 200, "\n\n", False)
    assert [s for s, _ in rows] == list(range(len(rows)))
    rows = conn.execute(
        "select chunk from ai.chunk_text(%s, 100, 20, %s, true)", (text, r"\s+")
    ).fetchall()
    assert [c for (c,) in rows] == character(text, 100, 20, r"\s+", True)


def test_pgai_chunk_text_recursively(conn: Conn) -> None:
    text = ("Some words here. " * 40 + "\n\n") * 20
    rows = conn.execute("select seq, chunk from ai.chunk_text_recursively(%s)", (text,)).fetchall()
    # Here the list is LangChain's own, not that of ai.chunking_recursive_...().
    assert [c for _, c in rows] == recursive(text, 4000, 200, ["\n\n", "\n", " ", ""], False)
    rows = conn.execute(
        "select chunk from ai.chunk_text_recursively(%s, 50, 10, %s)", (text, [".", " "])
    ).fetchall()
    assert [c for (c,) in rows] == recursive(text, 50, 10, [".", " "], False)
    assert conn.execute("select * from ai.chunk_text_recursively(null)").fetchall() == []
