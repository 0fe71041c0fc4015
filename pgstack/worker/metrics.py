"""Prometheus metrics of a worker, on request: text over HTTP at ``/metrics``.

Counters are the :class:`Meter`'s own numbers, read when somebody scrapes.  Gauges come
from ``pgstack.vectorizer_status``, read every 5 s at most over a connection of its own.
Threads serve them: a scrape never waits in the worker's event loop, nor makes it wait.

Raises
    UsageError   the address is none, or somebody listens there already
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import accumulate

from prometheus_client import CollectorRegistry, ProcessCollector, start_http_server
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from pgstack.errors import UsageError
from pgstack.worker.meter import BUCKETS, Meter
from pgstack.worker.progress import Observer, Seen

MAX_AGE = 5.0
DEFAULT_HOST = "127.0.0.1"


def parse_address(text: str) -> tuple[str, int]:
    """Return host and port of ``9187``, ``0.0.0.0:9187`` or ``[::1]:9187``."""
    match = re.fullmatch(r"(?:\[?(?P<host>[^\s\[\]]+?)\]?:)?(?P<port>\d{1,5})", text)
    if match is None or int(match["port"]) > 65535:
        raise UsageError(f"{text!r} is no [HOST:]PORT", hint="--metrics 9187, or 0.0.0.0:9187")
    return match["host"] or DEFAULT_HOST, int(match["port"])


@contextmanager
def serving(address: str, meter: Meter, observer: Observer) -> Iterator[str]:
    """Answer scrapes while the block runs; gives the URL."""
    host, port = parse_address(address)
    registry = CollectorRegistry()
    registry.register(WorkerCollector(meter, observer))
    ProcessCollector(registry=registry)
    try:
        server, thread = start_http_server(port, addr=host, registry=registry)
    except OSError as exc:
        raise UsageError(
            f"cannot serve metrics at {host}:{port}: {exc.strerror or exc}",
            hint="--metrics with another port",
        ) from exc
    try:
        name = f"[{host}]" if ":" in host else host
        yield f"http://{name}:{server.server_port}/metrics"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class WorkerCollector(Collector):
    """What one worker counts, and how its vectorizers are."""

    def __init__(self, meter: Meter, observer: Observer) -> None:
        self._meter = meter
        self._observer = observer

    def describe(self) -> Iterable[Metric]:
        """Return nothing: registering must not ask the database."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Yield everything that a scrape gets."""
        yield from self._rows()
        yield from self._calls()
        yield self._call_seconds()
        questions = CounterMetricFamily(
            "pgstack_questions", "Questions from SQL.", labels=["outcome"]
        )
        questions.add_metric(["ok"], self._meter.questions)
        questions.add_metric(["failed"], self._meter.failed_questions)
        yield questions
        yield from _gauges(self._observer.seen(max_age=MAX_AGE))

    def _rows(self) -> Iterator[Metric]:
        texts = {
            "rows": "Source rows written.",
            "chunks": "Chunks of these rows.",
            "kept": "Chunks that kept the vector they had.",
            "failed": "Tries of source rows that failed by the row's own fault.",
        }
        names = {"kept": "pgstack_chunks_kept", "failed": "pgstack_row_failures"}
        counts = list(self._meter.rows.items())
        for field, text in texts.items():
            family = CounterMetricFamily(
                names.get(field, f"pgstack_{field}"), text, labels=["vectorizer"]
            )
            for vectorizer, count in counts:
                family.add_metric([vectorizer], getattr(count, field))
            yield family

    def _calls(self) -> Iterator[Metric]:
        labels = ["vectorizer", "model"]
        calls = CounterMetricFamily(
            "pgstack_calls", "Calls of models.", labels=[*labels, "outcome"]
        )
        texts = CounterMetricFamily("pgstack_texts", "Texts that models answered.", labels=labels)
        tokens = CounterMetricFamily("pgstack_tokens", "Tokens that models counted.", labels=labels)
        for key, count in list(self._meter.calls.items()):
            calls.add_metric([*key, "ok"], count.calls - count.failed_calls)
            calls.add_metric([*key, "failed"], count.failed_calls)
            texts.add_metric(key, count.texts)
            tokens.add_metric(key, count.tokens)
        yield from (calls, texts, tokens)

    def _call_seconds(self) -> Metric:
        family = HistogramMetricFamily(
            "pgstack_call_seconds", "Time that calls of models took.", labels=["model"]
        )
        seconds: defaultdict[str, float] = defaultdict(float)
        for (_, model), count in list(self._meter.calls.items()):
            seconds[model] += count.seconds
        ends = [*map(str, BUCKETS), "+Inf"]
        for model, counts in list(self._meter.latency.items()):
            buckets = list(zip(ends, accumulate(counts), strict=True))
            family.add_metric([model], buckets, seconds[model])
        return family


def _gauges(seen: Seen) -> Iterator[Metric]:
    fields = {
        "pending_rows": ("Source rows queued.", "pending"),
        "retrying_rows": ("Source rows waiting for another try.", "retrying"),
        "failed_rows": ("Source rows set aside as failed.", "failed"),
    }
    for name, (text, field) in fields.items():
        family = GaugeMetricFamily(f"pgstack_{name}", text, labels=["vectorizer"])
        for status in seen.statuses:
            if (value := getattr(status, field)) is not None:
                family.add_metric([status.name], value)
        yield family
    lag = GaugeMetricFamily(
        "pgstack_lag_seconds", "Age of the oldest queued row.", labels=["vectorizer"]
    )
    state = GaugeMetricFamily(
        "pgstack_vectorizer_state", "1 for the state it is in.", labels=["vectorizer", "state"]
    )
    resting = GaugeMetricFamily(
        "pgstack_model_resting", "Workers that leave the model alone for now.", labels=["model"]
    )
    for status in seen.statuses:
        lag.add_metric([status.name], status.lag.total_seconds() if status.lag else 0.0)
        state.add_metric([status.name, status.state], 1)
    for model in sorted({*seen.resting, *(status.model for status in seen.statuses)}):
        resting.add_metric([model], seen.resting.get(model, 0))
    yield from (lag, state, resting)
