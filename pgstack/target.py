"""Which database a command talks to.

In this order: the URL that was given, ``$PGSTACK_DATABASE_URL``, the running embedded
stack.  The model server is found by :func:`pgstack.models.resolve_url`.

Raises :class:`~pgstack.errors.Unreachable` when there is none, or it does not answer.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING

from pgstack.errors import Unreachable

if TYPE_CHECKING:
    from pgstack.db import Connection

VARIABLE = "PGSTACK_DATABASE_URL"


def named_url(given: str | None = None) -> str | None:
    """Return the URL that was given, else the environment's, else None."""
    return given or os.environ.get(VARIABLE) or None


def database_url(given: str | None = None) -> str:
    """Return the DSN of the database to talk to."""
    return named_url(given) or embedded_url()


def embedded_url() -> str:
    """Return the DSN of the running embedded stack."""
    # Late: the embedded stack is an extra.
    from pgstack.embedded import home, postgres

    here = home.default_home()
    if not postgres.is_running(here):
        raise Unreachable(
            f"the embedded stack in {here.root} does not run",
            hint="pgstack up   # or name another database with -d URL",
        )
    return postgres.dsn(here)


def connect(given: str | None = None, *, autocommit: bool = True) -> Connection:
    """Open a connection to the database to talk to."""
    from pgstack import db

    return db.connect(database_url(given), autocommit=autocommit, application_name="pgstack cli")


def without_password(url: str) -> tuple[str, dict[str, str]]:
    """Return a DSN without its password, and the environment that carries it instead.

    What is on a command line, everybody on the machine can read.
    """
    from psycopg.conninfo import conninfo_to_dict, make_conninfo

    parts = conninfo_to_dict(url)
    password = parts.pop("password", None)
    if password is None:
        return url, {}
    return make_conninfo("", **parts), {"PGPASSWORD": str(password)}


def has_model(names: Iterable[str], wanted: str) -> bool:
    """Tell whether a model is among those; a name without a tag means ``:latest``, as in Ollama."""
    return wanted.removesuffix(":latest") in {name.removesuffix(":latest") for name in names}
