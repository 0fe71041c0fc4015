"""One text model on llama.cpp (``xllamacpp``).

xllamacpp runs llama.cpp's own server in threads of this process.  It is reached through a Unix
socket in a private directory: its HTTP interface streams, and closing a connection stops the
generation at the next token, which its Python callbacks cannot do.

Two answers are written at once; more wait in order.  A format's JSON schema is enforced by a
grammar while the text is written.  Durations are nanoseconds; contexts are tokens.
"""

from __future__ import annotations

import asyncio
import json
import math
import tempfile
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import httpx
import xllamacpp

from pgstack.embedded.modelserver.backend import ApiError, Finish, Piece, TextRequest, busy

DEFAULT_CONTEXT = 4096
MAX_PENDING = 512
_PARALLEL = 2

# Ollama's option -> llama.cpp's name and Ollama's default (None: llama.cpp's own).
_NUMBERS: dict[str, tuple[str, float | None]] = {
    "num_predict": ("n_predict", -1),
    "num_keep": ("n_keep", None),
    "seed": ("seed", None),
    "temperature": ("temperature", 0.8),
    "top_k": ("top_k", 40),
    "top_p": ("top_p", 0.9),
    "min_p": ("min_p", 0.0),
    "typical_p": ("typical_p", None),
    "repeat_last_n": ("repeat_last_n", 64),
    "repeat_penalty": ("repeat_penalty", 1.1),
    "presence_penalty": ("presence_penalty", None),
    "frequency_penalty": ("frequency_penalty", None),
    "mirostat": ("mirostat", None),
    "mirostat_tau": ("mirostat_tau", None),
    "mirostat_eta": ("mirostat_eta", None),
}


def number(options: dict[str, Any], name: str, default: float | None = None) -> float | None:
    """Return a numeric option, or raise a 400 that names it."""
    value = options.get(name)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ApiError(400, f'option "{name}" must be a number')
    return value


def sampling(options: dict[str, Any]) -> dict[str, Any]:
    """Return llama.cpp's parameters for Ollama's options; unknown options are ignored."""
    parameters: dict[str, Any] = {}
    for name, (theirs, default) in _NUMBERS.items():
        value = number(options, name, default)
        if value is not None:
            parameters[theirs] = value
    stop = options.get("stop") or []
    stops = [stop] if isinstance(stop, str) else stop
    if not isinstance(stops, list) or not all(isinstance(text, str) for text in stops):
        raise ApiError(400, 'option "stop" must be a list of strings')
    return {**parameters, "stop": stops}


class Generator:
    """The loaded model.  Creating it blocks for as long as loading takes."""

    def __init__(self, weights: Path, context: int) -> None:
        self.context = context
        self._waiting = 0
        self._turns = asyncio.Semaphore(_PARALLEL)
        # Private to this user, and short: a socket's path has a limit of 107 bytes.
        self._folder = tempfile.TemporaryDirectory(prefix="pgstack-llama-")
        socket = str(Path(self._folder.name) / "s.sock")
        self._server = xllamacpp.Server(_parameters(weights, context, socket))
        # A connection each: llama.cpp closes its side a moment after a streamed answer, and a
        # request sent on it in that moment would be lost.
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=0)
        self._client = httpx.AsyncClient(
            transport=httpx.AsyncHTTPTransport(uds=socket, limits=limits),
            base_url="http://llama",
            timeout=None,  # noqa: S113  # writing takes as long as it takes
        )

    async def close(self) -> None:
        """Stop and free the memory."""
        await self._client.aclose()
        server, self._server = self._server, None
        # The last reference goes in a thread: freeing joins llama.cpp's threads.
        await asyncio.to_thread(_drop, [server])
        del server
        self._folder.cleanup()

    async def write(self, request: TextRequest, load_ns: int) -> AsyncGenerator[Piece | Finish]:
        """Write an answer: pieces of text as they come, then the finish."""
        payload = {**sampling(request.options), "stream": True, "cache_prompt": True}
        if request.schema is not None:
            payload["json_schema"] = request.schema
        if self._waiting >= MAX_PENDING:
            raise busy()
        self._waiting += 1
        try:
            async with self._turns:
                payload["prompt"] = await self._prompt(request)
                async for piece in self._completion(payload, load_ns):
                    yield piece
        except httpx.HTTPError as exc:
            raise ApiError(500, f"the model stopped: {type(exc).__name__}") from exc
        finally:
            self._waiting -= 1

    async def _prompt(self, request: TextRequest) -> str:
        """Return the raw prompt, or the messages in the form this model was trained on."""
        if request.prompt is not None:
            return request.prompt
        body = {"messages": list(request.messages)}
        response = await self._client.post("/apply-template", json=body)
        if response.status_code != httpx.codes.OK:
            raise _refused(response)
        return str(response.json()["prompt"])

    async def _completion(
        self, payload: dict[str, Any], load_ns: int
    ) -> AsyncGenerator[Piece | Finish]:
        async with self._client.stream("POST", "/completion", json=payload) as response:
            if response.status_code != httpx.codes.OK:
                await response.aread()
                raise _refused(response)
            async for line in response.aiter_lines():
                field, _, value = line.partition(": ")
                if field == "error":
                    raise _error(json.loads(value))
                if field != "data":
                    continue
                event = json.loads(value)
                if "error" in event:
                    raise _error(event["error"])
                if event["content"]:
                    yield Piece(event["content"])
                if event["stop"]:
                    yield _finish(event, load_ns)


def _drop(holder: list[object]) -> None:
    """Let go of the last reference to what ``holder`` holds."""
    holder.clear()


def _parameters(weights: Path, context: int, socket: str) -> xllamacpp.CommonParams:
    """Return settings for a small shared machine without a GPU."""
    parameters = xllamacpp.CommonParams()
    parameters.model.path = str(weights)
    parameters.hostnames = [socket]
    parameters.n_parallel = _PARALLEL
    parameters.n_ctx = context * _PARALLEL  # llama.cpp shares it out
    parameters.n_gpu_layers = 0
    # Two decoding threads on a busy two-core machine fall from 60 to 2-8 tokens a second:
    # each waits for the other at every layer.  Reading the prompt does not suffer so.
    parameters.cpuparams.n_threads = 1
    parameters.cpuparams_batch.n_threads = 2
    parameters.cache_ram_mib = 0  # its default keeps up to 8 GB of old prompts
    parameters.fit_params = False
    parameters.warmup = False
    parameters.ui = False
    parameters.endpoint_slots = False  # it would show prompts
    parameters.endpoint_metrics = True  # counters only; tests see there that an answer stopped
    parameters.verbosity = -1
    return parameters


def _refused(response: httpx.Response) -> ApiError:
    return _error(response.json().get("error", {}))


def _error(error: dict[str, Any]) -> ApiError:
    """Return llama.cpp's error as Ollama would say it."""
    if error.get("type") == "exceed_context_size_error":
        return ApiError(400, "the input length exceeds the context length")
    status = error.get("code", 500)
    return ApiError(status if status in (400, 500, 503) else 500, str(error.get("message", "")))


def _finish(event: dict[str, Any], load_ns: int) -> Finish:
    timings = event.get("timings", {})
    return Finish(
        reason="length" if event.get("stop_type") == "limit" else "stop",
        load_ns=load_ns,
        prompt_tokens=event["tokens_evaluated"],
        prompt_ns=int(timings.get("prompt_ms", 0) * 1e6),
        tokens=event["tokens_predicted"],
        eval_ns=int(timings.get("predicted_ms", 0) * 1e6),
    )
