"""Figures about rewards: known values, symmetry, intervals, and what a perfect and a constant model get."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from training import calibration
from training.calibration import Scored


def scored(d: list[float], outcome: list[float], log_theta: float = 0.0, **more: object) -> Scored:
    n = len(d)
    return Scored(
        np.array(d, float), np.array(outcome, float), np.ones(n), [f"c{i}" for i in range(n)], ["physician"] * n,
        ["ward"] * n, np.array(more.get("length", np.zeros(n)), float), log_theta,
    )  # fmt: skip


def simulated(n: int, spread: float = 2.0, log_theta: float = 0.3, seed: int = 1) -> Scored:
    """Votes that come true exactly as often as the model says."""
    rng = np.random.default_rng(seed)
    d = rng.normal(0, spread, n)
    a, tie, _ = calibration.shares(d, log_theta)
    u = rng.random(n)
    return scored(d.tolist(), np.where(u < a, 1, np.where(u < a + tie, 0, -1)).tolist(), log_theta)


def test_the_three_shares_sum_to_one_and_mirror_each_other() -> None:
    d = np.linspace(-5, 5, 11)
    a, tie, b = calibration.shares(d, 0.4)
    assert np.allclose(a + tie + b, 1)
    assert np.allclose(a, b[::-1]) and np.allclose(tie, tie[::-1])
    theta = math.exp(0.4)  # equals tie with (theta - 1) / (theta + 1)
    assert tie[5] == pytest.approx((theta - 1) / (theta + 1))


def test_figures_of_four_votes_by_hand() -> None:
    some = scored([2, 2, -1, 0], [1, -1, -1, 1])
    assert calibration.accuracy(some) == pytest.approx((1 + 0 + 1 + 0.5) / 4)
    p = 1 / (1 + math.exp(-2))
    q = 1 / (1 + math.exp(1))
    assert calibration.brier(some) == pytest.approx(((1 - p) ** 2 + p**2 + q**2 + 0.25) / 4)
    assert calibration.nll(some) == pytest.approx(
        -(math.log(p) + math.log(1 - p) + math.log(1 - q) + math.log(0.5)) / 4, abs=1e-6
    )


def test_ties_are_left_out_of_accuracy_but_not_of_the_likelihood() -> None:
    without, with_tie = scored([1, -1], [1, -1], 0.2), scored([1, -1, 0.0], [1, -1, 0], 0.2)
    assert calibration.accuracy(without) == calibration.accuracy(with_tie) == 1
    assert calibration.nll(without) != calibration.nll(with_tie)
    assert calibration.accuracy_with_ties(scored([0.0, 3], [0, 1], 1.0)) == 1


def test_swapping_every_pair_changes_no_figure() -> None:
    some = simulated(300)
    mirrored = scored((-some.d).tolist(), (-some.outcome).tolist(), some.log_theta)
    for name, figure in calibration.FIGURES.items():
        assert figure(some) == pytest.approx(figure(mirrored)), name


def test_a_true_model_is_calibrated_up_to_chance_and_an_overconfident_one_is_not() -> None:
    some = simulated(4000)
    assert calibration.ece(some) < 0.03
    floor = calibration.ece_floor(some, draws=50)
    assert floor is not None and calibration.ece(some) < 2 * floor
    bold = scored((3 * some.d).tolist(), some.outcome.tolist(), some.log_theta)
    assert calibration.ece(bold) > 0.08


@pytest.mark.parametrize("slip", [0.0, 0.15])
def test_temperature_ties_and_slips_are_found_again(slip: float) -> None:
    some = simulated(6000, log_theta=0.3)
    flipped = np.where(np.random.default_rng(2).random(6000) < slip, -some.outcome, some.outcome)
    temperature, log_theta, slips = calibration.fit_temperature(3 * some.d, flipped, some.weight)
    assert temperature == pytest.approx(3, rel=0.2)
    assert log_theta == pytest.approx(0.3, rel=0.2)
    assert slips == pytest.approx(slip, abs=0.03)


def test_votes_with_slips_are_calibrated_only_by_a_model_that_knows_of_them() -> None:
    some = simulated(6000, spread=4)
    flipped = np.where(np.random.default_rng(2).random(6000) < 0.15, -some.outcome, some.outcome)
    voted = dataclasses.replace(some, outcome=flipped)
    assert calibration.ece(dataclasses.replace(voted, slip=0.15)) < 0.02 < calibration.ece(voted)


def test_without_a_vote_or_a_tie_the_temperature_stays_finite() -> None:
    none = np.zeros(0)
    assert calibration.fit_temperature(none, none, none) == (1.0, 0.0, 0.0)
    perfect = np.ones(30)
    temperature, log_theta, slip = calibration.fit_temperature(perfect, perfect, perfect)
    assert 0.01 < temperature < 1 and log_theta == 0 and slip < 0.05


def test_auc_of_a_perfect_a_reversed_and_a_constant_model() -> None:
    for d, value in (([1, -2, 3], 1.0), ([-1, 2, -3], 0.0), ([0, 0, 0], 0.5)):
        assert calibration.auc(scored(d, [1, -1, 1])) == value
    assert calibration.tie_auc(scored([0.1, 2, -3], [0, 1, -1])) == 1


def test_no_votes_give_no_figures_instead_of_zeros() -> None:
    for name, interval in calibration.figures(scored([], [])).items():
        assert interval.value is None and interval.low is None, name
    ties = calibration.figures(scored([1, 2], [0, 0]))
    assert ties["accuracy"].value is None and ties["nll"].value is not None


def test_intervals_widen_when_votes_share_cases() -> None:
    some = simulated(200)
    together = Scored(
        some.d, some.outcome, some.weight, [f"c{i // 20}" for i in range(200)], some.source, some.department,
        some.length, some.log_theta,
    )  # fmt: skip
    alone, shared = (calibration.figures(s, draws=300)["nll"] for s in (some, together))
    assert alone.value == shared.value
    assert alone.low is not None and alone.low < alone.value < alone.high  # type: ignore[operator]
    assert shared.low is not None


def test_groups_hold_every_decisive_vote_once() -> None:
    some = scored([1, -1, 2, 1], [1, -1, -1, 0], length=[10, 200, -50, 3])
    groups = calibration.by_group(some)
    for title, found in groups.items():
        assert sum(g["votes"] for g in found.values()) == 3, title
    assert groups["preferred answer"]["the shorter"] == {"accuracy": 1.0, "votes": 1.0}
    assert groups["preferred answer"]["the longer"]["votes"] == 2


def test_correlation_by_value_and_by_rank() -> None:
    x = np.array([1.0, 2, 3, 4])
    assert calibration.correlation(x, 2 * x) == pytest.approx(1)
    assert calibration.correlation(x, np.exp(x), ranks=True) == pytest.approx(1)
    assert calibration.correlation(x, np.ones(4)) is None
