"""Paired comparison with ties and a side effect: Davidson's and Rao and Kupper's model.

With d = score(left) - score(right) + side effect, in log-odds:
Davidson (1970): P(left) : P(tie) : P(right) = exp(d/2) : nu : exp(-d/2).
Rao and Kupper (1967): P(left) = 1 / (1 + eta exp(-d)), P(right) = 1 / (1 + eta exp(d)), eta > 1.
Both become Bradley and Terry's (1952) without ties. A weak ridge keeps every score finite, also
after 12 wins of 12. Fitted by Fisher scoring on counts per ordered pair, many data sets at once,
so a bootstrap costs little more than one fit. Intervals are in intervals.py.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from reviews.tally import Array, Cells

Model = Literal["davidson", "rao_kupper"]

RIDGE = 0.01  # on every score, on the side effect and on the tie parameter's logarithm
STEPS = 100
CHUNK = 4_000_000  # numbers held at once by a batch of information matrices


class Slopes(NamedTuple):
    """Log-probability and its slopes by d and by the tie parameter: (3, ...) left, tie, right."""

    log: Array
    by_d: Array
    by_tie: Array


@dataclass(frozen=True, slots=True)
class Fit:
    """One fit: scores (K,) in log-odds, the left side's advantage, and the tie parameter.

    `log_tie` is log(nu) for Davidson's model, log(log(eta)) for Rao and Kupper's.
    information: (K+2, K+2), expected, with the ridge. log_likelihood: without the ridge.
    """

    scores: Array
    side: float
    log_tie: float
    information: Array
    log_likelihood: float
    model: Model = "davidson"

    @property
    def tie(self) -> float:
        """Davidson's nu, where nu / (2 + nu) is the tie rate of equals; or Rao and Kupper's eta."""
        value = math.exp(self.log_tie)
        return value if self.model == "davidson" else math.exp(min(value, 700.0))


def slopes(d: Array, log_tie: Array, model: Model) -> Slopes:
    """What the fit needs of the model at d; log_tie must broadcast to d's shape.

    Source: Davidson 1970; Rao and Kupper 1967.
    """
    if model == "davidson":
        half = d / 2
        top = np.logaddexp(np.abs(half) + np.log1p(np.exp(-np.abs(d))), log_tie)
        log = np.stack(np.broadcast_arrays(half - top, log_tie - top, -half - top))
        left, tie, right = np.exp(log)
        lean = (left - right) / 2
        by_d, by_tie = (0.5 - lean, -lean, -0.5 - lean), (-tie, 1 - tie, -tie)
        return Slopes(log, np.stack(by_d), np.stack(by_tie))
    t = np.exp(np.minimum(log_tie, 6.0))
    log_left, log_right = -np.logaddexp(0, t - d), -np.logaddexp(0, t + d)
    left, right = np.exp(log_left), np.exp(log_right)
    log_even = 2 * t + np.log(-np.expm1(-2 * t)) + log_left + log_right
    even = -2 * t / np.expm1(-2 * t) - t * (2 - left - right)
    return Slopes(
        np.stack([log_left, log_even, log_right]),
        np.stack([1 - left, right - left, right - 1]),
        np.stack([-t * (1 - left), even, -t * (1 - right)]),
    )


def davidson(cells: Cells, counts: Array, *, side: bool = True, ridge: float = RIDGE) -> Fit:
    """Fit Davidson's model to counts (C, 3) of left wins, ties and right wins.

    With side=False the side effect is held at 0. Raises ValueError on counts of another shape,
    below 0 or not finite. Source: Davidson 1970.
    """
    return fit(cells, counts, "davidson", side=side, ridge=ridge)


def fit(
    cells: Cells, counts: Array, model: Model = "davidson", *, side: bool = True, ridge: float = RIDGE
) -> Fit:  # fmt: skip
    """Fit either model to one table of counts (C, 3); errors as in davidson()."""
    x = solve(cells, counts[None], model, side=side, ridge=ridge)
    value, _, information = _climb(cells, counts[None], x, model, side, ridge)
    likelihood = float(value[0]) + ridge / 2 * float(x[0] @ x[0])
    k = cells.models
    return Fit(x[0, :k], float(x[0, k]), float(x[0, k + 1]), information[0], likelihood, model)


def solve(
    cells: Cells,
    counts: Array,
    model: Model = "davidson",
    *,
    side: bool = True,
    ridge: float = RIDGE,
    start: Array | None = None,
    tolerance: float = 1e-10,
) -> Array:
    """Fit B tables at once: counts (B, C, 3) to parameters (B, K+2): scores, side, log_tie.

    start: (K+2,) where to begin; near the answer it saves steps and changes nothing else. A step
    that lowers the penalised likelihood is halved. Raises ValueError as davidson() does.
    """
    if counts.ndim != 3 or counts.shape[1:] != (len(cells.left), 3):
        raise ValueError(f"counts must be (B, {len(cells.left)}, 3), not {counts.shape}")
    if not np.isfinite(counts).all() or (counts < 0).any():
        raise ValueError("counts must be finite and not below 0")
    flat = cells.left * cells.models + cells.right
    if len(np.unique(flat)) < len(flat) or (cells.left == cells.right).any():
        raise ValueError("an ordered pair of two different contestants must stand in one cell")
    size = cells.models + 2
    x = np.zeros((len(counts), size)) + (0 if start is None else start)
    at_once = max(1, CHUNK // max(size * size, 3 * len(cells.left)))
    for first in range(0, len(counts), at_once):
        part = slice(first, first + at_once)
        x[part] = _newton(cells, counts[part], x[part], model, side, ridge, tolerance)
    return x


def _newton(
    cells: Cells, counts: Array, x: Array, model: Model, side: bool, ridge: float, tolerance: float
) -> Array:
    x = x.copy()
    value, gradient, information = _climb(cells, counts, x, model, side, ridge)
    live = np.arange(len(x))
    for _ in range(STEPS):
        step = np.linalg.solve(information, gradient[..., None])[..., 0]
        new = x[live] + step
        better, gradient, information = _climb(cells, counts[live], new, model, side, ridge)
        for halving in range(1, 30):
            worse = np.flatnonzero(better < value[live] - 1e-9 * (1 + np.abs(value[live])))
            if not len(worse):
                break
            new[worse] = x[live[worse]] + step[worse] / 2**halving
            again = _climb(cells, counts[live[worse]], new[worse], model, side, ridge)
            better[worse], gradient[worse], information[worse] = again
        moved = np.abs(new - x[live]).max(axis=1)
        x[live], value[live] = new, better
        going = moved > tolerance
        if not going.any():
            break
        live, gradient, information = live[going], gradient[going], information[going]
    return x


def _climb(
    cells: Cells, counts: Array, x: Array, model: Model, side: bool, ridge: float
) -> tuple[Array, Array, Array]:
    """Penalised log-likelihood (B,), its gradient (B, K+2) and expected information at x."""
    k, signs = cells.models, cells.signs
    d = x[:, cells.left] - x[:, cells.right] + (x[:, k : k + 1] if side else 0)  # (B, C)
    log, by_d, by_tie = slopes(d, x[:, k + 1 :], model)
    total = counts.sum(axis=2)
    seen, share = np.moveaxis(counts, 2, 0), np.exp(log)  # (3, B, C) both
    value = (seen * log).sum(axis=(0, 2)) - ridge / 2 * (x * x).sum(axis=1)
    lean, even = (seen * by_d).sum(axis=0), (seen * by_tie).sum(axis=0)
    dd, dt, tt = (
        total * (share * one * two).sum(axis=0)
        for one, two in ((by_d, by_d), (by_d, by_tie), (by_tie, by_tie))
    )
    gradient = np.empty_like(x)
    gradient[:, :k], gradient[:, k] = lean @ signs, lean.sum(axis=1) if side else 0
    gradient[:, k + 1] = even.sum(axis=1)
    information = np.zeros((len(x), k + 2, k + 2))
    information[:, cells.left, cells.right] -= dd
    information[:, cells.right, cells.left] -= dd
    diagonal = np.arange(k + 2)
    information[:, diagonal[:k], diagonal[:k]] += dd @ np.abs(signs)
    for column, part in ((k, dd if side else 0 * dd), (k + 1, dt)):
        across = part @ signs
        information[:, :k, column] = information[:, column, :k] = across
    if side:
        information[:, k, k] = dd.sum(axis=1)
        information[:, k, k + 1] = information[:, k + 1, k] = dt.sum(axis=1)
    information[:, k + 1, k + 1] = tt.sum(axis=1)
    information[:, diagonal, diagonal] += ridge
    return value, gradient - ridge * x, information
