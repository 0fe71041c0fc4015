"""The docs say what is so: generated pages are current, links lead somewhere, examples run."""

from __future__ import annotations

import importlib.util
import inspect
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import psycopg
import pytest

from pgstack import errors

ROOT = Path(__file__).resolve().parents[2]
REFERENCE = ROOT / "docs" / "reference"
PAGES = sorted({*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *ROOT.glob("[a-z]*/README.md")})
IDS = [page.relative_to(ROOT).as_posix() for page in PAGES]


@pytest.fixture(scope="module")
def reference() -> ModuleType:
    """scripts/reference.py, which is no package."""
    path = ROOT / "scripts" / "reference.py"
    spec = importlib.util.spec_from_file_location("reference", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["reference"] = module
    spec.loader.exec_module(module)
    return module


def without_code(text: str) -> str:
    """The page without fenced blocks and code spans: nothing in there is a link."""
    text = re.sub(r"(?ms)^(`{3,}).*?^\1`*$", "", text)
    return re.sub(r"(`+).*?\1", "", text)


def anchors(page: Path) -> set[str]:
    """The anchors that a forge makes of a page's headings."""
    text = re.sub(r"(?ms)^(`{3,}).*?^\1`*$", "", page.read_text(encoding="utf-8"))
    headings = re.findall(r"(?m)^#+\s+(.*?)\s*$", text)
    return {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}


def examples(page: Path) -> list[str]:
    """The SQL blocks of a page that are marked to be run: ```sql run."""
    return re.findall(r"(?ms)^```sql run\n(.*?)^```$", page.read_text(encoding="utf-8"))


# ------------------------------------------------------------------------ reference


def test_the_reference_is_current(reference: ModuleType, conn: psycopg.Connection[Any]) -> None:
    diff = reference.differences(conn)
    assert diff == "", "run: make reference"


def test_every_command_has_help_with_an_example(reference: ModuleType) -> None:
    poor = {}
    for path, command in reference.commands(reference.application(), "pgstack"):
        text = command.help or ""
        is_group = hasattr(command, "commands")
        if not text or not (is_group or re.search(rf"^\s+{path}\b", text, re.M)):
            poor[path] = text[:60]
    assert poor == {}


def test_every_option_has_help(reference: ModuleType) -> None:
    bare = [
        f"{path} {param.name}"
        for path, command in reference.commands(reference.application(), "pgstack")
        for param in command.params
        if not getattr(param, "help", None) and not getattr(param, "hidden", False)
    ]
    assert bare == []


def test_every_error_code_is_in_the_reference() -> None:
    page = (REFERENCE / "errors.md").read_text()
    sql = "\n".join(path.read_text() for path in (ROOT / "sql").glob("*.sql"))
    used = set(re.findall(r"\bPS0\d\d\b", sql))
    known = {cls.sqlstate for cls in errors.PgstackError.__subclasses__() if cls.sqlstate}
    assert used <= known
    assert set(re.findall(r"\bPS0\d\d\b", page)) >= known
    assert all(inspect.getdoc(cls) for cls in errors.PgstackError.__subclasses__())


def test_every_setting_is_in_the_reference(conn: psycopg.Connection[Any]) -> None:
    page = (REFERENCE / "settings.md").read_text()
    names = [row[0] for row in conn.execute("select name from pgstack.settings")]
    assert names
    assert [name for name in names if f"`{name}`" not in page] == []


def test_every_environment_variable_is_in_the_reference(reference: ModuleType) -> None:
    files = [path for folder in ("pgstack", "cli") for path in (ROOT / folder).rglob("*.py")]
    text = "\n".join(path.read_text(encoding="utf-8") for path in [*files, ROOT / "scripts/setup"])
    read = set(re.findall(r"\b(PGSTACK_[A-Z_]+|OLLAMA_HOST)\b", text))
    assert sorted(read - set(reference.ENVIRONMENT)) == []


# ----------------------------------------------------------------------------- pages


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_links_lead_somewhere(page: Path) -> None:
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", without_code(page.read_text(encoding="utf-8"))):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        linked = (page.parent / path).resolve() if path else page
        if not linked.exists() or (
            anchor and linked.suffix == ".md" and anchor not in anchors(linked)
        ):
            broken.append(target)
    assert broken == []


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_make_targets_and_scripts_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    targets = set(re.findall(r"(?m)^([a-z-]+):", (ROOT / "Makefile").read_text()))
    named = set(re.findall(r"(?:^    |`)make ([a-z][a-z-]*)\b", text, re.M))
    benches = {f"bench-{path.stem.replace('_', '-')}" for path in (ROOT / "bench").glob("*.py")}
    assert sorted(named - targets - benches - {"bench-"}) == []
    scripts = re.findall(r"`((?:scripts|\.ci|sql|pgstack|cli|tests)/[\w./-]+\.?\w+)`", text)
    assert [name for name in scripts if not (ROOT / name).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_commands_in_the_docs_exist(page: Path, reference: ModuleType) -> None:
    paths = {path for path, _ in reference.commands(reference.application(), "pgstack")}
    groups = {
        path
        for path, command in reference.commands(reference.application(), "pgstack")
        if hasattr(command, "commands")
    }
    unknown = []
    for line in re.findall(r"(?:^    |^|`)pgstack ([a-z][^\n`]*)", page.read_text(), re.M):
        words = re.match(r"[a-z-]+(?: [a-z-]+)?", line)
        assert words is not None
        first, _, second = words[0].partition(" ")
        path = f"pgstack {first}"
        if path not in paths or (path in groups and second and f"{path} {second}" not in paths):
            unknown.append(line)
    assert unknown == []


WITH_EXAMPLES = [
    pytest.param(page, id=name) for page, name in zip(PAGES, IDS, strict=True) if examples(page)
]


@pytest.mark.parametrize("page", WITH_EXAMPLES)
def test_marked_examples_run(page: Path, conn: psycopg.Connection[Any]) -> None:
    """The blocks of one page see each other's work; the fixture rolls it all back."""
    for block in examples(page):
        conn.execute(block.encode())
