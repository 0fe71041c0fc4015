"""Documents in SQL: what is stored and told, what is refused, whose it is."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, LiteralString

import psycopg
import pytest
from psycopg import sql
from psycopg.types.json import Jsonb

Conn = psycopg.Connection[Any]
T: LiteralString = "pgstack_collections.docs"
WHEN = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
HOSTILE = ["Robert'); drop table x;--", 'quo"te', "Ünï 😀", "select", "a.b", "%s %(x)s", "$1", "\\"]


def value(conn: Conn, query: LiteralString, *params: object) -> Any:
    row = conn.execute(query, params or None).fetchone()
    assert row is not None
    return row[0]


@pytest.fixture
def docs(conn: Conn) -> Conn:
    """The empty collection docs."""
    conn.execute("select pgstack.create_collection('docs', dimensions => 8)")
    return conn


def store(conn: Conn, uri: str | None = "u", **given: Any) -> str:
    names = (
        "content", "parts", "title", "media_type", "metadata", "source", "source_hash",
        "source_bytes", "source_modified", "error",
    )  # fmt: skip
    row = conn.execute(
        "select _pgstack.store_document('docs', %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)",
        (uri, *(given.get(name) for name in names)),
    ).fetchone()
    assert row is not None
    return str(row[0])


def columns(conn: Conn, names: LiteralString, uri: str = "u") -> tuple[Any, ...]:
    row = conn.execute(f"select {names} from {T} where uri = %s", (uri,)).fetchone()
    assert row is not None
    return row


def refused(conn: Conn, state: str, words: str, query: LiteralString, *params: object) -> None:
    with pytest.raises(psycopg.Error) as caught, conn.transaction():
        conn.execute(query, params or None)
    said = f"{caught.value.sqlstate} {caught.value.diag.message_primary}"
    assert caught.value.sqlstate == state, said
    assert words in said
    assert caught.value.diag.message_hint


# ------------------------------------------------------------------ what store_document keeps


def test_a_text_with_its_file_s_facts(docs: Conn) -> None:
    parts = [{"start": 0, "end": 5, "page": 3, "headings": ["A", "B"]}]
    facts = {"source_hash": b"h" * 32, "source_bytes": 7, "source_modified": WHEN}
    given = {"content": "Text.", "parts": Jsonb(parts), "title": "T", "media_type": "a/b"}
    assert store(docs, **given, **facts, metadata=Jsonb({"k": 1})) == "inserted"
    assert columns(
        docs,
        "content, bytes, content_hash, parts, pages, title, media_type, metadata, status, error, "
        "source, source_hash, source_bytes, source_modified, owner, tenant",
    ) == (
        *("Text.", 5, hashlib.sha256(b"Text.").digest(), parts, 3, "T", "a/b", {"k": 1}),
        *("ready", None, None, b"h" * 32, 7, WHEN, value(docs, "select current_user"), None),
    )
    assert docs.execute("select * from pgstack.document_parts('docs', 1)").fetchall() == [
        (0, 5, 3, ["A", "B"])
    ]


def test_what_nobody_sees_is_no_change_and_is_kept(docs: Conn) -> None:
    store(docs, content="Text.", source_hash=b"1", source_bytes=1)
    before = columns(docs, "ingested_at, content_hash")
    assert store(docs, content="Text.", source_hash=b"2", source_bytes=2) == "unchanged"
    assert columns(docs, "source_hash, source_bytes") == (b"2", 2)
    assert columns(docs, "ingested_at, content_hash") == before
    place = columns(docs, "ctid, xmin")
    assert store(docs, content="Text.", source_hash=b"2", source_bytes=2) == "unchanged"
    assert columns(docs, "ctid, xmin") == place


@pytest.mark.parametrize(
    "change",
    [
        {"content": "Other."},
        {"title": "T"},
        {"media_type": "a/b"},
        {"metadata": Jsonb({"k": 1})},
        {"parts": Jsonb([])},
    ],
)
def test_what_people_see_is_a_change(docs: Conn, change: dict[str, Any]) -> None:
    store(docs, content="Text.")
    assert store(docs, **{"content": "Text.", **change}) == "updated"
    assert store(docs, **{"content": "Text.", **change}) == "unchanged"


def test_a_failure_keeps_the_text(docs: Conn) -> None:
    assert store(docs, "new", error="no text", source_hash=b"1") == "failed"
    assert columns(docs, "content, status, error", "new") == (None, "failed", "no text")
    store(docs, content="Text.", title="T", source_hash=b"1")
    assert store(docs, error="damaged", source_hash=b"2") == "failed"
    expected = ("Text.", "T", "failed", "damaged", b"2")
    assert columns(docs, "content, title, status, error, source_hash") == expected
    assert store(docs, content="Text.", title="T", source_hash=b"3") == "updated"
    assert columns(docs, "status, error") == ("ready", None)


def test_a_file_that_could_not_be_read_elsewhere_is_tried_here(docs: Conn) -> None:
    data = b"file"
    store(docs, error="no OCR", source_hash=hashlib.sha256(data).digest())
    assert value(docs, "select pgstack.ingest_bytes('docs', 'u', %s)", data) == "updated"
    assert columns(docs, "status, source") == ("pending", data)


def test_states_are_told_of_what_is_there(docs: Conn) -> None:
    store(docs, "a", content="A", source_hash=b"1", source_bytes=1, source_modified=WHEN)
    store(docs, "b", error="why")
    found = docs.execute(
        "select * from _pgstack.document_states('docs', array['a', 'b', 'c'])"
    ).fetchall()
    assert found == [("a", b"1", 1, WHEN, "ready", None), ("b", None, None, None, "failed", "why")]
    uris = docs.execute("select _pgstack.collection_uris('docs', '')").fetchall()
    assert uris == [("a",), ("b",)]


def test_the_language_is_noted(docs: Conn) -> None:
    store(docs, content="Der Schlüssel liegt unter der Matte, und niemand weiß, wo sie ist.")
    assert columns(docs, "language") == ("de",)
    store(docs, content="The key is under the mat, and nobody knows where that is.")
    assert columns(docs, "language") == ("en",)
    assert value(docs, "select language from pgstack.documents") == "en"


# ------------------------------------------------------------------ arguments


TEXT: LiteralString = "select pgstack.ingest_text('docs', %s, %s)"
BYTES: LiteralString = "select pgstack.ingest_bytes('docs', %s, %s)"


def test_what_is_no_document_is_refused(docs: Conn) -> None:
    refused(docs, "PS007", "needs a uri", TEXT, None, "x")
    refused(docs, "PS007", "needs a uri", TEXT, "", "x")
    refused(docs, "PS007", "2001 bytes is too long", TEXT, "x" * 2001, "x")
    refused(docs, "PS007", "content must not be null", TEXT, "u", None)
    refused(docs, "PS007", "content must not be null", BYTES, "u", None)
    refused(
        docs, "PS007", "must be an object, not array",
        "select pgstack.ingest_text('docs', 'u', 'x', metadata => '[]')",
    )  # fmt: skip
    refused(
        docs, "PS007", "must be an object, not number",
        "select pgstack.ingest_bytes('docs', 'u', 'x', metadata => '1')",
    )  # fmt: skip
    refused(docs, "PS001", 'no collection "none"', "select pgstack.ingest_text('none', 'u', 'x')")
    refused(docs, "PS001", 'no collection "NULL"', "select pgstack.ingest_text(null, 'u', 'x')")
    refused(docs, "PS001", "no collection", "select pgstack.ingest_bytes('none', 'u', 'x')")
    refused(docs, "PS001", "no collection", "select pgstack.retry_documents('none')")
    refused(docs, "PS001", "no collection", "select * from pgstack.document_parts('none', 1)")
    refused(docs, "PS001", "no collection", "select pgstack.set_extraction('none', '{}')")
    with pytest.raises(psycopg.Error, match="parts must be an array") as caught, docs.transaction():
        store(docs, content="x", parts=Jsonb({}))
    assert caught.value.sqlstate == "PS007"
    with pytest.raises(psycopg.Error, match="content must not be null"), docs.transaction():
        store(docs)
    assert value(docs, f"select count(*) from {T}") == 0


@pytest.mark.parametrize("function", ["ingest_text", "ingest_bytes"])
def test_too_much_is_refused(docs: Conn, function: str) -> None:
    kind = "text" if function == "ingest_text" else "bytea"
    query = sql.SQL("select pgstack.{}('docs', 'u', repeat('x', %s)::{})").format(
        sql.Identifier(function), sql.SQL(kind)  # type: ignore[arg-type]
    )  # fmt: skip
    with pytest.raises(psycopg.Error, match="101 MB is too big") as caught, docs.transaction():
        docs.execute(query, (100_000_001,))
    assert caught.value.sqlstate == "PS007"


def test_null_options_are_the_defaults(docs: Conn) -> None:
    docs.execute("select pgstack.ingest_text('docs', 'u', '', null, null, null)")
    assert columns(docs, "content, title, media_type, metadata") == ("", None, None, {})
    docs.execute("select pgstack.ingest_bytes('docs', 'v', '', null, null, null)")
    assert columns(docs, "source, source_bytes, status", "v") == (b"", 0, "pending")


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_and_uris(conn: Conn, name: str) -> None:
    conn.execute("select pgstack.create_collection(%s, dimensions => 8)", (name,))
    for uri in HOSTILE:
        assert value(conn, "select pgstack.ingest_text(%s, %s, 'x')", name, uri) == "inserted"
        put: LiteralString = "select pgstack.ingest_bytes(%s, %s, 'x')"
        assert value(conn, put, name, uri) == "updated"
    rows = conn.execute("select collection, uri, status from pgstack.documents order by id")
    assert rows.fetchall() == [(name, uri, "pending") for uri in HOSTILE]
    counts = conn.execute("select name, documents, pending, failed from pgstack.collections")
    assert counts.fetchall() == [(name, 8, 8, 0)]
    assert value(conn, "select pgstack.retry_documents(%s)", name) == 0
    claim: LiteralString = "select collection, uri from _pgstack.extraction_claim(%s, null, %s, %s)"
    worker = "00000000-0000-0000-0000-000000000001"
    assert conn.execute(claim, (worker, [], [])).fetchall() == [(name, HOSTILE[0])]
    for uri in HOSTILE:
        assert value(conn, "select pgstack.remove_document(%s, %s)", name, uri)
    conn.execute("select pgstack.drop_collection(%s)", (name,))
    assert value(conn, "select count(*) from _pgstack.collection") == 0


@pytest.mark.parametrize(
    "extraction",
    [
        *("null", "[]", '"x"', '{"ocr": 1}', '{"ocr": "eng; rm -rf"}', '{"ocr": "../x"}'),
        *('{"ocr": null}', '{"keep_boilerplate": "yes"}', '{"extractor": "other"}', '{"x": 1}'),
    ],
)
def test_extraction_has_known_options_only(docs: Conn, extraction: str) -> None:
    query: LiteralString = (
        "select pgstack.create_collection('x', dimensions => 8, extraction => %s)"
    )
    refused(docs, "PS007", "extraction", query, extraction)
    refused(docs, "PS007", "extraction", "select pgstack.set_extraction('docs', %s)", extraction)
    refused(docs, "PS007", "extraction", "select pgstack.set_extraction('docs', null)")


def test_options_reach_the_vectorizer(conn: Conn) -> None:
    conn.execute(
        "select pgstack.create_collection('x', dimensions => 8, chunking => 'character', "
        "chunk_size => 300, chunk_overlap => 0, mask_pii => array['email'], "
        'extraction => \'{"ocr": ""}\')'
    )
    chunking = value(conn, "select config -> 'chunking' from ai.vectorizer where name = 'x'")
    assert (chunking["method"], chunking["chunk_size"]) == ("character", 300)
    assert chunking["mask_pii"] == ["email"]
    assert value(conn, "select extraction from _pgstack.collection") == {"ocr": ""}


def test_parts_that_are_none_are_left_out(docs: Conn) -> None:
    parts = [
        *(1, None, "x", [], {}, {"start": 1}, {"start": "0", "end": "1"}),
        *({"start": 0, "end": 1e30}, {"start": 0.5, "end": 1}, {"start": -1, "end": 1}),
        {"start": 0, "end": 1, "page": "x"},
        {"start": [0], "end": 1},
        {"start": 0, "end": 1, "page": [1]},
        {"start": 2, "end": 3, "page": None, "headings": "x"},
        {"start": 3, "end": 4, "page": 2, "headings": ["a", 1, None]},
        {"start": 4, "end": 5},
    ]
    store(docs, content="0123456", parts=Jsonb(parts))
    assert docs.execute("select * from pgstack.document_parts('docs', 1)").fetchall() == [
        (2, 3, None, []),
        (3, 4, 2, ["a", "1", None]),
        (4, 5, None, []),
    ]
    assert columns(docs, "pages") == (2,)
    assert docs.execute("select * from pgstack.document_parts('docs', 2)").fetchall() == []


def test_a_collection_dropped_by_hand_is_gone(docs: Conn) -> None:
    docs.execute("select pgstack.drop_vectorizer('docs', true)")
    docs.execute(f"drop table {T}")
    assert docs.execute("select * from pgstack.collections").fetchall() == []
    assert docs.execute("select * from pgstack.documents").fetchall() == []
    docs.execute("select pgstack.create_collection('docs', dimensions => 8)")
    assert value(docs, "select count(*) from _pgstack.collection") == 1


# ------------------------------------------------------------------ whose


def acting_as(conn: Conn, role: str) -> None:
    conn.execute(sql.SQL("set local role {}").format(sql.Identifier(role)))


def tenant(conn: Conn, name: str) -> None:
    conn.execute("select set_config('pgstack.tenant', %s, true)", (name,))


def test_without_rights_on_the_table_nothing_goes(
    docs: Conn, make_role: Callable[[str], str]
) -> None:
    docs.execute("select pgstack.ingest_bytes('docs', 'u', 'x')")
    bob = make_role("bob")
    acting_as(docs, bob)
    refused(docs, "PS014", "may not write", TEXT, "u", "x")
    refused(docs, "PS014", "may not write", BYTES, "u", b"x")
    refused(docs, "PS014", "may not write", "select pgstack.retry_documents('docs')")
    refused(docs, "PS014", "may not delete", "select pgstack.remove_document('docs', 'u')")
    refused(docs, "PS014", "owner of pgstack", "select pgstack.set_extraction('docs', '{}')")
    refused(docs, "PS014", "another role", "select pgstack.drop_collection('docs')")
    assert docs.execute("select * from pgstack.documents").fetchall() == []
    assert docs.execute("select * from pgstack.collections").fetchall() == []
    for query in (
        "delete from _pgstack.collection",
        "update _pgstack.collection set problem = 'x'",
    ):
        with pytest.raises(psycopg.errors.InsufficientPrivilege), docs.transaction():
            docs.execute(query)


def test_rights_on_the_table_are_all_it_takes(docs: Conn, make_role: Callable[[str], str]) -> None:
    bob = make_role("bob")
    grant = sql.SQL("grant select, insert, update, delete on {} to {}")
    docs.execute(grant.format(sql.Identifier("pgstack_collections", "docs"), sql.Identifier(bob)))
    acting_as(docs, bob)
    assert value(docs, TEXT, "u", "x") == "inserted"
    assert value(docs, BYTES, "v", b"x") == "inserted"
    assert value(docs, BYTES, "u", b"x") == "updated"
    assert columns(docs, "owner, tenant") == (bob, None)
    assert value(docs, "select pending from pgstack.collections") == 2
    assert value(docs, "select pgstack.retry_documents('docs', 'u')") == 1
    assert value(docs, "select pgstack.remove_document('docs', 'v')") is True


def test_each_tenant_has_uris_of_his_own(docs: Conn) -> None:
    for name in ("a", "b", ""):
        tenant(docs, name)
        assert value(docs, TEXT, "u", f"text of {name}") == "inserted"
        assert value(docs, TEXT, "u", f"text of {name}") == "unchanged"
    rows = docs.execute(f"select tenant, content from {T} order by tenant").fetchall()
    assert rows == [("a", "text of a"), ("b", "text of b"), (None, "text of ")]
    tenant(docs, "a")
    assert value(docs, BYTES, "u", b"x") == "updated"
    states = docs.execute("select status from _pgstack.document_states('docs', array['u'])")
    assert states.fetchall() == [("pending",)]
    assert value(docs, "select pgstack.retry_documents('docs', 'u')") == 1
    assert value(docs, "select pgstack.remove_document('docs', 'u')") is True
    assert value(docs, "select pgstack.remove_document('docs', 'u')") is False
    assert docs.execute("select _pgstack.collection_uris('docs', '')").fetchall() == []
    rows = docs.execute("select tenant, status from pgstack.documents order by tenant").fetchall()
    assert rows == [("b", "ready"), (None, "ready")]


POLICY: LiteralString = f"""
    alter table {T} enable row level security;
    create policy tenants on {T} using (tenant = current_user)
"""


def test_row_security_holds_in_every_function(
    docs: Conn, make_role: Callable[[str], str], drain: Callable[[], int]
) -> None:
    alice, bob = make_role("alice"), make_role("bob")
    for role in (alice, bob):
        docs.execute(
            sql.SQL("grant select, insert, update, delete on {} to {}").format(
                sql.Identifier("pgstack_collections", "docs"), sql.Identifier(role)
            )
        )
    docs.execute(POLICY)
    for role in (alice, bob):
        acting_as(docs, role)
        tenant(docs, role)
        assert value(docs, TEXT, "u", f"The heirloom of {role}.") == "inserted"
        assert value(docs, BYTES, "file", role.encode()) == "inserted"
        docs.execute("reset role")
    drain()
    acting_as(docs, bob)
    tenant(docs, bob)
    assert docs.execute("select distinct tenant from pgstack.documents").fetchall() == [(bob,)]
    counts = docs.execute("select documents, pending from pgstack.collections").fetchall()
    assert counts == [(2, 1)]
    assert docs.execute("select chunk from pgstack_collections.docs_embedding").fetchall() == [
        (f"The heirloom of {bob}.",)
    ]
    hits = docs.execute(
        "select chunk from pgstack.search('docs', 'heirloom', mode => 'text')"
    ).fetchall()
    assert hits == [(f"The heirloom of {bob}.",)]
    near = value(
        docs,
        "select jsonb_agg(s.chunk) from pgstack.search('docs', null, embedding => "
        "array_fill(1, array[8])::vector, mode => 'vector') as s",
    )
    assert near == [f"The heirloom of {bob}."]
    # In alice's name he gets nothing in, nothing out, and does not learn what she has.
    tenant(docs, alice)
    refused(docs, "PS014", "row-level security", TEXT, "u", "stolen")
    refused(docs, "PS014", "row-level security", TEXT, "other", "planted")
    refused(docs, "PS014", "row-level security", BYTES, "file", b"stolen")
    assert (
        docs.execute("select * from _pgstack.document_states('docs', array['u'])").fetchall() == []
    )
    assert value(docs, "select pgstack.remove_document('docs', 'u')") is False
    assert value(docs, "select pgstack.retry_documents('docs', 'file')") == 0
    parts = docs.execute(
        "select p.* from generate_series(1, 4) as i, pgstack.document_parts('docs', i) as p"
    ).fetchall()
    assert parts == []
    docs.execute("reset role")
    texts = docs.execute(f"select content from {T} where tenant = %s and uri = 'u'", (alice,))
    assert texts.fetchall() == [(f"The heirloom of {alice}.",)]


def test_the_audit_knows_that_the_worker_writes_there(
    docs: Conn, make_role: Callable[[str], str]
) -> None:
    bob = make_role("bob")
    grant = sql.SQL("grant select, insert, update, delete, trigger on {} to {}")
    docs.execute(grant.format(sql.Identifier("pgstack_collections", "docs"), sql.Identifier(bob)))
    query = "select object, what from pgstack.audit_leaks(%s) where severity = 'leak'"
    found = docs.execute(query, (bob,)).fetchall()
    expected = "a trigger put there runs with the rights of the worker"
    assert found == [("pgstack_collections.docs", expected)]
