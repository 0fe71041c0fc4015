"""Text out of files, whatever they are and whoever made them.

Data in and out
    in       a regular file, or bytes with a name; at most ``MAX_BYTES`` (100 MB)
    returns  :class:`Document`: title or None, media type, text, parts, warnings for people

Text has ``\\n`` line ends, no NUL and no lone surrogates, so that PostgreSQL takes it.
Markdown, reStructuredText, CSV, JSON and source code stay as they are written.
``parts`` say which characters stand on which page and under which headings.

Files come from anywhere, so :class:`Extractor` reads them in a helper process with limits,
which is replaced when it dies.

Raises
    Unreadable  why the file gives no text; the message reads well after its name
    Crashed     an Unreadable that may succeed when it is tried again
"""

from pgstack.extract.document import Crashed, Document, Options, Part, Unreadable, parts_json
from pgstack.extract.extractor import MAX_BYTES, Extractor

__all__ = [
    "MAX_BYTES",
    "Crashed",
    "Document",
    "Extractor",
    "Options",
    "Part",
    "Unreadable",
    "parts_json",
]
