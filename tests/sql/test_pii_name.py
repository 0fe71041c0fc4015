"""Names of people, which a model finds: only what really stands in the text counts."""

from __future__ import annotations

import json
from typing import Any

import psycopg
import pytest

from tests.sql.test_pii import found as found_without

Conn = psycopg.Connection[Any]


@pytest.fixture
def says(conn: Conn) -> Any:
    """Put a model in place of the real one: it answers every prompt with the same text."""

    def says(answer: str) -> None:
        conn.execute("create table answer (text text)") if not conn.execute(
            "select to_regclass('answer')"
        ).fetchone()[0] else conn.execute("delete from answer")
        conn.execute("insert into answer values (%s)", (answer,))
        conn.execute(
            """
            create or replace function pgstack.generate(
              prompt text, model text default null, system text default null,
              format jsonb default null, options jsonb default null
            ) returns text language sql volatile as 'select text from public.answer'
            """
        )

    return says


def found(conn: Conn, text: str, types: list[str] | None = None) -> list[tuple[str, str]]:
    rows = conn.execute("select * from pgstack.detect_pii(%s, %s, 'm')", (text, types)).fetchall()
    for _, start, end, value in rows:
        assert text[start:end] == value
    return [(row[0], row[3]) for row in rows]


def test_every_place_of_a_name_is_found(conn: Conn, says: Any) -> None:
    says(json.dumps({"names": ["Jane Doe", "Doe", "李雷", "Ann", "Nobody Else", 7, None, "x", ""]}))
    text = "Jane Doe met Ann; 😀 Doe wrote a@b.org. Anna and Annex: 李雷说 Jane Doe."
    assert found(conn, text) == [
        ("name", "Jane Doe"),
        ("name", "Ann"),
        ("name", "Doe"),
        ("email", "a@b.org"),
        ("name", "李雷"),
        ("name", "Jane Doe"),
    ]
    assert found(conn, text, ["name"])[0] == ("name", "Jane Doe")
    assert ("email", "a@b.org") not in found(conn, text, ["name", "ip"])
    row = conn.execute("select pgstack.mask_pii(%s, null, false, 'm')", (text,)).fetchone()
    assert row == ("[NAME] met [NAME]; 😀 [NAME] wrote [EMAIL]. Anna and Annex: [NAME]说 [NAME].",)
    row = conn.execute("select length(pgstack.mask_pii(%s, null, true, 'm'))", (text,)).fetchone()
    assert row == (len(text),)


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "no json",
        "[]",
        "null",
        '{"names": "Jane"}',
        '{"names": [["Jane"]]}',
        '{"names": ["\\u0000"]}',
        '{"names": ["Jane Doe wrote to a@b.org"]}',
        '{"names": ["Invented Person"]}',
        "{",
    ],
)
def test_a_model_that_talks_nonsense_adds_nothing(conn: Conn, says: Any, answer: str) -> None:
    says(answer)
    text = "Jane Doe wrote to a@b.org"
    assert found(conn, text) == found_without(conn, text)


def test_what_checks_found_goes_before_names(conn: Conn, says: Any) -> None:
    says(json.dumps({"names": ["jane", "mail jane"]}))
    assert found(conn, "mail jane@doe.org and jane") == [
        ("email", "jane@doe.org"),
        ("name", "jane"),
    ]


def test_null_gives_nothing(conn: Conn, says: Any) -> None:
    says('{"names": []}')
    row = conn.execute("select pgstack.mask_pii(null, null, false, 'm')").fetchone()
    assert row == (None,)
    assert found_without(conn, "") == []
