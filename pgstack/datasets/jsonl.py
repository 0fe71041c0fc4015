"""JSON lines: one object a line, or a JSON array of objects with any line breaks.

Python's own parser reads them, which keeps every digit of a number.  A key that the sample of
the file did not show has no column: its values are not loaded, and that is told.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator
from decimal import Decimal
from typing import Any

from pgstack.datasets import schema
from pgstack.datasets.batch import Batch, Block, Place, Reject, blocks, line_ends, readable
from pgstack.datasets.schema import Column, Options
from pgstack.datasets.source import SAMPLE_BYTES, File, Stream, detect_encoding
from pgstack.datasets.text import array_literal, arrow, as_json
from pgstack.errors import UsageError

SPACE = b" \t\r\n"
_DECODER = json.JSONDecoder(parse_float=Decimal)
_LINE = re.compile(rb"[^\n]*+\n?")
NAMED = 5  # unknown keys that one note names


class JsonlReader:
    """A file of JSON lines."""

    format = "jsonl"
    delimiter = None

    def __init__(self, file: File, options: Options) -> None:
        self.file = file
        self.encoding, self._begin, self.notes = detect_encoding(
            file, options.encoding, guess=False
        )
        with Stream(file, self.encoding, self._begin) as stream:
            head = stream.read(SAMPLE_BYTES)
        if not head.strip():
            raise UsageError(f"{file.called} is empty", hint="pgstack dataset inspect FILE")
        is_all = len(head) < SAMPLE_BYTES
        self._is_array = head.lstrip()[:1] == b"["
        end = self._cut(head, is_all) or len(head)
        block = Block(head[:end], self.start(), Place(0, 0), 0)
        rows = [value for _, _, value, problem in self._objects(block) if not problem]
        if not rows:
            raise UsageError(
                f"{file.called} has no JSON object in its first {end} bytes",
                hint="One object a line, or an array of objects. --format csv ?",
            )
        self.sampled = len(rows)
        self.columns: list[Column] = []
        for name in dict.fromkeys(key for row in rows for key in row):
            values = [row.get(name) for row in rows]
            column = Column(name, name, schema.infer_json(values), len(self.columns))
            self.columns.append(schema.described(column, _texts(values, column.type)))
        if not self.columns:
            raise UsageError(f"{file.called} has empty objects only", hint="--format csv ?")

    def start(self) -> Place:
        """Return the place of the first row."""
        return Place(self._begin, 1)

    def _cut(self, data: bytes, is_last: bool) -> int:
        if self._is_array:
            return sum(len(raw) for raw in _array_records(data, is_last))
        return len(data) if is_last else data.rfind(b"\n") + 1

    def batches(self, columns: list[Column], start: Place) -> Iterator[Batch]:
        """Yield the rows from a place on, with these columns."""
        wanted = {column.source for column in self.columns}
        with Stream(self.file, self.encoding, start.position) as stream:
            for block in blocks(stream, start, self._cut):
                yield self._batch(block, columns, wanted)

    def _batch(self, block: Block, columns: list[Column], known: set[str]) -> Batch:
        rejects: list[Reject] = []
        rows: list[dict[str, Any]] = []
        origins: list[tuple[int, bytes]] = []
        unknown: dict[str, tuple[int, int]] = {}  # how often, and the first line
        numbers: list[int] = []
        for nr, (line, raw, value, problem) in enumerate(self._objects(block)):
            if problem:
                rejects.append(Reject(line, None, problem, readable(raw)))
                continue
            rows.append(value)
            numbers.append(nr)
            origins.append((line, raw))
            for key in value.keys() - known:
                count, first = unknown.get(key, (0, line))
                unknown[key] = (count + 1, first)
        texts = [_texts([row.get(c.source) for row in rows], c.type) for c in columns]
        notes = tuple(
            f'key "{key}" has no column: first in line {first}'
            for key, (_, first) in sorted(unknown.items())[:NAMED]
        )

        def origin(row: int) -> tuple[int, str]:
            line, raw = origins[row]
            return line, readable(raw)

        return Batch(texts, rejects, origin, block.end, block.consumed, notes, numbers)

    def _objects(self, block: Block) -> Iterator[tuple[int, bytes, dict[str, Any], str]]:
        """Yield line, text and value of each record, and what is wrong with it, or ""."""
        line = block.place.line
        records = _array_records(block.data, True) if self._is_array else _lines(block.data)
        for raw in records:
            stripped = raw.strip(SPACE + b"[,]" if self._is_array else SPACE)
            if stripped:
                lead = raw[: raw.index(stripped)]
                yield line + line_ends(lead), stripped, *_parsed(stripped)
            line += raw.count(b"\n")


def _lines(data: bytes) -> Iterator[bytes]:
    return (found[0] for found in _LINE.finditer(data) if found[0])


# Up to the brace that opens an object, strings apart; what is in it, _array_records() counts.
_TOKEN = re.compile(rb'"(?:[^"\\]|\\.)*+"|["{}]', re.DOTALL)


def _array_records(data: bytes, is_last: bool) -> Iterator[bytes]:
    """Yield the pieces of an array, each up to the end of an object; what is left, at the end."""
    begin = depth = 0
    for found in _TOKEN.finditer(data):
        if found[0] == b"{":
            depth += 1
        elif found[0] == b"}":
            depth -= 1
            if depth <= 0:
                depth = 0
                yield data[begin : found.end()]
                begin = found.end()
        elif found[0] == b'"':  # a string that does not end here
            break
    if is_last and begin < len(data):
        yield data[begin:]


def _parsed(raw: bytes) -> tuple[dict[str, Any], str]:
    """Return an object and "", or nothing and what is wrong with it."""
    try:
        text = raw.decode()
    except UnicodeDecodeError as exc:
        return {}, f"bytes that are no text in the file's charset: {exc.reason}"
    try:
        value = _DECODER.decode(text)
    except (ValueError, RecursionError, ArithmeticError) as exc:
        return {}, f"no JSON: {exc}"
    if not isinstance(value, dict):
        return {}, "no JSON object"
    if "\\u" in text:
        try:
            as_json(value).encode()
        except UnicodeEncodeError:
            return {}, "half a surrogate pair, which is no character"
    return value, ""


_WRITERS: dict[type, Callable[[Any], str]] = {
    str: str,
    bool: lambda value: "true" if value else "false",
    int: str,
    Decimal: str,
    float: repr,  # NaN and the infinities
}


def _as_text(value: Any, target: str) -> str | None:
    """Return a JSON value as text that the type ``target`` reads."""
    if value is None:
        return None
    if target in ("json", "jsonb"):
        return as_json(value)
    if isinstance(value, list) and target.endswith("[]"):
        return array_literal([_as_text(item, target[:-2]) for item in value])
    return _WRITERS.get(type(value), as_json)(value)


def _texts(values: Iterable[Any], target: str) -> Any:
    """Return JSON values as an array of text."""
    pa = arrow()
    if target in ("json", "jsonb"):
        texts = [None if value is None else as_json(value) for value in values]
    else:  # most are strings
        texts = [v if type(v) is str else _as_text(v, target) for v in values]
    return pa.array(texts, pa.string())
