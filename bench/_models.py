"""A model server as a benchmark sees it: what it was asked, and how fast it is by itself."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass

import httpx


@dataclass(frozen=True)
class Asked:
    """What a model server was asked since :meth:`Models.forget`."""

    calls: int
    texts: int
    in_flight: int


@dataclass(frozen=True)
class Models:
    """A model server; ``control`` says whether it is the deterministic one."""

    url: str
    control: bool = True

    def forget(self, *, latency_ms: float = 0) -> None:
        """Clear the statistics; from now on each call takes ``latency_ms``."""
        if self.control:
            httpx.delete(f"{self.url}/_control").raise_for_status()
            body = {"latency_ms": latency_ms}
            httpx.post(f"{self.url}/_control", json=body).raise_for_status()

    def asked(self) -> Asked:
        """Return what was asked."""
        if not self.control:
            return Asked(0, 0, 0)
        stats = httpx.get(f"{self.url}/_control/stats").json()
        return Asked(stats["calls"].get("/api/embed", 0), stats["texts"], stats["concurrent_max"])

    def alone(self, texts: Sequence[str], per_call: int, in_flight: int) -> float:
        """Return the seconds that a plain client takes, which does nothing with the answers."""
        return asyncio.run(self._send(texts, per_call, in_flight))

    def best_shape(
        self, texts: Sequence[str], shapes: Sequence[tuple[int, int]]
    ) -> tuple[int, int]:
        """Return the fastest shape: texts a call, calls in flight."""
        return min(shapes, key=lambda s: self.alone(texts, *s))

    async def _send(self, texts: Sequence[str], per_call: int, in_flight: int) -> float:
        waiting = iter([texts[i : i + per_call] for i in range(0, len(texts), per_call)])

        async def lane(http: httpx.AsyncClient) -> None:
            for part in waiting:
                body = {"model": "all-minilm", "input": part}
                (await http.post("/api/embed", json=body)).raise_for_status()

        async with httpx.AsyncClient(base_url=self.url, timeout=600) as http:
            await http.get("/api/version")  # connected, and every module loaded
            began = time.perf_counter()
            await asyncio.gather(*(lane(http) for _ in range(in_flight)))
            return time.perf_counter() - began
