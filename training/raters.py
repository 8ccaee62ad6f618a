"""how far raters can be trusted: one-coin Dawid-Skene, soft targets for the reward model, and the raters' own ceiling.

Every pair has a hidden better side; a rater names it with a probability of its own (source: Dawid and Skene 1979, with
one coin per rater) and says "tie" without telling anything about it. Reliabilities are shrunk to the raters' mean, so a
rater with a single vote gets the mean. AI judges are raters too, with the weight and the side bias given by the caller.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from reviews.stats import wilson
from training.pairs import NOBODY, Judgement, Pair

Array = NDArray[np.float64]
PRIOR_VOTES = 12.0
"""Strength of the shrinkage of a rater's reliability, in votes."""
FIRST_GUESS = (8.0, 2.0)
"""Beta prior of the mean reliability: 0.8, worth ten votes."""
FEWEST_OVERLAPS = 10
"""Fewer votes on pairs that others judged too say nothing about a ceiling."""


@dataclass(frozen=True)
class Rater:
    """A rater's reliability in [0.5, 1): share of decisive votes that name the better side. overlap: votes on pairs with other raters."""

    name: str
    source: str
    votes: int
    ties: int
    overlap: int
    reliability: float


@dataclass(frozen=True)
class Target:
    """What the reward model should say of a pair: (P(a better), P(tie), P(b better)), and the pair's weight."""

    a: float
    tie: float
    b: float
    weight: float


@dataclass(frozen=True)
class Ceiling:
    """Leave-one-rater-out agreement among physicians with its Wilson interval; value None: unknown."""

    value: float | None
    low: float
    high: float
    votes: int
    raters: int
    why: str = ""


def reliabilities(pairs: Sequence[Pair], rounds: int = 100) -> list[Rater]:
    """Every rater's reliability by expectation maximisation, most votes first. The order of votes changes nothing.

    A vote whose strength is below 1 counts as that part of a vote.
    """
    names = sorted({j.rater for pair in pairs for j in pair.judgements})
    index = {name: i for i, name in enumerate(names)}
    who, sign, strength, where = [], [], [], []
    for number, pair in enumerate(pairs):
        for j in pair.judgements:
            if j.outcome in ("a", "b"):
                who.append(index[j.rater])
                sign.append(1.0 if j.outcome == "a" else -1.0)
                strength.append(j.strength)
                where.append(number)
    rater, side, firm, pair_of = map(np.array, (who, sign, strength, where))
    p = np.full(len(names), FIRST_GUESS[0] / sum(FIRST_GUESS))
    alone = np.bincount(pair_of.astype(int), minlength=len(pairs)) < 2 if who else np.array([])
    known = ~alone[pair_of] if who else np.array([], bool)
    for _ in range(rounds if known.any() else 0):
        logit = np.log(p / (1 - p))
        odds = np.bincount(pair_of, side * firm * logit[rater], minlength=len(pairs))
        posterior = 1 / (1 + np.exp(-odds))  # (P,) P(a is better)
        right = np.where(side > 0, posterior[pair_of], 1 - posterior[pair_of])
        hits = np.bincount(rater[known], (firm * right)[known], minlength=len(names))
        total = np.bincount(rater[known], firm[known], minlength=len(names))
        mean = (hits.sum() + FIRST_GUESS[0]) / (total.sum() + sum(FIRST_GUESS))
        fresh = np.clip((hits + PRIOR_VOTES * mean) / (total + PRIOR_VOTES), 0.5, 0.99)
        moved, p = float(np.abs(fresh - p).max()), fresh
        if moved < 1e-9:
            break
    return _described(pairs, names, p)


def _described(pairs: Sequence[Pair], names: Sequence[str], p: Array) -> list[Rater]:
    votes: Counter[str] = Counter()
    ties: Counter[str] = Counter()
    overlap: Counter[str] = Counter()
    source = {}
    for pair in pairs:
        for j in pair.judgements:
            source[j.rater] = j.source
            votes[j.rater] += 1
            ties[j.rater] += j.outcome not in ("a", "b")
            overlap[j.rater] += len({other.rater for other in pair.judgements}) > 1
    raters = [
        Rater(name, source[name], votes[name], ties[name], overlap[name], float(p[i]))
        for i, name in enumerate(names)
    ]
    return sorted(raters, key=lambda r: (-r.votes, r.name))


def targets(
    pairs: Sequence[Pair],
    raters: Sequence[Rater],
    *,
    ai_weight: float = 1.0,
    ai_side: float = 0.0,
) -> list[Target]:
    """One target per pair.

    ai_weight: what an AI judge's vote counts against a physician's, 0 or more. ai_side: log-odds that the AI judges
    lean to the answer shown first, taken off their votes where the order is known.
    The tie mass is the weighted share of ties, each side of a pair starting from the share in all votes.
    """
    trust = {r.name: math.log(r.reliability / (1 - r.reliability)) for r in raters}
    mean = float(np.mean([r.reliability for r in raters if r.name != NOBODY] or [0.8]))
    trust[NOBODY] = math.log(mean / (1 - mean))
    all_votes = [j for pair in pairs for j in pair.judgements]
    prior = sum(j.outcome not in ("a", "b") for j in all_votes) / max(len(all_votes), 1)
    found = []
    for pair in pairs:
        odds = ties = total = 0.0
        for j in pair.judgements:
            weight = ai_weight if j.source == "ai" else 1.0
            total += weight
            if j.outcome not in ("a", "b"):
                ties += weight
                continue
            lean = 1.0 if j.outcome == "a" else -1.0
            odds += weight * lean * j.strength * trust[j.rater]
            if j.source == "ai" and j.left is not None:
                odds -= weight * ai_side * (1 if j.left == "a" else -1)
        tie = (ties + 0.5 * prior) / (total + 0.5) if total else prior
        q = 1 / (1 + math.exp(-odds))
        found.append(Target(q * (1 - tie), tie, (1 - q) * (1 - tie), total))
    return found


def side_bias(pairs: Sequence[Pair]) -> float:
    """Log-odds that AI judges lean to the answer shown first, shrunk to 0; 0 where no order is known."""
    first = second = 0
    for pair in pairs:
        for j in pair.judgements:
            if j.source == "ai" and j.outcome in ("a", "b") and j.left is not None:
                first += j.outcome == j.left
                second += j.outcome != j.left
    return math.log((first + 10) / (second + 10))


def overlapping(pairs: Sequence[Pair]) -> list[int]:
    """The pairs that the ceiling is measured on: at least two known physicians chose a side."""
    found = []
    for number, pair in enumerate(pairs):
        chose = {
            j.rater
            for j in pair.judgements
            if j.source == "physician" and j.rater != NOBODY and j.outcome in ("a", "b")
        }
        if len(chose) > 1:
            found.append(number)
    return found


def ceiling(pairs: Sequence[Pair]) -> Ceiling:
    """How often a physician's decisive vote agrees with the majority of the other physicians; half for their ties.

    This is what a perfect copy of the other raters would reach against one rater's votes. The votes on one pair say
    the same thing from both ends, so the interval counts pairs.
    """
    agree, number = agreements(pairs).T
    raters = {
        j.rater
        for pair, n in zip(pairs, number, strict=True)
        if n
        for j in _physicians(pair)
        if j.outcome in ("a", "b")
    }
    votes, shared = int(number.sum()), int((number > 0).sum())
    if votes < FEWEST_OVERLAPS:
        return Ceiling(
            None, 0.0, 1.0, votes, len(raters),
            "unknown: fewer than ten votes on pairs that several physicians judged; give some pairs to two raters or more",
        )  # fmt: skip
    share = float(agree.sum() / number.sum())
    return Ceiling(share, *wilson(share * shared, shared), votes, len(raters))


def agreements(pairs: Sequence[Pair]) -> Array:
    """(P, 2): by pair, the physicians' decisive votes that agree with the other physicians, and how many there are."""
    found = np.zeros((len(pairs), 2))
    for place, pair in enumerate(pairs):
        votes = firm(pair)
        for j in votes:
            others = [o.outcome for o in votes if o.rater != j.rater]
            if not others:
                continue
            lean = others.count("a") - others.count("b")
            found[place] += (0.5 if not lean else float((lean > 0) == (j.outcome == "a")), 1.0)
    return found


def firm(pair: Pair) -> list[Judgement]:
    """The votes of known physicians that chose a side."""
    return [j for j in _physicians(pair) if j.outcome in ("a", "b")]


def _physicians(pair: Pair) -> list[Judgement]:
    return [j for j in pair.judgements if j.source == "physician" and j.rater != NOBODY]
