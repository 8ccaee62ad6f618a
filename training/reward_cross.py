"""figures from all votes: each case held out once, for a reward model that is fitted in seconds (the head alone).

A test part of a hundred votes cannot tell 74 % from 70 %. Here every fold is scored by an ensemble that never saw its
cases and calibrated on other folds, so that accuracy and calibration rest on every vote. The model that is kept is fitted
on all cases, with the temperature of the held-out scores.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from training.reward_data import Material
from training.reward_fit import Aim, bootstrap, probe
from training.reward_result import Shape, fit_scale

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class HeldOut:
    """d: (P,) reward(a) - reward(b) of every pair by models that never saw its case, calibrated. The last two: of all."""

    d: Floats
    uncalibrated: Floats
    temperature: float
    shape: Shape


def held_out_scores(
    material: Material, rewards_without: Callable[[int, NDArray[np.int64]], Floats]
) -> HeldOut:
    """Scores every pair by a model of the other folds. rewards_without: (fold, rows to learn from) -> rewards (N,)."""
    assert material.folds is not None
    folds, index = material.folds, material.sequences.pairs
    raw = np.zeros(len(index))
    for fold in sorted(set(folds.tolist())):
        rewards = rewards_without(fold, np.flatnonzero(folds != fold))
        here = np.flatnonzero(folds == fold)
        raw[here] = rewards[index[here, 0]] - rewards[index[here, 1]]
    d = np.zeros(len(index))
    for fold in sorted(set(folds.tolist())):
        temperature, _ = fit_scale(raw, material.pairs, np.flatnonzero(folds != fold))
        d[folds == fold] = raw[folds == fold] / temperature
    temperature, shape = fit_scale(raw, material.pairs, np.arange(len(index)))
    return HeldOut(d, raw, temperature, shape)


def probe_rewards(
    material: Material,
    states: Tensor,
    evidence: Tensor,
    aim: Aim,
    ridge: float,
    members: int,
    seed: int,
) -> Callable[[int, NDArray[np.int64]], Floats]:
    """For held_out_scores: the mean of `members` heads, each on cases drawn anew from the rows."""

    def fit(fold: int, rows: NDArray[np.int64]) -> Floats:
        cases = [material.split.cases[i] for i in rows]
        total = np.zeros(len(states))
        for number in range(members):
            rng = np.random.default_rng((seed, fold, number))
            drawn = rows[bootstrap(cases, rng)] if members > 1 else rows
            found = probe(states, evidence, material.sequences.pairs, aim, drawn, ridge)
            total += (states @ found.weight + evidence @ found.evidence).double().numpy()
        return np.asarray(total / members)

    return fit
