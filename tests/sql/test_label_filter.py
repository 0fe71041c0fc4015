"""Labels inside a DiskANN index: a filter on them is applied while the index is walked."""

from __future__ import annotations

from typing import Any

import psycopg

from tests.conftest import need_extension

Conn = psycopg.Connection[Any]


def test_overlaps_uses_the_labels_of_the_index(conn: Conn) -> None:
    need_extension(conn, "vectorscale")
    conn.execute(
        """
        create table item (id int primary key, body text, tags smallint[], embedding vector(3));
        insert into item
        select n, 'item ' || n, array[n % 10]::smallint[],
          array[sin(n), cos(n), sin(n * 7)]::vector
        from generate_series(1, 500) as n;
        select pgstack.create_vectorizer(
          'item', 'body', dimensions => 3, embedding_column => 'embedding'
        );
        create index on item using diskann (embedding vector_cosine_ops, tags);
        analyze item
        """
    )
    wanted = """{"tags": {"overlaps": [3, 4]}}"""
    vector = "[0.3,0.4,0.5]"
    exact = conn.execute(
        "select id from item where tags && '{3,4}'::smallint[] order by embedding <=> %s limit 5",
        (vector,),
    ).fetchall()
    found = conn.execute(
        "select (id ->> 'id')::int "
        "from pgstack.search('item', 'x', 5, 'vector', %s, embedding => %s)",
        (wanted, vector),
    ).fetchall()
    assert {row[0] for row in found} == {row[0] for row in exact}
    condition = conn.execute(
        "select _pgstack.filter_condition(_pgstack.vectorizer_plan('item'), %s, 'r')", (wanted,)
    ).fetchone()
    assert condition is not None
    conn.execute("set local enable_seqscan = off")
    walk = (
        f"explain select id from item as r where {condition[0]} order by embedding <=> %s limit 5"
    )
    plan = conn.execute(walk.encode(), (vector,)).fetchall()
    lines = "\n".join(row[0] for row in plan)
    assert "Index Cond: (tags && '{3,4}'::smallint[])" in lines
