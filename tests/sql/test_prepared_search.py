"""The prepared search: when it serves, that it gives what the general one gives, when it does not.

How often its function ran is counted by PostgreSQL, within the transaction of the test.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, LiteralString

import psycopg
import pytest
from psycopg import sql

from tests.conftest import need_extension
from tests.integration.conftest import raises
from tests.integration.indexing import fill

Conn = psycopg.Connection[Any]
ROWS = 300
COLUMNS: LiteralString = "rank, id, chunk_seq, chunk, score, start_char, vector_rank, vector_score"


@pytest.fixture
def docs(conn: Conn) -> Conn:
    """Some documents under an HNSW index, their search prepared."""
    return prepared(conn, "hnsw")


def prepared(conn: Conn, method: str, ops: str = "(embedding vector_cosine_ops)") -> Conn:
    fill(conn, ROWS)
    conn.execute(f"create index near on docs_embedding_store using {method} {ops}".encode())
    conn.execute("select _pgstack.prepare_search(id) from ai.vectorizer")
    conn.execute("set local track_functions = 'pl'")
    return conn


def found(conn: Conn, number: int = 1, k: int = 10, **options: Any) -> list[Any]:
    """What a search by the vector of a row finds."""
    named: dict[str, Any] = {"mode": "vector", **options}
    arguments = "".join(f", {name} => %({name})s" for name in named)
    query = (
        f"select {COLUMNS} from pgstack.search('docs', null, {k}{arguments}, embedding =>"
        f" (select embedding from docs_embedding_store where id = {number}))"
    )
    return conn.execute(query.encode(), named).fetchall()


def runs(conn: Conn) -> int:
    """How often a prepared search ran in this transaction."""
    row = conn.execute(
        "select coalesce(sum(calls), 0)::int from pg_stat_xact_user_functions"
        r" where schemaname = '_pgstack' and funcname ~ '^prepared_search_\d+$'"
    ).fetchone()
    assert row is not None
    return int(row[0])


def unprepared(conn: Conn, *args: Any, **options: Any) -> list[Any]:
    """What the general search finds."""
    with conn.transaction(force_rollback=True):
        conn.execute("delete from _pgstack.prepared_search")
        before = runs(conn)
        rows = found(conn, *args, **options)
        assert runs(conn) == before
    return rows


# ---------------------------------------------------------------------------- the same


@pytest.mark.parametrize(
    ("method", "ops"),
    [
        ("hnsw", "(embedding vector_cosine_ops)"),
        ("hnsw", "((embedding::halfvec(32)) halfvec_cosine_ops)"),
        ("diskann", "(embedding vector_cosine_ops)"),
        ("ivfflat", "(embedding vector_cosine_ops) with (lists = 1)"),
    ],
)
def test_it_gives_what_the_general_search_gives(conn: Conn, method: str, ops: str) -> None:
    if method == "diskann":
        need_extension(conn, "vectorscale")
        conn.execute("create extension if not exists vectorscale")
    prepared(conn, method, ops)
    for number in range(1, ROWS, 20):
        for k in (1, 10, 20):
            before = runs(conn)
            rows = found(conn, number, k)
            assert runs(conn) == before + 1
            assert [row[0] for row in rows] == list(range(1, k + 1))
            assert rows == unprepared(conn, number, k)


def test_names_that_try_to_get_out(conn: Conn) -> None:
    """Of table, keys and columns, in the body of a function in the text of a statement."""
    evil = "a$4\"'); $body$ drop table %s; -- \\"
    table, column = sql.Identifier(evil), sql.Identifier(evil + "c")
    conn.execute(
        sql.SQL(
            "create table {table} ({key} int, {column} text, b text, primary key ({key}, b))"
        ).format(table=table, key=sql.Identifier("K %I"), column=column)
    )
    conn.execute(
        "select pgstack.create_vectorizer(quote_ident(%s)::regclass, array[%s]::name[],"
        " dimensions => 3, name => 'odd')",
        (evil, evil + "c"),
    )
    conn.execute("select pgstack.pause_vectorizer(name) from ai.vectorizer")
    conn.execute(sql.SQL("insert into {} values (1, 'x', 'y'), (2, 'x', 'z')").format(table))
    conn.execute(
        """
        insert into odd_embedding_store ("K %I", b, chunk_seq, chunk, embedding)
        values (1, 'y', 0, 'one', '[1,2,3]'), (2, 'z', 0, 'two', '[3,2,1]');
        create index on odd_embedding_store using hnsw (embedding vector_cosine_ops);
        """
    )
    conn.execute("select _pgstack.prepare_search(id) from ai.vectorizer")
    conn.execute("set local track_functions = 'pl'")
    rows = conn.execute(
        "select id, chunk from pgstack.search('odd', null, 2, 'vector', embedding => '[1,2,4]')"
    ).fetchall()
    assert rows == [({"K %I": 1, "b": "y"}, "one"), ({"K %I": 2, "b": "z"}, "two")]
    assert runs(conn) == 1


def test_rows_that_are_gone_are_not_found(docs: Conn) -> None:
    """Their chunks stand there until a worker comes."""
    docs.execute("set local session_replication_role = replica")
    ten = [row[1]["id"] for row in query(docs)]
    docs.execute("delete from docs where id = any (%s)", (ten,))
    rows = query(docs)
    assert len(rows) == 10
    assert not {row[1]["id"] for row in rows} & {*ten}
    assert runs(docs) == 2


def test_it_asks_as_much_of_the_index_as_was_measured(
    docs: Conn, make_role: Callable[[str], str]
) -> None:
    """The effort that pgstack.recall() found for the target; a policy sees what is set."""
    reader = sql.Identifier(make_role("reader"))
    docs.execute(
        sql.SQL(
            """
            insert into _pgstack.index_recall (index, effort, vectorizer_id, k, recall, recall_low,
              recall_p5, p50_ms, p95_ms, queries, sample)
            select 'near'::regclass, x.effort, v.id, 10, x.recall, x.recall, x.recall, 1, 1,
              'chunks', 9
            from ai.vectorizer as v
            cross join (values (20, 0.5), (77, 0.96), (140, 0.995)) as x (effort, recall);
            create sequence asked;
            create function note_effort() returns boolean language plpgsql as $$
            begin
              perform setval('public.asked', current_setting('hnsw.ef_search')::bigint);
              return true;
            end $$;
            create policy noted on docs_embedding_store as restrictive using (note_effort());
            grant select on docs to {0};
            grant all on sequence asked to {0};
            """
        ).format(reader)
    )
    efforts = []
    for target in ("0.4", "0.9", "0.99"):
        docs.execute("reset role")
        docs.execute("select pgstack.configure('target_recall', %s)", (target,))
        docs.execute("select _pgstack.prepare_search(id) from ai.vectorizer")
        docs.execute(sql.SQL("set local role {}").format(reader))
        assert len(query(docs)) == 10
        efforts += docs.execute("select last_value from asked").fetchall()
    assert efforts == [(20,), (77,), (140,)]
    assert runs(docs) == 3
    assert docs.execute("select current_setting('hnsw.ef_search')").fetchone() == ("40",)
    docs.execute("set local pgstack.target_recall = 0.9")
    assert len(query(docs)) == 10
    assert docs.execute("select last_value from asked").fetchone() == (77,)
    assert runs(docs) == 3  # a target of its own: the general search


def query(conn: Conn) -> list[Any]:
    """A search with a vector of its own, for who may not read those of others."""
    return conn.execute(
        "select * from pgstack.search('docs', null, mode => 'vector', embedding =>"
        " (select array_agg(sin(3 * j)) from generate_series(1, 32) as j)::vector)"
    ).fetchall()


# ----------------------------------------------------------------- when it does not serve


def test_fewer_rows_than_wanted_are_all_found(docs: Conn) -> None:
    docs.execute("delete from docs where id > 7")
    rows = found(docs)
    assert len(rows) == 7
    assert rows == unprepared(docs)


@pytest.mark.parametrize(
    "options",
    [
        {"filter": '{"id": {"gt": 5}}'},
        {"per": "row"},
        {"diversity": 0.5},
        {"depth": 50},
        {"k": 40},
        {"target_recall": 0.99},
    ],
    ids=str,
)
def test_whatever_else_is_asked_goes_the_general_way(docs: Conn, options: dict[str, Any]) -> None:
    assert len(found(docs, **options)) == options.get("k", 10)
    assert runs(docs) == 0


@pytest.mark.parametrize(
    ("change", "serves", "serves_again"),
    [
        ("drop index near", False, False),
        ("create index on docs_embedding_store (chunk)", True, True),
        (
            "create index on docs_embedding_store using hnsw (embedding vector_cosine_ops);"
            "drop index near",
            False,
            True,
        ),
        (
            "update ai.vectorizer set config = jsonb_set(config, '{embedding,model}', '\"other\"')",
            False,
            True,
        ),
        ("select pgstack.configure('target_recall', '0.99')", False, True),
        ("select * from pgstack.recall('docs', 5)", True, True),
    ],
)
def test_it_serves_as_long_as_nothing_has_changed(
    docs: Conn, change: LiteralString, serves: bool, serves_again: bool
) -> None:
    docs.execute(change)
    assert len(found(docs)) == 10
    assert runs(docs) == serves
    assert docs.execute("select statement from _pgstack.index_due()").fetchall() == []  # paused
    docs.execute("select pgstack.resume_vectorizer('docs')")
    while due := docs.execute("select statement from _pgstack.index_due()").fetchall():
        docs.execute(due[0][0].encode())
    assert len(found(docs)) == 10
    assert runs(docs) == serves + serves_again


def test_a_source_under_row_security_goes_the_general_way(
    docs: Conn, make_role: Callable[[str], str]
) -> None:
    """Who sees few rows gets them by the routes that fit."""
    reader = make_role("reader")
    docs.execute(
        sql.SQL(
            """
            alter table docs enable row level security;
            create policy few on docs using (id % 60 = 0);
            grant select on docs to {0};
            set local role {0};
            """
        ).format(sql.Identifier(reader))
    )
    assert {row[1]["id"] for row in query(docs)} == {60, 120, 180, 240, 300}
    docs.execute("reset role")
    assert len(query(docs)) == 10
    assert runs(docs) == 1


def test_policies_hold_in_a_session_that_ran_it_as_somebody_else(
    docs: Conn, make_role: Callable[[str], str]
) -> None:
    """The kept plan is of the role that runs it: of the chunks there are policies as well."""
    ones = make_role("ones")
    docs.execute(
        sql.SQL(
            "grant select on docs to {0}; create policy ones on docs_embedding_store"
            " as restrictive to {0} using (chunk like 'chunk 1%')"
        ).format(sql.Identifier(ones))
    )
    for _ in range(2):
        assert any(not row[3].startswith("chunk 1") for row in query(docs))
        docs.execute(sql.SQL("set local role {}").format(sql.Identifier(ones)))
        seen = query(docs)
        docs.execute("reset role")
        assert len(seen) == 10
        assert all(row[3].startswith("chunk 1") for row in seen)


def test_who_may_not_read_the_source_is_told(docs: Conn, make_role: Callable[[str], str]) -> None:
    docs.execute(sql.SQL("set local role {}").format(sql.Identifier(make_role("stranger"))))
    with raises("PS014", "may not read public.docs", "grant select"):
        query(docs)


def test_errors_are_those_of_the_general_search(docs: Conn) -> None:
    for argument, sqlstate in (("embedding => '[1,2]'", "PS002"), ("k => 0", "PS007")):
        with raises(sqlstate), docs.transaction():
            docs.execute(
                f"select * from pgstack.search('docs', 'x', mode => 'vector', {argument})".encode()
            )


# -------------------------------------------------------------------------------- its life


def test_nothing_is_left_of_it(docs: Conn) -> None:
    docs.execute("select pgstack.drop_vectorizer('docs', true)")
    left = docs.execute(
        r"select proname from pg_proc where proname ~ '^prepared_search_\d+$'"
        " union all select vectorizer_id::text from _pgstack.prepared_search"
    ).fetchall()
    assert left == []


def test_without_an_index_nothing_is_prepared(conn: Conn) -> None:
    fill(conn, 5)
    conn.execute("select _pgstack.prepare_search(id) from ai.vectorizer")
    assert conn.execute("select * from _pgstack.prepared_search").fetchall() == []
    assert len(found(conn)) == 5
