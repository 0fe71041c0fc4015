"""What the commands print: for people, for programs, and with hostile content in it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pgstack_cli import output


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.04, "0.0 s"),
        (9.94, "9.9 s"),
        (12.4, "12 s"),
        (60, "1 min"),
        (185, "3 min 5 s"),
        (3600, "1 h"),
        (7800, "2 h 10 min"),
        (3601, "1 h"),
        (90000, "1 d 1 h"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert output.duration(seconds) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (999, "999 B"), (1500, "1.5 kB"), (12_000, "12 kB"), (491_400_000, "491 MB"),
     (78_100_000_000, "78.1 GB"), (5 * 10**12, "5000.0 GB")],
)  # fmt: skip
def test_sizes(count: int, text: str) -> None:
    assert output.size(count) == text


def test_control_sequences_are_shown_and_not_obeyed(capsys: pytest.CaptureFixture[str]) -> None:
    output.result("a\x1b]0;owned\x07b\x9b31mc\rd\u202ee\nf\tg")
    assert capsys.readouterr().out == "a\\x1b]0;owned\\x07b\\x9b31mc\\x0dd\\x202ee\nf\tg\n"


def test_messages_go_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    output.message("to a person")
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "to a person\n")


def test_a_table_in_a_pipe_is_aligned_text(capsys: pytest.CaptureFixture[str]) -> None:
    output.table(("name", "rows"), [("a\nb", 1234), ("[red]x", None)], indent=1)
    assert capsys.readouterr().out == " name     rows\n a b     1,234\n [red]x      -\n"


def test_a_table_on_a_terminal_takes_no_text_for_markup(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    monkeypatch.setenv("NO_COLOR", "1")
    output.table(("name",), [("[bold]x[/bold]",), ("\x1b[2J",)])
    text = capsys.readouterr().out
    assert "[bold]x[/bold]" in text
    assert "\\x1b[2J" in text
    assert "\x1b" not in text.replace("\x1b[1m", "").replace("\x1b[0m", "")


@dataclass(frozen=True)
class Thing:
    name: str
    lag: timedelta | None
    at: datetime


def test_json_is_one_document(capsys: pytest.CaptureFixture[str]) -> None:
    at = datetime(2026, 11, 21, 4, 5, 6, tzinfo=UTC)
    output.json_document([Thing("Zoë \x1b", timedelta(seconds=1.5), at), None])
    assert json.loads(capsys.readouterr().out) == [
        {"name": "Zoë \x1b", "lag": 1.5, "at": "2026-11-21T04:05:06+00:00"},
        None,
    ]


def test_a_json_line_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    output.json_line({"text": "a\nb\u2028c"})
    text = capsys.readouterr().out
    assert text.count("\n") == 1
    assert json.loads(text) == {"text": "a\nb\u2028c"}


def test_progress_in_a_pipe_is_a_line_now_and_then(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter([0.0, 1.0, 6.0, 7.0, 12.0])
    monkeypatch.setattr("time.monotonic", lambda: next(clock))
    with output.progress("embedding", unit="rows") as advance:
        for done in range(4):
            advance(done, 4)
    captured = capsys.readouterr()
    assert captured.err == "embedding: 1 of 4 rows, 18 s left\nembedding: 3 of 4 rows, 4.0 s left\n"
    assert captured.out == ""


def test_progress_on_a_terminal_is_a_bar(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    with output.progress("pulling [x]", in_bytes=True) as advance:
        advance(10, 20)
    assert capsys.readouterr().out == ""


def test_pairs_are_aligned(capsys: pytest.CaptureFixture[str]) -> None:
    values: list[tuple[str, Any]] = [("a", True), ("long name", timedelta(hours=1))]
    output.pairs(values)
    assert capsys.readouterr().out == "a          yes\nlong name  1 h\n"
