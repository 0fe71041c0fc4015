"""What ``pgstack demo`` works with: documents found on every machine, and a small table.

Documents
    Python's own language reference, which Python carries in ``pydoc_data.topics``: about
    0.5 MB in some 80 topics.  :func:`write_topics` writes those of up to 15,000 characters
    (some 70, 0.2 MB) as files.  The whole would take several minutes to embed on a
    small machine, these take less than two.
Table
    ``pgstack_demo.notes``, with a vectorizer ``demo_notes``: changed before your eyes.

Nothing here opens a connection; use one in autocommit mode.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import LiteralString

from pgstack import vectorizers
from pgstack.db import Connection
from pgstack.embedded.home import Home, write_atomically
from pgstack.errors import PgstackError
from pgstack.vectorizers import understood

COLLECTION = "python_docs"
LONGEST_TOPIC = 15_000  # characters
NOTES = "demo_notes"
SYNC_SECONDS = 60.0

QUESTION = "What does the break statement do in a loop?"
WORDS = "stop a loop early"

_NOTES_TABLE: LiteralString = """
create schema if not exists pgstack_demo;
create table if not exists pgstack_demo.notes (
  id int primary key,
  body text not null
);
"""

_NOTES = (
    (1, "The cat sleeps on the warm oven and purrs."),
    (2, "Lunch on Friday is at the Thai place round the corner."),
    (3, "The train to the coast leaves at half past nine."),
)

UPDATE: LiteralString = """\
update pgstack_demo.notes
set body = 'The copier on the second floor is out of toner again.'
where id = 1;"""

NEAREST: LiteralString = """\
select body, round((embedding <=> pgstack.embed('broken office machine'))::numeric, 3) as distance
from pgstack_demo.notes_embedding
order by embedding <=> pgstack.embed('broken office machine')
limit 3;"""

SEARCH: LiteralString = """\
select d.title, round(s.score::numeric, 3) as score, left(s.chunk, 40) as chunk
from pgstack.search('python_docs', 'tell the compiler what kind of value a variable holds',
                    k => 3, mode => 'vector') as s
join pgstack_collections.python_docs as d on d.id = (s.id ->> 'id')::bigint
order by s.rank;"""


@dataclass(frozen=True)
class Rows:
    """What a query gave, and the seconds it took."""

    columns: list[str]
    rows: list[tuple[object, ...]]
    seconds: float


def topics() -> dict[str, str]:
    """Return the topics of Python's language reference that the demo reads, by name."""
    from pydoc_data.topics import topics as found

    return {name: text for name, text in sorted(found.items()) if len(text) <= LONGEST_TOPIC}


def write_topics(home: Home) -> Path:
    """Write the topics as files, those that are not there yet; return their folder."""
    folder = home.root / "demo" / COLLECTION
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in topics().items():
        path = folder / f"{name}.rst"
        wanted = text.strip() + "\n"
        if not path.exists() or path.read_text(encoding="utf-8") != wanted:
            write_atomically(path, wanted)
    return folder


def prepare_notes(conn: Connection) -> None:
    """Make the table of notes and its vectorizer, or put the notes back as they were."""
    conn.execute(_NOTES_TABLE)
    with conn.cursor() as cur:
        cur.executemany(
            "insert into pgstack_demo.notes as n (id, body) values (%s, %s) "
            "on conflict (id) do update set body = excluded.body "
            "where n.body <> excluded.body",
            _NOTES,
        )
    with understood():
        conn.execute(
            "select pgstack.create_vectorizer('pgstack_demo.notes', 'body'::name, name => %s, "
            "destination => 'notes_embedding', if_not_exists => true)",
            (NOTES,),
        )
    _sync(conn)


def change_note(conn: Connection) -> float:
    """Run :data:`UPDATE`; return the seconds until its embedding had followed."""
    began = time.monotonic()
    conn.execute(UPDATE)
    _sync(conn)
    return time.monotonic() - began


def run(conn: Connection, query: LiteralString) -> Rows:
    """Run a query that the demo shows."""
    began = time.monotonic()
    with understood():
        cur = conn.execute(query)
        rows = cur.fetchall()
    columns = [column.name for column in cur.description or ()]
    return Rows(columns, rows, time.monotonic() - began)


def _sync(conn: Connection) -> None:
    if not vectorizers.wait_until_fresh(conn, NOTES, seconds=SYNC_SECONDS):
        raise PgstackError(
            f"the notes were not embedded within {SYNC_SECONDS:g} s", hint="pgstack doctor"
        )
