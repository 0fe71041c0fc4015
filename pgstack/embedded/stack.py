"""The embedded stack as a whole: PostgreSQL, model server, worker.

``up`` starts what is missing and leaves the rest alone, so it may be called at any time and
by several at once.  ``down`` stops the worker, then the model server, then PostgreSQL.
Model server and worker run under a supervisor (supervisor.py).

With ``OLLAMA_HOST`` in the environment of ``up`` no model server is started and the worker
uses that one; ``up`` with another value starts the supervisor anew.  An ``up`` that asks for
less than what runs stops nothing.

Root's supervisor, and so its model server and worker, runs as the same unprivileged user as
PostgreSQL, if that user can start this Python (a venv under /root is out of its reach).
Otherwise it runs as root: the server still does not, and the worker only talks to it.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psycopg

from pgstack.embedded import account, logs, postgres, supervisor
from pgstack.embedded.account import Account
from pgstack.embedded.home import Home, free_bytes, locked
from pgstack.embedded.supervisor import MODEL_SERVER, SUPERVISOR, WORKER, ChildState, Plan
from pgstack.errors import EmbeddedError

SUPERVISOR_COMMAND = [sys.executable, "-m", "pgstack.embedded.supervisor"]

_READY_SECONDS = 60.0
_STOP_SECONDS = 30.0
_POLL_SECONDS = 0.1
_CRASHES_SHOWN_AT = 2


@dataclass(frozen=True)
class Part:
    """One program of the stack."""

    running: bool
    pid: int | None = None
    uptime: float | None = None  # seconds
    restarts: int = 0
    note: str | None = None  # why it does not run, when that is worth saying


@dataclass(frozen=True)
class StackStatus:
    """What runs, where, and what it takes."""

    home: str
    postgres: Part
    version: str | None  # of the running PostgreSQL
    dsn: str
    tcp_port: int | None
    model_server: Part
    model_server_url: str | None
    worker: Part
    disk_used: int  # bytes under the home
    disk_free: int  # bytes

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain values, for JSON."""
        return asdict(self)


def up(
    home: Home,
    *,
    worker: bool = True,
    models: bool = True,
    tcp_port: int | None = None,
    progress: Callable[[str], None],
    prepare: Callable[[str], object] | None = None,
) -> StackStatus:
    """Start what is missing and return when all of it is ready.

    ``prepare`` gets the DSN once PostgreSQL runs and before the worker starts, which needs
    a database with pgstack installed.
    """
    progress("PostgreSQL: starting")
    postgres.start(home, tcp_port=tcp_port)
    if prepare is not None:
        prepare(postgres.dsn(home))
    ollama_host = os.environ.get("OLLAMA_HOST") or None
    if worker and not (models or ollama_host or model_server_url(home)):
        progress("worker: left out, as it has no model server to call: set OLLAMA_HOST for one")
        worker = False
    asked = Plan(worker=worker, models=models and ollama_host is None, ollama_host=ollama_host)
    if worker or models:
        with locked(home.state / "stack.lock"):
            _supervise(home, asked, progress)
    return status(home)


def down(home: Home) -> tuple[str, ...]:
    """Stop everything; return the names of what was running, in the order it was stopped."""
    if not postgres.is_running(home) and not home.state.is_dir():
        return ()
    stopped: list[str] = []
    with locked(home.state / "stack.lock"):
        found = supervisor.read_state(home)
        _stop_supervisor(home)
        if found is not None:
            stopped += [name for name in (WORKER, MODEL_SERVER) if name in found.children]
        if postgres.stop(home):
            stopped.append("postgres")
    return tuple(stopped)


def status(home: Home) -> StackStatus:
    """Look at everything; start nothing."""
    version, server = _server(home)
    return StackStatus(
        home=str(home.root),
        postgres=server,
        version=version,
        dsn=postgres.dsn(home),
        tcp_port=postgres.tcp_port(home),
        model_server=_child(home, MODEL_SERVER),
        model_server_url=model_server_url(home),
        worker=_child(home, WORKER),
        disk_used=_disk_used(home.root),
        disk_free=free_bytes(home.root),
    )


def model_server_url(home: Home) -> str | None:
    """Return where the stack's model server is; None when there is none, or not ready."""
    found = supervisor.read_state(home)
    if found is None:
        return None
    if found.plan.ollama_host is not None:
        return found.plan.ollama_host
    return supervisor.read_url(home) if _is_running(found.children.get(MODEL_SERVER)) else None


def log_files(home: Home) -> dict[str, Path]:
    """Return the log files there are, by the name of who writes them."""
    files = {"postgres": home.postgres_log}
    files |= {n: supervisor.log_file(home, n) for n in (MODEL_SERVER, WORKER, SUPERVISOR)}
    return {name: path for name, path in files.items() if path.exists()}


def _supervise(home: Home, asked: Plan, progress: Callable[[str], None]) -> None:
    """See to it that a supervisor runs all that was asked for and is already running."""
    found = supervisor.read_state(home)
    plan = asked if found is None else _joined(found.plan, asked)
    earlier: dict[str, ChildState] = {}
    if found is not None and found.plan == plan:
        earlier = found.children
        _signal(found.pid, signal.SIGHUP)  # it may be waiting with the next try
    else:
        _stop_supervisor(home)
        _start_supervisor(home, plan)
    for name, wanted in ((MODEL_SERVER, plan.models), (WORKER, plan.worker)):
        if wanted:
            progress(f"{name}: starting")
            _await_child(home, name, crashes=earlier.get(name, ChildState()).restarts)


def _joined(running: Plan, asked: Plan) -> Plan:
    return Plan(
        worker=running.worker or asked.worker,
        models=(running.models or asked.models) and asked.ollama_host is None,
        ollama_host=asked.ollama_host,
    )


def _start_supervisor(home: Home, plan: Plan) -> None:
    # What one that was killed, or whose home was moved, left behind is not the new one's.
    supervisor.state_file(home).unlink(missing_ok=True)
    command = [*SUPERVISOR_COMMAND, "--detach", "--home", str(home.root)]
    command += ["--worker"] if plan.worker else []
    command += ["--models"] if plan.models else []
    who = _supervisor_account(home)
    done = account.run(who, command, env=_environment(home, who))
    if done.returncode != 0:
        raise EmbeddedError(
            "\n".join(["the supervisor did not start", *logs.last_lines(done.stdout)]),
            hint="pgstack doctor",
        )
    _wait_until(
        lambda: supervisor.read_state(home) is not None,
        lambda: _failure(home, SUPERVISOR, "did not start"),
    )


def _supervisor_account(home: Home) -> Account:
    """Return PostgreSQL's user if it can run this Python, else ourselves (root)."""
    who = account.server_account(home)
    try:
        done = account.run(who, [sys.executable, "-c", "import pgstack.errors"])
    except EmbeddedError:
        return account.myself()
    return who if done.returncode == 0 else account.myself()


def _environment(home: Home, who: Account) -> dict[str, str]:
    """Return ours without what would misdirect libpq, and with a home of the user's own."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("PG") or name.startswith("PGSTACK_")
    }
    kept["PGSTACK_HOME"] = str(home.root)
    if who.uid != os.geteuid():
        kept |= {"HOME": str(home.state), "USER": who.name, "LOGNAME": who.name}
    return kept


def _await_child(home: Home, name: str, *, crashes: int) -> None:
    """Wait until a child is ready, or has crashed more often than ``crashes`` times before."""

    def ready() -> bool:
        found = supervisor.read_state(home)
        if found is None:
            raise _failure(home, SUPERVISOR, "ended")
        child = found.children[name]
        if not _is_running(child) and child.restarts >= crashes + _CRASHES_SHOWN_AT:
            raise _failure(home, name, "does not stay up")
        return _is_running(child) and _answers(home, name)

    _wait_until(ready, lambda: _failure(home, name, f"is not ready after {_READY_SECONDS:g} s"))


def _answers(home: Home, name: str) -> bool:
    if name == MODEL_SERVER:
        return supervisor.read_url(home) is not None
    try:
        with psycopg.connect(postgres.dsn(home), connect_timeout=5) as conn:
            row = conn.execute("select _pgstack.worker_present()").fetchone()
    except psycopg.Error:  # pgstack is not installed: the worker's log will say so
        return False
    return row is not None and bool(row[0])


def _stop_supervisor(home: Home) -> None:
    """Stop it, if one runs, and with it its children."""
    if not supervisor.is_alive(home):
        return
    # One that has just begun has written no state yet.
    _wait_until(
        lambda: supervisor.read_state(home) is not None or not supervisor.is_alive(home),
        lambda: _failure(home, SUPERVISOR, "has a lock but no state"),
    )
    found = supervisor.read_state(home)
    if found is not None:
        _signal(found.pid, signal.SIGTERM)
    _wait_until(
        lambda: not supervisor.is_alive(home),
        lambda: _failure(home, SUPERVISOR, f"is still there {_STOP_SECONDS:g} s after SIGTERM"),
        _STOP_SECONDS,
    )


def _signal(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:  # it ended by itself
        pass
    except PermissionError as exc:
        raise EmbeddedError(
            f"the supervisor (pid {pid}) belongs to another user", hint="sudo pgstack status"
        ) from exc


def _wait_until(
    done: Callable[[], bool],
    failure: Callable[[], EmbeddedError],
    seconds: float = _READY_SECONDS,
) -> None:
    deadline = time.monotonic() + seconds
    while not done():
        if time.monotonic() > deadline:
            raise failure()
        time.sleep(_POLL_SECONDS)


def _failure(home: Home, name: str, what: str) -> EmbeddedError:
    path = supervisor.log_file(home, name)
    lines = logs.last_lines(logs.read_from(path))
    return EmbeddedError("\n".join([f"the {name} {what}", *lines]), hint=f"tail {path}")


def _server(home: Home) -> tuple[str | None, Part]:
    pid = postgres.listener(home)
    if pid is None:
        return None, Part(running=False)
    query = """
        select current_setting('server_version'),
               extract(epoch from clock_timestamp() - pg_postmaster_start_time())::float8
    """
    try:
        with psycopg.connect(postgres.dsn(home, postgres.SUPERUSER), connect_timeout=5) as conn:
            version, uptime = conn.execute(query).fetchone() or (None, None)
    except psycopg.OperationalError as exc:  # starting, stopping, or out of connections
        return None, Part(running=True, pid=pid, note=str(exc).strip())
    return version, Part(running=True, pid=pid, uptime=uptime)


def _child(home: Home, name: str) -> Part:
    found = supervisor.read_state(home)
    child = found.children.get(name) if found else None
    if found is None or child is None:
        elsewhere = found is not None and name == MODEL_SERVER and found.plan.ollama_host
        return Part(running=False, note="OLLAMA_HOST is used instead" if elsewhere else None)
    if child.pid is None or child.started_at is None:
        note = "not started yet" if child.last_exit is None else f"ended with {child.last_exit}"
        return Part(running=False, restarts=child.restarts, note=note)
    uptime = max(0.0, time.time() - child.started_at)
    return Part(running=True, pid=child.pid, uptime=uptime, restarts=child.restarts)


def _is_running(child: ChildState | None) -> bool:
    return child is not None and child.pid is not None


def _disk_used(root: Path) -> int:
    """Return the bytes under ``root``; files that come and go meanwhile do not matter."""
    total = 0
    for directory, _, files in os.walk(root):
        for name in files:
            try:
                total += (Path(directory) / name).lstat().st_blocks * 512
            except FileNotFoundError:
                continue
    return total
