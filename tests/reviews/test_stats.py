"""Statistics against published values, and what must hold for any votes."""

from __future__ import annotations

import dataclasses
import gc
import itertools
import math
import random
import tracemalloc
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest

from reviews import stats
from reviews.intervals import t_quantile
from reviews.people import People
from reviews.ranking import davidson
from reviews.records import CHOICES, PreparedPair, PreparedTurn, VoteRow, winner_of
from reviews.stats import Board, board, pairs, wilson
from reviews.store import Store
from reviews.tally import Cells
from tests.patience import cpu_seconds

PUDDING = """1,2,19,22,16; 1,3,16,19,12; 2,3,19,19,10; 1,4,18,23,13; 2,4,23,19,9; 3,4,19,20,15;
1,5,13,19,18; 2,5,16,20,12; 3,5,16,15,17; 4,5,17,14,16; 1,6,18,21,12; 2,6,22,20,12; 3,6,13,18,10;
4,6,14,19,18; 5,6,11,21,12"""


def vote(
    a: str, b: str, choice: Any, *, left_is: Any = "a", rater: int = 1, case: str = "", n: int = 0
) -> VoteRow:
    return VoteRow(
        assignment_id=f"{n:032x}", comparison_id=f"c{n}", rater=rater, study="s", kind="prepared",
        contestant_a=a, contestant_b=b, choice=choice, winner=winner_of(choice, left_is),
        left_is=left_is, turns=1, department="", intent="", language="zh", external_id=case or f"c{n}",
        source="", reason="", ratings={}, seconds=None, revisions=1, at=datetime(2026, 1, 1, tzinfo=UTC),
    )  # fmt: skip


def simulate(
    seed: int, n: int, theta: Sequence[float], beta: float = 0.0, nu: float = 0.8,
    raters: int = 12, spread: float = 0.0,
) -> list[VoteRow]:  # fmt: skip
    """Davidson votes with rater effects on every score difference."""
    rng = np.random.default_rng(seed)
    names = [f"m{i}" for i in range(len(theta))]
    duels = list(itertools.combinations(range(len(theta)), 2))
    lean = rng.normal(0, spread, (raters, len(theta))) if spread else np.zeros((raters, len(theta)))
    votes = []
    for i in range(n):
        a, b = duels[int(rng.random() * len(duels))]
        rater, left_is = int(rng.random() * raters), "ab"[rng.random() < 0.5]
        left, right = (a, b) if left_is == "a" else (b, a)
        d = theta[left] - theta[right] + lean[rater, left] - lean[rater, right] + beta
        weights = (math.exp(d / 2), nu, math.exp(-d / 2))
        at = rng.random() * sum(weights)
        choice = "left" if at < weights[0] else "tie" if at < weights[0] + nu else "right"
        votes.append(vote(names[a], names[b], choice, left_is=left_is, rater=rater + 1, n=i))
    return votes


def scores(found: Board) -> dict[str, float]:
    return {r.name: r.score.value for r in found.ratings}


def is_finite(found: Board) -> bool:
    numbers = [
        x for r in found.ratings for x in (r.score.value, r.score.error, r.score.low, r.score.high)
    ]
    if found.side_effect is not None:
        numbers += dataclasses.astuple(found.side_effect)
    return all(math.isfinite(x) for x in [*numbers, found.tie])


def test_davidsons_own_example_comes_out() -> None:
    rows = np.array([[int(x) for x in row.split(",")] for row in PUDDING.split(";")])
    counts = rows[:, [2, 4, 3]].astype(float)
    fit = davidson(Cells(rows[:, 0] - 1, rows[:, 1] - 1, 6), counts, side=False)
    worth = np.exp(fit.scores) / np.exp(fit.scores).sum()
    expected = [0.1388034, 0.1730015, 0.1617474, 0.1653729, 0.1586854, 0.2023893]
    assert np.abs(worth - expected).max() < 1e-4
    assert fit.tie == pytest.approx(0.7468230, abs=1e-4)
    assert fit.log_likelihood == pytest.approx(-809.70951, abs=1e-3)


@pytest.mark.parametrize(
    ("wins", "n", "low", "high"),
    [
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0, 0.1611),
        (54, 84, 0.536, 0.737),
    ],
)
def test_wilson_matches_newcombe(wins: int, n: int, low: float, high: float) -> None:
    assert wilson(wins, n) == pytest.approx((low, high), abs=6e-4 if n == 84 else 6e-5)
    mirrored = wilson(n - wins, n)
    assert mirrored == pytest.approx((1 - wilson(wins, n)[1], 1 - wilson(wins, n)[0]))


def test_wilson_at_the_edges() -> None:
    assert wilson(0, 0) == (0.0, 1.0)
    assert wilson(5, 5)[1] == 1.0
    assert wilson(0, 5)[0] == 0.0


@pytest.mark.parametrize(
    ("df", "value"),
    [
        (1, 12.7062),
        (2, 4.3027),
        (3, 3.1824),
        (4, 2.7764),
        (5, 2.5706),
        (11, 2.2010),
        (30, 2.0423),
        (500, 1.9600),
    ],
)
def test_students_quantiles(df: int, value: float) -> None:
    assert t_quantile(df) == pytest.approx(value, abs=1e-4)


def test_pairs_count_from_the_first_names_view() -> None:
    votes = [
        vote("x", "y", "left", left_is="b"),
        vote("y", "x", "left", left_is="a"),
        vote("x", "y", "right", left_is="b"),
        vote("x", "y", "tie"),
        vote("y", "x", "both_bad"),
    ]
    (pair,) = pairs(votes)
    assert (pair.first, pair.second) == ("x", "y")
    assert (pair.wins, pair.ties, pair.losses, pair.both_bad, pair.total) == (1, 1, 2, 1, 5)
    assert pair.win_interval == wilson(1, 5)
    assert pair.decisive_interval == wilson(1, 3)
    assert pairs([]) == []


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_scores_side_and_ties_are_recovered(seed: int) -> None:
    theta = [0.8, 0.2, -0.3, -0.7]
    found = board(simulate(seed, 8000, theta, beta=0.3))
    assert found.side_effect is not None
    for i, value in enumerate(theta):
        assert scores(found)[f"m{i}"] == pytest.approx(value, abs=0.12)
    assert found.side_effect.value == pytest.approx(0.3, abs=0.1)
    assert found.side_effect.low > 0
    assert found.tie == pytest.approx(0.8, abs=0.08)
    assert [r.name for r in found.ratings] == ["m0", "m1", "m2", "m3"]
    assert found.ratings[0].rank == 1 and found.notes == ()


def test_x6_swapping_every_side_only_turns_the_side_effect_round() -> None:
    votes = simulate(5, 400, [0.5, 0.0, -0.5], beta=0.2, raters=8, spread=0.3)
    other = {"left": "right", "right": "left"}
    swapped = [
        dataclasses.replace(
            v, choice=other.get(v.choice, v.choice), left_is="b" if v.left_is == "a" else "a"
        )
        for v in votes
    ]
    one, two = board(votes), board(swapped)
    assert one.side_effect is not None and two.side_effect is not None
    assert two.side_effect.value == pytest.approx(-one.side_effect.value, abs=1e-8)
    assert two.side_effect.low == pytest.approx(-one.side_effect.high, abs=1e-8)
    for r, s in zip(one.ratings, two.ratings, strict=True):
        assert (r.name, r.rank) == (s.name, s.rank)
        assert dataclasses.astuple(r.score) == pytest.approx(dataclasses.astuple(s.score), abs=1e-8)
    assert pairs(votes) == pairs(swapped)


def test_x6_the_order_of_votes_and_of_a_and_b_changes_nothing() -> None:
    votes = simulate(6, 300, [0.4, 0.0, -0.4], beta=0.1, raters=3)
    mixed = [
        dataclasses.replace(
            v,
            contestant_a=v.contestant_b,
            contestant_b=v.contestant_a,
            left_is="b" if v.left_is == "a" else "a",
            winner={"a": "b", "b": "a"}.get(v.winner, v.winner),
        )
        if i % 3
        else v
        for i, v in enumerate(votes)
    ]
    random.Random(1).shuffle(mixed)
    one, two = board(votes), board(mixed)
    for r, s in zip(one.ratings, two.ratings, strict=True):
        assert r.name == s.name
        assert dataclasses.astuple(r.score) == pytest.approx(dataclasses.astuple(s.score), abs=1e-8)
    assert pairs(votes) == pairs(mixed)


def test_x6_new_names_only_rename() -> None:
    votes = simulate(7, 300, [0.4, 0.0, -0.4])
    names = {"m0": "z", "m1": "a", "m2": "k"}
    renamed = [
        dataclasses.replace(
            v, contestant_a=names[v.contestant_a], contestant_b=names[v.contestant_b]
        )
        for v in votes
    ]
    before = {names[k]: v for k, v in scores(board(votes)).items()}
    assert scores(board(renamed)) == pytest.approx(before, abs=1e-8)


def test_x5_no_votes_give_an_empty_board() -> None:
    found = board([])
    assert (found.ratings, found.votes, found.notes) == ((), 0, ("no_votes",))


def test_x5_one_vote_is_finite_and_wide() -> None:
    found = board([vote("x", "y", "left")])
    assert is_finite(found)
    assert "one_cluster" in found.notes
    (first, second) = found.ratings
    assert first.rank == second.rank == 1
    assert first.score.low < 0 < first.score.high


@pytest.mark.parametrize("choice", ["tie", "both_bad"])
def test_x5_only_ties_are_finite_and_equal(choice: str) -> None:
    found = board(
        [vote("x", "y", choice, rater=i % 6, left_is="ab"[i % 2], n=i) for i in range(30)]
    )
    assert is_finite(found)
    assert scores(found) == pytest.approx({"x": 0, "y": 0}, abs=1e-9)
    assert pairs([vote("x", "y", choice)])[0].win_interval[0] == 0


@pytest.mark.parametrize("raters", [1, 3, 6])
def test_x5_twelve_of_twelve_wins_are_finite_with_an_honest_interval(raters: int) -> None:
    votes = [
        vote(
            "x", "y", "left" if i % 2 else "right", left_is="ab"[(i + 1) % 2], rater=i % raters, n=i
        )
        for i in range(12)
    ]
    assert {v.winner for v in votes} == {"a"}
    found = board(votes)
    assert is_finite(found)
    assert "separated" in found.notes
    assert found.ratings[0].name == "x"
    score = found.ratings[0].score
    assert score.value > 0.5
    assert score.high - score.low > 1.0


def test_x5_a_ladder_of_clean_wins_is_finite() -> None:
    votes = [
        vote(f"m{i}", f"m{i + 1}", "left", rater=n % 7, n=n) for i in range(3) for n in range(10)
    ]
    found = board(votes)
    assert is_finite(found)
    assert [r.name for r in found.ratings] == ["m0", "m1", "m2", "m3"]


def test_x5_unconnected_contestants_are_not_comparable() -> None:
    votes = [
        vote("a", "b", ("left", "right", "tie")[i % 3], left_is="ab"[i % 2], rater=i % 6, n=i)
        for i in range(24)
    ] + [
        vote(
            "c", "d", ("left", "right", "left")[i % 3], left_is="ab"[i % 2], rater=i % 6, n=100 + i
        )
        for i in range(24)
    ]
    found = board(votes)
    assert "not_comparable" in found.notes
    assert found.groups == (("a", "b"), ("c", "d"))
    assert is_finite(found)
    for group in (0, 1):
        mine = [r for r in found.ratings if r.group == group]
        assert sum(r.score.value for r in mine) == pytest.approx(0, abs=1e-9)
        assert min(r.rank for r in mine) == 1


def test_few_raters_are_clustered_by_case_and_said_so() -> None:
    votes = simulate(9, 200, [0.3, -0.3], raters=4)
    found = board(votes)
    assert (found.clustered_by, found.raters) == ("case", 4)
    assert "few_raters" in found.notes
    assert board(simulate(9, 200, [0.3, -0.3], raters=5)).clustered_by == "rater"


def test_intervals_by_rater_cover_and_naive_ones_would_not() -> None:
    covered, naive, runs = 0, 0, 200
    for seed in range(runs):
        votes = simulate(seed, 360, [0.0, 0.0], raters=6, spread=0.42)
        found = board(votes)
        score = found.ratings[0].score
        covered += score.low <= 0 <= score.high
        alone = [dataclasses.replace(v, rater=i) for i, v in enumerate(votes)]
        score = board(alone).ratings[0].score
        naive += score.low <= 0 <= score.high
    assert 0.90 <= covered / runs <= 0.99
    assert naive / runs < 0.8


def test_both_bad_counts_as_a_tie_in_scores_and_apart_in_pairs() -> None:
    votes = simulate(3, 200, [0.5, -0.5])
    bad = [dataclasses.replace(v, choice="both_bad", winner="both_bad") if v.choice == "tie" else v for v in votes]  # fmt: skip
    assert scores(board(bad)) == pytest.approx(scores(board(votes)), abs=1e-12)
    assert pairs(bad)[0].both_bad == pairs(votes)[0].ties > 0


def test_how_many_votes_are_needed() -> None:
    for (wins, ties, losses), expected in {
        (50, 19, 31): 180, (39, 27, 34): 2310, (35, 32, 33): 13362, (22, 24, 54): 58,
        (42, 28, 30): 392, (52, 14, 34): 212, (54, 16, 30): 112,
    }.items():  # fmt: skip
        assert stats.votes_needed(wins, ties, losses) == pytest.approx(expected, rel=0.05)
    assert stats.votes_needed(5, 3, 5) is None
    assert stats.votes_needed(0, 9, 0) is None


def test_k18_a_hundred_thousand_votes_are_scored_within_a_second_or_so() -> None:
    rng = np.random.default_rng(1)
    names = [f"m{i}" for i in range(20)]
    chosen = rng.choice(["left", "right", "tie"], 100_000)
    who = rng.integers(0, 200, 100_000)
    duels = list(itertools.combinations(names, 2))
    picks = rng.integers(0, len(duels), 100_000)
    votes = [
        vote(*duels[p], str(c), rater=int(r), left_is="ab"[i % 2], n=i)
        for i, (p, c, r) in enumerate(zip(picks, chosen, who, strict=True))
    ]
    assert cpu_seconds(lambda: (board(votes), pairs(votes)), 3) < 3  # about 0.6 on a free core
    assert len(board(votes).ratings) == 20 and len(pairs(votes)) == 190


@pytest.mark.parametrize("raters", [3, 7])
def test_counted_votes_say_what_the_votes_say(store: Store, people: People, raters: int) -> None:
    rng = random.Random(raters)
    for study, names in (("one", ("x", "y", "z")), ("two", ("x", "w"))):
        for number, (a, b) in enumerate(itertools.combinations(names, 2)):
            turn = (PreparedTurn("问", "甲", "乙"),)
            filed = [PreparedPair(f"c{i}", a, b, turn) for i in range(4 + number)]
            store.add_prepared(study, filed, "x")
    for number in range(raters):
        rater = people.add_user(f"r{number}", "physician", "h", "x").id
        for study in ("one", "two"):
            while (given := store.next_prepared(rater, study)) is not None:
                if rng.random() < 0.1:
                    store.skip(given.id, rater)
                    continue
                for revision in range(rng.choice([1, 1, 2, 3])):
                    choice = rng.choice(CHOICES)
                    store.cast_vote(given.id, rater, choice, revise=revision > 0)
    for study in (None, "one", "two", "nothing"):
        votes = store.votes(study)
        counted, cases, _ = store.counted_votes(study)
        assert sum(count.votes for count in counted) == len(votes)
        assert cases == len({v.comparison_id for v in votes})
        assert {count.study for count in counted} == {v.study for v in votes}
        assert pairs(counted) == pairs(votes)
        one, two = board(votes), board(counted)
        assert one == dataclasses.replace(
            two, ratings=one.ratings, side_effect=one.side_effect, tie=one.tie
        )
        assert two.tie == pytest.approx(one.tie)
        for r, s in zip(one.ratings, two.ratings, strict=True):
            assert (r.name, r.votes, r.group, r.rank) == (s.name, s.votes, s.group, s.rank)
            assert dataclasses.astuple(r.score) == pytest.approx(dataclasses.astuple(s.score))
        if one.side_effect is not None and two.side_effect is not None:
            effects = (one.side_effect, two.side_effect)
            first, second = (dataclasses.astuple(effect) for effect in effects)
            assert first == pytest.approx(second)


def test_k18_counting_again_and_again_keeps_no_memory(
    store: Store, people: People, make_pair: Any
) -> None:
    store.add_prepared("s", [make_pair(i) for i in range(40)], "x")
    rater = people.add_user("r", "physician", "h", "x").id
    while (given := store.next_prepared(rater, "s")) is not None:
        store.cast_vote(given.id, rater, "left")
    board(store.counted_votes().votes)
    tracemalloc.start()
    try:
        sizes = []
        for _ in range(30):
            counted = store.counted_votes().votes
            board(counted)
            pairs(counted)
            gc.collect()
            sizes.append(tracemalloc.get_traced_memory()[0])
    finally:
        tracemalloc.stop()
    assert sizes[-1] - sizes[5] < 20_000  # bytes
