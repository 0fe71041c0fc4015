"""The embedded model server: the Ollama HTTP API in a process of its own.

    python -m pgstack.embedded.modelserver --port 0 --models-dir DIR --url-file FILE

This module is what other parts of pgstack use; it imports nothing heavy.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pgstack.embedded.modelserver.download import Progress, fetch, is_installed, known
from pgstack.errors import EmbeddedError

__all__ = ["Progress", "fetch", "is_installed", "known", "start_deterministic"]

_START_SECONDS = 20.0


@contextmanager
def start_deterministic(
    *, latency_ms: float = 0, dims: int = 384, vectors: str = "words", port: int = 0
) -> Iterator[str]:
    """Run the deterministic server for the length of a ``with`` block; gives its base URL."""
    options = ["--deterministic", f"--latency-ms={latency_ms}", f"--dims={dims}"]
    with start([*options, f"--vectors={vectors}"], port=port) as url:
        yield url


@contextmanager
def start(options: list[str], *, port: int = 0) -> Iterator[str]:
    """Run a model server with these options for the length of a ``with`` block.

    It ends with this process, too, however that ends: it watches its standard input.
    """
    with tempfile.TemporaryDirectory(prefix="pgstack-models-") as folder:
        url_file = Path(folder) / "url"
        log = Path(folder) / "log"
        module = [sys.executable, "-m", "pgstack.embedded.modelserver"]
        fixed = [f"--port={port}", f"--url-file={url_file}", "--exit-on-eof"]
        with log.open("wb") as output:
            process = subprocess.Popen(
                [*module, *fixed, *options], stdin=subprocess.PIPE, stdout=output, stderr=output
            )
        try:
            yield _wait_for_url(process, url_file, log)
        finally:
            process.terminate()
            process.communicate()


def _wait_for_url(process: subprocess.Popen[bytes], url_file: Path, log: Path) -> str:
    """Return the URL once the server has written it."""
    deadline = time.monotonic() + _START_SECONDS
    while not url_file.exists():
        if process.poll() is not None or time.monotonic() > deadline:
            said = log.read_text(errors="replace").strip()[-500:]
            raise EmbeddedError(f"the model server did not start: {said}")
        time.sleep(0.01)
    return url_file.read_text().strip()
