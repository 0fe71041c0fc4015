"""Reads the files that SQL put into collections: claim, read, write back.

A file is read in a helper process with limits (``pgstack.extract``), while no transaction
is open.  Only its own row is locked, and only while it is claimed and written.  How leases
make that safe is told in ``sql/506_extraction.sql``.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, LiteralString
from urllib.parse import unquote, urlsplit

import psycopg
from psycopg.types.json import Jsonb
from psycopg_pool import PoolClosed

from pgstack import queries
from pgstack.extract import Crashed, Document, Extractor, Options, Unreadable, parts_json
from pgstack.worker.session import Session, log, wait_for

AT_ONCE = 2
MOST_TRIES = 3
LOOK_SECONDS = 5.0
IDLE_SECONDS = 30.0  # a helper process with nothing to do is kept so long
FAREWELL_SECONDS = 2.0
WRITE_TRIES = 10  # a second or more apart
CONTENTION = (
    psycopg.errors.LockNotAvailable,
    psycopg.errors.DeadlockDetected,
    psycopg.errors.SerializationFailure,
)


@dataclass(frozen=True)
class File:
    """A leased document: ``source`` is the file, ``attempts`` counts this one."""

    relation: int
    collection: str
    id: int
    uri: str
    media_type: str | None
    source: bytes
    source_hash: bytes
    attempts: int
    extraction: Mapping[str, Any]
    tika_url: str | None

    @property
    def key(self) -> tuple[int, int]:
        """The table and the row."""
        return self.relation, self.id

    def options(self) -> Options:
        """Return how to read it."""
        wants_tika = self.extraction.get("extractor") == "tika"
        if wants_tika and self.tika_url is None:
            raise Unreadable("its collection is read by Apache Tika, and tika_url is not set")
        return Options(
            ocr=self.extraction.get("ocr", Options().ocr),
            keep_boilerplate=self.extraction.get("keep_boilerplate", False),
            tika_url=self.tika_url if wants_tika else None,
        )


async def run(session: Session) -> None:
    """Read files as they come in, until the worker stops; once: until none is left."""
    try:
        await Reading(session).run()
    finally:
        session.reading = False
        session.tell_news()


def file_name(uri: str) -> str:
    """Return what a file is called whose uri this is; "" if it has no name."""
    try:
        path = urlsplit(uri).path or uri
    except ValueError:
        path = uri
    name = unquote(path.rstrip("/").rpartition("/")[2], errors="replace")
    return "".join(c for c in name if c.isprintable() and c != "/")[-200:].strip()


@dataclass
class Reading:
    """The files in hand, and the helper processes."""

    session: Session
    busy: list[tuple[int, int]] = field(default_factory=list)  # one twice: two versions of it
    idle: list[tuple[Options, Extractor, float]] = field(default_factory=list)
    used: set[Extractor] = field(default_factory=set)

    async def run(self) -> None:
        """Claim and read until there is no more to do."""
        session = self.session
        try:
            async with asyncio.TaskGroup() as group:
                while not session.stopping.is_set():
                    session.documents.clear()  # before the claim: what comes later wakes us again
                    if len(self.busy) < AT_ONCE and (file := await self._claim()):
                        self.busy.append(file.key)
                        group.create_task(self._handle(file))
                        continue
                    if session.once and not self.busy and not await self._left():
                        break
                    self._close_idle(IDLE_SECONDS)
                    await wait_for(session.documents, 0.2 if session.once else LOOK_SECONDS)
                self._stop()
        finally:
            self._stop()
            self._close_idle(0)

    async def _claim(self) -> File | None:
        relations, ids = [key[0] for key in self.busy], [key[1] for key in self.busy]
        rows = await self.session.fetch(
            queries.EXTRACTION_CLAIM, self.session.worker, self.session.names, relations, ids
        )
        return File(*rows[0]) if rows else None

    async def _left(self) -> bool:
        return bool(await self.session.value(queries.EXTRACTION_LEFT, self.session.names))

    async def _handle(self, file: File) -> None:
        """Read one file and write down what came of it."""
        try:
            try:
                document = await self._read(file)
            except (Crashed, OSError) as exc:
                await self._crashed(file, exc)
            except Unreadable as exc:
                await self._fail(file, " ".join(str(exc).split()))
            else:
                await self._complete(file, document)
        except (psycopg.OperationalError, asyncio.CancelledError):
            # A full disk, say, or another part of the worker failed: not the file's fault.
            with contextlib.suppress(psycopg.Error, PoolClosed, TimeoutError):
                async with asyncio.timeout(FAREWELL_SECONDS):
                    await self._write(queries.EXTRACTION_RELEASE, file, False)
            raise
        finally:
            self.busy.remove(file.key)
            self.session.documents.set()

    # ------------------------------------------------------------------ read

    async def _read(self, file: File) -> Document:
        options = file.options()
        if self.session.stopping.is_set():
            raise Crashed("stopped before it was read")
        extractor = self._take(options)
        try:
            document = await asyncio.to_thread(
                extractor.extract_bytes,
                file.source,
                name=file_name(file.uri),
                media_type=file.media_type,
            )
        except asyncio.CancelledError:
            self.used.discard(extractor)
            extractor.stop()  # its thread cannot be cancelled, and would go on for minutes
            raise
        except BaseException:
            self._give_back(options, extractor)
            raise
        self._give_back(options, extractor)
        if not document.text.strip():
            raise Unreadable("has no text")
        return document

    def _give_back(self, options: Options, extractor: Extractor) -> None:
        self.used.discard(extractor)
        self.idle.append((options, extractor, time.monotonic()))

    def _take(self, options: Options) -> Extractor:
        """Return a helper with these options; others that wait make room for it."""
        fitting = [entry for entry in self.idle if entry[0] == options]
        if fitting:
            self.idle.remove(fitting[-1])
            extractor = fitting[-1][1]
        else:
            self._close_idle(0)
            extractor = Extractor(options)
        self.used.add(extractor)
        return extractor

    def _close_idle(self, seconds: float) -> None:
        now = time.monotonic()
        for entry in [entry for entry in self.idle if now - entry[2] >= seconds]:
            self.idle.remove(entry)
            entry[1].close()

    def _stop(self) -> None:
        for extractor in self.used:
            extractor.stop()

    # ------------------------------------------------------------------ write back

    async def _complete(self, file: File, document: Document) -> None:
        try:
            written = await self._write(
                queries.EXTRACTION_COMPLETE,
                file,
                document.text,
                Jsonb(parts_json(document.parts)) if document.parts else None,
                document.title or file_name(file.uri) or None,
                document.media_type,
                list(document.warnings),
            )
        except psycopg.errors.ProgramLimitExceeded as exc:
            await self._fail(file, _message(exc))
        except psycopg.OperationalError:
            raise
        except psycopg.Error as exc:  # a constraint, a trigger, a character that cannot be stored
            await self._fail(file, _message(exc))
        else:
            log.debug("%s: %r: %s characters", file.collection, file.uri, len(document.text))
            if written is False:
                log.info("%s: %r changed while it was read", file.collection, file.uri)

    async def _fail(self, file: File, reason: str) -> None:
        log.warning("%s: %r: %s", file.collection, file.uri, reason)
        try:
            await self._write(queries.EXTRACTION_FAIL, file, reason)
        except psycopg.OperationalError:
            raise
        except psycopg.Error as exc:  # it is claimed again, and the claim notes the problem
            log.warning("%s: %s", file.collection, _message(exc))

    async def _crashed(self, file: File, exc: Exception) -> None:
        """Try a file again that nobody knows to be at fault."""
        if self.session.stopping.is_set():
            await self._write(queries.EXTRACTION_RELEASE, file, False)
        elif file.attempts >= MOST_TRIES:
            await self._fail(file, str(exc))
        else:
            log.warning("%s: %r: %s; trying again", file.collection, file.uri, exc)
            await self._write(queries.EXTRACTION_RELEASE, file, True)

    async def _write(self, query: LiteralString, file: File, *more: object) -> Any:
        """Run a statement on a document; None: others had it locked all the time.

        Then it counts as let go, and is claimed again.
        """
        session = self.session
        key = (session.worker, file.relation, file.id, file.source_hash)
        for _ in range(WRITE_TRIES):
            try:
                return await session.value(query, *key, *more)
            except CONTENTION as exc:
                log.info("%s: %r must wait: %s", file.collection, file.uri, _message(exc))
                if session.stopping.is_set():
                    break
                await wait_for(session.stopping, 1.0)
        return None


def _message(exc: psycopg.Error) -> str:
    return (exc.diag.message_primary or str(exc)).partition("\n")[0]
