"""Near-duplicates: all pairs that brute force finds, no other, whatever the texts."""

from __future__ import annotations

import random
from collections.abc import Callable
from itertools import combinations
from typing import Any

import psycopg
import pytest
from psycopg import sql

Conn = psycopg.Connection[Any]
WORDS = [f"{a}{b}" for a in "bdfgklmnprst" for b in ("arn", "eld", "ift", "orm", "uck")]


def fill(conn: Conn, texts: list[str | None]) -> None:
    conn.execute("drop table if exists page")
    conn.execute("create table page (id int primary key, body text)")
    with conn.cursor() as cursor:
        cursor.executemany("insert into page values (%s, %s)", list(enumerate(texts)))


def pairs(conn: Conn, threshold: float = 0.8, shingle: int = 3) -> dict[tuple[int, int], float]:
    """The pairs found in the table page, smaller id first, and how alike they are."""
    query = "select id, other, similarity from pgstack.near_duplicates('page', 'body', %s, %s)"
    found = conn.execute(query, (threshold, shingle))
    return {(one["id"], other["id"]): alike for one, other, alike in found}


def shingles(text: str, size: int) -> set[tuple[str, ...]]:
    words = text.split()
    return {tuple(words[i : i + size]) for i in range(max(1, len(words) - size + 1))}


def edited(text: str, share: float, dice: random.Random) -> str:
    """The text with that share of its words replaced, left out or doubled."""
    words = text.split()
    for place in dice.sample(range(len(words)), max(1, round(share * len(words)))):
        words[place] = dice.choice((dice.choice(WORDS), "", f"{words[place]} {dice.choice(WORDS)}"))
    return " ".join(words)


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.8, 0.95, 1.0])
@pytest.mark.parametrize("shingle", [1, 3, 5])
def test_equals_brute_force(conn: Conn, threshold: float, shingle: int) -> None:
    dice = random.Random(int(threshold * 100) + shingle)
    texts: list[str] = []
    for _ in range(40):
        text = " ".join(dice.choices(WORDS, k=dice.choice((1, 2, 3, 8, 30, 100))))
        texts += [text, *(edited(text, share, dice) for share in (0.01, 0.03, 0.1, 0.3))]
    fill(conn, list(texts))
    first: dict[str, int] = {}
    expected: dict[tuple[int, int], float] = {}
    sets: dict[int, set[tuple[str, ...]]] = {}
    for i, text in enumerate(texts):
        plain = " ".join(text.split())
        if not plain:
            continue
        if plain in first:
            expected[first[plain], i] = 1
        else:
            first[plain] = i
            sets[i] = shingles(plain, shingle)
    for i, j in combinations(sets, 2):
        alike = len(sets[i] & sets[j]) / len(sets[i] | sets[j])
        if alike >= threshold and threshold < 1:
            expected[i, j] = alike
    found = pairs(conn, threshold, shingle)
    assert found.keys() == expected.keys()
    assert all(abs(found[pair] - expected[pair]) < 1e-9 for pair in found)
    assert threshold == 1 or len(expected) > 5


def test_case_punctuation_and_spaces_do_not_matter(conn: Conn) -> None:
    fill(
        conn,
        [
            *["The Barn, again!", None, "", "  \n", "the barn again", "THE\tBARN\n\nAGAIN.", "!!!"],
            *["!!!", "?", "x"],
        ],
    )
    assert pairs(conn) == {(0, 4): 1, (0, 5): 1, (6, 7): 1}


def test_scripts_without_spaces(conn: Conn) -> None:
    text = (
        "数据库是按照数据结构来组织存储和管理数据的仓库它产生于很久以前的某一天并且一直发展到今天"
    )
    fill(
        conn, [text, text.replace("今天", "现在"), "完全不同的一句话与前面没有任何关系", "ไม่เกี่ยวกัน"]
    )
    assert list(pairs(conn)) == [(0, 1)]


def test_a_thousand_copies_of_a_form_are_one_cluster(conn: Conn) -> None:
    form = " ".join(f"{a}{b}" for a in WORDS[:30] for b in ("", "x"))
    fill(conn, [f"{form} number {i}" for i in range(1000)] + ["nothing of the kind", "at all"])
    report = conn.execute(
        "select cluster, copies, exact, least_similarity > 0.8 "
        "from pgstack.duplicate_report('page', 'body')"
    ).fetchall()
    assert report == [(1, 1000, 0, True)]
    assert len(pairs(conn)) <= 1000 * 1000 / 4


def test_long_texts_take_no_longer_than_their_beginning(conn: Conn) -> None:
    dice = random.Random(3)
    text = " ".join(dice.choices([f"{w}{n}" for w in WORDS for n in range(99)], k=15000))
    fill(conn, [text * 50, edited(text, 0.005, dice) * 50, "short"])
    assert list(pairs(conn)) == [(0, 1)]


def test_report_says_what_could_go(conn: Conn) -> None:
    long = "one two three four five six seven eight nine ten eleven twelve thirteen fourteen"
    fill(conn, [long, f"{long}!", f"{long} fifteen", "another", "Another", None])
    query = """
        select cluster, copies, exact, keep_id, drop_ids, characters
        from pgstack.duplicate_report('page', 'body', keep => %s)
    """
    assert conn.execute(query, ("longest",)).fetchall() == [
        (1, 3, 1, {"id": 2}, [{"id": 1}, {"id": 0}], 2 * len(long) + 1),
        (2, 2, 1, {"id": 3}, [{"id": 4}], 7),
    ]
    oldest = conn.execute(query, ("oldest",)).fetchall()
    assert [row[3] for row in oldest] == [{"id": 0}, {"id": 3}]
    fill(conn, [long])
    assert conn.execute(query, ("longest",)).fetchall() == []


def test_any_key_and_hostile_names(conn: Conn) -> None:
    table = sql.Identifier("od\"d '% $1")
    columns = '"a b" text, "c\'" int, "te""xt" varchar, primary key ("c\'", "a b")'
    conn.execute(sql.SQL("create table {} ({})").format(table, sql.SQL(columns)))
    conn.execute(sql.SQL("insert into {} values ('x', 1, 'same'), ('y', 1, 'Same')").format(table))
    found = conn.execute(
        "select id, other from pgstack.near_duplicates(%s::regclass, %s)",
        (table.as_string(conn), 'te"xt'),
    ).fetchall()
    assert found == [({"c'": 1, "a b": "x"}, {"c'": 1, "a b": "y"})]


def test_rows_that_one_may_not_see_are_not_compared(
    conn: Conn, make_role: Callable[[str], str]
) -> None:
    fill(conn, ["the same text here", "the same text here", "the same text here"])
    role = sql.Identifier(make_role("reader"))
    conn.execute("alter table page enable row level security")
    conn.execute("create policy visible on page using (id > 0)")
    conn.execute(sql.SQL("grant select on page to {}").format(role))
    conn.execute(sql.SQL("set local role {}").format(role))
    assert list(pairs(conn)) == [(1, 2)]


@pytest.mark.parametrize(
    ("arguments", "sqlstate"),
    [
        ("'page', 'nobody'", "PS007"),
        ("'page', 'body', 0.1", "PS007"),
        ("'page', 'body', null", "PS007"),
        ("'page', 'body', 0.8, 9", "PS007"),
        ("'keyless', 'body'", "PS013"),
    ],
)
def test_refusals(conn: Conn, arguments: str, sqlstate: str) -> None:
    fill(conn, [])
    conn.execute("create table keyless (body text)")
    with pytest.raises(psycopg.Error) as caught, conn.transaction():
        conn.execute(f"select * from pgstack.near_duplicates({arguments})".encode())
    assert caught.value.sqlstate == sqlstate
    assert caught.value.diag.message_hint
    assert not conn.execute("select * from pgstack.near_duplicates('page', 'body')").fetchall()
