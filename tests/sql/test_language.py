"""Languages: right where it answers, silent where it cannot know, and fast."""

from __future__ import annotations

import gzip
import json
import os
import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

Conn = psycopg.Connection[Any]
ROOT = Path(__file__).parents[2]
DATA = Path(os.environ.get("PGSTACK_DATA_DIR", ROOT.parent / "shared" / "data"))

# The headings of the Universal Declaration's first article in documents/normal.
HEADINGS = {
    **{"be": "Belarusan", "bg": "Bulgarian", "cs": "Czech", "da": "Danish", "nl": "Dutch"},
    **{"en": "English", "et": "Estonian", "fi": "Finnish", "fr": "French", "hu": "Hungarian"},
    **{"de": "German, Standard (1996)", "el": "Greek (monotonic)", "he": "Hebrew", "hi": "Hindi"},
    **{"is": "Icelandic", "id": "Indonesian", "it": "Italian", "ja": "Japanese", "ko": "Korean"},
    **{"lv": "Latvian", "lt": "Lithuanian", "mk": "Macedonian", "no": "Norwegian, Bokmål"},
    **{"pl": "Polish", "pt": "Portuguese (Brazil)", "ro": "Romanian (2006)", "ru": "Russian"},
    **{"sr": "Serbian (Cyrillic)", "hr": "Croatian", "sk": "Slovak", "sl": "Slovenian"},
    **{"es": "Spanish", "sv": "Swedish", "tr": "Turkish", "uk": "Ukrainian", "vi": "Vietnamese"},
    **{
        "ar": "Arabic, Standard",
        "fa": "Farsi, Western",
        "ur": "Urdu",
        "th": "Thai",
        "mr": "Marathi",
    },
    **{"ka": "Georgian", "hy": "Armenian", "ta": "Tamil", "bn": "Bengali", "am": "Amharic"},
    **{"zh": "Chinese, Mandarin (Simplified)", "km": "Khmer, Central", "lo": "Lao"},
}


def detect(conn: Conn, texts: list[str]) -> list[str | None]:
    query = """
        select pgstack.detect_language(t.input)
        from unnest(%s::text[]) with ordinality as t (input, nr) order by t.nr
    """
    return [row[0] for row in conn.execute(query, (texts,))]


def lines(path: Path) -> Iterator[dict[str, Any]]:
    """The records of a .jsonl or .jsonl.gz; skips the test where it is not."""
    if not path.exists():
        pytest.skip(f"no {path}: set PGSTACK_DATA_DIR")
    data = path.read_bytes()
    yield from map(
        json.loads, (gzip.decompress(data) if path.suffix == ".gz" else data).splitlines()
    )


def test_one_sentence_of_each_language(conn: Conn) -> None:
    path = DATA / "documents" / "normal" / "UDHR_first_article_all.txt"
    if not path.exists():
        pytest.skip(f"no {path}: set PGSTACK_DATA_DIR")
    articles = dict(
        entry.strip().split("\n", 1)
        for entry in re.split(r"\n\s*\n", path.read_text())
        if "\n" in entry.strip()
    )
    found = detect(conn, [articles[heading] for heading in HEADINGS.values()])
    wrong = {c: f for c, f in zip(HEADINGS, found, strict=True) if f != c}
    assert wrong == {}


@pytest.mark.parametrize(
    ("path", "language", "right", "wrong"),
    [
        ("corpora/debian-packages/translations.jsonl.gz", None, 0.99, 0.002),
        ("corpora/debian-packages/packages.jsonl.gz", "en", 0.99, 0.002),
        ("corpora/postgresql-doc-15/pages.jsonl.gz", "en", 0.98, 0.002),
        ("retrieval/xquad-4lang/corpus.jsonl", None, 0.99, 0.002),
        ("retrieval/xquad-4lang/queries.jsonl", None, 0.95, 0.005),
        ("retrieval/scifact/corpus.jsonl", "en", 0.995, 0.001),
    ],
)
def test_share_of_right_and_wrong_answers(
    conn: Conn, path: str, language: str | None, right: float, wrong: float
) -> None:
    records = list(lines(DATA / path))
    sample = random.Random(5).sample(records, min(1000, len(records)))
    expected = [language or r.get("lang") or r["_id"].split(":")[0] for r in sample]
    found = detect(conn, [r["text"] for r in sample])
    pairs = list(zip(expected, found, strict=True))
    assert sum(e == f for e, f in pairs) / len(pairs) >= right
    assert sum(f not in (e, None) for e, f in pairs) / len(pairs) <= wrong


@pytest.mark.parametrize(
    "text",
    [
        *["", " \n\t", "12 34 5.6 2021-01-01", "ok", "New York", "Kubernetes PostgreSQL Docker"],
        *["x = y + z * 3", "0x7fff 0xdead", "😀😀", "https://example.org/a/b?c=d", "\x01\x02 — …"],
        *["Hans Müller, Angela Merkel", "a b c d e f", "\u0301\u200f", "foo_bar(baz)[i] += qux;"],
    ],
)
def test_silent_where_there_is_nothing_to_go_by(conn: Conn, text: str) -> None:
    assert detect(conn, [text]) == [None]


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("Where is the station?", "en"),
        ("Wo ist der Bahnhof?", "de"),
        ("Qu'est-ce que c'est que ça ?", "fr"),
        ("Какой сегодня день? Это не так.", "ru"),
        ("PostgreSQL は DB サーバです (SQL, ACID)", "ja"),
        ("这是一个 PostgreSQL 数据库", "zh"),
        ("Hva er det som ikke virker? Det vet jeg ikke noe om.", "no"),
        ("Hvad er det, der ikke virker? Det ved jeg ikke noget om.", "da"),
        ("Não sei o que é isto, mas também não é meu.", "pt"),
        ("No sé lo que es esto, pero tampoco es mío.", "es"),
    ],
)
def test_short_sentences(conn: Conn, text: str, language: str) -> None:
    assert detect(conn, [text]) == [language]
    assert detect(conn, [text.upper()]) == [language]


def test_null_and_long_texts(conn: Conn) -> None:
    row = conn.execute("select pgstack.detect_language(null)").fetchone()
    assert row == (None,)
    # Only the beginning counts: 40 MB take no longer than 4,000 characters.
    english = "This is the beginning of a text that is longer than anybody wants to read. "
    query = """
        select pgstack.detect_language(%s || repeat('und das ist der Rest davon. ', 1500000))
    """
    assert conn.execute(query, (english * 60,)).fetchone() == ("en",)
