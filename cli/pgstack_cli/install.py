"""``pgstack install`` and ``pgstack doctor``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from pgstack_cli.options import AsJson, DatabaseUrl
from pgstack_cli.output import json_document, message, result

if TYPE_CHECKING:
    from pgstack.install import InstallReport, Step

MARKS = {"ok": "ok  ", "warning": "warn", "error": "FAIL"}


def install(url: DatabaseUrl = None) -> None:
    """Install or upgrade pgstack in a database.

    PostgreSQL 15 to 18 with pgvector. Safe to repeat; a failure leaves the database as it was.

    \b
    Examples:
      pgstack install
      pgstack install -d postgresql://owner@db.example.org/shop
    """
    from pgstack import target
    from pgstack.install import install as install_into

    with target.connect(url, autocommit=False) as conn:
        report = install_into(conn, progress=print_step)
    print_warnings(report)
    message(f"pgstack {report.version} is ready. Next: pgstack doctor")


def print_step(step: Step) -> None:
    """Print one step of an installation as it happens."""
    result(f"{step.name:<30} {step.did:<10} {step.detail}".rstrip())


def print_warnings(report: InstallReport) -> None:
    """Print what a DBA still has to do."""
    for warning in report.warnings:
        message(f"warning: {warning}")


def doctor(url: DatabaseUrl = None, as_json: AsJson = False) -> None:
    """Check everything; say what is wrong and how to mend it.

    Each finding names the command that mends it. Exit code 1 when something is wrong.
    --json: one document, {"ok": bool, "findings": [{"name", "state", "detail", "mend"}]};
    state is ok, warning or error.

    \b
    Examples:
      pgstack doctor
      pgstack doctor -d postgresql://me@db.example.org/shop
      pgstack doctor --json
    """
    from pgstack import doctor as library

    findings = []
    for finding in library.examine(url):
        findings.append(finding)
        if not as_json:
            result(f"{MARKS[finding.state]}  {finding.name}: {finding.detail}")
            if finding.mend:
                result(f"      mend: {finding.mend}")
    errors = sum(finding.state == "error" for finding in findings)
    warnings = sum(finding.state == "warning" for finding in findings)
    if as_json:
        json_document({"ok": errors == 0, "findings": [vars(finding) for finding in findings]})
    elif errors or warnings:
        message(f"{errors} errors, {warnings} warnings")
    else:
        message("all is well")
    if errors:
        raise typer.Exit(1)
