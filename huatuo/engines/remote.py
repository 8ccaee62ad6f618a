"""a model behind a server that speaks the OpenAI protocol.

An answer is finished only when the server says so: a stream that closes cleanly without a finish
reason is Truncated. Up to three tries before the first word, none after it. What the patient wrote is
masked (huatuo/privacy.py) before it is sent; a server that answers as another model is refused; the key and the server's own words never reach a message.
"""

import asyncio
import contextlib
import functools
import os
import random
import re
import ssl
from collections.abc import AsyncGenerator, AsyncIterator
from typing import cast
from urllib.parse import urlsplit

import httpx2
from openai import APIConnectionError, APIStatusError, APITimeoutError, AsyncOpenAI, OpenAIError
from openai.types.chat import ChatCompletionChunk, ChatCompletionMessageParam

from huatuo.config import Generation, ModelConfig, is_safe_url
from huatuo.engines.base import Chunk, Finish
from huatuo.errors import Busy, ConfigError, EngineError, Refused, Truncated, Unavailable
from huatuo.messages import Conversation
from huatuo.privacy import mask

TRIES = 3
LONGEST_WAIT_S = 8.0
"""A server that asks for a longer wait than this is Busy at once."""
CONNECT_S = 5.0
SILENCE_S = 120.0
"""Longest silence on the wire; the deadlines of huatuo/engines/base.py are shorter."""
CHARACTERS_PER_TOKEN = 20
"""A server that sends more characters than this for each allowed token does not stop by itself."""


class RemoteEngine:
    """One model of one server. Raises ConfigError if the address is not https or loopback."""

    def __init__(self, config: ModelConfig) -> None:
        if not is_safe_url(config.base_url):
            raise ConfigError(f"{config.name}: base_url must be https, or http on this machine")
        self.name = config.name
        self._config = config
        self._closed = False

    async def stream(
        self, conversation: Conversation, *, seed: int, settings: Generation | None = None
    ) -> AsyncIterator[Chunk | Finish]:
        """Chunks as they arrive, then Finish('stop' or 'length').

        settings: instead of the model's own; what the protocol does not know is not sent. `seed` is passed on;
        servers treat it as a wish. Raises Busy, Refused (also for another model's answer), Truncated or Unavailable.
        """
        settings = settings or self._config.generation
        if self._closed:
            raise Unavailable(f"{self.name} was closed")
        said = 0
        limit = CHARACTERS_PER_TOKEN * settings.max_new_tokens
        async with self._client() as client:
            for attempt in range(1, TRIES + 1):
                try:
                    asked = self._ask(client, conversation, settings, seed)
                    async with contextlib.aclosing(asked) as items:
                        async for item in items:
                            yield item
                            if isinstance(item, Finish):
                                return
                            said += len(item.text)
                            if said > limit:
                                raise Truncated(
                                    f"{self.name} does not stop; the answer was cut off"
                                )
                    raise Truncated(f"{self.name} broke off without finishing; ask again")
                except (OpenAIError, httpx2.HTTPError, httpx2.InvalidURL, ValueError) as error:
                    if said:
                        raise Truncated(f"{self.name} broke off in mid-answer; ask again") from None
                    wait = _wait_s(error, attempt)
                    if wait is None:
                        raise self._as_engine_error(error) from None
                await asyncio.sleep(wait)

    async def close(self) -> None:
        """Later streams raise Unavailable; connections live only as long as an answer."""
        self._closed = True

    def _client(self) -> AsyncOpenAI:
        config = self._config
        key = os.environ.get(config.api_key_env, "") if config.api_key_env else "none"
        if not key:
            raise Unavailable(
                f"{self.name}: the environment variable {config.api_key_env} is not set"
            )
        secure = config.base_url.startswith("https:")
        return AsyncOpenAI(
            api_key=key,
            base_url=config.base_url,
            max_retries=0,
            http_client=httpx2.AsyncClient(
                follow_redirects=False,
                timeout=httpx2.Timeout(SILENCE_S, connect=CONNECT_S),
                verify=_tls() if secure else False,
                trust_env=secure,  # a proxy of the house, but never for this machine itself
            ),
        )

    async def _ask(
        self, client: AsyncOpenAI, conversation: Conversation, settings: Generation, seed: int
    ) -> AsyncGenerator[Chunk | Finish, None]:
        answer = await client.chat.completions.create(
            model=self._config.model,
            messages=_messages(conversation),
            temperature=settings.temperature,
            top_p=settings.top_p,
            max_tokens=settings.max_new_tokens,
            seed=seed % 2**31,
            stream=True,
        )
        # openai leaves its own generator open when the reader stops early. It and the stream hold each
        # other, so the garbage collector would close it later, perhaps in another thread: closed here.
        async with (
            answer,
            contextlib.aclosing(
                cast(AsyncGenerator[ChatCompletionChunk, None], answer._iterator)
            ) as events,
        ):
            async for event in events:
                for item in self._items(event):
                    yield item

    def _items(self, event: ChatCompletionChunk) -> list[Chunk | Finish]:
        """What one event says; nothing for usage-only events, null contents and empty choices."""
        if not getattr(event, "choices", None):
            return []
        self._check_name(getattr(event, "model", None))
        choice = event.choices[0]
        items: list[Chunk | Finish] = []
        text = getattr(choice.delta, "content", None)
        if isinstance(text, str) and text:
            items.append(Chunk(text))
        reason = choice.finish_reason
        if reason == "stop" or reason == "length":
            items.append(Finish(reason))
        elif reason in ("content_filter", "tool_calls", "function_call"):
            raise Refused(f"{self.name} declined to answer ({reason}); ask in other words")
        elif reason is not None:
            raise Truncated(f"{self.name} ended for an unknown reason; ask again")
        return items

    def _check_name(self, said: object) -> None:
        """Raises Refused if the server says that another model answers. No name at all is no other name."""
        if isinstance(said, str) and said and not is_same_model(said, self._config):
            raise Refused(
                f"{self.name}: the server answered as another model; check `model` in its file, or allow that name "
                "by answers_as"
            )

    def _as_engine_error(self, error: Exception) -> EngineError:
        if isinstance(error, APIStatusError):
            return self._of_status(error.status_code)
        if isinstance(error, APITimeoutError | APIConnectionError | httpx2.HTTPError):
            place = urlsplit(self._config.base_url).hostname
            return Unavailable(f"{self.name}: no connection to {place}; is the server running?")
        return Unavailable(f"{self.name}: the server's answer cannot be read")

    def _of_status(self, status: int) -> EngineError:
        if status in (429, 503):
            return Busy(f"{self.name} is overloaded (HTTP {status}); try again in a minute")
        if status >= 500 or status in (408, 409):
            return Unavailable(f"{self.name}: the server failed (HTTP {status}); try again later")
        if status in (401, 403):
            return Refused(
                f"{self.name}: the server did not accept the key (HTTP {status}); "
                f"check the variable that api_key_env names"
            )
        if status == 404:
            return Refused(f"{self.name}: no such model or address (HTTP 404); check its file")
        if 300 <= status < 400:
            return Refused(
                f"{self.name}: the server redirects (HTTP {status}), which is not followed"
            )
        return Refused(f"{self.name}: the server refused the question (HTTP {status})")


def is_same_model(said: str, config: ModelConfig) -> bool:
    """Whether a server's name of the answering model is the one asked for, a dated version of it, or allowed."""
    dated = re.fullmatch(re.escape(config.model) + r"-(\d{4}|\d{4}-\d{2}-\d{2})", said)
    return (
        dated is not None or said in (config.model, *config.answers_as) or "*" in config.answers_as
    )


def _messages(conversation: Conversation) -> list[ChatCompletionMessageParam]:
    messages: list[ChatCompletionMessageParam] = []
    for message in conversation:
        text = mask(message.text).text
        if message.role == "user":
            messages.append({"role": "user", "content": text})
        else:
            messages.append({"role": "assistant", "content": text})
    return messages


def _wait_s(error: Exception, attempt: int) -> float | None:
    """Seconds until the next try, or None if there is none."""
    if attempt >= TRIES or isinstance(error, APITimeoutError):
        return None
    if isinstance(error, APIStatusError):
        status = error.status_code
        if status not in (408, 409, 429) and status < 500:
            return None
        asked = error.response.headers.get("retry-after", "")
        if asked.isdecimal():
            return float(asked) if float(asked) <= LONGEST_WAIT_S else None
    elif not isinstance(error, APIConnectionError | httpx2.HTTPError):
        return None
    return float(0.5 * 2 ** (attempt - 1) * random.uniform(0.75, 1.0))


@functools.cache
def _tls() -> ssl.SSLContext:
    return httpx2.create_ssl_context()
