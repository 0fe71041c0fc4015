"""Finds the files to read: walks folders, by the rules for what is left out.

Data in and out
    in      the local :class:`~pgstack.ingest.roots.Root`, and :class:`Rules`
    yields  :class:`Found`: files with size and time of change, or why something cannot be read

Folders come in sorted order, files before the folders beside them.  What is held in memory is
one folder's names and those on the way to it.

Left out without a word: hidden files, what version control and package managers keep, what
``.gitignore`` and ``.pgstackignore`` name.  Their rules are git's: those of a folder go before
those of the folders above it, up to where the repository begins.  What a user names himself is
read, whatever the rules say.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from pathspec import GitIgnoreSpec
from pathspec.patterns.gitignore.base import GitIgnorePatternError

from pgstack.ingest.report import printable
from pgstack.ingest.roots import Root, below, file_uri

IGNORE_FILES = (".gitignore", ".pgstackignore")
_LARGEST_IGNORE_FILE = 1_000_000  # bytes
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

# What version control and package managers keep beside people's own files.
_NOT_OURS = frozenset(
    {"CVS", "_darcs", "node_modules", "__pycache__", ".git", ".hg", ".svn", ".bzr", ".jj"}
)


@dataclass(frozen=True)
class Rules:
    """What is left out; ``include`` and ``exclude`` are relative to each root."""

    include: GitIgnoreSpec | None = None
    exclude: GitIgnoreSpec | None = None
    ignore_files: bool = True
    hidden: bool = False
    follow_symlinks: bool = False


@dataclass(frozen=True, slots=True)
class Found:
    """A file to read, or the reason why not.

    ``place``     path, or URL with all that is needed to fetch it
    ``uri``       what tells its document from others; no secrets
    ``size``      its length in bytes; None: not known yet
    ``modified``  when it was changed, to the microsecond; None: not known
    ``data``      what it holds, where that is known already (standard input), its name and type
    ``hides``     a problem of a folder: nothing is known of what lies below
    """

    place: str
    uri: str
    size: int | None = None
    modified: datetime | None = None
    problem: str | None = None
    hides: bool = False
    data: bytes | None = None
    name: str | None = None
    media_type: str | None = None

    @property
    def is_file(self) -> bool:
        """Whether it lies on a disk of this machine."""
        return self.uri.startswith("file://")

    @property
    def shown(self) -> str:
        """What people are told of its place."""
        return printable(self.place) if self.is_file else self.uri


@dataclass(frozen=True)
class _Folder:
    """A folder still to be read.

    ``above``   folders on the way down, so that a link to one of them does not go round in circles
    ``ignores`` what the ignore files on the way say, the outermost first, each with what the
                paths it speaks of begin with
    ``whole``   all of it is wanted, not only what leads to a target
    """

    path: str
    above: frozenset[tuple[int, int]] = frozenset()
    ignores: tuple[tuple[str, GitIgnoreSpec], ...] = ()
    whole: bool = True


@dataclass(frozen=True)
class Targets:
    """Paths that changed: only they, and what lies below them, is looked for."""

    paths: frozenset[str]
    above: frozenset[str] = field(init=False)

    def __post_init__(self) -> None:
        above = set()
        for path in self.paths:
            parent = os.path.dirname(path)  # noqa: PTH120 - a million times
            while parent not in above:
                above.add(parent)
                parent = os.path.dirname(parent)  # noqa: PTH120
        object.__setattr__(self, "above", frozenset(above))


def find(
    roots: Sequence[Root], rules: Rules, targets: Collection[str] | None = None
) -> Iterator[Found]:
    """Yield the files below ``roots``; each once, although roots may lie within each other.

    ``targets``  absolute paths: yield only these, and what lies below them
    """
    wanted = None if targets is None else Targets(frozenset(targets))
    named = frozenset(root.path for root in roots if root.glob is None)
    for number, root in enumerate(roots):
        walk = _Walk(root, rules, roots[:number], named, wanted)
        yield from walk.files()


def modified_at(mtime_ns: int) -> datetime | None:
    """Return a file's time of change to the microsecond; None where that is no date."""
    try:
        return _EPOCH + timedelta(microseconds=mtime_ns // 1000)
    except OverflowError:
        return None


class _Walk:
    """Walks one root."""

    def __init__(
        self,
        root: Root,
        rules: Rules,
        before: Sequence[Root],
        named: frozenset[str],
        targets: Targets | None,
    ) -> None:
        self._root = root
        self._rules = rules
        self._named = named  # each of them is walked by itself
        self._targets = targets
        # A glob leaves out what was named otherwise, or by a glob before it.
        self._before = before if root.glob is not None else ()
        self._prefix = below(root.path)

    def files(self) -> Iterator[Found]:
        path = self._root.path
        whole = self._targets is None or path in self._targets.paths
        if self._targets and not whole and path not in self._targets.above:
            inside = any(path.startswith(below(target)) for target in self._targets.paths)
            if not inside:
                return
            whole = True
        try:
            status = os.stat(path)  # noqa: PTH116
        except OSError as exc:
            yield _problem(path, exc)
            return
        if not stat.S_ISDIR(status.st_mode):
            if self._root.glob is None:
                yield _checked(path, status)
            return
        stack = [_Folder(path, ignores=self._ignores_above(path), whole=whole)]
        nothing = self._root.glob is not None and self._targets is None
        while stack:
            folders: list[_Folder] = []
            for found in self._read(stack.pop(), folders):
                nothing = False
                yield found
            stack += reversed(folders)
        if nothing:
            yield _problem(self._root.text, "matches no file")

    def _ignores_above(self, path: str) -> tuple[tuple[str, GitIgnoreSpec], ...]:
        """Return what a repository says of a folder in it, unless it says to ignore all of that."""
        if not self._rules.ignore_files:
            return ()
        found: list[tuple[str, GitIgnoreSpec]] = []
        folder = path
        while not os.path.lexists(os.path.join(folder, ".git")):  # noqa: PTH118
            parent = os.path.dirname(folder)  # noqa: PTH120
            if parent == folder:
                return ()  # in no repository
            folder = parent
            if (ignore := _ignore_files(folder)) is not None:
                found.insert(0, (below(folder), ignore))
        return () if _is_ignored(path, True, tuple(found)) else tuple(found)

    def _read(self, folder: _Folder, folders: list[_Folder]) -> Iterator[Found]:
        """Yield a folder's files; append the folders in it."""
        try:
            status = os.stat(folder.path)  # noqa: PTH116
            with os.scandir(folder.path) as listing:
                entries = sorted(listing, key=lambda entry: os.fsencode(entry.name))
        except OSError as exc:
            yield _problem(folder.path, exc, hides=True)
            return
        ignores = folder.ignores
        if self._rules.ignore_files and (ignore := _ignore_files(folder.path)) is not None:
            ignores = (*ignores, (below(folder.path), ignore))
        above = folder.above | {(status.st_dev, status.st_ino)}
        for entry in entries:
            if not self._rules.hidden and entry.name.startswith("."):
                continue
            path = below(folder.path) + entry.name
            whole = folder.whole or self._targets is None or path in self._targets.paths
            if not whole and self._targets and path not in self._targets.above:
                continue
            if path in self._named:
                continue
            yield from self._look(entry, path, _Folder(path, above, ignores, whole), folders)

    def _look(
        self, entry: os.DirEntry[str], path: str, as_folder: _Folder, folders: list[_Folder]
    ) -> Iterator[Found]:
        """Yield a file, or append a folder."""
        is_link = entry.is_symlink()
        try:
            is_folder = entry.is_dir()
        except OSError:
            is_folder = False
        if self._left_out(path, entry.name, is_folder, as_folder.ignores):
            return
        if is_link and not self._rules.follow_symlinks:
            yield _problem(path, "a symbolic link, not followed")
            return
        try:
            status = entry.stat()
        except OSError as exc:
            yield _problem(path, exc)
            return
        if not stat.S_ISDIR(status.st_mode):
            yield _checked(path, status)
        elif (status.st_dev, status.st_ino) in as_folder.above:
            yield _problem(path, "a link to a folder above it")
        elif as_folder.whole or (self._targets and path in self._targets.above):
            folders.append(as_folder)

    def _left_out(
        self,
        path: str,
        name: str,
        is_folder: bool,
        ignores: tuple[tuple[str, GitIgnoreSpec], ...],
    ) -> bool:
        rules, root = self._rules, self._root
        below_root = path[len(self._prefix) :] + ("/" if is_folder else "")
        if rules.exclude is not None and rules.exclude.match_file(below_root):
            return True
        if is_folder:
            if name == ".git" or (rules.ignore_files and name in _NOT_OURS):
                return True
            # Nothing that matches lies so deep.
            if root.depth is not None and below_root.count("/") > root.depth:
                return True
        elif (
            (rules.include is not None and not rules.include.match_file(below_root))
            or (root.glob is not None and not root.covers(path))
            or any(other.covers(path) for other in self._before)
        ):
            return True
        return _is_ignored(path, is_folder, ignores)


def _is_ignored(path: str, is_folder: bool, ignores: tuple[tuple[str, GitIgnoreSpec], ...]) -> bool:
    for prefix, ignore in reversed(ignores):
        verdict = ignore.check_file(path[len(prefix) :] + ("/" if is_folder else "")).include
        if verdict is not None:
            return verdict
    return False


def _ignore_files(folder: str) -> GitIgnoreSpec | None:
    """Return what the ignore files in a folder say; the later goes before the earlier."""
    lines: list[str] = []
    for name in IGNORE_FILES:
        lines += _lines(below(folder) + name)
    patterns: list[str] = []
    for line in lines:
        try:
            GitIgnoreSpec.from_lines([line])
        except GitIgnorePatternError:
            continue  # as git does
        patterns.append(line)
    return GitIgnoreSpec.from_lines(patterns) if patterns else None


def _lines(path: str) -> list[str]:
    # Non-blocking: a FIFO of that name must not hang us.
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return []
    try:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            return []
        data = os.read(handle, _LARGEST_IGNORE_FILE)
    except OSError:
        return []
    finally:
        os.close(handle)
    return os.fsdecode(data).splitlines()


def _checked(path: str, status: os.stat_result) -> Found:
    if not stat.S_ISREG(status.st_mode):
        return _problem(path, "not a regular file")
    return Found(
        place=path,
        uri=file_uri(path),
        size=status.st_size,
        modified=modified_at(status.st_mtime_ns),
    )


def _problem(path: str, why: OSError | str, *, hides: bool = False) -> Found:
    reason = why if isinstance(why, str) else why.strerror or str(why)
    return Found(place=path, uri=file_uri(path), problem=reason, hides=hides)
