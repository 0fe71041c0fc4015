"""Parquet: columns with types of their own, read in batches of a few megabytes.

A position is a number of rows; so is a line.  Memory: what one row group's pages take.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pgstack.datasets import schema
from pgstack.datasets.batch import BLOCK_BYTES, RAW_CHARACTERS, Batch, Place
from pgstack.datasets.schema import Column, Options
from pgstack.datasets.source import File
from pgstack.datasets.text import arrow, as_json, as_text
from pgstack.errors import PgstackError, UsageError

ROWS_MAX = 50_000
SAMPLE_ROWS = 2_000


class ParquetReader:
    """A Parquet file."""

    format = "parquet"
    encoding = None
    delimiter = None

    def __init__(self, file: File, options: Options) -> None:
        self.file = file
        del options  # a Parquet file says everything itself
        pa = arrow()
        from pyarrow import parquet

        try:
            self._parquet = parquet.ParquetFile(str(file.path), pre_buffer=False, memory_map=False)
            self.schema = self._parquet.schema_arrow
        except (pa.ArrowException, OSError) as exc:
            raise UsageError(
                f"{file.called} is no Parquet file: {exc}", hint="--format csv or jsonl"
            ) from exc
        metadata = self._parquet.metadata
        groups = [metadata.row_group(nr) for nr in range(metadata.num_row_groups)]
        size = sum(group.total_byte_size for group in groups)
        self._groups = [group.num_rows for group in groups]
        self.rows = sum(self._groups)
        self._batch_rows = max(1, min(ROWS_MAX, BLOCK_BYTES * self.rows // max(size, 1)))
        self.notes = schema.arrow_notes(self.schema)
        self.columns = [
            schema.arrow_column(field.name, place, field.type)
            for place, field in enumerate(self.schema)
        ]
        self.sampled = 0
        for sample in self._read(self.start()):
            texts = _texts(sample, self.columns)
            self.columns = [
                schema.described(c, t) for c, t in zip(self.columns, texts, strict=True)
            ]
            self.sampled = sample.num_rows
            break

    def start(self) -> Place:
        """Return the place of the first row."""
        return Place(0, 1)

    def batches(self, columns: list[Column], start: Place) -> Iterator[Batch]:
        """Yield the rows from a place on, with these columns."""
        at = start.position
        for batch in self._read(start):
            texts = _texts(batch, columns)
            after = at + batch.num_rows
            consumed = self.file.size * after // max(1, self.rows)
            yield Batch(texts, [], _origin(batch, at), Place(after, after + 1), consumed)
            at = after

    def _read(self, start: Place) -> Iterator[Any]:
        """Yield record batches that depend on where they begin and nothing else."""
        pa = arrow()
        first = 0  # row of the group
        try:
            for nr, rows in enumerate(self._groups):
                if first + rows > start.position:
                    skip = max(0, start.position - first)
                    batches = self._parquet.iter_batches(
                        batch_size=self._batch_rows, row_groups=[nr], use_threads=False
                    )
                    for batch in batches:
                        if skip < batch.num_rows:
                            yield batch.slice(skip)
                        skip = max(0, skip - batch.num_rows)
                first += rows
        except (pa.ArrowException, OSError) as exc:
            raise PgstackError(
                f"{self.file.called} is damaged: {exc}",
                hint="What lies before that is loaded. Fetch the file again, then: --restart",
            ) from exc


def _texts(batch: Any, columns: list[Column]) -> list[Any]:
    return [as_text(batch.column(column.place), column.type) for column in columns]


def _origin(batch: Any, first: int) -> Any:
    def origin(row: int) -> tuple[int, str]:
        values = batch.slice(row, 1).to_pylist()[0]
        return first + row + 1, as_json(values).replace("\\u0000", "\\x00")[:RAW_CHARACTERS]

    return origin
