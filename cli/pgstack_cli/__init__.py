"""The ``pgstack`` command: parse, call the library, print."""
