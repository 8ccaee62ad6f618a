"""the alternative annotator test: whether a judge stands in for one rater of a panel at least as well as that rater.

Each rater in turn is left out; on every case that rater and at least one other rated, the judge's agreement with the
others is compared with the rater's own. Source: Calderon, Reichart and Dror 2025 (The Alternative Annotator Test for
LLM-as-a-Judge), with their test (one-sided t over cases), their correction over raters (Benjamini and Yekutieli 2001),
and their epsilon of 0.2 for experts: what a judge's lower cost is allowed to lose.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from reviews.intervals import t_inside

Array = NDArray[np.float64]
EPSILON = 0.2
"""For experts; 0.15 for trained and 0.1 for any annotators (same source)."""
FEWEST_RATERS, FEWEST_CASES = 3, 30
"""Raters with that many cases that others rated too; the source's conditions for its t-test."""
ASSUMPTIONS = (
    "The physicians who voted stand for those whose place the judge would take, and the cases for those it would see.",
    "Cases count as independent; a tie is an answer of its own, and agreement means the very same answer.",
    f"Epsilon is {EPSILON}, set beforehand: a judge may be that much less often the better one and still pass.",
    f"At least {FEWEST_RATERS} physicians with {FEWEST_CASES} shared cases each; fewer, and nothing is concluded.",
    "Parts (criteria, departments) are tested one by one without a correction over parts: read them as hints.",
    "Passing means agreement like a physician's, not safety: serious faults stay with physicians.",
)


@dataclass(frozen=True)
class Stand:
    """One rater left out. judge, rater: share of cases where either is at least as close to the others. p: one-sided."""

    cases: int
    judge: float
    rater: float
    p: float
    rejected: bool


@dataclass(frozen=True)
class Alternative:
    """win_rate: share of raters whom the judge may stand in for; passes from one half on, None if not enough raters.

    advantage: mean of Stand.judge, the probability that the judge is at least as close as a rater picked at random.
    """

    passes: bool | None
    win_rate: float | None
    advantage: float | None
    raters: int
    epsilon: float
    stands: tuple[Stand, ...]


def alternative(
    physicians: Array, judged: Array, *, epsilon: float = EPSILON, q: float = 0.05
) -> Alternative:
    """physicians (R, U) and judged (U,): category numbers, NaN for none. Raises ValueError for other shapes."""
    if physicians.ndim != 2 or judged.shape != physicians.shape[1:]:
        raise ValueError(f"shapes do not fit: {physicians.shape} and {judged.shape}")
    found = [
        stand
        for row in range(len(physicians))
        if (stand := _leave_out(physicians, judged, row, epsilon))
    ]
    enough = [one for one in found if one.cases >= FEWEST_CASES]
    if len(enough) < FEWEST_RATERS:
        return Alternative(None, None, None, len(enough), epsilon, tuple(found))
    rejected = benjamini_yekutieli([one.p for one in enough], q)
    stands = tuple(
        Stand(one.cases, one.judge, one.rater, one.p, hit)
        for one, hit in zip(enough, rejected, strict=True)
    )
    win_rate = sum(rejected) / len(stands)
    advantage = float(np.mean([one.judge for one in stands]))
    return Alternative(win_rate >= 0.5, win_rate, advantage, len(stands), epsilon, stands)


def benjamini_yekutieli(p: list[float], q: float) -> list[bool]:
    """Which hypotheses are rejected at a false discovery rate of q under any dependence. Source: the authors' of 2001."""
    m = len(p)
    harmonic = sum(1 / k for k in range(1, m + 1))
    order = sorted(range(m), key=p.__getitem__)
    last = max((k for k, i in enumerate(order, 1) if p[i] <= k * q / (m * harmonic)), default=0)
    return [i in order[:last] for i in range(m)]


def _leave_out(physicians: Array, judged: Array, row: int, epsilon: float) -> Stand | None:
    own, others = physicians[row], np.delete(physicians, row, axis=0)
    known = ~np.isnan(others)
    use = ~np.isnan(own) & ~np.isnan(judged) & known.any(axis=0)
    n = int(use.sum())
    if n < 2:
        return None
    many = known[:, use].sum(axis=0)
    its, theirs = (
        (others[:, use] == said[use]).sum(axis=0) / many for said in (judged, own)
    )  # (n,) agreement with the others
    wins, losses = (its >= theirs).astype(float), (theirs >= its).astype(float)
    apart = losses - wins
    spread = float(apart.std(ddof=1))
    if spread == 0:
        p = 0.0 if apart.mean() < epsilon else 1.0
    else:
        t = (float(apart.mean()) - epsilon) / (spread / math.sqrt(n))
        inside = t_inside(abs(t), n - 1)
        p = (1 - inside) / 2 if t < 0 else (1 + inside) / 2
    return Stand(n, float(wins.mean()), float(losses.mean()), p, False)
