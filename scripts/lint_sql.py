"""Look for security mistakes in sql/ with pgspot: unqualified names, unpinned search paths.

pgspot sees each file as the installer sends it: extension schemas filled in, after
the schemas were created and the search path was pinned.
"""

from __future__ import annotations

import re
import subprocess
import sys

import pglast

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
INLINED: tuple[str, ...] = (
    "_pgstack.content_version(content jsonb)",
    "_pgstack.key_digest(key jsonb)",
    "_pgstack.setting_catalogue(name text,default_value text,pattern text,description text)",
)


def pgspot(sql: str, *options: str) -> subprocess.CompletedProcess[str]:
    """Run pgspot on one text."""
    command = [sys.executable, "-m", "pgspot", *options]
    for code in IGNORED:
        command += ["--ignore", code]
    for function in INLINED:
        command += ["--proc-without-search-path", function]
    return subprocess.run(command, input=sql, capture_output=True, text=True, check=False)


def readable(sql: str) -> str:
    """Return the statements without the PL/pgSQL functions that pgspot cannot read.

    PostgreSQL's parser, used alone, does not know our tables' row types, and gives up on
    bodies that use the fields of one.
    """
    kept = []
    for statement in pglast.split(sql):
        try:
            if re.search(r"\blanguage plpgsql\b", statement):
                pglast.parse_plpgsql(statement)
        except pglast.parser.ParseError:
            continue
        kept.append(statement)
    return ";\n".join(kept) + ";"


def findings(sql: str) -> str:
    """Return what pgspot has to say about one file, empty when nothing."""
    whole = pgspot(sql)
    if "ParseError" not in whole.stderr:
        runs = [whole]
    else:
        runs = [pgspot(readable(sql)), pgspot(sql, "--no-plpgsql")]
    return "".join(run.stdout + run.stderr for run in runs if run.returncode)


def main() -> int:
    """Check every file; return 1 when one has a finding."""
    failed = False
    for name in sqlfiles.names():
        found = findings(PREAMBLE + sqlfiles.read(name, {"vector": "public"}))
        if found:
            failed = True
            print(f"sql/{name}\n{found}", file=sys.stderr)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
