"""Signing in at a provider of another site in a real browser: strict cookies, the content policy, the way back."""

import re
from pathlib import Path

import pytest
from playwright.sync_api import expect, sync_playwright

from reviews.people import Identity
from tests.patience import LONG_S
from tests.web.conftest import PASSWORD
from tests.web.test_openid import serving

pytestmark = pytest.mark.browser


def test_a_physician_links_the_account_and_then_signs_in_by_the_provider(tmp_path: Path) -> None:
    with serving(tmp_path, "localhost") as place, sync_playwright() as play:
        expect.set_options(timeout=1000 * LONG_S)
        chromium = play.chromium.launch(
            executable_path="/usr/bin/chromium",
            args=["--no-sandbox", "--disable-dev-shm-usage"],
            timeout=1000 * LONG_S,
        )
        context = chromium.new_context(locale="zh-CN")
        tab = context.new_page()
        tab.set_default_timeout(1000 * LONG_S)
        complaints: list[str] = []
        tab.on("console", lambda m: complaints.append(m.text) if m.type == "error" else None)
        number, _ = place.user("Wang")

        tab.goto(f"{place.url}/zh/sign-in")
        tab.click("form[action$=openid] button")
        tab.click("button[value=zhao]")
        expect(tab.locator("main")).to_contain_text("还没有关联")
        expect(tab.locator("main")).not_to_contain_text("赵医生")
        complaints.clear()  # the refusal's status

        tab.click("main a")
        tab.fill("input[name=name]", "Wang")
        tab.fill("input[name=password]", PASSWORD)
        tab.click("form[action*=sign-in] button")
        tab.wait_for_url(re.compile("/zh/compare/"))
        tab.goto(f"{place.url}/zh/account")
        tab.locator("form[action$=openid] input[name=old]").fill(PASSWORD)
        tab.click("form[action$=openid] button")
        tab.click("button[value=zhao]")
        expect(tab.locator("[role=status]")).to_contain_text("已关联")
        identity = Identity(place.provider.url, "subject-of-zhao")
        assert place.people.user(number).identity == identity  # type: ignore[union-attr]
        expect(tab.locator(".rows li")).to_have_count(2)  # this one, and the one of the invitation

        tab.click("form[action$=sign-out] button")
        tab.wait_for_url(re.compile("/zh/chat/"))
        planted = {c["value"] for c in context.cookies() if c["name"] == "session"}
        tab.goto(f"{place.url}/zh/compare/")
        expect(tab).to_have_url(re.compile("/zh/sign-in"))
        tab.click("form[action$=openid] button")
        tab.click("button[value=zhao]")
        tab.wait_for_selector("gradio-app")  # not the page that only asks for itself once more
        tab.reload()
        expect(tab).to_have_url(re.compile("/zh/compare/$"))
        cookies = {c["name"]: c for c in context.cookies() if c["domain"] == "127.0.0.1"}
        assert set(cookies) == {"session"} and cookies["session"]["value"] not in planted
        assert cookies["session"]["sameSite"] == "Strict" and cookies["session"]["httpOnly"]
        assert complaints == []
        context.close()
        chromium.close()
