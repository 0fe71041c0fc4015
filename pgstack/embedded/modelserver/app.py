"""The Ollama HTTP API over a :class:`Backend`.

Every request is one backend call, raced against the client's disconnect: whoever goes away
stops paying for the answer.  Errors are ``{"error": message}`` with Ollama's status; once a
stream has begun they are its last line.  Streams are NDJSON.  Durations are nanoseconds.
Nothing here logs what was asked or answered.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import jsonschema
import numpy as np
from pydantic_core import from_json
from referencing import Registry
from referencing.exceptions import Unresolvable
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from pgstack import __version__
from pgstack.embedded.modelserver.backend import (
    ApiError,
    Backend,
    Description,
    Finish,
    Piece,
    TextRequest,
    Vectors,
)
from pgstack.embedded.modelserver.exchange import (
    Event,
    api_error,
    client_gone,
    error_answer,
    http_error,
    json_answer,
    ndjson_answer,
    read_body,
    while_connected,
)
from pgstack.embedded.modelserver.requests import (
    ChatBody,
    EmbedBody,
    GenerateBody,
    LegacyEmbedBody,
    Named,
    parse,
)

# The version of Ollama whose API this follows: clients compare it.
API_VERSION = "0.12.0"

type Endpoint = Callable[[Request, Backend], Awaitable[Response]]


def create_app(
    backend: Backend, stopping: asyncio.Event, extra_routes: Sequence[Route] = ()
) -> Starlette:
    """Return the ASGI application that serves ``backend``; ``stopping`` ends open requests."""

    def route(path: str, method: str, endpoint: Endpoint) -> Route:
        async def handler(request: Request) -> Response:
            return await endpoint(request, backend)

        return Route(path, handler, methods=[method])

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncGenerator[None]:
        yield
        await backend.close()

    routes = [
        route("/", "GET", _root),
        route("/api/version", "GET", _version),
        route("/api/tags", "GET", _tags),
        route("/api/ps", "GET", _ps),
        route("/api/show", "POST", _show),
        route("/api/pull", "POST", _pull),
        route("/api/delete", "DELETE", _delete),
        route("/api/embed", "POST", _embed),
        route("/api/embeddings", "POST", _legacy_embed),
        route("/api/generate", "POST", _generate),
        route("/api/chat", "POST", _chat),
        *(route(f"/api/{verb}", "POST", _unsupported) for verb in ("create", "copy", "push")),
        *extra_routes,
    ]
    handlers = {ApiError: api_error, HTTPException: http_error, ClientDisconnect: client_gone}
    app = Starlette(routes=routes, exception_handlers=handlers, lifespan=lifespan)
    app.state.stopping = stopping
    return app


# -- small endpoints -------------------------------------------------------------------


async def _root(_request: Request, _backend: Backend) -> Response:
    return PlainTextResponse("Ollama is running")


async def _version(_request: Request, _backend: Backend) -> Response:
    return json_answer({"version": API_VERSION, "server": f"pgstack {__version__}"})


async def _tags(_request: Request, backend: Backend) -> Response:
    return json_answer({"models": [_entry(model) for model in backend.installed()]})


async def _ps(_request: Request, backend: Backend) -> Response:
    never = datetime(9999, 1, 1, tzinfo=UTC)
    models = [
        {
            **_entry(running.model),
            "size": running.size,
            "expires_at": (running.expires_at or never).isoformat(),
            "size_vram": 0,
            "context_length": running.model.context_length,
        }
        for running in backend.running()
    ]
    return json_answer({"models": models})


async def _show(request: Request, backend: Backend) -> Response:
    model = backend.describe(_required(parse(Named, await read_body(request)).wanted))
    return json_answer(
        {
            "modelfile": f"FROM {model.name}\n",
            "parameters": "",
            "template": model.template,
            "license": model.licence,
            "details": _details(model),
            "model_info": model.info,
            "capabilities": list(model.capabilities),
            "modified_at": model.modified_at.isoformat(),
        }
    )


async def _delete(request: Request, backend: Backend) -> Response:
    await backend.delete(_required(parse(Named, await read_body(request)).wanted))
    return Response(status_code=200)


async def _unsupported(request: Request, _backend: Backend) -> Response:
    return error_answer(501, f"{request.url.path} is not supported by the embedded model server")


async def _pull(request: Request, backend: Backend) -> Response:
    body = parse(Named, await read_body(request))
    events = backend.pull(_required(body.wanted))
    if body.stream is not False:
        return await ndjson_answer(request, _until_success(events))
    await while_connected(request, _drain(events))
    return json_answer({"status": "success"})


async def _until_success(events: AsyncGenerator[Event]) -> AsyncGenerator[Event]:
    """Begin and end a pull as Ollama does; its failures are lines, never an HTTP status."""
    yield {"status": "pulling manifest"}
    async with aclosing(events):
        async for event in events:
            yield event
    yield {"status": "success"}


async def _drain(events: AsyncGenerator[Event]) -> None:
    async with aclosing(events):
        async for _event in events:
            pass


def _required(model: str) -> str:
    """Return the model's name, or raise Ollama's error for a request that names none."""
    if not model:
        raise ApiError(400, "model is required")
    return model


def _details(model: Description) -> dict[str, Any]:
    return {
        "parent_model": "",
        "format": model.format,
        "family": model.family,
        "families": [model.family],
        "parameter_size": model.parameter_size,
        "quantization_level": model.quantization,
    }


def _entry(model: Description) -> dict[str, Any]:
    """Return what /api/tags and /api/ps say of a model."""
    return {
        "name": model.name,
        "model": model.name,
        "modified_at": model.modified_at.isoformat(),
        "size": model.size,
        "digest": model.digest,
        "details": _details(model),
    }


# -- embeddings ------------------------------------------------------------------------


def _capable(backend: Backend, name: str, capability: str, verb: str) -> Description:
    """Return the model, or raise Ollama's 400 when it cannot do that."""
    model = backend.describe(_required(name))
    if capability not in model.capabilities:
        raise ApiError(400, f'"{name}" does not support {verb}')
    return model


def shorten(vectors: Vectors, dimensions: int | None) -> Vectors:
    """Return the first ``dimensions`` numbers of each vector, brought back to length 1."""
    if not dimensions or dimensions >= vectors.shape[1]:
        return vectors
    heads = vectors[:, :dimensions].copy()
    lengths = np.linalg.norm(heads, axis=1, keepdims=True)
    lengths[lengths == 0] = 1
    heads /= lengths
    return heads


async def _embed(request: Request, backend: Backend) -> Response:
    body = parse(EmbedBody, await read_body(request))
    started = time.perf_counter_ns()
    _capable(backend, body.model, "embedding", "embeddings")
    if not body.input:
        await while_connected(request, backend.load(body.model, body.keep_alive))
        return json_answer({"model": body.model, "embeddings": []})
    work = backend.embed(
        body.model, body.input, truncate=body.truncate is not False, keep_alive=body.keep_alive
    )
    answer = await while_connected(request, work)
    return json_answer(
        {
            "model": body.model,
            "embeddings": shorten(answer.vectors, body.dimensions),
            "total_duration": time.perf_counter_ns() - started,
            "load_duration": answer.load_ns,
            "prompt_eval_count": answer.prompt_tokens,
        }
    )


async def _legacy_embed(request: Request, backend: Backend) -> Response:
    body = parse(LegacyEmbedBody, await read_body(request))
    _capable(backend, body.model, "embedding", "embeddings")
    if not body.prompt:
        await while_connected(request, backend.load(body.model, body.keep_alive))
        return json_answer({"embedding": []})
    work = backend.embed(body.model, [body.prompt], truncate=True, keep_alive=body.keep_alive)
    return json_answer({"embedding": (await while_connected(request, work)).vectors[0]})


# -- text ------------------------------------------------------------------------------


def _schema(value: str | bool | dict[str, Any] | None) -> dict[str, Any] | None:
    """Return the JSON schema that ``format`` asks for, checked, or None for free text."""
    if value is None or value == "":
        return None
    if value == "json":
        return {"type": "object"}
    if not isinstance(value, dict):
        raise ApiError(400, 'invalid format: must be "json" or a JSON schema')
    try:
        jsonschema.Draft202012Validator.check_schema(value)
    except jsonschema.SchemaError as exc:
        raise ApiError(400, f"invalid JSON schema in format: {exc.message[:200]}") from None
    return value


async def _generate(request: Request, backend: Backend) -> Response:
    body = parse(GenerateBody, await read_body(request))
    _capable(backend, body.model, "completion", "generate")
    _refuse_unsupported(body)
    if not body.prompt:
        return await _load_only(request, backend, body, {"response": ""})
    text = TextRequest(
        model=body.model,
        prompt=body.prompt if body.raw else None,
        messages=() if body.raw else _as_messages(body.system, body.prompt),
        schema=_schema(body.format),
        options=body.options,
        keep_alive=body.keep_alive,
    )
    return await _write(request, backend, text, body.stream, lambda piece: {"response": piece})


def _refuse_unsupported(body: GenerateBody) -> None:
    """Raise a 400 for what would otherwise be silently left out of the answer."""
    if body.images:
        raise ApiError(400, f'"{body.model}" does not support images')
    if body.suffix:
        raise ApiError(400, f'"{body.model}" does not support insert')
    if body.raw and (body.template or body.system or body.context):
        raise ApiError(400, "raw mode does not support template, system, or context")
    if body.template or body.context:
        raise ApiError(400, "template and context are not supported: use /api/chat or raw")
    _refuse_thinking(body.model, body.think)


def _refuse_thinking(model: str, think: bool | str | None) -> None:
    if think:
        raise ApiError(400, f'"{model}" does not support thinking')


def _as_messages(system: str, prompt: str) -> list[dict[str, Any]]:
    """Return what /api/generate means as a chat."""
    first = [{"role": "system", "content": system}] if system else []
    return [*first, {"role": "user", "content": prompt}]


async def _chat(request: Request, backend: Backend) -> Response:
    body = parse(ChatBody, await read_body(request))
    _capable(backend, body.model, "completion", "chat")
    if not body.messages:
        return await _load_only(request, backend, body, {"message": _message("")})
    if body.tools:
        raise ApiError(400, f'"{body.model}" does not support tools')
    if any(message.images for message in body.messages):
        raise ApiError(400, f'"{body.model}" does not support images')
    _refuse_thinking(body.model, body.think)
    text = TextRequest(
        model=body.model,
        messages=[{"role": m.role, "content": m.content} for m in body.messages],
        schema=_schema(body.format),
        options=body.options,
        keep_alive=body.keep_alive,
    )
    return await _write(
        request, backend, text, body.stream, lambda piece: {"message": _message(piece)}
    )


def _message(content: str) -> dict[str, str]:
    return {"role": "assistant", "content": content}


def _now() -> str:
    return datetime.now(UTC).isoformat()


async def _load_only(
    request: Request, backend: Backend, body: GenerateBody | ChatBody, empty: Mapping[str, Any]
) -> Response:
    """Load the model, or unload it with ``keep_alive`` 0: a request without any prompt."""
    await while_connected(request, backend.load(body.model, body.keep_alive))
    reason = "unload" if body.keep_alive == 0 else "load"
    event = {"model": body.model, "created_at": _now(), **empty, "done": True}
    return json_answer({**event, "done_reason": reason})


async def _write(
    request: Request,
    backend: Backend,
    text: TextRequest,
    stream: bool | None,
    spell: Callable[[str], Event],
) -> Response:
    """Answer with text, streamed unless ``stream`` is false."""
    started = time.perf_counter_ns()
    if stream is not False:
        return await ndjson_answer(request, _text_events(backend, text, spell, started))
    return json_answer(await while_connected(request, _whole(backend, text, spell, started)))


async def _text_events(
    backend: Backend, text: TextRequest, spell: Callable[[str], Event], started: int
) -> AsyncGenerator[Event]:
    """Yield one event a piece, then the final one."""
    said: list[str] = []
    async with aclosing(backend.write(text)) as pieces:
        async for piece in pieces:
            head = {"model": text.model, "created_at": _now()}
            if isinstance(piece, Piece):
                said.append(piece.text)
                yield {**head, **spell(piece.text), "done": False}
            else:
                _check_schema(text.schema, "".join(said), piece)
                yield {**head, **spell(""), **_costs(piece, started)}


async def _whole(
    backend: Backend, text: TextRequest, spell: Callable[[str], Event], started: int
) -> Event:
    """Return the answer in one piece."""
    said: list[str] = []
    async with aclosing(backend.write(text)) as pieces:
        async for piece in pieces:
            if isinstance(piece, Piece):
                said.append(piece.text)
                continue
            answer = "".join(said)
            _check_schema(text.schema, answer, piece)
            head = {"model": text.model, "created_at": _now()}
            return {**head, **spell(answer), **_costs(piece, started)}
    raise ApiError(500, "the model ended without an answer")


def _check_schema(schema: dict[str, Any] | None, answer: str, finish: Finish) -> None:
    """Refuse an answer that breaks its schema.

    The grammar engine lets text run free under a schema it cannot handle, so its word is not
    enough.  An answer cut off by num_predict must at least be the beginning of a JSON value.
    """
    if schema is None:
        return
    # An empty registry: a "$ref" to a web address must not make this process fetch it.
    validator = jsonschema.Draft202012Validator(schema, registry=Registry())
    try:
        if finish.reason == "stop":
            validator.validate(from_json(answer))
        elif answer.strip():
            from_json(answer, allow_partial="trailing-strings")
    except (ValueError, jsonschema.ValidationError, Unresolvable):
        raise ApiError(500, "the model's answer does not follow the requested format") from None


def _costs(finish: Finish, started: int) -> Event:
    return {
        "done": True,
        "done_reason": finish.reason,
        "total_duration": time.perf_counter_ns() - started,
        "load_duration": finish.load_ns,
        "prompt_eval_count": finish.prompt_tokens,
        "prompt_eval_duration": finish.prompt_ns,
        "eval_count": finish.tokens,
        "eval_duration": finish.eval_ns,
    }
