"""What ``pgstack worker`` shows on a terminal: its vectorizers, and its log above them."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from pgstack.worker.progress import every
from pgstack_cli.output import cell, clean, duration

if TYPE_CHECKING:
    from pgstack.worker.progress import Report, Reporter, VectorizerReport

REFRESH_SECONDS = 1.0
HEADINGS = ("vectorizer", "state", "pending", "retrying", "failed", "rows/s", "tokens/s", "left")


class Above(logging.Handler):
    """Writes log lines above what is live."""

    def __init__(self, console: Console) -> None:
        super().__init__()
        self._console = console

    def emit(self, record: logging.LogRecord) -> None:
        """Print one line."""
        self._console.print(Text(clean(self.format(record))))


@contextmanager
def live(reporter: Reporter, *, once: bool) -> Iterator[None]:
    """Show how things are until the block ends."""
    console = Console(stderr=True, highlight=False)
    handler = Above(console)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    ours = logging.getLogger("pgstack")
    ours.setLevel(logging.INFO)
    ours.addHandler(handler)
    first = picture(reporter.report("progress"), once=once)
    try:
        with Live(first, console=console, auto_refresh=False, transient=True) as shown:

            def draw() -> None:
                shown.update(picture(reporter.report("progress"), once=once), refresh=True)

            with every(REFRESH_SECONDS, draw):
                yield
    finally:
        ours.removeHandler(handler)


def picture(report: Report, *, once: bool) -> RenderableType:
    """Return a table of the vectorizers, what this worker did, and with ``once`` how far it is."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for i, heading in enumerate(HEADINGS):
        table.add_column(heading, justify="left" if i < 2 else "right", overflow="fold")
    for vectorizer in report.vectorizers:
        table.add_row(*_row(vectorizer))
    done = Text(
        f"{report.rows:,} rows, {report.tokens:,} tokens, {report.questions:,} questions, "
        f"{report.failed_rows:,} errors in {duration(report.seconds)}"
    )
    return Group(table, _bar(report), done) if once else Group(table, done)


def _row(vectorizer: VectorizerReport) -> Iterator[Text]:
    left = None if vectorizer.eta_seconds is None else duration(vectorizer.eta_seconds)
    for value in (
        vectorizer.name,
        vectorizer.state,
        vectorizer.pending,
        vectorizer.retrying,
        vectorizer.failed,
        vectorizer.rows_per_second,
        vectorizer.tokens_per_second,
        left,
    ):
        yield Text(cell(value))


def _bar(report: Report) -> RenderableType:
    total = report.rows + report.pending
    left = max((v.eta_seconds or 0.0 for v in report.vectorizers), default=0.0)
    row = Table.grid(padding=(0, 1))
    row.add_row(
        ProgressBar(total=total or 1, completed=report.rows if total else 1, width=40),
        Text(f"{report.rows:,} of {total:,} rows"),
        Text(f"{duration(left)} left" if left else ""),
    )
    return row
