"""The compare page in a real browser: two answers at once, a blind vote in SQLite, failures, reloads."""

import json
import threading
from typing import Any

import pytest
from playwright.sync_api import expect

pytestmark = [pytest.mark.browser]
LANGUAGES = ("zh", "en")
QUICK, SLOW = "qingnang-7", "xinglin-3"
LEFT, RIGHT = ".pane.left", ".pane.right"


def side_of(tab: Any, words: str) -> str:
    """The side, 'left' or 'right', whose last answer holds these words."""
    panes = tab.page.locator(LEFT)
    return "left" if words in panes.last.inner_text() else "right"


def choose(tab: Any, choice: str) -> None:
    """Clicks one of the four choices."""
    place = ("left", "right", "tie", "both_bad").index(choice)
    tab.page.locator("#choice label").nth(place).click()


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_vote_is_in_the_record_as_it_was_cast_and_then_the_names_appear(
    app: Any, signed_in: Any, language: str
) -> None:
    tab = signed_in(language=language)
    expect(tab.page).to_have_url(f"{app.url}/{language}/compare/")
    question = f"我头疼三天了，早上更重 {language}"
    tab.ask(question)
    tab.state("votable")
    better = side_of(tab, "怕光怕吵")
    choose(tab, better)
    tab.page.fill("#reason textarea", "左右都看过了：问得更全")
    tab.page.click("#submit-vote")
    tab.state("voted")
    titles = {"zh": ("青囊七号", "杏林三号"), "en": ("Qingnang Seven", "Xinglin Three")}[language]
    other = "right" if better == "left" else "left"
    expect(tab.page.locator(f".pane.{better} h2 .name")).to_have_text(titles[0])
    expect(tab.page.locator(f".pane.{other} h2 .name")).to_have_text(titles[1])
    expect(tab.page.locator("#submit-vote")).to_be_hidden()
    (vote,) = tab.votes()
    letter = "a" if vote["contestant_a"] == QUICK else "b"
    assert (better == "left") == (vote["left_is"] == letter)
    assert (vote["choice"], vote["reason"]) == (better, "左右都看过了：问得更全")
    assert (vote["language"], vote["study"], vote["revision"]) == (language, "live", 1)
    turns = app.rows("SELECT * FROM turns WHERE comparison_id = ?", vote["comparison_id"])
    assert [turn["question"] for turn in turns] == [question]
    answers = app.rows("SELECT * FROM answers WHERE comparison_id = ?", vote["comparison_id"])
    assert {a["side"]: a["finish"] for a in answers} == {"a": "stop", "b": "stop"}
    spoke = next(a for a in answers if a["side"] == letter)
    assert "怕光怕吵" in spoke["text"]
    audit = app.rows("SELECT action FROM audit WHERE subject LIKE ?", f"%{vote['assignment_id']}%")
    assert "vote" in [row["action"] for row in audit]


def test_both_sides_are_written_at_the_same_time_and_at_the_same_pace(
    app: Any, signed_in: Any
) -> None:
    question, gate = "两边同时写吗", threading.Event()
    quick, slow = "快的一边说了很多很多的话，" * 6, "慢的一边才写了一点点，" * 4
    app.models.plan(QUICK, question, [quick])
    app.models.plan(SLOW, question, [slow, gate, "现在才写完。"])
    tab = signed_in()
    tab.ask(question)
    expect(tab.page.locator("#duel")).to_contain_text("快的一边")
    expect(tab.page.locator("#duel")).to_contain_text("慢的一边")
    # The pace tells nothing: the quick side is cut to the length of the slow one.
    script = (
        "[...document.querySelectorAll('.pane .said')].map(pane => pane.innerText.trim().length)"
    )
    tab.page.wait_for_function(f"() => {{ const [x, y] = {script}; return x === y && x > 9 }}")
    assert tab.page.evaluate(script)[0] <= len(slow)
    tab.state("writing")
    expect(tab.page.locator("#send")).to_be_disabled()
    expect(tab.page.locator("#choice")).to_be_hidden()
    gate.set()
    tab.state("votable")
    expect(tab.page.locator("#duel")).to_contain_text(quick)
    expect(tab.page.locator("#duel")).to_contain_text("现在才写完。")


def test_a_conversation_goes_on_and_each_side_is_told_its_own_answers(
    app: Any, signed_in: Any
) -> None:
    tab = signed_in()
    tab.ask("胃疼三天怎么办")
    tab.state("votable")
    app.models.both("吃完饭更疼", "那先**少食多餐**。")
    choose(tab, "tie")
    tab.ask("吃完饭更疼")
    expect(tab.page.locator(".pane strong", has_text="少食多餐")).to_have_count(2)
    tab.state("votable")
    expect(tab.page.locator("#choice input:checked")).to_have_count(0)  # a new turn, a new choice
    expect(tab.page.locator("#duel .turn.you .said")).to_have_text(["胃疼三天怎么办", "吃完饭更疼"])
    for model, own in ((QUICK, "怕光怕吵"), (SLOW, "量个血压")):
        told = [
            m for name, m in app.models.asked if name == model and m[-1]["content"] == "吃完饭更疼"
        ]
        roles = [
            (turn["role"], own in turn["content"]) for turn in told[-1] if turn["role"] != "system"
        ]
        assert roles == [("user", False), ("assistant", True), ("user", False)]
    choose(tab, "both_bad")
    tab.page.click("#submit-vote")
    tab.state("voted")
    (vote,) = tab.votes()
    assert vote["choice"] == "both_bad"
    turns = app.rows("SELECT 1 FROM turns WHERE comparison_id = ?", vote["comparison_id"])
    assert len(turns) == 2


def test_a_skipped_and_a_reported_pair_are_left_and_kept(app: Any, signed_in: Any) -> None:
    tab = signed_in()
    for button, words, left in (("skip", "已跳过", "skipped"), ("report", "已报告", "reported")):
        tab.ask(f"{button} 这一对")
        tab.state("votable")
        tab.page.fill("#reason textarea", "两边答得一样")
        tab.page.click(f"#{button}")
        expect(tab.page.locator("#duel .welcome")).to_be_visible()
        tab.told(words)
        expect(tab.page.locator("#vote-bar")).to_be_hidden()
        query = "SELECT * FROM assignments WHERE rater_id = ? ORDER BY seq DESC"
        last = app.rows(query, tab.user_id())[0]
        assert last["state"] == left
        kept = app.rows("SELECT reason FROM reports WHERE assignment_id = ?", last["id"])
        assert [row["reason"] for row in kept] == ["两边答得一样"] * (left == "reported")
        log = app.rows("SELECT after FROM audit WHERE subject LIKE ?", f"%{last['id']}%")
        assert log and not any(
            "两边" in row["after"] for row in log
        )  # it could not be erased there
    assert tab.votes() == []


def test_the_next_pair_is_a_new_one(app: Any, signed_in: Any) -> None:
    tab = signed_in()
    seen = []
    for number in range(2):
        tab.ask(f"第 {number} 对")
        tab.state("votable")
        choose(tab, "tie")
        tab.page.click("#submit-vote")
        tab.state("voted")
        seen.append(tab.votes()[-1]["comparison_id"])
        tab.page.click("#next")
        expect(tab.page.locator("#duel .welcome")).to_be_visible()
        expect(tab.page.locator("#question textarea")).to_have_value("")
    assert len(set(seen)) == 2


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_side_that_fails_cannot_be_voted_on_and_can_be_asked_again(
    app: Any, signed_in: Any, language: str
) -> None:
    question = f"一边会断开 {language}"
    app.models.plan(SLOW, question, ["说到一半", app.models.cut], ["这次说完了。"])
    tab = signed_in(language=language)
    tab.ask(question)
    tab.state("broken")
    words = "回答没有写完" if language == "zh" else "answer was not finished"
    expect(tab.page.locator("#duel [role=alert].unfinished")).to_contain_text(words)
    tab.press("1", "Enter")
    assert tab.page.locator("#choice input:checked").count() == 0
    assert tab.votes() == []
    tab.page.reload()
    tab.state("broken")
    tab.page.click("#retry")
    tab.state("votable")
    expect(tab.page.locator("#duel")).to_contain_text("这次说完了。")
    expect(tab.page.locator("#duel .unfinished")).to_have_count(0)
    tab.press("1", "Enter")
    tab.state("voted")
    (vote,) = tab.votes()
    tries = app.rows(
        "SELECT finish FROM answers WHERE comparison_id = ? AND attempt = 1", vote["comparison_id"]
    )
    assert "error" in [row["finish"] for row in tries], "the failed try stays in the record"


def test_a_reload_in_mid_answer_finds_both_sides_again(app: Any, signed_in: Any) -> None:
    question, gate = "刷新页面", threading.Event()
    app.models.both(question, "刷新之前已经写了这些，" * 5, gate, "刷新之后。")
    tab = signed_in()
    tab.ask(question)
    expect(tab.page.locator(".pane", has_text="刷新之前")).to_have_count(2)
    tab.page.reload()
    expect(tab.page.locator(".pane", has_text="刷新之前")).to_have_count(2)
    tab.state("writing")
    gate.set()
    tab.state("votable")
    expect(tab.page.locator(".pane", has_text="刷新之后")).to_have_count(2)
    tab.page.reload()
    tab.state("votable")
    tab.press("2", "Enter")
    tab.state("voted")
    assert [vote["choice"] for vote in tab.votes()] == ["right"]
    assert len(app.rows("SELECT 1 FROM assignments WHERE rater_id = ?", tab.user_id())) == 1


def test_a_whole_comparison_by_keyboard_alone(signed_in: Any) -> None:
    tab = signed_in()
    expect(tab.page.locator("#question textarea")).to_be_focused()
    tab.page.keyboard.type("1234 只用键盘")
    tab.page.keyboard.press("Enter")
    tab.state("votable")
    assert tab.page.locator("#choice input:checked").count() == 0, "digits in the box are text"
    tab.page.keyboard.press("Escape")
    tab.page.keyboard.press("4")
    expect(tab.page.locator("#choice input").nth(3)).to_be_checked()
    tab.page.keyboard.press("2")
    expect(tab.page.locator("#choice input").nth(1)).to_be_checked()
    tab.page.keyboard.press("Enter")
    tab.state("voted")
    assert [vote["choice"] for vote in tab.votes()] == ["right"]
    expect(tab.page.locator("#next")).to_be_visible()
    tab.page.keyboard.press("n")
    expect(tab.page.locator("#duel .welcome")).to_be_visible()


def test_a_double_click_makes_one_vote(app: Any, signed_in: Any) -> None:
    tab = signed_in()
    tab.ask("双击投票")
    tab.state("votable")
    choose(tab, "left")
    tab.page.dblclick("#submit-vote")
    tab.state("voted")
    assert [vote["choice"] for vote in tab.votes()] == ["left"]


def test_a_vote_without_a_choice_is_asked_for_one(signed_in: Any) -> None:
    tab = signed_in()
    tab.ask("还没有选")
    tab.state("votable")
    tab.page.click("#submit-vote")
    tab.told("请先选择")
    tab.state("votable")
    assert tab.votes() == []


def test_a_red_flag_stands_above_both_answers_before_either_is_written(
    app: Any, signed_in: Any
) -> None:
    question, gate = "突然说话不清，右边手脚没力气", threading.Event()
    app.models.both(question, gate, "立即拨打120。")
    tab = signed_in()
    tab.ask(question)
    expect(tab.page.locator("#duel .red-flag")).to_have_count(1)
    expect(tab.page.locator("#duel .red-flag")).to_contain_text("120")
    expect(tab.page.locator(".pane .dots")).to_have_count(2)
    gate.set()
    tab.state("votable")
    expect(tab.page.locator("#duel .red-flag")).to_have_count(1)


def test_the_same_pair_is_open_in_two_tabs_and_the_first_vote_stands(signed_in: Any) -> None:
    tab = signed_in()
    tab.ask("两个标签页")
    tab.state("votable")
    second = type(tab)(tab.context.new_page(), tab.context, tab.app).open("/zh/compare/")
    second.state("votable")
    tab.press("1", "Enter")
    tab.state("voted")
    choose(second, "right")
    second.page.click("#submit-vote")
    second.told("已有不同的投票")
    assert [vote["choice"] for vote in tab.votes()] == ["left"]


def test_what_is_masked_is_told_and_never_stored(app: Any, signed_in: Any) -> None:
    tab = signed_in()
    tab.ask("我的电话是13812345678，头疼怎么办")
    tab.state("votable")
    tab.told("为保护隐私")
    assert "13812345678" not in tab.page.locator("#duel").inner_text()
    assert app.rows("SELECT 1 FROM turns WHERE question LIKE '%13812345678%'") == []
    assert "13812345678" not in json.dumps(app.models.asked[-2:], ensure_ascii=False)
