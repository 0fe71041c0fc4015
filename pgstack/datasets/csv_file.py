"""CSV and its kin: fields between delimiters, records that end with a line.

pyarrow reads the fields.  Where a record ends, regular expressions tell, which know quoted
line breaks; so a file is cut into blocks at the ends of records, and a record that is
broken (too few fields, no UTF-8, a quote that is never closed) is taken out of its block with
the number of its line, before pyarrow sees it.

A quote counts only at the beginning of a field: 5" disk is a field as it is.  A field that is
empty without quotes is NULL, one with quotes is the empty text, as for PostgreSQL's COPY.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from pgstack.datasets import schema
from pgstack.datasets.batch import (
    Batch,
    Block,
    Place,
    Reject,
    blocks,
    line_ends,
    readable,
)
from pgstack.datasets.schema import Column, Options
from pgstack.datasets.source import SAMPLE_BYTES, File, Stream, detect_encoding
from pgstack.datasets.text import arrow
from pgstack.errors import UsageError

DELIMITERS = (",", "\t", ";", "|")
# Bytes of texts: all but control characters.
PRINTED = bytes([*range(7, 14), 27, *range(32, 127), *range(128, 256)])
LOOKED_AT = 100  # records, to find the delimiter


@dataclass(frozen=True)
class Dialect:
    """What separates fields (one byte), and what is around them (one byte, or nothing)."""

    delimiter: bytes
    quote: bytes

    @cached_property
    def field(self) -> re.Pattern[bytes]:
        """Return what matches a field with what ends it."""
        return re.compile(self._field + rb"(?:" + re.escape(self.delimiter) + rb"|\r\n|\n|\r)")

    @cached_property
    def record(self) -> re.Pattern[bytes]:
        """Return what matches a record with the end of its line."""
        return re.compile(self._record)

    @cached_property
    def records(self) -> re.Pattern[bytes]:
        """Return what matches as many records as there are."""
        return re.compile(rb"(?:" + self._record + rb")*+")

    @property
    def _field(self) -> bytes:
        d, q = re.escape(self.delimiter), re.escape(self.quote)
        if not q:
            return rb"[^%b\r\n]*+" % d
        quoted = rb"%b[^%b]*+(?:%b%b[^%b]*+)*+%b[^%b\r\n]*+" % (q, q, q, q, q, q, d)
        return rb"(?:%b|[^%b%b\r\n][^%b\r\n]*+|)" % (quoted, q, d, d)

    @property
    def _record(self) -> bytes:
        d = re.escape(self.delimiter)
        return rb"(?:%b%b)*+%b(?:\r\n|\n|\r)" % (self._field, d, self._field)

    def end_of_records(self, data: bytes, is_last: bool) -> int:
        """Return how many bytes of ``data`` are whole records."""
        if is_last:
            closed = data if data.endswith((b"\n", b"\r")) else data + b"\n"
            return min(len(data), self._whole(closed))
        # A CR at the very end may have its LF in the next block.
        return self._whole(data[:-1] if data.endswith(b"\r") else data)

    def _whole(self, data: bytes) -> int:
        if self.quote and self.quote in data:
            found = self.records.match(data)
            return found.end() if found else 0
        return max(data.rfind(b"\n"), data.rfind(b"\r")) + 1


class CsvReader:
    """A CSV file."""

    format = "csv"

    def __init__(self, file: File, options: Options) -> None:
        self.file = file
        self.options = options
        self.encoding, self._begin, self.notes = detect_encoding(file, options.encoding)
        with Stream(file, self.encoding, self._begin) as stream:
            head = stream.read(SAMPLE_BYTES)
            is_all = len(head) < SAMPLE_BYTES
        if not head.strip():
            raise UsageError(f"{file.called} is empty", hint="pgstack dataset inspect FILE")
        if len(head[:1000].translate(None, delete=PRINTED)) > 0.02 * len(head[:1000]):
            raise UsageError(
                f"{file.called} is no text: its first bytes are no letters",
                hint="--encoding utf-16, or --format parquet",
            )
        self.dialect = self._find_dialect(head)
        self.delimiter = self.dialect.delimiter.decode()
        end = self.dialect.end_of_records(head, is_all) or len(head)
        self._read_head(head[:end])

    def start(self) -> Place:
        """Return the place of the first row."""
        return self._start

    def _find_dialect(self, head: bytes) -> Dialect:
        quote = '"' if self.options.quote is None else self.options.quote
        given = self.options.delimiter
        if given is None and self.file.plain_name.endswith((".tsv", ".tab")):
            given = "\t"
        for name, value in (("delimiter", given or ","), ("quote", quote or '"')):
            if len(value.encode()) != 1 or value in "\r\n":
                raise UsageError(
                    f"--{name} must be one ASCII character, not {value!r}", hint="--delimiter ';'"
                )
        if given is not None:
            return Dialect(given.encode(), quote.encode())
        candidates = [Dialect(d.encode(), quote.encode()) for d in DELIMITERS]
        return max(candidates, key=lambda dialect: _regularity(dialect, head))

    def _read_head(self, head: bytes) -> None:
        """Find the names of columns, and types by the rows behind them."""
        block = Block(head, Place(self._begin, 1), Place(0, 0), 0)
        records = [r for r in _records(block, self.dialect) if not r.problem]
        if not records:
            raise UsageError(
                f"{self.file.called} has no record that can be read", hint="--encoding, --quote"
            )
        first = records[0]
        has_header = self.options.header is not False
        texts = self._parse(first.raw, first.fields, first.fields)
        cells = [_text(column[0]) for column in texts]
        names = [cell or "" for cell in cells] if has_header else [""] * first.fields
        self._width = first.fields
        self._start = Place(self._begin + first.end, first.line + line_ends(first.raw))
        if not has_header:
            self._start = Place(self._begin, 1)
        found = [Column(name, name, "text", place) for place, name in enumerate(names)]
        behind = head[self._start.position - self._begin :]
        is_whole = self.dialect.end_of_records(behind, True) == len(behind)
        rest = Block(behind, self._start, Place(0, 0), 0, is_whole)
        sample = self._batch(rest, found)
        self.sampled = sample.rows
        self.columns = []
        for column, values in zip(found, sample.columns, strict=True):
            named = column.source or f"column_{column.place + 1}"
            if has_header and not column.source:
                self.notes.append(f'column {column.place + 1} has no name: "{named}"')
            typed = schema.replaced(column, source=named, type=schema.infer(values))
            self.columns.append(schema.described(typed, values))

    def batches(self, columns: list[Column], start: Place) -> Iterator[Batch]:
        """Yield the rows from a place on, with these columns."""
        with Stream(self.file, self.encoding, start.position) as stream:
            for block in blocks(stream, start, self.dialect.end_of_records):
                yield self._batch(block, columns)

    def _batch(self, block: Block, columns: list[Column]) -> Batch:
        pa = arrow()
        data = block.data
        good: list[_Record] | None = None
        rejects: list[Reject] = []
        numbers: list[int] | None = None
        try:
            data.decode()
            if b"\0" in data or not block.is_whole:
                raise ValueError
            texts = self._parse(data, self._width, self._width)
        except (ValueError, pa.ArrowException):
            records = list(_records(block, self.dialect, self._width))
            numbers = [nr for nr, record in enumerate(records) if not record.problem]
            good = [records[nr] for nr in numbers]
            rejects = [
                Reject(r.line, None, r.problem, readable(r.raw)) for r in records if r.problem
            ]
            texts = self._parse(b"".join(r.closed for r in good), self._width, self._width)

        def origin(row: int) -> tuple[int, str]:
            nonlocal good
            if good is None:
                good = list(_records(block, self.dialect, self._width))
            return good[row].line, readable(good[row].raw)

        return Batch(
            [texts[column.place] for column in columns],
            rejects,
            origin,
            block.end,
            block.consumed,
            numbers=numbers,
        )

    def _parse(self, data: bytes, width: int, at_least: int) -> list[Any]:
        """Return the fields of whole records, a column of text for each."""
        pa = arrow()
        from pyarrow import csv

        names = [str(nr) for nr in range(width)]
        if not data:
            return [pa.array([], pa.binary()) for _ in names]
        table = csv.read_csv(
            pa.BufferReader(data),
            read_options=csv.ReadOptions(
                column_names=names, block_size=len(data) + 1, use_threads=False
            ),
            parse_options=csv.ParseOptions(
                delimiter=self.dialect.delimiter.decode(),
                quote_char=self.dialect.quote.decode() or False,
                newlines_in_values=True,
            ),
            convert_options=csv.ConvertOptions(
                column_types=dict.fromkeys(names, pa.binary()),
                null_values=[""] if self.options.null is None else list(self.options.null),
                strings_can_be_null=True,
                quoted_strings_can_be_null=self.options.null is not None,
            ),
        )
        return [_one(column) for column in table.columns]


def _one(column: Any) -> Any:
    pa = arrow()
    chunks = column.chunks
    return chunks[0] if len(chunks) == 1 else pa.concat_arrays(chunks)


def _text(value: Any) -> str | None:
    raw = value.as_py()
    return None if raw is None else raw.decode("utf-8", "replace")


def _regularity(dialect: Dialect, head: bytes) -> tuple[float, int]:
    """Return which share of the first records has as many fields as most, and how many."""
    counts: Counter[int] = Counter()
    for nr, found in enumerate(dialect.record.finditer(head)):
        if nr >= LOOKED_AT:
            break
        if found[0].strip():
            counts[len(dialect.field.findall(found[0]))] += 1
    fields, often = counts.most_common(1)[0] if counts else (1, 0)
    if fields < 2:
        return 0.0, 0
    return often / counts.total(), fields


@dataclass(frozen=True)
class _Record:
    """One record.  ``end``: where it ends in its block; ``problem``: "" when there is none."""

    raw: bytes
    end: int
    line: int
    fields: int
    problem: str

    @property
    def closed(self) -> bytes:
        """Return it with the end of its line."""
        return self.raw if self.raw.endswith((b"\n", b"\r")) else self.raw + b"\n"


def _records(block: Block, dialect: Dialect, width: int | None = None) -> Iterator[_Record]:
    """Yield the records of a block, but empty lines, one by one, and what is wrong with them.

    Of a record with the wrong number of fields that spans lines only the first line is given
    up: a quote that is not closed must not take the lines behind it along.
    """
    data = block.data if block.data.endswith((b"\n", b"\r")) else block.data + b"\n"
    at, line = 0, block.place.line
    while at < len(data):
        found = dialect.record.match(data, at)
        raw = found[0] if found else _line(data, at)
        fields = len(dialect.field.findall(raw)) if found else 0
        problem = _problem(raw, fields, width) if found else "a quote is not closed"
        if problem and found and line_ends(raw) > 1 and fields != width:
            raw = _line(data, at)
            problem = f"{problem}; perhaps a quote is not closed"
        at += len(raw)
        ends = line_ends(raw)
        if raw.strip(b"\r\n"):
            kept = raw[: len(raw) - max(0, at - len(block.data))]
            yield _Record(kept, min(at, len(block.data)), line, fields, problem)
        line += ends


def _line(data: bytes, at: int) -> bytes:
    """Return the line that begins at ``at``."""
    found = re.compile(rb"[^\r\n]*+(?:\r\n|\n|\r)?").match(data, at)
    return found[0] if found else data[at:]


def _problem(raw: bytes, fields: int, width: int | None) -> str:
    try:
        raw.decode()
    except UnicodeDecodeError as exc:
        return f"bytes that are no text in the file's charset: {exc.reason}"
    if b"\0" in raw:
        return "a NUL character, which PostgreSQL does not store"
    if width is not None and fields != width:
        return f"{fields} fields instead of {width}"
    return ""
