"""How sure a ranking is: sandwich and bootstrap by rater, by case or by both, ranks, Holm's contrasts.

Votes of one rater, or on one case, are not independent; intervals that ignore it are far too
narrow. The sandwich is quick and is what the results page shows; the bootstrap also gives ranks
and intervals that hold for all contestants together.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal

import numpy as np

from reviews import ranking
from reviews.ranking import Fit
from reviews.tally import Array, Indices, Tally, count, groups, is_separated

By = Literal["vote", "rater", "case", "both"]
Verdict = Literal["ahead", "behind", "open", "not_comparable"]

CONFIDENCE = 0.95
TABLE = 4_000_000  # numbers in one table of clusters by cells


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number with its standard error and 95 % interval."""

    value: float
    error: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Spread:
    """Covariance (K+2, K+2) of scores, side effect and log_tie; degrees of freedom, 0: normal.

    clusters: how many there are, of the smaller kind for 'both'. separated: see is_separated.
    """

    covariance: Array
    freedom: int
    clusters: int
    by: By
    separated: bool

    @property
    def quantile(self) -> float:
        """Standard errors from the value to either end of a 95 % interval."""
        return t_quantile(self.freedom)


@dataclass(frozen=True, slots=True)
class Contrast:
    """Two contestants: score(first) - score(second), in log-odds with its own 95 % interval.

    p: two-sided, Student's t. p_holm: adjusted for all contrasts. verdict: at p_holm < .05.
    """

    first: str
    second: str
    difference: Estimate
    p: float
    p_holm: float
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class Bootstrap:
    """B replicates: scores (B, K) centred within each comparable group, side (B,), log_tie (B,)."""

    scores: Array
    side: Array
    log_tie: Array
    groups: tuple[tuple[int, ...], ...]
    by: By


def spread(votes: Tally, fit: Fit, by: By) -> Spread:
    """The sandwich covariance of a fit, clustered as `by` says; the model's own for fewer than 2.

    Clusters G count as G / (G - 1) with G - 1 degrees of freedom. 'both' adds rater and case and
    subtracts rater-and-case; a matrix that is not positive is cut at 0. Where the votes are
    separated the model's own covariance is added, or 12 wins of 12 would look certain. Raises
    ValueError for cases that are not known. Source: White 1982; Cameron, Gelbach, Miller 2011.
    """
    if by in ("case", "both") and not votes.cases:
        raise ValueError("these votes do not say their cases; read them one by one")
    naive: Array = np.linalg.inv(fit.information).astype(np.float64)
    kinds = _clusters(votes, by)
    number = min((n for _, n, _ in kinds), default=0)
    cells, counts, _ = count(votes)
    separated = is_separated(cells, counts)
    if number < 2:
        return Spread(naive, 0, number, by, separated)
    meat = np.zeros_like(naive)
    for cluster, n, sign in kinds:
        scores = _cluster_scores(votes, fit, cluster, n)
        meat += sign * scores.T @ scores * (n / (n - 1))
    if by == "both":
        values, vectors = np.linalg.eigh(meat)
        meat = (vectors * np.maximum(values, 0)) @ vectors.T
    covariance = naive @ meat @ naive + (naive if separated else 0)
    return Spread(covariance, 0 if by == "vote" else number - 1, number, by, separated)


def _clusters(votes: Tally, by: By) -> list[tuple[Indices, int, int]]:
    """Each way of clustering: the rows' clusters (N,), how many, and its sign in the sum."""
    if by == "vote":
        rows = np.arange(len(votes.left))
        return [(rows, len(rows), 1)]
    rater, case = (votes.rater, votes.raters, 1), (votes.case, votes.cases, 1)
    if by != "both":
        return [rater if by == "rater" else case]
    cross, where = np.unique(votes.rater * votes.cases + votes.case, return_inverse=True)
    return [rater, case, (where.astype(np.int64), len(cross), -1)]


def _cluster_scores(votes: Tally, fit: Fit, cluster: Indices, n: int) -> Array:
    """Sum of the votes' likelihood slopes per cluster: (G, K+2)."""
    k = votes.models
    d = fit.scores[votes.left] - fit.scores[votes.right] + fit.side
    found = ranking.slopes(d, np.array(fit.log_tie), fit.model)
    by_d, by_tie = (
        votes.number * part[votes.outcome, np.arange(len(d))] for part in (found.by_d, found.by_tie)
    )
    base, total = cluster * (k + 2), np.zeros(n * (k + 2))
    for column, part in (
        (votes.left, by_d), (votes.right, -by_d), (k, by_d), (k + 1, by_tie),
    ):  # fmt: skip
        total += np.bincount(base + column, part, minlength=len(total))
    return total.reshape(n, k + 2)


def scores(fit: Fit, found: Spread, group: list[int]) -> list[Estimate]:
    """Each score of a comparable group, centred so that they sum to 0, with its interval."""
    centre = np.eye(len(group)) - 1 / len(group)
    inside = centre @ found.covariance[np.ix_(group, group)] @ centre
    values, errors = centre @ fit.scores[group], np.sqrt(np.maximum(0, np.diag(inside)))
    pairs = zip(values, errors, strict=True)
    return [estimate(float(v), float(e), found.quantile) for v, e in pairs]


def contrasts(votes: Tally, fit: Fit, found: Spread) -> list[Contrast]:
    """Every pair of contestants, the indirectly compared too, corrected for their number.

    Pairs that no chain of votes connects are 'not_comparable' and count in no correction.
    Source: Holm 1979.
    """
    cells = count(votes)[0]
    group_of = {i: n for n, group in enumerate(groups(cells)) for i in group}
    rows: list[tuple[int, int, Estimate, float]] = []
    for i in range(votes.models):
        for j in range(i + 1, votes.models):
            c = found.covariance
            error = math.sqrt(max(0.0, float(c[i, i] + c[j, j] - 2 * c[i, j])))
            value = float(fit.scores[i] - fit.scores[j])
            p = 1.0
            if group_of[i] == group_of[j] and error:
                p = 1 - t_inside(abs(value) / error, found.freedom)
            rows.append((i, j, estimate(value, error, found.quantile), p))
    comparable = [n for n, row in enumerate(rows) if group_of[row[0]] == group_of[row[1]]]
    adjusted = dict(zip(comparable, holm([rows[n][3] for n in comparable]), strict=True))
    result = []
    for n, (i, j, difference, p) in enumerate(rows):
        verdict: Verdict = "open"
        if n not in adjusted:
            verdict = "not_comparable"
        elif adjusted[n] < 1 - CONFIDENCE:
            verdict = "ahead" if difference.value > 0 else "behind"
        names = (votes.names[i], votes.names[j])
        result.append(Contrast(*names, difference, p, adjusted.get(n, 1.0), verdict))
    return result


def holm(p: list[float]) -> list[float]:
    """Holm's step-down adjusted p-values, in the order given. Source: Holm 1979."""
    result, highest = [0.0] * len(p), 0.0
    for rank, i in enumerate(sorted(range(len(p)), key=p.__getitem__)):
        highest = max(highest, min(1.0, (len(p) - rank) * p[i]))
        result[i] = highest
    return result


def bootstrap(
    votes: Tally,
    fit: Fit,
    rng: np.random.Generator,
    *,
    replicates: int = 1000,
    by: By = "rater",
) -> Bootstrap:
    """Draw whole raters (or cases, or both) with replacement and fit anew, all at once.

    Each draw re-weights the clusters' counts; no vote is copied. 'both' multiplies the weights
    of a vote's rater and case. Raises ValueError for no votes, fewer than 2 clusters or unknown
    cases. Source: Efron 1979; for 'both' the pigeonhole bootstrap of Owen 2007.
    """
    if not votes.models:
        raise ValueError("there are no votes to draw from")
    if by in ("case", "both") and not votes.cases:
        raise ValueError("these votes do not say their cases; read them one by one")
    kinds = _clusters(votes, by)[:2]
    if min(n for _, n, _ in kinds) < 2:
        raise ValueError("a bootstrap needs two raters, or cases, or more")
    cells, _, where = count(votes)
    weights = [rng.multinomial(n, np.full(n, 1 / n), replicates).astype(float) for _, n, _ in kinds]
    slot = where * 3 + votes.outcome
    if len(kinds) == 1:
        counts = _reweigh(slot, votes.number, kinds[0][0], weights[0], 3 * len(cells.left))
    else:
        counts = np.stack([
            np.bincount(slot, votes.number * one[votes.rater] * two[votes.case], 3 * len(cells.left))
            for one, two in zip(*weights, strict=True)
        ])  # fmt: skip
    start = np.concatenate([fit.scores, [fit.side, fit.log_tie]])
    x = ranking.solve(
        cells, counts.reshape(replicates, -1, 3), fit.model, start=start, tolerance=1e-7
    )
    found, k = groups(cells), votes.models
    for group in found:
        x[:, group] -= x[:, group].mean(axis=1, keepdims=True)
    return Bootstrap(x[:, :k], x[:, k], x[:, k + 1], tuple(map(tuple, found)), by)


def _reweigh(slot: Indices, number: Indices, cluster: Indices, weights: Array, size: int) -> Array:
    """Counts (B, size) under weights (B, G), as products with tables of some clusters at a time."""
    clusters = weights.shape[1]
    at_once = max(1, TABLE // max(size, 1))
    counts = np.zeros((len(weights), size))
    for first in range(0, clusters, at_once):
        width = min(at_once, clusters - first)
        inside = (cluster >= first) & (cluster < first + width)
        flat = (cluster[inside] - first) * size + slot[inside]
        table = np.bincount(flat, number[inside], minlength=width * size).reshape(width, size)
        counts += weights[:, first : first + width] @ table
    return counts


def percentiles(sample: Array, confidence: float = CONFIDENCE) -> Array:
    """Percentile interval of each column of a bootstrap's (B, K) sample: (K, 2)."""
    tail = (1 - confidence) / 2
    return np.quantile(sample, [tail, 1 - tail], axis=0).T


def rank_intervals(found: Bootstrap, confidence: float = CONFIDENCE) -> list[tuple[int, int]]:
    """Best and worst rank of each contestant within its group that the replicates support.

    Percentiles of the ranks, 1 is best. Source: Goldstein and Spiegelhalter 1996.
    """
    result = [(1, 1)] * found.scores.shape[1]
    for group in found.groups:
        inside = found.scores[:, list(group)]
        ranks = 1.0 + (inside[:, None, :] > inside[:, :, None]).sum(axis=2)
        for i, (low, high) in zip(group, percentiles(ranks, confidence), strict=True):
            result[i] = (math.floor(low), math.ceil(high))
    return result


def simultaneous(found: Bootstrap, fit: Fit, confidence: float = CONFIDENCE) -> list[Estimate]:
    """Intervals that hold for all of a group's scores at once, by the largest |t| of each replicate.

    Source: Westfall and Young 1993; Mogstad, Romano, Shaikh, Wilhelm 2024.
    """
    result = [Estimate(0.0, 0.0, 0.0, 0.0)] * len(fit.scores)
    for group in found.groups:
        at = list(group)
        values = fit.scores[at] - fit.scores[at].mean()
        errors = found.scores[:, at].std(axis=0, ddof=1)
        largest = np.abs(found.scores[:, at] - values) / np.maximum(errors, 1e-12)
        quantile = float(np.quantile(largest.max(axis=1), confidence))
        for i, value, error in zip(at, values, errors, strict=True):
            result[i] = estimate(float(value), float(error), quantile)
    return result


def estimate(value: float, error: float, quantile: float) -> Estimate:
    """A value with the interval of so many standard errors to either side."""
    return Estimate(value, error, value - quantile * error, value + quantile * error)


@functools.cache
def t_quantile(freedom: int, p: float = 0.5 + CONFIDENCE / 2) -> float:
    """The p-quantile of Student's t, p above 1/2; the normal one for 0 or over 200 degrees."""
    if freedom <= 0 or freedom > 200:
        return NormalDist().inv_cdf(p)
    low, high = 0.0, 1e4
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if t_inside(middle, freedom) < 2 * p - 1 else (low, middle)
    return (low + high) / 2


def t_inside(t: float, freedom: int) -> float:
    """P(|T| < t), by the finite series for whole degrees of freedom; normal for 0 or over 200.

    Source: Abramowitz and Stegun 26.7.3-4.
    """
    if freedom <= 0 or freedom > 200:
        return math.erf(t / math.sqrt(2))
    angle = math.atan2(t, math.sqrt(freedom))
    cos2, term, total = math.cos(angle) ** 2, 1.0, 1.0
    if freedom % 2 == 0:
        for j in range(1, freedom // 2):
            term *= cos2 * (2 * j - 1) / (2 * j)
            total += term
        return math.sin(angle) * total
    if freedom == 1:
        return 2 * angle / math.pi
    for j in range(1, (freedom - 1) // 2):
        term *= cos2 * 2 * j / (2 * j + 1)
        total += term
    return 2 / math.pi * (angle + math.sin(angle) * math.cos(angle) * total)
