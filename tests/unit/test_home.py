"""Where a home lies, and when its socket lies elsewhere."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest

from pgstack.embedded import conf, postgres
from pgstack.embedded.home import (
    LONGEST_SOCKET_NAME,
    SOCKET_PATH_MAX,
    Home,
    default_home,
    disk_errors,
    free_bytes,
    write_atomically,
)
from pgstack.errors import EmbeddedError


@pytest.fixture
def nothing_set(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in ("PGSTACK_HOME", "XDG_DATA_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", "/home/ada")
    return monkeypatch


def test_the_environment_names_the_home(nothing_set: pytest.MonkeyPatch) -> None:
    nothing_set.setenv("PGSTACK_HOME", "/srv/stack")
    assert default_home() == Home(Path("/srv/stack"))


def test_a_users_home_is_in_their_data_directory(nothing_set: pytest.MonkeyPatch) -> None:
    nothing_set.setattr(os, "geteuid", lambda: 1000)
    assert default_home().root == Path("/home/ada/.local/share/pgstack")
    nothing_set.setenv("XDG_DATA_HOME", "/data/ada")
    assert default_home().root == Path("/data/ada/pgstack")


def test_roots_home_is_within_everybodys_reach(nothing_set: pytest.MonkeyPatch) -> None:
    nothing_set.setattr(os, "geteuid", lambda: 0)
    nothing_set.setenv("XDG_DATA_HOME", "/root/.local/share")
    assert default_home().root == Path("/var/lib/pgstack")


def test_a_relative_home_is_made_absolute(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert Home(Path("here")).root == tmp_path / "here"


def test_the_socket_stays_inside_as_long_as_it_fits() -> None:
    longest = SOCKET_PATH_MAX - len("/run/") - len(LONGEST_SOCKET_NAME)
    fits, too_long = (Home(Path("/" + "x" * (size - 1))) for size in (longest, longest + 1))
    assert fits.run == fits.root / "run"
    assert too_long.run == too_long.outside_run
    assert len(str(too_long.run)) < 40


def test_length_is_counted_in_bytes() -> None:
    assert Home(Path("/" + "ü" * 60)).run != Path("/" + "ü" * 60) / "run"


def test_a_comma_would_split_the_host_name() -> None:
    home = Home(Path("/a,b"))
    assert home.run == home.outside_run


def test_two_homes_never_share_a_socket_directory() -> None:
    assert Home(Path("/a,b")).run != Home(Path("/a,c")).run


def test_two_names_of_one_home_share_it(tmp_path: Path) -> None:
    (tmp_path / "a,b").mkdir()
    (tmp_path / "link,").symlink_to(tmp_path / "a,b")
    assert Home(tmp_path / "a,b").run == Home(tmp_path / "link,").run


def test_dsn_escapes_what_has_a_meaning_in_a_uri() -> None:
    dsn = postgres.dsn(Home(Path("/a b&c")), "x/y?z")
    assert dsn == "postgresql://postgres@/x%2Fy%3Fz?host=%2Fa%20b%26c%2Frun&port=5432"


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EDQUOT])
def test_disk_trouble_names_the_directory(tmp_path: Path, number: int) -> None:
    with pytest.raises(EmbeddedError, match=str(tmp_path)) as caught, disk_errors(tmp_path):
        raise OSError(number, os.strerror(number))
    assert caught.value.hint is not None
    assert "MB free" in str(caught.value)


def test_other_errors_pass(tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError), disk_errors(tmp_path):
        raise IsADirectoryError(errno.EISDIR, "no trouble with a disk")


def test_free_space_of_a_place_to_be(tmp_path: Path) -> None:
    assert free_bytes(tmp_path / "not" / "there" / "yet") > 0


def test_files_are_private_and_whole(tmp_path: Path) -> None:
    file = tmp_path / "file"
    write_atomically(file, "one")
    write_atomically(file, "two")
    assert file.read_text() == "two"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [file]


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    file = tmp_path / "file"
    write_atomically(file, "one")
    with pytest.raises(UnicodeEncodeError):
        write_atomically(file, "\ud800")
    assert file.read_text() == "one"
    assert list(tmp_path.iterdir()) == [file]


def test_settings_of_the_caller_win() -> None:
    lines = conf.text(tcp_port=None, settings={"shared_buffers": "16MB"}).splitlines()
    assert "shared_buffers = '16MB'" in lines
    assert len([line for line in lines if line.startswith("shared_buffers")]) == 1


def test_a_setting_may_hold_any_text() -> None:
    text = conf.text(tcp_port=None, settings={"cluster_name": "it's\\\n"})
    assert "cluster_name = 'it''s\\\\\\n'\n" in text


@pytest.mark.parametrize(("tcp_port", "listen"), [(None, "''"), (5433, "'127.0.0.1'")])
def test_tcp_is_loopback_or_nothing(tcp_port: int | None, listen: str) -> None:
    assert f"listen_addresses = {listen}\n" in conf.text(tcp_port=tcp_port, settings={})


def test_a_small_container_gets_small_settings(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    limit = tmp_path / "memory.max"
    limit.write_text(f"{512 * 2**20}\n")
    monkeypatch.setattr(conf, "_CGROUP_LIMITS", (limit, tmp_path / "missing"))
    text = conf.text(tcp_port=None, settings={})
    assert "shared_buffers = '64MB'\n" in text
    assert "effective_cache_size = '256MB'\n" in text


def test_no_memory_limit(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    limit = tmp_path / "memory.max"
    limit.write_text("max\n")
    monkeypatch.setattr(conf, "_CGROUP_LIMITS", (limit,))
    assert "shared_buffers" in conf.text(tcp_port=None, settings={})
