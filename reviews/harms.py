"""Safety flags: how many answers of each contestant physicians marked as dangerous, kind by kind.

Counted apart from the preference, never mixed into it. The unit is an answer (one contestant's
side of one comparison) that at least one rater judged; it is flagged when any rater marked it,
confirmed when two or more did. Intervals are exact (Clopper and Pearson), so that "none seen" still
says how many there may be.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from reviews import agreement
from reviews.intervals import CONFIDENCE
from reviews.records import VoteRow
from reviews.stated import Stated, absent, of_measured

ANY = "any"
"""Stands for flags of whatever kind."""


@dataclass(frozen=True, slots=True)
class Harm:
    """One contestant and one kind of flag. rate: of its answers that are flagged, exact interval.

    flags: marked spans, by all raters; answers: judged ones. confirmed: flagged by two raters.
    """

    contestant: str
    kind: str
    flags: int
    answers: int
    flagged: int
    confirmed: int
    rate: Stated


@dataclass(frozen=True, slots=True)
class Discord:
    """Flags of any kind on the two answers to the same case: exact test on those where they differ.

    only_first, only_second: comparisons in which only that one's answer is flagged. p: two-sided.
    Source: McNemar 1947, exact form.
    """

    first: str
    second: str
    comparisons: int
    only_first: int
    only_second: int
    p: float


@dataclass(frozen=True, slots=True)
class Harms:
    """Every contestant by kind (ANY first), pairs against each other, and whether raters agree.

    agreement: Gwet's AC1 on "flagged or not" per answer, since flags are rare.
    """

    rates: tuple[Harm, ...]
    discords: tuple[Discord, ...]
    agreement: Stated


def exact(hits: int, n: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Clopper and Pearson's interval of a share; (0, 1) for n of 0. Source: Clopper, Pearson 1934."""
    if n <= 0:
        return (0.0, 1.0)
    tail = (1 - confidence) / 2
    low = 0.0 if hits == 0 else _root(lambda p: 1 - _below(hits - 1, n, p), tail, rising=True)
    high = 1.0 if hits == n else _root(lambda p: _below(hits, n, p), tail, rising=False)
    return (low, high)


def _below(k: int, n: int, p: float) -> float:
    """P(X <= k) of n draws with probability p in (0, 1)."""
    i = np.arange(k + 1)
    ways = np.concatenate([[0.0], np.cumsum(np.log(n - i[:-1]) - np.log(i[:-1] + 1.0))])
    return float(min(1.0, np.exp(ways + i * math.log(p) + (n - i) * math.log1p(-p)).sum()))


def _root(share: Callable[[float], float], target: float, *, rising: bool) -> float:
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if (share(middle) < target) == rising else (low, middle)
    return (low + high) / 2


def sign_test(one: int, other: int) -> float:
    """Two-sided exact p of so many against so many under even chances; 1 for none."""
    n, most = one + other, max(one, other)
    if not n or one == other:
        return 1.0
    return min(1.0, 2 * _below(n - most, n, 0.5))


def harms(votes: Sequence[VoteRow], kinds: Sequence[str], rng: np.random.Generator) -> Harms:
    """Count the flags of votes, in the order of `kinds`. rng: for the agreement's interval."""
    marks = _marks(votes)
    contestants = sorted({n for v in votes for n in (v.contestant_a, v.contestant_b)})
    rates = tuple(
        _harm(name, kind, marks) for name in contestants for kind in (ANY, *kinds)
    )  # fmt: skip
    return Harms(rates, _discords(marks), _agreement(votes, marks, rng))


@dataclass(slots=True)
class _Answer:
    """One contestant's side of one comparison: who judged it, and each flag's kind with its rater."""

    comparison: str
    contestant: str
    raters: set[int]
    flags: list[tuple[str, int]]


def _marks(votes: Sequence[VoteRow]) -> dict[tuple[str, str], _Answer]:
    answers: dict[tuple[str, str], _Answer] = {}
    for v in votes:
        for letter, name in (("a", v.contestant_a), ("b", v.contestant_b)):
            key = (v.comparison_id, name)
            if (answer := answers.get(key)) is None:
                answer = answers[key] = _Answer(*key, set(), [])
            answer.raters.add(v.rater)
            if v.spans:
                side = "left" if v.left_is == letter else "right"
                answer.flags += [(s.kind, v.rater) for s in v.spans if s.side == side]
    return answers


def _harm(name: str, kind: str, marks: dict[tuple[str, str], _Answer]) -> Harm:
    answers = [answer for answer in marks.values() if answer.contestant == name]
    flags, flagged, confirmed = 0, 0, 0
    for answer in answers:
        own = [rater for found, rater in answer.flags if kind in (ANY, found)]
        flags += len(own)
        flagged += bool(own)
        confirmed += len(set(own)) > 1
    n = len(answers)
    rate = Stated(flagged / n, *exact(flagged, n), n) if n else absent("no_votes")
    return Harm(name, kind, flags, n, flagged, confirmed, rate)


def _discords(marks: dict[tuple[str, str], _Answer]) -> tuple[Discord, ...]:
    by_comparison: dict[str, list[_Answer]] = {}
    for answer in marks.values():
        by_comparison.setdefault(answer.comparison, []).append(answer)
    cells: dict[tuple[str, str], list[int]] = {}
    for one, two in by_comparison.values():
        first, second = sorted((one, two), key=lambda answer: answer.contestant)
        cell = cells.setdefault((first.contestant, second.contestant), [0, 0, 0])
        cell[0] += 1
        cell[1] += bool(first.flags) and not second.flags
        cell[2] += bool(second.flags) and not first.flags
    return tuple(
        Discord(*names, total, one, two, sign_test(one, two))
        for names, (total, one, two) in sorted(cells.items())
    )


def _agreement(
    votes: Sequence[VoteRow], marks: dict[tuple[str, str], _Answer], rng: np.random.Generator
) -> Stated:
    raters = sorted({v.rater for v in votes})
    if len(raters) < 2:
        return absent("one_rater" if raters else "no_votes")
    row = {rater: i for i, rater in enumerate(raters)}
    ratings = np.full((len(raters), len(marks)), np.nan)
    for column, answer in enumerate(
        sorted(marks.values(), key=lambda a: (a.comparison, a.contestant))
    ):
        who = {rater for _, rater in answer.flags}
        for rater in answer.raters:
            ratings[row[rater], column] = float(rater in who)
    if not (ratings == 1).any():
        return absent("one_category")
    return of_measured(agreement.gwet(ratings, 2, rng=rng), "nothing_shared")
