"""``pgstack audit``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from pgstack_cli.options import AsJson, DatabaseUrl
from pgstack_cli.output import json_document, message, result

if TYPE_CHECKING:
    from pgstack.audit import Reach

MARKS = {"leak": "LEAK", "wide": "wide", "ok": "ok  "}


def audit(
    role: Annotated[
        str | None,
        typer.Argument(help="A role of the database. Default: the one that connects."),
    ] = None,
    *,
    everything: Annotated[
        bool, typer.Option("--all", help="Also list what is as it should be.")
    ] = False,
    as_json: AsJson = False,
    url: DatabaseUrl = None,
) -> None:
    """Show what ROLE can reach through pgstack, and more than it should.

    A leak: texts, vectors or questions that ROLE may not read in their source. Wide: more
    than a reader needs, or what a later revoke would not close. Each comes with the SQL
    that closes it; nothing is changed. Exit code 1 when there is a leak.
    --json: one document, {"ok": bool, "findings": [{"severity", "object", "what", "how",
    "remedy"}]}, of all severities: leak, wide, ok.

    \b
    Examples:
      pgstack audit analyst
      pgstack audit analyst --all
      pgstack audit analyst --json
    """
    from pgstack import audit as library
    from pgstack import target

    with target.connect(url) as conn:
        found = library.audit_leaks(conn, role)
    leaks = sum(reach.severity == "leak" for reach in found)
    wide = sum(reach.severity == "wide" for reach in found)
    if as_json:
        json_document({"ok": leaks == 0, "findings": found})
    else:
        for reach in found:
            if everything or reach.severity != "ok":
                print_reach(reach)
        message(f"leaks: {leaks}, wide: {wide}" if leaks or wide else "no leak was found")
    if leaks:
        raise typer.Exit(1)


def print_reach(reach: Reach) -> None:
    """Print what a role reaches, how, and what closes it."""
    result(f"{MARKS[reach.severity]}  {reach.object}: {reach.what}")
    if reach.how:
        result(f"      how: {reach.how}")
    if reach.remedy:
        result(f"      mend: {reach.remedy}")
