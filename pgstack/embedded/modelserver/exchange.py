"""One HTTP exchange: reading the request, answering it, noticing that the client has left.

Every request is raced against the client's disconnect: whoever goes away stops paying for the
answer.  Errors are ``{"error": message}``; once a stream has begun they are its last line.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable
from contextlib import aclosing
from typing import Any

import orjson
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse

from pgstack.embedded.modelserver.backend import ApiError

MAX_BODY_BYTES = 64 * 1024 * 1024

type Event = dict[str, Any]

# -- answers ---------------------------------------------------------------------------


def json_answer(value: object, status: int = 200) -> Response:
    """Return a JSON answer; numpy's arrays are written as they are, in the fewest digits."""
    body = orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY)
    return Response(body, status, media_type="application/json")


def error_answer(status: int, message: str) -> Response:
    """Return an error as Ollama spells it."""
    return json_answer({"error": message}, status)


async def api_error(_request: Request, exc: Exception) -> Response:
    """Answer what the backend or a check refused."""
    assert isinstance(exc, ApiError)  # noqa: S101  # registered for this class alone
    return error_answer(exc.status, exc.message)


async def http_error(_request: Request, exc: Exception) -> Response:
    """Answer an unknown path (404) or a wrong method (405) in JSON, too."""
    assert isinstance(exc, HTTPException)  # noqa: S101  # registered for this class alone
    return error_answer(exc.status_code, exc.detail.lower())


async def client_gone(_request: Request, _exc: Exception) -> Response:
    """Answer a client that left; nobody reads it."""
    return error_answer(499, "request cancelled")


# -- bodies and disconnects ------------------------------------------------------------


async def read_body(request: Request) -> bytes:
    """Read the body, up to MAX_BODY_BYTES."""
    chunks, size = [], 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > MAX_BODY_BYTES:
            raise ApiError(413, f"request body too large: more than {MAX_BODY_BYTES} bytes")
        chunks.append(chunk)
    return b"".join(chunks)


async def _disconnected(request: Request) -> None:
    """Return when the client has gone away."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def while_connected[T](request: Request, work: Awaitable[T]) -> T:
    """Await ``work``, cancelling it when the client goes away or the server is to end."""
    task = asyncio.ensure_future(work)
    gone = asyncio.create_task(_disconnected(request))
    stopping = asyncio.create_task(request.app.state.stopping.wait())
    try:
        await asyncio.wait({task, gone, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        if gone.done():
            raise ClientDisconnect
        raise ApiError(503, "the server is shutting down")
    finally:
        gone.cancel()
        stopping.cancel()
        if not task.done():
            task.cancel()
            await asyncio.wait({task})


async def ndjson_answer(request: Request, events: AsyncGenerator[Event]) -> Response:
    """Return an NDJSON answer.

    The first event is awaited here, so that what fails before anything was said gets its
    HTTP status; later failures become an error line.
    """

    async def following() -> Event | None:
        return await anext(events, None)

    async def lines() -> AsyncGenerator[bytes]:
        async with aclosing(events):
            event = first
            while event is not None:
                yield orjson.dumps(event) + b"\n"
                try:
                    event = await while_connected(request, following())
                except ApiError as exc:
                    event = None
                    yield orjson.dumps({"error": exc.message}) + b"\n"

    try:
        first = await while_connected(request, following())
    except BaseException:
        await events.aclose()
        raise
    return StreamingResponse(lines(), media_type="application/x-ndjson")
