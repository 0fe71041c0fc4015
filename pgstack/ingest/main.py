"""``ingest()``: what it is asked to do, put together from the modules beside this one."""

from __future__ import annotations

import contextlib
import hashlib
import os
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, BinaryIO

import psycopg

from pgstack import remote
from pgstack.errors import RemoteError, Unreachable, UsageError
from pgstack.extract import MAX_BYTES, Options
from pgstack.ingest import prune as pruning
from pgstack.ingest.find import Found, Rules, find
from pgstack.ingest.read import HowToRead, too_large
from pgstack.ingest.report import IngestProgress, IngestReport, Interrupted, Tally
from pgstack.ingest.roots import Roots, parse, spec
from pgstack.ingest.run import Again, Run
from pgstack.ingest.store import NewCollection, Store
from pgstack.ingest.watch import Watch


@dataclass(frozen=True)
class Stdin:
    """What standard input is: ``name`` as of a file, or a uri; ``media_type`` or None.

    Without a name its uri is made from what it holds.
    """

    name: str | None = None
    media_type: str | None = None
    file: BinaryIO | None = None


_STDIN = Stdin()


def ingest(
    conn: psycopg.Connection[Any],
    paths: Iterable[str | os.PathLike[str]],
    collection: str,
    *,
    include: Iterable[str] = (),
    exclude: Iterable[str] = (),
    ignore_files: bool = True,
    hidden: bool = False,
    follow_symlinks: bool = False,
    stdin: Stdin = _STDIN,
    jobs: int | None = None,
    prune: bool = False,
    dry_run: bool = False,
    retry: bool = False,
    reread: bool = False,
    keep: bool = False,
    background: bool = False,
    ocr: str | None = None,
    keep_boilerplate: bool | None = None,
    tika_url: str | None = None,
    model: str | None = None,
    dimensions: int | None = None,
    chunking: str | None = None,
    chunk_size: int | None = None,
    chunk_overlap: int | None = None,
    watch: threading.Event | None = None,
    watching: Callable[[IngestReport], None] = lambda report: None,
    progress: Callable[[IngestProgress], None] = lambda step: None,
) -> IngestReport:
    """Put every file under ``paths`` into ``collection``.

    ``include``, ``exclude``  patterns as in ``.gitignore``, relative to each folder named: which
                        files, and which files and folders not
    ``ignore_files``    leave out what ``.gitignore`` and ``.pgstackignore`` say
    ``hidden``          read hidden files
    ``follow_symlinks`` read what links inside folders point to; a path given is always followed
    ``stdin``           what ``-`` is
    ``jobs``            processes that extract text; None: one a processor
    ``prune``           remove documents whose files are gone from the folders in ``paths``
    ``dry_run``         only tell what would be done; what has changed is not extracted
    ``retry``           read failed files again, ``reread``: all files
    ``keep``            store the file itself beside its text, of what is read now
    ``background``      store the file, a worker extracts
    ``ocr``, ``keep_boilerplate``, ``tika_url``  as of :class:`pgstack.extract.Options`; None: as
                        the collection says
    ``model``, ``dimensions``, ``chunking``, ``chunk_size``, ``chunk_overlap``  of a collection that
                        is made now: see pgstack.create_collection(); ``dimensions`` None: the
                        model is asked
    ``watch``           go on with changes as they come until this event is set
    ``watching``        called once all is up to date for the first time, with the report so far
    ``progress``        called after each file
    """
    asked = parse(paths)
    rules = Rules(
        include=spec(include) if (include := list(include)) else None,
        exclude=spec(exclude) if (exclude := list(exclude)) else None,
        ignore_files=ignore_files,
        hidden=hidden,
        follow_symlinks=follow_symlinks,
    )
    if watch is not None:
        _check_watch(asked, dry_run)
    told = _told(ocr, keep_boilerplate, tika_url)
    tally = Tally(progress)
    store = Store(conn, collection)
    settings = store.extraction()
    if settings is None:
        settings, tally.created = told, True
        if not dry_run:
            for_workers = {k: v for k, v in told.items() if k != "tika_url"}
            store.create(
                NewCollection(model, dimensions, chunking, chunk_size, chunk_overlap, for_workers)
            )
    nothing_there = tally.created and dry_run
    known = None if nothing_there else store
    job = _Job(asked, rules, known, tally, prune=prune, dry=dry_run, stdin=stdin)
    how = HowToRead(
        options=_options({**settings, **told}),
        extract=not (background or dry_run),
        keep=keep or background,
    )
    try:
        with Run(
            known,
            tally,
            # In a dry run nothing is extracted, and files are best told in order.
            jobs=1 if dry_run else jobs or os.cpu_count() or 1,
            how=how,
            again=Again(failed=retry, all=reread),
            dry=dry_run,
        ) as run:
            if watch is None:
                job.once(run)
            else:
                job.forever(run, watch, watching)
    except KeyboardInterrupt as exc:
        raise Interrupted(tally.report()) from exc
    return tally.report()


@dataclass(frozen=True)
class _Job:
    """What to go over, again and again while it is watched."""

    asked: Roots
    rules: Rules
    store: Store | None
    tally: Tally
    prune: bool
    dry: bool
    stdin: Stdin

    def once(self, run: Run) -> None:
        """Go over everything."""
        run.go_over(self._files())
        if not self.prune or self.store is None:
            return
        pruning.prune_folders(self.store, self.asked.local, self.tally, dry=self.dry)
        for url in self.asked.listings:
            with contextlib.suppress(*_REMOTE):  # told already, when it was listed
                pruning.prune_listing(self.store, url, self.tally, dry=self.dry)

    def forever(
        self, run: Run, stop: threading.Event, watching: Callable[[IngestReport], None]
    ) -> None:
        """Go over everything, then over what changes; changes count from the beginning."""
        with Watch(self.asked.local, stop) as watch:
            self.once(run)
            watching(self.tally.report())
            for paths in watch.changes():
                folders = [root.path for root in self.asked.local if os.path.isdir(root.path)]  # noqa: PTH112
                everything = not paths.isdisjoint(folders)
                changed = (
                    found
                    for found in find(self.asked.local, self.rules, paths)
                    if found.problem is None
                )
                run.go_over(changed, closely=not everything)
                if self.prune and self.store is not None:
                    pruning.prune_paths(self.store, self.asked.local, sorted(paths), self.tally)

    def _files(self) -> Iterator[Found]:
        if self.asked.stdin:
            yield _standard_input(self.stdin)
        yield from find(self.asked.local, self.rules)
        for url in self.asked.urls:
            yield Found(place=url, uri=remote.public_url(url))
        for url in self.asked.listings:
            yield from _listed(url, self.rules)


_REMOTE = (RemoteError, Unreachable)


def _listed(url: str, rules: Rules) -> Iterator[Found]:
    """Yield the objects below a prefix, or why they cannot be listed."""
    try:
        for item in remote.list_objects(url):
            rest = item.url.removeprefix(url)
            hidden = any(part.startswith(".") for part in rest.split("/"))
            if (
                (hidden and not rules.hidden)
                or (rules.include is not None and not rules.include.match_file(rest))
                or (rules.exclude is not None and rules.exclude.match_file(rest))
            ):
                continue
            yield Found(item.url, item.url, size=item.bytes, modified=item.modified)
    except _REMOTE as exc:
        yield Found(url, url, problem=f"{exc} ({exc.hint})" if exc.hint else str(exc))


def _standard_input(stdin: Stdin) -> Found:
    data = (stdin.file or sys.stdin.buffer).read(MAX_BYTES + 1)
    name = stdin.name or ""
    uri = name if "://" in name else f"stdin:{name or hashlib.sha256(data).hexdigest()[:16]}"
    found = Found("-", remote.public_url(uri) if remote.is_url(uri) else uri)
    if len(data) > MAX_BYTES:
        return replace(found, problem=too_large(len(data)))
    name = name.rstrip("/").rpartition("/")[2] or "stdin"
    return replace(found, data=data, name=name, media_type=stdin.media_type)


def _check_watch(asked: Roots, dry_run: bool) -> None:
    if asked.stdin or asked.urls or asked.listings:
        raise UsageError(
            "only files and folders can be watched", hint="ingest URLs in a command of their own"
        )
    if dry_run:
        raise UsageError("a dry run does not watch", hint="leave out one of the two")


def _told(ocr: str | None, keep_boilerplate: bool | None, tika_url: str | None) -> dict[str, Any]:
    """Return the options of extraction that were given, as a collection keeps them."""
    told: dict[str, Any] = {}
    if ocr is not None:
        told["ocr"] = ocr
    if keep_boilerplate is not None:
        told["keep_boilerplate"] = keep_boilerplate
    if tika_url is not None:
        told |= {"extractor": "tika", "tika_url": tika_url}
    return told


def _options(settings: dict[str, Any]) -> Options:
    if settings.get("extractor") == "tika" and not settings.get("tika_url"):
        raise UsageError(
            "the collection is read by Apache Tika, and nobody says where that is",
            hint="--tika-url http://127.0.0.1:9998, or: select pgstack.configure('tika_url', ...)",
        )
    return Options(
        ocr=settings.get("ocr", Options().ocr),
        keep_boilerplate=settings.get("keep_boilerplate", False),
        tika_url=settings.get("tika_url"),
    )
