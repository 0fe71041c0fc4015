"""Run a program and say what it cost: seconds, CPU seconds, memory, children included."""

from __future__ import annotations

import contextlib
import os
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_LOOK_SECONDS = 0.05


@dataclass(frozen=True)
class Usage:
    """What a finished program took, and what it said on stderr and stdout."""

    seconds: float
    cpu_seconds: float
    peak_mb: float
    exit_code: int
    output: str


def run(command: Sequence[str], env: Mapping[str, str]) -> Usage:
    """Run ``command`` to its end."""
    peaks: dict[int, int] = {}
    ended = threading.Event()
    with tempfile.TemporaryFile() as output:
        began = time.perf_counter()
        process = subprocess.Popen(
            command, env={**os.environ, **env}, stdout=output, stderr=subprocess.STDOUT
        )
        # Not ru_maxrss: a child inherits there what this program itself had before exec.
        watcher = threading.Thread(target=_watch, args=(process.pid, peaks, ended))
        watcher.start()
        try:
            _, status, used = os.wait4(process.pid, 0)
            seconds = time.perf_counter() - began
        finally:
            ended.set()
            watcher.join()
        process.returncode = os.waitstatus_to_exitcode(status)
        output.seek(0)
        said = output.read().decode(errors="replace")
    cpu = used.ru_utime + used.ru_stime
    return Usage(seconds, cpu, sum(peaks.values()) / 1024, process.returncode, said)


@contextlib.contextmanager
def in_background(command: Sequence[str], env: Mapping[str, str]) -> Iterator[None]:
    """Run ``command`` for the length of a ``with`` block."""
    process = subprocess.Popen(
        command,
        env={**os.environ, **env},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield
    finally:
        process.terminate()
        process.wait()


def _watch(pid: int, peaks: dict[int, int], ended: threading.Event) -> None:
    """Note the highest resident size, in kB, of a process and of each of its descendants."""
    while not ended.wait(_LOOK_SECONDS):
        for each in _family(pid):
            with contextlib.suppress(OSError, StopIteration):
                status = Path(f"/proc/{each}/status").read_text().splitlines()
                peaks[each] = int(next(x for x in status if x.startswith("VmHWM")).split()[1])


def _family(pid: int) -> Iterator[int]:
    yield pid
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                yield from _family(int(child))
