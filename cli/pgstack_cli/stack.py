"""The embedded stack: ``pgstack up``, ``down``, ``status``, ``logs``, ``url``, ``psql``."""

from __future__ import annotations

import os
import shutil
import time
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pgstack_cli import model
from pgstack_cli.install import print_warnings
from pgstack_cli.options import AsJson, DatabaseUrl
from pgstack_cli.output import (
    clean,
    duration,
    json_document,
    message,
    pairs,
    result,
    size,
    table,
)

if TYPE_CHECKING:
    from pgstack.embedded.stack import Part, StackStatus

NOT_RUNNING = 3
# psql's own options go to psql.
PASS_ON = {"ignore_unknown_options": True, "allow_interspersed_args": False}
FOLLOW_SECONDS = 0.3


class Log(StrEnum):
    """Whose log."""

    postgres = "postgres"
    worker = "worker"
    models = "models"
    supervisor = "supervisor"


def up(
    no_worker: Annotated[bool, typer.Option("--no-worker", help="Start no worker.")] = False,
    no_models: Annotated[
        bool, typer.Option("--no-models", help="Start no model server and fetch no model.")
    ] = False,
    tcp: Annotated[
        int | None,
        typer.Option("--tcp", metavar="PORT", min=1, max=65535, help="Listen on 127.0.0.1 too."),
    ] = None,
) -> None:
    """Start PostgreSQL, a model server and a worker here.

    Installs or upgrades pgstack in that PostgreSQL. Starts what is missing and leaves the
    rest alone. No root, no Docker; everything lies
    under $PGSTACK_HOME. The first time it fetches the small embedding model. With
    OLLAMA_HOST set that model server is used and none is started.

    \b
    Examples:
      pgstack up
      pgstack up --tcp 5433
      OLLAMA_HOST=http://127.0.0.1:11434 pgstack up
    """
    found = start(worker=not no_worker, models=not no_models, tcp_port=tcp)
    print_status(found)
    message("stop: pgstack down   connect: pgstack psql   try: pgstack demo")


def start(*, worker: bool = True, models: bool = True, tcp_port: int | None = None) -> StackStatus:
    """Bring the stack up, with pgstack installed and the embedding model there."""
    from pgstack.embedded import stack
    from pgstack.embedded.home import default_home

    home = default_home()
    # The worker waits for nothing here: it needs no model until there is work.
    found = stack.up(
        home, worker=worker, models=models, tcp_port=tcp_port, progress=message, prepare=_install
    )
    if models:
        _fetch_embedding_model(found)
    return found


def _warn(exc: Exception) -> None:
    """Tell what went wrong where the rest works all the same."""
    message(f"warning: {exc}")
    if hint := getattr(exc, "hint", None):
        message(f"hint: {hint}")


def _install(dsn: str) -> None:
    """Install or upgrade pgstack, quietly when there is nothing to tell."""
    from pgstack import install, target

    with target.connect(dsn, autocommit=False) as conn:
        before = install.installed_version(conn)
        conn.rollback()
        report = install.install(conn)
    print_warnings(report)
    if before != report.version:
        message(f"pgstack {report.version}: installed in the database")


def _fetch_embedding_model(found: StackStatus) -> None:
    """Pull the embedding model when the model server lacks it; never into somebody's Ollama."""
    from pgstack import models, target
    from pgstack.errors import PgstackError
    from pgstack.vectorizers import default_model

    if found.model_server_url is None:
        return
    with target.connect(found.dsn) as conn:
        wanted = default_model(conn, "embedding_model")
    try:
        _fetch_into(models.resolve_url(), wanted)
    except PgstackError as exc:  # the stack runs all the same
        _warn(exc)


def _fetch_into(url: str, wanted: str) -> None:
    from pgstack import models, target

    with models.BlockingModelServer(url) as server:
        if target.has_model([m["name"] for m in server.list()], wanted):
            return
        if os.environ.get("OLLAMA_HOST"):
            message(f"{server.url} lacks the embedding model. Next: pgstack model pull {wanted}")
            return
        message(f"fetching the embedding model {wanted}")
        model.fetch(server, wanted)


def down() -> None:
    """Stop the worker, the model server and PostgreSQL.

    Your data stays under $PGSTACK_HOME; `pgstack up` goes on with it.

    \b
    Examples:
      pgstack down
    """
    from pgstack.embedded import stack
    from pgstack.embedded.home import default_home

    stopped = stack.down(default_home())
    message(f"stopped {', '.join(stopped)}" if stopped else "nothing was running")


def status(as_json: AsJson = False) -> None:
    """Show what runs, where and since when.

    Exit code 3 when PostgreSQL does not run. --json: one document: home, postgres, version,
    dsn, tcp_port, model_server, model_server_url, worker ({running, pid, uptime, restarts,
    note} each), disk_used, disk_free (bytes).

    \b
    Examples:
      pgstack status
      pgstack status --json
    """
    from pgstack.embedded import stack
    from pgstack.embedded.home import default_home

    found = stack.status(default_home())
    if as_json:
        json_document(found.to_dict())
    else:
        print_status(found)
    if not found.postgres.running:
        message("hint: pgstack up")
        raise typer.Exit(NOT_RUNNING)


def print_status(found: StackStatus) -> None:
    """Print what runs and where."""
    server = f"PostgreSQL {found.version or ''}".strip()
    parts = (
        (server, found.postgres),
        ("model server", found.model_server),
        ("worker", found.worker),
    )
    table(
        ("part", "state", "pid"),
        [(name, _state(part), str(part.pid or "-")) for name, part in parts],
    )
    values: list[tuple[str, object]] = [("url", found.dsn)]
    if found.tcp_port:
        values.append(
            ("TCP", f"127.0.0.1:{found.tcp_port}, user postgres, password in {_password()}")
        )
    if found.model_server_url:
        values.append(("models", found.model_server_url))
    space = f"{size(found.disk_used)} used, {size(found.disk_free)} free"
    pairs([*values, ("home", found.home), ("disk", space)])


def _password() -> str:
    from pgstack.embedded.home import default_home

    return str(default_home().password_file)


def _state(part: Part) -> str:
    if not part.running:
        return f"stopped ({part.note})" if part.note else "stopped"
    since = "" if part.uptime is None else f" {duration(part.uptime)}"
    crashed = f", {part.restarts} restarts" if part.restarts else ""
    return f"running{since}{crashed}"


def logs(
    who: Annotated[
        Log | None, typer.Argument(help="Whose log. Default: all.", show_default=False)
    ] = None,
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Go on as lines come.")] = False,
    lines: Annotated[int, typer.Option("-n", "--lines", min=0, help="Lines of each.")] = 20,
) -> None:
    """Show the logs of the embedded stack.

    \b
    Examples:
      pgstack logs
      pgstack logs worker -f
      pgstack logs postgres -n 100
    """
    from pgstack.embedded import stack
    from pgstack.embedded.home import default_home

    files = stack.log_files(default_home())
    wanted = "model-server" if who is Log.models else who
    shown = {name: path for name, path in files.items() if wanted in (None, name)}
    if not shown:
        message("there is no such log yet. hint: pgstack up")
        raise typer.Exit(1)
    ends = {}
    for name, path in shown.items():
        if len(shown) > 1:
            result(f"==> {path} <==")
        ends[name] = _print_end(path, lines)
    if follow:
        _follow(shown, ends)


def _print_end(path: Path, lines: int) -> int:
    """Print the last lines of a file; return its size."""
    content = path.read_bytes()
    kept = content.decode(errors="replace").splitlines()[-lines:] if lines else []
    for line in kept:
        result(line)
    return len(content)


def _follow(files: dict[str, Path], ends: dict[str, int]) -> None:
    """Print what is added to the files, until interrupted."""
    while True:
        for name, path in files.items():
            length = path.stat().st_size
            if length < ends[name]:  # it was rotated
                ends[name] = 0
            if length == ends[name]:
                continue
            with path.open("rb") as file:
                file.seek(ends[name])
                added = file.read()
            whole, newline, _ = added.rpartition(b"\n")
            ends[name] += len(whole) + len(newline)
            mark = f"{name}: " if len(files) > 1 else ""
            for line in whole.decode(errors="replace").splitlines():
                typer.echo(mark + clean(line))
        time.sleep(FOLLOW_SECONDS)


def url() -> None:
    """Print the DSN of the running embedded stack.

    \b
    Examples:
      pgstack url
      pg_dump "$(pgstack url)" > backup.sql
    """
    from pgstack import target

    typer.echo(target.embedded_url())


def psql(
    args: Annotated[
        list[str] | None, typer.Argument(help="What psql is given.", show_default=False)
    ] = None,
    database: DatabaseUrl = None,
) -> None:
    """Open psql on the database; what follows goes to psql.

    The embedded stack comes with its own psql; for another database the one on the PATH
    is taken when there is one. -d must come first.

    \b
    Examples:
      pgstack psql
      pgstack psql -c "select * from pgstack.vectorizer_status"
      pgstack psql -d postgresql://me@db.example.org/shop -f report.sql
    """
    from pgstack import target

    dsn, environment = target.without_password(target.database_url(database))
    found = shutil.which("psql") if target.named_url(database) else None
    program = found or _bundled_psql()
    command = [program, "-d", dsn, *(args or [])]
    os.execve(program, command, {**os.environ, **environment})  # noqa: S606  (psql takes over)


def _bundled_psql() -> str:
    from pgstack.embedded import postgres
    from pgstack.embedded.home import default_home

    return str(postgres.binary(default_home(), "psql"))
