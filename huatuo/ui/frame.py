"""what every page has: header, limits, language and theme, and one place where errors become words."""

import functools
import html as escape
import inspect
import logging
import re
import secrets
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from typing import Any

import gradio as gr

from huatuo.accounts import ROLES, Accounts, Session
from huatuo.messages import MESSAGE_LIMIT
from huatuo.ui.text import TEXT, Language, say

log = logging.getLogger(__name__)

# The pages in the order of the header, and the least role that sees each.
PAGES: tuple[tuple[str, str], ...] = (
    ("chat", "visitor"),
    ("compare", "physician"),
    ("review", "physician"),
    ("mine", "physician"),
    ("adjudicate", "adjudicator"),
    ("results", "researcher"),
    ("studies", "researcher"),
    ("models", "researcher"),
    ("admin", "admin"),
)
# Every event: no spinner over the text, and nobody waits for another reader's stream.
QUIETLY: dict[str, Any] = {"show_progress": "hidden", "concurrency_limit": None}
FONTS = (
    "PingFang SC",
    "Hiragino Sans GB",
    "Microsoft YaHei",
    "Noto Sans CJK SC",
    "system-ui",
    "sans-serif",
)


def theme() -> gr.themes.Base:
    """Gradio's plainest theme with system fonts; colours and spacing are in static/style.css."""
    return gr.themes.Base(
        font=list(FONTS), font_mono=["ui-monospace", "monospace"], radius_size="md"
    )


def html(
    value: str = "",
    *,
    elem_id: str | None = None,
    elem_classes: list[str] | None = None,
    visible: bool = True,
) -> gr.Markdown:
    """A block of our own HTML. It must begin with a block tag and hold no blank line.

    gr.HTML evaluates its template as script, which the content policy forbids; gr.Markdown passes a
    block of HTML through untouched. Everything in it is escaped on the server (huatuo.render).
    """
    return gr.Markdown(
        value,
        elem_id=elem_id,
        elem_classes=elem_classes,
        visible=visible,
        sanitize_html=False,
        latex_delimiters=[],
        container=False,
    )


def header(session: Session, page: str, language: Language) -> str:
    """The header as HTML: name, pages this role may see, language, theme, account; then the limits."""
    level = ROLES.index(session.role)
    links = "".join(
        f'<a href="/{language}/{name}/"{" aria-current=page" if name == page else ""}>'
        f"{say('page.' + name, language)}</a>"
        for name, role in PAGES
        if ROLES.index(role) <= level
    )
    other = "en" if language == "zh" else "zh"
    if session.user_id is None:
        account = f'<a class="account" href="/{language}/sign-in?next=/{language}/{page}/">{say("frame.sign_in", language)}</a>'
    else:
        account = (
            f'<a class="account" href="/{language}/account">{escape.escape(session.name)}</a>'
            f'<form method="post" action="/{language}/sign-out"><button>{say("frame.sign_out", language)}</button></form>'
        )
    return (
        f'<div class="frame"><a class="skip-link" href="#main">{say("frame.skip", language)}</a>'
        f'<div class="bar"><strong class="brand">{say("app.name", language)}</strong>'
        f'<button type="button" class="menu" data-menu aria-label="{say("frame.menu", language)}" aria-expanded="false">☰</button>'
        f'<nav aria-label="{say("frame.pages", language)}">{links}</nav><span class="tools">'
        f'<a href="/{other}/{page}/" hreflang="{other}" lang="{other}" aria-label="{say("frame.language_label", language)}">{say("frame.language", language)}</a>'
        f'<button type="button" data-theme aria-label="{say("frame.theme", language)}" title="{say("frame.theme", language)}">◐</button>'
        f"{account}</span></div>"
        f'<p class="limits">{say("notice.limits", language)}</p></div>'
    )


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A plain table as HTML; every cell is text."""
    head = "".join(f'<th scope="col">{escape.escape(column)}</th>' for column in columns)
    body = "".join(
        "<tr>" + "".join(f"<td>{escape.escape(str(cell))}</td>" for cell in row) + "</tr>"
        for row in rows
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def blocks(page: str, language: Language) -> gr.Blocks:
    """An empty page with its title."""
    title = f"{say('page.' + page, language)} · {say('app.name', language)}"
    return gr.Blocks(title=title, analytics_enabled=False, fill_width=True)


def with_header(
    demo: gr.Blocks, accounts: Accounts, page: str, language: Language, role: str
) -> None:
    """Puts the header on the page; it is drawn for each reader when the page opens."""
    bar = html(elem_id="frame")

    def draw(request: gr.Request) -> str:
        return header(accounts.require(request, role), page, language)

    demo.load(guarded(draw, language), outputs=bar, show_progress="hidden", queue=False)


def explain(error: Exception, language: Language, **values: object) -> str:
    """What a person is told of an error: what happened, what is safe, what to do."""
    for kind in type(error).__mro__:
        key = f"error.{kind.__name__}"
        if key in TEXT:
            words = TEXT[key][language]
            if "{why}" in words:
                if not is_told(error):  # written for the command line: it may name a path
                    break
                values = {**values, "why": reason(error, language)}
            return words.format(**values) if values else words
    code = secrets.token_hex(3)
    log.error("unexpected error %s", code, exc_info=error)
    return say("error.unexpected", language, code=code)


def reason(error: Exception, language: Language) -> str:
    """What exactly is wrong, as the raised sentence says it, in the page's language.

    text/errors.py holds the sentences; one that it lacks stays in English.
    """
    if not is_told(error):
        return str(error)
    words = TEXT[f"why.{getattr(error, 'why', error)}"]
    return words[language].format(**getattr(error, "values", {}))


def is_told(error: Exception) -> bool:
    """Whether text/errors.py has the raised sentence."""
    return f"why.{getattr(error, 'why', error)}" in TEXT


def place(where: str, language: Language) -> str:
    """Where in a file something is wrong, such as `a.jsonl: line 3, turn 2`, in the page's language."""
    for named in re.finditer(r"\b(line|item|turn|study|pair|case) (\d+|'.*?')", where):
        words = say(f"place.{named[1]}", language, n=named[2].strip("'"))
        where = where.replace(named[0], words, 1)
    return where.replace(": ", "：").replace(", ", "，") if language == "zh" else where


def warn(error: Exception, language: Language, **values: object) -> None:
    """Shows the error as a short message on the page."""
    gr.Warning(
        explain(error, language, limit=MESSAGE_LIMIT, **values),
        title=say("frame.attention", language),
        duration=8,
    )


def ask_first(message: str, language: Language) -> None:
    """Shows that something has to be done first."""
    gr.Warning(message, title=say("frame.attention", language), duration=5)


def tell(message: str, language: Language) -> None:
    """Shows a short message on the page."""
    gr.Info(message, title=say("frame.note", language), duration=5)


def guarded(function: Callable[..., Any], language: Language) -> Callable[..., Any]:
    """The handler, with its errors told in words and nothing on the page changed by them.

    This is the page's outer border: the one broad `except` of the pages stands here.
    """
    if inspect.isasyncgenfunction(function):

        @functools.wraps(function)
        async def stream(*args: Any, **kwargs: Any) -> AsyncIterator[Any]:
            try:
                async for item in function(*args, **kwargs):
                    yield item
            except Exception as error:
                warn(error, language)
                yield gr.skip()

        return stream
    if inspect.iscoroutinefunction(function):

        @functools.wraps(function)
        async def wait(*args: Any, **kwargs: Any) -> Any:
            try:
                return await function(*args, **kwargs)
            except Exception as error:
                warn(error, language)
                return gr.skip()

        return wait

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except Exception as error:
            warn(error, language)
            return gr.skip()

    return call
