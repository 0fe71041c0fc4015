"""Reads files and fetches URLs, several at a time: threads, each with a process that extracts.

Data in and out
    in       :class:`Task`: what was found, and what the collection knows of it
    out      :class:`Done`, in the order in which they become ready

What a thread holds is one file; what waits to be stored is limited in bytes (:class:`Budget`).
A file that is still the one that was read before, by its sha256, is not extracted again.
"""

from __future__ import annotations

import hashlib
import io
import os
import stat
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from queue import SimpleQueue

from pgstack import remote
from pgstack.errors import PgstackError
from pgstack.extract import MAX_BYTES, Crashed, Document, Extractor, Options, Unreadable
from pgstack.ingest.find import Found, modified_at

WAITING_BYTES = 128_000_000
FETCH_SECONDS = 300.0

_LAST_SECONDS = 5.0  # for a process that is being started when all ends

# A file changed so shortly before it was read may change again without its time of change
# telling: clocks of file systems tick in up to 2 s.
_SETTLED = timedelta(seconds=2)


@dataclass(frozen=True, slots=True)
class State:
    """What the collection knows of a document's file; None: nothing."""

    hash: bytes | None
    size: int | None
    modified: datetime | None
    status: str
    error: str | None
    etag: str | None = None


@dataclass(frozen=True, slots=True)
class Task:
    """A file to read, what is known of it, and whether it is read although it is that version."""

    found: Found
    known: State | None
    again: bool = False


@dataclass(frozen=True, slots=True)
class Done:
    """What came of a task.

    ``same``      it is the version that is known
    ``document``  its text; None: there is ``error`` instead, or nobody wanted it
    ``problem``   why nothing is known of it
    ``data``      the file, if it is kept
    ``held``      bytes taken from the budget, given back once it is stored
    """

    found: Found
    known: State | None
    same: bool = False
    document: Document | None = None
    error: str | None = None
    problem: str | None = None
    data: bytes | None = None
    hash: bytes | None = None
    size: int | None = None
    modified: datetime | None = None
    etag: str | None = None
    name: str | None = None
    media_type: str | None = None
    held: int = 0


@dataclass(frozen=True)
class HowToRead:
    """``options``: of the extractor; ``extract``: or only fetch; ``keep``: hand over the file."""

    options: Options
    extract: bool = True
    keep: bool = False


class Budget:
    """So many bytes at a time; something larger only while nothing else is held."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._held = 0
        self._changed = threading.Condition()
        self._closed = False

    def take(self, count: int) -> None:
        """Wait until there is room."""
        with self._changed:
            self._changed.wait_for(
                lambda: self._closed or not self._held or self._held + count <= self._most
            )
            self._held += count

    def give(self, count: int) -> None:
        """Give back what was taken."""
        with self._changed:
            self._held -= count
            self._changed.notify_all()

    def close(self) -> None:
        """Let everybody pass who waits."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()


class Readers:
    """Up to ``jobs`` threads; each is started when there is work for it.  A context manager."""

    def __init__(self, jobs: int, how: HowToRead, post: Callable[[Done], None]) -> None:
        self.budget = Budget(WAITING_BYTES)
        self._jobs = jobs
        self._how = how
        self._post = post
        self._tasks: SimpleQueue[Task | None] = SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._extractors: list[Extractor] = []
        self._closed = False

    def __enter__(self) -> Readers:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def submit(self, task: Task) -> None:
        """Have a file read; :class:`Done` is posted some time later."""
        self._tasks.put(task)
        if len(self._threads) < self._jobs:
            extractor = Extractor(self._how.options)
            thread = threading.Thread(target=self._work, args=(extractor,), daemon=True)
            self._extractors.append(extractor)
            self._threads.append(thread)
            thread.start()

    def close(self) -> None:
        """End the threads and their processes, whatever they are doing."""
        self._closed = True
        self.budget.close()
        for extractor in self._extractors:
            extractor.stop()
        for _ in self._threads:
            self._tasks.put(None)
        for thread in self._threads:
            # One that waits for a server that says nothing ends with this program.
            thread.join(timeout=_LAST_SECONDS)

    def _work(self, extractor: Extractor) -> None:
        with extractor:
            while (task := self._tasks.get()) is not None and not self._closed:
                try:
                    done = self._read(task, extractor)
                except Exception as exc:  # one odd file must not end the thread
                    done = Done(
                        task.found, task.known, problem=f"{type(exc).__name__}: {exc}"[:300]
                    )
                self.budget.take(done.held)
                self._post(done)

    def _read(self, task: Task, extractor: Extractor) -> Done:
        file = _fetch(task) if task.found.data is None and not task.found.is_file else _open(task)
        if file.problem is not None or file.error is not None or file.same:
            return file
        data = file.data or b""
        known = task.known
        digest = hashlib.sha256(data).digest()
        same = known is not None and known.hash == digest and not task.again
        document: Document | None = None
        error: str | None = None
        if self._how.extract and not same:
            try:
                document = _extract(extractor, file)
            except Unreadable as exc:
                error = str(exc)
        kept = data if self._how.keep and not same else None
        return Done(
            found=task.found,
            known=known,
            same=same,
            document=document,
            error=error,
            data=kept,
            hash=digest,
            size=len(data),
            modified=file.modified,
            etag=file.etag,
            name=file.name,
            media_type=file.media_type,
            held=len(kept or b"") + (0 if document is None else len(document.text)),
        )


def _extract(extractor: Extractor, file: Done) -> Document:
    for again in (True, False):
        try:
            document = extractor.extract_bytes(
                file.data or b"", name=file.name or "", media_type=file.media_type
            )
        except Crashed:  # its own fault if it happens twice
            if not again:
                raise
        else:
            if not document.text.strip():
                raise Unreadable("has no text")
            return document
    raise AssertionError("unreachable")


def _open(task: Task) -> Done:
    """Read a file of this machine, or take what came with the task."""
    found = task.found
    name = found.name or os.path.basename(found.place)  # noqa: PTH119
    if found.data is not None:
        return Done(found, task.known, data=found.data, name=name, media_type=found.media_type)
    try:
        # Non-blocking: a FIFO put in the place of a file must not hang us.
        handle = os.open(found.place, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(handle, "rb") as file:
            began = datetime.now(UTC)
            status = os.fstat(handle)
            if not stat.S_ISREG(status.st_mode):
                return Done(found, task.known, problem="not a regular file")
            modified = modified_at(status.st_mtime_ns)
            if status.st_size > MAX_BYTES:
                return Done(
                    found,
                    task.known,
                    error=too_large(status.st_size),
                    size=status.st_size,
                    modified=modified,
                    name=name,
                )
            # One more, to see whether it grew; Python takes memory for all that is asked for.
            data = file.read(status.st_size + 1)
            if len(data) > status.st_size:
                data += file.read(MAX_BYTES + 1 - len(data))
            after = os.fstat(handle)
    except OSError as exc:
        return Done(found, task.known, problem=exc.strerror or str(exc))
    settled = modified is None or began - modified > _SETTLED
    stood_still = (after.st_mtime_ns, after.st_size) == (status.st_mtime_ns, len(data))
    return Done(
        found,
        task.known,
        data=data,
        modified=modified if settled and stood_still else None,
        name=name,
    )


def _fetch(task: Task) -> Done:
    """Fetch a URL, unless it is still the version that is known."""
    found, known = task.found, task.known
    version = None if task.again else known
    into = io.BytesIO()
    try:
        fetched = remote.fetch(
            found.place,
            into,
            max_bytes=MAX_BYTES,
            etag=version.etag if version else None,
            modified=version.modified if version else None,
            seconds=FETCH_SECONDS,
        )
    except remote.NotModified:
        return Done(found, known, same=True)
    except PgstackError as exc:
        return Done(found, known, problem=str(exc))
    return Done(
        found,
        known,
        data=into.getvalue(),
        # A listing tells it more exactly.
        modified=found.modified or fetched.modified,
        etag=fetched.etag,
        name=fetched.name,
        media_type=fetched.media_type,
    )


def too_large(size: int) -> str:
    """Return why a file is not read."""
    return f"{size / 1e6:,.0f} MB; at most {MAX_BYTES / 1e6:.0f} MB are read"
