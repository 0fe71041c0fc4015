"""Where the embedded stack lives on disk.

Everything is under one directory, ``$PGSTACK_HOME``::

    server/   PostgreSQL's own files, one folder per version (see tree.py)
    data/     the database cluster
    run/      the Unix socket; mode 0700, and that mode is the lock on the door
    logs/     postgresql.log, model-server.log, worker.log, supervisor.log
    models/   weights of the embedded model server
    state/    locks, the supervisor's state, the TCP password

A Unix socket's path may have 107 bytes, and libpq takes a comma in it for the end of a
host name.  A home whose ``run/`` would break either rule keeps its socket in
``/tmp/pgstack-<hash of the home's path>``, made by us with mode 0700, checked to be ours
at each start and removed at each stop.  It is the only thing outside the home.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pgstack.errors import EmbeddedError

SOCKET_PATH_MAX = 107  # sun_path holds 108 bytes, one of them the closing zero
LONGEST_SOCKET_NAME = ".s.PGSQL.65535"
_DISK_TROUBLE = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR}


@dataclass(frozen=True)
class Home:
    """The directory of one embedded stack, and the places in it."""

    root: Path

    def __post_init__(self) -> None:
        object.__setattr__(self, "root", self.root.expanduser().absolute())

    @property
    def server_tree(self) -> Path:
        """Holds one assembled PostgreSQL per version of the wheels."""
        return self.root / "server"

    @property
    def data(self) -> Path:
        """PostgreSQL's data directory."""
        return self.root / "data"

    @property
    def run(self) -> Path:
        """The directory of the Unix socket."""
        inside = self.root / "run"
        return inside if _fits_a_socket(inside) else self.outside_run

    @property
    def outside_run(self) -> Path:
        """Where the socket goes when the home's own path cannot hold one."""
        digest = hashlib.sha256(os.fsencode(self.root.resolve())).hexdigest()
        # Not $TMPDIR: whoever asks, in whatever environment, must get the same answer.
        return Path("/tmp") / f"pgstack-{digest[:16]}"  # noqa: S108  (checked in account.py)

    @property
    def logs(self) -> Path:
        """The log files."""
        return self.root / "logs"

    @property
    def models(self) -> Path:
        """Weights of the embedded model server."""
        return self.root / "models"

    @property
    def state(self) -> Path:
        """Locks, the supervisor's state, the TCP password."""
        return self.root / "state"

    @property
    def password_file(self) -> Path:
        """The password of the role ``postgres`` over TCP; mode 0600."""
        return self.state / "postgres.password"

    @property
    def postgres_log(self) -> Path:
        """What PostgreSQL has to say."""
        return self.logs / "postgresql.log"


def default_home() -> Home:
    """Return the home named by the environment, or the usual place."""
    if named := os.environ.get("PGSTACK_HOME"):
        return Home(Path(named))
    if os.geteuid() == 0:
        return Home(Path("/var/lib/pgstack"))
    if shared := os.environ.get("XDG_DATA_HOME"):
        return Home(Path(shared) / "pgstack")
    return Home(Path("~/.local/share/pgstack"))


def _fits_a_socket(directory: Path) -> bool:
    longest = os.fsencode(directory / LONGEST_SOCKET_NAME)
    return len(longest) <= SOCKET_PATH_MAX and b"," not in longest


def free_bytes(directory: Path) -> int:
    """Return the free space of the disk that holds ``directory`` or will hold it."""
    return shutil.disk_usage(nearest_existing(directory)).free


def nearest_existing(directory: Path) -> Path:
    """Return the directory, or the nearest above it that is there and can be seen."""
    while not os.path.exists(directory):  # noqa: PTH110  (Path.exists raises where we may not look)
        directory = directory.parent
    return directory


@contextmanager
def disk_errors(directory: Path) -> Iterator[None]:
    """Turn a full, read-only or forbidden disk into an error that names ``directory``."""
    try:
        yield
    except OSError as exc:
        if exc.errno not in _DISK_TROUBLE:
            raise
        free = free_bytes(directory) // 2**20
        raise EmbeddedError(
            f"cannot write in {directory}: {exc.strerror} ({free} MB free)",
            hint=f"df -h {directory}   # then free space there, or set PGSTACK_HOME",
        ) from exc


def give_to_owner(fd: int, directory: Path) -> None:
    """Let a file that root made belong to whom its directory belongs."""
    if os.geteuid() == 0:
        owner = directory.stat()
        os.fchown(fd, owner.st_uid, owner.st_gid)


def open_lock(path: Path) -> int:
    """Open a lock file, made if need be, and return its descriptor."""
    with disk_errors(path.parent):
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        give_to_owner(fd, path.parent)
    return fd


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock file ``path``; wait while another process holds it."""
    fd = open_lock(path)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def write_atomically(path: Path, text: str) -> None:
    """Write a private file that readers see whole or not at all.

    The directory may belong to the server's user while root writes: mkstemp never
    follows a link that somebody put in the way.
    """
    with disk_errors(path.parent):
        fd, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
        try:
            with os.fdopen(fd, "w", encoding="utf-8") as file:
                give_to_owner(fd, path.parent)
                file.write(text)
                file.flush()
                os.fsync(fd)
            Path(name).replace(path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
