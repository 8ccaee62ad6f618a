"""intervals over questions and paired tests between two models, for every metric at once.

A metric here is any function of sums over questions, so a mean of sentence scores and a corpus score are resampled
alike: draws are weights on the questions, and one product of matrices gives the sums of all draws.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Finish = Callable[[Floats, int], Floats]
"""(sums (..., C) over questions, how many questions) -> metrics (..., M)."""

RESAMPLES = 2000
DRAWS_AT_ONCE = 2_000_000
"""Weights held in memory at a time."""


@dataclass(frozen=True)
class Difference:
    """One metric of one model minus that of another, on the same questions.

    low, high: percentile interval of the paired bootstrap. p_bootstrap: two-sided, how often a draw falls on the other
    side of 0. p: two-sided, by approximate randomisation. p_holm: p after Holm's correction for all metrics tested.
    """

    metric: str
    difference: float
    low: float
    high: float
    p_bootstrap: float
    p: float
    p_holm: float


def intervals(
    columns: Floats,
    finish: Finish,
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
    confidence: float = 0.95,
) -> Floats:
    """(M, 2) percentile bootstrap intervals of the metrics; the question is what is drawn.

    columns: (Q, C) what `finish` sums, per question. Raises ValueError for no questions, or fewer than 100 resamples.
    Source: Efron and Tibshirani 1993, ch. 13; for BLEU: Koehn 2004, section 3.
    """
    _check(len(columns), resamples)
    drawn = np.concatenate(
        [finish(w @ columns, len(columns)) for w in _draws(len(columns), resamples, seed)]
    )
    tail = (1 - confidence) / 2
    return np.asarray(np.quantile(drawn, (tail, 1 - tail), axis=0).T)


def compare(
    first: Floats,
    second: Floats,
    finish: Finish,
    names: Sequence[str],
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
    confidence: float = 0.95,
) -> list[Difference]:
    """Metrics of the first model minus the second's, one Difference per name.

    first, second: (Q, C), row i of both about the same question. Raises ValueError when they differ in shape.
    Sources: paired bootstrap: Koehn 2004, section 4; approximate randomisation: Noreen 1989, ch. 2, and Riezler and
    Maxwell 2005, section 4, with 1 added to both counts, so that p is never 0; Holm 1979.
    """
    if first.shape != second.shape:
        raise ValueError(f"two models on different questions: {first.shape} and {second.shape}")
    count = len(first)
    _check(count, resamples)
    seen = finish(first.sum(0), count) - finish(second.sum(0), count)
    drawn = np.concatenate(
        [
            finish(w @ first, count) - finish(w @ second, count)
            for w in _draws(count, resamples, seed)
        ]
    )
    tail = (1 - confidence) / 2
    low, high = np.quantile(drawn, (tail, 1 - tail), axis=0)
    beyond = np.minimum((drawn <= 0).sum(0), (drawn >= 0).sum(0))
    p_bootstrap = np.minimum(1.0, 2 * (1 + beyond) / (1 + resamples))
    p = _randomise(first, second, finish, np.abs(seen), resamples, seed)
    return [
        Difference(name, *(float(x) for x in row))
        for name, *row in zip(names, seen, low, high, p_bootstrap, p, holm(p), strict=True)
    ]


def _randomise(
    first: Floats, second: Floats, finish: Finish, seen: Floats, resamples: int, seed: int
) -> Floats:
    """How often the difference is as large when the two models' answers to each question are swapped by a coin."""
    count = len(first)
    rng = np.random.default_rng((seed, 1))
    step, base = first - second, second.sum(0)
    total = first.sum(0) + base
    reached = np.zeros(seen.shape)
    done = 0
    while done < resamples:
        now = min(resamples - done, max(1, DRAWS_AT_ONCE // count))
        kept = rng.integers(0, 2, (now, count)).astype(np.float64)
        one = base + kept @ step
        swapped = finish(one, count) - finish(total - one, count)
        reached += (np.abs(swapped) >= seen - 1e-12).sum(0)
        done += now
    return (1 + reached) / (1 + resamples)


def holm(p: Floats) -> Floats:
    """Holm's step-down correction of (M,) p-values. Source: Holm 1979, procedure of section 3."""
    order = np.argsort(p, kind="stable")
    raised = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    corrected = np.empty(len(p))
    corrected[order] = np.minimum(1.0, raised)
    return corrected


def _draws(count: int, resamples: int, seed: int) -> Iterator[Floats]:
    """(B, Q) how often each question is drawn, B draws at a time."""
    rng = np.random.default_rng((seed, 0))
    done = 0
    while done < resamples:
        now = min(resamples - done, max(1, DRAWS_AT_ONCE // count))
        chosen = rng.integers(0, count, (now, count))
        yield np.stack([np.bincount(row, minlength=count) for row in chosen]).astype(np.float64)
        done += now


def _check(count: int, resamples: int) -> None:
    if not count:
        raise ValueError("no questions")
    if resamples < 100:
        raise ValueError(f"{resamples} resamples are too few for an interval; take 100 or more")
