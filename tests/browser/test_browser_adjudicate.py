"""Contrary votes in a real browser: a senior's blind verdict, and what each rater is shown after the close."""

from typing import Any

import pytest
from playwright.sync_api import expect

from reviews.protocol import Protocol
from reviews.store import Store

pytestmark = [pytest.mark.browser]
STUDY = "disputed"
GOOD = "先考虑**紧张型头痛**。\n\n1. 血压多少？\n\n请到神经内科就诊。"
BAD = "不用看医生。布洛芬每次 3 g，多喝水。"


@pytest.fixture(scope="module", autouse=True)
def study(app: Any) -> None:
    """Two pairs of a good and a dangerous answer, under a protocol that asks for adjudication."""
    app.import_pairs(STUDY, [
        {"id": f"{STUDY}-{n}", "question": f"第 {n} 位：头疼，怎么办？", "answer_a": GOOD,
         "answer_b": BAD, "model_a": "alpha", "model_b": "beta", "department": "神经内科"}
        for n in range(2)
    ])  # fmt: skip
    store = Store.open(app.data / "reviews.sqlite3")
    store.file_study(Protocol(STUDY, overlap=3, adjudicate=True), "console")
    store.close()


def bad_side(tab: Any) -> str:
    """On which side the dangerous answer stands."""
    return "left" if "不用看医生" in tab.page.locator(".pane.left").inner_text() else "right"


def test_contrary_votes_go_to_a_senior_and_agreement_is_shown_after_the_close(
    app: Any, signed_in: Any
) -> None:
    raters = [signed_in().review(STUDY) for _ in range(2)]
    for number, tab in enumerate(raters):
        for turn in range(2):
            before = tab.ticket()
            good = "right" if bad_side(tab) == "left" else "left"
            other = "left" if good == "right" else "right"
            first = app.rows(
                "SELECT c.external_id FROM assignments a JOIN comparisons c ON c.id ="
                " a.comparison_id WHERE a.id = ?", before
            )[0]["external_id"].endswith("-0")  # fmt: skip
            choice = other if number and first else good
            tab.page.fill("#reason textarea", f"理由{number}")
            tab.press("1" if choice == "left" else "2", "Enter")
            if turn == 0:
                tab.next_pair(before)
        expect(tab.page.locator("#duel .welcome")).to_be_visible()
    own = raters[0]
    own.page.goto(f"{app.url}/zh/mine/")
    part = own.page.locator(".own-study", has_text=STUDY)
    expect(part).to_contain_text("2 / 2")
    expect(part).to_contain_text("研究结束后显示")
    expect(part).not_to_contain_text("%")
    own.expected.append("403")
    assert own.page.goto(f"{app.url}/zh/adjudicate/").status == 403

    senior = signed_in("adjudicator")
    senior.open("/zh/adjudicate/")  # the one study that asks for it: nothing to choose
    senior.state("votable")
    expect(senior.page.locator("#duel .case .said")).to_contain_text("第 0 位")
    opinions = senior.page.locator(".opinions")
    expect(opinions.locator("li")).to_have_count(2)
    expect(opinions).to_contain_text("理由0")
    expect(opinions).to_contain_text("理由1")
    good = "right" if bad_side(senior) == "left" else "left"
    texts = opinions.locator("li").all_inner_texts()
    (mine,) = [text for text in texts if "理由0" in text]
    assert ("右边更好" if good == "right" else "左边更好") in mine, (
        "sides are as the senior sees them"
    )
    body = senior.page.locator("#main").inner_text()
    assert not any(name in body for name in (own.name, raters[1].name, "alpha", "beta"))
    senior.mark(bad_side(senior), "不用看医生", "dangerous_advice")
    expect(senior.page.locator("mark.flag")).to_have_count(1)
    senior.press("1" if good == "left" else "2", "Enter")
    expect(senior.page.locator("#duel .welcome")).to_contain_text("没有需要裁定")
    store = Store.open(app.data / "reviews.sqlite3")
    (verdict,) = [v for v in store.votes(STUDY, adjudicated=True) if v.purpose == "adjudication"]
    assert verdict.winner == "a" and len(verdict.spans) == 1
    store.close_study(STUDY, "console")
    store.close()

    own.page.goto(f"{app.url}/en/mine/")
    part = own.page.locator(".own-study", has_text=STUDY)
    expect(part).to_contain_text("50 % (95 % interval")
    part.locator("summary").click()
    expect(part.locator("tbody tr")).to_have_count(2)
    assert "alpha" not in own.page.content()
    own.page.goto(f"{app.url}/zh/review/")
    own.wait()
    own.choose_study(STUDY)
    expect(own.page.locator("#duel .welcome")).to_contain_text("这项研究已经结束")
