"""What is named on a command line, and which files are found there."""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path
from typing import Any

import pytest

from pgstack.errors import UsageError
from pgstack.ingest.find import Found, Rules, find
from pgstack.ingest.roots import file_uri, parse, spec, uri_path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "docs"
    make(root, "a.txt", "b.md", "sub/c.md", "sub/deep/d.md", "z/e.txt")
    return root


def make(root: Path, *names: str, content: str = "text") -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)


def found(*arguments: str | Path, **rules: Any) -> list[Found]:
    for name in ("include", "exclude"):
        if name in rules:
            rules[name] = spec(rules[name])
    targets = rules.pop("targets", None)
    return list(find(parse(map(str, arguments)).local, Rules(**rules), targets))


def names(root: Path, *arguments: str | Path, **rules: Any) -> list[str]:
    return [
        os.path.relpath(item.place, root)
        for item in found(*(arguments or (root,)), **rules)
        if item.problem is None
    ]


def problems(*arguments: str | Path, **rules: Any) -> dict[str, str]:
    return {Path(i.place).name: i.problem for i in found(*arguments, **rules) if i.problem}


# --- what is named --------------------------------------------------------------------


def test_kinds_of_arguments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    roots = parse(
        [
            *("-", "a", "./a", "b/../a", "https://x.org/p?id=1", "https://u:p@X.org/p?id=1"),
            *("s3://b", "s3://b/k", "s3://b/p/", "file:///tmp/c%20d", Path("-"), "c*.md"),
        ]
    )
    assert roots.stdin
    assert [root.path for root in roots.local] == [
        *(f"{tmp_path}/a", "/tmp/c d", f"{tmp_path}/-", str(tmp_path))
    ]
    assert roots.urls == ("https://x.org/p?id=1", "s3://b/k")
    assert roots.listings == ("s3://b/", "s3://b/p/")


@pytest.mark.parametrize("argument", ["", "a\0b", "ftp://x/y", "file://host/x", "gopher://x"])
def test_arguments_that_make_no_sense(argument: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse([argument])
    assert caught.value.hint


def test_patterns_that_make_no_sense() -> None:
    with pytest.raises(UsageError, match="not a pattern"):
        spec(["!"])


@pytest.mark.parametrize(
    "name",
    [b"plain", b"with space", b"100%25", b"\xff\xfe", b"new\nline", "ü😀".encode(), b'"; drop'],
)
def test_any_path_has_a_uri_of_its_own(name: bytes) -> None:
    path = os.fsdecode(b"/tmp/" + name)
    uri = file_uri(path)
    assert uri == Path(path).as_uri()
    assert uri.isascii()
    assert uri_path(uri) == path


# --- folders --------------------------------------------------------------------------


def test_a_folder_in_order(folder: Path) -> None:
    assert names(folder) == ["a.txt", "b.md", "sub/c.md", "sub/deep/d.md", "z/e.txt"]
    first = found(folder)[0]
    status = (folder / "a.txt").stat()
    assert first.size == 4
    assert first.modified is not None
    assert abs(first.modified.timestamp() - status.st_mtime) < 1e-5


def test_roots_within_each_other_are_read_once(folder: Path) -> None:
    everything = names(folder)
    for also in ("sub", "sub/deep", "a.txt", "**/*.md", "sub/*"):
        assert sorted(names(folder, folder, folder / also)) == everything
        assert sorted(names(folder, folder / also, folder)) == everything
    assert names(folder, folder / "*.txt", folder / "a*") == ["a.txt"]


@pytest.mark.parametrize(
    ("glob", "expected"),
    [
        ("*.md", ["b.md"]),
        ("**/*.md", ["b.md", "sub/c.md", "sub/deep/d.md"]),
        ("sub/*", ["sub/c.md"]),
        ("*/*.md", ["sub/c.md"]),
        ("sub/**", ["sub/c.md", "sub/deep/d.md"]),
        ("[ab].*", ["a.txt", "b.md"]),
        ("?/e.txt", ["z/e.txt"]),
        ("*/deep/*.md", ["sub/deep/d.md"]),
    ],
)
def test_globs(folder: Path, glob: str, expected: list[str]) -> None:
    assert names(folder, folder / glob) == expected


def test_globs_that_match_nothing_or_themselves(folder: Path) -> None:
    assert problems(folder / "*.pdf") == {"*.pdf": "matches no file"}
    assert problems(folder / "none" / "*.md") == {"none": "No such file or directory"}
    make(folder, "what[1]*.txt", "what/1.txt")
    assert names(folder, folder / "what[1]*.txt") == ["what[1]*.txt"]
    make(folder, "x[1]/y.txt")
    assert names(folder, folder / "x[1]" / "*.txt") == ["x[1]/y.txt"]


def test_include_and_exclude(folder: Path) -> None:
    assert names(folder, include=["*.md"]) == ["b.md", "sub/c.md", "sub/deep/d.md"]
    assert names(folder, include=["*.md", "!c.md"]) == ["b.md", "sub/deep/d.md"]
    assert names(folder, exclude=["sub/"]) == ["a.txt", "b.md", "z/e.txt"]
    assert names(folder, include=["/sub/"], exclude=["deep"]) == ["sub/c.md"]
    assert names(folder, folder / "a.txt", include=["*.md"]) == ["a.txt"]  # named


# --- what is left out -----------------------------------------------------------------


def test_hidden_and_foreign_things(folder: Path) -> None:
    before = names(folder)
    make(folder, ".hidden", ".config/x", ".git/config", "node_modules/x", "__pycache__/x", "CVS/x")
    assert names(folder) == before
    assert set(names(folder, hidden=True)) - set(before) == {".hidden", ".config/x"}
    assert set(names(folder, ignore_files=False)) - set(before) == {
        *("node_modules/x", "__pycache__/x", "CVS/x")
    }
    assert names(folder, folder / ".hidden") == [".hidden"]
    assert names(folder, folder / ".config") == [".config/x"]


def test_ignore_files(folder: Path) -> None:
    make(folder, ".gitignore", content="*.md\n/z/\n# remark\n!\n")
    make(folder, "sub/.pgstackignore", content="!c.md\n")
    assert names(folder) == ["a.txt", "sub/c.md"]
    assert len(names(folder, ignore_files=False)) == 5
    make(folder, ".pgstackignore", content="!b.md\na.txt\n")
    assert names(folder) == ["b.md", "sub/c.md"]


def test_a_repository_around_a_folder(folder: Path, tmp_path: Path) -> None:
    make(tmp_path, ".gitignore", content="d.md\n/docs/z\n")
    assert "sub/deep/d.md" in names(folder)  # no repository
    (tmp_path / ".git").mkdir()
    assert names(folder) == ["a.txt", "b.md", "sub/c.md"]
    assert names(folder, folder / "z") == ["z/e.txt"]  # named


def test_ignore_files_that_are_none(folder: Path) -> None:
    os.mkfifo(folder / ".gitignore")
    (folder / ".pgstackignore").mkdir()
    (folder / "sub" / ".gitignore").write_bytes(b"\xff\xfe\x00*.md\n\\")
    (folder / "z" / ".gitignore").symlink_to("/dev/zero")
    assert len(names(folder)) == 5


def test_problems(folder: Path) -> None:
    os.mkfifo(folder / "fifo")
    (folder / "link").symlink_to(folder / "a.txt")
    (folder / "null").symlink_to("/dev/null")
    with socket.socket(socket.AF_UNIX) as made:
        previous = Path.cwd()
        os.chdir(folder)
        try:
            made.bind("socket")
        finally:
            os.chdir(previous)
        said = problems(folder, folder / "absent", "/dev/null")
    assert said == {
        "fifo": "not a regular file",
        "socket": "not a regular file",
        "link": "a symbolic link, not followed",
        "null": "not a regular file",
        "absent": "No such file or directory",
    }


def test_links_that_are_followed(folder: Path, tmp_path: Path) -> None:
    make(tmp_path, "other/x.txt")
    (folder / "other").symlink_to(tmp_path / "other")
    (folder / "sub" / "up").symlink_to(folder)
    (folder / "broken").symlink_to("nowhere")
    (folder / "self").symlink_to("self")
    assert "other/x.txt" in names(folder, follow_symlinks=True)
    assert problems(folder, follow_symlinks=True) == {
        "up": "a link to a folder above it",
        "broken": "No such file or directory",
        "self": "Too many levels of symbolic links",
    }
    (tmp_path / "to").symlink_to(folder)
    assert "a.txt" in names(tmp_path / "to", tmp_path / "to")  # named


def test_a_folder_that_cannot_be_listed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scandir = os.scandir

    def refusing(path: Any) -> Any:
        if str(path).endswith("sub"):
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    assert problems(folder) == {"sub": "Permission denied"}
    assert names(folder) == ["a.txt", "b.md", "z/e.txt"]


def test_names_of_any_bytes(folder: Path) -> None:
    odd = [b"\xff\xfe.txt", b"new\nline.txt", "ü".encode(), "u\u0308".encode(), b"\xc3"]
    for name in odd:
        Path(os.fsdecode(os.fsencode(folder) + b"/" + name)).write_bytes(b"text")
    make(folder, ".gitignore", content="ignored-*\n")
    uris = [item.uri for item in found(folder)]
    assert len(set(uris)) == 5 + len(odd)
    assert [os.fsencode(uri_path(uri)) for uri in uris] == [
        os.fsencode(i.place) for i in found(folder)
    ]


# --- what changed ---------------------------------------------------------------------


def test_targets(folder: Path) -> None:
    def changed(*paths: str) -> list[str]:
        return names(folder, targets=[str(folder / path) for path in paths])

    assert changed("b.md", "sub/deep/d.md") == ["b.md", "sub/deep/d.md"]
    assert changed("sub") == ["sub/c.md", "sub/deep/d.md"]
    assert changed("none.txt") == changed("none/none.txt") == []
    assert names(folder, targets=[str(folder)]) == names(folder)
    assert names(folder, targets=[str(folder.parent)]) == names(folder)
    assert names(folder, folder / "a.txt", targets=[str(folder / "b.md")]) == []
    assert names(folder, folder / "*.md", targets=[str(folder / "b.md")]) == ["b.md"]
    make(folder, ".gitignore", content="b.md\n")
    assert changed("b.md") == []
    make(folder, ".hidden/x")
    assert changed(".hidden/x") == []


def test_many_files_and_many_rules(folder: Path) -> None:
    make(folder, ".gitignore", content="\n".join(f"no{n}" for n in range(20)))
    make(folder, *(f"many/{n}.txt" for n in range(2000)))
    began = time.process_time()
    assert len(names(folder)) == 2005
    assert time.process_time() - began < 5
