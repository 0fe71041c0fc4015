"""Which database a command talks to.

In this order: the URL that was given, ``$PGSTACK_DATABASE_URL``, the running embedded
stack.  The model server is found by :func:`pgstack.models.resolve_url`.

Raises :class:`~pgstack.errors.Unreachable` when there is none, or it does not answer.
"""

from __future__ import annotations

import os
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
    if named := named_url(given):
        return named
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
