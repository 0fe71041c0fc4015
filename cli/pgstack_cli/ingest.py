"""``pgstack ingest``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pgstack_cli.options import AsJson, DatabaseUrl
from pgstack_cli.output import json_document, message, progress

if TYPE_CHECKING:
    from pgstack.ingest import IngestReport
    from pgstack.vectorizers import Status

SHOWN = 10  # skipped files named in the summary


def ingest(
    paths: Annotated[list[Path], typer.Argument(metavar="PATH", help="Files and folders.")],
    *,
    collection: Annotated[
        str, typer.Option("--collection", "-c", metavar="NAME", help="Made if it is new.")
    ],
    prune: Annotated[
        bool, typer.Option("--prune", help="Remove documents whose files are gone.")
    ] = False,
    wait: Annotated[
        bool, typer.Option("--wait", help="Wait until everything is embedded.")
    ] = False,
    model: Annotated[
        str | None, typer.Option("--model", help="Embedding model of a new collection.")
    ] = None,
    as_json: AsJson = False,
    url: DatabaseUrl = None,
) -> None:
    """Read files and folders into a collection.

    Changes only what changed since the last time. A worker embeds it in the background.
    Exit code 1 when nothing could be read. --json: one document: collection, inserted,
    updated, unchanged, removed, skipped [{path, reason}], warnings [{path, reason}].

    \b
    Examples:
      pgstack ingest ./handbook --collection handbook
      pgstack ingest ./handbook --collection handbook --prune --wait
      pgstack ingest notes.md report.html --collection notes --json
    """
    from pgstack import target

    with target.connect(url) as conn:
        report = read(conn, paths, collection, prune=prune, model=model)
        if as_json:
            json_document(_as_json(collection, report))
        else:
            print_report(collection, report)
        if wait:
            follow(conn, collection)
    if not (report.inserted or report.updated or report.unchanged or report.removed):
        message("error: nothing could be read")
        raise typer.Exit(1)


def read(
    conn: Any, paths: list[Path], collection: str, *, prune: bool = False, model: str | None = None
) -> IngestReport:
    """Ingest with a progress bar."""
    from pgstack.ingest import ingest as library

    with progress(f"reading into {collection}", unit="files") as advance:
        return library(
            conn,
            paths,
            collection,
            prune=prune,
            model=model,
            progress=lambda step: advance(step.done, step.total),
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


def print_report(collection: str, report: IngestReport) -> None:
    """Print what an ingest did."""
    counts = (
        (report.inserted, "new"),
        (report.updated, "changed"),
        (report.unchanged, "unchanged"),
        (report.removed, "removed"),
        (len(report.skipped), "skipped"),
    )
    said = ", ".join(f"{count} {what}" for count, what in counts if count)
    message(f"{collection}: {said or 'no files'}")
    for path, reason in report.skipped[:SHOWN]:
        message(f"  skipped {path}: {reason}")
    if len(report.skipped) > SHOWN:
        message(f"  and {len(report.skipped) - SHOWN} more: see --json")


def _as_json(collection: str, report: IngestReport) -> dict[str, Any]:
    return {
        "collection": collection,
        "inserted": report.inserted,
        "updated": report.updated,
        "unchanged": report.unchanged,
        "removed": report.removed,
        "skipped": [{"path": path, "reason": reason} for path, reason in report.skipped],
        "warnings": [{"path": path, "reason": reason} for path, reason in report.warnings],
    }
