"""Columns of any type as the text that PostgreSQL reads, and that text as lines for COPY.

``values``  an Arrow array of any type, or ``text``, one of strings or bytes; NULL is null
``lines``   one string a row, as COPY's text format wants it, newline included

Everything is text on the way: PostgreSQL's own input functions decide what a value is, so a
decimal keeps all its digits and what does not fit is rejected as INSERT would reject it.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from decimal import Decimal
from typing import Any

from pgstack.errors import MissingExtra

_ENCODER = json.JSONEncoder(ensure_ascii=False, allow_nan=False, check_circular=False)
ESCAPED = (("\\", "\\\\"), ("\n", "\\n"), ("\r", "\\r"), ("\t", "\\t"))


def arrow() -> Any:
    """Return pyarrow; raise MissingExtra without it."""
    try:
        import pyarrow as pa
        import pyarrow.compute
    except ImportError as exc:
        raise MissingExtra(
            f"data sets are read with pyarrow, which is not here: {exc}",
            hint="pip install 'pgstack[datasets]'",
        ) from exc
    return pa


def copy_lines(columns: list[Any]) -> Any:
    """Return the rows of columns of text, one string a row."""
    pa = arrow()
    binary = [escaped(column.cast(pa.binary())) for column in columns]
    newline = pa.scalar(b"\n", pa.binary())
    lines = pa.compute.binary_join_element_wise(
        *binary, pa.scalar(b"\t", pa.binary()), null_handling="replace", null_replacement=b"\\N"
    )
    return pa.compute.binary_join_element_wise(lines, newline, pa.scalar(b"", pa.binary()))


def escaped(text: Any) -> Any:
    """Return text with what COPY would take for something else escaped."""
    pa = arrow()
    held = bytes(content(text))
    for plain, written in ESCAPED:
        if plain.encode() in held:
            text = pa.compute.replace_substring(text, plain.encode(), written.encode())
    return text


def content(text: Any) -> memoryview:
    """Return the bytes of an array of strings, one behind the other."""
    pa = arrow()
    _, offsets, data = text.buffers()
    if data is None or not len(text):
        return memoryview(b"")
    ends = pa.Array.from_buffers(pa.int32(), len(text) + 1, [None, offsets], offset=text.offset)
    return memoryview(data)[ends[0].as_py() : ends[-1].as_py()]


# -- types of Arrow ---------------------------------------------------------------------


def postgres_type(kind: Any) -> str:
    """Return the type of PostgreSQL that holds every value of a type of Arrow's."""
    pa = arrow()
    types = pa.types
    while types.is_dictionary(kind) or types.is_run_end_encoded(kind):
        kind = kind.value_type
    if isinstance(kind, pa.BaseExtensionType):
        known = {"arrow.uuid": "uuid", "arrow.json": "jsonb"}.get(kind.extension_name)
        return known or postgres_type(kind.storage_type)
    numbers = {
        "smallint": (pa.int8(), pa.uint8(), pa.int16()),
        "integer": (pa.uint16(), pa.int32()),
        "bigint": (pa.uint32(), pa.int64()),
        "numeric(20,0)": (pa.uint64(),),
        "real": (pa.float16(), pa.float32()),
        "double precision": (pa.float64(),),
    }
    found = [name for name, of_them in numbers.items() if kind in of_them]
    found += [name(kind) for test, name in _named_types() if test(kind)]
    return found[0] if found else "text"


def _named_types() -> list[tuple[Any, Callable[[Any], str]]]:
    """Return tests of types, and what PostgreSQL calls them."""
    types = arrow().types
    return [
        (types.is_decimal, _decimal_type),
        (is_list, _list_type),
        (types.is_timestamp, lambda kind: "timestamp" if kind.tz is None else "timestamptz"),
        (types.is_boolean, lambda _: "boolean"),
        (_is_bytes, lambda _: "bytea"),
        (types.is_date, lambda _: "date"),
        (types.is_time, lambda _: "time"),
        (types.is_duration, lambda _: "interval"),
        (types.is_interval, lambda _: "interval"),
        (_is_record, lambda _: "jsonb"),
    ]


def _decimal_type(kind: Any) -> str:
    return f"numeric({kind.precision},{kind.scale})" if kind.scale >= 0 else "numeric"


def _list_type(kind: Any) -> str:
    inner = postgres_type(kind.value_type)
    return "jsonb" if inner == "jsonb" or inner.endswith("[]") else f"{inner}[]"


def is_list(kind: Any) -> bool:
    """Tell whether values are lists."""
    types = arrow().types
    return bool(
        types.is_list(kind)
        or types.is_large_list(kind)
        or types.is_fixed_size_list(kind)
        or _is_view(kind)
    )


def _is_view(kind: Any) -> bool:
    types = arrow().types
    return bool(types.is_list_view(kind) or types.is_large_list_view(kind))


def _is_bytes(kind: Any) -> bool:
    types = arrow().types
    return bool(
        types.is_binary(kind)
        or types.is_large_binary(kind)
        or types.is_fixed_size_binary(kind)
        or types.is_binary_view(kind)
    )


def _is_string(kind: Any) -> bool:
    types = arrow().types
    return bool(types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind))


def _is_record(kind: Any) -> bool:
    types = arrow().types
    return bool(types.is_struct(kind) or types.is_map(kind) or types.is_union(kind))


def as_text(values: Any, target: str) -> Any:
    """Return values as text that the type ``target`` reads: an array of strings."""
    pa = arrow()
    values = _decoded(values)
    if target in ("json", "jsonb") and not _is_string(values.type):
        return _each(values, as_json)
    for test, write in _writers():
        if test(values.type):
            return write(values, target)
    return values.cast(pa.string())


def _decoded(values: Any) -> Any:
    """Return what dictionaries, runs and extensions stand for; uuids as they are."""
    pa = arrow()
    if pa.types.is_dictionary(values.type):
        return _decoded(values.dictionary_decode())
    if pa.types.is_run_end_encoded(values.type):
        return _decoded(pa.compute.run_end_decode(values))
    if isinstance(values.type, pa.BaseExtensionType) and not _is_uuid(values.type):
        return _decoded(values.storage)
    return values


def _is_uuid(kind: Any) -> bool:
    return getattr(kind, "extension_name", None) == "arrow.uuid"


def _writers() -> list[tuple[Any, Callable[[Any, str], Any]]]:
    """Return tests of types, and what writes their values; Arrow writes all others."""
    pa = arrow()
    types = pa.types
    return [
        (_is_uuid, lambda values, _: _each(values, str)),
        (_is_bytes, lambda values, _: _each(values, lambda v: "\\x" + v.hex())),
        (is_list, _lists),
        (_is_record, lambda values, _: _each(values, as_json)),
        (types.is_null, lambda values, _: pa.nulls(len(values), pa.string())),
        (types.is_float16, lambda values, _: values.cast(pa.float32()).cast(pa.string())),
        (types.is_duration, _durations),
        (types.is_interval, lambda values, _: _each(values, _interval)),
        (
            lambda kind: types.is_timestamp(kind) and kind.tz is not None,
            lambda values, _: values.cast(pa.timestamp(values.type.unit, "UTC")).cast(pa.string()),
        ),
    ]


def _each(values: Any, write: Callable[[Any], str]) -> Any:
    pa = arrow()
    plain = values.to_pylist(maps_as_pydicts="lossy")
    return pa.array([None if v is None else write(v) for v in plain], pa.string())


def _durations(values: Any, target: str) -> Any:
    del target
    pa = arrow()
    whole = values.cast(pa.duration("us"), safe=False).cast(pa.int64()).cast(pa.string())
    return pa.compute.binary_join_element_wise(whole, "microseconds", " ")


def _interval(value: Any) -> str:
    return f"{value.months} months {value.days} days {value.nanoseconds // 1000} us"


def _lists(values: Any, target: str) -> Any:
    """Return lists as PostgreSQL's arrays, or as pgvector's vectors."""
    pa = arrow()
    is_vector = target.partition("(")[0] in ("vector", "halfvec")
    opening, closing = ("[", "]") if is_vector else ("{", "}")
    kind = pa.list_(values.type.value_type)
    plain = pa.array(values.to_pylist(), kind) if _is_view(values.type) else values.cast(kind)
    inner = plain.flatten()
    if inner.null_count or not _is_plain(inner.type):
        parts = as_text(inner, target.removesuffix("[]")).to_pylist()
        found: list[str | None] = []
        start = 0
        for value, length in zip(
            plain.is_valid().to_pylist(),
            pa.compute.fill_null(pa.compute.list_value_length(plain), 0).to_pylist(),
            strict=True,
        ):
            found.append(array_literal(parts[start : start + length]) if value else None)
            start += length
        return pa.array(found, pa.string())
    offsets = [0]
    for length in pa.compute.fill_null(pa.compute.list_value_length(plain), 0).to_pylist():
        offsets.append(offsets[-1] + length)
    texts = pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), as_text(inner, target))
    joined = pa.compute.binary_join(texts, ",")
    joined = pa.compute.binary_join_element_wise(opening, joined, closing, "")
    return pa.compute.if_else(plain.is_valid(), joined, pa.scalar(None, pa.string()))


def _is_plain(kind: Any) -> bool:
    """Tell whether a type's text needs no quotes inside an array."""
    types = arrow().types
    return bool(types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind))


def array_literal(parts: list[str | None]) -> str:
    """Return texts as an array of PostgreSQL's."""
    written = []
    for part in parts:
        if part is None:
            written.append("NULL")
        else:
            escaped_part = part.replace("\\", "\\\\").replace('"', '\\"')
            written.append(f'"{escaped_part}"')
    return "{" + ",".join(written) + "}"


def as_json(value: Any) -> str:
    """Return a value as JSON, decimals with all their digits; what JSON does not know as text."""
    try:
        return _ENCODER.encode(value)
    except (TypeError, ValueError):
        return _written(value)


def _written(value: Any) -> str:
    if isinstance(value, dict):
        inner = (
            f"{json.dumps(str(k), ensure_ascii=False)}: {as_json(v)}" for k, v in value.items()
        )
        return "{" + ", ".join(inner) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(as_json, value)) + "]"
    if isinstance(value, float | Decimal):  # a decimal, or what is no number in JSON
        return str(value) if isinstance(value, Decimal) and value.is_finite() else "null"
    if isinstance(value, bytes):
        return as_json("\\x" + value.hex())
    return as_json(value.isoformat() if hasattr(value, "isoformat") else str(value))
