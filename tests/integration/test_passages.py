"""Pages, headings, title and uri of what is found in a collection."""

from __future__ import annotations

import json
from typing import Any

import psycopg
import pytest
from pgstack_cli import app as cli
from psycopg.types.json import Jsonb
from typer.testing import CliRunner

from tests.integration.conftest import Models, raises
from tests.integration.test_worker import fresh, rows

Connection = psycopg.Connection[Any]

PAGES = [
    ("The zebra has stripes. It lives in Africa.", ["Animals", "Land"]),
    ("The penguin swims. It lives where it is cold.", ["Animals", "Sea"]),
    ("The bat hangs upside down. It sleeps all day.", ["Animals", "Air"]),
]
TEXT = "\n\n".join(text for text, _ in PAGES)
TITLE = "Animals at a glance"
URI = "file:///shelf/animals.pdf"


def parts() -> list[dict[str, Any]]:
    """The map of the document: a part a page, the empty line with the page it ends."""
    found = []
    at = 0
    for number, (text, headings) in enumerate(PAGES, start=1):
        end = at + len(text) + 2 * (number < len(PAGES))
        found.append({"start": at, "end": end, "page": number, "headings": headings})
        at = end
    return found


@pytest.fixture
def shelf(db: Connection, worker: Any, models: Models) -> Connection:
    """A collection of a document of three pages and one that has none, a chunk a page."""
    db.execute(
        "select pgstack.create_collection('My shelf', dimensions => 384, "
        "chunk_size => 50, chunk_overlap => 0)"
    )
    db.execute(
        "select _pgstack.store_document('My shelf', %s, %s, %s, %s, 'application/pdf', '{}', "
        "null, null, null, null, null)",
        (URI, TEXT, Jsonb(parts()), TITLE),
    )
    db.execute("select pgstack.ingest_text('My shelf', 'note', 'The otter swims in rivers.')")
    assert fresh(db, "My shelf")
    return db


def slug(db: Connection) -> str:
    [(name,)] = rows(db, "select name from ai.vectorizer")
    return str(name)


def test_a_chunk_has_its_page_and_headings(shelf: Connection) -> None:
    found = rows(
        shelf,
        "select s.chunk, p.page, p.last_page, p.headings, p.title, p.uri "
        "from pgstack.search('My shelf', 'zebra penguin bat otter', k => 20) as s "
        "cross join lateral pgstack.passage('My shelf', s.id, s.start_char, s.end_char) as p",
    )
    by_chunk = {row[0]: row[1:] for row in found}
    for number, (text, headings) in enumerate(PAGES, start=1):
        assert by_chunk[text] == (number, number, headings, TITLE, URI)
    assert by_chunk["The otter swims in rivers."] == (None, None, [], None, "note")
    assert slug(shelf) != "My shelf"
    assert rows(
        shelf, f"select page from pgstack.passage('{slug(shelf)}', '{{\"id\": 1}}', 0, 5)"
    ) == [(1,)]


@pytest.mark.parametrize(
    ("start", "end", "expected"),
    [
        (0, 42, (1, 1, ["Animals", "Land"])),
        (40, 80, (1, 2, ["Animals", "Sea"])),
        (0, 1000, (1, 3, ["Animals", "Sea"])),
        (1000, 1001, (None, None, [])),
    ],
)
def test_a_chunk_over_several_pages(shelf: Connection, start: int, end: int, expected: Any) -> None:
    query = (
        "select page, last_page, headings from pgstack.passage('My shelf', '{\"id\": 1}', %s, %s)"
    )
    assert shelf.execute(query.encode(), (start, end)).fetchall() == [expected]


def test_a_citation_says_where_to_look(shelf: Connection, models: Models) -> None:
    [(citations,)] = rows(shelf, "select citations from pgstack.ask('My shelf', 'penguin swims')")
    [first] = [c for c in citations if c["cited"]]
    assert (first["page"], first["last_page"]) == (2, 2)
    assert first["headings"] == ["Animals", "Sea"]
    assert (first["title"], first["uri"]) == (TITLE, URI)
    [(citations,)] = rows(shelf, "select citations from pgstack.ask('My shelf', 'otter rivers')")
    [first] = [c for c in citations if c["cited"]]
    assert (first["title"], first["uri"]) == (None, "note")
    assert "page" not in first
    assert "headings" not in first
    for prompt in models.stats()["prompts"]:
        assert TITLE not in prompt, "the model is given chunks, and nothing else of a document"


def test_markdown_without_a_map_is_read_itself(shelf: Connection) -> None:
    text = "# Animals\n\nMany.\n\n## Sea\n\nThe seal swims.\n"
    shelf.execute(
        "select pgstack.ingest_text('My shelf', 'md', %s, null, 'text/markdown')", (text,)
    )
    query = "select headings from pgstack.passage('My shelf', %s, %s, %s)"
    [(number,)] = rows(shelf, "select id from pgstack.documents where uri = 'md'")
    place = text.index("The seal")
    assert shelf.execute(query.encode(), (Jsonb({"id": number}), place, place + 5)).fetchall() == [
        (["Animals", "Sea"],)
    ]


def test_a_map_that_is_none_is_left_out(shelf: Connection) -> None:
    """Who may write to the table may write anything there."""
    for odd in (
        [{"start": "a", "end": 9}],
        [{"start": 0, "end": 9, "page": 1.5}],
        [{"start": 0, "end": 9, "page": 1e99}],
        [{"start": 0, "end": 9, "page": "one"}],
        [[], 7, None, "x"],
        {"start": 0},
    ):
        shelf.execute(
            'update pgstack_collections."My shelf" set parts = %s where id = 1', (Jsonb(odd),)
        )
        query = "select page, headings from pgstack.passage('My shelf', '{\"id\": 1}', 0, 5)"
        assert rows(shelf, query) == [(None, [])], odd
    odd = [{"start": 0, "end": 1e99, "page": 3, "headings": ["A", 7, {"b": None}]}]
    shelf.execute(
        'update pgstack_collections."My shelf" set parts = %s where id = 1', (Jsonb(odd),)
    )
    assert rows(shelf, query) == [(3, ["A", "7", '{"b": null}'])]


def test_others_documents_stay_unseen(shelf: Connection, db_url: str) -> None:
    relation = 'pgstack_collections."My shelf"'
    shelf.execute("create role passages_reader login")
    try:
        reader = psycopg.connect(db_url, user="passages_reader", autocommit=True)
        query = "select title from pgstack.passage('My shelf', '{\"id\": 1}', 0, 5)"
        with reader:
            assert rows(reader, query) == []
            shelf.execute(f"grant select on {relation} to passages_reader")
            assert rows(reader, query) == [(TITLE,)]
            shelf.execute(f"alter table {relation} enable row level security")
            assert rows(reader, query) == []
    finally:
        shelf.execute("drop owned by passages_reader; drop role passages_reader")


def test_an_unknown_collection_is_refused(db: Connection) -> None:
    with raises("PS001"):
        rows(db, "select * from pgstack.passage('cats', '{}', 0, 1)")


def test_the_command_line_prints_title_page_and_headings(
    shelf: Connection, db_url: str, models_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGSTACK_DATABASE_URL", db_url)
    monkeypatch.setenv("OLLAMA_HOST", models_url)

    def run(*args: str) -> str:
        done = CliRunner().invoke(cli.app, list(args), prog_name="pgstack")
        assert done.exit_code == 0, done.output
        return done.stdout

    place = f"{TITLE} (id=1), page 2, Animals > Sea, characters 44-89"
    assert place in run("search", "My shelf", "penguin swims")
    assert place in run("ask", "My shelf", "penguin swims")
    assert place in run("ask", "My shelf", "penguin swims", "--stream")
    assert "note (id=2), characters 0-26" in run("search", "My shelf", "otter rivers")
    cited = json.loads(run("ask", "My shelf", "penguin swims", "--json"))["citations"]
    assert [(c["page"], c["title"]) for c in cited if c["cited"]] == [(2, TITLE)]
