"""``pgstack search``, ``pgstack similar`` and ``pgstack ask``."""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import unquote

import typer

from pgstack_cli.options import AsJson, DatabaseUrl, Name
from pgstack_cli.output import clean, duration, json_document, json_line, message, result, table

if TYPE_CHECKING:
    from pgstack.db import Connection
    from pgstack.search import Answer, Citation, Hit, Options, Passage, Step

SNIPPET = 160  # characters


class Mode(StrEnum):
    """How to search."""

    hybrid = "hybrid"
    vector = "vector"
    text = "text"


class Per(StrEnum):
    """What a result is."""

    chunk = "chunk"
    row = "row"


class Fusion(StrEnum):
    """How hybrid search puts its two branches together."""

    convex = "convex"
    rrf = "rrf"


Count = Annotated[int, typer.Option("-k", min=1, max=1000, help="How many to print.")]
Filter = Annotated[
    str | None,
    typer.Option("--filter", metavar="JSON", help="Conditions over columns of the source."),
]
PerOption = Annotated[
    Per, typer.Option("--per", help="Print chunks, or the best chunk of each row.")
]
Diversity = Annotated[
    float,
    typer.Option(
        "--diversity", min=0, max=1, help="How much to put back what repeats a better one."
    ),
]
TargetRecall = Annotated[
    float | None,
    typer.Option(
        "--target-recall", min=0, max=1, help="How exactly to search the vector index, as .95."
    ),
]


def search(
    name: Name,
    query: Annotated[str, typer.Argument(help="What to look for, in plain words.")],
    *,
    k: Count = 10,
    mode: Annotated[
        Mode, typer.Option("--mode", help="By meaning (vector), by words (text), or both.")
    ] = Mode.hybrid,
    filter: Filter = None,
    per: PerOption = Per.chunk,
    fusion: Annotated[
        Fusion,
        typer.Option("--fusion", help="How to put both together: by scores, or by ranks (rrf)."),
    ] = Fusion.convex,
    vector_weight: Annotated[
        float | None,
        typer.Option("--vector-weight", min=0, max=1, help="The share of meaning beside words."),
    ] = None,
    rrf_k: Annotated[
        int | None,
        typer.Option("--rrf-k", min=0, max=10000, help="The constant of rrf. Default: 60."),
    ] = None,
    depth: Annotated[
        int | None,
        typer.Option("--depth", min=1, max=10000, help="Candidates of each branch."),
    ] = None,
    diversity: Diversity = 0,
    rerank: Annotated[
        str | None,
        typer.Option(
            "--rerank", metavar="MODEL", help="A generation model that puts the best 20 in order."
        ),
    ] = None,
    target_recall: TargetRecall = None,
    explain: Annotated[
        bool, typer.Option("--explain", help="Tell step by step how the search went.")
    ] = False,
    as_json: AsJson = False,
    url: DatabaseUrl = None,
) -> None:
    """Print the chunks of NAME that fit QUERY, the best first.

    Behind the score stands which branch found a chunk, and at which place.

    --json: one object a line: rank, id (the row's key), chunk_seq, chunk, score,
    start_char, end_char, vector_rank, vector_score, text_rank, text_score, more. With
    --explain: one document, plans included.

    \b
    Examples:
      pgstack search handbook "reset a lost password"
      pgstack search blog "database backups" -k 3 --mode vector --per row
      pgstack search blog backups --filter '{"author": "ada"}' --json
      pgstack search shop lamp --filter '{"price": {"lt": 50}, "tags": {"contains": ["desk"]}}'
      pgstack search shop lamp --filter '{"or": [{"sold": null}, {"sold": {"gte": "2026-01-01"}}]}'
      pgstack search news election --per row --diversity 0.4
      pgstack search blog "database backups" --explain
    """
    from pgstack import search as library
    from pgstack import target

    options: Options = {
        "k": k,
        "mode": mode.value,
        "filter": library.parse_filter(filter),
        "per": per.value,
        "fusion": fusion.value,
        "vector_weight": vector_weight,
        "rrf_k": rrf_k,
        "depth": depth,
        "diversity": diversity,
        "rerank": rerank,
        "target_recall": target_recall,
    }
    with target.connect(url) as conn:
        if explain and as_json:
            json_document(library.explained(conn, name, query, **options))
        elif explain:
            print_steps(library.explain(conn, name, query, **options))
        else:
            hits = library.search(conn, name, query, **options)
            print_hits(conn, name, hits, as_json=as_json)


def similar(
    name: Name,
    key: Annotated[
        str, typer.Argument(metavar="ID", help="The row's key: a value, or as `search` prints it.")
    ],
    *,
    k: Count = 10,
    filter: Filter = None,
    per: PerOption = Per.row,
    diversity: Diversity = 0,
    target_recall: TargetRecall = None,
    as_json: AsJson = False,
    url: DatabaseUrl = None,
) -> None:
    """Print the rows of NAME that are most like the row ID.

    A key of several columns is given as an object. --json: as for `pgstack search`.

    \b
    Examples:
      pgstack similar blog 42
      pgstack similar blog 42 -k 3 --filter '{"author": "ada"}' --json
      pgstack similar orders '{"region": "north", "nr": 7}'
    """
    from pgstack import search as library
    from pgstack import target

    wanted = library.parse_filter(filter)
    with target.connect(url) as conn:
        hits = library.similar(
            conn,
            name,
            key,
            k=k,
            filter=wanted,
            per=per.value,
            diversity=diversity,
            target_recall=target_recall,
        )
        print_hits(conn, name, hits, as_json=as_json)


def print_hits(conn: Connection, name: str, hits: list[Hit], *, as_json: bool) -> None:
    """Print what a search found."""
    from pgstack import search as library

    if as_json:
        for hit in hits:
            json_line(hit)
    else:
        for hit, passage in zip(hits, library.passages(conn, name, hits), strict=True):
            print_hit(hit, passage)
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


def print_hit(hit: Hit, passage: Passage | None, *, indent: str = "") -> None:
    """Print one chunk for a person."""
    branches = {"vector": hit.vector_rank, "text": hit.text_rank}
    places = ", ".join(f"{name} {rank}" for name, rank in branches.items() if rank is not None)
    result(f"{indent}{hit.rank}. {_place(hit, passage)}  (score {hit.score:.3f}: {places})")
    result(f"{indent}   {snippet(hit.chunk)}")
    if hit.more:
        count = len(hit.more)
        result(f"{indent}   and {count} more chunk{'s' if count > 1 else ''} of it")


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
    end_char, score, cited, and of a collection title, uri, page, last_page, headings],
    model, duration (seconds). With --stream: one object a line,
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
            print_citations(answer)


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


def print_citations(answer: Answer) -> None:
    """Print the sources of an answer."""
    if answer.citations:
        cited = any(citation.cited for citation in answer.citations)
        result("\nSources:" if cited else "\nSources (the answer cites none of them):")
    for citation in answer.citations:
        result(f"  [{citation.number}] {_place(citation, citation)}")
        result(f"      {snippet(citation.chunk)}")
    message(f"({answer.model}, {duration(answer.duration.total_seconds())})")


def snippet(text: str) -> str:
    """Return the beginning of a chunk, on one line."""
    line = " ".join(text.split())
    return line if len(line) <= SNIPPET else line[: SNIPPET - 1].rsplit(" ", 1)[0] + "…"


def _place(chunk: Hit | Citation, passage: Passage | Citation | None) -> str:
    """Return where a chunk stands: its document or its row's key, page, headings, characters."""
    place = " ".join(f"{name}={value}" for name, value in chunk.id.items())
    if passage is not None and passage.uri is not None:
        place = f"{passage.title or unquote(passage.uri)} ({place})"
        if passage.page is not None:
            more = passage.last_page != passage.page
            place += f", pages {passage.page}-{passage.last_page}" if more else ""
            place += "" if more else f", page {passage.page}"
        if passage.headings:
            place += f", {' > '.join(passage.headings)}"
    if chunk.start_char is not None:
        place += f", characters {chunk.start_char}-{chunk.end_char}"
    return place
