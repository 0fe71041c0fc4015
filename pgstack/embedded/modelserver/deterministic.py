"""A model server for tests: same API, no models, answers that can be predicted.

Vectors
    ``words`` (default): the sum of one fixed direction per word, plus a small part of the
    whole text's own, so texts that share words are near each other and only identical texts
    are identical.  ``hash``: the direction of the whole text alone.
Text
    A prompt with numbered sources (lines that begin with ``[1]``) is answered with the first
    sentence of the first source and ``[1]``; a ``format`` schema with its smallest instance,
    or, if it has the properties answer and sources, with that sentence and [1];
    anything else with an echo of the last message.  One piece a word; ``num_predict`` counts
    words.
Faults
    ``POST /_control`` with any of the fields of :class:`Faults` changes just those;
    ``DELETE /_control`` clears faults and statistics; ``GET /_control/stats`` reports
    :class:`Stats`.  A fault is ``true`` (until cleared) or a number of requests.

Everything depends on the text alone, through SHAKE-256: the same on every machine and run.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import re
from collections import Counter
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pgstack.embedded.modelserver.backend import (
    ApiError,
    Description,
    Embeddings,
    Finish,
    Piece,
    Running,
    TextRequest,
    not_found,
)
from pgstack.embedded.modelserver.catalogue import full_name
from pgstack.embedded.modelserver.deterministic_vectors import Mode, vectors

_STARTED = datetime.now(UTC)
_MODEL_CALLS = frozenset({"/api/embed", "/api/embeddings", "/api/generate", "/api/chat"})
_SPOILS = ("html", "truncate_body", "reset", "nan")
_MAX_WORDS = 256
_PER_TEXT_LIMIT = 10_000


@dataclass
class Faults:
    """What goes wrong on purpose.  Durations in milliseconds."""

    latency_ms: float = 0
    fail_next: int = 0
    """Fail that many requests with ``status``; -1: all."""
    status: int = 503
    retry_after: float = 0
    """Seconds that a failure with ``status`` asks the client to wait (``Retry-After``)."""
    fail_if_contains: str = ""
    """Fail with ``fail_if_status`` every embedding request one of whose texts contains this."""
    fail_if_status: int = 400
    fail_if_message: str = "the input was refused"
    hang_if_contains: str = ""
    """Never answer an embedding request one of whose texts contains this."""
    crash_if_contains: str = ""
    """End the server's process at such a request."""
    slow_if_contains: str = ""
    """Wait ``slow_ms`` at such a request."""
    slow_ms: float = 1000
    wrong_dims: int = 0
    """Answer vectors of that length."""
    nan: bool | int = False
    """Answer a first number that is none."""
    drop_one: bool | int = False
    """Answer one vector too few."""
    truncate_body: bool | int = False
    """Answer half of the JSON, as if complete."""
    html: bool | int = False
    """Answer a web page with status 200."""
    hang: bool | int = False
    """Never answer."""
    reset: bool | int = False
    """Cut the connection in the middle of the answer."""
    trickle_ms: float = 0
    """Send answers in eight pieces, with a pause of this length before each."""
    says: str = ""
    """Write this, whatever was asked."""

    def take(self, name: str) -> bool:
        """Return whether this request suffers the fault, counting it down."""
        left = getattr(self, name)
        if isinstance(left, int) and not isinstance(left, bool) and left > 0:
            setattr(self, name, left - 1)
        return bool(left)


@dataclass
class Stats:
    """What the server has been asked."""

    calls: Counter[str] = field(default_factory=Counter)
    """Requests begun, by path."""
    texts: int = 0
    """Texts embedded."""
    per_text: Counter[str] = field(default_factory=Counter)
    """How often each text was embedded: the first 10,000 different ones."""
    prompts: list[str] = field(default_factory=list)
    """What generation was asked: the last 100 prompts."""
    models: Counter[str] = field(default_factory=Counter)
    concurrent: int = 0
    concurrent_max: int = 0
    cancelled: int = 0
    """Requests whose client went away before the answer."""


def instance(schema: dict[str, Any] | bool, root: dict[str, Any] | None = None) -> Any:
    """Return the smallest value that follows a JSON schema of the usual keywords."""
    if isinstance(schema, bool):
        return None
    root = schema if root is None else root
    if "$ref" in schema:
        return instance(_resolve(root, schema["$ref"]), root)
    if "const" in schema:
        return schema["const"]
    if "enum" in schema:
        return schema["enum"][0]
    for choice in ("anyOf", "oneOf", "allOf"):
        if choice in schema:
            return instance(schema[choice][0], root)
    kind = schema.get("type", "object" if "properties" in schema else "null")
    return _smallest(kind[0] if isinstance(kind, list) else kind, schema, root)


def _resolve(root: dict[str, Any], ref: str) -> dict[str, Any]:
    """Follow a ``#/a/b`` reference."""
    target: Any = root
    for part in ref.removeprefix("#/").split("/"):
        target = target[part]
    return dict(target)


def _smallest(kind: str, schema: dict[str, Any], root: dict[str, Any]) -> Any:  # noqa: PLR0911
    """Return the smallest value of one JSON type under the schema's limits."""
    match kind:
        case "object":
            wanted = schema.get("required", [])
            properties = schema.get("properties", {})
            return {name: instance(properties.get(name, True), root) for name in wanted}
        case "array":
            return [instance(schema.get("items", True), root)] * schema.get("minItems", 0)
        case "string":
            return "x" * schema.get("minLength", 0)
        case "integer":
            return int(schema.get("minimum", 0))
        case "number":
            return float(schema.get("minimum", 0))
        case "boolean":
            return False
        case _:
            return None


def answer(prompt: str) -> str:
    """Return the answer to a prompt: the first numbered source's first sentence, or an echo."""
    source = re.search(r"^\s*\[1\]\s*(.+?)(?=^\s*\[\d+\]|\n\s*\n|\Z)", prompt, re.S | re.M)
    if source is None:
        return prompt
    body = " ".join(source[1].split())
    sentence = re.match(r".+?[.!?](?=\s|$)", body)
    return f"{sentence[0] if sentence else body} [1]"


def structured(schema: dict[str, Any], prompt: str) -> Any:
    """Return a value that follows a schema; one of an answer and its sources says something."""
    value = instance(schema)
    if isinstance(value, dict) and value.keys() == {"answer", "sources"}:
        text = answer(prompt)
        found = text.endswith(" [1]")
        return {"answer": text.removesuffix(" [1]"), "sources": [1] if found else []}
    return value


def _description(name: str, dimensions: int, capability: str) -> Description:
    return Description(
        name=name,
        digest=hashlib.sha256(name.encode()).hexdigest(),
        size=1_000_000,
        family="deterministic",
        format="none",
        parameter_size="0",
        quantization="none",
        context_length=_MAX_WORDS,
        capabilities=(capability,),
        modified_at=_STARTED,
        info={
            "general.architecture": "deterministic",
            "deterministic.embedding_length": dimensions,
            "deterministic.context_length": _MAX_WORDS,
        },
    )


class Deterministic:
    """The backend; see the module's text."""

    def __init__(
        self, *, dimensions: int = 384, mode: Mode = "words", latency_ms: float = 0
    ) -> None:
        self.faults = Faults(latency_ms=latency_ms)
        self.stats = Stats()
        self._mode: Mode = mode
        self._dimensions = {"all-minilm:latest": dimensions, "deterministic:768": 768}
        self._models = {
            **{name: _description(name, n, "embedding") for name, n in self._dimensions.items()},
            "smollm2:135m": _description("smollm2:135m", 576, "completion"),
            "qwen2.5-coder:0.5b": _description("qwen2.5-coder:0.5b", 896, "completion"),
        }

    def installed(self) -> list[Description]:
        """Return every model."""
        return list(self._models.values())

    def describe(self, name: str) -> Description:
        """Return one model, or raise 404."""
        model = self._models.get(full_name(name))
        if model is None:
            raise not_found(name)
        return model

    def running(self) -> list[Running]:
        """Return every model: all are always loaded."""
        return [Running(model, model.size, None) for model in self._models.values()]

    async def load(self, name: str, keep_alive: float | None) -> None:
        """Do nothing: there is nothing to load."""

    async def embed(
        self, name: str, texts: list[str], *, truncate: bool, keep_alive: float | None
    ) -> Embeddings:
        """Return one vector a text, or whatever the faults ask for."""
        model = self.describe(name)
        await self._hinder()
        self._count(model.name, texts)
        await self._choke(texts)
        tokens = [len(text.split()) for text in texts]
        if not truncate and max(tokens) > _MAX_WORDS:
            raise ApiError(400, "the input length exceeds the context length")
        dimensions = self.faults.wrong_dims or self._dimensions[model.name]
        answer = vectors(texts, dimensions, self._mode)
        if self.faults.take("drop_one"):
            answer = answer[:-1]
        return Embeddings(answer, sum(min(n, _MAX_WORDS) for n in tokens), 0)

    async def _hinder(self) -> None:
        """Fail or wait before a model call, as the faults ask."""
        if self.faults.take("hang"):
            await asyncio.get_running_loop().create_future()
        await asyncio.sleep(self.faults.latency_ms / 1000)
        if self.faults.take("fail_next"):
            raise ApiError(self.faults.status, "failed on request")

    async def _choke(self, texts: Sequence[str]) -> None:
        """Fail, hang, end or wait when a text contains what the faults name."""
        faults = self.faults

        def unwanted(part: str) -> bool:
            return bool(part) and any(part in text for text in texts)

        if unwanted(faults.crash_if_contains):
            os._exit(70)
        if unwanted(faults.hang_if_contains):
            await asyncio.get_running_loop().create_future()
        if unwanted(faults.slow_if_contains):
            await asyncio.sleep(faults.slow_ms / 1000)
        if unwanted(faults.fail_if_contains):
            raise ApiError(faults.fail_if_status, faults.fail_if_message)

    def _count(self, model: str, texts: Sequence[str]) -> None:
        self.stats.models[model] += 1
        self.stats.texts += len(texts)
        for text in texts:
            if text in self.stats.per_text or len(self.stats.per_text) < _PER_TEXT_LIMIT:
                self.stats.per_text[text] += 1

    async def write(self, request: TextRequest) -> AsyncGenerator[Piece | Finish]:
        """Write the predictable answer, a word at a time."""
        model = self.describe(request.model)
        await self._hinder()
        self.stats.models[model.name] += 1
        prompts = [str(message["content"]) for message in request.messages]
        prompt = request.prompt if request.prompt is not None else prompts[-1]
        self.stats.prompts[:] = [*self.stats.prompts[-99:], "\n".join([*prompts, prompt])]
        if self.faults.says:
            text = self.faults.says
        elif request.schema is not None:
            text = json.dumps(structured(request.schema, prompt))
        else:
            text = answer(prompt)
        pieces = re.findall(r"\s*\S+", text)
        limit = request.options.get("num_predict", -1)
        cut = pieces[:limit] if limit >= 0 else pieces
        for piece in cut:
            yield Piece(piece)
            await asyncio.sleep(0)
        asked = sum(len(p.split()) for p in [*prompts, request.prompt or ""])
        reason = "length" if len(cut) < len(pieces) else "stop"
        yield Finish(reason, prompt_tokens=asked, tokens=len(cut))

    async def pull(self, name: str) -> AsyncGenerator[dict[str, Any]]:
        """Pretend to download."""
        if full_name(name) not in self._models:
            raise ApiError(500, "pull model manifest: file does not exist")
        model = self.describe(name)
        digest = f"sha256:{model.digest}"
        for done in (0, model.size // 2, model.size):
            status = {"status": f"pulling {model.digest[:12]}", "digest": digest}
            yield {**status, "total": model.size, "completed": done}
        yield {"status": "verifying sha256 digest"}
        yield {"status": "writing manifest"}

    async def delete(self, name: str) -> None:
        """Forget a model until the server ends."""
        del self._models[self.describe(name).name]

    async def close(self) -> None:
        """Do nothing: there is nothing to free."""

    # -- control -----------------------------------------------------------------------

    def control_routes(self) -> list[Route]:
        """Return the routes under ``/_control``."""
        return [
            Route("/_control", self._control, methods=["GET", "POST"]),
            Route("/_control", self._clear, methods=["DELETE"]),
            Route("/_control/stats", self._report, methods=["GET"]),
        ]

    async def _control(self, request: Request) -> Response:
        """Change the faults that are named, answer all of them."""
        wanted = await request.json() if request.method == "POST" else {}
        unknown = set(wanted) - {f.name for f in fields(Faults)}
        if unknown:
            raise ApiError(400, f"unknown faults: {', '.join(sorted(unknown))}")
        for name, value in wanted.items():
            setattr(self.faults, name, value)
        return JSONResponse(asdict(self.faults))

    async def _clear(self, _request: Request) -> Response:
        # In place: requests under way hold on to these objects.
        now = self.stats.concurrent
        self.faults.__init__()  # type: ignore[misc]
        self.stats.__init__()  # type: ignore[misc]
        self.stats.concurrent = now
        return Response(status_code=204)

    async def _report(self, _request: Request) -> Response:
        return JSONResponse({**vars(self.stats), "total_calls": self.stats.calls.total()})


class FaultyTransport:
    """ASGI middleware: counts the model calls, and spoils their answers as the faults ask."""

    def __init__(self, app: ASGIApp, backend: Deterministic) -> None:
        self._app = app
        self._backend = backend

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http" or scope["path"] not in _MODEL_CALLS:
            await self._app(scope, receive, send)
            return
        faults = self._backend.faults
        kind = next((name for name in _SPOILS if faults.take(name)), "")
        collected: list[Message] = []

        async def through(message: Message) -> None:
            collected.append(message)
            self._ask_to_wait(message)
            if not kind:
                await _send_slowly(message, send, faults.trickle_ms / 1000)

        with self._counted(scope["path"], collected):
            await self._app(scope, receive, through)
            if kind:
                await _send_spoiled(kind, collected, send)

    def _ask_to_wait(self, message: Message) -> None:
        """Put ``Retry-After`` on a failure that was asked for."""
        faults = self._backend.faults
        if faults.retry_after and message.get("status") == faults.status:
            message["headers"].append((b"retry-after", f"{faults.retry_after:g}".encode()))

    @contextmanager
    def _counted(self, path: str, answer: list[Message]) -> Iterator[None]:
        """Keep the statistics of one request; what never finished was cancelled."""
        stats = self._backend.stats
        stats.calls[path] += 1
        stats.concurrent += 1
        stats.concurrent_max = max(stats.concurrent_max, stats.concurrent)
        try:
            yield
        finally:
            stats.concurrent -= 1
            finished = bool(answer) and not answer[-1].get("more_body", False)
            stats.cancelled += not finished or answer[0].get("status") == 499


async def _send_slowly(message: Message, send: Send, pause: float) -> None:
    """Send a message; with a pause, a body goes in eight pieces."""
    body = message.get("body", b"")
    if not pause or not body:
        await send(message)
        return
    size = -(-len(body) // 8)
    for start in range(0, len(body), size):
        await asyncio.sleep(pause)
        last = start + size >= len(body)
        more = message.get("more_body", False) or not last
        await send({**message, "body": body[start : start + size], "more_body": more})


async def _send_spoiled(kind: str, answer: list[Message], send: Send) -> None:
    """Send a whole answer in a damaged form."""
    body = b"".join(message.get("body", b"") for message in answer)
    if kind == "html":
        await Response("<html><body>502 Bad Gateway</body></html>", media_type="text/html")(
            {"type": "http"}, _never, send
        )
        return
    if kind == "nan":
        sent = re.sub(rb"\[([-\d.e]+)", b"[NaN", body, count=1)
    else:
        sent = body[: len(body) // 2]
    # "reset" promises the whole length and stops: uvicorn then cuts the connection.
    length = len(body) if kind == "reset" else len(sent)
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % length)]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": sent, "more_body": kind == "reset"})


async def _never() -> Message:
    """Stand in for a receive channel that nobody reads."""
    raise NotImplementedError
