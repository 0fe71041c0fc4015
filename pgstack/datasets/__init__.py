"""Data sets: CSV, JSON lines and Parquet into tables.

Data in and out
    ``source``      a path, or a URL as :mod:`pgstack.remote` reads it; also compressed
                    (.gz, .bz2, .xz, .zst)
    ``Options``     how the file is read and what the table is to be (schema.py)
    ``Inspection``  what is in a file and which table would hold it
    ``LoadReport``  what a load did

:func:`load_dataset` commits as it goes, and goes on where an earlier call was broken off.

Raises
    UsageError       no such file, a file that is not what it should be, wrong options
    NameTaken        the table exists already
    TableBusy        another process loads the same
    MissingExtra     pyarrow is not installed
    TooManyRejects   more records than allowed did not fit
    PgstackError     the file changed between two calls, or is damaged
"""

from __future__ import annotations

from pgstack.datasets.batch import Reject
from pgstack.datasets.inspecting import Inspection, inspect
from pgstack.datasets.load import LoadReport, load_dataset
from pgstack.datasets.loads import Load, forget, loads, rejects
from pgstack.datasets.schema import Column, Options

__all__ = [
    "Column",
    "Inspection",
    "Load",
    "LoadReport",
    "Options",
    "Reject",
    "forget",
    "inspect",
    "load_dataset",
    "loads",
    "rejects",
]
