"""search(): modes, filters, bounds, fresh results, and the rights of who asks."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from psycopg import sql
from psycopg.types.json import Jsonb

from pgstack.db import connect
from tests.conftest import need_extension
from tests.integration.conftest import raises, value

Connection = psycopg.Connection[Any]
Models = Any  # the class of the fixture `models`
MODES = ["vector", "text", "hybrid"]


@pytest.fixture(scope="module")
def animals_url(running_url: str) -> Iterator[str]:
    """The shared database with a few animals, embedded."""
    with connect(running_url, autocommit=True) as conn:
        conn.execute(
            """
            create table animal (id integer primary key, kind text, legs integer, body text);
            insert into animal values
              (1, 'mammal', 4, 'The zebra wears stripes. Its stripes are black and white.'),
              (2, 'bird', 2, 'The penguin swims in cold water and cannot fly.'),
              (3, 'mammal', 2, 'The bat flies at night and sleeps upside down.'),
              (4, 'fish', 0, 'The shark swims in warm water.'),
              (5, 'mammal', 0, 'The whale swims in deep water; it is a mammal.'),
              (6, null, null, 'AT&T runs https://example.org/a?b=1&c=2 where it''s quiet.'),
              (7, 'none', 0, ''),
              (8, 'none', 0, null);
            select pgstack.create_vectorizer('animal', 'body', dimensions => 384);
            create table emptiness (id integer primary key, body text);
            select pgstack.create_vectorizer('emptiness', 'body', dimensions => 384);
            """
        )
        assert value(conn, "select pgstack.wait_until_fresh('animal')")
    yield running_url
    with connect(running_url, autocommit=True) as conn:
        conn.execute(
            "select pgstack.drop_vectorizer('animal', true), "
            "pgstack.drop_vectorizer('emptiness', true); drop table animal, emptiness"
        )


@pytest.fixture
def animals(animals_url: str, served: Connection) -> Connection:
    """A connection to the animals."""
    assert animals_url
    return served


def ids(conn: Connection, query: str, name: str = "animal", **options: Any) -> list[int]:
    """The keys search() finds, best first."""
    arguments = {"vectorizer": name, "query": query, **options}
    call = sql.SQL(", ").join(
        sql.SQL("{} => {}").format(sql.Identifier(key), sql.Literal(argument))
        for key, argument in arguments.items()
    )
    found = conn.execute(sql.SQL("select (id ->> 'id')::int from pgstack.search({})").format(call))
    return [row[0] for row in found]


# ---------------------------------------------------------------------------- modes


def test_meaning_orders_by_cosine_similarity(animals: Connection) -> None:
    rows = animals.execute(
        """
        select s.rank, (s.id ->> 'id')::int, s.score,
          1 - (t.embedding <=> pgstack.embed('penguin swims')) as similarity
        from pgstack.search('animal', 'penguin swims', mode => 'vector') as s
        join animal_embedding_store as t on t.id = (s.id ->> 'id')::int
        order by s.rank
        """
    ).fetchall()
    assert [row[0] for row in rows] == [1, 2, 3, 4, 5, 6]
    assert rows[0][1] == 2
    assert [row[2] for row in rows] == sorted((row[2] for row in rows), reverse=True)
    assert all(row[2] == row[3] for row in rows)


def test_words_find_only_what_holds_one_of_them(animals: Connection) -> None:
    assert sorted(ids(animals, "swimming", mode="text")) == [2, 4, 5]
    assert ids(animals, "zebra xylophone", mode="text") == [1]
    assert ids(animals, "the and of", mode="text") == []
    assert ids(animals, "xylophone", mode="text") == []


@pytest.mark.parametrize(
    "query",
    ["https://example.org/a?b=1&c=2", "it's quiet", "quiet & !loud | (", "c:\\quiet"],
)
def test_words_may_hold_signs(animals: Connection, query: str) -> None:
    assert ids(animals, query, mode="text") == [6]


def test_both_together_rank_first_what_both_find(animals: Connection) -> None:
    assert ids(animals, "zebra stripes")[0] == 1
    rows = animals.execute(
        "select score from pgstack.search('animal', 'zebra stripes', fusion => 'rrf')"
    ).fetchall()
    assert rows[0][0] == pytest.approx(2 / 61)
    assert ids(animals, "the and of") == ids(animals, "the and of", mode="vector")


@pytest.mark.parametrize("mode", MODES)
def test_the_same_question_gets_the_same_answer(animals: Connection, mode: str) -> None:
    answers = {tuple(ids(animals, "swims in water", mode=mode, k=2)) for _ in range(3)}
    assert len(answers) == 1


@pytest.mark.parametrize("mode", MODES)
def test_an_empty_source_gives_no_rows(animals: Connection, mode: str) -> None:
    assert ids(animals, "anything", name="emptiness", mode=mode) == []


def test_words_need_no_model(animals: Connection, models: Models) -> None:
    models.misbehave(fail_next=-1)
    assert ids(animals, "zebra", mode="text") == [1]
    with raises("PS005"):
        ids(animals, "zebra of another question", mode="vector")


def test_a_search_asks_the_model_once(animals: Connection, models: Models) -> None:
    for mode in MODES:
        ids(animals, "how often is this asked", mode=mode)
    assert models.asked("how often is this asked") == 1


def test_offsets_point_into_the_source(animals: Connection) -> None:
    rows = animals.execute(
        """
        select s.chunk, substr(a.body, s.start_char + 1, s.end_char - s.start_char)
        from pgstack.search('animal', 'zebra') as s
        join animal as a on a.id = (s.id ->> 'id')::int
        """
    ).fetchall()
    assert len(rows) == 6
    assert all(chunk == cut for chunk, cut in rows)


# --------------------------------------------------------------------- filter, bounds


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("filter_", "expected"),
    [
        ({"kind": "mammal"}, {1, 3, 5}),
        ({"kind": "mammal", "legs": 0}, {5}),
        ({"kind": None}, {6}),
        ({"legs": 2}, {2, 3}),
        ({"legs": "2"}, {2, 3}),
        ({"id": 4}, {4}),
        ({}, {1, 2, 3, 4, 5, 6}),
    ],
    ids=str,
)
def test_a_filter_leaves_the_rest_out(
    animals: Connection, mode: str, filter_: dict[str, Any], expected: set[int]
) -> None:
    words = "zebra penguin bat shark whale quiet"
    assert set(ids(animals, words, mode=mode, filter=Jsonb(filter_))) == expected


@pytest.mark.parametrize("mode", MODES)
def test_k_limits_the_rows(animals: Connection, mode: str) -> None:
    assert len(ids(animals, "swims in water", mode=mode, k=1)) == 1
    assert len(ids(animals, "swims in water", mode=mode, k=2)) == 2
    assert len(ids(animals, "swims in water", mode=mode, k=1000)) in (3, 6)
    best = ids(animals, "swims in water", mode=mode, k=1000)
    assert ids(animals, "swims in water", mode=mode, k=2) == best[:2]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"k": 0}, "k cannot be 0"),
        ({"k": -1}, "k cannot be -1"),
        ({"k": 1001}, "k cannot be 1001"),
        ({"k": None}, "k must not be null"),
        ({"mode": "fuzzy"}, "fuzzy"),
        ({"mode": None}, "mode must not be null"),
        ({"per": "page"}, "page"),
        ({"fusion": "cold"}, "cold"),
        ({"vector_weight": 1.5}, "vector_weight cannot be 1.5"),
        ({"depth": 0}, "depth cannot be 0"),
        ({"rrf_k": -1}, "rrf_k cannot be -1"),
        ({"diversity": 2.5}, "diversity cannot be 2.5"),
        ({"target_recall": 2.5}, "target_recall cannot be 2.5"),
        ({"query": ""}, "empty text"),
        ({"query": " \n"}, "empty text"),
        ({"query": None}, "query must not be null"),
        ({"filter": Jsonb({"colour": "red"})}, "colour"),
    ],
)
def test_a_bad_argument_is_refused(
    animals: Connection, options: dict[str, Any], words: str
) -> None:
    with raises("PS007", words):
        ids(animals, **{"query": "x", **options})


def test_an_unknown_text_configuration_is_named(animals: Connection) -> None:
    animals.execute("set pgstack.text_config = 'klingon'")
    with raises("PS007", "klingon", hint="pg_ts_config"):
        ids(animals, "zebra", mode="text")
    animals.execute("set pgstack.text_config = 'simple'")
    assert ids(animals, "swimming", mode="text") == []


def test_a_table_can_be_named_instead(animals: Connection) -> None:
    for name in ("animal", "public.animal"):
        assert ids(animals, "zebra", name=name, mode="text") == [1]


def test_a_model_of_another_length_is_told(animals: Connection, models: Models) -> None:
    models.misbehave(wrong_dims=5)
    with raises("PS002", "stores 384 dimensions", hint="drop_vectorizer"):
        ids(animals, "of another length", mode="vector")


@pytest.mark.parametrize("level", ["repeatable read read only", "serializable"])
def test_in_every_kind_of_transaction(animals: Connection, level: str) -> None:
    animals.execute(f"begin isolation level {level}".encode())
    for mode in MODES:
        assert ids(animals, "zebra stripes", mode=mode)[0] == 1
    animals.execute("commit")


def test_a_search_joins_with_other_tables(animals: Connection) -> None:
    rows = animals.execute(
        "select a.kind, count(*) from animal as a "
        "join pgstack.search('animal', 'swims in water', mode => 'text') as s "
        "on a.id = (s.id ->> 'id')::int group by a.kind order by a.kind"
    ).fetchall()
    assert rows == [("bird", 1), ("fish", 1), ("mammal", 1)]


def test_settings_of_the_session_stay_as_they_were(animals: Connection) -> None:
    animals.execute("set hnsw.ef_search = 77")
    ids(animals, "zebra", mode="vector", k=500)
    assert value(animals, "show hnsw.ef_search") == "77"
    assert value(animals, "show hnsw.iterative_scan") == "off"


# ---------------------------------------------------------------------------- index


@pytest.mark.parametrize("method", ["hnsw", "diskann"])
def test_an_index_and_a_filter_still_find_enough(served: Connection, method: str) -> None:
    """The index goes on until enough rows pass the filter."""
    if method == "diskann":
        need_extension(served, "vectorscale")
    served.execute("set random_page_cost = 1.1")  # as the embedded server: else a scan is cheaper
    served.execute(
        """
        create table many (id integer primary key, part integer, body text);
        insert into many select g, g % 50, 'number ' || g from generate_series(1, 1500) as g;
        select pgstack.create_vectorizer('many', 'body', dimensions => 384, index => 'none');
        """
    )
    assert value(served, "select pgstack.wait_until_fresh('many')")
    index = f"create index nearest on many_embedding_store using {method} "
    try:
        query = "select count(*) from pgstack.search('many', 'number', 25, 'vector', %s)"
        served.execute(f"{index} (embedding vector_cosine_ops)".encode())
        served.execute("analyze many, many_embedding_store")
        assert value(served, query, Jsonb({})) == 25
        assert value(served, query, Jsonb({"part": 7})) == 25
        served.execute("select pg_stat_force_next_flush()")
        used = "select idx_scan from pg_stat_user_indexes where indexrelname = 'nearest'"
        assert value(served, used) > 0
    finally:
        served.execute("select pgstack.drop_vectorizer('many', true); drop table many")


# --------------------------------------------------------------------------- fresh


def test_waiting_shows_what_was_just_written(animals: Connection) -> None:
    animals.execute("insert into animal values (9, 'bird', 2, 'The ostrich runs fast.')")
    assert value(animals, "select pgstack.wait_until_fresh('animal')")
    assert ids(animals, "ostrich", mode="text") == [9]
    animals.execute("update animal set body = 'The emu runs fast.' where id = 9")
    assert value(animals, "select pgstack.wait_until_fresh('animal')")
    assert ids(animals, "ostrich", mode="text") == []
    assert ids(animals, "emu", mode="text") == [9]
    animals.execute("delete from animal where id = 9")
    assert ids(animals, "emu", mode="text") == []


def test_waiting_ends_when_time_runs_out(animals: Connection, models: Models) -> None:
    models.misbehave(latency_ms=1000)
    # A text of its own: the worker remembers the vectors of the last ones.
    animals.execute("insert into animal values (9, 'bird', 2, 'The cassowary hides.')")
    began = time.monotonic()
    assert value(animals, "select pgstack.wait_until_fresh('animal', '300ms')") is False
    assert 0.3 <= time.monotonic() - began < 3
    animals.execute("delete from animal where id = 9")


# --------------------------------------------------------------------------- rights


def test_tenants_search_and_ask_their_own(
    served: Connection, make_role: Callable[[], Connection]
) -> None:
    alice, bob = make_role(), make_role()
    served.execute(
        """
        create table letter (id integer primary key, tenant name, body text);
        alter table letter enable row level security;
        create policy own on letter using (tenant = current_user);
        select pgstack.create_vectorizer('letter', 'body', dimensions => 384);
        """
    )
    try:
        for number, conn in enumerate((alice, bob)):
            name = conn.info.user
            served.execute(f"grant select on letter to {name}".encode())
            served.execute(
                "insert into letter values (%s, %s, %s)",
                (number, name, f"The secret of {name} is number {number}. Keep it."),
            )
        assert value(served, "select pgstack.wait_until_fresh('letter')")
        for number, conn in enumerate((alice, bob)):
            for mode in MODES:
                assert ids(conn, "secret", name="letter", mode=mode) == [number]
            row = conn.execute(
                "select answer, citations from pgstack.ask('letter', 'which secret number')"
            ).fetchone()
            assert row is not None
            assert row[0] == f"The secret of {conn.info.user} is number {number}. [1]"
            assert [c["id"] for c in row[1]] == [{"id": number}]
            assert value(conn, "select count(*) from letter_embedding") == 1
            assert value(conn, "select count(*) from letter_embedding_store") == 1
        served.execute(f"revoke select on letter from {bob.info.user}".encode())
        for mode in MODES:
            with raises("PS014", "may not read"):
                ids(bob, "secret", name="letter", mode=mode)
        with raises("PS014"):
            bob.execute("select * from pgstack.ask('letter', 'which secret number')")
    finally:
        served.execute("select pgstack.drop_vectorizer('letter', true); drop table letter")
