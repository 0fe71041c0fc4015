"""Tables of the private schema ``_pgstack``: Alembic revisions, forward only.

:func:`upgrade` runs them on a connection that the installer already opened, inside
its transaction, so that a failure anywhere leaves the database as it was.
"""

from __future__ import annotations

import threading
from pathlib import Path

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory

# Alembic's operations go to the connection of one global context.
_one_at_a_time = threading.Lock()


def config(connection: sa.Connection | None = None, *, vector_schema: str = "public") -> Config:
    """Return Alembic's configuration, bound to an open ``connection`` if one is given."""
    cfg = Config()
    cfg.set_main_option("script_location", str(Path(__file__).parent))
    cfg.attributes["connection"] = connection
    cfg.attributes["vector_schema"] = vector_schema
    return cfg


def upgrade(connection: sa.Connection, *, vector_schema: str) -> None:
    """Bring the tables to the newest revision."""
    with _one_at_a_time:
        command.upgrade(config(connection, vector_schema=vector_schema), "head")


def head() -> str:
    """Return the newest revision this package knows."""
    revision = ScriptDirectory.from_config(config()).get_current_head()
    return revision or ""
