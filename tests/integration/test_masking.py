"""A vectorizer that masks: personal data stays in the source, all else of ours is without it."""

from __future__ import annotations

import json
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Annotated, Any

import psycopg
import pytest
from pydantic import Field, TypeAdapter, ValidationError

from tests.integration.conftest import Models, raises
from tests.integration.test_worker import await_status, fresh, rows, vectorize

Connection = psycopg.Connection[Any]

EMAIL = "ada.lovelace@example.org"
IBAN = "DE89370400440532013000"
BODY = (
    f"The refund of order seven is late. Please answer to {EMAIL} soon. "
    f"The money goes to {IBAN}, as agreed with the bank."
)
TITLE = f"Refund for {EMAIL}"


@pytest.fixture
def tickets(db: Connection, worker: Any, models: Models) -> Connection:
    """One ticket with an address and an account in title and text, embedded masked."""
    db.execute("create table ticket (id int primary key, title text, body text)")
    db.execute("insert into ticket values (7, %s, %s)", (TITLE, BODY))
    db.execute("select pgstack.configure('text_index_min_rows', '1')")
    db.execute(
        "select pgstack.create_vectorizer('ticket', array['title', 'body'], dimensions => 384, "
        "chunk_size => 70, chunk_overlap => 20, mask_pii => array['email', 'iban'])"
    )
    assert fresh(db, "ticket")
    return db


def told(models: Models) -> str:
    """All that ever reached the model server."""
    stats = models.stats()
    return json.dumps([list(stats["per_text"]), stats["prompts"]])


def stored(db: Connection) -> str:
    """Every text column and tsvector of every table but the source and PostgreSQL's own."""
    tables = rows(
        db,
        "select c.oid::regclass::text from pg_class as c join pg_namespace as n "
        "on n.oid = c.relnamespace where c.relkind = 'r' and c.relname <> 'ticket' "
        "and n.nspname not in ('pg_catalog', 'information_schema')",
    )
    return "".join(
        str(rows(db, f"select coalesce(string_agg(r::text, ' '), '') from {name} as r")[0][0])
        for (name,) in tables
    )


def test_nothing_personal_leaves_the_source(tickets: Connection, models: Models) -> None:
    made_words = "select to_regclass('ai._pgstack_words_' || id) is not null from ai.vectorizer"
    while rows(tickets, made_words) != [(True,)]:
        pass  # pytest's timeout ends it
    found = rows(tickets, "select chunk from pgstack.search('ticket', 'refund bank money')")
    assert found
    answered = rows(
        tickets, "select answer, citations::text from pgstack.ask('ticket', 'Where to answer?')"
    )
    reranked = rows(
        tickets,
        "select chunk from pgstack.search('ticket', 'refund', rerank => 'smollm2:135m')",
    )
    everything = [
        *map(str, (found, answered, reranked)),
        told(models),
        stored(tickets),
        *(str(row) for row in rows(tickets, "select chunk from ticket_embedding")),
    ]
    for text in everything:
        for secret in (EMAIL, IBAN, "lovelace", "ada."):
            assert secret not in text
    assert "[EMAIL" in told(models)
    assert "Sources:" in told(models)


def test_what_is_masked_is_not_found_by_its_words(tickets: Connection) -> None:
    for words in (EMAIL, IBAN):
        query = f"select 1 from pgstack.search('ticket', '{words}', mode => 'text')"
        assert rows(tickets, query) == []


def test_offsets_lie_in_the_source(tickets: Connection) -> None:
    """Where nothing is masked, a chunk is what stands there; elsewhere it is as long."""
    found = rows(
        tickets,
        "select t.body, s.chunk, s.start_char, s.end_char from ticket_embedding_store as s "
        "join ticket as t using (id) order by s.chunk_seq",
    )
    assert len(found) >= 3
    for body, chunk, start, end in found:
        original = body[start:end]
        assert len(original) == len(chunk)
        kept = original.replace(EMAIL, "").replace(IBAN, "")
        if kept == original:
            assert chunk == original
    assert any(EMAIL in body[start:end] for body, _, start, end in found)
    states = rows(
        tickets,
        "select distinct s.state from pgstack.search('ticket', 'refund') as h "
        "cross join lateral _pgstack.hit_states(_pgstack.vectorizer_plan('ticket'::text), "
        "array[(h.rank, h.id, h.chunk_seq, h.chunk, h.score, h.start_char, h.end_char, "
        "null, null, null, null, null, null)::_pgstack.hit]) as s",
    )
    assert states == [("fresh",)]


def test_a_change_of_what_is_masked_alone_embeds_nothing(
    tickets: Connection, models: Models
) -> None:
    models.clear()
    tickets.execute("update ticket set body = replace(body, 'ada.', 'bob.')")
    assert fresh(tickets, "ticket")
    assert models.stats()["texts"] == 0


def test_pgais_own_worker_refuses(tickets: Connection) -> None:
    """Its worker validates a vectorizer before it reads a row, chunking by what it names.

    The module is loaded by itself: the worker's dependencies are not ours.
    """
    (origin,) = find_spec("pgai").submodule_search_locations  # type: ignore[union-attr, misc]
    spec = spec_from_file_location("pgai_chunking", Path(origin) / "vectorizer" / "chunking.py")
    assert spec is not None
    assert spec.loader is not None
    pgai = module_from_spec(spec)
    spec.loader.exec_module(pgai)
    known = (
        pgai.LangChainCharacterTextSplitter,
        pgai.LangChainRecursiveCharacterTextSplitter,
        pgai.NoneChunker,
    )
    chunkers: Any = TypeAdapter(
        Annotated[known[0] | known[1] | known[2], Field(discriminator="implementation")]
    )
    [(config,)] = rows(tickets, "select config -> 'chunking' from ai.vectorizer")
    refusal = "Input tag 'pgstack' found using 'implementation' does not match any of the expected"
    with pytest.raises(ValidationError, match=refusal):
        chunkers.validate_python(config)
    tickets.execute("select pgstack.set_chunking('ticket')")
    [(config,)] = rows(tickets, "select config -> 'chunking' from ai.vectorizer")
    assert chunkers.validate_python(config).chunk_size == 800


def test_masking_can_be_turned_on_and_off(db: Connection, worker: Any, models: Models) -> None:
    db.execute("create table ticket (id int primary key, title text, body text)")
    db.execute("insert into ticket values (7, %s, %s)", (TITLE, BODY))
    vectorize(db, "ticket", "body")
    assert fresh(db, "ticket")
    chunk = "select chunk from ticket_embedding_store"
    assert rows(db, chunk) == [(BODY,)]
    turn = "select pgstack.set_chunking('ticket', mask_pii => {})"
    assert rows(db, turn.format("array['email']")) == [(1,)]
    assert fresh(db, "ticket")
    [(masked,)] = rows(db, chunk)
    assert EMAIL not in masked
    assert IBAN in masked
    assert rows(db, turn.format("array['email']")) == [(0,)]
    assert rows(db, turn.format("null")) == [(1,)]
    assert fresh(db, "ticket")
    assert rows(db, chunk) == [(BODY,)]


def test_words_before_the_chunks_are_masked_when_it_is_turned_on(
    db: Connection, worker: Any, models: Models
) -> None:
    db.execute("create table ticket (id int primary key, title text, body text)")
    db.execute("insert into ticket values (7, %s, 'A refund.')", (TITLE,))
    db.execute("select pgstack.configure('text_index_min_rows', '1')")
    db.execute(
        "select pgstack.create_vectorizer('ticket', array['title', 'body'], dimensions => 384)"
    )
    assert fresh(db, "ticket")
    by_words = f"select id from pgstack.search('ticket', '{EMAIL}', mode => 'text')"
    made = "select words_config from _pgstack.vectorizer"
    while rows(db, made) != [("english",)]:
        pass  # pytest's timeout ends it
    assert rows(db, by_words) == [({"id": 7},)]
    db.execute("select pgstack.set_chunking('ticket', mask_pii => array['all'])")
    assert rows(db, by_words) == []
    assert fresh(db, "ticket")
    while rows(db, made) != [("english",)]:
        pass
    db.execute("insert into ticket values (8, %s, 'Another.')", (TITLE,))
    assert fresh(db, "ticket")
    assert rows(db, by_words) == []
    assert len(rows(db, "select 1 from pgstack.search('ticket', 'refund', mode => 'text')")) == 2


@pytest.mark.parametrize(
    "method", ["recursive", "character", "sentence", "markdown", "page", "token", "none"]
)
def test_every_method_masks(db: Connection, worker: Any, models: Models, method: str) -> None:
    db.execute("create table ticket (id int primary key, body text)")
    db.execute("insert into ticket values (7, %s)", (f"# Refund\n\n{BODY}\f{BODY}",))
    vectorize(
        db, "ticket", "body", chunking=method, chunk_size=60, chunk_overlap=0, mask_pii=["all"]
    )
    assert fresh(db, "ticket")
    for text in (told(models), stored(db)):
        assert EMAIL not in text
        assert IBAN not in text
    places = "start_char, end_char, chunk"
    assert rows(db, f"select {places} from ticket_embedding_store order by chunk_seq") == rows(
        db,
        f"select {places} from ticket cross join lateral "
        f"pgstack.chunk(pgstack.mask_pii(body, null, true), '{method}', 60, 0) order by seq",
    )


def test_a_row_that_cannot_be_masked_stands_alone(
    db: Connection, worker: Any, models: Models
) -> None:
    """Also when PostgreSQL says that a limit of its own was reached."""
    db.execute("create table ticket (id int primary key, body text)")
    db.execute("insert into ticket select i, 'text ' || i from generate_series(1, 40) as i")
    db.execute(
        "create function public.refuse(input text) returns text language plpgsql immutable as $$ "
        "begin if input ~ '^text (13|27)$' then raise exception 'too odd' using errcode = "
        "case input when 'text 13' then 'PS007' else '54000' end, hint = 'x'; end if; "
        "return input; end $$"
    )
    db.execute(
        "create or replace function pgstack.mask_pii(input text, types text[] default null, "
        "keep_length boolean default false) returns text language sql immutable "
        "as 'select public.refuse(input)'"
    )
    vectorize(db, "ticket", "body", mask_pii=["all"])
    await_status(db, "ticket", embedded_rows=38, retrying=2)
    errors = rows(db, "select key ->> 'id', error from pgstack.vectorizer_errors order by 1")
    assert errors == [("13", "too odd"), ("27", "too odd")]


@pytest.mark.parametrize(
    ("arguments", "sqlstate", "words"),
    [
        ("mask_pii => array['shoe size']", "PS007", "shoe size"),
        ("mask_pii => array[]::text[]", "PS007", "must name types"),
        ("mask_pii => array['all', 'email']", "PS007", "must name types"),
        ("mask_pii => array['email'], embedding_column => 'e'", "PS013", "cannot mask"),
    ],
)
def test_what_cannot_be_masked_is_refused(
    db: Connection, arguments: str, sqlstate: str, words: str
) -> None:
    db.execute("create table ticket (id int primary key, body text)")
    with raises(sqlstate, words):
        db.execute(
            f"select pgstack.create_vectorizer('ticket', 'body', dimensions => 3, {arguments})"
        )
    assert rows(db, "select 1 from ai.vectorizer") == []
