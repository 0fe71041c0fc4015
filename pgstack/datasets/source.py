"""A data set's file: what it is, and its bytes from any place on, decompressed and as UTF-8.

A *position* is a number of bytes of the text, after decompression and in UTF-8.  Only a file
that is neither compressed nor in another charset can be entered in the middle; of all others
what lies before a position is read again and thrown away, which costs seconds a gigabyte.

Raises
    UsageError    no such file, an unknown charset
    PgstackError  a compressed file is damaged
"""

from __future__ import annotations

import bz2
import codecs
import gzip
import hashlib
import io
import lzma
import zlib
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

from pgstack.errors import PgstackError, UsageError

SAMPLE_BYTES = 4 * 2**20
PIECE_BYTES = 2**20
MARKS = (  # a byte order mark, and what it says; the longer ones first
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
COMPRESSED = (
    (b"\x1f\x8b", "gz"),
    (b"BZh", "bz2"),
    (b"\xfd7zXZ\x00", "xz"),
    (b"\x28\xb5\x2f\xfd", "zst"),
)
SUFFIXES = (".gz", ".bz2", ".xz", ".zst")
# What broken archives raise.
DAMAGED = (EOFError, OSError, zlib.error, lzma.LZMAError)


def _bad_bytes(exc: UnicodeError) -> tuple[str, int]:
    """Decode what cannot be decoded to half a surrogate pair, which is no UTF-8 either."""
    if isinstance(exc, UnicodeDecodeError):
        return "\udc80", exc.end
    raise exc


codecs.register_error("pgstack.bad_bytes", _bad_bytes)


@dataclass(frozen=True)
class File:
    """A file on the disk.  ``called``: what people named it, a path or a URL."""

    path: Path
    called: str
    size: int
    compression: str | None

    @property
    def plain_name(self) -> str:
        """Its name in lower case, without what says how it is compressed."""
        name = self.called.partition("?")[0].lower()
        ending = next((s for s in SUFFIXES if name.endswith(s)), "")
        return name[: len(name) - len(ending)]


def find(path: Path, called: str | None = None) -> File:
    """Return the file at ``path``."""
    called = called or str(path)
    try:
        if not path.is_file():
            raise UsageError(
                f"{called} is no file" if path.exists() else f"there is no file {called}",
                hint="pgstack dataset inspect FILE",
            )
        with path.open("rb") as file:
            head = file.read(8)
        size = path.stat().st_size
    except OSError as exc:
        raise UsageError(f"{called} cannot be read: {exc.strerror}", hint="ls -l") from exc
    found = next((name for magic, name in COMPRESSED if head.startswith(magic)), None)
    return File(path, called, size, found)


def identity(file: File) -> str:
    """Return a digest of size, both ends and 64 pieces between: another for another file."""
    digest = hashlib.sha256(str(file.size).encode())
    places = {0, max(0, file.size - PIECE_BYTES)}
    with file.path.open("rb") as raw:
        for place in sorted(places):
            raw.seek(place)
            digest.update(raw.read(PIECE_BYTES))
        for nr in range(64):
            raw.seek(file.size * nr // 64)
            digest.update(raw.read(2**14))
    return digest.hexdigest()


class Stream:
    """The text of a file as UTF-8 from a position on."""

    def __init__(self, file: File, encoding: str = "utf-8", position: int = 0) -> None:
        self.file = file
        self._raw = file.path.open("rb")
        self._plain = _decompressed(self._raw, file.compression)
        self._decoder: codecs.IncrementalDecoder | None = None
        self._rest = b""
        if encoding != "utf-8":
            self._decoder = codecs.getincrementaldecoder(encoding)("pgstack.bad_bytes")
        if position and self._decoder is None and file.compression is None:
            self._raw.seek(position)
        else:
            while position:
                skipped = len(self.read(min(position, PIECE_BYTES)))
                if not skipped:
                    break
                position -= skipped

    @property
    def consumed(self) -> int:
        """How many bytes of the file were read."""
        return min(self._raw.tell(), self.file.size)

    def read(self, count: int) -> bytes:
        """Return so many bytes; fewer only at the end."""
        parts = [self._rest[:count]]
        self._rest = self._rest[count:]
        missing = count - len(parts[0])
        while missing > 0:
            data = self._next(missing)
            if data is None:
                break
            parts.append(data[:missing])
            self._rest = data[missing:]
            missing -= len(parts[-1])
        return b"".join(parts)

    def _next(self, count: int) -> bytes | None:
        """Return some more bytes, perhaps none; None at the end."""
        try:
            data = self._plain.read(max(count, 2**16))
        except DAMAGED as exc:
            raise PgstackError(
                f"{self.file.called} is damaged: {str(exc) or type(exc).__name__}",
                hint="What lies before that is loaded. Fetch the file again, then: --restart",
            ) from exc
        if self._decoder is None:
            return data or None
        text = self._decoder.decode(data, final=not data)
        return text.encode("utf-8", "surrogatepass") if data or text else None

    def close(self) -> None:
        """Close the file."""
        with suppress(*DAMAGED):
            self._plain.close()
        self._raw.close()

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def _decompressed(raw: BinaryIO, compression: str | None) -> BinaryIO:
    if compression == "gz":
        return cast(BinaryIO, gzip.GzipFile(fileobj=raw))
    if compression == "bz2":
        return cast(BinaryIO, bz2.BZ2File(raw))
    if compression == "xz":
        return cast(BinaryIO, lzma.LZMAFile(raw))
    if compression == "zst":
        import pyarrow as pa

        return cast(BinaryIO, io.BufferedReader(_Zstandard(pa.CompressedInputStream(raw, "zstd"))))
    return raw


class _Zstandard(io.RawIOBase):
    """What pyarrow decompresses, as a file of Python's."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def readable(self) -> bool:
        """It is."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill some of ``buffer``; 0 at the end."""
        data = self._stream.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)


def detect_encoding(
    file: File, given: str | None, *, guess: bool = True
) -> tuple[str, int, list[str]]:
    """Return charset, position where the text begins, and what people should know about it.

    UTF-8 with some broken lines is UTF-8; those lines are then rejected.  ``guess=False``: so
    is everything without a byte order mark, as JSON has it.
    """
    with Stream(file) as stream:
        head = stream.read(SAMPLE_BYTES)
    mark, marked = next(((m, e) for m, e in MARKS if head.startswith(m)), (b"", None))
    if given is not None:
        try:
            encoding = codecs.lookup(given).name
            b"".decode(encoding)  # some of Python's codecs are of no text
        except LookupError:
            raise UsageError(
                f"there is no charset {given}", hint="--encoding windows-1252"
            ) from None
        start = len(mark) if encoding == marked == "utf-8" else 0
        return ("utf-8" if encoding in ("utf-8", "ascii", "utf-8-sig") else encoding), start, []
    if marked is not None:
        return marked, len(mark) if marked == "utf-8" else 0, []
    lines = [line for line in head.split(b"\n")[:-1] or [head] if not line.isascii()]
    good = sum(_is_utf8(line) for line in lines)
    if good == len(lines) or not guess:
        return "utf-8", 0, []
    if good >= 0.9 * len(lines):
        return "utf-8", 0, [f"{len(lines) - good} lines at the beginning are no UTF-8"]
    from charset_normalizer import from_bytes

    found = from_bytes(b"\n".join(lines)[: 2**16]).best()
    encoding = "windows-1252" if found is None else str(found.encoding)
    return encoding, 0, [f"taken to be {encoding}: it is no UTF-8 (--encoding names another)"]


def _is_utf8(line: bytes) -> bool:
    try:
        line.decode()
    except UnicodeDecodeError:
        return False
    return True
