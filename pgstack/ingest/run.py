"""The ingest itself: find, ask what is known, read what is new, store it.

One thread finds, some read (:class:`~pgstack.ingest.read.Readers`), and the caller's thread has
the connection.  All send what they have to one inbox, from which the caller's thread takes::

    find --(1,000 at a time)--> states --new--> read --> store (64 at a time) --> report
                                   +--known-------------------------------------^

What waits anywhere is bounded: found files by number, read ones by number and bytes.  A crash
loses what is in hand; what was committed is known by the next run, by size and time of change
or by sha256.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from queue import Empty, SimpleQueue

from pgstack.ingest.find import Found
from pgstack.ingest.read import Done, HowToRead, Readers, State, Task
from pgstack.ingest.report import Tally
from pgstack.ingest.store import TOGETHER, TOGETHER_BYTES, Store, Written

_PAGE = 1000  # files whose states are asked for together
_PAGES_AHEAD = 100
_PAGE_SECONDS = 0.2  # a page is handed on after that, full or not
_READ_AHEAD = 64  # files handed to readers


@dataclass(frozen=True)
class Again:
    """What is read although it did not change: ``failed`` files, or ``all``."""

    failed: bool = False
    all: bool = False


class _End:
    """All files have been found, or ``error`` kept the rest from being found."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.error = error


type _Event = list[Found] | Done | _End


class Run:
    """Passes over files with one set of readers; a context manager.

    ``store``  None: nothing is known and nothing written (a dry run of a new collection)
    ``dry``    write nothing
    """

    def __init__(
        self,
        store: Store | None,
        tally: Tally,
        *,
        jobs: int,
        how: HowToRead,
        again: Again,
        dry: bool = False,
    ) -> None:
        self._store = store
        self._tally = tally
        self._again = again
        self._dry = dry
        self._closely = False
        self._inbox: SimpleQueue[_Event] = SimpleQueue()
        self._readers = Readers(jobs, how, self._inbox.put)

    def __enter__(self) -> Run:
        return self

    def __exit__(self, *_: object) -> None:
        self._readers.close()

    def go_over(self, files: Iterator[Found], *, closely: bool = False) -> None:
        """Bring the collection up to date with these files.

        ``closely``  do not trust size and time of change to tell whether one changed
        """
        self._closely = closely
        finder = _Finder(files, self._inbox)
        waiting: deque[list[Found]] = deque()
        outstanding = found = 0
        ended = False
        try:
            while True:
                while waiting and outstanding < _READ_AHEAD:
                    outstanding += self._look_up(waiting.popleft())
                    finder.go_on()
                if ended and not waiting and not outstanding:
                    return
                done: list[Done] = []
                for event in self._events():
                    if isinstance(event, Done):
                        done.append(event)
                    elif isinstance(event, _End):
                        if event.error is not None:
                            raise event.error
                        ended = True
                        self._tally.total = found
                    else:
                        waiting.append(event)
                        found += len(event)
                self._finish(done)
                outstanding -= len(done)
        finally:
            finder.stop()

    def _events(self) -> Iterator[_Event]:
        """Yield what has come in, as much as is handled together; wait for the first."""
        count = size = 0
        event = self._inbox.get()
        while True:
            yield event
            if isinstance(event, Done):
                count += 1
                size += event.held
            if count >= TOGETHER or size >= TOGETHER_BYTES:
                return
            try:
                event = self._inbox.get_nowait()
            except Empty:
                return

    def _look_up(self, page: list[Found]) -> int:
        """Finish what is known, have the rest read; return how much that is."""
        states = {} if self._store is None else self._store.states(page)
        submitted = 0
        for found in page:
            known = states.get(found.uri)
            if found.problem is not None:
                self._tally.finished(found.shown, "skipped", found.problem)
            elif known is not None and self._is_current(found, known):
                self._finish_known(found, known)
            else:
                again = known is not None and self._is_wanted(known)
                self._readers.submit(Task(found, known, again))
                submitted += 1
        return submitted

    def _is_wanted(self, known: State) -> bool:
        return self._again.all or (self._again.failed and known.status == "failed")

    def _is_current(self, found: Found, known: State) -> bool:
        """Tell whether a file looks as it did when it was read."""
        return (
            not self._closely
            and found.modified is not None
            and (found.size, found.modified) == (known.size, known.modified)
            and not self._is_wanted(known)
        )

    def _finish_known(self, found: Found, known: State) -> None:
        if known.status == "failed":
            self._tally.finished(found.shown, "failed", known.error)
        else:
            self._tally.finished(found.shown, "unchanged")

    def _finish(self, batch: list[Done]) -> None:
        same = [done for done in batch if done.same]
        new = [done for done in batch if not done.same and done.problem is None]
        written: list[tuple[Done, Written]]
        if self._dry or self._store is None:
            written = [(done, _would_be(done)) for done in new]
        else:
            self._store.note(same)
            written = self._store.write(new) if new else []
        for done in batch:
            self._readers.budget.give(done.held)
            if done.problem is not None:
                self._tally.finished(done.found.shown, "skipped", done.problem)
            elif done.same and done.known is not None:
                self._finish_known(done.found, done.known)
        for done, what in written:
            warnings = () if done.document is None else done.document.warnings
            self._tally.finished(done.found.shown, what.outcome, what.reason, warnings)


def _would_be(done: Done) -> Written:
    if done.error is not None:
        return Written("failed", done.error)
    return Written("inserted" if done.known is None else "updated")


class _Finder:
    """Looks for files in a thread of its own, a bounded way ahead."""

    def __init__(self, files: Iterator[Found], inbox: SimpleQueue[_Event]) -> None:
        self._files = files
        self._inbox = inbox
        self._room = threading.Semaphore(_PAGES_AHEAD)
        self._stopped = False
        threading.Thread(target=self._run, daemon=True).start()

    def go_on(self) -> None:
        """Make room for one more page."""
        self._room.release()

    def stop(self) -> None:
        """Look no further."""
        self._stopped = True
        self._room.release()

    def _run(self) -> None:
        error: BaseException | None = None
        try:
            page: list[Found] = []
            until = time.monotonic() + _PAGE_SECONDS
            for found in self._files:
                page.append(found)
                if len(page) >= _PAGE or time.monotonic() > until:
                    self._hand_on(page)
                    page = []
                    until = time.monotonic() + _PAGE_SECONDS
                if self._stopped:
                    return
            if page:
                self._hand_on(page)
        except Exception as exc:
            error = exc
        self._inbox.put(_End(error))

    def _hand_on(self, page: list[Found]) -> None:
        self._room.acquire()
        self._inbox.put(page)
