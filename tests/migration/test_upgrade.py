"""Upgrading from any revision of the tables ends where a fresh install does."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.script import ScriptDirectory

from pgstack import install, migrations, sqlfiles
from pgstack.db import connect, execute_script
from pgstack.embedded.home import Home
from tests.conftest import EXISTING_SERVER, Server
from tests.migration.conftest import did, empty_database, installed, program

Dump = Callable[[str], str]
SCRIPTS = ScriptDirectory.from_config(migrations.config())
REVISIONS = [script.revision for script in SCRIPTS.walk_revisions()][::-1]


def install_revision(dsn: str, revision: str) -> None:
    """The tables as an older release left them, without functions."""
    with connect(dsn) as conn:
        for recipe in sqlfiles.recipes():
            if EXISTING_SERVER and install.extensions(conn)[recipe.name].available is None:
                continue
            execute_script(conn, recipe.install_sql())
        install._install_pgai(conn, "public")
        conn.execute("create schema _pgstack; create schema pgstack")
        conn.commit()
    address = dsn.replace("postgresql://", "postgresql+psycopg://")
    engine = sa.create_engine(address, poolclass=sa.pool.NullPool)
    with engine.begin() as connection:
        command.upgrade(migrations.config(connection, vector_schema="public"), revision)
    engine.dispose()


@pytest.fixture(scope="module")
def fresh(server: Server, dump: Dump) -> str:
    """The dump of a fresh install."""
    with empty_database(server) as dsn:
        installed(dsn)
        return dump(dsn)


@pytest.mark.parametrize("revision", REVISIONS)
def test_from_any_revision_to_a_fresh_install(
    empty_url: str, dump: Dump, fresh: str, revision: str
) -> None:
    install_revision(empty_url, revision)
    before = dump(empty_url)
    assert "_pgstack.alembic_version" in before
    assert "pgstack.embed(" not in before
    assert did(installed(empty_url))["tables"] == (
        "kept" if revision == migrations.head() else "upgraded"
    )
    assert dump(empty_url) == fresh
    assert did(installed(empty_url))["tables"] == "kept"
    assert dump(empty_url) == fresh


def test_revisions_are_one_line_from_first_to_last() -> None:
    assert SCRIPTS.get_heads() == [migrations.head()]
    assert SCRIPTS.get_bases() == [REVISIONS[0]]
    assert sorted(REVISIONS) == REVISIONS


def test_revisions_only_go_forward() -> None:
    for script in SCRIPTS.walk_revisions():
        assert not hasattr(script.module, "downgrade")
        assert script.doc


def test_what_people_stored_outlives_an_upgrade(empty_url: str) -> None:
    install_revision(empty_url, REVISIONS[0])
    with connect(empty_url, autocommit=True) as conn:
        conn.execute("insert into _pgstack.setting (name, value) values ('query_cache', 'off')")
    installed(empty_url)
    with connect(empty_url, autocommit=True) as conn:
        assert conn.execute("select _pgstack.setting_value('query_cache')").fetchone() == ("off",)


def test_a_dump_restores_and_installs_again(
    server: Server, second_server: Home, db_url: str, dump: Dump, tmp_path: Path
) -> None:
    with connect(db_url, autocommit=True) as conn:
        conn.execute("create table docs (id integer primary key, body text)")
        conn.execute("select pgstack.create_vectorizer('docs', 'body', dimensions => 3)")
    file = tmp_path / "dump"
    pg_dump, pg_restore = (program(n, server, second_server) for n in ("pg_dump", "pg_restore"))
    subprocess.run([pg_dump, "-Fc", "-f", file, "-d", db_url], check=True)
    with empty_database(server) as dsn:
        subprocess.run([pg_restore, "--exit-on-error", "-d", dsn, file], check=True)
        assert dump(dsn) == dump(db_url)
        assert set(did(installed(dsn)).values()) == {"kept"}
        assert dump(dsn) == dump(db_url)


def test_a_restored_table_stays_adopted(
    server: Server, second_server: Home, db_url: str, tmp_path: Path
) -> None:
    with connect(db_url, autocommit=True) as conn:
        conn.execute(
            "create table docs (id integer primary key, body text, note text) "
            "partition by range (id)"
        )
        conn.execute("create table docs_1 partition of docs default")
        conn.execute("select pgstack.create_vectorizer('docs', 'body', dimensions => 3)")
    file = tmp_path / "dump"
    pg_dump, pg_restore = (program(n, server, second_server) for n in ("pg_dump", "pg_restore"))
    subprocess.run([pg_dump, "-Fc", "-f", file, "-d", db_url], check=True)
    with empty_database(server) as dsn:
        subprocess.run([pg_restore, "--exit-on-error", "-d", dsn, file], check=True)
        with connect(dsn, autocommit=True) as conn:
            conn.execute("insert into docs values (1, 'one'), (2, 'two')")
            plan = conn.execute("select queue from _pgstack.vectorizer_plan").fetchone()
            assert plan is not None
            conn.execute(f"delete from {plan[0]}")
            assert conn.execute("select _pgstack.prepare_vectorizers()").fetchone() == (0,)
            conn.execute("update docs set note = 'new'")
            conn.execute("update docs_1 set body = 'new' where id = 2")
            assert conn.execute(f"select id from {plan[0]}").fetchall() == [(2,)]


# As pgstack.create_collection() made it up to revision 0006.
OLD_COLLECTION = """
    create schema pgstack_collections;
    create table pgstack_collections."Old docs" (
      id bigint generated always as identity primary key,
      uri text not null unique,
      title text,
      media_type text,
      content text not null,
      content_hash bytea not null,
      bytes bigint,
      metadata jsonb not null default '{}',
      ingested_at timestamptz not null default now()
    );
    insert into pgstack_collections."Old docs" (uri, title, content, content_hash, bytes)
      select 'u' || i, 'Title', 'text ' || i, sha256(convert_to('text ' || i, 'UTF8')), 6
      from generate_series(1, 3) as i;
    select ai.create_vectorizer(
      'pgstack_collections."Old docs"', name => 'old_docs',
      loading => ai.loading_column('content'), embedding => ai.embedding_ollama('m', 3),
      destination => ai.destination_table('old_docs_embedding')
    );
    create table pgstack_collections.planted as table pgstack_collections."Old docs";
"""


def test_collections_made_before_become_today_s(empty_url: str) -> None:
    install_revision(empty_url, "0006")
    shape = (
        "select a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull, "
        "pg_get_expr(d.adbin, d.adrelid) from pg_attribute as a "
        "left join pg_attrdef as d on d.adrelid = a.attrelid and d.adnum = a.attnum "
        "where a.attrelid = to_regclass(%s) and a.attnum > 0 order by 1"
    )
    rules = (
        "select contype, pg_get_constraintdef(oid) from pg_constraint "
        "where conrelid = to_regclass(%s) union all "
        "select 'i', regexp_replace(indexdef, '^.* USING', '') from pg_indexes "
        "where format('%%I.%%I', schemaname, tablename)::regclass = to_regclass(%s) order by 1, 2"
    )
    with connect(empty_url, autocommit=True) as conn:
        conn.execute(OLD_COLLECTION)
        before = conn.execute('select * from pgstack_collections."Old docs"').fetchall()
    installed(empty_url)
    with connect(empty_url, autocommit=True) as conn:
        old, new = 'pgstack_collections."Old docs"', "pgstack_collections.fresh"
        conn.execute("select pgstack.create_collection('fresh', dimensions => 3)")
        assert conn.execute(shape, (old,)).fetchall() == conn.execute(shape, (new,)).fetchall()
        found = conn.execute(rules, (old, old)).fetchall()
        assert found == conn.execute(rules, (new, new)).fetchall()
        after = conn.execute(
            "select id, uri, title, media_type, content, content_hash, bytes, metadata, "
            'ingested_at from pgstack_collections."Old docs"'
        ).fetchall()
        assert after == before
        # One that pgstack did not make, for it has no vectorizer, is still none.
        names = conn.execute("select name, documents, failed from pgstack.collections").fetchall()
        assert names == [("Old docs", 3, 0), ("fresh", 0, 0)]
        put = "select pgstack.ingest_text('Old docs', 'u1', %s, 'Title', %s)"
        assert conn.execute(put, ("text 1", None)).fetchone() == ("unchanged",)
        assert conn.execute(put, ("text two", None)).fetchone() == ("updated",)
        states = conn.execute("select uri, status, owner from pgstack.documents order by uri")
        assert states.fetchall() == [(uri, "ready", None) for uri in ("u1", "u2", "u3")]


def test_a_restored_collection_is_one(
    server: Server, second_server: Home, db_url: str, tmp_path: Path
) -> None:
    with connect(db_url, autocommit=True) as conn:
        conn.execute("select pgstack.create_collection('The docs', dimensions => 3)")
        conn.execute("select pgstack.ingest_bytes('The docs', 'u', 'file')")
    file = tmp_path / "dump"
    pg_dump, pg_restore = (program(n, server, second_server) for n in ("pg_dump", "pg_restore"))
    subprocess.run([pg_dump, "-Fc", "-f", file, "-d", db_url], check=True)
    with empty_database(server) as dsn:
        subprocess.run([pg_restore, "--exit-on-error", "-d", dsn, file], check=True)
        with connect(dsn, autocommit=True) as conn:
            states = conn.execute("select collection, uri, status from pgstack.documents")
            assert states.fetchall() == [("The docs", "u", "pending")]
            put = "select pgstack.ingest_bytes('The docs', 'u', 'file')"
            assert conn.execute(put).fetchone() == ("unchanged",)
