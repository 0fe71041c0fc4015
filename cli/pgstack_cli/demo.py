"""``pgstack demo``."""

from __future__ import annotations

import typer


def demo() -> None:
    """To come.

    \b
    Examples:
      pgstack demo
    """
    raise typer.Exit(1)
