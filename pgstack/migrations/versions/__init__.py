"""Alembic revisions, one file each, forward only."""
