"""``pgstack dataset``: CSV, JSON lines and Parquet into tables."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pgstack_cli.options import AsJson, DatabaseUrl
from pgstack_cli.output import json_document, json_line, message, progress, result, size, table

if TYPE_CHECKING:
    from pgstack.datasets import Inspection, LoadReport, Options

app = typer.Typer(
    help="Data sets: CSV, JSON lines, Parquet into tables.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


class Format(StrEnum):
    """What a file is."""

    csv = "csv"
    jsonl = "jsonl"
    parquet = "parquet"


Source = Annotated[
    str, typer.Argument(metavar="FILE|URL", help="Also compressed: .gz, .bz2, .xz, .zst.")
]
FileFormat = Annotated[
    Format | None, typer.Option("--format", help="Default: by the first bytes and the name.")
]
Delimiter = Annotated[
    str | None,
    typer.Option("--delimiter", help="Between fields of CSV; tab: '\\t'. Default: found out."),
]
Quote = Annotated[
    str | None, typer.Option("--quote", help="Around fields; '' for none.", show_default='"')
]
Header = Annotated[
    bool | None,
    typer.Option(
        "--header/--no-header", help="Whether the first record names the columns. Default: it does."
    ),
]
Null = Annotated[
    list[str] | None,
    typer.Option("--null", help="A text that means NULL. Default: nothing between delimiters."),
]
Encoding = Annotated[
    str | None, typer.Option("--encoding", help="Charset. Default: UTF-8, or what it looks like.")
]
Types = Annotated[
    list[str] | None,
    typer.Option("--type", metavar="COLUMN=TYPE", help="Such as price=numeric. Repeatable."),
]
Columns = Annotated[
    list[str] | None,
    typer.Option("--column", metavar="OLD=NEW", help="Rename; OLD= leaves it out. Repeatable."),
]
Key = Annotated[
    list[str] | None,
    typer.Option("--key", metavar="COLUMN", help="Of the primary key. Repeatable."),
]
GeneratedKey = Annotated[
    bool,
    typer.Option("--generated-key", help="Add a primary key id: the number of the record."),
]
Load = Annotated[int, typer.Argument(help="Its number: see `pgstack dataset list`.")]


def _options(given: dict[str, Any]) -> Options:
    """Return what a command was given as options of the library."""
    from pgstack.datasets import Options

    delimiter, chosen = given["delimiter"], given["file_format"]
    return Options(
        format=chosen and chosen.value,
        delimiter="\t" if delimiter in ("\\t", "tab") else delimiter,
        quote=given["quote"],
        header=given["header"],
        null=given["null"],
        encoding=given["encoding"],
        types=_pairs("--type", given["type_"], "price=numeric"),
        columns=_pairs("--column", given["column"], "old=new"),
        key=given["key"] or (),
        generated_key=given["generated_key"],
    )


def _pairs(option: str, given: list[str] | None, example: str) -> dict[str, str]:
    from pgstack.errors import UsageError

    found = {}
    for text in given or ():
        name, sign, value = text.rpartition("=")
        if not sign or not name:
            raise UsageError(f"{option}: not NAME=VALUE: {text}", hint=f"{option} {example}")
        found[name] = value
    return found


@app.command()
def inspect(
    source: Source,
    *,
    file_format: FileFormat = None,
    delimiter: Delimiter = None,
    quote: Quote = None,
    header: Header = None,
    null: Null = None,
    encoding: Encoding = None,
    type_: Types = None,
    column: Columns = None,
    key: Key = None,
    generated_key: GeneratedKey = False,
    as_json: AsJson = False,
) -> None:
    """Show what is in a file and which table it would become. Needs no database.

    Types are read off the beginning of the file. --json: one document: format, encoding,
    delimiter, bytes, sampled, columns [{source, name, type, nulls, examples}], create_table,
    notes.

    \b
    Examples:
      pgstack dataset inspect sales.csv.gz
      pgstack dataset inspect https://example.com/sales.parquet --json
      pgstack dataset inspect old.csv --encoding cp1252 --type zip=text --key id
    """
    _show(_inspected(source, None, _options(locals())), as_json)


def _inspected(source: str, table_name: str | None, options: Options) -> Inspection:
    from pgstack import datasets

    with progress(f"fetching {source}", in_bytes=True) as advance:
        return datasets.inspect(source, table=table_name, options=options, progress=advance)


def _show(found: Inspection, as_json: bool) -> None:
    if as_json:
        json_document(found)
        return
    told = [found.format, found.encoding, size(found.bytes)]
    if found.delimiter:
        told.insert(1, "tab" if found.delimiter == "\t" else f"delimiter {found.delimiter}")
    message(f"{found.source}: {', '.join(t for t in told if t)}; {found.sampled} rows looked at")
    table(
        ("column", "type", "nulls", "examples"),
        [
            (c.name, c.type, c.nulls, " | ".join(example[:40] for example in c.examples))
            for c in found.columns
        ],
    )
    for note in found.notes:
        message(f"note: {note}")
    result(found.create_table + ";")


@app.command()
def load(
    source: Source,
    *,
    table_name: Annotated[
        str, typer.Option("--table", "-t", metavar="SCHEMA.NAME", help="Made if it is new.")
    ],
    append: Annotated[bool, typer.Option("--append", help="Add to a table that exists.")] = False,
    replace: Annotated[
        bool, typer.Option("--replace", help="In place of a table's rows, all at once.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only show columns and the table; see inspect.")
    ] = False,
    restart: Annotated[
        bool, typer.Option("--restart", help="Do not go on with what was broken off: begin again.")
    ] = False,
    max_rejects: Annotated[
        int, typer.Option("--max-rejects", min=0, help="Records that may be kept aside.")
    ] = 1000,
    file_format: FileFormat = None,
    delimiter: Delimiter = None,
    quote: Quote = None,
    header: Header = None,
    null: Null = None,
    encoding: Encoding = None,
    type_: Types = None,
    column: Columns = None,
    key: Key = None,
    generated_key: GeneratedKey = False,
    as_json: AsJson = False,
    url: DatabaseUrl = None,
) -> None:
    """Load a file into a table: a new one, or with --append or --replace one that exists.

    It is committed as it goes. Interrupted, the same command goes on where it was. A record
    that does not fit is kept aside with the number of its line; the load fails when there are
    more than --max-rejects of them. --json: one document: load, table, rows, resumed, rejects,
    rejected [{line, column, reason, raw}], bytes, seconds, columns, notes.

    \b
    Examples:
      pgstack dataset load sales.csv.gz --table shop.sales
      pgstack dataset load notes.jsonl --table notes --generated-key
      pgstack dataset load s3://bucket/day.parquet --table events --append
      pgstack dataset load prices.csv --table prices --type price='numeric(10,2)' --key id
    """
    from pgstack import datasets, target
    from pgstack.errors import UsageError

    options = _options(locals())
    if append and replace:
        raise UsageError("--append and --replace exclude each other", hint="Choose one.")
    if dry_run:
        _show(_inspected(source, table_name, options), as_json)
        return
    with (
        target.connect(url, autocommit=True) as conn,
        progress(f"loading {source}", in_bytes=True) as advance,
    ):
        report = datasets.load_dataset(
            conn,
            source,
            table=table_name,
            options=options,
            mode="append" if append else "replace" if replace else "create",
            max_rejects=max_rejects,
            restart=restart,
            progress=advance,
        )
    if as_json:
        json_document(report)
    else:
        _print_report(report)


def _print_report(report: LoadReport) -> None:
    per_second = (report.rows - report.resumed) / max(report.seconds, 0.001)
    message(
        f"{report.table}: {report.rows:,} rows, {report.rejects} rejected"
        f" ({per_second:,.0f} rows a second)"
    )
    for note in report.notes:
        message(f"note: {note}")
    for reject in report.rejected:
        where = f"{reject.column}: " if reject.column else ""
        message(f"  line {reject.line}: {where}{reject.reason}")
    if report.rejects:
        message(f"hint: pgstack dataset rejects {report.load}")
    if report.prose is not None:
        if not report.has_key:
            message(
                f"hint: a vectorizer needs a primary key: --key COLUMN, --generated-key, or now: "
                f"alter table {report.table} add id bigint generated always as identity primary key"
            )
        message(f"hint: pgstack vectorizer create '{report.table}' '{report.prose}'")


@app.command("list")
def list_loads(as_json: AsJson = False, url: DatabaseUrl = None) -> None:
    """List the loads that were begun, the latest first.

    --json: one document, an array of the rows of pgstack.dataset_loads.

    \b
    Examples:
      pgstack dataset list
      pgstack dataset list --json
    """
    from pgstack import datasets, target

    with target.connect(url) as conn:
        found = datasets.loads(conn)
    if as_json:
        json_document(found)
    elif found:
        table(
            ("load", "table", "source", "state", "rows", "rejects", "read", "started", "error"),
            [
                (
                    *(x.load, x.target, x.source, x.state, x.rows, x.rejects),
                    f"{100 * x.bytes_read // max(1, x.bytes)} %",
                    *(x.started_at, x.error),
                )
                for x in found
            ],
        )
    else:
        message("nothing was loaded yet. Next: pgstack dataset load FILE --table NAME")


@app.command()
def rejects(
    load: Load,
    *,
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="At most so many.")] = None,
    url: DatabaseUrl = None,
) -> None:
    """Print the records that a load kept aside, one JSON object a line.

    Each has line, column (null: the whole record), reason, raw: the record as it stands in the
    file.

    \b
    Examples:
      pgstack dataset rejects 7 > rejects.jsonl
      pgstack dataset rejects 7 --limit 10
    """
    from pgstack import datasets, target

    with target.connect(url) as conn:
        for found in datasets.rejects(conn, load, limit=limit):
            json_line(vars(found))


@app.command()
def forget(load: Load, *, url: DatabaseUrl = None) -> None:
    """Remove what is known of a load and its rejects; the table stays as it is.

    \b
    Example:
      pgstack dataset forget 7
    """
    from pgstack import datasets, target

    with target.connect(url) as conn:
        datasets.forget(conn, load)
    message(f"load {load} is forgotten")
