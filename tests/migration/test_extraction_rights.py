"""The worker reads files as a role without superuser: the owner of pgstack."""

from __future__ import annotations

import time
from typing import Any

from psycopg.conninfo import make_conninfo

from pgstack.db import connect
from pgstack.embedded.home import Home
from tests.migration.conftest import empty_database, installed
from tests.migration.test_install import make_owner, one

PUT = "select pgstack.ingest_bytes('docs', %s, %s)"
STATES = "select uri, status, tenant from pgstack_collections.docs order by id"


def until(dsn: str, query: str, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not one(dsn, query):
        assert time.monotonic() < end, one(
            dsn, "select jsonb_agg(to_jsonb(c)) from pgstack.collections as c"
        )
        time.sleep(0.05)


def test_a_worker_without_superuser_reads_files_under_policies(
    bare: Home, start_worker: Any
) -> None:
    with empty_database(bare) as dsn:
        owner = make_owner(dsn)
        installed(owner)
        with connect(owner, autocommit=True) as conn:
            conn.execute("select pgstack.create_collection('docs', dimensions => 384)")
            conn.execute("alter table pgstack_collections.docs enable row level security")
            conn.execute(
                "create policy tenants on pgstack_collections.docs using (tenant = current_user)"
            )
            conn.execute(
                "grant select, insert, update, delete on pgstack_collections.docs to public"
            )
        with connect(dsn, autocommit=True) as admin:
            admin.execute("create role mallory login")
        start_worker(owner).wait_until_present()
        visitor = make_conninfo(dsn, user="mallory")
        with connect(visitor, autocommit=True) as conn:
            conn.execute("set pgstack.tenant = 'mallory'")
            assert conn.execute(PUT, ("u.txt", b"A text.")).fetchone() == ("inserted",)
        until(owner, "select exists (select from pgstack_collections.docs_embedding_store)")
        with connect(owner, autocommit=True) as conn:
            assert conn.execute(STATES).fetchall() == [("u.txt", "ready", "mallory")]
            # Policies that bind the owner hide rows from the worker, which does not guess.
            conn.execute("alter table pgstack_collections.docs force row level security")
        with connect(visitor, autocommit=True) as conn:
            conn.execute("set pgstack.tenant = 'mallory'")
            assert conn.execute(PUT, ("v.txt", b"Another.")).fetchone() == ("inserted",)
        until(owner, "select problem like '%row-level security%' from pgstack.collections")
        with connect(visitor, autocommit=True) as conn:
            shown = conn.execute("select uri, status from pgstack.documents order by 1").fetchall()
            assert shown == [("u.txt", "ready"), ("v.txt", "pending")]
            # What keeps the worker from it may quote a text, and is for the owner.
            assert conn.execute("select problem from pgstack.collections").fetchall() == [(None,)]
        with connect(owner, autocommit=True) as conn:
            conn.execute("alter table pgstack_collections.docs no force row level security")
        until(owner, "select count(*) = 2 from pgstack_collections.docs where status = 'ready'")
        until(owner, "select problem is null from pgstack.collections")
