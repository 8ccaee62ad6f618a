"""When to stop voting: tests that survive a look after every vote, and how many votes are missing.

The vote test takes each decisive vote as a fair coin under "no difference"; that holds for the
panel of raters who vote, if each vote's rater is drawn by chance. To speak of physicians in
general use the rater test, where each rater's whole share of pairs is one observation.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal

import numpy as np

from reviews.stats import votes_needed

Decision = Literal["first", "second", "equal", "open"]

ALPHA = 0.05
EQUAL = 0.05  # a share of decisive wins within 1/2 +- this is equal in practice


@dataclass(frozen=True, slots=True)
class Evidence:
    """The e-value against "no difference" and an interval for the wins' share, valid at any time.

    log_e: its natural logarithm. low, high: of wins among decisive votes, in [0, 1]. decision:
    'equal' only if the interval lies within 1/2 +- EQUAL; 'open' asks for more votes.
    """

    log_e: float
    low: float
    high: float
    decision: Decision


@dataclass(frozen=True, slots=True)
class Missing:
    """Votes still to cast, ties included, until a difference is settled; None: never, as equal.

    needed: in all. design_effect: how many dependent votes count as one, 1 or more.
    """

    needed: int | None
    more: int | None
    design_effect: float


def log_e(wins: int, losses: int, p: float = 0.5, prior: float = 1.0) -> float:
    """Logarithm of the beta-mixture e-value of wins and losses against a wins' share of p.

    E = B(prior + wins, prior + losses) / (B(prior, prior) p^wins (1-p)^losses), an expected
    value of 1 at most under p at whatever moment one looks. Raises ValueError for p outside
    (0, 1), a negative count or a prior that is not positive. Source: Robbins 1970; Howard et al.
    2021; Ramdas et al. 2023.
    """
    if not 0 < p < 1 or wins < 0 or losses < 0 or prior <= 0:
        raise ValueError("p lies in (0, 1), counts are not below 0, the prior is positive")
    mixture = _log_beta(prior + wins, prior + losses) - _log_beta(prior, prior)
    return mixture - wins * math.log(p) - losses * math.log1p(-p)


def confidence_sequence(wins: int, losses: int, alpha: float = ALPHA) -> tuple[float, float]:
    """All shares that log_e does not reject at alpha; covers at every moment with 1 - alpha.

    (0, 1) without decisive votes. Source: Robbins 1970; Howard et al. 2021.
    """
    if not wins + losses:
        return (0.0, 1.0)
    return (_edge(wins, losses, alpha), 1 - _edge(losses, wins, alpha))


def _edge(wins: int, losses: int, alpha: float) -> float:
    low, high = 0.0, wins / (wins + losses)
    if not wins:
        return 0.0
    for _ in range(60):
        middle = (low + high) / 2
        outside = middle <= 0 or log_e(wins, losses, middle) >= -math.log(alpha)
        low, high = (middle, high) if outside else (low, middle)
    return low


def evidence(wins: int, losses: int, *, comparisons: int = 1, alpha: float = ALPHA) -> Evidence:
    """What one pair's decisive votes say, however often one looks; ties do not count.

    comparisons: how many pairs are watched; alpha is shared among them (Bonferroni), so that
    all decisions together err with alpha at most.
    """
    level = alpha / max(1, comparisons)
    low, high = confidence_sequence(wins, losses, level)
    decision: Decision = "open"
    if low > 0.5 or high < 0.5:
        decision = "first" if low > 0.5 else "second"
    elif low > 0.5 - EQUAL and high < 0.5 + EQUAL:
        decision = "equal"
    return Evidence(log_e(wins, losses), low, high, decision)


def rater_log_e(net: Sequence[float]) -> float:
    """Logarithm of the e-value of raters' net preferences, each (wins - losses) / votes in [-1, 1].

    Enter a rater when the share of pairs that the plan gave to them is done, and never change it:
    then the value holds at any look, whatever habits raters have, for physicians like these. It
    needs seven raters or more to reach 20. The bet is a mixture of fixed ones. Raises
    ValueError outside [-1, 1]. Source: Waudby-Smith and Ramdas 2024 (betting).
    """
    values = np.asarray(net, np.float64)
    if len(values) and not bool((np.abs(values) <= 1).all()):
        raise ValueError("a rater's net preference lies in [-1, 1]")
    bets = np.cos(np.pi * (np.arange(64) + 0.5) / 64)  # of arcsine density, inside (-1, 1)
    logs = np.log1p(bets[:, None] * values).sum(axis=1)
    return float(np.logaddexp.reduce(logs) - math.log(len(bets)))


def design_effect(votes_per_rater: float, correlation: float) -> float:
    """How many dependent votes say as much as one independent: 1 + (m - 1) rho, 1 or more.

    Source: Kish 1965.
    """
    return max(1.0, 1 + (votes_per_rater - 1) * max(0.0, correlation))


def rater_correlation(wins: Sequence[int], losses: Sequence[int]) -> float:
    """Correlation of two decisive votes of one rater on a pair, by analysis of variance, in [0, 1].

    wins, losses: one number per rater. 0 for fewer than 2 raters with votes, or too few votes.
    Source: Fleiss, Levin, Paik 2003 (ANOVA estimator of Snedecor).
    """
    y = np.asarray(wins, np.float64)
    n = y + np.asarray(losses, np.float64)
    y, n = y[n > 0], n[n > 0]
    total, raters = n.sum(), len(n)
    if raters < 2 or total <= raters:
        return 0.0
    share, p = y / n, y.sum() / total
    between = float((n * (share - p) ** 2).sum() / (raters - 1))
    within = float((n * share * (1 - share)).sum() / (total - raters))
    typical = (total - (n**2).sum() / total) / (raters - 1)
    spread = between + (typical - 1) * within
    return float(min(1.0, max(0.0, (between - within) / spread))) if spread > 0 else 0.0


def missing(
    wins: int, ties: int, losses: int, *, effect: float = 1.0, power: float = 0.8
) -> Missing:
    """About how many more votes settle a pair, if its present shares hold.

    For a two-sided 5 % sign test at the end of a fixed number, times the design effect. Looking
    after each vote with evidence() needs about as many. See stats.votes_needed.
    """
    needed = votes_needed(wins, ties, losses, power)
    if needed is None:
        return Missing(None, None, effect)
    needed = math.ceil(needed * effect)
    return Missing(needed, max(0, needed - wins - ties - losses), effect)


def detectable(
    votes: int, tie_share: float = 0.0, power: float = 0.8, effect: float = 1.0
) -> float:
    """The smallest share of decisive wins above 1/2 that so many votes settle with this power.

    Two-sided 5 %, normal approximation; 1 where even unanimity would not. Raises ValueError for a
    tie share outside [0, 1). Source: Fleiss, Levin, Paik 2003, turned round.
    """
    if not 0 <= tie_share < 1:
        raise ValueError("the tie share lies in [0, 1)")
    decisive = votes * (1 - tie_share) / max(1.0, effect)
    z = NormalDist().inv_cdf
    low, high = 0.5, 1.0
    for _ in range(60):
        p = (low + high) / 2
        reached = (p - 0.5) * math.sqrt(decisive) >= z(0.975) / 2 + z(power) * math.sqrt(
            p * (1 - p)
        )
        low, high = (low, p) if reached else (p, high)
    return high


def _log_beta(a: float, b: float) -> float:
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)
