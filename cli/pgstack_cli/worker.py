"""``pgstack worker``."""

from __future__ import annotations

from typing import Annotated

import typer

from pgstack_cli.options import DatabaseUrl
from pgstack_cli.output import message


def worker(
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
) -> None:
    """Run a worker: embed what is queued, answer what SQL asks.

    Any number may run. SIGTERM ends it cleanly. With --once the exit code is 1 when rows
    failed or a vectorizer is blocked, and 3 when the model server or the database is out
    of reach. The model server is $OLLAMA_HOST, else the embedded one.

    \b
    Examples:
      pgstack worker
      pgstack worker -d postgresql://owner@db.example.org/shop --concurrency 4
      pgstack worker --once --vectorizer blog
    """
    import logging

    from pgstack import target, vectorizers
    from pgstack.models import resolve_url
    from pgstack.worker.app import WorkerOptions, run

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    dsn = target.database_url(url)
    with target.connect(dsn) as conn:
        for name in names or ():
            vectorizers.status(conn, name)  # a mistyped name would wait for ever
    meter = run(
        WorkerOptions(
            dsn=dsn,
            model_server=resolve_url(),
            names=names or None,
            concurrency=concurrency,
            once=once,
        )
    )
    done = meter.totals()
    message(
        f"embedded {done.rows} rows in {done.chunks} chunks, answered {done.questions} questions, "
        f"{done.failed_rows + done.failed_questions} errors"
    )
    if once:
        with target.connect(dsn) as conn:
            _report(vectorizers.problems(conn, names or None))


def _report(problems: list[tuple[str, str | None, int]]) -> None:
    """Tell what is left undone, and fail if anything is."""
    for name, error, failed in problems:
        what = f"{failed} rows failed" if failed else "blocked"
        message(f"error: vectorizer {name}: {what}: {error}")
        message(f"hint: pgstack vectorizer retry {name}")
    if problems:
        raise typer.Exit(1)
