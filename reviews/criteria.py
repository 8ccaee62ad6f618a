"""What the criteria say: mean of each contestant per criterion, paired differences, preferences.

A scale's ratings (1 to 5 for each side) and a preference's (1: left much better, 5: right much
better) are stored as seen; here the random side is undone. Intervals are clustered by case:
ratings of one case are not independent.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from reviews import agreement, intervals
from reviews.records import VoteRow
from reviews.stated import Stated, absent, of_measured

LEVELS = (1, 2, 3, 4, 5)


@dataclass(frozen=True, slots=True)
class Mean:
    """A contestant's mean on a scale criterion, 1 to 5, with its interval and the five counts."""

    criterion: str
    contestant: str
    mean: Stated
    counts: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Difference:
    """Mean of first minus second, both rated in the same vote; in points of the scale."""

    criterion: str
    first: str
    second: str
    difference: Stated


@dataclass(frozen=True, slots=True)
class Preference:
    """How votes on a pair lean: counts from "first much better" to "second much better".

    lean: mean of 3 minus the level, in -2 to 2; above 0 the first is preferred.
    """

    criterion: str
    first: str
    second: str
    counts: tuple[int, ...]
    lean: Stated


@dataclass(frozen=True, slots=True)
class Criteria:
    """All criteria in their order. agreement: Krippendorff's ordinal alpha by criterion's key."""

    means: tuple[Mean, ...]
    differences: tuple[Difference, ...]
    preferences: tuple[Preference, ...]
    agreement: dict[str, Stated]


@dataclass(frozen=True, slots=True)
class _Rated:
    """One rating of a contestant, or of a pair: which case, which unit, which rater, what."""

    case: str
    unit: str
    rater: int
    value: float


def criteria(
    votes: Sequence[VoteRow],
    scales: Sequence[str],
    preferences: Sequence[str],
    rng: np.random.Generator,
) -> Criteria:
    """Every scale and preference criterion. rng: for the agreements' intervals."""
    means: list[Mean] = []
    differences: list[Difference] = []
    leans: list[Preference] = []
    agreed: dict[str, Stated] = {}
    for key in scales:
        rated, apart = _scale(votes, key)
        for name, rows in sorted(rated.items()):
            values = [int(row.value) for row in rows]
            counts = tuple(values.count(level) for level in LEVELS)
            means.append(Mean(key, name, clustered(rows), counts))
        for names, rows in sorted(apart.items()):
            differences.append(Difference(key, *names, clustered(rows)))
        agreed[key] = _agreement([row for rows in rated.values() for row in rows], rng)
    for key in preferences:
        found = _preference(votes, key)
        for names, rows in sorted(found.items()):
            values = [int(row.value) for row in rows]
            lean = [_Rated(r.case, r.unit, r.rater, 3 - r.value) for r in rows]
            counts = tuple(values.count(level) for level in LEVELS)
            leans.append(Preference(key, *names, counts, clustered(lean)))
        agreed[key] = _agreement([row for rows in found.values() for row in rows], rng)
    return Criteria(tuple(means), tuple(differences), tuple(leans), agreed)


def keys_of(votes: Sequence[VoteRow]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The scale and the preference criteria that the votes' ratings name, sorted."""
    names = {name for v in votes for name in v.ratings}
    scales = {n.removeprefix("left_") for n in names if n.startswith("left_")}
    return (
        tuple(sorted(s for s in scales if f"right_{s}" in names)),
        tuple(sorted(n.removeprefix("pref_") for n in names if n.startswith("pref_"))),
    )


def clustered(rows: Sequence[_Rated]) -> Stated:
    """Mean with a 95 % interval clustered by case, Student's t with cases - 1 degrees of freedom.

    Source: the sandwich of a mean with G / (G - 1), Liang and Zeger 1986.
    """
    if not rows:
        return absent("no_votes")
    index: dict[str, int] = {}
    case = np.array([index.setdefault(row.case, len(index)) for row in rows])
    values = np.array([row.value for row in rows])
    n, groups, mean = len(values), len(index), float(values.mean())
    if groups < 2:
        return Stated(mean, None, None, n, "one_cluster")
    sums = np.bincount(case, values - mean, groups)
    error = math.sqrt(groups / (groups - 1) * float(sums @ sums)) / n
    half = intervals.t_quantile(groups - 1) * error
    return Stated(mean, mean - half, mean + half, n)


def _scale(
    votes: Sequence[VoteRow], key: str
) -> tuple[dict[str, list[_Rated]], dict[tuple[str, str], list[_Rated]]]:
    """Ratings by contestant, and first minus second by pair, names in order."""
    rated: dict[str, list[_Rated]] = {}
    apart: dict[tuple[str, str], list[_Rated]] = {}
    for v in votes:
        seen = {side: v.ratings.get(f"{side}_{key}") for side in ("left", "right")}
        own = {
            v.contestant_a: seen["left" if v.left_is == "a" else "right"],
            v.contestant_b: seen["right" if v.left_is == "a" else "left"],
        }
        for name, value in own.items():
            if value is not None:
                row = _Rated(v.case, f"{v.comparison_id}\n{name}", v.rater, float(value))
                rated.setdefault(name, []).append(row)
        first, second = sorted(own)
        one, two = own[first], own[second]
        if one is not None and two is not None:
            row = _Rated(v.case, v.comparison_id, v.rater, float(one - two))
            apart.setdefault((first, second), []).append(row)
    return rated, apart


def _preference(votes: Sequence[VoteRow], key: str) -> dict[tuple[str, str], list[_Rated]]:
    """Levels by pair, turned so that 1 means that the earlier name is much better."""
    found: dict[tuple[str, str], list[_Rated]] = {}
    for v in votes:
        level = v.ratings.get(f"pref_{key}")
        if level is None:
            continue
        first, second = sorted((v.contestant_a, v.contestant_b))
        left = v.contestant_a if v.left_is == "a" else v.contestant_b
        value = float(level if left == first else 6 - level)
        found.setdefault((first, second), []).append(
            _Rated(v.case, v.comparison_id, v.rater, value)
        )
    return found


def _agreement(rows: Sequence[_Rated], rng: np.random.Generator) -> Stated:
    raters = sorted({row.rater for row in rows})
    if len(raters) < 2:
        return absent("one_rater" if raters else "no_votes")
    units = sorted({row.unit for row in rows})
    place = {rater: i for i, rater in enumerate(raters)}
    column = {unit: i for i, unit in enumerate(units)}
    ratings = np.full((len(raters), len(units)), np.nan)
    for row in rows:
        ratings[place[row.rater], column[row.unit]] = row.value - 1
    shared = ratings[:, (~np.isnan(ratings)).sum(axis=0) > 1]
    if not shared.size:
        return absent("nothing_shared")
    return of_measured(agreement.krippendorff(ratings, "ordinal", rng=rng), "one_category")
