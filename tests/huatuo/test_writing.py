"""Answers written in the background end once, are recorded once, and a failure is never an answer."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from huatuo.engines.base import Chunk, Finish
from huatuo.errors import Busy, Truncated
from huatuo.writing import Desk, Writing
from tests.patience import LONG_S


async def says(*items: Chunk | Finish, pause_s: float = 0.0) -> AsyncIterator[Chunk | Finish]:
    for item in items:
        await asyncio.sleep(pause_s)
        yield item


async def breaks() -> AsyncIterator[Chunk | Finish]:
    yield Chunk("half an ")
    raise Truncated("the line was cut")


async def wait_for(writing: Writing) -> None:
    async with asyncio.timeout(LONG_S):
        while not writing.recorded:
            await asyncio.sleep(0.005)


def test_an_answer_is_recorded_once_and_then_leaves_the_desk() -> None:
    async def scene() -> None:
        desk, kept = Desk(), []
        writing = desk.start("k", says(Chunk("a"), Chunk("b"), Finish("stop")), kept.append)
        assert desk.get("k") is writing
        await wait_for(writing)
        assert [(w.text, w.finish) for w in kept] == [("ab", "stop")]
        assert desk.get("k") is None

    asyncio.run(scene())


@pytest.mark.parametrize("stream", [breaks, lambda: says(Chunk("half an "))])
def test_a_stream_that_breaks_off_is_recorded_as_an_error(stream) -> None:  # type: ignore[no-untyped-def]
    async def scene() -> None:
        desk, kept = Desk(), []
        writing = desk.start("k", stream(), kept.append)
        await wait_for(writing)
        assert [(w.text, w.finish, w.fault) for w in kept] == [("half an ", "error", "Truncated")]

    asyncio.run(scene())


def test_a_cancelled_answer_keeps_what_was_written() -> None:
    async def scene() -> None:
        desk, kept = Desk(), []
        endless = says(*[Chunk("x")] * 1000, pause_s=0.01)
        writing = desk.start("k", endless, kept.append)
        while not writing.text:
            await asyncio.sleep(0.005)
        desk.cancel("k")
        await wait_for(writing)
        assert kept[0].finish == "cancelled" and kept[0].text.startswith("x")

    asyncio.run(scene())


def test_one_answer_at_a_time_under_one_key() -> None:
    async def scene() -> None:
        desk = Desk()
        desk.start("k", says(Finish("stop"), pause_s=0.1), lambda _: None)
        with pytest.raises(Busy):
            desk.start("k", says(Finish("stop")), lambda _: None)
        await desk.close()

    asyncio.run(scene())


def test_an_answer_that_cannot_be_recorded_counts_as_failed() -> None:
    def refuses(_: Writing) -> None:
        raise OSError("the disk is full")

    async def scene() -> None:
        desk = Desk()
        writing = desk.start("k", says(Chunk("text"), Finish("stop")), refuses)
        await wait_for(writing)
        assert writing.finish == "error" and desk.get("k") is None

    asyncio.run(scene())


def test_closing_the_desk_records_what_stands() -> None:
    async def scene() -> None:
        desk, kept = Desk(), []
        desk.start("k", says(*[Chunk("x")] * 1000, pause_s=0.01), kept.append)
        await asyncio.sleep(0.05)
        await desk.close()
        assert [w.finish for w in kept] == ["cancelled"]

    asyncio.run(scene())
