"""The real app on models that say what a test wants, people of every role, and tabs that are watched.

The app is a process of its own, with its own database in data/. Its models are remote ones whose
server stands here, so that a test decides what each says and when: nothing depends on time.
"""

import re
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, Request, expect, sync_playwright

from tests.browser.models import TALKER
from tests.browser.served import PATIENCE_MS, START_S, App, served, write_models

PASSWORD = "correct horse battery"
CHROMIUMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
TOASTS = """(() => {
  window.told = new Set();
  const hear = () => { for (const toast of document.querySelectorAll('.toast-body')) told.add(toast.textContent); };
  new MutationObserver(hear).observe(document, {childList: true, subtree: true, characterData: true});
})()"""
"""Keeps what the page's messages say: they vanish by themselves."""
TURNS = """async () => {
  for (let turn = 0; turn < 25; turn++) await new Promise((done) => setTimeout(done));
}"""
"""Gradio hands the values of one answer to the fields over several turns of the page's event loop."""
WHOLE = """() => {
  const one = (place) => document.querySelector(place), choice = one('#choice input');
  const ratings = one('#ratings .ratings'), ticket = one('#ticket textarea, #ticket input');
  return ratings && ticket && choice && !choice.disabled && one('#choice').offsetParent !== null
    && ticket.value === ratings.dataset.ticket
    && ticket.value.replace('+', '') === one('#duel .duel')?.dataset.pair;
}"""
"""Whether texts, ratings and bar belong to the same pair."""

SELECT = """([side, words, number]) => {
  const walker = document.createTreeWalker(document.querySelector(`.said[data-side=${side}]`), 4);
  let seen = 0;
  while (walker.nextNode()) {
    const node = walker.currentNode, at = node.data.indexOf(words);
    if (at < 0 || seen++ < number) continue;
    const range = document.createRange();
    range.setStart(node, at);
    range.setEnd(node, at + words.length);
    getSelection().removeAllRanges();
    getSelection().addRange(range);
    return;
  }
}"""


@dataclass
class Tab:
    """A page in a browser of its own, and all that it did."""

    page: Page
    context: BrowserContext
    app: App
    name: str = ""
    asked: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)
    expected: list[str] = field(default_factory=list)
    at_work: set[Request] = field(default_factory=set)
    begun: int = 0

    def __post_init__(self) -> None:
        def ended(request: Request) -> None:
            self.at_work.discard(request)

        def began(request: Request) -> None:
            if "/queue/data" in request.url:  # open from the first running handler to the last
                self.at_work.add(request)
                self.begun += 1

        self.page.on("request", began)
        self.page.on("requestfinished", ended)
        self.page.on("requestfailed", ended)
        self.page.on("framenavigated", lambda _: self.at_work.clear())

    def open(self, path: str) -> "Tab":
        """Opens a page of the app and waits until it shows what belongs there."""
        self.page.goto(self.app.url + path)
        return self.wait()

    def wait(self) -> "Tab":
        """Waits until the page that is open has loaded its content."""
        loaded = "#talk .md > *, #duel .md > *, #mine .md > *, #results .md > *, #accounts table, #systems .md > *, #studies .md > *, main.plain"
        self.page.locator(loaded).first.wait_for()
        self.page.locator("#frame nav a, main.plain").first.wait_for(state="attached")
        self.quiet()
        return self

    def until(self, is_so: Callable[[], object], what: str) -> None:
        """Waits for what no locator shows; `what` says it if it never comes."""
        end = time.monotonic() + PATIENCE_MS / 1000
        while not is_so():
            assert time.monotonic() < end, what
            self.page.wait_for_timeout(50)  # meanwhile the page's events are heard

    def quiet(self) -> None:
        """Waits until no handler of the page is at work any more, once something has shown that it was.

        Until then Gradio drops a second press of the same button, and fields may still get their values.
        """
        self.until(lambda: not self.at_work, "a handler of the page does not end")
        self.page.evaluate(TURNS)

    def run(self, act: Callable[[], object]) -> None:
        """Does what calls a handler and waits for its end, whatever it brings."""
        self.quiet()
        before = self.begun
        act()
        self.until(lambda: self.begun > before, "no handler was called")
        self.quiet()

    def told(self, words: str) -> None:
        """Waits until a message of this page has said so; it may be gone again."""
        self.page.wait_for_function(
            "words => [...told].some(said => said.includes(words))", arg=words
        )
        self.quiet()

    def has_told(self, words: str) -> bool:
        """Whether a message of this page has said so up to now."""
        script = "words => [...told].some(said => said.includes(words))"
        return bool(self.page.evaluate(script, words))

    def state(self, expected: str) -> None:
        """Waits until the comparison is in this state, and the page ready for what follows."""
        expect(self.page.locator("#duel .duel")).to_have_attribute("data-state", expected)
        if expected == "votable":
            self.page.wait_for_function(WHOLE)
        if expected != "writing":
            self.quiet()

    def review(self, study: str) -> "Tab":
        """Opens the review page at the next pair of this study."""
        self.open("/zh/review/").choose_study(study)
        self.state("votable")
        return self

    def ticket(self) -> str:
        """The pair on the page; the ratings carry it."""
        return str(self.page.locator("#ratings .ratings").get_attribute("data-ticket"))

    def next_pair(self, before: str) -> None:
        """Waits for another pair than the one with this ticket."""
        expect(self.page.locator("#ratings .ratings")).not_to_have_attribute("data-ticket", before)
        self.state("votable")

    def select(self, side: str, words: str, number: int = 0) -> None:
        """Selects words of an answer, as a hand does. number: of equal passages, from 0."""
        self.page.evaluate(SELECT, [side, words, number])

    def mark(self, side: str, words: str, kind: str) -> None:
        """Selects words of an answer and marks them as this kind of danger."""
        self.select(side, words)
        self.page.locator(f".flag-menu [data-kind={kind}]").click()

    def ask(self, text: str) -> None:
        """Types a question and sends it by Enter."""
        self.quiet()
        self.page.fill("#question textarea", text)
        self.page.press("#question textarea", "Enter")

    def press(self, *keys: str) -> None:
        """Presses keys with the focus in no field."""
        self.quiet()
        self.page.evaluate("document.activeElement && document.activeElement.blur()")
        for key in keys:
            self.page.keyboard.press(key)

    def send(self) -> "Tab":
        """Sends the form of a page without script and waits for the other page that it leads to."""
        before = self.page.url
        self.page.click("main form button")
        self.page.wait_for_url(lambda url: url != before)
        return self.wait()

    def accept(self, link: str, password: str = PASSWORD) -> "Tab":
        """Chooses a password behind a one-time link, as its owner does."""
        self.page.goto(link)
        for box in self.page.locator("input[type=password]").all():
            box.fill(password)
        return self.send()

    def sign_in(self, name: str, there: str = "", password: str = PASSWORD) -> "Tab":
        """Signs in by name and password. there: the page that is wanted."""
        self.name = name
        self.page.goto(f"{self.app.url}/zh/sign-in" + (f"?next={there}" if there else ""))
        self.page.fill("input[name=name]", name)
        self.page.fill("input[name=password]", password)
        return self.send()

    def choose_study(self, name: str) -> None:
        """Takes this study on the page that is open; with a single one there is nothing to choose."""
        box = self.page.locator("#study input")

        def choose() -> None:
            box.click()
            self.page.get_by_role("option", name=name, exact=True).click()

        if box.is_visible() and box.input_value() != name:
            self.run(choose)
            expect(box).to_have_value(name)

    def user_id(self) -> int:
        """Of the one who is signed in here."""
        return int(self.app.rows("SELECT id FROM users WHERE name = ?", self.name)[0]["id"])

    def votes(self) -> list[dict[str, Any]]:
        """The votes of the one who is signed in here, oldest first."""
        return self.app.rows(
            "SELECT v.*, a.left_is, a.comparison_id, c.contestant_a, c.contestant_b, c.study,"
            " c.language, c.external_id FROM votes v JOIN assignments a ON a.id = v.assignment_id"
            " JOIN comparisons c ON c.id = a.comparison_id WHERE a.rater_id = ?"
            " ORDER BY a.seq, v.revision",
            self.user_id(),
        )

    def check(self) -> None:
        """Nothing was asked of any other host, and nothing went wrong on the page."""
        own = urlsplit(self.app.url).netloc
        foreign = [
            url
            for url in self.asked
            if urlsplit(url).scheme not in ("data", "blob") and urlsplit(url).netloc != own
        ]
        assert foreign == []
        allowed = re.compile("|".join(self.expected) or r"\A\b")
        assert [words for words in self.complaints if not allowed.search(words)] == []


def watch(context: BrowserContext, app: App) -> Tab:
    """A tab whose requests, errors and policy violations are kept."""
    expect.set_options(timeout=PATIENCE_MS)
    context.set_default_timeout(PATIENCE_MS)
    context.add_init_script(TOASTS)
    tab = Tab(context.new_page(), context, app)
    context.on("request", lambda request: tab.asked.append(request.url))
    context.on("weberror", lambda error: tab.complaints.append(str(error.error)))
    context.on(
        "console",
        lambda m: tab.complaints.append(m.text) if m.type in ("error", "warning") else None,
    )
    return tab


@pytest.fixture(scope="session")
def serve() -> Callable[..., AbstractContextManager[App]]:
    """Starts an app of its own for tests that change what it serves."""
    return served


@pytest.fixture(scope="session")
def app() -> Iterator[App]:
    """The app on the models that stand here, once for all tests of this folder."""
    with served(write_models, TALKER) as app:
        yield app


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """A browser. Of module scope, because two of Playwright's loops cannot live in one thread."""
    found = next(filter(None, map(shutil.which, CHROMIUMS)), None)
    arguments = ["--no-sandbox", "--disable-dev-shm-usage", "--disable-background-networking"]
    with sync_playwright() as play:
        browser = play.chromium.launch(
            executable_path=found, args=arguments, timeout=1000 * START_S
        )
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def admin(app: App, chromium: Browser) -> Iterator[Tab]:
    """The administrator, on the admin page; the account comes from the link that the app printed."""
    context = chromium.new_context(locale="zh-CN", storage_state=app.admin or None)
    tab = watch(context, app)
    tab.name = "admin"
    if not app.admin:
        tab.accept(app.link())
        app.admin = context.storage_state()  # type: ignore[assignment]
    tab.open("/zh/admin/")
    yield tab
    tab.check()
    context.close()


@pytest.fixture
def open_tab(app: App, chromium: Browser) -> Iterator[Callable[..., Tab]]:
    """Opens a tab in a fresh browser profile; what it did is checked when the test ends."""
    tabs: list[Tab] = []

    def opened(language: str = "zh", **options: Any) -> Tab:
        options.setdefault("locale", "zh-CN" if language == "zh" else "en-US")
        tabs.append(watch(chromium.new_context(**options), app))
        return tabs[-1]

    yield opened
    for tab in tabs:
        tab.context.close()
    for tab in tabs:
        tab.check()


@pytest.fixture
def invited(app: App, admin: Tab) -> Callable[..., tuple[str, str]]:
    """Invites somebody on the admin page; the name and the one-time link."""

    def invite(role: str = "physician", language: str = "zh") -> tuple[str, str]:
        app.made += 1
        name = f"{role}-{app.made}"
        page = admin.page
        if role != "physician":
            page.click("#invite-role input")
            page.locator("[role=option]").nth(
                ("physician", "adjudicator", "researcher", "admin").index(role)
            ).click()
        page.fill("#invite-name input, #invite-name textarea", name)
        page.click("#invite")
        shown = page.locator("#invite-link", has_text=name).locator("code")
        link = shown.inner_text().replace("/zh/", f"/{language}/")
        admin.quiet()  # the box was emptied before it is filled again
        if role != "physician":
            page.reload()
            admin.wait()
        return name, link

    return invite


@pytest.fixture
def signed_in(invited: Any, open_tab: Any) -> Callable[..., Tab]:
    """Somebody new of a role, signed in, on the first page of that role."""

    def somebody(role: str = "physician", language: str = "zh", **options: Any) -> Tab:
        name, link = invited(role, language)
        tab: Tab = open_tab(language, **options)
        tab.name = name
        tab.accept(link)
        return tab

    return somebody
