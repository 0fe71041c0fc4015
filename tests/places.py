"""Where the servers of tests keep their files: in memory, where there is room for them.

To clone a database is to write four hundred files. On a disk that takes up to ten times the
processor time, which is most of what many tests take.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

MEMORY = Path("/dev/shm")
ENOUGH = 6 * 2**30  # bytes; a run takes less than 2 in each of its processes


@cache
def folder() -> Path | None:
    """The folder for servers; None: that for temporary files.

    Containers often have little memory for files, or let no program run from there.
    """
    try:
        found = os.statvfs(MEMORY)
        available = re.search(r"MemAvailable:\s+(\d+) kB", Path("/proc/meminfo").read_text())
    except OSError:
        return None
    free = min(found.f_bavail * found.f_frsize, int(available[1]) * 1024 if available else 0)
    return None if found.f_flag & os.ST_NOEXEC or free < ENOUGH else MEMORY


@contextmanager
def place(prefix: str) -> Iterator[Path]:
    """A directory that PostgreSQL's user can reach (tmp_path is closed to others)."""
    directory = Path(tempfile.mkdtemp(prefix=prefix, dir=folder()))
    directory.chmod(0o755)
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)
