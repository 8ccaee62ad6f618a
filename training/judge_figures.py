"""figures of the judge's reports: radar of ratios, and agreement beside its ceiling as dumbbells; readable in grey.

The other figures are those of training/plots.py, whose look and colours these share.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
from matplotlib.figure import Figure
from matplotlib.projections.polar import PolarAxes

from training.plots import GRID, INK, MUTED, SERIES, style

Interval = tuple[float, float, float]
"""(value, lower end, upper end)."""
FEWEST_AXES = 3
"""Fewer groups than this make no radar."""


def radar(
    series: Mapping[str, Mapping[str, Interval]], title: str = "", *, own: str = "", most: int = 24
) -> Figure:
    """Ratios by group, as in the paper's figures: the circle at 1 is the model that is divided by, called `own`.

    series: model to group to (ratio, low, high), all models with the same groups, at most `most` of them; a ratio that
    is not finite is left out. Intervals are drawn along the spokes. Raises ValueError for fewer than three groups.
    """
    names = list(dict.fromkeys(name for values in series.values() for name in values))[:most]
    if len(names) < FEWEST_AXES:
        raise ValueError(f"a radar needs {FEWEST_AXES} groups, there are {len(names)}")
    angles = np.linspace(0, 2 * np.pi, len(names), endpoint=False)
    with style():
        figure = Figure(figsize=(6.4, 5.6), layout="constrained")
        axis = cast(PolarAxes, figure.add_subplot(projection="polar"))
        axis.set_theta_zero_location("N")
        axis.set_theta_direction(-1)
        ring = np.linspace(0, 2 * np.pi, 181)
        axis.plot(ring, np.ones(181), color=INK, linewidth=1.3, linestyle=(0, (4, 3)),
                  label=f"{own} = 1" if own else "1")  # fmt: skip
        ends = [1.0]
        for number, (model, values) in enumerate(series.items()):
            ends += _spokes(axis, angles, [values.get(name) for name in names], number, model)
        top = max(1.25, math.ceil(4 * max(ends)) / 4)
        axis.set_ylim(0, top)
        step = 0.25 if top <= 1.5 else 0.5 if top <= 3 else 1.0
        axis.set_yticks(np.arange(step, top + 0.01, step))
        axis.set_rlabel_position(float(np.degrees(angles[1]) / 2))
        axis.set_xticks(angles, names, color=INK)
        axis.tick_params(axis="x", pad=8)
        axis.grid(color=GRID)
        axis.spines["polar"].set_color(GRID)
        handles, labels = axis.get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower left", ncols=min(4, len(labels)))
        if title:
            figure.suptitle(title, x=0.01, ha="left", color=INK)
    return figure


def _spokes(
    axis: PolarAxes, angles: Any, values: Sequence[Interval | None], number: int, model: str
) -> list[float]:
    """Draws one model's polygon and its intervals; returns what the rim must hold."""
    middle = np.array([value[0] if value else math.nan for value in values])
    closed = np.append(middle, middle[:1])
    colour = SERIES[number % len(SERIES)]
    axis.plot(np.append(angles, angles[:1]), closed, color=colour, linewidth=1.6,
              linestyle=("solid", (0, (5, 2)), (0, (1.5, 1.5)), "dashdot")[number % 4],
              marker="os^D"[number % 4], markersize=4.5, label=model)  # fmt: skip
    if np.isfinite(middle).all():
        axis.fill(angles, middle, color=colour, alpha=0.1, linewidth=0)
    ends = [float(value) for value in middle if math.isfinite(value)]
    shift = 0.025 * number
    for angle, value in zip(angles, values, strict=True):
        if value and math.isfinite(value[1]) and math.isfinite(value[2]):
            axis.plot([angle + shift] * 2, value[1:], color=colour, linewidth=1, alpha=0.8)
            ends.append(min(value[2], 2 * max(1.0, value[0])))
    return ends


def dumbbells(
    rows: Mapping[str, Mapping[str, Interval | None]], title: str = "", *, label: str = ""
) -> Figure:
    """Two or three measures side by side for each row, joined by a line, each with its interval.

    rows: row to measure to (value, low, high), None or NaN for none ("n/a"); all rows have the same measures. The first
    measure is drawn as a hollow circle, the second filled. Raises ValueError without rows.
    """
    if not rows:
        raise ValueError("nothing to compare")
    names = list(next(iter(rows.values())))
    with style():
        figure = Figure(figsize=(7.6, 0.52 * len(rows) + 1.15), layout="constrained")
        axis = figure.subplots()
        seen = [0.0]
        for y, measures in enumerate(rows.values()):
            dots = []
            for number, name in enumerate(names):
                value = measures[name]
                height = y + 0.22 * (number - (len(names) - 1) / 2)
                if value is None or not math.isfinite(value[0]):
                    axis.text(0.005, height, f"{name}: n/a", va="center", color=MUTED, fontsize=8)
                    continue
                dots.append((value[0], height))
                seen += _dot(axis, value, height, number, name if name not in _told(axis) else "")
            if len(dots) > 1:
                axis.plot(*zip(*dots, strict=True), color=MUTED, linewidth=0.8, zorder=1)
        axis.set_yticks(range(len(rows)), list(rows), color=INK)
        axis.set_ylim(len(rows) - 0.4, -0.6)
        axis.set_xlim(min(seen) - 0.05 * (min(seen) < 0), max(1.0, *seen) + 0.02)
        axis.tick_params(axis="y", length=0)
        axis.spines["left"].set_visible(False)
        axis.grid(axis="x")
        axis.set_axisbelow(True)
        axis.set_xlabel(label)
        handles, labels = axis.get_legend_handles_labels()
        if labels:
            figure.legend(handles, labels, loc="outside lower left", ncols=len(labels))
        if title:
            figure.suptitle(title, x=0.01, ha="left", color=INK)
    return figure


def _told(axis: Any) -> list[str]:
    return list(axis.get_legend_handles_labels()[1])


def _dot(axis: Any, value: Interval, height: float, number: int, name: str) -> list[float]:
    middle, low, high = value
    colour = SERIES[number % len(SERIES)]
    ends = [middle]
    if math.isfinite(low) and math.isfinite(high):
        axis.plot([low, high], [height] * 2, color=colour, linewidth=1.4, solid_capstyle="butt",
                  linestyle=("solid", (0, (5, 2)), (0, (1.5, 1.5)))[number % 3])  # fmt: skip
        ends += [low, high]
    axis.plot([middle], [height], marker="osD"[number % 3], markersize=6, linestyle="none",
              color=colour, markerfacecolor="none" if number == 0 else colour, label=name or None)  # fmt: skip
    return ends
