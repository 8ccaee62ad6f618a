"""ASGI steps that know who is asking: the session of each request, and Gradio's calls tied to it.

They stand inside those of huatuo/guard.py: Sessions, then OwnEvents.
"""

import hashlib
import ipaddress
import json
import re
from collections.abc import Callable, Container, Mapping
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from huatuo.accounts import Accounts, Language, Session, cookie, has_role
from huatuo.guard import Refusal, Rule, Step, language_in, read_body, replay


class Sessions(Step):
    """Who is asking, and whether the rule's role allows it.

    again_page: a page that reloads itself. A link from elsewhere arrives without the strict cookie;
    the reload comes from our own page and brings it, so a session is never overwritten.
    """

    def __init__(
        self, app: ASGIApp, accounts: Accounts, again_page: Callable[[Language], str]
    ) -> None:
        super().__init__(app)
        self._accounts = accounts
        self._again_page = again_page

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        rule: Rule = scope["huatuo.rule"]
        if rule.who is None:
            await self.app(scope, receive, send)
            return
        request = Request(scope)
        language = language_in(scope["path"], self._accounts.config.language)
        token = cookie(request, self._accounts.cookie_name)
        session = await run_in_threadpool(self._accounts.session_of, token, language)
        if session is None and rule.kind == "document" and scope["method"] == "GET":
            if came_from_elsewhere(request.headers):
                await HTMLResponse(self._again_page(language))(scope, receive, send)
                return
            if rule.who == "visitor":
                await self._welcome(scope, receive, send, language)
                return
        if session is None or not has_role(session, rule.who):
            if session is not None and session.user_id is not None:
                raise Refusal(403)
            if rule.kind != "document":
                raise Refusal(401)
            there = f"/{language}/sign-in?{urlencode({'next': scope['path']})}"
            await RedirectResponse(there, 303)(scope, receive, send)
            return
        if rule.limit is not None:
            await run_in_threadpool(self._accounts.allow, session, rule.limit)
        if rule.kind == "document":
            await run_in_threadpool(self._accounts.touch, token)
        await self.app({**scope, "huatuo.session": session}, receive, send)

    async def _welcome(
        self, scope: Scope, receive: Receive, send: Send, language: Language
    ) -> None:
        """A new visitor gets a session of their own."""
        remote = remote_of(scope)
        token = await run_in_threadpool(self._accounts.visit, remote)
        session = await run_in_threadpool(self._accounts.session_of, token, language)

        async def with_cookie(message: Message) -> None:
            if message["type"] == "http.response.start":
                days = self._accounts.config.chat_retention_days
                value = set_cookie(self._accounts, token, days)
                MutableHeaders(scope=message).append("set-cookie", value)
            await send(message)

        name = self._accounts.cookie_name
        headers = [item for item in scope["headers"] if item[0] != b"cookie"]
        headers.append((b"cookie", f"{name}={token}".encode()))
        inner = {**scope, "headers": headers, "huatuo.session": session}
        await self.app(inner, receive, with_cookie)


def set_cookie(accounts: Accounts, token: str, days: int) -> str:
    """The Set-Cookie header for a session; days 0 removes it."""
    secure = "; Secure" if accounts.secure else ""
    life = f"Path=/; Max-Age={86_400 * days}; HttpOnly; SameSite=Strict{secure}"
    return f"{accounts.cookie_name}={token}; {life}"


def remote_of(scope: Scope) -> str:
    """Where limits count a request: an IPv4 address, or the /64 network that one IPv6 client owns.

    Forwarding headers count only behind the trusted_proxies of configs/app.toml (huatuo/web.py).
    """
    client = scope.get("client")
    return _network(str(client[0]), 32, 64) if client else ""


def seen_of(scope: Scope) -> dict[str, str]:
    """What the list of sessions shows: a rough address, the browser and the system, no more."""
    client, agent = scope.get("client"), Headers(scope=scope).get("user-agent", "")
    browser = next((name for mark, name in _BROWSERS if mark in agent), "")
    system = next((name for mark, name in _SYSTEMS if mark in agent), "")
    seen = {"from": _network(str(client[0]), 24, 48) if client else "", "browser": browser}
    return {key: value for key, value in {**seen, "system": system}.items() if value}


def _network(address: str, bits_v4: int, bits_v6: int) -> str:
    """The address with its last bits cut off; what is no address stays as it is, cut."""
    try:
        known = ipaddress.ip_address(address)
    except ValueError:
        return address[:64]
    if isinstance(known, ipaddress.IPv6Address) and known.ipv4_mapped:
        known = known.ipv4_mapped
    bits = bits_v4 if known.version == 4 else bits_v6
    if bits == 32:
        return str(known)
    if known.version == 4:
        return str(known).rpartition(".")[0] + ".*"
    return str(ipaddress.ip_network((known, bits), strict=False))


_BROWSERS = (  # the first mark that is found counts: most browsers name others too
    ("MicroMessenger/", "WeChat"),
    ("Edg", "Edge"),
    ("OPR/", "Opera"),
    ("Firefox/", "Firefox"),
    ("FxiOS/", "Firefox"),
    ("Chrome/", "Chrome"),
    ("CriOS/", "Chrome"),
    ("Safari/", "Safari"),
)
_SYSTEMS = (
    ("HarmonyOS", "HarmonyOS"),
    ("iPhone", "iPhone"),
    ("iPad", "iPad"),
    ("Android", "Android"),
    ("Windows", "Windows"),
    ("Mac OS X", "macOS"),
    ("Linux", "Linux"),
)


def came_from_elsewhere(headers: Mapping[str, str]) -> bool:
    """Whether a link on another site led here, so that a strict cookie was held back."""
    site = headers.get("sec-fetch-site")
    if site is not None:
        return site in ("cross-site", "same-site")
    referer = headers.get("referer")
    return referer is not None and urlsplit(referer).netloc != headers.get("host")


class OwnEvents(Step):
    """Ties Gradio's session_hash, which the browser makes up, to the session that sends it.

    The hash is replaced by one derived from it and the session's owner, in query, path and body: who
    sends somebody else's hash reaches only a place of their own. A function that the page does not
    have is 404; Gradio would answer with a trace in the log.

    functions: the numbers of each page's functions, by the page's path.
    """

    def __init__(self, app: ASGIApp, functions: Mapping[str, Container[int]]) -> None:
        super().__init__(app)
        self._functions = functions

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        rule: Rule = scope["huatuo.rule"]
        if rule.kind != "event":
            await self.app(scope, receive, send)
            return
        session: Session = scope["huatuo.session"]
        scope = {**scope}
        pairs = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        scope["query_string"] = urlencode(
            [(k, own_hash(session, v) if k == "session_hash" else v) for k, v in pairs]
        ).encode()
        before, mark, given = scope["path"].rpartition("/heartbeat/")
        if mark:
            scope["path"] = before + mark + own_hash(session, given)
            scope["raw_path"] = scope["path"].encode()
        if scope["method"] == "POST":
            known = self._functions.get(scope["path"].partition("/gradio_api/")[0], ())
            body = await read_body(receive) or b""
            body = own_body(session, body, Headers(scope=scope), known)
            headers = MutableHeaders(raw=list(scope["headers"]))
            headers["content-length"] = str(len(body))
            if "transfer-encoding" in headers:
                del headers["transfer-encoding"]
            scope["headers"] = headers.raw
            receive = replay(body, receive)
        await self.app(scope, receive, send)


def own_hash(session: Session, given: str) -> str:
    """The session_hash that Gradio sees. Refuses (422) what its client would not send."""
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", given):
        raise Refusal(422)
    return hashlib.sha256(f"{session.owner}\0{given}".encode()).hexdigest()[:32]


def own_body(
    session: Session, body: bytes, headers: Headers, functions: Container[int] | None = None
) -> bytes:
    """A Gradio call with its session_hash made the session's own.

    Refuses doubtful JSON (422) and, if `functions` are given, a number that is not of them (404).
    """
    if headers.get("content-type", "").split(";")[0].strip().lower() != "application/json":
        raise Refusal(422)
    try:
        call = json.loads(body, object_pairs_hook=_no_doubles, parse_constant=_no_constants)
    except (ValueError, RecursionError):
        raise Refusal(422) from None
    if not isinstance(call, dict) or not isinstance(call.get("session_hash"), str):
        raise Refusal(422)
    call["session_hash"] = own_hash(session, call["session_hash"])
    number = call.get("fn_index")
    if functions is not None and (type(number) is not int or number not in functions):
        raise Refusal(404)
    try:
        return json.dumps(call, allow_nan=False).encode()
    except (ValueError, RecursionError):  # 1e999 was read as infinity
        raise Refusal(422) from None


def _no_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key stands twice")
    return found


def _no_constants(word: str) -> None:
    raise ValueError(f"{word} is not JSON")
