"""Ingestion: documents and their state, data sets, chunking of our own."""

from __future__ import annotations

from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

_TABLES: tuple[str, ...] = ()

# By exact types, or both forms would remain.
_REPLACED: tuple[str, ...] = ()


def upgrade() -> None:
    """Add and drop; short, and blocks nothing for long."""
    op.execute("set local lock_timeout = '10s'")
    for statement in _TABLES:
        op.execute(statement)
    for signature in _REPLACED:
        op.execute(f"drop function if exists {signature}")
