"""A vectorizer's search function outlives an upgrade, a dump and a restore."""

from __future__ import annotations

import subprocess
from pathlib import Path

from pgstack.db import connect
from pgstack.embedded.home import Home
from tests.conftest import Server
from tests.migration.conftest import empty_database, installed, program

SEARCH = "select id, kind from docs_embedding_search('zebra', mode => 'text')"


def test_restored_it_finds_rows_and_an_install_keeps_it(
    server: Server, second_server: Home, db_url: str, tmp_path: Path
) -> None:
    with connect(db_url, autocommit=True) as conn:
        conn.execute(
            """
            create type kind as enum ('tame', 'wild');
            create table docs (id integer primary key, kind kind, body text);
            insert into docs values (7, 'wild', 'The zebra.');
            select pgstack.create_vectorizer('docs', 'body', dimensions => 3);
            insert into docs_embedding_store (id, chunk_seq, chunk, embedding)
            values (7, 0, 'The zebra.', '[1,1,1]');
            """
        )
        assert conn.execute(SEARCH).fetchall() == [(7, "wild")]
    file = tmp_path / "dump"
    pg_dump, pg_restore = (program(n, server, second_server) for n in ("pg_dump", "pg_restore"))
    subprocess.run([pg_dump, "-Fc", "-f", file, "-d", db_url], check=True)
    with empty_database(server) as dsn:
        subprocess.run([pg_restore, "--exit-on-error", "-d", dsn, file], check=True)
        with connect(dsn, autocommit=True) as conn:
            assert conn.execute(SEARCH).fetchall() == [(7, "wild")]
            oid = "select 'docs_embedding_search'::regproc::oid::integer"
            before = conn.execute(oid).fetchone()
            installed(dsn)
            assert conn.execute(oid).fetchone() == before
            assert conn.execute(SEARCH).fetchall() == [(7, "wild")]
            conn.execute("alter table docs add column extra integer default 3")
            conn.execute("select pgstack.create_search_function('docs')")
            extra = SEARCH.replace("kind", "extra")
            assert conn.execute(extra.encode()).fetchall() == [(7, 3)]
            conn.execute("select pgstack.drop_vectorizer('docs')")
            gone = conn.execute("select to_regproc('docs_embedding_search') is null").fetchone()
            assert gone == (True,)
