"""a page without script: its frame, the fields of a form, errors, and reading what a form sends."""

import html as escape
from urllib.parse import parse_qsl

from starlette.requests import Request

from huatuo.errors import InputError
from huatuo.passwords import PASSWORD_LIMIT
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
<link rel="stylesheet" href="{static_url("people.css")}">
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


def field(name: str, kind: str, language: Language, hint: str, value: str = "") -> str:
    """A labelled box of a form; hint: what the browser's password manager may fill in."""
    return (
        f'<label>{say(f"signin.{name}", language)}<input name="{name}" type="{kind}" required '
        f'maxlength="{PASSWORD_LIMIT}" autocomplete="{hint}" value="{escape.escape(value)}"></label>'
    )


def username(name: str) -> str:
    """For the browser's password manager; not shown and not read by us."""
    value = escape.escape(name)
    return f'<input type="text" name="name" value="{value}" autocomplete="username" hidden>'


def problem_box(words: str) -> str:
    """Why something was not done, or nothing."""
    return f'<p class="problem" role="alert">{escape.escape(words)}</p>' if words else ""


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
