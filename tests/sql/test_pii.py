"""pgstack.detect_pii and mask_pii: what is found, where, and what is not."""

from __future__ import annotations

from pathlib import Path
from typing import Any, LiteralString

import psycopg
import pytest

from bench import _pii_set

Conn = psycopg.Connection[Any]

DETECT: LiteralString = "select type, start_char, end_char, value from pgstack.detect_pii(%s, %s)"


def found(conn: Conn, text: str, types: list[str] | None = None) -> list[tuple[str, str]]:
    """Types and values in a text; the places are checked on the way."""
    rows = conn.execute(DETECT, (text, types)).fetchall()
    for _, start, end, value in rows:
        assert text[start:end] == value
    return [(row[0], row[3]) for row in rows]


def mask(conn: Conn, text: str | None, *arguments: Any) -> Any:
    row = conn.execute(
        "select pgstack.mask_pii(%s, %s, %s)", (text, *(*arguments, None, False)[:2])
    ).fetchone()
    assert row is not None
    return row[0]


def test_every_type_finds_its_example(conn: Conn) -> None:
    rows = conn.execute("select type, example from pgstack.pii_types()").fetchall()
    assert len(rows) > 20
    for kind, example in rows:
        for text in (example, f"Über mich: {example}.", f"({example}), 北京", f"\n{example}\n"):
            assert [each[0] for each in found(conn, text)] == [kind], text


def test_an_unknown_type_is_refused(conn: Conn) -> None:
    for types in (["e-mail"], [None], ["email", "name"]):
        with pytest.raises(psycopg.Error, match="no type") as caught, conn.transaction():
            found(conn, "text", types)  # type: ignore[arg-type]
        assert caught.value.sqlstate == "PS007"
        assert "credit_card, email, iban" in str(caught.value.diag.message_hint)


def test_types_choose_and_national_id_is_a_group(conn: Conn) -> None:
    text = "a@b.org 536-90-4399 54362315K +44 20 7946 0958"
    assert [kind for kind, _ in found(conn, text)] == [
        "email",
        "national_id_us",
        "national_id_es",
        "phone",
    ]
    assert found(conn, text, ["national_id"]) == [
        ("national_id_us", "536-90-4399"),
        ("national_id_es", "54362315K"),
    ]
    assert found(conn, text, ["phone", "email"]) == [
        ("email", "a@b.org"),
        ("phone", "+44 20 7946 0958"),
    ]
    assert found(conn, text, []) == []


def test_masks(conn: Conn) -> None:
    text = "Schreib an jürgen@müller.de, 😀 IP 10.1.2.3, SSN 536-90-4399!"
    assert mask(conn, text) == "Schreib an [EMAIL], 😀 IP [IP], SSN [NATIONAL_ID_US]!"
    assert mask(conn, text, ["ip"]) == text.replace("10.1.2.3", "[IP]")
    kept = mask(conn, text, None, True)
    assert kept == "Schreib an [EMAIL*********], 😀 IP [IP****], SSN ***********!"
    assert len(kept) == len(text)


def test_nothing_in_nothing_out(conn: Conn) -> None:
    assert mask(conn, None) is None
    assert mask(conn, "") == ""
    assert conn.execute(DETECT, (None, None)).fetchall() == []


def test_the_judged_set(conn: Conn) -> None:
    """Numbers with check digits are never found where there is none; little is missed."""
    judged = _pii_set.sentences(seed=5, each=60)
    got = [[(kind, value) for kind, value in found(conn, one.text)] for one in judged]
    scores = _pii_set.score(judged, got)
    checked = conn.execute("select type from pgstack.pii_types() where checked").fetchall()
    assert {kind for (kind,) in checked} <= set(scores)
    for kind, score in scores.items():
        assert score.recall >= 0.97, (kind, score)
        assert score.precision >= (1 if (kind,) in checked else 0.97), (kind, score)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("Tel. 030 1234567, 040 7654321 und 089 112233", ["phone", "phone", "phone"]),
        ("Bitte 12,50 EUR bis 01.02.2024, Tel. folgt", []),
        ("IBAN: DE89 3704 0044 0532 0130 01 (mistyped)", []),
        ("card 4111 1111 1111 1111 12/26 cvv 123", ["credit_card"]),
        ("order no. 4111111111111111", []),
        ("https://shop.example/?id=4111111111111111", []),
        ("请发邮件到test@example.com谢谢", ["email"]),
        ("git@github.com:pgstack/pgstack.git, https://me@example.org/x", []),
        ("version 1.2.3.14 runs on 10.0.0.1 and 192.168.1.14", ["ip", "ip"]),
        ("26.3.6.1. Standalone backups", []),
        ("2001:db8::1, std::string, 12:30:45, a::b, ::1", ["ip"]),
        ("08:00:2b:01:02:03:04:05", ["mac"]),
        ("550e8400-e29b-41d4-a716-446655440000", []),
        ("SSN 536904399 or 536 90 4398", ["national_id_us", "national_id_us"]),
        ("number 536904399", []),
        ("(1249\u20131314) during", []),
        ("in order to call me: +49 30 1234567", ["phone"]),
    ],
)
def test_words_and_neighbours_decide(conn: Conn, text: str, wanted: list[str]) -> None:
    assert [kind for kind, _ in found(conn, text)] == wanted


@pytest.mark.parametrize(
    "piece",
    ["7", "a@", "a@a.a ", "1.", ":", "1 ", "+1 ", "é1-", "GB29 ", "4111 1111 ", "(0", "00 4"],
)
def test_time_grows_with_the_text_and_no_faster(conn: Conn, piece: str) -> None:
    """Twice the text takes twice the time, not four times: pieces that are like a number's.

    The time is the processor's: on a busy machine the clock's says nothing.
    """
    statistics = Path(f"/proc/{conn.info.backend_pid}/schedstat")

    def processor_seconds(count: int) -> float:
        text = (piece * count)[:count]
        began = int(statistics.read_text().split()[0])
        conn.execute(DETECT, (text, None)).fetchall()
        return (int(statistics.read_text().split()[0]) - began) / 1e9

    processor_seconds(500)
    short = min(processor_seconds(1500) for _ in range(3))
    assert min(processor_seconds(6000) for _ in range(2)) < 8 * short + 0.05


@pytest.mark.parametrize("gap", [0, 1, 200, 249, 250, 251, 400, 5000])
def test_places_are_exact_wherever_a_number_stands(conn: Conn, gap: int) -> None:
    """Behind letters of one to four bytes, and across the borders of windows."""
    card = "4111-1111-1111-1111"
    for filler in ("x ", "é😀", "1-", "漢字。", "9 "):
        text = (filler * gap)[:gap] + " ; " + card + " ; a@b.org ; " + (filler * gap)[:gap]
        assert ("credit_card", card) in found(conn, text)
        kept = mask(conn, text, None, True)
        assert len(kept) == len(text)
        assert card not in kept
        assert "a@b.org" not in kept
