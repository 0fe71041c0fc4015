"""Evaluation through search itself: files in, runs out, the command line's verdict."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest
from pgstack_cli import app as cli
from typer.testing import CliRunner

from pgstack import evaluation, judged
from pgstack.db import connect
from pgstack.errors import NameTaken, UsageError
from tests.conftest import make_url
from tests.integration.conftest import Models, raises, value

Connection = psycopg.Connection[Any]
Run = Callable[..., Any]

WORDS = ("otter", "bread", "tax", "violin", "glacier", "tomato", "harbour", "beetle")


def write_set(folder: Path, *, docs: int = 24, queries: int = 12) -> Path:
    """Documents of which each has a word of its own; queries for some of them."""
    folder.mkdir(exist_ok=True)
    (folder / "corpus.jsonl").write_text(
        "".join(
            json.dumps(
                {
                    "_id": f"d{i}",
                    "title": f"Title {WORDS[i % 8]}",
                    "text": f"About {WORDS[i % 8]} number{i}, and what {WORDS[i % 8]} is good for.",
                    "metadata": {"half": i % 2},
                }
            )
            + "\n"
            for i in range(docs)
        )
    )
    (folder / "queries.jsonl").write_text(
        "".join(
            json.dumps({"_id": f"q{i}", "text": f"{WORDS[i % 8]} number{i}"}) + "\n"
            for i in range(queries)
        )
        + json.dumps({"_id": "unjudged", "text": "nobody knows"})
        + "\n"
    )
    (folder / "qrels.tsv").write_text(
        "query-id\tcorpus-id\tscore\n"
        + "".join(f"q{i}\td{i}\t2\nq{i}\td{i + 8}\t1\n" for i in range(queries))
    )
    return folder


@pytest.fixture
def beir(tmp_path: Path) -> Path:
    return write_set(tmp_path / "animals")


@pytest.fixture
def run(db_url: str, models_url: str, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a command on the database of ``db_url``."""
    monkeypatch.setenv("PGSTACK_DATABASE_URL", db_url)
    monkeypatch.setenv("OLLAMA_HOST", models_url)

    def invoke(*args: str, code: int = 0) -> Any:
        done = CliRunner().invoke(cli.app, list(args), prog_name="pgstack")
        assert done.exit_code == code, done.output
        return done

    return invoke


@pytest.fixture
def loaded(run: Run, beir: Path, worker: Any) -> str:
    """The set and its corpus, embedded."""
    run("eval", "load", str(beir), "--table", "animals", "--vectorize", "--wait")
    return "animals"


# ----------------------------------------------------------------------------- loading


def test_loading_again_changes_what_changed(db: Connection, beir: Path) -> None:
    to = judged.Destination(table="animals")
    first = judged.load(db, beir, to=to)
    assert (first.set, first.queries, first.judged_queries, first.judgments) == (
        "animals", 13, 12, 24,
    )  # fmt: skip
    assert first.corpus == judged.Corpus("animals", 24, 0, 0, None)
    assert first.missing == 0
    before = dict(db.execute("select id, xmin::text from animals").fetchall())
    db.execute(
        "insert into _pgstack.eval_vector select id, 'q1', 'm', '[1]' from _pgstack.eval_set"
    )
    lines = (beir / "corpus.jsonl").read_text().splitlines(True)
    (beir / "corpus.jsonl").write_text("".join([lines[0].replace("About", "On"), *lines[2:]]))
    again = judged.load(db, beir, to=to)
    assert again.corpus == judged.Corpus("animals", 0, 1, 1, None)
    assert again.missing == 1
    after = dict(db.execute("select id, xmin::text from animals").fetchall())
    assert {id for id in before if before[id] != after.get(id)} == {"d0", "d1"}
    assert value(db, "select count(*) from _pgstack.eval_vector") == 1
    assert value(db, "select count(*) from pgstack.eval_sets") == 1


def test_qrels_may_lie_in_a_folder_or_elsewhere(db: Connection, beir: Path) -> None:
    (beir / "qrels").mkdir()
    (beir / "qrels.tsv").rename(beir / "qrels" / "test.tsv")
    (beir / "dev.tsv").write_text("q1\td1\t1\n")  # no head
    assert judged.load(db, beir).judgments == 24
    assert judged.load(db, beir, "dev", qrels=beir / "dev.tsv").judgments == 1


@pytest.mark.parametrize(
    ("file", "line", "said"),
    [
        ("queries.jsonl", "{", "queries.jsonl, line 14 is no JSON"),
        ("queries.jsonl", '{"_id": "x"}', 'queries.jsonl, line 14 has no text in "text"'),
        ("queries.jsonl", '{"_id": "x", "text": " "}', "queries.jsonl, line 14 has an empty text"),
        ("queries.jsonl", '{"text": "x"}', 'queries.jsonl, line 14 has no "_id"'),
        ("queries.jsonl", '{"_id": "q1", "text": "x"}', 'line 14: the query "q1" was on line 2'),
        ("queries.jsonl", r'{"_id": "x", "text": "\u0000"}', "line 14 has a NUL"),
        ("queries.jsonl", r'{"_id": "x", "text": "\ud800"}', "line 14 has half a surrogate pair"),
        ("qrels.tsv", "q1 d1 1", "qrels.tsv, line 26 does not have the three columns"),
        ("qrels.tsv", "q1\td1\tgood", 'qrels.tsv, line 26 has the score "good"'),
        ("qrels.tsv", "q99\td1\t1", 'qrels.tsv, line 26: there is no query "q99"'),
        ("qrels.tsv", "q1\td1\t0", "qrels.tsv, line 26: the judgment"),
        ("corpus.jsonl", '{"_id": "d1", "text": ""}', 'line 25: the document "d1" was on line 2'),
        ("corpus.jsonl", '{"_id": "y", "text": "", "metadata": 1}', "metadata that is no object"),
        ("corpus.jsonl", "[]", "corpus.jsonl, line 25 is no JSON object"),
    ],
)
def test_a_wrong_line_is_named_and_changes_nothing(
    db: Connection, beir: Path, file: str, line: str, said: str
) -> None:
    with (beir / file).open("a") as out:
        out.write(line + "\n")
    with pytest.raises(UsageError) as caught:
        judged.load(db, beir, to=judged.Destination(table="animals"))
    assert said in str(caught.value)
    assert caught.value.hint
    assert value(db, "select count(*) from pgstack.eval_sets") == 0
    assert value(db, "select to_regclass('animals') is null")


def test_what_others_made_is_not_overwritten(db: Connection, beir: Path) -> None:
    db.execute("create table animals (id text primary key, title text, text text, metadata jsonb)")
    with pytest.raises(NameTaken, match="was not made by"):
        judged.load(db, beir, to=judged.Destination(table="animals"))
    db.execute("select pgstack.create_eval_set('animals')")
    with pytest.raises(NameTaken, match="not loaded from files"):
        judged.load(db, beir)
    with pytest.raises(UsageError, match="no file"):
        judged.load(db, beir.parent)


# ----------------------------------------------------------------------------- running


def test_every_mode_is_scored_and_asks_the_model_once(
    run: Run, loaded: str, db: Connection, models: Models
) -> None:
    models.clear()
    done = run(
        *("eval", "run", "animals", "animals", "--json"),
        *("--mode", "vector", "--mode", "text", "--mode", "hybrid"),
    )
    vector, text, hybrid = json.loads(done.stdout)
    assert [r["mode"] for r in (vector, text, hybrid)] == ["vector", "text", "hybrid"]
    assert [r["state"] for r in (vector, text, hybrid)] == ["finished"] * 3
    found = {m["metric"]: m for m in text["metrics"]}
    # The words of a query are those of its document alone.
    assert found["mrr@10"] | {"value": 1, "low": 1, "high": 1} == found["mrr@10"]
    assert found["recall@100"]["queries"] == 12  # not the one that nobody judged
    assert vector["metrics"] != text["metrics"]
    calls = models.stats()
    assert {text: n for text, n in calls["per_text"].items() if "number" in text} == {
        f"{WORDS[i % 8]} number{i}": 1 for i in range(12)
    }
    assert value(db, "select count(*) from _pgstack.eval_search where found = 24") >= 12
    config = hybrid["config"]
    assert (config["rows"], config["pending"], config["source"]) == (24, 0, "public.animals")
    assert {"postgresql", "pgstack", "vector"} <= config["versions"].keys()
    assert config["chunking"]["chunk_size"] == 800


def test_the_same_from_sql_in_one_statement(loaded: str, db: Connection) -> None:
    rows = db.execute(
        "select metric, value, queries from pgstack.evaluate('animals', 'animals', mode => 'text', "
        "k => 5, options => '{\"diversity\": 0}', label => 'five')"
    ).fetchall()
    assert [metric for metric, *_ in rows] == ["ndcg@5", "mrr@5", "map", "recall@5", "precision@5"]
    assert rows[1] == ("mrr@5", 1, 12)
    row = db.execute("select label, options, k, state from pgstack.eval_runs").fetchone()
    assert row == ("five", {"diversity": 0}, 5, "finished")


def test_a_filter_and_a_column_with_the_judged_ids(loaded: str, db: Connection) -> None:
    db.execute("alter table animals add column half int")
    db.execute("alter table animals add column name text")
    db.execute("update animals set half = (metadata ->> 'half')::int, name = 'the ' || id")
    db.execute("select pgstack.wait_until_fresh('animals')")
    found = {
        (filtered, column): value(
            db,
            "select value from pgstack.evaluate('animals', 'animals', 'text', filter => %s, "
            "doc_column => %s) where metric = 'recall@100'",
            '{"half": 0}' if filtered else None,
            column,
        )
        for filtered, column in ((False, None), (True, None), (False, "id"), (False, "name"))
    }
    assert found[False, None] == found[False, "id"] == 1
    assert found[True, None] == 0.5
    assert found[False, "name"] == 0


def test_several_rows_of_one_document_count_once(loaded: str, db: Connection) -> None:
    """Judged by a column that is no key: the best of the rows stands for the document."""
    db.execute("alter table animals add column doc text")
    db.execute("update animals set doc = 'd' || substr(id, 2)::int / 2 * 2")
    run = value(
        db,
        "select max(run) from pgstack.evaluate('animals', 'animals', 'text', doc_column => 'doc')",
    )
    twice = value(
        db,
        "select count(*) from (select from _pgstack.eval_result where run_id = %s "
        "group by query_id, doc_id having count(*) > 1) as t",
        run,
    )
    gaps = value(
        db,
        "select count(*) from (select rank, row_number() over (partition by query_id order by rank)"
        " as nr from _pgstack.eval_result where run_id = %s) as r where r.rank <> r.nr",
        run,
    )
    assert (twice, gaps) == (0, 0)


def test_a_collection_is_judged_by_its_uris(run: Run, beir: Path, worker: Any) -> None:
    run("eval", "load", str(beir), "--collection", "zoo", "--wait")
    (found,) = json.loads(run("eval", "run", "animals", "zoo", "--mode", "text", "--json").stdout)
    assert found["doc_column"] == "uri"
    assert {m["metric"]: m["value"] for m in found["metrics"]}["mrr@10"] == 1


def test_an_interrupted_run_says_so(loaded: str, db: Connection, run: Run) -> None:
    number = value(
        db,
        "select _pgstack.eval_begin('animals', 'animals', 'text', 10, null, null, '{}', null, 1)",
    )
    assert value(db, "select _pgstack.eval_step(%s, 5)", number) == 5
    shown = run("eval", "show", str(number))
    assert "unfinished" in shown.stdout
    assert "interrupted after 5 of 12 queries" in shown.stderr
    run("eval", "compare", str(number), str(number), code=2)
    run("eval", "drop", "--run", str(number))
    assert value(db, "select count(*) from _pgstack.eval_result") == 0


def test_rows_that_are_not_embedded_yet_are_told(loaded: str, db: Connection) -> None:
    db.execute("select pgstack.pause_vectorizer('animals')")
    db.execute("insert into animals (id, text) values ('new', 'late')")
    notices: list[str] = []
    db.add_notice_handler(lambda notice: notices.append(str(notice.message_primary)))
    plan = evaluation.Plan("animals", "animals", mode="text")
    assert evaluation.evaluate(db, plan).config["pending"] == 1
    assert "1 rows" in notices[0]


def test_what_search_refuses_leaves_no_run(loaded: str, db: Connection) -> None:
    for plan in (
        evaluation.Plan("animals", "animals", mode="magic"),
        evaluation.Plan("animals", "animals", k=0),
        evaluation.Plan("animals", "animals", options={"fusion": "magic"}),
        evaluation.Plan("animals", "animals", options={"query": "x"}),
        evaluation.Plan("animals", "animals", doc_column="nope"),
        evaluation.Plan("animals", "animals", filter={"nope": 1}),
    ):
        with pytest.raises(UsageError):
            evaluation.evaluate(db, plan)
    assert evaluation.runs(db) == []
    db.execute("select pgstack.create_eval_set('empty')")
    with raises("PS007", "no judgements"):
        db.execute("select * from pgstack.evaluate('empty', 'animals')")
    with raises("PS001"):
        db.execute("select * from pgstack.evaluate('animals', 'nothing')")


def test_a_run_finds_what_its_runner_may_see(loaded: str, db: Connection, db_url: str) -> None:
    db.execute("create role eval_reader login")
    try:
        with connect(make_url(db_url, user="eval_reader"), autocommit=True) as reader:
            reader.execute("select pgstack.create_eval_set('mine')")
            reader.execute("select pgstack.add_eval_query('mine', 'q', 'otter number0')")
            reader.execute(
                "select pgstack.judge('mine', 'q', 'd0'), pgstack.judge('mine', 'q', 'd8')"
            )
            evaluate = (
                "select value from pgstack.evaluate('mine', 'animals', 'text') "
                "where metric = 'recall@10'"
            )
            with raises("PS014"):
                reader.execute(evaluate.encode())
            db.execute("alter table animals enable row level security")
            db.execute("create policy others on animals using (id <> 'd0')")
            db.execute("grant select on animals to eval_reader")
            assert value(reader, evaluate) == 0.5  # type: ignore[arg-type]
    finally:
        db.execute("drop owned by eval_reader cascade")
        db.execute("drop role eval_reader")


# -------------------------------------------------------------------- the command line


def test_a_minimum_that_is_missed_fails(run: Run, loaded: str) -> None:
    arguments = ("eval", "run", "animals", "animals", "--mode", "text")
    done = run(*arguments, "--min", "mrr@10=0.99", "--min", "recall@100=1")
    assert "mrr@10" in done.stdout
    assert "1.0000 [1.0000, 1.0000]" in done.stdout
    done = run(*arguments, "--min", "mrr@10=0.99", "--min", "precision@10=0.5", code=1)
    assert "precision@10 is 0.2000, wanted at least 0.5" in done.stderr
    assert "mrr@10 is" not in done.stderr
    run(*arguments, "--min", "ndcg@7=0.5", code=2)
    run(*arguments, "--min", "ndcg", code=2)


def test_comparing_prints_and_draws(run: Run, loaded: str, tmp_path: Path) -> None:
    run("eval", "run", "animals", "animals", "--mode", "text", "--label", "<words> & more")
    filter = ("--filter", '{"title": "Title otter"}')
    run("eval", "run", "animals", "animals", "--mode", "text", *filter)
    picture = tmp_path / "plot.svg"
    shown = run("eval", "compare", "1", "2", "--plot", str(picture), "--metric", "mrr@10")
    assert "<words> & more" in shown.stdout
    assert "Queries that lose most, by mrr@10" in shown.stdout
    drawn = ET.fromstring(picture.read_text())  # well-formed
    texts = [node.text or "" for node in drawn.iter("{http://www.w3.org/2000/svg}text")]
    assert any("<words> & more" in text for text in texts)
    assert {"ndcg@10", "map", "recall@100"} <= set(texts)
    found = json.loads(run("eval", "compare", "1", "2", "--json").stdout)
    assert [s["metric"] for s in found["summary"]][:3] == ["ndcg@10", "mrr@10", "map"]
    assert len(found["queries"]) == 12
    run("eval", "compare", "1", "2", "--plot", str(tmp_path / "no" / "plot.svg"), code=1)


def test_sets_and_runs_are_listed_shown_and_dropped(run: Run, loaded: str) -> None:
    run("eval", "run", "animals", "animals", "--mode", "text", "--option", "rrf_k=20")
    shown = run("eval", "list").stdout
    assert "animals text rrf_k=20" in shown
    (listed,) = json.loads(run("eval", "list", "--json").stdout)["sets"]
    assert (listed["name"], listed["origin"], listed["runs"]) == ("animals", "beir", 1)
    assert "q0: otter number0" in run("eval", "show", "1").stdout
    assert len(json.loads(run("eval", "show", "1", "--json").stdout)["queries"]) == 12
    run("eval", "show", "99", code=1)
    run("eval", "drop", "animals", code=2)  # nobody there to ask
    run("eval", "drop", "animals", "--yes")
    assert "no judged sets yet" in run("eval", "list").stderr
