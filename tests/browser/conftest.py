"""The real app on models that say what a test wants, people of every role, and tabs that are watched.

The app is a process of its own, with its own database in data/. Its models are remote ones whose
server stands here, so that a test decides what each says and when: nothing depends on time.
"""

import json
import re
import secrets
import shutil
import socket
import sqlite3
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

ROOT = Path(__file__).resolve().parents[2]
PASSWORD = "correct horse battery"
TALKER = "talker"
CONTESTANTS = {
    "qingnang-7": ("青囊七号", "Qingnang Seven"),
    "xinglin-3": ("杏林三号", "Xinglin Three"),
}
SAYS = {
    TALKER: "您好。先考虑**紧张型头痛**。\n\n1. 怕光吗？\n2. 血压多少？\n\n请到神经内科就诊。",
    "qingnang-7": "您好。先考虑**紧张型头痛**，也要排除血压高。\n\n1. 怕光怕吵吗？\n2. 平时血压多少？",
    "xinglin-3": "疼多久了？先量个血压，挂神经内科看看。",
}
CUT = object()
"""A step of an answer: the connection ends here, before the answer does."""
CHROMIUMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
PATIENCE_MS = 90_000
START_S = 240

Step = str | int | threading.Event | object
"""Text; an HTTP status instead of an answer; an event that is waited for; CUT."""


class Models(ThreadingHTTPServer):
    """A server of models that speaks the OpenAI protocol and says what it was told to say."""

    daemon_threads = True
    cut = CUT

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        self.asked: list[tuple[str, list[dict[str, str]]]] = []
        self._plans: dict[tuple[str, str], list[list[Step]]] = {}
        self._guard = threading.Lock()
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def plan(self, model: str, question: str, *attempts: list[Step]) -> None:
        """What `model` answers to `question`: the first time, the second, and so on."""
        self._plans[model, question] = list(attempts)

    def both(self, question: str, *steps: Step) -> None:
        """The same answer by both contestants."""
        for model in CONTESTANTS:
            self.plan(model, question, list(steps))

    def steps(self, model: str, messages: list[dict[str, str]]) -> list[Step]:
        """What to say now."""
        with self._guard:
            self.asked.append((model, messages))
            attempts = self._plans.get((model, messages[-1]["content"]))
            if not attempts:
                return [SAYS[model]]
            return attempts.pop(0) if len(attempts) > 1 else attempts[0]

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A reader that hung up is nothing to report."""


class _Answer(BaseHTTPRequestHandler):
    server: Models
    model = ""

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.model = asked["model"]
        steps = self.server.steps(self.model, asked["messages"])
        status = steps[0] if isinstance(steps[0], int) else 200
        self.send_response(status)
        self.send_header("content-type", "text/event-stream")
        self.end_headers()
        for step in steps if status == 200 else []:
            if isinstance(step, threading.Event):
                step.wait(60)
            elif isinstance(step, str):
                for start in range(0, len(step), 8):
                    self._send({"content": step[start : start + 8]}, None)
            elif step is CUT:
                return
        if status == 200:
            self._send({}, "stop")
            self.wfile.write(b"data: [DONE]\n\n")

    def _send(self, delta: dict[str, str], finish: str | None) -> None:
        choice = {"index": 0, "delta": delta, "finish_reason": finish}
        event = {"id": "x", "object": "chat.completion.chunk", "created": 0, "model": self.model}
        self.wfile.write(f"data: {json.dumps({**event, 'choices': [choice]})}\n\n".encode())

    def log_message(self, *_: Any) -> None:
        """Quiet."""


@dataclass
class App:
    """The running app."""

    url: str
    data: Path
    models: Models
    log: Path
    admin: dict[str, Any] = field(default_factory=dict)
    made: int = 0

    def rows(self, query: str, *values: object) -> list[dict[str, Any]]:
        """What SQLite holds, read by another connection than the app's."""
        place = f"file:{self.data / 'reviews.sqlite3'}?mode=ro"
        with sqlite3.connect(place, uri=True) as database:
            database.row_factory = sqlite3.Row
            return [dict(row) for row in database.execute(query, values)]

    def link(self) -> str:
        """The first administrator's link, as the app printed it."""
        found = re.search(r"http://\S+/invite/\S+", self.log.read_text(encoding="utf-8"))
        assert found, self.log.read_text(encoding="utf-8")
        return found[0]

    def import_pairs(self, study: str, pairs: list[dict[str, str]]) -> None:
        """Files pairs in a study by the importer's command line."""
        path = self.data / f"{study}.jsonl"
        path.write_text("".join(json.dumps(p, ensure_ascii=False) + "\n" for p in pairs), "utf-8")
        command = [sys.executable, "-m", "reviews.importer", str(path)]
        command += ["--study", study, "--data", str(self.data)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


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

    def open(self, path: str) -> "Tab":
        """Opens a page of the app and waits until it shows what belongs there."""
        self.page.goto(self.app.url + path)
        return self.wait()

    def wait(self) -> "Tab":
        """Waits until the page that is open has loaded its content."""
        loaded = "#talk .md > *, #duel .md > *, #mine .md > *, #results .md > *, #accounts table, #systems .md > *, #studies .md > *, main.plain"
        self.page.locator(loaded).first.wait_for()
        return self

    def ask(self, text: str) -> None:
        """Types a question and sends it by Enter."""
        self.page.fill("#question textarea", text)
        self.page.press("#question textarea", "Enter")

    def press(self, *keys: str) -> None:
        """Presses keys with the focus in no field."""
        self.page.evaluate("document.activeElement && document.activeElement.blur()")
        for key in keys:
            self.page.keyboard.press(key)

    def choose_study(self, name: str) -> None:
        """Takes this study on the review page; with a single one there is nothing to choose."""
        box = self.page.locator("#study input")
        if box.is_visible() and box.input_value() != name:
            box.click()
            self.page.get_by_role("option", name=name, exact=True).click()
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
    context.set_default_timeout(PATIENCE_MS)
    tab = Tab(context.new_page(), context, app)
    context.on("request", lambda request: tab.asked.append(request.url))
    context.on("weberror", lambda error: tab.complaints.append(str(error.error)))
    context.on(
        "console",
        lambda m: tab.complaints.append(m.text) if m.type in ("error", "warning") else None,
    )
    return tab


def free_port() -> int:
    """A port nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def write_models(folder: Path, port: int) -> None:
    """One file for each model that stands on the server at `port`."""
    folder.mkdir()
    for name, (zh, en) in {TALKER: ("问诊演示", "Talk demo"), **CONTESTANTS}.items():
        contestant = str(name in CONTESTANTS).lower()
        text = (
            f'name = "{name}"\ntitle_zh = "{zh}"\ntitle_en = "{en}"\nengine = "remote"\n'
            f'base_url = "http://127.0.0.1:{port}/v1"\nmodel = "{name}"\n'
            f"leaves_country = false\ncontestant = {contestant}\n"
        )
        (folder / f"{name}.toml").write_text(text, encoding="utf-8")


@contextmanager
def served(write: Callable[[Path, int], None], chat_model: str) -> Iterator[App]:
    """The app as `python app.py` starts it. write: fills the folder of models, given the models' port."""
    expect.set_options(timeout=PATIENCE_MS)
    models = Models()
    data = ROOT / "data" / f"test-browser-{secrets.token_hex(4)}"
    data.mkdir(parents=True)
    write(data / "models", models.server_port)
    port, log = free_port(), data / "app.log"
    inside = data.relative_to(ROOT)
    flags = {
        "port": port,
        "data-dir": inside,
        "models-dir": inside / "models",
        "chat-model": chat_model,
        **dict.fromkeys(("asks-per-minute", "visitor-asks-per-minute", "asks-per-day"), 9999),
    }
    command = [sys.executable, "app.py", *(f"--{key}={value}" for key, value in flags.items())]
    with log.open("w", encoding="utf-8") as out:
        process = subprocess.Popen(command, cwd=ROOT, stdout=out, stderr=subprocess.STDOUT)
    try:
        app = App(f"http://127.0.0.1:{port}", data, models, log)
        _await_answer(app, process)
        yield app
        faults = re.findall(r".*(?:Traceback|unexpected error).*", log.read_text("utf-8"))
        assert faults == [], log.read_text("utf-8")[-5000:]
    finally:
        process.terminate()
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        models.shutdown()
        shutil.rmtree(data, ignore_errors=True)


@pytest.fixture(scope="session")
def serve() -> Callable[..., AbstractContextManager[App]]:
    """Starts an app of its own for tests that change what it serves."""
    return served


@pytest.fixture(scope="session")
def app() -> Iterator[App]:
    """The app on the models that stand here, once for all tests of this folder."""
    with served(write_models, TALKER) as app:
        yield app


def _await_answer(app: App, process: "subprocess.Popen[bytes]") -> None:
    until = time.monotonic() + START_S
    while time.monotonic() < until and process.poll() is None:
        try:
            with urllib.request.urlopen(f"{app.url}/healthz", timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    pytest.fail(f"the app did not start:\n{app.log.read_text('utf-8')[-5000:]}", pytrace=False)


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """A browser. Of module scope, because two of Playwright's loops cannot live in one thread."""
    found = next(filter(None, map(shutil.which, CHROMIUMS)), None)
    arguments = ["--no-sandbox", "--disable-dev-shm-usage", "--disable-background-networking"]
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=found, args=arguments)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def admin(app: App, chromium: Browser) -> Iterator[Tab]:
    """The administrator, on the admin page; the account comes from the link that the app printed."""
    context = chromium.new_context(locale="zh-CN", storage_state=app.admin or None)
    tab = watch(context, app)
    tab.name = "admin"
    if not app.admin:
        accept(tab, app.link())
        app.admin = context.storage_state()  # type: ignore[assignment]
    tab.open("/zh/admin/")
    yield tab
    tab.check()
    context.close()


def accept(tab: Tab, link: str) -> None:
    """Chooses a password behind an invitation, as its owner does."""
    tab.page.goto(link)
    for box in tab.page.locator("input[type=password]").all():
        box.fill(PASSWORD)
    tab.page.click("main form button")
    tab.page.wait_for_url(lambda url: "/invite/" not in url)
    tab.wait()


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
        accept(tab, link)
        return tab

    return somebody
