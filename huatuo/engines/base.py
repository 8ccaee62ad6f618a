"""the Engine protocol: a stream of text ends in a finish reason, a deadline or an error.

An answer is finished only when its stream ended with `Finish`. A stream that just stops, says nothing
or repeats itself without end raises; half an answer is never an answer.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

from huatuo.errors import Refused, Timeout, Truncated
from huatuo.messages import Conversation

if TYPE_CHECKING:
    from huatuo.config import Generation


@dataclass(frozen=True)
class Chunk:
    """A piece of the answer; the pieces in order are the answer, those with `thinking` left out."""

    text: str
    thinking: bool = False
    """What the model says to itself before it answers: progress, never part of the answer."""


@dataclass(frozen=True)
class Finish:
    """The last thing a stream yields: 'stop' (the model ended) or 'length' (the limit was reached)."""

    reason: Literal["stop", "length"]
    dropped_turns: int = 0
    """Oldest turns that the model did not see, because the conversation outgrew its context."""


@dataclass(frozen=True)
class Deadlines:
    """How long an answer may take, in seconds."""

    first_token_s: float = 30.0
    between_tokens_s: float = 20.0
    whole_answer_s: float = 120.0


class Engine(Protocol):
    """Something that answers a conversation."""

    name: str

    def stream(
        self, conversation: Conversation, *, seed: int, settings: "Generation | None" = None
    ) -> AsyncIterator[Chunk | Finish]:
        """Chunks, then one Finish. Cancelled by `aclose()` or by cancelling the task. Raises EngineError.

        settings: how to answer this time, instead of the model's own settings (a study's protocol).
        """
        ...

    async def close(self) -> None:
        """Frees what the engine holds; running answers end with an error."""
        ...


async def with_deadlines(
    stream: AsyncIterator[Chunk | Finish], deadlines: Deadlines, *, question: str = ""
) -> AsyncGenerator[Chunk | Finish, None]:
    """The same stream, checked: raises Timeout, Truncated (no Finish, or endless repetition) or
    Refused('empty ...') when nothing visible was said, or nothing but the question (of 10 characters or more).
    Thoughts, also empty ones, are progress. The inner stream is always closed."""
    started = time.monotonic()
    end = started + deadlines.whole_answer_s
    text = thoughts = ""
    begun = False
    try:
        while True:
            patience = deadlines.between_tokens_s if begun else deadlines.first_token_s
            item = await _next(stream, min(patience, end - time.monotonic()), bool(text))
            if item is None:
                raise Truncated(
                    "the answer broke off before its end; ask again"
                    if text
                    else "the connection closed before the first word; ask again"
                )
            if isinstance(item, Finish):
                if not any(sign.isprintable() and not sign.isspace() for sign in text):
                    raise Refused("empty answer: the model said nothing; ask again")
                if len(question.strip()) >= 10 and text.strip() == question.strip():
                    raise Refused("empty answer: the model only repeated the question; ask again")
                yield item
                return
            begun = begun or item.thinking or bool(item.text)
            if item.text:
                if item.thinking:
                    thoughts += item.text
                else:
                    text += item.text
                yield item
                if is_endless(thoughts if item.thinking else text):
                    raise Truncated("the model repeats itself without end; the answer was stopped")
    finally:
        close = getattr(stream, "aclose", None)
        if close is not None:
            await close()


async def _next(
    stream: AsyncIterator[Chunk | Finish], seconds: float, begun: bool
) -> Chunk | Finish | None:
    """The next item, or None at the end. Raises Timeout after `seconds`."""
    try:
        async with asyncio.timeout(max(seconds, 0.0)):
            return await anext(stream)
    except StopAsyncIteration:
        return None
    except TimeoutError:
        what = "stopped in the middle of its answer" if begun else "did not begin to answer"
        raise Timeout(f"the model {what} in time; ask again") from None


def is_endless(text: str) -> bool:
    """Whether the end of the text is one unit said over and over: 8 times and over at least 60
    characters for a unit of up to 64, 4 times for a longer one of up to 200, 100 times for 1 character."""
    tail = text[-1000:]
    if len(tail) < 60 or tail[-20:] not in tail[:-1]:
        return False
    for size in range(1, 201):
        times = 100 if size == 1 else max(8, 60 // size) if size <= 64 else 4
        if len(tail) < size * times:
            continue
        unit = tail[-size:]
        if tail.endswith(unit * times):
            return True
    return False
