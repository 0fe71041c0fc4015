"""The command line on a real database, with a worker and the deterministic model server."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from pgstack_cli import app as cli
from psycopg import sql
from typer.testing import CliRunner

from pgstack.db import connect
from tests.conftest import Server

Connection = psycopg.Connection[Any]
Run = Callable[..., Any]

TABLE = 'We"ird; Täble'
COLUMN = 'Bö dy"'
BODIES = (
    "Otters swim in the cold river.",
    "The \x1b[31mred\x1b[0m fox [bold]jumps[/bold].",
    "Bread needs flour, water and salt.",
)


@pytest.fixture
def run(db_url: str, models_url: str, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a command on the database of ``db_url``."""
    monkeypatch.setenv("PGSTACK_DATABASE_URL", db_url)
    monkeypatch.setenv("OLLAMA_HOST", models_url)

    def invoke(*args: str, code: int = 0, **options: Any) -> Any:
        done = CliRunner().invoke(cli.app, list(args), prog_name="pgstack", **options)
        assert done.exit_code == code, done.output
        return done

    return invoke


@pytest.fixture
def table(db: Connection) -> str:
    """A table with hostile names; returns its name as SQL writes it."""
    name = sql.Identifier(TABLE)
    db.execute(
        sql.SQL("create table {} (id int primary key, {} text)").format(
            name, sql.Identifier(COLUMN)
        )
    )
    for number, body in enumerate(BODIES, start=1):
        db.execute(sql.SQL("insert into {} values (%s, %s)").format(name), (number, body))
    return name.as_string()


@pytest.fixture
def zoo(run: Run, table: str, worker: object) -> str:
    """A vectorizer on that table, with everything embedded; returns its name."""
    run("vectorizer", "create", TABLE, COLUMN, "--name", "zoo")
    with connect(os.environ["PGSTACK_DATABASE_URL"], autocommit=True) as conn:
        assert conn.execute("select pgstack.wait_until_fresh('zoo')").fetchone() == (True,)
    return "zoo"


# ------------------------------------------------------------------------- vectorizers


def test_a_vectorizer_from_beginning_to_end(run: Run, db: Connection, zoo: str) -> None:
    (row,) = json.loads(run("vectorizer", "list", "--json").stdout)
    assert (row["name"], row["state"], row["embedded_rows"]) == ("zoo", "fresh", 3)
    assert row["failed"] == 0

    shown = json.loads(run("vectorizer", "show", "zoo", "--json").stdout)
    assert shown["source"] == 'public."We""ird; Täble"'
    assert json.loads(run("vectorizer", "show", TABLE, "--json").stdout)["id"] == shown["id"]

    run("vectorizer", "pause", "zoo")
    db.execute(sql.SQL("update {} set id = 4 where id = 3").format(sql.Identifier(TABLE)))
    shown = json.loads(run("vectorizer", "show", "zoo", "--json").stdout)
    assert shown["state"] == "paused"
    assert shown["pending"] > 0
    assert shown["lag"] > 0
    run("vectorizer", "resume", "zoo")
    db.execute("select pgstack.wait_until_fresh('zoo')")
    assert "0 failed rows" in run("vectorizer", "retry", "zoo").stderr

    run("vectorizer", "drop", "zoo", "--yes", "--drop-data")
    assert json.loads(run("vectorizer", "list", "--json").stdout) == []
    assert db.execute("select to_regclass('zoo_embedding_store')").fetchone() == (None,)
    assert db.execute(
        sql.SQL("select count(*) from {}").format(sql.Identifier(TABLE))
    ).fetchone() == (3,)


def test_adopting(run: Run, db: Connection, table: str) -> None:
    db.execute(
        "select ai.create_vectorizer(%s::regclass, name => 'zoo', "
        "loading => ai.loading_column(%s), embedding => ai.embedding_ollama('all-minilm', 384))",
        (sql.Identifier(TABLE).as_string(), COLUMN),
    )
    for _ in range(2):
        assert run("vectorizer", "adopt", "zoo").stderr == "zoo is adopted\n"
    adopted = db.execute("select adopted_at is not null from _pgstack.vectorizer").fetchall()
    assert adopted == [(True,)]


def test_dropping_keeps_the_embeddings_unless_told(run: Run, db: Connection, zoo: str) -> None:
    run("vectorizer", "drop", "zoo", "--yes")
    assert db.execute("select count(*) from zoo_embedding_store").fetchone() == (3,)


def test_dropping_asks_and_nobody_answers(run: Run, zoo: str) -> None:
    done = run("vectorizer", "drop", "zoo", code=2)
    assert "hint: say it with --yes" in done.stderr
    assert json.loads(run("vectorizer", "list", "--json").stdout) != []


@pytest.mark.parametrize("verb", ["show", "adopt", "refresh", "pause", "resume", "retry", "drop"])
def test_an_unknown_vectorizer_ends_with_1(run: Run, verb: str) -> None:
    name = "x'; drop table --"
    done = run("vectorizer", verb, name, *(["--yes"] if verb == "drop" else []), code=1)
    assert name in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize("name", ["nowhere", "no.where", 'a"b', "a;b", "", "a.b.c.d"])
def test_an_unknown_table_ends_with_2(run: Run, name: str) -> None:
    for verb in ("create", "plan"):
        done = run("vectorizer", verb, name, "body", code=2)
        assert done.stderr.startswith(f'error: there is no table "{name}"\n')


@pytest.mark.parametrize("written", [TABLE, f"public.{TABLE}", '"We""ird; Täble"'])
def test_a_table_is_found_however_it_is_written(run: Run, table: str, written: str) -> None:
    found = json.loads(run("vectorizer", "plan", written, COLUMN, "--json").stdout)
    assert found["source"] == 'public."We""ird; Täble"'


def test_a_taken_name_ends_with_1(run: Run, zoo: str) -> None:
    done = run("vectorizer", "create", TABLE, COLUMN, "--name", "zoo", code=1)
    assert 'there is a vectorizer "zoo" already' in done.stderr
    assert "hint: " in done.stderr


def test_without_a_worker_create_says_so(run: Run, table: str) -> None:
    done = run("vectorizer", "create", TABLE, COLUMN, code=3)
    assert "no worker" in done.stderr
    assert "hint: " in done.stderr


# -------------------------------------------------------------------------------- plan


def catalogue(db: Connection) -> list[Any]:
    """What a plan may not change: every relation, trigger and function, and pgai's rows."""
    return db.execute(
        "select 'class', oid::text from pg_class union all select 'trigger', oid::text "
        "from pg_trigger union all select 'proc', oid::text from pg_proc "
        "union all select 'vectorizer', id::text from ai.vectorizer order by 1, 2"
    ).fetchall()


def test_a_plan_measures_and_writes_nothing(
    run: Run, db: Connection, table: str, worker: object
) -> None:
    db.execute(
        sql.SQL(
            "insert into {} select n, repeat('some words ', 200) from generate_series(10, 109) n"
        ).format(sql.Identifier(TABLE))
    )
    before = catalogue(db)
    found = json.loads(run("vectorizer", "plan", TABLE, COLUMN, "--json").stdout)
    assert catalogue(db) == before
    assert found["problem"] is None
    assert (found["rows"], found["rows_exact"], found["sampled_rows"]) == (103, True, 103)
    exact = db.execute(
        sql.SQL("select count(*) from {} as t, pgstack.chunk(t.{})").format(
            sql.Identifier(TABLE), sql.Identifier(COLUMN)
        )
    ).fetchone()
    assert exact == (found["chunks"],)
    assert found["dimensions"] == 384
    assert found["chunks_per_second"] > 0
    assert found["seconds"] == pytest.approx(
        found["chunks"] / found["chunks_per_second"], rel=0.05, abs=0.1
    )
    assert set(found) == {
        "name", "source", "columns", "writes_to", "model", "dimensions", "rows", "rows_exact",
        "sampled_rows", "chunks", "bytes", "chunks_per_second", "seconds", "index", "problem",
    }  # fmt: skip


def test_what_a_plan_promises_is_what_create_does(run: Run, table: str, worker: object) -> None:
    planned = json.loads(run("vectorizer", "plan", TABLE, COLUMN, "--json").stdout)
    run("vectorizer", "create", TABLE, COLUMN)
    (made,) = json.loads(run("vectorizer", "list", "--json").stdout)
    for field, column in (("name", "name"), ("source", "source"), ("writes_to", "target"),
                          ("model", "model"), ("dimensions", "dimensions")):  # fmt: skip
        assert made[column] == planned[field], field


def test_a_plan_without_a_worker_knows_no_time(run: Run, table: str) -> None:
    done = run("vectorizer", "plan", TABLE, COLUMN)
    assert "unknown: no worker" in done.stdout
    found = json.loads(run("vectorizer", "plan", TABLE, COLUMN, "--json").stdout)
    assert (found["seconds"], found["dimensions"], found["chunks"]) == (None, None, 3)


@pytest.mark.parametrize(
    ("args", "problem"),
    [
        (["no such column"], 'has no column "no such column"'),
        ([COLUMN, "--chunk-size", "10", "--chunk-overlap", "20"], "overlap"),
        ([COLUMN, "--name", "Bad Name"], "cannot be called"),
    ],
)
def test_a_plan_says_why_create_would_refuse(
    run: Run, table: str, args: list[str], problem: str
) -> None:
    done = CliRunner().invoke(cli.app, ["vectorizer", "plan", TABLE, *args])
    assert done.exit_code in (1, 2)
    assert problem in done.stderr


def test_a_plan_of_an_empty_table(run: Run, db: Connection, worker: object) -> None:
    db.execute("create table empty (id int primary key, body text)")
    found = json.loads(run("vectorizer", "plan", "empty", "body", "--json").stdout)
    assert (found["rows"], found["chunks"], found["bytes"], found["seconds"]) == (0, 0, 0, None)


# ---------------------------------------------------------------------- search and ask


@pytest.mark.parametrize("mode", ["hybrid", "vector", "text"])
def test_search_gives_one_object_a_line(run: Run, zoo: str, mode: str) -> None:
    done = run("search", "zoo", "otters in the river", "--mode", mode, "-k", "2", "--json")
    hits = [json.loads(line) for line in done.stdout.splitlines()]
    assert hits[0]["id"] == {"id": 1}
    assert hits[0]["chunk"] == BODIES[0]
    assert [hit["rank"] for hit in hits] == list(range(1, len(hits) + 1))
    assert set(hits[0]) == {
        "rank", "id", "chunk_seq", "chunk", "score", "start_char", "end_char",
        "vector_rank", "vector_score", "text_rank", "text_score", "more",
    }  # fmt: skip


def test_what_is_found_cannot_command_the_terminal(run: Run, zoo: str) -> None:
    text = run("search", "zoo", "fox jumps", "-k", "1").stdout
    assert "1. id=2, characters 0-" in text
    assert "\\x1b[31mred\\x1b[0m fox [bold]jumps[/bold]" in text
    assert "\x1b" not in text


def test_search_with_a_filter(run: Run, zoo: str) -> None:
    done = run("search", "zoo", "otters", "--filter", '{"id": 3}', "--json")
    assert [json.loads(line)["id"] for line in done.stdout.splitlines()] == [{"id": 3}]
    done = run("search", "zoo", "otters", "--filter", '{"nope": 3}', code=2)
    assert 'the column "nope"' in done.stderr


def test_nothing_found_is_no_failure(run: Run, zoo: str) -> None:
    done = run("search", "zoo", "xylophone", "--mode", "text")
    assert (done.stdout, done.stderr) == ("", "nothing found\n")


ANSWER = {"answer", "citations", "model", "duration"}
CITATION = {"number", "id", "chunk_seq", "chunk", "start_char", "end_char", "score", "cited"} | {
    "title",
    "uri",
    "page",
    "last_page",
    "headings",
}


def test_an_answer_with_its_citations(run: Run, zoo: str) -> None:
    found = json.loads(run("ask", "zoo", "Where do otters swim?", "-k", "2", "--json").stdout)
    assert set(found) == ANSWER
    assert set(found["citations"][0]) == CITATION
    assert found["citations"][0]["id"] == {"id": 1}
    assert found["citations"][0]["cited"] is True
    assert "[1]" in found["answer"]
    assert found["duration"] > 0

    done = run("ask", "zoo", "Where do otters swim?", "-k", "2")
    assert done.stdout.startswith(found["answer"] + "\n")
    assert "Sources:\n  [1] id=1, characters 0-30\n" in done.stdout


def test_a_streamed_answer_is_the_same(run: Run, zoo: str) -> None:
    question = ("ask", "zoo", "Where do otters swim?", "-k", "2", "--json")
    whole = json.loads(run(*question).stdout)
    *pieces, last = map(json.loads, run(*question, "--stream").stdout.splitlines())
    assert len(pieces) > 1
    assert all(set(piece) == {"text"} for piece in pieces)
    assert "".join(piece["text"] for piece in pieces).strip() == last["answer"]
    for found in (whole, last):
        del found["duration"]
    assert last == whole


def test_a_streamed_answer_for_people(run: Run, zoo: str) -> None:
    done = run("ask", "zoo", "Where do otters swim?", "-k", "2", "--stream")
    assert done.stdout.startswith("Otters swim in the cold river. [1]")
    assert "Sources:\n  [1] id=1" in done.stdout


@pytest.mark.parametrize("options", [[], ["--stream"]])
def test_a_missing_model_is_told_with_the_command_that_fetches_it(
    run: Run, zoo: str, options: list[str]
) -> None:
    done = run("ask", "zoo", "Why?", "--model", "nobody:1b", *options, code=1)
    assert "nobody:1b" in done.stderr
    assert "hint: pgstack model pull nobody:1b" in done.stderr


@pytest.mark.parametrize("options", [[], ["--stream"], ["--json"], ["--stream", "--json"]])
def test_nothing_to_answer_from(
    run: Run, db: Connection, worker: object, options: list[str]
) -> None:
    db.execute("create table empty (id int primary key, body text)")
    run("vectorizer", "create", "empty", "body")
    done = run("ask", "empty", "Why?", *options)
    if "--json" in options:
        assert json.loads(done.stdout)["answer"] is None
    else:
        assert "Nothing was found to answer from." in done.stdout


def test_a_database_without_pgstack_names_the_command(
    empty_url: str, models_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGSTACK_DATABASE_URL", empty_url)
    for args in (["search", "a", "b"], ["ask", "a", "b"], ["vectorizer", "list"]):
        done = CliRunner().invoke(cli.app, args)
        assert done.exit_code == 2, done.output
        assert "hint: pgstack install" in done.stderr


# -------------------------------------------------------------------------------- ingest


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "a.md").write_text("# Otters\n\nOtters swim in the cold river.\n")
    (tmp_path / "b\x1b[2J.txt").write_text("Bread needs flour.\n")
    (tmp_path / "c.bin").write_bytes(b"\x00\xff\x00\x01" * 100)
    return tmp_path


def test_ingest_changes_only_what_changed(run: Run, folder: Path, worker: object) -> None:
    args = ("ingest", str(folder), "--collection", "Zoo docs", "--json")
    first = json.loads(run(*args, "--wait").stdout)
    assert (first["collection"], first["inserted"]) == ("Zoo docs", 2)
    assert [Path(item["path"]).name for item in first["failed"]] == ["c.bin"]

    (folder / "a.md").write_text("# Otters\n\nOtters swim in the warm sea.\n")
    (folder / "b\x1b[2J.txt").unlink()
    second = json.loads(run(*args, "--wait", "--prune").stdout)
    counts = [second[name] for name in ("inserted", "updated", "unchanged", "removed")]
    assert counts == [0, 1, 0, 1]
    assert len(second["failed"]) == 1

    done = run("search", "Zoo docs", "otters", "--mode", "vector")
    assert re.match(r"1\. Otters \(id=\d\), Otters, characters 0-", done.stdout)
    assert "warm sea" in done.stdout


def test_ingest_names_what_failed(run: Run, folder: Path, worker: object) -> None:
    done = run("ingest", str(folder), "--collection", "zoo")
    assert done.stdout == ""
    assert "zoo: 2 new, 1 failed in " in done.stderr
    assert "c.bin: " in done.stderr
    assert "\x1b" not in done.stderr


def test_nothing_to_read_ends_with_1(run: Run, tmp_path: Path, worker: object) -> None:
    done = run("ingest", str(tmp_path / "none"), "--collection", "zoo", code=1)
    assert "error: nothing could be read" in done.stderr


def test_waiting_without_a_worker_ends_with_3(run: Run, db: Connection, folder: Path) -> None:
    db.execute("select pgstack.create_collection('zoo', dimensions => 384)")
    done = run("ingest", str(folder), "--collection", "zoo", "--wait", code=3)
    assert re.search(r"no worker is connected, so \d rows of zoo wait", done.stderr)


# ------------------------------------------------------------------ worker and install


def worker_once(url: str, models: str, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pgstack_cli", "worker", "--once", "-d", url, *options],
        env={**os.environ, "OLLAMA_HOST": models},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def queued(db: Connection, table: str) -> None:
    """A vectorizer with rows that wait, made without a worker."""
    db.execute(
        "select pgstack.create_vectorizer(%s, %s::name, name => 'zoo', dimensions => 384)",
        (table, COLUMN),
    )


def test_once_drains_and_ends_with_0(db_url: str, models_url: str, queued: None) -> None:
    done = worker_once(db_url, models_url)
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    assert "embedded 3 rows in 3 chunks" in done.stderr.splitlines()[-1]


def test_once_with_a_blocked_vectorizer_ends_with_1(
    db: Connection, db_url: str, models_url: str, table: str
) -> None:
    db.execute(
        "select pgstack.create_vectorizer("
        "%s, %s::name, name => 'zoo', model => 'nobody', dimensions => 384)",
        (table, COLUMN),
    )
    done = worker_once(db_url, models_url, "--vectorizer", "zoo")
    assert done.returncode == 1, done.stderr
    assert "error: vectorizer zoo: " in done.stderr
    assert "hint: pgstack vectorizer retry zoo" in done.stderr


def test_once_without_a_model_server_ends_with_3(db_url: str, queued: None) -> None:
    done = worker_once(db_url, "http://127.0.0.1:1")
    assert done.returncode == 3, done.stderr
    assert "error: the model server does not answer" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_worker_for_an_unknown_vectorizer_ends_at_once(db_url: str, models_url: str) -> None:
    done = worker_once(db_url, models_url, "--vectorizer", "nope")
    assert done.returncode == 1
    assert 'error: there is no vectorizer "nope"' in done.stderr


@pytest.fixture
def empty_url(server: Server) -> Iterator[str]:
    """The DSN of a database without pgstack, with a hostile name."""
    name = f't "{uuid.uuid4().hex[:8]}" %41&?#'
    with connect(server.dsn(), autocommit=True) as admin:
        admin.execute(sql.SQL("create database {}").format(sql.Identifier(name)))
        yield server.dsn(name)
        admin.execute(sql.SQL("drop database {} with (force)").format(sql.Identifier(name)))


def test_install_prints_its_steps_and_is_safe_to_repeat(empty_url: str) -> None:
    first, second = (CliRunner().invoke(cli.app, ["install", "-d", empty_url]) for _ in range(2))
    assert first.exit_code == second.exit_code == 0, first.output + second.output
    assert first.stdout.split()[:3] == ["extension", "vector", "created"]
    assert second.stdout.split()[:3] == ["extension", "vector", "kept"]
    assert "is ready" in first.stderr


# ------------------------------------------------------------------------------- models


def test_models_are_listed_shown_and_pulled(run: Run) -> None:
    models = json.loads(run("model", "list", "--json").stdout)
    assert "all-minilm" in [model["name"].removesuffix(":latest") for model in models]
    assert "all-minilm" in run("model", "list").stdout
    shown = json.loads(run("model", "show", "all-minilm", "--json").stdout)
    assert "details" in shown
    assert "all-minilm" in run("model", "show", "all-minilm").stdout
    assert "all-minilm is ready" in run("model", "pull", "all-minilm").stderr


@pytest.mark.parametrize("verb", ["show", "pull"])
def test_an_unknown_model_ends_with_1(run: Run, verb: str) -> None:
    done = run("model", verb, "nobody:1b", code=1)
    assert "nobody:1b" in done.stderr
