"""A page under the content policy in a real browser: it streams, nothing is blocked or fetched elsewhere."""

from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Page as Tab
from playwright.sync_api import expect, sync_playwright

from tests.patience import LONG_S

pytestmark = pytest.mark.browser
expect.set_options(timeout=1000 * LONG_S)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_playwright() as play:
        chromium = play.chromium.launch(
            executable_path="/usr/bin/chromium",
            args=["--no-sandbox", "--disable-dev-shm-usage"],
            timeout=1000 * LONG_S,
        )
        yield chromium
        chromium.close()


def watched(browser: Any, locale: str = "zh-CN") -> tuple[Tab, list[str], list[str]]:
    """A tab, what its console complained of, and every address it asked for."""
    tab = browser.new_context(locale=locale).new_page()
    tab.set_default_timeout(1000 * LONG_S)
    complaints: list[str] = []
    asked: list[str] = []
    tab.on("console", lambda m: complaints.append(m.text) if m.type != "log" else None)
    tab.on("pageerror", lambda error: complaints.append(str(error)))
    tab.on("request", lambda request: asked.append(request.url))
    return tab, complaints, asked


def test_a_page_streams_under_the_policy_and_asks_no_other_host(site: Any, browser: Any) -> None:
    tab, complaints, asked = watched(browser)
    tab.goto(site.url)
    tab.wait_for_selector("#go")
    expect(tab.locator("#out")).to_contain_text("loaded")
    for text, before in (("first", "nothing"), ("second", "first")):
        tab.fill("#said textarea", text)
        tab.click("#go")
        expect(tab.locator("#out")).to_contain_text(f"{text} 4 before={before}")
        tab.wait_for_timeout(2000)  # Gradio drops a press while the event before it is still open
    assert tab.evaluate("document.documentElement.lang") == "zh-CN"
    assert tab.url == f"{site.url}/zh/chat/"
    assert [url for url in asked if not url.startswith(site.url)] == []
    assert complaints == []


def test_signing_in_leads_to_the_page_that_was_asked_for(site: Any, browser: Any) -> None:
    site.token("Dr Wang")
    tab, complaints, _ = watched(browser, "en-US")
    tab.goto(f"{site.url}/en/compare/")
    tab.fill("input[name=name]", "dr wang")
    tab.fill("input[name=password]", "not the password")
    tab.click("button:has-text('Sign in')")
    assert "wrong" in tab.inner_text("[role=alert]")
    tab.fill("input[name=password]", "correct horse battery")
    tab.click("button:has-text('Sign in')")
    tab.wait_for_selector("#go")
    tab.fill("#said textarea", "hello")
    tab.click("#go")
    expect(tab.locator("#out")).to_contain_text("hello 4")
    assert "user:" in tab.inner_text("#out")
    assert [c for c in complaints if "401" not in c] == []  # the wrong password itself


def test_a_fault_in_a_page_tells_nothing_of_the_inside(site: Any, browser: Any) -> None:
    tab, _, _ = watched(browser)
    tab.goto(f"{site.url}/zh/chat/")
    tab.wait_for_selector("#fail")
    tab.click("#fail")
    expect(tab.locator("#out .error")).to_be_visible()
    assert "secret" not in tab.inner_text("body") and "sk-123" not in tab.content()


def test_a_link_from_elsewhere_keeps_the_session(site: Any, browser: Any) -> None:
    tab, _, _ = watched(browser)
    tab.goto(f"{site.url}/zh/chat/")
    tab.wait_for_selector("#go")
    before = tab.context.cookies()
    tab.route(
        "http://elsewhere.test/",
        lambda route: route.fulfill(
            content_type="text/html", body=f'<a id="l" href="{site.url}/zh/chat/">to the app</a>'
        ),
    )
    tab.goto("http://elsewhere.test/")
    tab.click("#l")
    tab.wait_for_selector("#go")
    assert tab.context.cookies() == before
