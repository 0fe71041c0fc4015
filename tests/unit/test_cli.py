"""The command line without a database: how it starts, parses, and ends."""

from __future__ import annotations

import os
import re
import resource
import subprocess
import sys
from typing import Any

import psycopg
import pytest
from pgstack_cli import app as cli
from typer.testing import CliRunner

from pgstack import errors

runner = CliRunner()

SLOW_TO_IMPORT = {"psycopg", "sqlalchemy", "alembic", "ollama", "httpx", "pgai", "rich", "pydantic"}
NOBODY = "postgresql://nobody@127.0.0.1:1/nothing"


def run(*args: str, env: dict[str, str] | None = None) -> Any:
    return runner.invoke(cli.app, list(args), env=env, prog_name="pgstack")


def python(*args: str, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *args], capture_output=True, text=True, check=False, **options
    )


# ---------------------------------------------------------------------------- starting


def test_help_imports_nothing_slow() -> None:
    code = (
        "import sys\n"
        "from pgstack_cli.app import app\n"
        "try: app(['--help'], prog_name='pgstack')\n"
        "except SystemExit: pass\n"
        "print('MODULES', *sorted({name.split('.')[0] for name in sys.modules}))\n"
    )
    done = python("-c", code)
    assert done.returncode == 0, done.stderr
    loaded = set(done.stdout.partition("MODULES")[2].split())
    assert "typer" in loaded
    assert loaded & SLOW_TO_IMPORT == set()


@pytest.mark.parametrize(("args", "code"), [(["--help"], 0), (["url"], 3)])
def test_it_starts_in_under_four_tenths_of_a_second(args: list[str], code: int) -> None:
    """Processor time, the best of three: a busy machine is not the program's fault."""
    env = {**os.environ, "PGSTACK_HOME": "/nonexistent/pgstack"}
    spent = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert python("-m", "pgstack_cli", *args, env=env).returncode == code
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        spent.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert min(spent) < 0.4


def test_alone_it_shows_its_help() -> None:
    done = run()
    assert done.exit_code == 0
    assert "pgstack demo" in done.stdout
    for command in ("up", "doctor", "vectorizer", "ask", "ingest"):
        assert re.search(rf"^  {command}\b", done.stdout, re.M), command


def test_every_command_is_listed_in_a_panel() -> None:
    import typer

    group = typer.main.get_command(cli.app)
    names = group.commands.keys()  # type: ignore[attr-defined]
    listed = set(re.findall(r"^  ([a-z]+)  ", run("--help").stdout, re.M))
    assert listed >= set(names)


def test_version() -> None:
    assert re.fullmatch(r"pgstack \d+\.\d+\.\d+\n", run("--version").stdout)


def test_completion_is_offered() -> None:
    done = python(
        "-m", "pgstack_cli", env={**os.environ, "_PGSTACK_COMPLETE": "complete_bash",
                                  "COMP_WORDS": "pgstack vec", "COMP_CWORD": "1"}
    )  # fmt: skip
    assert "vectorizer" in done.stdout


# ------------------------------------------------------------------------------ usage


@pytest.mark.parametrize(
    "args",
    [
        ["nonsense"],
        ["search"],
        ["search", "docs", "words", "-k", "0"],
        ["search", "docs", "words", "--mode", "magic"],
        ["up", "--tcp", "70000"],
        ["worker", "--concurrency", "0"],
        ["ingest", "somewhere"],
        ["vectorizer", "create", "blog"],
        ["logs", "nobody"],
    ],
)
def test_wrong_usage_ends_with_2(args: list[str]) -> None:
    done = run(*args)
    assert done.exit_code == 2
    assert done.stdout == ""
    assert "Usage: pgstack" in done.stderr


@pytest.mark.parametrize("text", ["{", "[1]", '"x"', "", "NaN"])
def test_a_filter_that_is_no_object_ends_with_2(text: str) -> None:
    done = run("search", "docs", "words", "--filter", text, "-d", NOBODY)
    assert done.exit_code == 2
    assert done.stderr.startswith("error: the filter is no JSON")
    assert "hint: --filter" in done.stderr


# ------------------------------------------------------------------------- not reachable

EVERYWHERE = [
    ["search", "docs", "words"],
    ["ask", "docs", "why?"],
    ["ask", "docs", "why?", "--stream"],
    ["ingest", "/etc/hostname", "--collection", "docs"],
    ["install"],
    ["worker", "--once"],
    ["vectorizer", "list"],
    ["vectorizer", "show", "docs"],
    ["vectorizer", "create", "docs", "body"],
    ["vectorizer", "plan", "docs", "body"],
    ["vectorizer", "adopt", "docs"],
    ["vectorizer", "refresh", "docs"],
    ["vectorizer", "pause", "docs"],
    ["vectorizer", "resume", "docs"],
    ["vectorizer", "retry", "docs"],
    ["vectorizer", "drop", "docs", "--yes"],
]


@pytest.mark.parametrize("args", EVERYWHERE, ids=" ".join)
def test_no_database_ends_with_3_and_a_hint(args: list[str]) -> None:
    done = run(*args, "-d", NOBODY)
    assert done.exit_code == 3
    assert done.stdout == ""
    assert "error: cannot reach the database: " in done.stderr
    assert "hint: pgstack up" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("args", [*EVERYWHERE, ["url"], ["psql"]], ids=" ".join)
def test_no_embedded_stack_ends_with_3_and_a_hint(args: list[str], tmp_path: Any) -> None:
    done = run(*args, env={"PGSTACK_HOME": str(tmp_path / "none"), "PGSTACK_DATABASE_URL": ""})
    assert done.exit_code == 3
    assert "does not run\nhint: pgstack up" in done.stderr
    assert not (tmp_path / "none").exists()


def test_a_url_that_is_none_ends_with_3() -> None:
    done = run("vectorizer", "list", "-d", "nonsense")
    assert done.exit_code == 3
    assert "error: not a database URL" in done.stderr


def test_no_model_server_ends_with_3() -> None:
    done = run("model", "list", env={"OLLAMA_HOST": "http://127.0.0.1:1"})
    assert done.exit_code == 3
    assert done.stderr.startswith("error: cannot reach the model server at http://127.0.0.1:1\n")
    assert "hint: " in done.stderr


def test_the_environment_names_the_database() -> None:
    done = run("vectorizer", "list", env={"PGSTACK_DATABASE_URL": NOBODY})
    assert done.exit_code == 3
    assert "127.0.0.1" in done.stderr


# ---------------------------------------------------------------------------- how it ends


def failing(monkeypatch: pytest.MonkeyPatch, exc: BaseException) -> Any:
    """Run a command whose library call raises."""

    def fail(*args: object, **kwargs: object) -> None:
        raise exc

    monkeypatch.setattr("pgstack.target.embedded_url", fail)
    return run("url")


@pytest.mark.parametrize("cls", errors.PgstackError.__subclasses__())
def test_our_errors_end_with_their_exit_code(
    cls: type[errors.PgstackError], monkeypatch: pytest.MonkeyPatch
) -> None:
    done = failing(monkeypatch, cls("it broke", hint="mend it"))
    assert done.exit_code == cls.exit_code
    assert done.stderr == "error: it broke\nhint: mend it\n"
    assert done.stdout == ""


def test_without_a_hint_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    assert failing(monkeypatch, errors.PgstackError("it broke")).stderr == "error: it broke\n"


def test_an_error_in_a_group_of_tasks_is_told_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    group = ExceptionGroup("tasks", [ExceptionGroup("inner", [errors.NoWorker("none here")])])
    done = failing(monkeypatch, group)
    assert (done.exit_code, done.stderr) == (3, "error: none here\n")


@pytest.mark.parametrize(
    ("exc", "code"),
    [
        (psycopg.OperationalError("connection refused"), 3),
        (psycopg.errors.AdminShutdown("terminating connection"), 3),
        (psycopg.errors.QueryCanceled("canceling statement"), 1),
        (psycopg.errors.InsufficientPrivilege("permission denied"), 1),
        (psycopg.InterfaceError("the connection is closed"), 1),
    ],
)
def test_unforeseen_database_errors_are_told_without_traceback(
    exc: psycopg.Error, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = failing(monkeypatch, exc)
    assert done.exit_code == code
    assert str(exc) in done.stderr
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr


def test_a_bug_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    done = failing(monkeypatch, ZeroDivisionError("a bug"))
    assert isinstance(done.exception, ZeroDivisionError)


def test_debug_shows_the_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGSTACK_DEBUG", "1")
    done = failing(monkeypatch, errors.PgstackError("it broke"))
    assert "Traceback" in done.stderr
    assert done.exit_code == 1


def test_an_interrupt_ends_with_130(monkeypatch: pytest.MonkeyPatch) -> None:
    done = failing(monkeypatch, KeyboardInterrupt())
    assert done.exit_code == 130
    assert "Traceback" not in done.stderr


def test_a_reader_that_left_is_no_news() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "pgstack_cli", "--help"],
            stdout=writer,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    finally:
        os.close(writer)
    assert done.stderr == ""


def test_a_letter_the_terminal_cannot_show_is_no_error() -> None:
    env = {**os.environ, "PYTHONIOENCODING": "iso8859-5", "PGSTACK_HOME": "/nonexistent/Zoë"}
    done = python("-m", "pgstack_cli", "url", env=env)
    assert done.returncode == 3
    assert "Zo\\xeb" in done.stderr
