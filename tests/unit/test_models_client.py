"""pgstack.models: addresses, checked answers, errors of ours, cancellation."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar

import httpx
import pytest

from pgstack.embedded.modelserver import start_deterministic
from pgstack.errors import (
    BadAnswer,
    Fault,
    ModelNotFound,
    ModelServerError,
    PgstackError,
    Unreachable,
    UsageError,
)
from pgstack.models import BlockingModelServer, ModelServer, normalise_url, resolve_url
from pgstack.vectors import Vector


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with start_deterministic() as url:
        yield url


@pytest.fixture
def url(server: str) -> Iterator[str]:
    """A server without faults, before and after."""
    httpx.delete(f"{server}/_control")
    yield server
    httpx.delete(f"{server}/_control")


def control(url: str, **faults: Any) -> None:
    httpx.post(f"{url}/_control", json=faults).raise_for_status()


def stats(url: str) -> dict[str, Any]:
    return dict(httpx.get(f"{url}/_control/stats").json())


def embed(
    url: str, texts: list[str], *, model: str = "all-minilm", timeout: float = 10, **options: Any
) -> Any:
    async def main() -> Any:
        async with ModelServer(url, timeout=timeout) as server:
            return await server.embed(model, texts, **options)

    return asyncio.run(main())


# -- addresses -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:11434"),
        ("gpu", "http://gpu:11434"),
        ("gpu:8080", "http://gpu:8080"),
        (":8080", "http://127.0.0.1:8080"),
        ("http://gpu", "http://gpu:80"),
        ("https://gpu", "https://gpu:443"),
        ("https://gpu:8443/ollama/", "https://gpu:8443/ollama"),
        ("gpu/ollama", "http://gpu:11434/ollama"),
        ("::1", "http://[::1]:11434"),
        ("[::1]", "http://[::1]:11434"),
        ("[::1]:8080", "http://[::1]:8080"),
        (" gpu ", "http://gpu:11434"),
    ],
)
def test_every_form_of_ollama_host_is_taken(host: str, url: str) -> None:
    assert normalise_url(host) == url
    assert normalise_url(url) == url


@pytest.mark.parametrize("host", ["ftp://gpu", "gpu:port", "gpu:99999", "http://[::1"])
def test_an_address_that_is_none_is_a_usage_error(host: str) -> None:
    with pytest.raises(UsageError, match="is no address of a model server"):
        normalise_url(host)


def test_ollama_host_comes_before_the_embedded_stack(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OLLAMA_HOST", "gpu")
    assert resolve_url() == "http://gpu:11434"


def test_without_ollama_host_and_stack_the_next_command_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    monkeypatch.setenv("OLLAMA_HOST", "")
    monkeypatch.setenv("PGSTACK_HOME", str(tmp_path / "nothing"))
    with pytest.raises(Unreachable) as caught:
        resolve_url()
    assert str(caught.value.hint).startswith("pgstack up")


def test_importing_it_loads_no_http_client() -> None:
    code = "import sys, pgstack.models; print([m for m in ('httpx', 'ollama') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_proxy_is_not_asked_for_this_machine(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    assert len(embed(url, ["a"]).vectors) == 1


# -- answers ---------------------------------------------------------------------------


def test_every_call_gives_plain_values(url: str) -> None:
    async def main() -> dict[str, Any]:
        async with ModelServer(url) as server:
            prompt = {"model": "smollm2:135m", "prompt": "hello", "stream": False}
            turn = {"model": "smollm2:135m", "messages": [{"role": "user", "content": "a b"}]}
            return {
                "generate": await server.generate(prompt),
                "chat": await server.chat(turn),
                "chat_stream": [piece async for piece in server.chat_stream(turn)],
                "list": await server.list(),
                "ps": await server.ps(),
                "show": await server.show("all-minilm"),
                "pull": [step async for step in server.pull("all-minilm")],
                "version": await server.version(),
            }

    answers = asyncio.run(main())
    assert json.loads(json.dumps(answers)) == answers
    assert answers["generate"]["response"] == "hello"
    assert answers["chat"]["message"]["content"] == "a b"
    pieces = [piece["message"]["content"] for piece in answers["chat_stream"]]
    assert pieces == ["a", " b", ""]
    assert answers["list"][0]["name"] == "all-minilm:latest"
    assert answers["ps"][0]["model"] == "all-minilm:latest"
    assert answers["show"]["capabilities"] == ["embedding"]
    assert answers["pull"][-1] == {"status": "success"}


def test_the_blocking_client_says_the_same(url: str) -> None:
    turn = {"model": "smollm2:135m", "messages": [{"role": "user", "content": "a b"}]}
    with BlockingModelServer(url) as server:
        assert server.embed("all-minilm", ["x"]).vectors == embed(url, ["x"]).vectors
        assert server.chat(turn)["message"]["content"] == "a b"
        assert [p["message"]["content"] for p in server.chat_stream(turn)] == ["a", " b", ""]
        assert [m["name"] for m in server.list()] == [m["name"] for m in server.ps()]
        assert server.show("smollm2:135m")["capabilities"] == ["completion"]
        assert [step["status"] for step in server.pull("all-minilm")][-1] == "success"
        assert server.version()
        with pytest.raises(ModelNotFound):
            server.show("nope")


def test_vectors_dimensions_and_tokens(url: str) -> None:
    result = embed(url, ["a b c", "d"])
    assert [len(v) for v in result.vectors] == [384, 384]
    assert result.prompt_tokens == 4
    assert result.packed == [Vector.pack(vector) for vector in result.vectors]
    assert result.seconds > 0
    assert len(embed(url, ["a"], dimensions=64).vectors[0]) == 64
    assert embed(url, []).vectors == []


@pytest.mark.parametrize("at_once", [1, 40])
def test_connections_are_reused(url: str, at_once: int) -> None:
    async def main() -> None:
        async with ModelServer(url) as server:
            pool = server._http._transport._pool  # type: ignore[attr-defined]
            connections = []
            for _ in range(3):
                calls = [server.embed("all-minilm", ["a"]) for _ in range(at_once)]
                await asyncio.gather(*calls)
                connections.append(set(map(id, pool.connections)))
            # All of them are kept: httpx itself would close what is beyond 20.
            assert len(connections[0]) == at_once
            assert connections[2] == connections[0]

    asyncio.run(main())


# -- errors ----------------------------------------------------------------------------


FAILURES = [
    ({"fail_next": 1, "status": 503}, ModelServerError, Fault.SERVER, "HTTP 503"),
    ({"fail_next": 1, "status": 429}, ModelServerError, Fault.BUSY, "HTTP 429"),
    ({"fail_next": 1, "status": 408}, ModelServerError, Fault.SERVER, "HTTP 408"),
    ({"fail_next": 1, "status": 425}, ModelServerError, Fault.BUSY, "HTTP 425"),
    ({"fail_next": 1, "status": 502}, ModelServerError, Fault.UNCLEAR, "HTTP 502"),
    ({"fail_next": 1, "status": 504}, ModelServerError, Fault.UNCLEAR, "HTTP 504"),
    ({"fail_next": 1, "status": 500}, ModelServerError, Fault.UNCLEAR, "HTTP 500"),
    ({"fail_next": 1, "status": 418}, ModelServerError, Fault.INPUT, "HTTP 418"),
    ({"fail_next": 1, "status": 400}, ModelServerError, Fault.INPUT, "HTTP 400"),
    ({"fail_next": 1, "status": 413}, ModelServerError, Fault.INPUT, "HTTP 413"),
    ({"fail_next": 1, "status": 401}, ModelServerError, Fault.SETUP, "HTTP 401"),
    ({"fail_next": 1, "status": 404}, ModelServerError, Fault.SETUP, "HTTP 404"),
    ({"fail_next": 1, "status": 501}, ModelServerError, Fault.SETUP, "HTTP 501"),
    ({"fail_if_contains": "b"}, ModelServerError, Fault.INPUT, "refused"),
    ({"nan": 1}, BadAnswer, Fault.UNCLEAR, "not finite"),
    ({"drop_one": 1}, BadAnswer, Fault.UNCLEAR, "1 vectors for 2 texts"),
    ({"truncate_body": 1}, BadAnswer, Fault.UNCLEAR, "not Ollama's JSON"),
    ({"html": 1}, BadAnswer, Fault.UNCLEAR, "not Ollama's JSON"),
    ({"reset": 1}, ModelServerError, Fault.UNCLEAR, "broke"),
    ({"hang": 1}, ModelServerError, Fault.UNCLEAR, "did not answer within 0.3 s"),
]


@pytest.mark.parametrize(("faults", "kind", "fault", "message"), FAILURES)
def test_a_failure_is_an_error_of_ours_that_says_whose_fault_it_is(
    url: str, faults: dict[str, Any], kind: type[PgstackError], fault: Fault, message: str
) -> None:
    control(url, **faults)
    with pytest.raises(kind, match=message) as caught:
        embed(url, ["a", "b"], timeout=0.3)
    assert caught.value.fault is fault
    assert caught.value.retry_after is None
    control(url, fail_if_contains="")
    assert len(embed(url, ["a", "b"]).vectors) == 2  # it was that request alone


class Canned(BaseHTTPRequestHandler):
    """Answers every request alike: with the class's status, headers and body."""

    status = 200
    sent: ClassVar[dict[str, str]] = {}
    body = b""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(self.status)
        for name, value in self.sent.items():
            self.send_header(name, value)
        self.send_header("content-length", str(len(self.body)))
        self.end_headers()
        self.wfile.write(self.body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def canned(status: int, body: bytes, **headers: str) -> Iterator[str]:
    """A server that always answers this; gives its URL."""
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    handler = type("Handler", (Canned,), {"status": status, "body": body, "sent": sent})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def embed_answer(*vectors: str) -> bytes:
    return f'{{"model": "m", "embeddings": [{", ".join(vectors)}]}}'.encode()


@pytest.mark.parametrize(
    ("status", "body", "kind", "fault", "message"),
    [
        (200, embed_answer("[1, 2]", "[3]"), BadAnswer, Fault.UNCLEAR, "of lengths [1, 2]"),
        (200, embed_answer("[]", "[]"), BadAnswer, Fault.UNCLEAR, "of lengths [0]"),
        (200, embed_answer("[1e39]", "[1]"), BadAnswer, Fault.UNCLEAR, "not finite"),
        (200, embed_answer("[null]", "[1]"), BadAnswer, Fault.UNCLEAR, "not Ollama's JSON"),
        (200, embed_answer("[1]", "7"), BadAnswer, Fault.UNCLEAR, "not Ollama's JSON"),
        (200, b"[]", BadAnswer, Fault.UNCLEAR, "not Ollama's JSON"),
        (200, b"", BadAnswer, Fault.UNCLEAR, "not Ollama's JSON"),
        (502, b"<html>...", ModelServerError, Fault.UNCLEAR, "a web page (HTTP 502)"),
        (500, b"", ModelServerError, Fault.UNCLEAR, "no reason given (HTTP 500)"),
        (500, b'["not an object"]', ModelServerError, Fault.UNCLEAR, "not an object"),
        (400, b'{"error": 7}', ModelServerError, Fault.INPUT, "said: 7 (HTTP 400)"),
        (404, b'{"error": "model "}', ModelNotFound, Fault.SETUP, "no model 'm'"),
        (404, b"404 page not found", ModelServerError, Fault.SETUP, "404 page not found"),
        (403, b"Forbidden", ModelServerError, Fault.SETUP, "Forbidden (HTTP 403)"),
        (
            400,
            b'{"error": "this model does not support embeddings"}',
            ModelServerError,
            Fault.SETUP,
            "does not support embeddings",
        ),
    ],
)
def test_an_answer_that_no_ollama_should_give(
    status: int, body: bytes, kind: type[PgstackError], fault: Fault, message: str
) -> None:
    with canned(status, body) as url, pytest.raises(kind, match=re.escape(message)) as caught:
        embed(url, ["a", "b"], model="m")
    assert caught.value.fault is fault


@pytest.mark.parametrize(
    ("header", "least", "most"),
    [
        ("7", 7, 7),
        ("1.5", 1.5, 1.5),
        ("0", 0, 0),
        ("-3", 0, 0),
        (timedelta(hours=1), 3500, 3600),
        (timedelta(hours=-1), 0, 0),
    ],
    ids=["7", "1.5", "0", "-3", "in an hour", "an hour ago"],
)
@pytest.mark.parametrize("call", ["embed", "chat"])
def test_how_long_the_server_asks_to_be_left_alone(
    call: str, header: str | timedelta, least: float, most: float
) -> None:
    if isinstance(header, timedelta):  # from now, not from when tests were collected
        header = format_datetime(datetime.now(UTC) + header, usegmt=True)

    def ask(server: BlockingModelServer) -> object:
        if call == "embed":
            return server.embed("m", ["a"])
        return server.chat({"model": "m", "messages": []})

    with (
        canned(503, b"busy", retry_after=header) as url,
        BlockingModelServer(url) as server,
        pytest.raises(ModelServerError, match="busy") as caught,
    ):
        ask(server)
    assert caught.value.fault is Fault.SERVER
    assert caught.value.retry_after is not None
    assert least <= caught.value.retry_after <= most


@pytest.mark.parametrize("header", ["soon", "", "nan", "inf"])
def test_a_time_that_is_none_is_ignored(header: str) -> None:
    with (
        canned(429, b"busy", retry_after=header) as url,
        pytest.raises(ModelServerError) as caught,
    ):
        embed(url, ["a"])
    assert caught.value.retry_after is None


def test_a_server_that_does_not_take_the_connection() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(ModelServerError, match="cannot reach") as caught:
        embed(f"http://127.0.0.1:{port}", ["a"])
    assert caught.value.fault is Fault.SERVER
    assert caught.value.exit_code == 3
    assert "pgstack up" in str(caught.value.hint)


def test_a_missing_model_names_the_command_that_pulls_it(url: str) -> None:
    async def main() -> None:
        async with ModelServer(url) as server:
            await server.embed("nope", ["a"])

    with pytest.raises(ModelNotFound, match="no model 'nope'") as caught:
        asyncio.run(main())
    assert caught.value.hint == "pgstack model pull nope"
    assert caught.value.fault is Fault.SETUP


def test_a_model_that_cannot_be_pulled(url: str) -> None:
    with BlockingModelServer(url) as server, pytest.raises(ModelNotFound, match="no model 'nope'"):
        list(server.pull("nope"))


def test_a_field_or_option_that_makes_no_sense_is_a_usage_error(url: str) -> None:
    async def main(payload: dict[str, Any]) -> None:
        async with ModelServer(url) as server:
            await server.generate(payload)

    with pytest.raises(UsageError, match="no field 'promt'") as caught:
        asyncio.run(main({"model": "smollm2:135m", "promt": "x"}))
    assert caught.value.fault is Fault.SETUP
    with pytest.raises(UsageError, match=r"request's format.* is wrong"):
        asyncio.run(main({"model": "smollm2:135m", "format": 7}))


# -- cancellation ----------------------------------------------------------------------


def test_cancelling_the_task_ends_the_request_at_the_server(url: str) -> None:
    async def main() -> None:
        async with ModelServer(url) as server, httpx.AsyncClient(base_url=url) as watch:
            await watch.post("/_control", json={"hang": True})
            task = asyncio.create_task(server.embed("all-minilm", ["a"]))
            while (await watch.get("/_control/stats")).json()["concurrent"] == 0:
                await asyncio.sleep(0.01)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            while (await watch.get("/_control/stats")).json()["concurrent"]:
                await asyncio.sleep(0.01)

    _within(10, main())
    assert stats(url)["cancelled"] == 1


def _within(seconds: float, work: Coroutine[Any, Any, None]) -> None:
    async def limited() -> None:
        async with asyncio.timeout(seconds):
            await work

    asyncio.run(limited())
