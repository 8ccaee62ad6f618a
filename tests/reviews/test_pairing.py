"""Active pairing: what it asks first, that it is balanced and seeded, and what it saves."""

from __future__ import annotations

import importlib.util
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reviews import pairing, ranking
from reviews.pairing import Offer, draw, gains
from reviews.tally import Cells

BENCHMARK = Path(__file__).resolve().parents[1] / "benchmarks" / "ranking.py"


def fitted(counts: dict[tuple[int, int], tuple[int, int, int]], models: int) -> ranking.Fit:
    left, right = (np.array(side) for side in zip(*counts, strict=True))
    return ranking.davidson(Cells(left, right, models), np.array(list(counts.values()), float))


def test_a_gain_is_what_the_loss_falls_by() -> None:
    fit = fitted({(0, 1): (8, 3, 4), (1, 2): (5, 4, 6), (2, 0): (3, 2, 9), (0, 3): (6, 1, 3)}, 4)
    centre = np.eye(4) - 1 / 4
    known = pairing.knowledge(fit)
    before = float(np.trace(centre @ np.linalg.inv(known)))
    found = gains(fit, aim="scores")
    worth = pairing.information(fit)
    for i in range(4):
        for j in range(i + 1, 4):
            x = np.eye(4)[i] - np.eye(4)[j]
            after = np.linalg.inv(known + worth[i, j] * np.outer(x, x))
            assert found[i, j] == pytest.approx((before - np.trace(centre @ after)) / before)
    assert (found == found.T).all() and (np.diag(found) == 0).all()


def test_knowledge_is_the_inverse_of_the_scores_covariance() -> None:
    fit = fitted({(0, 1): (8, 3, 4), (1, 0): (5, 4, 6), (1, 2): (5, 4, 6)}, 3)
    covariance = np.linalg.inv(fit.information)[:3, :3]
    assert np.linalg.inv(pairing.knowledge(fit)) == pytest.approx(covariance)


def test_a_newcomer_is_asked_about_first() -> None:
    fit = fitted({(0, 1): (8, 3, 4), (1, 2): (5, 4, 6), (2, 0): (3, 2, 9)}, 4)
    for aim in ("ranking", "scores"):
        found = gains(fit, aim=aim)  # type: ignore[arg-type]
        assert found[3, :3].min() > found[:3, :3].max()


def test_what_is_settled_is_asked_no_more() -> None:
    fit = fitted({(0, 1): (70, 5, 5), (1, 0): (5, 5, 70), (1, 2): (30, 20, 25), (2, 1): (20, 20, 30)}, 3)  # fmt: skip
    found = gains(fit)
    assert found[1, 2] == found.max() > 3 * found[0, 1]


def test_pairs_that_are_handed_out_already_count() -> None:
    fit = fitted({(0, 1): (8, 3, 4), (1, 2): (5, 4, 6), (2, 0): (3, 2, 9)}, 3)
    before = gains(fit, aim="scores")
    best = np.unravel_index(before.argmax(), before.shape)
    after = gains(fit, np.array([best] * 30), aim="scores")
    assert after[best] < before[best] / 2
    assert np.isfinite(after).all()


def test_no_votes_at_all_give_every_pair_the_same_gain() -> None:
    cells = Cells(np.array([0, 1, 2]), np.array([1, 2, 0]), 3)
    fit = ranking.davidson(cells, np.zeros((3, 3)))
    found = gains(fit)[np.triu_indices(3, 1)]
    assert found == pytest.approx(np.full(3, found[0])) and found[0] > 0


def offers(cases: int = 4, models: int = 3) -> list[Offer]:
    return [
        Offer(f"{a}{b}-{case}", a, b)
        for a in range(models)
        for b in range(a + 1, models)
        for case in range(cases)
    ]


def test_the_same_seed_draws_the_same_and_the_offers_order_is_nothing() -> None:
    gain = np.arange(9.0).reshape(3, 3) + np.arange(9.0).reshape(3, 3).T
    one = [draw(offers(), gain, np.random.default_rng(s)) for s in range(20)]
    two = [draw(offers()[::-1], gain, np.random.default_rng(s)) for s in range(20)]
    assert one == two
    assert draw([], gain, np.random.default_rng(1)) is None


def test_the_probability_is_how_often_a_pair_is_drawn() -> None:
    gain = np.array([[0, 1.0, 2], [1, 0, 2], [2, 2, 0]])
    rng, seen, said = np.random.default_rng(1), Counter[str](), {}
    for _ in range(4000):
        found = draw(offers(), gain, rng)
        assert found is not None
        seen[found.id[:2]] += 1
        said[found.id[:2]] = found.probability
    assert said == pytest.approx({"01": 0.2 / 3, "02": 0.2 / 3 + 0.4, "12": 0.2 / 3 + 0.4})
    for pair, probability in said.items():
        assert seen[pair] / 4000 == pytest.approx(probability, abs=0.03)


def test_sides_cases_and_raters_come_out_balanced() -> None:
    rng, gain = np.random.default_rng(2), np.ones((3, 3))
    lefts: dict[tuple[int, int], int] = {}
    votes, sides, per_rater = Counter[str](), Counter[int](), Counter[tuple[int, str]]()
    for turn in range(150):
        rater = turn % 6
        mine = [
            Offer(o.id, o.a, o.b, votes[o.id], 0, sum(per_rater[rater, p.id] for p in offers() if p.id[:2] == o.id[:2]))
            for o in offers(10)
            if not per_rater[rater, o.id]
        ]  # fmt: skip
        found = draw(mine, gain, rng, lefts=lefts, rater_lean=sides[rater])
        assert found is not None
        a, b = int(found.id[0]), int(found.id[1])
        shown = (a, b) if found.left_is == "a" else (b, a)
        lefts[shown] = lefts.get(shown, 0) + 1
        sides[rater] += 1 if found.left_is == "a" else -1
        votes[found.id] += 1
        per_rater[rater, found.id] += 1
    for a, b in ((0, 1), (0, 2), (1, 2)):
        assert abs(lefts[a, b] - lefts[b, a]) <= 1
        on_pair = [votes[o.id] for o in offers(10) if (o.a, o.b) == (a, b)]
        assert max(on_pair) - min(on_pair) <= 2
    assert max(per_rater.values()) == 1


def test_bad_offers_are_refused() -> None:
    rng = np.random.default_rng(1)
    with pytest.raises(ValueError, match="contestant"):
        draw([Offer("x", 0, 3)], np.ones((3, 3)), rng)
    with pytest.raises(ValueError, match="floor"):
        draw(offers(), np.ones((3, 3)), rng, floor=1.5)


@pytest.mark.slow
def test_active_pairing_leaves_ranks_as_open_after_fewer_votes_than_random() -> None:
    spec = importlib.util.spec_from_file_location("ranking_benchmark", BENCHMARK)
    assert spec is not None and spec.loader is not None
    benchmark: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(benchmark)
    assert benchmark.active_pairing(6, 300) <= 0.7  # the benchmark itself does 50 seeds
