"""Data sets into tables: what is stored is what the file says, what does not fit is aside."""

from __future__ import annotations

import csv
import datetime as dt
import os
import random
from decimal import Decimal
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql

from pgstack.datasets import Options, batch, forget, load_dataset, loads, rejects
from pgstack.db import connect
from pgstack.errors import (
    MissingPrivilege,
    NameTaken,
    TableBusy,
    TooManyRejects,
    UnknownVectorizer,
    UsageError,
)
from tests.conftest import make_url
from tests.integration.conftest import value

pa = pytest.importorskip("pyarrow")
Conn = psycopg.Connection[Any]
DATA = Path(os.environ.get("PGSTACK_DATA_DIR", Path(__file__).parents[3] / "shared" / "data"))


def write(path: Path, text: str | bytes) -> Path:
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def rows(conn: Conn, table: str = "t", order: str = "1") -> list[tuple[Any, ...]]:
    return conn.execute(f"select * from {table} order by {order}".encode()).fetchall()


def columns(conn: Conn, table: str = "t") -> dict[str, str]:
    return dict(
        conn.execute(
            "select attname, format_type(atttypid, atttypmod) from pg_attribute "
            "where attrelid = %s::regclass and attnum > 0 order by attnum",
            (table,),
        ).fetchall()
    )


# -- new tables -------------------------------------------------------------------------


def test_a_csv_file(db: Conn, tmp_path: Path) -> None:
    path = write(
        tmp_path / "a.csv",
        'id,price,day,note\n1,12.30,2020-01-02,"a ""b""\nc"\n2,,,""\n3,1e3,2020-01-03,\\N\\t\n',
    )
    report = load_dataset(db, path, table="t")
    assert (report.rows, report.rejects, report.table) == (3, 0, "public.t")
    assert columns(db) == {
        **{"id": "bigint", "price": "double precision"},
        **{"day": "date", "note": "text"},
    }
    assert rows(db) == [
        (1, 12.3, dt.date(2020, 1, 2), 'a "b"\nc'),
        (2, None, None, ""),
        (3, 1000, dt.date(2020, 1, 3), "\\N\\t"),
    ]
    (load,) = loads(db)
    assert (load.state, load.rows, load.bytes_read, load.bytes) == (
        *("done", 3),
        *[path.stat().st_size] * 2,
    )


def test_options_of_a_new_table(db: Conn, tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "ID,price,zip,junk\n7,12.30,007,x\n8,1.5,08,y\n")
    db.execute("create schema shop")
    options = Options(
        types={"price": "numeric(10,2)", "zip": "varchar(3)"},
        columns={"ID": "nr", "junk": ""},
        key=["nr"],
    )
    report = load_dataset(db, path, table="shop.sales", options=options)
    assert report.has_key
    assert columns(db, "shop.sales") == {
        **{"nr": "bigint", "price": "numeric(10,2)"},
        "zip": "character varying(3)",
    }
    assert rows(db, "shop.sales") == [(7, Decimal("12.30"), "007"), (8, Decimal("1.50"), "08")]
    report = load_dataset(db, path, table="keyed", options=Options(generated_key=True))
    assert [row[:2] for row in rows(db, "keyed")] == [(1, 7), (2, 8)]
    db.execute('insert into keyed ("ID") values (9)')
    assert value(db, "select max(id) from keyed") == 3


@pytest.mark.parametrize("name", ['a";drop table x;--', "My Table", "ünï 😀", "select", "x" * 63])
def test_hostile_names(db: Conn, tmp_path: Path, name: str) -> None:
    head = 'a,A,,"x"";drop table t;--",a,"%s","{}"'
    path = write(tmp_path / "a.csv", f"{head}\n1,2,3,4,5,6,7\n")
    report = load_dataset(db, path, table=name)
    found = sql.Identifier(name if name != "select" else "select")
    assert db.execute(sql.SQL("select * from {}").format(found)).fetchall() == [
        (1, 2, 3, 4, 5, 6, 7)
    ]
    assert list(columns(db, report.table)) == [
        *("a", "A", "column_3", 'x";drop table t;--', "a_2", "%s", "{}")
    ]
    assert len(report.notes) == 2


@pytest.mark.parametrize("name", ["", "x" * 64, "a.b.c.d", "absent.t"])
def test_names_that_will_not_do(db: Conn, tmp_path: Path, name: str) -> None:
    path = write(tmp_path / "a.csv", "a\n1\n")
    with pytest.raises(UsageError) as caught:
        load_dataset(db, path, table=name)
    assert caught.value.hint
    for kind in ("nonsense", "int; drop table x", "int)", ""):
        with pytest.raises(UsageError) as caught:
            load_dataset(db, path, table="t", options=Options(types={"a": kind}))
        assert caught.value.hint


def test_parquet_of_all_types(db: Conn, tmp_path: Path) -> None:
    from pyarrow import parquet

    from tests.unit.test_dataset_text import VALUES

    arrays: dict[str, Any] = {}
    for nr, (values, _, _) in enumerate(VALUES):
        padded = values.to_pylist()[:1]
        try:
            one = pa.array(padded, values.type)
        except (pa.ArrowException, TypeError, NotImplementedError):
            one = values.slice(0, 1)
        arrays[f"c{nr}"] = one
    writable = {}
    for name, array in arrays.items():
        try:
            parquet.write_table(pa.table({name: array}), tmp_path / "try.parquet")
        except (pa.ArrowException, NotImplementedError):
            continue
        writable[name] = array
    assert len(writable) >= len(VALUES) - 5
    path = tmp_path / "all.parquet"
    parquet.write_table(pa.table(writable), path)
    report = load_dataset(db, path, table="t")
    assert (report.rows, report.rejected) == (1, ())
    stored = rows(db)[0]
    for (name, array), found in zip(writable.items(), stored, strict=True):
        said = array.to_pylist(maps_as_pydicts="lossy")[0]
        if isinstance(found, dict | list | Decimal | dt.datetime) or pa.types.is_interval(
            array.type
        ):
            continue  # compared as text in the unit tests
        if isinstance(said, float):
            assert found == pytest.approx(said), name
        else:
            assert str(found) == str(said), name


def test_parquet_in_many_batches(db: Conn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pyarrow import parquet

    monkeypatch.setattr("pgstack.datasets.parquet.ROWS_MAX", 70)
    path = tmp_path / "a.parquet"
    ids = pa.array(range(1000))
    texts = pa.array([None if n % 7 == 0 else f"t\t{n}\n" for n in range(1000)])
    parquet.write_table(pa.table({"id": ids, "t": texts}), path, row_group_size=300)
    report = load_dataset(db, path, table="t")
    assert report.rows == 1000
    assert rows(db) == list(zip(ids.to_pylist(), texts.to_pylist(), strict=True))


# -- rejects ----------------------------------------------------------------------------


def late(path: Path, count: int = 3000) -> tuple[list[int], Path]:
    """A CSV file whose columns are numbers until something else comes; the lines of that."""
    rng = random.Random(4)
    bad = []
    line = 2
    with path.open("w", newline="") as file:
        file.write("id,n,note\n")
        for nr in range(count):
            text = f"two\nlines {nr}" if rng.random() < 0.2 else f"note {nr}"
            wrong = nr > 100 and rng.random() < 0.03
            if wrong:
                bad.append(line)
            csv.writer(file, lineterminator="\n").writerow([nr, "abc" if wrong else nr * 2, text])
            line += 1 + text.count("\n")
    return bad, path


def test_values_that_come_late_and_do_not_fit(
    db: Conn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch, "BLOCK_BYTES", 5000)
    monkeypatch.setattr("pgstack.datasets.csv_file.SAMPLE_BYTES", 1000)
    bad, path = late(tmp_path / "a.csv")
    report = load_dataset(db, path, table="t")
    assert len(bad) > 50
    assert (report.rows, report.rejects) == (3000 - len(bad), len(bad))
    found = rejects(db, report.load)
    assert [r.line for r in found] == bad
    assert {r.column for r in found} == {"n"}
    assert "invalid input syntax for type bigint" in found[0].reason
    lines = path.read_text().splitlines(keepends=True)
    assert all(r.raw.startswith(lines[r.line - 1]) for r in found)
    assert value(db, "select count(*) from t where n = id * 2") == report.rows
    assert [r[0] for r in rows(db, order="ctid")] == sorted(r[0] for r in rows(db))


def test_all_that_can_be_wrong_with_a_record(db: Conn, tmp_path: Path) -> None:
    good = "".join(f"{n},1,x\n" for n in range(10, 400)).encode()
    path = write(
        tmp_path / "a.csv",
        b"id,n,t\n1,2,fine\n2,99999999999999999999,big\n3,1\n4,1,\xff\n5,1,a\0b\n1,1,again\n"
        b"\n,1,no key\n" + good,
    )
    report = load_dataset(
        db, path, table="t", options=Options(types={"n": "bigint"}, key=["id"], encoding="utf-8")
    )
    said = {r.line: (r.column, r.reason) for r in rejects(db, report.load)}
    assert sorted(said) == [3, 4, 5, 6, 7, 9]
    assert said[3][0] == "n"
    assert "out of range" in said[3][1]
    assert "duplicate key" in said[7][1]
    assert "null value" in said[9][1]
    assert report.rows == 391


def test_json_values_that_postgresql_refuses(db: Conn, tmp_path: Path) -> None:
    lines = ['{"t": "x", "o": {"a": 1}, "n": 1}'] * 3
    lines[1:1] = ['{"t": "a\\u0000b"}', '{"o": {"a": "\\u0000"}}', '{"n": "abc"}', '{"n": 1.5}']
    path = write(tmp_path / "a.jsonl", "\n".join(lines))
    report = load_dataset(db, path, table="t", options=Options(types={"n": "bigint"}))
    found = rejects(db, report.load)
    assert [(r.line, r.column) for r in found][1:] == [(3, "o"), (4, "n"), (5, "n")]
    assert found[0].line == 2
    assert report.rows == 3


def test_constraints_that_name_no_row(db: Conn, tmp_path: Path) -> None:
    db.execute("create table place (id int primary key)")
    db.execute("insert into place select generate_series(1, 90)")
    db.execute("create table t (id int, place int references place, check (id <> 50))")
    path = write(tmp_path / "a.csv", "id,place\n" + "".join(f"{n},{n}\n" for n in range(1, 101)))
    report = load_dataset(db, path, table="t", mode="append")
    assert [r.line for r in rejects(db, report.load)] == [51, *range(92, 102)]
    assert report.rows == 89


def test_too_many_rejects_stop_the_load_which_can_go_on(
    db: Conn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch, "BLOCK_BYTES", 5000)
    monkeypatch.setattr("pgstack.datasets.csv_file.SAMPLE_BYTES", 1000)
    bad, path = late(tmp_path / "a.csv")
    with pytest.raises(TooManyRejects, match="more than 10 records") as caught:
        load_dataset(db, path, table="t", max_rejects=10)
    (load,) = loads(db)
    assert load.state == "failed"
    assert load.rows == value(db, "select count(*) from t")
    assert f"pgstack dataset rejects {load.load}" in str(caught.value.hint)
    assert "n=text" in str(caught.value.hint)
    assert [r.line for r in rejects(db, load.load)] == bad[:11]
    report = load_dataset(db, path, table="t", max_rejects=1000)
    assert [r.line for r in rejects(db, report.load)] == bad
    assert report.rows == 3000 - len(bad)
    assert report.resumed == load.rows > 0


# -- tables that exist ------------------------------------------------------------------


def test_a_table_that_exists(db: Conn, tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "ID,note\n1,a\n2,b\n")
    load_dataset(db, path, table="t")
    with pytest.raises(NameTaken) as caught:
        load_dataset(db, path, table="t")
    assert all(word in str(caught.value.hint) for word in ("--append", "--replace", "--table"))
    assert load_dataset(db, path, table="t", mode="append").rows == 2
    assert len(rows(db)) == 4
    assert load_dataset(db, path, table="t", mode="replace").rows == 2
    assert len(rows(db)) == 2
    with pytest.raises(UsageError, match="no table"):
        load_dataset(db, path, table="absent", mode="append")
    db.execute("create view v as select 1 as a")
    with pytest.raises(UsageError, match="is no table"):
        load_dataset(db, path, table="v", mode="append")


def test_columns_are_matched_by_name(db: Conn, tmp_path: Path) -> None:
    db.execute(
        'create table t (note text, "Id" int, made timestamptz default now(), tags text[], v jsonb)'
    )
    path = write(tmp_path / "a.jsonl", '{"id": 1, "NOTE": "x", "tags": ["a"], "v": "s"}\n')
    load_dataset(db, path, table="t", mode="append")
    assert [(r[0], r[1], r[3], r[4]) for r in rows(db)] == [("x", 1, ["a"], "s")]
    assert rows(db)[0][2] is not None
    other = write(tmp_path / "b.csv", "Id,extra\n1,2\n")
    with pytest.raises(UsageError, match='no column "extra"') as caught:
        load_dataset(db, other, table="t", mode="append")
    assert "extra=" in str(caught.value.hint)
    load_dataset(db, other, table="t", mode="append", options=Options(columns={"extra": ""}))
    assert len(rows(db)) == 2
    with pytest.raises(UsageError, match="new table"):
        load_dataset(db, other, table="t", mode="append", options=Options(key=["Id"]))


def test_replace_is_all_or_nothing(db: Conn, tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "id\n1\n2\n")
    load_dataset(db, path, table="t")
    broken = write(tmp_path / "b.csv", "id\n3\nx\n")
    with pytest.raises(TooManyRejects) as caught:
        load_dataset(db, broken, table="t", mode="replace", max_rejects=0)
    assert rows(db) == [(1,), (2,)]
    failed = loads(db)[0]
    assert (failed.state, failed.mode) == ("failed", "replace")
    assert f"rejects {failed.load} " in str(caught.value.hint)
    assert [r.line for r in rejects(db, failed.load)] == [3]
    assert load_dataset(db, broken, table="t", mode="replace").rows == 1
    assert rows(db) == [(3,)]


# -- going on ---------------------------------------------------------------------------


class Broken(Exception):
    pass


@pytest.fixture
def broken_off(db: Conn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file of which some blocks were loaded into t."""
    monkeypatch.setattr(batch, "BLOCK_BYTES", 1000)
    path = write(tmp_path / "a.csv", "id,n\n" + "".join(f"{n},{n}\n" for n in range(1000)))

    def stop(done: int, total: int | None) -> None:
        if done > 3000:
            raise Broken

    with pytest.raises(Broken):
        load_dataset(db, path, table="t", progress=stop)
    assert 0 < len(rows(db)) < 1000
    return path


def test_the_same_call_goes_on(db: Conn, broken_off: Path) -> None:
    there = len(rows(db))
    report = load_dataset(db, broken_off, table="t")
    assert (report.rows, report.resumed) == (1000, there)
    assert rows(db) == [(n, n) for n in range(1000)]
    assert "going on" in report.notes[0]
    with pytest.raises(NameTaken):
        load_dataset(db, broken_off, table="t")


def test_another_file_or_other_options_do_not_go_on(db: Conn, broken_off: Path) -> None:
    there = len(rows(db))
    with pytest.raises(UsageError, match="other options"):
        load_dataset(db, broken_off, table="t", options=Options(types={"n": "text"}))
    with pytest.raises(UsageError, match="broken off"):
        load_dataset(db, broken_off, table="t", mode="append")
    text = broken_off.read_text()
    broken_off.write_text(text.replace("500,500", "500,501"))
    with pytest.raises(Exception, match="has changed") as caught:
        load_dataset(db, broken_off, table="t")
    assert "--restart" in caught.value.hint  # type: ignore[attr-defined]
    assert len(rows(db)) == there
    report = load_dataset(db, broken_off, table="t", restart=True)
    assert (report.rows, report.resumed) == (1000, 0)
    assert value(db, "select n from t where id = 500") == 501
    assert len(loads(db)) == 1


def test_a_table_that_was_dropped_meanwhile(db: Conn, broken_off: Path) -> None:
    db.execute("drop table t")
    report = load_dataset(db, broken_off, table="t")
    assert (report.rows, report.resumed) == (1000, 0)


def test_append_goes_on_and_restart_says_what_stays(
    db: Conn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken_off: Path
) -> None:
    db.execute("create table u (id int, n int)")

    def stop(done: int, total: int | None) -> None:
        if done > 3000:
            raise Broken

    for restart in (False, True):
        with pytest.raises(Broken):
            load_dataset(db, broken_off, table="u", mode="append", progress=stop)
        there = len(rows(db, "u"))
        report = load_dataset(db, broken_off, table="u", mode="append", restart=restart)
        assert report.rows == 1000
        if restart:
            assert len(rows(db, "u")) == there + 1000
            assert f"{there - 1000} rows that were appended before stay" in report.notes[0]
        else:
            assert len(rows(db, "u")) == 1000


def test_two_at_once(db: Conn, db_url: str, broken_off: Path) -> None:
    number = loads(db)[0].load
    with connect(db_url, autocommit=True) as other:
        other.execute("select _pgstack.dataset_lock(%s)", (number,))
        with pytest.raises(TableBusy):
            load_dataset(db, broken_off, table="t")
    assert load_dataset(db, broken_off, table="t").rows == 1000


def test_a_connection_must_commit(db_url: str, tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "a\n1\n")
    with connect(db_url) as conn, pytest.raises(UsageError, match="autocommit"):
        load_dataset(conn, path, table="t")


# -- who may ----------------------------------------------------------------------------


def test_other_roles(db: Conn, db_url: str, tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "a\n1\nx\n")
    load_dataset(db, path, table="mine", options=Options(types={"a": "bigint"}))
    role = f"dataset_{random.randrange(10**9)}"
    db.execute(f"create role {role} login".encode())
    try:
        with connect(make_url(db_url, user=role), autocommit=True) as other:
            assert loads(other) == []
            assert rejects(other, loads(db)[0].load) == []
            with pytest.raises(UnknownVectorizer):
                forget(other, loads(db)[0].load)
            with pytest.raises(MissingPrivilege):
                load_dataset(other, path, table="t")
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                load_dataset(other, path, table="mine", mode="append")
            db.execute(f"create schema its authorization {role}".encode())
            report = load_dataset(
                other, path, table="its.t", options=Options(types={"a": "bigint"})
            )
            assert (report.rows, report.rejects) == (1, 1)
            refused = loads(other)[1]
            assert (refused.target, refused.state, refused.rows) == ("public.mine", "failed", 0)
            for load in loads(other):
                assert load.owner == role
                forget(other, load.load)
            assert loads(other) == []
        assert len(loads(db)) == 1
    finally:
        db.execute(f"drop owned by {role} cascade".encode())
        db.execute(f"drop role {role}".encode())


# -- real files -------------------------------------------------------------------------


@pytest.mark.skipif(not DATA.is_dir(), reason=f"no data in {DATA}; set PGSTACK_DATA_DIR")
@pytest.mark.parametrize(
    ("name", "count", "rejected"),
    [
        ("corpora/wordnet/synsets.jsonl.gz", 117_659, 0),
        ("corpora/wikipedia-movies/movies.jsonl.gz", 36_273, 0),
        ("structured/defog/instruct_advanced_postgres.csv", 64, 0),
        ("documents/normal/csv-semicolon.csv", 5, 0),
        ("documents/normal/csv-too-many-columns.csv", 3, 1),
        ("documents/hostile/csv-with-long-lines.csv", 10, 0),
        ("documents/hostile/test_mskanji.csv", 3, 0),
        ("documents/hostile/blns.txt", 595, 42),
    ],
)
def test_real_files(db: Conn, name: str, count: int, rejected: int) -> None:
    report = load_dataset(db, DATA / name, table="t")
    assert (report.rows, report.rejects) == (count, rejected)
    assert value(db, "select count(*) from t") == count
