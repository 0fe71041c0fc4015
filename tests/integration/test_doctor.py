"""``pgstack doctor`` finds what is wrong, and names what mends it."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from pgstack_cli import app as cli
from psycopg import sql
from psycopg.conninfo import make_conninfo
from typer.testing import CliRunner

from pgstack import doctor
from pgstack.db import connect
from pgstack.doctor import Finding
from tests.conftest import Server, has_extension

Connection = psycopg.Connection[Any]

# What an existing server may lack: PGSTACK_TEST_SERVER.
OPTIONAL = ("pg_textsearch", "vectorscale")


def examine(url: str) -> dict[str, Finding]:
    """The findings by name; a later one of the same name wins."""
    findings = list(doctor.examine(url))
    assert all(finding.mend for finding in findings if finding.state == "error"), findings
    return {finding.name: finding for finding in findings}


@pytest.fixture(autouse=True)
def model_server(models_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OLLAMA_HOST", models_url)
    monkeypatch.delenv("PGSTACK_DATABASE_URL", raising=False)


@pytest.fixture
def bare_url(server: Server) -> Iterator[str]:
    """The DSN of a database without anything."""
    name = f"bare_{uuid.uuid4().hex[:8]}"
    with connect(server.dsn(), autocommit=True) as admin:
        admin.execute(sql.SQL("create database {}").format(sql.Identifier(name)))
        yield server.dsn(name)
        admin.execute(sql.SQL("drop database {} with (force)").format(sql.Identifier(name)))


def state_of_everything(db: Connection) -> list[Any]:
    """What doctor may not change."""
    return db.execute(
        "select 'work', count(*) from _pgstack.work union all "
        "select 'request', count(*) from _pgstack.request union all "
        "select 'setting', count(*) from _pgstack.setting union all "
        "select 'class', count(*) from pg_class union all "
        "select 'foreign', count(*) from pg_foreign_server order by 1"
    ).fetchall()


def test_all_is_well(db_url: str, db: Connection, worker: object) -> None:
    before = state_of_everything(db)
    found = examine(db_url)
    lacking = {f"extension {name}" for name in OPTIONAL if not has_extension(db, name)}
    if "pg_stat_statements" not in db.execute("show shared_preload_libraries").fetchone()[0]:
        lacking.add("extension pg_stat_statements")
    assert {f.name for f in found.values() if f.state != "ok"} == lacking
    assert state_of_everything(db) == before
    assert {
        "python", "database", "extension vector", "extension dblink", "pgai", "pgstack", "role",
        "bridge", "worker", "model server", "vectorizers",
    } <= set(found)  # fmt: skip
    done = CliRunner().invoke(cli.app, ["doctor", "-d", db_url])
    assert done.exit_code == 0, done.output
    said = f"0 errors, {len(lacking)} warnings\n" if lacking else "all is well\n"
    assert done.stderr == said


def test_json_is_one_document(db_url: str) -> None:
    done = CliRunner().invoke(cli.app, ["doctor", "-d", db_url, "--json"])
    assert done.exit_code == 1  # no worker
    document = json.loads(done.stdout)
    assert document["ok"] is False
    assert {tuple(finding) for finding in document["findings"]} == {
        ("name", "state", "detail", "mend")
    }
    assert {finding["state"] for finding in document["findings"]} <= {"ok", "warning", "error"}


def test_no_worker(db_url: str) -> None:
    found = examine(db_url)
    assert found["worker"].state == "error"
    assert found["worker"].mend == "pgstack worker -d URL"
    assert found["model server"].state == "ok"  # asked without the worker's help


def test_no_model_server(db_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OLLAMA_HOST", "http://127.0.0.1:1")
    found = examine(db_url)["model server"]
    assert found.state == "warning"
    assert "127.0.0.1:1" in found.detail
    assert found.mend


def test_a_worker_without_a_model_server(db_url: str, start_worker: Callable[..., Any]) -> None:
    start_worker(db_url, models="http://127.0.0.1:1").wait_until_present()
    found = examine(db_url)["model server"]
    assert found.state == "error"
    assert "cannot reach the model server" in found.detail


def test_a_missing_default_model(db_url: str, db: Connection, worker: object) -> None:
    db.execute("select pgstack.configure('embedding_model', 'nobody:1b')")
    found = examine(db_url)["model"]
    assert found.state == "error"
    assert found.mend == "pgstack model pull nobody:1b"


def test_a_missing_model_for_answers_is_a_warning(
    db_url: str, db: Connection, worker: object
) -> None:
    db.execute("select pgstack.configure('generation_model', 'nobody:1b')")
    assert examine(db_url)["model"].state == "warning"


def test_nothing_installed(bare_url: str) -> None:
    found = examine(bare_url)
    assert found["database"].state == "ok"
    assert found["extension vector"].state == "error"
    assert found["extension vector"].mend == "pgstack install -d URL"
    assert found["extension dblink"].state == "warning"
    assert "without it" in found["extension dblink"].detail
    assert found["pgai"].state == found["pgstack"].state == "error"
    done = CliRunner().invoke(cli.app, ["doctor", "-d", bare_url])
    assert done.exit_code == 1
    assert (
        "FAIL  pgstack: not installed in this database\n      mend: pgstack install" in done.stdout
    )


def test_an_unreachable_database_is_a_finding() -> None:
    url = "postgresql://nobody@127.0.0.1:1/nothing"
    found = examine(url)
    assert found["database"].state == "error"
    assert "cannot reach the database" in found["database"].detail
    assert "pgstack up" in (found["database"].mend or "")
    assert found["model server"].state == "ok"
    assert CliRunner().invoke(cli.app, ["doctor", "-d", url]).exit_code == 1


def test_no_embedded_stack(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGSTACK_HOME", str(tmp_path / "none"))
    found = {finding.name: finding for finding in doctor.examine()}
    assert found["embedded stack"].state == found["database"].state == "error"
    assert found["embedded stack"].mend == "pgstack up"
    assert found["disk"].state in ("ok", "warning", "error")
    assert not (tmp_path / "none").exists()


def test_a_wrong_encoding(server: Server) -> None:
    name = f"latin_{uuid.uuid4().hex[:8]}"
    with connect(server.dsn(), autocommit=True) as admin:
        admin.execute(
            sql.SQL(
                "create database {} encoding 'LATIN1' template template0 "
                "locale_provider libc locale 'C'"
            ).format(sql.Identifier(name))
        )
        try:
            found = examine(server.dsn(name))
        finally:
            admin.execute(sql.SQL("drop database {} with (force)").format(sql.Identifier(name)))
    assert found["encoding"].state == "error"
    assert "LATIN1" in found["encoding"].detail


def test_an_extension_too_old_and_one_that_is_gone(db_url: str, db: Connection) -> None:
    db.execute("update pg_extension set extversion = '0.1' where extname = 'vector'")
    db.execute("drop extension pg_trgm cascade")
    found = examine(db_url)
    assert found["extension vector"].state == "error"
    assert found["extension vector"].mend == "alter extension vector update"
    assert found["extension pg_trgm"].state == "warning"


def test_no_dblink(db_url: str, db: Connection) -> None:
    db.execute("drop extension dblink cascade")
    found = examine(db_url)
    assert found["extension dblink"].state == "warning"
    assert found["bridge"].state == "error"


def test_a_bridge_that_cannot_log_in(db_url: str, db: Connection) -> None:
    db.execute(
        "create or replace function _pgstack.bridge_connect() returns void language plpgsql as "
        "$$ begin raise exception 'no entry' using errcode = 'PS009'; end $$"
    )
    found = examine(db_url)["bridge"]
    assert found.state == "error"
    assert "no entry" in found.detail


@pytest.mark.parametrize(
    ("version", "state", "mend"),
    [
        ("0.0.1", "error", "pgstack install -d URL"),
        ("999.0.0", "error", "pip install --upgrade pgstack"),
    ],
)
def test_another_version_in_the_database(
    db_url: str, db: Connection, version: str, state: str, mend: str
) -> None:
    db.execute("update _pgstack.setting set value = %s where name = 'version'", (version,))
    found = examine(db_url)["pgstack"]
    assert (found.state, found.mend) == (state, mend)
    assert version in found.detail


def test_migrations_that_were_not_run(db_url: str, db: Connection) -> None:
    db.execute("update _pgstack.alembic_version set version_num = '0000'")
    found = examine(db_url)["pgstack"]
    assert found.state == "error"
    assert "0000" in found.detail


def test_an_old_pgai(db_url: str, db: Connection) -> None:
    db.execute("update ai.pgai_lib_version set version = '0.1.0' where name = 'ai'")
    assert examine(db_url)["pgai"].state == "warning"


@pytest.fixture
def zoo(db: Connection) -> None:
    db.execute("create table zoo (id int primary key, body text)")
    db.execute("insert into zoo values (1, 'an otter'), (2, 'a fox')")
    db.execute("select pgstack.create_vectorizer('zoo', 'body'::name, dimensions => 384)")


def test_a_blocked_vectorizer(db_url: str, db: Connection, zoo: None) -> None:
    db.execute("alter table zoo rename column body to text")
    found = examine(db_url)["vectorizer zoo"]
    assert found.state == "error"
    assert "blocked: the source has no column body" in found.detail
    assert found.mend == "pgstack vectorizer retry zoo -d URL"


def test_failed_rows(db_url: str, db: Connection, zoo: None) -> None:
    db.execute(
        "insert into _pgstack.work (vectorizer_id, digest, key, state, due_at) "
        "select id, 'x', '{\"id\": 1}', 'failed', now() from ai.vectorizer"
    )
    found = examine(db_url)["vectorizer zoo"]
    assert found.state == "error"
    assert found.detail.startswith("1 rows failed")


def test_leases_of_workers_that_are_gone(db_url: str, db: Connection, zoo: None) -> None:
    assert "leases" not in examine(db_url)
    db.execute(
        "insert into _pgstack.work (vectorizer_id, digest, key, state, worker, due_at) "
        "select id, 'x', '{\"id\": 1}', 'leased', gen_random_uuid(), now() + interval '1 min' "
        "from ai.vectorizer"
    )
    found = examine(db_url)["leases"]
    assert found.state == "warning"
    assert found.detail.startswith("1 rows")


def test_a_role_without_rights_is_told_what_it_may_do(
    db_url: str, db: Connection, zoo: None, worker: object
) -> None:
    name = f"visitor_{uuid.uuid4().hex[:8]}"
    db.execute(sql.SQL("create role {} login").format(sql.Identifier(name)))
    try:
        found = examine(make_conninfo(db_url, user=name))
    finally:
        db.execute(sql.SQL("drop role {}").format(sql.Identifier(name)))
    assert found["role"].state == "warning"
    assert "may search and ask" in found["role"].detail
    assert [f for f in found.values() if f.state == "error"] == []


def test_one_check_that_fails_keeps_no_other_from_being_made(
    db_url: str, db: Connection, worker: object
) -> None:
    db.execute("alter table _pgstack.alembic_version rename to elsewhere")
    db.execute("drop view pgstack.vectorizer_status")
    found = examine_all(db_url)
    broken = {f.name for f in found if f.state == "error"}
    assert broken == {"pgstack", "vectorizers"}
    assert "leases" not in broken
    assert any(f.name == "model server" and f.state == "ok" for f in found)


def examine_all(url: str) -> list[Finding]:
    return list(doctor.examine(url))
