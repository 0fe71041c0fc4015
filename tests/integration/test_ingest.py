"""Collections in SQL, and files and folders into them."""

from __future__ import annotations

import threading
from typing import Any

import psycopg
import pytest
from psycopg.types.json import Jsonb

from pgstack import sqlfiles
from pgstack.db import connect, execute_script
from pgstack.errors import (
    MissingPrivilege,
    NameTaken,
    UnknownVectorizer,
    UsageError,
    translated,
)

Conn = psycopg.Connection[Any]
DIMENSIONS = 8  # told, so that no model is asked
HOSTILE = ["Robert'); drop table x;--", 'quo"te', "Ünï 😀", "select", "a.b", "%s %(x)s", "1"]


def create(conn: Conn, name: str | None, **arguments: Any) -> str:
    query = "select pgstack.create_collection(%(name)s, dimensions => 8"
    query += "".join(f", {key} => %({key})s" for key in arguments) + ")::text"
    with translated(), conn.transaction():
        row = conn.execute(query, {"name": name, **arguments}).fetchone()
    assert row is not None
    return row[0]


def put(conn: Conn, collection: str, uri: str | None, content: str | None, *more: Any) -> str:
    query = f"select pgstack.ingest_text(%s, %s, %s{', %s' * len(more)})"
    with translated(), conn.transaction():
        row = conn.execute(query, (collection, uri, content, *more)).fetchone()
    assert row is not None
    return row[0]


def documents(conn: Conn, collection: str) -> dict[str, str]:
    relation = psycopg.sql.Identifier("pgstack_collections", collection)
    query = psycopg.sql.SQL("select uri, content from {}").format(relation)
    return dict(conn.execute(query).fetchall())


# --- collections ----------------------------------------------------------------------


def test_create_makes_a_table_and_a_vectorizer(conn: Conn) -> None:
    assert create(conn, "handbook") == "pgstack_collections.handbook"
    row = conn.execute(
        "select source_schema, source_table, config -> 'loading' ->> 'column_name', "
        "config -> 'embedding' ->> 'model' from ai.vectorizer where name = 'handbook'"
    ).fetchone()
    assert row is not None
    assert row[:3] == ("pgstack_collections", "handbook", "content")
    assert create(conn, "handbook") == "pgstack_collections.handbook"
    with pytest.raises(NameTaken, match="already"):
        create(conn, "handbook", if_not_exists=False)


@pytest.mark.parametrize("name", [*HOSTILE, "x" * 63, "ä" * 31, "Handbook", "hand book"])
def test_any_name_will_do(conn: Conn, name: str) -> None:
    create(conn, "handbook")
    create(conn, "hand_book")
    create(conn, name)
    assert put(conn, name, "u", "text") == "inserted"
    found = conn.execute(
        "select documents, bytes from pgstack.collections where name = %s", (name,)
    ).fetchone()
    assert found == (1, 4)
    row = conn.execute(
        "select (_pgstack.vectorizer_plan(%s::text)).content_column", (name,)
    ).fetchone()
    assert row == ("content",)
    conn.execute("select pgstack.drop_collection(%s)", (name,))
    left = conn.execute("select name from pgstack.collections order by 1").fetchall()
    assert left == [("hand_book",), ("handbook",)]


@pytest.mark.parametrize("name", [None, "", "x" * 64, "ä" * 32])
def test_names_that_will_not_do(conn: Conn, name: str | None) -> None:
    with pytest.raises(UsageError) as caught:
        create(conn, name)
    assert caught.value.hint


def test_a_name_that_is_another_object(conn: Conn) -> None:
    create(conn, "docs")
    for taken in ("docs_embedding", "docs_embedding_store"):
        with pytest.raises(NameTaken):
            create(conn, taken)
    conn.execute("create table public.notes (id int primary key, body text)")
    conn.execute("select pgstack.create_vectorizer('public.notes', 'body', dimensions => 8)")
    row = conn.execute("select name from ai.vectorizer where source_table = 'notes'").fetchone()
    assert row is not None
    with pytest.raises(NameTaken, match="vectorizer"):
        create(conn, row[0])


def test_drop_takes_everything_along(conn: Conn) -> None:
    create(conn, "docs")
    put(conn, "docs", "u", "text")
    conn.execute("select pgstack.drop_collection('docs')")
    left = conn.execute(
        "select relname from pg_class where relnamespace = 'pgstack_collections'::regnamespace"
    ).fetchall()
    assert left == []
    assert conn.execute("select name from ai.vectorizer").fetchall() == []
    for call in ("drop_collection('docs')", "remove_document('docs', 'u')"):
        with pytest.raises(UnknownVectorizer) as caught, translated(), conn.transaction():
            conn.execute(f"select pgstack.{call}")
        assert "create_collection" in (caught.value.hint or "")


def test_unknown_collection_lists_the_known(conn: Conn) -> None:
    create(conn, "docs")
    with pytest.raises(UnknownVectorizer) as caught:
        put(conn, "dosc", "u", "text")
    assert "'docs'" in (caught.value.hint or "")


# --- documents ------------------------------------------------------------------------


def test_inserted_updated_unchanged(conn: Conn) -> None:
    create(conn, "docs")
    assert put(conn, "docs", "u", "one") == "inserted"
    assert put(conn, "docs", "u", "one") == "unchanged"
    assert put(conn, "docs", "u", "two") == "updated"
    assert put(conn, "docs", "u", "two", "Title") == "updated"
    assert put(conn, "docs", "u", "two", "Title", "text/markdown") == "updated"
    more = ("Title", "text/markdown", Jsonb({"a": 1}))
    assert put(conn, "docs", "u", "two", *more) == "updated"
    assert put(conn, "docs", "u", "two", *more) == "unchanged"
    row = conn.execute(
        "select title, media_type, content, content_hash = sha256('two'), bytes, metadata "
        "from pgstack_collections.docs"
    ).fetchone()
    assert row == ("Title", "text/markdown", "two", True, 3, {"a": 1})


def test_unchanged_documents_are_not_queued_again(conn: Conn) -> None:
    create(conn, "docs")
    put(conn, "docs", "u", "one")
    row = conn.execute(
        "select format('%I.%I', queue_schema, queue_table) from ai.vectorizer"
    ).fetchone()
    assert row is not None
    count = f"select count(*) from {row[0]}"
    assert conn.execute(count).fetchone() == (1,)
    conn.execute(f"delete from {row[0]}")
    put(conn, "docs", "u", "one")
    assert conn.execute(count).fetchone() == (0,)
    put(conn, "docs", "u", "two")
    assert conn.execute(count).fetchone() == (1,)


@pytest.mark.parametrize(
    "arguments",
    [
        (None, "text"),
        ("", "text"),
        ("u", None),
        ("u", "text", None, "text/plain", Jsonb([1])),
        ("u", "text", None, "text/plain", Jsonb("x")),
    ],
)
def test_bad_documents(conn: Conn, arguments: tuple[Any, ...]) -> None:
    create(conn, "docs")
    with pytest.raises(UsageError) as caught:
        put(conn, "docs", *arguments)
    assert caught.value.hint


def test_remove(conn: Conn) -> None:
    create(conn, "docs")
    put(conn, "docs", "u", "text")
    query = "select pgstack.remove_document('docs', 'u')"
    assert conn.execute(query).fetchone() == (True,)
    assert conn.execute(query).fetchone() == (False,)


def test_other_roles(conn: Conn) -> None:
    create(conn, "docs")
    create(conn, "secret")
    put(conn, "docs", "u", "text")
    conn.execute("create role ingest_reader")
    conn.execute("grant select on pgstack_collections.docs to ingest_reader")
    conn.execute("set local role ingest_reader")
    assert conn.execute("select name, documents from pgstack.collections").fetchall() == [
        ("docs", 1)
    ]
    with pytest.raises(MissingPrivilege) as caught:
        create(conn, "mine")
    assert "grant create on schema pgstack_collections to ingest_reader" in str(caught.value.hint)
    with pytest.raises(MissingPrivilege) as caught:
        put(conn, "docs", "v", "text")
    assert "grant select, insert" in str(caught.value.hint)
    for call in ("remove_document('docs', 'u')", "drop_collection('docs')"):
        with pytest.raises(MissingPrivilege), translated(), conn.transaction():
            conn.execute(f"select pgstack.{call}")


def test_many_sessions_at_once(db_url: str) -> None:
    """Creating one collection and writing one document from eight sessions."""
    outcomes: list[str] = []
    failures: list[BaseException] = []

    def work(number: int) -> None:
        try:
            with connect(db_url, autocommit=True) as mine:
                create(mine, "docs")
                for turn in range(20):
                    outcomes.append(put(mine, "docs", "same", f"text {(number + turn) % 3}"))
                    outcomes.append(put(mine, "docs", f"own {number}", "text"))
        except BaseException as exc:
            failures.append(exc)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert outcomes.count("inserted") == 9
    with connect(db_url, autocommit=True) as conn:
        assert len(documents(conn, "docs")) == 9


def test_a_schema_that_another_role_made_is_not_used(conn: Conn) -> None:
    conn.execute("create role ingest_squatter")
    conn.execute("alter schema pgstack_collections owner to ingest_squatter")
    with pytest.raises(NameTaken, match="another owner"), translated(), conn.transaction():
        execute_script(conn, sqlfiles.read("500_collection.sql", {}))
