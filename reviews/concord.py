"""Whether the raters of a study agree, by every measure a reviewer asks for, and each rater's own row.

On the winner, the random side undone; each measure says why where it is not defined. Nothing here
is a ranking of physicians to show to others.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from reviews import agreement, panel
from reviews.panel import CATEGORIES, Judged
from reviews.records import VoteRow
from reviews.stated import Stated, Why, absent, finite, of_measured, of_share
from reviews.tally import Array

PAIRS_OF_RATERS = 66
"""Up to twelve raters get Cohen's kappa for every two of them; more would fill pages."""


@dataclass(frozen=True, slots=True)
class TwoRaters:
    """Two raters on the comparisons that both judged. kappa: four outcomes. weighted: both bad as
    a tie, linear weights."""

    one: int
    two: int
    raw: Stated
    kappa: Stated
    weighted: Stated


@dataclass(frozen=True, slots=True)
class Concord:
    """All measures of agreement on the winner, with intervals over comparisons.

    shared: comparisons with two votes or more. alpha: nominal, four outcomes; ordinal: Krippendorff's
    too, both bad as a tie. kappa: mean of Cohen's over all two raters who share comparisons, weighed
    by their number. pairs: empty for more than twelve raters.
    """

    raters: int
    shared: int
    raw: Stated
    alpha: Stated
    ordinal: Stated
    fleiss: Stated
    ac1: Stated
    kappa: Stated
    pairs: tuple[TwoRaters, ...]


@dataclass(frozen=True, slots=True)
class RaterRow:
    """One rater, by pseudonym. agreement: with the others on the same comparisons; kappa: beyond
    chance. left: share of left among the decided votes. seconds: quartiles (25, 50, 75 %) of the
    time per vote, None for no times. fast: votes faster than the protocol's least time.
    """

    rater: int
    votes: int
    agreement: Stated
    kappa: Stated
    left: Stated
    gold: Stated
    seconds: tuple[float, float, float] | None
    fast: int


def concord(votes: Sequence[VoteRow], rng: np.random.Generator) -> Concord:
    """Every measure; rng draws the comparisons for the intervals."""
    full, ordered = panel.matrix(votes), panel.matrix(votes, both_bad_is_tie=True)
    raters = len(full.raters)
    counts = agreement.category_counts(full.ratings, len(CATEGORIES))
    paired = counts[counts.sum(axis=1) > 1]
    missing = _why(raters, len(paired), paired)
    if missing in ("no_votes", "one_rater", "nothing_shared"):
        nothing = absent(missing)
        return Concord(raters, 0, *(nothing,) * 6, ())
    raw = of_measured(agreement.raw(full.ratings, rng=rng), missing)
    if missing:
        nothing = absent(missing, len(paired))
        return Concord(raters, len(paired), raw, *(nothing,) * 5, ())
    return Concord(
        raters,
        len(paired),
        raw,
        of_measured(agreement.krippendorff(full.ratings, rng=rng), "one_category"),
        of_measured(agreement.krippendorff(ordered.ratings, "ordinal", rng=rng), "one_category"),
        _fleiss(counts, rng),
        of_measured(agreement.gwet(full.ratings, len(CATEGORIES), rng=rng), "one_category"),
        _mean_kappa(full.ratings, rng),
        _pairs(full.ratings, ordered.ratings, full.raters, rng),
    )


def _why(raters: int, shared: int, paired: Array) -> Why:
    if raters < 2:
        return "one_rater" if raters else "no_votes"
    if not shared:
        return "nothing_shared"
    return "one_category" if int((paired.sum(axis=0) > 0).sum()) < 2 else ""


def _fleiss(counts: Array, rng: np.random.Generator) -> Stated:
    """Over the comparisons with the panel's usual number of votes, if all voted ones have it."""
    seen = counts[counts.sum(axis=1) > 0]
    sizes = seen.sum(axis=1)
    if sizes.min() < 2 or sizes.min() != sizes.max():
        return absent("uneven_panel", len(seen))
    return of_measured(agreement.fleiss(seen, rng=rng), "one_category")


def _mean_kappa(ratings: Array, rng: np.random.Generator, replicates: int = 1000) -> Stated:
    """Mean of Cohen's kappas, each weighed by its comparisons; only for up to PAIRS_OF_RATERS."""
    two = list(itertools.combinations(range(len(ratings)), 2))
    shared = ~np.isnan(ratings).all(axis=0)
    if len(two) > PAIRS_OF_RATERS:
        return absent("not_asked", int(shared.sum()))
    units, size = ratings.shape[1], len(CATEGORIES)
    drawn = rng.multinomial(units, np.full(units, 1 / units), replicates).astype(float)
    weights = np.vstack([np.ones(units), drawn])
    total, number = np.zeros(len(weights)), np.zeros(len(weights))
    for i, j in two:
        both = np.flatnonzero(~np.isnan(ratings[i]) & ~np.isnan(ratings[j]))
        if not len(both):
            continue
        cell = (ratings[i, both] * size + ratings[j, both]).astype(int)
        tables = weights[:, both] @ np.eye(size * size)[cell]
        kappa = agreement.kappa_of(tables.reshape(-1, size, size))
        use = np.isfinite(kappa)
        n = tables.sum(axis=1) * use
        total += np.where(use, kappa, 0) * n
        number += n
    mean = total / np.where(number > 0, number, np.nan)
    value = finite(float(mean[0]))
    if value is None:
        return absent("one_category")
    low, high = agreement.interval(mean[1:])
    return Stated(
        value, finite(low), finite(high), int(((~np.isnan(ratings)).sum(axis=0) > 1).sum())
    )


def _pairs(
    full: Array, ordered: Array, raters: Sequence[int], rng: np.random.Generator
) -> tuple[TwoRaters, ...]:
    result = []
    for i, j in itertools.combinations(range(len(raters)), 2):
        if len(raters) * (len(raters) - 1) // 2 > PAIRS_OF_RATERS:
            break
        both = ~np.isnan(full[i]) & ~np.isnan(full[j])
        n = int(both.sum())
        if not n:
            nothing = absent("nothing_shared")
            result.append(TwoRaters(raters[i], raters[j], nothing, nothing, nothing))
            continue
        equal = int((full[i, both] == full[j, both]).sum())
        kappa = agreement.cohen(full[i], full[j], rng=rng)
        weighted = agreement.cohen(ordered[i], ordered[j], "linear", rng=rng)
        result.append(
            TwoRaters(
                raters[i], raters[j], of_share(panel.share(equal, n)),
                of_measured(kappa, "one_category"), of_measured(weighted, "one_category"),
            )
        )  # fmt: skip
    return tuple(result)


def rater_rows(votes: Sequence[VoteRow], gold: Mapping[str, str]) -> tuple[RaterRow, ...]:
    """Each rater's row. gold: comparison id to its winner, as in panel.gold()."""
    mine: dict[int, list[VoteRow]] = {}
    for v in votes:
        mine.setdefault(v.rater, []).append(v)
    right = panel.gold(votes, gold)
    alone: Why = "one_rater" if len(mine) < 2 else "nothing_shared"
    rows = []
    for r in panel.reliability(votes):
        times = [v.seconds for v in mine[r.rater] if v.seconds is not None]
        agreed = of_share(r.agreement) if r.shared else absent(alone)
        kappa = finite(r.kappa)
        rows.append(
            RaterRow(
                r.rater, r.votes, agreed,
                Stated(kappa, None, None, r.shared) if kappa is not None
                else absent("one_category" if r.shared else alone, r.shared),
                of_share(r.left),
                of_share(right[r.rater]) if gold else absent("not_asked"),
                quartiles(times), sum(v.fast for v in mine[r.rater]),
            )
        )  # fmt: skip
    return tuple(rows)


def quartiles(times: Sequence[float]) -> tuple[float, float, float] | None:
    """25, 50 and 75 % points of times in seconds; None for none."""
    if not times:
        return None
    low, middle, high = np.quantile(times, [0.25, 0.5, 0.75])
    return (float(low), float(middle), float(high))


def judged(
    votes: Sequence[VoteRow], verdicts: Mapping[str, str], rng: np.random.Generator
) -> Judged | None:
    """A judge's verdicts (comparison id to winner) against the physicians; None if nothing is shared.

    Raises ValueError for a winner of another name.
    """
    if unknown := set(verdicts.values()) - set(CATEGORIES):
        raise ValueError(f"no such winner: {sorted(unknown)[0]}")
    full = panel.matrix(votes)
    own = [CATEGORIES.index(verdicts[u]) if u in verdicts else np.nan for u in full.units]
    if not full.units:
        return None
    found = panel.judge(full.ratings, np.array(own, np.float64), rng)
    return found if found.agreement.units else None
