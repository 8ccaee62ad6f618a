"""Votes to pairs: the three inputs, what is counted, raters' reliability and ceiling, and a split without leaks."""

from __future__ import annotations

import dataclasses
import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from huatuo.errors import Damaged, NoData
from huatuo.messages import Message
from reviews.export import export
from reviews.people import People
from reviews.records import PreparedPair, PreparedTurn
from reviews.store import Store
from training.data import BadData
from training.pairs import NOBODY, Counts, Judgement, Pair, rated, read_votes
from training.raters import ceiling, reliabilities, side_bias, targets
from training.reward_result import gap_to_ceiling, paired_accuracy
from training.split import case_groups, normal, split, without_held_out


def row(case: str = "c1", **more: Any) -> dict[str, Any]:
    return {
        "case": case, "prompt": f"{case} 头痛怎么办？", "answer_a": "多休息。", "answer_b": "去医院。", "winner": "a",
        "judge": "j", "source": "ai", **more,
    }  # fmt: skip


def write(path: Path, rows: list[Any]) -> Path:
    text = "".join(
        r if isinstance(r, str) else json.dumps(r, ensure_ascii=False) + "\n" for r in rows
    )
    path.write_text(text, encoding="utf-8")
    return path


@pytest.fixture
def exported(tmp_path: Path) -> Path:
    """A real record's export: eight pairs, two raters, left, right, tie and both bad, and one answer that names itself."""
    with_store = Store.open(tmp_path / "data" / "reviews.sqlite3", rng=random.Random(1))
    people = People(with_store.database)
    raters = [people.add_user(name, "physician", "h", "system").id for name in ("王医生", "Dr. Li")]
    prepared = [
        PreparedPair(f"case-{i}", "m-a", "m-b", (PreparedTurn(f"问题{i}：头痛？", f"回答甲{i}", f"回答乙{i}"),), department="内科")
        for i in range(8)
    ]  # fmt: skip
    with_store.add_prepared("study", prepared, "system")
    for rater, choices in zip(
        raters, ("left right tie both_bad left", "left left right tie left"), strict=True
    ):
        for choice in choices.split():
            given = with_store.next_prepared(rater, "study")
            assert given is not None
            with_store.cast_vote(given.id, rater, choice, ratings={"clarity": 6}, seconds=4)  # type: ignore[arg-type]
    export(with_store.database, tmp_path / "export")
    with_store.close()
    return tmp_path / "export"


def test_an_export_becomes_pairs_with_every_vote_once(exported: Path) -> None:
    votes = read_votes([exported])
    assert votes.counts["votes"] == 10 == sum(len(p.judgements) for p in votes.pairs)
    assert votes.counts["votes_decisive"] == 7
    assert votes.counts["votes_tie"] == 2 and votes.counts["votes_both_bad"] == 1
    assert len({p.case for p in votes.pairs}) == len(votes.pairs)
    assert {j.rater for p in votes.pairs for j in p.judgements} == {"physician:1", "physician:2"}
    assert all(p.scope == "turn" and p.department == "内科" for p in votes.pairs)
    firm = {j.strength for p in votes.pairs for j in p.judgements if j.outcome in "ab"}
    assert firm == {0.8}  # 6 of 10: 0.5 + 0.5 * 0.6
    assert "export/pairs.jsonl" in votes.files


def test_the_winner_stays_the_winner_whatever_the_export_calls_it(exported: Path) -> None:
    rows = [json.loads(x) for x in (exported / "pairs.jsonl").read_text("utf-8").splitlines()]
    pairs = {p.case: p for p in read_votes([exported]).pairs}
    for said in rows:
        pair = pairs[said["case"]]
        (outcome,) = {j.outcome for j in pair.judgements if j.rater == f"physician:{said['rater']}"}
        chosen = pair.a if outcome == "a" else pair.b
        model = pair.model_a if outcome == "a" else pair.model_b
        assert chosen[-1].text == said["chosen"][0]["content"]
        assert model == said["chosen_model"]


def test_an_altered_export_is_refused(exported: Path) -> None:
    with (exported / "pairs.jsonl").open("a") as file:
        file.write("\n")
    with pytest.raises(Damaged, match=r"pairs\.jsonl.*export the votes again"):
        read_votes([exported])


def test_votes_on_answers_that_name_their_model_are_left_out_and_counted(tmp_path: Path) -> None:
    rows = [row("c1"), row("c2"), row("c3", identity_leak=True)]
    votes = read_votes(feedback=[write(tmp_path / "f.jsonl", rows)])
    assert votes.counts["identity_leak"] == 1
    assert {p.case for p in votes.pairs} == {"c1", "c2"}


def test_trl_preferences_are_taken_as_text_and_as_messages(tmp_path: Path) -> None:
    user, said = {"role": "user", "content": "咳嗽"}, {"role": "assistant", "content": "喝水。"}
    rows = [
        {"prompt": "头痛", "chosen": "休息。", "rejected": "不知道。", "margin": 2.0},
        {"prompt": [user], "chosen": [said], "rejected": [{**said, "content": "别管。"}]},
        {"chosen": [user, said], "rejected": [user, {**said, "content": "嗯。"}]},
    ]
    votes = read_votes(preferences=[write(tmp_path / "p.jsonl", rows)])
    assert votes.counts["votes_unknown_rater"] == 3
    assert len({p.case for p in votes.pairs}) == 2  # the same question is the same case
    assert any(
        j.strength == pytest.approx(0.964, abs=1e-3) for p in votes.pairs for j in p.judgements
    )


def test_the_same_pair_in_either_order_is_one_pair(tmp_path: Path) -> None:
    rows = [
        row("c1", judge="x", winner="a"), row("c2"),
        row("c1", judge="y", winner="b", answer_a="去医院。", answer_b="多休息。"),
    ]  # fmt: skip
    pair = next(
        p for p in read_votes(feedback=[write(tmp_path / "f.jsonl", rows)]).pairs if p.case == "c1"
    )
    assert len(pair.judgements) == 2 and len({j.outcome for j in pair.judgements}) == 1


BAD = [
    ("{", "not UTF-8 JSON"),
    ([], "a JSON object is expected"),
    (row(winner="left"), "winner is not"),
    (row(answer_a=""), "answer_a, message 1"),
    (row(answer_b=3), "answer_b is neither"),
    (row(prompt=[{"role": "system", "content": "x"}]), "role is not"),
    (row(prompt=[{"role": "assistant", "content": "x"}]), "alternates"),
    (row(confidence=1.5), "confidence"),
    (row(margin="x"), "margin"),
    (row(ratings="{"), "ratings is not JSON"),
    (row(ratings={"a": "b"}), "ratings is not an object"),
]


@pytest.mark.parametrize(("line", "why"), BAD, ids=[why for _, why in BAD])
def test_a_bad_line_is_named_with_its_number(tmp_path: Path, line: Any, why: str) -> None:
    with pytest.raises(BadData, match=rf"f\.jsonl:2: .*{why}"):
        read_votes(feedback=[write(tmp_path / "f.jsonl", [row(), "{" if line == "{" else line])])


USELESS = [
    ([], "no votes to learn from"),
    ([row("c1", identity_leak=True)], "left out"),
    ([row("c1", winner="tie"), row("c2", winner="both_bad")], "ties or both bad"),
    ([row("c1"), row("c1", judge="k")], "one case"),
]


@pytest.mark.parametrize(("rows", "why"), USELESS, ids=[why for _, why in USELESS])
def test_votes_that_teach_nothing_are_refused_with_what_to_do(
    tmp_path: Path, rows: list[Any], why: str
) -> None:
    with pytest.raises(NoData, match=why):
        read_votes(feedback=[write(tmp_path / "f.jsonl", rows)])


RATED = [
    ({}, "a", 1.0), ({"x": 3}, "tie", 1.0), ({"clarity": 10}, "a", 1.0), ({"clarity": 0}, "b", 0.5),
    ({"safe_a": 10, "safe_b": 0}, "a", 1.0), ({"safe_a": 10, "safe_b": 0}, "b", 0.5), ({"safe_a": 6, "safe_b": 4}, "a", 0.6),
]  # fmt: skip


@pytest.mark.parametrize(("ratings", "outcome", "strength"), RATED)
def test_ratings_soften_a_vote_and_never_turn_it(
    ratings: dict[str, int], outcome: Any, strength: float
) -> None:
    assert rated(ratings, outcome) == pytest.approx(strength)


def played(
    n: int, accuracies: list[float], per: int, seed: int = 0, ties: float = 0.0
) -> list[Pair]:
    """Pairs whose better side is a or b at random, judged by raters of the given accuracies."""
    rng, pairs = random.Random(seed), []
    for i in range(n):
        better = rng.choice("ab")
        said = []
        for r in rng.sample(range(len(accuracies)), per):
            right = rng.random() < accuracies[r]
            outcome: Any = better if right else "ab".replace(better, "")
            said.append(
                Judgement(f"physician:{r}", "tie" if rng.random() < ties else outcome, "physician")
            )
        q = Message("user", f"问题{i}")
        a, b = (Message("assistant", f"{better == side}{i}{side}") for side in "ab")
        pairs.append(Pair(f"c{i}", (q, a), (q, b), "m", "n", tuple(said), department=f"d{i % 3}"))
    return pairs


def test_the_careless_rater_is_found_out() -> None:
    found = {r.name: r for r in reliabilities(played(300, [0.95, 0.9, 0.9, 0.6], per=3))}
    assert found["physician:3"].reliability < 0.7 < 0.85 < found["physician:0"].reliability
    assert found["physician:0"].overlap == found["physician:0"].votes


def test_the_order_of_votes_changes_no_reliability() -> None:
    pairs = played(60, [0.9, 0.8, 0.7], per=2)
    one, other = reliabilities(pairs), reliabilities(pairs[::-1])
    assert [r.name for r in one] == [r.name for r in other]
    assert [r.reliability for r in one] == pytest.approx([r.reliability for r in other])


def test_a_rater_of_one_vote_gets_about_the_mean() -> None:
    pairs = played(200, [0.9, 0.9, 0.9], per=2)
    stranger = Judgement("physician:9", "b", "physician")
    pairs[0] = dataclasses.replace(pairs[0], judgements=(*pairs[0].judgements, stranger))
    found = {r.name: r.reliability for r in reliabilities(pairs)}
    assert abs(found["physician:9"] - found["physician:0"]) < 0.12


def test_targets_sum_to_one_mirror_and_grow_with_agreement() -> None:
    def target(*outcomes: str, source: str = "physician", weight: float = 1.0) -> Any:
        said = tuple(Judgement(f"{source}:{i}", o, source) for i, o in enumerate(outcomes))  # type: ignore[arg-type]
        q = Message("user", "q")
        pair = Pair(
            "c", (q, Message("assistant", "x")), (q, Message("assistant", "y")), "", "", said
        )
        return targets([pair], reliabilities([pair]), ai_weight=weight)[0]

    for outcomes in (["a"], ["a", "b"], ["tie"], ["a", "tie", "both_bad"]):
        t = target(*outcomes)
        assert t.a + t.tie + t.b == pytest.approx(1) and t.weight == len(outcomes)
    assert target("a").a == pytest.approx(target("b").b)
    assert target("a", "a").a > target("a").a > target("a", "b").a
    assert target("tie").tie > target("a", "tie").tie > target("a", "a").tie
    assert target("a", source="ai", weight=0.25).weight == 0.25
    assert target("a", source="ai", weight=0.25).a < target("a", source="ai").a


def test_a_judge_that_likes_the_first_answer_is_noticed() -> None:
    q = Message("user", "q")
    said = [Judgement("ai:j", "a", "ai", left="a"), Judgement("ai:j", "b", "ai", left="b")] * 20
    pairs = [
        Pair("c", (q, Message("assistant", "x")), (q, Message("assistant", "y")), "", "", (j,))
        for j in said
    ]
    assert side_bias(pairs) > 1
    assert side_bias(pairs[:0]) == 0


def test_the_ceiling_is_the_agreement_of_raters_and_unknown_without_overlap() -> None:
    found = ceiling(played(400, [0.85] * 5, per=2, ties=0.2))
    assert found.value == pytest.approx(0.85**2 + 0.15**2, abs=0.05)
    assert found.low < found.value < found.high and found.raters == 5
    alone = ceiling(played(100, [0.9], per=1))
    assert alone.value is None and "two raters" in alone.why


def test_the_gap_to_the_ceiling_carries_the_chance_of_both() -> None:
    pairs = played(400, [0.85] * 5, per=2, ties=0.2)
    cases, d = [pair.case for pair in pairs], np.ones(len(pairs))
    found = gap_to_ceiling(d, pairs, range(len(pairs)), cases, ceiling(pairs))
    votes = [j.outcome for pair in pairs for j in pair.judgements if j.outcome in ("a", "b")]
    by_hand = (ceiling(pairs).value or 0) - votes.count("a") / len(votes)
    assert found["value"] == pytest.approx(by_hand)
    assert found["low"] < by_hand < found["high"] and found["high"] - found["low"] < 0.2
    alone = played(100, [0.9], per=1)
    nothing = gap_to_ceiling(np.ones(100), alone, range(100), ["c"] * 100, ceiling(alone))
    assert nothing == {"value": None, "low": None, "high": None}
    untested = gap_to_ceiling(d, pairs, [], cases, ceiling(pairs))
    assert untested == {"value": None, "low": None, "high": None}


def test_accuracy_on_the_ceiling_s_votes_counts_no_machine_and_nobody() -> None:
    sides = [Judgement("physician:1", "a", "physician"), Judgement("physician:2", "a", "physician")]
    others = [Judgement("ai:judge", "b", "ai"), Judgement(NOBODY, "b", "physician")]
    pairs = [dataclasses.replace(p, judgements=(*sides, *others)) for p in played(10, [0.9], per=1)]
    cases = [pair.case for pair in pairs]
    assert paired_accuracy(np.ones(10), pairs, range(10), cases)["value"] == 1.0


def test_no_case_or_question_stands_on_two_sides() -> None:
    pairs = played(100, [0.9] * 3, per=2)
    twin = Pair(
        "other-id",
        (Message("user", " 问题5？"), *pairs[5].a[1:]),
        pairs[5].b,
        "",
        "",
        pairs[5].judgements,
    )
    counts = Counts()
    parts = split([*pairs, twin], validation=0.2, test=0.2, seed=3, counts=counts)
    assert sorted((*parts.train, *parts.validation, *parts.test)) == list(range(101))
    assert parts.cases[5] == parts.cases[100]
    assert counts["cases_joined_by_same_question"] == 1
    assert 15 <= len(parts.test) <= 26 and 15 <= len(parts.validation) <= 26
    again = split([*pairs, twin], validation=0.2, test=0.2, seed=3, counts=Counts())
    assert again == parts
    assert split(pairs, validation=0.2, test=0.2, seed=4, counts=Counts()).test != parts.test
    for department in ("d0", "d1", "d2"):
        share = [pairs[i].department for i in parts.test if i < 100].count(department)
        assert share >= 3


def test_case_groups_join_by_id_and_by_question() -> None:
    assert normal(" 头 痛？Ａ") == normal("头痛a")
    pairs = played(3, [0.9], per=1)
    assert len(set(case_groups(pairs))) == 3


def test_too_few_cases_cannot_be_split() -> None:
    with pytest.raises(NoData, match="too few"):
        split(played(3, [0.9], per=1), validation=0.2, test=0.2, seed=1, counts=Counts())


def test_votes_on_held_out_cases_are_taken_out_and_counted(tmp_path: Path) -> None:
    pairs = played(10, [0.9], per=1)
    held = write(tmp_path / "held.jsonl", [
        {"id": "c1", "question": "另一个"}, {"id": "z", "question": "问题2？"},
        {"case_id": "y", "messages": [{"role": "user", "content": "问题3"}]},
    ])  # fmt: skip
    counts = Counts()
    left = without_held_out(pairs, [held], counts)
    assert {p.case for p in left} == {"c0", *(f"c{i}" for i in range(4, 10))}
    assert counts["leaked_same_case_id"] == 1 and counts["leaked_same_question"] == 2
    with pytest.raises(NoData, match="would leak"):
        without_held_out(pairs[1:3], [held], Counts())
    with pytest.raises(BadData, match=r"held\.jsonl:1"):
        without_held_out(pairs, [write(tmp_path / "held.jsonl", ["3\n"])], Counts())


def test_one_rater_is_enough(tmp_path: Path) -> None:
    votes = read_votes(feedback=[write(tmp_path / "f.jsonl", [row(f"c{i}") for i in range(6)])])
    assert len(reliabilities(votes.pairs)) == 1
    assert ceiling(votes.pairs).value is None
