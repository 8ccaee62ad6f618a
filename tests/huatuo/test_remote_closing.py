"""What the remote engine leaves behind when its reader stops early: no connection, and nothing for the collector."""

import asyncio
import contextlib
import gc
import inspect

import pytest

from huatuo.engines.base import Chunk, Deadlines, with_deadlines
from huatuo.engines.remote import RemoteEngine
from huatuo.errors import Truncated
from tests.huatuo.test_remote_engine import (
    ASK,
    HALF,
    KEY,
    WELL,
    Answer,
    configured,
    event,
    serving,
    streamed,
)
from tests.patience import LONG_S


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_ENGINE_KEY", KEY)


def test_cancelling_closes_the_connection() -> None:
    async def run() -> None:
        closed = asyncio.Event()

        async def endless(writer: asyncio.StreamWriter) -> None:
            try:
                await streamed(*[event("字") if i % 2 else 0.02 for i in range(2000)])(writer)
            except ConnectionError:  # not when all was said
                closed.set()
                raise

        async with serving(endless) as server:
            stream = RemoteEngine(configured(server.port)).stream(ASK, seed=1)
            assert isinstance(await anext(stream), Chunk)
            await stream.aclose()  # type: ignore[attr-defined]
            await asyncio.wait_for(closed.wait(), LONG_S)

    asyncio.run(run())


def open_generators() -> list[object]:
    """All that have begun and not ended, or not begun."""
    found = [thing for thing in gc.get_objects() if inspect.isasyncgen(thing)]
    return [generator for generator in found if generator.ag_frame is not None]


@pytest.mark.parametrize(
    ("answer", "listened"),
    [(WELL, 9), (streamed(HALF), 9), (streamed(HALF, b"data: {not json\n\n"), 9), (WELL, 1)],
    ids=["finished", "closed", "garbage", "reader left"],
)
def test_nothing_is_left_for_the_garbage_collector_to_close(answer: Answer, listened: int) -> None:
    """An open generator in a cycle would be closed by the collector, in whichever thread it runs."""

    async def run() -> list[object]:
        async with serving(answer) as server:
            stream = RemoteEngine(configured(server.port)).stream(ASK, seed=1)
            with contextlib.suppress(Truncated):
                async with contextlib.aclosing(with_deadlines(stream, Deadlines())) as items:
                    heard = 0
                    async for _ in items:
                        heard += 1
                        if heard == listened:
                            break
        for _ in range(100):  # what the last reference let go of is closed by the loop
            await asyncio.sleep(0.05)
            if not (left := [one for one in open_generators() if id(one) not in before]):
                break
        return left

    gc.collect()
    before = {id(one) for one in open_generators()}  # of a server that another test keeps
    gc.disable()
    try:
        assert asyncio.run(run()) == []
    finally:
        gc.enable()
