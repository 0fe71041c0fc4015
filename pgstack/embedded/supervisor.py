"""Keeps the model server and the worker running, and starts them again when they crash.

``python -m pgstack.embedded.supervisor --home DIR [--worker] [--models] [--detach]``, one
per home.  ``pgstack up`` starts it; PostgreSQL is not its business.

The supervisor holds a lock on ``state/supervisor.lock`` for as long as it lives: that, not
a pid, tells whether one runs.  While it does, ``state/supervisor.json`` says what it does.

Model server
    binds a free port and writes its URL to ``state/model-server.url`` when it is ready.
Worker
    waits for that URL and gets it as ``OLLAMA_HOST``; when the model server comes back
    under another URL, the worker is started anew.  With ``OLLAMA_HOST`` set for the
    supervisor itself, the worker gets that one and no model server is started.

A child that ends is started again after 0.5 s, then 1 s, 2 s ... 30 s; one that ran for a
minute begins at 0.5 s again.  SIGHUP starts at once what is waiting.  SIGTERM ends the
worker, then the model server: TERM first, KILL after 10 s.  Children get a SIGTERM from the
kernel when the supervisor itself is killed.  A supervisor whose home was moved or deleted
ends.
"""

from __future__ import annotations

import argparse
import ctypes
import fcntl
import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from pgstack.embedded import logs, postgres
from pgstack.embedded.home import Home, open_lock, write_atomically
from pgstack.errors import EmbeddedError

MODEL_SERVER = "model-server"
WORKER = "worker"
SUPERVISOR = "supervisor"

_TICK_SECONDS = 0.2
_ROTATE_SECONDS = 60.0
_LOCK_SECONDS = 5.0
GRACE_SECONDS = 10.0
_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 30.0
_HEALTHY_SECONDS = 60.0
_PR_SET_PDEATHSIG = 1

log = logging.getLogger("pgstack.supervisor")


@dataclass(frozen=True)
class Plan:
    """What a supervisor is to run."""

    worker: bool
    models: bool
    ollama_host: str | None  # somebody else's model server


@dataclass(frozen=True)
class ChildState:
    """One child, as the supervisor last saw it."""

    pid: int | None = None
    started_at: float | None = None  # seconds since the epoch
    restarts: int = 0
    last_exit: int | None = None  # negative: the signal that ended it


@dataclass(frozen=True)
class State:
    """What ``state/supervisor.json`` says."""

    pid: int
    plan: Plan
    children: dict[str, ChildState] = field(default_factory=dict)


def lock_file(home: Home) -> Path:
    """Return the file that a living supervisor has locked."""
    return home.state / f"{SUPERVISOR}.lock"


def state_file(home: Home) -> Path:
    """Return the file in which a supervisor says what it does."""
    return home.state / f"{SUPERVISOR}.json"


def url_file(home: Home) -> Path:
    """Return the file in which the model server says where it listens."""
    return home.state / f"{MODEL_SERVER}.url"


def log_file(home: Home, name: str) -> Path:
    """Return the log of a child, or of the supervisor."""
    return home.logs / f"{name}.log"


def is_alive(home: Home) -> bool:
    """Tell whether a supervisor runs for this home."""
    try:
        fd = os.open(lock_file(home), os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


def read_state(home: Home) -> State | None:
    """Return what the living supervisor does; None when none lives or it is just starting."""
    if not is_alive(home):
        return None
    try:
        raw = json.loads(state_file(home).read_text())
    except FileNotFoundError:
        return None
    children = {name: ChildState(**child) for name, child in raw["children"].items()}
    return State(pid=raw["pid"], plan=Plan(**raw["plan"]), children=children)


def read_url(home: Home) -> str | None:
    """Return the URL of the embedded model server; None while it is not ready."""
    try:
        return url_file(home).read_text().strip() or None
    except FileNotFoundError:
        return None


def model_server_command(home: Home) -> list[str]:
    """Return the command line of the model server."""
    module = [sys.executable, "-m", "pgstack.embedded.modelserver"]
    where = ["--host", "127.0.0.1", "--port", "0"]
    files = ["--models-dir", str(home.models), "--url-file", str(url_file(home))]
    return module + where + files


def worker_command(home: Home) -> list[str]:
    """Return the command line of the worker."""
    return [sys.executable, "-m", "pgstack.worker", "--database-url", postgres.dsn(home)]


class Child:
    """A program that is started, watched, and started again."""

    def __init__(self, name: str, log_path: Path) -> None:
        self.name = name
        self.state = ChildState()
        self._log_path = log_path
        self._process: subprocess.Popen[bytes] | None = None
        self._pause = _FIRST_PAUSE
        self._not_before = 0.0
        self._started = 0.0

    def tick(self, command: Callable[[], Sequence[str]], env: Mapping[str, str]) -> None:
        """Notice an end; start when it is time to."""
        if self._process is not None and self._process.poll() is not None:
            self._ended(self._process.returncode)
        if self._process is None and time.monotonic() >= self._not_before:
            self._start(command, env)

    def hurry(self) -> None:
        """Do not wait with the next start."""
        self._pause = _FIRST_PAUSE
        self._not_before = 0.0

    def stop(self) -> None:
        """End it: ask first, and force after a while."""
        process = self._process
        if process is None:
            return
        log.info("%s: stopping", self.name)
        process.terminate()
        try:
            process.wait(GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            log.warning("%s: still there after %g s, killed", self.name, GRACE_SECONDS)
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        self._process = None
        self.hurry()
        self.state = ChildState(restarts=self.state.restarts, last_exit=process.returncode)

    def _start(self, command: Callable[[], Sequence[str]], env: Mapping[str, str]) -> None:
        self._started = time.monotonic()
        try:
            with logs.open_to_append(self._log_path) as output:
                self._process = subprocess.Popen(
                    command(),
                    env=env,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                    preexec_fn=_die_with_parent,  # noqa: PLW1509  (this process has one thread)
                )
        except (OSError, EmbeddedError) as exc:
            log.error("%s: cannot start: %s", self.name, exc)
            self._rest(last_exit=None)
            return
        log.info("%s: started, pid %d", self.name, self._process.pid)
        self.state = ChildState(
            pid=self._process.pid,
            started_at=time.time(),
            restarts=self.state.restarts,
            last_exit=self.state.last_exit,
        )

    def _ended(self, status: int) -> None:
        self._process = None
        if time.monotonic() - self._started > _HEALTHY_SECONDS:
            self._pause = _FIRST_PAUSE
        log.warning("%s: ended with %d, next start in %g s", self.name, status, self._pause)
        self._rest(last_exit=status)

    def _rest(self, *, last_exit: int | None) -> None:
        self._not_before = time.monotonic() + self._pause
        self._pause = min(2 * self._pause, _LONGEST_PAUSE)
        self.state = ChildState(restarts=self.state.restarts + 1, last_exit=last_exit)


class Supervisor:
    """The children of one home and the order among them."""

    def __init__(self, home: Home, plan: Plan) -> None:
        self._home = home
        self._plan = plan
        self._models = Child(MODEL_SERVER, log_file(home, MODEL_SERVER))
        self._worker = Child(WORKER, log_file(home, WORKER))
        self._worker_host: str | None = None
        self._written: State | None = None

    def hurry(self) -> None:
        """Start at once what waits for its next try."""
        self._models.hurry()
        self._worker.hurry()

    def run(self, stopping: threading.Event) -> None:
        """Watch until told to stop, then stop what runs."""
        next_rotation = 0.0
        while not stopping.is_set() and lock_file(self._home).exists():
            if self._plan.models:
                self._tick_models()
            if self._plan.worker:
                self._tick_worker()
            self._write_state()
            if time.monotonic() > next_rotation:
                self._rotate()
                next_rotation = time.monotonic() + _ROTATE_SECONDS
            stopping.wait(_TICK_SECONDS)
        self._worker.stop()
        self._models.stop()

    def _tick_models(self) -> None:
        def command() -> list[str]:
            url_file(self._home).unlink(missing_ok=True)
            return model_server_command(self._home)

        self._models.tick(command, os.environ)

    def _tick_worker(self) -> None:
        host = read_url(self._home) if self._plan.models else self._plan.ollama_host
        if self._plan.models and host is None:
            return  # not ready yet, or between two lives
        if host != self._worker_host:
            self._worker.stop()
            self._worker_host = host
        env = dict(os.environ) if host is None else {**os.environ, "OLLAMA_HOST": host}
        self._worker.tick(lambda: worker_command(self._home), env)

    def _write_state(self) -> None:
        wanted = {MODEL_SERVER: self._plan.models, WORKER: self._plan.worker}
        children = {c.name: c.state for c in (self._models, self._worker) if wanted[c.name]}
        state = State(pid=os.getpid(), plan=self._plan, children=children)
        if state == self._written:
            return
        try:
            text = json.dumps(asdict(state), indent=2)
            write_atomically(state_file(self._home), text)
            self._written = state
        except EmbeddedError as exc:  # a full disk is no reason to stop working
            log.error("%s", exc)

    def _rotate(self) -> None:
        for path in self._home.logs.glob("*.log"):
            try:
                logs.rotate(path)
            except OSError as exc:
                log.error("cannot rotate %s: %s", path, exc)


def _die_with_parent() -> None:
    """Ask the kernel for a SIGTERM when the supervisor dies (runs in the child)."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _detach(output: Path) -> None:
    """Leave the terminal and the starter; write to a log from here on."""
    with Path(os.devnull).open("rb") as nothing, logs.open_to_append(output) as file:
        if os.fork() != 0:
            os._exit(0)
        os.setsid()
        os.dup2(nothing.fileno(), 0)
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)


def _take_lock(home: Home) -> bool:
    """Lock the home for the rest of this process's life; False when another has it."""
    fd = open_lock(lock_file(home))
    deadline = time.monotonic() + _LOCK_SECONDS
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:  # another one, or somebody who looks whether there is one
            if time.monotonic() > deadline:
                os.close(fd)
                return False
            time.sleep(0.05)
        else:
            return True


def main(argv: Sequence[str] | None = None) -> int:
    """Run the supervisor of one home until SIGTERM."""
    parser = argparse.ArgumentParser(prog="python -m pgstack.embedded.supervisor")
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--worker", action="store_true", help="run a worker")
    parser.add_argument("--models", action="store_true", help="run a model server")
    parser.add_argument("--detach", action="store_true", help="go to the background")
    options = parser.parse_args(argv)
    home = Home(options.home)
    if options.detach:
        _detach(log_file(home, SUPERVISOR))
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    if not _take_lock(home):
        log.error("another supervisor runs for %s", home.root)
        return 1
    ollama_host = os.environ.get("OLLAMA_HOST") or None
    models = options.models and ollama_host is None
    _supervise(home, Plan(worker=options.worker, models=models, ollama_host=ollama_host))
    return 0


def _supervise(home: Home, plan: Plan) -> None:
    stopping = threading.Event()
    watching = Supervisor(home, plan)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    signal.signal(signal.SIGHUP, lambda *_: watching.hurry())
    leftovers = (state_file(home), url_file(home))
    for file in leftovers:
        file.unlink(missing_ok=True)
    log.info("supervising %s: %s", home.root, plan)
    watching.run(stopping)
    for file in leftovers:
        file.unlink(missing_ok=True)
    log.info("done")


if __name__ == "__main__":
    sys.exit(main())
