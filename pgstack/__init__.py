"""pgstack: semantic search, embeddings and model calls inside PostgreSQL.

The logic lives in SQL (schema ``pgstack``).  This package installs it, moves text
to a model server and vectors back, and offers the same verbs to Python programs.
"""

__version__ = "0.1.0"
