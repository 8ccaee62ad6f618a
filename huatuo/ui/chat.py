"""the chat page: a visitor talks with one assistant; the conversation survives a reload."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import gradio as gr

from huatuo.accounts import Accounts, Role
from huatuo.arena import FRAME_S
from huatuo.chat import ChatDesk, ChatView
from huatuo.config import ModelConfig
from huatuo.engines.pool import Pool
from huatuo.ui import conversation, frame
from huatuo.ui.text import EXAMPLES, Language, say

ROLE: Role = "visitor"


def build(desk: ChatDesk, pool: Pool, accounts: Accounts, language: Language) -> gr.Blocks:
    """The page in one language. Every handler takes the visitor from the server's session."""
    with frame.blocks("chat", language) as demo:
        frame.with_header(demo, accounts, "chat", language, ROLE)
        with gr.Column(elem_id="main", elem_classes=["narrow"]):
            badge = frame.html(elem_id="badge")
            talk = frame.html(elem_id="talk")
            with gr.Column(elem_id="examples", visible=False) as examples:
                frame.html(f'<p class="quiet">{say("chat.examples", language)}</p>')
                starters = [
                    gr.Button(text, elem_classes=["starter"]) for text in EXAMPLES[language]
                ]
            with gr.Row(elem_id="actions", visible=False) as actions:
                again = gr.Button(say("chat.regenerate", language), elem_id="regenerate", size="sm")
                stop = gr.Button(say("chat.stop", language), elem_id="stop", size="sm")
                up = gr.Button(say("chat.helpful", language), elem_id="thumb-up", size="sm")
                down = gr.Button(say("chat.unhelpful", language), elem_id="thumb-down", size="sm")
                new = gr.Button(say("chat.new", language), elem_id="new-chat", size="sm")
            with gr.Row(elem_id="composer"):
                box = gr.Textbox(
                    label=say("chat.input", language),
                    show_label=False,
                    placeholder=say("chat.placeholder", language),
                    lines=1,
                    max_lines=8,
                    elem_id="question",
                    scale=5,
                )
                send = gr.Button(say("chat.send", language), variant="primary", elem_id="send")

        shown = [talk, examples, actions, again, stop, up, down]

        def named() -> str:  # what the model's file says may change while the app runs
            return _badge(pool.configs.get(desk.model), language)

        async def watch(request: gr.Request) -> AsyncIterator[list[Any]]:
            session = accounts.require(request, ROLE)
            view = await asyncio.to_thread(desk.view, session)
            while view.writing is not None and not view.writing.recorded:
                yield _page(view, language, pool.state(desk.model))
                await asyncio.sleep(FRAME_S)
            if view.writing is not None:
                if dropped := view.writing.dropped_turns:
                    frame.tell(say("chat.dropped", language, turns=dropped), language)
                view = await asyncio.to_thread(desk.view, session)
            yield _page(view, language, pool.state(desk.model))

        async def ask(text: str, request: gr.Request) -> AsyncIterator[list[Any]]:
            session = accounts.require(request, ROLE)
            found = await desk.ask(session, text, language)
            if found:
                frame.tell(conversation.masked(found, language), language)
            first = True
            async for page in watch(request):
                yield [*page, "" if first else gr.skip()]
                first = False

        async def regenerate(request: gr.Request) -> AsyncIterator[list[Any]]:
            await desk.regenerate(accounts.require(request, ROLE))
            async for page in watch(request):
                yield page

        def halt(request: gr.Request) -> None:
            desk.stop(accounts.require(request, ROLE))

        async def restart(request: gr.Request) -> AsyncIterator[list[Any]]:
            desk.new(accounts.require(request, ROLE), language)
            async for page in watch(request):
                yield page

        def rate(thumb: int) -> Any:
            def handler(request: gr.Request) -> list[Any]:
                now = desk.rate(accounts.require(request, ROLE), thumb)
                if now:
                    frame.tell(say("chat.thanks", language), language)
                return _thumbs(now)

            return handler

        gr.on(
            [send.click, box.submit],
            frame.guarded(ask, language),
            box,
            [*shown, box],
            **frame.QUIETLY,
        )
        for starter in starters:
            starter.click(frame.guarded(ask, language), starter, [*shown, box], **frame.QUIETLY)
        again.click(frame.guarded(regenerate, language), None, shown, **frame.QUIETLY)
        stop.click(frame.guarded(halt, language), None, None, **frame.QUIETLY)
        new.click(frame.guarded(restart, language), None, shown, **frame.QUIETLY)
        up.click(frame.guarded(rate(1), language), None, [up, down], **frame.QUIETLY)
        down.click(frame.guarded(rate(-1), language), None, [up, down], **frame.QUIETLY)
        demo.load(frame.guarded(named, language), None, badge, queue=False, show_progress="hidden")
        demo.load(frame.guarded(watch, language), None, shown, **frame.QUIETLY)
    return demo


def _page(view: ChatView, language: Language, state: str) -> list[Any]:
    """Values for talk, examples, actions, regenerate, stop and the two thumbs."""
    writing = view.writing is not None and not view.writing.recorded
    last = view.turns[-1] if view.turns else None
    rated = bool(last and last.role == "assistant" and last.finish == "stop" and not writing)
    return [
        _talk(view, language, state),
        gr.update(visible=not view.turns),
        gr.update(visible=bool(view.turns)),
        gr.update(interactive=bool(view.turns) and not writing),
        gr.update(interactive=writing),
        *_thumbs(last.thumb if rated and last else 0, interactive=rated),
    ]


def _thumbs(thumb: int, interactive: bool = True) -> list[Any]:
    return [
        gr.update(variant="primary" if thumb == 1 else "secondary", interactive=interactive),
        gr.update(variant="primary" if thumb == -1 else "secondary", interactive=interactive),
    ]


def _talk(view: ChatView, language: Language, state: str) -> str:
    you, doctor = say("chat.you", language), say("chat.assistant", language)
    if not view.turns:
        return conversation.block(
            f"<h1>{say('chat.welcome', language)}</h1><p>{say('chat.welcome_more', language)}</p>",
            "welcome",
        )
    parts: list[str] = []
    for turn in view.turns:
        if turn.role == "user":
            parts.append(conversation.question(turn.text, you))
            parts.append(conversation.notices(turn.notices, language))
        else:
            why = "Truncated" if turn.text else "Refused"  # what the reader sees of the fault
            body = conversation.answer(turn.text, turn.finish, why, language)
            parts.append(_doctor(body, doctor))
    if view.writing is not None and not view.writing.recorded:
        waiting = state == "loading" and not view.writing.text
        body = f'<p class="quiet">{say("chat.loading", language)}</p>' if waiting else ""
        body += conversation.answer(view.writing.text, None, "", language)
        parts.append(_doctor(body, doctor))
    elif view.turns[-1].role == "user":
        parts.append(_doctor(conversation.answer("", "error", "Truncated", language), doctor))
    return conversation.block("".join(parts), "talk")


def _doctor(body: str, who: str) -> str:
    return f'<div class="turn doctor"><span class="who">{who}</span><div class="said">{body}</div></div>'


def _badge(model: ModelConfig | None, language: Language) -> str:
    if model is None:
        return ""
    title = model.title_zh if language == "zh" else model.title_en
    if not model.demonstration:
        return f'<p class="badge">{say("notice.model", language, title=title)}</p>'
    note = model.note_zh if language == "zh" else model.note_en
    return f'<p class="badge demonstration">{note or title}</p>'
