"""The real models, through the real server and the official client.

The models are looked for in ``$PGSTACK_TEST_MODELS``, else ``.cache/models`` of the checkout,
where ``make test`` puts them.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

import httpx
import jsonschema
import numpy as np
import ollama
import pytest

from pgstack.embedded.modelserver import engine, is_installed, known
from pgstack.embedded.modelserver.backend import ApiError, Finish, Piece, TextRequest

pytestmark = pytest.mark.models

ROOT = Path(__file__).resolve().parents[2]
MODELS = Path(os.environ.get("PGSTACK_TEST_MODELS", ROOT / ".cache" / "models"))
SMOL = "smollm2:135m"
TEXT = " ".join(topics.values())
CHUNKS = [TEXT[start : start + 800] for start in range(0, 800 * 400, 800)]
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "city": {"type": "string", "maxLength": 20},
        "kind": {"enum": ["town", "village"]},
        "people": {"type": "integer", "minimum": 0, "maximum": 99},
    },
    "required": ["city", "kind", "people"],
    "additionalProperties": False,
}


def require(name: str) -> Path:
    """Return the model's directory, or skip."""
    model = known(name)
    if not is_installed(model, MODELS):
        pytest.skip(f"{name} is not in {MODELS}: see PGSTACK_TEST_MODELS")
    return MODELS / model.folder


@dataclass
class Server:
    url: str
    pid: int
    log: Path

    def cpu_seconds(self) -> float:
        """Return the processor time it has used so far."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def wait_until_idle(self) -> None:
        """Wait until it computes nothing any more."""
        for _ in range(50):
            before = self.cpu_seconds()
            time.sleep(0.3)
            if self.cpu_seconds() - before < 0.05:
                return
        raise AssertionError("the server went on computing for 15 s")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    require("all-minilm")
    folder = tmp_path_factory.mktemp("server")
    url_file = folder / "url"
    options = ["--port=0", f"--models-dir={MODELS}", f"--url-file={url_file}"]
    command = [sys.executable, "-m", "pgstack.embedded.modelserver", *options]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        while not url_file.exists():
            assert process.poll() is None, (folder / "log").read_text()
            time.sleep(0.05)
        yield Server(url_file.read_text().strip(), process.pid, folder / "log")
    finally:
        process.terminate()
        assert process.wait(20) == 0


@pytest.fixture
def client(server: Server) -> Iterator[ollama.Client]:
    with ollama.Client(server.url, timeout=100) as client:
        yield client


# -- embeddings ------------------------------------------------------------------------


def test_a_batch_equals_its_texts_one_by_one(client: ollama.Client) -> None:
    texts = [CHUNKS[n][: 20 + 97 * n % 780] for n in range(24)]
    together = np.array(client.embed("all-minilm", texts).embeddings)
    alone = np.array([client.embed("all-minilm", text).embeddings[0] for text in texts])
    assert together.shape == (24, 384)
    assert np.abs(together - alone).max() < 1e-5
    assert np.allclose(np.linalg.norm(together, axis=1), 1, atol=1e-6)


def test_near_means_alike(client: ollama.Client) -> None:
    texts = [
        "To change a forgotten password, open the sign-in page.",
        "The invoice is due within thirty days.",
        "Whales are mammals that live in the sea.",
    ]
    found = np.array(client.embed("all-minilm", texts).embeddings)
    question = np.array(client.embed("all-minilm", "I cannot log in any more").embeddings[0])
    assert int(np.argmax(found @ question)) == 0


def test_dimensions_and_limits_over_http(client: ollama.Client) -> None:
    full = np.array(client.embed("all-minilm", "hello").embeddings[0])
    short = np.array(client.embed("all-minilm", "hello", dimensions=100).embeddings[0])
    assert np.allclose(short, full[:100] / np.linalg.norm(full[:100]))
    with pytest.raises(ollama.ResponseError, match="exceeds the context length"):
        client.embed("all-minilm", "word " * 300, truncate=False)
    answer = client.embed("all-minilm", ["word " * 300, "a"])
    assert answer.prompt_eval_count == 256 + 3


def test_a_short_question_overtakes_a_long_batch(client: ollama.Client) -> None:
    order: list[str] = []

    def ask(name: str, texts: list[str]) -> None:
        client.embed("all-minilm", texts)
        order.append(name)

    with ThreadPoolExecutor(2) as pool:
        bulk = pool.submit(ask, "bulk", CHUNKS[:100])
        time.sleep(0.1)
        pool.submit(ask, "short", ["what is a closure?"]).result()
        bulk.result()
    assert order == ["short", "bulk"]


def test_a_client_that_leaves_stops_the_embedding(server: Server) -> None:
    body = {"model": "all-minilm", "input": CHUNKS * 20}
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(f"{server.url}/api/embed", json=body, timeout=1)
    server.wait_until_idle()  # 8,000 chunks are minutes of work


# -- text ------------------------------------------------------------------------------


@pytest.mark.parametrize("model", [SMOL, "qwen2.5-coder:0.5b"])
def test_generate_and_chat(client: ollama.Client, model: str) -> None:
    require(model)
    options = {"temperature": 0, "num_predict": 40}
    said = client.generate(model, "What is the capital of France?", options=options)
    assert "Paris" in (said.response or "")
    assert said.done_reason in ("stop", "length")
    assert said.prompt_eval_count and said.eval_count and said.eval_duration
    ask = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello."}]
    assert client.chat(model, ask, options=options).message.content


def test_a_chat_remembers_its_turns(client: ollama.Client) -> None:
    require("qwen2.5-coder:0.5b")
    turns = [
        {"role": "system", "content": "You are a terse assistant."},
        {"role": "user", "content": "My name is Ada."},
        {"role": "assistant", "content": "Hello Ada."},
        {"role": "user", "content": "What is my name?"},
    ]
    options = {"temperature": 0, "num_predict": 20}
    said = client.chat("qwen2.5-coder:0.5b", turns, options=options)
    assert "Ada" in (said.message.content or "")


@pytest.mark.parametrize("model", [SMOL, "qwen2.5-coder:0.5b"])
def test_a_format_is_enforced(client: ollama.Client, model: str) -> None:
    require(model)
    ask = [{"role": "user", "content": "Tell me a long story about a place."}]
    for seed in range(3):
        options = {"seed": seed, "temperature": 1.5}
        said = client.chat(model, ask, format=SCHEMA, options=options)
        assert said.done_reason == "stop"
        jsonschema.validate(json.loads(said.message.content or ""), SCHEMA)
    said_json = client.generate(model, "Describe a cat.", format="json", options={"num_predict": 9})
    assert (said_json.response or "").lstrip()[:1] == "{"


def test_a_format_that_cannot_be_enforced_is_an_error(client: ollama.Client) -> None:
    """The grammar engine lets text run free under such a schema; the server notices."""
    require(SMOL)
    with pytest.raises(ollama.ResponseError, match="does not follow the requested format"):
        client.generate(
            SMOL, "Say hello.", format={"not": {"type": "string"}}, options={"num_predict": 30}
        )


def test_options_are_obeyed(client: ollama.Client) -> None:
    require(SMOL)
    prompt = "Write a story about a cat."
    cut = client.generate(SMOL, prompt, options={"num_predict": 7})
    assert (cut.eval_count, cut.done_reason) == (7, "length")
    seeded = [
        client.generate(SMOL, prompt, options={"seed": 7, "num_predict": 20}).response
        for _ in range(2)
    ]
    assert seeded[0] == seeded[1]
    stopped = client.generate(SMOL, prompt, options={"stop": ["."], "temperature": 0})
    assert "." not in (stopped.response or "")
    raw = client.generate(
        SMOL, "1, 2, 3, 4,", raw=True, options={"num_predict": 4, "temperature": 0}
    )
    assert re.search(r"5", raw.response or "")
    with pytest.raises(ollama.ResponseError, match='"temperature" must be a number'):
        client.generate(SMOL, prompt, options={"temperature": "hot"})
    with pytest.raises(ollama.ResponseError, match='"stop" must be a list of strings'):
        client.generate(SMOL, prompt, options={"stop": [1]})


def test_streamed_and_whole_answers_agree(client: ollama.Client) -> None:
    require(SMOL)
    options = {"temperature": 0, "num_predict": 30}
    ask = [{"role": "user", "content": "Count from one to ten."}]
    pieces = list(client.chat(SMOL, ask, stream=True, options=options))
    whole = client.chat(SMOL, ask, options=options)
    assert "".join(piece.message.content or "" for piece in pieces) == whole.message.content
    assert len(pieces) > 5
    assert [piece.done for piece in pieces].count(True) == 1


def test_a_prompt_longer_than_the_context_needs_num_ctx(monkeypatch: pytest.MonkeyPatch) -> None:
    require(SMOL)
    monkeypatch.setattr(engine, "DEFAULT_CONTEXT", 256)

    async def write(backend: engine.Engine, **options: int) -> Finish:
        request = TextRequest(SMOL, prompt="word " * 400, options={"num_predict": 1, **options})
        *_, last = [piece async for piece in backend.write(request)]
        assert isinstance(last, Finish)
        return last

    async def main() -> None:
        backend = engine.Engine(MODELS)
        with pytest.raises(ApiError, match="exceeds the context length") as caught:
            await write(backend)
        assert caught.value.status == 400
        assert (await write(backend, num_ctx=512)).prompt_tokens > 400
        assert [loaded.context for loaded in backend._loaded] == [512]  # the short one is gone
        assert (await write(backend)).prompt_tokens > 400  # and the long one serves everybody
        await backend.close()

    asyncio.run(main())


def test_a_client_that_leaves_stops_the_writing(server: Server) -> None:
    require(SMOL)
    body = {"model": SMOL, "prompt": "x", "options": {"num_predict": 3500, "stop": []}}
    body = {**body, "format": {"type": "array", "minItems": 1000, "items": {"type": "integer"}}}
    for stream in (True, False):
        with httpx.Client(base_url=server.url, timeout=1) as impatient:
            if stream:
                with impatient.stream("POST", "/api/generate", json=body) as answer:
                    lines = answer.iter_lines()
                    assert [next(lines) for _ in range(5)]
            else:
                with pytest.raises(httpx.ReadTimeout):
                    impatient.post("/api/generate", json={**body, "stream": False})
        server.wait_until_idle()


def test_closing_an_answer_stops_it_at_the_next_token() -> None:
    require(SMOL)

    async def main() -> None:
        backend = engine.Engine(MODELS)
        request = TextRequest(SMOL, prompt="Once upon a time", options={"num_predict": 3000})
        writing = backend.write(request)
        for _ in range(5):
            assert isinstance(await anext(writing), Piece)
        runner = backend._loaded[0].runner
        await writing.aclose()
        async with asyncio.timeout(10):
            while True:
                metrics = (await runner._client.get("/metrics")).text  # type: ignore[union-attr]
                if "llamacpp:requests_processing 0" in metrics:
                    break
                await asyncio.sleep(0.05)
        written = re.search(r"^llamacpp:n_decode_total (\d+)", metrics, re.M)
        assert written is not None
        assert int(written[1]) < 500
        last = [
            piece
            async for piece in backend.write(
                TextRequest(SMOL, prompt="a", options={"num_predict": 2})
            )
        ]
        assert isinstance(last[-1], Finish)
        await backend.close()

    asyncio.run(main())


def test_answers_in_quick_succession(client: ollama.Client) -> None:
    """A request must not go out on a connection that llama.cpp is just closing."""
    require(SMOL)
    options = {"num_predict": 1}
    for _ in range(30):
        assert client.generate(SMOL, "Hello", raw=True, options=options).done_reason == "length"


def test_many_at_once(client: ollama.Client) -> None:
    require(SMOL)

    def ask(n: int) -> str:
        if n % 2:
            return str(len(client.embed("all-minilm", CHUNKS[n]).embeddings[0]))
        return client.generate(SMOL, f"Say {n}", options={"num_predict": 5}).done_reason or ""

    with ThreadPoolExecutor(12) as pool:
        said = list(pool.map(ask, range(24)))
    assert set(said[1::2]) == {"384"}
    assert set(said[::2]) <= {"stop", "length"}


# -- models in memory, and what is written down ----------------------------------------


def test_keep_alive_decides_how_long_a_model_stays(client: ollama.Client) -> None:
    def loaded() -> dict[str | None, Any]:
        return {model.model: model.expires_at for model in client.ps().models}

    client.embed("all-minilm", "x", keep_alive=-1)
    assert loaded()["all-minilm:latest"].year == 9999
    client.embed("all-minilm", "x", keep_alive="2h")
    assert 7000 < loaded()["all-minilm:latest"].timestamp() - time.time() < 7300
    client.embed("all-minilm", "x", keep_alive=0.2)
    for _ in range(100):
        if "all-minilm:latest" not in loaded():
            break
        time.sleep(0.05)
    assert "all-minilm:latest" not in loaded()
    client.embed("all-minilm", "", keep_alive="1h")  # loads without computing
    assert "all-minilm:latest" in loaded()
    client.embed("all-minilm", "", keep_alive=0)
    assert "all-minilm:latest" not in loaded()


def test_show_tells_the_dimension(client: ollama.Client) -> None:
    info = client.show("all-minilm").modelinfo or {}
    assert info["bert.embedding_length"] == 384
    assert "all-minilm:latest" in [model.model for model in client.list().models]


def test_pulling_what_is_there_verifies_it(client: ollama.Client) -> None:
    said = [step.status for step in client.pull("all-minilm", stream=True)]
    assert said[0] == "pulling manifest"
    assert "verifying sha256 digest" in said
    assert said[-1] == "success"


def test_prompts_are_not_logged(client: ollama.Client, server: Server) -> None:
    require(SMOL)
    secret = "xylophone-4711"
    client.embed("all-minilm", secret)
    client.generate(SMOL, secret, options={"num_predict": 2})
    with pytest.raises(ollama.ResponseError):
        client.generate(SMOL, f"{secret} " * 5000, options={"num_ctx": 4096, "num_predict": 1})
    with pytest.raises(ollama.ResponseError):
        client.generate(SMOL, secret, format={"type": secret})
    assert secret not in server.log.read_text()
