"""Whether raters agree: Krippendorff's alpha, Cohen's and Fleiss' kappa, Gwet's AC1, with intervals.

Ratings stand in a matrix (R, U) of R raters and U units, as category numbers from 0, NaN where a
rater did not see a unit; for an ordinal measure their order counts. Votes must have their random
side undone before (panel.py does it), or agreement is computed on left and right. Bands such as
.67 and .80 are guidance. A rare category drags every kappa down, so raw agreement stands beside.
Who rates well and judges against physicians: panel.py.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import numpy as np

from reviews.tally import Array

Level = Literal["nominal", "ordinal", "interval"]
Weights = Literal["none", "linear", "quadratic"]


class Measured(NamedTuple):
    """A measure with its percentile interval over units; NaN where it is not defined.

    value, low, high: 1 is perfect, 0 as chance, below 0 worse. units: those with two ratings or more.
    """

    value: float
    low: float
    high: float
    units: int


def tables(ratings: Array, categories: int | None = None) -> Array:
    """Coincidences of each unit, (U, C, C): every ordered pair of ratings weighs 1 / (m - 1).

    m is the number of ratings of the unit; units with fewer than two give zeros. Raises
    ValueError for a matrix that is not (R, U) or categories that are not whole numbers from 0.
    Source: Krippendorff 2011.
    """
    if ratings.ndim != 2:
        raise ValueError(f"ratings must be (raters, units), not {ratings.shape}")
    known = ~np.isnan(ratings)
    values = np.where(known, ratings, 0)
    if (values < 0).any() or (values != np.floor(values)).any():
        raise ValueError("categories are whole numbers from 0; NaN is a missing rating")
    size = int(values.max(initial=0)) + 1
    if categories is not None and categories < size:
        raise ValueError(f"a rating is {size - 1}, but there are {categories} categories")
    counts = category_counts(ratings, categories or size)
    seen = counts.sum(axis=1)
    pairs = counts[:, :, None] * counts[:, None, :]
    diagonal = np.arange(counts.shape[1])
    pairs[:, diagonal, diagonal] -= counts
    return pairs / np.maximum(seen - 1, 1)[:, None, None]


def category_counts(ratings: Array, categories: int) -> Array:
    """How often each unit got each category: (U, C)."""
    return np.stack([(ratings == c).sum(axis=0) for c in range(categories)], axis=1).astype(float)


def distance(totals: Array, level: Level) -> Array:
    """Squared difference of categories: totals (..., C) to (..., C, C). Source: Krippendorff 2011."""
    size = totals.shape[-1]
    numbers = np.arange(size)
    if level == "nominal":
        return np.broadcast_to(1.0 - np.eye(size), (*totals.shape, size))
    if level == "interval":
        apart = (numbers[:, None] - numbers[None, :]) ** 2.0
        return np.broadcast_to(apart, (*totals.shape, size))
    middle = np.cumsum(totals, axis=-1) - totals / 2
    return (middle[..., :, None] - middle[..., None, :]) ** 2


def alpha_of(coincidences: Array, level: Level = "nominal") -> Array:
    """Alpha of coincidence matrices (..., C, C); NaN where all ratings are of one category.

    1 - (n - 1) sum(o d) / sum(n_c n_k d). Source: Krippendorff 2011.
    """
    totals = coincidences.sum(axis=-1)
    apart = distance(totals, level)
    observed = (coincidences * apart).sum(axis=(-2, -1))
    expected = (totals[..., :, None] * totals[..., None, :] * apart).sum(axis=(-2, -1))
    n = totals.sum(axis=-1)
    share = (n - 1) * observed / np.where(expected > 0, expected, np.nan)
    return np.asarray(1 - share, np.float64)


def krippendorff(
    ratings: Array,
    level: Level = "nominal",
    *,
    rng: np.random.Generator | None = None,
    replicates: int = 1000,
) -> Measured:
    """Krippendorff's alpha, missing ratings allowed; with rng the interval draws whole units.

    Raises ValueError as tables() does. NaN if no unit has two ratings or nothing varies.
    Source: Krippendorff 2011; interval: bootstrap over units.
    """
    each = tables(ratings)
    value = float(alpha_of(each.sum(axis=0), level))
    paired = np.flatnonzero(each.sum(axis=(1, 2)) > 0)
    each = each[paired]

    def measure(weights: Array) -> Array:
        return alpha_of(np.tensordot(weights, each, 1), level)

    return Measured(value, *_over_units(measure, len(paired), rng, replicates), len(paired))


def raw_agreement(ratings: Array) -> float:
    """Share of all pairs of ratings of one unit that are equal, units weighed by their ratings."""
    o = tables(ratings).sum(axis=0)
    return float(np.trace(o) / o.sum()) if o.sum() else float("nan")


def raw(
    ratings: Array, *, rng: np.random.Generator | None = None, replicates: int = 1000
) -> Measured:
    """raw_agreement() with an interval over units. Raises ValueError as tables() does."""
    each = tables(ratings)
    paired = each[each.sum(axis=(1, 2)) > 0]
    equal, total = np.trace(paired, axis1=1, axis2=2), paired.sum(axis=(1, 2))

    def measure(weights: Array) -> Array:
        seen = weights @ total
        return np.asarray(weights @ equal / np.where(seen > 0, seen, np.nan), np.float64)

    value = float(measure(np.ones((1, len(paired))))[0])
    return Measured(value, *_over_units(measure, len(paired), rng, replicates), len(paired))


def kappa_of(table: Array, weights: Weights = "none") -> Array:
    """Cohen's kappa of tables (..., C, C) of two raters; NaN where chance explains everything.

    Source: Cohen 1960; weights: Cohen 1968.
    """
    numbers = np.arange(table.shape[-1])
    apart = np.abs(numbers[:, None] - numbers[None, :]).astype(float)
    lost = {"none": (apart > 0).astype(float), "linear": apart, "quadratic": apart**2}[weights]
    n = table.sum(axis=(-2, -1))
    expected = table.sum(-1)[..., :, None] * table.sum(-2)[..., None, :]
    chance = (expected * lost).sum(axis=(-2, -1))
    observed = n * (table * lost).sum(axis=(-2, -1))
    return np.asarray(1 - observed / np.where(chance > 0, chance, np.nan), np.float64)


def cohen(
    one: Array,
    two: Array,
    weights: Weights = "none",
    *,
    rng: np.random.Generator | None = None,
    replicates: int = 1000,
) -> Measured:
    """Cohen's kappa of two raters' ratings (U,), units that both rated; interval over units.

    Raises ValueError for lengths that differ and as tables() does. Source: Cohen 1960, 1968.
    """
    if one.shape != two.shape or one.ndim != 1:
        raise ValueError(f"ratings must be two equal rows, not {one.shape} and {two.shape}")
    tables(np.stack([one, two]))
    both = ~(np.isnan(one) | np.isnan(two))
    a, b = one[both].astype(int), two[both].astype(int)
    size = int(max(a.max(initial=0), b.max(initial=0))) + 1

    def measure(weight: Array) -> Array:
        table = np.stack([np.bincount(a * size + b, w, size * size) for w in weight])
        return kappa_of(table.reshape(-1, size, size).astype(np.float64), weights)

    value = float(measure(np.ones((1, len(a))))[0])
    return Measured(value, *_over_units(measure, len(a), rng, replicates), len(a))


def fleiss(
    counts: Array, *, rng: np.random.Generator | None = None, replicates: int = 1000
) -> Measured:
    """Fleiss' kappa of counts (U, C), where every unit has the same number of ratings.

    Raises ValueError where it has not, or fewer than two: use krippendorff(). Source: Fleiss 1971.
    """
    per_unit = counts.sum(axis=1)
    if (
        counts.ndim != 2
        or not len(counts)
        or per_unit.min() < 2
        or per_unit.min() != per_unit.max()
    ):
        raise ValueError("every unit needs the same number of ratings, two or more")
    m = float(per_unit[0])
    within = ((counts**2).sum(axis=1) - m) / (m * (m - 1))

    def measure(weights: Array) -> Array:
        n = weights.sum(axis=1)
        chance = ((weights @ counts / (n * m)[:, None]) ** 2).sum(axis=1)
        return np.asarray(
            (weights @ within / n - chance) / np.where(chance < 1, 1 - chance, np.nan)
        )

    value = float(measure(np.ones((1, len(counts))))[0])
    return Measured(value, *_over_units(measure, len(counts), rng, replicates), len(counts))


def gwet(
    ratings: Array,
    categories: int,
    *,
    rng: np.random.Generator | None = None,
    replicates: int = 1000,
) -> Measured:
    """Gwet's AC1 for rare categories, missing ratings allowed; interval over units.

    Raises ValueError for fewer than 2 categories and as tables() does. Source: Gwet 2008,
    with the units' own numbers of ratings as in Gwet 2014.
    """
    if categories < 2:
        raise ValueError("AC1 needs two categories or more")
    tables(ratings, categories)
    counts = category_counts(ratings, categories)
    counts = counts[counts.sum(axis=1) > 0]
    m = counts.sum(axis=1)
    paired = (m > 1).astype(float)
    within = (counts * (counts - 1)).sum(axis=1) / np.maximum(m * (m - 1), 1)

    def measure(weights: Array) -> Array:
        shares = weights @ (counts / m[:, None]) / weights.sum(axis=1)[:, None]
        chance = (shares * (1 - shares)).sum(axis=1) / (categories - 1)
        n = weights @ paired
        observed = weights @ within / np.where(n > 0, n, np.nan)
        return np.asarray((observed - chance) / (1 - chance), np.float64)

    if not len(counts):
        return Measured(float("nan"), float("nan"), float("nan"), 0)
    value = float(measure(np.ones((1, len(counts))))[0])
    return Measured(value, *_over_units(measure, len(counts), rng, replicates), int(paired.sum()))


def _over_units(
    measure: Callable[[Array], Array], units: int, rng: np.random.Generator | None, replicates: int
) -> tuple[float, float]:
    """95 % percentile interval of a measure of unit weights (B, U); NaN without rng or units."""
    if rng is None or units < 2:
        return (float("nan"), float("nan"))
    sample = measure(rng.multinomial(units, np.full(units, 1 / units), replicates).astype(float))
    return interval(sample)


def interval(sample: Array | Sequence[float]) -> tuple[float, float]:
    """2.5 and 97.5 % points of a sample's defined values; NaN if fewer than half are defined."""
    values = np.asarray(sample, np.float64)
    defined = values[np.isfinite(values)]
    if len(defined) * 2 < len(values) or not len(defined):
        return (float("nan"), float("nan"))
    low, high = np.quantile(defined, [0.025, 0.975])
    return (float(low), float(high))
