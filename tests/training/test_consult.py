"""Simulated consultations as a study: filed whole and blind, shown by side, exported by side, never played twice."""

import contextlib
import json
from pathlib import Path

import pytest

from huatuo import arena
from huatuo.config import ROOT, read_models
from huatuo.consultations import Consultation, Exchange, Setting
from huatuo.errors import NoData
from huatuo.patient import CARD_BREAK, read_card
from huatuo.ui import duel
from reviews.database import DEFAULT_NAME
from reviews.export import conversation, export
from reviews.importer import read_files
from reviews.people import People
from reviews.records import PreparedPair
from reviews.store import Store
from tests.training.test_multiturn import CASE, written
from training import consult

KNOWN, _ = read_models(ROOT / "configs/models")
CAST = consult.Cast(("nano-hybrid", "nano-doctor"), "rule", KNOWN)


def said(name: str, *turns: tuple[str, str], finish: str = "complete") -> Consultation:
    exchanges = tuple(Exchange(*turn) for turn in turns)
    return Consultation("7", "rule", name, exchanges, finish, key=f"key of {name}")  # type: ignore[arg-type]


A = said("nano-hybrid", ("眼红。", "痒吗？"), ("有一点痒。", "考虑结膜炎。"))
B = said("nano-doctor", ("眼红。", "看眼科。"), ("严重吗？", "不严重。"))


def pair() -> PreparedPair:
    return consult.pair_of(CASE, A, B, CAST, Setting(turns=2))


def test_a_side_keeps_its_own_patients_words_through_the_record(tmp_path: Path) -> None:
    assert [turn.question_b for turn in pair().turns] == ["", "严重吗？"]
    report = consult.file_pairs([pair()], "consult", tmp_path)
    assert (report.added, consult.file_pairs([pair()], "consult", tmp_path).added) == (1, 0)
    with contextlib.closing(Store.open(tmp_path / DEFAULT_NAME)) as store:
        people = People(store.database)
        rater = people.add_user("Li", "physician", "x", "test").id
        assignment = store.next_prepared(rater, "consult")
        assert assignment is not None
        _, found = store.view(assignment.id, rater)
        names = {found.contestant_a: "a", found.contestant_b: "b"}
        mine, other = names["nano-hybrid"], names["nano-doctor"]
        assert [m["content"] for m in conversation(found, mine)] == [  # type: ignore[arg-type]
            "眼红。", "痒吗？", "有一点痒。", "考虑结膜炎。"
        ]  # fmt: skip
        assert [m["content"] for m in conversation(found, other)][2] == "严重吗？"  # type: ignore[arg-type]
        assert found.department == "眼科" and found.settings_a["patient"] == {"model": "rule"}
        shown = arena.show(assignment, found, ())
        by_side = {"left": shown.turns[1].question, "right": shown.turns[1].asked_right}
        assert by_side["left" if assignment.left_is == mine else "right"] == "有一点痒。"
        assert by_side["right" if assignment.left_is == mine else "left"] == "严重吗？"
        assert shown.turns[0].asked_right == shown.turns[0].question == "眼红。"
        page = duel.draw(shown, "zh", case="病例 · 眼科")
        sides = [part.split('class="pane right"') for part in page.split("panes")[1:]]
        left, right = ("".join(side) for side in zip(*sides, strict=True))
        assert shown.turns[1].question in left and shown.turns[1].question not in right
        assert shown.turns[1].asked_right in right and shown.turns[1].asked_right not in left
        assert page.count("眼红。") == 1 and page.index("眼红。") < page.index("panes")
        store.cast_vote(assignment.id, rater, "left")
        counts = export(store.database, tmp_path / "out").counts
    assert counts["dialogues.jsonl"] == 1 and counts["pairs.jsonl"] == 0
    row = json.loads((tmp_path / "out/dialogues.jsonl").read_text(encoding="utf-8"))
    both = {row["chosen_model"]: row["chosen"], row["rejected_model"]: row["rejected"]}
    assert both["nano-doctor"][2]["content"] == "严重吗？"
    assert both["nano-hybrid"][2]["content"] == "有一点痒。"


def test_a_red_flag_told_to_one_side_is_noticed() -> None:
    pane = arena.Pane("好", "stop")
    turn = arena.DuelTurn("有点痒。", pane, pane, "我胸口压榨样疼，出冷汗")
    assert arena.notices(arena.Duel("1", "votable", (turn,), None, None))  # type: ignore[arg-type]


def test_one_turn_with_two_openings_has_no_common_prompt(tmp_path: Path) -> None:
    a, b = said("nano-hybrid", ("眼红。", "痒吗？")), said("nano-doctor", ("眼睛疼。", "看眼科。"))
    consult.file_pairs([consult.pair_of(CASE, a, b, CAST, Setting(turns=1))], "s", tmp_path)
    with contextlib.closing(Store.open(tmp_path / DEFAULT_NAME)) as store:
        people = People(store.database)
        rater = people.add_user("Li", "physician", "x", "test").id
        assignment = store.next_prepared(rater, "s")
        assert assignment is not None
        store.cast_vote(assignment.id, rater, "left")
        counts = export(store.database, tmp_path / "out").counts
    assert (counts["pairs.jsonl"], counts["dialogues.jsonl"]) == (0, 1)


def test_the_written_pairs_come_back_through_the_importer(tmp_path: Path) -> None:
    file = tmp_path / "pairs.jsonl"
    consult.write_pairs([pair()], file)
    (found,) = read_files([file]).pairs
    assert found.turns == pair().turns and found.department == "眼科"


@pytest.mark.parametrize(
    "broken",
    [
        said("nano-doctor", ("眼红。", "看眼科。"), ("严重吗？", ""), finish="assistant"),
        said("nano-doctor", ("眼红。", "看眼科。"), finish="patient"),
        said("nano-doctor", ("眼红。", "看眼科。")),
    ],
)
def test_an_unfinished_or_shorter_consultation_makes_no_pair(broken: Consultation) -> None:
    with pytest.raises(NoData, match="case 7"):
        consult.pair_of(CASE, A, broken, CAST, Setting(turns=2))


def test_a_card_tells_what_may_be_said_and_keeps_the_truth_below() -> None:
    facts, truth = read_card(consult.card_case(CASE).card)
    assert "有一点痒" in facts and "结膜炎" not in facts and "过敏性结膜炎" in truth
    assert CARD_BREAK not in facts + truth


def test_two_bundled_models_file_a_study_and_a_second_run_adds_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--cases", str(written(tmp_path)), "--models", "nano-hybrid", "nano-doctor",
             "--turns", "2", "--study", "consult", "--data", str(tmp_path / "data")]  # fmt: skip
    assert consult.main(flags) == 0
    told = capsys.readouterr().out
    assert "1 of them tell nothing" in told and "1 pairs filed, 0 were there" in told
    assert consult.main(flags) == 0
    assert "0 pairs filed, 1 were there" in capsys.readouterr().out
    with contextlib.closing(Store.open(tmp_path / "data" / DEFAULT_NAME)) as store:
        (study,) = store.studies()
        assert (study.name, study.pairs, study.votes) == ("consult", 1, 0)


def test_cases_for_a_live_study_are_filed_with_their_cards(tmp_path: Path) -> None:
    flags = [
        "--cases",
        str(written(tmp_path)),
        "--live",
        "--study",
        "live-1",
        "--data",
        str(tmp_path),
    ]
    assert consult.main(flags) == 0
    with contextlib.closing(Store.open(tmp_path / DEFAULT_NAME)) as store:
        (case,) = store.cases("live-1")
    assert case.id == "7" and case.question == CASE.opener and "结膜炎" in case.card


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--models", "nano-doctor"], "two different models"),
        (["--study", "live"], "kept for live comparisons"),
    ],
)
def test_a_study_that_cannot_be_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], change: list[str], message: str
) -> None:
    flags = ["--cases", str(written(tmp_path)), "--models", "nano-hybrid", "nano-doctor", "--turns", "1",
             "--study", "s", "--data", str(tmp_path)]  # fmt: skip
    assert consult.main([*flags, *change]) == 2
    assert message in capsys.readouterr().err
