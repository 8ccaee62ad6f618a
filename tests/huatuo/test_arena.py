"""Live comparisons: blind in name and in time, whole or not votable, and owned by one rater."""

import asyncio
import random
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from huatuo.accounts import Accounts, Session
from huatuo.arena import HELD_BACK, Arena, Duel, show
from huatuo.config import AppConfig, ModelConfig
from huatuo.engines.pool import Pool
from huatuo.errors import InputError, TooFast, Unavailable
from huatuo.writing import Desk, Writing
from reviews.errors import NotFinished, NotYours, UnknownAssignment
from reviews.people import People
from reviews.records import Assignment, Comparison, PreparedPair, PreparedTurn, Turn, utcnow
from reviews.store import Store
from tests.patience import LONG_S

LONG = (
    "先量一次血压，记下头疼的时间和诱因，再到神经内科看看，必要时做头颅检查，疼得厉害可以吃布洛芬。"
)


def model(name: str, says: str, speed: float = 0.0, fails: str = "") -> ModelConfig:
    return ModelConfig(
        name=name, title_zh=name, title_en=name, engine="scripted", says=(says,),
        tokens_per_s=speed, fails=fails,
    )  # fmt: skip


class Scene:
    """A real record, scripted engines, one physician signed in."""

    def __init__(self, folder: Path, *models: ModelConfig) -> None:
        self.store = Store.open(folder / "reviews.sqlite3")
        people = People(self.store.database)
        config = AppConfig(asks_per_minute=30)
        self.accounts = Accounts(people, config)
        self.pool = Pool({m.name: m for m in models}, folder)
        self.arena = Arena(self.store, self.pool, Desk(), self.accounts, config, random.Random(1))
        self.rater = self.session(people, "wang")
        self.other = self.session(people, "li")

    @staticmethod
    def session(people: People, name: str) -> Session:
        user = people.add_user(name, "physician", "x", "test")
        return Session(f"user:{user.id}", user.id, name, "physician", "zh")

    async def loaded(self) -> None:
        self.pool.start()
        async with asyncio.timeout(LONG_S):
            while any(self.pool.state(name) == "loading" for name in self.pool.configs):
                await asyncio.sleep(0.01)

    async def finished(self, ticket: str) -> list[Duel]:
        async with asyncio.timeout(LONG_S):
            return [duel async for duel in self.arena.watch(self.rater, ticket)]


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    scene = Scene(tmp_path, model("alpha", LONG, 200), model("beta", "短短短", 50))
    yield scene
    scene.store.close()


def test_a_pair_is_asked_watched_voted_and_only_then_named(scene: Scene) -> None:
    async def act() -> None:
        await scene.loaded()
        ticket, masked = await scene.arena.ask(scene.rater, None, "手机13800138000，头疼", "zh")
        assert masked == {"phone": 1}
        duels = await scene.finished(ticket)
        assert {d.state for d in duels[:-1]} <= {"writing"} and duels[-1].state == "votable"
        assert all(d.names is None for d in duels)
        assert "13800138000" not in duels[-1].turns[0].question
        ticket_2, _ = await scene.arena.ask(scene.rater, ticket, "还有呢", "zh")
        assert ticket_2 == ticket
        await scene.finished(ticket)
        scene.store.cast_vote(ticket, scene.rater.user_id, "left")
        named = scene.arena.view(scene.rater, ticket)
        assert named.state == "voted" and set(named.names or ()) == {"alpha", "beta"}
        assert len(named.turns) == 2

    asyncio.run(act())


def test_both_sides_show_the_same_number_of_characters_while_writing(scene: Scene) -> None:
    async def act() -> None:
        await scene.loaded()
        ticket, _ = await scene.arena.ask(scene.rater, None, "头疼", "zh")
        for duel in await scene.finished(ticket):
            left, right = duel.turns[-1].left, duel.turns[-1].right
            if duel.state == "writing" and len(left.text) != len(right.text):
                # Only a text that has ended may be the shorter one.
                assert min(left.text, right.text, key=len) == "短短短"

    asyncio.run(act())


def test_what_is_shown_does_not_depend_on_which_side_is_slow() -> None:
    comparison = Comparison("c", "live", "live", "alpha", "beta", "", "", "zh", {}, {},
                            (Turn(1, "q", None, None),), "", "")  # fmt: skip
    assignment = Assignment("t", "c", 1, "a", "open", utcnow())
    held = "〇" * HELD_BACK
    slow, fast = Writing("a", text="一二" + held), Writing("b", text="一二三四五六" + held)
    for writings in ({"a": slow, "b": fast}, {"a": fast, "b": slow}):
        turn = show(assignment, comparison, (), writings).turns[0]
        assert (turn.left.text, turn.right.text) == ("一二", "一二")


def test_no_part_of_a_name_is_shown_while_an_answer_grows() -> None:
    comparison = Comparison("c", "live", "live", "qingnang-7", "beta", "", "", "zh", {}, {},
                            (Turn(1, "q", None, None),), "", "")  # fmt: skip
    assignment = Assignment("t", "c", 1, "a", "open", utcnow())
    whole = "您好，我叫HuatuoGPT，也叫青囊七号（qingnang-7）。请先量血压，" + "再看医生，" * 20
    for end in range(1, len(whole)):
        writings = {"a": Writing("a", text=whole[:end]), "b": Writing("b", text=whole)}
        shown = show(assignment, comparison, ("青囊七号",), writings).turns[0].left.text
        assert not re.search("(?i)hua|gpt|青囊|qing", shown), shown


def test_a_failed_side_makes_the_pair_unvotable_until_it_is_retried(tmp_path: Path) -> None:
    scene = Scene(tmp_path, model("alpha", "好的" * 10), model("beta", "坏了", fails="cut"))

    async def act() -> None:
        await scene.loaded()
        ticket, _ = await scene.arena.ask(scene.rater, None, "头疼", "zh")
        assert (await scene.finished(ticket))[-1].state == "broken"
        with pytest.raises(NotFinished):
            scene.store.cast_vote(ticket, scene.rater.user_id, "left")
        with pytest.raises(NotFinished):
            await scene.arena.ask(scene.rater, ticket, "再问", "zh")
        await scene.arena.retry(scene.rater, ticket)
        assert len((await scene.finished(ticket))[-1].turns) == 1
        assert scene.store.votes() == []

    asyncio.run(act())
    scene.store.close()


def test_nobody_sees_or_continues_a_comparison_of_somebody_else(scene: Scene) -> None:
    async def act() -> None:
        await scene.loaded()
        ticket, _ = await scene.arena.ask(scene.rater, None, "头疼", "zh")
        await scene.finished(ticket)
        with pytest.raises(NotYours):
            scene.arena.view(scene.other, ticket)
        with pytest.raises(NotYours):
            await scene.arena.ask(scene.other, ticket, "再问", "zh")

    asyncio.run(act())


def test_bad_input_draws_no_pair(scene: Scene) -> None:
    async def act() -> None:
        await scene.loaded()
        for text in ("", " \u200b ", "长" * 100_000, "\ud800"):
            with pytest.raises(InputError):
                await scene.arena.ask(scene.rater, None, text, "zh")
        assert scene.arena.current(scene.rater) is None

    asyncio.run(act())


def test_one_contestant_is_not_a_comparison(tmp_path: Path) -> None:
    scene = Scene(tmp_path, model("alpha", "好"))

    async def act() -> None:
        await scene.loaded()
        with pytest.raises(Unavailable):
            await scene.arena.ask(scene.rater, None, "头疼", "zh")

    asyncio.run(act())
    scene.store.close()


def test_the_sides_are_drawn_evenly(tmp_path: Path) -> None:
    scene = Scene(tmp_path, model("alpha", "好"), model("beta", "行"))

    async def act() -> None:
        await scene.loaded()
        lefts = []
        for _ in range(40):
            try:
                ticket, _ = await scene.arena.ask(scene.rater, None, "头疼", "zh")
            except TooFast:
                break
            await scene.finished(ticket)
            scene.store.cast_vote(ticket, scene.rater.user_id, "tie")
            lefts.append((scene.arena.view(scene.rater, ticket).names or ("", ""))[0])
        assert 0.2 < lefts.count("alpha") / len(lefts) < 0.8

    asyncio.run(act())
    scene.store.close()


def test_a_prepared_pair_cannot_be_opened_here_where_names_follow_the_vote(scene: Scene) -> None:
    pair = PreparedPair("case", "alpha", "beta", (PreparedTurn("头疼", "量血压", "多休息"),))
    scene.store.add_prepared("study", [pair], "test")
    assert scene.rater.user_id is not None
    prepared = scene.store.next_prepared(scene.rater.user_id, "study")
    assert prepared is not None

    async def act() -> None:
        await scene.loaded()
        with pytest.raises(UnknownAssignment):
            scene.arena.view(scene.rater, prepared.id)
        with pytest.raises(UnknownAssignment):
            await scene.finished(prepared.id)
        with pytest.raises(UnknownAssignment):
            await scene.arena.retry(scene.rater, prepared.id)
        with pytest.raises(UnknownAssignment):
            await scene.arena.ask(scene.rater, prepared.id, "还有呢", "zh")

    asyncio.run(act())


def test_a_question_in_the_first_seconds_waits_for_the_models(scene: Scene) -> None:
    async def act() -> None:
        asking = asyncio.create_task(scene.arena.ask(scene.rater, None, "头疼", "zh"))
        await asyncio.sleep(0.2)
        assert not asking.done()
        scene.pool.start()
        ticket, _ = await asking
        assert (await scene.finished(ticket))[-1].state == "votable"

    asyncio.run(act())
