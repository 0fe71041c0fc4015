"""Explained searches: who may see what, the statement itself, the query's vector, the command."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from pgstack_cli import app as cli
from psycopg import sql
from typer.testing import CliRunner

from pgstack.db import connect
from tests.conftest import Server
from tests.integration.conftest import Models, raises, value
from tests.integration.explaining import (
    Connection,
    call,
    explain,
    ids,
    noted,
    search_sql,
    step,
    warnings,
)


@pytest.fixture(scope="module")
def notes_url(server: Server, template: str) -> Iterator[str]:
    """A database with the notes, and no worker."""
    with noted(server, template) as dsn:
        yield dsn


@pytest.fixture
def notes(notes_url: str) -> Iterator[Connection]:
    """A connection to the notes whose work is rolled back."""
    with connect(notes_url) as conn, conn.transaction(force_rollback=True):
        yield conn


# ------------------------------------------------------------------------ permissions


@pytest.fixture
def tenant(notes: Connection) -> Connection:
    """The notes as a role that sees those of even kind only."""
    notes.execute(
        """
        create role explain_tenant;
        grant select on note to explain_tenant;
        alter table note enable row level security;
        create policy even on note using (kind % 2 = 0);
        set local role explain_tenant;
        """
    )
    return notes


def without_times(document: dict[str, Any]) -> str:
    """A document as text, without what the clock says."""
    clocks = {"ms", "began", "ended", "planning_ms", "execution_ms", "prepare_ms", "after_ms"}
    clocks |= {"lookup_ms", "total_ms", "lag_s"}

    def bare(part: Any) -> Any:
        if isinstance(part, dict):
            return {key: bare(inner) for key, inner in part.items() if key not in clocks}
        return [bare(inner) for inner in part] if isinstance(part, list) else part

    return json.dumps(bare(document), sort_keys=True)


def document(conn: Connection, query: str = "zebra", **options: Any) -> dict[str, Any]:
    statement = call("_pgstack.search_document", query, **{"k": 5, "depth": 10, **options})
    row = conn.execute(sql.SQL("select {}").format(statement)).fetchone()
    assert row is not None
    return dict(row[0])


@pytest.mark.parametrize("filter_", [None, {"kind": 7}, {"kind": {"lt": 90}}])
def test_hidden_rows_leave_no_trace(tenant: Connection, filter_: dict[str, Any] | None) -> None:
    before = without_times(document(tenant, filter=filter_))
    tenant.execute("reset role")
    tenant.execute(
        "update note set body = body || ' zebra' where kind % 2 = 1 and id between 50 and 400"
    )
    tenant.execute(
        "update note_embedding_store as e set chunk = n.body from note as n where n.id = e.id "
        "and e.chunk <> n.body"
    )
    tenant.execute("set local role explain_tenant")
    assert without_times(document(tenant, filter=filter_)) == before


def test_who_sees_a_part_is_told_so(tenant: Connection) -> None:
    told = document(tenant)
    assert "row security" in {w["code"] for w in told["warnings"]}
    assert all("plan" not in run for run in told["runs"])
    story = explain(tenant)
    assert not any("chunks read" in detail for _, _, detail, *_ in story)
    assert "cannot read the queue" in step(story, "freshness")[0]
    tenant.execute("reset role")
    assert "plan" in document(tenant)["runs"][0]


def test_a_role_without_rights_is_told_what_it_lacks(notes: Connection) -> None:
    notes.execute("create role explain_stranger; set local role explain_stranger")
    with raises("PS014", "may not read"), notes.transaction():
        explain(notes)


def test_errors_are_those_of_search(notes: Connection) -> None:
    for code, options in {
        "PS001": {"vectorizer": "nothing"},
        "PS002": {"embedding": "[1,2,3]"},
        "PS007": {"k": 0},
    }.items():
        for function in ("pgstack.explain_search", "pgstack.search_sql"):
            statement = sql.SQL("select * from {}").format(call(function, "zebra", **options))
            with raises(code), notes.transaction():
                notes.execute(statement)


# ------------------------------------------------------------------------- search_sql


def test_all_take_the_arguments_of_search(notes: Connection) -> None:
    rows = notes.execute(
        """
        select distinct pg_get_function_arguments(p.oid) from pg_proc as p
        where p.proname in ('search', 'explain_search', 'search_sql', 'search_document')
          and p.pronargs = 14
        """
    ).fetchall()
    # What they return stands behind the arguments.
    assert len({row[0].partition(", OUT ")[0] for row in rows}) == 1


@pytest.mark.parametrize("mode", ["vector", "text", "hybrid"])
@pytest.mark.parametrize("per", ["chunk", "row"])
@pytest.mark.parametrize("filter_", [None, {"kind": 7}, {"body": "$1 it's \\ $2"}])
def test_the_statement_finds_what_search_finds(
    notes: Connection, mode: str, per: str, filter_: dict[str, Any] | None
) -> None:
    notes.execute("update note set body = $$zebra \"$1 it's \\ $2$$ where id = 9")
    query = "zebra it's $1 \"$2 \\ number9"
    options = {"mode": mode, "per": per, "filter": filter_}
    found = notes.execute(
        sql.SQL("select * from {}").format(call("pgstack.search", query, **options))
    )
    expected = found.fetchall()
    statement = search_sql(notes, query, **options)
    notes.execute("set local search_path = ''")
    for setting in re.findall("(?m)^-- (set .*;)$", statement):
        notes.execute(setting)
    rows = notes.execute(statement.encode()).fetchall()
    assert [row[:12] for row in rows] == expected


def test_the_statement_is_planned_as_search_plans_it(notes: Connection) -> None:
    text = search_sql(notes, "zebra", mode="vector", k=30)
    assert "-- set hnsw.ef_search = '60';" in text
    assert "$1" not in text
    plan = "\n".join(row[0] for row in notes.execute(f"explain {text}".encode()))
    assert "note_hnsw" in plan


def test_the_statement_is_not_run(notes: Connection) -> None:
    notes.execute(
        "create function boom(int) returns boolean language plpgsql as "
        "$$ begin raise exception 'it ran'; end $$"
    )
    notes.execute("alter table note_embedding_store enable row level security")
    notes.execute("drop policy pgstack_source on note_embedding_store")
    notes.execute("create policy boom on note_embedding_store using (boom(id))")
    notes.execute("create role explain_reader; grant select on note to explain_reader")
    notes.execute("grant select on note_embedding_store to explain_reader")
    notes.execute("set local role explain_reader")
    assert "note_embedding_store" in search_sql(notes, "x", mode="vector")
    with pytest.raises(psycopg.Error, match="it ran"), notes.transaction():
        ids(notes, "x", mode="vector")


# -------------------------------------------------------------------------- embedding


@pytest.fixture
def poem(served: Connection) -> Iterator[Connection]:
    """A small table, embedded, in the database with a worker."""
    served.execute(
        "create table poem (id int primary key, body text); insert into poem values (1, 'a rose')"
    )
    served.execute("select pgstack.create_vectorizer('poem', 'body', dimensions => 384)")
    assert value(served, "select pgstack.wait_until_fresh('poem')")
    yield served
    served.execute("select pgstack.drop_vectorizer('poem', true); drop table poem")


def embedding(conn: Connection, query: str) -> str:
    return step(explain(conn, query, vectorizer="poem", embedding=None), "embedding")[0]


def test_it_tells_where_the_vector_came_from(
    poem: Connection, served_url: str, models: Models
) -> None:
    question = "what is a rose to explain"
    assert embedding(poem, question) == "the model was asked"
    assert "query cache" in embedding(poem, question)
    with connect(served_url, autocommit=True) as other:
        assert "query cache" in embedding(other, question)
    assert models.asked(question) == 1
    with poem.transaction():
        poem.execute("set local pgstack.query_cache = 'off'")
        assert embedding(poem, question) == "the model was asked"
        assert embedding(poem, question) == "from the memory of this session"
    given = step(
        explain(poem, question, vectorizer="poem", embedding="[" + "1," * 383 + "1]"), "embedding"
    )
    assert given[0] == "passed by the caller"


def test_a_model_that_does_not_answer_is_told_of(poem: Connection, models: Models) -> None:
    models.misbehave(fail_next=-1)
    story = explain(poem, "a question that fails", vectorizer="poem", embedding=None)
    assert step(story, "embedding")[0] == "the model did not answer"
    assert "PS005" in warnings(story)["search fails"]
    assert not any(name.startswith("run") for name, *_ in story)


def test_fresh_rows_and_a_worker_need_no_warning(poem: Connection) -> None:
    poem.execute("analyze poem; analyze poem_embedding_store")
    story = explain(poem, "rose", k=1, vectorizer="poem", embedding=None)
    assert warnings(story) == {}
    assert step(story, "freshness", "fresh")[1] == 0


# ------------------------------------------------------------------------ the command


def test_the_command_tells_or_writes(notes_url: str) -> None:
    command = ["search", "note", "zebra", "-k", "3", "--mode", "text", "--explain", "-d", notes_url]
    told = CliRunner().invoke(cli.app, command)
    assert told.exit_code == 0, told.output
    assert "in the table ai._pgstack_words_1" in told.stdout
    assert "warning: no worker: " in told.stdout
    written = json.loads(CliRunner().invoke(cli.app, [*command, "--json"]).stdout)
    assert [hit["rank"] for hit in written["hits"]] == [1, 2, 3]
    assert written["runs"][0]["plan"][0]["Plan"]["Actual Rows"] == 3
