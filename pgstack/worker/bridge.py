"""Questions from SQL: embed(), generate(), chat(), models().

Each claimed question is a task.  It ends with an answer, with the error the asking
statement raises, or by being cancelled: then the HTTP request closes and the model
server stops computing.  A failure here never ends the worker.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import psycopg
from psycopg.types.json import Jsonb

from pgstack import queries
from pgstack.errors import ModelServerError, PgstackError, UsageError
from pgstack.models import ModelServer
from pgstack.worker.meter import Meter
from pgstack.worker.session import Session, log, wait_for

MOST_AT_ONCE = 64
EMBED_BATCH = 64
POLL_SECONDS = 1.0  # finds a question whose notification was lost

Answer = tuple[Mapping[str, Any] | None, list[str] | None]


@dataclass
class Bridge:
    """Answers questions until the worker stops."""

    session: Session
    tasks: dict[int, asyncio.Task[None]] = field(default_factory=dict)

    async def run(self) -> None:
        """Claim questions whenever there are some, and answer each in a task of its own."""
        session = self.session
        try:
            while not session.stopping.is_set():
                session.questions.clear()  # before the claim: what comes later wakes us again
                free = MOST_AT_ONCE - len(self.tasks)
                rows = await session.fetch(queries.REQUEST_CLAIM, session.worker, free)
                for row in rows:
                    self._start(*row)
                if len(rows) < MOST_AT_ONCE:
                    await wait_for(session.questions, POLL_SECONDS)
            if self.tasks:
                await asyncio.wait(self.tasks.values(), timeout=10)
        finally:
            for task in self.tasks.values():
                task.cancel()

    async def watch(self) -> None:
        """Look at once which questions are still wanted when one was withdrawn.

        Anybody may send a notification, so what it says is not believed.
        """
        while True:
            await self.session.withdrawn.wait()
            self.session.withdrawn.clear()
            await self.renew()

    async def renew(self) -> None:
        """Keep the leases of running questions; stop those nobody waits for."""
        ids = list(self.tasks)
        if not ids:
            return
        rows = await self.session.fetch(queries.REQUEST_RENEW, self.session.worker, ids)
        for gone in set(ids) - {row[0] for row in rows}:
            if task := self.tasks.get(gone):
                task.cancel()

    def _start(self, request: int, kind: str, payload: dict[str, Any], seconds: float) -> None:
        task = asyncio.create_task(self._answer(request, kind, payload, seconds))
        self.session.asking += 1
        self.tasks[request] = task
        task.add_done_callback(lambda _: self._ended(request))

    def _ended(self, request: int) -> None:
        self.tasks.pop(request, None)
        self.session.asking -= 1
        if not self.session.asking:
            self.session.moved.set()  # bulk work waited
        if len(self.tasks) == MOST_AT_ONCE - 1:
            self.session.questions.set()  # there was no room before

    async def _answer(
        self, request: int, kind: str, payload: dict[str, Any], seconds: float
    ) -> None:
        session = self.session
        try:
            async with asyncio.timeout(seconds):
                answer, embeddings = await call(session.server, kind, payload, session.meter)
            await session.fetch(
                queries.REQUEST_COMPLETE,
                session.worker,
                request,
                None if answer is None else Jsonb(answer),
                embeddings,
            )
            session.meter.question()
        except TimeoutError:
            return  # the asking statement knows its own deadline
        except PgstackError as exc:
            await self._fail(request, exc)
        except psycopg.OperationalError as exc:
            log.warning("question %s: the database went away: %s", request, exc)
        except psycopg.Error as exc:
            await self._fail(request, PgstackError(f"the answer cannot be stored: {exc}"))
        except Exception as exc:  # a payload that no function of ours sends
            log.exception("question %s", request)
            await self._fail(request, PgstackError(f"the question is malformed: {exc!r}"))

    async def _fail(self, request: int, exc: PgstackError) -> None:
        session = self.session
        session.meter.question(failed=True)
        await session.fetch(
            queries.REQUEST_FAIL,
            session.worker,
            request,
            exc.sqlstate or ModelServerError.sqlstate,
            str(exc),
            exc.hint,
        )


async def call(server: ModelServer, kind: str, payload: dict[str, Any], meter: Meter) -> Answer:
    """Ask the model server; return Ollama's response, or vectors as pgvector's text."""
    host = payload.pop("host", None)
    if host is not None and host.rstrip("/") != server.url.rstrip("/"):
        # SQL checked it against the setting model_hosts before it asked.
        async with ModelServer(host) as other:
            return await call(other, kind, payload, meter)
    match kind:
        case "embed":
            return None, await _embed(server, payload, meter)
        case "generate":
            return await _complete(server.generate, payload, meter), None
        case "chat":
            return await _complete(server.chat, payload, meter), None
        case "list":
            return {"models": await server.list()}, None
        case "ps":
            return {"models": await server.ps()}, None
        case _:
            raise UsageError(f"the worker does not know the question {kind!r}")


async def _complete(
    ask: Callable[[dict[str, Any]], Awaitable[dict[str, Any]]],
    payload: dict[str, Any],
    meter: Meter,
) -> dict[str, Any]:
    with meter.timing("", payload["model"]) as timing:
        answer = await ask(payload)
        timing.tokens = answer.get("prompt_eval_count", 0) + answer.get("eval_count", 0)
    return answer


async def _embed(server: ModelServer, payload: dict[str, Any], meter: Meter) -> list[str]:
    texts, model = payload["input"], payload["model"]
    vectors: list[str] = []
    for start in range(0, len(texts), EMBED_BATCH):
        part = texts[start : start + EMBED_BATCH]
        with meter.timing("", model, texts=len(part)) as timing:
            result = await server.embed(
                model,
                part,
                options=payload.get("options"),
                keep_alive=payload.get("keep_alive"),
            )
            timing.tokens = result.prompt_tokens
        vectors.extend(map(vector_text, result.vectors))
    return vectors


def vector_text(vector: list[float]) -> str:
    """Return a vector as pgvector reads it, every float in its shortest exact form."""
    return "[" + ",".join(map(repr, vector)) + "]"
