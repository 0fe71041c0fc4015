"""What an ingest tells: each file as it is finished, and all of it at the end."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

Outcome = Literal["inserted", "updated", "unchanged", "failed", "skipped", "removed"]

MOST_NAMED = 10_000  # files that a report names, of each kind

type Named = list[tuple[str, str]]  # path or URL, why


@dataclass(frozen=True)
class IngestProgress:
    """One file is finished: what happened to it, and how far the whole work is.

    ``path``    of the file, or its URL without secrets
    ``done``    files finished; ``total``: found so far, None while they are still being looked for
    ``reason``  why it failed or was skipped
    """

    path: str
    outcome: Outcome
    done: int
    total: int | None
    reason: str | None = None
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class IngestReport:
    """What was done: documents counted, and the files that gave none.

    ``failed``   what could not be read, and is noted in the collection with its reason
    ``skipped``  what was not read, and left no trace there
    ``omitted``  how many more failed, were skipped or warned than the lists name
    ``created``  whether the collection was made
    """

    inserted: int = 0
    updated: int = 0
    unchanged: int = 0
    removed: int = 0
    failed: Named = field(default_factory=list)
    skipped: Named = field(default_factory=list)
    warnings: Named = field(default_factory=list)
    omitted: int = 0
    created: bool = field(default=False, compare=False)

    @property
    def documents(self) -> int:
        """How many files gave a document, now or before."""
        return self.inserted + self.updated + self.unchanged


class Interrupted(KeyboardInterrupt):
    """The user ended it; ``report`` says what was done until then."""

    def __init__(self, report: IngestReport) -> None:
        super().__init__()
        self.report = report


class Tally:
    """Counts what happens, tells it on, and makes the report."""

    def __init__(self, progress: Callable[[IngestProgress], None]) -> None:
        self.total: int | None = None
        self.created = False
        self._progress = progress
        self._counts: Counter[Outcome] = Counter()
        self._lists: dict[str, Named] = {"failed": [], "skipped": [], "warnings": []}
        self._omitted = 0
        self._done = 0

    def finished(
        self,
        path: str,
        outcome: Outcome,
        reason: str | None = None,
        warnings: tuple[str, ...] = (),
    ) -> None:
        """Note that a file is finished, or that a document was removed."""
        self._counts[outcome] += 1
        self._done += outcome != "removed"
        if outcome in self._lists:
            self._name(outcome, path, reason or "")
        for warning in warnings:
            self._name("warnings", path, warning)
        self._progress(IngestProgress(path, outcome, self._done, self.total, reason, warnings))

    def _name(self, kind: str, path: str, why: str) -> None:
        if len(self._lists[kind]) < MOST_NAMED:
            self._lists[kind].append((path, why))
        else:
            self._omitted += 1

    def report(self) -> IngestReport:
        """Return what was done so far."""
        counts = self._counts
        return IngestReport(
            inserted=counts["inserted"],
            updated=counts["updated"],
            unchanged=counts["unchanged"],
            removed=counts["removed"],
            failed=list(self._lists["failed"]),
            skipped=list(self._lists["skipped"]),
            warnings=list(self._lists["warnings"]),
            omitted=self._omitted,
            created=self.created,
        )


def printable(path: str | os.PathLike[str]) -> str:
    """Return a path as text that can be printed and stored, whatever bytes it has."""
    return os.fsencode(path).decode("utf-8", errors="backslashreplace")
