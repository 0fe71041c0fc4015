"""The commands of the embedded stack, with the stack itself replaced."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pgstack_cli import app as cli
from pgstack_cli import stack as commands
from typer.testing import CliRunner

from pgstack import target
from pgstack.embedded import postgres, stack
from pgstack.embedded.stack import Part, StackStatus

runner = CliRunner()

RUNNING = StackStatus(
    home="/srv/pgstack",
    postgres=Part(running=True, pid=7, uptime=61.0),
    version="17.10",
    dsn="postgresql://postgres@/pgstack?host=%2Fsrv%2Fpgstack%2Frun&port=5432",
    tcp_port=None,
    model_server=Part(running=False, note="OLLAMA_HOST is used instead"),
    model_server_url=None,
    worker=Part(running=True, pid=8, uptime=2.0, restarts=3),
    disk_used=46_000_000,
    disk_free=10**10,
)


def run(*args: str, env: dict[str, str] | None = None) -> Any:
    return runner.invoke(cli.app, list(args), env=env, prog_name="pgstack")


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What stack.up() was asked for."""
    calls: list[dict[str, Any]] = []

    def up(home: object, **options: Any) -> StackStatus:
        calls.append(options)
        options["prepare"](RUNNING.dsn)
        return RUNNING

    monkeypatch.setattr(stack, "up", up)
    monkeypatch.setattr(commands, "_install", lambda dsn: calls[-1].update(installed=dsn))
    return calls


@pytest.mark.parametrize(
    ("args", "asked"),
    [
        ([], {"worker": True, "models": True, "tcp_port": None}),
        (["--no-worker"], {"worker": False, "models": True, "tcp_port": None}),
        (["--no-models", "--tcp", "5433"], {"worker": True, "models": False, "tcp_port": 5433}),
    ],
)
def test_up_asks_for_what_was_said(
    args: list[str], asked: dict[str, Any], started: list[dict[str, Any]]
) -> None:
    done = run("up", *args)
    assert done.exit_code == 0, done.output
    (call,) = started
    assert {name: call[name] for name in asked} == asked
    assert call["installed"] == RUNNING.dsn  # between PostgreSQL and the worker
    assert "pgstack down" in done.stderr
    assert RUNNING.dsn in done.stdout


def test_status_for_people(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stack, "status", lambda home: RUNNING)
    done = run("status")
    assert done.exit_code == 0
    assert re.search(r"^PostgreSQL 17\.10 +running 1 min 1 s +7$", done.stdout, re.M)
    assert "stopped (OLLAMA_HOST is used instead)" in done.stdout
    assert "running 2.0 s, 3 restarts" in done.stdout
    assert "46 MB used, 10.0 GB free" in done.stdout


def test_status_for_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stack, "status", lambda home: RUNNING)
    found = json.loads(run("status", "--json").stdout)
    assert found["worker"] == {
        "running": True, "pid": 8, "uptime": 2.0, "restarts": 3, "note": None
    }  # fmt: skip
    assert set(found) == {
        "home", "postgres", "version", "dsn", "tcp_port", "model_server", "model_server_url",
        "worker", "disk_used", "disk_free",
    }  # fmt: skip


def test_status_of_what_never_ran(tmp_path: Path) -> None:
    done = run("status", "--json", env={"PGSTACK_HOME": str(tmp_path / "none")})
    assert done.exit_code == 3
    assert json.loads(done.stdout)["postgres"]["running"] is False
    assert "pgstack up" in done.stderr


def test_down_of_what_does_not_run(tmp_path: Path) -> None:
    done = run("down", env={"PGSTACK_HOME": str(tmp_path / "none")})
    assert (done.exit_code, done.stderr) == (0, "nothing was running\n")


# -------------------------------------------------------------------------------- logs


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    found = {"postgres": tmp_path / "p.log", "model-server": tmp_path / "m.log"}
    found["postgres"].write_text("".join(f"line {n}\n" for n in range(100)))
    found["model-server"].write_bytes(b"caf\xe9 \x1b[2J\n")
    monkeypatch.setattr(stack, "log_files", lambda home: found)
    return found


def test_the_end_of_one_log(files: dict[str, Path]) -> None:
    assert run("logs", "postgres", "-n", "2").stdout == "line 98\nline 99\n"
    assert run("logs", "postgres", "-n", "0").stdout == ""


def test_a_log_cannot_command_the_terminal(files: dict[str, Path]) -> None:
    assert run("logs", "models").stdout == "caf\ufffd \\x1b[2J\n"


def test_all_logs_say_whose_they_are(files: dict[str, Path]) -> None:
    text = run("logs", "-n", "1").stdout
    assert text.index("p.log <==\nline 99") < text.index("m.log <==\n")


def test_no_log_yet(files: dict[str, Path]) -> None:
    assert run("logs", "worker").exit_code == 1


def test_following_a_log_through_a_rotation(
    files: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    log = files["postgres"]

    def append() -> None:
        with log.open("a") as file:
            file.write("half of")

    def complete() -> None:
        with log.open("a") as file:
            file.write(" a line\n")

    def rotate() -> None:
        log.write_text("new\n")

    def interrupt() -> None:
        raise KeyboardInterrupt

    events: list[Callable[[], None]] = [append, complete, rotate, interrupt]
    monkeypatch.setattr("time.sleep", lambda seconds: events.pop(0)())
    done = run("logs", "postgres", "-f", "-n", "1")
    assert done.stdout == "line 99\nhalf of a line\nnew\n"
    assert done.exit_code == 130


# -------------------------------------------------------------------------------- psql


@pytest.fixture
def executed(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The program that took over, its arguments and what is new in its environment."""
    calls: list[Any] = []

    def execve(program: str, args: list[str], env: dict[str, str]) -> None:
        calls.append((program, args, env.get("PGPASSWORD")))

    monkeypatch.setattr("os.execve", execve)
    monkeypatch.setattr(target, "embedded_url", lambda: RUNNING.dsn)
    monkeypatch.setattr(postgres, "binary", lambda home, name: Path("/bundle") / name)
    monkeypatch.delenv("PGPASSWORD", raising=False)
    monkeypatch.delenv("PGSTACK_DATABASE_URL", raising=False)
    return calls


@pytest.mark.parametrize(
    "args",
    [
        [],
        ["-Atc", "select 1"],
        ["--csv", "-c", "select '-d'"],
        ["-c", "select 1", "-d", "other"],
        ["-f", "file.sql", "--help"],
        ["-v", "x=1", "-"],
    ],
)
def test_psql_gets_its_own_arguments_untouched(args: list[str], executed: list[Any]) -> None:
    done = run("psql", *args)
    assert done.exit_code == 0, done.output
    assert executed == [("/bundle/psql", ["/bundle/psql", "-d", RUNNING.dsn, *args], None)]


def test_psql_keeps_the_password_off_the_command_line(
    executed: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.which", lambda name: f"/path/{name}")
    run("psql", "-d", "postgresql://me:s%40cret@db/shop", "-c", "select 1")
    ((program, args, password),) = executed
    assert program == "/path/psql"
    assert password == "s@cret"
    assert "cret" not in " ".join(args)
    assert "host=db" in args[2]
    assert "dbname=shop" in args[2]


def test_url_is_alone_on_stdout(executed: list[Any]) -> None:
    assert run("url").stdout == RUNNING.dsn + "\n"


def test_what_was_given_goes_before_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGSTACK_DATABASE_URL", "postgresql://env")
    assert target.database_url("postgresql://given") == "postgresql://given"
    assert target.database_url() == "postgresql://env"


@pytest.mark.parametrize(
    ("names", "wanted", "there"),
    [
        (["all-minilm:latest"], "all-minilm", True),
        (["all-minilm"], "all-minilm:latest", True),
        (["qwen2.5-coder:0.5b"], "qwen2.5-coder", False),
        (["qwen2.5-coder:0.5b"], "qwen2.5-coder:0.5b", True),
        ([], "all-minilm", False),
    ],
)
def test_model_names_with_and_without_a_tag(names: list[str], wanted: str, there: bool) -> None:
    assert target.has_model(names, wanted) is there


def test_up_without_its_model_server_warns_and_says_what_runs(
    started: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = replace(RUNNING, model_server_url="http://127.0.0.1:1")
    monkeypatch.setattr(stack, "up", lambda home, **options: elsewhere)
    monkeypatch.setattr(target, "connect", lambda dsn: nullcontext())
    monkeypatch.setattr("pgstack.vectorizers.default_model", lambda conn, name: "all-minilm")
    done = run("up", env={"OLLAMA_HOST": "http://127.0.0.1:1"})
    assert done.exit_code == 0
    assert "warning: cannot reach the model server at http://127.0.0.1:1\nhint: " in done.stderr
    assert RUNNING.dsn in done.stdout
