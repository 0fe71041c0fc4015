"""Change capture: which changes of a source queue which keys, and what goes at once.

No worker runs unless a test says so: the queue shows what was captured.
"""

from __future__ import annotations

from typing import Any

import psycopg

Conn = psycopg.Connection[Any]


def column(conn: Conn, query: str, *params: Any) -> list[Any]:
    """Return the first column of every row."""
    return [row[0] for row in conn.execute(query.encode(), params or None).fetchall()]


def test_chunks_carry_a_digest_with_an_index(conn: Conn) -> None:
    conn.execute("create table docs (id integer primary key, body text)")
    conn.execute("select pgstack.create_vectorizer('docs', 'body', dimensions => 3)")
    conn.execute("select _pgstack.prepare_vectorizer(v.id) from ai.vectorizer as v")
    assert column(
        conn,
        "select substring(pg_get_indexdef(i.indexrelid) from 'ON .*') from pg_index as i "
        "join pg_attribute as a on a.attrelid = i.indexrelid and a.attname = 'digest' "
        "where i.indrelid = 'docs_embedding_store'::regclass",
    ) == ["ON public.docs_embedding_store USING btree (digest)"]
