"""What an ingest asks of the database, and what it writes there.

Data in and out
    states   what the collection knows of documents, by uri; 1,000 uris in a call
    write    a batch of :class:`~pgstack.ingest.read.Done`, in one small transaction
    returns  what happened to each: its outcome, and why if it failed

A document that the database refuses is written down as failed, or else reported; the others of
its batch are stored.  The connection should be outside a transaction; inside one, nothing is
committed here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import psycopg
from psycopg.sql import Identifier
from psycopg.types.json import Jsonb

from pgstack import queries
from pgstack.errors import MissingPrivilege, PgstackError, UsageError, translated
from pgstack.extract import parts_json
from pgstack.ingest.find import Found
from pgstack.ingest.read import Done, State
from pgstack.ingest.report import Outcome, printable

TOGETHER = 64  # documents in a transaction
TOGETHER_BYTES = 4_000_000
_PAGE = 1000

# What the text or the name of one document may cause, by a check or a trigger as well.
_ITS_FAULT = (
    *(UsageError, psycopg.DataError, psycopg.IntegrityError),
    *(psycopg.errors.ProgramLimitExceeded, psycopg.errors.RaiseException),
)
# What others may cause who write to the collection: it works the next time.
_CONTENTION = (
    psycopg.errors.DeadlockDetected,
    psycopg.errors.SerializationFailure,
    psycopg.errors.LockNotAvailable,
)
_TRIES = 5


@dataclass(frozen=True)
class Written:
    """What happened to a document, and why if it has no text."""

    outcome: Outcome
    reason: str | None = None


@dataclass(frozen=True)
class NewCollection:
    """How a collection is made that is not there yet; None: as the database does."""

    model: str | None = None
    dimensions: int | None = None
    chunking: str | None = None
    chunk_size: int | None = None
    chunk_overlap: int | None = None
    extraction: dict[str, Any] | None = None


class Store:
    """A collection, by way of a connection."""

    def __init__(self, conn: psycopg.Connection[Any], collection: str) -> None:
        self._conn = conn
        self._collection = collection

    def extraction(self) -> dict[str, Any] | None:
        """Return how files of the collection are read; None: there is no such collection."""
        with translated(), self._conn.transaction():
            row = self._conn.execute(queries.COLLECTION_EXTRACTION, (self._collection,)).fetchone()
        return None if row is None else row[0]

    def create(self, new: NewCollection) -> None:
        """Make the collection, unless there is one."""
        arguments = {
            "name": self._collection,
            "model": new.model,
            "dimensions": new.dimensions,
            "chunking": new.chunking or "recursive",
            "chunk_size": 800 if new.chunk_size is None else new.chunk_size,
            "chunk_overlap": 400 if new.chunk_overlap is None else new.chunk_overlap,
            "extraction": Jsonb(new.extraction or {}),
        }
        with translated(), self._conn.transaction():
            self._conn.execute(queries.COLLECTION_CREATE, arguments)

    def states(self, found: Iterable[Found]) -> dict[str, State]:
        """Return what is known of these files, by uri; those that are new are not in it."""
        uris = [item.uri for item in found if item.problem is None]
        if not uris:
            return {}
        on_the_web = [item.uri for item in found if item.problem is None and not item.is_file]
        with self._translated(), self._conn.transaction():
            rows = self._conn.execute(queries.DOCUMENT_STATES, (self._collection, uris)).fetchall()
            etags: dict[str, str] = {}
            if on_the_web:
                arguments = (self._collection, on_the_web)
                etags = dict(self._conn.execute(queries.DOCUMENT_ETAGS, arguments).fetchall())
        return {
            uri: State(hash_, size, modified, status, error, etags.get(uri))
            for uri, hash_, size, modified, status, error in rows
        }

    def uris(self, prefix: str) -> Iterator[str]:
        """Yield the uris of documents that begin with ``prefix``, in the order of their bytes."""
        name = f"pgstack_ingest_{uuid4().hex}"
        with self._translated(), self._conn.cursor(name, withhold=True) as cursor:
            cursor.itersize = _PAGE
            with self._conn.transaction():
                cursor.execute(queries.COLLECTION_URIS, (self._collection, prefix))
            while rows := cursor.fetchmany(_PAGE):
                for (uri,) in rows:
                    yield uri

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """Turn what PostgreSQL says when the collection may not be read into an error of ours."""
        try:
            with translated():
                yield
        except psycopg.errors.InsufficientPrivilege as exc:
            table = Identifier("pgstack_collections", self._collection).as_string(self._conn)
            raise MissingPrivilege(
                f'this role may not read collection "{self._collection}"',
                hint=f"grant select, insert, update, delete on {table} to the role;",
            ) from exc

    def remove(self, uri: str) -> None:
        """Remove a document."""
        with translated(), self._conn.transaction():
            self._conn.execute(queries.DOCUMENT_REMOVE, (self._collection, uri))

    def note(self, same: Sequence[Done]) -> None:
        """Note time and version of files that are the same as before."""
        noted = [done for done in same if done.hash is not None]  # else nothing was learnt
        if not noted:
            return
        noted.sort(key=lambda done: done.found.uri)
        arguments = (
            self._collection,
            [done.found.uri for done in noted],
            [done.size for done in noted],
            [done.modified for done in noted],
            [done.etag for done in noted],
        )
        with translated(), self._conn.transaction():
            self._conn.execute(queries.DOCUMENT_NOTE, arguments)

    def write(self, batch: Sequence[Done]) -> list[tuple[Done, Written]]:
        """Store what was read: all together, or each by itself if one of them is refused."""
        # In one order, so that two who write the same documents take turns.
        ordered = sorted(batch, key=lambda done: done.found.uri)
        try:
            with translated(), self._conn.transaction(), self._conn.cursor() as cursor:
                cursor.executemany(
                    queries.DOCUMENT_STORE, [self._row(done) for done in ordered], returning=True
                )
                outcomes: list[Outcome] = []
                more: bool | None = bool(ordered)
                while more:
                    row = cursor.fetchone()
                    outcomes.append(row[0] if row else "unchanged")
                    more = cursor.nextset()
        except (*_ITS_FAULT, *_CONTENTION):
            return [(done, self._write_one(done)) for done in ordered]
        return [
            (done, Written(outcome, done.error))
            for done, outcome in zip(ordered, outcomes, strict=True)
        ]

    def _write_one(self, done: Done) -> Written:
        try:
            return Written(self._store(self._row(done)), done.error)
        except _ITS_FAULT as exc:
            reason = str(exc).partition("\n")[0]
        try:
            return Written(self._store(self._row(done, refused=reason)), reason)
        except _ITS_FAULT:  # not even its name can be stored
            return Written("skipped", reason)

    def _store(self, row: tuple[Any, ...]) -> Outcome:
        for left in reversed(range(_TRIES)):
            try:
                with translated(), self._conn.transaction():
                    found = self._conn.execute(queries.DOCUMENT_STORE, row).fetchone()
                outcome: Outcome = found[0] if found else "unchanged"
                return outcome
            except _CONTENTION:
                if not left:
                    raise
        raise PgstackError("a document could not be stored")  # pragma: no cover

    def _row(self, done: Done, *, refused: str | None = None) -> tuple[Any, ...]:
        """Return the arguments of ``store_document()``."""
        document = None if refused else done.document
        error = refused or done.error
        metadata: dict[str, Any] = {}
        if document is not None and document.warnings:
            metadata["warnings"] = [_clean(warning) for warning in document.warnings]
        if done.etag is not None:
            metadata["etag"] = _clean(done.etag)
        parts = [] if document is None else parts_json(document.parts)
        title = None if document is None else document.title or printable(done.name or "")
        return (
            self._collection,
            done.found.uri,
            None if document is None else document.text,
            Jsonb(_clean_headings(parts)) if parts else None,
            title and _clean(title),
            done.media_type if document is None else document.media_type,
            Jsonb(metadata),
            None if refused else done.data,
            done.hash,
            done.size,
            done.modified,
            None if error is None else _clean(error),
        )


def _clean(text: str) -> str:
    """Return text that PostgreSQL takes: without NUL and lone surrogates."""
    return text.replace("\0", "").encode("utf-8", errors="replace").decode("utf-8")


def _clean_headings(parts: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{**part, "headings": [_clean(text) for text in part["headings"]]} for part in parts]
