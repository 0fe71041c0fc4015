"""The stack's log files: open, read the end, keep them from growing without end.

A log past ``LIMIT`` bytes is copied to ``NAME.1`` and cut to nothing.  Not renamed: the
program that writes it holds it open for appending and goes on in the same file.

The directory may belong to an unprivileged user while root works in it: a link that user
put in a log's place is never followed when writing.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import BinaryIO

from pgstack.embedded.home import give_to_owner

LIMIT = 10 * 2**20
LINES_SHOWN = 20


def open_to_append(log: Path) -> BinaryIO:
    """Open a log for writing at its end."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open(log, flags, 0o600)
    give_to_owner(fd, log.parent)
    return os.fdopen(fd, "ab")


def rotate(log: Path) -> None:
    """Put a log that has grown too large aside as ``NAME.1``."""
    if size(log) <= LIMIT:
        return
    fd, copy = tempfile.mkstemp(dir=log.parent, prefix=f".{log.name}-")
    try:
        with open_to_append(log) as current, log.open("rb") as old, os.fdopen(fd, "wb") as new:
            give_to_owner(fd, log.parent)
            shutil.copyfileobj(old, new)
            Path(copy).replace(log.with_name(f"{log.name}.1"))
            current.truncate(0)
    except OSError:
        Path(copy).unlink(missing_ok=True)
        raise


def size(log: Path) -> int:
    """Return a log's bytes; 0 when there is none."""
    return log.stat().st_size if log.exists() else 0


def read_from(log: Path, offset: int = 0) -> str:
    """Return what a log holds after ``offset`` bytes; nothing when there is no log."""
    try:
        with log.open("rb") as file:
            file.seek(offset)
            return file.read().decode(errors="replace")
    except FileNotFoundError:
        return ""


def last_lines(text: str) -> list[str]:
    """Return the lines of a log that an error message shows."""
    return text.strip().splitlines()[-LINES_SHOWN:]
