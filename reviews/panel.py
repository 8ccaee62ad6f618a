"""The raters one by one: reliability against the others, side habits, gold pairs, judge and physicians.

Never a ranking of physicians to show to others: each sees their own row, a researcher sees all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from reviews import agreement
from reviews.agreement import Measured
from reviews.records import VoteRow
from reviews.stats import wilson
from reviews.tally import Array

CATEGORIES = ("b", "tie", "a", "both_bad")
"""Winners as category numbers; without both_bad their order is ordinal, from b to a."""


@dataclass(frozen=True, slots=True)
class Matrix:
    """Winners by rater and comparison, the random side undone: ratings (R, U), NaN for no vote."""

    ratings: Array
    raters: tuple[int, ...]
    units: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Share:
    """A share of a number of votes with Wilson's 95 % interval; (0, 1) and NaN for none."""

    value: float
    low: float
    high: float
    n: int


@dataclass(frozen=True, slots=True)
class Reliability:
    """One rater. agreement: share of pairs with the others on the same comparison that are equal.

    kappa: the same beyond chance, over the others' pooled votes; NaN if undefined. left: share of
    left among decisive votes, 1/2 where sides are drawn by chance. seconds: median time per vote.
    The agreement's Wilson interval counts comparisons, not pairs, as independent.
    """

    rater: int
    votes: int
    shared: int
    agreement: Share
    kappa: float
    left: Share
    seconds: float | None


@dataclass(frozen=True, slots=True)
class Judged:
    """A judge against physicians beside physicians against each other, on the same comparisons.

    Mean over comparisons of the share of equal pairs, and kappas beyond pooled chance; each with
    an interval over comparisons. gap: the judge's kappa minus the physicians', below 0 is worse.
    """

    agreement: Measured
    ceiling: Measured
    kappa: Measured
    ceiling_kappa: Measured
    gap: Measured


def matrix(votes: Sequence[VoteRow], *, both_bad_is_tie: bool = False) -> Matrix:
    """One row per rater, one column per comparison, both sorted; entries index CATEGORIES."""
    raters = sorted({v.rater for v in votes})
    units = sorted({v.comparison_id for v in votes})
    row, column = ({x: i for i, x in enumerate(xs)} for xs in (raters, units))
    ratings = np.full((len(raters), len(units)), np.nan)
    for v in votes:
        winner = "tie" if both_bad_is_tie and v.winner == "both_bad" else v.winner
        ratings[row[v.rater], column[v.comparison_id]] = CATEGORIES.index(winner)
    return Matrix(ratings, tuple(raters), tuple(units))


def reliability(votes: Sequence[VoteRow]) -> list[Reliability]:
    """Each rater against all others, in the raters' order."""
    found = matrix(votes)
    counts = agreement.category_counts(found.ratings, len(CATEGORIES))  # (U, C)
    mine: dict[int, list[VoteRow]] = {}
    for v in votes:
        mine.setdefault(v.rater, []).append(v)
    result = []
    for row, rater in enumerate(found.raters):
        own = agreement.category_counts(found.ratings[row : row + 1], len(CATEGORIES))
        others = counts - own
        shared = (own.sum(axis=1) > 0) & (others.sum(axis=1) > 0)
        table = own[shared].T @ (others[shared] / others[shared].sum(axis=1, keepdims=True))
        n = int(shared.sum())
        sides = [v.choice for v in mine[rater]]
        left, right = sides.count("left"), sides.count("right")
        times = [v.seconds for v in mine[rater] if v.seconds is not None]
        result.append(Reliability(
            rater, len(sides), n, share(float(np.trace(table)), n),
            float(agreement.kappa_of(table)) if n else float("nan"),
            share(left, left + right), float(np.median(times)) if times else None,
        ))  # fmt: skip
    return result


def gold(votes: Sequence[VoteRow], right: Mapping[str, str]) -> dict[int, Share]:
    """Each rater's share of gold comparisons answered as they should be.

    right: comparison id to its winner ('a', 'b', 'tie' or 'both_bad'). Raters without a gold vote
    have a share of none. Raises ValueError for a winner of another name.
    """
    if unknown := set(right.values()) - set(CATEGORIES):
        raise ValueError(f"no such winner: {sorted(unknown)[0]}")
    hits: dict[int, list[bool]] = {rater: [] for rater in sorted({v.rater for v in votes})}
    for v in votes:
        if v.comparison_id in right:
            hits[v.rater].append(right[v.comparison_id] == v.winner)
    return {rater: share(sum(each), len(each)) for rater, each in hits.items()}


def consistency(votes: Sequence[tuple[VoteRow, VoteRow]]) -> Share:
    """Share of repeats, sides swapped or not, in which the same winner was named again."""
    return share(sum(one.winner == two.winner for one, two in votes), len(votes))


def judge(
    physicians: Array, judged: Array, rng: np.random.Generator, *, replicates: int = 1000
) -> Judged:
    """Compare a judge (U,) with physicians (R, U) on comparisons that it and two of them rated.

    Category numbers, NaN for no vote, as in matrix(). Kappa is 1 - (1 - agreement) / (1 - chance)
    with chance from the pooled shares of both parties. Intervals draw whole comparisons; the gap's
    is paired. Raises ValueError for another shape. All NaN if nothing is shared. Source: the
    design of HealthBench's meta-evaluation (Arora et al. 2025), chance by Scott 1955.
    """
    if physicians.ndim != 2 or judged.shape != physicians.shape[1:]:
        raise ValueError(f"shapes do not fit: {physicians.shape} and {judged.shape}")
    size = int(max(np.nanmax(physicians, initial=0), np.nanmax(judged, initial=0))) + 1
    agreement.tables(np.vstack([physicians, judged[None]]))
    counts = agreement.category_counts(physicians, size)
    m = counts.sum(axis=1)
    use = (m > 1) & ~np.isnan(judged)
    counts, m, own = counts[use], m[use], np.eye(size)[judged[use].astype(int)]
    units = len(m)
    if not units:
        nothing = Measured(float("nan"), float("nan"), float("nan"), 0)
        return Judged(nothing, nothing, nothing, nothing, nothing)
    shares = counts / m[:, None]
    with_judge = (own * shares).sum(axis=1)
    with_others = (counts * (counts - 1)).sum(axis=1) / (m * (m - 1))

    def measure(weights: Array) -> Array:
        n = weights.sum(axis=1)
        theirs, its = ((weights @ part) / n[:, None] for part in (shares, own))
        same, ceiling = weights @ with_judge / n, weights @ with_others / n
        kappas = [
            1 - (1 - seen) / np.where(chance < 1, 1 - chance, np.nan)
            for seen, chance in (
                (same, (((theirs + its) / 2) ** 2).sum(axis=1)),
                (ceiling, (theirs**2).sum(axis=1)),
            )
        ]
        return np.stack([same, ceiling, *kappas, kappas[0] - kappas[1]])

    values = measure(np.ones((1, units)))[:, 0]
    drawn = rng.multinomial(units, np.full(units, 1 / units), replicates).astype(float)
    rows = measure(drawn)
    return Judged(*(
        Measured(float(value), *agreement.interval(row), units)
        for value, row in zip(values, rows, strict=True)
    ))  # fmt: skip


def share(hits: float, n: int) -> Share:
    """A share with Wilson's interval; NaN and (0, 1) for n of 0."""
    low, high = wilson(hits, n)
    return Share(hits / n if n else float("nan"), low, high, n)
