"""similar(): rows like a row, its key in any form, its rights; the row itself never."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from psycopg.types.json import Jsonb

from pgstack.db import connect
from tests.integration.conftest import raises, value

Connection = psycopg.Connection[Any]
Models = Any  # the class of the fixture `models`
SOME = uuid.UUID("00000000-0000-0000-0000-00000000000a")

# Two chunks and more: of rivers, with one sentence of bread at the end.
LONG = "The river carries water and boats past the town. " * 30 + "Bread is baked in the town."


@pytest.fixture(scope="module")
def notes_url(running_url: str) -> Iterator[str]:
    """The shared database with notes under keys of several types, embedded."""
    with connect(running_url, autocommit=True) as conn:
        conn.execute(
            """
            create table note (id integer primary key, kind text, body text);
            create table pair (part text, no bigint, body text, primary key (part, no));
            create table note_text (id text primary key, body text);
            create table note_uuid (id uuid primary key, body text);
            """
        )
        bodies = [
            "The zebra has black stripes and white stripes.",
            "The zebra foal has stripes, brown ones.",
            "Stripes of paint mark the road.",
            LONG,
            "The river carries boats past the town.",
            "Bread is baked in the town.",
            "",
        ]
        for nr, body in enumerate(bodies, 1):
            conn.execute(
                "insert into note values (%s, %s, %s)", (nr, "odd" if nr % 2 else "even", body)
            )
        keyed = bodies[:3]
        for nr, body in enumerate(keyed, 1):
            conn.execute("insert into pair values ('a', %s, %s)", (nr, body))
            conn.execute("insert into note_text values (%s, %s)", (f"n{nr}", body))
            conn.execute("insert into note_uuid values (%s, %s)", (uuid.UUID(int=9 + nr), body))
        for name in ("note", "pair", "note_text", "note_uuid"):
            create = "select pgstack.create_vectorizer(%s::regclass, 'body', dimensions => 384)"
            conn.execute(create, (name,))
            assert value(conn, "select pgstack.wait_until_fresh(%s)", name)
    yield running_url
    with connect(running_url, autocommit=True) as conn:
        for name in ("note", "pair", "note_text", "note_uuid"):
            conn.execute("select pgstack.drop_vectorizer(%s, true)", (name,))
        conn.execute("drop table note, pair, note_text, note_uuid")


@pytest.fixture
def notes(notes_url: str, served: Connection) -> Connection:
    """A connection to the notes."""
    assert notes_url
    return served


def like(conn: Connection, call: str, *params: Any) -> list[Any]:
    """The keys that ``pgstack.similar(CALL)`` finds, best first; of one column: its value."""
    query = f"select id from pgstack.similar({call}) order by rank"
    found = [row[0] for row in conn.execute(query.encode(), params or None)]
    return [key["id"] if list(key) == ["id"] else key for key in found]


def test_the_most_like_come_first_and_never_the_row_itself(notes: Connection) -> None:
    assert like(notes, "'note', 1, 2") == [2, 3]
    assert like(notes, "'note', 3")[0] in (1, 2)
    assert sorted(like(notes, "'note', 1, 100")) == [2, 3, 4, 5, 6]


def test_the_columns_are_those_of_search(notes: Connection) -> None:
    one = notes.execute("select * from pgstack.similar('note', 1, 1)")
    other = notes.execute("select * from pgstack.search('note', 'zebra', 1, 'vector')")
    assert one.description is not None
    assert other.description is not None
    assert [c.name for c in one.description] == [c.name for c in other.description]
    row = one.fetchone()
    assert row is not None
    rank, key, chunk_seq, chunk, score, start, end, vector_rank, vector_score, *rest = row
    assert (rank, key, chunk_seq, vector_rank) == (1, {"id": 2}, 0, 1)
    assert chunk == "The zebra foal has stripes, brown ones."
    assert (start, end, rest) == (0, len(chunk), [None, None, None])
    assert 0 < score < 1
    assert score == vector_score


def test_a_long_row_is_compared_as_a_whole(notes: Connection) -> None:
    assert value(notes, "select count(*) from note_embedding where id = 4") > 2
    assert like(notes, "'note', 4")[0] == 5
    assert like(notes, "'note', 5")[0] == 4


def test_by_chunk_or_by_row(notes: Connection) -> None:
    assert like(notes, "'note', 5, 2, per => 'chunk'") == [4, 4]
    rows = notes.execute("select id, more from pgstack.similar('note', 5, 3)").fetchall()
    assert len({row[0]["id"] for row in rows}) == 3
    assert len(rows[0][1]) > 1
    assert like(notes, "'note', 4, 100, per => 'chunk'").count(4) == 0


def test_a_filter_holds(notes: Connection) -> None:
    assert like(notes, "'note', 1, 2, filter => %s", Jsonb({"kind": "odd"})) == [3, 5]
    with raises("PS007", "colour"):
        like(notes, "'note', 1, filter => %s", Jsonb({"colour": "red"}))


@pytest.mark.parametrize(
    "key",
    [
        "1",
        "'1'",
        "'1'::text",
        "1::bigint",
        "1::smallint",
        "1::numeric",
        "to_jsonb(1)",
        "to_jsonb('1'::text)",
        "'1'::jsonb",
        "'{\"id\": 1}'",
        "'{\"id\": 1}'::text",
        "'{\"id\": 1}'::jsonb",
        "'{\"id\": 1}'::json",
        '\'{"id": "1"}\'::jsonb',
        "(select id from note where id = 1)",
        "id => 1",
        "id => '1'",
        "id => jsonb_build_object('id', 1)",
    ],
)
def test_a_key_in_any_form(notes: Connection, key: str) -> None:
    comma = "vectorizer => 'note'" if "=>" in key else "'note'"
    assert like(notes, f"{comma}, {key}, k => 1") == [2]


@pytest.mark.parametrize(
    "key", ["'n1'", "'n1'::text", "'n1'::varchar", "'n1'::name", '\'{"id": "n1"}\'']
)
def test_a_key_of_text(notes: Connection, key: str) -> None:
    assert like(notes, f"'note_text', {key}, 1") == ["n2"]


@pytest.mark.parametrize("key", [f"'{SOME}'", f"'{SOME}'::uuid", f'\'{{"id": "{SOME}"}}\'::jsonb'])
def test_a_key_that_is_a_uuid(notes: Connection, key: str) -> None:
    assert like(notes, f"'note_uuid', {key}, 1") == [str(uuid.UUID(int=11))]
    assert like(notes, "'note_uuid', %s, 1", SOME) == [str(uuid.UUID(int=11))]


def test_parameters_of_a_driver(notes: Connection) -> None:
    for key in (1, "1", Jsonb({"id": 1}), '{"id": 1}'):
        assert like(notes, "'note', %s, 1", key) == [2]


def test_a_key_of_two_columns(notes: Connection) -> None:
    for key in ('\'{"part": "a", "no": 1}\'', "jsonb_build_object('no', 1, 'part', 'a')"):
        assert like(notes, f"'pair', {key}, 1") == [{"part": "a", "no": 2}]
    for key in ("1", "'a'", '\'{"part": "a"}\'', '\'{"part": "a", "no": 1, "x": 1}\''):
        with raises("PS007", "part, no", hint='"part"'):
            like(notes, f"'pair', {key}")


def test_next_to_each_row_of_a_query(notes: Connection) -> None:
    rows = notes.execute(
        "select n.id, (s.id ->> 'id')::int from note as n "
        "cross join lateral pgstack.similar('note', n.id, 1) as s where n.id in (1, 2, 7)"
    ).fetchall()
    assert sorted(rows) == [(1, 2), (2, 1)]  # 7 has no text, so no vectors


@pytest.mark.parametrize(
    "key",
    ["99", "'abc'", "99999999999999999999", "'{\"id\": null}'", "'{\"x\": 1}'", "'{'", "true"],
)
def test_a_row_that_is_not_there_is_told(notes: Connection, key: str) -> None:
    with raises("PS007", "row"):
        like(notes, f"'note', {key}")


@pytest.mark.parametrize("key", ["null", "null::integer", "null::jsonb", "'null'::jsonb"])
def test_no_key_is_told(notes: Connection, key: str) -> None:
    with raises("PS007", "id must not be null"):
        like(notes, f"'note', {key}")


def test_bad_arguments(notes: Connection) -> None:
    with raises("PS001", "nothing"):
        like(notes, "'nothing', 1")
    for option in ("k => 0", "per => 'page'", "diversity => 2", "target_recall => 7"):
        with raises("PS007", option.partition(" ")[0]):
            like(notes, f"'note', 1, {option}")


def test_the_model_is_not_asked(notes: Connection, models: Models) -> None:
    models.misbehave(fail_next=-1)
    assert like(notes, "'note', 1, 1") == [2]
    assert models.stats()["texts"] == 0


def test_diversity_puts_repetitions_back(notes: Connection) -> None:
    assert like(notes, "'note', 5, 2, per => 'chunk', diversity => 0.7")[0] == 4
    assert like(notes, "'note', 5, 2, per => 'chunk', diversity => 0.7")[1] != 4


def test_hidden_and_absent_rows_get_one_answer(
    notes: Connection, make_role: Callable[..., Connection]
) -> None:
    alice = make_role("alice")
    notes.execute(
        f"grant select on note to {alice.info.user}; alter table note enable row level security; "
        "create policy even on note using (kind = 'even')".encode()
    )
    try:
        assert sorted(like(alice, "'note', 2, 100")) == [4, 6]
        said = []
        for key in (1, 99):
            with pytest.raises(psycopg.Error) as caught:
                like(alice, f"'note', {key}")
            diag = caught.value.diag
            said.append((diag.sqlstate, (diag.message_primary or "").replace(str(key), "?")))
            said[-1] += (diag.message_hint,)
        assert said[0] == said[1]
        notes.execute(f"revoke select on note from {alice.info.user}".encode())
        with raises("PS014", "may not read"):
            like(alice, "'note', 2")
    finally:
        notes.execute("drop policy even on note; alter table note disable row level security")
