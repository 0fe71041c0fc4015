"""explain_search(): each thing it says, in a situation made for it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from psycopg import sql

from pgstack.db import connect
from tests.conftest import Server, need_extension
from tests.integration.explaining import (
    Connection,
    Story,
    call,
    explain,
    ids,
    noted,
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


# ------------------------------------------------------------------------- the story


def test_the_rows_are_those_of_the_search(notes: Connection) -> None:
    for options in (
        {},
        {"mode": "text"},
        {"mode": "vector", "filter": {"kind": 7}},
        {"per": "row"},
    ):
        story = explain(notes, k=5, **options)
        told = [
            json.loads(w.rpartition(" chunk ")[0])["id"] for s, w, *_ in story if s[:4] == "row "
        ]
        assert told == ids(notes, k=5, **options)


def test_it_tells_the_index_it_walked_and_how_hard(notes: Connection) -> None:
    detail, candidates = step(explain(notes, mode="vector", k=30), "run 1", "vector branch")
    assert "along the index" in detail
    assert "index note_hnsw, ef_search 60" in detail
    assert "30 chunks read, 0 of them lost" in detail
    assert candidates == 30


def test_it_tells_whether_the_recall_was_measured(notes: Connection) -> None:
    before, _ = step(explain(notes, mode="vector"), "run 1", "vector branch")
    assert "for a recall of 0.95, assumed" in before
    notes.execute("select * from pgstack.recall('note', sample => 200)")
    options = {"mode": "vector", "target_recall": 0.9}
    after = explain(notes, **options)
    assert "for a recall of 0.9, measured" in step(after, "run 1", "vector branch")[0]
    assert "recall assumed" not in warnings(after)


def test_few_rows_that_match_are_read_directly(notes: Connection) -> None:
    story = explain(notes, mode="vector", filter={"kind": 7})
    assert step(story, "filter", "rows") == ("all of them", 30)
    assert "kind" in step(story, "filter", "SQL")[0]
    detail, candidates = step(story, "run 1", "vector branch")
    assert "they are few" in detail
    assert "30 chunks read" in detail
    assert candidates == 10
    assert warnings(story).keys() == {"no worker"}


def test_many_rows_that_match_are_counted_no_further_than_needed(notes: Connection) -> None:
    story = explain(notes, mode="vector", filter={"kind": {"lt": 90}})
    detail, counted = step(story, "filter", "rows")
    assert "at least" in detail
    assert counted is not None
    assert counted < 2700
    assert "past what does not match" in step(story, "run 1", "vector branch")[0]


def test_what_the_walk_passes_in_vain_is_counted(notes: Connection) -> None:
    story = explain(notes, mode="vector", k=5, filter={"id": {"gt": 10}, "kind": {"lt": 95}})
    detail, candidates = step(story, "run 1", "vector branch")
    read = int(detail.split(" chunks read")[0].rsplit(" ", 1)[1])
    assert candidates == 5
    assert f"{read} chunks read, {read - 5} of them lost to filter or join" in detail
    assert read >= 15


def test_overlap_is_what_both_branches_found(notes: Connection) -> None:
    detail, fused = step(explain(notes, depth=20, k=10), "run 1", "fusion")
    vector = set(ids(notes, mode="vector", k=20))
    text = set(ids(notes, mode="text", k=20))
    assert f"{len(vector & text)} found by both" in detail
    assert fused == len(vector | text)


def test_fusion_tells_what_it_weighs_by(notes: Connection) -> None:
    ranks, _ = step(explain(notes, fusion="rrf", rrf_k=7, vector_weight=0.25), "run 1", "fusion")
    assert "ranks, k 7" in ranks
    assert "vector weighs 0.25" in ranks
    scores, _ = step(explain(notes, fusion="convex"), "run 1", "fusion")
    assert "by what the branches found" in scores
    share = float(scores.split("vector weighs ")[1].split(",")[0])
    rows = {
        given: notes.execute(
            sql.SQL("select id, score from {}").format(
                call("pgstack.search", "zebra", fusion="convex", vector_weight=given)
            )
        ).fetchall()
        for given in (None, share)
    }
    assert [row[0] for row in rows[None]] == [row[0] for row in rows[share]]
    assert [row[1] for row in rows[None]] == pytest.approx(
        [row[1] for row in rows[share]], abs=1e-3
    )


def test_words_are_shown_as_they_are_looked_for(notes: Connection) -> None:
    detail, count = step(explain(notes, "The zebras of number7"), "words")
    assert count == 2
    assert "'zebra'" in detail
    assert "'number7'" in detail
    assert "_pgstack_words_1" in detail


@pytest.mark.parametrize("mode", ["text", "hybrid"])
def test_an_index_of_words_is_told_of(notes: Connection, mode: str) -> None:
    need_extension(notes, "pg_textsearch")
    notes.execute(
        "create index note_words on note_embedding_store using bm25 (chunk) "
        "with (text_config = 'english'); analyze note_embedding_store"
    )
    story = explain(notes, mode=mode, k=5)
    assert "public.note_words" in step(story, "words")[0]
    assert "note_words" in step(story, "run 1", "text branch")[0]
    assert set(ids(notes, mode="text", k=5)) <= set(range(1, 41))


def test_steps_have_times_that_sum_up(notes: Connection) -> None:
    story = explain(notes)
    parts = [
        ms
        for name, what, _, _, ms in story
        if ms is not None
        and (name in {"query", "embedding"} or what in {"statement", "prepare", "afterwards"})
    ]
    assert len(parts) == 5
    whole = next(ms for name, what, _, _, ms in story if (name, what) == ("time", "in all"))
    assert whole == pytest.approx(sum(parts))
    assert all(part >= 0 for part in parts)


def test_a_second_run_is_told_of(notes: Connection) -> None:
    notes.execute(
        "drop index note_hnsw; create index on note_embedding_store "
        "using ivfflat (embedding vector_cosine_ops) with (lists = 50)"
    )
    story = explain(notes, mode="vector", filter={"id": {"gt": 1500}})
    assert "filter too narrow" in warnings(story)
    assert step(story, "run 1", "statement")[1] == 0
    assert step(story, "run 2", "statement")[1] == 10
    assert "ended too early" in step(story, "run 2", "vector branch")[0]


# --------------------------------------------------------------------------- warnings


def test_all_is_well_without_warnings(notes: Connection) -> None:
    for options in ({}, {"filter": {"kind": 7}}, {"mode": "vector"}, {"per": "row"}):
        assert warnings(explain(notes, **options)).keys() == {"no worker"}


SITUATIONS: list[tuple[str, str, dict[str, Any], str]] = [
    # code, what brings it about, arguments, words of the warning
    ("index unused", "set local enable_indexscan = off", {"mode": "vector"}, "note_hnsw"),
    (
        "no vector index",
        "drop index note_hnsw; set local pgstack.index_min_rows = 1000",
        {"mode": "vector"},
        "every vector was compared",
    ),
    (
        "index unfit",
        "drop index note_hnsw; create index on note_embedding_store "
        "using hnsw (embedding vector_l2_ops)",
        {"mode": "vector"},
        "hnsw",
    ),
    ("ef too small", "select", {"depth": 1500}, "1500 candidates"),
    (
        "filter too narrow",
        "select",
        {"mode": "vector", "filter": {"id": {"gt": 2000}}},
        "for 10 that fit",
    ),
    ("recall assumed", "select", {"mode": "vector", "target_recall": 0.99}, "0.99"),
    (
        "recall out of reach",
        "insert into _pgstack.index_recall (index, effort, vectorizer_id, k, recall, recall_low, "
        "recall_p5, p50_ms, p95_ms, queries, sample) "
        "select 'note_hnsw'::regclass, 200, 1, 10, 0.9, 0.9, 0.8, 1, 1, 'chunks', 10",
        {"mode": "vector", "target_recall": 0.99},
        "0.9",
    ),
    ("stop words", "select", {"query": "the of and"}, "english"),
    ("many words", "select", {"query": " ".join(f"word{n}" for n in range(60))}, "50"),
    ("other language", "set local pgstack.text_config = german", {}, "german"),
    ("no words table", "select _pgstack.drop_words(1)", {}, "english"),
    (
        "no words table",
        "select _pgstack.drop_words(1); set local pgstack.text_index = none",
        {},
        "text_index is none",
    ),
    ("paused", "select pgstack.pause_vectorizer('note')", {}, "resume_vectorizer('note')"),
    ("blocked", "select _pgstack.note_problem(1, 'no such column')", {}, "no such column"),
    ("depth small", "select", {"per": "row", "k": 20, "depth": 20}, "20 chunks"),
    ("nothing matches", "select", {"filter": {"kind": 1000}}, "no row"),
    ("few rows", "select", {"mode": "text", "query": "number5"}, "1 rows were found of 10"),
    (
        "failed rows",
        "insert into _pgstack.work (vectorizer_id, digest, key, state, due_at, last_error) "
        "select 1, _pgstack.key_digest(k), k, 'failed', now(), 'too long' "
        "from (select jsonb_build_object('id', 1) as k) as x",
        {},
        "1 rows could not be embedded",
    ),
]


@pytest.mark.parametrize(
    ("code", "situation", "options", "words"),
    SITUATIONS,
    ids=[f"{nr}-{case[0]}" for nr, case in enumerate(SITUATIONS)],
)
def test_a_warning_comes_when_it_should(
    notes: Connection, code: str, situation: str, options: dict[str, Any], words: str
) -> None:
    options = {"query": "zebra", **options}
    before = warnings(explain(notes, "zebra"))
    assert code not in before
    notes.execute(situation)  # type: ignore[arg-type]
    assert words in warnings(explain(notes, **options))[code]


def test_tables_without_statistics(notes: Connection) -> None:
    notes.execute(
        """
        create table fresh (id int primary key, body text);
        select pgstack.create_vectorizer('fresh', 'body', dimensions => 2);
        insert into fresh values (1, 'zebra');
        """
    )
    assert "analyze public.fresh" in warnings(explain(notes, vectorizer="fresh"))["never analyzed"]
    notes.execute("analyze fresh; analyze fresh_embedding_store")
    assert "never analyzed" not in warnings(explain(notes, vectorizer="fresh"))


# -------------------------------------------------------------------------- freshness


def states(story: Story) -> dict[int, str]:
    """Those of the rows found that are not fresh."""
    found = {}
    for name, what, detail, *_ in story:
        for state in ("queued", "in work", "retrying", "failed", "changed"):
            if name.startswith("row ") and state in detail.split("; "):
                found[json.loads(what.rpartition(" chunk ")[0])["id"]] = state
    return found


def test_rows_whose_text_is_newer_are_marked(notes: Connection) -> None:
    assert states(explain(notes)) == {}
    notes.execute("update note set body = 'another' where id in (2, 2000)")
    story = explain(notes, k=5, mode="vector")
    assert states(story) == {2: "queued"}
    detail, rows = step(story, "freshness")
    assert re.fullmatch(r"rows queued in all, the oldest for \d+ s", detail)
    assert rows == 2
    assert '{"id": 2}' in warnings(story)["stale rows"]
    assert "2000" not in warnings(story)["stale rows"]


@pytest.mark.parametrize(
    ("work", "error", "expected"),
    [
        ("leased", None, "in work"),
        ("waiting", "too long", "retrying"),
        ("waiting", None, "queued"),
        ("failed", "too long", "failed"),
    ],
)
def test_what_became_of_a_queued_row(
    notes: Connection, work: str, error: str | None, expected: str
) -> None:
    notes.execute("update note set body = 'another' where id = 2")
    notes.execute(
        "insert into _pgstack.work (vectorizer_id, digest, key, state, due_at, last_error) "
        "select 1, _pgstack.key_digest(k), k, %s, now(), %s "
        "from (select jsonb_build_object('id', 2) as k) as x",
        (work, error),
    )
    assert states(explain(notes, mode="vector")) == {2: expected}


def test_a_change_that_no_trigger_saw(notes: Connection) -> None:
    notes.execute("alter table note disable trigger all; update note set body = 'x' where id = 3")
    story = explain(notes, mode="vector")
    assert states(story) == {3: "changed"}
    assert "refresh_vectorizer('note')" in warnings(story)["changed rows"]
