"""``pgstack ingest``."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from shlex import quote
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pgstack_cli.options import AsJson, DatabaseUrl
from pgstack_cli.output import duration, json_document, message, progress, result

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pgstack.ingest import IngestProgress, IngestReport
    from pgstack.vectorizers import Status

SHOWN = 10  # failed and skipped files named in the summary
INTERRUPTED = 130

_WORDS = {"inserted": "new", "updated": "changed"}  # others are what they are called


def ingest(
    paths: Annotated[
        list[str],
        typer.Argument(
            metavar="PATH|GLOB|URL|-", help="Files, folders, 'globs', URLs; - is stdin."
        ),
    ],
    *,
    collection: Annotated[
        str, typer.Option("--collection", "-c", metavar="NAME", help="Made if it is new.")
    ],
    include: Annotated[
        list[str],
        typer.Option(
            "--include", metavar="PATTERN", help="Only files like this, as in .gitignore; repeat."
        ),
    ] = [],  # noqa: B006 - Typer's way to say: none
    exclude: Annotated[
        list[str],
        typer.Option("--exclude", metavar="PATTERN", help="No files or folders like this; repeat."),
    ] = [],  # noqa: B006
    no_ignore: Annotated[
        bool, typer.Option("--no-ignore", help="Read what .gitignore and .pgstackignore name.")
    ] = False,
    hidden: Annotated[bool, typer.Option("--hidden", help="Read hidden files.")] = False,
    follow_symlinks: Annotated[
        bool, typer.Option("--follow-symlinks", help="Follow links inside folders.")
    ] = False,
    name: Annotated[
        str | None, typer.Option("--name", help="What - is: a file name, or a URL.")
    ] = None,
    media_type: Annotated[
        str | None, typer.Option("--media-type", metavar="TYPE", help="Of -: text/html.")
    ] = None,
    prune: Annotated[
        bool, typer.Option("--prune", help="Remove documents whose files are gone.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only tell what would be done.")
    ] = False,
    watch: Annotated[
        bool, typer.Option("--watch", help="Go on with changes as they come, until Ctrl-C.")
    ] = False,
    wait: Annotated[
        bool, typer.Option("--wait", help="Wait until everything is embedded.")
    ] = False,
    retry: Annotated[bool, typer.Option("--retry", help="Read failed files again.")] = False,
    reread: Annotated[
        bool, typer.Option("--reread", help="Read all files again, after a change of options.")
    ] = False,
    jobs: Annotated[
        int | None,
        typer.Option("--jobs", "-j", min=1, help="Processes that read. Default: one a processor."),
    ] = None,
    keep: Annotated[
        bool, typer.Option("--keep", help="Store the files too, not only their text.")
    ] = False,
    background: Annotated[
        bool,
        typer.Option("--background", "--no-extract", help="Store the files; a worker reads them."),
    ] = False,
    ocr: Annotated[
        str | None,
        typer.Option("--ocr", metavar="LANGS", help="Languages in pictures: eng+deu; '' for none."),
    ] = None,
    keep_boilerplate: Annotated[
        bool, typer.Option("--keep-boilerplate", help="Keep menus and footers of web pages.")
    ] = False,
    tika_url: Annotated[
        str | None, typer.Option("--tika-url", metavar="URL", help="An Apache Tika server reads.")
    ] = None,
    model: Annotated[
        str | None, typer.Option("--model", help="Embedding model of a new collection.")
    ] = None,
    chunking: Annotated[
        str | None,
        typer.Option("--chunking", metavar="METHOD", help="How a new collection cuts texts."),
    ] = None,
    chunk_size: Annotated[
        int | None, typer.Option("--chunk-size", help="Of a new collection, in characters.")
    ] = None,
    chunk_overlap: Annotated[
        int | None, typer.Option("--chunk-overlap", help="Of a new collection, in characters.")
    ] = None,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="No progress, no summary: only errors.")
    ] = False,
    as_json: AsJson = False,
    url: DatabaseUrl = None,
) -> None:
    """Read files, folders and URLs into a collection.

    Reads only what changed since the last time, and goes on where it was when it was
    interrupted. Leaves out hidden files and what .gitignore and .pgstackignore name. A worker
    embeds in the background. A file that cannot be read is noted in pgstack.documents with the
    reason, harms no other, and is not tried again until it changes.

    Exit code 1 when nothing could be read, 130 after Ctrl-C. --json: one document: collection,
    inserted, updated, unchanged, removed, failed, skipped and warnings (each [{path, reason}]),
    omitted (how many more of those), created, interrupted; with --dry-run, changes
    [{path, outcome}].

    \b
    Examples:
      pgstack ingest ./handbook --collection handbook
      pgstack ingest ./handbook --collection handbook --prune --wait
      pgstack ingest 'docs/**/*.md' --exclude drafts/ --collection docs --dry-run
      pgstack ingest ~/notes --collection notes --watch --prune
      pgstack ingest https://www.postgresql.org/about/ --collection web
      pgstack ingest s3://bucket/reports/ --include '*.pdf' --collection reports
      curl -s https://example.com/x | pgstack ingest - --name x.html --collection web
    """
    from pgstack import target
    from pgstack.errors import UsageError
    from pgstack.ingest import Stdin

    if watch and wait:
        raise UsageError("--watch goes on, --wait ends", hint="Choose one of them.")
    show = _Show(collection, quiet=quiet, as_json=as_json, dry=dry_run)
    of_a_new_one = {
        "model": model,
        "chunking": chunking,
        "chunk_size": chunk_size,
        "chunk_overlap": chunk_overlap,
    }
    with target.connect(url) as conn:
        report, interrupted = show.run(
            conn,
            paths,
            watch=watch,
            include=include,
            exclude=exclude,
            ignore_files=not no_ignore,
            hidden=hidden,
            follow_symlinks=follow_symlinks,
            stdin=Stdin(name, media_type),
            jobs=jobs,
            prune=prune,
            dry_run=dry_run,
            retry=retry,
            reread=reread,
            keep=keep,
            background=background,
            ocr=ocr,
            keep_boilerplate=keep_boilerplate or None,
            tika_url=tika_url,
            **of_a_new_one,
        )
        given = [f"--{name.replace('_', '-')}" for name, value in of_a_new_one.items() if value]
        if given and not report.created:
            message(f"warning: {collection} was there already, so {', '.join(given)} did nothing")
        if wait and not interrupted and not dry_run:
            follow(conn, collection)
        elif not interrupted and not watch:
            show.next_command(report, background)
    if interrupted:
        raise typer.Exit(INTERRUPTED)
    if not watch and not (report.documents or report.removed):
        message("error: nothing could be read")
        raise typer.Exit(1)


@dataclass
class _Show:
    """Runs an ingest and shows how it goes."""

    collection: str
    quiet: bool = False
    as_json: bool = False
    dry: bool = False
    changes: list[dict[str, str]] = field(default_factory=list)
    is_up_to_date: bool = False  # while it watches: the first pass is over

    def run(
        self, conn: Any, paths: Sequence[Any], *, watch: bool = False, **options: Any
    ) -> tuple[IngestReport, bool]:
        """Return what was done, and whether the user ended it before the end."""
        from pgstack.errors import PgstackError
        from pgstack.ingest import IngestReport, Interrupted
        from pgstack.ingest import ingest as library

        began = time.monotonic()
        report = IngestReport()
        interrupted = False
        done = 0
        try:
            with self._progress(watch) as advance, _termination():

                def step(finished: IngestProgress) -> None:
                    nonlocal done
                    done = finished.done
                    advance(finished.done, finished.total)
                    self._one(finished)

                report = library(
                    conn,
                    paths,
                    self.collection,
                    watch=threading.Event() if watch else None,
                    watching=self._first_pass_is_over,
                    progress=step,
                    **options,
                )
        except Interrupted as exc:
            report, interrupted = exc.report, not self.is_up_to_date
        except Exception as exc:
            if done and not self.dry and not (isinstance(exc, PgstackError) and exc.exit_code == 2):
                message(
                    f"{self.collection}: {done:,} files were done; the same command goes on there"
                )
            raise
        self._end(report, interrupted, time.monotonic() - began)
        return report, interrupted

    def _progress(self, watch: bool) -> contextlib.AbstractContextManager[Any]:
        if self.quiet or watch or self.dry:
            return contextlib.nullcontext(lambda done, total: None)
        return progress(f"reading into {self.collection}", unit="files")

    def _one(self, finished: IngestProgress) -> None:
        """Show one file, where that is what was asked for."""
        if finished.outcome == "unchanged" or not (self.dry or self.is_up_to_date):
            return
        word = _WORDS.get(finished.outcome, finished.outcome)
        line = f"{word} {finished.path}" + (f": {finished.reason}" if finished.reason else "")
        if self.dry:
            if self.as_json:
                self.changes.append({"path": finished.path, "outcome": finished.outcome})
            elif finished.outcome in ("inserted", "updated", "removed"):
                result(line)
        elif not self.quiet:
            message(line)

    def _first_pass_is_over(self, report: IngestReport) -> None:
        if not self.quiet:
            self._summary(report, "", "")
            message("watching for changes; Ctrl-C ends it")
        self.is_up_to_date = True

    def _end(self, report: IngestReport, interrupted: bool, seconds: float) -> None:
        if self.as_json:
            json_document(self._as_json(report, interrupted))
        elif not self.quiet:
            count = report.documents + len(report.failed)
            rate = (
                f", {count / seconds:,.0f} files/s" if seconds > 1 and count > 5 * seconds else ""
            )
            taken = "" if self.is_up_to_date else f" in {duration(seconds)}{rate}"
            self._summary(report, "would be " if self.dry else "", taken)
            if interrupted:
                message("interrupted: the same command goes on where it was")

    def _summary(self, report: IngestReport, before: str, after: str) -> None:
        counts = (
            (report.inserted, "new"),
            (report.updated, "changed"),
            (report.unchanged, "unchanged"),
            (report.removed, "removed"),
            (len(report.failed), "failed"),
            (len(report.skipped), "skipped"),
        )
        said = ", ".join(f"{count:,} {what}" for count, what in counts if count)
        message(f"{self.collection}: {before}{said or 'no files'}{after}")
        for what, named in (("failed", report.failed), ("skipped", report.skipped)):
            for path, reason in named[:SHOWN]:
                message(f"  {what} {path}: {reason}")
            if len(named) > SHOWN:
                message(f"  and {len(named) - SHOWN:,} more {what}: see --json")
        warnings = Counter(reason for _, reason in report.warnings)
        for reason, count in warnings.most_common(SHOWN):
            message(f"  warning, {count:,} file{'s' if count > 1 else ''}: {reason}")

    def _as_json(self, report: IngestReport, interrupted: bool) -> dict[str, Any]:
        named = {"failed": report.failed, "skipped": report.skipped, "warnings": report.warnings}
        return {
            "collection": self.collection,
            "inserted": report.inserted,
            "updated": report.updated,
            "unchanged": report.unchanged,
            "removed": report.removed,
            **{
                kind: [{"path": path, "reason": reason} for path, reason in pairs]
                for kind, pairs in named.items()
            },
            "omitted": report.omitted,
            "created": report.created,
            "interrupted": interrupted,
            **({"changes": self.changes} if self.dry else {}),
        }

    def next_command(self, report: IngestReport, background: bool) -> None:
        """Say what to do now."""
        if self.quiet or self.as_json or not report.documents:
            return
        name = quote(self.collection)
        if self.dry:
            message("next: the same command without --dry-run")
        elif report.inserted or report.updated:
            who = "reads and embeds them" if background else "embeds them"
            message(f"next: pgstack vectorizer show {name}   # a worker {who} in the background")
        else:
            message(f'next: pgstack search {name} "what you look for"')


@contextlib.contextmanager
def _termination() -> Iterator[None]:
    """Have SIGTERM end it as Ctrl-C does, with a summary."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def read(conn: Any, paths: Sequence[Any], collection: str, **options: Any) -> IngestReport:
    """Ingest with a progress bar; ``options``: as of :func:`pgstack.ingest.ingest`."""
    from pgstack.ingest import ingest as library

    with progress(f"reading into {collection}", unit="files") as advance:
        return library(
            conn,
            paths,
            collection,
            progress=lambda step: advance(step.done, step.total),
            **options,
        )


def follow(conn: Any, collection: str) -> Status:
    """Show how the embeddings appear, until all are there; return how it stands then."""
    from pgstack import vectorizers

    with progress(f"embedding {collection}", unit="documents") as advance:
        total = 0
        for status in vectorizers.follow(conn, collection):
            total = max(total, status.pending or 0)
            advance(total - (status.pending or 0), total)
    if status.failed:
        message(f"warning: {status.failed} documents failed: {status.last_error}")
        message(f"hint: pgstack vectorizer retry {status.name}")
    return status
