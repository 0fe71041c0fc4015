"""The wheel works outside the checkout: built, installed into an empty environment, run."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import venv
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

# Applies nothing, only proves that the files that travel in the wheel are found.
READ_SQL = """
from pgstack import sqlfiles
names = sqlfiles.names()
assert all("@extschema" not in sqlfiles.read(name, {"vector": "public"}) for name in names)
assert "vector" in [recipe.name for recipe in sqlfiles.recipes()]
print(len(names), sqlfiles.__file__)
"""

# Everything but the embedded stack, whose packages are not there.
IMPORT_ALL = """
import importlib, importlib.util, pkgutil
import pgstack, pgstack_cli
assert importlib.util.find_spec("xllamacpp") is None
for package in (pgstack, pgstack_cli):
    for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        name = module.name
        if not name.startswith("pgstack.embedded") and not name.endswith("__main__"):
            if ".migrations." not in name:  # those run inside Alembic only
                importlib.import_module(name)
"""


def run(*command: str | Path, cwd: Path, env: dict[str, str]) -> str:
    """Run a command, return its output; show both streams when it fails."""
    words = [str(word) for word in command]
    done = subprocess.run(
        words,
        cwd=cwd,
        env=env,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{' '.join(words)}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def outside() -> Iterator[Path]:
    """A directory outside the checkout that root's server account can enter."""
    folder = Path(tempfile.mkdtemp(prefix="pgstack-wheel-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def env(outside: Path) -> dict[str, str]:
    """The environment without anything that leads back to the checkout."""
    mine = ("PYTHON", "PGSTACK_", "VIRTUAL_ENV", "OLLAMA_", "PG")
    kept = {key: value for key, value in os.environ.items() if not key.startswith(mine)}
    return kept | {"PGSTACK_HOME": str(outside / "home")}


@pytest.fixture(scope="module")
def wheel(outside: Path, env: dict[str, str]) -> Path:
    run(sys.executable, "-m", "build", "--wheel", "--outdir", outside, ROOT, cwd=outside, env=env)
    (built,) = outside.glob("*.whl")
    return built


def pip_install(folder: Path, what: str, outside: Path, env: dict[str, str]) -> None:
    run(
        *(folder / "python", "-m", "pip", "install", "--quiet", "--no-compile"),
        *("--constraint", ROOT / "constraints.txt", what),
        cwd=outside,
        env=env,
    )


@pytest.fixture(scope="module")
def plain(outside: Path, env: dict[str, str], wheel: Path) -> Path:
    """The programs of an environment that holds the wheel alone, as the Dockerfile makes it."""
    venv.create(outside / "venv", with_pip=True)
    folder = outside / "venv" / "bin"
    pip_install(folder, str(wheel), outside, env)
    return folder


@pytest.fixture(scope="module")
def complete(plain: Path, outside: Path, env: dict[str, str], wheel: Path) -> Path:
    """The same environment with every extra."""
    pip_install(plain, f"{wheel}[embedded,datasets,cloud]", outside, env)
    return plain


def test_the_wheel_holds_the_product_and_nothing_else(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names}
    assert {"pgstack", "pgstack_cli"} <= tops
    assert all(top in {"pgstack", "pgstack_cli"} or top.endswith(".dist-info") for top in tops)
    for folder in ("sql", "extensions"):
        here = {p.relative_to(ROOT).as_posix() for p in (ROOT / folder).rglob("*.sql")}
        assert {f"pgstack/_{name}" for name in here} <= set(names)
    assert "pgstack/py.typed" in names
    assert any(name.endswith("/licenses/LICENSE") for name in names)


def test_it_works_without_the_extra(plain: Path, outside: Path, env: dict[str, str]) -> None:
    run(plain / "python", "-c", IMPORT_ALL, cwd=outside, env=env)
    assert "0." in run(plain / "pgstack", "--version", cwd=outside, env=env)
    assert "--once" in run(plain / "pgstack", "worker", "--help", cwd=outside, env=env)


def test_the_sql_travels_with_it(plain: Path, outside: Path, env: dict[str, str]) -> None:
    count, where = run(plain / "python", "-c", READ_SQL, cwd=outside, env=env).split()
    assert int(count) == len(list((ROOT / "sql").glob("*.sql")))
    assert Path(where).is_relative_to(outside)


def test_a_database_comes_up_and_answers(
    complete: Path, outside: Path, env: dict[str, str]
) -> None:
    pgstack = complete / "pgstack"
    try:
        run(pgstack, "up", "--no-models", "--no-worker", cwd=outside, env=env)
        run(pgstack, "install", cwd=outside, env=env)
        query = "select count(*) > 5 from pgstack.settings"
        assert run(pgstack, "psql", "-Atc", query, cwd=outside, env=env).strip() == "t"
    finally:
        run(pgstack, "down", cwd=outside, env=env)
