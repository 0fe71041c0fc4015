"""A comparison of two runs as SVG: what each query gains or loses, and every metric below.

Drawn by hand: a chart of bars needs no library, and an SVG can be read, linked and put into
a report.  Blue and orange are told apart by people who confuse red and green.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING
from xml.sax.saxutils import escape

from pgstack_cli.evaluation import p_value
from pgstack_cli.output import clean

if TYPE_CHECKING:
    from pgstack.evaluation import Difference, Run, Summary

WIDTH = 960
LEFT, RIGHT = 64, 24
TOP, HEIGHT = 96, 300  # of the chart
ROW = 26  # of the table
BARS_MAX = 600  # more queries than that are drawn as one outline
GAIN, LOSS, QUIET, INK, RULE = "#1f6fb4", "#d9730d", "#6b7280", "#111827", "#e5e7eb"
STYLE = (
    "text{font-family:system-ui,-apple-system,'Segoe UI',sans-serif;font-size:13px;fill:#111827}"
    ".title{font-size:18px;font-weight:600}.quiet{fill:#6b7280}.small{font-size:11px}"
    ".head{fill:#6b7280;font-size:12px}.num{font-variant-numeric:tabular-nums;text-anchor:end}"
)


def svg(a: Run, b: Run, summary: list[Summary], metric: str, queries: list[Difference]) -> str:
    """Return the picture as text."""
    below = TOP + HEIGHT + 64
    height = below + ROW * (len(summary) + 1) + 40
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
        f'width="{WIDTH}" height="{height}" role="img">',
        f"<title>{_text(f'{metric}: run {b.run} less run {a.run}')}</title>",
        f"<style>{STYLE}</style>",
        f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
        *_heading(a, b, metric, summary),
        *_chart(queries),
        *_table(summary, metric, below),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _text(text: str) -> str:
    return escape(clean(" ".join(text.split())))


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"


def _put(x: float, y: float, text: str, kind: str = "", **more: str) -> str:
    attributes = "".join(f' {name.replace("_", "-")}="{value}"' for name, value in more.items())
    return f'<text x="{x:g}" y="{y:g}" class="{kind}"{attributes}>{_text(text)}</text>'


def _heading(a: Run, b: Run, metric: str, summary: list[Summary]) -> list[str]:
    found = next((s for s in summary if s.metric == metric), None)
    parts = [
        _put(LEFT, 32, f"{metric} on {_cut(a.set, 60)}", "title"),
        _put(LEFT, 54, f"a  run {a.run}: {_cut(a.name, 50)}", style=f"fill:{LOSS}"),
        _put(LEFT, 72, f"b  run {b.run}: {_cut(b.name, 50)}", style=f"fill:{GAIN}"),
    ]
    if found is not None:
        right = WIDTH - RIGHT
        said = f"b - a = {found.difference:+.4f} [{found.low:+.4f}, {found.high:+.4f}]"
        chance = f"p {p_value(found.p_value, sign='= ')}"
        counts = f"b better for {found.wins}, same for {found.ties}, worse for {found.losses}"
        parts += [
            _put(right, 54, said, "num"),
            _put(right, 72, f"{chance}; {counts}", "num quiet"),
        ]
    return parts


# -- the chart -------------------------------------------------------------------------


def _chart(queries: list[Difference]) -> list[str]:
    """Bars of what queries gain, from the largest gain to the largest loss."""
    values = [query.difference for query in queries]
    step = _step(max([abs(value) for value in values], default=0.0))
    high = _ceiling(max([*values, 0.0]), step)
    low = -_ceiling(-min([*values, 0.0]), step)
    if high == low:
        high, low = step, -step

    def at(value: float) -> float:
        return round(TOP + HEIGHT * (high - value) / (high - low), 2)

    parts = []
    for nr in range(round(low / step), round(high / step) + 1):
        y = at(nr * step)
        ink = QUIET if nr == 0 else RULE
        parts.append(f'<path d="M{LEFT} {y:g}H{WIDTH - RIGHT}" stroke="{ink}"/>')
        parts.append(_put(LEFT - 8, y + 4, f"{nr * step:+g}" if nr else "0", "num small quiet"))
    width = (WIDTH - LEFT - RIGHT) / max(len(queries), 1)
    parts += _bars(queries, width, at) if len(queries) <= BARS_MAX else _outline(values, width, at)
    parts.append(
        _put(LEFT, TOP + HEIGHT + 24, f"{len(queries)} queries, by what they gain", "small quiet")
    )
    return parts


def _step(largest: float) -> float:
    """Return a round distance between grid lines: some two to five on each side."""
    for step in (0.01, 0.02, 0.05, 0.1, 0.2):
        if largest <= 5 * step:
            return step
    return 0.25


def _ceiling(value: float, step: float) -> float:
    return step * math.ceil(value / step - 1e-9)


def _bars(queries: list[Difference], width: float, at: Callable[[float], float]) -> list[str]:
    """One rectangle a query; a reader's pointer shows which one."""
    gap = min(1.0, width / 5)
    parts = []
    for nr, query in enumerate(queries):
        top, bottom = at(max(query.difference, 0.0)), at(min(query.difference, 0.0))
        ink = GAIN if query.difference > 0 else LOSS
        said = f"{query.query_id}: {_cut(query.query or '', 120)} ({query.difference:+.4f})"
        parts.append(
            f'<rect x="{LEFT + nr * width:.2f}" y="{top:g}" width="{width - gap:.2f}" '
            f'height="{bottom - top:.2f}" fill="{ink}"><title>{_text(said)}</title></rect>'
        )
    return parts


def _outline(values: list[float], width: float, at: Callable[[float], float]) -> list[str]:
    """Two areas in steps, one above and one below the line."""
    parts = []
    for ink, part in ((GAIN, max), (LOSS, min)):
        steps = "".join(
            f"V{at(part(value, 0.0)):g}H{LEFT + (nr + 1) * width:.2f}"
            for nr, value in enumerate(values)
        )
        parts.append(f'<path d="M{LEFT} {at(0.0):g}{steps}V{at(0.0):g}Z" fill="{ink}"/>')
    return parts


# -- the table -------------------------------------------------------------------------

# Name, right edge (or left edge of the first); the interval is drawn between the last two.
COLUMNS = (("a", 240), ("b", 320), ("b - a", 410), ("95 % confidence", 560), ("p", 630))
DRAWN = (660, WIDTH - RIGHT)


def _table(summary: list[Summary], metric: str, top: float) -> list[str]:
    parts = [_put(LEFT, top, "metric", "head")]
    parts += [_put(x, top, name, "head num") for name, x in COLUMNS]
    parts.append(f'<path d="M{LEFT} {top + 9:g}H{WIDTH - RIGHT}" stroke="{INK}"/>')
    reach = max([abs(end) for s in summary for end in (s.low, s.high)], default=0.0) or 1.0
    for nr, row in enumerate(summary, start=1):
        parts += _line(row, top + nr * ROW, reach, bold=row.metric == metric)
    return parts


def _line(row: Summary, y: float, reach: float, *, bold: bool) -> list[str]:
    cells = (
        f"{row.mean_a:.4f}",
        f"{row.mean_b:.4f}",
        f"{row.difference:+.4f}",
        f"{row.low:+.4f} to {row.high:+.4f}",
        p_value(row.p_value),
    )
    weight = {"font_weight": "600"} if bold else {}
    parts = [_put(LEFT, y + 4, row.metric, **weight)]
    parts += [
        _put(x, y + 4, cell, "num", **weight) for (_, x), cell in zip(COLUMNS, cells, strict=True)
    ]
    middle, half = sum(DRAWN) / 2, (DRAWN[1] - DRAWN[0]) / 2 / reach
    ink = GAIN if row.low > 0 else LOSS if row.high < 0 else QUIET
    left, right, dot = (middle + half * value for value in (row.low, row.high, row.difference))
    parts += [
        f'<path d="M{middle:g} {y - ROW / 2:g}v{ROW}" stroke="{QUIET}" stroke-dasharray="2 2"/>',
        f'<path d="M{left:.2f} {y:g}H{right:.2f}" stroke="{ink}" stroke-width="2"/>',
        f'<circle cx="{dot:.2f}" cy="{y:g}" r="4" fill="{ink}"/>',
    ]
    return parts
