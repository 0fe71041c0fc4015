"""The client of the model server: the one module that talks HTTP, but for :mod:`pgstack.remote`.

It is a thin layer over the official ``ollama`` package, for a real Ollama and for the embedded
server alike.  What it adds: answers are checked before anybody stores them, and every failure
is one of ours.

Data in and out
    texts      list of str; any number, in one HTTP request
    vectors    list of list of float, one a text, all finite, all of one length
    packed     the same as PostgreSQL takes them in binary: list of :class:`pgstack.vectors.Vector`
    payload    the body of Ollama's ``/api/generate`` or ``/api/chat``, without ``stream``
    seconds    float, wall time of the call
    answers    Ollama's own JSON objects, as dicts of plain values

Raises
    ModelNotFound      the server does not have the model
    BadAnswer          an answer that cannot be used: not JSON, wrong number of vectors, not finite
    ModelServerError   anything else that the server or the way to it did wrong
    UsageError         an address, field or option that makes no sense
``exc.fault`` says whose fault it is (:class:`pgstack.errors.Fault`), never None; and
``exc.retry_after`` how long the server asks to be left alone, in seconds, or None.

Cancelling the task of an async call closes its connection, which stops the model.
Connections are kept and reused until the client is closed.  Importing this is cheap.
"""

from __future__ import annotations

import inspect
import ipaddress
import os
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlsplit

from pgstack.errors import BadAnswer, PgstackError, Unreachable, UsageError
from pgstack.model_errors import bad_address, ours
from pgstack.vectors import Vector

if TYPE_CHECKING:
    import asyncio

    import httpx
    import ollama

DEFAULT_PORT = 11434
CONNECT_SECONDS = 5.0
ANSWER_SECONDS = 300.0
KEEP_ALIVE_SECONDS = 30.0  # shorter than servers do, or they would close as we send

type Json = dict[str, Any]
type Models = list[Json]
type EmbedAnswer = httpx.Response


@dataclass(frozen=True)
class EmbedResult:
    """What :meth:`ModelServer.embed` returns; see the module's text for the units."""

    vectors: list[list[float]]
    packed: list[Vector]
    prompt_tokens: int
    seconds: float


# -- where the server is ---------------------------------------------------------------


def resolve_url() -> str:
    """Return the model server's base URL: ``$OLLAMA_HOST``, else the running embedded stack's.

    Raises Unreachable when there is neither.
    """
    host = os.environ.get("OLLAMA_HOST", "").strip()
    if host:
        return normalise_url(host)
    # Late: the embedded stack is an extra, and slow to import.
    from pgstack.embedded.home import default_home
    from pgstack.embedded.stack import model_server_url

    url = model_server_url(default_home())
    if url is None:
        raise Unreachable(
            "no model server is running",
            hint="pgstack up   # or set OLLAMA_HOST to the address of an Ollama",
        )
    return normalise_url(url)


def normalise_url(host: str) -> str:
    """Return a base URL for any of Ollama's forms: ``host``, ``host:port``, ``http://...``.

    Without a scheme the port defaults to 11434; with one, to the scheme's own.
    """
    bare = host.strip().rstrip("/")
    if bare.count(":") > 1 and "[" not in bare and "://" not in bare:
        bare = f"[{bare}]"  # an IPv6 address
    try:
        parts = urlsplit(bare if "://" in bare else f"http://{bare}")
        port = parts.port
    except ValueError:
        raise bad_address(host) from None
    if parts.scheme not in ("http", "https"):
        raise bad_address(host)
    if port is None:
        port = DEFAULT_PORT if "://" not in bare else {"http": 80, "https": 443}[parts.scheme]
    name = parts.hostname or "127.0.0.1"
    name = f"[{name}]" if ":" in name else name
    return f"{parts.scheme}://{name}:{port}{parts.path}"


def is_loopback(url: str) -> bool:
    """Tell whether a URL is of this machine."""
    name = urlsplit(url).hostname or ""
    try:
        return name == "localhost" or ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


# -- the client ------------------------------------------------------------------------


class _Client:
    """What the async and the blocking client share."""

    def __init__(self, url: str, *, timeout: float = ANSWER_SECONDS) -> None:
        """Remember the address; nothing is sent yet.

        ``timeout``: seconds without a byte from the server after which a call fails.
        """
        self.url = normalise_url(url)
        self.timeout = timeout

    def _options(self) -> dict[str, Any]:
        """Return the options of the HTTP client underneath."""
        import httpx

        return {
            "timeout": httpx.Timeout(self.timeout, connect=CONNECT_SECONDS),
            # How many calls go out at a time is the caller's business: none waits here.
            "limits": httpx.Limits(
                max_connections=None,
                max_keepalive_connections=None,
                keepalive_expiry=KEEP_ALIVE_SECONDS,
            ),
            # A proxy of the environment is for the world outside, never for this machine.
            "trust_env": not is_loopback(self.url),
        }

    @contextmanager
    def _translated(self, model: str = "") -> Iterator[None]:
        """Turn whatever goes wrong into an error of ours."""
        try:
            yield
        except PgstackError:
            raise
        except Exception as exc:
            raise ours(exc, self.url, model, self.timeout) from exc


class ModelServer(_Client):
    """The async client, for the worker.  Use it as an async context manager, or close it."""

    def __init__(self, url: str, *, timeout: float = ANSWER_SECONDS) -> None:
        super().__init__(url, timeout=timeout)
        import httpx

        key = os.environ.get("OLLAMA_API_KEY")
        self._http = httpx.AsyncClient(
            base_url=self.url,
            follow_redirects=True,
            headers={"Content-Type": "application/json"}
            | ({"Authorization": f"Bearer {key}"} if key else {}),
            **self._options(),
        )

    @cached_property
    def _ollama(self) -> ollama.AsyncClient:
        """Return the package's client; importing it is slow."""
        import ollama

        return ollama.AsyncClient(self.url, **self._options())

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()
        if "_ollama" in self.__dict__:
            await self._ollama.close()  # type: ignore[no-untyped-call]

    async def embed(self, model: str, texts: Sequence[str], **settings: Any) -> EmbedResult:
        """Return one vector a text, in order; ``settings``: as of :meth:`ask_embeddings`."""
        began = time.monotonic()
        answer = await self.ask_embeddings(model, texts, **settings)
        return self.read_embeddings(answer, model, len(texts), time.monotonic() - began)

    async def ask_embeddings(
        self,
        model: str,
        texts: Sequence[str],
        *,
        dimensions: int | None = None,
        options: Mapping[str, Any] | None = None,
        keep_alive: float | str | None = None,
        truncate: bool = True,
        sent: asyncio.Event | None = None,
    ) -> EmbedAnswer:
        """Return the server's answer as it came, for :meth:`read_embeddings`.

        Reading takes the time in which a quick server makes the next answer: whoever is in a
        hurry asks again before he reads.  ``sent`` is set when the request has left.
        """

        async def trace(event: str, _info: Mapping[str, Any]) -> None:
            if sent is not None and event.endswith("send_request_body.complete"):
                sent.set()

        with self._translated(model):
            # Not by the package's own call, which takes five times as long to read an answer.
            response = await self._http.post(
                "/api/embed",
                content=_embed_body(
                    model=model,
                    input=texts,
                    truncate=truncate,
                    options=options,
                    keep_alive=keep_alive,
                    dimensions=dimensions,
                ),
                extensions={"trace": trace},
            )
            return response.raise_for_status()

    def read_embeddings(
        self, answer: EmbedAnswer, model: str, wanted: int, seconds: float
    ) -> EmbedResult:
        """Return what an answer says of ``wanted`` texts, checked."""
        with self._translated(model):
            return _checked(answer.content, wanted, seconds)

    async def digest(self, model: str) -> str | None:
        """Return what the server calls the weights of a model; None: it does not say."""
        with self._translated(model):
            answer = (await self._http.get("/api/tags")).raise_for_status().json()
            for found in answer["models"]:
                if found["name"] in (model, f"{model}:latest"):
                    return str(found["digest"]) if found.get("digest") else None
        return None

    async def generate(self, payload: Json) -> Json:
        """Return the whole answer to a prompt."""
        with self._translated(payload.get("model", "")):
            call = self._ollama.generate
            return _plain(await call(**_arguments(call, payload)))

    async def chat(self, payload: Json) -> Json:
        """Return the whole next message of a chat."""
        with self._translated(payload.get("model", "")):
            call = self._ollama.chat
            return _plain(await call(**_arguments(call, payload)))

    async def chat_stream(self, payload: Json) -> AsyncIterator[Json]:
        """Yield the next message of a chat, piece by piece."""
        with self._translated(payload.get("model", "")):
            call = self._ollama.chat
            async for piece in await call(**_arguments(call, payload), stream=True):
                yield _plain(piece)

    async def list(self) -> Models:
        """Return the models that are installed."""
        with self._translated():
            return _models(await self._ollama.list())

    async def show(self, name: str) -> Json:
        """Return all about one model."""
        with self._translated(name):
            return _plain(await self._ollama.show(name))

    async def ps(self) -> Models:
        """Return the models that are loaded."""
        with self._translated():
            return _models(await self._ollama.ps())

    async def pull(self, name: str) -> AsyncIterator[Json]:
        """Install a model; yields Ollama's progress objects, the last one "success"."""
        with self._translated(name):
            async for step in await self._ollama.pull(name, stream=True):
                yield _plain(step)

    async def version(self) -> str:
        """Return the version of Ollama that the server is, or says it is like."""
        with self._translated():
            response = await self._http.get("/api/version")  # the package has no call for this
            return str(response.raise_for_status().json()["version"])


class BlockingModelServer(_Client):
    """The same for programs without an event loop, such as the command line."""

    def __init__(self, url: str, *, timeout: float = ANSWER_SECONDS) -> None:
        super().__init__(url, timeout=timeout)
        import ollama

        self._ollama = ollama.Client(self.url, **self._options())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._ollama.close()  # type: ignore[no-untyped-call]

    def embed(
        self, model: str, texts: Sequence[str], *, dimensions: int | None = None
    ) -> EmbedResult:
        """Return one vector a text, in order."""
        began = time.monotonic()
        with self._translated(model):
            body = _embed_body(model=model, input=texts, dimensions=dimensions)
            answer = self._ollama._client.post("/api/embed", content=body).raise_for_status()
            return _checked(answer.content, len(texts), time.monotonic() - began)

    def chat(self, payload: Json) -> Json:
        """Return the whole next message of a chat."""
        with self._translated(payload.get("model", "")):
            return _plain(self._ollama.chat(**_arguments(self._ollama.chat, payload)))

    def chat_stream(self, payload: Json) -> Iterator[Json]:
        """Yield the next message of a chat, piece by piece."""
        with self._translated(payload.get("model", "")):
            arguments = _arguments(self._ollama.chat, payload)
            for piece in self._ollama.chat(**arguments, stream=True):
                yield _plain(piece)

    def list(self) -> Models:
        """Return the models that are installed."""
        with self._translated():
            return _models(self._ollama.list())

    def show(self, name: str) -> Json:
        """Return all about one model."""
        with self._translated(name):
            return _plain(self._ollama.show(name))

    def ps(self) -> Models:
        """Return the models that are loaded."""
        with self._translated():
            return _models(self._ollama.ps())

    def pull(self, name: str) -> Iterator[Json]:
        """Install a model; yields Ollama's progress objects, the last one "success"."""
        with self._translated(name):
            for step in self._ollama.pull(name, stream=True):
                yield _plain(step)

    def version(self) -> str:
        """Return the version of Ollama that the server is, or says it is like."""
        with self._translated():
            # The package has no call for this one; its HTTP client does.
            response = self._ollama._client.get("/api/version")
            response.raise_for_status()
            return str(response.json()["version"])


# -- requests and answers --------------------------------------------------------------


def _arguments(call: Callable[..., Any], payload: Json) -> Json:
    """Return a payload as keyword arguments; a field that Ollama does not know is an error."""
    fields = {name: value for name, value in payload.items() if name != "stream"}
    unknown = sorted(fields.keys() - inspect.signature(call).parameters.keys())
    if unknown:
        raise UsageError(f"the model server knows no field {', '.join(map(repr, unknown))}")
    return fields


def _embed_body(**fields: Any) -> bytes:
    """Return the body of ``/api/embed``: the fields that are not None."""
    from pydantic_core import to_json

    return to_json({name: value for name, value in fields.items() if value is not None})


def _plain(response: Any) -> Json:
    """Return an answer of the ollama package as plain JSON values."""
    values: Json = response.model_dump(mode="json", by_alias=True, exclude_none=True)
    return values


def _models(response: Any) -> Models:
    """Return the models of a listing; the package leaves out ``name``, which equals ``model``."""
    models = [_plain(model) for model in response.models]
    return [{"name": model.get("model"), **model} for model in models]


def _checked(answer: bytes, wanted: int, seconds: float) -> EmbedResult:
    """Return the vectors of an answer of ``/api/embed``, or raise BadAnswer."""
    from pydantic_core import from_json

    said = from_json(answer)
    vectors = said["embeddings"]
    if len(vectors) != wanted:
        raise BadAnswer(f"the model server answered {len(vectors)} vectors for {wanted} texts")
    lengths = {len(vector) for vector in vectors}
    if len(lengths) > 1 or 0 in lengths:
        raise BadAnswer(f"the model server answered vectors of lengths {sorted(lengths)}")
    try:
        packed = [Vector.pack(vector) for vector in vectors]
    except ValueError as exc:
        raise BadAnswer(f"the model server answered a vector that is not usable: {exc}") from None
    return EmbedResult(vectors, packed, int(said.get("prompt_eval_count") or 0), seconds)
