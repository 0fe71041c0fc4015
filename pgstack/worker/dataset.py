"""Loads data sets that SQL asked for, each in a process of its own.

The process is :mod:`pgstack.worker.dataset_load`: a file made to break its reader breaks that,
and not the worker.  What dies in the middle is claimed again and goes on at its last block.
"""

from __future__ import annotations

import asyncio
import os
import sys
from contextlib import suppress

from pgstack import queries
from pgstack.target import without_password
from pgstack.worker.session import Session, log, wait_for

LOOK_SECONDS = 5.0
STOP_SECONDS = 3.0


async def run(session: Session) -> None:
    """Load what is asked for, one file at a time, until the worker stops; once: until all is.

    A worker that is there for some vectorizers only leaves this to others.
    """
    while session.names is None and not session.stopping.is_set():
        session.datasets.clear()
        request = await session.value(queries.LOAD_CLAIM, session.worker)
        if request is not None:
            await _load(session, int(request))
        elif session.once:
            return
        else:
            await wait_for(session.datasets, LOOK_SECONDS)


async def _load(session: Session, request: int) -> None:
    """Run the loader; tell when it ended without doing so."""
    url, password = without_password(session.dsn)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "pgstack.worker.dataset_load", url, str(request)),
        env={**os.environ, **password},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
    )
    stopping = asyncio.create_task(session.stopping.wait())
    ended = asyncio.create_task(process.wait())
    try:
        await asyncio.wait({stopping, ended}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        stopping.cancel()
        if process.returncode is None:  # its lease ends with this worker
            process.kill()
        with suppress(asyncio.CancelledError, TimeoutError):
            await asyncio.wait_for(ended, STOP_SECONDS)
    if session.stopping.is_set():
        await session.fetch(queries.LOAD_RELEASE, request, session.worker)
    elif process.returncode:
        log.warning("request %s: the loader ended with %s", request, process.returncode)
        await session.fetch(
            queries.LOAD_FAILED, request, f"the loader ended with {process.returncode}"
        )
