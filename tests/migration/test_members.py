"""Vectorizers and collections made by a member of pgstack's owner, without superuser."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo

from pgstack.db import connect
from pgstack.embedded.home import Home
from tests.migration.conftest import empty_database, installed
from tests.migration.test_extraction_rights import until
from tests.migration.test_install import make_owner, one

MAKE = "select pgstack.create_vectorizer('s.notes', 'body', dimensions => 384, index => 'none')"
FRESH = "select bool_and(state = 'fresh') from pgstack.vectorizer_status"
BELONGINGS = """
    select c.oid::regclass::text as name from pg_class as c where c.relowner = 'mallory'::regrole
      and c.relkind in ('r', 'v', 'S') and c.oid <> 's.notes'::regclass
    union all
    select p.oid::regprocedure::text from pg_proc as p where p.proowner = 'mallory'::regrole
"""


class Roles:
    """DSNs: an administrator, the owner of pgstack, and mallory, a member of that."""

    def __init__(self, dsn: str) -> None:
        self.admin, self.owner = dsn, make_owner(dsn)
        self.member = make_conninfo(dsn, user="mallory")
        self.name = str(one(dsn, "select 'owner_' || current_database()"))
        installed(self.owner)
        self.as_admin("create role mallory login in role {owner}")
        self.as_admin("create schema s authorization mallory")
        self.as_member("create table s.notes (id int primary key, body text)")

    def as_admin(self, statement: str) -> None:
        with connect(self.admin, autocommit=True) as conn:
            conn.execute(sql.SQL(statement).format(owner=sql.Identifier(self.name)))

    def as_member(self, *statements: str) -> None:
        with connect(self.member, autocommit=True) as conn:
            for statement in statements:
                conn.execute(sql.SQL(statement).format(owner=sql.Identifier(self.name)))

    def let_owner_in(self) -> None:
        self.as_member(
            "grant usage, create on schema s to {owner}",
            "grant select, update on s.notes to {owner}",
        )


@pytest.fixture
def roles(bare: Home) -> Iterator[Roles]:
    with empty_database(bare) as dsn:
        yield Roles(dsn)


def test_what_a_member_makes_the_worker_runs(roles: Roles, start_worker: Any) -> None:
    roles.let_owner_in()
    roles.as_member(
        MAKE,
        "select pgstack.create_collection('docs', dimensions => 384)",
        "alter table pgstack_collections.docs enable row level security",
        "create policy tenants on pgstack_collections.docs using (tenant = current_user)",
        "insert into s.notes values (1, 'One.'), (2, 'Two.')",
        "select pgstack.ingest_text('docs', 'a.txt', 'A text.')",
        "select pgstack.ingest_bytes('docs', 'b.txt', 'Another.')",
    )
    assert one(roles.admin, f"select array_agg(b.name) from ({BELONGINGS}) as b") is None
    start_worker(roles.owner).wait_until_present()
    until(roles.owner, FRESH)
    assert one(roles.owner, "select count(*) from s.notes_embedding_store") == 2
    assert one(roles.owner, "select count(*) from pgstack_collections.docs_embedding_store") == 2
    # Nobody else may read more than before: chunks go with their source rows.
    roles.as_admin("create role mallory_not login")
    stranger = make_conninfo(roles.admin, user="mallory_not")
    roles.as_member("grant usage on schema s to public", "grant select on s.notes to public")
    assert one(stranger, "select count(*) from s.notes_embedding") == 2
    roles.as_member("revoke select on s.notes from public")
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        one(stranger, "select count(*) from s.notes_embedding")
    # The source stays its owner's, whose writes do not hang on what he was once a member of.
    roles.as_admin("revoke {owner} from mallory")
    roles.as_member("delete from s.notes where id = 1", "insert into s.notes values (3, 'Three.')")
    until(roles.owner, FRESH)
    assert one(roles.owner, "select array_agg(id order by id) from s.notes_embedding") == [2, 3]


def test_a_member_drops_what_he_made(roles: Roles) -> None:
    roles.let_owner_in()
    count = """
        select (select count(*) from pg_class where relname !~ '^pg_')
          + (select count(*) from pg_proc)
    """
    before = one(roles.admin, count)
    roles.as_member(
        MAKE,
        "select pgstack.create_search_function('notes', 'found')",
        "select pgstack.create_collection('docs', dimensions => 384)",
        "select pgstack.drop_vectorizer('notes', true)",
        "select pgstack.drop_collection('docs')",
    )
    assert one(roles.admin, count) == before


def test_a_schema_that_pgstacks_owner_may_not_use(roles: Roles) -> None:
    with pytest.raises(psycopg.Error) as caught:
        roles.as_member(MAKE)
    assert caught.value.sqlstate == "PS014"
    hint = caught.value.diag.message_hint
    assert hint == f"grant usage, create on schema s to {roles.name};"
    assert one(roles.owner, "select count(*) from ai.vectorizer") == 0
    roles.as_member(hint, MAKE)


def test_one_that_the_worker_may_not_read_does_not_stop_the_others(
    roles: Roles, start_worker: Any
) -> None:
    roles.let_owner_in()
    roles.as_member(MAKE, "select pgstack.create_collection('docs', dimensions => 384)")
    roles.as_admin("alter table s.notes_embedding_store owner to mallory")
    roles.as_member(
        "alter table s.notes enable row level security",
        "revoke usage on schema s from {owner}",
        "insert into s.notes values (1, 'One.')",
    )
    start_worker(roles.owner).wait_until_present()
    problem = "select max(problem) from _pgstack.vectorizer"
    for number, lacking in enumerate(("grant usage", "s.notes owner", "_store owner")):
        until(roles.owner, f"select problem like '%{lacking}%' from ({problem}) as p (problem)")
        roles.as_member(f"select pgstack.ingest_text('docs', '{number}', 'A text of {number}.')")
        until(
            roles.owner,
            f"select count(*) = {number + 1} from pgstack_collections.docs_embedding_store",
        )
        said = str(one(roles.owner, problem))
        roles.as_admin(said.partition(": ")[2])
    until(roles.owner, FRESH)
    assert one(roles.owner, "select count(*) from s.notes_embedding_store") == 1
    roles.as_member(
        "alter table s.notes force row level security",
        "create policy everything on s.notes using (true)",
        "insert into s.notes values (2, 'Two.')",
    )
    until(roles.owner, f"select problem like '%no force%' from ({problem}) as p (problem)")
