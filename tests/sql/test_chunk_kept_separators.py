"""pgstack.chunk: where separators stay, and white space at the ends, as LangChain has it."""

from __future__ import annotations

import logging
from typing import Any

import psycopg
import pytest
from langchain_text_splitters import CharacterTextSplitter, RecursiveCharacterTextSplitter

from tests.sql.test_chunk import PGAI_SEPARATORS, REGEXES, chunk, random_case

Conn = psycopg.Connection[Any]

# Ours, LangChain's; None: what the splitter does by itself.
KEEP = {"start": "start", "end": "end", "none": False}
PLAIN = [
    PGAI_SEPARATORS,
    ["\n\n", "\n", " ", ""],
    ["\n", "."],
    ["ab", "", "."],
    ["。", "漢", ""],
    ["nowhere"],
    ["x", "b", "\n"],
    ["a", "b", "c", " "],
]
# Besides: matches of nothing, and white space that PostgreSQL's \s does not know.
MORE_REGEXES = [r"x*", r"a*", r"\s*", r"\s", r"\S+", r"[\s.]+", r"[\S]", r"(?<=\.)\s+", r"\r?\n"]


@pytest.fixture(autouse=True)
def _quiet() -> None:
    logging.getLogger("langchain_text_splitters.base").setLevel(logging.ERROR)


def case_of(seed: str) -> tuple[str, str, dict[str, Any]]:
    """A text and arguments of pgstack.chunk()."""
    rng, text, size, overlap = random_case(seed)
    if rng.random() < 0.3:
        text = text.replace("\n", "\r\n")
    is_regex = rng.random() < 0.5
    separators = (
        rng.sample(REGEXES + MORE_REGEXES, k=rng.randint(1, 3)) + rng.choice([[], [""]])
        if is_regex
        else rng.choice(PLAIN)
    )
    method = rng.choice(["recursive", "character"])
    return (
        method,
        text,
        {
            "size": size,
            "overlap": overlap,
            "separators": separators[:1] if method == "character" else separators,
            "is_regex": is_regex,
            "keep_separator": rng.choice([None, *KEEP]),
            "strip": rng.random() < 0.7,
        },
    )


def langchain(method: str, text: str, arguments: dict[str, Any]) -> list[str]:
    options: dict[str, Any] = {
        "chunk_size": arguments["size"],
        "chunk_overlap": arguments["overlap"],
        "is_separator_regex": arguments["is_regex"],
        "strip_whitespace": arguments["strip"],
    }
    if arguments["keep_separator"] is not None:
        options["keep_separator"] = KEEP[arguments["keep_separator"]]
    if method == "recursive":
        return RecursiveCharacterTextSplitter(
            separators=arguments["separators"], **options
        ).split_text(text)
    return CharacterTextSplitter(separator=arguments["separators"][0], **options).split_text(text)


@pytest.mark.parametrize("block", range(4))
def test_equals_langchain(conn: Conn, block: int) -> None:
    for n in range(block * 300, block * 300 + 300):
        method, text, arguments = case_of(f"kept {n}")
        if arguments["strip"] and not text.strip():
            continue  # LangChain leaves it in some cases; here it gives no rows
        got = chunk(conn, text, method=method, **arguments)
        case = (n, method, text, arguments)
        assert [row[3] for row in got] == langchain(method, text, arguments), case
        assert [row[0] for row in got] == list(range(len(got))), case
        left_out = arguments["keep_separator"] == "none" or (
            method == "character" and arguments["keep_separator"] is None
        )
        for _, start, end, piece in got:
            # A chunk can be nothing but what LangChain puts between white space.
            assert 0 <= start <= end <= len(text), case
            assert left_out or text[start:end] == piece != "", case


def test_where_a_separator_stays(conn: Conn) -> None:
    text = "one, two, three, four"
    found = {
        keep: [
            row[3]
            for row in chunk(
                conn, text, size=9, overlap=0, separators=[","], keep_separator=keep, strip=False
            )
        ]
        for keep in KEEP
    }
    assert found == {
        "start": ["one, two", ", three", ", four"],
        "end": ["one, two,", " three,", " four"],
        "none": ["one, two", " three", " four"],
    }


def test_the_default_list_is_never_taken_for_regular_expressions(conn: Conn) -> None:
    text = "One. Two? Three! Four. " * 10
    plain = chunk(conn, text, size=50, overlap=0)
    assert chunk(conn, text, size=50, overlap=0, is_regex=True) == plain


@pytest.mark.parametrize("method", ["character", "recursive"])
def test_white_space_is_kept_if_wanted(conn: Conn, method: str) -> None:
    for text in (" ", "\n\t ", "\n\n\n", " a ", "\u3000"):
        got = chunk(conn, text, method=method, size=20, overlap=0, strip=False)
        want = {
            "size": 20,
            "overlap": 0,
            "separators": PGAI_SEPARATORS if method == "recursive" else ["\n\n"],
            "is_regex": False,
            "keep_separator": None,
            "strip": False,
        }
        assert [row[3] for row in got] == langchain(method, text, want), text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"keep_separator": "both"}, "keep_separator"),
        ({"keep_separator": ""}, "keep_separator"),
        ({"strip": None}, "strip"),
        ({"method": "page", "keep_separator": "none"}, "leaves no separators out"),
        ({"method": "sentence", "keep_separator": "none"}, "leaves no separators out"),
    ],
)
def test_bad_arguments(conn: Conn, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(psycopg.Error) as caught, conn.transaction():
        chunk(conn, "some text", **arguments)
    assert caught.value.sqlstate == "PS007"
    assert message in (caught.value.diag.message_primary or "")
    assert caught.value.diag.message_hint
