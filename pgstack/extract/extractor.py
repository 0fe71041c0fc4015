"""Reads files in a helper process with limits.

The file is opened here and its bytes are handed over: the helper (``pgstack.extract.helper``)
needs no file, no network and no other program, and gets none (``pgstack.extract.sandbox``).
What it answers is checked as if it came from a stranger: a file may have taken it over.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import select
import shutil
import signal
import stat
import struct
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from pgstack.extract import formats, ocr, tika
from pgstack.extract.document import Crashed, Document, Options, Part, Unreadable

MAX_BYTES = 100_000_000

# For the helper process.
MEMORY_BYTES = 2_000_000_000
CPU_SECONDS = 60
WALL_SECONDS = 120.0
OUTPUT_BYTES = 64_000_000

_PREFIX = "pgstack-extract-"
_NEWBORN_SECONDS = 60.0
_START_SECONDS = 60.0
_RECYCLE_BYTES = 400_000_000  # a helper that a file left bigger than this is replaced
_HEADER = struct.Struct(">QQ")  # bytes of JSON, bytes of text
_DEFAULT = Options()

# How a process ends by its own doing.  Killed, it may have been anybody.
_FILES_FAULT = {-signal.SIGABRT, -signal.SIGSEGV, -signal.SIGBUS, -signal.SIGILL, -signal.SIGTRAP}


class Extractor:
    """Reads files in one helper process; a context manager.

    A file that takes too long, too much memory or the process with it is refused with its
    reason; the next file gets a new process.  Use one from one thread at a time.

    ``memory_bytes``  address space of the helper, start included (about 0.5 GB)
    ``cpu_seconds``, ``wall_seconds``  for one file; OCR has its own time besides (``Options``)
    ``output_bytes``  of text, UTF-8, from one file
    """

    def __init__(
        self,
        options: Options = _DEFAULT,
        *,
        memory_bytes: int = MEMORY_BYTES,
        cpu_seconds: int = CPU_SECONDS,
        wall_seconds: float = WALL_SECONDS,
        output_bytes: int = OUTPUT_BYTES,
    ) -> None:
        self._options = options
        self._limits = [str(memory_bytes), str(cpu_seconds), str(output_bytes)]
        self._wall_seconds = wall_seconds
        self._output_bytes = output_bytes
        self._helper: _Helper | None = None
        self._stopped = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def layers(self) -> tuple[str, ...]:
        """What holds the helper: of ``limits``, ``landlock``, ``seccomp``; () before the start."""
        return self._helper.layers if self._helper else ()

    def close(self) -> None:
        """End the helper process."""
        helper, self._helper = self._helper, None
        if helper is not None:
            helper.end()

    def stop(self) -> None:
        """End it from another thread: what is being read raises :class:`Crashed`, as all else does.

        The thread that reads closes it.
        """
        self._stopped = True
        helper = self._helper
        if helper is not None:
            helper.process.kill()

    def extract(self, path: str | os.PathLike[str]) -> Document:
        """Return the text of one file, or raise :class:`Unreadable`."""
        return self.extract_bytes(_read(Path(path)), name=Path(path).name)

    def extract_bytes(self, data: bytes, *, name: str, media_type: str | None = None) -> Document:
        """Return the text of ``data``, or raise :class:`Unreadable`.

        ``name``        the file's name; its ending helps to tell the format
        ``media_type``  what its source says it is, or None; bytes and name count more
        """
        if len(data) > MAX_BYTES:
            raise Unreadable(_too_large(len(data)))
        hints: dict[str, Any] = {"name": name, "media_type": media_type}
        if self._options.tika_url is not None:
            told = formats.guess(name, data, media_type)
            # Asked here: the helper has no network.  It reads the answer.
            data = tika.fetch(
                data,
                name=name,
                options=self._options,
                seconds=self._wall_seconds,
                max_bytes=self._output_bytes * 2,
            )
            hints = {"name": name, "media_type": told, "by_tika": True}
        request = {"hints": hints, "bytes": len(data)}
        try:
            meta, text = self._ask(name, json.dumps(request).encode("ascii") + b"\n", data)
        except BaseException:  # what is half said cannot be taken up again
            self.close()
            raise
        if meta.get("last") or (self._helper and self._helper.memory() > _RECYCLE_BYTES):
            self.close()
        if "error" in meta:
            raise Unreadable(str(meta["error"])[:500])
        return _document(meta, text)

    def _ask(self, name: str, request: bytes, data: bytes) -> tuple[dict[str, Any], str]:
        while True:
            helper = self._helper
            fresh = helper is None
            if helper is None:
                helper = self._helper = _Helper(self._limits, self._options)
            seconds = self._wall_seconds
            if formats.may_need_ocr(name, data) and ocr.missing(self._options.ocr) is None:
                seconds += self._options.ocr_seconds
            deadline = time.monotonic() + seconds
            if self._stopped:
                raise Crashed("stopped while it was read")
            try:
                helper.send(request, data, deadline)
                return helper.receive(self._output_bytes, deadline)
            except TimeoutError:
                raise Unreadable(f"took more than {seconds:g} s to read") from None
            except _Died as exc:
                self.close()
                # An old process may have died of something else: ask a new one.
                if fresh:
                    raise (Unreadable if exc.by_file else Crashed)(str(exc)) from None


class _Died(Exception):
    """The helper process ended without an answer; ``by_file``: it would again."""

    def __init__(self, reason: str, *, by_file: bool = False) -> None:
        super().__init__(reason)
        self.by_file = by_file


class _Helper:
    """One helper process, its pipes and its folder."""

    def __init__(self, limits: list[str], options: Options) -> None:
        self.layers: tuple[str, ...] = ()
        _sweep()
        self.folder = tempfile.mkdtemp(prefix=_PREFIX)
        # Locked while we live: what is not is left by somebody who was killed.
        self._lock = os.open(self.folder, os.O_RDONLY | os.O_CLOEXEC)
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        # The helper dies when our end of this pipe closes, however we end.
        lifeline, self._lifeline = os.pipe()
        try:
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-m", "pgstack.extract.helper", str(lifeline), *limits],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                cwd=self.folder,
                pass_fds=(lifeline,),
                start_new_session=True,  # Ctrl-C reaches the caller, which closes us
                env=_environment(self.folder),
            )
        except BaseException:
            os.close(self._lifeline)
            os.close(self._lock)
            shutil.rmtree(self.folder, ignore_errors=True)
            raise
        finally:
            os.close(lifeline)
        if self.process.stdin is None or self.process.stdout is None:  # pragma: no cover
            raise _Died("the process that reads files has no pipes")
        self._in, self._out = self.process.stdin.fileno(), self.process.stdout.fileno()
        os.set_blocking(self._in, False)
        try:
            deadline = time.monotonic() + _START_SECONDS
            self.send(json.dumps(asdict(options)).encode("ascii") + b"\n", b"", deadline)
            self.layers = tuple(self.receive(0, deadline)[0]["layers"])
        except (_Died, TimeoutError):
            self.end()
            raise Crashed("the process that reads files cannot be started") from None

    def end(self) -> None:
        """Kill the process and all it started; remove its folder."""
        with contextlib.suppress(OSError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
        if self._lifeline >= 0:
            os.close(self._lifeline)
            os.close(self._lock)
            self._lifeline = -1
        shutil.rmtree(self.folder, ignore_errors=True)

    def send(self, request: bytes, data: bytes, deadline: float) -> None:
        """Write a request and the file's bytes."""
        for block in (memoryview(request), memoryview(data)):
            rest = block
            while rest:
                _wait(self._in, select.POLLOUT, deadline)
                try:
                    rest = rest[os.write(self._in, rest[: 1 << 20]) :]
                except BlockingIOError:
                    continue
                except OSError:
                    raise self._died() from None

    def receive(self, output_bytes: int, deadline: float) -> tuple[dict[str, Any], str]:
        """Read an answer: its JSON and the text, which has at most ``output_bytes``."""
        meta_bytes, text_bytes = _HEADER.unpack(self._read(_HEADER.size, deadline))
        # Room for the map beside the text.
        if text_bytes > output_bytes or meta_bytes > output_bytes + 1_000_000:
            raise Unreadable(f"gives more than {output_bytes / 1e6:.0f} MB of text")
        try:
            meta: dict[str, Any] = json.loads(self._read(meta_bytes, deadline))
            return meta, self._read(text_bytes, deadline).decode("utf-8")
        except ValueError as exc:
            raise Unreadable(f"gave a damaged answer: {exc}"[:300]) from None

    def _read(self, size: int, deadline: float) -> bytes:
        received = bytearray()
        while len(received) < size:
            _wait(self._out, select.POLLIN, deadline)
            block = os.read(self._out, min(size - len(received), 1 << 20))
            if not block:
                raise self._died()
            received += block
        return bytes(received)

    def memory(self) -> int:
        """Return the process's resident memory, bytes; 0 where that is not told."""
        return status_bytes(self.process.pid, "VmRSS")

    def _died(self) -> Exception:
        code = self.process.wait()
        if code == -signal.SIGXCPU:
            return Unreadable("took too much processor time to read")
        if code == -signal.SIGXFSZ:
            return Unreadable("wrote too much while it was read")
        if code in _FILES_FAULT:
            return _Died("takes too much memory, or crashes what reads it", by_file=True)
        return _Died("the process that read it crashed")


def _sweep() -> None:
    """Remove the folders of helpers whose parents were killed."""
    for folder in Path(tempfile.gettempdir()).glob(_PREFIX + "*"):
        with contextlib.suppress(OSError):
            # Not others', and not one that is about to be locked.
            status = folder.lstat()
            if status.st_uid != os.getuid() or time.time() - status.st_mtime < _NEWBORN_SECONDS:
                continue
            handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(handle)


def _wait(handle: int, event: int, deadline: float) -> None:
    poll = select.poll()
    poll.register(handle, event)
    left = deadline - time.monotonic()
    if left <= 0 or not poll.poll(left * 1000):
        raise TimeoutError


def status_bytes(pid: int, field: str) -> int:
    """Return a size that Linux tells of a process, bytes: ``VmRSS``, ``VmHWM``; 0: not told."""
    try:
        text = Path(f"/proc/{pid}/status").read_text("ascii", errors="replace")
    except OSError:
        return 0
    for line in text.splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    return 0


def _environment(folder: str) -> dict[str, str]:
    """Return what the helper may know: no password of ours, and its folder as home."""
    tessdata = ocr.data_folder()
    return {
        "PATH": "/usr/bin:/bin",
        "LANG": "C.UTF-8",
        "HOME": folder,
        "TMPDIR": folder,
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        "PYTHONDONTWRITEBYTECODE": "1",
        # Threads each with a heap of their own would eat up the address space.
        "MALLOC_ARENA_MAX": "2",
        # kreuzberg asks the environment; so do we, for the same folder.
        **({} if tessdata is None else {"TESSDATA_PREFIX": tessdata}),
    }


# --- what the helper says ---------------------------------------------------------------


def _document(meta: dict[str, Any], text: str) -> Document:
    """Return the answer as a document; a helper that a file took over gets nothing else past."""
    try:
        if "\x00" in text:
            raise ValueError("NUL")
        title = meta["title"]
        document = Document(
            title=None if title is None else str(title),
            media_type=str(meta["media_type"]),
            text=text,
            parts=tuple(_part(part) for part in meta["parts"]),
            warnings=tuple(str(warning) for warning in meta["warnings"]),
        )
        ends = [part.end for part in document.parts]
        if document.parts and [0, *ends] != [*(p.start for p in document.parts), len(text)]:
            raise ValueError("parts do not cover the text")
    except (KeyError, TypeError, ValueError) as exc:
        raise Unreadable(f"gave a damaged answer: {exc}"[:300]) from None
    return document


def _part(part: Any) -> Part:
    start, end, page, headings = part
    if not (isinstance(start, int) and isinstance(end, int) and start < end):
        raise ValueError("a part has no extent")
    return Part(start, end, None if page is None else int(page), tuple(map(str, headings)))


# --- the file ---------------------------------------------------------------------------


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
            raise Unreadable(_too_large(status.st_size))
        try:
            # As much memory as it needs; one byte more shows whether it grew.
            data = file.read(status.st_size + 1)
            if len(data) > status.st_size:
                data += file.read(MAX_BYTES + 1 - len(data))
        except OSError as exc:
            raise Unreadable(exc.strerror or str(exc)) from exc
    if len(data) > MAX_BYTES:
        raise Unreadable(f"grew while it was read; at most {MAX_BYTES / 1e6:.0f} MB are read")
    return data


def _too_large(size: int) -> str:
    return f"{size / 1e6:.0f} MB; at most {MAX_BYTES / 1e6:.0f} MB are read"
