"""The embedded PostgreSQL in awkward places: paths, users, disks."""

from __future__ import annotations

import os
import pwd
import shutil
import stat
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from pgstack.embedded import account, postgres
from pgstack.embedded.home import Home
from pgstack.errors import EmbeddedError

type HomeAt = Callable[[Path], Home]
type Query = Callable[..., Any]
type Starter = Callable[..., subprocess.Popen[str]]

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


# -- places ---------------------------------------------------------------------------------


def test_a_home_may_move(
    running: Home, place: Path, quick: dict[str, str], query: Query, home_at: HomeAt
) -> None:
    query(running, "create table t as select 7 as n")
    postgres.stop(running)
    moved = home_at(running.root.rename(place / "elsewhere"))
    postgres.start(moved, settings=quick)
    assert query(moved, "select n from t") == 7


def test_a_home_may_move_while_its_server_runs(
    running: Home, place: Path, quick: dict[str, str], query: Query, home_at: HomeAt
) -> None:
    pid = postgres.listener(running)
    moved = home_at(running.root.rename(place / "elsewhere"))
    postgres.start(moved, settings=quick)
    assert postgres.listener(moved) == pid
    assert query(moved, "select 7") == 7
    assert postgres.stop(moved)
    postgres.start(moved, settings=quick)


@pytest.mark.parametrize("name", ["it's a home, really", "häuschen%20", "x" * 120])
def test_any_path(
    place: Path, name: str, quick: dict[str, str], query: Query, home_at: HomeAt
) -> None:
    home = home_at(place / name)
    postgres.start(home, settings=quick)
    assert query(home, "select 7") == 7


def test_a_long_path_puts_the_socket_elsewhere_while_it_runs(
    place: Path, quick: dict[str, str], home_at: HomeAt
) -> None:
    home = home_at(place / ("x" * 120))
    assert home.run == home.outside_run
    postgres.start(home, settings=quick)
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
def test_an_ordinary_user_runs_it_as_themselves_and_root_takes_over(
    place: Path, quick: dict[str, str], start_in_child: Starter, home_at: HomeAt
) -> None:
    shutil.chown(place, "nobody")
    home = home_at(place / "home")
    assert_starts(start_in_child(home, "nobody"))
    assert home.root.owner() == home.data.owner() == "nobody"
    assert stat.S_IMODE(home.root.stat().st_mode) == 0o700
    assert postgres.stop(home)  # by root
    postgres.start(home, settings=quick)
    assert Path(f"/proc/{postgres.listener(home)}").owner() == "nobody"
    postgres.stop(home)
    assert_starts(start_in_child(home, "nobody"))  # root left nothing they cannot open


def assert_starts(child: subprocess.Popen[str]) -> None:
    said = child.communicate()[0]
    assert child.returncode == 0, said


@needs_root
def test_a_home_out_of_an_ordinary_users_sight_is_refused(
    place: Path, start_in_child: Starter
) -> None:
    closed = place / "closed"
    closed.mkdir(mode=0o700)
    child = start_in_child(Home(closed / "deeper" / "home"), "nobody")
    said = child.communicate()[0]
    assert f"EmbeddedError: user nobody, who runs PostgreSQL, may not enter {closed}" in said
    assert list(closed.iterdir()) == []


@needs_root
def test_another_users_home_is_refused(running: Home, start_in_child: Starter) -> None:
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
def test_a_disk_that_is_full_later(
    place: Path, quick: dict[str, str], query: Query, home_at: HomeAt
) -> None:
    with small_disk(place, "size=200m") as disk:
        home = home_at(disk / "home")
        postgres.start(home, settings=quick)
        query(home, "create table t as select 7 as n")
        postgres.stop(home)
        filler = disk / "filler"
        with pytest.raises(OSError, match="No space"), filler.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(2**16))
        with pytest.raises(EmbeddedError, match=r"\(0 MB free\)"):
            postgres.start(home, settings=quick)
        filler.unlink()
        postgres.start(home, settings=quick)
        assert query(home, "select n from t") == 7
        postgres.stop(home)


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
