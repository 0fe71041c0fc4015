"""``pgstack search`` and ``pgstack ask``."""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import unquote

import typer

from pgstack_cli.options import AsJson, DatabaseUrl, Name
from pgstack_cli.output import clean, duration, json_document, json_line, message, result, table

if TYPE_CHECKING:
    from pgstack.search import Answer, Citation, Document, Hit, Step

SNIPPET = 160  # characters


class Mode(StrEnum):
    """How to search."""

    hybrid = "hybrid"
    vector = "vector"
    text = "text"


def search(
    name: Name,
    query: Annotated[str, typer.Argument(help="What to look for, in plain words.")],
    *,
    k: Annotated[int, typer.Option("-k", min=1, max=1000, help="Chunks wanted.")] = 10,
    mode: Annotated[
        Mode, typer.Option("--mode", help="By meaning (vector), by words (text), or both.")
    ] = Mode.hybrid,
    filter: Annotated[
        str | None,
        typer.Option("--filter", metavar="JSON", help="Conditions over columns of the source."),
    ] = None,
    explain: Annotated[
        bool, typer.Option("--explain", help="Tell step by step how the search went.")
    ] = False,
    as_json: AsJson = False,
    url: DatabaseUrl = None,
) -> None:
    """Print the chunks of NAME that fit QUERY, the best first.

    --json: one object a line: rank, id (the row's key), chunk_seq, chunk, score,
    start_char, end_char. With --explain: one document, plans included.

    \b
    Examples:
      pgstack search handbook "reset a lost password"
      pgstack search blog "database backups" -k 3 --mode vector
      pgstack search blog backups --filter '{"author": "ada"}' --json
      pgstack search shop lamp --filter '{"price": {"lt": 50}, "tags": {"contains": ["desk"]}}'
      pgstack search shop lamp --filter '{"or": [{"sold": null}, {"sold": {"gte": "2026-01-01"}}]}'
      pgstack search blog "database backups" --explain
    """
    from pgstack import search as library
    from pgstack import target

    wanted = library.parse_filter(filter)
    if explain:
        with target.connect(url) as conn:
            arguments: dict[str, Any] = {"k": k, "mode": mode.value, "filter": wanted}
            if as_json:
                json_document(library.explained(conn, name, query, **arguments))
            else:
                print_steps(library.explain(conn, name, query, **arguments))
        return
    with target.connect(url) as conn:
        hits = library.search(conn, name, query, k=k, mode=mode.value, filter=wanted)
        found = {} if as_json else library.documents(conn, name, [hit.id for hit in hits])
    for hit in hits:
        if as_json:
            json_line(hit)
        else:
            print_hit(hit, found)
    if not hits:
        message("nothing found")


def print_steps(steps: list[Step]) -> None:
    """Print how a search went, and what to know of it."""
    told = [step for step in steps if step.step != "warning"]
    table(
        ["step", "what", "rows", "ms", "detail"],
        [
            (s.step, s.what, s.rows, None if s.ms is None else round(s.ms, 1), s.detail)
            for s in told
        ],
    )
    for step in steps[len(told) :]:
        result(f"warning: {step.what}: {step.detail}")


def print_hit(hit: Hit, found: dict[int, Document], *, indent: str = "") -> None:
    """Print one chunk for a person."""
    result(f"{indent}{hit.rank}. {_place(hit, found)}  (score {hit.score:.3f})")
    result(f"{indent}   {snippet(hit.chunk)}")


def ask(
    name: Name,
    question: Annotated[str, typer.Argument(help="A question, in plain words.")],
    *,
    k: Annotated[int, typer.Option("-k", min=1, max=100, help="Chunks the model is given.")] = 5,
    model: Annotated[
        str | None,
        typer.Option("--model", help="Who answers. Default: the setting generation_model."),
    ] = None,
    stream: Annotated[
        bool, typer.Option("--stream", help="Print the answer while it is written.")
    ] = False,
    as_json: AsJson = False,
    url: DatabaseUrl = None,
) -> None:
    """Answer QUESTION from the chunks of NAME, and cite them.

    --json: one document: answer, citations [number, id, chunk_seq, chunk, start_char,
    end_char, score, cited], model, duration (seconds). With --stream: one object a line,
    {"text": ...} for each piece, and the document on the last.

    \b
    Examples:
      pgstack ask handbook "How do I reset a lost password?"
      pgstack ask handbook "Who approves travel?" --stream
      pgstack ask handbook "Who approves travel?" --model qwen2.5-coder:0.5b --json
    """
    from pgstack import search as library
    from pgstack import target

    with target.connect(url) as conn:
        if not stream:
            answer = library.ask(conn, name, question, k=k, model=model)
            if as_json:
                json_document(answer)
            else:
                result(answer.answer or "Nothing was found to answer from.")
        else:
            answer = print_pieces(
                library.answer_pieces(conn, name, question, chat=chat, k=k, model=model),
                as_json=as_json,
            )
        if not as_json:
            keys = [citation.id for citation in answer.citations]
            print_citations(answer, library.documents(conn, name, keys))


def print_pieces(pieces: Iterator[str | Answer], *, as_json: bool = False) -> Answer:
    """Print an answer piece by piece; return all of it."""
    for piece in pieces:
        if not isinstance(piece, str):
            if as_json:
                json_line(piece)
            else:
                typer.echo("" if piece.answer else "Nothing was found to answer from.")
            return piece
        if as_json:
            json_line({"text": piece})
        else:
            typer.echo(clean(piece), nl=False)
    raise AssertionError("answer_pieces ends with an Answer")


def chat(payload: dict[str, Any]) -> Iterator[str]:
    """Ask the model server itself, piece by piece."""
    from pgstack.models import BlockingModelServer, resolve_url

    with BlockingModelServer(resolve_url()) as server:
        for piece in server.chat_stream(payload):
            if text := piece.get("message", {}).get("content"):
                yield text


def print_citations(answer: Answer, found: dict[int, Document]) -> None:
    """Print the sources of an answer."""
    if answer.citations:
        cited = any(citation.cited for citation in answer.citations)
        result("\nSources:" if cited else "\nSources (the answer cites none of them):")
    for citation in answer.citations:
        result(f"  [{citation.number}] {_place(citation, found)}")
        result(f"      {snippet(citation.chunk)}")
    message(f"({answer.model}, {duration(answer.duration.total_seconds())})")


def snippet(text: str) -> str:
    """Return the beginning of a chunk, on one line."""
    line = " ".join(text.split())
    return line if len(line) <= SNIPPET else line[: SNIPPET - 1].rsplit(" ", 1)[0] + "…"


def _place(chunk: Hit | Citation, found: dict[int, Document]) -> str:
    """Return where a chunk stands: its document or its row's key, and its characters there."""
    place = " ".join(f"{name}={value}" for name, value in chunk.id.items())
    document = found.get(chunk.id.get("id", 0))
    if document is not None:
        place = f"{document.title or unquote(document.uri)} ({place})"
    if chunk.start_char is not None:
        place += f", characters {chunk.start_char}-{chunk.end_char}"
    return place
