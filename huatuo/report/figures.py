"""figures as SVG, drawn on the server: readable in grey, with the numbers written beside the marks.

Plain strings, because Gradio's plots stay blank under the content policy and a picture of forty
rectangles needs no plotting library. Labels stand above their marks, so that a long name never
runs into them, on a phone either.
"""

import html as escape
import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from unicodedata import east_asian_width

WIDTH = 640
OUTCOMES = ("win", "tie", "loss", "bad")
LEVELS = ("much", "some", "even", "some-other", "much-other")
ROW = 46  # height of a label and the marks under it
PANEL = 304  # width of a small multiple
PAD = 8  # so that a mark at the scale's end is not cut


@dataclass(frozen=True)
class Bar:
    """A stacked bar: a label above it, a note at its right, and how often each kind came."""

    label: str
    note: str
    counts: tuple[int, ...]

    @property
    def total(self) -> int:
        """All that the bar stands for."""
        return sum(self.counts)


@dataclass(frozen=True)
class Point:
    """One estimate with its interval, on any scale; None: not defined, then `text` says why."""

    label: str
    value: float | None
    low: float | None
    high: float | None
    text: str
    mark: int = 0


@dataclass(frozen=True)
class Scale:
    """The horizontal axis. reference: where the dashed line stands. tick: writes a number."""

    low: float
    high: float
    reference: float | None
    tick: Callable[[float], str]

    def x(self, value: float) -> float:
        """The place of a value, cut at the ends."""
        share = (min(max(value, self.low), self.high) - self.low) / ((self.high - self.low) or 1)
        return PAD + (WIDTH - 2 * PAD) * share

    def ticks(self) -> list[float]:
        """Three to seven round numbers within the scale."""
        span = (self.high - self.low) or 1
        step = 10.0 ** math.floor(math.log10(span / 3))
        step *= next(k for k in (1, 2, 5, 10) if span / (step * k) <= 6)
        first = math.ceil(self.low / step - 1e-9)
        last = math.floor(self.high / step + 1e-9)
        return [round(i * step, 10) for i in range(first, last + 1)]


def scale_of(
    points: Sequence[Point], reference: float | None, tick: Callable[[float], str]
) -> Scale:
    """A scale that holds every interval and the reference."""
    ends = [x for p in points for x in (p.low, p.high, p.value) if x is not None]
    ends += [] if reference is None else [reference]
    low, high = min(ends, default=0.0), max(ends, default=1.0)
    margin = (high - low) * 0.04 or 0.5
    return Scale(low - margin, high + margin, reference, tick)


def bars(
    rows: Sequence[Bar], words: Sequence[str], title: str, kinds: Sequence[str] = OUTCOMES
) -> str:
    """Each row as one stacked bar, in per cent, like the paper's figure; `words` name the kinds."""
    parts = [_legend(kinds, words)]
    for number, row in enumerate(rows):
        y = 52 + number * 68
        parts.append(_labels(row.label, row.note, y - 8))
        parts.append(_stack(row, kinds, 0, y, WIDTH, 30))
    return _svg(20 + len(rows) * 68, title, "".join(parts))


def multiples(
    panels: Sequence[tuple[str, Sequence[Bar]]],
    words: Sequence[str],
    title: str,
    kinds: Sequence[str] = OUTCOMES,
) -> str:
    """Small multiples: each panel a figure of its own, its name and a thin bar for each row."""
    drawn = [_svg(18, title, _legend(kinds, words))]
    for name, rows in panels:
        parts = [f'<text class="strong" x="0" y="16">{_short(name, 40)}</text>']
        for number, row in enumerate(rows):
            y = 44 + number * 48
            parts.append(_labels(row.label, row.note, y - 7, PANEL, 7.2))
            parts.append(_stack(row, kinds, 0, y, PANEL, 18))
        height = 44 + len(rows) * 48 - 24
        drawn.append(_svg(height, f"{title}: {name}", "".join(parts), PANEL))
    return drawn[0] + f'<div class="multiples">{"".join(drawn[1:])}</div>'


def forest(points: Sequence[Point], scale: Scale, title: str) -> str:
    """Estimates with intervals on one axis; the dashed line is the scale's reference."""
    parts = []
    for number, point in enumerate(points):
        y = number * ROW + 36
        parts.append(_labels(point.label, point.text, y - 16))
        parts.append(f'<line class="axis" x1="{PAD}" x2="{WIDTH - PAD}" y1="{y}" y2="{y}"/>')
        if scale.reference is not None:
            parts.append(_reference(scale.x(scale.reference), y - 9, y + 9))
        if point.low is not None and point.high is not None:
            low, high = scale.x(point.low), scale.x(point.high)
            parts.append(f'<line class="span" x1="{low:.1f}" x2="{high:.1f}" y1="{y}" y2="{y}"/>')
        if point.value is not None:
            parts.append(_mark(point.mark, scale.x(point.value), y))
    height = len(points) * ROW + 8
    parts += [_tick(scale, value, height) for value in scale.ticks()]
    return _svg(height + 22, title, "".join(parts))


def heat(names: Sequence[str], shares: Sequence[Sequence[float | None]], title: str) -> str:
    """A square table of shares in 0 to 1, darker for more; None is left empty."""
    label, top = 210, 28
    size = (WIDTH - label) / max(len(names), 1)
    high = min(size, 44.0)
    parts = []
    for column in range(len(names)):
        x = label + (column + 0.5) * size
        parts.append(
            f'<text class="muted" x="{x:.1f}" y="16" text-anchor="middle">{column + 1}</text>'
        )
    for row, name in enumerate(names):
        y = top + row * (high + 2)
        parts.append(f'<text x="0" y="{y + high / 2 + 5:.1f}">{row + 1}  {_short(name, 22)}</text>')
        for column, share in enumerate(shares[row]):
            x = label + column * size
            if share is None:
                sign = "" if row == column else "—"
                fill, ink = "none", "muted"
            else:
                sign = f"{100 * share:.0f}"
                fill, ink = f"heat-{min(4, int(share * 5))}", "on-heat" if share >= 0.6 else ""
            parts.append(
                f'<rect class="cell {fill}" x="{x:.1f}" y="{y:.1f}" width="{size - 2:.1f}" height="{high:.1f}"/>'
                f'<text class="value {ink}" x="{x + size / 2 - 1:.1f}" y="{y + high / 2 + 5:.1f}" text-anchor="middle">{sign}</text>'
            )
    return _svg(top + math.ceil(len(names) * (high + 2)) + 4, title, "".join(parts))


def dots(
    rows: Sequence[tuple[str, Sequence[Point]]],
    heads: Sequence[str],
    scales: Sequence[Scale],
    title: str,
) -> str:
    """Raters, or the like, in rows: under each head one dot with its interval on its own scale."""
    columns = len(heads)
    label, gap = 110, 24
    width = (WIDTH - label - gap * (columns - 1)) / columns
    height = 30 + len(rows) * 30
    parts = []
    for column, (head, scale) in enumerate(zip(heads, scales, strict=True)):
        x0 = label + column * (width + gap)
        place = _placer(scale, x0, width)
        parts.append(f'<text class="strong" x="{x0:.1f}" y="14">{_short(head, 30)}</text>')
        if scale.reference is not None:
            parts.append(_reference(place(scale.reference), 24, height))
        for number, (_, points) in enumerate(rows):
            y, point = 44 + number * 30, points[column]
            parts.append(
                f'<line class="axis" x1="{x0:.1f}" x2="{x0 + width:.1f}" y1="{y}" y2="{y}"/>'
            )
            if point.low is not None and point.high is not None:
                parts.append(
                    f'<line class="span" x1="{place(point.low):.1f}" x2="{place(point.high):.1f}" y1="{y}" y2="{y}"/>'
                )
            if point.value is not None:
                parts.append(_mark(point.mark, place(point.value), y))
            else:
                parts.append(f'<text class="muted" x="{x0:.1f}" y="{y - 4}">—</text>')
        for value in (scale.low, scale.high):
            end = "start" if value == scale.low else "end"
            parts.append(
                f'<text class="muted" x="{place(value):.1f}" y="{height + 18}" text-anchor="{end}">{escape.escape(scale.tick(value))}</text>'
            )
    for number, (name, _) in enumerate(rows):
        parts.append(f'<text x="0" y="{49 + number * 30}">{_short(name, 13)}</text>')
    return _svg(height + 26, title, "".join(parts))


def key(names: Sequence[str]) -> str:
    """Which mark of a forest stands for whom; nothing for a single one."""
    if len(names) < 2:
        return ""
    parts = []
    for number, name in enumerate(names):
        x, y = (number % 2) * WIDTH / 2 + 10, 14 + (number // 2) * 26
        parts.append(
            f'{_mark(number, x, y)}<text x="{x + 18:.0f}" y="{y + 5}">{_short(name, 34)}</text>'
        )
    return _svg(8 + math.ceil(len(names) / 2) * 26, ", ".join(names), "".join(parts))


def _placer(scale: Scale, x0: float, width: float) -> Callable[[float], float]:
    def place(value: float) -> float:
        return x0 + (scale.x(value) - PAD) / (WIDTH - 2 * PAD) * width

    return place


def _mark(kind: int, x: float, y: float) -> str:
    """Six marks that differ in shape and in filling, so that they are told apart in grey."""
    filled = "mark" if kind % 2 == 0 else "mark hollow"
    shape = (kind // 2) % 3
    if shape == 0:
        return f'<circle class="{filled}" cx="{x:.1f}" cy="{y}" r="6"/>'
    if shape == 1:
        return f'<rect class="{filled}" x="{x - 5.5:.1f}" y="{y - 5.5}" width="11" height="11"/>'
    points = f"{x:.1f},{y - 7} {x + 7:.1f},{y + 5} {x - 7:.1f},{y + 5}"
    return f'<polygon class="{filled}" points="{points}"/>'


def _stack(row: Bar, kinds: Sequence[str], x: float, y: float, width: float, height: float) -> str:
    parts, at, total = [], x + 1.0, row.total or 1
    for kind, count in zip(kinds, row.counts, strict=True):
        if not count:
            continue
        size = (width - 2) * count / total
        parts.append(
            f'<rect class="{kind}" x="{at:.1f}" y="{y}" width="{max(size - 2, 1):.1f}" height="{height}" rx="3"/>'
        )
        if size > 36:
            parts.append(
                f'<text class="value on-{kind}" x="{at + size / 2 - 1:.1f}" y="{y + height / 2 + 5}" text-anchor="middle">{100 * count / total:.0f}%</text>'
            )
        at += size
    return "".join(parts)


def _labels(label: str, note: str, y: float, width: float = WIDTH, column: float = 9.4) -> str:
    """A label at the left that leaves the note at the right its room, also in a phone's large type.

    column: width of a half-width letter, in the figure's units.
    """
    most = int(width / column - 0.92 * _columns(note)[-1] - 1)
    return (
        f'<text x="0" y="{y}">{_short(label, most)}</text>'
        f'<text x="{width}" y="{y}" class="muted" text-anchor="end">{escape.escape(note)}</text>'
    )


def _reference(x: float, top: float, bottom: float) -> str:
    return f'<line class="reference" x1="{x:.1f}" x2="{x:.1f}" y1="{top}" y2="{bottom}"/>'


def _legend(kinds: Sequence[str], words: Sequence[str]) -> str:
    step = WIDTH / max(len(kinds), 1)
    return "".join(
        f'<rect class="{kind}" x="{place * step + 1:.0f}" y="2" width="14" height="12" rx="2"/>'
        f'<text x="{place * step + 21:.0f}" y="13" class="muted">{escape.escape(word)}</text>'
        for place, (kind, word) in enumerate(zip(kinds, words, strict=True))
    )


def _tick(scale: Scale, value: float, y: float) -> str:
    x = scale.x(value)
    anchor = "start" if x < 24 else "end" if x > WIDTH - 24 else "middle"
    return (
        f'<line class="axis" x1="{x:.1f}" x2="{x:.1f}" y1="{y - 4}" y2="{y}"/>'
        f'<text class="muted" x="{x:.1f}" y="{y + 16}" text-anchor="{anchor}">{escape.escape(scale.tick(value))}</text>'
    )


def _columns(text: str) -> list[int]:
    """Half-width columns up to and with each letter; [0] for no text."""
    return list(
        itertools.accumulate(2 if east_asian_width(c) in "WF" else 1 for c in text)
    ) or [0]  # fmt: skip


def _short(name: str, most: int) -> str:
    """At most so many half-width columns; a longer name ends in an ellipsis."""
    columns = _columns(name)
    if columns[-1] <= most:
        return escape.escape(name)
    return escape.escape(name[: sum(column <= most - 1 for column in columns)] + "…")


def _svg(height: float, title: str, inner: str, width: float = WIDTH) -> str:
    words = escape.escape(title)
    return (
        f'<div class="figure"><svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height:.0f}" '
        f'role="img" aria-label="{words}"><title>{words}</title>{inner}</svg></div>'
    )
