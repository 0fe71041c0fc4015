"""The process that reads files: ``python -m pgstack.extract.helper``.

Speaks with :class:`pgstack.extract.Extractor` alone.  In: one line of JSON with the options,
then for each file a line of JSON and its bytes.  Out: ``ready``, then for each file a header,
JSON and the text.
"""

from __future__ import annotations

import contextlib
import encodings
import importlib
import json
import os
import pkgutil
import struct
import sys
from collections.abc import Callable
from functools import partial
from typing import Any, BinaryIO

from pgstack.extract import ocr, sandbox
from pgstack.extract.document import Document, Options, Unreadable
from pgstack.extract.read import read_bytes

_HEADER = struct.Struct(">QQ")


def main() -> None:
    """Answer requests until stdin ends."""
    lifeline, memory_bytes, cpu_seconds, output_bytes = map(int, sys.argv[1:5])
    sandbox.die_with_parent(lifeline)
    inward = os.fdopen(os.dup(0), "rb")
    outward = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 0)
    os.dup2(2, 1)  # a parser that prints must not speak in our name
    options = Options(**json.loads(inward.readline()))
    _warm_up()
    tessdata = ocr.data_folder()
    readable = [] if tessdata is None else [tessdata]
    layers = sandbox.confine(os.environ["HOME"], readable, memory_bytes)
    _send(outward, {"layers": layers}, b"")
    for line in inward:
        request = json.loads(line)
        data = inward.read(request["bytes"])
        sandbox.limit_processor(cpu_seconds)
        read = partial(read_bytes, data, options=options, **request["hints"])
        meta, text = _answer(read, output_bytes)
        _send(outward, meta, text)


def _warm_up() -> None:
    """Load what reading needs: later no file can be opened, Python's own included."""
    for name in ("kreuzberg", "bs4", "html.parser", "charset_normalizer", "xml.parsers.expat"):
        importlib.import_module(name)
    for module in pkgutil.iter_modules(encodings.__path__):
        with contextlib.suppress(ImportError):  # those of another system
            importlib.import_module(f"encodings.{module.name}")


def _answer(read: Callable[[], Document], output_bytes: int) -> tuple[dict[str, Any], bytes]:
    try:
        document = read()
        text = document.text.encode("utf-8")
        if len(text) > output_bytes:
            raise Unreadable(f"gives more than {output_bytes / 1e6:.0f} MB of text")
        return _meta(document), text
    except Unreadable as exc:
        return {"error": str(exc)}, b""
    except MemoryError:
        # What is left of this process may be in pieces.
        return {"error": "takes too much memory to read", "last": True}, b""
    except Exception as exc:  # a parser may raise anything; the caller skips the file
        return {"error": f"cannot be parsed: {type(exc).__name__}: {exc}"[:300]}, b""


def _meta(document: Document) -> dict[str, Any]:
    return {
        "title": document.title,
        "media_type": document.media_type,
        "warnings": document.warnings,
        "parts": [(part.start, part.end, part.page, part.headings) for part in document.parts],
    }


def _send(outward: BinaryIO, meta: dict[str, Any], text: bytes) -> None:
    packed = json.dumps(meta).encode("ascii")
    outward.write(_HEADER.pack(len(packed), len(text)))
    outward.write(packed)
    outward.write(text)
    outward.flush()


if __name__ == "__main__":
    main()
