"""the models page: which systems are ready, what each may be used for, how to get it, and a test question."""

import html as escape
import secrets
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import gradio as gr

from huatuo.accounts import Accounts, Role
from huatuo.engines.base import Finish
from huatuo.engines.pool import Pool
from huatuo.messages import Message
from huatuo.models.inventory import Entry, inventory
from huatuo.ui import conversation, frame
from huatuo.ui.text import Language, say

ROLE: Role = "researcher"
GB = 10**9
FRAME_S = 0.1
"""Seconds between two looks at the running answer."""
_ORDER = ("ready", "loading", "broken", "down", "lacks_key", "off", "lacks_weights")
_CAUTION = ("research", "ask", "no")
"""Uses that a hospital has to think about before a study; the mark is in the colour of caution."""


def build(pool: Pool, accounts: Accounts, root: Path, language: Language) -> gr.Blocks:
    """The page in one language. root: where relative checkpoint paths start."""
    with frame.blocks("models", language) as demo:
        frame.with_header(demo, accounts, "models", language, ROLE)
        with gr.Column(elem_id="main", elem_classes=["wide", "admin"]):
            title, intro = say("models.title", language), say("models.intro", language)
            frame.html(f"<h1>{title}</h1><p class='quiet'>{intro}</p>")
            with gr.Row(elem_classes=["fields"]):
                which = gr.Dropdown(
                    [],
                    label=say("models.which", language),
                    elem_id="which",
                    interactive=True,
                )
                ask = gr.Button(say("models.ask", language), variant="primary", elem_id="try")
            answer = frame.html(elem_id="trial")
            systems = frame.html(elem_id="systems")

        def enter(request: gr.Request) -> list[Any]:
            accounts.require(request, ROLE)
            entries = sorted(
                (
                    (_state(pool, entry), entry)
                    for entry in inventory(pool.configs, pool.broken, root)
                ),
                key=lambda pair: _ORDER.index(pair[0]),
            )
            cards = "".join(_card(entry, state, pool, language) for state, entry in entries)
            choices = [
                (_title(entry, language), entry.name)
                for state, entry in entries
                if state == "ready"
            ]
            first = choices[0][1] if choices else None
            return [
                conversation.block(cards, "systems"),
                gr.update(choices=choices, value=first),
                gr.update(interactive=bool(choices)),
            ]

        async def attempt(name: str | None, request: gr.Request) -> AsyncIterator[Any]:
            session = accounts.require(request, ROLE)
            if name not in pool.ready():
                yield gr.skip()
                return
            accounts.allow(session, "ask")
            async for page in _attempt(pool, name, language):
                yield page

        ask.click(frame.guarded(attempt, language), which, answer, **frame.QUIETLY)
        demo.load(frame.guarded(enter, language), None, [systems, which, ask], **frame.QUIETLY)
    return demo


async def _attempt(pool: Pool, name: str, language: Language) -> AsyncIterator[str]:
    """The question and the answer as it comes, at the end with its pace; what fails is told by the page's border."""
    question = say("models.question", language)
    started = shown = time.monotonic()
    first: float | None = None
    text, finish = "", None
    yield _said(question, text, finish, "", language)
    async for item in pool.stream(name, (Message("user", question),), secrets.randbits(31)):
        if isinstance(item, Finish):
            finish = item.reason
            continue
        first = first or time.monotonic() - started
        text += "" if item.thinking else item.text
        if time.monotonic() - shown > FRAME_S:
            shown = time.monotonic()
            yield _said(question, text, finish, "", language)
    seconds = max(time.monotonic() - started, 1e-6)
    pace = say(
        "models.pace", language, first=f"{first or seconds:.1f}", pace=f"{len(text) / seconds:.0f}"
    )
    yield _said(question, text, finish, pace, language)


def _said(question: str, text: str, finish: str | None, pace: str, language: Language) -> str:
    body = conversation.answer(text, finish, "", language)
    body += f'<p class="quiet">{pace}</p>' if pace else ""
    asked = conversation.question(question, say("chat.you", language))
    doctor = f'<div class="turn doctor"><span class="who">{say("chat.assistant", language)}</span><div class="said">{body}</div></div>'
    return conversation.block(asked + doctor, "talk")


def _state(pool: Pool, entry: Entry) -> str:
    """What the files say, and for what they find ready what became of it in this app."""
    if entry.state != "ready":
        return entry.state
    return pool.state(entry.name)


def _title(entry: Entry, language: Language) -> str:
    return entry.title_zh if language == "zh" else entry.title_en


def _card(entry: Entry, state: str, pool: Pool, language: Language) -> str:
    """One system: its state and why, its use, its size, its source and the command to get it."""
    why = (
        pool.why(entry.name)
        if state == "down"
        else entry.why
        if state in ("broken", "lacks_key")
        else ""
    )
    if state == "off":
        why = say("admin.off_why", language)
    head = (
        f"<h3>{escape.escape(_title(entry, language))}</h3>"
        f'<p><span class="state {state}">{say(f"models.{state}", language)}</span>'
        f" <code>{escape.escape(entry.name)}</code></p>"
        + (f"<p>{escape.escape(why)}</p>" if why else "")
    )
    if not entry.engine:
        return f'<article class="system">{head}</article>'
    mark = "caution" if entry.study_use in _CAUTION else "plain"
    use = (
        f'<p><span class="use {mark}">{say(f"models.use_{entry.study_use}", language)}</span></p>'
        f"<p>{escape.escape(entry.licence or say('models.no_licence', language))}</p>"
    )
    facts = [
        (say("models.size", language), _gigabytes(entry.bytes)),
        (say("models.memory", language), _gigabytes(entry.need)),
        (say("models.source", language), escape.escape(entry.source)),
    ]
    rows = "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in facts if value)
    get = ""
    if entry.get:
        get = (
            f"<details><summary>{say('models.get', language)}</summary>"
            f"<pre><code>{_lines(entry.get)}</code></pre></details>"
        )
    return (
        f'<article class="system"><div>{head}</div><div>{use}</div>'
        f"<div><dl>{rows}</dl>{get}</div></article>"
    )


def _lines(command: str) -> str:
    """The command as HTML on one line of source: a blank line would end the block."""
    return "<br>".join(escape.escape(line) for line in command.splitlines() if line.strip())


def _gigabytes(count: int | None) -> str:
    if count is None:
        return ""
    return f"{count / GB:.1f} GB" if count >= GB else f"{count / 1e6:.0f} MB"
