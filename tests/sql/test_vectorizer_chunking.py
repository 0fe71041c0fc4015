"""How a vectorizer cuts: its configuration, its chunks, and another configuration meanwhile."""

from __future__ import annotations

import pytest

from tests.sql.test_vectorizer_verbs import Conn, Drain, column, create, docs, refused, rows

__all__ = ["docs"]

CHUNKING = "select config -> 'chunking' from ai.vectorizer"


@pytest.mark.parametrize(
    ("arguments", "config"),
    [
        ("chunking => 'none'", "ai.chunking_none()"),
        (
            "chunk_size => 90, chunk_overlap => 9",
            "ai.chunking_recursive_character_text_splitter(90, 9)",
        ),
        (
            "separators => array['#', ''], is_regex => true, keep_separator => 'start'",
            "ai.chunking_recursive_character_text_splitter(800, 400, array['#', ''], true)",
        ),
        ("separators => '{}'", "ai.chunking_recursive_character_text_splitter(800, 400, '{}')"),
        (
            "chunking => 'character', separators => array['#']",
            "ai.chunking_character_text_splitter(800, 400, '#')",
        ),
    ],
)
def test_what_pgai_can_say_is_pgais(docs: Conn, arguments: str, config: str) -> None:
    create(docs, f"'docs', 'body', {arguments}")
    assert column(docs, CHUNKING) == column(docs, f"select {config}")


@pytest.mark.parametrize(
    "arguments",
    [
        "chunking => 'recursive'",
        "chunking => 'character', chunk_size => 5, chunk_overlap => 0, separators => array[' ']",
        "separators => '{}', chunk_size => 8, chunk_overlap => 2",
        "separators => array['[ x]', ''], is_regex => true, chunk_size => 6, chunk_overlap => 0",
        "separators => array[' '], keep_separator => 'end', chunk_size => 9, chunk_overlap => 4",
        "chunking => 'none'",
        "chunking => 'sentence', chunk_size => 12, chunk_overlap => 0",
        "chunking => 'markdown', chunk_size => 12, chunk_overlap => 0",
        "chunking => 'page', chunk_size => 12, chunk_overlap => 0",
        "chunking => 'token', chunk_size => 2, chunk_overlap => 1",
    ],
)
def test_chunks_are_those_of_the_arguments(docs: Conn, drain: Drain, arguments: str) -> None:
    body = "# Head\nIs it so? It is. And then\n\n## Part\nmore of it.\fA page. Ends here."
    docs.execute("insert into docs values (3, 'Three', %s)", (body,))
    create(docs, f"'docs', 'body', {arguments}")
    drain()
    renamed = arguments.replace("chunk_", "").replace("chunking", "method")
    assert rows(
        docs,
        "select id, chunk_seq, start_char, end_char, chunk from docs_embedding_store order by 1, 2",
    ) == rows(
        docs,
        "select d.id, c.* from docs as d "
        f"cross join lateral pgstack.chunk(d.body, {renamed}) as c order by 1, 2",
    )


def test_another_way_of_cutting_makes_all_chunks_anew(docs: Conn, drain: Drain) -> None:
    create(docs)
    drain()
    chunks = "select chunk from docs_embedding_store order by id, chunk_seq"
    cut = "select pgstack.set_chunking('docs', 'recursive', 7, 0)"
    assert column(docs, cut) == [2]
    assert drain() == 2
    assert column(docs, chunks) == ["first", "text", "second", "text"]
    assert column(docs, cut) == [0], "nothing is queued when nothing changes"
    refused(docs, "PS007", "select pgstack.set_chunking('docs', 'recursive', 7, 8)")
    refused(docs, "PS001", "select pgstack.set_chunking('cats')")
    assert drain() == 0


def test_a_column_of_the_source_takes_no_chunks(docs: Conn) -> None:
    create(docs, "'docs', 'body', embedding_column => 'e'")
    refused(docs, "PS013", "select pgstack.set_chunking('docs')")


LOAD = "select nr, version, chunk_seq, start_char, end_char, digest, wanted, chunk, input"


def test_what_was_loaded_before_is_not_written_as_if_cut_so(docs: Conn, drain: Drain) -> None:
    """A worker loads, the configuration changes, the worker writes: the rows stay queued."""
    number = create(docs)
    worker = "00000000-0000-0000-0000-000000000001"
    keys = ['{"id": 1}', '{"id": 2}']
    docs.execute("select from _pgstack.work_claim(%s, null, '{}', '{}')", (worker,))
    key = "_pgstack.model_key(p.base_url, p.model, p.options, p.keep_alive)"
    loaded = rows(
        docs,
        f"{LOAD} from _pgstack.vectorizer_plan as p, "
        f"_pgstack.work_load(p.id, %s::jsonb[], {key}, null)",
        keys,
    )
    docs.execute("select pgstack.set_chunking('docs', 'recursive', 7, 0)")
    written = column(
        docs,
        "select _pgstack.work_complete(%s, %s, %s::jsonb[], %s::bytea[], %s::int[], %s::int[], "
        "%s::int[], %s::int[], %s::bytea[], %s::text[], array['[1,1,1]', '[1,1,1]']::vector[])",
        *(worker, number, keys, [row[1] for row in loaded]),
        *([row[i] for row in loaded] for i in (0, 2, 3, 4, 5, 7)),
    )
    assert written == [0]
    docs.execute("update _pgstack.work set due_at = now() - interval '1 s'")
    assert drain() == 2
    assert column(docs, "select chunk from docs_embedding_store where id = 1 order by 1") == [
        "first",
        "text",
    ]


def test_rows_queued_with_another_configuration_stay_queued(docs: Conn) -> None:
    """The configuration changes after work_complete() has read the plan and locked the rows."""
    create(docs)
    [plan] = column(docs, "select p::text from _pgstack.vectorizer_plan as p")
    unqueue = (
        "select _pgstack.unqueue("
        "%s::_pgstack.vectorizer_plan, array['{\"id\": 1}']::jsonb[], '{1}')"
    )
    [queue] = column(docs, "select queue from _pgstack.vectorizer_plan")
    queued = f"select count(distinct id) from {queue}"
    docs.execute("select pgstack.set_chunking('docs', 'none')")
    docs.execute(unqueue, (plan,))
    assert column(docs, queued) == [2]
    [plan] = column(docs, "select p::text from _pgstack.vectorizer_plan as p")
    docs.execute(unqueue, (plan,))
    assert column(docs, queued) == [1]


def test_a_way_of_cutting_that_nobody_knows_is_told(docs: Conn) -> None:
    create(docs)
    docs.execute(
        "update ai.vectorizer "
        "set config = jsonb_set(config, '{chunking,implementation}', '\"semantic\"')"
    )
    assert column(docs, "select last_error from pgstack.vectorizer_status") == [
        "chunking by semantic is not supported"
    ]
