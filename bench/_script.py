"""What one writes without pgstack: read files, cut with LangChain, embed, copy into a table.

    python -m bench._script FOLDER DSN MODEL_SERVER [--no-embedding]

One process and one thread, calls of 64 texts: the first version of every such script.  It skips
nothing, retries nothing and forgets where it was; bench/ingest.py holds `pgstack ingest` and the
worker against it.  Prints the seconds of each stage as JSON.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import psycopg
from langchain_text_splitters import RecursiveCharacterTextSplitter

SEPARATORS = ["\n\n", "\n", ".", "?", "!", " ", ""]

TEXTS_A_CALL = 64
_TABLES = """
drop table if exists script_document, script_chunk;
create table script_document (id bigint primary key, uri text unique, content text);
create table script_chunk (document bigint, seq int, chunk text, embedding vector(384))
"""


def main() -> None:
    """Do it, stage by stage."""
    folder, dsn, models, *flags = sys.argv[1:]
    seconds: dict[str, float] = {}
    with psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute(_TABLES)
        began = time.perf_counter()
        texts = _store(conn, Path(folder))
        seconds["read"] = time.perf_counter() - began
        began = time.perf_counter()
        chunks = _cut(texts)
        seconds["chunk"] = time.perf_counter() - began
        if "--no-embedding" not in flags:
            began = time.perf_counter()
            _embed(conn, models, chunks)
            seconds["embed"] = time.perf_counter() - began
    print(json.dumps(seconds | {"chunks": len(chunks)}))


def _store(conn: psycopg.Connection[Any], folder: Path) -> list[str]:
    texts = []
    for number, path in enumerate(sorted(folder.rglob("*.txt"))):
        texts.append(path.read_text(encoding="utf-8"))
        conn.execute(
            "insert into script_document values (%s, %s, %s)",
            (number, path.as_uri(), texts[-1]),
        )
    return texts


def _cut(texts: list[str]) -> list[tuple[int, int, str]]:
    splitter = RecursiveCharacterTextSplitter(
        separators=SEPARATORS, chunk_size=800, chunk_overlap=400
    )
    return [
        (document, seq, chunk)
        for document, text in enumerate(texts)
        for seq, chunk in enumerate(splitter.split_text(text))
    ]


def _embed(conn: psycopg.Connection[Any], models: str, chunks: list[tuple[int, int, str]]) -> None:
    with httpx.Client(base_url=models, timeout=600) as http:
        for first in range(0, len(chunks), TEXTS_A_CALL):
            part = chunks[first : first + TEXTS_A_CALL]
            body = {"model": "all-minilm", "input": [chunk for _, _, chunk in part]}
            vectors = http.post("/api/embed", json=body).raise_for_status().json()["embeddings"]
            with conn.cursor() as cursor, cursor.copy("copy script_chunk from stdin") as rows:
                for row, vector in zip(part, vectors, strict=True):
                    rows.write_row((*row, json.dumps(vector)))


if __name__ == "__main__":
    main()
