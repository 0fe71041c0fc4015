"""``pgstack worker``."""

from __future__ import annotations

import sys
import time
from contextlib import AbstractContextManager, ExitStack, closing
from typing import TYPE_CHECKING, Annotated

import typer

from pgstack_cli.options import DatabaseUrl
from pgstack_cli.output import duration, json_line, message

if TYPE_CHECKING:
    from pgstack.worker.app import WorkerOptions
    from pgstack.worker.meter import Meter, Totals
    from pgstack.worker.progress import Reporter

REPORT_SECONDS = 1.0
LOG_FORMAT = "%(asctime)s %(levelname)s %(message)s"


def worker(  # noqa: PLR0917
    url: DatabaseUrl = None,
    once: Annotated[
        bool, typer.Option("--once", help="End when nothing is left to embed.")
    ] = False,
    names: Annotated[
        list[str] | None,
        typer.Option("--vectorizer", metavar="NAME", help="Only this one; may be repeated."),
    ] = None,
    concurrency: Annotated[
        int, typer.Option("--concurrency", min=1, max=64, help="Model calls at a time.")
    ] = 2,
    metrics: Annotated[
        str | None,
        typer.Option(
            "--metrics",
            metavar="[HOST:]PORT",
            help="Serve Prometheus metrics there; without HOST on 127.0.0.1 only.",
        ),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print progress every second, one JSON object a line.")
    ] = False,
) -> None:
    """Run a worker: embed what is queued, answer what SQL asks.

    Any number may run. SIGTERM ends it cleanly. On a terminal it shows how each vectorizer is
    getting on. With --once it ends when nothing is left to do; the exit code is then 1 when rows
    failed or a vectorizer is blocked, and 3 when the model server or the database is out of
    reach. The model server is $OLLAMA_HOST, else the embedded one.

    --json: objects with event "progress", at the end one with event "summary". This worker's
    counts: rows, chunks, kept, texts, tokens, calls, failed_calls, failed_rows, questions,
    failed_questions, seconds, rows_per_second, tokens_per_second. The database's: pending, and
    vectorizers, each with name, state, pending, retrying, failed, rows_per_second,
    tokens_per_second, eta_seconds, last_error.

    \b
    Examples:
      pgstack worker
      pgstack worker -d postgresql://owner@db.example.org/shop --concurrency 4 --metrics 9187
      pgstack worker --once --vectorizer blog
      pgstack worker --once --json
    """
    from pgstack import target, vectorizers
    from pgstack.models import resolve_url
    from pgstack.worker.app import WorkerOptions

    dsn = target.database_url(url)
    with target.connect(dsn) as conn:
        for name in names or ():
            vectorizers.status(conn, name)  # a mistyped name would wait for ever
    options = WorkerOptions(
        dsn=dsn,
        model_server=resolve_url(),
        names=names or None,
        concurrency=concurrency,
        once=once,
    )
    _run(options, metrics, as_json)
    if once:
        with target.connect(dsn) as conn:
            _tell_problems(vectorizers.problems(conn, names or None))


def _run(options: WorkerOptions, metrics: str | None, as_json: bool) -> None:
    """Run the worker under the eyes of whoever wants to see it; sum up however it ends."""
    from pgstack.worker.app import run
    from pgstack.worker.meter import Meter
    from pgstack.worker.progress import Observer, Reporter

    meter = Meter()
    with ExitStack() as stack:
        observer = stack.enter_context(closing(Observer(options.dsn, options.names)))
        if metrics is not None:
            from pgstack.worker.metrics import serving

            message(f"metrics: {stack.enter_context(serving(metrics, meter, observer))}")
        reporter = Reporter(meter, observer)
        began = time.monotonic()
        try:
            with _watched(reporter, meter, as_json=as_json, once=options.once):
                run(options, meter)
        finally:
            if as_json:
                json_line(reporter.report("summary"))
            else:
                _sum_up(meter.totals(), time.monotonic() - began)


def _watched(
    reporter: Reporter, meter: Meter, *, as_json: bool, once: bool
) -> AbstractContextManager[None]:
    """Return what shows the worker's progress while it runs."""
    import logging

    from pgstack.worker.progress import every, logged

    if not as_json and sys.stderr.isatty():
        from pgstack_cli.worker_view import live

        return live(reporter, once=once)
    logging.basicConfig(level=logging.INFO, format=LOG_FORMAT)
    logging.getLogger("httpx").setLevel(logging.WARNING)
    if not as_json:
        return logged(meter)
    reporter.report("progress")  # what the first line's rates are counted from
    return every(REPORT_SECONDS, lambda: json_line(reporter.report("progress")))


def _sum_up(done: Totals, seconds: float) -> None:
    message(
        f"embedded {done.rows:,} rows in {done.chunks:,} chunks ({done.kept:,} kept), "
        f"{done.tokens:,} tokens in {done.calls:,} calls, answered {done.questions:,} questions, "
        f"{done.failed_rows + done.failed_questions:,} errors, {duration(seconds)}"
    )


def _tell_problems(problems: list[tuple[str, str | None, int]]) -> None:
    """Tell what is left undone, and fail if anything is."""
    for name, error, failed in problems:
        what = f"{failed} rows failed" if failed else "blocked"
        message(f"error: vectorizer {name}: {what}: {error}")
        message(f"hint: pgstack vectorizer {'errors' if failed else 'retry'} {name}")
    if problems:
        raise typer.Exit(1)
