"""`pgstack search` and `pgstack similar`, and the library below: every option arrives."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from pgstack_cli import app as cli
from typer.testing import CliRunner

from pgstack import search as library
from pgstack.db import connect
from tests.integration.conftest import value

Connection = psycopg.Connection[Any]
Run = Callable[..., Any]
Models = Any  # the class of the fixture `models`
MODEL = "qwen2.5-coder:0.5b"
LONG = "Otters swim in the cold river and eat fish. " * 40
ROWS = [
    ("north", 1, 10, "Otters swim in the cold river."),
    ("north", 2, 20, "Otters swim in a cold river."),
    ("south", 1, 30, LONG),
    ("south", 2, 40, "Bread needs flour, water and salt."),
]


@pytest.fixture(scope="module")
def otters_url(running_url: str) -> Iterator[str]:
    """The shared database with a table of a key of two columns, embedded."""
    with connect(running_url, autocommit=True) as conn:
        conn.execute(
            "create table otter (part text, nr integer, price integer, body text, "
            "primary key (part, nr)); create table lone (id integer primary key, body text)"
        )
        conn.cursor().executemany("insert into otter values (%s, %s, %s, %s)", ROWS)
        conn.execute("insert into lone select price, body from otter")
        for name in ("otter", "lone"):
            create = "select pgstack.create_vectorizer(%s::regclass, 'body', dimensions => 384)"
            conn.execute(create, (name,))
            assert value(conn, "select pgstack.wait_until_fresh(%s)", name)
    yield running_url
    with connect(running_url, autocommit=True) as conn:
        conn.execute(
            "select pgstack.drop_vectorizer('otter', true), pgstack.drop_vectorizer('lone', true); "
            "drop table otter, lone"
        )


@pytest.fixture
def run(otters_url: str, served: Connection, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a command on that database; gives its output."""
    assert served
    monkeypatch.setenv("PGSTACK_DATABASE_URL", otters_url)

    def invoke(*args: str, code: int = 0) -> Any:
        done = CliRunner().invoke(cli.app, list(args), prog_name="pgstack")
        assert done.exit_code == code, done.output
        return done

    return invoke


def hits(run: Run, *args: str) -> list[dict[str, Any]]:
    """What a command prints as JSON."""
    return [json.loads(line) for line in run(*args, "--json").stdout.splitlines()]


def keys(found: list[dict[str, Any]]) -> list[tuple[str, int]]:
    return [(hit["id"]["part"], hit["id"]["nr"]) for hit in found]


def test_a_hit_tells_which_branch_found_it(run: Run) -> None:
    found = hits(run, "search", "otter", "otters in a cold river", "-k", "20")
    bread = next(hit for hit in found if hit["id"] == {"part": "south", "nr": 2})
    assert bread["vector_rank"] > 1
    assert bread["text_rank"] is None
    assert bread["text_score"] is None
    assert bread["more"] is None
    assert found[0]["text_rank"] >= 1
    text = run("search", "otter", "otters in a cold river", "-k", "20").stdout
    assert f"vector {found[0]['vector_rank']}, text {found[0]['text_rank']})" in text
    assert f": vector {bread['vector_rank']})" in text


def test_per_row_lists_the_other_chunks(run: Run) -> None:
    found = hits(run, "search", "otter", "otters fish", "--per", "row", "-k", "4")
    assert len(set(keys(found))) == len(found)
    more = next(hit["more"] for hit in found if hit["id"] == {"part": "south", "nr": 1})
    assert len(more) > 1
    assert set(more[0]) == {"chunk_seq", "score", "start_char", "end_char"}
    text = run("search", "otter", "otters fish", "--per", "row").stdout
    assert f"and {len(more)} more chunks of it" in text


def test_a_filter_of_conditions(run: Run) -> None:
    found = hits(run, "search", "otter", "otters", "--filter", '{"price": {"lt": 15}}')
    assert keys(found) == [("north", 1)]


def test_options_reach_the_database(run: Run) -> None:
    ranked = hits(
        run, "search", "otter", "cold river", "--fusion", "rrf", "--rrf-k", "0", "-k", "1"
    )
    assert 1 / 2 <= ranked[0]["score"] <= 2
    alone = hits(run, "search", "otter", "cold river", "--vector-weight", "1", "-k", "50")
    assert [hit["vector_rank"] for hit in alone[:3]] == [1, 2, 3]
    assert hits(run, "search", "otter", "otters", "--depth", "1", "-k", "1", "--target-recall", "1")
    plain = keys(hits(run, "search", "otter", "otters swim cold", "--mode", "vector", "-k", "2"))
    assert plain == [("north", 1), ("north", 2)] or plain == [("north", 2), ("north", 1)]
    varied = hits(
        run, "search", "otter", "otters swim cold", "--mode", "vector", "-k", "2",
        "--diversity", "0.8",
    )  # fmt: skip
    assert keys(varied)[1] not in plain


def test_a_model_reranks(run: Run, models: Models) -> None:
    plain = hits(run, "search", "otter", "otters", "--mode", "vector", "-k", "3")
    models.misbehave(says="[3]")
    found = hits(run, "search", "otter", "otters", "--mode", "vector", "-k", "3", "--rerank", MODEL)
    assert [hit["vector_rank"] for hit in found] == [3, 1, 2]
    assert [hit["vector_rank"] for hit in plain] == [1, 2, 3]


@pytest.mark.parametrize(
    "args",
    [
        ["--per", "page"], ["--fusion", "sum"], ["--vector-weight", "2"], ["--rrf-k", "-1"],
        ["--depth", "0"], ["--diversity", "1.5"], ["--target-recall", "95"],
    ],
)  # fmt: skip
def test_wrong_options_end_with_2(run: Run, args: list[str]) -> None:
    assert args[0] in run("search", "otter", "x", *args, code=2).stderr


def test_similar_takes_any_key(run: Run) -> None:
    assert keys(hits(run, "similar", "otter", '{"part": "north", "nr": 1}', "-k", "1")) == [
        ("north", 2)
    ]
    found = hits(run, "similar", "lone", "10", "-k", "2")
    assert [hit["id"]["id"] for hit in found] == [20, 30]
    assert len(found[1]["more"]) > 0
    by_chunk = hits(run, "similar", "lone", "10", "-k", "3", "--per", "chunk")
    assert [hit["id"]["id"] for hit in by_chunk] == [20, 30, 30]
    filtered = hits(run, "similar", "lone", "10", "--filter", '{"id": {"gt": 35}}')
    assert [hit["id"]["id"] for hit in filtered] == [40]
    assert "1. id=20, characters 0-" in run("similar", "lone", '{"id": 10}').stdout


def test_similar_tells_what_is_wrong(run: Run) -> None:
    assert "no row" in run("similar", "lone", "99", code=2).stderr
    assert "part, nr" in run("similar", "otter", "north", code=2).stderr
    assert "hint" in run("similar", "nothing", "1", code=1).stderr


def test_the_library_takes_keys_of_python(otters_url: str) -> None:
    with connect(otters_url) as conn:
        for key in (10, "10", {"id": 10}):
            found = library.similar(conn, "lone", key, k=1)
            assert [hit.id for hit in found] == [{"id": 20}]
        found = library.similar(conn, "otter", {"part": "north", "nr": 2}, k=1)
        assert found[0].id == {"part": "north", "nr": 1}
        again = library.similar(conn, "otter", found[0].id, k=1)
        assert again[0].id == {"part": "north", "nr": 2}


@pytest.mark.parametrize("name", ["search", "similar"])
def test_the_defaults_are_those_of_sql(otters_url: str, name: str) -> None:
    with connect(otters_url) as conn:
        rows = conn.execute(
            "select pg_get_function_arguments(p.oid) from pg_proc as p "
            "where p.pronamespace = 'pgstack'::regnamespace and p.proname = %s limit 1",
            (name,),
        ).fetchall()
    of_sql = {
        word.split()[0]: word.partition(" DEFAULT ")[2].partition("::")[0].strip("'")
        for word in rows[0][0].split(", ")
        if " DEFAULT " in word
    }
    of_sql.pop("embedding", None)
    if name == "search":
        of_python = dict(library.DEFAULTS)
    else:
        parameters = inspect.signature(library.similar).parameters.values()
        of_python = {p.name: p.default for p in parameters if p.default is not p.empty}
    assert {k: "NULL" if v is None else str(v) for k, v in of_python.items()} == of_sql
