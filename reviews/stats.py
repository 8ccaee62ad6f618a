"""What the votes say: win/tie/loss with Wilson intervals, Bradley-Terry with ties and side effect.

The model is Davidson's (1970): with d = score(left) - score(right) + side effect,
P(left) : P(tie) : P(right) = exp(d/2) : nu : exp(-d/2). A weak ridge keeps every score finite.
Intervals are clustered, by rater from five raters on, else by case, since votes of one rater
are not independent. "Both bad" is counted as a tie in the scores and shown apart in the pairs.
Scores of contestants that no chain of votes connects are not comparable and never ranked.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from reviews.records import FEWEST_RATERS, Choice, Letter, VoteCount, VoteRow, winner_of

Array = NDArray[np.float64]
Indices = NDArray[np.int64]
Votes = Sequence[VoteCount] | Sequence[VoteRow]

CONFIDENCE = 0.95
RIDGE = 0.01  # on every score, on the side effect and on log(nu)


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number with its standard error and 95 % interval."""

    value: float
    error: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class PairResult:
    """One unordered pair of contestants, from the view of `first` (the earlier name).

    `ties` does not count `both_bad`. Shares are of all votes on the pair, with Wilson intervals.
    """

    first: str
    second: str
    wins: int
    ties: int
    losses: int
    both_bad: int
    win_interval: tuple[float, float]
    loss_interval: tuple[float, float]

    @property
    def total(self) -> int:
        """All votes on this pair."""
        return self.wins + self.ties + self.losses + self.both_bad

    @property
    def decisive_interval(self) -> tuple[float, float]:
        """Wilson interval of the wins' share among votes that chose a side."""
        return wilson(self.wins, self.wins + self.losses)


@dataclass(frozen=True, slots=True)
class Rating:
    """One contestant's score in log-odds, centred on 0 within its group of comparable ones.

    rank: 1 + how many of its group lie wholly above it; `group` numbers the groups from 0.
    """

    name: str
    score: Estimate
    votes: int
    group: int
    rank: int


@dataclass(frozen=True, slots=True)
class Board:
    """The fit. `ratings`: by group, best first. `side_effect`: left's advantage in log-odds.

    `tie`: Davidson's nu. `clusters` are raters or cases, as `clustered_by` says. `notes` are
    keys of sentences that a page must show: no_votes, few_raters, one_cluster, separated,
    not_comparable.
    """

    ratings: tuple[Rating, ...]
    groups: tuple[tuple[str, ...], ...]
    side_effect: Estimate | None
    tie: float
    votes: int
    raters: int
    clusters: int
    clustered_by: str
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Fit:
    """A Davidson fit: scores (K,), side effect, log nu, all finite; information (K+2, K+2)."""

    scores: Array
    side: float
    log_nu: float
    information: Array
    log_likelihood: float

    @property
    def nu(self) -> float:
        """Davidson's tie parameter; nu / (2 + nu) is the tie rate between equals."""
        return math.exp(self.log_nu)


def wilson(successes: float, n: float, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Wilson's score interval of a share, both ends in [0, 1]; (0, 1) when n is 0.

    Source: Wilson 1927; reference values in Newcombe 1998.
    """
    if n <= 0:
        return (0.0, 1.0)
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    p, centre = successes / n, (successes + z * z / 2) / (n + z * z)
    half = z / (n + z * z) * math.sqrt(n * p * (1 - p) + z * z / 4)
    return (max(0.0, centre - half) if successes else 0.0, min(1.0, centre + half))


def pairs(votes: Votes) -> list[PairResult]:
    """Win, tie and loss of every unordered pair of contestants, by name."""
    alike: dict[tuple[str, str, Choice, Letter], int] = {}
    for vote in votes:
        key = (vote.contestant_a, vote.contestant_b, vote.choice, vote.left_is)
        alike[key] = alike.get(key, 0) + vote.votes
    counts: dict[tuple[str, str], dict[str, int]] = {}
    for (a, b, choice, left_is), number in alike.items():
        winner: str = winner_of(choice, left_is)
        if a > b:
            a, b, winner = b, a, {"a": "b", "b": "a"}.get(winner, winner)
        counts.setdefault((a, b), {"a": 0, "tie": 0, "b": 0, "both_bad": 0})[winner] += number
    results = []
    for (first, second), cell in sorted(counts.items()):
        wins, losses, total = cell["a"], cell["b"], sum(cell.values())
        intervals = (wilson(wins, total), wilson(losses, total))
        results.append(
            PairResult(first, second, wins, cell["tie"], losses, cell["both_bad"], *intervals)
        )
    return results


def davidson(
    left: Indices, right: Indices, counts: Array, models: int, *, side: bool = True
) -> Fit:
    """Fit Davidson's model by Newton's method.

    left, right: (C,) contestants of each cell. counts: (C, 3) left wins, ties, right wins.
    With side=False the side effect is held at 0. Source: Davidson 1970; ridge of RIDGE.
    """
    design = np.zeros((len(left), models + 2))  # (C, K+2): half of d, and log nu in the tie row
    cells = np.arange(len(left))
    design[cells, left] += 0.5
    design[cells, right] -= 0.5
    design[:, models] = 0.5 if side else 0.0
    total = counts.sum(axis=1)
    x = np.zeros(models + 2)

    def objective(at: Array) -> float:
        half, log_nu = design @ at, at[-1]
        top = np.logaddexp(np.logaddexp(half, -half), log_nu)
        fit = (counts[:, 0] - counts[:, 2]) @ half + counts[:, 1].sum() * log_nu - total @ top
        return float(fit - RIDGE / 2 * (at @ at))

    value = objective(x)
    for _ in range(100):
        gradient, information = _slopes(design, counts, x)
        step = np.linalg.solve(information, gradient)
        scale = 1.0
        while (better := objective(x + scale * step)) < value and scale > 1e-6:
            scale /= 2
        if better < value or np.abs(scale * step).max() < 1e-10:
            break
        x, value = x + scale * step, better
    information = _slopes(design, counts, x)[1]
    likelihood = value + RIDGE / 2 * float(x @ x)
    return Fit(x[:models], float(x[models]), float(x[-1]), information, likelihood)


def _slopes(design: Array, counts: Array, x: Array) -> tuple[Array, Array]:
    """Gradient and negative Hessian of the penalised log-likelihood at x."""
    p_left, p_tie, p_right = _shares(design @ x, x[-1])
    total, lean = counts.sum(axis=1), p_left - p_right
    gradient = design.T @ (counts[:, 0] - counts[:, 2] - total * lean) - RIDGE * x
    gradient[-1] += counts[:, 1].sum() - total @ p_tie
    information = (design * (total * (p_left + p_right - lean**2))[:, None]).T @ design
    cross = -design.T @ (total * lean * p_tie)
    information[-1] += cross
    information[:, -1] += cross
    information[-1, -1] += total @ (p_tie * (1 - p_tie))
    return gradient, information + RIDGE * np.eye(len(x))


def _shares(half: Array, log_nu: float) -> tuple[Array, Array, Array]:
    top = np.logaddexp(np.logaddexp(half, -half), log_nu)
    return np.exp(half - top), np.exp(log_nu - top), np.exp(-half - top)


def board(votes: Votes) -> Board:
    """Score every contestant. Never infinite, never a rank across unconnected groups.

    The order of the votes and swapping the sides change nothing but the sign of the side effect.
    """
    names = sorted({n for v in votes for n in (v.contestant_a, v.contestant_b)})
    if not names:
        return Board((), (), None, 0.0, 0, 0, 0, "rater", ("no_votes",))
    index = {name: i for i, name in enumerate(names)}
    a = np.array([index[v.contestant_a] for v in votes])
    b = np.array([index[v.contestant_b] for v in votes])
    a_left = np.array([v.left_is == "a" for v in votes])
    left, right = np.where(a_left, a, b), np.where(a_left, b, a)
    outcome = np.array([{"left": 0, "right": 2}.get(v.choice, 1) for v in votes])
    number = np.array([v.votes for v in votes])

    k = len(names)
    cell, where = np.unique(left * k + right, return_inverse=True)
    counts = np.zeros((len(cell), 3))
    np.add.at(counts, (where, outcome), number)
    fit = davidson(cell // k, cell % k, counts, k)
    per_name: Indices = np.zeros(k, np.int64)
    for side in (left, right):
        np.add.at(per_name, side, number)

    groups = _connected(k, left, right)
    separated = not _every_group_is_beatable(k, left, right, outcome, groups)
    raters = len({v.rater for v in votes})
    by_rater = raters >= FEWEST_RATERS
    ids: dict[int | str, int] = {}
    cluster = np.array([ids.setdefault(v.rater if by_rater else v.case, len(ids)) for v in votes])
    naive: Array = np.linalg.inv(fit.information).astype(np.float64)
    covariance: Array = naive
    quantile = _t_quantile(0)
    if len(ids) > 1:
        scores = _cluster_scores(fit, left, right, outcome, number, cluster, len(ids))
        meat = scores.T @ scores * (len(ids) / (len(ids) - 1))
        clustered: Array = naive @ meat @ naive
        quantile = _t_quantile(len(ids) - 1)
        covariance = (clustered + naive if separated else clustered).astype(np.float64)

    notes = [key for key, holds in (
        ("few_raters", not by_rater), ("one_cluster", len(ids) < 2),
        ("separated", separated), ("not_comparable", len(groups) > 1)) if holds]  # fmt: skip
    side_error = math.sqrt(max(0.0, covariance[k, k]))
    return Board(
        ratings=_ratings(names, fit, covariance[:k, :k], quantile, groups, per_name),
        groups=tuple(tuple(names[i] for i in group) for group in groups),
        side_effect=_estimate(fit.side, side_error, quantile),
        tie=fit.nu,
        votes=int(number.sum()),
        raters=raters,
        clusters=len(ids),
        clustered_by="rater" if by_rater else "case",
        notes=tuple(notes),
    )


def _cluster_scores(
    fit: Fit,
    left: Indices,
    right: Indices,
    outcome: Indices,
    number: Indices,
    cluster: Indices,
    n: int,
) -> Array:
    """Sum of the votes' score vectors per cluster: (G, K+2)."""
    k = len(fit.scores)
    half = (fit.scores[left] - fit.scores[right] + fit.side) / 2
    p_left, p_tie, p_right = _shares(half, fit.log_nu)
    lean = number * ((1 - outcome) - (p_left - p_right)) / 2
    scores = np.zeros((n, k + 2))
    np.add.at(scores, (cluster, left), lean)
    np.add.at(scores, (cluster, right), -lean)
    np.add.at(scores[:, k], cluster, lean)
    np.add.at(scores[:, k + 1], cluster, number * ((outcome == 1) - p_tie))
    return scores


def _ratings(
    names: list[str],
    fit: Fit,
    covariance: Array,
    quantile: float,
    groups: list[list[int]],
    counts: Indices,
) -> tuple[Rating, ...]:
    ratings = []
    for number, group in enumerate(groups):
        centre = np.eye(len(group)) - 1 / len(group)
        scores = centre @ fit.scores[group]
        errors = np.sqrt(np.maximum(0, np.diag(centre @ covariance[np.ix_(group, group)] @ centre)))
        found = [
            _estimate(float(s), float(e), quantile) for s, e in zip(scores, errors, strict=True)
        ]
        for i in sorted(
            range(len(group)), key=lambda i: (-round(float(scores[i]), 9), names[group[i]])
        ):
            rank = 1 + sum(other.low > found[i].high for other in found)
            name = names[group[i]]
            ratings.append(Rating(name, found[i], int(counts[group[i]]), number, rank))
    return tuple(ratings)


def _estimate(value: float, error: float, quantile: float) -> Estimate:
    return Estimate(value, error, value - quantile * error, value + quantile * error)


def _connected(k: int, left: Indices, right: Indices) -> list[list[int]]:
    """Contestants joined by any chain of votes, the largest group first."""
    seen = np.eye(k, dtype=bool)
    seen[left, right] = seen[right, left] = True
    reach = _closure(seen)
    groups = {tuple(np.flatnonzero(row).tolist()) for row in reach}
    return [list(group) for group in sorted(groups, key=lambda g: (-len(g), g))]


def _every_group_is_beatable(
    k: int, left: Indices, right: Indices, outcome: Indices, groups: list[list[int]]
) -> bool:
    """Whether within each group every contestant reaches every other by wins or ties."""
    beats = np.eye(k, dtype=bool)
    for winner, loser, lost in ((left, right, 2), (right, left, 0)):
        held = outcome != lost
        beats[winner[held], loser[held]] = True
    reach = _closure(beats)
    return all(bool(reach[np.ix_(group, group)].all()) for group in groups)


def _closure(reach: NDArray[np.bool_]) -> NDArray[np.bool_]:
    while True:
        further = (reach.astype(np.int64) @ reach.astype(np.int64)) > 0
        if bool((further == reach).all()):
            return reach
        reach = further


def _t_quantile(df: int, p: float = 0.5 + CONFIDENCE / 2) -> float:
    """The p-quantile of Student's t with df degrees of freedom; the normal one for df 0 or > 200."""
    if df <= 0 or df > 200:
        return NormalDist().inv_cdf(p)
    low, high = 0.0, 1e4
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if _t_inside(middle, df) < 2 * p - 1 else (low, middle)
    return (low + high) / 2


def _t_inside(t: float, df: int) -> float:
    """P(|T| < t), by the finite series for whole df. Source: Abramowitz and Stegun 26.7.3-4."""
    angle = math.atan2(t, math.sqrt(df))
    cos2, term, total = math.cos(angle) ** 2, 1.0, 1.0
    if df % 2 == 0:
        for j in range(1, df // 2):
            term *= cos2 * (2 * j - 1) / (2 * j)
            total += term
        return math.sin(angle) * total
    if df == 1:
        return 2 * angle / math.pi
    for j in range(1, (df - 1) // 2):
        term *= cos2 * 2 * j / (2 * j + 1)
        total += term
    return 2 / math.pi * (angle + math.sin(angle) * math.cos(angle) * total)


def votes_needed(wins: int, ties: int, losses: int, power: float = 0.8) -> int | None:
    """About how many votes (ties included) a two-sided 5 % sign test needs, if these shares hold.

    Counts as if every vote were independent. None when there are no decisive votes or the
    shares are equal. Normal approximation with continuity correction.
    """
    decisive = wins + losses
    if not decisive or wins == losses:
        return None
    p = wins / decisive
    gap = abs(p - 0.5)
    z = NormalDist().inv_cdf
    n = ((z(0.975) / 2 + z(power) * math.sqrt(p * (1 - p))) / gap) ** 2
    n = n / 4 * (1 + math.sqrt(1 + 1 / (n * gap))) ** 2
    return math.ceil(n * (decisive + ties) / decisive)
