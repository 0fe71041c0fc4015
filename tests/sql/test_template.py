"""Templates: what Python's string.Template.substitute() gives, and errors that say what to do."""

from __future__ import annotations

import random
from string import Template
from typing import Any

import psycopg
import pytest
from psycopg.types.json import Jsonb

Conn = psycopg.Connection[Any]


def fill(conn: Conn, template: str | None, chunk: str | None, /, **variables: Any) -> str:
    row = conn.execute(
        "select _pgstack.fill_template(%s, %s, %s)", (template, chunk, Jsonb(variables))
    ).fetchone()
    assert row is not None
    return row[0]


def refused(conn: Conn, query: str, arguments: tuple[Any, ...]) -> psycopg.Error:
    with pytest.raises(psycopg.Error) as caught, conn.transaction():
        conn.execute(query, arguments)
    assert caught.value.sqlstate == "PS007"
    assert caught.value.diag.message_hint
    return caught.value


def test_equals_python(conn: Conn) -> None:
    variables = {"a": "x", "A": "y", "_b1": "$a ${a} $$", "title": "Ünïcode 😀", "empty": ""}
    bits = [
        *"$${}aA_1 é\n",
        "$a",
        "$A",
        "${a}",
        "$_b1",
        "${_b1}",
        "$$",
        "$title",
        "$titles",
        "$chunk",
        "${chunk}",
        "${",
        "$é",
        "$1",
        "${1}",
        "${a b}",
        "\\1",
        "\\&",
        "%s",
        "$empty",
    ]
    chunk = "the $chunk \\0 $$ text"
    outcomes = {"filled": 0, "refused": 0}
    for n in range(1000):
        rng = random.Random(n)
        template = "".join(rng.choices(bits, k=rng.randint(1, 8)))
        try:
            expected = Template(template).substitute(chunk=chunk, **variables)
        except (KeyError, ValueError):
            refused(
                conn,
                "select _pgstack.fill_template(%s, %s, %s)",
                (template, chunk, Jsonb(variables)),
            )
            outcomes["refused"] += 1
        else:
            assert fill(conn, template, chunk, **variables) == expected, template
            outcomes["filled"] += 1
            named = conn.execute("select _pgstack.template_columns(%s)", (template,)).fetchone()
            assert named is not None
            assert named[0] == [
                name for name in Template(template).get_identifiers() if name != "chunk"
            ]
    assert min(outcomes.values()) > 100


def test_the_trivial_template(conn: Conn) -> None:
    assert fill(conn, "$chunk", "the $text") == "the $text"
    assert fill(conn, "$chunk", None) == ""
    row = conn.execute("select _pgstack.fill_template('$chunk', 'c', null)").fetchone()
    assert row == ("c",)


def test_null_is_empty_and_other_types_are_text(conn: Conn) -> None:
    assert fill(conn, "[$a] $n $chunk", None, a=None, n=1.5) == "[] 1.5 "


def test_chunk_wins_over_a_column_of_that_name(conn: Conn) -> None:
    assert fill(conn, "$chunk!", "text", chunk="column") == "text!"


def test_unknown_name(conn: Conn) -> None:
    error = refused(
        conn,
        "select _pgstack.fill_template(%s, %s, %s)",
        ("$Title", "c", Jsonb({"title": "t", "author": "a"})),
    )
    assert "$Title" in (error.diag.message_primary or "")
    for name in ("$chunk", "$title", "$author"):
        assert name in (error.diag.message_hint or "")


def test_lone_dollar(conn: Conn) -> None:
    error = refused(conn, "select _pgstack.template_columns(%s)", ("costs $ 5",))
    assert '"$ 5"' in (error.diag.message_primary or "")
    assert "$$" in (error.diag.message_hint or "")


@pytest.mark.parametrize(
    "text",
    ["$chunk", "$title: $chunk", "${title}$$ ${chunk}", "$chunk $chunk"],
)
def test_check_accepts(conn: Conn, text: str) -> None:
    conn.execute("select _pgstack.check_template(%s, array['title', 'body'])", (text,))


@pytest.mark.parametrize(
    ("text", "columns", "names"),
    [
        (None, ["title"], "null"),
        ("", ["title"], "$chunk"),
        ("$title", ["title"], "$chunk"),
        ("$$chunk", ["title"], "$chunk"),
        ("$chunks", ["title"], "$chunk"),
        ("$chunk $titel", ["title"], "$titel"),
        ("$chunk $", ["title"], "$"),
        ("$chunk $title", ["title", "chunk"], "chunk"),
        ("$chunk $title", None, "$title"),
    ],
)
def test_check_refuses(conn: Conn, text: str | None, columns: list[str] | None, names: str) -> None:
    error = refused(conn, "select _pgstack.check_template(%s, %s::text[])", (text, columns))
    assert names in (error.diag.message_primary or "")
