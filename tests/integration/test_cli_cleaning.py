"""``pgstack forget`` and ``pgstack duplicates``."""

from __future__ import annotations

import json
from typing import Any

import psycopg
import pytest
from pgstack_cli.app import app
from typer.testing import CliRunner

from tests.integration.conftest import value
from tests.integration.test_worker import fresh, vectorize

Connection = psycopg.Connection[Any]


@pytest.fixture
def letters(
    db: Connection, db_url: str, worker: Any, monkeypatch: pytest.MonkeyPatch
) -> Connection:
    """Three letters, two of them alike, and a collection with a document."""
    monkeypatch.setenv("PGSTACK_DATABASE_URL", db_url)
    db.execute("create table letter (id int primary key, body text)")
    db.execute("insert into letter values (1, 'The same.'), (2, 'the  same'), (3, 'Another.')")
    vectorize(db, "letter", "body")
    db.execute("select pgstack.create_collection('post', 'all-minilm', dimensions => 384)")
    db.execute("select pgstack.ingest_text('post', 'a.txt', 'Of Qualtinger.')")
    assert fresh(db, "letter")
    assert fresh(db, "post")
    return db


def test_forget_a_row_and_a_document(letters: Connection) -> None:
    run = CliRunner().invoke
    refused = run(app, ["forget", "letter", "--id", '{"id": 3}'], input="n\n")
    assert refused.exit_code == 1
    assert value(letters, "select count(*) from letter") == 3
    done = run(app, ["forget", "letter", "--id", '{"id": 3}'], input="y\n")
    assert done.exit_code == 0, done.output
    assert "public.letter_embedding_store" in done.stdout
    assert "vacuum (analyze) " in done.stderr
    assert value(letters, "select count(*) from letter") == 2
    done = run(app, ["forget", "post", "--uri", "a.txt", "--yes", "--json"])
    document = json.loads(done.stdout)
    assert {"place": "pgstack_collections.post", "rows": 1} in document["places"]
    letters.execute(document["vacuum"])
    traces = "select count(*) from pgstack.find_traces('Qualtinger')"
    assert value(letters, traces) == 0
    assert run(app, ["forget", "letter", "--id", '{"id": 3}', "-y"]).stderr == "nothing was there\n"


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["letter"], 2),
        (["letter", "--id", "{}", "--uri", "x"], 2),
        (["letter", "--id", "7"], 2),
        (["letter", "--id", "{"], 2),
        (["letter", "--id", '{"nr": 7}'], 2),
        (["nobody", "--id", '{"id": 7}'], 1),
        (["post", "--uri", "b.txt"], 2),
    ],
)
def test_refusals(letters: Connection, arguments: list[str], code: int) -> None:
    done = CliRunner().invoke(app, ["forget", *arguments, "--yes"])
    assert done.exit_code == code, done.output


def test_duplicates(letters: Connection) -> None:
    run = CliRunner().invoke
    done = run(app, ["duplicates", "letter"])
    assert done.exit_code == 0, done.output
    assert 'keep {"id": 1}, not {"id": 2}' in done.stdout
    assert "clusters: 1; 1 rows, 9 characters could go" in done.stderr
    report = json.loads(run(app, ["duplicates", "letter", "--keep", "oldest", "--json"]).stdout)
    assert [(c["keep_id"], c["drop_ids"]) for c in report["clusters"]] == [({"id": 1}, [{"id": 2}])]
    assert json.loads(run(app, ["duplicates", "post", "--json"]).stdout) == {"clusters": []}
