"""Rates, what the terminal shows, the address of metrics."""

from __future__ import annotations

import io
import logging
import socket
import time
import urllib.request
from typing import Any, cast

import pytest
from pgstack_cli import worker_view
from prometheus_client.parser import text_string_to_metric_families
from rich.console import Console

from pgstack.errors import UsageError
from pgstack.vectorizers import Status
from pgstack.worker.meter import Meter
from pgstack.worker.metrics import parse_address, serving
from pgstack.worker.progress import Observer, Rates, Report, Reporter, Seen, every, logged


class Told:
    """Stands where the database's observer stands: says what it is told to."""

    def __init__(self) -> None:
        self.at = 0.0
        self.rows = 0
        self.pending: int | None = 100

    def seen(self, *, max_age: float) -> Seen:
        self.at += 1
        status = Status(
            id=1, name="[red]blog", source="s", target="t", view=None, model="m", dimensions=3,
            state="working", pending=self.pending, leased=0, retrying=2, failed=3, lag=None,
            embedded_rows=self.rows, embedded_chunks=0, rows_per_second=0.0,
            tokens_per_second=0.0, index=None, last_success_at=None, last_error_at=None,
            last_error=None,
        )  # fmt: skip
        return Seen(self.at, [status], {"m": 1, "n": 2})


def reporter(meter: Meter, told: Told) -> Reporter:
    return Reporter(meter, cast("Observer", told))


# ------------------------------------------------------------------------------- rates


def test_a_rate_is_the_mean_of_the_last_seconds() -> None:
    rates = Rates()
    assert rates.of("rows") == 0
    for second in range(20):
        rates.add(second, {"rows": 0 if second < 5 else (second - 5) * 7})
    assert rates.of("rows") == 7
    rates.add(19, {"rows": 10_000})  # the same moment again is no news
    assert rates.of("rows") == 7
    assert rates.of("tokens") == 0


def test_what_starts_later_has_a_rate_from_there() -> None:
    rates = Rates()
    rates.add(0, {})
    rates.add(1, {"late": 100})
    rates.add(3, {"late": 120})
    assert rates.of("late") == 10


def test_a_report_says_how_long_it_will_take() -> None:
    meter, told = Meter(), Told()
    reports = reporter(meter, told)
    reports.report("progress")
    told.rows = 20  # by all workers, in a second of the database's time
    (blog,) = reports.report("progress").vectorizers
    assert (blog.rows_per_second, blog.eta_seconds) == (20, 5)
    told.pending = 0
    assert reports.report("progress").vectorizers[0].eta_seconds is None
    told.pending = None  # a role that may not read the queue
    report = reports.report("progress")
    assert (report.pending, report.vectorizers[0].pending) == (0, None)


def test_a_summary_is_over_all_the_time() -> None:
    meter = Meter()
    reports = reporter(meter, Told())
    meter.wrote("blog", rows=10, chunks=20, kept=5)
    reports._began -= 5
    done = reports.report("summary")
    assert (done.event, done.rows, done.chunks, done.kept) == ("summary", 10, 20, 5)
    assert done.rows_per_second == pytest.approx(2, abs=0.5)


def test_a_reader_that_leaves_ends_the_reports() -> None:
    acts: list[int] = []

    def act() -> None:
        acts.append(1)
        raise BrokenPipeError

    with every(0.001, act):
        while not acts:
            pass
    assert acts == [1]


def test_the_log_tells_of_rows_that_were_written_and_of_nothing_else(
    caplog: pytest.LogCaptureFixture,
) -> None:
    meter = Meter()
    with caplog.at_level(logging.INFO), logged(meter, seconds=0.01):
        meter.wrote("blog", rows=1234, chunks=1234)
        while not caplog.messages:
            time.sleep(0.001)
    assert len(caplog.messages) == 1
    assert caplog.messages[0].startswith("1,234 rows so far, 123400.0 a second")


# --------------------------------------------------------------------------- on a terminal


def shown(report: Report, *, once: bool) -> str:
    console = Console(file=io.StringIO(), width=120)
    console.print(worker_view.picture(report, once=once))
    return cast("io.StringIO", console.file).getvalue()


def test_the_view_shows_names_as_they_are() -> None:
    report = reporter(Meter(), Told()).report("progress")
    text = shown(report, once=False)
    assert "[red]blog" in text
    assert "working" in text
    assert "of 100 rows" not in text
    assert "0 of 100 rows" in shown(report, once=True)


def test_log_lines_above_the_view_are_harmless() -> None:
    console = Console(file=io.StringIO(), width=80)
    handler = worker_view.Above(console)
    handler.handle(logging.makeLogRecord({"msg": "[bold]\x1b[31mred", "levelno": logging.WARNING}))
    assert cast("io.StringIO", console.file).getvalue() == "[bold]\\x1b[31mred\n"


# ------------------------------------------------------------------------------ metrics


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("9187", ("127.0.0.1", 9187)),
        ("0.0.0.0:9187", ("0.0.0.0", 9187)),
        ("[::1]:9187", ("::1", 9187)),
        ("metrics.example:1", ("metrics.example", 1)),
    ],
)
def test_an_address_is_a_port_with_or_without_host(text: str, address: tuple[str, int]) -> None:
    assert parse_address(text) == address


@pytest.mark.parametrize("text", ["", ":9187", "host", "host:", "70000", "a b:1", "http://x"])
def test_what_is_no_address_is_a_usage_error(text: str) -> None:
    with pytest.raises(UsageError):
        parse_address(text)


def test_a_busy_port_is_a_usage_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with (
            pytest.raises(UsageError, match=f"127.0.0.1:{port}"),
            serving(str(port), Meter(), cast("Observer", Told())),
        ):
            pass


def scrape(url: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    with urllib.request.urlopen(url, timeout=10) as answer:
        text = answer.read().decode()
    samples: list[Any] = [s for f in text_string_to_metric_families(text) for s in f.samples]
    return {(s.name, tuple(sorted(s.labels.items()))): s.value for s in samples}


def test_a_scrape_tells_what_the_meter_counted() -> None:
    meter = Meter()
    meter.call("blog", "m", texts=3, tokens=30, seconds=0.02)
    meter.call("blog", "m", texts=3, tokens=30, seconds=99, failed=True)
    meter.wrote("blog", rows=2, chunks=3, kept=1)
    meter.row_failed("blog")
    meter.question()
    with serving("0", meter, cast("Observer", Told())) as url:
        found = scrape(url)
    blog, both = ("vectorizer", "blog"), (("model", "m"), ("vectorizer", "blog"))
    told = ("vectorizer", "[red]blog")
    for name, labels, value in [
        ("pgstack_rows_total", (blog,), 2),
        ("pgstack_chunks_total", (blog,), 3),
        ("pgstack_chunks_kept_total", (blog,), 1),
        ("pgstack_row_failures_total", (blog,), 1),
        ("pgstack_texts_total", both, 3),
        ("pgstack_tokens_total", both, 30),
        ("pgstack_calls_total", (both[0], ("outcome", "ok"), both[1]), 1),
        ("pgstack_calls_total", (both[0], ("outcome", "failed"), both[1]), 1),
        ("pgstack_call_seconds_bucket", (("le", "0.025"), both[0]), 1),
        ("pgstack_call_seconds_bucket", (("le", "+Inf"), both[0]), 2),
        ("pgstack_call_seconds_count", (both[0],), 2),
        ("pgstack_questions_total", (("outcome", "ok"),), 1),
        ("pgstack_pending_rows", (told,), 100),
        ("pgstack_retrying_rows", (told,), 2),
        ("pgstack_failed_rows", (told,), 3),
        ("pgstack_lag_seconds", (told,), 0),
        ("pgstack_vectorizer_state", (("state", "working"), told), 1),
        ("pgstack_model_resting", (("model", "n"),), 2),
    ]:
        assert found[name, labels] == value, name
    with pytest.raises(OSError):  # it is gone with the block
        scrape(url)
