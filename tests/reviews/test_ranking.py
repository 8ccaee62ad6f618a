"""The ranking against scipy and statsmodels (references.json), and what must hold for any votes."""

from __future__ import annotations

import dataclasses
import json
import math
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reviews import intervals, ranking, stats, style
from reviews.records import VoteRow, winner_of
from reviews.tally import Cells, Tally, count, groups, tally

REFERENCES = json.loads(Path(__file__).with_name("references.json").read_text(encoding="utf-8"))
PUDDING = """1,2,19,22,16; 1,3,16,19,12; 2,3,19,19,10; 1,4,18,23,13; 2,4,23,19,9; 3,4,19,20,15;
1,5,13,19,18; 2,5,16,20,12; 3,5,16,15,17; 4,5,17,14,16; 1,6,18,21,12; 2,6,22,20,12; 3,6,13,18,10;
4,6,14,19,18; 5,6,11,21,12"""


def of(votes: dict[str, Any], keep: Any = slice(None)) -> Tally:
    arrays = [np.array(votes[n])[keep] for n in ("left", "right", "outcome", "rater", "case")]
    left, right, outcome, rater, case = arrays
    k = int(max(left.max(), right.max())) + 1
    names = tuple(f"m{i}" for i in range(k))
    raters, cases = int(rater.max()) + 1, int(case.max()) + 1
    return Tally(names, left, right, outcome, np.ones_like(left), rater, case, raters, cases)


def swapped(votes: Tally) -> Tally:
    return dataclasses.replace(
        votes, left=votes.right, right=votes.left, outcome=2 - votes.outcome
    )  # fmt: skip


def permuted(votes: Tally, seed: int = 1) -> Tally:
    order = np.random.default_rng(seed).permutation(len(votes.left))
    names = ("left", "right", "outcome", "number", "rater", "case")
    return dataclasses.replace(votes, **{n: getattr(votes, n)[order] for n in names})


def fitted(votes: Tally, model: ranking.Model = "davidson") -> ranking.Fit:
    cells, counts, _ = count(votes)
    return ranking.fit(cells, counts, model)


def rows_of(votes: Tally) -> list[VoteRow]:
    """As the record would hand them out: a is the earlier name, left is random."""
    found = []
    choices = ("left", "tie", "right")
    for n in range(len(votes.left)):
        left, right = votes.names[votes.left[n]], votes.names[votes.right[n]]
        a, b = sorted((left, right))
        left_is: Any = "a" if left == a else "b"
        choice: Any = choices[votes.outcome[n]]
        found.append(VoteRow(
            assignment_id=f"{n:032x}", comparison_id=f"c{n}", rater=int(votes.rater[n]) + 1, study="s",
            kind="prepared", contestant_a=a, contestant_b=b, choice=choice,
            winner=winner_of(choice, left_is), left_is=left_is, turns=1,
            department=("心内科", "儿科")[n % 2], intent="", language="zh",
            external_id=f"case{votes.case[n]}", source="", reason="", ratings={}, seconds=None,
            revisions=1, at=datetime(2026, 1, 1, tzinfo=UTC),
        ))  # fmt: skip
    return found


VOTES = of(REFERENCES["votes"])


@pytest.mark.parametrize("model", ["davidson", "rao_kupper"])
def test_the_optimum_is_the_one_that_scipy_finds(model: ranking.Model) -> None:
    expected = REFERENCES[model]
    fit = fitted(VOTES, model)
    found = [*fit.scores, fit.side, fit.log_tie]
    assert found == pytest.approx(expected["parameters"], abs=1e-6)
    assert fit.log_likelihood == pytest.approx(expected["log_likelihood"], abs=1e-7)


@pytest.mark.parametrize("model", ["davidson", "rao_kupper"])
def test_slopes_are_the_differences_of_the_log_probabilities(model: ranking.Model) -> None:
    d, tie, step = np.linspace(-6, 6, 25), np.array(-0.4), 1e-6
    found = ranking.slopes(d, tie, model)
    assert np.exp(found.log).sum(axis=0) == pytest.approx(np.ones(25))
    up, down = ranking.slopes(d + step, tie, model).log, ranking.slopes(d - step, tie, model).log
    assert found.by_d == pytest.approx((up - down) / (2 * step), abs=1e-8)
    up, down = ranking.slopes(d, tie + step, model).log, ranking.slopes(d, tie - step, model).log
    assert found.by_tie == pytest.approx((up - down) / (2 * step), abs=1e-8)


def test_davidsons_pudding_comes_out_to_four_places() -> None:
    rows = np.array([[int(x) for x in row.split(",")] for row in PUDDING.split(";")])
    cells = Cells(rows[:, 0] - 1, rows[:, 1] - 1, 6)
    fit = ranking.davidson(cells, rows[:, [2, 4, 3]].astype(float), side=False)
    worth = np.exp(fit.scores) / np.exp(fit.scores).sum()
    paper = [0.1388005, 0.1729985, 0.1617420, 0.1653930, 0.1586805, 0.2023855]
    assert np.abs(worth - paper).max() < 1e-4
    assert fit.tie == pytest.approx(0.7468147, abs=1e-4) and fit.side == 0


def test_information_is_the_curvature_of_the_likelihood() -> None:
    cells, counts, _ = count(VOTES)
    fit = ranking.davidson(cells, counts)
    x, step = np.concatenate([fit.scores, [fit.side, fit.log_tie]]), 1e-5
    curvature = np.zeros((len(x), len(x)))
    for i in range(len(x)):
        ends = []
        for sign in (1, -1):
            moved = x + sign * step * np.eye(len(x))[i]
            ends.append(ranking._climb(cells, counts[None], moved[None], "davidson", True, 0.01)[1])
        curvature[i] = (ends[1] - ends[0])[0] / (2 * step)
    assert fit.information == pytest.approx(curvature, abs=1e-4)


@pytest.mark.parametrize("by", ["rater", "case", "both"])
def test_clustered_errors_are_those_of_statsmodels(by: Any) -> None:
    keep = np.array(REFERENCES["votes"]["outcome"]) != 1
    votes, expected = of(REFERENCES["votes"], keep), REFERENCES["logit"]
    cells, counts, _ = count(votes)
    fit = ranking.davidson(cells, counts, ridge=1e-7)
    parameters = [*(fit.scores[1:] - fit.scores[0]), fit.side]
    assert parameters == pytest.approx(expected["parameters"], abs=1e-5)
    found = intervals.spread(votes, fit, by)
    contrast = np.hstack([-np.ones((4, 1)), np.eye(4), np.zeros((4, 2))])
    contrast = np.vstack([contrast, np.eye(7)[5]])
    errors = np.sqrt(np.diag(contrast @ found.covariance @ contrast.T))
    if by != "both":  # ours counts G clusters as G / (G - 1)
        n = votes.raters if by == "rater" else votes.cases
        assert errors == pytest.approx(
            math.sqrt(n / (n - 1)) * np.array(expected[f"by_{by}"]), rel=1e-4
        )
        assert found.freedom == n - 1
        return
    one, two = (np.array(expected[f"by_{kind}"]) ** 2 for kind in ("rater", "case"))
    cross = one + two - np.array(expected["by_both"]) ** 2
    parts = [n / (n - 1) for n in (votes.raters, votes.cases, len({*zip(votes.rater, votes.case, strict=True)}))]  # fmt: skip
    assert errors**2 == pytest.approx(parts[0] * one + parts[1] * two - parts[2] * cross, rel=1e-3)


def test_students_distribution_is_scipys() -> None:
    for df, p, quantile in REFERENCES["student"]:
        assert intervals.t_quantile(df, p) == pytest.approx(quantile, abs=1e-6)
        assert intervals.t_inside(quantile, df) == pytest.approx(2 * p - 1, abs=1e-9)


def test_holm_and_wilson_are_those_of_statsmodels() -> None:
    assert intervals.holm(REFERENCES["holm"]["p"]) == pytest.approx(REFERENCES["holm"]["adjusted"])
    assert intervals.holm([]) == []
    for wins, n, low, high in REFERENCES["wilson"]:
        assert stats.wilson(wins, n) == pytest.approx((low, high), abs=1e-12)


@pytest.mark.parametrize("model", ["davidson", "rao_kupper"])
@pytest.mark.parametrize("by", ["vote", "rater", "case", "both"])
def test_x6_swapping_the_sides_mirrors_every_statistic(model: ranking.Model, by: Any) -> None:
    one, two = fitted(VOTES, model), fitted(swapped(VOTES), model)
    assert two.scores == pytest.approx(one.scores, abs=1e-9)
    assert (two.side, two.log_tie) == pytest.approx((-one.side, one.log_tie), abs=1e-9)
    a = intervals.spread(VOTES, one, by)
    b = intervals.spread(swapped(VOTES), two, by)
    mirror = np.diag([*np.ones(5), -1, 1])
    assert b.covariance == pytest.approx(mirror @ a.covariance @ mirror, abs=1e-9)
    for c, d in zip(
        intervals.contrasts(VOTES, one, a), intervals.contrasts(swapped(VOTES), two, b), strict=True
    ):
        assert (c.first, c.second, c.verdict) == (d.first, d.second, d.verdict)
        assert (c.p_holm, c.difference.low) == pytest.approx((d.p_holm, d.difference.low), abs=1e-8)


def test_x6_the_order_of_the_votes_changes_nothing() -> None:
    mixed = permuted(VOTES)
    one, two = fitted(VOTES), fitted(mixed)
    assert (one.scores == two.scores).all() and one.side == two.side
    for by in ("rater", "case", "both"):
        a, b = (intervals.spread(v, f, by) for v, f in ((VOTES, one), (mixed, two)))  # type: ignore[arg-type]
        assert b.covariance == pytest.approx(a.covariance, abs=1e-9)
    for by in ("rater", "both"):
        x, y = (
            intervals.bootstrap(v, f, np.random.default_rng(3), replicates=50, by=by)  # type: ignore[arg-type]
            for v, f in ((VOTES, one), (mixed, two))
        )
        assert x.scores == pytest.approx(y.scores, abs=1e-7)


def test_counted_rows_say_what_single_votes_say() -> None:
    cells, counts, _ = count(VOTES)
    doubled = dataclasses.replace(VOTES, number=2 * VOTES.number)
    assert count(doubled)[1] == pytest.approx(2 * counts)
    read = tally(rows_of(VOTES))
    assert (read.left == VOTES.left).all() and (read.outcome == VOTES.outcome).all()
    assert read.raters == VOTES.raters and read.cases == VOTES.cases
    assert groups(cells) == [[0, 1, 2, 3, 4]]


def test_a_bootstrap_is_a_fit_of_the_drawn_raters_votes() -> None:
    fit = fitted(VOTES)
    found = intervals.bootstrap(VOTES, fit, np.random.default_rng(5), replicates=20)
    drawn = np.random.default_rng(5).multinomial(9, np.full(9, 1 / 9), 20)
    for weights, scores, side in zip(drawn, found.scores, found.side, strict=True):
        cells, counts, _ = count(dataclasses.replace(VOTES, number=weights[VOTES.rater]))
        alone = ranking.davidson(cells, counts)
        assert scores == pytest.approx(alone.scores - alone.scores.mean(), abs=1e-6)
        assert side == pytest.approx(alone.side, abs=1e-6)


def test_a_bootstrap_by_both_multiplies_the_weights_of_rater_and_case() -> None:
    fit = fitted(VOTES)
    found = intervals.bootstrap(VOTES, fit, np.random.default_rng(6), replicates=5, by="both")
    rng = np.random.default_rng(6)
    raters, cases = (rng.multinomial(n, np.full(n, 1 / n), 5) for n in (9, 40))
    for one, two, side in zip(raters, cases, found.side, strict=True):
        cells, counts, _ = count(
            dataclasses.replace(VOTES, number=one[VOTES.rater] * two[VOTES.case])
        )
        assert side == pytest.approx(ranking.davidson(cells, counts).side, abs=1e-6)


def test_many_raters_are_drawn_in_parts_with_the_same_result(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fit = fitted(VOTES)
    one = intervals.bootstrap(VOTES, fit, np.random.default_rng(7), replicates=10)
    monkeypatch.setattr(intervals, "TABLE", 150)
    monkeypatch.setattr(ranking, "CHUNK", 200)
    two = intervals.bootstrap(VOTES, fit, np.random.default_rng(7), replicates=10)
    assert one.scores == pytest.approx(two.scores, abs=1e-9)


def test_bootstrap_errors_ranks_and_joint_intervals_fit_together() -> None:
    fit = fitted(VOTES)
    by_rater = intervals.spread(VOTES, fit, "rater")
    found = intervals.bootstrap(VOTES, fit, np.random.default_rng(8))
    scores = intervals.scores(fit, by_rater, [0, 1, 2, 3, 4])
    errors = found.scores.std(axis=0)
    assert errors == pytest.approx([s.error for s in scores], rel=0.25)  # 9 raters
    order = np.argsort(-fit.scores)
    ranks = intervals.rank_intervals(found)
    for rank, i in enumerate(order, 1):
        assert 1 <= ranks[i][0] <= rank <= ranks[i][1] <= 5
    for one, (low, high) in zip(
        intervals.simultaneous(found, fit), intervals.percentiles(found.scores), strict=True
    ):
        assert one.low < one.value < one.high
        assert one.high - one.low > high - low


def test_x5_twelve_of_twelve_is_finite_and_wide() -> None:
    for raters in (1, 3, 12):
        twelve = np.arange(12)
        left = twelve % 2
        votes = Tally(
            ("x", "y"), left, 1 - left, np.where(left == 0, 0, 2), np.ones(12, int),
            twelve % raters, twelve, raters, 12,
        )  # fmt: skip
        for model in ("davidson", "rao_kupper"):
            fit = fitted(votes, model)  # type: ignore[arg-type]
            found = intervals.spread(votes, fit, "rater")
            (contrast,) = intervals.contrasts(votes, fit, found)
            assert found.separated
            assert np.isfinite([*dataclasses.astuple(contrast.difference), fit.tie]).all()
            assert contrast.difference.high - contrast.difference.low > 2


def test_x5_one_vote_settles_nothing() -> None:
    one = {n: getattr(VOTES, n)[:1] for n in ("left", "right", "outcome", "number")}
    first = np.zeros(1, np.int64)
    votes = dataclasses.replace(VOTES, **one, rater=first, case=first, raters=1, cases=1)
    fit = fitted(votes)
    found = intervals.contrasts(votes, fit, intervals.spread(votes, fit, "rater"))
    assert {c.verdict for c in found} == {"open", "not_comparable"}
    assert np.isfinite(fit.scores).all()
    with pytest.raises(ValueError, match="two raters"):
        intervals.bootstrap(votes, fit, np.random.default_rng(1), by="case")


def test_x5_unconnected_groups_are_not_comparable() -> None:
    keep = (VOTES.left < 2) == (VOTES.right < 2)
    votes = of(REFERENCES["votes"], keep)
    fit = fitted(votes)
    found = intervals.contrasts(votes, fit, intervals.spread(votes, fit, "rater"))
    for c in found:
        apart = (c.first in ("m0", "m1")) != (c.second in ("m0", "m1"))
        assert (c.verdict == "not_comparable") == apart
        assert not apart or (c.p, c.p_holm) == (1.0, 1.0)
    drawn = intervals.bootstrap(votes, fit, np.random.default_rng(2), replicates=50)
    assert drawn.groups == ((2, 3, 4), (0, 1))
    assert drawn.scores[:, [0, 1]].sum(axis=1) == pytest.approx(np.zeros(50), abs=1e-9)


def test_bad_tables_are_refused() -> None:
    cells, counts, _ = count(VOTES)
    for bad in (counts[:-1], counts[:, :2], -counts, counts * np.nan):
        with pytest.raises(ValueError, match="counts"):
            ranking.davidson(cells, bad)
    with pytest.raises(ValueError, match="one cell"):
        ranking.davidson(Cells(np.array([0, 0]), np.array([1, 1]), 2), np.ones((2, 3)))
    unknown = dataclasses.replace(VOTES, cases=0)
    with pytest.raises(ValueError, match="cases"):
        intervals.spread(unknown, fitted(VOTES), "both")
    with pytest.raises(ValueError, match="cases"):
        intervals.bootstrap(unknown, fitted(VOTES), np.random.default_rng(1), by="case")


def test_the_board_can_be_clustered_both_ways_and_split_by_department() -> None:
    rows = rows_of(VOTES)
    by_rater, by_both = stats.board(rows), stats.board(rows, by="both", model="rao_kupper")
    assert (by_rater.clustered_by, by_both.clustered_by) == ("rater", "both")
    assert by_both.tie > 1
    parts = stats.by_field(rows, "department")
    assert list(parts) == ["儿科", "心内科"]
    whole = {(p.first, p.second): p.total for p in stats.pairs(rows)}
    for pair, total in whole.items():
        assert total == sum(p.total for part in parts.values() for p in part if (p.first, p.second) == pair)  # fmt: skip


def test_style_effects_are_those_of_statsmodels() -> None:
    keep = VOTES.outcome != 1
    expected = REFERENCES["logit"]
    rows = [row for row, kept in zip(rows_of(VOTES), keep, strict=True) if kept]
    found = style.control(rows, np.array(expected["style"])[keep])
    scores = np.array([found.controlled[f"m{i}"].value for i in range(5)])
    effects = [e.value / found.scales[n] for n, e in found.effects.items()]
    parameters = [*(scores[1:] - scores[0]), found.side_effect.value, *effects]
    assert parameters == pytest.approx(expected["styled"], abs=2e-3)  # theirs has no ridge
    errors = [e.error / found.scales[n] for n, e in found.effects.items()]
    assert errors == pytest.approx(
        math.sqrt(9 / 8) * np.array(expected["styled_by_rater"][-2:]), rel=5e-3
    )


def test_style_without_style_is_the_ranking_and_mirrors() -> None:
    rows = rows_of(VOTES)
    nothing = style.control(rows, np.zeros((600, 2)))
    board = {r.name: r.score for r in stats.board(rows).ratings}
    for name, score in nothing.controlled.items():
        assert dataclasses.astuple(score) == pytest.approx(
            dataclasses.astuple(board[name]), abs=1e-8
        )
    covariates = np.array(REFERENCES["logit"]["style"])
    one = style.control(rows, covariates)
    two = style.control(rows_of(swapped(VOTES)), -covariates)
    assert two.side_effect.value == pytest.approx(-one.side_effect.value, abs=1e-8)
    for name in one.effects:
        assert dataclasses.astuple(one.effects[name]) == pytest.approx(dataclasses.astuple(two.effects[name]), abs=1e-8)  # fmt: skip
    for bad in (covariates[:-1], covariates[:, :1], covariates * np.inf):
        with pytest.raises(ValueError, match="covariate"):
            style.control(rows, bad)
    with pytest.raises(ValueError, match="covariates"):
        style.control([], np.zeros((0, 2)))


def test_length_does_not_pass_for_quality_once_it_is_held_equal() -> None:
    rng = np.random.default_rng(4)
    n = 2000
    left = rng.integers(0, 2, n)
    length = np.where(left == 0, 1.0, -1.0) + rng.normal(0, 1, n)  # m0 writes longer, no better
    p = 1 / (1 + np.exp(-length))
    outcome = np.where(rng.random(n) < p, 0, 2)
    votes = Tally(("m0", "m1"), left, 1 - left, outcome, np.ones(n, int), rng.integers(0, 20, n), np.arange(n), 20, n)  # fmt: skip
    found = style.control(rows_of(votes), length[:, None], ["length"])
    assert found.raw["m0"].low > 0
    assert found.controlled["m0"].low < 0 < found.controlled["m0"].high
    assert found.effects["length"].low > 0


def test_differences_count_characters_and_marks() -> None:
    assert style.differences("建议多喝水", "建议多喝水") == (0, 0)
    length, marks = style.differences("# 建议\n1. 多喝水\n- **休息**\n", "多喝水")
    assert length == pytest.approx(math.log(22 / 4)) and marks == pytest.approx(math.log(5))
    assert style.differences("多喝水", "# 建议\n1. 多喝水\n- **休息**\n") == (-length, -marks)
