"""Python's garbage collector, in our own programs; a library leaves it to whoever imports it."""

from __future__ import annotations

import atexit
import gc

ALLOCATIONS = 20_000  # between two looks; Python's own are 700 to 2,000


def look_seldom() -> None:
    """Have the collector look for cycles seldom, and not at all as the program ends.

    To be called before anything big is imported.  What imports make lives to the end, and an
    answer of the model server is hundreds of thousands of numbers, none of them in a cycle.
    """
    gc.set_threshold(ALLOCATIONS)
    atexit.register(gc.freeze)
