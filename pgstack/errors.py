"""Every error pgstack raises on purpose.

SQL functions raise SQLSTATEs ``PS0nn``; :func:`translated` turns each into the class
that carries it.  Each class says which exit code the CLI ends with:
1 failed, 2 wrong usage, 3 something could not be reached.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum


class Fault(StrEnum):
    """Whose fault it is that a model did not answer: it decides what is tried next."""

    SERVER = "server"
    """The server, or the way to it, takes no calls now: no text is to blame."""

    BUSY = "busy"
    """The server is well, and asks for fewer calls."""

    UNCLEAR = "unclear"
    """The call broke or gave nonsense, which the server or a text may have caused."""

    INPUT = "input"
    """The server refuses what was sent."""

    SETUP = "setup"
    """It can never work as it is set up: no such model, a wrong address, no access."""


class PgstackError(Exception):
    """Something pgstack was asked to do did not work.

    ``hint`` names the next command to try, or is None.  ``retry_after`` is the number of
    seconds the server asked to be left alone, or None.
    """

    sqlstate: str | None = None
    exit_code: int = 1
    fault: Fault | None = None  # None: no model was called
    retry_after: float | None = None

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint


class UsageError(PgstackError):
    """The command or call itself was wrong."""

    sqlstate = "PS007"
    exit_code = 2
    fault = Fault.SETUP


class UnknownVectorizer(PgstackError):
    """No vectorizer of that name in this database."""

    sqlstate = "PS001"


class DimensionMismatch(PgstackError):
    """A vector has another length than its column."""

    sqlstate = "PS002"
    fault = Fault.SETUP


class NoWorker(PgstackError):
    """No worker is connected to this database."""

    sqlstate = "PS003"
    exit_code = 3


class RequestTimeout(PgstackError):
    """The model did not answer in time."""

    sqlstate = "PS004"


class ModelServerError(PgstackError):
    """The model server failed or could not be reached."""

    sqlstate = "PS005"
    exit_code = 3
    fault = Fault.UNCLEAR


class ModelNotFound(PgstackError):
    """The model server does not have that model."""

    sqlstate = "PS006"
    fault = Fault.SETUP


class MissingExtension(PgstackError):
    """A PostgreSQL extension that this needs is not installed."""

    sqlstate = "PS008"


class BridgeUnavailable(PgstackError):
    """SQL cannot reach the worker: the bridge is not set up or broke."""

    sqlstate = "PS009"


class BadAnswer(PgstackError):
    """The model answered something that cannot be used."""

    sqlstate = "PS010"
    fault = Fault.UNCLEAR


class HostNotAllowed(PgstackError):
    """A model server address outside the allowed list was asked for."""

    sqlstate = "PS011"
    fault = Fault.SETUP


class NameTaken(PgstackError):
    """An object of that name exists already."""

    sqlstate = "PS012"


class Unsupported(PgstackError):
    """A vectorizer is configured in a way pgstack does not run."""

    sqlstate = "PS013"


class MissingPrivilege(PgstackError):
    """The role lacks a privilege that this needs."""

    sqlstate = "PS014"


class UnknownSetting(PgstackError):
    """No pgstack setting of that name, or not such a value."""

    sqlstate = "PS015"


class TableBusy(PgstackError):
    """Somebody holds a lock on a table that this needs: try again."""

    sqlstate = "PS016"


class UnknownEvaluation(PgstackError):
    """No judged set or evaluation run of that name that the role may see."""

    sqlstate = "PS017"


class Unreachable(PgstackError):
    """The database or the model server could not be reached."""

    exit_code = 3
    fault = Fault.SERVER


class RemoteError(PgstackError):
    """A file at a URL could not be had."""


class TooManyRejects(PgstackError):
    """More records of a data set than allowed did not fit its table.

    ``rejects``: those of the last block, as :class:`pgstack.datasets.Reject`.
    """

    def __init__(
        self, message: str, *, hint: str | None = None, rejects: Sequence[object] = ()
    ) -> None:
        super().__init__(message, hint=hint)
        self.rejects = rejects


class MissingExtra(PgstackError):
    """A Python package that this needs is not installed."""


class EmbeddedError(PgstackError):
    """The embedded PostgreSQL or model server could not be set up."""


class InstallError(PgstackError):
    """The database could not be installed or upgraded."""


_BY_SQLSTATE: dict[str, type[PgstackError]] = {
    cls.sqlstate: cls for cls in PgstackError.__subclasses__() if cls.sqlstate is not None
}


@contextmanager
def translated() -> Iterator[None]:
    """Turn a database error that carries one of our SQLSTATEs into our class."""
    # Late: half of a command's start, and some commands need no database.
    import psycopg

    try:
        yield
    except psycopg.OperationalError as exc:
        if exc.sqlstate is None:  # no server spoke: refused, gone, unknown host
            raise Unreachable(
                f"cannot reach the database: {str(exc).strip()}",
                hint="pgstack status   # or: pgstack up",
            ) from exc
        raise
    except psycopg.Error as exc:
        cls = _BY_SQLSTATE.get(exc.sqlstate or "")
        if cls is None:
            raise
        raise cls(str(exc.diag.message_primary), hint=exc.diag.message_hint) from exc
