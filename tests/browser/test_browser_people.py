"""Roles in a real browser: invitations, disabling, what each role may open, signing in, the results."""

import re
from typing import Any
from urllib.parse import unquote

import pytest
from playwright.sync_api import expect

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("browser")]
PASSWORD = "correct horse battery"


def test_an_invitation_works_once(invited: Any, open_tab: Any, app: Any) -> None:
    name, link = invited()
    tab = open_tab()
    tab.expected += ["403", "422"]
    tab.page.goto(link)
    expect(tab.page.locator("main")).to_contain_text(name)
    new, again = tab.page.locator("input[type=password]").all()
    for words, first, second in (
        ("太短", "short", "short"),
        ("不一样", PASSWORD, PASSWORD + "!"),
    ):
        new.fill(first)
        again.fill(second)
        tab.page.click("main form button")
        expect(tab.page.locator("[role=alert]")).to_contain_text(words)
    new.fill(PASSWORD)
    again.fill(PASSWORD)
    tab.page.click("main form button")
    tab.wait()
    assert tab.page.url == f"{app.url}/zh/compare/"
    expect(tab.page.locator("#frame .account")).to_have_text(name)
    other = open_tab()
    other.expected.append("403")
    other.page.goto(link)
    expect(other.page.locator("main")).to_contain_text("只能用一次")


def test_a_disabled_physician_is_out_at_once_and_the_votes_stay(
    app: Any, admin: Any, signed_in: Any
) -> None:
    tab = signed_in()
    tab.expected.append("401")
    tab.ask("停用之前")
    expect(tab.page.locator("#duel .duel")).to_have_attribute("data-state", "votable")
    tab.press("1", "Enter")
    expect(tab.page.locator("#duel .duel")).to_have_attribute("data-state", "voted")
    admin.open("/zh/admin/")
    row = admin.page.locator("#accounts tr", has_text=re.compile(rf"^{tab.name}医生"))
    expect(row).to_contain_text("有效")

    def switch(button: str, status: str) -> None:
        admin.page.click("#account input")
        admin.page.get_by_role("option", name=tab.name, exact=True).click()
        admin.page.click(button)
        expect(row).to_contain_text(status)

    switch("#disable", "已停用")
    tab.page.click("#next")
    expect(tab.page.locator(".toast-body")).to_be_visible()
    tab.page.reload()
    expect(tab.page).to_have_url(re.compile("/zh/sign-in"))
    assert len(tab.votes()) == 1
    tab.page.fill("input[name=name]", tab.name)
    tab.page.fill("input[name=password]", PASSWORD)
    tab.page.click("main form button")
    expect(tab.page.locator("[role=alert]")).to_contain_text("姓名或密码不对")
    switch("#enable", "有效")
    tab.page.fill("input[name=password]", PASSWORD)
    tab.page.click("main form button")
    tab.wait()
    expect(tab.page.locator("#frame .account")).to_have_text(tab.name)


def test_a_name_that_is_taken_or_empty_cannot_be_invited(admin: Any, signed_in: Any) -> None:
    taken = signed_in().name
    page = admin.open("/zh/admin/").page
    for name, words in ((taken, "已有"), ("  ", "请先写下内容")):
        page.fill("#invite-name input, #invite-name textarea", name)
        page.click("#invite")
        expect(page.locator(".toast-body").last).to_contain_text(words)
        assert page.locator("#invite-link code").count() == 0


def test_the_admin_page_tells_models_studies_and_that_the_record_is_whole(admin: Any) -> None:
    state = admin.open("/en/admin/").page.locator("#state")
    expect(state).to_contain_text("qingnang-7")
    expect(state.locator("tr", has_text="xinglin-3")).to_contain_text("ready")
    expect(state).to_contain_text("Intact")
    admin.open("/zh/admin/")


def test_a_physician_opens_neither_results_nor_admin(signed_in: Any) -> None:
    tab = signed_in()
    tab.expected.append("403")
    links = tab.page.locator("#frame nav a")
    expect(links).to_have_text(["问诊", "对比", "评审"])
    for page in ("results", "admin"):
        answer = tab.page.goto(f"{tab.app.url}/zh/{page}/")
        assert answer.status == 403
        expect(tab.page.locator("main")).to_contain_text("没有这个页面的权限")
        assert "qingnang-7" not in tab.page.content()
    assert tab.context.request.get(f"{tab.app.url}/export/votes.zip").status == 403


@pytest.mark.parametrize("language", ["zh", "en"])
def test_a_visitor_is_led_to_sign_in_and_then_to_the_page_that_was_wanted(
    app: Any, invited: Any, open_tab: Any, language: str
) -> None:
    tab = open_tab(language)
    tab.expected.append("401")
    name, link = invited(language=language)
    tab.page.goto(link)
    for box in tab.page.locator("input[type=password]").all():
        box.fill(PASSWORD)
    tab.page.click("main form button")
    tab.wait()
    tab.page.locator("#frame form button").click()
    tab.wait()
    expect(tab.page).to_have_url(f"{app.url}/{language}/chat/")
    expect(tab.page.locator("#frame nav a")).to_have_count(1)
    tab.page.goto(f"{app.url}/{language}/review/")
    wanted = f"{app.url}/{language}/sign-in?next=/{language}/review/"
    assert unquote(tab.page.url) == wanted
    for password in ("not the password", PASSWORD):
        tab.page.fill("input[name=name]", name)
        tab.page.fill("input[name=password]", password)
        tab.page.click("main form button")
        if password != PASSWORD:
            expect(tab.page.locator("[role=alert]")).to_be_visible()
    tab.wait()
    assert tab.page.url == f"{app.url}/{language}/review/"


def test_a_researcher_sees_bars_and_may_export_after_a_vote(app: Any, signed_in: Any) -> None:
    physician = signed_in()
    physician.ask("结果页要有一票")
    expect(physician.page.locator("#duel .duel")).to_have_attribute("data-state", "votable")
    physician.press("1", "Enter")
    expect(physician.page.locator("#duel .duel")).to_have_attribute("data-state", "voted")
    tab = signed_in("researcher")
    assert tab.page.url == f"{app.url}/zh/results/"
    results = tab.page.locator("#results")
    expect(results.locator("svg").nth(1)).to_be_visible()
    assert results.locator("svg rect.win, svg rect.loss, svg rect.tie").count() > 3
    expect(results.locator(".finding").first).to_contain_text("95 % 区间")
    expect(results.locator("table").first).to_contain_text("青囊七号")
    box = results.locator("svg").first.bounding_box()
    assert box["width"] > 400 and box["height"] > 50
    with tab.page.expect_download() as download:
        results.locator("a[download][href*=votes]").click()
    assert download.value.path().read_bytes()[:2] == b"PK"
    tab.open("/en/results/")
    expect(tab.page.locator("#results .finding").first).to_contain_text("95 % interval")
    expect(tab.page.locator("#results table").first).to_contain_text("Qingnang Seven")
