"""Look for security mistakes in sql/ with pgspot: unqualified names, unpinned search paths.

pgspot sees each file as the installer sends it: extension schemas filled in, after
the schemas were created and the search path was pinned.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from pgstack import sqlfiles

# What the installer has done before it sends the first file (pgstack/install.py); pgspot
# then knows that these schemas are ours, and that nobody else may create in them.
PREAMBLE = (
    "create schema pgstack; create schema _pgstack; create schema ai;"
    " set search_path = pg_catalog, pg_temp; "
)

# Findings that are meant, with the reason.  pgspot's codes only look like our SQLSTATEs.
IGNORED: dict[str, str] = {}

# Functions that may go without a pinned search_path: hot ones that PostgreSQL must inline.
INLINED: tuple[str, ...] = ()


def pgspot(sql: str, *options: str) -> subprocess.CompletedProcess[str]:
    """Run pgspot on one text."""
    command = [sys.executable, "-m", "pgspot", *options]
    for code in IGNORED:
        command += ["--ignore", code]
    for function in INLINED:
        command += ["--proc-without-search-path", function]
    return subprocess.run(command, input=sql, capture_output=True, text=True, check=False)


def main() -> int:
    """Check every file; return 1 when one has a finding."""
    failed = False
    for name in sqlfiles.names():
        sql = PREAMBLE + sqlfiles.read(name, {"vector": "public"})
        result = pgspot(sql)
        if "ParseError" in result.stderr:
            # PostgreSQL's parser, used alone, does not know our tables' row types and
            # gives up on some PL/pgSQL bodies; what is outside of bodies is still checked.
            result = pgspot(sql, "--no-plpgsql")
        if result.returncode:
            failed = True
            print(f"{Path('sql') / name}\n{result.stdout}{result.stderr}", file=sys.stderr)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
