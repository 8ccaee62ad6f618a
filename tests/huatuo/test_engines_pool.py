"""Deadlines, the scripted engine, and the pool in front of all engines."""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from huatuo.config import ModelConfig
from huatuo.engines.base import Chunk, Deadlines, Finish, is_endless, with_deadlines
from huatuo.engines.pool import Pool
from huatuo.engines.scripted import ScriptedEngine
from huatuo.errors import Busy, EngineError, Refused, Timeout, Truncated, Unavailable
from huatuo.messages import Conversation, Message
from tests.patience import LONG_S, JumpingLoop

ASK: Conversation = (Message("user", "头痛怎么办？"),)
SAYS = "请多休息，多喝水。如果加重，请到神经内科就诊。"
FAST = Deadlines(0.3, 0.3, 2.0)
"""For what must end by a deadline; what must not has the wide ones of tests/conftest.py."""


def scripted(name: str = "a", **more: Any) -> ModelConfig:
    values = {
        "name": name,
        "title_zh": "甲",
        "title_en": "A",
        "engine": "scripted",
        "says": (SAYS,),
    }
    return ModelConfig(**{**values, **more})


def local(path: Path, name: str = "weights") -> ModelConfig:
    return ModelConfig(
        name=name, title_zh="甲", title_en="A", engine="local", path=path, template="huatuo-nano"
    )


async def collect(stream: AsyncIterator[Chunk | Finish]) -> tuple[str, str | None]:
    text, finish = "", None
    async for item in stream:
        if isinstance(item, Finish):
            finish = item.reason
        else:
            text += item.text
    return text, finish


def test_an_answer_ends_with_its_finish_reason() -> None:
    stream = ScriptedEngine(scripted()).stream(ASK, seed=1)
    assert asyncio.run(collect(with_deadlines(stream, Deadlines()))) == (SAYS, "stop")
    stream = ScriptedEngine(scripted(fails="length")).stream(ASK, seed=1)
    assert asyncio.run(collect(with_deadlines(stream, Deadlines()))) == (SAYS, "length")


@pytest.mark.parametrize(
    ("fails", "kind"),
    [
        ("stall", Timeout),
        ("cut", Truncated),
        ("error", Unavailable),
        ("empty", Refused),
        ("busy", Busy),
        ("refuse", Refused),
        ("endless", Truncated),
    ],
)
def test_each_fault_is_its_own_error(fails: str, kind: type[EngineError]) -> None:
    stream = ScriptedEngine(scripted(fails=fails)).stream(ASK, seed=1)
    deadlines = FAST if fails == "stall" else Deadlines()
    with pytest.raises(kind):
        asyncio.run(collect(with_deadlines(stream, deadlines)))


def test_the_whole_answer_has_a_deadline_too(monkeypatch: pytest.MonkeyPatch) -> None:
    slow = ScriptedEngine(scripted(says=(SAYS * 20,), tokens_per_s=20.0)).stream(ASK, seed=1)
    with asyncio.Runner(loop_factory=JumpingLoop) as runner:
        loop = runner.get_loop()
        monkeypatch.setattr("huatuo.engines.base.time", SimpleNamespace(monotonic=loop.time))
        with pytest.raises(Timeout):
            runner.run(collect(with_deadlines(slow, Deadlines(1, 1, 0.5))))
        assert loop.time() == pytest.approx(0.5)


def test_the_answer_follows_the_patients_turn() -> None:
    engine = ScriptedEngine(scripted(says=("一", "二")))
    second = (*ASK, Message("assistant", "一"), Message("user", "还有呢"))
    assert asyncio.run(collect(engine.stream(ASK, seed=1))) == ("一", "stop")
    assert asyncio.run(collect(engine.stream(second, seed=9))) == ("二", "stop")


@pytest.mark.parametrize(
    ("text", "endless"),
    [
        ("多喝水。" * 20, True),
        ("好" * 100, True),
        ("\n" * 100, True),
        ("先说别的，" + "建议您到医院的神经内科就诊，做头颅检查，排除其他疾病，" * 8, True),
        ("| a | b |\n|---|---|\n" + "".join(f"| {i} | {i * 7} |\n" for i in range(60)), False),
        ("".join(f"{i}. 多喝水，注意休息。\n" for i in range(1, 9)), False),
        ("您好，多喝水。" * 5, False),
        ("哈哈哈哈哈哈", False),
    ],
)
def test_endless_repetition_is_told_from_a_list(text: str, endless: bool) -> None:
    assert is_endless(text) is endless


async def settled(pool: Pool, *names: str) -> None:
    pool.start()
    for _ in range(int(LONG_S / 0.02)):
        if all(pool.state(name) != "loading" for name in names):
            return
        await asyncio.sleep(0.02)
    raise AssertionError("still loading")


def test_a_missing_and_a_damaged_model_are_down_and_the_others_answer(
    tiny_checkpoint: Path, tmp_path: Path
) -> None:
    import shutil

    broken = tmp_path / "broken"
    shutil.copytree(tiny_checkpoint, broken)
    weights = (broken / "model.safetensors").read_bytes()
    (broken / "model.safetensors").unlink()
    (broken / "model.safetensors").write_bytes(weights[:-7])
    models = {
        "weights": local(tiny_checkpoint),
        "broken": local(broken, "broken"),
        "gone": local(tmp_path / "gone", "gone"),
        "a": scripted(),
        "b": scripted("b", contestant=False),
        "off": scripted("off", enabled=False),
    }

    async def run() -> None:
        pool = Pool(models, Path("/"), Deadlines())
        assert pool.state("weights") == "loading" and pool.ready() == []
        await settled(pool, *models)
        assert pool.ready() == ["weights", "a", "b"]
        assert pool.contestants() == ["weights", "a"]
        assert "model.safetensors" in pool.why("broken") and "gone" in pool.why("gone")
        assert "enabled" in pool.why("off") and pool.why("a") == ""
        assert pool.state("nobody") == "down" and "nobody" in pool.why("nobody")
        for name in ("gone", "broken", "off", "nobody"):
            with pytest.raises(Unavailable):
                await collect(pool.stream(name, ASK, 1))
        both = await asyncio.gather(*(collect(pool.stream("weights", ASK, 4)) for _ in range(2)))
        assert both[0] == both[1]
        await pool.close()
        with pytest.raises(Unavailable):
            await collect(pool.stream("a", ASK, 1))

    asyncio.run(run())


def test_a_question_waits_while_its_model_loads() -> None:
    async def run() -> None:
        pool = Pool({"a": scripted()}, Path("/"), Deadlines())
        asking = asyncio.create_task(collect(pool.stream("a", ASK, 1)))
        await asyncio.sleep(0.1)
        assert not asking.done()
        pool.start()
        assert await asking == (SAYS, "stop")
        never = Pool({"a": scripted()}, Path("/"), FAST)
        with pytest.raises(Unavailable, match="loaded"):
            await collect(never.stream("a", ASK, 1))

    asyncio.run(run())


def test_refresh_takes_new_changed_and_removed_files(tmp_path: Path) -> None:
    async def run() -> None:
        pool = Pool({"a": scripted(), "b": scripted("b")}, tmp_path, Deadlines())
        await settled(pool, "a", "b")
        running = pool.stream("b", ASK, 1)
        await anext(running)
        await pool.refresh({"a": scripted(says=("新的回答",)), "c": scripted("c")})
        await settled(pool, "a", "c")
        assert pool.ready() == ["a", "c"]
        assert await collect(pool.stream("a", ASK, 1)) == ("新的回答", "stop")
        assert (await collect(running))[1] == "stop"

    asyncio.run(run())


def test_an_answer_keeps_its_engine_when_its_model_is_changed_or_removed(
    tiny_checkpoint: Path,
) -> None:
    async def run() -> None:
        pool = Pool({"weights": local(tiny_checkpoint)}, Path("/"), Deadlines())
        await settled(pool, "weights")
        whole = await collect(pool.stream("weights", ASK, 3))
        slot = pool._slots["weights"]
        engine: Any = slot.engine
        running = pool.stream("weights", ASK, 3)
        first = await anext(running)
        await pool.refresh({})
        assert pool.state("weights") == "down" and not engine._closed.is_set()
        text, finish = await collect(running)
        assert (getattr(first, "text", "") + text, finish) == whole
        assert engine._closed.is_set(), "closed with its last answer"
        with pytest.raises(Unavailable):
            await collect(pool.stream("weights", ASK, 3))

    asyncio.run(run())


def test_a_pool_knows_whether_waiting_is_worth_it() -> None:
    async def run() -> None:
        pool = Pool({"a": scripted(), "b": scripted("b")}, Path("/"), FAST)
        assert pool.awaits(2) and not pool.awaits(3)
        started = time.monotonic()
        await pool.wait(2)  # nothing loads: patience ends, or this would never return
        assert 0.2 < time.monotonic() - started < 60 and pool.awaits(2)
        pool = Pool({"a": scripted(), "b": scripted("b")}, Path("/"), Deadlines())
        asyncio.get_running_loop().call_later(0.1, pool.start)
        await pool.wait(2)
        assert pool.contestants() == ["a", "b"] and not pool.awaits(2)

    asyncio.run(run())


def test_closing_a_stream_early_leaves_nothing_running() -> None:
    async def run() -> None:
        pool = Pool({"a": scripted(tokens_per_s=50.0)}, Path("/"), Deadlines())
        await settled(pool, "a")
        stream = pool.stream("a", ASK, 1)
        await anext(stream)
        await stream.aclose()  # type: ignore[attr-defined]
        before = asyncio.all_tasks()
        await asyncio.sleep(0.1)
        assert asyncio.all_tasks() == before

    asyncio.run(run())
