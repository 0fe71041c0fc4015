"""The application: its commands in the order of ``pgstack --help``, and how errors end it.

Exit codes: 0 ok, 1 failed, 2 wrong usage, 3 not reachable, 130 interrupted.
``PGSTACK_DEBUG=1`` shows the traceback of an error.
"""

from __future__ import annotations

import os
import sys
import traceback
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from pgstack_cli import (
    audit,
    chunking,
    dataset,
    demo,
    duplicates,
    evaluation,
    forget,
    index,
    ingest,
    install,
    model,
    search,
    stack,
    vectorizer,
    worker,
)
from pgstack_cli.output import message

UNREACHABLE = 3
INTERRUPTED = 130
PANELS = ("Begin", "Embedded stack", "Database", "Search")


class Commands(TyperGroup):
    """The root command: lists the commands by panel, and turns errors into exit codes."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write the list of commands, one section a panel."""
        for panel in PANELS:
            found = [
                (name, c)
                for name, c in self.commands.items()
                if getattr(c, "rich_help_panel", None) == panel
            ]
            with formatter.section(panel):
                formatter.write_dl([(name, c.get_short_help_str(70)) for name, c in found])

    def invoke(self, ctx: Any) -> Any:
        """Run a command; tell what went wrong as an error, a hint and an exit code."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            raise typer.Exit(INTERRUPTED) from None
        except Exception as exc:
            code = tell(exc)
            if code is None:
                raise
            raise typer.Exit(code) from exc


def tell(exc: BaseException) -> int | None:
    """Print an error we know as ``error:`` and ``hint:``; return its exit code, else None."""
    while isinstance(exc, BaseExceptionGroup):
        exc = exc.exceptions[0]
    known = _ours(exc) or _servers(exc)
    if known is None:
        return None
    text, hint, code = known
    if os.environ.get("PGSTACK_DEBUG"):
        traceback.print_exception(exc)
    message(f"error: {text}")
    if hint:
        message(f"hint: {hint}")
    return code


def _ours(exc: BaseException) -> tuple[str, str | None, int] | None:
    errors = sys.modules.get("pgstack.errors")  # not imported: nobody raised one
    if errors is None or not isinstance(exc, errors.PgstackError):
        return None
    return str(exc), exc.hint, exc.exit_code


def _servers(exc: BaseException) -> tuple[str, str | None, int] | None:
    """Return what PostgreSQL said, when it said something we did not foresee."""
    psycopg = sys.modules.get("psycopg")
    if psycopg is None or not isinstance(exc, psycopg.Error):
        return None
    from pgstack.errors import PgstackError, translated

    try:
        with translated():
            raise exc
    except PgstackError as ours:
        return str(ours), ours.hint, ours.exit_code
    except psycopg.Error as raw:
        gone = isinstance(raw, psycopg.OperationalError) and (raw.sqlstate or "57P").startswith(
            ("08", "57P")
        )
        text = raw.diag.message_primary or str(raw).strip() or type(raw).__name__
        return text, raw.diag.message_hint, UNREACHABLE if gone else 1


def _version(wanted: bool) -> None:
    if wanted:
        from pgstack import __version__

        typer.echo(f"pgstack {__version__}")
        raise typer.Exit


app = typer.Typer(
    cls=Commands,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    invoke_without_command=True,
)


@app.callback()
def root(
    ctx: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Semantic search, embeddings and model calls inside PostgreSQL.

    \b
    Begin here:
      pgstack demo                                     everything, on real documents
      pgstack up                                       PostgreSQL, a model server and a worker
      pgstack ingest ./handbook --collection handbook
      pgstack search handbook "reset a lost password"
      pgstack ask handbook "How do I reset a lost password?"

    Results go to stdout, messages to stderr. Exit codes: 0 ok, 1 failed,
    2 wrong usage, 3 not reachable.
    """
    if ctx.invoked_subcommand is None:
        typer.echo(ctx.get_help())


for _panel, _commands in {
    "Begin": (demo.demo, install.doctor),
    "Embedded stack": (stack.up, stack.down, stack.status, stack.logs, stack.url, stack.psql),
    "Database": (install.install, worker.worker, audit.audit, forget.forget, duplicates.duplicates),
    "Search": (ingest.ingest, search.search, search.similar, search.ask),
}.items():
    for _command in _commands:
        _settings = stack.PASS_ON if _command is stack.psql else None
        app.command(rich_help_panel=_panel, context_settings=_settings)(_command)
app.add_typer(dataset.app, name="dataset", rich_help_panel="Database")
app.add_typer(vectorizer.app, name="vectorizer", rich_help_panel="Database")
app.add_typer(chunking.app, name="chunking", rich_help_panel="Database")
app.add_typer(index.app, name="index", rich_help_panel="Database")
app.add_typer(evaluation.app, name="eval", rich_help_panel="Search")
app.add_typer(model.app, name="model", rich_help_panel="Embedded stack")
