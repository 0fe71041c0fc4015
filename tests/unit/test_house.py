"""The rules of the house that a program can read off the files: see CONTRIBUTING.md."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PYTHON = sorted([*(ROOT / "pgstack").rglob("*.py"), *(ROOT / "cli").rglob("*.py")])
LINES_MAX = 500

# Who may import what: model servers and files at URLs have a module each,
# and SQLAlchemy is for tables and Alembic only.
# A path that ends in / means everything below it.
KEPT_TO = {
    "httpx": (
        "pgstack/extract/tika.py",
        *("pgstack/models.py", "pgstack/model_errors.py", "pgstack/remote.py"),
        "pgstack/embedded/modelserver/",
    ),
    "obstore": ("pgstack/remote.py",),
    "ollama": ("pgstack/models.py", "pgstack/model_errors.py", "pgstack/embedded/modelserver/"),
    "pyarrow": ("pgstack/datasets/",),
    "requests": (),
    "starlette": ("pgstack/embedded/modelserver/",),
    "uvicorn": ("pgstack/embedded/modelserver/",),
    "xllamacpp": ("pgstack/embedded/modelserver/",),
    "onnxruntime": ("pgstack/embedded/modelserver/",),
    "tokenizers": ("pgstack/embedded/modelserver/",),
    "sqlalchemy": ("pgstack/install.py", "pgstack/tables.py", "pgstack/migrations/"),
    "alembic": ("pgstack/install.py", "pgstack/migrations/"),
    "typer": ("cli/",),
    "rich": ("cli/",),
    "pytest": (),
    "tests": (),
    "bench": (),
    "pgstack_cli": ("cli/",),
}


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def module_name(path: Path) -> str:
    parts = list(path.relative_to(ROOT).with_suffix("").parts)
    if parts[0] == "cli":
        parts = parts[1:]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def imported(path: Path, nodes: Iterator[ast.AST]) -> Iterator[str]:
    """Every module that these nodes import, by its full name."""
    package = module_name(path).split(".")
    if path.name != "__init__.py":
        package = package[:-1]
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            origin = ".".join([*base, *([node.module] if node.module else [])])
            yield origin
            yield from (f"{origin}.{alias.name}" for alias in node.names)


def on_import(node: ast.AST) -> Iterator[ast.AST]:
    """The nodes that run when the module is imported: not the bodies of functions."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        # `if TYPE_CHECKING:` never runs.
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            continue
        yield child
        yield from on_import(child)


def is_in(path: Path, places: tuple[str, ...]) -> bool:
    name = relative(path)
    return any(name.startswith(p) if p.endswith("/") else name == p for p in places)


@pytest.mark.parametrize("package", KEPT_TO)
def test_a_package_is_imported_only_where_it_belongs(package: str) -> None:
    strays = [
        relative(path)
        for path in PYTHON
        if not is_in(path, KEPT_TO[package])
        and any(name.split(".")[0] == package for name in imported(path, ast.walk(tree(path))))
    ]
    assert strays == []


def test_the_embedded_stack_is_an_extra_that_the_rest_imports_late() -> None:
    """`pip install pgstack` has no server: importing pgstack must work without it."""
    strays = [
        relative(path)
        for path in PYTHON
        if not is_in(path, ("pgstack/embedded/", "pgstack/demo.py"))  # the demo is of that stack
        and any(
            f"{name}.".startswith("pgstack.embedded.")
            for name in imported(path, on_import(tree(path)))
        )
    ]
    assert strays == []


def test_the_command_line_holds_no_sql() -> None:
    statement = re.compile(r"^['\"\s]*(select|insert into|update|delete from|create|drop)\s", re.I)
    strays = []
    for path in sorted((ROOT / "cli").rglob("*.py")):
        for call in (node for node in ast.walk(tree(path)) if isinstance(node, ast.Call)):
            runs = isinstance(call.func, ast.Attribute) and call.func.attr.startswith("execute")
            if runs and call.args and statement.match(ast.unparse(call.args[0])):
                strays.append(f"{relative(path)}:{call.lineno}")
    assert strays == []


@pytest.mark.parametrize("folder", ["sql", "extensions", "cli", "tests", "bench", "docs"])
def test_every_top_folder_says_what_lives_there(folder: str) -> None:
    assert (ROOT / folder / "README.md").read_text(encoding="utf-8").startswith(f"# {folder}/: ")


def test_no_file_is_longer_than_a_person_reads() -> None:
    folders = ["pgstack", "cli", "sql", "extensions", "tests", "bench", "scripts"]
    files = [f for name in folders for f in (ROOT / name).rglob("*") if f.suffix in {".py", ".sql"}]
    long = {
        relative(path): count
        for path in files
        if (count := len(path.read_text(encoding="utf-8").splitlines())) > LINES_MAX
    }
    assert long == {}


def test_every_module_says_what_it_is_for() -> None:
    empty = [p for p in PYTHON if p.read_text(encoding="utf-8").strip() == ""]
    silent = [relative(p) for p in PYTHON if p not in empty and ast.get_docstring(tree(p)) is None]
    assert silent == []


def test_every_requirement_is_pinned() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"].values()
    lines = [*project["dependencies"], *(line for extra in extras for line in extra)]
    wanted = {re.split(r"[\[<>=~!; ]", line)[0].lower() for line in lines}
    pins = (ROOT / "constraints.txt").read_text().splitlines()
    pinned = {pin.split("==")[0] for pin in pins if "==" in pin}
    assert sorted(wanted - pinned) == [], "run .venv/bin/python scripts/pin --keep"


def test_every_recipe_is_complete() -> None:
    for folder in sorted((ROOT / "extensions").iterdir()):
        if folder.is_dir():
            names = {path.name for path in folder.iterdir()}
            assert {"extension.toml", "install.sql", "probe.sql"} <= names, folder.name
