"""A data set into a table: block after block, each committed with the place behind it.

A block is some megabytes of the file.  Its rows, its rejects and the place where the next one
begins are written in one transaction, so a process that is killed loses at most one block's
work and no row.  The next block is read while PostgreSQL takes this one.

The plan of a load (format, columns, types) is kept with it.  A call that goes on must come to
the same plan and find the same file, or it is refused.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from os import PathLike
from typing import Any

import psycopg
from psycopg import sql
from psycopg.types.json import Jsonb

from pgstack import queries
from pgstack.datasets import schema, target
from pgstack.datasets.batch import Batch, Place, Reader, Reject
from pgstack.datasets.copying import Refused, copy_rows, copy_statement
from pgstack.datasets.inspecting import Progress, opened, reader
from pgstack.datasets.schema import Column, Options
from pgstack.datasets.source import File, identity
from pgstack.datasets.text import arrow, copy_lines
from pgstack.db import Connection
from pgstack.errors import NameTaken, PgstackError, TooManyRejects, UsageError
from pgstack.vectorizers import understood

MAX_REJECTS = 1000
SHOWN = 10  # rejects that a report names
PROSE_WORDS = 6  # on average, from which on a text is worth a search
MODES = ("create", "append", "replace")


@dataclass(frozen=True)
class LoadReport:
    """What a load did.

    ``load``      its number in pgstack.dataset_loads
    ``table``     as SQL writes it
    ``rows``      in all, those of earlier calls included; ``resumed``: those
    ``rejects``   records kept aside; ``rejected``: the first few that this call met
    ``bytes``     size of the file
    ``seconds``   that this call took
    ``prose``     the column that looks like text to search, or None
    ``has_key``   whether the table has a primary key, as far as this load made it
    """

    load: int
    table: str
    rows: int
    resumed: int
    rejects: int
    rejected: tuple[Reject, ...]
    bytes: int
    seconds: float
    columns: tuple[Column, ...]
    notes: tuple[str, ...]
    prose: str | None
    has_key: bool


def load_dataset(
    conn: Connection,
    source: str | PathLike[str],
    *,
    table: str,
    options: Options | None = None,
    mode: str = "create",
    max_rejects: int = MAX_REJECTS,
    restart: bool = False,
    progress: Progress | None = None,
) -> LoadReport:
    """Load a file into a table, or go on with that.

    ``conn``         in autocommit mode: blocks are committed one by one
    ``table``        its name, as SQL writes it; where that is no SQL, as it is
    ``mode``         create: a new table; append: to one that exists; replace: its rows go, in
                     one transaction, which cannot go on when it was broken off
    ``max_rejects``  how many records may be kept aside before the load stops
    ``restart``      forget what an earlier call loaded, and begin again
    ``progress``     called with bytes of the file done, and how many there are
    """
    if mode not in MODES:
        raise UsageError(f"there is no mode {mode}", hint="create, append or replace")
    if not conn.autocommit:
        raise UsageError(
            "a load commits as it goes: the connection must be in autocommit mode",
            hint="conn.autocommit = True",
        )
    wanted = options or Options()
    began = time.monotonic()
    arrow()
    with understood(), opened(source, progress) as file:
        found = reader(file, wanted)
        columns, notes = schema.named(found.columns, wanted)
        target.check_types(conn, wanted)
        job = _Job(
            *(conn, file, found, columns, wanted, mode, max_rejects),
            notes=[*found.notes, *notes],
            place=found.start(),
        )
        job.prepare(table, restart=restart)
        with job.running():
            job.run(progress or (lambda done, total: None))
        return job.report(time.monotonic() - began)


@dataclass
class _Job:
    """One call of :func:`load_dataset`."""

    conn: Connection
    file: File
    reader: Reader
    columns: list[Column]
    options: Options
    mode: str
    max_rejects: int
    notes: list[str]
    place: Place
    load: int = 0
    rows: int = 0
    resumed: int = 0
    rejects: int = 0
    rejected: list[Reject] = field(default_factory=list)  # the first few of this call

    # -- which load ---------------------------------------------------------------------

    def prepare(self, name: str, *, restart: bool) -> None:
        """Find the load to go on with, or begin a new one."""
        self.identity = identity(self.file)
        self.table = target.find_table(self.conn, name)
        row = self.conn.execute(
            queries.DATASET_OPEN, (self.table.called, self.file.called)
        ).fetchone()
        if row is not None and row[1] != self.table.relation:
            row = None  # the table is gone, or another one
        if row is not None and row[3] != self.mode:
            if row[3] == "create" and not restart:
                raise UsageError(
                    f"a load of this file into {self.table.called} was broken off",
                    hint="The same command without --append or --replace goes on, "
                    "with --restart it begins again.",
                )
            row = None
        if row is not None and restart:
            self._discard(*row)
            row = None
        if row is None:
            self._begin()
        else:
            self._resume(*row)

    def _discard(self, load: int, relation: int, *rest: Any) -> None:
        self._lock(load)
        with self.conn.transaction():
            if self.mode == "create":
                self.conn.execute(
                    sql.SQL("drop table {}").format(sql.Identifier(*self.table.names))
                )
                self.table = replace(self.table, relation=None)
            elif rest[5]:
                self.notes.append(f"{rest[5]} rows that were appended before stay in the table")
            self.conn.execute(queries.DATASET_FORGET, (load,))
        self._unlock(load)

    def _begin(self) -> None:
        if self.mode == "create":
            self._check_free()
        elif self.table.relation is None:
            raise UsageError(
                f"there is no table {self.table.called}",
                hint=f"Without --{self.mode} it is created.",
            )
        else:
            given = [
                option
                for option, value in (
                    ("--type", self.options.types),
                    ("--key", self.options.key),
                    ("--generated-key", self.options.generated_key),
                )
                if value
            ]
            if given:
                raise UsageError(
                    f"{given[0]} is for a new table, and {self.table.called} exists",
                    hint=f"Leave {given[0]} out.",
                )
            self.columns = target.matched(self.conn, self.table, self.columns)
        with nullcontext() if self.mode == "replace" else self.conn.transaction():
            if self.mode == "create":
                self.table = target.create(self.conn, self.table, self.columns, self.options)
            if self.mode != "replace":
                self._write_down()
        if self.mode != "replace":
            self._lock(self.load)

    def _check_free(self) -> None:
        if self.table.relation is not None:
            raise NameTaken(
                f"the table {self.table.called} exists already",
                hint="--append adds rows to it, --replace puts them in the place of its rows, "
                "--table names another.",
            )

    def _write_down(self) -> None:
        params = {
            "target": self.table.called,
            "relation": self.table.relation,
            "source": self.file.called,
            "identity": self.identity,
            "mode": self.mode,
            "plan": Jsonb(self._plan()),
            "bytes": self.file.size,
            "position": self.place.position,
            "line": self.place.line,
        }
        row = self.conn.execute(queries.DATASET_BEGIN, params).fetchone()
        self.load = int(row[0]) if row else 0

    def _resume(
        self, load: int, relation: int, was: str, mode: str, plan: Any, *stand: int
    ) -> None:
        self._lock(load)
        # What it says once nobody else is at it.
        row = self.conn.execute(
            queries.DATASET_OPEN, (self.table.called, self.file.called)
        ).fetchone()
        if row is None or row[0] != load:
            self._unlock(load)
            raise NameTaken(
                f"{self.file.called} has just been loaded into {self.table.called}",
                hint="select * from pgstack.dataset_loads;",
            )
        position, line, self.rows, self.rejects = row[5:]
        loaded = f"{self.rows} of its rows are in {self.table.called}"
        if was != self.identity:
            self._unlock(load)
            raise PgstackError(
                f"{self.file.called} has changed since a load of it was broken off: {loaded}",
                hint="--restart begins again"
                + ("." if mode == "create" else "; remove those rows before."),
            )
        if mode != "create":
            self.columns = target.matched(self.conn, self.table, self.columns)
        if plan != self._plan():
            self._unlock(load)
            raise UsageError(
                f"the load of {self.file.called} was begun with other options: {loaded}",
                hint="Pass the same ones to go on, or --restart to begin again.",
            )
        self.load, self.resumed = load, self.rows
        self.place = Place(position, line)
        self.conn.execute(queries.DATASET_RESUME, (load,))
        if self.rows or self.rejects:
            self.notes.append(f"going on behind {self.rows} rows that an earlier run loaded")

    def _plan(self) -> dict[str, Any]:
        """Return what must be the same when a load goes on."""
        return {
            "format": self.reader.format,
            "encoding": self.reader.encoding,
            "delimiter": self.reader.delimiter,
            "quote": self.options.quote,
            "null": None if self.options.null is None else list(self.options.null),
            "start": self.reader.start().position,
            "key": list(self.options.key),
            "generated_key": self.options.generated_key,
            "columns": [[c.source, c.name, c.type, c.place] for c in self.columns],
        }

    def _lock(self, load: int) -> None:
        self.conn.execute(queries.DATASET_LOCK, (load,))

    def _unlock(self, load: int) -> None:
        if not self.conn.closed and not self.conn.broken:
            self.conn.execute(queries.DATASET_UNLOCK, (load,))

    # -- rows ---------------------------------------------------------------------------

    @contextmanager
    def running(self) -> Iterator[None]:
        """Write down why a load fails, and give it back in the end."""
        try:
            if self.mode == "replace":
                with self.conn.transaction():
                    self._write_down()
                    table = sql.Identifier(*self.table.names)
                    self.conn.execute(sql.SQL("delete from {}").format(table))
                    yield
            else:
                yield
        except (PgstackError, psycopg.Error) as exc:
            if not self.conn.closed and not self.conn.broken:
                with self.conn.transaction():
                    self._write_failure(exc)
            raise
        finally:
            if self.mode != "replace":
                self._unlock(self.load)

    def _write_failure(self, exc: Exception) -> None:
        if self.mode == "replace":  # its load was taken back with its rows
            self._write_down()
        if isinstance(exc, TooManyRejects):
            self._keep([r for r in exc.rejects if isinstance(r, Reject)])
            exc.hint = self._reject_hint(exc.rejects)
        self.conn.execute(queries.DATASET_END, (self.load, str(exc)[:1000]))

    def run(self, progress: Progress) -> None:
        """Copy batch after batch."""
        with ThreadPoolExecutor(1, "pgstack-dataset") as ahead:
            batches = self.reader.batches(self.columns, self.place)
            following = ahead.submit(_prepared, batches)
            while (now := following.result()) is not None:
                following = ahead.submit(_prepared, batches)
                batch, lines = now
                self._copy(batch, lines)
                progress(batch.consumed, self.file.size)
        with self.conn.transaction():
            if self.options.generated_key:
                self._set_sequence()
            self.conn.execute(queries.DATASET_END, (self.load, None))
        progress(self.file.size, self.file.size)

    def _copy(self, batch: Batch, lines: Any) -> None:
        rejects = list(batch.rejects)
        names = [column.name for column in self.columns]
        if self.options.generated_key:
            names = [schema.GENERATED, *names]
            lines = _numbered(lines, self.rows + self.rejects + 1, batch.numbers)

        def check() -> None:
            if self.rejects + len(rejects) > self.max_rejects:
                raise self._too_many(rejects)

        def refuse(refused: Refused) -> None:
            line, raw = batch.origin(refused.row)
            rejects.append(Reject(line, refused.column, refused.reason, raw))
            check()

        check()
        with self.conn.transaction():
            statement = copy_statement(self.table.names, names)
            copied = copy_rows(self.conn, statement, self.table.names, lines, refuse)
            self._keep(rejects)
            step = {
                "load": self.load,
                "position": batch.end.position,
                "line": batch.end.line,
                "consumed": batch.consumed,
                "rows": self.rows + copied,
                "rejects": self.rejects + len(rejects),
            }
            self.conn.execute(queries.DATASET_STEP, step)
        self.rows += copied
        self.rejects += len(rejects)
        self.rejected += sorted(rejects, key=lambda r: r.line)[: SHOWN - len(self.rejected)]
        self.notes += [note for note in batch.notes if _topic(note) not in map(_topic, self.notes)]

    def _too_many(self, rejects: list[Reject]) -> TooManyRejects:
        last = max(rejects, key=lambda r: r.line)
        where = f"{last.column}: " if last.column else ""
        return TooManyRejects(
            f"more than {self.max_rejects} records do not fit: the last in line {last.line}: "
            f"{where}{last.reason}",
            rejects=rejects,
        )

    def _reject_hint(self, rejects: Sequence[object]) -> str:
        columns = [r.column for r in rejects if isinstance(r, Reject) and r.column]
        usual = max(set(columns), key=columns.count) if columns else None
        change = f"--restart --type '{usual}=text', or " if usual and self.mode == "create" else ""
        return f"pgstack dataset rejects {self.load}   # then: {change}--max-rejects N"

    def _keep(self, rejects: list[Reject]) -> None:
        if rejects:
            fields = [list(values) for values in zip(*map(_storable, rejects), strict=True)]
            self.conn.execute(queries.DATASET_REJECT, (self.load, *fields))

    def _set_sequence(self) -> None:
        self.conn.execute(
            sql.SQL(
                "select setval(pg_get_serial_sequence({}, {}), greatest(max({}), 1)) from {}"
            ).format(
                sql.Literal(self.table.called),
                sql.Literal(schema.GENERATED),
                sql.Identifier(schema.GENERATED),
                sql.Identifier(*self.table.names),
            )
        )

    def report(self, seconds: float) -> LoadReport:
        """Return what was done."""
        longest = max(self.columns, key=lambda column: column.words)
        return LoadReport(
            self.load,
            self.table.called,
            self.rows,
            self.resumed,
            self.rejects,
            tuple(self.rejected),
            self.file.size,
            seconds,
            tuple(self.columns),
            tuple(self.notes),
            longest.name if longest.words >= PROSE_WORDS else None,
            bool(self.options.key or self.options.generated_key) or self.mode != "create",
        )


def _prepared(batches: Iterator[Batch]) -> tuple[Batch, Any] | None:
    """Return the next batch and its lines for COPY."""
    try:
        batch = next(batches, None)
        return None if batch is None else (batch, copy_lines(batch.columns))
    except arrow().ArrowException as exc:  # such as a column of more than 2 GB
        raise PgstackError(
            f"pyarrow cannot go on: {exc}", hint="What lies before that is loaded."
        ) from exc


def _numbered(lines: Any, first: int, numbers: Sequence[int] | None) -> Any:
    """Return lines with the number of their record in the file before them.

    Not counted by a sequence, which would go on counting behind what was rolled back.
    """
    pa = arrow()
    counted = pa.array(range(len(lines)) if numbers is None else numbers, pa.int64())
    texts = pa.compute.add(counted, first).cast(pa.string()).cast(pa.binary())
    return pa.compute.binary_join_element_wise(texts, lines, pa.scalar(b"\t", pa.binary()))


def _storable(reject: Reject) -> tuple[int, str | None, str, str]:
    """Return a reject without characters that PostgreSQL does not store."""
    raw = reject.raw.encode("utf-8", "backslashreplace").decode().replace("\0", "\\x00")
    return reject.line, reject.column, reject.reason.replace("\0", "\\x00"), raw


def _topic(note: str) -> str:
    return note.partition(":")[0]
