"""Servers abroad: not a connection without consent, not an identifier with one, and none in logs, record or exports (P3, P4)."""

import asyncio
import contextlib
import json
import logging
import threading
from collections.abc import AsyncIterator, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from huatuo import privacy
from huatuo.accounts import Accounts, Session
from huatuo.arena import Arena
from huatuo.chat import ChatDesk
from huatuo.config import AppConfig, ModelConfig
from huatuo.engines.pool import Pool
from huatuo.errors import NoConsent, Unavailable
from huatuo.messages import Message
from huatuo.writing import Desk
from reviews.chats import Chats
from reviews.export import export
from reviews.people import People
from reviews.protocol import Protocol
from reviews.store import Store
from tests.patience import LONG_S

PLANTED = (
    "13912345678", "110105194912313319", "王建国", "zhang.san@163.com", "wxid_a8k3j2m1", "ZY0012345",
    "6222028301661318604", "文三路128号",
)  # fmt: skip
QUESTION = (
    "我叫王建国，手机13912345678，身份证110105194912313319，微信wxid_a8k3j2m1，住院号：ZY0012345，邮箱zhang.san@163.com，"
    "银行卡6222028301661318604，家住杭州市西湖区文三路128号2幢501室。头痛三天怎么办？"
)
VISITOR = Session("visitor:me", None, "", "visitor", "zh")


class Abroad:
    """An OpenAI-like server that counts connections and keeps what it hears; `broken` answers 500 with an echo."""

    def __init__(self) -> None:
        self.connections = 0
        self.heard: list[str] = []
        self.broken = False
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                text = self.rfile.read(int(self.headers["content-length"])).decode()
                outer.heard.append(text)
                if outer.broken:
                    body, kind, status = (
                        json.dumps({"error": {"message": text}}),
                        "application/json",
                        500,
                    )
                else:
                    chunk = {
                        "id": "1",
                        "object": "chat.completion.chunk",
                        "created": 1,
                        "model": "far",
                    }
                    says = [
                        {**chunk, "choices": [{"index": 0, "delta": {"content": "多喝水。"}, "finish_reason": None}]},
                        {**chunk, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]},
                    ]  # fmt: skip
                    body = (
                        "".join(f"data: {json.dumps(say)}\n\n" for say in says) + "data: [DONE]\n\n"
                    )
                    kind, status = "text/event-stream", 200
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body.encode())))
                self.end_headers()
                self.wfile.write(body.encode())

            def log_message(self, *_: object) -> None:
                """Silent."""

        class Counting(ThreadingHTTPServer):
            def get_request(self):  # type: ignore[no-untyped-def]
                outer.connections += 1
                return super().get_request()

        self.server = Counting(("127.0.0.1", 0), Handler)
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def model(self, name: str, consent_id: str = "") -> ModelConfig:
        return ModelConfig(
            name=name, title_zh=name, title_en=name, engine="remote", model="far",
            base_url=f"http://127.0.0.1:{self.port}/v1", consent_id=consent_id,
        )  # fmt: skip


@pytest.fixture
def abroad() -> Iterator[Abroad]:
    server = Abroad()
    yield server
    server.server.shutdown()
    server.server.server_close()


class Scene:
    def __init__(self, folder: Path, *models: ModelConfig) -> None:
        self.path = folder / "reviews.sqlite3"
        self.store = Store.open(self.path)
        people = People(self.store.database)
        config = AppConfig(
            chat_model=models[0].name, asks_per_minute=50, visitor_asks_per_minute=50
        )
        accounts = Accounts(people, config)
        self.pool = Pool({m.name: m for m in models}, folder)
        self.chat = ChatDesk(Chats(self.store.database), self.pool, Desk(), accounts, config)
        self.arena = Arena(self.store, self.pool, Desk(), accounts, config)
        user = people.add_user("wang", "physician", "x", "test")
        self.rater = Session(f"user:{user.id}", user.id, "wang", "physician", "zh")
        self.user_id = user.id

    def on_disk(self) -> str:
        files = [self.path, self.path.with_name(self.path.name + "-wal")]
        return "".join(f.read_bytes().decode("utf-8", "replace") for f in files if f.exists())


@contextlib.asynccontextmanager
async def running(folder: Path, *models: ModelConfig) -> AsyncIterator[Scene]:
    scene = Scene(folder, *models)
    scene.pool.start()
    async with asyncio.timeout(LONG_S):
        while any(scene.pool.state(m.name) == "loading" for m in models):
            await asyncio.sleep(0.01)
        yield scene
    await scene.pool.close()
    scene.store.close()


async def answered(scene: Scene) -> str:
    while (view := scene.chat.view(VISITOR)).writing is not None:
        await asyncio.sleep(0.01)
    return view.turns[-1].text


async def compared(scene: Scene, ticket: str) -> str:
    return [duel async for duel in scene.arena.watch(scene.rater, ticket)][-1].state


def test_without_a_consent_no_page_opens_a_connection(abroad: Abroad, tmp_path: Path) -> None:
    async def act() -> None:
        near = ModelConfig(
            name="near", title_zh="n", title_en="n", engine="scripted", says=("好。",)
        )
        async with running(tmp_path, abroad.model("far-1"), abroad.model("far-2"), near) as scene:
            with pytest.raises(NoConsent, match="far-1 is on a server abroad: set consent_id"):
                await scene.chat.ask(VISITOR, "头痛", "zh")
            assert scene.chat.view(VISITOR).turns == ()
            with pytest.raises(Unavailable):
                await scene.arena.ask(scene.rater, None, "头痛", "zh")
            with pytest.raises(NoConsent):
                async for _ in scene.pool.stream("far-2", (Message("user", "头痛"),), 1):
                    pass

    asyncio.run(act())
    assert abroad.connections == 0


def test_a_studys_own_consent_counts_in_a_study_and_no_other(
    abroad: Abroad, tmp_path: Path
) -> None:
    async def act() -> None:
        models = (abroad.model("far-1", "HOSPITAL-7"), abroad.model("far-2", "HOSPITAL-7"))
        async with running(tmp_path, *models) as scene:
            for name, consent in (("without", ""), ("with", "IRB-2026-11")):
                scene.store.file_study(Protocol(name, kind="live", consent_id=consent), "test")
                given = scene.store.open_live(
                    scene.user_id, "far-1", "far-2", "a", language="zh", study=name
                )
                await scene.arena.ask(scene.rater, given.id, "头痛三天", "zh")
                state = await compared(scene, given.id)
                assert (state, abroad.connections > 0) == (
                    ("votable", True) if consent else ("broken", False)
                )
                scene.store.skip(given.id, scene.user_id)

    asyncio.run(act())


def test_with_consent_no_identifier_reaches_server_record_log_or_export(
    abroad: Abroad, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def act() -> None:
        models = (abroad.model("far-1", "HOSPITAL-7"), abroad.model("far-2", "HOSPITAL-7"))
        async with running(tmp_path, *models) as scene:
            await scene.chat.ask(VISITOR, QUESTION, "zh")
            assert await answered(scene) == "多喝水。"
            ticket, _ = await scene.arena.ask(scene.rater, None, QUESTION, "zh")
            assert await compared(scene, ticket) == "votable"
            scene.store.cast_vote(ticket, scene.user_id, "left", reason=privacy.mask(QUESTION).text)
            abroad.broken = True
            with contextlib.suppress(Unavailable):
                await scene.chat.ask(VISITOR, QUESTION, "zh")
                await answered(scene)
            export(scene.store.database, tmp_path / "out")
            exported = "".join(
                p.read_bytes().decode("utf-8", "replace") for p in (tmp_path / "out").iterdir()
            )
            assert "头痛三天" in "".join(
                json.loads(h)["messages"][-1]["content"] for h in abroad.heard
            )
            assert "头痛三天" in scene.on_disk() and "头痛三天" in exported
            for text in (*abroad.heard, scene.on_disk(), exported, caplog.text):
                plain = text.encode().decode("unicode_escape", "replace") if "\\u" in text else text
                assert not [planted for planted in PLANTED if planted in text or planted in plain]

    with caplog.at_level(logging.DEBUG):
        asyncio.run(act())
    assert len(abroad.heard) >= 4
