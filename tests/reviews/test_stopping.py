"""Stopping: e-values against scipy and brute force, false alarms under looking, missing votes."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from reviews import stopping
from reviews.stopping import confidence_sequence, evidence, log_e

REFERENCES = json.loads(Path(__file__).with_name("references.json").read_text(encoding="utf-8"))


def test_the_e_value_is_the_published_one_and_scipys() -> None:
    for wins, losses, expected in ((10, 0, 93.0909), (30, 10, 31.6369), (60, 40, 0.91305)):
        assert math.exp(log_e(wins, losses)) == pytest.approx(expected, rel=1e-5)
    for wins, losses, expected, p in REFERENCES["log_e"]:
        assert log_e(wins, losses, p) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("p", [0.2, 0.5, 0.77])
def test_its_expected_value_is_one_when_nothing_is_there(p: float) -> None:
    n = 30
    total = sum(math.comb(n, w) * p**w * (1 - p) ** (n - w) * math.exp(log_e(w, n - w, p)) for w in range(n + 1))  # fmt: skip
    assert total == pytest.approx(1)


def test_the_interval_is_what_the_e_value_does_not_reject_and_mirrors() -> None:
    for wins, losses in ((0, 5), (5, 0), (12, 12), (60, 40), (300, 10)):
        low, high = confidence_sequence(wins, losses)
        assert confidence_sequence(losses, wins) == pytest.approx((1 - high, 1 - low))
        assert low <= wins / (wins + losses) <= high
        for end in (low, high):
            if 0 < end < 1:
                assert log_e(wins, losses, end) == pytest.approx(math.log(20), abs=1e-6)
    assert confidence_sequence(0, 0) == (0, 1)


def test_decisions() -> None:
    assert evidence(0, 0).decision == "open"
    assert evidence(10, 0).decision == "first" and evidence(0, 10).decision == "second"
    assert evidence(60, 40).decision == "open"
    assert evidence(2000, 2010).decision == "equal"
    assert evidence(9, 0).decision == "first"
    assert evidence(9, 0, comparisons=20).decision == "open"  # of twenty pairs one does that
    for wins, losses in ((30, 10), (25, 15)):
        assert (evidence(wins, losses).decision == "first") == (log_e(wins, losses) >= math.log(20))


@pytest.mark.parametrize("bad", [(-1, 0, 0.5), (1, 1, 0.0), (1, 1, 1.0)])
def test_bad_counts_are_refused(bad: tuple[int, int, float]) -> None:
    with pytest.raises(ValueError):
        log_e(*bad)
    with pytest.raises(ValueError):
        log_e(1, 1, prior=0)


def test_looking_after_every_vote_gives_at_most_five_false_alarms_in_a_hundred() -> None:
    rng, n = np.random.default_rng(1), np.arange(1, 301)
    wins = np.cumsum(rng.random((2000, 300)) < 0.5, axis=1)
    table = np.array([[log_e(w, m - w) if w <= m else 0 for w in range(301)] for m in n])
    e_value = table[n - 1, wins] >= math.log(20)
    ordinary = np.abs(2 * wins - n) >= 1.96 * np.sqrt(n)
    assert e_value.any(axis=1).mean() <= 0.05
    assert ordinary[:, 19:].any(axis=1).mean() > 0.2


def test_raters_with_habits_deceive_the_vote_test_and_not_the_rater_test() -> None:
    rng, looks = np.random.default_rng(2), 500
    own = 1 / (1 + np.exp(-rng.normal(0, 1.0, (looks, 12))))  # no difference among all physicians
    wins = rng.binomial(30, own)
    rater = [
        any(stopping.rater_log_e((2 * row[:g] / 30 - 1).tolist()) >= math.log(20) for g in range(1, 13))
        for row in wins
    ]  # fmt: skip
    vote = [log_e(int(w), 360 - int(w)) >= math.log(20) for w in wins.sum(axis=1)]
    assert np.mean(rater) <= 0.05 < np.mean(vote)


def test_the_rater_test_finds_what_all_agree_on() -> None:
    assert stopping.rater_log_e([]) == pytest.approx(0)
    assert stopping.rater_log_e([1.0] * 6) < math.log(20) <= stopping.rater_log_e([1.0] * 7)
    assert stopping.rater_log_e([0.5] * 20) > math.log(20)
    one, two = stopping.rater_log_e([0.5, -0.2, 0.3]), stopping.rater_log_e([-0.3, -0.5, 0.2])
    assert one == pytest.approx(two)
    for x in (1.5, math.nan):
        with pytest.raises(ValueError):
            stopping.rater_log_e([x])


def test_missing_votes_grow_with_the_design_effect() -> None:
    plain = stopping.missing(42, 28, 30)
    assert plain.needed == pytest.approx(392, rel=0.05) and plain.more == plain.needed - 100
    effect = stopping.design_effect(25, 0.1)
    assert effect == pytest.approx(3.4)
    assert stopping.missing(42, 28, 30, effect=effect).needed == math.ceil(plain.needed * effect)
    assert stopping.missing(91, 3, 6).more == 0
    assert stopping.missing(30, 40, 30) == stopping.Missing(None, None, 1.0)
    assert stopping.design_effect(1, 0.5) == stopping.design_effect(30, -0.1) == 1


def test_a_raters_votes_correlate_as_much_as_they_were_made_to() -> None:
    rng = np.random.default_rng(3)
    found = []
    for _ in range(200):
        own = rng.beta(4.5, 4.5, 20)  # correlation 1 / (4.5 + 4.5 + 1)
        wins = rng.binomial(30, own)
        found.append(stopping.rater_correlation(wins.tolist(), (30 - wins).tolist()))
    assert np.mean(found) == pytest.approx(0.1, abs=0.01)
    assert stopping.rater_correlation([3], [4]) == 0
    assert stopping.rater_correlation([1, 0], [0, 1]) == 0
    assert stopping.rater_correlation([10, 0], [0, 10]) == pytest.approx(1)


def test_what_so_many_votes_can_settle_is_right_by_exact_power() -> None:
    share = stopping.detectable(200)
    critical = next(w for w in range(100, 201) if 2 * sum(math.comb(200, k) for k in range(w, 201)) / 2**200 <= 0.05)  # fmt: skip
    power = sum(
        math.comb(200, k) * share**k * (1 - share) ** (200 - k) for k in range(critical, 201)
    )
    assert power == pytest.approx(0.8, abs=0.04)
    assert stopping.detectable(400, tie_share=0.5) == pytest.approx(share)
    assert stopping.detectable(400, effect=2) == pytest.approx(share)
    assert stopping.detectable(0) == 1
    with pytest.raises(ValueError):
        stopping.detectable(10, tie_share=1)
