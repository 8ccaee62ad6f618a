"""Blindness on the wire: every byte that a physician's browser receives before the vote is searched."""

import contextlib
import json
import socket
import threading
from collections.abc import Iterator
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import expect

pytestmark = [pytest.mark.browser]
SECRETS = ("qingnang", "xinglin", "青囊", "杏林", "Qingnang Seven", "Xinglin Three")
PREPARED = ("omega-oracle", "sigma-sage")


class Wire:
    """Stands between browser and app and keeps all that the app sends."""

    def __init__(self, app_url: str) -> None:
        self.seen = bytearray()
        self._app = ("127.0.0.1", urlsplit(app_url).port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def names(self, words: tuple[str, ...], since: int = 0) -> list[str]:
        """Those of the words that came over the wire, plain or escaped as in JSON."""
        text = bytes(self.seen[since:]).decode("utf-8", "replace").lower()
        return [w for w in words if w.lower() in text or json.dumps(w)[1:-1].lower() in text]

    def close(self) -> None:
        """Takes no more connections."""
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                browser, _ = self._listener.accept()
                app = socket.create_connection(self._app)
                for source, sink, kept in ((browser, app, False), (app, browser, True)):
                    threading.Thread(
                        target=self._pass, args=(source, sink, kept), daemon=True
                    ).start()

    def _pass(self, source: socket.socket, sink: socket.socket, kept: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if kept:
                    self.seen += data
                sink.sendall(data)
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def wire(app: Any) -> Iterator[Wire]:
    """The wire of one test."""
    wire = Wire(app.url)
    yield wire
    wire.close()


def signed_in_over(wire: Wire, app: Any, invited: Any, open_tab: Any, language: str) -> Any:
    """A new physician whose browser knows the app only through the wire, uncompressed."""
    name, link = invited(language=language)
    tab = open_tab(language, extra_http_headers={"accept-encoding": "identity"})
    tab.app, tab.name = replace(app, url=wire.url), name
    return tab.accept(link.replace(app.url, wire.url))


@pytest.mark.parametrize("language", ["zh", "en"])
def test_no_byte_before_the_vote_names_a_model_of_a_live_pair(
    app: Any, invited: Any, open_tab: Any, wire: Wire, language: str
) -> None:
    question, gate = f"你是谁 {language}", threading.Event()
    opening = "您好，请先说说头疼多久了、哪里疼、有没有发烧，我再判断。"
    mine = [opening, "我是青囊", gate, "七号（Qingnang Seven, qingnang-7）。", opening]
    app.models.plan("qingnang-7", question, mine)
    half = [opening, "作为杏林三", gate, app.models.cut]
    app.models.plan("xinglin-3", question, half, ["作为杏林三号，我想问：发烧吗？"])
    tab = signed_in_over(wire, app, invited, open_tab, language)
    tab.ask(question)
    duel = tab.page.locator("#duel .duel")
    expect(duel).to_contain_text(opening[:4])
    gate.set()
    tab.state("broken")
    tab.page.click("#retry")
    tab.state("votable")
    tab.page.reload()
    tab.state("votable")
    expect(duel).to_contain_text(opening)
    expect(duel).to_contain_text("发烧吗")
    assert wire.names(SECRETS) == []
    assert not [secret for secret in SECRETS if secret in tab.page.content()]
    tab.press("1", "Enter")
    tab.state("voted")
    assert wire.names(SECRETS), "the wire shows what is told after the vote"
    tab.page.click("#next")
    expect(tab.page.locator("#duel .welcome")).to_be_visible()
    since = len(wire.seen)
    tab.ask("下一对也看不出来")
    tab.state("votable")
    assert wire.names(SECRETS, since) == []


def test_no_byte_of_the_review_page_names_a_model_not_even_after_votes(
    app: Any, invited: Any, open_tab: Any, wire: Wire
) -> None:
    pairs = [
        {
            "id": str(number),
            "question": f"盲评 {number}",
            "answer_a": f"我是 Omega-Oracle，{number} 号回答",
            "answer_b": "多喝水",
            "model_a": PREPARED[0],
            "model_b": PREPARED[1],
        }
        for number in range(2)
    ]
    app.import_pairs("a-blind-study", pairs)
    tab = signed_in_over(wire, app, invited, open_tab, "zh").open("/zh/review/")
    tab.choose_study("a-blind-study")
    for done in range(2):
        expect(tab.page.locator("#progress")).to_contain_text(f"已评 {done} / 2")
        tab.state("votable")
        tab.press("1", "Enter")
    expect(tab.page.locator("#duel .welcome")).to_be_visible()
    expect(tab.page.locator("#undo-last")).to_be_visible()
    tab.press("z")
    expect(tab.page.locator("#duel .revising")).to_be_visible()
    assert len(tab.votes()) == 2
    assert wire.names(PREPARED) == []
    assert not [name for name in PREPARED if name in tab.page.content().lower()]
