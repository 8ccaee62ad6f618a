"""Roles in a real browser: one-time links, accounts, sessions, studies, what each role may open."""

import json
import re
from typing import Any
from urllib.parse import unquote

import pytest
from playwright.sync_api import expect

pytestmark = [pytest.mark.browser]
PASSWORD = "correct horse battery"


def act(admin: Any, name: str, action: str) -> str:
    """Does something with an account on the admin page; the sentence that was confirmed."""
    page = admin.page
    wish(admin, name, action)
    expect(page.locator("#confirm")).to_be_visible()
    admin.quiet()  # the sentence before this one is gone
    told = page.locator("#warning .sure")
    expect(told).to_contain_text(name)
    words = str(told.inner_text())
    page.click("#confirm")
    expect(page.locator("#confirmation")).to_be_hidden()
    admin.quiet()
    return words


def wish(admin: Any, name: str, action: str) -> None:
    """Chooses an account and what is to be done with it."""
    admin.quiet()
    for box, option in (("account", re.compile(f"^{name}$")), ("action", re.compile(f"^{action}"))):
        admin.page.click(f"#{box} input")
        admin.page.get_by_role("option", name=option).click()
    admin.page.click("#act")


def test_an_invitation_works_once(invited: Any, open_tab: Any, app: Any) -> None:
    name, link = invited()
    tab = open_tab()
    tab.expected += ["403", "422"]
    tab.page.goto(link)
    expect(tab.page.locator("main")).to_contain_text(name)
    new, again = (tab.page.locator(f"input[name={box}]") for box in ("new", "again"))
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
    tab.send()
    expect(tab.page).to_have_url(f"{app.url}/zh/compare/")
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
    tab.state("votable")
    tab.press("1", "Enter")
    tab.state("voted")
    admin.open("/zh/admin/")
    row = admin.page.locator("#accounts tr", has_text=re.compile(rf"^{tab.name}医生"))
    expect(row).to_contain_text("有效")

    def switch(action: str, status: str) -> None:
        act(admin, tab.name, action)
        expect(row).to_contain_text(status)

    switch("停用账户", "已停用")
    tab.page.click("#next")
    tab.told("")
    tab.page.reload()
    expect(tab.page).to_have_url(re.compile("/zh/sign-in"))
    assert len(tab.votes()) == 1
    tab.page.fill("input[name=name]", tab.name)
    tab.page.fill("input[name=password]", PASSWORD)
    tab.page.click("main form button")
    expect(tab.page.locator("[role=alert]")).to_contain_text("姓名或密码不对")
    switch("恢复账户", "有效")
    tab.page.fill("input[name=password]", PASSWORD)
    tab.send()
    expect(tab.page.locator("#frame .account")).to_have_text(tab.name)


def test_a_name_that_is_taken_or_empty_cannot_be_invited(admin: Any, signed_in: Any) -> None:
    taken = signed_in().name
    page = admin.open("/zh/admin/").page
    for name, words in ((taken, "已有"), ("  ", "请先写下内容")):
        page.fill("#invite-name input, #invite-name textarea", name)
        page.click("#invite")
        admin.told(words)
        assert page.locator("#invite-link code").count() == 0


def test_the_admin_page_tells_models_studies_and_that_the_record_is_whole(admin: Any) -> None:
    state = admin.open("/en/admin/").page.locator("#state")
    expect(state).to_contain_text("qingnang-7")
    expect(state.locator("tr", has_text="xinglin-3")).to_contain_text("ready")
    expect(state).to_contain_text("Intact")
    admin.open("/zh/admin/")


def test_links_are_listed_replaced_and_withdrawn_and_a_password_is_reset_by_one(
    admin: Any, invited: Any, signed_in: Any, open_tab: Any
) -> None:
    page = admin.open("/zh/admin/").page
    name, first = invited()
    row = page.locator("#links tr", has_text=name)
    expect(row).to_contain_text("新账户（医生）")

    def choose(button: str) -> None:
        admin.quiet()
        page.click("#one-link input")
        page.get_by_role("option", name=re.compile(f"^{name} ")).click()
        page.click(button)

    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    shown = page.locator("#invite-link code")
    choose("#renew")
    expect(shown).not_to_have_text(first)
    second = shown.inner_text()
    page.click("#invite-link [data-copy]")
    expect(page.locator("#invite-link [data-copy]")).to_have_text("已复制")
    assert page.evaluate("navigator.clipboard.readText()") == second != first
    choose("#withdraw")
    expect(row).to_have_count(0)
    other = open_tab()
    other.expected.append("403")
    for link in (first, second):
        other.page.goto(link)
        expect(other.page.locator("main")).to_contain_text("只能用一次")

    tab = signed_in()
    admin.open("/zh/admin/")
    assert "旧密码仍然有效" in act(admin, tab.name, "生成设置密码")
    link = page.locator("#account-link code").inner_text()
    tab.open("/zh/compare/")
    fresh = open_tab()
    fresh.accept(link, "a wholly new sentence")
    expect(fresh.page.locator("#frame .account")).to_have_text(tab.name)
    tab.page.reload()
    expect(tab.page).to_have_url(re.compile("/zh/sign-in"))

    words = act(admin, tab.name, "改为仲裁医生")
    assert "由医生改为仲裁医生" in words and "1 处登录" in words
    fresh.page.reload()
    expect(fresh.page).to_have_url(re.compile("/zh/sign-in"))
    page.fill("#search textarea, #search input", tab.name)
    expect(page.locator("#accounts tbody tr")).to_have_count(1)
    expect(page.locator("#accounts tbody")).to_contain_text("仲裁医生")
    page.fill("#search textarea, #search input", "")
    wish(admin, "admin", "停用账户")
    admin.told("不能停用自己")


def test_the_account_page_ends_one_session_or_all(signed_in: Any, open_tab: Any) -> None:
    tab, other = signed_in(), open_tab()
    other.sign_in(tab.name)
    tab.page.goto(f"{tab.app.url}/zh/account")
    rows = tab.page.locator(".rows li")
    expect(rows).to_have_count(2)
    expect(rows.filter(has_text="当前设备")).to_have_count(1)
    expect(rows.first).to_contain_text("127.0.0.*")
    rows.locator("button").click()
    expect(rows).to_have_count(1)
    expect(tab.page.locator("[role=status]")).to_contain_text("已退出")
    other.page.reload()
    expect(other.page).to_have_url(re.compile("/zh/sign-in"))
    tab.page.click("form[action$=everywhere] button")
    expect(tab.page).to_have_url(re.compile("/zh/chat/"))
    tab.page.goto(f"{tab.app.url}/zh/account")
    expect(tab.page).to_have_url(re.compile("/zh/sign-in"))


def test_a_researcher_imports_files_freezes_and_closes_a_study(
    signed_in: Any, tmp_path: Any
) -> None:
    tab = signed_in("researcher")
    tab.expected.append("422")
    page = tab.page
    page.goto(f"{tab.app.url}/zh/studies/")
    pair = {"question": "头疼怎么办", "answer_a": "甲", "answer_b": "乙"}
    pair |= {"model_a": "qingnang-7", "model_b": "xinglin-3"}
    name, file = f"study of {tab.name}", tmp_path / "pairs.jsonl"

    def send(text: str) -> Any:
        file.write_text(text, "utf-8")
        page.fill("#upload input[name=study]", name)
        page.set_input_files("#upload input[name=first]", file)
        page.click("#upload button")
        told = page.locator("main.plain")
        told.wait_for()
        words = told.inner_text()
        page.click("main.plain a")
        page.locator("#studies .md > *").first.wait_for()
        tab.wait()
        return words

    def press(button: str) -> None:
        tab.quiet()
        page.click(button)

    good = "".join(json.dumps({"id": f"q{n}", **pair}) + "\n" for n in range(4))
    assert "pairs.jsonl：第 5 行：不是有效的 JSON" in send(good + "{broken")
    assert "新增 4 题" in send(good)
    page.fill("#study-name input, #study-name textarea", name)
    page.fill("#study-until input, #study-until textarea", "tomorrow")
    press("#show-protocol")
    expect(page.locator("#protocol .problem")).to_contain_text("截止日期")
    page.fill("#study-until input, #study-until textarea", "")
    page.click("#study-criteria input")
    page.get_by_role("option", name="追问").click()
    page.keyboard.press("Escape")
    press("#show-protocol")
    shown = page.locator("#protocol pre")
    expect(shown).to_contain_text('criteria = ["asking"]')
    press("#file")
    detail = page.locator("#study-detail")
    expect(detail).to_contain_text("草案")
    expect(detail.locator("tr", has_text="0 / 3")).to_contain_text("4")
    press("#freeze")
    expect(page.locator("#warning .sure")).to_contain_text("已有的 4 道题目")
    tab.app.import_pairs(name, [{"id": "late", **pair}])  # by a colleague, while this page asks
    press("#confirm")
    tab.told("刚被别人改过")
    expect(detail).to_contain_text("草案")
    press("#freeze")
    expect(page.locator("#warning .sure")).to_contain_text("已有的 5 道题目")
    expect(page.locator("#warning .sure")).to_contain_text("不能再修改")
    press("#confirm")
    expect(detail).to_contain_text("已冻结")
    press("#close")
    tab.told("写下结束的理由")
    page.fill("#close-reason input, #close-reason textarea", "试点结束")
    press("#close")
    expect(page.locator("#warning .sure")).to_contain_text("理由：试点结束")
    press("#confirm")
    expect(detail).to_contain_text("已结束")
    query = "SELECT actor, action FROM audit WHERE subject = ? AND action <> 'import' ORDER BY seq"
    done = tab.app.rows(query, f"study:{name}")
    assert [row["action"] for row in done] == ["study.file", "study.freeze", "study.close"]
    assert {row["actor"] for row in done} == {f"user:{tab.user_id()}"}


def test_a_physician_opens_neither_results_nor_admin(signed_in: Any) -> None:
    tab = signed_in()
    tab.expected.append("403")
    links = tab.page.locator("#frame nav a")
    expect(links).to_have_text(["问诊", "对比", "评审", "我的评审"])
    for page in ("results", "studies", "admin"):
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
    tab.accept(link)
    tab.page.locator("#frame form button").click()
    expect(tab.page).to_have_url(f"{app.url}/{language}/chat/")
    tab.wait()
    expect(tab.page.locator("#frame nav a")).to_have_count(1)
    tab.page.goto(f"{app.url}/{language}/review/")
    wanted = f"{app.url}/{language}/sign-in?next=/{language}/review/"
    assert unquote(tab.page.url) == wanted
    tab.page.fill("input[name=name]", name)
    tab.page.fill("input[name=password]", "not the password")
    tab.page.click("main form button")
    expect(tab.page.locator("[role=alert]")).to_be_visible()
    tab.page.fill("input[name=name]", name)
    tab.page.fill("input[name=password]", PASSWORD)
    tab.send()
    expect(tab.page).to_have_url(f"{app.url}/{language}/review/")


def test_a_researcher_sees_bars_and_may_export_after_a_vote(app: Any, signed_in: Any) -> None:
    physician = signed_in()
    physician.ask("结果页要有一票")
    physician.state("votable")
    physician.press("1", "Enter")
    physician.state("voted")
    tab = signed_in("researcher")
    expect(tab.page).to_have_url(f"{app.url}/zh/results/")
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
