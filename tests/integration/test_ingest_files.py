"""Files and folders into a collection: what is read, what is kept, what is left alone."""

from __future__ import annotations

import io
import os
import shutil
import time
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from pgstack.errors import MissingPrivilege, UsageError
from pgstack.extract import Extractor, Options
from pgstack.ingest import IngestProgress, IngestReport, Stdin, ingest, read
from pgstack.ingest.prune import EMPTY
from tests.integration.ingesting import (
    OLD,
    Conn,
    documents,
    everything,
    run,
    steps_of,
    write,
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "docs"
    write(root / "b.md", "# Bee\n\ntext")
    write(root / "a.txt", "first")
    write(root / "sub" / "c.html", "<title>Sea</title><p>water")
    return root


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files that were opened."""
    opened: list[str] = []
    real = read._open

    def noted(task: read.Task) -> read.Done:
        opened.append(Path(task.found.place).name)
        return real(task)

    monkeypatch.setattr(read, "_open", noted)
    return opened


# --- what is stored -------------------------------------------------------------------


def test_a_folder(conn: Conn, folder: Path) -> None:
    steps: list[IngestProgress] = []
    assert run(conn, folder, progress=steps.append) == IngestReport(inserted=3)
    assert [(Path(s.path).name, s.outcome, s.done, s.total) for s in steps] == [
        ("a.txt", "inserted", 1, 3),
        ("b.md", "inserted", 2, 3),
        ("c.html", "inserted", 3, 3),
    ]
    rows = conn.execute(
        "select uri, title, media_type, content, status, source, source_hash, source_bytes, "
        "extract(epoch from source_modified)::int from pgstack_collections.docs order by uri"
    ).fetchall()
    assert rows == [
        (*((folder / name).as_uri(), title, kind, text, "ready", None), digest, size, OLD)
        for name, title, kind, text in (
            ("a.txt", "a.txt", "text/plain", "first"),
            ("b.md", "Bee", "text/markdown", "# Bee\n\ntext"),
            ("sub/c.html", "Sea", "text/html", "water"),
        )
        for data in [(folder / name).read_bytes()]
        for digest, size in [(sha256(data).digest(), len(data))]
    ]


def test_headings_become_parts(conn: Conn, folder: Path) -> None:
    run(conn, folder / "b.md")
    row = conn.execute(
        "select p.headings from pgstack_collections.docs as d, "
        "pgstack.document_parts('docs', d.id) as p"
    ).fetchone()
    assert row == (["Bee"],)


def test_the_file_itself_is_kept_on_demand(conn: Conn, folder: Path) -> None:
    run(conn, folder, keep=True)
    rows = conn.execute("select uri, source from pgstack_collections.docs").fetchall()
    assert {uri: bytes(source) for uri, source in rows} == {
        path.as_uri(): path.read_bytes() for path in folder.rglob("*.*")
    }


def test_a_worker_extracts(conn: Conn, folder: Path) -> None:
    assert run(conn, folder, background=True) == IngestReport(inserted=3)
    rows = conn.execute(
        "select uri, convert_from(source, 'utf-8'), content, status from pgstack_collections.docs "
        "order by uri limit 1"
    ).fetchall()
    assert rows == [((folder / "a.txt").as_uri(), "first", None, "pending")]
    assert run(conn, folder, background=True) == IngestReport(unchanged=3)
    assert run(conn, folder, background=True, reread=True) == IngestReport(unchanged=3)


def test_documents_are_extracted_and_embedded(
    db: Conn, folder: Path, worker: Callable[..., Any]
) -> None:
    assert ingest(db, [folder / "sub"], "docs") == IngestReport(inserted=1)
    report = ingest(db, [folder], "docs", background=True)
    assert report == IngestReport(inserted=2, unchanged=1)
    assert db.execute("select pgstack.wait_until_fresh('docs', '30s')").fetchone() == (True,)
    rows = db.execute(
        "select d.title, e.chunk from pgstack_collections.docs as d "
        "join pgstack_collections.docs_embedding_store as e using (id) order by 1, e.chunk_seq"
    ).fetchall()
    assert rows == [("Bee", "# Bee\n\ntext"), ("Sea", "water"), ("a.txt", "first")]


def test_standard_input(conn: Conn, folder: Path) -> None:
    def said(text: str, **options: Any) -> IngestReport:
        return run(conn, "-", stdin=Stdin(file=io.BytesIO(text.encode()), **options))

    assert said("# Title\n\nx", name="a/b.md") == IngestReport(inserted=1)
    assert said("# Title\n\ny", name="a/b.md") == IngestReport(updated=1)
    assert said("# Title\n\ny", name="a/b.md") == IngestReport(unchanged=1)
    assert said("<p>z", name="https://x.org/p", media_type="text/html") == IngestReport(inserted=1)
    assert said("nameless") == IngestReport(inserted=1)
    assert said("another") == IngestReport(inserted=1)
    rows = conn.execute(
        "select uri, title, media_type, content from pgstack_collections.docs order by id"
    ).fetchall()
    assert rows[:2] == [
        ("stdin:a/b.md", "Title", "text/markdown", "# Title\n\ny"),
        ("https://x.org/p", "p", "text/html", "z"),
    ]
    assert [row[0][:6] for row in rows[2:]] == ["stdin:", "stdin:"]


def test_warnings(conn: Conn, folder: Path) -> None:
    write(folder / "a.txt", b"some\x00text " + b"words " * 500)
    report = run(conn, folder / "a.txt")
    assert report.inserted == 1
    assert report.warnings == [(str(folder / "a.txt"), "NUL characters were removed")]
    row = conn.execute("select metadata from pgstack_collections.docs").fetchone()
    assert row == ({"warnings": ["NUL characters were removed"]},)


def test_a_new_collection_is_made_as_told(conn: Conn, folder: Path) -> None:
    report = run(conn, folder, chunking="character", chunk_size=300, chunk_overlap=0, ocr="deu")
    assert report.created
    row = conn.execute(
        "select config -> 'chunking' ->> 'chunk_size' from ai.vectorizer where name = 'docs'"
    ).fetchone()
    assert row == ("300",)
    row = conn.execute("select _pgstack.collection_extraction('docs')").fetchone()
    assert row == ({"ocr": "deu"},)
    assert not run(conn, folder, chunk_size=500).created


def test_the_collection_says_how_its_files_are_read(
    conn: Conn, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    used: list[Options] = []

    class Noted(Extractor):
        def __init__(self, options: Options) -> None:
            super().__init__(options)
            used.append(options)

    monkeypatch.setattr(read, "Extractor", Noted)
    conn.execute(
        "select pgstack.create_collection('docs', dimensions => 8, "
        """extraction => '{"keep_boilerplate": true, "ocr": "deu"}')"""
    )
    run(conn, folder)
    run(conn, folder, keep_boilerplate=False, ocr="", reread=True)
    assert used == [Options(ocr="deu", keep_boilerplate=True), Options(ocr="")]
    conn.execute("""select pgstack.set_extraction('docs', '{"extractor": "tika"}')""")
    with pytest.raises(UsageError, match="Tika"):
        run(conn, folder)
    conn.execute("select pgstack.configure('tika_url', 'http://127.0.0.1:9')")
    used.clear()
    run(conn, folder, reread=True)
    assert used == [Options(tika_url="http://127.0.0.1:9")]


# --- what changed ---------------------------------------------------------------------


def test_only_what_changed_is_read_again(conn: Conn, folder: Path, reads: list[str]) -> None:
    assert run(conn, folder) == IngestReport(inserted=3)
    assert sorted(reads) == ["a.txt", "b.md", "c.html"]
    before = everything(conn)
    reads.clear()
    assert run(conn, folder) == IngestReport(unchanged=3)
    assert reads == []
    assert everything(conn) == before
    write(folder / "a.txt", "changed")
    write(folder / "b.md", "# Bee\n\ntext", at=OLD + 1)
    assert run(conn, folder) == IngestReport(updated=1, unchanged=2)
    assert reads == ["a.txt", "b.md"]
    reads.clear()
    assert run(conn, folder) == IngestReport(unchanged=3)  # the touch was noted
    assert reads == []
    assert run(conn, folder, reread=True) == IngestReport(unchanged=3)
    assert len(reads) == 3


def test_a_change_right_after_reading_is_not_missed(conn: Conn, folder: Path) -> None:
    """Same size and same time of change, as clocks of file systems tick."""
    now = time.time()
    write(folder / "a.txt", "first", at=now)
    run(conn, folder)
    write(folder / "a.txt", "other", at=now)
    assert run(conn, folder) == IngestReport(updated=1, unchanged=2)


def test_odd_times_of_change(conn: Conn, folder: Path) -> None:
    os.utime(folder / "a.txt", ns=(0, -62_200_000_000 * 10**9))  # before the year 1
    os.utime(folder / "b.md", (0, 0))
    assert run(conn, folder) == IngestReport(inserted=3)
    assert run(conn, folder) == IngestReport(unchanged=3)


def test_relative_paths_and_overlaps_are_one_document(
    conn: Conn, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    report = run(conn, ".", "a.txt", folder / "sub" / ".." / "a.txt", "sub")
    assert report == IngestReport(inserted=3)


def test_a_dry_run_writes_nothing(conn: Conn, folder: Path) -> None:
    assert run(conn, folder, dry_run=True) == IngestReport(inserted=3)
    assert conn.execute("select count(*) from pgstack.collections").fetchone() == (0,)
    run(conn, folder)
    before = everything(conn)
    write(folder / "a.txt", "changed")
    write(folder / "b.md", "# Bee\n\ntext", at=OLD + 1)
    write(folder / "d.txt", "new")
    (folder / "sub" / "c.html").unlink()
    steps = steps_of(conn, folder, dry_run=True, prune=True)
    assert steps == {
        "a.txt": "updated",
        "b.md": "unchanged",
        "d.txt": "inserted",
        "c.html": "removed",
    }
    assert everything(conn) == before


# --- what cannot be read --------------------------------------------------------------


def test_failed_files_are_noted_and_left_alone(conn: Conn, folder: Path, reads: list[str]) -> None:
    write(folder / "broken.gz", b"\x1f\x8b nonsense")
    write(folder / "empty.txt", " \n")
    with (folder / "huge.txt").open("wb") as file:
        file.truncate(100_000_001)
    os.utime(folder / "huge.txt", (OLD, OLD))
    report = run(conn, folder)
    report.failed.sort()
    reasons = {Path(path).name: reason for path, reason in report.failed}
    assert report.inserted == 3
    assert reasons["broken.gz"] == "gzip data, not text"
    assert reasons["empty.txt"] == "has no text"
    assert "100 MB" in reasons["huge.txt"]
    rows = conn.execute(
        "select uri, status, error, content from pgstack_collections.docs where status <> 'ready'"
    ).fetchall()
    assert {Path(uri).name: (status, error) for uri, status, error, _ in rows} == {
        name: ("failed", reason) for name, reason in reasons.items()
    }
    reads.clear()
    again = run(conn, folder)
    assert (again.unchanged, sorted(again.failed)) == (3, report.failed)
    assert reads == []
    write(folder / "empty.txt", " \n", at=OLD + 1)
    assert len(run(conn, folder).failed) == 3
    assert reads == ["empty.txt"]
    reads.clear()
    again = run(conn, folder, retry=True)
    assert (again.unchanged, sorted(again.failed)) == (3, report.failed)
    assert reads == ["broken.gz", "empty.txt", "huge.txt"]
    write(folder / "empty.txt", "no longer")
    assert steps_of(conn, folder)["empty.txt"] == "updated"
    assert len(run(conn, folder).failed) == 2


def test_what_breaks_later_keeps_its_text(conn: Conn, folder: Path) -> None:
    run(conn, folder)
    write(folder / "a.txt", b"\x1f\x8b nonsense")
    assert steps_of(conn, folder)["a.txt"] == "failed"
    row = conn.execute(
        "select content, status from pgstack_collections.docs where uri like '%a.txt'"
    ).fetchone()
    assert row == ("first", "failed")


def test_what_is_skipped_and_why(conn: Conn, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "link.txt").symlink_to(folder / "a.txt")
    os.mkfifo(folder / "fifo.txt")
    write(folder / "vanishes.txt", "x")
    write(folder / "secret.txt", "x")
    opened = os.open

    def refusing(path: Any, *more: Any, **options: Any) -> int:
        if str(path).endswith("vanishes.txt"):
            (folder / "vanishes.txt").unlink()
        if str(path).endswith("secret.txt"):
            raise PermissionError(13, "Permission denied")
        return opened(path, *more, **options)

    monkeypatch.setattr(os, "open", refusing)
    report = run(conn, folder, folder / "absent.txt")
    assert report.inserted == 3
    assert report.failed == []
    assert {Path(path).name: reason for path, reason in report.skipped} == {
        "absent.txt": "No such file or directory",
        "fifo.txt": "not a regular file",
        "link.txt": "a symbolic link, not followed",
        "secret.txt": "Permission denied",
        "vanishes.txt": "No such file or directory",
    }
    assert len(documents(conn)) == 3


def test_names_of_any_bytes(conn: Conn, folder: Path) -> None:
    names = [
        *(b"\xff\xfe.txt", b"new\nline.txt", "ü😀.txt".encode(), b"100%25.txt", b"a'b\".txt"),
        *("\u00fc.txt".encode(), "u\u0308.txt".encode(), b'"; drop table x; --.txt', b"x" * 255),
    ]
    for name in names:
        Path(os.fsdecode(os.fsencode(folder) + b"/" + name)).write_bytes(b"text")
    count = len(names)
    assert run(conn, folder).inserted == 3 + count
    assert run(conn, folder, prune=True) == IngestReport(unchanged=3 + count)
    assert len(documents(conn)) == 3 + count


def test_a_path_that_is_too_long(conn: Conn, folder: Path) -> None:
    deep = folder.joinpath(*["ü" * 100] * 8)
    write(deep / "x.txt", "text")
    report = run(conn, folder)
    assert report.inserted == 3
    assert [reason for _, reason in report.skipped] == [report.skipped[0][1]]
    assert "too long" in report.skipped[0][1]


def test_texts_that_the_database_refuses(conn: Conn, folder: Path) -> None:
    """One document that cannot be stored does not keep those stored with it."""
    run(conn, folder / "b.md")
    conn.execute("alter table pgstack_collections.docs add check (content !~ 'first') not valid")
    report = run(conn, folder)
    assert report.inserted == 1
    assert [Path(path).name for path, _ in report.failed] == ["a.txt"]
    assert "check constraint" in report.failed[0][1]


def test_no_right_to_write_ends_it(conn: Conn, folder: Path) -> None:
    run(conn, folder / "b.md")
    conn.execute("create role ingest_writer")
    conn.execute("set local role ingest_writer")
    with pytest.raises(MissingPrivilege) as caught:
        run(conn, folder)
    assert "grant select, insert" in str(caught.value.hint)
    conn.execute("reset role")
    conn.execute("grant select on pgstack_collections.docs to ingest_writer")
    conn.execute("set local role ingest_writer")
    with pytest.raises(MissingPrivilege) as caught:
        run(conn, folder)
    assert "grant select, insert" in str(caught.value.hint)


# --- what is gone ---------------------------------------------------------------------


def test_prune(conn: Conn, folder: Path, tmp_path: Path) -> None:
    outside = write(tmp_path / "docs-old.txt", "x")  # shares the folder's name as a prefix
    write(folder / "hidden later.txt", "x")
    write(folder / "becomes a folder", "x")
    run(conn, folder, outside)
    for name in ("a.txt", "becomes a folder"):
        (folder / name).unlink()
    (folder / "becomes a folder").mkdir()
    write(folder / ".pgstackignore", "*later*\n")  # still there
    write(folder / "b.md", b"\x1f\x8b")  # cannot be read now, but is there
    outside.unlink()
    assert run(conn, folder).removed == 0
    assert run(conn, folder / "*.md", prune=True).removed == 0
    assert run(conn, folder / "*.txt", prune=True, dry_run=True).removed == 1
    steps = steps_of(conn, folder, prune=True)
    assert {name for name, what in steps.items() if what == "removed"} == {
        "a.txt",
        "becomes a folder",
    }
    assert sorted(documents(conn)) == sorted(
        path.as_uri()
        for path in (
            *(folder / "b.md", folder / "sub" / "c.html", folder / "hidden later.txt", outside),
        )
    )


def test_prune_spares_a_folder_that_is_gone_or_empty(
    conn: Conn, folder: Path, tmp_path: Path
) -> None:
    run(conn, folder)
    folder.rename(tmp_path / "unmounted")
    report = run(conn, folder, prune=True)
    assert report.removed == 0
    assert [path for path, _ in report.skipped] == [str(folder)]
    folder.mkdir()
    report = run(conn, folder, prune=True)
    assert report == IngestReport(skipped=[(str(folder), EMPTY)])
    write(folder / "sign of life.txt", "x")
    assert run(conn, folder, prune=True) == IngestReport(inserted=1, removed=3)


def test_prune_keeps_what_it_cannot_see(
    conn: Conn, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(conn, folder)
    look = os.lstat

    def refusing(path: Any, **options: Any) -> os.stat_result:
        if str(path).endswith("c.html"):
            raise PermissionError(13, "Permission denied")
        return look(path, **options)

    shutil.rmtree(folder / "sub")
    monkeypatch.setattr(os, "lstat", refusing)
    assert run(conn, folder, prune=True) == IngestReport(unchanged=2)
