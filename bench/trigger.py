"""What change capture costs the writer: no trigger, pgai's, statement-level, row-level, ours.

    make bench-trigger

Times statements on one table under each set of triggers in turn, alternating, and prints
medians side by side: 50,000 rows of 100 characters, 2 kB (compressed in the row) and 10 kB
(out of line).  "statement" joins old and new rows in transition tables, "row" is one row-level
trigger with a WHEN clause, "ours" is what pgstack.adopt_vectorizer() puts on.  The peer of the
JSON file is the table without triggers.  Then rows loaded in bulk, single rows in a loop, and
pgstack.create_vectorizer() on a filled table, whose peer is reading the keys once.
"""

from __future__ import annotations

import argparse
import time
from typing import Any, LiteralString

import psycopg

from bench import _stack
from bench._report import Case, median, report
from pgstack.db import connect

Conn = psycopg.Connection[Any]

ROWS = 50_000
SINGLE = 2_000
SIZES = {"100 characters": 100, "2 kB": 2_000, "10 kB": 10_000}

DIFFERS: LiteralString = "old.id is distinct from new.id or old.body is distinct from new.body"
TRIGGERS: dict[str, LiteralString] = {
    "none": "",
    "pgai": "select ai.create_vectorizer('t', name => 'v', loading => ai.loading_column('body'), "
    "embedding => ai.embedding_ollama('all-minilm', 3), enqueue_existing => false, "
    "destination => ai.destination_table('v'))",
    "statement": "create trigger other after update on t "
    "referencing old table as old_rows new table as new_rows "
    "for each statement execute function by_statement()",
    "row": f"create trigger other after update on t for each row when ({DIFFERS}) "
    "execute function by_row()",
    "ours": "select pgstack.create_vectorizer('t', 'body', name => 'v', dimensions => 3, "
    "enqueue_existing => false, destination => 'v')",
}
FUNCTIONS: LiteralString = """
    create table word as select i, md5(i::text) as word from generate_series(1, 2000) as i;
    create table queue (id integer);
    create function by_row() returns trigger language plpgsql as
      'begin insert into queue values (new.id); return null; end';
    create function by_statement() returns trigger language plpgsql as
      'begin insert into queue select n.id from new_rows as n
       full join old_rows as o on o.id = n.id
       where o.id is distinct from n.id or o.body is distinct from n.body; return null; end'
"""
RESET: LiteralString = """
    drop trigger if exists other on t;
    select pgstack.drop_vectorizer(v.name, drop_data => true) from ai.vectorizer as v
"""
# Words, so that long texts can be compressed as prose can.
FILL: LiteralString = """
    insert into t (id, n, body)
    select i, 0, case when %(size)s <= 100 then left(repeat(md5(i::text), 4), %(size)s) else (
      select left(string_agg(left(word, 5 + (w.i * g.i) %% 5), ' '), %(size)s) from word as w
      where w.i between g.i %% 500 and g.i %% 500 + %(size)s / 5
    ) end
    from generate_series(1, %(rows)s) as g (i)
"""


def fill(conn: Conn, size: int, rows: int = ROWS) -> None:
    """Make the table anew, with texts of so many characters."""
    conn.execute("drop table if exists t cascade")
    conn.execute(
        "create table t (id integer primary key, n integer, body text) "
        "with (autovacuum_enabled = off)"
    )
    conn.execute(FILL, {"size": size, "rows": rows})
    conn.execute("vacuum analyze t")


def put_on(conn: Conn, name: str) -> None:
    """Put one set of triggers on the table in place of those that are there."""
    conn.execute(RESET)
    if name != "none":
        conn.execute(TRIGGERS[name])
    conn.execute("vacuum t")
    conn.execute("checkpoint")


def queued(conn: Conn) -> int:
    """Return how many rows the vectorizer has queued."""
    row = conn.execute("select queue from _pgstack.vectorizer_plan").fetchone()
    found = conn.execute(f"select count(*) from {row[0]}").fetchone() if row else None
    return int(found[0]) if found else 0


def seconds(conn: Conn, statement: str) -> float:
    """Run one statement; return how long it took."""
    began = time.perf_counter()
    conn.execute(statement.encode())
    return time.perf_counter() - began


def single_rows(what: str) -> str:
    """Return a loop of updates, a statement each."""
    return f"do $$begin for i in 1..{SINGLE} loop update t set {what} where id = i; end loop; end$$"


def updates() -> dict[str, str]:
    """Return the statements that are timed, by name."""
    return {
        "unrelated column": "update t set n = n + 1",
        "text": "update t set body = overlay(body placing md5(random()::text) from 1)",
        f"unrelated column, {SINGLE} single rows": single_rows("n = n + 1"),
        f"text, {SINGLE} single rows": single_rows("body = md5(random()::text)"),
    }


def compare(conn: Conn, title: str, statement: str, names: list[str], runs: int) -> list[Case]:
    """Time a statement under each set of triggers; print a line, return ours and pgai's."""
    times: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(runs):
        for name in names:
            put_on(conn, name)
            if statement.startswith("insert"):
                conn.execute("truncate t")
            times[name].append(seconds(conn, statement))
            if name == "ours" and "unrelated" in title and queued(conn):
                raise SystemExit(f"{title}: {queued(conn)} rows were queued")
    medians = {name: median([1000 * t for t in values]) for name, values in times.items()}
    none = medians["none"]
    line = "  ".join(f"{n} {m:7.0f} ms {m / none:5.2f}x" for n, m in medians.items())
    print(f"{title:46} {line}", flush=True)
    return [
        Case(f"{title}: {name}", medians[name], none, "ms", runs)
        for name in names
        if name in ("pgai", "ours")
    ]


def measure(conn: Conn, runs: int) -> list[Case]:
    """Run every case."""
    conn.execute("set synchronous_commit = off")
    conn.execute(FUNCTIONS)
    return measure_updates(conn, runs) + measure_loads(conn, runs)


def measure_updates(conn: Conn, runs: int) -> list[Case]:
    """Time updates of all rows, and of single ones."""
    cases = []
    for label, size in SIZES.items():
        fill(conn, size)
        for what, statement in updates().items():
            if ("single" in what and size > 100) or (what == "text" and size > 2_000):
                continue
            cases += compare(conn, f"{what}, {label}", statement, list(TRIGGERS), runs)
    return cases


def measure_loads(conn: Conn, runs: int) -> list[Case]:
    """Time rows that come in bulk, and a vectorizer made when they are there."""
    cases = []
    some = ["none", "pgai", "ours"]
    for label, size, rows in (
        ("1 M rows, 100 characters", 100, 1_000_000),
        ("50 k rows, 2 kB", 2_000, ROWS),
    ):
        fill(conn, size, rows)
        conn.execute("drop table if exists source; create table source as select * from t")
        cases += compare(conn, f"load, {label}", "insert into t select * from source", some, runs)
        cases += [existing(conn, label, rows, runs)]
    fill(conn, 100)
    conn.execute("drop table source; create table source as select * from t")
    cases += compare(
        conn,
        "insert, delete 50 k rows",
        "insert into t select * from source; delete from t",
        some,
        runs,
    )
    return cases


def existing(conn: Conn, label: str, rows: int, runs: int) -> Case:
    """Time pgstack.create_vectorizer() on a filled table, beside copying its keys."""
    create, read = [], []
    statement = TRIGGERS["ours"].replace("enqueue_existing => false, ", "")
    for _ in range(runs):
        put_on(conn, "none")
        create.append(1000 * seconds(conn, statement))
        if queued(conn) != rows:
            raise SystemExit(f"{queued(conn)} of {rows} rows were queued")
        read.append(1000 * seconds(conn, "create temporary table k as select id, now() from t"))
        conn.execute("drop table k")
    case = Case(f"create_vectorizer, {label}", median(create), median(read), "ms", runs)
    print(f"{case.case:46} {case.ours:7.0f} ms, copying the keys {case.peer:7.0f} ms", flush=True)
    return case


def main() -> None:
    """Measure, print a table, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--runs", type=int, default=3)
    runs = parser.parse_args().runs
    with _stack.database() as dsn, connect(dsn, autocommit=True) as conn:
        conn.execute("set client_min_messages = warning")
        # The disk's share would hide the triggers' own.
        conn.execute("alter system set fsync = off")
        conn.execute("alter system set max_wal_size = '8GB'")
        conn.execute("select pg_reload_conf()")
        results = measure(conn, runs)
        server = conn.info.server_version
    report("trigger", "no trigger", results, ["pgstack", "pgai", "psycopg"])
    print(f"PostgreSQL {server // 10000}.{server % 10000}; median of {runs}, {ROWS:,} rows")


if __name__ == "__main__":
    main()
