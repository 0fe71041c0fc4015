"""A worker from start to stop.

One listening connection holds the advisory lock that says "a worker is here", hears
notifications and does nothing else; a small pool does the work.  When the database
goes away everything is cancelled and begun anew when it is back: leases make that safe.
"""

from __future__ import annotations

import asyncio
import signal
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg_pool import AsyncConnectionPool

from pgstack import __version__, queries, vectors
from pgstack.db import OPTIONS
from pgstack.errors import NoWorker, Unreachable
from pgstack.models import ModelServer
from pgstack.worker import dataset, extract, index
from pgstack.worker.bridge import Bridge
from pgstack.worker.drain import Drain, ModelServerDown
from pgstack.worker.meter import Meter
from pgstack.worker.session import Session, log, wait_for

LISTEN = (
    "listen pgstack_request; listen pgstack_cancel; listen pgstack_work; listen pgstack_index; "
    "listen pgstack_extract; listen pgstack_dataset"
)
RENEW_SECONDS = 1.5
SWEEP_EVERY = 4  # renewals
STOP_SECONDS = 10.0
FIRST_RETRY = 0.25
LONGEST_RETRY = 10.0

# row_security: a row hidden from a worker would look deleted.
# synchronous_commit: a server that crashes right after a commit forgets a batch together with
# the fact that it was done, so it is done again; there is no need to wait for the disk.
# enable_seqscan, enable_mergejoin: every statement finds its rows by key.  Queues grow and
# shrink faster than statistics; a plan that reads them whole is right only while they are empty.
SETTINGS = {
    "row_security": "off",
    "lock_timeout": "3s",
    "synchronous_commit": "off",
    "enable_seqscan": "off",
    "enable_mergejoin": "off",
    "jit": "off",
}
WORKER_OPTIONS = OPTIONS + "".join(f" -c {name}={value}" for name, value in SETTINGS.items())


@dataclass(frozen=True)
class WorkerOptions:
    """How a worker runs.  ``names``: only these vectorizers; None: all of them."""

    dsn: str
    model_server: str
    names: Sequence[str] | None = None
    concurrency: int = 2
    once: bool = False


def run(options: WorkerOptions, meter: Meter | None = None) -> Meter:
    """Run a worker until SIGTERM or SIGINT, or, once, until nothing is left to do.

    ``meter`` counts what it does; somebody may watch it from another thread.
    """
    return asyncio.run(_run(options, meter or Meter()))


async def _run(options: WorkerOptions, meter: Meter) -> Meter:
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for signum in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signum, stopping.set)
    pause = FIRST_RETRY
    async with ModelServer(options.model_server) as server:
        while not stopping.is_set():
            try:
                began = loop.time()
                await _until_stopped(options, server, meter, stopping)
                return meter
            except* psycopg.Error as lost:
                reason = _first(lost)
            except* ModelServerDown as down:
                raise Unreachable(
                    f"the model server does not answer: {_first(down)}", hint="pgstack doctor"
                ) from None
            if options.once:
                raise Unreachable(f"the database failed: {reason}", hint="pgstack doctor")
            if loop.time() - began > LONGEST_RETRY:
                pause = FIRST_RETRY  # it was there for a while
            log.warning("the database failed, trying again in %.1f s: %s", pause, reason)
            await wait_for(stopping, pause)
            pause = min(LONGEST_RETRY, pause * 2)
    return meter


async def _until_stopped(
    options: WorkerOptions, server: ModelServer, meter: Meter, stopping: asyncio.Event
) -> None:
    listener = await psycopg.AsyncConnection.connect(
        options.dsn, autocommit=True, options=WORKER_OPTIONS, application_name="pgstack worker"
    )
    pool: AsyncConnectionPool[Any] = AsyncConnectionPool(
        options.dsn,
        min_size=1,
        max_size=options.concurrency + 6,
        open=False,
        configure=vectors.register,
        kwargs={
            "autocommit": True,
            "options": WORKER_OPTIONS,
            "application_name": "pgstack worker",
            "prepare_threshold": 1,
        },
    )
    async with listener, pool:
        worker = uuid.uuid4()
        await _check_installed(listener)
        session = Session(
            worker,
            pool,
            server,
            options.names,
            options.concurrency,
            meter,
            stopping,
            once=options.once,
            model_timeout=await _model_timeout(listener),
            dsn=options.dsn,
        )
        await listener.execute(LISTEN)
        await listener.execute(queries.WORKER_START, (worker, __version__, server.url))
        log.info("worker %s: connected, model server %s", worker, server.url)
        try:
            await _work(session, listener)
        finally:
            await asyncio.shield(_farewell(session))


async def _check_installed(conn: psycopg.AsyncConnection[Any]) -> None:
    cursor = await conn.execute("select to_regprocedure('_pgstack.worker_sweep()') is not null")
    row = await cursor.fetchone()
    if row is None or not row[0]:
        raise NoWorker("pgstack is not installed in this database", hint="pgstack install -d URL")


async def _model_timeout(conn: psycopg.AsyncConnection[Any]) -> float:
    row = await (await conn.execute(queries.MODEL_TIMEOUT)).fetchone()
    return float(row[0]) if row else 0.0


async def _work(session: Session, listener: psycopg.AsyncConnection[Any]) -> None:
    """Run every part of the worker; once: until files are read and vectorizers drained."""
    bridge = Bridge(session)
    await session.fetch(queries.WORKER_SWEEP)
    await session.fetch(queries.PREPARE)
    try:
        async with asyncio.timeout(None) as limit, asyncio.TaskGroup() as group:
            helpers = [
                group.create_task(_listen(session, listener)),
                group.create_task(bridge.watch()),
                group.create_task(_maintain(session, bridge)),
                group.create_task(_stop_late(session, limit)),
            ]
            answering = group.create_task(bridge.run())
            session.reading = True
            reading = group.create_task(extract.run(session))
            loading = group.create_task(dataset.run(session))
            if session.once:
                await Drain(session).run()
                await index.build_all(session)
            else:
                building = group.create_task(index.run(session))
                await Drain(session).run()
                await building
            await reading
            await loading
            session.stopping.set()
            session.questions.set()
            await answering
            for helper in helpers:
                helper.cancel()
    except TimeoutError:
        log.warning("stopped in the middle of a call: its rows go back to the queue")


async def _stop_late(session: Session, limit: asyncio.Timeout) -> None:
    """Give what runs some seconds to finish once the worker was asked to stop."""
    await session.stopping.wait()
    session.moved.set()
    session.questions.set()
    session.indexes.set()
    session.documents.set()
    session.datasets.set()
    limit.reschedule(asyncio.get_running_loop().time() + STOP_SECONDS)


async def _listen(session: Session, listener: psycopg.AsyncConnection[Any]) -> None:
    async for notice in listener.notifies():
        match notice.channel:
            case "pgstack_request":
                session.questions.set()
            case "pgstack_cancel":
                session.withdrawn.set()
            case "pgstack_work":
                session.tell_news()
            case "pgstack_index":
                session.indexes.set()
            case "pgstack_extract":
                session.documents.set()
            case "pgstack_dataset":
                session.datasets.set()
    raise psycopg.OperationalError("the listening connection ended")


async def _maintain(session: Session, bridge: Bridge) -> None:
    """Signs of life, and clearing up after those that give none."""
    beat = 0
    while True:
        await asyncio.sleep(RENEW_SECONDS)
        await bridge.renew()
        await session.fetch(queries.WORK_RENEW, session.worker)
        await _keep_ledger(session)
        if await session.value(queries.PREPARE):
            session.tell_news()  # their queues were filled before they could wake us
        beat += 1
        if beat % SWEEP_EVERY == 0:
            await session.fetch(queries.WORKER_SWEEP)


async def _keep_ledger(session: Session) -> None:
    """Write down what was done; a ledger that is locked stops no work."""
    try:
        await session.meter.flush(session)
    except psycopg.Error as exc:  # of a lost database others tell
        log.warning("the ledger must wait: %s", exc)


async def _farewell(session: Session) -> None:
    try:
        await _keep_ledger(session)
        await session.fetch(queries.WORKER_STOP, session.worker)
    except psycopg.Error as exc:
        log.warning("could not say goodbye (leases will end by themselves): %s", exc)


def _first(group: BaseExceptionGroup[Any]) -> str:
    exc: BaseException = group
    while isinstance(exc, BaseExceptionGroup):
        exc = exc.exceptions[0]
    return str(exc).strip().partition("\n")[0] or type(exc).__name__
