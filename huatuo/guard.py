"""ASGI steps around the app: security headers, hosts, body limit, route allow-list, origins.

Outermost first: Border (headers and errors), Hosts, Bodies, AllowList, Origins, and then those of
huatuo/sessions.py. Plain ASGI, because what buffers a response would break the answers' streams. A
step refuses by raising Refusal before a response has begun; Border makes a page or JSON of it.
"""

import asyncio
import contextlib
import logging
import re
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, cast
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from huatuo.config import AppConfig
from huatuo.errors import AccessError, Forbidden, InputError, NotSignedIn
from huatuo.identity import Language, Role, host_of
from reviews.errors import RecordError

log = logging.getLogger(__name__)

BODY_LIMIT = 64 * 1024
BODY_S = 10.0
POUR_LIMIT = 1024 * 1024
POUR_S = 2.0
LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
SAFE_METHODS = ("GET", "HEAD")
CODES = {
    400: "bad_request",
    401: "not_signed_in",
    403: "forbidden",
    404: "not_found",
    405: "not_found",
    408: "too_slow",
    413: "too_large",
    421: "wrong_host",
    422: "unreadable",
    429: "too_fast",
    500: "unexpected",
    503: "busy",
}
POLICY = (
    "default-src 'self'; script-src 'self'{nonce}; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self'; "
    "media-src 'self' blob:; form-action 'self'; frame-ancestors 'none'; base-uri 'self'; "
    "object-src 'none'"
)
HEADERS = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=(), payment=(), usb=()",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}


class Refusal(Exception):
    """A step refuses the request with this HTTP status."""

    def __init__(self, status: int) -> None:
        super().__init__(CODES[status])
        self.status = status


@dataclass(frozen=True)
class Rule:
    """One allowed route. who: the least role, None for anyone, also without a session.

    kind: document (a page, answers with redirects), event (Gradio's calls) or file. limit: the name
    of the allowance in huatuo/accounts.py that each request takes from.
    """

    methods: str
    path: str
    who: Role | None
    kind: Literal["document", "event", "file"] = "file"
    limit: str | None = None

    def allows(self, method: str, path: str) -> bool:
        """Whether this is the rule for the request; HEAD counts as GET."""
        method = "GET" if method == "HEAD" else method
        return method in self.methods.split() and re.fullmatch(self.path, path) is not None


def language_in(path: str, default: Language) -> Language:
    """The language a path begins with."""
    start = path.split("/")[1] if "/" in path else ""
    return cast(Language, start) if start in ("zh", "en") else default


class Step:
    """A link of the chain; everything but HTTP requests passes, WebSockets are closed."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await self.handle(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        else:
            await self.app(scope, receive, send)

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        await self.app(scope, receive, send)


class Border(Step):
    """Security headers on every response; errors become one shape, without trace or path.

    error_page: HTML from status, code and language. error_words: a sentence from status and language.
    """

    def __init__(
        self,
        app: ASGIApp,
        config: AppConfig,
        error_page: Callable[[int, str, Language], str],
        error_words: Callable[[int, Language], str],
    ) -> None:
        super().__init__(app)
        self._default = config.language
        self._error_page = error_page
        self._error_words = error_words
        self._headers = dict(HEADERS)
        if config.public_url.startswith("https://"):
            self._headers["strict-transport-security"] = "max-age=31536000"

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        begun = False
        failed: list[Message] = []  # an inner app answers 500 in its own words before it raises

        async def sealed(message: Message) -> None:
            if failed or (message["type"] == "http.response.start" and message["status"] == 500):
                failed.append(message)
            else:
                await passed(message)

        async def passed(message: Message) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                begun = True
                headers = MutableHeaders(scope=message)
                for name, value in self._headers.items():
                    headers[name] = value
                headers.setdefault("content-security-policy", POLICY.format(nonce=""))
                headers.setdefault("cache-control", "no-store")
                if headers.get("content-type", "").startswith("text/event-stream"):
                    headers["x-accel-buffering"] = "no"
            await send(message)

        try:
            await self.app(scope, receive, sealed)
            for message in failed:
                await passed(message)
        except Exception as error:
            if begun:
                raise
            await self._answer(error, scope)(scope, receive, passed)

    def _answer(self, error: Exception, scope: Scope) -> Response:
        status = status_of(error)
        code = CODES[status]
        if status == 500:
            code = f"{code}-{secrets.token_hex(3)}"
            path = re.sub(r"(/invite/).*", r"\1…", scope["path"])  # a link not used yet is a secret
            log.error("%s: %s %s", code, scope["method"], path, exc_info=error)
        headers = Headers(scope=scope)
        # A refused body is still on the wire: the connection cannot serve another request.
        extra = {"connection": "close"} if status in (408, 413) else None
        if "text/html" in headers.get("accept", ""):
            page = self._error_page(status, code, language_in(scope["path"], self._default))
            return HTMLResponse(page, status, extra)
        words = self._error_words(status, language_in(scope["path"], self._default))
        body = {"ok": False, "error": words, "code": code, "status": status}
        return JSONResponse(body, status, extra)


def status_of(error: Exception) -> int:
    """The HTTP status that an error means."""
    match error:
        case Refusal():
            return error.status
        case NotSignedIn():
            return 401
        case Forbidden():
            return 403
        case AccessError():
            return 429
        case InputError():
            return 422
        case RecordError():
            return 503
        case _:
            return 500


class Hosts(Step):
    """Answers only to the names the app is known by, so that no foreign name can be bound to it."""

    def __init__(self, app: ASGIApp, config: AppConfig) -> None:
        super().__init__(app)
        scheme = urlsplit(config.public_url).scheme or "http"
        own = (host_of(config), *config.allowed_hosts)
        self._schemes = dict.fromkeys(LOOPBACK, "http")
        self._schemes |= {f"[{n}]" if ":" in n else n.lower(): scheme for n in own if n}

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        hosts = [value for name, value in scope["headers"] if name == b"host"]
        host = hosts[0].decode("latin-1").lower() if len(hosts) == 1 else ""
        match = re.fullmatch(r"(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(:\d{1,5})?", host)
        scheme = self._schemes.get(match[1]) if match else None
        if scheme is None:
            raise Refusal(421)
        kept = [
            (name, value)
            for name, value in scope["headers"]
            if not name.startswith((b"x-forwarded-", b"x-gradio-"))
            and name not in (b"forwarded", b"x-real-ip")
        ]
        await self.app({**scope, "headers": kept, "scheme": scheme}, receive, send)


class Bodies(Step):
    """Reads a request's body whole, at most 64 kB in at most ten seconds.

    larger: patterns of paths with the bytes that fit there; such a body is left for the route to read,
    which happens after it is known who asks.
    """

    def __init__(self, app: ASGIApp, larger: Mapping[str, int] | None = None) -> None:
        super().__init__(app)
        self._larger = dict(larger or {})

    def _limit(self, path: str) -> int:
        fits = (limit for known, limit in self._larger.items() if re.fullmatch(known, path))
        return next(fits, BODY_LIMIT)

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] in SAFE_METHODS:
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        length = headers.get("content-length", "0")
        if "content-length" in headers and "transfer-encoding" in headers:
            raise Refusal(400)  # two lengths: a proxy may have believed the other one
        limit = self._limit(scope["path"])
        if not length.isdigit() or int(length[:12]) > limit:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(_pour_away(receive), POUR_S)
            raise Refusal(413)
        if limit > BODY_LIMIT:
            await self.app(scope, receive, send)
            return
        try:
            body = await asyncio.wait_for(read_body(receive), BODY_S)
        except TimeoutError:
            raise Refusal(408) from None
        if body is not None:  # None: the client has gone
            await self.app(scope, replay(body, receive), send)


async def _pour_away(receive: Receive) -> None:
    """Reads up to 1 MB of what is refused: a browser that is cut off in its sending never sees why."""
    poured = 0
    while poured < POUR_LIMIT:
        message = await receive()
        poured += len(message.get("body", b""))
        if message["type"] == "http.disconnect" or not message.get("more_body", False):
            return


async def read_body(receive: Receive) -> bytes | None:
    """The whole body, or None when the client has gone. Refuses (413) what is over the limit."""
    body = b""
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        body += bytes(message.get("body", b""))
        if len(body) > BODY_LIMIT:
            raise Refusal(413)
        if not message.get("more_body", False):
            return body


def replay(body: bytes, receive: Receive) -> Receive:
    """A receive that hands out the body once and then waits for the connection's end."""
    parts: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def again() -> Message:
        return parts.pop() if parts else await receive()

    return again


class AllowList(Step):
    """Only the routes in the table exist."""

    def __init__(self, app: ASGIApp, rules: Sequence[Rule]) -> None:
        super().__init__(app)
        self._rules = tuple(rules)

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        for rule in self._rules:
            if rule.allows(scope["method"], scope["path"]):
                await self.app({**scope, "huatuo.rule": rule}, receive, send)
                return
        raise Refusal(404)


class Origins(Step):
    """Nothing but the app's own pages may change anything, or load anything into a page."""

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = Headers(scope=scope)
        site = headers.get("sec-fetch-site", "")
        if scope["method"] in SAFE_METHODS:
            foreign = site in ("cross-site", "same-site")
            mode, target = headers.get("sec-fetch-mode"), headers.get("sec-fetch-dest")
            if foreign and (mode != "navigate" or target != "document"):
                raise Refusal(403)
        else:
            origin = headers.get("origin")
            own = f"{scope['scheme']}://{headers['host']}".lower()
            if site not in ("", "same-origin") or origin not in (own, None):
                raise Refusal(403)
            if origin is None and site != "same-origin":
                raise Refusal(403)
        await self.app(scope, receive, send)
