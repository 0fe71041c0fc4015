"""The way from texts to vectors: our client, the embedded server, and who waits for whom.

    make bench-embed
    make bench-embed ARGS="--only client"     client, server, question or deterministic

client         CPU time from texts to a parameter of PostgreSQL, per 1,000 texts of 384 numbers:
               ours, vectors in binary, beside the ollama package's own call and vectors in text.
server         texts a second of the embedded server with all-minilm on package descriptions of
               Debian, by texts a call and calls in flight, beside the model computing the same
               texts in this process with nothing in between; and the CPU time of both.
question       milliseconds for one short text while 2 callers keep the server busy with calls of
               64 texts, beside the same on an idle server.
deterministic  texts a second of the deterministic server, beside one call of 256 at a time.

Other programs that run meanwhile slow the server down; CPU times they hardly change.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gzip
import itertools
import json
import os
import random
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import ollama
from psycopg.adapt import PyFormat, Transformer

from bench._models import Models
from bench._report import Case, report
from bench._texts import short_rows
from pgstack.embedded.modelserver import start, start_deterministic
from pgstack.models import ModelServer
from pgstack.vectors import adapt

_ROOT = Path(__file__).resolve().parents[1]
_DATA = Path(os.environ.get("PGSTACK_DATA_DIR", _ROOT / "../shared/data"))
_MODELS = Path(os.environ.get("PGSTACK_TEST_MODELS", _ROOT / ".cache/models"))
_PACKAGES = _DATA / "corpora/debian-packages/packages.jsonl.gz"
_MODEL = "all-minilm"
_PER_CALL = (1, 8, 32, 64, 256)
_IN_FLIGHT = (1, 2, 4)
_OUR_CALL = 64  # texts a call of the bulk callers


def real_texts(count: int) -> list[str]:
    """Return descriptions of Debian packages, of any length, or made-up rows without the data."""
    if not _PACKAGES.exists():
        print(f"(made-up rows, for want of {_PACKAGES})")
        return short_rows(count)
    with gzip.open(_PACKAGES, "rt", encoding="utf-8") as lines:
        texts = [str(json.loads(line)["text"]) for line in lines]
    return random.Random(7).sample([text for text in texts if text], count)


# -- client ----------------------------------------------------------------------------


class _Connection:
    """What psycopg asks of a connection, to turn values into parameters without one."""

    connection = None

    def __init__(self) -> None:
        from psycopg import adapters
        from psycopg.adapt import AdaptersMap

        self.adapters = AdaptersMap(adapters)


def as_parameter(context: Any, values: Sequence[object]) -> int:
    """Return the length of a list as psycopg sends it."""
    dumper = Transformer(context).get_dumper(values, PyFormat.AUTO)
    return len(dumper.dump(values) or b"")


async def ours(url: str, parts: Sequence[list[str]]) -> float:
    """Return the CPU seconds of our way."""
    context = _Connection()
    adapt(context, oid=1 << 30, array_oid=(1 << 30) + 1)
    async with ModelServer(url) as server:
        await server.embed(_MODEL, parts[0])
        began = time.process_time()
        for part in parts:
            as_parameter(context, (await server.embed(_MODEL, part)).packed)
        return time.process_time() - began


async def theirs(url: str, parts: Sequence[list[str]]) -> float:
    """Return the CPU seconds of the ollama package, then vectors as text."""
    context = _Connection()
    client = ollama.AsyncClient(url)
    await client.embed(_MODEL, parts[0])
    began = time.process_time()
    for part in parts:
        answer = await client.embed(_MODEL, part)
        texts = ["[" + ",".join(map(repr, vector)) + "]" for vector in answer.embeddings]
        as_parameter(context, texts)
    taken = time.process_time() - began
    await client.close()  # type: ignore[no-untyped-call]
    return taken


def client(runs: int) -> list[Case]:
    """Measure the client."""
    cases = []
    texts = short_rows(1024)
    with start_deterministic(vectors="hash") as url:
        for per_call in (64, 256):
            parts = [texts[i : i + per_call] for i in range(0, len(texts), per_call)]
            scale = 1000 * 1000 / len(texts)
            pairs = [
                (asyncio.run(ours(url, parts)), asyncio.run(theirs(url, parts)))
                for _ in range(runs)
            ]
            mine, other = (statistics.median(column) * scale for column in zip(*pairs, strict=True))
            case = f"client, {per_call} texts a call, CPU per 1,000 texts"
            cases.append(Case(case, mine, other, "ms", runs))
        body = httpx.post(f"{url}/api/embed", json={"model": _MODEL, "input": texts[:256]}).content
    cases.append(_reading(body, runs))
    return cases


def _reading(body: bytes, runs: int) -> Case:
    """Measure what of that is the reading of JSON."""

    def cost(read: Callable[[], object]) -> float:
        times = []
        for _ in range(runs * 3):
            began = time.process_time()
            read()
            times.append(time.process_time() - began)
        return statistics.median(times) * 1000 * 1000 / 256

    mine = cost(lambda: ollama.EmbedResponse.model_validate_json(body))
    other = cost(lambda: ollama.EmbedResponse(**json.loads(body)))
    return Case("client, of that reading JSON", mine, other, "ms", runs * 3)


# -- server ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Speed:
    """How long some texts took."""

    texts: int
    seconds: float
    cpu_seconds: float

    def per_second(self) -> float:
        """Return texts a second."""
        return self.texts / self.seconds

    def cpu_ms(self) -> float:
        """Return CPU milliseconds a text."""
        return self.cpu_seconds * 1000 / self.texts


@contextlib.contextmanager
def real_server() -> Iterator[str]:
    """Run the embedded server with the real model, loaded; gives its URL."""
    with start([f"--models-dir={_MODELS}"]) as url:
        httpx.post(f"{url}/api/embed", json={"model": _MODEL, "input": ["x"]}, timeout=60)
        yield url


def model_alone(texts: Sequence[str]) -> Speed:
    """Return how fast the model is in this process: two calls of it at a time."""
    from pgstack.embedded.modelserver import catalogue
    from pgstack.embedded.modelserver.batching import MAX_TEXTS, MAX_TOKENS
    from pgstack.embedded.modelserver.embedder import MiniLM

    description = catalogue.find(_MODEL)
    assert description is not None
    model = MiniLM(_MODELS / description.folder)
    model.embed(model.tokenize(texts[:1], truncate=True))
    began, cpu = time.perf_counter(), time.process_time()
    batches: list[list[list[int]]] = [[]]
    for ids in sorted(model.tokenize(texts, truncate=True), key=len):
        if len(batches[-1]) == MAX_TEXTS or len(ids) * (len(batches[-1]) + 1) > MAX_TOKENS:
            batches.append([])
        batches[-1].append(ids)
    with ThreadPoolExecutor(2) as threads:
        list(threads.map(model.embed, filter(None, batches)))
    return Speed(len(texts), time.perf_counter() - began, time.process_time() - cpu)


def server_speed(models: Models, texts: Sequence[str], per_call: int, in_flight: int) -> Speed:
    """Return how fast the server is, which is the only child of this process."""
    cpu = _cpu_of_children()
    seconds = models.alone(texts, per_call, in_flight)
    return Speed(len(texts), seconds, _cpu_of_children() - cpu)


def _cpu_of_children() -> float:
    """Return the CPU seconds of this process's children up to now."""
    ticks = 0
    for task in Path("/proc/self/task").iterdir():
        for child in (task / "children").read_text().split():
            fields = Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def server(runs: int, count: int) -> list[Case]:
    """Measure the embedded server; the peer is measured again beside every shape."""
    texts = real_texts(count)
    cases = []
    with real_server() as url:
        models = Models(url, control=False)
        for per_call, in_flight in itertools.product(_PER_CALL, _IN_FLIGHT):
            share = texts[: max(per_call * in_flight * 2, count // 8)]
            pairs = [
                (server_speed(models, share, per_call, in_flight), model_alone(share))
                for _ in range(runs)
            ]
            shape = f"server, {per_call} texts a call, {in_flight} in flight"
            for unit, of in (("texts/s", Speed.per_second), ("CPU ms a text", Speed.cpu_ms)):
                mine = statistics.median(of(pair[0]) for pair in pairs)
                peer = statistics.median(of(pair[1]) for pair in pairs)
                cases.append(Case(shape, mine, peer, unit, runs))
                print(f"{shape}: {mine:.1f}, model {peer:.1f} {unit}", flush=True)
    return cases


# -- questions -------------------------------------------------------------------------


async def question_ms(url: str, questions: int, callers: int, per_call: int) -> list[float]:
    """Return how long questions take, asked one by one, while bulk callers are busy."""
    texts = real_texts(2048)
    short = [f"how do I {text[:40]}" for text in texts]
    pauses = random.Random(7)
    async with httpx.AsyncClient(base_url=url, timeout=600) as http:

        async def embed(inputs: list[str]) -> None:
            body = {"model": _MODEL, "input": inputs}
            (await http.post("/api/embed", json=body)).raise_for_status()

        async def bulk() -> None:
            while True:
                await embed(pauses.sample(texts, per_call))

        busy = [asyncio.create_task(bulk()) for _ in range(callers)]
        await asyncio.sleep(1)  # let the queue fill
        times = []
        for nr in range(questions):
            await asyncio.sleep(pauses.uniform(0.02, 0.2))
            began = time.perf_counter()
            await embed([short[nr]])
            times.append((time.perf_counter() - began) * 1000)
        for task in busy:
            task.cancel()
        await asyncio.gather(*busy, return_exceptions=True)
    return times


def question(runs: int) -> list[Case]:
    """Measure how long one text waits behind bulk work."""
    with real_server() as url:
        idle = asyncio.run(question_ms(url, 20 * runs, 0, _OUR_CALL))
        busy = asyncio.run(question_ms(url, 20 * runs, 2, _OUR_CALL))
    return [
        Case(f"question behind 2 bulk callers, {name}", at(busy), at(idle), "ms", len(busy))
        for name, at in (
            ("p50", statistics.median),
            ("p95", lambda v: sorted(v)[len(v) * 19 // 20]),
        )
    ]


# -- deterministic ---------------------------------------------------------------------


def deterministic(runs: int) -> list[Case]:
    """Measure the server that other benchmarks run against."""
    texts = short_rows(5120)
    cases = []
    with start_deterministic(vectors="hash") as url:
        models = Models(url)
        peer = _speed(models, texts, 256, 1, runs)
        for per_call in (32, 64, 256):
            for in_flight in _IN_FLIGHT:
                speed = _speed(models, texts, per_call, in_flight, runs)
                case = f"deterministic, {per_call} texts a call, {in_flight} in flight"
                cases.append(Case(case, speed, peer, "texts/s", runs))
    return cases


def _speed(models: Models, texts: list[str], per_call: int, in_flight: int, runs: int) -> float:
    took = [models.alone(texts, per_call, in_flight) for _ in range(runs)]
    return len(texts) / statistics.median(took)


def main() -> None:
    """Measure, print a table, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parts = ("client", "server", "question", "deterministic")
    parser.add_argument("--only", choices=parts, action="append")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--texts", type=int, default=2048, help="for the real model")
    args = parser.parse_args()
    measure: dict[str, Callable[[], list[Case]]] = {
        "client": lambda: client(args.runs),
        "server": lambda: server(args.runs, args.texts),
        "question": lambda: question(args.runs),
        "deterministic": lambda: deterministic(args.runs),
    }
    cases = [case for part in args.only or parts for case in measure[part]()]
    report("embed", "peer", cases, ["pgstack", "ollama", "onnxruntime", "psycopg"])


if __name__ == "__main__":
    main()
