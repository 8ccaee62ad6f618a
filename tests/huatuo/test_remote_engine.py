"""The remote engine against a real HTTP server on 127.0.0.1 that speaks the protocol and breaks it."""

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from huatuo.config import Generation, ModelConfig
from huatuo.engines import remote
from huatuo.engines.base import Deadlines, Finish, with_deadlines
from huatuo.engines.remote import RemoteEngine
from huatuo.errors import Busy, ConfigError, EngineError, Refused, Timeout, Truncated, Unavailable
from huatuo.messages import Conversation, Message

KEY = "sk-secret-key-that-must-not-show-0123456789"
ASK: Conversation = (Message("user", "我的手机13800138000，头痛怎么办？"),)
SAID = "阿司匹林每次100mg，"


def event(text: str | None = None, finish: str | None = None, **more: Any) -> bytes:
    delta = {} if text is None else {"role": "assistant", "content": text}
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    body = {
        "id": "1",
        "object": "chat.completion.chunk",
        "created": 0,
        "model": "m",
        "choices": [choice],
        **more,
    }
    return b"data: " + json.dumps(body, ensure_ascii=False).encode() + b"\n\n"


DONE = b"data: [DONE]\n\n"
Answer = Callable[[asyncio.StreamWriter], Coroutine[Any, Any, None]]


@dataclass
class Server:
    """Answers every request with the next behaviour; the last one stays."""

    answers: list[Answer]
    requests: list[dict[str, Any]] = field(default_factory=list)
    heads: list[str] = field(default_factory=list)
    port: int = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            length = next(
                int(line.split(":")[1])
                for line in head.lower().split("\r\n")
                if line.startswith("content-length")
            )
            self.requests.append(json.loads(await reader.readexactly(length)))
            self.heads.append(head)
            await self.answers[min(len(self.requests), len(self.answers)) - 1](writer)
        writer.close()


@contextlib.asynccontextmanager
async def serving(*answers: Answer) -> AsyncIterator[Server]:
    server = Server(list(answers))
    listener = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    server.port = listener.sockets[0].getsockname()[1]
    try:
        yield server
    finally:
        listener.close()


def streamed(*parts: bytes | float, cut: bool = False) -> Answer:
    """A chunked answer; a number is a pause in seconds; `cut` leaves the chunked coding open."""

    async def answer(writer: asyncio.StreamWriter) -> None:
        writer.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\n"
            b"Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
        )
        for part in parts:
            if isinstance(part, float):
                await asyncio.sleep(part)
            else:
                writer.write(f"{len(part):x}\r\n".encode() + part + b"\r\n")
                await writer.drain()
        if not cut:
            writer.write(b"0\r\n\r\n")
        await writer.drain()

    return answer


def failing(status: int, *headers: str, body: str = "") -> Answer:
    async def answer(writer: asyncio.StreamWriter) -> None:
        text = body or json.dumps({"error": {"message": f"Incorrect API key provided: {KEY}"}})
        lines = [f"HTTP/1.1 {status} X", "Content-Type: application/json", "Connection: close"]
        lines += [*headers, f"Content-Length: {len(text.encode())}", "", text]
        writer.write("\r\n".join(lines).encode())
        await writer.drain()

    return answer


async def hang_up(writer: asyncio.StreamWriter) -> None:
    writer.transport.abort()


WELL = streamed(event(""), event(SAID), event("饭后服。"), event(finish="stop"), DONE)


def configured(port: int, **more: Any) -> ModelConfig:
    values: dict[str, Any] = {
        "name": "far",
        "title_zh": "远",
        "title_en": "far",
        "engine": "remote",
        "base_url": f"http://127.0.0.1:{port}/v1",
        "model": "m",
        "api_key_env": "TEST_ENGINE_KEY",
        "leaves_country": False,
        "generation": Generation(max_new_tokens=64),
        **more,
    }
    return ModelConfig(**values)


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_ENGINE_KEY", KEY)


@dataclass
class Heard:
    text: str
    finish: str | None
    error: EngineError | None
    requests: int
    waited: list[float]
    """The seconds that it meant to wait before further tries."""
    server: Server


def ask(*answers: Answer, deadlines: Deadlines | None = None, **more: Any) -> Heard:
    """One question; what arrived, how it ended, and how many requests it took."""

    async def run() -> Heard:
        async with serving(*answers) as server:
            text, finish, error = "", None, None
            stream = RemoteEngine(configured(server.port, **more)).stream(ASK, seed=5)
            try:
                async for item in with_deadlines(stream, deadlines or Deadlines()):
                    if isinstance(item, Finish):
                        finish = item.reason
                    else:
                        text += item.text
            except EngineError as raised:
                error = raised
            return Heard(text, finish, error, len(server.requests), waited, server)

    with waits() as waited:
        return asyncio.run(run())


@contextlib.contextmanager
def waits() -> Iterator[list[float]]:
    """What the engine plans to wait, as a clock on a busy machine would not tell."""
    planned: list[float] = []
    plan = remote._wait_s

    def kept(error: Exception, attempt: int) -> float | None:
        wait = plan(error, attempt)
        planned.extend([] if wait is None else [wait])
        return wait

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(remote, "_wait_s", kept)
        yield planned


def test_a_good_answer_arrives_whole_and_identifiers_stay_home() -> None:
    heard = ask(WELL)
    assert (heard.text, heard.finish, heard.requests) == (SAID + "饭后服。", "stop", 1)
    sent = heard.server.requests[0]
    assert sent["messages"] == [{"role": "user", "content": "我的手机【电话】，头痛怎么办？"}]
    assert sent["stream"] is True and sent["max_tokens"] == 64
    assert f"Bearer {KEY}" in heard.server.heads[0]


@pytest.mark.parametrize(
    ("answer", "kind", "requests"),
    [
        (failing(429), Busy, 3),
        (failing(429, "Retry-After: 1"), Busy, 3),
        (failing(429, "Retry-After: 60"), Busy, 1),
        (failing(503), Busy, 3),
        (failing(500), Unavailable, 3),
        (failing(400), Refused, 1),
        (failing(401), Refused, 1),
        (failing(403), Refused, 1),
        (failing(404), Refused, 1),
        (failing(422), Refused, 1),
        (failing(307, "Location: http://169.254.169.254/"), Refused, 1),
        (failing(200, body="<html>sign in to the network</html>"), EngineError, 1),
        (hang_up, Unavailable, 3),
    ],
)
def test_a_failure_before_the_first_word_is_named(
    answer: Answer, kind: type[EngineError], requests: int
) -> None:
    heard = ask(answer)
    assert isinstance(heard.error, kind), heard.error
    assert (heard.text, heard.finish, heard.requests) == ("", None, requests)
    assert KEY not in str(heard.error) and "sk-" not in repr(heard.error)
    context = heard.error.__context__
    assert context is None or heard.error.__suppress_context__
    assert len(heard.waited) == requests - 1 and sum(heard.waited) < 4


@pytest.mark.parametrize("first", [failing(429, "Retry-After: 1"), failing(500), hang_up])
def test_a_second_try_before_the_first_word_succeeds(first: Answer) -> None:
    heard = ask(first, WELL)
    assert (heard.finish, heard.requests) == ("stop", 2)


HALF = event(SAID)


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (streamed(HALF), Truncated),
        (streamed(HALF, DONE), Truncated),
        (streamed(HALF, cut=True), Truncated),
        (streamed(HALF, b"data: {not json\n\n"), Truncated),
        (streamed(HALF, b'data: {"error": {"message": "overloaded"}}\n\n'), Truncated),
        (streamed(HALF, event(finish="tool_calls"), DONE), Refused),
        (streamed(HALF, event(finish="content_filter"), DONE), Refused),
        (streamed(HALF, event(finish="something_new"), DONE), Truncated),
        (streamed(HALF, 30.0), Timeout),
        (streamed(HALF, *[event("请多喝水。")] * 300, event(finish="stop")), Truncated),
    ],
    ids=[
        "close",
        "done",
        "cut",
        "garbage",
        "error",
        "tools",
        "filter",
        "unknown",
        "stall",
        "endless",
    ],
)
def test_half_an_answer_is_never_an_answer_and_never_asked_again(
    answer: Answer, kind: type[EngineError]
) -> None:
    wide = Deadlines()
    heard = ask(answer, deadlines=replace(wide, between_tokens_s=0.5) if kind is Timeout else wide)
    assert isinstance(heard.error, kind), heard.error
    assert heard.text.startswith(SAID)
    assert (heard.finish, heard.requests) == (None, 1)


def test_the_length_limit_is_told_apart_from_the_end() -> None:
    assert ask(streamed(HALF, event(finish="length"), DONE)).finish == "length"


@pytest.mark.parametrize(
    "parts",
    [
        [event(finish="stop"), DONE],
        [event("  \n "), event(finish="stop"), DONE],
        [event(ASK[0].text), event(finish="stop")],
    ],
    ids=["nothing", "spaces", "echo"],
)
def test_an_empty_answer_is_refused(parts: list[bytes]) -> None:
    async def run() -> None:
        async with serving(streamed(*parts)) as server:
            stream = RemoteEngine(configured(server.port)).stream(ASK, seed=1)
            with pytest.raises(Refused, match="empty"):
                async for _ in with_deadlines(stream, Deadlines(), question=ASK[0].text):
                    pass

    asyncio.run(run())


def test_odd_events_are_skipped() -> None:
    odd = [
        b": keep alive\n\n",
        event(None),
        event(choices=[], usage={"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}),
        b'data: {"id": "1", "object": "x", "created": 0, "model": "m"}\n\n',
        b'data: {"choices": [{"index": 0, "delta": {"content": null}, "finish_reason": null}]}\n\n',
    ]
    heard = ask(streamed(*odd, HALF, *odd, event(finish="stop"), *odd, DONE))
    assert (heard.text, heard.finish) == (SAID, "stop")


def test_a_character_split_between_packets_is_joined() -> None:
    raw = event("请注意休息，𠮷人天相") + event(finish="stop") + DONE
    heard = ask(streamed(*[raw[i : i + 1] for i in range(len(raw))]))
    assert (heard.text, heard.finish) == ("请注意休息，𠮷人天相", "stop")


def test_a_stall_before_the_first_word_is_a_timeout() -> None:
    heard = ask(streamed(30.0), deadlines=replace(Deadlines(), first_token_s=0.4))
    assert isinstance(heard.error, Timeout)


def test_no_server_is_unavailable_soon() -> None:
    async def run(port: int) -> None:
        with pytest.raises(Unavailable):
            async for _ in RemoteEngine(configured(port)).stream(ASK, seed=1):
                pass

    with socket.socket() as silent, waits() as waited:
        silent.bind(("127.0.0.1", 0))  # held, and nobody listens: no other test's server comes here
        asyncio.run(run(silent.getsockname()[1]))
    assert 0 < sum(waited) < 4


def test_a_missing_key_is_said_before_anything_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TEST_ENGINE_KEY")
    heard = ask(WELL)
    assert isinstance(heard.error, Unavailable) and "TEST_ENGINE_KEY" in str(heard.error)
    assert heard.requests == 0


def test_a_server_without_a_key_never_gets_the_one_of_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    heard = ask(WELL, api_key_env="")
    assert heard.finish == "stop" and KEY not in heard.server.heads[0]


@pytest.mark.parametrize(
    "url",
    [
        "http://169.254.169.254/v1",
        "http://example.org/v1",
        "file:///etc/passwd",
        "ftp://127.0.0.1/",
        "https://user:pass@example.org/v1",
        "http://127.0.0.1.example.org/v1",
        "http://127.0.0.1@example.org/v1",
        "https://",
        "//example.org",
        "http://[::2]/v1",
        "https://example.org:99999/v1",
        "http://2130706433/v1",
    ],
)
def test_only_tls_or_this_machine_can_be_named(url: str) -> None:
    with pytest.raises((ValueError, ConfigError)):
        configured(1, base_url=url)
