"""Change capture: which changes of a source queue which keys, and which chunks go at once.

No worker runs unless a test says so: the queue shows what was captured.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import psycopg
import pytest

from tests.conftest import need_extension
from tests.integration.capturing import (
    ADOPT,
    COLUMNS,
    INHERITED,
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
    run,
    triggers,
)


@pytest.fixture(params=["ours", "adopted"])
def make(request: pytest.FixtureRequest, conn: Conn) -> Callable[[str], Conn]:
    """Make table t and its vectorizer v, ours or an adopted one, with three embedded rows."""
    return partial(make_source, conn, request.param)


# ------------------------------------------------------------------------- statements

MERGE = """
    merge into t using (values (1, 'one'), (2, 'new'), (4, 'four')) as s (id, body)
    on t.id = s.id
    when matched and s.id = 1 then delete
    when matched then update set body = s.body
    when not matched then insert (id, body) values (s.id, s.body)
"""
# statement, ids it queues, ids that have chunks afterwards
STATEMENTS = [
    ("insert into t (id, body) values (4, 'four')", [4], [1, 2, 3]),
    (
        "insert into t (id, body) select i, 'x' from generate_series(4, 6) as i",
        [4, 5, 6],
        [1, 2, 3],
    ),
    ("update t set body = 'new' where id = 2", [2], [1, 2, 3]),
    ("update t set title = 'new'", [1, 2, 3], [1, 2, 3]),
    ("update t set body = null where id = 1", [1], [1, 2, 3]),
    ("update t set body = '' where id = 1", [1], [1, 2, 3]),
    ("update t set note = 'new'", [], [1, 2, 3]),
    ("update t set body = body, title = 'T', id = id", [], [1, 2, 3]),
    ("update t set id = 7 where id = 2", [2, 7], [1, 3]),
    ("update t set id = id + 10", [1, 2, 3, 11, 12, 13], []),
    ("delete from t where id = 3", [3], [1, 2]),
    ("delete from t", [1, 2, 3], []),
    ("delete from t where id = 9", [], [1, 2, 3]),
    (MERGE, [1, 2, 4], [2, 3]),
]
UPSERTS = [
    (
        "insert into t (id, body) values (2, 'new'), (4, 'four') "
        "on conflict (id, part) do update set body = excluded.body",
        [2, 4],
        [1, 2, 3],
    ),
    (
        "insert into t (id, body) values (2, 'new') "
        "on conflict (id, part) do update set note = excluded.body",
        [],
        [1, 2, 3],
    ),
    ("insert into t (id, body) values (2, 'new') on conflict do nothing", [], [1, 2, 3]),
]


@pytest.mark.parametrize("kind", KINDS)
def test_what_statements_queue(make: Callable[[str], Conn], kind: str) -> None:
    conn = make(KINDS[kind])
    for statement, keys, chunks in STATEMENTS + UPSERTS:
        with conn.transaction(force_rollback=True):
            run(conn, statement)
            assert (queued(conn), embedded(conn)) == (keys, chunks), statement


@pytest.mark.parametrize("kind", KINDS)
def test_copy(make: Callable[[str], Conn], kind: str) -> None:
    conn = make(KINDS[kind])
    with conn.cursor().copy("copy t (id, body) from stdin") as copy:
        for nr in range(10, 15):
            copy.write_row((nr, "text"))
    assert queued(conn) == [10, 11, 12, 13, 14]


@pytest.mark.parametrize("kind", ["partitioned", "inherited"])
def test_what_statements_on_a_part_queue(make: Callable[[str], Conn], kind: str) -> None:
    conn = make(KINDS[kind])
    part = "t_2_2" if kind == "partitioned" else "t_2"
    run(conn, f"insert into {part} (id, part, body) values (5, 2, 'five'), (6, 2, 'six')")
    assert queued(conn) == [5, 6]
    embed(conn)
    for statement, keys, chunks in [
        (f"update {part} set note = 'new'", [], [1, 2, 3, 5, 6]),
        (f"update {part} set body = 'new' where id = 5", [5], [1, 2, 3, 5, 6]),
        (f"update {part} set id = 8 where id = 5", [5, 8], [1, 2, 3, 6]),
        (f"delete from {part} where id = 6", [6], [1, 2, 3, 5]),
        # Their chunks go with the next worker.
        (f"truncate {part}", [5, 6], [1, 2, 3, 5, 6]),
        ("update t set body = 'new' where id > 2", [3, 5, 6], [1, 2, 3, 5, 6]),
        ("delete from t where id > 2", [3, 5, 6], [1, 2]),
    ]:
        with conn.transaction(force_rollback=True):
            run(conn, statement)
            assert (queued(conn), embedded(conn)) == (keys, chunks), statement


def test_a_row_that_moves_to_another_partition(make: Callable[[str], Conn]) -> None:
    conn = make(PARTITIONED)
    run(conn, "update t set part = 2 where id = 1")
    assert queued(conn) == [1]
    assert embedded(conn) == [2, 3]


@pytest.mark.parametrize("kind", ["lone", "partitioned"])
def test_truncate_empties_queue_and_chunks(make: Callable[[str], Conn], kind: str) -> None:
    conn = make(KINDS[kind])
    run(conn, "insert into t (id, body) values (4, 'four'); truncate t")
    assert queued(conn) == []
    assert embedded(conn) == []


def test_truncate_of_the_parent_only_keeps_the_childrens_chunks(
    make: Callable[[str], Conn],
) -> None:
    conn = make(INHERITED)
    run(conn, "insert into t_1 (id, body) values (5, 'five')")
    embed(conn)
    run(conn, "truncate only t")
    assert queued(conn) == [1, 2, 3]
    assert 5 in embedded(conn)


def test_cascades(make: Callable[[str], Conn]) -> None:
    conn = make(
        "create table p (id int primary key, body text unique);"
        "insert into p values (1, 'one'), (2, 'two'), (3, 'three');"
        "create table t (id int references p on delete cascade on update cascade, "
        "part int default 1, title text default 'T', "
        "body text references p (body) on delete set null on update cascade, note text, "
        "primary key (id, part))"
    )
    run(conn, "update p set id = 9 where id = 1")
    assert (queued(conn), embedded(conn)) == ([1, 9], [2, 3])
    run(conn, "update p set body = 'new' where id = 2")
    assert queued(conn) == [2]
    run(conn, "delete from p where id > 1")
    assert (queued(conn), embedded(conn)) == ([2, 3, 9], [])


def test_truncate_cascade(make: Callable[[str], Conn]) -> None:
    conn = make(
        "create table p (id int primary key); insert into p values (1), (2), (3);"
        "create table t (id int references p, part int default 1, title text default 'T', "
        "body text, note text, primary key (id, part))"
    )
    run(conn, "truncate p cascade")
    assert (queued(conn), embedded(conn)) == ([], [])


def test_in_a_column_of_the_source(conn: Conn) -> None:
    run(
        conn,
        f"{LONE}; select pgstack.create_vectorizer('t', 'body', name => 'v', dimensions => 3, "
        "embedding_column => 'e'); insert into t (id, body) values (1, 'one'), (2, 'two')",
    )
    assert queued(conn) == [1, 2]
    for statement, keys in [
        ("update t set e = '[1,1,1]'", []),
        ("update t set title = 'new'", []),
        ("update t set body = 'new' where id = 1", [1]),
        ("update t set id = 7 where id = 1", [7]),
        ("delete from t where id = 2", []),
        ("insert into t (id, body) values (9, 'x'); truncate t", []),
    ]:
        run(conn, statement)
        assert queued(conn) == keys, statement


# ----------------------------------------------------- what a statement does not say itself

BEFORE_TRIGGER = """
    create function shout() returns trigger language plpgsql as
      'begin new.body := upper(new.body); return new; end';
    create trigger shout before update on {} for each row execute function shout()
"""


def compares_all(conn: Conn) -> bool:
    """Whether the triggers look at every updated row."""
    (found,) = column(
        conn,
        "select bool_and(tgattr = '') from pg_trigger where tgname like '\\_pgstack\\_update\\_%' "
        "having bool_and(tgattr = '') = bool_or(tgattr = '')",
    )
    return bool(found)


WAITING = """
    select exists (select from pg_locks where relation = 't'::regclass and not granted)
"""


@pytest.mark.parametrize(
    ("kind", "where"), [("lone", "t"), ("partitioned", "t"), ("partitioned", "t_1")]
)
def test_what_a_before_trigger_changes(make: Callable[[str], Conn], kind: str, where: str) -> None:
    conn = make(KINDS[kind])
    run(conn, f"{BEFORE_TRIGGER.format(where)}; {REFRESH}")
    assert queued(conn) == [1, 2, 3]
    for table in ("t", "t_1") if kind == "partitioned" else ("t",):
        with conn.transaction(force_rollback=True):
            run(conn, f"update {table} set note = 'new' where id = 1")
            assert queued(conn) == [1]
            run(conn, f"update {table} set note = 'newer' where id = 1")
            assert queued(conn) == []
            run(conn, f"update {table} set note = 'new', title = 'new' where id > 1")
            assert queued(conn) == [2, 3]


def test_a_before_trigger_on_a_child(make: Callable[[str], Conn]) -> None:
    conn = make(INHERITED)
    run(conn, "insert into t_1 (id, body) values (5, 'five')" + ";" + BEFORE_TRIGGER.format("t_1"))
    run(conn, REFRESH)
    queued(conn)
    run(conn, "update t set note = 'new'")
    assert queued(conn) == [5]


@pytest.mark.parametrize("create", [OURS, f"{PGAIS}; {ADOPT}"])
def test_a_before_trigger_that_was_there_first(conn: Conn, create: str) -> None:
    run(conn, f"{LONE}; insert into t (id, body) values (1, 'one'); {BEFORE_TRIGGER.format('t')}")
    run(conn, create)
    assert queued(conn) == [1]
    run(conn, f"update t set note = 'new'; {REFRESH}")
    assert queued(conn) == [1]


@pytest.mark.parametrize("kind", KINDS)
def test_before_triggers_come_and_go(make: Callable[[str], Conn], kind: str) -> None:
    conn = make(KINDS[kind])
    before = triggers(conn)
    for statement, compares, keys in [
        (BEFORE_TRIGGER.format("t"), True, [1, 2, 3]),
        ("create trigger again before update of note on t for each row "
         "execute function shout()", True, []),
        ("drop trigger shout on t", True, []),
        ("alter table t disable trigger again", False, []),
        ("alter table t enable replica trigger again", False, []),
        ("alter table t enable always trigger again", True, [1, 2, 3]),
        ("drop trigger again on t", False, []),
        ("create trigger after_all after update on t for each row execute function shout();"
         "create trigger whole before update on t for each statement execute function shout();"
         "create trigger first before insert or delete on t for each row "
         "execute function shout()", False, []),
    ]:  # fmt: skip
        run(conn, f"{statement}; {REFRESH}")
        assert (compares_all(conn), queued(conn)) == (compares, keys), statement
        assert column(conn, REFRESH) == [0]
    assert triggers(conn) == before


def test_a_before_trigger_in_front_of_a_column_of_vectors(conn: Conn) -> None:
    run(
        conn,
        f"{LONE}; select pgstack.create_vectorizer('t', 'body', name => 'v', dimensions => 3, "
        "embedding_column => 'e'); insert into t (id, body) values (1, 'one'), (2, 'two');"
        f"{BEFORE_TRIGGER.format('t')}; update t set note = 'new'; {REFRESH}",
    )
    assert queued(conn) == [1, 2]
    run(conn, "update t set e = '[1,1,1]'")
    assert queued(conn) == []


def test_a_before_trigger_that_is_younger_than_the_snapshot(db: Conn, db_url: str) -> None:
    run(db, f"{LONE}; {OURS}; insert into t (id, body) values (1, 'one')")
    queued(db)
    with psycopg.connect(db_url) as old:
        old.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        old.execute("select from pg_trigger limit 1")
        run(db, f"{BEFORE_TRIGGER.format('t')}; {REFRESH}")
        queued(db)
        run(old, "update t set note = 'new'")
    assert queued(db) == [1]


def test_what_a_before_trigger_changed_before_the_worker_saw_it(
    db: Conn, db_url: str, worker: object
) -> None:
    """While a writer is at it, too: its rows are queued when it is done."""
    run(
        db,
        f"{LONE}; select pgstack.create_vectorizer('t', 'body', name => 'v', destination => 'v');"
        "insert into t (id, body) select i, 'text ' || i from generate_series(1, 100) as i",
    )
    assert column(db, "select pgstack.wait_until_fresh('v', '60s')") == [True]
    with psycopg.connect(db_url) as writer:
        run(db, BEFORE_TRIGGER.format("t"))
        run(writer, "update t set note = 'new' where id <= 50")
        run(db, "update t set note = 'new' where id = 51")
        while column(db, WAITING) == [False]:  # the worker, for the writer
            run(db, "select pg_sleep(0.01)")
    while not compares_all(db):
        run(db, "select pg_sleep(0.01)")
    assert column(db, "select pgstack.wait_until_fresh('v', '60s')") == [True]
    changed = "select id from v_store where chunk = upper(chunk) order by id"
    assert column(db, changed) == list(range(1, 52))
    run(db, "update t set note = 'newer' where id = 60")
    assert column(db, "select pgstack.wait_until_fresh('v', '60s')") == [True]
    assert column(db, changed) == [*range(1, 52), 60]
    embedded_texts = "select sum(texts) from _pgstack.usage where vectorizer = 'v'"
    while column(db, embedded_texts)[0] < 152:
        run(db, "select pg_sleep(0.01)")
    assert column(db, embedded_texts) == [152]  # what did not change kept its vectors
    run(db, "drop trigger shout on t")
    while compares_all(db):
        run(db, "select pg_sleep(0.01)")


def test_long_texts_under_a_before_trigger(make: Callable[[str], Conn]) -> None:
    """Out of line, equal texts are told by their place."""
    conn = make(LONE)
    run(
        conn,
        "create function touch() returns trigger language plpgsql as $$"
        "begin new.note := 'touched'; "
        "if new.title = 'cut' then new.body := left(new.body, -1) || '!'; end if; "
        "return new; end $$;"
        "create trigger touch before update on t for each row execute function touch();"
        f"{REFRESH}; update t set body = "
        "(select string_agg(md5(i::text), ' ') from generate_series(1, 900) as i)",
    )
    assert queued(conn) == [1, 2, 3]
    run(conn, "update t set part = part")
    assert queued(conn) == []
    run(conn, "update t set body = body || ''")
    assert queued(conn) == []
    run(conn, "update t set title = 'cut' where id = 2")
    assert queued(conn) == [2]
    run(conn, "update t set note = 'x' where id = 2")
    assert queued(conn) == []  # cut again: the same text once more


@pytest.mark.parametrize("statement", ["update t set a = 'new'", "update t set note = 'new'"])
def test_generated_columns(conn: Conn, statement: str) -> None:
    run(
        conn,
        "create table t (id int primary key, part int default 1, a text, note text, "
        "body text generated always as (a || '!') stored);"
        "select pgstack.create_vectorizer('t', 'body', name => 'v', dimensions => 3);"
        "insert into t (id, a) values (1, 'one')",
    )
    assert queued(conn) == [1]
    run(conn, statement)
    assert queued(conn) == ([1] if "a =" in statement else [])


def test_equal_is_not_the_same_text(conn: Conn) -> None:
    """Equal by its type's operator, and another text to embed all the same."""
    need_extension(conn, "citext")
    run(
        conn,
        "create extension citext;"
        "create table t (id int primary key, body text, "
        "word citext, price numeric, extra json);"
        "select pgstack.create_vectorizer('t', 'body', name => 'v', dimensions => 3, "
        "template => '$word $price $extra $chunk');"
        "insert into t values (1, 'text', 'one', 1.0, '{}')",
    )
    queued(conn)
    for change in ("word = 'ONE'", "price = 1.00", "extra = '{ }'"):
        run(conn, f"update t set {change}")
        assert queued(conn) == [1], change
    run(conn, "update t set extra = extra, price = price, word = word")
    assert queued(conn) == []


def test_an_update_under_other_triggers(make: Callable[[str], Conn]) -> None:
    """A user's AFTER trigger writes the same row again."""
    conn = make(LONE)
    run(
        conn,
        "create function again() returns trigger language plpgsql as $$begin "
        "update t set body = new.body || '!' where id = new.id and body !~ '!'; return null; end$$;"
        "create trigger again after insert or update on t for each row execute function again();"
        "insert into t (id, body) values (4, 'four'); update t set note = 'new' where id = 1",
    )
    assert queued(conn) == [1, 4]


# ------------------------------------------------------------- tables that come and go


def test_partitions_come_and_go(make: Callable[[str], Conn]) -> None:
    conn = make(PARTITIONED)
    run(conn, "create table t_4 partition of t for values in (4)")
    run(conn, "insert into t_4 (id, part, body) values (4, 4, 'four')")
    assert queued(conn) == [4]
    run(
        conn,
        f"create table t_5 ({COLUMNS.replace('default 1', 'default 5')}, primary key (id, part));"
        "insert into t_5 (id, body) values (5, 'five');"
        "alter table t attach partition t_5 for values in (5);"
        "insert into t (id, part, body) values (6, 5, 'six')",
    )
    assert queued(conn) == [6]
    run(conn, REFRESH)
    assert set(queued(conn)) >= {5, 6}
    embed(conn)
    run(conn, REFRESH)
    assert queued(conn) == []
    run(conn, "truncate t_5")
    assert queued(conn) == [5, 6]
    embed(conn)

    run(conn, "insert into t_5 (id, body) values (5, 'five')")
    embed(conn)
    run(conn, "alter table t detach partition t_5; drop table t_1")
    run(conn, REFRESH)
    assert queued(conn) == [1, 2, 3, 5]
    run(conn, "insert into t_5 (id, body) values (7, 'x'); truncate t_5")
    assert queued(conn) == []
    assert not {name for name in triggers(conn) if name.startswith("t_5")}


def test_children_come_and_go(make: Callable[[str], Conn]) -> None:
    conn = make(LONE)
    run(conn, "create table t_1 () inherits (t)")
    run(conn, "insert into t_1 (id, body) values (5, 'five')")
    run(conn, REFRESH)
    assert 5 in queued(conn)
    embed(conn)
    run(
        conn, "insert into t_1 (id, body) values (6, 'six'); update t_1 set body = 'x' where id = 5"
    )
    assert queued(conn) == [5, 6]
    embed(conn)
    run(conn, "drop table t_1")
    run(conn, REFRESH)
    assert {5, 6} <= set(queued(conn))
    embed(conn)
    for statement, keys, chunks in STATEMENTS:
        with conn.transaction(force_rollback=True):
            run(conn, statement)
            assert (queued(conn), embedded(conn)) == (keys, chunks), statement


def test_the_source_becomes_a_partition(make: Callable[[str], Conn]) -> None:
    conn = make(LONE)
    run(
        conn,
        f"create table whole ({COLUMNS}, primary key (id, part)) partition by list (part);"
        "alter table whole attach partition t for values in (1);"
        "insert into whole (id, body) values (4, 'four'); delete from whole where id = 1",
    )
    run(conn, REFRESH)
    assert queued(conn) == [1, 2, 3, 4]
    embed(conn)
    run(conn, "insert into whole (id, body) values (5, 'five'); delete from whole where id = 2")
    assert (queued(conn), embedded(conn)) == ([2, 5], [3, 4])


def test_adopting_queues_the_children_that_pgai_did_not_watch(conn: Conn) -> None:
    run(conn, f"{INHERITED}; insert into t_1 (id, body) values (5, 'five'); {PGAIS}")
    queued(conn)
    run(conn, "insert into t_1 (id, body) values (6, 'six')")
    assert queued(conn) == []
    run(conn, ADOPT)
    assert queued(conn) == [5, 6]
