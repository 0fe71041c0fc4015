"""What happens to a document while its file is read, and what dies meanwhile.

Nothing is left to chance: the helper process stands still (SIGSTOP) until the blow has fallen.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.types.json import Jsonb

from pgstack.db import connect
from tests.conftest import Connection, Worker
from tests.integration.conftest import value
from tests.integration.extracting import PAGE, document, held, helpers, put, settled, until

StartWorker = Callable[..., Worker]

CLAIMED = "select worker is not null from pgstack_collections.docs where uri = %s"


def claimed(conn: Connection, uri: str) -> None:
    """Wait until a worker has the file."""
    until(conn, CLAIMED, uri)


def resume(helper: int) -> None:
    os.kill(helper, signal.SIGCONT)


# -------------------------------------------------------------------- the document changes


def test_a_document_deleted_while_it_is_read(docs: Connection, worker: Worker) -> None:
    with held(docs, worker):
        put(docs, "u.html", PAGE)
        claimed(docs, "u.html")
        assert value(docs, "select pgstack.remove_document('docs', 'u.html')")
    put(docs, "next.txt", b"Next.")
    settled(docs)
    assert document(docs, "next.txt")["status"] == "ready"
    assert value(docs, "select count(*) from pgstack.documents") == 2


def test_a_newer_file_wins(docs: Connection, worker: Worker) -> None:
    with held(docs, worker) as helper:
        put(docs, "u.html", PAGE)
        claimed(docs, "u.html")
        put(docs, "u.html", PAGE.replace(b"attic", b"cellar"))
        # Another helper reads the new one while the old one is not done.
        until(docs, "select status = 'ready' from pgstack_collections.docs where uri = 'u.html'")
        resume(helper)
        put(docs, "next.txt", b"Next.")
        settled(docs)
    assert "cellar" in document(docs, "u.html")["content"]
    assert document(docs, "u.html")["attempts"] == 0


def test_a_text_wins_over_a_file_being_read(docs: Connection, worker: Worker) -> None:
    with held(docs, worker):
        put(docs, "u.html", PAGE)
        claimed(docs, "u.html")
        docs.execute("select pgstack.ingest_text('docs', 'u.html', 'Typed by hand.')")
    put(docs, "next.txt", b"Next.")
    settled(docs)
    assert document(docs, "u.html")["content"] == "Typed by hand."


def test_a_title_given_while_it_is_read_stays(docs: Connection, worker: Worker) -> None:
    with held(docs, worker):
        put(docs, "u.html", PAGE)
        claimed(docs, "u.html")
        assert put(docs, "u.html", PAGE, title="Mine", metadata=Jsonb({"a": 1})) == "updated"
        assert put(docs, "u.html", PAGE) == "updated"  # the metadata goes
    settled(docs)
    row = document(docs, "u.html")
    assert (row["title"], row["metadata"], row["status"]) == ("Mine", {}, "ready")


def test_the_table_is_truncated_while_it_is_read(docs: Connection, worker: Worker) -> None:
    with held(docs, worker):
        put(docs, "u.html", PAGE)
        claimed(docs, "u.html")
        docs.execute("truncate pgstack_collections.docs restart identity")
        put(docs, "v.txt", b"Another one by the same key.")
    settled(docs)
    assert document(docs, "v.txt")["content"] == "Another one by the same key."
    assert value(docs, "select count(*) from pgstack.documents") == 1


@pytest.mark.parametrize("again", [False, True])
def test_the_collection_is_dropped_while_it_is_read(
    docs: Connection, worker: Worker, again: bool
) -> None:
    docs.execute("select pgstack.create_collection('other', dimensions => 384)")
    with held(docs, worker):
        put(docs, "u.html", PAGE)
        claimed(docs, "u.html")
        docs.execute("select pgstack.drop_collection('docs')")
        if again:  # a table of that name with a row of that key is not the one that was read
            docs.execute("select pgstack.create_collection('docs', dimensions => 384)")
            docs.execute("select pgstack.ingest_text('docs', 'one', 'one')")
            docs.execute("select pgstack.ingest_text('docs', 'two', 'two')")
    docs.execute("select pgstack.ingest_bytes('other', 'x.txt', 'Other.')")
    assert value(docs, "select pgstack.wait_until_fresh('other', '60s')")
    assert worker.process.poll() is None
    if again:
        settled(docs)
        texts = docs.execute("select content from pgstack_collections.docs order by 1").fetchall()
        assert texts == [("one",), ("two",)]


def test_a_row_that_somebody_keeps_locked(docs: Connection, worker: Worker, db_url: str) -> None:
    with held(docs, worker) as helper, connect(db_url) as user:
        put(docs, "u.html", PAGE)
        claimed(docs, "u.html")
        user.execute("select from pgstack_collections.docs where uri = 'u.html' for update")
        resume(helper)
        put(docs, "next.txt", b"Next.")  # others go on
        until(docs, "select status = 'ready' from pgstack_collections.docs where uri = 'next.txt'")
        until(docs, "select exists (select from pg_locks where not granted)")
        user.rollback()
    settled(docs)
    assert document(docs, "u.html")["status"] == "ready"


def test_a_table_that_somebody_keeps_locked_stops_no_other(
    docs: Connection, worker: Worker, db_url: str
) -> None:
    docs.execute("select pgstack.create_collection('other', dimensions => 384)")
    put(docs, "first.txt", b"First.")
    settled(docs)
    with connect(db_url) as user:
        user.execute("lock table pgstack_collections.docs")
        docs.execute("select pgstack.ingest_bytes('other', 'x.txt', 'Other.')")
        until(docs, "select status = 'ready' from pgstack_collections.other")
    assert value(docs, "select problem from pgstack.collections where name = 'docs'") is None


# -------------------------------------------------------------------- deaths


def test_a_killed_worker_s_file_is_taken_over(
    docs: Connection, worker: Worker, start_worker: StartWorker, db_url: str
) -> None:
    with held(docs, worker) as helper:
        put(docs, "u.html", PAGE)
        claimed(docs, "u.html")
        second = start_worker(db_url)
        second.wait_until_present()
        worker.stop(signal.SIGKILL)
        until(docs, "select status = 'ready' from pgstack_collections.docs where uri = 'u.html'")
    settled(docs)
    assert document(docs, "u.html")["attempts"] == 0
    # What a dead worker was reading is read no more.
    end = time.monotonic() + 20
    while Path(f"/proc/{helper}").exists() and time.monotonic() < end:
        time.sleep(0.02)
    assert not Path(f"/proc/{helper}").exists()


def test_a_file_that_takes_three_workers_along_is_set_aside(
    docs: Connection, start_worker: StartWorker, db_url: str
) -> None:
    put(docs, "u.html", PAGE)
    for tries in (1, 2, 3):
        with connect(db_url) as user:
            # Out of reach until the worker's helper stands still.
            user.execute("select from pgstack_collections.docs where uri = 'u.html' for update")
            worker = start_worker(db_url)
            with held(docs, worker):
                user.rollback()
                until(
                    docs,
                    "select worker is not null and attempts = %s "
                    "from pgstack_collections.docs where uri = 'u.html'",
                    tries,
                )
                worker.stop(signal.SIGKILL)
        until(docs, "select not _pgstack.worker_present()")
    assert document(docs, "u.html")["attempts"] == 3
    put(docs, "good.txt", b"A good text.")
    last = start_worker(db_url, "--once")
    assert last.process.wait(60) == 0
    row = document(docs, "u.html")
    assert (row["status"], row["error"]) == ("failed", "the worker ended 3 times while it was read")
    assert document(docs, "good.txt")["status"] == "ready"
    assert value(docs, "select pgstack.retry_documents('docs')") == 1
    assert start_worker(db_url, "--once").process.wait(60) == 0
    assert document(docs, "u.html")["status"] == "ready"


def test_a_killed_helper_costs_nothing(docs: Connection, worker: Worker) -> None:
    with held(docs, worker) as helper:
        put(docs, "u.html", PAGE)
        claimed(docs, "u.html")
        os.kill(helper, signal.SIGKILL)
        settled(docs)
    row = document(docs, "u.html")
    assert (row["status"], row["attempts"]) == ("ready", 0)


def test_a_file_that_kills_every_helper_is_set_aside(docs: Connection, worker: Worker) -> None:
    over = threading.Event()

    def hunt() -> None:
        while not over.wait(0.005):
            for helper in helpers(worker):
                with suppress(ProcessLookupError):
                    os.kill(helper, signal.SIGKILL)

    hunter = threading.Thread(target=hunt)
    hunter.start()
    try:
        put(docs, "u.html", PAGE)
        until(docs, "select status = 'failed' from pgstack_collections.docs where uri = 'u.html'")
    finally:
        over.set()
        hunter.join()
    row = document(docs, "u.html")
    assert row["attempts"] == 3
    assert "process" in row["error"]
    assert worker.process.poll() is None
    put(docs, "good.txt", b"A good text.")
    settled(docs)
    assert document(docs, "good.txt")["status"] == "ready"


@pytest.mark.parametrize("options", [(), ("--once",)])
def test_a_worker_that_is_asked_to_stop_gives_its_files_back(
    docs: Connection, start_worker: StartWorker, db_url: str, options: tuple[str, ...]
) -> None:
    worker = start_worker(db_url)
    with held(docs, worker) as helper:
        put(docs, "u.html", PAGE)
        claimed(docs, "u.html")
        began = time.monotonic()
        assert worker.stop(signal.SIGTERM) == 0
        assert time.monotonic() - began < 8
        row = document(docs, "u.html")
        assert (row["status"], row["worker"], row["attempts"]) == ("pending", None, 0)
        assert not Path(f"/proc/{helper}").exists()
    assert start_worker(db_url, "--once", *options).process.wait(60) == 0
    assert document(docs, "u.html")["status"] == "ready"


def test_a_worker_that_loses_the_database_reads_again(
    docs: Connection, worker: Worker, db_url: str
) -> None:
    with held(docs, worker):
        put(docs, "u.html", PAGE)
        claimed(docs, "u.html")
        docs.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity "
            "where application_name = 'pgstack worker' and datname = current_database()"
        )
        until(docs, "select status = 'ready' from pgstack_collections.docs where uri = 'u.html'")
    assert worker.process.poll() is None


# -------------------------------------------------------------------- several at once


def test_two_workers_read_each_file_once(
    docs: Connection, start_worker: StartWorker, db_url: str
) -> None:
    docs.execute(
        """
        create table public.written (uri text);
        create function note() returns trigger language plpgsql as
          $$ begin insert into public.written values (new.uri); return null; end $$;
        create trigger note after update on pgstack_collections.docs for each row
          when (old.status = 'pending' and new.status = 'ready') execute function note()
        """
    )
    for number in range(60):
        put(docs, f"{number}.html", PAGE + b"%d" % number)
    workers = [start_worker(db_url) for _ in range(2)]
    settled(docs)
    assert [worker.process.poll() for worker in workers] == [None, None]
    assert value(docs, "select count(*) from written") == 60
    assert value(docs, "select count(distinct uri) from written") == 60


def test_two_ingests_of_one_uri_take_turns(docs: Connection, db_url: str) -> None:
    outcomes: list[str] = []

    def ingest(data: bytes) -> None:
        with connect(db_url, autocommit=True) as conn:
            outcomes.append(put(conn, "u", data))

    for _ in range(5):
        threads = [threading.Thread(target=ingest, args=(b"%d" % n,)) for n in (1, 1, 2, 2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(outcomes) == 20
    assert outcomes.count("inserted") == 1
    assert value(docs, "select count(*) from pgstack_collections.docs") == 1
    assert document(docs, "u")["source"] in (b"1", b"2")


# -------------------------------------------------------------------- tables that are not ours


def test_a_planted_table_is_no_collection(docs: Connection, worker: Worker) -> None:
    docs.execute(
        "create table pgstack_collections.planted (like pgstack_collections.docs including all)"
    )
    docs.execute(
        "insert into pgstack_collections.planted (uri, source, source_hash, status) "
        "values ('u.txt', 'text', sha256('text'), 'pending')"
    )
    docs.execute("notify pgstack_extract")
    put(docs, "next.txt", b"Next.")
    settled(docs)
    planted = "select status, worker from pgstack_collections.planted"
    assert docs.execute(planted).fetchall() == [("pending", None)]
    assert docs.execute("select name from pgstack.collections").fetchall() == [("docs",)]
    with pytest.raises(psycopg.Error, match="no collection"):
        docs.execute("select pgstack.create_collection('planted', dimensions => 384)")


def test_a_table_that_the_worker_must_not_touch(
    docs: Connection, start_worker: StartWorker, db_url: str, make_type_owner: Any
) -> None:
    docs.execute("select pgstack.create_collection('other', dimensions => 384)")
    put(docs, "u.txt", b"text")
    docs.execute("select pgstack.ingest_bytes('other', 'x.txt', 'Other.')")
    docs.execute("create domain odd as text")
    docs.execute("alter domain odd owner to pgstack_stranger")
    docs.execute("alter table pgstack_collections.docs add column extra odd")
    worker = start_worker(db_url, "--once")
    assert worker.process.wait(60) == 0
    assert document(docs, "u.txt")["status"] == "pending"
    states = dict(docs.execute("select name, problem from pgstack.collections").fetchall())
    assert "extra" in states["docs"]
    assert states["other"] is None
    assert value(docs, "select status from pgstack_collections.other") == "ready"
    docs.execute("alter table pgstack_collections.docs drop column extra")
    docs.execute("update _pgstack.collection set problem_at = problem_at - interval '1 min'")
    assert start_worker(db_url, "--once").process.wait(60) == 0
    assert document(docs, "u.txt")["status"] == "ready"
    assert value(docs, "select problem from pgstack.collections where name = 'docs'") is None


@pytest.fixture
def make_type_owner(db: Connection) -> Any:
    db.execute("create role pgstack_stranger")
    yield
    db.execute("drop owned by pgstack_stranger cascade")
    db.execute("drop role pgstack_stranger")


def test_what_a_trigger_refuses_is_failed_and_says_so(docs: Connection, worker: Worker) -> None:
    docs.execute(
        "alter table pgstack_collections.docs "
        "add constraint no_heirlooms check (content not like '%heirloom%')"
    )
    put(docs, "u.html", PAGE)
    put(docs, "good.txt", b"A good text.")
    settled(docs)
    row = document(docs, "u.html")
    assert row["status"] == "failed"
    assert "no_heirlooms" in row["error"]
    assert document(docs, "good.txt")["status"] == "ready"


def test_a_locked_collection_keeps_nobody_waiting_who_looks_at_the_status(
    docs: Connection, db_url: str
) -> None:
    put(docs, "u.txt", b"text")
    with connect(db_url) as user:
        user.execute("lock table pgstack_collections.docs")
        docs.execute("set statement_timeout = '5s'")
        query = "select name, pending from pgstack.vectorizer_status"
        assert docs.execute(query).fetchall() == [("docs", 1)]  # the key; the file is not seen
        assert value(docs, "select _pgstack.extraction_left(null)") is True


def test_a_file_put_there_by_hand_is_read(docs: Connection, worker: Worker) -> None:
    docs.execute(
        "insert into pgstack_collections.docs (uri, source, status) "
        "values ('u.txt', 'Put there by hand.', 'pending')"
    )
    settled(docs)
    assert document(docs, "u.txt")["content"] == "Put there by hand."
