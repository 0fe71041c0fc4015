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
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import psycopg
from psycopg import sql

from pgstack import __version__, sqlfiles
from pgstack.db import LOCK_CLASS, LOCK_INSTALL, Connection, execute_script
from pgstack.errors import InstallError

OLDEST, NEWEST = 15, 18
OWNER_ROLE = "pgstack_owner"
BRIDGE_ROLE = "pgstack_bridge"


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
    report = InstallReport(version=__version__)

    def done(name: str, did: str, detail: str = "") -> None:
        step = Step(name, did, detail)
        report.steps.append(step)
        progress(step)

    with _explained(), _one_transaction(conn) as sa_connection:
        _check_server(conn)
        conn.execute("select pg_advisory_xact_lock(%s, %s)", (LOCK_CLASS, LOCK_INSTALL))
        # Notices of "already exists, skipping" are noise to the person installing.
        conn.execute("set local client_min_messages = warning")
        for recipe in sqlfiles.recipes():
            done(f"extension {recipe.name}", *_install_extension(conn, recipe))
        schemas = extension_schemas(conn)
        done("pgai", *_install_pgai(conn, schemas["vector"]))
        conn.execute("create schema if not exists _pgstack")
        conn.execute("create schema if not exists pgstack")
        done("tables", *_migrate(sa_connection, conn, schemas["vector"]))
        files = [name for name in sqlfiles.names() if sqlfiles.applies(name, schemas)]
        for name in files:
            execute_script(conn, sqlfiles.read(name, schemas))
        done("functions", "created", f"{len(files)} files of sql/")
        done("roles", *_install_roles(conn, report.warnings))
    done("bridge", *_install_bridge(conn, report.warnings))
    return report


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
    except psycopg.errors.LockNotAvailable as exc:
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
    from pgstack import migrations

    before = _revision(conn)
    migrations.upgrade(sa_connection, vector_schema=vector_schema)
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


def _install_roles(conn: Connection, warnings: list[str]) -> tuple[str, str]:
    """Give the definer functions an owner that is no superuser, and the bridge a login."""
    row = conn.execute(
        "select rolsuper, rolcreaterole or rolsuper from pg_roles where rolname = current_user"
    ).fetchone()
    is_super, may_create = row if row else (False, False)
    for role, options in ((OWNER_ROLE, "nologin"), (BRIDGE_ROLE, "login")):
        if role == OWNER_ROLE and not is_super:
            continue
        if _has_role(conn, role):
            continue
        if not may_create:
            warnings.append(
                f"the role {role} is missing, so SQL functions cannot call models. "
                f"As an administrator: create role {role} {options}; then: pgstack install"
            )
            continue
        conn.execute(
            sql.SQL("create role {} {} nosuperuser nocreatedb nocreaterole noreplication").format(
                sql.Identifier(role), sql.SQL(cast("Any", options))
            )
        )
    owner = OWNER_ROLE if is_super else None
    bridge = BRIDGE_ROLE if _has_role(conn, BRIDGE_ROLE) else None
    conn.execute("select _pgstack.grant_privileges(%s, %s)", (owner, bridge))
    conn.execute(
        """
        insert into _pgstack.setting (name, value) values ('version', %s)
        on conflict (name) do update set value = excluded.value, updated_at = now()
        """,
        (__version__,),
    )
    return "kept", f"definer functions belong to {owner or 'the installing role'}"


def _has_role(conn: Connection, role: str) -> bool:
    return conn.execute("select from pg_roles where rolname = %s", (role,)).fetchone() is not None


def _install_bridge(conn: Connection, warnings: list[str]) -> tuple[str, str]:
    """Find a login for the bridge that works: no password over the socket, else one."""
    if "dblink" not in extension_schemas(conn):
        return "skipped", "dblink is missing: SQL functions cannot call models"
    if not _has_role(conn, BRIDGE_ROLE):
        return "skipped", f"the role {BRIDGE_ROLE} is missing"
    problem = bridge_problem(conn)
    if problem is None:
        return "kept", _bridge_kind(conn)
    try:
        _bridge_with_password(conn)
    except psycopg.Error as exc:
        conn.rollback()
        problem = f"{problem}; {exc.diag.message_primary or exc}"
    else:
        second = bridge_problem(conn)
        problem = second and f"{problem}; with a password: {second}"
    if problem is None:
        return "created", _bridge_kind(conn)
    conn.execute("drop server if exists pgstack_bridge cascade")
    conn.commit()
    warnings.append(f"the bridge cannot log in: {problem}. See: pgstack doctor")
    return "skipped", "the bridge cannot log in"


def bridge_problem(conn: Connection) -> str | None:
    """Try the bridge's connection; return what is wrong with it, or None."""
    try:
        with conn.transaction():
            conn.execute("select _pgstack.bridge_reset(), _pgstack.bridge_connect()")
            conn.execute("select _pgstack.bridge_reset()")
    except psycopg.Error as exc:
        return (exc.diag.message_detail or exc.diag.message_primary or str(exc)).strip()
    finally:
        if not conn.autocommit:
            conn.commit()
    return None


def _bridge_kind(conn: Connection) -> str:
    row = conn.execute(
        "select exists (select from pg_foreign_server where srvname = %s)", (BRIDGE_ROLE,)
    ).fetchone()
    conn.commit()
    return "logs in with a password of its own" if row and row[0] else "logs in over the socket"


def _bridge_with_password(conn: Connection) -> None:
    """Give the bridge a role with a password, kept in a user mapping of one role.

    A role of this database's own, because other databases of the cluster may hold
    another password for theirs.
    """
    row = conn.execute(
        "select oid::text, coalesce(host(inet_server_addr()), '127.0.0.1'), "
        "current_setting('port') from pg_database where datname = current_database()"
    ).fetchone()
    if row is None:
        raise InstallError("this database is not in pg_database", hint="pgstack doctor")
    oid, host, port = row
    role = f"{BRIDGE_ROLE}_{oid}"
    password = secrets.token_urlsafe(32)
    if not _has_role(conn, role):
        conn.execute(
            sql.SQL("create role {} login nosuperuser nocreatedb nocreaterole").format(
                sql.Identifier(role)
            )
        )
    hashed = conn.pgconn.encrypt_password(
        password.encode(), role.encode(), b"scram-sha-256"
    ).decode()
    conn.execute(
        sql.SQL("alter role {} password {}").format(sql.Identifier(role), sql.Literal(hashed))
    )
    conn.execute(
        "select _pgstack.bridge_use_password(%s, %s, %s, %s)", (role, password, host, port)
    )
    conn.commit()
