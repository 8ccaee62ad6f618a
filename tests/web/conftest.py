"""A real server on a free port with three small pages, and people of every role."""

import asyncio
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import gradio as gr
import httpx
import pytest
import uvicorn
from fastapi import FastAPI

from huatuo.accounts import Accounts, Role
from huatuo.config import AppConfig
from huatuo.errors import HuatuoError
from huatuo.ui import frame
from huatuo.ui.text import Language
from huatuo.web import Page, Route, build_app, uvicorn_config
from reviews.database import Database
from reviews.migrations import migrate
from reviews.people import People
from tests.patience import LONG_S, free_port

PASSWORD = "correct horse battery"
SECRET = "select * from /secret/path where key = 'sk-123'"


@contextmanager
def served(app: FastAPI, config: AppConfig) -> Iterator[str]:
    """The app on its port in a thread of its own; its address."""
    how = uvicorn_config(app, config)
    how.timeout_keep_alive = int(LONG_S)  # else it may hang up just as a slow client asks again
    server = uvicorn.Server(how)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive(), "the server did not start"
        time.sleep(0.02)
    yield f"http://127.0.0.1:{config.port}"
    server.should_exit = True
    thread.join(LONG_S)


@dataclass
class Site:
    """The running server and what a test needs of it."""

    url: str
    accounts: Accounts
    people: People
    app: object
    config: AppConfig
    cookies: dict[str, str] = field(default_factory=dict)

    def client(self, who: str = "none", **headers: str) -> httpx.Client:
        """A client that is signed in as one of the roles and sends what a browser sends."""
        token = self.cookies.get(who)
        return httpx.Client(
            base_url=self.url,
            cookies={self.accounts.cookie_name: token} if token else {},
            headers={"origin": self.url, **headers},
            timeout=LONG_S,
            verify=False,  # plain HTTP: spares reading the certificates
        )

    def token(self, name: str, role: Role = "physician", password: str = PASSWORD) -> str:
        """A fresh account's session."""
        return self.accounts.accept(self.accounts.invite(role, name, "test"), password)


def build(accounts: Accounts, name: str, role: Role, language: Language) -> gr.Blocks:
    """A page with one stream, one event that fails and one that keeps state."""
    with frame.blocks(name, language) as demo:
        said = gr.Textbox(elem_id="said", label="said")
        go = gr.Button("go", elem_id="go")
        fail = gr.Button("fail", elem_id="fail")
        out = frame.html(elem_id="out")
        kept = gr.State("nothing")

        async def stream(text: str, before: str, request: gr.Request):  # type: ignore[no-untyped-def]
            session = accounts.require(request, role)
            for step in range(5):
                accounts.require(request, role)
                yield f"<p>{session.owner} {text} {step} before={before}</p>", text
                await asyncio.sleep(0.05)

        def broken() -> str:
            raise HuatuoError(SECRET)

        go.click(stream, [said, kept], [out, kept], api_name="stream")
        fail.click(broken, None, out, api_name="broken")
        demo.load(lambda: "<p>loaded</p>", None, out, queue=False, api_name="loaded")
    return demo


def pages(accounts: Accounts) -> list[Page]:
    """One page for each kind of reader."""

    def page(name: str, role: Role) -> Page:
        return Page(name, role, lambda language: build(accounts, name, role, language))

    return [page("chat", "visitor"), page("compare", "physician"), page("admin", "admin")]


def download() -> dict[str, str]:
    """A further route, for researchers."""
    return {"votes": "none"}


def explode() -> None:
    """A route with a fault."""
    raise RuntimeError(SECRET)


ROUTES = (
    Route("/{language}/export", download, "researcher", limit="export"),
    Route("/{language}/explode", explode, "visitor"),
)


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """The server, for all tests of this folder."""
    folder: Path = tmp_path_factory.mktemp("site")
    database = Database(folder / "reviews.sqlite3")
    migrate(database)
    people = People(database)
    config = AppConfig(port=free_port())
    accounts = Accounts(people, config)
    app = build_app(config, accounts, pages(accounts), ROUTES)
    with served(app, config) as url:
        site = Site(url, accounts, people, app, config)
        site.cookies["visitor"] = accounts.visit()
        for role in ("physician", "adjudicator", "researcher", "admin"):
            site.cookies[role] = site.token(role, role)
        yield site
    database.close()
