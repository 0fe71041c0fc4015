"""The plans of statements for bench/search.py: what they read, and by which indexes.

The statement inside a function is explained by auto_explain, which sends its plan as a notice.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import psycopg
from psycopg import sql

from bench._tables import Connection, Table

_WATCH = """
load 'auto_explain';
set auto_explain.log_min_duration = 0;
set auto_explain.log_nested_statements = on;
set auto_explain.log_format = json;
set auto_explain.log_level = notice;
"""


def of_statement(
    conn: Connection, statement: sql.Composed, parameters: Mapping[str, object]
) -> frozenset[str]:
    """Return what a plain statement reads."""
    explained = sql.SQL("explain (format json) ") + statement
    ((plan,),) = conn.execute(explained, parameters).fetchall()
    return frozenset(scans(plan[0]["Plan"]))


def inside(
    conn: Connection, call: sql.Composed, parameters: Mapping[str, object], table: Table
) -> frozenset[str]:
    """Return what the last statement inside a function reads that reads the table's chunks."""
    plans: list[dict[str, Any]] = []

    def keep(message: psycopg.errors.Diagnostic) -> None:
        _, found, plan = (message.message_primary or "").partition("plan:\n")
        if found:
            plans.append(json.loads(plan)["Plan"])

    conn.execute(_WATCH)
    conn.add_notice_handler(keep)
    try:
        conn.execute(call, parameters)
    finally:
        conn.remove_notice_handler(keep)
        conn.execute("set auto_explain.log_min_duration = -1")
    reading = [plan for plan in plans if table.store in relations(plan)]
    assert reading, "no statement read the table of chunks"
    return frozenset(scans(reading[-1]))


def scans(plan: Mapping[str, Any]) -> Iterator[str]:
    """Yield each way in which a plan reads a table: node type, and index or table."""
    if name := plan.get("Index Name") or plan.get("Relation Name"):
        yield f"{plan['Node Type']} {name}"
    for child in plan.get("Plans", ()):
        yield from scans(child)


def relations(plan: Mapping[str, Any]) -> set[str]:
    """Return the tables that a plan reads."""
    own = {plan["Relation Name"]} if "Relation Name" in plan else set()
    return own.union(*(relations(child) for child in plan.get("Plans", ())))
