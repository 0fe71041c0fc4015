"""What people name on the command line: files, folders, globs, URLs, standard input.

Data in and out
    in       ``notes.md``, ``./handbook``, ``'docs/**/*.md'``, ``https://...``, ``s3://b/prefix/``,
             ``file:///path``, ``-``
    returns  :class:`Roots`: absolute paths in the order they were named, none twice

A glob names files.  What is called like a glob and exists is that file.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import quote_from_bytes, unquote_to_bytes

from pathspec import GitIgnoreSpec
from pathspec.patterns.gitignore.base import GitIgnorePatternError

from pgstack import remote
from pgstack.errors import UsageError

_MAGIC = re.compile(r"[*?\[]")


@dataclass(frozen=True)
class Root:
    """A file or folder that was named, or the folder of a glob.

    ``glob``   what files below ``path`` must match; None: ``path`` itself was named
    ``depth``  how many folders below ``path`` they are; None: any number
    ``text``   the glob with the path before it
    """

    path: str
    glob: GitIgnoreSpec | None = None
    depth: int | None = None
    text: str = ""

    def covers(self, path: str) -> bool:
        """Tell whether a path is this one, or lies below and matches."""
        if self.glob is None:
            return path == self.path or path.startswith(below(self.path))
        if not path.startswith(below(self.path)):
            return False
        rest = path[len(below(self.path)) :]
        right_depth = self.depth is None or rest.count("/") == self.depth
        return right_depth and self.glob.match_file(rest)


@dataclass(frozen=True)
class Roots:
    """All that was named, by kind."""

    local: tuple[Root, ...] = ()
    urls: tuple[str, ...] = ()
    listings: tuple[str, ...] = ()  # prefixes of object stores
    stdin: bool = False


def parse(arguments: Iterable[str | os.PathLike[str]]) -> Roots:
    """Return what was named; raises UsageError for what makes no sense."""
    local: dict[object, Root] = {}
    urls: dict[str, str] = {}
    listings: dict[str, None] = {}
    stdin = False
    for argument in arguments:
        text = os.fspath(argument)
        if isinstance(argument, str) and text == "-":
            stdin = True
        elif isinstance(argument, str) and remote.is_listing(text):
            listings[text if text.endswith("/") else text + "/"] = None
        elif isinstance(argument, str) and remote.is_url(text):
            urls.setdefault(remote.public_url(text), text)
        elif isinstance(argument, str) and re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", text):
            if not text.lower().startswith("file:///"):
                raise UsageError(
                    f"{remote.public_url(text)} is of no kind that is read",
                    hint="a path, http://, https://, s3://, gs:// or az://",
                )
            local.setdefault(uri_path(text), Root(uri_path(text)))
        else:
            local.setdefault(text, _local(text))
    plain = {root.path: root for root in local.values() if root.glob is None}
    globs = [root for root in local.values() if root.glob is not None]
    return Roots((*plain.values(), *globs), tuple(urls.values()), tuple(listings), stdin)


def _local(text: str) -> Root:
    if not text or "\0" in text:
        raise UsageError("a path cannot be empty or hold NUL", hint="pgstack ingest ./folder")
    # Links stay: the uri is the path as people know it.
    path = os.path.normpath(os.path.join(os.getcwd(), os.path.expanduser(text)))  # noqa: PTH109, PTH111, PTH118
    if not _MAGIC.search(path) or os.path.lexists(path):
        return Root(path)
    parts = path.split("/")
    first = next(i for i, part in enumerate(parts) if _MAGIC.search(part))
    # What comes before may be called like a glob as well, and be there.
    while first < len(parts) - 1 and os.path.lexists("/".join(parts[: first + 1])):
        first += 1
    return Root(
        "/".join(parts[:first]) or "/",
        glob=spec(["/" + "/".join(parts[first:])]),
        depth=None if "**" in parts[first:] else len(parts) - first - 1,
        text=path,
    )


def spec(lines: Iterable[str]) -> GitIgnoreSpec:
    """Return patterns in the syntax of ``.gitignore``, or raise UsageError."""
    try:
        return GitIgnoreSpec.from_lines(lines)
    except GitIgnorePatternError as exc:
        raise UsageError(f"not a pattern: {exc}", hint="'*.md', 'drafts/', '/docs/**'") from None


def below(path: str) -> str:
    """Return what the paths of all that lies below a folder begin with."""
    return path if path.endswith("/") else path + "/"


def file_uri(path: str) -> str:
    """Return an absolute path as ``file://`` URL, whatever bytes it has."""
    return "file://" + quote_from_bytes(os.fsencode(path))


def uri_path(uri: str) -> str:
    """Return the path of a ``file://`` URL."""
    return os.fsdecode(unquote_to_bytes(uri[len("file://") :]))
