"""Two runs beside each other, and what becomes of runs when judgements change."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest

from tests.sql.evaluating import make_run, make_set, metrics
from tests.sql.test_eval_sets import raises

Conn = psycopg.Connection[Any]
JUDGED = {f"q{i:02}": {"good": 1} for i in range(20)}


@pytest.fixture
def runs(conn: Conn) -> tuple[int, int]:
    """b finds at once what a finds second, for all queries but two."""
    made = make_set(conn, "s", JUDGED)
    a = make_run(conn, made, {q: ["bad", "good"] for q in JUDGED})
    b = make_run(conn, made, {**{q: ["good"] for q in JUDGED}, "q00": [], "q01": ["bad", "good"]})
    return a, b


def test_what_each_query_gains(conn: Conn, runs: tuple[int, int]) -> None:
    rows = conn.execute(
        "select query_id, query, value_a, value_b, difference "
        "from pgstack.compare_runs(%s, %s, 'mrr@10')",
        runs,
    ).fetchall()
    assert len(rows) == 20
    assert rows[0] == ("q02", "text of q02", 0.5, 1, 0.5)
    assert rows[-2:] == [("q01", "text of q01", 0.5, 0.5, 0), ("q00", "text of q00", 0.5, 0, -0.5)]


def test_whether_it_is_better(conn: Conn, runs: tuple[int, int]) -> None:
    query = "select * from pgstack.compare_summary(%s, %s) where metric = 'mrr@10'"
    with conn.cursor(row_factory=psycopg.rows.dict_row) as cur:
        row = cur.execute(query, runs).fetchone()
        back = cur.execute(query, runs[::-1]).fetchone()
    assert row is not None
    assert back is not None
    assert (row["mean_a"], row["mean_b"], row["difference"]) == (0.5, 0.925, pytest.approx(0.425))
    assert (row["wins"], row["ties"], row["losses"], row["queries"]) == (18, 1, 1, 20)
    assert 0 < row["low"] < 0.425 < row["high"] <= 0.5
    assert row["p_value"] < 0.001
    assert back["difference"] == -row["difference"]
    assert back["p_value"] == row["p_value"]


def test_a_run_does_not_differ_from_itself(conn: Conn, runs: tuple[int, int]) -> None:
    rows = conn.execute(
        "select p_value, low, high, ties from pgstack.compare_summary(%s, %s)", (runs[0], runs[0])
    ).fetchall()
    assert set(rows) == {(1, 0, 0, 20)}


def test_judgements_that_changed_are_told_and_scored_anew(
    conn: Conn, runs: tuple[int, int]
) -> None:
    a, b = runs
    conn.execute("select pgstack.judge('s', 'q02', 'bad', 1)")
    conn.execute("select pgstack.add_eval_query('s', 'new', 'not searched for by then')")
    conn.execute("select pgstack.judge('s', 'new', 'x')")
    conn.execute("select pgstack.rescore_run(%s)", (b,))
    with raises(conn, "PS007", "judgements changed"):
        conn.execute("select * from pgstack.compare_summary(%s, %s)", runs)
    conn.execute("select pgstack.rescore_run(%s)", (a,))
    row = conn.execute(
        "select mean_a, queries from pgstack.compare_summary(%s, %s) where metric = 'mrr@10'", runs
    ).fetchone()
    assert row == (pytest.approx(10.5 / 20), 20)
    assert metrics(conn, a)["mrr@10"][3] == 20


def test_what_cannot_be_compared(conn: Conn, runs: tuple[int, int]) -> None:
    a, b = runs
    other = make_run(conn, make_set(conn, "other", JUDGED), {"q00": ["good"]})
    with raises(conn, "PS007", "different sets"):
        conn.execute("select * from pgstack.compare_summary(%s, %s)", (a, other))
    with raises(conn, "PS007", 'no metric "ndcg@5"'):
        conn.execute("select * from pgstack.compare_runs(%s, %s, 'ndcg@5')", runs)
    conn.execute("update _pgstack.eval_run set finished_at = null where id = %s", (b,))
    with raises(conn, "PS007", "interrupted"):
        conn.execute("select * from pgstack.compare_summary(%s, %s)", runs)


def test_the_worst_queries_of_a_run(conn: Conn, runs: tuple[int, int]) -> None:
    rows = conn.execute(
        "select query_id, value, relevant, found, first_rank "
        "from pgstack.eval_queries(%s, 'mrr@10') limit 3",
        (runs[1],),
    ).fetchall()
    assert rows == [("q00", 0, 1, 0, None), ("q01", 0.5, 1, 1, 2), ("q02", 1, 1, 1, 1)]
