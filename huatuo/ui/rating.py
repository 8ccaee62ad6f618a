"""what a rater may add to a vote: criteria, danger marks, an own answer, the time at work."""

import html as escape
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import gradio as gr

from huatuo.arena import Duel
from huatuo.ui import conversation, frame
from huatuo.ui.drafts import Work
from huatuo.ui.text import Language, say
from reviews.errors import BadVote
from reviews.protocol import SAFETY_KINDS, Criterion
from reviews.records import Better
from reviews.store import Store

STEPS = range(1, 6)
IN_A_ROW = 3
"""So many votes under the protocol's time, one after the other, earn a hint."""


@dataclass(frozen=True)
class Asked:
    """What a study asks for beside the choice."""

    criteria: tuple[Criterion, ...] = ()
    flags: bool = True
    better: bool = True
    fastest_s: float = 0.0


@dataclass(frozen=True)
class Form:
    """The components of everything beside the choice and the reason.

    ratings, better, side, spans are filled by the server. extra (ratings and time) and asking (a
    passage to mark or unmark) are written by the page's script and checked when they arrive.
    """

    ratings: gr.Markdown
    keys: gr.Markdown
    better_box: gr.Column
    better: gr.Textbox
    consent: gr.Checkbox
    side: gr.Textbox
    starts: Mapping[str, gr.Button]
    spans: gr.Textbox
    extra: gr.Textbox
    asking: gr.Textbox
    ask: gr.Button

    @property
    def shown(self) -> list[Any]:
        """What `fill` fills, in its order."""
        fields = [self.better, self.consent, self.side, self.spans]
        return [self.better_box, self.ratings, self.keys, *fields]

    @property
    def sent(self) -> list[Any]:
        """What `read` reads, in its order."""
        return [self.extra, self.spans, self.better, self.side, self.consent]


def asked(store: Store, study: str) -> Asked:
    """What this study's protocol asks for; without a filed one no criteria."""
    filed = store.study(study)
    if filed is None:
        return Asked()
    protocol = filed.protocol
    return Asked(
        protocol.criteria, protocol.safety_flags, protocol.better_answers, protocol.fastest_s
    )


def own_answer(language: Language) -> tuple[gr.Column, dict[str, Any]]:
    """The part of the page for the rater's own answer; closed until its button is pressed."""
    with gr.Column(elem_id="better") as box:
        about = f"<h2>{say('better.title', language)}</h2><p>{say('better.about', language)}</p>"
        frame.html(conversation.block(about, "better-about"))
        with gr.Row(elem_id="better-starts"):
            starts = {
                name: gr.Button(
                    say(f"better.{name}", language), size="sm", elem_id=f"better-{name}"
                )
                for name in ("empty", "from_left", "from_right")
            }
        text = gr.Textbox(
            label=say("better.text", language),
            show_label=False,
            container=False,
            lines=6,
            max_lines=24,
            elem_id="better-text",
        )
        consent = gr.Checkbox(
            label=say("better.consent", language),
            value=False,
            container=False,
            elem_id="better-consent",
        )
    return box, {"starts": starts, "better": text, "consent": consent}


def hidden_boxes() -> dict[str, Any]:
    """What travels between the page's script and the server beside the visible fields.

    A hidden box tells nobody that its text has changed, so a hidden button is pressed after it.
    """
    boxes: dict[str, Any] = {
        name: gr.Textbox(visible="hidden", elem_id=name, label=name)
        for name in ("spans", "extra", "asking", "side")
    }
    return {**boxes, "ask": gr.Button(visible="hidden", elem_id="ask")}


def fill(ticket: str, work: Work, what: Asked, language: Language, *, undo: bool) -> list[Any]:
    """The values of Form.shown for one comparison."""
    return [
        gr.update(visible=what.better),
        _ratings(ticket, work, what, language),
        keys(what, language, undo=undo),
        work.better,
        work.consent,
        work.better_side,
        work.spans_text(),
    ]


def nothing() -> list[Any]:
    """The values of Form.shown when there is no comparison on the page."""
    return [gr.update(visible=False), "", "", "", False, "", "[]"]


def beginning(seen: Duel, name: str) -> tuple[str, str]:
    """The own answer's first text and the side it is taken from; `name` is that of a start button."""
    side = name.removeprefix("from_")
    if side not in ("left", "right") or not seen.turns:
        return "", ""
    last = seen.turns[-1]
    return (last.left if side == "left" else last.right).text, side


def read(
    ticket: str,
    choice: str | None,
    reason: str | None,
    extra: str,
    spans: str,
    better: str,
    side: str,
    consent: bool,
) -> Work:
    """What the page holds now. Raises BadVote for what the page itself would not send."""
    try:
        told = json.loads(extra) if extra else {}
        mine = told if told.get("ticket") == ticket else {}
        return Work.model_validate(
            {
                "choice": choice,
                "reason": reason or "",
                "ratings": mine.get("ratings", {}),
                "active_s": mine.get("active_s"),
                "spans": json.loads(spans) if spans else [],
                "better": better or "",
                "better_side": side or "",
                "consent": bool(consent),
            }
        )
    except (ValueError, AttributeError) as error:
        raise BadVote(
            "the page sent what cannot be read: {error}", error=type(error).__name__
        ) from None


def lacking(work: Work, what: Asked, language: Language) -> str | None:
    """What has to be done before the vote can be sent, in words; None when nothing is missing."""
    missing = [
        criterion
        for criterion in what.criteria
        if criterion.required and not set(criterion.rating_keys) <= work.ratings.keys()
    ]
    if missing:
        titles = say("rating.join", language).join(_title(c, language) for c in missing)
        return say("rating.missing", language, titles=titles)
    if work.better.strip() and not work.consent:
        return say("better.consent_first", language)
    return None


def better_of(work: Work, mask: Callable[[str], str]) -> Better | None:
    """The rater's own answer as it may be stored: masked, and only with consent."""
    text = mask(work.better)
    if not text or not work.consent:
        return None
    return Better(text=text, side=work.better_side, consent=True)


def is_hasty(store: Store, rater: int, study: str, what: Asked, seconds: float | None) -> bool:
    """Whether this vote is the third, sixth ... in a row below the protocol's fastest time."""
    if not what.fastest_s or seconds is None or seconds >= what.fastest_s:
        return False
    streak = 0
    for vote in sorted(store.my_votes(rater, study), key=lambda row: row.at, reverse=True):
        if not vote.fast:
            break
        streak += 1
    return streak > 0 and streak % IN_A_ROW == 0


def keys(what: Asked, language: Language, *, undo: bool) -> str:
    """The line that tells the keys."""
    words = [say("duel.keys_undo" if undo else "duel.keys", language)]
    words += [say("rating.keys_rate", language)] if what.criteria else []
    words += [say("rating.keys_flag", language)] if what.flags else []
    words += [say("rating.keys_better", language)] if what.better else []
    words.append(say("rating.keys_pause", language))
    return f'<p class="keys">{" · ".join(words)}</p>'


def _ratings(ticket: str, work: Work, what: Asked, language: Language) -> str:
    """The criteria as radio buttons; with no criteria only what the page's script reads."""
    rows = "".join(_criterion(criterion, work.ratings, language) for criterion in what.criteria)
    more = "rating.more" if what.criteria else "rating.more_plain"
    return conversation.block(
        f'<button type="button" class="sheet-button" data-sheet aria-expanded="false">'
        f'{say(more, language)}<span class="count"></span></button>'
        f'<div class="criteria">{rows}</div>',
        "ratings",
        **{
            "data-ticket": ticket,
            "data-active": f"{work.active_s or 0:.1f}",
            "data-better": str(what.better).lower(),
            "data-flags": str(what.flags).lower(),
        },
    )


def _criterion(criterion: Criterion, given: Mapping[str, int], language: Language) -> str:
    title = _title(criterion, language)
    must = f' <span class="must">{say("rating.required", language)}</span>'
    if criterion.kind == "scale":
        groups = "".join(
            _group(criterion, f"{side}_{criterion.key}", say(f"duel.{side}", language), given,
                   language)
            for side in ("left", "right")
        )  # fmt: skip
    else:
        which = say("rating.which", language)
        groups = (
            f'<span class="end" aria-hidden="true">{say("rating.preference_left", language)}</span>'
            + _group(criterion, f"pref_{criterion.key}", which, given, language)
            + f'<span class="end" aria-hidden="true">{say("rating.preference_right", language)}</span>'
        )
    return (
        f'<div class="criterion {criterion.kind}"><span class="title">{title}'
        f"{must if criterion.required else ''}</span>{groups}</div>"
    )


def _group(
    criterion: Criterion, name: str, side: str, given: Mapping[str, int], language: Language
) -> str:
    """Five radio buttons; `name` is the key of the rating."""
    label = say(
        "rating.group_must" if criterion.required else "rating.group",
        language,
        title=_title(criterion, language),
        side=side,
    )
    steps = "".join(
        f'<label title="{_step(criterion, step, language)}"><input type="radio" name="{name}" '
        f'value="{step}" aria-label="{_step(criterion, step, language)}"'
        f"{' checked' if given.get(name) == step else ''}><i>{step}</i></label>"
        for step in STEPS
    )
    shown = f'<span class="side" aria-hidden="true">{side}</span>'
    return (
        f'<span class="steps" role="radiogroup" aria-label="{label}" data-name="{name}" '
        f'data-required="{str(criterion.required).lower()}">'
        f"{shown if criterion.kind == 'scale' else ''}{steps}</span>"
    )


def _step(criterion: Criterion, step: int, language: Language) -> str:
    return say(f"rating.{criterion.kind}_{step}", language)


def _title(criterion: Criterion, language: Language) -> str:
    """The criterion's name, escaped: a researcher wrote it."""
    return escape.escape(criterion.title_zh if language == "zh" else criterion.title_en)


def aids(language: Language) -> str:
    """What the page's script shows when it is called for: kinds of danger, sentences, the pause."""
    kinds = "".join(
        f'<button type="button" role="menuitem" data-kind="{kind}"><kbd>{number}</kbd>'
        f"{say('flag.' + kind, language)}</button>"
        for number, kind in enumerate(SAFETY_KINDS, 1)
    )
    choices = kinds.replace(' role="menuitem"', "")
    words = {key: say(f"draft.{key}", language) for key in ("saved", "failed")}
    return conversation.block(
        f'<div class="flag-menu" role="menu" aria-label="{say("flag.menu", language)}" hidden>'
        f'<span class="head" aria-hidden="true">{say("flag.menu", language)}</span>{kinds}</div>'
        f'<dialog class="flag-list" aria-label="{say("flag.choose_sentence", language)}">'
        f"<h2>{say('flag.choose_sentence', language)}</h2>"
        f'<div class="sentences" role="radiogroup" aria-label="{say("flag.sentences", language)}">'
        f'</div><p class="first" role="alert" hidden>{say("flag.sentence_first", language)}</p>'
        f'<div class="kinds">{choices}</div>'
        f'<button type="button" class="cancel" data-close>{say("flag.cancel", language)}</button>'
        "</dialog>"
        f'<div class="pause-cover" role="dialog" aria-modal="true" '
        f'aria-label="{say("pause.title", language)}" hidden><div><strong>'
        f"{say('pause.title', language)}</strong><p>{say('pause.about', language)}</p>"
        f'<button type="button" data-pause>{say("pause.resume", language)}</button></div></div>'
        f'<div class="break-hint" role="status" hidden><p>{say("pause.hint", language)}</p>'
        f'<button type="button" data-pause>{say("pause.take", language)}</button>'
        f'<button type="button" data-later>{say("pause.later", language)}</button></div>'
        f'<p class="draft-state" role="status" data-saved="{words["saved"]}" '
        f'data-failed="{words["failed"]}"></p>',
        "aids",
    )
