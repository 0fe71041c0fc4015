"""The table of words is made anew while others search, write, drop and install.

No worker runs: a second session holds the transaction that makes words anew open for as long
as a test likes, with all the locks that it ever takes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import psycopg
import pytest

from pgstack import install
from pgstack.db import connect
from tests.integration.conftest import raises, value

Conn = psycopg.Connection[Any]
Start = Callable[[str], Future[None]]
BUILD = "select _pgstack.build_words(id) from ai.vectorizer"
UNBUILD = "select _pgstack.drop_words(id) from ai.vectorizer"
FORGET = "update _pgstack.vectorizer set words_config = null"
SIMPLE = "select pgstack.set_text_config('doc', 'simple')"
SWEEP = "select _pgstack.prepare_vectorizers()"
LATER = "update _pgstack.vectorizer set words_made_at = words_made_at - interval '11 minutes'"
OURS = "select pgstack.create_vectorizer('doc', 'body', dimensions => 3, enqueue_existing => false)"
PGAIS = (
    "select ai.create_vectorizer('doc', name => 'doc', loading => ai.loading_column('body'), "
    "embedding => ai.embedding_ollama('all-minilm', 3), enqueue_existing => false, "
    f"destination => ai.destination_table('doc_embedding')); {SWEEP}"
)
EVERY = list(range(1, 61))


def run(conn: Conn, statements: str) -> None:
    """Run statements, separated by semicolons."""
    conn.execute(statements.encode())


def make(conn: Conn, vectorizer: str = OURS) -> None:
    """Make the table doc of 60 rows, with their chunks and the words of these."""
    run(
        conn,
        f"""
        create table doc (id int primary key, body text);
        insert into doc select i, 'apples number ' || i from generate_series(1, 60) as i;
        {vectorizer};
        insert into doc_embedding_store (id, chunk_seq, chunk, embedding)
          select id, 0, body, '[1,1,1]' from doc;
        {BUILD};
        """,
    )


@pytest.fixture
def doc(db: Conn) -> Conn:
    make(db)
    return db


@pytest.fixture
def builder(db: Conn, db_url: str) -> Iterator[Conn]:
    """A session that makes words anew, and commits when it is told to."""
    with connect(db_url) as conn:
        run(conn, "set lock_timeout = '20s'; commit")
        yield conn
        conn.rollback()


@pytest.fixture
def reader(db: Conn, db_url: str) -> Iterator[Conn]:
    """A session that waits for no lock for long."""
    with connect(db_url, autocommit=True) as conn:
        run(conn, "set lock_timeout = '1s'")
        yield conn


@pytest.fixture
def start(db_url: str) -> Iterator[Start]:
    """Run statements in a session of their own, at the same time."""

    def work(statements: str) -> None:
        with connect(db_url, autocommit=True) as conn:
            run(conn, "set lock_timeout = '20s'")
            run(conn, statements)

    with ThreadPoolExecutor() as pool:
        yield lambda statements: pool.submit(work, statements)


def await_waiting(conn: Conn, sessions: int = 1, locktype: str = "%") -> None:
    """Return once so many sessions wait for a lock, if need be of one type."""
    until = time.monotonic() + 10
    query = (
        "select count(*) from pg_locks join pg_stat_activity using (pid) "
        "where datname = current_database() and not granted and locktype like %s"
    )
    while value(conn, query, locktype) < sessions:
        assert time.monotonic() < until
        time.sleep(0.01)


def found(conn: Conn, query: str) -> list[int]:
    """The rows that a search by words finds."""
    rows = conn.execute(
        "select (id ->> 'id')::int from pgstack.search('doc', %s, 1000, 'text') order by 1",
        (query,),
    )
    return [row[0] for row in rows]


def method(conn: Conn) -> Any:
    """How the words of a query are looked for."""
    return value(conn, "select (_pgstack.words(_pgstack.vectorizer_plan('doc'), 'x')).method")


def tables(conn: Conn) -> list[str]:
    """The tables of words that are there."""
    return [
        row[0]
        for row in conn.execute("select relation::text from _pgstack.words_tables() order by 1")
    ]


def check_words(conn: Conn) -> None:
    """The table of words in use holds the words of all chunks, each once."""
    table = value(conn, "select _pgstack.words_table(id) from ai.vectorizer")
    assert method(conn) == "tsvector"
    kept = conn.execute(f"select key_1, chunk_seq, words::text from {table} order by 1, 2".encode())
    made = conn.execute(
        "select s.id, s.chunk_seq, _pgstack.to_words(v.words_config::regconfig, s.chunk)::text "
        "from doc_embedding_store as s, _pgstack.vectorizer as v order by 1, 2"
    )
    assert kept.fetchall() == made.fetchall()
    triggers = (
        "select array_agg(tgname order by tgname) from pg_trigger where tgname ~ '^_pgstack_words'"
    )
    names = [f"_pgstack_words_{name}" for name in ("delete", "insert", "truncate", "update")]
    assert value(conn, triggers) == names


# ------------------------------------------------------------------------------- readers


@pytest.mark.parametrize("case", ["first", "again", "language"])
def test_searches_go_on(doc: Conn, builder: Conn, reader: Conn, case: str) -> None:
    run(doc, {"first": f"{UNBUILD}; {FORGET}", "again": "", "language": SIMPLE}[case])
    query, other = ("apples", "apple") if case == "language" else ("apple", "apples")
    others = [] if case == "language" else EVERY
    for step in ("before", "meanwhile", "after"):
        assert found(reader, query) == EVERY, step
        assert found(reader, other) == others, step
        assert value(reader, "select count(*) from doc_embedding_store") == 60
        if step == "before":
            run(builder, BUILD)
        elif step == "meanwhile":
            assert method(reader) == ("tsvector" if case == "again" else None)
            builder.commit()
    check_words(reader)


@pytest.mark.parametrize("case", ["first", "again"])
def test_no_lock_keeps_readers_out(doc: Conn, builder: Conn, case: str) -> None:
    if case == "first":
        run(doc, f"{UNBUILD}; {FORGET}")
    run(builder, BUILD)
    locks = doc.execute(
        "select l.relation::regclass::text, l.mode from pg_locks as l "
        "join pg_class as c on c.oid = l.relation "  # not yet those that it makes
        "where l.pid = %s and l.mode in "
        "('ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock')",
        (builder.info.backend_pid,),
    )
    assert locks.fetchall() == [("doc_embedding_store", "ShareRowExclusiveLock")]


def test_an_open_transaction_that_searched_keeps_nobody_waiting(
    doc: Conn, builder: Conn, reader: Conn
) -> None:
    reader.autocommit = False
    assert found(reader, "apple") == EVERY
    run(builder, f"set lock_timeout = '1s'; {BUILD}")
    builder.commit()
    check_words(doc)
    run(doc, LATER)
    run(doc, SWEEP)
    assert len(tables(doc)) == 2  # the reader has the old one
    assert found(reader, "apple") == EVERY
    reader.commit()
    run(doc, SWEEP)
    assert tables(doc) == ["ai._pgstack_words_1_1"]


@pytest.mark.parametrize("change", ["", SIMPLE], ids=["again", "language"])
def test_an_older_snapshot_finds_the_same(
    doc: Conn, builder: Conn, db_url: str, change: str
) -> None:
    with connect(db_url) as early, connect(db_url) as late:
        for old in (early, late):
            old.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
            assert value(old, "select count(*) from doc") == 60
        run(doc, change)
        run(builder, BUILD)
        builder.commit()
        assert (found(early, "apple"), found(early, "pear")) == (EVERY, [])
        early.commit()
        run(doc, LATER)
        run(doc, SWEEP)
        assert tables(doc) == ["ai._pgstack_words_1_1"]
        assert (found(late, "apple"), found(late, "pear")) == (EVERY, [])


def test_old_words_stay_for_some_minutes(doc: Conn) -> None:
    assert tables(doc) == ["ai._pgstack_words_1"]
    for _ in range(2):
        run(doc, BUILD)
    run(doc, SWEEP)
    assert tables(doc) == [f"ai._pgstack_words_1{end}" for end in ("", "_1", "_2")]
    run(doc, LATER)
    run(doc, SWEEP)
    assert tables(doc) == ["ai._pgstack_words_1_2"]
    check_words(doc)


# ------------------------------------------------------------------------------- writers


def test_no_word_is_lost_or_doubled(doc: Conn, builder: Conn, db_url: str, start: Start) -> None:
    with connect(db_url) as writer:
        run(
            writer,
            """
            insert into doc values (100, 'early pears');
            insert into doc_embedding_store (id, chunk_seq, chunk, embedding)
              values (100, 0, 'early pears', '[1,1,1]');
            delete from doc where id = 1;
            """,
        )
        building = start(f"begin; {BUILD}; select pg_advisory_lock(1); commit")
        run(doc, "select pg_advisory_lock(1)")
        await_waiting(doc)  # for the writer
        writer.commit()
    await_waiting(doc, locktype="advisory")
    assert found(doc, "pears") == [100]
    writers = [
        start(
            "insert into doc_embedding_store (id, chunk_seq, chunk, embedding) "
            "values (2, 1, 'late pears', '[1,1,1]')"
        ),
        start("update doc_embedding_store set chunk = 'other pears' where id = 3"),
        start("delete from doc where id = 4"),
        start("update doc set id = 50000 where id = 5"),
    ]
    await_waiting(doc, 5)
    run(doc, "select pg_advisory_unlock(1)")
    for future in (building, *writers):
        future.result()
    check_words(doc)
    assert found(doc, "pears") == [2, 3, 100]
    assert not {1, 4, 5} & set(found(doc, "apple"))


def test_a_truncate_waits_and_empties(doc: Conn, builder: Conn, start: Start) -> None:
    run(builder, BUILD)
    truncating = start("truncate doc")
    await_waiting(doc)
    builder.commit()
    truncating.result()
    check_words(doc)
    assert found(doc, "apple") == []


@pytest.mark.parametrize("case", ["first", "again"])
def test_a_writer_with_an_older_snapshot_tries_again(
    doc: Conn, builder: Conn, db_url: str, case: str
) -> None:
    if case == "first":
        run(doc, f"{UNBUILD}; {FORGET}")
    with connect(db_url) as old:
        old.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        for attempt in ("too old", "again"):
            assert value(old, "select count(*) from doc") == 60
            if attempt == "too old":
                run(builder, BUILD)
                builder.commit()
                with raises("40001", "doc_embedding_store", "again"):
                    run(old, "delete from doc where id = 7")
                old.rollback()
            else:
                run(old, "delete from doc where id = 7")
                old.commit()
    check_words(doc)


def test_a_transaction_that_may_not_see_all_chunks_is_refused(doc: Conn, builder: Conn) -> None:
    run(builder, "set transaction isolation level repeatable read")
    with raises("PS007", "repeatable read", "read committed"):
        run(builder, BUILD)


# ---------------------------------------------------------------------- others, and failures


def test_who_is_killed_leaves_nothing(doc: Conn, db_url: str) -> None:
    with connect(db_url) as killed:
        run(killed, BUILD)
        value(doc, "select pg_terminate_backend(%s, 10000)", killed.info.backend_pid)
        with pytest.raises(psycopg.OperationalError):
            run(killed, "select")
    assert tables(doc) == ["ai._pgstack_words_1"]
    run(
        doc,
        "insert into doc_embedding_store (id, chunk_seq, chunk, embedding) "
        "values (2, 1, 'late pears', '[1,1,1]')",
    )
    check_words(doc)
    run(doc, BUILD)
    check_words(doc)


def test_two_at_once_take_turns(doc: Conn, builder: Conn, start: Start) -> None:
    run(builder, BUILD)
    second = start(BUILD)
    await_waiting(doc)
    builder.commit()
    second.result()
    check_words(doc)
    run(doc, "delete from doc where id < 10")
    check_words(doc)


def test_a_language_that_is_set_meanwhile_is_made_next(
    doc: Conn, db_url: str, start: Start
) -> None:
    with connect(db_url) as user:
        run(user, SIMPLE)
        building = start(BUILD)
        await_waiting(doc)
    building.result()
    assert method(doc) is None
    assert found(doc, "apple") == []
    run(doc, BUILD)
    check_words(doc)
    assert found(doc, "apples") == EVERY


@pytest.mark.parametrize("case", ["first", "again"])
@pytest.mark.parametrize("drop_data", [False, True], ids=["", "data"])
@pytest.mark.parametrize("vectorizer", [OURS, PGAIS], ids=["ours", "pgais"])
@pytest.mark.parametrize("first", ["build", "drop"])
def test_a_vectorizer_dropped_meanwhile_leaves_nothing(
    db: Conn,
    builder: Conn,
    start: Start,
    vectorizer: str,
    drop_data: bool,
    first: str,
    case: str,
) -> None:
    make(db, vectorizer)
    if case == "first":
        run(db, f"{UNBUILD}; {FORGET}")
    drop = f"select pgstack.drop_vectorizer('doc', {drop_data})"
    build = "select _pgstack.build_words(1)"
    run(builder, build if first == "build" else drop)
    other = start(drop if first == "build" else build)
    await_waiting(db)
    builder.commit()
    if first == "build":
        other.result()
    else:
        with pytest.raises(psycopg.Error) as caught:
            other.result()
        assert caught.value.sqlstate == "PS001"
    assert tables(db) == []
    assert value(db, "select count(*) from pg_proc where proname ~ '^_pgstack_words_[0-9]'") == 0
    if not drop_data:
        run(db, "delete from doc_embedding_store")


def test_an_install_meanwhile(doc: Conn, builder: Conn, db_url: str) -> None:
    def upgrade() -> None:
        with connect(db_url) as conn:
            assert install.install(conn).warnings == []

    run(builder, BUILD)
    with ThreadPoolExecutor() as pool:
        installing = pool.submit(upgrade)
        await_waiting(doc)
        builder.commit()
        installing.result()
    check_words(doc)
    run(doc, BUILD)
    check_words(doc)
