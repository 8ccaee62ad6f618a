"""Intervals cover, a difference that is there is found, and one that is not is not."""

import numpy as np
import pytest

from training.significance import Floats, compare, holm, intervals


def mean(sums: Floats, questions: int) -> Floats:
    return sums / questions


def ratio(sums: Floats, questions: int) -> Floats:
    return sums[..., :1] / sums[..., 1:2]


def test_the_interval_of_a_mean_is_the_textbooks() -> None:
    values = np.random.default_rng(1).normal(3, 2, (400, 1))
    low, high = intervals(values, mean, resamples=4000)[0]
    half = 1.96 * values.std() / 20
    assert low == pytest.approx(values.mean() - half, abs=0.03)
    assert high == pytest.approx(values.mean() + half, abs=0.03)


def test_ninety_five_in_a_hundred_intervals_hold_the_truth() -> None:
    rng = np.random.default_rng(2)
    held = 0
    for seed in range(200):
        counts = rng.integers(1, 20, 80).astype(float)
        columns = np.stack([rng.binomial(counts.astype(int), 0.3), counts], 1).astype(float)
        low, high = intervals(columns, ratio, resamples=400, seed=seed)[0]
        held += low <= 0.3 <= high
    assert 180 <= held <= 200


def test_an_even_pair_is_rarely_called_different_and_a_shifted_one_is() -> None:
    rng = np.random.default_rng(3)
    called = 0
    for seed in range(100):
        ability = rng.normal(0, 1, (60, 1))
        one, two = (ability + rng.normal(0, 1, (60, 1)) for _ in range(2))
        called += compare(one, two, mean, ["m"], resamples=200, seed=seed)[0].p < 0.05
    assert called <= 12
    better = compare(one + 1.0, two, mean, ["m"], resamples=500)[0]
    assert better.p < 0.01 and better.p_bootstrap < 0.01 and better.low > 0


def test_swapping_the_models_mirrors_and_a_model_equals_itself() -> None:
    rng = np.random.default_rng(4)
    one, two = rng.random((50, 2)), rng.random((50, 2))
    names = ["x", "y"]
    there = compare(one, two, mean, names, resamples=300)
    back = compare(two, one, mean, names, resamples=300)
    for a, b in zip(there, back, strict=True):
        assert (a.difference, a.p, a.p_bootstrap) == pytest.approx(
            (-b.difference, b.p, b.p_bootstrap)
        )
        assert (a.low, a.high) == pytest.approx((-b.high, -b.low))
    same = compare(one, one, mean, names, resamples=300)[0]
    assert (same.difference, same.p, same.p_holm) == (0, 1, 1)


def test_the_seed_decides_and_blocks_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    one = np.random.default_rng(5).random((40, 1))
    whole = intervals(one, mean, resamples=200, seed=7)
    assert (intervals(one, mean, resamples=200, seed=7) == whole).all()
    assert (intervals(one, mean, resamples=200, seed=8) != whole).any()
    monkeypatch.setattr("training.significance.DRAWS_AT_ONCE", 400)
    assert intervals(one, mean, resamples=200, seed=7) == pytest.approx(whole)


def test_holm_raises_by_rank_and_keeps_order() -> None:
    assert holm(np.array([0.01, 0.04, 0.03, 0.005])) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm(np.array([0.9, 0.8])).tolist() == [1.0, 1.0]


def test_too_little_is_said() -> None:
    with pytest.raises(ValueError, match="no questions"):
        intervals(np.empty((0, 1)), mean)
    with pytest.raises(ValueError, match="too few"):
        intervals(np.ones((3, 1)), mean, resamples=10)
    with pytest.raises(ValueError, match="different questions"):
        compare(np.ones((3, 1)), np.ones((4, 1)), mean, ["m"])
