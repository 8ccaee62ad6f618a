"""A figure as it may be told: a value with its interval, or the reason why there is none.

Nothing that is not defined is ever told as 1.0, nan or infinity: `value` is None then, and `why`
names the reason, for which the pages have a sentence.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from reviews.agreement import Measured
from reviews.intervals import Estimate
from reviews.panel import Share

Why = Literal[
    "",
    "no_votes",  # nothing to compute it from
    "one_rater",  # agreement takes two
    "one_category",  # every vote says the same: chance explains everything
    "nothing_shared",  # no comparison has two votes
    "uneven_panel",  # Fleiss' kappa asks for the same number of votes on each comparison
    "one_cluster",  # an interval by case or rater takes two of them
    "not_comparable",  # no chain of votes connects the two
    "never_differed",  # the answers were alike in this respect
    "not_asked",  # the study did not ask for it
    "too_few",  # an estimate from so few votes would mislead
]


@dataclass(frozen=True, slots=True)
class Stated:
    """value, low, high: None where not defined; n: what it rests on; why: the reason, or ""."""

    value: float | None
    low: float | None
    high: float | None
    n: int
    why: Why = ""


def absent(why: Why, n: int = 0) -> Stated:
    """No figure, and why."""
    return Stated(None, None, None, n, why)


def finite(value: float | None) -> float | None:
    """The number, or None for one that is not finite."""
    return float(value) if value is not None and math.isfinite(value) else None


def of_measured(measured: Measured, why: Why) -> Stated:
    """An agreement measure; `why` is the reason to give where it is not defined."""
    value = finite(measured.value)
    if value is None:
        return absent(why, measured.units)
    return Stated(value, finite(measured.low), finite(measured.high), measured.units)


def of_share(share: Share) -> Stated:
    """A share with Wilson's interval; without votes there is none."""
    if not share.n:
        return absent("no_votes")
    return Stated(share.value, share.low, share.high, share.n)


def of_estimate(found: Estimate, n: int, *, clusters: int = 2) -> Stated:
    """An estimate; without two clusters its interval is not told."""
    if clusters < 2:
        return Stated(finite(found.value), None, None, n, "one_cluster")
    return Stated(finite(found.value), finite(found.low), finite(found.high), n)
