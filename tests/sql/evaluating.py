"""Judged sets and runs made by hand: what a search would have written, without the search."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import psycopg

Conn = psycopg.Connection[Any]
Judged = Mapping[str, Mapping[str, int]]  # query -> document -> grade
Ranked = Mapping[str, list[str]]  # query -> documents, the best first


def make_set(conn: Conn, name: str, judged: Judged) -> int:
    row = conn.execute("select pgstack.create_eval_set(%s)", (name,)).fetchone()
    assert row is not None
    with conn.cursor() as cur:
        cur.executemany(
            "insert into _pgstack.eval_query values (%s, %s, %s)",
            [(row[0], query, f"text of {query}") for query in judged],
        )
        cur.executemany(
            "insert into _pgstack.eval_judgment values (%s, %s, %s, %s)",
            [(row[0], q, doc, grade) for q, docs in judged.items() for doc, grade in docs.items()],
        )
    return int(row[0])


def make_run(conn: Conn, set_id: int, ranked: Ranked, *, k: int = 100, seed: int = 1) -> int:
    """A finished run; every query in ``ranked`` was searched for."""
    row = conn.execute(
        "insert into _pgstack.eval_run "
        "(set_id, vectorizer, mode, k, seed, config, judged, queries) "
        "values (%s, 'by hand', 'text', %s, %s, '{}', '', %s) returning id",
        (set_id, k, seed, len(ranked)),
    ).fetchone()
    assert row is not None
    run = int(row[0])
    with conn.cursor() as cur:
        cur.executemany(
            "insert into _pgstack.eval_search values (%s, %s, %s, 1)",
            [(run, query, len(docs)) for query, docs in ranked.items()],
        )
        cur.executemany(
            "insert into _pgstack.eval_result (run_id, query_id, rank, doc_id) "
            "select %s, %s, d.nr, d.doc from unnest(%s::text[]) with ordinality as d (doc, nr)",
            [(run, query, docs[:k]) for query, docs in ranked.items()],
        )
    conn.execute("select _pgstack.eval_finish(%s)", (run,))
    return run


def values(conn: Conn, run: int) -> dict[str, dict[str, float]]:
    """metric -> query -> value."""
    found: dict[str, dict[str, float]] = {}
    query = "select metric, query_id, value from _pgstack.eval_score where run_id = %s"
    for metric, name, value in conn.execute(query, (run,)):
        found.setdefault(metric, {})[name] = value
    return found


def metrics(conn: Conn, run: int) -> dict[str, tuple[float, float, float, int]]:
    """metric -> value, low, high, queries, in the order in which they are shown."""
    query = "select metric, value, low, high, queries from pgstack.eval_metrics where run = %s"
    return {metric: (v, low, high, n) for metric, v, low, high, n in conn.execute(query, (run,))}
