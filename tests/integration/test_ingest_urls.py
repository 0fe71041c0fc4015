"""URLs into a collection: a web server and an object store on this machine."""

from __future__ import annotations

from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from typing import Any

import pytest

from pgstack.errors import UsageError
from pgstack.ingest import IngestReport
from tests import objectstore, webserver
from tests.integration.ingesting import Conn, documents, everything, run, steps_of
from tests.webserver import Web, says

MODIFIED = "Sat, 21 Nov 2026 10:00:00 GMT"
PAGE = b"<title>Otters</title><p>Otters swim."


@pytest.fixture
def web() -> Iterator[Web]:
    with webserver.running() as made:
        yield made


@pytest.fixture(scope="module")
def store_url() -> Iterator[str]:
    with objectstore.running() as url:
        yield url


@pytest.fixture
def bucket(store_url: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A client of the empty bucket ``books``."""
    for name, value in objectstore.environment(store_url).items():
        monkeypatch.setenv(name, value)
    made = objectstore.bucket("books", store_url)
    for page in made.list():
        made.delete([item["path"] for item in page])
    return made


# --- the web --------------------------------------------------------------------------


def test_a_page(conn: Conn, web: Web) -> None:
    web.answers["/otters"] = says(
        PAGE, Content_Type="text/html", ETag='"v1"', Last_Modified=MODIFIED
    )
    url = f"{web.url}/otters?id=5"
    assert run(conn, url) == IngestReport(inserted=1)
    row = conn.execute(
        "select uri, title, media_type, content, metadata, source_bytes, source_modified::text "
        "from pgstack_collections.docs"
    ).fetchone()
    assert row is not None
    assert row[:6] == (url, "Otters", "text/html", "Otters swim.", {"etag": '"v1"'}, len(PAGE))
    assert row[6].startswith("2026-11-21")
    assert run(conn, url) == IngestReport(unchanged=1)
    assert web.asked[-1][1]["if-none-match"] == '"v1"'


def test_what_the_server_knows_is_not_sent_again(conn: Conn, web: Web) -> None:
    version = '"v1"'

    def answer(handler: BaseHTTPRequestHandler) -> None:
        known = handler.headers.get("If-None-Match") == version
        says(b"" if known else PAGE, 304 if known else 200, ETag=version)(handler)

    web.answers["/x"] = answer
    url = f"{web.url}/x"
    assert run(conn, url) == IngestReport(inserted=1)
    before = everything(conn)
    assert run(conn, url) == IngestReport(unchanged=1)
    assert everything(conn) == before
    version = '"v2"'  # the same page under another name: fetched once, and noted
    assert run(conn, url) == IngestReport(unchanged=1)
    assert "if-none-match" in web.asked[-1][1]
    assert conn.execute("select metadata from pgstack_collections.docs").fetchone() == (
        {"etag": '"v2"'},
    )
    assert run(conn, url) == IngestReport(unchanged=1)
    assert run(conn, url, reread=True) == IngestReport(unchanged=1)
    assert "if-none-match" not in web.asked[-1][1]


def test_a_page_that_changes(conn: Conn, web: Web) -> None:
    web.answers["/x"] = says(PAGE, Content_Type="text/html")
    assert run(conn, f"{web.url}/x") == IngestReport(inserted=1)
    web.answers["/x"] = says(PAGE + b" And sleep.", Content_Type="text/html")
    assert run(conn, f"{web.url}/x", dry_run=True) == IngestReport(updated=1)
    assert run(conn, f"{web.url}/x") == IngestReport(updated=1)
    assert documents(conn) == {f"{web.url}/x": "Otters swim. And sleep."}


def test_secrets_are_neither_stored_nor_told(conn: Conn, web: Web) -> None:
    web.answers["/x"] = says(PAGE)
    with_user = web.url.replace("//", "//user:geheim@")
    report = run(
        conn,
        f"{with_user}/x?page=2&X-Amz-Signature=geheim&token=geheim",
        f"{with_user}/missing?sig=geheim",
    )
    assert report.inserted == 1
    assert [path for path, _ in report.skipped] == [f"{web.url}/missing"]
    assert "no such file (HTTP 404)" in report.skipped[0][1]
    assert list(documents(conn)) == [f"{web.url}/x?page=2"]
    assert "geheim" not in str(report) + str(everything(conn))
    assert run(conn, f"{with_user}/x?page=2&token=other") == IngestReport(unchanged=1)


def test_a_server_that_fails_harms_no_document(conn: Conn, web: Web) -> None:
    web.answers["/x"], web.answers["/y"] = says(PAGE), says(b"%PDF-1.4 broken")
    report = run(conn, f"{web.url}/x", f"{web.url}/y", "http://127.0.0.1:9/z")
    assert (report.inserted, len(report.failed), len(report.skipped)) == (1, 1, 1)
    web.answers["/x"] = says(b"", 500)
    report = run(conn, f"{web.url}/x", prune=True)
    assert (report.removed, len(report.skipped)) == (0, 1)
    assert conn.execute("select status from pgstack_collections.docs order by uri").fetchall() == [
        ("ready",),
        ("failed",),
    ]


def test_kinds_of_urls_that_are_not_read(conn: Conn) -> None:
    for url in ("ftp://x/y", "gopher://x"):
        with pytest.raises(UsageError, match="of no kind that is read"):
            run(conn, url)


# --- object stores --------------------------------------------------------------------


def test_objects_below_a_prefix(conn: Conn, bucket: Any) -> None:
    for key in ("in/a.txt", "in/b c.md", "in/deep/d.txt", "in/.hidden", "out.txt"):
        bucket.put(key, f"text of {key}".encode())
    names = ("a.txt", "b c.md", "d.txt")
    assert steps_of(conn, "s3://books/in/") == dict.fromkeys(names, "inserted")
    assert documents(conn) == {
        f"s3://books/in/{key}": f"text of in/{key}" for key in ("a.txt", "b c.md", "deep/d.txt")
    }
    before = everything(conn)
    assert run(conn, "s3://books/in/") == IngestReport(unchanged=3)
    assert everything(conn) == before
    bucket.put("in/a.txt", b"other text of the file")
    bucket.delete("in/b c.md")
    assert run(conn, "s3://books/in/") == IngestReport(updated=1, unchanged=1)
    assert run(conn, "s3://books/in/", prune=True, dry_run=True).removed == 1
    assert steps_of(conn, "s3://books/in/", prune=True) == {
        "a.txt": "unchanged",
        "d.txt": "unchanged",
        "b c.md": "removed",
    }
    assert len(documents(conn)) == 2


def test_rules_for_objects(conn: Conn, bucket: Any) -> None:
    for key in ("a.txt", "b.md", "drafts/c.md", ".hidden/d.md"):
        bucket.put(key, b"text")
    assert set(steps_of(conn, "s3://books", include=["*.md"], exclude=["drafts/"])) == {"b.md"}
    assert len(steps_of(conn, "s3://books/", hidden=True)) == 4


def test_one_object(conn: Conn, bucket: Any) -> None:
    bucket.put("deep/x.html", PAGE)
    assert run(conn, "s3://books/deep/x.html") == IngestReport(inserted=1)
    assert documents(conn) == {"s3://books/deep/x.html": "Otters swim."}
    assert run(conn, "s3://books/deep/x.html") == IngestReport(unchanged=1)
    report = run(conn, "s3://books/none", "s3://nowhere/", prune=True)
    assert sorted(dict(report.skipped)) == ["s3://books/none", "s3://nowhere/"]
    assert documents(conn).keys() == {"s3://books/deep/x.html"}
