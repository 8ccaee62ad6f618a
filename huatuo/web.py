"""FastAPI shell around Gradio: session cookie, origin guard, route allow-list, security headers, body limit.

Every page is mounted twice, at /zh/NAME/ and /en/NAME/. The table of what may be asked at all is
`route_table`; anything else is 404. The steps a request passes are in huatuo/guard.py and
huatuo/sessions.py, the pages without script in huatuo/ui/plain.py, signin.py, account.py and provider.py.
"""

import os

# Before gradio is imported: nothing is sent to anybody, nothing is looked up on a hub.
os.environ.update(
    GRADIO_ANALYTICS_ENABLED="False",
    GRADIO_RUN_HISTORY="False",
    GRADIO_MCP_SERVER="False",
    GRADIO_SSR_MODE="False",
    HF_HUB_OFFLINE="1",
    HF_HUB_DISABLE_TELEMETRY="1",
)

import asyncio
import contextlib
import logging
import re
import secrets
from collections.abc import AsyncIterator, Callable, Container, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass
from typing import Any

import gradio as gr
import uvicorn
from fastapi import FastAPI
from starlette.datastructures import MutableHeaders
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.routing import compile_path
from starlette.types import Message, Receive, Scope, Send

from huatuo.accounts import Accounts, Role
from huatuo.config import AppConfig
from huatuo.errors import AccessError
from huatuo.guard import (
    BODY_LIMIT,
    POLICY,
    AllowList,
    Bodies,
    Border,
    Hosts,
    Origins,
    Rule,
    Step,
    language_in,
)
from huatuo.openid import BACK, Provider
from huatuo.sessions import OwnEvents, Sessions
from huatuo.ui import account, frame, plain, signin
from huatuo.ui import provider as provider_pages
from huatuo.ui.files import gradio_asset, static_file, static_url
from huatuo.ui.text import LANGUAGES, Language, say
from reviews.errors import RecordError

log = logging.getLogger(__name__)

Lifespan = Callable[[FastAPI], AbstractAsyncContextManager[None]]
_L = "/(zh|en)"


@dataclass(frozen=True)
class Page:
    """A page for those of at least this role. build: the page in one language."""

    name: str
    role: Role
    build: Callable[[Language], gr.Blocks]


@dataclass(frozen=True)
class Route:
    """A further route of the app, such as a download. path may hold {language} and other fields.

    limit: the name of the allowance in huatuo/accounts.py that each request takes from.
    body_limit: bytes of a body; above the usual 64 kB the endpoint reads it, and counts, itself.
    """

    path: str
    endpoint: Callable[..., Any]
    role: Role
    methods: tuple[str, ...] = ("GET",)
    limit: str | None = None
    body_limit: int = BODY_LIMIT


def route_table(
    pages: Sequence[Page], routes: Sequence[Route] = (), *, provider: bool = False
) -> list[Rule]:
    """Every request that may be made, and by whom; all else is 404. provider: whether there is one."""
    table = [
        Rule("GET", "/", None),
        Rule("GET", f"{_L}/?", None),
        Rule("GET", "/healthz", None),
        Rule("GET", r"/favicon\.ico", None),
        Rule("GET", r"/static/[\w.-]+", None),
        Rule("GET", r"/assets/[\w.-]+", None),
        Rule("GET POST", f"{_L}/sign-in", None),
        Rule("POST", f"{_L}/sign-out", None),
        Rule("GET POST", rf"{_L}/invite/[\w-]{{43}}", None),
        Rule("GET POST", f"{_L}/account", "physician", "document"),
        Rule(
            "POST",
            f"{_L}/account/(end-session|sign-out-everywhere|unlink)",
            "physician",
            "document",
        ),
    ]
    if provider:
        table += [Rule("POST", f"{_L}/openid", None), Rule("GET", BACK, None)]
    for page in pages:
        at = f"{_L}/{re.escape(page.name)}"
        table += [
            Rule("GET", f"{at}/?", page.role, "document"),
            Rule("GET", rf"{at}/theme\.css", page.role),
            Rule("GET", rf"{at}/assets/[\w-]+\.css", page.role),
            Rule("GET", rf"{at}/static/fonts/[\w-]+/[\w-]+\.woff2", page.role),
            Rule("GET", f"{at}/gradio_api/app_id", page.role),
            Rule("GET", rf"{at}/gradio_api/heartbeat/[\w-]+", page.role, "event"),
            Rule("GET", f"{at}/gradio_api/queue/data", page.role, "event"),
            Rule("POST", f"{at}/gradio_api/queue/join", page.role, "event"),
            Rule("POST", rf"{at}/gradio_api/run/[\w-]{{1,64}}", page.role, "event"),
            Rule("POST", f"{at}/gradio_api/cancel", page.role, "event"),
        ]
    for route in routes:
        pattern = compile_path(route.path)[0].pattern
        methods = " ".join(route.methods)
        table.append(Rule(methods, pattern, route.role, "document", route.limit))
    return table


def build_app(
    config: AppConfig,
    accounts: Accounts,
    pages: Sequence[Page],
    routes: Sequence[Route] = (),
    lifespan: Lifespan | None = None,
    provider: Provider | None = None,
) -> FastAPI:
    """The whole app. The first page is the one that "/" leads to."""
    app = FastAPI(
        lifespan=_lifespan(accounts, lifespan), openapi_url=None, docs_url=None, redoc_url=None
    )
    titles = {page.name: page.role for page in pages}
    functions: dict[str, Container[int]] = {}  # filled as the pages are mounted, below
    ways = signin.Ways(accounts, titles)
    app.include_router(signin.router(accounts, ways))
    app.include_router(account.router(accounts))
    if provider is not None:
        app.include_router(provider_pages.router(accounts, provider, ways))
    for route in routes:
        app.add_api_route(
            route.path, route.endpoint, methods=list(route.methods), response_model=None
        )
    _own_routes(app, config, pages)
    # Its presence makes Gradio leave out its own, generous cross-origin headers.
    app.add_middleware(CORSMiddleware, allow_origins=[])
    app.add_middleware(Document)
    app.add_middleware(OwnEvents, functions=functions)
    app.add_middleware(Sessions, accounts=accounts, again_page=plain.again_page)
    app.add_middleware(Origins)
    app.add_middleware(AllowList, rules=route_table(pages, routes, provider=provider is not None))
    larger = {compile_path(r.path)[0].pattern: r.body_limit for r in routes}
    app.add_middleware(Bodies, larger=larger)
    app.add_middleware(Hosts, config=config)
    app.add_middleware(
        Border, config=config, error_page=plain.error_page, error_words=plain.error_words
    )
    for language in LANGUAGES:
        for page in pages:
            functions[f"/{language}/{page.name}"] = _mount(app, accounts, page, language)
    return app


def uvicorn_config(app: FastAPI, config: AppConfig) -> uvicorn.Config:
    """How the app is served: no path is written to a log, and X-Forwarded-For is believed only from
    the trusted proxies: the right-most address in it that is none of them is the client's."""
    return uvicorn.Config(
        app,
        host=config.host,
        port=config.port,
        proxy_headers=bool(config.trusted_proxies),
        forwarded_allow_ips=list(config.trusted_proxies),
        server_header=False,
        access_log=False,
        log_level="warning",
        timeout_graceful_shutdown=3,
    )


def _lifespan(accounts: Accounts, inner: Lifespan | None) -> Lifespan:
    @contextlib.asynccontextmanager
    async def life(app: FastAPI) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            if inner is not None:
                await stack.enter_async_context(inner(app))
            sweeping = asyncio.create_task(_sweep(accounts))
            try:
                yield
            finally:
                sweeping.cancel()

    return life


async def _sweep(accounts: Accounts) -> None:
    """Forgets expired sessions, once an hour."""
    while True:
        try:
            await asyncio.to_thread(accounts.end_old_sessions)
        except RecordError as error:
            log.warning("old sessions were not removed: %s", error)
        await asyncio.sleep(3600)


def _own_routes(app: FastAPI, config: AppConfig, pages: Sequence[Page]) -> None:
    first = pages[0].name

    @app.get("/")
    def home(request: Request) -> Response:
        return RedirectResponse(f"/{preferred(request, config.language)}/{first}/", 303)

    @app.get("/healthz")
    def health() -> Response:
        return PlainTextResponse("ok")

    @app.get("/favicon.ico")
    def icon(request: Request) -> Response:
        return static_file(request, "favicon.svg")

    app.add_api_route("/static/{name}", static_file, response_model=None)
    app.add_api_route("/assets/{name}", gradio_asset, response_model=None)

    @app.get("/{language}")
    @app.get("/{language}/")
    def home_in(language: Language) -> Response:
        return RedirectResponse(f"/{language}/{first}/", 303)

    @app.get("/{language}/{name}")
    def with_slash(language: Language, name: str) -> Response:
        return RedirectResponse(f"/{language}/{name}/", 308)


def preferred(request: Request, default: Language) -> Language:
    """Chinese or English, whichever the browser names first; else the configured language."""
    for part in request.headers.get("accept-language", "").lower().split(","):
        if part.strip()[:2] in LANGUAGES:
            return "zh" if part.strip().startswith("zh") else "en"
    return default


def gate(accounts: Accounts, role: Role) -> Callable[[Request], str | None]:
    """Gradio's own check of each call: the role, or None, which means 401. Never async."""

    def check(request: Request) -> str | None:
        try:
            return accounts.require(request, role).role
        except AccessError:
            return None

    return check


@contextlib.contextmanager
def _without_spare_apps() -> Iterator[None]:
    """While a page is built Gradio makes its web app three times, only to make it again when it is
    mounted; the spare ones would cost ten pages three seconds of start-up."""
    gradio_app: Any = gr.routes.App
    made = gradio_app.create_app
    gradio_app.create_app = staticmethod(lambda *_, **__: FastAPI())
    try:
        yield
    finally:
        gradio_app.create_app = staticmethod(made)


def _mount(app: FastAPI, accounts: Accounts, page: Page, language: Language) -> Container[int]:
    """Puts a page under its path; returns the numbers of its functions."""
    with _without_spare_apps():
        blocks = page.build(language)
        blocks.max_threads = 64
        blocks.state_session_capacity = 500
        blocks.queue(api_open=False, max_size=64, default_concurrency_limit=32)
    gr.mount_gradio_app(
        app,
        blocks,
        path=f"/{language}/{page.name}",
        app_kwargs={"openapi_url": None, "docs_url": None, "redoc_url": None},
        auth_dependency=gate(accounts, page.role),
        theme=frame.theme(),
        footer_links=[],
        run_history=False,
        allowed_paths=[],
        blocked_paths=["/"],
        show_error=False,
        max_file_size="1kb",
        ssr_mode=False,
        enable_monitoring=False,
        pwa=False,
        mcp_server=False,
    )
    return frozenset(blocks.fns)


class Document(Step):
    """Makes Gradio's page ours: a nonce on its scripts, our stylesheet and script, shared assets."""

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Only pages are changed; everything else streams through."""
        rule: Rule = scope["huatuo.rule"]
        place, mark, name = scope["path"].rpartition("/assets/")
        if mark and place:  # one sheet is asked for below the page's own address
            scope = {**scope, "path": mark + name, "raw_path": (mark + name).encode()}
        if rule.kind != "document" or scope["method"] != "GET":
            await self.app(scope, receive, send)
            return
        headers = [item for item in scope["headers"] if item[0] != b"accept-encoding"]
        start: Message = {}
        body = b""

        async def changed(message: Message) -> None:
            nonlocal start, body
            if message["type"] == "http.response.start":
                start = message
                if not is_html(message):
                    await send(message)
                return
            if not is_html(start):
                await send(message)
                return
            body += message.get("body", b"")
            if not message.get("more_body", False):
                if b"window.gradio_config" in body:
                    body = self._ours(body, start, language_in(scope["path"], "zh"))
                await send(start)
                await send({"type": "http.response.body", "body": body})

        await self.app({**scope, "headers": headers}, receive, changed)

    def _ours(self, body: bytes, start: Message, language: Language) -> bytes:
        nonce = secrets.token_urlsafe(16)
        body = rewrite(body.decode(), nonce, language).encode()
        headers = MutableHeaders(scope=start)
        headers["content-length"] = str(len(body))
        headers["content-security-policy"] = POLICY.format(nonce=f" 'nonce-{nonce}'")
        return body


def is_html(start: Message) -> bool:
    """Whether a response that begins so is a web page."""
    return MutableHeaders(scope=start).get("content-type", "").startswith("text/html")


def rewrite(page: str, nonce: str, language: Language) -> str:
    """Gradio's HTML with its scripts marked, in our language, and naming no other site.

    A pattern that a later Gradio no longer has changes nothing; the browser tests would see it.
    """
    page = page.replace("<script", f'<script nonce="{nonce}"')
    page = re.sub(r'<html\s+lang="en"', f'<html lang="{_LANG[language]}"', page, count=1)
    page = re.sub(r'<meta\s+(property="og:|name="twitter:)[^>]*>', "", page)
    page = re.sub(r'<link rel="manifest"[^>]*>', "", page)
    page = re.sub(
        r"<script[^>]*>(?:(?!</script>).)*iframeResizer\.contentWindow(?:(?!</script>).)*</script>",
        "",
        page,
        flags=re.DOTALL,
    )
    page = page.replace('"./assets/', '"/assets/')
    ours = (
        '<link rel="icon" href="/favicon.ico">'
        f'<link rel="stylesheet" href="{static_url("style.css")}">'
        f'<link rel="stylesheet" href="{static_url("people.css")}">'
        f'<link rel="stylesheet" href="{static_url("rating.css")}">'
        f'<script src="{static_url("page.js")}"></script>'
        f'<script src="{static_url("rating.js")}"></script>'
        f'<script src="{static_url("copy.js")}"></script>'
    )
    words = f"<noscript><p>{say('web.no_script', language)}</p></noscript>"
    return page.replace("</head>", f"{ours}</head>", 1).replace(
        "<gradio-app", f"{words}<gradio-app", 1
    )


_LANG = {"zh": "zh-CN", "en": "en"}
