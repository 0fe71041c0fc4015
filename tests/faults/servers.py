"""The parts of a stack that may be killed: PostgreSQL, model server, worker, the wires between.

Each is a real process, or, for a wire, a thread that forwards bytes until it is told not to.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Coroutine, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from pgstack.embedded import postgres
from pgstack.embedded.home import Home
from tests import nursery
from tests.faults.waiting import wait_for

# What a killed process had written survives: only a crash of the machine could lose it.
SETTINGS = {
    "fsync": "off",
    "full_page_writes": "off",
    "max_connections": "150",
    "shared_buffers": "32MB",
    "max_wal_size": "64MB",
    "restart_after_crash": "on",
    "autovacuum_naptime": "5s",
}


@dataclass
class Database:
    """A PostgreSQL that may be killed."""

    home: Home
    settings: Mapping[str, str] = field(default_factory=lambda: SETTINGS)

    def start(self) -> None:
        postgres.start(self.home, settings=self.settings)

    def stop(self, mode: str = "immediate") -> None:
        postgres.stop(self.home, mode=mode)

    def kill(self) -> None:
        """End the postmaster with -9; its backends notice and end, or are ended at the start."""
        pid = postgres.listener(self.home)
        assert pid is not None, "PostgreSQL is not running"
        os.kill(pid, signal.SIGKILL)

    def kill_backend(self, rng: random.Random, dbname: str) -> None:
        """End one session with -9: PostgreSQL throws out all others and recovers."""
        with contextlib.suppress(psycopg.OperationalError), self.connect("postgres") as conn:
            pids = conn.execute(
                "select pid from pg_stat_activity where datname = %s and pid <> pg_backend_pid()",
                [dbname],
            ).fetchall()
            if pids:
                os.kill(rng.choice(pids)[0], signal.SIGKILL)

    def dsn(self, dbname: str) -> str:
        return postgres.dsn(self.home, dbname)

    def connect(self, dbname: str) -> psycopg.Connection[Any]:
        return psycopg.connect(self.dsn(dbname), autocommit=True, connect_timeout=10)

    def temporary_files(self) -> list[str]:
        """Files that sorts and hashes spilled, and nobody removed."""
        return [str(path) for path in self.home.data.glob("base/pgsql_tmp/*")]


class ModelServer:
    """The deterministic model server, in a process that may be killed and comes back."""

    def __init__(self, place: Path) -> None:
        self._url_file = place / "models-url"
        self.log = place / "models.log"
        self.port = 0
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it, on the port it had before; one that crashed is cleared away first."""
        self.kill()
        self._url_file.unlink(missing_ok=True)
        with self.log.open("ab") as log:
            self.process = process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "pgstack.embedded.modelserver", "--deterministic"),
                    *(f"--port={self.port}", f"--url-file={self._url_file}"),
                    *("--vectors=hash", "--exit-on-eof"),
                ],
                stdin=subprocess.PIPE,
                stderr=log,
            )

        def ready() -> bool:
            assert process.poll() is None, self.log.read_text()
            return self._url_file.exists()

        wait_for(ready, "the model server answers", seconds=20)
        self.port = int(self._url_file.read_text().rpartition(":")[2])

    def kill(self, signum: int = signal.SIGKILL) -> None:
        if self.process is not None:
            self.process.send_signal(signum)
            self.process.communicate()

    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def misbehave(self, **faults: Any) -> None:
        """Set faults: fields of pgstack.embedded.modelserver.deterministic.Faults."""
        self._call("POST", "/_control", faults)

    def clear(self) -> None:
        """Be good again; statistics start at zero."""
        self._call("DELETE", "/_control")

    def stats(self) -> dict[str, Any]:
        return dict(self._call("GET", "/_control/stats"))

    def wait_for_calls(self, count: int = 1) -> None:
        """Return once so many calls are being answered at this moment."""
        wait_for(lambda: self.stats()["concurrent"] >= count, f"{count} model calls run")

    def _call(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, method=method)
        with urllib.request.urlopen(request, timeout=10) as answer:
            return json.loads(answer.read() or b"null")


class Worker:
    """A worker in a process of its own."""

    def __init__(
        self, dsn: str, models_url: str, log: Path, *options: str, **environment: str
    ) -> None:
        self.log = log
        self.process: subprocess.Popen[bytes] | nursery.Process
        arguments = ["--database-url", dsn, *options]
        told = {**os.environ, "OLLAMA_HOST": models_url, **environment}
        with log.open("ab") as output:
            if environment:  # what the C library or Python reads as it starts
                self.process = subprocess.Popen(
                    [sys.executable, "-m", "pgstack.worker", *arguments],
                    env=told,
                    stdin=subprocess.DEVNULL,
                    stderr=output,
                    stdout=output,
                )
            else:
                self.process = nursery.start(arguments, told, (output.fileno(), output.fileno()))

    def kill(self, signum: int = signal.SIGKILL) -> int:
        if self.process.poll() is None:
            self.process.send_signal(signum)
        return self.process.wait(timeout=30)

    def alive(self) -> bool:
        return self.process.poll() is None

    def rss_mb(self) -> float:
        """Resident memory in megabytes."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.partition("VmRSS:")[2].split()[0]) / 1024

    def open_files(self) -> int:
        return len(list(Path(f"/proc/{self.process.pid}/fd").iterdir()))

    def said(self, lines: int = 15) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])


class Wire:
    """Forwards bytes between a client and a server until it is told to stall or cut.

    ``target`` is a port on loopback or the path of a Unix socket; ``listen`` a path, or
    None for a free port.
    """

    def __init__(self, target: int | str, listen: str | None = None) -> None:
        self.port = 0
        self._target, self._listen = target, listen
        self._loop = asyncio.new_event_loop()
        self._open: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._do(self._serve())

    def stall(self) -> None:
        """Keep every connection, take new ones, and forward nothing."""
        self._loop.call_soon_threadsafe(self._flowing.clear)

    def resume(self) -> None:
        self._loop.call_soon_threadsafe(self._flowing.set)

    def cut(self) -> None:
        """Break every connection, in the middle of whatever it carries."""
        self._do(self._abort())

    def close(self) -> None:
        self._do(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _do(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(timeout=10)

    async def _serve(self) -> None:
        if self._listen is not None:
            self._server = await asyncio.start_unix_server(self._accept, self._listen)
            return
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _accept(self, client: asyncio.StreamReader, answers: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._open.add(answers)
        try:
            if isinstance(self._target, str):
                server, calls = await asyncio.open_unix_connection(self._target)
            else:
                server, calls = await asyncio.open_connection("127.0.0.1", self._target)
            self._open.add(calls)
            ways = [self._pump(client, calls), self._pump(server, answers)]
            pumps = [asyncio.ensure_future(way) for way in ways]
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
            calls.transport.abort()
            self._open.discard(calls)
        except OSError:
            pass  # the server is down: so is this connection
        finally:
            answers.transport.abort()
            self._open.discard(answers)
            self._tasks.discard(task)

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        while data := await source.read(65536):
            await self._flowing.wait()
            sink.write(data)
            await sink.drain()

    async def _abort(self) -> None:
        for writer in self._open:
            writer.transport.abort()

    async def _end(self) -> None:
        self._server.close()
        self._flowing.set()
        await self._abort()
        await asyncio.gather(*self._tasks, return_exceptions=True)


@contextlib.contextmanager
def wire_to_models(models: ModelServer) -> Iterator[tuple[Wire, str]]:
    """A wire to the model server, and the URL of its near end."""
    wire = Wire(models.port)
    try:
        yield wire, f"http://127.0.0.1:{wire.port}"
    finally:
        wire.close()


@contextlib.contextmanager
def wire_to_database(dsn: str, place: Path) -> Iterator[tuple[Wire, str]]:
    """A wire to a database's Unix socket, and a DSN for its near end."""
    options = conninfo_to_dict(dsn)
    name = f".s.PGSQL.{options.get('port', 5432)}"
    wire = Wire(f"{options['host']}/{name}", str(place / name))
    try:
        yield wire, make_conninfo(dsn, host=str(place))
    finally:
        wire.close()
