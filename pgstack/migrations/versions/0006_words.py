"""Words: a table of them is made anew beside the old one."""

from __future__ import annotations

from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

# By exact types, or both forms would remain.
_REPLACED = (
    "_pgstack.create_words_triggers(_pgstack.vectorizer_plan, regconfig)",
    "_pgstack.protect_words(_pgstack.vectorizer_plan)",
)


def upgrade() -> None:
    """Add and drop; short, and blocks nothing for long."""
    op.execute("set local lock_timeout = '10s'")
    # words_version: of the table in use, it ends its name; 0: the name of those made before.
    # words_made_at: when that was made, and the one before it went out of use.
    op.execute(
        "alter table _pgstack.vectorizer "
        "add column words_version integer not null default 0, add column words_made_at timestamptz"
    )
    for signature in _REPLACED:
        op.execute(f"drop function if exists {signature}")
