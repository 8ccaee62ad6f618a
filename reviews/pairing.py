"""Which pair to ask about next: the one that is expected to tell most about the ranking.

One more vote on a pair adds its expected Fisher information to what is known; the gain is how much
it lowers the expected number of contestants in the wrong order ("ranking"), or the scores' summed
variance ("scores"). The first spends votes on pairs that may still turn and none on what is
settled; the second saves little over chance, as equal numbers are nearly optimal for it. A share
of all draws stays uniform, so that no pair starves on a wrong early guess, and every draw says its
probability. Within the pair the comparison, the case, the rater and the sides are balanced. The
same seed draws the same plan.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from reviews import ranking
from reviews.ranking import Fit
from reviews.records import Letter
from reviews.tally import Array, Indices

Aim = Literal["ranking", "scores"]
AnyArray = NDArray[np.floating[Any]]

FLOOR = 0.2  # share of draws that are uniform over the pairs
WIDTH = 0.1  # part of the aim "ranking" that goes to the scores' variance, so that all get linked
CORRELATION = 0.05  # of two votes of one rater on one pair, as long as it is not known


@dataclass(frozen=True, slots=True)
class Offer:
    """A comparison that this rater may get; a, b: contestants' indices, in its own order.

    votes: cast and still open ones of all raters. case_seen: how often this rater had its case.
    pair_seen: how often this rater had the two contestants.
    """

    id: str
    a: int
    b: int
    votes: int = 0
    case_seen: int = 0
    pair_seen: int = 0


@dataclass(frozen=True, slots=True)
class Drawn:
    """The comparison to show, the contestant on the left, and how likely this pair was, in (0, 1]."""

    id: str
    left_is: Letter
    probability: float


def knowledge(fit: Fit, pending: Indices | None = None) -> Array:
    """Information on the K scores (K, K) after the votes and after pending ones, as expected.

    pending: (M, 2) contestants of comparisons that are handed out and not voted on yet. The side
    effect and the tie parameter are taken as estimated too (Schur complement).
    """
    k = len(fit.scores)
    full = fit.information
    across = full[:k, k:]
    known = full[:k, :k] - across @ np.linalg.solve(full[k:, k:], across.T)
    if pending is not None and len(pending):
        worth = information(fit)
        for i, j in pending:
            known[[i, j], [i, j]] += worth[i, j]
            known[[i, j], [j, i]] -= worth[i, j]
    return np.asarray(known, np.float64)


def information(fit: Fit) -> Array:
    """Expected Fisher information of one vote on d for every pair (K, K), sides drawn by chance."""
    apart = fit.scores[:, None] - fit.scores[None, :]
    worth = np.zeros_like(apart)
    for side in (fit.side, -fit.side):
        found = ranking.slopes(apart + side, np.array(fit.log_tie), fit.model)
        worth += (np.exp(found.log) * found.by_d**2).sum(axis=0) / 2
    return worth


def gains(fit: Fit, pending: Indices | None = None, aim: Aim = "ranking") -> Array:
    """How much one vote on each pair lowers the aim's loss, as a part of it: (K, K), diagonal 0.

    The loss "ranking" is the sum over pairs of P(wrong order) = Phi(-|d| / s), to first order in
    the variances, with WIDTH of it for "scores", the variance of the centred scores. Source:
    weighted A-optimal design, Fedorov 1972; rank-one update by Sherman and Morrison.
    """
    k = len(fit.scores)
    covariance: Array = np.linalg.inv(knowledge(fit, pending)).astype(np.float64)
    weights = np.eye(k) - 1 / k
    weights /= max(float((weights * covariance).sum()), 1e-12)
    if aim == "ranking":
        variance = np.maximum(_of_contrasts(covariance), 1e-12) + np.eye(k)
        z = np.abs(fit.scores[:, None] - fit.scores[None, :]) / np.sqrt(variance)
        slope = np.exp(-(z**2) / 2) * z / variance
        turning = np.diag(slope.sum(axis=1)) - slope
        loss = float((turning * covariance).sum())
        if loss > 1e-12:
            weights = WIDTH * weights + (1 - WIDTH) * turning / loss
    worth = information(fit)
    moved = _of_contrasts(covariance @ weights @ covariance)
    gain = worth * moved / (1 + worth * _of_contrasts(covariance))
    np.fill_diagonal(gain, 0)
    return np.asarray(np.maximum(gain + gain.T, 0) / 2, np.float64)


def _of_contrasts(matrix: AnyArray) -> Array:
    """x' M x for the difference x of every two contestants: (K, K)."""
    diagonal = np.diag(matrix)
    return np.asarray(diagonal[:, None] + diagonal[None, :] - 2 * matrix, np.float64)


def draw(
    offers: Sequence[Offer],
    gain: Array,
    rng: np.random.Generator,
    *,
    lefts: Mapping[tuple[int, int], int] | None = None,
    rater_lean: int = 0,
    floor: float = FLOOR,
    correlation: float = CORRELATION,
) -> Drawn | None:
    """The next comparison for a rater, out of those that they may get; None if there is none.

    lefts: how often each (left, right) was shown to anybody. rater_lean: how often this rater had
    the offers' `a` on the left, minus how often `b`. A pair's gain counts less the more votes the
    rater gave on it. Raises ValueError for a floor outside [0, 1] or a pair that gain lacks.
    """
    if not 0 <= floor <= 1:
        raise ValueError(f"the floor is a share, not {floor}")
    if not offers:
        return None
    if max(max(o.a, o.b) for o in offers) >= len(gain) or min(min(o.a, o.b) for o in offers) < 0:
        raise ValueError("an offer names a contestant that the gains do not know")
    pairs: dict[tuple[int, int], list[Offer]] = {}
    for offer in sorted(offers, key=lambda o: o.id):
        pairs.setdefault((min(offer.a, offer.b), max(offer.a, offer.b)), []).append(offer)
    worth = {
        pair: float(gain[pair]) / (1 + correlation * max(o.pair_seen for o in found))
        for pair, found in sorted(pairs.items())
    }
    best = max(worth.values())
    top = [pair for pair, value in worth.items() if value >= best * (1 - 1e-9)]
    everywhere = rng.random() < floor
    pool = list(worth) if everywhere else top
    pair = pool[int(rng.integers(len(pool)))]
    probability = floor / len(worth) + (1 - floor) * (pair in top) / len(top)
    fewest = min((o.votes, o.case_seen) for o in pairs[pair])
    least = [o for o in pairs[pair] if (o.votes, o.case_seen) == fewest]
    chosen = least[int(rng.integers(len(least)))]
    shown = lefts or {}
    lean = shown.get((chosen.a, chosen.b), 0) - shown.get((chosen.b, chosen.a), 0)
    lean = lean or rater_lean
    left_is: Letter = "a" if lean < 0 or (lean == 0 and rng.random() < 0.5) else "b"
    return Drawn(chosen.id, left_is, probability)


def rank_widths(fit: Fit) -> Array:
    """How many others each contestant's rank is open to: (K,), worst possible rank minus best.

    By each difference's own 95 % interval, if votes were independent.
    """
    error = np.sqrt(np.maximum(0, _of_contrasts(np.linalg.inv(knowledge(fit)))))
    unsettled = np.abs(fit.scores[:, None] - fit.scores[None, :]) <= 1.959964 * error
    return np.asarray(unsettled.sum(axis=1) - 1, np.float64)


def score_widths(fit: Fit) -> Array:
    """Width of each centred score's 95 % interval if votes were independent, in log-odds: (K,)."""
    covariance = np.linalg.inv(knowledge(fit))
    centre = np.eye(len(covariance)) - 1 / len(covariance)
    variance = np.diag(centre @ covariance @ centre)
    return np.asarray(2 * 1.959964 * np.sqrt(variance), np.float64)
