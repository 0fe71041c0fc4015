"""Which system account runs the embedded stack, and what it may reach.

An ordinary user runs everything as themselves.  PostgreSQL refuses to run as root, so for
root it runs as the owner of an existing data directory or else as the system user
``pgstack``, which is created (``useradd --system``, no login) when it is missing.

That user must be able to walk to the home.  A directory on the way that shuts it out is
named in the error and left as it is: permissions are changed only on directories we made.
"""

from __future__ import annotations

import os
import pwd
import shutil
import stat
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pgstack.embedded.home import Home, disk_errors, nearest_existing
from pgstack.errors import EmbeddedError

SYSTEM_USER = "pgstack"

# PostgreSQL's tools put paths into shell commands between double quotes.
_UNUSABLE = set('"$`\\\n')

# Prints the first of its arguments that it may not enter.  A shell run as that user is
# the only judge that knows modes, groups, ACLs and security modules alike.
_FIRST_CLOSED = 'for d; do [ -x "$d" ] || { printf "%s" "$d"; exit; }; done'


@dataclass(frozen=True)
class Account:
    """A system user as the kernel sees it."""

    name: str
    uid: int
    gid: int

    @property
    def ids(self) -> tuple[int, int]:
        """The pair (uid, gid)."""
        return self.uid, self.gid


def myself() -> Account:
    """Return the user this process runs as."""
    return _by_uid(os.geteuid(), os.getegid())


def server_account(home: Home) -> Account:
    """Return the user that runs, or would run, the stack of this home."""
    if os.geteuid() != 0:
        return myself()
    try:
        owner = home.data.stat()
    except FileNotFoundError:
        return _system_user()
    if owner.st_uid == 0:
        raise EmbeddedError(
            f"{home.data} belongs to root, and PostgreSQL does not run as root",
            hint=f"chown -R {SYSTEM_USER}: {home.data}   # if it is a pgstack data directory",
        )
    return _by_uid(owner.st_uid, owner.st_gid)


def _by_uid(uid: int, gid: int) -> Account:
    try:
        return Account(pwd.getpwuid(uid).pw_name, uid, gid)
    except KeyError:  # a container started with an arbitrary --user
        return Account(str(uid), uid, gid)


def _system_user() -> Account:
    try:
        entry = pwd.getpwnam(SYSTEM_USER)
    except KeyError:
        _create_system_user()
        entry = pwd.getpwnam(SYSTEM_USER)
    return Account(entry.pw_name, entry.pw_uid, entry.pw_gid)


def _create_system_user() -> None:
    create = ["useradd", "--system", "--user-group", "--no-create-home"]
    create += ["--home-dir", "/nonexistent", "--shell", "/usr/sbin/nologin", SYSTEM_USER]
    if shutil.which("useradd") is None:
        raise EmbeddedError(
            f"PostgreSQL does not run as root, and there is no user {SYSTEM_USER}",
            hint=f"create a system user {SYSTEM_USER}, or run pgstack as an ordinary user",
        )
    done = subprocess.run(create, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return
    try:
        pwd.getpwnam(SYSTEM_USER)  # somebody else created it at the same moment
    except KeyError:
        raise EmbeddedError(
            f"cannot create the system user {SYSTEM_USER}: {done.stderr.strip()}",
            hint=" ".join(create),
        ) from None


def run(
    account: Account,
    args: Sequence[str | Path],
    *,
    cwd: Path = Path("/"),
    env: Mapping[str, str] | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run a program as ``account``; its stdout holds both output streams."""
    other = account.uid != os.geteuid()
    try:
        return subprocess.run(
            args,
            cwd=cwd,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
            check=False,
            user=account.uid if other else None,
            group=account.gid if other else None,
            extra_groups=[] if other else None,
        )
    except PermissionError as exc:
        raise EmbeddedError(
            f"cannot run {args[0]} as user {account.name}: {exc.strerror}",
            hint=f"findmnt -T {args[0]}   # a disk mounted noexec? a container without setuid?",
        ) from exc


def first_closed(account: Account, directory: Path) -> Path | None:
    """Return the first directory on the way to ``directory`` that shuts ``account`` out."""
    way = [*reversed(directory.parents), directory]
    closed = run(account, ["/bin/sh", "-c", _FIRST_CLOSED, "sh", *way]).stdout
    return Path(closed) if closed else None


def prepare(home: Home, account: Account) -> None:
    """Create the home's directories, each owned by who has to write in it."""
    if _UNUSABLE & set(str(home.root)):
        raise EmbeddedError(
            f'PostgreSQL cannot live in {home.root}: one of the characters " $ ` \\ is in it',
            hint="export PGSTACK_HOME=/another/directory   # then: pgstack up",
        )
    existing = nearest_existing(home.root.resolve())
    _require_reachable(account, existing)
    with disk_errors(existing):
        _make_root(home.root.resolve(), account)
    with disk_errors(home.root):
        home.server_tree.mkdir(exist_ok=True)
        if os.geteuid() == 0:
            home.server_tree.chmod(0o755)
        for directory in (home.logs, home.models, home.state):
            _make_private(directory, account)


def _require_reachable(account: Account, directory: Path) -> None:
    closed = first_closed(account, directory)
    if closed is not None:
        raise EmbeddedError(
            f"user {account.name}, who runs PostgreSQL, may not enter {closed}",
            hint=f"export PGSTACK_HOME=/a/place/within/reach   # or open it: chmod o+x {closed}",
        )


def _make_root(root: Path, account: Account) -> None:
    if root.exists():
        return
    _make_root(root.parent, account)
    root.mkdir(mode=0o700, exist_ok=True)  # another `up` may be a moment ahead
    if account.uid != os.geteuid():
        root.chmod(0o755)  # the server's user walks through, whatever root's umask


def _make_private(directory: Path, account: Account) -> None:
    directory.mkdir(mode=0o700, exist_ok=True)
    if os.geteuid() == 0:
        os.chown(directory, *account.ids, follow_symlinks=False)
        # Files that root wrote here while it ran the supervisor itself.
        for entry in os.scandir(directory):
            with suppress(FileNotFoundError):  # temporary files of another `up`
                os.chown(entry.path, *account.ids, follow_symlinks=False)


def make_socket_directory(directory: Path, account: Account) -> None:
    """Make the directory, or check that nobody put another thing in its place."""
    with disk_errors(directory.parent):
        directory.mkdir(mode=0o700, exist_ok=True)
    found = directory.lstat()
    ours = found.st_uid in (account.uid, os.geteuid())
    if not (stat.S_ISDIR(found.st_mode) and ours and stat.S_IMODE(found.st_mode) == 0o700):
        raise EmbeddedError(
            f"{directory} is not a private directory of user {account.name}",
            hint=f"ls -ld {directory}   # remove it, then: pgstack up",
        )
    if os.geteuid() == 0:
        os.chown(directory, *account.ids, follow_symlinks=False)
