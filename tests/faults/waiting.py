"""Waiting for a condition, with a deadline that says what was waited for."""

from __future__ import annotations

import time
from collections.abc import Callable


def wait_for(
    condition: Callable[[], object],
    what: str,
    *,
    seconds: float = 30,
    explain: Callable[[], str] = str,
) -> None:
    """Return once ``condition`` holds; fail with ``what`` and what ``explain`` adds."""
    until = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > until:
            raise AssertionError(f"waited {seconds:g} s in vain until {what}\n{explain()}")
        time.sleep(0.02)
