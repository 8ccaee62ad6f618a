"""the steps of signing in at a provider: out, with a page that says so, and back."""

import html as escape
import logging
import secrets
from collections.abc import Callable
from typing import Any

from fastapi import APIRouter
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from huatuo.accounts import Accounts, clean_name
from huatuo.errors import AccessError, Forbidden, InputError, NotSignedIn, ProviderFailed, TooFast
from huatuo.guard import language_in
from huatuo.identity import TOKEN, Language, cookie, digest
from huatuo.openid import BACK, PENDING_S, Known, Provider, Wish
from huatuo.sessions import remote_of, seen_of
from huatuo.ui.plain import form_of, plain
from huatuo.ui.signin import Ways, explain
from huatuo.ui.text import say
from reviews.errors import IdentityTaken, NameTaken

log = logging.getLogger(__name__)
BEGINNINGS, PER_S = 20, 0.1
"""Sign-ins that one address may begin at once, and then a second."""


def leaving_page(language: Language, title: str, url: str) -> str:
    """Leads to the provider. Not a redirect of the form: the content policy keeps forms at home."""
    shown = escape.escape(url)
    head = f'\n<meta http-equiv="refresh" content="0; url={shown}">'
    body = f'<p><a href="{shown}">{say("web.go_on", language)}</a></p>'
    words = say("openid.leaving", language, title=title)
    return plain(words, body, language, head=head)


def failed_page(language: Language, title: str, reason: str) -> str:
    """Why nobody was signed in, and the way back."""
    words = escape.escape(say(f"openid.{reason}", language, title=title))
    links = f'<a href="/{language}/sign-in">{say("openid.again", language)}</a>'
    return plain(say("openid.failed", language), f"<p>{words}</p><p>{links}</p>", language)


class Door:
    """What is done for those who come back from the provider."""

    def __init__(self, accounts: Accounts, provider: Provider, ways: Ways) -> None:
        self.accounts = accounts
        self.provider = provider
        self.ways = ways
        self.cookie_name = "__Host-openid" if accounts.secure else "openid"

    def cookie(self, value: str) -> str:
        """The cookie that ties a sign-in to one browser; it comes along from the provider's page."""
        secure = "; Secure" if self.accounts.secure else ""
        life = int(PENDING_S) if value else 0
        return f"{self.cookie_name}={value}; Path=/; Max-Age={life}; HttpOnly; SameSite=Lax{secure}"

    def begin(self, request: Request, wish: Wish, password: str) -> tuple[str, str]:
        """Where to go, and the value of the cookie. Raises AccessError."""
        accounts, remote = self.accounts, remote_of(request.scope)
        key = "openid:" + digest(remote)[:32]
        if not accounts.people.take(key, BEGINNINGS, PER_S, accounts.now()):
            raise TooFast("too many sign-ins begun from this address; wait some minutes")
        if wish.kind == "link":  # an unlocked browser alone must not open a second way in
            accounts.confirm(accounts.require(request, "physician"), password, remote)
        browser = f"{wish.language}-{secrets.token_urlsafe(32)}"
        return self.provider.begin(wish, browser), browser

    def enter(self, wish: Wish, known: Known, seen: dict[str, str]) -> tuple[str, str]:
        """The session's token, "" if there is one already, and the path to go to.

        Raises AccessError, RecordError.
        """
        accounts, language = self.accounts, wish.language
        if wish.kind == "link":
            row = accounts.row_of(wish.session)
            if row is None or row.user_id is None:
                raise NotSignedIn("the session that asked for the link has ended")
            accounts.people.link_identity(row.user_id, known.identity, row.user_id)
            return "", f"/{language}/account?done=linked"
        if wish.kind == "accept":
            token = accounts.accept(wish.link, "", None, seen, known.identity)
        else:
            self._welcome(known)
            token = accounts.sign_in_as(known.identity, seen)
        if wish.session:
            accounts.people.end_session(wish.session)
        return token, wish.there or self.ways.home(token, language)

    def _welcome(self, known: Known) -> None:
        """Makes an account for somebody unknown, where the configuration says so."""
        people, role = self.accounts.people, self.provider.config.role_of_new
        if not role or people.user_known_as(known.identity) is not None:
            return
        try:
            name = clean_name(known.name[:40])
        except InputError:
            name = role
        for tail in ("", *(f"-{secrets.token_hex(2)}" for _ in range(3))):
            try:
                people.add_user(name[:35] + tail, role, "", None, known.identity)
                return
            except NameTaken:
                continue


def router(accounts: Accounts, provider: Provider, ways: Ways) -> APIRouter:
    """The two routes: out, and back."""
    routes, door = APIRouter(), Door(accounts, provider, ways)
    title = provider.config.title

    def failed(language: Language, reason: str, status: int = 403) -> Response:
        return HTMLResponse(failed_page(language, title, reason), status)

    @routes.post("/{language}/openid")
    async def leave(request: Request, language: Language) -> Response:
        form = await form_of(request)
        token = cookie(request, accounts.cookie_name) or ""
        wish = _wish(form, language, digest(token) if token else "", ways.checked)
        try:
            given = (request, wish, form.get("old", ""))
            url, browser = await run_in_threadpool(door.begin, *given)
        except ProviderFailed as error:
            log.warning("sign-in provider: %s", error)
            return failed(language, error.reason, 502)
        except AccessError as error:
            words = explain(error, language, accounts.config.lock_minutes)
            if wish.kind == "link" and isinstance(error, NotSignedIn):
                words = say("account.wrong", language)
            there = "account" if wish.kind == "link" else "sign-in"
            links = f'<a href="/{language}/{there}">{say("web.go_on", language)}</a>'
            body = f"<p>{words}</p><p>{links}</p>"
            page = plain(say("openid.failed", language), body, language)
            return HTMLResponse(page, 403 if isinstance(error, NotSignedIn) else 429)
        response = HTMLResponse(leaving_page(language, title, url))
        response.headers.append("set-cookie", door.cookie(browser))
        return response

    @routes.get(BACK)
    async def back(request: Request) -> Response:
        query = dict(request.query_params)
        browser = cookie(request, door.cookie_name) or ""
        language = language_in(f"/{browser.partition('-')[0]}/", accounts.config.language)
        kind = "stale"
        try:
            wish, known = await run_in_threadpool(provider.finish, query, browser)
            kind = "unknown" if wish.kind == "sign-in" else "stale"
            given = (wish, known, seen_of(request.scope))
            token, path = await run_in_threadpool(door.enter, *given)
        except ProviderFailed as error:
            log.warning("sign-in provider: %s", error)
            return _without(door, failed(language, error.reason))
        except IdentityTaken:
            return _without(door, failed(language, "taken"))
        except (NotSignedIn, Forbidden):
            return _without(door, failed(language, kind))
        if not token:  # linked: the session that asked for it goes on
            return _without(door, RedirectResponse(path, 303))
        return _without(door, ways.enter(path, token))

    return routes


def _without(door: Door, response: Response) -> Response:
    """The answer that ends a sign-in, and its cookie with it."""
    response.headers.append("set-cookie", door.cookie(""))
    return response


def _wish(
    form: dict[str, str],
    language: Language,
    session: str,
    checked: Callable[[str | None, Any], str],
) -> Wish:
    """What the form asks for. session: the hash of the token of the session that asks."""
    link = form.get("invitation", "")
    if link:
        if not TOKEN.fullmatch(link):
            raise InputError("not a one-time link")
        return Wish("accept", language, link=link, session=session)
    if form.get("link"):
        return Wish("link", language, session=session)
    return Wish("sign-in", language, checked(form.get("next"), language), session=session)
