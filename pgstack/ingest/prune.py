"""Removes documents whose files are gone.

Gone is what the disk, or the object store, says is not there, at the moment of asking: a file
that is hidden, ignored or excluded by now, or that cannot be read, keeps its document.  So does
everything below a folder that is itself gone, or empty: its disk may not be mounted.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Collection, Iterable, Iterator

from pgstack import remote
from pgstack.ingest.report import Tally, printable
from pgstack.ingest.roots import Root, below, file_uri, uri_path
from pgstack.ingest.store import Store

EMPTY = "an empty folder: nothing is removed, its disk may not be mounted"


def prune_folders(store: Store, roots: Iterable[Root], tally: Tally, *, dry: bool) -> None:
    """Remove the documents below folders, and of globs, whose files are gone."""
    for root in roots:
        if not os.path.isdir(root.path):  # noqa: PTH112
            continue
        uris = _gone(store, root, below(file_uri(root.path)))
        if _is_empty(root.path):
            if next(uris, None) is not None:
                tally.finished(printable(root.path), "skipped", EMPTY)
            continue
        _remove(store, uris, tally, dry=dry)


def prune_paths(store: Store, roots: Collection[Root], paths: Iterable[str], tally: Tally) -> None:
    """Remove the documents of these paths, and below them, whose files are gone."""
    for path in paths:
        for root in roots:
            # A folder that is gone with all below it may be a disk that is not mounted.
            if not os.path.isdir(root.path) or _is_empty(root.path):  # noqa: PTH112
                continue
            if path.startswith(below(root.path)):
                _remove(store, _gone(store, root, file_uri(path)), tally, dry=False)
                break


def prune_listing(store: Store, url: str, tally: Tally, *, dry: bool) -> None:
    """Remove the documents of a prefix of an object store whose objects are gone."""
    there = (item.url for item in remote.list_objects(url))
    _remove(store, _only_left(store.uris(url), there), tally, dry=dry)


def _remove(store: Store, uris: Iterator[str], tally: Tally, *, dry: bool) -> None:
    for uri in uris:
        if not dry:
            store.remove(uri)
        shown = printable(uri_path(uri)) if uri.startswith("file://") else uri
        tally.finished(shown, "removed")


def _gone(store: Store, root: Root, prefix: str) -> Iterator[str]:
    for uri in store.uris(prefix):
        path = uri_path(uri)
        # The prefix of a file's name is others' as well.
        is_its = uri == prefix or uri.startswith(below(prefix))
        if is_its and root.covers(path) and _is_gone(path):
            yield uri


def _is_gone(path: str) -> bool:
    try:
        return stat.S_ISDIR(os.lstat(path).st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:  # nobody knows
        return False


def _is_empty(folder: str) -> bool:
    try:
        with os.scandir(folder) as entries:
            return next(entries, None) is None
    except OSError:
        return True


def _only_left(left: Iterator[str], right: Iterator[str]) -> Iterator[str]:
    """Yield what only the first of two iterators has; both are in the order of their bytes."""
    other = next(right, None)
    for item in left:
        while other is not None and other.encode() < item.encode():
            other = next(right, None)
        if item != other:
            yield item
