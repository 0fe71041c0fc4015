"""audit_leaks(): it names what is planted, its remedies close it, and else it is silent.

Each plant is a line of ``PLANTS``.  The probe shows that the plant is a leak indeed: bob reads
alice's heirloom by it, and no more once the remedy ran.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import psycopg
import pytest
from psycopg import sql
from psycopg.rows import namedtuple_row

from tests.conftest import need_extension
from tests.sql.test_security import acting_as, refused

Conn = psycopg.Connection[Any]
SECRET = "heirloom"


class Roles(NamedTuple):
    """alice's rows are secret, bob looks for them, the others stand between."""

    alice: str
    bob: str
    team: str
    clerk: str


class Plant(NamedTuple):
    """What opens something to bob, the object the audit must name, and how bob reads it."""

    sql: str
    object: str
    probe: str | None = None


STORE = "select chunk from letter_embedding_store"
MEMO = "select chunk from memo_embedding_store"
READ_WORDS = "select words from {words}"

PLANTS = {
    # chunks of a vectorizer that plain pgai made
    "plain store granted": Plant(
        "grant select on memo_embedding_store to {bob}", "public.memo_embedding_store", MEMO
    ),
    "plain store granted by column": Plant(
        "grant select (chunk) on memo_embedding_store to {bob}", "public.memo_embedding_store", MEMO
    ),
    "plain store granted to everybody": Plant(
        "grant select on memo_embedding_store to public", "public.memo_embedding_store", MEMO
    ),
    "plain store granted to a group of a group": Plant(
        "grant {clerk} to {team}; grant {team} to {bob}; "
        "grant select on memo_embedding_store to {clerk}",
        "public.memo_embedding_store", MEMO,
    ),
    "plain view granted": Plant(
        "grant select on memo_embedding to {bob}", "public.memo_embedding",
        "select chunk from memo_embedding",
    ),
    "source revoked later": Plant(
        "grant select on memo, memo_embedding_store to {bob}; revoke select on memo from {bob}",
        "public.memo_embedding_store", MEMO,
    ),
    "column revoked later": Plant(
        "grant select on memo, memo_embedding_store to {bob}; revoke select on memo from {bob}; "
        "grant select (id, tenant) on memo to {bob}",
        "public.memo_embedding_store", MEMO,
    ),
    "row security later": Plant(
        "grant select on memo, memo_embedding_store to {bob}; "
        "alter table memo enable row level security; "
        "create policy own on memo using (tenant = current_user)",
        "public.memo_embedding_store", MEMO,
    ),
    # chunks of a vectorizer of ours
    "row security off": Plant(
        "alter table letter_embedding_store disable row level security",
        "public.letter_embedding_store", STORE,
    ),
    "policy dropped and security off": Plant(
        "drop policy pgstack_source on letter_embedding_store; "
        "alter table letter_embedding_store disable row level security",
        "public.letter_embedding_store", STORE,
    ),
    "policy altered": Plant(
        "alter policy pgstack_source on letter_embedding_store using (true)",
        "public.letter_embedding_store", STORE,
    ),
    "policy altered a little": Plant(
        "drop policy pgstack_source on letter_embedding_store; "
        "create policy pgstack_source on letter_embedding_store using "
        "(exists (select r.body from letter r where r.id = letter_embedding_store.id) or id < 9)",
        "public.letter_embedding_store", STORE,
    ),
    "another policy": Plant(
        "create policy more on letter_embedding_store for select using (true)",
        "public.letter_embedding_store", STORE,
    ),
    "another policy for a group": Plant(
        "grant {team} to {bob}; "
        "create policy more on letter_embedding_store to {team} using (true)",
        "public.letter_embedding_store", STORE,
    ),
    "view of the owner's rights": Plant(
        "alter view letter_embedding set (security_invoker = false)", "public.letter_embedding",
        "select chunk from letter_embedding",
    ),
    "owner of the chunks": Plant(
        "alter table letter_embedding_store owner to {bob}", "public.letter_embedding_store", STORE
    ),
    "member of the owner": Plant(
        "alter table letter_embedding_store owner to {clerk}; grant {clerk} to {team}; "
        "grant {team} to {bob}",
        "public.letter_embedding_store", STORE,
    ),
    "owner of a source that is forced": Plant(
        "alter table letter owner to {bob}; alter table letter force row level security; "
        "alter table letter_embedding_store owner to {bob}",
        "public.letter_embedding_store", STORE,
    ),
    # their words
    "words without row security": Plant(
        "alter table {words} disable row level security", "ai._pgstack_words_", READ_WORDS
    ),
    "words of another policy": Plant(
        "create policy more on {words} using (true)", "ai._pgstack_words_", READ_WORDS
    ),
    "counted words": Plant(
        "create index counted on letter_embedding_store using bm25 (chunk) "
        "with (text_config = simple)",
        "public.counted",
        "select w from unnest(array['heirloom', 'nonesuch']) as w "
        "where bm25_text_bm25query_score(w, to_bm25query(w, 'counted')) < 0",
    ),
    # what people build on them
    "materialised view of another role": Plant(
        "create materialized view copied as select chunk from letter_embedding_store; "
        "alter materialized view copied owner to {clerk}; grant select on copied to {bob}",
        "public.copied", "select chunk from copied",
    ),
    "view": Plant(
        "create view shown as select chunk from letter_embedding_store; "
        "grant select on shown to {bob}",
        "public.shown", "select chunk from shown",
    ),
    "view of a view": Plant(
        "create view inner_one as select * from letter_embedding_store; "
        "create view outer_one as select chunk from inner_one; grant select on outer_one to public",
        "public.outer_one", "select chunk from outer_one",
    ),
    "search function of the owner's rights": Plant(
        "do $$ begin execute (select format('alter function %s security definer', "
        "p.oid::regprocedure) from pg_proc as p where p.proname = 'letter_embedding_search'); "
        "end $$",
        "function public.letter_embedding_search(",
        "select chunk from letter_embedding_search('heirloom', mode => 'text')",
    ),
    "function of ours of the owner's rights": Plant(
        "alter function _pgstack.vectorizer_errors() security definer; "
        "insert into _pgstack.work (vectorizer_id, digest, key, state, due_at, last_error) "
        "select id, 'x', '{{}}', 'failed', now(), 'no heirloom please' from ai.vectorizer limit 1",
        "function _pgstack.vectorizer_errors()", "select error from pgstack.vectorizer_errors",
    ),
    "view of ours of the owner's rights": Plant(
        "create view pgstack.odd as select payload from _pgstack.request; "
        "grant select on pgstack.odd to public",
        "pgstack.odd", "select payload::text from pgstack.odd",
    ),
    # vectors in the source
    "vectors of a closed text": Plant(
        "grant select (id, embedding) on card to {bob}", "public.card",
        "select 'heirloom' from card where embedding is not null",
    ),
    # private tables
    "questions": Plant(
        "grant select on _pgstack.request to {bob}", "_pgstack.request",
        "select payload::text from _pgstack.request",
    ),
    "questions by alice's favour": Plant(
        "grant select on _pgstack.request to {alice} with grant option; set local role {alice}; "
        "grant select on _pgstack.request to {bob}; reset role",
        "_pgstack.request", "select payload::text from _pgstack.request",
    ),
    "query cache open": Plant(
        "alter table _pgstack.query_cache disable row level security", "_pgstack.query_cache",
        "select model from _pgstack.query_cache",
    ),
    "query cache loose": Plant(
        "create policy more on _pgstack.query_cache using (true)", "_pgstack.query_cache",
        "select model from _pgstack.query_cache",
    ),
    "judged queries of others": Plant(
        "alter table _pgstack.eval_query disable row level security", "_pgstack.eval_query",
        "select text from _pgstack.eval_query",
    ),
    "runs of others": Plant(
        "alter policy own_rows on _pgstack.eval_run using (true)", "_pgstack.eval_run",
        "select label from _pgstack.eval_run",
    ),
    "results of others": Plant(
        "create policy more on _pgstack.eval_result using (true)", "_pgstack.eval_result",
        "select doc_id from _pgstack.eval_result",
    ),
    "embedding cache": Plant(
        "grant select on _pgstack.embedding_cache to {bob}", "_pgstack.embedding_cache",
        "select 'heirloom' from _pgstack.embedding_cache",
    ),
    "settings": Plant(
        "grant insert, update on _pgstack.setting to {bob}", "_pgstack.setting",
        "insert into _pgstack.setting (name, value) values ('x', 'http://mine') "
        "returning 'heirloom on its way'",
    ),
    # what runs with other rights
    "trigger on chunks": Plant(
        "grant trigger on letter_embedding_store to {bob}", "public.letter_embedding_store"
    ),
    "trigger on a source that gets its vectors": Plant(
        "grant trigger on card to {bob}", "public.card"
    ),
    "our trigger on a table of bob's": Plant(
        "do $$ begin execute (select format('grant execute on function %s to {bob}', "
        "p.oid::regprocedure) from pg_proc as p where p.proname ~ '^_pgstack_capture' "
        "limit 1); end $$",
        "function ai._pgstack_capture_",
    ),
    "functions planted": Plant("grant create on schema pgstack to {bob}", "schema pgstack"),
    "table of the bridge": Plant(
        "grant select on letter to pgstack_bridge", "public.letter"
    ),
    "column of the bridge": Plant(
        "grant select (body) on letter to pgstack_bridge", "public.letter"
    ),
    "member of the bridge": Plant(
        "grant pg_read_all_data to pgstack_bridge", "role pgstack_bridge"
    ),
    "mighty bridge": Plant("alter role pgstack_bridge bypassrls", "role pgstack_bridge"),
    "connections without a password": Plant(
        "grant execute on function dblink_connect_u(text, text) to {bob}",
        "function public.dblink_connect_u(text,text)",
    ),
}  # fmt: skip


@pytest.fixture
def roles(conn: Conn, drain: Callable[[], int], make_role: Callable[[str], str]) -> Roles:
    """Letters of two tenants, memos vectorized by plain pgai, cards with vectors of their own."""
    roles = Roles(*(make_role(name) for name in Roles._fields))
    for name in ("letter", "memo", "card"):
        conn.execute(
            f"create table {name} (id integer primary key, tenant name, body text)".encode()
        )
        conn.execute(
            sql.SQL("insert into {} values (1, %s, 'the heirloom'), (2, %s, 'a trinket')").format(
                sql.Identifier(name)
            ),
            (roles.alice, roles.bob),
        )
    conn.execute(
        "alter table letter enable row level security; "
        "create policy own on letter using (tenant = current_user)"
    )
    for role in (roles.alice, roles.bob):
        conn.execute(sql.SQL("grant select on letter to {}").format(sql.Identifier(role)))
    conn.execute(
        "select pgstack.create_vectorizer('letter', 'body', dimensions => 3);"
        "select pgstack.create_vectorizer("
        "  'card', 'body', dimensions => 3, embedding_column => 'embedding');"
        "select ai.create_vectorizer('memo', loading => ai.loading_column('body'), "
        "  embedding => ai.embedding_ollama('all-minilm', 3), "
        "  destination => ai.destination_table('memo_embedding'))"
    )
    assert drain() == 6
    conn.execute("select _pgstack.build_words(id) from ai.vectorizer where name = 'letter'")
    conn.execute(
        "insert into _pgstack.request (kind, payload, asker, asker_pid, deadline) "
        "values ('embed', '{\"input\": \"heirloom\"}', 'alice', 1, now());"
        "insert into _pgstack.query_cache (asker, model, input_type, digest, embedding) "
        "values ('alice', 'heirloom', 'query', 'x', '[1]');"
        "insert into _pgstack.embedding_cache (digest, embedding) values ('x', '[1]');"
        "insert into _pgstack.eval_set (name) values ('of the owner');"
        "insert into _pgstack.eval_query select id, 'q', 'heirloom' from _pgstack.eval_set;"
        "insert into _pgstack.eval_run "
        "  (set_id, label, vectorizer, mode, k, seed, config, judged, queries) "
        "select id, 'heirloom', 'letter', 'text', 1, 1, '{}', '', 1 from _pgstack.eval_set;"
        "insert into _pgstack.eval_result select id, 'q', 1, 'heirloom' from _pgstack.eval_run"
    )
    return roles


def audit(conn: Conn, role: str, *severities: str) -> list[Any]:
    """The findings of some severities about a role."""
    with conn.cursor(row_factory=namedtuple_row) as cur:
        found = cur.execute("select * from pgstack.audit_leaks(%s)", (role,)).fetchall()
    return [row for row in found if row.severity in severities]


def reads(conn: Conn, role: str, probe: str) -> bool:
    """Whether a role reads the secret by a statement."""
    try:
        with conn.transaction(force_rollback=True), acting_as(conn, role):
            return SECRET in str(conn.execute(probe.encode()).fetchall())
    except (psycopg.errors.InsufficientPrivilege, psycopg.errors.UndefinedObject):
        return False


def test_nothing_is_found_where_nothing_is(conn: Conn, roles: Roles) -> None:
    for role in (roles.alice, roles.bob, roles.team):
        assert audit(conn, role, "leak", "wide") == []
    looked_at = {row.object for row in audit(conn, roles.bob, "ok")}
    assert looked_at >= {
        "public.letter", "public.letter_embedding", "public.letter_embedding_store",
        "public.memo", "public.memo_embedding_store", "public.card",
        "_pgstack.query_cache", "_pgstack.setting", "ai.vectorizer",
    }  # fmt: skip


@pytest.mark.parametrize("name", PLANTS)
def test_a_leak_is_named_and_its_remedy_mends_it(conn: Conn, roles: Roles, name: str) -> None:
    row = conn.execute("select 'ai._pgstack_words_' || id from ai.vectorizer where name = 'letter'")
    names = {**roles._asdict(), "words": row.fetchall()[0][0]}
    plant = Plant(*(text and text.format(**names) for text in PLANTS[name]))
    if "bm25" in plant.sql:
        need_extension(conn, "pg_textsearch")
        conn.execute("create extension if not exists pg_textsearch")
    conn.execute(plant.sql.encode())
    if plant.probe:
        assert reads(conn, roles.bob, plant.probe), "the plant is no leak"
    leaks = audit(conn, roles.bob, "leak")
    assert leaks
    assert all(row.object.startswith(plant.object) for row in leaks), leaks
    for row in leaks:
        assert row.what
        assert row.how
        conn.execute(row.remedy.encode())
    assert audit(conn, roles.bob, "leak") == []
    if plant.probe:
        assert not reads(conn, roles.bob, plant.probe)


def test_remedies_leave_readers_what_is_theirs(conn: Conn, roles: Roles) -> None:
    conn.execute(
        PLANTS["row security off"].sql.encode() + b"; alter view letter_embedding "
        b"set (security_invoker = false); create policy more on letter_embedding_store using (true)"
    )
    for row in audit(conn, roles.bob, "leak"):
        conn.execute(row.remedy.encode())
    with acting_as(conn, roles.bob):
        for relation in ("letter_embedding", "letter_embedding_store"):
            rows = conn.execute(f"select chunk from {relation}".encode()).fetchall()
            assert rows == [("a trinket",)]


WIDE = {
    "queue": ("grant select on {queue} to {bob}", "ai._vectorizer_q_"),
    "work": ("grant select on _pgstack.work to {bob}", "_pgstack.work"),
    "last errors": (
        "grant select (last_error) on _pgstack.vectorizer to {bob}", "_pgstack.vectorizer"
    ),
    "plain chunks of an open source": (
        "grant select on memo, memo_embedding_store to {bob}", "public.memo_embedding_store"
    ),
    "writer of chunks": (
        "grant delete on letter_embedding_store to {bob}", "public.letter_embedding_store"
    ),
    "no use of the schema": (
        "create schema closed; alter table letter set schema closed; "
        "update ai.vectorizer set source_schema = 'closed' where source_table = 'letter'",
        "closed.letter",
    ),
    "view with a condition of its own": (
        "create view mine as select s.chunk from letter as l join letter_embedding_store as s "
        "using (id) where l.tenant = current_user; grant select on mine to {bob}",
        "public.mine",
    ),
    "owner of a source": ("alter table letter owner to {bob}", "letter"),
    "member of the owner of a source": (
        "alter table card owner to {clerk}; grant {clerk} to {team}; grant {team} to {bob}", "card"
    ),
    "owner of a child of a source": (
        "create table part () inherits (letter); alter table part enable row level security; "
        "alter table part owner to {bob}",
        "part",
    ),
    "function that reads chunks": (
        "create function mine() returns setof text language sql security definer "
        "begin atomic select chunk from public.letter_embedding_store; end",
        "function public.mine()",
    ),
    "bypassrls": ("alter role {bob} bypassrls", "role {bob}"),
    "statements of others": ("grant pg_read_all_stats to {bob}", "role pg_read_all_stats"),
    "member of the owner of pgstack": (
        "alter table _pgstack.vectorizer owner to {clerk}; grant {clerk} to {bob}", "role {clerk}"
    ),
    "child of the source": (
        "create table part () inherits (letter); grant select on part to {bob}", "part"
    ),
    "questions in anybody's name": (
        "grant execute on function _pgstack.bridge_poll(uuid) to {bob}",
        "function _pgstack.bridge_poll(uuid)",
    ),
    "a table of a later release": (
        "create table _pgstack.later (x text); grant select on _pgstack.later to public",
        "_pgstack.later",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", WIDE)
def test_what_is_wide_is_told_and_can_be_mended(conn: Conn, roles: Roles, name: str) -> None:
    row = conn.execute(
        "select queue from _pgstack.vectorizer_plan where name = 'letter'"
    ).fetchone()
    assert row is not None
    names = {**roles._asdict(), "queue": row[0]}
    plant, named = (text.format(**names) for text in WIDE[name])
    conn.execute(plant.encode())
    found = audit(conn, roles.bob, "wide")
    assert any(named in row.object for row in found), found
    for row in found:
        conn.execute(row.remedy.encode())
    assert [row for row in audit(conn, roles.bob, "wide", "leak") if named in row.object] == []


def test_odd_names_and_keys_raise_no_alarm(conn: Conn, roles: Roles) -> None:
    conn.execute(
        """
        create schema "Odd Schema";
        create table "Odd Schema"."Odd ""Table" (
          "Key A" varchar(20), b numeric(9, 2), c timestamptz, d char(3), title text,
          "The Text" text,
          primary key ("Key A", b, c, d)
        );
        select pgstack.create_vectorizer(
          '"Odd Schema"."Odd ""Table"', array['title', 'The Text'], name => 'odd', dimensions => 3
        );
        grant usage on schema "Odd Schema" to public;
        select _pgstack.build_words(id) from ai.vectorizer where name = 'odd';
        """
    )
    table = '"Odd Schema"."Odd ""Table"'
    assert audit(conn, roles.bob, "leak", "wide") == []
    conn.execute(f"grant select on {table} to {roles.bob}".encode())
    assert audit(conn, roles.bob, "leak", "wide") == []
    conn.execute(f"alter table {table} enable row level security".encode())
    assert audit(conn, roles.bob, "leak", "wide") == []


def test_a_role_may_look_at_itself_and_no_other(conn: Conn, roles: Roles) -> None:
    with acting_as(conn, roles.bob):
        assert conn.execute("select from pgstack.audit_leaks()").fetchall()
        assert audit(conn, roles.bob, "ok")
        with refused(conn, "PS014", "what"):
            audit(conn, roles.alice, "ok")
    with refused(conn, "PS007", "no role"):
        audit(conn, "nobody at all", "ok")


def test_a_superuser_is_one_row(conn: Conn, roles: Roles) -> None:
    conn.execute(f"alter role {roles.bob} superuser".encode())
    found = audit(conn, roles.bob, "leak", "wide", "ok")
    assert [(row.severity, row.remedy) for row in found] == [
        ("wide", f"alter role {roles.bob} nosuperuser;")
    ]


def test_nothing_of_the_roles_runs_while_it_is_audited(conn: Conn, roles: Roles) -> None:
    """A policy or view may call functions of bob's: with the auditor's rights, if it ran."""
    conn.execute(
        "create function trap() returns boolean language plpgsql as "
        "$$ begin raise exception 'trapped'; end $$; "
        "create policy trap on letter_embedding_store using (trap()); "
        "create policy trap on letter using (trap()); "
        "create view trapped as select chunk from letter_embedding_store where trap(); "
        "grant select on trapped to public"
    )
    assert {row.object for row in audit(conn, roles.bob, "leak")} == {
        "public.letter_embedding_store", "public.trapped",
    }  # fmt: skip
