"""Files made to harm: each ends in text or in a reason, within its limits, and harms no other."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pgstack.extract import Crashed, Document, Extractor, Options, Unreadable
from pgstack.extract.extractor import status_bytes
from tests.unit import hostile_files as made

MEMORY = 2_000_000_000
SECRET = "canary-in-a-file-outside"

CASES: dict[str, tuple[Callable[[], bytes], str]] = {
    # name: its bytes, what its text or the reason against it must hold
    "laughs.docx": (lambda: made.docx(made.paragraphs("&l9;", made.laughs())), "no text"),
    "laughs.rss": (lambda: bytes(made.laughs() + "<rss><a>&l9;</a></rss>", "utf-8"), "ENTITY"),
    "laughs.xml": (lambda: bytes(made.laughs() + "<d>&l9;</d>", "utf-8"), "ENTITY"),
    "bomb.xlsx": (made.bomb, "unpacks to 1073 MB"),
    "large.docx": (lambda: made.docx(made.paragraphs("word " * 30_000_000)), "exceeds limit"),
    "deep.html": (lambda: b"<div>" * 50_000 + b"deep", "deep"),
    "deep-tables.html": (lambda: b"<table><tr><td>" * 10_000 + b"deep", "deep"),
    "deep.xml": (lambda: b"<a>" * 200_000, "<a><a>"),
    "deep.rss": (lambda: b"<rss>" + b"<a>" * 200_000, "<rss><a>"),
    "deep.json": (lambda: b"[" * 1_000_000, "[[["),
    "deep.ipynb": (lambda: b"[" * 1_000_000, "recursion limit"),
    "deep.rtf": (lambda: b"{\\rtf1 " + b"{" * 200_000 + b"deep", "deep"),
    "deep.docx": (lambda: made.docx(f"<w:document {made._W}>" + "<w:tbl>" * 50_000), ""),
    "loop.pdf": (
        lambda: made.pdf(
            [
                "<</Type/Catalog/Pages 2 0 R>>",
                "<</Type/Pages/Kids[2 0 R 2 0 R]/Count 100000>>",
            ]
        ),
        "cannot be parsed",
    ),
    "large-page.pdf": (lambda: made.page("", size=(14400, 14400)), "no text"),
    "image.png": (lambda: made.png(2**31 - 1, 2**31 - 1), "a PNG image"),
    "parts.eml": (lambda: made.mail(10_000), "part 9999"),
    "mails.eml": (lambda: b"Content-Type: message/rfc822\r\n\r\n" * 20_000, ""),
    "empty.pdf": (lambda: b"", "is empty"),
    "headings.md": (lambda: b"# h\n" * 200_000, "# h"),
    "menus.html": (lambda: b"<p class=menu>x" * 20_000, "x"),
}


@pytest.fixture(scope="module")
def extractor() -> Iterator[Extractor]:
    with Extractor(Options(ocr=""), memory_bytes=MEMORY, cpu_seconds=12, wall_seconds=100) as found:
        yield found


def text_or_reason(extractor: Extractor, data: bytes, name: str) -> str:
    try:
        return extractor.extract_bytes(data, name=name).text
    except Unreadable as exc:
        return str(exc)


@pytest.mark.parametrize("name", CASES)
def test_ends_in_text_or_a_reason(extractor: Extractor, name: str) -> None:
    make, expected = CASES[name]
    assert expected in text_or_reason(extractor, make(), name)
    helper = extractor._helper
    if helper is not None:
        assert status_bytes(helper.process.pid, "VmHWM") < 1_000_000_000
    assert extractor.extract_bytes(b"the next one", name="a.txt").text == "the next one"


def test_text_is_limited() -> None:
    with Extractor(output_bytes=1_000_000) as extractor:
        with pytest.raises(Unreadable, match="more than 1 MB of text"):
            extractor.extract_bytes(b"x" * 1_000_001, name="a.txt")
        assert extractor.extract_bytes(b"x" * 1_000_000, name="a.txt").text


def test_what_takes_too_much_memory_is_the_files_fault_and_not_tried_again() -> None:
    data = made.bomb(400_000_000)
    with Extractor(memory_bytes=500_000_000) as extractor:
        with pytest.raises(Unreadable, match="memory") as caught:
            extractor.extract_bytes(data, name="a.xlsx")
        assert not isinstance(caught.value, Crashed)
        assert extractor.extract_bytes(b"next", name="a.txt").text == "next"


# --- files beside the one that is read -----------------------------------------------------


def outsiders(folder: Path) -> dict[str, bytes]:
    """Documents that name a file of the machine, or would put one there."""
    canary = folder / "canary.xml"
    canary.write_text(f"<html><body><p>{SECRET}</p></body></html>")
    uri, up = canary.as_uri(), str(canary).lstrip("/")
    entity = made.outside(uri)
    return {
        "a.docx": made.docx(made.paragraphs("seen &x;", entity)),
        "a.xml": f"{entity}<d>seen &x;</d>".encode(),
        "a.rss": f"{entity}<rss><channel><title>seen &x;</title></channel></rss>".encode(),
        "a.html": f'<p>seen<iframe src="{uri}"></iframe><object data="{uri}"></object>'.encode(),
        "a.epub": made.epub("seen", up, str(folder / "planted").lstrip("/")),
        "a.md": f"seen ![]({uri})".encode(),
        "a.eml": b"Content-Type: message/external-body; access-type=local-file; "
        b'name="%s"\r\n\r\nseen' % bytes(canary),
    }


def test_no_file_beside_it_is_read_or_written(extractor: Extractor, tmp_path: Path) -> None:
    before = set(Path(tmp_path).rglob("*"))
    documents = outsiders(tmp_path)
    for name, data in documents.items():
        said = text_or_reason(extractor, data, name)
        assert SECRET not in said, name
        assert "seen" in said or name == "a.eml", (name, said)
    assert set(tmp_path.rglob("*")) - before == {tmp_path / "canary.xml"}


def test_the_system_confirms_that_no_file_is_opened(tmp_path: Path) -> None:
    """By strace: what the helper opened after it was confined."""
    if shutil.which("strace") is None:
        pytest.skip("no strace here")
    files = tmp_path / "files"
    files.mkdir()
    for name, data in outsiders(tmp_path).items():
        (files / name).write_bytes(data)
    (files / "a.pdf").write_bytes(made.page("seen"))
    program = (
        "import sys; from pathlib import Path; from pgstack.extract import *\n"
        "with Extractor(Options(ocr='')) as x:\n"
        "    for path in sorted(Path(sys.argv[1]).iterdir()):\n"
        "        try: x.extract(path)\n"
        "        except Unreadable: pass\n"
        "    print(*x.layers)\n"
    )
    calls = tmp_path / "calls"
    run = subprocess.run(
        [
            *("strace", "-f", "-qq", "-e", "trace=open,openat,creat,execve,socket,prctl"),
            *("-o", calls, sys.executable, "-c", program, files),
        ],
        check=False,
        capture_output=True,
        text=True,
        timeout=100,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    if "ptrace" in run.stderr:
        pytest.skip("strace may not look into processes here")
    layers = run.stdout.split()
    lines = calls.read_text(errors="replace").splitlines()
    start = next(number for number, line in enumerate(lines) if "NO_NEW_PRIVS" in line)
    helper = lines[start].split()[0]
    opened = [
        line
        for line in lines[start:]
        if re.search(r"\b(open|openat|creat|execve|socket)\(", line)
        and not re.search(r"= -1 E\w+|unfinished", line)
        and int(line.split()[0]) >= int(helper)
        and "/pgstack-extract-" not in line
    ]
    if "landlock" in layers:
        assert [line for line in opened if "O_PATH" not in line] == []
    assert not any(str(tmp_path / "canary") in line for line in opened)


CONFINED = """
import os, socket, subprocess, sys
from pgstack.extract import sandbox
folder, outside, parent = sys.argv[1:]
print(*sandbox.confine(folder, [], 2_000_000_000))
def attempt(name, action):
    try: action()
    except OSError as exc: print(name, "refused")
    else: print(name, "done")
attempt("inside", lambda: open(folder + "/a", "w"))
attempt("read", lambda: open(outside))
attempt("write", lambda: open(outside + ".new", "w"))
attempt("list", lambda: os.listdir("/"))
attempt("remove", lambda: os.unlink(outside))
attempt("socket", lambda: socket.socket())
attempt("udp", lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
attempt("program", lambda: os.execv("/bin/true", ["true"]))
attempt("fork", lambda: os.fork() or os._exit(0))
attempt("kill", lambda: os.kill(int(parent), 0))
import threading; threading.Thread(target=lambda: print("thread done")).start()
"""


def test_what_a_file_that_took_over_could_do(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_text("secret")
    folder = tmp_path / "folder"
    folder.mkdir()
    arguments = [str(folder), str(outside), str(os.getpid())]
    run = subprocess.run(
        [sys.executable, "-c", CONFINED, *arguments],
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    layers, *lines = run.stdout.splitlines()
    found = dict(line.split() for line in lines)
    assert found["inside"] == found["thread"] == "done"
    if "landlock" not in layers and "seccomp" not in layers:
        pytest.skip("this kernel has neither Landlock nor seccomp filters")
    if "landlock" in layers:
        assert {found[name] for name in ("read", "write", "list", "remove")} == {"refused"}
    if "seccomp" in layers:
        names = ("socket", "udp", "program", "fork", "kill")
        assert {found[name] for name in names} == {"refused"}
    assert outside.read_text() == "secret"


def test_layers_are_told(extractor: Extractor) -> None:
    extractor.extract_bytes(b"a", name="a.txt")
    assert extractor.layers[0] == "limits"


# --- the process ------------------------------------------------------------------------


def test_killed_midway_it_is_replaced(tmp_path: Path) -> None:
    with Extractor() as extractor:
        extractor.extract_bytes(b"a", name="a.txt")
        helper = extractor._helper
        assert helper is not None
        os.kill(helper.process.pid, signal.SIGSTOP)  # it is at work for as long as we like
        timer = threading.Timer(0.3, os.kill, (helper.process.pid, signal.SIGKILL))
        timer.start()
        # The file is read again by a new process, which is not killed.
        assert extractor.extract_bytes(b"<p>text", name="a.html").text == "text"
        assert extractor._helper is not helper
        assert not Path(helper.folder).exists()


def test_it_dies_with_its_parent_however_that_ends(tmp_path: Path) -> None:
    program = (
        "import threading; from pgstack.extract import Extractor\n"
        "x = Extractor(); x.extract_bytes(b'a', name='a.txt')\n"
        "print(x._helper.process.pid, flush=True)\n"
        "x.extract_bytes(b'<!--' * 500_000, name='a.html')\n"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", program],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    assert _running(pid)
    parent.kill()
    parent.wait()
    parent.stdout.close()
    deadline = time.monotonic() + 20
    while _running(pid):  # a moment: it is the system that kills it
        assert time.monotonic() < deadline
        time.sleep(0.02)


def _running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in "ZX"


def test_ctrl_c_ends_it(tmp_path: Path) -> None:
    program = (
        "from pgstack.extract import Extractor\n"
        "with Extractor() as x:\n"
        "    x.extract_bytes(b'a', name='a.txt')\n"
        "    print(x._helper.process.pid, x._helper.folder, flush=True)\n"
        "    x.extract_bytes(b'<!--' * 500_000, name='a.html')\n"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", program],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert parent.stdout is not None
    pid, folder = parent.stdout.readline().split()
    parent.send_signal(signal.SIGINT)
    parent.wait(timeout=30)
    parent.stdout.close()
    assert not _running(int(pid))
    assert not Path(folder).exists()


def test_several_at_once() -> None:
    def read(number: int) -> list[str]:
        with Extractor(Options(ocr="")) as extractor:
            return [
                extractor.extract_bytes(f"{number}.{n}".encode(), name="a.txt").text
                for n in range(20)
            ]

    with ThreadPoolExecutor(4) as pool:
        for number, texts in enumerate(pool.map(read, range(6))):
            assert texts == [f"{number}.{n}" for n in range(20)]


def test_its_environment_has_no_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGPASSWORD", "secret")
    with Extractor() as extractor:
        extractor.extract_bytes(b"a", name="a.txt")
        helper = extractor._helper
        assert helper is not None
        known = Path(f"/proc/{helper.process.pid}/environ").read_bytes()
    assert b"secret" not in known


def test_a_link_is_followed_and_names_may_be_odd(tmp_path: Path) -> None:
    (tmp_path / "a\nb\x1b[31m.md").write_text("# T")
    (tmp_path / "link.md").symlink_to(tmp_path / "a\nb\x1b[31m.md")
    with Extractor() as extractor:
        assert extractor.extract(tmp_path / "link.md") == Document(
            "T", "text/markdown", "# T", extractor.extract(tmp_path / "link.md").parts
        )


def test_a_file_that_grows_while_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, extractor: Extractor
) -> None:
    path = tmp_path / "a.log"
    path.write_bytes(b"x" * 100)
    real = os.fstat

    def before(handle: int) -> os.stat_result:
        found = real(handle)
        return os.stat_result([*found[:6], 10, *found[7:]])

    monkeypatch.setattr("pgstack.extract.extractor.os.fstat", before)
    assert extractor.extract(path).text == "x" * 100
    monkeypatch.setattr("pgstack.extract.extractor.MAX_BYTES", 50)
    with pytest.raises(Unreadable, match="grew while it was read"):
        extractor.extract(path)


def test_folders_of_the_dead_are_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    dead, newborn = tmp_path / "pgstack-extract-dead", tmp_path / "pgstack-extract-new"
    for folder in (dead, newborn):
        folder.mkdir()
        (folder / "file").write_text("left")
    with Extractor() as living:
        living.extract_bytes(b"a", name="a.txt")
        assert living._helper is not None
        mine = Path(living._helper.folder)
        for folder in (dead, mine):
            os.utime(folder, (0, 0))
        with Extractor() as extractor:
            extractor.extract_bytes(b"a", name="a.txt")
        assert not dead.exists()
        assert newborn.exists() and mine.exists()
