"""the adjudication page: pairs on which physicians contradict each other, for a senior's blind verdict."""

import html as escape

import gradio as gr

from huatuo.accounts import Accounts, Role
from huatuo.arena import rater_of
from huatuo.engines.pool import Pool
from huatuo.ui import conversation
from huatuo.ui.review import Queue, build_queue
from huatuo.ui.text import Language, say
from reviews.records import Assignment, Vote
from reviews.store import Store

ROLE: Role = "adjudicator"


def build(store: Store, pool: Pool, accounts: Accounts, language: Language) -> gr.Blocks:
    """The page in one language: the pair without names, the votes without raters, one verdict."""
    queue = Queue(
        page="adjudicate",
        role=ROLE,
        submit="adjudicate.submit",
        studies=lambda session: _studies(store, rater_of(session)),
        following=store.next_adjudication,
        progress=lambda rater, name: None,
        beside=lambda assignment, rater: _votes(store, assignment, rater, language),
        nothing=lambda name, done: ("adjudicate.empty", "adjudicate.empty_more"),
        with_undo=False,
    )
    return build_queue(queue, store, pool, accounts, language)


def _studies(store: Store, rater: int) -> list[str]:
    """Every study whose protocol asks for adjudication; first one with a pair for this senior."""
    names = []
    for summary in store.studies():
        filed = store.study(summary.name)
        if filed is not None and filed.protocol.adjudicate:
            names.append(summary.name)
    waiting = (name for name in names if store.next_adjudication(rater, name))
    if first := next(waiting, None):  # asked one by one: the pair it finds is given out
        names.remove(first)
        names.insert(0, first)
    return names


def _votes(store: Store, assignment: Assignment, rater: int, language: Language) -> str:
    """The votes that disagree, by sides as the senior sees them, numbered instead of named."""
    rows = "".join(
        f"<li><strong>{say('adjudicate.rater', language, number=number)}</strong> "
        f'<span class="choice">{say("duel.vote_" + vote.choice, language)}</span>'
        f'<span class="reason">{_reason(vote, language)}</span></li>'
        for number, vote in enumerate(store.adjudication_votes(assignment.id, rater), 1)
    )
    return conversation.block(
        f"<h2>{say('adjudicate.votes', language)}</h2><ul>{rows}</ul>"
        f'<p class="quiet">{say("adjudicate.about", language)}</p>',
        "opinions",
    )


def _reason(vote: Vote, language: Language) -> str:
    return escape.escape(vote.reason) or say("adjudicate.no_reason", language)
