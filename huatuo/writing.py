"""answers being written in the background; pages only watch them.

A page that reloads, a second tab or a phone finds the answer where it stands, because the task that
writes it belongs to the server and not to the page's connection.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field

from huatuo.engines.base import Chunk, Finish
from huatuo.errors import Busy, EngineError

log = logging.getLogger(__name__)


@dataclass
class Writing:
    """One answer while it is written, and after.

    finish: None while writing; then 'stop', 'length', 'cancelled' or 'error'. fault: the name of the
    EngineError's class when finish is 'error' (its text stays in the log: it may name a model).
    dropped_turns: oldest turns that did not fit into the model's context.
    """

    key: str
    text: str = ""
    finish: str | None = None
    fault: str = ""
    started: float = field(default_factory=time.monotonic)
    first_s: float | None = None
    seconds: float | None = None
    dropped_turns: int = 0
    recorded: bool = False


class Desk:
    """All answers that are being written now, by key; one per key."""

    def __init__(self) -> None:
        self._open: dict[str, tuple[Writing, asyncio.Task[None]]] = {}

    def get(self, key: str) -> Writing | None:
        """The answer being written under this key, or None when there is none (any more)."""
        entry = self._open.get(key)
        return entry[0] if entry else None

    def start(
        self,
        key: str,
        stream: AsyncGenerator[Chunk | Finish, None],
        record: Callable[[Writing], None],
    ) -> Writing:
        """Begins to write; `record` is called once, in a thread, when the answer has ended.

        The answer leaves the desk only after `record` returned, so a reader finds it either here or
        in the record. Raises Busy when an answer is being written under this key already.
        """
        if key in self._open:
            raise Busy("an answer is still being written here; stop it or wait")
        writing = Writing(key)
        task = asyncio.get_running_loop().create_task(self._write(writing, stream, record))
        self._open[key] = (writing, task)
        return writing

    def cancel(self, key: str) -> None:
        """Stops the answer under this key; what was written is recorded as 'cancelled'."""
        entry = self._open.get(key)
        if entry:
            entry[1].cancel()

    async def close(self) -> None:
        """Stops every answer and waits until each is recorded."""
        tasks = [task for _, task in self._open.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _write(
        self,
        writing: Writing,
        stream: AsyncGenerator[Chunk | Finish, None],
        record: Callable[[Writing], None],
    ) -> None:
        try:
            finish, fault = await _read(writing, stream)
        except asyncio.CancelledError:
            finish, fault = "cancelled", ""
        writing.seconds = time.monotonic() - writing.started
        ended = Writing(**{**vars(writing), "finish": finish, "fault": fault})
        try:
            await asyncio.shield(asyncio.to_thread(record, ended))
        except Exception:  # the record refused: the answer counts as failed, never as given
            log.exception("an answer could not be recorded")
            finish, fault = "error", "other"
        finally:
            writing.finish, writing.fault, writing.recorded = finish, fault, True
            self._open.pop(writing.key, None)


async def _read(writing: Writing, stream: AsyncGenerator[Chunk | Finish, None]) -> tuple[str, str]:
    """Reads the stream into `writing`; (finish, fault). Only an engine's Finish makes 'stop'."""
    try:
        async with contextlib.aclosing(stream):
            async for item in stream:
                if isinstance(item, Finish):
                    writing.dropped_turns = item.dropped_turns
                    return item.reason, ""
                if item.thinking:
                    continue
                writing.first_s = writing.first_s or time.monotonic() - writing.started
                writing.text += item.text
    except EngineError as error:
        log.warning("answer %s failed: %s: %s", writing.key, type(error).__name__, error)
        return "error", type(error).__name__
    except Exception:  # an engine's own fault must not look like an answer
        log.exception("answer %s failed", writing.key)
        return "error", "other"
    return "error", "Truncated"
