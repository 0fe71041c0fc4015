"""Install or upgrade pgstack in a database.

In order: extensions (``extensions/``), pgai's catalogue (schema ``ai``), tables
(Alembic), functions and views (``sql/``), privileges; all in one transaction, behind
an advisory lock, so that two installs at once take turns and a failure leaves the
database as it was.  The bridge's login is tried out after the commit, because a new
role is invisible to other sessions before it.

Raises :class:`~pgstack.errors.InstallError` with the command that mends it.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql

from pgstack import __version__, sqlfiles
from pgstack.db import LOCK_CLASS, LOCK_INSTALL, Connection, execute_script
from pgstack.errors import InstallError
from pgstack.roles import install_bridge, install_roles

OLDEST, NEWEST = 15, 18
TRIES = 5


@dataclass(frozen=True)
class Step:
    """One thing the installer looked at and what it did: created, upgraded, kept, skipped."""

    name: str
    did: str
    detail: str = ""


@dataclass(frozen=True)
class InstallReport:
    """What :func:`install` did, in order, and what a DBA still has to do."""

    version: str
    steps: list[Step] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Extension:
    """An extension as the server and this database have it."""

    available: str | None
    installed: str | None
    schema: str | None


def install(
    conn: Connection, *, progress: Callable[[Step], None] = lambda step: None
) -> InstallReport:
    """Install or upgrade pgstack in the database of ``conn``; commit; report.

    ``conn`` must be outside a transaction and not in autocommit mode.
    """
    if conn.autocommit:
        raise ValueError("install() needs a connection that is not in autocommit mode")
    report = InstallReport(version=__version__)

    def done(name: str, did: str, detail: str = "") -> None:
        step = Step(name, did, detail)
        report.steps.append(step)
        progress(step)

    with _explained():
        for attempt in range(1, TRIES + 1):
            try:
                with _one_transaction(conn) as sa_connection:
                    _install_objects(conn, sa_connection, done, report.warnings)
                break
            except psycopg.errors.DeadlockDetected:  # with sessions that use what is replaced
                if attempt == TRIES:
                    raise
                report.steps.clear()
                report.warnings.clear()
    has_dblink = "dblink" in extension_schemas(conn)
    done("bridge", *install_bridge(conn, report.warnings, has_dblink=has_dblink))
    return report


def _install_objects(
    conn: Connection, sa_connection: Any, done: Callable[..., None], warnings: list[str]
) -> None:
    """Do all that stands in one transaction."""
    _check_server(conn)
    conn.execute("select pg_advisory_xact_lock(%s, %s)", (LOCK_CLASS, LOCK_INSTALL))
    # Notices of "already exists, skipping" are noise to the person installing.
    conn.execute("set local client_min_messages = warning")
    before = installed_version(conn)
    _check_version(before)
    _lock_views(conn)
    for recipe in sqlfiles.recipes():
        done(f"extension {recipe.name}", *_install_extension(conn, recipe))
    schemas = extension_schemas(conn)
    _load_vector(conn, schemas["vector"])
    done("pgai", *_install_pgai(conn, schemas["vector"]))
    for schema in ("_pgstack", "pgstack"):
        _install_schema(conn, schema)
    done("tables", *_migrate(sa_connection, conn, schemas["vector"]))
    conn.execute("set local search_path = pg_catalog, pg_temp")  # nobody's objects are meant
    files = [name for name in sqlfiles.names() if sqlfiles.applies(name, schemas)]
    for name in files:
        execute_script(conn, sqlfiles.read(name, schemas))
    did = "created" if before is None else "kept" if before == __version__ else "upgraded"
    done("functions", did, f"{len(files)} files of sql/")
    done("roles", *install_roles(conn, warnings))


def installed_version(conn: Connection) -> str | None:
    """Return the version of pgstack in this database, or None."""
    row = conn.execute("select to_regclass('_pgstack.setting') is not null").fetchone()
    if row is None or not row[0]:
        return None
    row = conn.execute("select value from _pgstack.setting where name = 'version'").fetchone()
    return row[0] if row else None


def extensions(conn: Connection) -> dict[str, Extension]:
    """Return every extension a recipe names, as this server and database have it."""
    rows = conn.execute(
        """
        select r.name, a.default_version, e.extversion, n.nspname
        from unnest(%s::text[]) as r (name)
        left join pg_available_extensions as a on a.name = r.name
        left join pg_extension as e on e.extname = r.name
        left join pg_namespace as n on n.oid = e.extnamespace
        """,
        ([recipe.name for recipe in sqlfiles.recipes()],),
    ).fetchall()
    return {row[0]: Extension(row[1], row[2], row[3]) for row in rows}


def extension_schemas(conn: Connection) -> dict[str, str]:
    """Return the schema of each installed extension, by name."""
    rows = conn.execute(
        "select e.extname, n.nspname from pg_extension as e "
        "join pg_namespace as n on n.oid = e.extnamespace"
    ).fetchall()
    return dict(rows)


def version_key(text: str) -> tuple[int, ...]:
    """Return a version such as '0.8.2' as numbers that compare: (0, 8, 2)."""
    return tuple(int(part) for part in text.replace("-", ".").split(".") if part.isdigit())


@contextmanager
def _one_transaction(conn: Connection) -> Iterator[Any]:
    """Let SQLAlchemy own the transaction on ``conn``, so that Alembic takes part in it."""
    import sqlalchemy as sa
    from sqlalchemy.pool import StaticPool

    engine = sa.create_engine(
        "postgresql+psycopg://",
        creator=lambda: conn,
        poolclass=StaticPool,
        pool_reset_on_return=None,
    )
    # The engine is not disposed of: that would close the caller's connection.
    with engine.connect() as sa_connection, sa_connection.begin():
        yield sa_connection


@contextmanager
def _explained() -> Iterator[None]:
    """Turn what PostgreSQL refuses during an install into an error with a hint."""
    try:
        yield
    except psycopg.errors.InsufficientPrivilege as exc:
        raise InstallError(
            f"the role may not do this: {exc.diag.message_primary}",
            hint="install as the database's owner: alter database NAME owner to ROLE",
        ) from exc
    except (psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected) as exc:
        raise InstallError(
            f"an object is in use: {exc.diag.message_primary}",
            hint="pgstack install   # once more, when the other session has finished",
        ) from exc


def _check_server(conn: Connection) -> None:
    major = conn.info.server_version // 10000
    if not OLDEST <= major <= NEWEST:
        raise InstallError(
            f"this server is PostgreSQL {major}; pgstack runs on {OLDEST} to {NEWEST}",
            hint="pgstack up   # a private PostgreSQL 17",
        )
    row = conn.execute("select pg_is_in_recovery(), getdatabaseencoding()").fetchone()
    if row and row[0]:
        raise InstallError(
            "this server is a standby and cannot be written to", hint="pgstack install -d PRIMARY"
        )
    if row and row[1] != "UTF8":
        raise InstallError(
            f"this database is encoded in {row[1]}; pgstack needs UTF8",
            hint="create database NAME encoding 'UTF8' template template0",
        )


def _check_version(installed: str | None) -> None:
    if installed is not None and version_key(installed) > version_key(__version__):
        raise InstallError(
            f"this database has pgstack {installed}, which is newer than this package's "
            f"{__version__}",
            hint="pip install --upgrade pgstack",
        )


def _lock_views(conn: Connection) -> None:
    """Lock the views that will be replaced in the order in which queries do, public ones first.

    Taken one by one as they are replaced, a session in the middle of a query would hold one
    and want another: a deadlock.  ``lock table`` would lock the tables below them as well.
    """
    rows = conn.execute(
        "select n.nspname, c.relname from pg_class as c "
        "join pg_namespace as n on n.oid = c.relnamespace "
        "where n.nspname in ('pgstack', '_pgstack') and c.relkind = 'v' "
        "and c.relowner = current_user::regrole "
        "order by n.nspname desc, c.relname"
    ).fetchall()
    for view in rows:
        conn.execute(
            sql.SQL("alter view {} set (security_invoker = true)").format(sql.Identifier(*view))
        )


def _load_vector(conn: Connection, schema: str) -> None:
    """Load the library: before that only a superuser may name its settings in a function."""
    conn.execute(
        sql.SQL("select {}.vector_dims('[0]'::{}.vector)").format(
            sql.Identifier(schema), sql.Identifier(schema)
        )
    )


def _install_schema(conn: Connection, schema: str) -> None:
    """Create a schema; refuse one of somebody else, who could replace what stands in it."""
    row = conn.execute(
        "select nspowner::regrole::text, nspowner = current_user::regrole "
        "from pg_namespace where nspname = %s",
        (schema,),
    ).fetchone()
    if row is None:
        conn.execute(sql.SQL("create schema {}").format(sql.Identifier(schema)))
    elif not row[1]:
        raise InstallError(
            f"the schema {schema} belongs to {row[0]}",
            hint=f"install as {row[0]}; if the schema is none of pgstack's: drop schema {schema}",
        )


def _install_extension(conn: Connection, recipe: sqlfiles.Recipe) -> tuple[str, str]:
    found = extensions(conn)[recipe.name]
    if found.installed is not None:
        if version_key(found.installed) >= version_key(recipe.minimum):
            return "kept", found.installed
        return _update_extension(conn, recipe, found)
    if found.available is None:
        return _absent(recipe, "not available on this server", f"install {recipe.name} there")
    try:
        with conn.transaction():
            execute_script(conn, recipe.install_sql())
    except psycopg.Error as exc:
        reason = (exc.diag.message_primary or str(exc)).strip()
        return _absent(recipe, reason, f"as a superuser: create extension {recipe.name}")
    return "created", found.available


def _update_extension(
    conn: Connection, recipe: sqlfiles.Recipe, found: Extension
) -> tuple[str, str]:
    try:
        with conn.transaction():
            conn.execute(sql.SQL("alter extension {} update").format(sql.Identifier(recipe.name)))
    except psycopg.Error as exc:
        reason = (exc.diag.message_primary or str(exc)).strip()
        hint = f"as its owner: alter extension {recipe.name} update"
        return _absent(recipe, f"{found.installed} is older than {recipe.minimum}: {reason}", hint)
    now = extensions(conn)[recipe.name].installed or ""
    if version_key(now) < version_key(recipe.minimum):
        return _absent(
            recipe, f"{now} is older than {recipe.minimum}", f"install a newer {recipe.name}"
        )
    return "upgraded", f"{found.installed} -> {now}"


def _absent(recipe: sqlfiles.Recipe, reason: str, hint: str) -> tuple[str, str]:
    if recipe.required:
        raise InstallError(f"extension {recipe.name}: {reason}", hint=hint)
    return "skipped", f"{reason}; without it {recipe.without}"


def _install_pgai(conn: Connection, vector_schema: str) -> tuple[str, str]:
    """Run pgai's own script inside our transaction.

    pgai.install() opens a connection of its own, which could not be undone together
    with the rest, and importing pgai takes about a second.
    """
    version = importlib.metadata.version("pgai")
    row = conn.execute("select to_regclass('ai.pgai_lib_version') is not null").fetchone()
    before = None
    if row and row[0]:
        found = conn.execute("select version from ai.pgai_lib_version where name = 'ai'").fetchone()
        before = found[0] if found else None
    if before is not None and version_key(before) >= version_key(version):
        return "kept", before
    script = _pgai_script().replace("@extschema:vector@", sqlfiles.quote_ident(vector_schema))
    execute_script(conn, script.replace("__version__", version))
    conn.execute("set local search_path to default")  # pgai's script sets its own
    return ("upgraded", f"{before} -> {version}") if before else ("created", version)


def _pgai_script() -> str:
    spec = importlib.util.find_spec("pgai")
    if spec is None or not spec.submodule_search_locations:
        raise InstallError("the Python package pgai is missing", hint="pip install pgstack")
    return (Path(spec.submodule_search_locations[0]) / "data" / "ai.sql").read_text("utf-8")


def _migrate(sa_connection: Any, conn: Connection, vector_schema: str) -> tuple[str, str]:
    from alembic.util import CommandError

    from pgstack import migrations

    before = _revision(conn)
    try:
        migrations.upgrade(sa_connection, vector_schema=vector_schema)
    except CommandError as exc:
        raise InstallError(
            f"the tables are of a revision that this package does not know: {exc}",
            hint="pip install --upgrade pgstack",
        ) from exc
    after = _revision(conn)
    if before == after:
        return "kept", f"revision {after}"
    return ("upgraded", f"{before} -> {after}") if before else ("created", f"revision {after}")


def _revision(conn: Connection) -> str | None:
    row = conn.execute("select to_regclass('_pgstack.alembic_version') is not null").fetchone()
    if row is None or not row[0]:
        return None
    row = conn.execute("select version_num from _pgstack.alembic_version").fetchone()
    return row[0] if row else None
