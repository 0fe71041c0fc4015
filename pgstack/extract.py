"""Text out of files: plain text, Markdown, reStructuredText, HTML and whatever else is text.

Data in and out
    path     a regular file of at most ``MAX_BYTES`` (50 MB)
    returns  :class:`Document`: title or None, media type, text, warnings for people

Text has ``\\n`` line ends, no NUL and no lone surrogates, so that PostgreSQL takes it.
Markdown and reStructuredText stay as they are written: the marks help a model.

:func:`extract` works in this process.  Files come from anywhere, so callers use
:class:`Extractor`: one helper process (``python -m pgstack.extract``) with limits on memory,
processor time and wall time, which speaks JSON lines and is replaced when it dies.

Raises
    Unreadable  why the file gives no text; the message reads well after its name
"""

from __future__ import annotations

import codecs
import contextlib
import itertools
import json
import os
import re
import resource
import select
import signal
import stat
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from pgstack.html_text import html_text

MAX_BYTES = 50_000_000

# For the helper process.
MEMORY_BYTES = 2_000_000_000
CPU_SECONDS = 30
WALL_SECONDS = 60.0

_MEDIA_TYPES = {
    ".txt": "text/plain",
    ".text": "text/plain",
    ".log": "text/plain",
    ".md": "text/markdown",
    ".markdown": "text/markdown",
    ".mdown": "text/markdown",
    ".rst": "text/x-rst",
    ".html": "text/html",
    ".htm": "text/html",
    ".xhtml": "text/html",
    ".csv": "text/csv",
    ".tsv": "text/tab-separated-values",
    ".json": "application/json",
    ".xml": "application/xml",
    ".eml": "message/rfc822",
    ".py": "text/x-python",
    ".sql": "application/sql",
    ".css": "text/css",
    ".js": "text/javascript",
}

# Formats that have no text as they lie on the disk: what is called that is damaged if it has.
_NOT_TEXT = {
    *(".pdf", ".doc", ".docx", ".odt", ".rtf", ".epub", ".msg", ".ppt", ".pptx", ".odp"),
    *(".xls", ".xlsx", ".ods", ".png", ".jpg", ".jpeg", ".gif", ".webp", ".mp3", ".mp4"),
    *(".zip", ".gz", ".bz2", ".xz", ".zst", ".7z", ".tar", ".tgz"),
}

_MAGIC = (
    (b"%PDF-", "a PDF"),
    (b"PK\x03\x04", "a ZIP archive or office document"),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an old office document"),
    (b"\x1f\x8b", "gzip data"),
    (b"BZh", "bzip2 data"),
    (b"\xfd7zXZ", "xz data"),
    (b"(\xb5/\xfd", "zstd data"),
    (b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive"),
    (b"\x89PNG\r\n", "a PNG image"),
    (b"\xff\xd8\xff", "a JPEG image"),
    (b"GIF8", "a GIF image"),
    (b"\x7fELF", "a program"),
    (b"SQLite format 3\x00", "an SQLite database"),
    (b"{\\rtf", "an RTF document"),
)

_BOMS = (  # UTF-32 first: its mark begins with UTF-16's
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


class Unreadable(Exception):
    """A file gives no text."""


@dataclass(frozen=True)
class Document:
    """What a file says: ``title`` or None, its media type, its text, warnings for people."""

    title: str | None
    media_type: str
    text: str
    warnings: tuple[str, ...] = ()


def extract(path: str | os.PathLike[str]) -> Document:
    """Return the text of one file, read in this process."""
    name = Path(path)
    data = _read(name)
    media_type = _media_type(name, data)
    declared = _html_charset(data) if media_type == "text/html" else None
    text, warnings = _decode(data, name.suffix.lower(), declared)
    title: str | None = None
    if media_type == "text/html":
        title, text = html_text(text)
    elif media_type == "text/markdown":
        title = _markdown_title(text)
    elif media_type == "text/x-rst":
        title = _rst_title(text)
    return Document(title=title, media_type=media_type, text=text, warnings=tuple(warnings))


def _media_type(path: Path, data: bytes) -> str:
    # Not from mimetypes: that asks the machine, and .ts would be a video.
    known = _MEDIA_TYPES.get(path.suffix.lower())
    return known or ("text/html" if _looks_like_html(data) else "text/plain")


# --- bytes and characters -------------------------------------------------------------


def _read(path: Path) -> bytes:
    # Non-blocking: a FIFO put in the place of a file must not hang us.
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as exc:
        raise Unreadable(exc.strerror or str(exc)) from exc
    status = os.fstat(handle)
    if not stat.S_ISREG(status.st_mode):
        os.close(handle)
        raise Unreadable("not a regular file")
    with os.fdopen(handle, "rb") as file:
        if status.st_size > MAX_BYTES:
            raise Unreadable(
                f"{status.st_size / 1e6:.0f} MB; at most {MAX_BYTES / 1e6:.0f} MB are read"
            )
        try:
            data = file.read(MAX_BYTES + 1)
        except OSError as exc:
            raise Unreadable(exc.strerror or str(exc)) from exc
    if len(data) > MAX_BYTES:
        raise Unreadable(f"grew while it was read; at most {MAX_BYTES / 1e6:.0f} MB are read")
    return data


def _decode(data: bytes, suffix: str, declared: str | None) -> tuple[str, list[str]]:
    warnings: list[str] = []
    text: str | None = None
    for mark, encoding in _BOMS:
        if data.startswith(mark):
            try:
                text = data.decode(encoding)
            except UnicodeDecodeError:
                text = data.decode(encoding, errors="replace")
                warnings.append(f"not valid {encoding.upper()}: damaged characters were replaced")
            break
    if text is None:
        _refuse_binary(data, suffix)
        text = _decode_unmarked(data, declared, warnings)
    if "\x00" in text:
        warnings.append("NUL characters were removed")
        text = text.replace("\x00", "")
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    # PostgreSQL takes no lone surrogates; only broken references make them.
    return text.encode("utf-8", errors="replace").decode("utf-8"), warnings


def _refuse_binary(data: bytes, suffix: str) -> None:
    for magic, what in _MAGIC:
        if data.startswith(magic):
            raise Unreadable(f"{what}, not text")
    if suffix in _NOT_TEXT:
        raise Unreadable(f"not the {suffix} file its name says")
    head = data[:65536]
    nuls = head.count(0)
    # One stray NUL is damage, many are another kind of file.
    if nuls and (nuls > len(head) // 1000 or (len(head) < 1000 and nuls > 1)):
        raise Unreadable("binary data, not text")
    odd = sum(head.count(code) for code in range(1, 32) if code not in (8, 9, 10, 12, 13, 27))
    if odd > len(head) // 20:
        raise Unreadable("binary data, not text")


def _decode_unmarked(data: bytes, declared: str | None, warnings: list[str]) -> str:
    if declared:
        with contextlib.suppress(UnicodeDecodeError, LookupError):
            return data.decode(declared)
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        pass
    for guess in ("cp1252", "latin-1"):
        with contextlib.suppress(UnicodeDecodeError):
            text = data.decode(guess)
            warnings.append(f"not UTF-8; read as {guess}, accents may be wrong")
            return text
    raise Unreadable("cannot be decoded")  # pragma: no cover - latin-1 takes every byte


_CHARSET = re.compile(rb"""<meta[^>]{0,200}?charset\s*=\s*["']?\s*([\w.:-]{1,40})""", re.I)


def _looks_like_html(data: bytes) -> bool:
    return (
        re.match(rb"(?:\xef\xbb\xbf)?\s*<(?:!doctype\s+html|html)\b", data[:1000], re.I) is not None
    )


def _html_charset(data: bytes) -> str | None:
    match = _CHARSET.search(data[:4096])
    if match is None:
        return None
    name = match.group(1).decode("ascii", errors="replace").lower()
    # As browsers do: a page that calls itself Latin-1 is Windows-1252.
    return {"iso-8859-1": "cp1252", "latin-1": "cp1252", "ascii": "cp1252"}.get(name, name)


# --- titles ---------------------------------------------------------------------------


def _markdown_title(text: str) -> str | None:
    lines = text[:20_000].splitlines()
    if lines and lines[0].strip() == "---":  # front matter
        for line in lines[1:]:
            if line.strip() == "---":
                break
            if match := re.match(r"title:\s*(.+)", line):
                return match.group(1).strip().strip("'\"") or None
    fenced = False
    for line, below in zip(lines, [*lines[1:], ""], strict=False):
        if line.lstrip().startswith(("```", "~~~")):
            fenced = not fenced
        elif fenced:
            continue
        elif match := re.match(r" {0,3}#\s+(.+?)(?:\s+#+)?\s*$", line):
            return match.group(1)
        elif line.strip() and re.fullmatch(r" {0,3}=+\s*", below):
            return line.strip()
    return None


def _rst_title(text: str) -> str | None:
    lines = text[:20_000].splitlines()
    for line, below in itertools.pairwise(lines):
        underlined = re.fullmatch(r"([=\-~^\"'`#*+:._])\1{2,}\s*", below)
        if underlined and line.strip() and not re.fullmatch(r"([^\w\s])\1*\s*", line):
            return line.strip()
    return None


# --- the helper process -----------------------------------------------------------------


class Extractor:
    """Reads files in one helper process with limits; a context manager.

    A file that takes too long, too much memory or the process with it is refused with
    its reason; the next file gets a new process.
    """

    def __init__(
        self,
        *,
        memory_bytes: int = MEMORY_BYTES,
        cpu_seconds: int = CPU_SECONDS,
        wall_seconds: float = WALL_SECONDS,
    ) -> None:
        self._limits = [str(memory_bytes), str(cpu_seconds)]
        self._wall_seconds = wall_seconds
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the helper process."""
        process, self._process = self._process, None
        if process is None:
            return
        with contextlib.suppress(OSError):
            process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()

    def extract(self, path: str | os.PathLike[str]) -> Document:
        """Return the text of one file, or raise :class:`Unreadable`."""
        request = json.dumps({"path": os.fspath(Path(path).absolute())}).encode("ascii") + b"\n"
        while True:
            process = self._process
            fresh = process is None
            try:
                answer = self._ask(process or self._start(), request)
                break
            except _Died as exc:
                self.close()
                # An old process may have died of something else: ask a new one.
                if fresh:
                    raise Unreadable(str(exc)) from None
        if answer.pop("last", False):
            self.close()
        if "error" in answer:
            raise Unreadable(str(answer["error"]))
        return Document(**{**answer, "warnings": tuple(answer["warnings"])})

    def _start(self) -> subprocess.Popen[bytes]:
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "pgstack.extract", *self._limits],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd="/",
            start_new_session=True,  # Ctrl-C reaches the caller, which closes us
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )
        return self._process

    def _ask(self, process: subprocess.Popen[bytes], request: bytes) -> dict[str, Any]:
        if process.stdin is None or process.stdout is None:
            raise _Died("the process that reads files has no pipes")
        try:
            process.stdin.write(request)
            process.stdin.flush()
        except OSError as exc:
            raise _Died("the process that reads files cannot be started") from exc
        out = process.stdout.fileno()
        poll = select.poll()
        poll.register(out, select.POLLIN)
        deadline = time.monotonic() + self._wall_seconds
        received: list[bytes] = []
        while not (received and received[-1].endswith(b"\n")):
            left = deadline - time.monotonic()
            if left <= 0 or not poll.poll(left * 1000):
                self.close()
                raise Unreadable(f"took more than {self._wall_seconds:g} s to read")
            block = os.read(out, 1 << 20)
            if not block:
                if process.wait() == -signal.SIGXCPU:
                    self.close()
                    raise Unreadable("took too much processor time to read")
                raise _Died("the process that read it crashed")
            received.append(block)
        answer: dict[str, Any] = json.loads(b"".join(received))
        return answer


class _Died(Exception):
    """The helper process ended without an answer."""


def _limit(memory_bytes: int, cpu_seconds: int) -> None:
    used = resource.getrusage(resource.RUSAGE_SELF)
    spent = int(used.ru_utime + used.ru_stime)
    # The soft limit moves on with each file; the hard one stays open for that.
    hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
    soft = spent + cpu_seconds
    resource.setrlimit(
        resource.RLIMIT_CPU, (soft if hard == resource.RLIM_INFINITY else min(soft, hard), hard)
    )
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    soft = memory_bytes if hard == resource.RLIM_INFINITY else min(memory_bytes, hard)
    resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def main() -> None:
    """Answer requests, one JSON object a line, until stdin ends."""
    memory_bytes, cpu_seconds = int(sys.argv[1]), int(sys.argv[2])
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # a parser that prints must not speak in our name
    for line in sys.stdin.buffer:
        _limit(memory_bytes, cpu_seconds)
        last = False
        answer: dict[str, Any]
        try:
            answer = asdict(extract(json.loads(line)["path"]))
        except Unreadable as exc:
            answer = {"error": str(exc)}
        except MemoryError:
            last = True  # what is left of this process may be in pieces
            answer = {"error": "takes too much memory to read"}
        except Exception as exc:  # a parser may raise anything; the caller skips the file
            answer = {"error": f"cannot be parsed: {type(exc).__name__}: {exc}"[:300]}
        out.write(json.dumps({**answer, "last": last}).encode("ascii") + b"\n")
        out.flush()


if __name__ == "__main__":
    main()
