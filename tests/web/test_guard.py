"""The outermost step: what an app inside answers with a fault never leaves as it is (W16)."""

import asyncio
import json
from typing import Any

import pytest

from huatuo.config import AppConfig
from huatuo.guard import Border


def test_an_inner_apps_own_error_page_is_not_shown(caplog: pytest.LogCaptureFixture) -> None:
    sent: list[Any] = []

    async def inner(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 500, "headers": []})
        await send({"type": "http.response.body", "body": b"secret", "more_body": False})
        raise RuntimeError("secret")

    async def talk() -> None:
        async def send(message: Any) -> None:
            sent.append(message)

        scope = {"type": "http", "method": "GET", "path": "/zh/invite/abc", "headers": []}
        await Border(inner, AppConfig(), lambda *_: "", lambda *_: "")(scope, None, send)  # type: ignore[arg-type]

    asyncio.run(talk())
    assert [m["type"] for m in sent] == ["http.response.start", "http.response.body"]
    assert sent[0]["status"] == 500 and b"frame-ancestors" in str(sent[0]["headers"]).encode()
    assert json.loads(sent[1]["body"])["code"].startswith("unexpected-")
    assert "/zh/invite/…" in caplog.text and "abc" not in caplog.messages[0]  # it is a secret
