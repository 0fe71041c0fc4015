"""Figures, verdicts and remarks that the cases of bench/search.py collect."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from bench._report import Case, report


@dataclass(frozen=True)
class Goal:
    """What was aimed at, what came out."""

    text: str
    figure: str
    reached: bool


@dataclass
class Results:
    """What was measured so far."""

    cases: list[Case] = field(default_factory=list)
    goals: list[Goal] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(self, case: str, ours: float, peer: float, unit: str, runs: int) -> None:
        """Add a line to the table."""
        self.cases.append(Case(case, round(ours, 4), round(peer, 4), unit, runs))

    def goal(self, text: str, figure: str, *, reached: bool) -> None:
        """Add a verdict."""
        self.goals.append(Goal(text, figure, reached))

    def note(self, text: str) -> None:
        """Add a remark, and show it now."""
        self.notes.append(text)
        print(text, flush=True)

    def print(self, name: str, peer: str, packages: Sequence[str]) -> None:
        """Print the table, the remarks and the verdicts; write the JSON."""
        print()
        report(name, peer, self.cases, packages)
        for note in self.notes:
            print(note)
        for goal in self.goals:
            reached = "reached" if goal.reached else "NOT reached"
            print(f"goal {goal.text}: {goal.figure} ... {reached}")
