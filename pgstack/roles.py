"""The roles that pgstack brings along, and the bridge's login.

    pgstack_owner   owns the definer functions; no superuser, cannot log in
    pgstack_bridge  the login of the bridge (sql/100_bridge.sql); may call three functions

Roles are the cluster's, not a database's: several installs may want them at once.

Raises :class:`~pgstack.errors.InstallError` for a role that may do more than it should.
"""

from __future__ import annotations

import contextlib
import secrets
from typing import Any, cast

import psycopg
from psycopg import sql

from pgstack import __version__
from pgstack.db import Connection
from pgstack.errors import InstallError

OWNER_ROLE = "pgstack_owner"
BRIDGE_ROLE = "pgstack_bridge"


def install_roles(conn: Connection, warnings: list[str]) -> tuple[str, str]:
    """Give the definer functions an owner that is no superuser, and the bridge a login."""
    row = conn.execute(
        "select rolsuper, rolcreaterole or rolsuper from pg_roles where rolname = current_user"
    ).fetchone()
    is_super, may_create = row if row else (False, False)
    did = "kept"
    for role, options in ((OWNER_ROLE, "nologin"), (BRIDGE_ROLE, "login")):
        if role == OWNER_ROLE and not is_super:
            continue
        if _has_role(conn, role):
            _check_role(conn, role)
            continue
        if not may_create:
            warnings.append(
                f"the role {role} is missing, so SQL functions cannot call models. "
                f"As an administrator: create role {role} {options}; then: pgstack install"
            )
            continue
        _create_role(conn, role, options)
        did = "created"
    if is_super:  # anybody can act as the bridge, and so change the settings of its role
        conn.execute(sql.SQL("alter role {} reset all").format(sql.Identifier(BRIDGE_ROLE)))
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
    return did, f"definer functions belong to {owner or 'the installing role'}"


def _create_role(conn: Connection, role: str, options: str) -> None:
    """Create a weak role, unless an install into another database of the cluster just did."""
    with (
        contextlib.suppress(psycopg.errors.DuplicateObject, psycopg.errors.UniqueViolation),
        conn.transaction(),
    ):
        conn.execute(
            sql.SQL("create role {} {} nosuperuser nocreatedb nocreaterole noreplication").format(
                sql.Identifier(role), sql.SQL(cast("Any", options))
            )
        )


def _check_role(conn: Connection, role: str) -> None:
    """Refuse a role that may more than it needs: every user of the database acts through it."""
    row = conn.execute(
        "select rolsuper or rolcreaterole or rolcreatedb or rolreplication or rolbypassrls "
        "from pg_roles where rolname = %s",
        (role,),
    ).fetchone()
    if row is not None and row[0]:
        raise InstallError(
            f"the role {role} may do too much",
            hint=f"alter role {role} nosuperuser nocreaterole nocreatedb noreplication nobypassrls",
        )


def _has_role(conn: Connection, role: str) -> bool:
    return conn.execute("select from pg_roles where rolname = %s", (role,)).fetchone() is not None


def install_bridge(conn: Connection, warnings: list[str], *, has_dblink: bool) -> tuple[str, str]:
    """Find a login for the bridge that works: no password over the socket, else one."""
    if not has_dblink:
        warnings.append(
            "the extension dblink is missing, so SQL functions cannot call models. "
            "As a superuser: create extension dblink; then: pgstack install"
        )
        return "skipped", "dblink is missing: SQL functions cannot call models"
    if not _has_role(conn, BRIDGE_ROLE):
        return "skipped", f"the role {BRIDGE_ROLE} is missing"
    problem = bridge_problem(conn)
    if problem is None:
        return "kept", _bridge_kind(conn)
    try:
        problems = _bridge_with_password(conn)
    except psycopg.Error as exc:
        conn.rollback()
        problems = [exc.diag.message_primary or str(exc)]
    if not problems:
        return "created", _bridge_kind(conn)
    conn.execute("drop server if exists pgstack_bridge cascade")
    mend = bridge_mend(conn)
    conn.commit()
    warnings.append(
        f"the bridge cannot log in: {problem}; with a password: {'; '.join(problems)}. {mend}"
    )
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


def bridge_mend(conn: Connection) -> str:
    """Return what lets the installing role give the bridge a password, and so a login."""
    row = conn.execute(
        """
        select rolsuper, rolsuper or rolcreaterole,
          has_foreign_data_wrapper_privilege(w.oid, 'usage'), quote_ident(rolname)
        from pg_roles left join pg_foreign_data_wrapper as w on w.fdwname = 'dblink_fdw'
        where rolname = current_user
        """
    ).fetchone()
    is_super, may_create, may_use, name = row if row else (False, False, False, "current_user")
    if is_super:
        return (
            f"Let {BRIDGE_ROLE} in, in pg_hba.conf, over the socket without a password, or let "
            "roles in with one; then: pgstack install"
        )
    steps = [] if may_use else [f"grant usage on foreign data wrapper dblink_fdw to {name}"]
    steps += [] if may_create else [f"alter role {name} createrole"]
    if not steps:
        return "Let roles in with a password, in pg_hba.conf; then: pgstack install"
    return f"As a superuser: {'; '.join(steps)}; then: pgstack install"


def _bridge_kind(conn: Connection) -> str:
    row = conn.execute(
        "select exists (select from pg_foreign_server where srvname = %s)", (BRIDGE_ROLE,)
    ).fetchone()
    conn.commit()
    return "logs in with a password of its own" if row and row[0] else "logs in over the socket"


def _bridge_with_password(conn: Connection) -> list[str]:
    """Give the bridge a role with a password, kept in a user mapping of one role.

    A role of this database's own, because other databases of the cluster may hold
    another password for theirs.  Returns what is wrong with each way in; nothing: one works.
    """
    row = conn.execute(
        "select oid::text, host(inet_server_addr()), "
        "current_setting('port') from pg_database where datname = current_database()"
    ).fetchone()
    if row is None:
        raise InstallError("this database is not in pg_database", hint="pgstack doctor")
    oid, address, port = row
    # Over a socket: pg_hba.conf may ask for no password there, or nothing listen on TCP.
    hosts = [address] if address else ["127.0.0.1", conn.info.host]
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
    problems = []
    for host in hosts:
        conn.execute(
            "select _pgstack.bridge_use_password(%s, %s, %s, %s)", (role, password, host, port)
        )
        conn.commit()
        problem = bridge_problem(conn)
        if problem is None:
            return []
        problems.append(problem)
    return problems
