"""pgstack.detect_pii and mask_pii: what is found, where, and what is not."""

from __future__ import annotations

from typing import Any, LiteralString

import psycopg
import pytest

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
