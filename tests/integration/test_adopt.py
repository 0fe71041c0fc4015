"""Adopting a vectorizer and ending it: rights, locks, odd names, what is left and what survives."""

from __future__ import annotations

import concurrent.futures
import threading
import uuid
from collections.abc import Callable
from functools import partial
from typing import Any

import pgai
import psycopg
import pytest
from psycopg import sql

from pgstack import install
from tests.integration.capturing import (
    ADOPT,
    KINDS,
    LONE,
    OURS,
    PARTITIONED,
    PGAIS,
    REFRESH,
    Conn,
    column,
    embed,
    embedded,
    make_source,
    queued,
    refused,
    run,
    triggers,
)


@pytest.fixture
def make_role(conn: Conn) -> Callable[[str], str]:
    """Make roles with no rights but everybody's; they are rolled back with the test."""

    def make(prefix: str) -> str:
        name = f"{prefix}_{uuid.uuid4().hex[:8]}"
        run(conn, f"create role {name}")
        return name

    return make


@pytest.fixture(params=["ours", "adopted"])
def make(request: pytest.FixtureRequest, conn: Conn) -> Callable[[str], Conn]:
    """Make table t and its vectorizer v, ours or an adopted one, with three embedded rows."""
    return partial(make_source, conn, request.param)


# ---------------------------------------------------------------------------- whose rights


def test_writers_need_no_right_on_queue_and_chunks(
    make: Callable[[str], Conn], make_role: Callable[[str], str]
) -> None:
    conn = make(LONE)
    writer = make_role("writer")
    run(
        conn,
        f"grant select, insert, update, delete, truncate on t to {writer};"
        "alter table t enable row level security;"
        f"create policy own on t to {writer} using (id < 10) with check (true);"
        f"set role {writer}; insert into t (id, body) values (14, 'x');"
        "update t set body = 'new' where id = 1; update t set id = 5 where id = 2;"
        "delete from t where id = 3; reset role",
    )
    assert (queued(conn), embedded(conn)) == ([1, 2, 3, 5, 14], [1])
    run(conn, f"set role {writer}; truncate t; reset role")
    assert embedded(conn) == []
    assert column(
        conn,
        "select count(*) from pg_proc where proname ~ '^_pgstack_capture_' and ("
        "not prosecdef or has_function_privilege('public', oid, 'execute') "
        "or proconfig <> '{\"search_path=pg_catalog, pg_temp\"}')",
    ) == [0]


def test_the_function_belongs_to_who_made_the_vectorizer(
    conn: Conn, make_role: Callable[[str], str]
) -> None:
    """A superuser who adopts it lends nobody his rights."""
    owner = make_role("owner")
    run(
        conn,
        f"grant create on schema public, ai to {owner}; grant usage on schema ai to {owner};"
        f"grant all on all tables in schema ai to {owner};"
        f"grant all on all sequences in schema ai to {owner};"
        f"set role {owner}; {LONE}; {PGAIS}; reset role; {ADOPT};"
        f"set role {owner}; insert into t (id, body) values (1, 'one'); reset role",
    )
    assert queued(conn) == [1]
    assert column(
        conn, "select proowner::regrole::text from pg_proc where proname ~ '^_pgstack_capture_'"
    ) == [owner]


def test_adopting_is_for_owners(conn: Conn, make_role: Callable[[str], str]) -> None:
    run(conn, f"{LONE}; {PGAIS}")
    role = make_role("stranger")
    run(conn, f"set role {role}")
    refused(conn, "PS014", ADOPT)
    run(conn, "reset role")
    refused(conn, "PS001", "select pgstack.adopt_vectorizer('nothing')")
    run(conn, "alter table t drop column body cascade")
    refused(conn, "PS013", ADOPT)


HOSTILE = [
    '"; drop table victim; --',
    "$body$; drop table victim; --",
    "Ünï 'cöde'",
    "_row",
    "r",
    "K",
]


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names(conn: Conn, name: str) -> None:
    table, key, text, part = (
        sql.Identifier(name), sql.Identifier(name + "k"), sql.Identifier(name + "t"),
        sql.Identifier(name + "p"),
    )  # fmt: skip
    conn.execute("create table victim (id int)")
    conn.execute(
        sql.SQL(
            "create table {table} (id int, {key} text, {text} text, note text, "
            "primary key (id, {key})) partition by hash (id);"
            "create table {part} partition of {table} for values with (modulus 1, remainder 0)"
        ).format(table=table, key=key, text=text, part=part)
    )
    conn.execute(
        "select ai.create_vectorizer(%s::regclass, name => 'v', loading => ai.loading_column(%s), "
        "embedding => ai.embedding_ollama('all-minilm', 3), "
        "destination => ai.destination_table('v'))",
        (table.as_string(), name + "t"),
    )
    conn.execute("select pgstack.adopt_vectorizer('v')")
    for statement, keys in [
        ("insert into {part} values (1, 'a', 'x'), (2, 'b', 'y')", [1, 2]),
        ("update {table} set note = 'x'", []),
        ("update {table} set {text} = 'z' where id = 1", [1]),
        ("update {table} set {key} = 'z' where id = 1", [1]),
        ("delete from {table} where id = 2", [2]),
        ("truncate {part}", []),
        ("truncate {table}", []),
    ]:
        conn.execute(sql.SQL(statement).format(table=table, key=key, text=text, part=part))  # type: ignore[arg-type]
        assert queued(conn) == keys, statement
    conn.execute("select pgstack.drop_vectorizer('v', drop_data => true)")
    conn.execute(sql.SQL("insert into {} values (1, 'a', 'x')").format(table))
    conn.execute("select from victim")


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_in_bulk(conn: Conn, name: str) -> None:
    table, key = sql.Identifier(name), sql.Identifier(name + "k")
    conn.execute(
        sql.SQL("create table {} (id int, {} text, body text, primary key (id, {}))").format(
            table, key, key
        )
    )
    conn.execute(
        "select pgstack.create_vectorizer(%s::regclass, 'body', name => 'v', dimensions => 3, "
        "destination => 'v')",
        (table.as_string(),),
    )
    conn.execute(
        sql.SQL("insert into {} select i, 'k', 'x' from generate_series(1, 100) as i").format(table)
    )
    conn.execute(
        sql.SQL(
            "insert into v_store (id, {}, chunk_seq, chunk, embedding) "
            "select id, {}, 0, 'x', '[1,1,1]' from {}"
        ).format(key, key, table)
    )
    queued(conn)
    for last, rows in [(20, 20), (90, 70)]:
        conn.execute(sql.SQL("delete from {} where id <= {}").format(table, last))
        assert len(queued(conn)) == rows
        assert embedded(conn) == list(range(last + 1, 101))


# ---------------------------------------------------------------------- adopt, drop, install


def test_adopting_replaces_pgais_triggers_and_queues_nothing(conn: Conn) -> None:
    run(conn, f"{LONE}; insert into t (id, body) values (1, 'one'); {PGAIS}; {REFRESH}")
    embed(conn)
    run(conn, ADOPT)
    assert queued(conn) == []
    ours = triggers(conn)
    assert {name.rsplit("_", 1)[0] for name in ours} == {
        f"t _pgstack_{name}" for name in ("insert", "update", "delete", "truncate")
    }
    (since,) = column(conn, "select adopted_at from _pgstack.vectorizer")
    assert since is not None
    run(conn, f"{ADOPT}; select _pgstack.prepare_vectorizer(id) from ai.vectorizer; {REFRESH}")
    assert triggers(conn) == ours
    assert column(conn, "select adopted_at from _pgstack.vectorizer") == [since]
    assert queued(conn) == []
    assert column(conn, "select count(*) from pg_proc where proname ~ '^_pgstack_forget_'") == [0]


def test_triggers_of_earlier_builds_go(conn: Conn) -> None:
    run(conn, f"{LONE}; {OURS}")
    before = triggers(conn)
    (nr,) = column(conn, "select id from ai.vectorizer")
    run(
        conn,
        f"create trigger _pgstack_before_{nr} before update on t for each statement "
        f"execute function ai._pgstack_capture_{nr}();"
        f"select _pgstack.prepare_vectorizer({nr}); insert into t (id) values (1);"
        "update t set body = 'one'",
    )
    assert triggers(conn) == before


def test_adopting_waits_for_writers_and_gives_up(db: Conn, db_url: str) -> None:
    run(db, f"{LONE}; {PGAIS}")
    before = triggers(db)
    with psycopg.connect(db_url) as writer:
        run(writer, "insert into t (id, body) values (1, 'one')")
        refused(db, "PS016", ADOPT)
        assert triggers(db) == before
    run(db, ADOPT)
    assert queued(db) == [1]


def test_adopting_does_not_wait_for_readers(db: Conn, db_url: str) -> None:
    run(db, f"{LONE}; {PGAIS}")
    with psycopg.connect(db_url) as reader:
        run(reader, "select from t")
        run(db, "set statement_timeout = '4s'; " + ADOPT)
        run(db, "insert into t (id, body) values (1, 'one')")
        (queue,) = column(db, "select queue from _pgstack.vectorizer_plan")
        assert column(db, f"select id from {queue}") == [1]
        assert any("_vectorizer_src_trg_" in name for name in triggers(db))
    run(db, REFRESH)
    assert not any("_vectorizer_src_trg_" in name for name in triggers(db))


def test_a_disabled_pgai_trigger_does_not_come_back(db: Conn, db_url: str) -> None:
    run(db, f"{PARTITIONED}; {PGAIS}")
    with psycopg.connect(db_url) as reader:
        run(reader, "select from t")
        run(db, ADOPT)
        run(db, "create table t_4 (like t including all)")
        run(db, "alter table t attach partition t_4 for values in (4)")
        run(db, "insert into t (id, part, body) values (1, 1, 'one'), (4, 4, 'four')")
        (queue,) = column(db, "select queue from _pgstack.vectorizer_plan")
        assert sorted(column(db, f"select id from {queue}")) == [1, 4]
        run(db, "alter table t enable trigger all")
        run(db, REFRESH)
        assert column(
            db,
            "select count(*) from pg_trigger where tgname ~ 'src_trg' and tgenabled <> 'D'",
        ) == [0]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("drop_all", ["true", "false"])
def test_a_plain_drop_leaves_a_table_that_can_be_written(
    make: Callable[[str], Conn], kind: str, drop_all: str
) -> None:
    conn = make(KINDS[kind])
    run(conn, f"select ai.drop_vectorizer('v', drop_all => {drop_all})")
    run(
        conn,
        "insert into t (id, body) values (4, 'four'); update t set body = 'new';"
        "update t set id = id + 10; delete from t where id = 11; truncate t",
    )
    run(conn, REFRESH)
    assert triggers(conn) == set()
    assert column(conn, "select count(*) from pg_proc where proname ~ '^_pgstack_capture_'") == [0]


@pytest.mark.parametrize("kind", KINDS)
def test_our_drop_leaves_nothing(make: Callable[[str], Conn], kind: str) -> None:
    conn = make(KINDS[kind])
    run(conn, "select pgstack.drop_vectorizer('v', drop_data => true)")
    assert triggers(conn) == set()
    assert column(conn, "select count(*) from pg_proc where proname ~ '^_pgstack_capture_'") == [0]


def test_chunks_carry_a_digest_with_an_index(conn: Conn) -> None:
    run(conn, f"{LONE}; {OURS}; select _pgstack.prepare_vectorizer(v.id) from ai.vectorizer as v")
    assert column(
        conn,
        "select substring(pg_get_indexdef(i.indexrelid) from 'ON .*') from pg_index as i "
        "join pg_attribute as a on a.attrelid = i.indexrelid and a.attname = 'digest' "
        "where i.indrelid = 'v_store'::regclass",
    ) == ["ON public.v_store USING btree (digest)"]


# --------------------------------------------------------------- what adoption survives


def test_installing_again_brings_no_pgai_trigger_back(db: Conn, db_url: str) -> None:
    run(db, f"{LONE}; {PGAIS}; {ADOPT}")
    before = triggers(db)
    pgai.install(db_url)
    assert triggers(db) == before
    with psycopg.connect(db_url) as conn:
        install.install(conn)
    run(db, REFRESH)
    assert triggers(db) == before
    run(db, "insert into t (id, body) values (1, 'one'); update t set note = 'new'")
    (queue,) = column(db, "select queue from _pgstack.vectorizer_plan")
    assert column(db, f"select id from {queue}") == [1]


def write(url: str, start: int, stop: threading.Event) -> None:
    """Insert, update, re-key and delete until told to stop."""
    with psycopg.connect(url, autocommit=True) as conn:
        nr = start
        while not stop.is_set():
            run(
                conn,
                f"insert into t (id, body) values ({nr}, 'first'), ({nr + 1}, 'first');"
                f"update t set body = 'text of {nr}' where id = {nr};"
                f"update t set id = {nr + 2} where id = {nr + 1};"
                f"delete from t where id = {nr - 5}",
            )
            nr += 10


def chunks(conn: Conn, table: str) -> list[Any]:
    """Return every chunk with its vector."""
    query = f"select id, chunk_seq, chunk, embedding::text from {table} order by id, chunk_seq"
    return conn.execute(query.encode()).fetchall()


def test_adopting_while_four_sessions_write_loses_nothing(
    db: Conn, db_url: str, worker: object
) -> None:
    run(db, LONE)
    create = (
        "select ai.create_vectorizer('t', name => '{0}', loading => ai.loading_column('body'), "
        "embedding => ai.embedding_ollama('all-minilm', 384), "
        "destination => ai.destination_table('{0}'))"
    )
    run(db, create.format("v"))
    stop = threading.Event()
    with concurrent.futures.ThreadPoolExecutor() as pool:
        writers = [pool.submit(write, db_url, nr * 1_000_000, stop) for nr in range(4)]
        try:
            while column(db, "select count(*) < 200 from t") == [True]:
                run(db, "select pg_sleep(0.01)")
            (rows,) = column(db, "select count(*) from t")
            run(db, ADOPT)
            while column(db, "select count(*) < %s from t", rows + 200) == [True]:
                run(db, "select pg_sleep(0.01)")
        finally:
            stop.set()
        for writer in writers:
            writer.result()
    run(db, create.format("fresh"))
    for name in ("v", "fresh"):
        assert column(db, "select pgstack.wait_until_fresh(%s, '60s')", name) == [True]
    assert chunks(db, "v_store") == chunks(db, "fresh_store")
    assert len(chunks(db, "v_store")) >= 400
