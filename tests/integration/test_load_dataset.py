"""pgstack.load_dataset(): SQL asks, the worker loads; and what it may not be made to do."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql
from psycopg.types.json import Jsonb

from pgstack.db import connect
from tests.conftest import Worker, make_url
from tests.integration.conftest import raises, value

pytest.importorskip("pyarrow")
Connection = psycopg.Connection[Any]
Start = Callable[..., Worker]


@pytest.fixture
def folder(db: Connection, tmp_path: Path) -> Path:
    """A folder that the worker may read, with a file."""
    made = tmp_path / "data"
    made.mkdir()
    (made / "a.csv").write_text("id,note\n1,a\nx,b\n3,c\n")
    (tmp_path / "secret.csv").write_text("a\n1\n")
    allow(db, f" https://example.com/x/ , {made}/")
    return made


def allow(conn: Connection, sources: str) -> None:
    conn.execute("select pgstack.configure('dataset_sources', %s)", (sources,))


def ask(conn: Connection, source: Any, target: str = "public.t", **options: Any) -> int:
    query = "select pgstack.load_dataset(%s, %s, %s)"
    return int(value(conn, query, str(source), target, Jsonb(options)))


def ended(conn: Connection, request: int) -> tuple[str, int | None, int | None, str | None]:
    """State, rows, rejects and error of a request, once it has ended."""
    until = time.monotonic() + 30
    query = "select state, rows, rejects, error from pgstack.dataset_requests where request = %s"
    while (row := conn.execute(query, (request,)).fetchone()) is not None:
        if row[0] in ("done", "failed"):
            return row
        assert time.monotonic() < until, row
        time.sleep(0.05)
    raise AssertionError("no such request")


def test_the_worker_loads(db: Connection, folder: Path, worker: Worker) -> None:
    request = ask(db, folder / "a.csv", types={"id": "int"}, generated_key=False)
    assert ended(db, request) == ("done", 2, 1, None)
    assert db.execute("select * from t order by id").fetchall() == [(1, "a"), (3, "c")]
    assert value(db, "select line from pgstack.dataset_rejects") == 3
    with raises("PS012", "exists", hint="append"):
        ask(db, folder / "a.csv")
    request = ask(db, folder / "a.csv", "public.u", types={"id": "int"}, max_rejects=0)
    state, _, _, error = ended(db, request)
    assert (state, "more than 0 records" in str(error)) == ("failed", True)
    request = ask(db, folder / "a.csv", "public.u", types={"id": "int"})
    assert ended(db, request)[:3] == ("done", 2, 1)


@pytest.mark.parametrize(
    "source",
    [
        *(
            "{}/../secret.csv",
            "{}/x/../../secret.csv",
            "/etc/passwd",
            "{}",
            "a.csv",
            "file://{}/a.csv",
        ),
        *("https://example.com/", "https://example.com/x/../y", "https://example.com/x/%2e%2e/y"),
        *("https://example.com.evil.org/x/a", "http://example.com/x/a", "https://evil.org/x/a"),
        *(
            "https://example.com/x/.%2E/y",
            "https://example.com/x/..%2fy",
            "https://example.com/x/\\y",
        ),
        "{}/a\nb",
    ],
)
def test_what_is_not_allowed_is_not_asked_for(db: Connection, folder: Path, source: str) -> None:
    with raises("PS011", "may not read", hint="dataset_sources"):
        ask(db, source.format(folder))
    assert value(db, "select count(*) from _pgstack.load_request") == 0


@pytest.mark.parametrize("prefix", ["", "/", "https://", "https://example.com", "data/", "{}"])
def test_entries_that_allow_nothing(db: Connection, folder: Path, prefix: str) -> None:
    """A host or folder without an end could begin another's name; / alone is said on purpose."""
    allow(db, prefix.format(folder))
    if prefix == "/":
        ask(db, folder / "a.csv")
        return
    for source in (f"{folder}/a.csv", "https://example.com/a.csv", "data/a.csv"):
        with raises("PS011"):
            ask(db, source)


def test_links_out_of_a_folder_are_not_followed(
    db: Connection, folder: Path, worker: Worker
) -> None:
    (folder / "link.csv").symlink_to(folder.parent / "secret.csv")
    state, _, _, error = ended(db, ask(db, folder / "link.csv"))
    assert state == "failed"
    assert "may not read" in str(error)
    assert value(db, "select to_regclass('public.t')") is None


def test_the_setting_is_of_the_database_and_looked_at_again(
    db: Connection, db_url: str, folder: Path, start_worker: Start
) -> None:
    request = ask(db, folder / "a.csv")
    allow(db, "")
    db.execute("set pgstack.dataset_sources = '/'")
    with raises("PS011"):
        ask(db, folder / "a.csv")
    start_worker(db_url)
    state, _, _, error = ended(db, request)
    assert (state, "may not read" in str(error)) == ("failed", True)


def test_who_may_ask(db: Connection, db_url: str, folder: Path) -> None:
    role = sql.Identifier(f"loader_{os.getpid()}")
    db.execute(sql.SQL("create role {} login").format(role))
    try:
        with connect(
            make_url(db_url, user=role.as_string(None).strip('"')), autocommit=True
        ) as other:
            with raises("PS014", "owner of pgstack"):
                ask(other, folder / "a.csv")
            for query in (
                "select * from _pgstack.load_request",
                "select * from pgstack.dataset_requests",
                "insert into _pgstack.load_request (source, target, options) values ('', '', '{}')",
            ):
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    other.execute(query.encode())
    finally:
        db.execute(sql.SQL("drop role {}").format(role))


@pytest.mark.parametrize(
    ("target", "options"),
    [
        ("t", {}),
        ("a.b.c", {}),
        ('public."t', {}),
        ("public.t", {"mode": "append"}),
        ("public.t", {"types": {"id": 1}}),
        ("public.t", {"key": "id"}),
        ("public.t", {"key": [1]}),
        ("public.t", {"header": "yes"}),
        ("public.t", {"max_rejects": -1}),
    ],
)
def test_bad_arguments(db: Connection, folder: Path, target: str, options: dict[str, Any]) -> None:
    with raises("PS007"):
        ask(db, folder / "a.csv", target, **options)


def test_a_killed_worker_s_load_goes_on(
    db: Connection, db_url: str, folder: Path, start_worker: Start
) -> None:
    count = 400_000
    with (folder / "big.csv").open("w") as file:
        file.write("id,note\n")
        file.writelines(f"{n},a note that makes the line longer {n}\n" for n in range(count))
    worker = start_worker(db_url)
    request = ask(db, folder / "big.csv", key=["id"])
    until = time.monotonic() + 30
    query = "select coalesce(rows, 0) from pgstack.dataset_requests where request = %s"
    while not value(db, query, request):
        assert time.monotonic() < until
        time.sleep(0.01)
    worker.stop(signal.SIGTERM)
    there = value(db, query, request)
    assert there > 0
    query = "select state, attempts from _pgstack.load_request"
    assert db.execute(query).fetchall() == [("requested", 0)]
    start_worker(db_url)
    assert ended(db, request)[:3] == ("done", count, 0)
    assert value(db, "select count(*) from t") == count


def test_once(db: Connection, db_url: str, folder: Path, start_worker: Start) -> None:
    request = ask(db, folder / "a.csv")
    worker = start_worker(db_url, "--once")
    assert worker.process.wait(timeout=60) == 0
    assert ended(db, request)[0] == "done"
