"""JSON lines and arrays: values exact, broken lines by number, columns by the sample."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from pgstack.datasets import Options, batch
from pgstack.datasets.jsonl import JsonlReader
from pgstack.datasets.source import find
from pgstack.errors import UsageError

pytest.importorskip("pyarrow")
Row = dict[str, str | None]


def reader(tmp_path: Path, data: bytes | str) -> JsonlReader:
    path = tmp_path / "data.jsonl"
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return JsonlReader(find(path), Options())


def read(found: JsonlReader) -> tuple[list[Row], list[tuple[int, str]], list[str]]:
    """Rows, line and reason of rejects, notes."""
    rows: list[Row] = []
    rejects, notes = [], []
    names = [c.source for c in found.columns]
    for part in found.batches(found.columns, found.start()):
        texts = [c.to_pylist() for c in part.columns]
        rows += [dict(zip(names, row, strict=True)) for row in zip(*texts, strict=True)]
        rejects += [(r.line, r.reason) for r in part.rejects]
        notes += part.notes
    return rows, rejects, notes


def types(found: JsonlReader) -> dict[str, str]:
    return {c.source: c.type for c in found.columns}


def test_types_and_exact_values(tmp_path: Path) -> None:
    first = (
        '{"i": 1, "big": 12345678901234567890, "d": 0.10, "s": "007", "b": true, '
        '"day": "2020-01-02", "at": "2020-01-02T03:04:05Z", "u": '
        '"6f1b5c2a-0b0c-4d5e-8f90-123456789abc", "tags": ["a\\"b", null, "c,d"], "n": [1, 2], '
        '"x": [1, 2.50], "o": {"p": 1.10, "q": [null, {}]}, "m": 1, "nothing": null, "e": []}\n'
    )
    second = '{"i": -5, "m": "text", "o": 3, "d": 2}\n'
    found = reader(tmp_path, first + second)
    assert types(found) == {
        **{"i": "bigint", "big": "numeric", "d": "numeric", "s": "text", "b": "boolean"},
        **{"day": "date", "at": "timestamptz", "u": "uuid", "tags": "jsonb", "n": "bigint[]"},
        **{"x": "numeric[]", "o": "jsonb", "m": "jsonb", "nothing": "text", "e": "jsonb"},
    }
    one, two = read(found)[0]
    assert one["big"] == "12345678901234567890"
    assert one["d"] == "0.10"
    assert one["x"] == '{"1","2.50"}'
    assert one["o"] == '{"p": 1.10, "q": [null, {}]}'
    assert (one["m"], two["m"]) == ("1", '"text"')
    assert (two["o"], two["b"], two["s"]) == ("3", None, None)
    assert types(reader(tmp_path, '{"t": ["a", "b"]}\n'))["t"] == "text[]"


def test_broken_lines_have_their_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch, "BLOCK_BYTES", 32)
    lines = [
        b'{"a": 1}',
        b"",
        b'{"a": 2',  # 3
        b"[1]",  # 4
        b'{"a": "caf\xe9"}',  # 5
        b'{"a": "\\ud83d"}',  # 6
        b'{"a": "\\ud83d\\ude00"}',
        b"[" * 100_000,  # 8
        b'{"a": ' + b"9" * 5000 + b"}",  # 9
        b'{"a": 3}',
    ]
    rows, rejects, _ = read(reader(tmp_path, b"\n".join(lines)))
    assert [row["a"] for row in rows] == ["1", '"😀"', "3"]
    assert [line for line, _ in rejects] == [3, 4, 5, 6, 8, 9]
    assert all(reason for _, reason in rejects)


def test_keys_that_come_late_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pgstack.datasets.jsonl.SAMPLE_BYTES", 20)
    found = reader(tmp_path, '{"a": 1}\n{"a": 2}\n{"a": 3, "late": 4}\n')
    rows, rejects, notes = read(found)
    assert (len(rows), rejects) == (3, [])
    assert notes == ['key "late" has no column: first in line 3']


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("block", [40, 1000])
def test_arrays_of_objects(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, indent: int | None, block: int
) -> None:
    monkeypatch.setattr(batch, "BLOCK_BYTES", block)
    rng = random.Random(5)
    pieces = ["{", "}", '"', "\\", "[", "]", ",", "\n", "x", "ü"]
    made: list[dict[str, Any]] = [
        {"id": nr, "text": "".join(rng.choices(pieces, k=6)), "o": {"p": {"q": nr}}}
        for nr in range(60)
    ]
    rows, rejects, _ = read(reader(tmp_path, json.dumps(made, indent=indent)))
    assert [(row["id"], row["text"]) for row in rows] == [(str(m["id"]), m["text"]) for m in made]
    assert rejects == []


def test_files_that_are_no_json(tmp_path: Path) -> None:
    for data in ("", "a,b\n1,2\n", "[1, 2, 3]", '"x"\n', "{}\n"):
        with pytest.raises(UsageError) as caught:
            reader(tmp_path, data)
        assert caught.value.hint
