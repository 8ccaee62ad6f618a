"""two answers side by side and the bar to vote with: shared by the compare and the review page."""

import html as escape
from dataclasses import dataclass

import gradio as gr

from huatuo import arena, privacy, render
from huatuo.accounts import Accounts, Session
from huatuo.engines.pool import Pool
from huatuo.ui import conversation, frame
from huatuo.ui.text import Language, say
from reviews.errors import AlreadyVoted
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


def vote_bar(language: Language, submit: str, *, with_undo: bool) -> VoteBar:
    """The bar: four choices (keys 1-4), an optional reason, submit (Enter), skip (S), undo (Z), report."""
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
            undo = (
                gr.Button(say("duel.undo", language), size="sm", elem_id="undo")
                if with_undo
                else None
            )
            skip = gr.Button(say("duel.skip", language), size="sm", elem_id="skip")
            report = gr.Button(say("duel.report", language), size="sm", elem_id="report")
        keys = say("duel.keys_undo" if with_undo else "duel.keys", language)
        frame.html(f'<p class="keys">{keys}</p>', elem_id="keys")
    return VoteBar(box, choice, reason, sent, skip, report, undo)


def draw(duel: arena.Duel, language: Language, *, case: str = "") -> str:
    """The comparison as HTML.

    case: the summary of a prepared case; with it the first question is a panel that can be folded.
    """
    tabs = "".join(
        f'<button type="button" role="tab" data-pane="{side}" aria-selected="{str(side == "left").lower()}">'
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
            + _pane("left", turn.left, duel, language, asked[0])
            + _pane("right", turn.right, duel, language, asked[1])
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
    return conversation.block("".join(parts), "duel", **{"data-state": duel.state})


def _pane(
    side: str, pane: arena.Pane, duel: arena.Duel, language: Language, asked: str = ""
) -> str:
    title = say("duel." + side, language)
    text, shown = pane.text, ""
    if duel.names is not None:
        name = duel.names[0 if side == "left" else 1]
        shown = f'<span class="name">{escape.escape(name)}</span>'
    label = escape.escape(say("duel.pane_label", language, side=title))
    # Why a side failed could tell which engine it is: before the vote only that it failed is said.
    finish = pane.finish if pane.finish != "error" else "length" if text else "stop"
    body = conversation.answer(text, finish if duel.state != "writing" else None, "", language)
    told = conversation.question(asked, say("duel.question", language)) if asked else ""
    return (
        f'<article class="pane {side}" aria-label="{label}"><h2>{title}{shown}</h2>{told}'
        f'<div class="said">{body}</div></article>'
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
    revise: bool = False,
    seconds: float | None = None,
) -> None:
    """Records the vote of this session's user and says so. Raises AlreadyVoted on a conflict."""
    accounts.allow(session, "vote")
    result = store.cast_vote(
        ticket_id,
        arena.rater_of(session),
        choice,
        reason=masked(reason),
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
