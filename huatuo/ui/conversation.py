"""turns, notices and answers as inert HTML, the same on every page."""

import html as escape
from collections.abc import Iterable

from huatuo import privacy, render, safety
from huatuo.ui.text import Language, say


def notices(keys: Iterable[str], language: Language) -> str:
    """The red-flag notices for these keys, each in a box of its own, most urgent first as given."""
    boxes = "".join(
        f"<li>{escape.escape(safety.notice(key, language))}</li>" for key in dict.fromkeys(keys)
    )
    if not boxes:
        return ""
    return (
        f'<aside class="red-flag" role="alert"><strong><span aria-hidden="true">▲</span> '
        f"{say('notice.red_flag', language)}</strong><ul>{boxes}</ul></aside>"
    )


def masked(found: dict[str, int], language: Language) -> str:
    """The sentence that tells which identifiers were removed, or nothing."""
    if not found:
        return ""
    kinds = ("、" if language == "zh" else ", ").join(
        privacy.kind_name(kind, language) for kind in found
    )
    return say("notice.masked", language, kinds=kinds)


def question(text: str, who: str) -> str:
    """One question of the patient."""
    return f'<div class="turn you"><span class="who">{who}</span><div class="said">{render.plain(text)}</div></div>'


def answer(text: str, finish: str | None, fault: str, language: Language) -> str:
    """The body of one answer: dots before the first word, the text, and why it is incomplete."""
    if finish is None and not text:
        return (
            f'<p class="dots" role="status" aria-label="{say("answer.thinking", language)}">'
            "<i></i><i></i><i></i></p>"
        )
    body = render.to_html(text)
    if finish in ("cancelled", "length"):
        body += f'<p class="unfinished">{say("answer." + finish, language)}</p>'
    elif finish == "error":
        why = say("fault." + (fault or "other"), language)
        body += f'<p class="unfinished">{say("answer.error", language, why=why)}</p>'
    return body


def block(inner: str, kind: str, **attributes: str) -> str:
    """`inner` as one block that Markdown passes through untouched (no blank line inside)."""
    extra = "".join(f' {name}="{escape.escape(value)}"' for name, value in attributes.items())
    lines = [line for line in inner.split("\n") if line.strip()]
    return f'<div class="{kind}"{extra}>' + "\n".join(lines) + "</div>"
