"""A newcomer's first minutes: clone, `make demo`, look again, stop.

Runs what is committed.  The small model answers, so that CI has time for it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[2]

pytestmark = [pytest.mark.slow, pytest.mark.models, pytest.mark.timeout(900)]


class Newcomer(NamedTuple):
    clone: Path
    env: dict[str, str]

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command,
            cwd=self.clone,
            env=self.env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )


@pytest.fixture(scope="module")
def newcomer() -> Iterator[Newcomer]:
    """A fresh clone and an empty home, in a directory that root's server account can enter."""
    folder = Path(tempfile.mkdtemp(prefix="pgstack-newcomer-"))
    folder.chmod(0o755)
    mine = ("PYTHON", "PGSTACK_", "VIRTUAL_ENV", "OLLAMA_", "PG", "MAKE", "MFLAGS", "ARGS", "CI")
    env = {key: value for key, value in os.environ.items() if not key.startswith(mine)}
    env |= {"PGSTACK_HOME": str(folder / "home"), "PGSTACK_DEMO_MODEL": "smollm2:135m"}
    person = Newcomer(folder / "pgstack", env)
    subprocess.run(["git", "clone", "--quiet", ROOT, person.clone], check=True)
    yield person
    if (person.clone / ".venv/bin/pgstack").exists():
        person.run(".venv/bin/pgstack", "down")
    shutil.rmtree(folder)


def test_the_demo_works_at_once_and_is_quick_again(newcomer: Newcomer) -> None:
    first = newcomer.run("make", "demo")
    assert first.returncode == 0, first.stdout[-4000:] + first.stderr[-4000:]
    assert "pgstack down" in first.stdout + first.stderr  # says how to stop what it started

    started = time.monotonic()
    second = newcomer.run("make", "demo")
    assert second.returncode == 0, second.stdout[-4000:] + second.stderr[-4000:]
    assert time.monotonic() - started < 60
    assert "[1/3]" not in second.stderr  # no set-up the second time

    # It leaves the checkout as it was, and what it started can be asked and stopped.
    assert newcomer.run("git", "status", "--porcelain").stdout == ""
    asked = newcomer.run(".venv/bin/pgstack", "psql", "-Atc", "select 1")
    assert asked.stdout.strip() == "1", asked.stderr
    assert newcomer.run(".venv/bin/pgstack", "down").returncode == 0
    assert newcomer.run(".venv/bin/pgstack", "psql", "-Atc", "select 1").returncode != 0
