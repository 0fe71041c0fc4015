"""The entry point of ``pgstack`` and of ``python -m pgstack_cli``."""

from __future__ import annotations

import sys
from io import TextIOWrapper

from pgstack.collector import look_seldom


def main() -> None:
    """Run the command line and exit with its code."""
    look_seldom()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # a terminal that cannot show a letter is no error
            stream.reconfigure(errors="backslashreplace")
    try:
        from pgstack_cli.app import app

        app(prog_name="pgstack")
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
