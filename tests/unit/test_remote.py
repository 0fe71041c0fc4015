"""Files at URLs: a web server and an object store on this machine."""

from __future__ import annotations

import gzip
import io
import os
import time
import zlib
from collections.abc import Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler
from typing import Any

import pytest

from pgstack import remote
from pgstack.errors import PgstackError, RemoteError, Unreachable, UsageError
from pgstack.remote import NotModified, fetch, is_listing, is_url, list_objects, public_url
from tests import objectstore, webserver
from tests.webserver import Web, says

MODIFIED = "Sat, 21 Nov 2026 10:00:00 GMT"


@pytest.fixture
def web() -> Iterator[Web]:
    with webserver.running() as made:
        yield made


def got(url: str, **options: Any) -> tuple[bytes, remote.Fetched]:
    into = io.BytesIO()
    found = fetch(url, into, **{"max_bytes": 1_000_000, **options})
    assert found.bytes == len(into.getvalue())
    return into.getvalue(), found


# --- addresses ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("https://Example.com", "https://example.com/"),
        ("HTTPS://user:p%40ss@example.com:8080/a?b=1#part", "https://example.com:8080/a?b=1"),
        ("https://x.org/p?id=5&lang=de", "https://x.org/p?id=5&lang=de"),
        ("https://x.org/p?q=a%20b+c&empty=", "https://x.org/p?q=a%20b+c&empty="),
        ("https://x.org/p?id=5&access_token=geheim", "https://x.org/p?id=5"),
        ("https://x.org/p?api_key=geheim&apikey=geheim&API-Key=geheim", "https://x.org/p"),
        (
            "https://b.s3.amazonaws.com/k?X-Amz-Signature=geheim&X-Amz-Credential=geheim&v=2",
            "https://b.s3.amazonaws.com/k?v=2",
        ),
        (
            "https://a.blob.core.windows.net/c/k?sv=2024&se=2027&sr=b&sig=geheim&page=3",
            "https://a.blob.core.windows.net/c/k?page=3",
        ),
        ("https://x.org/p?se=Sweden", "https://x.org/p?se=Sweden"),  # nothing is signed
        ("https://[::1]:80/x", "https://[::1]:80/x"),
        ("https://user:geheim@[bad/x", "https://..."),
        ("s3://bucket/a key?with#marks", "s3://bucket/a key?with#marks"),
        ("s3://id:geheim@bucket/key", "s3://bucket/key"),
    ],
)
def test_what_is_shown_of_a_url(given: str, shown: str) -> None:
    assert public_url(given) == shown
    assert "geheim" not in shown


def test_which_arguments_are_urls() -> None:
    assert all(map(is_url, ["https://x", "HTTP://x/y", "s3://b/k", "gs://b", "az://c/k"]))
    assert not any(map(is_url, ["https:/x", "./http", "ftp://x/y", "file:///x", "-", "s3:", "s3"]))
    assert all(map(is_listing, ["s3://b", "s3://b/", "s3://b/p/"]))
    assert not any(map(is_listing, ["s3://b/k", "https://x/", "https://x"]))


@pytest.mark.parametrize(
    "url", ["ftp://x/y", "https://", "https:///x", "https://x:99999/", "file:///etc/passwd", "x"]
)
def test_addresses_that_make_no_sense(url: str) -> None:
    with pytest.raises(UsageError) as caught:
        got(url)
    assert caught.value.hint


# --- the web --------------------------------------------------------------------------


def test_a_file_and_what_the_server_says_of_it(web: Web) -> None:
    web.answers["/docs/a%20b.html"] = says(
        b"<p>hello", Content_Type="Text/HTML; charset=x", Last_Modified=MODIFIED, ETag='"v1"'
    )
    steps: list[tuple[int, int | None]] = []
    data, found = got(f"{web.url}/docs/a%20b.html", progress=lambda *step: steps.append(step))
    assert data == b"<p>hello"
    assert found == remote.Fetched(
        "a b.html", "text/html", 8, datetime(2026, 11, 21, 10, tzinfo=UTC), '"v1"'
    )
    assert steps[-1] == (8, 8)


@pytest.mark.parametrize(
    ("headers", "name", "media_type"),
    [
        (
            {"Content_Disposition": 'attachment; filename="../../etc/report.pdf"'},
            "report.pdf",
            None,
        ),
        ({"Content_Disposition": "attachment; filename*=UTF-8''%C3%BC.pdf"}, "ü.pdf", None),
        ({"Content_Disposition": 'attachment; filename="c:\\\\x\\\\y.doc"'}, "y.doc", None),
        ({"Content_Type": "application/octet-stream"}, "x", None),
        ({"Content_Type": "nonsense"}, "x", None),
        ({"Content_Type": "application/pdf"}, "x", "application/pdf"),
        ({"Last_Modified": "yesterday"}, "x", None),
    ],
)
def test_names_and_media_types(
    web: Web, headers: dict[str, str], name: str, media_type: str | None
) -> None:
    web.answers["/x"] = says(b"1", **headers)
    _, found = got(f"{web.url}/x")
    assert (found.name, found.media_type, found.modified) == (name, media_type, None)


def test_what_has_not_changed_is_not_fetched(web: Web) -> None:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        known = handler.headers.get("If-None-Match") == '"v1"'
        known |= handler.headers.get("If-Modified-Since") == MODIFIED
        says(b"" if known else b"new", 304 if known else 200)(handler)

    web.answers["/x"] = answer
    with pytest.raises(NotModified):
        got(f"{web.url}/x", etag='"v1"')
    with pytest.raises(NotModified):
        got(f"{web.url}/x", modified=datetime(2026, 11, 21, 10, tzinfo=UTC))
    assert got(f"{web.url}/x", etag='"v0"')[0] == b"new"


def test_user_and_password_go_to_their_server_only(web: Web) -> None:
    web.answers["/a"] = says(b"", 302, Location=web.url.replace("127.0.0.1", "localhost") + "/b")
    web.answers["/b"] = says(b"there")
    data, found = got(web.url.replace("//", "//user:geheim@") + "/a")
    assert (data, found.name) == (b"there", "b")
    first, second = (headers for _, headers in web.asked)
    assert first["authorization"].startswith("Basic ")
    assert "authorization" not in second


@pytest.mark.parametrize("target", ["/loop", "file:///etc/passwd", "ftp://127.0.0.1/x"])
def test_redirects_that_lead_nowhere(web: Web, target: str) -> None:
    web.answers["/loop"] = says(b"", 302, Location=target)
    with pytest.raises(RemoteError):
        got(f"{web.url}/loop")
    assert len(web.asked) <= 6


def test_size_is_limited_as_announced_and_as_it_comes(web: Web) -> None:
    web.answers["/announced"] = says(b"x", Content_Length="100000000")
    web.answers["/endless"] = _endless
    bomb = gzip.compress(b"\0" * 50_000_000)
    web.answers["/bomb"] = says(bomb, Content_Encoding="gzip")
    for path in ("/announced", "/endless", "/bomb"):
        into = io.BytesIO()
        with pytest.raises(RemoteError, match="larger than 1 MB"):
            fetch(web.url + path, into, max_bytes=1_000_000)
        assert len(into.getvalue()) <= 1_000_000


def _endless(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.end_headers()
    try:
        while True:
            handler.wfile.write(b"x" * 65536)
    except OSError:
        pass


def test_packed_answers(web: Web) -> None:
    text = b"some text " * 100_000
    web.answers["/gzip"] = says(gzip.compress(text), Content_Encoding="gzip")
    web.answers["/deflate"] = says(zlib.compress(text), Content_Encoding="deflate")
    web.answers["/cut"] = says(gzip.compress(text)[:-20], Content_Encoding="gzip")
    web.answers["/damaged"] = says(b"\x1f\x8bnonsense", Content_Encoding="gzip")
    web.answers["/br"] = says(b"x", Content_Encoding="br")
    for path in ("/gzip", "/deflate"):
        assert got(web.url + path)[0] == text
    for path, words in (("/cut", "without an end"), ("/damaged", "damaged"), ("/br", "'br'")):
        with pytest.raises(RemoteError, match=words):
            got(web.url + path)


def test_a_connection_that_breaks_or_sleeps(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "SILENT_SECONDS", 0.2)
    web.answers["/short"] = says(b"half", Content_Length="100")
    with pytest.raises(RemoteError, match="broke"):
        got(f"{web.url}/short")
    web.answers["/asleep"] = lambda _handler: time.sleep(0.6)
    with pytest.raises(RemoteError, match="nothing came"):
        got(f"{web.url}/asleep")

    def drips(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.end_headers()
        try:
            for _ in range(50):
                handler.wfile.write(b"x")
                time.sleep(0.02)
        except OSError:
            pass

    web.answers["/drips"] = drips
    with pytest.raises(RemoteError, match="too slowly"):
        got(f"{web.url}/drips", seconds=0.1)


@pytest.mark.parametrize(
    ("status", "words"),
    [
        *((401, "asks for a user"), (403, "refuses"), (404, "no such file")),
        *((410, "no longer"), (429, "left alone"), (500, "did not give")),
    ],
)
def test_refusals_tell_no_secrets(web: Web, status: int, words: str) -> None:
    web.answers["/x"] = says(b"", status)
    with pytest.raises(RemoteError, match=words) as caught:
        got(web.url.replace("//", "//user:geheim@") + "/x?token=geheim")
    assert f"HTTP {status}" in str(caught.value)
    assert "geheim" not in f"{caught.value} {caught.value.hint}"


def test_nobody_there() -> None:
    with pytest.raises(Unreachable, match=r"cannot reach http://127\.0\.0\.1:9/x: "):
        got("http://user:geheim@127.0.0.1:9/x?sig=geheim")


# --- object stores --------------------------------------------------------------------


@pytest.fixture(scope="module")
def store_url() -> Iterator[str]:
    with objectstore.running() as url:
        yield url


@pytest.fixture
def bucket(store_url: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A client of bucket ``books`` with some objects."""
    for name, value in objectstore.environment(store_url).items():
        monkeypatch.setenv(name, value)
    return objectstore.bucket("books", store_url)


def test_objects_and_listings(bucket: Any) -> None:
    keys = ["a.txt", "deep/b.md", "deep/er/c d+e%20ü.html", "deepest/d.txt"]
    # Some tools leave that for a folder.
    objectstore.put(os.environ["AWS_ENDPOINT_URL"], "books/deep/", b"")
    for key in keys:
        bucket.put(key, key.encode(), attributes={"Content-Type": "text/plain"})
    found = list(list_objects("s3://books/"))
    assert [item.url for item in found] == [f"s3://books/{key}" for key in keys]
    assert [item.bytes for item in found] == [len(key.encode()) for key in keys]
    assert [i.url for i in list_objects("s3://books/deep/")] == [i.url for i in found[1:3]]
    assert list(list_objects("s3://books/none/")) == []
    for item in found:
        data, fetched = got(item.url)
        assert data.decode() == item.url.removeprefix("s3://books/")
        assert fetched.name == item.url.rpartition("/")[2]
        assert (fetched.media_type, fetched.etag) == ("text/plain", item.etag)
        assert fetched.modified == item.modified
        with pytest.raises(NotModified):
            got(item.url, etag=item.etag)


def test_objects_that_cannot_be_had(bucket: Any) -> None:
    bucket.put("big", b"x" * 1001)
    cases: list[tuple[str, type[PgstackError], str]] = [
        ("s3://books/none", RemoteError, "no such object"),
        ("s3://other/none", RemoteError, "no such object"),
        ("s3://books/", UsageError, "names no object"),
        ("s3://", UsageError, "names no server"),
        ("s3://books/big", RemoteError, "larger"),
    ]
    for url, kind, words in cases:
        with pytest.raises(kind, match=words):
            got(url, max_bytes=1000)
    with pytest.raises(UsageError, match="cannot be listed"):
        list(list_objects("https://x/"))


def test_a_store_that_is_not_there(bucket: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(Unreachable, match="s3://books/x") as caught:
        got("s3://books/x")
    assert "AWS_ENDPOINT_URL" in str(caught.value.hint)
    assert "not-a-secret" not in f"{caught.value} {caught.value.hint}"
