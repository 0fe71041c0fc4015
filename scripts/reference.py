"""Write docs/reference/ from what the product says about itself.

    .venv/bin/python scripts/reference.py              # write the pages
    .venv/bin/python scripts/reference.py --check      # exit 1 when one is out of date
    .venv/bin/python scripts/reference.py -d URL       # read that database

sql.md        the comments in an installed database
cli.md        the Typer application's own help
errors.md     the classes of pgstack/errors.py
settings.md   _pgstack.setting_catalogue() and ENVIRONMENT below

Without -d an embedded PostgreSQL is started in a temporary folder and stopped again.
"""

from __future__ import annotations

import argparse
import difflib
import inspect
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pgstack import db, errors, install, sqlfiles

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "docs" / "reference"
NOTE = "<!-- Written by scripts/reference.py: do not edit. -->\n"

# Every environment variable that pgstack reads; tests/unit/test_docs.py finds forgotten ones.
ENVIRONMENT = {
    "PGSTACK_DATABASE_URL": "The database of commands without `-d`. Default: the embedded stack.",
    "PGSTACK_HOME": "Where the embedded stack lives. Default: `~/.local/share/pgstack`;"
    " for root `/var/lib/pgstack`.",
    "OLLAMA_HOST": "A model server to use instead of the embedded one, such as"
    " `http://127.0.0.1:11434`.",
    "PGSTACK_DEBUG": "Set to 1: errors of the command line come with a traceback.",
    "PGSTACK_DEMO_MODEL": "The model that answers in `pgstack demo`. The quick one:"
    " `smollm2:135m`.",
    "PGSTACK_PYTHON": "The Python of `make setup`. Default: the newest found, 3.12 or later.",
    "PGSTACK_TEST_MODELS": "Where the tests keep models. Default: `.cache/models`.",
    "PGSTACK_TEST_SERVER": "The tests' PostgreSQL, as the URI of a superuser. Default: an embedded"
    " one.",
}


def prose(text: str) -> str:
    """Return a comment as Markdown: its lines stay lines, nothing in it is markup."""
    text = text.strip().replace("&", "&amp;").replace("<", "&lt;")
    text = re.sub(r"([*`\\\[\]]|(?<!\w)_)", r"\\\1", text)
    return "  \n".join(line.strip() for line in text.splitlines())


def cell(text: str) -> str:
    """Return text that fits into one cell of a table."""
    return " ".join(text.split()).replace("|", "\\|")


def table(header: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """Return a Markdown table."""
    lines = [header, tuple("---" for _ in header), *rows]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


# ------------------------------------------------------------------------------ SQL


def families() -> dict[str, list[str]]:
    """Return each family of sql/ with the functions and views that its files create."""
    found: dict[str, list[str]] = {}
    for name in sqlfiles.names():
        text = sqlfiles.read(name, {})
        opening = " ".join(re.match(r"(?:--.*\n)+", text)[0].replace("--", "").split())  # type: ignore[index]
        family = re.search(r"\bFamily: (.+?)\.(?=\s|$)", opening)
        created = re.findall(
            r"^\s*create or replace (?:function|view)\s+((?:pgstack|ai)\.\w+)", text, re.M
        )
        if family and created:
            found.setdefault(family[1], []).extend(dict.fromkeys(created))
    return found


def signature(name: str, arguments: str, result: str) -> str:
    """Return a function's head in our style, one argument a line when it is long."""
    arguments = re.sub(r" DEFAULT NULL::[^,]+", " default null", arguments)
    arguments = re.sub(r" DEFAULT ('[^']*'|[^,:]+)(::[^,]+)?", r" default \1", arguments)
    result = re.sub(r"^TABLE\((.*)\)$", r"table (\1)", result)
    head = f"{name}({arguments}) returns {result}"
    if len(head) <= 100:
        return head
    # A comma inside parentheses or a quoted default separates no arguments.
    comma = re.compile(r", (?=(?:[^']*'[^']*')*[^']*$)(?![^()]*\))")
    lines = ",\n  ".join(comma.split(arguments))
    if arguments:
        lines = f"\n  {lines}\n"
    if len(result) > 90:
        result = "table (\n  " + ",\n  ".join(comma.split(result[7:-1])) + "\n)"
    return f"{name}({lines}) returns {result}"


def functions(conn: db.Connection) -> dict[str, list[str]]:
    """Return the Markdown of every function, by its qualified name."""
    rows = conn.execute(
        """
        select n.nspname || '.' || p.proname, pg_get_function_arguments(p.oid),
          coalesce(pg_get_function_result(p.oid), 'nothing'), obj_description(p.oid, 'pg_proc')
        from pg_proc as p join pg_namespace as n on n.oid = p.pronamespace
        where n.nspname in ('pgstack', 'ai') and p.prorettype <> 'trigger'::regtype
          and p.proname not like '\\_%'
          and (n.nspname = 'pgstack' or obj_description(p.oid, 'pg_proc') is not null)
        order by 1, 2
        """
    )
    found: dict[str, list[str]] = {}
    for name, arguments, result, comment in rows:
        head = signature(name, arguments, result)
        found.setdefault(name, []).append(f"```sql\n{head}\n```\n\n{prose(comment or '')}\n")
    return found


def views(conn: db.Connection) -> dict[str, list[str]]:
    """Return the Markdown of every view, by its qualified name."""
    rows = conn.execute(
        """
        select 'pgstack.' || c.relname, obj_description(c.oid, 'pg_class'), array_agg(
          array[
            a.attname::text, -- a name would cut the others to its 63 bytes
            format_type(a.atttypid, a.atttypmod), col_description(c.oid, a.attnum)
          ]
          order by a.attnum
        )
        from pg_class as c
        join pg_attribute as a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
        where c.relnamespace = 'pgstack'::regnamespace and c.relkind = 'v'
        group by c.oid, c.relname
        order by 1
        """
    )
    found = {}
    for name, comment, columns in rows:
        body = [(f"`{c}`", kind, cell(prose(text or ""))) for c, kind, text in columns]
        found[name] = [
            f"A view. {prose(comment or '')}\n\n" + table(("column", "type", "what"), body)
        ]
    return found


def sql_page(conn: db.Connection) -> str:
    """Return sql.md."""
    # Names are shown as a person writes them whose vector extension is in public.
    conn.execute("set local search_path = pg_catalog, public")
    objects = {**functions(conn), **views(conn)}
    page = [
        NOTE,
        "# SQL reference\n",
        "Everything in schema `pgstack`, which keeps its names and signatures within a minor"
        " release, and the functions in pgai's own spelling. Errors: [errors](errors.md).\n",
    ]
    for family, names in families().items():
        here = [name for name in names if name in objects]
        if here:
            is_name = family.startswith("pgai")
            page.append(f"## {family if is_name else family[0].upper() + family[1:]}\n")
        for name in here:
            page.append(f"### {name}\n")
            page.extend(objects.pop(name))
    forgotten = [name for name in objects if name.startswith("pgstack.")]
    if forgotten:
        raise SystemExit(f"no file of sql/ creates {', '.join(forgotten)}")
    return "\n".join(page)


# ------------------------------------------------------------------------------ CLI


def parameters(command: Any, path: str) -> list[tuple[str, str]]:
    """Return how each argument and option is written, and its help, as --help shows them."""
    context = command.context_class(command, info_name=path)
    records = (param.get_help_record(context) for param in command.params)
    return [(f"`{cell(written)}`", cell(text)) for written, text in filter(None, records)]


def help_text(text: str) -> str:
    """Return a command's help: what is indented in it is an example, shown as code."""
    text = re.sub("\b\n?", "", inspect.cleandoc(text))
    blocks = re.sub(r"(?m)((?:^  .*\n?)+)", lambda m: f"\n```sh\n{m[1].rstrip()}\n```\n", text)
    return re.sub(r"(?m)^  ", "", blocks).rstrip()


def commands(command: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Yield every command with its full name, groups before what is in them."""
    yield path, command
    for name, child in getattr(command, "commands", {}).items():
        if not child.hidden:
            yield from commands(child, f"{path} {name}")


def application() -> Any:
    """Return the CLI as a click command."""
    import typer
    from pgstack_cli.app import app

    return typer.main.get_command(app)


def cli_page() -> str:
    """Return cli.md."""
    page = [
        NOTE,
        "# Command reference\n",
        "Results go to stdout, messages to stderr. Exit codes: 0 ok, 1 failed, 2 wrong usage,"
        " 3 not reachable. The same text: `pgstack COMMAND --help`.\n",
    ]
    for path, command in commands(application(), "pgstack"):
        page.append(f"## {path}\n")
        page.append(help_text(command.help or "") + "\n")
        described = parameters(command, path)
        if described:
            page.append(table(("argument or option", "what"), described))
    return "\n".join(page)


# --------------------------------------------------------------- errors and settings


def errors_page() -> str:
    """Return errors.md."""
    with_code, without = [], []
    for cls in errors.PgstackError.__subclasses__():
        meaning = cell(inspect.getdoc(cls) or "")
        row = (f"`{cls.__name__}`", meaning, str(cls.exit_code))
        if cls.sqlstate:
            with_code.append((f"`{cls.sqlstate}`", *row))
        else:
            without.append(row)
    return "\n".join(
        [
            NOTE,
            "# Errors\n",
            "Every error says what is wrong; its HINT names the next command. SQL functions raise"
            " the SQLSTATEs below, Python raises the class, the command line ends with the exit"
            " code.\n",
            table(("SQLSTATE", "class", "meaning", "exit code"), sorted(with_code)),
            "Raised outside the database only:\n",
            table(("class", "meaning", "exit code"), sorted(without)),
            "In PL/pgSQL: `exception when sqlstate 'PS003' then ...`. In Python:"
            " `except pgstack.errors.NoWorker as error: print(error.hint)`.\n",
        ]
    )


def settings_page(conn: db.Connection) -> str:
    """Return settings.md."""
    rows = conn.execute(
        "select name, default_value, description from _pgstack.setting_catalogue() order by name"
    ).fetchall()
    body = [
        (f"`{name}`", f"`{default}`" if default else "empty", cell(prose(text)))
        for name, default, text in rows
    ]
    variables = [(f"`{name}`", cell(text)) for name, text in sorted(ENVIRONMENT.items())]
    return "\n".join(
        [
            NOTE,
            "# Settings\n",
            "For a whole database: `select pgstack.configure('NAME', 'VALUE')`; `null` puts the"
            " default back. For a session: `set pgstack.NAME = 'VALUE'`; for a role:"
            " `alter role ... set pgstack.NAME = 'VALUE'`. What is in force:"
            " `select * from pgstack.settings`.\n",
            table(("setting", "default", "what"), body),
            "## Environment variables\n",
            table(("variable", "what"), variables),
        ]
    )


def pages(conn: db.Connection) -> dict[str, str]:
    """Return every page by its file name.  Reads the database and changes nothing in it."""
    return {
        "sql.md": sql_page(conn),
        "cli.md": cli_page(),
        "errors.md": errors_page(),
        "settings.md": settings_page(conn),
    }


def differences(conn: db.Connection, folder: Path = FOLDER) -> str:
    """Return how the pages in the folder differ from what they should be, as a diff."""
    diff: list[str] = []
    for name, wanted in pages(conn).items():
        path = folder / name
        have = path.read_text(encoding="utf-8") if path.exists() else ""
        diff += difflib.unified_diff(
            have.splitlines(True), wanted.splitlines(True), f"docs/reference/{name}", "generated"
        )
    return "".join(diff)


@contextmanager
def database(dsn: str | None) -> Iterator[db.Connection]:
    """Open a database that pgstack is installed in: the one named, or one made for this."""
    if dsn:
        with db.connect(dsn) as conn:
            yield conn
        return
    from pgstack.embedded import postgres
    from pgstack.embedded.home import Home

    folder = Path(tempfile.mkdtemp(prefix="pgstack-reference-"))
    folder.chmod(0o755)  # as root, the server runs under another user
    home = Home(folder)
    try:
        postgres.start(home)
        with db.connect(postgres.dsn(home)) as conn:
            install.install(conn)
            yield conn
    finally:
        postgres.stop(home)
        shutil.rmtree(folder, ignore_errors=True)


def main() -> int:
    """Write or check the pages."""
    parser = argparse.ArgumentParser(description="Write docs/reference/.")
    parser.add_argument("-d", "--database-url")
    parser.add_argument("--check", action="store_true", help="exit 1 when a page is out of date")
    options = parser.parse_args()
    with database(options.database_url) as conn:
        if options.check:
            diff = differences(conn)
            sys.stdout.write(diff)
            return int(bool(diff))
        FOLDER.mkdir(parents=True, exist_ok=True)
        for name, text in pages(conn).items():
            (FOLDER / name).write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
