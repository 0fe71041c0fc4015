"""`pgstack index`: advice, builds and recall on the command line."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from pgstack_cli import app as cli
from typer.testing import CliRunner

from pgstack import indexes
from tests.integration.indexing import fill, present

Connection = psycopg.Connection[Any]
Run = Callable[..., Any]


@pytest.fixture
def run(db: Connection, db_url: str, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run `pgstack index ...` on a database with a vectorizer of 300 chunks."""
    monkeypatch.setenv("PGSTACK_DATABASE_URL", db_url)
    fill(db, 300)

    def invoke(*args: str, code: int = 0) -> Any:
        done = CliRunner().invoke(cli.app, ["index", *args], prog_name="pgstack")
        assert done.exit_code == code, done.output
        return done

    return invoke


def test_from_advice_to_recall(run: Run, db: Connection, worker: Any) -> None:
    advised = json.loads(run("advice", "docs", "--rows", "50000", "--json").stdout)
    assert [a["recommended"] for a in advised] == [True, False, False, False]
    assert advised[0]["expected_time"] > 0
    assert "take  hnsw" in run("advice", "docs", "--rows", "50000").stdout

    built = json.loads(
        run("build", "docs", "--method", "hnsw", "-p", "m=12", "--wait", "--json").stdout
    )
    assert (built["state"], built["percent"]) == ("done", 100)
    assert "m='12'" in present(db)[0][1]
    (listed,) = json.loads(run("builds", "docs", "--json").stdout)
    assert listed == built
    assert "hnsw" in run("builds").stdout

    measured = json.loads(run("recall", "docs", "--sample", "20", "--json").stdout)
    assert [r["chosen"] for r in measured].count(True) == 1
    assert "take" in run("recall", "docs", "-k", "5", "--sample", "20").stdout


def test_without_waiting_the_build_is_only_asked_for(run: Run, db: Connection) -> None:
    done = run("build", "docs", "--method", "hnsw")
    assert "asked for" in done.stderr
    assert [b.state for b in indexes.builds(db)] == ["requested"]


def test_waiting_without_a_worker_ends_with_3(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(indexes, "PATIENCE_SECONDS", 0.1)
    assert "pgstack worker" in run("build", "docs", "--wait", code=3).stderr


@pytest.mark.parametrize(
    ("args", "code", "words"),
    [
        (("build", "docs", "-p", "m"), 2, "NAME=NUMBER"),
        (("build", "docs", "--method", "hnsw", "-p", "m=1000"), 2, "2 to 100"),
        (("recall", "docs"), 1, "index_advice"),
        (("advice", "nobody"), 1, "no vectorizer"),
        (("builds", "nobody"), 1, "no vectorizer"),
    ],
)
def test_what_is_wrong_is_told(run: Run, args: tuple[str, ...], code: int, words: str) -> None:
    assert words in run(*args, code=code).stderr
