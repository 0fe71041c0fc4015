"""What is in a file, before anything is loaded."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

from psycopg import sql

from pgstack.datasets import schema
from pgstack.datasets.batch import Reader
from pgstack.datasets.schema import Column, Options
from pgstack.datasets.source import File, find
from pgstack.errors import UsageError
from pgstack.remote import fetch, is_url, public_url

MAX_BYTES = 100 * 2**30  # of a file at a URL
WHOLE_SECONDS = 86400.0  # to fetch it

type Progress = Callable[[int, int | None], None]  # bytes done, of how many


@dataclass(frozen=True)
class Inspection:
    """What is in a file.

    ``sampled``       rows at its beginning that this was read off
    ``columns``       with their nulls and examples among those
    ``create_table``  the statement that a load would run
    ``notes``         what was done to names, and what else to know
    """

    source: str
    format: str
    encoding: str | None
    delimiter: str | None
    bytes: int
    sampled: int
    columns: list[Column]
    create_table: str
    notes: list[str]


@contextmanager
def opened(source: str | PathLike[str], progress: Progress | None = None) -> Iterator[File]:
    """Give the file of a data set, for the length of a ``with`` block; fetch it if need be."""
    name = str(source)
    if not is_url(name):
        yield find(Path(name).absolute())
        return
    with tempfile.TemporaryDirectory(prefix="pgstack-dataset-") as folder:
        path = Path(folder) / "data"
        with path.open("wb") as into:
            fetch(name, into, max_bytes=MAX_BYTES, progress=progress, seconds=WHOLE_SECONDS)
        yield find(path, public_url(name))


def reader(file: File, options: Options) -> Reader:
    """Return what reads a file: by the options, its first bytes, its name."""
    # Late: each imports what others need not.
    from pgstack.datasets.csv_file import CsvReader
    from pgstack.datasets.jsonl import JsonlReader
    from pgstack.datasets.parquet import ParquetReader

    readers: dict[str, Callable[[File, Options], Reader]] = {
        "csv": CsvReader,
        "jsonl": JsonlReader,
        "parquet": ParquetReader,
    }
    name = options.format or _format(file)
    if name not in readers:
        raise UsageError(f"there is no format {name}", hint="--format csv, jsonl or parquet")
    if name == "parquet" and file.compression is not None:
        raise UsageError(
            f"{file.called} is compressed as a whole, which a Parquet file cannot be",
            hint="gunzip FILE",
        )
    return readers[name](file, options)


def _format(file: File) -> str:
    with file.path.open("rb") as raw:
        if raw.read(4) == b"PAR1":
            return "parquet"
    if file.plain_name.endswith((".jsonl", ".ndjson", ".json", ".geojsonl")):
        return "jsonl"
    if file.plain_name.endswith((".parquet", ".pq")):
        return "parquet"
    return "csv"


def inspect(
    source: str | PathLike[str],
    *,
    table: str | None = None,
    options: Options | None = None,
    progress: Progress | None = None,
) -> Inspection:
    """Return what is in a file.  ``table``: what its table would be called."""
    wanted = options or Options()
    with opened(source, progress) as file:
        found = reader(file, wanted)
        columns, notes = schema.named(found.columns, wanted)
        names = re.fullmatch(r"([a-z_]\w*)\.([a-z_]\w*)", table or "", re.IGNORECASE | re.ASCII)
        called = [part.lower() for part in names.groups()] if names else [table or "data"]
        statement = schema.create_table(called, columns, wanted)
        return Inspection(
            file.called,
            found.format,
            found.encoding,
            found.delimiter,
            file.size,
            found.sampled,
            columns,
            _plain(statement),
            [*found.notes, *notes],
        )


def _plain(statement: sql.Composed) -> str:
    return statement.as_string(None)
