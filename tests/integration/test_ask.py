"""ask(): retrieves, lets a model answer from numbered sources, says which it cited."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import psycopg
import pytest
from psycopg.types.json import Jsonb

from pgstack.search import answer_so_far

Connection = psycopg.Connection[Any]


@pytest.fixture
def animals(db: Connection, worker: Any) -> Connection:
    db.execute("create table animal (id int primary key, body text)")
    db.execute(
        "insert into animal values (1, 'The zebra has stripes. It lives in Africa.'), "
        "(2, 'The penguin swims.'), (3, 'The bat hangs upside down.')"
    )
    db.execute("select pgstack.create_vectorizer('animal', 'body', dimensions => 384)")
    assert db.execute("select pgstack.wait_until_fresh('animal')").fetchone() == (True,)
    return db


def test_an_answer_cites_its_source(animals: Connection) -> None:
    row = animals.execute(
        "select answer, citations, model, duration > '0s' "
        "from pgstack.ask('animal', 'zebra stripes')"
    ).fetchone()
    assert row is not None
    answer, citations, model, took_time = row
    assert answer == "The zebra has stripes. [1]"
    assert [(c["number"], c["id"], c["chunk_seq"], c["cited"]) for c in citations] == [
        (1, {"id": 1}, 0, True)
    ]
    assert citations[0]["chunk"] == "The zebra has stripes. It lives in Africa."
    assert (citations[0]["start_char"], citations[0]["end_char"]) == (0, 42)
    assert (model, took_time) == ("qwen2.5-coder:0.5b", True)


def test_the_model_can_be_chosen(animals: Connection) -> None:
    query = "select model from pgstack.ask('animal', 'zebra', model => 'smollm2:135m')"
    assert animals.execute(query).fetchone() == ("smollm2:135m",)


def test_nothing_found_is_no_answer(db: Connection, worker: Any, models: Any) -> None:
    db.execute("create table empty (id int primary key, body text)")
    db.execute("select pgstack.create_vectorizer('empty', 'body', dimensions => 384)")
    row = db.execute("select answer, citations from pgstack.ask('empty', 'anything')").fetchone()
    assert row == (None, [])
    assert "/api/chat" not in models.stats()["calls"]


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ('{"answer": "Yes.", "sources": [2, 1, 2]}', "Yes. [1][2]"),
        ('{"answer": "Yes [2].", "sources": [1]}', "Yes [2]."),
        ('{"answer": "I do not know.", "sources": []}', "I do not know."),
        ("Plain text [1].", "Plain text [1]."),
        ('{"answer": "cut sho', '{"answer": "cut sho'),
        ('{"other": 1}', '{"other": 1}'),
    ],
)
def test_what_a_model_writes_becomes_text(conn: Connection, content: str, text: str) -> None:
    assert conn.execute("select _pgstack.ask_text(%s)", (content,)).fetchone() == (text,)


@pytest.mark.parametrize(
    ("answer", "numbers", "cited"),
    [
        ("Yes [1].", [1], True),
        ("Yes [1, 3] and [3].", [1, 3], True),
        ("Yes [7].", [1, 2, 3], False),
        ("Yes.", [1, 2, 3], False),
        (None, [1, 2, 3], False),
        ("Array[2]", [2], True),
    ],
)
def test_numbers_in_brackets_are_citations(
    conn: Connection, answer: str | None, numbers: list[int], cited: bool
) -> None:
    sources = Jsonb([{"number": n, "id": {"id": n * 10}} for n in (1, 2, 3)])
    row = conn.execute("select _pgstack.citations(%s, %s)", (sources, answer)).fetchone()
    assert row is not None
    assert [c["number"] for c in row[0]] == numbers
    assert {c["cited"] for c in row[0]} == {cited}


def test_an_answer_can_be_read_while_it_is_written() -> None:
    whole = '{\n "answer": "Said \\"no\\" \\ud83d\\ude00 \\u00e4.", "sources": [1]}'
    seen = [answer_so_far(whole[:end]) for end in range(len(whole) + 1)]
    assert all(later.startswith(earlier) for earlier, later in pairwise(seen))
    assert seen[-1] == 'Said "no" 😀 ä.'
    assert answer_so_far("No JSON at all") == "No JSON at all"
