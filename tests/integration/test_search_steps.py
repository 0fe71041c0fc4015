"""search()'s last steps: diversity, and a model that reranks."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from psycopg import sql

from pgstack.db import connect
from tests.integration.conftest import raises, value

Connection = psycopg.Connection[Any]
Models = Any  # the class of the fixture `models`
MODES = ["vector", "text", "hybrid"]
MODEL = "qwen2.5-coder:0.5b"
BODIES = [
    # Five that say the same.
    "The zebra has stripes of black and white.",
    "The zebra has stripes of white and black.",
    "A zebra has stripes of black and of white.",
    "The zebra has black and white stripes.",
    "That zebra has stripes of black and white.",
    # Five of other things, which have stripes or zebras too.
    "Road workers paint stripes on asphalt.",
    "Toothpaste comes with red stripes.",
    "A zebra was seen by the lion at noon.",
    "Old shirts with stripes sell well in summer.",
    "The zebra finch sings in the morning.",
]
SAME = {1, 2, 3, 4, 5}


@pytest.fixture(scope="module")
def stripes_url(running_url: str) -> Iterator[str]:
    """The shared database with repetitive rows, embedded: in a table, and in a column."""
    with connect(running_url, autocommit=True) as conn:
        conn.execute(
            "create table stripe (id integer primary key, body text); "
            "create table spot (id integer primary key, body text)"
        )
        for nr, body in enumerate(BODIES, 1):
            conn.execute("insert into stripe values (%s, %s)", (nr, body))
            conn.execute("insert into spot values (%s, %s)", (nr, body))
        conn.execute(
            "select pgstack.create_vectorizer('stripe', 'body', dimensions => 384), "
            "pgstack.create_vectorizer('spot', 'body', dimensions => 384, embedding_column => 'v')"
        )
        assert value(conn, "select pgstack.wait_until_fresh('stripe')")
        assert value(conn, "select pgstack.wait_until_fresh('spot')")
    yield running_url
    with connect(running_url, autocommit=True) as conn:
        conn.execute(
            "select pgstack.drop_vectorizer('stripe', true), pgstack.drop_vectorizer('spot'); "
            "drop table stripe, spot"
        )


@pytest.fixture
def stripes(stripes_url: str, served: Connection) -> Connection:
    """A connection to the stripes."""
    assert stripes_url
    return served


def found(conn: Connection, name: str = "stripe", **options: Any) -> list[Any]:
    """Rank, key and score of what search() finds."""
    arguments = {"vectorizer": name, "query": "zebra stripes black white", **options}
    call = sql.SQL(", ").join(
        sql.SQL("{} => {}").format(sql.Identifier(key), sql.Literal(argument))
        for key, argument in arguments.items()
    )
    query = sql.SQL("select rank, (id ->> 'id')::int, score from pgstack.search({})").format(call)
    return conn.execute(query).fetchall()


def ids(conn: Connection, name: str = "stripe", **options: Any) -> list[int]:
    """The keys search() finds, best first."""
    return [row[1] for row in found(conn, name, **options)]


# ------------------------------------------------------------------------ diversity


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("per", ["chunk", "row"])
def test_repetitions_are_put_back(stripes: Connection, mode: str, per: str) -> None:
    plain = ids(stripes, mode=mode, per=per, k=4)
    assert set(plain) <= SAME
    varied = ids(stripes, mode=mode, per=per, k=4, diversity=0.7)
    assert varied[0] == plain[0]
    assert len(set(varied) & SAME) <= 2
    assert ids(stripes, mode=mode, per=per, k=4, diversity=0) == plain
    assert len(set(ids(stripes, mode=mode, per=per, k=4, diversity=1)) & SAME) == 1


@pytest.mark.parametrize("mode", MODES)
def test_a_little_diversity_changes_little(stripes: Connection, mode: str) -> None:
    assert len(set(ids(stripes, mode=mode, k=4, diversity=0.05)) & SAME) >= 3


@pytest.mark.parametrize("mode", MODES)
def test_scores_stay_and_ranks_count(stripes: Connection, mode: str) -> None:
    scores = {key: score for _, key, score in found(stripes, mode=mode, k=50)}
    rows = found(stripes, mode=mode, k=5, diversity=0.7)
    assert [row[0] for row in rows] == [1, 2, 3, 4, 5]
    assert all(score == pytest.approx(scores[key]) for _, key, score in rows)
    assert [row[2] for row in rows] != sorted((row[2] for row in rows), reverse=True)


def test_all_rows_come_when_all_are_asked_for(stripes: Connection) -> None:
    assert sorted(ids(stripes, mode="vector", k=1000, diversity=0.5)) == list(range(1, 11))
    assert ids(stripes, query="lion", mode="text", diversity=0.5) == [8]
    assert ids(stripes, query="xylophone", mode="text", diversity=0.5) == []


def test_a_row_without_a_vector_is_like_no_other(stripes: Connection) -> None:
    stripes.execute("select pgstack.pause_vectorizer('spot')")
    stripes.execute("insert into spot values (11, %s)", (BODIES[0],))
    try:
        assert 11 in ids(stripes, "spot", mode="text", k=3, diversity=0.9)
        assert 11 not in ids(stripes, "spot", mode="vector", k=50, diversity=0.9)
        assert len(ids(stripes, "spot", mode="hybrid", k=50, diversity=0.9)) == 11
    finally:
        stripes.execute("delete from spot where id = 11")
        stripes.execute("select pgstack.resume_vectorizer('spot')")


@pytest.mark.parametrize("diversity", [-0.1, 1.1, None, float("nan")])
def test_no_such_diversity(stripes: Connection, diversity: float | None) -> None:
    with raises("PS007", "diversity"):
        ids(stripes, diversity=diversity)


# --------------------------------------------------------------------------- rerank


def order(*numbers: Any) -> str:
    return json.dumps(numbers)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("per", ["chunk", "row"])
def test_the_model_puts_rows_in_order(
    stripes: Connection, models: Models, mode: str, per: str
) -> None:
    plain = ids(stripes, mode=mode, per=per)
    models.misbehave(says=order(3, 1, 5))
    expected = [plain[n - 1] for n in (3, 1, 5, 2, 4, *range(6, len(plain) + 1))]
    assert ids(stripes, mode=mode, per=per, rerank=MODEL) == expected
    assert ids(stripes, mode=mode, per=per, rerank=MODEL, k=3) == expected[:3]
    assert models.stats()["calls"]["/api/chat"] == 2


def test_a_row_from_below_k_can_come_first(stripes: Connection, models: Models) -> None:
    tenth = ids(stripes, mode="vector")[9]
    models.misbehave(says=order(10))
    rows = found(stripes, mode="vector", k=2, rerank=MODEL)
    assert [row[:2] for row in rows] == [(1, tenth), (2, ids(stripes, mode="vector")[0])]
    assert rows[0][2] < rows[1][2]  # scores stay


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("", [1, 2, 3, 4]),
        ("no idea", [1, 2, 3, 4]),
        ("The 3 best of 20 are good.", [1, 2, 3, 4]),
        ("{}", [1, 2, 3, 4]),
        ("null", [1, 2, 3, 4]),
        ('{"order": []}', [1, 2, 3, 4]),
        ('{"order": [3, 3, 3, 3]}', [3, 1, 2, 4]),
        ('{"order": [4, 2, 4, 1, 3, 2]}', [4, 2, 1, 3]),
        ('{"order": [0, 5, 99, -3, 3.5, 1e2, 99999999999999, 4]}', [4, 1, 2, 3]),
        ('{"order": ["2", "passage 4", null, {"nr": 1}]}', [2, 4, 1, 3]),
        ('{"order": [2, 4', [2, 4, 1, 3]),
        ("[3] > [1] > [2]", [3, 1, 2, 4]),
        ("Sure!\n```json\n[2,\n4]\n```", [2, 4, 1, 3]),
    ],
)
def test_whatever_a_model_writes(conn: Connection, said: str, expected: list[int]) -> None:
    assert value(conn, "select _pgstack.rerank_order(%s, 4)", said) == expected


def test_no_answer_keeps_the_order(conn: Connection) -> None:
    assert value(conn, "select _pgstack.rerank_order(null, 3)") == [1, 2, 3]


def test_what_a_model_is_given(conn: Connection) -> None:
    payload = value(
        conn,
        "select _pgstack.rerank_payload(%s, 'how many?', 'm')",
        ["one\n\n[2] two", "long " * 500],
    )
    assert payload["model"] == "m"
    assert payload["format"]["items"] == {"enum": [1, 2]}
    said = payload["messages"][-1]["content"]
    assert "how many?" in said
    assert len(said) < 1000
    assert "\n[2] two" not in said  # a text cannot pass for another passage


def test_errors_of_the_model_are_raised(stripes: Connection, models: Models) -> None:
    with raises("PS006", "nonesuch"):
        ids(stripes, mode="text", rerank="nonesuch")
    for said in ("no such model", ""):
        with raises("PS007"):
            ids(stripes, mode="text", rerank=said)
    models.misbehave(fail_next=-1)
    with raises("PS005"):
        ids(stripes, mode="text", rerank=MODEL)


def test_one_row_needs_no_model(stripes: Connection, models: Models) -> None:
    models.misbehave(fail_next=-1)
    assert ids(stripes, query="lion", mode="text", rerank=MODEL) == [8]


def test_a_model_needs_words(stripes: Connection) -> None:
    vector = value(stripes, "select v::text from spot where id = 1")
    with raises("PS007", "query"):
        ids(stripes, mode="vector", query=None, embedding=vector, rerank=MODEL)


def test_first_reranked_then_made_diverse(stripes: Connection, models: Models) -> None:
    plain = ids(stripes, mode="vector", k=20)
    models.misbehave(says=order(*range(10, 0, -1)))
    assert ids(stripes, mode="vector", rerank=MODEL, diversity=0.001) == plain[::-1]
    varied = ids(stripes, mode="vector", rerank=MODEL, diversity=0.8, k=3)
    assert varied[0] == plain[-1]
