"""Apache Tika as the reader, against a server that speaks its documented protocol.

A real one could not be had here: it comes as a Java archive that no registry at hand has.
"""

from __future__ import annotations

import contextlib
import http.server
import threading
import time
from collections.abc import Iterator
from typing import ClassVar

import pytest

from pgstack.extract import Crashed, Extractor, Options, Part, Unreadable

XHTML = """<?xml version="1.0" encoding="UTF-8"?><html xmlns="http://www.w3.org/1999/xhtml">
<head><meta name="dc:title" content="The title"/><meta name="Content-Type"
content="application/pdf; version=1.4"/><title>other</title></head><body>
<div class="page"><h1>One</h1><p>first Größe</p></div>
<div class="page"><p>second</p><h2>Two</h2></div><div class="page"/></body></html>"""


class Tika(http.server.BaseHTTPRequestHandler):
    """PUT /tika: the file goes in, XHTML comes out; its name says what happens."""

    seen: ClassVar[list[tuple[str, dict[str, str], bytes]]] = []

    def do_PUT(self) -> None:
        data = self.rfile.read(int(self.headers["Content-Length"]))
        self.seen.append((self.path, dict(self.headers), data))
        order = data.decode("latin-1").partition(" ")[0]
        body = b""
        status = int(order) if order.isdigit() else 200
        if order == "slow":
            time.sleep(3)
        elif order == "dribble":
            self._dribble()
            return
        elif order == "much":
            body = b"x" * 3_000_000
        elif status == 200:
            body = XHTML.encode()
        with contextlib.suppress(OSError):  # the other side has had enough
            self.send_response(status)
            self.send_header("Content-Type", "text/html; charset=UTF-8")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    def _dribble(self) -> None:
        self.send_response(200)
        self.end_headers()
        with contextlib.suppress(OSError):
            for _ in range(40):
                self.wfile.write(b"x")
                time.sleep(0.1)

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def url() -> Iterator[str]:
    Tika.seen.clear()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Tika)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()
    thread.join()


def read(url: str, data: bytes, name: str = "a.pdf", **limits: float) -> str:
    with Extractor(Options(tika_url=url), output_bytes=1_000_000, **limits) as extractor:  # type: ignore[arg-type]
        return extractor.extract_bytes(data, name=name).text


def test_pages_headings_title_and_type(url: str) -> None:
    with Extractor(Options(tika_url=url + "/")) as extractor:
        document = extractor.extract_bytes(b"%PDF-1.4 x", name="Größe\n.pdf")
    assert document.title == "The title"
    assert document.media_type == "application/pdf"
    assert document.text == "One\n\nfirst Größe\fsecond\n\nTwo\f"
    assert document.parts == (
        Part(0, 17, 1, ("One",)),
        Part(17, 25, 2, ("One",)),
        Part(25, 29, 2, ("One", "Two")),
    )
    path, headers, data = Tika.seen[0]
    assert (path, data) == ("/tika", b"%PDF-1.4 x")
    assert headers["Accept"] == "text/html"
    assert headers["Content-Disposition"] == "attachment; filename*=UTF-8''Gr%C3%B6%C3%9Fe%0A.pdf"
    assert headers["X-Tika-OCRLanguage"] == "eng"


def test_what_we_cannot_read_goes_there_too(url: str) -> None:
    assert "first" in read(url, b"PK\x03\x04 a format of its own", name="a.pages")


@pytest.mark.parametrize(
    ("order", "reason", "again"),
    [
        (b"204 ", "no text", False),
        (b"401 ", "asks for a password", False),
        (b"404 ", "is the address right", False),
        (b"415 ", "does not know the format", False),
        (b"422 ", "protected by a password", False),
        (b"500 ", r"failed on it \(500\)", False),
        (b"503 ", "busy", True),
        (b"much ", "more than 2 MB", False),
    ],
)
def test_errors(url: str, order: bytes, reason: str, again: bool) -> None:
    with pytest.raises(Unreadable, match=reason) as caught:
        read(url, order)
    assert isinstance(caught.value, Crashed) is again


@pytest.mark.parametrize("order", [b"slow ", b"dribble "])
def test_it_may_take_no_longer_than_a_file_may(url: str, order: bytes) -> None:
    with pytest.raises(Crashed, match=r"took more than 0\.5 s"):
        read(url, order, wall_seconds=0.5)


@pytest.mark.parametrize("address", ["http://127.0.0.1:9", "http://user:secret@127.0.0.1:9/x"])
def test_a_server_that_is_not_there(address: str) -> None:
    with pytest.raises(
        Crashed, match=r"the Tika server 127\.0\.0\.1:9 cannot be reached"
    ) as caught:
        read(address, b"x")
    assert "secret" not in str(caught.value)
