"""A load killed again and again ends as one that nobody disturbed."""

from __future__ import annotations

import gzip
import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psycopg
import pytest

from pgstack.datasets import Options, load_dataset, loads, rejects

pa = pytest.importorskip("pyarrow")
Conn = psycopg.Connection[Any]
ROOT = Path(__file__).resolve().parents[2]
KILLS = 10
ROWS = 40_000
NAMES = ("calm", "stormy")
OPTIONS: dict[str, Any] = {"generated_key": True, "types": {"n": "bigint"}}

# What the command does, in small blocks, so that there is something to interrupt.
PROGRAM = """
import json, sys
sys.path[:0] = [{root!r}, {root!r} + "/cli"]
from pgstack.datasets import Options, batch, load_dataset, parquet
from pgstack.db import connect
batch.BLOCK_BYTES = 20_000
parquet.ROWS_MAX = 300
with connect(sys.argv[1], autocommit=True) as conn:
    options = Options(**json.loads(sys.argv[4]))
    load_dataset(conn, sys.argv[2], table=sys.argv[3], options=options)
"""


def csv_file(path: Path) -> None:
    rng = random.Random(11)
    with path.open("w") as file:
        file.write("n,note\n")
        for nr in range(ROWS):
            note = f'"a\nb {nr}"' if rng.random() < 0.1 else f"note {nr}"
            n = "bad" if rng.random() < 0.005 else nr
            file.write(f"{n},{note}\n" if rng.random() > 0.002 else f"{n}\n")


def jsonl_file(path: Path) -> None:
    rng = random.Random(12)
    with path.open("w") as file:
        for nr in range(ROWS):
            n = "bad" if rng.random() < 0.005 else nr
            line = json.dumps({"n": n, "note": f"note {nr}"})
            file.write((line if rng.random() > 0.002 else line[:-1]) + "\n")


def parquet_file(path: Path) -> None:
    from pyarrow import parquet

    rng = random.Random(13)
    n = [str(nr) if rng.random() > 0.005 else "bad" for nr in range(ROWS)]
    table = pa.table({"n": n, "note": [f"note {nr}" for nr in range(ROWS)]})
    parquet.write_table(table, path, row_group_size=9_000)


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.parametrize("kind", ["csv", "csv.gz", "jsonl", "parquet"])
def test_killed_ten_times(db: Conn, db_url: str, tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"data.{kind}"
    makers = {"csv": csv_file, "jsonl": jsonl_file, "parquet": parquet_file}
    makers[kind.partition(".")[0]](path)
    if kind.endswith(".gz"):
        path.write_bytes(gzip.compress(path.read_bytes()))
    calm = load_dataset(db, path, table="calm", options=Options(**OPTIONS))
    assert calm.rejects > 100

    rng = random.Random(7)
    killed = 0
    arguments = [db_url, str(path), "stormy", json.dumps(OPTIONS)]
    command = [sys.executable, "-c", PROGRAM.format(root=str(ROOT)), *arguments]
    while True:
        process = subprocess.Popen(command, stderr=subprocess.PIPE)
        if killed < KILLS:
            await_rows(db, process, stored(db) + rng.randint(1, ROWS // (2 * KILLS)))
            time.sleep(rng.random() * 0.01)
            process.send_signal(signal.SIGKILL)
        _, said = process.communicate(timeout=120)
        if process.returncode == 0:
            break
        assert process.returncode == -signal.SIGKILL, said.decode()
        killed += 1
    assert killed == KILLS

    for one, other in (("calm", "stormy"), ("stormy", "calm")):
        query = f"select count(*) from (table {one} except all table {other}) as x"
        assert db.execute(query.encode()).fetchone() == (0,)
    of_calm, of_stormy = (next(x for x in loads(db) if x.target == f"public.{t}") for t in NAMES)
    assert (of_stormy.rows, of_stormy.rejects) == (of_calm.rows, of_calm.rejects)
    assert rejects(db, of_stormy.load) == rejects(db, of_calm.load)


def stored(conn: Conn) -> int:
    """How many rows the load says that it stored."""
    return next((x.rows for x in loads(conn) if x.target == "public.stormy"), 0)


def await_rows(conn: Conn, process: subprocess.Popen[bytes], count: int) -> None:
    """Return once so many rows are stored, or the process has ended."""
    until = time.monotonic() + 60
    while stored(conn) < count and process.poll() is None:
        assert time.monotonic() < until
        time.sleep(0.002)
