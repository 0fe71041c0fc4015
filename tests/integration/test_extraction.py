"""The worker reads the files that SQL stored: results, refusals, deaths and races."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import psycopg
import pytest
from psycopg.types.json import Jsonb

from pgstack.worker.extract import file_name
from tests.conftest import Connection, Worker
from tests.integration.conftest import value
from tests.integration.extracting import PAGE, TABLE, chunks, document, put, settled

StartWorker = Callable[..., Worker]


# ----------------------------------------------------------------------- what comes of a file


def test_a_file_becomes_text_and_is_found(docs: Connection, worker: Worker) -> None:
    assert put(docs, "https://x.org/attic.html", PAGE, metadata=Jsonb({"shelf": 3})) == "inserted"
    settled(docs)
    row = document(docs, "https://x.org/attic.html")
    assert (row["status"], row["title"], row["media_type"]) == ("ready", "Attic", "text/html")
    assert "The heirloom lies in the attic." in row["content"]
    assert row["content_hash"] == hashlib.sha256(row["content"].encode()).digest()
    assert row["bytes"] == len(row["content"].encode())
    assert (row["source"], row["source_bytes"]) == (PAGE, len(PAGE))
    assert row["source_hash"] == hashlib.sha256(PAGE).digest()
    assert row["metadata"] == {"shelf": 3}
    assert (row["worker"], row["attempts"], row["error"]) == (None, 0, None)
    assert row["owner"] == value(docs, "select current_user")
    found = docs.execute("select chunk from pgstack.search('docs', 'heirloom', k => 1)").fetchall()
    assert "heirloom" in found[0][0]
    assert docs.execute(
        "select collection, uri, status, error, source_bytes from pgstack.documents"
    ).fetchall() == [("docs", "https://x.org/attic.html", "ready", None, len(PAGE))]


def test_pages_and_headings_come_along(docs: Connection, worker: Worker) -> None:
    text = b"# House\n\nA house.\n\n## Attic\n\nAn heirloom.\n"
    put(docs, "house.md", text)
    settled(docs)
    parts = docs.execute(
        "select p.*, substr(d.content, p.start_char + 1, p.end_char - p.start_char) "
        f"from {TABLE} as d, pgstack.document_parts('docs', d.id) as p"
    ).fetchall()
    assert parts[-1][3] == ["House", "Attic"]
    assert "An heirloom." in parts[-1][4]
    assert "".join(part[4] for part in parts) == text.decode()


@pytest.mark.parametrize(
    ("uri", "data", "words"),
    [
        ("broken.pdf", b"no PDF at all", "not the .pdf file"),
        ("program", b"\x7fELF" + bytes(range(256)) * 8, "a program"),
        ("empty.txt", b"", "no text"),
        ("blank.txt", b" \n\n\t ", "no text"),
    ],
)
def test_what_cannot_be_read_says_why(
    docs: Connection, worker: Worker, uri: str, data: bytes, words: str
) -> None:
    put(docs, uri, data)
    put(docs, "good.txt", b"A good text.")
    settled(docs)
    row = document(docs, uri)
    assert row["status"] == "failed"
    assert words in row["error"]
    assert (row["content"], row["worker"]) == (None, None)
    assert document(docs, "good.txt")["status"] == "ready"
    counts = docs.execute("select documents, pending, failed from pgstack.collections").fetchone()
    assert counts == (2, 0, 1)
    assert put(docs, uri, data) == "unchanged"


def test_a_new_version_that_cannot_be_read_keeps_the_old_text(
    docs: Connection, worker: Worker
) -> None:
    put(docs, "u.html", PAGE)
    settled(docs)
    before, written = document(docs, "u.html"), chunks(docs)
    assert put(docs, "u.html", b"\x7fELF" + bytes(range(256)) * 8) == "updated"
    settled(docs)
    row = document(docs, "u.html")
    assert (row["status"], row["error"]) == ("failed", "a program, not text")
    assert (row["content"], row["title"]) == (before["content"], "Attic")
    assert chunks(docs) == written
    assert put(docs, "u.html", PAGE) == "updated"
    settled(docs)
    row = document(docs, "u.html")
    assert (row["status"], row["error"], row["content"]) == ("ready", None, before["content"])
    assert chunks(docs) == written  # the text is the same, so are the embeddings


def test_ingesting_again_changes_only_what_changed(
    docs: Connection, start_worker: StartWorker
) -> None:
    put(docs, "u.html", PAGE)
    start_worker(docs.info.dsn, "--once").process.wait(60)
    before, written = document(docs, "u.html"), chunks(docs)
    assert before["status"] == "ready"
    assert written
    # No worker is there: what must be read stays pending.
    assert put(docs, "u.html", PAGE) == "unchanged"
    assert put(docs, "u.html", PAGE, title="Attic") == "unchanged"
    assert put(docs, "u.html", PAGE, media_type="text/html") == "unchanged"
    assert document(docs, "u.html") == before
    assert put(docs, "u.html", PAGE, title="The attic") == "updated"
    assert put(docs, "u.html", PAGE, metadata=Jsonb({"a": 1})) == "updated"
    row = document(docs, "u.html")
    assert (row["status"], row["title"], row["metadata"]) == ("ready", "The attic", {"a": 1})
    assert chunks(docs) == written
    assert put(docs, "u.html", PAGE + b"!") == "updated"
    assert document(docs, "u.html")["status"] == "pending"
    assert document(docs, "u.html")["content"] == before["content"]


def test_warnings_are_metadata_and_no_change(docs: Connection, worker: Worker) -> None:
    data = "Gr\xfc\xdfe aus K\xf6ln, lieber Herr M\xfcller.".encode("latin-1")
    put(docs, "u.txt", data, metadata=Jsonb({"a": 1}))
    settled(docs)
    row = document(docs, "u.txt")
    assert row["metadata"]["a"] == 1
    assert row["metadata"]["warnings"]
    assert put(docs, "u.txt", data, metadata=Jsonb({"a": 1})) == "unchanged"
    assert put(docs, "u.txt", data, metadata=Jsonb({"a": 2})) == "updated"
    assert document(docs, "u.txt")["metadata"]["warnings"] == row["metadata"]["warnings"]
    put(docs, "u.txt", b"plain")
    settled(docs)
    assert document(docs, "u.txt")["metadata"] == {}


def test_a_text_in_the_place_of_a_file(docs: Connection, worker: Worker) -> None:
    put(docs, "u", PAGE)
    docs.execute("select pgstack.ingest_text('docs', 'u', 'Typed by hand.', 'T')")
    settled(docs)
    row = document(docs, "u")
    assert (row["content"], row["title"], row["status"]) == ("Typed by hand.", "T", "ready")
    assert (row["source"], row["source_hash"]) == (None, None)
    assert put(docs, "u", PAGE) == "updated"
    settled(docs)
    assert document(docs, "u")["title"] == "Attic"


def test_retry_reads_what_failed_or_what_one_names(docs: Connection, worker: Worker) -> None:
    docs.execute("select pgstack.set_extraction('docs', '{\"extractor\": \"tika\"}')")
    put(docs, "a.html", PAGE)
    settled(docs)
    assert "tika_url is not set" in document(docs, "a.html")["error"]
    assert value(docs, "select pgstack.retry_documents('docs', 'none')") == 0
    docs.execute("select pgstack.set_extraction('docs', '{}')")
    assert value(docs, "select pgstack.retry_documents('docs')") == 1
    settled(docs)
    assert document(docs, "a.html")["status"] == "ready"
    assert value(docs, "select pgstack.retry_documents('docs')") == 0
    boiler = b"<html><body><nav>Home and Garden</nav><p>The heirloom lies in the attic.</p></html>"
    put(docs, "b.html", boiler)
    settled(docs)
    docs.execute("select pgstack.set_extraction('docs', '{\"keep_boilerplate\": true}')")
    assert value(docs, "select pgstack.retry_documents('docs', 'b.html')") == 1
    settled(docs)
    assert document(docs, "b.html")["status"] == "ready"


def test_once_reads_and_embeds_all(docs: Connection, start_worker: StartWorker) -> None:
    docs.execute("select pgstack.create_collection('more', dimensions => 384)")
    for number in range(20):
        put(docs, f"{number}.html", PAGE.replace(b"attic", b"attic %d" % number))
    docs.execute("select pgstack.ingest_bytes('more', 'x.txt', 'More.'::bytea)")
    put(docs, "bad.pdf", b"no")
    worker = start_worker(docs.info.dsn, "--once")
    assert worker.process.wait(120) == 0
    assert value(docs, "select count(*) from pgstack_collections.docs_embedding_store") == 20
    assert value(docs, "select count(*) from pgstack_collections.more_embedding_store") == 1
    assert value(docs, "select count(*) from pgstack.documents where status = 'ready'") == 21
    assert value(docs, "select pgstack.wait_until_fresh('docs', '0s')")


def test_a_worker_of_other_vectorizers_leaves_files_alone(
    docs: Connection, start_worker: StartWorker
) -> None:
    docs.execute("select pgstack.create_collection('more', dimensions => 384)")
    put(docs, "u.html", PAGE)
    docs.execute("select pgstack.ingest_bytes('more', 'x.txt', 'More.'::bytea)")
    assert start_worker(docs.info.dsn, "--once", "--vectorizer", "more").process.wait(60) == 0
    states = docs.execute("select collection, status from pgstack.documents order by 1").fetchall()
    assert states == [("docs", "pending"), ("more", "ready")]


def test_pending_files_are_not_fresh(docs: Connection) -> None:
    docs.execute("select pgstack.ingest_text('docs', 'u', 'text')")
    put(docs, "u", PAGE)
    status = docs.execute("select state, pending from pgstack.vectorizer_status").fetchone()
    assert status == ("no worker", 2)  # the text of before, and the file
    with (
        docs.transaction(),
        pytest.raises(psycopg.Error, match="before it commits"),
        docs.transaction(),
    ):
        put(docs, "v", PAGE)
        docs.execute("select pgstack.wait_until_fresh('docs')")


@pytest.mark.parametrize(
    ("uri", "name"),
    [
        ("file:///home/ann/M%C3%BCller%20%231.pdf", "Müller #1.pdf"),
        ("https://x.org/a/b.html?c=d/e.txt#f", "b.html"),
        ("s3://bucket/key/", "key"),
        ("notes", "notes"),
        ("http://[", "["),
        ("a/..%2f..%2Fetc%00/x\n", "x"),
        ("%2F", ""),
        ("..", ".."),
        ("/" + "x" * 2000, "x" * 200),
        ("%ff.txt", "\ufffd.txt"),
    ],
)
def test_names_of_files(uri: str, name: str) -> None:
    assert file_name(uri) == name
