"""The embedded PostgreSQL: set up, start, stop, find.

``start`` does all that is missing, in this order and under one lock, so that any number of
callers may call it at any time: assemble the server (tree.py), initdb, write pgstack.conf,
start, wait until it takes connections, create the database ``pgstack``.

Whether a server runs is asked of its socket, not of a pid file: the kernel tells who
listens there (SO_PEERCRED).  A pid file left by a killed server, a pid that now belongs to
somebody else, a home that was moved: none of them can mislead it.

Paths are given to PostgreSQL at each start and stored nowhere, so a home may be moved.
initdb works in a directory of its own that is renamed when complete; a full disk leaves
nothing half made.

Collation: the builtin provider's C.UTF-8 for order and case (fast, and the same on every
machine a home is moved to), the C library's C.UTF-8 for what full-text search asks of a
character.  Names sort by code point; ask for ``collate`` where people read the order.
"""

from __future__ import annotations

import os
import secrets
import shlex
import shutil
import socket
import struct
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from pgstack.embedded import account, conf, logs, tree
from pgstack.embedded.account import Account
from pgstack.embedded.home import Home, disk_errors, free_bytes, locked, write_atomically
from pgstack.errors import EmbeddedError, UsageError

if TYPE_CHECKING:
    import psycopg

DATABASE = "pgstack"
SUPERUSER = "postgres"
DEFAULT_PORT = 5432  # of the socket's name; nothing listens on TCP unless asked to

_START_SECONDS = 60
_STOP_SECONDS = 60
_LEFTOVER_SECONDS = 15
# What PostgreSQL says while a killed server, or a backend of it, is not quite gone.
_DYING, _ORPHANS = "Is another postmaster", "pre-existing shared memory block"
_UNFINISHED = "data.new-"

# Every postgres that works in the data directory, as all processes of a server do.
_QUIT_BACKENDS = """
for process in /proc/[0-9]*; do
  [ "$process/cwd" -ef "$1" ] && [ "$(cat "$process/comm")" = postgres ] &&
    kill -QUIT "${process#/proc/}"
done
"""


@dataclass(frozen=True)
class _PidFile:
    """What a server wrote into postmaster.pid; it may be dead by now."""

    pid: int
    port: int
    listen: str
    ready: bool


def start(
    home: Home, *, tcp_port: int | None = None, settings: Mapping[str, str] | None = None
) -> None:
    """Make sure that the server runs and has the database ``pgstack``.

    ``settings`` (PostgreSQL names and values) and ``tcp_port`` hold for this run of the server.
    """
    who = account.server_account(home)
    account.prepare(home, who)
    with locked(home.state / "postgres.lock"):
        account.make_socket_directory(home.run, who)
        if listener(home) is None:
            _set_up(home, who, settings or {})
            _write_conf(home, tcp_port, settings or {})
            _launch(home, who)
        _await_ready(home)
        _require_port(home, tcp_port)
        _finish(home, tcp_port)


def stop(home: Home, *, mode: str = "fast") -> bool:
    """Stop the server and return whether one ran; ``mode`` as in pg_ctl."""
    if mode not in ("smart", "fast", "immediate"):
        raise UsageError(f"no such way to stop: {mode}", hint="smart, fast or immediate")
    if listener(home) is None and not home.state.is_dir():
        return False
    with locked(home.state / "postgres.lock"):
        running = listener(home) is not None
        if running:
            who = account.server_account(home)
            done = _pg_ctl(home, who, "stop", "-m", mode, "-t", str(_STOP_SECONDS))
            if listener(home) is not None:
                raise EmbeddedError(
                    f"PostgreSQL did not stop in {_STOP_SECONDS} s: {done}", hint="pgstack status"
                )
        if home.run == home.outside_run:
            shutil.rmtree(home.run, ignore_errors=True)
    return running


def is_running(home: Home) -> bool:
    """Tell whether a server listens on this home's socket."""
    return listener(home) is not None


def dsn(home: Home, dbname: str = DATABASE) -> str:
    """Return the connection URI of a database of this home, running or not."""
    found = _pid_file(home)
    port = found.port if found else DEFAULT_PORT
    query = f"host={quote(str(home.run), safe='')}&port={port}"
    if home.run == home.outside_run and home.data.exists():
        # Anybody may make a directory in /tmp: libpq checks who answers there.
        query += f"&requirepeer={quote(account.server_account(home).name, safe='')}"
    return f"postgresql://{SUPERUSER}@/{quote(dbname, safe='')}?{query}"


def tcp_port(home: Home) -> int | None:
    """Return the port on 127.0.0.1, or None when only the socket is open."""
    found = _pid_file(home)
    return found.port if found and found.listen and is_running(home) else None


def binary(home: Home, name: str) -> Path:
    """Return the path of a bundled program such as psql or pg_dump."""
    program = tree.current(home) / "bin" / name
    if not program.is_file():
        raise EmbeddedError(f"no program {name} in {program.parent}", hint=f"ls {program.parent}")
    return program


def listener(home: Home) -> int | None:
    """Return the pid of the server that listens on this home's socket, or None."""
    found = _pid_file(home)
    if found is None:
        return None
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(home.run / f".s.PGSQL.{found.port}"))
        except (FileNotFoundError, ConnectionRefusedError):
            return None
        peer = probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    pid, uid, _ = struct.unpack("3i", peer)
    if uid != home.data.stat().st_uid:
        raise EmbeddedError(
            f"another user's program (uid {uid}, pid {pid}) listens in {home.run}",
            hint=f"ls -la {home.run}",
        )
    return int(pid)


def _pid_file(home: Home) -> _PidFile | None:
    try:
        lines = (home.data / "postmaster.pid").read_text().splitlines()
        return _PidFile(
            pid=int(lines[0]),
            port=int(lines[3]),
            listen=lines[5].strip() if len(lines) > 5 else "",
            ready=len(lines) > 7 and lines[7].strip() == "ready",
        )
    except PermissionError as exc:
        raise EmbeddedError(
            f"{home.data} belongs to another user",
            hint="export PGSTACK_HOME=/a/directory/of/yours   # then: pgstack up",
        ) from exc
    except (FileNotFoundError, NotADirectoryError, IndexError, ValueError):
        return None  # no server, or one that is just writing its first lines


def _set_up(home: Home, who: Account, settings: Mapping[str, str]) -> None:
    """Bring the tree and the cluster into being, and clear away what a crash left."""
    built = tree.assemble(home)
    with disk_errors(home.root):
        tree.remove_others(home, keep=built)
        for unfinished in home.root.glob(f"{_UNFINISHED}*"):
            shutil.rmtree(unfinished)
        if not home.data.exists():
            _initdb(home, who, sync=settings.get("fsync") != "off")


def _initdb(home: Home, who: Account, *, sync: bool) -> None:
    unfinished = Path(tempfile.mkdtemp(dir=home.root, prefix=_UNFINISHED))
    try:
        if os.geteuid() == 0:
            os.chown(unfinished, *who.ids)
        args: list[str | Path] = [binary(home, "initdb"), "-D", unfinished, "-U", SUPERUSER]
        args += ["--encoding=UTF8", "--locale=C.UTF-8"]
        args += ["--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
        args += ["--data-checksums", "--auth=trust", "--text-search-config=english"]
        args += [] if sync else ["--no-sync"]
        done = account.run(who, args, cwd=home.root, env=_environment())
        if done.returncode != 0:
            raise _failed(home, "cannot create the database cluster", done.stdout)
        write_atomically(unfinished / "pg_hba.conf", conf.HBA)
        main = unfinished / "postgresql.conf"
        write_atomically(main, main.read_text() + conf.INCLUDE)
        unfinished.rename(home.data)
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise


def _write_conf(home: Home, tcp_port: int | None, settings: Mapping[str, str]) -> None:
    content = conf.text(tcp_port=tcp_port, settings=settings)
    write_atomically(home.data / conf.FILE, content)


def _launch(home: Home, who: Account) -> None:
    """Start the server; wait for what a killed one left to go away."""
    with disk_errors(home.logs):
        logs.rotate(home.postgres_log)
    deadline = time.monotonic() + _LEFTOVER_SECONDS
    while True:
        _remove_dead_locks(home)
        before = logs.size(home.postgres_log)
        said = _pg_ctl(home, who, "start", *_start_options(home))
        if listener(home) is not None:
            return
        log = logs.read_from(home.postgres_log, before)
        leftovers = _DYING in log or _ORPHANS in log
        if not leftovers or time.monotonic() > deadline:
            raise _failed(home, "PostgreSQL did not start", log or said)
        if _ORPHANS in log:  # so the server itself is gone
            _end_orphans(home, who)
        time.sleep(0.2)


def _start_options(home: Home) -> list[str]:
    # On the command line, where no setting of a user can override it: we find the server
    # by its socket. pg_ctl hands the text to a shell; PostgreSQL reads a list of names.
    place = shlex.quote(f'unix_socket_directories="{home.run}"')
    return ["-t", str(_START_SECONDS), "-l", str(home.postgres_log), "-o", f"-c {place}"]


def _pg_ctl(home: Home, who: Account, *args: str) -> str:
    command: list[str | Path] = [binary(home, "pg_ctl"), "-D", home.data, "-w", "-s", *args]
    return account.run(who, command, cwd=home.root, env=_environment()).stdout.strip()


def _environment() -> dict[str, str]:
    """Return what the server may inherit: no PG* variable, no secret, no locale."""
    kept = {name: os.environ[name] for name in ("PATH", "TZ") if name in os.environ}
    return {"PATH": os.defpath, "LC_ALL": "C"} | kept


def _remove_dead_locks(home: Home) -> None:
    """Remove a dead server's pid files when their number is no server's.

    The number may belong to another program (usual after a container restarts), or to a zombie
    (a container whose first process does not collect its children). PostgreSQL would take
    either for a server and refuse to start. It copes by itself with a number that is free,
    and its shared memory keeps a second server off the data even without the files.
    """
    for file in (home.data / "postmaster.pid", *home.run.glob(".s.PGSQL.*.lock")):
        with suppress(FileNotFoundError):
            pid = file.read_text().partition("\n")[0]
            if not _may_be_server(home, Path("/proc") / pid):
                file.unlink()


def _may_be_server(home: Home, process: Path) -> bool:
    """Tell whether a process is, as far as the kernel lets us see, a server of this home."""
    try:
        status = (process / "status").read_text()
        if not status.startswith("Name:\tpostgres\n") or "\nState:\tZ" in status:
            return False
        return (process / "cwd").samefile(home.data)
    except PermissionError:  # another user's, and root without SYS_PTRACE: cannot tell
        return True
    except OSError:  # gone
        return False


def _end_orphans(home: Home, who: Account) -> None:
    """End the backends of a server that was killed: nobody reads their shared memory now.

    Most end by themselves; one that computes does not notice. Asked as their own user: in
    a container without SYS_PTRACE the kernel hides other users' processes even from root.
    """
    account.run(who, ["/bin/sh", "-c", _QUIT_BACKENDS, "sh", home.data])


def _await_ready(home: Home) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while not ((found := _pid_file(home)) and found.ready and _takes_connections(home)):
        if listener(home) is None:
            raise _failed(
                home, "PostgreSQL ended while it started", logs.read_from(home.postgres_log)
            )
        if time.monotonic() > deadline:
            raise EmbeddedError(
                f"PostgreSQL is still recovering after {_START_SECONDS} s",
                hint="pgstack logs   # then again: pgstack up",
            )
        time.sleep(0.05)


def _takes_connections(home: Home) -> bool:
    """Ask the server itself: its pid file says "ready" while it recovers from a crash."""
    from psycopg import pq

    return pq.PGconn.ping(dsn(home, SUPERUSER).encode()) == pq.Ping.OK


def _require_port(home: Home, wanted: int | None) -> None:
    if wanted is not None and tcp_port(home) != wanted:
        raise EmbeddedError(
            f"PostgreSQL runs already, and not on TCP port {wanted}",
            hint="pgstack down   # then start it again with that port",
        )


def _finish(home: Home, port: int | None) -> None:
    """Create the database, and the password that TCP asks for."""
    # Late, here as above: `pgstack url` asks where the server is, and no server.
    import psycopg
    from psycopg import sql

    with psycopg.connect(dsn(home, SUPERUSER), autocommit=True, connect_timeout=10) as conn:
        query = "select from pg_catalog.pg_database where datname = %s"
        if conn.execute(query, [DATABASE]).fetchone() is None:
            conn.execute(sql.SQL("create database {}").format(sql.Identifier(DATABASE)))
        if port is not None and not home.password_file.exists():
            _set_password(conn, home)


def _set_password(conn: psycopg.Connection[tuple[object, ...]], home: Home) -> None:
    """Give the superuser a password; the server, and so its log, sees only its hash."""
    from psycopg import sql

    password = secrets.token_urlsafe(24)
    user = SUPERUSER.encode()
    verifier = conn.pgconn.encrypt_password(password.encode(), user, b"scram-sha-256").decode()
    statement = sql.SQL("alter role {} password {}")
    conn.execute(statement.format(sql.Identifier(SUPERUSER), sql.Literal(verifier)))
    write_atomically(home.password_file, password + "\n")


def _failed(home: Home, what: str, said: str) -> EmbeddedError:
    free = free_bytes(home.root) // 2**20
    return EmbeddedError(
        "\n".join([f"{what} in {home.root} ({free} MB free)", *logs.last_lines(said)]),
        hint=f"tail {home.postgres_log}   # mend what it says, then: pgstack up",
    )
