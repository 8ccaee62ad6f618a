"""figures as SVG, drawn on the server: readable in grey, with the numbers written beside the marks.

Plain strings, because Gradio's plots stay blank under the content policy and a picture of forty
rectangles needs no plotting library.
"""

import html as escape
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from unicodedata import east_asian_width

WIDTH = 640
KINDS = ("win", "tie", "loss", "bad")


@dataclass(frozen=True)
class Bar:
    """One pair of models: wins, ties and losses of the first named, and votes that found both unusable."""

    first: str
    second: str
    win: int
    tie: int
    loss: int
    bad: int

    @property
    def total(self) -> int:
        """All votes on the pair."""
        return self.win + self.tie + self.loss + self.bad


@dataclass(frozen=True)
class Point:
    """One model's estimate with its interval, on any scale."""

    name: str
    value: float
    low: float
    high: float


def bars(rows: Sequence[Bar], words: tuple[str, str, str, str], title: str) -> str:
    """Win / tie / loss of each pair as one stacked bar, in per cent, like the paper's figure."""
    step = 68
    parts = []
    for row_number, row in enumerate(rows):
        y = 52 + row_number * step
        total = row.total or 1
        parts.append(
            f'<text x="0" y="{y - 8}">{_short(row.first)} <tspan class="muted">vs</tspan> {_short(row.second)}</text>'
            f'<text x="{WIDTH}" y="{y - 8}" class="muted" text-anchor="end">n = {row.total}</text>'
        )
        x = 1.0
        for kind, count in zip(KINDS, (row.win, row.tie, row.loss, row.bad), strict=True):
            size = (WIDTH - 2) * count / total
            if not count:
                continue
            ink = f" on-{kind}"
            label = f"{100 * count / total:.0f}%" if size > 34 else ""
            parts.append(
                f'<rect class="{kind}" x="{x:.1f}" y="{y}" width="{max(size - 2, 1):.1f}" height="30" rx="3"/>'
                f'<text class="value{ink}" x="{x + size / 2:.1f}" y="{y + 20}" text-anchor="middle">{label}</text>'
            )
            x += size
    legend = "".join(
        f'<rect class="{kind}" x="{position * 120 + 1}" y="2" width="14" height="12" rx="2"/>'
        f'<text x="{position * 120 + 21}" y="13" class="muted">{escape.escape(word)}</text>'
        for position, (kind, word) in enumerate(zip(KINDS, words, strict=True))
    )
    return _svg(20 + len(rows) * step, title, legend + "".join(parts))


def forest(points: Sequence[Point], title: str) -> str:
    """Estimates with 95 % intervals, best first; the dashed line is the mean (0)."""
    label, step = 200, 36
    width = WIDTH - label - 70
    low = min([0.0, *(point.low for point in points)])
    high = max([0.0, *(point.high for point in points)])
    span = (high - low) or 1.0

    def x(value: float) -> float:
        return label + width * (value - low) / span

    height = 12 + len(points) * step
    parts = [
        f'<line class="axis" stroke-dasharray="4 4" x1="{x(0):.1f}" x2="{x(0):.1f}" y1="0" y2="{height}"/>'
    ]
    for number, point in enumerate(points):
        y = 20 + number * step
        parts.append(
            f'<text x="0" y="{y + 5}">{_short(point.name)}</text>'
            f'<line stroke="currentColor" stroke-width="2" x1="{x(point.low):.1f}" x2="{x(point.high):.1f}" y1="{y}" y2="{y}"/>'
            f'<circle class="win" cx="{x(point.value):.1f}" cy="{y}" r="6"/>'
            f'<text x="{WIDTH}" y="{y + 5}" class="muted" text-anchor="end">{point.value:+.2f}</text>'
        )
    return _svg(height + 8, title, "".join(parts))


def _short(name: str) -> str:
    """At most 26 half-width columns, so that a label never runs into the marks."""
    columns = itertools.accumulate(2 if east_asian_width(c) in "WF" else 1 for c in name)
    kept = sum(column <= 25 for column in columns)
    return escape.escape(name if kept >= len(name) - 1 else name[:kept] + "…")


def _svg(height: int, title: str, inner: str) -> str:
    return (
        f'<div class="figure"><svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
        f'role="img" aria-label="{escape.escape(title)}"><title>{escape.escape(title)}</title>{inner}</svg></div>'
    )
