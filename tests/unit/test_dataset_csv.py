"""CSV: where records end, which are broken and in which line, and what columns there are."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import lzma
import random
from pathlib import Path
from typing import Any

import pytest

from pgstack.datasets import Options, batch, inspect
from pgstack.datasets.csv_file import CsvReader
from pgstack.datasets.source import find
from pgstack.errors import PgstackError, UsageError

pa = pytest.importorskip("pyarrow")


def reader(tmp_path: Path, data: bytes | str, name: str = "data.csv", **options: Any) -> CsvReader:
    path = tmp_path / name
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return CsvReader(find(path), Options(**options))


def read(found: CsvReader) -> tuple[list[tuple[str | None, ...]], list[tuple[int, str]]]:
    """All rows, and line and reason of each reject."""
    rows: list[tuple[str | None, ...]] = []
    rejects = []
    for part in found.batches(found.columns, found.start()):
        columns = [c.cast(pa.string()).to_pylist() for c in part.columns]
        rows += zip(*columns, strict=True)
        rejects += [(r.line, r.reason) for r in part.rejects]
    return rows, rejects


def types(found: CsvReader) -> dict[str, str]:
    return {c.source: c.type for c in found.columns}


# -- records ----------------------------------------------------------------------------


def test_quotes_newlines_and_empty_fields(tmp_path: Path) -> None:
    data = 'a,b,c\n1,"x, ""y""\nz",\n2,"",5" disk\n\n3,"q"r,"s"\r\n'
    rows, rejects = read(reader(tmp_path, data))
    assert rows == [("1", 'x, "y"\nz', None), ("2", "", '5" disk'), ("3", "qr", "s")]
    assert rejects == []


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("block", [64, 257, 4096])
def test_any_file_reads_as_python_reads_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int, block: int
) -> None:
    """Blocks of any size cut between records."""
    monkeypatch.setattr(batch, "BLOCK_BYTES", block)
    rng = random.Random(seed)
    pieces = ["a", "ü😀", ",", '"', "\n", "\r\n", "\t", "\\", " ", "x" * 40, "12"]
    made = [["".join(rng.choices(pieces, k=rng.randint(1, 6))) for _ in "123"] for _ in range(300)]
    out = io.StringIO(newline="")
    writer = csv.writer(out, lineterminator=rng.choice(["\n", "\r\n"]))
    writer.writerows([["a", "b", "c"], *made])
    rows, rejects = read(reader(tmp_path, out.getvalue(), delimiter=","))
    assert rows == [tuple(row) for row in made]
    assert rejects == []


def test_broken_records_have_their_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch, "BLOCK_BYTES", 64)
    lines = [
        b"id,name",
        b'1,"two\nlines"',  # lines 2 and 3
        b"2,a,b",  # 4
        b"3",  # 5
        b"4,caf\xe9",  # 6
        b"5,nul\0",  # 7
        b"",
        b'6,"three\n\nlines"',  # 9 to 11
        b"7,x,y",  # 12
        b"8,fine",
    ]
    rows, rejects = read(reader(tmp_path, b"\n".join(lines), encoding="utf-8"))
    assert rows == [("1", "two\nlines"), ("6", "three\n\nlines"), ("8", "fine")]
    assert [line for line, _ in rejects] == [4, 5, 6, 7, 12]
    assert [reason.split()[0] for _, reason in rejects] == ["3", "1", "bytes", "a", "3"]


def test_a_quote_that_is_never_closed_costs_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch, "BLOCK_BYTES", 128)
    monkeypatch.setattr(batch, "RECORD_BYTES", 256)
    data = "a,b\n" + '1,"open\n' + "".join(f"{n},x\n" for n in range(2, 200))
    rows, rejects = read(reader(tmp_path, data))
    assert [row[0] for row in rows] == [str(n) for n in range(2, 200)]
    assert rejects == [(2, "a quote is not closed")]


def test_origins_of_rows_are_lines(tmp_path: Path) -> None:
    found = reader(tmp_path, 'a,b\n1,"x\ny"\n\n2,z\n')
    (part,) = found.batches(found.columns, found.start())
    assert [part.origin(0), part.origin(1)] == [(2, '1,"x\ny"\n'), (5, "2,z\n")]


@pytest.mark.parametrize("ending", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("block", [16, 17, 18, 19, 4096])
def test_line_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: str, block: int
) -> None:
    monkeypatch.setattr(batch, "BLOCK_BYTES", block)
    data = ending.join(["a,b", *(f"{n},x{n}" for n in range(50)), "1,2,3"])
    rows, rejects = read(reader(tmp_path, data))
    assert rows == [(str(n), f"x{n}") for n in range(50)]
    assert rejects == [(52, "3 fields instead of 2")]


def test_no_garbage_breaks_the_reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is in a file, each record is a row or a reject, in the order of lines."""
    pieces = [
        *(b"a,b\n", b"1,2\r\n", b'"q,""\n",', b"a", b'"', b",", b"\n", b"\r", b"\\", b"x" * 20),
        *(b",y\n", b"\xc3\xbc", b"\xff", b"\0"),
    ]
    found = 0
    for seed in range(200):
        rng = random.Random(seed)
        monkeypatch.setattr(batch, "BLOCK_BYTES", rng.choice([40, 100, 1000, 100_000]))
        monkeypatch.setattr(batch, "RECORD_BYTES", rng.choice([200, 2000]))
        body = b"".join(rng.choices(pieces, k=rng.randint(1, 800)))
        try:
            made = reader(tmp_path, b"a,b\n" + body, delimiter=",", encoding="utf-8")
        except UsageError:  # half of it are control characters
            continue
        end = len(body) + 4
        for part in made.batches(made.columns, made.start()):
            lines = [part.origin(row)[0] for row in range(part.rows)]
            assert lines == sorted(set(lines))
            assert not set(lines) & {reject.line for reject in part.rejects}
            end = part.end.position
            found += part.rows
        assert end == len(body) + 4
    assert found > 100


# -- dialects and charsets --------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "delimiter", "columns"),
    [
        ("a,b\n1,2\n", ",", 2),
        ("a;b;c\n1,5;2,5;3,5\n4,5;5,5;6,5\n", ";", 3),
        ("a\tb\nx, y\tz\n", "\t", 2),
        ("a|b\n1|2\n", "|", 2),
        ("one\n1\n2\n", ",", 1),
        ('a;b\n"1,2,3";4\n"5,6";7\n', ";", 2),
    ],
)
def test_the_delimiter_is_found(tmp_path: Path, data: str, delimiter: str, columns: int) -> None:
    found = reader(tmp_path, data)
    assert (found.delimiter, len(found.columns)) == (delimiter, columns)


def test_options_of_reading(tmp_path: Path) -> None:
    data = "1|'a|b'|NA\n2|c|\n"
    found = reader(tmp_path, data, delimiter="|", quote="'", header=False, null=["NA"])
    assert [c.source for c in found.columns] == ["column_1", "column_2", "column_3"]
    assert read(found)[0] == [("1", "a|b", None), ("2", "c", "")]
    assert read(reader(tmp_path, 'a,b\n"x,y\n', quote=""))[0] == [('"x', "y")]
    for bad in ({"delimiter": "ab"}, {"quote": "é"}, {"encoding": "klingon"}, {"delimiter": "\n"}):
        with pytest.raises(UsageError) as caught:
            reader(tmp_path, data, **bad)
        assert caught.value.hint


TEXT = "name,stadt\nMüller,Köln\nJürgen,Nürnberg\nGroß,Düsseldorf\n"


@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32", "cp1252", "latin-1"]
)
def test_charsets(tmp_path: Path, encoding: str) -> None:
    found = reader(tmp_path, TEXT.encode(encoding))
    assert read(found)[0] == [("Müller", "Köln"), ("Jürgen", "Nürnberg"), ("Groß", "Düsseldorf")]
    assert [c.source for c in found.columns] == ["name", "stadt"]


def test_bytes_that_are_not_of_a_charset_are_rejected(tmp_path: Path) -> None:
    rows, rejects = read(reader(tmp_path, b"a,b\n1,\x82\xa0\n2,\x82\n3,x\n", encoding="cp932"))
    assert rows == [("1", "あ"), ("3", "x")]
    assert [line for line, _ in rejects] == [3]


@pytest.mark.parametrize("kind", ["gz", "bz2", "xz", "zst"])
def test_compressed_files(tmp_path: Path, kind: str) -> None:
    data = ("a,b\n" + "".join(f"{n},x{n}\n" for n in range(10_000))).encode()
    packed = {
        "gz": lambda: gzip.compress(data[:500]) + gzip.compress(data[500:]),
        "bz2": lambda: bz2.compress(data),
        "xz": lambda: lzma.compress(data),
        "zst": lambda: pa.compress(data, codec="zstd", asbytes=True),
    }[kind]()
    found = reader(tmp_path, packed, f"data.csv.{kind}")
    assert len(read(found)[0]) == 10_000
    with pytest.raises(PgstackError, match="damaged"):
        read(reader(tmp_path, packed[: len(packed) // 2], f"half.csv.{kind}"))


@pytest.mark.parametrize("data", [b"", b"\n\n", b"PK\x03\x04\0\0\0\0", b"\x1f\x8b\x08\x00"])
def test_files_that_are_no_csv(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(PgstackError) as caught:
        reader(tmp_path, data)
    assert caught.value.hint


# -- types and names --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (["1", "-2", "", "999999999999999999"], "bigint"),
        (["1", "12345678901234567890123"], "numeric"),
        (["1", "2.50", ".5", "3."], "numeric"),
        (["1e5", "2.5"], "double precision"),
        (["nan", "1"], "double precision"),
        (["00123", "12"], "text"),
        (["+49", "1"], "text"),
        (["true", "FALSE", ""], "boolean"),
        (["t", "f"], "text"),
        (["2020-01-02"], "date"),
        (["2020-01-02 03:04", "2020-01-02T03:04:05.678"], "timestamp"),
        (["2020-01-02T03:04:05Z", "2020-01-02 03:04:05+0200"], "timestamptz"),
        (["03:04", "23:59:59"], "time"),
        (["6f1b5c2a-0b0c-4d5e-8f90-123456789abc"], "uuid"),
        (["", ""], "text"),
        (["1", "x"], "text"),
        ([".", "-"], "text"),
    ],
)
def test_types_are_read_off_the_values(tmp_path: Path, values: list[str], kind: str) -> None:
    found = reader(tmp_path, "a,b\n" + "".join(f"{value},x\n" for value in values))
    assert types(found)["a"] == kind


def test_names_are_made_unique_and_told(tmp_path: Path) -> None:
    path = tmp_path / "data.csv"
    long = "ü" * 40
    path.write_text(f'a,A,a,,"x"";drop table t;--",{long},{long}, a \n1,2,3,4,5,6,7,8\n')
    found = inspect(path)
    names = [c.name for c in found.columns]
    cut = "ü" * 31
    assert names == [
        *("a", "A", "a_2", "column_4", 'x";drop table t;--'),
        *(cut, "ü" * 30 + "_2", "a_3"),
    ]
    assert all(len(name.encode()) <= 63 for name in names)
    assert '"x"";drop table t;--" bigint' in found.create_table
    assert len(found.notes) == 5


def test_options_for_the_table(tmp_path: Path) -> None:
    path = tmp_path / "data.csv"
    path.write_text("ID,price,junk\n1,2,3\n")
    made = inspect(
        path,
        table="shop.sales",
        options=Options(
            columns={"ID": "nr", "junk": ""}, types={"price": "numeric(10,2)"}, key=["nr"]
        ),
    )
    assert made.create_table == (
        'create table "shop"."sales" (\n  "nr" bigint,\n  "price" numeric(10,2),\n'
        '  primary key ("nr")\n)'
    )
    keyed = inspect(path, options=Options(columns={"ID": "id_of_file"}, generated_key=True))
    assert '"id" bigint generated by default as identity primary key' in keyed.create_table
    for wrong in (
        Options(types={"nope": "text"}),
        Options(types={"price": "int; drop table x"}),
        Options(columns={"nope": "x"}),
        Options(columns={"ID": "id"}, generated_key=True),
        Options(columns={"ID": "x" * 64}),
        Options(columns={"ID": "", "price": "", "junk": ""}),
        Options(key=["nope"]),
        Options(format="xls"),
    ):
        with pytest.raises(UsageError) as caught:
            inspect(path, options=wrong)
        assert caught.value.hint
