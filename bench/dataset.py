"""Loading data sets against psql's \\copy and against INSERT, and what memory it takes.

    make bench-dataset                 # 1,000,000 rows, 117 MB of CSV
    make bench-dataset ARGS="--rows 9000000 --formats csv"

(a) CSV: the same file by `pgstack dataset load`, by `psql \\copy` into a table made before, and
by Python's csv with executemany (a tenth of the rows, times ten); seconds of everything,
processes included.  \\copy is the least that any loader can take: it looks at nothing, keeps no
state, commits once.  (b) JSON lines and Parquet of the same rows, against \\copy of the CSV.
(c) Peak memory of the loading process at a tenth of the rows and at all of them.

Prints a table and writes bench/out/dataset.json.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import random
import shutil
import sys
import tempfile
from pathlib import Path

from bench import _stack
from bench._process import Usage, run
from bench._report import Case, report
from pgstack.db import connect

ROOT = Path(__file__).resolve().parents[1]
COLUMNS = "id bigint, name text, price numeric, day date, note text, flag boolean"
INSERT = """
import csv, sys, psycopg
with psycopg.connect(sys.argv[1]) as conn, open(sys.argv[2], newline="") as file:
    rows = csv.reader(file)
    next(rows)
    conn.cursor().executemany("insert into peer values (%s, %s, %s, %s, %s, %s)", rows)
"""


def make(folder: Path, rows: int, formats: list[str]) -> dict[str, Path]:
    """Write the same rows in each format; returns the files."""
    import pyarrow as pa
    from pyarrow import csv as arrow_csv
    from pyarrow import parquet

    rng = random.Random(3)
    words = [
        "".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=rng.randint(2, 9))) for _ in "x" * 5000
    ]
    files = {"csv": folder / f"{rows}.csv"}
    with files["csv"].open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["id", "name", "price", "day", "note", "flag"])
        for nr in range(rows):
            note = " ".join(rng.choices(words, k=12))
            if nr % 10 == 0:
                note += ', and "quoted"\nsecond line'
            price = f"{rng.random() * 100:.2f}"
            day = f"2024-{rng.randint(1, 12):02}-{rng.randint(1, 28):02}"
            writer.writerow([nr, words[nr % 5000], price, day, note, "true" if nr & 1 else "false"])
    if "jsonl" in formats:
        files["jsonl"] = folder / f"{rows}.jsonl"
        with files["csv"].open(newline="") as file, files["jsonl"].open("w") as out:
            for row in csv.DictReader(file):
                typed = {**row, "id": int(row["id"]), "flag": row["flag"] == "true"}
                out.write(json.dumps(typed) + "\n")
    if "parquet" in formats:
        files["parquet"] = folder / f"{rows}.parquet"
        options = arrow_csv.ParseOptions(newlines_in_values=True)
        price = arrow_csv.ConvertOptions(column_types={"price": pa.decimal128(10, 2)})
        table = arrow_csv.read_csv(files["csv"], parse_options=options, convert_options=price)
        parquet.write_table(table, files["parquet"], row_group_size=100_000)
    return files


def ours(dsn: str, path: Path) -> Usage:
    """Load a file with the command."""
    command = [sys.executable, "-m", "pgstack_cli", "dataset", "load", str(path)]
    env = {"PYTHONPATH": f"{ROOT}:{ROOT / 'cli'}"}
    return checked(run([*command, "--table", "ours", "-d", dsn], env))


def peer(dsn: str, path: Path) -> Usage:
    """Load a CSV file with psql."""
    psql = shutil.which("psql") or sys.exit("psql is not on the PATH")
    copy = f"\\copy peer from '{path}' (format csv, header)"
    return checked(run([psql, "-X", "-q", "-d", dsn, "-c", copy], {}))


def inserted(dsn: str, path: Path) -> Usage:
    """Load a CSV file row by row."""
    return checked(run([sys.executable, "-c", INSERT, dsn, str(path)], {}))


def checked(used: Usage) -> Usage:
    """Return what a program used; stop if it failed."""
    if used.exit_code:
        raise SystemExit(used.output)
    return used


def fresh(dsn: str) -> None:
    """Remove our table, make the peer's anew."""
    with connect(dsn, autocommit=True) as conn:
        conn.execute("drop table if exists ours, peer")
        conn.execute(f"create table peer ({COLUMNS})".encode())
        conn.execute("checkpoint")


def same(dsn: str) -> bool:
    """Tell whether both tables hold the same rows."""
    with connect(dsn, autocommit=True) as conn:
        found = [
            conn.execute(
                f"select count(*), sum(hashtextextended({name}::text, 0)) from {name}".encode()
            ).fetchone()
            for name in ("ours", "peer")
        ]
    return found[0] == found[1]


def measure(dsn: str, rows: int, formats: list[str]) -> list[Case]:
    """Run every case; return the rows of the result."""
    cases = []
    with tempfile.TemporaryDirectory(prefix="pgstack-bench-dataset-") as folder:
        few = make(Path(folder), rows // 10, ["csv", *formats])
        files = make(Path(folder), rows, ["csv", *formats])
        fresh(dsn)
        copied = peer(dsn, files["csv"])
        for name, path in files.items():
            fresh(dsn)
            peer(dsn, files["csv"])
            used = ours(dsn, path)
            if not same(dsn):
                raise SystemExit(f"{name}: the tables differ")
            with connect(dsn, autocommit=True) as conn:
                conn.execute("drop table ours")
            small = ours(dsn, few[name])
            size = path.stat().st_size / 1e6
            label = f"{name}, {rows:,} rows, {size:.0f} MB"
            cases += [
                Case(f"{label}: load / \\copy", used.seconds, copied.seconds, "s", 1),
                Case(f"{label}: CPU of the loader", used.cpu_seconds, copied.cpu_seconds, "s", 1),
                Case(f"{label}: peak memory, all / tenth", used.peak_mb, small.peak_mb, "MB", 1),
            ]
            print(
                f"{label}: {rows / used.seconds:,.0f} rows/s, {size / used.seconds:.1f} MB/s; "
                f"\\copy {rows / copied.seconds:,.0f} rows/s"
            )
        fresh(dsn)
        slow = inserted(dsn, few["csv"]).seconds * 10
        fresh(dsn)
        quick = ours(dsn, files["csv"]).seconds
        cases.append(Case(f"csv, {rows:,} rows: load / executemany", quick, slow, "s", 1))
    return cases


def main() -> None:
    """Measure, print a table, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--formats", default="jsonl,parquet", help="beside csv")
    given = parser.parse_args()
    with _stack.database() as dsn:
        cases = measure(dsn, given.rows, [f for f in given.formats.split(",") if f])
        with connect(dsn) as conn:
            server = conn.info.server_version
    report("dataset", "peer", cases, ["pgstack", "psycopg", "pyarrow"])
    load = ", ".join(f"{x:.1f}" for x in os.getloadavg())
    print(f"PostgreSQL {server // 10000}.{server % 10000}; one run; load {load}")


if __name__ == "__main__":
    main()
