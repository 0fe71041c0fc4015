"""chunking_lab() with a judged set: a worker, the deterministic model server, the command line."""

from __future__ import annotations

import json
import threading
import time
from typing import Any

import psycopg
import pytest
from pgstack_cli import app as cli
from typer.testing import CliRunner

from pgstack import chunking
from tests.integration.conftest import Models, raises, value
from tests.integration.test_worker import rows, vectorize

Connection = psycopg.Connection[Any]

ANIMALS = ["zebra", "penguin", "bat", "otter", "lynx", "heron", "newt", "moth"]
FILLER = "It is said to be well and of good cheer. " * 6
WAYS = [
    {"method": "recursive", "size": 60},
    {"method": "recursive", "size": 60, "overlap": 30},
    {"method": "none"},
]


@pytest.fixture
def zoo(db: Connection, worker: Any, models: Models) -> Connection:
    """Eight documents of an animal each, queries for all, and documents of none."""
    db.execute("create table animal (id int primary key, code text, body text)")
    db.execute("select pgstack.create_eval_set('zoo')")
    for i, name in enumerate(ANIMALS):
        body = f"{FILLER}The {name} sleeps in winter. {FILLER}"
        db.execute("insert into animal values (%s, 'c' || %s, %s)", (i, i, body))
        db.execute("select pgstack.add_eval_query('zoo', %s, %s)", (name, f"The {name} sleeps in"))
        db.execute("select pgstack.judge('zoo', %s, %s)", (name, str(i)))
    db.execute(
        "insert into animal select i, 'c' || i, 'About number ' || i from generate_series(10, 60) i"
    )
    return db


def lab(db: Connection, **options: Any) -> list[chunking.Way]:
    return chunking.lab(db, "animal", chunking.Lab(WAYS, judged="zoo", **options), column="body")


def test_small_chunks_find_what_is_lost_in_a_long_text(zoo: Connection, models: Models) -> None:
    models.clear()
    small, overlapping, whole = lab(zoo, sample=40)
    assert (small.documents, small.queries) == (40, 8)
    assert small.ndcg == small.recall == 1
    assert small.p_value == 1
    assert whole.ndcg is not None
    assert whole.ndcg_low is not None
    assert whole.ndcg_high is not None
    assert overlapping.ndcg == 1
    assert whole.ndcg_low <= whole.ndcg <= whole.ndcg_high
    stats = models.stats()
    assert set(stats["per_text"].values()) == {1}, "no text is embedded twice"
    assert stats["texts"] <= sum(way.texts or 0 for way in (small, overlapping, whole)) + 8
    assert lab(zoo, sample=40)[2].ndcg == whole.ndcg


def test_the_sample_has_more_than_what_is_looked_for(zoo: Connection) -> None:
    [way, *_] = lab(zoo, sample=10)
    assert (way.documents, way.queries) == (10, 5)
    [way, *_] = lab(zoo, sample=1)
    assert (way.documents, way.queries) == (1, 1)
    [way, *_] = lab(zoo, sample=1000)
    assert (way.documents, way.queries) == (59, 8)


def test_another_column_may_hold_the_judged_ids(zoo: Connection) -> None:
    zoo.execute("update _pgstack.eval_judgment set doc_id = 'c' || doc_id")
    with raises("PS007", "judges relevant", "doc_column"):
        rows(zoo, "select * from pgstack.chunking_lab('animal', 'body', judged => 'zoo')")
    assert lab(zoo, doc_column="code")[0].ndcg == 1


def test_a_model_is_not_asked_for_more_than_allowed(zoo: Connection, models: Models) -> None:
    models.clear()
    with raises("PS007", "more than 50", "max_texts"):
        rows(
            zoo,
            "select from pgstack.chunking_lab('animal', 'body', judged => 'zoo', max_texts => 50)",
        )
    assert models.stats()["texts"] == 0


def test_progress_is_told(zoo: Connection) -> None:
    told: list[tuple[int, int]] = []
    chunking.lab(
        zoo,
        "animal",
        chunking.Lab(WAYS, judged="zoo", sample=60),
        column="body",
        progress=lambda done, total: told.append((done, total)),
    )
    assert told == sorted(told)
    assert told[-1][0] == told[-1][1] > 64


def test_who_stops_it_leaves_nothing(zoo: Connection, db_url: str, models: Models) -> None:
    everything = (
        "select count(*) from pg_class where relname !~ '^pg_toast_' union all "
        "select count(*) from _pgstack.request"
    )
    before = rows(zoo, everything)
    models.misbehave(latency_ms=60_000)
    stopped: list[str] = []

    def run(conn: Connection) -> None:
        try:
            chunking.lab(conn, "animal", chunking.Lab(WAYS, judged="zoo"), column="body")
        except psycopg.errors.QueryCanceled as exc:
            stopped.append(str(exc))

    with psycopg.connect(db_url, autocommit=True) as conn:
        thread = threading.Thread(target=run, args=(conn,))
        thread.start()
        models.await_stats(lambda stats: stats["concurrent"] > 0)
        began = time.monotonic()
        conn.cancel_safe()
        thread.join(timeout=20)
        assert stopped
        assert time.monotonic() - began < 5
    models.await_stats(lambda stats: stats["concurrent"] == 0)
    assert rows(zoo, everything) == before


def test_a_vectorizers_own_way_comes_first(
    zoo: Connection, db_url: str, models_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    vectorize(zoo, "animal", "body", chunk_size=70, chunk_overlap=10, mask_pii=["email"])
    monkeypatch.setenv("PGSTACK_DATABASE_URL", db_url)
    monkeypatch.setenv("OLLAMA_HOST", models_url)

    def run(*args: str, code: int = 0) -> Any:
        done = CliRunner().invoke(cli.app, ["chunking", "lab", *args], prog_name="pgstack")
        assert done.exit_code == code, done.output
        return done

    ways = json.loads(run("animal", "--json").stdout)
    assert (ways[0]["method"], ways[0]["size"], ways[0]["overlap"]) == ("recursive", 70, 10)
    assert ways[0]["options"] == {"mask_pii": ["email"]}
    assert len(ways) == 7
    shown = run("animal", "--method", "recursive:60", "--method", "none", "--judged", "zoo").stdout
    assert shown.splitlines()[0].split()[:3] == ["way", "chunks", "characters"]
    assert shown.splitlines()[1].split()[0] == "recursive:60:0"
    assert "nDCG@10" in shown
    run("animal", "--method", "Wild:1", code=2)
    run("nothing", code=1)
    run("nothing", "--column", "body", code=2)


def test_set_and_show(
    zoo: Connection, db_url: str, models_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGSTACK_DATABASE_URL", db_url)
    monkeypatch.setenv("OLLAMA_HOST", models_url)

    def run(*args: str) -> str:
        done = CliRunner().invoke(cli.app, list(args), prog_name="pgstack")
        assert done.exit_code == 0, done.output
        return done.output

    options = ["--chunking", "character", "--chunk-size", "50", "--chunk-overlap", "0"]
    options += ["--separator", "\\n", "--mask-pii", "email,iban"]
    run("vectorizer", "create", "animal", "body", *options)
    plan = json.loads(
        run("vectorizer", "plan", "animal", "body", "--name", "b", *options, "--json")
    )
    assert plan["problem"] is None
    assert plan["chunks"] == 59
    shown = json.loads(run("vectorizer", "show", "animal", "--json"))["chunking"]
    assert shown == {
        **{"method": "character", "size": 50, "overlap": 0, "separators": ["\n"]},
        **{"is_regex": False, "keep_separator": None, "mask_pii": ["email", "iban"]},
    }
    assert "59 rows are queued" in run("chunking", "set", "animal", "--chunking", "none")
    assert "does so already" in run("chunking", "set", "animal", "--chunking", "none")
    shown_words = run("vectorizer", "show", "animal")
    assert "none: texts are embedded whole" in shown_words
    assert "masked" in shown_words
    assert value(zoo, "select config #>> '{chunking,implementation}' from ai.vectorizer") == "none"
