"""What the votes say: win/tie/loss with Wilson intervals, the board of scores, how many votes it takes.

The board's model and its ridge are in ranking.py, its intervals, clustered by rater from five
raters on, else by case, in intervals.py. "Both bad" is counted as a tie in the scores and shown
apart in the pairs. Contestants that no chain of votes connects are never ranked together.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal

import numpy as np

from reviews import intervals, ranking
from reviews.intervals import CONFIDENCE, By, Estimate
from reviews.ranking import Fit, Model
from reviews.records import FEWEST_RATERS, Choice, Letter, VoteRow, winner_of
from reviews.tally import Tally, Votes, count, groups, tally

Field = Literal["department", "intent", "language", "study"]


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

    `tie`: Davidson's nu, or Rao and Kupper's eta. `clusters`: raters or cases, see `clustered_by`. `notes` are
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


def by_field(votes: Sequence[VoteRow], field: Field) -> dict[str, list[PairResult]]:
    """The pairs within each department, intent, language or study, in order of its name.

    Votes that do not say it stand under "".
    """
    parts: dict[str, list[VoteRow]] = {}
    for vote in votes:
        parts.setdefault(getattr(vote, field), []).append(vote)
    return {name: pairs(part) for name, part in sorted(parts.items())}


@dataclass(frozen=True, slots=True)
class Fitted:
    """One ranking before it is put into words: the votes as arrays, the fit and how sure it is."""

    tally: Tally
    fit: Fit
    spread: intervals.Spread


def fitted(votes: Votes, *, by: By | None = None, model: Model = "davidson") -> Fitted | None:
    """Fit the model to the votes; None without any. See board() for `by` and the errors."""
    return fit_tally(tally(votes), by=by, model=model)


def fit_tally(read: Tally, *, by: By | None = None, model: Model = "davidson") -> Fitted | None:
    """The same from votes that are arrays already."""
    if not read.names:
        return None
    cells, counts, _ = count(read)
    fit = ranking.fit(cells, counts, model)
    few = read.raters < FEWEST_RATERS
    chosen: By = by or ("case" if few and read.cases else "rater")
    return Fitted(read, fit, intervals.spread(read, fit, chosen))


def board(votes: Votes, *, by: By | None = None, model: Model = "davidson") -> Board:
    """Score every contestant. Never infinite, never a rank across unconnected groups.

    by: how intervals are clustered; by rater from FEWEST_RATERS on, else by case, if not said.
    The order of the votes and swapping the sides change nothing but the sign of the side effect.
    Raises ValueError where `by` needs cases that the votes do not say.
    """
    return board_of(fitted(votes, by=by, model=model))


def board_of(found: Fitted | None) -> Board:
    """The board of a fit that is there already; an empty one for None."""
    if found is None:
        return Board((), (), None, 0.0, 0, 0, 0, "rater", ("no_votes",))
    read, fit, spread = found.tally, found.fit, found.spread
    joined = groups(count(read)[0])
    notes = [key for key, holds in (
        ("few_raters", read.raters < FEWEST_RATERS), ("one_cluster", spread.clusters < 2),
        ("separated", spread.separated), ("not_comparable", len(joined) > 1)) if holds]  # fmt: skip
    k = read.models
    side_error = math.sqrt(max(0.0, spread.covariance[k, k]))
    return Board(
        ratings=_ratings(read, fit, spread, joined),
        groups=tuple(tuple(read.names[i] for i in group) for group in joined),
        side_effect=intervals.estimate(fit.side, side_error, spread.quantile),
        tie=fit.tie,
        votes=int(read.number.sum()),
        raters=read.raters,
        clusters=spread.clusters,
        clustered_by=spread.by,
        notes=tuple(notes),
    )


def _ratings(
    read: Tally, fit: Fit, found: intervals.Spread, joined: list[list[int]]
) -> tuple[Rating, ...]:
    both = np.concatenate([read.left, read.right])
    votes = np.bincount(both, np.tile(read.number, 2), minlength=read.models)
    ratings = []
    for number, group in enumerate(joined):
        scores = intervals.scores(fit, found, group)
        for i, score in sorted(
            zip(group, scores, strict=True), key=lambda x: (-round(x[1].value, 9), read.names[x[0]])
        ):
            rank = 1 + sum(other.low > score.high for other in scores)
            ratings.append(Rating(read.names[i], score, int(votes[i]), number, rank))
    return tuple(ratings)


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
