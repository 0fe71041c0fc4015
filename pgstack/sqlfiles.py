"""The SQL that pgstack ships: ``sql/*.sql`` and the recipes in ``extensions/``.

In a checkout both folders lie at the top of the tree; in a wheel they travel
inside the package as ``_sql`` and ``_extensions``.

Placeholders
    ``@extschema:NAME@``  the quoted schema that holds the extension NAME
    ``@extschema@``       in a recipe, the schema of that very extension

A file that begins with ``-- unless extension: NAME`` is left out where that
extension is installed.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from pgstack.errors import InstallError

_PLACEHOLDER = re.compile(r"@extschema:(\w+)@")


@dataclass(frozen=True)
class Recipe:
    """How one PostgreSQL extension is used: one folder of ``extensions/``."""

    name: str
    minimum: str
    required: bool
    purpose: str
    without: str
    folder: Path

    def install_sql(self) -> str:
        """Return the statement that creates the extension."""
        return (self.folder / "install.sql").read_text(encoding="utf-8")

    def probe_sql(self, schema: str) -> str:
        """Return a query with one boolean: does the extension in ``schema`` work?"""
        text = (self.folder / "probe.sql").read_text(encoding="utf-8")
        return text.replace("@extschema@", quote_ident(schema))


def quote_ident(name: str) -> str:
    """Quote an SQL identifier, always."""
    return '"' + name.replace('"', '""') + '"'


@cache
def _folder(name: str) -> Path:
    package = Path(__file__).parent
    for candidate in (package / f"_{name}", package.parent / name):
        if candidate.is_dir():
            return candidate
    raise InstallError(
        f"the folder {name}/ is missing from this installation of pgstack",
        hint="pip install --force-reinstall pgstack",
    )


def names() -> list[str]:
    """Return the files of ``sql/`` in the order in which they are applied."""
    return sorted(path.name for path in _folder("sql").glob("*.sql"))


def applies(name: str, schemas: Mapping[str, str]) -> bool:
    """Tell whether a file of ``sql/`` is wanted beside these installed extensions."""
    first_line = (_folder("sql") / name).read_text(encoding="utf-8").partition("\n")[0]
    unless = re.fullmatch(r"-- unless extension: (\w+)", first_line)
    return unless is None or unless.group(1) not in schemas


def read(name: str, schemas: Mapping[str, str]) -> str:
    """Return one file of ``sql/`` with every ``@extschema:NAME@`` replaced.

    ``schemas`` maps an extension's name to the schema that holds it.  A file may
    mention an extension that is absent: its functions then say so when called.  They
    look for it in pg_catalog, where nobody can put something of the same name.
    """
    text = (_folder("sql") / name).read_text(encoding="utf-8")
    return _PLACEHOLDER.sub(lambda m: quote_ident(schemas.get(m.group(1), "pg_catalog")), text)


def recipes() -> list[Recipe]:
    """Return the extension recipes, required ones first, then by name."""
    found = []
    for path in sorted(_folder("extensions").glob("*/extension.toml")):
        found.append(Recipe(folder=path.parent, **tomllib.loads(path.read_text(encoding="utf-8"))))
    return sorted(found, key=lambda recipe: (not recipe.required, recipe.name))
