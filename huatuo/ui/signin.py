"""the plain pages: sign in, accept an invitation, change the password, and errors. No script needed."""

import html as escape
from urllib.parse import parse_qsl

from fastapi import APIRouter
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from huatuo import accounts as rules
from huatuo.accounts import PASSWORD_LIMIT, Accounts, Role, Session
from huatuo.errors import AccessError, Forbidden, InputError, LockedOut, NotSignedIn
from huatuo.sessions import remote_of, set_cookie
from huatuo.ui.files import static_url
from huatuo.ui.text import TEXT, Language, say


def plain(title: str, body: str, language: Language, *, path: str = "", head: str = "") -> str:
    """A whole page. title: text; body: our own HTML; path: what follows the language in the URL."""
    other: Language = "en" if language == "zh" else "zh"
    lang = {"zh": "zh-CN", "en": "en"}
    switch = (
        f'<a href="/{other}/{path}" hreflang="{lang[other]}" lang="{lang[other]}" '
        f'aria-label="{say("frame.language_label", language)}">{say("frame.language", language)}</a>'
    )
    return f"""<!doctype html>
<html lang="{lang[language]}">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape.escape(title)} · {say("app.name", language)}</title>
<link rel="icon" href="/favicon.ico">
<link rel="stylesheet" href="{static_url("style.css")}">
<link rel="stylesheet" href="{static_url("forms.css")}">
<script src="{static_url("page.js")}"></script>{head}
</head>
<body>
<header class="frame"><div class="bar plain-bar">
<a class="brand" href="/{language}/">{say("app.name", language)}</a>
<span class="tools">{switch if path else ""}
<button type="button" data-theme aria-label="{say("frame.theme", language)}">◐</button></span>
</div><p class="limits">{say("notice.limits", language)}</p></header>
<main class="plain" id="main"><h1>{escape.escape(title)}</h1>
{body}
</main>
</body>
</html>
"""


def error_words(status: int, language: Language) -> str:
    """What a refusal means, as a sentence; Gradio shows it on the page when one of its calls was refused."""
    return say(f"web.{status}" if f"web.{status}" in TEXT else "web.error", language)


def error_page(status: int, code: str, language: Language) -> str:
    """What a person reads when a request was refused."""
    known = f"web.{status}" if f"web.{status}" in TEXT else "web.error"
    words = escape.escape(error_words(status, language))
    number = f'<p class="quiet">{escape.escape(code)}</p>' if status == 500 else ""
    links = f'<p><a href="/{language}/">{say("web.home", language)}</a></p>'
    if status == 401:
        links = f'<p><a href="/{language}/sign-in">{say("signin.title", language)}</a></p>' + links
    title = say(f"{known}.title" if f"{known}.title" in TEXT else "web.error.title", language)
    return plain(title, f"<p>{words}</p>{number}{links}", language)


def again_page(language: Language) -> str:
    """A page that asks for itself once more, this time with the strict cookie."""
    head = '\n<meta http-equiv="refresh" content="0">'
    body = f'<p><a href="">{say("web.go_on", language)}</a></p>'
    return plain(say("web.go_on", language), body, language, head=head)


def _field(name: str, kind: str, language: Language, hint: str, value: str = "") -> str:
    return (
        f'<label>{say(f"signin.{name}", language)}<input name="{name}" type="{kind}" required '
        f'maxlength="{PASSWORD_LIMIT}" autocomplete="{hint}" value="{escape.escape(value)}"></label>'
    )


def _username(name: str) -> str:
    """For the browser's password manager; not shown and not read by us."""
    value = escape.escape(name)
    return f'<input type="text" name="name" value="{value}" autocomplete="username" hidden>'


def _problem(words: str) -> str:
    return f'<p class="problem" role="alert">{escape.escape(words)}</p>' if words else ""


def sign_in_page(language: Language, there: str, problem: str = "", name: str = "") -> str:
    """The form for name and password. there: a path that was checked before."""
    after = f"?next={there}" if there else ""
    body = f"""{_problem(problem)}<form method="post" action="/{language}/sign-in{after}">
{_field("name", "text", language, "username", name)}
{_field("password", "password", language, "current-password")}
<button>{say("signin.submit", language)}</button></form>
<p class="quiet hint">{say("signin.help", language)}</p>"""
    return plain(say("signin.title", language), body, language, path=f"sign-in{after}")


def invite_page(language: Language, token: str, name: str, role: str, problem: str = "") -> str:
    """The form for the first password of a new account."""
    words = say(
        "signin.invited", language, name=escape.escape(name), role=say(f"role.{role}", language)
    )
    body = f"""<p>{words}</p>{_problem(problem)}
<form method="post" action="/{language}/invite/{token}">
{_username(name)}
{_field("new", "password", language, "new-password")}
{_field("again", "password", language, "new-password")}
<button>{say("signin.accept", language)}</button></form>
<p class="quiet hint">{say("signin.rule", language)}</p>"""
    return plain(say("signin.welcome", language), body, language, path=f"invite/{token}")


def account_page(language: Language, session: Session, problem: str = "", done: str = "") -> str:
    """Name and role, the form for another password, and the button that signs out."""
    role = say(f"role.{session.role}", language)
    told = f'<p class="done" role="status">{escape.escape(done)}</p>' if done else ""
    body = f"""<p>{escape.escape(session.name)} · {role}</p>{told}
<form method="post" action="/{language}/sign-out">
<button class="second">{say("frame.sign_out", language)}</button></form>
<h2>{say("signin.change", language)}</h2>{_problem(problem)}
<form method="post" action="/{language}/account">
{_username(session.name)}
{_field("old", "password", language, "current-password")}
{_field("new", "password", language, "new-password")}
{_field("again", "password", language, "new-password")}
<button>{say("signin.change", language)}</button></form>
<p class="quiet hint">{say("signin.rule", language)}</p>"""
    return plain(say("frame.account", language), body, language, path="account")


def explain(error: Exception, language: Language) -> str:
    """An error of signing in, in words."""
    if isinstance(error, NotSignedIn):
        return say("signin.wrong", language)
    if isinstance(error, LockedOut):
        return say("signin.locked", language)
    return say("signin.too_fast", language)


async def form_of(request: Request) -> dict[str, str]:
    """The fields of a posted form. Raises InputError when the body is none."""
    kind = request.headers.get("content-type", "").split(";")[0].strip().lower()
    if kind != "application/x-www-form-urlencoded":
        raise InputError("not a form")
    body = (await request.body()).decode("utf-8", "replace")
    try:
        return dict(parse_qsl(body, keep_blank_values=True, max_num_fields=20))
    except ValueError as error:
        raise InputError("not a form") from error


def password_words(new: str, again: str, name: str, language: Language) -> str:
    """Why this pair of passwords cannot be used, in words; empty when it can."""
    if new != again:
        return say("signin.differ", language)
    problem = rules.password_problem(new, name)
    return say(f"signin.problem_{problem}", language) if problem else ""


def router(accounts: Accounts, pages: dict[str, Role]) -> APIRouter:
    """The routes of the plain pages. pages: name and least role, to know where to go next."""
    routes = APIRouter()
    days = accounts.config.session_days

    def then(path: str, token: str) -> Response:
        response = RedirectResponse(path, 303)
        response.headers.append("set-cookie", set_cookie(accounts, token, days))
        return response

    def checked(there: str | None, language: Language) -> str:
        paths = {f"/{language}/{name}/" for name in pages}
        other = f"/{there.split('/')[2]}/" if there and there.count("/") == 3 else ""
        path = f"/{language}{other}"
        return path if path in paths else ""

    def home(token: str, language: Language) -> str:
        session = accounts.session_of(token, language)
        open_to = [n for n, role in pages.items() if session and rules.has_role(session, role)]
        wanted = {"physician": "compare", "researcher": "results", "admin": "admin"}
        name = wanted.get(session.role if session else "", "")
        return f"/{language}/{name if name in open_to else open_to[0] if open_to else ''}/"

    @routes.get("/{language}/sign-in")
    def show_sign_in(language: Language, next: str = "") -> HTMLResponse:
        return HTMLResponse(sign_in_page(language, checked(next, language)))

    @routes.post("/{language}/sign-in")
    async def sign_in(request: Request, language: Language, next: str = "") -> Response:
        form = await form_of(request)
        name, there = form.get("name", ""), checked(next, language)
        old = rules.cookie(request, accounts.cookie_name)
        remote, password = remote_of(request.scope), form.get("password", "")
        try:
            token = await run_in_threadpool(accounts.sign_in, name, password, remote, old)
        except AccessError as error:
            status = 401 if isinstance(error, NotSignedIn) else 429
            page = sign_in_page(language, there, explain(error, language), name[:64])
            return HTMLResponse(page, status)
        return then(there or home(token, language), token)

    @routes.post("/{language}/sign-out")
    def sign_out(request: Request, language: Language) -> Response:
        accounts.sign_out(rules.cookie(request, accounts.cookie_name))
        response = RedirectResponse(f"/{language}/", 303)
        response.headers.append("set-cookie", set_cookie(accounts, "", 0))
        return response

    @routes.get("/{language}/invite/{token}")
    def show_invite(language: Language, token: str) -> HTMLResponse:
        found = accounts.invitation(token)
        if found is None:
            return HTMLResponse(_used(language), 403)
        return HTMLResponse(invite_page(language, token, found.name, found.role))

    @routes.post("/{language}/invite/{token}")
    async def accept(request: Request, language: Language, token: str) -> Response:
        form = await form_of(request)
        found = await run_in_threadpool(accounts.invitation, token)
        if found is None:
            return HTMLResponse(_used(language), 403)
        new = form.get("new", "")
        words = password_words(new, form.get("again", ""), found.name, language)
        if words:
            page = invite_page(language, token, found.name, found.role, words)
            return HTMLResponse(page, 422)
        old = rules.cookie(request, accounts.cookie_name)
        try:
            opened = await run_in_threadpool(accounts.accept, token, new, old)
        except Forbidden:
            return HTMLResponse(_used(language), 403)
        return then(home(opened, language), opened)

    @routes.get("/{language}/account")
    def show_account(request: Request, language: Language) -> HTMLResponse:
        return HTMLResponse(account_page(language, accounts.require(request, "physician")))

    @routes.post("/{language}/account")
    async def change_password(request: Request, language: Language) -> Response:
        session = await run_in_threadpool(accounts.require, request, "physician")
        form = await form_of(request)
        old, new = form.get("old", ""), form.get("new", "")
        words = password_words(new, form.get("again", ""), session.name, language)
        if words:
            return HTMLResponse(account_page(language, session, words), 422)
        remote = remote_of(request.scope)
        try:
            token = await run_in_threadpool(accounts.change_password, session, old, new, remote)
        except AccessError as error:
            status = 403 if isinstance(error, NotSignedIn) else 429
            page = account_page(language, session, explain(error, language))
            return HTMLResponse(page, status)
        response = HTMLResponse(
            account_page(language, session, done=say("signin.changed", language))
        )
        response.headers.append("set-cookie", set_cookie(accounts, token, days))
        return response

    return routes


def _used(language: Language) -> str:
    return plain(
        say("signin.used_title", language), f"<p>{say('signin.used', language)}</p>", language
    )
