"""forget(): nothing of a row is left, whatever was done with it, whoever has it in hand."""

from __future__ import annotations

import time
from typing import Any

import psycopg
import pytest
from psycopg.types.json import Jsonb

from pgstack.db import connect
from tests.integration.conftest import raises, value
from tests.integration.test_worker import await_status, fresh, rows, vectorize

Connection = psycopg.Connection[Any]

MARKER = "Qzwurgelmann"
TEXT = (
    f"The letter of {MARKER} from Tuesday says that the roof of the old barn has come down again. "
)


def traces(db: Connection) -> set[str]:
    return {row[0] for row in db.execute("select place from pgstack.find_traces(%s)", (MARKER,))}


def forget(db: Connection, name: str, number: int) -> dict[str, int]:
    found = db.execute(
        "select * from pgstack.forget(%s, jsonb_build_object('id', %s::int))", (name, number)
    )
    return dict(found.fetchall())


@pytest.fixture
def letters(db: Connection, worker: Any, models: Any) -> Connection:
    """Forty letters, two vectorizers; the cache of vectors is on."""
    db.execute("select pgstack.configure('embedding_cache', 'on')")
    db.execute("create table letter (id int primary key, sender text, body text)")
    db.execute("""
        insert into letter
        select n, 'sender ' || n, 'Letter ' || n || ' is about the weather and the harvest of ' || n
        from generate_series(1, 40) as n
    """)
    vectorize(db, "letter", "body", chunk_size=60, chunk_overlap=0, text_config="english")
    vectorize(db, "letter", "body", name="headed", destination="headed", template="$sender: $chunk")
    assert fresh(db, "letter")
    assert fresh(db, "headed")
    return db


def test_nothing_is_left_of_a_row_that_was_everywhere(letters: Connection, models: Any) -> None:
    db = letters
    vectorize(db, "letter", "body", name="dropped", destination="dropped")
    db.execute("insert into letter values (77, %s, %s)", (MARKER, TEXT * 3))
    for name in ("letter", "headed", "dropped"):
        assert fresh(db, name)
    db.execute("select pgstack.drop_vectorizer('dropped')")
    db.execute("select _pgstack.build_words(id) from ai.vectorizer")
    for mode in ("hybrid", "vector", "text"):
        db.execute("select * from pgstack.search('letter', %s, mode => %s)", (TEXT, mode))
    db.execute("select * from pgstack.ask('letter', %s)", (f"Where is {MARKER}?",))
    db.execute("select pgstack.known_item_set('mine', 'headed', n => 100, words => 15)")
    db.execute("select pgstack.create_eval_set('judged')")
    db.execute("select pgstack.add_eval_query('judged', 'q1', 'roof of a barn')")
    db.execute("select pgstack.judge('judged', 'q1', '77', 2)")
    for name in ("mine", "judged"):
        db.execute("select pgstack.evaluate(%s, 'letter', mode => 'vector')", (name,))
    db.execute("select pgstack.create_eval_set('by name', doc_column => 'sender')")
    db.execute("select pgstack.add_eval_query('by name', 'q1', 'roof of a barn')")
    db.execute("select pgstack.judge('by name', 'q1', %s, 2)", (MARKER,))
    db.execute(
        "select pgstack.evaluate('by name', 'letter', mode => 'vector', doc_column => 'sender')"
    )
    # It fails from now on, and the model server quotes it.
    message = f"cannot read: {TEXT}"
    models.misbehave(fail_if_contains=MARKER, fail_if_message=message)
    db.execute("update letter set body = 'Again: ' || body where id = 77")
    await_status(db, "letter", failed=1)
    await_status(db, "headed", failed=1)
    query = value(db, "select text from _pgstack.eval_query where query_id = '77'")
    models.clear()
    for text in ("Again: " + TEXT * 3, query):
        db.execute("select pgstack.embed(%s)", (text,))
    cached = "select count(*) from _pgstack.query_cache where digest = _pgstack.text_digest(%s)"
    assert value(db, cached, query) == 1
    db.execute(
        """
        insert into _pgstack.request (kind, payload, asker, asker_pid, state, deadline)
        values
          (
            'chat', jsonb_build_object('messages', 'From: ' || %s::text), 'x', 1, 'done',
            now() + '1h'
          ),
          ('chat', '{"messages": "another"}', 'x', 1, 'done', now() + '1h')
        """,
        (TEXT * 3,),
    )
    db.execute("analyze")
    vectors = value(db, "select count(*) from _pgstack.embedding_cache")

    before = traces(db)
    assert {
        *["public.letter.body", "public.letter.sender", "public.letter_embedding_store.chunk"],
        *[
            "public.headed_store.chunk",
            "public.dropped_store.chunk",
            "_pgstack.work.last_error",
            "_pgstack.vectorizer.last_error",
        ],
        *["ai._vectorizer_errors.details", "_pgstack.eval_query.text"],
        *["_pgstack.eval_judgment.doc_id", "_pgstack.eval_result.doc_id"],
        *["ai._pgstack_words_1.words", "_pgstack.request.payload"],
    } <= before, before

    told = forget(db, "letter", 77)
    assert told["public.letter"] == 1
    assert told["_pgstack.work"] >= 2
    assert {place for place in traces(db) if not place.startswith("statistics")} == set()
    assert any(place.startswith("statistics") for place in traces(db))
    db.execute(f"vacuum (analyze) {', '.join(told)}".encode())
    assert traces(db) == set()
    # What has no text is gone as well.
    assert value(db, "select count(*) from _pgstack.eval_judgment where doc_id = '77'") == 0
    assert value(db, "select count(*) from _pgstack.eval_result where doc_id = '77'") == 0
    assert [value(db, cached, text) for text in ("Again: " + TEXT * 3, query)] == [0, 0]
    assert value(db, "select count(*) from _pgstack.embedding_cache") < vectors
    # And nothing else is.
    assert value(db, "select count(*) from _pgstack.request") == 1
    assert value(db, "select count(*) from letter") == 40
    assert value(db, "select count(distinct id) from letter_embedding_store") == 40
    assert value(db, "select count(*) from _pgstack.eval_judgment") == 40
    assert fresh(db, "letter")
    assert forget(db, "letter", 77) == {}


def files_with(db: Connection, text: str) -> list[str]:
    """The tables and indexes, those for long values too, whose files hold some bytes."""
    query = """
        with kept as (select t.relation::oid as oid from _pgstack.kept_tables() as t (relation)),
        heaps as (
          select oid from kept
          union
          select c.reltoastrelid from pg_class as c join kept using (oid) where c.reltoastrelid <> 0
        ),
        files as (
          select oid from heaps
          union
          select i.indexrelid from pg_index as i join heaps on oid = i.indrelid
        )
        select oid::regclass::text from files
        where position(%s::text::bytea in pg_read_binary_file(pg_relation_filepath(oid))) > 0
        order by 1
    """
    db.execute("checkpoint")
    return [row[0] for row in db.execute(query, (text,))]


def test_files_are_clean_after_vacuum_full(letters: Connection) -> None:
    db = letters
    db.execute("insert into letter values (77, %s, %s)", (MARKER, TEXT))
    assert fresh(db, "letter")
    assert fresh(db, "headed")
    db.execute("select _pgstack.build_words(id) from ai.vectorizer")
    assert {"letter", "letter_embedding_store"} <= set(files_with(db, MARKER))
    assert "ai._pgstack_words_1" in files_with(db, MARKER.lower()[:8])
    told = forget(db, "letter", 77)
    db.execute(f"vacuum (full, analyze) {', '.join(told)}".encode())
    assert files_with(db, MARKER) == []
    assert files_with(db, MARKER.lower()[:8]) == []


@pytest.mark.parametrize("fails", [False, True])
def test_a_worker_that_has_the_text_writes_nothing(
    letters: Connection, models: Any, fails: bool
) -> None:
    db = letters
    models.misbehave(
        slow_if_contains=MARKER,
        slow_ms=1500,
        fail_if_contains=MARKER if fails else "",
        fail_if_message=f"cannot read: {TEXT}",
    )
    db.execute("insert into letter values (77, %s, %s), (78, 'x', 'Another one.')", (MARKER, TEXT))
    while (
        value(
            db, "select count(*) from _pgstack.work where key = '{\"id\": 77}' and state = 'leased'"
        )
        < 2
    ):
        db.execute("select pg_sleep(0.01)")
    began = time.monotonic()
    forget(db, "letter", 77)
    assert time.monotonic() - began < 1, "it waited for the model"
    db.execute("analyze")
    assert traces(db) == set()
    vectors = value(db, "select count(*) from _pgstack.embedding_cache")
    models.await_stats(lambda stats: stats["calls"] != {})
    assert fresh(db, "letter")
    assert fresh(db, "headed")
    db.execute("select pg_sleep(2)")  # what comes too late has come by then
    assert traces(db) == set()
    assert value(db, "select count(*) from _pgstack.work") == 0
    assert value(db, "select count(*) from letter_embedding_store where id = 77") == 0
    # Row 78 alone has vectors that were not there.
    assert value(db, "select count(*) from _pgstack.embedding_cache") <= vectors + 2
    assert value(db, "select count(*) from ai._vectorizer_errors") == 0


def test_vectors_of_earlier_versions_go_too(letters: Connection) -> None:
    db = letters
    db.execute("insert into letter values (77, 'x', %s)", (TEXT,))
    assert fresh(db, "letter")
    db.execute("update letter set body = 'Something else.' where id = 77")
    assert fresh(db, "letter")
    assert fresh(db, "headed")
    forget(db, "letter", 77)
    left = """
        select count(*) from _pgstack.embedding_cache as c
        where not exists (select from letter_embedding_store as s where s.digest = c.digest)
          and not exists (select from headed_store as s where s.digest = c.digest)
    """
    assert value(db, left) == 0
    assert value(db, "select count(*) from _pgstack.embedding_cache") > 0


def test_a_document(db: Connection, worker: Any) -> None:
    db.execute("select pgstack.create_collection('post', 'all-minilm', dimensions => 384)")
    for uri in (f"{MARKER}.txt", "other.txt"):
        db.execute(
            "select pgstack.ingest_text('post', %s, %s, title => %s, metadata => %s)",
            (uri, TEXT if MARKER in uri else "Nothing.", uri, Jsonb({"of": [uri]})),
        )
    db.execute(
        "select pgstack.ingest_bytes('post', %s, %s)", (f"{MARKER}.html", f"<p>{TEXT}".encode())
    )
    assert fresh(db, "post")
    assert traces(db)
    for kind in ("txt", "html"):
        db.execute("select pgstack.forget_document('post', %s)", (f"{MARKER}.{kind}",))
    db.execute("analyze")
    assert traces(db) == set()
    assert rows(db, "select uri from pgstack.documents") == [("other.txt",)]
    with raises("PS007", "no document"):
        db.execute("select pgstack.forget_document('post', 'other')")
    with raises("PS001"):
        db.execute("select pgstack.forget_document('posts', 'other.txt')")


def test_refusals(letters: Connection, db_url: str) -> None:
    db = letters
    for bad in ('{"nr": 7}', "7", '{"id": "x"}', '{"id": 7, "sender": "y"}', "{}"):
        with raises("PS007", "letter"):
            db.execute("select pgstack.forget('headed', %s)", (bad,))
    with raises("PS001"):
        db.execute("""select pgstack.forget('nobody', '{"id": 7}')""")
    with raises("PS013", "transaction"), connect(db_url) as other, other.transaction():
        other.execute("set transaction isolation level repeatable read")
        other.execute("""select pgstack.forget('headed', '{"id": 7}')""")
    db.execute("create role forgetful_reader")
    try:
        db.execute("grant select on letter to forgetful_reader")
        for query in (
            """select pgstack.forget('headed', '{"id": 7}')""",
            "select pgstack.find_traces('abc')",
        ):
            db.execute("set role forgetful_reader")
            with raises("PS014"):
                db.execute(query.encode())
            db.execute("reset role")
    finally:
        db.execute("drop owned by forgetful_reader")
        db.execute("drop role forgetful_reader")
    db.execute(
        "create function keep() returns trigger language plpgsql as 'begin return null; end'"
    )
    db.execute("create trigger keep before delete on letter for each row execute function keep()")
    with raises("PS013", "still"):
        db.execute("""select pgstack.forget('headed', '{"id": 7}')""")
    assert value(db, "select count(*) from headed_store where id = 7") == 1
    for short in ("", "ab"):
        with raises("PS007"):
            db.execute("select pgstack.find_traces(%s)", (short,))


def test_traces_are_found_however_they_are_written(db: Connection) -> None:
    needle = 'Ünï"que\\ needle\n2'
    db.execute(
        "create table pgstack_collections.t "
        "(id int primary key, a text, b jsonb, c bytea, d text[], e tsvector)"
    )
    for column, written in (
        ("a", "%s"),
        ("b", "jsonb_build_object('x', jsonb_build_array(%s::text))"),
        ("b", "jsonb_build_object(%s::text, 1)"),
        ("c", "convert_to(%s, 'UTF8')"),
        ("d", "array['x', %s]"),
        ("e", "to_tsvector('simple', %s)"),
    ):
        db.execute("truncate pgstack_collections.t")
        assert not db.execute("select * from pgstack.find_traces(%s)", (needle,)).fetchall()
        query = f"insert into pgstack_collections.t (id, {column}) values (1, {written})"
        db.execute(query.encode(), (f"before {needle} after" if column != "e" else needle,))
        found = db.execute("select * from pgstack.find_traces(%s)", (needle,)).fetchall()
        assert found == [(f"pgstack_collections.t.{column}", 1)], written
