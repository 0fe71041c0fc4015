"""pgstack.models: addresses, checked answers, errors of ours, cancellation."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Coroutine, Iterator
from typing import Any

import httpx
import pytest

from pgstack.embedded.modelserver import start_deterministic
from pgstack.errors import (
    BadAnswer,
    ModelNotFound,
    ModelServerError,
    PgstackError,
    Unreachable,
    UsageError,
)
from pgstack.models import BlockingModelServer, ModelServer, normalise_url, resolve_url


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


def embed(url: str, texts: list[str], *, timeout: float = 10, **options: Any) -> Any:
    async def main() -> Any:
        async with ModelServer(url, timeout=timeout) as server:
            return await server.embed("all-minilm", texts, **options)

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
    assert result.seconds > 0
    assert len(embed(url, ["a"], dimensions=64).vectors[0]) == 64
    assert embed(url, []).vectors == []


def test_connections_are_reused(url: str) -> None:
    async def main() -> None:
        async with ModelServer(url) as server:
            for _ in range(3):
                await server.embed("all-minilm", ["a"])
            pool = server._ollama._client._transport._pool
            assert len(pool.connections) == 1

    asyncio.run(main())


# -- errors ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("faults", "kind", "retryable", "message"),
    [
        ({"fail_next": 1, "status": 503}, ModelServerError, True, "HTTP 503"),
        ({"fail_next": 1, "status": 500}, ModelServerError, True, "HTTP 500"),
        ({"fail_next": 1, "status": 429}, ModelServerError, True, "HTTP 429"),
        ({"fail_next": 1, "status": 400}, ModelServerError, False, "HTTP 400"),
        ({"fail_next": 1, "status": 501}, ModelServerError, False, "HTTP 501"),
        ({"nan": 1}, BadAnswer, False, "not finite"),
        ({"drop_one": 1}, BadAnswer, False, "1 vectors for 2 texts"),
        ({"truncate_body": 1}, BadAnswer, True, "not Ollama's JSON"),
        ({"html": 1}, BadAnswer, True, "not Ollama's JSON"),
        ({"reset": 1}, ModelServerError, True, "broke"),
        ({"hang": 1}, ModelServerError, True, "did not answer within 0.3 s"),
        ({"fail_if_contains": "b"}, ModelServerError, False, "refused"),
    ],
)
def test_a_failure_is_an_error_of_ours(
    url: str, faults: dict[str, Any], kind: type[PgstackError], retryable: bool, message: str
) -> None:
    control(url, **faults)
    with pytest.raises(kind, match=message) as caught:
        embed(url, ["a", "b"], timeout=0.3)
    assert caught.value.retryable is retryable
    control(url, fail_if_contains="")
    assert len(embed(url, ["a", "b"]).vectors) == 2  # it was that request alone


def test_a_web_page_as_an_error_is_not_repeated() -> None:
    from pgstack.models import _refused

    assert "a web page (HTTP 502)" in str(_refused(502, "<html>...", "http://x", "m"))


def test_a_missing_model_names_the_command_that_pulls_it(url: str) -> None:
    async def main() -> None:
        async with ModelServer(url) as server:
            await server.embed("nope", ["a"])

    with pytest.raises(ModelNotFound, match="no model 'nope'") as caught:
        asyncio.run(main())
    assert caught.value.hint == "pgstack model pull nope"
    assert not caught.value.retryable


def test_a_model_that_cannot_be_pulled(url: str) -> None:
    with BlockingModelServer(url) as server, pytest.raises(ModelNotFound, match="no model 'nope'"):
        list(server.pull("nope"))


def test_nobody_there_is_said_with_the_next_command() -> None:
    with pytest.raises(ModelServerError, match="cannot reach the model server") as caught:
        embed("http://127.0.0.1:1", ["a"])
    assert caught.value.retryable
    assert caught.value.exit_code == 3
    assert "pgstack up" in str(caught.value.hint)


def test_a_field_or_option_that_makes_no_sense_is_a_usage_error(url: str) -> None:
    async def main(payload: dict[str, Any]) -> None:
        async with ModelServer(url) as server:
            await server.generate(payload)

    with pytest.raises(UsageError, match="no field 'promt'"):
        asyncio.run(main({"model": "smollm2:135m", "promt": "x"}))
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
