"""Limits on the process that reads files, put on by that process itself.

Raises nothing that a file could cause; what the system does not offer is left out.
"""

from __future__ import annotations

import fcntl
import os
import resource
import signal

_FILE_BYTES = 256_000_000
_OPEN_FILES = 64
_F_SETSIG = 10  # Linux


def die_with_parent(lifeline: int) -> None:
    """Die at once when the other end of the pipe ``lifeline`` closes."""
    if os.uname().sysname != "Linux":  # pragma: no cover - the end of stdin must do
        return
    # Not PR_SET_PDEATHSIG: that watches the thread that started us, not its process.
    fcntl.fcntl(lifeline, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(lifeline, _F_SETSIG, signal.SIGKILL)
    fcntl.fcntl(lifeline, fcntl.F_SETFL, os.O_ASYNC | os.O_NONBLOCK)


def limit_process(memory_bytes: int) -> None:
    """Limit memory, files and what a crash leaves, for good."""
    _limit(resource.RLIMIT_AS, memory_bytes)
    _limit(resource.RLIMIT_FSIZE, _FILE_BYTES)
    _limit(resource.RLIMIT_NOFILE, _OPEN_FILES)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def limit_processor(seconds: int) -> None:
    """Allow ``seconds`` more of processor time from now on."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    # The soft limit moves on with each file; the hard one stays open for that.
    hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
    soft = int(used.ru_utime + used.ru_stime) + seconds
    resource.setrlimit(
        resource.RLIMIT_CPU, (soft if hard == resource.RLIM_INFINITY else min(soft, hard), hard)
    )


def _limit(kind: int, value: int) -> None:
    hard = resource.getrlimit(kind)[1]
    value = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(kind, (value, value))
