"""the compare page: one message to two anonymous assistants, then a vote on the whole conversation."""

import asyncio
import html as escape
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

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
            composer = _composer(language)
            ticket = gr.Textbox(visible="hidden", elem_id="ticket", label="ticket")
            form = rating.Form(bar.ratings, bar.keys, better_box, **own, **rating.hidden_boxes())
            frame.html(rating.aids(language), elem_id="aids")

        shown = [pair, bar.box, bar.choice, bar.reason, *composer, ticket]
        shown += [card, with_card, *form.shown]
        desk = _Desk(arena, store, pool, accounts, language, len(shown))

        def wire(event: Any, handler: Callable[..., Any], inputs: Any, outputs: Any) -> None:
            event(frame.guarded(handler, language), inputs, outputs, **frame.QUIETLY)

        asking = [composer.box, ticket, with_card]
        wire(partial(gr.on, [composer.send.click, composer.box.submit]), desk.ask, asking, shown)
        sent = [ticket, bar.choice, bar.reason, *form.sent]
        wire(bar.submit.click, desk.vote, sent, shown)
        wire(form.ask.click, desk.flag, [ticket, form.asking, form.spans], [pair, form.spans])
        for name, button in form.starts.items():
            wire(button.click, desk.start(name), ticket, [form.better, form.side])
        wire(bar.skip.click, desk.skip, [ticket, bar.reason], shown)
        wire(bar.report.click, desk.report, [ticket, bar.reason], shown)
        wire(composer.retry.click, desk.retry, ticket, shown)
        wire(composer.following.click, desk.next_pair, None, shown)
        wire(demo.load, desk.enter, None, shown)
    return demo


class _Composer(NamedTuple):
    """What is below the answers: the next message, or what to do instead of writing one."""

    box: gr.Textbox
    send: gr.Button
    retry: gr.Button
    following: gr.Button


def _composer(language: Language) -> _Composer:
    def button(key: str, name: str, *, visible: bool = True) -> gr.Button:
        return gr.Button(say(key, language), variant="primary", elem_id=name, visible=visible)

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
        return _Composer(
            box,
            button("chat.send", "send"),
            button("compare.retry", "retry", visible=False),
            button("duel.next", "next", visible=False),
        )


class _Desk:
    """The page's handlers. What is on the page is told by the arena and the record, never by the browser."""

    def __init__(
        self,
        arena: Arena,
        store: Store,
        pool: Pool,
        accounts: Accounts,
        language: Language,
        width: int,
    ) -> None:
        self.arena, self.store, self.pool = arena, store, pool
        self.accounts, self.language, self.width = accounts, language, width

    async def enter(self, request: gr.Request) -> AsyncIterator[list[Any]]:
        """The comparison that the rater is in the middle of, or the invitation to begin one."""
        session = self._session(request)
        ticket_id = await asyncio.to_thread(self.arena.current, session)
        if ticket_id is None or not self.arena.view(session, ticket_id).turns:
            yield self._page(session, None, clear=True)
            return
        async for values in self._follow(session, ticket_id, again=True):
            yield values

    async def ask(
        self, text: str, ticket_id: str, carded: bool, request: gr.Request
    ) -> AsyncIterator[list[Any]]:
        """Sends a message to both assistants and shows their answers while they are written."""
        session = self._session(request)
        if not ticket_id and self.pool.awaits(2):
            frame.tell(say("chat.loading", self.language), self.language)
        ticket_id, found = await self.arena.ask(
            session, ticket_id or None, text, self.language, with_card=carded is True
        )
        if found:
            frame.tell(conversation.masked(found, self.language), self.language)
        async for values in self._follow(session, ticket_id):
            yield values

    async def retry(self, ticket_id: str, request: gr.Request) -> AsyncIterator[list[Any]]:
        """Asks again for the answers that broke off."""
        session = self._session(request)
        await self.arena.retry(session, ticket_id)
        async for values in self._follow(session, ticket_id):
            yield values

    def vote(
        self,
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
        """Records the vote and shows the names, or says what is missing."""
        session, language = self._session(request), self.language
        work = rating.read(ticket_id, choice, reason, extra, marks, better, side, consent)
        seen = self.arena.view(session, ticket_id)  # refuses what is not this page's own
        missing = rating.lacking(work, self._asked(seen), language)
        if work.choice is None or missing:
            missing = missing if work.choice else say("duel.choose_first", language)
            frame.ask_first(missing or "", language)
            return [gr.skip()] * self.width
        duel.cast(
            self.store, self.accounts, session, ticket_id, work.choice, reason, language, work=work
        )
        return self._page(session, self.arena.view(session, ticket_id))

    def flag(self, ticket_id: str, asking: str, marks: str, request: gr.Request) -> list[Any]:
        """The pair with one mark more or less."""
        session = self._session(request)
        seen = self.arena.view(session, ticket_id)
        stored = spans.stored_texts(*self.store.view(ticket_id, rater_of(session)))
        found = spans.changed(asking, marks, stored, seen)
        if found is None or seen.state != "votable":
            frame.ask_first(say("flag.select_again", self.language), self.language)
            return [gr.skip(), gr.skip()]
        return [self._drawn(seen, found, rater_of(session)), Work(spans=found).spans_text()]

    def start(self, name: str) -> Callable[..., list[Any]]:
        """The handler that begins the own answer: empty, or from one side's last answer."""

        def handler(ticket_id: str, request: gr.Request) -> list[Any]:
            seen = self.arena.view(self._session(request), ticket_id)
            return list(rating.beginning(seen, name))

        return handler

    def skip(self, ticket_id: str, reason: str, request: gr.Request) -> list[Any]:
        """Lays the comparison aside and begins anew."""
        session = self._session(request)
        self.store.skip(ticket_id, rater_of(session))
        frame.tell(say("duel.skipped", self.language), self.language)
        return self._page(session, None, clear=True)

    def report(self, ticket_id: str, reason: str, request: gr.Request) -> list[Any]:
        """Reports the comparison and begins anew."""
        session = self._session(request)
        self.store.report(ticket_id, rater_of(session), duel.masked(reason))
        frame.tell(say("duel.reported", self.language), self.language)
        return self._page(session, None, clear=True)

    def next_pair(self, request: gr.Request) -> list[Any]:
        """An empty page for the next comparison."""
        return self._page(self._session(request), None, clear=True)

    def _session(self, request: gr.Request) -> Session:
        return self.accounts.require(request, ROLE)

    def _asked(self, seen: Duel) -> rating.Asked:
        return rating.asked(self.store, seen.case.study)

    def _unsent(self, session: Session, seen: Duel | None) -> Work:
        """What the rater has added to this comparison: of the vote, else of the draft."""
        if seen is None or seen.state not in ("votable", "voted"):
            return Work()
        vote = self.store.view(seen.assignment_id, rater_of(session))[0].vote
        if vote is not None:
            return drafts.of_vote(vote)
        return drafts.stored(self.store, seen.assignment_id, rater_of(session))

    async def _follow(
        self, session: Session, ticket_id: str, *, again: bool = False
    ) -> AsyncIterator[list[Any]]:
        """The whole page first and when the state changes; only the pair while answers are written."""
        first = True
        async for seen in self.arena.watch(session, ticket_id):
            if first or seen.state != "writing":
                yield self._page(session, seen, clear=first, again=again)
            else:
                yield [self._drawn(seen), *[gr.skip()] * (self.width - 1)]
            first = False

    def _drawn(self, seen: Duel, marks: tuple[Span, ...] = (), rater: int | None = None) -> str:
        """The pair; with a rater, the passages that may be marked."""
        if seen.names is not None:
            seen = _named(seen, duel.model_titles(self.pool, self.language))
        shown = None
        if rater is not None and self._asked(seen).flags and seen.state in ("votable", "voted"):
            stored = spans.stored_texts(*self.store.view(seen.assignment_id, rater))
            shown = spans.Shown(marks, stored, removable=seen.state == "votable")
        return duel.draw(seen, self.language, marks=shown)

    def _page(
        self, session: Session, seen: Duel | None, *, clear: bool = False, again: bool = False
    ) -> list[Any]:
        """Every output. again: the page was opened anew, so an unsent choice comes back too."""
        language = self.language
        state = seen.state if seen else "empty"
        writable = state in ("empty", "votable", "writing")
        found = self.arena.card(session, seen.assignment_id if seen else None)
        work = self._unsent(session, seen)
        back = again and state == "votable"
        if back and not work.is_empty:
            frame.tell(say("draft.restored", language), language)
        reason = gr.update(value=work.reason if back else "") if clear or back else gr.skip()
        return [
            self._drawn(seen, work.spans, rater_of(session)) if seen else _welcome(language),
            gr.update(visible=state in ("votable", "broken")),
            gr.update(
                value=work.choice if back else None,  # after another turn never an old choice
                interactive=state == "votable",
            ),
            reason,
            gr.update(visible=writable, **({"value": ""} if clear else {})),
            gr.update(
                visible=writable,
                interactive=state != "writing",
                variant="primary" if state == "empty" else "secondary",
            ),
            gr.update(visible=state == "broken"),
            gr.update(visible=state == "voted"),
            seen.assignment_id if seen else "",
            card_panel(found, language),
            gr.update(visible=found is not None and state == "empty"),
            *(
                rating.fill(seen.assignment_id, work, self._asked(seen), language, undo=False)
                if seen and state == "votable"
                else rating.nothing()
            ),
        ]


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
