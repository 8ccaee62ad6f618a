"""the pages of signing in and of one-time links: an invitation, or a new password."""

import html as escape

from fastapi import APIRouter
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from huatuo.accounts import Accounts, Role
from huatuo.errors import AccessError, Forbidden, LockedOut, NotSignedIn
from huatuo.identity import cookie, has_role
from huatuo.sessions import remote_of, seen_of, set_cookie
from huatuo.ui.plain import field, form_of, plain, problem_box, username
from huatuo.ui.text import Language, say
from reviews.people import RESET, Invitation

HOME = {
    "adjudicator": "adjudicate",
    "physician": "compare",
    "researcher": "results",
    "admin": "admin",
}
"""The first page of each role."""


def sign_in_page(
    language: Language, there: str, problem: str = "", name: str = "", provider: str = ""
) -> str:
    """The form for name and password. there: a path that was checked before; provider: its title."""
    after = f"?next={there}" if there else ""
    body = f"""{problem_box(problem)}<form method="post" action="/{language}/sign-in{after}">
{field("name", "text", language, "username", name)}
{field("password", "password", language, "current-password")}
<button>{say("signin.submit", language)}</button></form>
{provider_form(language, provider, f'<input type="hidden" name="next" value="{there}">')}
<p class="quiet hint">{say("signin.help", language)}</p>"""
    return plain(say("signin.title", language), body, language, path=f"sign-in{after}")


def provider_form(language: Language, title: str, hidden: str = "", more: str = "") -> str:
    """The button that leads to the provider of this title; nothing without one. hidden, more: fields."""
    if not title:
        return ""
    words = say("openid.go", language, title=escape.escape(title))
    return f"""<p class="or">{say("openid.or", language)}</p>
<form method="post" action="/{language}/openid">{hidden}{more}
<button class="second">{words}</button></form>"""


def invite_page(
    language: Language,
    token: str,
    found: Invitation,
    shortest: int,
    problem: str = "",
    provider: str = "",
) -> str:
    """The form for the password behind a one-time link."""
    name, again = escape.escape(found.name), found.role == RESET
    role = "" if again else say(f"role.{found.role}", language)
    words = say("signin.reset" if again else "signin.invited", language, name=name, role=role)
    hidden = f'<input type="hidden" name="invitation" value="{token}">'
    body = f"""<p>{words}</p>{problem_box(problem)}
<form method="post" action="/{language}/invite/{token}">
{username(found.name)}
{field("new", "password", language, "new-password")}
{field("again", "password", language, "new-password")}
<button>{say("signin.accept", language)}</button></form>
{provider_form(language, provider, hidden)}
<p class="quiet hint">{say("signin.rule", language, shortest=shortest)}</p>"""
    title = say("signin.reset_title" if again else "signin.welcome", language)
    return plain(title, body, language, path=f"invite/{token}")


def used_page(language: Language) -> str:
    """What stands behind a link that was used, withdrawn or is too old."""
    body = f"<p>{say('signin.used', language)}</p>"
    return plain(say("signin.used_title", language), body, language)


def explain(error: Exception, language: Language, minutes: int) -> str:
    """An error of signing in, in words. minutes: how long an account stays locked."""
    if isinstance(error, NotSignedIn):
        return say("signin.wrong", language)
    if isinstance(error, LockedOut):
        return say("signin.locked", language, minutes=minutes)
    return say("signin.too_fast", language)


def password_words(accounts: Accounts, new: str, again: str, name: str, language: Language) -> str:
    """Why this pair of passwords cannot be used, in words; empty when it can."""
    if new != again:
        return say("signin.differ", language)
    problem = accounts.password_problem(new, name)
    shortest = accounts.config.password_length
    return say(f"signin.problem_{problem}", language, shortest=shortest) if problem else ""


class Ways:
    """Where somebody goes after signing in. pages: name and least role."""

    def __init__(self, accounts: Accounts, pages: dict[str, Role]) -> None:
        self._accounts = accounts
        self._pages = pages

    def checked(self, there: str | None, language: Language) -> str:
        """The page of ours that `next` names, in this language; "" for anything else."""
        paths = {f"/{language}/{name}/" for name in self._pages}
        other = f"/{there.split('/')[2]}/" if there and there.count("/") == 3 else ""
        path = f"/{language}{other}"
        return path if path in paths else ""

    def home(self, token: str, language: Language) -> str:
        """The first page of the session's role."""
        session = self._accounts.session_of(token, language)
        pages = self._pages.items()
        open_to = [n for n, role in pages if session and has_role(session, role)]
        name = HOME.get(session.role if session else "", "")
        return f"/{language}/{name if name in open_to else open_to[0] if open_to else ''}/"

    def enter(self, path: str, token: str) -> Response:
        """Leads to the path with the session's cookie."""
        response = RedirectResponse(path, 303)
        days = self._accounts.config.session_days
        response.headers.append("set-cookie", set_cookie(self._accounts, token, days))
        return response


def router(accounts: Accounts, ways: Ways) -> APIRouter:
    """The routes of signing in and out, and of one-time links."""
    routes = APIRouter()
    config, provider = accounts.config, accounts.config.openid.title

    @routes.get("/{language}/sign-in")
    def show_sign_in(language: Language, next: str = "") -> HTMLResponse:
        there = ways.checked(next, language)
        return HTMLResponse(sign_in_page(language, there, provider=provider))

    @routes.post("/{language}/sign-in")
    async def sign_in(request: Request, language: Language, next: str = "") -> Response:
        form = await form_of(request)
        name, there = form.get("name", ""), ways.checked(next, language)
        old = cookie(request, accounts.cookie_name)
        remote, seen = remote_of(request.scope), seen_of(request.scope)
        given = (name, form.get("password", ""), remote, old, seen)
        try:
            token = await run_in_threadpool(accounts.sign_in, *given)
        except AccessError as error:
            status = 401 if isinstance(error, NotSignedIn) else 429
            words = explain(error, language, config.lock_minutes)
            page = sign_in_page(language, there, words, name[:64], provider)
            return HTMLResponse(page, status)
        return ways.enter(there or ways.home(token, language), token)

    @routes.post("/{language}/sign-out")
    def sign_out(request: Request, language: Language) -> Response:
        accounts.sign_out(cookie(request, accounts.cookie_name))
        response = RedirectResponse(f"/{language}/", 303)
        response.headers.append("set-cookie", set_cookie(accounts, "", 0))
        return response

    @routes.get("/{language}/invite/{token}")
    def show_invite(language: Language, token: str) -> HTMLResponse:
        found = accounts.invitation(token)
        if found is None:
            return HTMLResponse(used_page(language), 403)
        shortest = config.password_length
        return HTMLResponse(invite_page(language, token, found, shortest, provider=provider))

    @routes.post("/{language}/invite/{token}")
    async def accept(request: Request, language: Language, token: str) -> Response:
        form = await form_of(request)
        found = await run_in_threadpool(accounts.invitation, token)
        if found is None:
            return HTMLResponse(used_page(language), 403)
        new, again = form.get("new", ""), form.get("again", "")
        words = password_words(accounts, new, again, found.name, language)
        if words:
            page = invite_page(language, token, found, config.password_length, words, provider)
            return HTMLResponse(page, 422)
        old, seen = cookie(request, accounts.cookie_name), seen_of(request.scope)
        try:
            opened = await run_in_threadpool(accounts.accept, token, new, old, seen)
        except Forbidden:
            return HTMLResponse(used_page(language), 403)
        return ways.enter(ways.home(opened, language), opened)

    return routes
