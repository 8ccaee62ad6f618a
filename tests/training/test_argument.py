"""The paper's argument in small: what is counted, who wins, which claims hold, and that nothing is made twice."""

import json
from dataclasses import replace
from functools import cache

import pytest

from training import argument
from training.cases import draw_cases
from training.claims import CONTESTANTS, Answers, figures, page, summary, wins


@cache
def cases():
    return draw_cases(12, held_out=True, seed=5, english=0.0)


GOOD = {
    "complete": lambda c: f"您好，{c.names[0]}的可能性大，建议到{c.names[2]}就诊检查。",
    "incomplete": lambda c: f"您好。请问{c.asks[0]}",
}


def answers(name, of):
    texts = [of(case) for case in cases()]
    return Answers(name, cases(), texts, [True] * len(texts))


def four():
    blunt = answers(
        "distilled", lambda c: "请多休息。多喝水，注意饮食，按时睡觉，不要熬夜，保持心情舒畅。"
    )
    asking = answers("doctor", lambda c: "多久了？")
    good = answers("hybrid", lambda c: GOOD[c.kind](c))
    return [blunt, asking, good, replace(good, name="refined")]


def test_shares_are_counts_of_the_answers():
    blunt, asking, good, _ = (figures(a) for a in four())
    assert blunt["asks_incomplete"] == 0 and asking["asks_incomplete"] == 1
    assert good["names_complete"] == 1 and blunt["names_complete"] == 0
    assert good["fits_incomplete"] == 1 and asking["asks_complete"] == 1
    assert asking["length_complete"] == len("多久了？")


def test_an_answer_that_repeats_itself_or_does_not_end_is_not_fluent():
    texts = ["请多喝水好好休息。请多喝水好好休息。", *["请多喝水好好休息。"] * 11]
    told = Answers("hybrid", cases(), texts, [True] * 11 + [False])
    assert figures(told)["fluent"] == pytest.approx(10 / 12, abs=1e-3)


def test_wins_are_mirrored_and_a_model_against_itself_is_even():
    blunt, _, good, same = four()
    share, low, high = wins(good, blunt, 0)
    assert low <= share <= high and share > 0.5
    assert wins(blunt, good, 0)[0] == pytest.approx(1 - share)
    assert wins(good, same, 0) == (0.5, 0.5, 0.5)


def test_a_claim_holds_in_the_seeds_in_which_it_is_so():
    swapped = [replace(a, name=n) for a, n in zip(four(), ("doctor", "distilled", "hybrid", "refined"), strict=True)]  # fmt: skip
    report = summary({42: four(), 43: swapped})
    found = {c["claim"].split(":")[0]: c for c in report["claims"]}
    assert found["Distilled data alone"]["in"] == ["42"]
    assert found["Doctors' data alone"]["in"] == ["42"]
    assert found["RL beats the hybrid it started from (interval above 50 %)."]["holds"] == 0
    assert report["claims"][0]["seeds"] == 2
    drawn = page(report, {42: four(), 43: swapped}).html()
    assert "1 of 2" in drawn and drawn.count("<svg") == 5 and "toy world" in drawn


def test_answers_are_kept_and_made_again_only_for_other_weights(tmp_path, capsys):
    model = argument.ROOT / "huatuo/nano/doctor"
    first = argument._answered(tmp_path, "doctor", model, cases()[:2])
    assert "answers 2 cases" in capsys.readouterr().out
    assert argument._answered(tmp_path, "doctor", model, cases()[:2]) == first
    assert capsys.readouterr().out == ""
    kept = json.loads((tmp_path / "answers-doctor.json").read_text(encoding="utf-8"))
    assert kept["answers"] == first.texts and all(first.texts)
    other = argument._answered(
        tmp_path, "doctor", argument.ROOT / "huatuo/nano/distilled", cases()[:2]
    )
    assert other.texts != first.texts


def test_the_bundled_seed_is_not_trained_again():
    config = argument.ArgumentConfig(
        seeds=(42,), bundled_seed=42, refine="configs/nano/refine.toml"
    )
    for name in CONTESTANTS[:3]:
        assert argument._fine_tuned(config, name, 42) == argument.ROOT / "huatuo/nano" / name
