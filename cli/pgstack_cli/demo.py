"""``pgstack demo``: the main job, end to end, on real documents."""

from __future__ import annotations

import os
import textwrap
import time
from dataclasses import dataclass, field
from typing import Any

import typer

from pgstack_cli import ingest, model, stack
from pgstack_cli.output import duration, heading, result, table
from pgstack_cli.search import chat, print_citations, print_hit, print_pieces

STEPS = 7
HITS, SOURCES = 3, 3


def demo() -> None:
    """Show the main job, end to end, on real documents.

    Starts the embedded stack, reads Python's language reference, embeds it, keeps a table
    in sync, searches, and answers a question with its sources. The first time it fetches
    models; after that it takes less than a minute. The stack runs on afterwards.
    $PGSTACK_DEMO_MODEL names another model to answer: smollm2:135m is the quick one.

    \b
    Examples:
      pgstack demo
      PGSTACK_DEMO_MODEL=smollm2:135m pgstack demo
    """
    show = _Show()
    show.step("Start PostgreSQL, a model server and a worker")
    running = stack.start()
    show.say(f"PostgreSQL {running.version} in {running.home}; nothing outside it is touched")

    from pgstack import demo as library
    from pgstack import target

    with target.connect(running.dsn) as conn:
        _read_documents(show, conn, library)
        _sync_live(show, conn, library)
        _search(show, conn, library)
        _ask(show, conn, library)
    show.end(running.home)


@dataclass
class _Show:
    """Numbers the steps and tells the time since the beginning."""

    began: float = field(default_factory=time.monotonic)
    number: int = 0

    def step(self, title: str) -> None:
        """Begin a step."""
        self.number += 1
        stamp = f"[{time.monotonic() - self.began:5.1f} s]"
        heading(f"\n{stamp} {self.number}/{STEPS}  {title}")

    def say(self, text: str) -> None:
        """Print a line about a step."""
        result(textwrap.indent(text, "    "))

    def end(self, home: str) -> None:
        """Sum up."""
        taken = duration(time.monotonic() - self.began)
        heading(f"\nDone in {taken}. PostgreSQL, a model server and a worker run on, in {home}.")
        result(
            textwrap.dedent("""
            Stop them:  pgstack down        (your data stays; pgstack up goes on with it)
            Look:       pgstack status

            Try next:
              pgstack ask python_docs "What does the nonlocal statement do?" --stream
              pgstack ingest ~/Documents --collection mine --wait
              pgstack psql -c "select * from pgstack.vectorizer_status"
            """).rstrip()
        )


def _read_documents(show: _Show, conn: Any, library: Any) -> None:
    from pgstack import vectorizers
    from pgstack.embedded.home import default_home

    show.step("Read real documents: Python's own language reference")
    folder = library.write_topics(default_home())
    show.say(f"$ pgstack ingest {folder} --collection {library.COLLECTION} --prune")
    report = ingest.read(conn, [folder], library.COLLECTION, prune=True)
    show.say(
        f"{report.inserted} new, {report.updated} changed, {report.unchanged} unchanged documents "
        f"(a choice of topics: all of them would take longer)"
    )

    show.step("Embeddings appear; the worker makes them from what PostgreSQL queued")
    began = time.monotonic()
    before = vectorizers.status(conn, library.COLLECTION)
    after = ingest.follow(conn, library.COLLECTION)
    made = after.embedded_chunks - before.embedded_chunks
    taken = time.monotonic() - began
    speed = f", {made / taken:.0f} a second" if made > 100 else ""
    show.say(f"{made} chunks embedded{speed}; {after.embedded_rows} documents are searchable")


def _sync_live(show: _Show, conn: Any, library: Any) -> None:
    show.step("Change a row, and its embedding follows")
    library.prepare_notes(conn)
    show.say(library.UPDATE)
    seconds = library.change_note(conn)
    show.say(f"-- embedded {seconds * 1000:.0f} ms after the update\n")
    _query(show, conn, library, library.NEAREST)


def _search(show: _Show, conn: Any, library: Any) -> None:
    from pgstack.search import passages, search

    show.step("Search by meaning, in plain SQL")
    _query(show, conn, library, library.SEARCH)

    show.step("Search from the shell: by meaning and by words together")
    show.say(f'$ pgstack search {library.COLLECTION} "{library.WORDS}" -k {HITS}')
    hits = search(conn, library.COLLECTION, library.WORDS, k=HITS)
    for hit, passage in zip(hits, passages(conn, library.COLLECTION, hits), strict=True):
        print_hit(hit, passage, indent="    ")


def _ask(show: _Show, conn: Any, library: Any) -> None:
    from pgstack.search import answer_pieces
    from pgstack.vectorizers import default_model

    name = os.environ.get("PGSTACK_DEMO_MODEL") or default_model(conn, "generation_model")
    show.step("Ask a question; a model answers from the documents and cites them")
    model.fetch_missing(name)
    show.say(f'$ pgstack ask {library.COLLECTION} "{library.QUESTION}" --model {name} --stream')
    typer.echo()
    answer = print_pieces(
        answer_pieces(conn, library.COLLECTION, library.QUESTION, chat=chat, k=SOURCES, model=name)
    )
    print_citations(answer)


def _query(show: _Show, conn: Any, library: Any, query: str) -> None:
    """Print a query and what it gives."""
    show.say(query)
    typer.echo()
    found = library.run(conn, query)
    table(found.columns, found.rows, indent=4)
    show.say(f"-- {len(found.rows)} rows in {found.seconds * 1000:.0f} ms")
