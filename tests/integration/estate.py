"""The estate: tables of every kind that alice and bob share, for test_tenants.py.

What alice wrote says ``heirloom``; bob has rows of his own.  A kind of table is one entry of
``SOURCES``: how it is made, who may read what, and how it is vectorized.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import psycopg
from psycopg.conninfo import make_conninfo

from pgstack.db import connect

Connection = psycopg.Connection[Any]
SECRET = "heirloom"


class Source(NamedTuple):
    """A kind of table.  {t}: the table, {n}: its name, {a}, {b}: the roles of alice and bob."""

    rights: str
    create: str = "create table {t} (id text primary key, tenant name, title text, body text)"
    vectorize: str = "select pgstack.create_vectorizer('{t}', 'body', dimensions => 384)"
    insert: str = (
        "insert into {t} (id, tenant, title, body) values ('{i}', '{who}', '{word}', '{text}')"
    )
    table: str = "estate.{n}"
    content: str = "body"
    has_store: bool = True


POLICY = (
    "alter table {t} enable row level security; grant select on {t} to {a}, {b}; "
    "create policy own on {t} using (tenant = current_user)"
)
PLAIN = (
    "select ai.create_vectorizer('{t}'::regclass, name => '{n}', "
    "loading => ai.loading_column('body'), embedding => ai.embedding_ollama('all-minilm', 384), "
    "destination => ai.destination_table('{n}_embedding')); "
    "select pgstack.create_search_function('{n}')"
)

SOURCES = {
    "own": Source(POLICY),
    "by_setting": Source(
        "alter table {t} enable row level security; grant select on {t} to {a}, {b}; "
        "create policy own on {t} using (tenant = current_setting('estate.tenant'))"
    ),
    "titled": Source(
        POLICY,
        vectorize="select pgstack.create_vectorizer('{t}', array['title', 'body'], "
        "dimensions => 384, chunk_size => 20, chunk_overlap => 5)",
    ),
    "partitioned": Source(
        POLICY,
        create="create table {t} (id text, tenant name, title text, body text, "
        "primary key (tenant, id)) partition by list (tenant); "
        "create table {t}_a partition of {t} for values in ('{a}'); "
        "create table {t}_b partition of {t} for values in ('{b}')",
    ),
    "inherited": Source(
        POLICY,
        create="create table {t} (id text primary key, tenant name, title text, body text); "
        "create table {t}_child () inherits ({t})",
        insert="insert into {t}_child (id, tenant, title, body) "
        "values ('{i}', '{who}', '{word}', '{text}')",
    ),
    "inline": Source(
        POLICY,
        vectorize="select pgstack.create_vectorizer("
        "'{t}', 'body', dimensions => 384, embedding_column => 'embedding')",
        has_store=False,
    ),
    "by_column": Source("grant select on {t} to {a}; grant select (id, tenant) on {t} to {b}"),
    "revoked": Source("grant select on {t} to {a}, {b}; revoke select on {t} from {b}"),
    "closed": Source(
        "grant usage on schema closed to {a}; grant select on {t} to {a}, {b}", table="closed.{n}"
    ),
    "plain": Source(POLICY, vectorize=PLAIN),
    "adopted": Source(POLICY, vectorize=PLAIN + "; select pgstack.adopt_vectorizer('{n}')"),
    "folder": Source(
        "alter table {t} enable row level security; grant select on {t} to {a}, {b}; "
        "create policy own on {t} using (metadata ->> 'tenant' = current_user)",
        create="select pgstack.create_collection('{n}', dimensions => 384)",
        vectorize="select 1",
        insert="select pgstack.ingest_text('{n}', '{i}', '{text}', '{word}', "
        "metadata => jsonb_build_object('tenant', '{who}'))",
        table="pgstack_collections.{n}",
        content="content",
    ),
}

# What bob brings along: things that tell what they are given, and cost next to nothing.
TOOLS = """
    create schema bob authorization {b};
    set role {b};
    create function bob.peek(seen text) returns boolean language plpgsql cost 0.0000001
      as $$ begin raise notice 'saw %', seen; return true; end $$;
    create function bob.peek(seen text, other text) returns boolean language plpgsql
      cost 0.0000001 as $$ begin raise notice 'saw % %', seen, other; return true; end $$;
    create operator bob.=== (leftarg = text, rightarg = text, function = bob.peek);
    create function bob.gather(state text, seen text) returns text language plpgsql
      as $$ begin raise notice 'saw %', seen; return seen; end $$;
    create aggregate bob.gather(text) (sfunc = bob.gather, stype = text);
    create text search configuration bob.words (copy = simple);
    create table bob.bait (id text);
    insert into bob.bait select 'a' || i from generate_series(1, 3) as i;
    grant usage on schema bob to public;
    grant execute on all functions in schema bob to public;
    grant select on bob.bait to public;
    reset role;
"""


class Estate:
    """The database, its roles, and a connection for each of them."""

    def __init__(self, dsn: str) -> None:
        self.mark = uuid.uuid4().hex[:8]
        self.alice, self.bob = f"alice_{self.mark}", f"bob_{self.mark}"
        self.owner = connect(dsn, autocommit=True)
        for role in (self.alice, self.bob):
            self.owner.execute(f"create role {role} login".encode())
            self.owner.execute(f"alter role {role} set estate.tenant = '{role}'".encode())
        self.owner.execute("create schema estate; create schema closed")
        self.owner.execute("grant usage on schema estate to public")
        self.owner.execute(TOOLS.format(b=self.bob).encode())
        self.as_alice = connect(make_conninfo(dsn, user=self.alice), autocommit=True)
        self.as_bob = connect(make_conninfo(dsn, user=self.bob), autocommit=True)
        self.vectors: dict[str, list[str]] = {}

    def build(self) -> None:
        """Make every table, embed it, and collect statistics."""
        for name, source in SOURCES.items():
            names = self.names(name)
            for statement in (source.create, source.rights, source.vectorize):
                self.owner.execute(statement.format(**names).encode())
            for i in (1, 2, 3):
                for who, sign, word in ((self.alice, "a", SECRET), (self.bob, "b", "trinket")):
                    self.owner.execute(
                        source.insert.format(
                            **names, i=f"{sign}{i}", who=who, word=word,
                            text=f"A {word} number {i} of a {word} collection, to be kept secret",
                        ).encode()
                    )  # fmt: skip
        for name, source in SOURCES.items():
            fresh = self.owner.execute("select pgstack.wait_until_fresh(%s)", (name,)).fetchone()
            assert fresh == (True,), name
            query = "select left({embedding}::text, 60) from {store} where {chunk} ~ '{secret}'"
            found = self.owner.execute(query.format(**self.names(name)).encode()).fetchall()
            assert found
            self.vectors[name] = [row[0] for row in found]
            if source.has_store:
                made = "select _pgstack.build_words(id) from ai.vectorizer where name = %s"
                self.owner.execute(made, (name,))
        self.owner.execute("analyze")

    def names(self, name: str) -> dict[str, str]:
        """What stands for the braces in statements about a table."""
        source = SOURCES[name]
        schema = source.table.partition(".")[0]
        table = source.table.format(n=name)
        view = f"{schema}.{name}_embedding" if source.has_store else table
        found = self.owner.execute("select id from ai.vectorizer where name = %s", (name,))
        number = next(iter(found), (0,))[0]
        return {
            "id": str(number),
            "key": self.key(name, self.alice, 1), "own_key": self.key(name, self.bob, 2),
            "words": f"ai._pgstack_words_{number}" if source.has_store else table,
            "n": name, "t": table, "a": self.alice, "b": self.bob, "schema": schema,
            "view": view, "store": f"{view}_store" if source.has_store else table,
            "chunk": "chunk" if source.has_store else source.content,
            "embedding": "embedding", "content": source.content, "secret": SECRET,
            "keys": "'1', '3', '5'" if schema == "pgstack_collections" else "'a1', 'a2', 'a3'",
        }  # fmt: skip

    def key(self, name: str, who: str, nr: int) -> str:
        """The key of the first row of alice, nr 1, or of bob, 2, as JSON."""
        if SOURCES[name].table.startswith("pgstack_collections"):
            return str(nr)
        key = {"tenant": who, "id": f"{'ab'[nr - 1]}1"}
        return json.dumps(key if name == "partitioned" else key["id"])

    def tells(self, name: str, seen: str) -> bool:
        """Whether what somebody saw holds a text of alice's, or a vector."""
        return SECRET in seen or any(vector in seen for vector in self.vectors.get(name, []))

    def close(self) -> None:
        """Drop the roles; the database goes with whoever made it."""
        self.as_alice.close()
        self.as_bob.close()
        for role in (self.alice, self.bob):
            self.owner.execute(f"drop owned by {role} cascade".encode())
            self.owner.execute(f"drop role {role}".encode())
        self.owner.close()


@contextmanager
def listening(conn: Connection) -> Iterator[list[str]]:
    """Collect the notices that a connection gets."""
    heard: list[str] = []

    def hear(diag: psycopg.errors.Diagnostic) -> None:
        heard.append(diag.message_primary or "")

    conn.add_notice_handler(hear)
    try:
        yield heard
    finally:
        conn.remove_notice_handler(hear)


def seen(conn: Connection, statements: str) -> str:
    """All that a role gets to see of statements: rows, notices, and an error with its details."""
    with listening(conn) as heard:
        try:
            with conn.transaction(force_rollback=True):
                conn.execute("set local statement_timeout = '5s'")
                cursor = conn.execute(statements.encode())
                while True:
                    if cursor.description:
                        heard.extend(map(str, cursor.fetchall()))
                    if not cursor.nextset():
                        break
        except psycopg.Error as exc:
            diag = exc.diag
            heard += [
                f"{exc.sqlstate} {diag.message_primary}", diag.message_detail or "",
                diag.message_hint or "", diag.context or "",
            ]  # fmt: skip
    return "\n".join(heard)
