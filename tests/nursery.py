"""Workers for tests: real processes, forked from one that has imported all that a worker needs.

To start Python and import the clients costs more processor time than most tests need.  A forked
worker runs ``python -m pgstack.worker`` from its first line on.

As a program this is the process that forks: it reads requests, one packet each, from its standard
input, a socket, and ends with whoever holds the other end.
"""

from __future__ import annotations

import atexit
import json
import os
import runpy
import select
import socket
import subprocess
import sys
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

PACKET = 2**17


class Process:
    """A forked worker, with what subprocess.Popen offers."""

    def __init__(self, parent: socket.socket, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._parent = parent

    def poll(self) -> int | None:
        """Return the exit code, negative for a signal, or None while it runs."""
        if self.returncode is None:
            self.returncode = _asked(self._parent, {"ended": self.pid})["code"]
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Return the exit code once it has ended."""
        if self.poll() is None:
            watched = os.pidfd_open(self.pid)
            try:
                if not select.select([watched], [], [], timeout)[0]:
                    raise subprocess.TimeoutExpired(f"worker {self.pid}", timeout or 0)
            finally:
                os.close(watched)
        code = self.poll()
        assert code is not None
        return code

    def send_signal(self, signum: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, signum)


def start(
    arguments: list[str], environment: dict[str, str], output: tuple[int, int] = (1, 2)
) -> Process:
    """Start a worker that writes to these files: as they are now, this process's own."""
    parent = _nursery()
    request = {"arguments": arguments, "environment": environment, "folder": str(Path.cwd())}
    return Process(parent, _asked(parent, request, [*output])["pid"])


@cache
def _nursery() -> socket.socket:
    """The other end of the forking process, one for each process that runs tests."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.nursery"], stdin=theirs, cwd=Path(__file__).parents[1]
        )

    def end() -> None:
        ours.close()
        process.wait()

    atexit.register(end)
    return ours


def _asked(parent: socket.socket, request: dict[str, Any], files: list[int] | None = None) -> Any:
    socket.send_fds(parent, [json.dumps(request).encode()], files or [])
    answer = parent.recv(PACKET)
    assert answer, "the process that forks workers has ended"
    return json.loads(answer)


def _ended(pid: int) -> int | None:
    done, status = os.waitpid(pid, os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if done else None


def _serve(asked: socket.socket) -> dict[str, Any] | None:
    """Answer requests; return, in a new process, what its worker is to be."""
    while True:
        packet, files, _, _ = socket.recv_fds(asked, PACKET, 2)
        if not packet:
            return None
        request = json.loads(packet)
        if "ended" in request:
            answer = {"code": _ended(request["ended"])}
        elif pid := os.fork():
            for file in files:
                os.close(file)
            answer = {"pid": pid}
        else:
            _take(files)
            return dict(request)
        asked.send(json.dumps(answer).encode())


def _take(files: list[int]) -> None:
    """Make given files standard output and error, and standard input an empty one."""
    empty = os.open(os.devnull, os.O_RDONLY)
    for number, file in enumerate([empty, *files]):
        os.dup2(file, number)
        os.close(file)


def _main() -> None:
    import httpx  # noqa: F401
    import ollama  # noqa: F401

    import pgstack.worker.command  # noqa: F401

    worker = None
    with socket.socket(fileno=os.dup(0)) as asked, suppress(BrokenPipeError, KeyboardInterrupt):
        worker = _serve(asked)
    if worker is None:
        return
    os.environ.clear()
    os.environ.update(worker["environment"])
    os.chdir(worker["folder"])
    sys.argv[1:] = worker["arguments"]
    runpy.run_module("pgstack.worker", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    _main()
