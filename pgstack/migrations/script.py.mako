"""${message}."""

from __future__ import annotations

from alembic import op

revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Describe what changes, and whether running workers may go on."""
    ${upgrades if upgrades else "op.execute('set local lock_timeout = ' + chr(39) + '5s' + chr(39))"}
