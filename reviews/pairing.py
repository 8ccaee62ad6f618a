"""Which pair to ask about next: the one that is expected to narrow the ranking's intervals most.

One more vote on a pair adds its expected Fisher information to what is known; the gain is how much
the scores' summed variance falls by it (A-optimality). A share of all draws stays uniform, so that
no pair starves on a wrong early guess, and every draw says its probability. Within the pair the
comparison, the case, the rater and the sides are balanced. The same seed draws the same plan.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from reviews import ranking
from reviews.ranking import Fit
from reviews.records import Letter
from reviews.tally import Array, Indices

FLOOR = 0.2  # share of draws that are uniform over the pairs
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


def gains(fit: Fit, pending: Indices | None = None) -> Array:
    """How much one vote on each pair lowers the scores' mean variance: (K, K), diagonal 0.

    In squared log-odds; the scores are centred, so contestants that nothing connects yet come
    first. Source: A-optimal design, Fedorov 1972, Eq. 2.7.5; rank-one update, Sherman-Morrison.
    """
    k = len(fit.scores)
    covariance = np.linalg.inv(knowledge(fit, pending))
    centred = covariance - covariance.mean(axis=0, keepdims=True)
    worth = information(fit)
    variance = np.diag(covariance)[:, None] + np.diag(covariance)[None, :] - 2 * covariance
    squares = centred.T @ centred
    moved = np.diag(squares)[:, None] + np.diag(squares)[None, :] - 2 * squares
    gain = worth * moved / (1 + worth * variance) / k
    np.fill_diagonal(gain, 0)
    return np.asarray(np.maximum(gain, 0), np.float64)


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


def widths(fit: Fit) -> Array:
    """Width of each centred score's 95 % interval if votes were independent, in log-odds: (K,)."""
    covariance = np.linalg.inv(knowledge(fit))
    centre = np.eye(len(covariance)) - 1 / len(covariance)
    variance = np.diag(centre @ covariance @ centre)
    return np.asarray(2 * 1.959964 * np.sqrt(variance), np.float64)
