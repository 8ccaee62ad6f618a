"""the review page: a queue of ready-made pairs, by mouse or by keyboard, with progress and undo."""

import html as escape
from collections.abc import Collection
from dataclasses import replace
from typing import Any

import gradio as gr

from huatuo.accounts import Accounts, Role, Session
from huatuo.arena import Duel, model_names, rater_of, show
from huatuo.engines.pool import Pool
from huatuo.ui import conversation, duel, frame
from huatuo.ui.text import Language, say
from reviews.records import Assignment, Comparison, Progress, utcnow
from reviews.store import Store

ROLE: Role = "physician"
MINUTES_A_PAIR = 0.75
"""Assumed before the rater's own pace is known."""
REVISING = "+"
"""Stands behind the ticket of a pair that Undo brought back."""


def build(store: Store, pool: Pool, accounts: Accounts, language: Language) -> gr.Blocks:
    """The page in one language. Names stay hidden, because the study's other pairs are still to come."""
    with frame.blocks("review", language) as demo:
        frame.with_header(demo, accounts, "review", language, ROLE)
        with gr.Column(elem_id="main", elem_classes=["wide"]):
            with gr.Row(elem_id="study-row"):
                study = gr.Dropdown(
                    [],
                    label=say("review.study", language),
                    show_label=False,
                    container=False,
                    interactive=True,
                    elem_id="study",
                    scale=1,
                    allow_custom_value=True,  # the record knows the studies, also after a restart
                )
                progress = frame.html(elem_id="progress")
            pair = frame.html(elem_id="duel")
            bar = duel.vote_bar(language, "duel.submit_next", with_undo=True)
            late_undo = gr.Button(
                say("duel.undo", language), visible=False, elem_id="undo-last", size="sm"
            )
            ticket = gr.Textbox(visible="hidden", elem_id="ticket", label="ticket")

        shown = [progress, pair, bar.box, bar.choice, bar.reason, late_undo, ticket]

        def page(session: Session, name: str | None, assignment: Assignment | None) -> list[Any]:
            done = store.progress(rater_of(session), name) if name else None
            if assignment is None:
                body = _nothing(done, language)
                again = gr.update(visible=bool(done and done.done + done.skipped))
                empty = [gr.update(visible=False), gr.update(value=None), "", again, ""]
                return [_progress(done, language), body, *empty]
            _, comparison = store.view(assignment.id, rater_of(session))
            seen = _blind(assignment, comparison, model_names(pool))
            vote = assignment.vote
            return [
                _progress(done, language),
                duel.draw(
                    seen,
                    language,
                    case=_summary(seen, language),
                )
                + (_revising(vote.choice, language) if vote else ""),
                gr.update(visible=True),
                gr.update(value=vote.choice if vote else None, interactive=True),
                vote.reason if vote else "",
                gr.update(visible=False),
                assignment.id + (REVISING if vote else ""),
            ]

        def following(session: Session, name: str | None) -> list[Any]:
            found = store.next_prepared(rater_of(session), name) if name else None
            return page(session, name, found)

        def enter(request: gr.Request) -> list[Any]:
            session = accounts.require(request, ROLE)
            names = [summary.name for summary in store.studies() if summary.pairs]
            first = next(
                (n for n in names if _left(store.progress(rater_of(session), n))), None
            ) or (names[0] if names else None)
            choices = gr.update(choices=names, value=first, visible=len(names) > 1)
            return [choices, *following(session, first)]

        def choose(name: str | None, request: gr.Request) -> list[Any]:
            return following(accounts.require(request, ROLE), name)

        def vote(
            name: str,
            ticket_id: str,
            choice: str | None,
            reason: str,
            request: gr.Request,
        ) -> list[Any]:
            session = accounts.require(request, ROLE)
            if choice is None:
                frame.ask_first(say("duel.choose_first", language), language)
                return [gr.skip()] * len(shown)
            ticket_id, revising = _ticket(ticket_id)
            assignment, _ = store.view(ticket_id, rater_of(session))
            seconds = None if assignment.vote else (utcnow() - assignment.issued_at).total_seconds()
            duel.cast(
                store,
                accounts,
                session,
                ticket_id,
                choice,
                reason,
                language,
                revise=revising,
                seconds=seconds,
            )
            return following(session, name)

        def leave(how: str) -> Any:
            def handler(name: str, ticket_id: str, reason: str, request: gr.Request) -> list[Any]:
                session = accounts.require(request, ROLE)
                ticket_id, _ = _ticket(ticket_id)
                assignment, _ = store.view(ticket_id, rater_of(session))
                if assignment.state == "open" and how == "skip":
                    store.skip(ticket_id, rater_of(session))
                    frame.tell(say("duel.skipped", language), language)
                elif how == "report":
                    store.report(ticket_id, rater_of(session), duel.masked(reason))
                    frame.tell(say("duel.reported", language), language)
                return following(session, name)

            return handler

        def undo(name: str, ticket_id: str, request: gr.Request) -> list[Any]:
            session = accounts.require(request, ROLE)
            before = store.previous(rater_of(session), name, before=_ticket(ticket_id)[0] or None)
            if before is None:
                frame.tell(say("review.nothing_to_undo", language), language)
                return [gr.skip()] * len(shown)
            return page(session, name, before)

        entry = [study, ticket, bar.choice, bar.reason]
        bar.submit.click(frame.guarded(vote, language), entry, shown, **frame.QUIETLY)
        ids = [study, ticket, bar.reason]
        bar.skip.click(frame.guarded(leave("skip"), language), ids, shown, **frame.QUIETLY)
        bar.report.click(frame.guarded(leave("report"), language), ids, shown, **frame.QUIETLY)
        assert bar.undo is not None
        bar.undo.click(frame.guarded(undo, language), [study, ticket], shown, **frame.QUIETLY)
        late_undo.click(frame.guarded(undo, language), [study, ticket], shown, **frame.QUIETLY)
        study.input(frame.guarded(choose, language), study, shown, **frame.QUIETLY)
        demo.load(frame.guarded(enter, language), None, [study, *shown], **frame.QUIETLY)
    return demo


def _ticket(text: str) -> tuple[str, bool]:
    """(assignment id, whether the page was opened by Undo): only then may a vote replace another."""
    return text.removesuffix(REVISING), text.endswith(REVISING)


def _blind(assignment: Assignment, comparison: Comparison, names: Collection[str]) -> Duel:
    """The pair as the rater may see it, voted or not: without names."""
    return replace(show(replace(assignment, state="open"), comparison, names), state="votable")


def _summary(seen: Duel, language: Language) -> str:
    case = seen.case
    facts = [say("review.case", language), case.department, case.intent]
    return escape.escape(" · ".join(fact for fact in facts if fact))


def _left(done: Progress) -> int:
    return done.total - done.done - done.skipped


def _progress(done: Progress | None, language: Language) -> str:
    if done is None or not done.total:
        return conversation.block("", "progress")
    finished = done.done + done.skipped
    percent = 100 * finished / done.total
    words = say("review.progress", language, done=done.done, total=done.total)
    if done.skipped:
        words += " · " + say("review.skipped", language, skipped=done.skipped)
    if _left(done):
        pace = done.median_seconds / 60 if done.median_seconds else MINUTES_A_PAIR
        words += " · " + say("review.minutes", language, minutes=max(1, round(_left(done) * pace)))
    return conversation.block(
        f'<span class="words">{words}</span>'
        f'<span class="track" role="progressbar" aria-valuemin="0" aria-valuemax="{done.total}" '
        f'aria-valuenow="{finished}" aria-label="{words}"><i style="width:{percent:.1f}%"></i></span>',
        "progress",
    )


def _revising(choice: str, language: Language) -> str:
    words = say("review.revising", language, choice=say("duel.vote_" + choice, language))
    return f'\n<p class="revising" role="status">{words}</p>'


def _nothing(done: Progress | None, language: Language) -> str:
    key = "review.done" if done and done.total else "review.empty"
    return conversation.block(
        f"<h1>{say(key, language)}</h1><p>{say(key + '_more', language)}</p>", "welcome"
    )
