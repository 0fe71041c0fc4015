"""``pgstack demo`` and what a person does after it, with the real models.

Runs without a terminal, as in CI, on models that are already here; the small one answers.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
MODELS = Path(os.environ.get("PGSTACK_TEST_MODELS", ROOT / ".cache" / "models"))
SMALL = "smollm2:135m"

pytestmark = [pytest.mark.slow, pytest.mark.models, pytest.mark.timeout(600)]

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def run() -> Iterator[Run]:
    """Run pgstack in a home of its own that holds the two small models."""
    folder = Path(tempfile.mkdtemp(prefix="pgstack-demo-"))
    folder.chmod(0o755)  # as root, the server runs as another user, who must get in
    for name in ("all-minilm", SMALL.replace(":", "-")):
        if not (MODELS / name).is_dir():
            pytest.skip(f"the model {name} is not in {MODELS}: make setup-dev")
        shutil.copytree(MODELS / name, folder / "home" / "models" / name)
    foreign = ("PGSTACK_", "OLLAMA_", "PG")
    env = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    env |= {"PGSTACK_HOME": str(folder / "home"), "PGSTACK_DEMO_MODEL": SMALL}

    def pgstack(*args: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, "-m", "pgstack_cli", *args],
            env=env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == code, done.stdout[-4000:] + done.stderr[-4000:]
        return done

    yield pgstack
    pgstack("down")
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def first(run: Run) -> str:
    """What the first demo printed."""
    return run("demo").stdout


def embedded(text: str) -> int:
    """How many chunks a demo says that it embedded."""
    found = re.search(r"^    (\d+) chunks embedded", text, re.M)
    assert found is not None, text
    return int(found[1])


def test_every_step_shows_its_result(first: str) -> None:
    steps = re.findall(r"^\[ *(\d+\.\d) s\] (\d)/7  \S", first, re.M)
    assert [number for _, number in steps] == list("1234567")
    assert sorted(steps, key=lambda step: float(step[0])) == steps
    assert embedded(first) > 300
    assert re.search(r"^    \d\d new, 0 changed, 0 unchanged documents", first, re.M)
    # The row that changed is now the nearest to the question.
    nearest = re.search(r"^    body +distance\n    (.+?)  +0\.\d+$", first, re.M)
    assert nearest is not None
    assert nearest[1] == "The copier on the second floor is out of toner again."
    assert re.search(r"^    -- embedded \d+ ms after the update$", first, re.M)
    # Meaning, not words: the passage has neither "tell" nor "compiler".
    assert re.search(r"^    title +score  chunk\n    Assignment statements", first, re.M)
    assert re.search(r"^    [123]\. The \"break\" statement", first, re.M)
    assert "Sources" in first
    assert re.search(r"^  \[1\] .+, characters \d+-\d+$", first, re.M)
    assert "pgstack down" in first
    assert "\x1b" not in first


def test_again_it_is_quick_and_embeds_nothing_anew(first: str, run: Run) -> None:
    began = time.monotonic()
    again = run("demo").stdout
    assert time.monotonic() - began < 60
    assert embedded(again) == 0
    assert re.search(r"^    0 new, 0 changed, \d\d unchanged documents", again, re.M)
    assert "is out of toner again." in again


def test_the_stack_runs_on_and_is_healthy(first: str, run: Run) -> None:
    status = json.loads(run("status", "--json").stdout)
    assert all(status[part]["running"] for part in ("postgres", "model_server", "worker"))
    report = run("doctor", "--json", code=0)
    findings = json.loads(report.stdout)["findings"]
    troubles = [f for f in findings if f["state"] != "ok"]
    # The large model was not fetched.
    assert [f["name"] for f in troubles] in ([], ["model"]), troubles
    assert (
        run("psql", "-Atc", "select count(*) > 60 from pgstack_collections.python_docs").stdout
        == "t\n"
    )
    assert run("url").stdout.startswith("postgresql://")


@pytest.mark.parametrize("options", [(), ("--stream",)])
def test_a_question_of_ones_own(first: str, run: Run, options: tuple[str, ...]) -> None:
    done = run(
        "ask", "python_docs", "What does the nonlocal statement do?", "--model", SMALL, "--json",
        *options,
    )  # fmt: skip
    last: dict[str, Any] = (
        json.loads(done.stdout.splitlines()[-1]) if options else json.loads(done.stdout)
    )
    assert last["model"] == SMALL
    assert len(last["answer"]) > 20
    assert "nonlocal" in last["citations"][0]["chunk"]


def test_the_model_that_is_missing_is_named_with_its_command(first: str, run: Run) -> None:
    done = run("ask", "python_docs", "Why?", "--model", "qwen2.5-coder:0.5b", code=1)
    assert "hint: pgstack model pull qwen2.5-coder:0.5b" in done.stderr


def test_up_changes_nothing_that_runs(first: str, run: Run) -> None:
    before = json.loads(run("status", "--json").stdout)
    done = run("up")
    after = json.loads(run("status", "--json").stdout)
    assert "pgstack down" in done.stderr
    for part in ("postgres", "model_server", "worker"):
        assert after[part]["pid"] == before[part]["pid"], part


def test_logs_of_every_part(first: str, run: Run) -> None:
    for who in ("postgres", "worker", "models"):
        assert run("logs", who, "-n", "1").stdout.count("\n") == 1
