"""Files and folders into a collection.

Data in and out
    ``paths``       files and folders; folders are read whole, in sorted order, without hidden
                    files and folders
    ``collection``  its name; made if it does not exist
    returns         :class:`IngestReport`

A document's uri is its absolute path as ``file://`` URL.  A document whose text, title and
metadata are the same as before is left alone, and so are its embeddings.  Each file is
committed by itself: a crash loses the file at hand and nothing else.  A file that gives no
text is skipped with its reason and harms no other.

``conn`` must be outside a transaction for that; inside one, nothing is committed here.
Nothing here opens a connection or calls a model (but see pgstack.create_collection).

Raises
    UsageError        bad collection name
    NameTaken         the collection's name is another object's
    MissingPrivilege  no right to make or fill the collection
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import psycopg
from psycopg.types.json import Jsonb

from pgstack.errors import MissingPrivilege, PgstackError, translated
from pgstack.extract import Document, Extractor, Unreadable

Outcome = Literal["inserted", "updated", "unchanged", "skipped", "removed"]


@dataclass(frozen=True)
class IngestProgress:
    """One file is finished: what happened to it, and how far the whole work is."""

    path: str
    outcome: Outcome
    done: int
    total: int
    reason: str | None = None
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class IngestReport:
    """What :func:`ingest` did: documents counted, and the files that gave none."""

    inserted: int = 0
    updated: int = 0
    unchanged: int = 0
    removed: int = 0
    skipped: list[tuple[str, str]] = field(default_factory=list)
    warnings: list[tuple[str, str]] = field(default_factory=list)


@dataclass(frozen=True)
class _Found:
    """A file to read, or the reason why not."""

    path: Path
    problem: str | None = None


def ingest(
    conn: psycopg.Connection[Any],
    paths: Iterable[str | os.PathLike[str]],
    collection: str,
    *,
    prune: bool = False,
    follow_symlinks: bool = False,
    model: str | None = None,
    dimensions: int | None = None,
    progress: Callable[[IngestProgress], None] = lambda step: None,
) -> IngestReport:
    """Put every file under ``paths`` into ``collection``.

    ``prune``            remove documents whose files are gone from the folders in ``paths``
    ``follow_symlinks``  read what links inside folders point to; a path given is always followed
    ``model``            embedding model of a collection that is made now
    ``dimensions``       length of that model's vectors; None: the model is asked
    ``progress``         called after each file
    """
    roots = [_absolute(path) for path in paths]
    with translated(), conn.transaction():
        conn.execute(
            "select pgstack.create_collection(name => %s, model => %s, dimensions => %s)",
            (collection, model, dimensions),
        )
    found = list(_walk(roots, follow_symlinks))
    counts: dict[Outcome, int] = dict.fromkeys(("inserted", "updated", "unchanged", "removed"), 0)
    skipped: list[tuple[str, str]] = []
    warnings: list[tuple[str, str]] = []
    with Extractor() as extractor:
        for number, item in enumerate(found, start=1):
            outcome, reason, remarks = _ingest_file(conn, collection, item, extractor)
            path = printable(item.path)
            if reason is None:
                counts[outcome] += 1
            else:
                skipped.append((path, reason))
            warnings += [(path, remark) for remark in remarks]
            progress(IngestProgress(path, outcome, number, len(found), reason, remarks))
    if prune:
        counts["removed"] = _prune(conn, collection, roots, found)
    return IngestReport(**counts, skipped=skipped, warnings=warnings)


def printable(path: str | os.PathLike[str]) -> str:
    """Return a path as text that can be printed and stored, whatever bytes it has."""
    return os.fsencode(path).decode("utf-8", errors="backslashreplace")


def _absolute(path: str | os.PathLike[str]) -> Path:
    # Links stay: the uri is the path as people know it.
    return Path(os.path.normpath(Path(path).expanduser().absolute()))


# --- one file -------------------------------------------------------------------------


def _ingest_file(
    conn: psycopg.Connection[Any], collection: str, item: _Found, extractor: Extractor
) -> tuple[Outcome, str | None, tuple[str, ...]]:
    if item.problem is not None:
        return "skipped", item.problem, ()
    try:
        document = extractor.extract(item.path)
        if not document.text.strip():
            return "skipped", "has no text", document.warnings
        return _store(conn, collection, item.path, document), None, document.warnings
    except MissingPrivilege:
        raise  # the next file would fare no better
    except (Unreadable, psycopg.DataError, psycopg.errors.ProgramLimitExceeded) as exc:
        return "skipped", str(exc).partition("\n")[0], ()


def _store(
    conn: psycopg.Connection[Any], collection: str, path: Path, document: Document
) -> Outcome:
    metadata = {"warnings": list(document.warnings)} if document.warnings else {}
    with translated(), conn.transaction():
        row = conn.execute(
            "select pgstack.ingest_text(%s, %s, %s, %s, %s, %s)",
            (
                collection,
                path.as_uri(),
                document.text,
                document.title or printable(path.name),
                document.media_type,
                Jsonb(metadata),
            ),
        ).fetchone()
    if row is None:  # pragma: no cover - a function call always gives a row
        raise PgstackError("pgstack.ingest_text() returned nothing")
    outcome: Outcome = row[0]
    return outcome


# --- folders --------------------------------------------------------------------------


def _walk(roots: Iterable[Path], follow_symlinks: bool) -> Iterator[_Found]:
    seen: set[Path] = set()
    for root in roots:
        for item in _walk_root(root, follow_symlinks):
            if item.path not in seen:
                seen.add(item.path)
                yield item


def _walk_root(root: Path, follow_symlinks: bool) -> Iterator[_Found]:
    try:
        mode = root.stat().st_mode
    except OSError as exc:
        yield _Found(root, exc.strerror or str(exc))
        return
    if not stat.S_ISDIR(mode):
        yield _check(root, mode)
        return
    # Folders on the way down, so that a link to one of them does not go round in circles.
    stack: list[tuple[Path, frozenset[tuple[int, int]]]] = [(root, frozenset())]
    while stack:
        folder, above = stack.pop()
        try:
            status = folder.stat()
            entries = sorted(os.scandir(folder), key=lambda entry: os.fsencode(entry.name))
        except OSError as exc:
            yield _Found(folder, exc.strerror or str(exc))
            continue
        here = above | {(status.st_dev, status.st_ino)}
        folders = []
        for entry in entries:
            if entry.name.startswith("."):  # hidden files, .git, .hg, .svn
                continue
            path = folder / entry.name
            if entry.is_symlink() and not follow_symlinks:
                yield _Found(path, "a symbolic link, not followed")
                continue
            try:
                entry_status = entry.stat()
            except OSError as exc:
                yield _Found(path, exc.strerror or str(exc))
                continue
            if not stat.S_ISDIR(entry_status.st_mode):
                yield _check(path, entry_status.st_mode)
            elif entry.name in _NOT_OURS:
                continue
            elif (entry_status.st_dev, entry_status.st_ino) in here:
                yield _Found(path, "a link to a folder above it")
            else:
                folders.append((path, here))
        stack += reversed(folders)


# What version control and package managers keep beside people's own files.
_NOT_OURS = {"CVS", "_darcs", "node_modules", "__pycache__"}


def _check(path: Path, mode: int) -> _Found:
    return _Found(path, None if stat.S_ISREG(mode) else "not a regular file")


# --- documents whose files are gone ---------------------------------------------------


def _prune(
    conn: psycopg.Connection[Any], collection: str, roots: list[Path], found: list[_Found]
) -> int:
    # A file that could not be read this time is still there: its document stays.
    present = {item.path.as_uri() for item in found}
    removed = 0
    for root in roots:
        if not root.is_dir():  # a folder that is gone may be a disk that is not mounted
            continue
        prefix = root.as_uri().rstrip("/") + "/"
        # What lies below a folder that could not be listed is not known to be gone.
        unknown = tuple(
            item.path.as_uri() + "/"
            for item in found
            if item.problem is not None and not item.path.is_file()
        )
        with translated(), conn.transaction():
            rows = conn.execute(
                "select u from _pgstack.collection_uris(%s, %s) as u", (collection, prefix)
            ).fetchall()
        for (uri,) in rows:
            if uri in present or uri.startswith(unknown):
                continue
            with translated(), conn.transaction():
                conn.execute("select pgstack.remove_document(%s, %s)", (collection, uri))
            removed += 1
    return removed
