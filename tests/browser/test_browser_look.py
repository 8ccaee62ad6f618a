"""Phone, theme, language and accessibility in a real browser."""

import re
from typing import Any

import pytest
from playwright.sync_api import expect

from reviews.records import first_tab

pytestmark = [pytest.mark.browser]
PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}
NAMELESS = re.compile(
    r"^\s*- '?(button|link|textbox|radio|checkbox|combobox|listbox|tab|slider)\b(?! \")", re.M
)


def votable(tab: Any, question: str) -> None:
    """Asks and waits for both answers."""
    tab.ask(question)
    tab.state("votable")


def fits(tab: Any) -> None:
    """Nothing on the page is wider than the screen."""
    wide = tab.page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
    assert wide[0] <= wide[1], tab.page.url


def swipe(tab: Any, start: int, end: int) -> None:
    """A finger moves across the answers."""
    box = tab.page.locator(".panes").last.bounding_box()
    height = min(box["y"] + 40, 600)
    finger = tab.context.new_cdp_session(tab.page)
    for kind, x in (("touchStart", start), ("touchMove", (start + end) // 2), ("touchMove", end)):
        points = [{"x": x, "y": height}]
        finger.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
    finger.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})


def test_on_a_phone_the_answers_are_tabs_and_a_swipe_turns_them(signed_in: Any) -> None:
    tab = signed_in(**PHONE)
    fits(tab)
    votable(tab, "手机上怎么看")
    left, right = tab.page.locator(".pane.left"), tab.page.locator(".pane.right")
    tabs = tab.page.get_by_role("tab")

    def shows(side: str) -> None:
        expect(left if side == "left" else right).to_be_visible()
        expect(right if side == "left" else left).to_be_hidden()
        expect(tabs.nth(0)).to_have_attribute("aria-selected", str(side == "left").lower())
        expect(tabs.nth(1)).to_have_attribute("aria-selected", str(side == "right").lower())

    given = tab.page.locator("#duel .duel").get_attribute("data-pair")
    shows(first_tab(given))
    tabs.nth(0).tap()
    shows("left")
    tabs.nth(1).tap()
    shows("right")
    tabs.nth(0).tap()
    shows("left")
    swipe(tab, 320, 60)
    shows("right")
    swipe(tab, 60, 320)
    shows("left")
    fits(tab)
    for button in tab.page.locator("#choice label, #submit-vote, #send").all():
        box = button.bounding_box()
        assert box["height"] >= 44 and box["y"] + box["height"] <= 844
    tab.page.locator("#choice label").nth(1).click()
    expect(tab.page.locator("#choice input").nth(1)).to_be_checked()
    tab.page.locator("#submit-vote").click()
    tab.state("voted")
    assert [vote["choice"] for vote in tab.votes()] == ["right"]


def test_no_page_is_wider_than_a_phone(signed_in: Any, admin: Any) -> None:
    tab = signed_in("admin", **PHONE)
    for path in (
        "/zh/chat/",
        "/en/compare/",
        "/zh/review/",
        "/zh/mine/",
        "/en/adjudicate/",
        "/en/results/",
        "/zh/models/",
        "/zh/admin/",
    ):
        tab.open(path)
        fits(tab)
        menu = tab.page.locator("[data-menu]")
        expect(tab.page.locator("#frame nav")).to_be_hidden()
        menu.tap()
        expect(tab.page.locator("#frame nav a")).to_have_count(9)
        expect(tab.page.locator("#frame nav")).to_be_visible()
        expect(menu).to_have_attribute("aria-expanded", "true")
        fits(tab)
    tab.page.goto(f"{tab.app.url}/zh/sign-in")
    fits(tab)


def test_the_language_switch_keeps_the_page_and_the_pair(app: Any, signed_in: Any) -> None:
    tab = signed_in()
    votable(tab, "换成英文再看")
    answers = tab.page.locator(".pane .said").all_inner_texts()
    tab.page.click("#frame a[hreflang=en]")
    expect(tab.page).to_have_url(f"{app.url}/en/compare/")
    expect(tab.page.locator("html")).to_have_attribute("lang", "en")
    tab.state("votable")
    assert tab.page.locator(".pane .said").all_inner_texts() == answers
    expect(tab.page.locator("#submit-vote")).to_have_text("Submit vote")
    tab.page.click("#frame a[hreflang=zh]")
    expect(tab.page).to_have_url(f"{app.url}/zh/compare/")


def test_the_first_page_is_in_the_readers_language(app: Any, open_tab: Any) -> None:
    for language in ("zh", "en"):
        tab = open_tab(language)
        tab.open("")
        expect(tab.page).to_have_url(f"{app.url}/{language}/chat/")


def test_the_theme_is_the_systems_until_the_reader_chooses(open_tab: Any) -> None:
    tab = open_tab(color_scheme="dark").open("/zh/chat/")
    body, paper = tab.page.locator("body"), "getComputedStyle(document.body).backgroundColor"
    expect(tab.page.locator("html")).to_have_class(re.compile(r"\bdark\b"))
    dark = tab.page.evaluate(paper)
    tab.page.click("[data-theme]")
    expect(tab.page.locator("html")).not_to_have_class(re.compile(r"\bdark\b"))
    expect(body).not_to_have_css("background-color", dark)
    tab.page.reload()
    tab.wait()
    expect(tab.page.locator("html")).not_to_have_class(re.compile(r"\bdark\b"))
    expect(body).not_to_have_css("background-color", dark)


@pytest.mark.parametrize("language", ["zh", "en"])
def test_every_control_has_a_name(signed_in: Any, language: str) -> None:
    tab = signed_in("admin", language)
    for path in ("chat", "review", "mine", "adjudicate", "results", "models", "admin", "compare"):
        tab.open(f"/{language}/{path}/")
        if path == "compare":
            votable(tab, "每个按钮都有名字")
        tree = tab.page.locator("body").aria_snapshot()
        assert NAMELESS.search(tree) is None, tree
        assert tab.page.locator("h1, h2").count() > 0, path
    names = {"zh": "左边更好|右边更好|相当|都不可用", "en": "Left|Right|Equally|Both"}[language]
    for name in names.split("|"):
        expect(tab.page.get_by_role("radio", name=re.compile(name))).to_have_count(1)
    regions = {"zh": ("左边的回答", "右边的回答"), "en": ("Left answer", "Right answer")}[language]
    for region in regions:
        expect(tab.page.get_by_role("article", name=region)).to_be_visible()


def test_a_vote_by_tab_and_arrow_keys_alone(signed_in: Any) -> None:
    tab = signed_in()
    page = tab.page
    votable(tab, "只用 Tab 键")

    def to(selector: str, key: str) -> None:
        for _ in range(40):
            page.keyboard.press(key)
            if page.evaluate(f"document.activeElement.closest('{selector}') !== null"):
                return
        raise AssertionError(f"{selector} cannot be reached by {key}")

    to("#choice", "Shift+Tab")
    page.keyboard.press("Space")
    page.keyboard.press("ArrowRight")
    chosen = page.locator("#choice input:checked")
    expect(chosen).to_have_count(1)
    choice = chosen.get_attribute("value")
    outline = "getComputedStyle(document.activeElement.closest('label')).outlineStyle"
    assert page.evaluate(outline) == "solid", "the focus can be seen"
    to("#submit-vote", "Tab")
    page.keyboard.press("Enter")
    tab.state("voted")
    assert [vote["choice"] for vote in tab.votes()] == [choice]


def test_the_limits_stand_on_every_page_and_the_skip_link_leads_past_them(open_tab: Any) -> None:
    tab = open_tab("en").open("/en/chat/")
    expect(tab.page.locator("#frame .limits")).to_contain_text("not a doctor")
    tab.page.locator(".skip-link").focus()
    expect(tab.page.locator(".skip-link")).to_be_in_viewport()
    tab.page.keyboard.press("Enter")
    expect(tab.page).to_have_url(re.compile("#main$"))
    tab.page.keyboard.press("Tab")
    inside = "document.activeElement.closest('#main') !== null"
    assert tab.page.evaluate(inside)
    tab.page.goto(f"{tab.app.url}/en/sign-in")
    expect(tab.page.locator(".limits")).to_contain_text("not a doctor")
