"""``pgstack audit``: leaks on stdout with their remedies, and exit codes for scripts."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from pgstack_cli import app as cli
from typer.testing import CliRunner

Connection = psycopg.Connection[Any]
Run = Callable[..., Any]


@pytest.fixture
def run(db_url: str) -> Run:
    """Run ``pgstack audit`` on the database of ``db_url``."""

    def invoke(*args: str, code: int = 0) -> Any:
        done = CliRunner().invoke(cli.app, ["audit", *args, "-d", db_url], prog_name="pgstack")
        assert done.exit_code == code, done.output
        return done

    return invoke


@pytest.fixture
def analyst(db: Connection) -> Iterator[str]:
    """A role that was given the chunks of a plain vectorizer, and not its source."""
    role = f"analyst_{uuid.uuid4().hex[:8]}"
    db.execute(f"create role {role}".encode())
    db.execute("create table memo (id integer primary key, body text)")
    db.execute(
        "select ai.create_vectorizer('memo', loading => ai.loading_column('body'), "
        "embedding => ai.embedding_ollama('all-minilm', 384), "
        "destination => ai.destination_table('memo_embedding'))"
    )
    db.execute(f"grant select on memo_embedding_store to {role}".encode())
    yield role
    db.execute(f"drop owned by {role}".encode())
    db.execute(f"drop role {role}".encode())


def test_a_leak_is_shown_with_what_mends_it(run: Run, db: Connection, analyst: str) -> None:
    done = run(analyst, code=1)
    assert done.stdout.startswith("LEAK  public.memo_embedding_store: all chunks")
    assert f"how: select on public.memo_embedding_store is granted to {analyst}" in done.stdout
    assert "ok  " not in done.stdout
    assert done.stderr == "leaks: 1, wide: 0\n"
    remedy = done.stdout.partition("mend: ")[2]
    db.execute(remedy.encode())
    done = run(analyst)
    assert done.stdout == ""
    assert done.stderr == "no leak was found\n"
    assert "ok    public.memo_embedding_store: the chunks" in run(analyst, "--all").stdout


def test_json_holds_everything(run: Run, analyst: str) -> None:
    report = json.loads(run(analyst, "--json", code=1).stdout)
    assert report["ok"] is False
    assert list(report["findings"][0]) == ["severity", "object", "what", "how", "remedy"]
    assert {finding["severity"] for finding in report["findings"]} == {"leak", "ok"}


def test_without_a_name_it_looks_at_who_connects(run: Run) -> None:
    done = run()
    assert "wide  role" in done.stdout
    assert "a superuser reads everything" in done.stdout


def test_an_unknown_role_is_an_error(run: Run) -> None:
    done = run("nobody at all", code=2)
    assert done.stderr.startswith('error: there is no role "nobody at all"\nhint: ')
