"""Agreement against published values, krippendorff and statsmodels, and brute force."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reviews import agreement, panel
from reviews.records import VoteRow, winner_of
from reviews.stats import wilson

REFERENCES = json.loads(Path(__file__).with_name("references.json").read_text(encoding="utf-8"))[
    "agreement"
]
KRIPPENDORFF_2011 = """1 2 3 3 2 1 4 1 2 . . . / 1 2 3 3 2 2 4 1 2 5 . 3
/ . 3 3 3 2 3 4 2 2 5 1 . / 1 2 3 3 2 4 4 1 2 5 1 ."""
PACKAGE = """. . . . . 3 4 1 2 1 1 3 3 . 3 / 1 . 2 1 3 3 4 3 . . . . . . .
/ . . 2 1 3 4 4 . 2 1 1 3 3 . 4"""
FLEISS = """0 0 0 0 14; 0 2 6 4 2; 0 0 3 5 6; 0 3 9 2 0; 2 2 8 1 1; 7 7 0 0 0; 3 2 6 3 0; 2 5 3 2 2;
6 5 2 1 0; 0 2 2 3 7"""


def table(text: str) -> Any:
    """Categories are written from 1 and stored from 0; a point is a missing rating."""
    return np.array(
        [[np.nan if x == "." else float(x) - 1 for x in row.split()] for row in text.split("/")]
    )


def given(rows: list[list[int | None]]) -> Any:
    return np.array([[np.nan if x is None else float(x) for x in row] for row in rows])


def ratings_of(counts: list[list[int]]) -> tuple[Any, Any]:
    cells = [(i, j) for i, row in enumerate(counts) for j, n in enumerate(row) for _ in range(n)]
    return tuple(np.array(cells, float).T)  # type: ignore[return-value]


def vote(rater: int, unit: str, choice: Any, left_is: Any = "a", seconds: float = 9.0) -> VoteRow:
    return VoteRow(
        assignment_id=f"{rater}{unit}", comparison_id=unit, rater=rater, study="s", kind="prepared",
        contestant_a="x", contestant_b="y", choice=choice, winner=winner_of(choice, left_is),
        left_is=left_is, turns=1, department="", intent="", language="zh", external_id="", source="",
        reason="", ratings={}, seconds=seconds, revisions=1, at=datetime(2026, 1, 1, tzinfo=UTC),
    )  # fmt: skip


def panel_votes(seed: int = 1, raters: int = 5, units: int = 40) -> list[VoteRow]:
    rng = np.random.default_rng(seed)
    votes = []
    truth = rng.choice(["a", "b", "tie"], units)
    for rater, unit in itertools.product(range(1, raters + 1), range(units)):
        if rng.random() < 0.25:
            continue
        winner = (
            str(truth[unit])
            if rng.random() < 0.7
            else str(rng.choice(["a", "b", "tie", "both_bad"]))
        )
        left_is = str(rng.choice(["a", "b"]))
        choice = (
            winner if winner in ("tie", "both_bad") else "left" if winner == left_is else "right"
        )
        votes.append(vote(rater, f"c{unit:02d}", choice, left_is))
    return votes


@pytest.mark.parametrize(
    ("text", "level", "value"),
    [
        (KRIPPENDORFF_2011, "nominal", 0.743), (KRIPPENDORFF_2011, "ordinal", 0.815),
        (KRIPPENDORFF_2011, "interval", 0.849), (PACKAGE, "nominal", 0.691),
        (PACKAGE, "ordinal", 0.807), (PACKAGE, "interval", 0.811),
    ],
)  # fmt: skip
def test_alpha_is_the_published_one(text: str, level: Any, value: float) -> None:
    assert agreement.krippendorff(table(text), level).value == pytest.approx(value, abs=5e-4)


@pytest.mark.parametrize("level", ["nominal", "ordinal", "interval"])
def test_alpha_is_the_packages(level: Any) -> None:
    found = agreement.krippendorff(given(REFERENCES["ratings"]), level)
    assert found.value == pytest.approx(REFERENCES["alpha"][level], abs=1e-12)


def test_alpha_by_counting_every_pair() -> None:
    ratings = given(REFERENCES["ratings"])
    pooled: list[float] = []
    observed = weight = 0.0
    for column in ratings.T:
        values = column[~np.isnan(column)]
        if len(values) < 2:
            continue
        pooled += list(values)
        weight += len(values)
        observed += sum(a != b for a, b in itertools.permutations(values, 2)) / (len(values) - 1)
    expected = sum(a != b for a, b in itertools.permutations(pooled, 2)) / (len(pooled) - 1)
    assert agreement.krippendorff(ratings).value == pytest.approx(1 - observed / expected)
    assert weight == len(pooled)


@pytest.mark.parametrize("weights", ["none", "linear", "quadratic"])
def test_cohens_kappa_is_that_of_statsmodels(weights: Any) -> None:
    full = given(REFERENCES["full"])
    found = agreement.cohen(full[0], full[1], weights)
    assert found.value == pytest.approx(REFERENCES["cohen"][weights], abs=1e-12)
    assert agreement.cohen(full[1], full[0], weights).value == pytest.approx(found.value)


def test_fleiss_kappa_is_the_published_one_and_that_of_statsmodels() -> None:
    counts = np.array([[int(x) for x in row.split()] for row in FLEISS.split(";")], float)
    assert agreement.fleiss(counts).value == pytest.approx(0.20993, abs=5e-6)
    full = agreement.category_counts(given(REFERENCES["full"]), 4)
    assert agreement.fleiss(full).value == pytest.approx(REFERENCES["fleiss"], abs=1e-12)


def test_a_rare_flag_drags_kappa_down_and_not_ac1() -> None:
    one, two = ratings_of([[949, 20], [0, 31]])
    both = np.stack([one, two])
    assert agreement.raw_agreement(both) == pytest.approx(0.98)
    assert agreement.cohen(one, two).value == pytest.approx(0.7463, abs=5e-5)
    assert agreement.gwet(both, 2).value == pytest.approx(0.9783, abs=5e-5)
    assert float(agreement.kappa_of(np.array([[20.0, 5], [10, 15]]))) == pytest.approx(0.4)


def test_perfect_and_total_disagreement() -> None:
    same = np.tile([0.0, 1, 2, 0, 1, 2], (3, 1))
    for found in (agreement.krippendorff(same), agreement.cohen(same[0], same[1]), agreement.gwet(same, 3)):  # fmt: skip
        assert found.value == pytest.approx(1)
    crossed = np.array([[0.0, 1, 0, 1], [1.0, 0, 1, 0]])
    assert agreement.cohen(*crossed).value == pytest.approx(-1)
    assert agreement.krippendorff(crossed).value < 0
    assert agreement.raw_agreement(crossed) == 0


def test_what_is_not_defined_is_nan_and_says_so() -> None:
    rng = np.random.default_rng(1)
    lonely = np.array([[0.0, np.nan], [np.nan, 1.0]])
    for ratings in (lonely, np.zeros((3, 4)), np.full((2, 3), np.nan)):
        found = agreement.krippendorff(ratings, rng=rng)
        assert math.isnan(found.value) and math.isnan(found.low)
    assert math.isnan(agreement.raw_agreement(lonely))
    assert math.isnan(agreement.cohen(np.zeros(5), np.zeros(5), rng=rng).value)
    assert math.isnan(agreement.cohen(lonely[0], lonely[1], rng=rng).value)
    assert math.isnan(agreement.gwet(np.full((2, 3), np.nan), 2).value)
    assert math.isnan(agreement.fleiss(np.array([[3.0, 0], [3, 0]])).value)
    assert agreement.krippendorff(lonely).units == 0


def test_bad_ratings_are_refused() -> None:
    for bad in (np.array([0.0, 1]), np.array([[0.5, 1]]), np.array([[-1.0, 1]])):
        with pytest.raises(ValueError):
            agreement.krippendorff(bad)
    with pytest.raises(ValueError, match="categories"):
        agreement.gwet(np.array([[3.0], [1]]), 2)
    with pytest.raises(ValueError, match="two categories"):
        agreement.gwet(np.zeros((2, 2)), 1)
    with pytest.raises(ValueError, match="equal rows"):
        agreement.cohen(np.zeros(2), np.zeros(3))
    for counts in (np.array([[2.0, 1], [1, 1]]), np.ones((2, 1)), np.zeros((0, 2))):
        with pytest.raises(ValueError):
            agreement.fleiss(counts)


def test_the_order_of_raters_and_units_changes_nothing() -> None:
    ratings = given(REFERENCES["ratings"])
    mixed = ratings[::-1][:, np.random.default_rng(2).permutation(60)]
    for level in ("nominal", "ordinal"):
        assert agreement.krippendorff(mixed, level).value == pytest.approx(  # type: ignore[arg-type]
            agreement.krippendorff(ratings, level).value, abs=1e-12  # type: ignore[arg-type]
        )  # fmt: skip
    renamed = np.where(np.isnan(ratings), np.nan, 3 - ratings)
    assert agreement.krippendorff(renamed, "ordinal").value == pytest.approx(
        agreement.krippendorff(ratings, "ordinal").value
    )


def test_an_interval_draws_whole_units_and_covers() -> None:
    ratings = given(REFERENCES["ratings"])
    found = agreement.krippendorff(ratings, rng=np.random.default_rng(3), replicates=200)
    each = []
    rng = np.random.default_rng(3)
    paired = ratings[:, (~np.isnan(ratings)).sum(axis=0) > 1]
    for weights in rng.multinomial(paired.shape[1], np.full(paired.shape[1], 1 / paired.shape[1]), 200):  # fmt: skip
        each.append(agreement.krippendorff(np.repeat(paired, weights, axis=1)).value)
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(each, [0.025, 0.975])))
    assert found.low < found.value < found.high


@pytest.mark.slow
def test_intervals_of_kappa_cover_the_truth() -> None:
    chance = np.array([0.4, 0.3, 0.3])
    agreed, hits = 0.5, 0
    for seed in range(300):
        rng = np.random.default_rng(seed)
        one = rng.choice(3, 150, p=chance)
        two = np.where(rng.random(150) < agreed, one, rng.choice(3, 150, p=chance))
        found = agreement.cohen(one.astype(float), two.astype(float), rng=rng, replicates=400)
        hits += found.low <= agreed <= found.high
    assert 0.91 <= hits / 300 <= 0.98


def test_votes_are_turned_back_before_they_are_compared() -> None:
    votes = [vote(1, "c1", "left", "a"), vote(2, "c1", "right", "b"), vote(3, "c1", "left", "b")]
    found = panel.matrix(votes)
    assert found.ratings[:, 0].tolist() == [2, 2, 0]
    assert (found.raters, found.units) == ((1, 2, 3), ("c1",))
    bad = [vote(1, "c1", "both_bad")]
    assert panel.matrix(bad).ratings[0, 0] == 3
    assert panel.matrix(bad, both_bad_is_tie=True).ratings[0, 0] == 1


def test_x6_swapping_sides_and_mixing_votes_changes_no_agreement() -> None:
    votes = panel_votes()
    other = {"left": "right", "right": "left"}
    swapped = [
        dataclasses.replace(
            v, choice=other.get(v.choice, v.choice), left_is="b" if v.left_is == "a" else "a"
        )
        for v in votes
    ]
    mixed = [votes[i] for i in np.random.default_rng(4).permutation(len(votes))]
    assert np.array_equal(
        panel.matrix(swapped).ratings, panel.matrix(votes).ratings, equal_nan=True
    )
    for other_votes in (swapped, mixed):
        for one, two in zip(panel.reliability(votes), panel.reliability(other_votes), strict=True):
            assert (one.rater, one.shared) == (two.rater, two.shared)
            assert one.kappa == pytest.approx(two.kappa) and one.agreement == two.agreement
    for one, two in zip(panel.reliability(votes), panel.reliability(swapped), strict=True):
        assert one.left.value == pytest.approx(1 - two.left.value)


def test_reliability_is_counted_by_hand() -> None:
    votes = panel_votes(2)
    by_unit: dict[str, dict[int, str]] = {}
    for v in votes:
        by_unit.setdefault(v.comparison_id, {})[v.rater] = v.winner
    for found in panel.reliability(votes):
        rates = [
            sum(w == mine[found.rater] for r, w in mine.items() if r != found.rater)
            / (len(mine) - 1)
            for mine in by_unit.values()
            if found.rater in mine and len(mine) > 1
        ]
        assert found.shared == len(rates)
        assert found.agreement.value == pytest.approx(np.mean(rates))
        interval = wilson(sum(rates), len(rates))
        assert (found.agreement.low, found.agreement.high) == pytest.approx(interval)
        assert 0 < found.kappa < found.agreement.value
        assert found.seconds == 9.0


def test_a_careless_rater_stands_out() -> None:
    rng = np.random.default_rng(5)
    votes = [v for v in panel_votes(3, raters=6) if v.rater != 6]
    votes += [vote(6, f"c{u:02d}", str(rng.choice(["left", "right", "tie"])), "ab"[u % 2]) for u in range(40)]  # fmt: skip
    found = panel.reliability(votes)
    assert min(found, key=lambda r: r.kappa).rater == 6
    assert panel.reliability([vote(1, "c1", "left")])[0].shared == 0
    assert panel.reliability([]) == []


def test_gold_pairs_and_repeats() -> None:
    votes = [
        vote(1, "g1", "left"),
        vote(1, "g2", "right"),
        vote(2, "g1", "tie"),
        vote(3, "c", "tie"),
    ]
    found = panel.gold(votes, {"g1": "a", "g2": "b"})
    assert (found[1].value, found[1].n, found[2].value) == (1, 2, 0)
    assert math.isnan(found[3].value) and (found[3].low, found[3].high) == (0, 1)
    with pytest.raises(ValueError, match="winner"):
        panel.gold(votes, {"g1": "left"})
    repeat = [(vote(1, "c", "left", "a"), vote(1, "c", "right", "b")), (vote(1, "d", "left", "a"), vote(1, "d", "left", "b"))]  # fmt: skip
    assert panel.consistency(repeat).value == 0.5


def test_a_judge_as_good_as_a_physician_has_no_gap_and_a_careless_one_has() -> None:
    rng = np.random.default_rng(6)
    truth = rng.integers(0, 3, 400)
    ratings = np.where(rng.random((6, 400)) < 0.7, truth, rng.integers(0, 3, (6, 400))).astype(
        float
    )
    physicians, good = ratings[:5].copy(), ratings[5]
    physicians[rng.random((5, 400)) < 0.4] = np.nan
    found = panel.judge(physicians, good, rng)
    assert found.gap.low < 0 < found.gap.high
    assert found.ceiling_kappa.low < 0.49 < found.ceiling_kappa.high  # 0.7 squared
    poor = panel.judge(physicians, rng.integers(0, 3, 400).astype(float), rng)
    assert poor.gap.high < 0 and abs(poor.kappa.value) < 0.15
    mixed = np.random.default_rng(7).permutation(400)
    again = panel.judge(physicians[::-1][:, mixed], good[mixed], rng)
    assert again.kappa.value == pytest.approx(found.kappa.value)


def test_a_judge_by_hand() -> None:
    physicians = np.array([[0, 0, 1, np.nan], [0, 1, 1, 0], [1, 0, 1, np.nan]], float)
    found = panel.judge(physicians, np.array([0, 1, 1, 0], float), np.random.default_rng(1))
    assert found.agreement.units == 3  # the last has one physician only
    assert found.agreement.value == pytest.approx((2 / 3 + 1 / 3 + 1) / 3)
    assert found.ceiling.value == pytest.approx((1 / 3 + 1 / 3 + 1) / 3)
    nothing = panel.judge(np.full((2, 3), np.nan), np.zeros(3), np.random.default_rng(1))
    assert math.isnan(nothing.gap.value) and nothing.gap.units == 0
    with pytest.raises(ValueError, match="shapes"):
        panel.judge(physicians, np.zeros(3), np.random.default_rng(1))
