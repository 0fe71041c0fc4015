"""Array literals of ours are what PostgreSQL reads."""

from __future__ import annotations

from typing import Any, LiteralString

import psycopg
import pytest

from pgstack.arrays import bytea_array, int_array, text_array

TEXTS = [
    "",
    "plain",
    'a "quoted" \\ one',
    "{a,b}",
    "NULL",
    "null",
    " spaced ",
    "\n\t",
    "žluťoučký 🐎",
    None,
]


@pytest.mark.parametrize(
    ("literal", "query", "values"),
    [
        (int_array, "select %s::int[]", [1, -2, None, 2**31 - 1]),
        (int_array, "select %s::int[]", []),
        (text_array, "select %s::text[]", TEXTS),
        (text_array, "select %s::text[]", []),
        (bytea_array, "select %s::bytea[]", [b"", b'\x00\xff\\"', None]),
    ],
)
def test_what_is_sent_is_what_arrives(
    conn: psycopg.Connection[Any], literal: Any, query: LiteralString, values: list[Any]
) -> None:
    assert conn.execute(query, (literal(values),)).fetchone() == (values,)
