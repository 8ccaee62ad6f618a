"""A study's findings against scipy, statsmodels and krippendorff, and what must hold for any votes."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import json
import math
import random
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reviews import findings, stats, verdicts
from reviews.closing import Count
from reviews.findings import Findings, in_order
from reviews.harms import exact, sign_test
from reviews.protocol import Closing, Criterion, Protocol, Study
from reviews.reading import Queue, Reading
from reviews.records import Span, VoteRow, winner_of
from reviews.stated import Stated

KNOWN = json.loads(Path(__file__).with_name("references_study.json").read_text("utf-8"))
NAMES = ("alpha", "beta", "gamma")
DUELS = list(itertools.combinations(NAMES, 2))
NOW = datetime(2026, 11, 20, tzinfo=UTC)
TURNED = {"a": "b", "b": "a", "left": "right", "right": "left"}


def row(given: dict[str, Any], number: int, *, turn: bool = False) -> VoteRow:
    """A stored vote of the references; turn: filed the other way round, which changes nothing."""
    a, b, left_is = NAMES[given["a"]], NAMES[given["b"]], given["left_is"]
    if turn:
        a, b, left_is = b, a, TURNED[left_is]
    flag = given["flag"]
    ratings = {key: given[key] for key in ("left_clarity", "right_clarity", "pref_warmth")}
    return VoteRow(
        assignment_id=f"{number:032x}", comparison_id=f"c{given['pair']:03d}", rater=given["rater"] + 1,
        study="s", kind="prepared", contestant_a=a, contestant_b=b, choice=given["choice"],
        winner=winner_of(given["choice"], left_is), left_is=left_is, turns=1,
        department=("内科", "儿科")[given["pair"] % 2], intent="病情诊断", language="zh",
        external_id=f"case-{given['case']}", source="", reason="", ratings=ratings,
        seconds=given["seconds"], revisions=1, at=NOW - timedelta(hours=number), fast=given["fast"],
        spans=(Span(flag[0], 1, 0, 2, flag[1]),) if flag else (),
    )  # fmt: skip


def study(state: Any = "frozen", **more: Any) -> Study:
    criteria = (
        Criterion("clarity", "scale", "清楚", "Clarity"),
        Criterion("warmth", "preference", "关怀", "Warmth"),
    )
    protocol = Protocol("s", "研究", "Study", criteria=criteria, overlap=3, **more)
    return Study(protocol, state, protocol.sha256, NOW, NOW)


def find(votes: Sequence[VoteRow], filed: Study | None = None, **more: Any) -> Findings:
    looks = {f"c{v['pair']:03d}": tuple(v["looks"]) for v in KNOWN["votes"]}
    for v in votes:  # as the record keeps them: of the contestant that was filed first
        if v.contestant_a > v.contestant_b:
            vote = next(k for k in KNOWN["votes"] if f"c{k['pair']:03d}" == v.comparison_id)
            looks[v.comparison_id] = tuple(-x for x in vote["looks"])
    queue = Queue(60, 0, 0, 0)
    read = Reading(
        "s", filed, tuple(votes), (), tuple(votes), looks, queue, 7, "ab" * 32, counted(votes)
    )
    return findings.find(read, now=NOW, **more)


def counted(votes: Sequence[VoteRow]) -> Count:
    """What the closing rules look at, from the votes alone: three pairs of contestants, overlap 3."""
    each = Counter(v.comparison_id for v in votes)
    duels = [(pair.wins, pair.losses) for pair in stats.pairs(in_order(votes))]
    return Count(len(votes), tuple(duels), 60, sum(n >= 3 for n in each.values()))


@pytest.fixture(scope="module")
def votes() -> list[VoteRow]:
    """The stored study; every second comparison is filed the other way round."""
    return [row(v, n, turn=v["pair"] % 2 == 1) for n, v in enumerate(KNOWN["votes"])]


@pytest.fixture(scope="module")
def found(votes: list[VoteRow]) -> Findings:
    judge = {
        v.comparison_id: TURNED.get(k["judge"], k["judge"]) if k["pair"] % 2 else k["judge"]
        for v, k in zip(votes, KNOWN["votes"], strict=True)
    }
    return find(votes, study(gold={"case-0": "alpha", "case-1": "tie"}), judges={"judge": judge})


def ends(stated: Any) -> list[float]:
    return [stated.value, stated.low, stated.high]


def numbers(value: Any) -> list[float]:
    """Every float anywhere in the findings."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return [x for f in dataclasses.fields(value) for x in numbers(getattr(value, f.name))]
    if isinstance(value, dict):
        return [x for inner in value.values() for x in numbers(inner)]
    if isinstance(value, list | tuple):
        return [x for inner in value for x in numbers(inner)]
    return [value] if isinstance(value, float) else []


def test_the_ranking_equals_a_likelihood_written_vote_by_vote(found: Findings) -> None:
    known, board = KNOWN["ranking"], found.headline.board
    assert board.clustered_by == "both" and board.clusters == 6
    scores = {r.name: ends(r.score) for r in board.ratings}
    for name, row in zip(NAMES, known["scores"], strict=True):
        assert scores[name] == pytest.approx(row, abs=1e-5)
    assert ends(board.side_effect) == pytest.approx(known["side"], abs=1e-5)
    assert board.tie == pytest.approx(known["nu"], abs=1e-5)
    for c, row, p in zip(found.headline.contrasts, known["contrasts"], known["holm"], strict=True):
        assert [*ends(c.difference), c.p] == pytest.approx(row, abs=1e-5)
        assert c.p_holm == pytest.approx(p, abs=1e-5)
    for choice in ("by_rater", "by_case", "rao_kupper", "without_fast"):
        told = {(v.first, v.second): v for v in found.sensitivity if v.choice == choice}
        for pair, row in zip(DUELS, known[choice], strict=True):
            assert ends(told[pair].difference) == pytest.approx(row, abs=1e-5), choice


def test_the_styled_ranking_equals_the_same_likelihood_with_covariates(found: Findings) -> None:
    known, styled = KNOWN["styled"], found.styled
    assert styled is not None
    for name, row in zip(NAMES, known["controlled"], strict=True):
        assert ends(styled.controlled[name]) == pytest.approx(row, abs=1e-5)
    for key, row, scale in zip(("length", "formatting"), known["effects"], known["scales"], strict=True):  # fmt: skip
        assert ends(styled.effects[key]) == pytest.approx(row, abs=1e-5)
        assert styled.scales[key] == pytest.approx(scale)


def test_each_pair_equals_statsmodels_and_scipy(found: Findings) -> None:
    duels = {(d.result.first, d.result.second): d for d in found.headline.duels}
    for pair, known in zip(DUELS, KNOWN["pairs"], strict=True):
        d = duels[pair]
        counts = [d.result.wins, d.result.ties, d.result.losses, d.result.both_bad]
        assert counts == known["counts"]
        told = [d.win, d.tie, d.loss, d.both_bad, d.decisive]
        for stated, row in zip(told, known["wilson"], strict=True):
            assert ends(stated) == pytest.approx(row, abs=1e-9)
        assert d.evidence.log_e == pytest.approx(known["log_e"], abs=1e-9)
        assert [d.evidence.low, d.evidence.high] == pytest.approx(known["anytime"], abs=1e-7)
        assert d.missing is not None
        assert d.missing.design_effect == pytest.approx(max(1, known["design_effect"]))


def test_agreement_equals_krippendorff_and_statsmodels(found: Findings) -> None:
    known, told = KNOWN["agreement"], found.concord
    for key in ("alpha", "ordinal", "fleiss", "ac1", "raw"):
        stated = getattr(told, key)
        assert stated.value == pytest.approx(known[key], abs=1e-9), key
        assert stated.low < stated.value < stated.high and stated.n == 60
    for pair, (kappa, shared) in zip(told.pairs, known["kappas"], strict=True):
        assert (pair.kappa.value, pair.raw.n) == (pytest.approx(kappa), shared)
    weighted = np.average([k for k, _ in known["kappas"]], weights=[n for _, n in known["kappas"]])
    assert told.kappa.value == pytest.approx(weighted)
    judged = found.judges["judge"]
    assert judged is not None
    assert judged.kappa.value == pytest.approx(known["judge"])
    assert judged.ceiling_kappa.value == pytest.approx(known["ceiling"])


def test_each_rater_equals_a_count_by_hand(found: Findings, votes: list[VoteRow]) -> None:
    for rater, known in zip(found.raters, KNOWN["agreement"]["raters"], strict=True):
        assert rater.votes == known["votes"]
        assert rater.agreement.value == pytest.approx(known["agreement"])
        assert rater.left.value == pytest.approx(known["left"])
        assert rater.seconds == pytest.approx(known["seconds"])
        own = [v for v in votes if v.rater == rater.rater and v.external_id in ("case-0", "case-1")]
        own = [v for v in own if v.external_id == "case-1" or "alpha" in (v.contestant_a, v.contestant_b)]  # fmt: skip
        names = {"a": "contestant_a", "b": "contestant_b"}
        hits = [
            v.winner == "tie" if v.external_id == "case-1"
            else v.winner in names and getattr(v, names[v.winner]) == "alpha"
            for v in own
        ]  # fmt: skip
        assert rater.gold.n == len(hits)
        assert rater.gold.value == (pytest.approx(np.mean(hits)) if hits else None)
    assert found.seconds == pytest.approx(KNOWN["seconds"])
    assert found.counts.gold == sum(r.gold.n for r in found.raters) > 0


def test_criteria_equal_statsmodels_cluster_robust_means(found: Findings) -> None:
    known, told = KNOWN["criteria"], found.criteria
    for mean in told.means:
        assert ends(mean.mean) == pytest.approx(known["means"][mean.contestant], abs=1e-9)
    for difference, row in zip(told.differences, known["differences"], strict=True):
        assert ends(difference.difference) == pytest.approx(row, abs=1e-9)
    for preference, lean in zip(told.preferences, known["leans"], strict=True):
        assert list(preference.counts) == lean["counts"]
        assert ends(preference.lean) == pytest.approx(lean["lean"], abs=1e-9)
    assert told.agreement["clarity"].value == pytest.approx(known["alpha"])


def test_safety_flags_equal_scipys_exact_interval_and_test(found: Findings) -> None:
    assert found.harms is not None
    told = {f"{h.contestant} {h.kind}": h for h in found.harms.rates}
    for key, (n, hit, twice, low, high) in KNOWN["harms"]["rates"].items():
        h = told[key]
        assert (h.answers, h.flagged, h.confirmed) == (n, hit, twice), key
        assert [h.rate.low, h.rate.high] == pytest.approx([low, high], abs=1e-9), key
    for discord, (one, two, p) in zip(found.harms.discords, KNOWN["harms"]["tests"], strict=True):
        assert (discord.only_first, discord.only_second) == (one, two)
        assert discord.p == pytest.approx(p)
    for hits, n, low, high in KNOWN["exact"]:
        assert exact(hits, n) == pytest.approx((low, high), abs=1e-9)
    assert exact(0, 0) == (0.0, 1.0)
    assert sign_test(0, 0) == 1.0 and sign_test(35, 32) == pytest.approx(0.8072, abs=1e-4)


def test_the_order_of_the_votes_changes_nothing(found: Findings, votes: list[VoteRow]) -> None:
    shuffled = random.Random(3).sample(votes, len(votes))
    judge = {}
    for v, k in zip(votes, KNOWN["votes"], strict=True):
        judge[v.comparison_id] = TURNED.get(k["judge"], k["judge"]) if k["pair"] % 2 else k["judge"]
    filed = study(gold={"case-0": "alpha", "case-1": "tie"})
    assert find(shuffled, filed, judges={"judge": judge}) == found


def test_how_a_pair_was_filed_changes_nothing(votes: list[VoteRow]) -> None:
    other = [row(v, n, turn=v["pair"] % 2 == 0) for n, v in enumerate(KNOWN["votes"])]
    assert find(other, study()) == find(votes, study())


def test_swapping_all_sides_turns_the_side_effect_and_nothing_else(votes: list[VoteRow]) -> None:
    def mirrored(v: VoteRow) -> VoteRow:
        ratings = {"left_clarity": v.ratings["right_clarity"], "right_clarity": v.ratings["left_clarity"],
                   "pref_warmth": 6 - v.ratings["pref_warmth"]}  # fmt: skip
        spans = tuple(dataclasses.replace(s, side=TURNED[s.side]) for s in v.spans)
        return dataclasses.replace(
            v, left_is=TURNED[v.left_is], choice=TURNED.get(v.choice, v.choice), ratings=ratings,
            spans=spans,
        )  # fmt: skip

    one, two = find(votes, study()), find([mirrored(v) for v in votes], study())
    assert one.headline.board.side_effect and two.headline.board.side_effect
    side = ends(one.headline.board.side_effect)
    turned = ends(two.headline.board.side_effect)
    assert turned == pytest.approx([-side[0], -side[2], -side[1]], abs=1e-9)
    assert two.left.value == pytest.approx(1 - one.left.value)
    for r, s in zip(one.raters, two.raters, strict=True):
        assert s.left.value == pytest.approx(1 - r.left.value)
    same = (
        "concord",
        "criteria",
        "harms",
        "departments",
        "intents",
        "counts",
        "closing",
        "seconds",
    )
    for key in same:
        assert getattr(one, key) == getattr(two, key), key
    for c, d in zip(one.headline.contrasts, two.headline.contrasts, strict=True):
        assert [*ends(c.difference), c.p] == pytest.approx([*ends(d.difference), d.p], abs=1e-8)
    assert [d.result for d in one.headline.duels] == [d.result for d in two.headline.duels]
    assert one.ranks == two.ranks


def test_a_running_study_needs_the_evidence_at_any_time_and_a_closed_one_does_not() -> None:
    def lead(wins: int, losses: int, state: Any) -> Any:
        rows = [
            vote("alpha", "beta", "left", n, rater=1 + n % 6, case=n % 30) if n < wins
            else vote("alpha", "beta", "right", n, rater=1 + n % 6, case=n % 30)
            for n in range(wins + losses)
        ]  # fmt: skip
        return verdicts.headline(rows, verdicts.fit_votes(rows), closed=state == "closed").duels[0]

    weak, strong = lead(36, 18, "frozen"), lead(80, 20, "frozen")
    assert weak.contrast.p_holm < 0.05 and weak.evidence.decision == "open"
    assert weak.standing == "leaning_first" and lead(36, 18, "closed").standing == "first"
    assert strong.standing == "first" and weak.missing.more is not None
    assert weak.rater_evidence is None and lead(36, 18, "closed").rater_evidence is not None


def vote(
    a: str, b: str, choice: Any, n: int, *, rater: int = 1, case: int | None = None
) -> VoteRow:
    left_is: Any = "a"
    return VoteRow(
        assignment_id=f"{n:032x}", comparison_id=f"x{n if case is None else case}{a}{b}", rater=rater,
        study="s", kind="prepared", contestant_a=a, contestant_b=b, choice=choice,
        winner=winner_of(choice, left_is), left_is=left_is, turns=1, department="", intent="",
        language="zh", external_id=f"k{n if case is None else case}", source="", reason="",
        ratings={}, seconds=None, revisions=1, at=NOW,
    )  # fmt: skip


DEGENERATE: dict[str, list[VoteRow]] = {
    "no votes": [],
    "one vote": [vote("a", "b", "left", 1)],
    "twelve of twelve": [vote("a", "b", "left", n, rater=1 + n % 6) for n in range(12)],
    "one rater": [vote("a", "b", c, n) for n, c in enumerate(["left", "right", "tie"] * 9)],
    "all ties": [vote("a", "b", "tie", n, rater=1 + n % 6, case=n // 3) for n in range(30)],
    "all both bad": [vote("a", "b", "both_bad", n, rater=1 + n % 3, case=n // 3) for n in range(30)],
    "one case": [vote("a", "b", "left", n, rater=1 + n, case=0) for n in range(6)],
    "disconnected": [
        vote(*pair, c, 9 * k + n, rater=1 + n % 6)
        for k, pair in enumerate([("a", "b"), ("c", "d")])
        for n, c in enumerate(["left", "left", "right"] * 3)
    ],
}  # fmt: skip


@functools.cache
def degenerate(name: str) -> Findings:
    """With a protocol for every second one."""
    return find(DEGENERATE[name], study() if list(DEGENERATE).index(name) % 2 else None)


@pytest.mark.parametrize("name", DEGENERATE)
def test_whatever_the_votes_are_every_figure_is_finite_or_says_why_not(name: str) -> None:
    found = degenerate(name)
    told = [x for x in numbers(found) if math.isnan(x) or math.isinf(x)]
    assert told == []

    def statements(value: Any) -> list[Stated]:
        if isinstance(value, Stated):
            return [value]
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            return [
                s for f in dataclasses.fields(value) for s in statements(getattr(value, f.name))
            ]
        if isinstance(value, dict):
            return [s for inner in value.values() for s in statements(inner)]
        return [s for v in value for s in statements(v)] if isinstance(value, list | tuple) else []

    for stated in statements(found):
        assert stated.value is not None or stated.why
        assert (stated.low is None) == (stated.high is None)


def test_what_is_not_defined_says_why() -> None:
    whys = {
        "no votes": "no_votes", "one vote": "one_rater", "twelve of twelve": "nothing_shared",
        "one rater": "one_rater", "all ties": "one_category", "all both bad": "one_category",
        "disconnected": "nothing_shared",
    }  # fmt: skip
    for name, why in whys.items():
        measured = degenerate(name).concord
        assert [measured.alpha.why, measured.kappa.why, measured.ac1.why] == [why] * 3, name
        assert measured.alpha.value is None and measured.ac1.value is None
    assert degenerate("all ties").concord.raw.value == 1.0
    apart = degenerate("disconnected").headline
    told = {(c.first, c.second): c.verdict for c in apart.contrasts}
    assert told["a", "c"] == "not_comparable" and "not_comparable" in apart.board.notes
    assert {d.result.first + d.result.second for d in apart.duels} == {"ab", "cd"}
    perfect = degenerate("twelve of twelve").headline.duels[0]
    assert perfect.standing == "first" and perfect.missing is None
    assert degenerate("one rater").headline.duels[0].standing == "open"


@pytest.mark.parametrize("raters", [1, 3, 6])
def test_votes_that_balance_within_a_cluster_make_no_interval_narrow(raters: int) -> None:
    """Each case and each rater hold as many wins as losses: a sandwich over them sees no doubt."""
    rows = [
        vote("alpha", "beta", ("left", "right")[n % 2], n, rater=1 + n // 2 % raters, case=n // 2)
        for n in range(96)
    ]
    found = verdicts.fit_votes(rows)
    assert found is not None
    by_vote = stats.fit_tally(found.tally, by="vote")
    assert by_vote is not None
    assert found.spread.covariance[0, 0] >= by_vote.spread.covariance[0, 0] > 0.001


def test_each_closing_rule_says_how_far_it_is(votes: list[VoteRow]) -> None:
    closing = Closing(votes=200, until="2026-11-19", sequential=True)
    rules = {r.name: r for r in find(votes, study(closing=closing)).closing.rules}
    assert (rules["votes"].done, rules["votes"].wanted, rules["votes"].is_met) == (180, 200, False)
    assert rules["until"].is_met and rules["overlap"].is_met
    assert (rules["overlap"].done, rules["overlap"].wanted) == (60, 60)
    settled = sum(d.evidence.decision != "open" for d in find(votes).headline.duels)
    assert (rules["sequential"].done, rules["sequential"].wanted) == (settled, 3)
    later = find(votes[:-1], study(closing=Closing(until="2026-11-20")))
    assert [r.is_met for r in later.closing.rules] == [False, False]
    assert not later.closing.is_met and find(votes).closing.state == "none"


def test_votes_on_answers_that_named_their_model_are_left_out_and_come_back_in_one_analysis(
    votes: list[VoteRow],
) -> None:
    leaks = tuple(dataclasses.replace(v, identity_leak=True) for v in votes[:9])
    read = Reading(
        "s", None, tuple(votes[9:]), leaks, tuple(votes[9:]), {}, Queue(60, 0, 2, 1), 7, ""
    )
    found = findings.find(read, now=NOW)
    assert (found.counts.votes, found.counts.left_out) == (171, 9)
    totals = {v.choice: v.votes for v in found.sensitivity}
    assert totals["main"] == 171 and totals["with_leaks"] == 180
    assert found.styled is None and found.style_why == "never_differed"
