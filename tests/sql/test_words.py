"""Search by words: languages, BM25, and the table of words that follows the chunks."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Callable
from typing import Any

import psycopg
import pytest

from tests.conftest import need_extension

Conn = psycopg.Connection[Any]
Drain = Callable[[], int]


@pytest.fixture
def make(conn: Conn, drain: Drain) -> Callable[..., int]:
    """Make the table `doc` of some texts, embedded; returns the vectorizer's id."""

    def make(texts: list[str], options: str = "") -> int:
        conn.execute("create table doc (id int primary key, body text)")
        with conn.cursor() as cursor:
            cursor.executemany("insert into doc values (%s, %s)", list(enumerate(texts)))
        row = conn.execute(
            f"select pgstack.create_vectorizer('doc', 'body', dimensions => 3{options})".encode()
        ).fetchone()
        drain()
        assert row is not None
        return int(row[0])

    return make


def build(conn: Conn, id: int) -> None:
    conn.execute("select _pgstack.build_words(%s)", (id,))


def kept(conn: Conn, id: int) -> list[tuple[Any, ...]]:
    """The rows of the table of words in use."""
    table = conn.execute("select _pgstack.words_table(%s)", (id,)).fetchone()
    assert table is not None
    query = f"select key_1, chunk_seq, words::text, size from {table[0]} order by 1, 2"
    return conn.execute(query.encode()).fetchall()


def found(conn: Conn, query: str, k: int = 1000) -> list[tuple[int, float]]:
    """The rows that search by words finds, with their scores."""
    rows = conn.execute(
        "select (id ->> 'id')::int, score from pgstack.search('doc', %s, %s, 'text') order by rank",
        (query, k),
    )
    return [(row[0], row[1]) for row in rows]


def bm25(texts: list[list[str]], query: list[str]) -> dict[int, float]:
    """BM25 with k1 1.2 and b 0.75, over the texts that hold a word of the query."""
    holding = {n: Counter(t) for n, t in enumerate(texts) if set(t) & set(query)}
    mean = sum(c.total() for c in holding.values()) / len(holding)
    scores = dict.fromkeys(holding, 0.0)
    for word in set(query):
        df = sum(1 for counts in holding.values() if word in counts)
        weight = math.log(1 + (len(texts) - df + 0.5) / (df + 0.5))
        for n, counts in holding.items():
            tf = counts[word]
            norm = 1.2 * (0.25 + 0.75 * counts.total() / mean)
            scores[n] += weight * 2.2 * tf / (tf + norm)
    return scores


@pytest.mark.parametrize("built", [False, True], ids=["read", "built"])
def test_scores_are_bm25(conn: Conn, make: Callable[..., int], built: bool) -> None:
    rng = random.Random(7)
    names = [f"w{n}x" for n in range(40)]
    texts = [rng.choices(names, weights=range(1, 41), k=rng.randint(1, 60)) for _ in range(200)]
    texts[3] = ["w7x"] * 200 + ["w8x"]
    id = make([" ".join(text) for text in texts], ", chunking => 'none', text_config => 'simple'")
    conn.execute("analyze doc_embedding_store")
    if built:
        build(conn, id)
    query = ["w7x", "w1x", "w39x", "absent"]
    expected = bm25(texts, query)
    rows = found(conn, " ".join(query))
    assert dict(rows) == pytest.approx(expected, rel=1e-6)
    scores = [score for _, score in rows]
    assert scores == sorted(scores, reverse=True)


def test_the_table_of_words_changes_no_answer(conn: Conn, make: Callable[..., int]) -> None:
    texts = [f"apple number {n % 7} and pear {n % 11}" * (1 + n % 5) for n in range(60)]
    id = make(texts)
    conn.execute("analyze doc_embedding_store")
    queries = ["apples", "pear 3", "number", "nothing here"]
    before = [found(conn, query) for query in queries]
    build(conn, id)
    assert [found(conn, query) for query in queries] == before


def test_words_follow_their_chunks(conn: Conn, make: Callable[..., int], drain: Drain) -> None:
    id = make([f"text of row {n} " * 80 for n in range(10)])
    build(conn, id)
    conn.execute("update doc set body = 'short and new' where id = 1")
    conn.execute("update doc set body = body || ' with an end' where id = 2")
    conn.execute("update doc set id = 100 where id = 3")
    conn.execute("delete from doc where id = 4")
    conn.execute("insert into doc values (5000, 'newcomer')")
    drain()
    before = kept(conn, id)
    build(conn, id)
    assert before == kept(conn, id)
    assert found(conn, "newcomer")[0][0] == 5000
    conn.execute("truncate doc")
    drain()
    assert kept(conn, id) == []


def test_a_deleted_row_is_not_found_before_the_worker_comes(
    conn: Conn, make: Callable[..., int]
) -> None:
    id = make(["zebra"] * 40)
    build(conn, id)
    conn.execute("delete from doc where id < 39")
    assert found(conn, "zebra", 1) == [(39, pytest.approx(found(conn, "zebra", 1)[0][1]))]


@pytest.mark.parametrize("destination", ["table", "column"])
def test_a_title_is_searched_with_each_chunk(conn: Conn, drain: Drain, destination: str) -> None:
    option = {"table": "", "column": ", embedding_column => 'embedding'"}[destination]
    conn.execute("create table doc (id int primary key, title text, body text)")
    conn.execute("insert into doc values (1, 'Bread', 'Bake it'), (2, null, 'Bread pudding')")
    conn.execute(
        "select pgstack.create_vectorizer('doc', array['title', 'body'], dimensions => 3"
        f"{option})".encode()
    )
    drain()
    assert {n for n, _ in found(conn, "bread")} == {1, 2}
    if destination == "table":
        conn.execute("select _pgstack.build_words(id) from ai.vectorizer where name = 'doc'")
        assert {n for n, _ in found(conn, "bread")} == {1, 2}
    conn.execute("update doc set title = 'Cake' where id = 1")
    drain()
    assert [n for n, _ in found(conn, "cake")] == [1]
    assert [n for n, _ in found(conn, "bread")] == [2]


def test_each_vectorizer_has_its_language(conn: Conn, make: Callable[..., int]) -> None:
    id = make(["Viele Häuser am See", "Ein Boot"], ", text_config => 'german'")
    assert [n for n, _ in found(conn, "Haus")] == [0]
    build(conn, id)
    assert [n for n, _ in found(conn, "Haus")] == [0]
    conn.execute("select pgstack.set_text_config('doc', 'english')")
    assert found(conn, "Haus") == []
    conn.execute("set local pgstack.text_config = 'german'")
    assert [n for n, _ in found(conn, "Haus")] == [0]


def test_an_unknown_language_is_refused(conn: Conn, make: Callable[..., int]) -> None:
    with pytest.raises(psycopg.Error, match="klingon") as caught:
        make(["a"], ", text_config => 'klingon'")
    assert caught.value.sqlstate == "PS007"
    assert "pg_ts_config" in str(caught.value.diag.message_hint)


@pytest.mark.parametrize(
    ("texts", "query", "best"),
    [
        (["我喜欢吃苹果", "他在北京大学读书", "今天天气很好"], "北京的大学", 1),
        (["東京タワーは高い", "京都の寺", "大阪城"], "東京", 0),
        (["แมวกินปลา", "หมาวิ่งเร็ว"], "แมว", 0),
        (["서울에서 만나요", "부산 바다"], "서울", 0),
    ],
    ids=["chinese", "japanese", "thai", "korean"],
)
def test_scripts_without_spaces(
    conn: Conn, make: Callable[..., int], texts: list[str], query: str, best: int
) -> None:
    make(texts)
    assert found(conn, query)[0][0] == best


def test_segments_are_overlapping_pairs(conn: Conn) -> None:
    row = conn.execute("select _pgstack.segment('see 北京大 now'), _pgstack.segment('plain')")
    segmented, plain = row.fetchone() or ("", "")
    assert segmented.split() == ["see", "北", "北京", "京大", "大", "now"]
    assert plain == "plain"


def test_a_huge_chunk_is_cut_for_words_and_nothing_fails(
    conn: Conn, make: Callable[..., int]
) -> None:
    body = " ".join(f"unusual{n}" for n in range(150_000))
    id = make([body], ", chunking => 'none'")
    build(conn, id)
    assert [n for n, _ in found(conn, "unusual1")] == [0]


def test_a_long_question_is_searched_by_its_longest_words(
    conn: Conn, make: Callable[..., int]
) -> None:
    make(["a supercalifragilistic day", "aa bb"])
    question = " ".join(f"x{n}" for n in range(500)) + " supercalifragilistic"
    assert [n for n, _ in found(conn, question)] == [0]


def test_only_readers_of_the_source_read_words(conn: Conn, make: Callable[..., int]) -> None:
    id = make(["secret one", "open two"])
    build(conn, id)
    conn.execute(
        """
        create role reader; create role stranger; grant reader, stranger to current_user;
        grant select on doc to reader; alter table doc enable row level security;
        create policy p on doc using (body like 'open%'); set local role reader
        """
    )
    table = f"select count(*) from ai._pgstack_words_{id}".encode()
    assert conn.execute(table).fetchone() == (1,)
    assert [n for n, _ in found(conn, "secret two")] == [1]
    conn.execute("set local role stranger")
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        conn.execute(table)


def tables(conn: Conn) -> list[str]:
    rows = conn.execute("select relation::text from _pgstack.words_tables() order by 1")
    return [row[0] for row in rows]


def test_words_go_with_their_vectorizer(conn: Conn, make: Callable[..., int]) -> None:
    id = make(["a text"])
    build(conn, id)
    build(conn, id)
    assert tables(conn) == [f"ai._pgstack_words_{id}", f"ai._pgstack_words_{id}_1"]
    conn.execute("select pgstack.drop_vectorizer('doc', false)")
    assert tables(conn) == []
    conn.execute("delete from doc_embedding_store")


def test_words_of_a_vectorizer_dropped_by_pgai_are_swept(
    conn: Conn, make: Callable[..., int]
) -> None:
    id = make(["a text"])
    build(conn, id)
    build(conn, id)
    conn.execute("select ai.drop_vectorizer(%s, drop_all => true)", (id,))
    conn.execute("select _pgstack.prepare_vectorizers()")
    assert tables(conn) == []


def due(conn: Conn) -> str | None:
    plan = "_pgstack.vectorizer_plan('doc')"
    row = conn.execute(f"select _pgstack.text_index_due({plan})".encode()).fetchone()
    assert row is not None
    return row[0]  # type: ignore[no-any-return]


def test_words_are_built_once_there_are_enough_chunks(
    conn: Conn, make: Callable[..., int], drain: Drain
) -> None:
    id = make(["a text"])
    conn.execute("set local pgstack.text_index_min_rows = '3'")
    assert due(conn) is None
    conn.execute("insert into doc values (10, 'b'), (11, 'c')")
    drain()
    assert due(conn) == f"select _pgstack.build_words({id})"
    build(conn, id)
    assert due(conn) is None
    conn.execute("select pgstack.set_text_config('doc', 'german')")
    assert due(conn) is not None
    conn.execute("set local pgstack.text_index = 'none'")
    assert due(conn) is None


def test_pg_textsearch_serves_where_it_is_asked_for(conn: Conn, make: Callable[..., int]) -> None:
    need_extension(conn, "pg_textsearch")
    make([f"apple {n}" for n in range(20)] + ["apple pear", "pear pear plum"])
    conn.execute("set local pgstack.text_index = 'bm25'")
    conn.execute("set local pgstack.text_index_min_rows = '3'")
    conn.execute("alter table doc enable row level security")
    assert "build_words" in str(due(conn))
    conn.execute("alter table doc disable row level security")
    statement = due(conn)
    assert statement is not None
    conn.execute(statement.replace("concurrently ", "").encode())
    assert due(conn) is None
    assert [n for n, _ in found(conn, "pear")] == [21, 20]
    assert found(conn, "cherry") == []
    conn.execute("set local pgstack.text_config = 'german'")
    assert {n for n, _ in found(conn, "pear")} == {20, 21}
