"""Search: how a vectorizer's text is read, and functions that changed their arguments."""

from __future__ import annotations

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

# By exact types, or both forms would remain.
_REPLACED = (
    "_pgstack.filter_condition(_pgstack.vectorizer_plan, jsonb)",
    "_pgstack.search_from(_pgstack.vectorizer_plan)",
    "_pgstack.search_columns(_pgstack.vectorizer_plan)",
    "_pgstack.search_vector(_pgstack.vectorizer_plan, text, integer, jsonb)",
    "_pgstack.search_text(_pgstack.vectorizer_plan, text, integer, jsonb)",
    "_pgstack.search_hybrid(_pgstack.vectorizer_plan, text, integer, jsonb)",
    "_pgstack.text_config()",
    "_pgstack.check_search(text, integer, text)",
    "pgstack.search(text, text, integer, text, jsonb)",
    "pgstack.create_vectorizer(regclass, name[], text, text, integer, text, integer, integer, "
    "text, name, name, text, boolean, boolean)",
    "pgstack.create_vectorizer(regclass, name, text, text, integer, text, integer, integer, "
    "text, name, name, text, boolean, boolean)",
)


def upgrade() -> None:
    """Add and drop; short, and blocks nothing for long."""
    op.execute("set local lock_timeout = '10s'")
    # text_config: NULL: the setting of that name.  words_config: what the table of words was
    # made with.
    op.execute(
        "alter table _pgstack.vectorizer add column text_config text, add column words_config text"
    )
    for signature in _REPLACED:
        op.execute(f"drop function if exists {signature}")
    op.execute("drop type if exists _pgstack.hit cascade")
