"""the account page: one's sessions, the password, and signing in by a provider. No script needed."""

import html as escape
from collections.abc import Sequence

from fastapi import APIRouter
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from huatuo.accounts import Accounts, Session
from huatuo.errors import AccessError, NotSignedIn
from huatuo.identity import cookie, digest
from huatuo.sessions import remote_of, seen_of, set_cookie
from huatuo.ui import signin
from huatuo.ui.plain import field, form_of, plain, problem_box, username
from huatuo.ui.text import TEXT, Language, say
from reviews.people import SessionRow, User

TOLD = ("changed", "ended", "linked", "unlinked")
"""What the page says after a step, by the word in its address."""


def account_page(
    accounts: Accounts,
    session: Session,
    user: User,
    language: Language,
    current: str,
    problem: str = "",
    done: str = "",
) -> str:
    """Everything about one's own account. current: the hash of the token of this session."""
    role = say(f"role.{session.role}", language)
    told = f'<p class="done" role="status">{escape.escape(done)}</p>' if done else ""
    body = f"""<p>{escape.escape(session.name)} · {role}</p>{told}{problem_box(problem)}
<form method="post" action="/{language}/sign-out">
<button class="second">{say("frame.sign_out", language)}</button></form>
{_sessions(accounts.people.sessions_of(user.id), language, current)}
{_password(user, language, accounts.config.password_length)}
{_provider(user, language, accounts.config.openid.title)}"""
    return plain(say("frame.account", language), body, language, path="account")


def _sessions(rows: Sequence[SessionRow], language: Language, current: str) -> str:
    """The open sessions, each with a button that ends it."""
    items = "".join(_session(row, language, row.token_hash == current) for row in rows)
    everywhere = (
        f'<form method="post" action="/{language}/account/sign-out-everywhere">'
        f'<button class="second">{say("account.everywhere", language)}</button></form>'
    )
    return f"""<h2>{say("account.sessions", language)}</h2>
<p class="quiet">{say("account.sessions_help", language)}</p>
<ul class="rows">{items}</ul>{everywhere}"""


def _session(row: SessionRow, language: Language, is_current: bool) -> str:
    where = " · ".join(
        str(row.data[key]) for key in ("browser", "system", "from") if row.data.get(key)
    )
    seen = f'<time datetime="{row.seen_at:%Y-%m-%dT%H:%MZ}">{row.seen_at:%Y-%m-%d %H:%M} UTC</time>'
    words = say("account.seen", language, at=seen)
    if is_current:
        button = f"<strong>{say('account.this', language)}</strong>"
    else:
        button = (
            f'<form method="post" action="/{language}/account/end-session">'
            f'<input type="hidden" name="session" value="{row.id}">'
            f'<button class="second small">{say("account.end", language)}</button></form>'
        )
    shown = escape.escape(where) or say("account.somewhere", language)
    return f"<li><span>{shown}<br><small>{words}</small></span>{button}</li>"


def _password(user: User, language: Language, shortest: int) -> str:
    """The form for another password."""
    head = f"<h2>{say('signin.change', language)}</h2>"
    if not user.password_hash:
        return f'{head}<p class="quiet">{say("account.no_password", language)}</p>'
    return f"""{head}<form method="post" action="/{language}/account">
{username(user.name)}
{field("old", "password", language, "current-password")}
{field("new", "password", language, "new-password")}
{field("again", "password", language, "new-password")}
<button>{say("signin.change", language)}</button></form>
<p class="quiet hint">{say("signin.rule", language, shortest=shortest)}</p>"""


def _provider(user: User, language: Language, title: str) -> str:
    """Linking the account to the provider, or ending that."""
    if not title:
        return ""
    shown = escape.escape(title)
    head = f"<h2>{say('account.provider', language, title=shown)}</h2>"
    if user.identity is None:
        words = say("account.link_help", language, title=shown)
        action, button = "openid", say("account.link", language, title=shown)
    else:
        words = say("account.linked_help", language, title=shown)
        if not user.password_hash:
            return f"{head}<p>{words}</p>"
        action, button = "account/unlink", say("account.unlink", language)
    box = field("old", "password", language, "current-password")
    return f"""{head}<p>{words}</p>
<form method="post" action="/{language}/{action}"><input type="hidden" name="link" value="yes">
{username(user.name)}{box}<button class="second">{button}</button></form>"""


def router(accounts: Accounts) -> APIRouter:
    """The routes of the account page."""
    routes = APIRouter()

    def who(request: Request) -> tuple[Session, User, str]:
        session = accounts.require(request, "physician")
        user = accounts.people.user(session.user_id or 0)
        if user is None:
            raise NotSignedIn("there is no such account")
        token = cookie(request, accounts.cookie_name) or ""
        return session, user, digest(token)

    def page(request: Request, language: Language, problem: str = "", done: str = "") -> str:
        session, user, current = who(request)
        return account_page(accounts, session, user, language, current, problem, done)

    def back(language: Language, done: str) -> Response:
        return RedirectResponse(f"/{language}/account?done={done}", 303)

    def refused(request: Request, language: Language, error: AccessError) -> Response:
        words = signin.explain(error, language, accounts.config.lock_minutes)
        if isinstance(error, NotSignedIn):
            words = say("account.wrong", language)
        status = 403 if isinstance(error, NotSignedIn) else 429
        return HTMLResponse(page(request, language, words), status)

    @routes.get("/{language}/account")
    def show_account(request: Request, language: Language, done: str = "") -> HTMLResponse:
        words = TEXT[f"account.{done}"][language] if done in TOLD else ""
        return HTMLResponse(page(request, language, done=words))

    @routes.post("/{language}/account")
    async def change_password(request: Request, language: Language) -> Response:
        session, _, _ = await run_in_threadpool(who, request)
        form = await form_of(request)
        old, new = form.get("old", ""), form.get("new", "")
        words = signin.password_words(accounts, new, form.get("again", ""), session.name, language)
        if words:
            return HTMLResponse(await run_in_threadpool(page, request, language, words), 422)
        given = (session, old, new, remote_of(request.scope), seen_of(request.scope))
        try:
            token = await run_in_threadpool(accounts.change_password, *given)
        except AccessError as error:
            return await run_in_threadpool(refused, request, language, error)
        response = back(language, "changed")
        days = accounts.config.session_days
        response.headers.append("set-cookie", set_cookie(accounts, token, days))
        return response

    @routes.post("/{language}/account/end-session")
    async def end_session(request: Request, language: Language) -> Response:
        session, _, _ = await run_in_threadpool(who, request)
        shown = (await form_of(request)).get("session", "")
        await run_in_threadpool(accounts.people.end_session_of, session.user_id or 0, shown)
        return back(language, "ended")

    @routes.post("/{language}/account/sign-out-everywhere")
    async def sign_out_everywhere(request: Request, language: Language) -> Response:
        _, user, _ = await run_in_threadpool(who, request)
        await form_of(request)
        await run_in_threadpool(accounts.people.sign_out_everywhere, user.id, user.id)
        response = RedirectResponse(f"/{language}/", 303)
        response.headers.append("set-cookie", set_cookie(accounts, "", 0))
        return response

    @routes.post("/{language}/account/unlink")
    async def unlink(request: Request, language: Language) -> Response:
        session, user, _ = await run_in_threadpool(who, request)
        password = (await form_of(request)).get("old", "")
        remote = remote_of(request.scope)
        try:
            await run_in_threadpool(accounts.confirm, session, password, remote)
        except AccessError as error:
            return await run_in_threadpool(refused, request, language, error)
        await run_in_threadpool(accounts.people.link_identity, user.id, None, user.id)
        return back(language, "unlinked")

    return routes
