"""The review page in a real browser: a queue by keyboard, undo, skip, progress, stop and come back."""

import re
from typing import Any

import pytest
from playwright.sync_api import expect

pytestmark = [pytest.mark.browser]
STUDY = "browser-study"
CHOICES = ("left", "right", "tie", "both_bad")
MODELS = ("omega-oracle", "sigma-sage")
COUNT = 12


@pytest.fixture(scope="module", autouse=True)
def study(app: Any) -> None:
    """Twelve pairs, filed by the importer's command line."""
    pairs = [
        {
            "id": f"case-{number}",
            "question": f"第 {number} 位患者：头疼 {number + 1} 天，怎么办？",
            "answer_a": f"甲答 {number}：先**量血压**。\n\n1. 多休息\n2. 少熬夜",
            "answer_b": f"乙答 {number}：![x](http://evil.example/p) 您哪里疼？",
            "model_a": MODELS[0],
            "model_b": MODELS[1],
            "department": "神经内科",
            "intent": "病情诊断",
        }
        for number in range(COUNT)
    ]
    app.import_pairs(STUDY, pairs)


def reviewing(signed_in: Any, language: str = "zh", **options: Any) -> Any:
    """A physician on the review page, in our study."""
    return enter(signed_in(language=language, **options), language)


def enter(tab: Any, language: str = "zh") -> Any:
    """Opens the review page and, where there are more studies, ours."""
    tab.open(f"/{language}/review/")
    tab.choose_study(STUDY)
    expect(tab.page.locator("#duel .case .said")).to_contain_text("位患者：头疼")
    expect(tab.page.locator("#progress")).to_contain_text(f"{COUNT}")
    tab.state("votable")
    return tab


def shown(tab: Any) -> str:
    """The question that is on the page."""
    return str(tab.page.locator("#duel .case .said").inner_text())


def moved(tab: Any, before: str) -> str:
    """Waits for another question than `before`."""
    expect(tab.page.locator("#duel .case .said")).not_to_have_text(before)
    tab.state("votable")
    return shown(tab)


def done(tab: Any, number: int) -> None:
    """Waits until the page says how many were rated."""
    expect(tab.page.locator("#progress")).to_contain_text(re.compile(rf"(已评 )?{number} (/|of)"))


@pytest.mark.parametrize("language", ["zh", "en"])
def test_ten_pairs_are_rated_by_keyboard_alone(app: Any, signed_in: Any, language: str) -> None:
    tab = reviewing(signed_in, language)
    done(tab, 0)
    questions, chosen = [], []
    for number in range(10):
        questions.append(shown(tab))
        key = number % 4
        tab.page.keyboard.press(str(key + 1))
        expect(tab.page.locator("#choice input").nth(key)).to_be_checked()
        tab.page.keyboard.press("Enter")
        chosen.append(CHOICES[key])
        moved(tab, questions[-1])
        done(tab, number + 1)
        expect(tab.page.locator("#choice input:checked")).to_have_count(0)
    votes = tab.votes()
    assert [vote["choice"] for vote in votes] == chosen
    assert len({vote["comparison_id"] for vote in votes}) == 10
    assert all(vote["study"] == STUDY and vote["seconds"] > 0 for vote in votes)
    assert {vote["left_is"] for vote in votes} == {"a", "b"}, "sides are mixed"
    stored = app.rows(
        "SELECT t.question FROM turns t JOIN assignments a USING (comparison_id)"
        " WHERE a.rater_id = ? AND a.state = 'voted' ORDER BY a.seq",
        tab.user_id(),
    )
    assert [row["question"] for row in stored] == questions


def test_what_is_left_on_the_page_is_left_in_the_record(app: Any, signed_in: Any) -> None:
    tab = reviewing(signed_in)
    for _ in range(2):
        question, left = shown(tab), tab.page.locator(".pane.left .said").inner_text()
        tab.page.keyboard.press("1")
        expect(tab.page.locator("#choice input").nth(0)).to_be_checked()
        tab.page.keyboard.press("Enter")
        moved(tab, question)
        vote = tab.votes()[-1]
        (answer,) = app.rows(
            "SELECT text FROM answers WHERE comparison_id = ? AND side = ?",
            vote["comparison_id"],
            vote["left_is"],
        )
        assert answer["text"][:4] == left[:4]


def test_undo_shows_the_last_pair_and_a_new_choice_is_its_second_revision(signed_in: Any) -> None:
    tab = reviewing(signed_in)
    first = shown(tab)
    tab.page.fill("#reason textarea", "第一次的理由")
    tab.press("1", "Enter")
    second = moved(tab, first)
    tab.press("z")
    expect(tab.page.locator("#duel .case .said")).to_have_text(first)
    expect(tab.page.locator("#duel .revising")).to_contain_text("左边更好")
    expect(tab.page.locator("#choice input").nth(0)).to_be_checked()
    expect(tab.page.locator("#reason textarea")).to_have_value("第一次的理由")
    tab.state("votable")
    tab.press("3", "Enter")
    expect(tab.page.locator("#duel .case .said")).to_have_text(second)
    assert [(v["revision"], v["choice"]) for v in tab.votes()] == [(1, "left"), (2, "tie")]
    done(tab, 1)


def test_undo_with_nothing_behind_says_so(signed_in: Any) -> None:
    tab = reviewing(signed_in)
    question = shown(tab)
    tab.press("Z")
    tab.told("没有可以撤销的题目")
    assert shown(tab) == question


def test_a_skipped_pair_is_counted_and_can_be_taken_up_again(app: Any, signed_in: Any) -> None:
    tab = reviewing(signed_in)
    first = shown(tab)
    tab.press("s")
    second = moved(tab, first)
    expect(tab.page.locator("#progress")).to_contain_text("跳过 1")
    assert tab.votes() == []
    tab.press("z")
    expect(tab.page.locator("#duel .case .said")).to_have_text(first)
    tab.state("votable")
    tab.press("2", "Enter")
    expect(tab.page.locator("#duel .case .said")).to_have_text(second)
    done(tab, 1)
    expect(tab.page.locator("#progress")).not_to_contain_text("跳过")
    assert [vote["choice"] for vote in tab.votes()] == ["right"]


def test_who_stops_finds_the_same_pair_in_another_browser(signed_in: Any, open_tab: Any) -> None:
    tab = reviewing(signed_in)
    first = shown(tab)
    tab.press("4", "Enter")
    waiting = moved(tab, first)
    sides = tab.page.locator(".pane .said").all_inner_texts()
    tab.context.close()
    later = enter(open_tab().sign_in(tab.name, "/zh/review/"))
    assert shown(later) == waiting
    assert later.page.locator(".pane .said").all_inner_texts() == sides
    done(later, 1)


def test_keys_typed_into_the_reason_are_text(signed_in: Any) -> None:
    tab = reviewing(signed_in)
    question = shown(tab)
    tab.page.locator("#reason textarea").focus()
    tab.page.keyboard.type("1234szn 1")
    expect(tab.page.locator("#reason textarea")).to_have_value("1234szn 1")
    assert shown(tab) == question
    assert tab.page.locator("#choice input:checked").count() == 0
    tab.page.keyboard.press("Escape")
    tab.page.keyboard.press("2")
    tab.page.keyboard.press("Enter")
    moved(tab, question)
    assert [(v["choice"], v["reason"]) for v in tab.votes()] == [("right", "1234szn 1")]
    expect(tab.page.locator("#reason textarea")).to_have_value("")


def test_a_reported_pair_does_not_come_back(app: Any, signed_in: Any) -> None:
    tab = reviewing(signed_in)
    question = shown(tab)
    tab.page.click("#report")
    moved(tab, question)
    tab.page.reload()
    enter(tab)
    assert shown(tab) != question
    states = app.rows(
        "SELECT a.state FROM assignments a JOIN comparisons c ON c.id = a.comparison_id"
        " WHERE a.rater_id = ? AND c.study = ? ORDER BY a.seq",
        tab.user_id(),
        STUDY,
    )
    assert [row["state"] for row in states] == ["reported", "open"]


def test_the_end_of_a_study_says_thanks_and_undo_still_works(app: Any, signed_in: Any) -> None:
    pair = {
        "question": "只有一题",
        "answer_a": "甲",
        "answer_b": "乙",
        "model_a": "m1",
        "model_b": "m2",
    }
    app.import_pairs("a-short-study", [{"id": "only", **pair}])
    tab = signed_in().open("/zh/review/")
    tab.choose_study("a-short-study")
    expect(tab.page.locator("#duel .case .said")).to_have_text("只有一题")
    tab.state("votable")
    tab.press("1", "Enter")
    expect(tab.page.locator("#duel .welcome")).to_contain_text("您已全部评完")
    expect(tab.page.locator("#vote-bar")).to_be_hidden()
    expect(tab.page.locator("#undo-last")).to_be_visible()
    tab.press("z")
    expect(tab.page.locator("#duel .case .said")).to_have_text("只有一题")
    tab.state("votable")
    tab.press("2", "Enter")
    expect(tab.page.locator("#duel .welcome")).to_be_visible()
    assert [(v["revision"], v["choice"]) for v in tab.votes()] == [(1, "left"), (2, "right")]


def test_an_imported_answer_is_inert_too(signed_in: Any) -> None:
    tab = reviewing(signed_in)
    panes = tab.page.locator(".pane .said")
    expect(panes.filter(has_text="http://evil.example/p")).to_have_count(1)
    expect(panes.locator("strong")).to_have_text("量血压")
    assert panes.locator("img, a").count() == 0


def test_a_second_tab_does_not_replace_a_vote_and_reasons_hold_no_identifiers(
    signed_in: Any,
) -> None:
    tab = reviewing(signed_in)
    late = enter(type(tab)(tab.context.new_page(), tab.context, tab.app, tab.name))
    first = shown(tab)
    assert shown(late) == first
    tab.page.fill("#reason textarea", "患者电话13800138000，左边问得细")
    tab.press("1", "Enter")
    moved(tab, first)
    late.press("2", "Enter")
    late.told("撤销")
    votes = tab.votes()
    assert [(v["choice"], v["revision"]) for v in votes] == [("left", 1)]
    assert votes[0]["reason"] == "患者电话【电话】，左边问得细"
