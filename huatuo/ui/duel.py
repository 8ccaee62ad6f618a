"""two answers side by side and the bar to vote with: shared by the compare and the review page."""

import html as escape
from dataclasses import dataclass

import gradio as gr

from huatuo import arena, privacy, render
from huatuo.accounts import Accounts, Session
from huatuo.engines.pool import Pool
from huatuo.ui import conversation, drafts, frame, rating, spans
from huatuo.ui.text import Language, say
from reviews.errors import AlreadyVoted
from reviews.records import first_tab
from reviews.store import Store

CHOICES = ("left", "right", "tie", "both_bad")


@dataclass(frozen=True)
class VoteBar:
    """The components of the bar that sticks to the bottom of the page."""

    box: gr.Column
    choice: gr.Radio
    reason: gr.Textbox
    submit: gr.Button
    skip: gr.Button
    report: gr.Button
    undo: gr.Button | None
    ratings: gr.Markdown
    keys: gr.Markdown


def vote_bar(language: Language, submit: str, *, with_undo: bool) -> VoteBar:
    """The bar: four choices (keys 1-4), the study's criteria (R), an optional reason, submit (Enter),
    own answer (B), skip (S), undo (Z), report, pause (P).

    The buttons for the own answer and the pause are the page's script's alone.
    """
    with gr.Column(elem_id="vote-bar", visible=False) as box:
        with gr.Row(elem_id="vote-row"):
            choice = gr.Radio(
                [(say(f"duel.vote_{name}", language), name) for name in CHOICES],
                label=say("duel.choice", language),
                show_label=False,
                container=False,
                elem_id="choice",
                scale=4,
            )
            sent = gr.Button(say(submit, language), variant="primary", elem_id="submit-vote")
        ratings = frame.html(elem_id="ratings")
        with gr.Row(elem_id="reason-row"):
            reason = gr.Textbox(
                label=say("duel.reason", language),
                show_label=False,
                placeholder=f"{say('duel.reason', language)} · {say('duel.reason_placeholder', language)}",
                lines=1,
                max_lines=4,
                elem_id="reason",
                scale=6,
            )
            gr.Button(say("better.open", language), size="sm", elem_id="open-better")
            undo = (
                gr.Button(say("duel.undo", language), size="sm", elem_id="undo")
                if with_undo
                else None
            )
            skip = gr.Button(say("duel.skip", language), size="sm", elem_id="skip")
            report = gr.Button(say("duel.report", language), size="sm", elem_id="report")
            gr.Button(say("pause.button", language), size="sm", elem_id="pause")
        keys = frame.html(elem_id="keys")
    return VoteBar(box, choice, reason, sent, skip, report, undo, ratings, keys)


def draw(
    duel: arena.Duel, language: Language, *, case: str = "", marks: spans.Shown | None = None
) -> str:
    """The comparison as HTML.

    case: the summary of a prepared case; with it the first question is a panel that can be folded.
    marks: the passages marked as dangers; without it none can be marked.
    """
    first = first_tab(duel.assignment_id)
    tabs = "".join(
        f'<button type="button" role="tab" data-pane="{side}" aria-selected="{str(side == first).lower()}">'
        f"{say('duel.' + side, language)}</button>"
        for side in ("left", "right")
    )
    parts = [
        f'<div class="tabs" role="tablist" aria-label="{say("duel.tabs", language)}">{tabs}</div>',
        conversation.notices(arena.notices(duel), language),
    ]
    for position, turn in enumerate(duel.turns):
        asked = (turn.question, turn.question_right) if turn.question_right else ("", "")
        if any(asked):  # two simulated patients: each pane shows its own
            if case and position == 0:
                parts.append(f'<p class="case">{case}</p>')
        elif case and position == 0:
            parts.append(
                f'<details class="case" open><summary>{case}</summary>'
                f'<div class="said">{render.plain(turn.question)}</div></details>'
            )
        else:
            parts.append(conversation.question(turn.question, say("duel.question", language)))
        parts.append(
            '<div class="panes">'
            + _pane(("left", position + 1), turn.left, duel, marks, language, asked[0])
            + _pane(("right", position + 1), turn.right, duel, marks, language, asked[1])
            + "</div>"
        )
    if duel.state == "broken" and duel.turns:
        last = duel.turns[-1]
        side = "right" if last.left.finish == "stop" else "left"
        word = say("duel." + side, language)
        word = word if language == "zh" else word.lower()
        parts.append(
            f'<p class="unfinished" role="alert">{say("duel.broken", language, side=word)}</p>'
        )
    about = {"data-state": duel.state, "data-pair": duel.assignment_id, "data-first": first}
    return conversation.block("".join(parts), "duel", **about)


def _pane(
    where: spans.Where,
    pane: arena.Pane,
    duel: arena.Duel,
    marks: spans.Shown | None,
    language: Language,
    asked: str = "",
) -> str:
    side, turn = where
    title = say("duel." + side, language)
    text, shown = pane.text, ""
    if duel.names is not None:
        name = duel.names[0 if side == "left" else 1]
        shown = f'<span class="name">{escape.escape(name)}</span>'
    label = escape.escape(say("duel.pane_label", language, side=title))
    # Why a side failed could tell which engine it is: before the vote only that it failed is said.
    finish = pane.finish if pane.finish != "error" else "length" if text else "stop"
    finish = finish if duel.state != "writing" else None
    flag = ""
    if marks is not None and where in marks.stored and finish == "stop":
        mine = [(n, s) for n, s in enumerate(marks.spans) if (s.side, s.turn) == where]
        body = spans.mark(text, marks.stored[where], mine, language, removable=marks.removable)
        flag = _flag_button(side, title, language) if marks.removable else ""
    else:
        body = conversation.answer(text, finish, "", language)
    told = conversation.question(asked, say("duel.question", language)) if asked else ""
    return (
        f'<article class="pane {side}" aria-label="{label}"><div class="head"><h2>{title}{shown}</h2>{flag}</div>{told}'
        f'<div class="said" data-side="{side}" data-turn="{turn}">{body}</div></article>'
    )


def _flag_button(side: str, title: str, language: Language) -> str:
    label = say("flag.button_label", language, side=title)
    return (
        f'<button type="button" class="flag-button" data-flag="{side}" aria-label="{label}">'
        f"{say('flag.button', language)}</button>"
    )


def cast(
    store: Store,
    accounts: Accounts,
    session: Session,
    ticket_id: str,
    choice: str,
    reason: str | None,
    language: Language,
    *,
    work: drafts.Work | None = None,
    revise: bool = False,
    seconds: float | None = None,
) -> None:
    """Records the vote of this session's user and says so. Raises AlreadyVoted on a conflict.

    work: what was added to the choice and the reason.
    """
    accounts.allow(session, "vote")
    result = store.cast_vote(
        ticket_id,
        arena.rater_of(session),
        choice,
        reason=masked(reason),
        ratings=work.ratings if work else None,
        spans=work.spans if work else (),
        better=rating.better_of(work, masked) if work else None,
        seconds=seconds,
        revise=revise,
    )
    if result == "conflict":
        raise AlreadyVoted(ticket_id)
    if revise:
        frame.tell(say("duel.revised", language), language)


def masked(reason: str | None) -> str:
    """What a rater wrote, without identifiers: it is kept for ever and exported."""
    return privacy.mask((reason or "").strip()).text


def model_titles(pool: Pool, language: Language) -> dict[str, str]:
    """Name -> title of every model in this language."""
    return {
        name: (model.title_zh if language == "zh" else model.title_en) or name
        for name, model in pool.configs.items()
    }
