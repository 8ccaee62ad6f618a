"""Cards of cases that a rater plays: who gets which, and what the comparison then belongs to."""

from dataclasses import replace

import pytest

from reviews.errors import AssignmentClosed, NotInvited
from reviews.protocol import Protocol
from reviews.records import Case, PreparedPair, PreparedTurn
from reviews.store import Store

CASES = [
    Case("1", "眼红。", "眼科", card="眼红两天。\n----\n结膜炎"),
    Case("2", "没有卡的问题"),
    Case("3", "咳嗽。", "内科", card="咳嗽三天。\n----\n支气管炎"),
]
PROTOCOL = Protocol("cards", "病例卡", "Cards", "zh", "live", ("m1", "m2"))


def play(store: Store, rater: int) -> str | None:
    """The id of the case that the rater's next card is of, after having begun to play it."""
    found = store.next_card(rater)
    if found is None:
        return None
    study, case = found
    opened = store.open_live(rater, "m1", "m2", "a", language="zh", study=study, case=case)
    _, comparison = store.view(opened.id, rater)
    assert (comparison.study, comparison.external_id) == (study, case.id)
    assert comparison.department == case.department
    return case.id


def test_each_rater_plays_each_card_once_in_the_files_order(
    store: Store, wang: int, li: int
) -> None:
    store.add_cases("cards", CASES, "test")
    assert [play(store, wang) for _ in range(3)] == ["1", "3", None]
    assert play(store, li) == "1"


def test_a_card_is_read_back_and_a_question_without_one_is_none(store: Store) -> None:
    store.add_cases("cards", CASES, "test")
    assert store.card("cards", "1") == CASES[0]
    assert store.card("cards", "2") is None and store.card("cards", "9") is None
    assert store.cases("cards") == CASES


@pytest.mark.parametrize(
    ("change", "offered"),
    [
        ({}, True),
        ({"raters": ("王医生",)}, True),
        ({"raters": ("Dr. Li",)}, False),
        ({"kind": "single"}, False),
    ],
)
def test_a_card_is_offered_to_whom_its_study_takes(
    store: Store, wang: int, change: dict[str, object], offered: bool
) -> None:
    store.add_cases("cards", CASES, "test")
    store.file_study(replace(PROTOCOL, **change), "test")  # type: ignore[arg-type]
    assert (store.next_card(wang) is not None) is offered


def test_the_first_card_played_freezes_its_study_and_a_closed_one_offers_none(
    store: Store, wang: int, li: int
) -> None:
    store.add_cases("cards", CASES, "test")
    store.file_study(replace(PROTOCOL, raters=("王医生",)), "test")
    play(store, wang)
    study = store.study("cards")
    assert study is not None and study.state == "frozen"
    with pytest.raises(NotInvited):
        store.open_live(li, "m1", "m2", "a", language="zh", study="cards", case=CASES[0])
    store.close_study("cards", "test")
    assert store.next_card(wang) is None
    with pytest.raises(AssignmentClosed):
        store.open_live(wang, "m1", "m2", "a", language="zh", study="cards", case=CASES[2])


@pytest.mark.parametrize("names", [("m1", "m2"), ("m2", "m1")])
def test_what_each_side_was_asked_stays_with_its_side_in_either_order(
    store: Store, wang: int, names: tuple[str, str]
) -> None:
    turns = (
        PreparedTurn("眼红。", "痒吗？", "看眼科。"),
        PreparedTurn("有点痒。", "过敏。", "好。", "严重吗？"),
    )
    pair = PreparedPair("7", *names, turns)
    assert store.add_prepared("s", [pair], "test").added == 1
    again = store.add_prepared("s", [pair], "test")
    assert (again.added, again.differs) == (0, ())
    found = store.next_prepared(wang, "s")
    assert found is not None
    _, comparison = store.view(found.id, wang)
    asked = {comparison.contestant_a: "a", comparison.contestant_b: "b"}
    second = comparison.turns[1]
    assert second.asked(asked[names[0]]) == "有点痒。"  # type: ignore[arg-type]
    assert second.asked(asked[names[1]]) == "严重吗？"  # type: ignore[arg-type]
    assert comparison.turns[0].question_b == ""
    other = replace(pair, turns=(turns[0], replace(turns[1], question_b="要紧吗？")))
    assert store.add_prepared("s", [other], "test").differs == ("7",)
