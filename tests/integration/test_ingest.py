"""Collections in SQL, and files and folders into them."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path
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
from pgstack.ingest import IngestProgress, IngestReport, ingest

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


# --- files and folders ----------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "docs"
    (root / "sub").mkdir(parents=True)
    (root / "b.md").write_text("# Bee\n\ntext")
    (root / "a.txt").write_text("first")
    (root / "sub" / "c.html").write_text("<title>Sea</title><p>water")
    return root


def run(conn: Conn, *paths: Path | str, **options: Any) -> IngestReport:
    return ingest(conn, paths, "docs", dimensions=DIMENSIONS, **options)


def test_a_folder(conn: Conn, folder: Path) -> None:
    steps: list[IngestProgress] = []
    assert run(conn, folder, progress=steps.append) == IngestReport(inserted=3)
    assert [(Path(s.path).name, s.outcome, s.done, s.total) for s in steps] == [
        ("a.txt", "inserted", 1, 3),
        ("b.md", "inserted", 2, 3),
        ("c.html", "inserted", 3, 3),
    ]
    rows = conn.execute(
        "select uri, title, media_type, content from pgstack_collections.docs order by id"
    ).fetchall()
    assert rows == [
        ((folder / "a.txt").as_uri(), "a.txt", "text/plain", "first"),
        ((folder / "b.md").as_uri(), "Bee", "text/markdown", "# Bee\n\ntext"),
        ((folder / "sub" / "c.html").as_uri(), "Sea", "text/html", "water"),
    ]


def test_again_changes_only_what_changed(conn: Conn, folder: Path) -> None:
    run(conn, folder)
    (folder / "a.txt").write_text("changed")
    os.utime(folder / "b.md")
    assert run(conn, folder) == IngestReport(updated=1, unchanged=2)


def test_relative_paths_and_overlaps_are_one_document(
    conn: Conn, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    report = run(conn, ".", "a.txt", folder / "sub" / ".." / "a.txt", "sub")
    assert report == IngestReport(inserted=3)


def test_what_is_skipped_and_why(conn: Conn, folder: Path) -> None:
    (folder / ".git").mkdir()
    (folder / ".git" / "config").write_text("x")
    (folder / ".hidden.txt").write_text("x")
    (folder / "node_modules").mkdir()
    (folder / "node_modules" / "x.txt").write_text("x")
    (folder / "empty.txt").write_text(" \n")
    (folder / "image.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    (folder / "link.txt").symlink_to(folder / "a.txt")
    (folder / "up").symlink_to(folder)
    os.mkfifo(folder / "fifo.txt")
    report = run(conn, folder, folder / "absent.txt")
    assert report.inserted == 3
    reasons = {Path(path).name: reason for path, reason in report.skipped}
    assert sorted(reasons) == ["absent.txt", "empty.txt", "fifo.txt", "image.png", "link.txt", "up"]
    assert "No such file" in reasons["absent.txt"]
    assert "no text" in reasons["empty.txt"]
    assert "regular" in reasons["fifo.txt"]
    assert "PNG" in reasons["image.png"]
    assert "symbolic link" in reasons["link.txt"]


def test_symlinks_followed_do_not_go_round(conn: Conn, folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "d.txt").write_text("other")
    (folder / "other").symlink_to(other)
    (folder / "sub" / "up").symlink_to(folder)
    (folder / "broken").symlink_to(folder / "nowhere")
    report = run(conn, folder, follow_symlinks=True)
    assert report.inserted == 4
    assert sorted(reason for _, reason in report.skipped) == [
        "No such file or directory",
        "a link to a folder above it",
    ]


def test_names_of_any_bytes(conn: Conn, folder: Path) -> None:
    names = [b"\xff\xfe.txt", b"new\nline.txt", "ü😀.txt".encode(), b"100%25.txt", b"a'b\".txt"]
    for name in names:
        Path(os.fsdecode(os.fsencode(folder) + b"/" + name)).write_bytes(b"text")
    assert run(conn, folder).inserted == 3 + len(names)
    assert run(conn, folder, prune=True) == IngestReport(unchanged=3 + len(names))


def test_nul_characters_are_reported(conn: Conn, folder: Path) -> None:
    (folder / "a.txt").write_bytes(b"some\x00text " * 1 + b"words " * 500)
    report = run(conn, folder / "a.txt")
    assert report.inserted == 1
    assert report.warnings == [(str(folder / "a.txt"), "NUL characters were removed")]
    row = conn.execute("select metadata from pgstack_collections.docs").fetchone()
    assert row == ({"warnings": ["NUL characters were removed"]},)


def test_prune(conn: Conn, folder: Path, tmp_path: Path) -> None:
    outside = tmp_path / "docs-old.txt"  # shares the folder's name as a prefix
    outside.write_text("outside")
    run(conn, folder, outside)
    (folder / "a.txt").unlink()
    (folder / "b.md").write_bytes(b"%PDF-1.4")  # cannot be read now, but is there
    outside.unlink()
    assert run(conn, folder).removed == 0
    assert run(conn, folder, prune=True).removed == 1
    assert sorted(documents(conn, "docs")) == sorted(
        [(folder / "b.md").as_uri(), (folder / "sub" / "c.html").as_uri(), outside.as_uri()]
    )


def test_prune_spares_a_folder_that_is_gone(conn: Conn, folder: Path, tmp_path: Path) -> None:
    run(conn, folder)
    folder.rename(tmp_path / "unmounted")
    report = run(conn, folder, prune=True)
    assert report.removed == 0
    assert [path for path, _ in report.skipped] == [str(folder)]


def test_every_file_is_committed_by_itself(db_url: str, folder: Path) -> None:
    def crash_at_the_second(step: IngestProgress) -> None:
        if step.done == 2:
            raise KeyboardInterrupt

    with connect(db_url) as mine, pytest.raises(KeyboardInterrupt):
        run(mine, folder, progress=crash_at_the_second)
    with connect(db_url, autocommit=True) as conn:
        assert len(documents(conn, "docs")) == 2
    with connect(db_url) as mine:
        assert run(mine, folder) == IngestReport(inserted=1, unchanged=2)


def test_no_right_to_write_ends_it(conn: Conn, folder: Path) -> None:
    create(conn, "docs")
    conn.execute("create role ingest_writer")
    conn.execute("set local role ingest_writer")
    with pytest.raises(MissingPrivilege):
        run(conn, folder)


def test_documents_are_embedded(
    db: Conn, folder: Path, worker: Callable[..., Any], db_url: str
) -> None:
    report = ingest(db, [folder], "docs")  # the model is asked for its dimensions
    assert report == IngestReport(inserted=3)
    fresh = db.execute("select pgstack.wait_until_fresh('docs', '30s')").fetchone()
    assert fresh == (True,)
    rows = db.execute(
        "select d.title, e.chunk from pgstack_collections.docs as d "
        "join pgstack_collections.docs_embedding_store as e using (id) order by 1, e.chunk_seq"
    ).fetchall()
    assert rows == [("Bee", "# Bee\n\ntext"), ("Sea", "water"), ("a.txt", "first")]


def test_a_schema_that_another_role_made_is_not_used(conn: Conn) -> None:
    conn.execute("create role ingest_squatter")
    conn.execute("alter schema pgstack_collections owner to ingest_squatter")
    with pytest.raises(NameTaken, match="another owner"), translated(), conn.transaction():
        execute_script(conn, sqlfiles.read("500_collection.sql", {}))
