"""Who may see and do what: row-level security, grants, the bridge's login, hostile names."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from psycopg import sql
from psycopg.types.json import Jsonb

Conn = psycopg.Connection[Any]
Refused = psycopg.errors.InsufficientPrivilege


@contextlib.contextmanager
def acting_as(conn: Conn, role: str) -> Iterator[None]:
    """Run the block with the rights of a role."""
    conn.execute(sql.SQL("set local role {}").format(sql.Identifier(role)))
    try:
        yield
    finally:
        if conn.info.transaction_status != psycopg.pq.TransactionStatus.INERROR:
            conn.execute("reset role")


@contextlib.contextmanager
def refused(conn: Conn, sqlstate: str, words: str = "") -> Iterator[None]:
    """The block fails with this SQLSTATE, and its message says these words."""
    with pytest.raises(psycopg.Error) as caught, conn.transaction():
        yield
    assert caught.value.sqlstate == sqlstate, str(caught.value)
    assert words in str(caught.value)


def column(conn: Conn, query: str, *params: Any) -> list[Any]:
    return [row[0] for row in conn.execute(query.encode(), params)]


def found(conn: Conn, words: str, name: str = "letter", **options: Any) -> list[str]:
    """The chunks that search() finds by words."""
    query = "select chunk from pgstack.search(%s, %s, mode => 'text', filter => %s)"
    return column(conn, query, name, words, Jsonb(options.get("filter", {})))


# ------------------------------------------------------------------------ tenants


@pytest.fixture
def tenants(
    conn: Conn, drain: Callable[[], int], make_role: Callable[[str], str]
) -> tuple[str, str]:
    """A table of letters that two tenants share, each seeing its own."""
    alice, bob = make_role("alice"), make_role("bob")
    conn.execute(
        """
        create table letter (id integer primary key, tenant name, subject text, body text);
        alter table letter enable row level security;
        create policy own on letter using (tenant = current_user);
        """
    )
    for role in (alice, bob):
        conn.execute(sql.SQL("grant select on letter to {}").format(sql.Identifier(role)))
    conn.execute(
        "insert into letter values (1, %(a)s, 'x', 'alice has a secret'), "
        "(2, %(b)s, 'y', 'bob has a secret'), (3, %(a)s, 'z', 'alice has gold')",
        {"a": alice, "b": bob},
    )
    conn.execute("select pgstack.create_vectorizer('letter', 'body', dimensions => 3)")
    assert drain() == 3
    return alice, bob


RELATIONS = ["letter_embedding", "letter_embedding_store"]


def test_a_tenant_searches_its_own_rows(conn: Conn, tenants: tuple[str, str]) -> None:
    alice, bob = tenants
    with acting_as(conn, alice):
        assert sorted(found(conn, "secret gold")) == ["alice has a secret", "alice has gold"]
        assert found(conn, "secret", filter={"tenant": bob}) == []
        assert found(conn, "bob") == []
    with acting_as(conn, bob):
        assert found(conn, "secret") == ["bob has a secret"]


@pytest.mark.parametrize("relation", RELATIONS)
def test_a_tenant_reads_its_own_chunks(conn: Conn, tenants: tuple[str, str], relation: str) -> None:
    alice, bob = tenants
    for role, ids in ((alice, [1, 3]), (bob, [2])):
        with acting_as(conn, role):
            assert column(conn, f"select id from {relation} order by id") == ids
            nearest = f"select id from {relation} order by embedding <=> '[1,1,1]', id limit 9"
            assert column(conn, nearest) == ids


def test_row_security_cannot_be_switched_off(conn: Conn, tenants: tuple[str, str]) -> None:
    conn.execute("set local row_security = off")
    with acting_as(conn, tenants[0]):
        for relation in RELATIONS:
            with refused(conn, "42501", "row-level security"):
                conn.execute(f"select * from {relation}")
        with refused(conn, "42501", "row-level security"):
            found(conn, "secret")


def test_a_leaky_function_sees_nothing_more(conn: Conn, tenants: tuple[str, str]) -> None:
    """A cheap function in a condition runs only on rows the policy lets through."""
    conn.execute(
        """
        create function spy(seen text) returns boolean language plpgsql cost 0.0001 as $$
        begin
          raise exception 'saw %', seen using errcode = 'P0001';
        end
        $$;
        """
    )
    conn.execute("delete from letter where tenant = %s", (tenants[1],))
    with acting_as(conn, tenants[1]):
        for relation in RELATIONS:
            assert column(conn, f"select chunk from {relation} where spy(chunk)") == []


def test_nobody_writes_chunks(conn: Conn, tenants: tuple[str, str]) -> None:
    with acting_as(conn, tenants[0]):
        for statement in (
            "insert into letter_embedding_store (id, chunk_seq, chunk, embedding) "
            "values (1, 9, 'forged', '[1,1,1]')",
            "update letter_embedding_store set chunk = 'forged'",
            "delete from letter_embedding_store",
        ):
            with refused(conn, "42501"):
                conn.execute(statement)


@pytest.mark.parametrize("remaining", ["nothing", "the key", "all but the text"])
def test_a_revoked_source_shows_no_chunks(
    conn: Conn, tenants: tuple[str, str], remaining: str
) -> None:
    alice = tenants[0]
    columns = {"nothing": "", "the key": "id", "all but the text": "id, tenant, subject"}[remaining]
    conn.execute(sql.SQL("revoke select on letter from {}").format(sql.Identifier(alice)))
    if columns:
        conn.execute(
            sql.SQL("grant select ({}) on letter to {}").format(
                sql.SQL(columns),  # type: ignore[arg-type]
                sql.Identifier(alice),
            )
        )
    with acting_as(conn, alice):
        for relation in RELATIONS:
            with refused(conn, "42501", "letter"):
                conn.execute(f"select chunk from {relation}")
        with refused(conn, "PS014", "may not read public.letter"):
            found(conn, "secret")


def test_a_role_without_rights_is_told_what_is_missing(
    conn: Conn, tenants: tuple[str, str], make_role: Callable[[str], str]
) -> None:
    stranger = make_role("stranger")
    with acting_as(conn, stranger):
        with pytest.raises(psycopg.Error) as caught, conn.transaction():
            found(conn, "secret")
        for relation in RELATIONS:
            with refused(conn, "42501"):
                conn.execute(f"select * from {relation}")
        assert column(conn, "select state from pgstack.vectorizer_status") == ["unknown"]
    assert caught.value.sqlstate == "PS014"
    hint = caught.value.diag.message_hint or ""
    assert hint == f"grant select on public.letter to {stranger};"
    conn.execute(hint.encode())
    with acting_as(conn, stranger):
        assert found(conn, "secret") == []  # its policy shows it no letter
    conn.execute(sql.SQL("alter role {} bypassrls").format(sql.Identifier(stranger)))
    with acting_as(conn, stranger):
        assert len(found(conn, "secret")) == 2


def test_a_source_in_a_hidden_schema_hides_no_other(
    conn: Conn, tenants: tuple[str, str], make_role: Callable[[str], str]
) -> None:
    conn.execute("create schema hidden; create table hidden.t (id integer primary key, body text)")
    conn.execute("select pgstack.create_vectorizer('hidden.t', 'body', dimensions => 3)")
    with acting_as(conn, tenants[0]):
        assert len(found(conn, "secret")) == 1
        names = column(conn, "select name from pgstack.vectorizer_status order by name")
        assert names == ["letter", "t"]
        with refused(conn, "PS014", "may not read"):
            found(conn, "secret", name="t")


def test_the_owner_of_a_table_reads_what_another_role_vectorized(
    conn: Conn, drain: Callable[[], int], make_role: Callable[[str], str]
) -> None:
    owner = make_role("owner")
    conn.execute("create table letter (id integer primary key, body text)")
    conn.execute(sql.SQL("alter table letter owner to {}").format(sql.Identifier(owner)))
    conn.execute("select pgstack.create_vectorizer('letter', 'body', dimensions => 3)")
    with acting_as(conn, owner):
        conn.execute("insert into letter values (1, 'mine'), (2, 'going')")
        conn.execute("update letter set id = 3 where id = 2; delete from letter where id = 3")
    assert drain() == 1
    with acting_as(conn, owner):
        assert found(conn, "mine") == ["mine"]
        assert column(conn, "select body from letter_embedding") == ["mine"]


def test_only_pgstacks_owner_manages_vectorizers(
    conn: Conn, tenants: tuple[str, str], make_role: Callable[[str], str]
) -> None:
    role = make_role("owner")
    conn.execute("create table mine (id integer primary key, body text)")
    conn.execute(sql.SQL("alter table mine owner to {}").format(sql.Identifier(role)))
    with acting_as(conn, role):
        for call in (
            "create_vectorizer('mine', 'body', dimensions => 3)",
            "pause_vectorizer('letter')",
            "resume_vectorizer('letter')",
            "retry_vectorizer('letter')",
            "drop_vectorizer('letter')",
            "wait_until_fresh('letter')",
        ):
            with refused(conn, "PS014"):
                conn.execute(f"select pgstack.{call}")


# ------------------------------------------------------------------- private tables


@pytest.mark.parametrize("table", ["request", "work", "worker"])
def test_private_tables_are_private(
    conn: Conn, make_role: Callable[[str], str], table: str
) -> None:
    with acting_as(conn, make_role("visitor")), refused(conn, "42501"):
        conn.execute(f"select * from _pgstack.{table}")


@pytest.mark.parametrize(
    "call",
    [
        "bridge_post(gen_random_uuid(), 'embed', '{}', 'x', '1s')",
        "bridge_poll(gen_random_uuid())",
        "bridge_cancel(gen_random_uuid())",
        "request_claim(gen_random_uuid(), 9)",
        "request_sweep()",
        "grant_privileges('x', 'y')",
        "bridge_use_password('x', 'y', 'h', '1')",
        "query_cache_put(null::_pgstack.request)",
        "worker_sweep()",
        "note_problem(1, 'x')",
    ],
)
def test_private_functions_do_nothing_for_others(
    conn: Conn, make_role: Callable[[str], str], call: str
) -> None:
    with acting_as(conn, make_role("visitor")), refused(conn, "42501"):
        conn.execute(f"select _pgstack.{call}")


# ----------------------------------------------------------------------- the bridge


@pytest.fixture
def bridge(conn: Conn) -> Iterator[Callable[[str], list[Any]]]:
    """Run statements over the bridge's open connection, as anybody in a session can."""
    conn.execute("select _pgstack.bridge_ensure()")

    def run(statement: str) -> list[Any]:
        return column(conn, "select t.x from dblink('pgstack', %s) as t (x text)", statement)

    yield run
    conn.execute("select _pgstack.bridge_reset()")


def test_the_bridge_may_call_three_functions(
    conn: Conn, bridge: Callable[[str], list[Any]]
) -> None:
    token = uuid.uuid4()
    assert bridge("select current_user::text") == ["pgstack_bridge"]
    assert bridge("select rolsuper::text from pg_roles where rolname = current_user") == ["false"]
    payload = """'{"model": "m", "input": ["x"]}'"""
    posted = f"select _pgstack.bridge_post('{token}', 'embed', {payload}, 'x', '5s')"
    assert bridge(posted) == [""]
    assert bridge(f"select state from _pgstack.bridge_poll('{token}')") == ["waiting"]
    assert bridge(f"select state from _pgstack.bridge_poll('{uuid.uuid4()}')") == ["lost"]
    bridge(f"select _pgstack.bridge_cancel('{token}')::text")
    assert bridge(f"select state from _pgstack.bridge_poll('{token}')") == ["lost"]


@pytest.mark.parametrize(
    "statement",
    [
        "select token::text from _pgstack.request",
        "insert into _pgstack.request default values",
        "delete from _pgstack.request returning ''",
        "update _pgstack.setting set value = 'x' returning ''",
        "select key::text from _pgstack.work",
        "select rolpassword from pg_authid",
        "select umoptions::text from pg_user_mapping",
        "create table public.evil (a integer)",
        "create table _pgstack.evil (a integer)",
        "create function _pgstack.evil() returns integer language sql as 'select 1'",
        "create schema evil",
        "create role evil",
        "set role postgres",
        "set role pgstack_owner",
        "set session authorization postgres",
        "alter role postgres password 'x'",
        "alter system set port = 1",
        "grant pgstack_owner to pgstack_bridge",
        "copy (select 1) to program 'true'",
        "select pg_read_file('/etc/passwd')",
        "delete from _pgstack.setting returning ''",
        "select _pgstack.request_sweep()::text",
        "select _pgstack.request_claim(gen_random_uuid(), 1)::text",
        "load '/tmp/evil.so'",
        "create extension unaccent",
    ],
)
def test_the_bridge_may_do_nothing_else(
    conn: Conn, bridge: Callable[[str], list[Any]], statement: str
) -> None:
    with pytest.raises(psycopg.Error) as caught, conn.transaction():
        bridge(statement)
    assert caught.value.sqlstate == "42501", str(caught.value)


def test_the_login_reads_no_row_of_anybodys_cache(
    conn: Conn, bridge: Callable[[str], list[Any]]
) -> None:
    assert bridge("select count(*)::text from _pgstack.query_cache") == ["0"]


def test_nobody_breaks_the_bridge_by_its_roles_settings(
    conn: Conn, bridge: Callable[[str], list[Any]]
) -> None:
    """A role may change its own settings, and anybody can act as this one."""
    try:
        for change in (
            "statement_timeout = 1",
            "default_transaction_read_only = on",
            "idle_session_timeout = 1",
            "local_preload_libraries = 'no_such_library'",
            "search_path = pg_temp",
            "default_transaction_isolation = serializable",
        ):
            bridge(f"alter role pgstack_bridge set {change}; select ''")
        conn.execute("select _pgstack.bridge_reset()")
        with refused(conn, "PS003"):
            conn.execute("select pgstack.embed('still works')")
    finally:
        # In the bridge's session, because ours is rolled back.
        conn.execute("select _pgstack.bridge_ensure()")
        bridge("alter role pgstack_bridge reset all; select ''")


# ------------------------------------------------------------- what a caller may plant


def test_planted_objects_are_never_used(
    conn: Conn, tenants: tuple[str, str], make_role: Callable[[str], str]
) -> None:
    mallory = make_role("mallory")
    conn.execute("create schema planted")
    conn.execute(sql.SQL("grant all on schema planted to {}").format(sql.Identifier(mallory)))
    trap = """
        create function {name} language plpgsql as $$
        begin raise exception 'trapped'; end $$;
    """
    with acting_as(conn, mallory):
        for name in (
            "planted.dblink(text, text) returns setof record",
            "planted.dblink_connect_u(text, text) returns text",
            "planted.dblink_get_connections() returns text[]",
            "planted.current_setting(text) returns text",
            "planted.format(text, variadic text[]) returns text",
            "planted.pg_backend_pid() returns integer",
            "planted.coalesce_text(text, text) returns text",
            "planted.texteq(text, text) returns boolean",
            "pg_temp.dblink(text, text) returns setof record",
            "pg_temp.dblink_connect_u(text, text) returns text",
            "pg_temp.quote_ident(text) returns text",
            "pg_temp.pg_notify(text, text) returns void",
        ):
            conn.execute(trap.format(name=name).encode())
        conn.execute(
            "create operator planted.= "
            "(leftarg = text, rightarg = text, function = planted.texteq); "
            "create operator planted.<> "
            "(leftarg = text, rightarg = text, function = planted.texteq);"
        )
        for table in ("request", "setting", "pg_class", "pg_foreign_server", "pg_proc"):
            conn.execute(f"create temporary table {table} (srvname text)")
        conn.execute("insert into pg_foreign_server values ('pgstack_bridge')")
        conn.execute("set local search_path = planted, pg_temp, pg_catalog, public")
        with refused(conn, "PS003"):
            conn.execute("select pgstack.embed('x')")
        conn.execute("select _pgstack.bridge_reset()")
    with acting_as(conn, tenants[0]):
        conn.execute("set local search_path = pg_temp, public")
        assert found(conn, "secret") == ["alice has a secret"]


@pytest.mark.parametrize(
    "filter_",
    [
        {"tenant": "x' or true or 'x' = '"},
        {"subject": "%"},
        {"subject": "\\'"},
        {"subject": {"eq": "'' or true"}},
    ],
    ids=str,
)
def test_a_filters_value_is_a_value(
    conn: Conn, tenants: tuple[str, str], filter_: dict[str, Any]
) -> None:
    assert found(conn, "secret", filter=filter_) == []


@pytest.mark.parametrize(
    "filter_",
    [
        {"subject": {"$ne": None}},
        {"subject": {"eq) or (true": "x"}},
        {"subject": ["x", "y"]},
        {"id": "1 or 1=1"},
    ],
    ids=str,
)
def test_what_a_filter_cannot_be_is_refused(
    conn: Conn, tenants: tuple[str, str], filter_: dict[str, Any]
) -> None:
    with refused(conn, "PS007"):
        found(conn, "secret", filter=filter_)


@pytest.mark.parametrize(
    "key",
    ["no_such", "body' = 'x' or '1", 'body" is null or "body', "ctid", "tableoid", "", "BODY"],
)
def test_a_filter_names_columns_only(conn: Conn, tenants: tuple[str, str], key: str) -> None:
    with refused(conn, "PS007", "filter names the column"):
        found(conn, "secret", filter={key: 1})


@pytest.mark.parametrize("filter_", ["[]", '"x"', "1", "null"])
def test_a_filter_is_an_object(conn: Conn, tenants: tuple[str, str], filter_: str) -> None:
    with refused(conn, "PS007", "JSON object"):
        conn.execute("select * from pgstack.search('letter', 'x', filter => %s)", (filter_,))
