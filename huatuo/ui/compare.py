"""the compare page: one message to two anonymous assistants, then a vote on the whole conversation."""

import asyncio
import html as escape
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import gradio as gr

from huatuo import render
from huatuo.accounts import Accounts, Role, Session
from huatuo.arena import Arena, Card, Duel, rater_of
from huatuo.engines.pool import Pool
from huatuo.patient import read_card
from huatuo.ui import conversation, drafts, duel, frame, rating, spans
from huatuo.ui.drafts import Work
from huatuo.ui.text import Language, say
from reviews.records import Span
from reviews.store import Store

ROLE: Role = "physician"


def build(
    arena: Arena, store: Store, pool: Pool, accounts: Accounts, language: Language
) -> gr.Blocks:
    """The page in one language. What the browser sends is an assignment id, never a name or a text."""

    def asked(seen: Duel) -> rating.Asked:
        return rating.asked(store, seen.case.study)

    def unsent(session: Session, seen: Duel | None) -> Work:
        """What the rater has added to this comparison: of the vote, else of the draft."""
        if seen is None or seen.state not in ("votable", "voted"):
            return Work()
        vote = store.view(seen.assignment_id, rater_of(session))[0].vote
        if vote is not None:
            return drafts.of_vote(vote)
        return drafts.stored(store, seen.assignment_id, rater_of(session))

    def view_of(seen: Duel, marks: tuple[Span, ...] = (), rater: int | None = None) -> str:
        if seen.names is not None:
            seen = _named(seen, duel.model_titles(pool, language))
        shown = None
        if rater is not None and asked(seen).flags and seen.state in ("votable", "voted"):
            stored = spans.stored_texts(*store.view(seen.assignment_id, rater))
            shown = spans.Shown(marks, stored, removable=seen.state == "votable")
        return duel.draw(seen, language, marks=shown)

    with frame.blocks("compare", language) as demo:
        frame.with_header(demo, accounts, "compare", language, ROLE)
        with gr.Column(elem_id="main", elem_classes=["wide"]):
            card = frame.html(elem_id="card")
            with_card = gr.Checkbox(
                value=True,
                label=say("card.use", language),
                visible=False,
                interactive=True,
                elem_id="with-card",
            )
            pair = frame.html(elem_id="duel")
            better_box, own = rating.own_answer(language)
            bar = duel.vote_bar(language, "duel.submit", with_undo=False)
            with gr.Row(elem_id="composer"):
                box = gr.Textbox(
                    label=say("chat.input", language),
                    show_label=False,
                    placeholder=say("compare.placeholder", language),
                    lines=1,
                    max_lines=8,
                    elem_id="question",
                    scale=5,
                )
                send = gr.Button(say("chat.send", language), variant="primary", elem_id="send")
                retry = gr.Button(
                    say("compare.retry", language),
                    visible=False,
                    elem_id="retry",
                    variant="primary",
                )
                following = gr.Button(
                    say("duel.next", language), visible=False, elem_id="next", variant="primary"
                )
            ticket = gr.Textbox(visible="hidden", elem_id="ticket", label="ticket")
            form = rating.Form(bar.ratings, bar.keys, better_box, **own, **rating.hidden_boxes())
            frame.html(rating.aids(language), elem_id="aids")

        shown = [pair, bar.box, bar.choice, bar.reason, box, send, retry, following, ticket]
        shown += [card, with_card, *form.shown]

        def page(
            session: Session, seen: Duel | None, *, clear: bool = False, again: bool = False
        ) -> list[Any]:
            """Every output. again: the page was opened anew, so an unsent choice comes back too."""
            state = seen.state if seen else "empty"
            open_to_text = state in ("empty", "votable")
            found = arena.card(session, seen.assignment_id if seen else None)
            work = unsent(session, seen)
            back = again and state == "votable"
            if back and not work.is_empty:
                frame.tell(say("draft.restored", language), language)
            return [
                view_of(seen, work.spans, rater_of(session)) if seen else _welcome(language),
                gr.update(visible=state in ("votable", "broken")),
                gr.update(
                    value=work.choice if back else None,  # after another turn never an old choice
                    interactive=state == "votable",
                ),
                gr.update(value=work.reason if back else "") if clear or back else gr.skip(),
                gr.update(
                    visible=open_to_text or state == "writing", **({"value": ""} if clear else {})
                ),
                gr.update(
                    visible=open_to_text or state == "writing",
                    interactive=state != "writing",
                    variant="primary" if state == "empty" else "secondary",
                ),
                gr.update(visible=state == "broken"),
                gr.update(visible=state == "voted"),
                seen.assignment_id if seen else "",
                card_panel(found, language),
                gr.update(visible=found is not None and state == "empty"),
                *(
                    rating.fill(seen.assignment_id, work, asked(seen), language, undo=False)
                    if seen and state == "votable"
                    else rating.nothing()
                ),
            ]

        async def follow(
            session: Session, ticket_id: str, *, again: bool = False
        ) -> AsyncIterator[list[Any]]:
            first = True
            async for seen in arena.watch(session, ticket_id):
                if first or seen.state != "writing":
                    yield page(session, seen, clear=first, again=again)
                else:
                    yield [view_of(seen), *[gr.skip()] * (len(shown) - 1)]
                first = False

        async def opened(request: gr.Request) -> AsyncIterator[list[Any]]:
            session = accounts.require(request, ROLE)
            ticket_id = await asyncio.to_thread(arena.current, session)
            if ticket_id is None or not arena.view(session, ticket_id).turns:
                yield page(session, None, clear=True)
                return
            async for values in follow(session, ticket_id, again=True):
                yield values

        async def ask(
            text: str, ticket_id: str, carded: bool, request: gr.Request
        ) -> AsyncIterator[list[Any]]:
            session = accounts.require(request, ROLE)
            if not ticket_id and pool.awaits(2):
                frame.tell(say("chat.loading", language), language)
            ticket_id, found = await arena.ask(
                session, ticket_id or None, text, language, with_card=carded is True
            )
            if found:
                frame.tell(conversation.masked(found, language), language)
            async for values in follow(session, ticket_id):
                yield values

        async def again(ticket_id: str, request: gr.Request) -> AsyncIterator[list[Any]]:
            session = accounts.require(request, ROLE)
            await arena.retry(session, ticket_id)
            async for values in follow(session, ticket_id):
                yield values

        def vote(
            ticket_id: str,
            choice: str | None,
            reason: str,
            extra: str,
            marks: str,
            better: str,
            side: str,
            consent: bool,
            request: gr.Request,
        ) -> list[Any]:
            session = accounts.require(request, ROLE)
            work = rating.read(ticket_id, choice, reason, extra, marks, better, side, consent)
            seen = arena.view(session, ticket_id)  # refuses what is not this page's own
            missing = rating.lacking(work, asked(seen), language)
            if work.choice is None or missing:
                missing = missing if work.choice else say("duel.choose_first", language)
                frame.ask_first(missing or "", language)
                return [gr.skip()] * len(shown)
            duel.cast(store, accounts, session, ticket_id, work.choice, reason, language, work=work)
            return page(session, arena.view(session, ticket_id))

        def flag(ticket_id: str, asking: str, marks: str, request: gr.Request) -> list[Any]:
            session = accounts.require(request, ROLE)
            seen = arena.view(session, ticket_id)
            stored = spans.stored_texts(*store.view(ticket_id, rater_of(session)))
            found = spans.changed(asking, marks, stored, seen)
            if found is None or seen.state != "votable":
                frame.ask_first(say("flag.select_again", language), language)
                return [gr.skip(), gr.skip()]
            return [view_of(seen, found, rater_of(session)), Work(spans=found).spans_text()]

        def start(name: str) -> Any:
            def handler(ticket_id: str, request: gr.Request) -> list[Any]:
                session = accounts.require(request, ROLE)
                return list(rating.beginning(arena.view(session, ticket_id), name))

            return handler

        def leave(how: str) -> Any:
            def handler(ticket_id: str, reason: str, request: gr.Request) -> list[Any]:
                session = accounts.require(request, ROLE)
                if how == "skip":
                    store.skip(ticket_id, rater_of(session))
                    frame.tell(say("duel.skipped", language), language)
                else:
                    store.report(ticket_id, rater_of(session), duel.masked(reason))
                    frame.tell(say("duel.reported", language), language)
                return page(session, None, clear=True)

            return handler

        def next_pair(request: gr.Request) -> list[Any]:
            return page(accounts.require(request, ROLE), None, clear=True)

        gr.on(
            [send.click, box.submit],
            frame.guarded(ask, language),
            [box, ticket, with_card],
            shown,
            **frame.QUIETLY,
        )
        sent = [ticket, bar.choice, bar.reason, *form.sent]
        bar.submit.click(frame.guarded(vote, language), sent, shown, **frame.QUIETLY)
        marking = ([ticket, form.asking, form.spans], [pair, form.spans])
        form.ask.click(frame.guarded(flag, language), *marking, **frame.QUIETLY)
        for name, button in form.starts.items():
            begun = [form.better, form.side]
            button.click(frame.guarded(start(name), language), ticket, begun, **frame.QUIETLY)
        bar.skip.click(
            frame.guarded(leave("skip"), language), [ticket, bar.reason], shown, **frame.QUIETLY
        )
        bar.report.click(
            frame.guarded(leave("report"), language), [ticket, bar.reason], shown, **frame.QUIETLY
        )
        retry.click(frame.guarded(again, language), ticket, shown, **frame.QUIETLY)
        following.click(frame.guarded(next_pair, language), None, shown, **frame.QUIETLY)
        demo.load(frame.guarded(opened, language), None, shown, **frame.QUIETLY)
    return demo


def card_panel(card: Card | None, language: Language) -> str:
    """The case that the physician plays, folded in two: what may be said, and what its doctor found."""
    if card is None:
        return conversation.block("", "card")
    facts, truth = read_card(card.case.card)
    title = " · ".join(
        filter(None, (say("card.title", language), card.study, card.case.department))
    )
    return conversation.block(
        f'<details class="case" open><summary>{escape.escape(title)}</summary>'
        f"<p>{say('card.how', language)}</p>"
        f'<div class="said">{render.plain(facts)}</div></details>'
        f'<details class="case"><summary>{say("card.truth", language)}</summary>'
        f'<div class="said">{render.plain(truth)}</div></details>',
        "card",
    )


def _named(seen: Duel, titles: dict[str, str]) -> Duel:
    names = seen.names or ("", "")
    return replace(seen, names=(titles.get(names[0], names[0]), titles.get(names[1], names[1])))


def _welcome(language: Language) -> str:
    return conversation.block(
        f"<h1>{say('compare.welcome', language)}</h1><p>{say('compare.welcome_more', language)}</p>",
        "welcome",
    )
