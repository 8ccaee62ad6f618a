"""Who beats whom and how surely: each pair's shares, its contrast in the ranking, evidence, votes missing.

A pair is settled when its contrast holds after Holm's correction. While a study runs, anybody may
look at any time, so there the anytime-valid evidence must agree; after it closed by its rule, the
contrast alone decides.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from reviews import intervals, stats, stopping
from reviews.intervals import By, Contrast, Spread
from reviews.panel import share
from reviews.records import FEWEST_RATERS
from reviews.stated import Stated, absent, of_share
from reviews.stats import Board, Fitted, PairResult
from reviews.stopping import Evidence, Missing
from reviews.tally import LEFT, RIGHT, Tally, Votes, tally

Standing = Literal["first", "second", "leaning_first", "leaning_second", "equal", "open"]

FEWEST_VOTES = 20
"""Votes on a pair below which nothing is said of how many more it takes."""


@dataclass(frozen=True, slots=True)
class Duel:
    """One pair that was voted on, from the view of `result.first`.

    win, tie, loss, both_bad: shares of all votes; decisive: wins among votes that chose a side;
    all with Wilson's intervals. contrast: the difference of scores, clustered. rater_evidence: the
    logarithm of the raters' e-value, told when the study is closed. missing: None below
    FEWEST_VOTES. standing: "leaning" holds by the contrast, not yet at any time one looks.
    """

    result: PairResult
    win: Stated
    tie: Stated
    loss: Stated
    both_bad: Stated
    decisive: Stated
    contrast: Contrast
    evidence: Evidence
    rater_evidence: float | None
    missing: Missing | None
    detectable: float
    standing: Standing


@dataclass(frozen=True, slots=True)
class Ranked:
    """A contestant's best and worst rank that the votes support, 1 is best; None without them."""

    name: str
    best: int | None
    worst: int | None


@dataclass(frozen=True, slots=True)
class Headline:
    """What the votes say in short: the pairs most voted on first, the board, every contrast.

    watched: the pairs among which the evidence shares its alpha.
    """

    duels: tuple[Duel, ...]
    board: Board
    contrasts: tuple[Contrast, ...]
    watched: int = 0


def clustering(votes: Tally) -> By:
    """By case and rater where there are enough of both, else by what there is."""
    repeated = votes.cases and votes.cases < int(votes.number.sum())
    if votes.raters >= FEWEST_RATERS:
        return "both" if repeated and votes.cases >= FEWEST_RATERS else "rater"
    if votes.cases >= 2:
        return "case"
    return "rater" if votes.raters >= 2 else "vote"


def headline(
    votes: Votes,
    found: Fitted | None,
    *,
    closed: bool = False,
    alpha: float = stopping.ALPHA,
    watched: int = 0,
) -> Headline:
    """Every pair and the board. found: stats.fitted() of the same votes; None for no votes.

    closed: no more votes are expected, so that nobody peeks. alpha: of the evidence, shared among
    the pairs. watched: how many those are, where some have no vote yet.
    """
    board = stats.board_of(found)
    if found is None:
        return Headline((), board, ())
    contrasts = intervals.contrasts(found.tally, found.fit, found.spread)
    by_names = {(c.first, c.second): c for c in contrasts}
    pairs = stats.pairs(votes)
    watched = max(watched, len(pairs))
    duels = [
        _duel(pair, by_names[pair.first, pair.second], found.tally, watched, closed, alpha)
        for pair in pairs
    ]
    place = {rating.name: number for number, rating in enumerate(board.ratings)}
    duels.sort(key=lambda d: (-d.result.total, place[d.result.first] + place[d.result.second]))
    return Headline(tuple(duels), board, tuple(contrasts), watched)


def _duel(
    pair: PairResult, contrast: Contrast, votes: Tally, pairs: int, closed: bool, alpha: float
) -> Duel:
    wins, losses, total = pair.wins, pair.losses, pair.total
    won, lost, given = per_rater(votes, pair.first, pair.second)
    seen = given > 0
    effect = stopping.design_effect(
        total / max(1, int(seen.sum())),
        stopping.rater_correlation(won.astype(int).tolist(), lost.astype(int).tolist()),
    )
    evidence = stopping.evidence(wins, losses, comparisons=pairs, alpha=alpha)
    even = pair.ties + pair.both_bad
    unanimous = not (wins and losses) and int(seen.sum()) > 1
    net = (won[seen] - lost[seen]) / given[seen]
    return Duel(
        result=pair,
        win=of_share(share(wins, total)),
        tie=of_share(share(pair.ties, total)),
        loss=of_share(share(losses, total)),
        both_bad=of_share(share(pair.both_bad, total)),
        decisive=of_share(share(wins, wins + losses)),
        contrast=contrast,
        evidence=evidence,
        rater_evidence=stopping.rater_log_e(net.tolist()) if closed and len(net) > 1 else None,
        missing=stopping.missing(wins, even, losses, effect=effect) if total >= FEWEST_VOTES else None,
        detectable=stopping.detectable(total, even / total if even < total else 0.0, effect=effect),
        standing=_standing(contrast, evidence, closed, unanimous),
    )  # fmt: skip


def _standing(contrast: Contrast, evidence: Evidence, closed: bool, unanimous: bool) -> Standing:
    """unanimous: all decided votes, of two raters or more, name one winner. The model has no finite
    estimate then, its contrast is as wide as its prior, and the evidence is what can be told."""
    if unanimous and evidence.decision in ("first", "second"):
        return "first" if evidence.decision == "first" else "second"
    if contrast.verdict in ("ahead", "behind"):
        ahead = contrast.verdict == "ahead"
        if closed or evidence.decision == ("first" if ahead else "second"):
            return "first" if ahead else "second"
        return "leaning_first" if ahead else "leaning_second"
    return "equal" if evidence.decision == "equal" else "open"


def per_rater(
    votes: Tally, first: str, second: str
) -> tuple[np.ndarray[tuple[int], np.dtype[np.float64]], ...]:
    """Wins and losses of `first` over `second`, and all votes on the two, per rater: (R,) each."""
    i, j = votes.names.index(first), votes.names.index(second)
    left, right = (votes.left == i) & (votes.right == j), (votes.left == j) & (votes.right == i)
    won = (left & (votes.outcome == LEFT)) | (right & (votes.outcome == RIGHT))
    lost = (left & (votes.outcome == RIGHT)) | (right & (votes.outcome == LEFT))
    return tuple(
        np.bincount(votes.rater[which], votes.number[which], votes.raters).astype(np.float64)
        for which in (won, lost, left | right)
    )


def ranks(found: Fitted | None, rng: np.random.Generator, replicates: int = 1000) -> tuple[Ranked, ...]:  # fmt: skip
    """Rank intervals of every contestant by bootstrap, clustered as the fit is; one name each."""
    if found is None:
        return ()
    names, by = found.tally.names, found.spread.by
    if found.spread.clusters < 2:
        return tuple(Ranked(name, None, None) for name in names)
    drawn = intervals.bootstrap(found.tally, found.fit, rng, replicates=replicates, by=by)
    spans = intervals.rank_intervals(drawn)
    return tuple(Ranked(n, low, high) for n, (low, high) in zip(names, spans, strict=True))


_NARROWER: dict[By, tuple[By, ...]] = {
    "both": ("rater", "case", "vote"),
    "rater": ("vote",),
    "case": ("vote",),
    "vote": (),
}


def fit_votes(votes: Votes) -> Fitted | None:
    """The ranking's fit, clustered as clustering() says; None for no votes.

    Where votes within a case or a rater balance each other, clustering makes intervals narrower
    than votes taken one by one, down to nothing; the widest way is taken then, and named.
    """
    read = tally(votes)
    by = clustering(read)
    found = stats.fit_tally(read, by=by)
    if found is None:
        return None
    ways = [found.spread, *(intervals.spread(read, found.fit, one) for one in _NARROWER[by])]
    return Fitted(read, found.fit, max(ways, key=lambda spread: _width(spread, read.models)))


def _width(spread: Spread, models: int) -> float:
    """Sum of the squared half-widths of all scores' intervals, centred."""
    centre = np.eye(models) - 1 / models
    inside = centre @ spread.covariance[:models, :models] @ centre
    return float(np.trace(inside)) * spread.quantile**2


def left_share(votes: Tally) -> Stated:
    """Share of the left side among all votes that chose a side."""
    if not votes.models:
        return absent("no_votes")
    left, right = (int(votes.number[votes.outcome == o].sum()) for o in (LEFT, RIGHT))
    return of_share(share(left, left + right))
