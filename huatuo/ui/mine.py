"""a rater's own page: votes and pace in each study; after it has closed, agreement with the others."""

import html as escape
import math
import statistics
from collections.abc import Sequence

import gradio as gr

from huatuo.accounts import Accounts, Role
from huatuo.arena import rater_of
from huatuo.ui import conversation, frame
from huatuo.ui.text import Language, say
from reviews import panel
from reviews.records import LIVE_STUDY, VoteRow
from reviews.store import Store

ROLE: Role = "physician"
LISTED = 100
"""So many of one's newest votes are listed."""


def build(store: Store, accounts: Accounts, language: Language) -> gr.Blocks:
    """The page in one language; drawn anew each time it is opened. It tells of nobody else."""
    with frame.blocks("mine", language) as demo:
        frame.with_header(demo, accounts, "mine", language, ROLE)
        with gr.Column(elem_id="main", elem_classes=["wide"]):
            body = frame.html(elem_id="mine")

        def enter(request: gr.Request) -> str:
            session = accounts.require(request, ROLE)
            return report(store, rater_of(session), language)

        demo.load(frame.guarded(enter, language), None, body, **frame.QUIETLY)
    return demo


def report(store: Store, rater: int, language: Language) -> str:
    """All studies in which this rater has voted, as one block of HTML."""
    names = [summary.name for summary in store.studies()]
    names += [name for name in (LIVE_STUDY,) if name not in names]
    parts = [
        f"<h1>{say('mine.title', language)}</h1>",
        f'<p class="quiet">{say("mine.about", language)}</p>',
    ]
    voted = [(name, mine) for name in names if (mine := store.my_votes(rater, name))]
    parts += [_study(store, rater, name, mine, language) for name, mine in voted]
    if not voted:
        parts.append(f"<p>{say('mine.empty', language)}</p>")
    return conversation.block("".join(parts), "mine")


def _study(store: Store, rater: int, name: str, mine: Sequence[VoteRow], language: Language) -> str:
    title = say("mine.live", language) if name == LIVE_STUDY else name
    if name != LIVE_STUDY and (filed := store.study(name)):
        protocol = filed.protocol
        title = (protocol.title_zh if language == "zh" else protocol.title_en) or name
    verdicts = sum(vote.purpose == "adjudication" for vote in mine)
    own = [vote for vote in mine if vote.purpose == "vote"]
    facts = [(say("mine.votes", language), _count(store, rater, name, own, language))]
    if pace := [vote.seconds for vote in mine if vote.seconds is not None]:
        facts.append((say("mine.pace", language), _seconds(statistics.median(pace), language)))
    for key, number in (
        ("mine.verdicts", verdicts),
        ("mine.revised", sum(vote.revisions > 1 for vote in mine)),
        ("mine.flags", sum(len(vote.spans) for vote in mine)),
        ("mine.better", sum(vote.better is not None for vote in mine)),
    ):
        if number:
            facts.append((say(key, language), str(number)))
    if own:
        facts.append((say("mine.agreement", language), _agreement(store, name, own, language)))
    rows = "".join(f"<div><dt>{term}</dt><dd>{fact}</dd></div>" for term, fact in facts)
    return (
        f'<section class="own-study"><h2>{escape.escape(title)}</h2><dl>{rows}</dl>'
        f"{_list(mine, language)}</section>"
    )


def _count(store: Store, rater: int, name: str, mine: Sequence[VoteRow], language: Language) -> str:
    total = store.progress(rater, name).total
    return say("mine.of", language, done=len(mine), total=total) if total else str(len(mine))


def _agreement(store: Store, name: str, mine: Sequence[VoteRow], language: Language) -> str:
    """One's own row of the reliability table, once nobody's judgement can be swayed by it."""
    filed = store.study(name)
    if filed is None or filed.state != "closed":
        return say("mine.not_closed", language)
    number = mine[0].rater
    own = next(row for row in panel.reliability(store.votes(name)) if row.rater == number)
    if not own.shared:
        return say("mine.nobody_else", language)
    words = say(
        "mine.share",
        language,
        share=_percent(own.agreement.value),
        low=_percent(own.agreement.low),
        high=_percent(own.agreement.high),
        n=own.shared,
    )
    if not math.isnan(own.kappa):
        words += "<br>" + say("mine.kappa", language, kappa=f"{own.kappa:.2f}")
    return words


def _list(mine: Sequence[VoteRow], language: Language) -> str:
    newest = sorted(mine, key=lambda vote: vote.at, reverse=True)[:LISTED]
    heads = "".join(
        f'<th scope="col">{say(f"mine.{key}", language)}</th>'
        for key in ("when", "case", "choice", "time")
    )
    rows = "".join(
        f"<tr><td>{vote.at:%Y-%m-%d %H:%M} UTC</td><td>{_case(vote)}</td>"
        f"<td>{say('duel.vote_' + vote.choice, language)}</td>"
        f"<td>{'' if vote.seconds is None else _seconds(vote.seconds, language)}</td></tr>"
        for vote in newest
    )
    note = ""
    if len(mine) > LISTED:
        note = f'<p class="quiet">{say("mine.newest", language, n=LISTED)}</p>'
    return (
        f"<details><summary>{say('mine.list', language)}</summary>{note}"
        f'<div class="table" tabindex="0"><table><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table>'
        "</div></details>"
    )


def _case(vote: VoteRow) -> str:
    facts = (vote.external_id, vote.department, vote.intent)
    return escape.escape(" · ".join(fact for fact in facts if fact))


def _seconds(seconds: float, language: Language) -> str:
    return say("mine.seconds", language, seconds=round(seconds))


def _percent(share: float) -> str:
    return f"{100 * share:.0f}"
