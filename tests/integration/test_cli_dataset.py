"""`pgstack dataset` on the command line, and files at URLs."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import psycopg
import pytest
from pgstack_cli import app as cli
from typer.testing import CliRunner

from tests.integration.conftest import value

pytest.importorskip("pyarrow")
Connection = psycopg.Connection[Any]
Run = Callable[..., Any]
CSV = "id,price,note\n" + "".join(
    f"{n},{n}.50,a note of some words that one may want to search {n}\n" for n in range(50)
)


@pytest.fixture
def run(db: Connection, db_url: str, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run `pgstack dataset ...` on a database of its own."""
    monkeypatch.setenv("PGSTACK_DATABASE_URL", db_url)

    def invoke(*args: Any, code: int = 0) -> Any:
        done = CliRunner().invoke(cli.app, ["dataset", *map(str, args)], prog_name="pgstack")
        assert done.exit_code == code, done.output
        return done

    return invoke


@pytest.fixture
def path(tmp_path: Path) -> Path:
    made = tmp_path / "sales.csv"
    made.write_text(CSV)
    return made


@pytest.fixture
def site(tmp_path: Path) -> Iterator[str]:
    """The URL under which the files of tmp_path are served."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_inspect_then_load_then_rejects(run: Run, db: Connection, path: Path) -> None:
    shown = run("inspect", path)
    assert 'create table "data" (\n  "id" bigint,\n  "price" numeric,' in shown.stdout
    assert "50 rows looked at" in shown.stderr
    found = json.loads(run("inspect", path, "--type", "id=text", "--json").stdout)
    assert [c["type"] for c in found["columns"]] == ["text", "numeric", "text"]

    dry = run("load", path, "--table", "shop.sales", "--dry-run")
    assert 'create table "shop"."sales"' in dry.stdout
    path.write_text(CSV + "x,1,late\n")
    done = run("load", path, "--table", "sales", "--type", "id=int", "--key", "id")
    assert "public.sales: 50 rows, 1 rejected" in done.stderr
    assert "line 52: id: invalid input syntax for type integer" in done.stderr
    assert "pgstack vectorizer create 'public.sales' 'note'" in done.stderr
    (listed,) = json.loads(run("list", "--json").stdout)
    assert (listed["target"], listed["state"], listed["rejects"]) == ("public.sales", "done", 1)
    assert "public.sales" in run("list").stdout
    (line,) = run("rejects", listed["load"]).stdout.splitlines()
    assert json.loads(line)["raw"] == "x,1,late\n"
    run("forget", listed["load"])
    assert json.loads(run("list", "--json").stdout) == []
    assert value(db, "select count(*) from sales") == 50


def test_errors_and_exit_codes(run: Run, path: Path, tmp_path: Path) -> None:
    assert "exists already" in (
        run("load", path, "--table", "t").stderr + run("load", path, "--table", "t", code=1).stderr
    )
    assert (
        "more than 0"
        in run(
            *("load", path, "--table", "u", "--max-rejects", "0", "--type", "note=int"), code=1
        ).stderr
    )
    for wrong in (
        ("load", tmp_path / "absent.csv", "--table", "t"),
        ("load", path, "--table", "t", "--append", "--replace"),
        ("load", path, "--table", "x", "--type", "price"),
        ("load", path, "--table", "x", "--type", "nope=text"),
        ("inspect", path, "--delimiter", "abc"),
    ):
        assert "hint: " in run(*wrong, code=2).stderr


def test_append_and_replace(run: Run, db: Connection, path: Path) -> None:
    run("load", path, "--table", "t")
    done = json.loads(run("load", path, "--table", "t", "--append", "--json").stdout)
    assert (done["rows"], done["table"]) == (50, "public.t")
    assert value(db, "select count(*) from t") == 100
    run("load", path, "--table", "t", "--replace")
    assert value(db, "select count(*) from t") == 50


def test_a_url(run: Run, db: Connection, path: Path, site: str) -> None:
    url = f"{site}/sales.csv?token=secret"
    run("load", url, "--table", "t")
    assert value(db, "select count(*) from t") == 50
    (listed,) = json.loads(run("list", "--json").stdout)
    assert listed["source"].startswith(f"{site}/sales.csv")
    assert "secret" not in run("list", "--json").stdout
    assert "csv" in run("inspect", url).stderr
    absent = run("load", f"{site}/absent.csv", "--table", "u", code=1)
    assert "hint: " in absent.stderr
