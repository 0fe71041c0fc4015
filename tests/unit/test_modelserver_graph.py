"""The checked-in graph of all-MiniLM-L6-v2 is the one its script builds."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import onnx

SCRIPT = Path(__file__).resolve().parents[2] / "scripts/make_minilm_graph.py"


def test_the_graph_is_up_to_date_and_small() -> None:
    spec = importlib.util.spec_from_file_location("make_minilm_graph", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    built = script.build()
    assert onnx.load(str(script.TARGET), load_external_data=False) == built
    assert script.TARGET.stat().st_size < 64 * 1024
