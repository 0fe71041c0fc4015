"""Arrow's types as PostgreSQL's, and values as the text that PostgreSQL reads."""

from __future__ import annotations

import datetime as dt
import json
import sys
import uuid
from decimal import Decimal
from typing import Any

import pytest

from pgstack.datasets import text
from pgstack.errors import MissingExtra

pa = pytest.importorskip("pyarrow")
D = Decimal
MIDNIGHT_2001 = 978_307_200

VALUES = [
    (pa.array([1, None, -3], pa.int8()), "smallint", ["1", None, "-3"]),
    (pa.array([2**32 - 1], pa.uint32()), "bigint", ["4294967295"]),
    (pa.array([2**64 - 1], pa.uint64()), "numeric(20,0)", ["18446744073709551615"]),
    (pa.array([0.1, 1e300, float("inf")]), "double precision", ["0.1", "1e+300", "inf"]),
    (pa.array([0.1], pa.float32()), "real", ["0.1"]),
    (pa.array([1.5], pa.float16()), "real", ["1.5"]),
    (pa.array([D("12.30")], pa.decimal128(10, 2)), "numeric(10,2)", ["12.30"]),
    (pa.array([D(10) ** 50], pa.decimal256(60, 2)), "numeric(60,2)", ["1" + "0" * 50 + ".00"]),
    (pa.array([True, None]), "boolean", ["true", None]),
    (pa.array([dt.date(2020, 1, 2)], pa.date32()), "date", ["2020-01-02"]),
    (pa.array([dt.date(2020, 1, 2)], pa.date64()), "date", ["2020-01-02"]),
    (pa.array([3661], pa.time32("s")), "time", ["01:01:01"]),
    (pa.array([1000], pa.time64("ns")), "time", ["00:00:00.000001000"]),
    (pa.array([MIDNIGHT_2001], pa.timestamp("s")), "timestamp", ["2001-01-01 00:00:00"]),
    (
        pa.array([MIDNIGHT_2001], pa.timestamp("s", "Asia/Tokyo")),
        "timestamptz",
        ["2001-01-01 00:00:00Z"],
    ),
    (pa.array([-1, 90061], pa.duration("ms")), "interval", None),
    (pa.array([pa.MonthDayNano([1, 2, 3000])]), "interval", ["1 months 2 days 3 us"]),
    (pa.array([b"\x00\xff", None], pa.binary()), "bytea", ["\\x00ff", None]),
    (pa.array([b"abcd"], pa.binary(4)), "bytea", ["\\x61626364"]),
    (pa.array([b"a"], pa.binary_view()), "bytea", ["\\x61"]),
    (pa.array(["a"], pa.string_view()), "text", ["a"]),
    (pa.array(["a\tb"], pa.large_string()), "text", ["a\tb"]),
    (pa.array(["x", None, "x"]).dictionary_encode(), "text", ["x", None, "x"]),
    (pa.RunEndEncodedArray.from_arrays([2, 3], ["a", "b"]), "text", ["a", "a", "b"]),
    (pa.nulls(2), "text", [None, None]),
    (pa.array([[1, 2], None, [], [3]]), "bigint[]", ["{1,2}", None, "{}", "{3}"]),
    (pa.array([[1, None]]), "bigint[]", ['{"1",NULL}']),
    (pa.array([["a"], None, ["b", "c"]]).slice(1), "text[]", [None, '{"b","c"}']),
    (pa.array([["a,b", 'q"\\']]), "text[]", ['{"a,b","q\\"\\\\"}']),
    (pa.array([[0.5, 1]], pa.list_(pa.float32(), 2)), "real[]", ["{0.5,1}"]),
    (pa.array([[1, 2, 3]], pa.list_view(pa.int64())), "bigint[]", ["{1,2,3}"]),
    (pa.array([[1.5]], pa.large_list(pa.float64())), "double precision[]", ["{1.5}"]),
    (pa.array([[b"\x01"]]), "bytea[]", ['{"\\\\x01"}']),
    (pa.array([[dt.date(2020, 1, 1)]]), "date[]", ['{"2020-01-01"}']),
    (pa.array([[[1]], None]), "jsonb", ["[[1]]", None]),
    (pa.array([[{"a": 1}]]), "jsonb", ['[{"a": 1}]']),
    (pa.array([{"a": 1, "b": D("1.20")}]), "jsonb", ['{"a": 1, "b": 1.20}']),
    (pa.array([{"a": float("nan"), "t": dt.date(2020, 1, 1)}]), "jsonb", None),
    (pa.array([[("k", 1)], None], pa.map_(pa.string(), pa.int64())), "jsonb", ['{"k": 1}', None]),
    (
        pa.ExtensionArray.from_storage(
            pa.uuid(), pa.array([uuid.UUID(int=5).bytes], pa.binary(16))
        ),
        "uuid",
        ["00000000-0000-0000-0000-000000000005"],
    ),
    (pa.ExtensionArray.from_storage(pa.json_(), pa.array(['{"a":1}'])), "jsonb", ['{"a":1}']),
]


@pytest.mark.parametrize(
    ("values", "kind", "texts"), VALUES, ids=[f"{v.type} {t}" for v, t, _ in VALUES]
)
def test_each_type_of_arrow(values: Any, kind: str, texts: list[str | None] | None) -> None:
    assert text.postgres_type(values.type) == kind
    written = text.as_text(values, kind)
    if texts is not None:
        assert written.to_pylist() == texts
    assert len(text.copy_lines([written])) == len(values)


def test_durations_and_what_json_does_not_know() -> None:
    duration = text.as_text(pa.array([-1, 90061], pa.duration("ms")), "interval")
    assert duration.to_pylist() == ["-1000 microseconds", "90061000 microseconds"]
    assert json.loads(text.as_json({"a": float("nan"), "b": b"\x01", "c": [D("1e400")]})) == {
        "a": None,
        "b": "\\x01",
        "c": [float("inf")],
    }


def test_lists_for_pgvector_are_in_brackets() -> None:
    assert text.as_text(pa.array([[1.0, 2.5]]), "vector(2)").to_pylist() == ["[1,2.5]"]


def test_lines_for_copy_escape_what_copy_would_read() -> None:
    columns = [pa.array(["a\tb", "\\N", None]), pa.array(["x\r\ny", "", "z"])]
    assert text.copy_lines(columns).to_pylist() == [b"a\\tb\tx\\r\\ny\n", b"\\\\N\t\n", b"\\N\tz\n"]
    part = text.copy_lines(columns).slice(1, 1)
    assert bytes(text.content(part)) == b"\\\\N\t\n"


def test_without_pyarrow_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingExtra) as caught:
        text.arrow()
    assert "pip install 'pgstack[datasets]'" in str(caught.value.hint)
