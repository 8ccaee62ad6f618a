"""for tests: says, stalls, cuts off, fails.

The answer is `says[number of the patient's turn - 1]`, round and round, so it depends on the
conversation alone. `fails` names one fault; all but 'empty', 'busy' and 'refuse' come after half the text.
"""

import asyncio
from collections.abc import AsyncIterator

from huatuo.config import Generation, ModelConfig
from huatuo.engines.base import Chunk, Finish
from huatuo.errors import Busy, Refused, Unavailable
from huatuo.messages import Conversation

CHUNK = 2
"""Characters in one chunk; a chunk counts as one token of `tokens_per_s`."""


class ScriptedEngine:
    """Says what its configuration says."""

    def __init__(self, config: ModelConfig) -> None:
        self.name = config.name
        self._config = config
        self._closed = False

    async def stream(
        self, conversation: Conversation, *, seed: int, settings: Generation | None = None
    ) -> AsyncIterator[Chunk | Finish]:
        """Chunks of two characters, then Finish, or the fault that the configuration names."""
        config = self._config
        if self._closed:
            raise Unavailable(f"{self.name} was closed")
        if config.fails == "busy":
            raise Busy(f"{self.name} is busy; try again in a minute")
        if config.fails == "refuse":
            raise Refused(f"{self.name} declined to answer")
        turn = sum(message.role == "user" for message in conversation)
        text = config.says[(max(turn, 1) - 1) % len(config.says)]
        if config.fails == "empty":
            text = ""
        half = len(text) // 2 if config.fails not in ("", "length") else len(text)
        for start in range(0, half, CHUNK):
            await asyncio.sleep(1 / config.tokens_per_s if config.tokens_per_s else 0)
            yield Chunk(text[start : min(start + CHUNK, half)])
        if config.fails == "stall":
            await asyncio.Event().wait()
        elif config.fails == "cut":
            return
        elif config.fails == "error":
            raise Unavailable(f"{self.name} failed in the middle of its answer; ask again")
        while config.fails == "endless":
            await asyncio.sleep(1 / config.tokens_per_s if config.tokens_per_s else 0)
            yield Chunk("请多喝水。")
        yield Finish("length" if config.fails == "length" else "stop")

    async def close(self) -> None:
        """Later streams raise Unavailable."""
        self._closed = True
