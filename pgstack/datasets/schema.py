"""Which columns a data set has: their names in PostgreSQL, and types that hold their values.

Types are read off a sample of the file.  They are wide on purpose, because the sample is only
its beginning: every whole number becomes bigint, every number with a decimal point numeric,
which keeps all digits.  What looks like a number but is none, such as 00123, is text.

Data in and out
    ``Options``  what people want to be otherwise
    ``Column``   one column: how the file and how the table call it, and its type
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, LiteralString

from psycopg import sql

from pgstack.datasets.text import arrow, is_list, postgres_type
from pgstack.errors import UsageError

NAME_BYTES = 63  # PostgreSQL cuts what is longer
COLUMNS_MAX = 1600
BIGINT = 2**63
GENERATED = "id"  # the name of a generated key

# What all values of a column must look like to be of a type; the first that fits is taken.
LOOKS = (
    ("boolean", r"(?i)^(true|false)$"),
    ("bigint", r"^-?(0|[1-9]\d{0,17})$"),
    ("numeric", r"^-?(0|[1-9]\d*)?(\.\d+)?$|^-?\d+\.$"),
    ("double precision", r"(?i)^[-+]?((\d+\.?\d*|\.\d+)(e[-+]?\d{1,3})?|inf|infinity|nan)$"),
    ("date", r"^\d{4}-\d\d-\d\d$"),
    ("timestamptz", r"^\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d(\.\d+)?)? ?(Z|[+-]\d\d(:?\d\d)?)$"),
    ("timestamp", r"^\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d(\.\d+)?)?$"),
    ("time", r"^\d\d:\d\d(:\d\d(\.\d+)?)?$"),
    ("uuid", r"(?i)^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$"),
)
# A number that begins with zeros or a plus is an article's or a telephone's.
NO_NUMBER = r"^[-+]?0\d|^\+"
TEXTUAL = ("date", "timestamptz", "timestamp", "time", "uuid")


@dataclass(frozen=True)
class Options:
    """What people say about a file and its table; None or empty: found out.

    ``format``         csv, jsonl or parquet
    ``delimiter``      between the fields of a CSV file
    ``quote``          around its fields; "" for none
    ``header``         whether its first record names the columns
    ``null``           texts that stand for NULL; by default the empty field without quotes
    ``encoding``       charset of CSV and JSON
    ``types``          types of PostgreSQL, by the column's name in the file or the table
    ``columns``        names in the table, by those in the file; "" leaves a column out
    ``key``            columns of the primary key
    ``generated_key``  a column id with the number of the record as primary key
    """

    format: str | None = None
    delimiter: str | None = None
    quote: str | None = None
    header: bool | None = None
    null: Sequence[str] | None = None
    encoding: str | None = None
    types: Mapping[str, str] = field(default_factory=dict)
    columns: Mapping[str, str] = field(default_factory=dict)
    key: Sequence[str] = ()
    generated_key: bool = False


@dataclass(frozen=True)
class Column:
    """A column.  ``place``: its number in a CSV file, from 0; -1: not from the file.

    Of the sample: ``nulls``, ``examples``, and how many ``words`` a text has on average.
    """

    source: str
    name: str
    type: str
    place: int
    nulls: int = 0
    examples: tuple[str, ...] = ()
    words: float = 0.0


def named(found: Sequence[Column], options: Options) -> tuple[list[Column], list[str]]:
    """Return the columns as the table is to have them, and what was done to names.

    Raises UsageError for an option that names no column, or two columns called the same.
    """
    if len(found) > COLUMNS_MAX:
        raise UsageError(
            f"{len(found)} columns: a table has at most {COLUMNS_MAX}", hint="--format jsonl ?"
        )
    _check_known("--column", options.columns, (c.source for c in found))
    taken: set[str] = set(filter(None, options.columns.values()))
    if options.generated_key:
        taken.add(GENERATED)
    columns, notes = [], []
    for column in found:
        wanted = options.columns.get(column.source)
        if wanted == "":
            continue
        name = wanted if wanted is not None else _free_name(column, taken)
        if wanted is None and name != column.source:
            notes.append(
                f"column {column.place + 1} {_shown(column.source)} becomes {_shown(name)}"
            )
        if "\0" in name or len(name.encode()) > NAME_BYTES:
            raise UsageError(
                f"a column cannot be called {_shown(name)}", hint=f"1 to {NAME_BYTES} bytes"
            )
        taken.add(name)
        columns.append(replaced(column, name=name))
    names = [c.name for c in columns] + ([GENERATED] if options.generated_key else [])
    doubled = {name for name in names if names.count(name) > 1}
    if doubled:
        raise UsageError(
            f"two columns would be called {_shown(min(doubled))}", hint="--column OLD=NEW"
        )
    _check_known("--type", options.types, [*names, *(c.source for c in columns)])
    _check_known("--key", options.key, (c.name for c in columns))
    if not columns:
        raise UsageError("no column is left", hint="pgstack dataset inspect FILE")
    types = options.types
    return [
        replaced(c, type=types.get(c.name, types.get(c.source, c.type))) for c in columns
    ], notes


def replaced(column: Column, **changes: Any) -> Column:
    """Return a column with some fields changed."""
    return Column(**{**vars(column), **changes})


def _check_known(option: str, given: Iterable[str], known: Iterable[str]) -> None:
    names = list(known)
    unknown = [name for name in given if name not in names]
    if unknown:
        some = ", ".join(map(_shown, names[:20]))
        raise UsageError(
            f"{option}: there is no column {_shown(unknown[0])}", hint=f"Known: {some}"
        )


def _shown(name: str) -> str:
    short = name if len(name) <= 80 else name[:77] + "..."
    return '"' + short.replace("\n", "\\n") + '"'


def _free_name(column: Column, taken: set[str]) -> str:
    """Return the column's name, or one made from it that PostgreSQL takes and nobody has."""
    plain = column.source.replace("\0", "").encode("utf-8", "replace").decode()
    plain = plain.strip() or f"column_{column.place + 1}"
    name = _cut(plain, NAME_BYTES)
    nr = 2
    while name in taken:
        ending = f"_{nr}"
        name = _cut(plain, NAME_BYTES - len(ending)) + ending
        nr += 1
    return name


def _cut(text: str, size: int) -> str:
    return text.encode()[:size].decode(errors="ignore")


# -- types ------------------------------------------------------------------------------


def infer(text: Any) -> str:
    """Return the type of a column of text, as a CSV file has it; NULL fits every type."""
    compute = arrow().compute
    held = compute.drop_null(text)
    if not len(held):
        return "text"
    held = held.cast(arrow().string())
    for name, pattern in LOOKS:
        if _all(held, pattern):
            is_number = name in ("bigint", "numeric", "double precision")
            if is_number and compute.any(compute.match_substring_regex(held, NO_NUMBER)).as_py():
                return "text"
            if name == "numeric" and not _all(held, r"\d"):
                return "text"
            return name
    return "text"


def _all(text: Any, pattern: str) -> bool:
    compute = arrow().compute
    return bool(compute.all(compute.match_substring_regex(text, pattern)).as_py())


def infer_json(values: Sequence[Any]) -> str:
    """Return the type of the values of a key in JSON objects; None fits every type."""
    held = [value for value in values if value is not None]
    kinds = {type(value) for value in held}
    if not kinds:
        return "text"
    if kinds <= {int, Decimal}:
        return "bigint" if kinds == {int} and _are_small(held) else "numeric"
    if kinds == {list}:
        inner = [item for value in held for item in value]
        of_them = {type(item) for item in inner}
        if of_them == {str}:
            return "text[]"
        if of_them and of_them <= {int, Decimal}:
            return "bigint[]" if of_them == {int} and _are_small(inner) else "numeric[]"
    if kinds == {str}:
        return _infer_strings(held)
    return "boolean" if kinds == {bool} else "jsonb"


def _infer_strings(values: Sequence[str]) -> str:
    """Return the type of JSON strings: a number in quotes was meant to be text."""
    pa = arrow()
    try:
        found = infer(pa.array(values, pa.string()))
    except UnicodeEncodeError:
        return "text"
    return found if found in TEXTUAL else "text"


def _are_small(values: Sequence[int]) -> bool:
    return all(-BIGINT <= value < BIGINT for value in values)


def arrow_column(name: str, place: int, kind: Any) -> Column:
    """Return a column of a Parquet file."""
    return Column(name, name, postgres_type(kind), place)


def arrow_notes(schema: Any) -> list[str]:
    """Return what a Parquet file loses on the way."""
    types = arrow().types
    fine = [f.name for f in schema if types.is_temporal(f.type) and "[ns" in str(f.type)]
    many = [f.name for f in schema if is_list(f.type) and postgres_type(f.type) == "jsonb"]
    return [f"{_shown(name)}: nanoseconds are rounded to microseconds" for name in fine] + [
        f"{_shown(name)}: lists of lists or records become jsonb" for name in many
    ]


def described(column: Column, text: Any) -> Column:
    """Return a column with what its sample, an array of text, shows."""
    pa = arrow()
    held = pa.compute.drop_null(text).slice(0, 1000).cast(pa.binary()).to_pylist()
    values = [value.decode("utf-8", "replace") for value in held]
    examples = tuple(dict.fromkeys(value for value in values[:200] if value))[:3]
    words = sum(len(value.split()) for value in values) if column.type == "text" else 0
    return replaced(
        column, nulls=text.null_count, examples=examples, words=words / max(1, len(values))
    )


# -- SQL --------------------------------------------------------------------------------

_TYPE = re.compile(r"[^;'\x00]{1,200}")


def create_table(table: Sequence[str], columns: Sequence[Column], options: Options) -> sql.Composed:
    """Return the statement that makes the table.  Types must have been checked."""
    lines = []
    if options.generated_key:
        lines.append(
            sql.SQL("{} bigint generated by default as identity primary key").format(
                sql.Identifier(GENERATED)
            )
        )
    lines += [
        sql.SQL("{} {}").format(sql.Identifier(c.name), sql.SQL(checked_type(c.type)))
        for c in columns
    ]
    if options.key:
        keys = sql.SQL(", ").join(map(sql.Identifier, options.key))
        lines.append(sql.SQL("primary key ({})").format(keys))
    return sql.SQL("create table {} (\n  {}\n)").format(
        sql.Identifier(*table), sql.SQL(",\n  ").join(lines)
    )


def checked_type(name: str) -> LiteralString:
    """Return a type's name that may stand in a statement; to_regtype() has parsed it, too."""
    if not _TYPE.fullmatch(name):
        raise UsageError(f"{_shown(name)} is no type", hint="--type price=numeric")
    return name
