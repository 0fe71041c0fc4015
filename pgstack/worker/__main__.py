"""``python -m pgstack.worker``: the worker alone, as the embedded stack starts it."""

from __future__ import annotations

import sys

from pgstack.collector import look_seldom

if __name__ == "__main__":
    look_seldom()
    from pgstack.worker.command import main

    sys.exit(main())
