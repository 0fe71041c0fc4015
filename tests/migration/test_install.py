"""Installing: again, twice at once, broken off, without superuser, in odd places."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo

from pgstack import install, sqlfiles
from pgstack.db import connect
from pgstack.embedded import postgres
from pgstack.embedded.home import Home
from pgstack.errors import InstallError
from tests.conftest import Server, cloned
from tests.migration.conftest import did, empty_database, installed

Dump = Callable[[str], str]


def one(dsn: str, query: str, *params: Any) -> Any:
    with connect(dsn, autocommit=True) as conn:
        row = conn.execute(query.encode(), params or None).fetchone()
    assert row is not None
    return row[0]


def refused(dsn: str, words: str, hint: str) -> None:
    """An install fails, and says why and what to do."""
    with pytest.raises(InstallError) as caught:
        installed(dsn)
    assert words in str(caught.value)
    assert hint in (caught.value.hint or "")


def state_of_embed(dsn: str) -> str:
    """The SQLSTATE with which embed() fails where no worker runs: PS003 is as it should be."""
    with connect(dsn, autocommit=True) as conn:
        with pytest.raises(psycopg.Error) as caught:
            conn.execute("select pgstack.embed('x')")
        assert caught.value.diag.message_hint
        return str(caught.value.sqlstate)


# ----------------------------------------------------------------------- again, at once


def test_installing_again_changes_nothing(empty_url: str, dump: Dump) -> None:
    first = installed(empty_url)
    assert did(first)["tables"] == did(first)["functions"] == "created"
    assert first.warnings == []
    before = dump(empty_url)
    again = installed(empty_url)
    assert set(did(again).values()) == {"kept"}
    assert again.warnings == []
    assert dump(empty_url) == before


def test_people_s_views_and_settings_outlive_an_install(db_url: str) -> None:
    with connect(db_url, autocommit=True) as conn:
        conn.execute("select pgstack.configure('query_cache', 'off')")
        conn.execute("create view mine as select name, pending from pgstack.vectorizer_status")
        conn.execute("create view hits as select * from pgstack.search('x', 'y')")
    installed(db_url)
    assert one(db_url, "select count(*) from mine") == 0
    assert one(db_url, "select pg_get_viewdef('hits'::regclass)")
    assert one(db_url, "select _pgstack.setting_value('query_cache')") == "off"


def test_row_types_of_an_earlier_version_are_made_anew(db_url: str, dump: Dump) -> None:
    before = dump(db_url)
    with connect(db_url, autocommit=True) as conn:
        conn.execute(
            "alter type _pgstack.words drop attribute query cascade;"
            "alter type _pgstack.hit rename attribute more to others;"
            "drop type _pgstack.search_request cascade"
        )
    installed(db_url)
    assert dump(db_url) == before


def test_many_installs_at_once_take_turns(empty_url: str, dump: Dump, db_url: str) -> None:
    with ThreadPoolExecutor(4) as pool:
        reports = list(pool.map(installed, [empty_url] * 4))
    assert sorted(did(report)["tables"] for report in reports) == ["created", *["kept"] * 3]
    assert dump(empty_url) == dump(db_url)


def test_installs_into_databases_of_one_cluster_share_roles(bare: Home) -> None:
    with (
        empty_database(bare) as one_,
        empty_database(bare) as two,
        empty_database(bare) as three,
        ThreadPoolExecutor(3) as pool,
    ):
        for report in pool.map(installed, (one_, two, three)):
            assert report.warnings == []
        assert [state_of_embed(dsn) for dsn in (one_, two, three)] == ["PS003"] * 3


def test_an_install_beside_a_worker_and_sessions(
    db_url: str, worker: Any, start_worker: Any
) -> None:
    """Statements wait for it at most; nothing breaks."""
    stop = threading.Event()
    errors: list[str] = []
    with connect(db_url, autocommit=True) as db:
        db.execute(
            "create table docs (id integer primary key generated always as identity, t text)"
        )
        db.execute("select pgstack.create_vectorizer('docs', 't', dimensions => 384)")

    def keep_busy(query: bytes) -> int:
        count = 0
        with connect(db_url, autocommit=True) as conn:
            while not stop.is_set():
                try:
                    conn.execute(query)
                    count += 1
                except psycopg.Error as exc:
                    errors.append(f"{exc.sqlstate} {exc}")
        return count

    queries = [
        b"select pgstack.embed('text ' || random())",
        b"select * from pgstack.search('docs', 'text ' || random())",
        b"insert into docs (t) values ('text ' || random())",
        b"select * from pgstack.vectorizer_status",
    ]
    with ThreadPoolExecutor(4) as pool:
        busy = [pool.submit(keep_busy, query) for query in queries]
        try:
            for _ in range(3):
                assert installed(db_url).warnings == []
        finally:
            stop.set()
        assert all(task.result() > 0 for task in busy)
    assert errors == []
    assert worker.process.poll() is None
    assert one(db_url, "select pgstack.wait_until_fresh('docs')")
    assert one(
        db_url,
        "select count(*) from docs left join docs_embedding_store using (id) where chunk is null",
    ) == 0  # fmt: skip


# ----------------------------------------------------------------------------- broken off


@pytest.mark.parametrize("start", ["empty", "installed"])
def test_a_failure_leaves_the_database_as_it_was(
    server: Server, template: str, dump: Dump, monkeypatch: pytest.MonkeyPatch, start: str
) -> None:
    last = sqlfiles.names()[-1]
    read = sqlfiles.read

    def broken(name: str, schemas: Any) -> str:
        return "create table public.half (); select 1 / 0" if name == last else read(name, schemas)

    with empty_database(server) if start == "empty" else cloned(server, template) as dsn:
        before = dump(dsn)
        with monkeypatch.context() as patch:
            patch.setattr(sqlfiles, "read", broken)
            with pytest.raises(psycopg.errors.DivisionByZero):
                installed(dsn)
        assert dump(dsn) == before
        assert installed(dsn).warnings == []
        assert state_of_embed(dsn) == "PS003"


def test_a_connection_in_autocommit_mode_is_refused(empty_url: str) -> None:
    with connect(empty_url, autocommit=True) as conn, pytest.raises(ValueError, match="autocommit"):
        install.install(conn)


def test_every_step_is_told_as_it_is_done(empty_url: str) -> None:
    told: list[str] = []
    with connect(empty_url) as conn:
        report = install.install(conn, progress=lambda step: told.append(step.name))
    assert told == [step.name for step in report.steps]
    assert told[-1] == "bridge"


# -------------------------------------------------------------------------------- places


def test_vector_may_lie_in_another_schema(server: Server, start_worker: Any) -> None:
    with empty_database(server) as dsn:
        with connect(dsn, autocommit=True) as conn:
            conn.execute('create schema "Ext ""x"; create extension vector schema "Ext ""x"')
            conn.execute("create schema d; create extension dblink schema d")
        assert installed(dsn).warnings == []
        assert state_of_embed(dsn) == "PS003"
        with connect(dsn, autocommit=True) as conn:
            conn.execute("create table docs (id integer primary key, body text)")
            conn.execute("insert into docs values (1, 'some text')")
            conn.execute("select pgstack.create_vectorizer('docs', 'body', dimensions => 384)")
        worker = start_worker(dsn)
        worker.wait_until_present()
        assert one(dsn, "select pgstack.wait_until_fresh('docs')")
        for mode in ("vector", "text", "hybrid"):
            query = "select chunk from pgstack.search('docs', 'text', mode => %s)"
            assert one(dsn, query, mode) == "some text"
        assert worker.stop() == 0
        assert set(did(installed(dsn)).values()) == {"kept"}


@pytest.mark.parametrize(
    "name", ['we"ird; drop', "it's \\ 100%", "ünïcode 名前", "dbname=x host=y"]
)
def test_any_database_name_will_do(server: Server, name: str) -> None:
    with empty_database(server, name) as dsn:
        assert installed(dsn).warnings == []
        assert state_of_embed(dsn) == "PS003"


@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII"])
def test_only_utf8_will_do(server: Server, dump: Dump, encoding: str) -> None:
    options = f"encoding '{encoding}' locale 'C' locale_provider libc"
    with empty_database(server, options=options) as dsn:
        before = dump(dsn)
        refused(dsn, encoding, "UTF8")
        assert dump(dsn) == before


@pytest.mark.parametrize(("oldest", "newest"), [(1, 2), (-2, -1)])
def test_only_known_versions_will_do(
    empty_url: str, monkeypatch: pytest.MonkeyPatch, oldest: int, newest: int
) -> None:
    major = one(empty_url, "select current_setting('server_version_num')::integer / 10000")
    monkeypatch.setattr(install, "OLDEST", major + oldest)
    monkeypatch.setattr(install, "NEWEST", major + newest)
    refused(empty_url, f"PostgreSQL {major}", "pgstack up")


def test_a_newer_pgstack_is_not_overwritten(db_url: str, dump: Dump) -> None:
    with connect(db_url, autocommit=True) as conn:
        conn.execute("update _pgstack.setting set value = '99.0.1' where name = 'version'")
    before = dump(db_url)
    refused(db_url, "99.0.1", "pip install --upgrade")
    assert dump(db_url) == before


def test_an_unknown_revision_is_not_touched(db_url: str) -> None:
    with connect(db_url, autocommit=True) as conn:
        conn.execute("update _pgstack.alembic_version set version_num = 'from the future'")
    refused(db_url, "revision", "pip install --upgrade")


# ---------------------------------------------------------------------------- extensions


def without(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Install as if an extension were no concern of ours."""
    kept = [recipe for recipe in sqlfiles.recipes() if recipe.name != name]
    monkeypatch.setattr(sqlfiles, "recipes", lambda: kept)


def test_without_dblink_all_but_model_calls_work(
    empty_url: str, monkeypatch: pytest.MonkeyPatch, start_worker: Any
) -> None:
    with monkeypatch.context() as patch:
        without(patch, "dblink")
        report = installed(empty_url)
    assert did(report)["bridge"] == "skipped"
    assert "create extension dblink" in report.warnings[0]
    assert state_of_embed(empty_url) == "PS008"
    with connect(empty_url, autocommit=True) as conn:
        conn.execute("create table docs (id integer primary key, body text)")
        conn.execute("insert into docs values (1, 'some text')")
        conn.execute("select pgstack.create_vectorizer('docs', 'body', dimensions => 384)")
        start_worker(empty_url).wait_until_present()
        assert one(empty_url, "select pgstack.wait_until_fresh('docs')")
        found = conn.execute("select chunk from pgstack.search('docs', 'text', mode => 'text')")
        assert found.fetchall() == [("some text",)]
        conn.execute("create extension dblink")
    assert installed(empty_url).warnings == []
    assert one(empty_url, "select vector_dims(pgstack.embed('x'))") == 384


def test_a_function_planted_for_missing_dblink_is_not_called(
    empty_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    without(monkeypatch, "dblink")
    installed(empty_url)
    with connect(empty_url, autocommit=True) as conn:
        conn.execute(
            "create function public.dblink_connect_u(text, text) returns text language sql "
            "as $$ select 1 / 0 $$; "
            "create function public.dblink_get_connections() returns text[] language sql "
            "as $$ select array[(1 / 0)::text] $$"
        )
    assert state_of_embed(empty_url) == "PS008"


@pytest.mark.parametrize("required", [True, False])
def test_an_extension_too_old_is_said(
    empty_url: str, monkeypatch: pytest.MonkeyPatch, required: bool
) -> None:
    name = "vector" if required else "pg_trgm"
    installed(empty_url)
    recipes = [
        dataclasses.replace(recipe, minimum="99.0") if recipe.name == name else recipe
        for recipe in sqlfiles.recipes()
    ]
    monkeypatch.setattr(sqlfiles, "recipes", lambda: recipes)
    if required:
        refused(empty_url, "older than 99.0", "install a newer vector")
    else:
        assert did(installed(empty_url))["extension pg_trgm"] == "skipped"


def test_a_required_extension_that_is_not_there_is_said(
    empty_url: str, monkeypatch: pytest.MonkeyPatch, dump: Dump
) -> None:
    before = dump(empty_url)
    recipes = [
        dataclasses.replace(recipe, name="no_such") if recipe.required else recipe
        for recipe in sqlfiles.recipes()
    ]
    monkeypatch.setattr(sqlfiles, "recipes", lambda: recipes)
    refused(empty_url, "no_such: not available", "install no_such")
    assert dump(empty_url) == before


# -------------------------------------------------------------------- roles and privileges


def make_owner(dsn: str, options: str = "") -> str:
    """Give a database, with the extensions in it, to a new role; returns the role's DSN."""
    name = one(dsn, "select 'owner_' || current_database()")
    with connect(dsn, autocommit=True) as admin:
        for extension in ("vector", "dblink", "pg_trgm"):
            admin.execute(f"create extension {extension}".encode())
        role = sql.Identifier(name)
        text = sql.SQL(options)  # type: ignore[arg-type]
        admin.execute(sql.SQL("create role {} login {}").format(role, text))
        database = sql.Identifier(admin.info.dbname)
        admin.execute(sql.SQL("alter database {} owner to {}").format(database, role))
    return make_conninfo(dsn, user=name)


def test_an_owner_without_superuser_is_told_what_is_missing(bare: Home, start_worker: Any) -> None:
    with empty_database(bare) as dsn:
        owner = make_owner(dsn)
        report = installed(owner)
        assert len(report.warnings) == 1
        assert "create role pgstack_bridge login" in report.warnings[0]
        assert state_of_embed(owner) == "PS009"
        with connect(owner, autocommit=True) as conn:
            conn.execute("create table docs (id integer primary key, body text)")
            conn.execute("insert into docs values (1, 'some text')")
            conn.execute("select pgstack.create_vectorizer('docs', 'body', dimensions => 384)")
            start_worker(owner).wait_until_present()
            assert one(owner, "select pgstack.wait_until_fresh('docs')")
            found = conn.execute("select chunk from pgstack.search('docs', 'text', mode => 'text')")
            assert found.fetchall() == [("some text",)]
        assert did(installed(owner))["tables"] == "kept"


def test_an_owner_who_may_create_roles_gets_a_bridge_with_a_password(bare: Home) -> None:
    with empty_database(bare) as dsn:
        owner = make_owner(dsn, "createrole")
        report = installed(owner)
        assert "permission denied for foreign-data wrapper dblink_fdw" in report.warnings[0]
        advice = report.warnings[0].partition("As a superuser: ")[2].partition("; then:")[0]
        assert advice.startswith("grant usage on foreign data wrapper dblink_fdw to owner_")
        assert "createrole" not in advice
        with connect(dsn, autocommit=True) as admin:
            admin.execute(advice.encode())
        report = installed(owner)
        assert report.warnings == []
        assert report.steps[-1].detail == "logs in with a password of its own"
        assert state_of_embed(owner) == "PS003"
        with connect(dsn, autocommit=True) as admin:
            admin.execute("create role mallory login")
        visitor = make_conninfo(dsn, user="mallory")
        assert state_of_embed(visitor) == "PS003"
        with connect(visitor, autocommit=True) as conn:
            shown = conn.execute("select umoptions from pg_user_mappings").fetchall()
            assert shown == [(None,)]
            with pytest.raises(psycopg.errors.UndefinedObject):
                conn.execute("select dblink_connect('x', 'pgstack_bridge')")
        assert set(did(installed(owner)).values()) <= {"kept", "skipped"}


def test_an_owner_without_superuser_prepares_searches(bare: Home) -> None:
    """In a session that has not used pgvector yet, as a worker's may be."""
    with empty_database(bare) as dsn:
        owner = make_owner(dsn, "createrole")
        installed(owner)
        with connect(owner, autocommit=True) as conn:
            conn.execute("create table note (id int primary key, body text)")
            conn.execute("select pgstack.create_vectorizer('note', 'body', dimensions => 3)")
            conn.execute(
                "create index on note_embedding_store using hnsw (embedding vector_cosine_ops)"
            )
        with connect(owner, autocommit=True) as conn:
            due = one(owner, "select statement from _pgstack.index_due()")
            conn.execute(str(due).encode())
        assert one(owner, "select count(*) from _pgstack.prepared_search") == 1


def test_a_copy_of_a_database_gets_a_bridge_of_its_own(bare: Home) -> None:
    with empty_database(bare) as dsn:
        owner = make_owner(dsn, "createrole createdb")
        role = one(dsn, "select 'owner_' || current_database()")
        with connect(dsn, autocommit=True) as admin:
            admin.execute(f"grant usage on foreign data wrapper dblink_fdw to {role}".encode())
        assert installed(owner).warnings == []
        with connect(postgres.dsn(bare), autocommit=True) as admin:
            original = sql.Identifier(owner_database(owner))
            admin.execute(
                sql.SQL("create database copy template {} owner {}").format(
                    original, sql.Identifier(role)
                )
            )
        copy = make_conninfo(owner, dbname="copy")
        assert state_of_embed(copy) == "PS009"
        assert installed(copy).warnings == []
        assert state_of_embed(copy) == "PS003"
        assert state_of_embed(owner) == "PS003"


def owner_database(dsn: str) -> str:
    return str(one(dsn, "select current_database()"))


def test_a_role_that_may_nothing_is_told_who_may(bare: Home, dump: Dump) -> None:
    with empty_database(bare) as dsn:
        with connect(dsn, autocommit=True) as admin:
            admin.execute("create extension vector; create role mallory login")
        before = dump(dsn)
        refused(make_conninfo(dsn, user="mallory"), "permission denied", "owner")
        assert dump(dsn) == before


@pytest.mark.parametrize("schema", ["pgstack", "_pgstack"])
def test_a_schema_that_somebody_else_made_is_not_trusted(bare: Home, schema: str) -> None:
    with empty_database(bare) as dsn:
        with connect(dsn, autocommit=True) as admin:
            admin.execute(
                f"create role mallory; create schema {schema} authorization mallory".encode()
            )
        refused(dsn, f"schema {schema} belongs to mallory", f"drop schema {schema}")


@pytest.mark.parametrize("role", ["pgstack_owner", "pgstack_bridge"])
@pytest.mark.parametrize("power", ["superuser", "createrole", "bypassrls"])
def test_a_role_that_may_too_much_is_not_trusted(bare: Home, role: str, power: str) -> None:
    with empty_database(bare) as dsn:
        with connect(dsn, autocommit=True) as admin:
            admin.execute(f"create role {role} login {power}".encode())
        refused(dsn, f"role {role} may do too much", f"alter role {role} nosuperuser")


def test_an_install_mends_the_bridges_role(bare: Home) -> None:
    with empty_database(bare) as dsn:
        installed(dsn)
        with connect(dsn, autocommit=True) as admin:
            admin.execute("alter role pgstack_bridge set search_path = 'x'")
        installed(dsn)
        query = "select rolconfig from pg_roles where rolname = 'pgstack_bridge'"
        assert one(dsn, query) is None


def test_a_waiting_install_gives_way_when_told(db_url: str) -> None:
    """It waits for another install behind a lock, where a timeout ends it."""
    with connect(db_url) as busy:
        busy.execute("select pg_advisory_xact_lock(1885827956, 2)")
        with connect(db_url) as conn:
            conn.execute("set lock_timeout = '100ms'")
            conn.commit()
            began = time.monotonic()
            with pytest.raises(InstallError, match="in use"):
                install.install(conn)
        assert time.monotonic() - began < 10
    assert installed(db_url).warnings == []
