"""``pgstack vectorizer``: the DBA's verbs."""

from __future__ import annotations

import sys
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from pgstack_cli.chunking import (
    ChunkOverlap,
    ChunkSize,
    KeepSeparator,
    MaskPii,
    Method,
    MethodOption,
    Regex,
    Separators,
    kept,
    split_types,
    unescaped,
)
from pgstack_cli.options import AsJson, DatabaseUrl, Name
from pgstack_cli.output import duration, json_document, message, pairs, size, table

if TYPE_CHECKING:
    from pgstack.vectorizers import Plan

app = typer.Typer(
    help="Keep a table's embeddings in sync: create, show, pause.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


class Index(StrEnum):
    """What vector index the table of embeddings gets."""

    auto = "auto"
    hnsw = "hnsw"
    diskann = "diskann"
    none = "none"


Table = Annotated[str, typer.Argument(metavar="TABLE", help="A table with a primary key.")]
Columns = Annotated[
    list[str],
    typer.Argument(metavar="COLUMN", help="Its text columns; the last one is cut into chunks."),
]
OwnName = Annotated[
    str | None, typer.Option("--name", help="The vectorizer's name. Default: the table's.")
]
Model = Annotated[str | None, typer.Option("--model", help="Default: the setting embedding_model.")]
Dimensions = Annotated[
    int | None, typer.Option("--dimensions", min=1, help="Default: the model is asked.")
]
Template = Annotated[
    str | None, typer.Option("--template", help="What is embedded: '$title: $chunk'.")
]
Destination = Annotated[
    str | None, typer.Option("--destination", help="The view. Default: <name>_embedding.")
]
EmbeddingColumn = Annotated[
    str | None,
    typer.Option("--embedding-column", help="A column of the table instead; no chunks then."),
]
IndexMethod = Annotated[Index, typer.Option("--index", help="The vector index.")]


@app.command()
def create(
    source: Table,
    columns: Columns,
    *,
    name: OwnName = None,
    model: Model = None,
    dimensions: Dimensions = None,
    chunking: MethodOption = Method.recursive,
    chunk_size: ChunkSize = 800,
    chunk_overlap: ChunkOverlap = 400,
    separator: Separators = None,
    regex: Regex = False,
    keep_separator: KeepSeparator = None,
    mask_pii: MaskPii = None,
    template: Template = None,
    destination: Destination = None,
    embedding_column: EmbeddingColumn = None,
    index: IndexMethod = Index.auto,
    url: DatabaseUrl = None,
) -> None:
    """Keep embeddings of TABLE's text in sync from now on.

    The rows that are there are embedded too: see first with `pgstack vectorizer plan`.

    \b
    Examples:
      pgstack vectorizer create blog contents
      pgstack vectorizer create shop.product title description --name products
      pgstack vectorizer create "My Table" body --chunking none --index diskann
      pgstack vectorizer create ticket body --chunking sentence --chunk-overlap 0 --mask-pii all
    """
    from pgstack import target, vectorizers

    options = vectorizers.Options(
        name=name,
        model=model,
        dimensions=dimensions,
        chunking=chunking.value,
        chunk_size=chunk_size,
        chunk_overlap=chunk_overlap,
        template=template,
        destination=destination,
        embedding_column=embedding_column,
        index=index.value,
        separators=unescaped(separator, regex=regex),
        is_regex=regex,
        keep_separator=kept(keep_separator),
        mask_pii=split_types(mask_pii),
    )
    with target.connect(url) as conn:
        made = vectorizers.create(conn, source, columns, options)
        found = vectorizers.status_by_id(conn, made)
    message(f"vectorizer {found.name} embeds {found.source} into {found.view or found.target}")
    message(f"hint: pgstack vectorizer show {found.name}")


@app.command()
def plan(
    source: Table,
    columns: Columns,
    *,
    name: OwnName = None,
    model: Model = None,
    dimensions: Dimensions = None,
    chunking: MethodOption = Method.recursive,
    chunk_size: ChunkSize = 800,
    chunk_overlap: ChunkOverlap = 400,
    separator: Separators = None,
    regex: Regex = False,
    keep_separator: KeepSeparator = None,
    mask_pii: MaskPii = None,
    template: Template = None,
    destination: Destination = None,
    embedding_column: EmbeddingColumn = None,
    index: IndexMethod = Index.auto,
    as_json: AsJson = False,
    url: DatabaseUrl = None,
) -> None:
    """Show what `create` would do and how long that takes. Writes nothing.

    Chunks are estimated from a sample of rows; the time needs a worker, which lets the
    model embed a few of them. Exit code 1 when `create` would refuse. --json: one document:
    name, source, columns, writes_to, model, dimensions, rows, rows_exact, sampled_rows,
    chunks, bytes, chunks_per_second, seconds, index, problem.

    \b
    Examples:
      pgstack vectorizer plan blog contents
      pgstack vectorizer plan blog contents --chunk-size 400 --chunk-overlap 50 --json
    """
    from pgstack import target, vectorizers

    options = vectorizers.Options(
        name=name,
        model=model,
        dimensions=dimensions,
        chunking=chunking.value,
        chunk_size=chunk_size,
        chunk_overlap=chunk_overlap,
        template=template,
        destination=destination,
        embedding_column=embedding_column,
        index=index.value,
        separators=unescaped(separator, regex=regex),
        is_regex=regex,
        keep_separator=kept(keep_separator),
        mask_pii=split_types(mask_pii),
    )
    with target.connect(url) as conn:
        found = vectorizers.plan(conn, source, columns, options)
    if as_json:
        json_document(found)
    else:
        _print_plan(found)
    if found.problem:
        message(f"error: {found.problem}")
        raise typer.Exit(1)


def _print_plan(found: Plan) -> None:
    exact = "" if found.rows_exact else " (PostgreSQL's estimate)"
    time = "unknown: no worker to measure the model with"
    if found.seconds is not None:
        time = f"about {duration(found.seconds)}, {found.chunks_per_second:g} chunks a second"
    pairs(
        [
            ("vectorizer", found.name),
            ("reads", f"{found.source} ({', '.join(found.columns)})"),
            ("writes", found.writes_to),
            ("model", f"{found.model}, {found.dimensions or '?'} dimensions"),
            ("rows", f"{found.rows:,}{exact}"),
            ("chunks", f"about {found.chunks:,}, from {found.sampled_rows:,} rows"),
            ("space", f"about {size(found.bytes)}"),
            ("time", time),
            ("index", found.index),
        ]
    )


@app.command("list")
def list_vectorizers(as_json: AsJson = False, url: DatabaseUrl = None) -> None:
    """List the vectorizers: how far each is behind, what failed.

    --json: one document, an array of the rows of pgstack.vectorizer_status; lag in seconds.

    \b
    Examples:
      pgstack vectorizer list
      pgstack vectorizer list --json
    """
    from pgstack import target, vectorizers

    with target.connect(url) as conn:
        found = vectorizers.statuses(conn)
    if as_json:
        json_document(found)
    elif found:
        table(
            (
                *("name", "source", "state", "pending", "retrying", "failed"),
                *("chunks", "rows/s", "lag"),
            ),
            [
                (
                    *(v.name, v.source, v.state, v.pending, v.retrying, v.failed),
                    *(v.embedded_chunks, v.rows_per_second, v.lag),
                )
                for v in found
            ],
        )
    else:
        message("no vectorizers yet. Next: pgstack vectorizer create TABLE COLUMN")


@app.command()
def show(name: Name, as_json: AsJson = False, url: DatabaseUrl = None) -> None:
    """Show all about one vectorizer.

    --json: one document, its row of pgstack.vectorizer_status (lag in seconds) and chunking:
    method, size, overlap, separators, is_regex, keep_separator, mask_pii.

    \b
    Examples:
      pgstack vectorizer show blog
      pgstack vectorizer show blog --json
    """
    from pgstack import chunking, target, vectorizers

    with target.connect(url) as conn:
        found = vectorizers.status(conn, name)
        cut = chunking.of_vectorizer(conn, found.id)
    if as_json:
        json_document({**vars(found), "chunking": vars(cut)})
    else:
        facts = {**vars(found), "chunking": cut, "masked": ", ".join(cut.mask_pii or ["nothing"])}
        pairs([(key.replace("_", " "), value) for key, value in facts.items()])


@app.command("errors")
def list_errors(
    name: Name,
    count: Annotated[int, typer.Option("-n", min=1, help="Rows to show, the latest first.")] = 20,
    as_json: AsJson = False,
    url: DatabaseUrl = None,
) -> None:
    """Show the source rows that wait for another try or were set aside, and why.

    --json: one document, an array of the rows of pgstack.vectorizer_errors.

    \b
    Examples:
      pgstack vectorizer errors blog
      pgstack vectorizer errors blog -n 1000 --json
    """
    from pgstack import target, vectorizers

    with target.connect(url) as conn:
        found = vectorizers.errors(conn, name, limit=count)
        counts = vectorizers.status(conn, name)
    if as_json:
        json_document(found)
        return
    if found:
        table(
            ("key", "state", "attempts", "since", "next try", "error"),
            [(_key(e.key), e.state, e.attempts, e.since, e.next_try_at, e.error) for e in found],
        )
    if counts.failed is None:
        message("this role may not read the errors: it needs select on _pgstack.work")
    elif not found:
        message(f"no row of {counts.name} failed")
    elif counts.failed:
        message(f"try those that failed once more: pgstack vectorizer retry {name}")


def _key(key: dict[str, object]) -> str:
    """Return a key as a person reads it: id=7."""
    return ", ".join(f"{column}={value}" for column, value in key.items())


@app.command()
def adopt(name: Name, url: DatabaseUrl = None) -> None:
    """Give a vectorizer made with plain pgai the cheaper triggers of pgstack.

    Writers of its table wait for a moment, readers do not.

    \b
    Examples:
      pgstack vectorizer adopt blog
    """
    from pgstack import target, vectorizers

    with target.connect(url) as conn:
        vectorizers.adopt(conn, name)
    message(f"{name} is adopted")


@app.command()
def pause(name: Name, url: DatabaseUrl = None) -> None:
    """Stop embedding; changes go on being queued, so nothing is missed.

    \b
    Examples:
      pgstack vectorizer pause blog
    """
    from pgstack import target, vectorizers

    with target.connect(url) as conn:
        vectorizers.pause(conn, name)
    message(f"{name} is paused. Go on: pgstack vectorizer resume {name}")


@app.command()
def resume(name: Name, url: DatabaseUrl = None) -> None:
    """Go on after `pgstack vectorizer pause`.

    \b
    Examples:
      pgstack vectorizer resume blog
    """
    from pgstack import target, vectorizers

    with target.connect(url) as conn:
        vectorizers.resume(conn, name)
    message(f"{name} goes on")


@app.command()
def refresh(name: Name, url: DatabaseUrl = None) -> None:
    """Queue every row, after its model was pulled anew. Vectors that stay the same are kept.

    \b
    Examples:
      pgstack vectorizer refresh blog
    """
    from pgstack import target, vectorizers

    with target.connect(url) as conn:
        queued = vectorizers.refresh(conn, name)
    message(f"{name}: {queued:,} rows are queued")


@app.command()
def retry(name: Name, url: DatabaseUrl = None) -> None:
    """Queue the rows that failed once more.

    \b
    Examples:
      pgstack vectorizer retry blog
    """
    from pgstack import target, vectorizers

    with target.connect(url) as conn:
        count = vectorizers.retry(conn, name)
    message(f"{count} failed rows of {name} are queued again")


@app.command()
def drop(
    name: Name,
    drop_data: Annotated[
        bool, typer.Option("--drop-data", help="Drop its view and embeddings too.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    url: DatabaseUrl = None,
) -> None:
    """End a vectorizer. The table stays; so do the embeddings, unless --drop-data.

    \b
    Examples:
      pgstack vectorizer drop blog
      pgstack vectorizer drop blog --drop-data --yes
    """
    from pgstack import target, vectorizers
    from pgstack.errors import UsageError

    with target.connect(url) as conn:
        found = vectorizers.status(conn, name)
        lost = f" and {found.embedded_chunks:,} embedded chunks" if drop_data else ""
        if not yes:
            if not sys.stdin.isatty():
                raise UsageError("nobody is there to ask", hint="say it with --yes")
            typer.confirm(f"Drop the vectorizer {found.name}{lost}?", abort=True, err=True)
        vectorizers.drop(conn, found.name, drop_data=drop_data)
    message(f"{found.name} is dropped" + (", with its embeddings" if drop_data else ""))
