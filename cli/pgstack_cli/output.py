"""What the commands print: results to stdout, messages to stderr.

On a terminal tables and progress bars are Rich's; in a pipe they are plain text without
colours.  ``NO_COLOR`` and ``TERM=dumb`` are honoured by Rich.  What comes out of a
database is never taken for markup, nor for control sequences of the terminal.
"""

from __future__ import annotations

import json
import os
import re
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, is_dataclass
from datetime import datetime, timedelta
from typing import Any

import typer

# C0 but tab and newline, DEL, C1, and the marks that reverse the order of letters.
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
_PLAIN_EVERY = 5.0  # seconds between lines of progress that go to a file
_BAR_EVERY = 0.05  # seconds between two states of a bar

Progress = Callable[[int, int | None], None]  # done so far, of how many (None: unknown)


def clean(text: str) -> str:
    """Return text with its control characters made visible."""
    return _CONTROL.sub(lambda m: f"\\x{ord(m[0]):02x}", text)


def result(text: str) -> None:
    """Print data, on stdout."""
    typer.echo(clean(text))


def heading(text: str) -> None:
    """Print a heading, bold on a terminal that wants it."""
    styled = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    typer.echo(typer.style(clean(text), bold=True) if styled else clean(text))


def message(text: str) -> None:
    """Print a message, on stderr."""
    typer.echo(clean(text), err=True)


def plain_json(value: Any) -> Any:
    """Return what ``json`` cannot take: dataclasses, instants as ISO text, durations as seconds."""
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, datetime):
        return value.isoformat()
    return str(value)


def json_document(value: Any) -> None:
    """Print one JSON document."""
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False, default=plain_json))


def json_line(value: Any) -> None:
    """Print one JSON value on a line of its own."""
    typer.echo(json.dumps(value, ensure_ascii=False, default=plain_json))


def cell(value: object) -> str:
    """Return a value as a person reads it in a table."""
    match value:
        case None:
            return "-"
        case bool():
            return "yes" if value else "no"
        case timedelta():
            return duration(value.total_seconds())
        case datetime():
            return value.astimezone().strftime("%Y-%m-%d %H:%M:%S")
        case int() | float():
            return f"{value:,}"
    return clean(" ".join(str(value).split()))


def duration(seconds: float) -> str:
    """Return seconds as 0.4 s, 12 s, 3 min 5 s, 2 h 10 min, 3 d 4 h."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    left = round(seconds)
    parts: list[str] = []
    for unit, name in ((86400, "d"), (3600, "h"), (60, "min"), (1, "s")):
        count, left = divmod(left, unit)
        if parts and not count:
            break
        if count:
            parts.append(f"{count} {name}")
    return " ".join(parts[:2])


def size(count: float) -> str:
    """Return bytes as 12 kB, 3.4 MB, 1.2 GB."""
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if count >= 10 or unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"


def table(columns: Sequence[str], rows: Sequence[Sequence[object]], *, indent: int = 0) -> None:
    """Print rows under headings: a table on a terminal, aligned text in a pipe."""
    cells = [[cell(value) for value in row] for row in rows]
    right = [
        any(isinstance(row[i], int | float) and not isinstance(row[i], bool) for row in rows)
        for i in range(len(columns))
    ]
    if sys.stdout.isatty():
        _rich_table(columns, cells, right, indent)
        return
    widths = [max(map(len, [head, *(row[i] for row in cells)])) for i, head in enumerate(columns)]
    for row in [list(columns), *cells]:
        padded = [
            text.rjust(width) if to_right else text.ljust(width)
            for text, width, to_right in zip(row, widths, right, strict=True)
        ]
        typer.echo(" " * indent + "  ".join(padded).rstrip())


def _rich_table(
    columns: Sequence[str], cells: list[list[str]], right: list[bool], indent: int
) -> None:
    from rich import box
    from rich.console import Console
    from rich.padding import Padding
    from rich.table import Table
    from rich.text import Text

    made = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name, to_right in zip(columns, right, strict=True):
        made.add_column(name, justify="right" if to_right else "left", overflow="fold")
    for row in cells:
        made.add_row(*(Text(text) for text in row))
    Console(highlight=False).print(Padding(made, (0, 0, 0, indent)))


def pairs(values: Sequence[tuple[str, object]]) -> None:
    """Print names and values, one pair a line."""
    width = max(len(name) for name, _ in values)
    for name, value in values:
        typer.echo(f"{name.ljust(width)}  {cell(value)}")


@contextmanager
def progress(title: str, *, unit: str = "", in_bytes: bool = False) -> Iterator[Progress]:
    """Show how far something is, on stderr: a bar on a terminal, a line now and then elsewhere."""
    if sys.stderr.isatty():
        with _bar(title, unit, in_bytes) as advance:
            yield advance
    else:
        yield _lines(title, unit, size if in_bytes else (lambda count: f"{count:,.0f}"))


@contextmanager
def _bar(title: str, unit: str, in_bytes: bool) -> Iterator[Progress]:
    from rich import progress as bars
    from rich.console import Console

    count = bars.DownloadColumn() if in_bytes else bars.MofNCompleteColumn()
    columns = (
        bars.TextColumn("{task.description}", markup=False),
        bars.BarColumn(bar_width=30),
        count,
        bars.TextColumn(unit, markup=False),
        bars.TextColumn("{task.fields[rate]}", markup=False),
        bars.TimeElapsedColumn(),
        bars.TextColumn("eta"),
        bars.TimeRemainingColumn(),
    )
    with bars.Progress(*columns, console=Console(stderr=True), transient=True) as shown:
        task = shown.add_task(clean(title), total=None, rate="")
        last = 0.0

        def advance(done: int, total: int | None) -> None:
            nonlocal last
            now = time.monotonic()
            if now - last < _BAR_EVERY and done != total:
                return
            last = now
            rate = _rate(shown.tasks[task].speed, in_bytes)
            shown.update(task, completed=done, total=total, rate=rate)

        yield advance


def _rate(speed: float | None, in_bytes: bool) -> str:
    """Return so many things a second, or nothing while that is not known."""
    if not speed:
        return ""
    if in_bytes:
        return f"{size(speed)}/s"
    return f"{speed:,.0f}/s" if speed >= 10 else f"{speed:.1f}/s"


def _lines(title: str, unit: str, written: Callable[[float], str]) -> Progress:
    began = last = time.monotonic()

    def advance(done: int, total: int | None) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last < _PLAIN_EVERY:
            return
        last = now
        of = f" of {written(total)}" if total else ""
        left = ""
        if total and 0 < done < total:
            left = f", {duration((total - done) * (now - began) / done)} left"
        message(f"{title}: {written(done)}{of} {unit}".rstrip() + left)

    return advance
