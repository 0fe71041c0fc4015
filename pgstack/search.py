"""Search, and answers with citations, over one vectorizer.

Data in and out
    ``k``       int from 1; rows wanted
    ``mode``    "hybrid", "vector" (meaning) or "text" (words)
    ``filter``  {column: value or {operator: value}}; docs/howto/search.md has the operators
    ``per``     "chunk", or "row": the best chunk of each source row
    returns     frozen dataclasses, the best first; ``id`` is the source row's key, {"id": 7}

:class:`Options` are those of pgstack.search(), whose comment tells of them.

Nothing here opens a connection or commits.  Give :func:`answer_pieces` a connection in
autocommit mode: no transaction should stay open while a model talks.

Raises
    UnknownVectorizer, NoWorker, ModelNotFound ...   whatever the SQL function raises (PS0nn)
    UsageError                                       pgstack is not installed there, bad argument
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final, TypedDict, Unpack

import psycopg
from psycopg.rows import class_row, dict_row
from psycopg.types.json import Jsonb

from pgstack import queries
from pgstack.db import Connection
from pgstack.errors import UsageError
from pgstack.vectorizers import understood

# Asks a model for the next message of a chat: (model, messages) -> its pieces.
# Takes the body of /api/chat, yields what the model writes.
Chat = Callable[[dict[str, Any]], Iterator[str]]


@dataclass(frozen=True)
class Hit:
    """One chunk that fits a query; ``start_char`` and ``end_char`` lie in the source text."""

    rank: int
    id: dict[str, Any]
    chunk_seq: int
    chunk: str
    score: float
    start_char: int | None
    end_char: int | None
    vector_rank: int | None
    """Its place by meaning alone, and its cosine similarity; None: not found by meaning."""
    vector_score: float | None
    text_rank: int | None
    """Its place by words alone, and its BM25; None: not found by words."""
    text_score: float | None
    more: list[dict[str, Any]] | None
    """Per row: other chunks of the row, each with chunk_seq, score, start_char, end_char."""


@dataclass(frozen=True)
class Step:
    """One step of a search that is explained; ``ms`` in milliseconds."""

    step: str
    what: str
    detail: str
    rows: int | None
    ms: float | None


@dataclass(frozen=True)
class Passage:
    """Where in a document of a collection a chunk stands; ``headings``: the outermost first."""

    title: str | None
    uri: str
    page: int | None
    last_page: int | None
    headings: list[str]


@dataclass(frozen=True)
class Citation:
    """One numbered source of an answer; ``cited`` is false when the answer names none."""

    number: int
    id: dict[str, Any]
    chunk_seq: int
    chunk: str
    start_char: int | None
    end_char: int | None
    score: float
    cited: bool
    title: str | None = None
    """Of the document, in a collection; so are the others."""
    uri: str | None = None
    page: int | None = None
    last_page: int | None = None
    headings: list[str] | None = None


@dataclass(frozen=True)
class Answer:
    """What a model answered; None when nothing was found to answer from."""

    answer: str | None
    citations: list[Citation]
    model: str
    duration: timedelta


class Options(TypedDict, total=False):
    """How to search: what is not given is as SQL has it."""

    k: int
    mode: str
    filter: Mapping[str, Any] | None
    per: str
    fusion: str
    vector_weight: float | None
    rrf_k: int | None
    depth: int | None
    diversity: float
    rerank: str | None
    target_recall: float | None


DEFAULTS: Final[Options] = {
    "k": 10,
    "mode": "hybrid",
    "filter": None,
    "per": "chunk",
    "fusion": "convex",
    "vector_weight": None,
    "rrf_k": None,
    "depth": None,
    "diversity": 0,
    "rerank": None,
    "target_recall": None,
}


def search(conn: Connection, vectorizer: str, query: str, **options: Unpack[Options]) -> list[Hit]:
    """Return up to ``k`` chunks, or rows, that fit ``query``."""
    with understood(), conn.cursor(row_factory=class_row(Hit)) as cur:
        return cur.execute(queries.SEARCH, _parameters(vectorizer, query, options)).fetchall()


def explain(
    conn: Connection, vectorizer: str, query: str, **options: Unpack[Options]
) -> list[Step]:
    """Search, and return how it went, step by step."""
    with understood(), conn.cursor(row_factory=class_row(Step)) as cur:
        return cur.execute(
            queries.SEARCH_EXPLAIN, _parameters(vectorizer, query, options)
        ).fetchall()


def explained(
    conn: Connection, vectorizer: str, query: str, **options: Unpack[Options]
) -> dict[str, Any]:
    """Return what :func:`explain` tells as one document, plans included."""
    with understood():
        document = _value(conn, queries.SEARCH_DOCUMENT, _parameters(vectorizer, query, options))
    return dict(document)


def similar(
    conn: Connection,
    vectorizer: str,
    key: object,
    *,
    k: int = 10,
    filter: Mapping[str, Any] | None = None,
    per: str = "row",
    diversity: float = 0,
    target_recall: float | None = None,
) -> list[Hit]:
    """Return up to ``k`` rows, or chunks, like the row that ``key`` names.

    ``key`` is the row's ``id`` in a :class:`Hit`, or, of a key of one column, its value.
    """
    params = {
        "vectorizer": vectorizer,
        "key": json.dumps(dict(key), default=str) if isinstance(key, Mapping) else str(key),
        "k": k,
        "filter": _json(filter),
        "per": per,
        "diversity": diversity,
        "target_recall": target_recall,
    }
    with understood(), conn.cursor(row_factory=class_row(Hit)) as cur:
        return cur.execute(queries.SIMILAR, params).fetchall()


def ask(
    conn: Connection, vectorizer: str, question: str, *, k: int = 5, model: str | None = None
) -> Answer:
    """Return a model's answer from the ``k`` best chunks."""
    params = {"vectorizer": vectorizer, "question": question, "k": k, "model": model}
    with understood(), conn.cursor(row_factory=dict_row) as cur:
        row = cur.execute(queries.ASK, params).fetchone()
    if row is None:
        raise UsageError("a question is needed", hint="pgstack ask NAME QUESTION")
    return Answer(row["answer"], _citations(row["citations"]), row["model"], row["duration"])


def answer_pieces(
    conn: Connection,
    vectorizer: str,
    question: str,
    *,
    chat: Chat,
    k: int = 5,
    model: str | None = None,
) -> Iterator[str | Answer]:
    """Yield an answer piece by piece as the model writes it, and last an :class:`Answer`.

    The same sources, prompt and citations as :func:`ask`; only the model's part does not
    pass through the database.
    """
    began = time.monotonic()
    params = {"vectorizer": vectorizer, "question": question, "k": k, "model": model}
    with understood():
        chosen = _value(conn, queries.ASK_MODEL, params)
        sources = _value(conn, queries.ASK_SOURCES, params)
    if not sources:
        yield Answer(None, [], chosen, timedelta(seconds=time.monotonic() - began))
        return
    request = {"sources": Jsonb(sources), "question": question, "model": chosen}
    with understood():
        payload = _value(conn, queries.ASK_PAYLOAD, request)
    written = ""
    shown = 0
    for piece in chat(payload):
        written += piece
        text = answer_so_far(written)
        if text[shown:]:
            yield text[shown:]
            shown = len(text)
    with understood():
        params = {"sources": Jsonb(sources), "content": written}
        row = conn.execute(queries.ASK_TEXT, params).fetchone()
    answer, cited = row if row else (None, [])
    if answer and len(answer) > shown and answer.startswith(answer_so_far(written).strip()):
        yield answer[len(answer_so_far(written).strip()) :]  # the numbers of the sources
    yield Answer(answer, _citations(cited), chosen, timedelta(seconds=time.monotonic() - began))


def answer_so_far(written: str) -> str:
    """Return the text of ``{"answer": "...", ...}`` of which perhaps only a part is written."""
    if not written.lstrip().startswith("{"):
        return written  # a model server that knows no schemas
    found = re.match(r'\s*\{\s*"answer"\s*:\s*"((?:[^"\\]|\\u[0-9a-fA-F]{4}|\\[^u])*)', written)
    text = json.loads(f'"{found[1]}"', strict=False) if found else ""
    return re.sub("[\ud800-\udbff]$", "", text)  # the first half of a character


def passages(
    conn: Connection, vectorizer: str, found: Sequence[Hit | Citation]
) -> list[Passage | None]:
    """Return where in its document each chunk stands; None when this is no collection."""
    params = {
        "vectorizer": vectorizer,
        "keys": [Jsonb(chunk.id) for chunk in found],
        "starts": [chunk.start_char for chunk in found],
        "ends": [chunk.end_char for chunk in found],
    }
    with understood():
        rows = conn.execute(queries.PASSAGES, params).fetchall()
    return [None if row[1] is None else Passage(*row) for row in rows]


def parse_filter(text: str | None) -> dict[str, Any] | None:
    """Return a filter written as a JSON object."""
    if text is None:
        return None
    try:
        value = json.loads(text)
    except ValueError as exc:
        raise UsageError(
            f"the filter is no JSON: {exc}", hint="""--filter '{"status": "open"}'"""
        ) from exc
    if not isinstance(value, dict):
        raise UsageError("the filter is no JSON object", hint="""--filter '{"status": "open"}'""")
    return value


def _parameters(vectorizer: str, query: str, options: Options) -> dict[str, Any]:
    given = {**DEFAULTS, **options, "vectorizer": vectorizer, "query": query}
    return {**given, "filter": _json(options.get("filter"))}


def _json(value: Mapping[str, Any] | None) -> Jsonb | None:
    return None if value is None else Jsonb(dict(value))


def _value(conn: psycopg.Connection[Any], query: Any, params: Mapping[str, Any]) -> Any:
    row = conn.execute(query, params).fetchone()
    return row[0] if row else None


def _citations(rows: list[dict[str, Any]]) -> list[Citation]:
    return [Citation(**row) for row in rows]
