"""figures of a report: curves over steps, reliability, bars with intervals, scatter; matplotlib to inline SVG.

Figures are made through matplotlib's objects, without pyplot's global state. Text stays text, so that the reader's
browser draws Chinese with its own fonts; colours become CSS variables, so that a page can be light or dark. Every mark
differs in more than colour: figures are readable in grey.
"""

import contextlib
import io
import math
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from training.csv_log import read_columns

INK, MUTED, GRID = "#1f2933", "#5b6770", "#e3e5e0"
SERIES = ("#0f766e", "#2a6f97", "#b45309", "#6b4e9b")
"""Teal, blue, ochre, violet: the colours of first, second, third and fourth series."""
VARIABLES = {
    INK: "--ink", MUTED: "--muted", GRID: "--line",
    **{colour: f"--series-{number}" for number, colour in enumerate(SERIES, 1)},
}  # fmt: skip
"""CSS variable in the page's stylesheet for each colour of a figure."""
_DASHES = ("solid", (0, (5, 2)), (0, (1.5, 1.5)), (0, (6, 2, 1.5, 2)))
_MARKS = "os^D"
_WIDTH = 7.6
"""Inches; 72 units of SVG each."""
_STYLE: dict[str, Any] = {
    "svg.fonttype": "none",
    "font.family": "DejaVu Sans",
    "font.size": 9.5,
    "text.color": INK,
    "text.parse_math": False,
    "axes.labelcolor": MUTED,
    "axes.labelsize": 9,
    "axes.edgecolor": MUTED,
    "axes.linewidth": 0.7,
    "axes.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 9.5,
    "axes.titlelocation": "left",
    "axes.formatter.useoffset": False,
    "axes.formatter.limits": (-4, 6),
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "grid.color": GRID,
    "grid.linewidth": 0.7,
    "figure.facecolor": "none",
    "figure.titlesize": 11,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
}

Columns = Mapping[str, Sequence[float]]
Source = Path | Columns
Value = float | tuple[float, float, float]
"""An estimate, or (estimate, lower end, upper end)."""
Floats = NDArray[np.float64]


@contextlib.contextmanager
def style() -> Iterator[None]:
    """The look of the figures, for those that are made by hand; Chinese text raises no glyph warnings."""
    with matplotlib.rc_context(cast(Any, _STYLE)), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        yield


def curves(
    source: Source | Mapping[str, Source],
    keys: Sequence[str] | Mapping[str, str],
    title: str = "",
    *,
    limits: Mapping[str, float] | None = None,
    window: int = 0,
) -> Figure:
    """Small multiples by step: each value pale, a centred running mean over it.

    source: a CSV with a column `step`, its columns, or several of these by name (seeds, runs).
    keys: columns, or column to label; a column without a single number is left out, and so are values that are NaN.
    limits: a dashed line per key, e.g. the KL budget. window: steps of the mean; 0: a tenth of the run.
    Raises ValueError if no key is there, OSError if the CSV cannot be read.
    """
    labels = dict(keys) if isinstance(keys, Mapping) else {key: key for key in keys}
    runs = {name: _columns(item) for name, item in _runs(source).items()}
    labels = {
        key: label
        for key, label in labels.items()
        if any(
            np.isfinite(np.asarray(columns.get(key, ()), float)).any() for columns in runs.values()
        )
    }
    if not labels:
        raise ValueError(f"none of the columns {', '.join(keys)} is there")
    across = 2 if len(labels) > 1 else 1
    down = math.ceil(len(labels) / across)
    with style():
        figure = Figure(figsize=(_WIDTH, 1.9 * down + (0.35 if title else 0)), layout="constrained")
        axes = figure.subplots(down, across, squeeze=False, sharex=True).ravel()
        for axis, (key, label) in zip(axes, labels.items(), strict=False):
            for number, (name, columns) in enumerate(runs.items()):
                if key in columns:
                    _curve(axis, columns, key, number, name, window)
            if limits and key in limits:
                axis.axhline(limits[key], color=MUTED, linewidth=1, linestyle=(0, (4, 3)))
            axis.set_title(label)
            axis.grid(axis="y")
        for axis in axes[len(labels) :]:
            axis.set_visible(False)
        for axis in axes[max(len(labels) - across, 0) : len(labels)]:
            axis.set_xlabel("step")
            axis.tick_params(labelbottom=True)
        _legend(figure, axes[0], len(runs))
        _title(figure, title)
    return figure


def reliability(
    series: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    title: str = "",
    *,
    bins: int = 10,
) -> Figure:
    """Share that came true by predicted probability, with 95 % Wilson intervals, over a histogram of predictions.

    series: name to (predicted (N,) in [0, 1], outcome (N,) in [0, 1], 0.5 for a tie); e.g. before and after
    calibration. Bins hold equally many predictions, at least 5 each. Raises ValueError for an empty series.
    """
    with style():
        figure = Figure(figsize=(4.6, 4.9), layout="constrained")
        upper, lower = figure.subplots(2, 1, height_ratios=(4, 1), sharex=True)
        upper.plot([0, 1], [0, 1], color=MUTED, linewidth=1, linestyle=(0, (4, 3)))
        for number, (name, (predicted, outcome)) in enumerate(series.items()):
            p, y = np.asarray(predicted, float), np.asarray(outcome, float)
            if not len(p) or len(p) != len(y):
                raise ValueError(f"{name}: {len(p)} predictions and {len(y)} outcomes")
            colour = SERIES[number % len(SERIES)]
            order = np.argsort(p, kind="stable")
            shift = 0.006 * (number - (len(series) - 1) / 2)
            for part in np.array_split(order, max(1, min(bins, len(p) // 5))):
                low, high = wilson(float(y[part].mean()), len(part))
                upper.plot([p[part].mean() + shift] * 2, [low, high], color=colour, linewidth=1)
            means = [
                (p[part].mean() + shift, y[part].mean())
                for part in np.array_split(order, max(1, min(bins, len(p) // 5)))
            ]
            mark = _MARKS[number % len(_MARKS)]
            upper.plot(*zip(*means, strict=True), color=colour, marker=mark, markersize=4.5,
                       linewidth=1.2, linestyle=_DASHES[number % 4], label=name)  # fmt: skip
            lower.hist(p, bins=np.linspace(0, 1, 21).tolist(), histtype="step", color=colour,
                       linestyle=_DASHES[number % 4])  # fmt: skip
        upper.set(xlim=(0, 1), ylim=(0, 1), ylabel="share that came true")
        lower.set(xlabel="predicted probability", ylabel="count")
        upper.grid()
        if len(series) > 1:
            upper.legend(loc="upper left")
        _title(figure, title)
    return figure


def bars(
    groups: Mapping[str, Value | Mapping[str, Value]],
    title: str = "",
    *,
    percent: bool = True,
    reference: float | None = None,
    label: str = "",
) -> Figure:
    """Horizontal bars with intervals, the number at the end; one bar a group, or one per series in it.

    Values are shares when `percent`. reference: a dashed line, e.g. 0.5 for chance. label: under the axis.
    A NaN is written as n/a. Raises ValueError without groups.
    """
    if not groups:
        raise ValueError("no bars to draw")
    nested = {g: dict(v) if isinstance(v, Mapping) else {"": v} for g, v in groups.items()}
    names = list(dict.fromkeys(name for values in nested.values() for name in values))
    rows = sum(len(values) for values in nested.values())
    with style():
        height = 0.3 * rows + 0.14 * len(nested) + 0.75 + (0.3 if title else 0)
        figure = Figure(figsize=(_WIDTH, height), layout="constrained")
        axis = figure.subplots()
        y, ticks = 0.0, []
        ends = [0.0, *((reference,) if reference is not None else ())]
        for values in nested.values():
            ticks.append(y + (len(values) - 1) / 2)
            for name, value in values.items():
                ends += _bar(
                    axis, y, value, names.index(name), percent, name if not ticks[1:] else ""
                )
                y += 1.0
            y += 0.45
        if reference is not None:
            axis.axvline(reference, color=MUTED, linewidth=1, linestyle=(0, (4, 3)))
        finite = [end for end in ends if math.isfinite(end)]
        low, high = min(finite), max(finite)
        axis.set_xlim(
            low - (0.14 if low < 0 else 0) * (high - low), high + 0.14 * ((high - low) or 1)
        )
        axis.set_yticks(ticks, list(nested), color=INK)
        axis.set_ylim(y - 0.45 - 0.4, -0.6)
        axis.tick_params(axis="y", length=0)
        axis.spines["left"].set_visible(False)
        axis.grid(axis="x")
        axis.set_axisbelow(True)
        axis.set_xlabel(label)
        if percent:
            axis.xaxis.set_major_formatter(lambda value, _: f"{100 * value:.0f}%")
        _legend(figure, axis, len(names))
        _title(figure, title)
    return figure


def scatter(
    x: Sequence[float],
    y: Sequence[float],
    title: str = "",
    *,
    x_label: str = "",
    y_label: str = "",
    groups: Sequence[str] | None = None,
    line: bool = True,
) -> Figure:
    """Points with the least-squares line; the correlations of Pearson and Spearman stand above.

    groups: a name per point, told apart by mark. Points that are not finite are left out and counted in the title.
    """
    a, b = np.asarray(x, float), np.asarray(y, float)
    kept = np.isfinite(a) & np.isfinite(b)
    names = np.asarray(groups if groups is not None else [""] * len(a))
    dropped = int((~kept).sum())
    with style():
        figure = Figure(figsize=(5.2, 3.9), layout="constrained")
        axis = figure.subplots()
        for number, name in enumerate(dict.fromkeys(names[kept].tolist())):
            here = kept & (names == name)
            axis.scatter(a[here], b[here], s=13, alpha=0.5, linewidths=0, label=name or None,
                         color=SERIES[number % 4], marker=_MARKS[number % 4])  # fmt: skip
        words = f"n = {int(kept.sum())}"
        if kept.sum() > 2 and np.ptp(a[kept]) > 0 and np.ptp(b[kept]) > 0:
            words += f",  Pearson {_pearson(a[kept], b[kept]):+.2f}"
            words += f",  Spearman {_pearson(ranks(a[kept]), ranks(b[kept])):+.2f}"
            if line:
                slope, offset = np.polyfit(a[kept], b[kept], 1)
                ends = np.array([a[kept].min(), a[kept].max()])
                axis.plot(ends, offset + slope * ends, color=INK, linewidth=1.2)
        axis.set_title(words + (f",  {dropped} not finite" if dropped else ""), color=MUTED)
        axis.set(xlabel=x_label, ylabel=y_label)
        axis.grid()
        axis.set_axisbelow(True)
        _legend(figure, axis, len(set(names[kept].tolist())))
        _title(figure, title)
    return figure


def wilson(share: float, count: int, z: float = 1.96) -> tuple[float, float]:
    """The 95 % interval of a share of `count`. Source: Wilson 1927. (0, 1) for a count of 0."""
    if not count:
        return 0.0, 1.0
    middle = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    half /= 1 + z * z / count
    return max(0.0, middle - half), min(1.0, middle + half)


def smooth(values: Sequence[float], window: int) -> Floats:
    """The centred running mean of (N,) values over `window` neighbours, fewer at the ends; NaNs are passed over."""
    data = np.asarray(values, float)
    known = np.isfinite(data)
    half = max(window, 1) // 2
    sums = np.concatenate([[0.0], np.where(known, data, 0.0).cumsum()])
    counts = np.concatenate([[0], known.cumsum()])
    places = np.arange(len(data))
    low, high = np.maximum(places - half, 0), np.minimum(places + half + 1, len(data))
    number = counts[high] - counts[low]
    mean: Floats = np.where(number > 0, (sums[high] - sums[low]) / np.maximum(number, 1), np.nan)
    return mean


def svg(figure: Figure, prefix: str = "") -> str:
    """The figure as an <svg> element without prolog, metadata and outside references.

    prefix: put before every id, so that several figures can stand in one page. Colours become var(--…, colour).
    """
    out = io.StringIO()
    with style(), matplotlib.rc_context({"svg.hashsalt": "report"}):
        figure.savefig(out, format="svg", metadata={"Date": None}, transparent=True)
    text = out.getvalue()
    text = text[text.index("<svg") :].strip()
    text = re.sub(r"<metadata>.*?</metadata>\s*|<style.*?</style>\s*", "", text, flags=re.S)
    text = re.sub(r' xmlns(:\w+)?="[^"]*"| version="1.1"', "", text)
    text = text.replace("xlink:href", "href")
    if prefix:
        text = re.sub(r'\bid="', f'id="{prefix}', text)
        text = re.sub(r'(href="#|url\(#)', rf"\1{prefix}", text)
    for colour, variable in VARIABLES.items():
        text = re.sub(rf"(?i): {colour}\b", f": var({variable}, {colour})", text)
    size = re.search(r'viewBox="0 0 ([\d.]+) [\d.]+"', text)
    width = float(size[1]) if size else 72 * _WIDTH
    return re.sub(
        r'<svg[^>]*?(viewBox="[^"]*")[^>]*>', rf'<svg \1 style="max-width:{1.35 * width:.0f}px; '
        'stroke-linejoin:round">', text, count=1,
    )  # fmt: skip


def _columns(source: Source) -> Columns:
    return source if isinstance(source, Mapping) else read_columns(source)


def _runs(source: Source | Mapping[str, Source]) -> dict[str, Source]:
    """Several sources by name, or the only one under an empty name."""
    if not isinstance(source, Mapping):
        return {"": source}
    if any(isinstance(item, Mapping | Path) for item in source.values()):
        return {str(name): item for name, item in source.items()}  # type: ignore[misc]
    return {"": source}  # type: ignore[dict-item]


def _curve(axis: Axes, columns: Columns, key: str, number: int, name: str, window: int) -> None:
    y = np.asarray(columns[key], float)
    x = np.asarray(columns["step"], float) if "step" in columns else np.arange(1, len(y) + 1)
    kept = np.isfinite(y)
    x, y = x[kept], y[kept]
    colour = SERIES[number % len(SERIES)]
    few = len(y) < 12
    if not few:
        axis.plot(x, y, color=colour, linewidth=0.8, alpha=0.32)
    axis.plot(
        x,
        y if few else smooth(y.tolist(), window or max(5, len(y) // 10)),
        color=colour,
        linewidth=1.7,
        linestyle=_DASHES[number % len(_DASHES)],
        marker="o" if few else "",
        markersize=3,
        label=name,
    )


def _bar(axis: Axes, y: float, value: Value, series: int, percent: bool, name: str) -> list[float]:
    """Draws one bar; returns the x values that must be seen."""
    middle, low, high = value if isinstance(value, tuple) else (value, math.nan, math.nan)
    if not math.isfinite(middle):
        axis.text(0, y, " n/a", va="center", color=MUTED, fontsize=8.5)
        return []
    alpha = (0.85, 0.5, 0.3, 0.15)[series % 4]  # readable in grey
    axis.barh(y, middle, height=0.72, color=SERIES[series % 4], alpha=alpha, label=name or None)
    if math.isfinite(low) and math.isfinite(high):
        axis.plot([low, high], [y, y], color=INK, linewidth=1.4, solid_capstyle="butt")
    else:
        low = high = middle
    text = f"{100 * middle:.1f}%" if percent else f"{middle:.4g}"
    left = middle < 0
    axis.annotate(
        text, (min(low, middle) if left else max(high, middle), y), xytext=(-5 if left else 5, 0),
        textcoords="offset points", va="center", ha="right" if left else "left", fontsize=8.5,
    )  # fmt: skip
    return [low, middle, high]


def _legend(figure: Figure, axis: Axes, count: int) -> None:
    if count > 1:
        handles, names = axis.get_legend_handles_labels()
        figure.legend(handles, names, loc="outside lower left", ncols=min(count, 4))


def _title(figure: Figure, title: str) -> None:
    if title:
        figure.suptitle(title, x=0.01, ha="left", color=INK)


def _pearson(a: Floats, b: Floats) -> float:
    return float(np.corrcoef(a, b)[0, 1])


def ranks(values: Floats) -> Floats:
    """Ranks (N,), equal values sharing their mean rank."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = counts.cumsum()
    ranks: Floats = (ends - (counts - 1) / 2)[inverse]
    return ranks
