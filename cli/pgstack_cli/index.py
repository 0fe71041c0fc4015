"""``pgstack index``: vector indexes, advised, built and measured."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from pgstack_cli.options import AsJson, DatabaseUrl, Name
from pgstack_cli.output import duration, json_document, message, progress, size, table

if TYPE_CHECKING:
    from pgstack.db import Connection
    from pgstack.indexes import Build

app = typer.Typer(
    help="Vector indexes: which one fits, build it, see what it finds.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


class Method(StrEnum):
    """How an index is organised."""

    hnsw = "hnsw"
    diskann = "diskann"
    none = "none"


class Storage(StrEnum):
    """How an index keeps vectors."""

    vector = "vector"
    halfvec = "halfvec"
    sbq = "sbq"


@app.command()
def advice(
    name: Name,
    *,
    rows: Annotated[
        int | None,
        typer.Option("--rows", min=0, help="For so many chunks. Default: those there are."),
    ] = None,
    as_json: AsJson = False,
    url: DatabaseUrl = None,
) -> None:
    """Show the vector indexes NAME could have, what each would cost, and which one to take.

    --json: one document, an array of the rows of pgstack.index_advice(); times in seconds.

    \b
    Examples:
      pgstack index advice blog
      pgstack index advice blog --rows 5000000 --json
    """
    from pgstack import indexes, target

    with target.connect(url) as conn:
        found = indexes.advice(conn, name, rows=rows)
    if as_json:
        json_document(found)
        return
    table(
        ("", "method", "storage", "size", "build", "memory", "search ms"),
        [
            (
                *("take" if a.recommended else "", a.method, a.storage),
                None if a.expected_bytes is None else size(a.expected_bytes),
                None if a.expected_time is None else duration(a.expected_time.total_seconds()),
                None if a.memory_bytes is None else size(a.memory_bytes),
                a.expected_ms,
            )
            for a in found
        ],
    )
    for a in found:
        message(f"{a.method} {a.storage}: {a.why}" if a.method != "none" else f"none: {a.why}")
    message(f"hint: pgstack index build {name}")


@app.command()
def build(
    name: Name,
    *,
    method: Annotated[
        Method | None, typer.Option("--method", help="Default: what `advice` recommends.")
    ] = None,
    storage: Annotated[
        Storage | None,
        typer.Option("--storage", help="vector or halfvec for hnsw, sbq for diskann."),
    ] = None,
    parameter: Annotated[
        list[str] | None,
        typer.Option("--parameter", "-p", metavar="NAME=NUMBER", help="Such as m=16. Repeatable."),
    ] = None,
    labels: Annotated[
        str | None, typer.Option("--labels", help="A smallint[] column that DiskANN filters by.")
    ] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Show progress until it is built.")] = False,
    as_json: AsJson = False,
    url: DatabaseUrl = None,
) -> None:
    """Have the worker build a vector index for NAME in place of the one it has.

    The old one serves until the new one is complete, and nobody waits for it. Interrupting
    --wait does not stop the build. --json: one document, its row of pgstack.index_progress.

    \b
    Examples:
      pgstack index build blog --wait
      pgstack index build blog --method hnsw --storage halfvec -p m=24 -p ef_construction=128
      pgstack index build blog --method none
    """
    from pgstack import indexes, target

    with target.connect(url, autocommit=True) as conn:
        number = indexes.build(
            conn,
            name,
            method=method and method.value,
            storage=storage and storage.value,
            parameters=_numbers(parameter),
            labels=labels,
        )
        found = _waited(conn, number) if wait else next(indexes.follow(conn, number))
    if as_json:
        json_document(found)
    elif wait:
        took = "" if found.elapsed is None else f" in {duration(found.elapsed.total_seconds())}"
        big = "" if found.bytes is None else f", {size(found.bytes)}"
        message(f"{found.vectorizer}: index {found.method}, built{took}{big}")
    else:
        message(f"{found.vectorizer}: index {found.method} is asked for, build {number}")
        message(f"hint: pgstack index builds {name}")


def _numbers(given: list[str] | None) -> dict[str, float] | None:
    """Return NAME=NUMBER texts as a dictionary; None: the advised ones."""
    from pgstack.errors import UsageError

    if not given:
        return None
    found: dict[str, float] = {}
    for text in given:
        name, _, number = text.partition("=")
        try:
            found[name.strip()] = float(number) if "." in number else int(number)
        except ValueError:
            raise UsageError(f"not NAME=NUMBER: {text}", hint="-p m=16") from None
    return found


def _waited(conn: Connection, number: int) -> Build:
    """Show progress until a build is done; return how it ended."""
    from pgstack import indexes

    with progress("building", unit="chunks") as advance:
        for now in indexes.follow(conn, number):
            total = now.tuples_total
            advance(now.tuples_done or round((now.percent or 0) / 100 * (total or 0)), total)
    return now


@app.command("builds")
def list_builds(
    name: Annotated[
        str | None, typer.Argument(help="A vectorizer. Default: all of them.", show_default=False)
    ] = None,
    as_json: AsJson = False,
    url: DatabaseUrl = None,
) -> None:
    """List the indexes that were asked for, and how far they are, the latest first.

    --json: one document, an array of the rows of pgstack.index_progress; times in seconds.

    \b
    Examples:
      pgstack index builds
      pgstack index builds blog --json
    """
    from pgstack import indexes, target

    with target.connect(url) as conn:
        found = indexes.builds(conn, name)
    if as_json:
        json_document(found)
    elif found:
        table(
            (
                "build",
                "vectorizer",
                "method",
                "storage",
                "state",
                "%",
                "took",
                "left",
                "size",
                "error",
            ),
            [
                (
                    *(b.build, b.vectorizer, b.method, b.storage, b.state, b.percent),
                    *(b.elapsed, b.eta, None if b.bytes is None else size(b.bytes), b.error),
                )
                for b in found
            ],
        )
    else:
        message("no index was asked for yet. Next: pgstack index advice NAME")


@app.command()
def recall(
    name: Name,
    *,
    sample: Annotated[
        int, typer.Option("--sample", min=1, max=10000, help="Searches to compare.")
    ] = 100,
    k: Annotated[int, typer.Option("-k", min=1, max=500, help="Chunks to find.")] = 10,
    target_recall: Annotated[
        float | None,
        typer.Option("--target", min=0, max=1, help="Default: the setting target_recall."),
    ] = None,
    as_json: AsJson = False,
    url: DatabaseUrl = None,
) -> None:
    """Compare what the index of NAME finds with what there is, trying harder and harder.

    Run by the owner of pgstack, the result is kept: searches then ask of the index what the
    target takes. --json: one document, an array of the rows of pgstack.recall().

    \b
    Examples:
      pgstack index recall blog
      pgstack index recall blog --sample 500 -k 20 --target 0.99 --json
    """
    from pgstack import indexes, target

    with target.connect(url, autocommit=True) as conn:
        found = indexes.recall(conn, name, sample=sample, k=k, target=target_recall)
    if as_json:
        json_document(found)
    elif not found:
        message(f"{name} has no chunks yet")
    else:
        table(
            ("", "effort", "recall", "worst 5 %", "p50 ms", "p95 ms"),
            [
                (
                    *("take" if r.chosen else "", r.effort, round(r.recall, 4)),
                    *(round(r.recall_p5, 4), r.p50_ms, r.p95_ms),
                )
                for r in found
            ],
        )
        message(f"{found[0].sampled} {found[0].queries}; exact: {found[0].exact_ms:g} ms")
