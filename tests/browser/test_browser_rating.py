"""What a rater adds to a vote, in a real browser: ratings, danger marks, own answer, drafts, pause, hints."""

import json
import re
import time
from datetime import datetime
from typing import Any

import pytest
from playwright.sync_api import expect

from reviews.protocol import CRITERIA, Criterion, Protocol
from reviews.store import Store

pytestmark = [pytest.mark.browser]
PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}
STUDY, QUICK = "rating-study", "rating-quick"
GOOD = (
    "先考虑**紧张型头痛**。\n\n1. 血压多少？\n2. 布洛芬每次 0.2 g，每日三次。\n\n请到神经内科就诊。"
)
BAD = "不用看医生。布洛芬每次 3 g，**布洛芬每次 3 g**，多喝水。"


@pytest.fixture(scope="module", autouse=True)
def study(app: Any) -> None:
    """Two studies of the same pairs with filed protocols."""
    criteria = (
        Criterion("diagnosis", "scale", "诊断", "Diagnosis", required=True),
        Criterion("asking", "preference", "追问", "Asking back"),
        CRITERIA["warmth"],
    )
    for name, count in ((STUDY, 12), (QUICK, 4)):
        app.import_pairs(name, [
            {"id": f"{name}-{n}", "question": f"{name} 第 {n} 位：头疼，怎么办？", "answer_a": GOOD,
             "answer_b": BAD, "model_a": "alpha", "model_b": "beta", "department": "神经内科"}
            for n in range(count)
        ])  # fmt: skip
    store = Store.open(app.data / "reviews.sqlite3")
    store.file_study(Protocol(STUDY, criteria=criteria, overlap=20), "console")
    store.file_study(Protocol(QUICK, overlap=20, fastest_s=3600, safety_flags=False,
                              better_answers=False), "console")  # fmt: skip
    store.close()


def reviewing(tab: Any, name: str = STUDY) -> Any:
    """The review page in this study."""
    tab.review(name)
    expect(tab.page.locator("#duel .case .said")).to_contain_text(name)
    # What the page does a moment after a pair has come is done: it closes the own answer.
    tab.page.evaluate("() => new Promise(done => setTimeout(done, 350))")
    return tab


def bad_side(tab: Any) -> str:
    """On which side the dangerous answer stands."""
    return "left" if "不用看医生" in tab.page.locator(".pane.left").inner_text() else "right"


def given(tab: Any) -> dict[str, int]:
    """The ratings on the page."""
    radios = tab.page.locator("#ratings input:checked")
    return {r.get_attribute("name"): int(r.get_attribute("value")) for r in radios.all()}


def kept(tab: Any, **values: str) -> None:
    """Waits until the draft of the pair on the page holds these values."""

    def is_kept() -> bool:
        rows = tab.app.rows("SELECT data FROM drafts WHERE assignment_id = ?", tab.ticket())
        return any(values.items() <= json.loads(row["data"]).items() for row in rows)

    tab.until(is_kept, f"the draft never holds {values}")


def between(assignment: dict[str, Any], vote: dict[str, Any]) -> float:
    """Seconds from when a pair was given out to its vote."""
    begun, ended = (datetime.fromisoformat(at) for at in (assignment["issued_at"], vote["at"]))
    return (ended - begun).total_seconds()


def test_a_whole_vote_by_keyboard_alone_and_its_revision(app: Any, signed_in: Any) -> None:
    tab = reviewing(signed_in())
    page, first = tab.page, tab.ticket()
    bad = bad_side(tab)
    assert given(tab) == {}, "nothing is filled in beforehand"
    tab.press("2", "Enter")
    tab.told("还差这些评分：诊断")
    assert page.evaluate("document.activeElement.name") == "left_diagnosis"
    assert tab.votes() == []
    page.keyboard.press("4")
    for key in ("2", "5", "3", "0", "Escape"):  # right diagnosis, asking, left warmth; taken back
        page.keyboard.press(key)
    assert given(tab) == {
        "left_diagnosis": 4,
        "right_diagnosis": 2,
        "pref_asking": 5,
        "left_warmth": 3,
    }
    tab.press("r")
    assert page.evaluate("document.activeElement.name") == "right_warmth"
    page.keyboard.press("Escape")

    tab.select(bad, "布洛芬每次 3 g", 1)  # the second of two equal passages
    expect(page.locator(".flag-menu")).to_be_visible()
    page.keyboard.press("f")
    page.keyboard.press("4")
    expect(page.locator(f".pane.{bad} mark.flag")).to_have_text("布洛芬每次 3 g")
    expect(page.locator(f".pane.{bad} .flag-label")).to_contain_text("剂量错误")
    tab.quiet()
    page.keyboard.press("f")  # nothing selected: the sentences
    expect(page.locator(".flag-list")).to_be_visible()
    page.keyboard.press("1")
    expect(page.locator(".flag-list .first")).to_be_visible()
    page.locator(".sentences label", has_text="不用看医生").locator("input").focus()
    page.keyboard.press("Space")
    page.keyboard.press("2")
    expect(page.locator("mark.flag")).to_have_count(2)
    tab.quiet()
    page.locator(".flag-label", has_text="漏掉急症").focus()
    page.keyboard.press("Enter")
    expect(page.locator("mark.flag")).to_have_count(1)
    tab.quiet()

    page.keyboard.press("b")
    page.keyboard.type("请张三先量血压，电话13800138000。1234szfp")
    page.keyboard.press("Escape")
    page.keyboard.press("Enter")
    tab.told("没有勾选同意")
    assert page.evaluate("document.activeElement.closest('#better-consent') !== null")
    page.keyboard.press("Space")
    tab.press("Enter")
    tab.next_pair(first)
    assert page.evaluate("document.activeElement.id") == "duel", (
        "the next keys belong to the next pair"
    )
    assert given(tab) == {}
    expect(page.locator("#choice input:checked")).to_have_count(0)
    expect(page.locator("mark.flag")).to_have_count(0)
    expect(page.locator("#better")).to_be_hidden()

    (vote,) = tab.votes()
    ratings = {"left_diagnosis": 4, "right_diagnosis": 2, "pref_asking": 5, "left_warmth": 3}
    assert vote["choice"] == "right" and json.loads(vote["ratings"]) == ratings
    assert vote["seconds"] > 0
    (span,) = json.loads(vote["spans"])
    assert (span["side"], span["turn"], span["kind"]) == (bad, 1, "wrong_dose")
    assert BAD[span["start"] : span["end"]] == "布洛芬每次 3 g" and span["start"] > BAD.index("**")
    better = json.loads(vote["better"])
    assert (
        better["consent"] is True and better["side"] == "" and "13800138000" not in better["text"]
    )
    assert "【电话】" in better["text"] and "1234szfp" in better["text"]

    tab.press("z")
    expect(page.locator("#ratings .ratings")).to_have_attribute("data-ticket", first + "+")
    expect(page.locator("#better textarea")).to_have_value(re.compile("先量血压"))
    expect(page.locator("mark.flag")).to_have_count(1)
    tab.state("votable")
    assert given(tab) == ratings
    page.locator("#ratings input[name=pref_asking][value='5']").click()  # a second click takes back
    page.locator(".flag-label").click()
    expect(page.locator("mark.flag")).to_have_count(0)
    page.click("#better-from_left")
    expect(page.locator("#better textarea")).to_have_value(re.compile("布洛芬"))
    tab.quiet()
    page.click("#better-empty")
    expect(page.locator("#better textarea")).to_have_value("")
    tab.press("Enter")
    expect(page.locator("#ratings .ratings")).not_to_have_attribute("data-ticket", first + "+")
    old, new = tab.votes()
    assert (old["revision"], new["revision"]) == (1, 2) and old["spans"]
    assert not new["spans"] and not new["better"]
    assert "pref_asking" not in json.loads(new["ratings"])


def test_unsent_work_comes_back_on_another_device(app: Any, signed_in: Any, open_tab: Any) -> None:
    tab = reviewing(signed_in())
    page, first = tab.page, tab.ticket()
    bad = bad_side(tab)
    tab.mark(bad, "不用看医生", "dangerous_advice")
    expect(page.locator("mark.flag")).to_have_text("不用看医生")
    tab.press("1", "r", "4", "2")
    page.fill("#reason textarea", "电话13800138000")
    page.click("#open-better")
    page.fill("#better textarea", "先量血压")
    expect(page.locator(".draft-state")).to_have_text("草稿已保存")
    kept(tab, better="先量血压")
    tab.context.close()

    later = reviewing(open_tab(**PHONE).sign_in(tab.name, "/zh/review/"))
    later.told("已恢复")
    assert later.ticket() == first
    expect(later.page.locator("#choice input").nth(0)).to_be_checked()
    assert given(later) == {"left_diagnosis": 4, "right_diagnosis": 2}
    expect(later.page.locator("mark.flag")).to_have_text("不用看医生")
    expect(later.page.locator("#reason textarea")).to_have_value("电话【电话】")
    expect(later.page.locator("#better textarea")).to_have_value("先量血压")
    later.page.fill("#better textarea", "")

    later.page.locator("[data-sheet]").tap()  # the phone's sheet
    expect(later.page.locator("[data-sheet]")).to_have_attribute("aria-expanded", "true")
    expect(later.page.locator("[data-sheet]")).to_contain_text("2/5")
    later.page.locator("#ratings [data-name=right_warmth] label").nth(4).tap()
    wide = later.page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
    assert wide[0] <= wide[1]
    for label in later.page.locator("#ratings label").all():
        box = label.bounding_box()
        assert box["width"] >= 44 and box["height"] >= 44
    later.page.locator("[data-sheet]").tap()
    side = later.page.locator(".flag-button:visible")
    side.tap()  # of the one answer that is shown
    later.page.locator(".sentences label").first.tap()
    later.page.locator(".flag-list [data-kind=fabricated_fact]").tap()
    expect(later.page.locator(".flag-label")).to_have_count(2)
    later.page.locator("#submit-vote").tap()
    later.next_pair(first)
    (vote,) = later.votes()
    assert json.loads(vote["ratings"])["right_warmth"] == 5 and vote["reason"] == "电话【电话】"
    assert sorted(span["kind"] for span in json.loads(vote["spans"])) == [
        "dangerous_advice",
        "fabricated_fact",
    ]
    assignment = vote["assignment_id"]
    assert app.rows("SELECT * FROM drafts WHERE assignment_id = ?", assignment) == []

    sent = {"ticket": assignment, "work": {"choice": "left"}}
    asking = later.context.request
    for body, status in (
        (sent, 409),  # voted on: it came too late
        ({"ticket": "0" * 32, "work": {}}, 404),
        ({"ticket": later.ticket(), "work": {"choice": "everybody"}}, 422),
        ({"ticket": later.ticket(), "work": {"spans": [{"side": "left"}]}}, 422),
        ({"ticket": later.ticket(), "work": {}, "rater": 1}, 422),
        ({"ticket": later.ticket(), "work": {"reason": "头" * 7900, "better": "疼" * 7900}}, 422),
        ({"ticket": later.ticket(), "work": {"choice": "left"}}, 204),
    ):
        origin = {"origin": app.url}
        assert asking.post(f"{app.url}/draft", data=body, headers=origin).status == status, body
    rest = [409]  # 120 at once, then two a second, no more: how many pass depends on the machine
    while rest[-1] == 409 and len(rest) < 2000:
        rest.append(asking.post(f"{app.url}/draft", data=sent, headers=origin).status)
    assert rest[-1] == 429 and len(rest) > 60
    other = signed_in()
    mine = {"ticket": later.ticket(), "work": {"choice": "left"}}
    assert other.context.request.post(
        f"{app.url}/draft", data=mine, headers={"origin": app.url}
    ).status == 404  # fmt: skip
    stranger = open_tab()
    assert stranger.context.request.post(
        f"{app.url}/draft", data=mine, headers={"origin": app.url}, max_redirects=0
    ).status in (303, 401, 403)  # fmt: skip


def test_a_pause_hides_the_texts_and_stops_the_clock_and_haste_earns_a_hint(
    app: Any, signed_in: Any
) -> None:
    tab = reviewing(signed_in(), QUICK)
    page, first = tab.page, tab.ticket()
    assert page.locator(".flag-button, #ratings .criterion").count() == 0, "not asked for"
    expect(page.locator("#open-better")).to_be_hidden()
    tab.press("b", "f")
    expect(page.locator(".flag-list")).to_be_hidden()
    page.evaluate(
        """() => { for (const isComposing of [true, false]) document.body.dispatchEvent(
        new KeyboardEvent('keydown', {key: 'p', keyCode: 229, isComposing, bubbles: true})) }"""
    )
    expect(page.locator(".pause-cover")).to_be_hidden()  # a letter of an input method is no key
    tab.press("p")
    expect(page.locator(".pause-cover")).to_be_visible()
    assert "blur" in page.evaluate("getComputedStyle(document.getElementById('duel')).filter")
    page.keyboard.press("1")
    page.keyboard.press("s")
    paused = time.monotonic()
    page.wait_for_function("() => new Promise(done => setTimeout(() => done(true), 4000))")
    slept = time.monotonic() - paused
    assert page.locator("#choice input:checked").count() == 0 and tab.ticket() == first
    page.keyboard.press("p")
    expect(page.locator(".pause-cover")).to_be_hidden()
    tab.press("1", "Enter")
    tab.next_pair(first)
    (vote,) = tab.votes()
    (row,) = app.rows("SELECT issued_at FROM assignments WHERE id = ?", vote["assignment_id"])
    assert 0 < vote["seconds"] < between(row, vote) - 0.9 * slept
    for _ in range(2):
        assert not tab.has_told("评得很快")
        before = tab.ticket()
        tab.press("3", "Enter")
        tab.next_pair(before)
    tab.told("评得很快")
    assert len(tab.votes()) == 3, "a hint, never a refusal"

    page.evaluate("sessionStorage.setItem('work', JSON.stringify({ms: 0, votes: 59}))")
    tab.press("1", "Enter")
    expect(page.locator("#duel .welcome")).to_be_visible()
    reviewing(tab)  # another pair in the same tab
    page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    expect(page.locator(".break-hint")).to_be_visible()
    page.click(".break-hint [data-later]")
    expect(page.locator(".break-hint")).to_be_hidden()
    page.evaluate("sessionStorage.setItem('work', JSON.stringify({ms: 45 * 60e3, votes: 0}))")
    page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    page.click(".break-hint [data-pause]")
    expect(page.locator(".pause-cover")).to_be_visible()
    page.click(".pause-cover [data-pause]")
    expect(page.locator(".break-hint")).to_be_hidden()
    assert page.evaluate("JSON.parse(sessionStorage.getItem('work')).votes") == 0
    assert page.evaluate("localStorage.length") <= 1, "nothing of the work is left in the browser"


def test_a_live_comparison_takes_marks_and_keys_that_come_before_the_bar(
    app: Any, signed_in: Any
) -> None:
    tab = signed_in()
    page = tab.page
    page.evaluate(
        """() => { // the very moment the pair is whole, long before the bar is
        const type = (key) => document.body.dispatchEvent(new KeyboardEvent('keydown', {key, bubbles: true}));
        const watch = new MutationObserver(() => {
          if (!document.querySelector('.duel[data-state="votable"]')) return;
          watch.disconnect();
          const now = performance.now.bind(performance), at = now(); // however late the bar is, the keys
          performance.now = () => at + (now() - at) / 60;            // are not forgotten before
          type('2'); type('Enter');
        });
        watch.observe(document.body, {childList: true, subtree: true});
        }"""
    )
    tab.ask("按键比按钮早")
    tab.state("voted")
    assert [vote["choice"] for vote in tab.votes()] == ["right"]
    expect(page.locator("#next")).to_be_visible()
    tab.press("n")
    expect(page.locator("#duel .welcome")).to_be_visible()

    tab.ask("现场标记")
    tab.state("votable")
    words = "紧张型头痛" if "紧张型头痛" in page.locator(".pane.left").inner_text() else "量个血压"
    tab.mark("left", words, "fabricated_fact")
    expect(page.locator("mark.flag")).to_have_text(words)
    tab.press("4")
    expect(page.locator(".draft-state")).to_have_text("草稿已保存")
    kept(tab, choice="both_bad")
    page.reload()
    tab.wait()
    tab.state("votable")
    expect(page.locator("mark.flag")).to_have_text(words)
    expect(page.locator("#choice input").nth(3)).to_be_checked()
    tab.press("Enter")
    tab.state("voted")
    expect(page.locator("mark.flag")).to_have_text(words)
    assert page.locator("[data-unflag], .flag-button").count() == 0, (
        "a cast vote is not changed here"
    )
    vote = tab.votes()[-1]
    (span,) = json.loads(vote["spans"])
    (answer,) = app.rows(
        "SELECT text FROM answers WHERE comparison_id = ? AND side = ?",
        vote["comparison_id"],
        vote["left_is"],
    )
    assert answer["text"][span["start"] : span["end"]] == words
