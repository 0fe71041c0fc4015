"""Look at everything pgstack stands on; say what is wrong and the command that mends it.

    examine(url)            all findings, of this machine and of one database
    examine_database(conn)  those of an open database alone

A finding is ok, a warning (something works less well) or an error (something does not
work).  Nothing is changed.  Each check stands alone: one that cannot be made is a finding
itself, and never keeps the others from being made.  The only function here that opens
a connection is :func:`examine`, because whether one can be opened is a check too.
"""

from __future__ import annotations

import importlib.metadata
import platform
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import psycopg

from pgstack import __version__, install, queries, roles, sqlfiles, target
from pgstack.db import Connection, connect
from pgstack.errors import PgstackError, translated

State = Literal["ok", "warning", "error"]

OLDEST_PYTHON = (3, 12)
LOOK_CLOSER = "pgstack logs   # says more"
REPAIR = "pgstack install   # puts back what is missing"
LOW_DISK, VERY_LOW_DISK = 2 * 10**9, 3 * 10**8  # bytes


@dataclass(frozen=True)
class Finding:
    """What one check found; ``mend`` is a command, or what to do in a few words."""

    name: str
    state: State
    detail: str
    mend: str | None = None


Findings = Iterator[Finding]


def examine(given: str | None = None) -> Findings:
    """Check this machine and the database that ``given`` names (None: the usual one)."""
    yield from _python()
    named = target.named_url(given)
    if named is None:
        yield from _guarded("embedded stack", _stack)
    try:
        conn = connect(target.database_url(given), autocommit=True)
    except PgstackError as exc:
        yield Finding("database", "error", str(exc), exc.hint)
        yield from _model_server_directly(blame="warning")
        return
    with conn:
        yield from examine_database(conn, option="" if given is None else " -d URL")


def examine_database(conn: Connection, *, option: str = "") -> Findings:
    """Check one database.  ``option`` stands behind the commands that mend it."""
    look = _Database(conn, option)
    for name, check in (
        ("database", look.server),
        ("extensions", look.extensions),
        ("pgai", look.pgai),
        ("pgstack", look.pgstack),
    ):
        yield from _guarded(name, check)
    if not look.installed:
        yield from _model_server_directly(blame="warning")
        return
    for name, check in (
        ("role", look.role),
        ("bridge", look.bridge),
        ("worker", look.worker),
        ("model server", look.models),
        ("vectorizers", look.vectorizers),
        ("leases", look.leases),
    ):
        yield from _guarded(name, check)


def _guarded(name: str, check: Callable[[], Findings]) -> Findings:
    """Make a check; one that fails is told as an error of its own."""
    try:
        with translated():
            yield from check()
    except PgstackError as exc:
        yield Finding(name, "error", str(exc), exc.hint or LOOK_CLOSER)
    except psycopg.errors.InsufficientPrivilege as exc:
        said = f"this role may not look: {exc.diag.message_primary}"
        yield Finding(name, "warning", said, "connect as the role that installed pgstack")
    except psycopg.Error as exc:
        said = exc.diag.message_primary or str(exc).strip()
        yield Finding(name, "error", f"cannot be checked: {said}", exc.diag.message_hint or REPAIR)


# -- this machine ----------------------------------------------------------------------


def _python() -> Findings:
    version = platform.python_version()
    if sys.version_info < OLDEST_PYTHON:
        yield Finding("python", "error", f"{version} is too old", "use Python 3.12 or later")
    else:
        yield Finding("python", "ok", f"{version}, {platform.system()} {platform.machine()}")


def _stack() -> Findings:
    try:
        from pgstack.embedded import stack
        from pgstack.embedded.home import default_home
    except ImportError as exc:
        yield Finding(
            "embedded stack", "error", f"not installed: {exc}", "pip install 'pgstack[embedded]'"
        )
        return
    if sys.platform != "linux" or platform.machine() not in ("x86_64", "aarch64"):
        yield Finding(
            "embedded stack", "error", "runs on Linux, x86-64 or aarch64", "name one: -d URL"
        )
        return
    found = stack.status(default_home())
    if found.postgres.running:
        yield Finding("embedded stack", "ok", f"PostgreSQL {found.version} runs in {found.home}")
        yield from _stack_part("model server process", found.model_server)
        yield from _stack_part("worker process", found.worker)
    else:
        yield Finding("embedded stack", "error", f"does not run ({found.home})", "pgstack up")
    yield _disk(found.home, found.disk_free)


def _stack_part(name: str, part: object) -> Findings:
    restarts = getattr(part, "restarts", 0)
    running = getattr(part, "running", False)
    note = getattr(part, "note", None)
    if running and restarts:
        log = "models" if name.startswith("model") else "worker"
        yield Finding(name, "warning", f"crashed {restarts} times", f"pgstack logs {log}")
    elif not running and note and "instead" not in note:
        yield Finding(name, "error", note, "pgstack up")


def _disk(home: str, free: int) -> Finding:
    said = f"{free / 1e9:.1f} GB free at {home}"
    if free < LOW_DISK:
        state: State = "error" if free < VERY_LOW_DISK else "warning"
        return Finding("disk", state, said, f"df -h {home}   # then free some space there")
    return Finding("disk", "ok", said)


def _model_server_directly(*, blame: State) -> Findings:
    """Ask the model server without a database in between."""
    from pgstack.models import BlockingModelServer, resolve_url

    try:
        with BlockingModelServer(resolve_url(), timeout=10) as server:
            names = [model["name"] for model in server.list()]
    except PgstackError as exc:
        yield Finding("model server", blame, str(exc), exc.hint)
    else:
        yield Finding("model server", "ok", f"{server.url}: {', '.join(names) or 'no models'}")


# -- a database ------------------------------------------------------------------------


@dataclass
class _Database:
    """The checks of one database, in the order in which they build on each other."""

    conn: Connection
    option: str
    installed: bool = False
    worker_present: bool = False
    bridge_works: bool = False

    @property
    def mend_install(self) -> str:
        return f"pgstack install{self.option}"

    def _row(self, query: str, *params: object) -> tuple[object, ...]:
        row = self.conn.execute(query.encode(), params or None).fetchone()
        return tuple(row) if row else (None,)

    def server(self) -> Findings:
        info = self.conn.info
        version = info.parameter_status("server_version") or "?"
        where = f"{info.dbname} as {info.user}, PostgreSQL {version}"
        if install.OLDEST <= info.server_version // 10000 <= install.NEWEST:
            yield Finding("database", "ok", where)
        else:
            yield Finding(
                "database",
                "error",
                f"{where}: pgstack needs {install.OLDEST} to {install.NEWEST}",
                "pgstack up   # starts a private PostgreSQL 17",
            )
        encoding = info.parameter_status("server_encoding")
        if encoding != "UTF8":
            yield Finding(
                "encoding",
                "error",
                f"{encoding}; pgstack needs UTF8",
                "create database NAME encoding 'UTF8' template template0",
            )

    def extensions(self) -> Findings:
        found = install.extensions(self.conn)
        for recipe in sqlfiles.recipes():
            yield self._extension(recipe, found[recipe.name])

    def _extension(self, recipe: sqlfiles.Recipe, found: install.Extension) -> Finding:
        name = f"extension {recipe.name}"
        bad: State = "error" if recipe.required else "warning"
        if found.installed is None or found.schema is None:
            if found.available is None:
                lacks, mend = "not on this server", f"install {recipe.name} on the server"
            else:
                lacks, mend = "not installed", self.mend_install
            return Finding(name, bad, f"{lacks}; without it {recipe.without}", mend)
        if install.version_key(found.installed) < install.version_key(recipe.minimum):
            old = f"{found.installed} is older than {recipe.minimum}"
            return Finding(name, bad, old, f"alter extension {recipe.name} update")
        problem = self._probe(recipe.probe_sql(found.schema))
        if problem is not None:
            said = f"{found.installed} does not work: {problem}; without it {recipe.without}"
            return Finding(name, bad, said, self.mend_install)
        return Finding(name, "ok", found.installed)

    def _probe(self, probe: str) -> str | None:
        try:
            works = self._row(probe)[0]
        except psycopg.Error as exc:
            return exc.diag.message_primary or str(exc).strip()
        return None if works else "its probe failed"

    def pgai(self) -> Findings:
        wanted = importlib.metadata.version("pgai")
        if self._row("select to_regclass('ai.pgai_lib_version') is not null")[0] is not True:
            yield Finding(
                "pgai", "error", "its catalogue (schema ai) is missing", self.mend_install
            )
            return
        found = self._row("select version from ai.pgai_lib_version where name = 'ai'")[0]
        if install.version_key(str(found)) < install.version_key(wanted):
            yield Finding("pgai", "warning", f"{found} is older than {wanted}", self.mend_install)
        else:
            yield Finding("pgai", "ok", str(found))

    def pgstack(self) -> Findings:
        version = install.installed_version(self.conn)
        if version is None:
            yield Finding("pgstack", "error", "not installed in this database", self.mend_install)
            return
        self.installed = True
        if install.version_key(version) > install.version_key(__version__):
            said = f"the database has {version}, newer than this {__version__}"
            yield Finding("pgstack", "error", said, "pip install --upgrade pgstack")
        elif version != __version__:
            said = f"the database has {version}, older than this {__version__}"
            yield Finding("pgstack", "error", said, self.mend_install)
        else:
            yield self._revision(version)

    def _revision(self, version: str) -> Finding:
        if not self._row(queries.REVISION_READABLE)[0]:
            return Finding("pgstack", "ok", version)
        from pgstack import migrations

        revision, newest = str(self._row(queries.REVISION)[0]), migrations.head()
        if revision == newest:
            return Finding("pgstack", "ok", f"{version}, tables at revision {revision}")
        said = f"{version}: tables at revision {revision}, the newest is {newest}"
        return Finding("pgstack", "error", said, self.mend_install)

    def role(self) -> Findings:
        user, sees_all, writes = self._row(queries.ROLE_RIGHTS)
        if writes and sees_all:
            yield Finding("role", "ok", f"{user} may create vectorizers and run a worker")
        elif writes:
            said = f"{user} may run a worker, but not over tables with row-level security"
            yield Finding("role", "warning", said, f'alter role "{user}" bypassrls')
        else:
            said = f"{user} may search and ask, but neither run a worker nor see its queues"
            yield Finding("role", "warning", said, "connect as the role that installed pgstack")

    def bridge(self) -> Findings:
        if "dblink" not in install.extension_schemas(self.conn):
            yield Finding(
                "bridge", "error", "dblink is missing: SQL cannot call models", self.mend_install
            )
            return
        problem = roles.bridge_problem(self.conn)
        self.bridge_works = problem is None
        if problem is None:
            yield Finding("bridge", "ok", "SQL functions reach the worker")
        else:
            yield Finding("bridge", "error", f"it cannot log in: {problem}", self.mend_install)

    def worker(self) -> Findings:
        self.worker_present = bool(self._row(queries.WORKER_PRESENT)[0])
        if self.worker_present:
            yield Finding("worker", "ok", "connected")
            return
        start = f"pgstack worker{self.option}" if self.option else "pgstack up"
        said = "none is connected: nothing is embedded, and SQL cannot call models"
        yield Finding("worker", "error", said, start)

    def models(self) -> Findings:
        if not (self.worker_present and self.bridge_works):
            yield from _model_server_directly(blame="warning")
            return
        rows = self.conn.execute(queries.MODELS).fetchall()
        names = [row[0] for row in rows]
        said = f"answers the worker: {', '.join(names) or 'no models'}"
        yield Finding("model server", "ok", said)
        for setting, blame in (("embedding_model", "error"), ("generation_model", "warning")):
            wanted = str(self._row(queries.SETTING, setting)[0])
            if not target.has_model(names, wanted):
                said = f"{wanted} (setting {setting}) is not on the model server"
                yield Finding(
                    "model",
                    "error" if blame == "error" else "warning",
                    said,
                    f"pgstack model pull {wanted}",
                )

    def vectorizers(self) -> Findings:
        rows = self.conn.execute(queries.VECTORIZER_HEALTH).fetchall()
        troubled = False
        for name, state, failed, error in rows:
            retry = f"pgstack vectorizer retry {name}{self.option}"
            if state == "blocked":
                troubled = True
                yield Finding(f"vectorizer {name}", "error", f"blocked: {error}", retry)
            elif failed:
                troubled = True
                said = f"{failed} rows failed; last: {error}"
                yield Finding(f"vectorizer {name}", "error", said, retry)
        if not troubled:
            yield Finding("vectorizers", "ok", f"{len(rows)}, none blocked, no failed rows")

    def leases(self) -> Findings:
        readable = self._row(queries.WORK_READABLE)[0]
        orphans = self._row(queries.ORPHANED_LEASES)[0] if readable else 0
        if orphans:
            said = f"{orphans} rows are held by workers that are gone"
            once = f"pgstack worker --once{self.option}"
            yield Finding("leases", "warning", said, f"{once}   # a running worker takes them over")
