"""Alembic's entry point: runs the revisions on the installer's connection."""

from __future__ import annotations

from alembic import context

config = context.config
context.configure(
    connection=config.attributes["connection"],
    version_table="alembic_version",
    version_table_schema="_pgstack",
    transactional_ddl=True,
    vector_schema=config.attributes["vector_schema"],
)
with context.begin_transaction():
    context.run_migrations()
