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
    """Return once ``condition`` holds; fail with ``what`` and what ``explain`` adds.

    It is asked more seldom the longer it takes: most ask a database, in a new connection.
    """
    began = time.monotonic()
    while not condition():
        waited = time.monotonic() - began
        if waited > seconds:
            raise AssertionError(f"waited {seconds:g} s in vain until {what}\n{explain()}")
        time.sleep(min(max(0.02, waited / 10), 0.2))
