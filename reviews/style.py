"""The ranking with style held equal: how much of a preference goes to length and formatting.

Davidson's model with covariates, d = score(left) - score(right) + side effect + x @ effects, where
x is a difference, left minus right, of what an answer looks like. Covariates are divided by their
root mean square and never centred, so that 0 stays "both the same". With fewer than about 2,000
votes keep to the two covariates that differences() makes.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from reviews import intervals, ranking
from reviews.intervals import Estimate
from reviews.ranking import RIDGE
from reviews.tally import Array, Cells, Indices, Votes, groups, tally

NAMES = ("length", "formatting")
_FORMATTING = re.compile(r"^\s*(?:[-*+•] |\d+[.、)] ?|#{1,6} )|\*\*[^*\n]+\*\*", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Styled:
    """Scores in log-odds with style as it came (raw) and held equal (controlled), by name.

    effects: log-odds for the left answer per one root mean square more of a covariate.
    scales: that root mean square, in the covariate's own unit; 0 where it never differed.
    comparable: whether one chain of votes connects all; if not, only scores within a group are.
    """

    raw: dict[str, Estimate]
    controlled: dict[str, Estimate]
    side_effect: Estimate
    effects: dict[str, Estimate]
    scales: dict[str, float]
    votes: int
    clusters: int
    comparable: bool


def differences(left: str, right: str) -> tuple[float, float]:
    """Left minus right: log of the length in characters, log of the number of formatting marks.

    A mark is a list item, a heading or bold text; both logarithms are of 1 + the number.
    Source: the covariates of Chiang et al. 2024 (Chatbot Arena's style control), two for few votes.
    """
    length = math.log1p(len(left)) - math.log1p(len(right))
    marks = [len(_FORMATTING.findall(text)) for text in (left, right)]
    return (length, math.log1p(marks[0]) - math.log1p(marks[1]))


def control(votes: Votes, covariates: Array, names: Sequence[str] = NAMES) -> Styled:
    """Rank with and without the covariates, intervals clustered by rater.

    covariates: (N, F), left minus right, a row per vote. Raises ValueError for another shape,
    a number that is not finite, or no votes. Swapping the sides of every vote and the sign of
    its covariates turns the side effect's sign only.
    """
    read = tally(votes)
    if covariates.shape != (len(read.left), len(names)) or not len(read.left):
        raise ValueError(
            f"covariates must be ({len(read.left)}, {len(names)}), of one vote or more"
        )
    if not np.isfinite(covariates).all():
        raise ValueError("a covariate is not finite")
    k, size = read.models, len(read.left)
    scales = np.sqrt((read.number @ covariates**2) / read.number.sum())
    scaled = covariates / np.where(scales > 0, scales, 1)
    design = np.zeros((size, k + 1 + len(names)))  # (N, P): scores, side, effects
    rows = np.arange(size)
    design[rows, read.left], design[rows, read.right], design[:, k] = 1, -1, 1
    design[:, k + 1 :] = scaled
    counts = np.zeros((size, 3))
    counts[rows, read.outcome] = read.number
    found = []
    for columns in (k + 1, k + 1 + len(names)):
        x, information = fit(design[:, :columns], counts)
        covariance, clusters = _sandwich(design[:, :columns], counts, x, information, read.rater)
        found.append((x, covariance, intervals.t_quantile(max(0, clusters - 1))))
    joined = groups(Cells(read.left, read.right, k))
    scores = [_scores(read.names, *one, joined) for one in found]
    x, covariance, quantile = found[1]
    errors = np.sqrt(np.maximum(0, np.diag(covariance)))
    parts = [
        intervals.estimate(float(v), float(e), quantile) for v, e in zip(x, errors, strict=True)
    ]
    return Styled(
        raw=scores[0],
        controlled=scores[1],
        side_effect=parts[k],
        effects=dict(zip(names, parts[k + 1 : -1], strict=True)),
        scales=dict(zip(names, map(float, scales), strict=True)),
        votes=int(read.number.sum()),
        clusters=read.raters,
        comparable=len(joined) < 2,
    )


def fit(design: Array, counts: Array, ridge: float = RIDGE) -> tuple[Array, Array]:
    """Davidson's model on any design: design (N, P), counts (N, 3) to ((P+1,), (P+1, P+1)).

    Comes back: the parameters, log(nu) last, and the information with its ridge. Newton's method
    with halving; the likelihood is concave. Source: Davidson 1970; Davidson and Beaver 1977.
    """
    x = np.zeros(design.shape[1] + 1)
    value, gradient, information = _climb(design, counts, x, ridge)
    for _ in range(ranking.STEPS):
        step = np.linalg.solve(information, gradient)
        for halving in range(30):
            new = x + step / 2**halving
            better, gradient, information = _climb(design, counts, new, ridge)
            if better >= value - 1e-9 * (1 + abs(value)):
                break
        moved = float(np.abs(new - x).max())
        x, value = new, better
        if moved < 1e-10:
            break
    return x, information


def _climb(design: Array, counts: Array, x: Array, ridge: float) -> tuple[float, Array, Array]:
    found = ranking.slopes(design @ x[:-1], x[-1], "davidson")
    share, total = np.exp(found.log), counts.sum(axis=1)
    dd, dt, tt = (
        total * (share * one * two).sum(axis=0)
        for one, two in (
            (found.by_d, found.by_d),
            (found.by_d, found.by_tie),
            (found.by_tie, found.by_tie),
        )
    )
    value = float((counts.T * found.log).sum() - ridge / 2 * (x @ x))
    lean, even = (counts.T * found.by_d).sum(axis=0), (counts.T * found.by_tie).sum()
    information = np.zeros((len(x), len(x)))
    information[:-1, :-1] = (design * dd[:, None]).T @ design
    information[:-1, -1] = information[-1, :-1] = design.T @ dt
    information[-1, -1] = tt.sum()
    gradient = np.concatenate([design.T @ lean, [even]]) - ridge * x
    return value, gradient, information + ridge * np.eye(len(x))


def _sandwich(
    design: Array, counts: Array, x: Array, information: Array, cluster: Indices
) -> tuple[Array, int]:
    """Covariance (P+1, P+1) clustered as in intervals.spread(); the model's own for one cluster."""
    naive = np.linalg.inv(information).astype(np.float64)
    number = int(cluster.max()) + 1
    if number < 2:
        return naive, number
    found = ranking.slopes(design @ x[:-1], x[-1], "davidson")
    scores = np.zeros((number, len(x)))
    np.add.at(scores[:, :-1], cluster, design * (counts.T * found.by_d).sum(axis=0)[:, None])
    np.add.at(scores[:, -1], cluster, (counts.T * found.by_tie).sum(axis=0))
    return naive @ (scores.T @ scores * (number / (number - 1))) @ naive, number


def _scores(
    names: tuple[str, ...], x: Array, covariance: Array, quantile: float, joined: list[list[int]]
) -> dict[str, Estimate]:
    result = {}
    for group in joined:
        centre = np.eye(len(group)) - 1 / len(group)
        inside = centre @ covariance[np.ix_(group, group)] @ centre
        for i, value, variance in zip(group, centre @ x[group], np.diag(inside), strict=True):
            error = math.sqrt(max(0.0, float(variance)))
            result[names[i]] = intervals.estimate(float(value), error, quantile)
    return {name: result[name] for name in names}
