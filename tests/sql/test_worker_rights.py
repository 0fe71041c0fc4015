"""What a table's owner puts on it runs as whoever reads it: what the worker does not read.

The worker of these tests is the superuser of the test's connection.  bob owns the table, and in his
functions writes down in whose name they run.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable
from typing import Any, LiteralString

import psycopg
import pytest

from pgstack.db import connect
from tests.sql.conftest import CLAIM, COMPLETE
from tests.sql.test_security import acting_as, column, refused

Conn = psycopg.Connection[Any]

# Functions of bob's tell who runs them; the owner himself, when he makes things, does not count.
TRAPS = """
    create schema {bob} authorization {bob};
    set local role {bob};
    create table {bob}.caught (what text, who name);
    grant usage on schema {bob} to public;
    grant insert on {bob}.caught to public;
    create function {bob}.catch(what text) returns text language plpgsql as $$
    begin
      if current_user <> '{bob}' then
        insert into {bob}.caught values (what, current_user);
      end if;
      return '';
    end $$;
    create function {bob}.catch_row() returns trigger language plpgsql as $$
    begin
      perform {bob}.catch('trigger');
      return new;
    end $$;
    create table {bob}.docs (id integer primary key, title text, body text);
    insert into {bob}.docs select i, 'title', 'text ' || i from generate_series(1, 3) as i;
    reset role;
"""
SWAP = """
    alter table {bob}.docs rename to kept;
    create view {bob}.docs as
      select id, title, body || {bob}.catch('view') as body from {bob}.kept;
"""
SWAP_BACK = "drop view {bob}.docs; alter table {bob}.kept rename to docs;"


class Table:
    """bob's table with a vectorizer that the worker's role made."""

    def __init__(self, conn: Conn, bob: str) -> None:
        self.conn, self.bob, self.worker = conn, bob, uuid.uuid4()
        self.run(TRAPS)

    def run(self, statements: LiteralString) -> None:
        self.conn.execute(statements.format(bob=self.bob))

    def run_as_bob(self, statements: LiteralString) -> None:
        with acting_as(self.conn, self.bob):
            self.run(statements)

    def vectorize(self, *, options: LiteralString = "") -> None:
        self.run(
            "select pgstack.create_vectorizer('{bob}.docs', array['title', 'body'], name => 'docs',"
            " dimensions => 3, index => 'none'" + options + ")"
        )

    def claim(self) -> dict[str, Any]:
        row = self.conn.execute(CLAIM, (self.worker,)).fetchone()
        return {"worker": self.worker, "id": row[0], "keys": row[1]} if row else {}

    def complete(self, claimed: dict[str, Any]) -> int:
        with_key = COMPLETE.replace("null, null)", "%(model_key)s, null)", 1)
        [(model_key,)] = self.conn.execute(
            "select _pgstack.model_key(base_url, model, options, keep_alive)"
            " from _pgstack.vectorizer_plan where id = %s",
            (claimed["id"],),
        )
        [(written,)] = self.conn.execute(with_key, {**claimed, "model_key": model_key})
        return int(written)

    def caught(self) -> list[Any]:
        return self.conn.execute(f"select * from {self.bob}.caught".encode()).fetchall()

    def queued(self) -> int:
        [queue] = column(self.conn, "select queue from _pgstack.vectorizer_plan")
        return int(column(self.conn, f"select count(distinct id) from {queue}")[0])

    def chunks(self) -> int:
        return int(column(self.conn, f"select count(*) from {self.bob}.docs_embedding_store")[0])


@pytest.fixture
def table(conn: Conn, make_role: Callable[[str], str]) -> Table:
    return Table(conn, make_role("bob"))


# ------------------------------------------------------ a view in the source's place


def test_a_view_put_there_between_claim_and_load_is_not_read(table: Table) -> None:
    table.vectorize()
    claimed = table.claim()
    table.run_as_bob(SWAP)
    assert table.complete(claimed) == 0
    assert table.caught() == []
    assert table.claim() == {}
    said = column(table.conn, "select problem from _pgstack.vectorizer")
    assert said == [f"the source {table.bob}.docs is no table any more"]
    assert table.queued() == 3
    table.run_as_bob(SWAP_BACK)
    assert table.complete(table.claim()) == 3
    assert (table.queued(), table.chunks()) == (0, 3)


def test_a_view_put_there_between_load_and_completion_is_not_read(table: Table) -> None:
    table.vectorize()
    claimed = table.claim()
    loaded = table.conn.execute(
        "select l.nr, l.version, l.chunk from _pgstack.vectorizer_plan as p cross join lateral"
        " _pgstack.work_load(p.id, %s::jsonb[],"
        " _pgstack.model_key(p.base_url, p.model, p.options, p.keep_alive), null) as l",
        (claimed["keys"],),
    ).fetchall()
    assert len(loaded) == 3
    table.run_as_bob(SWAP)
    [(written,)] = table.conn.execute(
        "select _pgstack.work_complete(%s, %s, %s::jsonb[], %s, '{1}', '{0}', '{0}', '{1}',"
        " '{x}', '{x}', array['[1,1,1]'::vector])",
        (claimed["worker"], claimed["id"], claimed["keys"], [row[1] for row in loaded]),
    )
    assert written == 0
    assert table.caught() == []
    assert (table.queued(), table.chunks()) == (3, 0)


def test_a_view_is_not_read_to_set_rows_aside(table: Table) -> None:
    table.vectorize()
    claimed = table.claim()
    table.run_as_bob(SWAP)
    table.conn.execute(
        "select _pgstack.work_fail(%s, %s, %s::jsonb[], array['x', 'x', 'x']::bytea[], 'no', true)",
        (claimed["worker"], claimed["id"], claimed["keys"]),
    )
    assert table.caught() == []
    assert table.queued() == 3


def test_a_view_is_not_read_for_its_words(table: Table) -> None:
    table.vectorize()
    assert table.complete(table.claim()) == 3
    table.run_as_bob(SWAP)
    with refused(table.conn, "PS013", "no table any more"):
        table.conn.execute("select _pgstack.build_words(id) from ai.vectorizer")
    assert table.caught() == []


LOAD = (
    "select from _pgstack.vectorizer_plan as p cross join lateral _pgstack.work_load(p.id,"
    " array['{{\"id\": 1}}']::jsonb[],"
    " _pgstack.model_key(p.base_url, p.model, p.options, p.keep_alive), null)"
)


@pytest.mark.parametrize(
    ("options", "reading"),
    [("index => 'none'", LOAD), ("embedding_column => 'e'", "select from _pgstack.index_due()")],
    ids=["load", "count"],
)
def test_a_view_for_which_a_statement_had_to_wait_is_not_read(
    db: Conn, db_url: str, options: str, reading: str
) -> None:
    """Looked at before the lock is there, the source would still be a table."""
    db.execute(
        "create table docs (id integer primary key, body text); insert into docs values (1, 'x');"
        "create table caught (what text);"
        "create function catch() returns text language plpgsql as "
        "$$ begin insert into public.caught values ('view'); return 'x'; end $$;"
        f"select pgstack.create_vectorizer('docs', 'body', dimensions => 3, {options})".encode()
    )
    read: list[Any] = []
    with connect(db_url) as other:
        other.execute(
            "alter table docs rename to kept; create view docs as"
            " select id, body, null::vector as e from public.kept where catch() = 'x'"
        )
        waiting = threading.Thread(
            target=lambda: read.extend(db.execute(reading.format().encode()))
        )
        waiting.start()
        blocked = "select %s = any (pg_blocking_pids(%s))"
        with connect(db_url, autocommit=True) as watcher:
            pids = (other.info.backend_pid, db.info.backend_pid)
            while not watcher.execute(blocked, pids).fetchall()[0][0]:
                assert waiting.is_alive()
                time.sleep(0.01)
        other.commit()
        waiting.join(20)
    assert read == []
    assert column(db, "select what from caught") == []


# ------------------------------------------------------------------- somebody's types


@pytest.mark.parametrize(
    ("define", "column_type"),
    [
        ("create type {carol}.t as enum ('title')", "{carol}.t"),
        ("create domain {carol}.t as text", "{carol}.t"),
        ("create type {carol}.t as (a text)", "{carol}.t"),
        ("create type {carol}.t as enum ('title')", "{carol}.t[]"),
        ("create type {carol}.t as (a text)", "{bob}.around"),
    ],
    ids=["enum", "domain", "composite", "array", "inside a type of the owner's"],
)
def test_columns_are_of_types_whose_owners_are_trusted(
    table: Table, make_role: Callable[[str], str], define: str, column_type: str
) -> None:
    """Who owns a type may give it a cast, or a check, which would run where it is read."""
    carol = make_role("carol")
    names = {"bob": table.bob, "carol": carol}
    table.conn.execute(f"create schema {carol} authorization {carol}".encode())
    with acting_as(table.conn, carol):
        table.conn.execute(define.format(**names).encode())
        table.conn.execute(f"grant usage on schema {carol} to public".encode())
        table.conn.execute(f"grant usage on type {carol}.t to public".encode())
    with acting_as(table.conn, table.bob):
        if "around" in column_type:
            table.conn.execute(f"create type {table.bob}.around as (b {carol}.t)".encode())
        table.conn.execute(
            f"alter table {table.bob}.docs add column named {column_type.format(**names)}".encode()
        )
    call = (
        f"select pgstack.create_vectorizer('{table.bob}.docs', array['named', 'body'],"
        " name => 'docs', dimensions => 3)"
    )
    with refused(table.conn, "PS013", f"which belongs to {carol}"):
        table.conn.execute(call.encode())
    # A column that is not read may be of any type; what becomes of one that is read counts.
    table.vectorize()
    assert table.complete(table.claim()) == 3
    table.conn.execute(f"alter type {carol}.t owner to {table.bob}".encode())
    table.conn.execute("select pgstack.drop_vectorizer('docs', drop_data => true)")
    table.conn.execute(call.encode())
    assert table.complete(table.claim()) == 3


def test_a_type_that_gets_another_owner_blocks_its_vectorizers(
    table: Table, make_role: Callable[[str], str]
) -> None:
    carol = make_role("carol")
    table.run_as_bob(
        "create domain {bob}.word as text; alter table {bob}.docs alter title type {bob}.word"
    )
    table.vectorize()
    claimed = table.claim()
    table.conn.execute(f"alter domain {table.bob}.word owner to {carol}".encode())
    assert table.complete(claimed) == 0
    assert table.claim() == {}
    [said] = column(table.conn, "select problem from _pgstack.vectorizer")
    assert said == (f"the column title has the type {table.bob}.word, which belongs to {carol}")
    assert table.queued() == 3
