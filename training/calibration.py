"""how good and how honest rewards are: accuracy, NLL, Brier, ECE, AUC, reliability, length, groups, intervals by case.

Pure numpy. A reward model says d = reward(a) - reward(b); with Rao and Kupper's (1967) tie parameter theta = exp(t),
t >= 0: P(a) = s(d - t), P(b) = s(-d - t), P(tie) = 1 - P(a) - P(b), s the logistic function. Raters slip: a share `slip`
of choices falls on the other side however clear the pair is (the lapse rate of psychometrics, Wichmann and Hill 2001).
Without it a model must call clear pairs unclear to be calibrated. Among votes that chose a side the confidence in a is
P(a) / (P(a) + P(b)), slips included.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Names = Sequence[str]
BINS = 10
"""Most bins of the calibration error, of equal mass."""
MOST_SLIPS = 0.35
"""Upper bound of the slip rate: beyond it a rater tells next to nothing."""
VOTES_PER_BIN = 80
"""Fewer make a bin's share so uncertain (5 points) that chance alone looks like miscalibration."""


@dataclass(frozen=True)
class Scored:
    """Votes on scored pairs, one row per vote. d: (N,) reward(a) - reward(b), calibrated. outcome: (N,) 1 for a, 0 tie, -1 for b.

    weight: (N,). case, source, department: (N,) names. length: (N,) characters of a minus those of b.
    """

    d: Array
    outcome: Array
    weight: Array
    case: Names
    source: Names
    department: Names
    length: Array
    log_theta: float
    slip: float = 0.0

    def take(self, rows: NDArray[np.int64] | NDArray[np.bool_]) -> "Scored":
        """The same for some rows, in their order; rows may repeat."""
        at = np.arange(len(self.d))[rows]
        return Scored(
            self.d[at], self.outcome[at], self.weight[at], [self.case[i] for i in at], [self.source[i] for i in at],
            [self.department[i] for i in at], self.length[at], self.log_theta, self.slip,
        )  # fmt: skip


@dataclass(frozen=True)
class Interval:
    """A figure with its 95 % interval from the case bootstrap; value None when it is not defined."""

    value: float | None
    low: float | None
    high: float | None


def shares(d: Array, log_theta: float, slip: float = 0.0) -> tuple[Array, Array, Array]:
    """P(a), P(tie), P(b), each (N,). Source: Rao and Kupper 1967; slips turn round that share of choices."""
    a, b = _sigmoid(d - log_theta), _sigmoid(-d - log_theta)
    tie = np.maximum(1 - a - b, 1e-12)
    return (1 - slip) * a + slip * b, tie, (1 - slip) * b + slip * a


def confidence_in_a(d: Array, log_theta: float, slip: float = 0.0) -> Array:
    """P(a | a side was chosen): (N,)."""
    a, _, b = shares(d, log_theta, slip)
    return a / (a + b)


def accuracy(scored: Scored) -> float | None:
    """Share of decisive votes whose side has the higher reward; equal rewards count half. Ties are excluded."""
    keep = scored.outcome != 0
    right = (np.sign(scored.d) * scored.outcome + 1) / 2
    return _mean(right[keep], scored.weight[keep])


def accuracy_with_ties(scored: Scored) -> float | None:
    """Share of all votes that are the likeliest of a, tie, b."""
    a, tie, b = shares(scored.d, scored.log_theta, scored.slip)
    said = np.argmax(np.stack([b, tie, a]), axis=0) - 1
    return _mean((said == scored.outcome).astype(float), scored.weight)


def nll(scored: Scored) -> float | None:
    """Mean negative log-likelihood of the votes, ties included, in nats."""
    a, tie, b = shares(scored.d, scored.log_theta, scored.slip)
    p = np.choose((scored.outcome + 1).astype(int), [b, tie, a])
    return _mean(-np.log(np.maximum(p, 1e-12)), scored.weight)


def brier(scored: Scored) -> float | None:
    """Mean squared error of the confidence among decisive votes: 0 perfect, 0.25 for a coin."""
    keep = scored.outcome != 0
    p = confidence_in_a(scored.d, scored.log_theta, scored.slip)
    return _mean((p - (scored.outcome + 1) / 2)[keep] ** 2, scored.weight[keep])


def reliability(scored: Scored, bins: int = BINS) -> list[dict[str, float]]:
    """Rows {confidence, accuracy, votes} for bins of equal mass, by confidence in the side with the higher reward.

    Each decisive vote counts once; the confidence lies in [0.5, 1].
    """
    keep = scored.outcome != 0
    p = confidence_in_a(scored.d, scored.log_theta, scored.slip)[keep]
    right = (np.where(p >= 0.5, 1, -1) == scored.outcome[keep]).astype(float)
    weight, sure = scored.weight[keep], np.maximum(p, 1 - p)
    order = np.argsort(sure, kind="stable")
    rows = []
    for part in np.array_split(order, min(bins, max(len(order) // VOTES_PER_BIN, 1))):
        if len(part) and weight[part].sum() > 0:
            rows.append({
                "confidence": float(np.average(sure[part], weights=weight[part])),
                "accuracy": float(np.average(right[part], weights=weight[part])),
                "votes": float(len(part)),
                "weight": float(weight[part].sum()),
            })  # fmt: skip
    return rows


def ece(scored: Scored, bins: int = BINS) -> float | None:
    """Expected calibration error: mean |confidence - accuracy| over bins of equal mass. Source: Guo et al. 2017."""
    rows = reliability(scored, bins)
    total = sum(row["weight"] for row in rows)
    if not total:
        return None
    return sum(abs(r["confidence"] - r["accuracy"]) * r["weight"] for r in rows) / total


def ece_floor(scored: Scored, *, bins: int = BINS, draws: int = 200, seed: int = 0) -> float | None:
    """The mean ECE that a perfectly calibrated model would show on this many votes: chance alone makes it this large."""
    keep = scored.outcome != 0
    if not keep.any():
        return None
    rng, found = np.random.default_rng(seed), []
    some = scored.take(keep)
    p = confidence_in_a(some.d, some.log_theta, some.slip)
    for _ in range(draws):
        outcome = np.where(rng.random(len(p)) < p, 1.0, -1.0)
        drawn = replace(some, outcome=outcome)
        found.append(ece(drawn, bins) or 0.0)
    return float(np.mean(found))


def auc(scored: Scored) -> float | None:
    """Area under the ROC curve of d for votes a against b, each pair in both orders, so that sides cannot matter."""
    keep = scored.outcome != 0
    d, y, w = scored.d[keep], scored.outcome[keep], scored.weight[keep]
    score, label, weight = np.concatenate([d, -d]), np.concatenate([y, -y]), np.concatenate([w, w])
    good, bad = label > 0, label < 0
    if not good.any():
        return None
    values, where = np.unique(score, return_inverse=True)
    up = np.bincount(where[good], weight[good], minlength=len(values))
    down = np.bincount(where[bad], weight[bad], minlength=len(values))
    below = np.cumsum(down) - down
    return float((up * (below + down / 2)).sum() / (up.sum() * down.sum()))


def tie_auc(scored: Scored) -> float | None:
    """How well a small |d| tells ties from decisive votes: 0.5 not at all, 1 wholly."""
    tie = scored.outcome == 0
    if not tie.any() or tie.all():
        return None
    small, large = -np.abs(scored.d[tie]), -np.abs(scored.d[~tie])
    order = np.sort(large)
    below = np.searchsorted(order, small, "left") + np.searchsorted(order, small, "right")
    return float(below.mean() / 2 / len(large))


FIGURES: dict[str, Callable[[Scored], float | None]] = {
    "accuracy": accuracy,
    "accuracy_with_ties": accuracy_with_ties,
    "nll": nll,
    "brier": brier,
    "ece": ece,
    "auc": auc,
    "tie_auc": tie_auc,
}


def figures(scored: Scored, *, draws: int = 500, seed: int = 0) -> dict[str, Interval]:
    """Every figure of FIGURES with its interval, cases drawn with replacement."""
    rng = np.random.default_rng(seed)
    names, of = np.unique(np.asarray(scored.case), return_inverse=True)
    rows = [np.flatnonzero(of == i) for i in range(len(names))]
    found: dict[str, list[float]] = {name: [] for name in FIGURES}
    for _ in range(draws if len(names) > 1 else 0):
        again = scored.take(
            np.concatenate([rows[i] for i in rng.integers(0, len(rows), len(rows))])
        )
        for name, figure in FIGURES.items():
            if (value := figure(again)) is not None:
                found[name].append(value)
    return {
        name: Interval(
            figure(scored) if len(scored.d) else None,
            *(float(np.quantile(found[name], q)) if found[name] else None for q in (0.025, 0.975)),
        )
        for name, figure in FIGURES.items()
    }


def by_group(scored: Scored) -> dict[str, dict[str, dict[str, float]]]:
    """Accuracy and number of decisive votes {accuracy, votes} by source, department, length gap, and where the shorter answer was preferred."""
    decisive = scored.take(scored.outcome != 0)
    gap = np.abs(decisive.length)
    edges = np.quantile(gap, [1 / 3, 2 / 3]) if len(gap) else np.zeros(2)
    gaps = [f"{'under' if g <= edges[0] else 'to' if g <= edges[1] else 'over'} "
            f"{(edges[0] if g <= edges[0] else edges[1]):.0f} characters" for g in gap]  # fmt: skip
    preferred = ["the longer" if d * o > 0 else "the shorter" if d * o < 0 else "same length"
                 for d, o in zip(decisive.length, decisive.outcome, strict=True)]  # fmt: skip
    keys = {
        "source": decisive.source,
        "department": [name or "none given" for name in decisive.department],
        "length gap": gaps,
        "preferred answer": preferred,
    }
    return {title: _accuracy_of(decisive, names) for title, names in keys.items()}


def _accuracy_of(decisive: Scored, names: Names) -> dict[str, dict[str, float]]:
    found = {}
    for name in sorted(set(names)):
        part = decisive.take(np.array([other == name for other in names]))
        found[name] = {"accuracy": accuracy(part) or 0.0, "votes": float(len(part.d))}
    return found


def correlation(x: Array, y: Array, *, ranks: bool = False) -> float | None:
    """Pearson's correlation, or Spearman's with ranks=True; None when one of them is constant."""
    if ranks:
        x, y = _ranks(x), _ranks(y)
    if len(x) < 2 or x.std() < 1e-12 or y.std() < 1e-12:
        return None
    return float(np.corrcoef(x, y)[0, 1])


def fit_temperature(
    d: Array, outcome: Array, weight: Array, *, prior: float = 2.0
) -> tuple[float, float, float]:
    """(temperature, log theta, slip): the first and last make the choices likeliest, theta all votes, in turn.

    Apart, because ties that have little to do with d would otherwise bend the confidence in choices.

    d: (N,) uncalibrated differences. A weak prior (a unit deviation costs `prior` / 2 nats) holds where the votes say
    nothing: temperature at 1, the tie rate of equals at the share of ties, slips at 5 % and below MOST_SLIPS.
    """
    if not len(d):
        return 1.0, 0.0, 0.0
    ties = float(np.average(outcome == 0, weights=weight))
    equal = math.log((1 + min(ties, 0.9)) / (1 - min(ties, 0.9)))  # (theta - 1) / (theta + 1)
    start = np.array([0.0, math.log(max(equal, 1e-3)), _logit(0.05 / MOST_SLIPS)])

    def meaning(at: Array) -> tuple[float, float, float]:
        slip = MOST_SLIPS / (1 + math.exp(-at[2]))
        return math.exp(at[0]), math.exp(at[1]) if ties else 0.0, slip

    def loss(at: Array, choices: bool) -> float:
        temperature, log_theta, slip = meaning(at)
        a, tie, b = shares(d / temperature, log_theta, slip)
        p = np.choose((outcome + 1).astype(int), [b, tie, a])
        p = np.where(outcome == 0, 1.0, p / (a + b)) if choices else p
        fit = -(weight * np.log(np.maximum(p, 1e-12))).sum()
        return float(fit + prior / 2 * ((at - start) ** 2).sum())

    x = start
    for _ in range(4):
        x = _minimum(lambda at: loss(at, True), x, (0, 2))
        x = _minimum(lambda at: loss(at, False), x, (1,))
    return meaning(x)


def _minimum(objective: Callable[[Array], float], x: Array, moved: Sequence[int]) -> Array:
    """Pattern search along some of three coordinates: smooth functions, no gradient to get wrong."""
    value, step = objective(x), 1.0
    ways = [sign * np.eye(3)[i] for i in moved for sign in (1, -1)]
    while step > 1e-4:
        best = min(
            (np.clip(x + step * way, [-4, -8, -6], [4, 3, 6]) for way in ways), key=objective
        )
        if objective(best) < value - 1e-12:
            x, value = best, objective(best)
        else:
            step /= 2
    return x


def as_json(intervals: Mapping[str, Interval]) -> dict[str, dict[str, float | None]]:
    """{figure: {value, low, high}} for report.json."""
    return {name: {"value": i.value, "low": i.low, "high": i.high} for name, i in intervals.items()}


def _mean(values: Array, weight: Array) -> float | None:
    return float(np.average(values, weights=weight)) if len(values) and weight.sum() > 0 else None


def _logit(p: float) -> float:
    return math.log(p / (1 - p))


def _sigmoid(x: Array) -> Array:
    return np.asarray(0.5 * (1 + np.tanh(x / 2)))


def _ranks(x: Array) -> Array:
    """Mean ranks, ties sharing theirs."""
    _, where, number = np.unique(x, return_inverse=True, return_counts=True)
    last = np.cumsum(number)
    return np.asarray((last - (number - 1) / 2)[where], dtype=np.float64)
