"""Files, folders, globs and URLs into a collection.

Data in and out
    ``paths``       files and folders, globs, ``http(s)://``, ``s3://bucket/key``,
                    ``s3://bucket/prefix/``, ``-`` for standard input; folders are read whole,
                    but for what the rules leave out (:mod:`pgstack.ingest.find`)
    ``collection``  its name; made if it does not exist
    returns         :class:`IngestReport`

A document's uri is its absolute path as ``file://`` URL, or its URL without secrets.  A file that
looks as it did (size and time of change), or has the same sha256, is not read again, and a
document whose text is the same keeps its embeddings.  Files are committed a few at a time: a crash
loses those at hand and nothing else.  A file that gives no text is noted in the collection with
its reason, and not tried again until it changes.

``conn`` must be outside a transaction for that; inside one, nothing is committed here.
Nothing here opens a connection or calls a model (but see pgstack.create_collection).

Raises
    UsageError        bad collection name, path or pattern
    NameTaken         the collection's name is another object's
    MissingPrivilege  no right to make or fill the collection
    UnknownVectorizer the collection was dropped meanwhile
    Interrupted       a KeyboardInterrupt that carries the report
"""

from pgstack.ingest.main import Stdin, ingest
from pgstack.ingest.report import IngestProgress, IngestReport, Interrupted, Outcome, printable

__all__ = [
    "IngestProgress",
    "IngestReport",
    "Interrupted",
    "Outcome",
    "Stdin",
    "ingest",
    "printable",
]
