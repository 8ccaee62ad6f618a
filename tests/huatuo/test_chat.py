"""A visitor's conversation: kept by the server, owned by one session, never built on a failed answer."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from huatuo.accounts import Accounts, Session
from huatuo.chat import ChatDesk, ChatView, told
from huatuo.config import AppConfig, ModelConfig
from huatuo.engines.pool import Pool
from huatuo.errors import Busy, InputError, Unavailable
from huatuo.writing import Desk
from reviews.chats import Chats
from reviews.people import People
from reviews.store import Store
from tests.patience import LONG_S

ME = Session("visitor:me", None, "", "visitor", "zh")
YOU = Session("visitor:you", None, "", "visitor", "zh")
SAYS = ("先量血压，再挂神经内科。", "少熬夜，多喝水。", "不客气，祝您早日康复。")


class Scene:
    def __init__(self, folder: Path, **model: object) -> None:
        self.store = Store.open(folder / "reviews.sqlite3")
        config = AppConfig(chat_model="m", visitor_asks_per_minute=50)
        values = {"says": SAYS, "tokens_per_s": 200.0} | model
        engine = ModelConfig(name="m", title_zh="m", title_en="m", engine="scripted", **values)  # type: ignore[arg-type]
        self.pool = Pool({"m": engine}, folder)
        self.chats = Chats(self.store.database)
        accounts = Accounts(People(self.store.database), config)
        self.desk = ChatDesk(self.chats, self.pool, Desk(), accounts, config)

    async def ready(self) -> None:
        self.pool.start()
        async with asyncio.timeout(LONG_S):
            while self.pool.state("m") == "loading":
                await asyncio.sleep(0.01)

    async def finished(self, session: Session = ME) -> ChatView:
        async with asyncio.timeout(LONG_S):
            while (view := self.desk.view(session)).writing is not None:
                await asyncio.sleep(0.01)
        return view


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    scene = Scene(tmp_path)
    yield scene
    scene.store.close()


def test_a_conversation_of_several_turns_is_kept_and_told_to_the_model(scene: Scene) -> None:
    async def act() -> None:
        await scene.ready()
        await scene.desk.ask(ME, "头疼三天", "zh")
        await scene.finished()
        await scene.desk.ask(ME, "还要注意什么", "zh")
        view = await scene.finished()
        assert [turn.role for turn in view.turns] == ["user", "assistant"] * 2
        assert all(turn.finish == "stop" for turn in view.turns if turn.role == "assistant")
        assert [message.text for message in told(view.turns[:3])] == [
            "头疼三天", view.turns[1].text, "还要注意什么",
        ]  # fmt: skip

    asyncio.run(act())


def test_nobody_sees_the_conversation_of_somebody_else(scene: Scene) -> None:
    async def act() -> None:
        await scene.ready()
        await scene.desk.ask(ME, "头疼三天", "zh")
        await scene.finished()
        assert scene.desk.view(YOU).turns == ()

    asyncio.run(act())


def test_a_second_question_waits_for_the_first_answer(scene: Scene) -> None:
    async def act() -> None:
        await scene.ready()
        await scene.desk.ask(ME, "头疼三天", "zh")
        with pytest.raises(Busy):
            await scene.desk.ask(ME, "头疼三天", "zh")
        view = await scene.finished()
        assert len(view.turns) == 2

    asyncio.run(act())


@pytest.mark.parametrize("other", ["ask", "regenerate", "new"])
def test_nothing_else_is_done_while_a_question_is_being_filed(scene: Scene, other: str) -> None:
    async def act() -> None:
        await scene.ready()
        await scene.desk.ask(ME, "头疼三天", "zh")
        first = (await scene.finished()).turns[-1]
        asking = asyncio.create_task(scene.desk.ask(ME, "还要注意什么", "zh"))
        await asyncio.sleep(0)  # it is in its thread now
        with pytest.raises(Busy):
            if other == "ask":
                await scene.desk.ask(ME, "第三问", "zh")
            elif other == "regenerate":
                await scene.desk.regenerate(ME)
            else:
                scene.desk.new(ME, "zh")
        await asking
        turns = (await scene.finished()).turns
        assert [t.text for t in turns if t.role == "user"] == ["头疼三天", "还要注意什么"]
        assert len(turns) == 4 and turns[1].id == first.id

    asyncio.run(act())


def test_stop_keeps_half_an_answer_marked_as_such(tmp_path: Path) -> None:
    scene = Scene(tmp_path, says=("一二三四五六七八九十" * 3,), tokens_per_s=20.0)

    async def act() -> None:
        await scene.ready()
        await scene.desk.ask(ME, "头疼三天", "zh")
        while not (writing := scene.desk.view(ME).writing) or not writing.text:
            await asyncio.sleep(0.01)
        scene.desk.stop(ME)
        view = await scene.finished()
        assert view.turns[-1].finish == "cancelled" and view.turns[-1].text

    asyncio.run(act())
    scene.store.close()


def test_regenerate_replaces_the_answer_on_the_page_only(scene: Scene) -> None:
    async def act() -> None:
        await scene.ready()
        await scene.desk.ask(ME, "头疼三天", "zh")
        first = (await scene.finished()).turns[-1]
        await scene.desk.regenerate(ME)
        view = await scene.finished()
        assert len(view.turns) == 2 and view.turns[-1].id != first.id

    asyncio.run(act())


def test_a_failed_answer_is_shown_as_failed_and_never_told_to_the_model(tmp_path: Path) -> None:
    scene = Scene(tmp_path, fails="cut")

    async def act() -> None:
        await scene.ready()
        await scene.desk.ask(ME, "头疼三天", "zh")
        view = await scene.finished()
        assert view.turns[-1].finish == "error"
        assert told((*view.turns, view.turns[0]))[0].text == "头疼三天"
        assert len(told((*view.turns, view.turns[0]))) == 1
        assert scene.desk.rate(ME, 1) in (0, 1)

    asyncio.run(act())
    scene.store.close()


def test_identifiers_are_masked_before_they_are_stored(scene: Scene) -> None:
    async def act() -> None:
        await scene.ready()
        found = await scene.desk.ask(ME, "我叫王小明，电话13800138000，胸口疼出冷汗", "zh")
        view = await scene.finished()
        assert "phone" in found and "13800138000" not in view.turns[0].text
        assert "chest_pain" in view.turns[0].notices

    asyncio.run(act())


def test_bad_input_and_a_missing_model_store_nothing(scene: Scene) -> None:
    async def act() -> None:
        with pytest.raises(InputError):
            await scene.desk.ask(ME, "长" * 100_000, "zh")
        await scene.pool.close()
        with pytest.raises(Unavailable):
            await scene.desk.ask(ME, "头疼", "zh")
        assert scene.desk.view(ME).turns == ()

    asyncio.run(act())


def test_thumbs_are_set_and_taken_back(scene: Scene) -> None:
    async def act() -> None:
        await scene.ready()
        await scene.desk.ask(ME, "头疼三天", "zh")
        await scene.finished()
        assert scene.desk.rate(ME, 1) == 1 and scene.desk.view(ME).turns[-1].thumb == 1
        assert scene.desk.rate(ME, 1) == 0 and scene.desk.view(ME).turns[-1].thumb == 0
        assert scene.desk.rate(ME, -1) == -1

    asyncio.run(act())
