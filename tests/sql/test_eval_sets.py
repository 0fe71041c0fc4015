"""Judged sets: by hand, from clicks, from the corpus; and whose they are."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, LiteralString

import psycopg
import pytest
from psycopg import sql

from tests.sql.evaluating import make_run, make_set

Conn = psycopg.Connection[Any]


@contextmanager
def raises(conn: Conn, sqlstate: str, words: str) -> Iterator[None]:
    with pytest.raises(psycopg.Error) as caught, conn.transaction():
        yield
    assert caught.value.sqlstate == sqlstate
    assert words in str(caught.value.diag.message_primary)
    assert caught.value.diag.message_hint or not sqlstate.startswith("PS")


@contextmanager
def acting_as(conn: Conn, role: str) -> Iterator[None]:
    conn.execute(sql.SQL("set local role {}").format(sql.Identifier(role)))
    yield
    conn.execute("reset role")


def judgments(conn: Conn, name: str) -> dict[tuple[str, str], int]:
    rows = conn.execute(
        "select q.text, j.doc_id, j.grade from _pgstack.eval_set as s "
        "join _pgstack.eval_query as q on q.set_id = s.id "
        "join _pgstack.eval_judgment as j on j.set_id = s.id and j.query_id = q.query_id "
        "where s.name = %s",
        (name,),
    )
    return {(query, doc): grade for query, doc, grade in rows}


# --------------------------------------------------------------------------- by hand


def test_a_set_made_by_hand(conn: Conn) -> None:
    conn.execute("select pgstack.create_eval_set('bread', 'what bakers ask')")
    conn.execute("select pgstack.add_eval_query('bread', 'q1', 'how to bake')")
    conn.execute("select pgstack.add_eval_query('bread', 'q2', 'how to knead')")
    conn.execute("select pgstack.judge('bread', 'q1', '7')")
    conn.execute("select pgstack.judge('bread', 'q1', '8', 2)")
    conn.execute("select pgstack.judge('bread', 'q1', '8', 3)")
    conn.execute("select pgstack.judge('bread', 'q2', '9', 1)")
    conn.execute("select pgstack.judge('bread', 'q2', '9', null)")
    assert judgments(conn, "bread") == {("how to bake", "7"): 1, ("how to bake", "8"): 3}
    row = conn.execute(
        "select description, origin, queries, judged_queries, judgments from pgstack.eval_sets"
    ).fetchone()
    assert row == ("what bakers ask", "hand", 2, 1, 2)


def test_a_query_that_gets_another_text_loses_its_vectors(conn: Conn) -> None:
    made = make_set(conn, "s", {"q": {"a": 1}})
    conn.execute("insert into _pgstack.eval_vector values (%s, 'q', 'm', '[1]')", (made,))
    count: LiteralString = "select count(*) from _pgstack.eval_vector"
    conn.execute("select pgstack.add_eval_query('s', 'q', 'text of q')")
    assert conn.execute(count).fetchone() == (1,)
    conn.execute("select pgstack.add_eval_query('s', 'q', 'another text')")
    assert conn.execute(count).fetchone() == (0,)
    assert judgments(conn, "s") == {("another text", "a"): 1}


def test_dropping_a_set_drops_all_that_is_scored_with_it(conn: Conn) -> None:
    made = make_set(conn, "s", {"q": {"a": 1}})
    run = make_run(conn, made, {"q": ["a"]})
    conn.execute("select pgstack.drop_eval_set('s')")
    assert conn.execute("select count(*) from pgstack.eval_sets").fetchone() == (0,)
    with raises(conn, "PS017", f"run {run}"):
        conn.execute("select * from pgstack.compare_runs(%s, %s)", (run, run))


def test_mistakes_are_named(conn: Conn) -> None:
    conn.execute("select pgstack.create_eval_set('bread')")
    with raises(conn, "PS012", "already"):
        conn.execute("select pgstack.create_eval_set('bread')")
    with raises(conn, "PS007", "called"):
        conn.execute("select pgstack.create_eval_set(' ')")
    with raises(conn, "PS007", 'no query "q9"'):
        conn.execute("select pgstack.judge('bread', 'q9', '7')")
    with raises(conn, "PS007", "text"):
        conn.execute("select pgstack.add_eval_query('bread', 'q1', '  ')")
    for call in ("drop_eval_set('x')", "add_eval_query('x', 'q', 'q')", "judge('x', 'q', 'd')"):
        with raises(conn, "PS017", '"x"'):
            conn.execute(f"select pgstack.{call}".encode())


# ----------------------------------------------------------------------- from clicks


def test_clicks_become_grades(conn: Conn) -> None:
    conn.execute('create table public."the log" ("what?" text, doc int)')
    clicks = [("Bread", 1)] * 8 + [(" bread ", 1)] * 2 + [("bread", 2)] * 4 + [("bread", 3)] * 2
    clicks += [("bread", 4)] + [("rare", 5)] * 2 + [("", 1)] * 9
    with conn.cursor() as cur:
        cur.executemany('insert into public."the log" values (%s, %s)', clicks)
    conn.execute("select pgstack.create_eval_set('c')")
    call: LiteralString = (
        """select pgstack.judge_from_clicks('c', 'public."the log"', 'what?', 'doc')"""
    )
    assert conn.execute(call).fetchone() == (4,)
    wanted = {("bread", "1"): 3, ("bread", "2"): 2, ("bread", "3"): 1, ("rare", "5"): 3}
    assert judgments(conn, "c") == wanted
    assert conn.execute("select origin from pgstack.eval_sets").fetchone() == ("clicks",)
    # Again, after more clicks: grades are updated.
    conn.execute("""insert into public."the log" select 'bread', 2 from generate_series(1, 9)""")
    assert conn.execute(call).fetchone() == (4,)
    assert judgments(conn, "c")["bread", "2"] == 3
    with raises(conn, "PS007", 'no column "nope"'):
        conn.execute("""select pgstack.judge_from_clicks('c', 'public."the log"', 'nope', 'doc')""")


# ------------------------------------------------------------------------ known items


@pytest.fixture
def animals(conn: Conn, drain: Callable[[], int]) -> str:
    conn.execute("create table public.animals (id int primary key, body text)")
    conn.execute(
        "insert into public.animals select i, format("
        "'the animal there is called zebra%s and the animal lives in place%s of the world', "
        "i, i) from generate_series(1, 40) as i"
    )
    conn.execute("select pgstack.create_vectorizer('public.animals', 'body', dimensions => 3)")
    drain()
    return "animals"


def test_known_items_can_be_made_again(conn: Conn, animals: str) -> None:
    made = [
        conn.execute(
            "select pgstack.known_item_set(%s, %s, n => 20, words => 3, seed => %s)",
            (name, animals, seed),
        ).fetchone()
        for name, seed in (("a", 1), ("b", 1), ("c", 2))
    ]
    assert made == [(20,)] * 3
    a, b, c = (judgments(conn, name) for name in "abc")
    assert a == b
    assert a.keys() != c.keys()
    for (query, doc), grade in a.items():
        assert grade == 1
        assert len(query.split()) == 3
        # Of the words in a row the rare ones are chosen.
        assert f"zebra{doc}" in query or f"place{doc}" in query
    assert {doc for _, doc in a} <= {str(i) for i in range(1, 41)}


def test_known_items_of_a_language_without_spaces(conn: Conn, drain: Callable[[], int]) -> None:
    conn.execute("create table public.zh (a int, b text, body text, primary key (a, b))")
    conn.execute(
        "insert into public.zh values (1, 'x', repeat('上海自来水来自海上', 30)), (2, 'y', '?')"
    )
    conn.execute("select pgstack.create_vectorizer('public.zh', 'body', dimensions => 3)")
    drain()
    conn.execute("select pgstack.known_item_set('zh', 'zh')")
    ((query, doc),) = judgments(conn, "zh")
    assert 0 < len(query) <= 80
    assert doc == '{"a": 1, "b": "x"}'


# ------------------------------------------------------------------------- whose it is


def test_a_set_is_its_makers_and_his_roles(conn: Conn, make_role: Callable[[str], str]) -> None:
    ada, bob, team = (make_role(name) for name in ("ada", "bob", "team"))
    for member in (ada, bob):
        grant = sql.SQL("grant {} to {}").format(sql.Identifier(team), sql.Identifier(member))
        conn.execute(grant)
    with acting_as(conn, ada):
        made = make_set(conn, "mine", {"secret question": {"secret document": 1}})
        make_run(conn, made, {"secret question": ["secret document"]})
    with acting_as(conn, team):
        make_set(conn, "ours", {"q": {"d": 1}})
    tables = ("set", "query", "judgment", "run", "search", "result", "score", "metric")

    def counts(role: str) -> dict[str, int]:
        with acting_as(conn, role):
            return {
                table: conn.execute(f"select count(*) from _pgstack.eval_{table}").fetchone()[0]
                for table in tables
            }

    assert counts(ada) == {
        "set": 2, "query": 2, "judgment": 2, "run": 1, "search": 1, "result": 1, "score": 7,
        "metric": 7,
    }  # fmt: skip
    assert counts(bob) == {**dict.fromkeys(tables, 0), "set": 1, "query": 1, "judgment": 1}
    with acting_as(conn, bob):
        conn.execute("select pgstack.judge('ours', 'q', 'e', 2)")
        conn.execute("select pgstack.create_eval_set('mine')")  # the name is free for him
        with raises(conn, "PS007", "no query"):
            conn.execute("select pgstack.judge('mine', 'secret question', 'x')")
        with raises(conn, "42501", "row-level security"):
            conn.execute("insert into _pgstack.eval_query values (%s, 'x', 'x')", (made,))
        with raises(conn, "42501", "row-level security"):
            conn.execute("insert into _pgstack.eval_set (owner, name) values (%s, 'x')", (ada,))


def test_a_run_in_a_shared_set_is_the_runners_own(
    conn: Conn, make_role: Callable[[str], str]
) -> None:
    """Its results are ids of rows that another member may not be allowed to see."""
    ada, bob, team = (make_role(name) for name in ("ada", "bob", "team"))
    for member in (ada, bob):
        grant = sql.SQL("grant {} to {}").format(sql.Identifier(team), sql.Identifier(member))
        conn.execute(grant)
    with acting_as(conn, team):
        made = make_set(conn, "ours", {"q": {"d": 1}})
    with acting_as(conn, ada):
        run = make_run(conn, made, {"q": ["d"]})
    with acting_as(conn, bob):
        assert conn.execute("select runs from pgstack.eval_sets").fetchone() == (0,)
        with raises(conn, "PS017", f"run {run}"):
            conn.execute("select * from pgstack.eval_queries(%s)", (run,))
        with raises(conn, "PS017", f"run {run}"):
            conn.execute("select pgstack.drop_eval_run(%s)", (run,))
    with acting_as(conn, ada):
        assert conn.execute("select count(*) from pgstack.eval_queries(%s)", (run,)).fetchone() == (
            1,
        )
