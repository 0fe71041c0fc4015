"""chunking_lab(): what it measures, of texts whose values are known."""

from __future__ import annotations

import json
from typing import Any

import psycopg
import pytest

Conn = psycopg.Connection[Any]

SENTENCE = "This sentence has fifty characters, count it now. "
LAB = "select {} from pgstack.chunking_lab('doc', 'body', %s)"


def lab(conn: Conn, columns: str, *methods: dict[str, Any], more: str = "") -> list[Any]:
    query = LAB.format(columns).replace("%s)", f"%s{more})")
    return conn.execute(query.encode(), (json.dumps(methods),)).fetchall()


def refused(conn: Conn, sqlstate: str, statement: str) -> str:
    with pytest.raises(psycopg.Error) as caught, conn.transaction():
        conn.execute(statement.encode())
    assert caught.value.sqlstate == sqlstate, str(caught.value)
    assert caught.value.diag.message_hint
    return str(caught.value.diag.message_primary)


@pytest.fixture
def docs(conn: Conn) -> Conn:
    """Three documents of ten sentences of fifty characters."""
    conn.execute("create table doc (id integer primary key, code text, body text)")
    for i in range(3):
        conn.execute("insert into doc values (%s, 'c' || %s, %s)", (i, i, (SENTENCE * 10).strip()))
    return conn


def test_sizes_repetition_and_cut_sentences(docs: Conn) -> None:
    found = lab(
        docs,
        "method, size, overlap, documents, chunks, min_chars, median_chars, p95_chars, max_chars, "
        "round(cut_sentences::numeric, 3)::float8, round(duplication::numeric, 3)::float8",
        {"method": "none"},
        {"size": 101, "separators": [" This"]},
        {"method": "character", "size": 30, "separators": [" "]},
        {"size": 101, "overlap": 60, "separators": [" This"]},
    )
    assert found[0] == ("none", 800, 0, 3, 3, 499, 499, 499, 499, 0, 1)
    assert found[1][:6] == ("recursive", 101, 0, 3, 15, 99)
    assert found[1][8] <= 101
    assert found[1][9:] == (0, 1)
    assert found[2][3] == 3
    assert found[2][8] <= 30
    assert found[2][9] == 1, "every chunk is a part of a sentence"
    assert found[3][9] == 0
    assert 1.5 < found[3][10] < 2


@pytest.mark.parametrize(
    ("text", "border"),
    [
        ("One. |Two", True),
        ("One.| Two", True),
        ("One|. Two", True),
        ("One |two", False),
        ("O|ne", False),
        ("1|.5", False),
        ("1.|5", False),
        ("Over\n\n|the line", True),
        ("over\n|the line", False),
        ("an item\n|- another", True),
        ("an item\n|2. another", True),
        ("a page\f|the next", True),
        ('He said "yes." |She', True),
        ("まる。|つぎ", True),
        ("まる、|つぎ", False),
        ("|One", True),
        ("One|  ", True),
        ("x" * 200 + ". |Two", True),
        ("é" * 200 + " |two", False),
    ],
)
def test_where_a_sentence_ends(conn: Conn, text: str, border: bool) -> None:
    place = text.index("|")
    query = "select _pgstack.lab_is_border(_pgstack.lab_flat(%s), %s)"
    assert conn.execute(query, (text.replace("|", ""), place)).fetchall() == [(border,)]


def test_the_usual_ways_of_cutting(docs: Conn) -> None:
    found = docs.execute("select method, ndcg from pgstack.chunking_lab('doc', 'body')").fetchall()
    assert [method for method, _ in found] == [
        *("recursive", "recursive", "recursive", "sentence", "markdown", "token")
    ]
    assert {ndcg for _, ndcg in found} == {None}


def test_the_sample_is_the_same_each_time(docs: Conn) -> None:
    docs.execute(
        "insert into doc select i, 'c' || i, repeat('x', i) from generate_series(10, 99) i"
    )
    docs.execute("insert into doc values (100, '', null), (101, '', ' ')")

    def sizes(seed: int) -> Any:
        return lab(
            docs, "documents, max_chars, min_chars", {"method": "none"}, more=f", 5, seed => {seed}"
        )

    assert sizes(1)[0][0] == 5
    assert sizes(1) == sizes(1)
    assert len({str(sizes(seed)) for seed in range(5)}) > 1
    assert lab(docs, "documents", {"method": "none"}, more=", 1000") == [(93,)]


def test_options_are_shown(docs: Conn) -> None:
    way = {"method": "character", "separators": ["\\s+"], "is_regex": True, "mask_pii": ["email"]}
    assert lab(docs, "options", way, {"method": "none"}) == [
        ({"separators": ["\\s+"], "is_regex": True, "mask_pii": ["email"]},),
        (None,),
    ]


@pytest.mark.parametrize(
    ("arguments", "sqlstate", "words"),
    [
        ("'doc', 'text'", "PS007", "text"),
        ("'doc', 'body', '{}'", "PS007", "array"),
        ("'doc', 'body', '[]'", "PS007", "array"),
        ("'doc', 'body', '[7]'", "PS007", "7"),
        ("""'doc', 'body', '[{"sise": 7}]'""", "PS007", "sise"),
        ("""'doc', 'body', '[{"size": "big"}]'""", "PS007", "big"),
        ("""'doc', 'body', '[{"size": 9, "overlap": 10}]'""", "PS007", "overlap"),
        ("""'doc', 'body', '[{"method": "guess"}]'""", "PS007", "guess"),
        ("""'doc', 'body', '[{"mask_pii": ["shoe size"]}]'""", "PS007", "shoe"),
        ("'doc', 'body', sample => 0", "PS007", "sample"),
        ("'doc', 'body', judged => 'cats'", "PS017", "cats"),
        ("'doc', 'body', doc_column => 'nr'", "PS007", "nr"),
        ("'doc', 'body', max_texts => null", "PS007", "max_texts"),
        ("'keyless', 'body'", "PS013", "primary key"),
        ("'blank', 'body'", "PS007", "no text"),
    ],
)
def test_what_cannot_be_is_refused(docs: Conn, arguments: str, sqlstate: str, words: str) -> None:
    docs.execute(
        "create table keyless (body text); create table blank (id int primary key, body text)"
    )
    assert words in refused(docs, sqlstate, f"select * from pgstack.chunking_lab({arguments})")


def test_a_table_without_a_key_needs_a_column(docs: Conn) -> None:
    docs.execute("create table keyless as select code, body from doc")
    query = "select documents from pgstack.chunking_lab('keyless', 'body', doc_column => 'code')"
    assert docs.execute(query.encode()).fetchall()[0] == (3,)


def test_who_may_not_read_learns_nothing(docs: Conn) -> None:
    docs.execute("create role lab_visitor; set role lab_visitor")
    refused_with = pytest.raises(psycopg.errors.InsufficientPrivilege)
    with refused_with, docs.transaction():
        docs.execute("select * from pgstack.chunking_lab('doc', 'body')")


def score(conn: Conn, ranked: list[tuple[int, list[float]]], judged: list[tuple[int, int]]) -> Any:
    """nDCG and recall of one query, [1, 0], over chunks with vectors, a text each."""
    return conn.execute(
        "select ndcg[1], recall[1] from _pgstack.lab_score("
        "%s::int[], %s::text[], %s::text[], %s::vector[], array['[1,0]'::vector], %s::int[], "
        "%s::int[], %s::int[])",
        (
            [doc for doc, _ in ranked],
            *[[f"chunk {i}" for i in range(len(ranked))]] * 2,
            [str(vector) for _, vector in ranked],
            [1 for _ in judged],
            [doc for doc, _ in judged],
            [grade for _, grade in judged],
        ),
    ).fetchone()


def test_the_best_chunk_of_a_document_counts(conn: Conn) -> None:
    ranked = [(1, [0.0, 1.0]), (1, [1.0, 0.0]), (2, [0.9, 0.3]), (3, [0.0, 1.0])]
    assert score(conn, ranked, [(1, 1)]) == (1, 1)
    assert score(conn, ranked, [(2, 1)]) == (pytest.approx(0.63093, abs=1e-5), 1)
    ndcg, recall = score(conn, ranked, [(2, 1), (3, 2), (4, 1)])
    # 1 / log2(3) + 2 / log2(4), over 2 + 1 / log2(3) + 1 / log2(4); document 4 has no chunks.
    assert ndcg == pytest.approx((0.63093 + 1) / (2 + 0.63093 + 0.5), abs=1e-5)
    assert recall == pytest.approx(2 / 3)


def test_beyond_the_tenth_document_nothing_counts(conn: Conn) -> None:
    ranked = [(i, [1.0, i / 100]) for i in range(1, 15)]
    assert score(conn, ranked, [(10, 1)])[1] == 1
    assert score(conn, ranked, [(11, 1)]) == (0, 0)
