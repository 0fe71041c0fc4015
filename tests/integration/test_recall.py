"""What an index finds of what there is, how hard searches try for it, and who may ask.

Real PostgreSQL, a real worker process.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from pgstack import indexes
from pgstack.db import connect
from tests.conftest import need_extension
from tests.integration.conftest import raises, value
from tests.integration.indexing import HNSW, await_build, build, fill

Connection = psycopg.Connection[Any]


@pytest.mark.parametrize("method", ["hnsw", "diskann"])
def test_recall_compares_with_exact_answers(db: Connection, worker: Any, method: str) -> None:
    if method == "diskann":
        need_extension(db, "vectorscale")
    fill(db, 2000)
    await_build(db, build(db, method=method))
    found = indexes.recall(db, "docs", sample=30)
    assert [r.effort for r in found] == sorted(r.effort for r in found)
    assert found[-1].recall >= 0.95
    assert sum(r.chosen for r in found) == 1
    assert {(r.queries, r.sampled) for r in found} == {("chunks", 30)}
    chosen = next(r for r in found if r.chosen)
    assert value(
        db, "select _pgstack.search_effort(_pgstack.vectorizer_plan('docs'), 10, null)"
    ) == max(20, chosen.effort)


def test_a_poor_index_is_seen_and_searches_try_harder(db: Connection, worker: Any) -> None:
    fill(db, 3000, 64)
    await_build(db, build(db, **HNSW, parameters={"m": 2, "ef_construction": 4}))
    found = indexes.recall(db, "docs", sample=40, target=0.95)
    assert found[0].recall < 0.95
    assert found[0].recall_p5 <= found[0].recall
    assert found[-1].recall > found[0].recall
    effort = value(db, "select _pgstack.search_effort(_pgstack.vectorizer_plan('docs'), 10, 0.95)")
    assert effort > found[0].effort
    await_build(db, build(db, **HNSW))  # a new index is not judged by what the old one found
    assert (
        value(db, "select _pgstack.search_effort(_pgstack.vectorizer_plan('docs'), 10, 0.95)") == 40
    )


def test_recall_asks_with_the_roles_own_questions(db: Connection, worker: Any) -> None:
    fill(db, 500, 384)
    await_build(db, build(db, **HNSW))
    db.execute("select pgstack.embed('question ' || i) from generate_series(1, 25) as i")
    found = indexes.recall(db, "docs")
    assert {(r.queries, r.sampled) for r in found} == {("questions", 25)}


def test_recall_without_an_index_says_so(db: Connection) -> None:
    fill(db, 20)
    with raises("PS013", "no index", "index_advice"):
        db.execute("select * from pgstack.recall('docs')")


# ---------------------------------------------------------------------------------- rights


@pytest.fixture
def reader(db: Connection, db_url: str) -> Iterator[Connection]:
    """A connection as a role that may read the source, and nothing else."""
    db.execute("create role index_reader login")
    with connect(make_conninfo(db_url, user="index_reader"), autocommit=True) as conn:
        yield conn
    db.execute("drop owned by index_reader; drop role index_reader")


def test_a_reader_is_advised_and_measures_but_changes_nothing(
    db: Connection, worker: Any, reader: Connection
) -> None:
    fill(db, 300)
    await_build(db, build(db, **HNSW))
    with raises("PS014", "may not read"):
        reader.execute("select * from pgstack.recall('docs')")
    db.execute("grant select on docs to index_reader")
    with raises("PS014"):
        build(reader, **HNSW)
    assert any(a.recommended for a in indexes.advice(reader, "docs"))
    assert indexes.recall(reader, "docs", sample=20)[-1].recall > 0.9
    assert value(db, "select count(*) from _pgstack.index_recall") == 0
    assert indexes.builds(reader)[0].state == "done"


def test_recall_counts_only_what_a_reader_may_see(
    db: Connection, worker: Any, reader: Connection
) -> None:
    fill(db, 300)
    db.execute(
        "alter table docs enable row level security;"
        "create policy few on docs for select to index_reader using (id <= 50);"
        "grant select on docs to index_reader"
    )
    await_build(db, build(db, **HNSW))
    found = indexes.recall(reader, "docs", sample=100, k=5)
    assert found[0].sampled == 50


@pytest.mark.parametrize("method", ["hnsw", "diskann"])
def test_measuring_leaves_the_sessions_settings_alone(
    db: Connection, worker: Any, method: str
) -> None:
    if method == "diskann":
        need_extension(db, "vectorscale")
    fill(db, 200)
    await_build(db, build(db, method=method))
    setting = {"hnsw": "hnsw.ef_search", "diskann": "diskann.query_rescore"}[method]
    with db.transaction():
        db.execute(f"set local {setting} = 77".encode())
        indexes.recall(db, "docs", sample=5)
        assert value(db, "select current_setting(%s)", setting) == "77"
        assert value(db, "show enable_seqscan") == "on"
