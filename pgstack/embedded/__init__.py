"""A private PostgreSQL and a model server: nothing else is needed to try pgstack."""
