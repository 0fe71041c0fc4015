"""``make soak``: the faults suite again and again, with new dice each time.

    PGSTACK_SOAK_MINUTES=60   how long; beside it the endurance test runs as long
    PGSTACK_FAULT_RUNS=20     so many runs of the suite instead, without the endurance test

Arguments go to pytest.  Exit code 1 if anything failed; the last lines say how to repeat it.
"""

from __future__ import annotations

import os
import random
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

LOGS = Path("build/soak")
PYTEST = [sys.executable, "-m", "pytest", "--timeout=300", "tests/faults"]


def main(arguments: list[str]) -> int:
    """Run for the time, or the number of times, that the environment says."""
    LOGS.mkdir(parents=True, exist_ok=True)
    runs = int(os.environ.get("PGSTACK_FAULT_RUNS", "0"))
    minutes = float(os.environ.get("PGSTACK_SOAK_MINUTES", "60"))
    until = time.monotonic() + (float("inf") if runs else minutes * 60)
    failures: list[str] = []
    done = 0
    with endurance(failures, wanted=not runs):
        while time.monotonic() < until and (not runs or done < runs):
            done += 1
            failures += suite(done, arguments)
    print(f"\n{done} runs of the suite, {len(failures)} failures")
    print("\n".join(failures))
    return 1 if failures else 0


def suite(nr: int, arguments: list[str]) -> list[str]:
    """Run the suite once; return a line to repeat each failure with."""
    seed = random.SystemRandom().randrange(10**6)
    log = LOGS / f"run-{nr}.log"
    began = time.monotonic()
    with log.open("w") as output:
        done = subprocess.run(
            [*PYTEST, "-m", "not soak", *arguments],
            env={**os.environ, "PGSTACK_FAULT_SEED": str(seed)},
            stdout=output,
            stderr=subprocess.STDOUT,
            check=False,
        )
    said = log.read_text()
    print(f"run {nr}: seed {seed}, {time.monotonic() - began:.0f} s, {said.splitlines()[-1]}")
    sys.stdout.flush()
    failed = re.findall(r"^(?:FAILED|ERROR) (\S+)", said, re.M)
    if done.returncode and not failed:
        failed = ["tests/faults"]
    return [f"PGSTACK_FAULT_SEED={seed} make test ARGS='{test}'   # {log}" for test in failed]


@contextmanager
def endurance(failures: list[str], *, wanted: bool) -> Iterator[None]:
    """Run the endurance test beside the block, and wait for its end."""
    if not wanted:
        yield
        return
    process = subprocess.Popen([*PYTEST, "-m", "soak", "--timeout=0", "-s"])
    try:
        yield
        if process.wait() != 0:
            failures.append("make soak   # the endurance test: see above")
    finally:
        process.terminate()
        process.wait()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
