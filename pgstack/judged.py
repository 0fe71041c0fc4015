"""Judged sets from files in the BEIR layout into the database.

Data in and out
    a folder    queries.jsonl    {"_id": ..., "text": ...} a line
                qrels.tsv, or qrels/test.tsv: query-id, corpus-id, score, with or without a head
                corpus.jsonl     {"_id": ..., "title": ..., "text": ..., "metadata": {...}} a line;
                                 needed only to load it as a table or collection
    returns     :class:`Loaded`

One transaction: a file that cannot be read leaves the database as it was.  Loading a set
again replaces it.  Nothing here opens a connection or calls a model (but see
pgstack.create_vectorizer).

Raises
    UsageError     a file is missing, or a line of it cannot be meant: names file and line
    NameTaken      the set or table was made by other means
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from psycopg.types.json import Jsonb

from pgstack import queries
from pgstack.db import Connection
from pgstack.errors import UsageError
from pgstack.vectorizers import understood

QRELS = ("qrels.tsv", "qrels/test.tsv")
ID_BYTES_MAX = 1000  # an index row has room for 2700
EVERY = 1000  # lines between two calls of progress

Row = tuple[Any, ...]
Progress = Callable[[int, int], None]  # bytes read so far, of how many


@dataclass(frozen=True)
class Corpus:
    """Where a corpus went: a table or the table of a collection, and what changed there."""

    table: str
    inserted: int
    updated: int
    removed: int
    vectorizer: str | None


@dataclass(frozen=True)
class Loaded:
    """What :func:`load` did.

    ``missing`` counts relevant documents that the corpus lacks; None without a corpus.
    """

    set: str
    queries: int
    judged_queries: int
    judgments: int
    corpus: Corpus | None
    missing: int | None


@dataclass(frozen=True)
class Destination:
    """Where to put the corpus.

    ``table``       a table of its own, ``id, title, text, metadata``, made if it is new
    ``collection``  or a collection; ids become uris
    ``vectorize``   make a vectorizer for the table
    ``model``       embedding model of a vectorizer or collection that is made now
    """

    table: str | None = None
    collection: str | None = None
    vectorize: bool = False
    model: str | None = None


@dataclass(frozen=True)
class Files:
    """The files of a set."""

    queries: Path
    qrels: Path
    corpus: Path | None

    @property
    def size(self) -> int:
        """Bytes in all of them."""
        return sum(path.stat().st_size for path in (self.queries, self.qrels, self.corpus) if path)


def load(
    conn: Connection,
    folder: str | os.PathLike[str],
    name: str | None = None,
    *,
    qrels: str | os.PathLike[str] | None = None,
    to: Destination | None = None,
    progress: Progress = lambda done, total: None,
) -> Loaded:
    """Load the set in ``folder`` as ``name``, by default the folder's, and its corpus.

    ``qrels``  other judgements than those of the folder
    ``to``     where the corpus goes; None: it is not loaded
    """
    files = find(Path(folder), None if qrels is None else Path(qrels), with_corpus=to is not None)
    called = name or Path(folder).resolve().name
    with understood(), conn.transaction():
        conn.execute(queries.EVAL_STAGING)
        with conn.cursor() as cur, cur.copy(queries.EVAL_COPY) as copy:
            for row in _rows(files, progress):
                copy.write_row(row)
        corpus = None if to is None else _load_corpus(conn, to)
        params = {
            "name": called,
            "description": str(Path(folder).resolve()),
            "doc_column": "uri" if to is not None and to.collection is not None else None,
        }
        found, judged, judgments = _one(conn, queries.EVAL_LOAD, params)
        missing = None if corpus is None else _one(conn, queries.EVAL_MISSING, {})[0]
    return Loaded(called, found, judged, judgments, corpus, missing)


def find(folder: Path, qrels: Path | None, *, with_corpus: bool) -> Files:
    """Return the files of a set; raise UsageError for one that is not there."""
    if not folder.is_dir():
        raise UsageError(f"{folder} is no folder", hint="pgstack eval load DIR")
    judged = [qrels] if qrels is not None else [folder / each for each in QRELS]
    found = Files(
        queries=folder / "queries.jsonl",
        qrels=next((path for path in judged if path.is_file()), judged[0]),
        corpus=folder / "corpus.jsonl" if with_corpus else None,
    )
    for path in (found.queries, found.qrels, found.corpus):
        if path is not None and not path.is_file():
            raise UsageError(
                f"there is no file {path}",
                hint="A set has queries.jsonl, qrels.tsv or qrels/test.tsv, and corpus.jsonl.",
            )
    return found


def _load_corpus(conn: Connection, to: Destination) -> Corpus:
    params = {"table": to.table, "collection": to.collection, "model": to.model}
    if to.collection is not None:
        conn.execute(queries.EVAL_COLLECTION, params)
        table, inserted, updated, removed = _one(conn, queries.EVAL_CORPUS_COLLECTION, params)
        return Corpus(table, inserted, updated, removed, to.collection)
    table, inserted, updated, removed = _one(conn, queries.EVAL_CORPUS, params)
    vectorizer = None
    if to.vectorize:
        vectorizer = _one(conn, queries.EVAL_VECTORIZE, {**params, "relation": table})[0]
    return Corpus(table, inserted, updated, removed, vectorizer)


def _one(conn: Connection, query: Any, params: Mapping[str, Any]) -> Row:
    row: Row | None = conn.execute(query, params).fetchone()
    if row is None:  # pragma: no cover - each of these functions gives one row
        raise UsageError("pgstack answered nothing", hint="pgstack doctor")
    return row


# -- reading ---------------------------------------------------------------------------


class _Reader:
    """The lines of one file after the other; knows how much of all of them was read."""

    def __init__(self, total: int, progress: Progress) -> None:
        self.total = total
        self.progress = progress
        self.done = 0

    def lines(self, path: Path) -> Iterator[tuple[int, str]]:
        """Yield number and text of each line that is not empty."""
        with path.open("rb") as file:
            for number, raw in enumerate(file, start=1):
                self.done += len(raw)
                if number % EVERY == 0:
                    self.progress(self.done, self.total)
                try:
                    text = raw.decode("utf-8-sig" if number == 1 else "utf-8")
                except UnicodeDecodeError as exc:
                    raise _wrong(path, number, f"is not UTF-8: {exc.reason}") from exc
                if text.strip():
                    yield number, text.rstrip("\r\n")
        self.progress(self.done, self.total)


def _rows(files: Files, progress: Progress) -> Iterator[Row]:
    """Yield part, file, line, id, doc_id, grade, title, text, metadata."""
    reader = _Reader(files.size, progress)
    for number, item in _objects(reader, files.queries):
        text = _string(files.queries, number, item, "text")
        if not text.strip():
            raise _wrong(files.queries, number, "has an empty text")
        key = _id(files.queries, number, item)
        yield "query", files.queries.name, number, key, None, None, None, text, None
    for number, line in reader.lines(files.qrels):
        judged = _judgment(files.qrels, number, line)
        if judged is not None:
            yield "judgment", files.qrels.name, number, *judged, None, None, None
    if files.corpus is not None:
        for number, item in _objects(reader, files.corpus):
            yield _document(files.corpus, number, item)


def _objects(reader: _Reader, path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in reader.lines(path):
        try:
            value = json.loads(line)
        except ValueError as exc:
            raise _wrong(path, number, f"is no JSON: {exc}") from exc
        if not isinstance(value, dict):
            raise _wrong(path, number, "is no JSON object")
        yield number, value


def _judgment(path: Path, number: int, line: str) -> tuple[str, str, int] | None:
    """Return query, document and grade; None for the head of the table."""
    cells = line.split("\t")
    if len(cells) != 3 or not cells[0] or not cells[1]:
        raise _wrong(path, number, "does not have the three columns query-id, corpus-id, score")
    try:
        return cells[0], cells[1], int(cells[2])
    except ValueError as exc:
        if number == 1:
            return None
        raise _wrong(path, number, f'has the score "{cells[2]}", no whole number') from exc


def _document(path: Path, number: int, item: dict[str, Any]) -> Row:
    metadata = item.get("metadata")
    if metadata is not None and not isinstance(metadata, dict):
        raise _wrong(path, number, "has metadata that is no object")
    if "\\u0000" in json.dumps(metadata):
        raise _wrong(path, number, "has a NUL in its metadata, which PostgreSQL cannot store")
    title = _string(path, number, item, "title") if item.get("title") else None
    text = _string(path, number, item, "text")
    key = _id(path, number, item)
    stored = None if metadata is None else Jsonb(metadata)
    return "document", path.name, number, key, None, None, title, text, stored


def _id(path: Path, number: int, item: dict[str, Any]) -> str:
    value = item.get("_id")
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str) or not value:
        raise _wrong(path, number, 'has no "_id"')
    if len(_checked(path, number, value).encode()) > ID_BYTES_MAX:
        raise _wrong(path, number, f"has an _id of more than {ID_BYTES_MAX} bytes")
    return value


def _string(path: Path, number: int, item: dict[str, Any], name: str) -> str:
    value = item.get(name)
    if not isinstance(value, str):
        raise _wrong(path, number, f'has no text in "{name}"')
    return _checked(path, number, value)


def _checked(path: Path, number: int, text: str) -> str:
    """Return text that PostgreSQL can store."""
    if "\x00" in text:
        raise _wrong(path, number, "has a NUL, which PostgreSQL cannot store")
    try:
        text.encode()
    except UnicodeEncodeError as exc:
        raise _wrong(path, number, "has half a surrogate pair") from exc
    return text


def _wrong(path: Path, number: int, what: str) -> UsageError:
    return UsageError(f"{path}, line {number} {what}", hint="Mend that line and load again.")
