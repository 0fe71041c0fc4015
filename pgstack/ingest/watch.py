"""Tells which paths change, from the moment it begins: by the kernel's events (watchfiles).

Data in and out
    in     folders, with all below them, and files
    out    sets of absolute paths that changed; what to do is decided by looking at the disk

A file is watched by way of its folder, because editors put a new file in the place of the old.
What links point to is not watched.  Where so much changed at once that the kernel may have lost
some of it, the roots themselves are told: all of them is looked through again.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Iterator
from queue import SimpleQueue

from pgstack.errors import PgstackError
from pgstack.ingest.find import IGNORE_FILES
from pgstack.ingest.roots import Root

QUIET_MS = 300  # without a change, before the changes are handed on
LONGEST_MS = 3000
TOO_MANY = 5000  # the kernel's queue has room for 16,384 events, several a file
_LOOK_MS = 500


class Watch:
    """Collects changes until it is closed; a context manager, watching once it is entered."""

    def __init__(self, roots: Iterable[Root], stop: threading.Event) -> None:
        self._roots = tuple(roots)
        self._stop = stop
        self._ended = threading.Event()
        self._changes: SimpleQueue[set[str] | BaseException | None] = SimpleQueue()
        self._ready: list[threading.Event] = []

    def __enter__(self) -> Watch:
        folders = {root.path for root in self._roots if os.path.isdir(root.path)}  # noqa: PTH112
        files = {root.path for root in self._roots} - folders
        # Of folders in each other the outer one is enough.
        outer = {f for f in folders if not any(_is_below(f, other) for other in folders)}
        beside = {os.path.dirname(path) for path in files} - folders  # noqa: PTH120
        if outer:
            self._start(sorted(outer), recursive=True)
        for folder in sorted(beside):
            if os.path.isdir(folder):  # noqa: PTH112
                self._start([folder], recursive=False)
        if not self._ready:
            raise PgstackError(
                "there is nothing to watch", hint="name folders that exist: pgstack ingest ./docs"
            )
        for ready in self._ready:
            ready.wait()
        threading.Thread(target=self._await_stop, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()

    def changes(self) -> Iterator[set[str]]:
        """Yield what changed, each time after a moment of quiet, until it is told to stop."""
        while True:
            found = self._changes.get()
            if isinstance(found, BaseException):
                raise found
            if found is None or self._stop.is_set():
                return
            yield found

    def _start(self, folders: list[str], *, recursive: bool) -> None:
        ready = threading.Event()
        self._ready.append(ready)
        arguments = (folders, recursive, ready)
        threading.Thread(target=self._watch, args=arguments, daemon=True).start()

    def _await_stop(self) -> None:
        while not self._ended.is_set():
            if self._stop.wait(_LOOK_MS / 1000):
                self._changes.put(None)
                return

    def _watch(self, folders: list[str], recursive: bool, ready: threading.Event) -> None:
        from watchfiles import _rust_notify

        try:
            while not self._ended.is_set():
                try:
                    self._collect(folders, recursive, ready)
                except _rust_notify.WatchfilesRustInternalError as exc:
                    # A name that is no UTF-8 ends the watching.  Once it goes on, `ready` is set,
                    # and so all is looked through for what was missed.
                    if "Unable to decode path" not in str(exc):
                        raise
        except Exception as exc:
            self._changes.put(PgstackError(f"cannot watch: {exc}"[:300], hint=_HINT))
        finally:
            ready.set()

    def _collect(self, folders: list[str], recursive: bool, ready: threading.Event) -> None:
        import watchfiles

        begun = False
        # The first answer, which may be empty, says that the kernel has been told.
        for changes in watchfiles.watch(
            *folders,
            watch_filter=None,
            debounce=LONGEST_MS,
            step=QUIET_MS,
            rust_timeout=_LOOK_MS,
            yield_on_timeout=True,
            stop_event=self._ended,
            raise_interrupt=False,
            recursive=recursive,
            ignore_permission_denied=True,
        ):
            if ready.is_set() and not begun:
                self._changes.put({root.path for root in self._roots})
            begun = True
            ready.set()
            if changes:
                self._changes.put(self._paths(path for _, path in changes))

    def _paths(self, changed: Iterable[str]) -> set[str]:
        paths: set[str] = set()
        for path in changed:
            folder, name = os.path.split(path)
            # What such a file says holds for its folder.
            paths.add(folder if name in IGNORE_FILES else path)
        return {root.path for root in self._roots} if len(paths) > TOO_MANY else paths


_HINT = "see /proc/sys/fs/inotify/max_user_watches; WATCHFILES_FORCE_POLLING=true looks by itself"


def _is_below(path: str, other: str) -> bool:
    return path != other and path.startswith(other.rstrip("/") + "/")
