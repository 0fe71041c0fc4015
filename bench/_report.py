"""What every benchmark shares: medians, the table, the JSON file (docs: design of bench/)."""

from __future__ import annotations

import json
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

OUT = Path(__file__).parent / "out"


@dataclass(frozen=True)
class Case:
    """One line of a result: ours beside the peer's, and ours / peer."""

    case: str
    ours: float
    peer: float
    unit: str
    runs: int

    @property
    def ratio(self) -> float:
        """Return ours / peer."""
        return self.ours / self.peer


def times_ms(call: Callable[[int], object], runs: int) -> list[float]:
    """Return how long each of ``runs`` calls took, in milliseconds, after one to warm up."""
    call(-1)
    times = []
    for i in range(runs):
        began = time.perf_counter()
        call(i)
        times.append((time.perf_counter() - began) * 1000)
    return times


def median(values: Sequence[float]) -> float:
    """Return the median, rounded to a microsecond of a millisecond."""
    return round(statistics.median(values), 3)


def report(name: str, peer: str, cases: Sequence[Case], packages: Sequence[str]) -> None:
    """Print the table with versions, and write ``bench/out/<name>.json``."""
    width = max([56, *(len(case.case) for case in cases)])
    print(f"{'case':{width}} {'ours':>10} {peer[:20]:>20} {'ratio':>7} unit")
    for case in cases:
        print(
            f"{case.case:{width}} {case.ours:10.3f} {case.peer:20.3f} {case.ratio:7.2f} {case.unit}"
        )
    versions = ", ".join(f"{package} {version(package)}" for package in packages)
    print(f"Python {platform.python_version()}, {versions}")
    OUT.mkdir(exist_ok=True)
    rows = [asdict(case) | {"ratio": round(case.ratio, 3)} for case in cases]
    (OUT / f"{name}.json").write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")
