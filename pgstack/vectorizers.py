"""Vectorizers: create, adopt, look at, plan, pause, resume, retry, refresh, drop.

Data in and out
    ``table``      a table's name as it is, or as SQL writes it: blog, public.blog, "My Table"
    ``columns``    its text columns; the last is cut into chunks
    ``Status``     one row of ``pgstack.vectorizer_status``; its comments say what is what
    ``RowError``   one row of ``pgstack.vectorizer_errors``
    ``Plan``       what :func:`create` would do and how long that would take

Nothing here opens a connection or commits: use one in autocommit mode, or commit.

Raises the classes of ``pgstack.errors`` for what the SQL functions raise (PS0nn), and
UsageError for a table that is not there or a database without pgstack.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import psycopg
from psycopg import sql
from psycopg.rows import class_row

from pgstack import queries
from pgstack.db import Connection
from pgstack.errors import NoWorker, PgstackError, UnknownVectorizer, UsageError, translated

SAMPLE_ROWS = 500
COUNT_UP_TO = 200_000  # beyond that, PostgreSQL's own estimate will do
SPEED_TEXTS = 8
PATIENCE_SECONDS = 3.0  # a worker may be just starting


@dataclass(frozen=True)
class Status:
    """One row of ``pgstack.vectorizer_status``.  Counts are None for whom the queue is closed."""

    id: int
    name: str
    source: str
    target: str
    view: str | None
    model: str
    dimensions: int | None
    state: str
    pending: int | None
    leased: int | None
    retrying: int | None
    failed: int | None
    lag: timedelta | None
    embedded_rows: int
    embedded_chunks: int
    rows_per_second: float | None
    tokens_per_second: float | None
    index: str | None
    last_success_at: datetime | None
    last_error_at: datetime | None
    last_error: str | None


@dataclass(frozen=True)
class RowError:
    """One row of ``pgstack.vectorizer_errors``."""

    vectorizer: str
    key: dict[str, Any]
    state: str
    attempts: int
    error: str
    since: datetime
    next_try_at: datetime | None


@dataclass(frozen=True)
class Options:
    """How a vectorizer is made; None leaves it to the database's defaults."""

    name: str | None = None
    model: str | None = None
    dimensions: int | None = None
    chunking: str = "recursive"
    chunk_size: int = 800
    chunk_overlap: int = 400
    template: str | None = None
    destination: str | None = None
    embedding_column: str | None = None
    index: str = "auto"
    separators: Sequence[str] | None = None
    is_regex: bool = False
    keep_separator: str | None = None
    mask_pii: Sequence[str] | None = None


@dataclass(frozen=True)
class Plan:
    """What creating a vectorizer would do.

    ``chunks`` is estimated from ``sampled_rows`` rows.  ``chunks_per_second``, ``seconds``
    and (unless given) ``dimensions`` are None when no worker is there to ask the model.
    """

    name: str
    source: str
    columns: list[str]
    writes_to: str
    model: str
    dimensions: int | None
    rows: int
    rows_exact: bool
    sampled_rows: int
    chunks: int
    bytes: int
    chunks_per_second: float | None
    seconds: float | None
    index: str
    problem: str | None


@contextmanager
def understood() -> Iterator[None]:
    """Turn database errors into ours; a database without pgstack says so."""
    try:
        with translated():
            yield
    except (
        psycopg.errors.InvalidSchemaName,
        psycopg.errors.UndefinedFunction,
        psycopg.errors.UndefinedTable,
    ) as exc:
        message = str(exc.diag.message_primary)
        if "pgstack" not in message:
            raise
        raise UsageError(
            f"this database has no pgstack, or an older one: {message}",
            hint="pgstack install -d URL   # embedded stack: pgstack up",
        ) from exc


def create(conn: Connection, table: str, columns: Sequence[str], options: Options) -> int:
    """Create a vectorizer; return its id."""
    with understood():
        source = find_table(conn, table)
        params = {**vars(options), "source": source, "columns": list(columns)}
        row = conn.execute(queries.VECTORIZER_CREATE, params).fetchone()
    return int(row[0]) if row else 0


def statuses(conn: Connection) -> list[Status]:
    """Return every vectorizer, by name."""
    with understood(), conn.cursor(row_factory=class_row(Status)) as cur:
        return cur.execute(queries.VECTORIZERS).fetchall()


def status(conn: Connection, name: str) -> Status:
    """Return one vectorizer, found by its name or by its table's."""
    with understood():
        row = conn.execute(queries.VECTORIZER_ID, (name,)).fetchone()
    return status_by_id(conn, row[0] if row else 0)


def status_by_id(conn: Connection, number: int) -> Status:
    """Return one vectorizer, found by its id."""
    for found in statuses(conn):
        if found.id == number:
            return found
    raise UnknownVectorizer(f"there is no vectorizer {number}", hint="pgstack vectorizer list")


def errors(conn: Connection, name: str, *, limit: int) -> list[RowError]:
    """Return source rows that could not be embedded, the latest first; none if not readable."""
    known = status(conn, name).name
    with understood(), conn.cursor(row_factory=class_row(RowError)) as cur:
        return cur.execute(queries.VECTORIZER_ERRORS, (known, limit)).fetchall()


def default_model(conn: Connection, setting: str) -> str:
    """Return the model that a setting names: embedding_model or generation_model."""
    with understood():
        row = conn.execute(queries.SETTING, (setting,)).fetchone()
    return str(row[0]) if row else ""


def adopt(conn: Connection, name: str) -> None:
    """Give a vectorizer of plain pgai our triggers; nothing happens once it has them."""
    with understood():
        conn.execute(queries.VECTORIZER_ADOPT, (name,))


def refresh(conn: Connection, name: str) -> int:
    """Queue every row; return how many.  Vectors that would not change are kept."""
    with understood():
        row = conn.execute(queries.VECTORIZER_REFRESH, (name,)).fetchone()
    return int(row[0]) if row else 0


def pause(conn: Connection, name: str) -> None:
    """Stop embedding; changes go on being queued."""
    with understood():
        conn.execute(queries.VECTORIZER_PAUSE, (name,))


def resume(conn: Connection, name: str) -> None:
    """Go on after :func:`pause`."""
    with understood():
        conn.execute(queries.VECTORIZER_RESUME, (name,))


def retry(conn: Connection, name: str) -> int:
    """Queue failed rows once more; return how many."""
    with understood():
        row = conn.execute(queries.VECTORIZER_RETRY, (name,)).fetchone()
    return int(row[0]) if row else 0


def drop(conn: Connection, name: str, *, drop_data: bool = False) -> None:
    """End a vectorizer; ``drop_data``: and drop its embeddings."""
    with understood():
        conn.execute(queries.VECTORIZER_DROP, (name, drop_data))


def wait_until_fresh(conn: Connection, name: str, *, seconds: float) -> bool:
    """Wait until everything committed so far is embedded; False: time ran out."""
    with understood():
        row = conn.execute(queries.WAIT_UNTIL_FRESH, (name, timedelta(seconds=seconds))).fetchone()
    return bool(row and row[0])


def follow(conn: Connection, name: str, *, every: float = 0.25) -> Iterator[Status]:
    """Yield how things stand, again and again, until nothing is left to embed.

    Raises NoWorker when nobody works on it, PgstackError when it cannot run.
    """
    alone_since = None
    while True:
        now = status(conn, name)
        yield now
        if now.state == "fresh" or not now.pending:
            return
        if now.state in ("blocked", "paused"):
            raise PgstackError(
                f"vectorizer {name} is {now.state}"
                + (f": {now.last_error}" if now.last_error else ""),
                hint=f"pgstack vectorizer {'resume' if now.state == 'paused' else 'retry'} {name}",
            )
        alone_since = (alone_since or time.monotonic()) if now.state == "no worker" else None
        if alone_since and time.monotonic() - alone_since > PATIENCE_SECONDS:
            raise NoWorker(
                f"no worker is connected, so {now.pending} rows of {name} wait",
                hint="pgstack worker -d URL   # embedded stack: pgstack up",
            )
        time.sleep(every)


def problems(
    conn: Connection, names: Sequence[str] | None = None
) -> list[tuple[str, str | None, int]]:
    """Return name, last error and failed rows of every vectorizer that has something undone."""
    with understood():
        params = {"names": None if names is None else list(names)}
        return conn.execute(queries.WORK_PROBLEMS, params).fetchall()


def find_table(conn: Connection, table: str) -> int:
    """Return the oid of the table of that name, written as it is or as SQL writes it."""
    row = conn.execute(queries.TABLE_NAMED, {"name": table}).fetchone()
    if row is not None:
        return int(row[0])
    try:
        with conn.transaction():
            row = conn.execute("select to_regclass(%s)::oid", (table,)).fetchone()
    except psycopg.Error:  # no name that SQL can read
        row = None
    if row is None or row[0] is None:
        raise UsageError(f'there is no table "{table}"', hint=r"pgstack psql -c '\dt *.*'")
    return int(row[0])


# -- plan ------------------------------------------------------------------------------


def plan(conn: Connection, table: str, columns: Sequence[str], options: Options) -> Plan:
    """Return what :func:`create` would do, and how much that is.  Writes nothing."""
    with understood():
        source = find_table(conn, table)
        facts = _facts(conn, source, columns, options)
        rows, exact = _row_count(conn, source)
        sample = _sample(conn, source, columns[-1], options) if facts.problem is None else []
    chunks = [chunk for texts in sample for chunk in texts]
    whole = round(len(chunks) / len(sample) * rows) if sample else 0
    dimensions, speed = _speed(conn, chunks, facts.model)
    dimensions = options.dimensions or dimensions
    return Plan(
        name=facts.name,
        source=facts.source,
        columns=list(columns),
        writes_to=facts.writes_to,
        model=facts.model,
        dimensions=dimensions,
        rows=rows,
        rows_exact=exact,
        sampled_rows=len(sample),
        chunks=whole,
        bytes=_size(chunks, whole, dimensions),
        chunks_per_second=None if speed is None else round(speed, 1),
        seconds=None if speed is None else round(whole / speed, 1),
        index=facts.index(whole),
        problem=facts.problem,
    )


@dataclass(frozen=True)
class _Facts:
    name: str
    source: str
    writes_to: str
    model: str
    index_method: str
    index_min_rows: int
    problem: str | None

    def index(self, chunks: int) -> str:
        if self.index_method == "none":
            return "none"
        when = "at once" if chunks >= self.index_min_rows else f"from {self.index_min_rows} chunks"
        return f"{self.index_method}, {when}"


def _facts(conn: Connection, source: int, columns: Sequence[str], options: Options) -> _Facts:
    params = {**vars(options), "source": source, "columns": list(columns)}
    row = conn.execute(queries.VECTORIZER_FACTS, params).fetchone()
    if row is None:
        raise UsageError("the table is gone", hint="pgstack vectorizer list")
    return _Facts(*[*row, _problem(conn, params)])


def _problem(conn: Connection, params: dict[str, Any]) -> str | None:
    """Return why :func:`create` would refuse, or None."""
    try:
        with conn.transaction(), translated():
            conn.execute(queries.VECTORIZER_CHECK, params)
            row = conn.execute(queries.VECTORIZER_TAKEN, params).fetchone()
    except PgstackError as exc:
        return f"{exc} ({exc.hint})" if exc.hint else str(exc)
    return f'there is a vectorizer "{row[0]}" already' if row else None


def _row_count(conn: Connection, source: int) -> tuple[int, bool]:
    """Return how many rows a table has, and whether that was counted."""
    row = conn.execute(queries.TABLE_ESTIMATE, (source,)).fetchone()
    name, schema, estimate = row if row else ("", "", 0)
    if estimate > COUNT_UP_TO:
        return int(estimate), False
    count = sql.SQL("select count(*) from (select from {} limit {}) as r").format(
        sql.Identifier(schema, name), sql.Literal(COUNT_UP_TO + 1)
    )
    found = conn.execute(count).fetchone()
    rows = int(found[0]) if found else 0
    return rows, rows <= COUNT_UP_TO


def _sample(conn: Connection, source: int, column: str, options: Options) -> list[list[str]]:
    """Return the chunks of some rows, one list a row."""
    row = conn.execute(queries.TABLE_ESTIMATE, (source,)).fetchone()
    name, schema, estimate = row if row else ("", "", 0)
    share = 100 * min(1.0, 2 * SAMPLE_ROWS / max(estimate, 1))
    query = sql.SQL(queries.CHUNK_SAMPLE).format(
        table=sql.Identifier(schema, name), column=sql.Identifier(column), share=sql.Literal(share)
    )
    method = "none" if options.embedding_column else options.chunking
    params = {**vars(options), "chunking": method, "rows": SAMPLE_ROWS}
    return [row[0] for row in conn.execute(query, params).fetchall()]


def _speed(conn: Connection, chunks: list[str], model: str) -> tuple[int | None, float | None]:
    """Let the model embed a few chunks: return its dimensions and its chunks a second.

    Twice, because the first call may load the model.
    """
    texts = [chunk for chunk in chunks if chunk.strip()][:SPEED_TEXTS]
    try:
        with translated():
            present = conn.execute(queries.WORKER_PRESENT).fetchone()
            if not texts or not present or not present[0]:
                return None, None
            conn.execute(queries.EMBED_LENGTH, {"texts": texts[:1], "model": model})
            began = time.monotonic()
            row = conn.execute(queries.EMBED_LENGTH, {"texts": texts, "model": model}).fetchone()
    except PgstackError:  # a plan can do without
        return None, None
    return (row[0] if row else None), len(texts) / (time.monotonic() - began)


def _size(chunks: list[str], whole: int, dimensions: int | None) -> int:
    """Return about how many bytes the chunks and their vectors will take."""
    if not chunks:
        return 0
    text = sum(len(chunk.encode()) for chunk in chunks) / len(chunks)
    return round(whole * (text + 4 * (dimensions or 384) + 100))
