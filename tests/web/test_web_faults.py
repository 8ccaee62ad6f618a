"""What the shell must withstand (faults.md 9.W): origins, bodies, foreign sessions, faults inside."""

import contextlib
import json
import socket
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from starlette.routing import Mount

from huatuo.accounts import Session
from huatuo.guard import Refusal
from huatuo.sessions import own_body, own_hash
from huatuo.web import gate
from tests.patience import LONG_S

JOIN = "/zh/chat/gradio_api/queue/join"


def number(site: Any, page: str, api_name: str) -> int:
    app = next(r.app for r in site.app.routes if isinstance(r, Mount) and r.path == page)
    return next(n for n, fn in app.blocks.fns.items() if fn.api_name == api_name)


def run(
    site: Any, client: httpx.Client, api_name: str, data: list[Any], *, page: str = "/zh/chat",
    session_hash: str = "mine",
) -> str:  # fmt: skip
    """Everything the queue says about one call, as text."""
    call = {"data": data, "fn_index": number(site, page, api_name), "session_hash": session_hash}
    joined = client.post(f"{page}/gradio_api/queue/join", json=call)
    assert joined.status_code == 200, joined.text
    where = f"{page}/gradio_api/queue/data"
    with client.stream("GET", where, params={"session_hash": session_hash}) as answer:
        return "".join(answer.iter_text())


# W2, W3, W5: visibility is not protection


def test_a_physician_cannot_call_the_admins_functions_by_number_or_name(site: Any) -> None:
    call = {"data": [], "fn_index": number(site, "/zh/admin", "loaded"), "session_hash": "x"}
    with site.client("physician") as client:
        for path in ("queue/join", "run/loaded"):
            assert client.post(f"/zh/admin/gradio_api/{path}", json=call).status_code == 403
        assert client.post("/zh/admin/gradio_api/call/loaded", json=call).status_code == 404
        assert client.get("/zh/admin/").status_code == 403
        assert client.get("/zh/export").status_code == 403
    with site.client() as client:
        assert client.post("/zh/admin/gradio_api/queue/join", json=call).status_code == 401
        assert client.get("/zh/admin/").headers["location"].startswith("/zh/sign-in?next=")


def test_a_function_that_a_page_does_not_have_is_404(site: Any, caplog: Any) -> None:
    call = {"data": [], "fn_index": number(site, "/zh/chat", "loaded"), "session_hash": "x"}
    with site.client("visitor") as client:
        for odd in (-1, 10_000, 10**30, 1.5, 0.0, True, "0", None, [0]):
            for path in (JOIN, "/zh/chat/gradio_api/run/loaded"):
                answer = client.post(path, json={**call, "fn_index": odd})
                assert answer.status_code == 404 and answer.json()["ok"] is False, odd
        assert client.post(JOIN, json=call).status_code == 200
    assert not caplog.records


def test_exports_are_limited(site: Any) -> None:
    site.cookies["Dr Export"] = site.token("Dr Export", "researcher")
    with site.client("Dr Export") as client:
        got: list[int] = []
        while 429 not in got and len(got) < 60:  # two minutes of a slow machine allow one more
            got.append(client.get("/zh/export").status_code)
    assert got[:30] == [200] * 30 and got[-1] == 429


# W4: the session_hash is made up by the browser


def test_another_persons_session_hash_shows_nothing_of_theirs(site: Any) -> None:
    with site.client("physician") as mine, site.client("visitor") as other:
        run(site, mine, "stream", ["a patient's words", None], session_hash="shared")
        assert "before=a patient" in run(
            site, mine, "stream", ["again", None], session_hash="shared"
        )
        seen = run(site, other, "stream", ["curious", None], session_hash="shared")
        assert "before=nothing" in seen and "patient" not in seen and "again" not in seen


def test_another_persons_stream_cannot_be_joined_or_cancelled(site: Any) -> None:
    call = {
        "data": ["slow", None],
        "fn_index": number(site, "/zh/chat", "stream"),
        "session_hash": "tail",
    }
    where, params = "/zh/chat/gradio_api/queue/data", {"session_hash": "tail"}
    with site.client("physician") as mine, site.client("visitor") as other:
        event = mine.post(JOIN, json=call).json()["event_id"]
        cancel = {"session_hash": "tail", "fn_index": call["fn_index"], "event_id": "unknown"}
        other.post("/zh/chat/gradio_api/cancel", json=cancel)
        seen = b""
        # Gradio ends a stream that it does not know in the middle.
        with (
            contextlib.suppress(httpx.RemoteProtocolError),
            other.stream("GET", where, params=params) as answer,
        ):
            for part in answer.iter_bytes():
                seen += part
        assert event.encode() not in seen and b"slow" not in seen
        with mine.stream("GET", where, params=params) as answer:
            told = "".join(answer.iter_text())
        assert "slow 4" in told and "process_completed" in told


def test_a_session_hash_is_bound_to_its_owner_and_odd_ones_are_refused() -> None:
    first = Session("user:1", 1, "a", "physician", "zh")
    second = Session("user:2", 2, "b", "physician", "zh")
    assert own_hash(first, "x") == own_hash(first, "x") != own_hash(second, "x")
    for odd in ("", "a b", "../x", "x" * 65, "纸"):
        with pytest.raises(Refusal):
            own_hash(first, odd)
    headers = httpx.Headers({"content-type": "application/json"})
    for body in (b"[]", b"{}", b'{"session_hash": 1}', b"\xff", b"{"):
        with pytest.raises(Refusal):
            own_body(first, body, headers)  # type: ignore[arg-type]


# W6: only our own pages may change anything


@pytest.mark.parametrize(
    ("headers", "allowed"),
    [
        ({"origin": "{url}"}, True),
        ({"origin": "{url}", "sec-fetch-site": "same-origin"}, True),
        ({"sec-fetch-site": "same-origin"}, True),
        ({}, False),
        ({"origin": "null"}, False),
        ({"origin": "https://evil.example"}, False),
        ({"origin": "{url}0"}, False),
        ({"origin": "https://{host}"}, False),
        ({"origin": "http://localhost:{port}"}, False),
        ({"origin": "{url}", "sec-fetch-site": "cross-site"}, False),
        ({"origin": "{url}", "sec-fetch-site": "same-site"}, False),
        ({"sec-fetch-site": "none"}, False),
    ],
)
def test_only_our_own_origin_may_post(site: Any, headers: dict[str, str], allowed: bool) -> None:
    port = site.config.port
    filled = {
        name: value.format(url=site.url, host=f"127.0.0.1:{port}", port=port)
        for name, value in headers.items()
    }
    call = {"data": [], "fn_index": number(site, "/zh/chat", "loaded"), "session_hash": "o"}
    with site.client("visitor") as client:
        del client.headers["origin"]
        answer = client.post(JOIN, json=call, headers=filled)
    assert answer.status_code == (200 if allowed else 403)
    assert "access-control-allow-origin" not in answer.headers


def test_other_sites_may_link_to_pages_but_load_nothing(site: Any) -> None:
    with site.client("physician") as client:
        link = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}
        assert client.get("/zh/chat/", headers={**link, "sec-fetch-dest": "document"}).is_success
        framed = client.get("/zh/chat/", headers={**link, "sec-fetch-dest": "iframe"})
        assert framed.status_code == 403
        for path in ("/zh/chat/theme.css", "/static/style.css"):
            loaded = client.get(path, headers={"sec-fetch-site": "cross-site"})
            assert loaded.status_code == 403
        answer = client.get("/zh/chat/", headers={"origin": "https://evil.example"})
        assert "access-control-allow-origin" not in answer.headers
        asked = {"origin": "https://evil.example", "access-control-request-method": "POST"}
        preflight = client.options(JOIN, headers=asked)
        assert preflight.status_code == 404
        assert "access-control-allow-origin" not in preflight.headers


def test_a_link_from_elsewhere_gets_a_reload_and_no_cookie(site: Any) -> None:
    link = {
        "sec-fetch-site": "cross-site",
        "sec-fetch-mode": "navigate",
        "sec-fetch-dest": "document",
    }
    with site.client() as client:
        for path in ("/zh/chat/", "/zh/compare/"):
            answer = client.get(path, headers=link)
            assert answer.status_code == 200 and 'http-equiv="refresh"' in answer.text
            assert "set-cookie" not in answer.headers
        old_browser = client.get("/zh/chat/", headers={"referer": "https://evil.example/x"})
        assert "set-cookie" not in old_browser.headers
        again = client.get("/zh/chat/", headers={**link, "sec-fetch-site": "same-origin"})
        assert again.headers["set-cookie"].startswith("session=")


def test_foreign_host_names_are_refused(site: Any) -> None:
    with site.client() as client:
        for host in ("evil.example", "127.0.0.1.evil.example", "127.0.0.1@evil", "", "[::2]"):
            assert client.get("/healthz", headers={"host": host}).status_code == 421, host
        assert client.get("/healthz", headers={"host": "localhost:9"}).status_code == 200


# W7: headers on every response is part of test_route_table.py


def test_the_policy_allows_no_inline_and_no_evaluated_script(site: Any) -> None:
    with site.client("visitor") as client:
        for path in ("/zh/chat/", "/zh/sign-in", "/nowhere", "/static/style.css"):
            policy = client.get(path).headers["content-security-policy"]
            script = next(p for p in policy.split("; ") if p.startswith("script-src"))
            assert "unsafe" not in script
        one, two = client.get("/zh/chat/"), client.get("/zh/chat/")
        assert one.headers["content-security-policy"] != two.headers["content-security-policy"]
        assert "huggingface" not in one.text and "githubusercontent" not in one.text


# W13


def test_forwarding_headers_are_ignored(site: Any) -> None:
    forged = {
        "x-forwarded-for": "1.2.3.4",
        "x-forwarded-host": "evil.example",
        "x-forwarded-proto": "https",
        "forwarded": "for=1.2.3.4;host=evil.example",
        "x-gradio-server": "http://evil.example",
    }
    with site.client("visitor") as client:
        assert "evil.example" not in client.get("/zh/chat/", headers=forged).text


# W14: bodies


def test_doubtful_bodies_are_refused_before_gradio_sees_them(site: Any) -> None:
    good = b'{"data": [], "fn_index": 0, "session_hash": "b"}'
    kind = {"content-type": "application/json"}
    loaded = number(site, "/zh/chat", "loaded")
    doubtful = {
        b"[" * 10_000: 422,
        b'{"session_hash": "b", "data": [NaN]}': 422,
        good.replace(b"[]", b"[1e999]").replace(b": 0", b": %d" % loaded): 422,
        good.replace(b"[]", b"[" * 980 + b"]" * 980): 422,
        b'{"session_hash": "b", "session_hash": "c"}': 422,
        b'{"session_hash": null}': 422,
        b"not json": 422,
        b"": 422,
        good + b" " * 65_536: 413,
    }
    with site.client("visitor") as client:
        for body, expected in doubtful.items():
            assert client.post(JOIN, content=body, headers=kind).status_code == expected, body[:40]
        plain = client.post(JOIN, content=good, headers={"content-type": "text/plain"})
        assert plain.status_code == 422


def test_an_endless_chunked_body_is_cut_off(site: Any) -> None:
    sent = 0

    def endless() -> Iterator[bytes]:
        nonlocal sent
        while sent < 1 << 30:
            sent += 1 << 14
            yield b"x" * (1 << 14)

    # closing the connection is as good
    with site.client("visitor") as client, contextlib.suppress(httpx.TransportError):
        assert client.post(JOIN, content=endless()).status_code == 413
    assert sent < 1 << 27


def test_a_slow_body_ends_in_408(site: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huatuo.guard.BODY_S", 0.3)
    head = (
        f"POST {JOIN} HTTP/1.1\r\nhost: 127.0.0.1:{site.config.port}\r\norigin: {site.url}\r\n"
        "content-type: application/json\r\ncontent-length: 50\r\n\r\n{"
    )
    with socket.create_connection(("127.0.0.1", site.config.port), timeout=LONG_S) as wire:
        wire.sendall(head.encode())
        assert b" 408 " in wire.recv(4096)


def test_a_body_with_two_lengths_is_refused(site: Any) -> None:
    head = (
        f"POST {JOIN} HTTP/1.1\r\nhost: 127.0.0.1:{site.config.port}\r\norigin: {site.url}\r\n"
        "content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n5\r\nabcde\r\n0\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", site.config.port), timeout=LONG_S) as wire:
        wire.sendall(head.encode())
        assert b" 400 " in wire.recv(4096)


# W15 is part of test_route_table.py; here the forms that no route template shows


@pytest.mark.parametrize(
    "path",
    [
        "/zh/chat/gradio_api/file=/etc/passwd",
        "/zh/chat/gradio_api/file=../../../../etc/passwd",
        "/zh/chat/gradio_api/proxy=http://169.254.169.254/latest",
        "/zh/chat/static/../../app.py",
        "/zh/chat/static/fonts/%2e%2e/%2e%2e/x.woff2",
        "/static/..%2f..%2ftext.py",
        "/static/%2e%2e",
        "/assets/..%2findex.html",
        "/zh/chat//gradio_api/queue/data",
        "/ZH/chat/",
        "/fr/chat/",
        "/zh/chat/%0d%0aset-cookie:x=1",
        "/openapi.json",
        "/docs",
        "/zh/chat/docs",
        "/zh/chat/openapi.json",
    ],
)
def test_paths_outside_the_table_are_404(site: Any, path: str) -> None:
    with site.client("admin") as client:
        assert client.get(httpx.URL(site.url + path)).status_code == 404


# W16


def test_a_fault_shows_a_code_and_nothing_of_the_inside(site: Any) -> None:
    with site.client("visitor") as client:
        answer = client.get("/zh/explode")
        page = client.get("/en/explode", headers={"accept": "text/html"})
        told = run(site, client, "broken", [])
    assert answer.status_code == page.status_code == 500
    assert answer.json().keys() == {"ok", "error", "code", "status"}
    assert answer.json()["ok"] is False and answer.json()["code"].startswith("unexpected-")
    assert "unexpected-" in page.text and "Something unexpected" in page.text
    for text in (answer.text, page.text, told):
        assert "secret" not in text and "Traceback" not in text and "sk-123" not in text
    assert '"success":false' in told


# W20: a check that fails, fails closed


class Request:
    """As little of a request as the check reads."""

    def __init__(self, cookies: Any) -> None:
        self.cookies = cookies


def test_the_gate_fails_closed(site: Any) -> None:
    check = gate(site.accounts, "physician")
    forged: list[Any] = [{}, None, {"session": 1}, {"session": "x"}, {"session": "A" * 43}, "x"]
    for cookies in forged:
        assert check(Request(cookies)) is None  # type: ignore[arg-type]
    name = site.accounts.cookie_name
    assert check(Request({name: site.cookies["visitor"]})) is None  # type: ignore[arg-type]
    assert check(Request({name: site.cookies["admin"]})) == "admin"  # type: ignore[arg-type]


def test_a_broken_record_admits_nobody(site: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(token_hash: str) -> None:
        raise OSError("the disk is gone")

    monkeypatch.setattr(site.people, "session", broken)
    with site.client("admin") as client:
        assert client.get("/zh/admin/").status_code == 500
        assert client.post(JOIN, json={"session_hash": "x"}).status_code == 500


def test_redirects_after_signing_in_stay_on_this_site(site: Any) -> None:
    site.token("Dr Redirect", "admin")
    form = {"name": "Dr Redirect", "password": "correct horse battery"}
    targets: dict[str, str] = {
        "//evil.example": "/zh/admin/",
        "https://evil.example/x/": "/zh/admin/",
        "/zh/compare/": "/zh/compare/",
        "/en/compare/": "/zh/compare/",
        "/zh/../evil/": "/zh/admin/",
    }
    for there, expected in targets.items():
        with site.client() as client:
            answer = client.post("/zh/sign-in", params={"next": there}, data=form)
            assert (answer.status_code, answer.headers["location"]) == (303, expected)


def test_bodies_of_gradio_calls_keep_their_content() -> None:
    session = Session("user:1", 1, "a", "physician", "zh")
    headers: Any = httpx.Headers({"content-type": "application/json; charset=utf-8"})
    call = {"data": ["头疼 \U00020bb7", None, 1.5], "fn_index": 3, "session_hash": "x"}
    made = json.loads(own_body(session, json.dumps(call).encode(), headers))
    assert {**made, "session_hash": "x"} == call
